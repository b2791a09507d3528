/* key.c - BLAKE2b (RFC 7693) without a key, and lists of byte strings under it. */
#include "core/base/key.h"

#include <stdio.h>
#include <string.h>

static const uint64_t iv[8] = { 0x6a09e667f3bcc908u, 0xbb67ae8584caa73bu, 0x3c6ef372fe94f82bu,
                                0xa54ff53a5f1d36f1u, 0x510e527fade682d1u, 0x9b05688c2b3e6c1fu,
                                0x1f83d9abfb41bd6bu, 0x5be0cd19137e2179u };

static const uint8_t sigma[10][16] = {
    { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 },
    { 14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3 },
    { 11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4 },
    { 7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8 },
    { 9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13 },
    { 2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9 },
    { 12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11 },
    { 13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10 },
    { 6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5 },
    { 10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0 },
};

static inline uint64_t turn(uint64_t x, int n)
{
    return x >> n | x << (64 - n);
}

static inline void mix(uint64_t *v, int a, int b, int c, int d, uint64_t x, uint64_t y)
{
    v[a] += v[b] + x;
    v[d] = turn(v[d] ^ v[a], 32);
    v[c] += v[d];
    v[b] = turn(v[b] ^ v[c], 24);
    v[a] += v[b] + y;
    v[d] = turn(v[d] ^ v[a], 16);
    v[c] += v[d];
    v[b] = turn(v[b] ^ v[c], 63);
}

static uint64_t word_at(const uint8_t *bytes)
{
    uint64_t x = 0;

    for (int i = 0; i < 8; i++) x |= (uint64_t)bytes[i] << (8 * i);
    return x;
}

/* Unrolled, the order of the words is constant and everything stays in registers: three times as fast. */
static void compress(uint64_t h[8], const uint8_t block[128], uint64_t count, bool last)
{
    uint64_t v[16], m[16];

    for (int i = 0; i < 16; i++) m[i] = word_at(block + 8 * i);
    memcpy(v, h, 64);
    memcpy(v + 8, iv, 64);
    v[12] ^= count;
    if (last) v[14] = ~v[14];
#pragma GCC unroll 12
    for (int r = 0; r < 12; r++) {
        const uint8_t *s = sigma[r < 10 ? r : r - 10];

        mix(v, 0, 4, 8, 12, m[s[0]], m[s[1]]);
        mix(v, 1, 5, 9, 13, m[s[2]], m[s[3]]);
        mix(v, 2, 6, 10, 14, m[s[4]], m[s[5]]);
        mix(v, 3, 7, 11, 15, m[s[6]], m[s[7]]);
        mix(v, 0, 5, 10, 15, m[s[8]], m[s[9]]);
        mix(v, 1, 6, 11, 12, m[s[10]], m[s[11]]);
        mix(v, 2, 7, 8, 13, m[s[12]], m[s[13]]);
        mix(v, 3, 4, 9, 14, m[s[14]], m[s[15]]);
    }
    for (int i = 0; i < 8; i++) h[i] ^= v[i] ^ v[i + 8];
}

static void start(rd_key_maker *k, unsigned digest_bytes)
{
    *k = (rd_key_maker){ 0 };
    memcpy(k->h, iv, sizeof k->h);
    k->h[0] ^= 0x01010000u ^ digest_bytes;
}

/* The last block is known only when no more comes: a full one waits. */
static void take(rd_key_maker *k, const void *bytes, size_t n)
{
    const uint8_t *at = bytes;

    while (n > 0) {
        if (k->used == sizeof k->block) {
            compress(k->h, k->block, k->count += sizeof k->block, false);
            k->used = 0;
        }
        for (; k->used == 0 && n > sizeof k->block; at += sizeof k->block, n -= sizeof k->block)
            compress(k->h, at, k->count += sizeof k->block, false);
        size_t room = sizeof k->block - k->used, part = n < room ? n : room;

        memcpy(k->block + k->used, at, part);
        k->used += part;
        at += part;
        n -= part;
    }
}

static void finish(rd_key_maker *k, uint8_t *out, size_t n)
{
    memset(k->block + k->used, 0, sizeof k->block - k->used);
    compress(k->h, k->block, k->count + k->used, true);
    for (size_t i = 0; i < n; i++) out[i] = (uint8_t)(k->h[i / 8] >> (8 * (i % 8)));
}

void rd_key_begin(rd_key_maker *k, const char *what)
{
    start(k, sizeof(rd_key));
    rd_key_add_text(k, what);
}

void rd_key_add(rd_key_maker *k, const void *bytes, size_t n)
{
    rd_key_add_number(k, (int64_t)n);
    take(k, bytes, n);
}

void rd_key_add_text(rd_key_maker *k, const char *text)
{
    if (text)
        rd_key_add(k, text, strlen(text));
    else
        rd_key_add_number(k, -1);
}

void rd_key_add_number(rd_key_maker *k, int64_t number)
{
    uint8_t bytes[8];

    for (int i = 0; i < 8; i++) bytes[i] = (uint8_t)((uint64_t)number >> (8 * i));
    take(k, bytes, sizeof bytes);
}

rd_key rd_key_end(rd_key_maker *k)
{
    rd_key key;

    finish(k, key.byte, sizeof key.byte);
    return key;
}

bool rd_key_equal(const rd_key *a, const rd_key *b)
{
    return !memcmp(a, b, sizeof *a);
}

bool rd_key_is_none(const rd_key *k)
{
    return rd_key_equal(k, &(rd_key){ { 0 } });
}

void rd_key_text(const rd_key *k, char out[33])
{
    for (int i = 0; i < 16; i++) snprintf(out + 2 * i, 3, "%02x", k->byte[i]);
}

uint64_t rd_blake2b_64(const void *bytes, size_t n)
{
    rd_key_maker k;
    uint8_t out[8];
    uint64_t digest = 0;

    start(&k, sizeof out);
    take(&k, bytes, n);
    finish(&k, out, sizeof out);
    for (int i = 0; i < 8; i++) digest = digest << 8 | out[i];
    return digest;
}
