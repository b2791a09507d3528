/* keeper.c - the reading side, and the table of a store around both sides. */
#include "lsp/keeper.h"

#include "core/base/clock.h"
#include "core/base/memory.h"
#include "lsp/answer.h"
#include "lsp/readers.h"
#include "lsp/scribe.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { QUIET_MS = 1000, RETRY_MS = 60000, MOST_WAITING = 256 << 20 };

struct rd_keeper {
    rd_kv_store store;
    rd_cache_options cache;
    char dir[PATH_MAX];
    rd_outage outage;
    rd_scribe *scribe;

    rd_readers *readers; /* from here on: the inference thread's */
    rd_kv_geometry geometry;
};

/* ---- the store ---- */

static void begin(void *user, const rd_kv_geometry *g)
{
    rd_keeper *k = user;

    k->geometry = *g;
    rd_scribe_begin(k->scribe, g);
}

static int count(void *user, const rd_key *keys, int n)
{
    rd_keeper *k = user;
    rd_cache *c = rd_readers_first(k->readers);

    return c ? rd_cache_count(c, &k->geometry.model, keys, n) : 0;
}

static int load(void *user, const rd_kv_want *wants, int n)
{
    rd_keeper *k = user;

    return rd_readers_load(k->readers, &k->geometry, wants, n);
}

static bool offer(void *user, rd_kv_offer *o)
{
    return rd_scribe_offer(((rd_keeper *)user)->scribe, o);
}

/* A restore is over, whole or not: nobody has to wait for this reader while the model works. */
static void told(void *user, int found, int loaded, int computed, double saved_ms)
{
    rd_keeper *k = user;

    rd_readers_rest(k->readers);
    rd_scribe_count(k->scribe, &(rd_cache_counts){ .found = found,
                                                   .loaded = loaded,
                                                   .computed = computed,
                                                   .saved_ms = saved_ms });
}

static void end(void *user)
{
    rd_scribe_end(((rd_keeper *)user)->scribe);
}

const rd_kv_store *rd_keeper_store(rd_keeper *k)
{
    return &k->store;
}

/* ---- its life ---- */

rd_keeper *rd_keeper_new(const rd_keeper_options *o)
{
    rd_keeper *k = rd_alloc0(sizeof *k);

    k->store = (rd_kv_store){ k, begin, count, load, offer, told, end };
    if (o->dir)
        snprintf(k->dir, sizeof k->dir, "%s", o->dir);
    else if (!rd_cache_usual_dir(k->dir, sizeof k->dir))
        *k->dir = 0;
    k->cache = (rd_cache_options){
        .dir = k->dir, .any_place = o->any_place, .max_bytes = o->max_bytes, .max_days = o->max_days
    };
    rd_outage_init(&k->outage, o->retry_ms ? o->retry_ms : RETRY_MS);
    k->scribe = rd_scribe_new(
        &(rd_scribe_options){ .cache = k->cache,
                              .format = o->format,
                              .most_waiting = o->most_waiting ? o->most_waiting : MOST_WAITING,
                              .quiet_ms = o->quiet_ms ? o->quiet_ms : QUIET_MS,
                              .outage = &k->outage,
                              .forgot = o->forgot,
                              .user = o->user });
    k->readers = rd_readers_new(&k->cache, k->scribe, &k->outage, o->readers);
    return k;
}

void rd_keeper_close(rd_keeper *k)
{
    if (!k) return;
    rd_readers_free(k->readers);
    rd_scribe_close(k->scribe);
    rd_outage_clear(&k->outage);
    free(k);
}

void rd_keeper_idle(rd_keeper *k, bool idle)
{
    if (idle) rd_readers_rest(k->readers);
    rd_scribe_idle(k->scribe, idle);
}

/* ---- answers ---- */

bool rd_keeper_recall(rd_keeper *k, const rd_key *identity, const rd_job *job, const rd_key *key,
                      rd_event *ev)
{
    rd_buf bytes = { 0 };
    rd_error err = { 0 };
    rd_status status = RD_OK;
    double ms = 0;

    if (job->fresh || rd_key_is_none(identity)) return false;
    if (!rd_scribe_find_answer(k->scribe, identity, key, &bytes)) {
        rd_cache *c = rd_readers_first(k->readers);

        status = c ? rd_cache_answer(c, identity, key, &bytes, &err) : RD_NOT_FOUND;
        if (!status) rd_scribe_used(k->scribe, identity, key);
    }
    bool found = !status && rd_answer_read(bytes.data, bytes.len, ev, &ms);

    rd_buf_clear(&bytes);
    if (status) rd_readers_missed(k->readers, status, &err);
    if (found) rd_scribe_count(k->scribe, &(rd_cache_counts){ .answers = 1, .saved_ms = ms });
    return found;
}

void rd_keeper_remember(rd_keeper *k, const rd_key *identity, const rd_key *key, const rd_event *ev)
{
    rd_buf bytes = { 0 };
    rd_key source = rd_kv_source(ev->job->source);

    if (!rd_key_is_none(identity) && rd_answer_write(ev, &bytes))
        rd_scribe_answer(k->scribe, identity, key, &source, &bytes);
    rd_buf_clear(&bytes);
}

/* ---- forgetting, and what it has come to ---- */

void rd_keeper_forget(rd_keeper *k, const char *source)
{
    rd_key key = rd_kv_source(source);

    rd_scribe_forget(k->scribe, source ? &key : NULL);
}

uint64_t rd_keeper_forgotten(rd_keeper *k)
{
    rd_scribe_stats s;

    rd_scribe_stat(k->scribe, &s);
    return s.forgotten;
}

void rd_keeper_stat(rd_keeper *k, rd_keeper_stats *out)
{
    rd_scribe_stats s;

    rd_scribe_stat(k->scribe, &s);
    *out = (rd_keeper_stats){ .found = s.counts.found,
                              .loaded = s.counts.loaded,
                              .computed = s.counts.computed,
                              .answers = s.counts.answers,
                              .saved_ms = s.counts.saved_ms,
                              .written = s.written,
                              .refused = s.refused,
                              .dropped = s.dropped,
                              .waiting_bytes = s.waiting_bytes };
    snprintf(out->dir, sizeof out->dir, "%s", k->dir);
    rd_outage_why(&k->outage, out->why, sizeof out->why);
}
