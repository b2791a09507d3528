/* orders.h - what was asked for by an action or a command, from its first job to the edit in the editor.
 *
 * An order remembers a span of a document's revision. It scores, rewrites or fills it, and gives its result away in one of three forms: the
 * resolved action, `workspace/applyEdit`, or flags. An edit is made for the text as it is at the end: shifted when the
 * text moved outside the span, refused when it changed inside. Loop thread.
 */
#ifndef RD_LSP_ORDERS_H
#define RD_LSP_ORDERS_H

#include "lsp/flags.h"

typedef enum rd_order_kind {
    RD_ORDER_REWRITE,
    RD_ORDER_FILL,
    RD_ORDER_MEND, /* score, then rewrite what is doubtful */
    RD_ORDER_FLAG  /* score, then show what is doubtful */
} rd_order_kind;

typedef struct rd_orders rd_orders;

/* All is copied. */
typedef struct rd_order {
    rd_order_kind kind;
    rd_document *doc;
    size_t start, end;
    float quality;
    const char *instruction; /* NULL: none */
    size_t instruction_n;
    bool instructed;      /* it is the user's, who is told when the model ignores it */
    uint64_t ticket;      /* of codeAction/resolve; 0: a command, which was answered */
    const json_t *action; /* of codeAction/resolve */
    const json_t *token;  /* the request's workDoneToken; may be NULL */
    bool idle;            /* nobody waits, so nothing is said */
} rd_order;

rd_orders *rd_orders_new(rd_lsp *l, rd_flags *flags);
void rd_orders_free(rd_orders *ws); /* cancels their jobs */
/* Fails with RD_INVALID where the span is too long, with RD_NO_MEMORY where too many are under way. */
rd_status rd_orders_start(rd_orders *ws, const rd_order *o, rd_error *err);

/* True when the job, ticket or question was theirs. */
bool rd_orders_event(rd_orders *ws, const rd_event *ev);
bool rd_orders_cancelled(rd_orders *ws, uint64_t ticket);
bool rd_orders_replied(rd_orders *ws, int64_t ask, const json_t *result, const json_t *error);
void rd_orders_token_cancelled(rd_orders *ws, const json_t *token);
/* Works whose span changed end; of a closed document all do. */
void rd_orders_changed(rd_orders *ws, const rd_document *doc);
void rd_orders_closed(rd_orders *ws, const char *uri);

#endif
