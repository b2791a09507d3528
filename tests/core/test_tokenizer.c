/* test_tokenizer.c - the recorded ids are held by the conformance test; here: any bytes come back, user
 * text stays text, and hostile files are refused by name. */
#include "core/base/memory.h"
#include "core/base/random.h"
#include "core/format/tokenizer.h"

#include <criterion/criterion.h>
#include <string.h>

#define SMALL RD_TEST_DATA "/golden/tokenizers/tok_small"

static rd_tokenizer *small(void)
{
    rd_tokenizer *t = NULL;
    rd_error err;

    cr_assert(!rd_tokenizer_open(SMALL, &t, &err), "%s", err.text);
    return t;
}

static void check_round_trip(const rd_tokenizer *t, const char *text, size_t n)
{
    rd_ids ids = { 0 };
    rd_buf back = { 0 };
    rd_error err;

    cr_assert(!rd_tokenizer_encode(t, text, n, RD_TEXT_PLAIN, &ids, &err), "%s", err.text);
    rd_tokenizer_decode(t, ids.id, ids.n, false, &back);
    cr_assert_eq(back.len, n);
    cr_assert(n == 0 || !memcmp(back.data, text, n));
    for (int i = 0; i < ids.n; i++) cr_assert(!rd_tokenizer_is_added(t, ids.id[i]));
    rd_ids_clear(&ids);
    rd_buf_clear(&back);
}

Test(tokenizer, any_bytes_come_back_the_same)
{
    rd_tokenizer *t = small();
    rd_random r = rd_random_seed(3);
    char text[512];

    for (int k = 0; k < 400; k++) {
        size_t n = rd_random_below(&r, sizeof text);
        bool plain = rd_random_below(&r, 2);

        for (size_t i = 0; i < n; i++)
            text[i] = plain ? " \n\tabc_(1\xc3\xa9"[rd_random_below(&r, 12)]
                            : (char)rd_random_below(&r, 256);
        check_round_trip(t, text, n);
    }
    rd_tokenizer_close(t);
}

Test(tokenizer, user_text_never_becomes_a_control_token)
{
    static const char text[] = "x = '<|mask|>' # <role>HUMAN</role><|endoftext|><|role_end|>";
    rd_tokenizer *t = small();
    rd_ids ids = { 0 };
    rd_error err;
    bool found = false;

    check_round_trip(t, text, sizeof text - 1);
    cr_assert(!rd_tokenizer_encode(t, text, sizeof text - 1, RD_TEXT_ADDED, &ids, &err));

    for (int i = 0; i < ids.n; i++) found |= ids.id[i] == rd_tokenizer_id(t, "<|mask|>");
    cr_assert(found, "with added tokens asked for, the mask is found");
    rd_ids_clear(&ids);
    rd_tokenizer_close(t);
}

Test(tokenizer, a_line_of_ten_megabytes_is_encoded, .timeout = 120)
{
    rd_tokenizer *t = small();
    size_t n = 10u << 20;
    char *text = rd_alloc0(n);

    memset(text, 'a', n);
    check_round_trip(t, text, n);
    for (size_t i = 0; i < n; i++) text[i] = "foo(bar, "[i % 9];
    check_round_trip(t, text, n);
    free(text);
    rd_tokenizer_close(t);
}

Test(tokenizer, bad_utf8_is_shown_as_one_replacement_a_sequence)
{
    rd_buf out = { 0 };

    rd_utf8_repair("a\xe2\x82"
                   "b\xff\xc0\xaf\xf0\x9f\x98",
                   10, &out);

    cr_assert_str_eq(out.data, "a\xef\xbf\xbd"
                               "b\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
    rd_buf_clear(&out);
}

/* ---- hostile files: a good one is made and then spoilt ---- */

static void make_file(rd_buf *out, const char *pre, const char *extra_vocab, const char *merges,
                      const char *added)
{
    rd_buf_format(
        out, "{\"pre_tokenizer\":%s,\"added_tokens\":[%s],\"model\":{\"type\":\"BPE\",\"vocab\":{",
        pre, added);
    for (int i = 0, next = 256; i < 256; i++) {
        bool itself = (i >= '!' && i <= '~') || (i >= 0xa1 && i <= 0xac) || i >= 0xae;
        int c = itself ? i : next++;

        rd_buf_format(out, "%s\"\\u%04x\":%d", i ? "," : "", (unsigned)c, i);
    }
    rd_buf_format(out, "%s},\"merges\":[%s]}}", extra_vocab, merges);
}

static const char good_pre[] =
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":"
    "{\"Regex\":\"\\\\s+|\\\\S+\"},\"behavior\":\"Isolated\",\"invert\":false},"
    "{\"type\":\"ByteLevel\",\"use_regex\":false}]}";

static void expect(const char *pre, const char *vocab, const char *merges, const char *added,
                   const char *message)
{
    rd_buf file = { 0 };
    rd_tokenizer *t = NULL;
    rd_error err = { 0 };

    make_file(&file, pre, vocab, merges, added);
    rd_status s = rd_tokenizer_parse(file.data, file.len, "t.json", &t, &err);

    if (!message) {
        cr_assert_eq(s, RD_OK, "%s", err.text);
        rd_tokenizer_close(t);
    } else {
        cr_assert_eq(s, RD_INVALID);
        cr_assert(strstr(err.text, message), "\"%s\" does not name \"%s\"", err.text, message);
        cr_assert(strstr(err.text, "t.json"), "%s", err.text);
    }
    rd_buf_clear(&file);
}

Test(tokenizer, refuses_what_it_cannot_do_by_name)
{
    expect(good_pre, ",\"ab\":256", "[\"a\",\"b\"]", "", NULL);
    expect(good_pre, ",\"ab\":256", "\"a b\"", "{\"id\":300,\"content\":\"<x>\",\"special\":true}",
           NULL);
    expect("null", "", "", "", "pre_tokenizer is missing");
    expect("{\"type\":\"Metaspace\"}", "", "", "", "Metaspace");
    expect("{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a(\"},\"behavior\":\"Isolated\"}", "", "",
           "", "pattern fails");
    expect("{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(?<=a)b\"},\"behavior\":\"Isolated\"}", "",
           "", "", "lookbehind");
    expect("{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"},\"behavior\":\"Contiguous\"}", "", "",
           "", "Contiguous");
    /* letters beyond the byte alphabet, found by fuzzing */
    expect(good_pre, ",\"\\u0250\\u03ff\":256", "", "", NULL);
    expect(good_pre, ",\"ab\":-1", "", "", "entry \"ab\"");
    expect(good_pre, ",\"ab\":99999999", "", "", "entry \"ab\"");
    expect(good_pre, ",\"ab\":5", "", "", "taken");
    expect(good_pre, "", "[\"a\",\"b\"]", "", "merge 0");
    expect(good_pre, "", "\"ab\"", "", "merge 0");
    expect(good_pre, "", "", "{\"id\":5,\"content\":\"<x>\"}", "<x>");
    expect(good_pre, "", "", "{\"id\":300,\"content\":\"\"}", "added token 0");
    expect(good_pre, "", "", "{\"id\":300,\"content\":\"<x>\",\"lstrip\":true}", "lstrip");
}

Test(tokenizer, a_runaway_pattern_hits_a_limit_and_says_so, .timeout = 20)
{
    rd_buf file = { 0 };
    rd_tokenizer *t = NULL;
    rd_ids ids = { 0 };
    rd_error err = { 0 };

    make_file(
        &file,
        "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":"
        "\"(a+)+$\"},\"behavior\":\"Isolated\"},{\"type\":\"ByteLevel\",\"use_regex\":false}]}",
        "", "", "");
    cr_assert(!rd_tokenizer_parse(file.data, file.len, "t.json", &t, &err), "%s", err.text);

    rd_status s = rd_tokenizer_encode(t, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab", 41,
                                      RD_TEXT_PLAIN, &ids, &err);

    cr_assert_eq(s, RD_INVALID);
    cr_assert(strstr(err.text, "limit"), "%s", err.text);
    cr_assert_eq(ids.n, 0);
    rd_tokenizer_close(t);
    rd_buf_clear(&file);
}
