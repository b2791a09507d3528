/* cublas.cpp - matrix products of the emulated GPU: operands become float32 rows, then one plain product.
 *
 * Pointers must lie in device memory (or pinned memory), each matrix whole within its allocation: that is looked at before
 * anything is queued.
 */
#include "tests/plugins/cuda/emulator/cublas_v2.h"

#include "tests/plugins/cuda/emulator/fibre.h"
#include "tests/plugins/cuda/emulator/state.h"

struct rd_emulated_blas {
    cudaStream_t stream;
    cublasMath_t math;
    cublasPointerMode_t scalars;
};

/* What inputs are rounded to on the way in. */
enum rounding { ROUND_NOT, ROUND_F16, ROUND_BF16, ROUND_TF32 };

struct operand {
    const void *at;
    cudaDataType type;
    int ld;
    long long step;
};

struct product {
    bool ta, tb;
    int m, n, k, batch;
    operand a, b, c;
    rounding round;
    bool scalars_on_device;
    const float *alpha_at, *beta_at; /* on the device */
    float alpha, beta;
};

static size_t type_bytes(cudaDataType t)
{
    return t == CUDA_R_32F ? 4 : 2;
}

static float rounded(float x, rounding how)
{
    uint32_t u;

    switch (how) {
    case ROUND_F16: return gpu_from_f16(gpu_f16(x));
    case ROUND_BF16: return gpu_from_bf16(gpu_bf16(x));
    case ROUND_TF32:
        u = __float_as_uint(x);
        if ((u & 0x7f800000u) == 0x7f800000u) return x;
        return __uint_as_float((u + 0x1000u) & 0xffffe000u); /* 10 bits, ties away */
    default: return x;
    }
}

static float number(const operand *o, long long index)
{
    if (o->type == CUDA_R_32F) return static_cast<const float *>(o->at)[index];
    uint16_t x = static_cast<const uint16_t *>(o->at)[index];

    return o->type == CUDA_R_16BF ? gpu_from_bf16(x) : gpu_from_f16(x);
}

static void put(const operand *o, long long index, float x)
{
    void *at = const_cast<void *>(o->at);

    if (o->type == CUDA_R_32F) static_cast<float *>(at)[index] = x;
    else
        static_cast<uint16_t *>(at)[index] = o->type == CUDA_R_16BF ? gpu_bf16(x) : gpu_f16(x);
}

/* op(o) of batch `i` as rows: out [rows][cols]. `turned`: what is stored is the transpose. */
static void take(float *out, const operand *o, int i, bool turned, int rows, int cols, rounding how)
{
    long long first = o->step * i;

    for (int r = 0; r < rows; r++)
        for (int c = 0; c < cols; c++)
            out[(size_t)r * (size_t)cols + (size_t)c] = rounded(
                number(o, first + (turned ? (long long)r * o->ld + c : (long long)c * o->ld + r)),
                how);
}

static void multiply(const product *p)
{
    size_t m = (size_t)p->m, n = (size_t)p->n, k = (size_t)p->k;
    std::vector<float> a(m * k), b(k * n), row(n);
    float alpha = p->scalars_on_device ? *p->alpha_at : p->alpha;
    float beta = p->scalars_on_device ? *p->beta_at : p->beta;

    for (int i = 0; i < p->batch; i++) {
        take(a.data(), &p->a, i, p->ta, p->m, p->k, p->round);
        take(b.data(), &p->b, i, p->tb, p->k, p->n, p->round);
        for (size_t r = 0; r < m; r++) {
            std::fill(row.begin(), row.end(), 0.0f);
            for (size_t j = 0; j < k; j++) {
                float x = a[r * k + j];

                for (size_t c = 0; c < n; c++) row[c] += x * b[j * n + c];
            }
            for (size_t c = 0; c < n; c++) {
                long long at = p->c.step * i + (long long)c * p->c.ld + (long long)r;
                float old = beta == 0 ? 0.0f : beta * number(&p->c, at); /* not read, else */

                put(&p->c, at, alpha * row[c] + old);
            }
        }
    }
}

/* ---- checks ---- */

static bool held(const operand *o, int rows, int cols, int batch)
{
    long long last = o->step * (batch - 1) + (long long)(cols - 1) * o->ld + rows;
    bool whole;

    return rd_emulated_kind_of(o->at, (size_t)last * type_bytes(o->type), &whole) !=
               MEMORY_PAGEABLE &&
           whole;
}

static cublasStatus_t invalid(const char *what)
{
    fprintf(stderr, "emulator: cuBLAS: %s\n", what);
    return CUBLAS_STATUS_INVALID_VALUE;
}

static cublasStatus_t check(const product *p)
{
    int a_rows = p->ta ? p->k : p->m, b_rows = p->tb ? p->n : p->k;

    if (p->m < 0 || p->n < 0 || p->k < 0 || p->batch < 0) return invalid("a size below zero");
    if (p->a.ld < (a_rows > 1 ? a_rows : 1) || p->b.ld < (b_rows > 1 ? b_rows : 1) ||
        p->c.ld < (p->m > 1 ? p->m : 1))
        return invalid("a leading dimension below the rows of its matrix");
    if (p->a.type != p->b.type ||
        (p->a.type == CUDA_R_32F ? p->c.type != CUDA_R_32F
                                 : p->c.type != CUDA_R_32F && p->c.type != p->a.type))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (p->m == 0 || p->n == 0 || p->batch == 0) return CUBLAS_STATUS_SUCCESS;
    if (p->k > 0 && (!held(&p->a, a_rows, p->ta ? p->m : p->k, p->batch) ||
                     !held(&p->b, b_rows, p->tb ? p->k : p->n, p->batch)))
        return invalid("an operand that is not in device memory");
    return held(&p->c, p->m, p->n, p->batch) ? CUBLAS_STATUS_SUCCESS
                                             : invalid("a result that is not in device memory");
}

static rounding round_of(cublasHandle_t h, cudaDataType type, cublasComputeType_t compute)
{
    if (type != CUDA_R_32F || compute == CUBLAS_COMPUTE_32F_PEDANTIC) return ROUND_NOT;
    if (compute == CUBLAS_COMPUTE_32F_FAST_16BF) return ROUND_BF16;
    if (compute == CUBLAS_COMPUTE_32F_FAST_16F) return ROUND_F16;
    if (compute == CUBLAS_COMPUTE_32F_FAST_TF32 || (h->math & 15) == CUBLAS_TF32_TENSOR_OP_MATH)
        return ROUND_TF32;
    return ROUND_NOT;
}

static cublasStatus_t queue(cublasHandle_t h, product p, const void *alpha, const void *beta)
{
    rd_emulated_lock lock;
    cublasStatus_t s;

    if (!h) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (rd_emulated_lost() || rd_emulated_fault(RD_EMULATED_CUBLAS))
        return CUBLAS_STATUS_EXECUTION_FAILED;
    if ((s = check(&p))) return s;
    if (p.m == 0 || p.n == 0 || p.batch == 0) return CUBLAS_STATUS_SUCCESS;
    p.scalars_on_device = h->scalars == CUBLAS_POINTER_MODE_DEVICE;
    p.alpha_at = static_cast<const float *>(alpha);
    p.beta_at = static_cast<const float *>(beta);
    if (!p.scalars_on_device) {
        p.alpha = *p.alpha_at;
        p.beta = *p.beta_at;
    }
    return rd_emulated_add(h->stream, [p] { multiply(&p); }) ? CUBLAS_STATUS_EXECUTION_FAILED
                                                             : CUBLAS_STATUS_SUCCESS;
}

/* ---- the calls ---- */

cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t h, cublasOperation_t ta,
                                          cublasOperation_t tb, int m, int n, int k,
                                          const void *alpha, const void *a, cudaDataType a_type,
                                          int lda, long long a_step, const void *b,
                                          cudaDataType b_type, int ldb, long long b_step,
                                          const void *beta, void *c, cudaDataType c_type, int ldc,
                                          long long c_step, int batch, cublasComputeType_t compute,
                                          cublasGemmAlgo_t)
{
    product p = {};

    if (!h) return CUBLAS_STATUS_NOT_INITIALIZED;
    p.ta = ta != CUBLAS_OP_N;
    p.tb = tb != CUBLAS_OP_N;
    p.m = m, p.n = n, p.k = k, p.batch = batch;
    p.a = { a, a_type, lda, a_step };
    p.b = { b, b_type, ldb, b_step };
    p.c = { c, c_type, ldc, c_step };
    p.round = round_of(h, a_type, compute);
    return queue(h, p, alpha, beta);
}

cublasStatus_t cublasGemmEx(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m,
                            int n, int k, const void *alpha, const void *a, cudaDataType a_type,
                            int lda, const void *b, cudaDataType b_type, int ldb, const void *beta,
                            void *c, cudaDataType c_type, int ldc, cublasComputeType_t compute,
                            cublasGemmAlgo_t algorithm)
{
    return cublasGemmStridedBatchedEx(h, ta, tb, m, n, k, alpha, a, a_type, lda, 0, b, b_type, ldb,
                                      0, beta, c, c_type, ldc, 0, 1, compute, algorithm);
}

cublasStatus_t cublasSgemm(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m,
                           int n, int k, const float *alpha, const float *a, int lda,
                           const float *b, int ldb, const float *beta, float *c, int ldc)
{
    return cublasGemmEx(h, ta, tb, m, n, k, alpha, a, CUDA_R_32F, lda, b, CUDA_R_32F, ldb, beta, c,
                        CUDA_R_32F, ldc, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
}

cublasStatus_t cublasCreate(cublasHandle_t *out)
{
    rd_emulated_lock lock;

    if (rd_emulated_unsafe("cublasCreate")) return CUBLAS_STATUS_ALLOC_FAILED;
    if (rd_emulated_lost() || rd_emulated_fault(RD_EMULATED_CUBLAS))
        return CUBLAS_STATUS_NOT_INITIALIZED;
    *out = new rd_emulated_blas();
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDestroy(cublasHandle_t h)
{
    if (!h) return CUBLAS_STATUS_NOT_INITIALIZED;
    delete h;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetStream(cublasHandle_t h, cudaStream_t stream)
{
    if (!h) return CUBLAS_STATUS_NOT_INITIALIZED;
    h->stream = stream;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetWorkspace(cublasHandle_t h, void *workspace, size_t bytes)
{
    rd_emulated_lock lock;
    bool whole;

    if (!h) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (workspace && ((uintptr_t)workspace % 256 ||
                      rd_emulated_kind_of(workspace, bytes, &whole) != MEMORY_DEVICE || !whole))
        return invalid("a workspace that is not device memory at a multiple of 256");
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetMathMode(cublasHandle_t h, cublasMath_t mode)
{
    if (!h) return CUBLAS_STATUS_NOT_INITIALIZED;
    h->math = mode;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetPointerMode(cublasHandle_t h, cublasPointerMode_t mode)
{
    if (!h) return CUBLAS_STATUS_NOT_INITIALIZED;
    h->scalars = mode;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetAtomicsMode(cublasHandle_t h, cublasAtomicsMode_t)
{
    return h ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_INITIALIZED;
}

const char *cublasGetStatusName(cublasStatus_t s)
{
    switch (s) {
    case CUBLAS_STATUS_SUCCESS: return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED: return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED: return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_EXECUTION_FAILED: return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
    default: return "another cuBLAS status";
    }
}

const char *cublasGetStatusString(cublasStatus_t s)
{
    return cublasGetStatusName(s);
}
