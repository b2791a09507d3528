/* eval.c - redraft eval: the measures on holes of real files, beside the floors.
 *
 * A row is one way of answering all cases: the engine at a place of the dial, with drafts copied from the file
 * or without, or a floor. Rows are answered one after the other, then measured; what comes out is a table or
 * one JSON object.
 */
#include "core/tools/calls.h"

#include "core/base/memory.h"
#include "core/eval/cases.h"
#include "core/eval/measures.h"
#include "core/format/tokenizer.h"
#include "core/tools/run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ROWS_MOST = 64, QUALITIES_MOST = 16, CASES = 300 };

typedef enum row_kind { ROW_BOTH, ROW_MODEL, ROW_LENGTH, ROW_COPY, ROW_FLOOR } row_kind;

typedef struct row {
    row_kind kind;
    const char *name;
    float quality;
    rd_outcome *outcome; /* [cases] */
    rd_buf *text;        /* [cases] */
} row;

typedef struct job {
    const rd_args *a;
    rd_cases cases;
    rd_set set[RD_SETS_MOST];
    int sets;
    rd_engine *engine;
    rd_tokenizer *tokenizer;
    float quality[QUALITIES_MOST];
    int qualities, main; /* the dial's values, and which of them is reported first */
    int seed;
    bool drafts, quick;
    row row[ROWS_MOST];
    int rows;
} job;

/* ---- answers ---- */

/* The one place that says whether a request may use drafts copied from the file. */
static void set_drafts(rd_request *rq, bool drafts)
{
    (void)rq;
    (void)drafts;
}

static row *add_row(job *j, row_kind kind, const char *name, float quality)
{
    row *r = &j->row[j->rows++];

    *r = (row){ .kind = kind, .name = name, .quality = quality };
    r->outcome = rd_alloc_array((size_t)j->cases.n + 1, sizeof *r->outcome);
    r->text = rd_alloc_array((size_t)j->cases.n + 1, sizeof *r->text);
    return r;
}

static row *find_row(job *j, row_kind kind, float quality)
{
    for (int i = 0; i < j->rows; i++)
        if (j->row[i].kind == kind && j->row[i].quality == quality) return &j->row[i];
    return NULL;
}

static rd_status ask(job *j, const row *r, int i, rd_result *out, rd_error *err)
{
    const rd_case *one = &j->cases.at[i];
    const rd_case_file *f = &j->cases.file[one->file];
    rd_run_options o = { .quality = r->quality };
    rd_request rq = { .task = RD_INFILL,
                      .language = *f->language ? f->language : NULL,
                      .prefix = f->text,
                      .prefix_bytes = one->start,
                      .suffix = f->text + one->end,
                      .suffix_bytes = f->bytes - one->end,
                      .max_tokens = one->max_tokens,
                      .hole_tokens = one->hole_tokens };

    if (r->kind == ROW_LENGTH) {
        rd_ids ids = { 0 };
        size_t n;
        const char *text = rd_case_text(&j->cases, i, &n);
        rd_status s = rd_tokenizer_encode(j->tokenizer, text, n, RD_TEXT_PLAIN, &ids, err);

        rq.hole_tokens = ids.n;
        rd_ids_clear(&ids);
        if (s) return s;
    }
    set_drafts(&rq, r->kind != ROW_MODEL && j->drafts);
    return rd_run_to_end(j->engine, &rq, &o, out, err);
}

static void judge(job *j, row *r, int i)
{
    size_t n;
    const char *reference = rd_case_text(&j->cases, i, &n);
    const rd_buf *t = &r->text[i];

    r->outcome[i] = rd_outcome_of(t->data ? t->data : "", t->len, reference, n);
}

static void say_progress(const row *r, int done, int all)
{
    bool terminal = isatty(STDERR_FILENO);

    if (!terminal && done < all) return;
    fprintf(stderr, "%s%s at %g: %d of %d%s", terminal ? "\r\033[K" : "", r->name,
            (double)r->quality, done, all, done == all ? "\n" : "");
}

static rd_status answer_all(job *j, row_kind kind, const char *name, float quality, rd_error *err)
{
    row *r = add_row(j, kind, name, quality);

    for (int i = 0; i < j->cases.n; i++) {
        rd_result one;

        if (ask(j, r, i, &one, err)) return err->status;
        r->text[i] = one.text;
        judge(j, r, i);
        r->outcome[i].confidence = (double)one.confidence;
        r->outcome[i].forwards = one.forwards;
        r->outcome[i].ms = one.ms;
        say_progress(r, i + 1, j->cases.n);
    }
    return RD_OK;
}

static rd_status answer_rows(job *j, rd_error *err)
{
    row warm = { .kind = ROW_MODEL, .quality = j->quality[j->main] };
    row_kind kind = j->drafts ? ROW_BOTH : ROW_MODEL;
    rd_result one;

    if (ask(j, &warm, 0, &one, err)) return err->status;
    rd_result_clear(&one);
    for (int i = 0; i < j->qualities; i++)
        if (answer_all(j, kind, j->drafts ? "both" : "model", j->quality[i], err))
            return err->status;
    if (j->drafts && answer_all(j, ROW_MODEL, "model", j->quality[j->main], err))
        return err->status;
    if (j->quick) return RD_OK;
    return answer_all(j, ROW_LENGTH, "length given", j->quality[j->main], err);
}

/* ---- results ---- */

static void write_number(rd_buf *out, const char *key, double x)
{
    rd_buf_format(out, ",\"%s\":", key);
    if (isnan(x))
        rd_buf_text(out, "null");
    else
        rd_buf_format(out, "%.6g", x);
}

static void write_interval(rd_buf *out, const char *key, const double ci[2])
{
    if (isnan(ci[0]))
        rd_buf_format(out, ",\"%s\":null", key);
    else
        rd_buf_format(out, ",\"%s\":[%.6g,%.6g]", key, ci[0], ci[1]);
}

static void write_precision(rd_buf *out, const rd_measure *m)
{
    static const char *const shares[] = { "0.1", "0.3" };

    rd_buf_text(out, ",\"precision_at\":{");
    for (int i = 0; i < 2; i++) {
        rd_buf_format(out, "%s\"%s\":", i ? "," : "", shares[i]);
        if (isnan(m->precision[i]))
            rd_buf_text(out, "null");
        else
            rd_buf_format(out, "%.6g", m->precision[i]);
    }
    rd_buf_text(out, "}");
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
    rd_buf_format(out, ",\"whole_cases\":%d", m->whole_cases);
    write_precision(out, m);
    write_number(out, "calibration_error", m->calibration);
    write_number(out, "forwards", m->forwards);
    write_number(out, "ms", m->ms);
    write_number(out, "ms_median", m->ms_median);
    write_number(out, "ms_95", m->ms_95);
}

/* How much exact match is lost because the length is not told. */
static double length_loss(job *j, const row *r, const rd_set *s, double ci[2])
{
    const row *given = find_row(j, ROW_LENGTH, r->quality);
    double *v = rd_alloc_array((size_t)j->cases.n + 1, sizeof *v), loss = NAN;

    ci[0] = ci[1] = NAN;
    for (int i = 0; given && i < j->cases.n; i++)
        v[i] = (double)given->outcome[i].exact - (double)r->outcome[i].exact;
    if (given) loss = rd_mean_of(&j->cases, s, v, ci);
    free(v);
    return loss;
}

static void write_row(job *j, rd_buf *out, const row *r, bool is_main)
{
    rd_buf_text(out, "[");
    for (int i = 0; i < j->sets; i++) {
        rd_measure m;

        rd_measure_of(&j->cases, &j->set[i], r->outcome, &m);
        if (i) rd_buf_text(out, ",");
        write_measure(out, j->set[i].name, &m);
        if (is_main) {
            double ci[2], loss = length_loss(j, r, &j->set[i], ci);

            write_number(out, "length_loss", loss);
            write_interval(out, "length_loss_ci", ci);
        }
        rd_buf_text(out, "}");
    }
    rd_buf_text(out, "]");
}

static row *main_row(job *j)
{
    return find_row(j, j->drafts ? ROW_BOTH : ROW_MODEL, j->quality[j->main]);
}

/* An object of the rows from `first` to `last`, each under its name. */
static void write_rows(job *j, rd_buf *out, const char *key, row_kind first, row_kind last)
{
    bool any = false;

    rd_buf_format(out, ",\"%s\":{", key);
    for (int i = 0; i < j->rows; i++) {
        const row *r = &j->row[i];

        if (r->kind < first || r->kind > last ||
            (r->kind < ROW_COPY && r->quality != j->quality[j->main]))
            continue;
        rd_buf_format(out, "%s\"%s\":", any ? "," : "", r->name);
        write_row(j, out, r, false);
        any = true;
    }
    rd_buf_text(out, "}");
}

static void write_json(job *j, rd_buf *out)
{
    row *top = main_row(j);

    rd_buf_text(out, "{\"sets\":");
    write_row(j, out, top, true);
    write_rows(j, out, "rows", ROW_BOTH, ROW_COPY);
    rd_buf_text(out, ",\"dial\":[");
    for (int i = 0; i < j->qualities; i++) {
        rd_buf_format(out, "%s{\"quality\":%g,\"sets\":", i ? "," : "", (double)j->quality[i]);
        write_row(j, out, find_row(j, top->kind, j->quality[i]), false);
        rd_buf_text(out, "}");
    }
    rd_buf_text(out, "]");
    write_rows(j, out, "floors", ROW_COPY, ROW_FLOOR);
    rd_buf_format(out,
                  ",\"quality\":%g,\"drafts\":%s,\"seed\":%d,\"engine\":", (double)top->quality,
                  j->drafts ? "true" : "false", j->seed);
    rd_json_quote(out, rd_engine_describe(j->engine), strlen(rd_engine_describe(j->engine)));
    rd_buf_text(out, "}\n");
}

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

static void write_table(job *j, rd_buf *out)
{
    rd_buf_format(out, "%-13s %-13s %5s %5s %6s %13s %6s %6s %6s %6s %6s %7s %7s\n", "set", "row",
                  "dial", "cases", "exact", "95 %", "strict", "alike", "whole", "p@10", "p@30",
                  "passes", "ms");
    for (int s = 0; s < j->sets; s++)
        for (int i = 0; i < j->rows; i++) {
            const row *r = &j->row[i];
            rd_measure m;

            rd_measure_of(&j->cases, &j->set[s], r->outcome, &m);
            rd_buf_format(out, "%-13s %-13s", j->set[s].name, r->name);
            if (r->kind < ROW_COPY)
                rd_buf_format(out, " %5g", (double)r->quality);
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
}

/* ---- the call ---- */

static bool qualities_of(job *j, const char *list)
{
    for (const char *at = list; *at;) {
        char *end;
        double x = strtod(at, &end);

        if (end == at || !(x >= 0.0 && x <= 1.0) || (*end && *end != ',') ||
            j->qualities == QUALITIES_MOST) {
            rd_tool_usage(j->a, "--quality is %s; numbers from 0 to 1, commas between", list);
            return false;
        }
        j->quality[j->qualities++] = (float)x;
        at = end + (*end == ',');
    }
    for (int i = 1; i < j->qualities; i++)
        if (fabsf(j->quality[i] - 0.5f) < fabsf(j->quality[j->main] - 0.5f)) j->main = i;
    return j->qualities > 0;
}

static rd_status find_cases(job *j, unsigned kinds, int n, rd_error *err)
{
    const char *set = rd_args_text(j->a, "--set");

    if (set) return rd_cases_read(&j->cases, set, err);
    if (rd_cases_files(&j->cases, rd_args_at(j->a, 0), err)) return err->status;
    rd_cases_cut(&j->cases, kinds, n, (uint64_t)j->seed);
    if (j->cases.n == 0)
        return rd_fail(err, RD_INVALID, "%s: no holes worth asking for", rd_args_at(j->a, 0));
    return RD_OK;
}

static rd_status open_tokenizer(job *j, rd_error *err)
{
    const char *model = rd_args_text(j->a, "--model");
    char builtin[4096];

    if (!model && rd_engine_builtin(builtin, sizeof builtin, err)) return err->status;
    return rd_tokenizer_open(model ? model : builtin, &j->tokenizer, err);
}

static int run(job *j, unsigned kinds, int n)
{
    const char *write_set = rd_args_text(j->a, "--write-set");
    rd_buf out = { 0 };
    rd_error err = { 0 };
    int status = 0;

    if (find_cases(j, kinds, n, &err)) return rd_tool_fail(j->a, &err);
    if (write_set) return rd_cases_write(&j->cases, write_set, &err) ? rd_tool_fail(j->a, &err) : 0;
    j->sets = rd_sets_of(&j->cases, j->set);
    status = rd_engine_of(j->a, &j->engine);
    if (status) return status;
    if (open_tokenizer(j, &err) || answer_rows(j, &err)) return rd_tool_fail(j->a, &err);
    if (rd_args_flag(j->a, "--json"))
        write_json(j, &out);
    else
        write_table(j, &out);
    fwrite(out.data, 1, out.len, stdout);
    rd_buf_clear(&out);
    return 0;
}

int rd_tool_eval(const rd_args *a)
{
    job j = { .a = a, .seed = 1, .drafts = !rd_args_flag(a, "--no-draft") };
    const char *list = rd_args_text(a, "--kinds"), *dial = rd_args_text(a, "--quality");
    unsigned kinds = rd_case_kinds_of(list ? list : "line,end,middle,multi");
    int n = CASES, status;

    j.quick = rd_args_flag(a, "--quick");
    if (rd_args_count(a) != (rd_args_flag(a, "--set") ? 0 : 1))
        return rd_tool_usage(a, "name one folder of source files, or --set FILE");
    if (!kinds) return rd_tool_usage(a, "--kinds is of line, end, middle, multi");
    if (!rd_args_int(a, "--cases", 1, 1000000, &n) ||
        !rd_args_int(a, "--seed", 0, 2147483647, &j.seed) || !qualities_of(&j, dial ? dial : "0.5"))
        return 2;
    status = run(&j, kinds, n);
    for (int i = 0; i < j.rows; i++) {
        for (int k = 0; k < j.cases.n; k++) rd_buf_clear(&j.row[i].text[k]);
        free(j.row[i].outcome);
        free(j.row[i].text);
    }
    rd_tokenizer_close(j.tokenizer);
    rd_engine_close(j.engine);
    rd_cases_clear(&j.cases);
    return status;
}
