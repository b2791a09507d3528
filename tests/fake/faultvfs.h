/* faultvfs.h - a file system for SQLite that fails when it is told to: over the usual one, for tests.
 *
 * Calls are counted; call `at` fails, or it and all after it. Not thread safe: one test, one thread.
 */
#ifndef RD_FAULTVFS_H
#define RD_FAULTVFS_H

#include <stdbool.h>

typedef enum faultvfs_kind {
    FAULTVFS_IO,          /* reading, writing, syncing, truncating, opening: an error */
    FAULTVFS_FULL,        /* writing: no room */
    FAULTVFS_SHORT_READ,  /* less was read than asked, the rest zeros */
    FAULTVFS_SHORT_WRITE, /* half of it is written, then an error */
    FAULTVFS_NO_MEMORY,   /* mapping the shared index, opening */
    FAULTVFS_BUSY,        /* locking: another has it */
    FAULTVFS_KINDS
} faultvfs_kind;

extern const char *const faultvfs_names[FAULTVFS_KINDS];

/* Register it under the name "fault". */
void faultvfs_register(void);
/* From now on call number `at` (1 is the first; 0: none) that this kind concerns fails; `on`: and all that follow. */
void faultvfs_arm(faultvfs_kind kind, int at, bool on);
/* How many such calls were made, how many failed. */
int faultvfs_calls(void);
int faultvfs_failed(void);

#endif
