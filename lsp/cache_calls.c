/* cache_calls.c - stat, verify, trim, purge: a connection of its own to the file, for as long as the call takes. */
#include "lsp/cache_calls.h"

#include "cache/cache.h"
#include "core/base/memory.h"
#include "lsp/link.h"
#include "lsp/repair.h"
#include "lsp/settings.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { FORGET_S = 30 };

/* The file as the user's settings say. */
typedef struct place {
    rd_config *config;
    char dir[PATH_MAX];
    rd_cache *cache; /* NULL: there is no file */
} place;

static void leave(place *p)
{
    rd_cache_close(p->cache);
    rd_config_free(p->config);
}

static rd_status find_dir(place *p, rd_error *err)
{
    if (p->config->cache_dir && strlen(p->config->cache_dir) < sizeof p->dir)
        snprintf(p->dir, sizeof p->dir, "%s", p->config->cache_dir);
    else if (p->config->cache_dir || !rd_cache_usual_dir(p->dir, sizeof p->dir))
        return rd_fail(err, RD_NOT_FOUND, "there is no folder for a cache: HOME is not set");
    return RD_OK;
}

static rd_status visit(place *p, rd_error *err)
{
    rd_buf complaints = { 0 };

    *p = (place){ .config = rd_config_new(NULL, &complaints) };
    if (complaints.len) fprintf(stderr, "%s", complaints.data);
    rd_buf_clear(&complaints);
    rd_status s = find_dir(p, err);

    if (!s)
        s = rd_cache_open(&(rd_cache_options){ .dir = p->dir,
                                               .existing = true,
                                               .any_place = p->config->cache_any_place },
                          &p->cache, err);
    if (!s) return RD_OK;
    p->cache = NULL;
    if (s == RD_NOT_FOUND && *p->dir) return RD_OK;
    leave(p);
    return s;
}

/* ---- stat ---- */

static void print_json(const place *p, const rd_cache_stats *s)
{
    json_t *o = json_pack("{s:b, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "exists",
                          p->cache != NULL, "dir", rd_repair_string(p->dir, strlen(p->dir)),
                          "blocks", (json_int_t)s->blocks, "answers", (json_int_t)s->answers,
                          "models", (json_int_t)s->models, "payload_bytes",
                          (json_int_t)s->payload_bytes, "file_bytes", (json_int_t)s->file_bytes,
                          "oldest_s", (json_int_t)s->oldest_s, "newest_s", (json_int_t)s->newest_s);

    json_object_set_new(o, "hits",
                        json_pack("{s:I, s:I, s:I, s:I}", "found", (json_int_t)s->counts.found,
                                  "loaded", (json_int_t)s->counts.loaded, "computed",
                                  (json_int_t)s->counts.computed, "answers",
                                  (json_int_t)s->counts.answers));
    json_object_set_new(o, "saved_ms", json_real(s->counts.saved_ms));
    char *text = json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(9));

    printf("%s\n", text);
    free(text);
    json_decref(o);
}

static double days_since(int64_t s)
{
    return s > 0 ? (double)(time(NULL) - s) / 86400 : 0;
}

static double megabytes(int64_t bytes)
{
    return (double)bytes / (1 << 20);
}

static void print_stat(const place *p, const rd_cache_stats *s)
{
    if (!p->cache) {
        printf("no cache in %s\n", p->dir);
        return;
    }
    printf("%s\n", p->dir);
    printf("file     %.1f MB, %.1f MB of it content\n", megabytes(s->file_bytes),
           megabytes(s->payload_bytes));
    printf("rows     %lld blocks, %lld answers, %lld models\n", (long long)s->blocks,
           (long long)s->answers, (long long)s->models);
    printf("used     %.1f days ago, the oldest; %.1f days ago, the newest\n",
           days_since(s->oldest_s), days_since(s->newest_s));
    printf("blocks   %lld found in memory, %lld loaded from the file, %lld computed\n",
           (long long)s->counts.found, (long long)s->counts.loaded, (long long)s->counts.computed);
    printf("answers  %lld given without the model\n", (long long)s->counts.answers);
    printf("saved    %.1f s\n", s->counts.saved_ms / 1000);
}

rd_status rd_cache_call_stat(bool json, rd_error *err)
{
    place p;
    rd_cache_stats stats = { 0 };
    rd_status s = visit(&p, err);

    if (s) return s;
    if (p.cache) s = rd_cache_stat(p.cache, &stats, err);
    if (!s && json)
        print_json(&p, &stats);
    else if (!s)
        print_stat(&p, &stats);
    leave(&p);
    return s;
}

/* ---- the others ---- */

rd_status rd_cache_call_verify(rd_error *err)
{
    place p;
    int64_t rows = 0, bad = 0;
    rd_status s = visit(&p, err);

    if (s) return s;
    if (!p.cache) {
        printf("no cache in %s\n", p.dir);
    } else {
        s = rd_cache_verify(p.cache, &rows, &bad, err);
        if (!s) printf("%lld rows, %lld wrong\n", (long long)rows, (long long)bad);
        if (!s && bad > 0)
            s = rd_fail(err, RD_INVALID, "%lld rows were wrong and are removed", (long long)bad);
    }
    leave(&p);
    return s;
}

rd_status rd_cache_call_trim(int most_mb, int days, rd_error *err)
{
    place p;
    int64_t removed = 0;
    rd_status s = visit(&p, err);

    if (s) return s;
    if (most_mb < 0) most_mb = p.config->cache_mb;
    if (days < 0) days = p.config->cache_days > 0 ? p.config->cache_days : -1;
    if (p.cache) s = rd_cache_trim(p.cache, (int64_t)most_mb << 20, days, &removed, err);
    if (!s && p.cache)
        printf("%lld rows removed\n", (long long)removed);
    else if (!s)
        printf("no cache in %s\n", p.dir);
    leave(&p);
    return s;
}

/* First the daemons, or they would write again what they hold; the file is done here all the same, since one that works in another
 * folder has not touched it. */
rd_status rd_cache_call_purge(rd_error *err)
{
    place p;
    int64_t removed = 0;
    int told = 0;
    rd_error late = { 0 };
    rd_status s = visit(&p, err);

    if (s) return s;
    rd_status busy =
        rd_link_tell_all((rd_hello){ .kind = RD_HELLO_FORGET }, FORGET_S, &told, &late);

    if (p.cache) s = rd_cache_purge(p.cache, NULL, &removed, err);
    if (!s && p.cache)
        printf("purged %s\n", p.dir);
    else if (!s)
        printf("no cache in %s\n", p.dir);
    if (!s && told) printf("%d daemon%s forgot what it held\n", told, told == 1 ? "" : "s");
    leave(&p);
    if (s || !busy) return s;
    return rd_fail(err, busy, "a daemon has not said that it forgot: %s; stop it", late.text);
}
