/* random.c - xoshiro256**, seeded by splitmix64. */
#include "core/base/random.h"

#include <math.h>

static uint64_t rotl(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

rd_random rd_random_seed(uint64_t seed)
{
    rd_random r;

    for (int i = 0; i < 4; i++) {
        seed += 0x9e3779b97f4a7c15u;
        uint64_t z = seed;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        r.s[i] = z ^ (z >> 31);
    }
    return r;
}

uint64_t rd_random_u64(rd_random *r)
{
    uint64_t *s = r->s;
    uint64_t result = rotl(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
}

uint32_t rd_random_below(rd_random *r, uint32_t n)
{
    return (uint32_t)(((rd_random_u64(r) >> 32) * (uint64_t)n) >> 32);
}

double rd_random_unit(rd_random *r)
{
    return (double)(rd_random_u64(r) >> 11) * 0x1.0p-53;
}

double rd_random_normal(rd_random *r)
{
    double u = 1.0 - rd_random_unit(r), v = rd_random_unit(r);

    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}
