/* document.h - the open documents of one connection: text, version, and what was edited lately.
 *
 * A document is *known* while its text is what the client has. When a change was lost, it is unknown and has no text
 * until the client opens it again. Every edit gets a revision of ours, since a client's versions may jump, stand still or go
 * back; a place in an older revision can be shifted over the edits since. Loop thread, or the front's only thread.
 */
#ifndef RD_LSP_DOCUMENT_H
#define RD_LSP_DOCUMENT_H

#include "core/base/status.h"
#include "lsp/text.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct rd_document rd_document;
typedef struct rd_documents rd_documents;

rd_documents *rd_documents_new(void);
void rd_documents_free(rd_documents *d);
/* All of them are unknown from now on: a frame was lost. */
void rd_documents_forget(rd_documents *d);
size_t rd_documents_count(const rd_documents *d);
rd_document *rd_documents_at(rd_documents *d, size_t i); /* in no order */
/* Borrowed until it is closed; NULL when it is not open. Unknown ones are found too. */
rd_document *rd_documents_find(rd_documents *d, const char *uri);

/* Open, or open again with a new text. Fails with RD_INVALID past a limit; then the document, where it can be kept at all, is
 * unknown. */
rd_status rd_documents_open(rd_documents *d, const char *uri, const char *language, int64_t version,
                            const char *text, size_t n, rd_error *err);
/* False when it was not open. */
bool rd_documents_close(rd_documents *d, const char *uri);

const char *rd_document_uri(const rd_document *doc);
const char *rd_document_language(const rd_document *doc);
bool rd_document_is_known(const rd_document *doc);
/* NULL while it is unknown. */
const rd_text *rd_document_text(const rd_document *doc);
int64_t rd_document_version(const rd_document *doc); /* as the client says */
uint64_t rd_document_revision(
    const rd_document *doc); /* of ours; every edit and every opening makes a new one */
/* Grows with every opening and edit of any document of the connection: who was edited last has the highest. */
uint64_t rd_document_touched(const rd_document *doc);
/* Behind the last edit that is remembered, else 0. */
size_t rd_document_last_edit(const rd_document *doc);
void rd_document_set_version(rd_document *doc, int64_t version);
void rd_document_forget(rd_document *doc);

/* Put `n` bytes in the place of [start, end), which must not be past the end. Does nothing to an unknown one. Fails with RD_INVALID
 * where the text would be over the limit: the document is unknown then. */
rd_status rd_document_edit(rd_document *doc, size_t start, size_t end, const char *bytes, size_t n,
                           rd_error *err);
/* The whole text anew, as the smallest edit. */
rd_status rd_document_set_text(rd_document *doc, const char *bytes, size_t n, rd_error *err);

/* Where [*start, *end) of `revision` is now. RD_STALE when an edit since then reached into it, when it is empty and
 * something was inserted just there, or when that is too long ago. */
rd_status rd_document_shift(const rd_document *doc, uint64_t revision, size_t *start, size_t *end);

#endif
