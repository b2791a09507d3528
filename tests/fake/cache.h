/* cache.h - cache/cache.h without a file: rows in memory, shared by all connections, and faults when a test wants them.
 *
 * Any thread. A program that links it does not link the real one.
 */
#ifndef RD_FAKE_CACHE_H
#define RD_FAKE_CACHE_H

#include "cache/cache.h"

#include <stdatomic.h>

typedef struct fake_cache_knobs {
    atomic_int open_fails, put_fails, purge_fails; /* an rd_status; 0: it works */
    atomic_int stale_puts;                         /* so many puts find the lock taken */
    atomic_int put_waits;                          /* while it is not 0 a put does not go on */
    atomic_bool exists;                            /* the file */
    /* What was done. */
    atomic_int opens, open, puts, most_in_put, blocks, answers, used, purges;
} fake_cache_knobs;

extern fake_cache_knobs fake_cache;

/* Rows that came from this source. */
int fake_cache_rows_of(const rd_key *source);
/* Overwrite every payload with numbers that are none. */
void fake_cache_damage(void);

#endif
