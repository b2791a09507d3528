/* kv.c - places of the storage, an index of the blocks that stand there, and in which order they were used.
 *
 * Places stand in one of two lists: free ones, and taken ones with the least recently used first. The index is open
 * addressing over the keys' first bytes, which are as good as random; an entry that goes pulls the ones behind it forward.
 */
#include "core/model/kv.h"

#include "core/base/memory.h"
#include "core/model/kv_store.h"

#include <stdlib.h>
#include <string.h>

typedef struct place {
    rd_kv_block *block; /* NULL: free */
    int before, after;  /* in the order of use; -1: the end. A free place has `after` alone */
    bool published;
} place;

struct rd_kv_pool {
    place *places;
    int n, block_size;
    int free, oldest, newest; /* -1: none */
    int *slots;               /* of keys: place + 1 */
    size_t slots_n;           /* a power of two, at least four times the places */
    rd_kv_stats stats;
};

rd_kv_pool *rd_kv_pool_new(int places, int block_size)
{
    rd_kv_pool *p = rd_alloc0(sizeof *p);

    p->n = places;
    p->block_size = block_size;
    p->places = rd_alloc_array((size_t)places + 1, sizeof *p->places);
    for (p->slots_n = 16; p->slots_n < 4 * (size_t)places; p->slots_n *= 2) {
    }
    p->slots = rd_alloc_array(p->slots_n, sizeof *p->slots);
    p->free = p->oldest = p->newest = -1;
    for (int i = places - 1; i >= 0; i--) {
        p->places[i].after = p->free;
        p->free = i;
    }
    p->stats.places = places;
    return p;
}

void rd_kv_pool_free(rd_kv_pool *p)
{
    if (!p) return;
    for (int i = 0; i < p->n; i++) free(p->places[i].block);
    free(p->places);
    free(p->slots);
    free(p);
}

/* ---- keys ---- */

rd_key rd_kv_key(const rd_kv_pool *p, const rd_kv_origin *o, const rd_key *before,
                 const int32_t *tokens)
{
    rd_key_maker k;

    rd_key_begin(&k, "kv block");
    rd_key_add(&k, before ? before : &o->root, sizeof(rd_key));
    for (int i = 0; i < p->block_size; i++) rd_key_add_number(&k, tokens[i]);
    return rd_key_end(&k);
}

rd_key rd_kv_source(const char *name)
{
    rd_key_maker k;

    if (!name) return (rd_key){ { 0 } };
    rd_key_begin(&k, "source");
    rd_key_add_text(&k, name);
    return rd_key_end(&k);
}

static size_t home_of(const rd_kv_pool *p, const rd_key *key)
{
    uint64_t first;

    memcpy(&first, key->byte, sizeof first);
    return (size_t)first & (p->slots_n - 1);
}

/* The slot of the key, or the free one where it would go. */
static size_t slot_of(const rd_kv_pool *p, const rd_key *key)
{
    size_t i = home_of(p, key);

    while (p->slots[i] && !rd_key_equal(&p->places[p->slots[i] - 1].block->key, key))
        i = (i + 1) & (p->slots_n - 1);
    return i;
}

static rd_kv_block *find(const rd_kv_pool *p, const rd_key *key, const int32_t *tokens)
{
    int at = p->slots[slot_of(p, key)];

    if (!at) return NULL;
    rd_kv_block *b = p->places[at - 1].block;

    return memcmp(b->tokens, tokens, (size_t)p->block_size * sizeof *tokens) ? NULL : b;
}

/* Behind the gap come keys that would stand before it, but for the one that goes: they move up. */
static void unindex(rd_kv_pool *p, const rd_kv_block *b)
{
    size_t mask = p->slots_n - 1, gap = slot_of(p, &b->key);

    for (size_t i = (gap + 1) & mask; p->slots[i]; i = (i + 1) & mask) {
        size_t home = home_of(p, &p->places[p->slots[i] - 1].block->key);

        if (((i - home) & mask) < ((i - gap) & mask)) continue;
        p->slots[gap] = p->slots[i];
        gap = i;
    }
    p->slots[gap] = 0;
}

/* ---- places ---- */

static void leave_order(rd_kv_pool *p, int i)
{
    place *at = &p->places[i];

    if (at->before >= 0) p->places[at->before].after = at->after;
    if (at->after >= 0) p->places[at->after].before = at->before;
    if (p->oldest == i) p->oldest = at->after;
    if (p->newest == i) p->newest = at->before;
}

static void join_order(rd_kv_pool *p, int i)
{
    p->places[i].before = p->newest;
    p->places[i].after = -1;
    if (p->newest >= 0) p->places[p->newest].after = i;
    p->newest = i;
    if (p->oldest < 0) p->oldest = i;
}

static void use(rd_kv_pool *p, int i)
{
    leave_order(p, i);
    join_order(p, i);
}

static void unpublish(rd_kv_pool *p, int i)
{
    if (!p->places[i].published) return;
    unindex(p, p->places[i].block);
    p->places[i].published = false;
}

static void empty(rd_kv_pool *p, int i)
{
    unpublish(p, i);
    leave_order(p, i);
    free(p->places[i].block);
    p->places[i] = (place){ .after = p->free };
    p->free = i;
    p->stats.used--;
}

/* The end of a chain goes before what it stands on: a block without those before it is never found. */
static void evict_oldest(rd_kv_pool *p)
{
    int i = p->oldest;

    while (i >= 0 && p->places[i].block->refs > 0) i = p->places[i].after;
    if (i < 0) return;
    empty(p, i);
    p->stats.evicted++;
}

/* ---- the face ---- */

/* A chain is used as a whole: its last block becomes the oldest of it. */
int rd_kv_match(rd_kv_pool *p, const rd_kv_origin *o, const int32_t *tokens, int n,
                rd_kv_block **out)
{
    int blocks = 0;

    for (; (blocks + 1) * p->block_size <= n; blocks++) {
        const int32_t *t = tokens + blocks * p->block_size;
        rd_key key = rd_kv_key(p, o, blocks > 0 ? &out[blocks - 1]->key : NULL, t);
        rd_kv_block *b = find(p, &key, t);

        if (!b) break;
        out[blocks] = rd_kv_ref(b);
    }
    for (int i = blocks - 1; i >= 0; i--) use(p, out[i]->place);
    return blocks;
}

rd_status rd_kv_take(rd_kv_pool *p, const rd_kv_origin *o, const rd_kv_block *before,
                     const int32_t *tokens, rd_kv_block **out, rd_error *err)
{
    size_t bytes = (size_t)p->block_size * sizeof *tokens;

    if (p->free < 0) evict_oldest(p);
    if (p->free < 0)
        return rd_fail(err, RD_NO_MEMORY, "all %d blocks of keys and values are in use", p->n);
    rd_kv_block *b = rd_alloc0(sizeof *b + bytes);
    int i = p->free;

    p->free = p->places[i].after;
    *b = (rd_kv_block){ .place = i,
                        .key = rd_kv_key(p, o, before ? &before->key : NULL, tokens),
                        .source = o->source,
                        .unstored = o->unstored,
                        .refs = 1 };
    memcpy(b->tokens, tokens, bytes);
    p->places[i] = (place){ .block = b };
    join_order(p, i);
    p->stats.used++;
    *out = b;
    return RD_OK;
}

rd_kv_block *rd_kv_publish(rd_kv_pool *p, rd_kv_block *b)
{
    size_t slot = slot_of(p, &b->key);

    if (p->places[b->place].published) return b;
    if (p->slots[slot]) {
        rd_kv_block *same = rd_kv_ref(p->places[p->slots[slot] - 1].block);

        rd_kv_unref(p, b);
        return same;
    }
    p->slots[slot] = b->place + 1;
    p->places[b->place].published = true;
    return b;
}

rd_kv_block *rd_kv_ref(rd_kv_block *b)
{
    b->refs++;
    return b;
}

void rd_kv_unref(rd_kv_pool *p, rd_kv_block *b)
{
    if (!b || --b->refs > 0) return;
    if (!p->places[b->place].published) empty(p, b->place);
}

void rd_kv_forget(rd_kv_pool *p, const rd_key *source)
{
    for (int i = 0; i < p->n; i++) {
        rd_kv_block *b = p->places[i].block;

        if (!b || (source && !rd_key_equal(&b->source, source))) continue;
        b->unstored = true;
        if (b->refs > 0)
            unpublish(p, i);
        else
            empty(p, i);
    }
}

rd_kv_stats rd_kv_pool_stats(const rd_kv_pool *p)
{
    return p->stats;
}
