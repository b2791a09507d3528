/* test_worth.c - what is not worth a look, and what looks alike and is. */
#include "lsp/worth.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <string.h>

typedef struct worth_case {
    char name[56], before[80], text[60], behind[80], why[12];
} worth_case;

static worth_case cases[] = {
    { "plain text", "x = ", "f(1)", "\ny = 2\n", "" },
    { "nothing around", "", "int x;", "", "" },
    { "the line below", "impor", "t io", "\nimport io\n", "once more" },
    { "the line below, with other blanks", "int\t", "count;", "\n  int count;\n", "once more" },
    { "the line below, the last of the file", "a\n", "return x;", "\nreturn x;", "once more" },
    { "the line above", "  x = call();\n  ", "x = call();", "\n}\n", "once more" },
    { "the line above, the first of the file", "x = call();\n", "x = call();", "", "once more" },
    { "a line that begins alike", "import i", "o", "\nimport iota\n", "" },
    { "a line further down", "impor", "t io", "\nimport os\nimport io\n", "" },
    { "a short line twice", "#endif\n", "#endif", "\n", "" },
    { "two lines, the second as below", "f(", ");\n  g(a, b);", "\n  g(a, b);\n", "" },
    { "a bracket without an opener", "void", ") const;", "\n", "bracket" },
    { "one bracket too many", "f(a, ", "b))", "\n", "bracket" },
    { "another kind of bracket", "f(a", "]", "\n", "bracket" },
    { "a bracket opened lines above", "f(a,\n  g(b),\n  ", "c)", ";\n", "" },
    { "a bracket of its own", "x = ", "f(a)[1]", "\n", "" },
    { "a bracket left open", "x", " = f(", "\n", "" },
    { "half a word in a comment", "/* ", "inte", " of the source */\n", "a word" },
    { "half a word that was begun", "/* in", "te", " of the source */\n", "a word" },
    { "a word that stands before", "source(s); /* the ", "source", " of it */\n", "" },
    { "a word that stands behind", "/* the ", "source", " of it */\nsource(s);\n", "" },
    { "a word within a longer one", "sources; /* the ", "source", " of it */\n", "a word" },
    { "a new word at the line's end", "x = ", "fresh", "\n", "" },
    { "a new word, blanks at the line's end", "x = ", "fresh", "  \n", "" },
    { "a new word before a bracket", "x = f(", "fresh", ")\n", "" },
    { "a new number", "x = ", "0x11", " + y\n", "" },
    { "a new word of another script", "x = \"", "\xd0\xb4\xd0\xb0", " y\"\n", "" },
    { "an operator", "x = a ", "+", " b\n", "" },
};

ParameterizedTestParameters(worth, cases)
{
    return cr_make_param_array(worth_case, cases, sizeof cases / sizeof *cases);
}

ParameterizedTest(worth_case *c, worth, cases)
{
    rd_around a = { .before = c->before,
                    .before_n = strlen(c->before),
                    .behind = c->behind,
                    .behind_n = strlen(c->behind) };

    const char *why = rd_unworthy(&a, c->text, strlen(c->text));

    cr_assert(*c->why ? why && strstr(why, c->why) : !why, "%s: %s", c->name, why ? why : "shown");
}
