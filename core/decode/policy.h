/* policy.h - which slots of a block change in one step: the published decoders as pure functions.
 *
 * The model proposes a token for each slot; the policy decides. It sees no tensors and no clock, so that
 * a test can replay any decision. Order of a step: rd_policy_over (is the block over, without a
 * pass?), a pass with picks, rd_policy_apply.
 *
 * Sources: LLaDA2.0 modeling file `generate` (low confidence), LLaDA2.1 `generate` (joint M2T and T2T),
 * LLaDA2.2 technical report section 3.1 and its public ports (delete, split); diffusers'
 * BlockRefinementScheduler.
 */
#ifndef RD_DECODE_POLICY_H
#define RD_DECODE_POLICY_H

#include "core/backend.h"
#include "core/decode/edits.h"

typedef enum rd_policy_kind {
    RD_POLICY_20,
    RD_POLICY_21,
    RD_POLICY_22,
    RD_POLICY_DIFFUSERS
} rd_policy_kind;

typedef struct rd_policy {
    rd_policy_kind kind;
    rd_edit_ids ids;
    float threshold;      /* mask to token: strictly above */
    float edit_threshold; /* token to token: strictly above; 0: any other; diffusers: 0 is off */
    int steps;            /* 2.0, 2.2, diffusers: steps of the quota */
    int num_to_transfer;  /* 2.1: at least so many masks a pass */
    int max_post_steps;   /* passes after the last mask is gone */
    int max_passes;       /* of one block; 0: 1000; 2.2 resolves the block in the last */
    /* What the public code does where we would not: the mask id may be chosen, a repeated state is no
     * end, 2.2's way out of a cycle. */
    bool reference_quirks;
} rd_policy;

/* The recommended settings of the LLaDA2.1 card (Speed 0.5/0.0, Quality 0.7/0.5) as the ends 0 and 1 of
 * one dial, linear between. */
rd_policy rd_policy_dial(rd_policy_kind kind, float quality);

enum { RD_SEEN_MOST = 1024 };

typedef struct rd_policy_state {
    int passes;
    int step;       /* of the quota: diffusers counts only passes that began with masks */
    int post;       /* passes that began without: 2.2, without original ones */
    int masks;      /* when the block was opened */
    bool finalized; /* 2.2: the last writing round is over */
    uint64_t seen[RD_SEEN_MOST];
    int seen_n;
} rd_policy_state;

/* What a step did, for traces and for the decoder. Slots are those of the block before edits. */
typedef struct rd_change {
    rd_slots filled, edited;
    bool fallback;    /* the most confident were taken, too few passed the threshold */
    bool final_round; /* 2.2: the last that writes */
    bool was_final;   /* 2.2: the pass after that, which only closes the block */
    bool over;        /* the block is over after this pass */
    int edits;        /* deletes and splits applied */
    int32_t written[RD_BLOCK_MOST]; /* after the writes, before the edits */
} rd_change;

void rd_policy_begin(const rd_policy *p, const rd_block *b, rd_policy_state *s);
/* True when the block needs no further pass. Call once before each pass. */
bool rd_policy_over(const rd_policy *p, const rd_block *b, rd_policy_state *s);
/* True when apply needs a second set of picks, with delete and split banned (2.2's last round). */
bool rd_policy_wants_plain(const rd_policy *p, const rd_block *b, const rd_policy_state *s,
                           const rd_pick *picks);
/* Write into the block. `plain` may be NULL where it was not wanted. */
void rd_policy_apply(const rd_policy *p, rd_policy_state *s, rd_block *b, const rd_pick *picks,
                     const rd_pick *plain, rd_change *out);

#endif
