/* flags.h - the doubtful words that a client shows as diagnostics, and where they are now.
 *
 * Each document has one list. A flag moves with the edits around it and is gone with the first one inside it; the client
 * moves what it shows by itself, so it is told of losses only. Loop thread.
 */
#ifndef RD_LSP_FLAGS_H
#define RD_LSP_FLAGS_H

#include "lsp/doubt.h"
#include "lsp/peer.h"

typedef struct rd_flags rd_flags;

rd_flags *rd_flags_new(rd_lsp *l);
void rd_flags_free(rd_flags *f); /* sends nothing */
/* The flags of a document from now on, instead of those in [start, end). Doubts count from `start` in the plain form of
 * what stands there (rewrite.h). */
void rd_flags_set(rd_flags *f, const rd_document *doc, size_t start, size_t end,
                  const rd_doubt *doubts, int n);
void rd_flags_changed(rd_flags *f, const rd_document *doc);
void rd_flags_drop(rd_flags *f, const char *uri); /* none any more */
/* From the first to the last byte of the flags that touch [*start, *end); false when none does. */
bool rd_flags_at(const rd_flags *f, const rd_document *doc, size_t *start, size_t *end);

#endif
