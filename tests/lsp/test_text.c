/* test_text.c - offsets, positions and edits are those of the plain reference. */
#include "core/base/random.h"
#include "tests/lsp/reference.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static const rd_encoding encodings[] = { RD_UTF16, RD_UTF8, RD_UTF32 };

typedef struct at_case {
    const char *text;
    rd_position at;
    size_t utf16, utf8, utf32;
} at_case;

#define FACE "\xf0\x9f\x98\x80"
static const at_case cases[] = {
    { "", { 0, 0 }, 0, 0, 0 },
    { "", { 5, 5 }, 0, 0, 0 },
    { "abc", { 0, 9 }, 3, 3, 3 },
    { "abc\n", { 0, 9 }, 3, 3, 3 },
    { "abc\n", { 1, 0 }, 4, 4, 4 },
    { "abc\n", { 2, 0 }, 4, 4, 4 },
    { "a\r\nb", { 0, 2 }, 1, 1, 1 },
    { "a\r\nb", { 1, 1 }, 4, 4, 4 },
    { "a\rb\rc", { 2, 0 }, 4, 4, 4 },
    { "a\n\rb", { 2, 0 }, 3, 3, 3 },
    { "\r\r\n\n", { 2, 0 }, 3, 3, 3 },
    { "\xef\xbb\xbf"
      "a",
      { 0, 1 },
      3,
      0,
      3 },
    { FACE "x", { 0, 1 }, 0, 0, 4 },
    { FACE "x", { 0, 2 }, 4, 0, 5 },
    { FACE "x", { 0, 3 }, 5, 0, 5 },
    { FACE "x", { 0, 4 }, 5, 4, 5 },
    { "\xc3\xa9x", { 0, 1 }, 2, 0, 2 },
    { "\xc3\xa9x", { 0, 2 }, 3, 2, 3 },
    { "a\nb", { UINT32_MAX, UINT32_MAX }, 3, 3, 3 },
    { "a\nb", { 0, UINT32_MAX }, 1, 1, 1 },
    { "a\xe2\x80\xa8"
      "b",
      { 0, 2 },
      4,
      1,
      4 }, /* U+2028 ends no line */
};

Test(text, finds_the_offset_of_a_position_and_clamps_it)
{
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const at_case *c = &cases[i];
        rd_text *t = rd_text_new(c->text, strlen(c->text));
        reference r = { 0 };
        size_t want[] = { c->utf16, c->utf8, c->utf32 };

        rd_buf_text(&r.text, c->text);
        for (int e = 0; e < 3; e++) {
            cr_assert_eq(rd_text_offset(t, c->at, encodings[e]), want[e],
                         "case %zu, encoding %d: %zu", i, e,
                         rd_text_offset(t, c->at, encodings[e]));
            cr_assert_eq(ref_offset(&r, c->at, encodings[e]), want[e],
                         "the reference, case %zu, encoding %d", i, e);
        }
        rd_buf_clear(&r.text);
        rd_text_free(t);
    }
}

Test(text, has_no_position_between_the_halves_of_a_line_end_or_of_a_character)
{
    rd_text *t = rd_text_new("a\r\n" FACE, 7);
    rd_position p = rd_text_position(t, 2, RD_UTF16), q = rd_text_position(t, 5, RD_UTF8);

    cr_assert(p.line == 0 && p.character == 1);
    cr_assert(q.line == 1 && q.character == 0);
    p = rd_text_position(t, 1000, RD_UTF16);
    cr_assert(p.line == 1 && p.character == 2);
    rd_text_free(t);
}

static void append_random(rd_buf *out, rd_random *r, uint32_t most)
{
    static const char *const parts[] = {
        "a",  "b ",           "\n",           "\r\n",         "\r", "\xc3\xa9", "\xe4\xb8\xad",
        FACE, "\xef\xbf\xbd", "\xef\xbb\xbf", "    return;\n"
    };

    for (uint32_t n = rd_random_below(r, most + 1); n > 0; n--)
        rd_buf_text(out, parts[rd_random_below(r, sizeof parts / sizeof *parts)]);
}

static void compare(const rd_text *t, const reference *r, rd_random *random, rd_buf *copy)
{
    size_t n = r->text.len;

    cr_assert_eq(rd_text_bytes(t), n);
    rd_buf_reset(copy);
    rd_text_copy(t, 0, SIZE_MAX, copy);
    cr_assert(copy->len == n && (n == 0 || !memcmp(copy->data, r->text.data, n)));
    size_t lines = ref_lines(r);

    cr_assert_eq(rd_text_lines(t), lines, "%zu lines, %zu wanted", rd_text_lines(t), lines);
    cr_assert_leq(rd_text_memory(t), 3 * n + 65536);
    for (int k = 0; k < 6; k++) {
        rd_encoding e = encodings[k % 3];
        rd_position at = { rd_random_below(random, (uint32_t)lines + 2),
                           rd_random_below(random, k < 3 ? 40 : 9000) };
        size_t offset = rd_random_below(random, (uint32_t)n + 2), want = ref_offset(r, at, e);

        cr_assert_eq(rd_text_offset(t, at, e), want, "%u:%u in %d: %zu, wanted %zu", at.line,
                     at.character, e, rd_text_offset(t, at, e), want);
        rd_position p = rd_text_position(t, offset, e),
                    q = ref_position(r, offset < n ? offset : n, e);

        cr_assert(p.line == q.line && p.character == q.character, "%zu in %d: %u:%u, wanted %u:%u",
                  offset, e, p.line, p.character, q.line, q.character);
        cr_assert_eq(rd_text_line_start(t, at.line), ref_offset(r, (rd_position){ at.line, 0 }, e));
        cr_assert_eq(rd_text_line_end(t, at.line),
                     ref_offset(r, (rd_position){ at.line, UINT32_MAX }, e));
    }
}

/* Small texts meet every seam of characters and line ends; larger ones those of chunks. */
Test(text, equals_the_plain_reference_after_every_edit_of_a_random_sequence, .timeout = 300)
{
    rd_buf piece = { 0 }, copy = { 0 };

    for (uint64_t seed = 0; seed < 60; seed++) {
        rd_random random = rd_random_seed(seed);
        reference r = { 0 };
        uint32_t size = seed % 3 == 0 ? 4 : seed % 3 == 1 ? 300 : 6000;

        append_random(&r.text, &random, size * 3);
        rd_buf_text(&r.text, "");
        rd_text *t = rd_text_new(r.text.data, r.text.len);

        for (int step = 0; step < 150; step++) {
            rd_encoding e = encodings[rd_random_below(&random, 3)];
            uint32_t lines = (uint32_t)ref_lines(&r);
            rd_position a = { rd_random_below(&random, lines + 1), rd_random_below(&random, 30) },
                        b = a;
            uint32_t kind = rd_random_below(&random, 10);

            b.line += kind == 0  ? rd_random_below(&random, lines + 1)
                      : kind < 5 ? rd_random_below(&random, 3)
                                 : 0;
            b.character = b.line > a.line ? rd_random_below(&random, 30)
                                          : a.character + rd_random_below(&random, 5);
            rd_buf_reset(&piece);
            rd_buf_text(&piece, "");
            append_random(&piece, &random, kind == 9 ? size : 4);
            size_t start = ref_offset(&r, a, e), end = ref_offset(&r, b, e);

            cr_assert_eq(rd_text_offset(t, a, e), start);
            cr_assert_eq(rd_text_offset(t, b, e), end);
            char *own = malloc(piece.len ? piece.len : 1);

            memcpy(own, piece.data, piece.len);
            rd_text_replace(t, start, end, own, piece.len);
            free(own);
            ref_replace(&r, start, end, piece.data, piece.len);
            compare(t, &r, &random, &copy);
        }
        rd_text_free(t);
        rd_buf_clear(&r.text);
    }
    rd_buf_clear(&piece);
    rd_buf_clear(&copy);
}

Test(text, joins_and_parts_line_ends_at_the_border_of_two_chunks)
{
    char line[5000], filler[3000];

    memset(filler, 'x', sizeof filler);

    for (size_t n = 1500; n < 4200; n += 37) {
        memset(line, 'x', sizeof line);
        line[n] = '\r';
        rd_text *t = rd_text_new(line, n + 1);

        cr_assert_eq(rd_text_lines(t), 2);
        rd_text_replace(t, n + 1, n + 1, filler, 3000); /* "\rxxx" */
        cr_assert_eq(rd_text_lines(t), 2);
        rd_text_replace(t, n + 1, n + 1, "\n", 1);
        cr_assert_eq(rd_text_lines(t), 2);
        cr_assert_eq(rd_text_line_end(t, 0), n);
        cr_assert_eq(rd_text_line_start(t, 1), n + 2);
        rd_text_replace(t, n + 1, n + 1, "y", 1);
        cr_assert_eq(rd_text_lines(t), 3);
        rd_text_replace(t, n, n + 2, "", 0);
        cr_assert_eq(rd_text_lines(t), 2);
        rd_text_replace(t, 0, SIZE_MAX, "", 0);
        cr_assert(rd_text_lines(t) == 1 && rd_text_bytes(t) == 0);
        rd_text_free(t);
    }
}

Test(text, stays_within_three_times_its_bytes_however_it_is_cut, .timeout = 60)
{
    rd_random r = rd_random_seed(9);
    rd_buf whole = { 0 };

    for (int k = 0; k < 400000; k++) rd_buf_text(&whole, k % 7 ? "\n" : "xy");
    rd_text *t = rd_text_new(whole.data, whole.len);

    cr_assert_leq(rd_text_memory(t), 3 * rd_text_bytes(t) + 65536);
    while (rd_text_bytes(t) > 100) {
        size_t at = rd_random_below(&r, (uint32_t)rd_text_bytes(t));

        rd_text_replace(t, at, at + 1 + rd_random_below(&r, 700), "z", 1);
        cr_assert_leq(rd_text_memory(t), 3 * rd_text_bytes(t) + 65536, "%zu for %zu",
                      rd_text_memory(t), rd_text_bytes(t));
    }
    rd_text_free(t);
    rd_buf_clear(&whole);
}

Test(text, finds_what_it_has_in_common_with_another_at_both_ends)
{
    static const struct {
        const char *a, *b;
        size_t front, back;
    } pairs[] = { { "abc", "abc", 3, 0 },
                  { "abc", "axc", 1, 1 },
                  { "aa", "aaa", 2, 0 },
                  { "", "abc", 0, 0 },
                  { "abc", "", 0, 0 },
                  { "ab", "aab", 1, 1 },
                  { "\xc3\xa9", "\xc3\xa8", 0, 0 },
                  { FACE "\xc3\xa9", FACE "\xe3\x83\xa9", 4, 0 } };

    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        rd_text *t = rd_text_new(pairs[i].a, strlen(pairs[i].a));
        size_t front, back;

        rd_text_common(t, pairs[i].b, strlen(pairs[i].b), &front, &back);
        cr_assert(front == pairs[i].front && back == pairs[i].back, "pair %zu: %zu, %zu", i, front,
                  back);
        rd_text_free(t);
    }
}

Test(text, finds_what_is_common_across_chunks_as_it_does_in_one, .timeout = 60)
{
    rd_random r = rd_random_seed(77);
    static char a[20000], b[20000];

    for (int k = 0; k < 300; k++) {
        size_t n = rd_random_below(&r, sizeof a), m = n, front, back, want = 0, most, tail = 0;
        bool is_cut = k % 3 == 0;

        memset(a, 'a', n);
        memset(b, 'a', n);
        if (n > 0 && k % 2) b[rd_random_below(&r, (uint32_t)n)] = 'b';
        if (is_cut) m = rd_random_below(&r, (uint32_t)n + 1);
        most = m < n ? m : n;
        while (want < most && a[want] == b[want]) want++;
        while (tail < most - want && a[n - 1 - tail] == b[m - 1 - tail]) tail++;
        rd_text *t = rd_text_new(a, n);

        rd_text_common(t, b, m, &front, &back);
        cr_assert(front == want && back == tail, "%zu, %zu of %zu, %zu", front, back, want, tail);
        rd_text_free(t);
    }
    rd_text_free(NULL);
}

Test(text, reads_bytes_that_are_not_utf8_without_harm, .timeout = 60)
{
    rd_random r = rd_random_seed(31);

    for (int k = 0; k < 300; k++) {
        size_t n = rd_random_below(&r, 9000);
        char *bytes = malloc(n + 1);

        for (size_t i = 0; i < n; i++) bytes[i] = (char)(128 + rd_random_below(&r, 128));
        rd_text *t = rd_text_new(bytes, n);

        for (int e = 0; e < 3; e++) {
            size_t at =
                rd_text_offset(t, (rd_position){ 0, rd_random_below(&r, 9000) }, encodings[e]);

            cr_assert_leq(at, n);
            rd_text_position(t, at, encodings[e]);
        }
        rd_text_free(t);
        free(bytes);
    }
}
