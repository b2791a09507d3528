/* cache.h - finished blocks and answers of earlier runs in one SQLite file that all processes of a user share.
 *
 * Losing it costs time, never data: whatever is wrong with the file is a miss, and the error says what it is once. A
 * handle is one connection and belongs to one thread at a time; a process opens one to read and one to write. Every
 * transaction that writes, every checkpoint and close stands under a lock of our own beside the file (SQLite before 3.51.3
 * can corrupt a file that two connections write and checkpoint at the same moment); who does not get it in 50 ms goes without.
 * Rows come from a file that anybody may have written: each is checked whole before it is given out.
 * Source: sqlite.org (WAL, incremental BLOB I/O, "Defense against the dark arts").
 */
#ifndef RD_CACHE_H
#define RD_CACHE_H

#include "core/base/buf.h"
#include "core/base/key.h"
#include "core/base/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct rd_cache rd_cache;

typedef struct rd_cache_options {
    const char *dir;        /* absolute; made with mode 0700 where it is missing, its parents too */
    bool existing;          /* make nothing: RD_NOT_FOUND where there is no file */
    bool any_place;         /* also on a network file system */
    int64_t max_bytes;      /* of the file; 0: no limit */
    int max_days;           /* without use; 0: no limit */
    const char *vfs;        /* for tests; NULL: the usual one */
    int64_t (*now_s)(void); /* for tests; NULL: the clock */
} rd_cache_options;

/* RD_INVALID: the folder or file is not the user's own, or a link, or on a network file system. RD_IO: it cannot be had. A file
 * that is no database, is damaged, or has a schema of ours that we do not know is set aside (renamed) and a new one begun;
 * one of a newer version is left alone and RD_STALE, which also says that another held the lock for a second. RD_OK with a text
 * in `err`: something was set aside, and why. */
rd_status rd_cache_open(const rd_cache_options *o, rd_cache **out, rd_error *err);
void rd_cache_close(rd_cache *c);
/* The usual folder: $XDG_CACHE_HOME/redraft, else ~/.cache/redraft. False: no home. */
bool rd_cache_usual_dir(char *out, size_t n);

/* ---- reading ---- */

/* How many of the blocks `keys`, from the first on, are there without a gap. A cheap guess: reading may still miss. */
int rd_cache_count(rd_cache *c, const rd_key *model, const rd_key *keys, int n);

/* A block's row, checked against what is wanted, with its payload not yet read. */
typedef struct rd_cache_row {
    int format;   /* of the payload; the caller's business */
    size_t bytes; /* of the payload */
} rd_cache_row;

/* RD_NOT_FOUND: a miss, also where the row is there and wrong (such a row is remembered and removed by the next put).
 * One row at a time. */
rd_status rd_cache_row_open(rd_cache *c, const rd_key *model, const rd_key *key,
                            const int32_t *tokens, int n_tokens, rd_cache_row *out, rd_error *err);
/* The next `n` bytes of the payload, straight from the file (incremental BLOB I/O) into `to`. */
rd_status rd_cache_row_read(rd_cache *c, void *to, size_t n, rd_error *err);
/* RD_OK: every byte was read and the checksum is right. RD_NOT_FOUND: it must not be used. Always closes. */
rd_status rd_cache_row_close(rd_cache *c, rd_error *err);
/* Nothing more is read for now. The rows of one count share a read transaction, which ends with the last of them, with a miss,
 * with any other call, and here: to be called where a restore ends early. */
void rd_cache_rest(rd_cache *c);

/* Append the answer to `out`. */
rd_status rd_cache_answer(rd_cache *c, const rd_key *model, const rd_key *key, rd_buf *out,
                          rd_error *err);

/* ---- writing ---- */

typedef struct rd_cache_item {
    enum {
        RD_CACHE_BLOCK,
        RD_CACHE_ANSWER,
        RD_CACHE_USED
    } kind;                    /* USED: key of a block that was loaded */
    rd_key model, key, source; /* source: the file that it is made of; may be none */
    const int32_t *tokens;     /* of a block */
    int n_tokens, format;
    const void *data;
    size_t bytes;
} rd_cache_item;

/* Kept across processes; added to what is there. */
typedef struct rd_cache_counts {
    int64_t found, loaded, computed; /* blocks: in memory, from the file, neither */
    int64_t answers;                 /* given without a run */
    double saved_ms;
} rd_cache_counts;

/* One transaction under the lock: all of it or nothing; then the oldest go until the file is within its limits. `counts` may be
 * NULL. RD_STALE: the lock could not be had in 50 ms, nothing was written. */
rd_status rd_cache_put(rd_cache *c, const rd_cache_item *items, int n,
                       const rd_cache_counts *counts, rd_error *err);

/* ---- looking after it ---- */

typedef struct rd_cache_stats {
    int64_t blocks, answers, models;
    int64_t payload_bytes, file_bytes; /* file: with its log (WAL) */
    int64_t oldest_s, newest_s;        /* last use, seconds since 1970 */
    rd_cache_counts counts;
} rd_cache_stats;

rd_status rd_cache_stat(rd_cache *c, rd_cache_stats *out, rd_error *err);
/* Read every row. *bad: rows that are wrong; they are removed. An error: the file itself is damaged. */
rd_status rd_cache_verify(rd_cache *c, int64_t *rows, int64_t *bad, rd_error *err);
/* The oldest go until the file has at most `max_bytes`, and what was not used for `max_days` (negative: whatever its age);
 * the file shrinks. */
rd_status rd_cache_trim(rd_cache *c, int64_t max_bytes, int max_days, int64_t *removed,
                        rd_error *err);
/* What came from `source` goes; NULL: everything. No byte of it is left in the file, its log or its free pages. Waits up to
 * 10 s for the lock and for readers. */
rd_status rd_cache_purge(rd_cache *c, const rd_key *source, int64_t *removed, rd_error *err);

#endif
