/* test_check.c - whole and broken fills, by brackets and by the Python beside us. */
#include "core/eval/check.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static char c_name[] = "c", python_name[] = "python", file_name[] = "f";

static bool agree(char *language, const char *text, const char *hole, const char *answer)
{
    char copy[512];
    size_t start = (size_t)(strstr(text, hole) - text);

    strcpy(copy, text);
    rd_case_file f = { .language = language, .text = copy, .bytes = strlen(copy) };

    return rd_brackets_agree(&f, start, start + strlen(hole), answer, strlen(answer));
}

Test(check, brackets_must_close_as_they_did)
{
    static const char text[] = "void f(void) { if (x) { g(1); } }\n";

    cr_assert(agree(c_name, text, "g(1);", "h(2, (3));"));
    cr_assert(!agree(c_name, text, "g(1);", "h(2;"));
    cr_assert(!agree(c_name, text, "g(1);", "g(1]);"));
    cr_assert(!agree(c_name, text, "g(1); }", "g(1);"));
    cr_assert(agree(c_name, text, "if (x) { g(1); }", ""));
}

Test(check, brackets_in_strings_and_comments_do_not_count)
{
    cr_assert(agree(c_name, "a = b;\n", "b", "\"((\\\"(\" /* ( */"));
    cr_assert(agree(c_name, "a = b;\n", "b", "c; // (("));
    cr_assert(!agree(c_name, "a = b;\n", "b", "\"(\" + (c"));
    cr_assert(!agree(c_name, "a = b;\nc();\n", "b", "b; /*"));
    cr_assert(!agree(c_name, "a = b;\n", "b", "\"b"));
    cr_assert(agree(python_name, "a = b\n", "b", "'''(\n(''' # (("));
    cr_assert(!agree(python_name, "a = b\n", "b", "'''("));
    cr_assert(!agree(python_name, "a = b\n", "b", "f(// 2"));
}

Test(check, a_file_that_was_not_balanced_need_not_become_so)
{
    static const char text[] = "#if A\nif (x) {\n#else\nif (y) {\n#endif\n  z();\n}\n";

    cr_assert(agree(c_name, text, "z();", "w(1);"));
    cr_assert(!agree(c_name, text, "z();", "w(1); }"));
}

static rd_cases one_case(rd_case_file *f, rd_case *at, char *text, const char *hole)
{
    size_t start = (size_t)(strstr(text, hole) - text);

    *f = (rd_case_file){
        .name = file_name, .language = python_name, .text = text, .bytes = strlen(text)
    };
    *at = (rd_case){ .start = start, .end = start + strlen(hole) };
    return (rd_cases){ .file = f, .at = at, .files = 1, .n = 1 };
}

Test(check, python_compiles_what_brackets_cannot_tell, .timeout = 60)
{
    char text[] = "def f(x):\n    return x + 1\n";
    rd_case_file f;
    rd_case at;
    rd_cases c = one_case(&f, &at, text, "return x + 1");
    rd_checker *k = rd_checker_open(&c);

    if (!rd_checker_has_python(k)) cr_skip_test("no python3");
    cr_assert(rd_checker_whole(k, 0, "return (x)", 10));
    cr_assert(!rd_checker_whole(k, 0, "return x +", 10));
    cr_assert(!rd_checker_whole(k, 0, "", 0));
    cr_assert(!rd_checker_whole(k, 0, "a\0b", 3));
    cr_assert(rd_checker_whole(k, 0, "pass", 4), "the child goes on after refusals");
    rd_checker_close(k);
}

Test(check, brackets_decide_where_the_file_itself_does_not_compile, .timeout = 60)
{
    char text[] = "print 'old'\nx = f(1)\n";
    rd_case_file f;
    rd_case at;
    rd_cases c = one_case(&f, &at, text, "f(1)");
    rd_checker *k = rd_checker_open(&c);

    cr_assert(rd_checker_whole(k, 0, "f(", 2) == false);
    cr_assert(rd_checker_whole(k, 0, "return return", 13));
    rd_checker_close(k);
}

Test(check, works_without_a_python)
{
    char text[] = "def f(x):\n    return x + 1\n";
    rd_case_file f;
    rd_case at;
    rd_cases c = one_case(&f, &at, text, "return x + 1");

    setenv("PATH", "/nowhere", 1);
    rd_checker *k = rd_checker_open(&c);

    cr_assert(!rd_checker_has_python(k));
    cr_assert(rd_checker_whole(k, 0, "return x +", 10));
    cr_assert(!rd_checker_whole(k, 0, "return (x", 9));
    rd_checker_close(k);
}
