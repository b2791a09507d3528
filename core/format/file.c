/* file.c - open, check, map; write beside and rename. */
#include "core/format/file.h"

#include "core/base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define WRITE_BYTES ((size_t)1 << 30) /* one write call; Linux takes at most 2 GiB */

static rd_status fail_errno(rd_error *err, const char *path, const char *what)
{
    int e = errno;

    return rd_fail(err, e == ENOENT || e == ENOTDIR ? RD_NOT_FOUND : RD_IO, "%s: %s: %s", path,
                   what, strerror(e));
}

/* O_NONBLOCK: opening a pipe that nobody writes to must not wait. */
static rd_status open_regular(const char *path, int *fd, struct stat *st, rd_error *err)
{
    int f = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

    if (f < 0) return fail_errno(err, path, "cannot open");
    if (fstat(f, st)) {
        rd_status s = fail_errno(err, path, "cannot look at");
        close(f);
        return s;
    }
    if (!S_ISREG(st->st_mode)) {
        close(f);
        return rd_fail(err, RD_INVALID, "%s: not a regular file", path);
    }
    *fd = f;
    return RD_OK;
}

rd_status rd_file_read(const char *path, size_t max_bytes, rd_buf *out, rd_error *err)
{
    struct stat st;
    int fd = -1;
    char chunk[16384];
    size_t start = out->len;
    rd_status s = open_regular(path, &fd, &st, err);

    if (s) return s;
    for (;;) {
        ssize_t n = read(fd, chunk, sizeof chunk);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) s = fail_errno(err, path, "cannot read");
        if (n <= 0) break;
        if ((size_t)n > max_bytes - (out->len - start)) {
            s = rd_fail(err, RD_INVALID, "%s: larger than the limit of %zu bytes", path, max_bytes);
            break;
        }
        rd_buf_append(out, chunk, (size_t)n);
    }
    close(fd);
    return s;
}

static int64_t ns_of(const struct timespec *t)
{
    return (int64_t)t->tv_sec * 1000000000 + t->tv_nsec;
}

rd_status rd_map_open(const char *path, rd_map *out, rd_error *err)
{
    struct stat st;
    int fd = -1;
    void *data = NULL;
    rd_status s = open_regular(path, &fd, &st, err);

    if (s) return s;
    if (st.st_size > 0) {
        data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED) {
            s = fail_errno(err, path, "cannot map");
            close(fd);
            return s;
        }
    }
    close(fd);
    *out = (rd_map){ .path = rd_copy_text(path, strlen(path)),
                     .data = data,
                     .bytes = (size_t)st.st_size,
                     .device = (uint64_t)st.st_dev,
                     .inode = (uint64_t)st.st_ino,
                     .changed_ns = ns_of(&st.st_mtim),
                     .stamped_ns = ns_of(&st.st_ctim) };
    return RD_OK;
}

rd_status rd_map_unchanged(const rd_map *m, rd_error *err)
{
    struct stat st;

    if (stat(m->path, &st)) return rd_fail(err, RD_IO, "%s: gone since it was opened", m->path);
    if ((uint64_t)st.st_size != m->bytes || (uint64_t)st.st_ino != m->inode ||
        (uint64_t)st.st_dev != m->device || ns_of(&st.st_mtim) != m->changed_ns)
        return rd_fail(err, RD_IO, "%s: changed on disk since it was opened", m->path);
    return RD_OK;
}

void rd_map_close(rd_map *m)
{
    if (m->data) munmap((void *)m->data, m->bytes);
    free(m->path);
    *m = (rd_map){ 0 };
}

rd_status rd_draft_open(const char *path, rd_draft_file *out, rd_error *err)
{
    rd_buf name = { 0 };
    int fd = -1;

    for (int attempt = 0; fd < 0 && attempt < 100; attempt++) {
        rd_buf_reset(&name);
        rd_buf_format(&name, "%s.%d.%d.new", path, (int)getpid(), attempt);
        fd = open(name.data, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
        if (fd < 0 && errno != EEXIST) break;
    }
    if (fd < 0) {
        rd_status s = fail_errno(err, path, "cannot create");
        rd_buf_clear(&name);
        return s;
    }
    *out = (rd_draft_file){ .path = rd_copy_text(path, strlen(path)),
                            .temporary = name.data,
                            .fd = fd };
    return RD_OK;
}

rd_status rd_draft_write(rd_draft_file *d, uint64_t offset, const void *bytes, size_t n,
                         rd_error *err)
{
    const char *p = bytes;

    while (n > 0) {
        ssize_t w = pwrite(d->fd, p, n < WRITE_BYTES ? n : WRITE_BYTES, (off_t)offset);
        if (w < 0 && errno == EINTR) continue;
        if (w < 0) return fail_errno(err, d->path, "cannot write");
        p += w;
        n -= (size_t)w;
        offset += (uint64_t)w;
    }
    return RD_OK;
}

/* Between opening and locking, another process may have put the file in its place and begun none, or a new one. */
static bool stands_at(int fd, const char *path)
{
    struct stat own, there;

    return !fstat(fd, &own) && !stat(path, &there) && own.st_ino == there.st_ino &&
           own.st_dev == there.st_dev && S_ISREG(own.st_mode);
}

rd_status rd_draft_open_part(const char *path, rd_draft_file *out, rd_error *err)
{
    rd_buf name = { 0 };
    rd_status s = RD_OK;

    rd_buf_format(&name, "%s.part", path);
    int fd = open(name.data, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666);

    if (fd < 0)
        s = fail_errno(err, name.data, "cannot create");
    else if (flock(fd, LOCK_EX | LOCK_NB) || !stands_at(fd, name.data))
        s = rd_fail(err, RD_INVALID, "%s: another process is writing it", name.data);
    if (s) {
        if (fd >= 0) close(fd);
        rd_buf_clear(&name);
        return s;
    }
    *out = (rd_draft_file){ .path = rd_copy_text(path, strlen(path)),
                            .temporary = name.data,
                            .fd = fd };
    return RD_OK;
}

rd_status rd_draft_room(const rd_draft_file *d, uint64_t bytes, rd_error *err)
{
    struct statvfs disk;
    struct stat is;

    if (fstatvfs(d->fd, &disk) || fstat(d->fd, &is)) return RD_OK; /* then writing will tell */
    uint64_t held = (uint64_t)is.st_blocks * 512, free_bytes = disk.f_bavail * disk.f_frsize;

    if (bytes <= held || bytes - held <= free_bytes) return RD_OK;
    return rd_fail(err, RD_IO, "%s: cannot write: %s (%llu MB wanted, %llu MB free)", d->path,
                   strerror(ENOSPC), (unsigned long long)(bytes >> 20),
                   (unsigned long long)(free_bytes >> 20));
}

bool rd_draft_read(const rd_draft_file *d, uint64_t offset, void *to, size_t n)
{
    return pread(d->fd, to, n, (off_t)offset) == (ssize_t)n;
}

rd_status rd_draft_sync(rd_draft_file *d, rd_error *err)
{
    return fdatasync(d->fd) ? fail_errno(err, d->path, "cannot write") : RD_OK;
}

rd_status rd_draft_cut(rd_draft_file *d, uint64_t bytes, rd_error *err)
{
    return ftruncate(d->fd, (off_t)bytes) ? fail_errno(err, d->path, "cannot write") : RD_OK;
}

void rd_draft_leave(rd_draft_file *d)
{
    if (d->fd >= 0) close(d->fd);
    d->fd = -1;
}

/* A rename lasts only once its folder is written. Not every file system can do it, and the file itself is
 * whole in either case, so a failure is nobody's error. */
static void sync_folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *dir = slash ? rd_copy_text(path, slash == path ? 1 : (size_t)(slash - path))
                      : rd_copy_text(".", 1);
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd >= 0) {
        (void)!fsync(fd);
        close(fd);
    }
    free(dir);
}

rd_status rd_draft_finish(rd_draft_file *d, rd_error *err)
{
    int fd = d->fd;

    if (fsync(fd)) return fail_errno(err, d->path, "cannot write");
    d->fd = -1;
    if (close(fd) || rename(d->temporary, d->path)) {
        rd_status s = fail_errno(err, d->path, "cannot put in place");
        unlink(d->temporary);
        return s;
    }
    sync_folder_of(d->path);
    return RD_OK;
}

void rd_draft_close(rd_draft_file *d)
{
    if (d->temporary && d->fd >= 0) {
        close(d->fd);
        unlink(d->temporary);
    }
    free(d->path);
    free(d->temporary);
    *d = (rd_draft_file){ .fd = -1 };
}

rd_status rd_file_write(const char *path, const void *bytes, size_t n, rd_error *err)
{
    rd_draft_file d = { .fd = -1 };
    rd_status s = rd_draft_open(path, &d, err);

    if (!s) s = rd_draft_write(&d, 0, bytes, n, err);
    if (!s) s = rd_draft_finish(&d, err);
    rd_draft_close(&d);
    return s;
}

char *rd_path_join(const char *dir, const char *name)
{
    rd_buf b = { 0 };

    rd_buf_format(&b, "%s/%s", dir, name);
    return b.data;
}

bool rd_is_folder(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}
