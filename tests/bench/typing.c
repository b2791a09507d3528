/* typing.c - what a programmer waits for: a real file typed key by key into a daemon, over its pipes.
 *
 *   bench_typing FILE PROGRAM [ARGUMENT...]      the program speaks LSP on stdin and stdout
 *
 * Lines in the middle of the file are taken out and typed again, with a wrong letter now and then that is taken back, as people
 * do. Each key is a didChange and an inlineCompletion that is answered before the next; the debounce is off and everything
 * is shown, so that what is measured is the whole way from the edit to the text. Then: a cancelled request, a file
 * never seen, a file of 1 MB, and rest. Prints medians, 95th percentiles and maxima beside what is wanted; ends with 1 only
 * where an answer is missing.
 */
#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/memory.h"
#include "core/base/random.h"
#include "lsp/wire.h"

#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TYPED_LINES = 12, SAMPLES_MOST = 4096, WAIT_MS = 20000 };

typedef struct client {
    pid_t pid;
    int in, out;
    rd_wire *wire;
    rd_buf got; /* bytes read and not yet looked at */
    size_t got_at;
    rd_buf answer; /* the last message with an id */
    int id, version;
} client;

typedef struct samples {
    const char *name, *wanted;
    double ms[SAMPLES_MOST];
    int n;
} samples;

/* ---- messages ---- */

static void send_text(client *c, const rd_buf *json)
{
    rd_buf frame = { 0 };

    rd_wire_write(&frame, RD_FRAMING_HEADER, json->data, json->len);
    for (size_t at = 0; at < frame.len;) {
        ssize_t n = write(c->in, frame.data + at, frame.len - at);

        if (n <= 0) {
            perror("write");
            exit(1);
        }
        at += (size_t)n;
    }
    rd_buf_clear(&frame);
}

static void quote(rd_buf *out, const char *s, size_t n)
{
    rd_buf_text(out, "\"");
    for (size_t i = 0; i < n; i++)
        if (s[i] == '"' || s[i] == '\\')
            rd_buf_format(out, "\\%c", s[i]);
        else if ((unsigned char)s[i] < 0x20)
            rd_buf_format(out, "\\u%04x", s[i]);
        else
            rd_buf_append(out, s + i, 1);
    rd_buf_text(out, "\"");
}

static bool read_some(client *c)
{
    char piece[65536];
    struct pollfd p = { .fd = c->out, .events = POLLIN };

    if (poll(&p, 1, WAIT_MS) <= 0) return false;
    ssize_t n = read(c->out, piece, sizeof piece);

    if (n <= 0) return false;
    if (c->got_at == c->got.len) {
        rd_buf_reset(&c->got);
        c->got_at = 0;
    }
    rd_buf_append(&c->got, piece, (size_t)n);
    return true;
}

/* Read until request `id` is answered. */
static void wait_for(client *c, int id)
{
    char key[32];
    rd_frame f;
    rd_error err;

    snprintf(key, sizeof key, "\"id\":%d", id);
    for (;;) {
        const char *bytes = c->got.data + c->got_at;
        size_t n = c->got.len - c->got_at, had = n;
        rd_wire_event e = n ? rd_wire_read(c->wire, &bytes, &n, &f, &err) : RD_WIRE_MORE;

        c->got_at += had - n;
        if (e == RD_WIRE_FRAME && strstr(f.bytes, key) && !strstr(f.bytes, "\"method\"")) {
            rd_buf_reset(&c->answer);
            rd_buf_append(&c->answer, f.bytes, f.n);
            return;
        }
        if (e == RD_WIRE_FRAME) continue;
        if (e == RD_WIRE_BROKEN || !read_some(c)) {
            fprintf(stderr, "request %d was not answered\n", id);
            exit(1);
        }
    }
}

static void notify(client *c, const char *method, const char *params)
{
    rd_buf m = { 0 };

    rd_buf_format(&m, "{\"jsonrpc\":\"2.0\",\"method\":\"%s\",\"params\":%s}", method, params);
    send_text(c, &m);
    rd_buf_clear(&m);
}

static int request(client *c, const char *method, const char *params)
{
    rd_buf m = { 0 };

    rd_buf_format(&m, "{\"jsonrpc\":\"2.0\",\"id\":%d,\"method\":\"%s\",\"params\":%s}", ++c->id,
                  method, params);
    send_text(c, &m);
    rd_buf_clear(&m);
    return c->id;
}

static void did_open(client *c, const char *uri, const char *text, size_t n)
{
    rd_buf p = { 0 };

    rd_buf_format(
        &p, "{\"textDocument\":{\"uri\":\"%s\",\"languageId\":\"c\",\"version\":1,\"text\":", uri);
    quote(&p, text, n);
    rd_buf_text(&p, "}}");
    notify(c, "textDocument/didOpen", p.data);
    rd_buf_clear(&p);
}

static void did_change(client *c, const char *uri, int line, int from, int to, const char *text,
                       size_t n)
{
    rd_buf p = { 0 };

    rd_buf_format(
        &p,
        "{\"textDocument\":{\"uri\":\"%s\",\"version\":%d},\"contentChanges\":[{\"range\":{"
        "\"start\":{\"line\":%d,\"character\":%d},\"end\":{\"line\":%d,\"character\":%d}},"
        "\"text\":",
        uri, ++c->version, line, from, line, to);
    quote(&p, text, n);
    rd_buf_text(&p, "}]}");
    notify(c, "textDocument/didChange", p.data);
    rd_buf_clear(&p);
}

static int ask(client *c, const char *uri, int line, int character, int kind)
{
    char p[512];

    snprintf(p, sizeof p,
             "{\"textDocument\":{\"uri\":\"%s\"},\"position\":{\"line\":%d,\"character\":%d},"
             "\"context\":{\"triggerKind\":%d}}",
             uri, line, character, kind);
    return request(c, "textDocument/inlineCompletion", p);
}

/* ---- the daemon ---- */

static client start(char **argv)
{
    client c = { .wire = rd_wire_new(RD_FRAMING_HEADER, (size_t)16 << 20), .version = 1 };
    int to[2], from[2];

    if (pipe(to) || pipe(from)) exit(1);
    c.pid = fork();
    if (c.pid == 0) {
        dup2(to[0], 0);
        dup2(from[1], 1);
        for (int i = 0; i < 2; i++) {
            close(to[i]);
            close(from[i]);
        }
        execvp(argv[0], argv);
        _exit(127);
    }
    close(to[0]);
    close(from[1]);
    c.in = to[1];
    c.out = from[0];
    wait_for(&c, request(&c, "initialize",
                         "{\"processId\":null,\"capabilities\":{},\"initializationOptions\":{"
                         "\"debounceMs\":0,\"minConfidence\":0}}"));
    notify(&c, "initialized", "{}");
    return c;
}

static void stop(client *c)
{
    wait_for(c, request(c, "shutdown", "null"));
    notify(c, "exit", "null");
    close(c->in);
    waitpid(c->pid, NULL, 0);
    close(c->out);
    rd_wire_free(c->wire);
    rd_buf_clear(&c->got);
    rd_buf_clear(&c->answer);
}

static double cpu_ms(pid_t pid)
{
    char path[64], line[1024];
    unsigned long user = 0, system = 0;

    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(line, 1, sizeof line - 1, f) : 0;

    line[n] = 0;
    if (f) fclose(f);
    char *at = strrchr(line, ')');

    for (int field = 2; at && field < 14; field++) at = strchr(at + 1, ' ');
    if (at) {
        user = strtoul(at + 1, &at, 10);
        system = strtoul(at + 1, &at, 10);
    }
    return (double)(user + system) * 1e3 / (double)sysconf(_SC_CLK_TCK);
}

/* ---- figures ---- */

static void add(samples *s, double ms)
{
    if (s->n < SAMPLES_MOST) s->ms[s->n++] = ms;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void print(samples *s)
{
    qsort(s->ms, (size_t)s->n, sizeof *s->ms, by_value);
    if (s->n == 0) return;
    printf("%-44s %6d %9.2f %9.2f %9.2f  %s\n", s->name, s->n, s->ms[s->n / 2],
           s->ms[(int)(0.95 * (s->n - 1))], s->ms[s->n - 1], s->wanted);
}

/* ---- the session ---- */

static rd_buf read_file(const char *path)
{
    rd_buf b = { 0 };
    char piece[65536];
    FILE *f = fopen(path, "r");
    size_t n;

    if (!f) {
        perror(path);
        exit(2);
    }
    while ((n = fread(piece, 1, sizeof piece, f)) > 0) rd_buf_append(&b, piece, n);
    fclose(f);
    return b;
}

static size_t line_at(const rd_buf *b, int line)
{
    size_t at = 0;

    while (line-- > 0) {
        const char *nl = memchr(b->data + at, '\n', b->len - at);

        if (!nl) return b->len;
        at = (size_t)(nl + 1 - b->data);
    }
    return at;
}

static int lines_of(const rd_buf *b)
{
    int n = 0;

    for (size_t i = 0; i < b->len; i++) n += b->data[i] == '\n';
    return n;
}

/* One key, and the time until its ghost text is there: by the model (s[0]), or from what is left of the text before (s[1]). */
static void key(client *c, const char *uri, int line, int from, int to, const char *text, size_t n,
                samples *s)
{
    double start = rd_now_ms();
    int column = to > from ? from : from + (int)n;

    did_change(c, uri, line, from, to, text, n);
    wait_for(c, ask(c, uri, line, column, 2));
    double ms = rd_now_ms() - start;

    wait_for(c, request(c, "workspace/executeCommand", "{\"command\":\"redraft.explainLast\"}"));
    add(&s[strstr(c->answer.data, "while it is typed") != NULL], ms);
}

static void type_lines(client *c, const char *uri, const rd_buf *file, int first, samples *s)
{
    rd_random random = rd_random_seed(7);

    for (int line = first; line < first + TYPED_LINES; line++) {
        size_t at = line_at(file, line), end = line_at(file, line + 1);
        int column = 0;

        for (; at < end && file->data[at] == ' '; at++) column++;
        if (column) { /* the editor indents by itself */
            char blanks[256];
            int n = column < 255 ? column : 255;

            memset(blanks, ' ', sizeof blanks);
            did_change(c, uri, line, 0, 0, blanks, (size_t)n);
        }
        for (; at < end; at++) {
            if (file->data[at] != '\n' && rd_random_below(&random, 25) == 0) {
                key(c, uri, line, column, column, "q", 1, s);
                key(c, uri, line, column, column + 1, "", 0, s);
            }
            if (file->data[at] == '\n') {
                did_change(c, uri, line, column, column, "\n", 1);
                break;
            }
            key(c, uri, line, column, column, file->data + at, 1, s);
            column++;
        }
    }
}

/* How long the thread that reads is away: a request that needs no model, sent right behind something large. */
static double answer_time(client *c)
{
    double start = rd_now_ms();

    wait_for(c, request(c, "redraft/none", "{}"));
    return rd_now_ms() - start;
}

static void large_file(client *c, samples *opening, samples *edits)
{
    static const char line[] = "    value = next(value, 12345, \"a string\");\n";
    rd_buf big = { 0 };

    while (big.len < (size_t)1 << 20) rd_buf_text(&big, line);
    did_open(c, "file:///big.c", big.data, big.len);
    add(opening, answer_time(c)); /* all but a pipe's worth was read while it was sent */
    for (int i = 0; i < 200; i++) {
        did_change(c, "file:///big.c", 10000 + i, 4, 4, "x", 1);
        add(edits, answer_time(c));
    }
    notify(c, "textDocument/didClose", "{\"textDocument\":{\"uri\":\"file:///big.c\"}}");
    rd_buf_clear(&big);
}

int main(int argc, char **argv)
{
    static samples typed[] = { { .name = "key to ghost text by the model, prefix warm (ms)",
                                 .wanted = "median 60, 95 % 150" },
                               { .name = "key typed along the ghost text (ms)", .wanted = "1" } },
                   cancelled = { .name = "next text after a cancelled request (ms)",
                                 .wanted = "one step more at most" },
                   cold = { .name = "file never seen to ghost text (ms)", .wanted = "350" },
                   opening = { .name = "1 MB opened, from its last bytes (ms)", .wanted = "5" },
                   edits = { .name = "edit of 1 MB (ms)", .wanted = "5" },
                   idle = { .name = "CPU of 3 s at rest (ms)", .wanted = "0" };
    static const char uri[] = "file:///typed.c";

    if (argc < 3) {
        fprintf(stderr, "usage: bench_typing FILE PROGRAM [ARGUMENT...]\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    rd_buf file = read_file(argv[1]);
    int lines = lines_of(&file), first = lines / 2;
    size_t from = line_at(&file, first), to = line_at(&file, first + TYPED_LINES);
    client c = start(argv + 2);
    rd_buf text = { 0 };

    if (to <= from) {
        fprintf(stderr, "%s is too short\n", argv[1]);
        return 2;
    }
    rd_buf_append(&text, file.data, from);
    rd_buf_text(&text, "\n");
    rd_buf_append(&text, file.data + to, file.len - to);
    double start_ms = rd_now_ms();

    did_open(&c, uri, text.data, text.len);
    wait_for(&c, ask(&c, uri, first, 0, 1));
    printf("%s, %d lines; the first text after the start and the model's loading: %.0f ms\n",
           argv[1], lines, rd_now_ms() - start_ms);
    type_lines(&c, uri, &file, first, typed);

    for (int i = 0; i < 50; i++) {
        char params[64];
        int id = ask(&c, uri, first + 1, 2 + i % 3, 1);

        snprintf(params, sizeof params, "{\"id\":%d}", id);
        notify(&c, "$/cancelRequest", params);
        wait_for(&c, id);
        double start = rd_now_ms();

        wait_for(&c, ask(&c, uri, first + 1, 1, 1));
        add(&cancelled, rd_now_ms() - start);
    }
    for (int i = 0; i < 9; i++) {
        char other[64];
        size_t skip = line_at(&file, 7 * (i + 1));
        double start = rd_now_ms();

        snprintf(other, sizeof other, "file:///cold%d.c", i);
        did_open(&c, other, file.data + skip, file.len - skip);
        wait_for(&c, ask(&c, other, lines / 3 + 11 * i, 0, 1));
        add(&cold, rd_now_ms() - start);
    }
    large_file(&c, &opening, &edits);
    sleep(1);
    double cpu = cpu_ms(c.pid);

    sleep(3);
    add(&idle, cpu_ms(c.pid) - cpu);
    printf("%-44s %6s %9s %9s %9s  %s\n", "", "n", "median", "95 %", "most", "wanted");
    print(&typed[0]);
    print(&typed[1]);
    print(&cancelled);
    print(&cold);
    print(&opening);
    print(&edits);
    print(&idle);
    stop(&c);
    rd_buf_clear(&file);
    rd_buf_clear(&text);
    return 0;
}
