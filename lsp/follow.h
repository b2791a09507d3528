/* follow.h - what a front knows of its client's session, so that a new daemon can go on where a dead one stopped.
 *
 * Frames go in from both sides and framed messages come out for both; there is no I/O. It remembers how the session was
 * set up, the open documents and the open requests. When the daemon is lost it answers what was open, and puts the next one
 * into the state that the client believes in. A request that was open at two deaths is not sent a third time. It is the
 * part that cannot die: no model, no plugin, no file. One thread.
 */
#ifndef RD_LSP_FOLLOW_H
#define RD_LSP_FOLLOW_H

#include "core/base/buf.h"
#include "lsp/rpc.h"

typedef struct rd_follow rd_follow;

rd_follow *rd_follow_new(rd_protocol protocol);
void rd_follow_free(rd_follow *f);
/* What is to be sent; whoever sent it takes it from the front or resets the buffer. */
rd_buf *rd_follow_to_client(rd_follow *f);
rd_buf *rd_follow_to_daemon(rd_follow *f);

/* One frame of the client's, or of the daemon's. */
void rd_follow_client(rd_follow *f, const char *frame, size_t n);
void rd_follow_daemon(rd_follow *f, const char *frame, size_t n);
/* A message of the client's was over the wire's limit and left out. */
void rd_follow_lost(rd_follow *f, const char *why);

/* A daemon is there from now on. */
void rd_follow_connected(rd_follow *f);
/* It is gone. */
void rd_follow_broken(rd_follow *f);
/* None can be had: what waits for one is answered with the reason. */
void rd_follow_refused(rd_follow *f, const char *why);
/* Whether one is to be looked for now. */
bool rd_follow_wants_daemon(const rd_follow *f);

/* The client said `exit`. */
bool rd_follow_is_over(const rd_follow *f);
/* The status to leave with when the client is gone. */
int rd_follow_code(const rd_follow *f);
/* The editor's process as `initialize` named it; 0: none. */
long rd_follow_client_pid(const rd_follow *f);

#endif
