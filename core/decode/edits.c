/* edits.c - one walk over the slots, writing into a new block. */
#include "core/decode/edits.h"

static void put(rd_block *out, const rd_block *from, int i, int32_t token, bool original)
{
    if (out->size == from->size) return; /* the tail falls off */
    out->token[out->size] = token;
    out->pinned[out->size] = i >= 0 && from->pinned[i];
    out->original[out->size] = original;
    out->prob[out->size] = i >= 0 ? from->prob[i] : 0.0f;
    out->size++;
}

int rd_edits_apply(rd_block *b, const int32_t *before, const rd_edit_ids *ids)
{
    rd_block out = { .size = 0 };
    int edits = 0;

    if (ids->del < 0 && ids->split < 0) return 0;
    for (int i = 0; i < b->size; i++) {
        bool free_slot = !b->pinned[i];

        if (free_slot && b->token[i] == ids->del) {
            edits++;
        } else if (free_slot && b->token[i] == ids->split) {
            edits++;
            put(&out, b, -1, ids->mask, false);
            put(&out, b, i, before[i], b->original[i]);
        } else {
            put(&out, b, i, b->token[i], b->original[i]);
        }
    }
    while (out.size < b->size) put(&out, b, -1, ids->mask, false);
    *b = out;
    return edits;
}
