/* test_floors.c - what the floors answer on small files written for them. */
#include "core/eval/floors.h"

#include <criterion/criterion.h>
#include <string.h>

static char none[] = "", name[] = "f";

/* A case for the `hole` in `text`, which is marked by two bars: "a = |x|;". */
static rd_cases marked(const char *text, rd_case_file *file, rd_case *at, char *clean)
{
    const char *first = strchr(text, '|'), *second = strchr(first + 1, '|');
    size_t start = (size_t)(first - text), end = (size_t)(second - text) - 1;

    memcpy(clean, text, start);
    memcpy(clean + start, first + 1, end - start);
    strcpy(clean + end, second + 1);
    *file = (rd_case_file){ .name = name, .language = none, .text = clean, .bytes = strlen(clean) };
    *at = (rd_case){ .kind = RD_CASE_LINE, .start = start, .end = end };
    return (rd_cases){ .file = file, .at = at, .files = 1, .n = 1 };
}

static void expect_copy(const char *text, const char *want)
{
    char clean[1024];
    rd_case_file file;
    rd_case at;
    rd_cases c = marked(text, &file, &at, clean);
    rd_buf out = { 0 };

    rd_floor_copy(&c, 0, &out);
    cr_assert_str_eq(out.data ? out.data : "", want);
    rd_buf_clear(&out);
}

Test(floors, copy_the_line_whose_neighbours_are_most_alike)
{
    expect_copy("if (a)\n  return one;\nelse\n  skip();\n\nif (b)\n  go();\nend\n\n"
                "if (c)\n  |return two;|\nelse\n  skip();\n",
                "return one;");
}

Test(floors, copy_the_nearest_of_lines_that_are_equally_alike)
{
    expect_copy("begin\n  first();\nend\nbegin\n  second();\nend\nbegin\n  |third();|\nend\n",
                "second();");
}

Test(floors, copy_what_followed_the_same_words)
{
    expect_copy("x = list.append(1)\ny = list.extend(2)\nz = other\nw = list.ap|pend(3)|\n",
                "pend(1)");
}

Test(floors, copy_up_to_where_the_text_on_the_right_goes_on)
{
    expect_copy("call(one, two, three);\nmore();\ncall(one, |four, f|, three);\n", "two");
}

Test(floors, copy_several_lines_up_to_the_line_below_the_hole)
{
    expect_copy("top\n  aaa = 1\n  bbb = 2\nbottom\n\ntop\n  |ccc = 3\n  ddd = 4|\nbottom\n",
                "aaa = 1\n  bbb = 2");
}

Test(floors, never_copy_the_hole_itself)
{
    expect_copy("|only_line = 1|\n", "");
    expect_copy("aaa_one\n|first = 1\nsecond = 2|\n", "aaa_one");
}

Test(floors, answer_the_commonest_hole_of_the_kind)
{
    static char text[] = "yes no yes no yes odd";
    static const size_t at[][2] = { { 0, 3 },   { 4, 6 },   { 7, 10 },
                                    { 11, 13 }, { 14, 17 }, { 18, 21 } };
    rd_case_file file = { .name = name, .language = none, .text = text, .bytes = sizeof text - 1 };
    rd_case one[6] = { 0 };
    rd_cases c = { .file = &file, .at = one, .files = 1, .n = 6 };
    int of[6];

    for (int i = 0; i < 6; i++) one[i] = (rd_case){ .start = at[i][0], .end = at[i][1] };
    rd_floor_unigram(&c, of);
    for (int i = 0; i < 6; i++) cr_assert_eq(of[i], 0, "`yes` is the commonest");
    one[5].kind = RD_CASE_END;
    rd_floor_unigram(&c, of);
    cr_assert_eq(of[5], -1, "alone of its kind there is nothing to answer");
    cr_assert_eq(of[1], 0);
}
