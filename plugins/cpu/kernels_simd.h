/* kernels_simd.h - the arithmetic in vectors; each instruction set compiles its own copy.
 *
 * The including file sets ROWS and PANELS, the size of a tile of sums that its registers hold, and
 * HALF where it multiplies pairs of bf16. Sums run over k in order, so that the tile's size does not
 * change a result.
 */
#include "plugins/cpu/kernels.h"

#include <math.h>
#include <string.h>

#if defined(__AVX512F__)
enum { LANES = 16 };
#else
enum { LANES = 8 };
#endif
enum { PARTS = RD_PANEL / LANES, TILE_PARTS = PANELS * PARTS };

/* Vectors of the registers' size: a compiler that has to split larger ones itself keeps them in memory. */
typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

#define INLINE static inline __attribute__((always_inline))

INLINE vec load(const float *p)
{
    return *(const vec *)p;
}

INLINE void store(float *p, vec v)
{
    *(vec *)p = v;
}

INLINE vec fill(float x)
{
    return x - (vec){ 0 };
}

INLINE float sum_of(vec v)
{
    float s = 0.0f;

    for (int i = 0; i < LANES; i++) s += v[i];
    return s;
}

/* a where the mask is set, else b. */
INLINE vec choose(ivec mask, vec a, vec b)
{
    return (vec)(((ivec)a & mask) | ((ivec)b & ~mask));
}

/* exp to about 1e-7 relative: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2]. */
INLINE vec exp_of(vec x)
{
    vec low = fill(-87.0f), high = fill(88.0f);

    x = choose(x < low, low, x);
    x = choose(x > high, high, x);
    vec t = x * 1.44269504088896341f + 12582912.0f; /* rounds to an integer */
    ivec n = (ivec)t - 0x4b400000;
    vec f = t - 12582912.0f, r = x - f * 0.693359375f + f * 2.12194440e-4f;
    vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;

    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    ivec power = (n + 127) << 23;

    return p * (vec)power;
}

INLINE const float *row_f32(const rd_rows_in *x, int r)
{
    return (const float *)x->x + (size_t)(x->index ? x->index[r] : r) * x->stride;
}

INLINE const uint16_t *row_bf16(const rd_rows_in *x, int r)
{
    return (const uint16_t *)x->x + (size_t)(x->index ? x->index[r] : r) * x->stride;
}

/* A tile's columns fill registers, counted through its panels; where the k-th row of register c begins. */
INLINE size_t part_at(int c, size_t k, size_t k_n)
{
    return ((size_t)(c / PARTS) * k_n + k) * RD_PANEL + (size_t)(c % PARTS) * LANES;
}

/* The sums of `rows` rows by `parts` registers; rows and parts are constants where this is called. */
INLINE void tile_f32(vec acc[ROWS][TILE_PARTS], const rd_rows_in *x, int r,
                     const struct rd_weight *w, int panel, int rows, int parts)
{
    size_t k_n = (size_t)w->cols;
    const float *b = (const float *)w->data + (size_t)panel * k_n * RD_PANEL;
    const float *a[ROWS];

    for (int i = 0; i < rows; i++) a[i] = row_f32(x, r + i);
    for (size_t k = 0; k < k_n; k++) {
        vec wk[TILE_PARTS];

        for (int c = 0; c < parts; c++) wk[c] = load(b + part_at(c, k, k_n));
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            vec ak = fill(a[i][k]);

#pragma GCC unroll 4
            for (int c = 0; c < parts; c++) acc[i][c] += ak * wk[c];
        }
    }
}

INLINE void tile_bf16(vec acc[ROWS][TILE_PARTS], const rd_rows_in *x, int r,
                      const struct rd_weight *w, int panel, int rows, int parts)
{
    size_t pairs = ((size_t)w->cols + 1) / 2;
    const uint32_t *b = (const uint32_t *)w->data + (size_t)panel * pairs * RD_PANEL;

#ifdef HALF
    const uint16_t *a[ROWS];

    for (int i = 0; i < rows; i++) a[i] = row_bf16(x, r + i);
    for (size_t k = 0; k < pairs; k++) {
        __m512bh wk[TILE_PARTS];

        for (int c = 0; c < parts; c++)
            wk[c] = (__m512bh)_mm512_loadu_si512(b + part_at(c, k, pairs));
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            int32_t two;

            memcpy(&two, a[i] + 2 * k, 4);
            __m512bh ak = (__m512bh)_mm512_set1_epi32(two);

#pragma GCC unroll 4
            for (int c = 0; c < parts; c++)
                acc[i][c] = (vec)_mm512_dpbf16_ps((__m512)acc[i][c], ak, wk[c]);
        }
    }
#else
    const float *a[ROWS];

    for (int i = 0; i < rows; i++) a[i] = row_f32(x, r + i);
    for (size_t k = 0; k < pairs; k++) {
        bool both = 2 * k + 1 < (size_t)w->cols;
        vec low[TILE_PARTS], high[TILE_PARTS];

        for (int c = 0; c < parts; c++) {
            ivec two = *(const ivec *)(b + part_at(c, k, pairs));

            low[c] = (vec)(two << 16);
            high[c] = (vec)(two & (int32_t)0xffff0000);
        }
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            vec a0 = fill(a[i][2 * k]), a1 = fill(both ? a[i][2 * k + 1] : 0.0f);

#pragma GCC unroll 4
            for (int c = 0; c < parts; c++) {
                acc[i][c] += a0 * low[c];
                acc[i][c] += a1 * high[c];
            }
        }
    }
#endif
}

INLINE void product_tile(float *out, size_t ldo, const rd_rows_in *x, int r,
                         const struct rd_weight *w, int from, int panel, int rows, int panels)
{
    vec acc[ROWS][TILE_PARTS];
    int parts = panels * PARTS;

#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int c = 0; c < parts; c++) acc[i][c] = (vec){ 0 };
    if (w->kind == RD_PANELS_BF16)
        tile_bf16(acc, x, r, w, panel, rows, parts);
    else
        tile_f32(acc, x, r, w, panel, rows, parts);
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 4
        for (int c = 0; c < parts; c++) {
            int n = panel * RD_PANEL + c * LANES, left = w->rows - n;
            float *to = out + (size_t)(r + i) * ldo + (n - from * RD_PANEL);
            vec v = acc[i][c];

            if (left <= 0) break;
            if (w->scale) v *= load(w->scale + n);
            if (left >= LANES)
                store(to, v);
            else
                memcpy(to, &v, (size_t)left * sizeof *to);
        }
    }
}

static void product(float *out, size_t ldo, const rd_rows_in *x, const struct rd_weight *w,
                    int from, int to)
{
    int panel = from;

    for (; panel + PANELS <= to; panel += PANELS) {
        int r = 0;

        for (; r + ROWS <= x->rows; r += ROWS)
            product_tile(out, ldo, x, r, w, from, panel, ROWS, PANELS);
        for (; r + 2 <= x->rows; r += 2) product_tile(out, ldo, x, r, w, from, panel, 2, PANELS);
        for (; r < x->rows; r++) product_tile(out, ldo, x, r, w, from, panel, 1, PANELS);
    }
    for (; panel < to; panel++) {
        int r = 0;

        for (; r + ROWS <= x->rows; r += ROWS)
            product_tile(out, ldo, x, r, w, from, panel, ROWS, 1);
        for (; r < x->rows; r++) product_tile(out, ldo, x, r, w, from, panel, 1, 1);
    }
}

static void norm(float *out, const float *x, const float *weight, int n, float eps)
{
    vec squares = { 0 };
    float sum = 0.0f;
    int i = 0;

    for (; i + LANES <= n; i += LANES) squares += load(x + i) * load(x + i);
    for (; i < n; i++) sum += x[i] * x[i];
    float by = 1.0f / sqrtf((sum + sum_of(squares)) / (float)n + eps);

    for (i = 0; i < n; i++) out[i] = x[i] * by * weight[i];
}

static void gate(float *h, const float *up, int n)
{
    int i = 0;

    for (; i + LANES <= n; i += LANES) {
        vec x = load(h + i);

        store(h + i, x / (exp_of(-x) + 1.0f) * load(up + i));
    }
    for (; i < n; i++) h[i] = h[i] / (1.0f + expf(-h[i])) * up[i];
}

INLINE ivec choose_place(ivec mask, ivec a, ivec b)
{
    return (a & mask) | (b & ~mask);
}

/* Each lane keeps its own two; lanes are in order of places, so that a lane's first of equals is the lowest. */
static rd_top top_two(const float *x, int n)
{
    rd_top t = { -1, -1, -INFINITY, -INFINITY };
    vec best = fill(-INFINITY), next = best;
    ivec place, best_at = (ivec){ 0 } - 1, next_at = best_at;
    int i = 0;

    for (int k = 0; k < LANES; k++) place[k] = k;

    for (; i + LANES <= n; i += LANES, place += LANES) {
        vec v = load(x + i);
        ivec first = v > best, second = v > next;

        next = choose(first, best, choose(second, v, next));
        next_at = choose_place(first, best_at, choose_place(second, place, next_at));
        best = choose(first, v, best);
        best_at = choose_place(first, place, best_at);
    }
    for (int k = 0; k < LANES; k++) {
        rd_top_offer(&t, best[k], best_at[k]);
        rd_top_offer(&t, next[k], next_at[k]);
    }
    for (; i < n; i++) rd_top_offer(&t, x[i], i);
    return t;
}

static float sum_exp(const float *x, int n, float top)
{
    vec sums = { 0 };
    float sum = 0.0f;
    int i = 0;

    for (; i + LANES <= n; i += LANES) sums += exp_of(load(x + i) - top);
    for (; i < n; i++) sum += expf(x[i] - top);
    return sum + sum_of(sums);
}

/* ---- attention ---- */

enum { TOGETHER = 4 }; /* rows whose sums are held at once */

/* acc[i] += x[i * stride] * the 16 numbers at y, for each row i. */
INLINE void add_rows(vec acc[TOGETHER][PARTS], const float *x, size_t stride, const float *y,
                     int rows)
{
#pragma GCC unroll 2
    for (int c = 0; c < PARTS; c++) {
        vec v = load(y + c * LANES);

#pragma GCC unroll 4
        for (int i = 0; i < rows; i++) acc[i][c] += x[(size_t)i * stride] * v;
    }
}

INLINE void no_rows(vec acc[TOGETHER][PARTS], int rows)
{
#pragma GCC unroll 4
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int c = 0; c < PARTS; c++) acc[i][c] = (vec){ 0 };
}

INLINE void store_rows(float *to, size_t stride, vec acc[TOGETHER][PARTS], int rows)
{
#pragma GCC unroll 4
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int c = 0; c < PARTS; c++) store(to + (size_t)i * stride + c * LANES, acc[i][c]);
}

/* s[key] = q . k for one tile: columns of 16 keys at a time, the rest one by one. */
INLINE void score_rows(float *scores, size_t ld, const float *q, size_t stride, const float *k,
                       int tile, int head_dim, int rows)
{
    int j = 0;

    for (; j + 16 <= tile; j += 16) {
        vec acc[TOGETHER][PARTS];

        no_rows(acc, rows);
        for (int d = 0; d < head_dim; d++)
            add_rows(acc, q + d, stride, k + (size_t)d * (size_t)tile + j, rows);
        store_rows(scores + j, ld, acc, rows);
    }
    for (; j < tile; j++) {
        for (int i = 0; i < rows; i++) {
            float dot = 0.0f;

            for (int d = 0; d < head_dim; d++)
                dot += q[(size_t)i * stride + (size_t)d] * k[(size_t)d * (size_t)tile + (size_t)j];
            scores[(size_t)i * ld + (size_t)j] = dot;
        }
    }
}

/* o[d] = sum of p[key] v[key][d] over all tiles. */
INLINE void mix_rows(float *out, size_t out_stride, const float *p, size_t ld, const rd_tiles *t,
                     int rows)
{
    int d = 0;

    for (; d + 16 <= t->head_dim; d += 16) {
        vec acc[TOGETHER][PARTS];

        no_rows(acc, rows);
        for (int b = 0; b < t->tiles; b++) {
            int keys = b + 1 < t->tiles ? t->tile : t->last;
            const float *v = (const float *)t->v[b] + d, *pb = p + (size_t)b * (size_t)t->tile;

            for (int j = 0; j < keys; j++)
                add_rows(acc, pb + j, ld, v + (size_t)j * (size_t)t->head_dim, rows);
        }
        store_rows(out + d, out_stride, acc, rows);
    }
    for (; d < t->head_dim; d++) {
        for (int i = 0; i < rows; i++) {
            float sum = 0.0f;

            for (int b = 0; b < t->tiles; b++) {
                int keys = b + 1 < t->tiles ? t->tile : t->last;

                for (int j = 0; j < keys; j++)
                    sum += p[(size_t)i * ld + (size_t)b * (size_t)t->tile + (size_t)j] *
                           ((const float *)t->v[b])[(size_t)j * (size_t)t->head_dim + (size_t)d];
            }
            out[(size_t)i * out_stride + (size_t)d] = sum;
        }
    }
}

static void soften(float *s, int n, float by)
{
    vec most = fill(-INFINITY), sums = { 0 };
    float top = -INFINITY, sum = 0.0f;
    int i = 0;

    for (; i + LANES <= n; i += LANES) {
        vec v = load(s + i) * by;

        store(s + i, v);
        most = choose(v > most, v, most);
    }
    for (; i < n; i++) {
        s[i] *= by;
        if (s[i] > top) top = s[i];
    }
    for (i = 0; i < LANES; i++)
        if (most[i] > top) top = most[i];
    for (i = 0; i + LANES <= n; i += LANES) {
        vec e = exp_of(load(s + i) - top);

        sums += e;
        store(s + i, e);
    }
    for (; i < n; i++) {
        s[i] = expf(s[i] - top);
        sum += s[i];
    }
    sum = 1.0f / (sum + sum_of(sums));
    for (i = 0; i < n; i++) s[i] *= sum;
}

INLINE void attend_rows(float *out, size_t out_stride, const float *q, size_t stride,
                        const rd_tiles *t, float *scores, int rows)
{
    size_t ld = (size_t)t->tiles * (size_t)t->tile;
    int keys = (t->tiles - 1) * t->tile + t->last;

    for (int b = 0; b < t->tiles; b++)
        score_rows(scores + (size_t)b * (size_t)t->tile, ld, q, stride, t->k[b], t->tile,
                   t->head_dim, rows);
    for (int i = 0; i < rows; i++)
        soften(scores + (size_t)i * ld, keys, 1.0f / sqrtf((float)t->head_dim));
    mix_rows(out, out_stride, scores, ld, t, rows);
}

static void attend(float *out, size_t out_stride, const float *q, size_t stride, int rows,
                   const rd_tiles *t, float *scores)
{
    int r = 0;

    for (; r + TOGETHER <= rows; r += TOGETHER)
        attend_rows(out + (size_t)r * out_stride, out_stride, q + (size_t)r * stride, stride, t,
                    scores, TOGETHER);
    for (; r < rows; r++)
        attend_rows(out + (size_t)r * out_stride, out_stride, q + (size_t)r * stride, stride, t,
                    scores, 1);
}
