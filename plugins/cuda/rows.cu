/* rows.cu - what is done to rows alone: embedding, norm, sum, and their copies in 16 bits.
 *
 * A norm also leaves its rows in 16 bits for the products behind it, and where the rows' sum was the command before, both are
 * one launch: x += y, out = norm(x). In a pass of small rows launches are what costs.
 */
#include "plugins/cuda/rows.cuh"

#include <string.h>

enum { THREADS = 256 };

/* ---- 16 bits ---- */

/* x: [rows, cols] float32, out: [rows, stride] 16 bits, zeros behind cols. One block a row, a thread two columns. */
template <cuda_half kind>
static __global__ void to_halves(uint16_t *out, const float *x, int cols, int stride)
{
    const float *from = x + (size_t)blockIdx.x * (size_t)cols;
    uint32_t *to = reinterpret_cast<uint32_t *>(out + (size_t)blockIdx.x * (size_t)stride);

    for (int pair = (int)threadIdx.x; pair < stride / 2; pair += (int)blockDim.x) {
        float a = 2 * pair < cols ? from[2 * pair] : 0.0f;
        float b = 2 * pair + 1 < cols ? from[2 * pair + 1] : 0.0f;

        to[pair] = cuda_pair<kind>(a, b);
    }
}

rd_status cuda_room_half(rd_device *d, int rows, int cols, rd_error *err)
{
    return cuda_room(d, CUDA_SLOT_HALF, (size_t)rows * (size_t)cuda_stride(cols) * 2, err);
}

rd_status cuda_halves(rd_device *d, const float *x, int rows, int cols, cuda_half kind,
                      const uint16_t **out, rd_error *err)
{
    uint16_t *to = (uint16_t *)cuda_scratch(d, CUDA_SLOT_HALF);
    int stride = cuda_stride(cols);

    *out = to;
    if (d->half_of == x && d->half_kind == kind) return RD_OK;
    if (kind == CUDA_HALF_BF16)
        RD_LAUNCH((to_halves<CUDA_HALF_BF16>), rows, THREADS, 0, d->stream, to, x, cols, stride);
    else
        RD_LAUNCH((to_halves<CUDA_HALF_F16>), rows, THREADS, 0, d->stream, to, x, cols, stride);
    d->half_of = x;
    d->half_kind = kind;
    return cuda_status(cudaPeekAtLastError(), "rounding rows to 16 bits", err);
}

/* ---- embedding ---- */

/* One number of a weight, as products see it. */
static __device__ float cell(const rd_weight w, int row, int col)
{
    size_t at = (size_t)row * (size_t)w.stride + (size_t)col;

    switch (w.form) {
    case CUDA_F32: return ((const float *)w.data)[at];
    case CUDA_BF16: return gpu_from_bf16(((const uint16_t *)w.data)[at]);
    case CUDA_E4M3: {
        uint32_t two = gpu_e4m3x2_to_f16x2(((const uint8_t *)w.data)[at]);

        return gpu_from_f16((uint16_t)two) *
               w.scale[(size_t)(row / 128) * (size_t)(w.stride / 128) + (size_t)(col / 128)];
    }
    case CUDA_I8: return (float)((const int8_t *)w.data)[at] * w.scale[row];
    case CUDA_I4: {
        int in = col % 32, word = in / 8, pair = in % 8 / 2, half = in % 2;
        const uint32_t *group = (const uint32_t *)w.data + (at - (size_t)in) / 8;
        int q = (int)(group[word] >> (4 * pair + 16 * half) & 15u) - 8;

        return (float)q * w.scale[(size_t)row * (size_t)(w.stride / 32) + (size_t)(col / 32)];
    }
    }
    return 0.0f;
}

/* out: [rows, cols]; row r becomes row tokens[r] of the table. One block a row. */
static __global__ void embed(float *out, const rd_weight table, const int32_t *tokens)
{
    float *to = out + (size_t)blockIdx.x * (size_t)table.cols;
    int token = tokens[blockIdx.x];

    for (int c = (int)threadIdx.x; c < table.cols; c += (int)blockDim.x) to[c] = cell(table, token, c);
}

typedef struct embed_args {
    float *out;
    int rows;
    rd_weight table;
    const int32_t *tokens;
} embed_args;

static rd_status run_embed(rd_device *d, const void *args, rd_error *err)
{
    const embed_args *a = (const embed_args *)args;

    cuda_forget_half(d, a->out);
    RD_LAUNCH(embed, a->rows, THREADS, 0, d->stream, a->out, a->table, a->tokens);
    return cuda_status(cudaPeekAtLastError(), "embed", err);
}

rd_status cuda_embed(rd_device *d, rd_view out, const rd_weight *table, const int32_t *tokens,
                     rd_error *err)
{
    embed_args a;
    void *host;
    const void *device;

    if (out.cols != table->cols)
        return rd_fail(err, RD_INVALID, "embed: rows of %d of a table with %d columns", out.cols,
                       table->cols);
    for (int r = 0; r < out.rows; r++)
        if (tokens[r] < 0 || tokens[r] >= table->rows)
            return rd_fail(err, RD_INVALID, "token %d of a vocabulary of %d", tokens[r],
                           table->rows);
    if (out.rows < 1) return RD_OK;
    rd_status s = cuda_param(d, (size_t)out.rows * sizeof *tokens, &host, &device, err);

    if (s) return s;
    memcpy(host, tokens, (size_t)out.rows * sizeof *tokens);
    memset(&a, 0, sizeof a);
    a.out = out.data;
    a.rows = out.rows;
    memcpy(&a.table, table, sizeof a.table);
    a.tokens = (const int32_t *)device;
    return cuda_record(d, run_embed, &a, sizeof a, err);
}

/* ---- norm and sum ---- */

/* out = x / rms(x) * weight of each row, with `y` x += y first; the same in 16 bits to `half` [rows, stride], where that is not
 * NULL. x, y, out: [rows, cols]; out may be x. One block a row; each thread keeps its columns in registers up to KEEP of them. */
enum { KEEP = 16 };

template <cuda_half kind>
static __global__ void norm_rows(float *out, uint16_t *half, float *x, const float *y,
                                 const float *weight, int cols, int stride, float eps)
{
    __shared__ float room[GPU_WARP];
    size_t row = (size_t)blockIdx.x * (size_t)cols;
    float kept[KEEP], sum = 0.0f;

#pragma unroll
    for (int i = 0; i < KEEP; i++) {
        int c = i * THREADS + (int)threadIdx.x;

        kept[i] = 0.0f;
        if (c >= cols) continue;
        kept[i] = x[row + (size_t)c];
        if (y) x[row + (size_t)c] = kept[i] = kept[i] + y[row + (size_t)c];
        sum += kept[i] * kept[i];
    }
    for (int c = KEEP * THREADS + (int)threadIdx.x; c < cols; c += THREADS) {
        float v = x[row + (size_t)c];

        if (y) x[row + (size_t)c] = v = v + y[row + (size_t)c];
        sum += v * v;
    }
    float by = 1.0f / sqrtf(gpu_block_sum(sum, room) / (float)cols + eps);

#pragma unroll
    for (int i = 0; i < KEEP; i++) {
        int c = i * THREADS + (int)threadIdx.x;

        if (c < cols) {
            float v = kept[i] * by * weight[c];

            out[row + (size_t)c] = v;
            if (kind != CUDA_HALF_NONE)
                half[(size_t)blockIdx.x * (size_t)stride + (size_t)c] = (uint16_t)cuda_pair<kind>(v, 0.0f);
        } else if (kind != CUDA_HALF_NONE && c < stride) {
            half[(size_t)blockIdx.x * (size_t)stride + (size_t)c] = 0;
        }
    }
    for (int c = KEEP * THREADS + (int)threadIdx.x; c < stride; c += THREADS) {
        float v = c < cols ? x[row + (size_t)c] * by * weight[c] : 0.0f;

        if (c < cols) out[row + (size_t)c] = v;
        if (kind != CUDA_HALF_NONE)
            half[(size_t)blockIdx.x * (size_t)stride + (size_t)c] = (uint16_t)cuda_pair<kind>(v, 0.0f);
    }
}

typedef struct norm_args {
    float *out, *x;
    const float *weight;
    int rows, cols;
    float eps;
    int half;
} norm_args;

typedef struct add_args {
    float *x;
    const float *y;
    size_t n;
} add_args;

static rd_status launch_norm(rd_device *d, const norm_args *a, const float *y, rd_error *err)
{
    uint16_t *half = (uint16_t *)cuda_scratch(d, CUDA_SLOT_HALF);
    int stride = cuda_stride(a->cols);
    cuda_half kind = (cuda_half)a->half;

    if (y) cuda_forget_half(d, a->x);
    if (kind == CUDA_HALF_BF16)
        RD_LAUNCH((norm_rows<CUDA_HALF_BF16>), a->rows, THREADS, 0, d->stream, a->out, half, a->x, y,
                  a->weight, a->cols, stride, a->eps);
    else if (kind == CUDA_HALF_F16)
        RD_LAUNCH((norm_rows<CUDA_HALF_F16>), a->rows, THREADS, 0, d->stream, a->out, half, a->x, y,
                  a->weight, a->cols, stride, a->eps);
    else
        RD_LAUNCH((norm_rows<CUDA_HALF_NONE>), a->rows, THREADS, 0, d->stream, a->out, half, a->x, y,
                  a->weight, a->cols, a->cols, a->eps);
    cuda_forget_half(d, a->out);
    if (kind != CUDA_HALF_NONE) {
        d->half_of = a->out;
        d->half_kind = kind;
    }
    return cuda_status(cudaPeekAtLastError(), "norm", err);
}

static rd_status run_norm(rd_device *d, const void *args, rd_error *err)
{
    return launch_norm(d, (const norm_args *)args, NULL, err);
}

/* x: [n] += y. A thread takes a number each `gridDim * blockDim`. */
static __global__ void add_rows(float *x, const float *y, size_t n)
{
    size_t step = (size_t)gridDim.x * blockDim.x;

    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) x[i] += y[i];
}

static rd_status run_add(rd_device *d, const void *args, rd_error *err)
{
    const add_args *a = (const add_args *)args;
    size_t blocks = (a->n + THREADS - 1) / THREADS, most = (size_t)d->processors * 8;

    cuda_forget_half(d, a->x);
    RD_LAUNCH(add_rows, (unsigned)(blocks < most ? blocks : most), THREADS, 0, d->stream, a->x, a->y,
              a->n);
    return cuda_status(cudaPeekAtLastError(), "add", err);
}

bool cuda_run_together(rd_device *d, cuda_run first, const void *first_args, cuda_run second,
                       const void *second_args, rd_status *status, rd_error *err)
{
    const add_args *a = (const add_args *)first_args;
    const norm_args *b = (const norm_args *)second_args;

    if (first != run_add || second != run_norm || a->x != b->x || a->x == b->out ||
        a->n != (size_t)b->rows * (size_t)b->cols)
        return false;
    *status = launch_norm(d, b, a->y, err);
    return true;
}

rd_status cuda_norm(rd_device *d, rd_view out, rd_view x, const rd_weight *weight, float eps,
                    rd_error *err)
{
    norm_args a;

    if (out.rows != x.rows || out.cols != x.cols || weight->cols != x.cols || weight->rows != 1)
        return rd_fail(err, RD_INVALID, "norm: [%d, %d] from [%d, %d] with %d weights", out.rows,
                       out.cols, x.rows, x.cols, weight->cols);
    if (x.rows < 1) return RD_OK;
    if (d->main_half != CUDA_HALF_NONE && cuda_room_half(d, x.rows, x.cols, err)) return RD_NO_MEMORY;
    memset(&a, 0, sizeof a);
    a.out = out.data;
    a.x = x.data;
    a.weight = (const float *)weight->data;
    a.rows = x.rows;
    a.cols = x.cols;
    a.eps = eps;
    a.half = (int)d->main_half;
    return cuda_record(d, run_norm, &a, sizeof a, err);
}

rd_status cuda_add(rd_device *d, rd_view x, rd_view y, rd_error *err)
{
    add_args a;

    if (x.rows != y.rows || x.cols != y.cols)
        return rd_fail(err, RD_INVALID, "add: [%d, %d] and [%d, %d]", x.rows, x.cols, y.rows, y.cols);
    if (x.rows < 1) return RD_OK;
    memset(&a, 0, sizeof a);
    a.x = x.data;
    a.y = y.data;
    a.n = (size_t)x.rows * (size_t)x.cols;
    return cuda_record(d, run_add, &a, sizeof a, err);
}
