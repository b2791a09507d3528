/* test_document.c - versions, edits, shifting, and documents that became unknown. */
#include "core/base/random.h"
#include "lsp/document.h"
#include "lsp/limits.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static rd_document *opened(rd_documents *d, const char *uri, const char *text)
{
    rd_error err;

    cr_assert(!rd_documents_open(d, uri, "c", 1, text, strlen(text), &err), "%s", err.text);
    return rd_documents_find(d, uri);
}

static void holds(const rd_document *doc, const char *want)
{
    rd_buf text = { 0 };

    rd_buf_text(&text, "");
    rd_text_copy(rd_document_text(doc), 0, SIZE_MAX, &text);
    cr_assert_str_eq(text.data, want);
    rd_buf_clear(&text);
}

Test(document, is_found_by_its_uri_until_it_is_closed)
{
    rd_documents *d = rd_documents_new();
    rd_document *a = opened(d, "file:///a", "aa");

    opened(d, "file:///A", "bb");
    cr_assert_eq(rd_documents_count(d), 2);
    cr_assert_eq(rd_documents_find(d, "file:///a"), a);
    cr_assert_str_eq(rd_document_language(a), "c");
    cr_assert_str_eq(rd_document_uri(rd_documents_at(d, 0)), "file:///a");
    cr_assert_null(rd_documents_find(d, "file:///b"));
    cr_assert(rd_documents_close(d, "file:///a"));
    cr_assert(!rd_documents_close(d, "file:///a"));
    holds(rd_documents_find(d, "file:///A"), "bb");
    rd_documents_free(d);
    rd_documents_free(NULL);
}

Test(document, counts_revisions_of_its_own_and_keeps_the_versions_of_the_client)
{
    rd_documents *d = rd_documents_new();
    rd_document *doc = opened(d, "u", "abc");
    uint64_t first = rd_document_revision(doc);

    cr_assert(!rd_document_edit(doc, 1, 2, "xyz", 3, NULL));
    holds(doc, "axyzc");
    cr_assert_gt(rd_document_revision(doc), first);
    rd_document_set_version(doc, -5);
    cr_assert_eq(rd_document_version(doc), -5);
    first = rd_document_revision(doc);
    opened(d, "u", "again");
    cr_assert_gt(rd_document_revision(doc), first, "opening again makes a new one");
    holds(doc, "again");
    rd_documents_free(d);
}

Test(document, is_unknown_after_a_lost_frame_until_it_is_opened_again)
{
    rd_documents *d = rd_documents_new();
    rd_document *a = opened(d, "a", "x"), *b = opened(d, "b", "y");

    uint64_t revision = rd_document_revision(a);
    size_t start = 0, end = 1;

    rd_documents_forget(d);
    cr_assert_eq(rd_document_shift(a, revision, &start, &end), RD_STALE);
    cr_assert_eq(rd_document_shift(a, rd_document_revision(a), &start, &end), RD_STALE);
    cr_assert(!rd_document_is_known(a) && !rd_document_is_known(b));
    cr_assert_null(rd_document_text(a));
    cr_assert(!rd_document_edit(a, 0, 0, "z", 1, NULL));
    cr_assert(!rd_document_set_text(a, "z", 1, NULL));
    cr_assert(!rd_document_is_known(a));
    opened(d, "a", "fresh");
    cr_assert(rd_document_is_known(a) && !rd_document_is_known(b));
    holds(a, "fresh");
    rd_documents_free(d);
}

typedef struct shift_case {
    size_t start, end;  /* the span, in a text of 20 bytes */
    size_t from, to, n; /* the edit */
    int stale;
    size_t then_start, then_end;
} shift_case;

static const shift_case shifts[] = {
    { 5, 8, 0, 0, 3, 0, 8, 11 },    { 5, 8, 0, 2, 0, 0, 3, 6 },     { 5, 8, 10, 12, 7, 0, 5, 8 },
    { 5, 8, 5, 5, 2, 0, 7, 10 },    { 5, 8, 8, 8, 2, 0, 5, 8 },     { 5, 8, 3, 5, 1, 0, 4, 7 },
    { 5, 8, 8, 9, 0, 0, 5, 8 },     { 5, 8, 6, 6, 1, 1, 0, 0 },     { 5, 8, 4, 6, 0, 1, 0, 0 },
    { 5, 8, 7, 9, 1, 1, 0, 0 },     { 5, 8, 0, 20, 20, 1, 0, 0 },   { 5, 8, 6, 6, 0, 0, 5, 8 },
    { 5, 5, 5, 5, 1, 1, 0, 0 },     { 5, 5, 4, 5, 0, 0, 4, 4 },     { 5, 5, 5, 6, 0, 0, 5, 5 },
    { 5, 5, 4, 6, 0, 1, 0, 0 },     { 5, 5, 6, 6, 1, 0, 5, 5 },     { 0, 0, 0, 0, 1, 1, 0, 0 },
    { 20, 20, 0, 1, 0, 0, 19, 19 }, { 0, 20, 20, 20, 4, 0, 0, 20 },
};

Test(document, shifts_a_span_over_a_later_edit_or_says_that_it_is_stale)
{
    for (size_t i = 0; i < sizeof shifts / sizeof *shifts; i++) {
        const shift_case *c = &shifts[i];
        rd_documents *d = rd_documents_new();
        rd_document *doc = opened(d, "u", "01234567890123456789");
        uint64_t revision = rd_document_revision(doc);
        size_t start = c->start, end = c->end;

        rd_document_edit(doc, c->from, c->to, "xxxxxxxxxxxxxxxxxxxx", c->n, NULL);
        rd_status s = rd_document_shift(doc, revision, &start, &end);

        cr_assert_eq(s, c->stale ? RD_STALE : RD_OK, "case %zu", i);
        if (c->stale)
            cr_assert(start == c->start && end == c->end, "case %zu: left alone", i);
        else
            cr_assert(start == c->then_start && end == c->then_end, "case %zu: %zu, %zu", i, start,
                      end);
        rd_documents_free(d);
    }
}

/* A span that is not reported stale holds the very bytes that it held. */
Test(document, shifts_spans_to_the_same_bytes_over_many_edits, .timeout = 60)
{
    rd_random r = rd_random_seed(4);
    int followed = 0;

    for (int round = 0; round < 400; round++) {
        rd_documents *d = rd_documents_new();
        char text[200], span[200];

        for (size_t i = 0; i < sizeof text; i++) text[i] = (char)('!' + rd_random_below(&r, 90));
        rd_documents_open(d, "u", "", 1, text, sizeof text, NULL);
        rd_document *doc = rd_documents_find(d, "u");
        size_t start = rd_random_below(&r, 190), end = start + 1 + rd_random_below(&r, 10),
               n = end - start;
        uint64_t revision = rd_document_revision(doc);

        memcpy(span, text + start, n);
        for (uint32_t k = rd_random_below(&r, 12); k > 0; k--) {
            size_t bytes = rd_text_bytes(rd_document_text(doc)),
                   from = rd_random_below(&r, (uint32_t)bytes + 1);
            size_t to = from + rd_random_below(&r, 6);

            rd_document_edit(doc, from, to < bytes ? to : bytes, "~~~~~~", rd_random_below(&r, 6),
                             NULL);
        }
        if (!rd_document_shift(doc, revision, &start, &end)) {
            rd_buf now = { 0 };

            rd_text_copy(rd_document_text(doc), start, end, &now);
            cr_assert(now.len == n && !memcmp(now.data, span, n));
            rd_buf_clear(&now);
            followed++;
        }
        rd_documents_free(d);
    }
    cr_assert_gt(followed, 150);
}

Test(document, remembers_its_last_edits_and_no_more)
{
    rd_documents *d = rd_documents_new();
    rd_document *doc = opened(d, "u", "0123456789");
    uint64_t first = rd_document_revision(doc), second = 0;
    size_t start = 5, end = 6;

    for (int i = 0; i < RD_MOST_SHIFTS; i++) {
        rd_document_edit(doc, 0, 0, "x", 1, NULL);
        if (i == 0) second = rd_document_revision(doc);
    }
    cr_assert(!rd_document_shift(doc, first, &start, &end));
    cr_assert_eq(start, 5 + RD_MOST_SHIFTS);
    rd_document_edit(doc, 0, 0, "x", 1, NULL);
    start = 5;
    end = 6;
    cr_assert_eq(rd_document_shift(doc, first, &start, &end), RD_STALE);
    cr_assert(!rd_document_shift(doc, second, &start, &end));
    cr_assert_eq(start, 5 + RD_MOST_SHIFTS);
    cr_assert_eq(rd_document_shift(doc, rd_document_revision(doc) + 1, &start, &end), RD_STALE);
    second = rd_document_revision(doc);
    opened(d, "u", "0123456789");
    cr_assert_eq(rd_document_shift(doc, second, &start, &end), RD_STALE, "of the text before");
    rd_documents_free(d);
}

Test(document, takes_a_whole_new_text_as_its_smallest_edit)
{
    rd_documents *d = rd_documents_new();
    rd_document *doc = opened(d, "u", "int a;\nint b;\nint c;\n");
    uint64_t revision = rd_document_revision(doc);
    size_t start = 14, end = 20;

    cr_assert(!rd_document_set_text(doc, "int a;\nlong b;\nint c;\n", 22, NULL));
    holds(doc, "int a;\nlong b;\nint c;\n");
    cr_assert(!rd_document_shift(doc, revision, &start, &end));
    cr_assert_eq(start, 15);
    rd_documents_free(d);
}

Test(document, holds_its_limits_of_size_and_number, .timeout = 60)
{
    rd_documents *d = rd_documents_new();
    size_t n = RD_MOST_DOCUMENT_BYTES;
    char *big = malloc(n + 1), uri[32];
    rd_error err;

    memset(big, 'x', n + 1);
    cr_assert(!rd_documents_open(d, "big", "", 1, big, n, &err));
    rd_document *doc = rd_documents_find(d, "big");

    cr_assert_eq(rd_document_edit(doc, 0, 0, "y", 1, &err), RD_INVALID);
    cr_assert(!rd_document_is_known(doc), "it is unknown, not wrong");
    cr_assert_eq(rd_documents_open(d, "big", "", 1, big, n + 1, &err), RD_INVALID);
    cr_assert(rd_documents_find(d, "big") && !rd_document_is_known(doc));
    for (size_t i = 0; i < RD_MOST_DOCUMENTS_BYTES / n; i++) {
        snprintf(uri, sizeof uri, "u%zu", i);
        cr_assert(!rd_documents_open(d, uri, "", 1, big, n, &err), "%s", err.text);
    }
    cr_assert_eq(rd_documents_open(d, "one more", "", 1, "x", 1, &err), RD_INVALID);
    cr_assert(strstr(err.text, "open documents of more than"), "%s", err.text);
    cr_assert(rd_documents_close(d, "u0"));
    cr_assert(!rd_documents_open(d, "one more", "", 1, "x", 1, &err), "room is given back");
    rd_documents_free(d);

    d = rd_documents_new();
    for (int i = 0; i < RD_MOST_DOCUMENTS; i++) {
        snprintf(uri, sizeof uri, "u%d", i);
        cr_assert(!rd_documents_open(d, uri, "", 1, "", 0, &err));
    }
    cr_assert_eq(rd_documents_open(d, "one more", "", 1, "", 0, &err), RD_INVALID);
    cr_assert_null(rd_documents_find(d, "one more"));
    memset(big, 'u', RD_MOST_URI_BYTES + 1);
    big[RD_MOST_URI_BYTES + 1] = 0;
    rd_documents_close(d, "u0");
    cr_assert_eq(rd_documents_open(d, big, "", 1, "", 0, &err), RD_INVALID);
    big[RD_MOST_URI_BYTES] = 0;
    cr_assert(!rd_documents_open(d, big, "", 1, "", 0, &err));
    rd_documents_free(d);
    free(big);
}

Test(document, knows_which_was_touched_last_and_where)
{
    rd_documents *d = rd_documents_new();
    rd_document *a = opened(d, "a", "one two"), *b = opened(d, "b", "three");

    cr_assert_gt(rd_document_touched(b), rd_document_touched(a));
    cr_assert_eq(rd_document_last_edit(a), 0);
    for (int i = 0; i < 2000; i++) cr_assert(!rd_document_edit(a, 4, 5, "xy", 2, NULL));
    cr_assert_gt(rd_document_touched(a), rd_document_touched(b));
    cr_assert_eq(rd_document_last_edit(a), 6);
    rd_document_forget(a);
    cr_assert_eq(rd_document_last_edit(a), 0);
    rd_documents_free(d);
}
