/* mixture.h - what a run is shown, as numbers: every objective's share, and each can be switched off.
 *
 * One table names every field, with its default, its range and a line of help. The command line (--mix), the terms
 * that a checkpoint keeps, run.txt beside a run's log and the sampler all read that table, so a run can be repeated
 * from what it wrote. Plain values; any thread.
 */
#ifndef RD_TRAIN_MIXTURE_H
#define RD_TRAIN_MIXTURE_H

#include "core/base/buf.h"
#include "core/train/checkpoint.h"
#include "core/train/objective.h"

#include <stdbool.h>

/* Shares lie in 0 to 1. Weights of one choice need not add up to anything: each counts against their sum. */
typedef struct rd_mixture_options {
    /* What a sample is. */
    float early;                    /* the first share of the run */
    float next_early, next_late;    /* next-token samples, in that share and behind it */
    float suffix_first;             /* of the next-token samples: suffix, prefix, middle */
    float masked, edited, rewrites; /* of the other samples; holes else */
    /* Masked windows. */
    bool pairs;                        /* a second copy masks what the first shows */
    float block_8, block_16, block_32; /* weights of the windows' block sizes */
    /* Edited windows. */
    float wrong_least, wrong_most; /* share of the visible tokens that are replaced, uniform */
    /* Weights of what is wrong in them: any token, a name of the file, the model's own words; or a fault a block (faults.h),
     * with tokens missing and too many. */
    float noise_any, noise_name, noise_own, noise_fault;
    /* Holes. */
    float hole_empty, hole_line, hole_part, hole_lines, hole_block; /* weights of their kinds */
    float hole_inside; /* share that is cut inside tokens */
    int copies;        /* noisy copies of a hole's block; of two blocks half as many */
    int drafts;        /* copies with a draft in the hole, at most */
    float draft_line;  /* of the drafts behind the first: a similar line of the file, faults else */
    /* Rewrites: a span of one to three lines, mostly with a fault, in the editor's layout. */
    int rewrite_copies;              /* of a span, each with a fault of its own */
    float rewrite_clean;             /* share that is right as it stands */
    float rewrite_line, rewrite_own; /* of the others: a similar line; the model's own words */
    int context_copies;              /* blocks of the context that are asked for too */
    float confidence;         /* CAP: weight of the entropy of masks that are right already */
    rd_objective_options ask; /* rates, canvases and weights */
} rd_mixture_options;

/* What a run from nothing is shown; `trained`: one that starts from a model has no long start with next tokens. */
rd_mixture_options rd_mixture_defaults(bool trained);

/* Set what "KEY=VALUE,KEY=VALUE" says; a switch is on or off. RD_INVALID, naming the key, for one that is unknown
 * or out of range, and where the shares leave nothing to draw; then `o` is half set. */
rd_status rd_mixture_parse(rd_mixture_options *o, const char *text, rd_error *err);

/* Every field as a term of a run, "mixture.KEY" and its value; returns their number. */
enum { RD_MIXTURE_TERMS = 48 };
int rd_mixture_terms(const rd_mixture_options *o, rd_kept_term out[RD_MIXTURE_TERMS]);

/* A line a key: its name, value, range and help. */
void rd_mixture_describe(const rd_mixture_options *o, rd_buf *out);

#endif
