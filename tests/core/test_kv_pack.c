/* test_kv_pack.c - what was packed comes back as near as its format promises, and nothing bad passes either way.
 *
 * What comes out is held against a second, plain reading of the layout that kv_pack.c writes down.
 */
#include "core/model/kv_pack.h"

#include "core/base/dtype.h"
#include "core/base/random.h"

#include <criterion/criterion.h>
#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Shorter and longer than a chunk, odd, and the built-in model's. */
static const int shapes[][2] = {
    { 1, 1 },     { 1, 7 },     { 3, 5 },      { 2, 1023 },  { 7, 4093 },
    { 5, 31 },    { 3, 16380 }, { 2, 32769 },  { 2, 65532 }, { 2, 65533 },
    { 1, 65536 }, { 1, 65537 }, { 2, 100000 }, { 24, 2048 },
};

enum { SHAPES = sizeof shapes / sizeof *shapes };

static rd_kv_geometry geometry(int pieces, int piece, int bytes_each)
{
    return (rd_kv_geometry){
        .pieces = pieces, .piece = piece, .bytes_each = bytes_each, .block_tokens = 32
    };
}

/* Packed bytes of which `left` are there; `most`: the largest piece that was asked for. */
typedef struct bytes {
    const uint8_t *at;
    size_t left, most;
} bytes;

static bool take(void *user, void *to, size_t n)
{
    bytes *b = user;

    if (n > b->most) b->most = n;
    if (n > b->left) return false;
    memcpy(to, b->at, n);
    b->at += n;
    b->left -= n;
    return true;
}

static bool unpack(rd_kv_format f, const rd_kv_geometry *g, const void *packed, void *to)
{
    bytes b = { packed, rd_kv_packed_bytes(f, g), 0 };

    return rd_kv_unpack(f, g, take, &b, to) && b.left == 0;
}

static size_t numbers(const rd_kv_geometry *g)
{
    return (size_t)g->pieces * (size_t)g->piece;
}

/* Room of exactly `n` bytes, so that a sanitizer sees one byte too many. */
static void *room(size_t n)
{
    void *p = malloc(n);

    cr_assert(p);
    memset(p, 0xa5, n);
    return p;
}

/* Like keys and values: around zero, each piece of another size, some numbers far out, zeros of both signs. */
static float *some_numbers(const rd_kv_geometry *g, uint64_t seed)
{
    rd_random random = rd_random_seed(seed);
    float *x = room(numbers(g) * sizeof *x);

    for (size_t i = 0; i < numbers(g); i++) {
        float size = powf(4.0f, (float)((int)(i / (size_t)g->piece) % 9 - 4));

        x[i] = size * (float)rd_random_normal(&random);
        if (rd_random_below(&random, 100) == 0) x[i] *= 30.0f;
        if (rd_random_below(&random, 50) == 0) x[i] = rd_random_below(&random, 2) ? 0.0f : -0.0f;
    }
    return x;
}

/* ---- round trips ---- */

Test(kv_pack, raw_comes_back_to_the_byte)
{
    for (int s = 0; s < SHAPES; s++) {
        rd_kv_geometry g = geometry(shapes[s][0], shapes[s][1], 4);
        size_t n = rd_kv_packed_bytes(RD_KV_RAW, &g);
        float *x = some_numbers(&g, 1), *y = room(n), *packed = room(n);

        cr_assert_eq(n, 4 * numbers(&g));
        cr_assert(rd_kv_pack(RD_KV_RAW, &g, x, packed));
        cr_assert(!memcmp(packed, x, n));
        cr_assert(unpack(RD_KV_RAW, &g, packed, y));
        cr_assert(!memcmp(x, y, n), "shape %d", s);
        free(x), free(y), free(packed);
    }
}

Test(kv_pack, raw_of_bf16_comes_back_to_the_byte)
{
    rd_kv_geometry g = geometry(7, 4093, 2);
    size_t n = rd_kv_packed_bytes(RD_KV_RAW, &g);
    uint16_t *x = room(n), *y = room(n), *packed = room(n);

    cr_assert_eq(n, 2 * numbers(&g));
    for (size_t i = 0; i < numbers(&g); i++) x[i] = (uint16_t)(i * 7919 % 0x4780 | (i & 1) << 15);

    cr_assert(rd_kv_pack(RD_KV_RAW, &g, x, packed));
    cr_assert(unpack(RD_KV_RAW, &g, packed, y));
    cr_assert(!memcmp(x, y, n));
    free(x), free(y), free(packed);
}

Test(kv_pack, bf16_is_off_by_one_part_in_256_at_most_and_as_the_plain_rounding_says)
{
    for (int s = 0; s < SHAPES; s++) {
        rd_kv_geometry g = geometry(shapes[s][0], shapes[s][1], 4);
        size_t n = rd_kv_packed_bytes(RD_KV_BF16, &g);
        float *x = some_numbers(&g, 2), *y = room(numbers(&g) * sizeof *y);
        uint16_t *packed = room(n);

        cr_assert_eq(n, 2 * numbers(&g));
        cr_assert(rd_kv_pack(RD_KV_BF16, &g, x, packed));
        cr_assert(unpack(RD_KV_BF16, &g, packed, y));
        for (size_t i = 0; i < numbers(&g); i++) {
            float plain = rd_bf16_to_f32(rd_f32_to_bf16(x[i]));

            cr_assert_eq(packed[i], rd_f32_to_bf16(x[i]));
            cr_assert(!memcmp(&y[i], &plain, sizeof plain), "shape %d, number %zu", s, i);
            cr_assert_leq(fabsf(y[i] - x[i]), fabsf(x[i]) / 256.0f);
        }
        free(x), free(y), free(packed);
    }
}

Test(kv_pack, bf16_rounds_ties_to_even_and_never_beyond_the_largest)
{
    static const uint32_t in[] = { 0x3f808000, 0x3f818000, 0x3f808001, 0x3f807fff, 0xbf808000,
                                   0xbf818000, 0x477fe000, 0xc77fe000, 0x477f8000, 0x477f7fff,
                                   0x00000001, 0x80000000, 0x3fffffff };
    static const uint16_t out[] = { 0x3f80, 0x3f82, 0x3f81, 0x3f80, 0xbf80, 0xbf82, 0x477f,
                                    0xc77f, 0x477f, 0x477f, 0x0000, 0x8000, 0x4000 };
    rd_kv_geometry g = geometry(1, sizeof in / sizeof *in, 4);
    uint16_t packed[sizeof in / sizeof *in];
    float y[sizeof in / sizeof *in];

    cr_assert(rd_kv_pack(RD_KV_BF16, &g, in, packed));

    for (size_t i = 0; i < sizeof in / sizeof *in; i++)
        cr_assert_eq(packed[i], out[i], "%08x became %04x", in[i], packed[i]);
    cr_assert(unpack(RD_KV_BF16, &g, packed, y)); /* what is packed is never refused */
    cr_assert_eq(y[6], 65280.0f);
}

/* Scale of piece `i`, and where its numbers stand, as the layout says. */
static float scale_at(const rd_kv_geometry *g, const uint8_t *packed, int i, const int8_t **q)
{
    const uint8_t *at = packed + (size_t)i * (4 + (size_t)g->piece);
    float scale;

    memcpy(&scale, at, sizeof scale);
    *q = (const int8_t *)at + 4;
    return scale;
}

Test(kv_pack, int8_is_off_by_half_a_step_of_its_piece_at_most)
{
    for (int s = 0; s < SHAPES; s++) {
        rd_kv_geometry g = geometry(shapes[s][0], shapes[s][1], 4);
        size_t n = rd_kv_packed_bytes(RD_KV_INT8, &g);
        float *x = some_numbers(&g, 3), *y = room(numbers(&g) * sizeof *y);
        uint8_t *packed = room(n);

        cr_assert_eq(n, numbers(&g) + 4 * (size_t)g.pieces);
        cr_assert(rd_kv_pack(RD_KV_INT8, &g, x, packed));
        cr_assert(unpack(RD_KV_INT8, &g, packed, y));
        for (int p = 0; p < g.pieces; p++) {
            const float *from = x + (size_t)p * (size_t)g.piece,
                        *to = y + (size_t)p * (size_t)g.piece;
            const int8_t *q;
            float scale = scale_at(&g, packed, p, &q), largest = 0.0f;

            for (int i = 0; i < g.piece; i++) largest = fmaxf(largest, fabsf(from[i]));
            cr_assert_float_eq(scale, largest / 127.0f, 1e-6f * largest);
            for (int i = 0; i < g.piece; i++) {
                cr_assert_eq(to[i], (float)q[i] * scale, "shape %d piece %d number %d", s, p, i);
                cr_assert_leq(fabsf(to[i] - from[i]), 0.5001f * scale, "shape %d piece %d", s, p);
            }
        }
        free(x), free(y), free(packed);
    }
}

Test(kv_pack, int8_of_zeros_of_the_smallest_and_of_the_largest_numbers)
{
    static const float largest[] = { 0.0f,  FLT_TRUE_MIN, FLT_MIN,       1e-34f,
                                     1e-3f, 65503.0f,     RD_KV_LARGEST, 64770.0f };

    for (size_t k = 0; k < sizeof largest / sizeof *largest; k++) {
        rd_kv_geometry g = geometry(1, 3, 4);
        float x[3] = { largest[k], -largest[k], largest[k] / 3.0f }, y[3], scale;
        uint8_t packed[7];

        cr_assert(rd_kv_pack(RD_KV_INT8, &g, x, packed));
        cr_assert(unpack(RD_KV_INT8, &g, packed, y), "%g", (double)largest[k]);
        memcpy(&scale, packed, sizeof scale);
        for (int i = 0; i < 3; i++) {
            cr_assert_leq(fabsf(y[i]), RD_KV_LARGEST);
            cr_assert_leq(fabsf(y[i] - x[i]), fmaxf(0.5001f * scale, 1e-34f), "%g", (double)x[i]);
        }
    }
}

/* Every largest number near the bound gives a scale that is taken back. */
Test(kv_pack, int8_never_refuses_what_it_packed)
{
    rd_kv_geometry g = geometry(1, 1, 4);

    for (uint32_t bits = 0x477fe000 - 4000; bits <= 0x477fe000; bits++) {
        float y;
        uint8_t packed[5];

        cr_assert(rd_kv_pack(RD_KV_INT8, &g, &bits, packed));
        cr_assert(unpack(RD_KV_INT8, &g, packed, &y), "%08x", bits);
    }
}

/* ---- what is refused ---- */

static const uint32_t bad_f32[] = { 0x7f800000, 0xff800000, 0x7fc00000, 0xffc00000, 0x7f800001,
                                    0xffffffff, 0x7fffffff, 0x477fe001, 0xc77fe001, 0x7f7fffff };
static const uint16_t bad_bf16[] = { 0x7f80, 0xff80, 0x7fc0, 0xffc0, 0x7f81,
                                     0xffff, 0x7fff, 0x4780, 0xc780, 0x7f7f };

enum { BAD = 10, PLACES = 75 };

Test(kv_pack, what_is_not_finite_or_too_large_is_not_packed_at_any_place)
{
    static const rd_kv_format formats[] = { RD_KV_RAW, RD_KV_BF16, RD_KV_INT8 };
    rd_kv_geometry g = geometry(3, PLACES / 3, 4);
    float *x = some_numbers(&g, 4);
    uint8_t *to = room(4 * PLACES);

    for (int f = 0; f < 3; f++) {
        cr_assert(rd_kv_pack(formats[f], &g, x, to));
        for (int i = 0; i < PLACES; i++) {
            float was = x[i];

            for (int k = 0; k < BAD; k++) {
                memcpy(&x[i], &bad_f32[k], 4);
                cr_assert(!rd_kv_pack(formats[f], &g, x, to), "format %d, place %d, %08x",
                          formats[f], i, bad_f32[k]);
            }
            x[i] = was;
        }
    }
    free(x), free(to);
}

Test(kv_pack, raw_and_bf16_that_are_not_finite_or_too_large_are_not_unpacked_at_any_place)
{
    rd_kv_geometry wide = geometry(3, PLACES / 3, 4), narrow = geometry(3, PLACES / 3, 2);
    float *x = some_numbers(&wide, 5), *y = room(4 * PLACES);
    uint16_t *h = room(2 * PLACES);

    cr_assert(rd_kv_pack(RD_KV_BF16, &wide, x, h));
    for (int i = 0; i < PLACES; i++)
        for (int k = 0; k < BAD; k++) {
            float was = x[i];
            uint16_t half = h[i];

            memcpy(&x[i], &bad_f32[k], 4);
            h[i] = bad_bf16[k];
            cr_assert(!unpack(RD_KV_RAW, &wide, x, y), "place %d, %08x", i, bad_f32[k]);
            cr_assert(!unpack(RD_KV_BF16, &wide, h, y), "place %d, %04x", i, bad_bf16[k]);
            cr_assert(!unpack(RD_KV_RAW, &narrow, h, y), "place %d, %04x", i, bad_bf16[k]);
            cr_assert(!rd_kv_pack(RD_KV_RAW, &narrow, h, y), "place %d, %04x", i, bad_bf16[k]);
            x[i] = was;
            h[i] = half;
        }
    cr_assert(unpack(RD_KV_RAW, &wide, x, y) && unpack(RD_KV_BF16, &wide, h, y) &&
              unpack(RD_KV_RAW, &narrow, h, y));
    free(x), free(y), free(h);
}

/* Chunks have ends: a bad number at each of a long block's places near one. */
Test(kv_pack, a_bad_number_is_seen_on_both_sides_of_every_chunk)
{
    static const size_t places[] = { 0,     16383, 16384, 16385, 32767, 32768, 32769,
                                     65531, 65532, 65535, 65536, 65537, 89999 };
    rd_kv_geometry g = geometry(1, 90000, 4);
    float *x = some_numbers(&g, 6), *y = room(360000);
    uint16_t *h = room(180000);
    int8_t *q = room(90004);

    cr_assert(rd_kv_pack(RD_KV_BF16, &g, x, h) && rd_kv_pack(RD_KV_INT8, &g, x, q));
    for (size_t k = 0; k < sizeof places / sizeof *places; k++) {
        size_t i = places[k];
        float was = x[i];
        uint16_t half = h[i];
        int8_t one = q[4 + i];

        x[i] = INFINITY;
        h[i] = 0x7fc0;
        q[4 + i] = -128;
        cr_assert(!unpack(RD_KV_RAW, &g, x, y) && !rd_kv_pack(RD_KV_INT8, &g, x, y), "place %zu",
                  i);
        cr_assert(!unpack(RD_KV_BF16, &g, h, y), "place %zu", i);
        cr_assert(!unpack(RD_KV_INT8, &g, q, y), "place %zu", i);
        x[i] = was;
        h[i] = half;
        q[4 + i] = one;
    }
    cr_assert(unpack(RD_KV_RAW, &g, x, y) && unpack(RD_KV_BF16, &g, h, y) &&
              unpack(RD_KV_INT8, &g, q, y));
    free(x), free(y), free(h), free(q);
}

Test(kv_pack, hostile_scales_and_minus_128_are_refused_in_every_piece)
{
    static const float bad[] = { NAN,   -NAN,   INFINITY, -INFINITY, -1e-30f,
                                 -1.0f, 516.0f, 1e30f,    FLT_MAX };
    rd_kv_geometry g = geometry(5, 9, 4);
    float *x = some_numbers(&g, 7), y[45];
    uint8_t packed[65];

    cr_assert(rd_kv_pack(RD_KV_INT8, &g, x, packed));
    for (int p = 0; p < 5; p++) {
        uint8_t *at = packed + 13 * p, was[4], one;

        memcpy(was, at, 4);
        for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
            memcpy(at, &bad[k], 4);
            cr_assert(!unpack(RD_KV_INT8, &g, packed, y), "piece %d, scale %g", p, (double)bad[k]);
        }
        memcpy(at, was, 4);
        for (int i = 4; i < 13; i++) {
            one = at[i];
            at[i] = 0x80;
            cr_assert(!unpack(RD_KV_INT8, &g, packed, y), "piece %d, number %d", p, i - 4);
            at[i] = one;
        }
    }
    cr_assert(unpack(RD_KV_INT8, &g, packed, y));
    free(x);
}

Test(kv_pack, a_hostile_scale_of_a_long_piece_is_refused)
{
    static const float bad[] = { NAN, INFINITY, -1.0f, 516.0f };
    rd_kv_geometry g = geometry(2, 70000, 4);
    size_t n = rd_kv_packed_bytes(RD_KV_INT8, &g);
    uint8_t *packed = room(n), *y = room(4 * numbers(&g));

    memset(packed, 0, n);
    cr_assert(unpack(RD_KV_INT8, &g, packed, y));
    for (int p = 0; p < 2; p++)
        for (int k = 0; k < 4; k++) {
            memcpy(packed + 70004 * p, &bad[k], 4);
            cr_assert(!unpack(RD_KV_INT8, &g, packed, y), "piece %d, %g", p, (double)bad[k]);
            memset(packed + 70004 * p, 0, 4);
        }
    free(packed), free(y);
}

/* ---- readers ---- */

Test(kv_pack, a_reader_that_ends_early_is_refused_at_every_length)
{
    static const rd_kv_format formats[] = { RD_KV_RAW, RD_KV_BF16, RD_KV_INT8 };
    rd_kv_geometry g = geometry(3, 25, 4);
    float *x = some_numbers(&g, 8), y[75];
    uint8_t packed[300];

    for (int f = 0; f < 3; f++) {
        size_t n = rd_kv_packed_bytes(formats[f], &g);

        cr_assert(rd_kv_pack(formats[f], &g, x, packed));
        for (size_t left = 0; left <= n; left++) {
            bytes b = { packed, left, 0 };

            cr_assert_eq(rd_kv_unpack(formats[f], &g, take, &b, y), left == n,
                         "format %d, %zu of %zu", formats[f], left, n);
        }
    }
    free(x);
}

Test(kv_pack, a_long_block_is_read_in_pieces_that_stay_in_the_cache)
{
    static const rd_kv_format formats[] = { RD_KV_RAW, RD_KV_BF16, RD_KV_INT8 };

    for (int f = 0; f < 3; f++)
        for (int s = 0; s < SHAPES; s++) {
            rd_kv_geometry g = geometry(shapes[s][0], shapes[s][1], 4);
            size_t n = rd_kv_packed_bytes(formats[f], &g);
            uint8_t *zeros = room(n), *y = room(4 * numbers(&g));
            bytes whole = { zeros, n, 0 }, cut = { zeros, n - 1, 0 };

            memset(zeros, 0, n);
            cr_assert(rd_kv_unpack(formats[f], &g, take, &whole, y));
            cr_assert(whole.left == 0 && whole.most <= 64 << 10);
            cr_assert(!rd_kv_unpack(formats[f], &g, take, &cut, y));
            free(zeros), free(y);
        }
}

/* ---- geometries ---- */

static bool never(void *user, void *to, size_t n)
{
    (void)user, (void)to, (void)n;
    cr_assert_fail("nothing is read for a geometry that has no such format");
    return false;
}

Test(kv_pack, an_absurd_geometry_has_no_bytes_and_is_neither_packed_nor_unpacked)
{
    static const struct {
        int format, pieces, piece, bytes_each;
    } cases[] = {
        { RD_KV_RAW, 0, 5, 4 },
        { RD_KV_RAW, 5, 0, 4 },
        { RD_KV_RAW, -1, 5, 4 },
        { RD_KV_RAW, 5, -1, 4 },
        { RD_KV_RAW, -5, -5, 4 },
        { RD_KV_RAW, 5, 5, 0 },
        { RD_KV_RAW, 5, 5, -4 },
        { RD_KV_RAW, 5, 5, 1 },
        { RD_KV_RAW, 5, 5, 8 },
        { RD_KV_RAW, 5, 5, 3 },
        { RD_KV_RAW, INT_MIN, 1, 4 },
        { RD_KV_BF16, 5, 5, 2 },
        { RD_KV_INT8, 5, 5, 2 },
        { RD_KV_BF16, 5, 0, 4 },
        { RD_KV_INT8, 0, 5, 4 },
        { 0, 5, 5, 4 },
        { 4, 5, 5, 4 },
        { -1, 5, 5, 4 },
        { INT_MAX, 5, 5, 4 },
        { RD_KV_INT8, -1, INT_MIN, 4 },
    };
    char x[1] = { 0 };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rd_kv_geometry g = geometry(cases[i].pieces, cases[i].piece, cases[i].bytes_each);
        rd_kv_format f = (rd_kv_format)cases[i].format;

        cr_assert_eq(rd_kv_packed_bytes(f, &g), 0, "case %zu", i);
        cr_assert(!rd_kv_pack(f, &g, x, x), "case %zu", i);
        cr_assert(!rd_kv_unpack(f, &g, never, NULL, x), "case %zu", i);
    }
}

/* The largest that two ints can name fits 64 bits; where it does not fit, it is refused. */
Test(kv_pack, the_largest_geometry_is_counted_right_or_refused)
{
    rd_kv_geometry g = geometry(INT_MAX, INT_MAX, 4);
    size_t all = (size_t)INT_MAX * (size_t)INT_MAX; /* below 2^62: four times it fits */

    if (sizeof(size_t) < 8) return;
    cr_assert_eq(rd_kv_packed_bytes(RD_KV_RAW, &g), 4 * all);
    cr_assert_eq(rd_kv_packed_bytes(RD_KV_BF16, &g), 2 * all);
    cr_assert_eq(rd_kv_packed_bytes(RD_KV_INT8, &g), all + 4 * (size_t)INT_MAX);
}

Test(kv_pack, a_block_of_the_known_models_has_its_bytes)
{
    rd_kv_geometry builtin = geometry(6 * 2 * 2, 32 * 64, 4),
                   mini = geometry(20 * 4 * 2, 32 * 128, 4);

    cr_assert_eq(rd_kv_packed_bytes(RD_KV_RAW, &builtin), 196608);
    cr_assert_eq(rd_kv_packed_bytes(RD_KV_BF16, &builtin), 98304);
    cr_assert_eq(rd_kv_packed_bytes(RD_KV_INT8, &builtin), 49248);
    cr_assert_eq(rd_kv_packed_bytes(RD_KV_RAW, &mini), 2621440);
    cr_assert_eq(rd_kv_packed_bytes(RD_KV_BF16, &mini), 1310720);
    cr_assert_eq(rd_kv_packed_bytes(RD_KV_INT8, &mini), 656000);
}
