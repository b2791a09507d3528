/* fit.c - ridge logistic regression on a few columns, and the turns of choosing and fitting. */
#include "core/eval/fit.h"

#include "core/base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = RD_FIT_COLUMNS_MOST, TERMS = MOST + 1, STEPS = 50, TURNS = 6, LEADS = 8 };

static const double ridge = 1.0, base_ridge = 0.01, spread_least = 0.01, number_most = 1000.0;

/* ---- regression ---- */

typedef struct fit {
    const rd_fit_rows *rows;
    double mean[MOST], spread[MOST];
    bool used[MOST];
    double base; /* log odds of being right at all: the base's own ridge pulls there */
    double w[TERMS];
} fit;

static double logistic(double x)
{
    return 1.0 / (1.0 + exp(-x));
}

static double term(const fit *f, int row, int k)
{
    if (k == 0) return 1.0;
    if (!f->used[k - 1]) return 0.0;
    return (f->rows->x[row * f->rows->columns + k - 1] - f->mean[k - 1]) / f->spread[k - 1];
}

static double sum_of(const fit *f, const double *w, int row)
{
    double x = 0.0;

    for (int k = 0; k <= f->rows->columns; k++) x += w[k] * term(f, row, k);
    return x;
}

static void measure_columns(fit *f)
{
    const rd_fit_rows *r = f->rows;
    double all = 0.0, right = 0.0;

    for (int i = 0; i < r->n; i++) {
        all += r->weight[i];
        right += r->right[i] ? r->weight[i] : 0.0;
    }
    f->base = log((right + 0.02) / (all - right + 0.98));
    for (int k = 0; k < r->columns && all > 0.0; k++) {
        double sum = 0.0, square = 0.0;

        for (int i = 0; i < r->n; i++) sum += r->weight[i] * r->x[i * r->columns + k];
        f->mean[k] = sum / all;
        for (int i = 0; i < r->n; i++) {
            double d = r->x[i * r->columns + k] - f->mean[k];

            square += r->weight[i] * d * d;
        }
        f->spread[k] = sqrt(square / all);
        f->used[k] = f->spread[k] >= spread_least;
    }
}

/* What is made small: minus the log likelihood, and the ridge. */
static double cost(const fit *f, const double *w)
{
    double c = 0.5 * base_ridge * (w[0] - f->base) * (w[0] - f->base);

    for (int k = 1; k <= f->rows->columns; k++) c += 0.5 * ridge * w[k] * w[k];
    for (int i = 0; i < f->rows->n; i++) {
        double x = sum_of(f, w, i), wrong = f->rows->right[i] ? -x : x;

        c += f->rows->weight[i] * (wrong > 0.0 ? wrong + log1p(exp(-wrong)) : log1p(exp(wrong)));
    }
    return c;
}

static void slopes(const fit *f, double *g, double h[TERMS][TERMS])
{
    int n = f->rows->columns + 1;

    for (int k = 0; k < n; k++) {
        double pull = k ? ridge : base_ridge;

        g[k] = pull * (f->w[k] - (k ? 0.0 : f->base));
        for (int m = 0; m < n; m++) h[k][m] = k == m ? pull : 0.0;
    }
    for (int i = 0; i < f->rows->n; i++) {
        double t[TERMS], p = logistic(sum_of(f, f->w, i)), weight = f->rows->weight[i];

        for (int k = 0; k < n; k++) t[k] = term(f, i, k);
        for (int k = 0; k < n; k++) {
            g[k] += weight * (p - (f->rows->right[i] ? 1.0 : 0.0)) * t[k];
            for (int m = 0; m < n; m++) h[k][m] += weight * p * (1.0 - p) * t[k] * t[m];
        }
    }
}

/* h x = g, into g; h is positive definite thanks to the ridge. */
static void solve(double h[TERMS][TERMS], double *g, int n)
{
    for (int k = 0; k < n; k++)
        for (int i = k + 1; i < n; i++) {
            double by = h[i][k] / h[k][k];

            for (int m = k; m < n; m++) h[i][m] -= by * h[k][m];
            g[i] -= by * g[k];
        }
    for (int k = n - 1; k >= 0; k--) {
        for (int m = k + 1; m < n; m++) g[k] -= h[k][m] * g[m];
        g[k] /= h[k][k];
    }
}

static void descend(fit *f)
{
    int n = f->rows->columns + 1;
    double now;

    memset(f->w, 0, sizeof f->w);
    f->w[0] = f->base;
    now = cost(f, f->w);
    for (int s = 0; s < STEPS; s++) {
        double g[TERMS], h[TERMS][TERMS], next[TERMS], then = 0.0, step = 1.0;

        slopes(f, g, h);
        solve(h, g, n);
        for (int half = 0; half < 20; half++, step *= 0.5) {
            for (int k = 0; k < n; k++) next[k] = f->w[k] - step * g[k];
            then = cost(f, next);
            if (then <= now) break;
        }
        if (!(then < now - 1e-10)) return;
        memcpy(f->w, next, (size_t)n * sizeof *next);
        now = then;
    }
}

/* The column whose factor is furthest on the wrong side, or -1. */
static int most_wrong(const fit *f)
{
    int worst = -1;

    for (int k = 0; k < f->rows->columns; k++)
        if (f->rows->rising >> k & 1 && f->w[k + 1] < 0.0 &&
            (worst < 0 || f->w[k + 1] < f->w[worst + 1]))
            worst = k;
    return worst;
}

static double within(double x)
{
    return x < -number_most ? -number_most : x > number_most ? number_most : x;
}

void rd_fit_logistic(const rd_fit_rows *rows, double out[RD_FIT_COLUMNS_MOST + 1])
{
    fit f = { .rows = rows };
    int wrong;

    measure_columns(&f);
    for (descend(&f); (wrong = most_wrong(&f)) >= 0; descend(&f)) f.used[wrong] = false;
    out[0] = f.w[0];
    for (int k = 0; k < rows->columns; k++) {
        double factor = f.used[k] ? f.w[k + 1] / f.spread[k] : 0.0;

        out[k + 1] = within(factor);
        out[0] -= factor * f.mean[k];
    }
    out[0] = within(out[0]);
}

/* ---- a run's choice ---- */

static double chance_of(const rd_confidence *c, const rd_hole_text *t)
{
    if (!t->draft)
        return logistic((double)c->own[0] + (double)c->own[1] * t->sure +
                        (double)c->own[2] * t->length + (double)c->own[3] * t->tokens);
    if (!t->scored)
        return logistic((double)c->copy[0] + (double)c->copy[1] * t->tokens +
                        (double)c->copy[2] * t->alike);
    return logistic((double)c->draft[0] + (double)c->draft[1] * t->sure +
                    (double)c->draft[2] * t->length + (double)c->draft[3] * t->end +
                    (double)c->draft[4] * t->tokens + (double)c->draft[5] * t->alike);
}

const rd_fit_text *rd_fit_answer(const rd_confidence *c, const rd_fit_hole *hole, double take_draft,
                                 bool drafts, double *confidence)
{
    double draft = drafts && hole->has_draft ? chance_of(c, &hole->draft.is) : -1.0;
    const rd_fit_text *best = &hole->own[0];

    *confidence = chance_of(c, &best->is);
    for (int i = 1; i < hole->n_own; i++) {
        double p = chance_of(c, &hole->own[i].is);

        if (p <= *confidence) continue;
        *confidence = p;
        best = &hole->own[i];
    }
    if (draft <= take_draft && (double)c->lead * draft <= *confidence) return best;
    *confidence = draft;
    return &hole->draft;
}

/* ---- all numbers ---- */

typedef struct table {
    double *x, *weight;
    bool *right;
    int n, columns;
} table;

static table table_for(int n, int columns)
{
    size_t rows = (size_t)n + 1;

    return (table){ .x = rd_alloc_array(rows, (size_t)columns * sizeof(double)),
                    .weight = rd_alloc_array(rows, sizeof(double)),
                    .right = rd_alloc_array(rows, sizeof(bool)),
                    .columns = columns };
}

static void add_row(table *t, const double *x, bool right, double weight)
{
    memcpy(t->x + t->n * t->columns, x, (size_t)t->columns * sizeof *x);
    t->right[t->n] = right;
    t->weight[t->n++] = weight;
}

/* Fits and empties the table. */
static void fit_table(table *t, unsigned rising, float *out)
{
    double w[TERMS];

    rd_fit_logistic(&(rd_fit_rows){ t->x, t->right, t->weight, t->n, t->columns, rising }, w);
    for (int k = 0; k <= t->columns; k++) out[k] = (float)w[k];
    free(t->x);
    free(t->weight);
    free(t->right);
}

static void fit_own(const rd_fit_hole *hole, int n, rd_confidence *c)
{
    *c = (rd_confidence){ .own = { 0.0f, 1.0f, 1.0f, 0.0f } };
    for (int turn = 0; turn < TURNS; turn++) {
        table t = table_for(n, 3);

        for (int i = 0; i < n; i++) {
            double unused;
            const rd_fit_text *own = rd_fit_answer(c, &hole[i], 2.0, false, &unused);
            double x[] = { own->is.sure, own->is.length, own->is.tokens };

            add_row(&t, x, own->right, hole[i].weight);
        }
        fit_table(&t, 3, c->own);
    }
}

static void fit_drafts(const rd_fit_hole *hole, int n, rd_confidence *c)
{
    table scored = table_for(n, 5), copied = table_for(n, 2);

    for (int i = 0; i < n; i++) {
        const rd_hole_text *d = &hole[i].draft.is;

        if (!hole[i].has_draft) continue;
        if (d->scored)
            add_row(&scored, (double[]){ d->sure, d->length, d->end, d->tokens, d->alike },
                    hole[i].draft.right, hole[i].weight);
        else
            add_row(&copied, (double[]){ d->tokens, d->alike }, hole[i].draft.right,
                    hole[i].weight);
    }
    fit_table(&scored, 1 | 2 | 4 | 16, c->draft);
    fit_table(&copied, 2, c->copy);
}

static double right_answers(const rd_fit_hole *hole, int n, double take_draft,
                            const rd_confidence *c)
{
    double right = 0.0, unused;

    for (int i = 0; i < n; i++)
        right +=
            rd_fit_answer(c, &hole[i], take_draft, true, &unused)->right ? hole[i].weight : 0.0;
    return right;
}

void rd_fit_confidence(const rd_fit_hole *hole, int n, double take_draft, rd_confidence *out)
{
    rd_confidence c;
    double most = -1.0;

    fit_own(hole, n, &c);
    fit_drafts(hole, n, &c);
    for (int i = 0; i <= 2 * LEADS; i++) { /* 1, then by turns above and below, to 4 and 1/4 */
        int away = (i + 1) / 2;

        c.lead = (float)exp2((i % 2 ? 2.0 : -2.0) * away / LEADS);
        double right = right_answers(hole, n, take_draft, &c);

        if (right <= most + 1e-9) continue;
        most = right;
        *out = c;
    }
}
