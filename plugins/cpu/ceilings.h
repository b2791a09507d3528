/* ceilings.h - what this processor does at best: reading memory, int8 and bf16 products. */
#ifndef RD_CPU_CEILINGS_H
#define RD_CPU_CEILINGS_H

#include "core/backend.h"

rd_status rd_cpu_ceilings(const rd_device_options *o, rd_ceilings *out, rd_error *err);

#endif
