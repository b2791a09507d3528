/* test_cases.c - holes cut from this project's own sources, and sets written and read back. */
#include "core/eval/cases.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static rd_cases cut(uint64_t seed, int n)
{
    rd_cases c = { 0 };
    rd_error err;

    cr_assert(!rd_cases_files(&c, RD_SOURCE_DIR "/core", &err), "%s", err.text);
    rd_cases_cut(&c, rd_case_kinds_of("line,end,middle,multi"), n, seed);
    return c;
}

static int newlines(const char *s, size_t n)
{
    int lines = 0;

    for (size_t i = 0; i < n; i++) lines += s[i] == '\n';
    return lines;
}

/* What stands between the start of the line and `at` is white. */
static bool only_indent(const char *text, size_t at)
{
    while (at > 0 && (text[at - 1] == ' ' || text[at - 1] == '\t')) at--;
    return at == 0 || text[at - 1] == '\n';
}

Test(cases, are_the_same_for_the_same_seed_and_others_for_another)
{
    rd_cases a = cut(7, 12), b = cut(7, 12), other = cut(8, 12);
    int moved = 0;

    cr_assert_eq(a.n, 48);
    cr_assert_eq(b.n, a.n);
    for (int i = 0; i < a.n; i++) {
        cr_assert_str_eq(a.at[i].id, b.at[i].id);
        cr_assert_eq(a.at[i].start, b.at[i].start);
        cr_assert_eq(a.at[i].end, b.at[i].end);
        moved += i >= other.n || strcmp(a.at[i].id, other.at[i].id) != 0;
    }
    cr_assert_gt(moved, 40);
    rd_cases_clear(&a);
    rd_cases_clear(&b);
    rd_cases_clear(&other);
}

Test(cases, have_the_shape_that_their_kind_names)
{
    rd_cases c = cut(3, 30);

    for (int i = 0; i < c.n; i++) {
        const rd_case *one = &c.at[i];
        const rd_case_file *f = &c.file[one->file];
        size_t n;
        const char *hole = rd_case_text(&c, i, &n);
        int lines = newlines(hole, n);
        bool at_end = one->end == f->bytes || f->text[one->end] == '\n';

        cr_assert(rd_case_is_worth(hole, n), "%s", one->id);
        cr_assert_geq(one->start, f->licence);
        cr_assert_eq(only_indent(f->text, one->start),
                     one->kind == RD_CASE_LINE || one->kind == RD_CASE_MULTI, "%s", one->id);
        cr_assert_eq(at_end, one->kind != RD_CASE_MIDDLE, "%s", one->id);
        cr_assert(one->kind == RD_CASE_MULTI ? lines >= 1 && lines <= 4 : lines == 0, "%s",
                  one->id);
        cr_assert(strstr(one->id, f->name), "%s", one->id);
    }
    rd_cases_clear(&c);
}

Test(cases, are_spread_evenly_over_the_files)
{
    rd_cases c = cut(1, 40);
    int *used = calloc((size_t)c.files, sizeof *used), most = 0, least = 100;

    for (int i = 0; i < 40; i++) used[c.at[i].file]++;
    for (int i = 0; i < c.files; i++) {
        most = used[i] > most ? used[i] : most;
        least = used[i] < least ? used[i] : least;
    }
    cr_assert_leq(most, least + 1, "%d files, %d to %d a file", c.files, least, most);
    free(used);
    rd_cases_clear(&c);
}

Test(cases, come_back_from_a_written_set_byte_for_byte)
{
    char path[] = "/tmp/rd_setXXXXXX";
    rd_cases c = cut(5, 10), back = { 0 };
    rd_error err;
    int fd = mkstemp(path);

    cr_assert(fd >= 0);
    close(fd);
    cr_assert(!rd_cases_write(&c, path, &err), "%s", err.text);
    cr_assert(!rd_cases_read(&back, path, &err), "%s", err.text);
    cr_assert_eq(back.n, c.n);
    for (int i = 0; i < c.n; i++) {
        const rd_case_file *f = &c.file[c.at[i].file], *g = &back.file[back.at[i].file];

        cr_assert_str_eq(back.at[i].id, c.at[i].id);
        cr_assert_eq(back.at[i].kind, c.at[i].kind);
        cr_assert_eq(back.at[i].start, c.at[i].start);
        cr_assert_eq(back.at[i].end, c.at[i].end);
        cr_assert_eq(g->bytes, f->bytes);
        cr_assert(!memcmp(g->text, f->text, f->bytes), "%s", f->name);
        cr_assert_str_eq(g->language, f->language);
    }
    cr_assert_leq(back.files, c.files, "a file is kept once for all its cases");
    rd_cases_clear(&c);
    rd_cases_clear(&back);
    unlink(path);
}

static rd_status read_text(const char *text, rd_cases *c, rd_error *err)
{
    char path[] = "/tmp/rd_setXXXXXX";
    int fd = mkstemp(path);

    cr_assert(fd >= 0);
    cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    rd_status status = rd_cases_read(c, path, err);

    unlink(path);
    return status;
}

Test(cases, of_a_foreign_set_need_only_the_fields_of_infill_and_a_reference)
{
    rd_cases c = { 0 };
    rd_error err;

    cr_assert(
        !read_text("{\"task_id\":\"t/1\",\"prefix\":\"a\",\"suffix\":\"c\",\"reference\":\"b\","
                   "\"hole_tokens\":3,\"more\":[1]}\n\n",
                   &c, &err),
        "%s", err.text);
    cr_assert_eq(c.n, 1);
    cr_assert_str_eq(c.at[0].id, "t/1");
    cr_assert_str_eq(c.file[0].text, "abc");
    cr_assert_eq(c.at[0].kind, RD_CASE_GIVEN);
    cr_assert_eq(c.at[0].hole_tokens, 3);
    rd_cases_clear(&c);
}

Test(cases, of_a_broken_set_are_refused_with_the_line)
{
    rd_cases c = { 0 };
    rd_error err;

    cr_assert_eq(
        read_text("{\"prefix\":\"a\",\"suffix\":\"\",\"reference\":\"b\"}\n{\"prefix\":1}\n", &c,
                  &err),
        RD_INVALID);
    cr_assert(strstr(err.text, ":2") && strstr(err.text, "prefix"), "%s", err.text);
    rd_cases_clear(&c);
    cr_assert_eq(read_text("not json\n", &c, &err), RD_INVALID);
    rd_cases_clear(&c);
    cr_assert_eq(read_text("\n", &c, &err), RD_INVALID);
    rd_cases_clear(&c);
}

Test(cases, leave_the_licence_alone)
{
    static const char text[] =
        "/* $Id$ */\n\n/*\n * Copyright (c) somebody and all of the others\n * "
        "Permission is hereby granted to anyone\n */\n\nint first_line(void);\n";
    char dir[] = "/tmp/rd_casesXXXXXX", path[64];
    rd_cases c = { 0 };
    rd_error err;

    cr_assert(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/a.c", dir);
    FILE *f = fopen(path, "w");

    fputs(text, f);
    fclose(f);
    cr_assert(!rd_cases_files(&c, dir, &err), "%s", err.text);
    rd_cases_cut(&c, rd_case_kinds_of("line"), 5, 1);
    cr_assert_eq(c.n, 1);
    cr_assert_str_eq(c.at[0].id, "line/a.c:8:1");
    rd_cases_clear(&c);
    unlink(path);
    rmdir(dir);
}

Test(cases, that_are_trivial_are_not_cut)
{
    cr_assert(!rd_case_is_worth("", 0));
    cr_assert(!rd_case_is_worth("});", 3));
    cr_assert(!rd_case_is_worth("  x)  ", 6));
    cr_assert(rd_case_is_worth("x);", 3));
    cr_assert_eq(rd_case_kinds_of("line,half"), 0u);
    cr_assert_eq(rd_case_kinds_of("end"), 1u << RD_CASE_END);
}

Test(cases, windows_begin_and_end_with_whole_lines)
{
    rd_cases c = cut(1, 1);
    rd_random random = rd_random_seed(4);
    int found = 0, longest = 0;

    for (int i = 0; i < 60; i++) {
        const rd_case_file *f = &c.file[i % c.files];
        size_t start, end;

        if (!rd_cases_window(f, 3, &random, &start, &end)) continue;
        int lines = newlines(f->text + start, end - start) + 1;

        found++;
        cr_assert(start == 0 || f->text[start - 1] == '\n');
        cr_assert(end == f->bytes || f->text[end] == '\n');
        longest = lines > longest ? lines : longest;
    }
    cr_assert_gt(found, 40);
    cr_assert_eq(longest, 3);
    rd_cases_clear(&c);
}
