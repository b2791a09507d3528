/* kv_store.h - where finished blocks are kept beyond memory: a table that somebody else fills in.
 *
 * The engine asks it before it computes a block and offers it each new one. All calls come from the inference thread. What
 * is offered is counted and stays as it is until its taker lets go of it, from any thread; it is never copied on the way.
 */
#ifndef RD_MODEL_KV_STORE_H
#define RD_MODEL_KV_STORE_H

#include "core/base/key.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A block's bytes as the device keeps them: `pieces` runs of `piece` numbers, each the keys or the values of one
 * head in one layer. Other layouts are no concern of a store: `model` names them too. */
typedef struct rd_kv_geometry {
    rd_key
        model; /* weights, config, tokenizer, layout, numerics: blocks of another are never seen */
    int pieces, piece;
    int bytes_each;   /* of a number: 4, float32; 2, bf16 */
    int block_tokens; /* tokens of one block */
} rd_kv_geometry;

typedef struct rd_kv_store rd_kv_store;

/* How a file is named to a store: offers and the rows made of them carry it. NULL: none. */
rd_key rd_kv_source(const char *name);

/* A finished block. Key, tokens and bytes are borrowed until `held` is false; the taker stores false, once, with
 * release order, and does not touch it after that. */
typedef struct rd_kv_offer {
    rd_key key;    /* of this block and all before it */
    rd_key source; /* the file that it is made of; none: not known */
    const int32_t *tokens;
    const void *bytes;
    atomic_bool held;
} rd_kv_offer;

/* A block that is wanted, and where its bytes go. Borrowed for the call. */
typedef struct rd_kv_want {
    rd_key key;
    const int32_t *tokens;
    void *to;
} rd_kv_want;

struct rd_kv_store {
    void *user;
    /* An engine was opened; what follows is about its blocks. */
    void (*begin)(void *user, const rd_kv_geometry *g);
    /* How many of the blocks `keys`, from the first on, are there without a gap. */
    int (*count)(void *user, const rd_key *keys, int n);
    /* Fill the blocks from the first on: all their bytes, checked (tokens equal, every number finite and small). Returns how
     * many there were without a gap; what stands in the rest is garbage. */
    int (*load)(void *user, const rd_kv_want *wants, int n);
    /* Take it, or return false. */
    bool (*offer)(void *user, rd_kv_offer *offer);
    /* For people: so many blocks were found in memory, loaded, and computed; and what loading has saved. */
    void (*tell)(void *user, int found, int loaded, int computed, double saved_ms);
    /* The engine is about to close: every offer is let go before this returns. */
    void (*end)(void *user);
};

#endif
