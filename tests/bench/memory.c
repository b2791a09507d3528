/* memory.c - what a daemon takes: idle, with 128 MB of documents, with thousands of small ones, and for frames at the limit.
 *
 *   bench_memory PROGRAM [ARGUMENT...]      the program speaks LSP on stdin and stdout
 *
 * Each line is a figure of the kernel's beside what is wanted. Frames at the limit are timed too, by the answer to the request
 * behind them. Ends with 1 only where an answer is missing.
 */
#include "core/base/clock.h"
#include "lsp/limits.h"
#include "tests/e2e/client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WAIT_MS = 60000, LARGE = 2 << 20, LARGE_DOCUMENTS = 64, SMALL_DOCUMENTS = 4096 };

typedef struct daemon_under_test {
    client c;
    int id;
    bool failed;
} daemon_under_test;

static long kb_of(const daemon_under_test *d, const char *field)
{
    char path[64], line[256];
    size_t n = strlen(field);
    long kb = 0;

    snprintf(path, sizeof path, "/proc/%d/status", (int)d->c.pid);
    FILE *f = fopen(path, "r");

    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, field, n)) kb = strtol(line + n + 1, NULL, 10);
    if (f) fclose(f);
    return kb;
}

/* Wait until all before is done. Returns the milliseconds. */
static double settle(daemon_under_test *d)
{
    double began = rd_now_ms();

    client_send(&d->c, "{'jsonrpc':'2.0','id':%d,'method':'redraft/nothing'}", ++d->id);
    json_t *answer = client_answer(&d->c, d->id, WAIT_MS);

    d->failed |= !answer;
    json_decref(answer);
    return rd_now_ms() - began;
}

static void start(daemon_under_test *d, const char *const *argv)
{
    *d = (daemon_under_test){ 0 };
    client_start(&d->c, argv, RD_FRAMING_HEADER);
    d->failed = !client_initialize(&d->c);
    settle(d);
}

static void open_document(daemon_under_test *d, int number, const rd_buf *text)
{
    rd_buf json = { 0 };

    rd_buf_format(&json,
                  "{\"jsonrpc\":\"2.0\",\"method\":\"textDocument/didOpen\",\"params\":"
                  "{\"textDocument\":{\"uri\":\"file:///m/d%d.c\",\"languageId\":\"c\","
                  "\"version\":1,\"text\":\"%s\"}}}",
                  number, text->data);
    client_send_bytes(&d->c, json.data, json.len);
    rd_buf_clear(&json);
}

static void repeat(rd_buf *out, const char *piece, size_t bytes)
{
    rd_buf_text(out, "");
    while (out->len < bytes) rd_buf_text(out, piece);
}

static bool documents(const char *const *argv, const char *name, int n, size_t bytes)
{
    daemon_under_test d;
    rd_buf text = { 0 };

    start(&d, argv);
    long idle = kb_of(&d, "VmRSS");

    repeat(&text, "    int value = other(a, b) + 1;\\n", bytes);
    for (int i = 0; i < n; i++) {
        open_document(&d, i, &text);
        if (i % 64 == 63) settle(&d);
    }
    settle(&d);
    double total = (double)(text.len - text.len / 33) * n,
           more = (double)(kb_of(&d, "VmRSS") - idle) * 1024;

    printf("%-28s %7.1f MB RSS, peak %7.1f MB; %.2f x their bytes, %.1f KB each beyond them; "
           "wanted at most 3 x + 64 KB\n",
           name, (double)kb_of(&d, "VmRSS") / 1024, (double)kb_of(&d, "VmHWM") / 1024, more / total,
           (more - total) / n / 1024);
    client_end(&d.c);
    rd_buf_clear(&text);
    return !d.failed;
}

/* Takes the frame's bytes. */
static bool frame(const char *const *argv, const char *name, rd_buf *json)
{
    daemon_under_test d;

    start(&d, argv);
    long idle = kb_of(&d, "VmHWM");
    double sent = rd_now_ms();

    client_send_bytes(&d.c, json->data, json->len);
    double written = rd_now_ms() - sent, waited = settle(&d);

    printf("%-28s %7.1f MB more at the peak, wanted 64; %.0f ms to send, %.0f ms until the next "
           "answer, wanted 50\n",
           name, (double)(kb_of(&d, "VmHWM") - idle) / 1024, written, waited);
    client_end(&d.c);
    rd_buf_clear(json);
    return !d.failed;
}

static bool frames(const char *const *argv)
{
    size_t most = RD_MOST_FRAME_BYTES - 1024;
    rd_buf json = { 0 };
    bool well = true;

    rd_buf_text(&json, "{\"jsonrpc\":\"2.0\",\"method\":\"x\",\"params\":[{}");
    repeat(&json, ",{}", most);
    rd_buf_text(&json, "]}");
    well &= frame(argv, "16 MiB of objects", &json);
    rd_buf_text(&json, "{\"jsonrpc\":\"2.0\",\"method\":\"x\",\"params\":{\"a\":[0");
    for (int i = 0; i < 190000; i++) rd_buf_text(&json, ",0");
    rd_buf_text(&json, "]}}");
    well &= frame(argv, "190000 values", &json);
    rd_buf_text(&json, "{\"jsonrpc\":\"2.0\",\"method\":\"x\",\"params\":{\"text\":\"");
    repeat(&json, "a\\n", most);
    rd_buf_text(&json, "\"}}");
    well &= frame(argv, "16 MiB of text", &json);
    rd_buf_text(
        &json,
        "{\"jsonrpc\":\"2.0\",\"method\":\"textDocument/didOpen\",\"params\":{\"textDocument\":"
        "{\"uri\":\"file:///m/a.c\",\"languageId\":\"c\",\"version\":1,\"text\":\"");
    repeat(&json, "    int value = 1;\\n", most);
    rd_buf_text(&json, "\"}}}");
    well &= frame(argv, "a document of 16 MiB", &json);
    return well;
}

int main(int argc, char **argv)
{
    const char *const *program = (const char *const *)argv + 1;
    daemon_under_test d;
    char world[64];

    if (argc < 2) return 2;
    client_own_world(world);
    start(&d, program);
    printf("%-28s %7.1f MB RSS; wanted below 30 without a model\n", "idle",
           (double)kb_of(&d, "VmRSS") / 1024);
    bool well = !d.failed;

    client_end(&d.c);
    well &= documents(program, "128 MB in 64 documents", LARGE_DOCUMENTS, LARGE);
    well &= documents(program, "4096 documents of 1 KB", SMALL_DOCUMENTS, 1024);
    well &= frames(program);
    client_remove_world(world);
    return well ? 0 : 1;
}
