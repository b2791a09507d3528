/* process.h - what each process of the daemon's is: how it begins, what it gives up, how it ends.
 *
 * A test program is the same processes with another runner.
 */
#ifndef RD_LSP_PROCESS_H
#define RD_LSP_PROCESS_H

#include "core/runner.h"
#include "lsp/rpc.h"

typedef struct rd_process {
    const rd_runner *runner;
    int starts; /* of daemons within a minute */
} rd_process;

/* Be the daemon until it ends. In the background it says with a line on stdout that it listens, and writes to its log
 * from then on. */
rd_status rd_process_serve(const rd_process *p, bool background, int *status, rd_error *err);

typedef struct rd_session {
    rd_protocol protocol;
    bool alone; /* the daemon in this process, for this client */
    const char *const *roots;
    int n_roots;
    long client_pid;
} rd_session;

/* Serve one client on stdin and stdout. */
rd_status rd_process_session(const rd_process *p, const rd_session *session, int *status,
                             rd_error *err);

/* To stdout. Without a daemon that is what they say. */
rd_status rd_process_status(bool json, rd_error *err);
rd_status rd_process_stop(rd_error *err);

#endif
