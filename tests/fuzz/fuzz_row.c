/* fuzz_row.c - libFuzzer: any bytes as the head of a row; what is accepted must be just what encoding makes. */
#include "cache/row.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n)
{
    int32_t tokens[RD_ROW_MOST_TOKENS];
    uint8_t again[RD_ROW_MOST_HEAD];
    rd_row row;
    rd_sum s;

    if (!rd_row_decode(data, n, &row)) return 0;
    rd_row_tokens(data, &row, tokens);
    if (!rd_row_of_tokens(data, &row, tokens, row.n_tokens)) __builtin_trap();
    row.tokens = tokens;
    if (!rd_row_sound(&row)) __builtin_trap();
    if (rd_row_encode(&row, again) != n || memcmp(again, data, n) != 0) __builtin_trap();
    if (rd_row_stored_bytes(row.bytes) < row.bytes) __builtin_trap();
    rd_row_sum_begin(&s, &row, tokens, &(rd_key){ { 1 } }, &(rd_key){ { 2 } }, &(rd_key){ { 3 } });
    rd_sum_add(&s, data, n);
    return rd_sum_end(&s) == 1;
}
