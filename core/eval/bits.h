/* bits.h - bits per byte from left to right, of a model and of the n-gram on the same pieces of text.
 *
 * The pieces are the first 1200 bytes behind the licence of the files that the cases come from, each file
 * once, 64 KB in all at most. A token is predicted from all tokens before it in its piece, as in the trainer's
 * measure, with weights as they are packed.
 */
#ifndef RD_EVAL_BITS_H
#define RD_EVAL_BITS_H

#include "core/eval/cases.h"
#include "core/eval/floors.h"
#include "core/train/backward.h"

/* NaN where the trainer does not know such a shape, or the tokenizer has no tags of ours. */
rd_status rd_bits_model(const rd_cases *c, const char *model, rd_product product, double *out,
                        rd_error *err);
double rd_bits_ngram(const rd_cases *c, rd_floor_ngram *g);

#endif
