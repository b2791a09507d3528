/* runner.h - the table of something that runs whole requests: the engine in this process, a server elsewhere, a script.
 *
 * Whoever holds one opens it, starts runs and steps them as with engine.h, whose types pass through. All calls come from
 * one thread; a request's cancel flag may be set from any, and a call that finds it set returns RD_CANCELLED soon.
 */
#ifndef RD_RUNNER_H
#define RD_RUNNER_H

#include "core/base/buf.h"
#include "core/engine.h"

/* What it is, once open. */
typedef struct rd_runner_about {
    char text[160];      /* for people: backend, threads, memory */
    char fell_back[256]; /* rd_engine_fell_back */
    bool may_be_lost;    /* it runs on a device of its own and not on the CPU */
    float gate;          /* rd_engine_gate */
    bool follows_instructions;
    rd_key identity; /* rd_engine_identity; none: answers must not be kept */
} rd_runner_about;

typedef struct rd_runner {
    const char *name;
    rd_status (*open)(const rd_engine_options *o, void **self, rd_error *err);
    void (*close)(void *self); /* NULL is fine; no run may be open */
    void (*about)(void *self, rd_runner_about *out);
    rd_status (*start)(void *self, const rd_request *rq, void **run, rd_error *err);
    rd_status (*step)(void *run, rd_step *out, rd_error *err); /* rd_run_step */
    void (*end)(void *run, rd_step *out);                      /* rd_run_end */
    /* Text `i` of a run that is done: the answer itself, then what else was likely, the likeliest first and all
     * different. `text` is appended to. False: there are no more. */
    bool (*text_at)(void *run, int i, rd_buf *text, float *confidence);
    void (*finish)(void *run); /* rd_run_close */
    rd_status (*score)(void *self, const rd_score_request *rq, rd_score **out, int *count,
                       rd_error *err);              /* rd_engine_score */
    void (*forget)(void *self, const char *source); /* rd_engine_forget; NULL: keeps nothing */
    void (*stat)(void *self, rd_engine_stats *out); /* rd_engine_stat; NULL: has none */
} rd_runner;

/* The engine in this process (core/local.c). */
extern const rd_runner rd_local_runner;

#endif
