/* schema.h - what stands in the file: tables, their version, and the steps from one version to the next.
 *
 * A file is ours when all its objects, letter for letter, are those of its version: no view, trigger, table or
 * expression of another's making is ever run.
 */
#ifndef RD_CACHE_SCHEMA_H
#define RD_CACHE_SCHEMA_H

#include "core/base/status.h"

#include <sqlite3.h>

enum {
    RD_SCHEMA_VERSION = 2,
    RD_SCHEMA_APPLICATION = 0x52644b56, /* "RdKV" */
    RD_SCHEMA_PAGE = 65536
};

typedef enum rd_schema_verdict {
    RD_SCHEMA_OURS,
    RD_SCHEMA_EMPTY,   /* begun, or not even that */
    RD_SCHEMA_OLDER,   /* ours, to be brought up */
    RD_SCHEMA_NEWER,   /* of a later program: to be left alone */
    RD_SCHEMA_STRANGE, /* anything else */
    RD_SCHEMA_UNKNOWN  /* it could not be read: *rc says why */
} rd_schema_verdict;

/* Limits and switches of a connection that reads a file from anybody. Returns an SQLite code. */
int rd_schema_guard(sqlite3 *db);
/* Look, change nothing. */
rd_schema_verdict rd_schema_judge(sqlite3 *db, int *rc);
/* Of an empty file: page size and log. Not in a transaction. Returns an SQLite code. */
int rd_schema_begin(sqlite3 *db);
/* In one transaction: from the version that the file has to `to`. Returns an SQLite code. */
int rd_schema_migrate(sqlite3 *db, int to);

#endif
