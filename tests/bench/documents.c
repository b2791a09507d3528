/* documents.c - what the loop thread pays for frames and documents: medians, 95th percentiles and the longest.
 *
 * Each figure is the whole way of one frame: bytes, framing, repair, JSON, JSON-RPC, document. Ends with 1 only where
 * a text came out wrong, never because of a time.
 */
#include "core/base/clock.h"
#include "core/base/memory.h"
#include "core/base/random.h"
#include "lsp/exclude.h"
#include "lsp/limits.h"
#include "lsp/rpc.h"
#include "lsp/sync.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct rd_conn {
    rd_documents *documents;
    rd_rpc *rpc;
    rd_wire *wire;
    rd_buf out;
    int lost;
};

static rd_status did_open(rd_conn *c, const rd_message *m, rd_error *err)
{
    c->lost += rd_sync_open(c->documents, m->params, err) == RD_SYNC_LOST;
    return RD_OK;
}

static rd_status did_change(rd_conn *c, const rd_message *m, rd_error *err)
{
    c->lost += rd_sync_change(c->documents, m->params, RD_UTF16, err) == RD_SYNC_LOST;
    return RD_OK;
}

static rd_status initialize(rd_conn *c, const rd_message *m, rd_error *err)
{
    (void)err;
    rd_rpc_answer(c->rpc, m->ticket, json_object());
    return RD_OK;
}

static void lost(rd_conn *c, const char *why)
{
    printf("lost: %s\n", why);
    c->lost++;
}

static const rd_method methods[] = {
    { "initialize", RD_MESSAGE_REQUEST, initialize },
    { "textDocument/didOpen", RD_MESSAGE_NOTIFICATION, did_open },
    { "textDocument/didChange", RD_MESSAGE_NOTIFICATION, did_change },
};
static const rd_rpc_hooks hooks = { NULL, lost, NULL };

/* Send one message in pieces of 64 KiB, as a pipe gives them; the longest time between two pieces is not asked, the whole is. */
static double send_message(rd_conn *c, const rd_buf *message)
{
    rd_buf stream = { 0 };
    rd_frame f;
    rd_error err;

    rd_wire_write(&stream, RD_FRAMING_HEADER, message->data, message->len);
    double from = rd_now_ms();

    for (size_t at = 0; at < stream.len; at += 65536) {
        const char *p = stream.data + at;
        size_t left = stream.len - at < 65536 ? stream.len - at : 65536;

        while (rd_wire_read(c->wire, &p, &left, &f, &err) == RD_WIRE_FRAME)
            rd_rpc_frame(c->rpc, f.bytes, f.n);
    }
    double ms = rd_now_ms() - from;

    rd_buf_clear(&stream);
    return ms;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void report(const char *what, double *ms, size_t n)
{
    qsort(ms, n, sizeof *ms, ascending);
    printf("%-58s %8.3f %8.3f %8.3f ms\n", what, ms[n / 2], ms[n * 95 / 100], ms[n - 1]);
}

static rd_conn start(void)
{
    rd_conn c = { .documents = rd_documents_new(),
                  .wire = rd_wire_new(RD_FRAMING_HEADER, RD_MOST_FRAME_BYTES) };

    return c;
}

static void begin(rd_conn *c)
{
    rd_buf hello = { 0 };

    c->rpc = rd_rpc_new(RD_LSP, methods, sizeof methods / sizeof *methods, &hooks, c,
                        RD_FRAMING_HEADER, &c->out);
    rd_buf_text(&hello, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\"}");
    send_message(c, &hello);
    rd_buf_clear(&hello);
}

static void end(rd_conn *c)
{
    rd_rpc_free(c->rpc);
    rd_wire_free(c->wire);
    rd_documents_free(c->documents);
    rd_buf_clear(&c->out);
}

/* A didOpen of `n` bytes in lines of `line`, with a character of two bytes in each. */
static void opening(rd_buf *out, size_t n, size_t line)
{
    rd_buf_reset(out);
    rd_buf_text(out, "{\"jsonrpc\":\"2.0\",\"method\":\"textDocument/"
                     "didOpen\",\"params\":{\"textDocument\":{\"uri\":"
                     "\"u\",\"languageId\":\"c\",\"version\":1,\"text\":\"");
    for (size_t at = 2; at < n; at++) {
        if (at % line == 0)
            rd_buf_text(out, "\\n");
        else if (at % line == 7)
            rd_buf_text(out, "\xc3\xa9");
        else
            rd_buf_append(out, &"abcdefgh ijklm"[at % 14], 1);
    }
    rd_buf_text(out, "\"}}}");
}

static void one_change(rd_buf *out, uint32_t line, uint32_t column, const char *text)
{
    rd_buf_format(out,
                  "{\"range\":{\"start\":{\"line\":%u,\"character\":%u},\"end\":{\"line\":%u,"
                  "\"character\":%u}},\"text\":\"%s\"}",
                  line, column, line, column, text);
}

static void change_begins(rd_buf *out)
{
    rd_buf_reset(out);
    rd_buf_text(out, "{\"jsonrpc\":\"2.0\",\"method\":\"textDocument/"
                     "didChange\",\"params\":{\"textDocument\":{\"uri\":"
                     "\"u\",\"version\":2},\"contentChanges\":[");
}

/* Open a file of `n` bytes a few times, then edit it at random places and by one frame of many edits. */
static int measure(const char *name, size_t n, size_t line)
{
    enum { OPENS = 15, EDITS = 400 };
    double opens[OPENS], edits[EDITS], once;
    rd_random r = rd_random_seed(2);
    rd_conn c = start();
    rd_buf m = { 0 };
    char what[100];
    uint32_t lines = (uint32_t)(n / line);

    begin(&c);
    opening(&m, n, line);
    for (int i = 0; i < OPENS; i++) opens[i] = send_message(&c, &m);
    snprintf(what, sizeof what, "%s: didOpen", name);
    report(what, opens, OPENS);
    const rd_document *doc = rd_documents_find(c.documents, "u");
    size_t bytes = rd_text_bytes(rd_document_text(doc));

    for (int i = 0; i < EDITS; i++) {
        change_begins(&m);
        one_change(&m, rd_random_below(&r, lines + 1), rd_random_below(&r, (uint32_t)line), "x");
        rd_buf_text(&m, "]}}");
        edits[i] = send_message(&c, &m);
    }
    snprintf(what, sizeof what, "%s: didChange, one edit", name);
    report(what, edits, EDITS);
    int many = 8000;

    change_begins(&m);
    for (int i = many; i > 0; i--) {
        one_change(&m, (uint32_t)((uint64_t)lines * (unsigned)i / 8000),
                   (uint32_t)(line < 1000 ? 3 : line / 8000 * (unsigned)i), "y");
        rd_buf_text(&m, i > 1 ? "," : "]}}");
    }
    once = send_message(&c, &m);
    snprintf(what, sizeof what, "%s: didChange, %d edits from the end on", name, many);
    report(what, &once, 1);
    int wrong = c.lost > 0 || rd_text_bytes(rd_document_text(doc)) != bytes + EDITS + (size_t)many;

    printf("%-58s %8.2f bytes a byte\n", "  memory of the text",
           (double)rd_text_memory(rd_document_text(doc)) / (double)bytes);
    rd_buf_clear(&m);
    end(&c);
    return wrong;
}

/* The most that a process has had in memory, in MB. */
static double peak_mb(void)
{
    char line[128];
    double kb = 0;
    FILE *f = fopen("/proc/self/status", "re");

    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, "VmHWM:", 6)) kb = strtod(line + 6, NULL);
    if (f) fclose(f);
    return kb / 1024;
}

static int largest_frame(void)
{
    rd_conn c = start();
    rd_buf m = { 0 };

    begin(&c);
    opening(&m, RD_MOST_FRAME_BYTES / 21 * 20 - 1000, 40);
    double before = peak_mb(), ms = send_message(&c, &m);

    printf("%-58s %8.3f ms, %.0f MB more at its peak, the frame's stream (16 MB) with it\n",
           "a frame of 16 MiB", ms, peak_mb() - before);
    rd_buf_clear(&m);
    const rd_document *doc = rd_documents_find(c.documents, "u");
    int wrong = c.lost || !doc || !rd_document_is_known(doc);

    end(&c);
    return wrong;
}

static void rules(void)
{
    rd_rules *r = rd_rules_new(1 << 20);
    rd_candidate path = { .path = "/home/user/project/src/module/part/file.c", .bytes = 1 };
    double ms[200];
    rd_buf hostile = { 0 }, deep = { 0 };

    for (int i = 0; i < 300; i++) {
        char line[32];

        snprintf(line, sizeof line, i % 3 ? "*.ext%d" : "/build%d/**/out", i);
        rd_rules_ignore_file(r, "/home/user/project", line, strlen(line), NULL);
    }
    for (int i = 0; i < 200; i++) {
        double from = rd_now_ms();

        rd_excluded(r, &path, NULL);
        ms[i] = rd_now_ms() - from;
    }
    report("is a path excluded: 300 patterns", ms, 200);
    rd_rules_free(r);
    r = rd_rules_new(1 << 20);
    for (size_t i = 0; i < RD_MOST_PATTERNS_BYTES; i += 123) {
        rd_buf_text(&hostile, "*");
        for (int k = 0; k < 120; k++) rd_buf_text(&hostile, "a");
        rd_buf_text(&hostile, "b\n");
    }
    rd_rules_ignore_file(r, "/", hostile.data, hostile.len - 246, NULL);
    for (int k = 0; k < 15; k++) {
        rd_buf_text(&deep, "/");
        for (int i = 0; i < 255; i++) rd_buf_text(&deep, "a");
    }
    path.path = deep.data;
    double from = rd_now_ms();

    rd_excluded(r, &path, NULL);
    ms[0] = rd_now_ms() - from;
    report("the same, patterns and a path that are meant to be slow", ms, 1);
    rd_rules_free(r);
    rd_buf_clear(&hostile);
    rd_buf_clear(&deep);
}

int main(void)
{
    printf("%-58s %8s %8s %8s\n", "", "median", "95 %", "longest");
    int wrong = measure("1 MB in lines of 40", 1 << 20, 40);

    wrong += measure("1 MB in one line", 1 << 20, (size_t)1 << 21);
    wrong += measure("500 lines", 20000, 40);
    wrong += largest_frame();
    rules();
    return wrong > 0;
}
