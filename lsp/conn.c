/* conn.c - bytes to frames, frames to one of two sets of handlers, and their answers to bytes. */
#include "lsp/peer.h"

#include "core/base/log.h"
#include "core/base/memory.h"
#include "lsp/limits.h"

#include <stdlib.h>
#include <string.h>

static void on_cancelled(rd_conn *c, uint64_t ticket)
{
    if (c->lsp) rd_lsp_cancelled(c->lsp, ticket);
    if (c->mcp) rd_mcp_cancelled(c->mcp, ticket);
}

static void on_lost(rd_conn *c, const char *why)
{
    if (c->lsp) rd_lsp_lost(c->lsp, why);
}

static void on_replied(rd_conn *c, int64_t ask, const json_t *result, const json_t *error)
{
    if (c->lsp) rd_lsp_replied(c->lsp, ask, result, error);
}

static const rd_rpc_hooks hooks = { .cancelled = on_cancelled,
                                    .lost = on_lost,
                                    .replied = on_replied };

/* Agents that see the same files share what was found for them, with each other and not with an editor. */
static uint64_t realm_of(const rd_conn_options *o)
{
    rd_key_maker k;
    uint64_t realm;

    rd_key_begin(&k, "realm");
    for (int i = 0; i < o->n_roots; i++) rd_key_add_text(&k, o->roots[i]);
    rd_key key = rd_key_end(&k);

    memcpy(&realm, key.byte, sizeof realm);
    return realm ? realm : 1;
}

rd_conn *rd_conn_new(const rd_conn_options *o)
{
    rd_conn *c = rd_alloc0(sizeof *c);
    bool lsp = o->protocol == RD_LSP;
    rd_framing framing = lsp ? RD_FRAMING_HEADER : RD_FRAMING_LINE;

    c->o = *o;
    c->realm = lsp ? 0 : realm_of(o);
    c->forgotten = json_object();
    c->wire = rd_wire_new(framing, RD_MOST_FRAME_BYTES);
    c->rpc =
        rd_rpc_new(o->protocol, lsp ? rd_lsp_methods : rd_mcp_methods,
                   lsp ? rd_lsp_method_count : rd_mcp_method_count, &hooks, c, framing, &c->out);
    if (lsp)
        c->lsp = rd_lsp_new(c);
    else
        c->mcp = rd_mcp_new(c);
    return c;
}

void rd_conn_free(rd_conn *c)
{
    if (!c) return;
    c->o.host->wake_at(c->o.host->self, c, 0);
    if (c->lsp) rd_lsp_free(c->lsp);
    if (c->mcp) rd_mcp_free(c->mcp);
    rd_rpc_free(c->rpc);
    rd_wire_free(c->wire);
    rd_buf_clear(&c->out);
    json_decref(c->forgotten);
    free(c);
}

uint64_t rd_conn_number(const rd_conn *c)
{
    return c->o.number;
}

rd_job *rd_conn_job(rd_conn *c, rd_lane lane, rd_job_kind kind)
{
    rd_job *job = rd_job_new(c->o.number, ++c->last_job, lane, kind);

    job->realm = c->realm;
    return job;
}

void rd_conn_judged(rd_conn *c, const char *source, bool excluded)
{
    const rd_host *host = c->o.host;

    if (!excluded) {
        if (json_object_size(c->forgotten) > 0) json_object_del(c->forgotten, source);
        return;
    }
    if (!host->forget || json_object_get(c->forgotten, source)) return;
    if (json_object_size(c->forgotten) >= RD_MOST_DOCUMENTS) json_object_clear(c->forgotten);
    json_object_set_new_nocheck(c->forgotten, source, json_true());
    host->forget(host->self, source);
}

static void stream_over(rd_conn *c)
{
    c->ended = true;
    rd_rpc_hang_up(c->rpc);
}

/* One thing that the wire found; false when there is nothing more to find. */
static bool took(rd_conn *c, rd_wire_event event, const rd_frame *frame, const rd_error *err)
{
    switch (event) {
    case RD_WIRE_FRAME: rd_rpc_frame(c->rpc, frame->bytes, frame->n); return true;
    case RD_WIRE_TOO_BIG: rd_rpc_lost_frame(c->rpc, "the message is too long"); return true;
    case RD_WIRE_BROKEN:
        rd_log(RD_LOG_ERROR, "connection %llu: %s", (unsigned long long)c->o.number, err->text);
        stream_over(c);
        return false;
    case RD_WIRE_MORE: break;
    }
    return false;
}

void rd_conn_read(rd_conn *c, const char *bytes, size_t n)
{
    rd_frame frame = { 0 };
    rd_error err = { 0 };
    int code;

    while (!c->ended && !rd_rpc_is_over(c->rpc, &code) &&
           took(c, rd_wire_read(c->wire, &bytes, &n, &frame, &err), &frame, &err))
        ;
}

void rd_conn_end(rd_conn *c)
{
    rd_frame frame = { 0 };
    rd_error err = { 0 };
    int code;

    while (!c->ended && !rd_rpc_is_over(c->rpc, &code) &&
           took(c, rd_wire_end(c->wire, &frame, &err), &frame, &err))
        ;
    if (!c->ended) stream_over(c);
}

rd_buf *rd_conn_output(rd_conn *c)
{
    return &c->out;
}

void rd_conn_event(rd_conn *c, const rd_event *ev)
{
    if (c->lsp) rd_lsp_event(c->lsp, ev);
    if (c->mcp) rd_mcp_event(c->mcp, ev);
}

void rd_conn_tick(rd_conn *c)
{
    if (c->lsp) rd_lsp_tick(c->lsp);
    if (c->mcp) rd_mcp_tick(c->mcp);
}

void rd_conn_model_changed(rd_conn *c)
{
    if (c->lsp) rd_lsp_model_changed(c->lsp);
}

bool rd_conn_is_over(const rd_conn *c, int *code)
{
    return rd_rpc_is_over(c->rpc, code);
}

long rd_conn_client_pid(const rd_conn *c)
{
    return c->client_pid;
}
