/* session.c - bytes to acts, acts to a connection, and what must hold after them. */
#include "session.h"

#include "core/base/log.h"
#include "core/base/memory.h"

#include <stdlib.h>
#include <string.h>

enum { ACTS = 32, IDS = 512, ASKS = 64, FIRST_ID = 1000, CHANGES = 3, ROUNDS = 400 };

typedef enum fate { UNUSED, OPEN, CANCELLED, ANSWERED } fate;

typedef struct session {
    const session_kind *kind;
    const unsigned char *data;
    size_t n, at;
    rd_host host;
    rd_conn *conn;
    double now, wake;
    rd_model_state model;
    rd_job **jobs; /* submitted and not given back, the oldest first */
    size_t n_jobs;
    fate fates[IDS];
    int last_id;
    bool any_id; /* bytes of the fuzzer's own were sent: ids are anybody's */
    json_int_t asks[ASKS];
    size_t n_asks;
} session;

#define MUST(holds)                     \
    do {                                \
        if (!(holds)) __builtin_trap(); \
    } while (0)

static unsigned next(session *s)
{
    return s->at < s->n ? s->data[s->at++] : 0;
}

/* ---- the host ---- */

static double host_now(void *self)
{
    return ((session *)self)->now;
}

static void host_wake_at(void *self, rd_conn *c, double at_ms)
{
    (void)c;
    ((session *)self)->wake = at_ms;
}

static void host_submit(void *self, rd_job *job)
{
    session *s = self;

    s->jobs = rd_resize(s->jobs, s->n_jobs + 1, sizeof *s->jobs);
    s->jobs[s->n_jobs++] = job;
}

static void host_cancel(void *self, rd_job *job)
{
    session *s = self;
    size_t i = 0;

    while (i < s->n_jobs && s->jobs[i] != job) i++;
    MUST(i < s->n_jobs);
    rd_cancel_set(&job->cancel);
}

static void host_forget(void *self, const char *source)
{
    (void)self;
    (void)source;
}

static void host_model(void *self, rd_model_state *out)
{
    *out = ((session *)self)->model;
}

static json_t *host_status(void *self)
{
    (void)self;
    return json_pack("{s:b}", "running", 1);
}

/* ---- the model ---- */

static const char *const texts[] = { "x",
                                     "x;\n    y",
                                     "int bad;",
                                     "good",
                                     "",
                                     "\n\n",
                                     "\xff",
                                     "\xe4\xb8",
                                     "}\r\n",
                                     "\t",
                                     "a\xf0\x9f\x98\x80 b",
                                     "int bad;\xc2\xab"
                                     "1\xc2\xbb" };

static void add_answer(session *s, rd_event *ev)
{
    static const float sure[] = { 0.9f, 0.0f, 1.0f, 0.3f, 0.36f };
    rd_answer *a = &ev->answers[ev->n_answers++];
    unsigned b = next(s);

    if (b == 255)
        rd_buf_append(&a->text, "a\0b", 3);
    else if (b == 254)
        for (int i = 0; i < 3000; i++) rd_buf_text(&a->text, "word ");
    else
        rd_buf_text(&a->text, texts[b % (sizeof texts / sizeof *texts)]);
    a->confidence = sure[next(s) % 5];
}

static void add_scores(session *s, rd_event *ev)
{
    size_t n = ev->job->draft.len;

    ev->scores = rd_alloc_array(n + 1, sizeof *ev->scores);
    for (size_t at = 0; at < n;) {
        rd_score *one = &ev->scores[ev->n_scores++];
        unsigned b = next(s);

        *one = (rd_score){ .start = at,
                           .end = at + 1 + b % 6,
                           .p = b & 8 ? 0.001f : 0.9f,
                           .p_best = b & 8 ? 0.99f : 0.9f,
                           .best = "good\xff" };
        if (one->end > n) one->end = n;
        at = one->end;
    }
}

static void draft(session *s, rd_job *job)
{
    rd_event *ev = rd_alloc0(sizeof *ev);

    ev->job = job;
    ev->step = (int)(next(s) % 8);
    if (job->kind == RD_JOB_INFILL || job->kind == RD_JOB_REWRITE) {
        add_answer(s, ev);
        ev->pieces = rd_alloc_array(2, sizeof *ev->pieces);
        ev->pieces[ev->n_pieces++] =
            (rd_piece){ .bytes = ev->answers[0].text.len, .prob = 0.5f, .state = 1 };
        ev->pieces[ev->n_pieces++] = (rd_piece){ .state = 0 };
    }
    rd_conn_event(s->conn, ev);
    rd_event_free(ev);
}

/* A job comes back, for good. */
static void give_back(session *s, size_t i, rd_status status)
{
    rd_job *job = s->jobs[i];
    rd_event *ev = rd_alloc0(sizeof *ev);

    memmove(s->jobs + i, s->jobs + i + 1, (--s->n_jobs - i) * sizeof *s->jobs);
    ev->job = job;
    ev->done = true;
    ev->step = 3;
    ev->ms = 1.5;
    ev->status = rd_cancelled(&job->cancel) ? RD_CANCELLED : status;
    if (ev->status) {
        rd_fail(&ev->err, ev->status, "made up: \xff%.*s", (int)(next(s) % 250), job->prefix.data);
    } else if (job->kind == RD_JOB_SCORE) {
        add_scores(s, ev);
    } else if (job->kind != RD_JOB_WARM) {
        int most = job->answers > 1 ? job->answers : 1;

        MUST(most <= RD_ANSWERS_MOST);
        for (int k = (int)(next(s) % 4); k < most; k++) add_answer(s, ev);
        ev->reason = (rd_reason)(next(s) % 4);
    }
    rd_conn_event(s->conn, ev);
    rd_event_free(ev);
    rd_job_free(job);
}

static void sweep(session *s)
{
    for (size_t i = s->n_jobs; i > 0; i--)
        if (rd_cancelled(&s->jobs[i - 1]->cancel)) give_back(s, i - 1, RD_CANCELLED);
}

/* ---- what the peer hears ---- */

static void hear(session *s, const rd_frame *frame)
{
    json_t *m = json_loadb(frame->bytes, frame->n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
    const json_t *id = json_object_get(m, "id");
    json_int_t number = json_integer_value(id);

    MUST(m && json_object_get(m, "jsonrpc"));
    if (json_object_get(m, "method")) {
        MUST(json_is_string(json_object_get(m, "method")));
        MUST(!json_object_get(m, "params") || json_is_object(json_object_get(m, "params")));
        if (id && s->n_asks < ASKS) s->asks[s->n_asks++] = number;
    } else {
        MUST(id && !json_object_get(m, "result") == !!json_object_get(m, "error"));
        if (!s->any_id && json_is_integer(id)) {
            MUST(number >= FIRST_ID && number < FIRST_ID + s->last_id);
            fate *f = &s->fates[number - FIRST_ID];

            MUST(*f == OPEN || *f == CANCELLED);
            *f = ANSWERED;
        }
    }
    json_decref(m);
}

static void listen(session *s)
{
    rd_buf *out = rd_conn_output(s->conn);
    rd_framing framing = s->kind->protocol == RD_LSP ? RD_FRAMING_HEADER : RD_FRAMING_LINE;
    rd_wire *wire = rd_wire_new(framing, RD_MOST_FRAME_BYTES);
    const char *bytes = out->data;
    size_t n = out->len;
    rd_frame frame;
    rd_error err;

    while (n > 0 && rd_wire_read(wire, &bytes, &n, &frame, &err) == RD_WIRE_FRAME) hear(s, &frame);
    MUST(n == 0);
    MUST(rd_wire_end(wire, &frame, &err) == RD_WIRE_MORE);
    rd_wire_free(wire);
    rd_buf_reset(out);
}

/* ---- what the peer says ---- */

static void say(session *s, const char *json, size_t n)
{
    rd_buf framed = { 0 };

    if (s->kind->protocol == RD_LSP)
        rd_wire_write(&framed, RD_FRAMING_HEADER, json, n);
    else {
        rd_buf_append(&framed, json, n);
        rd_buf_text(&framed, "\n");
    }
    rd_conn_read(s->conn, framed.data, framed.len);
    rd_buf_clear(&framed);
}

static void say_form(session *s, const form *f, bool is_request, const spoilt *changes, size_t n)
{
    rd_buf json = { 0 };
    int id = 0;

    if (is_request && s->last_id == IDS) return;
    if (is_request) {
        s->fates[s->last_id] = OPEN;
        id = FIRST_ID + s->last_id++;
    }
    form_write(f, id, changes, n, &json);
    say(s, json.data, json.len);
    rd_buf_clear(&json);
}

static void say_spoilt(session *s)
{
    const form *f = &s->kind->forms[next(s) % s->kind->n_forms];
    unsigned how = next(s);
    spoilt changes[CHANGES];
    size_t n = how % (CHANGES + 1), places = form_places(f);

    for (size_t i = 0; i < n; i++) {
        unsigned value = next(s);

        changes[i].place = next(s) % places;
        changes[i].value = value == 255 ? NULL : form_values[value % form_values_count];
    }
    say_form(s, f, how >= 250 ? !f->is_request : f->is_request, changes, n);
}

static void cancel_one(session *s)
{
    rd_buf json = { 0 };
    int back = (int)(next(s) % 8), which = s->last_id - 1 - back;

    if (which < 0) return;
    if (s->fates[which] == OPEN) s->fates[which] = CANCELLED;
    rd_buf_format(&json, "{\"jsonrpc\":\"2.0\",\"method\":\"%s\",\"params\":{\"%s\":%d}}",
                  s->kind->protocol == RD_LSP ? "$/cancelRequest" : "notifications/cancelled",
                  s->kind->protocol == RD_LSP ? "id" : "requestId", FIRST_ID + which);
    say(s, json.data, json.len);
    rd_buf_clear(&json);
}

/* Answer one of its questions, now and then with an error or rubbish. */
static void reply(session *s)
{
    static const char *const good[] = { "{\"applied\":true}", "null", "[{\"enable\":true}]",
                                        "[{\"languages\":{\"c\":false},\"exclude\":[\"b.c\"]}]",
                                        "{\"applied\":false,\"failureReason\":\"\xff\\u0000no\"}" };
    unsigned how = next(s), value = next(s);
    rd_buf json = { 0 };

    if (s->n_asks == 0) return;
    rd_buf_format(&json,
                  "{\"jsonrpc\":\"2.0\",\"id\":%lld,\"%s\":", (long long)s->asks[--s->n_asks],
                  how % 4 == 0 ? "error" : "result");
    rd_buf_text(&json, how % 4 < 2 ? form_values[value % form_values_count] : good[value % 5]);
    rd_buf_text(&json, "}");
    say(s, json.data, json.len);
    rd_buf_clear(&json);
}

/* Bytes as they stand, as a message or straight into the stream. */
static void say_raw(session *s, bool framed)
{
    size_t n = next(s), left = s->n - s->at;
    char *copy;

    if (n > left) n = left;
    copy = rd_copy_text((const char *)s->data + s->at, n);
    s->at += n;
    s->any_id = true;
    if (framed)
        say(s, copy, n);
    else
        rd_conn_read(s->conn, copy, n);
    free(copy);
}

/* ---- acts ---- */

static void change_model(session *s)
{
    s->model.phase = (rd_model_phase)(next(s) % 4);
    s->model.follows_instructions = next(s) & 1;
    rd_conn_model_changed(s->conn);
}

static void pass_time(session *s, unsigned ms)
{
    s->now += ms;
    if (s->wake <= 0 || s->wake > s->now) return;
    s->wake = 0;
    rd_conn_tick(s->conn);
}

static void act(session *s)
{
    unsigned b = next(s);
    size_t job = s->n_jobs ? b % s->n_jobs : 0;

    if (b < 130)
        say_spoilt(s);
    else if (b < 170 && s->n_jobs)
        give_back(s, job, RD_OK);
    else if (b < 178 && s->n_jobs)
        give_back(s, job, (rd_status)(RD_STALE + next(s) % 6));
    else if (b < 190 && s->n_jobs)
        draft(s, s->jobs[job]);
    else if (b < 198)
        sweep(s);
    else if (b < 212)
        pass_time(s, next(s) * 16);
    else if (b < 224)
        cancel_one(s);
    else if (b < 238)
        reply(s);
    else if (b < 246)
        change_model(s);
    else if (b < 252)
        say_raw(s, true);
    else if (b < 254)
        say_raw(s, false);
    else if (b == 254 && next(s) == 254) {
        static const form shutdown = { "shutdown", true, "{}" };

        say_form(s, &shutdown, true, NULL, 0);
    }
}

/* Whatever came before, a request as it should be is answered. */
static void say_good(session *s)
{
    size_t i = s->n ? s->data[s->n - 1] % s->kind->n_forms : 0;

    while (!s->kind->forms[i].is_request) i = (i + 1) % s->kind->n_forms;
    say_form(s, &s->kind->forms[i], true, NULL, 0);
}

/* All jobs come back and all timers ring. */
static void settle(session *s)
{
    for (int round = 0; round < ROUNDS; round++) {
        sweep(s);
        if (s->n_jobs > 0)
            give_back(s, 0, RD_OK);
        else if (s->wake > 0)
            pass_time(s, s->wake > s->now ? (unsigned)(s->wake - s->now) + 1 : 0);
        else
            return;
    }
    __builtin_trap(); /* there is no end of it */
}

static void check_fates(const session *s)
{
    for (int i = 0; i < s->last_id; i++)
        MUST(s->fates[i] == ANSWERED || (s->kind->protocol == RD_MCP && s->fates[i] == CANCELLED));
}

static void no_log(void *user, rd_log_level level, const char *line)
{
    (void)user;
    (void)level;
    (void)line;
}

static const rd_config *config(void)
{
    static rd_config *c;
    rd_buf complaints = { 0 };

    if (!c) c = rd_config_new("/no/such/settings", &complaints);
    rd_log_to(RD_LOG_WARN, no_log, NULL);
    rd_buf_clear(&complaints);
    return c;
}

void session_run(const session_kind *kind, const unsigned char *data, size_t n)
{
    session s = { .kind = kind, .data = data, .n = n, .now = 1e6 };
    int code;

    s.host = (rd_host){ &s,          host_now,    host_wake_at, host_submit,
                        host_cancel, host_forget, host_model,   host_status };
    s.model = (rd_model_state){ .phase = RD_MODEL_READY, .gate = 0.35f, .about = "made \xff up" };
    s.conn = rd_conn_new(&(rd_conn_options){ .host = &s.host,
                                             .number = 7,
                                             .protocol = kind->protocol,
                                             .config = config(),
                                             .roots = kind->roots,
                                             .n_roots = kind->n_roots });
    if (next(&s) % 8)
        for (size_t i = 0; i < kind->n_beginning; i++)
            say_form(&s, &kind->beginning[i], kind->beginning[i].is_request, NULL, 0);
    for (int i = 0; i < ACTS && s.at < s.n && !rd_conn_is_over(s.conn, &code); i++) {
        act(&s);
        listen(&s);
    }
    settle(&s);
    say_good(&s);
    settle(&s);
    listen(&s);
    if (!rd_conn_is_over(s.conn, &code) && !s.any_id) check_fates(&s);
    rd_conn_end(s.conn);
    listen(&s);
    rd_conn_free(s.conn);
    for (size_t i = 0; i < s.n_jobs; i++) {
        MUST(rd_cancelled(&s.jobs[i]->cancel));
        rd_job_free(s.jobs[i]);
    }
    free(s.jobs);
}
