/* cpu.h - the linked-in backend; also the reference, in its plain variant. */
#ifndef RD_CPU_H
#define RD_CPU_H

#include "core/backend.h"

const rd_backend *rd_cpu_backend(void);

#endif
