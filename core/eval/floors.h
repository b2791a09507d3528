/* floors.h - what answers without a model: the marks that a model must beat on the same cases.
 *
 * empty: nothing. unigram: the commonest hole of the cases of the same kind and language, if it is there twice: the
 * best that a fixed answer can do, known only afterwards. copied line: what stands at the most alike place of the
 * same file. n-gram: the most frequent follower of the longest known context, token by token up to the end
 * of the line or where the text on the right goes on; a token that the cursor may have cut is completed
 * first. Read-only on the cases.
 */
#ifndef RD_EVAL_FLOORS_H
#define RD_EVAL_FLOORS_H

#include "core/eval/cases.h"

/* For each case the case whose hole is answered; -1: none is there twice. */
void rd_floor_unigram(const rd_cases *c, int *out);

/* Append the copied text; nothing where the file has no other line.
 * With nothing before the hole on its line: all other lines are compared by what stands around them (two lines
 * above, two below, the nearer ones twice; white space at the ends left out; two lines are alike by the share of
 * the longer one that they have in common at both ends), the most alike one is copied, on equality the nearest.
 * With text before the hole: the place, in another line, that has the longest end of that text in front
 * of it, on equality the nearest. What follows is copied up to where the text right of the hole goes on,
 * or to the end of the line. For a hole of several lines (which the floor is told) the copy goes on until the
 * line below it is the one below the hole, five lines at most; where there is none it is one line. */
void rd_floor_copy(const rd_cases *c, int i, rd_buf *out);

typedef struct rd_floor_ngram rd_floor_ngram;

/* Over the training text of PACK (corpus.rdc, tokenizer.json). */
rd_status rd_floor_ngram_open(const char *pack, rd_floor_ngram **out, rd_error *err);
void rd_floor_ngram_close(rd_floor_ngram *g);
void rd_floor_ngram_answer(rd_floor_ngram *g, const rd_cases *c, int i, rd_buf *out);
/* Bits that a text costs from left to right. */
double rd_floor_ngram_bits(rd_floor_ngram *g, const char *text, size_t n);

#endif
