/* run.h - what the calls over an engine share: its options, a file with a place in it, a run to its end. */
#ifndef RD_TOOLS_RUN_H
#define RD_TOOLS_RUN_H

#include "core/base/buf.h"
#include "core/engine.h"
#include "core/format/record.h"
#include "core/tools/tool.h"

typedef struct rd_run_options {
    float quality;
    int max_ms, max_tokens; /* 0: none, the engine's */
    bool watch, no_draft;
} rd_run_options;

typedef struct rd_result {
    rd_buf text;
    float confidence;
    int tokens, prefill_tokens, forwards;
    double ms;
    const char *reason;
} rd_result;

/* --mode, --quality, --max-ms, --seed. False after a message: exit 2. */
bool rd_run_options_of(const rd_args *a, rd_run_options *out);
/* Opens with --model, --backend, --isa, --threads; the exit status, 0 when it stands. */
int rd_engine_of(const rd_args *a, rd_engine **out);

/* Step until it is done or max_ms is over. With `watch` each step is drawn on stderr. */
rd_status rd_run_to_end(rd_engine *e, rd_request *rq, const rd_run_options *o, rd_result *out,
                        rd_error *err);
void rd_result_clear(rd_result *r);

/* "FILE:LINE:COL" or "FILE:FIRST-LAST" apart; the text of FILE. Lines are 1-based; columns count code
 * points. RD_INVALID names what is wrong, a place past the end included. */
typedef struct rd_place {
    char *path;
    rd_buf text;
    size_t start, end; /* bytes */
    int line;          /* the first */
} rd_place;

rd_status rd_place_cursor(const char *arg, rd_place *out, rd_error *err);
rd_status rd_place_lines(const char *arg, bool all_without, rd_place *out, rd_error *err);
void rd_place_clear(rd_place *p);
/* A unified diff that replaces [start, end) by `text`: appended. */
void rd_place_diff(const rd_place *p, const char *text, size_t n, rd_buf *out);

/* One request a line on stdin, one answer a line on stdout, flushed. `answer` appends an object for a
 * request's value; on failure the line gets {"task_id","error"} and the exit status is 1 at the end. */
int rd_jsonl(rd_status (*answer)(void *user, rd_value request, rd_buf *out, rd_error *err),
             void *user);

#endif
