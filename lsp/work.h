/* work.h - what was asked for by an action or a command, from its first job to the edit in the editor.
 *
 * A work remembers a span of a document's revision. It scores, rewrites or fills it, and gives its result away in one of three forms: the
 * resolved action, `workspace/applyEdit`, or flags. An edit is made for the text as it is at the end: shifted when the
 * text moved outside the span, refused when it changed inside. Loop thread.
 */
#ifndef RD_LSP_WORK_H
#define RD_LSP_WORK_H

#include "lsp/flags.h"

typedef enum rd_work_kind {
    RD_WORK_REWRITE,
    RD_WORK_FILL,
    RD_WORK_MEND, /* score, then rewrite what is doubtful */
    RD_WORK_FLAG  /* score, then show what is doubtful */
} rd_work_kind;

typedef struct rd_works rd_works;

/* All is copied. */
typedef struct rd_order {
    rd_work_kind kind;
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

rd_works *rd_works_new(rd_lsp *l, rd_flags *flags);
void rd_works_free(rd_works *ws); /* cancels their jobs */
/* Fails with RD_INVALID where the span is too long, with RD_NO_MEMORY where too many are under way. */
rd_status rd_works_start(rd_works *ws, const rd_order *o, rd_error *err);

/* True when the job, ticket or question was theirs. */
bool rd_works_event(rd_works *ws, const rd_event *ev);
bool rd_works_cancelled(rd_works *ws, uint64_t ticket);
bool rd_works_replied(rd_works *ws, int64_t ask, const json_t *result, const json_t *error);
void rd_works_token_cancelled(rd_works *ws, const json_t *token);
/* Works whose span changed end; of a closed document all do. */
void rd_works_changed(rd_works *ws, const rd_document *doc);
void rd_works_closed(rd_works *ws, const char *uri);

#endif
