/* kv_exchange.h - blocks between the pool and a store: loaded where that is faster than computing, offered when finished.
 *
 * Without a store it only counts. What is offered stays pinned in the pool until its taker lets go; a quarter of the pool at
 * most. One thread at a time, the one of model and pool.
 */
#ifndef RD_MODEL_KV_EXCHANGE_H
#define RD_MODEL_KV_EXCHANGE_H

#include "core/model/kv.h"
#include "core/model/kv_store.h"
#include "core/model/kv_worth.h"
#include "core/model/model.h"

typedef struct rd_kv_exchange rd_kv_exchange;

/* All are borrowed until free; `store` may be NULL. */
rd_kv_exchange *rd_kv_exchange_new(rd_model *m, rd_kv_pool *p, const rd_kv_store *store);
void rd_kv_exchange_free(rd_kv_exchange *x); /* after the last run; waits for the store to let go */

/* The first `have` blocks of `tokens` (n of them, whole blocks) are in `blocks`, from the pool: append what the store has of
 * the rest, published, a reference each. Returns the number of all. */
int rd_kv_exchange_load(rd_kv_exchange *x, const rd_kv_origin *o, const int32_t *tokens, int n,
                        rd_kv_block **blocks, int have, const rd_cancel *cancel);
/* `b` is published: the store may have it. */
void rd_kv_exchange_offer(rd_kv_exchange *x, rd_kv_block *b);
/* A pass computed so many blocks in so long. */
void rd_kv_exchange_computed(rd_kv_exchange *x, int blocks, double ms);
/* Give back what the store has let go. The rest of these does so too. */
void rd_kv_exchange_sweep(rd_kv_exchange *x);

typedef struct rd_kv_traffic {
    int64_t found, loaded, computed, offered;
    int pinned; /* offers that are not let go yet */
    rd_kv_worth worth;
} rd_kv_traffic;

void rd_kv_exchange_stat(const rd_kv_exchange *x, rd_kv_traffic *out);

#endif
