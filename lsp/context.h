/* context.h - an open document and a place in it to the parts of a request.
 *
 * Bytes only: core cuts to tokens. Prefix and suffix are cut to a budget, the suffix at a line start, the prefix so that the cut to
 * tokens stays where it would be with the whole text and a cached prompt is found again. Neighbours are other open documents and what was edited lately, none of them excluded; they never
 * stand in the model's prompt before the file's own text, so that they break no cached prefix. Loop thread.
 */
#ifndef RD_LSP_CONTEXT_H
#define RD_LSP_CONTEXT_H

#include "lsp/document.h"
#include "lsp/job.h"
#include "lsp/settings.h"

/* Fill the job's language, prefix, draft, suffix and neighbours for [start, end) of `doc`; all but the draft with `\n` line ends. `all`: the connection's documents;
 * `scope` says which of them may be read. */
void rd_context_fill(rd_job *job, const rd_document *doc, size_t start, size_t end,
                     rd_documents *all, rd_scope *scope);

#endif
