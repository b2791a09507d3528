/* host.h - what a connection may ask of the process it lives in: the time, one timer, the inference thread.
 *
 * The daemon fills it with libuv and a worker, a test with a clock and a script of its own. Loop thread only.
 */
#ifndef RD_LSP_HOST_H
#define RD_LSP_HOST_H

#include "lsp/job.h"

#include <jansson.h>

typedef struct rd_conn rd_conn;

typedef struct rd_host {
    void *self;
    double (*now_ms)(void *self); /* monotonic */
    /* Call rd_conn_tick at that time; replaces the connection's earlier wish; 0: not any more. */
    void (*wake_at)(void *self, rd_conn *c, double at_ms);
    void (*submit)(void *self, rd_job *job); /* takes it; comes back by rd_conn_event */
    void (*cancel)(void *self, rd_job *job); /* one that has not come back */
    /* What was made for this file, or (NULL) all that was made, is not kept any more, in memory and on disk. May be NULL. */
    void (*forget)(void *self, const char *source);
    void (*model)(void *self, rd_model_state *out);
    json_t *(*status)(void *self); /* what `redraft status --json` prints; the caller's */
} rd_host;

#endif
