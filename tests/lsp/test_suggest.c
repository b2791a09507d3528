/* test_suggest.c - ghost text as an editor meets it: what is asked, shown, kept, and why not. */
#include "tests/fake/editor.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#define A "file:///nowhere/a.c"

static editor *begin(const char *options, const char *text)
{
    static editor e;

    editor_open(&e, NULL, options);
    editor_does(&e, A, text);
    while (editor_model_says(&e, 1, NULL))
        ;
    e.submitted = 0;
    return &e;
}

static int ask(editor *e, int line, int character, int kind)
{
    return editor_request(e, "textDocument/inlineCompletion",
                          "{'textDocument':{'uri':'" A "'},'position':{'line':%d,'character':%d},"
                          "'context':{'triggerKind':%d}}",
                          line, character, kind);
}

/* The answer's items, or -1: null, -2: not answered, -3: an error. */
static int count(editor *e, int id, json_t **first)
{
    json_t *m = editor_answer(e, id), *items;

    if (first) *first = NULL;
    if (!m) return -2;
    items = json_object_get(json_object_get(m, "result"), "items");
    int n = json_object_get(m, "error")                  ? -3
            : json_is_null(json_object_get(m, "result")) ? -1
                                                         : (int)json_array_size(items);

    if (first && n > 0) *first = json_incref(json_array_get(items, 0));
    json_decref(m);
    return n;
}

static void shows(editor *e, int id, const char *text, int line, int start, int end)
{
    json_t *item;
    int n = count(e, id, &item), l0, c0, l1, c1;

    cr_assert_eq(n, 1, "%d", n);
    cr_assert_str_eq(json_string_value(json_object_get(item, "insertText")), text);
    cr_assert(!json_unpack(item, "{s:{s:{s:i,s:i},s:{s:i,s:i}}}", "range", "start", "line", &l0,
                           "character", &c0, "end", "line", &l1, "character", &c1));
    cr_assert(l0 == line && l1 == line && c0 == start && c1 == end, "%d:%d-%d:%d", l0, c0, l1, c1);
    json_decref(item);
}

static const char *why(editor *e)
{
    static char text[400];
    json_t *m = editor_answer(
        e, editor_request(e, "workspace/executeCommand", "{'command':'redraft.explainLast'}"));

    snprintf(text, sizeof text, "%s",
             json_string_value(json_object_get(json_object_get(m, "result"), "message")));
    json_decref(m);
    return text;
}

Test(suggest, opening_warms_the_model_in_the_idle_lane)
{
    editor e;

    editor_open(&e, NULL, NULL);
    editor_does(&e, A, "int x;\n");

    cr_assert(editor_job(&e));
    cr_assert_eq(e.jobs[0]->kind, RD_JOB_WARM);
    cr_assert_eq(e.jobs[0]->lane, RD_LANE_IDLE);
    editor_close(&e);
}

Test(suggest, answers_with_one_item_at_the_cursor)
{
    editor *e = begin(NULL, "int x = ;\n");
    int id = ask(e, 0, 8, 2);

    cr_assert_eq(count(e, id, NULL), -2, "not before the model");
    cr_assert_eq(editor_job(e)->lane, RD_LANE_TYPING);
    cr_assert_str_eq(e->jobs[0]->prefix.data, "int x = ");
    cr_assert_str_eq(e->jobs[0]->suffix.data, ";\n");
    editor_model_says(e, 0.9, "42", NULL);

    shows(e, id, "42", 0, 8, 8);
    cr_assert(strstr(why(e), "shown"), "%s", why(e));
    editor_close(e);
}

Test(suggest, what_is_wrong_by_its_form_is_shown_to_who_asks_only)
{
    editor *e = begin(NULL, "impor\nimport io\n");
    int id = ask(e, 0, 5, 2);

    editor_model_says(e, 0.9, "t io", NULL);
    cr_assert_eq(count(e, id, NULL), 0);
    cr_assert(strstr(why(e), "not shown: it makes the line beside it once more"), "%s", why(e));
    id = ask(e, 0, 5, 1);
    editor_model_says(e, 0.9, "t io", NULL);

    shows(e, id, "t io", 0, 5, 5);
    editor_close(e);
}

Test(suggest, columns_are_those_of_the_client)
{
    editor *e = begin(NULL, "s = \"\xf0\x9f\x98\x80\" + ;\n");
    int id = ask(e, 0, 11, 2);

    cr_assert_str_eq(editor_job(e)->prefix.data, "s = \"\xf0\x9f\x98\x80\" + ");
    editor_model_says(e, 0.9, "t", NULL);
    shows(e, id, "t", 0, 11, 11);
    editor_close(e);
}

Test(suggest, hides_what_is_below_the_gate_and_says_so)
{
    editor *e = begin(NULL, "int x = ;\n");
    int id = ask(e, 0, 8, 2);

    editor_model_says(e, 0.2, "42", NULL);

    cr_assert_eq(count(e, id, NULL), 0);
    cr_assert(strstr(why(e), "0.20 is below 0.35"), "%s", why(e));
    editor_close(e);
}

Test(suggest, the_setting_comes_before_the_models_gate)
{
    editor *e = begin("{\"minConfidence\":0}", "int x = ;\n");
    int id = ask(e, 0, 8, 2);

    editor_model_says(e, 0.01, "42", NULL);

    shows(e, id, "42", 0, 8, 8);
    editor_close(e);
}

Test(suggest, invoked_gives_several_different_ones_whatever_their_confidence)
{
    editor *e = begin(NULL, "int x = ;\n");
    int id = ask(e, 0, 8, 1);

    cr_assert_gt(editor_job(e)->answers, 1);
    editor_model_says(e, 0.1, "1", "2;", "1", "3", NULL);

    cr_assert_eq(count(e, id, NULL), 3, "1, 2 and 3: the semicolon stands there");
    shows(e, ask(e, 0, 8, 2), "1", 0, 8, 8); /* and the best stays */
    editor_close(e);
}

Test(suggest, a_file_with_the_line_ends_of_windows_is_asked_about_without_them)
{
    editor *e = begin(NULL, "int a;\r\nint x = ;\r\nint b;\r\n");
    int id = ask(e, 1, 8, 2);

    cr_assert_str_eq(editor_job(e)->prefix.data, "int a;\nint x = ");
    cr_assert_str_eq(e->jobs[0]->suffix.data, ";\nint b;\n");
    editor_model_says(e, 0.9, "f(1,\n        2)", NULL);
    shows(e, id, "f(1,\n        2)", 1, 8, 8);
    editor_close(e);
}

Test(suggest, a_setting_that_is_not_said_any_more_does_not_hold)
{
    editor *e = begin("{\"minConfidence\":0.5}", "int x = ;\n");

    editor_notify(e, "workspace/didChangeConfiguration",
                  "{'settings':{'redraft':{'enable':false,'minConfidence':0.9}}}");
    cr_assert_eq(count(e, ask(e, 0, 8, 1), NULL), 0);
    editor_notify(e, "workspace/didChangeConfiguration", "{'settings':{'redraft':{}}}");
    int id = ask(e, 0, 8, 2);

    editor_model_says(e, 0.6, "1", NULL);
    shows(e, id, "1", 0, 8, 8);
    editor_close(e);
}

Test(suggest, waits_for_a_pause_unless_invoked)
{
    editor *e = begin(NULL, "int x = \n");
    int id;

    editor_types(e, A, 0, 8, "f");
    id = ask(e, 0, 9, 2);
    cr_assert_null(editor_job(e));
    cr_assert(strstr(why(e), "pause"), "%s", why(e));
    editor_waits(e, 74);
    cr_assert_null(editor_job(e));
    editor_waits(e, 2);
    cr_assert(editor_job(e));
    editor_model_says(e, 0.9, "oo", NULL);
    shows(e, id, "oo", 0, 9, 9);

    editor_types(e, A, 0, 9, "x");
    ask(e, 0, 10, 1);
    cr_assert(editor_job(e), "invoked: at once");
    editor_close(e);
}

Test(suggest, the_pause_adapts_to_the_typing_and_to_the_model)
{
    editor *e = begin(NULL, "\n");

    for (int i = 0; i < 40; i++) {
        editor_waits(e, 40);
        editor_types(e, A, 0, i, "f");
    }
    ask(e, 0, 40, 2);
    editor_waits(e, 25);
    cr_assert(editor_job(e), "half of 40 ms is over");

    e->model.step_ms = 2;
    editor_types(e, A, 0, 40, "g");
    ask(e, 0, 41, 2);
    editor_waits(e, 7);
    cr_assert_null(editor_job(e));
    editor_waits(e, 2);
    cr_assert(editor_job(e), "a fast model is asked sooner");
    editor_close(e);
}

Test(suggest, keeps_and_shortens_what_is_typed_along)
{
    editor *e = begin(NULL, "int x = ;\n");
    int id = ask(e, 0, 8, 2);

    editor_model_says(e, 0.9, "value()", NULL);
    shows(e, id, "value()", 0, 8, 8);
    editor_types(e, A, 0, 8, "va");
    id = ask(e, 0, 10, 2);

    shows(e, id, "lue()", 0, 10, 10);
    cr_assert_eq(e->submitted, 1, "the model was not asked again");
    editor_types(e, A, 0, 10, "x");
    id = ask(e, 0, 11, 2);
    editor_waits(e, 100);
    cr_assert_eq(e->submitted, 2, "but it is where something else was typed");
    editor_close(e);
}

Test(suggest, a_newer_request_ends_the_older_with_null)
{
    editor *e = begin(NULL, "int x = ;\nint y = ;\n");
    int first = ask(e, 0, 8, 2), second = ask(e, 1, 8, 2);

    cr_assert_eq(count(e, first, NULL), -1);
    editor_model_says(e, 0.9, "2", NULL);
    shows(e, second, "2", 1, 8, 8);
    cr_assert_eq(e->cancels, 1);
    editor_close(e);
}

Test(suggest, the_same_request_again_joins_the_work_under_way)
{
    editor *e = begin(NULL, "int x = ;\n");
    int first = ask(e, 0, 8, 2), second = ask(e, 0, 8, 2);

    cr_assert_eq(count(e, first, NULL), -1);
    cr_assert_eq(e->submitted, 1);
    editor_model_says(e, 0.9, "2", NULL);
    shows(e, second, "2", 0, 8, 8);
    editor_close(e);
}

Test(suggest, a_cancelled_request_is_answered_as_such_and_its_job_stops)
{
    editor *e = begin(NULL, "int x = ;\n");
    int id = ask(e, 0, 8, 2);

    editor_notify(e, "$/cancelRequest", "{'id':%d}", id);
    json_t *m = editor_answer(e, id);

    cr_assert_eq(json_integer_value(json_object_get(json_object_get(m, "error"), "code")), -32800);
    cr_assert_eq(e->cancels, 1);
    editor_sweeps(e);
    cr_assert_null(editor_answer(e, id), "answered once");
    json_decref(m);
    editor_close(e);
}

Test(suggest, an_answer_for_an_older_text_is_dropped)
{
    editor *e = begin(NULL, "int x = ;\n");
    int id = ask(e, 0, 8, 2);

    editor_types(e, A, 0, 0, "/");

    cr_assert_eq(count(e, id, NULL), -1);
    cr_assert_null(editor_job(e), "its job is cancelled");
    editor_close(e);
}

Test(suggest, a_menus_choice_stands_in_front)
{
    editor *e = begin(NULL, "int x = va;\n");
    const char *const request =
        "{'textDocument':{'uri':'" A "'},'position':{'line':0,'character':10},'context':{"
        "'triggerKind':2,'selectedCompletionInfo':{'range':{'start':{'line':0,'character':8},"
        "'end':{'line':0,'character':10}},'text':'value'}}}";
    int id = editor_request(e, "textDocument/inlineCompletion", request);

    cr_assert_str_eq(editor_job(e)->prefix.data, "int x = value");
    cr_assert_str_eq(e->jobs[0]->suffix.data, ";\n");
    editor_model_says(e, 0.9, "(1)", NULL);
    shows(e, id, "value(1)", 0, 8, 10);
    editor_close(e);

    e = begin("{\"mode\":\"subtle\"}", "int x = va;\n");
    id = editor_request(e, "textDocument/inlineCompletion", request);
    cr_assert_eq(count(e, id, NULL), 0, "subtle: a menu is open");
    editor_close(e);
}

Test(suggest, a_request_without_a_menu_does_not_join_the_work_behind_its_choice)
{
    editor *e = begin(NULL, "int x = ;\n");
    int id = editor_request(
        e, "textDocument/inlineCompletion",
        "{'textDocument':{'uri':'" A "'},'position':{'line':0,'character':8},'context':{"
        "'triggerKind':2,'selectedCompletionInfo':{'range':{'start':{'line':0,'character':8},"
        "'end':{'line':0,'character':8}},'text':'value'}}}");
    int second = ask(e, 0, 8, 2);

    cr_assert_eq(count(e, id, NULL), -1);
    cr_assert_str_eq(editor_job(e)->prefix.data, "int x = ");
    editor_model_says(e, 0.9, "1", NULL);
    shows(e, second, "1", 0, 8, 8);
    editor_close(e);
}

Test(suggest, nothing_inside_a_word_unless_invoked)
{
    editor *e = begin(NULL, "int value;\n");

    cr_assert_eq(count(e, ask(e, 0, 6, 2), NULL), 0);
    ask(e, 0, 6, 1);
    cr_assert(editor_job(e));
    editor_close(e);
}

Test(suggest, an_unasked_request_waits_a_moment_for_the_model_and_not_longer)
{
    editor *e = begin(NULL, "int x = ;\n");
    json_t *status = NULL, *next;
    int id;

    e->model.phase = RD_MODEL_LOADING;
    rd_conn_model_changed(e->conn);
    id = ask(e, 0, 8, 2);
    editor_waits(e, 250);
    cr_assert_eq(count(e, id, NULL), -2);
    editor_waits(e, 100);
    cr_assert_eq(count(e, id, NULL), 0);
    cr_assert(strstr(why(e), "loaded"), "%s", why(e));
    while ((next = editor_note(e, "$/redraft/status"))) {
        json_decref(status);
        status = next;
    }
    cr_assert(json_is_true(json_object_get(json_object_get(status, "params"), "busy")));
    json_decref(status);

    id = ask(e, 0, 8, 1);
    editor_waits(e, 5000);
    cr_assert_eq(count(e, id, NULL), -2, "who invoked it waits");
    e->model.phase = RD_MODEL_READY;
    editor_model_says(e, 0.9, "1", NULL);
    cr_assert_eq(count(e, id, NULL), 1);
    editor_close(e);
}

Test(suggest, a_failed_model_is_an_error_only_for_who_invoked_it)
{
    editor *e = begin(NULL, "int x = ;\n");
    int id = ask(e, 0, 8, 2);

    editor_model_fails(e, RD_DEVICE, "the device is gone");
    cr_assert_eq(count(e, id, NULL), 0);
    cr_assert(strstr(why(e), "the device is gone"), "%s", why(e));
    id = ask(e, 0, 8, 1);
    editor_model_fails(e, RD_DEVICE, "the device is gone");
    cr_assert_eq(count(e, id, NULL), -3);
    editor_close(e);
}

Test(suggest, excluded_and_unknown_documents_get_nothing_and_a_reason)
{
    editor *e = begin(NULL, "int x = ;\n");

    editor_does(e, "file:///nowhere/.env", "KEY=\n");
    cr_assert_eq(e->submitted, 0, "not even warmed");
    int id = editor_request(e, "textDocument/inlineCompletion",
                            "{'textDocument':{'uri':'file:///nowhere/.env'},'position':{'line':0,"
                            "'character':4},'context':{'triggerKind':1}}");

    cr_assert_eq(count(e, id, NULL), 0);
    cr_assert(strstr(why(e), "secrets"), "%s", why(e));
    id = editor_request(e, "textDocument/inlineCompletion",
                        "{'textDocument':{'uri':'file:///b'},'position':{'line':0,'character':4}}");
    cr_assert_eq(count(e, id, NULL), 0);
    cr_assert(strstr(why(e), "not open"), "%s", why(e));
    cr_assert_eq(e->submitted, 0);
    editor_close(e);
}

/* The status that was sent last; "": none since the last look. */
static const char *status_of(editor *e)
{
    static char text[300];
    json_t *m;

    *text = 0;
    while ((m = editor_note(e, "$/redraft/status"))) {
        json_t *params = json_object_get(m, "params");

        snprintf(text, sizeof text, "%s: %s", json_string_value(json_object_get(params, "kind")),
                 json_string_value(json_object_get(params, "message")));
        json_decref(m);
    }
    return text;
}

Test(suggest, the_status_says_why_nothing_shows)
{
    editor *e = begin(NULL, "int x = ;\n");

    editor_does(e, "file:///nowhere/.env", "KEY=\n");
    editor_request(e, "textDocument/inlineCompletion",
                   "{'textDocument':{'uri':'file:///nowhere/.env'},'position':{'line':0,"
                   "'character':4},'context':{'triggerKind':2}}");
    cr_assert_str_eq(status_of(e),
                     "Inactive: file:///nowhere/.env: its name or beginning says that "
                     "it holds secrets");
    ask(e, 0, 8, 2);
    cr_assert_str_eq(status_of(e), "Normal: made up");
    editor_model_fails(e, RD_DEVICE, "the device is gone");
    cr_assert_str_eq(status_of(e), "Warning: the model failed: the device is gone");
    ask(e, 0, 8, 2);
    cr_assert_str_eq(status_of(e), "", "said on change only");
    editor_model_says(e, 0.9, "1", NULL);
    cr_assert_str_eq(status_of(e), "Normal: made up");
    editor_close(e);
}

Test(suggest, the_cpu_in_place_of_a_gpu_is_said_once_and_shown)
{
    editor *e = begin(NULL, "int x = ;\n");

    status_of(e);
    for (int i = 0; i < 2; i++) {
        strcpy(e->model.fell_back, "cuda: 95 GB are needed; the CPU is used");
        rd_conn_model_changed(e->conn);
        if (i == 0) {
            json_t *said = editor_note(e, "window/showMessage");

            cr_assert(said);
            json_t *params = json_object_get(said, "params");

            cr_assert_str_eq(json_string_value(json_object_get(params, "message")),
                             e->model.fell_back);
            json_decref(said);
        }
        cr_assert_str_eq(status_of(e),
                         "Warning: cuda: 95 GB are needed; the CPU is used (made up)");
        *e->model.fell_back = 0;
        rd_conn_model_changed(e->conn);
        cr_assert_str_eq(status_of(e), "Normal: made up");
    }
    cr_assert_null(editor_note(e, "window/showMessage"), "said again");
    editor_close(e);
}

Test(suggest, wrong_parameters_are_named)
{
    editor *e = begin(NULL, "int x = ;\n");
    int id = editor_request(e, "textDocument/inlineCompletion", "{'textDocument':{'uri':'" A "'}}");
    json_t *m = editor_answer(e, id), *error = json_object_get(m, "error");

    cr_assert_eq(json_integer_value(json_object_get(error, "code")), -32602);
    cr_assert(strstr(json_string_value(json_object_get(error, "message")), "position"));
    json_decref(m);
    editor_close(e);
}

Test(suggest, after_an_accept_the_next_is_prepared_and_then_ready)
{
    editor *e = begin(NULL, "int x = \n");
    json_t *item;
    int id = ask(e, 0, 8, 2);

    editor_model_says(e, 0.9, "f(1);", NULL);
    cr_assert_eq(count(e, id, &item), 1);
    json_t *args = json_object_get(json_object_get(item, "command"), "arguments");

    editor_types(e, A, 0, 8, "f(1);");
    id = editor_request(e, "workspace/executeCommand",
                        "{'command':'redraft.accepted','arguments':['" A "',%lld]}",
                        (long long)json_integer_value(json_array_get(args, 1)));
    json_decref(item);
    cr_assert_eq(count(e, id, NULL), -1);
    cr_assert_eq(editor_job(e)->lane, RD_LANE_IDLE);
    cr_assert_str_eq(e->jobs[0]->prefix.data, "int x = f(1);");
    editor_model_says(e, 0.9, " // one", NULL);
    e->submitted = 0;
    editor_waits(e, 100);
    shows(e, ask(e, 0, 13, 2), " // one", 0, 13, 13);
    cr_assert_eq(e->submitted, 0);
    editor_close(e);
}

Test(suggest, drafts_go_to_those_who_asked_for_them)
{
    editor *e = begin("{\"draft\":true}", "int x = ;\n");
    int id = ask(e, 0, 8, 2);
    rd_job *job = editor_job(e);

    cr_assert(job->watch);
    rd_piece pieces[] = { { 1, 0.5f, RD_MARK_DRAFT }, { 0, 0, RD_MARK_MASK } };
    rd_event ev = { .job = job, .n_answers = 1, .pieces = pieces, .n_pieces = 2 };

    rd_buf_text(&ev.answers[0].text, "4");
    rd_conn_event(e->conn, &ev);
    rd_buf_clear(&ev.answers[0].text);
    json_t *m = editor_note(e, "$/redraft/draft"), *params = json_object_get(m, "params");
    json_t *item = json_array_get(json_object_get(params, "items"), 0);

    cr_assert_eq(json_integer_value(json_object_get(params, "id")), id);
    cr_assert_eq(json_integer_value(json_object_get(params, "seq")), 1);
    cr_assert_str_eq(json_string_value(json_object_get(item, "insertText")), "4");
    cr_assert_eq(json_array_size(json_object_get(item, "pieces")), 2);
    json_decref(m);
    editor_model_says(e, 0.9, "42", NULL);
    shows(e, id, "42", 0, 8, 8);
    editor_close(e);
}

Test(suggest, ordinary_completion_is_for_those_who_set_it)
{
    const char *const request =
        "{'textDocument':{'uri':'" A "'},'position':{'line':0,'character':8}}";
    editor *e = begin(NULL, "int x = ;\n");

    cr_assert_eq(count(e, editor_request(e, "textDocument/completion", request), NULL), 0);
    cr_assert_eq(e->submitted, 0);
    editor_close(e);
    e = begin("{\"completion\":true}", "int x = ;\n");
    int id = editor_request(e, "textDocument/completion", request);
    json_t *item;

    editor_model_says(e, 0.9, "f(1)", NULL);
    cr_assert_eq(count(e, id, &item), 1);
    cr_assert_str_eq(json_string_value(json_object_get(item, "label")), "f(1)");
    cr_assert_str_eq(
        json_string_value(json_object_get(json_object_get(item, "textEdit"), "newText")), "f(1)");
    json_decref(item);
    editor_close(e);
}

Test(suggest, a_closed_document_ends_its_request)
{
    editor *e = begin(NULL, "int x = ;\n");
    int id = ask(e, 0, 8, 2);

    editor_notify(e, "textDocument/didClose", "{'textDocument':{'uri':'" A "'}}");

    cr_assert_eq(count(e, id, NULL), 0);
    cr_assert_null(editor_job(e));
    editor_close(e);
}

Test(suggest, a_document_that_is_opened_again_ends_its_request)
{
    editor *e = begin(NULL, "int x = ;\n");
    int first = ask(e, 0, 8, 1);

    editor_notify(e, "textDocument/didOpen",
                  "{'textDocument':{'uri':'" A "','languageId':'c','version':1,'text':null}}");

    cr_assert_eq(count(e, first, NULL), 0);
    editor_does(e, A, "int x = ;\n");
    int second = ask(e, 0, 8, 1);

    editor_does(e, A, "int y = ;\n");

    cr_assert_eq(count(e, second, NULL), 0);
    editor_close(e);
}

/* ---- what is kept of it beyond this connection ---- */

Test(suggest, only_an_invoked_request_wants_fresh_work)
{
    editor *e = begin(NULL, "int a = \n");

    ask(e, 0, 8, 2);
    editor_waits(e, 100);
    cr_assert_not(editor_job(e)->fresh);
    cr_assert_str_eq(editor_job(e)->source, "/nowhere/a.c");
    cr_assert_eq(editor_job(e)->realm, 0);
    cr_assert_not(editor_job(e)->unstored);
    ask(e, 0, 8, 1);
    cr_assert(editor_job(e)->fresh);
    editor_close(e);
}

Test(suggest, nothing_is_stored_where_the_editor_says_so)
{
    editor *e = begin("{'cache':false}", "int a = \n");

    ask(e, 0, 8, 1);
    cr_assert(editor_job(e)->unstored);
    editor_close(e);
}

Test(suggest, an_excluded_document_is_forgotten_once)
{
    editor *e = begin("{'exclude':['secret.c']}", "int a = \n");

    editor_does(e, "file:///nowhere/secret.c", "int x;\n");
    cr_assert_eq(e->forgets, 1);
    cr_assert_str_eq(e->forgot, "/nowhere/secret.c");
    editor_does(e, "file:///nowhere/secret.c", "int y;\n");
    cr_assert_eq(e->forgets, 1);
    editor_close(e);
}

Test(suggest, a_document_that_becomes_excluded_is_forgotten_though_nobody_asks_about_it)
{
    editor *e = begin(NULL, "int a = \n");

    editor_does(e, "file:///nowhere/b.c", "int x;\n");
    cr_assert_eq(e->forgets, 0);
    editor_notify(e, "workspace/didChangeConfiguration",
                  "{'settings':{'redraft':{'exclude':['b.c']}}}");
    cr_assert_eq(e->forgets, 1);
    cr_assert_str_eq(e->forgot, "/nowhere/b.c");
    editor_close(e);
}
