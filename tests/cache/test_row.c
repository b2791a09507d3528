/* test_row.c - the head of a row: what encoding makes is decoded, and nothing else. */
#include "cache/row.h"
#include "core/base/random.h"

#include <criterion/criterion.h>
#include <string.h>

static const int32_t tokens[] = { 0, 1, 157184, INT32_MAX };

static rd_row good(void)
{
    return (rd_row){ .kind = RD_ROW_BLOCK,
                     .format = 3,
                     .n_tokens = 4,
                     .bytes = 98304,
                     .sum = 0x0123456789abcdefu,
                     .tokens = tokens };
}

Test(row, comes_back_as_it_was)
{
    uint8_t head[RD_ROW_MOST_HEAD];
    rd_row row = good(), out;
    int32_t back[4];

    cr_assert(rd_row_sound(&row));
    cr_assert_eq(rd_row_encode(&row, head), 40);
    cr_assert(rd_row_decode(head, 40, &out));
    cr_assert(out.kind == row.kind && out.format == 3 && out.n_tokens == 4);
    cr_assert(out.bytes == 98304 && out.sum == row.sum && !out.tokens);
    rd_row_tokens(head, &out, back);
    cr_assert_arr_eq(back, tokens, sizeof tokens);
    cr_assert(rd_row_of_tokens(head, &out, tokens, 4));
    cr_assert(!rd_row_of_tokens(head, &out, tokens, 3));
    cr_assert(!rd_row_of_tokens(head, &out, back + 1, 4 - 1));
    back[3]--;
    cr_assert(!rd_row_of_tokens(head, &out, back, 4));
}

/* Byte `at` of a good head becomes `value`. */
static bool accepts(int at, int value)
{
    uint8_t head[RD_ROW_MOST_HEAD];
    rd_row row = good(), out;
    size_t n = rd_row_encode(&row, head);

    head[at] = (uint8_t)value;
    return rd_row_decode(head, n, &out);
}

Test(row, refuses_what_no_row_can_be)
{
    cr_assert(accepts(0, 1) && !accepts(0, 0) && !accepts(0, 2));                   /* version */
    cr_assert(accepts(1, 1) && !accepts(1, 0) && !accepts(1, 2) && !accepts(1, 3)); /* kind */
    cr_assert(accepts(2, 4) && !accepts(2, 3) && !accepts(2, 5) && !accepts(2, 0)); /* tokens */
    cr_assert(!accepts(3, 1));                    /* 260 of them */
    cr_assert(accepts(5, 255) && !accepts(6, 1)); /* format */
    cr_assert(accepts(11, 3) &&
              !accepts(11, 4)); /* up to 64 MiB of payload, with what stands below */
    cr_assert(!accepts(12, 1) && !accepts(15, 255)); /* 2^32 and more */
    cr_assert(accepts(16, 0));                       /* the sum is anything */
    cr_assert(!accepts(RD_ROW_FIXED + 3, 0x80));     /* a negative token */
}

Test(row, refuses_every_other_length)
{
    uint8_t head[RD_ROW_MOST_HEAD + 1] = { 0 };
    rd_row row = good(), out;

    rd_row_encode(&row, head);
    for (size_t n = 0; n <= sizeof head; n++) cr_assert_eq(rd_row_decode(head, n, &out), n == 40);
}

Test(row, holds_its_limits)
{
    int32_t many[RD_ROW_MOST_TOKENS + 1] = { 0 }, negative = -1;
    uint8_t head[RD_ROW_MOST_HEAD];
    rd_row row = good(), out;

    row.tokens = many;
    row.n_tokens = RD_ROW_MOST_TOKENS;
    cr_assert(rd_row_sound(&row));
    cr_assert_eq(rd_row_encode(&row, head), RD_ROW_MOST_HEAD);
    cr_assert(rd_row_decode(head, RD_ROW_MOST_HEAD, &out));
    row.n_tokens++;
    cr_assert(!rd_row_sound(&row));
    row = good();
    row.bytes = RD_ROW_MOST_BYTES;
    cr_assert(rd_row_sound(&row));
    row.bytes++;
    cr_assert(!rd_row_sound(&row));
    row.bytes = 0;
    cr_assert(!rd_row_sound(&row));
    row = good();
    row.format = RD_ROW_MOST_FORMAT + 1;
    cr_assert(!rd_row_sound(&row));
    row.format = -1;
    cr_assert(!rd_row_sound(&row));
    row = good();
    row.tokens = &negative;
    row.n_tokens = 1;
    cr_assert(!rd_row_sound(&row));
    row.n_tokens = -1;
    cr_assert(!rd_row_sound(&row));
    row = (rd_row){ .kind = RD_ROW_ANSWER, .bytes = RD_ROW_MOST_ANSWER };
    cr_assert(rd_row_sound(&row));
    row.bytes++;
    cr_assert(!rd_row_sound(&row));
    row = (rd_row){ .kind = RD_ROW_ANSWER, .n_tokens = 1, .tokens = many };
    cr_assert(!rd_row_sound(&row));
}

/* What is stored always takes more than half of a page in the table: SQLite's rule, played here with its own words. */
Test(row, shares_its_page_with_no_other)
{
    for (size_t n = 1; n < 500000; n += 13) {
        size_t stored = rd_row_stored_bytes(n), record = stored + 5, most = 65536 - 35,
               least = (65536 - 12) * 32 / 255 - 23, local = record;

        cr_assert(stored >= n && stored < n + 65536, "%zu", n);
        if (record > most) {
            local = least + (record - least) % (65536 - 4);
            if (local > most) local = least;
        }
        cr_assert_geq(local, 32768, "%zu", n);
        cr_assert_eq(rd_row_stored_bytes(stored), stored);
    }
    cr_assert_eq(rd_row_stored_bytes(98304), 98304); /* the built-in model's blocks pay nothing */
}

/* ---- the sum ---- */

static uint64_t sum_of(const void *bytes, size_t n, size_t piece)
{
    const char *at = bytes;
    rd_sum s;

    rd_sum_begin(&s);
    for (size_t take; n; n -= take, at += take) {
        take = n < piece ? n : piece;
        rd_sum_add(&s, at, take);
    }
    return rd_sum_end(&s);
}

Test(sum, is_the_same_in_pieces_of_any_size)
{
    char bytes[1000];

    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (char)(i * i);
    for (size_t n = 0; n < sizeof bytes; n += 37)
        for (size_t piece = 1; piece < 200; piece += 11)
            cr_assert_eq(sum_of(bytes, n, piece), sum_of(bytes, n, n + 1));
}

Test(sum, is_the_same_without_wide_registers)
{
    char bytes[3000];
    rd_sum s;

    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (char)(i * i * i);
    for (size_t n = 0; n < sizeof bytes; n += 91) {
        rd_sum_begin(&s);
        s.plain = true;
        rd_sum_add(&s, bytes, n);
        cr_assert_eq(rd_sum_end(&s), sum_of(bytes, n, n + 1));
    }
}

/* The value stands in files: another way to compute it would make every file a miss. */
Test(sum, never_changes)
{
    char bytes[1000];

    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (char)(i * i);
    cr_assert_eq(sum_of("", 0, 1), 0xddd9b67f450c732cu);
    cr_assert_eq(sum_of(bytes, 1000, 1000), 0x9f51837063c96040u);
}

Test(sum, sees_every_bit_and_every_exchange)
{
    static char bytes[900];
    uint64_t zeros = sum_of(bytes, sizeof bytes, 900);

    for (size_t bit = 0; bit < 8 * sizeof bytes; bit++) {
        bytes[bit / 8] ^= (char)(1 << bit % 8);
        uint64_t one = sum_of(bytes, sizeof bytes, 900);

        cr_assert_neq(one, zeros);
        for (size_t other = bit + 64; other < 8 * sizeof bytes;
             other += 64) { /* in the same place of a word */
            bytes[other / 8] ^= (char)(1 << other % 8);
            uint64_t two = sum_of(bytes, sizeof bytes, 900);

            cr_assert(two != zeros && two != one, "%zu and %zu", bit, other);
            bytes[other / 8] ^= (char)(1 << other % 8);
        }
        bytes[bit / 8] ^= (char)(1 << bit % 8);
    }
    cr_assert_neq(sum_of(bytes, 899, 900), zeros); /* zeros at the end count */
}
