/* work.h - one job under way: its run on a runner, step by step, and what came of it as an event.
 *
 * A score is stepped too, a piece of its text at a time. Knows no lanes and no other jobs. Inference thread only.
 */
#ifndef RD_LSP_WORK_H
#define RD_LSP_WORK_H

#include "core/runner.h"
#include "lsp/job.h"

typedef struct rd_work {
    rd_job *job;
    void *run;       /* NULL: none, or given up */
    double began_ms; /* the first step */
    int step;        /* done so far */
    bool done;
    bool unstored; /* as the job's, said later */
    bool named;    /* `name` is made: rd_answer_key */
    rd_key name;
    rd_step last; /* of the run */
    rd_buf text;  /* a score's */
    size_t scored;
    rd_score *scores;
    int n_scores, cap;
} rd_work;

/* One step; the first one, and one after rd_work_give_up, starts a run. */
rd_status rd_work_step(rd_work *k, const rd_runner *r, void *engine, rd_error *err);
/* It has had its time, and there is something to show for it. */
bool rd_work_is_late(const rd_work *k);
/* The best so far is the answer. */
void rd_work_end(rd_work *k, const rd_runner *r);
/* Close the run, if there is one. What it found is lost, but for a score's. */
void rd_work_give_up(rd_work *k, const rd_runner *r);
/* The draft, or, where the work is done, the answers. */
void rd_work_fill(rd_work *k, const rd_runner *r, rd_event *ev);
void rd_work_clear(rd_work *k); /* no run is open; leaves the job */

#endif
