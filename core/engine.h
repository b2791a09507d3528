/* engine.h - the face of the engine: open a model, start a run, step it, close it.
 *
 * A run is pulled, not pushed: the caller's loop calls rd_run_step and decides what goes on, waits or is
 * shown. Text is bytes, usually UTF-8; nothing of the user's text ever becomes a control token, and only the
 * text of the hole is returned: what stands around it is never changed. An engine and its runs belong to
 * one thread at a time; a request's cancel flag may be set from any.
 */
#ifndef RD_ENGINE_H
#define RD_ENGINE_H

#include "core/base/cancel.h"
#include "core/base/key.h"
#include "core/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define RD_PUBLIC __attribute__((visibility("default")))
#else
#define RD_PUBLIC
#endif

typedef struct rd_kv_store rd_kv_store; /* core/model/kv_store.h */
typedef struct rd_engine rd_engine;
typedef struct rd_run rd_run;

typedef struct rd_engine_options {
    const char *model; /* folder; NULL: the built-in model */
    const char *
        backend; /* NULL, "auto": the best, the CPU where that one has no room for the model or fails */
    const char *
        plugins; /* folder in which backends are looked for first; NULL: no other than the usual ones */
    const char *isa; /* NULL: the best; the CPU's */
    int threads;     /* 0: as many as cores */
    bool fall_back;  /* the CPU for a backend that was named, too, where it is not there or fails */
    size_t
        pool_bytes; /* for finished blocks in memory; 0, and what is too little for a run: a usual amount */
    const rd_kv_store
        *store; /* where blocks are kept beyond memory; borrowed until close; NULL: nowhere */
} rd_engine_options;

typedef enum rd_task { RD_INFILL, RD_REWRITE, RD_GENERATE } rd_task;

/* Another text that says something about the hole's: an open file, or what was edited lately. Drafts may be copied
 * from the first four (64 KB of each); no model reads them, so that a prompt that is in the pool is found there
 * when one of them changes. */
typedef struct rd_neighbour {
    const char *name; /* of its file; NULL: none */
    const char *text;
    size_t bytes;
} rd_neighbour;

/* Pointers are borrowed until rd_run_open returns, but for `cancel`. */
typedef struct rd_request {
    rd_task task;
    const char *language;                /* "python", "c", a file name, or NULL */
    const char *prefix, *suffix, *draft; /* draft: what stands in the span now (RD_REWRITE) */
    size_t prefix_bytes, suffix_bytes, draft_bytes;
    const char *instruction; /* NULL: none; see rd_engine_follows_instructions */
    size_t instruction_bytes;
    const rd_neighbour *neighbours; /* the most telling first; may be NULL */
    int n_neighbours;
    int answers;     /* above 1: other drafts are weighed too, for whoever shows several texts */
    int max_tokens;  /* 0: 256 */
    int hole_tokens; /* the hole's length where it is known; 0: not */
    float quality;   /* 0: speed; 1: quality */
    bool no_draft;   /* the hole is filled by the model alone: no texts copied from around it */
    /* Finished blocks are shared among requests of one realm only: by time alone nobody learns what another realm
     * has asked. 0: the user's own editors. */
    uint64_t realm;
    const char *
        source; /* the file that it is about, for rd_engine_forget; NULL: not known. Borrowed as the rest */
    bool unstored; /* its blocks stay in memory: they neither come from the store nor go there */
    const rd_cancel *cancel;
} rd_request;

typedef enum rd_reason {
    RD_REASON_DONE,
    RD_REASON_LIMIT,
    RD_REASON_TIME,
    RD_REASON_EMPTY
} rd_reason;

/* One slot of a draft, for drawing: its bytes, how sure it is, and whether it may still change. */
typedef struct rd_mark {
    const char *text;
    size_t bytes;
    float prob;
    enum { RD_MARK_MASK, RD_MARK_DRAFT, RD_MARK_EDITED, RD_MARK_SETTLED } state;
} rd_mark;

typedef struct rd_step {
    const char *text; /* the hole as it stands, masks left out; borrowed until the next step */
    size_t bytes;
    const rd_mark *marks;
    int n_marks;
    bool done;
    rd_reason reason;
    float confidence; /* 0..1: that it is right as a whole */
    int tokens, prefill_tokens, forwards;
} rd_step;

RD_PUBLIC rd_status rd_engine_open(const rd_engine_options *o, rd_engine **out, rd_error *err);
RD_PUBLIC void rd_engine_close(rd_engine *e);
/* The built-in model's folder: beside the program, else where it was installed or built. */
RD_PUBLIC rd_status rd_engine_builtin(char *out, size_t n, rd_error *err);
/* Whether a request's instruction reaches the model: chat checkpoints have a place for it, others ignore it. */
RD_PUBLIC bool rd_engine_follows_instructions(const rd_engine *e);
/* A confidence below it is not worth showing unasked: the answer would be right less than every third time. 0
 * where the model has no calibrated confidence. Answers are never withheld; that is the caller's to do. */
RD_PUBLIC float rd_engine_gate(const rd_engine *e);
RD_PUBLIC rd_status rd_run_open(rd_engine *e, const rd_request *rq, rd_run **out, rd_error *err);
/* One forward pass. After `done` it returns the same step again. */
RD_PUBLIC rd_status rd_run_step(rd_run *r, rd_step *out, rd_error *err);
/* No time is left for more: the best that there is, without masks, done. The reason is RD_REASON_TIME. */
RD_PUBLIC void rd_run_end(rd_run *r, rd_step *out);
RD_PUBLIC void rd_run_close(rd_run *r);

/* The probability of each token of a text given its neighbours on both sides inside its block and all
 * before: every fourth token masked, four passes. Tokens with a byte in [from, to) are scored; of the rest of
 * the text some 2 KB before and 1 KB behind are read. `out` is the caller's to free with free(). RD_CANCELLED
 * when the flag was set. */
typedef struct rd_score_request {
    const char *language, *text; /* language: as in rd_request */
    size_t bytes, from, to;
    uint64_t realm; /* these three too */
    const char *source;
    bool unstored;
    const rd_cancel *cancel;
} rd_score_request;

typedef struct rd_score {
    size_t start, end; /* bytes of the text */
    float p, p_best;
    char best[48]; /* its text, cut */
} rd_score;

RD_PUBLIC rd_status rd_engine_score(rd_engine *e, const rd_score_request *rq, rd_score **out,
                                    int *count, rd_error *err);
/* Drop the finished blocks made for `source` (NULL: all) from memory; those that a run holds when it closes. */
RD_PUBLIC void rd_engine_forget(rd_engine *e, const char *source);
/* Names weights, config, tokenizer and everything else that decides what comes out: two engines with one name answer the
 * same. */
RD_PUBLIC rd_key rd_engine_identity(const rd_engine *e);

typedef struct rd_engine_stats {
    size_t pool_bytes, used_bytes;   /* of finished blocks in memory */
    int64_t found, loaded, computed; /* blocks: in memory, from the store, neither */
    double compute_ms, load_ms,
        saved_ms; /* a block's, as measured lately, 0: not yet; and what loading has saved */
} rd_engine_stats;

RD_PUBLIC void rd_engine_stat(const rd_engine *e, rd_engine_stats *out);
/* What is loaded, for messages: "cpu avx512-bf16-vnni, 2 threads, 35 MB". Borrowed. */
RD_PUBLIC const char *rd_engine_describe(rd_engine *e);
/* Why it runs on the CPU and not on the backend that was wanted; "": it runs on that. Borrowed. */
RD_PUBLIC const char *rd_engine_fell_back(const rd_engine *e);

#endif
