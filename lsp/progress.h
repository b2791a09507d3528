/* progress.h - one bar of work-done progress: asked for, begun, moved with each draft, ended.
 *
 * The token is the client's where its request carried one; otherwise ours, and nothing is shown before the client
 * has agreed to it. A client that cannot show any gets none. By value in what is under way; loop thread.
 */
#ifndef RD_LSP_PROGRESS_H
#define RD_LSP_PROGRESS_H

#include "lsp/peer.h"

typedef struct rd_progress {
    json_t *token; /* NULL: there is no bar */
    int64_t ask;   /* window/workDoneProgress/create that is not answered; 0: none */
    bool shown;
    const char *title; /* borrowed */
    double reported_ms;
} rd_progress;

/* `token`: the request's workDoneToken or NULL; then ours is made of `number`. */
void rd_progress_start(rd_progress *p, rd_lsp *l, const json_t *token, uint64_t number,
                       const char *title);
/* True when the answer was to its question. With `over` a bar is not begun any more. */
bool rd_progress_replied(rd_progress *p, rd_lsp *l, int64_t ask, const json_t *error, bool over);
void rd_progress_report(rd_progress *p, rd_lsp *l, const rd_event *ev);
void rd_progress_end(rd_progress *p, rd_lsp *l);
void rd_progress_clear(rd_progress *p); /* sends nothing */

#endif
