/* file.h - where the cache stands: its folder, the lock beside it, and the way out for a file that is damaged.
 *
 * Names are reached from the folder's open descriptor. The database itself is never opened here once it exists: closing any
 * descriptor of it would drop the locks that SQLite holds on it in this process. A file belongs to one thread at a time.
 */
#ifndef RD_CACHE_FILE_H
#define RD_CACHE_FILE_H

#include "core/base/status.h"

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define RD_FILE_NAME "cache.db"

typedef struct rd_file {
    int dir, lock; /* descriptors */
    bool locked;
    char folder[PATH_MAX - 64], path[PATH_MAX]; /* without links on the way */
    dev_t device;
    ino_t inode; /* of the database */
} rd_file;

/* Open the folder, made with mode 0700 where it is missing, and the lock. `existing`: make nothing, RD_NOT_FOUND
 * where there is no database. RD_INVALID: not the user's own, a link, open to others, on a network file system. */
rd_status rd_file_open(rd_file *f, const char *dir, bool existing, bool any_place, rd_error *err);
void rd_file_close(rd_file *f); /* also a zeroed or half-open one; gives the lock back */

/* RD_STALE: another held the lock for `wait_ms`. */
rd_status rd_file_lock(rd_file *f, int wait_ms, rd_error *err);
void rd_file_unlock(rd_file *f);

/* Under the lock: make the database where it is missing, look at what stands there, remember which file it is. */
rd_status rd_file_settle(rd_file *f, rd_error *err);
/* Whether the name still leads to the file that was settled. */
bool rd_file_is_same(const rd_file *f);
/* Under the lock: rename the database and its log to .bad, in place of an earlier one. */
rd_status rd_file_set_aside(rd_file *f, rd_error *err);
/* Under the lock: what was set aside goes. */
rd_status rd_file_drop_aside(rd_file *f, rd_error *err);
/* Of the database and its log. */
int64_t rd_file_bytes(const rd_file *f);

#endif
