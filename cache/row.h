/* row.h - the head of a row: what its payload is, and of which tokens.
 *
 * The bytes come from a file that anybody may have written. Decoding accepts exactly what encoding makes, and nothing of
 * what it accepts is larger than the limits below. Pure; any thread.
 */
#ifndef RD_CACHE_ROW_H
#define RD_CACHE_ROW_H

#include "cache/sum.h"
#include "core/base/key.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    RD_ROW_BLOCK = 1, /* these two stand in files */
    RD_ROW_ANSWER = 2,
    RD_ROW_MOST_TOKENS = 256,
    RD_ROW_MOST_FORMAT = 65535,
    RD_ROW_MOST_BYTES = 64 << 20, /* of a block's payload */
    RD_ROW_MOST_ANSWER = 1 << 20,
    RD_ROW_FIXED = 24, /* bytes before the tokens */
    RD_ROW_MOST_HEAD = RD_ROW_FIXED + 4 * RD_ROW_MOST_TOKENS
};

typedef struct rd_row {
    int kind, format, n_tokens;
    size_t bytes; /* of the payload */
    uint64_t sum;
    const int32_t
        *tokens; /* of encode; decode leaves it NULL, the tokens stand in the head's bytes */
} rd_row;

/* False: too many tokens, a negative one, a payload too large or a format out of range. */
bool rd_row_sound(const rd_row *row);
/* `row` must be sound. Returns the number of bytes. */
size_t rd_row_encode(const rd_row *row, uint8_t out[RD_ROW_MOST_HEAD]);
bool rd_row_decode(const uint8_t *head, size_t n, rd_row *out);
/* Whether a head that was decoded is of just these tokens. */
bool rd_row_of_tokens(const uint8_t *head, const rd_row *row, const int32_t *tokens, int n);
/* Its tokens; room for row->n_tokens. */
void rd_row_tokens(const uint8_t *head, const rd_row *row, int32_t *out);

/* How many bytes stand in the file for a block's payload: enough that no two share a page of the table, so that a row that
 * goes takes every copy of its bytes with it (a page that two rows share may keep a part of one that was moved). */
size_t rd_row_stored_bytes(size_t bytes);

/* Begin the sum of a payload: it covers all that names the row, so that a payload under another's name is wrong. */
void rd_row_sum_begin(rd_sum *s, const rd_row *row, const int32_t *tokens, const rd_key *model,
                      const rd_key *key, const rd_key *source);

#endif
