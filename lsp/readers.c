/* readers.c - a team that takes one block after the other until one is missing. */
#include "lsp/readers.h"

#include "core/base/clock.h"
#include "core/base/memory.h"
#include "lsp/thread.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    MOST = 4,              /* more threads do not make the memory faster */
    LOOK_MS = 5000,        /* for a file that was not there */
    SHARED_LEAST = 4,      /* blocks, and */
    SHARED_BYTES = 1 << 20 /* bytes: from here on it is worth waking somebody */
};

typedef struct connection {
    rd_cache *cache;
    unsigned opened; /* how often the scribe had opened the file then */
    double looked_ms;
} connection;

struct rd_readers {
    const rd_cache_options *o;
    rd_scribe *scribe;
    rd_outage *outage;
    int n;
    connection connection[MOST];
    pthread_t thread[MOST]; /* the first is not ours */
    int started;            /* threads of ours */
    pthread_mutex_t mutex;
    pthread_cond_t begin, end;
    uint64_t load; /* number of the one under way; the mutex's, as the next three */
    int busy;
    bool closing;
    /* the load under way */
    const rd_kv_geometry *geometry;
    const rd_kv_want *wants;
    int wanted;
    atomic_int next, missing; /* the next block to take; the first that is not there */
};

/* ---- a connection ---- */

static void close_connection(connection *c)
{
    rd_cache_close(c->cache);
    c->cache = NULL;
}

static rd_cache *attend(rd_readers *r, connection *c)
{
    rd_scribe_stats s;
    rd_error err = { 0 };
    rd_cache_options o = *r->o;

    rd_scribe_stat(r->scribe, &s);
    if (c->cache && s.opened == c->opened) return c->cache;
    if (s.opened == c->opened && rd_now_ms() - c->looked_ms < LOOK_MS) return NULL;
    if (rd_outage_is(r->outage)) return NULL;
    close_connection(c);
    c->opened = s.opened;
    c->looked_ms = rd_now_ms();
    o.existing = true;
    rd_status status = rd_cache_open(&o, &c->cache, &err);

    if (!status) return c->cache;
    c->cache = NULL;
    if (status != RD_NOT_FOUND) rd_outage_begin(r->outage, &err);
    return NULL;
}

/* A file that another process is at just now is a miss. */
static void missed(rd_readers *r, connection *c, rd_status status, const rd_error *err)
{
    if (status == RD_NOT_FOUND || status == RD_STALE) return;
    close_connection(c);
    rd_outage_begin(r->outage, err);
}

/* ---- a block ---- */

static bool read_piece(void *user, void *to, size_t n)
{
    rd_error err;

    return !rd_cache_row_read(user, to, n, &err);
}

static bool is_format(const rd_kv_geometry *g, const rd_cache_row *row)
{
    return row->format >= RD_KV_RAW && row->format <= RD_KV_INT8 && row->bytes > 0 &&
           row->bytes == rd_kv_packed_bytes((rd_kv_format)row->format, g);
}

static bool load_block(rd_readers *r, connection *c, const rd_kv_want *want)
{
    const rd_kv_geometry *g = r->geometry;
    rd_cache *cache = attend(r, c);
    rd_cache_row row;
    rd_error err = { 0 };

    if (!cache) return false;
    rd_status status =
        rd_cache_row_open(cache, &g->model, &want->key, want->tokens, g->block_tokens, &row, &err);

    if (!status) {
        bool read = is_format(g, &row) &&
                    rd_kv_unpack((rd_kv_format)row.format, g, read_piece, cache, want->to);

        status = rd_cache_row_close(cache, &err);
        if (!status && !read) return false;
    }
    if (status) missed(r, c, status, &err);
    return !status;
}

/* ---- the team ---- */

/* Take blocks until there are none, or one before them is missing. */
static void take_part(rd_readers *r, connection *c)
{
    for (int i; (i = atomic_fetch_add(&r->next, 1)) < r->wanted;) {
        if (i > atomic_load(&r->missing)) return;
        if (load_block(r, c, &r->wants[i])) continue;
        for (int least = atomic_load(&r->missing);
             i < least && !atomic_compare_exchange_weak(&r->missing, &least, i);) {
        }
        return;
    }
}

/* Its place in the team tells which connection is its own. */
typedef struct member {
    rd_readers *r;
    int place;
} member;

static void *work(void *arg)
{
    member m = *(member *)arg;
    rd_readers *r = m.r;
    uint64_t seen = 0;

    free(arg);
    pthread_mutex_lock(&r->mutex);
    for (;;) {
        while (!r->closing && r->load == seen) pthread_cond_wait(&r->begin, &r->mutex);
        if (r->closing) break;
        seen = r->load;
        pthread_mutex_unlock(&r->mutex);
        take_part(r, &r->connection[m.place]);
        if (r->connection[m.place].cache) rd_cache_rest(r->connection[m.place].cache);
        pthread_mutex_lock(&r->mutex);
        if (--r->busy == 0) pthread_cond_signal(&r->end);
    }
    pthread_mutex_unlock(&r->mutex);
    return NULL;
}

/* A thread that cannot be had is done without. */
static void start_team(rd_readers *r)
{
    while (r->started + 1 < r->n) {
        member *m = rd_alloc0(sizeof *m);

        *m = (member){ r, r->started + 1 };
        if (!rd_thread_start(&r->thread[r->started + 1], work, m)) {
            free(m);
            r->n = r->started + 1;
            break;
        }
        r->started++;
    }
}

static void load_together(rd_readers *r)
{
    if (r->started + 1 < r->n) start_team(r);
    pthread_mutex_lock(&r->mutex);
    r->load++;
    r->busy = r->started;
    pthread_cond_broadcast(&r->begin);
    pthread_mutex_unlock(&r->mutex);
    take_part(r, &r->connection[0]);
    pthread_mutex_lock(&r->mutex);
    while (r->busy > 0) pthread_cond_wait(&r->end, &r->mutex);
    pthread_mutex_unlock(&r->mutex);
}

/* ---- the face ---- */

rd_readers *rd_readers_new(const rd_cache_options *o, rd_scribe *scribe, rd_outage *outage, int n)
{
    rd_readers *r = rd_alloc0(sizeof *r);
    long cores = sysconf(_SC_NPROCESSORS_ONLN);

    r->o = o;
    r->scribe = scribe;
    r->outage = outage;
    r->n = n > 0 ? n : cores > 0 && cores < MOST ? (int)cores : MOST;
    if (r->n > MOST) r->n = MOST;
    for (int i = 0; i < MOST; i++) r->connection[i].looked_ms = -LOOK_MS;
    pthread_mutex_init(&r->mutex, NULL);
    pthread_cond_init(&r->begin, NULL);
    pthread_cond_init(&r->end, NULL);
    return r;
}

void rd_readers_free(rd_readers *r)
{
    if (!r) return;
    pthread_mutex_lock(&r->mutex);
    r->closing = true;
    pthread_cond_broadcast(&r->begin);
    pthread_mutex_unlock(&r->mutex);
    for (int i = 1; i <= r->started; i++) pthread_join(r->thread[i], NULL);
    for (int i = 0; i < MOST; i++) close_connection(&r->connection[i]);
    pthread_cond_destroy(&r->begin);
    pthread_cond_destroy(&r->end);
    pthread_mutex_destroy(&r->mutex);
    free(r);
}

rd_cache *rd_readers_first(rd_readers *r)
{
    return attend(r, &r->connection[0]);
}

void rd_readers_missed(rd_readers *r, rd_status status, const rd_error *err)
{
    missed(r, &r->connection[0], status, err);
}

void rd_readers_rest(rd_readers *r)
{
    if (r->connection[0].cache) rd_cache_rest(r->connection[0].cache);
}

int rd_readers_load(rd_readers *r, const rd_kv_geometry *g, const rd_kv_want *wants, int n)
{
    size_t bytes = (size_t)g->pieces * (size_t)g->piece * (size_t)g->bytes_each;

    r->geometry = g;
    r->wants = wants;
    r->wanted = n;
    atomic_store(&r->next, 0);
    atomic_store(&r->missing, n);
    if (r->n > 1 && n >= SHARED_LEAST && (size_t)n * bytes >= SHARED_BYTES)
        load_together(r);
    else
        take_part(r, &r->connection[0]);
    int got = atomic_load(&r->missing);

    for (int i = 0; i < got; i++) rd_scribe_used(r->scribe, &g->model, &wants[i].key);
    return got;
}
