/* measures.c - means by kind and share, the bootstrap, precision at a share, calibration. */
#include "core/eval/measures.h"

#include "core/base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DRAWS = 1000 };

const double rd_shares[RD_SHARES] = { 0.05, 0.1, 0.2, 0.3, 0.5, 1.0 };

static const double mixture[RD_CASE_KINDS] = { 0.4, 0.2, 0.1, 0.3, 0.0 };

/* ---- one answer ---- */

const char *rd_trim(const char *text, size_t *n)
{
    static const char white[] = " \t\r\n\f\v";

    while (*n > 0 && memchr(white, text[*n - 1], sizeof white - 1)) --*n;
    while (*n > 0 && memchr(white, *text, sizeof white - 1)) {
        text++;
        --*n;
    }
    return text;
}

double rd_similarity(const char *a, size_t n, const char *b, size_t m)
{
    size_t *row = rd_alloc_array(m + 1, sizeof *row), longest = n > m ? n : m;

    for (size_t j = 0; j <= m; j++) row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0];

        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);

            diagonal = row[j];
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    double distance = (double)row[m];

    free(row);
    return longest ? 1.0 - distance / (double)longest : 1.0;
}

rd_outcome rd_outcome_of(const char *answer, size_t n, const char *reference, size_t m)
{
    rd_outcome o = { .strict = n == m && (n == 0 || !memcmp(answer, reference, n)),
                     .whole = -1,
                     .confidence = -1.0,
                     .forwards = -1.0,
                     .ms = -1.0 };

    answer = rd_trim(answer, &n);
    reference = rd_trim(reference, &m);
    o.exact = n == m && (n == 0 || !memcmp(answer, reference, n));
    o.similarity = rd_similarity(answer, n, reference, m);
    return o;
}

/* ---- sets ---- */

bool rd_set_has(const rd_cases *c, const rd_set *s, int i)
{
    const rd_case *one = &c->at[i];

    return s->share[one->kind] > 0.0 &&
           (!s->language || !strcmp(s->language, c->file[one->file].language));
}

/* Each kind with a share has a case of the language. */
static bool has_all(const rd_cases *c, const rd_set *s)
{
    bool there[RD_CASE_KINDS] = { false };

    for (int i = 0; i < c->n; i++)
        if (rd_set_has(c, s, i)) there[c->at[i].kind] = true;
    for (int k = 0; k < RD_CASE_KINDS; k++)
        if (s->share[k] > 0.0 && !there[k]) return false;
    return true;
}

int rd_sets_of(const rd_cases *c, rd_set out[RD_SETS_MOST])
{
    static const char *const languages[][2] = { { "mixed", NULL },
                                                { "mixed/python", "python" },
                                                { "mixed/c", "c" } };
    int n = 0;

    for (int k = 0; k < RD_CASE_KINDS; k++) {
        rd_set s = { .name = rd_case_kind_name((rd_case_kind)k) };

        s.share[k] = 1.0;
        if (has_all(c, &s)) out[n++] = s;
    }
    for (int l = 0; l < 3; l++) {
        rd_set s = { .name = languages[l][0], .language = languages[l][1] };

        memcpy(s.share, mixture, sizeof s.share);
        if (has_all(c, &s)) out[n++] = s;
    }
    return n;
}

/* ---- means ---- */

typedef struct tally {
    double sum[RD_CASE_KINDS], n[RD_CASE_KINDS];
} tally;

/* A kind that a draw of files has no case of leaves its weight to the others. */
static double mean(const rd_set *s, const tally *t)
{
    double sum = 0.0, weight = 0.0;

    for (int k = 0; k < RD_CASE_KINDS; k++) {
        if (s->share[k] <= 0.0 || t->n[k] <= 0.0) continue;
        sum += s->share[k] * t->sum[k] / t->n[k];
        weight += s->share[k];
    }
    return weight > 0.0 ? sum / weight : NAN;
}

static int ascending(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;

    return (a > b) - (a < b);
}

static void add_tally(tally *to, const tally *from)
{
    for (int k = 0; k < RD_CASE_KINDS; k++) {
        to->sum[k] += from->sum[k];
        to->n[k] += from->n[k];
    }
}

/* Draws as many files as there are, with repeats; the interval leaves out 2.5 % at each end. */
static void bootstrap(const rd_set *s, const tally *file, int files, double ci[2])
{
    rd_random random = rd_random_seed(1);
    double *means = rd_alloc_array(DRAWS, sizeof *means);
    int n = 0;

    for (int d = 0; d < DRAWS; d++) {
        tally t = { { 0 }, { 0 } };

        for (int i = 0; i < files; i++)
            add_tally(&t, &file[rd_random_below(&random, (uint32_t)files)]);
        means[n] = mean(s, &t);
        n += !isnan(means[n]);
    }
    qsort(means, (size_t)n, sizeof *means, ascending);
    ci[0] = n ? means[(int)(0.025 * (n - 1) + 0.5)] : NAN;
    ci[1] = n ? means[(int)(0.975 * (n - 1) + 0.5)] : NAN;
    free(means);
}

double rd_mean_of(const rd_cases *c, const rd_set *s, const double *value, double ci[2])
{
    tally *file = rd_alloc_array((size_t)c->files + 1, sizeof *file), all = { { 0 }, { 0 } };
    int *slot = rd_alloc_array((size_t)c->files + 1, sizeof *slot), files = 0;

    for (int i = 0; i < c->n; i++) {
        const rd_case *one = &c->at[i];

        if (!rd_set_has(c, s, i) || isnan(value[i])) continue;
        if (!slot[one->file]) slot[one->file] = ++files;
        tally *t = &file[slot[one->file] - 1];

        t->sum[one->kind] += value[i];
        t->n[one->kind] += 1.0;
    }
    for (int i = 0; i < files; i++) add_tally(&all, &file[i]);
    if (ci && files)
        bootstrap(s, file, files, ci);
    else if (ci)
        ci[0] = ci[1] = NAN;
    free(file);
    free(slot);
    return mean(s, &all);
}

/* ---- confidence ---- */

typedef struct sure {
    double confidence, weight;
    bool exact;
} sure;

static int surest_first(const void *x, const void *y)
{
    const sure *a = x, *b = y;

    return (a->confidence < b->confidence) - (a->confidence > b->confidence);
}

/* The members of the set, surest first; a case weighs its kind's share over the kind's count. */
static sure *sorted(const rd_cases *c, const rd_set *s, const rd_outcome *o, int *n)
{
    sure *list = rd_alloc_array((size_t)c->n + 1, sizeof *list);
    int count[RD_CASE_KINDS] = { 0 };

    *n = 0;
    for (int i = 0; i < c->n; i++) count[c->at[i].kind] += rd_set_has(c, s, i);
    for (int i = 0; i < c->n; i++) {
        rd_case_kind k = c->at[i].kind;

        if (!rd_set_has(c, s, i)) continue;
        list[(*n)++] = (sure){ o[i].confidence, s->share[k] / count[k], o[i].exact };
    }
    qsort(list, (size_t)*n, sizeof *list, surest_first);
    return list;
}

typedef struct part {
    double all, right, confidence;
} part;

/* The surest share of the list. Cases of equal confidence that straddle the cut count in part, so that their
 * order does not matter. */
static part surest(const sure *list, int n, double share)
{
    double all = 0.0;
    part p = { .confidence = NAN };

    for (int i = 0; i < n; i++) all += list[i].weight;
    double want = share * all;

    for (int i = 0, j; i < n && p.all < want; i = j) {
        double weight = 0.0, good = 0.0;

        for (j = i; j < n && list[j].confidence == list[i].confidence; j++) {
            weight += list[j].weight;
            good += list[j].exact ? list[j].weight : 0.0;
        }
        double some = weight > want - p.all ? (want - p.all) / weight : 1.0;

        p.all += some * weight;
        p.right += some * good;
        p.confidence = list[i].confidence;
    }
    return p;
}

static double precision_of(part p)
{
    return p.all > 0.0 ? p.right / p.all : NAN;
}

static void show_shares(const sure *list, int n, rd_measure *out)
{
    part before = { 0 };

    for (int i = 0; i < RD_SHARES; i++) {
        part p = surest(list, n, rd_shares[i]);
        part last = { p.all - before.all, p.right - before.right, 0.0 };

        out->shown[i] = (rd_shown){ p.confidence, precision_of(p), precision_of(last) };
        before = p;
    }
    out->precision[0] = precision_of(surest(list, n, 0.1));
    out->precision[1] = precision_of(surest(list, n, 0.3));
}

/* A case belongs to the bin that the middle of its weight falls into; the list has the surest first. */
static void calibrate(const sure *list, int n, rd_measure *out)
{
    double mass[RD_BINS] = { 0 }, all = 0.0, below = 0.0;

    for (int i = 0; i < n; i++) all += list[i].weight;
    out->bins = n < RD_BINS ? n : RD_BINS;
    for (int i = n - 1; i >= 0; i--) {
        const sure *one = &list[i];
        int b = (int)((below + 0.5 * one->weight) / all * out->bins);
        rd_bin *bin = &out->bin[b < out->bins ? b : out->bins - 1];

        below += one->weight;
        mass[bin - out->bin] += one->weight;
        bin->confidence += one->weight * one->confidence;
        bin->em += one->exact ? one->weight : 0.0;
        bin->cases++;
    }
    out->calibration = 0.0;
    for (int b = 0; b < out->bins; b++) {
        if (mass[b] <= 0.0) continue;
        out->bin[b].confidence /= mass[b];
        out->bin[b].em /= mass[b];
        out->calibration += fabs(out->bin[b].confidence - out->bin[b].em) * mass[b] / all;
    }
}

/* ---- the gate ---- */

/* Blocks of neighbours whose share of right answers falls from each to the next; as many as are returned. */
static int pool(const sure *list, int n, part *block)
{
    int blocks = 0;

    for (int i = 0, j; i < n; i = j) {
        part p = { .confidence = list[i].confidence };

        for (j = i; j < n && list[j].confidence == p.confidence; j++) {
            p.all += list[j].weight;
            p.right += list[j].exact ? list[j].weight : 0.0;
        }
        for (; blocks > 0 && precision_of(block[blocks - 1]) <= precision_of(p); blocks--) {
            p.all += block[blocks - 1].all;
            p.right += block[blocks - 1].right;
        }
        block[blocks++] = p;
    }
    return blocks;
}

void rd_gate_find(const rd_cases *c, const rd_set *s, const rd_outcome *o, double worth,
                  rd_gate *out)
{
    int n;
    sure *list = sorted(c, s, o, &n);
    part *block = rd_alloc_array((size_t)n + 1, sizeof *block);
    int blocks = pool(list, n, block);
    double gate = 1.0;

    for (int b = 0; b < blocks && precision_of(block[b]) >= worth; b++) gate = block[b].confidence;
    rd_gate_try(c, s, o, gate, out);
    free(block);
    free(list);
}

void rd_gate_try(const rd_cases *c, const rd_set *s, const rd_outcome *o, double confidence,
                 rd_gate *out)
{
    int n;
    sure *list = sorted(c, s, o, &n);
    double all = 0.0;
    part p = { 0 };

    for (int i = 0; i < n; i++) {
        all += list[i].weight;
        if (list[i].confidence < confidence) continue;
        p.all += list[i].weight;
        p.right += list[i].exact ? list[i].weight : 0.0;
    }
    *out = (rd_gate){ confidence, all > 0.0 ? p.all / all : 0.0, precision_of(p) };
    free(list);
}

/* ---- all of it ---- */

static double known(double x)
{
    return x < 0.0 ? NAN : x;
}

static void measure_time(const rd_cases *c, const rd_set *s, const rd_outcome *o, rd_measure *out)
{
    double *ms = rd_alloc_array((size_t)c->n + 1, sizeof *ms);
    int n = 0;

    for (int i = 0; i < c->n; i++)
        if (rd_set_has(c, s, i) && o[i].ms >= 0.0) ms[n++] = o[i].ms;
    qsort(ms, (size_t)n, sizeof *ms, ascending);
    out->ms_median = n ? ms[(n - 1) / 2] : NAN;
    out->ms_95 = n ? ms[(int)(0.95 * (n - 1) + 0.5)] : NAN;
    free(ms);
}

void rd_measure_of(const rd_cases *c, const rd_set *s, const rd_outcome *o, rd_measure *out)
{
    double *v = rd_alloc_array((size_t)c->n + 1, sizeof *v);
    bool *seen = rd_alloc_array((size_t)c->files + 1, sizeof *seen), sure_of_any = false;
    int n;

    *out = (rd_measure){ .precision = { NAN, NAN }, .calibration = NAN };
    for (int i = 0; i < c->n; i++) {
        if (!rd_set_has(c, s, i)) continue;
        out->cases++;
        out->files += !seen[c->at[i].file];
        seen[c->at[i].file] = true;
        out->whole_cases += o[i].whole >= 0;
        sure_of_any = sure_of_any || o[i].confidence >= 0.0;
    }
    for (int i = 0; i < c->n; i++) v[i] = o[i].exact;
    out->em = rd_mean_of(c, s, v, out->em_ci);
    for (int i = 0; i < c->n; i++) v[i] = o[i].similarity;
    out->similarity = rd_mean_of(c, s, v, out->similarity_ci);
    for (int i = 0; i < c->n; i++) v[i] = o[i].strict;
    out->strict = rd_mean_of(c, s, v, NULL);
    for (int i = 0; i < c->n; i++) v[i] = known(o[i].whole);
    out->whole = rd_mean_of(c, s, v, NULL);
    for (int i = 0; i < c->n; i++) v[i] = known(o[i].forwards);
    out->forwards = rd_mean_of(c, s, v, NULL);
    for (int i = 0; i < c->n; i++) v[i] = known(o[i].ms);
    out->ms = rd_mean_of(c, s, v, NULL);
    measure_time(c, s, o, out);
    if (sure_of_any) {
        sure *list = sorted(c, s, o, &n);

        show_shares(list, n, out);
        calibrate(list, n, out);
        free(list);
    }
    free(v);
    free(seen);
}
