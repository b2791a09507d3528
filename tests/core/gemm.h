/* gemm.h - the training products of the CPU as the verb that the trainer takes. */
#ifndef RD_TEST_GEMM_H
#define RD_TEST_GEMM_H

#include "plugins/cpu/gemm_train.h"

static inline rd_status multiply(rd_device *d, bool ta, bool tb, int m, int n, int k,
                                 const float *a, int lda, const float *b, int ldb, float beta,
                                 float *c, int ldc, rd_error *err)
{
    return rd_gemm_train_run((rd_gemm_train *)(void *)d, ta, tb, m, n, k, a, lda, b, ldb, beta, c,
                             ldc, err);
}

#endif
