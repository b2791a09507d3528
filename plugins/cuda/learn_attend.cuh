/* learn_attend.cuh - what attention's forward and backward share: a row's sight, and tiles of rows in shared memory. */
#ifndef RD_CUDA_LEARN_ATTEND_CUH
#define RD_CUDA_LEARN_ATTEND_CUH

#include "plugins/cuda/learn.h"

enum { ATTEND_WARPS = 4, ATTEND_THREADS = ATTEND_WARPS * GPU_WARP };

static_assert(LEARN_TILE == ATTEND_WARPS * 16, "a warp has 16 rows");

typedef struct learn_attend_args {
    const bf16 *qk, *qkv; /* turned queries and keys; values stand behind the keys of qkv */
    bf16 *o;              /* [rows, heads dim] */
    float *lse, *delta;   /* [heads][rows] */
    const bf16 *do_;      /* [rows, heads dim] */
    bf16 *dqkv;
    const rd_train_row *row;
    const int *start, *list; /* tiles that a tile meets */
    int rows, heads, kv;
    float scale;
} learn_attend_args;

typedef struct learn_attend_sight {
    int clean_start, clean_end, own_start, own_end;
} learn_attend_sight;

static __device__ inline learn_attend_sight sight_of(const learn_attend_args *a, int row)
{
    learn_attend_sight s = { 0, 0, 0, 0 };

    if (row < a->rows) {
        s.clean_start = a->row[row].clean_start;
        s.clean_end = a->row[row].clean_end;
        s.own_start = a->row[row].own_start;
        s.own_end = a->row[row].own_end;
    }
    return s;
}

static __device__ inline bool sight_has(learn_attend_sight s, int key)
{
    return (key >= s.clean_start && key < s.clean_end) || (key >= s.own_start && key < s.own_end);
}

/* Rows first .. first + 63 of `from`, zeros behind the last; not waited for. */
template <int DIM>
static __device__ inline void load_rows(bf16 *tile, const bf16 *from, int stride, int first,
                                        int rows)
{
    enum { CHUNKS = DIM / 8 };

#pragma unroll
    for (int i = 0; i < LEARN_TILE * CHUNKS / ATTEND_THREADS; i++) {
        int at = (int)threadIdx.x + i * ATTEND_THREADS, r = at / CHUNKS, c = at % CHUNKS;
        bool there = first + r < rows;

        gpu_copy_async(tile + tile_at<CHUNKS>(r, c),
                       from + (size_t)(there ? first + r : 0) * (size_t)stride + c * 8,
                       there ? 16 : 0);
    }
}

/* c[0 .. 3] (16 x 32) += A B^T: A's rows m .., B's rows n .. n + 31, over all of DIM. `held`: A's fragments, where
 * they are kept in registers. */
template <int DIM, bool HELD>
static __device__ inline void dot_rows(float c[4][4], uint32_t held[][4], const bf16 *a, int m,
                                       const bf16 *b, int n)
{
    enum { CHUNKS = DIM / 8 };

#pragma unroll
    for (int s = 0; s < DIM / 16; s++) {
        uint32_t x[4], y[4];

        if (!HELD) tile_a<CHUNKS>(x, a, m, 2 * s);
#pragma unroll
        for (int j = 0; j < 2; j++) {
            tile_b<CHUNKS>(y, b, n + 16 * j, 2 * s);
            gpu_mma_bf16(c[2 * j], HELD ? held[s] : x, y);
            gpu_mma_bf16(c[2 * j + 1], HELD ? held[s] : x, y + 2);
        }
    }
}

/* c (16 x DIM) += P B, P of 16 x 32 in C fragments, B's rows k .. k + 31. */
template <int DIM>
static __device__ inline void add_rows(float c[][4], float p[4][4], const bf16 *b, int k)
{
    enum { CHUNKS = DIM / 8 };

#pragma unroll
    for (int j = 0; j < 2; j++) {
        uint32_t x[4], y[4];

        tile_a_of_c(x, p[2 * j], p[2 * j + 1]);
#pragma unroll
        for (int d = 0; d < DIM / 16; d++) {
            tile_b_turned<CHUNKS>(y, b, k + 16 * j, 2 * d);
            gpu_mma_bf16(c[2 * d], x, y);
            gpu_mma_bf16(c[2 * d + 1], x, y + 2);
        }
    }
}

#define ATTEND_LOG2E 1.4426950408889634f

#endif
