/* test_overlap.c - a repetition of the suffix is found, and what a file really says is left alone. */
#include "core/base/random.h"
#include "core/decode/overlap.h"
#include "core/format/file.h"

#include <criterion/criterion.h>
#include <glob.h>
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

/* Holes of one to four lines, or of a line's end, in this repository's own files. */
Test(overlap, what_a_file_really_says_is_hardly_ever_cut)
{
    rd_random r = rd_random_seed(5);
    int holes = 0, cuts = 0;
    glob_t files;

    cr_assert_eq(glob(RD_SOURCE_DIR "/core/*/*.[ch]", 0, NULL, &files), 0);
    for (size_t i = 0; i < files.gl_pathc; i++) {
        rd_buf b = { 0 };
        rd_error err;

        cr_assert(!rd_file_read(files.gl_pathv[i], 1 << 20, &b, &err), "%s", err.text);
        for (int k = 0; k < 40; k++, holes++) {
            size_t from = 1 + rd_random_below(&r, (uint32_t)b.len - 1), to = from;
            bool whole = rd_random_below(&r, 2);

            while (whole && from > 1 && b.data[from - 1] != '\n') from--;
            for (uint32_t n = whole ? 1 + rd_random_below(&r, 4) : 1; n > 0 && to < b.len; n--) {
                const char *end = memchr(b.data + to, '\n', b.len - to);

                to = end ? (size_t)(end - b.data) + 1 : b.len;
            }
            cuts +=
                rd_overlap(b.data[from - 1], b.data + from, to - from, b.data + to, b.len - to) > 0;
        }
        rd_buf_clear(&b);
    }
    globfree(&files);
    cr_assert_gt(holes, 2000);
    cr_assert_leq(cuts * 1000, holes, "%d of %d", cuts, holes);
}
