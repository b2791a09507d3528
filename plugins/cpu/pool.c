/* pool.c - one round of work is a number; a thread that sees a new number takes pieces until none is
 * left, and then says that it is done with the round. */
#include "plugins/cpu/pool.h"

#include "core/base/memory.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

enum { LOOKS = 4000 }; /* before a waiting thread yields, or sleeps where no pass is under way */

struct rd_cpu_pool {
    int threads;
    pthread_t *id;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    atomic_uint round;
    atomic_int next, busy;
    atomic_bool stop, hot;
    atomic_int sleeping;
    int n;
    void (*work)(void *user, int piece, int thread);
    void *user;
};

typedef struct member {
    rd_cpu_pool *pool;
    int number;
} member;

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static void take_pieces(rd_cpu_pool *p, int thread)
{
    for (int i; (i = atomic_fetch_add(&p->next, 1)) < p->n;) p->work(p->user, i, thread);
}

static void wait_round(rd_cpu_pool *p, unsigned seen)
{
    do {
        for (int i = 0; i < LOOKS; i++) {
            if (atomic_load(&p->round) != seen) return;
            relax();
        }
        if (atomic_load(&p->hot)) sched_yield();
    } while (atomic_load(&p->hot));
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->sleeping, 1);
    while (atomic_load(&p->round) == seen) pthread_cond_wait(&p->wake, &p->lock);
    atomic_fetch_sub(&p->sleeping, 1);
    pthread_mutex_unlock(&p->lock);
}

static void *member_main(void *arg)
{
    member m = *(member *)arg;

    free(arg);
    for (unsigned seen = 0;; seen++) {
        wait_round(m.pool, seen);
        if (atomic_load(&m.pool->stop)) return NULL;
        take_pieces(m.pool, m.number);
        atomic_fetch_sub(&m.pool->busy, 1);
    }
}

rd_cpu_pool *rd_cpu_pool_new(int threads)
{
    rd_cpu_pool *p = rd_alloc0(sizeof *p);

    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    p->threads = 1;
    p->id = rd_alloc_array((size_t)threads + 1, sizeof *p->id);
    for (int i = 1; i < threads; i++) {
        member *m = rd_alloc0(sizeof *m);

        *m = (member){ p, i };
        if (pthread_create(&p->id[i], NULL, member_main, m)) {
            free(m);
            break; /* fewer threads do the same work */
        }
        p->threads++;
    }
    return p;
}

static void begin_round(rd_cpu_pool *p)
{
    atomic_store(&p->next, 0);
    atomic_store(&p->busy, p->threads - 1);
    atomic_fetch_add(&p->round, 1);
    if (atomic_load(&p->sleeping) > 0) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_broadcast(&p->wake);
        pthread_mutex_unlock(&p->lock);
    }
}

void rd_cpu_pool_free(rd_cpu_pool *p)
{
    if (!p) return;
    atomic_store(&p->stop, true);
    p->n = 0;
    begin_round(p);
    for (int i = 1; i < p->threads; i++) pthread_join(p->id[i], NULL);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->wake);
    free(p->id);
    free(p);
}

int rd_cpu_pool_threads(const rd_cpu_pool *p)
{
    return p->threads;
}

void rd_cpu_pool_run(rd_cpu_pool *p, int n, void (*work)(void *user, int piece, int thread),
                     void *user)
{
    if (p->threads == 1 || n == 1) {
        for (int i = 0; i < n; i++) work(user, i, 0);
        return;
    }
    p->n = n;
    p->work = work;
    p->user = user;
    begin_round(p);
    take_pieces(p, 0);
    for (int i = 0; atomic_load(&p->busy) > 0; i++) {
        if (i < LOOKS)
            relax();
        else
            sched_yield();
    }
}

void rd_cpu_pool_hot(rd_cpu_pool *p, bool hot)
{
    atomic_store(&p->hot, hot);
}
