/* test_todo.c - which bytes are a hole, language by language; they stand between two `^`, the cursor at `|`. */
#include "core/base/memory.h"
#include "lsp/todo.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <stdlib.h>
#include <string.h>

typedef struct hole_case {
    char language[16], text[160];
    bool says_what;
} hole_case;

static hole_case cases[] = {
    /* Python */
    { "python", "def f():\n    ^pa|ss^\n", false },
    { "python", "def f():\n    ^...^|\nx = 1\n", false },
    { "python", "def f(): ^pass^|\n", false },
    { "python", "def f() -> int: ^...^  |\n", false },
    { "python", "class A:\n    |^pass  # for now^\n", false },
    { "python", "def f():\n|    ^raise NotImplementedError(\"f (x)\")^\n", false },
    { "python", "    |^# TODO: sum them up^\n    return s\n", true },
    { "python", "def f():\n    ^# TODO| sum\n    pass^\n", true },
    { "python", "def f():\r\n    ^# TODO sum\r\n    pa|ss^\r\n", true },
    { "python", "    ^# TODO|: a^\n        pass\n", true },
    { "python", "x = pass|word\n", false },
    { "python", "x: Tuple[int, ...]|\n", false },
    { "python", "d = {}|\n", false },
    { "python", "x = 1  # TODO: later|\n", false },
    { "python", "# see the TODO| list\n", false },
    { "python", "s = \"TODO\"|\n", false },
    /* C */
    { "c", "int f(void)\n{^\n^|}\n", false },
    { "c", "int f(void) {^^|}\n", false },
    { "c", "void f(void) {^ ^}|\n", false },
    { "c", "    if (a == b) {^\n^    }|\n", false },
    { "c", "    ^// FIXME: check x^|\n", true },
    { "c", "    ^/* XXX check x */^|\n", true },
    { "c", "    |^/* TODO check\n     * x */^\n    f();\n", true },
    { "c", "struct a b = {}|;\n", false },
    { "c", "x = (struct a){}|;\n", false },
    { "c", "#define TODO| 1\n", false },
    { "c", "f(\"{}|\");\n", false },
    { "c", "int a; // like {}|\n", false },
    { "c", "/* TODO| without an end\n", false },
    /* JavaScript */
    { "javascript", "const f = () => {^^|};\n", false },
    { "javascript", "function f(a) {^\n^|}\n", false },
    { "javascript", "  ^throw new Error('not implemented');^|\n", false },
    { "javascript", "x = {}|\n", false },
    { "javascript", "f({}|)\n", false },
    { "javascript", "const g = { a: {}| }\n", false },
    { "javascript", "return {}|\n", false },
    { "javascript", "throw new Error('oops')|\n", false },
    { "javascript", "f(...|a)\n", false },
    { "typescript", "function f(): void {^^|}\n", false },
    /* Rust */
    { "rust", "fn f() -> i32 { ^todo!()^| }\n", false },
    { "rust", "    ^unimplemented!(\"a, b (c)\");^|\n", false },
    { "rust", "fn f() -> Vec<u8> {^^|}\n", false },
    { "rust", "    ^panic!(\"not implemented\")^|\n", false },
    { "rust", "panic!(\"out of range\")|\n", false },
    { "rust", "let x = Foo {}|;\n", false },
    { "rust", "println!(\"x {}|\", x);\n", false },
    /* others */
    { "scala", "def f = ^???^|\n", false },
    { "kotlin", "fun f() { ^TODO(\"later\")^| }\n", false },
    { "go", "func f() {^^|}\n", false },
    { "go", "x := Foo{}|\n", false },
    { "lua", "^-- TODO: x^|\n", true },
    { "html", "^<!-- TODO list -->^|\n", true },
    { "", "^// TODO^|\n", true },
    { "plaintext", "|  ^...^\n", false },
    { "c", "f();|\n", false },
    { "c", "|", false },
};

ParameterizedTestParameters(todo, finds_the_hole_of_the_line_and_nothing_else)
{
    return cr_make_param_array(hole_case, cases, sizeof cases / sizeof *cases);
}

/* The text without its marks, and where they stood; SIZE_MAX: nowhere. */
static size_t unmark(const char *marked, char *text, size_t *start, size_t *end, size_t *at)
{
    size_t n = 0;

    *start = *end = *at = SIZE_MAX;
    for (; *marked; marked++) {
        if (*marked == '^')
            *(*start == SIZE_MAX ? start : end) = n;
        else if (*marked == '|')
            *at = n;
        else
            text[n++] = *marked;
    }
    text[n] = 0;
    return n;
}

ParameterizedTest(hole_case *c, todo, finds_the_hole_of_the_line_and_nothing_else)
{
    char text[200];
    size_t start, end, at, n = unmark(c->text, text, &start, &end, &at);
    rd_todo out = { 0 };
    bool found = rd_todo_find(c->language, text, n, at, at, &out);

    cr_assert_eq(found, start != SIZE_MAX, "%s: %s", c->language, c->text);
    if (!found) return;
    cr_assert_eq(out.start, start, "%s: %s: from %zu", c->language, c->text, out.start);
    cr_assert_eq(out.end, end, "%s: %s: to %zu", c->language, c->text, out.end);
    cr_assert_eq(out.says_what, c->says_what, "%s", c->text);
}

Test(todo, of_a_selection_of_whole_lines_is_not_looked_for_behind_it)
{
    const char *text = "a\nb\npass\n";
    rd_todo out;

    cr_assert(!rd_todo_find("python", text, strlen(text), 0, 4, &out));
    cr_assert(rd_todo_find("python", text, strlen(text), 0, 5, &out));
    cr_assert_eq(out.start, 4);
    cr_assert_eq(out.end, 8);
}

Test(todo, is_found_in_bounded_time_in_text_made_to_be_slow, .timeout = 5)
{
    static const char *const pieces[] = { "f(){}{}[] {}", "/* TODO\n", "TODO(", "{   \n",
                                          "x: ..." };
    enum { N = 40000 };
    char *text = rd_alloc0(N + 1);
    rd_todo out;

    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        for (size_t k = 0; k < N; k++) text[k] = pieces[i][k % strlen(pieces[i])];
        rd_todo_find("c", text, N, 0, N, &out);
        rd_todo_find("python", text, N, N / 2, N / 2, &out);
    }
    free(text);
}
