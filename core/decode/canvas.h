/* canvas.h - one canvas of a hole: slots that are filled, doubted, deleted and split until they fit.
 *
 * The open block is `[slots of the hole][anchor, pinned]`. A mask may become a token, be deleted, or split in
 * two; a split moves the anchor right (its last tokens leave the block), a delete moves it left and more
 * of it comes in. A filled slot that the model doubts goes back to mask. A canvas that leaves fewer than
 * RD_ANCHOR_LEAST slots for the anchor fills its block alone. The anchor is never written. A canvas seeded with
 * tokens rewrites them: a token is kept, changed, deleted, or gets a mask before it, and a spare mask behind
 * the last stands for what may be missing there.
 *
 * Pure decisions: who runs the passes is hole.c. One thread.
 */
#ifndef RD_DECODE_CANVAS_H
#define RD_DECODE_CANVAS_H

#include "core/decode/decoder.h"

enum { RD_ANCHOR_LEAST = 8, RD_HOLE_BLOCK_MOST = 64 };

typedef enum rd_slot_state {
    RD_SLOT_MASK,
    RD_SLOT_FILLED,
    RD_SLOT_EDITED,
    RD_SLOT_SETTLED
} rd_slot_state;

typedef struct rd_slot {
    int32_t token;
    rd_slot_state state;
    float prob;   /* as the last pass saw it */
    float chosen; /* when it was filled: what its neighbours spoke for before it stood there */
    int tries;    /* how often it went back to mask */
    bool seeded;
    bool spare;  /* a mask that goes away unless the model is sure of it */
    int32_t was; /* of a seeded slot that is split: what stands behind the new mask */
} rd_slot;

/* What decides; the same for all canvases of a hole. */
typedef struct rd_canvas_rules {
    rd_edit_ids ids;
    const int32_t *stop; /* ids that end the hole, for models that cannot delete; borrowed */
    int n_stop;
    float threshold;        /* fill a mask above */
    float length_threshold; /* delete or split a mask above */
    float doubt;            /* a filled slot whose probability falls below goes back to mask */
    float edit_threshold;   /* rewriting: another token above replaces a seeded one */
    int tokens_most;
    int block;
    const int32_t *anchor; /* what follows the hole; borrowed */
    int anchor_n;
    bool fixed;     /* the length is known and stays */
    bool rewriting; /* the canvas was seeded */
} rd_canvas_rules;

typedef struct rd_canvas {
    rd_slot *slots;
    int n, cap;
    int settled;         /* slots of finished blocks, at the front */
    bool done, full;     /* full: it ended because tokens_most was reached */
    bool settled_length; /* of the open block: no more deletes and splits */
    int last_edit,
        turns;          /* of the open block: its last delete (-1) or split (1); changes of mind */
    int passes, checks; /* of the open block */
    float length;       /* the probability that its first length was right; 1 where nobody asked */
} rd_canvas;

/* The rows of the open block in a pass: slots of the hole, then the anchor. */
typedef struct rd_window {
    int32_t token[RD_HOLE_BLOCK_MOST], watched[RD_HOLE_BLOCK_MOST];
    int slots, rows;
    bool whole; /* no anchor: the hole fills the block */
} rd_window;

void rd_canvas_clear(rd_canvas *c);
void rd_canvas_add_masks(rd_canvas *c, const rd_canvas_rules *k, int n);
/* Seeded tokens, and a spare mask behind them where the model can insert. */
void rd_canvas_seed(rd_canvas *c, const rd_canvas_rules *k, const int32_t *tokens, int n);
/* Finished text, as it is. */
void rd_canvas_set(rd_canvas *c, const int32_t *tokens, int n);

/* The open block as it goes into a pass. A block that the hole fills alone gets masks up to its end. */
void rd_canvas_compose(rd_canvas *c, const rd_canvas_rules *k, rd_window *w);
/* Tokens of another text in the same place: `n` slots, the anchor behind them. */
void rd_window_set(const rd_canvas_rules *k, const int32_t *tokens, int n, rd_window *w);

/* What the picks of the window's slots change. Returns true where a block of the hole is full and settled: the
 * caller commits it and calls rd_canvas_next_block. */
bool rd_canvas_decide(rd_canvas *c, const rd_canvas_rules *k, const rd_window *w,
                      const rd_pick *picks);
/* What is left over stands in the next block. */
void rd_canvas_next_block(rd_canvas *c, const rd_canvas_rules *k);
/* No time is left: the text as it stands without its masks. Returns whether there were none. */
bool rd_canvas_end(rd_canvas *c);

/* Sum of the logarithms of its slots' probabilities, as they were chosen or as they stand; masks count as sure. */
double rd_canvas_chosen(const rd_canvas *c);
double rd_canvas_stands(const rd_canvas *c);
double rd_log_of(float p); /* never below that of one in a million */

#endif
