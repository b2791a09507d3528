/* report.c - rows kept, and written as a table or as JSON. */
#include "core/eval/report.h"

#include "core/base/memory.h"
#include "core/eval/found.h"
#include "core/format/record.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

rd_row *rd_report_add(rd_report *r, rd_row_kind kind, const char *name, float quality)
{
    assert(r->rows < RD_ROWS_MOST);
    rd_row *row = &r->row[r->rows++];

    *row = (rd_row){ .kind = kind, .name = name, .quality = quality };
    row->outcome = rd_alloc_array((size_t)r->cases.n + 1, sizeof *row->outcome);
    row->text = rd_alloc_array((size_t)r->cases.n + 1, sizeof *row->text);
    return row;
}

const rd_row *rd_report_find(const rd_report *r, rd_row_kind kind, float quality)
{
    for (int i = 0; i < r->rows; i++)
        if (r->row[i].kind == kind && r->row[i].quality == quality) return &r->row[i];
    return NULL;
}

const rd_row *rd_report_main(const rd_report *r)
{
    return rd_report_find(r, r->drafts ? RD_ROW_BOTH : RD_ROW_MODEL, r->quality[r->main]);
}

const rd_set *rd_report_set(const rd_report *r)
{
    for (int i = 0; i < r->sets; i++)
        if (!strcmp(r->set[i].name, "mixed")) return &r->set[i];
    return &r->set[0];
}

void rd_report_clear(rd_report *r)
{
    for (int i = 0; i < r->rows; i++) {
        for (int k = 0; k < r->cases.n; k++) rd_buf_clear(&r->row[i].text[k]);
        free(r->row[i].outcome);
        free(r->row[i].text);
    }
    free(r->faults.fault);
    free(r->faults.mended);
    free(r->faults.spared);
    free(r->faults.touched);
    free(r->faults.found);
    free(r->faults.blindly);
    free(r->faults.wrong.at);
    free(r->faults.clean.at);
    rd_cases_clear(&r->cases);
    *r = (rd_report){ 0 };
}

/* ---- JSON ---- */

static void put_value(rd_buf *out, double x)
{
    if (isnan(x))
        rd_buf_text(out, "null");
    else
        rd_buf_format(out, "%.6g", x);
}

static void write_number(rd_buf *out, const char *key, double x)
{
    rd_buf_format(out, ",\"%s\":", key);
    put_value(out, x);
}

static void write_interval(rd_buf *out, const char *key, const double ci[2])
{
    rd_buf_format(out, ",\"%s\":", key);
    if (isnan(ci[0]))
        rd_buf_text(out, "null");
    else
        rd_buf_format(out, "[%.6g,%.6g]", ci[0], ci[1]);
}

static void write_measure(rd_buf *out, const char *name, const rd_measure *m)
{
    rd_buf_format(out, "{\"name\":\"%s\",\"cases\":%d,\"files\":%d", name, m->cases, m->files);
    write_number(out, "em", m->em);
    write_number(out, "edit_similarity", m->similarity);
    write_interval(out, "ci", m->em_ci);
    write_interval(out, "edit_similarity_ci", m->similarity_ci);
    write_number(out, "em_strict", m->strict);
    write_number(out, "whole", m->whole);
    rd_buf_format(out, ",\"whole_cases\":%d,\"precision_at\":{\"0.1\":", m->whole_cases);
    put_value(out, m->precision[0]);
    rd_buf_text(out, ",\"0.3\":");
    put_value(out, m->precision[1]);
    rd_buf_text(out, "}");
    write_number(out, "calibration_error", m->calibration);
    write_number(out, "forwards", m->forwards);
    write_number(out, "ms", m->ms);
    write_number(out, "ms_median", m->ms_median);
    write_number(out, "ms_95", m->ms_95);
}

/* How much exact match the model alone loses because the length is not told. */
static double length_loss(const rd_report *r, const rd_set *s, double ci[2])
{
    const rd_row *given = rd_report_find(r, RD_ROW_LENGTH, r->quality[r->main]);
    const rd_row *alone = rd_report_find(r, RD_ROW_MODEL, r->quality[r->main]);
    double *v = rd_alloc_array((size_t)r->cases.n + 1, sizeof *v), loss = NAN;
    bool known = given && alone;

    ci[0] = ci[1] = NAN;
    for (int i = 0; known && i < r->cases.n; i++)
        v[i] = (double)given->outcome[i].exact - (double)alone->outcome[i].exact;
    if (known) loss = rd_mean_of(&r->cases, s, v, ci);
    free(v);
    return loss;
}

static void write_bins(rd_buf *out, const rd_measure *m)
{
    rd_buf_text(out, ",\"calibration\":[");
    for (int b = 0; b < m->bins; b++)
        rd_buf_format(out, "%s{\"cases\":%d,\"confidence\":%.6g,\"em\":%.6g}", b ? "," : "",
                      m->bin[b].cases, m->bin[b].confidence, m->bin[b].em);
    rd_buf_text(out, "]");
}

static void write_shares(rd_buf *out, const rd_measure *m)
{
    rd_buf_text(out, ",\"shares\":[");
    for (int i = 0; i < RD_SHARES; i++) {
        rd_buf_format(out, "%s{\"shown\":%g", i ? "," : "", rd_shares[i]);
        write_number(out, "confidence", m->shown[i].confidence);
        write_number(out, "precision", m->shown[i].precision);
        write_number(out, "precision_of_last", m->shown[i].last);
        rd_buf_text(out, "}");
    }
    rd_buf_text(out, "]");
}

static void write_gate(rd_buf *out, const char *key, const rd_gate *g)
{
    rd_buf_format(out, "\"%s\":{\"confidence\":%.6g,\"shown\":%.6g", key, g->confidence, g->share);
    write_number(out, "precision", g->precision);
    rd_buf_text(out, "}");
}

/* Of the main row: the model's own gate, and the one that these cases speak for. */
static void write_gates(const rd_report *r, rd_buf *out)
{
    const rd_outcome *o = rd_report_main(r)->outcome;
    rd_gate g;

    rd_buf_format(out, ",\"gate\":{\"worth\":%.6g,", RD_GATE_WORTH);
    if (r->gate >= 0.0) {
        rd_gate_try(&r->cases, rd_report_set(r), o, r->gate, &g);
        write_gate(out, "model", &g);
        rd_buf_text(out, ",");
    }
    rd_gate_find(&r->cases, rd_report_set(r), o, RD_GATE_WORTH, &g);
    write_gate(out, "measured", &g);
    rd_buf_text(out, "}");
}

static void write_row(const rd_report *r, rd_buf *out, const rd_row *row, bool is_main)
{
    rd_buf_text(out, "[");
    for (int i = 0; i < r->sets; i++) {
        rd_measure m;

        rd_measure_of(&r->cases, &r->set[i], row->outcome, &m);
        if (i) rd_buf_text(out, ",");
        write_measure(out, r->set[i].name, &m);
        if (is_main) {
            double ci[2], loss = length_loss(r, &r->set[i], ci);

            write_number(out, "length_loss", loss);
            write_interval(out, "length_loss_ci", ci);
            write_bins(out, &m);
            write_shares(out, &m);
        }
        rd_buf_text(out, "}");
    }
    rd_buf_text(out, "]");
}

/* An object of the rows whose kinds lie from `first` to `last`, at the main place of the dial. */
static void write_rows(const rd_report *r, rd_buf *out, const char *key, rd_row_kind first,
                       rd_row_kind last)
{
    bool any = false;

    rd_buf_format(out, ",\"%s\":{", key);
    for (int i = 0; i < r->rows; i++) {
        const rd_row *row = &r->row[i];

        if (row->kind < first || row->kind > last) continue;
        if (row->kind < RD_ROW_COPY && row->quality != r->quality[r->main]) continue;
        rd_buf_format(out, "%s\"%s\":", any ? "," : "", row->name);
        write_row(r, out, row, false);
        any = true;
    }
    rd_buf_text(out, "}");
}

static double whole_mean(const rd_cases *c, const double *v, double ci[2])
{
    rd_set all = { .name = "", .share = { [RD_CASE_GIVEN] = 1.0 } };

    return rd_mean_of(c, &all, v, ci);
}

/* The mean of a value over the windows with one kind of fault. */
static double by_fault(const rd_fault_report *f, rd_fault fault, const double *value, int *n)
{
    double sum = 0.0;

    *n = 0;
    for (int i = 0; i < f->wrong.n; i++) {
        if (f->fault[i] != fault) continue;
        sum += value[i];
        ++*n;
    }
    return *n ? sum / *n : NAN;
}

static void write_faults(const rd_report *r, rd_buf *out)
{
    const rd_fault_report *f = &r->faults;
    double ci[2];
    int n;

    rd_buf_text(out, ",\"faults\":");
    if (f->wrong.n == 0 || f->clean.n == 0) {
        rd_buf_text(out, "null");
        return;
    }
    rd_buf_format(out, "{\"cases\":%d", f->wrong.n);
    write_number(out, "mended", whole_mean(&f->wrong, f->mended, ci));
    write_interval(out, "mended_ci", ci);
    write_number(out, "touched", whole_mean(&f->wrong, f->touched, NULL));
    write_number(out, "found", whole_mean(&f->wrong, f->found, ci));
    write_interval(out, "found_ci", ci);
    write_number(out, "found_blindly", whole_mean(&f->wrong, f->blindly, NULL));
    rd_buf_format(out, ",\"clean_cases\":%d", f->clean.n);
    write_number(out, "left_alone", whole_mean(&f->clean, f->spared, ci));
    write_interval(out, "left_alone_ci", ci);
    write_number(out, "forwards", f->forwards);
    write_number(out, "ms", f->ms);
    rd_buf_text(out, ",\"by_fault\":{");
    for (int k = 0; k < RD_FAULTS; k++) {
        double mended = by_fault(f, (rd_fault)k, f->mended, &n);

        rd_buf_format(out, "%s\"%s\":{\"cases\":%d", k ? "," : "", rd_fault_name((rd_fault)k), n);
        write_number(out, "mended", mended);
        write_number(out, "touched", by_fault(f, (rd_fault)k, f->touched, &n));
        write_number(out, "found", by_fault(f, (rd_fault)k, f->found, &n));
        rd_buf_text(out, "}");
    }
    rd_buf_text(out, "}}");
}

void rd_report_json(const rd_report *r, rd_buf *out)
{
    const rd_row *top = rd_report_main(r);

    rd_buf_text(out, "{\"sets\":");
    write_row(r, out, top, true);
    write_rows(r, out, "rows", RD_ROW_BOTH, RD_ROW_COPY);
    rd_buf_text(out, ",\"dial\":[");
    for (int i = 0; i < r->qualities; i++) {
        rd_buf_format(out, "%s{\"quality\":%g,\"sets\":", i ? "," : "", (double)r->quality[i]);
        write_row(r, out, rd_report_find(r, top->kind, r->quality[i]), false);
        rd_buf_text(out, "}");
    }
    rd_buf_text(out, "]");
    write_rows(r, out, "floors", RD_ROW_COPY, RD_ROW_FLOOR);
    write_gates(r, out);
    write_faults(r, out);
    rd_buf_text(out, ",\"bits_per_byte\":{\"model\":");
    put_value(out, r->bits_model);
    write_number(out, "ngram", r->bits_ngram);
    rd_buf_format(out, "},\"quality\":%g,\"drafts\":%s,\"whole_by\":\"%s\",\"seed\":%d,\"engine\":",
                  (double)top->quality, r->drafts ? "true" : "false",
                  r->python ? "python and brackets" : "brackets", r->seed);
    rd_json_quote(out, r->engine, strlen(r->engine));
    rd_buf_text(out, "}\n");
}

/* ---- table ---- */

/* A share in per cent; a dash where there is nothing to say. */
static void put_share(rd_buf *out, double x)
{
    if (isnan(x))
        rd_buf_text(out, "      -");
    else
        rd_buf_format(out, " %6.1f", 100.0 * x);
}

static void put_number(rd_buf *out, double x)
{
    if (isnan(x))
        rd_buf_text(out, "       -");
    else
        rd_buf_format(out, " %7.1f", x);
}

static void table_row(const rd_report *r, rd_buf *out, const rd_set *s, const rd_row *row)
{
    rd_measure m;

    rd_measure_of(&r->cases, s, row->outcome, &m);
    rd_buf_format(out, "%-12s  %-12s", s->name, row->name);
    if (row->kind < RD_ROW_COPY)
        rd_buf_format(out, " %5g", (double)row->quality);
    else
        rd_buf_text(out, "     -");
    rd_buf_format(out, " %5d", m.cases);
    put_share(out, m.em);
    rd_buf_format(out, " %5.1f - %5.1f", 100.0 * m.em_ci[0], 100.0 * m.em_ci[1]);
    put_share(out, m.strict);
    put_share(out, m.similarity);
    put_share(out, m.whole);
    put_share(out, m.precision[0]);
    put_share(out, m.precision[1]);
    put_number(out, m.forwards);
    put_number(out, m.ms);
    rd_buf_text(out, "\n");
}

static void put_shares(const rd_report *r, rd_buf *out)
{
    const rd_set *s = rd_report_set(r);
    const rd_outcome *o = rd_report_main(r)->outcome;
    rd_measure m;
    rd_gate g;

    rd_measure_of(&r->cases, s, o, &m);
    rd_buf_format(out, "%s, the surest first:\n  shown     ", s->name);
    for (int i = 0; i < RD_SHARES; i++) rd_buf_format(out, " %5g %%", 100.0 * rd_shares[i]);
    rd_buf_text(out, "\n  right     ");
    for (int i = 0; i < RD_SHARES; i++) rd_buf_format(out, " %7.1f", 100.0 * m.shown[i].precision);
    rd_buf_text(out, "\n  of the last");
    for (int i = 0; i < RD_SHARES; i++)
        rd_buf_format(out, i ? " %7.1f" : "%7.1f", 100.0 * m.shown[i].last);
    rd_buf_text(out, "\n  confidence");
    for (int i = 0; i < RD_SHARES; i++) rd_buf_format(out, " %7.3f", m.shown[i].confidence);
    rd_buf_format(out, "\n  calibration error %.4f\n", m.calibration);
    if (r->gate >= 0.0) {
        rd_gate_try(&r->cases, s, o, r->gate, &g);
        rd_buf_format(out, "  the model's gate %.3f shows %.1f %%", g.confidence, 100.0 * g.share);
        if (g.share > 0.0) rd_buf_format(out, ", of which %.1f %% are right", 100.0 * g.precision);
        rd_buf_text(out, "\n");
    }
    rd_gate_find(&r->cases, s, o, RD_GATE_WORTH, &g);
    rd_buf_format(out, "  right every third time or more down to confidence %.3f: shows %.1f %%",
                  g.confidence, 100.0 * g.share);
    if (g.share > 0.0) rd_buf_format(out, ", of which %.1f %% are right", 100.0 * g.precision);
    rd_buf_text(out, "\n");
}

void rd_report_rest(const rd_report *r, rd_buf *out)
{
    const rd_fault_report *f = &r->faults;
    const rd_row *top = rd_report_main(r);
    double ci[2], a[2], b[2];

    if (rd_report_find(r, RD_ROW_LENGTH, top->quality))
        for (int i = 0; i < r->sets; i++) {
            double loss = length_loss(r, &r->set[i], ci);

            rd_buf_format(out, "%s%s %.1f (%.1f - %.1f)",
                          i ? ", "
                            : "the model alone loses because the length is not told, in points: ",
                          r->set[i].name, 100.0 * loss, 100.0 * ci[0], 100.0 * ci[1]);
            if (i == r->sets - 1) rd_buf_text(out, "\n");
        }
    put_shares(r, out);
    if (f->wrong.n && f->clean.n) {
        double mended = whole_mean(&f->wrong, f->mended, a),
               spared = whole_mean(&f->clean, f->spared, b);

        rd_buf_format(out,
                      "faults mended: %.1f %% of %d (%.1f - %.1f), touched: %.1f %%; clean windows "
                      "left alone: %.1f %% of %d (%.1f - %.1f)\n",
                      100.0 * mended, f->wrong.n, 100.0 * a[0], 100.0 * a[1],
                      100.0 * whole_mean(&f->wrong, f->touched, NULL), 100.0 * spared, f->clean.n,
                      100.0 * b[0], 100.0 * b[1]);
        double found = whole_mean(&f->wrong, f->found, a);

        rd_buf_format(out,
                      "faults among the %d least probable tokens of their window: %.1f %% "
                      "(%.1f - %.1f); blindly %.1f %%\n",
                      RD_FAULT_LOOKS, 100.0 * found, 100.0 * a[0], 100.0 * a[1],
                      100.0 * whole_mean(&f->wrong, f->blindly, NULL));
    }
    if (!isnan(r->bits_model)) rd_buf_format(out, "bits a byte: model %.4f\n", r->bits_model);
    if (!isnan(r->bits_ngram)) rd_buf_format(out, "bits a byte: n-gram %.4f\n", r->bits_ngram);
}

void rd_report_table(const rd_report *r, rd_buf *out)
{
    rd_buf_format(out, "%-12s  %-12s %5s %5s %6s %13s %6s %6s %6s %6s %6s %7s %7s\n", "set", "row",
                  "dial", "cases", "exact", "95 %", "strict", "alike", "whole", "p@10", "p@30",
                  "passes", "ms");
    for (int s = 0; s < r->sets; s++)
        for (int i = 0; i < r->rows; i++) table_row(r, out, &r->set[s], &r->row[i]);
    rd_buf_text(out, "\n");
    rd_report_rest(r, out);
}
