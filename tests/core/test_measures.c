/* test_measures.c - measures of answers made by hand, whose values can be worked out on paper. */
#include "core/eval/measures.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

static double alike(const char *a, const char *b)
{
    return rd_similarity(a, strlen(a), b, strlen(b));
}

Test(measures, similarity_is_one_minus_the_distance_over_the_longer)
{
    cr_assert_float_eq(alike("kitten", "sitting"), 1.0 - 3.0 / 7.0, 1e-12);
    cr_assert_float_eq(alike("same", "same"), 1.0, 1e-12);
    cr_assert_float_eq(alike("", "abcd"), 0.0, 1e-12);
    cr_assert_float_eq(alike("", ""), 1.0, 1e-12);
}

Test(measures, exact_leaves_out_white_space_at_the_ends_and_strict_does_not)
{
    rd_outcome same = rd_outcome_of("x = 1", 5, "x = 1", 5);
    rd_outcome spaced = rd_outcome_of(" x = 1\n", 7, "x = 1", 5);
    rd_outcome inner = rd_outcome_of("x  = 1", 6, "x = 1", 5);

    cr_assert(same.exact && same.strict);
    cr_assert(spaced.exact && !spaced.strict);
    cr_assert_float_eq(spaced.similarity, 1.0, 1e-12);
    cr_assert(!inner.exact && !inner.strict);
    cr_assert_eq(same.whole, -1);
}

enum { N = 10 };

static char language[] = "python", other[] = "c";

/* Ten lines and ten ends in `files` files. */
static void make(rd_cases *c, rd_case *at, rd_case_file *file, int files)
{
    *c = (rd_cases){ .file = file, .at = at, .files = files, .n = 2 * N };
    for (int i = 0; i < files; i++)
        file[i] = (rd_case_file){ .language = i % 2 ? other : language };
    for (int i = 0; i < 2 * N; i++)
        at[i] = (rd_case){ .kind = i < N ? RD_CASE_LINE : RD_CASE_END, .file = i % files };
}

Test(measures, of_a_mixture_weigh_kinds_by_their_share)
{
    rd_cases c;
    rd_case at[2 * N];
    rd_case_file file[4];
    rd_outcome o[2 * N];
    rd_set s = { .name = "mine", .share = { [RD_CASE_LINE] = 0.75, [RD_CASE_END] = 0.25 } };
    rd_measure m;

    make(&c, at, file, 4);
    for (int i = 0; i < 2 * N; i++)
        o[i] = (rd_outcome){ .exact = i < 4 || i >= N + 2, /* 4 of 10, 8 of 10 */
                             .whole = i % 2 ? 1 : -1,
                             .confidence = -1.0,
                             .ms = i,
                             .forwards = 2.0 };
    rd_measure_of(&c, &s, o, &m);

    cr_assert_eq(m.cases, 2 * N);
    cr_assert_eq(m.files, 4);
    cr_assert_float_eq(m.em, 0.75 * 0.4 + 0.25 * 0.8, 1e-12);
    cr_assert_eq(m.whole_cases, N);
    cr_assert_float_eq(m.whole, 1.0, 1e-12);
    cr_assert_float_eq(m.forwards, 2.0, 1e-12);
    cr_assert_float_eq(m.ms, 0.75 * 4.5 + 0.25 * 14.5, 1e-12);
    cr_assert_float_eq(m.ms_median, 9.0, 1e-12);
    cr_assert(isnan(m.precision[0]) && isnan(m.calibration));
    cr_assert(m.em_ci[0] < m.em && m.em < m.em_ci[1]);
}

Test(measures, intervals_know_that_cases_of_one_file_are_not_independent)
{
    rd_cases c;
    rd_case at[2 * N];
    rd_case_file file[2 * N];
    rd_set s = { .name = "line", .share = { [RD_CASE_LINE] = 1.0 } };
    double value[2 * N], alone[2], together[2], constant[2];

    /* ten lines of which five are right: in ten files, or all right ones in one of two files */
    make(&c, at, file, 2 * N);
    for (int i = 0; i < 2 * N; i++) value[i] = i % 2;
    cr_assert_float_eq(rd_mean_of(&c, &s, value, alone), 0.5, 1e-12);
    make(&c, at, file, 2);
    cr_assert_float_eq(rd_mean_of(&c, &s, value, together), 0.5, 1e-12);

    cr_assert(alone[0] > 0.0 && alone[1] < 1.0, "%g %g", alone[0], alone[1]);
    cr_assert(together[0] == 0.0 && together[1] == 1.0, "%g %g", together[0], together[1]);
    for (int i = 0; i < 2 * N; i++) value[i] = i ? 0.25 : NAN;
    cr_assert_float_eq(rd_mean_of(&c, &s, value, constant), 0.25, 1e-12);
    cr_assert(constant[0] == 0.25 && constant[1] == 0.25);
}

Test(measures, precision_is_that_of_the_surest_share)
{
    rd_cases c;
    rd_case at[2 * N];
    rd_case_file file[4];
    rd_outcome o[2 * N] = { 0 };
    rd_set s = { .name = "line", .share = { [RD_CASE_LINE] = 1.0 } };
    rd_measure m;

    make(&c, at, file, 4);
    for (int i = 0; i < N; i++) /* the surest is wrong, the two after it right */
        o[i] = (rd_outcome){ .exact = i == 8 || i == 7, .confidence = 0.05 + 0.1 * i };
    rd_measure_of(&c, &s, o, &m);
    cr_assert_float_eq(m.precision[0], 0.0, 1e-12);
    cr_assert_float_eq(m.precision[1], 2.0 / 3.0, 1e-12);

    /* all equally sure: any choice is as good, so precision is the mean */
    for (int i = 0; i < N; i++) o[i].confidence = 0.5;
    rd_measure_of(&c, &s, o, &m);
    cr_assert_float_eq(m.precision[0], 0.2, 1e-12);
    cr_assert_float_eq(m.precision[1], 0.2, 1e-12);
}

Test(measures, a_share_says_what_its_last_slice_adds)
{
    rd_cases c;
    rd_case at[2 * N];
    rd_case_file file[4];
    rd_outcome o[2 * N] = { 0 };
    rd_set s = { .name = "line", .share = { [RD_CASE_LINE] = 1.0 } };
    rd_measure m;

    make(&c, at, file, 4);
    for (int i = 0; i < N; i++) /* right are the two surest, and the fifth */
        o[i] = (rd_outcome){ .exact = i >= 8 || i == 5, .confidence = 0.05 + 0.1 * i };
    rd_measure_of(&c, &s, o, &m);

    cr_assert_float_eq(rd_shares[4], 0.5, 1e-12);
    cr_expect_float_eq(m.shown[4].precision, 3.0 / 5.0, 1e-12);
    cr_expect_float_eq(m.shown[4].last, 1.0 / 2.0, 1e-12, "two more than at 0.3, one right");
    cr_expect_float_eq(m.shown[4].confidence, 0.55, 1e-12);
    cr_expect_float_eq(m.shown[0].precision, 1.0, 1e-12);
    cr_expect_float_eq(m.shown[5].precision, 0.3, 1e-12);
    cr_expect_float_eq(m.shown[5].last, 0.0, 1e-12);
}

Test(measures, the_gate_stands_where_answers_stop_being_right_often_enough)
{
    rd_cases c;
    rd_case at[2 * N];
    rd_case_file file[4];
    rd_outcome o[2 * N] = { 0 };
    rd_set s = { .name = "line", .share = { [RD_CASE_LINE] = 1.0 } };
    rd_gate g;

    make(&c, at, file, 4);
    /* from the surest down: right, wrong wrong right, then six wrong: 1, 1/3, 0 */
    for (int i = 0; i < N; i++)
        o[i] = (rd_outcome){ .exact = i == 9 || i == 6, .confidence = 0.05 + 0.1 * i };
    rd_gate_find(&c, &s, o, RD_GATE_WORTH, &g);
    cr_expect_float_eq(g.confidence, 0.65, 1e-12, "%g", g.confidence);
    cr_expect_float_eq(g.share, 0.4, 1e-12);
    cr_expect_float_eq(g.precision, 0.5, 1e-12);
    rd_gate_find(&c, &s, o, 0.5, &g);
    cr_expect_float_eq(g.confidence, 0.95, 1e-12);
    rd_gate_try(&c, &s, o, 0.0, &g);
    cr_expect_float_eq(g.share, 1.0, 1e-12);

    /* never right: nothing is shown; always the same confidence: all or nothing */
    for (int i = 0; i < N; i++) o[i].exact = false;
    rd_gate_find(&c, &s, o, RD_GATE_WORTH, &g);
    cr_expect(g.confidence == 1.0 && g.share == 0.0 && isnan(g.precision));
    for (int i = 0; i < N; i++) o[i] = (rd_outcome){ .exact = i < 5, .confidence = 0.25 };
    rd_gate_find(&c, &s, o, RD_GATE_WORTH, &g);
    cr_expect_eq(g.confidence, 0.25);
    cr_expect_float_eq(g.share, 1.0, 1e-12);
    cr_expect_float_eq(g.precision, 0.5, 1e-12);
}

Test(measures, calibration_is_the_mean_gap_of_ten_bins)
{
    rd_cases c;
    rd_case at[2 * N];
    rd_case_file file[4];
    rd_outcome o[2 * N] = { 0 };
    rd_set s = { .name = "line", .share = { [RD_CASE_LINE] = 1.0 } };
    rd_measure m;

    make(&c, at, file, 4);
    for (int i = 0; i < N; i++)
        o[i] = (rd_outcome){ .exact = i >= 5, .confidence = i >= 5 ? 0.9 : 0.2 };
    rd_measure_of(&c, &s, o, &m);

    cr_assert_eq(m.bins, 10);
    cr_assert_float_eq(m.bin[0].confidence, 0.2, 1e-12);
    cr_assert_float_eq(m.bin[9].em, 1.0, 1e-12);
    cr_assert_float_eq(m.calibration, 0.5 * 0.2 + 0.5 * 0.1, 1e-12);
}

Test(measures, calibration_weighs_kinds_by_their_share)
{
    rd_cases c;
    rd_case at[2 * N];
    rd_case_file file[4];
    rd_outcome o[2 * N] = { 0 };
    rd_set s = { .name = "mine", .share = { [RD_CASE_LINE] = 0.9, [RD_CASE_END] = 0.1 } };
    rd_measure m;

    /* nine tenths are sure to be right and are; one tenth says 0.5 and is wrong: one bin of ten */
    make(&c, at, file, 4);
    for (int i = 0; i < 2 * N; i++)
        o[i] = (rd_outcome){ .exact = i < N, .confidence = i < N ? 1.0 : 0.5 };
    rd_measure_of(&c, &s, o, &m);

    cr_assert_eq(m.bin[0].cases, N);
    cr_assert_float_eq(m.calibration, 0.1 * 0.5, 1e-9);
}

Test(measures, sets_are_those_that_have_cases)
{
    rd_cases c;
    rd_case at[2 * N];
    rd_case_file file[4];
    rd_set set[RD_SETS_MOST];

    make(&c, at, file, 4);
    cr_assert_eq(rd_sets_of(&c, set), 2);
    cr_assert_str_eq(set[0].name, "line");
    cr_assert_str_eq(set[1].name, "end");
    for (int i = 0; i < 4; i++) {
        at[i].kind = RD_CASE_MIDDLE;
        at[4 + i].kind = RD_CASE_MULTI;
    }
    cr_assert_eq(rd_sets_of(&c, set), 7);
    cr_assert_str_eq(set[4].name, "mixed");
    cr_assert_str_eq(set[6].name, "mixed/c");
}
