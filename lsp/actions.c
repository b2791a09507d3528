/* actions.c - the requests for code actions and commands: what is offered, and what is asked for in which form.
 *
 * Listing never asks the model: it looks at the text and at what is flagged. What comes back in an action's `data` or a command's
 * arguments is a client's bytes and is judged anew. work.h does what is asked.
 */
#include "lsp/peer.h"

#include "core/base/memory.h"
#include "lsp/sync.h"
#include "lsp/todo.h"
#include "lsp/orders.h"

#include <stdlib.h>
#include <string.h>

/* With the setting `diagnostics`: doubtful tokens are looked for when the text has stood still so long. */
enum { IDLE_MS = 2000 };
/* Text around a place in which a hole is looked for. */
enum { AROUND_BYTES = 4096 };

struct rd_actions {
    rd_lsp *l;
    rd_flags *flags;
    rd_orders *orders;
    char *due_uri; /* whose doubtful tokens are to be looked for */
    double due;
};

rd_actions *rd_actions_new(rd_lsp *l)
{
    rd_actions *a = rd_alloc0(sizeof *a);

    a->l = l;
    a->flags = rd_flags_new(l);
    a->orders = rd_orders_new(l, a->flags);
    return a;
}

void rd_actions_free(rd_actions *a)
{
    if (!a) return;
    rd_orders_free(a->orders);
    rd_flags_free(a->flags);
    free(a->due_uri);
    free(a);
}

/* ---- places ---- */

typedef struct span {
    size_t start, end;
} span;

static rd_status read_range(const rd_lsp *l, const rd_document *doc, const json_t *value,
                            const char *name, span *out, rd_error *err)
{
    rd_position start, end;

    if (rd_sync_range(value, name, &start, &end, err)) return RD_INVALID;
    out->start = rd_text_offset(rd_document_text(doc), start, l->encoding);
    out->end = rd_text_offset(rd_document_text(doc), end, l->encoding);
    return RD_OK;
}

/* The whole lines that a span touches, without the last one's end; a span that ends where a line begins does not touch it. */
static span lines_of(const rd_text *t, span s)
{
    size_t first = rd_text_position(t, s.start, RD_UTF8).line;
    rd_position last = rd_text_position(t, s.end, RD_UTF8);

    if (last.line > first && last.character == 0) last.line--;
    return (span){ rd_text_line_start(t, first), rd_text_line_end(t, last.line) };
}

/* The hole on the lines of a span. *what: the comment that says what belongs there, or empty. */
static bool find_hole(const rd_document *doc, span at, span *hole, rd_buf *what)
{
    const rd_text *t = rd_document_text(doc);
    rd_todo todo;
    rd_buf around = { 0 };
    size_t from = at.start > AROUND_BYTES ? at.start - AROUND_BYTES : 0;
    size_t to = at.end - at.start > RD_MOST_ACTION_BYTES ? at.start : at.end;

    from = rd_text_line_start(t, rd_text_position(t, from, RD_UTF8).line);
    rd_buf_append(&around, "", 0);
    rd_text_copy(t, from, to + AROUND_BYTES, &around);
    bool found = rd_todo_find(rd_document_language(doc), around.data, around.len, at.start - from,
                              to - from, &todo);

    if (found) {
        *hole = (span){ from + todo.start, from + todo.end };
        if (todo.says_what) rd_buf_append(what, around.data + todo.start, todo.end - todo.start);
    }
    rd_buf_clear(&around);
    return found;
}

/* ---- the list ---- */

static const struct {
    const char *name; /* in `data` */
    const char *command;
    const char *title, *kind;
} offers[] = {
    [RD_ORDER_REWRITE] = { "rewrite", "redraft.rewrite", "Rewrite selection", "refactor.rewrite" },
    [RD_ORDER_FILL] = { "fill", "redraft.fill", "Fill this hole", "quickfix" },
    [RD_ORDER_MEND] = { "mend", "redraft.fixDoubtful", "Fix doubtful tokens here",
                        "refactor.rewrite" },
    [RD_ORDER_FLAG] = { NULL, "redraft.showDoubtful", NULL, NULL },
};

enum { OFFERS = sizeof offers / sizeof *offers };

/* A kind stands for itself and all below it. */
static bool is_wanted(const json_t *only, const char *kind)
{
    const json_t *one;
    size_t i;

    if (json_array_size(only) == 0) return true;
    json_array_foreach(only, i, one)
    {
        size_t n = json_string_length(one);

        if (!json_is_string(one) || strncmp(json_string_value(one), kind, n) != 0) continue;
        if (n == 0 || kind[n] == 0 || kind[n] == '.') return true;
    }
    return false;
}

static json_t *command_of(const rd_lsp *l, const rd_document *doc, rd_order_kind kind, span s)
{
    json_t *argument = json_pack("{s:s, s:I, s:o}", "uri", rd_document_uri(doc), "version",
                                 (json_int_t)rd_document_version(doc), "range",
                                 rd_lsp_range(l, doc, s.start, s.end));

    return json_pack("{s:s, s:s, s:[o]}", "title", offers[kind].title, "command",
                     offers[kind].command, "arguments", argument);
}

static json_t *data_of(const rd_document *doc, rd_order_kind kind, span s)
{
    return json_pack("{s:s, s:I, s:I, s:s, s:I, s:I}", "uri", rd_document_uri(doc), "version",
                     (json_int_t)rd_document_version(doc), "revision",
                     (json_int_t)rd_document_revision(doc), "kind", offers[kind].name, "start",
                     (json_int_t)s.start, "end", (json_int_t)s.end);
}

/* `title`: of which kind the words are; it differs from `kind` where a flagged span is rewritten at once. */
static json_t *offer(const rd_lsp *l, const rd_document *doc, rd_order_kind title,
                     rd_order_kind kind, span s)
{
    json_t *action =
        json_pack("{s:s, s:s}", "title", offers[title].title, "kind", offers[title].kind);

    if (l->client.resolves_edit)
        json_object_set_new(action, "data", data_of(doc, kind, s));
    else
        json_object_set_new(action, "command", command_of(l, doc, title, s));
    return action;
}

/* The diagnostics of ours among those that the client saw there. */
static void attach(json_t *action, const json_t *diagnostics)
{
    json_t *ours = json_array(), *one;
    size_t i;

    json_array_foreach(diagnostics, i, one)
    {
        const char *source = json_string_value(json_object_get(one, "source"));

        if (source && !strcmp(source, "redraft")) json_array_append(ours, one);
    }
    json_object_set_new(action, "diagnostics", ours);
}

/* What can be done in `s`. Unasked (`automatic`), only for a selection or what is flagged. */
static void list_offers(rd_actions *a, const rd_document *doc, span s, const json_t *context,
                        json_t *list)
{
    const json_t *only = json_object_get(context, "only");
    bool automatic = json_number_value(json_object_get(context, "triggerKind")) == 2.0;
    bool selected = s.end > s.start && s.end - s.start <= RD_MOST_ACTION_BYTES;
    bool asked = !automatic || s.end > s.start;
    span flagged = s, lines = lines_of(rd_document_text(doc), s), hole;
    rd_buf what = { 0 };

    if (selected && is_wanted(only, offers[RD_ORDER_REWRITE].kind))
        json_array_append_new(list, offer(a->l, doc, RD_ORDER_REWRITE, RD_ORDER_REWRITE, s));
    if (asked && is_wanted(only, offers[RD_ORDER_FILL].kind) && find_hole(doc, s, &hole, &what))
        json_array_append_new(list, offer(a->l, doc, RD_ORDER_FILL, RD_ORDER_FILL, hole));
    rd_buf_clear(&what);
    if (!is_wanted(only, offers[RD_ORDER_MEND].kind)) return;
    if (rd_flags_at(a->flags, doc, &flagged.start, &flagged.end)) {
        json_t *action = offer(a->l, doc, RD_ORDER_MEND, RD_ORDER_REWRITE, flagged);

        attach(action, json_object_get(context, "diagnostics"));
        json_array_append_new(list, action);
    } else if (asked && lines.end > lines.start &&
               lines.end - lines.start <= RD_MOST_ACTION_BYTES) {
        json_array_append_new(list, offer(a->l, doc, RD_ORDER_MEND, RD_ORDER_MEND, lines));
    }
}

rd_status rd_actions_list(rd_conn *c, const rd_message *m, rd_error *err)
{
    rd_lsp *l = c->lsp;
    json_t *list;
    rd_document *doc;
    rd_file_settings s;
    rd_status status = rd_lsp_document(l, m->params, &doc, &s, err);
    span at;

    if (status == RD_INVALID) return status;
    list = json_array();
    if (!status && (l->client.resolves_edit || l->client.apply_edit)) {
        status = read_range(l, doc, json_object_get(m->params, "range"), "range", &at, err);
        if (status) {
            json_decref(list);
            return status;
        }
        list_offers(l->actions, doc, at, json_object_get(m->params, "context"), list);
    }
    rd_rpc_answer(c->rpc, m->ticket, list);
    return RD_OK;
}

/* ---- resolve ---- */

static rd_status whole_number(const json_t *data, const char *name, json_int_t most,
                              json_int_t *out, rd_error *err)
{
    const json_t *value = json_object_get(data, name);

    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        json_integer_value(value) > most)
        return rd_fail(err, RD_INVALID, "data.%s is out of range", name);
    *out = json_integer_value(value);
    return RD_OK;
}

static rd_status read_kind(const json_t *data, rd_order_kind *out, rd_error *err)
{
    const char *name = json_string_value(json_object_get(data, "kind"));

    for (int i = 0; name && i < OFFERS; i++) {
        if (!offers[i].name || strcmp(offers[i].name, name) != 0) continue;
        *out = (rd_order_kind)i;
        return RD_OK;
    }
    return rd_fail(err, RD_INVALID, "data.kind is not one of ours");
}

/* Down to the beginning of a character, and out of the middle of a line end. */
static size_t at_character(const rd_text *t, size_t offset)
{
    return rd_text_offset(t, rd_text_position(t, offset, RD_UTF8), RD_UTF8);
}

/* The span of an action, where it is now. */
static rd_status read_span(const rd_document *doc, const json_t *data, span *out, rd_error *err)
{
    json_int_t revision = 0, start = 0, end = 0;

    if (whole_number(data, "revision", INT64_MAX, &revision, err) ||
        whole_number(data, "start", (json_int_t)RD_MOST_DOCUMENT_BYTES, &start, err) ||
        whole_number(data, "end", (json_int_t)RD_MOST_DOCUMENT_BYTES, &end, err))
        return RD_INVALID;
    if (end < start) return rd_fail(err, RD_INVALID, "data.end is before data.start");
    *out = (span){ (size_t)start, (size_t)end };
    if (rd_document_shift(doc, (uint64_t)revision, &out->start, &out->end))
        return rd_fail(err, RD_STALE, "the text changed since the action was offered");
    if (out->end > rd_text_bytes(rd_document_text(doc)))
        return rd_fail(err, RD_INVALID, "data.end is past the end of the text");
    out->start = at_character(rd_document_text(doc), out->start);
    out->end = at_character(rd_document_text(doc), out->end);
    return RD_OK;
}

/* The document of a value with a `uri`. `name`: the value's, for the sentence. */
static rd_status read_document(rd_lsp *l, const json_t *value, const char *name, rd_document **out,
                               rd_file_settings *s, rd_error *err)
{
    json_t *uri = json_object_get(value, "uri");
    json_t *params;

    if (!json_is_string(uri)) return rd_fail(err, RD_INVALID, "%s.uri is not a string", name);
    params = json_pack("{s:{s:O}}", "textDocument", "uri", uri);
    rd_status status = rd_lsp_document(l, params, out, s, err);

    json_decref(params);
    return status;
}

/* What a rewrite was asked to do, of a value with an `instruction`, borrowed. `name`: the value's, for the sentence. */
static rd_status read_instruction(rd_order *o, const json_t *value, const char *name, rd_error *err)
{
    const json_t *instruction = json_object_get(value, "instruction");

    if (o->kind != RD_ORDER_REWRITE || !instruction || json_is_null(instruction)) return RD_OK;
    if (!json_is_string(instruction) || json_string_length(instruction) > RD_MOST_INSTRUCTION_BYTES)
        return rd_fail(err, RD_INVALID, "%s.instruction is not a string of at most %zu bytes", name,
                       RD_MOST_INSTRUCTION_BYTES);
    o->instruction = json_string_value(instruction);
    o->instruction_n = json_string_length(instruction);
    o->instructed = o->instruction_n > 0;
    return RD_OK;
}

/* What an order has from its kind and place. The comment of a hole is what a model that follows instructions is told. */
static rd_status start_work(rd_actions *a, rd_order *o, span s, const rd_file_settings *settings,
                            rd_error *err)
{
    rd_buf what = { 0 };
    span hole;

    o->start = s.start;
    o->end = s.end;
    o->quality = (float)settings->quality;
    if (o->kind == RD_ORDER_FILL && find_hole(o->doc, s, &hole, &what) && hole.start == s.start &&
        hole.end == s.end && what.len > 0) {
        o->instruction = what.data;
        o->instruction_n = what.len;
    }
    rd_status status = rd_orders_start(a->orders, o, err);

    rd_buf_clear(&what);
    return status;
}

rd_status rd_actions_resolve(rd_conn *c, const rd_message *m, rd_error *err)
{
    const json_t *data = json_object_get(m->params, "data");
    rd_order o = { .ticket = m->ticket,
                   .action = m->params,
                   .token = json_object_get(m->params, "workDoneToken") };
    rd_file_settings s;
    span at;

    if (!json_is_object(data)) return rd_fail(err, RD_INVALID, "data is not an object");
    if (read_kind(data, &o.kind, err)) return RD_INVALID;
    rd_status status = read_document(c->lsp, data, "data", &o.doc, &s, err);

    if (!status) status = read_span(o.doc, data, &at, err);
    if (!status) status = read_instruction(&o, data, "data", err);
    return status ? status : start_work(c->lsp->actions, &o, at, &s, err);
}

/* ---- commands ---- */

static rd_status read_command(const json_t *params, rd_order_kind *out, const json_t **argument,
                              rd_error *err)
{
    const char *name = json_string_value(json_object_get(params, "command"));
    int i = 0;

    while (name && i < OFFERS && strcmp(offers[i].command, name) != 0) i++;
    if (!name || i == OFFERS) return rd_fail(err, RD_INVALID, "command is not one of ours");
    *out = (rd_order_kind)i;
    *argument = json_array_get(json_object_get(params, "arguments"), 0);
    if (!json_is_object(*argument))
        return rd_fail(err, RD_INVALID, "arguments[0] is not an object");
    return RD_OK;
}

/* `range`, for some commands `position` or nothing instead. */
static rd_status read_place(const rd_lsp *l, const rd_order *o, const json_t *argument, span *out,
                            rd_error *err)
{
    const json_t *range = json_object_get(argument, "range"),
                 *position = json_object_get(argument, "position");
    const rd_text *t = rd_document_text(o->doc);
    rd_position p;

    if (o->kind == RD_ORDER_FLAG && !range) {
        size_t bytes = rd_text_bytes(t);

        *out = (span){ 0, bytes };
        if (bytes > RD_MOST_ACTION_BYTES) out->end = at_character(t, RD_MOST_ACTION_BYTES);
        return RD_OK;
    }
    if (o->kind == RD_ORDER_FILL && !range && position) {
        if (rd_sync_position(position, "arguments[0].position", &p, err)) return RD_INVALID;
        out->start = out->end = rd_text_offset(t, p, l->encoding);
        return RD_OK;
    }
    return read_range(l, o->doc, range, "arguments[0].range", out, err);
}

static rd_status check_version(const rd_order *o, const json_t *argument, rd_error *err)
{
    const json_t *value = json_object_get(argument, "version");

    if (!value || json_is_null(value)) return RD_OK;
    if (!json_is_integer(value))
        return rd_fail(err, RD_INVALID, "arguments[0].version is not an integer");
    if (json_integer_value(value) != rd_document_version(o->doc))
        return rd_fail(err, RD_STALE, "the text is not that of version %lld any more",
                       (long long)json_integer_value(value));
    return RD_OK;
}

static rd_status read_order(rd_lsp *l, const json_t *argument, rd_order *o, span *at,
                            rd_file_settings *s, rd_error *err)
{
    rd_status status = read_document(l, argument, "arguments[0]", &o->doc, s, err);

    if (!status) status = read_place(l, o, argument, at, err);
    if (!status) status = read_instruction(o, argument, "arguments[0]", err);
    return status ? status : check_version(o, argument, err);
}

/* Why a command that was answered does nothing; NULL when it goes on with *at. */
static const char *why_nothing(rd_lsp *l, const rd_order *o, span *at)
{
    const rd_text *t = rd_document_text(o->doc);
    rd_buf what = { 0 };
    span hole;

    if (o->kind != RD_ORDER_FLAG && !l->client.apply_edit)
        return "This editor does not take edits from a server (workspace/applyEdit).";
    if (o->kind == RD_ORDER_REWRITE && at->start == at->end) return "Nothing is selected.";
    if (o->kind == RD_ORDER_MEND) *at = lines_of(t, *at);
    if (o->kind != RD_ORDER_FILL) return NULL;
    bool found = find_hole(o->doc, *at, &hole, &what);

    rd_buf_clear(&what);
    if (found) *at = hole;
    return found ? NULL : "There is no hole here: a TODO, `pass`, `...` or an empty body.";
}

rd_status rd_actions_command(rd_conn *c, const rd_message *m, rd_error *err)
{
    rd_lsp *l = c->lsp;
    rd_order o = { .token = json_object_get(m->params, "workDoneToken") };
    const json_t *argument = NULL;
    rd_file_settings s;
    span at;

    if (read_command(m->params, &o.kind, &argument, err)) return RD_INVALID;
    if (o.kind == RD_ORDER_FLAG && json_is_true(json_object_get(argument, "off"))) {
        const char *uri = json_string_value(json_object_get(argument, "uri"));

        if (!uri) return rd_fail(err, RD_INVALID, "arguments[0].uri is not a string");
        rd_rpc_answer(c->rpc, m->ticket, NULL);
        rd_flags_drop(l->actions->flags, uri);
        return RD_OK;
    }
    rd_status status = read_order(l, argument, &o, &at, &s, err);

    if (status) return status;
    rd_rpc_answer(c->rpc, m->ticket, NULL);
    const char *why = why_nothing(l, &o, &at);

    if (!why && start_work(l->actions, &o, at, &s, err)) why = err->text;
    if (why) rd_lsp_show(l, 3, why);
    return RD_OK;
}

/* ---- what comes from outside ---- */

bool rd_actions_event(rd_actions *a, const rd_event *ev)
{
    return rd_orders_event(a->orders, ev);
}

bool rd_actions_cancelled(rd_actions *a, uint64_t ticket)
{
    return rd_orders_cancelled(a->orders, ticket);
}

bool rd_actions_replied(rd_actions *a, int64_t ask, const json_t *result, const json_t *error)
{
    return rd_orders_replied(a->orders, ask, result, error);
}

void rd_actions_progress_cancel(rd_actions *a, const json_t *params)
{
    rd_orders_token_cancelled(a->orders, json_object_get(params, "token"));
}

void rd_actions_changed(rd_actions *a, const rd_document *doc)
{
    const rd_host *host = a->l->conn->o.host;

    rd_flags_changed(a->flags, doc);
    rd_orders_changed(a->orders, doc);
    if (!a->l->settings.diagnostics) return;
    free(a->due_uri);
    a->due_uri = rd_copy_text(rd_document_uri(doc), strlen(rd_document_uri(doc)));
    a->due = host->now_ms(host->self) + IDLE_MS;
}

void rd_actions_closed(rd_actions *a, const char *uri)
{
    rd_flags_drop(a->flags, uri);
    rd_orders_closed(a->orders, uri);
    if (a->due_uri && !strcmp(a->due_uri, uri)) a->due = 0;
}

double rd_actions_due(const rd_actions *a)
{
    return a->due;
}

/* Nobody asked, so a model that is not loaded stays so, and a document that is too long for one go is left alone. */
void rd_actions_tick(rd_actions *a, double now)
{
    const rd_host *host = a->l->conn->o.host;
    rd_order o = { .kind = RD_ORDER_FLAG, .idle = true };
    rd_model_state model;
    rd_error err;

    if (a->due == 0 || now < a->due) return;
    a->due = 0;
    if (!a->l->settings.diagnostics) return;
    o.doc = rd_documents_find(a->l->documents, a->due_uri);
    host->model(host->self, &model);
    if (!o.doc || model.phase != RD_MODEL_READY || rd_lsp_why_not(a->l, o.doc)) return;
    o.end = rd_text_bytes(rd_document_text(o.doc));
    if (o.end > 0) rd_orders_start(a->orders, &o, &err);
}
