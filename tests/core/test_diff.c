/* test_diff.c - edits that make the new text of the old one, and no more than needed. */
#include "core/base/buf.h"
#include "core/base/diff.h"
#include "core/base/random.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

/* Apply, and check order; returns the number of edits. */
static int apply(const char *old, size_t n, const char *fresh, size_t m, rd_buf *out)
{
    rd_text_edit *e;
    int count = rd_diff_texts(old, n, fresh, m, &e);
    size_t at = 0;

    for (int i = 0; i < count; i++) {
        cr_assert(i == 0 || e[i].start > e[i - 1].end, "edit %d touches the one before", i);
        cr_assert(e[i].start < e[i].end || e[i].from < e[i].to, "edit %d does nothing", i);
        rd_buf_append(out, old + at, e[i].start - at);
        rd_buf_append(out, fresh + e[i].from, e[i].to - e[i].from);
        at = e[i].end;
    }
    rd_buf_append(out, old + at, n - at);
    free(e);
    return count;
}

Test(diff, keeps_what_is_common)
{
    static const struct {
        const char *old, *fresh;
        int edits;
    } cases[] = {
        { "", "", 0 },
        { "same", "same", 0 },
        { "", "all new", 1 },
        { "all gone", "", 1 },
        { "int a = 1;\nint b = 2;\n", "long a = 1;\nint b = 3;\n", 2 },
        { "f(a, b)", "f(a, c, b)", 1 },
        { "gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f e", 1 },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rd_buf out = { 0 };
        int n =
            apply(cases[i].old, strlen(cases[i].old), cases[i].fresh, strlen(cases[i].fresh), &out);

        cr_assert_eq(n, cases[i].edits, "case %zu: %d edits", i, n);
        cr_assert_str_eq(out.data ? out.data : "", cases[i].fresh);
        rd_buf_clear(&out);
    }
}

Test(diff, leads_from_any_text_to_any_other)
{
    rd_random r = rd_random_seed(3);
    static char a[20000], b[20000];

    for (int k = 0; k < 300; k++) {
        size_t n = rd_random_below(&r, k % 50 ? 60 : sizeof a),
               m = rd_random_below(&r, k % 50 ? 60 : sizeof b);
        rd_buf out = { 0 };

        for (size_t i = 0; i < n; i++) a[i] = "ab \n(\xc3\xa4"[rd_random_below(&r, 7)];
        for (size_t i = 0; i < m; i++) b[i] = "ab \n(\xc3\xa4"[rd_random_below(&r, 7)];
        apply(a, n, b, m, &out);
        cr_assert_eq(out.len, m);
        cr_assert(m == 0 || !memcmp(out.data, b, m));
        rd_buf_clear(&out);
    }
}

Test(diff, shows_the_whole_lines_of_a_change)
{
    static const struct {
        const char *text, *fresh;
        size_t start, end;
        const char *diff;
    } cases[] = {
        { "a b\nc\n", "x", 2, 3, "--- a/f\n+++ b/f\n@@ -1,1 +1,1 @@\n-a b\n+a x\n" },
        { "a\nb\n", "b", 2, 3, "" },
        { "a\nb", "c", 2, 3,
          "--- a/f\n+++ b/f\n@@ -2,1 +2,1 @@\n-b\n\\ No newline at end of file\n"
          "+c\n\\ No newline at end of file\n" },
        { "", "a\n", 0, 0, "--- a/f\n+++ b/f\n@@ -1,0 +1,1 @@\n+a\n" },
        { "a\nb\n", "", 0, 2, "--- a/f\n+++ b/f\n@@ -1,2 +1,1 @@\n-a\n-b\n+b\n" },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rd_text_change c = { .text = cases[i].text,
                             .bytes = strlen(cases[i].text),
                             .start = cases[i].start,
                             .end = cases[i].end,
                             .fresh = cases[i].fresh,
                             .fresh_bytes = strlen(cases[i].fresh) };
        rd_buf out = { 0 };

        rd_diff_unified(&c, "f", &out);
        cr_assert_str_eq(out.data ? out.data : "", cases[i].diff, "case %zu", i);
        rd_buf_clear(&out);
    }
}
