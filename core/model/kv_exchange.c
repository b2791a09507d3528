/* kv_exchange.c - see kv_exchange.h. Where the host cannot see the device's memory, a copy stands between. */
#include "core/model/kv_exchange.h"

#include "core/base/clock.h"
#include "core/base/memory.h"

#include <stdlib.h>

enum {
    PINNED_SHARE = 4,
    AT_ONCE = 16
}; /* AT_ONCE: blocks of one load, between two looks at the flag */

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
    char *room;   /* for AT_ONCE blocks on their way to the device; NULL: not needed */
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

/* Where the store puts block `i` of a load: the storage itself, or room for a copy. NULL: there is no memory. */
static void *room_for(rd_kv_exchange *x, const rd_kv_block *b, int i)
{
    void *host = rd_model_kv_host(x->model, b->place);

    if (host) return host;
    if (!x->room) x->room = rd_try_alloc_array(AT_ONCE, x->bytes);
    return x->room ? x->room + (size_t)i * x->bytes : NULL;
}

static bool arrived(rd_kv_exchange *x, const rd_kv_want *w, const rd_kv_block *b)
{
    return rd_model_kv_host(x->model, b->place) == w->to ||
           !rd_model_kv_write(x->model, b->place, w->to, NULL);
}

/* Up to `n` blocks of the chain behind `before` out of the store, published; how many there were. */
static int load_blocks(rd_kv_exchange *x, const rd_kv_origin *o, const rd_kv_block *before,
                       const int32_t *tokens, int n, rd_kv_block **out)
{
    rd_kv_want wants[AT_ONCE];
    int taken = 0, got = 0;

    for (; taken < n; taken++) {
        rd_kv_block *b;

        if (rd_kv_take(x->pool, o, before, tokens + taken * x->geometry.block_tokens, &b, NULL))
            break;
        void *to = room_for(x, b, taken);

        if (!to) {
            rd_kv_unref(x->pool, b);
            break;
        }
        wants[taken] = (rd_kv_want){ b->key, b->tokens, to };
        out[taken] = b;
        before = b;
    }
    int there = taken > 0 ? x->store->load(x->store->user, wants, taken) : 0;

    while (got < there && arrived(x, &wants[got], out[got])) {
        out[got]->stored = true;
        out[got] = rd_kv_publish(x->pool, out[got]);
        got++;
    }
    for (int i = got; i < taken; i++) rd_kv_unref(x->pool, out[i]);
    return got;
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

    while (at < have + more && !rd_cancelled(cancel)) {
        int want = have + more - at < AT_ONCE ? have + more - at : AT_ONCE;
        int got = load_blocks(x, o, at > 0 ? blocks[at - 1] : NULL,
                              tokens + at * x->geometry.block_tokens, want, blocks + at);

        at += got;
        if (got < want) break;
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
