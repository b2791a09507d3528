/* test_route.c - what the router's kernels and the host must agree on. */
#include "plugins/cuda/route.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

Test(route, parts_of_the_layout_do_not_meet)
{
    static const int shapes[][3] = { { 1, 1, 1 }, { 5, 2, 8 }, { 32, 8, 256 }, { 33, 3, 7 }, { 2048, 8, 256 } };

    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        int rows = shapes[i][0], k = shapes[i][1], experts = shapes[i][2];
        size_t pairs = (size_t)rows * (size_t)k;
        route_layout l = route_layout_of(rows, k, experts, ROUTE_ITEM_FEW);
        size_t at[] = { l.logits, l.chosen, l.weight, l.place, l.row, l.start, l.item, l.count, l.bytes };
        size_t need[] = { 4 * (size_t)rows * (size_t)experts,
                          4 * pairs,
                          4 * pairs,
                          4 * pairs,
                          4 * (pairs + (size_t)rows),
                          4 * ((size_t)experts + 1),
                          sizeof(route_item) * (size_t)route_items_most(rows, k, experts, ROUTE_ITEM_FEW),
                          8 };

        for (int p = 0; p < 8; p++) {
            cr_assert(eq(sz, at[p] % 16, 0));
            cr_assert(le(sz, at[p] + need[p], at[p + 1]));
        }
    }
}

/* However the pairs fall, there is room: the worst is one row short of a whole item more for each expert. */
Test(route, items_are_never_more_than_there_is_room_for)
{
    for (int rows = 1; rows <= 40; rows++)
        for (int k = 1; k <= 6; k++)
            for (int item = 1; item <= 16; item *= 2) {
                int experts = 6, left = rows * k, items = 0;

                /* the greedy worst: each expert but the last gets one pair more than whole items */
                for (int e = 0; e < experts && left > 0; e++) {
                    int n = e == experts - 1 ? left : 1;

                    items += layout_ceil(n, item);
                    left -= n;
                }
                cr_assert(le(int, items, route_items_most(rows, k, experts, item)), "%d rows, %d each, %d", rows, k, item);
            }
    cr_assert(eq(int, route_items_most(32, 8, 256, 16), 256 + 16));
    cr_assert(eq(int, route_items_most(1, 8, 256, 16), 8));
}

Test(route, only_rows_that_count_have_a_say)
{
    route_shape s = { .rows = 100, .window = 32, .branch_first = 32, .branch_size = 32 };
    static const int counts[] = { 20, 0, 5 };

    cr_assert(eq(int, route_voters(&s, NULL, 0), 32));
    cr_assert(eq(int, route_voters(&s, NULL, 96), 4));
    cr_assert(eq(int, route_voters(&s, counts, 0), 32));
    cr_assert(eq(int, route_voters(&s, counts, 32), 20));
    cr_assert(eq(int, route_voters(&s, counts, 64), 1));
    cr_assert(eq(int, route_voters(&s, counts, 96), 4));
}

Test(route, each_row_has_a_warp_and_windows_share_no_block)
{
    route_shape s = { .rows = 33, .window = 5 };

    cr_assert(eq(int, route_blocks(&s), 5));
    s.capacity = 3;
    cr_assert(eq(int, route_blocks(&s), 7));
    s.window = 32;
    cr_assert(eq(int, route_blocks(&s), 8));
    s.window = 64;
    cr_assert(eq(int, route_blocks(&s), 5));
}

Test(route, ties_go_to_the_lower_id)
{
    cr_assert(route_before(2.0f, 5, 1.0f, 3));
    cr_assert(not(route_before(1.0f, 3, 2.0f, 5)));
    cr_assert(route_before(1.0f, 3, 1.0f, 5));
    cr_assert(not(route_before(1.0f, 5, 1.0f, 3)));
    cr_assert(not(route_before(1.0f, 3, 1.0f, 3)));
}

Test(route, tiles_are_for_many_rows_an_expert)
{
    cr_assert(eq(int, route_item_of(32, 8, 256), ROUTE_ITEM_FEW));
    cr_assert(eq(int, route_item_of(2048, 8, 256), ROUTE_ITEM_MANY));
    cr_assert(route_few(64, 8));
    cr_assert(not(route_few(65, 8)));
}
