/* sum.h - a checksum of 64 bits, fast enough to stand on the way of a restore.
 *
 * It finds what disks, memory and half-written files do; it proves nothing against somebody who writes the sum too. The
 * value stands in files: it never changes, on no machine. Any thread.
 */
#ifndef RD_CACHE_SUM_H
#define RD_CACHE_SUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RD_SUM_LANES = 32, RD_SUM_STRIPE = 8 * RD_SUM_LANES };

/* By value; nothing to free. */
typedef struct rd_sum {
    uint64_t lane[RD_SUM_LANES];
    uint64_t count;
    uint8_t rest[RD_SUM_STRIPE]; /* bytes that do not fill a stripe yet */
    bool plain;                  /* for tests: without the processor's special instructions */
} rd_sum;

void rd_sum_begin(rd_sum *s);
void rd_sum_add(rd_sum *s, const void *bytes, size_t n); /* in pieces of any size */
uint64_t rd_sum_end(const rd_sum *s);

#endif
