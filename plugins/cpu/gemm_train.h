/* gemm_train.h - the trainer's matrix product on the CPU, behind the verb `gemm` of core/backend.h.
 *
 * One context serves one thread at a time; several threads open one each. With RD_FAST and a
 * machine that multiplies bf16, both factors are rounded to bf16 and the sums are float32
 * (oneDNN); with RD_EXACT, or without the library, everything is float32.
 */
#ifndef RD_CPU_GEMM_TRAIN_H
#define RD_CPU_GEMM_TRAIN_H

#include "core/backend.h"

typedef struct rd_gemm_train rd_gemm_train;

rd_status rd_gemm_train_open(rd_precision precision, rd_gemm_train **out, rd_error *err);
void rd_gemm_train_close(rd_gemm_train *g);
/* "onednn-bf16" or "plain". */
const char *rd_gemm_train_name(const rd_gemm_train *g);

/* C = beta C + op(A) op(B), float32 row-major, beta 0 or 1. op(A) is [m, k], op(B) is [k, n]. */
rd_status rd_gemm_train_run(rd_gemm_train *g, bool ta, bool tb, int m, int n, int k, const float *a,
                            int lda, const float *b, int ldb, float beta, float *c, int ldc,
                            rd_error *err);

#endif
