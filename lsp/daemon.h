/* daemon.h - the loop thread: connections, the inference thread, idle times, signals. The only code that knows libuv.
 *
 * It fills host.h for its connections and carries bytes between them and their sockets. A peer that does not read is no
 * longer read from, and in the end closed, so that it costs a bounded amount of memory.
 */
#ifndef RD_LSP_DAEMON_H
#define RD_LSP_DAEMON_H

#include "core/runner.h"
#include "lsp/rpc.h"
#include "lsp/settings.h"

typedef struct rd_daemon_options {
    const rd_runner *runner; /* borrowed, as all in here */
    const rd_config *config;
    const char *build, *socket;   /* for hello and status; NULL: none */
    int listener;                 /* a listening socket, taken; -1: none */
    void (*stopping)(void *user); /* no connection is taken any more; may be NULL */
    void *user;
    /* With `peer` from 0 on: one connection, without hello, and the end with it. Taken. */
    int peer;
    rd_protocol protocol;
    const char *const *roots;
    int n_roots;
    long client_pid; /* end when it does; 0: none */
} rd_daemon_options;

/* Runs until a signal, `redraft stop`, idleness or the one connection ends it. Returns the exit status. */
int rd_daemon_run(const rd_daemon_options *o);

#endif
