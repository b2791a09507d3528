/* test_faults.c - each fault changes what it says and nothing else. */
#include "core/eval/faults.h"

#include <criterion/criterion.h>
#include <string.h>

static char text[] = "total = first + 10\nother_name(first, second)\n";

static rd_case_file file = { .text = text, .bytes = sizeof text - 1 };

static const char *fault(rd_fault kind, size_t start, size_t end, uint64_t seed, rd_buf *out)
{
    rd_random random = rd_random_seed(seed);

    return rd_fault_make(&file, start, end, kind, &random, out) ? out->data : NULL;
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

Test(faults, have_a_range_in_the_faulty_text)
{
    static const struct {
        const char *clean, *faulty;
        size_t start, end;
    } cases[] = {
        { "a + b", "a - b", 2, 3 },
        { "a + b", "a b", 2, 3 },
        { "f(x)", "f(x", 2, 3 },
        { "one two", "one one two", 4, 8 },
        { "total = 9", "total = 10", 8, 10 },
        { "x", "", 0, 1 },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t start, end;

        rd_fault_range(cases[i].clean, strlen(cases[i].clean), cases[i].faulty,
                       strlen(cases[i].faulty), &start, &end);
        cr_expect_eq(start, cases[i].start, "%s: %zu", cases[i].faulty, start);
        cr_expect_eq(end, cases[i].end, "%s: %zu", cases[i].faulty, end);
    }
}

Test(faults, are_found_among_the_three_least_probable_tokens)
{
    rd_fault_token token[] = {
        { 0, 4, 0.9 }, { 4, 6, 0.2 }, { 6, 9, 0.1 }, { 9, 12, 0.5 }, { 12, 13, 0.3 }
    };

    cr_expect_float_eq(rd_fault_chance(token, 5, 0, 1), 0.6, 1e-12, "three looks at five");
    cr_expect_float_eq(rd_fault_chance(token, 5, 3, 13), 1.0, 1e-12);
    cr_expect_float_eq(rd_fault_chance(token, 2, 4, 5), 1.0, 1e-12);
    cr_expect_eq(rd_fault_chance(token, 5, 13, 14), 0.0);
    cr_expect(rd_fault_found(token, 5, 12, 13));
    cr_expect(rd_fault_found(token, 5, 5, 6));
    cr_expect_not(rd_fault_found(token, 5, 0, 4));
    cr_expect_not(rd_fault_found(token, 5, 9, 12));
    cr_expect_not(rd_fault_found(token, 0, 0, 1));
}
