/* pool.c - one round of work is a number and a count of pieces handed out, in one word: whoever adds one to it has a piece.
 *
 * The caller works too and waits for pieces, not for threads: one that the system runs elsewhere, or not at all, costs nothing
 * unless it holds a piece. A thread that took a piece of a round keeps the round open, so that what describes it stands until
 * its last piece is done; the word is closed while the next one is described. Waiting is a short spin, then sleep:
 * a core that sleeps takes in whatever waits for one, such as a thread of ours with a piece.
 */
#include "plugins/cpu/pool.h"

#include "core/base/clock.h"
#include "core/base/memory.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

enum { LOOKS = 64 }; /* between two looks at the clock */
static const double spin_ms = 0.06;
static const double turn_ms = 2;
#define CLOSED UINT32_MAX

struct rd_cpu_pool {
    int threads;
    pthread_t *id;
    pthread_mutex_t lock;
    pthread_cond_t wake, done_wake;
    _Atomic uint64_t ticket; /* round << 32 | pieces handed out, or CLOSED */
    atomic_int done;         /* pieces of this round */
    atomic_int sleeping;
    atomic_bool waiting; /* the caller sleeps */
    atomic_bool stop;
    /* The round. Whoever reads what is not this round's fails to take a piece of it. */
    atomic_int n;
    _Atomic(void (*)(void *user, int piece, int thread)) work;
    _Atomic(void *) user;
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

static uint32_t round_of(rd_cpu_pool *p)
{
    return (uint32_t)(atomic_load(&p->ticket) >> 32);
}

/* Do one piece of the round that is open; false: none is left. */
static bool take_piece(rd_cpu_pool *p, int thread)
{
    uint64_t t = atomic_load(&p->ticket);
    void (*work)(void *, int, int);
    void *user;
    int n;

    do {
        n = atomic_load(&p->n);
        work = atomic_load(&p->work);
        user = atomic_load(&p->user);
        if ((uint32_t)t == CLOSED || (uint32_t)t >= (uint32_t)n) return false;
    } while (!atomic_compare_exchange_weak(&p->ticket, &t, t + 1));
    work(user, (int)(uint32_t)t, thread);
    if (atomic_fetch_add(&p->done, 1) + 1 == n && atomic_load(&p->waiting)) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_signal(&p->done_wake);
        pthread_mutex_unlock(&p->lock);
    }
    return true;
}

static void wait_round(rd_cpu_pool *p, uint32_t seen)
{
    double end = rd_now_ms() + spin_ms;

    do {
        for (int i = 0; i < LOOKS; i++) {
            if (round_of(p) != seen) return;
            relax();
        }
    } while (rd_now_ms() < end);
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->sleeping, 1);
    while (round_of(p) == seen) pthread_cond_wait(&p->wake, &p->lock);
    atomic_fetch_sub(&p->sleeping, 1);
    pthread_mutex_unlock(&p->lock);
}

static void wait_done(rd_cpu_pool *p, int n)
{
    double end = rd_now_ms() + spin_ms;

    do {
        for (int i = 0; i < LOOKS; i++) {
            if (atomic_load(&p->done) == n) return;
            relax();
        }
    } while (rd_now_ms() < end);
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->waiting, true);
    while (atomic_load(&p->done) < n) pthread_cond_wait(&p->done_wake, &p->lock);
    atomic_store(&p->waiting, false);
    pthread_mutex_unlock(&p->lock);
}

/* A thread that shares its core loses it sooner or later: then without a piece in hand. Returns when its turn began. */
static double give_way(double since)
{
    double now = rd_now_ms();

    if (now - since < turn_ms) return since;
    sched_yield();
    return rd_now_ms();
}

static void *member_main(void *arg)
{
    member m = *(member *)arg;
    double since = rd_now_ms();

    free(arg);
    for (;;) {
        uint32_t seen = round_of(m.pool);

        while (take_piece(m.pool, m.number)) since = give_way(since);
        if (atomic_load(&m.pool->stop)) return NULL;
        wait_round(m.pool, seen);
    }
}

rd_cpu_pool *rd_cpu_pool_new(int threads)
{
    rd_cpu_pool *p = rd_alloc0(sizeof *p);

    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    pthread_cond_init(&p->done_wake, NULL);
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

static void begin_round(rd_cpu_pool *p, int n, void (*work)(void *user, int piece, int thread),
                        void *user)
{
    uint64_t round = round_of(p);

    atomic_store(&p->ticket, round << 32 | CLOSED);
    atomic_store(&p->n, n);
    atomic_store(&p->work, work);
    atomic_store(&p->user, user);
    atomic_store(&p->done, 0);
    atomic_store(&p->ticket, (uint64_t)(uint32_t)(round + 1) << 32);
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
    begin_round(p, 0, NULL, NULL);
    for (int i = 1; i < p->threads; i++) pthread_join(p->id[i], NULL);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->wake);
    pthread_cond_destroy(&p->done_wake);
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
    if (p->threads == 1 || n <= 1) {
        for (int i = 0; i < n; i++) work(user, i, 0);
        return;
    }
    begin_round(p, n, work, user);
    while (take_piece(p, 0)) continue;
    wait_done(p, n);
}

void rd_cpu_pool_wake(rd_cpu_pool *p)
{
    if (p->threads > 1 && atomic_load(&p->sleeping) > 0) begin_round(p, 0, NULL, NULL);
}
