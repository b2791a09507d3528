/* packed_avx2.c - products with packed weights by the byte products of AVX2.
 *
 * maddubs adds pairs of byte products in 16 bits. int4: 15 * 127 * 2 * 8 stays below 2^15, so that a whole group is summed
 * in 16 bits, beginning with the correction of each half, and one product with g takes it to 32. int8: |w| is the unsigned
 * operand and the row's bytes take w's sign: 128 * 127 * 2 stays below 2^15 too. Half a panel, 8 output rows, at a time.
 */
#include "plugins/cpu/kernels.h"
#include "plugins/cpu/packed.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

enum { AHEAD = 2048, ROWS_AT_ONCE = 4 };

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

INLINE void group_int4(__m256i *total, const uint8_t *group, const uint8_t *by, const uint32_t *x,
                       const uint32_t *bias, size_t stride, int n)
{
    const __m256i low = _mm256_set1_epi8(15);
    __m256i w[8], g = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)by));

    g = _mm256_or_si256(g, _mm256_slli_epi32(g, 16));
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) {
        __m256i both = load(group + v * 64);

        w[v] = _mm256_and_si256(both, low);
        w[v + 4] = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
    }
#pragma GCC unroll 4
    for (int r = 0; r < n; r++) {
        __m256i s = bytes4(bias + r);

#pragma GCC unroll 8
        for (int v = 0; v < 8; v++)
            s = _mm256_add_epi16(s, _mm256_maddubs_epi16(w[v], bytes4(x + (size_t)v * stride + r)));
        total[r] = _mm256_add_epi32(total[r], _mm256_madd_epi16(s, g));
    }
}

/* 8 output rows by `n` rows of a tile from row `at` on. */
INLINE void tile_int4(float *out, size_t ldo, const rd_tile *t, const uint8_t *panel, size_t cells,
                      int half, const float *scale, int lanes, bool first, int at, int n)
{
    size_t stride = (size_t)t->rows;
    const uint32_t *x = t->q + at, *bias = (const uint32_t *)t->group + at;
    __m256 sums[ROWS_AT_ONCE];

#pragma GCC unroll 4
    for (int r = 0; r < n; r++) sums[r] = _mm256_setzero_ps();
    for (size_t c = 0; c < cells;) {
        size_t end = c + RD_CELLS_AT_ONCE < cells ? c + RD_CELLS_AT_ONCE : cells;
        __m256i total[ROWS_AT_ONCE];

#pragma GCC unroll 4
        for (int r = 0; r < n; r++) total[r] = _mm256_setzero_si256();
        for (; c < end; c++, panel += RD_PACK_CELL) {
            for (int g = 0; g < 4; g++, x += 8 * stride, bias += stride) {
                for (int i = 0; first && i < 256; i += 64)
                    _mm_prefetch((const char *)panel + AHEAD + g * 256 + i, _MM_HINT_T0);
                group_int4(total, panel + g * 256 + half * 32,
                           panel + 1024 + g * RD_PACK_ROWS + half * 8, x, bias, stride, n);
            }
        }
#pragma GCC unroll 4
        for (int r = 0; r < n; r++) sums[r] = _mm256_add_ps(sums[r], _mm256_cvtepi32_ps(total[r]));
    }
#pragma GCC unroll 4
    for (int r = 0; r < n; r++)
        put(out + (size_t)(at + r) * ldo + half * 8, sums[r], scale + half * 8, t->scale[at + r],
            lanes - half * 8);
}

INLINE void tile_int8(float *out, size_t ldo, const rd_tile *t, const uint8_t *panel, size_t words,
                      const float *scale, int lanes, bool first, int at, int n)
{
    const __m256i ones = _mm256_set1_epi16(1), middle = _mm256_set1_epi8((char)0x80);
    const uint32_t *x = t->q + at;
    __m256i total[ROWS_AT_ONCE][2];

#pragma GCC unroll 4
    for (int r = 0; r < n; r++) total[r][0] = total[r][1] = _mm256_setzero_si256();
    for (size_t k = 0; k < words; k++, x += t->rows) {
        __m256i w[2], plus[2];

        if (first) _mm_prefetch((const char *)panel + AHEAD + k * 64, _MM_HINT_T0);
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            w[h] = _mm256_xor_si256(load(panel + k * 64 + h * 32), middle);
            plus[h] = _mm256_abs_epi8(w[h]);
        }
#pragma GCC unroll 4
        for (int r = 0; r < n; r++) {
            __m256i a = bytes4(x + r);

#pragma GCC unroll 2
            for (int h = 0; h < 2; h++) {
                __m256i two = _mm256_maddubs_epi16(plus[h], _mm256_sign_epi8(a, w[h]));

                total[r][h] = _mm256_add_epi32(total[r][h], _mm256_madd_epi16(two, ones));
            }
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < n; r++)
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++)
            put(out + (size_t)(at + r) * ldo + h * 8, _mm256_cvtepi32_ps(total[r][h]),
                scale + h * 8, t->scale[at + r], lanes - h * 8);
}

/* One panel by one tile, ROWS_AT_ONCE rows at a time. */
static void panel_by_tile(float *out, size_t ldo, const rd_tile *t, const uint8_t *panel,
                          size_t cells, const float *scale, int lanes, bool first, bool int8)
{
    size_t words = cells * (RD_PACK_COLS / 4);

    for (int at = 0; at < t->rows; at += ROWS_AT_ONCE) {
        bool ask = first && at == 0;

#define ROWS(n)                                                                  \
    case n:                                                                      \
        if (int8) {                                                              \
            tile_int8(out, ldo, t, panel, words, scale, lanes, ask, at, n);      \
        } else {                                                                 \
            tile_int4(out, ldo, t, panel, cells, 0, scale, lanes, ask, at, n);   \
            tile_int4(out, ldo, t, panel, cells, 1, scale, lanes, false, at, n); \
        }                                                                        \
        break;
        switch (t->rows - at < ROWS_AT_ONCE ? t->rows - at : ROWS_AT_ONCE) {
            ROWS(1) ROWS(2) ROWS(3) ROWS(4) default : break;
        }
#undef ROWS
    }
}

static void product(float *out, size_t ldo, const rd_tile *tiles, int n, const struct rd_weight *w,
                    int from, int to)
{
    bool int8 = w->kind == RD_PACKED_INT8;
    size_t bytes = rd_pack_panel_bytes(int8 ? RD_PACK_INT8 : RD_PACK_INT4, w->cols);

    for (int p = from; p < to; p++)
        for (int i = 0; i < n; i++)
            panel_by_tile(out + (size_t)tiles[i].first * ldo + (p - from) * RD_PACK_ROWS, ldo,
                          &tiles[i], (const uint8_t *)w->data + (size_t)p * bytes,
                          rd_pack_cells(w->cols), w->scale + (size_t)p * RD_PACK_ROWS,
                          w->rows - p * RD_PACK_ROWS, !i, int8);
}

const rd_packed_kernels rd_packed_avx2 = { .name = "avx2",
                                           .quantise = quantise,
                                           .product = product };
