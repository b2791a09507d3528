/* eval.c - redraft eval: the measures on holes of real files, beside the floors.
 *
 * Cases are cut or read; each row (core/eval/report.h) answers all of them, one row after the other; then
 * windows with seeded faults are rewritten. What was found is printed as a table or as JSON, and drawn
 * on a page where one is asked for.
 */
#include "core/tools/eval.h"

#include "core/base/memory.h"
#include "core/eval/bits.h"
#include "core/eval/check.h"
#include "core/eval/floors.h"
#include "core/eval/found.h"
#include "core/eval/report.h"
#include "core/format/file.h"
#include "core/format/tokenizer.h"
#include "core/plugin.h"
#include "core/tools/calls.h"
#include "core/tools/run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A window costs about WINDOW_COST holes: it is rewritten, and searched for its fault. */
enum { CASES = 300, WINDOW_LINES = 3, TRIED = 12, WINDOW_COST = 3 };

typedef struct job {
    const rd_args *a;
    rd_report report;
    unsigned kinds;
    int n; /* cases of each kind */
    rd_engine *engine;
    rd_tokenizer *tokenizer;
    rd_checker *checker;
    char model[4096];
    bool quick;
} job;

/* ---- answers ---- */

rd_request rd_case_request(const rd_cases *c, int i)
{
    const rd_case *one = &c->at[i];
    const rd_case_file *f = &c->file[one->file];

    return (rd_request){ .task = RD_INFILL,
                         .language = *f->language ? f->language : NULL,
                         .prefix = f->text,
                         .prefix_bytes = one->start,
                         .suffix = f->text + one->end,
                         .suffix_bytes = f->bytes - one->end,
                         .max_tokens = one->max_tokens,
                         .hole_tokens = one->hole_tokens };
}

static rd_status tokens_of(job *j, int i, int *out, rd_error *err)
{
    rd_ids ids = { 0 };
    size_t n;
    const char *text = rd_case_text(&j->report.cases, i, &n);
    rd_status s = rd_tokenizer_encode(j->tokenizer, text, n, RD_TEXT_PLAIN, &ids, err);

    *out = ids.n;
    rd_ids_clear(&ids);
    return s;
}

static rd_status ask(job *j, rd_row_kind kind, float quality, int i, rd_result *out, rd_error *err)
{
    rd_request rq = rd_case_request(&j->report.cases, i);
    rd_run_options o = { .quality = quality };

    if (kind == RD_ROW_LENGTH && tokens_of(j, i, &rq.hole_tokens, err)) return err->status;
    o.no_draft = kind != RD_ROW_BOTH;
    return rd_run_to_end(j->engine, &rq, &o, out, err);
}

static void judge(job *j, rd_row *r, int i)
{
    size_t n;
    const char *reference = rd_case_text(&j->report.cases, i, &n);
    const char *text = r->text[i].data ? r->text[i].data : "";

    r->outcome[i] = rd_outcome_of(text, r->text[i].len, reference, n);
    r->outcome[i].whole = rd_checker_whole(j->checker, i, text, r->text[i].len);
}

void rd_say_progress(const char *what, int done, int all)
{
    bool terminal = isatty(STDERR_FILENO);

    if (!terminal && done < all) return;
    fprintf(stderr, "%s%s: %d of %d%s", terminal ? "\r\033[K" : "", what, done, all,
            done == all ? "\n" : "");
}

static rd_status answer_all(job *j, rd_row_kind kind, const char *name, float quality,
                            rd_error *err)
{
    rd_row *r = rd_report_add(&j->report, kind, name, quality);
    char what[64];

    snprintf(what, sizeof what, "%s at %g", name, (double)quality);
    for (int i = 0; i < j->report.cases.n; i++) {
        rd_result one;

        if (ask(j, kind, quality, i, &one, err)) return err->status;
        r->text[i] = one.text;
        judge(j, r, i);
        r->outcome[i].confidence = (double)one.confidence;
        r->outcome[i].forwards = one.forwards;
        r->outcome[i].ms = one.ms;
        rd_say_progress(what, i + 1, j->report.cases.n);
    }
    return RD_OK;
}

/* Says how long it will take, from a few holes; they warm the caches too. */
static rd_status estimate(job *j, rd_error *err)
{
    const rd_report *r = &j->report;
    int tried = r->cases.n < TRIED ? r->cases.n : TRIED, windows = j->quick ? 0 : 2 * j->n;
    int rows = r->qualities + (r->drafts ? 1 : 0) + (j->quick ? 0 : 1);
    double ms = 0.0;

    for (int i = 0; i < tried; i++) {
        rd_result one;

        if (ask(j, RD_ROW_MODEL, r->quality[r->main], i * (r->cases.n / tried), &one, err))
            return err->status;
        ms += one.ms / tried;
        rd_result_clear(&one);
    }
    fprintf(stderr, "redraft eval: %d holes in %d rows, %d windows: about %.0f s\n", r->cases.n,
            rows, windows, 1e-3 * ms * (rows * r->cases.n + WINDOW_COST * windows));
    return RD_OK;
}

static rd_status answer_rows(job *j, rd_error *err)
{
    const rd_report *r = &j->report;
    float at = r->quality[r->main];

    if (estimate(j, err)) return err->status;
    for (int i = 0; i < r->qualities; i++)
        if (answer_all(j, r->drafts ? RD_ROW_BOTH : RD_ROW_MODEL, r->drafts ? "both" : "model",
                       r->quality[i], err))
            return err->status;
    if (r->drafts && answer_all(j, RD_ROW_MODEL, "model", at, err)) return err->status;
    if (j->quick) return RD_OK;
    return answer_all(j, RD_ROW_LENGTH, "length given", at, err);
}

/* ---- floors ---- */

static void answer_unigram(job *j)
{
    rd_report *r = &j->report;
    rd_row *row = rd_report_add(r, RD_ROW_FLOOR, "unigram", 0.0f);
    int *of = rd_alloc_array((size_t)r->cases.n + 1, sizeof *of);

    rd_floor_unigram(&r->cases, of);
    for (int i = 0; i < r->cases.n; i++) {
        size_t n = 0;
        const char *text = of[i] < 0 ? "" : rd_case_text(&r->cases, of[i], &n);

        rd_buf_append(&row->text[i], text, n);
        judge(j, row, i);
    }
    free(of);
}

static rd_status answer_ngram(job *j, const char *pack, rd_error *err)
{
    rd_report *r = &j->report;
    rd_floor_ngram *g = NULL;

    if (rd_floor_ngram_open(pack, &g, err)) return err->status;
    rd_row *row = rd_report_add(r, RD_ROW_FLOOR, "n-gram", 0.0f);

    for (int i = 0; i < r->cases.n; i++) {
        rd_floor_ngram_answer(g, &r->cases, i, &row->text[i]);
        judge(j, row, i);
    }
    r->bits_ngram = rd_bits_ngram(&r->cases, g);
    rd_floor_ngram_close(g);
    return RD_OK;
}

static rd_status answer_floors(job *j, rd_error *err)
{
    rd_report *r = &j->report;
    const char *pack = rd_args_text(j->a, "--ngram");
    rd_row *copy = rd_report_add(r, RD_ROW_COPY, "copied line", 0.0f);
    rd_row *empty = rd_report_add(r, RD_ROW_FLOOR, "empty", 0.0f);

    for (int i = 0; i < r->cases.n; i++) {
        rd_floor_copy(&r->cases, i, &copy->text[i]);
        judge(j, copy, i);
        judge(j, empty, i);
    }
    answer_unigram(j);
    return pack ? answer_ngram(j, pack, err) : RD_OK;
}

static rd_status measure_bits(job *j, rd_error *err)
{
    const rd_backend *backend = rd_cpu_backend(); /* the trainer's arrays are in host memory */
    rd_device_options d = { .threads = 1, .precision = RD_FAST };
    rd_device *device = NULL;
    rd_status status;

    if (backend->open(&d, &device, err)) return err->status;
    status = rd_bits_model(&j->report.cases, j->model, (rd_product){ device, backend->gemm },
                           &j->report.bits_model, err);
    backend->close(device);
    return status;
}

/* ---- faults ---- */

static rd_status rewrite(job *j, const rd_cases *windows, int i, const char *draft, size_t n,
                         rd_result *out, rd_error *err)
{
    rd_request rq = rd_case_request(windows, i);
    rd_run_options o = { .quality = j->report.quality[j->report.main] };

    rq.task = RD_REWRITE;
    rq.draft = draft;
    rq.draft_bytes = n;
    if (rd_run_to_end(j->engine, &rq, &o, out, err)) return err->status;
    j->report.faults.forwards += out->forwards;
    j->report.faults.ms += out->ms;
    return RD_OK;
}

static bool is_text(const rd_result *r, const char *text, size_t n)
{
    return r->text.len == n && (n == 0 || !memcmp(r->text.data, text, n));
}

/* What stands around a window goes along, so far as it matters for the probabilities inside. */
enum { BEFORE_MOST = 800, AFTER_MOST = 200 };

/* Whether the fault shows: the probabilities of the window's tokens, masked by turns. */
static rd_status search_fault(job *j, const rd_case *one, const rd_buf *draft, rd_error *err)
{
    rd_fault_report *f = &j->report.faults;
    const rd_case_file *source = &j->report.cases.file[one->file];
    size_t from = one->start > BEFORE_MOST ? one->start - BEFORE_MOST : 0, start, end;
    size_t after = source->bytes - one->end < AFTER_MOST ? source->bytes - one->end : AFTER_MOST;
    rd_buf text = { 0 };
    rd_score *score = NULL;
    int n = 0, inside = 0;

    while (from > 0 && source->text[from - 1] != '\n') from--;
    rd_buf_append(&text, source->text + from, one->start - from);
    rd_buf_append(&text, draft->data, draft->len);
    rd_buf_append(&text, source->text + one->end, after);
    rd_score_request rq = { .language = *source->language ? source->language : NULL,
                            .text = text.data,
                            .bytes = text.len,
                            .to = text.len };

    if (!rd_engine_score(j->engine, &rq, &score, &n, err)) {
        rd_fault_token *token = rd_alloc_array((size_t)n + 1, sizeof *token);
        size_t window = one->start - from;

        rd_fault_range(source->text + one->start, one->end - one->start, draft->data, draft->len,
                       &start, &end);
        for (int i = 0; i < n; i++)
            if (score[i].end > window && score[i].start < window + draft->len)
                token[inside++] =
                    (rd_fault_token){ score[i].start, score[i].end, (double)score[i].p };
        f->blindly[f->wrong.n] = rd_fault_chance(token, inside, window + start, window + end);
        f->found[f->wrong.n] = rd_fault_found(token, inside, window + start, window + end);
        free(token);
        free(score);
    }
    rd_buf_clear(&text);
    return err->status;
}

/* One window of a file: rewritten with a fault, or as it stands. */
static rd_status try_window(job *j, rd_random *random, int file, rd_fault fault, bool wrong,
                            rd_error *err)
{
    rd_fault_report *f = &j->report.faults;
    rd_cases *to = wrong ? &f->wrong : &f->clean;
    rd_case *one = &to->at[to->n];
    rd_case_file *source = &j->report.cases.file[file];
    rd_buf draft = { 0 };
    rd_result r;

    *one = (rd_case){ .kind = RD_CASE_GIVEN, .file = file };
    if (!rd_cases_window(source, WINDOW_LINES, random, &one->start, &one->end)) return RD_OK;
    const char *text = source->text + one->start;
    size_t n = one->end - one->start;

    if (!wrong) rd_buf_append(&draft, text, n);
    rd_fault_place place = { source->text, source->bytes, one->start, one->end };

    if (wrong && !rd_fault_make(&place, fault, random, &draft)) {
        rd_buf_clear(&draft);
        return RD_OK;
    }
    if ((wrong && search_fault(j, one, &draft, err)) ||
        rewrite(j, to, to->n, draft.data, draft.len, &r, err)) {
        rd_buf_clear(&draft);
        return err->status;
    }
    if (wrong) {
        f->fault[to->n] = fault;
        f->mended[to->n] = is_text(&r, text, n);
        f->touched[to->n] = !is_text(&r, draft.data, draft.len);
    } else {
        f->spared[to->n] = is_text(&r, text, n);
    }
    to->n++;
    rd_result_clear(&r);
    rd_buf_clear(&draft);
    return RD_OK;
}

/* As many windows of each sort as there are cases of a kind; the faults take turns. */
static rd_status try_faults(job *j, rd_error *err)
{
    rd_fault_report *f = &j->report.faults;
    rd_random random = rd_random_seed((uint64_t)j->report.seed ^ 0xfa17);
    int *order = rd_cases_order(&j->report.cases, &random), files = j->report.cases.files;
    size_t n = (size_t)j->n + 1;

    f->wrong.file = f->clean.file = j->report.cases.file;
    f->wrong.files = f->clean.files = files;
    f->wrong.at = rd_alloc_array(n, sizeof *f->wrong.at);
    f->clean.at = rd_alloc_array(n, sizeof *f->clean.at);
    f->fault = rd_alloc_array(n, sizeof *f->fault);
    f->mended = rd_alloc_array(n, sizeof *f->mended);
    f->spared = rd_alloc_array(n, sizeof *f->spared);
    f->touched = rd_alloc_array(n, sizeof *f->touched);
    f->found = rd_alloc_array(n, sizeof *f->found);
    f->blindly = rd_alloc_array(n, sizeof *f->blindly);
    for (int i = 0; i < 8 * j->n && f->wrong.n < j->n && !err->status; i++)
        try_window(j, &random, order[i % files], (rd_fault)(f->wrong.n % RD_FAULTS), true, err);
    for (int i = 0; i < 8 * j->n && f->clean.n < j->n && !err->status; i++)
        try_window(j, &random, order[i % files], RD_FAULTS, false, err);
    free(order);
    if (f->wrong.n + f->clean.n) {
        f->forwards /= f->wrong.n + f->clean.n;
        f->ms /= f->wrong.n + f->clean.n;
    }
    rd_say_progress("windows rewritten", f->wrong.n + f->clean.n, f->wrong.n + f->clean.n);
    return err->status;
}

/* ---- the call ---- */

static bool qualities_of(job *j, const char *list)
{
    rd_report *r = &j->report;

    for (const char *at = list; *at;) {
        char *end;
        double x = strtod(at, &end);

        if (end == at || !(x >= 0.0 && x <= 1.0) || (*end && *end != ',') ||
            r->qualities == RD_DIAL_MOST) {
            rd_tool_usage(j->a, "--quality is %s; numbers from 0 to 1, commas between", list);
            return false;
        }
        r->quality[r->qualities++] = (float)x;
        at = end + (*end == ',');
    }
    for (int i = 1; i < r->qualities; i++)
        if (fabsf(r->quality[i] - 0.5f) < fabsf(r->quality[r->main] - 0.5f)) r->main = i;
    return r->qualities > 0;
}

static rd_status find_cases(job *j, rd_error *err)
{
    const char *set = rd_args_text(j->a, "--set"), *dir = rd_args_at(j->a, 0);
    rd_cases *c = &j->report.cases;

    if (set) return rd_cases_read(c, set, err);
    if (rd_cases_files(c, dir, err)) return err->status;
    rd_cases_cut(c, j->kinds, j->n, (uint64_t)j->report.seed);
    return c->n ? RD_OK : rd_fail(err, RD_INVALID, "%s: no holes worth asking for", dir);
}

static rd_status find_model(job *j, rd_error *err)
{
    const char *model = rd_args_text(j->a, "--model");

    if (!model && rd_engine_builtin(j->model, sizeof j->model, err)) return err->status;
    if (model) snprintf(j->model, sizeof j->model, "%s", model);
    return rd_tokenizer_open(j->model, &j->tokenizer, err);
}

static rd_status measure(job *j, rd_error *err)
{
    rd_report *r = &j->report;

    r->sets = rd_sets_of(&r->cases, r->set);
    r->engine = rd_engine_describe(j->engine);
    r->gate = rd_engine_gate(j->engine) > 0.0f ? (double)rd_engine_gate(j->engine) : -1.0;
    j->checker = rd_checker_open(&r->cases);
    r->python = rd_checker_has_python(j->checker);
    if (!r->python)
        fprintf(stderr, "redraft eval: no python3; brackets decide whether a file is whole\n");
    if (answer_rows(j, err) || answer_floors(j, err)) return err->status;
    if (j->quick) return RD_OK;
    return measure_bits(j, err) ? err->status : try_faults(j, err);
}

static rd_status print(job *j, rd_error *err)
{
    const char *page = rd_args_text(j->a, "--page");
    rd_buf out = { 0 };
    rd_status status = RD_OK;

    if (rd_args_flag(j->a, "--json"))
        rd_report_json(&j->report, &out);
    else
        rd_report_table(&j->report, &out);
    fwrite(out.data, 1, out.len, stdout);
    rd_buf_reset(&out);
    if (page) {
        rd_report_page(&j->report, &out);
        status = rd_file_write(page, out.data, out.len, err);
    }
    rd_buf_clear(&out);
    return status;
}

static int run(job *j)
{
    const char *set = rd_args_text(j->a, "--write-set");
    rd_error err = { 0 };
    int status;

    if (find_cases(j, &err)) return rd_tool_fail(j->a, &err);
    if (set) return rd_cases_write(&j->report.cases, set, &err) ? rd_tool_fail(j->a, &err) : 0;
    status = rd_engine_of(j->a, &j->engine);
    if (status) return status;
    if (rd_args_flag(j->a, "--calibrate"))
        return rd_calibrate(j->a, j->engine, &j->report.cases, j->report.quality[j->report.main],
                            &err)
                   ? rd_tool_fail(j->a, &err)
                   : 0;
    if (find_model(j, &err) || measure(j, &err) || print(j, &err)) return rd_tool_fail(j->a, &err);
    return 0;
}

int rd_tool_eval(const rd_args *a)
{
    const char *list = rd_args_text(a, "--kinds"), *dial = rd_args_text(a, "--quality");
    job j = { .a = a,
              .report = { .seed = 1,
                          .drafts = !rd_args_flag(a, "--no-draft"),
                          .bits_model = NAN,
                          .bits_ngram = NAN },
              .kinds = rd_case_kinds_of(list ? list : "line,end,middle,multi"),
              .n = CASES,
              .quick = rd_args_flag(a, "--quick") };
    int status;

    if (!dial) dial = rd_args_flag(a, "--page") ? "0,0.25,0.5,0.75,1" : "0.5";
    if (rd_args_count(a) != (rd_args_flag(a, "--set") ? 0 : 1))
        return rd_tool_usage(a, "name one folder of source files, or --set FILE");
    if (rd_args_text(a, "--write") && !rd_args_flag(a, "--calibrate"))
        return rd_tool_usage(a, "--write goes with --calibrate");
    if (!j.kinds) return rd_tool_usage(a, "--kinds is of line, end, middle, multi");
    if (!rd_args_int(a, "--cases", 1, 100000, &j.n) ||
        !rd_args_int(a, "--seed", 0, 2147483647, &j.report.seed) || !qualities_of(&j, dial))
        return 2;
    status = run(&j);
    rd_checker_close(j.checker);
    rd_tokenizer_close(j.tokenizer);
    rd_report_clear(&j.report);
    rd_engine_close(j.engine);
    return status;
}
