/* random.h - a small seeded generator (xoshiro256**, Blackman and Vigna 2018), the same on every
 * machine. State is a plain value, so that a checkpoint can keep it. Not for secrets. */
#ifndef RD_BASE_RANDOM_H
#define RD_BASE_RANDOM_H

#include <stdint.h>

typedef struct rd_random {
    uint64_t s[4];
} rd_random;

rd_random rd_random_seed(uint64_t seed);
uint64_t rd_random_u64(rd_random *r);
/* Uniform in [0, n); n must be above 0. */
uint32_t rd_random_below(rd_random *r, uint32_t n);
/* Uniform in [0, 1). */
double rd_random_unit(rd_random *r);
/* Standard normal (Box-Muller; two draws a call). */
double rd_random_normal(rd_random *r);

#endif
