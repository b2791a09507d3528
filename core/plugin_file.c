/* plugin_file.c - owners and modes on the way to a file, and the parts of it that the loader maps. */
#include "core/plugin_file.h"

#include "core/base/memory.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PARTS_MOST = 256 };

/* ---- whose it is ---- */

static rd_status check_owner(const char *path, const struct stat *st, bool may_be_sticky,
                             rd_error *err)
{
    bool shared = (st->st_mode & (S_IWGRP | S_IWOTH)) != 0;

    if (st->st_uid != 0 && st->st_uid != geteuid())
        return rd_fail(err, RD_INVALID, "%s belongs to user %u, not to you or root", path,
                       (unsigned)st->st_uid);
    if (shared && !(may_be_sticky && (st->st_mode & S_ISVTX)))
        return rd_fail(err, RD_INVALID, "%s can be written by others (mode %03o)", path,
                       (unsigned)st->st_mode & 07777u);
    return RD_OK;
}

/* Every folder from the root down to `real`, which has no links. */
static rd_status check_folders(const char *real, rd_error *err)
{
    char at[PATH_MAX];
    size_t n = strlen(real);
    struct stat st;

    for (size_t i = 1; i <= n; i++) {
        if (i > 1 && i < n && real[i] != '/') continue;
        snprintf(at, sizeof at, "%.*s", (int)i, real);
        if (stat(at, &st)) return rd_fail(err, RD_IO, "%s: %s", at, strerror(errno));
        if (check_owner(at, &st, i < n, err)) return err->status;
    }
    return RD_OK;
}

/* ---- that it is whole ---- */

static rd_status not_whole(const char *path, rd_error *err)
{
    return rd_fail(err, RD_INVALID, "%s is not a whole shared object", path);
}

/* What the loader maps must lie in the file: reading beyond its end is a signal, not an error. */
static rd_status check_parts(const char *path, int fd, size_t bytes, rd_error *err)
{
    const unsigned char kind = sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32;
    ElfW(Ehdr) head;
    ElfW(Phdr) part;

    if (pread(fd, &head, sizeof head, 0) != (ssize_t)sizeof head ||
        memcmp(head.e_ident, ELFMAG, SELFMAG) != 0 || head.e_ident[EI_CLASS] != kind ||
        head.e_type != ET_DYN || head.e_phentsize != sizeof part || head.e_phnum > PARTS_MOST)
        return not_whole(path, err);
    for (size_t i = 0, at, end; i < head.e_phnum; i++) {
        if (!rd_add(head.e_phoff, i * sizeof part, &at) || at > bytes ||
            pread(fd, &part, sizeof part, (off_t)at) != (ssize_t)sizeof part ||
            !rd_add(part.p_offset, part.p_filesz, &end) || end > bytes)
            return not_whole(path, err);
    }
    return RD_OK;
}

static rd_status check_open(const char *path, int fd, rd_error *err)
{
    struct stat st;

    if (fstat(fd, &st)) return rd_fail(err, RD_IO, "%s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode)) return rd_fail(err, RD_INVALID, "%s is not a regular file", path);
    if (check_owner(path, &st, false, err)) return err->status;
    return check_parts(path, fd, (size_t)st.st_size, err);
}

/* ---- both ---- */

rd_status rd_plugin_file_check(const char *folder, const char *name, char real[PATH_MAX],
                               rd_error *err)
{
    char way[PATH_MAX];

    if (*folder != '/')
        return rd_fail(err, RD_INVALID, "%s: a folder of plugins has an absolute path", folder);
    if (!realpath(folder, way))
        return rd_fail(err, errno == ENOENT || errno == ENOTDIR ? RD_NOT_FOUND : RD_IO, "%s: %s",
                       folder, strerror(errno));
    if (snprintf(real, PATH_MAX, "%s/%s", way, name) >= PATH_MAX)
        return rd_fail(err, RD_INVALID, "%s: too long a name", way);
    int fd = open(real, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

    if (fd < 0 && errno == ELOOP) return rd_fail(err, RD_INVALID, "%s is a link, not a file", real);
    if (fd < 0)
        return rd_fail(err, errno == ENOENT || errno == ENOTDIR ? RD_NOT_FOUND : RD_IO, "%s: %s",
                       real, strerror(errno));
    rd_status s = check_folders(way, err);

    if (!s) s = check_open(real, fd, err);
    close(fd);
    return s;
}
