/* test_follow.c - what a front remembers, and how it brings a new daemon to where the old one was. */
#include "lsp/follow.h"

#include "core/base/memory.h"
#include "lsp/hello.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ' stands for ". */
static char *quoted(const char *text)
{
    char *copy = rd_copy_text(text, strlen(text));

    for (char *at = copy; *at; at++)
        if (*at == '\'') *at = '"';
    return copy;
}

static void client(rd_follow *f, const char *text)
{
    char *frame = quoted(text);

    rd_follow_client(f, frame, strlen(frame));
    free(frame);
}

static void daemon_says(rd_follow *f, const char *text)
{
    char *frame = quoted(text);

    rd_follow_daemon(f, frame, strlen(frame));
    free(frame);
}

/* The messages of a buffer as an array, which is emptied. */
static json_t *taken(rd_buf *out, rd_framing framing)
{
    rd_wire *wire = rd_wire_new(framing, (size_t)64 << 20);
    const char *bytes = out->data ? out->data : "";
    size_t n = out->len;
    json_t *all = json_array();
    rd_frame frame;
    rd_error err;

    while (rd_wire_read(wire, &bytes, &n, &frame, &err) == RD_WIRE_FRAME)
        json_array_append_new(all, json_loadb(frame.bytes, frame.n, JSON_ALLOW_NUL, NULL));
    rd_wire_free(wire);
    rd_buf_reset(out);
    return all;
}

static json_t *to_client(rd_follow *f)
{
    return taken(rd_follow_to_client(f), RD_FRAMING_HEADER);
}

static json_t *to_daemon(rd_follow *f)
{
    return taken(rd_follow_to_daemon(f), RD_FRAMING_HEADER);
}

static void forget(rd_follow *f)
{
    json_decref(to_client(f));
    json_decref(to_daemon(f));
}

static const char *method(const json_t *all, size_t i)
{
    const char *text = json_string_value(json_object_get(json_array_get(all, i), "method"));

    return text ? text : "";
}

static int code(const json_t *all, size_t i)
{
    return (int)json_integer_value(
        json_object_get(json_object_get(json_array_get(all, i), "error"), "code"));
}

static int id(const json_t *all, size_t i)
{
    return (int)json_integer_value(json_object_get(json_array_get(all, i), "id"));
}

/* An LSP session that is set up, with one document. */
static rd_follow *session(void)
{
    rd_follow *f = rd_follow_new(RD_LSP);

    rd_follow_connected(f);
    client(f,
           "{'jsonrpc':'2.0','id':1,'method':'initialize','params':{'processId':77,'rootUri':null,"
           "'workspaceFolders':[{'uri':'file:///w','name':'w'}]}}");
    daemon_says(f,
                "{'jsonrpc':'2.0','id':1,'result':{'capabilities':{'positionEncoding':'utf-16'}}}");
    client(f, "{'jsonrpc':'2.0','method':'initialized','params':{}}");
    client(f, "{'jsonrpc':'2.0','method':'textDocument/didOpen','params':{'textDocument':{'uri':"
              "'file:///a','languageId':'c','version':1,'text':'one\\ntwo'}}}");
    forget(f);
    return f;
}

static void ask(rd_follow *f, int number, int character)
{
    char text[300];

    snprintf(text, sizeof text,
             "{'jsonrpc':'2.0','id':%d,'method':'textDocument/inlineCompletion','params':{"
             "'textDocument':{'uri':'file:///a'},'position':{'line':0,'character':%d}}}",
             number, character);
    client(f, text);
}

static void change(rd_follow *f, int version)
{
    char text[300];

    snprintf(
        text, sizeof text,
        "{'jsonrpc':'2.0','method':'textDocument/didChange','params':{'textDocument':{'uri':"
        "'file:///a','version':%d},'contentChanges':[{'range':{'start':{'line':1,'character':0},"
        "'end':{'line':1,'character':0}},'text':'+'}]}}",
        version);
    client(f, text);
}

/* A new daemon that takes the replayed `initialize`; returns what it was told. */
static json_t *next_daemon(rd_follow *f)
{
    rd_follow_connected(f);
    json_t *greeting = to_daemon(f);

    cr_assert_eq(json_array_size(greeting), 1);
    cr_assert_str_eq(method(greeting, 0), "initialize");
    json_t *answer =
        json_pack("{s:s, s:O, s:{s:{}}}", "jsonrpc", "2.0", "id",
                  json_object_get(json_array_get(greeting, 0), "id"), "result", "capabilities");
    char *text = json_dumps(answer, 0);

    rd_follow_daemon(f, text, strlen(text));
    free(text);
    json_decref(answer);
    json_decref(greeting);
    return to_daemon(f);
}

Test(follow, messages_pass_unchanged_while_there_is_a_daemon)
{
    rd_follow *f = session();

    ask(f, 2, 3);
    json_t *down = to_daemon(f);
    daemon_says(f, "{'jsonrpc':'2.0','id':2,'result':{'items':[]}}");
    json_t *up = to_client(f);

    cr_assert_eq(json_array_size(down), 1);
    cr_expect_eq(id(down, 0), 2);
    cr_assert_eq(json_array_size(up), 1);
    cr_expect_eq(id(up, 0), 2);
    json_decref(down);
    json_decref(up);
    rd_follow_free(f);
}

Test(follow, a_death_answers_what_was_open_and_wants_a_daemon)
{
    rd_follow *f = session();

    ask(f, 2, 3);
    ask(f, 3, 2);
    daemon_says(f, "{'jsonrpc':'2.0','id':2,'result':null}");
    forget(f);
    rd_follow_broken(f);
    json_t *up = to_client(f);

    cr_assert_eq(json_array_size(up), 1);
    cr_expect_eq(id(up, 0), 3);
    cr_expect_eq(code(up, 0), RD_REQUEST_FAILED);
    cr_expect(rd_follow_wants_daemon(f));
    json_decref(up);
    rd_follow_free(f);
}

Test(follow, a_new_daemon_hears_the_session_from_the_beginning)
{
    rd_follow *f = session();

    client(f, "{'jsonrpc':'2.0','method':'workspace/didChangeConfiguration','params':{'settings':{"
              "'redraft':{'quality':1}}}}");
    client(
        f,
        "{'jsonrpc':'2.0','method':'workspace/didChangeWorkspaceFolders','params':{'event':{"
        "'added':[{'uri':'file:///v','name':'v'}],'removed':[{'uri':'file:///w','name':'w'}]}}}");
    change(f, 2);
    rd_follow_broken(f);
    change(f, 5);
    forget(f);
    rd_follow_connected(f);
    json_t *greeting = to_daemon(f);
    json_t *params = json_object_get(json_array_get(greeting, 0), "params");

    cr_expect_eq(json_integer_value(json_object_get(params, "processId")), 77);
    json_t *folders = json_object_get(params, "workspaceFolders");

    cr_assert_eq(json_array_size(folders), 1);
    cr_expect_str_eq(json_string_value(json_object_get(json_array_get(folders, 0), "uri")),
                     "file:///v");
    rd_follow_broken(f);
    json_t *told = next_daemon(f);

    cr_assert_eq(json_array_size(told), 3);
    cr_expect_str_eq(method(told, 0), "initialized");
    cr_expect_str_eq(method(told, 1), "workspace/didChangeConfiguration");
    cr_assert_str_eq(method(told, 2), "textDocument/didOpen");
    json_t *item =
        json_object_get(json_object_get(json_array_get(told, 2), "params"), "textDocument");

    cr_expect_str_eq(json_string_value(json_object_get(item, "text")), "one\n++two");
    cr_expect_eq(json_integer_value(json_object_get(item, "version")), 5);
    cr_expect_str_eq(json_string_value(json_object_get(item, "languageId")), "c");
    json_t *up = to_client(f);

    cr_expect_eq(json_array_size(up), 0, "the client sees nothing of it");
    json_decref(up);
    json_decref(greeting);
    json_decref(told);
    rd_follow_free(f);
}

Test(follow, a_request_that_came_meanwhile_is_sent_behind_the_replay)
{
    rd_follow *f = session();

    rd_follow_broken(f);
    ask(f, 2, 3);
    json_t *told = next_daemon(f);
    size_t last = json_array_size(told) - 1;

    cr_expect_str_eq(method(told, last), "textDocument/inlineCompletion");
    cr_expect_eq(id(told, last), 2);
    json_decref(told);
    rd_follow_free(f);
}

Test(follow, a_waiting_request_that_a_change_overtook_is_not_answered_from_the_newer_text)
{
    rd_follow *f = session();

    rd_follow_broken(f);
    ask(f, 2, 3);
    change(f, 2);
    json_t *up = to_client(f);

    cr_assert_eq(json_array_size(up), 1);
    cr_expect_eq(code(up, 0), RD_CONTENT_MODIFIED);
    json_decref(up);
    rd_follow_free(f);
}

Test(follow, a_waiting_request_can_be_cancelled)
{
    rd_follow *f = session();

    rd_follow_broken(f);
    ask(f, 2, 3);
    client(f, "{'jsonrpc':'2.0','method':'$/cancelRequest','params':{'id':2}}");
    json_t *up = to_client(f), *told = next_daemon(f);

    cr_assert_eq(json_array_size(up), 1);
    cr_expect_eq(code(up, 0), RD_REQUEST_CANCELLED);
    cr_expect_str_eq(method(told, json_array_size(told) - 1), "textDocument/didOpen");
    json_decref(up);
    json_decref(told);
    rd_follow_free(f);
}

Test(follow, what_was_open_at_two_deaths_is_refused_until_the_text_changes)
{
    rd_follow *f = session();

    for (int i = 2; i <= 3; i++) {
        ask(f, i, 3);
        rd_follow_broken(f);
        json_decref(next_daemon(f));
    }
    forget(f);
    ask(f, 4, 3);
    json_t *up = to_client(f), *down = to_daemon(f);

    cr_assert_eq(json_array_size(up), 1);
    cr_expect_eq(code(up, 0), RD_REQUEST_FAILED);
    cr_expect_eq(json_array_size(down), 0);
    json_decref(up);
    json_decref(down);
    ask(f, 5, 2);
    change(f, 2);
    ask(f, 6, 3);
    down = to_daemon(f);
    cr_expect_eq(json_array_size(down), 3, "another place and another text are other requests");
    json_decref(down);
    rd_follow_free(f);
}

Test(follow, an_orderly_end_accuses_nobody_and_waits_for_a_request)
{
    rd_follow *f = session();

    for (int i = 2; i <= 4; i++) {
        ask(f, i, 3);
        daemon_says(f, "{'jsonrpc':'2.0','method':'" RD_HELLO_LEAVING "'}");
        rd_follow_broken(f);
        json_t *up = to_client(f);

        cr_assert_eq(json_array_size(up), 1, "the notice itself is not the client's");
        json_decref(up);
        cr_expect_not(rd_follow_wants_daemon(f));
        change(f, i);
        cr_expect_not(rd_follow_wants_daemon(f));
        json_decref(next_daemon(f));
    }
    rd_follow_free(f);
}

Test(follow, requests_of_daemons_never_share_a_number)
{
    rd_follow *f = session();

    daemon_says(
        f, "{'jsonrpc':'2.0','id':1,'method':'workspace/configuration','params':{'items':[]}}");
    json_t *first = to_client(f);

    rd_follow_broken(f);
    json_decref(next_daemon(f));
    daemon_says(
        f, "{'jsonrpc':'2.0','id':1,'method':'workspace/configuration','params':{'items':[]}}");
    json_t *second = to_client(f);

    cr_assert_eq(json_array_size(first), 1);
    cr_assert_eq(json_array_size(second), 1);
    cr_expect_neq(id(first, 0), id(second, 0));
    char text[100];

    snprintf(text, sizeof text, "{'jsonrpc':'2.0','id':%d,'result':[]}", id(first, 0));
    client(f, text);
    json_t *down = to_daemon(f);

    cr_expect_eq(json_array_size(down), 0, "nobody waits for the first answer any more");
    json_decref(down);
    snprintf(text, sizeof text, "{'jsonrpc':'2.0','id':%d,'result':[]}", id(second, 0));
    client(f, text);
    down = to_daemon(f);
    cr_assert_eq(json_array_size(down), 1);
    cr_expect_eq(id(down, 0), 1, "the number is the daemon's own again");
    json_decref(down);
    json_decref(first);
    json_decref(second);
    rd_follow_free(f);
}

Test(follow, the_client_registers_a_capability_once)
{
    rd_follow *f = session();
    const char *request =
        "{'jsonrpc':'2.0','id':4,'method':'client/registerCapability','params':{"
        "'registrations':[{'id':'c','method':'workspace/didChangeConfiguration'}]}}";

    daemon_says(f, request);
    json_t *first = to_client(f);

    rd_follow_broken(f);
    json_decref(next_daemon(f));
    daemon_says(f, request);
    json_t *second = to_client(f), *down = to_daemon(f);

    cr_expect_eq(json_array_size(first), 1);
    cr_expect_eq(json_array_size(second), 0);
    cr_assert_eq(json_array_size(down), 1);
    cr_expect_eq(id(down, 0), 4);
    cr_expect(json_is_null(json_object_get(json_array_get(down, 0), "result")));
    json_decref(first);
    json_decref(second);
    json_decref(down);
    rd_follow_free(f);
}

Test(follow, progress_that_a_dead_daemon_began_is_ended)
{
    rd_follow *f = session();

    daemon_says(
        f,
        "{'jsonrpc':'2.0','method':'$/progress','params':{'token':'a','value':{'kind':'begin'}}}");
    daemon_says(
        f, "{'jsonrpc':'2.0','method':'$/progress','params':{'token':7,'value':{'kind':'begin'}}}");
    daemon_says(
        f, "{'jsonrpc':'2.0','method':'$/progress','params':{'token':'a','value':{'kind':'end'}}}");
    forget(f);
    rd_follow_broken(f);
    json_t *up = to_client(f);

    cr_assert_eq(json_array_size(up), 1);
    json_t *params = json_object_get(json_array_get(up, 0), "params");

    cr_expect_eq(json_integer_value(json_object_get(params, "token")), 7);
    cr_expect_str_eq(json_string_value(json_object_get(json_object_get(params, "value"), "kind")),
                     "end");
    json_decref(up);
    rd_follow_free(f);
}

Test(follow, initialize_that_met_a_death_is_put_once_more)
{
    rd_follow *f = rd_follow_new(RD_LSP);

    rd_follow_connected(f);
    client(f, "{'jsonrpc':'2.0','id':'i','method':'initialize','params':{}}");
    forget(f);
    rd_follow_broken(f);
    cr_expect(rd_follow_wants_daemon(f));
    rd_follow_connected(f);
    json_t *down = to_daemon(f), *up = to_client(f);

    cr_expect_eq(json_array_size(up), 0);
    cr_assert_eq(json_array_size(down), 1);
    cr_expect_str_eq(json_string_value(json_object_get(json_array_get(down, 0), "id")), "i");
    json_decref(up);
    json_decref(down);
    rd_follow_broken(f);
    up = to_client(f);
    cr_assert_eq(json_array_size(up), 1);
    cr_expect_eq(code(up, 0), RD_REQUEST_FAILED);
    json_decref(up);
    rd_follow_free(f);
}

Test(follow, shutdown_needs_no_daemon)
{
    rd_follow *f = session();

    rd_follow_broken(f);
    cr_expect_eq(rd_follow_code(f), 1);
    client(f, "{'jsonrpc':'2.0','id':9,'method':'shutdown'}");
    client(f, "{'jsonrpc':'2.0','method':'exit'}");
    json_t *up = to_client(f);

    cr_assert_eq(json_array_size(up), 1);
    cr_expect(json_is_null(json_object_get(json_array_get(up, 0), "result")));
    cr_expect(rd_follow_is_over(f));
    cr_expect_eq(rd_follow_code(f), 0);
    cr_expect_not(rd_follow_wants_daemon(f));
    json_decref(up);
    rd_follow_free(f);
}

Test(follow, without_a_daemon_requests_fail_and_the_user_is_told_once)
{
    rd_follow *f = session();

    rd_follow_broken(f);
    rd_follow_refused(f, "no daemon");
    for (int i = 2; i <= 3; i++) {
        ask(f, i, 3);
        cr_expect(rd_follow_wants_daemon(f), "each request is a reason to look again");
        rd_follow_refused(f, "no daemon");
    }
    json_t *up = to_client(f);

    cr_assert_eq(json_array_size(up), 3);
    cr_expect_str_eq(method(up, 0), "window/showMessage");
    cr_expect_eq(code(up, 1), RD_REQUEST_FAILED);
    cr_expect_eq(code(up, 2), RD_REQUEST_FAILED);
    json_decref(up);
    rd_follow_free(f);
}

Test(follow, a_document_whose_change_was_lost_is_not_replayed)
{
    rd_follow *f = session();

    client(f, "{'jsonrpc':'2.0','method':'textDocument/didChange','params':{");
    rd_follow_broken(f);
    json_t *told = next_daemon(f);

    cr_assert_eq(json_array_size(told), 1);
    cr_expect_str_eq(method(told, 0), "initialized");
    json_decref(told);
    rd_follow_free(f);
}

Test(follow, an_agents_cancelled_call_is_answered_by_nobody)
{
    rd_follow *f = rd_follow_new(RD_MCP);

    rd_follow_connected(f);
    client(f, "{'jsonrpc':'2.0','id':1,'method':'tools/call','params':{'name':'infill'}}");
    client(f, "{'jsonrpc':'2.0','id':2,'method':'tools/call','params':{'name':'status'}}");
    client(f, "{'jsonrpc':'2.0','method':'notifications/cancelled','params':{'requestId':1}}");
    rd_follow_broken(f);
    json_t *up = taken(rd_follow_to_client(f), RD_FRAMING_LINE);

    cr_assert_eq(json_array_size(up), 1);
    cr_expect_eq(id(up, 0), 2);
    cr_expect_eq(code(up, 0), RD_INTERNAL_ERROR);
    json_decref(up);
    rd_follow_free(f);
}
