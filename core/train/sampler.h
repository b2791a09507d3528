/* sampler.h - what a first model is shown, and when: the mixture over a packed corpus.
 *
 * Early: next tokens, half of them with the suffix first. Later: mostly holes in the editor's layout,
 * some masked whole windows, some with wrong tokens, and enough next tokens not to forget them.
 * Holes are lines, parts of lines, several lines, a block by its indent, spans cut inside tokens, and
 * nothing at all; beside masks they hold drafts: similar lines of the same file, and the right text with
 * faults. Draws from the random state it is given alone.
 */
#ifndef RD_TRAIN_SAMPLER_H
#define RD_TRAIN_SAMPLER_H

#include "core/train/bpe.h"
#include "core/train/corpus.h"
#include "core/train/trainer.h"

typedef struct rd_mixture rd_mixture;

/* Borrows the corpus; `bpe` has the corpus' merges and is used to cut inside tokens. */
rd_status rd_mixture_open(const rd_corpus *corpus, rd_bpe *bpe, rd_mixture **out, rd_error *err);
/* For a run that starts from a trained model: no long start with next tokens. */
void rd_mixture_continue(rd_mixture *m);
void rd_mixture_close(rd_mixture *m);
rd_sampler rd_mixture_sampler(rd_mixture *m);

/* Packs of next-token rows over pieces of `piece` tokens of the held-out files, evenly spread, about
 * `tokens` in all; *bytes are the labelled tokens'. */
void rd_mixture_held_out(rd_mixture *m, int tokens, int piece, int pack_rows, rd_rows **packs,
                         int *n, int64_t *bytes);

#endif
