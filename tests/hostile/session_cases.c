/* session_cases.c - hostile peers of a daemon: an editor's and an agent's sessions, each with what must come of it.
 *
 * After each case a request as it should be is answered, and at the end the program leaves with 0: whatever a peer says, it
 * gets its answers and nothing is the worse for it. Where the stream itself is broken the program leaves instead.
 */
#include "hostile.h"

#include "core/base/clock.h"
#include "lsp/limits.h"
#include "lsp/message.h"
#include "tests/e2e/client.h"
#include "tests/fake/forms.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ANSWER_MS = 20000, IDS = 65536, GONE = 1, EDITS_MANY = 5000 };

/* A session under way, and which ids were answered. */
typedef struct session {
    hostile *h;
    client c;
    bool mcp;
    int last_id;
    unsigned char answers[IDS];
} session;

/* ---- what is said and heard ---- */

static void say(session *s, const rd_buf *json)
{
    client_send_bytes(&s->c, json->data, json->len);
}

static void say_form(session *s, const form *f, const spoilt *change, int *id)
{
    rd_buf json = { 0 };

    *id = f->is_request ? ++s->last_id : 0;
    form_write(f, *id, change, change ? 1 : 0, &json);
    say(s, &json);
    rd_buf_clear(&json);
}

/* The answer to a request; on the way the answers to others are counted. NULL: it did not come. */
static json_t *hear(session *s, int id)
{
    double until = rd_now_ms() + ANSWER_MS;
    json_t *m;

    while ((m = client_read(&s->c, (int)(until - rd_now_ms())))) {
        json_int_t of = json_integer_value(json_object_get(m, "id"));

        if (of > 0 && of < IDS) s->answers[of]++;
        if (of == id) return m;
        json_decref(m);
    }
    return NULL;
}

static int code_of(const json_t *answer)
{
    if (!answer) return GONE;
    return (int)json_integer_value(json_object_get(json_object_get(answer, "error"), "code"));
}

/* Say what the format makes of the id and ' for ", hear its answer's code: 0 for a result. */
static int ask(session *s, const char *format)
{
    rd_buf json = { 0 };
    int id = ++s->last_id;

    rd_buf_format(&json, "{\"jsonrpc\":\"2.0\",\"id\":%d,", id);
    rd_buf_text(&json, format);
    rd_buf_text(&json, "}");
    for (char *at = json.data; *at; at++)
        if (*at == '\'') *at = '"';
    say(s, &json);
    rd_buf_clear(&json);
    json_t *answer = hear(s, id);
    int code = code_of(answer);

    json_decref(answer);
    return code;
}

/* ---- a session's frame ---- */

static bool begin(session *s, hostile *h, bool mcp)
{
    const form *forms = mcp ? forms_mcp : forms_lsp;
    const char *roots = named("%s/root", getenv("HOME"));
    const char *lsp[] = { h->redraft, "stdio", "--alone", NULL },
               *agent[] = { h->redraft, "mcp", "--alone", "--root", roots, NULL };
    int id;

    *s = (session){ .h = h, .mcp = mcp };
    client_start(&s->c, mcp ? agent : lsp, mcp ? RD_FRAMING_LINE : RD_FRAMING_HEADER);
    say_form(s, &forms[0], NULL, &id);
    json_t *answer = hear(s, id);
    bool well = code_of(answer) == 0;

    json_decref(answer);
    say_form(s, &forms[1], NULL, &id);
    return well;
}

/* A request as it should be: an array of `items` or a tool's content comes back. */
static bool is_well(session *s)
{
    int id;

    if (s->mcp) {
        say_form(s, &forms_mcp[5], NULL, &id);
    } else {
        client_open(&s->c, "file:///w/good.c",
                    "int \xc2\xab"
                    "x\xc2\xbb = ");
        client_ask(&s->c, id = ++s->last_id, "file:///w/good.c", 12);
    }
    json_t *answer = hear(s, id);
    const json_t *result = json_object_get(answer, "result");
    bool well = s->mcp ? json_is_false(json_object_get(result, "isError"))
                       : json_is_array(json_object_get(result, "items"));

    json_decref(answer);
    return well && s->c.garbage == 0;
}

static void holds(session *s, const char *name, bool outcome)
{
    hostile_holds(s->h, name, outcome && is_well(s));
}

static void end(session *s, const char *name)
{
    bool once = true;
    int code = 0;

    if (!s->mcp) code = ask(s, "'method':'shutdown'");
    if (!s->mcp) client_send(&s->c, "{'jsonrpc':'2.0','method':'exit'}");
    for (int i = 0; i < IDS; i++) once &= s->answers[i] <= 1;
    hostile_holds(s->h, named("%s: each id once, and the end", name),
                  client_end(&s->c) == 0 && code == 0 && once);
}

/* ---- each place of each message with each value ---- */

static void spoil(session *s, const form *f, size_t place, const char *value)
{
    const spoilt change = { place, value };
    int id;

    say_form(s, f, &change, &id);
    if (!id) return;
    json_t *answer = hear(s, id);

    if (!answer)
        hostile_holds(s->h, named("%s: place %zu is %s", f->method, place, value ? value : "gone"),
                      false);
    json_decref(answer);
}

static void wrong_values(hostile *h, bool mcp)
{
    const form *forms = mcp ? forms_mcp : forms_lsp;
    size_t n = mcp ? forms_mcp_count : forms_lsp_count;

    for (size_t i = 1; i < n; i++) {
        session s;
        bool began = begin(&s, h, mcp);
        int id;

        for (size_t place = 0; began && place < form_places(&forms[i]); place++)
            for (size_t v = 0; v <= form_values_count; v++) {
                if (!mcp) say_form(&s, &forms[2], NULL, &id);
                spoil(&s, &forms[i], place, v < form_values_count ? form_values[v] : NULL);
            }
        holds(&s, named("%s with wrong values", forms[i].method), began);
        end(&s, forms[i].method);
    }
}

/* One process for each, so not all of them: each place sees some, and each value stands somewhere. */
static void wrong_beginnings(hostile *h, bool mcp)
{
    const form *f = mcp ? forms_mcp : forms_lsp;
    size_t places = form_places(f);

    for (size_t k = 0; k < 3 * form_values_count; k++) {
        session s = { .h = h, .mcp = mcp };
        const char *const argv[] = { h->redraft, mcp ? "mcp" : "stdio", "--alone", NULL };
        int id;

        client_start(&s.c, argv, mcp ? RD_FRAMING_LINE : RD_FRAMING_HEADER);
        spoil(&s, f, (k * 7) % places, form_values[k % form_values_count]);
        spoil(&s, f, SIZE_MAX, "null"); /* as it should be, for where it was refused */
        say_form(&s, &f[1], NULL, &id);
        holds(&s,
              named("initialize: place %zu is %s", (k * 7) % places,
                    form_values[k % form_values_count]),
              true);
        client_end(&s.c);
    }
}

/* ---- frames ---- */

static void repeat(rd_buf *out, const char *text, size_t times)
{
    while (times-- > 0) rd_buf_text(out, text);
}

/* A frame of which `middle` is said many times. `code`: of the error with id null; 0: there is none. */
typedef struct torn {
    const char *name, *start, *middle;
    size_t times;
    const char *stop;
    int code;
} torn;

static const torn frames[] = {
    { "no JSON", "{", "", 0, "", RD_PARSE_ERROR },
    { "half a message", "{\"jsonrpc\":\"2.0\",\"id\":1,\"meth", "", 0, "", RD_PARSE_ERROR },
    { "two messages in a frame", "{}{}", "", 0, "", RD_PARSE_ERROR },
    { "bytes", "\x01\xff\xfe", "", 0, "", RD_PARSE_ERROR },
    { "a batch", "[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"x\"}]", "", 0, "",
      RD_INVALID_REQUEST },
    { "a method that is a number", "{\"jsonrpc\":\"2.0\",\"method\":1}", "", 0, "",
      RD_INVALID_REQUEST },
    { "an id that is an object", "{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"ping\"}", "", 0, "",
      RD_INVALID_REQUEST },
    { "an id of 300 bytes", "{\"jsonrpc\":\"2.0\",\"method\":\"ping\",\"id\":\"", "x", 300, "\"}",
      RD_INVALID_REQUEST },
    { "10000 levels", "{\"jsonrpc\":\"2.0\",\"method\":\"x\",\"params\":", "[", 10000, "",
      RD_PARSE_ERROR },
    { "65 levels", "{\"jsonrpc\":\"2.0\",\"method\":\"x\",\"params\":{\"a\":", "[", 65, "",
      RD_PARSE_ERROR },
    { "200001 values", "{\"jsonrpc\":\"2.0\",\"method\":\"x\",\"params\":{\"a\":[0", ",0", 200001,
      "]}}", RD_PARSE_ERROR },
    { "one key 100000 times", "{\"jsonrpc\":\"2.0\",\"method\":\"x\",\"params\":{\"a\":1",
      ",\"a\":1", 100000, "}}", RD_PARSE_ERROR },
    { "2 MiB beside the text", "{\"jsonrpc\":\"2.0\",\"method\":\"x\",\"params\":{\"a\":\"", "x",
      2 << 20, "\"}}", RD_PARSE_ERROR },
    { "a number of 100000 digits", "{\"jsonrpc\":\"2.0\",\"method\":\"x\",\"params\":{\"a\":", "9",
      100000, "}}", RD_PARSE_ERROR },
    { "a response to nothing", "{\"jsonrpc\":\"2.0\",\"id\":77,\"result\":{}}", "", 0, "", 0 },
    { "neither method nor id", "{\"jsonrpc\":\"2.0\"}", "", 0, "", 0 },
    { "a method of 100000 bytes", "{\"jsonrpc\":\"2.0\",\"method\":\"", "x", 100000, "\"}", 0 },
};

/* The code of the error without an id that came before the answer to `id`; 0: none. */
static int code_before(session *s, int id)
{
    double until = rd_now_ms() + ANSWER_MS;
    json_t *m;
    int code = 0;

    while ((m = client_read(&s->c, (int)(until - rd_now_ms())))) {
        bool mine = json_integer_value(json_object_get(m, "id")) == id;

        if (json_is_null(json_object_get(m, "id"))) code = code_of(m);
        json_decref(m);
        if (mine) return code;
    }
    return GONE;
}

static void torn_frames(session *s)
{
    for (size_t i = 0; i < sizeof frames / sizeof *frames; i++) {
        const torn *t = &frames[i];
        rd_buf json = { 0 };
        int id = ++s->last_id;

        rd_buf_text(&json, t->start);
        repeat(&json, t->middle, t->times);
        rd_buf_text(&json, t->stop);
        say(s, &json);
        rd_buf_clear(&json);
        client_send(&s->c, "{'jsonrpc':'2.0','id':%d,'method':'ping'}", id);
        int code = code_before(s, id);

        if (code != t->code) printf("%s: %d\n", t->name, code);
        holds(s, t->name, code == t->code);
    }
}

/* With headers a broken frame ends the stream: the program leaves, by itself and in order. */
static void broken_streams(hostile *h)
{
    static const char *const starts[] = {
        "Content-Length: -1\r\n\r\n{}",
        "Content-Length: 99999999999999999999\r\n\r\n{}",
        "Content-Length: 16777217\r\n\r\n",
        "Content-Length: 1e3\r\n\r\n{}",
        "Content-Length:\r\n\r\n{}",
        "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}x",
        "Content-Type: x\r\n\r\n{}",
        "\r\n\r\n{}",
        "{}{}{}{}\n\n",
        "GET / HTTP/1.1\r\n\r\n",
        "Content-Length: 1000\r\n\r\n{\"jsonrpc\"",
    };

    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++) {
        session s;
        bool began = begin(&s, h, false);

        client_send_raw(&s.c, starts[i], strlen(starts[i]));
        int status = client_end(&s.c);

        hostile_holds(h, named("stream %zu ends the session", i), began && status == 1);
    }
}

/* ---- an editor's ---- */

#define OPEN(uri, version, text)                                                             \
    "{'jsonrpc':'2.0','method':'textDocument/didOpen','params':{'textDocument':{'uri':'" uri \
    "','languageId':'c','version':" version ",'text':'" text "'}}}"
#define CHANGE(uri, version, changes)                                                          \
    "{'jsonrpc':'2.0','method':'textDocument/didChange','params':{'textDocument':{'uri':'" uri \
    "','version':" version "},'contentChanges':" changes "}}"
#define RANGE(a, b, c, d) \
    "'range':{'start':{'line':" a ",'character':" b "},'end':{'line':" c ",'character':" d "}}"

static void documents(session *s)
{
    static const struct {
        const char *name, *message;
    } cases[] = {
        { "a change of a document that is not open",
          CHANGE("file:///w/no.c", "2", "[{'text':'x'}]") },
        { "a version that goes back", CHANGE("file:///w/good.c", "-5", "[{'text':'x'}]") },
        { "a version of 2^53", CHANGE("file:///w/good.c", "9007199254740993", "[{'text':'x'}]") },
        { "an edit behind the end",
          CHANGE("file:///w/good.c", "3",
                 "[{" RANGE("9", "9", "4294967295", "4294967295") ",'text':'x'}]") },
        { "an edit that ends before it begins",
          CHANGE("file:///w/good.c", "4", "[{" RANGE("0", "9", "0", "2") ",'text':'x'}]") },
        { "an edit with a negative line",
          CHANGE("file:///w/good.c", "5", "[{" RANGE("-1", "0", "0", "2") ",'text':'x'}]") },
        { "an edit without a text",
          CHANGE("file:///w/good.c", "6", "[{" RANGE("0", "0", "0", "2") "}]") },
        { "changes that are no array", CHANGE("file:///w/good.c", "7", "{}") },
        { "half a surrogate pair", CHANGE("file:///w/good.c", "8", "[{'text':'a\\ud83d'}]") },
        { "the other half of it",
          CHANGE("file:///w/good.c", "9", "[{" RANGE("0", "2", "0", "2") ",'text':'\\ude00'}]") },
        { "a NUL in the text", CHANGE("file:///w/good.c", "10", "[{'text':'a\\u0000b'}]") },
        { "bytes that are not UTF-8",
          CHANGE("file:///w/good.c", "11", "[{'text':'\xff\xc0\xaf'}]") },
        { "a NUL in the name", OPEN("file:///w/a\\u0000.c", "1", "x") },
        { "an empty name", OPEN("", "1", "x") },
        { "a name with a folder that is a file", OPEN("file:///etc/passwd/x.c", "1", "x") },
        { "a name that goes up", OPEN("file:///../../../../etc/shadow", "1", "x") },
        { "a name under /proc", OPEN("file:///proc/self/mem", "1", "x") },
        { "a name that is a folder", OPEN("file:///", "1", "x") },
        { "a document that is opened twice", OPEN("file:///w/good.c", "1", "x") },
        { "a document that is closed and was not open",
          "{'jsonrpc':'2.0','method':'textDocument/didClose','params':{'textDocument':{'uri':"
          "'file:///w/no.c'}}}" },
        { "a cancel of what does not exist",
          "{'jsonrpc':'2.0','method':'$/cancelRequest','params':{'id':987654321}}" },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        client_send(&s->c, "%s", cases[i].message);
        holds(s, cases[i].name, true);
    }
    client_send(&s->c, OPEN("file:///w/many.c", "1", "x"));
    for (int i = 0; i < EDITS_MANY; i++) client_insert(&s->c, "file:///w/many.c", i + 2, 0, "y");
    holds(s, "5000 edits in one go", true);
}

#define DATA(more) "'method':'codeAction/resolve','params':{'title':'x','data':{" more "}}"
#define OF         "'uri':'file:///w/a.c','version':1,"
#define RUN(name, argument) \
    "'method':'workspace/executeCommand','params':{'command':'" name "','arguments':[" argument "]}"

/* Real data of an action but for its end: behind the text. */
static void span_behind_the_end(session *s)
{
    int id;

    say_form(s, &forms_lsp[2], NULL, &id);
    say_form(s, &forms_lsp[9], NULL, &id);
    json_t *offered = hear(s, id);
    json_t *action = json_array_get(json_object_get(offered, "result"), 0);

    json_object_set_new(json_object_get(action, "data"), "end", json_integer(1000000));
    client_send_json(&s->c, json_pack("{s:s, s:i, s:s, s:O}", "jsonrpc", "2.0", "id", ++s->last_id,
                                      "method", "codeAction/resolve", "params", action));
    json_t *answer = hear(s, s->last_id);

    holds(s, "a span behind the end", code_of(answer) == RD_INVALID_PARAMS);
    json_decref(answer);
    json_decref(offered);
}

/* What is forged is refused with a code. */
static void forged(session *s)
{
    static const struct {
        const char *name, *message;
        int code;
    } cases[] = {
        { "data of nothing", DATA(""), RD_INVALID_PARAMS },
        { "data that is a text", "'method':'codeAction/resolve','params':{'data':'x'}",
          RD_INVALID_PARAMS },
        { "a span of 2^63",
          DATA(OF "'revision':0,'kind':'rewrite','start':0,'end':9223372036854775807"),
          RD_INVALID_PARAMS },
        { "a span that begins below 0", DATA(OF "'revision':0,'kind':'rewrite','start':-1,'end':3"),
          RD_INVALID_PARAMS },
        { "a span that ends before it begins",
          DATA(OF "'revision':0,'kind':'rewrite','start':5,'end':3"), RD_INVALID_PARAMS },
        { "a kind that is not offered", DATA(OF "'revision':0,'kind':'flag','start':0,'end':3"),
          RD_INVALID_PARAMS },
        { "a document that is not open",
          DATA("'uri':'file:///w/no.c','revision':0,'kind':'rewrite','start':0,'end':3"),
          RD_INVALID_PARAMS },
        { "an excluded document",
          DATA("'uri':'file:///w/.env','revision':0,'kind':'rewrite',"
               "'start':0,'end':3"),
          RD_INVALID_PARAMS },
        { "a command that is not ours", RUN("rm", ""), RD_INVALID_PARAMS },
        { "a command that is a number",
          "'method':'workspace/executeCommand','params':{'command':1}", RD_INVALID_PARAMS },
        { "arguments that are no array",
          "'method':'workspace/executeCommand','params':{'command':'redraft.fill','arguments':{}}",
          RD_INVALID_PARAMS },
        { "a command without a range", RUN("redraft.rewrite", "{'uri':'file:///w/a.c'}"),
          RD_INVALID_PARAMS },
        { "a command for another version",
          RUN("redraft.rewrite",
              "{'uri':'file:///w/a.c','version':-7," RANGE("0", "0", "0", "2") "}"),
          RD_CONTENT_MODIFIED },
        { "a command for an excluded document",
          RUN("redraft.rewrite", "{'uri':'file:///w/.env'," RANGE("0", "0", "0", "2") "}"),
          RD_INVALID_PARAMS },
        { "an accepted text that was never shown",
          RUN("redraft.accepted", "'file:///w/a.c',9223372036854775807"), 0 },
    };

    span_behind_the_end(s);
    client_open(&s->c, "file:///w/.env", "KEY=1\\n");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int code = ask(s, cases[i].message);

        if (code != cases[i].code) printf("%s: %d\n", cases[i].name, code);
        holds(s, cases[i].name, code == cases[i].code);
    }
}

/* Its own questions - configuration, applyEdit, progress - answered with anything. */
static void rubbish_replies(session *s)
{
    for (size_t v = 0; v < form_values_count; v++) {
        const char *replies[] = { form_values[v], named("[%s]", form_values[v]),
                                  named("{\"applied\":%s,\"failureReason\":%s}", form_values[v],
                                        form_values[v]) };

        for (int k = 0; k < 3; k++) {
            int id;

            if (strlen(replies[k]) > 4096) continue;
            s->c.reply = replies[k];
            say_form(s, &forms_lsp[2], NULL, &id);
            client_send(&s->c, "{'jsonrpc':'2.0','method':'workspace/didChangeConfiguration',"
                               "'params':{'settings':null}}");
            ask(s, RUN("redraft.rewrite", "{'uri':'file:///w/a.c'," RANGE("1", "0", "1", "8") "}"));
            holds(s, named("its questions are answered with %s", replies[k]), true);
        }
    }
    hostile_holds(s->h, "it asked for configuration and edits", s->c.asked > 100);
    s->c.reply = NULL;
}

/* ---- many ---- */

static long rss_kb(const session *s)
{
    char path[64], line[256];
    long kb = 0;

    snprintf(path, sizeof path, "/proc/%d/status", (int)s->c.pid);
    FILE *f = fopen(path, "r");

    while (f && fgets(line, sizeof line, f)) sscanf(line, "VmRSS: %ld", &kb);
    if (f) fclose(f);
    return kb;
}

/* What has come so far, so that its pipe is not full. */
static void drain(session *s)
{
    for (json_t *m; (m = client_read(&s->c, 1)); json_decref(m)) {
        json_int_t of = json_integer_value(json_object_get(m, "id"));

        if (of > 0 && of < IDS) s->answers[of]++;
    }
}

static void many_documents(session *s)
{
    long before = rss_kb(s);

    for (int i = 0; i < 10000; i++) {
        client_open(&s->c, named("file:///w/d%d.c", i), "int x;");
        if (i % 100 == 99) drain(s);
    }
    holds(s, "10000 documents are opened", true);
    printf("10000 documents: %ld kB, before %ld kB\n", rss_kb(s), before);
    holds(s, "the first of them is still there",
          ask(s, "'method':'textDocument/inlineCompletion','params':{'textDocument':{'uri':"
                 "'file:///w/d0.c'},'position':{'line':0,'character':0},'context':"
                 "{'triggerKind':1}}") == 0);
}

/* More than may be open at once, and all of an editor's cancelled. */
static void requests_in_flight(session *s)
{
    enum { REQUESTS = 2000, DOCUMENTS = 1500 };
    int first = s->last_id + 1, answered = 0, id;

    for (int i = 0; i < DOCUMENTS && !s->mcp; i++)
        client_open(&s->c, named("file:///w/d%d.c", i), "// @us=2000");
    for (int i = 0; i < REQUESTS; i++) {
        if (s->mcp)
            say_form(s, &forms_mcp[9], NULL, &id);
        else
            client_ask(&s->c, ++s->last_id, named("file:///w/d%d.c", i % DOCUMENTS), 11);
        if (i % 100 == 99) drain(s);
    }
    for (int i = first; i < first + REQUESTS && !s->mcp; i++)
        client_send(&s->c, "{'jsonrpc':'2.0','method':'$/cancelRequest','params':{'id':%d}}", i);
    double until = rd_now_ms() + ANSWER_MS;

    for (int i = first; i < first + REQUESTS; answered += s->answers[i++] == 1)
        while (!s->answers[i] && rd_now_ms() < until) drain(s);
    if (answered != REQUESTS) printf("%d of %d were answered\n", answered, REQUESTS);
    hostile_holds(s->h, "2000 requests in flight", is_well(s) && answered == REQUESTS);
}

/* ---- an agent's ---- */

#define MODERN "'io.modelcontextprotocol/protocolVersion':'2026-07-28'"
#define ABLE   "'io.modelcontextprotocol/clientCapabilities':{}"

static void forged_calls(session *s)
{
    enum { UNSUPPORTED = -32022 };
    static const struct {
        const char *name, *message;
        int code;
    } cases[] = {
        { "a version of tomorrow",
          "'method':'tools/list','params':{'_meta':{'io.modelcontextprotocol/protocolVersion':"
          "'2999-01-01'," ABLE "}}",
          UNSUPPORTED },
        { "a version that is a number",
          "'method':'tools/list','params':{'_meta':{'io.modelcontextprotocol/protocolVersion':1}}",
          RD_INVALID_PARAMS },
        { "a version without capabilities", "'method':'tools/list','params':{'_meta':{" MODERN "}}",
          RD_INVALID_PARAMS },
        { "capabilities that are a list",
          "'method':'tools/list','params':{'_meta':{" MODERN
          ",'io.modelcontextprotocol/clientCapabilities':[]}}",
          RD_INVALID_PARAMS },
        { "meta that is a text", "'method':'ping','params':{'_meta':'x'}", 0 },
        { "a cursor", "'method':'tools/list','params':{'cursor':'eyJwIjoyfQ=='}",
          RD_INVALID_PARAMS },
        { "a cursor that is an object", "'method':'tools/list','params':{'cursor':{}}",
          RD_INVALID_PARAMS },
        { "a tool that there is not",
          "'method':'tools/call','params':{'name':'shell','arguments':{}}", RD_INVALID_PARAMS },
        { "a tool without a name", "'method':'tools/call','params':{}", RD_INVALID_PARAMS },
        { "arguments that are a list",
          "'method':'tools/call','params':{'name':'infill','arguments':[]}", RD_INVALID_PARAMS },
        { "a method of editors", "'method':'textDocument/didOpen','params':{}",
          RD_METHOD_NOT_FOUND },
        { "a progress token of 2^63",
          "'method':'ping','params':{'_meta':{'progressToken':9223372036854775807}}", 0 },
    };
    static const char *const paths[] = {
        "../secret.c", "/etc/passwd",  "sub/../../secret.c", "link", "loop", ".env", ".", "",
        "pipe",        "a.c\\u0000.c", "/proc/self/environ"
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int code = ask(s, cases[i].message);

        if (code != cases[i].code) printf("%s: %d\n", cases[i].name, code);
        holds(s, cases[i].name, code == cases[i].code);
    }
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        int id = ++s->last_id;

        client_send(&s->c,
                    "{'jsonrpc':'2.0','id':%d,'method':'tools/call','params':{'name':'score',"
                    "'arguments':{'path':'%s'}}}",
                    id, paths[i]);
        json_t *answer = hear(s, id);
        const json_t *result = json_object_get(answer, "result");

        holds(s, named("the path \"%s\"", paths[i]),
              json_is_true(json_object_get(result, "isError")) &&
                  !json_object_get(result, "structuredContent"));
        json_decref(answer);
    }
}

static void put_root(const char *world)
{
    const char *root = named("%s/root", world);

    put_folder(root);
    put_text(named("%s/a.c", root), "int bad;\nint b;\n");
    put_text(named("%s/.env", root), "KEY=1\n");
    put_text(named("%s/secret.c", world), "int secret;\n");
    if (symlink("../secret.c", named("%s/link", root)) || symlink("loop", named("%s/loop", root)) ||
        mkfifo(named("%s/pipe", root), 0600))
        abort();
}

/* ---- the groups ---- */

static void with_session(hostile *h, const char *name, bool mcp, void (*run)(session *s))
{
    session s;

    hostile_holds(h, named("%s: the session begins", name), begin(&s, h, mcp));
    run(&s);
    end(&s, name);
}

void editor_cases(hostile *h)
{
    char world[64];

    client_own_world(world);
    with_session(h, "frames", false, torn_frames);
    broken_streams(h);
    with_session(h, "documents", false, documents);
    with_session(h, "forged", false, forged);
    with_session(h, "replies", false, rubbish_replies);
    with_session(h, "many documents", false, many_documents);
    with_session(h, "many requests", false, requests_in_flight);
    wrong_values(h, false);
    wrong_beginnings(h, false);
    client_remove_world(world);
}

void agent_cases(hostile *h)
{
    char world[64];

    client_own_world(world);
    put_root(world);
    with_session(h, "frames", true, torn_frames);
    with_session(h, "forged", true, forged_calls);
    with_session(h, "many calls", true, requests_in_flight);
    wrong_values(h, true);
    wrong_beginnings(h, true);
    client_remove_world(world);
}
