/* test_repair.c - what clients send parses, means the same, and takes no more than it may. */
#include "core/base/random.h"
#include "lsp/limits.h"
#include "lsp/repair.h"
#include "lsp/text.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define FFFD "\xef\xbf\xbd"

static json_t *parse(const char *s, size_t n, rd_encoding e, rd_error *err)
{
    json_t *out = NULL;
    char *copy = malloc(n + 1); /* of its own size, so that a read past it is seen */
    rd_error ignored;

    memcpy(copy, s, n);
    rd_status status = rd_repair_parse(copy, n, e, &out, err ? err : &ignored);

    cr_assert_eq(status == RD_OK, out != NULL);
    free(copy);
    return out;
}

typedef struct repair_case {
    const char *in; /* a string's inside */
    size_t n;
    const char *utf16, *utf8; /* what it becomes where columns are counted so */
} repair_case;
#define S(s) s, sizeof s - 1

static const repair_case cases[] = {
    { S("plain"), "plain", "plain" },
    { S("\\ud83d\\ude00"), "\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80" },
    { S("a\\ud83db"), "a" FFFD "b", "a" FFFD "b" },
    { S("\\uDC00"), FFFD, FFFD },
    { S("\\ude00\\ud83d"), FFFD FFFD, FFFD FFFD },
    { S("\\ud83d\\ud83d\\ude00"), FFFD "\xf0\x9f\x98\x80", FFFD "\xf0\x9f\x98\x80" },
    { S("\\ud83d\\n"), FFFD "\n", FFFD "\n" },
    { S("\\ud83d\\u0041"), FFFD "A", FFFD "A" },
    { S("a\xff"
        "b"),
      "a" FFFD "b", "a?b" },
    { S("\xe4\xb8"), FFFD FFFD, "??" },
    { S("\xc0\x80"), FFFD FFFD, "??" },
    { S("\xf5\x80\x80\x80"), FFFD FFFD FFFD FFFD, "????" },
    { S("\xed\xa0\xbd"), FFFD, FFFD },
    { S("\xed\xa0\xbd\xed\xb8\x80"), FFFD FFFD, FFFD FFFD },
    { S("\xf0\x9f\x98\x80\xc3\xa9"), "\xf0\x9f\x98\x80\xc3\xa9", "\xf0\x9f\x98\x80\xc3\xa9" },
    { S("a\tb\x01"), "a\tb\x01", "a\tb\x01" },
    { S("\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9"), "\"\\/\b\f\n\r\t\xc3\xa9",
      "\"\\/\b\f\n\r\t\xc3\xa9" },
    { S("x\\\\"), "x\\", "x\\" },
};

/* The same string short and long, as text that goes round the JSON library and as one that does not. */
Test(repair, makes_of_each_bad_unit_one_good_one)
{
    static const char *const keys[] = { "text", "prefix", "suffix", "uri" };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (int k = 0; k < 16; k++) {
            rd_buf in = { 0 }, want = { 0 };
            rd_encoding e = k & 1 ? RD_UTF8 : RD_UTF16;
            int times = k & 2 ? 100 : 1;
            const char *one = e == RD_UTF8 ? cases[i].utf8 : cases[i].utf16;

            rd_buf_format(&in, "{\"a\":[\"x\",{\"%s\":\"", keys[k / 4]);
            for (int t = 0; t < times; t++) {
                rd_buf_append(&in, cases[i].in, cases[i].n);
                rd_buf_text(&in, "-");
                rd_buf_text(&want, one);
                rd_buf_text(&want, "-");
            }
            rd_buf_text(&in, "\",\"b\":\"y\"}]}");
            json_t *top = parse(in.data, in.len, e, NULL);

            cr_assert(top, "case %zu, %d", i, k);
            json_t *o = json_array_get(json_object_get(top, "a"), 1);

            cr_assert_str_eq(json_string_value(json_object_get(o, keys[k / 4])), want.data,
                             "case %zu, %d", i, k);
            cr_assert_str_eq(json_string_value(json_object_get(o, "b")), "y");
            json_decref(top);
            rd_buf_clear(&in);
            rd_buf_clear(&want);
        }
    }
}

Test(repair, keeps_nuls_of_both_spellings)
{
    static const char in[] = "{\"text\":\"a\\u0000b\0c\"}";
    json_t *top = parse(in, sizeof in - 1, RD_UTF16, NULL);
    const json_t *text = json_object_get(top, "text");

    cr_assert_eq(json_string_length(text), 5);
    cr_assert(!memcmp(json_string_value(text), "a\0b\0c", 5));
    json_decref(top);
}

/* A client counts one unit for what it sent: positions behind it are the client's. */
Test(repair, leaves_columns_behind_a_repaired_unit_where_they_were)
{
    static const struct {
        const char *in;
        rd_encoding e;
        uint32_t column; /* of the '!' for the client */
    } at[] = { { "\\ud83d!", RD_UTF16, 1 }, { "\xff!", RD_UTF16, 1 },
               { "\xff!", RD_UTF8, 1 },     { "\xff!", RD_UTF32, 1 },
               { "\xe4\xb8!", RD_UTF8, 2 }, { "\xed\xa0\xbd!", RD_UTF8, 3 },
               { "\\ud83d!", RD_UTF32, 1 }, { "\xe4\xb8!", RD_UTF16, 2 },
               { "\\u0000!", RD_UTF16, 1 } };

    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        rd_buf in = { 0 };

        rd_buf_format(&in, "[\"%s\"]", at[i].in);
        json_t *top = parse(in.data, in.len, at[i].e, NULL), *s = json_array_get(top, 0);
        rd_text *t = rd_text_new(json_string_value(s), json_string_length(s));
        rd_position p = rd_text_position(t, rd_text_bytes(t) - 1, at[i].e);

        cr_assert_eq(p.character, at[i].column, "case %zu: column %u", i, p.character);
        rd_text_free(t);
        json_decref(top);
        rd_buf_clear(&in);
    }
}

Test(repair, puts_every_long_text_back_in_its_place)
{
    rd_random r = rd_random_seed(5);
    rd_buf in = { 0 };
    size_t lengths[200];

    rd_buf_text(&in, "{\"list\":[");
    for (int k = 0; k < 200; k++) {
        lengths[k] = rd_random_below(&r, 200);
        rd_buf_format(&in, "%s{\"%s\":\"%d:", k ? "," : "", k % 3 ? "text" : "other", k);
        for (size_t i = 0; i < lengths[k]; i++) rd_buf_text(&in, "z");
        rd_buf_text(&in, k % 5 ? "\",\"more\":\"m\"}" : "\"}");
    }
    rd_buf_text(&in, "]}");
    json_t *top = parse(in.data, in.len, RD_UTF16, NULL);

    for (int k = 0; k < 200; k++) {
        json_t *o = json_array_get(json_object_get(top, "list"), (size_t)k);
        json_t *s = json_object_get(o, k % 3 ? "text" : "other");

        cr_assert_eq(atoi(json_string_value(s)), k);
        cr_assert_eq(strlen(strchr(json_string_value(s), ':')), lengths[k] + 1);
    }
    json_decref(top);
    rd_buf_clear(&in);
}

Test(repair, refuses_what_is_no_json_and_names_no_text_of_the_user)
{
    static const char *const bad[] = {
        "",
        " ",
        "{",
        "}",
        "[1,]",
        "{\"a\" 1}",
        "{\"a\":}",
        "{\"a\":1,\"a\":2}",
        "\"abc",
        "\"abc\\",
        "{\"secret\" : tru}",
        "[1 2]",
        "nul",
        "{\"text\":\"\\x\"}",
        "[\"\\u12\"]",
        "[\"\\u\"]",
        "{}{}",
        "[1e999]",
        "[99999999999999999999]",
        "\xef\xbb\xbf{}",
        "{\"text\":"
        "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\\xa"
        "aa\"}",
        "{\"text\":"
        "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\\u1"
        "2g4\"}",
        "{\"text\" "
        "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
        "a\"}",
    };

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        rd_error err = { 0 };

        cr_assert_null(parse(bad[i], strlen(bad[i]), RD_UTF16, &err), "\"%s\"", bad[i]);
        cr_assert(strstr(err.text, "not JSON"), "\"%s\": %s", bad[i], err.text);
        cr_assert(!strstr(err.text, "secret") && !strstr(err.text, "tru"), "%s", err.text);
    }
}

static json_t *nested(int depth, rd_error *err)
{
    rd_buf in = { 0 };

    for (int k = 0; k < depth; k++) rd_buf_text(&in, k % 2 ? "{\"a\":" : "[");
    rd_buf_text(&in, "1");
    for (int k = depth; k-- > 0;) rd_buf_text(&in, k % 2 ? "}" : "]");
    json_t *top = parse(in.data, in.len, RD_UTF16, err);

    rd_buf_clear(&in);
    return top;
}

static json_t *many(size_t values, const char *value, rd_error *err)
{
    rd_buf in = { 0 };

    rd_buf_text(&in, "[");
    for (size_t k = 0; k + 1 < values; k++) {
        if (k) rd_buf_text(&in, ",");
        rd_buf_text(&in, value);
    }
    rd_buf_text(&in, "]");
    json_t *top = parse(in.data, in.len, RD_UTF16, err);

    rd_buf_clear(&in);
    return top;
}

Test(repair, holds_its_limits_and_takes_what_is_just_below_them, .timeout = 60)
{
    rd_error err = { 0 };
    json_t *top = nested(RD_MOST_JSON_DEPTH, &err);

    cr_assert(top, "%s", err.text);
    json_decref(top);
    cr_assert_null(nested(RD_MOST_JSON_DEPTH + 1, &err));
    cr_assert(strstr(err.text, "deeper than 64"), "%s", err.text);
    cr_assert_null(nested(1 << 20, &err));

    cr_assert((top = many(RD_MOST_JSON_VALUES, "1", &err)), "%s", err.text);
    json_decref(top);
    cr_assert_null(many(RD_MOST_JSON_VALUES + 1, "1", &err));
    cr_assert(strstr(err.text, "more than 200000 JSON values"), "%s", err.text);
    cr_assert_null(many(5000000, "{}", &err));
    cr_assert_null(
        many(20000, "\"0123456789012345678901234567890123456789012345678901234567890\"", &err));
    cr_assert(strstr(err.text, "more than 1048576 bytes of JSON"), "%s", err.text);
    cr_assert_null(many(22000, "{\"text\":\"0123456789012345678901234567890123456789\"}", &err));
    cr_assert(strstr(err.text, "more than 1048576 bytes of JSON"), "%s", err.text);
}

Test(repair, takes_a_text_of_the_most_bytes_and_none_that_grows_past_it, .timeout = 60)
{
    rd_buf in = { 0 };
    rd_error err = { 0 };
    char *body = malloc(RD_MOST_TEXT_BYTES);

    memset(body, 'x', RD_MOST_TEXT_BYTES);
    rd_buf_text(&in, "{\"text\":\"");
    rd_buf_append(&in, body, RD_MOST_TEXT_BYTES);
    rd_buf_text(&in, "\"}");
    json_t *top = parse(in.data, in.len, RD_UTF16, &err);

    cr_assert(top, "%s", err.text);
    cr_assert_eq(json_string_length(json_object_get(top, "text")), RD_MOST_TEXT_BYTES);
    json_decref(top);
    memset(in.data + 9, 0xff, RD_MOST_TEXT_BYTES); /* three bytes for each */
    cr_assert_null(parse(in.data, in.len, RD_UTF16, &err));
    cr_assert(strstr(err.text, "bytes of text in a message"), "%s", err.text);
    free(body);
    rd_buf_clear(&in);
}

Test(repair, makes_a_json_string_of_any_bytes)
{
    json_t *s = rd_repair_string("a\xff\xed\xa0\x80", 5);

    cr_assert_str_eq(json_string_value(s), "a" FFFD FFFD);
    json_decref(s);
    s = rd_repair_string("", 0);
    cr_assert_str_eq(json_string_value(s), "");
    json_decref(s);
}
