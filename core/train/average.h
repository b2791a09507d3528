/* average.h - several models of one shape and tokenizer to the one whose weights are their mean.
 *
 * Of use for runs that share their start: late checkpoints of one run, or runs that went on from one model. Weights of runs
 * from nothing have nothing to do with each other, and their mean is no model.
 * Source: arXiv 2512.15745 section 4.3 (top-k checkpoint merge).
 */
#ifndef RD_TRAIN_AVERAGE_H
#define RD_TRAIN_AVERAGE_H

#include "core/base/status.h"

/* Read the models in `n` folders and write their mean to `out` as BF16, with the tokenizer and the config of the
 * first; a calibration stays where all have the same. RD_INVALID, and nothing written, where shapes or tokenizers
 * differ, a weight is not finite, or `out` is one of the models. */
rd_status rd_models_average(const char *const *dir, int n, const char *out, rd_error *err);

#endif
