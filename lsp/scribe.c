/* scribe.c - the queue, the batch, and the thread that moves items from one to the other and into the file.
 *
 * Everything is the mutex's, but for the connection and for the items of a batch that is being written, which change by this
 * thread's hand only. A block is packed, and a batch is written, with the mutex free.
 */
#include "lsp/scribe.h"

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/memory.h"
#include "lsp/thread.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    ENOUGH = 16, /* items for a transaction */
    MOST = 64,
    USED_MOST = 1024,
    WAITING_MOST = 4096,    /* items; answers are small */
    BATCH_BYTES = 32 << 20, /* a batch with more takes nothing else */
    LAST_BYTES = 128 << 20, /* but at the end */
    NICE = 10,
    END_MS = 500,
    AGAIN_MS = 200, /* after another process had the lock */
    TRIES = 10,
    LATER_MOST = 64 /* forgets that failed and wait for better times */
};

typedef struct item {
    rd_cache_item row; /* its data and tokens are ours */
    rd_kv_offer *offer;
    struct item *next;
} item;

typedef struct list {
    item *first, **end;
    int n;
    size_t bytes;
} list;

typedef struct forget {
    rd_key source; /* none: everything */
    struct forget *next;
} forget;

struct rd_scribe {
    rd_scribe_options o;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t more, less; /* something to do; something let go */
    rd_kv_geometry geometry;
    rd_kv_format format; /* what the geometry allows */
    list waiting, batch;
    rd_cache_item used[USED_MOST];
    int n_used;
    forget *forgets, *later; /* to be done, the oldest first; that failed */
    int n_later;
    double later_ms; /* when those are tried again */
    rd_cache_counts unwritten;
    rd_scribe_stats stats;
    double last_ms, again_ms; /* the last item came; not before this time */
    int tries;                /* of this batch */
    bool idle, ending, closing, packing;

    rd_cache *cache; /* this thread's */
};

/* ---- lists ---- */

static void let_go(item *i)
{
    if (i->offer) atomic_store_explicit(&i->offer->held, false, memory_order_release);
    i->offer = NULL;
}

static void free_item(item *i)
{
    let_go(i);
    free((void *)i->row.data);
    free((void *)i->row.tokens);
    free(i);
}

static void empty(list *l)
{
    *l = (list){ .end = &l->first };
}

static void put_behind(list *l, item *i)
{
    i->next = NULL;
    *l->end = i;
    l->end = &i->next;
    l->n++;
    l->bytes += i->row.bytes;
}

static item *take_first(list *l)
{
    item *i = l->first;

    l->first = i->next;
    if (!l->first) l->end = &l->first;
    l->n--;
    l->bytes -= i->row.bytes;
    return i;
}

/* Free those that came from `source` (NULL or none: all); how many. */
static int drop(list *l, const rd_key *source)
{
    list kept, old = *l;
    int dropped = 0;

    empty(&kept);
    for (item *i = old.first, *next; i; i = next) {
        next = i->next;
        if (!source || rd_key_is_none(source) || rd_key_equal(source, &i->row.source)) {
            free_item(i);
            dropped++;
        } else {
            put_behind(&kept, i);
        }
    }
    *l = kept;
    if (!l->first) l->end = &l->first;
    return dropped;
}

/* ---- the file ---- */

/* Makes it where there is none and `make` says so. RD_NOT_FOUND: there is none. */
static rd_status open_cache(rd_scribe *s, bool make, rd_error *err)
{
    rd_cache_options o = s->o.cache;

    if (s->cache) return RD_OK;
    o.existing = !make;
    rd_status status = rd_cache_open(&o, &s->cache, err);

    if (status) {
        s->cache = NULL;
        return status;
    }
    pthread_mutex_lock(&s->mutex);
    s->stats.opened++;
    pthread_mutex_unlock(&s->mutex);
    rd_outage_end(s->o.outage);
    return RD_OK;
}

static void close_cache(rd_scribe *s)
{
    rd_cache_close(s->cache);
    s->cache = NULL;
}

/* ---- packing ---- */

/* False: it cannot be stored. */
static bool pack(const rd_scribe *s, item *i)
{
    size_t tokens = (size_t)i->row.n_tokens * sizeof *i->row.tokens;
    void *data = rd_try_alloc(i->row.bytes);
    int32_t *copy = rd_alloc0(tokens);
    bool packed = data && rd_kv_pack(s->format, &s->geometry, i->offer->bytes, data);

    memcpy(copy, i->offer->tokens, tokens);
    i->row.tokens = copy;
    i->row.data = data;
    return packed;
}

static void take_one(rd_scribe *s)
{
    item *i = take_first(&s->waiting);
    bool packed = true;

    if (i->offer) {
        s->packing = true;
        pthread_mutex_unlock(&s->mutex);
        packed = pack(s, i);
        let_go(i);
        pthread_mutex_lock(&s->mutex);
        s->packing = false;
        pthread_cond_broadcast(&s->less);
    }
    if (packed) {
        put_behind(&s->batch, i);
        return;
    }
    s->stats.dropped++;
    free_item(i);
}

/* ---- writing ---- */

static int fill_rows(const rd_scribe *s, rd_cache_item *rows)
{
    int n = 0;

    for (const item *i = s->batch.first; i; i = i->next) rows[n++] = i->row;
    memcpy(rows + n, s->used, (size_t)s->n_used * sizeof *rows);
    return n + s->n_used;
}

static void add_counts(rd_cache_counts *to, const rd_cache_counts *more)
{
    to->found += more->found;
    to->loaded += more->loaded;
    to->computed += more->computed;
    to->answers += more->answers;
    to->saved_ms += more->saved_ms;
}

static void drop_batch(rd_scribe *s)
{
    s->stats.dropped += drop(&s->batch, NULL);
    s->tries = 0;
}

/* Under the mutex again. The lock is another's: later. What is wrong with the file: for a while nobody tries. */
static void failed(rd_scribe *s, const rd_cache_counts *counts, const rd_error *err)
{
    add_counts(&s->unwritten, counts);
    if (err->status == RD_STALE && s->cache && !s->closing && s->tries < TRIES) {
        s->again_ms = rd_now_ms() + AGAIN_MS;
        return;
    }
    drop_batch(s);
    if (err->status == RD_STALE && s->cache) return; /* busy, not broken */
    close_cache(s);
    pthread_mutex_unlock(&s->mutex);
    rd_outage_begin(s->o.outage, err);
    pthread_mutex_lock(&s->mutex);
}

static void write_batch(rd_scribe *s)
{
    rd_cache_item *rows = rd_alloc_array((size_t)(s->batch.n + s->n_used) + 1, sizeof *rows);
    int n = fill_rows(s, rows);
    rd_cache_counts counts = s->unwritten;
    rd_error err = { 0 };

    s->unwritten = (rd_cache_counts){ 0 };
    s->n_used = 0;
    s->tries++;
    pthread_mutex_unlock(&s->mutex);
    rd_status status = open_cache(s, s->batch.n > 0, &err);

    if (!status) status = rd_cache_put(s->cache, rows, n, &counts, &err);
    free(rows);
    pthread_mutex_lock(&s->mutex);
    if (status == RD_NOT_FOUND && s->batch.n == 0) return; /* nothing is worth making a file for */
    if (status) {
        failed(s, &counts, &err);
        return;
    }
    s->stats.written += s->batch.n;
    drop(&s->batch, NULL);
    s->tries = 0;
}

/* ---- forgetting ---- */

static void put_last(forget **at, forget *f)
{
    while (*at) at = &(*at)->next;
    f->next = NULL;
    *at = f;
}

/* False: it is still there. */
static bool purge(rd_scribe *s, const rd_key *source)
{
    rd_error err = { 0 };
    int64_t removed = 0;
    rd_status status = open_cache(s, false, &err);

    if (!status) status = rd_cache_purge(s->cache, source, &removed, &err);
    if (!status || status == RD_NOT_FOUND) return true;
    close_cache(s);
    rd_outage_begin(s->o.outage, &err);
    return false;
}

static void forget_one(rd_scribe *s)
{
    forget *f = s->forgets;
    bool all = rd_key_is_none(&f->source);

    s->forgets = f->next;
    drop(&s->batch, &f->source);
    if (all) s->n_used = 0;
    pthread_mutex_unlock(&s->mutex);
    bool done = purge(s, all ? NULL : &f->source);

    pthread_mutex_lock(&s->mutex);
    s->stats.forgotten++;
    if (done || s->n_later == LATER_MOST) {
        free(f);
    } else {
        put_last(&s->later, f);
        s->n_later++;
        s->later_ms = rd_now_ms() + s->o.outage->for_ms;
    }
    if (!s->o.forgot) return;
    pthread_mutex_unlock(&s->mutex);
    s->o.forgot(s->o.user);
    pthread_mutex_lock(&s->mutex);
}

static bool is_later(const rd_scribe *s)
{
    return s->later && rd_now_ms() >= s->later_ms;
}

static void take_later(rd_scribe *s)
{
    s->forgets = s->later; /* there are no others */
    s->later = NULL;
    s->n_later = 0;
}

/* ---- the thread ---- */

static bool works(const rd_scribe *s)
{
    return s->idle || s->ending || s->closing ||
           s->waiting.bytes + s->batch.bytes > s->o.most_waiting / 2;
}

static bool may_pack(const rd_scribe *s)
{
    bool last = s->ending || s->closing;

    return s->waiting.n > 0 && works(s) && (last || s->batch.n < MOST) &&
           s->batch.bytes < (last ? LAST_BYTES : BATCH_BYTES);
}

static bool has_counts(const rd_scribe *s)
{
    const rd_cache_counts *c = &s->unwritten;

    return c->found || c->loaded || c->computed || c->answers;
}

/* Counts alone are worth no transaction but the last one. */
static bool may_write(const rd_scribe *s, double now)
{
    if (s->closing) return s->batch.n > 0 || s->n_used > 0 || has_counts(s);
    if (!works(s) || now < s->again_ms || s->batch.n + s->n_used == 0) return false;
    return s->batch.n >= ENOUGH || s->batch.bytes >= BATCH_BYTES ||
           now - s->last_ms >= s->o.quiet_ms;
}

/* When to look again; 0: when something happens. */
static double due(const rd_scribe *s)
{
    double at = s->last_ms + s->o.quiet_ms;

    if (!works(s) || s->batch.n + s->n_used == 0) return s->later ? s->later_ms : 0;
    if (at < s->again_ms) at = s->again_ms;
    return s->later && s->later_ms < at ? s->later_ms : at;
}

static void wait_until(pthread_cond_t *c, pthread_mutex_t *m, double at_ms)
{
    struct timespec t = { .tv_sec = (time_t)(at_ms / 1e3) };

    t.tv_nsec = (long)((at_ms - (double)t.tv_sec * 1e3) * 1e6);
    pthread_cond_timedwait(c, m, &t);
}

static void drop_all(rd_scribe *s)
{
    s->stats.dropped += drop(&s->waiting, NULL);
    drop_batch(s);
    s->n_used = 0;
    pthread_cond_broadcast(&s->less);
}

static void *work(void *arg)
{
    rd_scribe *s = arg;

    setpriority(PRIO_PROCESS, (id_t)gettid(), NICE);
    pthread_mutex_lock(&s->mutex);
    for (;;) {
        if (s->waiting.n + s->batch.n + s->n_used > 0 && rd_outage_is(s->o.outage)) drop_all(s);
        if (!s->forgets && is_later(s)) take_later(s);
        if (s->forgets) {
            forget_one(s);
        } else if (may_pack(s)) {
            take_one(s);
        } else if (may_write(s, rd_now_ms())) {
            write_batch(s);
            if (s->closing) break;
        } else if (s->closing) {
            break;
        } else if (due(s) > 0) {
            wait_until(&s->more, &s->mutex, due(s));
        } else {
            pthread_cond_wait(&s->more, &s->mutex);
        }
    }
    drop_all(s);
    pthread_mutex_unlock(&s->mutex);
    close_cache(s);
    return NULL;
}

rd_scribe *rd_scribe_new(const rd_scribe_options *o)
{
    rd_scribe *s = rd_alloc0(sizeof *s);
    pthread_condattr_t steady;

    s->o = *o;
    empty(&s->waiting);
    empty(&s->batch);
    pthread_mutex_init(&s->mutex, NULL);
    pthread_condattr_init(&steady);
    pthread_condattr_setclock(&steady, CLOCK_MONOTONIC);
    pthread_cond_init(&s->more, &steady);
    pthread_cond_init(&s->less, &steady);
    pthread_condattr_destroy(&steady);
    if (!rd_thread_start(&s->thread, work, s)) abort();
    return s;
}

static void free_forgets(forget *f)
{
    for (forget *next; f; f = next) {
        next = f->next;
        free(f);
    }
}

void rd_scribe_close(rd_scribe *s)
{
    if (!s) return;
    pthread_mutex_lock(&s->mutex);
    s->closing = true;
    pthread_cond_signal(&s->more);
    pthread_mutex_unlock(&s->mutex);
    pthread_join(s->thread, NULL);
    free_forgets(s->forgets);
    free_forgets(s->later);
    pthread_cond_destroy(&s->more);
    pthread_cond_destroy(&s->less);
    pthread_mutex_destroy(&s->mutex);
    free(s);
}

/* ---- what others call ---- */

void rd_scribe_begin(rd_scribe *s, const rd_kv_geometry *g)
{
    pthread_mutex_lock(&s->mutex);
    s->geometry = *g;
    s->format = rd_kv_packed_bytes(s->o.format, g) > 0 ? s->o.format : RD_KV_RAW;
    s->ending = false;
    pthread_mutex_unlock(&s->mutex);
}

/* What the thread does not pack in time, because it writes just now or there is too much, is dropped. */
void rd_scribe_end(rd_scribe *s)
{
    double until = rd_now_ms() + END_MS;

    pthread_mutex_lock(&s->mutex);
    s->ending = true;
    pthread_cond_signal(&s->more);
    while (s->waiting.n > 0 && may_pack(s) && rd_now_ms() < until)
        wait_until(&s->less, &s->mutex, until);
    s->stats.dropped += drop(&s->waiting, NULL);
    while (s->packing) pthread_cond_wait(&s->less, &s->mutex);
    pthread_mutex_unlock(&s->mutex);
}

void rd_scribe_idle(rd_scribe *s, bool idle)
{
    pthread_mutex_lock(&s->mutex);
    s->idle = idle;
    if (idle) pthread_cond_signal(&s->more);
    pthread_mutex_unlock(&s->mutex);
}

/* Under the mutex. */
static void add(rd_scribe *s, item *i)
{
    put_behind(&s->waiting, i);
    s->last_ms = rd_now_ms();
    if (works(s)) pthread_cond_signal(&s->more);
}

bool rd_scribe_offer(rd_scribe *s, rd_kv_offer *offer)
{
    if (rd_outage_is(s->o.outage)) return false;
    pthread_mutex_lock(&s->mutex);
    size_t bytes = rd_kv_packed_bytes(s->format, &s->geometry);
    bool taken = bytes > 0 && !s->ending && !s->closing && s->waiting.n < WAITING_MOST &&
                 s->waiting.bytes + bytes <= s->o.most_waiting;

    if (taken) {
        item *i = rd_alloc0(sizeof *i);

        i->offer = offer;
        i->row = (rd_cache_item){ .kind = RD_CACHE_BLOCK,
                                  .model = s->geometry.model,
                                  .key = offer->key,
                                  .source = offer->source,
                                  .n_tokens = s->geometry.block_tokens,
                                  .format = (int)s->format,
                                  .bytes = bytes };
        add(s, i);
    } else {
        s->stats.refused++;
    }
    pthread_mutex_unlock(&s->mutex);
    return taken;
}

void rd_scribe_answer(rd_scribe *s, const rd_key *model, const rd_key *key, const rd_key *source,
                      const rd_buf *bytes)
{
    if (rd_outage_is(s->o.outage)) return;
    item *i = rd_alloc0(sizeof *i);

    i->row = (rd_cache_item){ .kind = RD_CACHE_ANSWER,
                              .model = *model,
                              .key = *key,
                              .source = *source,
                              .data = rd_copy_text(bytes->data, bytes->len),
                              .bytes = bytes->len };
    pthread_mutex_lock(&s->mutex);
    bool taken = s->waiting.n < WAITING_MOST &&
                 s->waiting.bytes + bytes->len <= s->o.most_waiting && !s->closing;

    if (taken)
        add(s, i);
    else
        s->stats.refused++;
    pthread_mutex_unlock(&s->mutex);
    if (!taken) free_item(i);
}

/* The newest. */
static const item *find_in(const list *l, const rd_key *model, const rd_key *key)
{
    const item *found = NULL;

    for (const item *i = l->first; i; i = i->next)
        if (i->row.kind == RD_CACHE_ANSWER && rd_key_equal(&i->row.key, key) &&
            rd_key_equal(&i->row.model, model))
            found = i;
    return found;
}

bool rd_scribe_find_answer(rd_scribe *s, const rd_key *model, const rd_key *key, rd_buf *out)
{
    pthread_mutex_lock(&s->mutex);
    const item *i = find_in(&s->waiting, model, key);

    if (!i) i = find_in(&s->batch, model, key);
    if (i) rd_buf_append(out, i->row.data, i->row.bytes);
    pthread_mutex_unlock(&s->mutex);
    return i != NULL;
}

void rd_scribe_used(rd_scribe *s, const rd_key *model, const rd_key *key)
{
    pthread_mutex_lock(&s->mutex);
    if (s->n_used < USED_MOST)
        s->used[s->n_used++] =
            (rd_cache_item){ .kind = RD_CACHE_USED, .model = *model, .key = *key };
    s->last_ms = rd_now_ms();
    pthread_mutex_unlock(&s->mutex);
}

void rd_scribe_count(rd_scribe *s, const rd_cache_counts *more)
{
    pthread_mutex_lock(&s->mutex);
    add_counts(&s->unwritten, more);
    add_counts(&s->stats.counts, more);
    pthread_mutex_unlock(&s->mutex);
}

void rd_scribe_forget(rd_scribe *s, const rd_key *source)
{
    forget *f = rd_alloc0(sizeof *f);

    if (source) f->source = *source;
    pthread_mutex_lock(&s->mutex);
    drop(&s->waiting, &f->source);
    put_last(&s->forgets, f);
    pthread_cond_signal(&s->more);
    pthread_mutex_unlock(&s->mutex);
}

void rd_scribe_stat(rd_scribe *s, rd_scribe_stats *out)
{
    pthread_mutex_lock(&s->mutex);
    *out = s->stats;
    out->waiting_bytes = s->waiting.bytes;
    pthread_mutex_unlock(&s->mutex);
}
