/* test_sync.c - notifications of real clients and broken ones, in all three encodings. */
#include "core/base/random.h"
#include "lsp/limits.h"
#include "lsp/sync.h"
#include "tests/lsp/reference.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static json_t *json(const char *text)
{
    json_t *v = json_loads(text, JSON_ALLOW_NUL, NULL);

    cr_assert(v, "%s", text);
    return v;
}

static rd_sync open_json(rd_documents *d, const char *params, rd_error *err)
{
    json_t *v = json(params);
    rd_sync s = rd_sync_open(d, v, err);

    json_decref(v);
    return s;
}

static rd_sync change_json(rd_documents *d, const char *params, rd_encoding e, rd_error *err)
{
    json_t *v = json(params);
    rd_sync s = rd_sync_change(d, v, e, err);

    json_decref(v);
    return s;
}

static void holds(rd_documents *d, const char *want)
{
    rd_buf text = { 0 };
    const rd_document *doc = rd_documents_find(d, "u");

    cr_assert(doc && rd_document_is_known(doc));
    rd_buf_text(&text, "");
    rd_text_copy(rd_document_text(doc), 0, SIZE_MAX, &text);
    cr_assert_str_eq(text.data, want);
    rd_buf_clear(&text);
}

#define OPEN(text) \
    "{\"textDocument\":{\"uri\":\"u\",\"languageId\":\"c\",\"version\":3,\"text\":\"" text "\"}}"
#define CHANGE(v, list) \
    "{\"textDocument\":{\"uri\":\"u\",\"version\":" v "},\"contentChanges\":[" list "]}"
#define AT(l, c, m, d, text)                                                          \
    "{\"range\":{\"start\":{\"line\":" l ",\"character\":" c "},\"end\":{\"line\":" m \
    ",\"character\":" d "}},\"text\":\"" text "\"}"

typedef struct edit_case {
    const char *open, *change, *utf16, *utf8, *utf32;
} edit_case;

static const edit_case edits[] = {
    { OPEN("abc"), CHANGE("4", AT("0", "1", "0", "2", "X")), "aXc", "aXc", "aXc" },
    { OPEN("abc"), CHANGE("4", AT("0", "2", "0", "1", "X")), "aXc", "aXc", "aXc" }, /* turned */
    { OPEN("abc"), CHANGE("4", AT("9", "9", "9", "9", "X")), "abcX", "abcX", "abcX" },
    { OPEN("a\\nb"), CHANGE("4", AT("0", "1e300", "1", "0", "")), "ab", "ab", "ab" },
    { OPEN("a\\r\\nb"), CHANGE("4", AT("0", "5", "0", "5", "X")), "aX\r\nb", "aX\r\nb", "aX\r\nb" },
    { OPEN("ab"), CHANGE("4", AT("0", "0", "0", "1", "x") "," AT("0", "1", "0", "2", "y")), "xy",
      "xy", "xy" },
    { OPEN("a"), CHANGE("4", "{\"text\":\"whole\"}," AT("0", "5", "0", "5", "!")), "whole!",
      "whole!", "whole!" },
    { OPEN("a"), CHANGE("4", "{\"range\":null,\"text\":\"\"}"), "", "", "" },
    { OPEN("a"), CHANGE("4", ""), "a", "a", "a" },
    { OPEN("a"), CHANGE("null", AT("0.0", "1.0", "0", "1", "b")), "ab", "ab", "ab" },
    { OPEN("\\ud83d\\ude00x"), CHANGE("4", AT("0", "2", "0", "3", "y")), "\xf0\x9f\x98\x80y",
      "y\xf0\x9f\x98\x80x", "\xf0\x9f\x98\x80xy" },
    /* Half a pair: both ends of the edit go down to the pair's beginning. */
    { OPEN("\\ud83d\\ude00x"), CHANGE("4", AT("0", "1", "0", "1", "y")), "y\xf0\x9f\x98\x80x",
      "y\xf0\x9f\x98\x80x", "\xf0\x9f\x98\x80yx" },
    { OPEN("\\ufeffab"), CHANGE("4", AT("0", "1", "0", "2", "X")), "\xef\xbb\xbfXb",
      "X\xef\xbb\xbf"
      "ab",
      "\xef\xbb\xbfXb" },
    { OPEN("a\\rb"), CHANGE("4", AT("1", "0", "1", "1", "\\n")), "a\r\n", "a\r\n", "a\r\n" },
};

Test(sync, applies_changes_in_their_order_in_each_encoding)
{
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        const char *want[] = { edits[i].utf16, edits[i].utf8, edits[i].utf32 };

        for (int e = RD_UTF16; e <= RD_UTF32; e++) {
            rd_documents *d = rd_documents_new();
            rd_error err = { 0 };

            cr_assert_eq(open_json(d, edits[i].open, &err), RD_SYNC_DONE, "%s", err.text);
            cr_assert_eq(change_json(d, edits[i].change, (rd_encoding)e, &err), RD_SYNC_DONE,
                         "case %zu: %s", i, err.text);
            holds(d, want[e]);
            rd_documents_free(d);
        }
    }
}

Test(sync, accepts_a_version_that_does_not_grow_and_says_so)
{
    rd_documents *d = rd_documents_new();
    rd_error err;

    open_json(d, OPEN("a"), &err);
    cr_assert_eq(change_json(d, CHANGE("9", AT("0", "0", "0", "0", "1")), RD_UTF16, &err),
                 RD_SYNC_DONE);
    cr_assert_eq(change_json(d, CHANGE("9", AT("0", "0", "0", "0", "2")), RD_UTF16, &err),
                 RD_SYNC_VERSION_BACK);
    cr_assert_eq(change_json(d, CHANGE("0", AT("0", "0", "0", "0", "3")), RD_UTF16, &err),
                 RD_SYNC_VERSION_BACK);
    holds(d, "321a");
    cr_assert_eq(rd_document_version(rd_documents_find(d, "u")), 0);
    cr_assert_eq(change_json(d, CHANGE("\"x\"", AT("0", "0", "0", "0", "4")), RD_UTF16, &err),
                 RD_SYNC_DONE);
    cr_assert_eq(rd_document_version(rd_documents_find(d, "u")), 0, "missing: it stays");
    rd_documents_free(d);
}

Test(sync, drops_changes_of_documents_that_are_not_open_or_unknown)
{
    rd_documents *d = rd_documents_new();
    rd_error err;
    json_t *v = json("{\"textDocument\":{\"uri\":\"u\"}}");

    cr_assert_eq(change_json(d, CHANGE("4", ""), RD_UTF16, &err), RD_SYNC_NOT_OPEN);
    cr_assert_eq(rd_sync_close(d, v, &err), RD_SYNC_NOT_OPEN);
    open_json(d, OPEN("a"), &err);
    rd_documents_forget(d);
    cr_assert_eq(change_json(d, CHANGE("4", "{\"text\":\"b\"}"), RD_UTF16, &err), RD_SYNC_UNKNOWN);
    open_json(d, OPEN("c"), &err);
    holds(d, "c");
    cr_assert_eq(rd_sync_close(d, v, &err), RD_SYNC_DONE);
    cr_assert_eq(rd_sync_close(d, NULL, &err), RD_SYNC_NOT_OPEN);
    json_decref(v);
    rd_documents_free(d);
}

static const struct {
    const char *change, *why;
    bool all; /* the other document is unknown too */
} bad[] = {
    { CHANGE("4", AT("-1", "0", "0", "0", "")), "contentChanges[].range.start.line is not", false },
    { CHANGE("4", AT("0", "0", "0", "\"1\"", "")), "contentChanges[].range.end.character is not",
      false },
    { CHANGE("4", "{\"range\":{\"start\":{\"line\":0,\"character\":0}},\"text\":\"\"}"),
      "range.end.line", false },
    { CHANGE("4", "{\"range\":7,\"text\":\"\"}"), "range.start.line", false },
    { CHANGE("4", "{\"range\":[],\"text\":\"\"}"), "range.start.line", false },
    { CHANGE("4", "{\"text\":7}"), "contentChanges[].text is not a string", false },
    { CHANGE("4", "7"), "contentChanges[].text is not a string", false },
    { CHANGE("4", "{\"text\":\"fine\"},null"), "contentChanges[].text is not a string", false },
    { "{\"textDocument\":{\"uri\":\"u\"}}", "contentChanges is not a list", false },
    { "{\"textDocument\":{\"uri\":\"u\"},\"contentChanges\":{}}", "contentChanges is not a list",
      false },
    { "{\"contentChanges\":[]}", "textDocument.uri is not a string", true },
    { "{\"textDocument\":{\"uri\":7},\"contentChanges\":[]}", "textDocument.uri is not a string",
      true },
    { "{\"textDocument\":{\"uri\":\"a\\u0000\"},\"contentChanges\":[]}",
      "textDocument.uri is not a string", true },
    { "{\"textDocument\":\"u\",\"contentChanges\":[]}", "textDocument.uri is not a string", true },
};

Test(sync, makes_unknown_what_a_change_that_cannot_be_read_may_have_changed)
{
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        rd_documents *d = rd_documents_new();
        rd_error err = { 0 };

        open_json(d, OPEN("a"), &err);
        rd_documents_open(d, "other", "", 1, "x", 1, &err);
        cr_assert_eq(change_json(d, bad[i].change, RD_UTF16, &err), RD_SYNC_LOST, "%s",
                     bad[i].change);
        cr_assert(strstr(err.text, bad[i].why), "%s: %s", bad[i].change, err.text);
        cr_assert(!rd_document_is_known(rd_documents_find(d, "u")));
        cr_assert_eq(rd_document_is_known(rd_documents_find(d, "other")), !bad[i].all, "%s",
                     bad[i].change);
        rd_documents_free(d);
    }
}

Test(sync, makes_a_document_unknown_that_was_opened_without_its_text)
{
    rd_documents *d = rd_documents_new();
    rd_error err;

    open_json(d, OPEN("a"), &err);
    cr_assert_eq(open_json(d, "{\"textDocument\":{\"uri\":\"u\",\"text\":null}}", &err),
                 RD_SYNC_LOST);
    cr_assert(!rd_document_is_known(rd_documents_find(d, "u")));
    cr_assert_eq(rd_sync_open(d, NULL, &err), RD_SYNC_LOST);
    cr_assert_eq(open_json(d, "{\"textDocument\":{\"uri\":\"u\",\"text\":\"b\"}}", &err),
                 RD_SYNC_DONE);
    holds(d, "b");
    rd_documents_free(d);
}

/* A client that edits at random, as JSON, against the plain reference. */
Test(sync, equals_the_plain_reference_for_random_changes_in_each_encoding, .timeout = 120)
{
    static const char *const parts[] = { "a",  "bc",       "\n",           "\r\n",
                                         "\r", "\xc3\xa9", "\xe4\xb8\xad", "\xf0\x9f\x98\x80",
                                         "" };

    for (uint64_t seed = 0; seed < 90; seed++) {
        rd_random random = rd_random_seed(seed);
        rd_encoding e = (rd_encoding)(seed % 3);
        rd_documents *d = rd_documents_new();
        reference r = { 0 };
        rd_error err;

        open_json(d, OPEN(""), &err);
        rd_buf_text(&r.text, "");
        for (int step = 0; step < 100; step++) {
            json_t *list = json_array();

            for (uint32_t k = rd_random_below(&random, 4); k > 0; k--) {
                rd_position a = { rd_random_below(&random, 8), rd_random_below(&random, 12) };
                rd_position b = { a.line + rd_random_below(&random, 2),
                                  a.character + rd_random_below(&random, 4) };
                rd_buf text = { 0 };

                rd_buf_text(&text, "");
                for (uint32_t p = rd_random_below(&random, 6); p > 0; p--)
                    rd_buf_text(&text,
                                parts[rd_random_below(&random, sizeof parts / sizeof *parts)]);
                bool whole = rd_random_below(&random, 30) == 0;

                json_array_append_new(list, whole ? json_pack("{s:s}", "text", text.data)
                                                  : json_pack("{s:{s:{s:i,s:i},s:{s:i,s:i}},s:s}",
                                                              "range", "start", "line", (int)a.line,
                                                              "character", (int)a.character, "end",
                                                              "line", (int)b.line, "character",
                                                              (int)b.character, "text", text.data));
                size_t start = whole ? 0 : ref_offset(&r, a, e),
                       end = whole ? r.text.len : ref_offset(&r, b, e);

                ref_replace(&r, start, end, text.data, text.len);
                rd_buf_clear(&text);
            }
            json_t *params = json_pack("{s:{s:s,s:i},s:o}", "textDocument", "uri", "u", "version",
                                       step + 10, "contentChanges", list);

            cr_assert_eq(rd_sync_change(d, params, e, &err), RD_SYNC_DONE);
            json_decref(params);
            holds(d, r.text.data);
        }
        rd_buf_clear(&r.text);
        rd_documents_free(d);
    }
}
