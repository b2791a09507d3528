/* test_overlap.c - a repetition of the suffix is found, and what a file really says is left alone. */
#include "core/base/random.h"
#include "core/decode/overlap.h"

#include <criterion/criterion.h>
#include <string.h>

static size_t overlap(char before, const char *text, const char *suffix)
{
    return rd_overlap(before, text, strlen(text), suffix, strlen(suffix));
}

Test(overlap, the_next_lines_repeated_are_found)
{
    cr_assert_eq(overlap(' ', "x + 1\n    return total\n", "\n    return total\n\n\ndef f():\n"),
                 strlen("\n    return total\n"));
    cr_assert_eq(overlap('\n', "    return total\n", "    return total\n"), 17);
    cr_assert_eq(
        overlap(' ', "x);\n    free(list);\n    fr", ");\n    free(list);\n    free(x);\n"),
        strlen(");\n    free(list);\n    fr"), "cut off in a word");
}

Test(overlap, what_is_short_or_blank_is_left)
{
    cr_assert_eq(overlap(' ', "f(x)", ")\n"), 0);
    cr_assert_eq(overlap('\n', "    }\n}\n", "}\n"), 0);
    cr_assert_eq(overlap(' ', "a\n                ", "                b"), 0);
    cr_assert_eq(overlap(' ', "#endif\n", "#endif\n"), 0);
    cr_assert_eq(overlap(' ', "", "abcdefghij"), 0);
    cr_assert_eq(overlap(' ', "abcdefghij", ""), 0);
    cr_assert_eq(overlap(' ', "abcdefgh", "abcdefgh"), 8);
    cr_assert_eq(overlap(' ', "abcdefg", "abcdefg"), 0);
}

Test(overlap, patterns_that_repeat_themselves_are_left)
{
    cr_assert_eq(overlap(' ', "{ 0, 0, 0, 0, 0, 0, 0, 0, ", "0, 0, 0, 0, 0, 0, 0, 0 };"), 0);
    cr_assert_eq(overlap(' ', "# --------------------", "--------------------\n"), 0);
    cr_assert_eq(overlap(' ', "x += step\nx += step\n", "x += step\nx += step\n"), 0);
}

Test(overlap, words_and_characters_are_not_cut_apart)
{
    cr_assert_eq(overlap('_', "all_directories", "directories = 1\n"), 0);
    cr_assert_eq(overlap('_', "directories", "directories = 1\n"), 0, "the prefix ends in a word");
    cr_assert_eq(overlap(' ', "directories", "directories = 1\n"), 11);
    cr_assert_eq(overlap(' ', "(\xc3\xa9tat initial", "\xa9tat initial\n"), 0);
    cr_assert_eq(overlap(' ', "(\xc3\xa9tat initial", "\xc3\xa9tat initial\n"), 13);
}

Test(overlap, only_the_end_of_the_text_counts)
{
    cr_assert_eq(overlap(' ', "    return total\n    more()", "    return total\n"), 0);
}

Test(overlap, of_a_long_suffix_the_beginning_is_looked_at)
{
    static char suffix[20000];
    rd_random r = rd_random_seed(1);

    for (size_t i = 0; i < sizeof suffix; i++) suffix[i] = (char)('a' + rd_random_below(&r, 26));
    cr_assert_eq(rd_overlap(' ', suffix, RD_OVERLAP_MOST, suffix, sizeof suffix), RD_OVERLAP_MOST);
    cr_assert_eq(rd_overlap(' ', suffix, sizeof suffix, suffix, sizeof suffix), 0);
}
