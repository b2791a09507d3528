/* record.h - JSON from outside as plain values, for callers that must not know the JSON library.
 *
 * A document is parsed once, with json.h's limits; values are borrowed views of it. Asking a value for
 * what it is not gives the default: a caller checks what it needs. Read-only: any thread.
 */
#ifndef RD_FORMAT_RECORD_H
#define RD_FORMAT_RECORD_H

#include "core/base/buf.h"
#include "core/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct rd_record rd_record; /* a parsed document */
typedef const void *rd_value;       /* a value of it; NULL: absent */

/* A file of ours: recorded answers may be large. */
rd_status rd_record_read(const char *path, rd_record **out, rd_error *err);
/* Text from outside: a request, a small file of a model. At most 200,000 values. */
rd_status rd_record_parse(const char *text, size_t n, const char *name, rd_record **out,
                          rd_error *err);
void rd_record_free(rd_record *r);
rd_value rd_record_top(const rd_record *r);

rd_value rd_value_get(rd_value object, const char *key);
rd_value rd_value_at(rd_value array, int i);
int rd_value_count(rd_value array); /* 0 when it is no array */
/* Key i of an object, or NULL. Linear: for small objects. */
const char *rd_value_key(rd_value object, int i);

bool rd_value_is_null(rd_value v); /* absent or null */
bool rd_value_is_text(rd_value v);
int64_t rd_value_int(rd_value v, int64_t fallback);
double rd_value_number(rd_value v, double fallback);
bool rd_value_bool(rd_value v, bool fallback);
/* The bytes of a string (may hold NULs); NULL when it is none. */
const char *rd_value_text(rd_value v, size_t *n);
/* Append an array of integers; false when it is none or one is out of int32. */
bool rd_value_ids(rd_value v, rd_ids *out);

/* Append the value as JSON text. */
void rd_value_write(rd_value v, rd_buf *out);
/* Append `n` bytes as a JSON string with quotes; bytes that are not UTF-8 become U+FFFD. */
void rd_json_quote(rd_buf *out, const char *text, size_t n);

#endif
