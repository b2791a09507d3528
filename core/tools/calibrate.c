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

static const rd_set *main_set(const half *h)
{
    for (int i = 0; i < h->sets; i++)
        if (!strcmp(h->set[i].name, "mixed")) return &h->set[i];
    return &h->set[0];
}

/* What the numbers come to on a half: with drafts, and the model alone. */
typedef struct verdict {
    const half *h;
    rd_outcome *both, *alone; /* [cases] */
    rd_gate gate;
} verdict;

static verdict judge(const half *h, rd_confidence *c, float quality)
{
    size_t n = (size_t)h->cases.n + 1;
    verdict v = { .h = h,
                  .both = rd_alloc_array(n, sizeof *v.both),
                  .alone = rd_alloc_array(n, sizeof *v.alone) };

    answer(h, c, quality, true, v.both);
    answer(h, c, quality, false, v.alone);
    rd_gate_find(&h->cases, main_set(h), v.both, RD_GATE_WORTH, &v.gate);
    c->gate = (float)v.gate.confidence;
    return v;
}

static void put_numbers(const float *x, const char *const *name, int n, rd_buf *out)
{
    for (int i = 0; i < n; i++)
        rd_buf_format(out, "%s %s %.4g", i ? "," : "", name[i], (double)x[i]);
    rd_buf_text(out, "\n");
}

static void put_row(const verdict *v, const rd_set *s, bool drafts, rd_buf *out)
{
    rd_measure m;

    rd_measure_of(&v->h->cases, s, drafts ? v->both : v->alone, &m);
    rd_buf_format(out, "%-12s  %-6s %5d %6.1f %5.1f - %5.1f %6.1f %6.1f %12.4f\n", s->name,
                  drafts ? "both" : "model", m.cases, 100.0 * m.em, 100.0 * m.em_ci[0],
                  100.0 * m.em_ci[1], 100.0 * m.precision[0], 100.0 * m.precision[1],
                  m.calibration);
}

static void put_table(const half *fitted, const rd_confidence *c, const verdict *v, rd_buf *out)
{
    static const char *const own[] = { "base", "sure", "length", "tokens" };
    static const char *const draft[] = { "base", "sure", "length", "end", "tokens", "alike" };
    static const char *const copy[] = { "base", "tokens", "alike" };

    rd_buf_format(out, "fitted on %d holes of %d files:\nown   ", fitted->cases.n, fitted->files);
    put_numbers(c->own, own, 4, out);
    rd_buf_text(out, "draft ");
    put_numbers(c->draft, draft, 6, out);
    rd_buf_text(out, "copy  ");
    put_numbers(c->copy, copy, 3, out);
    rd_buf_format(out, "lead   %.4g\non %d holes of %d other files:\n", (double)c->lead,
                  v->h->cases.n, v->h->files);
    rd_buf_format(out, "%-12s  %-6s %5s %6s %13s %6s %6s %12s\n", "set", "row", "cases", "exact",
                  "95 %", "p@10", "p@30", "calibration");
    for (int s = 0; s < v->h->sets; s++)
        for (int drafts = 1; drafts >= 0; drafts--) put_row(v, &v->h->set[s], drafts, out);
    rd_buf_format(out, "gate   %.4g: shows %.1f %% of %s", (double)c->gate, 100.0 * v->gate.share,
                  main_set(v->h)->name);
    if (v->gate.share > 0.0)
        rd_buf_format(out, ", of which %.1f %% are right", 100.0 * v->gate.precision);
    rd_buf_text(out, "\n");
}

static void put_json(const half *fitted, const rd_confidence *c, const verdict *v, rd_buf *out)
{
    rd_buf_text(out, "{\"redraft_confidence\":");
    rd_config_put_confidence(c, out);
    rd_buf_format(out,
                  ",\"fitted\":{\"cases\":%d,\"files\":%d},\"judged\":{\"cases\":%d,"
                  "\"files\":%d},\"sets\":[",
                  fitted->cases.n, fitted->files, v->h->cases.n, v->h->files);
    for (int s = 0; s < v->h->sets; s++) {
        rd_measure m;

        rd_measure_of(&v->h->cases, &v->h->set[s], v->both, &m);
        rd_buf_format(out,
                      "%s{\"name\":\"%s\",\"cases\":%d,\"em\":%.6g,\"ci\":[%.6g,%.6g],"
                      "\"precision_at\":{\"0.1\":%.6g,\"0.3\":%.6g},\"calibration_error\":%.6g",
                      s ? "," : "", v->h->set[s].name, m.cases, m.em, m.em_ci[0], m.em_ci[1],
                      m.precision[0], m.precision[1], m.calibration);
        rd_measure_of(&v->h->cases, &v->h->set[s], v->alone, &m);
        rd_buf_format(out, ",\"model_em\":%.6g,\"model_calibration_error\":%.6g}", m.em,
                      m.calibration);
    }
    rd_buf_format(out, "],\"gate\":{\"confidence\":%.6g,\"shown\":%.6g,\"precision\":",
                  v->gate.confidence, v->gate.share);
    if (v->gate.share > 0.0)
        rd_buf_format(out, "%.6g}}\n", v->gate.precision);
    else
        rd_buf_text(out, "null}}\n");
}

static rd_status fit_and_print(const rd_args *a, half part[2], float quality, rd_error *err)
{
    const char *dir = rd_args_text(a, "--write");
    rd_buf out = { 0 };
    rd_confidence c;

    rd_fit_confidence(part[0].hole, part[0].cases.n, (double)rd_engine_takes_draft(quality), &c);
    verdict v = judge(&part[1], &c, quality);

    if (rd_args_flag(a, "--json"))
        put_json(&part[0], &c, &v, &out);
    else
        put_table(&part[0], &c, &v, &out);
    fwrite(out.data, 1, out.len, stdout);
    rd_buf_clear(&out);
    free(v.both);
    free(v.alone);
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
