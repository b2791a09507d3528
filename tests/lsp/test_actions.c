/* test_actions.c - code actions and commands against a scripted host: what is sent, for which text, and when not. */
#include "core/base/memory.h"
#include "lsp/context.h"
#include "lsp/peer.h"
#include "lsp/repair.h"
#include "lsp/rewrite.h"
#include "lsp/sync.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- what lsp.c, conn.c and context.c are to actions.c ---- */

static const char *why_not;

rd_job *rd_conn_job(rd_conn *c, rd_lane lane, rd_job_kind kind)
{
    return rd_job_new(1, ++c->last_job, lane, kind);
}

const char *rd_lsp_why_not(rd_lsp *l, const rd_document *doc)
{
    (void)l;
    return rd_document_is_known(doc) ? why_not : "unknown";
}

rd_status rd_lsp_document(rd_lsp *l, const json_t *params, rd_document **out, rd_file_settings *s,
                          rd_error *err)
{
    const char *uri;

    if (rd_sync_uri(params, &uri, err)) return RD_INVALID;
    rd_document *doc = rd_documents_find(l->documents, uri);

    if (!doc || rd_lsp_why_not(l, doc)) return rd_fail(err, RD_NOT_FOUND, "not this one");
    *s = (rd_file_settings){ .enabled = true, .quality = 0.5 };
    *out = doc;
    return RD_OK;
}

static json_t *position(rd_position p)
{
    return json_pack("{s:i, s:i}", "line", (int)p.line, "character", (int)p.character);
}

json_t *rd_lsp_range(const rd_lsp *l, const rd_document *doc, size_t start, size_t end)
{
    const rd_text *t = rd_document_text(doc);

    return json_pack("{s:o, s:o}", "start", position(rd_text_position(t, start, l->encoding)),
                     "end", position(rd_text_position(t, end, l->encoding)));
}

static void say(rd_lsp *l, const char *method, int type, const char *text)
{
    rd_rpc_notify(l->conn->rpc, method, json_pack("{s:i, s:s}", "type", type, "message", text));
}

void rd_lsp_log(rd_lsp *l, int type, const char *text)
{
    say(l, "window/logMessage", type, text);
}

void rd_lsp_show(rd_lsp *l, int type, const char *text)
{
    say(l, "window/showMessage", type, text);
}

void rd_context_fill(rd_job *job, const rd_document *doc, size_t start, size_t end,
                     rd_documents *all, rd_scope *scope)
{
    const rd_text *t = rd_document_text(doc);

    (void)all;
    (void)scope;
    rd_text_copy(t, 0, start, &job->prefix);
    rd_text_copy(t, start, end, &job->draft);
    rd_text_copy(t, end, rd_text_bytes(t), &job->suffix);
    rd_rewrite_plain(&job->prefix);
    rd_rewrite_plain(&job->suffix);
}

/* ---- the host, and a client ---- */

enum { JOBS = 40 };

typedef struct bench {
    rd_host host;
    rd_conn conn;
    rd_lsp lsp;
    double now;
    rd_model_state model;
    rd_job *jobs[JOBS];
    bool cancelled[JOBS];
    int n, done; /* submitted, and given back */
    size_t read; /* of the output */
    int id;
} bench;

static double now_ms(void *self)
{
    return ((bench *)self)->now;
}

static void submit(void *self, rd_job *job)
{
    bench *b = self;

    cr_assert_lt(b->n, JOBS);
    b->jobs[b->n++] = job;
}

static void cancel(void *self, rd_job *job)
{
    bench *b = self;
    int i = b->done; /* one that was given back may have had the same place */

    while (i < b->n && b->jobs[i] != job) i++;
    cr_assert_lt(i, b->n, "a job that has come back already");
    b->cancelled[i] = true;
}

static void model(void *self, rd_model_state *out)
{
    *out = ((bench *)self)->model;
}

static rd_status ready(rd_conn *c, const rd_message *m, rd_error *err)
{
    (void)err;
    if (m->ticket) rd_rpc_answer(c->rpc, m->ticket, NULL);
    return RD_OK;
}

static const rd_method methods[] = {
    { "initialize", RD_MESSAGE_REQUEST, ready },
    { "initialized", RD_MESSAGE_NOTIFICATION, ready },
    { "textDocument/codeAction", RD_MESSAGE_REQUEST, rd_actions_list },
    { "codeAction/resolve", RD_MESSAGE_REQUEST, rd_actions_resolve },
    { "workspace/executeCommand", RD_MESSAGE_REQUEST, rd_actions_command },
};

static void on_cancelled(rd_conn *c, uint64_t ticket)
{
    cr_assert(rd_actions_cancelled(c->lsp->actions, ticket));
}

static void on_replied(rd_conn *c, int64_t ask, const json_t *result, const json_t *error)
{
    cr_assert(rd_actions_replied(c->lsp->actions, ask, result, error));
}

static const rd_rpc_hooks hooks = { .cancelled = on_cancelled, .replied = on_replied };

static void feed(bench *b, json_t *message)
{
    char *text;

    json_object_set_new(message, "jsonrpc", json_string("2.0"));
    text = json_dumps(message, JSON_COMPACT);
    rd_rpc_frame(b->conn.rpc, text, strlen(text));
    free(text);
    json_decref(message);
}

/* The next message sent; NULL: there is none. */
static json_t *take(bench *b)
{
    const char *at = b->conn.out.data ? b->conn.out.data + b->read : "";
    size_t n = strcspn(at, "\n");

    if (n == 0) return NULL;
    b->read += n + 1;
    return json_loadb(at, n, JSON_DECODE_ANY, NULL);
}

static void request(bench *b, const char *method, json_t *params)
{
    feed(b, json_pack("{s:i, s:s, s:o}", "id", ++b->id, "method", method, "params", params));
}

static void open_text(bench *b, const char *language, const char *text)
{
    rd_error err;

    cr_assert(
        !rd_documents_open(b->lsp.documents, "file:///a", language, 7, text, strlen(text), &err));
}

static bench *connect_client(void)
{
    bench *b = rd_alloc0(sizeof *b);

    why_not = NULL;
    b->host = (rd_host){
        .self = b, .now_ms = now_ms, .submit = submit, .cancel = cancel, .model = model
    };
    b->model.phase = RD_MODEL_READY;
    b->now = 1000;
    b->conn.o.host = &b->host;
    b->conn.lsp = &b->lsp;
    b->conn.rpc = rd_rpc_new(RD_LSP, methods, sizeof methods / sizeof *methods, &hooks, &b->conn,
                             RD_FRAMING_LINE, &b->conn.out);
    b->lsp.conn = &b->conn;
    b->lsp.client =
        (rd_client){ .apply_edit = true, .document_changes = true, .resolves_edit = true };
    b->lsp.documents = rd_documents_new();
    b->lsp.actions = rd_actions_new(&b->lsp);
    request(b, "initialize", json_object());
    feed(b, json_pack("{s:s}", "method", "initialized"));
    json_decref(take(b));
    return b;
}

static void hang_up(bench *b)
{
    rd_actions_free(b->lsp.actions);
    for (; b->done < b->n; b->done++) rd_job_free(b->jobs[b->done]);
    rd_documents_free(b->lsp.documents);
    rd_rpc_free(b->conn.rpc);
    rd_buf_clear(&b->conn.out);
    free(b);
}

static rd_job *last_job(bench *b)
{
    cr_assert_eq(b->done, b->n - 1, "no job waits");
    return b->jobs[b->done];
}

static void send_event(bench *b, rd_event *ev)
{
    ev->job = last_job(b);
    cr_assert(rd_actions_event(b->lsp.actions, ev));
    if (!ev->done) return;
    rd_job_free(ev->job);
    b->done++;
}

/* The job's last event, with an answer or, without, a status. */
static void answer(bench *b, const char *text, rd_status status)
{
    rd_event *ev = rd_alloc0(sizeof *ev);

    ev->done = true;
    ev->status = status;
    snprintf(ev->err.text, sizeof ev->err.text, "the model broke");
    if (text) {
        ev->n_answers = 1;
        rd_buf_text(&ev->answers[0].text, text);
    }
    send_event(b, ev);
    rd_event_free(ev);
}

/* Every occurrence of `word` in the draft is doubtful, and `best` likelier. */
static void answer_scores(bench *b, const char *word, const char *best)
{
    rd_event *ev = rd_alloc0(sizeof *ev);
    const char *draft = last_job(b)->draft.data;

    ev->done = true;
    ev->scores = rd_alloc_array(8, sizeof *ev->scores);
    for (const char *at = draft; word && (at = strstr(at, word)) != NULL; at++) {
        rd_score *s = &ev->scores[ev->n_scores++];

        *s = (rd_score){ .start = (size_t)(at - draft), .p = 0.001f, .p_best = 0.95f };
        s->end = s->start + strlen(word);
        snprintf(s->best, sizeof s->best, "%s", best);
    }
    send_event(b, ev);
    rd_event_free(ev);
}

static void edit(bench *b, size_t start, size_t end, const char *text)
{
    rd_document *doc = rd_documents_find(b->lsp.documents, "file:///a");
    rd_error err;

    cr_assert(!rd_document_edit(doc, start, end, text, strlen(text), &err));
    rd_document_set_version(doc, rd_document_version(doc) + 1);
    rd_actions_changed(b->lsp.actions, doc);
}

static json_t *range(int line, int from, int to_line, int to)
{
    return json_pack("{s:{s:i, s:i}, s:{s:i, s:i}}", "start", "line", line, "character", from,
                     "end", "line", to_line, "character", to);
}

static json_t *list(bench *b, json_t *where, int trigger, const char *only)
{
    json_t *context = json_pack("{s:[], s:i}", "diagnostics", "triggerKind", trigger), *answered,
           *result;

    if (only) json_object_set_new(context, "only", json_pack("[s]", only));
    request(b, "textDocument/codeAction",
            json_pack("{s:{s:s}, s:o, s:o}", "textDocument", "uri", "file:///a", "range", where,
                      "context", context));
    answered = take(b);
    result = json_incref(json_object_get(answered, "result"));
    cr_assert(json_is_array(result));
    json_decref(answered);
    return result;
}

static void offers(bench *b, json_t *where, int trigger, const char *only, const char *titles)
{
    json_t *found = list(b, where, trigger, only), *one;
    rd_buf got = { 0 };
    size_t i;

    rd_buf_text(&got, "");
    json_array_foreach(found, i, one)
        rd_buf_format(&got, "%s;", json_string_value(json_object_get(one, "title")));
    cr_assert_str_eq(got.data, titles);
    cr_assert_eq(b->n, 0, "listing asks nothing of the model");
    rd_buf_clear(&got);
    json_decref(found);
}

/* Resolve the first action of a list; with `with`, changed by it. */
static void resolve_first(bench *b, json_t *actions, json_t *with)
{
    json_t *action = json_incref(json_array_get(actions, 0));

    cr_assert_not_null(action);
    if (with) json_object_update(json_object_get(action, "data"), with);
    request(b, "codeAction/resolve", action);
    json_decref(actions);
    json_decref(with);
}

static void command(bench *b, const char *name, json_t *argument)
{
    request(b, "workspace/executeCommand",
            json_pack("{s:s, s:[o]}", "command", name, "arguments", argument));
}

static json_t *at_range(json_t *where)
{
    return json_pack("{s:s, s:o}", "uri", "file:///a", "range", where);
}

/* The next message: its method (or "result", "error"), and as compact text what `path` names in it. */
static void next_is(bench *b, const char *kind, const char *path, const char *want)
{
    json_t *m = take(b);
    const json_t *at = m;
    const char *method = json_string_value(json_object_get(m, "method"));

    cr_assert_not_null(m, "nothing was sent");
    if (!method) method = json_object_get(m, "error") ? "error" : "result";
    cr_assert_str_eq(method, kind);
    for (char name[32]; path && *path && at; path += *path == '.') {
        size_t n = strcspn(path, ".");

        snprintf(name, sizeof name, "%.*s", (int)n, path);
        at = json_is_array(at) ? json_array_get(at, (size_t)atoi(name)) : json_object_get(at, name);
        path += n;
    }
    char *text = at ? json_dumps(at, JSON_COMPACT | JSON_ENCODE_ANY | JSON_SORT_KEYS) : NULL;

    if (want) cr_assert(text && strstr(text, want), "%s in %s", want, text);
    free(text);
    json_decref(m);
}

static void nothing_more(bench *b)
{
    json_t *m = take(b);
    char *text = m ? json_dumps(m, JSON_COMPACT) : NULL;

    cr_assert_null(m, "%s", text);
}

#define EDITS "result.edit.documentChanges.0.edits"

/* ---- listing ---- */

Test(actions, offer_what_can_be_done_there_without_the_model)
{
    bench *b = connect_client();

    open_text(b, "python", "def f():\n    pass\n\nx = 1\n");
    offers(b, range(3, 0, 3, 5), 1, NULL, "Rewrite selection;Fix doubtful tokens here;");
    offers(b, range(1, 5, 1, 5), 1, NULL, "Fill this hole;Fix doubtful tokens here;");
    offers(b, range(2, 0, 2, 0), 1, NULL, "");
    offers(b, range(1, 5, 1, 5), 2, NULL, "");
    offers(b, range(0, 0, 1, 8), 2, NULL,
           "Rewrite selection;Fill this hole;Fix doubtful tokens here;");
    nothing_more(b);
    hang_up(b);
}

Test(actions, of_kinds_that_are_not_wanted_are_left_out)
{
    bench *b = connect_client();

    open_text(b, "python", "    pass\n");
    offers(b, range(0, 0, 0, 8), 1, "quickfix", "Fill this hole;");
    offers(b, range(0, 0, 0, 8), 1, "refactor", "Rewrite selection;Fix doubtful tokens here;");
    offers(b, range(0, 0, 0, 8), 1, "refactor.rewrite",
           "Rewrite selection;Fix doubtful tokens here;");
    offers(b, range(0, 0, 0, 8), 1, "refactor.rewrite.more", "");
    offers(b, range(0, 0, 0, 8), 1, "refact", "");
    offers(b, range(0, 0, 0, 8), 1, "",
           "Rewrite selection;Fill this hole;Fix doubtful tokens here;");
    offers(b, range(0, 0, 0, 8), 1, "source.organizeImports", "");
    hang_up(b);
}

Test(actions, are_none_for_a_document_that_is_excluded_or_not_known)
{
    bench *b = connect_client();

    offers(b, range(0, 0, 0, 4), 1, NULL, "");
    open_text(b, "python", "pass\n");
    why_not = "excluded";
    offers(b, range(0, 0, 0, 4), 1, NULL, "");
    why_not = NULL;
    rd_documents_forget(b->lsp.documents);
    offers(b, range(0, 0, 0, 4), 1, NULL, "");
    hang_up(b);
}

Test(actions, become_commands_for_a_client_that_cannot_resolve_edits)
{
    bench *b = connect_client();

    b->lsp.client.resolves_edit = false;
    open_text(b, "c", "x = 1;\n");
    json_t *found = list(b, range(0, 0, 0, 6), 1, NULL), *one = json_array_get(found, 0);
    json_t *c = json_object_get(one, "command");

    cr_assert_null(json_object_get(one, "data"));
    cr_assert_str_eq(json_string_value(json_object_get(c, "command")), "redraft.rewrite");
    request(b, "workspace/executeCommand", json_deep_copy(c));
    next_is(b, "result", "result", "null");
    cr_assert_str_eq(last_job(b)->draft.data, "x = 1;");
    json_decref(found);
    b->lsp.client.apply_edit = false;
    found = list(b, range(0, 0, 0, 6), 1, NULL);
    cr_assert_eq(json_array_size(found), 0);
    json_decref(found);
    hang_up(b);
}

/* ---- resolving ---- */

Test(actions, resolve_to_the_smallest_edit_of_the_version)
{
    bench *b = connect_client();

    open_text(b, "c", "a = 1;\nb = two;\n");
    resolve_first(b, list(b, range(0, 0, 2, 0), 1, NULL), NULL);
    cr_assert_eq(last_job(b)->lane, RD_LANE_ASKED);
    cr_assert_eq(last_job(b)->kind, RD_JOB_REWRITE);
    nothing_more(b);
    answer(b, "a = 1;\nb = 2;\n", RD_OK);
    next_is(
        b, "result", "result.edit",
        "[{\"edits\":[{\"newText\":\"2\",\"range\":{\"end\":{\"character\":7,\"line\":1},\"start\":"
        "{\"character\":4,\"line\":1}}}],\"textDocument\":{\"uri\":\"file:///a\",\"version\":7}}]");
    nothing_more(b);
    hang_up(b);
}

Test(actions, resolve_to_changes_for_a_client_without_document_changes)
{
    bench *b = connect_client();

    b->lsp.client.document_changes = false;
    open_text(b, "c", "a = 1;\n");
    resolve_first(b, list(b, range(0, 0, 0, 6), 1, NULL), NULL);
    answer(b, "a = 2;", RD_OK);
    next_is(b, "result", "result.edit", "{\"changes\":{\"file:///a\":[{\"newText\":\"2\"");
    resolve_first(b, list(b, range(0, 0, 0, 6), 1, NULL), NULL);
    answer(b, "a = 1;", RD_OK);
    next_is(b, "window/showMessage", "params.message", "leave this as it is");
    next_is(b, "result", "result.edit", "{\"changes\":{}}");
    hang_up(b);
}

Test(actions, shift_an_edit_when_the_text_moved_and_refuse_it_when_the_span_changed)
{
    bench *b = connect_client();

    open_text(b, "c", "a;\nb = 1;\nc;\n");
    resolve_first(b, list(b, range(1, 0, 1, 6), 1, NULL), NULL);
    edit(b, 0, 0, "new;\n");
    answer(b, "b = 2;", RD_OK);
    next_is(b, "result", "result.edit.documentChanges.0.textDocument.version", "8");
    resolve_first(b, list(b, range(2, 0, 2, 6), 1, NULL), NULL);
    edit(b, 9, 10, "x");
    cr_assert(b->cancelled[b->done], "it would be in vain");
    answer(b, NULL, RD_CANCELLED);
    next_is(b, "error", "error.code", "-32801");
    json_t *old = list(b, range(2, 0, 2, 6), 1, NULL);

    edit(b, 9, 10, "y");
    resolve_first(b, old, NULL);
    next_is(b, "error", "error.code", "-32801");
    resolve_first(b, list(b, range(2, 0, 2, 6), 1, NULL), NULL);
    rd_actions_closed(b->lsp.actions, "file:///a");
    rd_documents_close(b->lsp.documents, "file:///a");
    open_text(b, "c", "a;\nb = 1;\nc;\nd = 5;\n");
    answer(b, "b = 3;", RD_OK);
    next_is(b, "error", "error.code", "-32801");
    nothing_more(b);
    hang_up(b);
}

Test(actions, are_refused_when_the_document_was_closed_meanwhile_though_it_is_open_again)
{
    bench *b = connect_client();

    open_text(b, "c", "a = 1;\n");
    resolve_first(b, list(b, range(0, 0, 0, 6), 1, NULL), NULL);
    rd_actions_closed(b->lsp.actions, "file:///a");
    rd_documents_close(b->lsp.documents, "file:///a");
    open_text(b, "c", "something else\n");
    answer(b, "a = 2;", RD_OK);
    next_is(b, "error", "error.code", "-32801");
    nothing_more(b);
    hang_up(b);
}

Test(actions, shift_the_edit_to_its_new_line)
{
    bench *b = connect_client();

    open_text(b, "c", "a;\nb = 1;\n");
    resolve_first(b, list(b, range(1, 0, 1, 6), 1, NULL), NULL);
    edit(b, 0, 0, "new;\n");
    answer(b, "b = 2;", RD_OK);
    next_is(b, "result", EDITS ".0.range.start", "{\"character\":4,\"line\":2}");
    hang_up(b);
}

Test(actions, take_an_instruction_for_a_rewrite_with_the_data)
{
    bench *b = connect_client();

    open_text(b, "c", "a = 1;\n");
    resolve_first(b, list(b, range(0, 0, 0, 5), 1, NULL),
                  json_pack("{s:s}", "instruction", "make it two"));
    cr_assert_str_eq(last_job(b)->instruction.data, "make it two");
    next_is(b, "window/showMessage", "params.message", "does not follow instructions");
    answer(b, "a = 2", RD_OK);
    next_is(b, "result", EDITS, "\"newText\":\"2\"");
    resolve_first(b, list(b, range(0, 0, 0, 5), 1, NULL), json_pack("{s:i}", "instruction", 1));
    next_is(b, "error", "error.message", "data.instruction is not a string");
    hang_up(b);
}

Test(actions, judge_the_data_that_comes_back)
{
    static const char *const wrong[] = {
        "{\"uri\": 1}",      "{\"kind\": \"show\"}",     "{\"kind\": null}",
        "{\"start\": -1}",   "{\"start\": 6}",           "{\"end\": 99999}",
        "{\"end\": 1e300}",  "{\"revision\": \"1\"}",    "{\"revision\": -1}",
        "{\"start\": null}", "{\"uri\": \"file:///b\"}",
    };
    bench *b = connect_client();

    open_text(b, "c", "a = 1;\n");
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        resolve_first(b, list(b, range(0, 0, 0, 5), 1, NULL), json_loads(wrong[i], 0, NULL));
        next_is(b, "error", "error.code", "-32602");
    }
    resolve_first(b, list(b, range(0, 0, 0, 5), 1, NULL), json_pack("{s:i}", "revision", 9999));
    next_is(b, "error", "error.code", "-32801");
    request(b, "codeAction/resolve", json_pack("{s:s}", "title", "not ours"));
    next_is(b, "error", "error.message", "data is not an object");
    cr_assert_eq(b->n, 0);
    hang_up(b);
}

Test(actions, begin_and_end_at_characters_whatever_the_data_says)
{
    bench *b = connect_client();

    open_text(b, "c", "\xf0\x9f\x98\x80\xc3\xa9\r\nx\n");
    resolve_first(b, list(b, range(0, 0, 0, 3), 1, NULL),
                  json_pack("{s:i, s:i}", "start", 2, "end", 7));
    cr_assert_str_eq(last_job(b)->draft.data, "\xf0\x9f\x98\x80\xc3\xa9");
    hang_up(b);
}

Test(actions, fill_a_hole_and_tell_a_model_that_listens_what_the_comment_says)
{
    bench *b = connect_client();

    open_text(b, "python", "def f():\n    # TODO sum\n    pass\nx = 1\n");
    resolve_first(b, list(b, range(1, 6, 1, 6), 1, "quickfix"), NULL);
    cr_assert_eq(last_job(b)->kind, RD_JOB_INFILL);
    cr_assert_str_eq(last_job(b)->prefix.data, "def f():\n    ");
    cr_assert_str_eq(last_job(b)->suffix.data, "\nx = 1\n");
    cr_assert_eq(last_job(b)->draft.len, 0);
    cr_assert_str_eq(last_job(b)->instruction.data, "# TODO sum\n    pass");
    answer(b, "return 1\n", RD_OK);
    next_is(b, "result", EDITS,
            "[{\"newText\":\"return 1\",\"range\":{\"end\":{\"character\":8,\"line\":2},\"start\":"
            "{\"character\":4,\"line\":1}}}]");
    nothing_more(b);
    hang_up(b);
}

Test(actions, ask_in_plain_line_ends_and_answer_in_the_documents)
{
    bench *b = connect_client();

    open_text(b, "c", "a;\r\nb;\r\nc;\r\n");
    resolve_first(b, list(b, range(1, 0, 2, 0), 1, NULL), NULL);
    cr_assert_str_eq(last_job(b)->prefix.data, "a;\n");
    cr_assert_str_eq(last_job(b)->draft.data, "b;\n");
    cr_assert_str_eq(last_job(b)->suffix.data, "c;\n");
    answer(b, "b;\nd;", RD_OK);
    next_is(b, "result", EDITS ".0.newText", "d;\\r\\n");
    hang_up(b);
}

Test(actions, count_columns_in_the_encoding_of_the_connection)
{
    static const char *const columns[] = { [RD_UTF16] = "10", [RD_UTF8] = "13", [RD_UTF32] = "9" };
    static const int ends[] = { [RD_UTF16] = 15, [RD_UTF8] = 18, [RD_UTF32] = 14 };

    for (rd_encoding e = RD_UTF16; e <= RD_UTF32; e++) {
        bench *b = connect_client();

        b->lsp.encoding = e;
        open_text(b, "c", "s = '\xf0\x9f\x98\x80\xc3\xa9' + one\n");
        resolve_first(b, list(b, range(0, 0, 0, ends[e]), 1, NULL), NULL);
        answer(b, "s = '\xf0\x9f\x98\x80\xc3\xa9' - one", RD_OK);
        next_is(b, "result", EDITS ".0.range.start.character", columns[e]);
        nothing_more(b);
        hang_up(b);
    }
}

Test(actions, fail_with_a_sentence_when_the_model_fails)
{
    bench *b = connect_client();

    open_text(b, "c", "a = 1;\n");
    resolve_first(b, list(b, range(0, 0, 0, 6), 1, NULL), NULL);
    answer(b, NULL, RD_DEVICE);
    next_is(b, "error", "error", "{\"code\":-32803,\"message\":\"the model broke\"}");
    command(b, "redraft.rewrite", at_range(range(0, 0, 0, 6)));
    next_is(b, "result", "result", "null");
    answer(b, NULL, RD_INVALID);
    next_is(b, "window/showMessage", "params", "{\"message\":\"the model broke\",\"type\":1}");
    hang_up(b);
}

Test(actions, that_are_cancelled_stop_their_job_and_are_answered_once)
{
    bench *b = connect_client();

    open_text(b, "c", "a = 1;\n");
    resolve_first(b, list(b, range(0, 0, 0, 6), 1, NULL), NULL);
    feed(b, json_pack("{s:s, s:{s:i}}", "method", "$/cancelRequest", "params", "id", b->id));
    next_is(b, "error", "error.code", "-32800");
    cr_assert(b->cancelled[0]);
    answer(b, "a = 2;", RD_OK);
    nothing_more(b);
    hang_up(b);
}

/* ---- doubtful tokens ---- */

Test(actions, mend_only_what_is_doubtful_and_leave_the_rest)
{
    bench *b = connect_client();

    open_text(b, "c", "one = bad;\r\nlong_enough_between = 1;\r\ntwo = bad;\r\n");
    resolve_first(b, list(b, range(0, 0, 2, 3), 1, "refactor"), NULL); /* the selection */
    answer(b, NULL, RD_CANCELLED);
    next_is(b, "error", NULL, NULL);
    command(b, "redraft.fixDoubtful", at_range(range(0, 2, 2, 3)));
    next_is(b, "result", "result", "null");
    cr_assert_eq(last_job(b)->kind, RD_JOB_SCORE);
    cr_assert_str_eq(last_job(b)->draft.data, "one = bad;\nlong_enough_between = 1;\ntwo = bad;");
    answer_scores(b, "bad", "good");
    cr_assert_eq(last_job(b)->kind, RD_JOB_REWRITE);
    cr_assert_str_eq(last_job(b)->draft.data, "bad");
    answer(b, "good", RD_OK);
    cr_assert_str_eq(last_job(b)->draft.data, "bad");
    edit(b, 0, 0, "zero;\r\n");
    answer(b, "fine", RD_OK);
    next_is(b, "workspace/applyEdit", "params.edit.documentChanges.0.edits",
            "[{\"newText\":\"good\",\"range\":{\"end\":{\"character\":9,\"line\":1},\"start\":{"
            "\"character\":6,"
            "\"line\":1}}},{\"newText\":\"fine\",\"range\":{\"end\":{\"character\":9,\"line\":3},"
            "\"start\":{"
            "\"character\":6,\"line\":3}}}]");
    nothing_more(b);
    hang_up(b);
}

Test(actions, say_so_when_nothing_is_doubtful)
{
    bench *b = connect_client();

    open_text(b, "c", "x = 1;\n");
    resolve_first(b, list(b, range(0, 1, 0, 1), 1, NULL), NULL);
    answer_scores(b, NULL, NULL);
    next_is(b, "window/showMessage", "params.message", "doubtful");
    next_is(b, "result", "result.edit", "{\"documentChanges\":[]}");
    nothing_more(b);
    hang_up(b);
}

Test(actions, show_what_is_doubtful_as_hints_until_it_changes)
{
    bench *b = connect_client();

    open_text(b, "c", "a = bad;\nb = bad;\n");
    command(b, "redraft.showDoubtful", json_pack("{s:s}", "uri", "file:///a"));
    next_is(b, "result", "result", "null");
    answer_scores(b, "bad", "good");
    next_is(b, "textDocument/publishDiagnostics", "params.diagnostics.0",
            "{\"message\":\"`bad` is unlikely here (under 1 %); the model would write `good` (95 "
            "%)\",\"range\":{"
            "\"end\":{\"character\":7,\"line\":0},\"start\":{\"character\":4,\"line\":0}},"
            "\"severity\":4,"
            "\"source\":\"redraft\"}");
    edit(b, 0, 0, "\n");
    nothing_more(b); /* the client moves them itself */
    edit(b, 6, 7, "x");
    next_is(b, "textDocument/publishDiagnostics", "params.diagnostics", "[{\"message\"");
    json_t *found = list(b, range(2, 5, 2, 5), 2, NULL);

    cr_assert_eq(json_array_size(found), 1, "flagged, so it is offered unasked");
    resolve_first(b, found, NULL);
    cr_assert_eq(last_job(b)->kind, RD_JOB_REWRITE);
    cr_assert_str_eq(last_job(b)->draft.data, "bad");
    answer(b, "good", RD_OK);
    next_is(b, "result", EDITS ".0.newText", "good");
    command(b, "redraft.showDoubtful", json_pack("{s:s, s:b}", "uri", "file:///a", "off", 1));
    next_is(b, "result", "result", "null");
    next_is(b, "textDocument/publishDiagnostics", "params.diagnostics", "[]");
    rd_actions_closed(b->lsp.actions, "file:///a");
    nothing_more(b);
    hang_up(b);
}

Test(actions, take_their_hints_back_when_the_document_is_closed)
{
    bench *b = connect_client();

    open_text(b, "c", "a = bad;\n");
    command(b, "redraft.showDoubtful", json_pack("{s:s}", "uri", "file:///a"));
    next_is(b, "result", NULL, NULL);
    answer_scores(b, "bad", "good");
    next_is(b, "textDocument/publishDiagnostics", "params.diagnostics.0", "bad");
    rd_actions_closed(b->lsp.actions, "file:///a");
    next_is(b, "textDocument/publishDiagnostics", "params.diagnostics", "[]");
    hang_up(b);
}

Test(actions, look_for_doubtful_tokens_at_rest_only_when_it_is_switched_on)
{
    bench *b = connect_client();

    open_text(b, "c", "a = bad;\n");
    edit(b, 0, 1, "b");
    cr_assert(rd_actions_due(b->lsp.actions) == 0);
    b->lsp.settings.diagnostics = true;
    edit(b, 0, 1, "c");
    cr_assert(rd_actions_due(b->lsp.actions) == 3000);
    rd_actions_tick(b->lsp.actions, 2999);
    cr_assert_eq(b->n, 0);
    b->model.phase = RD_MODEL_AWAY;
    rd_actions_tick(b->lsp.actions, 3000);
    cr_assert_eq(b->n, 0, "it is not loaded for this");
    b->model.phase = RD_MODEL_READY;
    edit(b, 0, 1, "d");
    rd_actions_tick(b->lsp.actions, 3000);
    cr_assert_eq(last_job(b)->lane, RD_LANE_IDLE);
    edit(b, 0, 1, "e");
    cr_assert(b->cancelled[0], "it would be stale");
    answer(b, NULL, RD_CANCELLED);
    nothing_more(b);
    rd_actions_tick(b->lsp.actions, 3000);
    answer_scores(b, "bad", "good");
    next_is(b, "textDocument/publishDiagnostics", "params.diagnostics.0", "bad");
    nothing_more(b);
    hang_up(b);
}

/* ---- commands ---- */

Test(actions, of_commands_are_answered_at_once_and_applied_later)
{
    bench *b = connect_client();

    open_text(b, "c", "a = 1;\n");
    command(b, "redraft.rewrite", at_range(range(0, 0, 0, 6)));
    next_is(b, "result", "result", "null");
    nothing_more(b);
    answer(b, "a = 2;", RD_OK);
    json_t *asked = take(b);

    cr_assert_str_eq(json_string_value(json_object_get(asked, "method")), "workspace/applyEdit");
    feed(b,
         json_pack("{s:O, s:{s:b}}", "id", json_object_get(asked, "id"), "result", "applied", 1));
    json_decref(asked);
    nothing_more(b);
    hang_up(b);
}

Test(actions, of_commands_say_when_the_editor_did_not_apply_them)
{
    bench *b = connect_client();

    open_text(b, "c", "a = 1;\n");
    command(b, "redraft.rewrite", at_range(range(0, 0, 0, 6)));
    next_is(b, "result", NULL, NULL);
    answer(b, "a = 2;", RD_OK);
    next_is(b, "workspace/applyEdit", "id", "1");
    feed(b, json_pack("{s:i, s:{s:b, s:s}}", "id", 1, "result", "applied", 0, "failureReason",
                      "read only"));
    next_is(b, "window/logMessage", "params.message", "read only");
    next_is(b, "window/showMessage", "params.message", "did not apply the edit: read only");
    hang_up(b);
}

Test(actions, of_commands_are_refused_in_words_where_edits_cannot_be_sent)
{
    bench *b = connect_client();

    b->lsp.client.apply_edit = false;
    open_text(b, "c", "a = 1;\n");
    command(b, "redraft.rewrite", at_range(range(0, 0, 0, 6)));
    next_is(b, "result", "result", "null");
    next_is(b, "window/showMessage", "params.message", "does not take edits");
    cr_assert_eq(b->n, 0);
    hang_up(b);
}

Test(actions, of_commands_with_wrong_arguments_name_the_field)
{
    static const struct {
        const char *params, *code, *says;
    } wrong[] = {
        { "{\"command\": \"redraft.nothing\"}", "-32602", "command" },
        { "{\"arguments\": []}", "-32602", "command" },
        { "{\"command\": \"redraft.rewrite\"}", "-32602", "arguments[0]" },
        { "{\"command\": \"redraft.rewrite\", \"arguments\": [1]}", "-32602", "arguments[0]" },
        { "{\"command\": \"redraft.rewrite\", \"arguments\": [{}]}", "-32602", "arguments[0].uri" },
        { "{\"command\": \"redraft.rewrite\", \"arguments\": [{\"uri\": \"file:///a\"}]}", "-32602",
          "arguments[0].range" },
        { "{\"command\": \"redraft.showDoubtful\", \"arguments\": [{\"off\": true}]}", "-32602",
          "arguments[0].uri" },
        { "{\"command\": \"redraft.fill\", \"arguments\": [{\"uri\": \"file:///a\", \"position\": "
          "1}]}",
          "-32602", "arguments[0].position" },
        { "{\"command\": \"redraft.rewrite\", \"arguments\": [{\"uri\": \"file:///a\", "
          "\"instruction\": 1, "
          "\"range\": {\"start\": {\"line\": 0, \"character\": 0}, \"end\": {\"line\": 0, "
          "\"character\": "
          "1}}}]}",
          "-32602", "arguments[0].instruction" },
        { "{\"command\": \"redraft.rewrite\", \"arguments\": [{\"uri\": \"file:///a\", "
          "\"version\": 6, "
          "\"range\": {\"start\": {\"line\": 0, \"character\": 0}, \"end\": {\"line\": 0, "
          "\"character\": "
          "1}}}]}",
          "-32801", "version 6" },
    };
    bench *b = connect_client();

    open_text(b, "c", "a = 1;\n");
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        request(b, "workspace/executeCommand", json_loads(wrong[i].params, 0, NULL));
        json_t *m = take(b), *error = json_object_get(m, "error");
        char code[16];

        snprintf(code, sizeof code, "%d", (int)json_integer_value(json_object_get(error, "code")));
        cr_assert_str_eq(code, wrong[i].code);
        cr_assert(strstr(json_string_value(json_object_get(error, "message")), wrong[i].says),
                  "%zu", i);
        json_decref(m);
    }
    cr_assert_eq(b->n, 0);
    nothing_more(b);
    hang_up(b);
}

Test(actions, of_commands_without_a_place_say_so)
{
    bench *b = connect_client();

    open_text(b, "c", "a = 1;\n");
    command(b, "redraft.fill",
            json_pack("{s:s, s:{s:i, s:i}}", "uri", "file:///a", "position", "line", 0, "character",
                      2));
    next_is(b, "result", "result", "null");
    next_is(b, "window/showMessage", "params.message", "no hole");
    command(b, "redraft.rewrite", at_range(range(0, 2, 0, 2)));
    next_is(b, "result", "result", "null");
    next_is(b, "window/showMessage", "params.message", "Nothing is selected");
    hang_up(b);
}

Test(actions, tell_once_that_a_model_ignores_instructions_and_go_on)
{
    bench *b = connect_client();

    open_text(b, "c", "a = 1;\n");
    for (int i = 0; i < 2; i++) {
        json_t *argument = at_range(range(0, 0, 0, 6));

        json_object_set_new(argument, "instruction", json_string("make it two"));
        command(b, "redraft.rewrite", argument);
        next_is(b, "result", "result", "null");
        if (i == 0)
            next_is(b, "window/showMessage", "params.message", "does not follow instructions");
        cr_assert_str_eq(last_job(b)->instruction.data, "make it two");
        answer(b, "a = 2;", RD_OK);
        next_is(b, "workspace/applyEdit", NULL, NULL);
    }
    nothing_more(b);
    hang_up(b);
}

Test(actions, are_limited_in_size_and_number)
{
    bench *b = connect_client();
    char *text = rd_alloc0(RD_MOST_ACTION_BYTES + 3);

    memset(text, 'x', RD_MOST_ACTION_BYTES + 1);
    text[RD_MOST_ACTION_BYTES + 1] = '\n';
    open_text(b, "c", text);
    offers(b, range(0, 0, 0, (int)RD_MOST_ACTION_BYTES + 1), 1, NULL, "");
    command(b, "redraft.rewrite", at_range(range(0, 0, 0, (int)RD_MOST_ACTION_BYTES + 1)));
    next_is(b, "result", "result", "null");
    next_is(b, "window/showMessage", "params.message", "at most");
    for (int i = 0; i < RD_MOST_ORDERS; i++) {
        command(b, "redraft.rewrite", at_range(range(0, 0, 0, 5)));
        next_is(b, "result", "result", "null");
    }
    nothing_more(b);
    resolve_first(b, list(b, range(0, 0, 0, 5), 1, NULL), NULL);
    next_is(b, "error", "error.code", "-32803");
    free(text);
    hang_up(b);
}

/* ---- progress ---- */

static void draft(bench *b, int step)
{
    rd_event ev = { .step = step, .tokens = 3 };

    send_event(b, &ev);
}

Test(progress, begins_when_the_client_agreed_and_ends_with_the_work)
{
    bench *b = connect_client();

    b->lsp.client.work_done_progress = true;
    open_text(b, "c", "a = 1;\n");
    command(b, "redraft.rewrite", at_range(range(0, 0, 0, 6)));
    next_is(b, "result", "result", "null");
    next_is(b, "window/workDoneProgress/create", "params.token", "redraft/work/1");
    cr_assert(last_job(b)->watch);
    draft(b, 1);
    nothing_more(b);
    feed(b, json_pack("{s:i, s:n}", "id", 1, "result"));
    next_is(b, "$/progress", "params.value.kind", "begin");
    draft(b, 2);
    next_is(b, "$/progress", "params.value.message", "step 2");
    draft(b, 3); /* too soon after the last one */
    nothing_more(b);
    answer(b, "a = 2;", RD_OK);
    next_is(b, "workspace/applyEdit", NULL, NULL);
    next_is(b, "$/progress", "params.value.kind", "end");
    nothing_more(b);
    hang_up(b);
}

Test(progress, is_never_begun_after_an_error_or_the_end)
{
    bench *b = connect_client();

    b->lsp.client.work_done_progress = true;
    open_text(b, "c", "a = 1;\n");
    command(b, "redraft.rewrite", at_range(range(0, 0, 0, 6)));
    next_is(b, "result", NULL, NULL);
    next_is(b, "window/workDoneProgress/create", NULL, NULL);
    feed(b, json_pack("{s:i, s:{s:i, s:s}}", "id", 1, "error", "code", -32603, "message", "no"));
    draft(b, 1);
    answer(b, "a = 1;", RD_OK);
    next_is(b, "window/showMessage", NULL, NULL);
    command(b, "redraft.rewrite", at_range(range(0, 0, 0, 6)));
    next_is(b, "result", NULL, NULL);
    next_is(b, "window/workDoneProgress/create", NULL, NULL);
    answer(b, "a = 1;", RD_OK);
    next_is(b, "window/showMessage", NULL, NULL);
    feed(b, json_pack("{s:i, s:n}", "id", 2, "result"));
    nothing_more(b);
    hang_up(b);
}

Test(progress, uses_the_token_of_the_request_and_can_be_cancelled_there)
{
    bench *b = connect_client();

    open_text(b, "c", "a = 1;\n");
    json_t *found = list(b, range(0, 0, 0, 6), 1, NULL);

    json_object_set_new(json_array_get(found, 0), "workDoneToken", json_integer(5));
    resolve_first(b, found, NULL);
    next_is(b, "$/progress", "params.token", "5");
    json_t *params = json_pack("{s:i}", "token", 6);

    rd_actions_progress_cancel(b->lsp.actions, params);
    cr_assert(!b->cancelled[0]);
    json_object_set_new(params, "token", json_integer(5));
    rd_actions_progress_cancel(b->lsp.actions, params);
    cr_assert(b->cancelled[0]);
    rd_actions_progress_cancel(b->lsp.actions, NULL);
    json_decref(params);
    answer(b, NULL, RD_CANCELLED);
    next_is(b, "error", "error.code", "-32800");
    next_is(b, "$/progress", "params.value.kind", "end");
    nothing_more(b);
    hang_up(b);
}

Test(progress, that_was_cancelled_applies_nothing_though_the_answer_was_under_way)
{
    bench *b = connect_client();

    b->lsp.client.work_done_progress = true;
    open_text(b, "c", "a = 1;\n");
    command(b, "redraft.rewrite", at_range(range(0, 0, 0, 6)));
    next_is(b, "result", NULL, NULL);
    next_is(b, "window/workDoneProgress/create", NULL, NULL);
    feed(b, json_pack("{s:i, s:n}", "id", 1, "result"));
    next_is(b, "$/progress", "params.value.kind", "begin");
    json_t *params = json_pack("{s:s}", "token", "redraft/work/1");

    rd_actions_progress_cancel(b->lsp.actions, params);
    json_decref(params);
    answer(b, "a = 2;", RD_OK);
    next_is(b, "$/progress", "params.value.kind", "end");
    nothing_more(b);
    hang_up(b);
}
