/* editor.c - the made-up surroundings of a connection. */
#include "editor.h"

#include "core/base/memory.h"

#include <criterion/criterion.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the host ---- */

static double host_now(void *self)
{
    return ((editor *)self)->now;
}

static void host_wake_at(void *self, rd_conn *c, double at_ms)
{
    (void)c;
    ((editor *)self)->wake_at = at_ms;
}

static void host_submit(void *self, rd_job *job)
{
    editor *e = self;

    cr_assert_lt(e->n_jobs, EDITOR_JOBS);
    e->jobs[e->n_jobs++] = job;
    e->submitted++;
}

static void host_cancel(void *self, rd_job *job)
{
    rd_cancel_set(&job->cancel);
    ((editor *)self)->cancels++;
}

static void host_forget(void *self, const char *source)
{
    editor *e = self;

    snprintf(e->forgot, sizeof e->forgot, "%s", source);
    e->forgets++;
}

static void host_model(void *self, rd_model_state *out)
{
    *out = ((editor *)self)->model;
}

static json_t *host_status(void *self)
{
    (void)self;
    return json_pack("{s:b}", "running", 1);
}

/* ---- messages ---- */

static void send_text(editor *e, const char *json)
{
    char head[64];
    int n = snprintf(head, sizeof head, "Content-Length: %zu\r\n\r\n", strlen(json));

    rd_conn_read(e->conn, head, (size_t)n);
    rd_conn_read(e->conn, json, strlen(json));
}

void editor_raw(editor *e, const char *json)
{
    send_text(e, json);
}

static void params_of(rd_buf *out, const char *format, va_list args)
{
    char text[16384];

    cr_assert_lt((size_t)vsnprintf(text, sizeof text, format, args), sizeof text);
    for (char *c = text; *c; c++)
        if (*c == '\'') *c = '"';
    rd_buf_text(out, text);
}

void editor_notify(editor *e, const char *method, const char *format, ...)
{
    rd_buf out = { 0 };
    va_list args;

    rd_buf_format(&out, "{\"jsonrpc\":\"2.0\",\"method\":\"%s\",\"params\":", method);
    va_start(args, format);
    params_of(&out, format, args);
    va_end(args);
    rd_buf_text(&out, "}");
    send_text(e, out.data);
    rd_buf_clear(&out);
}

int editor_request(editor *e, const char *method, const char *format, ...)
{
    rd_buf out = { 0 };
    va_list args;

    rd_buf_format(
        &out, "{\"jsonrpc\":\"2.0\",\"id\":%d,\"method\":\"%s\",\"params\":", ++e->next_id, method);
    va_start(args, format);
    params_of(&out, format, args);
    va_end(args);
    rd_buf_text(&out, "}");
    send_text(e, out.data);
    rd_buf_clear(&out);
    return e->next_id;
}

void editor_reply(editor *e, json_int_t id, const char *result)
{
    rd_buf out = { 0 };

    rd_buf_format(&out, "{\"jsonrpc\":\"2.0\",\"id\":%lld,\"result\":%s}", (long long)id, result);
    send_text(e, out.data);
    rd_buf_clear(&out);
}

void editor_receive(editor *e)
{
    rd_buf *out = rd_conn_output(e->conn);
    rd_wire *wire = rd_wire_new(RD_FRAMING_HEADER, RD_MOST_FRAME_BYTES);
    const char *bytes = out->data;
    size_t n = out->len;
    rd_frame frame;
    rd_error err;

    while (rd_wire_read(wire, &bytes, &n, &frame, &err) == RD_WIRE_FRAME) {
        json_t *m = json_loadb(frame.bytes, frame.n, 0, NULL);

        cr_assert(m, "not JSON: %s", frame.bytes);
        json_array_append_new(e->notes, m);
    }
    rd_wire_free(wire);
    rd_buf_reset(out);
}

static json_t *take_note(editor *e, bool (*is)(const json_t *m, const void *what), const void *what)
{
    json_t *m;
    size_t i;

    editor_receive(e);
    json_array_foreach(e->notes, i, m)
    {
        if (!is(m, what)) continue;
        json_incref(m);
        json_array_remove(e->notes, i);
        return m;
    }
    return NULL;
}

static bool answers(const json_t *m, const void *what)
{
    return !json_object_get(m, "method") &&
           json_integer_value(json_object_get(m, "id")) == *(const int *)what;
}

static bool is_of(const json_t *m, const void *what)
{
    const char *method = json_string_value(json_object_get(m, "method"));

    return method && !strcmp(method, what);
}

json_t *editor_answer(editor *e, int id)
{
    return take_note(e, answers, &id);
}

json_t *editor_note(editor *e, const char *method)
{
    return take_note(e, is_of, method);
}

/* ---- a session ---- */

void editor_open(editor *e, const char *capabilities, const char *options)
{
    json_t *m;

    memset(e, 0, sizeof *e);
    e->host = (rd_host){ .self = e,
                         .now_ms = host_now,
                         .wake_at = host_wake_at,
                         .submit = host_submit,
                         .cancel = host_cancel,
                         .forget = host_forget,
                         .model = host_model,
                         .status = host_status };
    e->config.client = (rd_settings){ .enable = true,
                                      .quality = 0.5,
                                      .min_confidence = -1,
                                      .max_ms = 500,
                                      .debounce_ms = 75,
                                      .cache = true,
                                      .exclude = json_array(),
                                      .languages = json_object() };
    e->model = (rd_model_state){ .phase = RD_MODEL_READY, .gate = 0.35f };
    snprintf(e->model.about, sizeof e->model.about, "made up");
    e->now = 1e6;
    e->notes = json_array();
    e->conn = rd_conn_new(&(rd_conn_options){
        .host = &e->host, .number = 7, .protocol = RD_LSP, .config = &e->config });
    int id = editor_request(e, "initialize",
                            "{\"processId\":null,\"capabilities\":%s,\"initializationOptions\":%s}",
                            capabilities ? capabilities : "{}", options ? options : "{}");

    m = editor_answer(e, id);
    cr_assert(m && json_object_get(m, "result"), "initialize was not answered");
    json_decref(m);
    editor_notify(e, "initialized", "{}");
}

void editor_close(editor *e)
{
    rd_conn_free(e->conn);
    for (int i = 0; i < e->n_jobs; i++) rd_job_free(e->jobs[i]);
    json_decref(e->notes);
    json_decref(e->config.client.exclude);
    json_decref(e->config.client.languages);
}

void editor_does(editor *e, const char *uri, const char *text)
{
    json_t *params = json_pack("{s:{s:s, s:s, s:i, s:s}}", "textDocument", "uri", uri, "languageId",
                               "c", "version", 1, "text", text);
    json_t *m = json_pack("{s:s, s:s, s:o}", "jsonrpc", "2.0", "method", "textDocument/didOpen",
                          "params", params);
    char *line = json_dumps(m, JSON_COMPACT);

    send_text(e, line);
    free(line);
    json_decref(m);
}

void editor_types(editor *e, const char *uri, int line, int character, const char *text)
{
    json_t *at = json_pack("{s:i, s:i}", "line", line, "character", character);
    json_t *params =
        json_pack("{s:{s:s, s:i}, s:[{s:{s:O, s:O}, s:s}]}", "textDocument", "uri", uri, "version",
                  ++e->next_id, "contentChanges", "range", "start", at, "end", at, "text", text);
    json_t *m = json_pack("{s:s, s:s, s:o}", "jsonrpc", "2.0", "method", "textDocument/didChange",
                          "params", params);
    char *json = json_dumps(m, JSON_COMPACT);

    send_text(e, json);
    free(json);
    json_decref(m);
    json_decref(at);
}

void editor_waits(editor *e, double ms)
{
    double until = e->now + ms;

    while (e->wake_at > 0 && e->wake_at <= until) {
        e->now = e->wake_at > e->now ? e->wake_at : e->now;
        e->wake_at = 0;
        rd_conn_tick(e->conn);
    }
    e->now = until;
}

/* ---- the model ---- */

static void give_back(editor *e, int i, rd_event *ev)
{
    rd_job *job = e->jobs[i];

    memmove(e->jobs + i, e->jobs + i + 1, (size_t)(e->n_jobs - i - 1) * sizeof *e->jobs);
    e->n_jobs--;
    ev->job = job;
    ev->done = true;
    rd_conn_event(e->conn, ev);
    rd_job_free(job);
}

void editor_sweeps(editor *e)
{
    for (int i = e->n_jobs - 1; i >= 0; i--)
        if (rd_cancelled(&e->jobs[i]->cancel)) {
            rd_event ev = { .status = RD_CANCELLED };

            give_back(e, i, &ev);
        }
}

rd_job *editor_job(editor *e)
{
    editor_sweeps(e);
    return e->n_jobs > 0 ? e->jobs[0] : NULL;
}

bool editor_model_says(editor *e, double confidence, const char *text, ...)
{
    rd_event ev = { .forwards = 2, .tokens = 3, .ms = 4 };
    va_list args;

    if (!editor_job(e)) return false;
    va_start(args, text);
    for (; text && ev.n_answers < RD_ANSWERS_MOST; text = va_arg(args, const char *)) {
        rd_buf_text(&ev.answers[ev.n_answers].text, text);
        ev.answers[ev.n_answers++].confidence = (float)confidence;
    }
    va_end(args);
    give_back(e, 0, &ev);
    for (int i = 0; i < ev.n_answers; i++) rd_buf_clear(&ev.answers[i].text);
    return true;
}

bool editor_model_fails(editor *e, rd_status status, const char *why)
{
    rd_event ev = { .status = status };

    if (!editor_job(e)) return false;
    rd_fail(&ev.err, status, "%s", why);
    give_back(e, 0, &ev);
    return true;
}
