/* test_rewrite.c - answers to edits: the smallest, with the document's line ends, in each encoding. */
#include "core/base/random.h"
#include "lsp/rewrite.h"

#include <criterion/criterion.h>
#include <string.h>

/* The text after the edits; they are ascending. */
static void applied(const rd_text *t, const rd_rewrite *r, rd_buf *out)
{
    size_t at = 0;

    rd_buf_append(out, "", 0);
    for (int i = 0; i < r->n; i++) {
        cr_assert_geq(r->edits[i].start, at);
        rd_text_copy(t, at, r->edits[i].start, out);
        rd_buf_append(out, r->edits[i].text.data, r->edits[i].text.len);
        at = r->edits[i].end;
    }
    rd_text_copy(t, at, rd_text_bytes(t), out);
}

static void becomes(const char *text, size_t start, size_t end, const char *answer,
                    const char *want, int edits)
{
    rd_text *t = rd_text_new(text, strlen(text));
    rd_rewrite r = { 0 };
    rd_buf got = { 0 };

    rd_rewrite_add(&r, t, start, end, answer, strlen(answer));
    applied(t, &r, &got);
    cr_assert_str_eq(got.data, want);
    cr_assert_eq(r.n, edits, "%d edits in %s", r.n, text);
    rd_buf_clear(&got);
    rd_rewrite_clear(&r);
    rd_text_free(t);
}

Test(rewrite, changes_only_the_words_that_differ)
{
    becomes("x = one + two\n", 0, 13, "x = one + three", "x = one + three\n", 1);
    becomes("a = 1\nb = 2\nc = 3\n", 0, 18, "a = 9\nb = 2\nc = 8\n", "a = 9\nb = 2\nc = 8\n", 2);
    becomes("same\n", 0, 5, "same\n", "same\n", 0);
    becomes("if (a)", 4, 4, "b && ", "if (b && a)", 1);
}

Test(rewrite, keeps_the_line_end_that_the_selection_had_and_adds_none)
{
    becomes("a\nb\n", 0, 2, "c", "c\nb\n", 1);
    becomes("a\nb\n", 0, 1, "c\n", "c\nb\n", 1);
    becomes("f() {}\n", 5, 5, "\n    g();\n", "f() {\n    g();\n}\n", 1);
    becomes("f() {\n}\n", 5, 6, "\n    g();", "f() {\n    g();\n}\n", 1);
}

Test(rewrite, takes_an_answer_of_nothing_for_none)
{
    becomes("keep me\n", 0, 8, "", "keep me\n", 0);
    becomes("keep me\n", 0, 8, " \n", "keep me\n", 0);
}

Test(rewrite, writes_the_documents_line_ends_and_touches_none_that_stay)
{
    becomes("a = 1\r\nb = 2\r\n", 0, 14, "a = 1\nx = 5\nb = 2\n", "a = 1\r\nx = 5\r\nb = 2\r\n", 1);
    becomes("a = 1\r\nb = 2\r\n", 0, 14, "a = 1\nb = 2", "a = 1\r\nb = 2\r\n", 0);
    becomes("one\r\ntwo", 5, 8, "two\nthree", "one\r\ntwo\r\nthree", 1);
    becomes("a\nb\r\nc\n", 0, 7, "a\nb\nd\n", "a\nb\r\nd\n", 1);
    becomes("a\r\nb\r\n", 0, 6, "a\r\nc\r\n", "a\r\nc\r\n", 1);
}

Test(rewrite, puts_a_whole_text_in_the_place_of_another_in_one_edit)
{
    const char *text = "f:\r\n  # to do\r\n  pass\r\n";
    rd_text *t = rd_text_new(text, strlen(text));
    rd_rewrite r = { 0 };
    rd_buf got = { 0 };

    rd_rewrite_put(&r, t, 6, 21, "a = 1\n  pass\n", 14);
    cr_assert_eq(r.n, 1);
    applied(t, &r, &got);
    cr_assert_str_eq(got.data, "f:\r\n  a = 1\r\n  pass\r\n");
    rd_rewrite_put(&r, t, 6, 21, "# to do\n  pass", 14);
    rd_rewrite_put(&r, t, 6, 21, "", 0);
    cr_assert_eq(r.n, 1, "the same and nothing are no edits");
    rd_buf_clear(&got);
    rd_rewrite_clear(&r);
    rd_text_free(t);
}

Test(rewrite, finds_the_way_back_from_the_plain_form)
{
    const char *text = "a\r\n\r\nb\rc";
    rd_buf plain = { 0 };
    static const size_t back[] = { 0, 1, 3, 5, 6, 7, 8, 8 };

    rd_buf_text(&plain, text);
    rd_rewrite_plain(&plain);
    cr_assert_str_eq(plain.data, "a\n\nb\rc");
    for (size_t i = 0; i < sizeof back / sizeof *back; i++)
        cr_assert_eq(rd_rewrite_unplain(text, strlen(text), i), back[i], "byte %zu", i);
    rd_buf_clear(&plain);
}

Test(rewrite, stands_at_the_right_column_in_each_encoding)
{
    static const uint32_t columns[] = { [RD_UTF16] = 10, [RD_UTF8] = 13, [RD_UTF32] = 9 };
    const char *text =
        "s = '\xf0\x9f\x98\x80\xc3\xa9' + one\n"; /* an emoji and an e with an accent */
    rd_text *t = rd_text_new(text, strlen(text));
    rd_rewrite r = { 0 };

    rd_rewrite_add(&r, t, 0, strlen(text), "s = '\xf0\x9f\x98\x80\xc3\xa9' - one\n", strlen(text));
    cr_assert_eq(r.n, 1);
    for (rd_encoding e = RD_UTF16; e <= RD_UTF32; e++) {
        uint32_t plus = rd_text_position(t, r.edits[0].start, e).character;

        cr_assert_eq(plus, columns[e], "encoding %d: %u", (int)e, plus);
    }
    rd_rewrite_clear(&r);
    rd_text_free(t);
}

static void random_lines(rd_random *rng, rd_buf *out, const char *line_end)
{
    static const char *const words[] = { "a", "b ", "\xf0\x9f\x98\x80", "(", "=", "\xc3\xa9" };

    for (uint32_t i = rd_random_below(rng, 12); i > 0; i--)
        rd_buf_text(out, rd_random_below(rng, 4) == 0 ? line_end : words[rd_random_below(rng, 6)]);
    rd_buf_text(out, "x");
}

Test(rewrite, of_random_lines_gives_the_answer_and_cuts_no_line_end)
{
    rd_random rng = rd_random_seed(7);

    for (int i = 0; i < 2000; i++) {
        rd_buf old = { 0 }, fresh = { 0 }, got = { 0 };
        rd_rewrite r = { 0 };

        random_lines(&rng, &old, "\r\n");
        random_lines(&rng, &fresh, "\n");
        rd_text *t = rd_text_new(old.data, old.len);

        rd_rewrite_add(&r, t, 0, old.len, fresh.data, fresh.len);
        for (int k = 0; k < r.n; k++) {
            size_t start = r.edits[k].start, end = r.edits[k].end;

            cr_assert(start == 0 || old.data[start - 1] != '\r');
            cr_assert(end == 0 || old.data[end - 1] != '\r');
            cr_assert(((unsigned char)old.data[start] & 0xc0) != 0x80);
        }
        applied(t, &r, &got);
        rd_rewrite_plain(&got);
        cr_assert_str_eq(got.data, fresh.data);
        rd_rewrite_clear(&r);
        rd_text_free(t);
        rd_buf_clear(&old);
        rd_buf_clear(&fresh);
        rd_buf_clear(&got);
    }
}
