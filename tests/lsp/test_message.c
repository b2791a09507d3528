/* test_message.c - the shape of messages, and what is answered to those that have none. */
#include "lsp/message.h"

#include <criterion/criterion.h>
#include <string.h>

#define V "\"jsonrpc\":\"2.0\","

static const struct {
    const char *in;
    rd_message_kind kind;
    rd_id_kind id;
} good[] = {
    { "{" V "\"id\":1,\"method\":\"m\"}", RD_MESSAGE_REQUEST, RD_ID_NUMBER },
    { "{" V "\"id\":1.0,\"method\":\"m\"}", RD_MESSAGE_REQUEST, RD_ID_NUMBER },
    { "{" V "\"id\":\"a\",\"method\":\"m\",\"params\":[]}", RD_MESSAGE_REQUEST, RD_ID_TEXT },
    { "{" V "\"method\":\"m\",\"params\":null}", RD_MESSAGE_NOTIFICATION, RD_ID_NULL },
    { "{" V "\"method\":\"m\",\"params\":{}}", RD_MESSAGE_NOTIFICATION, RD_ID_NULL },
    { "{" V "\"id\":1,\"result\":null}", RD_MESSAGE_RESPONSE, RD_ID_NUMBER },
    { "{" V "\"id\":null,\"error\":{}}", RD_MESSAGE_RESPONSE, RD_ID_NULL },
    { "{" V "\"id\":1}", RD_MESSAGE_NOTHING, RD_ID_NUMBER },
    { "{" V "\"x\":1}", RD_MESSAGE_NOTHING, RD_ID_NULL },
};

Test(message, tells_the_four_kinds_apart)
{
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        rd_message m;
        rd_refusal r;

        cr_assert(!rd_message_read(good[i].in, strlen(good[i].in), RD_UTF16, &m, &r), "%s: %s",
                  good[i].in, r.why.text);
        cr_assert_eq(m.kind, good[i].kind, "%s", good[i].in);
        cr_assert_eq(m.id.kind, good[i].id, "%s", good[i].in);
        cr_assert_null(m.params, "absent, null, {} and [] are all NULL");
        rd_message_clear(&m);
    }
}

static const struct {
    const char *in;
    int code;
    const char *id; /* what is echoed */
    bool lost;
} bad[] = {
    { "{", RD_PARSE_ERROR, "null", true },
    { "[{" V "\"id\":1,\"method\":\"m\"}]", RD_INVALID_REQUEST, "null", true },
    { "7", RD_INVALID_REQUEST, "null", true },
    { "\"x\"", RD_INVALID_REQUEST, "null", true },
    { "null", RD_INVALID_REQUEST, "null", true },
    { "{\"id\":5,\"method\":\"m\"}", RD_INVALID_REQUEST, "5", false },
    { "{\"method\":\"m\"}", RD_INVALID_REQUEST, "null", true },
    { "{\"jsonrpc\":\"1.0\",\"id\":\"x\",\"method\":\"m\"}", RD_INVALID_REQUEST, "\"x\"", false },
    { "{\"jsonrpc\":2,\"id\":1,\"method\":\"m\"}", RD_INVALID_REQUEST, "1", false },
    { "{" V "\"id\":1,\"method\":7}", RD_INVALID_REQUEST, "1", false },
    { "{" V "\"id\":1,\"method\":\"a\\u0000b\"}", RD_INVALID_REQUEST, "1", false },
    { "{" V "\"id\":null,\"method\":\"m\"}", RD_INVALID_REQUEST, "null", false },
    { "{" V "\"id\":1.5,\"method\":\"m\"}", RD_INVALID_REQUEST, "null", false },
    { "{" V "\"id\":1e300,\"method\":\"m\"}", RD_INVALID_REQUEST, "null", false },
    { "{" V "\"id\":true,\"method\":\"m\"}", RD_INVALID_REQUEST, "null", false },
    { "{" V "\"id\":{},\"method\":\"m\"}", RD_INVALID_REQUEST, "null", false },
    { "{" V "\"id\":1,\"method\":\"m\",\"params\":7}", RD_INVALID_PARAMS, "1", false },
    { "{" V "\"id\":1,\"method\":\"m\",\"params\":[1]}", RD_INVALID_PARAMS, "1", false },
    { "{" V "\"method\":\"m\",\"params\":\"x\"}", RD_INVALID_PARAMS, "null", true },
};

Test(message, refuses_each_wrong_shape_with_its_code_and_says_whether_a_change_may_be_lost)
{
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        rd_message m;
        rd_refusal r;
        rd_buf out = { 0 }, want = { 0 };

        cr_assert_eq(rd_message_read(bad[i].in, strlen(bad[i].in), RD_UTF16, &m, &r), RD_INVALID,
                     "%s", bad[i].in);
        cr_assert_eq(r.code, bad[i].code, "%s: %d", bad[i].in, r.code);
        cr_assert_eq(r.lost, bad[i].lost, "%s", bad[i].in);
        rd_message_error(&out, &r.id, r.code, "x", NULL);
        rd_buf_format(&want,
                      "{\"id\":%s,\"error\":{\"code\":%d,\"message\":\"x\"},\"jsonrpc\":\"2.0\"}",
                      bad[i].id, bad[i].code);
        json_t *a = json_loads(out.data, 0, NULL), *b = json_loads(want.data, 0, NULL);

        cr_assert(a && json_equal(a, b), "%s\n%s", out.data, want.data);
        json_decref(a);
        json_decref(b);
        rd_buf_clear(&out);
        rd_buf_clear(&want);
    }
}

Test(message, echoes_an_id_with_its_type_up_to_the_most_bytes)
{
    rd_id id, other;
    json_t *text = json_string("1"), *number = json_integer(1), *back;
    char most[RD_MOST_ID_BYTES + 1];

    cr_assert(rd_id_read(text, &id) && rd_id_read(number, &other));
    cr_assert(!rd_id_equal(&id, &other), "\"1\" is not 1");
    back = rd_id_write(&id);
    cr_assert(json_equal(back, text));
    json_decref(back);
    json_decref(text);
    json_decref(number);

    memset(most, 'i', sizeof most);
    text = json_stringn(most, RD_MOST_ID_BYTES);
    cr_assert(rd_id_read(text, &id));
    back = rd_id_write(&id);
    cr_assert(json_equal(back, text));
    json_decref(back);
    json_decref(text);
    text = json_stringn(most, sizeof most);
    cr_assert(!rd_id_read(text, &id));
    json_decref(text);
}

Test(message, writes_sentences_of_any_bytes_as_valid_json)
{
    static const rd_id none = { .kind = RD_ID_NULL };
    rd_buf out = { 0 };

    rd_message_error(&out, &none, 1, "bad \xff byte", json_pack("{s:i}", "a", 1));
    json_t *m = json_loads(out.data, 0, NULL);

    cr_assert(m, "%s", out.data);
    cr_assert_null(strchr(out.data, '\n'));
    json_decref(m);
    rd_buf_reset(&out);
    rd_message_notification(&out, "a/b", NULL);
    cr_assert_str_eq(out.data, "{\"method\":\"a/b\",\"jsonrpc\":\"2.0\"}");
    rd_buf_clear(&out);
}
