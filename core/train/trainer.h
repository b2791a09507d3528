/* trainer.h - the loop: draw samples, have the learner pass and step, report, keep checkpoints, export.
 *
 * A run is a function of its options, its sampler, its seed and its learner (learner.h): packs are drawn by one random
 * state in one order, whether the learner is done with the last ones or not. With the CPU's learner, neither the number of
 * threads nor a stop and resume changes a bit of a run measured in steps. A run measured in minutes follows the clock
 * instead and ends in time. Weights and moments are the learner's; here they are copied.
 */
#ifndef RD_TRAIN_TRAINER_H
#define RD_TRAIN_TRAINER_H

#include "core/base/cancel.h"
#include "core/train/checkpoint.h"
#include "core/train/learner.h"
#include "core/train/objective.h"

/* What a sample is drawn with. Nothing but this may decide: then a run that goes on draws what it would have drawn. */
typedef struct rd_draw {
    double progress; /* share of the run that is done */
    int most;        /* rows */
    rd_random *random;
    /* What the model says now: the first choice for each labelled row of a pack of at most `most` rows, -1 for the others.
     * A pass more, so for few samples; NULL where there is no model. */
    rd_status (*guess)(void *model, const rd_rows *rows, int32_t *best, rd_error *err);
    void *model;
} rd_draw;

/* Where samples come from. `sample` appends the rows of one. */
typedef struct rd_sampler {
    void *user;
    rd_status (*sample)(void *user, const rd_draw *draw, rd_rows *rows, rd_error *err);
} rd_sampler;

typedef struct rd_packs {
    rd_rows *pack;
    int n;
} rd_packs;

/* Tasks of the rows of rd_held.places: what is counted apart. */
enum { RD_HELD_HOLE, RD_HELD_LENGTH, RD_HELD_MENDED, RD_HELD_KEPT };

/* Fixed questions over text that is never trained on (measure.h). */
typedef struct rd_held {
    rd_packs text;      /* next-token rows */
    rd_packs places;    /* holes and rewrites */
    int64_t text_bytes; /* of the labelled text */
    int64_t hole_bytes; /* of the holes that are asked for */
} rd_held;

/* Answers to them; NAN where nothing is asked. */
typedef struct rd_measure {
    double bits_per_byte;      /* text from left to right */
    double hole_bits_per_byte; /* holes of the true length, all masks */
    double hole_right;         /* share of their tokens that were the first choice */
    double length_right;       /* share of the deletes and splits of canvases of a wrong length */
    double mended, kept;       /* share of the wrong tokens corrected, of the right ones kept */
} rd_measure;

typedef struct rd_train_progress {
    int64_t step;
    double share;           /* of the run that is done */
    double loss[RD_TASKS];  /* mean since the last report; NAN where there was none */
    double total;           /* weighted mean of all tasks */
    double right[RD_TASKS]; /* share of the labels that were the first choice */
    double lr, norm;
    double rows_per_s, gflops;
    double mfu; /* the share of the hardware's best that the model's arithmetic makes; NAN: unknown */
    double elapsed_s, left_s;
    bool measured;
    rd_measure held; /* where it was just measured */
} rd_train_progress;

typedef struct rd_train_options {
    uint64_t seed;
    int threads;
    int rows_per_step; /* at least so many rows a step */
    int rows_per_pack; /* a pack is closed when it has so many */
    int sample_rows;   /* a sample has at most so many */
    int64_t steps;     /* length of the run; 0: by minutes */
    double minutes;
    double leg_minutes; /* one call of rd_trainer_run stops after so many, with a checkpoint; 0: no legs */
    float lr;
    int warm_up;       /* steps */
    float decay_share; /* the last part of the run, in which lr falls to 0 */
    /* The last part, in which passes see the weights rounded to int8 as rd_quantize_model rounds
     * them; gradients and steps are those of the weights themselves. */
    float fake_int8_share;
    float
        average_share; /* the last part, whose mean of weights is the result; 0: the last weights */
    rd_optimizer_options optimizer;
    /* log.csv, run.txt (the terms, a line each), checkpoint and model go here; NULL: nothing is written */
    const char *dir;
    const char
        *data; /* names what is sampled; a checkpoint over other data is refused. May be NULL */
    const rd_kept_term *terms; /* more that shapes the run, kept in checkpoints; borrowed */
    int n_terms;
    double checkpoint_s, report_s, measure_s;
    const rd_held *held; /* or NULL; borrowed */
    rd_cancel *cancel;   /* stops after the step under way, with a checkpoint */
    void (*report)(void *user, const rd_train_progress *progress);
    void *user;
} rd_train_options;

rd_train_options rd_train_defaults(void);

typedef struct rd_trainer rd_trainer;

/* Opens a learner of `table`; borrows `p` and the table. The weights are fresh, from the seed. */
rd_status rd_trainer_open(const rd_params *p, const rd_train_options *o, const rd_sampler *sampler,
                          const rd_learner_table *table, rd_trainer **out, rd_error *err);
void rd_trainer_close(rd_trainer *t);

/* Go on from the checkpoint in `dir`. RD_NOT_FOUND when there is none; RD_INVALID, and nothing
 * changed, when it is torn or was made on other terms: shape, seed, rows, optimiser, data, length in
 * steps and all that shapes such a run. A run in minutes may change its length, rates and shares. */
rd_status rd_trainer_resume(rd_trainer *t, const char *dir, rd_error *err);
/* Train up to the end of the run or of the leg, or `steps` steps where that is above 0. RD_CANCELLED when
 * stopped. A loss that is not a number is RD_INVALID and names step and tensor; the last checkpoint
 * stays. */
rd_status rd_trainer_run(rd_trainer *t, int64_t steps, rd_error *err);
/* RD_INVALID, and nothing written, where a weight or moment is not finite. */
rd_status rd_trainer_checkpoint(rd_trainer *t, const char *dir, rd_error *err);
/* The held-out questions, answered with the weights as they are. */
rd_status rd_trainer_measure(rd_trainer *t, rd_measure *out, rd_error *err);

/* Weights out of and into the learner, [p->size]. */
rd_status rd_trainer_weights(rd_trainer *t, float *to, rd_error *err);
rd_status rd_trainer_set_weights(rd_trainer *t, const float *from, rd_error *err);
/* What the run made: the mean of weights where it has one, else the weights. */
rd_status rd_trainer_result(rd_trainer *t, float *to, rd_error *err);
int64_t rd_trainer_steps(const rd_trainer *t);
/* Whether the run is at its end, and not just a leg. */
bool rd_trainer_over(const rd_trainer *t);
/* The learner in a line. Borrowed. */
const char *rd_trainer_describe(rd_trainer *t);

/* The loss curves of a log.csv as an SVG picture. */
rd_status rd_train_plot(const char *csv, const char *svg, rd_error *err);

#endif
