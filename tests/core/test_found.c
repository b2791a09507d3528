/* test_found.c - the range of a fault, and looks at the least probable tokens. */
#include "core/eval/found.h"

#include <criterion/criterion.h>
#include <string.h>

Test(found, a_fault_has_a_range_in_the_faulty_text)
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

Test(found, a_fault_is_looked_for_among_the_three_least_probable_tokens)
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
