/* put.c - one transaction: what is wrong goes, room is made, new rows come.
 *
 * Room is made before it is used, in the same transaction: pages that go and come at once are written once, and the file does
 * not grow beyond its limit. What was used longest ago goes first.
 */
#include "cache/put.h"

#include "cache/schema.h"
#include "core/base/memory.h"

#include <stdlib.h>
#include <string.h>

enum {
    USED_STEP_S = 60,    /* a last use is not written more often */
    SWEEP_S = 3600,      /* between two looks at ages */
    SHRINK_PAGES = 1024, /* given back to the file system in one transaction */
    ROW_PAGES = 2,       /* beyond the payload's own: a share of tables and index */
    LIST = 64
};

/* ---- rows that go ---- */

int rd_put_list(rd_cache *c, rd_sql which, const rd_put_of *of, int64_t ids[64], int *n)
{
    int rc;
    sqlite3_stmt *st = rd_handle_sql(c, which, &rc);

    *n = 0;
    if (!st) return rc;
    if (of && of->source)
        sqlite3_bind_blob(st, 1, of->source->byte, sizeof of->source->byte, SQLITE_STATIC);
    else if (of)
        sqlite3_bind_int64(st, 1, of->before_s);
    while (*n < LIST && sqlite3_step(st) == SQLITE_ROW) ids[(*n)++] = sqlite3_column_int64(st, 0);
    return sqlite3_reset(st);
}

static int used_pages(rd_cache *c, int64_t *out)
{
    int64_t all = 0, free_ones = 0;
    int rc = rd_handle_number(c, RD_SQL_PAGES, &all);

    if (!rc) rc = rd_handle_number(c, RD_SQL_FREE_PAGES, &free_ones);
    *out = all - free_ones;
    return rc;
}

int rd_put_evict(rd_cache *c, int64_t pages, int64_t *removed)
{
    int64_t ids[LIST], used = 0;
    int n = LIST, rc = used_pages(c, &used);

    while (!rc && used > pages && n > 0) {
        rc = rd_put_list(c, RD_SQL_OLDEST, NULL, ids, &n);
        for (int i = 0; !rc && used > pages && i < n; i++) {
            rc = rd_handle_remove(c, ids[i]);
            if (!rc) rc = used_pages(c, &used);
            ++*removed;
        }
    }
    return rc;
}

int rd_put_expire(rd_cache *c, int days, int64_t *removed)
{
    rd_put_of of = { .before_s = rd_handle_now(c) - (int64_t)days * 86400 };
    int64_t ids[LIST];
    int n = LIST, rc = SQLITE_OK;

    while (!rc && n == LIST) {
        rc = rd_put_list(c, RD_SQL_UNUSED, &of, ids, &n);
        for (int i = 0; !rc && i < n; i++) rc = rd_handle_remove(c, ids[i]);
        *removed += n;
    }
    return rc;
}

int rd_put_settle_clock(rd_cache *c)
{
    int rc;
    sqlite3_stmt *st = rd_handle_sql(c, RD_SQL_FUTURE, &rc);

    if (!st) return rc;
    sqlite3_bind_int64(st, 1, rd_handle_now(c));
    return rd_handle_run(st);
}

/* Now and then, and when the clock was set back: uses that have not come yet become now, and what is too old goes. */
static int sweep(rd_cache *c)
{
    int64_t now = rd_handle_now(c), removed = 0;
    bool back = now < c->last_now_s, due = back || !c->swept_s || now - c->swept_s >= SWEEP_S;

    c->last_now_s = now;
    if (!due) return SQLITE_OK;
    int rc = rd_put_settle_clock(c);

    if (!rc && c->o.max_days > 0) rc = rd_put_expire(c, c->o.max_days, &removed);
    if (!rc) c->swept_s = now;
    return rc;
}

static int remove_wrong(rd_cache *c)
{
    int rc = SQLITE_OK;

    while (!rc && c->n_wrong > 0) rc = rd_handle_remove(c, c->wrong[--c->n_wrong]);
    return rc;
}

/* ---- rows that come ---- */

static rd_row row_of(const rd_cache_item *item)
{
    rd_row row = { .kind = item->kind == RD_CACHE_BLOCK ? RD_ROW_BLOCK : RD_ROW_ANSWER,
                   .format = item->format,
                   .n_tokens = item->n_tokens,
                   .bytes = item->bytes,
                   .tokens = item->tokens };
    rd_sum sum;

    if (row.kind == RD_ROW_ANSWER) row.n_tokens = row.format = 0;
    if (!rd_row_sound(&row)) return (rd_row){ 0 };
    rd_row_sum_begin(&sum, &row, row.tokens, &item->model, &item->key, &item->source);
    rd_sum_add(&sum, item->data, item->bytes);
    row.sum = rd_sum_end(&sum);
    return row;
}

/* The payload of a row as it stands, against its own sum. */
int rd_put_check(rd_cache *c, const rd_found *f, const rd_key *model, const rd_key *key,
                 bool *right)
{
    int32_t tokens[RD_ROW_MOST_TOKENS];
    bool block = f->row.kind == RD_ROW_BLOCK;
    rd_sum sum;
    int rc;

    *right = false;
    if (!f->sound) return SQLITE_OK;
    sqlite3_stmt *st = rd_handle_sql(c, block ? RD_SQL_PAYLOAD : RD_SQL_ANSWER, &rc);
    size_t stored = block ? rd_row_stored_bytes(f->row.bytes) : f->row.bytes;

    if (!st) return rc;
    rd_row_tokens(f->head, &f->row, tokens);
    sqlite3_bind_int64(st, 1, f->id);
    if (sqlite3_step(st) == SQLITE_ROW && sqlite3_column_type(st, 0) == SQLITE_BLOB &&
        (size_t)sqlite3_column_bytes(st, 0) == stored) {
        const void *data = sqlite3_column_blob(st, 0);

        rd_row_sum_begin(&sum, &f->row, tokens, model, key, &f->source);
        if (data) rd_sum_add(&sum, data, f->row.bytes);
        *right = rd_sum_end(&sum) == f->row.sum;
    }
    rc = sqlite3_reset(st);
    return rc == SQLITE_TOOBIG ? SQLITE_OK : rc;
}

static int set_used(rd_cache *c, const rd_found *f)
{
    int64_t now = rd_handle_now(c);
    int rc;

    if (now >= f->used && now - f->used < USED_STEP_S) return SQLITE_OK;
    sqlite3_stmt *st = rd_handle_sql(c, RD_SQL_USE, &rc);

    if (!st) return rc;
    sqlite3_bind_int64(st, 1, f->id);
    sqlite3_bind_int64(st, 2, now);
    return rd_handle_run(st);
}

/* The bytes as they stand in the file; NULL: no memory. */
static const void *stored_payload(rd_cache *c, const rd_cache_item *item, size_t stored)
{
    if (stored == item->bytes) return item->data;
    if (c->scratch_bytes < stored) {
        free(c->scratch);
        c->scratch = rd_try_alloc(stored);
        c->scratch_bytes = c->scratch ? stored : 0;
    }
    if (!c->scratch) return NULL;
    memcpy(c->scratch, item->data, item->bytes);
    memset((char *)c->scratch + item->bytes, 0, stored - item->bytes);
    return c->scratch;
}

static int add_head(rd_cache *c, const rd_cache_item *item, const rd_row *row)
{
    uint8_t head[RD_ROW_MOST_HEAD];
    size_t n = rd_row_encode(row, head);
    int rc;
    sqlite3_stmt *st = rd_handle_sql(c, RD_SQL_ADD, &rc);

    if (!st) return rc;
    sqlite3_bind_int(st, 1, row->kind);
    sqlite3_bind_blob(st, 2, item->model.byte, sizeof item->model.byte, SQLITE_STATIC);
    sqlite3_bind_blob(st, 3, item->key.byte, sizeof item->key.byte, SQLITE_STATIC);
    sqlite3_bind_blob(st, 4, item->source.byte, sizeof item->source.byte, SQLITE_STATIC);
    sqlite3_bind_int64(st, 5, rd_handle_now(c));
    sqlite3_bind_int64(st, 6, (int64_t)row->bytes);
    sqlite3_bind_blob(st, 7, head, (int)n, SQLITE_STATIC);
    rc = rd_handle_run(st);
    sqlite3_clear_bindings(st);
    return rc;
}

static int add(rd_cache *c, const rd_cache_item *item, const rd_row *row)
{
    bool block = row->kind == RD_ROW_BLOCK;
    size_t stored = block ? rd_row_stored_bytes(row->bytes) : row->bytes;
    const void *data = stored ? stored_payload(c, item, stored) : "";
    int rc = data ? add_head(c, item, row) : SQLITE_NOMEM;

    if (rc) return rc;
    int64_t id = sqlite3_last_insert_rowid(c->db);
    sqlite3_stmt *st = rd_handle_sql(c, block ? RD_SQL_ADD_PAYLOAD : RD_SQL_ADD_ANSWER, &rc);

    if (!st) return rc;
    sqlite3_bind_int64(st, 1, id);
    sqlite3_bind_blob(st, 2, data, (int)stored, SQLITE_STATIC);
    rc = rd_handle_run(st);
    sqlite3_clear_bindings(st);
    return rc;
}

/* Room for one row more, or false: the file's limit is too small for it. Somewhat more than needed is made, so that not every
 * transaction has to. */
static int make_room(rd_cache *c, size_t bytes, bool *fits)
{
    int64_t most = c->o.max_bytes / RD_SCHEMA_PAGE, removed = 0, used = 0;
    int64_t need = (int64_t)(bytes / RD_SCHEMA_PAGE) + 1 + ROW_PAGES;

    *fits = true;
    if (!c->o.max_bytes) return SQLITE_OK;
    int rc = used_pages(c, &used);

    if (!rc && used + need > most) rc = rd_put_evict(c, most - need - most / 32, &removed);
    if (!rc) rc = used_pages(c, &used);
    *fits = !rc && used + need <= most;
    return rc;
}

static int put_row(rd_cache *c, const rd_cache_item *item)
{
    rd_row row = row_of(item);
    bool right = false, fits;
    rd_found f;

    if (!row.kind) return SQLITE_OK; /* nothing that could be read again */
    int rc = rd_handle_find(c, &item->model, &item->key, &f);

    if (rc == SQLITE_ROW) {
        rc = SQLITE_OK;
        if (f.sound && f.row.sum == row.sum && f.row.kind == row.kind)
            rc = rd_put_check(c, &f, &item->model, &item->key, &right);
        if (rc) return rc;
        if (right) return set_used(c, &f);
        rc = rd_handle_remove(c, f.id);
    } else if (rc == SQLITE_DONE) {
        rc = SQLITE_OK;
    }
    if (!rc) rc = make_room(c, row.bytes, &fits);
    return rc || !fits ? rc : add(c, item, &row);
}

static int put_used(rd_cache *c, const rd_cache_item *item)
{
    rd_found f;
    int rc = rd_handle_find(c, &item->model, &item->key, &f);

    if (rc == SQLITE_DONE) return SQLITE_OK;
    if (rc != SQLITE_ROW) return rc;
    return f.sound ? set_used(c, &f) : rd_handle_remove(c, f.id);
}

static int put_counts(rd_cache *c, const rd_cache_counts *counts)
{
    const int64_t n[] = { counts->found, counts->loaded, counts->computed, counts->answers };
    int rc;
    sqlite3_stmt *st = rd_handle_sql(c, RD_SQL_COUNT, &rc);

    if (!st) return rc;
    for (int i = 0; i < 4; i++) sqlite3_bind_int64(st, i + 1, n[i]);
    sqlite3_bind_double(st, 5, counts->saved_ms);
    return rd_handle_run(st);
}

/* A limit that became smaller: what is free at the end of the file is given back, a piece in each transaction. */
int rd_put_shrink(rd_cache *c, int64_t most_bytes, int pages)
{
    char text[64] = "PRAGMA incremental_vacuum(";
    int64_t all = 0;
    int rc = rd_handle_number(c, RD_SQL_PAGES, &all);

    if (rc || (most_bytes && all <= most_bytes / RD_SCHEMA_PAGE)) return rc;
    sqlite3_snprintf(sizeof text, text, "PRAGMA incremental_vacuum(%d)", pages);
    return sqlite3_exec(c->db, text, NULL, NULL, NULL);
}

rd_status rd_cache_put(rd_cache *c, const rd_cache_item *items, int n,
                       const rd_cache_counts *counts, rd_error *err)
{
    rd_error own;
    rd_status s = rd_handle_begin(c, RD_WAIT_MS, err ? err : &own);

    if (s) return s;
    int rc = remove_wrong(c);

    if (!rc) rc = sweep(c);
    for (int i = 0; !rc && i < n; i++)
        rc = items[i].kind == RD_CACHE_USED ? put_used(c, &items[i]) : put_row(c, &items[i]);
    if (!rc && counts) rc = put_counts(c, counts);
    if (!rc && c->o.max_bytes) rc = rd_put_shrink(c, c->o.max_bytes, SHRINK_PAGES);
    if (!rc) return rd_handle_commit(c, err);
    s = rd_handle_fail(c, rc, "writing", err);
    rd_handle_undo(c);
    return s;
}
