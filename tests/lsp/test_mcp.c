/* test_mcp.c - an agent's connection: bytes in, bytes out, with the host played by hand and the clock in a variable. */
#include "core/base/memory.h"
#include "lsp/mcp_tools.h"
#include "lsp/peer.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CAPS "\"io.modelcontextprotocol/clientCapabilities\":{}"
#define META "\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\"," CAPS "}"

/* ---- the host ---- */

static double now, wake;
static rd_job *jobs[100];
static int n_jobs, n_cancelled, n_forgotten;

static double now_ms(void *self)
{
    (void)self;
    return now;
}

static void wake_at(void *self, rd_conn *c, double at_ms)
{
    (void)self;
    (void)c;
    wake = at_ms;
}

static void submit(void *self, rd_job *job)
{
    (void)self;
    jobs[n_jobs++] = job;
}

static void cancel(void *self, rd_job *job)
{
    (void)self;
    cr_assert(!rd_cancelled(&job->cancel));
    rd_cancel_set(&job->cancel);
    n_cancelled++;
}

static void forget(void *self, const char *source)
{
    (void)self;
    cr_assert(*source);
    n_forgotten++;
}

static void model(void *self, rd_model_state *out)
{
    (void)self;
    *out = (rd_model_state){ .phase = RD_MODEL_READY };
}

static json_t *status(void *self)
{
    (void)self;
    return json_pack("{s:b, s:i, s:i, s:s, s:{s:s, s:f, s:s}, s:f}", "running", 1, "clients", 3,
                     "jobs", 1, "socket", "/run/secret", "model", "about", "built-in", "step_ms",
                     2.0, "fell_back", "cuda: /home/me/model: no room", "memory_mb", 31.5);
}

static const rd_host host = { .now_ms = now_ms,
                              .wake_at = wake_at,
                              .submit = submit,
                              .cancel = cancel,
                              .forget = forget,
                              .model = model,
                              .status = status };
static char root[64];

/* A folder with `name` in it. */
static void make_root(const char *name, const char *bytes, size_t n)
{
    char path[128];
    FILE *f;

    snprintf(root, sizeof root, "/tmp/rd_mcp_XXXXXX");
    cr_assert(mkdtemp(root));
    snprintf(path, sizeof path, "%s/%s", root, name);
    f = fopen(path, "wb");
    cr_assert(f && fwrite(bytes, 1, n, f) == n && !fclose(f));
}

static void remove_root(const char *name)
{
    char path[128];

    snprintf(path, sizeof path, "%s/%s", root, name);
    unlink(path);
    rmdir(root);
}

static rd_conn *connect_with(const char *const *roots, int n)
{
    static rd_config *config;
    rd_buf complaints = { 0 };

    if (!config) config = rd_config_new("/no/such/settings", &complaints);
    rd_buf_clear(&complaints);
    rd_conn_options o = { .host = &host,
                          .number = 7,
                          .protocol = RD_MCP,
                          .config = config,
                          .roots = roots,
                          .n_roots = n };

    now = 1000;
    return rd_conn_new(&o);
}

/* ---- what is said and heard ---- */

static void say(rd_conn *c, const char *line)
{
    rd_conn_read(c, line, strlen(line));
    rd_conn_read(c, "\n", 1);
}

/* The next message, or NULL when all was heard. It is checked to be one line of JSON-RPC. */
static json_t *heard(rd_conn *c)
{
    rd_buf *out = rd_conn_output(c);
    char *end = out->len ? memchr(out->data, '\n', out->len) : NULL;

    if (out->len == 0) return NULL;
    cr_assert(end, "half a line");
    json_t *m = json_loadb(out->data, (size_t)(end - out->data), 0, NULL);

    cr_assert(json_is_object(m));
    cr_assert_str_eq(json_string_value(json_object_get(m, "jsonrpc")), "2.0");
    size_t rest = out->len - (size_t)(end + 1 - out->data);

    memmove(out->data, end + 1, rest);
    out->len = rest;
    return m;
}

static const json_t *in(const json_t *v, const char *path)
{
    char key[256];

    while (v && *path) {
        size_t n = strcspn(path, "|");

        snprintf(key, sizeof key, "%.*s", (int)n, path);
        v = json_is_array(v) ? json_array_get(v, (size_t)atoi(key)) : json_object_get(v, key);
        path += n + (path[n] == '|');
    }
    return v;
}

static const char *text_in(const json_t *v, const char *path)
{
    const char *text = json_string_value(in(v, path));

    return text ? text : "(no text)";
}

static json_t *asked(rd_conn *c, const char *line)
{
    say(c, line);
    return heard(c);
}

static int code_of(rd_conn *c, const char *line)
{
    json_t *m = asked(c, line);
    int code = (int)json_integer_value(in(m, "error|code"));

    cr_assert(m, "no answer to %s", line);
    cr_assert(code == 0 || *text_in(m, "error|message"));
    json_decref(m);
    return code;
}

static rd_conn *legacy(const char *const *roots, int n)
{
    rd_conn *c = connect_with(roots, n);

    cr_assert_eq(code_of(c, "{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"initialize\",\"params\":{"
                            "\"protocolVersion\":\"2025-11-25\",\"capabilities\":{}}}"),
                 0);
    say(c, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}");
    cr_assert_null(heard(c));
    return c;
}

static void call_with(rd_conn *c, const char *tool, const char *arguments, const char *more)
{
    rd_buf line = { 0 };

    rd_buf_format(&line,
                  "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{"
                  "\"name\":\"%s\",\"arguments\":%s%s}}",
                  tool, arguments, more);
    say(c, line.data);
    rd_buf_clear(&line);
}

/* The job of a call that must be fine. */
static rd_job *called(rd_conn *c, const char *tool, const char *arguments)
{
    int before = n_jobs;

    call_with(c, tool, arguments, "");
    cr_assert_eq(n_jobs, before + 1, "%s %s", tool, arguments);
    cr_assert_null(heard(c));
    return jobs[before];
}

static void step(rd_conn *c, rd_job *job, int n)
{
    rd_event *ev = rd_alloc0(sizeof *ev);

    ev->job = job;
    ev->step = n;
    ev->n_answers = 1;
    rd_buf_text(&ev->answers[0].text, "draft");
    rd_conn_event(c, ev);
    rd_event_free(ev);
}

/* The last event, with that text. */
static rd_event *ended(rd_job *job, const char *text)
{
    rd_event *ev = rd_alloc0(sizeof *ev);

    ev->job = job;
    ev->done = true;
    ev->n_answers = text ? 1 : 0;
    if (text) rd_buf_text(&ev->answers[0].text, text);
    ev->answers[0].confidence = 0.7f;
    ev->tokens = 3;
    ev->forwards = 2;
    ev->ms = 12.5;
    return ev;
}

static void come_back(rd_conn *c, rd_event *ev)
{
    rd_job *job = ev->job;

    rd_conn_event(c, ev);
    rd_event_free(ev);
    rd_job_free(job);
}

/* ---- schemas ---- */

static bool is_type(const json_t *v, const char *type)
{
    return (!strcmp(type, "object") && json_is_object(v)) ||
           (!strcmp(type, "array") && json_is_array(v)) ||
           (!strcmp(type, "string") && json_is_string(v)) ||
           (!strcmp(type, "integer") && json_is_integer(v)) ||
           (!strcmp(type, "number") && json_is_number(v));
}

static void validate(const json_t *v, const json_t *schema)
{
    const json_t *properties = json_object_get(schema, "properties"), *each;
    const char *key;
    size_t i;

    cr_assert(is_type(v, text_in(schema, "type")), "not %s", text_in(schema, "type"));
    json_array_foreach(json_object_get(schema, "required"), i, each) cr_assert(
        json_object_get(v, json_string_value(each)), "%s is missing", json_string_value(each));
    json_object_foreach((json_t *)properties, key, each) if (json_object_get(v, key))
        validate(json_object_get(v, key), each);
    json_object_foreach((json_t *)v, key, each) cr_assert(
        !properties || json_object_size(properties) == 0 || json_object_get(properties, key),
        "%s is not in the schema", key);
    json_array_foreach(v, i, each) validate(each, json_object_get(schema, "items"));
}

/* A call's good answer: both forms the same, and as the tool's schema says. Returns the structured one's owner. */
static json_t *good(rd_conn *c, const char *tool)
{
    json_t *m = heard(c), *list = rd_mcp_tool_list(), *t;
    const json_t *structured = in(m, "result|structuredContent");
    bool found = false;
    size_t i;

    cr_assert(structured, "%s", text_in(m, "result|content|0|text"));
    cr_assert(json_is_false(in(m, "result|isError")));
    json_t *text = json_loads(text_in(m, "result|content|0|text"), 0, NULL);

    cr_assert(json_equal(text, structured));
    json_array_foreach(list, i, t)
    {
        if (strcmp(text_in(t, "name"), tool) != 0) continue;
        validate(structured, in(t, "outputSchema"));
        found = true;
    }
    cr_assert(found);
    json_decref(text);
    json_decref(list);
    return m;
}

/* A call's bad answer says `part`, in text alone. */
static void bad(rd_conn *c, const char *what, const char *part)
{
    json_t *m = heard(c);

    cr_expect(json_is_true(in(m, "result|isError")), "%s: no error", what);
    cr_expect_null(in(m, "result|structuredContent"));
    cr_expect(strstr(text_in(m, "result|content|0|text"), part), "%s: %s", what,
              text_in(m, "result|content|0|text"));
    json_decref(m);
}

/* ---- eras ---- */

Test(mcp, initialize_answers_a_known_version_or_the_latest_legacy_one)
{
    static const char *const cases[][2] = {
        { "\"2025-11-25\"", "2025-11-25" },
        { "\"2025-06-18\"", "2025-06-18" },
        { "\"2025-03-26\"", "2025-03-26" },
        { "\"2024-11-05\"", "2024-11-05" },
        { "\"2024-10-07\"", "2025-11-25" },
        { "\"2026-07-28\"", "2025-11-25" },
        { "7", "2025-11-25" },
        { "null", "2025-11-25" },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rd_conn *c = connect_with(NULL, 0);
        char line[256];

        snprintf(line, sizeof line,
                 "{\"jsonrpc\":\"2.0\",\"id\":\"i\",\"method\":\"initialize\","
                 "\"params\":{\"protocolVersion\":%s}}",
                 cases[i][0]);
        json_t *m = asked(c, line);

        cr_assert_str_eq(text_in(m, "id"), "i");
        cr_assert_str_eq(text_in(m, "result|protocolVersion"), cases[i][1]);
        cr_assert(json_is_object(in(m, "result|capabilities|tools")));
        cr_assert_str_eq(text_in(m, "result|serverInfo|name"), "redraft");
        cr_assert_null(in(m, "result|resultType"));
        json_decref(m);
        rd_conn_free(c);
    }
}

Test(mcp, the_legacy_era_begins_with_initialize_and_ping_may_come_before)
{
    rd_conn *c = connect_with(NULL, 0);

    cr_assert_eq(code_of(c, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}"), 0);
    cr_assert_eq(code_of(c, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\"}"), -32602);
    cr_assert_eq(code_of(c, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\"}"), 0);
    cr_assert_eq(code_of(c, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\"}"), 0);
    cr_assert_eq(code_of(c, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"server/discover\"}"),
                 -32602);
    cr_assert_eq(code_of(c, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"resources/list\"}"),
                 -32601);
    rd_conn_free(c);
}

Test(mcp, a_batch_is_refused_as_a_whole)
{
    rd_conn *c = connect_with(NULL, 0);
    json_t *m = asked(c, "[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}]");

    cr_assert(json_is_null(in(m, "id")));
    cr_assert_eq(json_integer_value(in(m, "error|code")), -32600);
    cr_assert_null(heard(c));
    json_decref(m);
    rd_conn_free(c);
}

Test(mcp, discover_says_what_the_modern_era_needs)
{
    rd_conn *c = connect_with(NULL, 0);
    json_t *m = asked(c, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"server/discover\","
                         "\"params\":{" META "}}");

    cr_assert_str_eq(text_in(m, "result|resultType"), "complete");
    cr_assert_eq(json_array_size(in(m, "result|supportedVersions")), 1);
    cr_assert_str_eq(text_in(m, "result|supportedVersions|0"), "2026-07-28");
    cr_assert(json_is_object(in(m, "result|capabilities|tools")));
    cr_assert_gt(json_integer_value(in(m, "result|ttlMs")), 0);
    cr_assert_str_eq(text_in(m, "result|cacheScope"), "public");
    cr_assert_str_eq(text_in(m, "result|_meta|io.modelcontextprotocol/serverInfo|name"), "redraft");
    cr_assert_null(in(m, "result|serverInfo"));
    json_decref(m);
    rd_conn_free(c);
}

Test(mcp, each_modern_request_carries_its_version_and_capabilities)
{
    static const char *const methods[] = { "server/discover", "tools/list", "tools/call" };
    static const struct {
        const char *meta;
        int code;
    } cases[] = {
        { "{}", -32602 },
        { "{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\"}", -32602 },
        { "{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\","
          "\"io.modelcontextprotocol/clientCapabilities\":[]}",
          -32602 },
        { "{" CAPS "}", -32602 },
        { "{\"io.modelcontextprotocol/protocolVersion\":20260728," CAPS "}", -32602 },
        { "{\"io.modelcontextprotocol/protocolVersion\":\"1900-01-01\"," CAPS "}", -32022 },
        { "{\"io.modelcontextprotocol/protocolVersion\":\"1900-01-01\"}", -32022 },
        { "{\"io.modelcontextprotocol/protocolVersion\":\"2025-11-25\"," CAPS "}", -32022 },
    };
    rd_conn *c = connect_with(NULL, 0);

    for (size_t k = 0; k < sizeof methods / sizeof *methods; k++) {
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            char line[512];

            snprintf(line, sizeof line,
                     "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"%s\","
                     "\"params\":{\"name\":\"status\",\"_meta\":%s}}",
                     methods[k], cases[i].meta);
            cr_assert_eq(code_of(c, line), cases[i].code, "%s", line);
        }
    }
    rd_conn_free(c);
}

Test(mcp, an_unknown_version_is_answered_with_those_that_are)
{
    rd_conn *c = connect_with(NULL, 0);
    json_t *m = asked(
        c, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\",\"params\":{"
           "\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2030-01-01\"," CAPS "}}}");

    cr_assert_str_eq(text_in(m, "error|data|requested"), "2030-01-01");
    cr_assert_eq(json_array_size(in(m, "error|data|supported")), 1);
    cr_assert_str_eq(text_in(m, "error|data|supported|0"), "2026-07-28");
    json_decref(m);
    rd_conn_free(c);
}

Test(mcp, one_connection_may_mix_the_eras)
{
    rd_conn *c = legacy(NULL, 0);
    json_t *old = asked(c, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\"}");
    json_t *modern = asked(c, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\","
                              "\"params\":{" META "}}");

    cr_assert_eq(json_object_size(in(old, "result")), 1);
    cr_assert_str_eq(text_in(modern, "result|resultType"), "complete");
    cr_assert_gt(json_integer_value(in(modern, "result|ttlMs")), 0);
    cr_assert_str_eq(text_in(modern, "result|cacheScope"), "public");
    cr_assert(in(modern, "result|_meta|io.modelcontextprotocol/serverInfo|version"));
    cr_assert(json_equal(in(old, "result|tools"), in(modern, "result|tools")));
    json_decref(old);
    json_decref(modern);
    call_with(c, "status", "{}", "," META);
    modern = good(c, "status");
    cr_assert_str_eq(text_in(modern, "result|resultType"), "complete");
    json_decref(modern);
    call_with(c, "infill", "{}", "," META);
    modern = heard(c);
    cr_assert_str_eq(text_in(modern, "result|resultType"), "complete");
    json_decref(modern);
    rd_conn_free(c);
}

/* ---- the list ---- */

Test(mcp, the_list_is_the_same_to_the_byte)
{
    static const char line[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\"}";
    rd_conn *a = legacy(NULL, 0), *b = legacy(NULL, 0);

    say(a, line);
    call_with(b, "status", "{}", "");
    json_decref(heard(b));
    say(b, line);

    cr_assert_eq(rd_conn_output(a)->len, rd_conn_output(b)->len);
    cr_assert(!memcmp(rd_conn_output(a)->data, rd_conn_output(b)->data, rd_conn_output(a)->len));
    cr_assert_eq(code_of(a, "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"ping\"}"), 0);
    rd_conn_free(a);
    rd_conn_free(b);
}

Test(mcp, tools_say_what_they_take_give_and_do_not_do)
{
    static const char *const names[] = { "infill", "rewrite", "score", "status" };
    json_t *list = rd_mcp_tool_list(), *t;
    size_t i;

    cr_assert_eq(json_array_size(list), 4);
    json_array_foreach(list, i, t)
    {
        const json_t *p;
        const char *key;

        cr_assert_str_eq(text_in(t, "name"), names[i]);
        cr_assert_gt(strlen(text_in(t, "description")), 40u);
        cr_assert_str_eq(text_in(t, "inputSchema|type"), "object");
        cr_assert_str_eq(text_in(t, "outputSchema|type"), "object");
        cr_assert_null(in(t, "inputSchema|oneOf"));
        cr_assert(json_is_true(in(t, "annotations|readOnlyHint")));
        cr_assert(json_is_false(in(t, "annotations|destructiveHint")));
        cr_assert(json_is_true(in(t, "annotations|idempotentHint")));
        cr_assert(json_is_false(in(t, "annotations|openWorldHint")));
        json_object_foreach((json_t *)in(t, "inputSchema|properties"), key, p)
            cr_assert_gt(strlen(text_in(p, "description")), 5u, "%s", key);
    }
    json_decref(list);
}

Test(mcp, a_page_that_does_not_exist_is_refused)
{
    rd_conn *c = legacy(NULL, 0);

    cr_assert_eq(code_of(c, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\","
                            "\"params\":{\"cursor\":\"2\"}}"),
                 -32602);
    rd_conn_free(c);
}

/* ---- arguments ---- */

Test(mcp, a_call_that_is_no_call_is_an_error_of_the_protocol)
{
    static const char *const params[] = {
        "{\"name\":\"write\",\"arguments\":{}}",
        "{\"arguments\":{}}",
        "{\"name\":3}",
        "{}",
        "{\"name\":\"infill\",\"arguments\":[]}",
        "{\"name\":\"infill\",\"arguments\":\"x\"}",
    };
    rd_conn *c = legacy(NULL, 0);

    for (size_t i = 0; i < sizeof params / sizeof *params; i++) {
        char line[256];

        snprintf(line, sizeof line,
                 "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":%s}",
                 params[i]);
        cr_assert_eq(code_of(c, line), -32602, "%s", line);
    }
    rd_conn_free(c);
}

Test(mcp, wrong_arguments_are_told_to_the_agent)
{
    static const char *const cases[][3] = {
        { "infill", "{}", "prefix is missing: infill takes {prefix, suffix} or {path, line" },
        { "infill", "null", "prefix is missing" },
        { "infill", "{\"prefix\":\"a\"}", "suffix is missing" },
        { "infill", "{\"prefix\":null,\"suffix\":\"\"}", "prefix is missing" },
        { "infill", "{\"prefix\":1,\"suffix\":\"\"}", "prefix is not a string" },
        { "infill", "{\"path\":\"a.c\",\"line\":1}", "column is missing" },
        { "infill", "{\"prefix\":\"\",\"path\":\"a.c\",\"line\":1,\"column\":1}",
          "prefix does not go with path" },
        { "infill", "{\"prefix\":\"\",\"suffix\":\"\",\"line\":1}",
          "line does not go with the text itself" },
        { "infill", "{\"path\":7,\"line\":1,\"column\":1}", "path is not a string" },
        { "infill", "{\"path\":\"a.c\",\"line\":0,\"column\":1}", "line is not from 1 to" },
        { "infill", "{\"path\":\"a.c\",\"line\":1.5,\"column\":1}", "line is not a whole number" },
        { "infill", "{\"path\":\"a.c\",\"line\":\"1\",\"column\":1}", "line is not a whole" },
        { "infill", "{\"path\":\"a.c\",\"line\":1e300,\"column\":1}", "line is not from" },
        { "infill", "{\"path\":\"a.c\",\"line\":1,\"column\":1}", "--root DIR" },
        { "infill", "{\"path\":\"a\\u0000.c\",\"line\":1,\"column\":1}", "path holds a NUL" },
        { "infill", "{\"prefix\":\"\",\"suffix\":\"\",\"quality\":1.1}",
          "quality is not from 0 to" },
        { "infill", "{\"prefix\":\"\",\"suffix\":\"\",\"quality\":\"x\"}",
          "quality is not a number" },
        { "infill", "{\"prefix\":\"\",\"suffix\":\"\",\"max_ms\":0}",
          "max_ms is not from 1 to 600" },
        { "infill", "{\"prefix\":\"\",\"suffix\":\"\",\"max_ms\":600001}", "max_ms is not from" },
        { "infill", "{\"prefix\":\"\",\"suffix\":\"\",\"max_tokens\":-1}",
          "max_tokens is not from" },
        { "infill", "{\"prefix\":\"\",\"suffix\":\"\",\"max_tokens\":65537}", "max_tokens is not" },
        { "infill", "{\"prefix\":\"\",\"suffix\":\"\",\"language\":{}}",
          "language is not a string" },
        { "rewrite", "{}", "text is missing" },
        { "rewrite", "{\"path\":\"a.c\",\"first_line\":1}", "last_line is missing" },
        { "rewrite", "{\"text\":\"abc\",\"last_line\":1}", "last_line does not go with the text" },
        { "rewrite", "{\"text\":\"abc\",\"start\":2,\"end\":1}", "no span of the text's 3 bytes" },
        { "rewrite", "{\"text\":\"abc\",\"end\":4}", "no span of the text's 3 bytes" },
        { "rewrite", "{\"text\":\"abc\",\"start\":-1}", "start is not from 0" },
        { "rewrite", "{\"text\":\"\\u00e4\",\"start\":1}", "byte 1 is inside a character" },
        { "rewrite", "{\"text\":\"a\\ud83d\\ude00\",\"end\":3}", "byte 3 is inside a character" },
        { "rewrite", "{\"text\":\"abc\",\"instruction\":3}", "instruction is not a string" },
        { "score", "{}", "text is missing" },
        { "score", "{\"text\":\"x\",\"first_line\":1}", "first_line does not go with" },
    };
    rd_conn *c = legacy(NULL, 0);

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        call_with(c, cases[i][0], cases[i][1], "");
        bad(c, cases[i][1], cases[i][2]);
    }
    cr_assert_eq(n_jobs, 0);
    rd_conn_free(c);
}

Test(mcp, places_in_a_file_are_told_with_its_size)
{
    static const char text[] = "int a;\r\n\xc3\xa4\xf0\x9f\x98\x80x\nlast\n";
    static const char *const cases[][3] = {
        { "infill", "{\"path\":\"a.c\",\"line\":5,\"column\":1}", "a.c has 3 lines, not 5" },
        { "infill", "{\"path\":\"a.c\",\"line\":1,\"column\":8}", "line 1 of a.c has 7 columns" },
        { "infill", "{\"path\":\"a.c\",\"line\":2,\"column\":5}", "line 2 of a.c has 4 columns" },
        { "infill", "{\"path\":\"b.c\",\"line\":1,\"column\":1}", "no such file" },
        { "infill", "{\"path\":\"../b.c\",\"line\":1,\"column\":1}", "not below" },
        { "rewrite", "{\"path\":\"a.c\",\"first_line\":1,\"last_line\":4}", "3 lines, not 4" },
        { "rewrite", "{\"path\":\"a.c\",\"first_line\":3,\"last_line\":2}", "comes before" },
        { "score", "{\"path\":\"a.c\",\"first_line\":9}", "has 3 lines, not 9" },
    };
    static const struct {
        int line, column;
        size_t at;
    } places[] = { { 1, 1, 0 },  { 1, 7, 6 },  { 2, 1, 8 },  { 2, 2, 10 },
                   { 2, 3, 14 }, { 2, 4, 15 }, { 3, 5, 20 }, { 4, 1, 21 } };
    make_root("a.c", text, sizeof text - 1);
    const char *roots[] = { root };
    rd_conn *c = legacy(roots, 1);

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        call_with(c, cases[i][0], cases[i][1], "");
        bad(c, cases[i][1], cases[i][2]);
    }
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        char arguments[128];

        snprintf(arguments, sizeof arguments, "{\"path\":\"a.c\",\"line\":%d,\"column\":%d}",
                 places[i].line, places[i].column);
        rd_job *job = called(c, "infill", arguments);

        cr_assert_eq(job->prefix.len, places[i].at, "%s", arguments);
        cr_assert_eq(job->draft.len, 0);
        cr_assert_eq(job->suffix.len, sizeof text - 1 - places[i].at);
        cr_assert_str_eq(job->language, "a.c");
        come_back(c, ended(job, "x"));
        json_decref(good(c, "infill"));
    }
    remove_root("a.c");
    rd_conn_free(c);
}

/* ---- tools ---- */

Test(mcp, infill_asks_for_what_was_given_and_answers_what_came)
{
    rd_conn *c = legacy(NULL, 0);
    rd_job *job = called(c, "infill",
                         "{\"prefix\":\"a\\u0000b\",\"suffix\":\"c\",\"language\":\"python\","
                         "\"max_tokens\":9,\"quality\":1,\"max_ms\":5.0,\"unknown\":[]}");

    cr_assert_eq(job->conn, 7);
    cr_assert_eq(job->lane, RD_LANE_ASKED);
    cr_assert_eq(job->kind, RD_JOB_INFILL);
    cr_assert_eq(job->prefix.len, 3);
    cr_assert_str_eq(job->suffix.data, "c");
    cr_assert_str_eq(job->language, "python");
    cr_assert_eq(job->max_tokens, 9);
    cr_assert_eq(job->max_ms, 5);
    cr_assert_float_eq(job->quality, 1, 1e-6);
    cr_assert(!job->watch);
    rd_event *ev = ended(job, "x\xff\n");

    ev->reason = RD_REASON_TIME;
    come_back(c, ev);
    cr_assert(memmem(rd_conn_output(c)->data, rd_conn_output(c)->len, "\"confidence\":0.7,", 17));
    json_t *m = good(c, "infill");

    cr_assert_str_eq(text_in(m, "result|structuredContent|completion"), "x\xef\xbf\xbd\n");
    cr_assert_float_eq(json_number_value(in(m, "result|structuredContent|confidence")), 0.7, 1e-9);
    cr_assert_eq(json_integer_value(in(m, "result|structuredContent|tokens")), 3);
    cr_assert_eq(json_integer_value(in(m, "result|structuredContent|forwards")), 2);
    cr_assert_str_eq(text_in(m, "result|structuredContent|reason"), "time");
    json_decref(m);
    job = called(c, "infill", "{\"prefix\":\"\",\"suffix\":\"\"}");
    cr_assert_eq(job->max_tokens, 0);
    cr_assert_eq(job->max_ms, 20000);
    cr_assert_float_eq(job->quality, 0.5, 1e-6);
    cr_assert_null(job->language);
    come_back(c, ended(job, NULL));
    json_decref(good(c, "infill"));
    rd_conn_free(c);
}

static uint64_t realm_below(const char *const *roots, int n)
{
    rd_conn *c = legacy(roots, n);
    rd_job *job = called(c, "infill", "{\"prefix\":\"\",\"suffix\":\"\"}");
    uint64_t realm = job->realm;

    cr_assert_null(job->source);
    cr_assert_not(job->unstored);
    come_back(c, ended(job, NULL));
    json_decref(good(c, "infill"));
    rd_conn_free(c);
    return realm;
}

Test(mcp, what_an_agent_asks_is_kept_apart_from_editors_and_other_folders)
{
    static const char *const a[] = { "/tmp", "/usr" }, *const b[] = { "/usr" };
    uint64_t none = realm_below(NULL, 0), both = realm_below(a, 2), one = realm_below(b, 1);

    cr_assert(none && both && one);
    cr_assert(none != both && none != one && both != one);
    cr_assert_eq(one, realm_below(b, 1));
}

Test(mcp, a_job_says_which_file_it_is_about_and_an_excluded_one_is_forgotten_once)
{
    make_root("a.c", "int a;\n", 7);
    const char *roots[] = { root };
    char real[4096], path[128];
    rd_conn *c = legacy(roots, 1);
    rd_job *job = called(c, "infill", "{\"path\":\"a.c\",\"line\":1,\"column\":1}");

    snprintf(path, sizeof path, "%s/a.c", root);
    cr_assert(realpath(path, real));
    cr_assert_str_eq(job->source, real);
    come_back(c, ended(job, NULL));
    json_decref(good(c, "infill"));
    cr_assert_eq(n_forgotten, 0);
    remove_root("a.c");
    make_root(".env", "int a;\n", 7);
    rd_conn_free(c);
    roots[0] = root;
    c = legacy(roots, 1);
    for (int i = 0; i < 2; i++)
        json_decref(asked(c, "{\"jsonrpc\":\"2.0\",\"id\":5,\"method\":\"tools/call\",\"params\":{"
                             "\"name\":\"infill\",\"arguments\":{\"path\":\".env\",\"line\":1,"
                             "\"column\":1}}}"));
    cr_assert_eq(n_forgotten, 1);
    rd_conn_free(c);
    remove_root(".env");
}

/* The given text with the answer's edits done. */
static void edited(const json_t *structured, const char *given, rd_buf *out)
{
    json_t *e;
    size_t i, at = 0;

    json_array_foreach(in(structured, "edits"), i, e)
    {
        size_t start = (size_t)json_integer_value(in(e, "start"));

        cr_assert_geq(start, at);
        rd_buf_append(out, given + at, start - at);
        rd_buf_text(out, text_in(e, "text"));
        at = (size_t)json_integer_value(in(e, "end"));
    }
    rd_buf_text(out, given + at);
}

Test(mcp, rewrite_gives_the_text_anew_as_edits_and_as_a_diff)
{
    static const struct {
        const char *arguments, *draft, *fresh, *text, *diff;
        int edits;
    } cases[] = {
        { "{\"text\":\"int a = 1;\\nint b;\\n\",\"start\":4,\"end\":9,\"instruction\":\"rename\"}",
          "a = 1", "c = 2", "int c = 2;\nint b;\n",
          "--- a/text\n+++ b/text\n@@ -1,1 +1,1 @@\n-int a = 1;\n+int c = 2;\n", 2 },
        { "{\"text\":\"int a = 1;\\nint b;\\n\"}", "int a = 1;\nint b;\n", "int a = 1;\nint b;\n",
          "int a = 1;\nint b;\n", "", 0 },
        { "{\"text\":\"int a = 1;\\nint b;\\n\",\"start\":11}", "int b;\n", "", "int a = 1;\n",
          "--- a/text\n+++ b/text\n@@ -2,1 +2,0 @@\n-int b;\n", 1 },
    };
    static const char given[] = "int a = 1;\nint b;\n";
    rd_conn *c = legacy(NULL, 0);

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rd_job *job = called(c, "rewrite", cases[i].arguments);
        rd_buf out = { 0 };

        cr_assert_eq(job->kind, RD_JOB_REWRITE);
        cr_assert_str_eq(job->draft.data, cases[i].draft);
        cr_assert_eq(job->instruction.len, i == 0 ? 6 : 0);
        come_back(c, ended(job, cases[i].fresh));
        json_t *m = good(c, "rewrite");
        const json_t *s = in(m, "result|structuredContent");

        cr_assert_str_eq(text_in(s, "text"), cases[i].text);
        cr_assert_str_eq(text_in(s, "diff"), cases[i].diff);
        cr_assert_eq(json_array_size(in(s, "edits")), (size_t)cases[i].edits);
        edited(s, given, &out);
        cr_assert_str_eq(out.data, cases[i].text);
        rd_buf_clear(&out);
        json_decref(m);
    }
    rd_conn_free(c);
}

Test(mcp, rewrite_of_lines_counts_in_the_file)
{
    static const char given[] = "one\ntwo\nthree\n";
    char path[128];
    rd_buf out = { 0 };

    make_root("a.c", given, sizeof given - 1);
    const char *roots[] = { root };
    rd_conn *c = legacy(roots, 1);
    rd_job *job = called(c, "rewrite", "{\"path\":\"a.c\",\"first_line\":2,\"last_line\":2}");

    cr_assert_str_eq(job->prefix.data, "one\n");
    cr_assert_str_eq(job->draft.data, "two");
    cr_assert_str_eq(job->suffix.data, "\nthree\n");
    come_back(c, ended(job, "2"));
    json_t *m = good(c, "rewrite");
    const json_t *s = in(m, "result|structuredContent");

    cr_assert_str_eq(text_in(s, "text"), "2");
    cr_assert_str_eq(text_in(s, "diff"), "--- a/a.c\n+++ b/a.c\n@@ -2,1 +2,1 @@\n-two\n+2\n");
    edited(s, given, &out);
    cr_assert_str_eq(out.data, "one\n2\nthree\n");
    rd_buf_clear(&out);
    json_decref(m);
    struct stat st;

    snprintf(path, sizeof path, "%s/a.c", root);
    cr_assert(!stat(path, &st) && st.st_size == sizeof given - 1, "the file was written");
    remove_root("a.c");
    rd_conn_free(c);
}

Test(mcp, score_counts_in_what_was_given)
{
    rd_buf file = { 0 };

    for (int i = 0; i < 2000; i++) rd_buf_text(&file, "int x;\n");
    make_root("a.c", file.data, file.len);
    const char *roots[] = { root };
    rd_conn *c = legacy(roots, 1);
    rd_job *job = called(c, "score", "{\"path\":\"a.c\",\"first_line\":1001,\"last_line\":1002}");

    cr_assert_eq(job->kind, RD_JOB_SCORE);
    cr_assert_str_eq(job->draft.data, "int x;\nint x;");
    cr_assert_gt(job->prefix.len, 1900u);
    cr_assert_leq(job->prefix.len, 2048u);
    cr_assert(!memcmp(job->prefix.data, "int x;\n", 7));
    cr_assert_leq(job->suffix.len, 1024u);
    rd_event *ev = ended(job, NULL);

    ev->scores = rd_alloc_array(1, sizeof *ev->scores);
    ev->n_scores = 1;
    ev->scores[0] = (rd_score){ .start = 4, .end = 5, .p = 0.25f, .p_best = 0.5f, .best = "y" };
    come_back(c, ev);
    json_t *m = good(c, "score");
    const json_t *t = in(m, "result|structuredContent|tokens|0");

    cr_assert_eq(json_integer_value(in(t, "start")), 7004);
    cr_assert_eq(json_integer_value(in(t, "end")), 7005);
    cr_assert_str_eq(text_in(t, "best"), "y");
    json_decref(m);
    job = called(c, "score", "{\"path\":\"a.c\"}");
    cr_assert_eq(job->draft.len, file.len - 1);
    come_back(c, ended(job, NULL));
    json_decref(good(c, "score"));
    job = called(c, "score", "{\"text\":\"\"}");
    come_back(c, ended(job, NULL));
    json_decref(good(c, "score"));
    remove_root("a.c");
    rd_buf_clear(&file);
    rd_conn_free(c);
}

Test(mcp, score_refuses_more_than_is_scored_at_once)
{
    rd_conn *c = legacy(NULL, 0);
    rd_buf arguments = { 0 };

    rd_buf_text(&arguments, "{\"text\":\"");
    for (size_t i = 0; i < RD_MOST_SCORED_BYTES; i++) rd_buf_text(&arguments, "x");
    rd_buf_text(&arguments, "x\"}");
    call_with(c, "score", arguments.data, "");
    bad(c, "too much", "262145 bytes are more than the 262144");
    rd_buf_clear(&arguments);
    rd_conn_free(c);
}

Test(mcp, status_says_what_runs_and_not_what_editors_do)
{
    rd_conn *c = legacy(NULL, 0);

    call_with(c, "status", "{}", "");
    json_t *m = good(c, "status");

    json_t *told = json_object_get(json_object_get(m, "result"), "structuredContent");

    cr_assert_str_eq(text_in(m, "result|structuredContent|model|about"), "built-in");
    cr_assert_eq(json_object_size(json_object_get(told, "model")), 1);
    cr_assert_eq(json_object_size(told), 3, "running, model and memory_mb");
    json_decref(m);
    rd_conn_free(c);
}

Test(mcp, a_failed_model_is_told_in_words)
{
    rd_conn *c = legacy(NULL, 0);
    rd_job *job = called(c, "infill", "{\"prefix\":\"\",\"suffix\":\"\"}");
    rd_event *ev = ended(job, NULL);

    ev->status = rd_fail(&ev->err, RD_DEVICE, "the device is gone");
    come_back(c, ev);
    bad(c, "failed", "the device is gone");
    rd_conn_free(c);
}

/* ---- progress, cancelling, time ---- */

static void expect_progress(rd_conn *c, const char *token, int value)
{
    json_t *m = heard(c), *want = json_loads(token, JSON_DECODE_ANY, NULL);

    cr_assert_str_eq(text_in(m, "method"), "notifications/progress");
    cr_assert(json_equal(in(m, "params|progressToken"), want));
    cr_assert_eq(json_integer_value(in(m, "params|progress")), value);
    json_decref(want);
    json_decref(m);
}

Test(mcp, progress_grows_and_ends_with_the_result)
{
    static const char *const tokens[] = { "\"abc\"", "7", "0" };

    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
        rd_conn *c = legacy(NULL, 0);
        char meta[64];

        snprintf(meta, sizeof meta, ",\"_meta\":{\"progressToken\":%s}", tokens[i]);
        call_with(c, "infill", "{\"prefix\":\"\",\"suffix\":\"\"}", meta);
        rd_job *job = jobs[n_jobs - 1];

        cr_assert(job->watch);
        step(c, job, 1);
        expect_progress(c, tokens[i], 1);
        now += 5;
        step(c, job, 2); /* too soon for a reader */
        now += 20;
        step(c, job, 1); /* not further */
        cr_assert_null(heard(c));
        step(c, job, 4);
        expect_progress(c, tokens[i], 4);
        come_back(c, ended(job, "x"));
        json_decref(good(c, "infill"));
        cr_assert_null(heard(c));
        rd_conn_free(c);
    }
}

Test(mcp, without_a_token_there_is_no_progress)
{
    static const char *const metas[] = { "", ",\"_meta\":{}", ",\"_meta\":{\"progressToken\":1.5}",
                                         ",\"_meta\":{\"progressToken\":null}", ",\"_meta\":[]" };

    for (size_t i = 0; i < sizeof metas / sizeof *metas; i++) {
        rd_conn *c = legacy(NULL, 0);

        call_with(c, "infill", "{\"prefix\":\"\",\"suffix\":\"\"}", metas[i]);
        rd_job *job = jobs[n_jobs - 1];

        cr_assert(!job->watch);
        step(c, job, 1);
        cr_assert_null(heard(c));
        come_back(c, ended(job, "x"));
        json_decref(good(c, "infill"));
        rd_conn_free(c);
    }
}

Test(mcp, a_cancelled_call_is_never_heard_of_again)
{
    rd_conn *c = legacy(NULL, 0);

    call_with(c, "infill", "{\"prefix\":\"\",\"suffix\":\"\"}", ",\"_meta\":{\"progressToken\":1}");
    rd_job *job = jobs[0];

    say(c, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\","
           "\"params\":{\"requestId\":\"1\"}}");
    say(c, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{}}");
    cr_assert_eq(n_cancelled, 0);
    say(c, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\","
           "\"params\":{\"requestId\":1,\"reason\":\"no\"}}");
    cr_assert_eq(n_cancelled, 1);
    cr_assert_eq(wake, 0);
    step(c, job, 2);
    rd_event *ev = ended(job, NULL);

    ev->status = rd_fail(&ev->err, RD_CANCELLED, "cancelled");
    come_back(c, ev);
    cr_assert_null(heard(c));
    job = called(c, "infill", "{\"prefix\":\"\",\"suffix\":\"\"}"); /* the id is free again */
    come_back(c, ended(job, "x"));
    json_decref(good(c, "infill"));
    rd_conn_free(c);
}

Test(mcp, ids_come_back_as_they_were)
{
    static const char *const ids[] = { "\"a\"", "\"1\"", "1", "0", "-5", "9007199254740991" };
    rd_conn *c = legacy(NULL, 0);

    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        char line[256];
        json_t *want = json_loads(ids[i], JSON_DECODE_ANY, NULL);

        snprintf(line, sizeof line,
                 "{\"jsonrpc\":\"2.0\",\"id\":%s,\"method\":\"tools/call\",\"params\":{"
                 "\"name\":\"infill\",\"arguments\":{\"prefix\":\"\",\"suffix\":\"\"}}}",
                 ids[i]);
        say(c, line);
        come_back(c, ended(jobs[n_jobs - 1], "x"));
        json_t *m = good(c, "infill");

        cr_assert(json_equal(in(m, "id"), want));
        json_decref(want);
        json_decref(m);
    }
    rd_conn_free(c);
}

Test(mcp, calls_are_answered_in_the_order_in_which_they_end)
{
    rd_conn *c = legacy(NULL, 0);
    static const char line[] =
        "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"tools/call\",\"params\":{"
        "\"name\":\"score\",\"arguments\":{\"text\":\"x\"}}}";
    rd_job *first = called(c, "infill", "{\"prefix\":\"\",\"suffix\":\"\"}");

    say(c, line);
    cr_assert_neq(first->id, jobs[1]->id);
    come_back(c, ended(jobs[1], NULL));
    json_t *m = good(c, "score");

    cr_assert_eq(json_integer_value(in(m, "id")), 2);
    json_decref(m);
    come_back(c, ended(first, "x"));
    m = good(c, "infill");
    cr_assert_eq(json_integer_value(in(m, "id")), 1);
    json_decref(m);
    rd_conn_free(c);
}

Test(mcp, a_call_that_waits_too_long_is_answered_all_the_same)
{
    rd_conn *c = legacy(NULL, 0);
    rd_job *job = called(c, "infill", "{\"prefix\":\"\",\"suffix\":\"\"}");
    double due = wake;

    cr_assert_gt(due, now + 20000);
    cr_assert_lt(due, now + 60000, "clients give up after a minute");
    now = due - 1;
    rd_conn_tick(c);
    cr_assert_null(heard(c));
    now = due;
    rd_conn_tick(c);
    bad(c, "late", "Try again later");
    cr_assert_eq(n_cancelled, 1);
    cr_assert_eq(wake, 0);
    come_back(c, ended(job, "x"));
    cr_assert_null(heard(c));
    rd_conn_free(c);
}

Test(mcp, more_calls_than_can_wait_are_refused)
{
    rd_conn *c = legacy(NULL, 0);
    char line[256];

    for (int i = 0; i <= RD_MOST_TOOL_CALLS; i++) {
        snprintf(line, sizeof line,
                 "{\"jsonrpc\":\"2.0\",\"id\":%d,\"method\":\"tools/call\",\"params\":{"
                 "\"name\":\"score\",\"arguments\":{\"text\":\"x\"}}}",
                 10 + i);
        say(c, line);
    }
    cr_assert_eq(n_jobs, RD_MOST_TOOL_CALLS);
    bad(c, "one more", "too many calls");
    rd_conn_free(c);
    cr_assert_eq(n_cancelled, RD_MOST_TOOL_CALLS);
    for (int i = 0; i < n_jobs; i++) rd_job_free(jobs[i]);
}

Test(mcp, a_peer_that_leaves_takes_its_calls_along)
{
    rd_conn *c = legacy(NULL, 0);
    rd_job *job = called(c, "infill", "{\"prefix\":\"\",\"suffix\":\"\"}");
    int code = 9;

    rd_conn_end(c);

    cr_assert(rd_conn_is_over(c, &code));
    cr_assert_eq(code, 0);
    cr_assert_eq(n_cancelled, 1);
    come_back(c, ended(job, "x"));
    cr_assert_null(heard(c));
    rd_conn_free(c);
}
