/* hole.h - a hole between a context and an anchor: canvases of several lengths, of which one is kept.
 *
 * canvas.h says how one canvas grows, shrinks and fills. When a canvas has filled its block it is committed and
 * the hole goes on in the next block, as the model was trained. The same run, seeded with tokens, rewrites a
 * span.
 *
 * The first pass computes the prompt's last blocks and looks at several canvases at once, as branches: drafts
 * (what the file itself would put there), each scored by the probability that the model keeps it whole, and
 * several lengths. A model with delete and split ids says of each length whether masks are missing or too many;
 * the likeliest lengths then go on side by side over the same context, and fall out when they can no longer
 * be the likeliest text. For a model without these ids one length is kept (CAL, arXiv 2602.00476). At the
 * end the model's own text stands where it is much likelier than the draft.
 *
 * One thread.
 */
#ifndef RD_DECODE_HOLE_H
#define RD_DECODE_HOLE_H

#include "core/decode/canvas.h"

enum { RD_HOLE_DRAFTS_MOST = 5, RD_HOLE_CANVASES_MOST = 6 };

/* A text that may belong into the hole. One that fits a block with its anchor is scored by the model;
 * a longer one stands by `alike` alone. */
typedef struct rd_hole_draft {
    const int32_t *id;
    int n;
    float alike; /* what its surroundings say (draft.h) */
} rd_hole_draft;

/* The probability that a text is right as a whole: 1 / (1 + exp(-x)) with
 * x = base + sure * S + length * L + end * E + tokens * n + alike * A, S the sum of the logarithms of its n tokens'
 * probabilities (own text: when they were chosen), L that of its length being right, E that of nothing
 * being missing behind a draft, A a draft's `alike`. Fitted on held-out holes. */
typedef struct rd_calibration {
    float base, sure, length, end, tokens, alike;
} rd_calibration;

typedef struct rd_hole_options {
    rd_model *model;
    rd_kv_pool *pool;
    rd_kv_exchange *exchange; /* NULL: the pool alone */
    rd_kv_origin origin;      /* of the blocks */
    /* Ids, stops, thresholds and tokens_most are the caller's; block, anchor and the kind of run are filled in. Stop
     * ids are not among `banned`. */
    rd_canvas_rules rules;
    const int32_t *banned; /* sorted; what must never be written, mask, delete and split apart */
    int n_banned;
    int32_t limit;
    int tokens;   /* the hole's length where it is known; 0: not */
    int canvases; /* lengths that go on side by side; below 2: one, which starts with a guess */
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

/* One pass and its decision. *done: nothing is left to do. */
rd_status rd_hole_step(rd_hole_run *h, bool *done, rd_error *err);
/* No time is left: the draft, or the text as it stands without its masks. */
void rd_hole_end(rd_hole_run *h);
/* The hole as it stands on its likeliest canvas: settled blocks first, then the open slots; borrowed until the
 * next step. */
const rd_slot *rd_hole_slots(rd_hole_run *h, int *n);
float rd_hole_confidence(const rd_hole_run *h); /* that it is right as a whole, as it stands */
bool rd_hole_full(const rd_hole_run *h);        /* it ended because tokens_most was reached */
int rd_hole_forwards(const rd_hole_run *h);     /* over the open block; prefill is not counted */
int rd_hole_prefilled(const rd_hole_run *h);

/* A text that a run weighed, and what its probability is reckoned from (rd_calibration). */
typedef struct rd_hole_text {
    double sure, length, end; /* S, L, E */
    double alike;
    int tokens;
    float right; /* what this run makes of them: rd_hole_confidence, were it the hole's text */
    bool draft, scored;
} rd_hole_text;

/* Text `i` of a finished run: those of its canvases, then the drafts. Its ids are appended. False: there
 * are no more. */
bool rd_hole_text_at(const rd_hole_run *h, int i, rd_hole_text *out, rd_ids *ids);

#endif
