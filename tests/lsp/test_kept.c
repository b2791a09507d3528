/* test_kept.c - a suggestion while it is typed, and when it no longer holds. */
#include "lsp/kept.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

/* A document with a suggestion for one place in it. */
typedef struct fixture {
    rd_documents *documents;
    rd_document *doc;
    rd_kept_ring kept;
    rd_buf rest;
    size_t end;
} fixture;

static fixture begin(const char *text, size_t at, const char *suggestion)
{
    fixture f = { .documents = rd_documents_new() };

    rd_documents_open(f.documents, "file:///a", "c", 1, text, strlen(text), NULL);
    f.doc = rd_documents_find(f.documents, "file:///a");
    rd_kept_add(&f.kept, 1, rd_document_revision(f.doc), strlen(text), at, suggestion,
                strlen(suggestion), 0.5f);
    return f;
}

static void edit(fixture *f, size_t start, size_t end, const char *text)
{
    cr_assert(!rd_document_edit(f->doc, start, end, text, strlen(text), NULL));
}

/* What is left at `at`; NULL where nothing holds. */
static const char *left(fixture *f, size_t at)
{
    rd_buf_reset(&f->rest);
    return rd_kept_find(&f->kept, f->doc, at, &f->rest, &f->end) ? f->rest.data : NULL;
}

static void end(fixture *f)
{
    rd_buf_clear(&f->rest);
    rd_kept_clear(&f->kept);
    rd_documents_free(f->documents);
}

static void holds(fixture *f, size_t at, const char *expected)
{
    const char *found = left(f, at);

    cr_assert(found, "nothing holds at %zu", at);
    cr_assert_str_eq(found, expected);
}

Test(kept, shortens_while_it_is_typed)
{
    fixture f = begin("x = ;\n", 4, "f(1)");

    holds(&f, 4, "f(1)");
    edit(&f, 4, 4, "f");
    holds(&f, 5, "(1)");
    cr_assert_eq(f.end, 5);
    edit(&f, 5, 5, "(1");
    holds(&f, 7, ")");
    edit(&f, 7, 7, ")");
    cr_assert_null(left(&f, 8), "all of it is typed: nothing is left");
    end(&f);
}

Test(kept, holds_at_the_ends_of_the_document)
{
    fixture f = begin("", 0, "int main");

    holds(&f, 0, "int main");
    edit(&f, 0, 0, "int");
    holds(&f, 3, " main");
    end(&f);
    f = begin("abc", 3, "def");
    edit(&f, 3, 3, "d");
    holds(&f, 4, "ef");
    end(&f);
    f = begin("abc", 0, "def");
    edit(&f, 0, 0, "d");
    holds(&f, 1, "ef");
    end(&f);
}

Test(kept, does_not_hold_when_something_else_is_typed)
{
    fixture f = begin("x = ;\n", 4, "f(1)");

    edit(&f, 4, 4, "g");
    cr_assert_null(left(&f, 5));
    end(&f);
}

Test(kept, comes_back_when_a_wrong_letter_is_taken_back)
{
    fixture f = begin("x = ;\n", 4, "f(1)");

    edit(&f, 4, 4, "f");
    edit(&f, 5, 5, "g");
    edit(&f, 5, 6, "");

    holds(&f, 5, "(1)");
    end(&f);
}

Test(kept, does_not_hold_at_another_place_or_after_another_edit)
{
    fixture f = begin("x = ;\ny = ;\n", 4, "f(1)");

    cr_assert_null(left(&f, 3));
    cr_assert_null(left(&f, 10));
    edit(&f, 10, 10, "2");
    cr_assert_null(left(&f, 4));
    end(&f);
    f = begin("x = ;\n", 4, "f(1)");
    edit(&f, 0, 0, "u");
    cr_assert_null(left(&f, 5));
    end(&f);
}

Test(kept, an_edit_that_says_a_word_again_is_typing)
{
    fixture f = begin("x = ret;\n", 7, "urn_value");

    edit(&f, 4, 7, "retur");

    holds(&f, 9, "n_value");
    end(&f);
}

Test(kept, a_bracket_closed_by_the_editor_is_part_of_it)
{
    fixture f = begin("x = f;\n", 5, "(a, b)");

    edit(&f, 5, 5, "()");

    holds(&f, 6, "a, b");
    cr_assert_eq(f.end, 6, "the bracket stays");
    end(&f);
    f = begin("x = f;\n", 5, "(a) + g(b) + c");
    edit(&f, 5, 5, "()");
    holds(&f, 6, "a) + g(b) + c");
    cr_assert_eq(f.end, 7, "the bracket is replaced");
    end(&f);
}

Test(kept, the_newest_that_holds_is_found)
{
    fixture f = begin("x = ;\n", 4, "f(1)");

    for (uint64_t i = 2; i < 20; i++)
        rd_kept_add(&f.kept, i, rd_document_revision(f.doc), 6, 4, i == 19 ? "no" : "f(2)",
                    i == 19 ? 2 : 4, 0.5f);
    edit(&f, 4, 4, "f");

    holds(&f, 5, "(2)");
    cr_assert_null(rd_kept_serial(&f.kept, 1), "the oldest fell out");
    cr_assert_not_null(rd_kept_serial(&f.kept, 19));
    end(&f);
}

Test(kept, an_opening_ends_it)
{
    fixture f = begin("x = ;\n", 4, "f(1)");

    rd_documents_open(f.documents, "file:///a", "c", 2, "x = ;\n", 6, NULL);

    cr_assert_null(left(&f, 4));
    end(&f);
}

Test(kept, knows_when_the_whole_was_accepted)
{
    fixture f = begin("x = ;\n", 4, "f(1)");
    const rd_kept *one = rd_kept_serial(&f.kept, 1);
    size_t at;

    cr_assert(!rd_kept_is_accepted(one, f.doc, &at));
    edit(&f, 4, 4, "f(1)");
    cr_assert(rd_kept_is_accepted(one, f.doc, &at));
    cr_assert_eq(at, 8);
    edit(&f, 0, 1, "y");
    cr_assert(!rd_kept_is_accepted(one, f.doc, &at));
    end(&f);
}
