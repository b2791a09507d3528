/* edits.h - delete and split: how slots, pins and flags shift inside a block (LLaDA2.2).
 *
 * A slot that holds the delete id is removed; the split id becomes a mask followed by the token that stood
 * there before. Pins and flags move with their slots. Pure functions on values.
 * Source: LLaDA2.2 technical report section 3.1.
 */
#ifndef RD_DECODE_EDITS_H
#define RD_DECODE_EDITS_H

#include "core/decode/block.h"

typedef struct rd_edit_ids {
    int32_t mask, del, split; /* del and split: -1 where the model has none */
} rd_edit_ids;

/* The reference's form: the block keeps its size, what leaves at the end is lost, room at the end is
 * filled with masks that are not original. `before` are the tokens before the pass (what a split puts
 * back). Returns the number of edits applied. */
int rd_edits_apply(rd_block *b, const int32_t *before, const rd_edit_ids *ids);

#endif
