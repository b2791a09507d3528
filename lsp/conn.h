/* conn.h - one peer: bytes in, bytes out, its documents and requests in between. No I/O.
 *
 * LSP or MCP, as its owner says. What one peer sends never touches another's documents, ids, settings or jobs. Loop thread.
 */
#ifndef RD_LSP_CONN_H
#define RD_LSP_CONN_H

#include "core/base/buf.h"
#include "lsp/host.h"
#include "lsp/rpc.h"
#include "lsp/settings.h"

typedef struct rd_conn_options {
    const rd_host *host; /* borrowed, as all in here */
    uint64_t number;     /* never used twice in this process */
    rd_protocol protocol;
    const rd_config *config;  /* the user's settings */
    const char *const *roots; /* MCP: folders below which paths may be named; may be NULL */
    int n_roots;
} rd_conn_options;

rd_conn *rd_conn_new(const rd_conn_options *o);
/* Cancels its jobs: they come back to the host and are the host's to free. */
void rd_conn_free(rd_conn *c);
uint64_t rd_conn_number(const rd_conn *c);

void rd_conn_read(rd_conn *c, const char *bytes, size_t n);
void rd_conn_end(rd_conn *c); /* the peer's stream ended */
/* What is to be sent; whoever sent it takes it from the front or resets the buffer. */
rd_buf *rd_conn_output(rd_conn *c);
/* An event of one of its jobs; does not take it. With `done` the job is freed by the caller afterwards. */
void rd_conn_event(rd_conn *c, const rd_event *ev);
void rd_conn_tick(rd_conn *c);          /* the time that wake_at named has come */
void rd_conn_model_changed(rd_conn *c); /* host->model says something new */
/* Nothing more is taken or sent once the output is flushed. *code: the status to leave with. */
bool rd_conn_is_over(const rd_conn *c, int *code);
long rd_conn_client_pid(const rd_conn *c); /* that the peer asked us to watch; 0: none */

#endif
