/* job.c - making and freeing what crosses the threads. */
#include "lsp/job.h"

#include "core/base/memory.h"

#include <stdlib.h>

rd_job *rd_job_new(uint64_t conn, uint64_t id, rd_lane lane, rd_job_kind kind)
{
    rd_job *job = rd_alloc0(sizeof *job);

    job->conn = conn;
    job->id = id;
    job->lane = lane;
    job->kind = kind;
    return job;
}

void rd_job_free(rd_job *job)
{
    if (!job) return;
    free(job->language);
    free(job->source);
    rd_buf_clear(&job->prefix);
    rd_buf_clear(&job->draft);
    rd_buf_clear(&job->suffix);
    rd_buf_clear(&job->instruction);
    for (int i = 0; i < job->n_neighbours; i++) {
        free(job->neighbours[i].name);
        rd_buf_clear(&job->neighbours[i].text);
    }
    free(job);
}

void rd_event_free(rd_event *ev)
{
    if (!ev) return;
    for (int i = 0; i < ev->n_answers; i++) rd_buf_clear(&ev->answers[i].text);
    free(ev->pieces);
    free(ev->scores);
    free(ev);
}
