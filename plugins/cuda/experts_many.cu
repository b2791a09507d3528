/* experts_many.cu - products of experts that have many rows: up to 64 of an item.
 *
 * A block of eight warps multiplies from shared memory (tile_run). For gate and up a unit is 64 columns of the inner rows, by 64
 * rows of gate and the same of up; for down it is 128 columns of the result.
 */
#include "plugins/cuda/experts_unit.cuh"
#include "plugins/cuda/tile.cuh"

enum { TILE_BLOCKS = 2 /* of a multiprocessor */ };

/* A block's unit after `turn` others; its count is 0 where there are no more. */
static __device__ inline unit unit_of_turn(const experts_launch &l, int turn, int slices,
                                           int shared_slices)
{
    int i = (int)blockIdx.x + turn * (int)gridDim.x;
    unit none = { 0, 0, 0, 0, false };

    return i < units_of(l, slices, shared_slices) ? unit_at(l, i, slices, shared_slices) : none;
}

/* 64 columns of the inner rows of a unit of at most ROWS rows: 64 rows of gate and the same of up. */
template <cuda_form F, int ROWS>
static __device__ inline void gate_up_tile(const experts_launch &l, const unit &u,
                                           const tile_half (&w)[2], unsigned char *shared)
{
    tile_rows x = { (const uint16_t *)l.x, l.route.row + u.first, u.count, l.stride };
    float acc[2][ROWS / 16][4] = {};

    tile_run<F, ROWS>(acc, w, x, shared);
    int lane = (int)threadIdx.x % GPU_WARP, warp = (int)threadIdx.x / GPU_WARP, g = lane / 4,
        t = lane % 4;
    int col = w[0].row;

#pragma unroll
    for (int n = 0; n < ROWS / 16; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int at = warp / 4 * (ROWS / 2) + 8 * n + 2 * t + i % 2,
                to = col + warp % 4 * 16 + g + 8 * (i / 2);
            float h = to < w[0].w.rows ? product_silu(acc[0][n][i], acc[1][n][i]) : 0.0f;

            if (at < u.count) put_inner(l, u, u.first + at, to, h);
        }
}

/* 128 columns of the results of a unit of at most ROWS rows. */
template <cuda_form F, int ROWS>
static __device__ inline void down_tile(const experts_launch &l, const unit &u,
                                        const tile_half (&w)[2], unsigned char *shared)
{
    tile_rows x = { inner_row<const uint16_t>(l, u, u.first), NULL, u.count, w[0].w.stride };
    float acc[2][ROWS / 16][4] = {};

    tile_run<F, ROWS>(acc, w, x, shared);
    int lane = (int)threadIdx.x % GPU_WARP, warp = (int)threadIdx.x / GPU_WARP, g = lane / 4,
        t = lane % 4;
    int col = w[0].row;

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

/* A block's units, one after the other. u and w are in shared memory, not in registers, of which there are few. */
template <cuda_form F, experts_part part>
static __device__ inline void many_units(const experts_launch &l, unit &u, tile_half (&w)[2],
                                         unsigned char *shared)
{
    const int cols = part == EXPERTS_DOWN ? 2 * TILE_HALF : (int)TILE_HALF;

    for (int turn = 0;; turn++) {
        if (threadIdx.x == 0) {
            u = unit_of_turn(l, turn, slices_of(l, part, l.routed, cols),
                             slices_of(l, part, l.shared, cols));
            for (int m = 0; m < 2 && u.count > 0; m++) {
                w[m].w = part == EXPERTS_DOWN ? l.down[u.expert]
                         : m == 0             ? l.gate[u.expert]
                                              : l.up[u.expert];
                w[m].row = (part == EXPERTS_DOWN ? 2 * u.slice + m : u.slice) * TILE_HALF;
            }
        }
        __syncthreads(); /* u and w are there */
        if (u.count == 0) break;
        if (part == EXPERTS_GATE_UP && u.count <= ROUTE_ITEM_MANY / 2)
            gate_up_tile<F, ROUTE_ITEM_MANY / 2>(l, u, w, shared);
        else if (part == EXPERTS_GATE_UP)
            gate_up_tile<F, ROUTE_ITEM_MANY>(l, u, w, shared);
        else if (u.count <= ROUTE_ITEM_MANY / 2)
            down_tile<F, ROUTE_ITEM_MANY / 2>(l, u, w, shared);
        else
            down_tile<F, ROUTE_ITEM_MANY>(l, u, w, shared);
        __syncthreads(); /* they and shared are free */
    }
}

template <cuda_form F>
static __global__ void __launch_bounds__(TILE_THREADS, TILE_BLOCKS)
    experts_gate_up_many(experts_launch l)
{
    RD_DYNAMIC_SHARED(unsigned char, shared);
    __shared__ unit u;
    __shared__ tile_half w[2];

    many_units<F, EXPERTS_GATE_UP>(l, u, w, shared);
}

template <cuda_form F>
static __global__ void __launch_bounds__(TILE_THREADS, TILE_BLOCKS)
    experts_down_many(experts_launch l)
{
    RD_DYNAMIC_SHARED(unsigned char, shared);
    __shared__ unit u;
    __shared__ tile_half w[2];

    many_units<F, EXPERTS_DOWN>(l, u, w, shared);
}

/* ---- launches ---- */

template <cuda_form F> static void launch(rd_device *d, const experts_launch *l, experts_part part)
{
    unsigned blocks =
        experts_blocks(d, l, part, part == EXPERTS_DOWN ? 2 * TILE_HALF : TILE_HALF, TILE_BLOCKS);

    if (part == EXPERTS_DOWN)
        RD_LAUNCH(experts_down_many<F>, blocks, TILE_THREADS, tile_shared(ROUTE_ITEM_MANY),
                  d->stream, *l);
    else
        RD_LAUNCH(experts_gate_up_many<F>, blocks, TILE_THREADS, tile_shared(ROUTE_ITEM_MANY),
                  d->stream, *l);
}

void experts_many(rd_device *d, cuda_form form, const experts_launch *l, experts_part part)
{
    switch (form) {
    case CUDA_F32: break;
    case CUDA_BF16: launch<CUDA_BF16>(d, l, part); break;
    case CUDA_E4M3: launch<CUDA_E4M3>(d, l, part); break;
    case CUDA_I8: launch<CUDA_I8>(d, l, part); break;
    case CUDA_I4: launch<CUDA_I4>(d, l, part); break;
    }
}

/* The kernels take more shared memory than a kernel may by itself. */
rd_status experts_many_open(rd_error *err)
{
    const int bytes = tile_shared(ROUTE_ITEM_MANY);
    cudaError_t e[] = {
        RD_ALLOW_SHARED(experts_gate_up_many<CUDA_BF16>, bytes),
        RD_ALLOW_SHARED(experts_down_many<CUDA_BF16>, bytes),
        RD_ALLOW_SHARED(experts_gate_up_many<CUDA_E4M3>, bytes),
        RD_ALLOW_SHARED(experts_down_many<CUDA_E4M3>, bytes),
        RD_ALLOW_SHARED(experts_gate_up_many<CUDA_I8>, bytes),
        RD_ALLOW_SHARED(experts_down_many<CUDA_I8>, bytes),
        RD_ALLOW_SHARED(experts_gate_up_many<CUDA_I4>, bytes),
        RD_ALLOW_SHARED(experts_down_many<CUDA_I4>, bytes),
    };

    for (size_t i = 0; i < sizeof e / sizeof *e; i++)
        if (cuda_status(e[i], "shared memory of experts", err)) return err->status;
    return RD_OK;
}
