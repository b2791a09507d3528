/* orders.c - jobs one after the other, and where their answers go. */
#include "lsp/orders.h"

#include "core/base/memory.h"
#include "lsp/context.h"
#include "lsp/progress.h"
#include "lsp/repair.h"
#include "lsp/rewrite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WORK_MOST_MS = 30000 }; /* then the best so far */

/* A span to be written anew, of the order's revision. */
typedef struct piece {
    size_t start, end;
    rd_buf text;
} piece;

typedef struct order {
    struct order *next;
    rd_order_kind kind;
    uint64_t ticket;
    json_t *action;
    char *uri;
    uint64_t revision;
    size_t start, end; /* of that revision */
    float quality;
    rd_buf instruction;
    bool instructed, idle;
    bool cancelled, stale; /* why it is to end */
    bool over;             /* its result was given away; it waits for answers to its questions */
    rd_job *job;
    piece *pieces;
    int n_pieces, at;
    rd_progress progress;
    int64_t apply_ask;
} order;

struct rd_orders {
    rd_lsp *l;
    rd_flags *flags;
    order *first;
    int count;
    uint64_t last_number;
    bool told_ignored;
};

static const char *const titles[] = { [RD_ORDER_REWRITE] = "redraft: rewriting",
                                      [RD_ORDER_FILL] = "redraft: filling the hole",
                                      [RD_ORDER_MEND] = "redraft: looking for doubtful tokens",
                                      [RD_ORDER_FLAG] = "redraft: looking for doubtful tokens" };

rd_orders *rd_orders_new(rd_lsp *l, rd_flags *flags)
{
    rd_orders *ws = rd_alloc0(sizeof *ws);

    ws->l = l;
    ws->flags = flags;
    return ws;
}

static void free_order(order *w)
{
    for (int i = 0; i < w->n_pieces; i++) rd_buf_clear(&w->pieces[i].text);
    free(w->pieces);
    rd_buf_clear(&w->instruction);
    rd_progress_clear(&w->progress);
    json_decref(w->action);
    free(w->uri);
    free(w);
}

static void cancel_job(rd_orders *ws, order *w)
{
    const rd_host *host = ws->l->conn->o.host;

    if (w->job) host->cancel(host->self, w->job);
}

void rd_orders_free(rd_orders *ws)
{
    if (!ws) return;
    for (order *w = ws->first, *next; w; w = next) {
        next = w->next;
        cancel_job(ws, w);
        free_order(w);
    }
    free(ws);
}

/* Forget those that wait for nothing any more. */
static void sweep(rd_orders *ws)
{
    for (order **at = &ws->first; *at;) {
        order *w = *at;

        if (!w->over || w->job || w->progress.ask || w->apply_ask) {
            at = &w->next;
            continue;
        }
        *at = w->next;
        ws->count--;
        free_order(w);
    }
}

/* ---- how an order ends ---- */

static void end(rd_orders *ws, order *w)
{
    w->over = true;
    rd_progress_end(&w->progress, ws->l);
}

static void fail(rd_orders *ws, order *w, rd_status status, const char *text)
{
    int code =
        status == RD_CANCELLED || status == RD_STALE ? rd_rpc_code(status) : RD_REQUEST_FAILED;

    if (w->ticket)
        rd_rpc_fail(ws->l->conn->rpc, w->ticket, code, text, NULL);
    else if (!w->idle && status != RD_CANCELLED)
        rd_lsp_show(ws->l, status == RD_STALE ? 3 : 1, text);
    end(ws, w);
}

static void resolve(rd_orders *ws, order *w, json_t *edit)
{
    json_object_set_new(w->action, "edit", edit);
    rd_rpc_answer(ws->l->conn->rpc, w->ticket, json_incref(w->action));
}

static void apply(rd_orders *ws, order *w, json_t *edit)
{
    json_t *params = json_pack("{s:s, s:o}", "label", titles[w->kind], "edit", edit);

    w->apply_ask = rd_rpc_ask(ws->l->conn->rpc, "workspace/applyEdit", params);
    if (w->apply_ask == 0)
        rd_lsp_log(ws->l, 2, "an edit was not sent: too many questions are not answered yet");
}

/* The edits as a WorkspaceEdit of the document's present version. */
static json_t *workspace_edit(rd_orders *ws, const rd_document *doc, const rd_rewrite *r)
{
    const char *uri = rd_document_uri(doc);
    json_t *edits = json_array();

    for (int i = 0; i < r->n; i++) {
        const rd_edit *e = &r->edits[i];

        json_array_append_new(
            edits, json_pack("{s:o, s:o}", "range", rd_lsp_range(ws->l, doc, e->start, e->end),
                             "newText", rd_repair_string(e->text.data, e->text.len)));
    }
    if (!ws->l->client.document_changes) return json_pack("{s:{s:o}}", "changes", uri, edits);
    return json_pack("{s:[{s:{s:s, s:I}, s:o}]}", "documentChanges", "textDocument", "uri", uri,
                     "version", (json_int_t)rd_document_version(doc), "edits", edits);
}

/* An action that was resolved already cannot become `disabled`, which clients look at in lists only; an error would be
 * drawn as a fault. So it gets an edit that does nothing, and a sentence says why. */
static void nothing_to_do(rd_orders *ws, order *w)
{
    static const char *const words[] = {
        [RD_ORDER_REWRITE] = "The model would leave this as it is.",
        [RD_ORDER_FILL] = "The model has nothing to put here.",
        [RD_ORDER_MEND] = "Nothing here is doubtful enough to be changed.",
        [RD_ORDER_FLAG] = "Nothing here is doubtful.",
    };

    if (!w->idle) rd_lsp_show(ws->l, 3, words[w->kind]);
    if (w->ticket)
        resolve(ws, w,
                ws->l->client.document_changes ? json_pack("{s:[]}", "documentChanges")
                                               : json_pack("{s:{}}", "changes"));
    end(ws, w);
}

/* ---- the span, where it is now ---- */

static rd_document *document_of(rd_orders *ws, const order *w)
{
    rd_document *doc = w->stale ? NULL : rd_documents_find(ws->l->documents, w->uri);

    return doc && rd_document_is_known(doc) ? doc : NULL;
}

/* The document, with the place of a span of the order's revision in it; NULL when the text there is another. */
static rd_document *find_span(rd_orders *ws, const order *w, size_t *start, size_t *end)
{
    rd_document *doc = document_of(ws, w);

    return doc && !rd_document_shift(doc, w->revision, start, end) ? doc : NULL;
}

static bool is_stale(rd_orders *ws, const order *w)
{
    size_t start = w->start, end = w->end;

    return !find_span(ws, w, &start, &end);
}

static void fail_stale(rd_orders *ws, order *w)
{
    fail(ws, w, RD_STALE, "The text changed meanwhile, so nothing was edited.");
}

/* ---- jobs ---- */

static void tell_ignored(rd_orders *ws, const order *w)
{
    const rd_host *host = ws->l->conn->o.host;
    rd_model_state m;

    if (!w->instructed || ws->told_ignored) return;
    host->model(host->self, &m);
    if (m.phase != RD_MODEL_READY || m.follows_instructions) return;
    ws->told_ignored = true;
    rd_lsp_show(ws->l, 3,
                "This model does not follow instructions and goes by the text alone; chat "
                "checkpoints follow them.");
}

/* Ask for [start, end) as it is now. */
static void submit(rd_orders *ws, order *w, const rd_document *doc, rd_job_kind kind, size_t start,
                   size_t end)
{
    const rd_host *host = ws->l->conn->o.host;
    rd_job *job = rd_conn_job(ws->l->conn, w->idle ? RD_LANE_IDLE : RD_LANE_ASKED, kind);

    rd_context_fill(job, doc, start, end, ws->l->documents, ws->l->scope);
    if (kind == RD_JOB_INFILL) rd_buf_reset(&job->draft);
    rd_rewrite_plain(&job->draft);
    if (kind != RD_JOB_SCORE)
        rd_buf_append(&job->instruction, w->instruction.data, w->instruction.len);
    job->quality = w->quality;
    job->max_ms = WORK_MOST_MS;
    job->watch = w->progress.token != NULL;
    w->job = job;
    host->submit(host->self, job);
}

static void add_piece(order *w, size_t start, size_t end)
{
    w->pieces = rd_resize(w->pieces, (size_t)w->n_pieces + 1, sizeof *w->pieces);
    w->pieces[w->n_pieces++] = (piece){ .start = start, .end = end };
}

/* All pieces are answered: the edits. */
static void finish(rd_orders *ws, order *w)
{
    rd_document *doc = document_of(ws, w);
    rd_rewrite r = { 0 };

    for (int i = 0; i < w->n_pieces; i++) {
        const piece *p = &w->pieces[i];
        size_t start = p->start, end = p->end;

        if (!find_span(ws, w, &start, &end)) {
            rd_rewrite_clear(&r);
            fail_stale(ws, w);
            return;
        }
        if (!p->text.data) continue;
        if (w->kind == RD_ORDER_FILL)
            rd_rewrite_put(&r, rd_document_text(doc), start, end, p->text.data, p->text.len);
        else
            rd_rewrite_add(&r, rd_document_text(doc), start, end, p->text.data, p->text.len);
    }
    if (r.n == 0) {
        nothing_to_do(ws, w);
    } else {
        json_t *edit = workspace_edit(ws, doc, &r);

        if (w->ticket)
            resolve(ws, w, edit);
        else
            apply(ws, w, edit);
        end(ws, w);
    }
    rd_rewrite_clear(&r);
}

static void next_piece(rd_orders *ws, order *w)
{
    if (w->at == w->n_pieces) {
        finish(ws, w);
        return;
    }
    size_t start = w->pieces[w->at].start, end = w->pieces[w->at].end;
    rd_document *doc = find_span(ws, w, &start, &end);

    if (!doc)
        fail_stale(ws, w);
    else
        submit(ws, w, doc, w->kind == RD_ORDER_FILL ? RD_JOB_INFILL : RD_JOB_REWRITE, start, end);
}

/* What is doubtful becomes flags, or pieces. */
static void scored(rd_orders *ws, order *w, const rd_event *ev)
{
    size_t start = w->start, stop = w->end;
    rd_document *doc = find_span(ws, w, &start, &stop);
    rd_doubt doubts[RD_DOUBTS_MOST];
    rd_buf text = { 0 }, plain = { 0 };

    rd_buf_append(&text, "", 0);
    rd_text_copy(rd_document_text(doc), start, stop, &text);
    rd_buf_append(&plain, text.data, text.len);
    rd_rewrite_plain(&plain);
    int n = rd_doubts_find(w->kind == RD_ORDER_FLAG ? RD_DOUBT_SHOW : RD_DOUBT_MEND, plain.data,
                           plain.len, ev->scores, ev->n_scores, doubts, RD_DOUBTS_MOST);

    for (int i = 0; i < n && w->kind == RD_ORDER_MEND; i++)
        add_piece(w, w->start + rd_rewrite_unplain(text.data, text.len, doubts[i].start),
                  w->start + rd_rewrite_unplain(text.data, text.len, doubts[i].end));
    if (w->kind == RD_ORDER_FLAG) {
        rd_flags_set(ws->flags, doc, start, stop, doubts, n);
        if (n == 0) nothing_to_do(ws, w);
        if (!w->over) end(ws, w);
    } else {
        next_piece(ws, w);
    }
    rd_doubts_clear(doubts, n);
    rd_buf_clear(&text);
    rd_buf_clear(&plain);
}

static void answered(rd_orders *ws, order *w, const rd_event *ev)
{
    if (ev->n_answers > 0 && ev->answers[0].text.len > 0)
        rd_buf_append(&w->pieces[w->at].text, ev->answers[0].text.data, ev->answers[0].text.len);
    w->at++;
    tell_ignored(ws, w);
    next_piece(ws, w);
}

/* ---- what comes from outside ---- */

static order *new_order(const rd_order *o)
{
    order *w = rd_alloc0(sizeof *w);

    w->kind = o->kind;
    w->ticket = o->ticket;
    w->action = o->action ? json_deep_copy(o->action) : NULL;
    w->uri = rd_copy_text(rd_document_uri(o->doc), strlen(rd_document_uri(o->doc)));
    w->revision = rd_document_revision(o->doc);
    w->start = o->start;
    w->end = o->end;
    w->quality = o->quality;
    if (o->instruction) rd_buf_append(&w->instruction, o->instruction, o->instruction_n);
    w->instructed = o->instructed;
    w->idle = o->idle;
    return w;
}

rd_status rd_orders_start(rd_orders *ws, const rd_order *o, rd_error *err)
{
    if (o->end - o->start > RD_MOST_ACTION_BYTES)
        return rd_fail(err, RD_INVALID, "range: %zu bytes, at most %zu can be taken at once",
                       o->end - o->start, RD_MOST_ACTION_BYTES);
    if (ws->count == RD_MOST_ORDERS)
        return rd_fail(err, RD_NO_MEMORY, "%d actions are under way already", RD_MOST_ORDERS);
    order *w = new_order(o);

    w->next = ws->first;
    ws->first = w;
    ws->count++;
    tell_ignored(ws, w);
    if (!w->idle)
        rd_progress_start(&w->progress, ws->l, o->token, ++ws->last_number, titles[w->kind]);
    if (w->kind == RD_ORDER_MEND || w->kind == RD_ORDER_FLAG) {
        submit(ws, w, o->doc, RD_JOB_SCORE, w->start, w->end);
    } else {
        add_piece(w, w->start, w->end);
        next_piece(ws, w);
    }
    return RD_OK;
}

static void done(rd_orders *ws, order *w, const rd_event *ev)
{
    w->job = NULL;
    if (w->cancelled)
        fail(ws, w, RD_CANCELLED, "cancelled");
    else if (is_stale(ws, w))
        fail_stale(ws, w);
    else if (ev->status)
        fail(ws, w, ev->status, ev->status == RD_CANCELLED ? "cancelled" : ev->err.text);
    else if (ev->job->kind == RD_JOB_SCORE)
        scored(ws, w, ev);
    else
        answered(ws, w, ev);
    sweep(ws);
}

bool rd_orders_event(rd_orders *ws, const rd_event *ev)
{
    order *w = ws->first;

    while (w && w->job != ev->job) w = w->next;
    if (!w) return false;
    if (ev->done)
        done(ws, w, ev);
    else
        rd_progress_report(&w->progress, ws->l, ev);
    return true;
}

static void cancel(rd_orders *ws, order *w)
{
    w->cancelled = true;
    cancel_job(ws, w);
}

bool rd_orders_cancelled(rd_orders *ws, uint64_t ticket)
{
    order *w = ws->first;

    while (w && w->ticket != ticket) w = w->next;
    if (!w) return false;
    cancel(ws, w);
    return true;
}

void rd_orders_token_cancelled(rd_orders *ws, const json_t *token)
{
    for (order *w = ws->first; token && w; w = w->next)
        if (!w->over && json_equal(w->progress.token, token)) cancel(ws, w);
}

static void applied(rd_orders *ws, order *w, const json_t *result, const json_t *error)
{
    const json_t *why = json_object_get(result, "failureReason");
    char text[256];

    w->apply_ask = 0;
    if (json_is_true(json_object_get(result, "applied"))) return;
    if (error) why = json_object_get(error, "message");
    snprintf(text, sizeof text, "The editor did not apply the edit%s%.200s",
             json_is_string(why) ? ": " : ".", json_is_string(why) ? json_string_value(why) : "");
    rd_lsp_log(ws->l, 2, text);
    rd_lsp_show(ws->l, 2, text);
}

bool rd_orders_replied(rd_orders *ws, int64_t ask, const json_t *result, const json_t *error)
{
    bool found = false;

    for (order *w = ws->first; w && !found; w = w->next) {
        found = rd_progress_replied(&w->progress, ws->l, ask, error, w->over);
        if (!found && w->apply_ask != 0 && w->apply_ask == ask) {
            applied(ws, w, result, error);
            found = true;
        }
    }
    sweep(ws);
    return found;
}

void rd_orders_changed(rd_orders *ws, const rd_document *doc)
{
    for (order *w = ws->first; w; w = w->next) {
        if (w->over || strcmp(w->uri, rd_document_uri(doc)) != 0 || !is_stale(ws, w)) continue;
        w->stale = true;
        cancel_job(ws, w);
    }
}

void rd_orders_closed(rd_orders *ws, const char *uri)
{
    for (order *w = ws->first; w; w = w->next) {
        if (w->over || strcmp(w->uri, uri) != 0) continue;
        w->stale = true;
        cancel_job(ws, w);
    }
}
