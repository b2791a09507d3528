/* kv.c - places of the storage, a hash of the blocks that stand there, and who used them last.
 *
 * A block that nobody holds stays until its place is wanted. A block's `before` is compared by key and
 * tokens only, as the earlier block may have gone; the chain of keys names everything before it.
 */
#include "core/model/kv.h"

#include "core/base/memory.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

typedef struct place {
    rd_kv_block *block; /* NULL: free */
    uint64_t used;      /* when it was last wanted */
    bool published;
} place;

struct rd_kv_pool {
    place *places;
    int n, block_size;
    uint64_t clock;
    int *slots; /* of keys: place + 1 */
    int slots_n;
    rd_kv_stats stats;
};

static const uint64_t root = 0x243f6a8885a308d3u;

static uint64_t next_key(uint64_t key, const int32_t *tokens, int n)
{
    for (int i = 0; i < n; i++) {
        key ^= (uint32_t)tokens[i];
        key *= 0x9e3779b97f4a7c15u;
        key ^= key >> 32;
    }
    return key;
}

rd_kv_pool *rd_kv_pool_new(int places, int block_size)
{
    rd_kv_pool *p = rd_alloc0(sizeof *p);

    p->n = places;
    p->block_size = block_size;
    p->places = rd_alloc_array((size_t)places + 1, sizeof *p->places);
    for (p->slots_n = 16; p->slots_n < 4 * places; p->slots_n *= 2) {
    }
    p->slots = rd_alloc_array((size_t)p->slots_n, sizeof *p->slots);
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

static rd_kv_block *find(rd_kv_pool *p, uint64_t key, const rd_kv_block *before,
                         const int32_t *tokens)
{
    uint64_t before_key = before ? before->key : root;

    for (uint64_t i = key;; i++) {
        int at = p->slots[i & (uint64_t)(p->slots_n - 1)];

        if (!at) return NULL;
        rd_kv_block *b = p->places[at - 1].block;

        if (b->key == key && !memcmp(b->tokens, tokens, (size_t)p->block_size * sizeof *tokens) &&
            next_key(before_key, b->tokens, p->block_size) == key)
            return b;
    }
}

/* Rebuilt whole: blocks come and go rarely, and open addressing cannot forget single entries. */
static void index_again(rd_kv_pool *p)
{
    memset(p->slots, 0, (size_t)p->slots_n * sizeof *p->slots);
    for (int i = 0; i < p->n; i++) {
        if (!p->places[i].block || !p->places[i].published) continue;
        uint64_t at = p->places[i].block->key;

        while (p->slots[at & (uint64_t)(p->slots_n - 1)]) at++;
        p->slots[at & (uint64_t)(p->slots_n - 1)] = i + 1;
    }
}

static void empty(rd_kv_pool *p, int i)
{
    bool indexed = p->places[i].published;

    free(p->places[i].block);
    p->places[i] = (place){ 0 };
    p->stats.used--;
    if (indexed) index_again(p);
}

int rd_kv_match(rd_kv_pool *p, const int32_t *tokens, int n, rd_kv_block **out)
{
    uint64_t key = root;
    int blocks = 0;

    for (; (blocks + 1) * p->block_size <= n; blocks++) {
        const int32_t *t = tokens + blocks * p->block_size;

        key = next_key(key, t, p->block_size);
        rd_kv_block *b = find(p, key, blocks > 0 ? out[blocks - 1] : NULL, t);

        if (!b) break;
        p->places[b->place].used = ++p->clock;
        out[blocks] = rd_kv_ref(b);
    }
    p->stats.asked += n / p->block_size;
    p->stats.found += blocks;
    return blocks;
}

static int free_place(rd_kv_pool *p)
{
    int oldest = -1;

    for (int i = 0; i < p->n; i++) {
        if (!p->places[i].block) return i;
        if (p->places[i].block->refs > 0) continue;
        if (oldest < 0 || p->places[i].used < p->places[oldest].used) oldest = i;
    }
    if (oldest >= 0) {
        empty(p, oldest);
        p->stats.evicted++;
    }
    return oldest;
}

rd_status rd_kv_take(rd_kv_pool *p, const rd_kv_block *before, const int32_t *tokens,
                     rd_kv_block **out, rd_error *err)
{
    size_t bytes = (size_t)p->block_size * sizeof *tokens;
    uint64_t key = next_key(before ? before->key : root, tokens, p->block_size);
    int i = free_place(p);

    if (i < 0)
        return rd_fail(err, RD_NO_MEMORY, "all %d blocks of keys and values are in use", p->n);
    rd_kv_block *b = rd_alloc0(sizeof *b + bytes);

    *b = (rd_kv_block){ .place = i, .key = key, .before = before, .refs = 1 };
    memcpy(b->tokens, tokens, bytes);
    p->places[i] = (place){ .block = b, .used = ++p->clock };
    p->stats.used++;
    *out = b;
    return RD_OK;
}

rd_kv_block *rd_kv_publish(rd_kv_pool *p, rd_kv_block *b)
{
    rd_kv_block *same = find(p, b->key, b->before, b->tokens); /* the run holds `before` */

    if (same == b) return b;
    if (same) {
        rd_kv_ref(same);
        rd_kv_unref(p, b);
        return same;
    }
    p->places[b->place].published = true;
    index_again(p);
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

rd_kv_stats rd_kv_pool_stats(const rd_kv_pool *p)
{
    return p->stats;
}
