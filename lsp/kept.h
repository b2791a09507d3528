/* kept.h - suggestions that were made for places in a document, and what is left of them after typing.
 *
 * A suggestion holds as long as nothing changed but what was typed at its place and is how it begins. What the editor put
 * right of the cursor by itself (a closing bracket) is taken for a part of it. Whole values; one thread.
 */
#ifndef RD_LSP_KEPT_H
#define RD_LSP_KEPT_H

#include "core/base/buf.h"
#include "lsp/document.h"

enum { RD_KEPT_MOST = 8 };

typedef struct rd_kept {
    uint64_t serial, revision;
    size_t at, bytes; /* its place, and the document's size then */
    rd_buf text;
    float confidence;
} rd_kept;

/* A ring of them; a zeroed struct is empty. */
typedef struct rd_kept_ring {
    rd_kept list[RD_KEPT_MOST];
    int next;
} rd_kept_ring;

/* Keep a copy of a suggestion for `at` in the document as it was at `revision`, `bytes` long. */
void rd_kept_add(rd_kept_ring *k, uint64_t serial, uint64_t revision, size_t bytes, size_t at,
                 const char *text, size_t n, float confidence);
void rd_kept_clear(rd_kept_ring *k);
/* The newest that holds at `at`: what is left of it is appended to `rest`, never nothing, and stands for [at, *end) of the
 * document. NULL: none. */
const rd_kept *rd_kept_find(const rd_kept_ring *k, const rd_document *doc, size_t at, rd_buf *rest,
                            size_t *end);
const rd_kept *rd_kept_serial(const rd_kept_ring *k, uint64_t serial);
/* Where [at, at) of a kept one ends now that its whole text was put there; false when it was not, or not at once. */
bool rd_kept_is_accepted(const rd_kept *one, const rd_document *doc, size_t *end);

#endif
