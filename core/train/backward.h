/* backward.h - the model as the trainer runs it: forward with everything kept, then backward.
 *
 * A pack is a list of rows, each a token with a position and two ranges of rows that it sees. That
 * covers the doubled sequence (clean rows see clean rows up to the end of their block, noisy rows
 * see the clean rows of earlier blocks and their own block), next-token training as blocks of one,
 * several noisy copies over one clean half, and document masks. A row with a label adds weight times
 * its cross-entropy to the loss; logits exist for such rows only, a chunk at a time. One that is right may be asked
 * to be sure as well: CAP's term is its entropy (arXiv 2512.15745 section 5.2).
 *
 * A net belongs to one thread at a time; results depend on the pack alone.
 * Sources: LLaDA2.x modeling_llada2_moe.py; arXiv 2512.15745 section 4 (doubled sequence).
 */
#ifndef RD_TRAIN_BACKWARD_H
#define RD_TRAIN_BACKWARD_H

#include "core/backend.h"
#include "core/train/params.h"

enum { RD_TASKS = 4 }; /* losses are told apart by at most so many kinds of row */

/* Matrix products, borrowed: a backend's verb and its device. */
typedef struct rd_product {
    rd_device *device;
    rd_status (*gemm)(rd_device *d, bool ta, bool tb, int m, int n, int k, const float *a, int lda,
                      const float *b, int ldb, float beta, float *c, int ldc, rd_error *err);
} rd_product;

typedef struct rd_train_row {
    int32_t token, position;
    int32_t clean_start, clean_end; /* rows seen; an empty range sees none */
    int32_t own_start, own_end;     /* rows seen as well; apart from the first range */
    int32_t label;                  /* -1: none */
    float weight;
    float confidence; /* CAP: weight of the entropy of a row whose first choice is its label */
    int32_t task;     /* 0 .. RD_TASKS - 1: where the loss is counted */
} rd_train_row;

/* Neighbouring rows that are worth computing together, and the ranges that they see between them. */
typedef struct rd_train_tile {
    int rows;
    int clean_start, clean_end, own_start, own_end; /* an empty range: its end is its start */
} rd_train_tile;

/* The tile of at most `most` of the rows [first, n), from `first` on. */
static inline rd_train_tile rd_train_tile_of(const rd_train_row *row, int n, int first, int most)
{
    int cs = row[first].clean_start, ce = row[first].clean_end;
    int os = row[first].own_start, oe = row[first].own_end;
    bool has_clean = ce > cs, has_own = oe > os;
    int i = first + 1;

    for (; i < n && i < first + most; i++) {
        const rd_train_row *r = &row[i];
        bool clean = r->clean_end > r->clean_start, own = r->own_end > r->own_start;

        if (clean && has_clean && r->clean_start != cs) break;
        if (own != has_own) break;
        if (clean && !has_clean) {
            cs = r->clean_start;
            ce = r->clean_end;
            has_clean = true;
        }
        if (clean && r->clean_end > ce) ce = r->clean_end;
        if (own && r->own_start < os) os = r->own_start;
        if (own && r->own_end > oe) oe = r->own_end;
    }
    rd_train_tile tile = { i - first, cs, has_clean ? ce : cs, os, has_own ? oe : os };

    return tile;
}

enum {
    RD_TRAIN_TILE = 32
}; /* rows of a tile of the CPU's attention, by which its arithmetic is counted */

typedef struct rd_train_stats {
    double loss[RD_TASKS];   /* sums of weight * cross-entropy */
    double weight[RD_TASKS]; /* sums of weights */
    double entropy;          /* sum of confidence * entropy of the rows that are right */
    int64_t labels[RD_TASKS], right[RD_TASKS];
    double flops;  /* arithmetic of the model done, forward and backward */
    int64_t *load; /* [layers * experts] rows sent to each expert; borrowed, may be NULL */
} rd_train_stats;

typedef struct rd_net rd_net;

/* Room for packs of up to `rows` rows. Borrows `p`. */
rd_status rd_net_open(const rd_params *p, rd_product product, int rows, rd_net **out,
                      rd_error *err);
void rd_net_close(rd_net *net);

/* RD_INVALID for a pack that is empty or has more than `room` rows, for a row that points outside the pack or the vocabulary,
 * or sees nothing. */
rd_status rd_net_check(const rd_params *p, int room, const rd_train_row *rows, int n,
                       rd_error *err);

/* Forward on `w` [p->size]; with `grad` not NULL also backward, adding to grad the gradient of
 * `scale` times the sum of weight * cross-entropy and confidence * entropy. Adds to `stats`. Checks
 * the pack as rd_net_check does. */
rd_status rd_net_run(rd_net *net, const float *w, const rd_train_row *rows, int n, float scale,
                     float *grad, rd_train_stats *stats, rd_error *err);

/* After rd_net_run: minus the log-probability of each row's label, 0 where it has none. */
const float *rd_net_surprise(const rd_net *net);
/* After rd_net_run: the first choice of each row with a label, -1 elsewhere. */
const int32_t *rd_net_best(const rd_net *net);
/* After rd_net_run: the experts of layer `l` that each row went to, [rows * num_experts_per_tok];
 * NULL in a dense layer. A loss has a slope only where these stand still. */
const int32_t *rd_net_routes(const rd_net *net, int l);

#endif
