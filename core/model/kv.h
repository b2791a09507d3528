/* kv.h - the pool of finished blocks: found by what they say and by everything before them.
 *
 * A block's key is a chain of hashes over the origin's root, its tokens and those of all blocks before it. Blocks are counted:
 * runs share them, the pool keeps those that nobody uses until their place is wanted (least recently used first). The pool
 * numbers places of the model's KV storage; it never touches tensors. One thread at a time.
 */
#ifndef RD_MODEL_KV_H
#define RD_MODEL_KV_H

#include "core/base/key.h"
#include "core/base/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct rd_kv_pool rd_kv_pool;

/* Where a chain begins. Blocks of another root are never found: it stands for the model and for who may share. */
typedef struct rd_kv_origin {
    rd_key root;
    rd_key source; /* the file that new blocks are made of; none: not known */
    bool unstored; /* new blocks stay in memory */
} rd_kv_origin;

typedef struct rd_kv_block {
    int place;     /* number in the model's storage */
    rd_key key;    /* of this block and all before it */
    rd_key source; /* of who made it */
    bool unstored, stored;
    int32_t refs;
    int32_t tokens[]; /* [block_size] */
} rd_kv_block;

typedef struct rd_kv_stats {
    int64_t evicted; /* blocks */
    int used, places;
} rd_kv_stats;

rd_kv_pool *rd_kv_pool_new(int places, int block_size);
void rd_kv_pool_free(rd_kv_pool *p); /* nobody holds a block any more */

/* The key of the block `tokens` behind `before` (NULL: the first of `o`). */
rd_key rd_kv_key(const rd_kv_pool *p, const rd_kv_origin *o, const rd_key *before,
                 const int32_t *tokens);
/* The longest start of `tokens` whose blocks are in the pool: whole blocks only. Fills `out` with a
 * reference each; the caller gives them back with rd_kv_unref. Returns their number. */
int rd_kv_match(rd_kv_pool *p, const rd_kv_origin *o, const int32_t *tokens, int n,
                rd_kv_block **out);
/* A place for the block `tokens` behind `before` (NULL: the first), evicting what nobody holds. The
 * block can be found by others only after rd_kv_publish. RD_NO_MEMORY when all are held. */
rd_status rd_kv_take(rd_kv_pool *p, const rd_kv_origin *o, const rd_kv_block *before,
                     const int32_t *tokens, rd_kv_block **out, rd_error *err);
/* Its keys and values are there now. If an equal block was published meanwhile, that one is given
 * back instead and `b`'s reference is dropped. */
rd_kv_block *rd_kv_publish(rd_kv_pool *p, rd_kv_block *b);
rd_kv_block *rd_kv_ref(rd_kv_block *b);
void rd_kv_unref(rd_kv_pool *p, rd_kv_block *b); /* an unpublished one is dropped at the last */
/* Nobody finds the blocks of `source` (NULL: any) again; those that are held go with their last reference. */
void rd_kv_forget(rd_kv_pool *p, const rd_key *source);
rd_kv_stats rd_kv_pool_stats(const rd_kv_pool *p);

#endif
