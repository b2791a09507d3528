/* sampler.h - samples for a run: the mixture (mixture.h) drawn over a packed corpus.
 *
 * Early: next tokens, half of them with the suffix first. Later: mostly holes in the editor's layout,
 * some masked whole windows, some with wrong tokens, and enough next tokens not to forget them.
 * Holes are lines, parts of lines, several lines, a block by its indent, spans cut inside tokens, and
 * nothing at all; beside masks they hold drafts: similar lines of the same file, and the right text with
 * faults. Rewrites are spans of one to three lines as the engine's rewrite shows them, usually with one fault. Draws
 * from the random state it is given alone.
 */
#ifndef RD_TRAIN_SAMPLER_H
#define RD_TRAIN_SAMPLER_H

#include "core/train/bpe.h"
#include "core/train/corpus.h"
#include "core/train/mixture.h"
#include "core/train/trainer.h"

typedef struct rd_mixture rd_mixture;

/* Borrows the corpus; `bpe` has the corpus' merges and is used to cut inside tokens. */
rd_status rd_mixture_open(const rd_corpus *corpus, rd_bpe *bpe, const rd_mixture_options *o,
                          rd_mixture **out, rd_error *err);
void rd_mixture_close(rd_mixture *m);
rd_sampler rd_mixture_sampler(rd_mixture *m);

#endif
