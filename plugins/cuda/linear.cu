/* linear.cu - dense products: rows times a weight, and the three of an mlp.
 *
 * Few rows (a step) are bound by the bytes of weights: a block makes 16 outputs, its warps share the columns out among
 * themselves and add up through shared memory. Many rows (a prompt) are bound by products: blocks of 128 outputs by 64 or 128
 * rows. Gate and up are one launch, which leaves SiLU(gate) * up in 16 bits for down. float32 weights have a plain kernel.
 */
#include "plugins/cuda/tile.cuh"

#include <string.h>

enum {
    WARPS = 8, /* of a block for few rows */
    FEW_THREADS = WARPS * GPU_WARP,
    FEW_ROWS = 32,     /* of one block; more are more blocks, which find the weights in the L2 cache */
    MANY_ROWS = 64,    /* more than these go by tiles, where that makes enough blocks */
    EXACT_OUTPUTS = 4, /* of one block for float32 */
    EXACT_ROWS = 8,
};

/* ---- float32 ---- */

/* out: [rows, outputs], x: [rows, cols], w: [outputs, cols]. Block (i, j) makes outputs 4 i to 4 i + 3 for rows 8 j to 8 j + 7;
 * thread t takes columns t, t + 256 ..., so that the order of sums depends on cols alone. */
static __global__ void __launch_bounds__(FEW_THREADS)
    product_exact(float *out, const float *x, const float *w, int rows, int cols, int outputs)
{
    __shared__ float sums[WARPS][EXACT_OUTPUTS * EXACT_ROWS];
    int first = (int)blockIdx.x * EXACT_OUTPUTS, row = (int)blockIdx.y * EXACT_ROWS;
    int lane = (int)threadIdx.x % GPU_WARP, warp = (int)threadIdx.x / GPU_WARP;
    const float *from_w[EXACT_OUTPUTS], *from_x[EXACT_ROWS];
    float acc[EXACT_OUTPUTS][EXACT_ROWS] = {};

#pragma unroll
    for (int i = 0; i < EXACT_OUTPUTS; i++) from_w[i] = w + (size_t)min(first + i, outputs - 1) * (size_t)cols;
#pragma unroll
    for (int j = 0; j < EXACT_ROWS; j++) from_x[j] = x + (size_t)min(row + j, rows - 1) * (size_t)cols;
#pragma unroll 2
    for (int k = (int)threadIdx.x; k < cols; k += FEW_THREADS) {
        float a[EXACT_OUTPUTS], b[EXACT_ROWS];

#pragma unroll
        for (int i = 0; i < EXACT_OUTPUTS; i++) a[i] = from_w[i][k];
#pragma unroll
        for (int j = 0; j < EXACT_ROWS; j++) b[j] = from_x[j][k];
#pragma unroll
        for (int i = 0; i < EXACT_OUTPUTS; i++)
#pragma unroll
            for (int j = 0; j < EXACT_ROWS; j++) acc[i][j] = __fmaf_rn(a[i], b[j], acc[i][j]);
    }
#pragma unroll
    for (int i = 0; i < EXACT_OUTPUTS; i++)
#pragma unroll
        for (int j = 0; j < EXACT_ROWS; j++) {
            float sum = gpu_warp_sum(acc[i][j]);

            if (lane == 0) sums[warp][j * EXACT_OUTPUTS + i] = sum;
        }
    __syncthreads();
    if (threadIdx.x < EXACT_OUTPUTS * EXACT_ROWS) {
        int i = (int)threadIdx.x % EXACT_OUTPUTS, j = (int)threadIdx.x / EXACT_OUTPUTS;
        float sum = 0.0f;

        for (int p = 0; p < WARPS; p++) sum += sums[p][threadIdx.x];
        if (first + i < outputs && row + j < rows)
            out[(size_t)(row + j) * (size_t)outputs + (size_t)(first + i)] = sum;
    }
}

/* h: [n] = SiLU(h) * up. */
static __global__ void silu_exact(float *h, const float *up, size_t n)
{
    size_t step = (size_t)gridDim.x * blockDim.x;

    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step)
        h[i] = h[i] / (1.0f + expf(-h[i])) * up[i];
}

/* ---- few rows ---- */

/* This warp's sums of 16 outputs for 8 N rows over its part of the columns, into shared memory. */
template <cuda_form F, int N>
static __device__ inline void few_sums(float (*sums)[GPU_WARP], const product_weight &w, int output,
                                       const uint16_t *x, int row, int rows, int part, int parts)
{
    int lane = (int)threadIdx.x % GPU_WARP, chunks = w.stride / CUDA_COLS;
    product_rows<F, 1> from;
    const uint16_t *from_x[N];
    float acc[1][N][4] = {};

    product_point<F, 1>(from, 0, w, output);
#pragma unroll
    for (int n = 0; n < N; n++)
        from_x[n] = product_x<F>(x + (size_t)min(row + 8 * n + lane / 4, rows - 1) * (size_t)w.stride);
    product_run<F, 1, N>(acc, from, from_x, layout_part(chunks, parts, part), layout_part(chunks, parts, part + 1));
    product_scale<F, 1, N>(acc, from);
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) sums[4 * n + i][lane] = acc[0][n][i];
}

/* Of sum e of a block's 128 N: which output of the 16, and which row. */
static __device__ inline int few_output(int e)
{
    return e % GPU_WARP / 4 + e / GPU_WARP % 4 / 2 * 8;
}

static __device__ inline int few_row(int e)
{
    return e / (4 * GPU_WARP) * 8 + e % 4 * 2 + e / GPU_WARP % 2;
}

/* out: [rows, w.rows], x: [rows, stride] 16 bits. Block (i, j) makes outputs 16 i to 16 i + 15 for rows 8 N j to 8 N j + 8 N - 1;
 * its warps, as many as there are, share the columns. */
template <cuda_form F, int N>
static __global__ void __launch_bounds__(FEW_THREADS, 2)
    product_few(float *out, const uint16_t *x, product_weight w, int rows)
{
    __shared__ float sums[WARPS][4 * N][GPU_WARP];
    int output = (int)blockIdx.x * 16, row = (int)blockIdx.y * 8 * N;
    int warp = (int)threadIdx.x / GPU_WARP, parts = (int)blockDim.x / GPU_WARP;

    few_sums<F, N>(sums[warp], w, output, x, row, rows, warp, parts);
    __syncthreads();
    for (int e = (int)threadIdx.x; e < 128 * N; e += (int)blockDim.x) {
        int o = output + few_output(e), r = row + few_row(e);
        float sum = 0.0f;

        for (int p = 0; p < parts; p++) sum += sums[p][e / GPU_WARP][e % GPU_WARP];
        if (o < w.rows && r < rows) out[(size_t)r * (size_t)w.rows + (size_t)o] = sum;
    }
}

/* h: [rows, h_stride] 16 bits, zeros behind gate.rows: SiLU(gate) * up. The first half of a block's warps does gate, the other up.
 * gridDim.x: h_stride / 16. */
template <cuda_form F, int N>
static __global__ void __launch_bounds__(FEW_THREADS, 2)
    gate_few(uint16_t *h, const uint16_t *x, product_weight gate, product_weight up, int rows, int h_stride,
             cuda_half kind)
{
    __shared__ float sums[WARPS][4 * N][GPU_WARP];
    int output = (int)blockIdx.x * 16, row = (int)blockIdx.y * 8 * N;
    int warp = (int)threadIdx.x / GPU_WARP, parts = (int)blockDim.x / GPU_WARP / 2;

    few_sums<F, N>(sums[warp], warp < parts ? gate : up, output, x, row, rows, warp % parts, parts);
    __syncthreads();
    for (int e = (int)threadIdx.x; e < 128 * N; e += (int)blockDim.x) {
        int o = output + few_output(e), r = row + few_row(e);
        float a = 0.0f, b = 0.0f;

        for (int p = 0; p < parts; p++) {
            a += sums[p][e / GPU_WARP][e % GPU_WARP];
            b += sums[parts + p][e / GPU_WARP][e % GPU_WARP];
        }
        if (r < rows)
            h[(size_t)r * (size_t)h_stride + (size_t)o] =
                o < gate.rows ? product_half(product_silu(a, b), kind) : (uint16_t)0;
    }
}

/* ---- many rows ---- */

/* out: [rows, w.rows], x: [rows, stride] 16 bits. Block (i, j) makes outputs 128 i to 128 i + 127 for ROWS rows from ROWS j on. */
template <cuda_form F, int ROWS>
static __global__ void __launch_bounds__(TILE_THREADS, ROWS == 64 ? 2 : 1)
    product_many(float *out, const uint16_t *x, product_weight w, int rows)
{
    RD_DYNAMIC_SHARED(unsigned char, shared);
    int output = (int)blockIdx.x * 2 * TILE_HALF, row = (int)blockIdx.y * ROWS;
    tile_half from[2] = { { w, output }, { w, output + TILE_HALF } };
    tile_rows from_x = { x + (size_t)row * (size_t)w.stride, NULL, min(ROWS, rows - row), w.stride };
    float acc[2][ROWS / 16][4] = {};

    tile_run<F, ROWS>(acc, from, from_x, shared);
    output += tile_output();
    row += tile_row<ROWS>();
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int n = 0; n < ROWS / 16; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int o = output + TILE_HALF * m + i / 2 * 8, r = row + 8 * n + i % 2;

                if (o < w.rows && r < rows) out[(size_t)r * (size_t)w.rows + (size_t)o] = acc[m][n][i];
            }
}

/* As gate_few. Block (i, j) makes columns 64 i to 64 i + 63 of h. gridDim.x: h_stride / 64. */
template <cuda_form F, int ROWS>
static __global__ void __launch_bounds__(TILE_THREADS, ROWS == 64 ? 2 : 1)
    gate_many(uint16_t *h, const uint16_t *x, product_weight gate, product_weight up, int rows, int h_stride,
              cuda_half kind)
{
    RD_DYNAMIC_SHARED(unsigned char, shared);
    int output = (int)blockIdx.x * TILE_HALF, row = (int)blockIdx.y * ROWS;
    int there = min(output, (gate.rows - 1) / TILE_HALF * TILE_HALF); /* a block of nothing but padding */
    tile_half from[2] = { { gate, there }, { up, there } };
    tile_rows from_x = { x + (size_t)row * (size_t)gate.stride, NULL, min(ROWS, rows - row), gate.stride };
    float acc[2][ROWS / 16][4] = {};

    tile_run<F, ROWS>(acc, from, from_x, shared);
    output += tile_output();
    row += tile_row<ROWS>();
#pragma unroll
    for (int n = 0; n < ROWS / 16; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int o = output + i / 2 * 8, r = row + 8 * n + i % 2;

            if (r < rows)
                h[(size_t)r * (size_t)h_stride + (size_t)o] =
                    o < gate.rows ? product_half(product_silu(acc[0][n][i], acc[1][n][i]), kind) : (uint16_t)0;
        }
}

/* ---- launches ---- */

/* Shared memory beyond what is allowed without asking. */
template <cuda_form F> static cudaError_t allow_shared(void)
{
    cudaError_t e = RD_ALLOW_SHARED((product_many<F, 64>), tile_shared(64));

    if (e == cudaSuccess) e = RD_ALLOW_SHARED((product_many<F, 128>), tile_shared(128));
    if (e == cudaSuccess) e = RD_ALLOW_SHARED((gate_many<F, 64>), tile_shared(64));
    if (e == cudaSuccess) e = RD_ALLOW_SHARED((gate_many<F, 128>), tile_shared(128));
    return e;
}

rd_status cuda_linear_open(rd_device *d, rd_error *err)
{
    cudaError_t e;

    if (d->shared_most < (size_t)tile_shared(128))
        return rd_fail(err, RD_DEVICE, "%s gives a block %zu KB of shared memory; %d KB are the least", d->name,
                       d->shared_most >> 10, tile_shared(128) >> 10);
    e = allow_shared<CUDA_BF16>();
    if (e == cudaSuccess) e = allow_shared<CUDA_E4M3>();
    if (e == cudaSuccess) e = allow_shared<CUDA_I8>();
    if (e == cudaSuccess) e = allow_shared<CUDA_I4>();
    return cuda_status(e, "shared memory of products", err);
}

void cuda_linear_close(rd_device *d)
{
    (void)d;
}

/* 64 or 128: rows of a tile where so many rows make enough blocks of `outputs` / `each`; 0: they go by few. */
static int tile_of(const rd_device *d, int rows, int outputs, int each)
{
    int across = layout_ceil(outputs, each);

    if (rows <= MANY_ROWS || across * layout_ceil(rows, 64) < d->processors / 2) return 0;
    return across * layout_ceil(rows, 128) < d->processors ? 64 : 128;
}

/* Warps that share `stride` columns: one for each chunk, at most `most`. */
static int warps_of(int stride, int most)
{
    int chunks = stride / CUDA_COLS;

    return chunks < most ? chunks : most;
}

template <cuda_form F>
static void launch_product(rd_device *d, float *out, const uint16_t *x, int rows, const product_weight &w)
{
    int tile = tile_of(d, rows, w.rows, 2 * TILE_HALF), n = layout_ceil(rows, 8);
    dim3 few(layout_ceil(w.rows, 16), n <= 2 ? 1 : layout_ceil(rows, FEW_ROWS));
    int threads = GPU_WARP * warps_of(w.stride, WARPS);

    if (tile == 128)
        RD_LAUNCH((product_many<F, 128>), dim3(layout_ceil(w.rows, 2 * TILE_HALF), layout_ceil(rows, 128)),
                  TILE_THREADS, tile_shared(128), d->stream, out, x, w, rows);
    else if (tile == 64)
        RD_LAUNCH((product_many<F, 64>), dim3(layout_ceil(w.rows, 2 * TILE_HALF), layout_ceil(rows, 64)),
                  TILE_THREADS, tile_shared(64), d->stream, out, x, w, rows);
    else if (n == 1)
        RD_LAUNCH((product_few<F, 1>), few, threads, 0, d->stream, out, x, w, rows);
    else if (n == 2)
        RD_LAUNCH((product_few<F, 2>), few, threads, 0, d->stream, out, x, w, rows);
    else
        RD_LAUNCH((product_few<F, 4>), few, threads, 0, d->stream, out, x, w, rows);
}

template <cuda_form F>
static void launch_gate(rd_device *d, uint16_t *h, const uint16_t *x, int rows, const product_weight &gate,
                        const product_weight &up, int h_stride, cuda_half kind)
{
    int tile = tile_of(d, rows, h_stride, TILE_HALF), n = layout_ceil(rows, 8);
    dim3 few(h_stride / 16, n <= 2 ? 1 : layout_ceil(rows, FEW_ROWS));
    int threads = 2 * GPU_WARP * warps_of(gate.stride, WARPS / 2);

    if (tile == 128)
        RD_LAUNCH((gate_many<F, 128>), dim3(h_stride / TILE_HALF, layout_ceil(rows, 128)), TILE_THREADS,
                  tile_shared(128), d->stream, h, x, gate, up, rows, h_stride, kind);
    else if (tile == 64)
        RD_LAUNCH((gate_many<F, 64>), dim3(h_stride / TILE_HALF, layout_ceil(rows, 64)), TILE_THREADS,
                  tile_shared(64), d->stream, h, x, gate, up, rows, h_stride, kind);
    else if (n == 1)
        RD_LAUNCH((gate_few<F, 1>), few, threads, 0, d->stream, h, x, gate, up, rows, h_stride, kind);
    else if (n == 2)
        RD_LAUNCH((gate_few<F, 2>), few, threads, 0, d->stream, h, x, gate, up, rows, h_stride, kind);
    else
        RD_LAUNCH((gate_few<F, 4>), few, threads, 0, d->stream, h, x, gate, up, rows, h_stride, kind);
}

static rd_status product_halves(rd_device *d, float *out, const uint16_t *x, int rows, cuda_form form,
                                const product_weight &w, rd_error *err)
{
    switch (form) {
    case CUDA_F32: return rd_fail(err, RD_INVALID, "a float32 weight takes float32 rows");
    case CUDA_BF16: launch_product<CUDA_BF16>(d, out, x, rows, w); break;
    case CUDA_E4M3: launch_product<CUDA_E4M3>(d, out, x, rows, w); break;
    case CUDA_I8: launch_product<CUDA_I8>(d, out, x, rows, w); break;
    case CUDA_I4: launch_product<CUDA_I4>(d, out, x, rows, w); break;
    }
    cuda_forget_half(d, out);
    return cuda_status(cudaPeekAtLastError(), "a product", err);
}

rd_status cuda_product(rd_device *d, float *out, const float *x, int rows, cuda_form form, const product_weight &w,
                       int cols, rd_error *err)
{
    const uint16_t *half;

    if (form != CUDA_F32) {
        rd_status s = cuda_halves(d, x, rows, cols, cuda_half_of(form), &half, err);

        return s ? s : product_halves(d, out, half, rows, form, w, err);
    }
    RD_LAUNCH(product_exact, dim3(layout_ceil(w.rows, EXACT_OUTPUTS), layout_ceil(rows, EXACT_ROWS)), FEW_THREADS,
              0, d->stream, out, x, (const float *)w.data, rows, cols, w.rows);
    cuda_forget_half(d, out);
    return cuda_status(cudaPeekAtLastError(), "a product", err);
}

/* ---- linear ---- */

typedef struct dense {
    product_weight w;
    cuda_form form;
    int cols;
} dense;

static void dense_of(dense *out, const rd_weight *w)
{
    out->w.data = (const unsigned char *)w->data;
    out->w.scale = w->scale;
    out->w.step = w->step;
    out->w.rows = w->rows;
    out->w.stride = w->stride;
    out->form = w->form;
    out->cols = w->cols;
}

typedef struct linear_args {
    float *out;
    const float *x;
    dense w;
    int rows;
} linear_args;

static rd_status run_linear(rd_device *d, const void *args, rd_error *err)
{
    const linear_args *a = (const linear_args *)args;

    return cuda_product(d, a->out, a->x, a->rows, a->w.form, a->w.w, a->w.cols, err);
}

/* Rows go along the grid's second side, which has 65535 places. */
enum { ROWS_MOST = 65535 * EXACT_ROWS };

rd_status cuda_linear(rd_device *d, rd_view out, rd_view x, const rd_weight *w, rd_error *err)
{
    linear_args a;

    if (out.rows != x.rows || x.cols != w->cols || out.cols != w->rows || x.rows > ROWS_MOST)
        return rd_fail(err, RD_INVALID, "linear: [%d, %d] from [%d, %d] by a weight of %d x %d", out.rows, out.cols,
                       x.rows, x.cols, w->rows, w->cols);
    if (x.rows < 1) return RD_OK;
    if (w->form != CUDA_F32) {
        rd_status s = cuda_room_half(d, x.rows, x.cols, err);

        if (s) return s;
    }
    memset(&a, 0, sizeof a);
    a.out = out.data;
    a.x = x.data;
    dense_of(&a.w, w);
    a.rows = x.rows;
    return cuda_record(d, run_linear, &a, sizeof a, err);
}

/* ---- mlp ---- */

typedef struct mlp_args {
    float *out;
    const float *x;
    dense gate, up, down;
    int rows;
} mlp_args;

/* Gate and up in one launch, of one form that is not float32. */
static bool is_fused(const rd_mlp *m)
{
    return m->gate->form == m->up->form && m->gate->form != CUDA_F32 && m->down->form != CUDA_F32;
}

static rd_status run_mlp(rd_device *d, const void *args, rd_error *err)
{
    const mlp_args *a = (const mlp_args *)args;
    uint16_t *h = (uint16_t *)cuda_scratch(d, CUDA_SLOT_INNER);
    cuda_half kind = cuda_half_of(a->down.form);
    const uint16_t *x;
    rd_status s = cuda_halves(d, a->x, a->rows, a->gate.cols, cuda_half_of(a->gate.form), &x, err);

    if (s) return s;
    switch (a->gate.form) {
    case CUDA_F32: return rd_fail(err, RD_INVALID, "a float32 weight takes float32 rows");
    case CUDA_BF16: launch_gate<CUDA_BF16>(d, h, x, a->rows, a->gate.w, a->up.w, a->down.w.stride, kind); break;
    case CUDA_E4M3: launch_gate<CUDA_E4M3>(d, h, x, a->rows, a->gate.w, a->up.w, a->down.w.stride, kind); break;
    case CUDA_I8: launch_gate<CUDA_I8>(d, h, x, a->rows, a->gate.w, a->up.w, a->down.w.stride, kind); break;
    case CUDA_I4: launch_gate<CUDA_I4>(d, h, x, a->rows, a->gate.w, a->up.w, a->down.w.stride, kind); break;
    }
    s = cuda_status(cudaPeekAtLastError(), "an mlp", err);
    return s ? s : product_halves(d, a->out, h, a->rows, a->down.form, a->down.w, err);
}

/* One after the other, in float32 between them: exact weights, and forms that differ. */
static rd_status run_mlp_apart(rd_device *d, const void *args, rd_error *err)
{
    const mlp_args *a = (const mlp_args *)args;
    size_t n = (size_t)a->rows * (size_t)a->gate.w.rows, blocks = (n + FEW_THREADS - 1) / FEW_THREADS;
    size_t most = (size_t)d->processors * 8;
    float *h = (float *)cuda_scratch(d, CUDA_SLOT_INNER), *up = h + n;
    rd_status s = cuda_product(d, h, a->x, a->rows, a->gate.form, a->gate.w, a->gate.cols, err);

    if (!s) s = cuda_product(d, up, a->x, a->rows, a->up.form, a->up.w, a->up.cols, err);
    if (s) return s;
    RD_LAUNCH(silu_exact, (unsigned)(blocks < most ? blocks : most), FEW_THREADS, 0, d->stream, h, up, n);
    cuda_forget_half(d, h);
    s = cuda_status(cudaPeekAtLastError(), "an mlp", err);
    if (!s) s = cuda_product(d, a->out, h, a->rows, a->down.form, a->down.w, a->down.cols, err);
    cuda_forget_half(d, h); /* others use the slot */
    return s;
}

rd_status cuda_mlp(rd_device *d, rd_view out, rd_view x, const rd_mlp *m, rd_error *err)
{
    mlp_args a;
    int width = m->gate->rows;
    bool fused = is_fused(m);
    size_t each = fused ? sizeof(uint16_t) * (size_t)m->down->stride : 2 * sizeof(float) * (size_t)width;

    if (out.rows != x.rows || x.cols != m->gate->cols || x.cols != m->up->cols || m->up->rows != width ||
        m->down->cols != width || out.cols != m->down->rows || x.rows > ROWS_MOST)
        return rd_fail(err, RD_INVALID, "mlp: [%d, %d] from [%d, %d] by weights of %d x %d, %d x %d and %d x %d",
                       out.rows, out.cols, x.rows, x.cols, width, m->gate->cols, m->up->rows, m->up->cols,
                       m->down->rows, m->down->cols);
    if (x.rows < 1) return RD_OK;
    rd_status s = cuda_room(d, CUDA_SLOT_INNER, (size_t)x.rows * each, err);

    if (!s) s = cuda_room_half(d, x.rows, fused || x.cols > width ? x.cols : width, err);
    if (s) return s;
    memset(&a, 0, sizeof a);
    a.out = out.data;
    a.x = x.data;
    dense_of(&a.gate, m->gate);
    dense_of(&a.up, m->up);
    dense_of(&a.down, m->down);
    a.rows = x.rows;
    return cuda_record(d, fused ? run_mlp : run_mlp_apart, &a, sizeof a, err);
}
