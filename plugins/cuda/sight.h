/* sight.h - who sees whom among the rows of a pass, where a key or value stands in a block, the turn of a position, and how
 * attention is shared out: pure functions, the same on the host, where they are tested, and in kernels.
 *
 * All of `past` is seen by every row. Of the pass's own rows a row sees two stretches: [0, head), and, if it belongs to a
 * branch, [from, to) of its group. Both ends only grow with the row, so that what a tile of rows may look at follows from its
 * first and its last row.
 *
 * Source: core/backend.h, rd_attention and rd_branches.
 */
#ifndef RD_CUDA_SIGHT_H
#define RD_CUDA_SIGHT_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __CUDACC__
#define CUDA_BOTH static __host__ __device__ inline
#else
#define CUDA_BOTH static inline
#endif

/* ---- sight ---- */

typedef struct cuda_sight {
    int rows;
    int sight;   /* as in rd_attention, at least 1 */
    int visible; /* rows from here on are seen by no trunk row; `rows` where all are */
    int trunk;   /* rows from here on are branches; `rows` where there are none */
    int group;   /* rows of a branch */
} cuda_sight;

/* Rows [0, head) and [from, to). */
typedef struct cuda_seen {
    int head, from, to;
} cuda_seen;

/* `counts` is read for branches alone. */
CUDA_BOTH cuda_seen cuda_seen_of(const cuda_sight *s, const int32_t *counts, int row)
{
    cuda_seen seen;

    if (row >= s->trunk) {
        int branch = (row - s->trunk) / s->group;

        seen.head = s->trunk;
        seen.from = s->trunk + branch * s->group;
        seen.to = seen.from + counts[branch];
        if (seen.to > s->rows) seen.to = s->rows;
        return seen;
    }
    int end = s->sight >= s->rows ? s->rows : (row / s->sight + 1) * s->sight;

    if (end > s->trunk) end = s->trunk;
    if (end > s->visible) end = s->visible;
    seen.head = end;
    seen.from = s->trunk;
    seen.to = s->trunk;
    return seen;
}

/* What rows first..last see together: nothing outside of it is seen by any of them. */
CUDA_BOTH cuda_seen cuda_reach_of(const cuda_sight *s, const int32_t *counts, int first, int last)
{
    cuda_seen seen = cuda_seen_of(s, counts, last);

    if (first < s->trunk)
        seen.from = s->trunk;
    else
        seen.from = s->trunk + (first - s->trunk) / s->group * s->group;
    return seen;
}

CUDA_BOTH bool cuda_sees(const cuda_seen *seen, int row)
{
    return row < seen->head || (row >= seen->from && row < seen->to);
}

/* ---- places in a block ---- */

/* The keys and values of one head of one block are a cell: block_size x head_dim keys and as many values. As float32, keys
 * are [token][dim] and values behind them the same. As bf16 they stand as mma's B fragments want them, so that what lane l of a
 * warp needs next are bytes 16 l to 16 l + 15. The cell is in pieces of CUDA_KEYS tokens (one of 16 in blocks of
 * 16): first the keys of a piece, then its values.
 * Keys: [8 tokens][32 dims] each 512 bytes, lane 4 g + t having dims 8t..8t+7 of token g: two steps of k = 16.
 * Values: [8 dims] each, lane 4 g + t having of dim g the tokens 2t, 2t+1, 8+2t, 9+2t (then 16 more, where there are): the same
 * tokens that it has of the scores. */
enum { CUDA_KEYS = 32 };

CUDA_BOTH int cuda_piece_keys(int block_size)
{
    return block_size < CUDA_KEYS ? block_size : CUDA_KEYS;
}

/* Whether a block's shape is one that the tensor cores' kernel takes. */
CUDA_BOTH bool cuda_half_fits(int block_size, int head_dim)
{
    return (block_size == 16 || block_size == 32 || block_size == 64) &&
           (head_dim == 32 || head_dim == 64 || head_dim == 128);
}

CUDA_BOTH int cuda_key_place(int block_size, int head_dim, int token, int dim)
{
    int keys = cuda_piece_keys(block_size), piece = token / keys, n = token % keys;

    return piece * 2 * keys * head_dim +
           ((n / 8 * (head_dim / 32) + dim / 32) * 8 + n % 8) * 32 + dim % 32;
}

CUDA_BOTH int cuda_value_place(int block_size, int head_dim, int token, int dim)
{
    int keys = cuda_piece_keys(block_size), piece = token / keys, n = token % keys;
    int lane = dim % 8 * 4 + n % 8 / 2, i = n / 8 * 2 + n % 2;

    return (piece * 2 + 1) * keys * head_dim + (dim / 8 * 32 + lane) * (keys / 4) + i;
}

/* ---- turns ---- */

/* Cosine and sine of an angle of any size that a position makes: reduced by quarter turns in double, where the angle is
 * exact, so that no far position loses digits. */
CUDA_BOTH void cuda_turn(float angle, float *cosine, float *sine)
{
    double a = (double)angle, n = rint(a * 0.63661977236758134308); /* 2 / pi */
    double r = fma(n, -6.12323399573676603587e-17, fma(n, -1.57079632679489661923, a));
    double x = r * r;
    double s = r * (1.0 + x * (-1.0 / 6 + x * (1.0 / 120 + x * (-1.0 / 5040 + x * (1.0 / 362880)))));
    double c = 1.0 + x * (-0.5 + x * (1.0 / 24 + x * (-1.0 / 720 + x * (1.0 / 40320 - x * (1.0 / 3628800)))));
    int quarter = (int)((long long)n & 3);

    *cosine = (float)(quarter == 0 ? c : quarter == 1 ? -s : quarter == 2 ? -c : s);
    *sine = (float)(quarter == 0 ? s : quarter == 1 ? c : quarter == 2 ? -s : -c);
}

/* ---- shares ---- */

enum { CUDA_TILE = 16, CUDA_ATTEND_WARPS = 8, CUDA_SPLITS = 64, CUDA_STEPS_LEAST = 4 };

/* How a pass is shared out: a warp takes CUDA_TILE rows of one query head, a block `warps` of them that share a head of keys, and
 * `splits` blocks share the keys between them. */
typedef struct cuda_shares {
    int tiles; /* of one head of keys */
    int warps, blocks, splits;
} cuda_shares;

/* `steps`: pieces of keys that one row may look at, at most. Splits cost a partial result each, so each has some steps to go;
 * fewer warps in a block where there are multiprocessors to spare. */
CUDA_BOTH cuda_shares cuda_shares_of(int processors, int rows, int heads, int kv_heads, int steps)
{
    cuda_shares s;
    int most = (steps + CUDA_STEPS_LEAST - 1) / CUDA_STEPS_LEAST;

    s.tiles = (rows + CUDA_TILE - 1) / CUDA_TILE * (heads / kv_heads);
    s.warps = CUDA_ATTEND_WARPS;
    while (s.warps > 1 && s.warps / 2 >= s.tiles) s.warps /= 2;
    s.blocks = (s.tiles + s.warps - 1) / s.warps;
    s.splits = processors / (s.blocks * kv_heads);
    if (s.splits > most) s.splits = most;
    if (s.splits > CUDA_SPLITS) s.splits = CUDA_SPLITS;
    if (s.splits < 1) s.splits = 1;
    while (s.warps > 2 && 2 * s.blocks * kv_heads * s.splits <= processors) {
        s.warps /= 2;
        s.blocks = (s.tiles + s.warps - 1) / s.warps;
    }
    return s;
}

/* 0, or the power of two that is not below n. */
CUDA_BOTH int cuda_bucket(int n)
{
    int b = 1;

    while (b < n) b *= 2;
    return n > 0 ? b : 0;
}

#endif
