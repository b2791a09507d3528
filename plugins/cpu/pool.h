/* pool.h - the backend's threads: numbered pieces of work, handed out in order of asking.
 *
 * A result must depend on its piece's number alone. Waiting threads look for work for some
 * microseconds and then sleep. Nobody waits for a thread that has no piece. One caller at a time.
 */
#ifndef RD_CPU_POOL_H
#define RD_CPU_POOL_H

#include <stdbool.h>

typedef struct rd_cpu_pool rd_cpu_pool;

rd_cpu_pool *rd_cpu_pool_new(int threads); /* including the caller's */
void rd_cpu_pool_free(rd_cpu_pool *p);
/* Work is about to come: sleeping threads wake up meanwhile. */
void rd_cpu_pool_wake(rd_cpu_pool *p);
int rd_cpu_pool_threads(const rd_cpu_pool *p);
void rd_cpu_pool_run(rd_cpu_pool *p, int n, void (*work)(void *user, int piece, int thread),
                     void *user);

#endif
