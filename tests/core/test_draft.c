/* test_draft.c - which texts of a file are offered for a hole. */
#include "core/decode/draft.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct hole_case {
    const char *prefix, *suffix, *first; /* the best draft */
} hole_case;

static int find(const char *prefix, size_t prefix_bytes, const char *suffix, size_t suffix_bytes,
                rd_draft *out, int most)
{
    rd_draft_place place = { .prefix = prefix,
                             .prefix_bytes = prefix_bytes,
                             .suffix = suffix,
                             .suffix_bytes = suffix_bytes };

    return rd_drafts_find(&place, out, most);
}

static void first_draft(const char *prefix, const char *suffix, char *out, size_t n)
{
    rd_draft d[RD_DRAFTS_MOST];
    int count = find(prefix, strlen(prefix), suffix, strlen(suffix), d, RD_DRAFTS_MOST);

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
    int n = find(prefix, strlen(prefix), suffix, strlen(suffix), d, RD_DRAFTS_MOST);

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
        int n = find(noise, cut, noise + cut, sizeof noise - cut, d, 1 + k % 4);

        cr_assert_leq(n, 1 + k % 4);
        for (int i = 0; i < n; i++) cr_assert_gt(d[i].text.len, 0);
        rd_drafts_clear(d, n);
    }
}

/* ---- other texts ---- */

static const char open_prefix[] = "f = open(name)\ntry:\n    ",
                  open_suffix[] = "\nfinally:\n    f.close()\n";

static rd_draft_place open_place(void)
{
    return (rd_draft_place){ .prefix = open_prefix,
                             .prefix_bytes = strlen(open_prefix),
                             .suffix = open_suffix,
                             .suffix_bytes = strlen(open_suffix) };
}

static void add_other(rd_draft_place *p, const char *text)
{
    p->others[p->n_others++] = (rd_draft_text){ text, strlen(text) };
}

Test(draft, may_be_a_line_that_only_another_text_has)
{
    rd_draft_place p = open_place();
    rd_draft d[RD_DRAFTS_MOST];

    add_other(&p, "nothing here\n");
    add_other(&p, "f = open(name)\ntry:\n    parse(f.read())\nfinally:\n    f.close()\n");
    int n = rd_drafts_find(&p, d, 1);

    cr_assert_eq(n, 1);
    cr_assert_str_eq(d[0].text.data, "parse(f.read())");
    rd_drafts_clear(d, n);
}

Test(draft, is_the_files_own_line_where_another_text_has_one_that_fits_as_well)
{
    static const char before[] =
        "f = open(name)\ntry:\n    own(f.read())\nfinally:\n    f.close()\n\n"
        "f = open(name)\ntry:\n    ";
    rd_draft_place p = open_place();
    rd_draft d[RD_DRAFTS_MOST];

    p.prefix = before;
    p.prefix_bytes = strlen(before);
    add_other(&p, "f = open(name)\ntry:\n    its(f.read())\nfinally:\n    f.close()\n");
    int n = rd_drafts_find(&p, d, RD_DRAFTS_MOST), its = 0;

    cr_assert_gt(n, 1);
    cr_assert_str_eq(d[0].text.data, "own(f.read())");
    for (int i = 1; i < n; i++) its += !strcmp(d[i].text.data, "its(f.read())");
    cr_assert_eq(its, 1);
    rd_drafts_clear(d, n);
}

Test(draft, of_the_file_is_as_alike_whatever_other_texts_there_are)
{
    static const char before[] = "a = 1\nb = 2\na = 1\nb = 2\na = 1\n", after[] = "\na = 1\n";
    rd_draft_place p = { .prefix = before,
                         .prefix_bytes = strlen(before),
                         .suffix = after,
                         .suffix_bytes = strlen(after) };
    rd_draft alone, beside;

    cr_assert_eq(rd_drafts_find(&p, &alone, 1), 1);
    add_other(&p, "something\nelse\nentirely\n");
    add_other(&p, "");
    cr_assert_eq(rd_drafts_find(&p, &beside, 1), 1);

    cr_assert_str_eq(alone.text.data, beside.text.data);
    cr_assert_eq(alone.alike, beside.alike);
    rd_drafts_clear(&alone, 1);
    rd_drafts_clear(&beside, 1);
}

Test(draft, looks_at_a_bounded_part_of_other_texts)
{
    static const char fits[] =
        "f = open(name)\ntry:\n    parse(f.read())\nfinally:\n    f.close()\n";
    rd_draft_place p = open_place();
    rd_buf far = { 0 };
    rd_draft d[RD_DRAFTS_MOST];

    for (int i = 0; i < 8000; i++) rd_buf_format(&far, "%d\n", i);
    rd_buf_text(&far, fits);
    add_other(&p, far.data);
    add_other(&p, fits);
    int n = rd_drafts_find(&p, d, RD_DRAFTS_MOST);

    for (int i = 0; i < n; i++) cr_assert_neq(strcmp(d[i].text.data, "parse(f.read())"), 0);
    rd_drafts_clear(d, n);
    rd_buf_clear(&far);
}
