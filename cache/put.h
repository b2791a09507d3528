/* put.h - what writing shares with looking after the file. The inside of cache/: all stand in a transaction that
 * writes and return an SQLite code. */
#ifndef RD_CACHE_PUT_H
#define RD_CACHE_PUT_H

#include "cache/handle.h"

/* What a list is asked for: a source, or a time. */
typedef struct rd_put_of {
    const rd_key *source;
    int64_t before_s;
} rd_put_of;

int rd_put_list(rd_cache *c, rd_sql which, const rd_put_of *of, int64_t ids[64], int *n);
/* The oldest go until at most `pages` are in use. */
int rd_put_evict(rd_cache *c, int64_t pages, int64_t *removed);
/* What was not used for `days` goes. */
int rd_put_expire(rd_cache *c, int days, int64_t *removed);
/* Uses that have not come yet become now: the clock was set back. */
int rd_put_settle_clock(rd_cache *c);
/* Give back at most `pages` free ones, where the file has more than `most_bytes`. */
int rd_put_shrink(rd_cache *c, int64_t most_bytes, int pages);
/* Whether the payload is what its head says. */
int rd_put_check(rd_cache *c, const rd_found *f, const rd_key *model, const rd_key *key,
                 bool *right);

#endif
