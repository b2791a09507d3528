/* kv_pack.c - a block's numbers to bytes of a file and back, near the speed of memory.
 *
 * Packed bytes, little end first, nothing between and nothing behind them:
 *   raw    the device's own bytes: pieces x piece numbers of bytes_each
 *   bf16   pieces x piece numbers of 2 bytes, the upper half of a float32
 *   int8   for each piece a float32 scale and `piece` numbers of 1 byte from -127 to 127; each stands for itself times
 *          the scale
 *
 * Nothing here trusts what it reads. A check is made of whole numbers: with the sign bit off, the bits of floats are
 * ordered as the floats are, infinities and NaN above all others, so that `largest - bits` is negative just for what is
 * refused, and one OR over a chunk gathers the signs. Loops are written so that a compiler makes vectors of them with
 * what any x86-64 or AArch64 has. A chunk is small enough to be in a near cache still when it is looked at again, and large
 * enough that a reader's calls, of the system or of SQLite, cost little.
 */
#include "core/model/kv_pack.h"

#include "core/base/memory.h"

#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "numbers are stored as they stand");

enum {
    CHUNK = 64 << 10,         /* bytes that are read before they are looked at */
    F32_LARGEST = 0x477fe000, /* the bits of RD_KV_LARGEST, 65504 */
    BF16_LARGEST = 0x477f,    /* the largest bf16 that is not above it, 65280 */
    F32_MAGNITUDE = 0x7fffffff,
    BF16_MAGNITUDE = 0x7fff
};

/* A piece whose largest number is below it is all zeros in int8: 1 / scale would not be finite. */
#define INT8_LEAST 1e-34f
/* Added to a float of less than 2^22 and taken off again, it rounds to the nearest whole number, ties to even. */
#define ROUNDER      12582912.0f
#define ROUNDER_BITS 0x4b400000

/* ---- sizes ---- */

/* Numbers of a block and its bytes on the device. False: no such block. */
static bool sizes_of(const rd_kv_geometry *g, size_t *numbers, size_t *bytes)
{
    if (g->pieces <= 0 || g->piece <= 0 || (g->bytes_each != 4 && g->bytes_each != 2)) return false;
    return rd_mul((size_t)g->pieces, (size_t)g->piece, numbers) &&
           rd_mul(*numbers, (size_t)g->bytes_each, bytes);
}

size_t rd_kv_packed_bytes(rd_kv_format f, const rd_kv_geometry *g)
{
    size_t numbers, bytes, scales, all;

    if (!sizes_of(g, &numbers, &bytes)) return 0;
    if (f == RD_KV_RAW) return bytes;
    if (g->bytes_each != 4) return 0;
    if (f == RD_KV_BF16) return bytes / 2;
    if (f != RD_KV_INT8) return 0;
    if (!rd_mul((size_t)g->pieces, sizeof(float), &scales) || !rd_add(numbers, scales, &all))
        return 0;
    return all;
}

/* ---- checks ---- */

static inline int32_t bits_at(const uint8_t *at, size_t i)
{
    int32_t bits;

    memcpy(&bits, at + i * sizeof bits, sizeof bits);
    return bits;
}

static inline uint16_t half_at(const uint8_t *at, size_t i)
{
    uint16_t bits;

    memcpy(&bits, at + i * sizeof bits, sizeof bits);
    return bits;
}

static bool f32_are_good(const uint8_t *at, size_t n)
{
    int32_t bad = 0;

    for (size_t i = 0; i < n; i++) bad |= F32_LARGEST - (bits_at(at, i) & F32_MAGNITUDE);
    return bad >= 0;
}

static bool bf16_are_good(const uint8_t *at, size_t n)
{
    uint16_t bad = 0;

    for (size_t i = 0; i < n; i++)
        bad |= (uint16_t)(BF16_LARGEST - (half_at(at, i) & BF16_MAGNITUDE));
    return !(bad & 0x8000);
}

static bool are_good(const uint8_t *at, size_t bytes, int bytes_each)
{
    return bytes_each == 4 ? f32_are_good(at, bytes / 4) : bf16_are_good(at, bytes / 2);
}

/* int8 is as far below 0 as above it. */
static bool int8_are_good(const uint8_t *at, size_t n)
{
    uint8_t bad = 0;

    for (size_t i = 0; i < n; i++) bad |= at[i] == 0x80;
    return !bad;
}

static bool scale_is_good(float scale)
{
    return scale >= 0.0f && scale * 127.0f <= RD_KV_LARGEST; /* neither holds for NaN */
}

/* ---- pack ---- */

/* To the nearest, ties to even; what would round above the largest becomes the largest. */
static void pack_bf16(const uint8_t *restrict from, uint8_t *restrict to, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int32_t bits = bits_at(from, i), size = bits & F32_MAGNITUDE;
        int32_t rounded = (size + 0x7fff + (size >> 16 & 1)) >> 16;
        uint16_t half = (uint16_t)((rounded > BF16_LARGEST ? BF16_LARGEST : rounded) |
                                   ((uint32_t)bits >> 16 & 0x8000));

        memcpy(to + i * sizeof half, &half, sizeof half);
    }
}

static float largest_of(const uint8_t *from, size_t n)
{
    int32_t most = 0;
    float out;

    for (size_t i = 0; i < n; i++) {
        int32_t size = bits_at(from, i) & F32_MAGNITUDE;

        most = size > most ? size : most;
    }
    memcpy(&out, &most, sizeof out);
    return out;
}

/* Of the largest that is allowed the scale is good, too: 65504 / 127, rounded, is not above it. */
static float scale_of(const uint8_t *from, size_t n)
{
    float largest = largest_of(from, n);

    return largest < INT8_LEAST ? 0.0f : largest / 127.0f;
}

static void pack_int8(const uint8_t *restrict from, uint8_t *restrict to, size_t n)
{
    float scale = scale_of(from, n), by = scale > 0.0f ? 1.0f / scale : 0.0f;

    memcpy(to, &scale, sizeof scale);
    to += sizeof scale;
    for (size_t i = 0; i < n; i++) {
        float x;
        int32_t whole;

        memcpy(&x, from + i * sizeof x, sizeof x);
        x = x * by + ROUNDER; /* |x * by| is 127 and a rounding error at most */
        memcpy(&whole, &x, sizeof whole);
        to[i] = (uint8_t)(whole - ROUNDER_BITS);
    }
}

bool rd_kv_pack(rd_kv_format f, const rd_kv_geometry *g, const void *from, void *to)
{
    size_t numbers, bytes, piece;
    const uint8_t *in = from;
    uint8_t *out = to;

    if (!rd_kv_packed_bytes(f, g) || !sizes_of(g, &numbers, &bytes)) return false;
    piece = (size_t)g->piece;
    if (!are_good(in, bytes, g->bytes_each)) return false;
    if (f == RD_KV_RAW)
        memcpy(out, in, bytes);
    else if (f == RD_KV_BF16)
        pack_bf16(in, out, numbers);
    else
        for (int i = 0; i < g->pieces; i++, in += piece * sizeof(float), out += 4 + piece)
            pack_int8(in, out, piece);
    return true;
}

/* ---- unpack ---- */

typedef struct source {
    rd_kv_reader read;
    void *user;
} source;

static size_t least_of(size_t a, size_t b)
{
    return a < b ? a : b;
}

static bool unpack_raw(const source *s, size_t bytes, int bytes_each, uint8_t *to)
{
    for (size_t at = 0, n; at < bytes; at += n) {
        n = least_of(bytes - at, CHUNK);
        if (!s->read(s->user, to + at, n) || !are_good(to + at, n, bytes_each)) return false;
    }
    return true;
}

static void widen_bf16(const uint8_t *restrict from, uint8_t *restrict to, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = (uint32_t)half_at(from, i) << 16;

        memcpy(to + i * sizeof bits, &bits, sizeof bits);
    }
}

static bool unpack_bf16(const source *s, size_t numbers, uint8_t *to)
{
    uint8_t chunk[CHUNK];

    for (size_t at = 0, n; at < numbers; at += n) {
        n = least_of(numbers - at, CHUNK / 2);
        if (!s->read(s->user, chunk, 2 * n) || !bf16_are_good(chunk, n)) return false;
        widen_bf16(chunk, to + at * sizeof(float), n);
    }
    return true;
}

static void widen_int8(const uint8_t *restrict from, float scale, uint8_t *restrict to, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float x = (float)(int8_t)from[i] * scale;

        memcpy(to + i * sizeof x, &x, sizeof x);
    }
}

/* A piece that is longer than a chunk: its scale, then its numbers a chunk at a time. */
static bool unpack_long_piece(const source *s, uint8_t *chunk, size_t piece, uint8_t *to)
{
    float scale;

    if (!s->read(s->user, &scale, sizeof scale) || !scale_is_good(scale)) return false;
    for (size_t at = 0, n; at < piece; at += n) {
        n = least_of(piece - at, CHUNK);
        if (!s->read(s->user, chunk, n) || !int8_are_good(chunk, n)) return false;
        widen_int8(chunk, scale, to + at * sizeof scale, n);
    }
    return true;
}

static bool unpack_pieces(const uint8_t *from, size_t pieces, size_t piece, uint8_t *to)
{
    for (size_t i = 0; i < pieces; i++, from += 4 + piece, to += piece * sizeof(float)) {
        float scale;

        memcpy(&scale, from, sizeof scale);
        if (!scale_is_good(scale) || !int8_are_good(from + 4, piece)) return false;
        widen_int8(from + 4, scale, to, piece);
    }
    return true;
}

/* As many whole pieces at once as a chunk holds. */
static bool unpack_int8(const source *s, size_t pieces, size_t piece, uint8_t *to)
{
    uint8_t chunk[CHUNK];
    size_t at_once = CHUNK / (4 + piece);

    for (size_t at = 0, n; at < pieces; at += n, to += n * piece * sizeof(float)) {
        n = at_once > 0 ? least_of(pieces - at, at_once) : 1;
        if (at_once == 0) {
            if (!unpack_long_piece(s, chunk, piece, to)) return false;
            continue;
        }
        if (!s->read(s->user, chunk, n * (4 + piece)) || !unpack_pieces(chunk, n, piece, to))
            return false;
    }
    return true;
}

bool rd_kv_unpack(rd_kv_format f, const rd_kv_geometry *g, rd_kv_reader read, void *user, void *to)
{
    source s = { read, user };
    size_t numbers, bytes;

    if (!rd_kv_packed_bytes(f, g) || !sizes_of(g, &numbers, &bytes)) return false;
    if (f == RD_KV_RAW) return unpack_raw(&s, bytes, g->bytes_each, to);
    if (f == RD_KV_BF16) return unpack_bf16(&s, numbers, to);
    return unpack_int8(&s, (size_t)g->pieces, (size_t)g->piece, to);
}
