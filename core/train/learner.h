/* learner.h - the part of training that hardware does: passes, gradients, steps; weights and moments stay where it is.
 *
 * The trainer (trainer.h) draws packs, decides rates, keeps time, reports and checkpoints; a learner holds weights, gradient, moments and, if
 * asked, the mean of weights, each p->size floats in the layout of rd_params, and does the arithmetic. Two
 * learners are the same but for rounding. The linked-in one runs rd_net and rd_optimizer on threads of the CPU; a plugin
 * brings another by the symbol rd_learner_entry. One thread drives a learner, but `submit` only queues: the trainer draws the
 * next packs while the learner works.
 *
 * Order of a step: submit each pack (copied), then step. `collect` waits for everything that was submitted and gives
 * the sums since the last collect. A step whose gradient or loss is not finite changes nothing and is told by the next collect (RD_INVALID
 * naming tensor and step), so that no step waits for the one before it.
 */
#ifndef RD_TRAIN_LEARNER_H
#define RD_TRAIN_LEARNER_H

#include "core/train/backward.h"
#include "core/train/optimizer.h"

#define RD_LEARNER_ABI 1

typedef struct rd_learner rd_learner;

typedef struct rd_learner_options {
    int rows_per_pack; /* at most, of one pack */
    int packs;         /* of one step, at most */
    int threads;       /* of a learner that uses the CPU */
    rd_optimizer_options optimizer;
    bool rounded; /* keeps a copy of the weights as int8 rows make them, for passes that see it */
    bool mean;    /* keeps the mean of the weights of the last steps */
    size_t memory_limit; /* bytes; 0: none */
    void (*log)(rd_log_level level, const char *format, ...);
} rd_learner_options;

typedef enum rd_learner_array {
    RD_LEARNER_WEIGHTS,
    RD_LEARNER_MOMENT_0,
    RD_LEARNER_MOMENT_1,
    RD_LEARNER_MEAN,
    RD_LEARNER_GRADIENT, /* of the packs submitted since the last step; tests */
    RD_LEARNER_ARRAYS
} rd_learner_array;

typedef enum rd_learner_pass {
    RD_LEARNER_LEARN,  /* forward and backward; gradients of packs are added in order */
    RD_LEARNER_MEASURE /* forward alone */
} rd_learner_pass;

typedef struct rd_learner_sums {
    rd_train_stats stats; /* its load: [layers * experts] of the learner's own, valid until the next call, or NULL */
    double norm;          /* of the last step's gradient, before clipping */
    int64_t steps;        /* done by the optimiser in all */
} rd_learner_sums;

typedef struct rd_learner_table {
    uint32_t abi;
    size_t size;
    const char *name;

    /* Borrows `p` for the learner's life. RD_NO_MEMORY says how much was needed and free; RD_INVALID for a shape it cannot
     * train, with the reason. */
    rd_status (*open)(const rd_params *p, const rd_learner_options *o, rd_learner **out, rd_error *err);
    void (*close)(rd_learner *l);
    /* One line for people: device, form of the products. Borrowed. */
    const char *(*describe)(rd_learner *l);
    /* Floating-point operations a second at best, for the share that progress prints; 0: unknown. */
    double (*peak_flop_s)(rd_learner *l);

    /* Whole arrays to and from the host, [p->size]. Wait for what was submitted. */
    rd_status (*put)(rd_learner *l, rd_learner_array which, const float *from, rd_error *err);
    rd_status (*get)(rd_learner *l, rd_learner_array which, float *to, rd_error *err);
    /* Steps that the optimiser counts as done (resume), and weights averaged. */
    rd_status (*set_steps)(rd_learner *l, int64_t steps, int64_t averaged, rd_error *err);

    /* Passes from now on see the weights rounded to int8 rows (true) or as they are. Rounded anew after each step. */
    rd_status (*see_rounded)(rd_learner *l, bool rounded, rd_error *err);
    /* A pack of n rows, checked as rd_net_run checks it; scale as there. */
    rd_status (*submit)(rd_learner *l, rd_learner_pass pass, const rd_train_row *rows, int n, float scale, rd_error *err);
    /* The first choice of each labelled row of a pack (-1 elsewhere), a pass more; waits. */
    rd_status (*guess)(rd_learner *l, const rd_train_row *rows, int n, int32_t *best, rd_error *err);
    /* One step of the optimiser at rate `lr`, biases moved by the load, gradient zero again. `average`: the new weights
     * count in the mean, which begins anew when the step before did not count. */
    rd_status (*step)(rd_learner *l, float lr, bool average, rd_error *err);
    rd_status (*collect)(rd_learner *l, rd_learner_sums *out, rd_error *err);
} rd_learner_table;

/* The one symbol beside rd_backend_entry that a plugin may export. */
typedef const rd_learner_table *(*rd_learner_entry_fn)(void);

/* RD_INVALID, naming `name`, where the table is none that this build can drive: another ABI, or fewer verbs. */
rd_status rd_learner_accept(const rd_learner_table *t, const char *name, rd_error *err);

/* The linked-in one: `threads` devices of the CPU backend. */
const rd_learner_table *rd_cpu_learner(void);

#endif
