/* test_canvas.c - what picks do to one canvas, by hand-made picks. */
#include "core/decode/canvas.h"

#include <criterion/criterion.h>
#include <math.h>

enum { MASK = 2, DEL = 3, SPLIT = 4, BLOCK = 32 };

static const int32_t anchor[] = { 90, 91, 92, 93, 94, 95, 96, 97, 98, 99 };

static rd_canvas_rules rules(void)
{
    return (rd_canvas_rules){ .ids = { MASK, DEL, SPLIT },
                              .threshold = 0.8f,
                              .length_threshold = 0.5f,
                              .doubt = 0.1f,
                              .edit_threshold = 0.9f,
                              .tokens_most = 64,
                              .block = BLOCK,
                              .anchor = anchor,
                              .anchor_n = 10 };
}

static rd_pick says(int32_t token, float prob)
{
    return (rd_pick){ .token = token, .prob = prob, .watched_prob = prob, .second = -1 };
}

/* One pass whose picks are given; returns what rd_canvas_decide does. */
static bool pass(rd_canvas *c, const rd_canvas_rules *k, const rd_pick *picks)
{
    rd_window w;

    rd_canvas_compose(c, k, &w);
    return rd_canvas_decide(c, k, &w, picks);
}

static void expect_tokens(const rd_canvas *c, const int32_t *tokens, int n)
{
    cr_assert_eq(c->n, n, "%d slots, not %d", c->n, n);
    for (int i = 0; i < n; i++)
        cr_expect_eq(c->slots[i].state == RD_SLOT_MASK ? MASK : c->slots[i].token, tokens[i],
                     "slot %d", i);
}

Test(canvas, the_anchor_follows_the_slots)
{
    rd_canvas_rules k = rules();
    rd_canvas c = { 0 };
    rd_window w;

    rd_canvas_add_masks(&c, &k, 3);
    rd_canvas_compose(&c, &k, &w);

    cr_assert_eq(w.slots, 3);
    cr_assert_eq(w.rows, 13);
    cr_assert_eq(w.token[2], MASK);
    cr_assert_eq(w.token[3], 90);
    cr_assert_not(w.whole);
    rd_canvas_clear(&c);
}

Test(canvas, no_room_for_the_anchor_fills_the_block)
{
    rd_canvas_rules k = rules();
    rd_canvas c = { 0 };
    rd_window w;

    rd_canvas_add_masks(&c, &k, BLOCK - RD_ANCHOR_LEAST + 1);
    rd_canvas_compose(&c, &k, &w);

    cr_assert(w.whole);
    cr_assert_eq(w.slots, BLOCK);
    cr_assert_eq(w.rows, BLOCK);
    rd_canvas_clear(&c);
}

Test(canvas, sure_masks_are_filled_and_others_wait)
{
    rd_canvas_rules k = rules();
    rd_canvas c = { 0 };
    rd_pick picks[] = { says(20, 0.95f), says(21, 0.4f), says(22, 0.9f) };

    rd_canvas_add_masks(&c, &k, 3);
    cr_assert_not(pass(&c, &k, picks));

    expect_tokens(&c, (int32_t[]){ 20, MASK, 22 }, 3);
    rd_canvas_clear(&c);
}

Test(canvas, where_none_is_sure_the_surest_is_filled)
{
    rd_canvas_rules k = rules();
    rd_canvas c = { 0 };
    rd_pick picks[] = { says(20, 0.2f), says(21, 0.4f), says(22, 0.3f) };

    rd_canvas_add_masks(&c, &k, 3);
    pass(&c, &k, picks);

    expect_tokens(&c, (int32_t[]){ MASK, 21, MASK }, 3);
    rd_canvas_clear(&c);
}

Test(canvas, a_delete_shortens_and_a_split_lengthens)
{
    rd_canvas_rules k = rules();
    rd_canvas c = { 0 };
    rd_pick shorter[] = { says(20, 0.9f), says(21, 0.3f), says(DEL, 0.7f) };
    rd_pick longer[] = { says(20, 0.9f), says(SPLIT, 0.7f) };

    rd_canvas_add_masks(&c, &k, 3);
    pass(&c, &k, shorter);
    expect_tokens(&c, (int32_t[]){ 20, MASK }, 2);
    pass(&c, &k, longer);
    expect_tokens(&c, (int32_t[]){ 20, MASK, MASK }, 3);
    rd_canvas_clear(&c);
}

Test(canvas, a_length_that_is_not_sure_becomes_the_second_choice)
{
    rd_canvas_rules k = rules();
    rd_canvas c = { 0 };
    rd_pick pick = { .token = SPLIT, .prob = 0.45f, .second = 21, .second_prob = 0.4f };

    rd_canvas_add_masks(&c, &k, 1);
    pass(&c, &k, &pick);

    expect_tokens(&c, (int32_t[]){ 21 }, 1);
    cr_assert_float_eq(c.slots[0].chosen, 0.4f, 1e-6f);
    rd_canvas_clear(&c);
}

Test(canvas, what_is_doubted_goes_back_to_mask_and_settles_at_last)
{
    rd_canvas_rules k = rules();
    rd_canvas c = { 0 };
    rd_pick first = says(20, 0.9f), other = { .token = 21, .prob = 0.7f, .watched_prob = 0.02f };

    rd_canvas_add_masks(&c, &k, 1);
    pass(&c, &k, &first);
    other.second = -1;
    pass(&c, &k, &other);
    expect_tokens(&c, (int32_t[]){ 21 }, 1); /* doubted, and at once the surest mask */
    for (int i = 0; i < 6 && !c.done; i++) pass(&c, &k, &other);

    cr_assert(c.done);
    cr_assert_eq(c.slots[0].state, RD_SLOT_SETTLED);
    rd_canvas_clear(&c);
}

Test(canvas, chosen_is_kept_where_the_look_again_is_surer)
{
    rd_canvas_rules k = rules();
    rd_canvas c = { 0 };
    rd_pick first = says(20, 0.5f), again = says(20, 0.99f);

    rd_canvas_add_masks(&c, &k, 1);
    pass(&c, &k, &first);
    pass(&c, &k, &again);

    cr_assert(c.done);
    cr_assert_float_eq(rd_canvas_chosen(&c), log(0.5), 1e-4);
    cr_assert_float_eq(rd_canvas_stands(&c), log(0.99), 1e-4);
    rd_canvas_clear(&c);
}

Test(canvas, a_full_block_is_the_callers_to_commit)
{
    rd_canvas_rules k = rules();
    rd_canvas c = { 0 };
    rd_pick picks[BLOCK];
    bool full = false;

    for (int i = 0; i < BLOCK; i++) picks[i] = says(20 + i, 0.95f);
    rd_canvas_add_masks(&c, &k, BLOCK);
    for (int i = 0; i < 4 && !full; i++) full = pass(&c, &k, picks);
    cr_assert(full);
    cr_assert_not(c.done);
    rd_canvas_next_block(&c, &k);

    cr_assert_eq(c.settled, BLOCK);
    cr_assert_gt(c.n, BLOCK, "masks for the next block");
    cr_assert_eq(c.slots[0].state, RD_SLOT_SETTLED);
    cr_assert_eq(c.slots[BLOCK].state, RD_SLOT_MASK);
    rd_canvas_clear(&c);
}

Test(canvas, a_seeded_token_changes_goes_or_gets_a_mask_before_it)
{
    rd_canvas_rules k = rules();
    rd_canvas c = { 0 };
    int32_t text[] = { 20, 21, 22, 23 };
    rd_pick picks[] = { says(20, 0.99f), says(50, 0.95f), says(DEL, 0.95f), says(SPLIT, 0.95f),
                        says(DEL, 0.9f) /* the spare mask behind */ };

    k.rewriting = true;
    rd_canvas_seed(&c, &k, text, 4);
    pass(&c, &k, picks);

    expect_tokens(&c, (int32_t[]){ 20, 50, MASK, 23, MASK }, 5);
    cr_assert(c.slots[4].spare);
    rd_canvas_clear(&c);
}

Test(canvas, out_of_time_leaves_what_is_filled)
{
    rd_canvas_rules k = rules();
    rd_canvas c = { 0 };
    rd_pick picks[] = { says(20, 0.95f), says(21, 0.4f), says(22, 0.9f) };

    rd_canvas_add_masks(&c, &k, 3);
    pass(&c, &k, picks);

    cr_assert_not(rd_canvas_end(&c));
    expect_tokens(&c, (int32_t[]){ 20, 22 }, 2);
    cr_assert(c.done);
    rd_canvas_clear(&c);
}
