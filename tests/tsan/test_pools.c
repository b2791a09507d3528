/* test_pools.c - both pools under load: every piece once, results seen by the caller, rounds and pools in a row. */
#include "core/train/pool.h"
#include "plugins/cpu/pool.h"

#include <criterion/criterion.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

enum { PIECES = 257, ROUNDS = 200, THREADS = 4 };

typedef struct work {
    int seen
        [PIECES]; /* plain: the pool alone orders the threads that write and the caller that reads */
    int by[THREADS];
    atomic_int threads;
} work;

static void piece(void *user, int i, int thread)
{
    work *w = user;

    w->seen[i]++;
    if (w->by[thread]++ == 0) atomic_fetch_add(&w->threads, 1);
    if (i % 64 == 0) usleep(100); /* the others get their turn */
}

static void check(const work *w, int round)
{
    for (int i = 0; i < PIECES; i++)
        cr_assert_eq(w->seen[i], round + 1, "piece %d in round %d", i, round);
}

Test(pools, the_trainers_pool_hands_out_every_piece_once)
{
    work *w = calloc(1, sizeof *w);
    rd_pool *p = rd_pool_new(THREADS);

    cr_assert_eq(rd_pool_threads(p), THREADS);
    for (int round = 0; round < ROUNDS; round++) {
        rd_pool_run(p, PIECES, piece, w);
        check(w, round);
    }
    cr_assert_gt(atomic_load(&w->threads), 1, "all pieces went to one thread");
    rd_pool_free(p);
    free(w);
}

Test(pools, the_cpu_pool_hands_out_every_piece_once_awake_or_not)
{
    work *w = calloc(1, sizeof *w);
    rd_cpu_pool *p = rd_cpu_pool_new(THREADS);

    cr_assert_eq(rd_cpu_pool_threads(p), THREADS);
    for (int round = 0; round < ROUNDS; round++) {
        if (round % 10 == 0) rd_cpu_pool_wake(p);
        if (round % 50 == 49) usleep(20000); /* the members fall asleep */
        rd_cpu_pool_run(p, PIECES, piece, w);
        check(w, round);
    }
    cr_assert_gt(atomic_load(&w->threads), 1, "all pieces went to one thread");
    rd_cpu_pool_free(p);
    free(w);
}

Test(pools, pools_come_and_go)
{
    for (int i = 0; i < 50; i++) {
        work *w = calloc(1, sizeof *w);
        rd_pool *a = rd_pool_new(1 + i % THREADS);
        rd_cpu_pool *b = rd_cpu_pool_new(1 + i % THREADS);

        if (i % 3) rd_pool_run(a, PIECES, piece, w);
        if (i % 3) check(w, 0);
        if (i % 2) rd_cpu_pool_run(b, PIECES, piece, w);
        rd_cpu_pool_free(b);
        rd_pool_free(a);
        free(w);
    }
}
