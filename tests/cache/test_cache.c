/* test_cache.c - what is put is found again, by others too; what goes leaves nothing. */
#include "store.h"

#include <criterion/criterion.h>

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
