/* faultshim.c - LD_PRELOAD: one call that can fail does, or all from one on.
 *
 * Counted are malloc, calloc, realloc, open, openat and, on files, pipes and sockets, read, write and writev. FAULT_ONCE=N fails call N, FAULT_FROM=N it and all
 * behind it; allocations with ENOMEM, the others with FAULT_ERRNO (EIO without it). FAULT_TELL=FILE: the number of calls
 * is written there at the end. The allocator behind is glibc's.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *old, size_t bytes);

static atomic_long calls;
static long once = -1, from = -1;
static int error = EIO;

static long number(const char *name, long otherwise)
{
    const char *text = getenv(name);

    return text ? strtol(text, NULL, 10) : otherwise;
}

__attribute__((constructor)) static void begin(void)
{
    once = number("FAULT_ONCE", -1);
    from = number("FAULT_FROM", -1);
    error = (int)number("FAULT_ERRNO", EIO);
    atomic_store(&calls, 0);
}

__attribute__((destructor)) static void end(void)
{
    const char *file = getenv("FAULT_TELL");
    char text[32];

    if (!file) return;
    int n = snprintf(text, sizeof text, "%ld", atomic_load(&calls));
    long fd = syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    syscall(SYS_write, fd, text, n);
}

static int fails(int with)
{
    long n = atomic_fetch_add(&calls, 1) + 1;

    if (n != once && (from < 0 || n < from)) return 0;
    errno = with;
    return 1;
}

void *malloc(size_t bytes)
{
    return fails(ENOMEM) ? NULL : __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes)
{
    return fails(ENOMEM) ? NULL : __libc_calloc(count, bytes);
}

void *realloc(void *old, size_t bytes)
{
    return fails(ENOMEM) ? NULL : __libc_realloc(old, bytes);
}

static int open_at(int folder, const char *path, int flags, unsigned mode)
{
    return fails(error) ? -1 : (int)syscall(SYS_openat, folder, path, flags, mode);
}

int open(const char *path, int flags, ...)
{
    va_list args;

    va_start(args, flags);
    unsigned mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, unsigned) : 0;

    va_end(args);
    return open_at(AT_FDCWD, path, flags, mode);
}

int openat(int folder, const char *path, int flags, ...)
{
    va_list args;

    va_start(args, flags);
    unsigned mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, unsigned) : 0;

    va_end(args);
    return open_at(folder, path, flags, mode);
}

/* An eventfd or the like never fails, and libuv relies on that; stderr is where the reason is said. */
static int fails_on(int fd)
{
    struct stat st;

    if (fd == STDERR_FILENO || fstat(fd, &st) ||
        !(S_ISREG(st.st_mode) || S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode)))
        return 0;
    return fails(error);
}

ssize_t read(int fd, void *bytes, size_t n)
{
    return fails_on(fd) ? -1 : syscall(SYS_read, fd, bytes, n);
}

ssize_t write(int fd, const void *bytes, size_t n)
{
    return fails_on(fd) ? -1 : syscall(SYS_write, fd, bytes, n);
}

ssize_t writev(int fd, const struct iovec *pieces, int n)
{
    return fails_on(fd) ? -1 : syscall(SYS_writev, fd, pieces, n);
}
