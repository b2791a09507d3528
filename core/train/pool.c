/* pool.c - threads that sleep between runs; a run is a counter that everybody draws from. */
#include "core/train/pool.h"

#include "core/base/memory.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

typedef struct worker {
    rd_pool *pool;
    int number;
    pthread_t thread;
} worker;

struct rd_pool {
    int threads, busy;
    unsigned round;
    bool stop;
    pthread_mutex_t lock;
    pthread_cond_t start, done;
    worker *worker; /* threads - 1 of them: the caller is the last */
    void (*work)(void *user, int piece, int thread);
    void *user;
    int pieces;
    atomic_int next;
};

static void draw(rd_pool *p, int thread)
{
    int i;

    while ((i = atomic_fetch_add(&p->next, 1)) < p->pieces) p->work(p->user, i, thread);
}

static void *live(void *user)
{
    worker *w = user;
    rd_pool *p = w->pool;
    unsigned seen = 0;

    pthread_mutex_lock(&p->lock);
    for (;;) {
        while (!p->stop && p->round == seen) pthread_cond_wait(&p->start, &p->lock);
        if (p->stop) break;
        seen = p->round;
        pthread_mutex_unlock(&p->lock);
        draw(p, w->number);
        pthread_mutex_lock(&p->lock);
        if (--p->busy == 0) pthread_cond_signal(&p->done);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

rd_pool *rd_pool_new(int threads)
{
    rd_pool *p = rd_alloc0(sizeof *p);
    int others = threads > 1 ? threads - 1 : 0;

    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->start, NULL);
    pthread_cond_init(&p->done, NULL);
    p->worker = rd_alloc_array((size_t)others + 1, sizeof *p->worker);
    for (int i = 0; i < others; i++) {
        worker *w = &p->worker[p->threads];

        *w = (worker){ .pool = p, .number = p->threads };
        if (!pthread_create(&w->thread, NULL, live, w)) p->threads++;
    }
    p->threads++;
    return p;
}

void rd_pool_free(rd_pool *p)
{
    if (!p) return;
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_cond_broadcast(&p->start);
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i + 1 < p->threads; i++) pthread_join(p->worker[i].thread, NULL);
    pthread_cond_destroy(&p->done);
    pthread_cond_destroy(&p->start);
    pthread_mutex_destroy(&p->lock);
    free(p->worker);
    free(p);
}

int rd_pool_threads(const rd_pool *p)
{
    return p->threads;
}

void rd_pool_run(rd_pool *p, int n, void (*work)(void *user, int piece, int thread), void *user)
{
    pthread_mutex_lock(&p->lock);
    p->work = work;
    p->user = user;
    p->pieces = n;
    atomic_store(&p->next, 0);
    p->busy = p->threads - 1;
    p->round++;
    pthread_cond_broadcast(&p->start);
    pthread_mutex_unlock(&p->lock);
    draw(p, p->threads - 1);
    pthread_mutex_lock(&p->lock);
    while (p->busy > 0) pthread_cond_wait(&p->done, &p->lock);
    pthread_mutex_unlock(&p->lock);
}
