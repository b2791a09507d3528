/* test_cache_faults.c - every call to the file system and every allocation of a whole session fails in its turn.
 *
 * The session opens, writes, reads, answers, trims, verifies, purges and closes. Whatever fails, no call crashes, nothing is served
 * that was not stored, and afterwards a plain handle opens the file, finds it whole and can use it.
 */
#include "store.h"

#include "tests/fake/faultvfs.h"

#include <criterion/criterion.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <signal.h>

TestSuite(cache_faults, .timeout = 400);

enum { BYTES = 70000 };

/* Statuses are not judged here: with a fault anything may be refused. What is served is. */
static void look(rd_cache *c, int64_t from, int64_t to)
{
    rd_error err = { 0 };

    for (int64_t n = from; n < to; n++) {
        rd_status s = store_get(c, n, BYTES, &err);

        cr_assert_neq(s, RD_INVALID, "%s", err.text);
    }
}

static void answer(rd_cache *c)
{
    rd_key model = store_key("model", 1), key = store_key("answer", 1);
    rd_buf out = { 0 };

    if (!rd_cache_answer(c, &model, &key, &out, NULL)) cr_assert_str_eq(out.data, "answer");
    rd_buf_clear(&out);
}

static void session(const char *dir, const char *vfs)
{
    rd_cache *c = NULL, *r = NULL;
    rd_cache_options o = { .dir = dir, .vfs = vfs, .max_bytes = 4 << 20, .max_days = 9 };
    rd_cache_item item = { .kind = RD_CACHE_ANSWER,
                           .model = store_key("model", 1),
                           .key = store_key("answer", 1),
                           .source = store_key("source", 5),
                           .data = "answer",
                           .bytes = 6 };
    rd_cache_counts counts = { .found = 1 };
    rd_key model = store_key("model", 1), keys[4], source = store_key("source", 1);
    rd_cache_stats stats;
    int64_t a, b;

    for (int i = 0; i < 4; i++) keys[i] = store_key("block", i);
    if (rd_cache_open(&o, &c, NULL)) return;
    if (!rd_cache_open(&o, &r, NULL)) {
        rd_cache_count(r, &model, keys, 4);
        look(r, 0, 4);
    }
    store_put(c, 0, 4, BYTES, 0, NULL);
    store_put(c, 4, 8, BYTES, 1, NULL);
    rd_cache_put(c, &item, 1, &counts, NULL);
    if (r) {
        rd_cache_count(r, &model, keys, 4);
        look(r, 0, 3);
        answer(r);
        rd_cache_stat(r, &stats, NULL);
    }
    rd_cache_verify(c, &a, &b, NULL);
    rd_cache_trim(c, 10 * 131072, -1, &a, NULL);
    rd_cache_close(r); /* or the purge would wait for it */
    rd_cache_purge(c, &source, &a, NULL);
    look(c, 0, 8);
    store_put(c, 8, 10, BYTES, 0, NULL);
    rd_cache_close(c);
}

/* With nothing failing any more. */
static void settle(const char *dir, const char *what, int at)
{
    rd_cache *c = NULL;
    rd_error err = { 0 };
    int64_t rows, bad;

    faultvfs_arm(FAULTVFS_IO, 0, false);
    cr_assert_eq(rd_cache_open(&(rd_cache_options){ .dir = dir }, &c, &err), RD_OK, "%s %d: %s",
                 what, at, err.text);
    cr_assert_eq(rd_cache_verify(c, &rows, &bad, &err), RD_OK, "%s %d: %s", what, at, err.text);
    cr_assert_eq(bad, 0, "%s %d: %d bad", what, at, (int)bad);
    look(c, 0, 10);
    cr_assert_eq(store_put(c, 20, 21, BYTES, 0, &err), RD_OK, "%s %d: %s", what, at, err.text);
    cr_assert_eq(store_get(c, 20, BYTES, &err), RD_OK, "%s %d: %s", what, at, err.text);
    rd_cache_close(c);
}

/* A file to begin with, its log empty. */
static void fill(const char *dir)
{
    rd_cache *c = NULL;

    cr_assert_eq(rd_cache_open(&(rd_cache_options){ .dir = dir }, &c, NULL), RD_OK);
    cr_assert_eq(store_put(c, 0, 4, BYTES, 0, NULL), RD_OK);
    rd_cache_close(c);
}

/* The first call, the second, and so on until none fails; in the suite only each 7th, or each `stride`-th. */
static void each(faultvfs_kind kind, bool on, bool filled, int stride)
{
    const char *whole = getenv("RD_FAULTS_EACH");
    int last = 0;

    if (whole) stride = 1;

    faultvfs_register();
    for (int at = 1; !last; at += at < 24 && stride < 20 ? 1 : stride) {
        char *dir = store_folder();

        if (filled) fill(dir);
        faultvfs_arm(kind, at, on);
        session(dir, "fault");
        if (!faultvfs_failed()) last = faultvfs_calls();
        settle(dir, faultvfs_names[kind], at);
        store_remove(dir);
    }
    cr_log_info("%s: %d calls\n", faultvfs_names[kind], last);
    cr_assert_gt(last, 0);
}

#define FAULT(name, kind, filled)        \
    Test(cache_faults, name##_once)      \
    {                                    \
        each(kind, false, filled, 7);    \
    }                                    \
    Test(cache_faults, name##_from_then) \
    {                                    \
        each(kind, true, filled, 7);     \
    }

FAULT(io, FAULTVFS_IO, false)
FAULT(full, FAULTVFS_FULL, false)
FAULT(short_read, FAULTVFS_SHORT_READ, true)
FAULT(io_on_a_full_file, FAULTVFS_IO, true)
FAULT(short_write, FAULTVFS_SHORT_WRITE, false)
FAULT(no_memory_for_the_index, FAULTVFS_NO_MEMORY, false)

Test(cache_faults, busy_once)
{
    each(FAULTVFS_BUSY, false, false, 7);
}

/* Each of these waits for a lock as long as a person would. */
Test(cache_faults, busy_from_then)
{
    each(FAULTVFS_BUSY, true, false, 60);
}

/* ---- memory ---- */

static sqlite3_mem_methods usual;
static int turn, allocations, refused;
static bool from_then_on;

static bool refuses(void)
{
    allocations++;
    if (!turn || allocations < turn || (allocations > turn && !from_then_on)) return false;
    refused++;
    return true;
}

static void *mem_new(int n)
{
    return refuses() ? NULL : usual.xMalloc(n);
}

static void *mem_resize(void *p, int n)
{
    return refuses() ? NULL : usual.xRealloc(p, n);
}

static void each_allocation(bool on)
{
    const char *whole = getenv("RD_FAULTS_EACH");
    sqlite3_mem_methods mine;
    bool done = false;

    sqlite3_shutdown();
    cr_assert_eq(sqlite3_config(SQLITE_CONFIG_GETMALLOC, &usual), SQLITE_OK);
    mine = usual;
    mine.xMalloc = mem_new;
    mine.xRealloc = mem_resize;
    cr_assert_eq(sqlite3_config(SQLITE_CONFIG_MALLOC, &mine), SQLITE_OK);
    sqlite3_initialize();
    for (int at = 1; !done; at += whole ? 1 : at / 16 + 1) {
        char *dir = store_folder();

        allocations = refused = 0;
        from_then_on = on;
        turn = at;
        session(dir, NULL);
        done = !refused;
        turn = 0;
        settle(dir, "allocation", at);
        store_remove(dir);
    }
}

Test(cache_faults, allocation_once)
{
    each_allocation(false);
}

Test(cache_faults, allocation_from_then)
{
    each_allocation(true);
}

/* ---- the real thing ---- */

Test(cache_faults, files_may_not_grow)
{
    for (size_t most = 0; most < 40; most++) {
        char *dir = store_folder();
        int status;
        pid_t child = fork();

        if (!child) {
            signal(SIGXFSZ, SIG_IGN);
            setrlimit(RLIMIT_FSIZE, &(struct rlimit){ most * 50000, most * 50000 });
            session(dir, NULL);
            _exit(0);
        }
        cr_assert_eq(waitpid(child, &status, 0), child);
        cr_assert_eq(status, 0, "with %zu: %x", most, (unsigned)status);
        settle(dir, "limit", (int)most);
        store_remove(dir);
    }
}
