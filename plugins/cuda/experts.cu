/* experts.cu - products of experts over sorted pairs: two launches, each touched expert's weights read once by each.
 *
 * Work is cut into units: an item and a slice of the outputs. How many items there are is known on the device alone, so a launch
 * has as many blocks as the device holds at once (or fewer, where there cannot be so many units), and block b takes units b,
 * b + blocks and so on. The shared expert's units come first: they have the most rows. What a unit computes does not depend
 * on which block it falls to.
 *
 * Few rows (up to 16 of an item): a block of four warps streams weights from memory to registers (product_run). For gate and up a
 * unit is 16 columns of the inner rows, and the warps share the sum over hidden; for down it is 64 columns of the result, two
 * warps for each 32, which share the sum over the inner columns. Activations of an item's rows are read through the first
 * cache, which holds all rows of a pass of 32. An expert with more rows than an item has several, one behind the other, so that
 * its weights come from the second cache but for the first time. Many rows (up to 64 of an item): a block of eight warps
 * multiplies from shared memory (tile_run). Float32 weights have kernels that are plain: for conformance.
 */
#include "plugins/cuda/experts.cuh"
#include "plugins/cuda/tile.cuh"

enum {
    UNIT_WARPS = 4,
    UNIT_THREADS = UNIT_WARPS * GPU_WARP,
    UNIT_BLOCKS = 3,    /* of a multiprocessor */
    UNIT_TILES = 2,     /* of 8 rows, at most: an item of few */
    TILE_BLOCKS = 2,    /* of a multiprocessor, of those of many rows */
    INNER_COLS = 16,    /* of a unit of gate and up */
    DOWN_COLS = 64,     /* of a unit of down */
    PLAIN_COLS = 32,    /* of a unit in float32 */
    PLAIN_BLOCKS = 8,
    SUM_THREADS = 128,
};

/* ---- units ---- */

typedef struct unit {
    int expert, first, count; /* places [first, first + count) of an expert */
    int slice;
    bool shared;
} unit;

static __device__ inline int shared_items(const experts_launch &l)
{
    return l.shared.here ? (l.rows + l.item - 1) / l.item : 0;
}

/* Units of the launch; slices of either side's items. */
static __device__ inline int units_of(const experts_launch &l, int slices, int shared_slices)
{
    return shared_items(l) * shared_slices + (l.routed.here ? l.route.count[0] * slices : 0);
}

static __device__ inline unit unit_at(const experts_launch &l, int i, int slices, int shared_slices)
{
    int shared = shared_items(l) * shared_slices;
    unit u;

    if (i < shared) {
        int at = i / shared_slices * l.item;

        u.expert = l.experts;
        u.first = l.pairs + at;
        u.count = min(l.item, l.rows - at);
        u.slice = i % shared_slices;
        u.shared = true;
    } else {
        route_item item = l.route.item[(i - shared) / slices];

        u.expert = item.expert;
        u.first = item.first;
        u.count = item.count;
        u.slice = (i - shared) % slices;
        u.shared = false;
    }
    return u;
}

/* The inner row of a place of the unit's side. */
template <class T> static __device__ inline T *inner_row(const experts_launch &l, const unit &u, int place)
{
    const experts_side *side = u.shared ? &l.shared : &l.routed;

    return (T *)side->inner + (size_t)(place - (u.shared ? l.pairs : 0)) * (size_t)side->stride;
}

/* ---- few rows ---- */

/* A number of each thread's sums in shared memory: [warp or pair of warps][tile][8 rows][4][32]. */
static __device__ inline int sum_at(int who, int m, int n, int i)
{
    return ((((who * 2 + m) * UNIT_TILES + n) * 4 + i) * GPU_WARP) + (int)threadIdx.x % GPU_WARP;
}

/* acc[0] = rows [row_a, + 16) of a times x, acc[1] = rows [row_b, + 16) of b times x, over chunks [from, to). */
template <cuda_form F, int N>
static __device__ inline void product_two(float (&acc)[2][N][4], const product_weight &a, int row_a,
                                          const product_weight &b, int row_b, const uint16_t *const (&x)[N], int from,
                                          int to)
{
    product_rows<F, 2> w;

    product_point(w, 0, a, row_a);
    product_point(w, 1, b, row_b);
    product_run<F, 2, N>(acc, w, x, from, to);
    product_scale<F, 2, N>(acc, w);
}

/* Columns [16 slice, + 16) of the inner rows of a unit of at most 8 N rows. */
template <cuda_form F, int N>
static __device__ inline void gate_up_unit(const experts_launch &l, const unit &u, float *room)
{
    int lane = (int)threadIdx.x % GPU_WARP, warp = (int)threadIdx.x / GPU_WARP, g = lane / 4, t = lane % 4;
    int col = u.slice * INNER_COLS, chunks = l.stride / CUDA_COLS;
    product_weight gate = l.gate[u.expert], up = l.up[u.expert];
    int last = (gate.rows - 1) / INNER_COLS * INNER_COLS;
    const uint16_t *x[N];
    float acc[2][N][4] = {};

    for (int n = 0; n < N; n++) {
        int row = l.route.row[u.first + min(8 * n + g, u.count - 1)];

        x[n] = product_x<F>((const uint16_t *)l.x + (size_t)row * (size_t)l.stride);
    }
    product_two<F, N>(acc, gate, min(col, last), up, min(col, last), x, layout_part(chunks, UNIT_WARPS, warp),
                      layout_part(chunks, UNIT_WARPS, warp + 1));
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) room[sum_at(warp, m, n, i)] = acc[m][n][i];
    __syncthreads();
    /* Warp i sums number i of each thread. */
    for (int n = 0; n < N; n++) {
        int at = 8 * n + 2 * t + warp % 2, to = col + g + 8 * (warp / 2);
        float a = 0.0f, b = 0.0f;

        for (int other = 0; other < UNIT_WARPS; other++) {
            a += room[sum_at(other, 0, n, warp)];
            b += room[sum_at(other, 1, n, warp)];
        }
        a = to < gate.rows ? product_silu(a, b) : 0.0f;
        if (at < u.count) {
            if (l.inner == CUDA_HALF_NONE)
                inner_row<float>(l, u, u.first + at)[to] = a;
            else
                inner_row<uint16_t>(l, u, u.first + at)[to] = product_half(a, l.inner);
        }
    }
}

template <cuda_form F>
static __global__ void __launch_bounds__(UNIT_THREADS, UNIT_BLOCKS) experts_gate_up_few(experts_launch l)
{
    __shared__ unit u;
    __shared__ float room[UNIT_WARPS * 2 * UNIT_TILES * 4 * GPU_WARP];
    int slices = layout_ceil(l.routed.stride, INNER_COLS), shared_slices = layout_ceil(l.shared.stride, INNER_COLS);
    int units = units_of(l, slices, shared_slices);

    for (int i = (int)blockIdx.x; i < units; i += (int)gridDim.x) {
        if (threadIdx.x == 0) u = unit_at(l, i, slices, shared_slices);
        __syncthreads(); /* u is there, and room is free */
        if (u.count <= 8)
            gate_up_unit<F, 1>(l, u, room);
        else
            gate_up_unit<F, UNIT_TILES>(l, u, room);
        __syncthreads(); /* u is no longer wanted */
    }
}

/* Columns [64 slice, + 64) of the results of a unit of at most 8 N rows. */
template <cuda_form F, int N>
static __device__ inline void down_unit(const experts_launch &l, const unit &u, float *room)
{
    int lane = (int)threadIdx.x % GPU_WARP, warp = (int)threadIdx.x / GPU_WARP, g = lane / 4, t = lane % 4;
    int pair = warp / 2, part = warp % 2, col = u.slice * DOWN_COLS + pair * 32;
    product_weight down = l.down[u.expert];
    int chunks = down.stride / CUDA_COLS;
    const uint16_t *x[N];
    float acc[2][N][4] = {};

    for (int n = 0; n < N; n++)
        x[n] = product_x<F>(inner_row<const uint16_t>(l, u, u.first + min(8 * n + g, u.count - 1)));
    product_two<F, N>(acc, down, col, down, col + 16, x, layout_part(chunks, 2, part),
                      layout_part(chunks, 2, part + 1));
    if (part == 1) {
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int n = 0; n < N; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) room[sum_at(pair, m, n, i)] = acc[m][n][i];
    }
    __syncthreads();
    if (part == 0) {
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int n = 0; n < N; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    int at = 8 * n + 2 * t + i % 2, to = col + 16 * m + g + 8 * (i / 2);

                    if (at < u.count && to < l.hidden)
                        l.out[(size_t)(u.first + at) * (size_t)l.hidden + (size_t)to] =
                            acc[m][n][i] + room[sum_at(pair, m, n, i)];
                }
    }
}

template <cuda_form F>
static __global__ void __launch_bounds__(UNIT_THREADS, UNIT_BLOCKS) experts_down_few(experts_launch l)
{
    __shared__ unit u;
    __shared__ float room[2 * 2 * UNIT_TILES * 4 * GPU_WARP];
    int slices = layout_ceil(l.hidden, DOWN_COLS), units = units_of(l, slices, slices);

    for (int i = (int)blockIdx.x; i < units; i += (int)gridDim.x) {
        if (threadIdx.x == 0) u = unit_at(l, i, slices, slices);
        __syncthreads(); /* u is there, and room is free */
        if (u.count <= 8)
            down_unit<F, 1>(l, u, room);
        else
            down_unit<F, UNIT_TILES>(l, u, room);
        __syncthreads(); /* u is no longer wanted */
    }
}

/* ---- many rows ---- */

/* 64 columns of the inner rows of a unit of at most ROWS rows: 64 rows of gate and the same of up. */
template <cuda_form F, int ROWS>
static __device__ inline void gate_up_tile(const experts_launch &l, const unit &u, const tile_half (&w)[2],
                                           unsigned char *shared)
{
    int lane = (int)threadIdx.x % GPU_WARP, warp = (int)threadIdx.x / GPU_WARP, g = lane / 4, t = lane % 4;
    int col = u.slice * TILE_HALF;
    tile_rows x = { (const uint16_t *)l.x, l.route.row + u.first, u.count, l.stride };
    float acc[2][ROWS / 16][4] = {};

    tile_run<F, ROWS>(acc, w, x, shared);
#pragma unroll
    for (int n = 0; n < ROWS / 16; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int at = warp / 4 * (ROWS / 2) + 8 * n + 2 * t + i % 2, to = col + warp % 4 * 16 + g + 8 * (i / 2);
            float h = to < w[0].w.rows ? product_silu(acc[0][n][i], acc[1][n][i]) : 0.0f;

            if (at < u.count) {
                if (l.inner == CUDA_HALF_NONE)
                    inner_row<float>(l, u, u.first + at)[to] = h;
                else
                    inner_row<uint16_t>(l, u, u.first + at)[to] = product_half(h, l.inner);
            }
        }
}

template <cuda_form F>
static __global__ void __launch_bounds__(TILE_THREADS, TILE_BLOCKS) experts_gate_up_many(experts_launch l)
{
    RD_DYNAMIC_SHARED(unsigned char, shared);
    __shared__ unit u;
    __shared__ tile_half w[2]; /* not in registers, of which there are few */
    __shared__ int units;
    int slices = l.routed.stride / TILE_HALF, shared_slices = l.shared.stride / TILE_HALF;

    if (threadIdx.x == 0) units = units_of(l, slices, shared_slices);
    __syncthreads();
    for (int i = (int)blockIdx.x; i < units; i += (int)gridDim.x) {
        if (threadIdx.x == 0) {
            u = unit_at(l, i, slices, shared_slices);
            for (int m = 0; m < 2; m++) {
                w[m].w = m == 0 ? l.gate[u.expert] : l.up[u.expert];
                w[m].row = u.slice * TILE_HALF;
            }
        }
        __syncthreads(); /* u and w are there */
        if (u.count <= ROUTE_ITEM_MANY / 2)
            gate_up_tile<F, ROUTE_ITEM_MANY / 2>(l, u, w, shared);
        else
            gate_up_tile<F, ROUTE_ITEM_MANY>(l, u, w, shared);
        __syncthreads(); /* they and shared are free */
    }
}

/* 128 columns of the results of a unit of at most ROWS rows. */
template <cuda_form F, int ROWS>
static __device__ inline void down_tile(const experts_launch &l, const unit &u, const tile_half (&w)[2],
                                        unsigned char *shared)
{
    int lane = (int)threadIdx.x % GPU_WARP, warp = (int)threadIdx.x / GPU_WARP, g = lane / 4, t = lane % 4;
    int col = u.slice * 2 * TILE_HALF;
    tile_rows x = { inner_row<const uint16_t>(l, u, u.first), NULL, u.count, w[0].w.stride };
    float acc[2][ROWS / 16][4] = {};

    tile_run<F, ROWS>(acc, w, x, shared);
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int n = 0; n < ROWS / 16; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int at = warp / 4 * (ROWS / 2) + 8 * n + 2 * t + i % 2;
                int to = col + m * TILE_HALF + warp % 4 * 16 + g + 8 * (i / 2);

                if (at < u.count && to < l.hidden)
                    l.out[(size_t)(u.first + at) * (size_t)l.hidden + (size_t)to] = acc[m][n][i];
            }
}

template <cuda_form F>
static __global__ void __launch_bounds__(TILE_THREADS, TILE_BLOCKS) experts_down_many(experts_launch l)
{
    RD_DYNAMIC_SHARED(unsigned char, shared);
    __shared__ unit u;
    __shared__ tile_half w[2]; /* not in registers, of which there are few */
    __shared__ int units;
    int slices = layout_ceil(l.hidden, 2 * TILE_HALF);

    if (threadIdx.x == 0) units = units_of(l, slices, slices);
    __syncthreads();
    for (int i = (int)blockIdx.x; i < units; i += (int)gridDim.x) {
        if (threadIdx.x == 0) {
            u = unit_at(l, i, slices, slices);
            for (int m = 0; m < 2; m++) {
                w[m].w = l.down[u.expert];
                w[m].row = (2 * u.slice + m) * TILE_HALF;
            }
        }
        __syncthreads(); /* u and w are there */
        if (u.count <= ROUTE_ITEM_MANY / 2)
            down_tile<F, ROUTE_ITEM_MANY / 2>(l, u, w, shared);
        else
            down_tile<F, ROUTE_ITEM_MANY>(l, u, w, shared);
        __syncthreads(); /* they and shared are free */
    }
}

/* ---- float32 ---- */

static __device__ inline float dot(const float *a, const float *b, int n)
{
    float s = 0.0f;

    for (int k = (int)threadIdx.x % GPU_WARP; k < n; k += GPU_WARP) s = __fmaf_rn(a[k], b[k], s);
    return gpu_warp_sum(s);
}

/* A warp makes every fourth of 32 columns, one at a time, for all rows of the item. */
static __global__ void __launch_bounds__(UNIT_THREADS) experts_gate_up_plain(experts_launch l)
{
    int slices = layout_ceil(l.routed.stride, PLAIN_COLS), shared_slices = layout_ceil(l.shared.stride, PLAIN_COLS);
    int units = units_of(l, slices, shared_slices), lane = (int)threadIdx.x % GPU_WARP;

    for (int i = (int)blockIdx.x; i < units; i += (int)gridDim.x) {
        unit u = unit_at(l, i, slices, shared_slices);
        product_weight gate = l.gate[u.expert], up = l.up[u.expert];
        int end = min((u.slice + 1) * PLAIN_COLS, u.shared ? l.shared.stride : l.routed.stride);

        for (int c = u.slice * PLAIN_COLS + (int)threadIdx.x / GPU_WARP; c < end; c += UNIT_WARPS)
            for (int r = 0; r < u.count; r++) {
                const float *x = (const float *)l.x + (size_t)l.route.row[u.first + r] * (size_t)l.stride;
                float h = 0.0f;

                if (c < gate.rows) {
                    float a = dot((const float *)gate.data + (size_t)c * (size_t)l.stride, x, l.hidden);
                    float b = dot((const float *)up.data + (size_t)c * (size_t)l.stride, x, l.hidden);

                    h = a / (1.0f + expf(-a)) * b;
                }
                if (lane == 0) {
                    if (l.inner == CUDA_HALF_NONE)
                        inner_row<float>(l, u, u.first + r)[c] = h;
                    else
                        inner_row<uint16_t>(l, u, u.first + r)[c] = product_half(h, l.inner);
                }
            }
    }
}

static __global__ void __launch_bounds__(UNIT_THREADS) experts_down_plain(experts_launch l)
{
    int slices = layout_ceil(l.hidden, PLAIN_COLS), units = units_of(l, slices, slices);
    int lane = (int)threadIdx.x % GPU_WARP;

    for (int i = (int)blockIdx.x; i < units; i += (int)gridDim.x) {
        unit u = unit_at(l, i, slices, slices);
        const float *down = (const float *)l.down[u.expert].data;
        int stride = u.shared ? l.shared.stride : l.routed.stride, width = u.shared ? l.shared.width : l.routed.width;
        int end = min((u.slice + 1) * PLAIN_COLS, l.hidden);

        for (int c = u.slice * PLAIN_COLS + (int)threadIdx.x / GPU_WARP; c < end; c += UNIT_WARPS)
            for (int r = 0; r < u.count; r++) {
                float y = dot(down + (size_t)c * (size_t)stride, inner_row<const float>(l, u, u.first + r), width);

                if (lane == 0) l.out[(size_t)(u.first + r) * (size_t)l.hidden + (size_t)c] = y;
            }
    }
}

/* ---- the sum ---- */

/* y [rows, hidden]. Grid: hidden / 512, rows; a thread makes four columns, from the router's first choice to its last. */
static __global__ void __launch_bounds__(SUM_THREADS)
    experts_add(float *y, const float *out, const int *place, const float *weight, int hidden, int top_k, int pairs, bool shared)
{
    int row = (int)blockIdx.y, col = ((int)blockIdx.x * SUM_THREADS + (int)threadIdx.x) * 4;
    bool whole = hidden % 4 == 0;

    if (whole && col < hidden) {
        float4 s = { 0.0f, 0.0f, 0.0f, 0.0f };

        if (shared) s = *(const float4 *)(out + (size_t)(pairs + row) * (size_t)hidden + col);
#pragma unroll 8
        for (int k = 0; k < top_k; k++) {
            float w = weight[row * top_k + k];
            float4 v = *(const float4 *)(out + (size_t)place[row * top_k + k] * (size_t)hidden + col);

            s.x = __fmaf_rn(w, v.x, s.x);
            s.y = __fmaf_rn(w, v.y, s.y);
            s.z = __fmaf_rn(w, v.z, s.z);
            s.w = __fmaf_rn(w, v.w, s.w);
        }
        *(float4 *)(y + (size_t)row * (size_t)hidden + col) = s;
    }
    for (int c = col; !whole && c < min(col + 4, hidden); c++) {
        float s = shared ? out[(size_t)(pairs + row) * (size_t)hidden + (size_t)c] : 0.0f;

        for (int k = 0; k < top_k; k++)
            s = __fmaf_rn(weight[row * top_k + k],
                          out[(size_t)place[row * top_k + k] * (size_t)hidden + (size_t)c], s);
        y[(size_t)row * (size_t)hidden + (size_t)c] = s;
    }
}

/* ---- launches ---- */

/* Blocks for so many slices of either side's items. */
static unsigned blocks_of(const rd_device *d, const experts_launch *l, int slices, int shared_slices, int each)
{
    int64_t units = (l->routed.here ? (int64_t)l->items_most * slices : 0) +
                    (l->shared.here ? (int64_t)layout_ceil(l->rows, l->item) * shared_slices : 0);
    int64_t most = (int64_t)d->processors * each;

    return (unsigned)(units < most ? units : most);
}

/* A launch of one of the kernels for few rows or for many. */
#define EXPERTS_LAUNCH(kernel, form)                                                                        \
    if (l->item > 8 * UNIT_TILES)                                                                           \
        RD_LAUNCH((kernel##_many<form>), blocks, TILE_THREADS, tile_shared(ROUTE_ITEM_MANY), d->stream, *l); \
    else                                                                                                    \
        RD_LAUNCH((kernel##_few<form>), blocks, UNIT_THREADS, 0, d->stream, *l)

rd_status experts_gate_up(rd_device *d, cuda_form form, const experts_launch *l, rd_error *err)
{
    bool plain = form == CUDA_F32, many = l->item > 8 * UNIT_TILES;
    int cols = plain ? (int)PLAIN_COLS : many ? (int)TILE_HALF : (int)INNER_COLS;
    unsigned blocks = blocks_of(d, l, layout_ceil(l->routed.stride, cols), layout_ceil(l->shared.stride, cols),
                                plain ? PLAIN_BLOCKS : many ? TILE_BLOCKS : UNIT_BLOCKS);

    switch (form) {
    case CUDA_F32: RD_LAUNCH(experts_gate_up_plain, blocks, UNIT_THREADS, 0, d->stream, *l); break;
    case CUDA_BF16: EXPERTS_LAUNCH(experts_gate_up, CUDA_BF16); break;
    case CUDA_E4M3: EXPERTS_LAUNCH(experts_gate_up, CUDA_E4M3); break;
    case CUDA_I8: EXPERTS_LAUNCH(experts_gate_up, CUDA_I8); break;
    case CUDA_I4: EXPERTS_LAUNCH(experts_gate_up, CUDA_I4); break;
    }
    return cuda_status(cudaPeekAtLastError(), "gate and up of experts", err);
}

rd_status experts_down(rd_device *d, cuda_form form, const experts_launch *l, rd_error *err)
{
    bool plain = form == CUDA_F32, many = l->item > 8 * UNIT_TILES;
    int slices = layout_ceil(l->hidden, plain ? (int)PLAIN_COLS : many ? 2 * TILE_HALF : (int)DOWN_COLS);
    unsigned blocks = blocks_of(d, l, slices, slices, plain ? PLAIN_BLOCKS : many ? TILE_BLOCKS : UNIT_BLOCKS);

    switch (form) {
    case CUDA_F32: RD_LAUNCH(experts_down_plain, blocks, UNIT_THREADS, 0, d->stream, *l); break;
    case CUDA_BF16: EXPERTS_LAUNCH(experts_down, CUDA_BF16); break;
    case CUDA_E4M3: EXPERTS_LAUNCH(experts_down, CUDA_E4M3); break;
    case CUDA_I8: EXPERTS_LAUNCH(experts_down, CUDA_I8); break;
    case CUDA_I4: EXPERTS_LAUNCH(experts_down, CUDA_I4); break;
    }
    return cuda_status(cudaPeekAtLastError(), "down of experts", err);
}

/* Once for a device: the kernels for many rows take more shared memory than a kernel may by itself. */
rd_status experts_open(rd_error *err)
{
    const int bytes = tile_shared(ROUTE_ITEM_MANY);
    cudaError_t e[] = {
        RD_ALLOW_SHARED(experts_gate_up_many<CUDA_BF16>, bytes), RD_ALLOW_SHARED(experts_down_many<CUDA_BF16>, bytes),
        RD_ALLOW_SHARED(experts_gate_up_many<CUDA_E4M3>, bytes), RD_ALLOW_SHARED(experts_down_many<CUDA_E4M3>, bytes),
        RD_ALLOW_SHARED(experts_gate_up_many<CUDA_I8>, bytes),   RD_ALLOW_SHARED(experts_down_many<CUDA_I8>, bytes),
        RD_ALLOW_SHARED(experts_gate_up_many<CUDA_I4>, bytes),   RD_ALLOW_SHARED(experts_down_many<CUDA_I4>, bytes),
    };

    for (size_t i = 0; i < sizeof e / sizeof *e; i++)
        if (cuda_status(e[i], "shared memory of experts", err)) return err->status;
    return RD_OK;
}

rd_status experts_sum(rd_device *d, const experts_launch *l, int top_k, bool shared, float *y, rd_error *err)
{
    dim3 grid((unsigned)layout_ceil(l->hidden, 4 * SUM_THREADS), (unsigned)l->rows);

    RD_LAUNCH(experts_add, grid, SUM_THREADS, 0, d->stream, y, l->out, l->route.place, l->route.weight, l->hidden,
              top_k, l->pairs, shared);
    return cuda_status(cudaPeekAtLastError(), "sum of experts", err);
}
