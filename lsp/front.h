/* front.h - `redraft stdio` and `redraft mcp`: whole messages between a client's pipes and the daemon, which may die.
 *
 * Knows no model, cache or plugin and cannot die of what goes through it: a daemon that is lost is replaced by follow.h. One thread.
 */
#ifndef RD_LSP_FRONT_H
#define RD_LSP_FRONT_H

#include "lsp/rpc.h"

typedef struct rd_front_options {
    rd_protocol protocol;
    int in, out;              /* the client's; borrowed */
    int starts;               /* of daemons within a minute */
    const char *const *roots; /* MCP; absolute */
    int n_roots;
    long client_pid; /* leave when it is gone; 0: the one that `initialize` names */
} rd_front_options;

/* Until the client is gone. Returns the exit status. */
int rd_front_run(const rd_front_options *o);

#endif
