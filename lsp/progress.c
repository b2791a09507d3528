/* progress.c - create, begin, report, end. */
#include "lsp/progress.h"

#include <stdio.h>

enum { REPORT_EVERY_MS = 100 };

static void send(const rd_progress *p, rd_lsp *l, json_t *value)
{
    rd_rpc_notify(l->conn->rpc, "$/progress",
                  json_pack("{s:O, s:o}", "token", p->token, "value", value));
}

static void begin(rd_progress *p, rd_lsp *l)
{
    p->shown = true;
    send(p, l,
         json_pack("{s:s, s:s, s:b}", "kind", "begin", "title", p->title, "cancellable", true));
}

void rd_progress_start(rd_progress *p, rd_lsp *l, const json_t *token, uint64_t number,
                       const char *title)
{
    char name[40];

    p->title = title;
    if (json_is_string(token) || json_is_integer(token)) {
        p->token = json_deep_copy(token);
        begin(p, l);
        return;
    }
    if (!l->client.work_done_progress) return;
    snprintf(name, sizeof name, "redraft/work/%llu", (unsigned long long)number);
    p->token = json_string(name);
    p->ask = rd_rpc_ask(l->conn->rpc, "window/workDoneProgress/create",
                        json_pack("{s:O}", "token", p->token));
    if (p->ask == 0) rd_progress_clear(p);
}

bool rd_progress_replied(rd_progress *p, rd_lsp *l, int64_t ask, const json_t *error, bool over)
{
    if (p->ask == 0 || p->ask != ask) return false;
    p->ask = 0;
    if (error)
        rd_progress_clear(p);
    else if (!over)
        begin(p, l);
    return true;
}

void rd_progress_report(rd_progress *p, rd_lsp *l, const rd_event *ev)
{
    double now = l->conn->o.host->now_ms(l->conn->o.host->self);
    char text[64];

    if (!p->shown || now - p->reported_ms < REPORT_EVERY_MS) return;
    p->reported_ms = now;
    snprintf(text, sizeof text, "step %d, %d tokens", ev->step, ev->tokens);
    send(p, l, json_pack("{s:s, s:s}", "kind", "report", "message", text));
}

void rd_progress_end(rd_progress *p, rd_lsp *l)
{
    if (p->shown) send(p, l, json_pack("{s:s}", "kind", "end"));
    p->shown = false;
}

void rd_progress_clear(rd_progress *p)
{
    json_decref(p->token);
    p->token = NULL;
}
