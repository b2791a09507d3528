/* mcp.c - the methods that an agent calls, in both eras of the protocol, and the tool calls under way.
 *
 * A request that carries the protocol's version in `_meta` is of the modern era and stands for itself; one without is of the
 * legacy era and needs an `initialize` before it, but for `ping`. One connection may mix them. A tool call becomes a job and is answered by
 * the job's last event; the events before it are its progress. What a call asks of is its arguments and the files below
 * the roots: nothing that an editor holds open, and no other connection's, is in reach from here.
 */
#include "core/base/memory.h"
#include "lsp/mcp_tools.h"
#include "lsp/peer.h"
#include "lsp/repair.h"

#include <stdlib.h>
#include <string.h>

#define META_VERSION      "io.modelcontextprotocol/protocolVersion"
#define META_CAPABILITIES "io.modelcontextprotocol/clientCapabilities"
#define META_SERVER       "io.modelcontextprotocol/serverInfo"
#define MODERN_VERSION    "2026-07-28"

enum {
    UNSUPPORTED_VERSION = -32022,
    LIST_TTL_MS = 3600000,
    PROGRESS_EVERY_MS = 20,
    /* Beside its own time a call may wait so long for the model to be loaded or free. Clients give up after 60 s. */
    WAIT_MS = 30000,
};

/* The newest first. */
static const char *const legacy_versions[] = { "2025-11-25", "2025-06-18", "2025-03-26",
                                               "2024-11-05" };

typedef struct call {
    struct call *next;
    uint64_t ticket;
    rd_job *job; /* the host's until its last event */
    rd_mcp_call what;
    bool modern;
    json_t *token; /* where progress goes; NULL: nowhere */
    int told;      /* the last step that was told */
    double told_ms, deadline_ms;
} call;

struct rd_mcp {
    rd_conn *conn;
    rd_scope *scope;
    bool initialized; /* `initialize` was answered */
    call *calls;
    int n_calls;
};

rd_mcp *rd_mcp_new(rd_conn *c)
{
    rd_mcp *m = rd_alloc0(sizeof *m);

    m->conn = c;
    m->scope = rd_scope_new(&c->o.config->client, c->o.roots, c->o.n_roots);
    rd_rpc_set_encoding(c->rpc, RD_UTF8); /* what a rewrite's offsets count */
    return m;
}

/* ---- calls under way ---- */

static void set_timer(rd_mcp *m)
{
    const rd_host *host = m->conn->o.host;
    double first = 0;

    for (const call *q = m->calls; q; q = q->next)
        if (first == 0 || q->deadline_ms < first) first = q->deadline_ms;
    host->wake_at(host->self, m->conn, first);
}

static void free_call(call *q)
{
    rd_mcp_call_clear(&q->what);
    json_decref(q->token);
    free(q);
}

/* Out of the list: no event of its job reaches it any more. */
static void unlink_call(rd_mcp *m, call *gone)
{
    call **at = &m->calls;

    while (*at != gone) at = &(*at)->next;
    *at = gone->next;
    m->n_calls--;
    set_timer(m);
}

static void drop_call(rd_mcp *m, call *q)
{
    const rd_host *host = m->conn->o.host;

    unlink_call(m, q);
    host->cancel(host->self, q->job);
    free_call(q);
}

void rd_mcp_free(rd_mcp *m)
{
    if (!m) return;
    while (m->calls) drop_call(m, m->calls);
    rd_scope_free(m->scope);
    free(m);
}

void rd_mcp_cancelled(rd_mcp *m, uint64_t ticket)
{
    call *q = m->calls;

    while (q && q->ticket != ticket) q = q->next;
    if (q) drop_call(m, q);
}

/* ---- eras ---- */

static const json_t *meta_of(const rd_message *m, const char *key)
{
    return json_object_get(json_object_get(m->params, "_meta"), key);
}

static bool claims_modern(const rd_message *m)
{
    return meta_of(m, META_VERSION) || meta_of(m, META_CAPABILITIES);
}

/* True when the request is of the modern era as it should be; else it has been answered. */
static bool admit_modern(rd_conn *c, const rd_message *m)
{
    const json_t *version = meta_of(m, META_VERSION);

    if (!json_is_string(version)) {
        rd_rpc_fail(c->rpc, m->ticket, RD_INVALID_PARAMS,
                    "_meta has no string " META_VERSION
                    ": send it with each request, or initialize first",
                    NULL);
        return false;
    }
    if (strcmp(json_string_value(version), MODERN_VERSION) != 0) {
        rd_rpc_fail(c->rpc, m->ticket, UNSUPPORTED_VERSION, "unsupported protocol version",
                    json_pack("{s:[s], s:O}", "supported", MODERN_VERSION, "requested", version));
        return false;
    }
    if (!json_is_object(meta_of(m, META_CAPABILITIES))) {
        rd_rpc_fail(c->rpc, m->ticket, RD_INVALID_PARAMS, "_meta has no object " META_CAPABILITIES,
                    NULL);
        return false;
    }
    return true;
}

/* The era of a request that both have. */
static bool admit(rd_conn *c, const rd_message *m, bool *modern)
{
    *modern = claims_modern(m) || !c->mcp->initialized;
    return !*modern || admit_modern(c, m);
}

static json_t *server_info(void)
{
    return json_pack("{s:s, s:s}", "name", "redraft", "version", RD_VERSION);
}

/* Takes `result`. */
static void answer(rd_conn *c, uint64_t ticket, bool modern, json_t *result)
{
    if (modern) {
        json_object_set_new(result, "resultType", json_string("complete"));
        json_object_set_new(result, "_meta", json_pack("{s:o}", META_SERVER, server_info()));
    }
    rd_rpc_answer(c->rpc, ticket, result);
}

static void mark_cacheable(json_t *result)
{
    json_object_set_new(result, "ttlMs", json_integer(LIST_TTL_MS));
    json_object_set_new(result, "cacheScope", json_string("public"));
}

/* ---- methods ---- */

static const char instructions[] = "A local model that fills holes in code, rewrites pieces of it "
                                   "in place and finds unlikely tokens. "
                                   "It returns text and diffs and never writes a file.";

static const char *version_for(const json_t *asked)
{
    size_t n = sizeof legacy_versions / sizeof *legacy_versions;

    for (size_t i = 0; json_is_string(asked) && i < n; i++)
        if (!strcmp(legacy_versions[i], json_string_value(asked))) return legacy_versions[i];
    return legacy_versions[0];
}

static rd_status initialize(rd_conn *c, const rd_message *m, rd_error *err)
{
    (void)err;
    const char *version = version_for(json_object_get(m->params, "protocolVersion"));

    c->mcp->initialized = true;
    answer(c, m->ticket, false,
           json_pack("{s:s, s:{s:{}}, s:o, s:s}", "protocolVersion", version, "capabilities",
                     "tools", "serverInfo", server_info(), "instructions", instructions));
    return RD_OK;
}

static rd_status ping(rd_conn *c, const rd_message *m, rd_error *err)
{
    bool modern = claims_modern(m);

    (void)err;
    if (!modern || admit_modern(c, m)) answer(c, m->ticket, modern, json_object());
    return RD_OK;
}

static rd_status discover(rd_conn *c, const rd_message *m, rd_error *err)
{
    (void)err;
    if (!admit_modern(c, m)) return RD_OK;
    json_t *result = json_pack("{s:[s], s:{s:{}}, s:s}", "supportedVersions", MODERN_VERSION,
                               "capabilities", "tools", "instructions", instructions);

    mark_cacheable(result);
    answer(c, m->ticket, true, result);
    return RD_OK;
}

static rd_status tools_list(rd_conn *c, const rd_message *m, rd_error *err)
{
    const json_t *cursor = json_object_get(m->params, "cursor");
    bool modern;

    if (!admit(c, m, &modern)) return RD_OK;
    if (cursor && !json_is_null(cursor))
        return rd_fail(err, RD_INVALID, "cursor: the list has one page");
    json_t *result = json_pack("{s:o}", "tools", rd_mcp_tool_list());

    if (modern) mark_cacheable(result);
    answer(c, m->ticket, modern, result);
    return RD_OK;
}

/* ---- tools/call ---- */

static void answer_text(rd_conn *c, uint64_t ticket, bool modern, const char *text)
{
    answer(c, ticket, modern,
           json_pack("{s:[{s:s, s:o}], s:b}", "content", "type", "text", "text",
                     rd_repair_string(text, strlen(text)), "isError", 1));
}

/* Takes `structured`. */
static void answer_structured(rd_conn *c, uint64_t ticket, bool modern, json_t *structured)
{
    char *text = json_dumps(structured, JSON_COMPACT | JSON_REAL_PRECISION(15));

    answer(c, ticket, modern,
           json_pack("{s:[{s:s, s:s}], s:o, s:b}", "content", "type", "text", "text", text,
                     "structuredContent", structured, "isError", 0));
    free(text);
}

static const json_t *progress_token(const rd_message *m)
{
    const json_t *token = meta_of(m, "progressToken");

    return json_is_string(token) || json_is_integer(token) ? token : NULL;
}

static void start(rd_conn *c, const rd_message *m, bool modern, rd_mcp_call what, rd_job *job)
{
    const rd_host *host = c->o.host;
    call *q = rd_alloc0(sizeof *q);

    q->ticket = m->ticket;
    q->job = job;
    q->what = what;
    q->modern = modern;
    q->token = json_incref((json_t *)progress_token(m));
    q->deadline_ms = host->now_ms(host->self) + job->max_ms + WAIT_MS;
    q->next = c->mcp->calls;
    c->mcp->calls = q;
    c->mcp->n_calls++;
    job->watch = q->token != NULL;
    set_timer(c->mcp);
    host->submit(host->self, job);
}

static void run_tool(rd_conn *c, const rd_message *m, bool modern, rd_mcp_tool tool,
                     const json_t *arguments)
{
    rd_roots roots = { c->o.roots, c->o.n_roots, c->mcp->scope };
    rd_mcp_call what = { .tool = tool };
    rd_error err = { 0 };

    if (c->mcp->n_calls >= RD_MOST_TOOL_CALLS) {
        answer_text(c, m->ticket, modern, "too many calls at once: wait for one to be answered");
        return;
    }
    rd_job *job = rd_conn_job(c, RD_LANE_ASKED, rd_mcp_tool_job(tool));

    rd_status s = rd_mcp_call_read(&what, arguments, &roots, job, &err);

    if (what.file.real) rd_conn_judged(c, what.file.real, what.file.excluded);
    if (s) {
        rd_mcp_call_clear(&what);
        rd_job_free(job);
        answer_text(c, m->ticket, modern, err.text);
        return;
    }
    start(c, m, modern, what, job);
}

/* What runs, but not what editors do with it: an agent that looks again and again would see when somebody types. Takes it. */
static json_t *status_for_agents(json_t *all)
{
    static const char *const shown[] = { "running", "version", "model", "memory_mb" };
    json_t *some = json_object();

    for (size_t i = 0; i < sizeof shown / sizeof *shown; i++) {
        json_t *value = json_object_get(all, shown[i]);

        if (value) json_object_set(some, shown[i], value);
    }
    json_object_del(json_object_get(some, "model"), "step_ms");
    json_object_del(json_object_get(some, "model"), "fell_back"); /* it names the model's folder */
    json_decref(all);
    return some;
}

static rd_status tools_call(rd_conn *c, const rd_message *m, rd_error *err)
{
    const rd_host *host = c->o.host;
    const json_t *name = json_object_get(m->params, "name");
    const json_t *arguments = json_object_get(m->params, "arguments");
    bool modern;

    if (!admit(c, m, &modern)) return RD_OK;
    if (!json_is_string(name)) return rd_fail(err, RD_INVALID, "name is not a string");
    if (arguments && !json_is_null(arguments) && !json_is_object(arguments))
        return rd_fail(err, RD_INVALID, "arguments is not an object");
    rd_mcp_tool tool = rd_mcp_tool_of(json_string_value(name));

    if (tool == RD_MCP_TOOLS)
        return rd_fail(err, RD_INVALID, "there is no tool %s", json_string_value(name));
    if (tool == RD_MCP_STATUS)
        answer_structured(c, m->ticket, modern, status_for_agents(host->status(host->self)));
    else
        run_tool(c, m, modern, tool, arguments);
    return RD_OK;
}

/* ---- what comes back ---- */

/* A step is told once, and not more often than a reader can follow. */
static void progress(rd_mcp *m, call *q, const rd_event *ev)
{
    const rd_host *host = m->conn->o.host;
    double now = host->now_ms(host->self);

    if (!q->token || ev->step <= q->told || (q->told && now - q->told_ms < PROGRESS_EVERY_MS))
        return;
    q->told = ev->step;
    q->told_ms = now;
    rd_rpc_notify(m->conn->rpc, "notifications/progress",
                  json_pack("{s:O, s:i}", "progressToken", q->token, "progress", ev->step));
}

void rd_mcp_event(rd_mcp *m, const rd_event *ev)
{
    call *q = m->calls;

    while (q && q->job != ev->job) q = q->next;
    if (!q) return;
    if (!ev->done) {
        progress(m, q, ev);
        return;
    }
    unlink_call(m, q);
    if (ev->status)
        answer_text(m->conn, q->ticket, q->modern,
                    *ev->err.text ? ev->err.text : rd_status_name(ev->status));
    else
        answer_structured(m->conn, q->ticket, q->modern, rd_mcp_call_result(&q->what, ev));
    free_call(q);
}

void rd_mcp_tick(rd_mcp *m)
{
    const rd_host *host = m->conn->o.host;
    double now = host->now_ms(host->self);

    for (call *q = m->calls, *next; q; q = next) {
        next = q->next;
        if (q->deadline_ms > now) continue;
        answer_text(m->conn, q->ticket, q->modern,
                    "no answer in time: the model is being loaded or busy. Try again later, or ask "
                    "about less text");
        drop_call(m, q);
    }
}

const rd_method rd_mcp_methods[] = {
    { "initialize", RD_MESSAGE_REQUEST, initialize },
    { "ping", RD_MESSAGE_REQUEST, ping },
    { "server/discover", RD_MESSAGE_REQUEST, discover },
    { "tools/call", RD_MESSAGE_REQUEST, tools_call },
    { "tools/list", RD_MESSAGE_REQUEST, tools_list },
};
const size_t rd_mcp_method_count = sizeof rd_mcp_methods / sizeof *rd_mcp_methods;
