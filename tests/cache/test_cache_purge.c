/* test_cache_purge.c - what a purge removes is in no file of the folder any more: not in the database, its log, its free
 * pages, its pages' gaps, nor in what was set aside. */
#include "store.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <sys/stat.h>
#include <sys/wait.h>

TestSuite(cache_purge, .timeout = 120);

static rd_cache *open_at(const char *dir)
{
    rd_cache *c = NULL;
    rd_error err = { 0 };

    cr_assert_eq(rd_cache_open(&(rd_cache_options){ .dir = dir }, &c, &err), RD_OK, "%s", err.text);
    return c;
}

/* Row n was put by this rule in the tests of sources; -1 stands for all of them. */
enum { ROWS = 240, SOURCES = 4 };

static int64_t source_of(int64_t n)
{
    return (n * 2654435761) >> 7 & (SOURCES - 1);
}

static bool holds(const char *bytes, size_t n, int64_t row)
{
    int32_t tokens[STORE_TOKENS];
    char mark[40];
    int len = snprintf(mark, sizeof mark, "payload-%lld-", (long long)row);

    store_tokens(row, tokens);
    return memmem(bytes, n, mark, (size_t)len) || memmem(bytes, n, tokens, 24);
}

/* How many of the rows have payload, answer or tokens left in a file of the folder. Read by a process of its own: closing a
 * file that SQLite has open would drop its locks. */
static int rows_left(const char *dir, int64_t source)
{
    int left = 0, status;
    pid_t child = fork();

    if (child > 0) {
        waitpid(child, &status, 0);
        return WEXITSTATUS(status);
    }
    DIR *d = opendir(dir);

    for (struct dirent *e; (e = readdir(d));) {
        char path[600];
        struct stat st;

        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (stat(path, &st) || !S_ISREG(st.st_mode) || !st.st_size) continue;
        char *bytes = malloc((size_t)st.st_size);
        FILE *f = fopen(path, "rb");
        size_t got = fread(bytes, 1, (size_t)st.st_size, f);

        for (int64_t n = 0; n < ROWS; n++)
            if (source < 0 || source_of(n) == source) left += holds(bytes, got, n);
        free(bytes);
        fclose(f);
    }
    _exit(left > 250 ? 250 : left);
}

Test(cache_purge, leaves_nothing_though_another_process_has_the_file_open)
{
    char *dir = store_folder();
    rd_cache *c = open_at(dir);
    int ready[2], go[2], status;
    rd_error err = { 0 };
    int64_t removed;
    char byte = 0;

    for (int i = 0; i < 4; i++)
        cr_assert_eq(store_put(c, i * 8, i * 8 + 8, 98304, 0, &err), RD_OK, "%s", err.text);
    cr_assert_geq(rows_left(dir, -1), 32);
    cr_assert(!pipe(ready) && !pipe(go));
    pid_t child = fork();

    if (!child) { /* the parent's handle is not touched here */
        rd_cache *r = NULL;
        close(go[1]); /* or it would wait for itself, should the parent give up */
        close(ready[0]);
        bool good = !rd_cache_open(&(rd_cache_options){ .dir = dir }, &r, NULL) &&
                    !store_get(r, 5, 98304, NULL);

        if (write(ready[1], &byte, 1) != 1 || read(go[0], &byte, 1) != 1) good = false;
        good = good && store_get(r, 5, 98304, NULL) == RD_NOT_FOUND;
        _exit(good ? 0 : 1);
    }
    cr_assert_eq(read(ready[0], &byte, 1), 1);
    cr_assert_eq(rd_cache_purge(c, NULL, &removed, &err), RD_OK, "%s", err.text);
    cr_assert_eq(removed, 32);
    cr_assert_eq(rows_left(dir, -1), 0);
    cr_assert_eq(write(go[1], &byte, 1), 1);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(status, 0);
    rd_cache_close(c);
    store_remove(dir);
}

static rd_status put_both(rd_cache *c, int64_t n, rd_error *err)
{
    store_block b;
    char text[400];
    int len = snprintf(text, sizeof text, "payload-%lld- is an answer%*s", (long long)n,
                       (int)(n % 300), "");
    rd_cache_item both[2] = { 0 };

    store_make(&b, n, (size_t)(500 + n * 37 % 9000), source_of(n));
    both[0] = b.item;
    both[1] = (rd_cache_item){ .kind = RD_CACHE_ANSWER,
                               .model = store_key("model", 1),
                               .key = store_key("answer", n),
                               .source = b.item.source,
                               .data = text,
                               .bytes = (size_t)len };
    rd_status s = rd_cache_put(c, both, 2, NULL, err);

    free(b.data);
    return s;
}

/* Rows of four sources stand between each other; each purge merges pages and moves what is left. */
Test(cache_purge, of_one_source_leaves_the_others)
{
    char *dir = store_folder();
    rd_cache *c = open_at(dir);
    rd_key model = store_key("model", 1);
    rd_error err = { 0 };
    rd_buf out = { 0 };

    for (int64_t n = 0; n < ROWS; n++) cr_assert_eq(put_both(c, n, &err), RD_OK, "%s", err.text);
    for (int64_t gone = 0; gone < SOURCES - 1; gone++) {
        rd_key source = store_key("source", gone);
        int64_t removed;

        cr_assert_eq(rd_cache_purge(c, &source, &removed, &err), RD_OK, "%s", err.text);
        cr_assert_gt(removed, ROWS / SOURCES); /* two rows each */
        cr_assert_gt(rows_left(dir, gone + 1), 0);
        cr_assert_eq(rows_left(dir, gone), 0, "of source %d", (int)gone);
        for (int64_t n = 0; n < ROWS; n++) {
            rd_key key = store_key("answer", n);

            if (source_of(n) <= gone) continue;
            cr_assert_eq(rd_cache_answer(c, &model, &key, &out, &err), RD_OK, "%s", err.text);
            cr_assert_eq(store_get(c, n, (size_t)(500 + n * 37 % 9000), &err), RD_OK, "%s",
                         err.text);
        }
    }
    rd_buf_clear(&out);
    rd_cache_close(c);
    store_remove(dir);
}

Test(cache_purge, takes_what_was_set_aside_with_it)
{
    char *dir = store_folder(), path[300];
    rd_cache *c = open_at(dir);
    rd_error err = { 0 };
    int64_t removed;

    cr_assert_eq(store_put(c, 0, 4, 98304, 0, &err), RD_OK, "%s", err.text);
    rd_cache_close(c);
    snprintf(path, sizeof path, "%s/cache.db", dir);
    FILE *f = fopen(path, "r+b");

    fwrite("no database at all", 1, 18, f);
    fclose(f);
    cr_assert_eq(rd_cache_open(&(rd_cache_options){ .dir = dir }, &c, &err), RD_OK, "%s", err.text);
    cr_assert(strstr(err.text, "damaged"), "%s", err.text);
    cr_assert_gt(rows_left(dir, -1), 0);
    cr_assert_eq(rd_cache_purge(c, NULL, &removed, &err), RD_OK, "%s", err.text);
    cr_assert_eq(rows_left(dir, -1), 0);
    rd_cache_close(c);
    store_remove(dir);
}
