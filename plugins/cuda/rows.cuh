/* rows.cuh - rounding rows to 16 bits, and commands that are one launch together. */
#ifndef RD_CUDA_ROWS_CUH
#define RD_CUDA_ROWS_CUH

#include "plugins/cuda/device.h"

/* Two numbers as products take them: bf16, or f16 with what is too large for it at its largest. */
template <cuda_half kind> static __device__ inline uint32_t cuda_pair(float low, float high)
{
    if (kind == CUDA_HALF_BF16) return gpu_bf16x2(low, high);
    low = low > 65504.0f ? 65504.0f : low < -65504.0f ? -65504.0f : low; /* NaN stays */
    high = high > 65504.0f ? 65504.0f : high < -65504.0f ? -65504.0f : high;
    return gpu_f16x2(low, high);
}

/* If the two commands are one launch: run both, and true. */
CUDA_LOCAL bool cuda_run_together(rd_device *d, cuda_run first, const void *first_args,
                                  cuda_run second, const void *second_args, rd_status *status,
                                  rd_error *err);

#endif
