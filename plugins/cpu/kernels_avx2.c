/* kernels_avx2.c - the arithmetic for processors with AVX2 and FMA. */
#define ROWS   4
#define PANELS 1
#include "plugins/cpu/kernels_simd.h"

const rd_kernels rd_kernels_avx2 = { .name = "avx2",
                                     .half = false,
                                     .exact = RD_PANELS_F32,
                                     .fast = RD_PANELS_BF16,
                                     .product = product,
                                     .norm = norm,
                                     .gate = gate,
                                     .attend = attend,
                                     .top_two = top_two,
                                     .sum_exp = sum_exp };
