/* test_tidy.c - what is offered of an answer: nothing said twice, indented like the file. */
#include "lsp/tidy.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <string.h>

typedef struct tidy_case {
    char name[48], before[120], answer[120], behind[120], expected[120];
    int tab_size, indent;
} tidy_case;

static tidy_case cases[] = {
    { "plain text stays", "x = ", "f(1)", "\ny = 2\n", "f(1)", 0, 0 },
    { "nothing stays nothing", "x = ", "", "\n", "", 0, 0 },
    { "a bracket that stands there", "f(", "a, b)", ")\n", "a, b", 0, 0 },
    { "two brackets that stand there", "g(f(", "a))", "))\n", "a", 0, 0 },
    { "a bracket that is needed", "f(g(x", ")", ")\n", ")", 0, 0 },
    { "brackets of its own", "f(", "g(a)", ")\n", "g(a)", 0, 0 },
    { "an index inside a call", "f(a[", "i])", "])\n", "i", 0, 0 },
    { "a quote that stands there", "s = \"", "abc\"", "\"\n", "abc", 0, 0 },
    { "a semicolon that stands there", "int x = ", "1;", ";\n", "1", 0, 0 },
    { "a brace that closes an outer block", "  if (a) {\n    b();\n", "  }\n", "}\n", "  }\n", 0,
      0 },
    { "the line's end", "x = ", "1\n", "\ny\n", "1", 0, 0 },
    { "the line's end and indentation", "x = ", "1\n    ", "\n    y\n", "1", 0, 0 },
    { "the next line again", "x = ", "1\nreturn value_of(x)", "\nreturn value_of(x)\n", "1", 0, 0 },
    { "line ends of Windows", "x\r\n", "a\r\nb\rc", "", "a\nb\nc", 0, 0 },
    { "a space that stands there", "const ", "char ", " *s;\n", "char", 0, 0 },
    { "nothing but the space that stands there", "a", " ", " = 1;\n", "", 0, 0 },
    { "a space before a word", "const ", "char ", "*s;\n", "char ", 0, 0 },
    { "a new line in front of indentation", "f(", "a,\n", "  b)\n", "a,\n", 0, 0 },
    { "a stray space", "return ", " x", "\n", "x", 0, 0 },
    { "two spaces are meant", "return ", "  x", "\n", "  x", 0, 0 },
    { "a space after a word", "return", " x", "\n", " x", 0, 0 },
    { "tabs in a file of tabs", "a {\n\tb\n\tc {\n", "\td\n        e\n\tf", "\n\t}\n",
      "\td\n\t\te\n\tf", 4, 0 },
    { "spaces as wide as the editor's tabs", "a {\n\tb\n", "\tc\n  d", "\n}\n", "\tc\n\td", 2, 0 },
    { "spaces in a file of spaces", "a {\n  b\n  c {\n", "    d\n\te", "\n}\n", "    d\n  e", 0,
      0 },
    { "the editor's word where the file has none", "a:", "\n    b", "\n", "\n\tb", 4,
      RD_INDENT_TABS },
    { "no word at all", "a:", "\n\tb", "\n", "\n\tb", 0, 0 },
    { "a file of both is left alone", "a\n\tb\n  c\n\td\n  e\n", "f\n\tg", "\n", "f\n\tg", 0, 0 },
    { "rests of a tab stop", "\ta\n\tb\n", "c\n      d", "\n", "c\n\t  d", 4, 0 },
};

ParameterizedTestParameters(tidy, offers_what_is_new)
{
    return cr_make_param_array(tidy_case, cases, sizeof cases / sizeof *cases);
}

ParameterizedTest(tidy_case *c, tidy, offers_what_is_new)
{
    rd_around a = { .before = c->before,
                    .before_n = strlen(c->before),
                    .behind = c->behind,
                    .behind_n = strlen(c->behind),
                    .tab_size = c->tab_size,
                    .indent = c->indent };
    rd_buf text = { 0 };

    rd_buf_text(&text, c->answer);
    rd_tidy(&a, &text);

    cr_assert_str_eq(text.data ? text.data : "", c->expected, "%s: \"%s\", not \"%s\"", c->name,
                     text.data ? text.data : "", c->expected);
    rd_buf_clear(&text);
}
