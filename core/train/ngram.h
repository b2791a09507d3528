/* ngram.h - the floor that a model must beat: an interpolated n-gram over the training tokens.
 *
 * Contexts of up to RD_NGRAM_MOST tokens are looked up in a sorted list of all places of the text; each
 * length is interpolated with the next shorter one by the number of different tokens that followed
 * (Witten and Bell 1991), down to the uniform distribution. Needs six bytes a token of text.
 */
#ifndef RD_TRAIN_NGRAM_H
#define RD_TRAIN_NGRAM_H

#include "core/base/status.h"

#include <stdbool.h>
#include <stdint.h>

enum { RD_NGRAM_MOST = 24 };

typedef struct rd_ngram rd_ngram;

/* Copies the text. Ids must lie below `vocab`. */
rd_status rd_ngram_open(const uint16_t *ids, int64_t n, int vocab, rd_ngram **out, rd_error *err);
void rd_ngram_close(rd_ngram *g);
/* Bits that `n` tokens cost from left to right, with no context before the first. */
double rd_ngram_bits(const rd_ngram *g, const uint16_t *ids, int n);
/* The most frequent follower of the longest end of `context` (its last RD_NGRAM_MOST tokens at most) that was
 * seen with one that is allowed (NULL: all are); the lowest id of equals. False: the text has none. */
bool rd_ngram_next(const rd_ngram *g, const uint16_t *context, int n,
                   bool (*allowed)(void *user, uint16_t id), void *user, uint16_t *out);

#endif
