/* test_fit.c - data made from known numbers give them back; data that say nothing end in modest ones. */
#include "core/eval/fit.h"

#include "core/base/random.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

enum { N = 4000 };

static double logistic(double x)
{
    return 1.0 / (1.0 + exp(-x));
}

Test(fit, gives_back_the_numbers_that_the_data_were_made_from)
{
    static double x[2 * N], weight[N], out[RD_FIT_COLUMNS_MOST + 1];
    static bool right[N];
    rd_random random = rd_random_seed(7);

    for (int i = 0; i < N; i++) {
        x[2 * i] = 10.0 * rd_random_unit(&random);
        x[2 * i + 1] = -3.0 * rd_random_unit(&random);
        right[i] = rd_random_unit(&random) < logistic(-1.0 + 0.5 * x[2 * i] + 0.8 * x[2 * i + 1]);
        weight[i] = 1.0;
    }
    rd_fit_logistic(&(rd_fit_rows){ x, right, weight, N, 2, 3 }, out);

    cr_expect_float_eq(out[0], -1.0, 0.2, "%g", out[0]);
    cr_expect_float_eq(out[1], 0.5, 0.05, "%g", out[1]);
    cr_expect_float_eq(out[2], 0.8, 0.1, "%g", out[2]);
}

Test(fit, counts_a_weight_of_two_as_two_observations)
{
    double x[] = { 0.0, 1.0, 2.0, 3.0, 0.0, 1.0, 2.0, 3.0 };
    double once[] = { 1, 1, 1, 1, 1, 1, 1, 1 }, twice[] = { 2, 2, 2, 2 };
    bool right[] = { false, true, false, true, false, true, false, true };
    double a[RD_FIT_COLUMNS_MOST + 1], b[RD_FIT_COLUMNS_MOST + 1];

    rd_fit_logistic(&(rd_fit_rows){ x, right, once, 8, 1, 0 }, a);
    rd_fit_logistic(&(rd_fit_rows){ x, right, twice, 4, 1, 0 }, b);

    cr_expect(a[1] > 0.1, "%g", a[1]);
    cr_expect_float_eq(a[0], b[0], 1e-3);
    cr_expect_float_eq(a[1], b[1], 1e-3);
}

Test(fit, a_rising_column_never_counts_against)
{
    double x[100], weight[100], free_out[RD_FIT_COLUMNS_MOST + 1], out[RD_FIT_COLUMNS_MOST + 1];
    bool right[100];

    for (int i = 0; i < 100; i++) {
        x[i] = i;
        right[i] = i < 50;
        weight[i] = 1.0;
    }
    rd_fit_logistic(&(rd_fit_rows){ x, right, weight, 100, 1, 0 }, free_out);
    rd_fit_logistic(&(rd_fit_rows){ x, right, weight, 100, 1, 1 }, out);

    cr_expect(free_out[1] < 0.0, "%g", free_out[1]);
    cr_expect_eq(out[1], 0.0);
    cr_expect_float_eq(out[0], 0.0, 0.05, "half of them are right: %g", out[0]);
}

static double degenerate(bool right, int n)
{
    double x[200], weight[200], out[RD_FIT_COLUMNS_MOST + 1];
    bool rights[200];

    for (int i = 0; i < 200; i++) {
        x[i] = -i;
        weight[i] = 1.0;
        rights[i] = right;
    }
    rd_fit_logistic(&(rd_fit_rows){ x, rights, weight, n, 1, 1 }, out);
    cr_assert(isfinite(out[0]) && isfinite(out[1]) && fabs(out[0]) < 20.0 && fabs(out[1]) < 1.0,
              "%g %g", out[0], out[1]);
    return logistic(out[0] + out[1] * (n ? -0.5 * n : 0.0));
}

Test(fit, of_only_right_only_wrong_or_no_observations_is_modest)
{
    double all = degenerate(true, 200), none = degenerate(false, 200);

    cr_expect(all > 0.95 && all < 1.0, "%g", all);
    cr_expect(none > 0.0 && none < 0.05, "%g", none);
    cr_expect_float_eq(degenerate(false, 0), 0.02, 1e-6);
}

Test(fit, a_column_that_does_not_vary_counts_nothing)
{
    double x[] = { 5, 5, 5, 5 }, weight[] = { 1, 1, 1, 1 }, out[RD_FIT_COLUMNS_MOST + 1];
    bool right[] = { true, false, true, false };

    rd_fit_logistic(&(rd_fit_rows){ x, right, weight, 4, 1, 0 }, out);

    cr_expect_eq(out[1], 0.0);
    cr_expect_float_eq(out[0], 0.0, 0.2);
}

/* ---- all numbers ---- */

static rd_fit_text own_text(double sure, bool right)
{
    return (rd_fit_text){ { .sure = sure, .length = -0.1, .tokens = 5 }, right };
}

static rd_fit_text draft_text(double alike, bool scored, bool right)
{
    return (rd_fit_text){ { .alike = alike, .tokens = 8, .draft = true, .scored = scored }, right };
}

static double numbers_most(const rd_confidence *c)
{
    const float *at = (const float *)c;
    double most = 0.0;

    for (size_t i = 0; i < sizeof *c / sizeof *at; i++) {
        cr_assert(isfinite(at[i]));
        most = fmax(most, fabs((double)at[i]));
    }
    return most;
}

Test(fit, chooses_own_text_where_it_is_sure_and_the_draft_elsewhere)
{
    static rd_fit_hole hole[400];
    rd_confidence c;
    int right = 0;

    for (int i = 0; i < 400; i++) {
        bool own = i % 2;

        hole[i] = (rd_fit_hole){ .own = { own_text(-9.0, false), own_text(own ? -1 : -8, own) },
                                 .n_own = 2,
                                 .draft = draft_text(own ? 1.0 : 4.0, i % 3, !own),
                                 .has_draft = true,
                                 .weight = 1.0 };
    }
    rd_fit_confidence(hole, 400, 0.9, &c);
    for (int i = 0; i < 400; i++) {
        double confidence;

        right += rd_fit_answer(&c, &hole[i], 0.9, true, &confidence)->right;
        cr_assert(confidence > 0.5, "%d: %g", i, confidence);
    }

    cr_expect_eq(right, 400);
    cr_expect(c.own[1] > 0.0f);
    cr_expect(c.draft[5] > 0.0f && c.copy[2] > 0.0f);
    cr_expect_eq(c.lead, 1.0f);
    cr_expect(numbers_most(&c) < 50.0);
}

Test(fit, of_all_right_none_right_or_no_drafts_is_sane)
{
    static rd_fit_hole hole[60];

    for (int sort = 0; sort < 3; sort++) {
        rd_confidence c;
        double confidence;

        for (int i = 0; i < 60; i++)
            hole[i] = (rd_fit_hole){ .own = { own_text(-i, sort == 0) },
                                     .n_own = 1,
                                     .draft = draft_text(i % 4, i % 2, sort == 0),
                                     .has_draft = sort < 2,
                                     .weight = 1.0 };
        rd_fit_confidence(hole, 60, 0.2, &c);
        rd_fit_answer(&c, &hole[30], 0.2, true, &confidence);

        cr_expect(numbers_most(&c) < 50.0, "sort %d", sort);
        cr_expect(c.own[1] >= 0.0f);
        cr_expect(sort == 0 ? confidence > 0.9 : confidence < 0.1, "sort %d: %g", sort, confidence);
        if (sort == 2) cr_expect(logistic((double)c.draft[0]) < 0.05, "nothing speaks for drafts");
    }
}

Test(fit, follows_the_lead)
{
    rd_fit_hole hole = { .own = { own_text(0.0, true) },
                         .n_own = 1,
                         .draft = draft_text(1.0, true, false),
                         .has_draft = true };
    rd_confidence c = { .own = { -1.0f }, .draft = { -1.5f }, .lead = 1.0f };
    double confidence;

    cr_expect_not(rd_fit_answer(&c, &hole, 0.5, true, &confidence)->is.draft);
    cr_expect(rd_fit_answer(&c, &hole, 0.1, true, &confidence)->is.draft, "taken at once");
    c.lead = 2.0f;
    cr_expect(rd_fit_answer(&c, &hole, 0.5, true, &confidence)->is.draft);
    cr_expect_float_eq(confidence, logistic(-1.5), 1e-6);
    cr_expect_not(rd_fit_answer(&c, &hole, 0.1, false, &confidence)->is.draft);
    cr_expect_float_eq(confidence, logistic(-1.0), 1e-6);
}
