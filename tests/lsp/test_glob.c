/* test_glob.c - patterns of ignore files match what git's documentation says. */
#include "core/base/random.h"
#include "lsp/glob.h"
#include "lsp/limits.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

/* The shortest front of the path that the pattern hits, in pieces; 0: none. */
static int first_hit(const char *pattern, const char *path, bool fold)
{
    rd_glob_piece pieces[RD_MOST_PATH_DEPTH];
    bool hits[RD_MOST_PATH_DEPTH];
    rd_glob *g = rd_glob_new(pattern, strlen(pattern));
    size_t n = 0, steps = 100000;
    int first = 0;

    cr_assert(g, "\"%s\"", pattern);
    for (const char *s = path; s; n++) {
        const char *slash = strchr(s, '/');

        pieces[n] = (rd_glob_piece){ s, slash ? (size_t)(slash - s) : strlen(s) };
        s = slash ? slash + 1 : NULL;
    }
    cr_assert(rd_glob_match(g, pieces, n, fold, &steps, hits));
    for (size_t k = n; k-- > 0;)
        if (hits[k]) first = (int)k + 1;
    rd_glob_free(g);
    return first;
}

static const struct {
    const char *pattern, *path;
    int hit;
} cases[] = {
    { "a", "a", 1 },
    { "a", "x/a", 2 },
    { "a", "x/a/b", 2 },
    { "a", "ab", 0 },
    { "/a", "a", 1 },
    { "/a", "x/a", 0 },
    { "a/b", "a/b", 2 },
    { "a/b", "x/a/b", 0 },
    { "a/", "a", 0 },
    { "a/", "a/b", 1 },
    { "a/", "x/a/b", 2 },
    { "a/b/", "a/b", 0 },
    { "*.o", "x/y.o", 2 },
    { "*.o", "y.oo", 0 },
    { "*", "x", 1 },
    { "a*c", "abbc", 1 },
    { "a*c", "ac", 1 },
    { "a*b*c", "aXbXbYc", 1 },
    { "/*.c", "x/y.c", 0 },
    { "x/*.c", "x/y.c", 2 },
    { "x/*", "x/y/z", 2 },
    { "?", "ab", 0 },
    { "?b", "ab", 1 },
    { "**/a", "a", 1 },
    { "**/a", "x/y/a", 3 },
    { "a/**", "a", 0 },
    { "a/**", "a/b/c", 2 },
    { "a/**/b", "a/b", 2 },
    { "a/**/b", "a/x/y/b", 4 },
    { "a/**/b", "a/x", 0 },
    { "**", "a/b", 1 },
    { "a**b", "axxb", 1 },
    { "[ab]", "b", 1 },
    { "[!ab]", "b", 0 },
    { "[!ab]", "c", 1 },
    { "[^ab]", "c", 1 },
    { "[a-c]x", "bx", 1 },
    { "[]a]", "]", 1 },
    { "[a-]", "-", 1 },
    { "[[:digit:]]", "7", 1 },
    { "[[:digit:]]", "x", 0 },
    { "[[:alpha:]_]", "_", 1 },
    { "[a", "[a", 1 },
    { "[\\]]", "]", 1 },
    { "\\*", "*", 1 },
    { "\\*", "a", 0 },
    { "\\#a", "#a", 1 },
    { "\\!a", "!a", 1 },
    { "a\\ ", "a ", 1 },
    { "a ", "a", 1 },
    { "a\t\r", "a", 1 },
    { "a b", "a b", 1 },
    { "\xc3\xa9*", "\xc3\xa9t\xc3\xa9", 1 },
    { "a//b", "a/b", 2 },
    { "**/**/a", "a", 1 },
    { "!a", "a", 1 },
};

Test(glob, matches_as_the_table_says)
{
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int hit = first_hit(cases[i].pattern, cases[i].path, false);

        cr_assert_eq(hit, cases[i].hit, "%s on %s: %d", cases[i].pattern, cases[i].path, hit);
    }
}

Test(glob, folds_the_case_of_letters_only_to_match_more)
{
    cr_assert_eq(first_hit(".env", ".ENV", false), 0);
    cr_assert_eq(first_hit(".env", ".ENV", true), 1);
    cr_assert_eq(first_hit("*.PEM", "a.pem", true), 1);
    cr_assert_eq(first_hit("[a-c]", "B", true), 1);
    cr_assert_eq(first_hit("[!a-c]", "B", true), 1, "it matches without folding");
    cr_assert_eq(first_hit("[[:lower:]]", "B", true), 1);
    cr_assert_eq(first_hit("[[:upper:]]", "b", true), 1);
}

Test(glob, makes_nothing_of_blank_lines_and_comments)
{
    static const char *const none[] = { "", " ", "#a", "\r", "/", "!", "!/", "  \t" };

    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        cr_assert_null(rd_glob_new(none[i], strlen(none[i])), "\"%s\"", none[i]);
    cr_assert_null(rd_glob_new("a\0b", 3));
    char *most = malloc(RD_MOST_PATTERN_BYTES + 1);

    memset(most, 'a', RD_MOST_PATTERN_BYTES + 1);
    rd_glob *g = rd_glob_new(most, RD_MOST_PATTERN_BYTES);

    cr_assert(g);
    rd_glob_free(g);
    cr_assert_null(rd_glob_new(most, RD_MOST_PATTERN_BYTES + 1));
    for (size_t i = 1; i < RD_MOST_PATTERN_BYTES; i += 2) most[i] = '/';
    g = rd_glob_new(most, RD_MOST_PATTERN_BYTES);
    cr_assert(g);
    rd_glob_free(g);
    free(most);
}

Test(glob, stops_when_its_steps_are_used_up)
{
    char path[256], pattern[300] = "*";
    rd_glob_piece piece = { path, 255 };
    size_t steps = 1000000;
    bool hit = false;

    memset(path, 'a', sizeof path);
    memset(pattern + 1, 'a', 120);
    pattern[121] = 'b';
    rd_glob *g = rd_glob_new(pattern, 122);

    cr_assert(rd_glob_match(g, &piece, 1, true, &steps, &hit));
    cr_assert(!hit);
    cr_assert_lt(steps, 980000, "it is a costly one");
    steps = 1000;
    cr_assert(!rd_glob_match(g, &piece, 1, true, &steps, &hit));
    cr_assert_eq(steps, 0);
    rd_glob_free(g);
}

Test(glob, reads_any_bytes, .timeout = 60)
{
    static const char alphabet[] = "a/*?[]!-\\:^ .#";
    rd_random r = rd_random_seed(8);
    bool hits[4];

    for (int k = 0; k < 200000; k++) {
        size_t n = rd_random_below(&r, 20);
        char *line = malloc(n ? n : 1);
        rd_glob_piece pieces[4] = { { "a", 1 }, { "ab:-]", 5 }, { "[", 1 }, { "\\a.", 3 } };

        for (size_t i = 0; i < n; i++) line[i] = alphabet[rd_random_below(&r, sizeof alphabet - 1)];
        rd_glob *g = rd_glob_new(line, n);

        size_t steps = 20;

        if (g) rd_glob_match(g, pieces, 4, k % 2, &steps, hits);
        cr_assert_leq(steps, 20);
        rd_glob_free(g);
        free(line);
    }
}
