/* measure.h - the fixed questions that every run is judged by, cut from the held-out files.
 *
 * The same files, lines and faults whatever the mixture, the seed of a run or the vocabulary: places are drawn by bytes.
 * Text from left to right gives bits per byte; holes of one line, all masks and of the true length, give bits per byte
 * of their text; the same holes with a canvas too long or too short tell whether the wrong length is seen; spans of one to
 * three lines with one fault, as a rewrite shows them, tell what is mended and what is left alone.
 */
#ifndef RD_TRAIN_MEASURE_H
#define RD_TRAIN_MEASURE_H

#include "core/train/bpe.h"
#include "core/train/corpus.h"
#include "core/train/trainer.h"

/* Packs of next-token rows over pieces of `piece` tokens of the held-out files, evenly spread, about `tokens` in
 * all, and `places` holes and as many rewrites; packs of about `pack_rows`. Empty where nothing is held out. The caller
 * clears it. */
void rd_held_make(const rd_corpus *corpus, rd_bpe *bpe, int tokens, int piece, int places,
                  int pack_rows, rd_held *out);
void rd_held_clear(rd_held *h);

#endif
