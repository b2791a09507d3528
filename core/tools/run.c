/* run.c - engines, runs, places in files, and lines of JSON. */
#include "core/tools/run.h"

#include "core/base/clock.h"
#include "core/base/diff.h"
#include "core/base/memory.h"
#include "core/format/file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FILE_MOST = 64 << 20, LINE_MOST = 64 << 20, PLACE_MOST = 1000000000 };

bool rd_run_options_of(const rd_args *a, rd_run_options *out)
{
    const char *mode = rd_args_text(a, "--mode");
    double quality = 0.5;
    int seed = 0;

    *out = (rd_run_options){ 0 };
    if (mode && !strcmp(mode, "speed"))
        quality = 0.0;
    else if (mode && !strcmp(mode, "quality"))
        quality = 1.0;
    else if (mode)
        return rd_tool_usage(a, "--mode is speed or quality"), false;
    if (!rd_args_number(a, "--quality", 0.0, 1.0, &quality) ||
        !rd_args_int(a, "--max-ms", 0, 100000000, &out->max_ms) ||
        !rd_args_int(a, "--max-tokens", 1, 65536, &out->max_tokens) ||
        !rd_args_int(a, "--seed", 0, 2147483647, &seed))
        return false;
    out->quality = (float)quality;
    out->watch = rd_args_flag(a, "--watch");
    out->no_draft = rd_args_flag(a, "--no-draft");
    return true;
}

int rd_engine_of(const rd_args *a, rd_engine **out)
{
    rd_engine_options o = { .model = rd_args_text(a, "--model"),
                            .backend = rd_args_text(a, "--backend"),
                            .isa = rd_args_text(a, "--isa") };
    rd_error err = { 0 };

    if (!rd_args_int(a, "--threads", 1, 256, &o.threads)) return 2;
    return rd_engine_open(&o, out, &err) ? rd_tool_fail(a, &err) : 0;
}

/* ---- drawing ---- */

static const char *colour_of(const rd_mark *m)
{
    if (m->state == RD_MARK_SETTLED) return "\033[0m";
    if (m->state == RD_MARK_EDITED) return "\033[35m";
    return m->prob > 0.8f ? "\033[32m" : m->prob > 0.4f ? "\033[33m" : "\033[31m";
}

/* Control characters of a model's text must not reach a terminal. */
static void draw_text(FILE *f, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];

        if (c == '\n')
            fputs("\\n", f);
        else
            fputc(c < ' ' || c == 0x7f ? '?' : c, f);
    }
}

static void draw(const rd_step *s)
{
    bool terminal = isatty(STDERR_FILENO);

    fprintf(stderr, "%3d ", s->forwards);
    for (int i = 0; i < s->n_marks; i++) {
        const rd_mark *m = &s->marks[i];

        if (m->state == RD_MARK_MASK) {
            fputs(terminal ? "\033[2m\xe2\x96\x91\033[0m" : "_", stderr);
            continue;
        }
        if (terminal) fputs(colour_of(m), stderr);
        draw_text(stderr, m->text, m->bytes);
        if (terminal) fputs("\033[0m", stderr);
    }
    fputs("\n", stderr);
    if (terminal) usleep(60000);
}

rd_status rd_run_to_end(rd_engine *e, rd_request *rq, const rd_run_options *o, rd_result *out,
                        rd_error *err)
{
    static const char *const reasons[] = { "done", "limit", "time", "empty" };
    double start = rd_now_ms();
    rd_run *r = NULL;
    rd_step s = { 0 };
    bool late = false;

    *out = (rd_result){ 0 };
    rq->quality = o->quality;
    rq->no_draft = o->no_draft;
    if (rq->max_tokens == 0) rq->max_tokens = o->max_tokens;
    if (rd_run_open(e, rq, &r, err)) return err->status;
    while (!s.done && !late) {
        if (rd_run_step(r, &s, err)) {
            rd_run_close(r);
            return err->status;
        }
        if (o->watch) draw(&s);
        late = !s.done && o->max_ms > 0 && rd_now_ms() - start >= o->max_ms;
    }
    if (late) rd_run_end(r, &s);
    rd_buf_append(&out->text, s.text, s.bytes);
    out->confidence = s.confidence;
    out->tokens = s.tokens;
    out->prefill_tokens = s.prefill_tokens;
    out->forwards = s.forwards;
    out->ms = rd_now_ms() - start;
    out->reason = reasons[s.reason];
    rd_run_close(r);
    return RD_OK;
}

void rd_result_clear(rd_result *r)
{
    rd_buf_clear(&r->text);
}

/* ---- places ---- */

/* The byte at which line `line` begins, or n + 1 when there is none. */
static size_t line_start(const char *text, size_t n, int line)
{
    size_t at = 0;

    for (int i = 1; i < line; i++) {
        const char *end = at < n ? memchr(text + at, '\n', n - at) : NULL;

        if (!end) return n + 1;
        at = (size_t)(end - text) + 1;
    }
    return at;
}

static size_t line_end(const char *text, size_t n, size_t at)
{
    const char *end = at < n ? memchr(text + at, '\n', n - at) : NULL;

    return end ? (size_t)(end - text) : n;
}

static rd_status read_place(const char *arg, const char *end, rd_place *out, rd_error *err)
{
    *out = (rd_place){ .path = rd_copy_text(arg, (size_t)(end - arg)) };
    if (rd_file_read(out->path, FILE_MOST, &out->text, err)) return err->status;
    if (!out->text.data) rd_buf_append(&out->text, "", 0);
    return RD_OK;
}

static bool number_before(const char *arg, const char **end, char mark, int *out)
{
    const char *at = *end;

    while (at > arg && at[-1] >= '0' && at[-1] <= '9') at--;
    if (at == *end || at == arg || at[-1] != mark) return false;
    *out = 0;
    for (const char *digit = at; digit < *end; digit++)
        *out = *out < PLACE_MOST / 10 ? *out * 10 + (*digit - '0') : PLACE_MOST;
    *end = at - 1;
    return *out > 0;
}

rd_status rd_place_cursor(const char *arg, rd_place *out, rd_error *err)
{
    const char *end = arg + strlen(arg);
    int line = 1, column = 1;

    *out = (rd_place){ 0 };
    if (!number_before(arg, &end, ':', &column) || !number_before(arg, &end, ':', &line))
        return rd_fail(err, RD_INVALID, "%s is not FILE:LINE:COL", arg);
    if (read_place(arg, end, out, err)) return err->status;
    const char *text = out->text.data ? out->text.data : "";
    size_t n = out->text.len, at = line_start(text, n, line);

    if (at > n) return rd_fail(err, RD_INVALID, "%s has no line %d", out->path, line);
    size_t stop = line_end(text, n, at);

    if (stop > at && stop < n && text[stop - 1] == '\r') stop--;
    for (int c = 1; c < column; c++) {
        if (at >= stop)
            return rd_fail(err, RD_INVALID, "%s: line %d has %d columns, not %d", out->path, line,
                           c, column);
        for (at++; at < stop && ((unsigned char)text[at] & 0xc0) == 0x80; at++) {
        }
    }
    out->start = out->end = at;
    out->line = line;
    return RD_OK;
}

rd_status rd_place_lines(const char *arg, bool all_without, rd_place *out, rd_error *err)
{
    const char *end = arg + strlen(arg);
    int first = 1, last = 1;

    *out = (rd_place){ 0 };
    bool named = number_before(arg, &end, '-', &last) && number_before(arg, &end, ':', &first);

    if (!named && !all_without) return rd_fail(err, RD_INVALID, "%s is not FILE:FIRST-LAST", arg);
    if (!named) end = arg + strlen(arg);
    if (read_place(arg, end, out, err)) return err->status;
    const char *text = out->text.data ? out->text.data : "";
    size_t n = out->text.len;

    out->line = named ? first : 1;
    out->end = n;
    if (!named) return RD_OK;
    out->start = line_start(text, n, first);
    size_t at = line_start(text, n, last);

    if (last < first || at > n || (at == n && n > 0 && text[n - 1] == '\n' && last > 1))
        return rd_fail(err, RD_INVALID, "%s has no lines %d-%d", out->path, first, last);
    out->end = line_end(text, n, at);
    return RD_OK;
}

void rd_place_clear(rd_place *p)
{
    free(p->path);
    rd_buf_clear(&p->text);
}

void rd_place_diff(const rd_place *p, const char *text, size_t n, rd_buf *out)
{
    rd_text_change c = { .text = p->text.data ? p->text.data : "",
                         .bytes = p->text.len,
                         .start = p->start,
                         .end = p->end,
                         .fresh = text,
                         .fresh_bytes = n };

    rd_diff_unified(&c, p->path, out);
}

/* ---- lines of JSON ---- */

static void answer_error(rd_value request, const rd_error *err, rd_buf *out)
{
    size_t n = 0;
    const char *id = request ? rd_value_text(rd_value_get(request, "task_id"), &n) : NULL;

    rd_buf_reset(out);
    rd_buf_text(out, "{\"task_id\":");
    if (id)
        rd_json_quote(out, id, n);
    else
        rd_buf_text(out, "null");
    rd_buf_text(out, ",\"error\":");
    rd_json_quote(out, err->text, strlen(err->text));
    rd_buf_text(out, "}");
}

/* Lines of stdin, however they come. */
typedef struct lines {
    rd_buf line;
    char piece[65536];
    size_t at, n;
    bool too_long;
    int error; /* errno of reading; 0 */
} lines;

static void take_bytes(lines *l, const char *from, size_t n)
{
    l->too_long |= n > LINE_MOST - l->line.len;
    if (!l->too_long) rd_buf_append(&l->line, from, n);
}

/* False at the end. A line that is too long is dropped as it comes, and said to be so. */
static bool next_line(lines *l)
{
    bool any = false;

    rd_buf_reset(&l->line);
    l->too_long = false;
    for (;;) {
        if (l->at == l->n) {
            ssize_t got = read(STDIN_FILENO, l->piece, sizeof l->piece);

            if (got < 0 && errno == EINTR) continue;
            if (got < 0) l->error = errno;
            if (got <= 0) return any;
            l->at = 0;
            l->n = (size_t)got;
        }
        const char *from = l->piece + l->at, *end = memchr(from, '\n', l->n - l->at);
        size_t n = end ? (size_t)(end - from) : l->n - l->at;

        any = true;
        take_bytes(l, from, n);
        l->at += n + (end != NULL);
        if (end) return true;
    }
}

/* The answer to one line, or what was wrong with it. False on that. */
static bool answer_line(lines *l, int number,
                        rd_status (*answer)(void *user, rd_value request, rd_buf *out,
                                            rd_error *err),
                        void *user, rd_buf *out, rd_error *err)
{
    rd_record *record = NULL;
    char name[32];

    snprintf(name, sizeof name, "line %d", number);
    if (l->too_long)
        rd_fail(err, RD_INVALID, "%s is longer than %d bytes", name, LINE_MOST);
    else if (!rd_record_parse(l->line.data, l->line.len, name, &record, err))
        answer(user, rd_record_top(record), out, err);
    if (err->status) answer_error(record ? rd_record_top(record) : NULL, err, out);
    rd_buf_text(out, "\n");
    rd_record_free(record);
    return !err->status;
}

int rd_jsonl(const rd_args *a,
             rd_status (*answer)(void *user, rd_value request, rd_buf *out, rd_error *err),
             void *user)
{
    lines *l = rd_alloc0(sizeof *l);
    rd_buf out = { 0 };
    rd_error first = { 0 };
    int number = 0, bad = 0, first_line = 0;

    while (!ferror(stdout) && next_line(l)) {
        rd_error err = { 0 };

        number++;
        if (!l->too_long && l->line.len > 0 && l->line.data[l->line.len - 1] == '\r') l->line.len--;
        if (!l->too_long && l->line.len == 0) continue;
        rd_buf_reset(&out);
        if (!answer_line(l, number, answer, user, &out, &err) && bad++ == 0) {
            first = err;
            first_line = number;
        }
        fwrite(out.data, 1, out.len, stdout);
        fflush(stdout);
    }
    int error = l->error;

    rd_buf_clear(&l->line);
    rd_buf_clear(&out);
    free(l);
    if (error) {
        rd_fail(&first, RD_IO, "stdin: %s", strerror(error));
        return rd_tool_fail(a, &first);
    }
    if (bad == 0) return 0;
    rd_error all;

    rd_fail(&all, RD_INVALID, "%d of the lines have no answer, first line %d: %s", bad, first_line,
            first.text);
    return rd_tool_fail(a, &all);
}

rd_status rd_read_stdin(rd_buf *out, rd_error *err)
{
    char piece[65536];

    for (;;) {
        ssize_t n = read(STDIN_FILENO, piece, sizeof piece);

        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return rd_fail(err, RD_IO, "stdin: %s", strerror(errno));
        if (n == 0) return RD_OK;
        if ((size_t)n > FILE_MOST - out->len)
            return rd_fail(err, RD_INVALID, "stdin: larger than the limit of %d bytes", FILE_MOST);
        rd_buf_append(out, piece, (size_t)n);
    }
}
