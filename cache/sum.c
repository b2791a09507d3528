/* sum.c - 32 lanes that do not wait for each other, each a multiplication and a rotation for every 8 bytes.
 *
 * A step is one to one in what it takes and in what it had, so that one wrong word always shows; the rotation brings the
 * high bits, which a multiplication never moves down, to where the next one spreads them. So many lanes keep the wide
 * multipliers of AVX-512 busy; without them the lanes go in groups of eight, which is what registers hold.
 */
#include "cache/sum.h"

#include <string.h>

enum { GROUP = 8, TURN = 29 };

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

static void group(uint64_t *lane, const uint8_t *b, size_t stripes)
{
    uint64_t l[GROUP];

    memcpy(l, lane, sizeof l);
    for (; stripes; b += RD_SUM_STRIPE, stripes--)
        for (int i = 0; i < GROUP; i++) l[i] = rotate((l[i] ^ word(b + 8 * i)) * prime, TURN);
    memcpy(lane, l, sizeof l);
}

static void stripes_plain(uint64_t *lane, const uint8_t *b, size_t stripes)
{
    enum { NEAR = 64 }; /* stripes: 16 KB, gone over once for each group */

    for (size_t n; stripes; b += n * RD_SUM_STRIPE, stripes -= n) {
        n = stripes < NEAR ? stripes : NEAR;
        for (int g = 0; g < RD_SUM_LANES; g += GROUP) group(lane + g, b + 8 * g, n);
    }
}

#ifdef __x86_64__
#include <immintrin.h>

__attribute__((target("avx512f,avx512dq"))) static __m512i step(__m512i lanes, const uint8_t *b,
                                                                __m512i p)
{
    return _mm512_rol_epi64(_mm512_mullo_epi64(_mm512_xor_si512(lanes, _mm512_loadu_si512(b)), p),
                            TURN);
}

__attribute__((target("avx512f,avx512dq"))) static void stripes_wide(uint64_t *lane,
                                                                     const uint8_t *b,
                                                                     size_t stripes)
{
    __m512i p = _mm512_set1_epi64((long long)prime);
    __m512i l0 = _mm512_loadu_si512(lane), l1 = _mm512_loadu_si512(lane + 8),
            l2 = _mm512_loadu_si512(lane + 16), l3 = _mm512_loadu_si512(lane + 24);

    for (; stripes; b += RD_SUM_STRIPE, stripes--) {
        l0 = step(l0, b, p);
        l1 = step(l1, b + 64, p);
        l2 = step(l2, b + 128, p);
        l3 = step(l3, b + 192, p);
    }
    _mm512_storeu_si512(lane, l0);
    _mm512_storeu_si512(lane + 8, l1);
    _mm512_storeu_si512(lane + 16, l2);
    _mm512_storeu_si512(lane + 24, l3);
}

static bool is_wide(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq");
}
#else
#define stripes_wide stripes_plain
static bool is_wide(void)
{
    return false;
}
#endif

static void stripes(uint64_t *lane, const uint8_t *b, size_t n, bool plain)
{
    if (n && (plain || !is_wide()))
        stripes_plain(lane, b, n);
    else if (n)
        stripes_wide(lane, b, n);
}

void rd_sum_begin(rd_sum *s)
{
    for (int i = 0; i < RD_SUM_LANES; i++) s->lane[i] = other * (uint64_t)(i + 1);
    s->count = 0;
    s->plain = false;
}

void rd_sum_add(rd_sum *s, const void *bytes, size_t n)
{
    const uint8_t *b = bytes;
    size_t used = s->count % RD_SUM_STRIPE, take = RD_SUM_STRIPE - used;

    if (!n) return;
    s->count += n;
    if (used && n < take) {
        memcpy(s->rest + used, b, n);
        return;
    }
    if (used) {
        memcpy(s->rest + used, b, take);
        stripes(s->lane, s->rest, 1, s->plain);
        b += take;
        n -= take;
    }
    stripes(s->lane, b, n / RD_SUM_STRIPE, s->plain);
    memcpy(s->rest, b + n / RD_SUM_STRIPE * RD_SUM_STRIPE, n % RD_SUM_STRIPE);
}

/* The bytes that are left go in with zeros behind them; the count tells them from zeros that were there. */
uint64_t rd_sum_end(const rd_sum *s)
{
    uint64_t lane[RD_SUM_LANES], all = s->count * prime;
    uint8_t last[RD_SUM_STRIPE] = { 0 };
    size_t left = s->count % RD_SUM_STRIPE;

    memcpy(lane, s->lane, sizeof lane);
    memcpy(last, s->rest, left);
    if (left) stripes(lane, last, 1, s->plain);
    for (int i = 0; i < RD_SUM_LANES; i++) {
        all = rotate(all ^ lane[i], 31) * other;
        all ^= all >> 29;
    }
    return all;
}
