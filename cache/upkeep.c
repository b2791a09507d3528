/* upkeep.c - counting, checking, trimming and purging, while others use the file.
 *
 * All of it goes in transactions of a few rows, so that nobody waits long for the lock. Free pages hold zeros (secure_delete);
 * what a purge removes is gone when the log, where older pages stand, is empty.
 */
#include "cache/put.h"

#include "cache/schema.h"

#include <string.h>

enum { PURGE_ROWS = 16 };

/* ---- stat ---- */

static int read_totals(rd_cache *c, rd_cache_stats *out)
{
    int rc;
    sqlite3_stmt *st = rd_handle_sql(c, RD_SQL_TOTALS, &rc);

    if (!st) return rc;
    if (sqlite3_step(st) == SQLITE_ROW) {
        out->blocks = sqlite3_column_int64(st, 0);
        out->answers = sqlite3_column_int64(st, 1);
        out->payload_bytes = sqlite3_column_int64(st, 2);
        out->oldest_s = sqlite3_column_int64(st, 3);
        out->newest_s = sqlite3_column_int64(st, 4);
    }
    rc = sqlite3_reset(st);
    return rc ? rc : rd_handle_number(c, RD_SQL_MODELS, &out->models);
}

static int read_counts(rd_cache *c, rd_cache_counts *out)
{
    int rc;
    sqlite3_stmt *st = rd_handle_sql(c, RD_SQL_COUNTS, &rc);

    if (!st) return rc;
    if (sqlite3_step(st) == SQLITE_ROW) {
        out->found = sqlite3_column_int64(st, 0);
        out->loaded = sqlite3_column_int64(st, 1);
        out->computed = sqlite3_column_int64(st, 2);
        out->answers = sqlite3_column_int64(st, 3);
        out->saved_ms = sqlite3_column_double(st, 4);
    }
    return sqlite3_reset(st);
}

rd_status rd_cache_stat(rd_cache *c, rd_cache_stats *out, rd_error *err)
{
    rd_cache_stats stats = { 0 };
    rd_error own;

    rd_handle_end_read(c);
    if (!err) err = &own;
    if (rd_handle_attend(c, RD_WAIT_MS, err)) return err->status;
    int rc = read_totals(c, &stats);

    if (!rc) rc = read_counts(c, &stats.counts);
    if (rc) return rd_handle_fail(c, rc, "counting", err);
    stats.file_bytes = rd_file_bytes(&c->file);
    *out = stats;
    return RD_OK;
}

/* ---- verify ---- */

static int check_structure(rd_cache *c, char *text, size_t n)
{
    sqlite3_stmt *st = NULL;
    int rc = sqlite3_prepare_v2(c->db, "PRAGMA integrity_check(1)", -1, &st, NULL);

    if (!rc && sqlite3_step(st) == SQLITE_ROW)
        sqlite3_snprintf((int)n, text, "%s", sqlite3_column_text(st, 0));
    int end = sqlite3_finalize(st);

    return rc ? rc : end;
}

static bool take_name(sqlite3_stmt *st, int column, rd_key *out)
{
    if (sqlite3_column_type(st, column) != SQLITE_BLOB ||
        sqlite3_column_bytes(st, column) != (int)sizeof out->byte)
        return false;
    memcpy(out->byte, sqlite3_column_blob(st, column), sizeof out->byte);
    return true;
}

/* The row at *id or the next after it; *id becomes its own. In a transaction: another may write between its steps. */
static int check_next(rd_cache *c, int64_t *id, bool *more, bool *right)
{
    rd_key model, key;
    rd_found f;
    int rc;
    sqlite3_stmt *st = rd_handle_sql(c, RD_SQL_NEXT, &rc);

    if (!st) return rc;
    sqlite3_bind_int64(st, 1, *id);
    bool named = false;

    *more = sqlite3_step(st) == SQLITE_ROW;
    if (*more) {
        *id = sqlite3_column_int64(st, 0);
        named = take_name(st, 1, &model) && take_name(st, 2, &key);
    }
    rc = sqlite3_reset(st);
    if (rc) return rc;
    *right = false;
    if (!*more || !named) return SQLITE_OK;
    rc = rd_handle_find(c, &model, &key, &f);
    if (rc != SQLITE_ROW) return rc == SQLITE_DONE ? SQLITE_OK : rc;
    return f.id == *id ? rd_put_check(c, &f, &model, &key, right) : SQLITE_OK;
}

/* And payloads that no row leads to: nobody would ever find or remove them. */
static const char orphans[] =
    "DELETE FROM payload WHERE id NOT IN (SELECT id FROM row WHERE kind=1);"
    "DELETE FROM answer WHERE id NOT IN (SELECT id FROM row WHERE kind=2)";

static bool has_orphans(rd_cache *c)
{
    int64_t rows = 0, payloads = 0;

    return !rd_handle_number(c, RD_SQL_ROWS, &rows) &&
           !rd_handle_number(c, RD_SQL_PAYLOADS, &payloads) && payloads > rows;
}

/* Under the lock, and only what is still there and still wrong: ids are used again. */
static int remove_wrong(rd_cache *c, int64_t id, int64_t *bad)
{
    int64_t is = id;
    bool more, right;
    int rc = check_next(c, &is, &more, &right);

    if (rc || !more || is != id || right) return rc;
    ++*bad;
    return rd_handle_remove(c, id);
}

static rd_status remove_ids(rd_cache *c, const int64_t *ids, int n, int64_t *bad, rd_error *err)
{
    int rc = SQLITE_OK;

    if (!n && !has_orphans(c)) return RD_OK;
    rd_status s = rd_handle_begin(c, RD_WAIT_PERSON_MS, err);

    if (s) return s;
    for (int i = 0; !rc && i < n; i++) rc = remove_wrong(c, ids[i], bad);
    if (!rc) rc = sqlite3_exec(c->db, orphans, NULL, NULL, NULL);
    if (!rc) return rd_handle_commit(c, err);
    s = rd_handle_fail(c, rc, "removing", err);
    rd_handle_undo(c);
    return s;
}

static int look_at_next(rd_cache *c, int64_t *id, bool *more, bool *right)
{
    int rc = rd_handle_begin_read(c);

    if (!rc) rc = check_next(c, id, more, right);
    rd_handle_end_read(c);
    return rc;
}

rd_status rd_cache_verify(rd_cache *c, int64_t *rows, int64_t *bad, rd_error *err)
{
    int64_t wrong[64], id = INT64_MIN;
    char text[160] = "";
    rd_error own;
    int n = 0;

    *rows = *bad = 0;
    rd_handle_end_read(c);
    if (!err) err = &own;
    if (rd_handle_attend(c, RD_WAIT_PERSON_MS, err)) return err->status;
    int rc = check_structure(c, text, sizeof text);

    if (rc) return rd_handle_fail(c, rc, "verifying", err);
    if (strcmp(text, "ok") != 0) {
        rd_handle_fail(c, SQLITE_CORRUPT, "verifying", NULL);
        return rd_fail(err, RD_IO, "%s: damaged, set aside: %s", c->o.dir, text);
    }
    for (bool right, more;;) {
        rc = look_at_next(c, &id, &more, &right);
        if (rc) return rd_handle_fail(c, rc, "verifying", err);
        if (!more) break;
        ++*rows;
        if (!right) wrong[n++] = id;
        if (n == 64 && remove_ids(c, wrong, n, bad, err)) return err->status;
        if (n == 64) n = 0;
        if (id == INT64_MAX) break;
        id++;
    }
    return remove_ids(c, wrong, n, bad, err);
}

/* ---- trim and purge ---- */

rd_status rd_cache_trim(rd_cache *c, int64_t max_bytes, int max_days, int64_t *removed,
                        rd_error *err)
{
    rd_error own;

    *removed = 0;
    if (!err) err = &own;
    rd_status s = rd_handle_begin(c, RD_WAIT_PERSON_MS, err);

    if (s) return s;
    int rc = rd_put_settle_clock(c);

    if (!rc && max_days >= 0) rc = rd_put_expire(c, max_days, removed);
    if (!rc) rc = rd_put_evict(c, max_bytes / RD_SCHEMA_PAGE, removed);
    if (!rc) rc = rd_put_shrink(c, max_bytes, 1 << 20);
    if (!rc) return rd_handle_commit(c, err);
    s = rd_handle_fail(c, rc, "trimming", err);
    rd_handle_undo(c);
    return s;
}

/* One transaction under the lock. */
typedef int (*work)(rd_cache *c, const rd_key *source, int64_t *removed);

static rd_status write_by(rd_cache *c, work w, const rd_key *source, int64_t *removed,
                          rd_error *err)
{
    rd_status s = rd_handle_begin(c, RD_WAIT_PERSON_MS, err);

    if (s) return s;
    int rc = w(c, source, removed);

    if (!rc) return rd_handle_commit(c, err);
    s = rd_handle_fail(c, rc, "purging", err);
    rd_handle_undo(c);
    return s;
}

/* A few rows, the newest first: their pages are mostly the file's last, which are cut off and never written. */
static int purge_some(rd_cache *c, const rd_key *source, int64_t *removed)
{
    rd_put_of of = { .source = source };
    int64_t ids[64];
    int n,
        rc = rd_put_list(c, source ? RD_SQL_OF_SOURCE : RD_SQL_ANY, source ? &of : NULL, ids, &n);

    n = n < PURGE_ROWS ? n : PURGE_ROWS;
    for (int i = 0; !rc && i < n; i++) rc = rd_handle_remove(c, ids[i]);
    if (!rc) rc = rd_put_shrink(c, 0, 1 << 20);
    if (!rc) *removed += n;
    return rc;
}

/* A page that many rows share may keep copies of what was moved in it. What has no row goes too, and the small tables, which
 * hold tokens and answers, are written anew into pages that hold nothing else. */
static int rewrite_small(rd_cache *c, const rd_key *source, int64_t *removed)
{
    (void)source;
    (void)removed;
    int rc = sqlite3_exec(c->db, orphans, NULL, NULL, NULL);

    if (!rc)
        rc = sqlite3_exec(c->db,
                          "CREATE TEMP TABLE rows AS SELECT * FROM row;"
                          "CREATE TEMP TABLE answers AS SELECT * FROM answer;"
                          "DELETE FROM row; DELETE FROM answer;"
                          "INSERT INTO row SELECT * FROM temp.rows;"
                          "INSERT INTO answer SELECT * FROM temp.answers;"
                          "DROP TABLE temp.rows; DROP TABLE temp.answers",
                          NULL, NULL, NULL);

    return rc ? rc : rd_put_shrink(c, 0, 1 << 20);
}

static rd_status empty_log(rd_cache *c, rd_error *err)
{
    rd_status s = rd_file_lock(&c->file, RD_WAIT_PERSON_MS, err);

    if (s) return s;
    int rc = rd_handle_checkpoint(c, true, RD_WAIT_PERSON_MS);

    s = rc ? rd_handle_fail(c, rc, "emptying the log", err) : rd_file_drop_aside(&c->file, err);
    rd_file_unlock(&c->file);
    return s;
}

rd_status rd_cache_purge(rd_cache *c, const rd_key *source, int64_t *removed, rd_error *err)
{
    int64_t before = -1;
    rd_status s = RD_OK;
    rd_error own;

    *removed = 0;
    if (!err) err = &own;
    while (!s && before < *removed) {
        before = *removed;
        s = write_by(c, purge_some, source, removed, err);
    }
    if (!s) s = write_by(c, rewrite_small, source, removed, err);
    return s ? s : empty_log(c, err);
}
