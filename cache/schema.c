/* schema.c - the tables, as numbered steps that only add.
 *
 * `row` is small and holds what is searched and sorted; `payload` (of blocks) and `answer` hold the bytes under the same id, so
 * that neither a search nor the choice of what goes ever reads them. The index on (model, key) is the only one: the others would cost a
 * page of 64 KB in the log for each transaction, to save a scan of a few megabytes when something has to go.
 */
#include "cache/schema.h"

#include "cache/row.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static const struct {
    int since; /* the version that made it */
    const char *type, *name, *table, *sql;
} objects[] = {
    { 1, "table", "answer", "answer",
      "CREATE TABLE answer (id INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT" },
    { 2, "table", "counts", "counts",
      "CREATE TABLE counts (id INTEGER PRIMARY KEY, found INTEGER NOT NULL, loaded INTEGER NOT "
      "NULL,"
      " computed INTEGER NOT NULL, answers INTEGER NOT NULL, saved_ms REAL NOT NULL) STRICT" },
    { 1, "table", "payload", "payload",
      "CREATE TABLE payload (id INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT" },
    { 1, "table", "row", "row",
      "CREATE TABLE row (id INTEGER PRIMARY KEY, kind INTEGER NOT NULL, model BLOB NOT NULL,"
      " key BLOB NOT NULL, source BLOB NOT NULL, made INTEGER NOT NULL, used INTEGER NOT NULL,"
      " bytes INTEGER NOT NULL, head BLOB NOT NULL) STRICT" },
    { 1, "index", "row_by_key", "row", "CREATE UNIQUE INDEX row_by_key ON row (model, key)" },
}; /* by name */

enum { OBJECTS = sizeof objects / sizeof *objects };

static int run(sqlite3 *db, const char *sql)
{
    return sqlite3_exec(db, sql, NULL, NULL, NULL);
}

int rd_schema_guard(sqlite3 *db)
{
    static const struct {
        int what, value;
    } limits[] = {
        { SQLITE_LIMIT_LENGTH, RD_ROW_MOST_BYTES + 65536 },
        { SQLITE_LIMIT_SQL_LENGTH, 8192 },
        { SQLITE_LIMIT_COLUMN, 16 },
        { SQLITE_LIMIT_EXPR_DEPTH, 16 },
        { SQLITE_LIMIT_COMPOUND_SELECT, 2 },
        { SQLITE_LIMIT_VDBE_OP, 25000 },
        { SQLITE_LIMIT_FUNCTION_ARG, 8 },
        { SQLITE_LIMIT_ATTACHED, 0 },
        { SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 16 },
        { SQLITE_LIMIT_VARIABLE_NUMBER, 16 },
        { SQLITE_LIMIT_TRIGGER_DEPTH, 1 },
        { SQLITE_LIMIT_WORKER_THREADS, 0 },
    }, switches[] = {
        { SQLITE_DBCONFIG_DEFENSIVE, 1 },
        { SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0 },
        { SQLITE_DBCONFIG_WRITABLE_SCHEMA, 0 },
        { SQLITE_DBCONFIG_ENABLE_TRIGGER, 0 },
        { SQLITE_DBCONFIG_ENABLE_VIEW, 0 },
        { SQLITE_DBCONFIG_ENABLE_FKEY, 0 },
        { SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0 },
        { SQLITE_DBCONFIG_ENABLE_FTS3_TOKENIZER, 0 },
        { SQLITE_DBCONFIG_DQS_DML, 0 },
        { SQLITE_DBCONFIG_DQS_DDL, 0 },
        { SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1 },
    };
    int rc = SQLITE_OK;

    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
        sqlite3_limit(db, limits[i].what, limits[i].value);
    for (size_t i = 0; !rc && i < sizeof switches / sizeof *switches; i++)
        rc = sqlite3_db_config(db, switches[i].what, switches[i].value, (int *)NULL);
    /* None of these reads the file. A page of 64 KB goes through memory on its way; few of them stay near the core. */
    if (!rc)
        rc = run(db, "PRAGMA mmap_size=0; PRAGMA cell_size_check=ON; PRAGMA secure_delete=ON;"
                     "PRAGMA synchronous=NORMAL; PRAGMA cache_size=24; PRAGMA temp_store=MEMORY");
    return rc;
}

static bool same(sqlite3_stmt *st, int column, const char *wanted)
{
    const char *text = (const char *)sqlite3_column_text(st, column);

    return sqlite3_column_type(st, column) == SQLITE_TEXT && text &&
           (size_t)sqlite3_column_bytes(st, column) == strlen(wanted) && !strcmp(text, wanted);
}

/* -1: it cannot be had. */
static int64_t number(sqlite3 *db, const char *sql, int *rc)
{
    sqlite3_stmt *st = NULL;
    int64_t value = -1;

    *rc = sqlite3_prepare_v2(db, sql, -1, &st, NULL);
    if (!*rc && sqlite3_step(st) == SQLITE_ROW) value = sqlite3_column_int64(st, 0);
    int end = sqlite3_finalize(st);

    if (!*rc) *rc = end;
    return *rc ? -1 : value;
}

/* Whether the objects are those of `version` and no others, each in pages of its own. */
static bool objects_are(sqlite3 *db, int version, int *rc)
{
    sqlite3_stmt *st = NULL;
    int64_t roots[OBJECTS];
    int at = 0, n = 0;
    bool equal = true;

    *rc = sqlite3_prepare_v2(
        db, "SELECT type, name, tbl_name, sql, rootpage FROM sqlite_schema ORDER BY name", -1, &st,
        NULL);
    while (!*rc && equal && sqlite3_step(st) == SQLITE_ROW) {
        while (at < OBJECTS && objects[at].since > version) at++;
        equal = at < OBJECTS && same(st, 0, objects[at].type) && same(st, 1, objects[at].name) &&
                same(st, 2, objects[at].table) && same(st, 3, objects[at].sql);
        if (!equal) break;
        roots[n] = sqlite3_column_int64(st, 4);
        for (int i = 0; i < n; i++) equal = equal && roots[i] != roots[n];
        equal = equal && roots[n++] > 1;
        at++;
    }
    int end = sqlite3_finalize(st);

    if (!*rc) *rc = end;
    while (at < OBJECTS && objects[at].since > version) at++;
    return !*rc && equal && at == OBJECTS;
}

rd_schema_verdict rd_schema_judge(sqlite3 *db, int *rc)
{
    int64_t version = number(db, "PRAGMA user_version", rc);
    int64_t application = *rc ? -1 : number(db, "PRAGMA application_id", rc);
    int64_t page = *rc ? -1 : number(db, "PRAGMA page_size", rc);
    int64_t pages = *rc ? -1 : number(db, "PRAGMA page_count", rc);
    int64_t vacuum = *rc ? -1 : number(db, "PRAGMA auto_vacuum", rc);

    if (*rc) return RD_SCHEMA_UNKNOWN;
    if (pages == 0) return RD_SCHEMA_EMPTY;
    if (application == RD_SCHEMA_APPLICATION && version > RD_SCHEMA_VERSION) return RD_SCHEMA_NEWER;
    if (page != RD_SCHEMA_PAGE || vacuum != 2) return RD_SCHEMA_STRANGE;
    if (application == 0 && version == 0 && pages == 1) return RD_SCHEMA_EMPTY;
    if (application != RD_SCHEMA_APPLICATION || version < 1) return RD_SCHEMA_STRANGE;
    bool ours = objects_are(db, (int)version, rc);

    if (*rc) return RD_SCHEMA_UNKNOWN;
    if (!ours) return RD_SCHEMA_STRANGE;
    return version == RD_SCHEMA_VERSION ? RD_SCHEMA_OURS : RD_SCHEMA_OLDER;
}

int rd_schema_begin(sqlite3 *db)
{
    return run(db,
               "PRAGMA page_size=65536; PRAGMA auto_vacuum=INCREMENTAL; PRAGMA journal_mode=WAL");
}

int rd_schema_migrate(sqlite3 *db, int to)
{
    char text[120];
    int rc = run(db, "BEGIN IMMEDIATE");
    int64_t from = rc ? 0 : number(db, "PRAGMA user_version", &rc);

    for (int step = (int)from + 1; !rc && step <= to; step++)
        for (size_t i = 0; !rc && i < OBJECTS; i++)
            if (objects[i].since == step && strcmp(objects[i].type, "table") == 0)
                rc = run(db, objects[i].sql);
    for (int step = (int)from + 1; !rc && step <= to; step++)
        for (size_t i = 0; !rc && i < OBJECTS; i++)
            if (objects[i].since == step && strcmp(objects[i].type, "table") != 0)
                rc = run(db, objects[i].sql);
    if (!rc && from < 2 && to >= 2) rc = run(db, "INSERT INTO counts VALUES (1, 0, 0, 0, 0, 0.0)");
    snprintf(text, sizeof text, "PRAGMA application_id=%d; PRAGMA user_version=%d",
             RD_SCHEMA_APPLICATION, to);
    if (!rc) rc = run(db, text);
    if (!rc) rc = run(db, "COMMIT");
    if (rc && !sqlite3_get_autocommit(db)) run(db, "ROLLBACK");
    return rc;
}
