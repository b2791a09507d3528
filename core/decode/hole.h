/* hole.h - a hole between a context and an anchor: its canvas grows and shrinks until it fits.
 *
 * The open block is `[slots of the hole][anchor, pinned]`. A mask may become a token, be deleted, or split in
 * two; a split moves the anchor right (its last tokens leave the block), a delete moves it left and more
 * of it comes in. A filled slot that the model doubts goes back to mask. A canvas that leaves fewer than
 * RD_ANCHOR_LEAST slots for the anchor fills its block alone; when that settles it is committed and the
 * hole goes on in the next block, as the model was trained. The anchor is never written. The same
 * run, seeded with tokens, rewrites a span: a token is kept, changed, deleted, or gets a mask before it, and a
 * spare mask behind the last stands for what may be missing there.
 *
 * The first pass computes the prompt's last blocks and looks at several canvases at once, as branches: drafts
 * (what the file itself would put there), each scored by the probability that the model keeps it whole;
 * and, for models without delete and split ids, several lengths (CAL, arXiv 2602.00476), of which
 * one is kept. At the end the model's own text stands where it is much likelier than the draft.
 *
 * One thread.
 */
#ifndef RD_DECODE_HOLE_H
#define RD_DECODE_HOLE_H

#include "core/decode/decoder.h"

enum { RD_ANCHOR_LEAST = 8, RD_HOLE_DRAFTS_MOST = 5, RD_HOLE_BLOCK_MOST = 64 };

/* A text that may belong into the hole. One that fits a block with its anchor is scored by the model;
 * a longer one stands by `alike` alone. */
typedef struct rd_hole_draft {
    const int32_t *id;
    int n;
    float alike; /* what its surroundings say (draft.h) */
} rd_hole_draft;

/* The probability that a text is right as a whole: 1 / (1 + exp(-x)) with
 * x = base + sure * S + end * E + tokens * n + alike * A, S the sum of the logarithms of its n tokens' probabilities,
 * E that of nothing being missing behind a draft, A a draft's `alike`. Fitted on held-out holes. */
typedef struct rd_calibration {
    float base, sure, end, tokens, alike;
} rd_calibration;

typedef struct rd_hole_options {
    rd_model *model;
    rd_kv_pool *pool;
    rd_edit_ids ids;
    const int32_t *banned; /* sorted; what must never be written, mask, delete and split apart */
    int n_banned;
    int32_t limit;
    const int32_t *
        stop; /* ids that end the hole, for models that cannot delete; not among `banned`; borrowed */
    int n_stop;
    float threshold;        /* fill a mask above */
    float length_threshold; /* delete or split a mask above */
    float doubt;            /* a filled slot whose probability falls below goes back to mask */
    float edit_threshold;   /* rewriting: another token above replaces a seeded one */
    int tokens_most;
    int tokens;                  /* the hole's length where it is known; 0: not */
    const rd_hole_draft *drafts; /* the best first; copied */
    int n_drafts;
    /* The first draft ends the run at once where it is right with more than the probability `take_draft`; at the
     * end the model's own text stands only where it is `lead` times likelier. */
    float take_draft, lead;
    rd_calibration own, drafted, copied; /* copied: a draft too long to score */
    const rd_cancel *cancel;
} rd_hole_options;

typedef struct rd_hole_run rd_hole_run;

/* `context` is a multiple of the block; all are copied. `seed` (may be empty) are the tokens that stand in
 * the span now. */
rd_status rd_hole_open(const rd_hole_options *o, const int32_t *context, int context_n,
                       const int32_t *seed, int seed_n, const int32_t *anchor, int anchor_n,
                       rd_hole_run **out, rd_error *err);
void rd_hole_close(rd_hole_run *h);

typedef enum rd_slot_state {
    RD_SLOT_MASK,
    RD_SLOT_FILLED,
    RD_SLOT_EDITED,
    RD_SLOT_SETTLED
} rd_slot_state;

typedef struct rd_slot {
    int32_t token;
    rd_slot_state state;
    float prob;
    int tries; /* how often it went back to mask */
    bool seeded;
    bool spare;  /* a mask that goes away unless the model is sure of it */
    int32_t was; /* of a seeded slot that is split: what stands behind the new mask */
} rd_slot;

/* One pass and its decision. *done: nothing is left to do. */
rd_status rd_hole_step(rd_hole_run *h, bool *done, rd_error *err);
/* No time is left: the draft, or the text as it stands without its masks. */
void rd_hole_end(rd_hole_run *h);
/* The hole as it stands: settled blocks first, then the open slots; borrowed until the next step. */
const rd_slot *rd_hole_slots(rd_hole_run *h, int *n);
float rd_hole_confidence(const rd_hole_run *h); /* that it is right as a whole, as it stands */
bool rd_hole_full(const rd_hole_run *h);        /* it ended because tokens_most was reached */
int rd_hole_forwards(const rd_hole_run *h);     /* over the open block; prefill is not counted */
int rd_hole_prefilled(const rd_hole_run *h);

#endif
