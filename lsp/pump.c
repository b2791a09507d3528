/* pump.c - two threads, each a loop of one read and one write. */
#include "lsp/pump.h"

#include "core/base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PIECE = 64 << 10 };

struct rd_pump {
    int in, out, end;
    pthread_t reader, writer;
};

rd_status rd_pump_take_stdout(int *out, rd_error *err)
{
    int fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);

    if (fd < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
        return rd_fail(err, RD_IO, "stdout: %s", strerror(errno));
    *out = fd;
    return RD_OK;
}

static bool write_whole(int fd, const char *bytes, size_t n)
{
    while (n > 0) {
        ssize_t done = write(fd, bytes, n);

        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) return false;
        bytes += done;
        n -= (size_t)done;
    }
    return true;
}

/* Until one of the two ends. */
static void carry(int from, int to)
{
    char piece[PIECE];

    for (;;) {
        ssize_t got = read(from, piece, sizeof piece);

        if (got < 0 && errno == EINTR) continue;
        if (got <= 0 || !write_whole(to, piece, (size_t)got)) return;
    }
}

static void *reader(void *arg)
{
    rd_pump *p = arg;

    carry(p->in, p->end);
    shutdown(p->end, SHUT_WR);
    return NULL;
}

static void *writer(void *arg)
{
    rd_pump *p = arg;

    carry(p->end, p->out);
    shutdown(p->end, SHUT_RD); /* nobody reads our output: the daemon sees it at its next write */
    return NULL;
}

rd_status rd_pump_open(int in, int out, rd_pump **pump, int *socket, rd_error *err)
{
    rd_pump *p = rd_alloc0(sizeof *p);
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends)) {
        free(p);
        return rd_fail(err, RD_IO, "a pair of sockets: %s", strerror(errno));
    }
    p->in = in;
    p->out = out;
    p->end = ends[0];
    int failed = pthread_create(&p->reader, NULL, reader, p);

    if (!failed) {
        failed = pthread_create(&p->writer, NULL, writer, p);
        if (failed) {
            pthread_cancel(p->reader);
            pthread_join(p->reader, NULL);
        }
    }
    if (failed) {
        close(ends[0]);
        close(ends[1]);
        free(p);
        return rd_fail(err, RD_IO, "a thread: %s", strerror(failed));
    }
    *pump = p;
    *socket = ends[1];
    return RD_OK;
}

void rd_pump_close(rd_pump *p, int wait_ms)
{
    struct timespec until;

    if (!p) return;
    pthread_cancel(p->reader);
    pthread_join(p->reader, NULL);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += wait_ms / 1000;
    until.tv_nsec += wait_ms % 1000 * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000L;
    }
    if (pthread_timedjoin_np(p->writer, NULL, &until)) {
        pthread_cancel(p->writer);
        pthread_join(p->writer, NULL);
    }
    close(p->end);
    free(p);
}
