/* test_cache_processes.c - writers, a reader and an upkeeper on one file, killed at random for some seconds.
 *
 * A writer tells of each commit through a pipe before it goes on; what it told of must be there afterwards, unless the file's
 * limit took it. RD_STORM_SECONDS makes it longer. At the end the file is whole, and not once was anything served that was
 * not stored under that name.
 */
#include "store.h"

#include "core/base/clock.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <fcntl.h>

TestSuite(cache_processes, .timeout = 1200);

enum { WRITERS = 2, ROLES = 4, ROUND = 1 << 20, WRONG = 3, ENOUGH = 12 };

static size_t bytes_of(int64_t n)
{
    return (size_t)(20000 + n * 7919 % 300000);
}

static rd_cache *open_or_wait(const char *dir, int64_t most)
{
    for (int i = 0; i < 60; i++) { /* each waits for a second */
        rd_cache *c = NULL;

        if (!rd_cache_open(&(rd_cache_options){ .dir = dir, .max_bytes = most }, &c, NULL))
            return c;
    }
    _exit(2);
}

static void write_for_ever(const char *dir, int64_t from, int64_t most, int to)
{
    rd_cache *c = open_or_wait(dir, most);

    for (int64_t n = from;; n += 2) {
        store_block b[2];
        rd_cache_item items[2];

        for (int i = 0; i < 2; i++) {
            store_make(&b[i], n + i, bytes_of(n + i), n % 5);
            items[i] = b[i].item;
        }
        if (!rd_cache_put(c, items, 2, NULL, NULL)) {
            if (write(to, &n, sizeof n) != sizeof n) _exit(4);
        } else {
            n -= 2;
        }
        for (int i = 0; i < 2; i++) free(b[i].data);
        if (n % 64 == 0) { /* now and then another connection */
            rd_cache_close(c);
            c = open_or_wait(dir, most);
        }
    }
}

static void read_for_ever(const char *dir, const int64_t *firsts)
{
    rd_cache *c = open_or_wait(dir, 0);
    rd_random r = rd_random_seed((uint64_t)getpid());

    for (;;) {
        int64_t n = firsts[rd_random_below(&r, WRITERS)] + rd_random_below(&r, 200);
        rd_key keys[4], model = store_key("model", 1);

        for (int i = 0; i < 4; i++) keys[i] = store_key("block", n + i);
        int have = rd_cache_count(c, &model, keys, 4);

        for (int i = 0; i < have; i++)
            if (store_get(c, n + i, bytes_of(n + i), NULL) == RD_INVALID) _exit(WRONG);
        if (rd_random_below(&r, 100) == 0) {
            rd_cache_close(c);
            c = open_or_wait(dir, 0);
        }
    }
}

static void look_after_for_ever(const char *dir, int64_t most)
{
    for (;;) {
        rd_cache *c = open_or_wait(dir, 0);
        int64_t rows, bad = 0, removed;
        rd_error err = { 0 };
        rd_cache_stats stats;

        rd_cache_stat(c, &stats, NULL);
        rd_status s = rd_cache_verify(c, &rows, &bad, &err);

        if (bad || (s && s != RD_STALE)) {
            fprintf(stderr, "verify: %d bad, %s\n", (int)bad, err.text);
            _exit(WRONG);
        }
        if (most) rd_cache_trim(c, most * 3 / 4, -1, &removed, NULL);
        rd_cache_close(c);
    }
}

typedef struct storm {
    const char *dir;
    int64_t most, next[WRITERS], *told;
    int pipes[WRITERS], kills, n_told, room;
    pid_t child[ROLES];
} storm;

static void start(storm *s, int role)
{
    int ends[2] = { -1, -1 };

    if (role < WRITERS) cr_assert_eq(pipe(ends), 0);
    s->child[role] = fork();
    if (!s->child[role]) {
        int64_t firsts[WRITERS] = { s->next[0], s->next[1] };

        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves nobody behind */
        signal(SIGPIPE, SIG_DFL);
        if (role < WRITERS) write_for_ever(s->dir, s->next[role], s->most, ends[1]);
        if (role == WRITERS) read_for_ever(s->dir, firsts);
        look_after_for_ever(s->dir, s->most);
    }
    if (role >= WRITERS) return;
    close(ends[1]);
    s->pipes[role] = ends[0];
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
}

static void hear(storm *s, int role)
{
    int64_t n;

    while (read(s->pipes[role], &n, sizeof n) == sizeof n) {
        if (s->n_told == s->room) {
            s->room = s->room ? s->room * 2 : 1024;
            s->told = realloc(s->told, (size_t)s->room * sizeof *s->told);
        }
        s->told[s->n_told++] = n;
        s->next[role] = n + 2;
    }
}

static void end(storm *s, int role)
{
    int status;

    kill(s->child[role], SIGKILL);
    cr_assert_eq(waitpid(s->child[role], &status, 0), s->child[role]);
    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "role %d ended by itself: %x",
              role, (unsigned)status);
    if (role >= WRITERS) return;
    hear(s, role);
    close(s->pipes[role]);
    s->next[role] += 2; /* a commit may have been made and not told */
}

static void rage(storm *s)
{
    const char *seconds = getenv("RD_STORM_SECONDS");
    double until = rd_now_ms() + 1000.0 * (seconds ? strtod(seconds, NULL) : 4),
           at_most = until + 60000;
    rd_random r = rd_random_seed((uint64_t)getpid());

    for (int i = 0; i < ROLES; i++) start(s, i);
    while (rd_now_ms() < until || (s->n_told < ENOUGH && rd_now_ms() < at_most)) {
        int role = (int)rd_random_below(&r, ROLES);

        nanosleep(&(struct timespec){ .tv_nsec = 1000000L * (5 + rd_random_below(&r, 60)) }, NULL);
        for (int i = 0; i < WRITERS; i++) hear(s, i);
        end(s, role);
        start(s, role);
        s->kills++;
    }
    for (int i = 0; i < ROLES; i++) end(s, i);
}

static void whole(const storm *s)
{
    char path[300], text[200];
    sqlite3 *db;
    sqlite3_stmt *st;

    snprintf(path, sizeof path, "%s/cache.db.bad", s->dir);
    cr_assert_neq(access(path, F_OK), 0, "a file was set aside");
    snprintf(path, sizeof path, "%s/cache.db", s->dir);
    cr_assert_eq(sqlite3_open(path, &db), SQLITE_OK);
    cr_assert_eq(sqlite3_prepare_v2(db, "PRAGMA integrity_check", -1, &st, NULL), SQLITE_OK);
    cr_assert_eq(sqlite3_step(st), SQLITE_ROW);
    snprintf(text, sizeof text, "%s", sqlite3_column_text(st, 0));
    cr_assert_str_eq(text, "ok");
    sqlite3_finalize(st);
    sqlite3_close(db);
}

static void storm_over(int64_t most)
{
    storm s = { .dir = store_folder(), .most = most, .next = { 0, ROUND } };
    rd_error err = { 0 };
    int64_t rows, bad;
    int there = 0;

    rage(&s);
    rd_cache *c = open_or_wait(s.dir, 0);

    cr_assert_eq(rd_cache_verify(c, &rows, &bad, &err), RD_OK, "%s", err.text);
    cr_assert_eq(bad, 0);
    for (int i = 0; i < s.n_told; i++)
        for (int64_t n = s.told[i]; n < s.told[i] + 2; n++) {
            rd_status got = store_get(c, n, bytes_of(n), &err);

            cr_assert(got == RD_OK || (most && got == RD_NOT_FOUND), "row %d: %s", (int)n,
                      err.text);
            there += !got;
        }
    rd_cache_close(c);
    whole(&s);
    cr_log_info("%d kills, %d commits told of, %d of their rows there\n", s.kills, s.n_told, there);
    cr_assert_geq(s.n_told, ENOUGH);
    cr_assert_gt(there, 0);
    free(s.told);
    store_remove(s.dir);
}

Test(cache_processes, lose_no_commit_when_they_are_killed)
{
    storm_over(0);
}

Test(cache_processes, stay_whole_within_a_limit_when_they_are_killed)
{
    storm_over(16 << 20);
}
