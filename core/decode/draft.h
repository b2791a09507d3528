/* draft.h - what the file itself would put into a hole: lines whose neighbours are like the hole's.
 *
 * A line of the file is a draft where what stands above and below it is like what stands above and below
 * the cursor, and where it shows what the cursor's own line already shows: the draft is the rest of that
 * line, up to what stands right of the cursor. Where the line below the cursor's stands a few lines
 * below the found one, all lines between are a second draft. Lines of other texts (open files, what was edited
 * lately) are drafts too; they count as further away than any of the file's own. The model then says how
 * likely each is.
 *
 * Pure functions of bytes; training (similar lines as drafts to be edited) and use call the same. Any thread.
 */
#ifndef RD_DECODE_DRAFT_H
#define RD_DECODE_DRAFT_H

#include "core/base/buf.h"

#include <stddef.h>

enum { RD_DRAFTS_MOST = 4, RD_DRAFT_TEXTS_MOST = 4 };

typedef struct rd_draft {
    rd_buf text;
    float alike; /* how much its surroundings speak for it; comparable within one hole */
} rd_draft;

typedef struct rd_draft_text {
    const char *text;
    size_t bytes;
} rd_draft_text;

/* A hole in a file, and other texts: the most telling first. All borrowed. */
typedef struct rd_draft_place {
    const char *prefix, *suffix;
    size_t prefix_bytes, suffix_bytes;
    rd_draft_text others[RD_DRAFT_TEXTS_MOST];
    int n_others;
} rd_draft_place;

/* Fill `out` with up to `most` different drafts, the most alike first; returns their number. Texts are
 * the caller's, to be cleared with rd_drafts_clear. Only the lines near the hole are looked at (some 64 KB on
 * each side), and the first 64 KB of each other text, 4096 lines of them all. */
int rd_drafts_find(const rd_draft_place *at, rd_draft *out, int most);
void rd_drafts_clear(rd_draft *drafts, int n);

#endif
