/* suggest.c - one page for each open document: the request that waits, the job that runs, what is kept. */
#include "lsp/suggest.h"

#include "core/base/log.h"
#include "core/base/memory.h"
#include "lsp/context.h"
#include "lsp/kept.h"
#include "lsp/offer.h"
#include "lsp/repair.h"
#include "lsp/sync.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TOKENS_UNASKED = 96, /* of ghost text nobody asked for; more is not read */
    ANSWERS = 3,         /* of an invoked request */
    LOADING_MS = 300,    /* that an automatic request waits for a model that is not there yet */
    TYPING_GAP_MS = 2000 /* a longer pause is not a typing interval */
};

typedef struct page {
    char *uri;
    rd_ask ask;
    rd_job *job;              /* under way for `ask`, or ahead of one when there is none */
    size_t job_at, job_bytes; /* its place, and the document's size and revision then */
    uint64_t job_revision;
    rd_kept_ring kept;
    double changed_ms, interval_ms; /* the last edit; a usual time between two */
} page;

struct rd_suggest {
    rd_lsp *l;
    page **pages;
    int n;
    uint64_t serial;
    char last[400]; /* what became of the last request, for redraft.explainLast */
};

/* ---- pages ---- */

static double now_of(const rd_suggest *s)
{
    return s->l->conn->o.host->now_ms(s->l->conn->o.host->self);
}

static page *find_page(rd_suggest *s, const char *uri)
{
    for (int i = 0; i < s->n; i++)
        if (!strcmp(s->pages[i]->uri, uri)) return s->pages[i];
    return NULL;
}

static page *page_of(rd_suggest *s, const char *uri)
{
    page *p = find_page(s, uri);

    if (p) return p;
    p = rd_alloc0(sizeof *p);
    p->uri = rd_copy_text(uri, strlen(uri));
    s->pages = rd_resize(s->pages, (size_t)s->n + 1, sizeof(page *));
    s->pages[s->n++] = p;
    return p;
}

static void explain(rd_suggest *s, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void explain(rd_suggest *s, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(s->last, sizeof s->last, format, args);
    va_end(args);
}

static void forget_job(rd_suggest *s, page *p)
{
    if (p->job) s->l->conn->o.host->cancel(s->l->conn->o.host->self, p->job);
    p->job = NULL;
}

static void free_page(rd_suggest *s, page *p)
{
    forget_job(s, p);
    rd_ask_clear(&p->ask);
    rd_kept_clear(&p->kept);
    free(p->uri);
    free(p);
}

rd_suggest *rd_suggest_new(rd_lsp *l)
{
    rd_suggest *s = rd_alloc0(sizeof *s);

    s->l = l;
    explain(s, "nothing was asked yet");
    return s;
}

void rd_suggest_free(rd_suggest *s)
{
    if (!s) return;
    for (int i = 0; i < s->n; i++) free_page(s, s->pages[i]);
    free(s->pages);
    free(s);
}

/* ---- answers ---- */

static void answer(rd_suggest *s, page *p, json_t *result)
{
    uint64_t ticket = p->ask.ticket;

    rd_ask_clear(&p->ask);
    rd_rpc_answer(s->l->conn->rpc, ticket, result);
}

static void answer_nothing(rd_suggest *s, page *p)
{
    answer(s, p, rd_offer_result(&p->ask, NULL));
}

static double gate_of(rd_suggest *s, const rd_document *doc)
{
    rd_file_settings f =
        rd_scope_settings(s->l->scope, rd_document_uri(doc), rd_document_language(doc));
    rd_model_state m;

    s->l->conn->o.host->model(s->l->conn->o.host->self, &m);
    return rd_file_confidence(&f, (double)m.gate);
}

/* The best is the newest: it is looked at first. */
static void keep(page *p, size_t at, const rd_offer *o, uint64_t first_serial)
{
    for (int i = o->n - 1; i >= 0; i--)
        rd_kept_add(&p->kept, first_serial + (uint64_t)i, p->job_revision, p->job_bytes, at,
                    o->text[i].data, o->text[i].len, o->confidence[i]);
}

static void explain_offer(rd_suggest *s, const rd_offer *o, double gate, const rd_event *ev)
{
    if (o->n > 0)
        explain(s, "shown: confidence %.2f, %d tokens, %d passes, %.0f ms",
                (double)o->confidence[0], ev->tokens, ev->forwards, ev->ms);
    else if (o->unsure > 0)
        explain(s, "not shown: its confidence %.2f is below %.2f (setting minConfidence)",
                o->unsure, gate);
    else if (o->unworthy)
        explain(s, "not shown: %s", o->unworthy);
    else
        explain(s, "the model has nothing to put here");
}

static void answer_offer(rd_suggest *s, page *p, const rd_document *doc, const rd_offer *o,
                         uint64_t first_serial)
{
    const rd_ask *a = &p->ask;
    json_t *items = json_array();

    for (int i = 0; i < o->n; i++)
        json_array_append_new(items, rd_offer_item(s->l, a, doc, &o->text[i], a->at, a->end,
                                                   first_serial + (uint64_t)i, i));
    answer(s, p, rd_offer_result(a, items));
}

/* The answers of the page's job, for the request that waits or to be kept for one that may come. */
static void take_answers(rd_suggest *s, page *p, const rd_document *doc, const rd_event *ev)
{
    rd_ask ahead = { .at = p->job_at, .end = p->job_at };
    bool waits = p->ask.ticket != 0;
    const rd_ask *a = waits ? &p->ask : &ahead;
    uint64_t first = s->serial + 1;
    double gate = gate_of(s, doc);
    rd_offer o = { 0 };

    rd_offer_fill(&o, a, doc, gate, ev);
    s->serial += (uint64_t)o.n;
    if (!a->chosen) keep(p, a->at, &o, first);
    if (waits) {
        explain_offer(s, &o, gate, ev);
        answer_offer(s, p, doc, &o, first);
    }
    rd_offer_clear(&o);
}

/* ---- jobs ---- */

static void start_job(rd_suggest *s, page *p, const rd_document *doc, size_t at, size_t end,
                      rd_lane lane, rd_job_kind kind)
{
    rd_lsp *l = s->l;
    rd_job *job = rd_conn_job(l->conn, lane, kind);
    rd_file_settings f =
        rd_scope_settings(l->scope, rd_document_uri(doc), rd_document_language(doc));

    rd_context_fill(job, doc, at, end, l->documents, l->scope);
    rd_buf_clear(&job->draft);
    job->quality = (float)f.quality;
    job->max_ms = f.max_ms;
    job->max_tokens = TOKENS_UNASKED;
    if (p->ask.ticket) {
        if (p->ask.chosen) rd_buf_text(&job->prefix, p->ask.chosen);
        job->watch = l->settings.draft && !p->ask.list && !p->ask.chosen;
        job->answers = p->ask.invoked ? ANSWERS : 1;
        job->fresh = p->ask.invoked;
        if (p->ask.invoked) job->max_tokens = 0;
    }
    p->job = job;
    p->job_at = at;
    p->job_revision = rd_document_revision(doc);
    p->job_bytes = rd_text_bytes(rd_document_text(doc));
    l->conn->o.host->submit(l->conn->o.host->self, job);
}

static void begin(rd_suggest *s, page *p)
{
    rd_document *doc = rd_documents_find(s->l->documents, p->uri);

    p->ask.due = 0;
    if (!doc || !rd_document_is_known(doc)) {
        explain(s, "the document is not known any more");
        answer_nothing(s, p);
        return;
    }
    forget_job(s, p);
    explain(s, "the model is at work");
    start_job(s, p, doc, p->ask.at, p->ask.end, RD_LANE_TYPING, RD_JOB_INFILL);
}

/* How long after the last edit an automatic request begins: not longer than half a typing interval, nor than the answer is
 * expected to take itself, since with a fast model there is nothing to save. */
static double debounce(const rd_suggest *s, const page *p, int setting)
{
    enum { PASSES = 4 };
    rd_model_state m;
    double wait = setting;

    s->l->conn->o.host->model(s->l->conn->o.host->self, &m);
    if (p->interval_ms > 0 && wait > p->interval_ms / 2) wait = p->interval_ms / 2;
    if (m.step_ms > 0 && wait > PASSES * m.step_ms) wait = PASSES * m.step_ms;
    return wait;
}

/* ---- requests ---- */

/* Why an automatic request is answered with nothing at once; NULL: it is not. */
static const char *not_now(rd_suggest *s, const rd_document *doc, const rd_ask *a)
{
    if (a->chosen && s->l->settings.subtle) return "a menu is open, and the mode is subtle";
    if (a->invoked) return NULL;
    if (rd_ask_is_inside_word(a, doc)) return "the cursor stands inside a word";
    return NULL;
}

/* Answer from what is kept; false: nothing is. */
static bool answer_kept(rd_suggest *s, page *p, const rd_document *doc)
{
    rd_buf rest = { 0 };
    size_t end;
    const rd_kept *one = rd_kept_find(&p->kept, doc, p->ask.at, &rest, &end);

    if (one) {
        explain(s, "shown: what is left of a suggestion while it is typed, confidence %.2f",
                (double)one->confidence);
        json_t *items = json_array();

        json_array_append_new(
            items, rd_offer_item(s->l, &p->ask, doc, &rest, p->ask.at, end, one->serial, 0));
        answer(s, p, rd_offer_result(&p->ask, items));
    }
    rd_buf_clear(&rest);
    return one != NULL;
}

/* The job under way is for this very place and text already: its answer will do. One behind a menu's choice has that in
 * its text. */
static bool joins(const page *p, const rd_document *doc, const rd_ask *a)
{
    return p->job && p->job->lane == RD_LANE_TYPING && !p->ask.chosen && !a->chosen &&
           !a->invoked && p->job_at == a->at && p->job_revision == rd_document_revision(doc);
}

/* An older request for the document ends; Neovim would write an error to its log, and keeps what it shows on null. */
static void supersede(rd_suggest *s, page *p)
{
    if (p->ask.ticket) answer(s, p, NULL);
}

static bool is_loaded(const rd_suggest *s)
{
    rd_model_state m;

    s->l->conn->o.host->model(s->l->conn->o.host->self, &m);
    return m.phase == RD_MODEL_READY || m.phase == RD_MODEL_FAILED;
}

static void take_request(rd_suggest *s, page *p, const rd_document *doc, rd_ask *a, int debounce_ms)
{
    bool joined = joins(p, doc, a);

    supersede(s, p);
    if (!joined) forget_job(s, p);
    p->ask = *a;
    if (joined) return;
    const char *why = not_now(s, doc, a);

    if (why) {
        explain(s, "%s", why);
        answer_nothing(s, p);
        return;
    }
    if (!a->invoked && !a->chosen && answer_kept(s, p, doc)) return;
    double now = now_of(s);

    if (!a->invoked && !is_loaded(s)) p->ask.patience = now + LOADING_MS;
    p->ask.due = a->invoked ? now : p->changed_ms + debounce(s, p, debounce_ms);
    if (p->ask.due <= now)
        begin(s, p);
    else
        explain(s, "waiting for a pause in typing");
}

/* A request about a document that nothing is done for: an empty answer, and the reason for whoever asks. */
static rd_status refuse(rd_suggest *s, const rd_message *m, bool list, const rd_error *err)
{
    rd_ask a = { .list = list };

    explain(s, "%s", err->text);
    rd_lsp_reason(s->l, err->text, false);
    rd_rpc_answer(s->l->conn->rpc, m->ticket, rd_offer_result(&a, NULL));
    return RD_OK;
}

static rd_status request(rd_conn *c, const rd_message *m, bool list, rd_error *err)
{
    rd_suggest *s = c->lsp->suggest;
    rd_ask a = { .ticket = m->ticket, .id = m->id, .list = list };
    rd_file_settings f;
    rd_document *doc;
    rd_position at;

    if (rd_sync_position(json_object_get(m->params, "position"), "position", &at, err))
        return RD_INVALID;
    rd_status status = rd_lsp_document(c->lsp, m->params, &doc, &f, err);

    if (!status && list && !c->lsp->settings.completion)
        status = rd_fail(err, RD_NOT_FOUND, "the setting completion is off");
    if (status == RD_NOT_FOUND) return refuse(s, m, list, err);
    if (status) return status;
    if (rd_ask_read(&a, doc, at, m->params, c->lsp->encoding, err)) {
        rd_ask_clear(&a);
        return RD_INVALID;
    }
    if (!s->l->trouble) rd_lsp_reason(s->l, "", false);
    take_request(s, page_of(s, rd_document_uri(doc)), doc, &a, f.debounce_ms);
    return RD_OK;
}

rd_status rd_suggest_inline(rd_conn *c, const rd_message *m, rd_error *err)
{
    return request(c, m, false, err);
}

rd_status rd_suggest_completion(rd_conn *c, const rd_message *m, rd_error *err)
{
    return request(c, m, true, err);
}

/* ---- commands ---- */

/* The next one is prepared where the accepted one ends, before anybody asks. */
rd_status rd_suggest_accepted(rd_conn *c, const rd_message *m, rd_error *err)
{
    rd_suggest *s = c->lsp->suggest;
    const json_t *arguments = json_object_get(m->params, "arguments");
    const json_t *uri = json_array_get(arguments, 0), *serial = json_array_get(arguments, 1);
    page *p = json_is_string(uri) ? find_page(s, json_string_value(uri)) : NULL;
    const rd_kept *one = p && json_is_integer(serial)
                             ? rd_kept_serial(&p->kept, (uint64_t)json_integer_value(serial))
                             : NULL;
    rd_document *doc = p ? rd_documents_find(c->lsp->documents, p->uri) : NULL;
    size_t end;

    (void)err;
    rd_rpc_answer(c->rpc, m->ticket, NULL);
    if (!one || !doc || p->ask.ticket || p->job || rd_lsp_why_not(c->lsp, doc)) return RD_OK;
    if (rd_kept_is_accepted(one, doc, &end))
        start_job(s, p, doc, end, end, RD_LANE_IDLE, RD_JOB_INFILL);
    return RD_OK;
}

rd_status rd_suggest_explain(rd_conn *c, const rd_message *m, rd_error *err)
{
    const char *text = c->lsp->suggest->last;
    json_t *result = json_object();

    (void)err;
    json_object_set_new(result, "message", rd_repair_string(text, strlen(text)));
    rd_rpc_answer(c->rpc, m->ticket, result);
    return RD_OK;
}

/* ---- what happens ---- */

/* The model is loaded, and what stands at the file's beginning is computed, before the first key is pressed. A request that
 * waits was for the text before. */
void rd_suggest_opened(rd_suggest *s, const rd_document *doc)
{
    page *p = page_of(s, rd_document_uri(doc));

    forget_job(s, p);
    if (p->ask.ticket) answer_nothing(s, p);
    rd_kept_clear(&p->kept);
    if (rd_document_is_known(doc) && !rd_lsp_why_not(s->l, doc))
        start_job(s, p, doc, 0, 0, RD_LANE_IDLE, RD_JOB_WARM);
}

/* An edit makes the job's text an old one; the request that waits goes on with nothing, or waits for the pause behind it. */
void rd_suggest_changed(rd_suggest *s, const rd_document *doc)
{
    page *p = page_of(s, rd_document_uri(doc));
    double now = now_of(s), gap = now - p->changed_ms;

    if (gap > 0 && gap < TYPING_GAP_MS)
        p->interval_ms = p->interval_ms > 0 ? 0.8 * p->interval_ms + 0.2 * gap : gap;
    p->changed_ms = now;
    forget_job(s, p);
    if (p->ask.ticket) explain(s, "the text changed before the answer came");
    supersede(s, p);
}

void rd_suggest_closed(rd_suggest *s, const char *uri)
{
    for (int i = 0; i < s->n; i++) {
        if (strcmp(s->pages[i]->uri, uri) != 0) continue;
        if (s->pages[i]->ask.ticket) answer_nothing(s, s->pages[i]);
        free_page(s, s->pages[i]);
        s->pages[i] = s->pages[--s->n];
        return;
    }
}

/* The job is over: unasked work fails silently but for the reason, what was invoked says what went wrong. */
static void finish(rd_suggest *s, page *p, const rd_event *ev)
{
    rd_document *doc = rd_documents_find(s->l->documents, p->uri);
    bool waits = p->ask.ticket != 0, warm = ev->job->kind == RD_JOB_WARM;

    p->job = NULL;
    if (!ev->status) rd_lsp_reason(s->l, "", false);
    if (!ev->status && !warm && doc && rd_document_revision(doc) == p->job_revision) {
        take_answers(s, p, doc, ev);
        return;
    }
    if (!waits) return;
    explain(s, "the model failed: %s", ev->status ? ev->err.text : "the text changed");
    if (ev->status && ev->status != RD_CANCELLED) rd_lsp_reason(s->l, s->last, true);
    if (ev->status && ev->status != RD_CANCELLED && p->ask.invoked) {
        uint64_t ticket = p->ask.ticket;

        rd_ask_clear(&p->ask);
        rd_rpc_fail(s->l->conn->rpc, ticket, RD_REQUEST_FAILED, ev->err.text, NULL);
    } else {
        answer_nothing(s, p);
    }
}

bool rd_suggest_event(rd_suggest *s, const rd_event *ev)
{
    for (int i = 0; i < s->n; i++) {
        page *p = s->pages[i];

        if (p->job != ev->job) continue;
        if (ev->done) {
            finish(s, p, ev);
        } else if (p->ask.ticket && ev->n_answers > 0) {
            rd_document *doc = rd_documents_find(s->l->documents, p->uri);

            p->ask.seq++;
            if (doc && rd_document_is_known(doc))
                rd_rpc_notify(s->l->conn->rpc, "$/redraft/draft",
                              rd_offer_draft(s->l, &p->ask, doc, ev));
        }
        return true;
    }
    return false;
}

bool rd_suggest_cancelled(rd_suggest *s, uint64_t ticket)
{
    for (int i = 0; i < s->n; i++) {
        page *p = s->pages[i];

        if (p->ask.ticket != ticket) continue;
        explain(s, "the editor cancelled the request");
        rd_ask_clear(&p->ask);
        forget_job(s, p);
        return true;
    }
    return false;
}

/* The model takes long to come: an answer later would be for a text that nobody looks at any more. */
static void lose_patience(rd_suggest *s, page *p)
{
    p->ask.patience = 0;
    if (is_loaded(s)) return;
    explain(s, "the model is being loaded");
    forget_job(s, p);
    answer_nothing(s, p);
}

void rd_suggest_tick(rd_suggest *s, double now)
{
    for (int i = 0; i < s->n; i++) {
        rd_ask *a = &s->pages[i]->ask;

        if (a->ticket && a->due > 0 && a->due <= now) begin(s, s->pages[i]);
        if (a->ticket && a->patience > 0 && a->patience <= now) lose_patience(s, s->pages[i]);
    }
}

double rd_suggest_due(const rd_suggest *s)
{
    double at = 0;

    for (int i = 0; i < s->n; i++) {
        const rd_ask *a = &s->pages[i]->ask;

        if (a->ticket && a->due > 0 && (at == 0 || a->due < at)) at = a->due;
        if (a->ticket && a->patience > 0 && (at == 0 || a->patience < at)) at = a->patience;
    }
    return at;
}
