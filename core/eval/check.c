/* check.c - the compiling child, and the bracket scanner. */
#include "core/eval/check.h"

#include "core/base/memory.h"
#include "core/decode/prompt.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ANSWER_S = 20 };

struct rd_checker {
    const rd_cases *cases;
    signed char *compiles; /* [files] as they stand: 1, 0, -1 not asked yet */
    int wire;              /* -1: no Python */
    pid_t child;
    rd_buf text;
};

/* ---- brackets ---- */

typedef struct scan {
    bool python;
    char quote;  /* the string under way; 0: none */
    bool triple; /* of three quotes */
    bool block;  /* inside a comment of slash and star */
    rd_buf open; /* what is not matched */
} scan;

static void bracket(scan *s, char c)
{
    static const char opens[] = "([{", closes[] = ")]}";
    const char *closing = strchr(closes, c);

    if (closing && s->open.len && s->open.data[s->open.len - 1] == opens[closing - closes])
        s->open.data[--s->open.len] = 0;
    else
        rd_buf_append(&s->open, &c, 1);
}

static bool three(const char *text, size_t n, size_t i)
{
    return n - i >= 3 && text[i + 1] == text[i] && text[i + 2] == text[i];
}

/* Inside a string: the next place. */
static size_t in_string(scan *s, const char *text, size_t n, size_t i)
{
    if (text[i] == '\\') return i + 2;
    if (text[i] == '\n' && !s->triple) {
        rd_buf_text(&s->open, "s"); /* a string without its end */
        s->quote = 0;
    } else if (text[i] == s->quote && (!s->triple || three(text, n, i))) {
        s->quote = 0;
        return i + (s->triple ? 3 : 1);
    }
    return i + 1;
}

static size_t in_code(scan *s, const char *text, size_t n, size_t i)
{
    char c = text[i], next = i + 1 < n ? text[i + 1] : 0;

    if ((s->python && c == '#') || (!s->python && c == '/' && next == '/')) {
        const char *stop = memchr(text + i, '\n', n - i);

        return stop ? (size_t)(stop - text) : n;
    }
    if (!s->python && c == '/' && next == '*') {
        s->block = true;
        return i + 2;
    }
    if (c == '"' || c == '\'') {
        s->quote = c;
        s->triple = s->python && three(text, n, i);
        return i + (s->triple ? 3 : 1);
    }
    if (c && strchr("()[]{}", c)) bracket(s, c);
    return i + 1;
}

static rd_buf unmatched(const char *text, size_t n, bool python)
{
    scan s = { .python = python };

    for (size_t i = 0; i < n;) {
        if (s.block) {
            s.block = !(text[i] == '*' && i + 1 < n && text[i + 1] == '/');
            i += s.block ? 1 : 2;
        } else {
            i = s.quote ? in_string(&s, text, n, i) : in_code(&s, text, n, i);
        }
    }
    if (s.block || s.quote) rd_buf_text(&s.open, s.block ? "*" : "q");
    return s.open;
}

static void filled(rd_buf *out, const rd_case_file *f, size_t start, size_t end, const char *answer,
                   size_t n)
{
    rd_buf_reset(out);
    rd_buf_append(out, f->text, start);
    rd_buf_append(out, answer, n);
    rd_buf_append(out, f->text + end, f->bytes - end);
}

bool rd_brackets_agree(const rd_case_file *f, size_t start, size_t end, const char *answer,
                       size_t n)
{
    bool python = rd_language_of(f->language) == RD_LANGUAGE_PYTHON;
    rd_buf text = { 0 }, before = unmatched(f->text, f->bytes, python), after;

    filled(&text, f, start, end, answer, n);
    after = unmatched(text.data, text.len, python);
    bool same =
        before.len == after.len && (before.len == 0 || !memcmp(before.data, after.data, after.len));

    rd_buf_clear(&text);
    rd_buf_clear(&before);
    rd_buf_clear(&after);
    return same;
}

/* ---- Python ---- */

static const char program[] = "import sys, warnings\n"
                              "warnings.simplefilter('ignore')\n"
                              "i, o = sys.stdin.buffer, sys.stdout\n"
                              "o.write('r'); o.flush()\n"
                              "for line in iter(i.readline, b''):\n"
                              "    text = i.read(int(line))\n"
                              "    try: compile(text, 'f', 'exec', dont_inherit=True); a = '1'\n"
                              "    except Exception: a = '0'\n"
                              "    o.write(a); o.flush()\n";

static void stop_python(rd_checker *k)
{
    if (k->wire < 0) return;
    close(k->wire);
    kill(k->child, SIGKILL);
    waitpid(k->child, NULL, 0);
    k->wire = -1;
}

static bool send_all(int wire, const char *data, size_t n)
{
    while (n > 0) {
        ssize_t sent = send(wire, data, n, MSG_NOSIGNAL);

        if (sent < 0 && errno == EINTR) continue;
        if (sent <= 0) return false;
        data += sent;
        n -= (size_t)sent;
    }
    return true;
}

/* One letter of the child's; 0 when it is gone or silent for too long. */
static char hear(int wire)
{
    char c = 0;
    ssize_t n;

    do n = recv(wire, &c, 1, 0);
    while (n < 0 && errno == EINTR);
    return n == 1 ? c : 0;
}

/* A socket pair and not a pipe: writing to a child that died must not be a signal. */
static void start_python(rd_checker *k)
{
    char *argv[] = { "python3", "-I", "-S", "-c", (char *)program, NULL };
    struct timeval limit = { .tv_sec = ANSWER_S };
    posix_spawn_file_actions_t files;
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) return;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, pair[1], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&files, pair[1], STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&files, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    bool started = !posix_spawnp(&k->child, argv[0], &files, NULL, argv, environ);

    posix_spawn_file_actions_destroy(&files);
    close(pair[1]);
    if (!started) {
        close(pair[0]);
        return;
    }
    k->wire = pair[0];
    setsockopt(k->wire, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (hear(k->wire) != 'r') stop_python(k);
}

static bool compiles(rd_checker *k, const char *text, size_t n)
{
    char size[32];

    snprintf(size, sizeof size, "%zu\n", n);
    char answer =
        k->wire >= 0 && send_all(k->wire, size, strlen(size)) && send_all(k->wire, text, n)
            ? hear(k->wire)
            : 0;

    if (!answer) { /* it died of this text, or hangs: the next one is asked of a fresh child */
        stop_python(k);
        start_python(k);
    }
    return answer == '1';
}

/* ---- both ---- */

rd_checker *rd_checker_open(const rd_cases *c)
{
    rd_checker *k = rd_alloc0(sizeof *k);

    k->cases = c;
    k->wire = -1;
    k->compiles = rd_alloc_array((size_t)c->files + 1, 1);
    memset(k->compiles, -1, (size_t)c->files + 1);
    start_python(k);
    return k;
}

void rd_checker_close(rd_checker *k)
{
    if (!k) return;
    stop_python(k);
    rd_buf_clear(&k->text);
    free(k->compiles);
    free(k);
}

bool rd_checker_has_python(const rd_checker *k)
{
    return k->wire >= 0;
}

bool rd_checker_whole(rd_checker *k, int i, const char *answer, size_t n)
{
    const rd_case *one = &k->cases->at[i];
    const rd_case_file *f = &k->cases->file[one->file];
    signed char *known = &k->compiles[one->file];

    if (k->wire < 0 || rd_language_of(f->language) != RD_LANGUAGE_PYTHON)
        return rd_brackets_agree(f, one->start, one->end, answer, n);
    if (*known < 0) *known = (signed char)compiles(k, f->text, f->bytes);
    if (!*known) return rd_brackets_agree(f, one->start, one->end, answer, n);
    filled(&k->text, f, one->start, one->end, answer, n);
    return compiles(k, k->text.data, k->text.len);
}
