/* kernels_avx512_bf16.c - the arithmetic for processors with AVX-512 and its bf16 products. */
#include <immintrin.h>

#define HALF
#define ROWS   8
#define PANELS 2
#include "plugins/cpu/kernels_simd.h"

const rd_kernels rd_kernels_avx512_bf16 = { .name = "avx512-bf16",
                                            .half = true,
                                            .exact = RD_PANELS_F32,
                                            .fast = RD_PANELS_BF16,
                                            .product = product,
                                            .norm = norm,
                                            .gate = gate,
                                            .attend = attend,
                                            .top_two = top_two,
                                            .sum_exp = sum_exp };
