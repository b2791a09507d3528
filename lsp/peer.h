/* peer.h - the inside of a connection, for the modules that handle its methods and for nobody else.
 *
 * conn.c moves bytes and hands what comes to one of two sets of handlers; each keeps its own state behind a pointer here.
 */
#ifndef RD_LSP_PEER_H
#define RD_LSP_PEER_H

#include "lsp/conn.h"
#include "lsp/document.h"

typedef struct rd_lsp rd_lsp;         /* lsp.c: what an editor's connection knows */
typedef struct rd_mcp rd_mcp;         /* mcp.c: what an agent's connection knows */
typedef struct rd_suggest rd_suggest; /* suggest.c */
typedef struct rd_actions rd_actions; /* actions.c */

struct rd_conn {
    rd_conn_options o;
    rd_wire *wire;
    rd_rpc *rpc;
    rd_buf out;
    uint64_t last_job;
    long client_pid;
    uint64_t realm;    /* of its jobs */
    json_t *forgotten; /* excluded files that the host was told of */
    bool ended;        /* the stream ended or broke */
    rd_lsp *lsp;       /* one of the two */
    rd_mcp *mcp;
};

/* A job with a fresh id, to be filled and submitted. */
rd_job *rd_conn_job(rd_conn *c, rd_lane lane, rd_job_kind kind);

/* A file that may not be read: what was made for it, when it might, is not kept. Said once until it may be read again. */
void rd_conn_judged(rd_conn *c, const char *source, bool excluded);

/* ---- one set of handlers for each protocol ---- */

extern const rd_method rd_lsp_methods[], rd_mcp_methods[];
extern const size_t rd_lsp_method_count, rd_mcp_method_count;

rd_lsp *rd_lsp_new(rd_conn *c);
void rd_lsp_free(rd_lsp *l); /* its jobs are cancelled, not waited for */
void rd_lsp_event(rd_lsp *l, const rd_event *ev);
void rd_lsp_tick(rd_lsp *l);
void rd_lsp_model_changed(rd_lsp *l);
void rd_lsp_cancelled(rd_lsp *l, uint64_t ticket); /* the hooks of rpc.h */
void rd_lsp_lost(rd_lsp *l, const char *why);
void rd_lsp_replied(rd_lsp *l, int64_t ask, const json_t *result, const json_t *error);

rd_mcp *rd_mcp_new(rd_conn *c);
void rd_mcp_free(rd_mcp *m);
void rd_mcp_event(rd_mcp *m, const rd_event *ev);
void rd_mcp_tick(rd_mcp *m);
void rd_mcp_cancelled(rd_mcp *m, uint64_t ticket);

/* ---- what the LSP modules share ---- */

typedef struct rd_client {
    bool work_done_progress, apply_edit, document_changes, configuration, watches_configuration;
    bool resolves_edit, disabled_actions;
} rd_client;

struct rd_lsp {
    rd_conn *conn;
    rd_client client;
    rd_encoding encoding;
    rd_documents *documents;
    rd_settings settings; /* of this client, over the user's */
    rd_scope *scope;
    json_t *told; /* complaints that were said once */
    json_t *options,
        *section; /* what the client set: initializationOptions, then its configuration */
    char **folders;
    int n_folders;
    rd_suggest *suggest;
    rd_actions *actions;
    int64_t configuration_ask; /* workspace/configuration in flight; 0: none */
    double looked_ms;          /* when all documents were judged last */
    char status[640];          /* as it was sent last */
    char fell_back[256];       /* rd_model_state; as it was said last */
    char reason[200]; /* why nothing is done for the document last asked about; "": something is */
    bool trouble;     /* and that is a fault, not a rule */
    double loading_since, progress_due; /* of the model's loading; 0: none */
    int64_t progress_ask;               /* window/workDoneProgress/create for it */
    bool progress;                      /* it is shown */
};

/* The open, known and not excluded document that the params name, and its settings; otherwise fails with RD_INVALID for wrong
 * params and RD_NOT_FOUND with a sentence that says why it may not be asked about. */
rd_status rd_lsp_document(rd_lsp *l, const json_t *params, rd_document **out, rd_file_settings *s,
                          rd_error *err);
/* Why nothing is done for this document, for people; NULL when something may be. Borrowed until the next call. */
const char *rd_lsp_why_not(rd_lsp *l, const rd_document *doc);
/* Something is due at another time than before: the connection's timer is set anew. */
void rd_lsp_wake(rd_lsp *l);
json_t *rd_lsp_range(const rd_lsp *l, const rd_document *doc, size_t start, size_t end);
/* Why nothing is done for the document last asked about ("": something is), for the status. `trouble`: it is a fault. */
void rd_lsp_reason(rd_lsp *l, const char *why, bool trouble);
void rd_lsp_log(rd_lsp *l, int type, const char *text);  /* window/logMessage: 1 error .. 4 log */
void rd_lsp_show(rd_lsp *l, int type, const char *text); /* window/showMessage */

/* ---- code actions and commands (actions.c) ---- */

rd_actions *rd_actions_new(rd_lsp *l);
void rd_actions_free(rd_actions *a);
/* Handlers: textDocument/codeAction, codeAction/resolve, and workspace/executeCommand for all commands but those of suggest. */
rd_status rd_actions_list(rd_conn *c, const rd_message *m, rd_error *err);
rd_status rd_actions_resolve(rd_conn *c, const rd_message *m, rd_error *err);
rd_status rd_actions_command(rd_conn *c, const rd_message *m, rd_error *err);
/* True when the job, ticket or question was theirs. */
bool rd_actions_event(rd_actions *a, const rd_event *ev);
bool rd_actions_cancelled(rd_actions *a, uint64_t ticket);
bool rd_actions_replied(rd_actions *a, int64_t ask, const json_t *result, const json_t *error);
void rd_actions_changed(rd_actions *a, const rd_document *doc); /* opened, or its text changed */
void rd_actions_closed(rd_actions *a, const char *uri);
void rd_actions_progress_cancel(rd_actions *a,
                                const json_t *params); /* window/workDoneProgress/cancel */
void rd_actions_tick(rd_actions *a, double now);
double rd_actions_due(const rd_actions *a); /* when to tick; 0: nothing is due */

#endif
