/* repair.h - the bytes of a frame to JSON values: counted, repaired, parsed, in that order.
 *
 * Clients send what the JSON library refuses: halves of surrogate pairs (VS Code), bytes that are not UTF-8 (Neovim 0.7),
 * NULs. Refusing means a lost edit and a document that is wrong from then on, so they are repaired, each to something that
 * counts as many units as it did for the client, and positions stay right. Values and depth are counted before the
 * library sees them. Long strings of document text ("text", "prefix", "suffix") go round it, because it takes 15 ms for a
 * megabyte; what is left is capped. Pure; any thread.
 */
#ifndef RD_LSP_REPAIR_H
#define RD_LSP_REPAIR_H

#include "core/base/buf.h"
#include "core/base/status.h"
#include "lsp/utf8.h"

#include <jansson.h>
#include <stddef.h>

/* Parse a frame; any JSON value may stand at the top. `encoding` is what positions of the connection count: a
 * byte that is not UTF-8 becomes U+FFFD, or '?' where columns are bytes. The caller gives the result back with json_decref. Fails
 * with RD_INVALID and leaves *out alone. */
rd_status rd_repair_parse(const char *frame, size_t n, rd_encoding encoding, json_t **out,
                          rd_error *err);
/* Append `n` bytes as UTF-8, repaired in the same way. */
void rd_repair_text(const char *bytes, size_t n, rd_encoding encoding, rd_buf *out);
/* A JSON string of any bytes. */
json_t *rd_repair_string(const char *bytes, size_t n);

#endif
