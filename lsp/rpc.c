/* rpc.c - the lifecycle, the method table and the open requests of one peer. */
#include "lsp/rpc.h"

#include "core/base/log.h"
#include "core/base/memory.h"

#include <stdlib.h>
#include <string.h>

/* LSP only; MCP is RUNNING from the first byte. */
typedef enum life { FRESH, STARTING, RUNNING, SHUT, GONE } life;

typedef struct open_request {
    uint64_t ticket;
    rd_id id;
} open_request;

struct rd_rpc {
    rd_protocol protocol;
    const rd_method *methods;
    size_t method_count;
    rd_rpc_hooks hooks;
    rd_conn *conn;
    rd_framing framing;
    rd_encoding encoding;
    rd_buf *out, message;
    life life;
    bool may_ask; /* `initialized` came */
    int code;
    uint64_t last_ticket, initialize; /* the ticket of `initialize` while it is open */
    open_request *open;
    size_t open_count, open_cap;
    int64_t last_ask, asked[RD_MOST_ASKED]; /* 0: free */
};

rd_rpc *rd_rpc_new(rd_protocol protocol, const rd_method *methods, size_t n,
                   const rd_rpc_hooks *hooks, rd_conn *c, rd_framing framing, rd_buf *out)
{
    rd_rpc *r = rd_alloc0(sizeof *r);

    r->protocol = protocol;
    r->methods = methods;
    r->method_count = n;
    r->hooks = *hooks;
    r->conn = c;
    r->framing = framing;
    r->out = out;
    r->life = protocol == RD_LSP ? FRESH : RUNNING;
    return r;
}

void rd_rpc_free(rd_rpc *r)
{
    if (!r) return;
    rd_buf_clear(&r->message);
    free(r->open);
    free(r);
}

void rd_rpc_set_encoding(rd_rpc *r, rd_encoding encoding)
{
    r->encoding = encoding;
}

/* Frame what stands in r->message. */
static void send_message(rd_rpc *r)
{
    rd_wire_write(r->out, r->framing, r->message.data, r->message.len);
    if (r->message.cap > RD_MOST_JSON_BYTES)
        rd_buf_clear(&r->message);
    else
        rd_buf_reset(&r->message);
}

static void send_error(rd_rpc *r, const rd_id *id, int code, const char *text)
{
    rd_message_error(&r->message, id, code, text, NULL);
    send_message(r);
}

static open_request *find_ticket(const rd_rpc *r, uint64_t ticket)
{
    for (size_t i = 0; i < r->open_count; i++)
        if (r->open[i].ticket == ticket) return &r->open[i];
    return NULL;
}

static open_request *find_id(const rd_rpc *r, const rd_id *id)
{
    for (size_t i = 0; i < r->open_count; i++)
        if (rd_id_equal(&r->open[i].id, id)) return &r->open[i];
    return NULL;
}

static void close_request(rd_rpc *r, open_request *q, bool failed)
{
    if (q->ticket == r->initialize) {
        r->initialize = 0;
        if (r->life == STARTING) r->life = failed ? FRESH : RUNNING;
    }
    *q = r->open[--r->open_count];
}

bool rd_rpc_answer(rd_rpc *r, uint64_t ticket, json_t *result)
{
    open_request *q = find_ticket(r, ticket);

    if (!q) {
        json_decref(result);
        return false;
    }
    rd_message_result(&r->message, &q->id, result);
    send_message(r);
    close_request(r, q, false);
    return true;
}

bool rd_rpc_fail(rd_rpc *r, uint64_t ticket, int code, const char *text, json_t *data)
{
    open_request *q = find_ticket(r, ticket);

    if (!q) {
        json_decref(data);
        return false;
    }
    rd_message_error(&r->message, &q->id, code, text, data);
    send_message(r);
    close_request(r, q, true);
    return true;
}

bool rd_rpc_is_open(const rd_rpc *r, uint64_t ticket)
{
    return find_ticket(r, ticket) != NULL;
}

size_t rd_rpc_open_requests(const rd_rpc *r)
{
    return r->open_count;
}

int rd_rpc_code(rd_status status)
{
    switch (status) {
    case RD_INVALID:
    case RD_NOT_FOUND: return RD_INVALID_PARAMS;
    case RD_CANCELLED: return RD_REQUEST_CANCELLED;
    case RD_STALE: return RD_CONTENT_MODIFIED;
    default: return RD_REQUEST_FAILED;
    }
}

static void lost(rd_rpc *r, const char *why)
{
    if (r->hooks.lost) r->hooks.lost(r->conn, why);
}

/* Stop a request's work; LSP answers it, MCP does not. */
static void cancel(rd_rpc *r, open_request *q)
{
    uint64_t ticket = q->ticket;

    if (r->protocol == RD_LSP)
        rd_rpc_fail(r, ticket, RD_REQUEST_CANCELLED, "cancelled", NULL);
    else
        close_request(r, q, true);
    if (r->hooks.cancelled) r->hooks.cancelled(r->conn, ticket);
}

/* `$/cancelRequest {id}` or `notifications/cancelled {requestId}`. `initialize` cannot be cancelled in either. */
static bool is_cancel(rd_rpc *r, const rd_message *m)
{
    bool is_lsp = r->protocol == RD_LSP;
    rd_id id;

    if (strcmp(m->method, is_lsp ? "$/cancelRequest" : "notifications/cancelled") != 0)
        return false;
    const json_t *value = json_object_get(m->params, is_lsp ? "id" : "requestId");
    open_request *q = rd_id_read(value, &id) && id.kind != RD_ID_NULL ? find_id(r, &id) : NULL;

    if (q && q->ticket != r->initialize) cancel(r, q);
    return true;
}

static const rd_method *find_method(const rd_rpc *r, const char *name)
{
    for (size_t i = 0; i < r->method_count; i++)
        if (!strcmp(r->methods[i].name, name)) return &r->methods[i];
    return NULL;
}

static void notification(rd_rpc *r, const rd_message *m)
{
    const rd_method *method = find_method(r, m->method);
    rd_error err = { 0 };

    if (r->protocol == RD_LSP && !strcmp(m->method, "exit")) {
        rd_rpc_hang_up(r);
        return;
    }
    if (r->life != RUNNING || is_cancel(r, m)) return;
    if (!strcmp(m->method, "initialized")) r->may_ask = r->protocol == RD_LSP;
    if (!method || method->kind != RD_MESSAGE_NOTIFICATION) return;
    if (method->run(r->conn, m, &err)) rd_log(RD_LOG_WARN, "%s: %s", method->name, err.text);
}

/* Why a request may not be handled now: a code, or 0. */
static int refused(const rd_rpc *r, const rd_message *m, const rd_method *method, const char **why)
{
    bool is_initialize = r->protocol == RD_LSP && !strcmp(m->method, "initialize");

    *why = "the server is shut down";
    if (r->life == SHUT) return RD_INVALID_REQUEST;
    *why = "initialize came twice";
    if (is_initialize && r->life != FRESH) return RD_INVALID_REQUEST;
    *why = "initialize has not been answered";
    if (!is_initialize && r->life != RUNNING) return RD_SERVER_NOT_INITIALIZED;
    if (r->protocol == RD_LSP && !strcmp(m->method, "shutdown")) return 0;
    *why = "no such method";
    if (!method) return RD_METHOD_NOT_FOUND;
    *why = "this is a notification and takes no id";
    if (method->kind != RD_MESSAGE_REQUEST) return RD_INVALID_REQUEST;
    *why = "too many open requests";
    return r->open_count == RD_MOST_OPEN_REQUESTS ? RD_REQUEST_FAILED : 0;
}

static open_request *open_one(rd_rpc *r, const rd_id *id)
{
    if (r->open_count == r->open_cap) {
        r->open_cap = r->open_cap ? 2 * r->open_cap : 8;
        r->open = rd_resize(r->open, r->open_cap, sizeof *r->open);
    }
    r->open[r->open_count] = (open_request){ ++r->last_ticket, *id };
    return &r->open[r->open_count++];
}

static void shut_down(rd_rpc *r, const rd_id *id)
{
    r->life = SHUT;
    while (r->open_count > 0) cancel(r, &r->open[r->open_count - 1]);
    rd_message_result(&r->message, id, NULL);
    send_message(r);
}

static void request(rd_rpc *r, rd_message *m)
{
    static const rd_id none = { .kind = RD_ID_NULL };
    const rd_method *method = find_method(r, m->method);
    rd_error err = { 0 };
    const char *why;
    int code = refused(r, m, method, &why);

    if (find_id(r, &m->id)) { /* that id's one answer belongs to the first */
        send_error(r, &none, RD_INVALID_REQUEST, "the id of a request that is still open");
        return;
    }
    if (code) {
        send_error(r, &m->id, code, why);
        if (method && method->kind == RD_MESSAGE_NOTIFICATION) lost(r, why);
        return;
    }
    if (r->protocol == RD_LSP && !strcmp(m->method, "shutdown")) {
        shut_down(r, &m->id);
        return;
    }
    m->ticket = open_one(r, &m->id)->ticket;
    if (r->life == FRESH) { /* only `initialize` gets here */
        r->life = STARTING;
        r->initialize = m->ticket;
    }
    rd_status s = method->run(r->conn, m, &err);

    if (s) rd_rpc_fail(r, m->ticket, rd_rpc_code(s), err.text, NULL);
}

static void response(rd_rpc *r, const rd_message *m)
{
    for (size_t i = 0; i < RD_MOST_ASKED && m->id.kind == RD_ID_NUMBER && m->id.number > 0; i++) {
        if (r->asked[i] != m->id.number) continue;
        r->asked[i] = 0;
        if (r->hooks.replied)
            r->hooks.replied(r->conn, m->id.number, m->error ? NULL : m->result, m->error);
        return;
    }
}

void rd_rpc_lost_frame(rd_rpc *r, const char *why)
{
    static const rd_id none = { .kind = RD_ID_NULL };

    if (r->life == GONE) return;
    send_error(r, &none, RD_PARSE_ERROR, why);
    lost(r, why);
}

void rd_rpc_frame(rd_rpc *r, const char *bytes, size_t n)
{
    rd_refusal refusal;
    rd_message m;

    if (r->life == GONE) return;
    if (rd_message_read(bytes, n, r->encoding, &m, &refusal)) {
        if (refusal.id.kind != RD_ID_NULL && find_id(r, &refusal.id))
            refusal.id = (rd_id){ .kind = RD_ID_NULL };
        send_error(r, &refusal.id, refusal.code, refusal.why.text);
        if (refusal.lost) lost(r, refusal.why.text);
        return;
    }
    switch (m.kind) {
    case RD_MESSAGE_REQUEST: request(r, &m); break;
    case RD_MESSAGE_NOTIFICATION: notification(r, &m); break;
    case RD_MESSAGE_RESPONSE: response(r, &m); break;
    case RD_MESSAGE_NOTHING: break;
    }
    rd_message_clear(&m);
}

void rd_rpc_hang_up(rd_rpc *r)
{
    if (r->life != GONE) r->code = r->protocol == RD_MCP || r->life == SHUT ? 0 : 1;
    r->life = GONE;
    while (r->open_count > 0) {
        uint64_t ticket = r->open[--r->open_count].ticket;

        if (r->hooks.cancelled) r->hooks.cancelled(r->conn, ticket);
    }
}

bool rd_rpc_is_over(const rd_rpc *r, int *code)
{
    if (r->life == GONE) *code = r->code;
    return r->life == GONE;
}

/* Before the answer to `initialize` only these may be sent. */
static bool is_early(const char *method)
{
    static const char *const early[] = { "window/showMessage", "window/logMessage",
                                         "telemetry/event", "$/progress" };

    for (size_t i = 0; i < sizeof early / sizeof *early; i++)
        if (!strcmp(method, early[i])) return true;
    return false;
}

bool rd_rpc_notify(rd_rpc *r, const char *method, json_t *params)
{
    bool may = r->life == RUNNING || r->life == SHUT || (r->life != GONE && is_early(method));

    if (!may) {
        json_decref(params);
        return false;
    }
    rd_message_notification(&r->message, method, params);
    send_message(r);
    return true;
}

int64_t rd_rpc_ask(rd_rpc *r, const char *method, json_t *params)
{
    size_t i = 0;

    while (i < RD_MOST_ASKED && r->asked[i]) i++;
    if (r->life != RUNNING || !r->may_ask || i == RD_MOST_ASKED) {
        json_decref(params);
        return 0;
    }
    r->asked[i] = ++r->last_ask;
    rd_message_request(&r->message, r->last_ask, method, params);
    send_message(r);
    return r->last_ask;
}
