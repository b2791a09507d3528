/* rpc.h - one peer's JSON-RPC: what may be said when, who handles it, and that each request is answered once.
 *
 * Frames go in, framed messages are appended to a buffer; there is no I/O. A request is named by a ticket, a number that
 * the connection never uses twice, so that a late answer cannot reach a later request with the same id.
 * Loop thread only.
 */
#ifndef RD_LSP_RPC_H
#define RD_LSP_RPC_H

#include "lsp/message.h"
#include "lsp/wire.h"

typedef enum rd_protocol { RD_LSP, RD_MCP } rd_protocol;

typedef struct rd_conn rd_conn; /* whose methods these are; rpc only hands it on */
typedef struct rd_rpc rd_rpc;

/* A request's handler answers by its ticket, now or later; where it fails, the status is answered. Params are an object
 * or NULL and are valid during the call. */
typedef rd_status (*rd_handler)(rd_conn *c, const rd_message *m, rd_error *err);

typedef struct rd_method {
    const char *name;
    rd_message_kind kind; /* RD_MESSAGE_REQUEST or RD_MESSAGE_NOTIFICATION */
    rd_handler run;
} rd_method;

/* What rpc tells its owner. Any may be NULL. */
typedef struct rd_rpc_hooks {
    void (*cancelled)(rd_conn *c, uint64_t ticket); /* stop the work; it has been answered */
    void (*lost)(rd_conn *c,
                 const char *why); /* a message was dropped that may have been a change */
    void (*replied)(rd_conn *c, int64_t ask, const json_t *result, const json_t *error);
} rd_rpc_hooks;

/* Borrows the table (any order) and `out`, where what is to be sent is appended. */
rd_rpc *rd_rpc_new(rd_protocol protocol, const rd_method *methods, size_t n,
                   const rd_rpc_hooks *hooks, rd_conn *c, rd_framing framing, rd_buf *out);
void rd_rpc_free(rd_rpc *r); /* answers nothing and calls no hook */
/* What positions of this peer count; RD_UTF16 until set. */
void rd_rpc_set_encoding(rd_rpc *r, rd_encoding encoding);

/* One frame, whatever it holds. */
void rd_rpc_frame(rd_rpc *r, const char *bytes, size_t n);
/* A message was over the wire's limit and left out: it is answered like one that does not parse. */
void rd_rpc_lost_frame(rd_rpc *r, const char *why);
/* The peer is gone: every open request is cancelled, unanswered. */
void rd_rpc_hang_up(rd_rpc *r);
/* `exit` came or the peer is gone: nothing more is taken or sent. *code is the status to leave with. */
bool rd_rpc_is_over(const rd_rpc *r, int *code);

/* Answer an open request; false, and nothing is sent, when it is not open any more. Takes `result` and `data`. */
bool rd_rpc_answer(rd_rpc *r, uint64_t ticket, json_t *result);
bool rd_rpc_fail(rd_rpc *r, uint64_t ticket, int code, const char *text, json_t *data);
bool rd_rpc_is_open(const rd_rpc *r, uint64_t ticket);
size_t rd_rpc_open_requests(const rd_rpc *r);

/* Send a notification; false where the protocol does not allow this one yet. Takes `params`. */
bool rd_rpc_notify(rd_rpc *r, const char *method, json_t *params);
/* Send a request; the answer comes by `replied` with the number returned. 0, and nothing is sent, before
 * `initialized`, in MCP, or with too many of them unanswered. Takes `params`. */
int64_t rd_rpc_ask(rd_rpc *r, const char *method, json_t *params);

/* The code that stands for a status. */
int rd_rpc_code(rd_status status);

#endif
