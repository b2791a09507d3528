/* infill.c - redraft infill and redraft rewrite: one place in a file, or lines of JSON. */
#include "core/tools/calls.h"

#include "core/base/diff.h"
#include "core/tools/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct session {
    rd_engine *e;
    rd_run_options o;
    bool rewrite;
    const char *instruction; /* of the call; a line's own comes first */
    bool told;               /* that the model follows no instructions */
} session;

/* Said once: an agent that sends a thousand lines need not read it a thousand times. */
static void instruct(session *s, rd_request *rq, const char *instruction, size_t n)
{
    if (n == 0) return;
    rq->instruction = instruction;
    rq->instruction_bytes = n;
    if (s->told || rd_engine_follows_instructions(s->e)) return;
    fprintf(stderr, "redraft %s: this model follows no instructions; they are ignored\n",
            s->rewrite ? "rewrite" : "infill");
    s->told = true;
}

/* ---- lines of JSON ---- */

static rd_status text_field(rd_value rq, const char *key, bool needed, const char **out, size_t *n,
                            rd_error *err)
{
    rd_value v = rd_value_get(rq, key);

    *out = "";
    *n = 0;
    if (rd_value_is_null(v) && !needed) return RD_OK;
    if (!rd_value_is_text(v))
        return rd_fail(err, RD_INVALID, "%s is %s", key, v ? "not a string" : "missing");
    *out = rd_value_text(v, n);
    return RD_OK;
}

static rd_status count_field(rd_value rq, const char *key, int *out, rd_error *err)
{
    rd_value v = rd_value_get(rq, key);
    int64_t n = rd_value_int(v, -1);

    *out = 0;
    if (rd_value_is_null(v)) return RD_OK;
    if (n < 0 || n > 65536)
        return rd_fail(err, RD_INVALID, "%s is not a number from 0 to 65536", key);
    *out = (int)n;
    return RD_OK;
}

/* The smallest edits from `old` to `fresh`. */
static void write_edits(rd_buf *out, const char *old, size_t n, const char *fresh, size_t m)
{
    rd_text_edit *e;
    int count = rd_diff_texts(old, n, fresh, m, &e);

    rd_buf_text(out, "[");
    for (int i = 0; i < count; i++) {
        rd_buf_format(out, "%s{\"start\":%zu,\"end\":%zu,\"text\":", i ? "," : "", e[i].start,
                      e[i].end);
        rd_json_quote(out, fresh + e[i].from, e[i].to - e[i].from);
        rd_buf_text(out, "}");
    }
    rd_buf_text(out, "]");
    free(e);
}

static rd_status answer(void *user, rd_value request, rd_buf *out, rd_error *err)
{
    session *s = user;
    rd_request rq = { .task = s->rewrite ? RD_REWRITE : RD_INFILL };
    const char *id, *language, *instruction;
    size_t id_n, instruction_n, unused;
    rd_result r;

    if (text_field(request, "task_id", true, &id, &id_n, err) ||
        text_field(request, "prefix", true, &rq.prefix, &rq.prefix_bytes, err) ||
        text_field(request, "suffix", true, &rq.suffix, &rq.suffix_bytes, err) ||
        text_field(request, "draft", s->rewrite, &rq.draft, &rq.draft_bytes, err) ||
        text_field(request, "language", false, &language, &unused, err) ||
        text_field(request, "instruction", false, &instruction, &instruction_n, err) ||
        count_field(request, "max_tokens", &rq.max_tokens, err) ||
        count_field(request, "hole_tokens", &rq.hole_tokens, err))
        return err->status;
    rq.language = language;
    if (instruction_n == 0 && s->instruction) {
        instruction = s->instruction;
        instruction_n = strlen(instruction);
    }
    instruct(s, &rq, instruction, instruction_n);
    if (s->rewrite) rq.max_tokens = rq.hole_tokens = 0;
    if (rd_run_to_end(s->e, &rq, &s->o, &r, err)) return err->status;
    const char *text = r.text.data ? r.text.data : "";

    rd_buf_text(out, "{\"task_id\":");
    rd_json_quote(out, id, id_n);
    rd_buf_text(out, ",\"completion\":");
    rd_json_quote(out, text, r.text.len);
    if (s->rewrite) {
        rd_buf_text(out, ",\"edits\":");
        write_edits(out, rq.draft, rq.draft_bytes, text, r.text.len);
        rd_buf_format(out, ",\"confidence\":%.6g,\"forwards\":%d,\"ms\":%.3f}",
                      (double)r.confidence, r.forwards, r.ms);
    } else {
        rd_buf_format(out,
                      ",\"confidence\":%.6g,\"tokens\":%d,\"prefill_tokens\":%d,\"forwards\":%d,"
                      "\"ms\":%.3f,\"reason\":\"%s\"}",
                      (double)r.confidence, r.tokens, r.prefill_tokens, r.forwards, r.ms, r.reason);
    }
    rd_result_clear(&r);
    return RD_OK;
}

/* ---- one place ---- */

static int one_place(const rd_args *a, session *s)
{
    rd_place p = { 0 };
    rd_result r = { 0 };
    rd_buf out = { 0 };
    rd_error err = { 0 };
    int status = 0;

    if (s->rewrite ? rd_place_lines(rd_args_at(a, 0), false, &p, &err)
                   : rd_place_cursor(rd_args_at(a, 0), &p, &err)) {
        status = err.status == RD_INVALID ? 2 : 1;
        rd_tool_fail(a, &err);
        rd_place_clear(&p);
        return status;
    }
    const char *text = p.text.data ? p.text.data : "";
    rd_request rq = { .task = s->rewrite ? RD_REWRITE : RD_INFILL,
                      .language = p.path,
                      .prefix = text,
                      .prefix_bytes = p.start,
                      .draft = text + p.start,
                      .draft_bytes = p.end - p.start,
                      .suffix = text + p.end,
                      .suffix_bytes = p.text.len - p.end };

    status = rd_engine_of(a, &s->e);
    if (!status && s->instruction) instruct(s, &rq, s->instruction, strlen(s->instruction));
    if (!status && rd_run_to_end(s->e, &rq, &s->o, &r, &err)) status = rd_tool_fail(a, &err);
    if (!status && (s->rewrite || rd_args_flag(a, "--diff")))
        rd_place_diff(&p, r.text.data ? r.text.data : "", r.text.len, &out);
    else if (!status)
        rd_buf_append(&out, r.text.data ? r.text.data : "", r.text.len);
    if (out.len) fwrite(out.data, 1, out.len, stdout);
    rd_buf_clear(&out);
    rd_result_clear(&r);
    rd_place_clear(&p);
    return status;
}

static int run(const rd_args *a, bool rewrite)
{
    session s = { .rewrite = rewrite, .instruction = rd_args_text(a, "--instruction") };
    bool lines = rd_args_flag(a, "--jsonl");
    int status;

    if (!rd_run_options_of(a, &s.o)) return 2;
    if (rd_args_count(a) != (lines ? 0 : 1))
        return rd_tool_usage(a, lines ? "--jsonl reads stdin and takes no file" : "name one place");
    if (lines) {
        status = rd_engine_of(a, &s.e);
        if (!status) status = rd_jsonl(answer, &s);
    } else {
        status = one_place(a, &s);
    }
    rd_engine_close(s.e);
    return status;
}

int rd_tool_infill(const rd_args *a)
{
    return run(a, false);
}

int rd_tool_rewrite(const rd_args *a)
{
    return run(a, true);
}
