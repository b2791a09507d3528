/* pump.c - two threads, each a loop of one read and one write. */
#include "lsp/pump.h"

#include "core/base/memory.h"
#include "lsp/pipe.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PIECE = 64 << 10 };

struct rd_pump {
    int in, out, end;
    int stop_reader, stop_writer; /* eventfd: leave, whatever is on its way */
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

/* Until `fd` can be read or written; false when told to stop. */
static bool wait_for(int fd, short events, int stop)
{
    struct pollfd p[2] = { { .fd = fd, .events = events }, { .fd = stop, .events = POLLIN } };

    while (poll(p, 2, -1) < 0)
        if (errno != EINTR) return false;
    return !p[1].revents;
}

static bool write_whole(int fd, const char *bytes, size_t n, int stop)
{
    while (n > 0) {
        if (!wait_for(fd, POLLOUT, stop)) return false;
        ssize_t done = rd_pipe_write(fd, bytes, n);

        if (done < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (done <= 0) return false;
        bytes += done;
        n -= (size_t)done;
    }
    return true;
}

/* Until one of the two ends, or told to stop. */
static void carry(int from, int to, int stop)
{
    char piece[PIECE];

    while (wait_for(from, POLLIN, stop)) {
        ssize_t got = read(from, piece, sizeof piece);

        if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (got <= 0 || !write_whole(to, piece, (size_t)got, stop)) return;
    }
}

static void *reader(void *arg)
{
    rd_pump *p = arg;

    carry(p->in, p->end, p->stop_reader);
    shutdown(p->end, SHUT_WR);
    return NULL;
}

static void *writer(void *arg)
{
    rd_pump *p = arg;

    carry(p->end, p->out, p->stop_writer);
    shutdown(p->end, SHUT_RDWR); /* nobody reads our output: for the daemon the client is gone */
    return NULL;
}

static void end_thread(pthread_t thread, int stop)
{
    uint64_t one = 1;

    if (write(stop, &one, sizeof one) == sizeof one) pthread_join(thread, NULL);
}

static void free_pump(rd_pump *p)
{
    close(p->end);
    close(p->stop_reader);
    close(p->stop_writer);
    free(p);
}

static int start_threads(rd_pump *p)
{
    int failed = pthread_create(&p->reader, NULL, reader, p);

    if (failed) return failed;
    failed = pthread_create(&p->writer, NULL, writer, p);
    if (failed) end_thread(p->reader, p->stop_reader);
    return failed;
}

rd_status rd_pump_open(int in, int out, rd_pump **pump, int *socket, rd_error *err)
{
    rd_pump *p;
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
        return rd_fail(err, RD_IO, "a pair of sockets: %s", strerror(errno));
    p = rd_alloc0(sizeof *p);
    *p = (rd_pump){ .in = in,
                    .out = out,
                    .end = ends[0],
                    .stop_reader = eventfd(0, EFD_CLOEXEC),
                    .stop_writer = eventfd(0, EFD_CLOEXEC) };
    int failed = p->stop_reader < 0 || p->stop_writer < 0 ? errno : start_threads(p);

    if (failed) {
        close(ends[1]);
        free_pump(p);
        return rd_fail(err, RD_IO, "a thread: %s", strerror(failed));
    }
    *pump = p;
    *socket = ends[1];
    return RD_OK;
}

/* The writer ends by itself when it passed on the daemon's last byte. */
void rd_pump_close(rd_pump *p, int wait_ms)
{
    struct timespec until;

    if (!p) return;
    end_thread(p->reader, p->stop_reader);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += wait_ms / 1000;
    until.tv_nsec += wait_ms % 1000 * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000L;
    }
    if (pthread_timedjoin_np(p->writer, NULL, &until)) end_thread(p->writer, p->stop_writer);
    free_pump(p);
}
