/* test_kv_worth.c - what two measured costs say about loading. */
#include "core/model/kv_worth.h"

#include <criterion/criterion.h>
#include <math.h>

Test(kv_worth, tries_loading_while_a_cost_is_unknown)
{
    rd_kv_worth w = { 0 };

    cr_assert_eq(rd_kv_worth_loading(&w, 64), 64);
    rd_kv_worth_computed(&w, 4, 8.0);
    cr_assert_eq(rd_kv_worth_loading(&w, 64), 64);
    cr_assert_eq(rd_kv_worth_loading(&w, 0), 0);
}

Test(kv_worth, loads_only_what_is_faster_loaded)
{
    rd_kv_worth slow_disk = { .compute_ms = 1.0, .load_ms = 2.0 },
                slow_model = { .compute_ms = 300.0, .load_ms = 2.0 };

    cr_assert_eq(rd_kv_worth_loading(&slow_disk, 10), 0);
    cr_assert_eq(rd_kv_worth_loading(&slow_model, 10), 10);
}

Test(kv_worth, looks_again_now_and_then_and_changes_its_mind)
{
    rd_kv_worth w = { .compute_ms = 1.0, .load_ms = 2.0 };
    int tried = 0, asked = 0;

    for (; asked < 64; asked++) tried += rd_kv_worth_loading(&w, 10);
    cr_assert_eq(tried, 2, "a block in thirty-two times");
    for (int i = 0; i < 200; i++) rd_kv_worth_loaded(&w, 1, 0.1);
    cr_assert_eq(rd_kv_worth_loading(&w, 10), 10);
}

Test(kv_worth, remembers_lately_more_than_long_ago)
{
    rd_kv_worth w = { 0 };

    rd_kv_worth_computed(&w, 64, 64.0);
    cr_assert_float_eq(w.compute_ms, 1.0, 1e-9);
    rd_kv_worth_computed(&w, 1, 65.0);
    cr_assert(w.compute_ms > 1.9 && w.compute_ms < 2.1, "one block counts for a little");
    rd_kv_worth_computed(&w, 64, 320.0);
    cr_assert_float_eq(w.compute_ms, 5.0, 1e-9);
    rd_kv_worth_computed(&w, 0, 1.0);
    rd_kv_worth_computed(&w, 3, 0.0);
    cr_assert_float_eq(w.compute_ms, 5.0, 1e-9, "nothing was measured");
}

Test(kv_worth, counts_what_was_saved_once_it_can_be_told)
{
    rd_kv_worth w = { 0 };

    rd_kv_worth_loaded(&w, 10, 1.0);
    cr_assert_eq(w.saved_ms, 0.0);
    rd_kv_worth_computed(&w, 10, 100.0);
    rd_kv_worth_loaded(&w, 10, 1.0);
    cr_assert_float_eq(w.saved_ms, 99.0, 1e-9);
}
