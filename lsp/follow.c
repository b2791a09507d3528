/* follow.c - the session as both sides see it, and its replay.
 *
 * A request is in `open` from when it came until its one answer went out. One that came while there was no daemon keeps its
 * frame there and waits; when the text changes under it, it is answered as overtaken, since nobody may answer it
 * from a newer text.
 */
#include "lsp/follow.h"

#include "core/base/log.h"
#include "core/base/memory.h"
#include "lsp/document.h"
#include "lsp/hello.h"
#include "lsp/limits.h"
#include "lsp/repair.h"
#include "lsp/suspects.h"
#include "lsp/sync.h"

#include <stdlib.h>
#include <string.h>

enum { REGISTERED_MOST = 64, PROGRESS_MOST = 256 };

typedef enum link {
    AWAY,
    GREETING,
    SERVED
} link; /* GREETING: the replayed `initialize` has not been answered */

typedef struct request {
    rd_id id;
    char *method;
    uint64_t hash;
    rd_buf frame; /* while it waits */
    bool waits;
} request;

typedef struct asked {
    int64_t id; /* as the client sees it */
    rd_id theirs;
} asked;

struct rd_follow {
    rd_protocol protocol;
    rd_framing framing;
    rd_buf to_client, to_daemon, message;
    link link;
    bool wants, orderly,
        told; /* orderly: the daemon said that it leaves; told: the client, that there is none */
    json_t *initialize;        /* its params, folders kept up to date; NULL before */
    bool initialized, started; /* started: `initialize` was answered with a result */
    bool shut, over;
    json_t *configuration; /* params of the last didChangeConfiguration */
    rd_encoding encoding;
    rd_documents *documents;
    request *open;
    size_t open_count, open_cap, waiting_bytes;
    asked asked[RD_MOST_ASKED];
    int64_t last_asked;
    json_t *registered; /* params of each client/registerCapability that the client has seen */
    json_t *progress;   /* tokens of what was begun and not ended */
    rd_suspects suspects;
};

static const rd_id greeting_id = { RD_ID_TEXT, 0, 16, "redraft-greeting" };

rd_follow *rd_follow_new(rd_protocol protocol)
{
    rd_follow *f = rd_alloc0(sizeof *f);

    f->protocol = protocol;
    f->framing = protocol == RD_MCP ? RD_FRAMING_LINE : RD_FRAMING_HEADER;
    f->documents = rd_documents_new();
    f->registered = json_array();
    f->progress = json_array();
    return f;
}

static void clear_request(request *q)
{
    free(q->method);
    rd_buf_clear(&q->frame);
}

void rd_follow_free(rd_follow *f)
{
    if (!f) return;
    for (size_t i = 0; i < f->open_count; i++) clear_request(&f->open[i]);
    free(f->open);
    rd_buf_clear(&f->to_client);
    rd_buf_clear(&f->to_daemon);
    rd_buf_clear(&f->message);
    rd_documents_free(f->documents);
    json_decref(f->initialize);
    json_decref(f->configuration);
    json_decref(f->registered);
    json_decref(f->progress);
    free(f);
}

rd_buf *rd_follow_to_client(rd_follow *f)
{
    return &f->to_client;
}

rd_buf *rd_follow_to_daemon(rd_follow *f)
{
    return &f->to_daemon;
}

bool rd_follow_wants_daemon(const rd_follow *f)
{
    return f->wants && f->link == AWAY && !f->over;
}

bool rd_follow_is_over(const rd_follow *f)
{
    return f->over;
}

int rd_follow_code(const rd_follow *f)
{
    return f->protocol == RD_MCP || f->shut ? 0 : 1;
}

long rd_follow_client_pid(const rd_follow *f)
{
    return (long)json_integer_value(json_object_get(f->initialize, "processId"));
}

/* ---- sending ---- */

/* Frame what stands in f->message. */
static void put_message(rd_follow *f, rd_buf *out)
{
    rd_wire_write(out, f->framing, f->message.data, f->message.len);
    if (f->message.cap > RD_MOST_JSON_BYTES)
        rd_buf_clear(&f->message);
    else
        rd_buf_reset(&f->message);
}

static void put_frame(rd_follow *f, rd_buf *out, const char *frame, size_t n)
{
    rd_wire_write(out, f->framing, frame, n);
}

static void notify_daemon(rd_follow *f, const char *method, json_t *params)
{
    rd_message_notification(&f->message, method, params);
    put_message(f, &f->to_daemon);
}

static int failure_code(const rd_follow *f)
{
    return f->protocol == RD_MCP ? RD_INTERNAL_ERROR : RD_REQUEST_FAILED;
}

static void put_error(rd_follow *f, const rd_id *id, int code, const char *why)
{
    rd_message_error(&f->message, id, code, why, NULL);
    put_message(f, &f->to_client);
}

/* ---- open requests ---- */

static request *find_open(rd_follow *f, const rd_id *id)
{
    for (size_t i = 0; i < f->open_count; i++)
        if (rd_id_equal(&f->open[i].id, id)) return &f->open[i];
    return NULL;
}

static request *add_open(rd_follow *f, const rd_message *m, uint64_t hash)
{
    if (f->open_count == f->open_cap) {
        f->open_cap = f->open_cap ? 2 * f->open_cap : 8;
        f->open = rd_resize(f->open, f->open_cap, sizeof *f->open);
    }
    request *q = &f->open[f->open_count++];

    *q = (request){ .id = m->id, .hash = hash };
    q->method = rd_copy_text(m->method, strlen(m->method));
    return q;
}

/* The order of the others is kept: it is the order in which waiting ones are sent. */
static void remove_open(rd_follow *f, request *q)
{
    size_t i = (size_t)(q - f->open);

    if (q->waits) f->waiting_bytes -= q->frame.len;
    clear_request(q);
    memmove(q, q + 1, (f->open_count - i - 1) * sizeof *q);
    f->open_count--;
}

static void fail_open(rd_follow *f, request *q, int code, const char *why)
{
    put_error(f, &q->id, code, why);
    remove_open(f, q);
}

/* No daemon will answer it: `shutdown` can be answered by anybody, all else fails. */
static void give_up(rd_follow *f, request *q, const char *why)
{
    if (f->protocol == RD_LSP && !strcmp(q->method, "shutdown")) {
        f->shut = true;
        rd_message_result(&f->message, &q->id, NULL);
        put_message(f, &f->to_client);
        remove_open(f, q);
    } else {
        fail_open(f, q, failure_code(f), why);
    }
}

/* Keep a request for the next daemon. */
static void wait_for_daemon(rd_follow *f, request *q, const char *frame, size_t n)
{
    if (f->waiting_bytes + n > RD_MOST_WAITING_BYTES) {
        fail_open(f, q, failure_code(f), "too much waits for the engine");
        return;
    }
    rd_buf_append(&q->frame, frame, n);
    q->waits = true;
    f->waiting_bytes += n;
    f->wants = true;
}

static void send_waiting(rd_follow *f)
{
    for (size_t i = 0; i < f->open_count; i++) {
        request *q = &f->open[i];

        if (!q->waits) continue;
        put_frame(f, &f->to_daemon, q->frame.data, q->frame.len);
        f->waiting_bytes -= q->frame.len;
        rd_buf_clear(&q->frame);
        q->waits = false;
    }
}

/* ---- what the client says ---- */

static const char overtaken[] = "the text changed before the engine was back";

/* A text changed: requests about it that still wait would be answered from a newer one. */
static void overtake(rd_follow *f)
{
    for (size_t i = f->open_count; i-- > 0;)
        if (f->open[i].waits && !strncmp(f->open[i].method, "textDocument/", 13))
            fail_open(f, &f->open[i], RD_CONTENT_MODIFIED, overtaken);
}

static void add_folders(json_t *folders, const json_t *event)
{
    const json_t *gone, *added;
    size_t i;

    json_array_foreach(json_object_get(event, "removed"), i, gone)
    {
        for (size_t k = json_array_size(folders); k-- > 0;)
            if (json_equal(json_object_get(json_array_get(folders, k), "uri"),
                           json_object_get(gone, "uri")))
                json_array_remove(folders, k);
    }
    json_array_foreach(json_object_get(event, "added"), i, added)
    {
        json_array_append(folders, (json_t *)added);
    }
}

static void changed_folders(rd_follow *f, const json_t *params)
{
    json_t *folders = json_object_get(f->initialize, "workspaceFolders");

    if (!f->initialize) return;
    if (!json_is_array(folders)) {
        folders = json_array();
        json_object_set_new(f->initialize, "workspaceFolders", folders);
    }
    add_folders(folders, json_object_get(params, "event"));
}

/* Keep what a later daemon has to know. */
static void learn(rd_follow *f, const rd_message *m)
{
    rd_error err;

    if (!strcmp(m->method, "textDocument/didOpen")) {
        rd_sync_open(f->documents, m->params, &err);
        overtake(f);
    } else if (!strcmp(m->method, "textDocument/didChange")) {
        rd_sync_change(f->documents, m->params, f->encoding, &err);
        overtake(f);
    } else if (!strcmp(m->method, "textDocument/didClose")) {
        rd_sync_close(f->documents, m->params, &err);
        overtake(f);
    } else if (!strcmp(m->method, "workspace/didChangeConfiguration")) {
        json_decref(f->configuration);
        f->configuration = m->params ? json_deep_copy(m->params) : json_object();
    } else if (!strcmp(m->method, "workspace/didChangeWorkspaceFolders")) {
        changed_folders(f, m->params);
    } else if (!strcmp(m->method, "initialized") ||
               !strcmp(m->method, "notifications/initialized")) {
        f->initialized = true;
    }
}

/* A request that waits is cancelled here; of one that was sent the daemon hears. MCP hears no answer of a cancelled one. */
static void cancel(rd_follow *f, const rd_message *m)
{
    bool is_lsp = f->protocol == RD_LSP;
    rd_id id;

    if (!rd_id_read(json_object_get(m->params, is_lsp ? "id" : "requestId"), &id)) return;
    request *q = id.kind == RD_ID_NULL ? NULL : find_open(f, &id);

    if (!q || !strcmp(q->method, "initialize")) return;
    if (!is_lsp)
        remove_open(f, q);
    else if (q->waits)
        fail_open(f, q, RD_REQUEST_CANCELLED, "cancelled");
}

static void notification(rd_follow *f, const rd_message *m, const char *frame, size_t n)
{
    if (f->protocol == RD_LSP && !strcmp(m->method, "exit")) f->over = true;
    if (!strcmp(m->method, f->protocol == RD_LSP ? "$/cancelRequest" : "notifications/cancelled"))
        cancel(f, m);
    learn(f, m);
    if (f->link == SERVED) put_frame(f, &f->to_daemon, frame, n);
}

/* What makes a request the same as an earlier one: method, params, and the text that it is about. */
static uint64_t hash_of(rd_follow *f, const rd_message *m)
{
    const char *uri = NULL;
    rd_document *doc =
        rd_sync_uri(m->params, &uri, NULL) ? NULL : rd_documents_find(f->documents, uri);

    return rd_suspects_hash(m->method, m->params, doc ? rd_document_revision(doc) : 0);
}

static void take_request(rd_follow *f, const rd_message *m, const char *frame, size_t n)
{
    static const rd_id none = { .kind = RD_ID_NULL };

    if (find_open(f, &m->id)) { /* that id's one answer belongs to the first */
        put_error(f, &none, RD_INVALID_REQUEST, "the id of a request that is still open");
        return;
    }
    if (f->open_count == RD_MOST_OPEN_REQUESTS) {
        put_error(f, &m->id, failure_code(f), "too many open requests");
        return;
    }
    uint64_t hash = hash_of(f, m);

    if (rd_suspects_deaths(&f->suspects, hash) >= 2) {
        put_error(f, &m->id, failure_code(f),
                  "the engine died twice while this was asked; it is not asked again");
        return;
    }
    if (!strcmp(m->method, "initialize") && !f->started) {
        json_decref(f->initialize);
        f->initialize = m->params ? json_deep_copy(m->params) : json_object();
    }
    request *q = add_open(f, m, hash);

    if (f->link == SERVED)
        put_frame(f, &f->to_daemon, frame, n);
    else if (f->protocol == RD_LSP && !strcmp(m->method, "shutdown"))
        give_up(f, q, "");
    else
        wait_for_daemon(f, q, frame, n);
}

/* The client's answer to a request of the daemon's; to one of a dead daemon's nobody waits. */
static void client_answered(rd_follow *f, const rd_message *m)
{
    for (size_t i = 0; i < RD_MOST_ASKED; i++) {
        asked *a = &f->asked[i];

        if (a->id == 0 || m->id.kind != RD_ID_NUMBER || a->id != m->id.number) continue;
        a->id = 0;
        json_object_set_new(m->top, "id", rd_id_write(&a->theirs));
        rd_message_write(&f->message, m->top);
        put_message(f, &f->to_daemon);
        return;
    }
}

/* A frame that is no message. The daemon has to know of it too, since a change may be lost; its answer reaches the client
 * where it names no request, and is ours to give where it does. */
static void refuse(rd_follow *f, rd_refusal *refusal, const char *frame, size_t n)
{
    bool named = refusal->id.kind != RD_ID_NULL, open = named && find_open(f, &refusal->id);

    if (refusal->lost) rd_documents_forget(f->documents);
    if (f->link == SERVED) put_frame(f, &f->to_daemon, frame, n);
    if (f->link == SERVED && (!named || open)) return;
    if (open) refusal->id = (rd_id){ .kind = RD_ID_NULL };
    put_error(f, &refusal->id, refusal->code, refusal->why.text);
}

void rd_follow_client(rd_follow *f, const char *frame, size_t n)
{
    rd_refusal refusal;
    rd_message m;

    if (f->over) return;
    if (rd_message_read(frame, n, f->encoding, &m, &refusal)) {
        refuse(f, &refusal, frame, n);
        return;
    }
    if (m.kind == RD_MESSAGE_REQUEST) take_request(f, &m, frame, n);
    if (m.kind == RD_MESSAGE_NOTIFICATION) notification(f, &m, frame, n);
    if (m.kind == RD_MESSAGE_RESPONSE && f->link == SERVED) client_answered(f, &m);
    rd_message_clear(&m);
}

void rd_follow_lost(rd_follow *f, const char *why)
{
    static const rd_id none = { .kind = RD_ID_NULL };

    rd_documents_forget(f->documents);
    put_error(f, &none, RD_PARSE_ERROR, why);
}

/* ---- what the daemon says ---- */

static size_t find_equal(const json_t *list, const json_t *value)
{
    size_t i = 0;

    while (i < json_array_size(list) && !json_equal(json_array_get(list, i), value)) i++;
    return i;
}

static void follow_progress(rd_follow *f, const json_t *params)
{
    json_t *token = json_object_get(params, "token");
    const char *kind = json_string_value(json_object_get(json_object_get(params, "value"), "kind"));
    size_t at = find_equal(f->progress, token);

    if (!token || !kind) return;
    if (!strcmp(kind, "end"))
        json_array_remove(f->progress, at);
    else if (at == json_array_size(f->progress) && at < PROGRESS_MOST)
        json_array_append(f->progress, token);
}

/* A later daemon registers what the client has registered for an earlier one: we say yes in its name. */
static bool is_known_registration(rd_follow *f, const rd_id *id, const json_t *params)
{
    if (find_equal(f->registered, params) == json_array_size(f->registered)) {
        if (json_array_size(f->registered) < REGISTERED_MOST)
            json_array_append(f->registered, (json_t *)params);
        return false;
    }
    rd_message_result(&f->message, id, NULL);
    put_message(f, &f->to_daemon);
    return true;
}

/* Under a number of ours: a later daemon counts from the beginning again. */
static void daemon_asks(rd_follow *f, json_t *top, const rd_id *id, const char *method)
{
    size_t i = 0;

    if (!strcmp(method, "client/registerCapability") &&
        is_known_registration(f, id, json_object_get(top, "params")))
        return;
    while (i < RD_MOST_ASKED && f->asked[i].id) i++;
    if (i == RD_MOST_ASKED) return; /* it asks no more than that at once */
    f->asked[i] = (asked){ ++f->last_asked, *id };
    json_object_set_new(top, "id", json_integer(f->last_asked));
    rd_message_write(&f->message, top);
    put_message(f, &f->to_client);
}

static void started(rd_follow *f, const json_t *result)
{
    const char *encoding = json_string_value(
        json_object_get(json_object_get(result, "capabilities"), "positionEncoding"));

    f->started = true;
    f->encoding = !encoding                     ? RD_UTF16
                  : !strcmp(encoding, "utf-8")  ? RD_UTF8
                  : !strcmp(encoding, "utf-32") ? RD_UTF32
                                                : RD_UTF16;
}

static void replay_documents(rd_follow *f)
{
    for (size_t i = 0; i < rd_documents_count(f->documents); i++) {
        const rd_document *doc = rd_documents_at(f->documents, i);
        rd_buf text = { 0 };

        if (!rd_document_is_known(doc)) continue;
        rd_text_copy(rd_document_text(doc), 0, rd_text_bytes(rd_document_text(doc)), &text);
        notify_daemon(
            f, "textDocument/didOpen",
            json_pack(
                "{s:{s:o, s:o, s:I, s:o}}", "textDocument", "uri",
                rd_repair_string(rd_document_uri(doc), strlen(rd_document_uri(doc))), "languageId",
                rd_repair_string(rd_document_language(doc), strlen(rd_document_language(doc))),
                "version", (json_int_t)rd_document_version(doc), "text",
                rd_repair_string(text.data, text.len)));
        rd_buf_clear(&text);
    }
}

/* The new daemon took `initialize`: all else that the client told the old ones. */
static void replay_rest(rd_follow *f)
{
    f->link = SERVED;
    if (f->initialized)
        notify_daemon(f, f->protocol == RD_MCP ? "notifications/initialized" : "initialized",
                      json_object());
    if (f->configuration)
        notify_daemon(f, "workspace/didChangeConfiguration", json_incref(f->configuration));
    replay_documents(f);
    send_waiting(f);
}

static void daemon_answered(rd_follow *f, const json_t *top, const rd_id *id, const char *frame,
                            size_t n)
{
    const json_t *result = json_object_get(top, "result");
    request *q = find_open(f, id);

    if (f->link == GREETING && rd_id_equal(id, &greeting_id)) {
        replay_rest(f);
        return;
    }
    if (!q && id->kind != RD_ID_NULL) return; /* answered or cancelled already */
    put_frame(f, &f->to_client, frame, n);
    if (!q) return;
    if (!strcmp(q->method, "initialize") && result) started(f, result);
    if (!strcmp(q->method, "shutdown") && json_object_get(top, "error") == NULL) f->shut = true;
    remove_open(f, q);
}

void rd_follow_daemon(rd_follow *f, const char *frame, size_t n)
{
    json_t *top = json_loadb(frame, n, JSON_ALLOW_NUL, NULL);
    const char *method = json_string_value(json_object_get(top, "method"));
    rd_id id;
    bool has_id = top && rd_id_read(json_object_get(top, "id"), &id);

    if (!has_id) {
        rd_log(RD_LOG_WARN, "the daemon sent what is no message");
    } else if (!method) {
        daemon_answered(f, top, &id, frame, n);
    } else if (id.kind != RD_ID_NULL) {
        daemon_asks(f, top, &id, method);
    } else if (!strcmp(method, RD_HELLO_LEAVING)) {
        f->orderly = true;
    } else {
        if (!strcmp(method, "$/progress")) follow_progress(f, json_object_get(top, "params"));
        put_frame(f, &f->to_client, frame, n);
    }
    json_decref(top);
}

/* ---- daemons come and go ---- */

void rd_follow_connected(rd_follow *f)
{
    f->wants = f->orderly = f->told = false;
    if (!f->started) {
        f->link = SERVED;
        send_waiting(f);
        return;
    }
    f->link = GREETING;
    json_t *m = json_pack("{s:s, s:o, s:s, s:O}", "jsonrpc", "2.0", "id", rd_id_write(&greeting_id),
                          "method", "initialize", "params", f->initialize);

    rd_message_write(&f->message, m);
    json_decref(m);
    put_message(f, &f->to_daemon);
}

static void end_progress(rd_follow *f)
{
    const json_t *token;
    size_t i;

    json_array_foreach(f->progress, i, token)
    {
        rd_message_notification(
            &f->message, "$/progress",
            json_pack("{s:O, s:{s:s}}", "token", token, "value", "kind", "end"));
        put_message(f, &f->to_client);
    }
    json_array_clear(f->progress);
}

/* `initialize` is put again to the next daemon, once; its client has nothing without it. */
static bool may_be_put_again(rd_follow *f, request *q)
{
    if (f->started || strcmp(q->method, "initialize") != 0 ||
        rd_suspects_deaths(&f->suspects, q->hash) >= 2)
        return false;
    json_t *m = json_pack("{s:s, s:o, s:s, s:O}", "jsonrpc", "2.0", "id", rd_id_write(&q->id),
                          "method", "initialize", "params", f->initialize);

    rd_message_write(&f->message, m);
    json_decref(m);
    rd_buf_append(&q->frame, f->message.data, f->message.len);
    rd_buf_reset(&f->message);
    q->waits = true;
    f->waiting_bytes += q->frame.len;
    f->wants = true;
    return true;
}

void rd_follow_broken(rd_follow *f)
{
    const char *why = f->orderly ? "the engine was stopped" : "the engine was restarted";
    size_t i = 0;

    if (f->link == AWAY) return;
    f->link = AWAY;
    rd_buf_reset(&f->to_daemon);
    memset(f->asked, 0, sizeof f->asked);
    end_progress(f);
    while (i < f->open_count) {
        request *q = &f->open[i];

        if (!f->orderly && !q->waits) rd_suspects_add(&f->suspects, q->hash);
        if (q->waits || may_be_put_again(f, q))
            i++;
        else
            give_up(f, q, why);
    }
    f->wants = !f->shut && !f->over && (!f->orderly || f->open_count > 0);
}

void rd_follow_refused(rd_follow *f, const char *why)
{
    f->wants = false;
    while (f->open_count > 0) give_up(f, &f->open[0], why);
    if (f->told || f->protocol == RD_MCP || !f->started) return;
    f->told = true;
    rd_message_notification(
        &f->message, "window/showMessage",
        json_pack("{s:i, s:o}", "type", 2, "message", rd_repair_string(why, strlen(why))));
    put_message(f, &f->to_client);
}
