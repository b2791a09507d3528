/* script.h - a runner without a model: its answers are a function of the request, so that a test can foretell them.
 *
 * An infill is answered with what stands between the last pair of guillemets (U+00AB, U+00BB) of the prefix, else
 * of the suffix, else with "x"; pairs before it are the other texts, the nearest first, each half as likely as the one
 * before. A rewrite is answered with the draft, each word `bad` now `good`. A score gives each word `bad` 0.01 (best
 * "good") and any other token 0.99; a token is a word or a single byte. The gate is 0.35.
 *
 * Markers in the prefix (of a score: in the text), of which the last of its kind counts:
 *   @steps=N    passes until it is done (2); the text grows with each
 *   @us=M       microseconds that each takes (0); a score takes them once
 *   @conf=0.9   the answer's confidence (0.9)
 *   @fail       the first step fails: RD_INVALID
 *   @device     the first step fails: RD_DEVICE
 * and in the model's name: @fail, or @fail=N for the first N times that this process opens one; @us=M; @follows, the
 * model follows instructions; @named, it has an identity, so that answers may be kept.
 */
#ifndef RD_FAKE_SCRIPT_H
#define RD_FAKE_SCRIPT_H

#include "core/runner.h"

#include <stdatomic.h>

#define RD_SCRIPT_GATE 0.35f

extern const rd_runner rd_script_runner;

/* Of this process, since it began. */
typedef struct rd_script_counts {
    atomic_int opens;  /* tried, failed ones too */
    atomic_int open;   /* now */
    atomic_int starts; /* runs */
    atomic_int steps;  /* begun, of all runs */
    atomic_int scores;
    atomic_int live; /* runs not finished now */
    atomic_int most; /* the most of them at any time */
} rd_script_counts;

extern rd_script_counts rd_script_counted;

#endif
