/* forms.c - the messages as tables, and the walk over their places. */
#include "forms.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DOC   "'textDocument':{'uri':'file:///w/a.c'}"
#define PLACE "{'line':1,'character':5}"
#define RANGE "{'start':{'line':1,'character':0},'end':{'line':1,'character':14}}"
#define LINE  "'file:///w/a.c','version':null,'range':" RANGE
#define COMMAND(name, more) \
    "{'command':'" name "','arguments':[{'uri':" LINE more "}],'workDoneToken':'t'}"
#define DATA(kind)                                                                                \
    "{'title':'x','kind':'quickfix','workDoneToken':7,'data':{'uri':'file:///w/a.c','version':1," \
    "'revision':0,'kind':'" kind "','start':8,'end':22,'instruction':'shorter'}}"
#define SETTINGS                                                                                \
    "{'enable':true,'mode':'eager','quality':0.5,'minConfidence':0,'maxMs':500,'debounceMs':0," \
    "'exclude':['*.key'],'languages':{'c':{'quality':1},'python':true},'diagnostics':true,"     \
    "'completion':true,'draft':true}"

const form forms_lsp[] = {
    { "initialize", true,
      "{'processId':null,'rootUri':'file:///w','workspaceFolders':[{'uri':'file:///w','name':'w'}],"
      "'capabilities':{'general':{'positionEncodings':['utf-8','utf-16']},'window':"
      "{'workDoneProgress':true},'workspace':{'applyEdit':true,'configuration':true,"
      "'workspaceEdit':{'documentChanges':true},'didChangeConfiguration':{'dynamicRegistration':"
      "true}},'textDocument':{'codeAction':{'disabledSupport':true,'resolveSupport':"
      "{'properties':['edit']}}}},'initializationOptions':" SETTINGS "}" },
    { "initialized", false, "{}" },
    { "textDocument/didOpen", false,
      "{'textDocument':{'uri':'file:///w/a.c','languageId':'c','version':1,'text':"
      "'int f(\\nint bad;/*TODO: x*/\\n\\u00e9\\ud83d\\ude00)\\r\\n'}}" },
    { "textDocument/didChange", false,
      "{'textDocument':{'uri':'file:///w/a.c','version':9},'contentChanges':[{'range':" RANGE
      ",'rangeLength':14,'text':'int bad;\\u00ab1\\u00bb'},{'range':{'start':" PLACE ",'end':" PLACE
      "},'text':'y'}]}" },
    { "textDocument/didChange", false,
      "{'textDocument':{'uri':'file:///w/a.c','version':10},'contentChanges':[{'text':"
      "'int f(\\nint bad;/*TODO: x*/\\nreturn \\u00ab1\\u00bb'}]}" },
    { "textDocument/inlineCompletion", true,
      "{" DOC ",'position':" PLACE ",'context':{'triggerKind':1,'selectedCompletionInfo':"
      "{'range':" RANGE
      ",'text':'int b'}},'formattingOptions':{'tabSize':4,'insertSpaces':true}}" },
    { "textDocument/inlineCompletion", true,
      "{" DOC ",'position':" PLACE ",'context':{'triggerKind':2}}" },
    { "textDocument/inlineCompletion", true,
      "{" DOC ",'position':{'line':2,'character':0},'context':{'triggerKind':1}}" },
    { "textDocument/completion", true,
      "{" DOC ",'position':" PLACE ",'context':{'triggerKind':1}}" },
    { "textDocument/codeAction", true,
      "{" DOC ",'range':" RANGE ",'context':{'diagnostics':[{'range':" RANGE
      ",'source':'redraft','message':'x'}],'only':['quickfix','refactor'],'triggerKind':1}}" },
    { "codeAction/resolve", true, DATA("rewrite") },
    { "codeAction/resolve", true, DATA("fill") },
    { "codeAction/resolve", true, DATA("mend") },
    { "workspace/executeCommand", true, COMMAND("redraft.rewrite", ",'instruction':'shorter'") },
    { "workspace/executeCommand", true, COMMAND("redraft.fill", ",'position':" PLACE) },
    { "workspace/executeCommand", true, COMMAND("redraft.fixDoubtful", "") },
    { "workspace/executeCommand", true, COMMAND("redraft.showDoubtful", ",'off':false") },
    { "workspace/executeCommand", true,
      "{'command':'redraft.accepted','arguments':['file:///w/a.c',1]}" },
    { "workspace/executeCommand", true, "{'command':'redraft.explainLast','arguments':[]}" },
    { "workspace/didChangeConfiguration", false, "{'settings':{'redraft':" SETTINGS "}}" },
    { "workspace/didChangeWorkspaceFolders", false,
      "{'event':{'added':[{'uri':'file:///v','name':'v'}],'removed':[{'uri':'file:///w'}]}}" },
    { "window/workDoneProgress/cancel", false, "{'token':7}" },
    { "$/cancelRequest", false, "{'id':7}" },
    { "$/setTrace", false, "{'value':'verbose'}" },
    { "textDocument/didSave", false, "{" DOC ",'text':'x'}" },
    { "textDocument/didClose", false, "{" DOC "}" },
};
const size_t forms_lsp_count = sizeof forms_lsp / sizeof *forms_lsp;

#define META                                                           \
    "'_meta':{'io.modelcontextprotocol/protocolVersion':'2026-07-28'," \
    "'io.modelcontextprotocol/clientCapabilities':{},'progressToken':'p'}"
#define CALL(name, arguments) "{'name':'" name "','arguments':{" arguments "}," META "}"

const form forms_mcp[] = {
    { "initialize", true,
      "{'protocolVersion':'2025-11-25','capabilities':{'roots':{}},'clientInfo':"
      "{'name':'x','version':'1'}}" },
    { "notifications/initialized", false, "{}" },
    { "ping", true, "{" META "}" },
    { "server/discover", true, "{" META "}" },
    { "tools/list", true, "{'cursor':null," META "}" },
    { "tools/call", true,
      CALL("infill", "'prefix':'int \\u00abx\\u00bb ','suffix':';\\n','language':'c',"
                     "'max_tokens':8,'quality':0.5,'max_ms':500") },
    { "tools/call", true, CALL("infill", "'path':'a.c','line':1,'column':2") },
    { "tools/call", true,
      CALL("rewrite", "'text':'int bad;\\nint b;\\n','start':0,'end':9,'instruction':'better',"
                      "'quality':1,'max_ms':500") },
    { "tools/call", true, CALL("rewrite", "'path':'a.c','first_line':1,'last_line':2") },
    { "tools/call", true, CALL("score", "'text':'int bad;\\n'") },
    { "tools/call", true, CALL("score", "'path':'a.c','first_line':1,'last_line':1") },
    { "tools/call", true, CALL("status", "") },
    { "tools/call", true,
      "{'name':'infill','arguments':{'prefix':'a','suffix':''},'_meta':{'progressToken':1}}" },
    { "notifications/cancelled", false, "{'requestId':7,'reason':'x'}" },
    { "notifications/progress", false, "{'progressToken':'p','progress':1}" },
};
const size_t forms_mcp_count = sizeof forms_mcp / sizeof *forms_mcp;

#define SIXTEEN(x) x x x x x x x x x x x x x x x x

const char *const form_values[] = {
    /* no value of any type's */
    "null",
    "true",
    "false",
    "[]",
    "{}",
    "[null]",
    "[[]]",
    "[{}]",
    "{\"a\":1}",
    "\"\"",
    /* numbers */
    "0",
    "1",
    "2",
    "3",
    "5",
    "8",
    "-1",
    "-0.0",
    "0.5",
    "1.5",
    "1e3",
    "1e308",
    "4294967295",
    "2147483648",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "-9223372036854775808",
    /* texts */
    "\"x\"",
    "\"int y;\\n\"",
    "\"\\ud800\"",
    "\"a\\udc00\\ud800b\"",
    "\"a\\u0000b\"",
    "\"\\u001b[2J\"",
    "\"\xff\xfe\"",
    "\"\xed\xa0\x80\"",
    "\"%s%n\"",
    "\"\\u00e9\\ud83d\\ude00\\r\\n\\r\"",
    "\"" SIXTEEN(SIXTEEN(SIXTEEN("ab\\n"))) "\"",
    /* names that mean something */
    "\"file:///w/b.c\"",
    "\"file:///w/.env\"",
    "\"file:///w/../etc/passwd\"",
    "\"file:///%00\"",
    "\"file://host/x\"",
    "\"untitled:1\"",
    "\"git:/w/.env\"",
    "\"../.env\"",
    "\"/etc/passwd\"",
    "\"sub/../a.c\"",
    "\"link\"",
    "\"utf-8\"",
    "\"utf-32\"",
    "\"python\"",
    "\"fill\"",
    "\"mend\"",
    "\"quickfix\"",
    "\"subtle\"",
    "\"redraft.fill\"",
    "\"redraft.rewrite\"",
    "\"infill\"",
    "\"score\"",
    "\"2026-07-28\"",
    "\"2025-06-18\"",
    "{\"start\":{\"line\":0,\"character\":0},\"end\":{\"line\":9,\"character\":0}}",
    "{\"start\":{\"line\":2,\"character\":1},\"end\":{\"line\":0,\"character\":0}}",
    "{\"line\":0,\"character\":4294967295}",
    "[{\"text\":\"whole\"},{\"range\":null,\"text\":1}]",
    "[\"*\",\"!.env\",1,\"[\",\"a/**/b\"]",
};
const size_t form_values_count = sizeof form_values / sizeof *form_values;

/* ---- places ---- */

static json_t *parse(const form *f)
{
    size_t n = strlen(f->params);
    char *text = malloc(n + 1);

    for (size_t i = 0; i <= n; i++) text[i] = f->params[i] == '\'' ? '"' : f->params[i];
    json_t *params = json_loads(text, 0, NULL);

    if (!params) abort();
    free(text);
    return params;
}

/* Walk in order; at place number *left (counted down) put a mark with the change's number, or take it out. */
static void walk(json_t *node, size_t *count, size_t place, const char *mark);

static bool at_place(json_t *one, size_t *count, size_t place, const char *mark)
{
    if ((*count)++ == place) return true;
    walk(one, count, place, mark);
    return false;
}

static void walk(json_t *node, size_t *count, size_t place, const char *mark)
{
    const char *key;
    json_t *one;
    void *next;
    size_t i;

    json_object_foreach_safe(node, next, key, one)
    {
        if (!at_place(one, count, place, mark)) continue;
        if (mark)
            json_object_set_new(node, key, json_string(mark));
        else
            json_object_del(node, key);
        return;
    }
    for (i = 0; i < json_array_size(node); i++) {
        if (!at_place(json_array_get(node, i), count, place, mark)) continue;
        if (mark)
            json_array_set_new(node, i, json_string(mark));
        else
            json_array_remove(node, i);
        return;
    }
}

size_t form_places(const form *f)
{
    json_t *params = parse(f);
    size_t count = 1;

    walk(params, &count, SIZE_MAX, NULL);
    json_decref(params);
    return count;
}

/* Write JSON in which "@@N" stands for the value of change N. */
static void write_marked(const char *json, const spoilt *changes, rd_buf *out)
{
    const char *at;

    for (; (at = strstr(json, "\"@@")); json = strchr(at + 1, '"') + 1) {
        rd_buf_append(out, json, (size_t)(at - json));
        rd_buf_text(out, changes[strtoul(at + 3, NULL, 10)].value);
    }
    rd_buf_text(out, json);
}

void form_write(const form *f, int id, const spoilt *changes, size_t n, rd_buf *out)
{
    json_t *params = parse(f);
    bool has_params = true;

    for (size_t i = 0; i < n; i++) {
        char mark[24];
        size_t count = 1;

        snprintf(mark, sizeof mark, "@@%zu", i);
        if (changes[i].place > 0) {
            walk(params, &count, changes[i].place, changes[i].value ? mark : NULL);
            continue;
        }
        has_params = changes[i].value != NULL;
        if (!has_params) break;
        json_decref(params);
        params = json_string(mark);
    }
    rd_buf_format(out, "{\"jsonrpc\":\"2.0\",\"method\":\"%s\"", f->method);
    if (id) rd_buf_format(out, ",\"id\":%d", id);
    if (has_params) {
        char *text = json_dumps(params, JSON_COMPACT | JSON_ENCODE_ANY);

        rd_buf_text(out, ",\"params\":");
        write_marked(text, changes, out);
        free(text);
    }
    rd_buf_text(out, "}");
    json_decref(params);
}
