/* experts.cu - products of experts over sorted pairs: two launches, each touched expert's weights read once by each.
 *
 * Kernels for few rows (experts_few.cu) and for many (experts_many.cu) are chosen here by the size of an item; those for
 * float32 weights, which are plain and serve conformance, and the sum over a row's experts are here.
 */
#include "plugins/cuda/experts_unit.cuh"

enum {
    PLAIN_WARPS = 4,
    PLAIN_THREADS = PLAIN_WARPS * GPU_WARP,
    PLAIN_COLS = 32, /* of a unit */
    PLAIN_BLOCKS = 8,
    SUM_THREADS = 128,
};

/* ---- float32 ---- */

static __device__ inline float dot(const float *a, const float *b, int n)
{
    float s = 0.0f;

    for (int k = (int)threadIdx.x % GPU_WARP; k < n; k += GPU_WARP) s = __fmaf_rn(a[k], b[k], s);
    return gpu_warp_sum(s);
}

/* A warp makes every fourth of 32 columns, one at a time, for all rows of the item. */
static __global__ void __launch_bounds__(PLAIN_THREADS) experts_gate_up_plain(experts_launch l)
{
    int slices = layout_ceil(l.routed.stride, PLAIN_COLS),
        shared_slices = layout_ceil(l.shared.stride, PLAIN_COLS);
    int units = units_of(l, slices, shared_slices), lane = (int)threadIdx.x % GPU_WARP;

    for (int i = (int)blockIdx.x; i < units; i += (int)gridDim.x) {
        unit u = unit_at(l, i, slices, shared_slices);
        product_weight gate = l.gate[u.expert], up = l.up[u.expert];
        int end = min((u.slice + 1) * PLAIN_COLS, u.shared ? l.shared.stride : l.routed.stride);

        for (int c = u.slice * PLAIN_COLS + (int)threadIdx.x / GPU_WARP; c < end; c += PLAIN_WARPS)
            for (int r = 0; r < u.count; r++) {
                const float *x =
                    (const float *)l.x + (size_t)l.route.row[u.first + r] * (size_t)l.stride;
                float h = 0.0f;

                if (c < gate.rows) {
                    float a =
                        dot((const float *)gate.data + (size_t)c * (size_t)l.stride, x, l.hidden);
                    float b =
                        dot((const float *)up.data + (size_t)c * (size_t)l.stride, x, l.hidden);

                    h = a / (1.0f + expf(-a)) * b;
                }
                if (lane == 0) {
                    put_inner(l, u, u.first + r, c, h);
                }
            }
    }
}

static __global__ void __launch_bounds__(PLAIN_THREADS) experts_down_plain(experts_launch l)
{
    int slices = layout_ceil(l.hidden, PLAIN_COLS), units = units_of(l, slices, slices);
    int lane = (int)threadIdx.x % GPU_WARP;

    for (int i = (int)blockIdx.x; i < units; i += (int)gridDim.x) {
        unit u = unit_at(l, i, slices, slices);
        const float *down = (const float *)l.down[u.expert].data;
        int stride = u.shared ? l.shared.stride : l.routed.stride,
            width = u.shared ? l.shared.width : l.routed.width;
        int end = min((u.slice + 1) * PLAIN_COLS, l.hidden);

        for (int c = u.slice * PLAIN_COLS + (int)threadIdx.x / GPU_WARP; c < end; c += PLAIN_WARPS)
            for (int r = 0; r < u.count; r++) {
                float y = dot(down + (size_t)c * (size_t)stride,
                              inner_row<const float>(l, u, u.first + r), width);

                if (lane == 0) l.out[(size_t)(u.first + r) * (size_t)l.hidden + (size_t)c] = y;
            }
    }
}

/* ---- the sum ---- */

/* y [rows, hidden]. Grid: hidden / 512, rows; a thread makes four columns, from the router's first choice to its last. */
static __global__ void __launch_bounds__(SUM_THREADS)
    experts_add(float *y, const float *out, const int *place, const float *weight, int hidden,
                int top_k, int pairs, bool shared)
{
    int row = (int)blockIdx.y, col = ((int)blockIdx.x * SUM_THREADS + (int)threadIdx.x) * 4;
    bool whole = hidden % 4 == 0;

    if (whole && col < hidden) {
        float4 s = { 0.0f, 0.0f, 0.0f, 0.0f };

        if (shared) s = *(const float4 *)(out + (size_t)(pairs + row) * (size_t)hidden + col);
#pragma unroll 8
        for (int k = 0; k < top_k; k++) {
            float w = weight[row * top_k + k];
            float4 v =
                *(const float4 *)(out + (size_t)place[row * top_k + k] * (size_t)hidden + col);

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

static rd_status launch(rd_device *d, cuda_form form, const experts_launch *l, experts_part part,
                        rd_error *err)
{
    bool down = part == EXPERTS_DOWN;

    if (form == CUDA_F32) {
        unsigned blocks = experts_blocks(d, l, part, PLAIN_COLS, PLAIN_BLOCKS);

        if (down)
            RD_LAUNCH(experts_down_plain, blocks, PLAIN_THREADS, 0, d->stream, *l);
        else
            RD_LAUNCH(experts_gate_up_plain, blocks, PLAIN_THREADS, 0, d->stream, *l);
    } else if (l->item > ROUTE_ITEM_FEW) {
        experts_many(d, form, l, part);
    } else {
        experts_few(d, form, l, part);
    }
    return cuda_status(cudaPeekAtLastError(), down ? "down of experts" : "gate and up of experts",
                       err);
}

rd_status experts_open(rd_error *err)
{
    return experts_many_open(err);
}

rd_status experts_gate_up(rd_device *d, cuda_form form, const experts_launch *l, rd_error *err)
{
    return launch(d, form, l, EXPERTS_GATE_UP, err);
}

rd_status experts_down(rd_device *d, cuda_form form, const experts_launch *l, rd_error *err)
{
    return launch(d, form, l, EXPERTS_DOWN, err);
}

rd_status experts_sum(rd_device *d, const experts_launch *l, int top_k, bool shared, float *y,
                      rd_error *err)
{
    dim3 grid((unsigned)layout_ceil(l->hidden, 4 * SUM_THREADS), (unsigned)l->rows);

    RD_LAUNCH(experts_add, grid, SUM_THREADS, 0, d->stream, y, l->out, l->route.place,
              l->route.weight, l->hidden, top_k, l->pairs, shared);
    return cuda_status(cudaPeekAtLastError(), "sum of experts", err);
}
