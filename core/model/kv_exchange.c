/* kv_exchange.c - see kv_exchange.h. Where the host cannot see the device's memory, a copy stands between. */
#include "core/model/kv_exchange.h"

#include "core/base/clock.h"
#include "core/base/memory.h"

#include <stdlib.h>

enum { PINNED_SHARE = 4 };

typedef struct offered {
    rd_kv_offer offer;
    rd_kv_block *block;
    void *copy; /* NULL: the storage itself is offered */
    struct offered *next;
} offered;

struct rd_kv_exchange {
    rd_model *model;
    rd_kv_pool *pool;
    const rd_kv_store *store;
    rd_kv_geometry geometry;
    size_t bytes; /* of a block */
    void *room;   /* for one block on its way to the device; NULL: not needed */
    offered *offers;
    rd_kv_traffic traffic;
};

rd_kv_exchange *rd_kv_exchange_new(rd_model *m, rd_kv_pool *p, const rd_kv_store *store)
{
    rd_kv_exchange *x = rd_alloc0(sizeof *x);

    *x = (rd_kv_exchange){ .model = m, .pool = p, .store = store, .bytes = rd_model_kv_bytes(m) };
    rd_model_kv_geometry(m, &x->geometry);
    if (store) store->begin(store->user, &x->geometry);
    return x;
}

void rd_kv_exchange_free(rd_kv_exchange *x)
{
    if (!x) return;
    if (x->store) x->store->end(x->store->user);
    rd_kv_exchange_sweep(x);
    free(x->room);
    free(x);
}

void rd_kv_exchange_sweep(rd_kv_exchange *x)
{
    for (offered **at = &x->offers, *o; (o = *at);) {
        if (atomic_load_explicit(&o->offer.held, memory_order_acquire)) {
            at = &o->next;
            continue;
        }
        *at = o->next;
        rd_kv_unref(x->pool, o->block);
        free(o->copy);
        free(o);
        x->traffic.pinned--;
    }
}

/* ---- to the store ---- */

/* What the store reads: the storage, or a copy of it. NULL: neither can be had. */
static const void *bytes_of(rd_kv_exchange *x, const rd_kv_block *b, void **copy)
{
    const void *host = rd_model_kv_host(x->model, b->place);

    if (host) return host;
    *copy = rd_try_alloc(x->bytes);
    if (*copy && rd_model_kv_read(x->model, b->place, *copy, NULL)) {
        free(*copy);
        *copy = NULL;
    }
    return *copy;
}

void rd_kv_exchange_offer(rd_kv_exchange *x, rd_kv_block *b)
{
    void *copy = NULL;

    if (!x->store || b->unstored || b->stored) return;
    rd_kv_exchange_sweep(x);
    if ((x->traffic.pinned + 1) * PINNED_SHARE > rd_kv_pool_stats(x->pool).places) return;
    const void *bytes = bytes_of(x, b, &copy);

    if (!bytes) return;
    offered *o = rd_alloc0(sizeof *o);

    o->offer =
        (rd_kv_offer){ .key = b->key, .source = b->source, .tokens = b->tokens, .bytes = bytes };
    atomic_init(&o->offer.held, true);
    o->block = rd_kv_ref(b);
    o->copy = copy;
    b->stored = x->store->offer(x->store->user, &o->offer);
    if (!b->stored) atomic_store(&o->offer.held, false);
    o->next = x->offers;
    x->offers = o;
    x->traffic.pinned++;
    x->traffic.offered += b->stored;
    if (!b->stored) rd_kv_exchange_sweep(x);
}

void rd_kv_exchange_computed(rd_kv_exchange *x, int blocks, double ms)
{
    x->traffic.computed += blocks;
    rd_kv_worth_computed(&x->traffic.worth, blocks, ms);
    if (x->store && blocks > 0) x->store->tell(x->store->user, 0, 0, blocks, 0.0);
}

/* ---- from the store ---- */

static bool fill(rd_kv_exchange *x, const rd_kv_block *b)
{
    void *host = rd_model_kv_host(x->model, b->place);

    if (host) return x->store->load(x->store->user, &b->key, b->tokens, host);
    if (!x->room) x->room = rd_try_alloc(x->bytes);
    return x->room && x->store->load(x->store->user, &b->key, b->tokens, x->room) &&
           !rd_model_kv_write(x->model, b->place, x->room, NULL);
}

/* The next block of the chain out of the store, published; NULL: it is not there, or there is no place for it. */
static rd_kv_block *load_block(rd_kv_exchange *x, const rd_kv_origin *o, const rd_kv_block *before,
                               const int32_t *tokens)
{
    rd_kv_block *b;

    if (rd_kv_take(x->pool, o, before, tokens, &b, NULL)) return NULL;
    if (!fill(x, b)) {
        rd_kv_unref(x->pool, b);
        return NULL;
    }
    b->stored = true;
    return rd_kv_publish(x->pool, b);
}

/* How many blocks behind the first `have` the store has, as far as it is worth. */
static int worth_loading(rd_kv_exchange *x, const rd_kv_origin *o, const int32_t *tokens, int n,
                         rd_kv_block **blocks, int have)
{
    int block = x->geometry.block_tokens, left = n / block - have;
    rd_key *keys = rd_alloc_array((size_t)left + 1, sizeof *keys);
    const rd_key *before = have > 0 ? &blocks[have - 1]->key : NULL;

    for (int i = 0; i < left; i++) {
        keys[i] = rd_kv_key(x->pool, o, before, tokens + (have + i) * block);
        before = &keys[i];
    }
    int there = left > 0 ? x->store->count(x->store->user, keys, left) : 0;

    free(keys);
    return rd_kv_worth_loading(&x->traffic.worth, there);
}

int rd_kv_exchange_load(rd_kv_exchange *x, const rd_kv_origin *o, const int32_t *tokens, int n,
                        rd_kv_block **blocks, int have, const rd_cancel *cancel)
{
    double start = rd_now_ms(), saved = x->traffic.worth.saved_ms;
    int at = have;

    x->traffic.found += have;
    if (!x->store) return have;
    rd_kv_exchange_sweep(x);
    for (int i = 0; i < have; i++)
        rd_kv_exchange_offer(x, blocks[i]); /* refused when they were new */
    int more = o->unstored ? 0 : worth_loading(x, o, tokens, n, blocks, have);

    for (; at < have + more && !(cancel && rd_cancelled(cancel)); at++) {
        blocks[at] = load_block(x, o, at > 0 ? blocks[at - 1] : NULL,
                                tokens + at * x->geometry.block_tokens);
        if (!blocks[at]) break;
    }
    x->traffic.loaded += at - have;
    rd_kv_worth_loaded(&x->traffic.worth, at - have, rd_now_ms() - start);
    x->store->tell(x->store->user, have, at - have, 0, x->traffic.worth.saved_ms - saved);
    return at;
}

void rd_kv_exchange_stat(const rd_kv_exchange *x, rd_kv_traffic *out)
{
    *out = x->traffic;
}
