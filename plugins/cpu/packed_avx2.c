/* packed_avx2.c - products with packed weights by the byte products of AVX2.
 *
 * maddubs adds pairs of byte products in 16 bits. int4: 15 * 127 * 2 * 8 stays below 2^15, so that a whole group is summed
 * in 16 bits, beginning with the correction of each half, and one product with g takes it to 32. int8: |w| is the unsigned
 * operand and the row's bytes take w's sign: 128 * 127 * 2 stays below 2^15 too. A few rows of a
 * tile go through a whole panel at a time, so many that their sums fill the registers.
 */
#include "plugins/cpu/kernels.h"
#include "plugins/cpu/packed.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

enum { AHEAD = 2048, ROWS_INT4 = 5, ROWS_INT8 = 5 };

INLINE __m256i load(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

/* `group`: the corrections of columns 0, 1 and 2, 3 of every four, as two numbers of 16 bits. */
static void quantise(const float *x, int n, int8_t *q, size_t stride, int32_t *group, int32_t *sum,
                     float *scale)
{
    const __m256i bare = _mm256_set1_epi32(0x7fffffff);
    __m256i most = _mm256_setzero_si256();
    uint32_t lane[8], top_bits = 0;
    float top;
    int k = 0;

    for (; k + 8 <= n; k += 8) most = _mm256_max_epu32(most, _mm256_and_si256(load(x + k), bare));
    _mm256_storeu_si256((__m256i *)(void *)lane, most);
    for (int i = 0; i < 8; i++) top_bits = lane[i] > top_bits ? lane[i] : top_bits;
    for (; k < n; k++) {
        memcpy(&lane[0], &x[k], 4);
        lane[0] &= 0x7fffffffu;
        top_bits = lane[0] > top_bits ? lane[0] : top_bits;
    }
    bool finite = top_bits < 0x7f800000u;

    memcpy(&top, &top_bits, sizeof top);
    bool some = finite && top >= RD_SMALLEST;
    float by = some ? 127.0f / top : 0.0f;

    memset(q, 0, stride);
    for (k = 0; some && k + 8 <= n; k += 8) {
        __m256i v = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + k), _mm256_set1_ps(by)));
        __m128i half = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));

        _mm_storel_epi64((__m128i *)(void *)(q + k), _mm_packs_epi16(half, half));
    }
    for (; some && k < n; k++) q[k] = (int8_t)nearbyintf(x[k] * by);
    *sum = 0;
    for (size_t g = 0; g < stride / RD_PACK_GROUP; g++) {
        __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(8), load(q + g * RD_PACK_GROUP));
        __m128i two =
            _mm_add_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));

        two = _mm_add_epi16(two, _mm_shuffle_epi32(two, 0x4e));
        two = _mm_add_epi16(two, _mm_shuffle_epi32(two, 0xb1));
        group[g] = _mm_cvtsi128_si32(_mm_sub_epi16(_mm_setzero_si128(), two));
    }
    *scale = some ? top / 127.0f : finite ? 0.0f : NAN;
}

INLINE __m256i bytes4(const uint32_t *p)
{
    return _mm256_set1_epi32((int)*p);
}

INLINE void put(float *out, __m256 sums, const float *scale, float by, int lanes)
{
    __m256 v = _mm256_mul_ps(_mm256_mul_ps(sums, _mm256_loadu_ps(scale)), _mm256_set1_ps(by));

    const __m256i place = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);

    _mm256_maskstore_ps(out, _mm256_cmpgt_epi32(_mm256_set1_epi32(lanes), place), v);
}

/* ---- int4 ---- */

/* sum += w * x, pairs of bytes in 16 bits. As asm, for the compiler puts all products of a group before all sums, and most
 * of them into memory. */
INLINE void add_pairs(__m256i *sum, __m256i w, __m256i x)
{
    __m256i product;

    __asm__("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0"
            : "+x"(*sum), "=&x"(product)
            : "x"(w), "x"(x));
}

/* A group's 32 columns of a panel by `n` rows of a tile: each vector is unpacked once for all of them, each load of a row's
 * bytes serves both halves of the panel. */
INLINE void group_int4(__m256i (*total)[2], const uint8_t *group, const uint8_t *steps,
                       const uint32_t *x, const uint32_t *bias, size_t stride, int n)
{
    const __m256i low = _mm256_set1_epi8(15);
    __m256i s[ROWS_INT4][2];

#pragma GCC unroll 5
    for (int r = 0; r < n; r++) s[r][0] = s[r][1] = bytes4(bias + r);
#pragma GCC unroll 8
    for (int v = 0; v < 8; v++, x += stride) {
        __m256i w[2];

#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            __m256i both = load(group + v % 4 * 64 + h * 32);

            w[h] = _mm256_and_si256(v < 4 ? both : _mm256_srli_epi16(both, 4), low);
        }
#pragma GCC unroll 5
        for (int r = 0; r < n; r++) {
            __m256i q = bytes4(x + r);

            add_pairs(&s[r][0], w[0], q);
            add_pairs(&s[r][1], w[1], q);
        }
        __asm__("" : "+r"(x)); /* one pointer, and not one for each load */
    }
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) {
        __m256i g =
            _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(steps + h * 8)));

        g = _mm256_or_si256(g, _mm256_slli_epi32(g, 16));
#pragma GCC unroll 5
        for (int r = 0; r < n; r++)
            total[r][h] = _mm256_add_epi32(total[r][h], _mm256_madd_epi16(s[r][h], g));
    }
}

/* All cells of a stretch by `n` rows. */
#define ROWS(n)                                                                                    \
    static __attribute__((noinline)) void cells_int4_##n(                                          \
        __m256i(*total)[2], const uint8_t *cell, size_t cells, const uint32_t *x,                  \
        const uint32_t *bias, size_t stride, bool first)                                           \
    {                                                                                              \
        for (size_t c = 0; c < cells; c++, cell += RD_PACK_CELL) {                                 \
            for (int g = 0; g < 4; g++, x += 8 * stride, bias += stride) {                         \
                for (int i = 0; first && i < 256; i += 64)                                         \
                    _mm_prefetch((const char *)cell + AHEAD + g * 256 + i, _MM_HINT_T0);           \
                group_int4(total, cell + g * 256, cell + 1024 + g * RD_PACK_ROWS, x, bias, stride, \
                           n);                                                                     \
            }                                                                                      \
        }                                                                                          \
    }
ROWS(1)
ROWS(2)
ROWS(3)
ROWS(4)
ROWS(5)
#undef ROWS

typedef void cells_by_rows(__m256i (*total)[2], const uint8_t *cell, size_t cells,
                           const uint32_t *x, const uint32_t *bias, size_t stride, bool first);
static cells_by_rows *const cells_by[ROWS_INT4 + 1] = { NULL,         cells_int4_1, cells_int4_2,
                                                        cells_int4_3, cells_int4_4, cells_int4_5 };

/* One panel by one tile. */
static void tile_int4(float *out, size_t ldo, const rd_tile *t, const uint8_t *panel, size_t cells,
                      const float *scale, int lanes, bool first)
{
    size_t rows = (size_t)t->rows;
    int parts = (t->rows + ROWS_INT4 - 1) / ROWS_INT4;

    for (int i = 0, at = 0; i < parts; i++) {
        int n = (t->rows - at + parts - i - 1) / (parts - i);
        const uint32_t *x = t->q + at, *bias = (const uint32_t *)t->group + at;
        __m256 sums[ROWS_INT4][2];

        for (int r = 0; r < n; r++) sums[r][0] = sums[r][1] = _mm256_setzero_ps();
        for (size_t c = 0; c < cells; c += RD_CELLS_AT_ONCE) {
            size_t here = cells - c < RD_CELLS_AT_ONCE ? cells - c : RD_CELLS_AT_ONCE;
            __m256i total[ROWS_INT4][2];

            memset(total, 0, sizeof total);
            cells_by[n](total, panel + c * RD_PACK_CELL, here, x + c * 32 * rows,
                        bias + c * 4 * rows, rows, first && i == 0);
            for (int r = 0; r < n; r++)
                for (int h = 0; h < 2; h++)
                    sums[r][h] = _mm256_add_ps(sums[r][h], _mm256_cvtepi32_ps(total[r][h]));
        }
        for (int r = 0; r < n; r++)
            for (int h = 0; h < 2; h++)
                put(out + (size_t)(at + r) * ldo + h * 8, sums[r][h], scale + h * 8,
                    t->scale[at + r], lanes - h * 8);
        at += n;
    }
}

/* ---- int8 ---- */

/* total += w * x, four bytes in 32 bits; plus is |w|. As asm, for the same reason. */
INLINE void add_fours(__m256i *total, __m256i w, __m256i plus, __m256i x, const __m256i *ones)
{
    __m256i two;

    __asm__("vpsignb %2, %4, %1\n\tvpmaddubsw %1, %3, %1\n\tvpmaddwd %5, %1, %1\n\t"
            "vpaddd %1, %0, %0"
            : "+x"(*total), "=&x"(two)
            : "x"(w), "x"(plus), "x"(x), "m"(*ones));
}

/* A panel by `n` rows of a tile from row `at` on. */
INLINE void part_int8(float *out, size_t ldo, const rd_tile *t, const uint8_t *panel, size_t words,
                      const float *scale, int lanes, bool first, int at, int n)
{
    const __m256i ones = _mm256_set1_epi16(1), middle = _mm256_set1_epi8((char)0x80);
    const uint32_t *x = t->q + at;
    __m256i total[ROWS_INT8][2];

#pragma GCC unroll 5
    for (int r = 0; r < n; r++) total[r][0] = total[r][1] = _mm256_setzero_si256();
    for (size_t k = 0; k < words; k++, x += t->rows) {
        __m256i w[2], plus[2];

        if (first) _mm_prefetch((const char *)panel + AHEAD + k * 64, _MM_HINT_T0);
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            w[h] = _mm256_xor_si256(load(panel + k * 64 + h * 32), middle);
            plus[h] = _mm256_abs_epi8(w[h]);
        }
#pragma GCC unroll 5
        for (int r = 0; r < n; r++) {
            __m256i a = bytes4(x + r);

#pragma GCC unroll 2
            for (int h = 0; h < 2; h++) add_fours(&total[r][h], w[h], plus[h], a, &ones);
        }
    }
#pragma GCC unroll 5
    for (int r = 0; r < n; r++)
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++)
            put(out + (size_t)(at + r) * ldo + h * 8, _mm256_cvtepi32_ps(total[r][h]),
                scale + h * 8, t->scale[at + r], lanes - h * 8);
}

static void tile_int8(float *out, size_t ldo, const rd_tile *t, const uint8_t *panel, size_t words,
                      const float *scale, int lanes, bool first)
{
    int parts = (t->rows + ROWS_INT8 - 1) / ROWS_INT8;

    for (int i = 0, at = 0; i < parts; i++) {
        int n = (t->rows - at + parts - i - 1) / (parts - i);
        bool ask = first && i == 0;

#define ROWS(n) \
    case n: part_int8(out, ldo, t, panel, words, scale, lanes, ask, at, n); break;
        switch (n) {
            ROWS(1) ROWS(2) ROWS(3) ROWS(4) ROWS(5) default : break;
        }
#undef ROWS
        at += n;
    }
}

static void product(float *out, size_t ldo, const rd_tile *tiles, int n, const struct rd_weight *w,
                    int from, int to)
{
    bool int8 = w->kind == RD_PACKED_INT8;
    size_t cells = rd_pack_cells(w->cols);
    size_t bytes = rd_pack_panel_bytes(int8 ? RD_PACK_INT8 : RD_PACK_INT4, w->cols);

    for (int p = from; p < to; p++) {
        const uint8_t *panel = (const uint8_t *)w->data + (size_t)p * bytes;
        const float *scale = w->scale + (size_t)p * RD_PACK_ROWS;
        int lanes = w->rows - p * RD_PACK_ROWS;

        for (int i = 0; i < n; i++) {
            float *o = out + (size_t)tiles[i].first * ldo + (p - from) * RD_PACK_ROWS;

            if (int8)
                tile_int8(o, ldo, &tiles[i], panel, cells * (RD_PACK_COLS / 4), scale, lanes, !i);
            else
                tile_int4(o, ldo, &tiles[i], panel, cells, scale, lanes, !i);
        }
    }
}

const rd_packed_kernels rd_packed_avx2 = { .name = "avx2",
                                           .quantise = quantise,
                                           .product = product };
