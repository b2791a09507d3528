/* file.h - the files of a model: read whole, mapped, or written through a temporary name.
 *
 * Only regular files are accepted (a pipe or a device is refused, not waited for); links are
 * followed, because model hubs keep their files behind links. Messages name the file. Any thread.
 */
#ifndef RD_FORMAT_FILE_H
#define RD_FORMAT_FILE_H

#include "core/base/buf.h"
#include "core/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Append the whole of PATH to `out`; a file above `max_bytes` is RD_INVALID, a missing one
 * RD_NOT_FOUND. */
rd_status rd_file_read(const char *path, size_t max_bytes, rd_buf *out, rd_error *err);

/* A read-only mapping, and what the file looked like when it was made. An empty file has no data. */
typedef struct rd_map {
    char *path;
    const void *data;
    size_t bytes;
    uint64_t device, inode;
    int64_t changed_ns,
        stamped_ns; /* contents; anything about the file, which nobody can set back */
} rd_map;

rd_status rd_map_open(const char *path, rd_map *out, rd_error *err);
/* RD_IO when PATH is no longer the file that was mapped (inode, size, time of change). */
rd_status rd_map_unchanged(const rd_map *m, rd_error *err);
void rd_map_close(rd_map *m);

/* A new file under a temporary name beside PATH, readable by everybody the umask allows. */
typedef struct rd_draft_file {
    char *path, *temporary;
    int fd; /* -1: nothing open */
} rd_draft_file;

rd_status rd_draft_open(const char *path, rd_draft_file *out, rd_error *err);
rd_status rd_draft_write(rd_draft_file *d, uint64_t offset, const void *bytes, size_t n,
                         rd_error *err);
/* Put it in the place of PATH. */
rd_status rd_draft_finish(rd_draft_file *d, rd_error *err);
/* Free; what was not finished is removed. */
void rd_draft_close(rd_draft_file *d);

/* The same under the name PATH.part, with what is in it already, for one process at a time: RD_INVALID for a second. Its
 * bytes stay when the process dies. */
rd_status rd_draft_open_part(const char *path, rd_draft_file *out, rd_error *err);
/* RD_IO where the disk has no room for a file of so many bytes. */
rd_status rd_draft_room(const rd_draft_file *d, uint64_t bytes, rd_error *err);
/* False when there are fewer. */
bool rd_draft_read(const rd_draft_file *d, uint64_t offset, void *to, size_t n);
rd_status rd_draft_sync(rd_draft_file *d, rd_error *err);
rd_status rd_draft_cut(rd_draft_file *d, uint64_t bytes, rd_error *err);
/* Let go of it; the file stays as it is. rd_draft_close frees the rest. */
void rd_draft_leave(rd_draft_file *d);

/* Write `n` bytes to PATH, all or nothing. */
rd_status rd_file_write(const char *path, const void *bytes, size_t n, rd_error *err);

/* "DIR/NAME", to be freed by the caller. */
char *rd_path_join(const char *dir, const char *name);

/* Links followed; false when there is nothing. */
bool rd_is_folder(const char *path);

#endif
