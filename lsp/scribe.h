/* scribe.h - the thread that writes to the cache: what is offered waits in a queue, and is written when nobody waits for the model.
 *
 * A block is packed into a copy and let go of; packed ones and answers gather until there are enough for one transaction, or
 * until it has been quiet for a while. What waits is bounded: past the bound blocks are refused. It works while the inference
 * thread says that it is idle, or when half of the bound is reached, one item at a time, at low priority. Losing all of it
 * costs time, never data. All calls from any thread.
 */
#ifndef RD_LSP_SCRIBE_H
#define RD_LSP_SCRIBE_H

#include "cache/cache.h"
#include "core/model/kv_pack.h"
#include "lsp/outage.h"

typedef struct rd_scribe rd_scribe;

typedef struct rd_scribe_options {
    rd_cache_options cache; /* strings are borrowed until close, as all in here */
    rd_kv_format format;    /* where the geometry has it */
    size_t most_waiting;    /* bytes of blocks that wait */
    int quiet_ms;
    rd_outage *outage;
    void (*forgot)(void *user); /* something was forgotten; from this thread; NULL: nobody asks */
    void *user;
} rd_scribe_options;

rd_scribe *rd_scribe_new(const rd_scribe_options *o);
/* Writes what is packed; ends the thread. Nothing that was offered is held any more. */
void rd_scribe_close(rd_scribe *s);

/* Blocks that are offered from now on are of this kind. */
void rd_scribe_begin(rd_scribe *s, const rd_kv_geometry *g);
/* Every offer is let go before this returns, packed or not, within half a second. */
void rd_scribe_end(rd_scribe *s);
void rd_scribe_idle(rd_scribe *s, bool idle);

bool rd_scribe_offer(rd_scribe *s, rd_kv_offer *offer);
void rd_scribe_answer(rd_scribe *s, const rd_key *model, const rd_key *key, const rd_key *source,
                      const rd_buf *bytes);
/* One that is not written yet: appended. */
bool rd_scribe_find_answer(rd_scribe *s, const rd_key *model, const rd_key *key, rd_buf *out);
void rd_scribe_used(rd_scribe *s, const rd_key *model, const rd_key *key);
void rd_scribe_count(rd_scribe *s, const rd_cache_counts *more);
/* What came from `source` (NULL: everything) and waits goes now, what is written goes soon. */
void rd_scribe_forget(rd_scribe *s, const rd_key *source);

typedef struct rd_scribe_stats {
    rd_cache_counts counts;            /* since the beginning */
    int64_t written, refused, dropped; /* blocks and answers */
    size_t waiting_bytes;
    unsigned opened;    /* how often it has opened the file */
    uint64_t forgotten; /* how many of the forgets were carried out, or tried */
} rd_scribe_stats;

void rd_scribe_stat(rd_scribe *s, rd_scribe_stats *out);

#endif
