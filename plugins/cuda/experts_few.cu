/* experts_few.cu - products of experts that have few rows: up to 16 of an item.
 *
 * A block of four warps streams weights from memory to registers (product_run). For gate and up a unit is 16 columns of the
 * inner rows, and the warps share the sum over hidden; for down it is 64 columns of the result, two warps for each 32, which
 * share the sum over the inner columns. Activations of an item's rows are read through the first cache, which holds all rows
 * of a pass of 32. An expert with more rows than an item has several, one behind the other, so that its weights come from
 * the second cache but for the first time.
 */
#include "plugins/cuda/experts_unit.cuh"

enum {
    UNIT_WARPS = 4,
    UNIT_THREADS = UNIT_WARPS * GPU_WARP,
    UNIT_BLOCKS = 3, /* of a multiprocessor */
    UNIT_TILES = 2,  /* of 8 rows, at most: an item of few */
    INNER_COLS = 16, /* of a unit of gate and up */
    DOWN_COLS = 64,  /* of a unit of down */
};

static_assert(ROUTE_ITEM_FEW == 8 * UNIT_TILES, "a unit holds the rows of an item");

/* A number of each thread's sums in shared memory: [warp or pair of warps][tile][8 rows][4][32]. */
static __device__ inline int sum_at(int who, int m, int n, int i)
{
    return ((((who * 2 + m) * UNIT_TILES + n) * 4 + i) * GPU_WARP) + (int)threadIdx.x % GPU_WARP;
}

/* acc[0] = rows [row_a, + 16) of a times x, acc[1] = rows [row_b, + 16) of b times x, over chunks [from, to). */
template <cuda_form F, int N>
static __device__ inline void product_two(float (&acc)[2][N][4], const product_weight &a, int row_a,
                                          const product_weight &b, int row_b,
                                          const uint16_t *const (&x)[N], int from, int to)
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
    int lane = (int)threadIdx.x % GPU_WARP, warp = (int)threadIdx.x / GPU_WARP, g = lane / 4,
        t = lane % 4;
    int col = u.slice * INNER_COLS, chunks = l.stride / CUDA_COLS;
    product_weight gate = l.gate[u.expert], up = l.up[u.expert];
    int last = (gate.rows - 1) / INNER_COLS * INNER_COLS;
    const uint16_t *x[N];
    float acc[2][N][4] = {};

    for (int n = 0; n < N; n++) {
        int row = l.route.row[u.first + min(8 * n + g, u.count - 1)];

        x[n] = product_x<F>((const uint16_t *)l.x + (size_t)row * (size_t)l.stride);
    }
    product_two<F, N>(acc, gate, min(col, last), up, min(col, last), x,
                      layout_part(chunks, UNIT_WARPS, warp),
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
        if (at < u.count) put_inner(l, u, u.first + at, to, a);
    }
}

/* Columns [64 slice, + 64) of the results of a unit of at most 8 N rows. */
template <cuda_form F, int N>
static __device__ inline void down_unit(const experts_launch &l, const unit &u, float *room)
{
    int lane = (int)threadIdx.x % GPU_WARP, warp = (int)threadIdx.x / GPU_WARP, g = lane / 4,
        t = lane % 4;
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

/* A block's units, one after the other. `room`: of a unit's sums. */
template <cuda_form F, experts_part part>
static __device__ inline void few_units(const experts_launch &l, unit &u, float *room)
{
    const int cols = part == EXPERTS_DOWN ? (int)DOWN_COLS : (int)INNER_COLS;
    int slices = slices_of(l, part, l.routed, cols),
        shared_slices = slices_of(l, part, l.shared, cols);
    int units = units_of(l, slices, shared_slices);

    for (int i = (int)blockIdx.x; i < units; i += (int)gridDim.x) {
        if (threadIdx.x == 0) u = unit_at(l, i, slices, shared_slices);
        __syncthreads(); /* u is there, and room is free */
        if (part == EXPERTS_GATE_UP && u.count <= 8)
            gate_up_unit<F, 1>(l, u, room);
        else if (part == EXPERTS_GATE_UP)
            gate_up_unit<F, UNIT_TILES>(l, u, room);
        else if (u.count <= 8)
            down_unit<F, 1>(l, u, room);
        else
            down_unit<F, UNIT_TILES>(l, u, room);
        __syncthreads(); /* u is no longer wanted */
    }
}

template <cuda_form F>
static __global__ void __launch_bounds__(UNIT_THREADS, UNIT_BLOCKS)
    experts_gate_up_few(experts_launch l)
{
    __shared__ unit u;
    __shared__ float room[UNIT_WARPS * 2 * UNIT_TILES * 4 * GPU_WARP];

    few_units<F, EXPERTS_GATE_UP>(l, u, room);
}

template <cuda_form F>
static __global__ void __launch_bounds__(UNIT_THREADS, UNIT_BLOCKS)
    experts_down_few(experts_launch l)
{
    __shared__ unit u;
    __shared__ float room[2 * 2 * UNIT_TILES * 4 * GPU_WARP];

    few_units<F, EXPERTS_DOWN>(l, u, room);
}

/* ---- launches ---- */

template <cuda_form F> static void launch(rd_device *d, const experts_launch *l, experts_part part)
{
    unsigned blocks =
        experts_blocks(d, l, part, part == EXPERTS_DOWN ? DOWN_COLS : INNER_COLS, UNIT_BLOCKS);

    if (part == EXPERTS_DOWN)
        RD_LAUNCH(experts_down_few<F>, blocks, UNIT_THREADS, 0, d->stream, *l);
    else
        RD_LAUNCH(experts_gate_up_few<F>, blocks, UNIT_THREADS, 0, d->stream, *l);
}

void experts_few(rd_device *d, cuda_form form, const experts_launch *l, experts_part part)
{
    switch (form) {
    case CUDA_F32: break;
    case CUDA_BF16: launch<CUDA_BF16>(d, l, part); break;
    case CUDA_E4M3: launch<CUDA_E4M3>(d, l, part); break;
    case CUDA_I8: launch<CUDA_I8>(d, l, part); break;
    case CUDA_I4: launch<CUDA_I4>(d, l, part); break;
    }
}
