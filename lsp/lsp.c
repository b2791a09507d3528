/* lsp.c - an editor's connection: the lifecycle beyond rpc.h, what the client can do, settings and status.
 *
 * The handlers here are short; suggest.c and actions.c do what takes a model.
 */
#include "lsp/suggest.h"

#include "core/base/log.h"
#include "core/base/memory.h"
#include "lsp/repair.h"
#include "lsp/sync.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MOST_FOLDERS = 32,
    HEAD_BYTES = 4096,
    PROGRESS_AFTER_MS = 500,
    LOOK_AGAIN_MS = 2000,
    MOST_LOOKED = 64
};

/* ---- what the modules share ---- */

static double now_of(const rd_lsp *l)
{
    return l->conn->o.host->now_ms(l->conn->o.host->self);
}

static void model_of(const rd_lsp *l, rd_model_state *out)
{
    l->conn->o.host->model(l->conn->o.host->self, out);
}

static void say(rd_lsp *l, const char *method, int type, const char *text)
{
    json_t *params = json_object();

    json_object_set_new(params, "type", json_integer(type));
    json_object_set_new(params, "message", rd_repair_string(text, strlen(text)));
    rd_rpc_notify(l->conn->rpc, method, params);
}

void rd_lsp_log(rd_lsp *l, int type, const char *text)
{
    say(l, "window/logMessage", type, text);
}

void rd_lsp_show(rd_lsp *l, int type, const char *text)
{
    say(l, "window/showMessage", type, text);
}

static json_t *position_json(rd_position p)
{
    return json_pack("{s:I, s:I}", "line", (json_int_t)p.line, "character",
                     (json_int_t)p.character);
}

json_t *rd_lsp_range(const rd_lsp *l, const rd_document *doc, size_t start, size_t end)
{
    const rd_text *t = rd_document_text(doc);

    return json_pack("{s:o, s:o}", "start", position_json(rd_text_position(t, start, l->encoding)),
                     "end", position_json(rd_text_position(t, end, l->encoding)));
}

const char *rd_lsp_why_not(rd_lsp *l, const rd_document *doc)
{
    static const char *const names[] = { "",
                                         "its name or beginning says that it holds secrets",
                                         "excluded by the user's settings",
                                         "excluded by the project's settings",
                                         "excluded by an ignore file",
                                         "it is too large",
                                         "it is not text",
                                         "its path cannot be judged" };
    const rd_text *t = rd_document_text(doc);
    const char *why;
    rd_buf head = { 0 };

    if (!t) return "its text is not known until it is opened again";
    if (!l->settings.enable) return "redraft is switched off";
    rd_text_copy(t, 0, rd_text_bytes(t) < HEAD_BYTES ? rd_text_bytes(t) : HEAD_BYTES, &head);
    rd_verdict v = rd_scope_excluded(l->scope, rd_document_uri(doc), rd_text_bytes(t),
                                     head.data ? head.data : "", head.len, &why);

    rd_buf_clear(&head);
    rd_conn_judged(l->conn, rd_scope_source(l->scope, rd_document_uri(doc)), v != RD_ALLOWED);
    if (v != RD_ALLOWED) return names[v];
    rd_file_settings s =
        rd_scope_settings(l->scope, rd_document_uri(doc), rd_document_language(doc));

    return s.enabled ? NULL : "redraft is switched off for this language or file";
}

/* All open documents are judged now and then, those too that nobody asks about: what is excluded meanwhile is forgotten. */
static void look_again(rd_lsp *l)
{
    double now = now_of(l);
    size_t n = rd_documents_count(l->documents);

    if (now - l->looked_ms < LOOK_AGAIN_MS) return;
    l->looked_ms = now;
    for (size_t i = 0; i < n && i < MOST_LOOKED; i++)
        rd_lsp_why_not(l, rd_documents_at(l->documents, i));
}

rd_status rd_lsp_document(rd_lsp *l, const json_t *params, rd_document **out, rd_file_settings *s,
                          rd_error *err)
{
    const char *uri, *why;

    if (rd_sync_uri(params, &uri, err)) return RD_INVALID;
    look_again(l);
    rd_document *doc = rd_documents_find(l->documents, uri);

    if (!doc) return rd_fail(err, RD_NOT_FOUND, "%s is not open", uri);
    why = rd_lsp_why_not(l, doc);
    if (why) return rd_fail(err, RD_NOT_FOUND, "%s: %s", uri, why);
    *s = rd_scope_settings(l->scope, uri, rd_document_language(doc));
    *out = doc;
    return RD_OK;
}

void rd_lsp_wake(rd_lsp *l)
{
    double due[] = { rd_suggest_due(l->suggest), rd_actions_due(l->actions), l->progress_due },
           at = 0;

    for (size_t i = 0; i < sizeof due / sizeof *due; i++)
        if (due[i] > 0 && (at == 0 || due[i] < at)) at = due[i];
    l->conn->o.host->wake_at(l->conn->o.host->self, l->conn, at);
}

/* ---- status ---- */

/* Once for each reason: the user wanted something else, or pays for a GPU. */
static void say_fell_back(rd_lsp *l, const rd_model_state *m)
{
    if (!*m->fell_back || !strcmp(l->fell_back, m->fell_back)) return;
    memcpy(l->fell_back, m->fell_back, sizeof l->fell_back);
    rd_lsp_show(l, 2, m->fell_back);
}

/* `$/redraft/status`, when it says something else than before. */
static void send_status(rd_lsp *l)
{
    rd_model_state m;
    const char *kind = "Normal";
    char message[sizeof l->status - 20], line[sizeof l->status];

    model_of(l, &m);
    snprintf(message, sizeof message, "%s", m.about);
    if (!l->settings.enable) {
        kind = "Inactive";
        snprintf(message, sizeof message, "switched off");
    } else if (m.phase == RD_MODEL_FAILED) {
        kind = "Error";
    } else if (m.phase == RD_MODEL_AWAY) {
        snprintf(message, sizeof message, "the model is not loaded; the next request loads it");
    } else if (m.phase == RD_MODEL_LOADING) {
        snprintf(message, sizeof message, "loading the model");
    } else if (*l->reason) {
        kind = l->trouble ? "Warning" : "Inactive";
        snprintf(message, sizeof message, "%s", l->reason);
    } else if (*m.fell_back) {
        kind = "Warning";
        snprintf(message, sizeof message, "%s (%s)", m.fell_back, m.about);
    }
    if (l->settings.enable) say_fell_back(l, &m);
    bool busy = m.phase == RD_MODEL_LOADING;

    snprintf(line, sizeof line, "%s%d%s", kind, busy, message);
    if (!strcmp(line, l->status)) return;
    json_t *params = json_pack("{s:s, s:b}", "kind", kind, "busy", busy);

    json_object_set_new(params, "message", rd_repair_string(message, strlen(message)));
    if (rd_rpc_notify(l->conn->rpc, "$/redraft/status", params))
        memcpy(l->status, line, sizeof line);
}

void rd_lsp_reason(rd_lsp *l, const char *why, bool trouble)
{
    if (!strcmp(l->reason, why)) return;
    snprintf(l->reason, sizeof l->reason, "%.*s", (int)sizeof l->reason - 1, why);
    l->trouble = trouble;
    send_status(l);
}

/* ---- the model's loading, shown when it takes long ---- */

static const char progress_token[] = "redraft/model";

static void progress(rd_lsp *l, json_t *value)
{
    rd_rpc_notify(l->conn->rpc, "$/progress",
                  json_pack("{s:s, s:o}", "token", progress_token, "value", value));
}

static void loading_goes_on(rd_lsp *l, double now)
{
    if (l->progress_due == 0 || now < l->progress_due) return;
    l->progress_due = 0;
    l->progress_ask = rd_rpc_ask(l->conn->rpc, "window/workDoneProgress/create",
                                 json_pack("{s:s}", "token", progress_token));
}

static void loading_is_over(rd_lsp *l)
{
    l->loading_since = l->progress_due = 0;
    if (l->progress) progress(l, json_pack("{s:s}", "kind", "end"));
    l->progress = false;
}

void rd_lsp_model_changed(rd_lsp *l)
{
    rd_model_state m;

    model_of(l, &m);
    if (m.phase != RD_MODEL_LOADING) {
        loading_is_over(l);
    } else if (l->loading_since == 0) {
        l->loading_since = now_of(l);
        if (l->client.work_done_progress) l->progress_due = l->loading_since + PROGRESS_AFTER_MS;
    }
    send_status(l);
    rd_lsp_wake(l);
}

/* ---- settings ---- */

static void complain(rd_lsp *l, rd_buf *lines)
{
    for (char *at = lines->data, *end; at && *at; at = end) {
        end = at + strcspn(at, "\n");
        if (*end) *end++ = 0;
        rd_lsp_show(l, 2, at);
    }
    rd_buf_clear(lines);
}

/* The user's settings and over them the client's, from the start: what it does not say any more does not hold. */
static void apply_settings(rd_lsp *l)
{
    const json_t *const over[] = { l->options, l->section };
    rd_buf complaints = { 0 };

    rd_scope_free(l->scope);
    rd_settings_clear(&l->settings);
    rd_settings_init(&l->settings, &l->conn->o.config->client);
    for (size_t i = 0; i < sizeof over / sizeof *over; i++)
        if (json_is_object(over[i]))
            rd_settings_merge(&l->settings, RD_FROM_CLIENT, over[i], l->told, &complaints);
    complain(l, &complaints);
    l->scope = rd_scope_new(&l->settings, (const char *const *)l->folders, l->n_folders);
    l->looked_ms = -LOOK_AGAIN_MS;
    look_again(l);
    send_status(l);
}

static void keep(json_t **place, const json_t *value)
{
    json_decref(*place);
    *place = json_deep_copy(value);
}

static void ask_configuration(rd_lsp *l)
{
    json_t *item = json_pack("{s:s}", "section", "redraft");
    rd_buf uri = { 0 };

    if (!l->client.configuration) {
        json_decref(item);
        return;
    }
    if (l->n_folders > 0) {
        rd_uri_of_path(l->folders[0], &uri);
        json_object_set_new(item, "scopeUri", rd_repair_string(uri.data, uri.len));
        rd_buf_clear(&uri);
    }
    l->configuration_ask =
        rd_rpc_ask(l->conn->rpc, "workspace/configuration", json_pack("{s:[o]}", "items", item));
}

void rd_lsp_replied(rd_lsp *l, int64_t ask, const json_t *result, const json_t *error)
{
    if (ask == l->configuration_ask) {
        l->configuration_ask = 0;
        if (error) return;
        keep(&l->section, json_array_get(result, 0));
        apply_settings(l);
    } else if (ask == l->progress_ask) {
        l->progress_ask = 0;
        if (error || l->loading_since == 0) return;
        l->progress = true;
        progress(l,
                 json_pack("{s:s, s:s}", "kind", "begin", "title", "redraft: loading the model"));
    } else {
        rd_actions_replied(l->actions, ask, result, error);
    }
    rd_lsp_wake(l);
}

static rd_status did_change_configuration(rd_conn *c, const rd_message *m, rd_error *err)
{
    const json_t *settings = json_object_get(m->params, "settings");
    const json_t *own = json_object_get(settings, "redraft");

    (void)err;
    if (json_is_object(own)) {
        keep(&c->lsp->section, own);
        apply_settings(c->lsp);
    }
    ask_configuration(c->lsp);
    return RD_OK;
}

/* ---- folders ---- */

static void add_folder(rd_lsp *l, const json_t *uri)
{
    char path[RD_MOST_PATH_BYTES];

    if (!json_is_string(uri) || l->n_folders == MOST_FOLDERS ||
        !rd_path_of_uri(json_string_value(uri), path, sizeof path))
        return;
    l->folders = rd_resize(l->folders, (size_t)l->n_folders + 1, sizeof *l->folders);
    l->folders[l->n_folders++] = rd_copy_text(path, strlen(path));
}

static void remove_folder(rd_lsp *l, const json_t *uri)
{
    char path[RD_MOST_PATH_BYTES];

    if (!json_is_string(uri) || !rd_path_of_uri(json_string_value(uri), path, sizeof path)) return;
    for (int i = 0; i < l->n_folders; i++) {
        if (strcmp(l->folders[i], path) != 0) continue;
        free(l->folders[i]);
        l->folders[i] = l->folders[--l->n_folders];
        return;
    }
}

static rd_status did_change_folders(rd_conn *c, const rd_message *m, rd_error *err)
{
    const json_t *event = json_object_get(m->params, "event"), *folder;
    size_t i;

    (void)err;
    json_array_foreach(json_object_get(event, "removed"), i, folder)
        remove_folder(c->lsp, json_object_get(folder, "uri"));
    json_array_foreach(json_object_get(event, "added"), i, folder)
        add_folder(c->lsp, json_object_get(folder, "uri"));
    apply_settings(c->lsp);
    return RD_OK;
}

/* ---- commands ---- */

static const struct {
    const char *name;
    rd_handler run;
} commands[] = {
    { "redraft.accepted", rd_suggest_accepted }, { "redraft.explainLast", rd_suggest_explain },
    { "redraft.fill", rd_actions_command },      { "redraft.fixDoubtful", rd_actions_command },
    { "redraft.rewrite", rd_actions_command },   { "redraft.showDoubtful", rd_actions_command },
};

enum { COMMANDS = sizeof commands / sizeof *commands };

static json_t *command_names(void)
{
    json_t *names = json_array();

    for (int i = 0; i < COMMANDS; i++) json_array_append_new(names, json_string(commands[i].name));
    return names;
}

/* ---- initialize ---- */

static bool has(const json_t *object, const char *path)
{
    char name[64];

    for (const char *at = path; *at; at += *at == '.') {
        size_t n = strcspn(at, ".");

        snprintf(name, sizeof name, "%.*s", (int)n, at);
        object = json_object_get(object, name);
        at += n;
    }
    return json_is_true(object);
}

static bool has_text(const json_t *array, const char *text)
{
    const json_t *one;
    size_t i;

    json_array_foreach(array, i, one) if (json_is_string(one) &&
                                          !strcmp(json_string_value(one), text)) return true;
    return false;
}

/* UTF-16 wherever it is offered: clients with two encodings on one buffer go wrong. */
static rd_encoding choose_encoding(const json_t *capabilities)
{
    const json_t *offered =
        json_object_get(json_object_get(capabilities, "general"), "positionEncodings");

    if (json_array_size(offered) == 0 || has_text(offered, "utf-16")) return RD_UTF16;
    if (has_text(offered, "utf-8")) return RD_UTF8;
    return has_text(offered, "utf-32") ? RD_UTF32 : RD_UTF16;
}

static void read_client(rd_lsp *l, const json_t *capabilities)
{
    const json_t *resolve = json_object_get(
        json_object_get(
            json_object_get(json_object_get(capabilities, "textDocument"), "codeAction"),
            "resolveSupport"),
        "properties");

    l->client = (rd_client){
        .work_done_progress = has(capabilities, "window.workDoneProgress"),
        .apply_edit = has(capabilities, "workspace.applyEdit"),
        .document_changes = has(capabilities, "workspace.workspaceEdit.documentChanges"),
        .configuration = has(capabilities, "workspace.configuration"),
        .watches_configuration =
            has(capabilities, "workspace.didChangeConfiguration.dynamicRegistration"),
        .resolves_edit = has_text(resolve, "edit"),
        .disabled_actions = has(capabilities, "textDocument.codeAction.disabledSupport"),
    };
    l->encoding = choose_encoding(capabilities);
    rd_rpc_set_encoding(l->conn->rpc, l->encoding);
}

static void read_folders(rd_lsp *l, const json_t *params)
{
    const json_t *folders = json_object_get(params, "workspaceFolders"), *folder;
    size_t i;

    json_array_foreach(folders, i, folder) add_folder(l, json_object_get(folder, "uri"));
    if (l->n_folders == 0) add_folder(l, json_object_get(params, "rootUri"));
}

static json_t *capabilities_of(const rd_lsp *l)
{
    static const char *const encodings[] = {
        [RD_UTF16] = "utf-16", [RD_UTF8] = "utf-8", [RD_UTF32] = "utf-32"
    };
    json_t *c =
        json_pack("{s:s, s:{s:b, s:i, s:{s:b}}, s:{}, s:{s:[s,s], s:b}, s:{s:o}, s:{s:{s:b, s:b}}}",
                  "positionEncoding", encodings[l->encoding], "textDocumentSync", "openClose", 1,
                  "change", 2, "save", "includeText", 0, "inlineCompletionProvider",
                  "codeActionProvider", "codeActionKinds", "refactor.rewrite", "quickfix",
                  "resolveProvider", 1, "executeCommandProvider", "commands", command_names(),
                  "workspace", "workspaceFolders", "supported", 1, "changeNotifications", 1);

    if (l->settings.completion)
        json_object_set_new(c, "completionProvider", json_pack("{s:b}", "resolveProvider", 0));
    return c;
}

static rd_status initialize(rd_conn *c, const rd_message *m, rd_error *err)
{
    rd_lsp *l = c->lsp;
    const json_t *pid = json_object_get(m->params, "processId");

    (void)err;
    if (json_is_integer(pid) && json_integer_value(pid) > 1 &&
        json_integer_value(pid) < (json_int_t)1 << 31)
        c->client_pid = (long)json_integer_value(pid);
    read_client(l, json_object_get(m->params, "capabilities"));
    read_folders(l, m->params);
    keep(&l->options, json_object_get(m->params, "initializationOptions"));
    apply_settings(l);
    rd_rpc_answer(c->rpc, m->ticket,
                  json_pack("{s:o, s:{s:s, s:s}}", "capabilities", capabilities_of(l), "serverInfo",
                            "name", "redraft", "version", RD_VERSION));
    return RD_OK;
}

static rd_status initialized(rd_conn *c, const rd_message *m, rd_error *err)
{
    rd_lsp *l = c->lsp;

    (void)m;
    (void)err;
    if (l->client.watches_configuration)
        rd_rpc_ask(c->rpc, "client/registerCapability",
                   json_pack("{s:[{s:s, s:s, s:{s:s}}]}", "registrations", "id", "configuration",
                             "method", "workspace/didChangeConfiguration", "registerOptions",
                             "section", "redraft"));
    ask_configuration(l);
    send_status(l);
    return RD_OK;
}

/* ---- documents ---- */

static void synced(rd_lsp *l, const rd_message *m, rd_sync outcome, const rd_error *err)
{
    static const char *const words[] = { [RD_SYNC_DONE] = NULL,
                                         [RD_SYNC_VERSION_BACK] = "the version did not grow",
                                         [RD_SYNC_NOT_OPEN] = "dropped: not open",
                                         [RD_SYNC_UNKNOWN] = "dropped: unknown until opened again",
                                         [RD_SYNC_LOST] = "could not be read" };

    if (!words[outcome]) return;
    rd_log(RD_LOG_WARN, "%s: %s", m->method, outcome == RD_SYNC_LOST ? err->text : words[outcome]);
    if (outcome == RD_SYNC_LOST) rd_lsp_log(l, 2, err->text);
}

static rd_document *document_named(rd_lsp *l, const rd_message *m)
{
    const char *uri;

    return rd_sync_uri(m->params, &uri, NULL) ? NULL : rd_documents_find(l->documents, uri);
}

static rd_status did_open(rd_conn *c, const rd_message *m, rd_error *err)
{
    rd_error why = { 0 };

    (void)err;
    synced(c->lsp, m, rd_sync_open(c->lsp->documents, m->params, &why), &why);
    rd_document *doc = document_named(c->lsp, m);

    if (!doc) return RD_OK;
    rd_suggest_opened(c->lsp->suggest, doc);
    rd_actions_changed(c->lsp->actions, doc);
    rd_lsp_wake(c->lsp);
    return RD_OK;
}

static rd_status did_change(rd_conn *c, const rd_message *m, rd_error *err)
{
    rd_error why = { 0 };

    (void)err;
    synced(c->lsp, m, rd_sync_change(c->lsp->documents, m->params, c->lsp->encoding, &why), &why);
    rd_document *doc = document_named(c->lsp, m);

    if (!doc) return RD_OK;
    rd_suggest_changed(c->lsp->suggest, doc);
    rd_actions_changed(c->lsp->actions, doc);
    rd_lsp_wake(c->lsp);
    return RD_OK;
}

static rd_status did_close(rd_conn *c, const rd_message *m, rd_error *err)
{
    rd_document *doc = document_named(c->lsp, m);
    rd_error why = { 0 };

    (void)err;
    if (doc) {
        rd_suggest_closed(c->lsp->suggest, rd_document_uri(doc));
        rd_actions_closed(c->lsp->actions, rd_document_uri(doc));
    }
    synced(c->lsp, m, rd_sync_close(c->lsp->documents, m->params, &why), &why);
    rd_lsp_wake(c->lsp);
    return RD_OK;
}

void rd_lsp_lost(rd_lsp *l, const char *why)
{
    char text[320];

    rd_documents_forget(l->documents);
    snprintf(text, sizeof text,
             "a message was lost (%s): open documents are ignored until they are opened again",
             why);
    rd_lsp_log(l, 1, text);
    rd_log(RD_LOG_WARN, "%s", text);
}

/* ---- the rest ---- */

static rd_status execute_command(rd_conn *c, const rd_message *m, rd_error *err)
{
    const json_t *name = json_object_get(m->params, "command");

    if (!json_is_string(name)) return rd_fail(err, RD_INVALID, "command is not a string");
    for (int i = 0; i < COMMANDS; i++) {
        if (strcmp(commands[i].name, json_string_value(name)) != 0) continue;
        rd_status s = commands[i].run(c, m, err);

        rd_lsp_wake(c->lsp);
        return s;
    }
    return rd_fail(err, RD_INVALID, "command %s is not known", json_string_value(name));
}

static rd_status progress_cancel(rd_conn *c, const rd_message *m, rd_error *err)
{
    (void)err;
    rd_actions_progress_cancel(c->lsp->actions, m->params);
    return RD_OK;
}

static rd_status nothing(rd_conn *c, const rd_message *m, rd_error *err)
{
    (void)c;
    (void)m;
    (void)err;
    return RD_OK;
}

/* A handler after which other things may be due. */
static rd_status and_wake(rd_handler run, rd_conn *c, const rd_message *m, rd_error *err)
{
    rd_status s = run(c, m, err);

    rd_lsp_wake(c->lsp);
    return s;
}

static rd_status inline_completion(rd_conn *c, const rd_message *m, rd_error *err)
{
    return and_wake(rd_suggest_inline, c, m, err);
}

static rd_status completion(rd_conn *c, const rd_message *m, rd_error *err)
{
    return and_wake(rd_suggest_completion, c, m, err);
}

static rd_status code_action(rd_conn *c, const rd_message *m, rd_error *err)
{
    return and_wake(rd_actions_list, c, m, err);
}

static rd_status resolve(rd_conn *c, const rd_message *m, rd_error *err)
{
    return and_wake(rd_actions_resolve, c, m, err);
}

#define REQUEST RD_MESSAGE_REQUEST
#define NOTICE  RD_MESSAGE_NOTIFICATION

const rd_method rd_lsp_methods[] = {
    { "initialize", REQUEST, initialize },
    { "initialized", NOTICE, initialized },
    { "textDocument/didOpen", NOTICE, did_open },
    { "textDocument/didChange", NOTICE, did_change },
    { "textDocument/didClose", NOTICE, did_close },
    { "textDocument/didSave", NOTICE, nothing },
    { "textDocument/inlineCompletion", REQUEST, inline_completion },
    { "textDocument/completion", REQUEST, completion },
    { "textDocument/codeAction", REQUEST, code_action },
    { "codeAction/resolve", REQUEST, resolve },
    { "workspace/executeCommand", REQUEST, execute_command },
    { "workspace/didChangeConfiguration", NOTICE, did_change_configuration },
    { "workspace/didChangeWorkspaceFolders", NOTICE, did_change_folders },
    { "window/workDoneProgress/cancel", NOTICE, progress_cancel },
    { "$/setTrace", NOTICE, nothing },
};
const size_t rd_lsp_method_count = sizeof rd_lsp_methods / sizeof *rd_lsp_methods;

/* ---- the owner's calls ---- */

rd_lsp *rd_lsp_new(rd_conn *c)
{
    rd_lsp *l = rd_alloc0(sizeof *l);

    l->conn = c;
    l->documents = rd_documents_new();
    l->told = json_object();
    rd_settings_init(&l->settings, &c->o.config->client);
    l->scope = rd_scope_new(&l->settings, NULL, 0);
    l->suggest = rd_suggest_new(l);
    l->actions = rd_actions_new(l);
    return l;
}

void rd_lsp_free(rd_lsp *l)
{
    rd_suggest_free(l->suggest);
    rd_actions_free(l->actions);
    rd_scope_free(l->scope);
    rd_settings_clear(&l->settings);
    rd_documents_free(l->documents);
    json_decref(l->told);
    json_decref(l->options);
    json_decref(l->section);
    for (int i = 0; i < l->n_folders; i++) free(l->folders[i]);
    free(l->folders);
    free(l);
}

void rd_lsp_event(rd_lsp *l, const rd_event *ev)
{
    if (!rd_suggest_event(l->suggest, ev)) rd_actions_event(l->actions, ev);
    rd_lsp_wake(l);
}

void rd_lsp_tick(rd_lsp *l)
{
    double now = now_of(l);

    loading_goes_on(l, now);
    rd_suggest_tick(l->suggest, now);
    rd_actions_tick(l->actions, now);
    rd_lsp_wake(l);
}

void rd_lsp_cancelled(rd_lsp *l, uint64_t ticket)
{
    if (!rd_suggest_cancelled(l->suggest, ticket)) rd_actions_cancelled(l->actions, ticket);
}
