/* rewrite.h - a model's text in the place of a document's: line ends there and back, and the smallest edits.
 *
 * Models learn from texts whose lines end in `\n`; a document's may end in `\r\n`. What is asked is made plain first, what
 * is answered is compared in the plain form, so that no line end changes that the model did not touch, and takes
 * the document's line ends where it is new. Pure; any thread.
 */
#ifndef RD_LSP_REWRITE_H
#define RD_LSP_REWRITE_H

#include "core/base/buf.h"
#include "lsp/text.h"

#include <stdbool.h>

/* [start, end) of a document's bytes becomes `text`. */
typedef struct rd_edit {
    size_t start, end;
    rd_buf text;
} rd_edit;

/* Edits of one text, which do not overlap. A zeroed struct has none. */
typedef struct rd_rewrite {
    rd_edit *edits;
    int n;
} rd_rewrite;

/* Add the edits that put an answer in the place of [start, end): none when it says the same. What ends with a line end still
 * does; what does not gets none, unless it was white space. An answer that leaves nothing of more than white space
 * is no answer. */
void rd_rewrite_add(rd_rewrite *r, const rd_text *t, size_t start, size_t end, const char *answer,
                    size_t n);
/* The same as one edit of the whole span: what stood there has nothing to do with what comes. */
void rd_rewrite_put(rd_rewrite *r, const rd_text *t, size_t start, size_t end, const char *answer,
                    size_t n);
void rd_rewrite_clear(rd_rewrite *r);

/* `\r\n` to `\n`, in place. */
void rd_rewrite_plain(rd_buf *text);
/* Where byte `at` of the plain form stands in `bytes`; a line end begins with its `\r`. */
size_t rd_rewrite_unplain(const char *bytes, size_t n, size_t at);

#endif
