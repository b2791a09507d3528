/* echo.c - the echoing runner. */
#include "tests/fake/echo.h"

#include "core/base/clock.h"
#include "core/base/memory.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct echo_run {
    char text[RD_ECHO_BYTES];
    double until_ms;
    const rd_cancel *cancel;
    bool prints, crashes;
} echo_run;

static uint64_t mix(uint64_t hash, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) hash = (hash ^ (unsigned char)bytes[i]) * 0x100000001b3u;
    return hash;
}

void rd_echo_answer(const char *prefix, size_t prefix_n, const char *suffix, size_t suffix_n,
                    char out[RD_ECHO_BYTES])
{
    uint64_t hash = mix(0xcbf29ce484222325u, prefix, prefix_n);

    hash = mix(hash, "\n", 1);
    hash = mix(hash, suffix, suffix_n);
    snprintf(out, RD_ECHO_BYTES, "h%016llx", (unsigned long long)hash);
}

static rd_status echo_open(const rd_engine_options *o, void **self, rd_error *err)
{
    (void)o;
    (void)err;
    *self = rd_alloc0(1);
    return RD_OK;
}

static void echo_about(void *self, rd_runner_about *out)
{
    (void)self;
    *out = (rd_runner_about){ .text = "echo", .gate = 0.35f };
}

/* What stands behind the last `mark`; NULL when there is none. */
static const char *marker(const char *text, const char *mark)
{
    const char *last = NULL;

    for (const char *at = text; (at = strstr(at, mark)); at++) last = at + strlen(mark);
    return last;
}

static rd_status echo_start(void *self, const rd_request *rq, void **out, rd_error *err)
{
    echo_run *run = rd_alloc0(sizeof *run);
    char *prefix = rd_copy_text(rq->prefix ? rq->prefix : "", rq->prefix_bytes);
    const char *ms = marker(prefix, "@ms=");

    (void)self;
    (void)err;
    rd_echo_answer(prefix, rq->prefix_bytes, rq->suffix, rq->suffix_bytes, run->text);
    run->until_ms = rd_now_ms() + (ms ? (double)strtol(ms, NULL, 10) : 0);
    run->prints = marker(prefix, "@print") != NULL;
    run->crashes = marker(prefix, "@crash") != NULL;
    run->cancel = rq->cancel;
    free(prefix);
    *out = run;
    return RD_OK;
}

static void fill(echo_run *run, rd_step *out)
{
    *out = (rd_step){ .text = run->text,
                      .bytes = RD_ECHO_BYTES - 1,
                      .done = true,
                      .confidence = 0.9f,
                      .tokens = 4,
                      .forwards = 1 };
}

static rd_status echo_step(void *self, rd_step *out, rd_error *err)
{
    echo_run *run = self;

    if (run->crashes) raise(SIGSEGV);
    if (run->prints && puts("a library says hello") >= 0) fflush(stdout);
    while (rd_now_ms() < run->until_ms) {
        if (rd_cancelled(run->cancel)) return rd_fail(err, RD_CANCELLED, "cancelled");
        nanosleep(&(struct timespec){ .tv_nsec = 200000 }, NULL);
    }
    fill(run, out);
    return RD_OK;
}

static void echo_end(void *self, rd_step *out)
{
    fill(self, out);
    out->reason = RD_REASON_TIME;
}

static bool echo_text_at(void *self, int i, rd_buf *text, float *confidence)
{
    echo_run *run = self;

    if (i > 0) return false;
    rd_buf_text(text, run->text);
    *confidence = 0.9f;
    return true;
}

static rd_status echo_score(void *self, const rd_score_request *rq, rd_score **out, int *count,
                            rd_error *err)
{
    (void)self;
    (void)rq;
    (void)err;
    *out = rd_alloc0(sizeof **out);
    *count = 0;
    return RD_OK;
}

const rd_runner rd_echo_runner = { "echo",   echo_open,    free, echo_about, echo_start, echo_step,
                                   echo_end, echo_text_at, free, echo_score, NULL,       NULL };
