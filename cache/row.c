/* row.c - the head's bytes, little end first:
 *
 *   0 version, 1 kind, 2 tokens (2 bytes), 4 format (4), 8 payload bytes (8), 16 sum (8), 24 tokens (4 each)
 */
#include "cache/row.h"

#include <string.h>

enum {
    VERSION = 1,
    /* A page and SQLite's rule for how much of a row stands in the table's own page, the rest being in a chain of others. */
    PAGE = 65536,
    MOST_LOCAL = PAGE - 35,
    LEAST_LOCAL = (PAGE - 12) * 32 / 255 - 23,
    CHAINED = PAGE - 4,
    HALF = PAGE / 2
};

static void put(uint8_t *to, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++) to[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t get(const uint8_t *from, int bytes)
{
    uint64_t value = 0;

    for (int i = 0; i < bytes; i++) value |= (uint64_t)from[i] << (8 * i);
    return value;
}

static bool sound_sizes(int kind, uint64_t format, uint64_t n_tokens, uint64_t bytes)
{
    if (format > RD_ROW_MOST_FORMAT || n_tokens > RD_ROW_MOST_TOKENS) return false;
    if (kind == RD_ROW_BLOCK) return n_tokens > 0 && bytes > 0 && bytes <= RD_ROW_MOST_BYTES;
    return kind == RD_ROW_ANSWER && !n_tokens && !format && bytes <= RD_ROW_MOST_ANSWER;
}

bool rd_row_sound(const rd_row *row)
{
    if (row->n_tokens < 0 || row->format < 0) return false;
    if (!sound_sizes(row->kind, (uint64_t)row->format, (uint64_t)row->n_tokens, row->bytes))
        return false;
    for (int i = 0; i < row->n_tokens; i++)
        if (row->tokens[i] < 0) return false;
    return true;
}

size_t rd_row_encode(const rd_row *row, uint8_t out[RD_ROW_MOST_HEAD])
{
    out[0] = VERSION;
    out[1] = (uint8_t)row->kind;
    put(out + 2, (uint64_t)row->n_tokens, 2);
    put(out + 4, (uint64_t)row->format, 4);
    put(out + 8, row->bytes, 8);
    put(out + 16, row->sum, 8);
    for (int i = 0; i < row->n_tokens; i++)
        put(out + RD_ROW_FIXED + 4 * i, (uint32_t)row->tokens[i], 4);
    return RD_ROW_FIXED + 4 * (size_t)row->n_tokens;
}

bool rd_row_decode(const uint8_t *head, size_t n, rd_row *out)
{
    if (n < RD_ROW_FIXED || head[0] != VERSION) return false;
    uint64_t n_tokens = get(head + 2, 2), format = get(head + 4, 4), bytes = get(head + 8, 8);

    if (!sound_sizes(head[1], format, n_tokens, bytes)) return false;
    if (n != RD_ROW_FIXED + 4 * n_tokens) return false;
    for (uint64_t i = 0; i < n_tokens; i++)
        if (get(head + RD_ROW_FIXED + 4 * i, 4) > INT32_MAX) return false;
    *out = (rd_row){ .kind = head[1],
                     .format = (int)format,
                     .n_tokens = (int)n_tokens,
                     .bytes = (size_t)bytes,
                     .sum = get(head + 16, 8) };
    return true;
}

bool rd_row_of_tokens(const uint8_t *head, const rd_row *row, const int32_t *tokens, int n)
{
    if (row->n_tokens != n) return false;
    for (int i = 0; i < n; i++)
        if (get(head + RD_ROW_FIXED + 4 * i, 4) != (uint32_t)tokens[i]) return false;
    return true;
}

void rd_row_tokens(const uint8_t *head, const rd_row *row, int32_t *out)
{
    for (int i = 0; i < row->n_tokens; i++) out[i] = (int32_t)get(head + RD_ROW_FIXED + 4 * i, 4);
}

/* How much of a row SQLite keeps in the table's own page. The record has two columns: no bytes, and the blob, whose length is
 * told in one to four bytes. */
static size_t local_bytes(size_t blob)
{
    uint64_t type = 2 * (uint64_t)blob + 12;
    size_t record = blob + 2 + (type < 1 << 7 ? 1 : type < 1 << 14 ? 2 : type < 1 << 21 ? 3 : 4);
    size_t rest;

    if (record <= MOST_LOCAL) return record;
    rest = LEAST_LOCAL + (record - LEAST_LOCAL) % CHAINED;
    return rest <= MOST_LOCAL ? rest : LEAST_LOCAL;
}

size_t rd_row_stored_bytes(size_t bytes)
{
    for (size_t local; (local = local_bytes(bytes)) < HALF;) bytes += HALF - local;
    return bytes;
}

void rd_row_sum_begin(rd_sum *s, const rd_row *row, const int32_t *tokens, const rd_key *model,
                      const rd_key *key, const rd_key *source)
{
    rd_row named = *row;
    uint8_t head[RD_ROW_MOST_HEAD];

    named.sum = 0;
    named.tokens = tokens;
    rd_sum_begin(s);
    rd_sum_add(s, model->byte, sizeof model->byte);
    rd_sum_add(s, key->byte, sizeof key->byte);
    rd_sum_add(s, source->byte, sizeof source->byte);
    rd_sum_add(s, head, rd_row_encode(&named, head));
}
