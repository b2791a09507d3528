/* offer.h - what comes of the model's answers: tidied, judged, and written as the client wants them.
 *
 * It keeps nothing and asks nobody. Loop thread.
 */
#ifndef RD_LSP_OFFER_H
#define RD_LSP_OFFER_H

#include "lsp/ask.h"
#include "lsp/peer.h"

/* What is shown of a job's answers, the best first. A zeroed struct is empty. */
typedef struct rd_offer {
    rd_buf text[RD_ANSWERS_MOST];
    float confidence[RD_ANSWERS_MOST];
    int n;
    double unsure;        /* the confidence of one that is below the gate; 0: there was none */
    const char *unworthy; /* what is wrong with one by its form (worth.h); NULL: there was none */
} rd_offer;

/* Fill an empty offer: different texts, none blank, and unasked only what is surer than `gate` and not wrong by its form. */
void rd_offer_fill(rd_offer *o, const rd_ask *a, const rd_document *doc, double gate,
                   const rd_event *ev);
void rd_offer_clear(rd_offer *o);

/* One item that puts `n` bytes, behind what a menu has chosen, in the place of [at, end). `rank` from 0; `serial` comes
 * back with redraft.accepted. */
json_t *rd_offer_item(const rd_lsp *l, const rd_ask *a, const rd_document *doc, const rd_buf *text,
                      size_t at, size_t end, uint64_t serial, int rank);
/* The result with these items, which it takes; NULL: with none. */
json_t *rd_offer_result(const rd_ask *a, json_t *items);
/* The params of `$/redraft/draft`: a whole snapshot of the denoising, which replaces the one before. */
json_t *rd_offer_draft(const rd_lsp *l, const rd_ask *a, const rd_document *doc,
                       const rd_event *ev);

#endif
