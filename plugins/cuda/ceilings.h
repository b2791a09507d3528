/* ceilings.h - what this GPU does at best: reading memory, bf16 products on tensor cores. */
#ifndef RD_CUDA_CEILINGS_H
#define RD_CUDA_CEILINGS_H

#include "plugins/cuda/device.h"

CUDA_LOCAL rd_status cuda_ceilings(const rd_device_options *o, rd_ceilings *out, rd_error *err);

#endif
