/* front.c - one poll over the client's two pipes and the daemon's socket.
 *
 * Nothing is read from one side while much is unsent to the other, so that a side that does not read stops the other
 * instead of filling our memory.
 */
#include "lsp/front.h"

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/memory.h"
#include "lsp/follow.h"
#include "lsp/limits.h"
#include "lsp/link.h"
#include "lsp/pipe.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PIECE = 64 << 10, WATCH_MS = 5000, LEAVE_MS = 700, DAEMON_FRAME_BYTES = 32 << 20 };

typedef struct front {
    const rd_front_options *o;
    rd_follow *follow;
    rd_wire *client_wire, *daemon_wire;
    int signals;                       /* a descriptor that tells SIGTERM, SIGINT and SIGHUP */
    int daemon;                        /* -1: none */
    size_t to_client_at, to_daemon_at; /* bytes already sent of the follower's buffers */
    double leave_at_ms;                /* when the client is gone: the end; 0: not yet */
    bool client_gone, broken;          /* broken: what the client sends cannot be read any more */
    double watch_at_ms;
    long watched; /* the client's process, once it is known */
    bool seen;    /* it was alive */
    char piece[PIECE];
} front;

/* ---- the daemon ---- */

static rd_framing framing_of(const front *f)
{
    return f->o->protocol == RD_MCP ? RD_FRAMING_LINE : RD_FRAMING_HEADER;
}

static void find_daemon(front *f)
{
    rd_hello hello = { .protocol = f->o->protocol, .roots = f->o->roots, .n_roots = f->o->n_roots };
    rd_error err;

    if (rd_link_open(hello, f->o->starts, &f->daemon, NULL, &err)) {
        rd_log(RD_LOG_WARN, "%s", err.text);
        rd_follow_refused(f->follow, err.text);
        return;
    }
    rd_wire_free(f->daemon_wire);
    f->daemon_wire = rd_wire_new(framing_of(f), DAEMON_FRAME_BYTES);
    rd_follow_connected(f->follow);
}

static void lose_daemon(front *f)
{
    if (f->daemon < 0) return;
    close(f->daemon);
    f->daemon = -1;
    f->to_daemon_at = 0;
    rd_follow_broken(f->follow);
}

static void read_daemon(front *f)
{
    ssize_t got = recv(f->daemon, f->piece, PIECE, MSG_DONTWAIT);
    const char *bytes = f->piece;
    size_t n = got > 0 ? (size_t)got : 0;
    rd_wire_event ev;
    rd_frame frame;
    rd_error err;

    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
        lose_daemon(f);
        return;
    }
    while ((ev = rd_wire_read(f->daemon_wire, &bytes, &n, &frame, &err)) == RD_WIRE_FRAME)
        if (frame.n > 0) rd_follow_daemon(f->follow, frame.bytes, frame.n);
    if (ev != RD_WIRE_MORE) lose_daemon(f);
}

/* ---- the client ---- */

/* It said its last word: what the daemon still has to say is passed on for a while. */
static void client_left(front *f)
{
    if (f->client_gone) return;
    f->client_gone = true;
    f->leave_at_ms = rd_now_ms() + LEAVE_MS;
}

/* Nobody reads our output or will ever write. */
static void client_died(front *f)
{
    f->client_gone = true;
    f->leave_at_ms = rd_now_ms();
}

static void take_client(front *f, rd_wire_event ev, const rd_frame *frame, const rd_error *err)
{
    if (ev == RD_WIRE_FRAME && frame->n > 0)
        rd_follow_client(f->follow, frame->bytes, frame->n);
    else if (ev == RD_WIRE_TOO_BIG)
        rd_follow_lost(f->follow, err->text);
    else if (ev == RD_WIRE_BROKEN) {
        rd_log(RD_LOG_ERROR, "stdin: %s", err->text);
        f->broken = true;
    }
}

static void read_client(front *f)
{
    ssize_t got = read(f->o->in, f->piece, PIECE);
    const char *bytes = f->piece;
    size_t n = got > 0 ? (size_t)got : 0;
    rd_wire_event ev = RD_WIRE_FRAME;
    rd_frame frame = { 0 };
    rd_error err = { 0 };

    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
        ev = rd_wire_end(f->client_wire, &frame, &err);
        if (ev == RD_WIRE_FRAME) take_client(f, ev, &frame, &err);
        client_left(f);
        return;
    }
    while (!f->broken &&
           (ev = rd_wire_read(f->client_wire, &bytes, &n, &frame, &err)) != RD_WIRE_MORE)
        take_client(f, ev, &frame, &err);
    if (rd_follow_is_over(f->follow)) client_left(f);
}

/* ---- sending ---- */

/* False when the other end is gone. */
static bool flush(int fd, rd_buf *out, size_t *at)
{
    ssize_t sent = rd_pipe_write(fd, out->data + *at, out->len - *at);

    if (sent < 0) return errno == EAGAIN || errno == EINTR;
    *at += (size_t)sent;
    if (*at < out->len) {
        if (*at < out->len / 2) return true;
        memmove(out->data, out->data + *at, out->len - *at);
        out->len -= *at;
        *at = 0;
        return true;
    }
    *at = 0;
    if (out->cap > RD_MOST_JSON_BYTES)
        rd_buf_clear(out);
    else
        rd_buf_reset(out);
    return true;
}

/* ---- the loop ---- */

static size_t unsent_to_client(const front *f)
{
    return rd_follow_to_client(f->follow)->len - f->to_client_at;
}

static size_t unsent_to_daemon(const front *f)
{
    return f->daemon < 0 ? 0 : rd_follow_to_daemon(f->follow)->len - f->to_daemon_at;
}

/* The editor may die and leave its pipes open in a child of its own. */
static void watch_client(front *f, double now)
{
    long pid = f->o->client_pid ? f->o->client_pid : rd_follow_client_pid(f->follow);

    if (pid == f->watched && now < f->watch_at_ms) return;
    f->watched = pid;
    f->watch_at_ms = now + WATCH_MS;
    if (pid <= 0) return;
    if (!kill((pid_t)pid, 0) || errno == EPERM)
        f->seen = true;
    else if (f->seen) /* one never seen is a number of another machine or container */
        client_died(f);
}

static int wait_ms(const front *f, double now)
{
    double left = f->watch_at_ms - now;

    if (f->leave_at_ms > 0 && f->leave_at_ms - now < left) left = f->leave_at_ms - now;
    return left > 0 ? (int)left + 1 : 0;
}

static void turn(front *f)
{
    bool hear_client = !f->client_gone && unsent_to_daemon(f) < RD_PAUSE_UNSENT_BYTES &&
                       unsent_to_client(f) < RD_PAUSE_UNSENT_BYTES;
    struct pollfd p[4] = {
        { .fd = f->client_gone ? -1 : f->o->in, .events = hear_client ? POLLIN : 0 },
        { .fd = f->o->out, .events = unsent_to_client(f) ? POLLOUT : 0 },
        { .fd = f->daemon },
        { .fd = f->signals, .events = POLLIN },
    };

    if (unsent_to_client(f) < RD_PAUSE_UNSENT_BYTES) p[2].events |= POLLIN;
    if (unsent_to_daemon(f)) p[2].events |= POLLOUT;
    if (!p[2].events) p[2].fd = -1; /* or its end would be told again and again */
    if (poll(p, 4, wait_ms(f, rd_now_ms())) <= 0) return;
    if (p[3].revents || p[1].revents & (POLLERR | POLLHUP | POLLNVAL)) client_died(f);
    if (p[1].revents & POLLOUT &&
        !flush(f->o->out, rd_follow_to_client(f->follow), &f->to_client_at))
        client_died(f);
    if (p[2].revents & POLLOUT && f->daemon >= 0 &&
        !flush(f->daemon, rd_follow_to_daemon(f->follow), &f->to_daemon_at))
        lose_daemon(f);
    if (p[2].revents & (POLLIN | POLLHUP | POLLERR) && f->daemon >= 0 &&
        (p[2].events & POLLIN || p[2].revents & POLLERR))
        read_daemon(f);
    if (hear_client && p[0].revents)
        read_client(f);
    else if (p[0].revents & (POLLHUP | POLLERR | POLLNVAL))
        client_left(f);
}

/* The daemon's end of the connection is told that ours has ended once all is sent, and answers with its own. */
static bool is_done(front *f, double now, bool *told)
{
    if (f->broken) return true;
    if (!f->client_gone) return false;
    if (f->daemon >= 0 && unsent_to_daemon(f) == 0 && !*told) {
        shutdown(f->daemon, SHUT_WR);
        *told = true;
    }
    return now >= f->leave_at_ms || (f->daemon < 0 && unsent_to_client(f) == 0);
}

/* Asked to end, the front leaves as if its client had gone. */
static int take_signals(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int rd_front_run(const rd_front_options *o)
{
    front *f = rd_alloc0(sizeof *f);
    bool told = false;

    f->o = o;
    f->daemon = -1;
    f->signals = take_signals();
    f->follow = rd_follow_new(o->protocol);
    f->client_wire = rd_wire_new(framing_of(f), RD_MOST_FRAME_BYTES);
    find_daemon(f);
    while (!is_done(f, rd_now_ms(), &told)) {
        if (!f->client_gone && rd_follow_wants_daemon(f->follow)) find_daemon(f);
        watch_client(f, rd_now_ms());
        turn(f);
    }
    int code = f->broken ? 1 : rd_follow_code(f->follow);

    lose_daemon(f);
    if (f->signals >= 0) close(f->signals);
    rd_wire_free(f->client_wire);
    rd_wire_free(f->daemon_wire);
    rd_follow_free(f->follow);
    free(f);
    return code;
}
