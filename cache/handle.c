/* handle.c - the connection's life.
 */
#include "cache/handle.h"

#include "cache/schema.h"
#include "core/base/clock.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

enum {
    RETRY_MS = 1000,
    NAP_US = 1000,
    LOG_PAGES = 256,       /* 16 MB: from here on a commit is followed by a checkpoint */
    LOG_MOST_PAGES = 1024, /* 64 MB: from here on nothing is written before the log is empty */
    LOG_KEPT = 64 << 20
};

static const char *const texts[RD_SQLS] = {
    [RD_SQL_BEGIN_READ] = "BEGIN",
    [RD_SQL_END_READ] = "COMMIT",
    [RD_SQL_FIND] =
        "SELECT id, kind, source, used, bytes, CASE WHEN length(head)<=1048 THEN head END"
        " FROM row WHERE model=?1 AND key=?2",
    [RD_SQL_HAS] = "SELECT 1 FROM row WHERE model=?1 AND key=?2",
    [RD_SQL_PAYLOAD] = "SELECT data FROM payload WHERE id=?1",
    [RD_SQL_ANSWER] = "SELECT data FROM answer WHERE id=?1",
    [RD_SQL_ADD] = "INSERT INTO row (kind, model, key, source, made, used, bytes, head)"
                   " VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6, ?7)",
    [RD_SQL_ADD_PAYLOAD] = "INSERT OR REPLACE INTO payload (id, data) VALUES (?1, ?2)",
    [RD_SQL_ADD_ANSWER] = "INSERT OR REPLACE INTO answer (id, data) VALUES (?1, ?2)",
    [RD_SQL_USE] = "UPDATE row SET used=?2 WHERE id=?1",
    [RD_SQL_DROP] = "DELETE FROM row WHERE id=?1",
    [RD_SQL_DROP_PAYLOAD] = "DELETE FROM payload WHERE id=?1",
    [RD_SQL_DROP_ANSWER] = "DELETE FROM answer WHERE id=?1",
    [RD_SQL_COUNT] = "UPDATE counts SET found=found+?1, loaded=loaded+?2, computed=computed+?3,"
                     " answers=answers+?4, saved_ms=saved_ms+?5 WHERE id=1",
    [RD_SQL_PAGES] = "PRAGMA page_count",
    [RD_SQL_FREE_PAGES] = "PRAGMA freelist_count",
    [RD_SQL_OLDEST] = "SELECT id FROM row ORDER BY used, id LIMIT 64",
    [RD_SQL_FUTURE] = "UPDATE row SET used=?1 WHERE used>?1",
    [RD_SQL_UNUSED] = "SELECT id FROM row WHERE used<?1 LIMIT 64",
    [RD_SQL_OF_SOURCE] = "SELECT id FROM row WHERE source=?1 LIMIT 64",
    [RD_SQL_ANY] = "SELECT id FROM row ORDER BY id DESC LIMIT 64",
    [RD_SQL_NEXT] = "SELECT id, model, key FROM row WHERE id>=?1 ORDER BY id LIMIT 1",
    [RD_SQL_TOTALS] =
        "SELECT sum(kind=1), sum(kind=2), total(bytes), min(used), max(used) FROM row",
    [RD_SQL_MODELS] = "SELECT count(DISTINCT model) FROM row",
    [RD_SQL_COUNTS] = "SELECT found, loaded, computed, answers, saved_ms FROM counts WHERE id=1",
    [RD_SQL_ROWS] = "SELECT count(*) FROM row",
    [RD_SQL_PAYLOADS] = "SELECT (SELECT count(*) FROM payload) + (SELECT count(*) FROM answer)",
};

int64_t rd_handle_now(const rd_cache *c)
{
    return c->o.now_s ? c->o.now_s() : (int64_t)time(NULL);
}

/* ---- statements ---- */

sqlite3_stmt *rd_handle_sql(rd_cache *c, rd_sql which, int *rc)
{
    *rc = SQLITE_OK;
    if (!c->sql[which])
        *rc = sqlite3_prepare_v3(c->db, texts[which], -1, SQLITE_PREPARE_PERSISTENT, &c->sql[which],
                                 NULL);
    else
        sqlite3_reset(c->sql[which]);
    return *rc ? NULL : c->sql[which];
}

int rd_handle_run(sqlite3_stmt *st)
{
    while (sqlite3_step(st) == SQLITE_ROW)
        ;
    return sqlite3_reset(st);
}

int rd_handle_number(rd_cache *c, rd_sql which, int64_t *out)
{
    int rc;
    sqlite3_stmt *st = rd_handle_sql(c, which, &rc);

    if (!st) return rc;
    if (sqlite3_step(st) == SQLITE_ROW) *out = sqlite3_column_int64(st, 0);
    return sqlite3_reset(st);
}

/* ---- waiting and the log ---- */

/* SQLite asks whether to try again: another connection recovers the log, or reads what a checkpoint wants to move. */
static int try_again(void *user, int times)
{
    rd_cache *c = user;

    (void)times;
    if (rd_now_ms() >= c->give_up_ms) return 0;
    nanosleep(&(struct timespec){ .tv_nsec = NAP_US * 1000L }, NULL);
    return 1;
}

static int committed(void *user, sqlite3 *db, const char *name, int pages)
{
    rd_cache *c = user;

    (void)db;
    (void)name;
    c->log_pages = pages;
    return SQLITE_OK;
}

int rd_handle_checkpoint(rd_cache *c, bool empty, int wait_ms)
{
    int in_log = -1, moved = -1;

    c->give_up_ms = rd_now_ms() + wait_ms;
    int rc = sqlite3_wal_checkpoint_v2(
        c->db, "main", empty ? SQLITE_CHECKPOINT_TRUNCATE : SQLITE_CHECKPOINT_PASSIVE, &in_log,
        &moved);

    if (!rc && in_log >= 0) c->log_pages = empty ? 0 : in_log;
    return rc;
}

/* ---- opening ---- */

static bool is_damage(int rc)
{
    return (rc & 0xff) == SQLITE_CORRUPT || (rc & 0xff) == SQLITE_NOTADB;
}

void rd_handle_drop(rd_cache *c)
{
    sqlite3_blob_close(c->blob);
    c->blob = NULL;
    c->reading = false;
    c->failed = true;
    for (int i = 0; i < RD_SQLS; i++) {
        sqlite3_finalize(c->sql[i]);
        c->sql[i] = NULL;
    }
    sqlite3_close_v2(c->db);
    c->db = NULL;
    c->log_pages = 0;
    c->n_wrong = 0;
}

static int connect_file(rd_cache *c)
{
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW |
                SQLITE_OPEN_PRIVATECACHE | SQLITE_OPEN_EXRESCODE;
    int rc = sqlite3_open_v2(c->file.path, &c->db, flags, c->o.vfs);

    if (!rc) rc = rd_schema_guard(c->db);
    if (!rc) {
        sqlite3_busy_handler(c->db, try_again, c);
        sqlite3_wal_hook(c->db, committed, c);
        rc = sqlite3_exec(c->db, "PRAGMA journal_size_limit=67108864", NULL, NULL, NULL);
    }
    return rc;
}

static rd_status begin_or_migrate(rd_cache *c, rd_schema_verdict verdict, int *rc)
{
    *rc = SQLITE_OK;
    if (verdict == RD_SCHEMA_EMPTY) *rc = rd_schema_begin(c->db);
    if (!*rc) *rc = rd_schema_migrate(c->db, RD_SCHEMA_VERSION);
    return *rc ? RD_IO : RD_OK;
}

/* Under the lock. *strange: the file has to be set aside. */
static rd_status open_once(rd_cache *c, bool *strange, rd_error *err)
{
    int rc = SQLITE_OK;

    *strange = false;
    if (rd_file_settle(&c->file, err)) return err->status;
    c->give_up_ms = rd_now_ms() + RD_WAIT_MS;
    rc = connect_file(c);
    rd_schema_verdict verdict = rc ? RD_SCHEMA_UNKNOWN : rd_schema_judge(c->db, &rc);

    if (verdict == RD_SCHEMA_NEWER)
        return rd_fail(err, RD_STALE, "%s is of a newer version of this program", c->file.path);
    if (verdict == RD_SCHEMA_EMPTY || verdict == RD_SCHEMA_OLDER) {
        begin_or_migrate(c, verdict, &rc);
        if (!rc) verdict = rd_schema_judge(c->db, &rc);
    }
    if (!rc && verdict == RD_SCHEMA_OURS) return RD_OK;
    *strange = is_damage(rc) || (!rc && verdict == RD_SCHEMA_STRANGE);
    if (*strange)
        return rd_fail(err, RD_INVALID, "%s is damaged or not ours (%s)", c->file.path,
                       rc ? sqlite3_errstr(rc) : "other tables");
    return rd_handle_fail(c, rc, "opening", err);
}

static rd_status open_connection(rd_cache *c, int wait_ms, rd_error *err)
{
    bool strange;
    rd_status s = rd_file_lock(&c->file, wait_ms, err);

    if (s) return s;
    s = open_once(c, &strange, err);
    if (s) rd_handle_drop(c);
    if (strange) { /* what is said in `err` stays there when all goes well */
        rd_error own;

        s = rd_file_set_aside(&c->file, &own);
        if (!s) s = open_once(c, &strange, &own);
        if (s) rd_handle_drop(c);
        if (s) *err = own;
    }
    rd_file_unlock(&c->file);
    return s;
}

rd_status rd_handle_attend(rd_cache *c, int wait_ms, rd_error *err)
{
    rd_error own;

    if (!err) err = &own;
    if (c->db && rd_file_is_same(&c->file)) return RD_OK;
    if (c->db) rd_handle_drop(c); /* set aside by another, or removed */
    if (rd_now_ms() < c->retry_ms) return rd_fail(err, RD_IO, "%s: closed for a moment", c->o.dir);
    rd_file_close(&c->file);
    rd_status s = rd_file_open(&c->file, c->o.dir, c->o.existing, c->o.any_place, err);

    if (!s) s = open_connection(c, wait_ms, err);
    if (s) {
        rd_file_close(&c->file);
        c->retry_ms = rd_now_ms() + RETRY_MS;
    }
    return s;
}

/* ---- failing ---- */

/* Take the damaged file away, if it is still the one that we had open. */
static void set_aside(rd_cache *c)
{
    bool had = c->file.locked;

    rd_handle_drop(c);
    if (!had && rd_file_lock(&c->file, RD_WAIT_MS, NULL)) return;
    if (rd_file_is_same(&c->file)) rd_file_set_aside(&c->file, NULL);
    if (!had) rd_file_unlock(&c->file);
}

rd_status rd_handle_fail(rd_cache *c, int rc, const char *what, rd_error *err)
{
    int kind = rc & 0xff;

    if (is_damage(rc)) {
        rd_fail(err, RD_IO, "%s: %s: damaged (%s); it is set aside", c->file.path, what,
                sqlite3_errstr(rc));
        set_aside(c);
        return RD_IO;
    }
    if (kind == SQLITE_BUSY || kind == SQLITE_LOCKED)
        return rd_fail(err, RD_STALE, "%s: %s: another is at it", c->file.path, what);
    if (kind == SQLITE_FULL)
        return rd_fail(err, RD_IO, "%s: %s: no room on the disk", c->file.path, what);
    if (kind == SQLITE_NOMEM)
        return rd_fail(err, RD_NO_MEMORY, "%s: %s: no memory", c->file.path, what);
    rd_fail(err, RD_IO, "%s: %s: %s", c->file.path, what, sqlite3_errstr(rc));
    rd_handle_drop(c); /* the next call looks at it anew */
    return RD_IO;
}

/* ---- writing ---- */

rd_status rd_handle_begin(rd_cache *c, int wait_ms, rd_error *err)
{
    rd_status s = rd_handle_attend(c, wait_ms, err);

    if (!s) s = rd_file_lock(&c->file, wait_ms, err);
    if (s) return s;
    rd_handle_end_read(c);
    if (c->log_pages >= LOG_MOST_PAGES) rd_handle_checkpoint(c, true, wait_ms);
    if (c->log_pages >= LOG_MOST_PAGES) {
        rd_file_unlock(&c->file);
        return rd_fail(err, RD_STALE, "%s: its log is full and somebody still reads it",
                       c->file.path);
    }
    c->give_up_ms = rd_now_ms() + wait_ms;
    int rc = sqlite3_exec(c->db, "BEGIN IMMEDIATE", NULL, NULL, NULL);

    if (!rc) return RD_OK;
    s = rd_handle_fail(c, rc, "writing", err);
    rd_file_unlock(&c->file);
    return s;
}

void rd_handle_undo(rd_cache *c)
{
    if (c->db && !sqlite3_get_autocommit(c->db)) sqlite3_exec(c->db, "ROLLBACK", NULL, NULL, NULL);
    rd_file_unlock(&c->file);
}

rd_status rd_handle_commit(rd_cache *c, rd_error *err)
{
    int rc = sqlite3_exec(c->db, "COMMIT", NULL, NULL, NULL);
    rd_status s = rc ? rd_handle_fail(c, rc, "writing", err) : RD_OK;

    c->wrote = true;
    /* What a checkpoint that fails leaves in the log is as good as in the file. */
    if (!s && c->log_pages >= LOG_PAGES) {
        rc = rd_handle_checkpoint(c, false, 0);
        if (is_damage(rc)) rd_handle_fail(c, rc, "moving the log", NULL);
    }
    rd_handle_undo(c);
    return s;
}

int rd_handle_remove(rd_cache *c, int64_t id)
{
    static const rd_sql all[] = { RD_SQL_DROP, RD_SQL_DROP_PAYLOAD, RD_SQL_DROP_ANSWER };
    int rc = SQLITE_OK;

    for (int i = 0; !rc && i < 3; i++) {
        sqlite3_stmt *st = rd_handle_sql(c, all[i], &rc);

        if (!st) return rc;
        sqlite3_bind_int64(st, 1, id);
        rc = rd_handle_run(st);
    }
    return rc;
}

/* ---- finding ---- */

static bool take_key(sqlite3_stmt *st, int column, rd_key *out)
{
    if (sqlite3_column_type(st, column) != SQLITE_BLOB) return false;
    if (sqlite3_column_bytes(st, column) != (int)sizeof out->byte) return false;
    memcpy(out->byte, sqlite3_column_blob(st, column), sizeof out->byte);
    return true;
}

/* The columns of FIND. */
static bool take_row(sqlite3_stmt *st, rd_found *out)
{
    static const int types[] = { SQLITE_INTEGER, SQLITE_INTEGER, SQLITE_BLOB,
                                 SQLITE_INTEGER, SQLITE_INTEGER, SQLITE_BLOB };
    int n = sqlite3_column_bytes(st, 5);

    for (int i = 0; i < 6; i++)
        if (sqlite3_column_type(st, i) != types[i]) return false;
    if (!take_key(st, 2, &out->source) || n > RD_ROW_MOST_HEAD || n <= 0) return false;
    memcpy(out->head, sqlite3_column_blob(st, 5), (size_t)n);
    out->used = sqlite3_column_int64(st, 3);
    return rd_row_decode(out->head, (size_t)n, &out->row) &&
           sqlite3_column_int64(st, 1) == out->row.kind &&
           sqlite3_column_int64(st, 4) == (int64_t)out->row.bytes;
}

int rd_handle_find(rd_cache *c, const rd_key *model, const rd_key *key, rd_found *out)
{
    int rc;
    sqlite3_stmt *st = rd_handle_sql(c, RD_SQL_FIND, &rc);

    if (!st) return rc;
    sqlite3_bind_blob(st, 1, model->byte, sizeof model->byte, SQLITE_STATIC);
    sqlite3_bind_blob(st, 2, key->byte, sizeof key->byte, SQLITE_STATIC);
    rc = sqlite3_step(st);
    if (rc == SQLITE_ROW) {
        out->id = sqlite3_column_int64(st, 0);
        out->sound = take_row(st, out);
    }
    int end = sqlite3_reset(st);

    return end ? end : rc;
}

void rd_handle_mark_wrong(rd_cache *c, int64_t id)
{
    for (int i = 0; i < c->n_wrong; i++)
        if (c->wrong[i] == id) return;
    if (c->n_wrong < RD_MOST_WRONG) c->wrong[c->n_wrong++] = id;
}

int rd_handle_begin_read(rd_cache *c)
{
    int rc;
    sqlite3_stmt *st = rd_handle_sql(c, RD_SQL_BEGIN_READ, &rc);

    if (st) rc = rd_handle_run(st);
    c->reading = !rc;
    return rc;
}

/* Before anything that is not the next row of a restore. */
void rd_handle_end_read(rd_cache *c)
{
    int rc;

    sqlite3_blob_close(c->blob);
    c->blob = NULL;
    c->open = false;
    c->expected = 0;
    if (!c->reading) return;
    c->reading = false;
    sqlite3_stmt *st = rd_handle_sql(c, RD_SQL_END_READ, &rc);

    if (st) rc = rd_handle_run(st);
    if (rc) rd_handle_drop(c);
}
