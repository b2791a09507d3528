/* json.h - outside JSON to jansson values, with limits.
 *
 * jansson spends up to 220 bytes on one small value, so the values of a text are counted before it
 * sees the text. Keys that repeat are refused. Only core/format includes this.
 */
#ifndef RD_FORMAT_JSON_H
#define RD_FORMAT_JSON_H

#include "core/base/status.h"

#include <jansson.h>
#include <stddef.h>

/* Parse `n` bytes with at most `max_values` values; the top must be an object. `name` is for
 * messages. The caller gives the result back with json_decref. */
rd_status rd_json_parse(const char *text, size_t n, size_t max_values, const char *name,
                        json_t **out, rd_error *err);
/* The same from a file of at most `max_bytes`. */
rd_status rd_json_read(const char *path, size_t max_bytes, size_t max_values, json_t **out,
                       rd_error *err);

#endif
