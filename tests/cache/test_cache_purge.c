/* test_cache_purge.c - what a purge removes is in no file of the folder any more: not in the database, its log, its free
 * pages, its pages' gaps, nor in what was set aside. */
#include "store.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <sys/stat.h>
#include <sys/wait.h>

static rd_cache *open_at(const char *dir)
{
    rd_cache *c = NULL;
    rd_error err = { 0 };

    cr_assert_eq(rd_cache_open(&(rd_cache_options){ .dir = dir }, &c, &err), RD_OK, "%s", err.text);
    return c;
}

/* How often `text` stands in the files of the folder. Opened by a process of its own: closing a file that SQLite has open
 * would drop its locks. */
static int occurrences(const char *dir, const char *text, size_t n)
{
    int found = 0, status;
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

        for (char *at = bytes; (at = memmem(at, got - (size_t)(at - bytes), text, n)); at++)
            found++;
        free(bytes);
        fclose(f);
    }
    _exit(found > 200 ? 200 : found);
}

static int marks(const char *dir, int64_t n)
{
    char mark[40];
    int len = snprintf(mark, sizeof mark, "payload-%lld-", (long long)n);

    return occurrences(dir, mark, (size_t)len);
}

/* The tokens of a block say what its source is, too. */
static int token_marks(const char *dir, int64_t n)
{
    int32_t tokens[STORE_TOKENS];

    store_tokens(n, tokens);
    return occurrences(dir, (const char *)tokens, 24);
}

static rd_cache_item answer_item(int64_t n, char *text, size_t room)
{
    int len = snprintf(text, room, "payload-%lld- is an answer", (long long)n);

    return (rd_cache_item){ .kind = RD_CACHE_ANSWER,
                            .model = store_key("model", 1),
                            .key = store_key("answer", n),
                            .source = store_key("source", n % 3),
                            .data = text,
                            .bytes = (size_t)len };
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
    cr_assert_gt(marks(dir, 5), 0);
    cr_assert(!pipe(ready) && !pipe(go));
    pid_t child = fork();

    if (!child) { /* the parent's handle is not touched here */
        rd_cache *r = NULL;
        bool good = !rd_cache_open(&(rd_cache_options){ .dir = dir }, &r, NULL) &&
                    !store_get(r, 5, 98304, NULL);

        if (write(ready[1], &byte, 1) != 1 || read(go[0], &byte, 1) != 1) good = false;
        good = good && store_get(r, 5, 98304, NULL) == RD_NOT_FOUND;
        _exit(good ? 0 : 1);
    }
    cr_assert_eq(read(ready[0], &byte, 1), 1);
    cr_assert_eq(rd_cache_purge(c, NULL, &removed, &err), RD_OK, "%s", err.text);
    cr_assert_eq(removed, 32);
    for (int64_t n = 0; n < 32; n++) cr_assert_eq(marks(dir, n), 0);
    cr_assert_eq(token_marks(dir, 5), 0);
    cr_assert_eq(write(go[1], &byte, 1), 1);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(status, 0);
    rd_cache_close(c);
    store_remove(dir);
}

Test(cache_purge, of_one_source_leaves_the_others)
{
    char *dir = store_folder();
    rd_cache *c = open_at(dir);
    rd_random r = rd_random_seed(7);
    rd_key source = store_key("source", 1);
    static const size_t sizes[] = { 500, 40000, 98304, 131000, 196608 };
    rd_error err = { 0 };
    int64_t removed;
    rd_buf out = { 0 };
    rd_key model = store_key("model", 1), key = store_key("answer", 119);

    /* Rows of all sizes come and go, so that pages are split, merged and used again. */
    for (int round = 0; round < 6; round++) {
        for (int64_t n = round * 20; n < round * 20 + 20; n++) {
            char text[64];
            rd_cache_item answer = answer_item(n, text, sizeof text);

            cr_assert_eq(store_put(c, n, n + 1, sizes[n % 5], n % 3, &err), RD_OK, "%s", err.text);
            cr_assert_eq(rd_cache_put(c, &answer, 1, NULL, &err), RD_OK, "%s", err.text);
        }
        cr_assert_eq(
            rd_cache_trim(c, (int64_t)(2 + rd_random_below(&r, 8)) << 20, -1, &removed, &err),
            RD_OK, "%s", err.text);
    }
    cr_assert_eq(rd_cache_purge(c, &source, &removed, &err), RD_OK, "%s", err.text);
    cr_assert_gt(removed, 0);
    for (int64_t n = 1; n < 120; n += 3) {
        cr_assert_eq(marks(dir, n), 0, "of %d", (int)n);
        cr_assert_eq(token_marks(dir, n), 0, "tokens of %d", (int)n);
    }
    cr_assert_eq(store_get(c, 119, sizes[119 % 5], &err), RD_OK, "%s", err.text);
    cr_assert_eq(rd_cache_answer(c, &model, &key, &out, &err), RD_OK, "%s", err.text);
    rd_buf_clear(&out);
    rd_cache_close(c);
    store_remove(dir);
}

Test(cache_purge, takes_what_was_set_aside_with_it)
{
    char *dir = store_folder(), path[100], text[64] = "";
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
    snprintf(text, sizeof text, "%.40s", strstr(err.text, "damaged") ? "said" : "");
    cr_assert_str_eq(text, "said");
    cr_assert_gt(marks(dir, 2), 0);
    cr_assert_eq(rd_cache_purge(c, NULL, &removed, &err), RD_OK, "%s", err.text);
    cr_assert_eq(marks(dir, 2), 0);
    rd_cache_close(c);
    store_remove(dir);
}
