/* faultvfs.c - every method goes to the usual file system, after it was asked whether it is its turn to fail. */
#include "tests/fake/faultvfs.h"

#include <sqlite3.h>
#include <string.h>

const char *const faultvfs_names[FAULTVFS_KINDS] = { "io",          "full",      "short read",
                                                     "short write", "no memory", "busy" };

typedef struct fault_file {
    sqlite3_file base;
    sqlite3_file *real; /* stands behind this struct */
} fault_file;

static sqlite3_vfs *usual, own;
static faultvfs_kind armed;
static int turn, calls, failed;
static bool from_then_on;

void faultvfs_arm(faultvfs_kind kind, int at, bool on)
{
    armed = kind;
    turn = at;
    from_then_on = on;
    calls = failed = 0;
}

int faultvfs_calls(void)
{
    return calls;
}

int faultvfs_failed(void)
{
    return failed;
}

static bool fails(faultvfs_kind kind)
{
    if (kind != armed) return false;
    calls++;
    if (!turn || calls < turn || (calls > turn && !from_then_on)) return false;
    failed++;
    return true;
}

static sqlite3_file *real(sqlite3_file *f)
{
    return ((fault_file *)f)->real;
}

static int file_close(sqlite3_file *f)
{
    return real(f)->pMethods->xClose(real(f));
}

static int file_read(sqlite3_file *f, void *to, int n, sqlite3_int64 at)
{
    if (fails(FAULTVFS_IO)) return SQLITE_IOERR_READ;
    int rc = real(f)->pMethods->xRead(real(f), to, n, at);

    if (!rc && fails(FAULTVFS_SHORT_READ)) {
        memset((char *)to + n / 2, 0, (size_t)(n - n / 2));
        return SQLITE_IOERR_SHORT_READ;
    }
    return rc;
}

static int file_write(sqlite3_file *f, const void *from, int n, sqlite3_int64 at)
{
    if (fails(FAULTVFS_IO)) return SQLITE_IOERR_WRITE;
    if (fails(FAULTVFS_FULL)) return SQLITE_FULL;
    if (fails(FAULTVFS_SHORT_WRITE)) {
        real(f)->pMethods->xWrite(real(f), from, n / 2, at);
        return SQLITE_IOERR_WRITE;
    }
    return real(f)->pMethods->xWrite(real(f), from, n, at);
}

static int file_truncate(sqlite3_file *f, sqlite3_int64 n)
{
    return fails(FAULTVFS_IO) ? SQLITE_IOERR_TRUNCATE : real(f)->pMethods->xTruncate(real(f), n);
}

static int file_sync(sqlite3_file *f, int flags)
{
    return fails(FAULTVFS_IO) ? SQLITE_IOERR_FSYNC : real(f)->pMethods->xSync(real(f), flags);
}

static int file_size(sqlite3_file *f, sqlite3_int64 *n)
{
    return fails(FAULTVFS_IO) ? SQLITE_IOERR_FSTAT : real(f)->pMethods->xFileSize(real(f), n);
}

static int file_lock(sqlite3_file *f, int level)
{
    return fails(FAULTVFS_BUSY) ? SQLITE_BUSY : real(f)->pMethods->xLock(real(f), level);
}

static int file_unlock(sqlite3_file *f, int level)
{
    return real(f)->pMethods->xUnlock(real(f), level);
}

static int file_reserved(sqlite3_file *f, int *out)
{
    return real(f)->pMethods->xCheckReservedLock(real(f), out);
}

static int file_control(sqlite3_file *f, int op, void *arg)
{
    return real(f)->pMethods->xFileControl(real(f), op, arg);
}

static int file_sector(sqlite3_file *f)
{
    return real(f)->pMethods->xSectorSize(real(f));
}

static int file_traits(sqlite3_file *f)
{
    return real(f)->pMethods->xDeviceCharacteristics(real(f));
}

static int file_map(sqlite3_file *f, int page, int bytes, int extend, void volatile **out)
{
    if (fails(FAULTVFS_NO_MEMORY)) return SQLITE_NOMEM;
    if (fails(FAULTVFS_IO)) return SQLITE_IOERR_SHMMAP;
    return real(f)->pMethods->xShmMap(real(f), page, bytes, extend, out);
}

static int file_map_lock(sqlite3_file *f, int at, int n, int flags)
{
    if (flags & SQLITE_SHM_LOCK && fails(FAULTVFS_BUSY)) return SQLITE_BUSY;
    return real(f)->pMethods->xShmLock(real(f), at, n, flags);
}

static void file_barrier(sqlite3_file *f)
{
    real(f)->pMethods->xShmBarrier(real(f));
}

static int file_unmap(sqlite3_file *f, int remove_it)
{
    return real(f)->pMethods->xShmUnmap(real(f), remove_it);
}

static const sqlite3_io_methods methods = {
    .iVersion = 2,
    .xClose = file_close,
    .xRead = file_read,
    .xWrite = file_write,
    .xTruncate = file_truncate,
    .xSync = file_sync,
    .xFileSize = file_size,
    .xLock = file_lock,
    .xUnlock = file_unlock,
    .xCheckReservedLock = file_reserved,
    .xFileControl = file_control,
    .xSectorSize = file_sector,
    .xDeviceCharacteristics = file_traits,
    .xShmMap = file_map,
    .xShmLock = file_map_lock,
    .xShmBarrier = file_barrier,
    .xShmUnmap = file_unmap,
};

static int vfs_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *f, int flags, int *out)
{
    fault_file *file = (fault_file *)f;

    (void)vfs;
    file->base.pMethods = NULL;
    file->real = (sqlite3_file *)(file + 1);
    if (fails(FAULTVFS_IO)) return SQLITE_CANTOPEN;
    if (fails(FAULTVFS_NO_MEMORY)) return SQLITE_NOMEM;
    int rc = usual->xOpen(usual, name, file->real, flags, out);

    if (file->real->pMethods) file->base.pMethods = &methods;
    return rc;
}

static int vfs_delete(sqlite3_vfs *vfs, const char *name, int sync)
{
    (void)vfs;
    return fails(FAULTVFS_IO) ? SQLITE_IOERR_DELETE : usual->xDelete(usual, name, sync);
}

static int vfs_access(sqlite3_vfs *vfs, const char *name, int flags, int *out)
{
    (void)vfs;
    return fails(FAULTVFS_IO) ? SQLITE_IOERR_ACCESS : usual->xAccess(usual, name, flags, out);
}

static int vfs_name(sqlite3_vfs *vfs, const char *name, int n, char *out)
{
    (void)vfs;
    return usual->xFullPathname(usual, name, n, out);
}

void faultvfs_register(void)
{
    usual = sqlite3_vfs_find(NULL);
    own = *usual;
    own.szOsFile = (int)sizeof(fault_file) + usual->szOsFile;
    own.zName = "fault";
    own.pNext = NULL;
    own.xOpen = vfs_open;
    own.xDelete = vfs_delete;
    own.xAccess = vfs_access;
    own.xFullPathname = vfs_name;
    sqlite3_vfs_register(&own, 0);
}
