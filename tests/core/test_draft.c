/* test_draft.c - which texts of a file are offered for a hole. */
#include "core/decode/draft.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct hole_case {
    const char *prefix, *suffix, *first; /* the best draft */
} hole_case;

static void first_draft(const char *prefix, const char *suffix, char *out, size_t n)
{
    rd_draft d[RD_DRAFTS_MOST];
    int count = rd_drafts_find(prefix, strlen(prefix), suffix, strlen(suffix), d, RD_DRAFTS_MOST);

    snprintf(out, n, "%s", count > 0 ? d[0].text.data : "");
    rd_drafts_clear(d, count);
}

Test(draft, is_what_stands_between_like_neighbours)
{
    static const hole_case cases[] = {
        /* a whole line, by the lines around, with the names that they have here */
        { "    open(a)\n    read(a)\n    close(a)\n\n    open(b)\n    ", "\n    close(b)\n",
          "read(b)" },
        /* and numbers that count on */
        { "case 1:\n    one(1);\ncase 2:\n    one(2);\ncase 3:\n    ", "\ncase 4:\n", "one(3);" },
        /* the rest of a line, by its beginning */
        { "x = compute(first, second)\ny = 1\nx = comp", "\nz = 2\n", "ute(first, second)" },
        /* up to what stands right of the cursor */
        { "call(alpha, beta);\nother();\ncall(al", ");\n", "pha, beta" },
        /* several lines, when the line below the hole stands below them too; the indent moves along */
        { "if a:\n    one()\n    two()\nelse:\n    three()\n\n\nfor b in c:\n    if a:\n        ",
          "\n    else:\n        four()\n", "one()\n        two()" },
        /* no bare bracket as a whole line, though its place is the most alike */
        { "f() {\n    a();\n    b();\n}\ng() {\n    a();\n    b();\n", "\nh() {\n", "b();" },
        /* nothing is like it */
        { "", "", "" },
        { "alone", "", "" },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char got[200];

        first_draft(cases[i].prefix, cases[i].suffix, got, sizeof got);
        cr_assert_str_eq(got, cases[i].first, "case %zu: %s", i, got);
    }
}

Test(draft, are_different_and_in_order)
{
    const char *prefix = "a = 1\nb = 2\na = 1\nb = 2\na = 1\nb = 3\na = 1\n", *suffix = "\na = 1\n";
    rd_draft d[RD_DRAFTS_MOST];
    int n = rd_drafts_find(prefix, strlen(prefix), suffix, strlen(suffix), d, RD_DRAFTS_MOST);

    cr_assert_geq(n, 2);
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < i; k++) {
            cr_assert_geq(d[k].alike, d[i].alike);
            cr_assert(d[k].text.len != d[i].text.len ||
                      memcmp(d[k].text.data, d[i].text.data, d[i].text.len) != 0);
        }
    }
    rd_drafts_clear(d, n);
}

Test(draft, any_bytes_will_do)
{
    char noise[5000];
    unsigned seed = 1;

    for (int k = 0; k < 200; k++) {
        rd_draft d[RD_DRAFTS_MOST];

        for (size_t i = 0; i < sizeof noise; i++) {
            seed = seed * 1103515245u + 12345u;
            noise[i] = (char)(k % 2 ? (int)(seed >> 16 & 255) : "ab \n\t("[(seed >> 16) % 6]);
        }
        size_t cut = seed % sizeof noise;
        int n = rd_drafts_find(noise, cut, noise + cut, sizeof noise - cut, d, 1 + k % 4);

        cr_assert_leq(n, 1 + k % 4);
        for (int i = 0; i < n; i++) cr_assert_gt(d[i].text.len, 0);
        rd_drafts_clear(d, n);
    }
}
