/* kernels_avx512.c - the arithmetic for processors with AVX-512. */
#define ROWS   8
#define PANELS 2
#include "plugins/cpu/kernels_simd.h"

const rd_kernels rd_kernels_avx512 = { .name = "avx512",
                                       .half = false,
                                       .exact = RD_PANELS_F32,
                                       .fast = RD_PANELS_BF16,
                                       .product = product,
                                       .norm = norm,
                                       .gate = gate,
                                       .attend = attend,
                                       .top_two = top_two,
                                       .sum_exp = sum_exp };
