/* fit.h - the numbers of a model's confidence, fitted on holes whose right answers are known.
 *
 * What a run weighs against each other is chance() of core/decode/hole.c: the logistic function of a few sums. Its
 * factors are fitted by ridge regression, so that few holes, or only right or only wrong ones, end
 * in modest numbers. A text that the model finds likelier never counts less for it: where the data say so it is
 * noise, and the run's early ends rely on it. Pure functions of their arguments.
 */
#ifndef RD_EVAL_FIT_H
#define RD_EVAL_FIT_H

#include "core/decode/hole.h"
#include "core/format/config.h"

enum { RD_FIT_COLUMNS_MOST = 5 };

/* Observations: `right` is 1 / (1 + exp(-(out[0] + out[1] * x[0] + ...))) of the time. */
typedef struct rd_fit_rows {
    const double *x; /* [n, columns] */
    const bool *right;
    const double *weight; /* [n] */
    int n, columns;
    unsigned rising; /* bit k: column k never counts against; its factor stays at 0 instead */
} rd_fit_rows;

/* Base and factors, by Newton's method with one observation's worth of ridge on columns of unit spread. A column
 * that hardly varies counts nothing. Without rows the base says two in a hundred. */
void rd_fit_logistic(const rd_fit_rows *rows, double out[RD_FIT_COLUMNS_MOST + 1]);

typedef struct rd_fit_text {
    rd_hole_text is;
    bool right;
} rd_fit_text;

/* What one hole's run weighed. */
typedef struct rd_fit_hole {
    rd_fit_text own[RD_HOLE_CANVASES_MOST], draft;
    int n_own;
    bool has_draft;
    double weight;
} rd_fit_hole;

/* All numbers of `out` but the gate. The model's own text is that which its numbers choose: they are fitted in
 * turns with the choice. `lead` is the one that gives most right answers, near 1 where several do. */
void rd_fit_confidence(const rd_fit_hole *hole, int n, double take_draft, rd_confidence *out);

/* The text that a run would answer with these numbers, and its confidence. `drafts` false: the model alone. */
const rd_fit_text *rd_fit_answer(const rd_confidence *c, const rd_fit_hole *hole, double take_draft,
                                 bool drafts, double *confidence);

#endif
