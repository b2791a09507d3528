/* diff.h - the edits from one text to another, in whole words.
 *
 * Both texts are cut into pieces (a word, a run of spaces, any other character), what is common at both
 * ends is set aside, and the rest is aligned by a longest common subsequence; where that would be too much work
 * the rest is one edit. No edit cuts a UTF-8 character. For people there is the unified form. Pure; any thread.
 */
#ifndef RD_BASE_DIFF_H
#define RD_BASE_DIFF_H

#include "core/base/buf.h"

#include <stddef.h>

/* old[start, end) becomes fresh[from, to). */
typedef struct rd_text_edit {
    size_t start, end, from, to;
} rd_text_edit;

/* Ascending edits that do not overlap or touch; none when the texts are equal. *out is the caller's to free
 * with free(). Returns their number. */
int rd_diff_texts(const char *old, size_t n, const char *fresh, size_t m, rd_text_edit **out);

/* Of a text, [start, end) becomes `fresh`. */
typedef struct rd_text_change {
    const char *text, *fresh;
    size_t bytes, start, end, fresh_bytes;
} rd_text_change;

/* The change as a unified diff of the file `name`, in whole lines: appended; nothing where it changes nothing. */
void rd_diff_unified(const rd_text_change *c, const char *name, rd_buf *out);

#endif
