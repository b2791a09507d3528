/* handle.h - one connection: how it is opened, looked after and given up. The inside of cache/.
 *
 * A handle outlives its connection. Whatever goes wrong in a way that a second look could tell, the connection is closed and
 * the next call opens it again, with all that is checked at an opening; a damaged file is set aside on the way.
 */
#ifndef RD_CACHE_HANDLE_H
#define RD_CACHE_HANDLE_H

#include "cache/cache.h"
#include "cache/file.h"
#include "cache/row.h"

#include <sqlite3.h>

enum {
    RD_WAIT_MS = 50,        /* for the lock, where a request or a writer waits */
    RD_WAIT_OPEN_MS = 1000, /* once in a process: another's transaction may be long */
    RD_WAIT_PERSON_MS = 10000,
    RD_MOST_WRONG = 16
};

/* The statements that are kept. */
typedef enum rd_sql {
    RD_SQL_BEGIN_READ,
    RD_SQL_END_READ,
    RD_SQL_FIND,
    RD_SQL_HAS,
    RD_SQL_PAYLOAD,
    RD_SQL_ANSWER,
    RD_SQL_ADD,
    RD_SQL_ADD_PAYLOAD,
    RD_SQL_ADD_ANSWER,
    RD_SQL_USE,
    RD_SQL_DROP,
    RD_SQL_DROP_PAYLOAD,
    RD_SQL_DROP_ANSWER,
    RD_SQL_COUNT,
    RD_SQL_PAGES,
    RD_SQL_FREE_PAGES,
    RD_SQL_OLDEST,
    RD_SQL_FUTURE,
    RD_SQL_UNUSED,
    RD_SQL_OF_SOURCE,
    RD_SQL_ANY,
    RD_SQL_NEXT,
    RD_SQL_TOTALS,
    RD_SQL_MODELS,
    RD_SQL_COUNTS,
    RD_SQL_ROWS,
    RD_SQL_PAYLOADS,
    RD_SQLS
} rd_sql;

/* A row as it was found. */
typedef struct rd_found {
    int64_t id, used;
    rd_key source;
    rd_row row;
    uint8_t head[RD_ROW_MOST_HEAD];
    bool sound; /* else only id is right */
} rd_found;

struct rd_cache {
    rd_cache_options o; /* dir and vfs are our own copies */
    rd_file file;
    sqlite3 *db;
    sqlite3_stmt *sql[RD_SQLS];
    double retry_ms;   /* no attempt to open again before */
    double give_up_ms; /* when SQLite stops waiting for another connection */
    int log_pages;     /* after our last commit */
    bool wrote;
    void *scratch; /* of the writer: a payload with what stands behind it in the file */
    size_t scratch_bytes;
    /* the row that is open */
    sqlite3_blob *blob;
    rd_found found;
    rd_key model, key;
    rd_sum sum;
    size_t at;
    bool open, failed;
    bool reading;                 /* a transaction for several rows is open */
    int expected;                 /* rows that the last count has promised */
    int64_t wrong[RD_MOST_WRONG]; /* rows to be removed */
    int n_wrong;
    int64_t last_now_s, swept_s; /* of the writer: the clock, and when age was last looked at */
};

/* Open the connection where there is none or the file is no longer the one that was opened. */
rd_status rd_handle_attend(rd_cache *c, int wait_ms, rd_error *err);
void rd_handle_drop(rd_cache *c); /* close the connection; the handle stays */
/* What an SQLite code means: fills `err`, and gives the connection or the file up where that is due. */
rd_status rd_handle_fail(rd_cache *c, int rc, const char *what, rd_error *err);

/* A kept statement, reset; NULL: *rc says why. */
sqlite3_stmt *rd_handle_sql(rd_cache *c, rd_sql which, int *rc);
/* Step a statement that gives no row, and reset it. Returns an SQLite code. */
int rd_handle_run(sqlite3_stmt *st);
/* The one number that a statement without arguments gives. */
int rd_handle_number(rd_cache *c, rd_sql which, int64_t *out);

/* Lock and begin to write. After RD_OK exactly one of commit and undo; both give the lock back. */
rd_status rd_handle_begin(rd_cache *c, int wait_ms, rd_error *err);
rd_status rd_handle_commit(rd_cache *c, rd_error *err);
void rd_handle_undo(rd_cache *c);
/* Move the log into the file. `empty`: and leave none, for which readers must be waited for. Under the lock. */
int rd_handle_checkpoint(rd_cache *c, bool empty, int wait_ms);

/* SQLITE_ROW: found; SQLITE_DONE: not there. */
int rd_handle_find(rd_cache *c, const rd_key *model, const rd_key *key, rd_found *out);
void rd_handle_mark_wrong(rd_cache *c, int64_t id);
int rd_handle_remove(rd_cache *c, int64_t id); /* in a transaction. An SQLite code */
/* What follows sees the file as it is now, whatever others write. An SQLite code. */
int rd_handle_begin_read(rd_cache *c);
void rd_handle_end_read(rd_cache *c);
int64_t rd_handle_now(const rd_cache *c);

#endif
