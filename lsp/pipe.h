/* pipe.h - writing to a descriptor that is shared with others, without changing its flags and without waiting. */
#ifndef RD_LSP_PIPE_H
#define RD_LSP_PIPE_H

#include <errno.h>
#include <stddef.h>
#include <sys/socket.h>
#include <unistd.h>

enum { RD_PIPE_PIECE = 4096 };

/* After poll said POLLOUT: as write. A socket is asked not to block; a pipe that is writable takes this much. */
static inline ssize_t rd_pipe_write(int fd, const char *bytes, size_t n)
{
    ssize_t sent = send(fd, bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL);

    if (sent >= 0 || errno != ENOTSOCK) return sent;
    return write(fd, bytes, n < RD_PIPE_PIECE ? n : RD_PIPE_PIECE);
}

#endif
