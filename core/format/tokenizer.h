/* tokenizer.h - tokenizer.json: text to tokens and back. Byte-level BPE.
 *
 * Two ways to encode. RD_TEXT_PLAIN is for everything that comes from a user or a file: added
 * tokens are not recognised, so that source which contains "<|mask|>" is just text. RD_TEXT_ADDED
 * cuts added tokens out first, as the reference tokenizer does. Only layouts and templates insert
 * control ids. Read-only once open: any thread.
 */
#ifndef RD_FORMAT_TOKENIZER_H
#define RD_FORMAT_TOKENIZER_H

#include "core/base/buf.h"
#include "core/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct rd_tokenizer rd_tokenizer;

typedef enum rd_text_kind { RD_TEXT_PLAIN, RD_TEXT_ADDED } rd_text_kind;

rd_status rd_tokenizer_open(const char *dir, rd_tokenizer **out, rd_error *err);
rd_status rd_tokenizer_parse(const char *json, size_t n, const char *name, rd_tokenizer **out,
                             rd_error *err);
void rd_tokenizer_close(rd_tokenizer *t);

/* One above the largest id. */
int rd_tokenizer_size(const rd_tokenizer *t);
/* The id of an added token's content or, failing that, of a vocabulary entry spelled in the file's
 * own byte alphabet; -1 when absent. */
int32_t rd_tokenizer_id(const rd_tokenizer *t, const char *content);
/* Added tokens are control ids as far as a decoder is concerned: it must not produce them. */
bool rd_tokenizer_is_added(const rd_tokenizer *t, int32_t id);
/* The raw bytes of one token (not necessarily whole characters); NULL for an unknown id. */
const char *rd_tokenizer_bytes(const rd_tokenizer *t, int32_t id, size_t *n);

/* Append the ids of `n` bytes of text. Any bytes are accepted; invalid UTF-8 is encoded byte by
 * byte and comes back the same. Fails (RD_INVALID) only when a limit of the pattern is hit. */
rd_status rd_tokenizer_encode(const rd_tokenizer *t, const char *text, size_t n, rd_text_kind kind,
                              rd_ids *out, rd_error *err);
/* Append the exact bytes of the ids. Unknown ids are left out. `skip_special` drops added tokens
 * that are marked special. */
void rd_tokenizer_decode(const rd_tokenizer *t, const int32_t *ids, int n, bool skip_special,
                         rd_buf *out);
/* Append `n` bytes with each maximal invalid UTF-8 sequence replaced by U+FFFD. */
void rd_utf8_repair(const char *bytes, size_t n, rd_buf *out);

#endif
