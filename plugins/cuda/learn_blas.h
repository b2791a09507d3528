/* learn_blas.h - the few functions of cuBLAS that the learner calls, found when one opens.
 *
 * Inference needs none of them, and cuBLAS is some hundred megabytes to a process: whoever only looks whether there is a GPU
 * must not pay for that.
 */
#ifndef RD_CUDA_LEARN_BLAS_H
#define RD_CUDA_LEARN_BLAS_H

#include "plugins/cuda/gpu.cuh"

#include <cublas_v2.h>

extern "C" {
#include "core/base/status.h"
}

/* As in cublas_api.h; the names themselves have a second meaning in C++. */
typedef cublasStatus_t (*learn_blas_gemm)(cublasHandle_t h, cublasOperation_t ta,
                                          cublasOperation_t tb, int m, int n, int k,
                                          const void *alpha, const void *a, cudaDataType a_type,
                                          int lda, const void *b, cudaDataType b_type, int ldb,
                                          const void *beta, void *c, cudaDataType c_type, int ldc,
                                          cublasComputeType_t compute, cublasGemmAlgo_t algorithm);
typedef cublasStatus_t (*learn_blas_gemm_many)(
    cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k,
    const void *alpha, const void *a, cudaDataType a_type, int lda, long long a_step, const void *b,
    cudaDataType b_type, int ldb, long long b_step, const void *beta, void *c, cudaDataType c_type,
    int ldc, long long c_step, int batch, cublasComputeType_t compute, cublasGemmAlgo_t algorithm);

typedef struct learn_blas {
    cublasStatus_t (*create)(cublasHandle_t *out);
    cublasStatus_t (*destroy)(cublasHandle_t h);
    cublasStatus_t (*set_stream)(cublasHandle_t h, cudaStream_t stream);
    cublasStatus_t (*set_workspace)(cublasHandle_t h, void *workspace, size_t bytes);
    learn_blas_gemm gemm;
    learn_blas_gemm_many gemm_many;
} learn_blas;

/* The library stays loaded for good. RD_DEVICE: there is none, or it lacks a function. Any thread. */
CUDA_LOCAL rd_status learn_blas_find(learn_blas *out, rd_error *err);

#endif
