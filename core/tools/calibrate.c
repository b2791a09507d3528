/* calibrate.c - redraft eval --calibrate: a model's confidence, fitted on one half of the files and judged on the other.
 *
 * Each hole is run once, and all that it weighed is kept (core/texts.h); fitting and judging are then a matter
 * of milliseconds (core/eval/fit.h). What is said of the other half is what runs with the new numbers answer.
 */
#include "core/tools/eval.h"

#include "core/base/memory.h"
#include "core/eval/fit.h"
#include "core/eval/measures.h"
#include "core/texts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Half of the cases with what their runs weighed. */
typedef struct half {
    rd_cases cases; /* files are borrowed, cases copied */
    rd_fit_hole *hole;
    rd_set set[RD_SETS_MOST];
    int sets, files;
} half;

/* ---- runs ---- */

static void keep_texts(const rd_run *r, const char *reference, size_t n, rd_fit_hole *out)
{
    rd_buf text = { 0 };
    rd_hole_text is;

    for (int i = 0; rd_run_text_at(r, i, &is, &text); i++) {
        const char *answer = text.data ? text.data : "";
        rd_fit_text found = { is, rd_outcome_of(answer, text.len, reference, n).exact };

        if (is.draft) {
            out->draft = found;
            out->has_draft = true;
        } else {
            out->own[out->n_own++] = found;
        }
        rd_buf_reset(&text);
    }
    rd_buf_clear(&text);
}

static rd_status run_hole(rd_engine *e, const rd_cases *c, int i, float quality, rd_fit_hole *out,
                          rd_error *err)
{
    rd_request rq = rd_case_request(c, i);
    rd_run *r = NULL;
    rd_step s = { 0 };
    size_t n;
    const char *reference = rd_case_text(c, i, &n);

    rq.quality = quality;
    if (rd_run_open_weighed(e, &rq, &r, err)) return err->status;
    while (!s.done && !rd_run_step(r, &s, err)) continue;
    if (s.done) keep_texts(r, reference, n, out);
    rd_run_close(r);
    return s.done ? RD_OK : err->status;
}

static rd_status run_holes(rd_engine *e, half *h, float quality, const char *what, rd_error *err)
{
    for (int i = 0; i < h->cases.n; i++) {
        if (run_hole(e, &h->cases, i, quality, &h->hole[i], err)) return err->status;
        rd_say_progress(what, i + 1, h->cases.n);
    }
    return RD_OK;
}

/* ---- halves ---- */

/* The set that the numbers are fitted for: the mixture, or all cases alike. */
static void weigh(half *h)
{
    const rd_set *mixed = NULL;
    int count[RD_CASE_KINDS] = { 0 };

    for (int i = 0; i < h->sets; i++)
        if (!strcmp(h->set[i].name, "mixed")) mixed = &h->set[i];
    for (int i = 0; i < h->cases.n; i++) count[h->cases.at[i].kind]++;
    for (int i = 0; i < h->cases.n; i++) {
        rd_case_kind k = h->cases.at[i].kind;

        h->hole[i].weight = mixed ? mixed->share[k] * h->cases.n / count[k] : 1.0;
    }
}

/* Every other file that has cases, in the order in which the cases name them. */
static void split(const rd_cases *c, half out[2])
{
    int *side = rd_alloc_array((size_t)c->files + 1, sizeof *side), seen = 0;

    for (int k = 0; k < 2; k++) {
        out[k].cases = (rd_cases){ .file = c->file, .files = c->files };
        out[k].cases.at = rd_alloc_array((size_t)c->n + 1, sizeof *c->at);
        out[k].hole = rd_alloc_array((size_t)c->n + 1, sizeof *out[k].hole);
    }
    for (int i = 0; i < c->n; i++) {
        int *of = &side[c->at[i].file];

        if (!*of) {
            *of = 1 + seen % 2;
            out[seen++ % 2].files++;
        }
        half *h = &out[*of - 1];

        h->cases.at[h->cases.n++] = c->at[i];
    }
    for (int k = 0; k < 2; k++) {
        out[k].sets = rd_sets_of(&out[k].cases, out[k].set);
        weigh(&out[k]);
    }
    free(side);
}

static void clear(half *h)
{
    free(h->cases.at);
    free(h->hole);
}

/* ---- what it is worth ---- */

static void answer(const half *h, const rd_confidence *c, float quality, bool drafts,
                   rd_outcome *out)
{
    for (int i = 0; i < h->cases.n; i++) {
        const rd_fit_text *t = rd_fit_answer(c, &h->hole[i], (double)rd_engine_takes_draft(quality),
                                             drafts, &out[i].confidence);

        out[i].exact = t->right;
    }
}

static void print_numbers(const rd_confidence *c)
{
    printf("own    base %.4g, sure %.4g, length %.4g, tokens %.4g\n", (double)c->own[0],
           (double)c->own[1], (double)c->own[2], (double)c->own[3]);
    printf("draft  base %.4g, sure %.4g, length %.4g, end %.4g, tokens %.4g, alike %.4g\n",
           (double)c->draft[0], (double)c->draft[1], (double)c->draft[2], (double)c->draft[3],
           (double)c->draft[4], (double)c->draft[5]);
    printf("copy   base %.4g, tokens %.4g, alike %.4g\n", (double)c->copy[0], (double)c->copy[1],
           (double)c->copy[2]);
    printf("lead   %.4g\n", (double)c->lead);
}

static void print_table(const half *h, const rd_confidence *c, float quality)
{
    rd_outcome *o = rd_alloc_array((size_t)h->cases.n + 1, sizeof *o);

    printf("%-12s  %-6s %5s %6s %13s %6s %6s %12s\n", "set", "row", "cases", "exact", "95 %",
           "p@10", "p@30", "calibration");
    for (int s = 0; s < h->sets; s++)
        for (int drafts = 1; drafts >= 0; drafts--) {
            rd_measure m;

            answer(h, c, quality, drafts, o);
            rd_measure_of(&h->cases, &h->set[s], o, &m);
            printf("%-12s  %-6s %5d %6.1f %5.1f - %5.1f %6.1f %6.1f %12.4f\n", h->set[s].name,
                   drafts ? "both" : "model", m.cases, 100.0 * m.em, 100.0 * m.em_ci[0],
                   100.0 * m.em_ci[1], 100.0 * m.precision[0], 100.0 * m.precision[1],
                   m.calibration);
        }
    free(o);
}

static rd_status fit_and_print(const rd_args *a, half part[2], float quality, rd_error *err)
{
    const char *dir = rd_args_text(a, "--write");
    rd_confidence c;

    rd_fit_confidence(part[0].hole, part[0].cases.n, (double)rd_engine_takes_draft(quality), &c);
    printf("fitted on %d holes of %d files:\n", part[0].cases.n, part[0].files);
    print_numbers(&c);
    printf("on %d holes of %d other files:\n", part[1].cases.n, part[1].files);
    print_table(&part[1], &c, quality);
    return dir ? rd_config_set_confidence(dir, &c, err) : RD_OK;
}

rd_status rd_calibrate(const rd_args *a, rd_engine *e, const rd_cases *cases, float quality,
                       rd_error *err)
{
    half part[2] = { 0 };
    rd_status s;

    split(cases, part);
    if (part[1].cases.n == 0)
        s = rd_fail(err, RD_INVALID, "one file is not enough: half of the files judge");
    else if (!(s = run_holes(e, &part[0], quality, "holes to fit", err)) &&
             !(s = run_holes(e, &part[1], quality, "holes to judge", err)))
        s = fit_and_print(a, part, quality, err);
    clear(&part[0]);
    clear(&part[1]);
    return s;
}
