/* worker.h - the inference thread: it owns the model and every run, and takes jobs from three lanes.
 *
 * The job to go on with is chosen anew before each step: typing before asked before idle, the oldest of a lane first. A job
 * that gives way keeps its run and is not stepped for a while. A cancelled job ends between two layers of a pass. Jobs go
 * in and events come out under one mutex; no lock is held while the model works.
 */
#ifndef RD_LSP_WORKER_H
#define RD_LSP_WORKER_H

#include "core/runner.h"
#include "lsp/job.h"
#include "lsp/keeper.h"

typedef struct rd_worker rd_worker;

typedef struct rd_worker_options {
    const rd_runner *runner;
    rd_engine_options engine; /* strings are borrowed until rd_worker_close */
    rd_keeper *keeper;        /* borrowed likewise; NULL: nothing is kept beyond memory */
    /* There are events, or the model's state changed. From the inference thread, or inside rd_worker_cancel. */
    void (*wake)(void *user);
    void *user;
} rd_worker_options;

/* Starts the thread; loads nothing yet. */
rd_worker *rd_worker_new(const rd_worker_options *o);
/* Cancels everything, ends the thread, frees jobs and events not taken. NULL is fine. */
void rd_worker_close(rd_worker *w);

/* The rest: loop thread. */
void rd_worker_push(rd_worker *w, rd_job *job); /* takes it */
/* Set the job's flag. One that waits in a lane ends at once, one that has begun after the step that runs now. The job must
 * not have been given back. */
void rd_worker_cancel(rd_worker *w, rd_job *job);
/* The next event, or NULL; free with rd_event_free. A draft that was not taken is replaced by the next of its job. */
rd_event *rd_worker_take(rd_worker *w);
/* Now, before there is a job. Within a second of a failure it is not tried again, here or for a job: that fails as the
 * last did. */
void rd_worker_load(rd_worker *w);
void rd_worker_unload(rd_worker *w); /* when no job is left: give the model's memory back */
void rd_worker_state(rd_worker *w, rd_model_state *out);
/* What was made for `source` (rd_job; NULL: all) goes, in memory and from the keeper's file. Jobs for it begin again, with nothing of
 * theirs kept on disk. Returns a number for rd_worker_has_forgotten. */
uint64_t rd_worker_forget(rd_worker *w, const char *source);
bool rd_worker_has_forgotten(rd_worker *w, uint64_t number);
/* Of the model that is loaded, as of the last job. */
void rd_worker_stat(rd_worker *w, rd_engine_stats *out);
/* Jobs that are not done yet. */
int rd_worker_jobs(rd_worker *w);
/* Where a crash handler finds what runs: "infill step 3", never text; "" when idle. Any thread, async-signal safe. */
const char *rd_worker_now(const rd_worker *w);

#endif
