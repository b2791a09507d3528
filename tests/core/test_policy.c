/* test_policy.c - decisions from tables of numbers; the recorded traces are held by conformance. */
#include "core/decode/policy.h"

#include <criterion/criterion.h>

enum { MASK = 99, DEL = 97, SPLIT = 98 };

static rd_block block_of(const int32_t *tokens, int n)
{
    rd_block b = { .size = n };

    for (int i = 0; i < n; i++) {
        b.token[i] = tokens[i];
        b.original[i] = tokens[i] == MASK;
    }
    return b;
}

static rd_policy policy(rd_policy_kind kind, float fill, float edit)
{
    rd_policy p = rd_policy_dial(kind, 0.0f);

    p.ids = (rd_edit_ids){ MASK, DEL, SPLIT };
    p.threshold = fill;
    p.edit_threshold = edit;
    return p;
}

Test(policy, fills_the_surest_mask_when_none_is_sure)
{
    rd_block b = block_of((int32_t[]){ MASK, MASK, MASK }, 3);
    rd_pick picks[3] = { { .token = 1, .prob = 0.2f },
                         { .token = 2, .prob = 0.3f },
                         { .token = 3, .prob = 0.1f } };
    rd_policy p = policy(RD_POLICY_21, 0.9f, 0.9f);
    rd_policy_state s;
    rd_change c;

    rd_policy_begin(&p, &b, &s);
    rd_policy_apply(&p, &s, &b, picks, NULL, &c);

    cr_assert(rd_slots_has(&c.filled, 1) && rd_slots_count(&c.filled) == 1);
    cr_assert(c.fallback);
    cr_assert_eq(b.token[1], 2);
    cr_assert_eq(b.token[0], MASK);
}

Test(policy, pinned_slots_never_change)
{
    rd_block b = block_of((int32_t[]){ 5, 6 }, 2);
    rd_pick picks[2] = { { .token = 1, .prob = 1.0f }, { .token = 2, .prob = 1.0f } };
    rd_policy p = policy(RD_POLICY_21, 0.5f, 0.0f);
    rd_policy_state s;
    rd_change c;

    b.pinned[0] = true;
    rd_policy_begin(&p, &b, &s);
    rd_policy_apply(&p, &s, &b, picks, NULL, &c);

    cr_assert_eq(b.token[0], 5);
    cr_assert_eq(b.token[1], 2);
}

Test(policy, two_tokens_that_swap_for_ever_are_stopped)
{
    rd_block b = block_of((int32_t[]){ 1 }, 1);
    rd_policy p = policy(RD_POLICY_21, 0.5f, 0.0f);
    rd_policy_state s;
    rd_change c = { 0 };
    int passes = 0;

    p.max_post_steps = 1000;
    rd_policy_begin(&p, &b, &s);
    while (!rd_policy_over(&p, &b, &s) && !c.over) {
        rd_pick swap = { .token = 3 - b.token[0], .prob = 0.9f };

        rd_policy_apply(&p, &s, &b, &swap, NULL, &c);
        passes++;
    }

    cr_assert_leq(passes, 4);
}

Test(policy, a_block_that_never_fills_meets_the_cap)
{
    rd_block b = block_of((int32_t[]){ MASK }, 1);
    rd_policy p = policy(RD_POLICY_21, 0.5f, 0.0f);
    rd_policy_state s;
    rd_change c;
    int passes = 0;

    p.reference_quirks = true; /* the mask id may be chosen */
    p.max_passes = 50;
    rd_policy_begin(&p, &b, &s);
    while (!rd_policy_over(&p, &b, &s)) {
        rd_pick again = { .token = MASK, .prob = 0.9f };

        rd_policy_apply(&p, &s, &b, &again, NULL, &c);
        passes++;
    }

    cr_assert_eq(passes, 50);
}

Test(policy, a_cycle_of_levenshtein_edits_is_left_by_the_least_sure)
{
    rd_block b = block_of((int32_t[]){ 1, 2 }, 2);
    rd_policy p = policy(RD_POLICY_22, 0.5f, 0.0f);
    rd_policy_state s;
    rd_change c;
    rd_pick first[2] = { { .token = 3, .prob = 0.9f }, { .token = 4, .prob = 0.8f } };
    rd_pick back[2] = { { .token = 1, .prob = 0.9f }, { .token = 2, .prob = 0.8f } };
    rd_pick again[2] = { { .token = 3, .prob = 0.9f, .second = 7 },
                         { .token = 4, .prob = 0.8f, .second = 8 } };

    rd_policy_begin(&p, &b, &s);
    cr_assert(!rd_policy_over(&p, &b, &s));
    rd_policy_apply(&p, &s, &b, first, NULL, &c);
    rd_policy_apply(&p, &s, &b, back, NULL, &c);
    rd_policy_apply(&p, &s, &b, again, NULL, &c);

    cr_assert_eq(b.token[0], 3);
    cr_assert_eq(b.token[1], 8, "the less sure write took its second choice");
}

Test(policy, a_block_of_2_2_is_resolved_in_its_last_pass)
{
    rd_block b = block_of((int32_t[]){ MASK, MASK }, 2);
    rd_policy p = policy(RD_POLICY_22, 0.5f, 0.0f);
    rd_pick plain[2] = { { .token = 5, .prob = 0.3f }, { .token = 6, .prob = 0.3f } };
    rd_policy_state s;
    rd_change c = { 0 };
    int passes = 0;

    p.max_passes = 7;
    rd_policy_begin(&p, &b, &s);
    while (!c.over && !rd_policy_over(&p, &b, &s)) {
        /* Another token each time, and a delete that leaves a mask: it never settles by itself. */
        rd_pick picks[2] = { { .token = 10 + passes, .prob = 0.9f },
                             { .token = DEL, .prob = 0.8f } };
        bool wants = rd_policy_wants_plain(&p, &b, &s, picks);

        cr_assert_eq(wants, passes == 6);
        rd_policy_apply(&p, &s, &b, picks, wants ? plain : NULL, &c);
        passes++;
    }

    cr_assert_eq(passes, 8, "seven, and one that closes the block, not %d", passes);
    cr_assert(c.over && c.was_final);
    cr_assert_eq(b.token[0], 16);
    cr_assert_eq(b.token[1], 6);
}

Test(policy, diffusers_counts_only_passes_that_began_with_masks)
{
    rd_block b = block_of((int32_t[]){ MASK, MASK, MASK }, 3);
    rd_policy p = policy(RD_POLICY_DIFFUSERS, 0.5f, 0.5f);
    rd_pick fill[3] = { { .token = 1, .prob = 0.9f },
                        { .token = 2, .prob = 0.9f },
                        { .token = 3, .prob = 0.9f } };
    rd_pick unwrite[3] = { { .token = MASK, .prob = 0.9f },
                           { .token = 2, .prob = 0.9f },
                           { .token = 3, .prob = 0.9f } };
    rd_policy_state s;
    rd_change c;

    p.reference_quirks = true;
    p.steps = 2;
    rd_policy_begin(&p, &b, &s);
    rd_policy_apply(&p, &s, &b, fill, NULL, &c);
    rd_policy_apply(&p, &s, &b, unwrite, NULL, &c);
    cr_assert(rd_slots_has(&c.edited, 0) && !c.over);
    cr_assert_eq(s.step, 1);
    rd_policy_apply(&p, &s, &b, unwrite, NULL, &c);

    cr_assert(c.over, "the second of two steps is over, with a mask left");
    cr_assert_eq(b.token[0], MASK);
}

Test(policy, slots_beyond_one_word_are_filled_and_counted)
{
    static rd_block b;
    static rd_pick picks[RD_BLOCK_MOST];
    rd_policy p = policy(RD_POLICY_20, 0.5f, 0.0f);
    rd_policy_state s;
    rd_change c;

    b.size = RD_BLOCK_MOST;
    p.steps = 3;
    for (int i = 0; i < b.size; i++) {
        b.token[i] = MASK;
        picks[i] = (rd_pick){ .token = i % 50, .prob = 0.4f * (float)i / RD_BLOCK_MOST };
    }
    rd_policy_begin(&p, &b, &s);
    rd_policy_apply(&p, &s, &b, picks, NULL, &c);

    /* 1024 in 3 steps: 342 in the first, the surest, which are the last slots. */
    cr_assert(c.fallback);
    cr_assert_eq(rd_slots_count(&c.filled), 342);
    cr_assert_eq(rd_block_masks(&b, MASK), 1024 - 342);
    cr_assert(rd_slots_has(&c.filled, 1023) && rd_slots_has(&c.filled, 1024 - 342));
    cr_assert(!rd_slots_has(&c.filled, 1024 - 343));
}

Test(edits, delete_shifts_left_and_split_shifts_right_with_pins)
{
    rd_block b = block_of((int32_t[]){ 1, DEL, 3, 4 }, 4);
    rd_edit_ids ids = { MASK, DEL, SPLIT };
    int32_t before[] = { 1, 2, 3, 4 };

    b.pinned[2] = true;
    cr_assert_eq(rd_edits_apply(&b, before, &ids), 1);
    cr_assert_eq(b.token[1], 3);
    cr_assert(b.pinned[1] && !b.pinned[2]);
    cr_assert_eq(b.token[3], MASK);
    cr_assert(!b.original[3]);

    b = block_of((int32_t[]){ 1, SPLIT, 3, 4 }, 4);
    b.pinned[2] = true;
    cr_assert_eq(rd_edits_apply(&b, before, &ids), 1);
    cr_assert_eq(b.token[1], MASK);
    cr_assert_eq(b.token[2], 2, "the old token comes back behind the mask");
    cr_assert(b.pinned[3] && b.token[3] == 3);
}

Test(edits, a_pinned_delete_is_text)
{
    rd_block b = block_of((int32_t[]){ DEL, 2 }, 2);
    rd_edit_ids ids = { MASK, DEL, SPLIT };

    b.pinned[0] = true;
    cr_assert_eq(rd_edits_apply(&b, (int32_t[]){ DEL, 2 }, &ids), 0);
    cr_assert_eq(b.token[0], DEL);
}
