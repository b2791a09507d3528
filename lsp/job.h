/* job.h - what crosses between the loop thread and the inference thread: a job down, events up.
 *
 * Both are whole values: no pointer into the other thread's world. The loop thread makes a job and submits it; from then on
 * it may only read what it wrote and set the cancel flag, until the job's last event (`done`) gives it back. Every
 * job that was submitted gets exactly one such event, cancelled ones too.
 */
#ifndef RD_LSP_JOB_H
#define RD_LSP_JOB_H

#include "core/base/buf.h"
#include "core/base/cancel.h"
#include "core/engine.h"

/* Who waits: an earlier lane goes first, and a later one gives way between steps. */
typedef enum rd_lane {
    RD_LANE_TYPING, /* ghost text */
    RD_LANE_ASKED, /* somebody asked: a rewrite, a tool call, an invoked completion's alternatives */
    RD_LANE_IDLE,  /* nobody waits */
    RD_LANES
} rd_lane;

typedef enum rd_job_kind {
    RD_JOB_INFILL,
    RD_JOB_REWRITE, /* `draft` anew */
    RD_JOB_SCORE,   /* the tokens of `draft`, standing between prefix and suffix */
    RD_JOB_WARM     /* the prompt's blocks alone, for a later RD_JOB_INFILL: one step, no text */
} rd_job_kind;

enum { RD_ANSWERS_MOST = 5, RD_NEIGHBOURS_MOST = 8 };

typedef struct rd_job {
    uint64_t conn; /* whose: rd_conn_number */
    uint64_t id;   /* the connection's own name for it */
    rd_lane lane;
    rd_job_kind kind;
    char *language; /* as in rd_request; NULL: unknown */
    rd_buf prefix, draft, suffix, instruction;
    struct {
        char *name;
        rd_buf text;
    } neighbours[RD_NEIGHBOURS_MOST];
    int n_neighbours;
    int max_tokens; /* 0: the engine's */
    float quality;
    int max_ms;  /* from when the first step begins; 0: no limit. At the limit: the best so far */
    int answers; /* wanted at most; 0 is 1 */
    bool watch;  /* an event after each step, with the draft */
    bool fresh;  /* an answer that was kept will not do */
    /* For whom what is found is kept: as in rd_request. */
    uint64_t realm;
    char *source;  /* rd_scope_source; NULL: not known */
    bool unstored; /* nothing of it goes to the disk or comes from there */
    rd_cancel cancel;
} rd_job;

rd_job *rd_job_new(uint64_t conn, uint64_t id, rd_lane lane, rd_job_kind kind);
void rd_job_free(rd_job *job);

typedef struct rd_answer {
    rd_buf text;
    float confidence;
} rd_answer;

/* A piece of a draft, for drawing. Its bytes follow those of the piece before in the draft's text; a mask has none. */
typedef struct rd_piece {
    size_t bytes;
    float prob;
    int state; /* RD_MARK_* */
} rd_piece;

typedef struct rd_event {
    rd_job *job;      /* with `done` the taker's to free: rd_event_free does not */
    bool done;        /* the last one */
    rd_status status; /* of the last one; RD_CANCELLED is one */
    rd_error err;
    rd_answer answers[RD_ANSWERS_MOST]; /* without `done`: one, the draft */
    int n_answers;
    rd_piece *pieces; /* of the draft */
    int n_pieces;
    rd_score *scores; /* of RD_JOB_SCORE; places count from the beginning of `draft` */
    int n_scores;
    rd_reason reason;
    int tokens, prefill_tokens, forwards, step; /* step: of the job, from 1 */
    double ms;                                  /* from the first step's beginning */
} rd_event;

void rd_event_free(rd_event *ev);

/* The model as the loop thread knows it. */
typedef enum rd_model_phase {
    RD_MODEL_AWAY, /* not loaded, or given back; the next job loads it */
    RD_MODEL_LOADING,
    RD_MODEL_READY,
    RD_MODEL_FAILED /* `about` says why; the next job tries again */
} rd_model_phase;

typedef struct rd_model_state {
    rd_model_phase phase;
    char about[256];
    char fell_back
        [256]; /* RD_MODEL_READY: why it is on the CPU and not where it was wanted; "": it is */
    float gate;
    bool follows_instructions;
    double step_ms; /* a typical step of the last jobs; 0: not known */
} rd_model_state;

#endif
