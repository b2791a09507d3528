/* objective.h - what the model is asked: rows of a pack, made from tokens of a document.
 *
 * Three questions. Next token: the doubled sequence with blocks of one. Blocks: the doubled sequence
 * with a share of each block masked, and a share of the visible tokens wrong. Hole: the editor's
 * layout, a hole whose canvas has the true length, is too long (surplus masks are labelled delete)
 * or too short (a mask that stands for several tokens is labelled split, as a split turns one mask
 * into two). A run of masks that is too long or too short shows it at its end. A draft in the hole is
 * to be edited: each of its tokens is kept, replaced, deleted, or split (what is missing stands before
 * it); one mask behind it stands for what is missing at its end.
 *
 * Pure functions of tokens and a random state; any thread.
 * Source: arXiv 2512.15745 section 4; the layout is that of docs/training.md.
 */
#ifndef RD_TRAIN_OBJECTIVE_H
#define RD_TRAIN_OBJECTIVE_H

#include "core/base/buf.h"
#include "core/base/random.h"
#include "core/train/backward.h"

enum { RD_TASK_NEXT, RD_TASK_HOLE, RD_TASK_BLOCK, RD_TASK_EDIT };

enum { RD_TOKEN_CONTROL = 1, RD_TOKEN_NEWLINE = 2 }; /* flags of a token */

/* How questions are asked, and what an answer weighs. Shares lie in 0 to 1. */
typedef struct rd_objective_options {
    float rate_least, rate_most; /* a block's share of masks is clipped to these, and to one mask */
    float rate_middle;           /* share of the blocks whose rate lies in 0.3 to 0.8 */
    float rate_weight; /* a mask weighs one over the rate, at most so much; 1: no weight */
    float canvas_full; /* share of the canvases that are all masks */
    float canvas_short, canvas_long; /* share that has too few masks, too many */
    bool lengths; /* delete and split are labels; else canvases have the true length */
    float keep_weight, length_weight, draft_length_weight;
} rd_objective_options;

rd_objective_options rd_objective_defaults(void);

/* The ids that layouts insert, and flags for each token; borrowed. */
typedef struct rd_objective_tokens {
    int32_t mask, del, split, suffix, prefix, fill;
    const uint8_t *flags; /* [vocab] */
    int vocab;
    const rd_objective_options *options; /* NULL: the defaults */
} rd_objective_tokens;

typedef struct rd_rows {
    rd_train_row *row;
    int n, cap;
} rd_rows;

void rd_rows_clear(rd_rows *r);

/* The doubled sequence with blocks of one. Adds 2 n - 1 rows; control ids get no label. */
void rd_rows_next_token(rd_rows *r, const rd_objective_tokens *t, const int32_t *ids, int n);

typedef struct rd_noise {
    int block;
    bool pair; /* a second copy masks what the first shows */
    /* [n] what stands in a token's place where it is visible, -1: itself; all visible tokens are labelled then.
     * NULL: none, and they are not. */
    const int32_t *instead;
} rd_noise;

/* The doubled sequence with masked blocks. */
void rd_rows_blocks(rd_rows *r, const rd_objective_tokens *t, const rd_noise *noise,
                    const int32_t *ids, int n, rd_random *random);

/* What should become of a draft's tokens, by a longest common subsequence with the text: label [n + 1],
 * the last one for the mask behind the draft. A kept token is labelled by itself. */
void rd_draft_labels(const rd_objective_tokens *t, const int32_t *draft, int n, const int32_t *text,
                     int text_n, int32_t *label);

/* A text that stands in the hole in the place of its tokens [done, until), until 0 being all the rest. `done` is a multiple
 * of the block. A text that leaves no room for the mask behind it fills its block. */
typedef struct rd_draft_ids {
    const int32_t *id;
    int n, done, until;
} rd_draft_ids;

typedef struct rd_hole {
    const int32_t
        *context; /* [context_n], a multiple of the block: up to and with the echo; may be empty */
    int context_n;
    const int32_t *text; /* what belongs into the hole; may be empty */
    int text_n;
    const int32_t *anchor; /* what follows the hole: at least a block of tokens, or all there is */
    int anchor_n;
    int block;
    int versions;               /* noisy copies of each block of the hole */
    const rd_draft_ids *drafts; /* each is a copy more */
    int n_drafts;
    int context_copies; /* so many of the context's blocks are asked for too, partly masked */
} rd_hole;

void rd_rows_hole(rd_rows *r, const rd_objective_tokens *t, const rd_hole *hole, rd_random *random);

#endif
