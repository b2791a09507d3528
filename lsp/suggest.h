/* suggest.h - ghost text: what is asked, what is shown, and what is stale.
 *
 * One infill at most is under way for a document, the newest asked for. What was answered is kept while it is typed along and
 * answered again, shortened, without the model. Nothing is asked before the typing pauses, unless somebody invoked it.
 */
#ifndef RD_LSP_SUGGEST_H
#define RD_LSP_SUGGEST_H

#include "lsp/peer.h"

rd_suggest *rd_suggest_new(rd_lsp *l);
void rd_suggest_free(rd_suggest *s); /* cancels its jobs */

/* Handlers. */
rd_status rd_suggest_inline(rd_conn *c, const rd_message *m, rd_error *err);
rd_status rd_suggest_completion(rd_conn *c, const rd_message *m, rd_error *err);
/* The commands redraft.accepted and redraft.explainLast. */
rd_status rd_suggest_accepted(rd_conn *c, const rd_message *m, rd_error *err);
rd_status rd_suggest_explain(rd_conn *c, const rd_message *m, rd_error *err);

void rd_suggest_opened(rd_suggest *s, const rd_document *doc);
void rd_suggest_changed(rd_suggest *s, const rd_document *doc);
void rd_suggest_closed(rd_suggest *s, const char *uri);
/* True when the job or ticket was its own. */
bool rd_suggest_event(rd_suggest *s, const rd_event *ev);
bool rd_suggest_cancelled(rd_suggest *s, uint64_t ticket);
void rd_suggest_tick(rd_suggest *s, double now);
double rd_suggest_due(const rd_suggest *s); /* when to tick; 0: nothing is due */

#endif
