/* sync.h - didOpen, didChange and didClose as the client sends them, applied to the documents.
 *
 * A change that cannot be read would leave a wrong text behind, so it makes its document unknown, or all of them where
 * it does not say which. Nothing is sent and nothing logged: the outcome says what a log line would.
 */
#ifndef RD_LSP_SYNC_H
#define RD_LSP_SYNC_H

#include "lsp/document.h"
#include "lsp/utf8.h"

#include <jansson.h>

typedef enum rd_sync {
    RD_SYNC_DONE,
    RD_SYNC_VERSION_BACK, /* done, though the version did not grow */
    RD_SYNC_NOT_OPEN,     /* dropped: no such document */
    RD_SYNC_UNKNOWN,      /* dropped: the document is unknown until it is opened again */
    RD_SYNC_LOST          /* could not be read or is over a limit; err says why; unknown now */
} rd_sync;

/* `params` are those of the notification, NULL for none. */
rd_sync rd_sync_open(rd_documents *d, const json_t *params, rd_error *err);
rd_sync rd_sync_change(rd_documents *d, const json_t *params, rd_encoding e, rd_error *err);
rd_sync rd_sync_close(rd_documents *d, const json_t *params, rd_error *err);

/* Typed values out of params, for these and for other methods. `name` is the field for the sentence of RD_INVALID.
 * A line or column may be any number that is not negative; what is too large for the type is its most. */
rd_status rd_sync_position(const json_t *value, const char *name, rd_position *out, rd_error *err);
/* The end is not before the start: a range that is the wrong way round is turned. */
rd_status rd_sync_range(const json_t *value, const char *name, rd_position *start, rd_position *end,
                        rd_error *err);
/* textDocument.uri, borrowed. */
rd_status rd_sync_uri(const json_t *params, const char **out, rd_error *err);

#endif
