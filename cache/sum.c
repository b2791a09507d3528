/* sum.c - eight lanes that do not wait for each other, each a multiplication and a rotation for every 8 bytes.
 *
 * A step is one to one in what it takes and in what it had, so that one wrong word always shows; the rotation brings the
 * high bits, which a multiplication never moves down, to where the next one spreads them.
 */
#include "cache/sum.h"

#include <string.h>

enum { STRIPE = 64, LANES = 8 };

static const uint64_t prime = 0x9e3779b185ebca87u, other = 0xc2b2ae3d27d4eb4fu;

static uint64_t rotate(uint64_t x, int by)
{
    return x << by | x >> (64 - by);
}

static uint64_t word(const uint8_t *b)
{
    uint64_t w;

    memcpy(&w, b, sizeof w);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    w = __builtin_bswap64(w);
#endif
    return w;
}

static void stripes(uint64_t *lane, const uint8_t *b, size_t n)
{
    uint64_t l[LANES];

    memcpy(l, lane, sizeof l);
    for (; n >= STRIPE; b += STRIPE, n -= STRIPE)
        for (int i = 0; i < LANES; i++) l[i] = rotate((l[i] ^ word(b + 8 * i)) * prime, 29);
    memcpy(lane, l, sizeof l);
}

void rd_sum_begin(rd_sum *s)
{
    memset(s, 0, sizeof *s);
    for (int i = 0; i < LANES; i++) s->lane[i] = other * (uint64_t)(i + 1);
}

void rd_sum_add(rd_sum *s, const void *bytes, size_t n)
{
    const uint8_t *b = bytes;
    size_t used = s->count % STRIPE, take = STRIPE - used;

    if (!n) return;
    s->count += n;
    if (used && n < take) {
        memcpy(s->rest + used, b, n);
        return;
    }
    if (used) {
        memcpy(s->rest + used, b, take);
        stripes(s->lane, s->rest, STRIPE);
        b += take;
        n -= take;
    }
    stripes(s->lane, b, n);
    memcpy(s->rest, b + n / STRIPE * STRIPE, n % STRIPE);
}

/* The bytes that are left go in with zeros behind them; the count tells them from zeros that were there. */
uint64_t rd_sum_end(const rd_sum *s)
{
    uint64_t lane[LANES], all = s->count * prime;
    uint8_t last[STRIPE] = { 0 };

    memcpy(lane, s->lane, sizeof lane);
    memcpy(last, s->rest, s->count % STRIPE);
    if (s->count % STRIPE) stripes(lane, last, STRIPE);
    for (int i = 0; i < LANES; i++) {
        all = rotate(all ^ lane[i], 31) * other;
        all ^= all >> 29;
    }
    return all;
}
