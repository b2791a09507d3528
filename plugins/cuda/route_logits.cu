/* route_logits.cu - the router's logits in float32: a block makes 8 rows by 8 experts with the sum over hidden spread over its
 * threads, or, where there are many rows, 64 by 64 from shared memory.
 *
 * The sum's order depends on shapes alone. The first block sets the counts of the pass to zero.
 */
#include "plugins/cuda/route.cuh"

enum {
    LOGIT_ROWS = 8, /* and experts of a block */
    LOGIT_THREADS = 256,
    TILE = 64,      /* rows, and experts, of a block where rows are many */
    TILE_K = 32,    /* columns held at once */
    TILE_SPLIT = 4, /* parts of those, each with threads of its own */
    TILE_ROOM = TILE + 4,
};

/* Four numbers of a row at column k, zeros behind its end. `whole`: rows stand at multiples of 16 bytes. */
static __device__ inline float4 four_at(const float *row, int k, int cols, bool whole)
{
    float4 v = { 0.0f, 0.0f, 0.0f, 0.0f };

    if (whole && k + 4 <= cols) return *(const float4 *)(row + k);
    if (k < cols) v.x = row[k];
    if (k + 1 < cols) v.y = row[k + 1];
    if (k + 2 < cols) v.z = row[k + 2];
    if (k + 3 < cols) v.w = row[k + 3];
    return v;
}

/* Half of v's `n` numbers go to the lane at `by`, which sends as many of its own: sums over pairs of lanes. */
template <int n> static __device__ inline void halve(float *v, int by)
{
    bool high = ((int)threadIdx.x & by) != 0;

#pragma unroll
    for (int i = 0; i < n / 2; i++) {
        float send = high ? v[i] : v[i + n / 2], keep = high ? v[i + n / 2] : v[i];

        v[i] = keep + __shfl_xor_sync(GPU_ALL, send, by);
    }
}

/* logits [rows, experts] = x [rows, hidden] router^T. Grid: experts / 8, rows / 8. */
static __global__ void __launch_bounds__(LOGIT_THREADS)
    route_logits(float *logits, const float *x, const float *router, int rows, int experts,
                 int hidden, int *count)
{
    __shared__ float part[LOGIT_THREADS / GPU_WARP][LOGIT_ROWS * LOGIT_ROWS];
    int thread = (int)threadIdx.x, lane = thread % GPU_WARP;
    int row = (int)blockIdx.y * LOGIT_ROWS, expert = (int)blockIdx.x * LOGIT_ROWS;
    bool whole = hidden % 4 == 0;
    float v[LOGIT_ROWS * LOGIT_ROWS];

    if (blockIdx.x == 0 && blockIdx.y == 0 && thread < 2) count[thread] = 0;
#pragma unroll
    for (int i = 0; i < LOGIT_ROWS * LOGIT_ROWS; i++) v[i] = 0.0f;
    for (int k = 4 * thread; k < hidden; k += 4 * LOGIT_THREADS) {
        float4 a[LOGIT_ROWS], b[LOGIT_ROWS];

#pragma unroll
        for (int i = 0; i < LOGIT_ROWS; i++) {
            int r = min(row + i, rows - 1), e = min(expert + i, experts - 1);

            a[i] = four_at(x + (size_t)r * (size_t)hidden, k, hidden, whole);
            b[i] = four_at(router + (size_t)e * (size_t)hidden, k, hidden, whole);
        }
#pragma unroll
        for (int i = 0; i < LOGIT_ROWS; i++)
#pragma unroll
            for (int j = 0; j < LOGIT_ROWS; j++) {
                float s = v[LOGIT_ROWS * i + j];

                s = __fmaf_rn(a[i].x, b[j].x, s);
                s = __fmaf_rn(a[i].y, b[j].y, s);
                s = __fmaf_rn(a[i].z, b[j].z, s);
                v[LOGIT_ROWS * i + j] = __fmaf_rn(a[i].w, b[j].w, s);
            }
    }
    halve<64>(v, 16);
    halve<32>(v, 8);
    halve<16>(v, 4);
    halve<8>(v, 2);
    halve<4>(v, 1);
    /* Bit 4 of the lane chose the upper 32 of 64, bit 3 the upper 16 of those, and so on: two are left. */
    part[thread / GPU_WARP][2 * lane] = v[0];
    part[thread / GPU_WARP][2 * lane + 1] = v[1];
    __syncthreads();
    if (thread < LOGIT_ROWS * LOGIT_ROWS) {
        int r = row + thread / LOGIT_ROWS, e = expert + thread % LOGIT_ROWS;
        float s = 0.0f;

        for (int w = 0; w < LOGIT_THREADS / GPU_WARP; w++) s += part[w][thread];
        if (r < rows && e < experts) logits[(size_t)r * (size_t)experts + (size_t)e] = s;
    }
}

/* The same for many rows. Grid: experts / 64, rows / 64. 64 threads make a tile of 64 x 64 from a quarter of the columns, 8 x 8 a
 * thread; then the four quarters are summed, in order. */
static __global__ void __launch_bounds__(LOGIT_THREADS)
    route_logits_many(float *logits, const float *x, const float *router, int rows, int experts,
                      int hidden, int *count)
{
    /* [TILE_K][TILE_ROOM] twice, and at the end [TILE][TILE_ROOM] of sums */
    __shared__ __align__(16) float room[2 * TILE_K * TILE_ROOM];
    float *xs = room, *ws = room + TILE_K * TILE_ROOM;
    int thread = (int)threadIdx.x, part = thread / TILE, at = thread % TILE;
    int i0 = at / 8 * 8, j0 = at % 8 * 8; /* of this thread's 8 x 8 */
    int row = (int)blockIdx.y * TILE, expert = (int)blockIdx.x * TILE;
    const float *from_x = x + (size_t)min(row + at, rows - 1) * (size_t)hidden;
    const float *from_w = router + (size_t)min(expert + at, experts - 1) * (size_t)hidden;
    bool whole = hidden % 4 == 0;
    float v[8][8];

    if (blockIdx.x == 0 && blockIdx.y == 0 && thread < 2) count[thread] = 0;
#pragma unroll
    for (int i = 0; i < 8; i++)
#pragma unroll
        for (int j = 0; j < 8; j++) v[i][j] = 0.0f;
    for (int k = 0; k < hidden; k += TILE_K) {
        float4 a[2], b[2];
        int own = part * (TILE_K / TILE_SPLIT);

        for (int h = 0; h < 2; h++) {
            a[h] = four_at(from_x, k + own + 4 * h, hidden, whole);
            b[h] = four_at(from_w, k + own + 4 * h, hidden, whole);
        }
        __syncthreads(); /* the columns before are used up */
        for (int h = 0; h < 2; h++) {
            float *to_x = xs + (own + 4 * h) * TILE_ROOM + at,
                  *to_w = ws + (own + 4 * h) * TILE_ROOM + at;

            to_x[0] = a[h].x, to_x[TILE_ROOM] = a[h].y;
            to_x[2 * TILE_ROOM] = a[h].z, to_x[3 * TILE_ROOM] = a[h].w;
            to_w[0] = b[h].x, to_w[TILE_ROOM] = b[h].y;
            to_w[2 * TILE_ROOM] = b[h].z, to_w[3 * TILE_ROOM] = b[h].w;
        }
        __syncthreads();
#pragma unroll
        for (int c = 0; c < TILE_K / TILE_SPLIT; c++) {
            const float *xc = xs + (own + c) * TILE_ROOM + i0,
                        *wc = ws + (own + c) * TILE_ROOM + j0;
            float4 a0 = *(const float4 *)xc, a1 = *(const float4 *)(xc + 4);
            float4 b0 = *(const float4 *)wc, b1 = *(const float4 *)(wc + 4);
            float p[8] = { a0.x, a0.y, a0.z, a0.w, a1.x, a1.y, a1.z, a1.w };
            float q[8] = { b0.x, b0.y, b0.z, b0.w, b1.x, b1.y, b1.z, b1.w };

#pragma unroll
            for (int i = 0; i < 8; i++)
#pragma unroll
                for (int j = 0; j < 8; j++) v[i][j] = __fmaf_rn(p[i], q[j], v[i][j]);
        }
    }
    for (int turn = 0; turn < TILE_SPLIT; turn++) {
        __syncthreads();
        if (part != turn) continue;
#pragma unroll
        for (int i = 0; i < 8; i++)
#pragma unroll
            for (int j = 0; j < 8; j++) {
                float *s = room + (i0 + i) * TILE_ROOM + j0 + j;

                *s = turn > 0 ? *s + v[i][j] : v[i][j];
            }
    }
    __syncthreads();
    for (int i = thread; i < TILE * TILE; i += LOGIT_THREADS) {
        int r = row + i / TILE, e = expert + i % TILE;

        if (r < rows && e < experts)
            logits[(size_t)r * (size_t)experts + (size_t)e] = room[i / TILE * TILE_ROOM + i % TILE];
    }
}

void cuda_route_logits(rd_device *d, const route_args *a, const route_at *to)
{
    const route_shape *s = &a->shape;
    int tile = s->rows > ROUTE_FEW ? TILE : LOGIT_ROWS;
    dim3 grid((unsigned)layout_ceil(s->experts, tile), (unsigned)layout_ceil(s->rows, tile));

    if (s->rows > ROUTE_FEW)
        RD_LAUNCH(route_logits_many, grid, LOGIT_THREADS, 0, d->stream, to->logits, a->x, a->router,
                  s->rows, s->experts, s->hidden, to->count);
    else
        RD_LAUNCH(route_logits, grid, LOGIT_THREADS, 0, d->stream, to->logits, a->x, a->router,
                  s->rows, s->experts, s->hidden, to->count);
}
