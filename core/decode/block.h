/* block.h - the slots of one open block: what stands there, and what may not move; sets of slots.
 *
 * A slot is masked when it holds the mask id. A pinned slot is the user's own text (or the prompt): it is
 * never written. `original` says of a masked slot that it was there when the block was opened
 * (LLaDA2.2 counts those apart). A plain value.
 */
#ifndef RD_DECODE_BLOCK_H
#define RD_DECODE_BLOCK_H

#include <stdbool.h>
#include <stdint.h>

enum { RD_BLOCK_MOST = 1024 };

typedef struct rd_block {
    int size;
    int32_t token[RD_BLOCK_MOST];
    bool pinned[RD_BLOCK_MOST];
    bool original[RD_BLOCK_MOST];
    float prob[RD_BLOCK_MOST]; /* the probability with which the slot was last written or seen */
} rd_block;

/* Some slots of a block. */
typedef struct rd_slots {
    uint64_t bits[RD_BLOCK_MOST / 64];
} rd_slots;

static inline void rd_slots_add(rd_slots *s, int i)
{
    s->bits[i / 64] |= (uint64_t)1 << i % 64;
}

static inline bool rd_slots_has(const rd_slots *s, int i)
{
    return s->bits[i / 64] >> i % 64 & 1;
}

static inline int rd_slots_count(const rd_slots *s)
{
    int n = 0;

    for (int w = 0; w < RD_BLOCK_MOST / 64; w++) n += __builtin_popcountll(s->bits[w]);
    return n;
}

static inline int rd_block_masks(const rd_block *b, int32_t mask)
{
    int n = 0;

    for (int i = 0; i < b->size; i++) n += b->token[i] == mask;
    return n;
}

#endif
