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

/* The tiles of keys that one tile of rows sees, one after the other; a tile's keys and values are on their way while the
 * one before it is worked on. `keys` and `values` are two tiles each. */
typedef struct learn_attend_walk {
    bf16 *keys, *values;
    const bf16 *k_from, *v_from; /* of the head's group, row 0 */
    int k_stride, v_stride, rows;
    const int *list;
    int begin, end;
} learn_attend_walk;

template <int DIM>
static __device__ inline learn_attend_walk walk_of(const learn_attend_args &a, bf16 *keys,
                                                   bf16 *values)
{
    int g = (int)blockIdx.y / (a.heads / a.kv);
    learn_attend_walk w = {
        keys,
        values,
        a.qk + (a.heads + g) * DIM,
        a.qkv + (a.heads + a.kv + g) * DIM,
        (a.heads + a.kv) * DIM,
        (a.heads + 2 * a.kv) * DIM,
        a.rows,
        a.list,
        a.start[blockIdx.x],
        a.start[blockIdx.x + 1],
    };

    return w;
}

/* Send for tile i of the list, if there is one, and end the group of copies. */
template <int DIM> static __device__ inline void walk_send(const learn_attend_walk &w, int i)
{
    if (i < w.end) {
        int tile = w.list[i] & ~LEARN_PARTLY, at = ((i - w.begin) & 1) * LEARN_TILE * DIM;

        load_rows<DIM>(w.keys + at, w.k_from, w.k_stride, tile * LEARN_TILE, w.rows);
        load_rows<DIM>(w.values + at, w.v_from, w.v_stride, tile * LEARN_TILE, w.rows);
    }
    gpu_copy_commit();
}

/* Tile i is there, for all threads: the next one is under way. A barrier must follow its last use. */
template <int DIM>
static __device__ inline void walk_to(const learn_attend_walk &w, int i, const bf16 **k,
                                      const bf16 **v)
{
    int at = ((i - w.begin) & 1) * LEARN_TILE * DIM;

    walk_send<DIM>(w, i + 1);
    gpu_copy_wait<1>();
    __syncthreads();
    *k = w.keys + at;
    *v = w.values + at;
}

#define ATTEND_LOG2E 1.4426950408889634f

#endif
