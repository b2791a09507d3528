/* link.c - connecting and starting. Of many who come at once the holder of the start lock starts the daemon, and the others
 * find it when the lock is theirs. */
#include "lsp/link.h"

#include "core/base/clock.h"
#include "lsp/limits.h"
#include "lsp/place.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { START_MS = 3000, LOCK_MS = 2 * START_MS, HELLO_S = 3, ATTEMPTS = 3 };

/* What becomes of the child: a session of its own, nothing inherited but stderr (until it has a log) and `ready`, on which
 * it says that it listens. */
static void become_daemon(int ready, char **environment)
{
    static char *const call[] = { "redraft", "serve", "--background", NULL };
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (setsid() < 0 || chdir("/") || null < 0 || dup2(null, STDIN_FILENO) < 0) _exit(1);
    if (dup2(ready, STDOUT_FILENO) < 0) _exit(1);
    close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
    pid_t child = fork(); /* whose parent is gone, so that nobody has to wait for it */

    if (child == 0) execve("/proc/self/exe", call, environment);
    _exit(child > 0 ? 0 : 1);
}

/* Until the daemon says on `fd` that it listens. */
static bool is_ready(int fd)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };
    double until = rd_now_ms() + START_MS;
    char byte;

    for (double left = START_MS; left > 0; left = until - rd_now_ms()) {
        int n = poll(&p, 1, (int)left + 1);

        if (n > 0) return read(fd, &byte, 1) == 1;
        if (n < 0 && errno != EINTR) return false;
    }
    return false;
}

static rd_status start(rd_error *err)
{
    char **environment = rd_place_environment();
    int ends[2];

    if (pipe2(ends, O_CLOEXEC)) {
        free(environment);
        return rd_fail(err, RD_IO, "a pipe: %s", strerror(errno));
    }
    pid_t child = fork();

    if (child == 0) become_daemon(ends[1], environment);
    free(environment);
    close(ends[1]);
    bool ready = child > 0 && is_ready(ends[0]);

    close(ends[0]);
    while (child > 0 && waitpid(child, NULL, 0) < 0 && errno == EINTR) continue;
    return ready ? RD_OK : rd_fail(err, RD_IO, "the daemon did not start");
}

static rd_status start_once(rd_place *p, int starts, int *fd, rd_error *err)
{
    int lock;
    rd_status s = rd_place_lock_start(p, LOCK_MS, &lock, err);

    if (s) return s;
    s = rd_place_connect(p, fd, err);
    if (s == RD_NOT_FOUND) {
        s = rd_place_count_start(p, starts, err);
        if (!s) s = start(err);
        if (!s) s = rd_place_connect(p, fd, err);
    }
    close(lock);
    return s;
}

/* One line, without its end. RD_NOT_FOUND when the other end closed instead. */
static rd_status read_line(int fd, rd_buf *out, rd_error *err)
{
    char byte;

    while (out->len < RD_MOST_HELLO_BYTES) {
        ssize_t got = recv(fd, &byte, 1, 0);

        if (got < 0 && errno == EINTR) continue;
        if (got < 0 && errno == EAGAIN) return rd_fail(err, RD_IO, "the daemon does not answer");
        if (got <= 0) return rd_fail(err, RD_NOT_FOUND, "the daemon closed the connection");
        if (byte == '\n') return RD_OK;
        rd_buf_append(out, &byte, 1);
    }
    return rd_fail(err, RD_INVALID, "the daemon's answer is too long");
}

static rd_status greet(int fd, const rd_hello *hello, int wait_s, rd_buf *answer, rd_error *err)
{
    struct timeval limit = { .tv_sec = wait_s }, none = { 0 };
    rd_buf line = { 0 };

    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    rd_hello_write(hello, &line);
    rd_status s = RD_OK;

    if (send(fd, line.data, line.len, MSG_NOSIGNAL) != (ssize_t)line.len)
        s = rd_fail(err, RD_NOT_FOUND, "the daemon does not take the hello: %s", strerror(errno));
    rd_buf_reset(&line);
    if (!s) s = read_line(fd, &line, err);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof none);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &none, sizeof none);
    json_t *said = s ? NULL : json_loadb(line.data, line.len, 0, NULL);
    const char *refused = json_string_value(json_object_get(said, "error"));

    if (refused)
        s = rd_fail(err, RD_INVALID, "the daemon refused: %s", refused);
    else if (!s && !json_is_object(said))
        s = rd_fail(err, RD_INVALID, "what answers is no daemon of ours");
    else if (!s && answer)
        rd_buf_append(answer, line.data, line.len);
    json_decref(said);
    rd_buf_clear(&line);
    return s;
}

rd_status rd_link_open(rd_hello hello, int starts, int *out, rd_buf *answer, rd_error *err)
{
    rd_place *p;
    rd_status s = rd_place_open(&p, err);
    int fd = -1;

    if (s) return s;
    hello.build = rd_place_build(p);
    for (int i = 0; i < ATTEMPTS;
         i++) { /* one that was just leaving takes the connection and not the hello */
        s = rd_place_connect(p, &fd, err);
        if (s == RD_NOT_FOUND && starts > 0) s = start_once(p, starts, &fd, err);
        if (s) break;
        s = greet(fd, &hello, HELLO_S, answer, err);
        if (!s) break;
        close(fd);
        if (s != RD_NOT_FOUND) break;
    }
    rd_place_close(p);
    if (!s) *out = fd;
    return s;
}

rd_status rd_link_tell_all(rd_hello hello, int wait_s, int *told, rd_error *err)
{
    enum { DAEMONS = 64 };
    int fds[DAEMONS];
    rd_place *p;
    rd_status s = rd_place_open(&p, err);

    *told = 0;
    if (s) return s;
    int n = rd_place_connect_all(p, fds, DAEMONS);

    hello.build = rd_place_build(p);
    for (int i = 0; i < n; i++) {
        rd_error one;
        rd_status said = greet(fds[i], &hello, wait_s, NULL, &one);

        close(fds[i]);
        *told += said == RD_OK;
        if (said && !s) s = rd_fail(err, said, "%s", one.text);
    }
    rd_place_close(p);
    return s;
}
