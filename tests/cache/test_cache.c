/* test_cache.c - what is put is found again, by others too; what goes leaves nothing. */
#include "store.h"

#include <criterion/criterion.h>
#include <sqlite3.h>

static rd_cache *open_at(const char *dir)
{
    rd_cache *c = NULL;
    rd_error err = { 0 };

    cr_assert_eq(rd_cache_open(&(rd_cache_options){ .dir = dir }, &c, &err), RD_OK, "%s", err.text);
    return c;
}

Test(cache, serves_what_was_put_to_another_handle)
{
    static const size_t sizes[] = { 1, 1000, 65501, 98304, 196608, 1310720, 2621440 };
    char *dir = store_folder();
    rd_cache *w = open_at(dir), *r = open_at(dir);
    rd_error err = { 0 };

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        int64_t n = (int64_t)i * 10;

        cr_assert_eq(store_put(w, n, n + 3, sizes[i], 0, &err), RD_OK, "%s", err.text);
        for (int64_t k = n; k < n + 3; k++)
            cr_assert_eq(store_get(r, k, sizes[i], &err), RD_OK, "%s", err.text);
        cr_assert_eq(store_get(r, n + 3, sizes[i], &err), RD_NOT_FOUND);
    }
    rd_cache_close(w);
    rd_cache_close(r);
    r = open_at(dir);
    cr_assert_eq(store_get(r, 30, sizes[3], &err), RD_OK, "%s", err.text);
    int64_t rows, bad, removed;

    cr_assert_eq(rd_cache_verify(r, &rows, &bad, &err), RD_OK, "%s", err.text);
    cr_assert_eq(rows, 21);
    cr_assert_eq(bad, 0);
    cr_assert_eq(rd_cache_purge(r, NULL, &removed, &err), RD_OK, "%s", err.text);
    cr_assert_eq(removed, 21);
    rd_cache_close(r);
    store_remove(dir);
}

Test(cache, counts_without_a_gap)
{
    char *dir = store_folder();
    rd_cache *c = open_at(dir);
    rd_key keys[8], model = store_key("model", 1);
    rd_error err = { 0 };

    for (int i = 0; i < 8; i++) keys[i] = store_key("block", i);
    cr_assert_eq(rd_cache_count(c, &model, keys, 8), 0);
    cr_assert_eq(store_put(c, 0, 3, 100, 0, &err), RD_OK, "%s", err.text);
    cr_assert_eq(store_put(c, 4, 8, 100, 0, &err), RD_OK, "%s", err.text);
    cr_assert_eq(rd_cache_count(c, &model, keys, 8), 3);
    cr_assert_eq(rd_cache_count(c, &model, keys + 4, 4), 4);
    for (int i = 4; i < 8; i++) cr_assert_eq(store_get(c, i, 100, &err), RD_OK, "%s", err.text);
    rd_cache_close(c);
    store_remove(dir);
}

Test(cache, keeps_answers_and_counts)
{
    char *dir = store_folder();
    rd_cache *c = open_at(dir);
    rd_error err = { 0 };
    rd_cache_stats stats;
    rd_buf out = { 0 };
    rd_cache_item answer = { .kind = RD_CACHE_ANSWER,
                             .model = store_key("model", 1),
                             .key = store_key("answer", 1),
                             .data = "return 0;",
                             .bytes = 9 };
    rd_cache_counts counts = {
        .found = 1, .loaded = 2, .computed = 3, .answers = 4, .saved_ms = 5
    };

    cr_assert_eq(rd_cache_put(c, &answer, 1, &counts, &err), RD_OK, "%s", err.text);
    cr_assert_eq(rd_cache_put(c, NULL, 0, &counts, &err), RD_OK, "%s", err.text);
    cr_assert_eq(rd_cache_answer(c, &answer.model, &answer.key, &out, &err), RD_OK, "%s", err.text);
    cr_assert_str_eq(out.data, "return 0;");
    cr_assert_eq(rd_cache_stat(c, &stats, &err), RD_OK, "%s", err.text);
    cr_assert_eq(stats.answers, 1);
    cr_assert_eq(stats.blocks, 0);
    cr_assert_eq(stats.models, 1);
    cr_assert_eq(stats.payload_bytes, 9);
    cr_assert_eq(stats.counts.computed, 6);
    cr_assert_float_eq(stats.counts.saved_ms, 10, 0);
    cr_assert_gt(stats.file_bytes, 65536);
    rd_buf_clear(&out);
    rd_cache_close(c);
    store_remove(dir);
}

/* ---- limits ---- */

static int64_t clock_s;

static int64_t told_time(void)
{
    return clock_s;
}

static rd_cache *open_limited(const char *dir, int64_t bytes, int days)
{
    rd_cache_options o = { .dir = dir, .max_bytes = bytes, .max_days = days, .now_s = told_time };
    rd_cache *c = NULL;
    rd_error err = { 0 };

    cr_assert_eq(rd_cache_open(&o, &c, &err), RD_OK, "%s", err.text);
    return c;
}

static bool there(rd_cache *c, int64_t n)
{
    rd_error err = { 0 };
    rd_status s = store_get(c, n, 98304, &err);

    cr_assert(s == RD_OK || s == RD_NOT_FOUND, "%s", err.text);
    return !s;
}

static void use(rd_cache *c, int64_t n)
{
    rd_cache_item item = { .kind = RD_CACHE_USED,
                           .model = store_key("model", 1),
                           .key = store_key("block", n) };

    cr_assert_eq(rd_cache_put(c, &item, 1, NULL, NULL), RD_OK);
}

Test(cache, lets_go_of_what_was_used_longest_ago)
{
    char *dir = store_folder(), path[300];
    rd_error err = { 0 };

    clock_s = 1000000;
    rd_cache *c = open_limited(dir, 4 << 20, 0); /* 64 pages; a block takes two */

    for (int64_t n = 0; n < 20; n++, clock_s += 100)
        cr_assert_eq(store_put(c, n, n + 1, 98304, 0, &err), RD_OK, "%s", err.text);
    use(c, 0);
    for (int64_t n = 20; n < 60; n++, clock_s += 100) {
        cr_assert_eq(store_put(c, n, n + 1, 98304, 0, &err), RD_OK, "%s", err.text);
        if (n % 8 == 0) use(c, 0);
    }
    cr_assert(there(c, 59) && there(c, 50) && there(c, 0));
    cr_assert(!there(c, 1) && !there(c, 19));
    rd_cache_close(c);
    snprintf(path, sizeof path, "stat -c %%s %s/cache.db", dir);
    FILE *f = popen(path, "r");
    long bytes = 0;

    cr_assert_eq(fscanf(f, "%ld", &bytes), 1);
    pclose(f);
    cr_assert_leq(bytes, 4 << 20);
    cr_assert_gt(bytes, 2 << 20);
    store_remove(dir);
}

Test(cache, refuses_what_its_limit_can_never_hold)
{
    char *dir = store_folder();
    rd_error err = { 0 };
    rd_cache *c = open_limited(dir, 1 << 20, 0);

    cr_assert_eq(store_put(c, 0, 2, 98304, 0, &err), RD_OK, "%s", err.text);
    cr_assert_eq(store_put(c, 2, 3, 2621440, 0, &err), RD_OK, "%s", err.text);
    cr_assert_eq(store_get(c, 2, 2621440, &err), RD_NOT_FOUND);
    rd_cache_close(c);
    store_remove(dir);
}

Test(cache, gives_space_back_when_the_limit_became_smaller)
{
    char *dir = store_folder();
    rd_error err = { 0 };
    rd_cache_stats stats;
    int64_t removed;

    clock_s = 1000000;
    rd_cache *c = open_limited(dir, 0, 0);

    cr_assert_eq(store_put(c, 0, 40, 98304, 0, &err), RD_OK, "%s", err.text);
    rd_cache_close(c);
    c = open_limited(dir, 2 << 20, 0);
    cr_assert_eq(store_put(c, 40, 41, 98304, 0, &err), RD_OK, "%s", err.text);
    rd_cache_close(c);
    c = open_limited(dir, 0, 0);
    cr_assert_eq(rd_cache_stat(c, &stats, &err), RD_OK);
    cr_assert_leq(stats.file_bytes, 2 << 20);
    cr_assert(there(c, 40));
    cr_assert_eq(rd_cache_trim(c, 1 << 20, -1, &removed, &err), RD_OK, "%s", err.text);
    cr_assert_gt(removed, 0);
    rd_cache_close(c);
    c = open_limited(dir, 0, 0);
    cr_assert_eq(rd_cache_stat(c, &stats, &err), RD_OK);
    cr_assert_leq(stats.file_bytes, 1 << 20);
    rd_cache_close(c);
    store_remove(dir);
}

enum { DAY = 86400 };

Test(cache, lets_go_of_what_was_not_used_for_days)
{
    char *dir = store_folder();
    rd_error err = { 0 };

    clock_s = 100 * DAY;
    rd_cache *c = open_limited(dir, 0, 10);

    cr_assert_eq(store_put(c, 0, 3, 98304, 0, &err), RD_OK, "%s", err.text);
    clock_s += 6 * DAY;
    use(c, 1);
    clock_s += 6 * DAY;
    use(c, 2); /* two minutes too late for this one and the first */
    cr_assert(!there(c, 0) && there(c, 1) && !there(c, 2));
    rd_cache_close(c);
    store_remove(dir);
}

Test(cache, survives_a_clock_that_goes_back)
{
    char *dir = store_folder();
    rd_error err = { 0 };
    rd_cache_stats stats;

    clock_s = 1000 * DAY;
    rd_cache *c = open_limited(dir, 0, 10);

    cr_assert_eq(store_put(c, 0, 3, 98304, 0, &err), RD_OK, "%s", err.text);
    clock_s = 500 * DAY; /* nothing goes now, and nothing stays for 500 days */
    cr_assert_eq(store_put(c, 3, 4, 98304, 0, &err), RD_OK, "%s", err.text);
    cr_assert(there(c, 0) && there(c, 2) && there(c, 3));
    cr_assert_eq(rd_cache_stat(c, &stats, &err), RD_OK);
    cr_assert_eq(stats.newest_s, 500 * DAY);
    clock_s += 11 * DAY;
    cr_assert_eq(store_put(c, 4, 5, 98304, 0, &err), RD_OK, "%s", err.text);
    cr_assert(!there(c, 0) && !there(c, 3) && there(c, 4));
    rd_cache_close(c);
    store_remove(dir);
}

/* ---- other connections ---- */

Test(cache, notices_that_its_file_was_removed)
{
    char *dir = store_folder();
    rd_cache *c = open_at(dir);
    rd_error err = { 0 };

    cr_assert_eq(store_put(c, 0, 2, 98304, 0, &err), RD_OK, "%s", err.text);
    store_remove(dir);
    cr_assert_neq(store_get(c, 0, 98304, &err), RD_OK);
    cr_assert_eq(store_put(c, 0, 2, 98304, 0, &err), RD_OK, "%s", err.text);
    cr_assert_eq(store_get(c, 0, 98304, &err), RD_OK, "%s", err.text);
    rd_cache_close(c);
    store_remove(dir);
}

/* A reader in the middle of a restore sees what stood there when it began, and keeps the log; after rd_cache_rest it does not. */
Test(cache, a_reader_that_rests_lets_the_log_be_emptied)
{
    char *dir = store_folder();
    rd_cache *w = open_at(dir), *r = open_at(dir);
    rd_key keys[4], model = store_key("model", 1);
    rd_error err = { 0 };
    int stale = 0;

    for (int i = 0; i < 4; i++) keys[i] = store_key("block", i);
    cr_assert_eq(store_put(w, 0, 4, 98304, 0, &err), RD_OK, "%s", err.text);
    cr_assert_eq(rd_cache_count(r, &model, keys, 4), 4);
    cr_assert(there(r, 0));
    for (int64_t n = 100; n < 160 && !stale; n++)
        stale = store_put(w, n, n + 1, 2621440, 0, &err) == RD_STALE;
    cr_assert(stale, "the log grew without end");
    cr_assert(there(r, 1)); /* the count holds for it still */
    rd_cache_rest(r);
    cr_assert_eq(store_put(w, 200, 201, 98304, 0, &err), RD_OK, "%s", err.text);
    rd_cache_close(w);
    rd_cache_close(r);
    store_remove(dir);
}

/* What a purge relies on: no two payloads share a page of their table. */
Test(cache, keeps_one_payload_in_a_page)
{
    char *dir = store_folder(), path[300];
    rd_cache *c = open_at(dir);
    rd_error err = { 0 };
    sqlite3_stmt *st;
    sqlite3 *db;

    for (int64_t n = 0; n < 60; n++)
        cr_assert_eq(store_put(c, n, n + 1, (size_t)(1 + n * n * 100), 0, &err), RD_OK, "%s",
                     err.text);
    rd_cache_close(c);
    snprintf(path, sizeof path, "%s/cache.db", dir);
    cr_assert_eq(sqlite3_open(path, &db), SQLITE_OK);
    cr_assert_eq(sqlite3_prepare_v2(db,
                                    "SELECT count(*), max(ncell) FROM dbstat WHERE name='payload'"
                                    " AND pagetype='leaf'",
                                    -1, &st, NULL),
                 SQLITE_OK);
    cr_assert_eq(sqlite3_step(st), SQLITE_ROW);
    cr_assert_eq(sqlite3_column_int(st, 0), 60);
    cr_assert_eq(sqlite3_column_int(st, 1), 1);
    sqlite3_finalize(st);
    sqlite3_close(db);
    store_remove(dir);
}
