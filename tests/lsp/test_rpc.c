/* test_rpc.c - the lifecycle, cancelling, and one answer for each request. */
#include "core/base/memory.h"
#include "core/base/random.h"
#include "lsp/rpc.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define V "\"jsonrpc\":\"2.0\","

/* A peer with a few methods: `now` answers at once, `later` keeps its ticket, `bad` and `broken` fail. */
struct rd_conn {
    rd_rpc *rpc;
    rd_buf out;
    uint64_t kept[2000], cancelled[2000];
    int kept_count, cancelled_count, notes, lost, replies;
    int64_t asked;
    bool reply_failed;
};

static rd_status now(rd_conn *c, const rd_message *m, rd_error *err)
{
    (void)err;
    rd_rpc_answer(c->rpc, m->ticket, json_pack("{s:s}", "did", m->method));
    return RD_OK;
}

static rd_status later(rd_conn *c, const rd_message *m, rd_error *err)
{
    (void)err;
    c->kept[c->kept_count++] = m->ticket;
    return RD_OK;
}

static rd_status bad(rd_conn *c, const rd_message *m, rd_error *err)
{
    (void)c;
    return rd_fail(err, RD_INVALID, "x is missing%s", m->params ? "" : ", as is all else");
}

static rd_status broken(rd_conn *c, const rd_message *m, rd_error *err)
{
    (void)c;
    (void)m;
    return rd_fail(err, RD_DEVICE, "the device is gone");
}

static rd_status bad_note(rd_conn *c, const rd_message *m, rd_error *err)
{
    (void)m;
    c->notes++;
    return rd_fail(err, RD_INVALID, "not that");
}

static rd_status note(rd_conn *c, const rd_message *m, rd_error *err)
{
    (void)m;
    (void)err;
    c->notes++;
    return RD_OK;
}

static void on_cancelled(rd_conn *c, uint64_t ticket)
{
    c->cancelled[c->cancelled_count++] = ticket;
    cr_assert(!rd_rpc_answer(c->rpc, ticket, json_true()), "it has been answered already");
}

static void on_lost(rd_conn *c, const char *why)
{
    cr_assert(*why);
    c->lost++;
}

static void on_reply(rd_conn *c, int64_t ask, const json_t *result, const json_t *error)
{
    c->replies++;
    c->asked = ask;
    c->reply_failed = error != NULL;
    cr_assert(!error || !result);
}

static const rd_method methods[] = {
    { "initialize", RD_MESSAGE_REQUEST, now },
    { "now", RD_MESSAGE_REQUEST, now },
    { "later", RD_MESSAGE_REQUEST, later },
    { "bad", RD_MESSAGE_REQUEST, bad },
    { "broken", RD_MESSAGE_REQUEST, broken },
    { "note", RD_MESSAGE_NOTIFICATION, note },
    { "bad_note", RD_MESSAGE_NOTIFICATION, bad_note },
};
static const rd_method slow_start[] = { { "initialize", RD_MESSAGE_REQUEST, later },
                                        { "now", RD_MESSAGE_REQUEST, now } };
static const rd_rpc_hooks hooks = { on_cancelled, on_lost, on_reply };

static rd_conn *connect_with(rd_protocol p, const rd_method *table, size_t n)
{
    rd_conn *c = rd_alloc0(sizeof *c);

    c->rpc = rd_rpc_new(p, table, n, &hooks, c, RD_FRAMING_LINE, &c->out);
    return c;
}

static void hang_up(rd_conn *c)
{
    rd_rpc_free(c->rpc);
    rd_buf_clear(&c->out);
    free(c);
}

static void send_raw(rd_conn *c, const char *frame)
{
    rd_buf_reset(&c->out);
    rd_buf_text(&c->out, "");
    rd_rpc_frame(c->rpc, frame, strlen(frame));
}

/* Nothing was sent. */
static void silent(rd_conn *c, const char *frame)
{
    send_raw(c, frame);
    cr_assert_str_eq(c->out.data, "", "%s: %s", frame, c->out.data);
}

/* One line was sent: with this id, and this code (0: a result). */
static void answers_line(rd_conn *c, const char *id, int code)
{
    char *end = strchr(c->out.data, '\n');

    cr_assert(end && end[1] == 0, "one line: \"%s\"", c->out.data);
    json_t *m = json_loads(c->out.data, 0, NULL), *want = json_loads(id, JSON_DECODE_ANY, NULL);

    cr_assert(json_equal(json_object_get(m, "id"), want), "%s", c->out.data);
    json_t *error = json_object_get(m, "error");

    cr_assert_eq(json_integer_value(json_object_get(error, "code")), code, "%s", c->out.data);
    cr_assert_eq(json_object_get(m, "result") != NULL, code == 0);
    json_decref(m);
    json_decref(want);
}

static void answers(rd_conn *c, const char *frame, const char *id, int code)
{
    send_raw(c, frame);
    answers_line(c, id, code);
}

static rd_conn *running(void)
{
    rd_conn *c = connect_with(RD_LSP, methods, sizeof methods / sizeof *methods);

    answers(c, "{" V "\"id\":0,\"method\":\"initialize\",\"params\":{\"a\":1}}", "0", 0);
    silent(c, "{" V "\"method\":\"initialized\",\"params\":[]}");
    return c;
}

Test(rpc, answers_nothing_but_an_error_before_initialize)
{
    rd_conn *c = connect_with(RD_LSP, methods, sizeof methods / sizeof *methods);

    answers(c, "{" V "\"id\":1,\"method\":\"now\"}", "1", RD_SERVER_NOT_INITIALIZED);
    answers(c, "{" V "\"id\":\"s\",\"method\":\"shutdown\"}", "\"s\"", RD_SERVER_NOT_INITIALIZED);
    answers(c, "{" V "\"id\":2,\"method\":\"nothing\"}", "2", RD_SERVER_NOT_INITIALIZED);
    silent(c, "{" V "\"method\":\"note\"}");
    cr_assert_eq(c->notes, 0);
    cr_assert(!rd_rpc_notify(c->rpc, "$/redraft/status", json_object()));
    cr_assert(rd_rpc_notify(c->rpc, "window/logMessage", json_object()));
    cr_assert_eq(rd_rpc_ask(c->rpc, "workspace/configuration", NULL), 0);
    answers(c, "{" V "\"id\":3,\"method\":\"initialize\"}", "3", 0);
    answers(c, "{" V "\"id\":4,\"method\":\"initialize\"}", "4", RD_INVALID_REQUEST);
    answers(c, "{" V "\"id\":1,\"method\":\"now\"}", "1", 0);
    hang_up(c);
}

Test(rpc, is_not_running_until_initialize_is_answered)
{
    rd_conn *c = connect_with(RD_LSP, slow_start, 2);

    silent(c, "{" V "\"id\":1,\"method\":\"initialize\"}");
    answers(c, "{" V "\"id\":2,\"method\":\"now\"}", "2", RD_SERVER_NOT_INITIALIZED);
    answers(c, "{" V "\"id\":3,\"method\":\"initialize\"}", "3", RD_INVALID_REQUEST);
    silent(c, "{" V "\"method\":\"$/cancelRequest\",\"params\":{\"id\":1}}");
    rd_buf_reset(&c->out);
    cr_assert(rd_rpc_fail(c->rpc, c->kept[0], RD_REQUEST_FAILED, "not now", NULL));
    answers_line(c, "1", RD_REQUEST_FAILED);
    silent(c, "{" V "\"id\":4,\"method\":\"initialize\"}");
    rd_buf_reset(&c->out);
    cr_assert(rd_rpc_answer(c->rpc, c->kept[1], NULL));
    answers_line(c, "4", 0);
    answers(c, "{" V "\"id\":2,\"method\":\"now\"}", "2", 0);
    hang_up(c);
}

Test(rpc, answers_unknown_methods_and_failed_handlers_with_their_codes)
{
    rd_conn *c = running();

    answers(c, "{" V "\"id\":1,\"method\":\"none\"}", "1", RD_METHOD_NOT_FOUND);
    answers(c, "{" V "\"id\":2,\"method\":\"$/none\"}", "2", RD_METHOD_NOT_FOUND);
    silent(c, "{" V "\"method\":\"$/none\"}");
    silent(c, "{" V "\"method\":\"none\"}");
    answers(c, "{" V "\"id\":3,\"method\":\"bad\"}", "3", RD_INVALID_PARAMS);
    cr_assert(strstr(c->out.data, "x is missing, as is all else"));
    answers(c, "{" V "\"id\":4,\"method\":\"broken\"}", "4", RD_REQUEST_FAILED);
    cr_assert_eq(c->lost, 0);
    answers(c, "{" V "\"id\":5,\"method\":\"note\"}", "5", RD_INVALID_REQUEST);
    cr_assert_eq(c->notes, 0);
    cr_assert_eq(c->lost, 1, "a change that came as a request is lost");
    silent(c, "{" V "\"method\":\"note\"}");
    cr_assert_eq(c->notes, 1);
    silent(c, "{" V "\"method\":\"now\"}"); /* a request without an id */
    silent(c, "{" V "\"id\":77,\"result\":1}");
    silent(c, "{" V "\"x\":1}");
    cr_assert_eq(c->replies, 0);
    hang_up(c);
}

Test(rpc, goes_on_after_a_frame_that_does_not_parse)
{
    rd_conn *c = running();

    answers(c, "{\"jsonrpc\":", "null", RD_PARSE_ERROR);
    answers(c, "[]", "null", RD_INVALID_REQUEST);
    cr_assert_eq(c->lost, 2);
    rd_buf_reset(&c->out);
    rd_rpc_lost_frame(c->rpc, "too long");
    answers_line(c, "null", RD_PARSE_ERROR);
    cr_assert_eq(c->lost, 3);
    answers(c, "{" V "\"id\":1,\"method\":\"now\"}", "1", 0);
    hang_up(c);
}

Test(rpc, answers_a_cancelled_request_once_and_drops_the_late_answer)
{
    rd_conn *c = running();

    silent(c, "{" V "\"id\":7,\"method\":\"later\"}");
    silent(c, "{" V "\"id\":\"7\",\"method\":\"later\"}");
    answers(c, "{" V "\"method\":\"$/cancelRequest\",\"params\":{\"id\":\"7\"}}", "\"7\"",
            RD_REQUEST_CANCELLED);
    cr_assert_eq(c->cancelled_count, 1);
    cr_assert_eq(c->cancelled[0], c->kept[1]);
    silent(c, "{" V "\"method\":\"$/cancelRequest\",\"params\":{\"id\":\"7\"}}");
    silent(c, "{" V "\"method\":\"$/cancelRequest\",\"params\":{\"id\":99}}");
    silent(c, "{" V "\"method\":\"$/cancelRequest\",\"params\":{\"id\":null}}");
    silent(c, "{" V "\"method\":\"$/cancelRequest\",\"params\":{\"id\":{}}}");
    silent(c, "{" V "\"method\":\"$/cancelRequest\"}");

    /* The same id again: the answer of the first may not reach the second. */
    silent(c, "{" V "\"id\":\"7\",\"method\":\"later\"}");
    rd_buf_reset(&c->out);
    cr_assert(!rd_rpc_answer(c->rpc, c->kept[1], json_true()));
    cr_assert_eq(c->out.len, 0);
    cr_assert(rd_rpc_answer(c->rpc, c->kept[2], json_true()));
    answers_line(c, "\"7\"", 0);
    cr_assert_eq(rd_rpc_open_requests(c->rpc), 1);
    hang_up(c);
}

Test(rpc, refuses_an_id_that_is_open_without_answering_for_it)
{
    rd_conn *c = running();

    silent(c, "{" V "\"id\":1,\"method\":\"later\"}");
    answers(c, "{" V "\"id\":1,\"method\":\"now\"}", "null", RD_INVALID_REQUEST);
    answers(c, "{\"id\":1,\"method\":\"now\"}", "null", RD_INVALID_REQUEST);
    rd_buf_reset(&c->out);
    cr_assert(rd_rpc_answer(c->rpc, c->kept[0], NULL));
    answers_line(c, "1", 0);
    hang_up(c);
}

Test(rpc, cancels_all_work_at_shutdown_and_leaves_with_0)
{
    rd_conn *c = running();
    int code = 9, lines = 0;

    silent(c, "{" V "\"id\":1,\"method\":\"later\"}");
    silent(c, "{" V "\"id\":2,\"method\":\"later\"}");
    send_raw(c, "{" V "\"id\":3,\"method\":\"shutdown\"}");
    for (char *s = c->out.data; (s = strchr(s, '\n')); s++) lines++;
    cr_assert_eq(lines, 3);
    cr_assert_eq(c->cancelled_count, 2);
    answers(c, "{" V "\"id\":4,\"method\":\"now\"}", "4", RD_INVALID_REQUEST);
    answers(c, "{" V "\"id\":5,\"method\":\"initialize\"}", "5", RD_INVALID_REQUEST);
    answers(c, "{" V "\"id\":6,\"method\":\"shutdown\"}", "6", RD_INVALID_REQUEST);
    silent(c, "{" V "\"method\":\"note\"}");
    cr_assert_eq(c->notes, 0);
    cr_assert(!rd_rpc_is_over(c->rpc, &code));
    silent(c, "{" V "\"method\":\"exit\"}");
    cr_assert(rd_rpc_is_over(c->rpc, &code));
    cr_assert_eq(code, 0);
    silent(c, "{" V "\"id\":8,\"method\":\"now\"}");
    hang_up(c);
}

Test(rpc, leaves_with_1_without_shutdown_and_stops_all_work_unanswered)
{
    int code = 9;
    rd_conn *c = running();

    silent(c, "{" V "\"id\":1,\"method\":\"later\"}");
    silent(c, "{" V "\"method\":\"exit\"}");
    cr_assert(rd_rpc_is_over(c->rpc, &code));
    cr_assert_eq(code, 1);
    cr_assert_eq(c->cancelled_count, 1);
    cr_assert(!rd_rpc_notify(c->rpc, "window/logMessage", NULL));
    hang_up(c);

    c = running();
    rd_buf_reset(&c->out);
    rd_rpc_hang_up(c->rpc);
    cr_assert(rd_rpc_is_over(c->rpc, &code));
    cr_assert_eq(code, 1);
    cr_assert_eq(c->out.len, 0);
    hang_up(c);

    c = connect_with(RD_LSP, methods, sizeof methods / sizeof *methods);
    silent(c, "{" V "\"method\":\"exit\"}");
    cr_assert(rd_rpc_is_over(c->rpc, &code));
    cr_assert_eq(code, 1);
    hang_up(c);
}

Test(rpc, asks_only_after_initialized_and_takes_each_answer_once)
{
    rd_conn *c = connect_with(RD_LSP, methods, sizeof methods / sizeof *methods);
    char reply[100];

    answers(c, "{" V "\"id\":0,\"method\":\"initialize\"}", "0", 0);
    cr_assert_eq(rd_rpc_ask(c->rpc, "workspace/configuration", json_object()), 0);
    silent(c, "{" V "\"method\":\"initialized\"}");
    int64_t ask = rd_rpc_ask(c->rpc, "workspace/configuration", json_object());

    cr_assert_gt(ask, 0);
    snprintf(reply, sizeof reply, "{" V "\"id\":%d,\"result\":[1]}", (int)ask);
    silent(c, reply);
    silent(c, reply);
    cr_assert_eq(c->replies, 1);
    cr_assert_eq(c->asked, ask);
    cr_assert(!c->reply_failed);
    ask = rd_rpc_ask(c->rpc, "x", NULL);
    snprintf(reply, sizeof reply, "{" V "\"id\":%d,\"result\":null,\"error\":{\"code\":1}}",
             (int)ask);
    silent(c, reply);
    cr_assert(c->replies == 2 && c->reply_failed);
    for (int i = 0; i < RD_MOST_ASKED; i++) cr_assert_gt(rd_rpc_ask(c->rpc, "x", NULL), 0);
    cr_assert_eq(rd_rpc_ask(c->rpc, "x", NULL), 0);
    hang_up(c);
}

Test(rpc, holds_the_limit_of_open_requests)
{
    rd_conn *c = running();
    char frame[100];

    for (int i = 0; i < RD_MOST_OPEN_REQUESTS; i++) {
        snprintf(frame, sizeof frame, "{" V "\"id\":%d,\"method\":\"later\"}", i);
        silent(c, frame);
    }
    answers(c, "{" V "\"id\":\"one more\",\"method\":\"later\"}", "\"one more\"",
            RD_REQUEST_FAILED);
    rd_rpc_answer(c->rpc, c->kept[5], NULL);
    silent(c, "{" V "\"id\":\"one more\",\"method\":\"later\"}");
    hang_up(c);
}

Test(rpc, in_mcp_needs_no_initialize_and_answers_nothing_to_what_is_cancelled)
{
    rd_conn *c = connect_with(RD_MCP, methods, sizeof methods / sizeof *methods);
    int code = 9;

    answers(c, "{" V "\"id\":1,\"method\":\"now\"}", "1", 0);
    silent(c, "{" V "\"id\":2,\"method\":\"later\"}");
    silent(c, "{" V "\"method\":\"$/cancelRequest\",\"params\":{\"id\":2}}");
    cr_assert_eq(c->cancelled_count, 0);
    silent(c, "{" V "\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":2}}");
    cr_assert_eq(c->cancelled_count, 1);
    cr_assert_eq(c->cancelled[0], c->kept[0]);
    answers(c, "{" V "\"id\":3,\"method\":\"initialize\"}", "3", 0);
    answers(c, "{" V "\"id\":4,\"method\":\"initialize\"}", "4", 0);
    answers(c, "[{" V "\"id\":5,\"method\":\"now\"}]", "null", RD_INVALID_REQUEST);
    answers(c, "{" V "\"id\":6,\"method\":\"shutdown\"}", "6", RD_METHOD_NOT_FOUND);
    silent(c, "{" V "\"method\":\"exit\"}");
    cr_assert(!rd_rpc_is_over(c->rpc, &code));
    rd_rpc_hang_up(c->rpc);
    cr_assert(rd_rpc_is_over(c->rpc, &code));
    cr_assert_eq(code, 0);
    hang_up(c);
}

Test(rpc, answers_each_request_of_a_storm_once, .timeout = 60)
{
    enum { IDS = 20000 };
    rd_conn *c = running();
    rd_random r = rd_random_seed(21);
    static uint8_t answered[IDS];
    char frame[100];
    int sent = 0;

    rd_buf_reset(&c->out);
    while (sent < IDS || rd_rpc_open_requests(c->rpc) > 0) {
        uint32_t what = rd_random_below(&r, 4);

        if (sent < IDS && what < 2) {
            const char *method =
                what ? "later" : (const char *[]){ "now", "bad", "none" }[sent % 3];

            if (c->kept_count == 2000) c->kept_count = 0;
            if (c->cancelled_count == 2000) c->cancelled_count = 0;
            snprintf(frame, sizeof frame, "{" V "\"id\":%d,\"method\":\"%s\"}", sent++, method);
            rd_rpc_frame(c->rpc, frame, strlen(frame));
        } else if (what == 2) {
            int id = sent - 1 - (int)rd_random_below(&r, 50);

            if (c->cancelled_count == 2000) c->cancelled_count = 0;
            snprintf(frame, sizeof frame,
                     "{" V "\"method\":\"$/cancelRequest\",\"params\":{\"id\":%d}}", id);
            rd_rpc_frame(c->rpc, frame, strlen(frame));
        } else if (c->kept_count > 0) {
            uint64_t ticket = c->kept[--c->kept_count];

            rd_rpc_answer(c->rpc, ticket, json_true());
        }
        if (sent == IDS && c->kept_count == 0) break;
    }
    for (char *s = c->out.data; *s; s = strchr(s, '\n') + 1) {
        const char *id = strstr(s, "\"id\":");

        answered[atoi(id + 5)]++;
    }
    size_t open = rd_rpc_open_requests(c->rpc), unanswered = 0;

    for (int i = 0; i < IDS; i++) {
        cr_assert_leq(answered[i], 1, "id %d was answered %d times", i, answered[i]);
        unanswered += !answered[i];
    }
    cr_assert_eq(unanswered, open);
    hang_up(c);
}

Test(rpc, has_a_code_for_every_status)
{
    static const int codes[] = {
        [RD_CANCELLED] = RD_REQUEST_CANCELLED, [RD_STALE] = RD_CONTENT_MODIFIED,
        [RD_INVALID] = RD_INVALID_PARAMS,      [RD_NOT_FOUND] = RD_INVALID_PARAMS,
        [RD_NO_MEMORY] = RD_REQUEST_FAILED,    [RD_IO] = RD_REQUEST_FAILED,
        [RD_DEVICE] = RD_REQUEST_FAILED
    };

    for (int s = RD_CANCELLED; s <= RD_DEVICE; s++)
        cr_assert_eq(rd_rpc_code((rd_status)s), codes[s], "%d", s);
}

Test(rpc, answers_no_notification_that_fails_and_no_ticket_twice)
{
    rd_conn *c = running();

    silent(c, "{" V "\"method\":\"bad_note\"}");
    cr_assert_eq(c->notes, 1);
    silent(c, "{" V "\"id\":1,\"method\":\"later\"}");
    cr_assert(rd_rpc_is_open(c->rpc, c->kept[0]));
    cr_assert(rd_rpc_fail(c->rpc, c->kept[0], RD_REQUEST_FAILED, "no", json_true()));
    cr_assert(!rd_rpc_is_open(c->rpc, c->kept[0]));
    cr_assert(!rd_rpc_fail(c->rpc, c->kept[0], RD_REQUEST_FAILED, "no", json_object()));
    silent(c, "{" V "\"id\":0,\"result\":1}");
    silent(c, "{" V "\"id\":\"1\",\"result\":1}");
    rd_rpc_hang_up(c->rpc);
    rd_buf_reset(&c->out);
    rd_rpc_lost_frame(c->rpc, "late");
    cr_assert_eq(c->out.len, 0);
    rd_rpc_free(NULL);
    hang_up(c);
}

Test(rpc, repairs_bytes_for_the_encoding_that_was_settled)
{
    static const char frame[] = "{" V "\"id\":\"a\xff\",\"method\":\"now\"}";
    rd_conn *c = running();

    answers(c, frame, "\"a\xef\xbf\xbd\"", 0);
    rd_rpc_set_encoding(c->rpc, RD_UTF8);
    answers(c, frame, "\"a?\"", 0);
    hang_up(c);
}

Test(rpc, works_without_hooks_and_sends_answers_of_any_size, .timeout = 60)
{
    static const rd_rpc_hooks none = { NULL, NULL, NULL };
    rd_conn *c = connect_with(RD_LSP, methods, sizeof methods / sizeof *methods);
    char *big = rd_alloc0(RD_MOST_JSON_BYTES + 1);

    rd_rpc_free(c->rpc);
    c->rpc = rd_rpc_new(RD_LSP, methods, sizeof methods / sizeof *methods, &none, c,
                        RD_FRAMING_LINE, &c->out);
    answers(c, "{" V "\"id\":0,\"method\":\"initialize\"}", "0", 0);
    silent(c, "{" V "\"method\":\"initialized\"}");
    answers(c, "{", "null", RD_PARSE_ERROR);
    silent(c, "{" V "\"id\":1,\"method\":\"later\"}");
    memset(big, 'x', RD_MOST_JSON_BYTES);
    rd_buf_reset(&c->out);
    cr_assert(rd_rpc_answer(c->rpc, c->kept[0], json_string(big)));
    answers_line(c, "1", 0);
    cr_assert_gt(c->out.len, RD_MOST_JSON_BYTES);
    cr_assert_eq(rd_rpc_ask(c->rpc, "x", NULL), 1);
    silent(c, "{" V "\"id\":1,\"result\":1}");
    silent(c, "{" V "\"id\":2,\"method\":\"later\"}");
    answers(c, "{" V "\"method\":\"$/cancelRequest\",\"params\":{\"id\":2}}", "2",
            RD_REQUEST_CANCELLED);
    silent(c, "{" V "\"id\":3,\"method\":\"later\"}");
    rd_rpc_hang_up(c->rpc);
    free(big);
    hang_up(c);
}
