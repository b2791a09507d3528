/* test_kv.c - blocks are found by their tokens and by all before them, and leave by age. */
#include "core/model/kv.h"

#include <criterion/criterion.h>

enum { BLOCK = 4 };

static const rd_kv_origin none;

static rd_kv_block *add(rd_kv_pool *p, const rd_kv_block *before, const int32_t *tokens)
{
    rd_kv_block *b = NULL;
    rd_error err;

    cr_assert(!rd_kv_take(p, &none, before, tokens, &b, &err), "%s", err.text);
    return rd_kv_publish(p, b);
}

static const int32_t text[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 };

Test(kv, finds_the_longest_published_start)
{
    rd_kv_pool *p = rd_kv_pool_new(8, BLOCK);
    rd_kv_block *a = add(p, NULL, text), *b = add(p, a, text + 4), *found[3];

    int n = rd_kv_match(p, &none, text, 11, found);

    cr_assert_eq(n, 2);
    cr_assert_eq(found[0], a);
    cr_assert_eq(found[1], b);
    rd_kv_unref(p, found[0]);
    rd_kv_unref(p, found[1]);
    rd_kv_unref(p, b);
    rd_kv_unref(p, a);
    rd_kv_pool_free(p);
}

Test(kv, the_same_tokens_behind_others_are_another_block)
{
    static const int32_t other[] = { 9, 9, 9, 9, 5, 6, 7, 8 };
    rd_kv_pool *p = rd_kv_pool_new(8, BLOCK);
    rd_kv_block *a = add(p, NULL, text), *b = add(p, a, text + 4), *found[2];

    int n = rd_kv_match(p, &none, other, 8, found);

    cr_assert_eq(n, 0);
    cr_assert_eq(rd_kv_match(p, &none, text + 4, 4, found), 0, "it stood second, not first");
    rd_kv_unref(p, b);
    rd_kv_unref(p, a);
    rd_kv_pool_free(p);
}

Test(kv, what_nobody_holds_goes_first_the_oldest_before_all)
{
    rd_kv_pool *p = rd_kv_pool_new(2, BLOCK);
    rd_kv_block *a = add(p, NULL, text), *found[1];

    rd_kv_unref(p, add(p, NULL, text + 4));
    rd_kv_unref(p, add(p, NULL, text + 8)); /* only the second place is free to take */

    cr_assert_eq(rd_kv_match(p, &none, text, 4, found), 1);
    rd_kv_unref(p, found[0]);
    cr_assert_eq(rd_kv_match(p, &none, text + 4, 4, found), 0);
    cr_assert_eq(rd_kv_match(p, &none, text + 8, 4, found), 1);
    rd_kv_unref(p, found[0]);
    cr_assert_eq(rd_kv_pool_stats(p).evicted, 1);
    rd_kv_unref(p, a);
    rd_kv_pool_free(p);
}

Test(kv, says_when_all_places_are_held)
{
    rd_kv_pool *p = rd_kv_pool_new(1, BLOCK);
    rd_kv_block *a = add(p, NULL, text), *b = NULL;
    rd_error err;

    cr_assert_eq(rd_kv_take(p, &none, NULL, text + 4, &b, &err), RD_NO_MEMORY);
    cr_assert_null(b);
    rd_kv_unref(p, a);
    rd_kv_pool_free(p);
}

Test(kv, an_unpublished_block_is_not_found_and_vanishes)
{
    rd_kv_pool *p = rd_kv_pool_new(2, BLOCK);
    rd_kv_block *b = NULL, *found[1];
    rd_error err;

    cr_assert(!rd_kv_take(p, &none, NULL, text, &b, &err));
    cr_assert_eq(rd_kv_match(p, &none, text, 4, found), 0);
    rd_kv_unref(p, b);
    cr_assert_eq(rd_kv_pool_stats(p).used, 0);
    rd_kv_pool_free(p);
}
