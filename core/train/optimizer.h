/* optimizer.h - from gradients to new weights: AdamW, or Muon on the matrices.
 *
 * Muon makes each matrix's step orthogonal (five Newton-Schulz rounds on the Nesterov momentum) and
 * scales it to AdamW's usual size; embedding, router and norms stay with AdamW. Expert biases move
 * by the sign of their load's difference from the mean, whatever the optimiser. Results do not
 * depend on the number of threads.
 *
 * Sources: Loshchilov and Hutter 2019 (AdamW); Jordan 2024 (Muon); arXiv 2502.16982 (its scaling);
 * arXiv 2408.15664 (balancing by bias).
 */
#ifndef RD_TRAIN_OPTIMIZER_H
#define RD_TRAIN_OPTIMIZER_H

#include "core/train/backward.h"
#include "core/train/pool.h"

typedef struct rd_optimizer_options {
    bool muon;
    float beta1, beta2, eps, decay, clip; /* clip: norm of the whole gradient; 0: none */
    float momentum;                       /* Muon's */
    float bias_rate;                      /* a step of an expert bias */
} rd_optimizer_options;

rd_optimizer_options rd_optimizer_defaults(void);

typedef struct rd_optimizer rd_optimizer;

/* Borrows all; `products` has one entry for each thread of the pool. */
rd_status rd_optimizer_open(const rd_params *p, const rd_optimizer_options *o, rd_pool *pool,
                            const rd_product *products, rd_optimizer **out, rd_error *err);
void rd_optimizer_close(rd_optimizer *o);

/* One step on `w` from `grad` at learning rate `lr`. `load` [layers * experts] are the rows that
 * each expert had, or NULL. *norm is the gradient's before clipping. RD_INVALID, and nothing
 * changed, when the gradient is not finite. */
rd_status rd_optimizer_step(rd_optimizer *o, float *w, const float *grad, float lr,
                            const int64_t *load, double *norm, rd_error *err);

/* The state as a checkpoint keeps it: two arrays of p->size floats, and the steps done. */
float *rd_optimizer_moment(rd_optimizer *o, int which);
int64_t rd_optimizer_steps(const rd_optimizer *o);
void rd_optimizer_set_steps(rd_optimizer *o, int64_t steps);

#endif
