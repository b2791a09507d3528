/* test_kv.c - blocks are found by their tokens and by all before them, and leave by age. */
#include "core/base/random.h"
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

Test(kv, another_root_has_blocks_of_its_own)
{
    rd_kv_pool *p = rd_kv_pool_new(4, BLOCK);
    rd_kv_origin other = { .root = { { 7 } } };
    rd_kv_block *a = add(p, NULL, text), *b, *found[1];
    rd_error err;

    cr_assert_eq(rd_kv_match(p, &other, text, 4, found), 0);
    cr_assert(!rd_kv_take(p, &other, NULL, text, &b, &err));
    b = rd_kv_publish(p, b);
    cr_assert_neq(b, a, "the same tokens twice, and neither sees the other");
    cr_assert_eq(rd_kv_match(p, &other, text, 4, found), 1);
    cr_assert_eq(found[0], b);
    rd_kv_unref(p, found[0]);
    rd_kv_unref(p, b);
    rd_kv_unref(p, a);
    rd_kv_pool_free(p);
}

Test(kv, an_equal_block_takes_the_place_of_a_second_one)
{
    rd_kv_pool *p = rd_kv_pool_new(4, BLOCK);
    rd_kv_block *a = add(p, NULL, text), *b;
    rd_error err;

    cr_assert(!rd_kv_take(p, &none, NULL, text, &b, &err));
    cr_assert_eq(rd_kv_publish(p, b), a);
    cr_assert_eq(a->refs, 2);
    cr_assert_eq(rd_kv_pool_stats(p).used, 1);
    rd_kv_unref(p, a);
    rd_kv_unref(p, a);
    rd_kv_pool_free(p);
}

Test(kv, the_end_of_a_chain_goes_before_its_beginning)
{
    rd_kv_pool *p = rd_kv_pool_new(3, BLOCK);
    rd_kv_block *a = add(p, NULL, text), *b = add(p, a, text + 4), *c = add(p, b, text + 8),
                *found[3];

    rd_kv_unref(p, c);
    rd_kv_unref(p, b);
    rd_kv_unref(p, a);
    int n = rd_kv_match(p, &none, text, 12, found);

    cr_assert_eq(n, 3);
    while (n > 0) rd_kv_unref(p, found[--n]);
    rd_kv_unref(p, add(p, NULL, text + 8));
    cr_assert_eq(rd_kv_match(p, &none, text, 12, found), 2);
    rd_kv_unref(p, found[0]);
    rd_kv_unref(p, found[1]);
    rd_kv_pool_free(p);
}

Test(kv, forgets_a_file_or_everything)
{
    rd_kv_pool *p = rd_kv_pool_new(8, BLOCK);
    rd_kv_origin secret = { .source = { { 1 } } };
    rd_kv_block *a = add(p, NULL, text), *b, *held, *found[1];
    rd_error err;

    cr_assert(!rd_kv_take(p, &secret, NULL, text + 4, &b, &err));
    rd_kv_unref(p, rd_kv_publish(p, b));
    cr_assert(!rd_kv_take(p, &secret, NULL, text + 8, &held, &err));
    held = rd_kv_publish(p, held);
    rd_kv_forget(p, &secret.source);
    cr_assert_eq(rd_kv_match(p, &none, text + 4, 4, found), 0);
    cr_assert_eq(rd_kv_match(p, &none, text + 8, 4, found), 0, "held, and found by nobody else");
    cr_assert_eq(rd_kv_match(p, &none, text, 4, found), 1, "another file's");
    rd_kv_unref(p, found[0]);
    cr_assert_eq(rd_kv_pool_stats(p).used, 2);
    rd_kv_unref(p, held);
    rd_kv_unref(p, a);
    cr_assert_eq(rd_kv_pool_stats(p).used, 1);
    rd_kv_forget(p, NULL);
    cr_assert_eq(rd_kv_pool_stats(p).used, 0);
    rd_kv_pool_free(p);
}

/* ---- against a list that is searched from end to end ---- */

enum { PLACES = 24, KINDS = 60, ROUNDS = 20000 };

typedef struct model_list {
    int kind[PLACES]; /* the least recently used first */
    int n;
} model_list;

static int list_find(const model_list *l, int kind)
{
    for (int i = 0; i < l->n; i++)
        if (l->kind[i] == kind) return i;
    return -1;
}

static void list_remove(model_list *l, int at)
{
    for (int i = at; i + 1 < l->n; i++) l->kind[i] = l->kind[i + 1];
    l->n--;
}

Test(kv, agrees_with_a_plain_list_over_many_rounds)
{
    rd_kv_pool *p = rd_kv_pool_new(PLACES, BLOCK);
    rd_random r = rd_random_seed(11);
    model_list l = { .n = 0 };

    for (int round = 0; round < ROUNDS; round++) {
        int kind = (int)rd_random_below(&r, KINDS), at = list_find(&l, kind);
        int32_t tokens[BLOCK] = { kind, 2 * kind, 5, kind % 7 };
        rd_kv_block *found[1];
        int n = rd_kv_match(p, &none, tokens, BLOCK, found);

        cr_assert_eq(n, at >= 0, "round %d, kind %d", round, kind);
        if (at >= 0)
            list_remove(&l, at);
        else if (l.n == PLACES)
            list_remove(&l, 0);
        l.kind[l.n++] = kind;
        rd_kv_unref(p, n ? found[0] : add(p, NULL, tokens));
        cr_assert_eq(rd_kv_pool_stats(p).used, l.n);
    }
    cr_assert_gt(rd_kv_pool_stats(p).evicted, ROUNDS / 4);
    rd_kv_pool_free(p);
}
