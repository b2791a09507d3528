/* test_faults.c - each fault changes what it says and nothing else. */
#include "core/train/faults.h"

#include <criterion/criterion.h>
#include <string.h>

static char text[] = "total = first + 10\nother_name(first, second)\n";

static const char *fault(rd_fault kind, size_t start, size_t end, uint64_t seed, rd_buf *out)
{
    rd_random random = rd_random_seed(seed);

    rd_fault_place place = { text, sizeof text - 1, start, end };

    return rd_fault_make(&place, kind, &random, out) ? out->data : NULL;
}

Test(faults, are_one_change_of_their_sort)
{
    rd_buf out = { 0 };

    for (uint64_t seed = 0; seed < 50; seed++) {
        cr_assert_str_eq(fault(RD_FAULT_OPERATOR, 0, 18, seed, &out), "total = first - 10");
        const char *number = fault(RD_FAULT_OFF_BY_ONE, 0, 18, seed, &out);

        cr_assert(!strcmp(number, "total = first + 11") || !strcmp(number, "total = first + 9"));
        cr_assert_lt(strlen(fault(RD_FAULT_DROP, 0, 18, seed, &out)), 18u);
        cr_assert_gt(strlen(fault(RD_FAULT_DOUBLE, 0, 18, seed, &out)), 18u);
        const char *swapped = fault(RD_FAULT_SWAP, 0, 18, seed, &out);

        cr_assert(strlen(swapped) == 18 && strcmp(swapped, "total = first + 10") != 0);
        const char *named = fault(RD_FAULT_NAME, 0, 18, seed, &out);

        cr_assert(!named || (strcmp(named, "total = first + 10") != 0 && strstr(named, " + 10")));
    }
    rd_buf_clear(&out);
}

Test(faults, need_a_place)
{
    rd_buf out = { 0 };

    cr_assert_null(fault(RD_FAULT_OFF_BY_ONE, 19, 44, 1, &out));
    cr_assert_null(fault(RD_FAULT_OPERATOR, 19, 44, 1, &out));
    cr_assert_null(fault(RD_FAULT_DROP, 5, 6, 1, &out), "white space has no token");
    rd_buf_clear(&out);
}

Test(faults, are_repeatable)
{
    rd_buf a = { 0 }, b = { 0 };

    for (int kind = 0; kind < RD_FAULTS; kind++) {
        fault((rd_fault)kind, 0, 44, 9, &a);
        fault((rd_fault)kind, 0, 44, 9, &b);
        cr_assert_str_eq(a.data, b.data);
    }
    rd_buf_clear(&a);
    rd_buf_clear(&b);
}
