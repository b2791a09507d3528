/* doubt.h - from the probability of each token to the words that are doubtful.
 *
 * A token is doubtful where it is unlikely and another one is likely; white space never is. For people it is the whole
 * word that is shown, with what the model would write there. Pure; any thread.
 *
 * The limits come from the built-in model on six files of 1661 lines and 24 faults seeded one by one. What is shown unasked must be
 * rare: 0.01 and 0.9 flag some five words in a hundred lines of sound code. What is to be mended was pointed at, and
 * the rewrite judges again: 0.05 and 0.5 found 8 of the 24, the first limits 3.
 */
#ifndef RD_LSP_DOUBT_H
#define RD_LSP_DOUBT_H

#include "core/base/buf.h"
#include "core/engine.h"

typedef enum rd_doubt_use {
    RD_DOUBT_SHOW,
    RD_DOUBT_MEND /* easier to doubt, and what stands close together is one */
} rd_doubt_use;

enum { RD_DOUBTS_MOST = 64 };

typedef struct rd_doubt {
    size_t start, end; /* bytes of the text, whole words */
    float p, p_best;   /* the least of its tokens */
    rd_buf best;       /* what the model would write there */
} rd_doubt;

/* Fill `out` with up to `most` doubts in the order of the text, none touching another. `s` are scores of `text`, ascending. Returns
 * their number; rd_doubts_clear gives them back. */
int rd_doubts_find(rd_doubt_use use, const char *text, size_t n, const rd_score *s, int n_scores,
                   rd_doubt *out, int most);
void rd_doubts_clear(rd_doubt *doubts, int n);
/* "`x` is unlikely here (3 %); the model would write `y` (91 %)" */
void rd_doubt_message(const rd_doubt *d, const char *text, rd_buf *out);

#endif
