/* roots.c - a path to an open file by openat2, and the checks between that and its text. */
#include "lsp/roots.h"

#include "core/base/memory.h"

#include "lsp/limits.h"
#include "lsp/utf8.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What of `path` is below `folder`; NULL when it is not. A name is a wall only where a component ends: /root-evil is not
 * below /root. */
static const char *below(const char *folder, const char *path)
{
    size_t n = strlen(folder);

    while (n > 0 && folder[n - 1] == '/') n--;
    if (strncmp(path, folder, n) != 0 || (path[n] != '/' && path[n] != 0)) return NULL;
    for (path += n; *path == '/'; path++) {
    }
    return *path ? path : ".";
}

/* The file, or -1 with errno: EXDEV where the path leads out of the folder, 0 where it is absolute and somewhere else. */
static int open_below(const char *folder, const char *path)
{
    struct open_how how = { .flags = O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC,
                            .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS };
    char resolved[PATH_MAX];
    const char *rest = path;

    if (*path == '/') {
        rest = below(folder, path);
        if (!rest && realpath(folder, resolved)) rest = below(resolved, path);
        if (!rest) return errno = 0, -1;
    }
    int dir = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (dir < 0) return -1;
    int fd = (int)syscall(SYS_openat2, dir, rest, &how, sizeof how), error = errno;

    close(dir);
    errno = error;
    return fd;
}

static rd_status explain(const char *path, int error, rd_error *err)
{
    switch (error) {
    case ENOSYS:
        return rd_fail(err, RD_INVALID,
                       "%s: this kernel cannot hold a path below a folder (openat2, "
                       "Linux 5.6), so no files are read here: pass the text",
                       path);
    case EXDEV: return rd_fail(err, RD_INVALID, "%s is not below a folder given by --root", path);
    case ENOENT:
    case ENOTDIR:
        return rd_fail(err, RD_NOT_FOUND, "%s: no such file below the folders given by --root",
                       path);
    case ENXIO: return rd_fail(err, RD_INVALID, "%s is not a regular file", path);
    default: return rd_fail(err, RD_INVALID, "%s: %s", path, strerror(error));
    }
}

/* The first root that has it. Of the reasons why none does, "not there" tells least. */
static rd_status open_path(const rd_roots *r, const char *path, int *out, rd_error *err)
{
    int error = 0;

    if (r->n == 0)
        return rd_fail(err, RD_INVALID,
                       "no files are read here: pass the text, or start the "
                       "server as `redraft mcp --root DIR`");
    for (int i = 0; i < r->n; i++) {
        *out = open_below(r->folders[i], path);
        if (*out >= 0) return RD_OK;
        if (errno && (!error || error == ENOENT)) error = errno;
    }
    return explain(path, error ? error : EXDEV, err);
}

/* All of it, a NUL behind, if it is small. */
static rd_status read_all(int fd, const char *path, rd_buf *text, rd_error *err)
{
    struct stat st;
    char piece[65536];

    if (fstat(fd, &st) || !S_ISREG(st.st_mode))
        return rd_fail(err, RD_INVALID, "%s is not a regular file", path);
    if ((size_t)st.st_size > RD_MOST_ROOT_FILE_BYTES)
        return rd_fail(err, RD_INVALID,
                       "%s has %lld bytes, more than %zu: pass the text around the place", path,
                       (long long)st.st_size, RD_MOST_ROOT_FILE_BYTES);
    rd_buf_append(text, "", 0);
    for (;;) {
        ssize_t n = read(fd, piece, sizeof piece);

        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return rd_fail(err, RD_INVALID, "%s: %s", path, strerror(errno));
        if (n == 0) return RD_OK;
        if ((size_t)n > RD_MOST_ROOT_FILE_BYTES - text->len)
            return rd_fail(err, RD_INVALID, "%s grew while it was read", path);
        rd_buf_append(text, piece, (size_t)n);
    }
}

/* The name that the rules judge is the one that the kernel has for the open file, not the one that was asked for. One that was
 * removed has none. */
static rd_status judge(const rd_roots *r, int fd, const char *path, const rd_buf *text,
                       rd_root_file *file, rd_error *err)
{
    char link[64], real[RD_MOST_PATH_BYTES + 1];
    const char *why = NULL;
    struct stat st;

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, real, sizeof real);

    if (n <= 0 || (size_t)n >= sizeof real || fstat(fd, &st) || st.st_nlink == 0)
        return rd_fail(err, RD_INVALID, "%s: its real name cannot be told", path);
    real[n] = 0;
    file->real = rd_copy_text(real, (size_t)n);
    if (rd_scope_excluded(r->scope, real, text->len, text->data, text->len, &why) == RD_ALLOWED)
        return RD_OK;
    file->excluded = true;
    return rd_fail(err, RD_INVALID, "%s is excluded (%s): it is not read", path,
                   why ? why : "by a rule");
}

static rd_status check_utf8(const char *path, const rd_buf *text, rd_error *err)
{
    for (size_t at = 0; at < text->len;) {
        size_t n = rd_utf8_bytes(text->data + at, text->len - at);

        if (n == 0) return rd_fail(err, RD_INVALID, "%s is not UTF-8, at byte %zu", path, at);
        at += n;
    }
    return RD_OK;
}

rd_status rd_roots_read(const rd_roots *r, const char *path, rd_buf *out, rd_root_file *file,
                        rd_error *err)
{
    rd_buf text = { 0 };
    int fd = -1;
    rd_status s;

    *file = (rd_root_file){ 0 };
    if (!*path || strlen(path) > RD_MOST_PATH_BYTES)
        return rd_fail(err, RD_INVALID, "path is %s", *path ? "too long" : "empty");
    s = open_path(r, path, &fd, err);
    if (s) return s;
    s = read_all(fd, path, &text, err);
    if (!s) s = judge(r, fd, path, &text, file, err);
    if (!s) s = check_utf8(path, &text, err);
    if (!s) rd_buf_append(out, text.data, text.len);
    rd_buf_clear(&text);
    close(fd);
    return s;
}
