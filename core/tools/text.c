/* text.c - redraft tokenize, generate, score and plugins. */
#include "core/tools/calls.h"

#include "core/base/memory.h"
#include "core/format/tokenizer.h"
#include "core/plugin.h"
#include "core/tools/run.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- tokenize ---- */

static int print_ids(const rd_args *a, const rd_tokenizer *t, const rd_buf *in)
{
    rd_ids ids = { 0 };
    rd_error err = { 0 };
    bool json = rd_args_flag(a, "--json");

    if (rd_tokenizer_encode(t, in->data ? in->data : "", in->len, RD_TEXT_PLAIN, &ids, &err)) {
        rd_ids_clear(&ids);
        return rd_tool_fail(a, &err);
    }
    if (json) putchar('[');
    for (int i = 0; i < ids.n; i++) printf("%s%d", i ? json ? "," : " " : "", ids.id[i]);
    puts(json ? "]" : "");
    rd_ids_clear(&ids);
    return 0;
}

static int print_text(const rd_args *a, const rd_tokenizer *t, const rd_buf *in)
{
    rd_ids ids = { 0 };
    rd_buf out = { 0 };
    const char *text = in->data ? in->data : "", *at = text;
    rd_error err = { 0 };

    for (;;) {
        char *end;
        size_t bytes;

        at += strspn(at, " \t\r\n,[]");
        if (at == text + in->len) break;
        errno = 0;
        long id = strtol(at, &end, 10);

        if (end == at || errno || id < 0 || id > INT32_MAX ||
            !rd_tokenizer_bytes(t, (int32_t)id, &bytes)) {
            rd_fail(&err, RD_INVALID, "stdin: byte %zu: no token is called \"%.20s\"",
                    (size_t)(at - text), at);
            rd_ids_clear(&ids);
            return rd_tool_fail(a, &err);
        }
        rd_ids_push(&ids, (int32_t)id);
        at = end;
    }
    rd_tokenizer_decode(t, ids.id, ids.n, false, &out);
    if (out.len) fwrite(out.data, 1, out.len, stdout);
    rd_ids_clear(&ids);
    rd_buf_clear(&out);
    return 0;
}

int rd_tool_tokenize(const rd_args *a)
{
    rd_tokenizer *t = NULL;
    rd_buf in = { 0 };
    rd_error err = { 0 };
    char dir[4096];
    const char *model = rd_args_text(a, "--model");
    int status;

    if (rd_args_count(a)) return rd_tool_usage(a, "it reads stdin and takes no file");
    if (!model && rd_engine_builtin(dir, sizeof dir, &err)) return rd_tool_fail(a, &err);
    if (rd_tokenizer_open(model ? model : dir, &t, &err)) return rd_tool_fail(a, &err);
    if (rd_read_stdin(&in, &err))
        status = rd_tool_fail(a, &err);
    else
        status = rd_args_flag(a, "--decode") ? print_text(a, t, &in) : print_ids(a, t, &in);
    rd_buf_clear(&in);
    rd_tokenizer_close(t);
    return status;
}

/* ---- generate ---- */

int rd_tool_generate(const rd_args *a)
{
    const char *prompt = rd_args_text(a, "--prompt");
    rd_run_options o;
    rd_engine *e = NULL;
    rd_buf in = { 0 };
    rd_result r = { 0 };
    rd_error err = { 0 };

    if (rd_args_count(a)) return rd_tool_usage(a, "the prompt comes by --prompt or on stdin");
    if (!rd_run_options_of(a, &o)) return 2;
    if (!prompt && rd_read_stdin(&in, &err)) {
        rd_buf_clear(&in);
        return rd_tool_fail(a, &err);
    }
    if (!prompt) prompt = in.data ? in.data : "";
    int status = rd_engine_of(a, &e);
    rd_request rq = { .task = RD_GENERATE,
                      .prefix = prompt,
                      .prefix_bytes = in.data ? in.len : strlen(prompt),
                      .language = rd_args_text(a, "--language") };

    if (!status && rd_run_to_end(e, &rq, &o, &r, &err)) status = rd_tool_fail(a, &err);
    if (!status) {
        if (r.text.len) fwrite(r.text.data, 1, r.text.len, stdout);
        putchar('\n');
    }
    rd_result_clear(&r);
    rd_buf_clear(&in);
    rd_engine_close(e);
    return status;
}

/* ---- score ---- */

enum { SCORE_MOST = 256 << 10 }; /* bytes */

typedef struct doubt {
    rd_score score;
    int line;
} doubt;

static int least_sure_first(const void *x, const void *y)
{
    const rd_score *a = &((const doubt *)x)->score, *b = &((const doubt *)y)->score;

    if (a->p != b->p) return a->p < b->p ? -1 : 1;
    return (a->start > b->start) - (a->start < b->start);
}

static void score_json(const rd_score *s, int n)
{
    rd_buf out = { 0 };

    rd_buf_text(&out, "{\"tokens\":[");
    for (int i = 0; i < n; i++) {
        rd_buf_format(&out, "%s{\"start\":%zu,\"end\":%zu,\"p\":%.6g,\"best\":", i ? "," : "",
                      s[i].start, s[i].end, (double)s[i].p);
        rd_json_quote(&out, s[i].best, strlen(s[i].best));
        rd_buf_format(&out, ",\"p_best\":%.6g}", (double)s[i].p_best);
    }
    rd_buf_text(&out, "]}\n");
    fwrite(out.data, 1, out.len, stdout);
    rd_buf_clear(&out);
}

static void score_list(const rd_place *p, const rd_score *s, int n)
{
    const char *text = p->text.data ? p->text.data : "";
    doubt *kept = rd_alloc_array((size_t)n + 1, sizeof *kept);
    size_t at = 0;
    int line = 1;

    for (int i = 0; i < n; i++) {
        for (; at < s[i].start; at++) line += text[at] == '\n';
        kept[i] = (doubt){ s[i], line };
    }
    qsort(kept, (size_t)n, sizeof *kept, least_sure_first);
    for (int i = 0; i < n; i++) {
        const rd_score *c = &kept[i].score;
        rd_buf was = { 0 }, best = { 0 };

        rd_json_quote(&was, text + c->start, c->end - c->start);
        rd_json_quote(&best, c->best, strlen(c->best));
        printf("%.4f line %d %s, rather %s (%.4f)\n", (double)c->p, kept[i].line, was.data,
               best.data, (double)c->p_best);
        rd_buf_clear(&was);
        rd_buf_clear(&best);
    }
    free(kept);
}

int rd_tool_score(const rd_args *a)
{
    rd_place p = { 0 };
    rd_engine *e = NULL;
    rd_score *s = NULL;
    rd_error err = { 0 };
    int n = 0, status;

    if (rd_args_count(a) != 1) return rd_tool_usage(a, "name one file");
    if (!rd_place_lines(rd_args_at(a, 0), true, &p, &err) && p.end - p.start > SCORE_MOST)
        rd_fail(&err, RD_INVALID, "%s: %zu bytes are more than %d; name lines: FILE:FIRST-LAST",
                p.path, p.end - p.start, SCORE_MOST);
    if (err.status) {
        rd_place_clear(&p);
        rd_tool_fail(a, &err);
        return err.status == RD_INVALID ? 2 : 1;
    }
    rd_score_request rq = {
        .language = p.path, .text = p.text.data, .bytes = p.text.len, .from = p.start, .to = p.end
    };

    status = rd_engine_of(a, &e);
    if (!status && rd_engine_score(e, &rq, &s, &n, &err)) status = rd_tool_fail(a, &err);
    if (!status && rd_args_flag(a, "--json"))
        score_json(s, n);
    else if (!status)
        score_list(&p, s, n);
    free(s);
    rd_place_clear(&p);
    rd_engine_close(e);
    return status;
}

/* What a backend runs on; opened for it. */
static rd_status describe(const rd_backend *be, rd_buf *out, rd_error *err)
{
    rd_device *d = NULL;
    rd_device_info info = { 0 };

    if (be->open(&(rd_device_options){ 0 }, &d, err)) return err->status;
    be->describe(d, &info);
    rd_buf_text(out, info.isa);
    if (info.threads > 0) rd_buf_format(out, ", %d threads", info.threads);
    be->close(d);
    return RD_OK;
}

int rd_tool_plugins(const rd_args *a)
{
    rd_plugin_row *rows;

    if (rd_args_count(a)) return rd_tool_usage(a, "it takes no arguments");
    size_t n = rd_plugins_list(&rows);

    for (size_t i = 0; i < n; i++) {
        rd_buf text = { 0 };
        rd_error err = { 0 };

        if (!rows[i].backend)
            printf("%-6s no: %s\n", rows[i].name, rows[i].why);
        else if (describe(rows[i].backend, &text, &err))
            printf("%-6s no: %s\n", rows[i].name, err.text);
        else
            printf("%-6s yes: %s\n", rows[i].name, text.data);
        rd_buf_clear(&text);
    }
    free(rows);
    return 0;
}
