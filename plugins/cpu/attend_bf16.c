/* attend_bf16.c - attention of a block's queries over keys and values kept as bf16, by products of bf16 pairs.
 *
 * The heads that share keys and values come together, so that these are read once for all their rows. Keys of a tile lie as
 * pairs of dimensions, [dim / 2][token][2], values as pairs of tokens, [token / 2][dim][2]: either way a register holds what one
 * product wants. Tiles go by in stretches of KEYS keys that stay in the cache while all rows look at them; each row keeps its
 * largest score so far and scales what it has when a larger one comes (Milakov and Gimelshein, arXiv 1805.02867).
 */
#include "plugins/cpu/kernels.h"

#include "core/base/dtype.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

enum { ROWS = 8, KEYS = 256, LINE = 64 };

/* Of ROWS rows. */
typedef struct stretch {
    float scores[ROWS * KEYS];
    uint32_t p[ROWS][KEYS / 2]; /* pairs of bf16 */
} stretch;

/* The rows' state: bf16 queries and what is summed so far. */
typedef struct rows_state {
    uint32_t *q; /* [rows][dim / 2] */
    float *sums; /* [rows][dim] */
    float *top;  /* [rows] */
    float *all;  /* [rows] */
} rows_state;

/* sum += pairs of bf16 at p, repeated, times w; as asm for the compiler would copy the sums. */
INLINE void add_pairs(__m512 *sum, __m512i w, __m512i a)
{
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(*sum) : "v"(w), "v"(a));
}

/* 2^x for x <= 0, to about 1e-5: enough for a number that becomes bf16. NaN stays; nothing is below 2^-126. */
INLINE __m512 power(__m512 x)
{
    x = _mm512_max_ps(_mm512_set1_ps(-126.0f), x);
    __m512 t = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 f = _mm512_sub_ps(x, t), p = _mm512_set1_ps(9.6181291e-3f);

    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.5504109e-2f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.4022651e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.9314718e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, t);
}

/* scores[r][j] of ROWS rows and 16 * wide keys of a tile. */
INLINE void score(float *out, const uint32_t *q, size_t pairs, const uint32_t *k, size_t tile,
                  int wide)
{
    __m512 sum[ROWS][2];

#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 2
        for (int i = 0; i < wide; i++) sum[r][i] = _mm512_setzero_ps();
    for (size_t d = 0; d < pairs; d++, k += tile) {
        __m512i w[2];

#pragma GCC unroll 2
        for (int i = 0; i < wide; i++) w[i] = _mm512_loadu_si512(k + 16 * i);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++) {
            __m512i a = _mm512_set1_epi32((int)q[(size_t)r * pairs + d]);

#pragma GCC unroll 2
            for (int i = 0; i < wide; i++) add_pairs(&sum[r][i], w[i], a);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 2
        for (int i = 0; i < wide; i++) _mm512_storeu_ps(out + r * KEYS + 16 * i, sum[r][i]);
}

/* Scores to probabilities of a row's n keys, n a multiple of 32 or zeros behind; what the sums so far must be scaled by. */
static float soften(const float *s, uint32_t *p, int n, float *top, float *all)
{
    __m512 most = _mm512_set1_ps(*top), sum = _mm512_setzero_ps();

    for (int j = 0; j < n; j += 16) most = _mm512_max_ps(most, _mm512_loadu_ps(s + j));
    float now = _mm512_reduce_max_ps(most);
    float by = exp2f(*top - now);

    for (int j = 0; j < n; j += 16) {
        __m512 e = power(_mm512_sub_ps(_mm512_loadu_ps(s + j), _mm512_set1_ps(now)));

        sum = _mm512_add_ps(sum, e);
        _mm256_storeu_si256((__m256i *)(void *)(p + j / 2), (__m256i)_mm512_cvtneps_pbh(e));
    }
    *top = now;
    *all = *all * by + _mm512_reduce_add_ps(sum);
    return by;
}

/* sums[r][d..d + 32) = by[r] * itself + p v over the stretch's tiles. */
INLINE void mix(float *sums, size_t dim, size_t d, const float *by, const stretch *s,
                const uint32_t *const *v, int tiles, int tile)
{
    __m512 sum[ROWS][2];

#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 2
        for (int i = 0; i < 2; i++)
            sum[r][i] = _mm512_mul_ps(_mm512_loadu_ps(sums + (size_t)r * dim + 16 * i),
                                      _mm512_set1_ps(by[r]));
    for (int b = 0, at = 0; b < tiles; b++) {
        const uint32_t *from = v[b] + d;

        for (int j = 0; j < tile / 2; j++, at++, from += dim) {
            __m512i w[2];

#pragma GCC unroll 2
            for (int i = 0; i < 2; i++) w[i] = _mm512_loadu_si512(from + 16 * i);
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++) {
                __m512i a = _mm512_set1_epi32((int)s->p[r][at]);

#pragma GCC unroll 2
                for (int i = 0; i < 2; i++) add_pairs(&sum[r][i], w[i], a);
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 2
        for (int i = 0; i < 2; i++) _mm512_storeu_ps(sums + (size_t)r * dim + 16 * i, sum[r][i]);
}

/* Ask for part `part` of `parts` of a tile's keys or values. */
static void fetch(const void *tile, size_t bytes, size_t part, size_t parts)
{
    size_t each = (bytes / LINE + parts - 1) / parts * LINE, end = (part + 1) * each;

    for (size_t i = part * each; i < end && i < bytes; i += LINE)
        _mm_prefetch((const char *)tile + i, _MM_HINT_T1);
}

/* ROWS rows, the group `at` / ROWS of `groups`, over the tiles [first, end). All groups ask for the next stretch together. */
static void look_at(const rows_state *x, size_t at, size_t groups, const rd_tiles *t, int first,
                    int end)
{
    size_t dim = (size_t)t->head_dim, tile = (size_t)t->tile;
    const uint32_t *q = x->q + at * dim / 2, *values[KEYS / 16];
    int keys = (end - first) * t->tile, valid = keys, step = KEYS / t->tile;
    float by[ROWS];
    stretch s;

    for (int b = first; b < end; b++) {
        const uint32_t *k = t->k[b];
        float *out = s.scores + (size_t)(b - first) * tile;
        size_t j = 0;

        for (; j + 32 <= tile; j += 32) score(out + j, q, dim / 2, k + j, tile, 2);
        if (j < tile) score(out + j, q, dim / 2, k + j, tile, 1);
        values[b - first] = t->v[b];
        if (b + step >= t->tiles) continue;
        fetch(t->k[b + step], dim * tile * 2, at / ROWS, groups);
        fetch(t->v[b + step], dim * tile * 2, at / ROWS, groups);
    }
    if (end == t->tiles) valid -= t->tile - t->last;
    for (int r = 0; r < ROWS; r++) {
        float *score_of = s.scores + r * KEYS;

        for (int j = valid; j < keys; j++) score_of[j] = -INFINITY;
        by[r] = soften(score_of, s.p[r], keys, &x->top[at + (size_t)r], &x->all[at + (size_t)r]);
    }
    for (size_t d = 0; d < dim; d += 32)
        mix(x->sums + at * dim + d, dim, d, by, &s, values, end - first, t->tile);
}

static void begin(const rows_state *x, const rd_queries *q, size_t dim, size_t padded)
{
    /* exp(s / sqrt(dim)) = 2^(s * this) */
    __m512 by = _mm512_set1_ps(1.44269504f / sqrtf((float)dim));
    size_t n = (size_t)q->rows * (size_t)q->heads;

    for (size_t m = 0; m < padded; m++) {
        uint32_t *to = x->q + m * dim / 2;

        x->top[m] = -INFINITY;
        x->all[m] = 0.0f;
        if (m >= n) {
            memset(to, 0, dim * 2);
            continue;
        }
        const float *from = q->q + m % (size_t)q->rows * q->stride + m / (size_t)q->rows * dim;

        for (size_t d = 0; d < dim; d += 16)
            _mm256_storeu_si256(
                (__m256i *)(void *)(to + d / 2),
                (__m256i)_mm512_cvtneps_pbh(_mm512_mul_ps(_mm512_loadu_ps(from + d), by)));
    }
    memset(x->sums, 0, padded * dim * sizeof(float));
}

size_t rd_attend_bf16_floats(int rows, int heads, int head_dim)
{
    size_t padded = ((size_t)rows * (size_t)heads + ROWS - 1) / ROWS * ROWS;

    return padded * ((size_t)head_dim / 2 + (size_t)head_dim + 2) + 64;
}

bool rd_attend_bf16_fits(int tile, int head_dim)
{
    return tile > 0 && tile % 16 == 0 && tile <= KEYS && head_dim > 0 && head_dim % 32 == 0;
}

void rd_attend_bf16(const rd_queries *q, const rd_tiles *t, float *room)
{
    size_t dim = (size_t)t->head_dim, n = (size_t)q->rows * (size_t)q->heads;
    size_t padded = (n + ROWS - 1) / ROWS * ROWS;
    int step = KEYS / t->tile;
    rows_state x = { .sums = room };

    x.q = (uint32_t *)(void *)(room + padded * dim);
    x.top = room + padded * dim + padded * dim / 2;
    x.all = x.top + padded;
    begin(&x, q, dim, padded);
    for (int first = 0; first < t->tiles; first += step)
        for (size_t at = 0; at < padded; at += ROWS)
            look_at(&x, at, padded / ROWS, t, first,
                    first + step < t->tiles ? first + step : t->tiles);
    for (size_t m = 0; m < n; m++) {
        float *out = q->out + m % (size_t)q->rows * q->out_stride + m / (size_t)q->rows * dim;
        __m512 by = _mm512_set1_ps(1.0f / x.all[m]);

        for (size_t d = 0; d < dim; d += 16)
            _mm512_storeu_ps(out + d, _mm512_mul_ps(_mm512_loadu_ps(x.sums + m * dim + d), by));
    }
}
