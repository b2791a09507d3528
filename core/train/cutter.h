/* cutter.h - places in the documents of a corpus: windows, lines, holes in the editor's layout, drafts for them.
 *
 * A cutter owns the scratch that one sample needs: what it hands out is valid until its next call that hands out the
 * same. Draws from the random state it is given alone. One thread at a time.
 */
#ifndef RD_TRAIN_CUTTER_H
#define RD_TRAIN_CUTTER_H

#include "core/decode/prompt.h"
#include "core/train/bpe.h"
#include "core/train/corpus.h"
#include "core/train/faults.h"
#include "core/train/objective.h"

enum {
    RD_HOLE_MOST = 96, /* tokens of a hole */
    RD_ANCHOR_MOST = 32
};

typedef struct rd_span {
    int start, end; /* tokens of a document */
} rd_span;

typedef struct rd_cutter {
    rd_bpe *bpe;
    rd_objective_tokens tokens;
    rd_layout_ids ids;
    uint8_t *flags;
    rd_ids made, context; /* scratch */
    rd_buf text, before, after, wrong, names;
    const uint16_t *names_of; /* the document whose text stands in `names` */
    size_t names_bytes;
} rd_cutter;

/* Borrows `bpe`. */
rd_cutter *rd_cutter_new(rd_bpe *bpe);
void rd_cutter_free(rd_cutter *c);

/* The line around token `at`, from behind its indent to before the newline. */
rd_span rd_cut_line(const rd_cutter *c, const rd_corpus_doc *d, int at);
/* The span and up to `lines` lines more, at most RD_HOLE_MOST tokens; `block`: while none is indented less. */
rd_span rd_cut_lines(const rd_cutter *c, const rd_corpus_doc *d, rd_span s, int lines, bool block);

/* A hole at a span in the editor's layout: its context, text, anchor and block; the rest is zero. With `inside` its
 * ends fall on any character of the span's lines. False: it became too long. */
bool rd_cut_hole(rd_cutter *c, const rd_corpus_doc *d, rd_span s, bool inside,
                 const rd_layout *layout, rd_random *random, rd_hole *out);

/* Append a line of the same file that stands among lines like the span's, as the engine finds it. False: none. */
bool rd_cut_similar(rd_cutter *c, const rd_corpus_doc *d, rd_span s, rd_random *random,
                    rd_ids *out);
/* Append the text of tokens with so many faults of drawn kinds (faults.h), encoded again as an editor's text is. False:
 * it has no place for one. */
bool rd_cut_faulty(rd_cutter *c, const rd_corpus_doc *d, const int32_t *text, int n, int faults,
                   rd_random *random, rd_ids *out);

#endif
