/* packed_avx512.c - products with packed weights by the byte products of AVX-512 (VNNI).
 *
 * Weights are the unsigned operand, four columns of sixteen rows in one register; a row's four bytes come from the tile,
 * repeated by the load itself. int4: a group's eight registers are unpacked once for all rows of the tile; a group's
 * sum fits in 16 bits, so that one more product with g, as pairs of 16 bits, adds it to the total. int8: two panels share
 * each load of a row's bytes. Panels stream from memory: all parts of the work on a panel ask for lines of the next,
 * so that memory and sums are busy at once.
 */
#include "plugins/cpu/kernels.h"
#include "plugins/cpu/packed.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

enum { ROWS_INT8 = 8, PAIR_ROWS = 4, WORDS_AT_ONCE = 4, LINE = 64, LINES_A_GROUP = 5, NEAR = 8192 };

static void quantise(const float *x, int n, int8_t *q, size_t stride, int32_t *group, int32_t *sum,
                     float *scale)
{
    const __m512i bare = _mm512_set1_epi32(0x7fffffff);
    __m512i most = _mm512_setzero_si512();
    int all = (int)stride;

    for (int k = 0; k < n; k += 16) {
        __mmask16 here = n - k >= 16 ? 0xffff : (__mmask16)((1u << (n - k)) - 1);
        __m512i bits = _mm512_castps_si512(_mm512_maskz_loadu_ps(here, x + k));

        most = _mm512_max_epu32(most, _mm512_and_si512(bits, bare));
    }
    uint32_t bits = _mm512_reduce_max_epu32(most);
    bool finite = bits < 0x7f800000u;
    float top;

    memcpy(&top, &bits, sizeof top);
    bool some = finite && top >= RD_SMALLEST;
    __m512 by = _mm512_set1_ps(some ? 127.0f / top : 0.0f);
    int32_t total = 0;

    for (int k = 0, g = 0; k < all; k += RD_PACK_GROUP, g++) {
        __m512i sums = _mm512_setzero_si512();

        for (int h = k; h < k + RD_PACK_GROUP; h += 16) {
            int left = some ? n - h : 0;
            __mmask16 here = left >= 16 ? 0xffff : left > 0 ? (__mmask16)((1u << left) - 1) : 0;
            __m512i v = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_maskz_loadu_ps(here, x + h), by));

            _mm_storeu_si128((__m128i *)(void *)(q + h), _mm512_cvtepi32_epi8(v));
            sums = _mm512_add_epi32(sums, v);
        }
        int32_t here = _mm512_reduce_add_epi32(sums);

        group[g] = -8 * here;
        total += here;
    }
    *sum = -128 * total;
    *scale = some ? top / 127.0f : finite ? 0.0f : NAN;
}

/* sum += w * the four bytes at p, repeated. As asm, for the compiler copies the sums of the intrinsic back and forth. */
INLINE void add_bytes(__m512i *sum, __m512i w, const uint32_t *p)
{
    __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(*sum) : "v"(w), "m"(*p));
}

INLINE void add_product(__m512i *sum, __m512i w, __m512i a)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(*sum) : "v"(w), "v"(a));
}

INLINE void add_groups(__m512i *total, __m512i sums, __m512i by)
{
    __asm__("vpdpwssd %2, %1, %0" : "+v"(*total) : "v"(sums), "v"(by));
}

INLINE void put(float *out, __m512 sums, const float *scale, float by, __mmask16 rows)
{
    __m512 v = _mm512_mul_ps(sums, _mm512_loadu_ps(scale));

    _mm512_mask_storeu_ps(out, rows, _mm512_mul_ps(v, _mm512_set1_ps(by)));
}

/* The lines that a part of the work on a panel asks for, so that they are near when their turn comes. */
typedef struct ahead {
    const uint8_t *at;
    int lines; /* for each cell, or each WORDS_AT_ONCE words */
} ahead;

INLINE void fetch(ahead *a, int lines)
{
    for (int i = 0; i < lines; i++, a->at += LINE) _mm_prefetch((const char *)a->at, _MM_HINT_T1);
}

/* One group of 32 columns: x at its first word, `rows` words to the next. */
INLINE void group_int4(__m512i *total, const uint8_t *cell, int g, const uint32_t *x,
                       const int32_t *bias, int rows)
{
    const __m512i low = _mm512_set1_epi8(15);
    __m512i w[8];
    __m512i by = _mm512_cvtepu8_epi32(
        _mm_loadu_si128((const __m128i *)(const void *)(cell + 1024 + g * RD_PACK_ROWS)));

#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) {
        __m512i both = _mm512_loadu_si512(cell + g * 256 + v * 64);

        w[v] = _mm512_and_si512(both, low);
        w[v + 4] = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
    }
    if (rows <= 3) { /* too few sums to hide a product's latency: two for each row */
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            __m512i a = _mm512_set1_epi32(bias[r]), b = _mm512_setzero_si512();

#pragma GCC unroll 4
            for (int v = 0; v < 4; v++) {
                add_bytes(&a, w[v], x + v * rows + r);
                add_bytes(&b, w[v + 4], x + (v + 4) * rows + r);
            }
            add_groups(&total[r], _mm512_add_epi32(a, b), by);
        }
        return;
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
        __m512i s = _mm512_set1_epi32(bias[r]);

#pragma GCC unroll 8
        for (int v = 0; v < 8; v++) add_bytes(&s, w[v], x + v * rows + r);
        add_groups(&total[r], s, by);
    }
}

/* One panel by one tile of `rows` rows, a constant where this is called. */
INLINE void tile_int4(float *out, size_t ldo, const rd_tile *t, const uint8_t *panel, size_t cells,
                      const float *scale, __mmask16 lanes, ahead *next, int rows)
{
    const uint32_t *x = t->q;
    const int32_t *bias = t->group;
    __m512 sums[RD_TILE_ROWS]; /* they wait in memory: the registers are full */

    for (int r = 0; r < rows; r++) sums[r] = _mm512_setzero_ps();
    for (size_t c = 0; c < cells;) {
        size_t end = c + RD_CELLS_AT_ONCE < cells ? c + RD_CELLS_AT_ONCE : cells;
        __m512i total[RD_TILE_ROWS];

#pragma GCC unroll 16
        for (int r = 0; r < rows; r++) total[r] = _mm512_setzero_si512();
        for (; c < end; c++, panel += RD_PACK_CELL) {
            for (int g = 0; g < 4; g++, x += 8 * rows, bias += rows) {
                fetch(next, next->lines);
                group_int4(total, panel, g, x, bias, rows);
            }
        }
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++)
            sums[r] = _mm512_add_ps(sums[r], _mm512_cvtepi32_ps(total[r]));
    }
    for (int r = 0; r < rows; r++) put(out + (size_t)r * ldo, sums[r], scale, t->scale[r], lanes);
}

/* Two panels by a tile of many rows: each load of a row's bytes serves both. The totals wait in memory. */
INLINE void pair_group(__m512i (*total)[2], const uint8_t *cell, size_t bytes, int g,
                       const uint32_t *x, const int32_t *bias, size_t rows)
{
    const __m512i low = _mm512_set1_epi8(15);
    __m512i w[2][8], by[2];

#pragma GCC unroll 2
    for (int p = 0; p < 2; p++) {
        const uint8_t *from = cell + (size_t)p * bytes;

        by[p] = _mm512_cvtepu8_epi32(
            _mm_loadu_si128((const __m128i *)(const void *)(from + 1024 + g * RD_PACK_ROWS)));
#pragma GCC unroll 4
        for (int v = 0; v < 4; v++) {
            __m512i both = _mm512_loadu_si512(from + g * 256 + v * 64);

            w[p][v] = _mm512_and_si512(both, low);
            w[p][v + 4] = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
        }
    }
    for (size_t r = 0; r < rows; r++) {
        __m512i s = _mm512_set1_epi32(bias[r]), t = s;

#pragma GCC unroll 8
        for (size_t v = 0; v < 8; v++) {
            __m512i a = _mm512_set1_epi32((int)x[v * rows + r]);

            add_product(&s, w[0][v], a);
            add_product(&t, w[1][v], a);
        }
        add_groups(&total[r][0], s, by[0]);
        add_groups(&total[r][1], t, by[1]);
    }
}

static void pair_int4(float *out, size_t ldo, const rd_tile *t, const uint8_t *panel, size_t cells,
                      const float *scale, __mmask16 lanes, ahead *next)
{
    size_t rows = (size_t)t->rows, bytes = cells * RD_PACK_CELL;
    const uint32_t *x = t->q;
    const int32_t *bias = t->group;
    __m512 sums[RD_TILE_ROWS][2]; /* of earlier stretches, if there are any */
    __m512i total[RD_TILE_ROWS][2];

    for (size_t c = 0; c < cells;) {
        size_t begun = c, end = c + RD_CELLS_AT_ONCE < cells ? c + RD_CELLS_AT_ONCE : cells;

        for (size_t r = 0; r < rows; r++) total[r][0] = total[r][1] = _mm512_setzero_si512();
        for (; c < end; c++, panel += RD_PACK_CELL) {
            for (int g = 0; g < 4; g++, x += 8 * rows, bias += rows) {
                fetch(next, next->lines);
                pair_group(total, panel, bytes, g, x, bias, rows);
            }
        }
        for (size_t r = 0; r < rows; r++) {
            for (int p = 0; p < 2; p++) {
                __m512 v = _mm512_cvtepi32_ps(total[r][p]);

                if (begun) v = _mm512_add_ps(sums[r][p], v);
                if (c < cells)
                    sums[r][p] = v;
                else
                    put(out + r * ldo + p * RD_PACK_ROWS, v, scale + p * RD_PACK_ROWS, t->scale[r],
                        p ? lanes : 0xffff);
            }
        }
    }
}

/* `panels` panels (1 or 2) by `n` rows of a tile of `rows`, from row `at` on. */
INLINE void tile_int8(float *out, size_t ldo, const rd_tile *t, const uint8_t *panel, size_t words,
                      const float *scale, __mmask16 lanes, ahead *next, int at, int n, int panels)
{
    size_t rows = (size_t)t->rows, bytes = words * 64;
    const uint32_t *x = t->q + at;
    __m512i total[ROWS_INT8][2];

#pragma GCC unroll 8
    for (int r = 0; r < n; r++)
        for (int p = 0; p < panels; p++) total[r][p] = _mm512_set1_epi32(t->sum[at + r]);
    for (size_t k = 0; k < words; k++, x += rows) {
        if (k % WORDS_AT_ONCE == 0) fetch(next, next->lines);
        __m512i w[2];

#pragma GCC unroll 2
        for (int p = 0; p < panels; p++) {
            const uint8_t *from = panel + (size_t)p * bytes + k * 64;

            w[p] = _mm512_loadu_si512(from);
        }
#pragma GCC unroll 8
        for (int r = 0; r < n; r++) {
            __m512i a = _mm512_set1_epi32((int)x[r]);

#pragma GCC unroll 2
            for (int p = 0; p < panels; p++) add_product(&total[r][p], w[p], a);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < n; r++)
        for (int p = 0; p < panels; p++)
            put(out + (size_t)(at + r) * ldo + p * RD_PACK_ROWS, _mm512_cvtepi32_ps(total[r][p]),
                scale + p * RD_PACK_ROWS, t->scale[at + r], p + 1 < panels ? 0xffff : lanes);
}

static void rows_int4(float *out, size_t ldo, const rd_tile *t, const uint8_t *panel, size_t cells,
                      const float *scale, __mmask16 lanes, ahead *next)
{
#define ROWS(n) \
    case n: tile_int4(out, ldo, t, panel, cells, scale, lanes, next, n); break;
    switch (t->rows) {
        ROWS(1)
        ROWS(2)
        ROWS(3)
        ROWS(4)
        ROWS(5)
        ROWS(6)
        ROWS(7)
        ROWS(8)
        ROWS(9) ROWS(10) ROWS(11) ROWS(12) ROWS(13) ROWS(14) ROWS(15) ROWS(16) default : break;
    }
#undef ROWS
}

static void rows_int8(float *out, size_t ldo, const rd_tile *t, const uint8_t *panel, size_t words,
                      const float *scale, __mmask16 lanes, ahead *next, int panels)
{
    int parts = (t->rows + ROWS_INT8 - 1) / ROWS_INT8;

    for (int i = 0, at = 0; i < parts; i++) {
        int n = (t->rows - at + parts - i - 1) / (parts - i);

#define ROWS(r)                                                                 \
    case r:                                                                     \
        if (panels == 2)                                                        \
            tile_int8(out, ldo, t, panel, words, scale, lanes, next, at, r, 2); \
        else                                                                    \
            tile_int8(out, ldo, t, panel, words, scale, lanes, next, at, r, 1); \
        break;
        switch (n) {
            ROWS(1) ROWS(2) ROWS(3) ROWS(4) ROWS(5) ROWS(6) ROWS(7) ROWS(8) default : break;
        }
#undef ROWS
        at += n;
    }
}

/* Times that the work on one panel goes through all its columns. */
static int parts_of(const rd_tile *tiles, int n, bool int8)
{
    int parts = n;

    for (int i = 0; int8 && i < n; i++) parts += (tiles[i].rows - 1) / ROWS_INT8;
    return parts;
}

static void product(float *out, size_t ldo, const rd_tile *tiles, int n, const struct rd_weight *w,
                    int from, int to)
{
    bool int8 = w->kind == RD_PACKED_INT8;
    size_t cells = rd_pack_cells(w->cols);
    size_t bytes = rd_pack_panel_bytes(int8 ? RD_PACK_INT8 : RD_PACK_INT4, w->cols);
    int parts = parts_of(tiles, n, int8);

    for (int p = from, step; p < to; p += step) {
        const uint8_t *panel = (const uint8_t *)w->data + (size_t)p * bytes;
        const float *scale = w->scale + (size_t)p * RD_PACK_ROWS;

        step = (int8 || tiles[0].rows >= PAIR_ROWS) && p + 1 < to ? 2 : 1;
        int left = w->rows - (p + step - 1) * RD_PACK_ROWS;
        int lines = int8 ? WORDS_AT_ONCE * step : LINES_A_GROUP * step;
        __mmask16 lanes = left >= RD_PACK_ROWS ? 0xffff : (__mmask16)((1u << left) - 1);
        size_t far = (size_t)step * bytes;
        ahead next = { panel + (far > NEAR ? far : NEAR), (lines + parts - 1) / parts };

        for (int i = 0; i < n; i++) {
            float *o = out + (size_t)tiles[i].first * ldo + (p - from) * RD_PACK_ROWS;

            if (int8)
                rows_int8(o, ldo, &tiles[i], panel, cells * (RD_PACK_COLS / 4), scale, lanes, &next,
                          step);
            else if (step == 2)
                pair_int4(o, ldo, &tiles[i], panel, cells, scale, lanes, &next);
            else
                rows_int4(o, ldo, &tiles[i], panel, cells, scale, lanes, &next);
        }
    }
}

const rd_packed_kernels rd_packed_avx512 = { .name = "avx512-vnni",
                                             .quantise = quantise,
                                             .product = product };
