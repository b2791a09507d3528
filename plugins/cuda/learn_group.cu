/* learn_group.cu - products of rows sorted by expert: forward, and both gradients.
 *
 * An expert's slots begin at a multiple of LEARN_SLOTS, so a tile of 128 slots belongs to one expert; which one the device
 * knows, and the grid is made for the worst case: blocks without work leave. A block makes 128 x 128 of C, a warp 64 x 32,
 * from tiles of 64 along k that are copied three deep. Rows are read where they lie: a slot's row is looked up (a_row), a
 * slot without a row is zero. So neither gathered copies nor scattered sums are ever written.
 *
 * k and n are multiples of 8; what stands behind their end is read as zero.
 */
#include "plugins/cuda/learn.h"

enum { SIDE = 128, DEEP = 64, STAGES = 3, THREADS = 256, TILE_BYTES = SIDE * DEEP * 2 };

static_assert((int)SIDE == (int)LEARN_SLOTS, "a tile has one expert");

typedef enum group_form { GROUP_TIMES, GROUP_TIMES_BACK, GROUP_WEIGH } group_form;

/* A tile of 128 rows of 64 columns k .. : rows first .. of `from`, or those that `row_of` [128] names (-1: zeros). */
static __device__ inline void load_rows(bf16 *tile, const bf16 *from, int ld, const int *row_of,
                                        int first, int rows, int k, int deep)
{
#pragma unroll
    for (int i = 0; i < SIDE * 8 / THREADS; i++) {
        int at = (int)threadIdx.x + i * THREADS, r = at / 8, c = at % 8;
        int row = row_of ? row_of[r] : first + r < rows ? first + r : -1;
        bool there = row >= 0 && k + c * 8 < deep;

        gpu_copy_async(tile + tile_at<8>(r, c),
                       there ? from + (size_t)row * (size_t)ld + k + c * 8 : from, there ? 16 : 0);
    }
}

/* A tile of 64 rows k .. of 128 columns n .. */
static __device__ inline void load_deep(bf16 *tile, const bf16 *from, int ld, const int *row_of,
                                        int k, int deep, int n, int cols)
{
#pragma unroll
    for (int i = 0; i < DEEP * 16 / THREADS; i++) {
        int at = (int)threadIdx.x + i * THREADS, r = at / 16, c = at % 16;
        int row = k + r < deep ? k + r : -1;

        if (row_of && row >= 0) row = row_of[row];
        bool there = row >= 0 && n + c * 8 < cols;

        gpu_copy_async(tile + tile_at<16>(r, c),
                       there ? from + (size_t)row * (size_t)ld + n + c * 8 : from, there ? 16 : 0);
    }
}

/* a, b: tiles of A ([m][k], or [k][m] turned) and of B ([n][k], or [k][n] turned). */
template <bool A_TURNED, bool B_TURNED>
static __device__ inline void multiply(float c[4][4][4], const bf16 *a, const bf16 *b, int m, int n)
{
#pragma unroll
    for (int s = 0; s < DEEP / 16; s++) {
        uint32_t x[4][4], y[2][4];

#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (A_TURNED)
                tile_a_turned<16>(x[i], a, 16 * s, m / 8 + 2 * i);
            else
                tile_a<8>(x[i], a, m + 16 * i, 2 * s);
        }
#pragma unroll
        for (int j = 0; j < 2; j++) {
            if (B_TURNED)
                tile_b_turned<16>(y[j], b, 16 * s, n / 8 + 2 * j);
            else
                tile_b<8>(y[j], b, n + 16 * j, 2 * s);
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
#pragma unroll
            for (int j = 0; j < 4; j++) gpu_mma_bf16(c[i][j], x[i], y[j / 2] + 2 * (j % 2));
        }
    }
}

/* Grid: times and times_back: (tiles of n, tiles of slots); weigh: (tiles of n, tiles of m, experts). */
template <group_form FORM>
static __global__ void __launch_bounds__(THREADS, 2) group(learn_product g)
{
    enum { WEIGH = FORM == GROUP_WEIGH, A_TURNED = WEIGH, B_TURNED = FORM != GROUP_TIMES };
    RD_DYNAMIC_SHARED(bf16, room);
    __shared__ int a_row[SIDE];
    int lane = (int)threadIdx.x % GPU_WARP, warp = (int)threadIdx.x / GPU_WARP;
    int e = WEIGH ? (int)blockIdx.z : g.tile[blockIdx.y];

    if (e < 0) return; /* the whole block */
    int n0 = (int)blockIdx.x * SIDE, m0 = (int)blockIdx.y * SIDE;
    int k0 = WEIGH ? g.start[e] : 0, k1 = WEIGH ? g.start[e + 1] : g.k;

    if (WEIGH && k0 == k1) return;
    if (!WEIGH) { /* looked up once */
        if (threadIdx.x < SIDE) {
            int row = m0 + (int)threadIdx.x;

            a_row[threadIdx.x] = row >= g.m ? -1 : g.a_row ? g.a_row[row] : row;
        }
        __syncthreads();
    }
    const bf16 *weight = WEIGH ? NULL : g.b + (size_t)e * g.stride;
    int steps = (k1 - k0 + DEEP - 1) / DEEP, m = warp / 4 * 64, n = warp % 4 * 32;
    float c[4][4][4];

#pragma unroll
    for (int i = 0; i < 4; i++) {
#pragma unroll
        for (int j = 0; j < 4; j++) c[i][j][0] = c[i][j][1] = c[i][j][2] = c[i][j][3] = 0.0f;
    }
    auto load = [&](int step) {
        bf16 *a = room + step % STAGES * SIDE * DEEP, *b = a + STAGES * SIDE * DEEP;
        int k = k0 + step * DEEP;

        if (WEIGH) {
            load_deep(a, g.a, g.lda, g.a_row, k, k1, m0, g.m);
            load_deep(b, g.b, g.ldb, g.b_row, k, k1, n0, g.n);
        } else {
            load_rows(a, g.a, g.lda, a_row, m0, g.m, k, k1);
            if (FORM == GROUP_TIMES)
                load_rows(b, weight, g.ldb, NULL, n0, g.n, k, k1);
            else
                load_deep(b, weight, g.ldb, NULL, k, k1, n0, g.n);
        }
    };

#pragma unroll
    for (int s = 0; s < STAGES - 1; s++) {
        if (s < steps) load(s);
        gpu_copy_commit();
    }
    for (int s = 0; s < steps; s++) {
        const bf16 *a = room + s % STAGES * SIDE * DEEP, *b = a + STAGES * SIDE * DEEP;

        gpu_copy_wait<STAGES - 2>();
        __syncthreads(); /* tile s is there, and nobody reads tile s - 1 any more */
        if (s + STAGES - 1 < steps) load(s + STAGES - 1);
        gpu_copy_commit();
        multiply<A_TURNED, B_TURNED>(c, a, b, m, n);
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
#pragma unroll
        for (int j = 0; j < 4; j++) {
#pragma unroll
            for (int r = 0; r < 2; r++) {
                int row = m0 + m + 16 * i + lane / 4 + 8 * r, col = n0 + n + 8 * j + lane % 4 * 2;

                if (row >= g.m || col >= g.n) continue;
                size_t at = (size_t)row * (size_t)g.ldc + (size_t)col;

                if (WEIGH) {
                    float2 *to = (float2 *)((float *)g.c + (size_t)e * g.stride + at), old = *to;

                    *to = make_float2(old.x + c[i][j][2 * r], old.y + c[i][j][2 * r + 1]);
                } else {
                    *(uint32_t *)((bf16 *)g.c + at) =
                        gpu_bf16x2(c[i][j][2 * r], c[i][j][2 * r + 1]);
                }
            }
        }
    }
}

enum { SHARED = 2 * STAGES * TILE_BYTES };

void learn_group_allow(rd_learner *l)
{
    learn_check(l, RD_ALLOW_SHARED(group<GROUP_TIMES>, SHARED), "experts");
    learn_check(l, RD_ALLOW_SHARED(group<GROUP_TIMES_BACK>, SHARED), "experts");
    learn_check(l, RD_ALLOW_SHARED(group<GROUP_WEIGH>, SHARED), "experts");
}

/* m is the number of slots at most. */
void learn_group_times(rd_learner *l, const learn_product *g)
{
    dim3 grid((unsigned)learn_blocks((size_t)g->n, SIDE),
              (unsigned)learn_blocks((size_t)g->m, SIDE));

    RD_LAUNCH(group<GROUP_TIMES>, grid, THREADS, SHARED, l->stream, *g);
    learn_launched(l, "experts");
}

void learn_group_times_back(rd_learner *l, const learn_product *g)
{
    dim3 grid((unsigned)learn_blocks((size_t)g->n, SIDE),
              (unsigned)learn_blocks((size_t)g->m, SIDE));

    RD_LAUNCH(group<GROUP_TIMES_BACK>, grid, THREADS, SHARED, l->stream, *g);
    learn_launched(l, "experts backward");
}

void learn_group_weigh(rd_learner *l, const learn_product *g)
{
    dim3 grid((unsigned)learn_blocks((size_t)g->n, SIDE),
              (unsigned)learn_blocks((size_t)g->m, SIDE), (unsigned)l->experts);

    RD_LAUNCH(group<GROUP_WEIGH>, grid, THREADS, SHARED, l->stream, *g);
    learn_launched(l, "experts backward");
}
