/* test_doubt.c - scores to doubtful words, and the sentence for people. */
#include "lsp/doubt.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static rd_score score(size_t start, size_t end, float p, float p_best, const char *best)
{
    rd_score s = { .start = start, .end = end, .p = p, .p_best = p_best };

    snprintf(s.best, sizeof s.best, "%s", best);
    return s;
}

static void one_doubt(rd_doubt_use use, const char *text, const rd_score *s, int n,
                      const char *word, const char *best)
{
    rd_doubt d[4];
    int count = rd_doubts_find(use, text, strlen(text), s, n, d, 4);

    cr_assert_eq(count, 1, "%d doubts", count);
    cr_assert_eq(d[0].end - d[0].start, strlen(word));
    cr_assert(!strncmp(text + d[0].start, word, strlen(word)), "%s", text + d[0].start);
    cr_assert_str_eq(d[0].best.data, best);
    rd_doubts_clear(d, count);
}

Test(doubt, is_a_whole_word_with_what_the_model_would_write)
{
    rd_score s[] = { score(0, 2, 0.9f, 0.9f, "re"), score(2, 5, 0.001f, 0.95f, "sult"),
                     score(5, 7, 0.8f, 0.8f, "s2") };

    one_doubt(RD_DOUBT_SHOW, "reportx = 1", s, 2, "reportx", "resulttx");
}

Test(doubt, leaves_the_space_before_a_token_alone)
{
    rd_score s[] = { score(1, 5, 0.001f, 0.95f, " min") };

    one_doubt(RD_DOUBT_SHOW, "= max;", s, 1, "max", "min");
}

Test(doubt, joins_tokens_that_touch_and_for_mending_those_that_are_near)
{
    const char *text = "a < b and c < d";
    rd_score s[] = { score(1, 3, 0.001f, 0.95f, " >"), score(11, 13, 0.002f, 0.92f, " >") };
    rd_doubt d[4];
    int n = rd_doubts_find(RD_DOUBT_SHOW, text, strlen(text), s, 2, d, 4);

    cr_assert_eq(n, 2);
    rd_doubts_clear(d, n);
    one_doubt(RD_DOUBT_MEND, text, s, 2, "< b and c <", "> b and c >");
    s[1].start = 3;
    s[1].end = 5;
    one_doubt(RD_DOUBT_SHOW, text, s, 2, "< b", "> >");
}

Test(doubt, does_not_reach_over_a_line_end)
{
    const char *text = "a <\n> b";
    rd_score s[] = { score(2, 3, 0.001f, 0.95f, ">"), score(4, 5, 0.001f, 0.95f, "<") };
    rd_doubt d[4];
    int n = rd_doubts_find(RD_DOUBT_MEND, text, strlen(text), s, 2, d, 4);

    cr_assert_eq(n, 2);
    rd_doubts_clear(d, n);
}

Test(doubt, is_none_where_the_token_is_likely_or_the_other_is_not_or_it_is_white)
{
    const char *text = "ab  cd";
    rd_score s[] = { score(0, 2, 0.2f, 0.95f, "x"),    score(0, 2, 0.001f, 0.3f, "x"),
                     score(2, 4, 0.001f, 0.95f, "x"),  score(4, 6, 0.001f, 0.95f, "  "),
                     score(4, 6, 0.001f, 0.95f, "cd"), score(4, 99, 0.001f, 0.95f, "x") };
    rd_doubt d[4];

    for (size_t i = 0; i < sizeof s / sizeof *s; i++)
        cr_assert_eq(rd_doubts_find(RD_DOUBT_SHOW, text, strlen(text), &s[i], 1, d, 4), 0, "%zu",
                     i);
}

Test(doubt, stops_at_the_most_that_are_wanted)
{
    const char *text = "a b c";
    rd_score s[] = { score(0, 1, 0.001f, 0.95f, "x"), score(2, 3, 0.001f, 0.95f, "x"),
                     score(4, 5, 0.001f, 0.95f, "x") };
    rd_doubt d[2];
    int n = rd_doubts_find(RD_DOUBT_SHOW, text, strlen(text), s, 3, d, 2);

    cr_assert_eq(n, 2);
    cr_assert_eq(d[1].end, 3);
    rd_doubts_clear(d, n);
}

Test(doubt, is_told_on_one_line_with_percentages)
{
    rd_doubt d = { .start = 2, .end = 3, .p = 0.034f, .p_best = 0.912f };
    rd_buf out = { 0 };

    rd_buf_text(&d.best, "y\nz");
    rd_doubt_message(&d, "a x b", &out);
    cr_assert_str_eq(out.data, "`x` is unlikely here (3 %); the model would write `y z` (91 %)");
    rd_buf_reset(&out);
    d.p = 0.001f;
    rd_doubt_message(&d, "a x b", &out);
    cr_assert(strstr(out.data, "(under 1 %)"));
    rd_buf_clear(&out);
    rd_doubts_clear(&d, 1);
}
