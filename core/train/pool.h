/* pool.h - a few threads that share out numbered pieces of work.
 *
 * Pieces are handed out in order of asking; a result must depend on its number alone, so that the
 * number of threads never shows. One caller at a time.
 */
#ifndef RD_TRAIN_POOL_H
#define RD_TRAIN_POOL_H

typedef struct rd_pool rd_pool;

/* Threads including the caller's; at least 1. */
rd_pool *rd_pool_new(int threads);
void rd_pool_free(rd_pool *p);
int rd_pool_threads(const rd_pool *p);
/* Call work(user, piece, thread) for every piece in [0, n); returns when all are done. */
void rd_pool_run(rd_pool *p, int n, void (*work)(void *user, int piece, int thread), void *user);

#endif
