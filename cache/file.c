/* file.c - the folder, the lock and the names beside the database.
 *
 * One flock stands for all connections of all processes: SQLite before 3.51.3 can corrupt a file when two of them write and
 * checkpoint at the same moment. It is taken on a descriptor of each handle, so that it works between threads too.
 */
#include "cache/file.h"

#include "core/base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

enum { NAP_MS = 2 };

#define LOCK_NAME    RD_FILE_NAME ".lock"
#define LOG_NAME     RD_FILE_NAME "-wal"
#define INDEX_NAME   RD_FILE_NAME "-shm"
#define JOURNAL_NAME RD_FILE_NAME "-journal"
#define BAD_NAME     RD_FILE_NAME ".bad"
#define BAD_LOG_NAME RD_FILE_NAME ".bad-wal"

/* ---- the folder ---- */

static rd_status make_folders(const char *dir, rd_error *err)
{
    char path[PATH_MAX];
    size_t n = strlen(dir);

    memcpy(path, dir, n + 1);
    for (size_t i = 1; i <= n; i++) {
        if (path[i] && path[i] != '/') continue;
        path[i] = 0;
        if (mkdir(path, 0700) && errno != EEXIST)
            return rd_fail(err, RD_IO, "%s: %s", path, strerror(errno));
        if (i < n) path[i] = '/';
    }
    return RD_OK;
}

/* Locks of these are not to be relied upon, or their bytes leave the machine. Numbers of linux/magic.h and of the kernel's
 * sources where that header has none. */
static bool is_network(long type)
{
    static const uint32_t magic[] = {
        0x6969 /* NFS */,       0x517b /* SMB */,       0xff534d42 /* CIFS */,
        0xfe534d42 /* SMB2 */,  0x01021997 /* 9P */,    0x65735546 /* FUSE */,
        0x5346414f /* AFS */,   0x6b414653 /* kAFS */,  0x73757245 /* CODA */,
        0x00c36400 /* CEPH */,  0x564c /* NCP */,       0x0bd00bd0 /* LUSTRE */,
        0x01161970 /* GFS2 */,  0x7461636f /* OCFS2 */, 0x47504653 /* GPFS */,
        0xaad7aaea /* PANFS */,
    };

    for (size_t i = 0; i < sizeof magic / sizeof *magic; i++)
        if (magic[i] == (uint32_t)type) return true;
    return false;
}

static rd_status check_folder(const rd_file *f, const char *dir, bool any_place, rd_error *err)
{
    struct statfs fs;
    struct stat st;

    if (fstat(f->dir, &st)) return rd_fail(err, RD_IO, "%s: %s", dir, strerror(errno));
    if (st.st_uid != geteuid()) return rd_fail(err, RD_INVALID, "%s belongs to another user", dir);
    if (st.st_mode & 077)
        return rd_fail(err, RD_INVALID, "%s is open to others; its mode must be 0700", dir);
    if (any_place) return RD_OK;
    if (fstatfs(f->dir, &fs)) return rd_fail(err, RD_IO, "%s: %s", dir, strerror(errno));
    if (is_network((long)fs.f_type))
        return rd_fail(err, RD_INVALID, "%s is on a network file system", dir);
    return RD_OK;
}

/* The folder's own name, without links on the way: SQLite refuses a name that has one. */
static rd_status name_folder(rd_file *f, const char *dir, rd_error *err)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", f->dir);
    ssize_t n = readlink(link, f->folder, sizeof f->folder);

    if (n <= 0 || (size_t)n >= sizeof f->folder || f->folder[0] != '/')
        return rd_fail(err, RD_IO, "%s: its name cannot be found out", dir);
    f->folder[n] = 0;
    snprintf(f->path, sizeof f->path, "%s/%s", f->folder, RD_FILE_NAME);
    return RD_OK;
}

/* ---- what stands in it ---- */

/* One of our names: absent, or a regular file of ours that nobody else may open and no other name leads to. */
static rd_status check_name(const rd_file *f, const char *name, struct stat *st, bool *there,
                            rd_error *err)
{
    *there = false;
    if (fstatat(f->dir, name, st, AT_SYMLINK_NOFOLLOW)) {
        if (errno == ENOENT) return RD_OK;
        return rd_fail(err, RD_IO, "%s/%s: %s", f->folder, name, strerror(errno));
    }
    if (!S_ISREG(st->st_mode))
        return rd_fail(err, RD_INVALID, "%s/%s: not a regular file", f->folder, name);
    if (st->st_uid != geteuid())
        return rd_fail(err, RD_INVALID, "%s/%s belongs to another user", f->folder, name);
    if (st->st_mode & 077)
        return rd_fail(err, RD_INVALID, "%s/%s is open to others; its mode must be 0600", f->folder,
                       name);
    if (st->st_nlink != 1)
        return rd_fail(err, RD_INVALID, "%s/%s has a second name", f->folder, name);
    *there = true;
    return RD_OK;
}

static rd_status open_lock(rd_file *f, rd_error *err)
{
    struct stat st;

    f->lock =
        openat(f->dir, LOCK_NAME, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600);
    if (f->lock < 0)
        return rd_fail(err, errno == ELOOP ? RD_INVALID : RD_IO, "%s/%s: %s", f->folder, LOCK_NAME,
                       strerror(errno));
    if (fstat(f->lock, &st) || !S_ISREG(st.st_mode) || st.st_uid != geteuid())
        return rd_fail(err, RD_INVALID, "%s/%s: not a file of our own", f->folder, LOCK_NAME);
    return RD_OK;
}

rd_status rd_file_open(rd_file *f, const char *dir, bool existing, bool any_place, rd_error *err)
{
    struct stat st;
    bool there;

    *f = (rd_file){ .dir = -1, .lock = -1 };
    if (!dir || dir[0] != '/')
        return rd_fail(err, RD_INVALID, "the cache's folder must be absolute, not %s",
                       dir ? dir : "none");
    if (strlen(dir) >= sizeof f->folder)
        return rd_fail(err, RD_INVALID, "the name of the cache's folder is too long");
    if (!existing && make_folders(dir, err)) return err ? err->status : RD_IO;
    f->dir = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (f->dir < 0 && errno == ENOENT) return rd_fail(err, RD_NOT_FOUND, "%s: no such folder", dir);
    if (f->dir < 0)
        return rd_fail(err, errno == ENOTDIR || errno == ELOOP ? RD_INVALID : RD_IO,
                       "%s: not a folder of our own (%s)", dir, strerror(errno));
    rd_status s = check_folder(f, dir, any_place, err);

    if (!s) s = name_folder(f, dir, err);
    if (!s) s = check_name(f, RD_FILE_NAME, &st, &there, err);
    if (!s && existing && !there) s = rd_fail(err, RD_NOT_FOUND, "%s: no such file", f->path);
    return s ? s : open_lock(f, err);
}

void rd_file_close(rd_file *f)
{
    rd_file_unlock(f);
    if (f->lock > 0) close(f->lock);
    if (f->dir > 0) close(f->dir);
    f->dir = f->lock = -1;
}

/* ---- the lock ---- */

/* Somebody may have removed the lock's file: then it locks nothing any more. */
static bool lock_has_name(const rd_file *f)
{
    struct stat by_name, open_one;

    return !fstat(f->lock, &open_one) &&
           !fstatat(f->dir, LOCK_NAME, &by_name, AT_SYMLINK_NOFOLLOW) &&
           by_name.st_ino == open_one.st_ino && by_name.st_dev == open_one.st_dev;
}

static rd_status renew_lock(rd_file *f, rd_error *err)
{
    close(f->lock);
    return open_lock(f, err);
}

rd_status rd_file_lock(rd_file *f, int wait_ms, rd_error *err)
{
    double until = rd_now_ms() + wait_ms;

    if (f->lock < 0 && open_lock(f, err)) return err ? err->status : RD_IO;
    for (;;) {
        if (!flock(f->lock, LOCK_EX | LOCK_NB)) {
            f->locked = true;
            if (lock_has_name(f)) return RD_OK;
            f->locked = false;
            if (renew_lock(f, err)) return err ? err->status : RD_IO;
        } else if (errno != EWOULDBLOCK && errno != EINTR) {
            return rd_fail(err, RD_IO, "%s/%s: %s", f->folder, LOCK_NAME, strerror(errno));
        }
        if (rd_now_ms() >= until)
            return rd_fail(err, RD_STALE, "%s/%s is held by another", f->folder, LOCK_NAME);
        nanosleep(&(struct timespec){ .tv_nsec = NAP_MS * 1000000L }, NULL);
    }
}

void rd_file_unlock(rd_file *f)
{
    if (f->locked) flock(f->lock, LOCK_UN);
    f->locked = false;
}

/* ---- the database ---- */

static rd_status make_database(rd_file *f, struct stat *st, rd_error *err)
{
    int fd = openat(f->dir, RD_FILE_NAME, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

    if (fd < 0 || fstat(fd, st)) {
        rd_fail(err, RD_IO, "%s: %s", f->path, strerror(errno));
        if (fd >= 0) close(fd);
        return RD_IO;
    }
    close(fd); /* nobody can have it open: it was not there, and we hold the lock */
    return RD_OK;
}

/* Our files have no journal but the log. One that stands here is somebody's, and could lead SQLite to other files. */
static rd_status drop(const rd_file *f, const char *name, rd_error *err)
{
    if (unlinkat(f->dir, name, 0) && errno != ENOENT)
        return rd_fail(err, RD_IO, "%s/%s: %s", f->folder, name, strerror(errno));
    return RD_OK;
}

rd_status rd_file_settle(rd_file *f, rd_error *err)
{
    struct stat st, beside;
    bool there, ignored;
    rd_status s = drop(f, JOURNAL_NAME, err);

    if (!s) s = check_name(f, RD_FILE_NAME, &st, &there, err);
    if (!s) s = check_name(f, LOG_NAME, &beside, &ignored, err);
    if (!s) s = check_name(f, INDEX_NAME, &beside, &ignored, err);
    if (s) return s;
    if (!there) { /* a log without its database is of nobody */
        s = drop(f, LOG_NAME, err);
        if (!s) s = drop(f, INDEX_NAME, err);
        if (!s) s = make_database(f, &st, err);
        if (s) return s;
    }
    f->device = st.st_dev;
    f->inode = st.st_ino;
    return RD_OK;
}

bool rd_file_is_same(const rd_file *f)
{
    struct stat st;

    return !fstatat(f->dir, RD_FILE_NAME, &st, AT_SYMLINK_NOFOLLOW) && st.st_ino == f->inode &&
           st.st_dev == f->device;
}

rd_status rd_file_set_aside(rd_file *f, rd_error *err)
{
    rd_status s = rd_file_drop_aside(f, err);

    if (s) return s;
    /* The log first: cut off between the two, the database stands without it, which loses commits and mixes nothing. */
    if (renameat(f->dir, LOG_NAME, f->dir, BAD_LOG_NAME) && errno != ENOENT) goto fail;
    if (renameat(f->dir, RD_FILE_NAME, f->dir, BAD_NAME) && errno != ENOENT) goto fail;
    s = drop(f, INDEX_NAME, err);
    return s ? s : drop(f, JOURNAL_NAME, err);
fail:
    return rd_fail(err, RD_IO, "%s: cannot be set aside: %s", f->path, strerror(errno));
}

rd_status rd_file_drop_aside(rd_file *f, rd_error *err)
{
    rd_status s = drop(f, BAD_LOG_NAME, err);

    return s ? s : drop(f, BAD_NAME, err);
}

int64_t rd_file_bytes(const rd_file *f)
{
    static const char *const names[] = { RD_FILE_NAME, LOG_NAME };
    int64_t bytes = 0;
    struct stat st;

    for (int i = 0; i < 2; i++)
        if (!fstatat(f->dir, names[i], &st, AT_SYMLINK_NOFOLLOW)) bytes += st.st_size;
    return bytes;
}
