/* client.c - pipes, frames and waiting. */
#include "tests/e2e/client.h"

#include "core/base/clock.h"
#include "core/base/memory.h"
#include "lsp/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST_FRAME = 32 << 20, PIECE = 64 << 10 };

void client_sleep_ms(int ms)
{
    nanosleep(&(struct timespec){ ms / 1000, ms % 1000 * 1000000L }, NULL);
}

/* A child with these as stdin and stdout. */
static pid_t start(const char *const *argv, int in, int out)
{
    pid_t pid = fork();

    if (pid) return pid;
    signal(SIGPIPE, SIG_DFL);
    dup2(in, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    execv(argv[0], (char *const *)argv);
    _exit(127);
}

void client_start(client *c, const char *const *argv, rd_framing framing)
{
    int in[2], out[2];

    signal(SIGPIPE, SIG_IGN);
    *c = (client){ .framing = framing, .to = -1, .from = -1 };
    if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC)) abort();
    c->pid = start(argv, in[0], out[1]);
    close(in[0]);
    close(out[1]);
    c->to = in[1];
    c->from = out[0];
    c->wire = rd_wire_new(framing, MOST_FRAME);
}

void client_send_raw(client *c, const char *bytes, size_t n)
{
    while (n > 0) {
        ssize_t done = write(c->to, bytes, n);

        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) return;
        bytes += done;
        n -= (size_t)done;
    }
}

void client_send_bytes(client *c, const char *text, size_t n)
{
    rd_buf framed = { 0 };

    rd_wire_write(&framed, c->framing, text, n);
    client_send_raw(c, framed.data, framed.len);
    rd_buf_clear(&framed);
}

void client_send(client *c, const char *format, ...)
{
    char text[8192];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    for (char *at = text; *at; at++)
        if (*at == '\'') *at = '"';
    client_send_bytes(c, text, strlen(text));
}

void client_send_json(client *c, json_t *message)
{
    char *text = json_dumps(message, JSON_COMPACT);

    client_send_bytes(c, text, strlen(text));
    free(text);
    json_decref(message);
}

/* More bytes into `unread`; false at the end or when none came. */
static bool read_more(client *c, double until_ms)
{
    struct pollfd p = { .fd = c->from, .events = POLLIN };
    double left = until_ms - rd_now_ms();
    char piece[PIECE];

    if (c->from < 0 || left <= 0 || poll(&p, 1, (int)left + 1) <= 0) return false;
    ssize_t got = read(c->from, piece, sizeof piece);

    if (got <= 0) return false;
    if (c->unread_at == c->unread.len) {
        rd_buf_reset(&c->unread);
        c->unread_at = 0;
    }
    rd_buf_append(&c->unread, piece, (size_t)got);
    return true;
}

static json_t *next_message(client *c, double until_ms)
{
    rd_frame frame;
    rd_error err;

    for (;;) {
        const char *bytes = c->unread.data ? c->unread.data + c->unread_at : "";
        size_t n = c->unread.len - c->unread_at;
        rd_wire_event ev = n ? rd_wire_read(c->wire, &bytes, &n, &frame, &err) : RD_WIRE_MORE;

        c->unread_at = c->unread.len - n;
        if (ev == RD_WIRE_FRAME) {
            json_t *message = json_loadb(frame.bytes, frame.n, JSON_ALLOW_NUL, NULL);

            if (message) return message;
            c->garbage++;
        } else if (ev != RD_WIRE_MORE) {
            c->garbage++;
            return NULL;
        } else if (!read_more(c, until_ms)) {
            return NULL;
        }
    }
}

json_t *client_read(client *c, int wait_ms)
{
    double until = rd_now_ms() + wait_ms;
    json_t *m;

    while ((m = next_message(c, until))) {
        if (!json_object_get(m, "method") || !json_object_get(m, "id")) return m;
        c->asked++;
        client_send(c, "{'jsonrpc':'2.0','id':%lld,'result':%s}",
                    (long long)json_integer_value(json_object_get(m, "id")),
                    c->reply ? c->reply : "null");
        json_decref(m);
    }
    return NULL;
}

json_t *client_answer(client *c, int id, int wait_ms)
{
    double until = rd_now_ms() + wait_ms;
    json_t *m;

    while ((m = client_read(c, (int)(until - rd_now_ms())))) {
        if (json_is_integer(json_object_get(m, "id")) &&
            json_integer_value(json_object_get(m, "id")) == id)
            return m;
        json_decref(m);
    }
    return NULL;
}

void client_close_input(client *c)
{
    if (c->to >= 0) close(c->to);
    c->to = -1;
}

int client_wait(client *c, int wait_ms)
{
    double until = rd_now_ms() + wait_ms;
    int status;

    while (waitpid(c->pid, &status, WNOHANG) == 0) {
        if (rd_now_ms() < until) {
            client_sleep_ms(2);
            continue;
        }
        kill(c->pid, SIGKILL);
        waitpid(c->pid, &status, 0);
        return -1;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int client_end(client *c)
{
    client_close_input(c);
    int status = client_wait(c, 2000);

    if (c->from >= 0) close(c->from);
    rd_wire_free(c->wire);
    rd_buf_clear(&c->unread);
    return status;
}

bool client_initialize(client *c)
{
    client_send(c,
                "{'jsonrpc':'2.0','id':0,'method':'initialize','params':{'processId':%d,"
                "'capabilities':{}}}",
                (int)getpid());
    json_t *answer = client_answer(c, 0, 10000);
    bool ok = json_object_get(answer, "result") != NULL;

    json_decref(answer);
    client_send(c, "{'jsonrpc':'2.0','method':'initialized','params':{}}");
    return ok;
}

void client_open(client *c, const char *uri, const char *text)
{
    client_send(c,
                "{'jsonrpc':'2.0','method':'textDocument/didOpen','params':{'textDocument':{"
                "'uri':'%s','languageId':'c','version':1,'text':'%s'}}}",
                uri, text);
}

void client_insert(client *c, const char *uri, int version, int character, const char *text)
{
    client_send(c,
                "{'jsonrpc':'2.0','method':'textDocument/didChange','params':{'textDocument':{"
                "'uri':'%s','version':%d},'contentChanges':[{'range':{'start':{'line':0,"
                "'character':%d},'end':{'line':0,'character':%d}},'text':'%s'}]}}",
                uri, version, character, character, text);
}

void client_ask(client *c, int id, const char *uri, int character)
{
    client_send(c,
                "{'jsonrpc':'2.0','id':%d,'method':'textDocument/inlineCompletion','params':{"
                "'textDocument':{'uri':'%s'},'position':{'line':0,'character':%d},"
                "'context':{'triggerKind':1}}}",
                id, uri, character);
}

const char *client_item(const json_t *answer)
{
    const json_t *items = json_object_get(json_object_get(answer, "result"), "items");

    return json_string_value(json_object_get(json_array_get(items, 0), "insertText"));
}

int client_run(const char *const *argv, rd_buf *out)
{
    int ends[2], null = open("/dev/null", O_RDONLY | O_CLOEXEC), status;
    char piece[4096];
    ssize_t got;

    if (pipe2(ends, O_CLOEXEC)) abort();
    pid_t pid = start(argv, null, ends[1]);

    close(ends[1]);
    close(null);
    while ((got = read(ends[0], piece, sizeof piece)) > 0) rd_buf_append(out, piece, (size_t)got);
    close(ends[0]);
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

json_t *client_status(const char *program)
{
    const char *const argv[] = { program, "status", "--json", NULL };
    rd_buf out = { 0 };
    json_t *o = client_run(argv, &out) == 0 ? json_loadb(out.data, out.len, 0, NULL) : NULL;

    rd_buf_clear(&out);
    if (json_is_object(o)) return o;
    json_decref(o);
    return NULL;
}

void client_own_world(char folder[64])
{
    char cache[96];

    snprintf(folder, 64, "/tmp/redraft-test-XXXXXX");
    if (!mkdtemp(folder)) abort();
    snprintf(cache, sizeof cache, "%s/cache", folder);
    setenv("XDG_RUNTIME_DIR", folder, 1);
    setenv("XDG_STATE_HOME", folder, 1);
    setenv("XDG_CONFIG_HOME", folder, 1);
    setenv("XDG_CACHE_HOME", cache, 1);
    setenv("HOME", folder, 1);
    unsetenv("REDRAFT_MODEL");
    unsetenv("REDRAFT_BACKEND");
    unsetenv("REDRAFT_LOG");
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st;
    (void)kind;
    (void)at;
    return remove(path);
}

void client_remove_world(const char *folder)
{
    nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}
