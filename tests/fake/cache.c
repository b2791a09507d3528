/* cache.c - see cache.h. */
#include "tests/fake/cache.h"

#include "core/base/memory.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROWS = 8192 };

struct rd_cache {
    bool existing;
    int row; /* that is read; -1: none */
    size_t at;
};

fake_cache_knobs fake_cache;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static rd_cache_item rows[ROWS];
static int n_rows;
static rd_cache_counts sums;

static void lock(void)
{
    pthread_mutex_lock(&mutex);
}

static void unlock(void)
{
    pthread_mutex_unlock(&mutex);
}

static rd_status failed(rd_status s, rd_error *err)
{
    return rd_fail(err, s, "the fake cache was told to fail");
}

rd_status rd_cache_open(const rd_cache_options *o, rd_cache **out, rd_error *err)
{
    atomic_fetch_add(&fake_cache.opens, 1);
    if (fake_cache.open_fails) return failed((rd_status)fake_cache.open_fails, err);
    if (o->existing && !fake_cache.exists) return rd_fail(err, RD_NOT_FOUND, "no file");
    fake_cache.exists = true;
    atomic_fetch_add(&fake_cache.open, 1);
    rd_cache *c = rd_alloc0(sizeof *c);

    c->row = -1;
    *out = c;
    return RD_OK;
}

void rd_cache_close(rd_cache *c)
{
    if (!c) return;
    atomic_fetch_sub(&fake_cache.open, 1);
    free(c);
}

bool rd_cache_usual_dir(char *out, size_t n)
{
    snprintf(out, n, "/nowhere");
    return true;
}

static int find(const rd_key *model, const rd_key *key, int kind)
{
    int i = n_rows - 1;

    while (i >= 0 && (rows[i].kind != (unsigned)kind || !rd_key_equal(&rows[i].key, key) ||
                      !rd_key_equal(&rows[i].model, model)))
        i--;
    return i;
}

int rd_cache_count(rd_cache *c, const rd_key *model, const rd_key *keys, int n)
{
    int i = 0;

    (void)c;
    lock();
    while (i < n && find(model, &keys[i], RD_CACHE_BLOCK) >= 0) i++;
    unlock();
    return i;
}

rd_status rd_cache_row_open(rd_cache *c, const rd_key *model, const rd_key *key,
                            const int32_t *tokens, int n_tokens, rd_cache_row *out, rd_error *err)
{
    lock();
    int i = find(model, key, RD_CACHE_BLOCK);
    bool same = i >= 0 && rows[i].n_tokens == n_tokens &&
                !memcmp(rows[i].tokens, tokens, (size_t)n_tokens * sizeof *tokens);

    if (same) *out = (rd_cache_row){ rows[i].format, rows[i].bytes };
    unlock();
    if (!same) return rd_fail(err, RD_NOT_FOUND, "no row");
    c->row = i;
    c->at = 0;
    return RD_OK;
}

rd_status rd_cache_row_read(rd_cache *c, void *to, size_t n, rd_error *err)
{
    lock();
    bool there = c->row >= 0 && c->row < n_rows && n <= rows[c->row].bytes - c->at;

    if (there) memcpy(to, (const char *)rows[c->row].data + c->at, n);
    unlock();
    c->at += n;
    return there ? RD_OK : rd_fail(err, RD_NOT_FOUND, "no more");
}

rd_status rd_cache_row_close(rd_cache *c, rd_error *err)
{
    lock();
    bool whole = c->row >= 0 && c->row < n_rows && c->at == rows[c->row].bytes;

    unlock();
    c->row = -1;
    return whole ? RD_OK : rd_fail(err, RD_NOT_FOUND, "not all was read");
}

void rd_cache_rest(rd_cache *c)
{
    (void)c;
}

rd_status rd_cache_answer(rd_cache *c, const rd_key *model, const rd_key *key, rd_buf *out,
                          rd_error *err)
{
    (void)c;
    lock();
    int i = find(model, key, RD_CACHE_ANSWER);

    if (i >= 0) rd_buf_append(out, rows[i].data, rows[i].bytes);
    unlock();
    return i >= 0 ? RD_OK : rd_fail(err, RD_NOT_FOUND, "no answer");
}

static void keep(const rd_cache_item *from)
{
    rd_cache_item *row = &rows[n_rows];
    size_t tokens = (size_t)from->n_tokens * sizeof *from->tokens;

    if (from->kind == RD_CACHE_USED) atomic_fetch_add(&fake_cache.used, 1);
    if (from->kind == RD_CACHE_USED || n_rows == ROWS) return;
    atomic_fetch_add(from->kind == RD_CACHE_BLOCK ? &fake_cache.blocks : &fake_cache.answers, 1);
    *row = *from;
    row->data = memcpy(rd_alloc0(from->bytes + 1), from->data, from->bytes);
    row->tokens = tokens ? memcpy(rd_alloc0(tokens), from->tokens, tokens) : NULL;
    n_rows++;
}

rd_status rd_cache_put(rd_cache *c, const rd_cache_item *items, int n,
                       const rd_cache_counts *counts, rd_error *err)
{
    (void)c;
    while (fake_cache.put_waits) nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
    if (fake_cache.put_fails) return failed((rd_status)fake_cache.put_fails, err);
    if (fake_cache.stale_puts > 0) {
        atomic_fetch_sub(&fake_cache.stale_puts, 1);
        return failed(RD_STALE, err);
    }
    lock();
    for (int i = 0; i < n; i++) keep(&items[i]);
    if (counts) {
        sums.found += counts->found;
        sums.loaded += counts->loaded;
        sums.computed += counts->computed;
        sums.answers += counts->answers;
        sums.saved_ms += counts->saved_ms;
    }
    if (n > fake_cache.most_in_put) fake_cache.most_in_put = n;
    unlock();
    atomic_fetch_add(&fake_cache.puts, 1);
    return RD_OK;
}

rd_status rd_cache_stat(rd_cache *c, rd_cache_stats *out, rd_error *err)
{
    (void)c;
    (void)err;
    lock();
    *out = (rd_cache_stats){ .counts = sums };
    for (int i = 0; i < n_rows; i++) {
        out->blocks += rows[i].kind == RD_CACHE_BLOCK;
        out->answers += rows[i].kind == RD_CACHE_ANSWER;
    }
    unlock();
    return RD_OK;
}

rd_status rd_cache_verify(rd_cache *c, int64_t *n, int64_t *bad, rd_error *err)
{
    (void)c;
    (void)err;
    *n = n_rows;
    *bad = 0;
    return RD_OK;
}

rd_status rd_cache_trim(rd_cache *c, int64_t max_bytes, int max_days, int64_t *removed,
                        rd_error *err)
{
    (void)c;
    (void)max_bytes;
    (void)max_days;
    (void)err;
    *removed = 0;
    return RD_OK;
}

rd_status rd_cache_purge(rd_cache *c, const rd_key *source, int64_t *removed, rd_error *err)
{
    int kept = 0;

    (void)c;
    if (fake_cache.purge_fails) return failed((rd_status)fake_cache.purge_fails, err);
    lock();
    for (int i = 0; i < n_rows; i++) {
        if (source && !rd_key_equal(source, &rows[i].source)) {
            rows[kept++] = rows[i];
            continue;
        }
        free((void *)rows[i].data);
        free((void *)rows[i].tokens);
    }
    *removed = n_rows - kept;
    n_rows = kept;
    unlock();
    atomic_fetch_add(&fake_cache.purges, 1);
    return RD_OK;
}

int fake_cache_rows_of(const rd_key *source)
{
    int n = 0;

    lock();
    for (int i = 0; i < n_rows; i++) n += rd_key_equal(source, &rows[i].source);
    unlock();
    return n;
}

void fake_cache_damage(void)
{
    lock();
    for (int i = 0; i < n_rows; i++)
        if (rows[i].kind == RD_CACHE_BLOCK) memset((void *)rows[i].data, 0xff, rows[i].bytes);
    unlock();
}
