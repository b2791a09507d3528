/* shelf.h - a store in memory, with switches for what a real one does wrong. */
#ifndef RD_TEST_SHELF_H
#define RD_TEST_SHELF_H

#include "core/base/memory.h"
#include "core/model/kv_store.h"

#include <stdlib.h>
#include <string.h>

enum { SHELF_MOST = 512 };

typedef struct shelf {
    struct {
        rd_key model, key, source;
        int32_t *tokens;
        void *bytes;
    } row[SHELF_MOST];
    int n;
    rd_kv_geometry g;
    int counts, loads, offers, told_loaded, told_computed, told_found;
    double saved_ms;
    bool refuses, loses, keeps_hold; /* offers; at loading; until the end */
    rd_kv_offer *held[SHELF_MOST];
    int n_held;
    bool ended;
} shelf;

static inline size_t shelf_bytes(const shelf *s)
{
    return (size_t)s->g.pieces * (size_t)s->g.piece * (size_t)s->g.bytes_each;
}

static inline void shelf_begin(void *user, const rd_kv_geometry *g)
{
    ((shelf *)user)->g = *g;
}

static inline int shelf_find(const shelf *s, const rd_key *key)
{
    for (int i = 0; i < s->n; i++)
        if (rd_key_equal(&s->row[i].key, key) && rd_key_equal(&s->row[i].model, &s->g.model))
            return i;
    return -1;
}

static inline int shelf_count(void *user, const rd_key *keys, int n)
{
    shelf *s = user;
    int have = 0;

    s->counts++;
    while (have < n && shelf_find(s, &keys[have]) >= 0) have++;
    return have;
}

static inline int shelf_load(void *user, const rd_kv_want *wants, int n)
{
    shelf *s = user;
    int got = 0;

    for (int k = 0; k < n; k++) memset(wants[k].to, 0xff, shelf_bytes(s)); /* garbage on a miss */
    for (; got < n; got++) {
        int i = shelf_find(s, &wants[got].key);

        s->loads++;
        if (s->loses || i < 0 ||
            memcmp(s->row[i].tokens, wants[got].tokens,
                   (size_t)s->g.block_tokens * sizeof(int32_t)) != 0)
            break;
        memcpy(wants[got].to, s->row[i].bytes, shelf_bytes(s));
    }
    return got;
}

static inline void shelf_take(shelf *s, rd_kv_offer *o)
{
    size_t tokens = (size_t)s->g.block_tokens * sizeof *o->tokens;

    if (shelf_find(s, &o->key) < 0 && s->n < SHELF_MOST) {
        s->row[s->n].model = s->g.model;
        s->row[s->n].key = o->key;
        s->row[s->n].source = o->source;
        s->row[s->n].tokens = rd_alloc0(tokens);
        memcpy(s->row[s->n].tokens, o->tokens, tokens);
        s->row[s->n].bytes = rd_alloc0(shelf_bytes(s));
        memcpy(s->row[s->n].bytes, o->bytes, shelf_bytes(s));
        s->n++;
    }
    atomic_store_explicit(&o->held, false, memory_order_release);
}

static inline bool shelf_offer(void *user, rd_kv_offer *o)
{
    shelf *s = user;

    if (s->refuses) return false;
    s->offers++;
    if (s->keeps_hold)
        s->held[s->n_held++] = o;
    else
        shelf_take(s, o);
    return true;
}

static inline void shelf_tell(void *user, int found, int loaded, int computed, double saved_ms)
{
    shelf *s = user;

    s->told_found += found;
    s->told_loaded += loaded;
    s->told_computed += computed;
    s->saved_ms += saved_ms;
}

static inline void shelf_end(void *user)
{
    shelf *s = user;

    for (int i = 0; i < s->n_held; i++) shelf_take(s, s->held[i]);
    s->n_held = 0;
    s->ended = true;
}

static inline rd_kv_store shelf_store(shelf *s)
{
    return (rd_kv_store){ .user = s,
                          .begin = shelf_begin,
                          .count = shelf_count,
                          .load = shelf_load,
                          .offer = shelf_offer,
                          .tell = shelf_tell,
                          .end = shelf_end };
}

static inline void shelf_clear(shelf *s)
{
    for (int i = 0; i < s->n; i++) {
        free(s->row[i].tokens);
        free(s->row[i].bytes);
    }
    *s = (shelf){ 0 };
}

#endif
