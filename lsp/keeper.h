/* keeper.h - what is kept beyond memory: finished blocks and answers in the user's cache file, over several connections.
 *
 * Some read, straight into the pool (readers.h); one writes on a thread of its own (scribe.h). The
 * file is opened when there is something to read or write, so that who keeps nothing makes none. When it cannot be had, one line in
 * the log says why, work goes on without it, and it is tried again later.
 */
#ifndef RD_LSP_KEEPER_H
#define RD_LSP_KEEPER_H

#include "core/model/kv_pack.h"
#include "core/runner.h"
#include "lsp/job.h"

typedef struct rd_keeper rd_keeper;

typedef struct rd_keeper_options {
    const char *dir; /* borrowed until close; NULL: rd_cache_usual_dir */
    int64_t max_bytes;
    int max_days;
    bool any_place;
    rd_kv_format format;
    size_t most_waiting;        /* bytes of blocks that wait to be written; 0: a usual amount */
    int readers;                /* threads that read; 0: as many as are of use */
    int quiet_ms, retry_ms;     /* for tests; 0: a second, a minute */
    void (*forgot)(void *user); /* rd_keeper_forgotten grew; from the writing thread; may be NULL */
    void *user;
} rd_keeper_options;

rd_keeper *rd_keeper_new(const rd_keeper_options *o);
void rd_keeper_close(rd_keeper *k); /* no engine uses its store any more; NULL is fine */

/* ---- inference thread ---- */

/* The table for rd_engine_options; lives as long as the keeper. */
const rd_kv_store *rd_keeper_store(rd_keeper *k);
/* Whether nobody waits for the model: the time to write. */
void rd_keeper_idle(rd_keeper *k, bool idle);
/* A job's answer of an earlier run into an event that has none; false: there is none. `identity`: rd_runner_about. */
bool rd_keeper_recall(rd_keeper *k, const rd_key *identity, const rd_job *job, const rd_key *key,
                      rd_event *ev);
/* Keep the answer of a last event, if it may be kept. */
void rd_keeper_remember(rd_keeper *k, const rd_key *identity, const rd_key *key,
                        const rd_event *ev);

/* ---- any thread ---- */

/* What came from `source` (rd_request; NULL: everything) goes, from what waits and from the file. */
void rd_keeper_forget(rd_keeper *k, const char *source);
/* How many forgets were carried out, or tried and put off. */
uint64_t rd_keeper_forgotten(rd_keeper *k);

typedef struct rd_keeper_stats {
    char dir[4096];
    char why[160];                   /* it does not work; "": it does, as far as is known */
    int64_t found, loaded, computed; /* blocks: in memory, from the file, neither */
    int64_t answers;                 /* given without a run */
    double saved_ms;
    int64_t written, refused, dropped; /* blocks and answers */
    size_t waiting_bytes;
} rd_keeper_stats;

void rd_keeper_stat(rd_keeper *k, rd_keeper_stats *out);

#endif
