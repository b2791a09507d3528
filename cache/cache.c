/* cache.c - the face of the cache: opening and reading.
 *
 * The rows that one count has promised share a read transaction: it begins with the first of them and ends with the last,
 * with a miss, with any other call, and with rd_cache_rest. Without a count each row has its own. A transaction that stays
 * open would keep the log from being emptied.
 */
#include "cache/handle.h"

#include "core/base/memory.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 256 << 10 }; /* read and summed while it is near the core */

bool rd_cache_usual_dir(char *out, size_t n)
{
    const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int len;

    if (base && base[0] == '/')
        len = snprintf(out, n, "%s/redraft", base);
    else if (home && home[0] == '/')
        len = snprintf(out, n, "%s/.cache/redraft", home);
    else
        return false;
    return len > 0 && (size_t)len < n;
}

static char *own_copy(const char *text)
{
    return text ? rd_copy_text(text, strlen(text)) : NULL;
}

rd_status rd_cache_open(const rd_cache_options *o, rd_cache **out, rd_error *err)
{
    rd_cache *c = rd_alloc0(sizeof *c);
    rd_error own;

    if (!err) err = &own;
    *err = (rd_error){ 0 };
    c->o = *o;
    c->o.dir = own_copy(o->dir);
    c->o.vfs = own_copy(o->vfs);
    c->file = (rd_file){ .dir = -1, .lock = -1 };
    rd_status s = rd_handle_attend(c, RD_WAIT_OPEN_MS, err);

    if (s)
        rd_cache_close(c);
    else
        *out = c;
    err->status = s;
    return s;
}

/* What stands in the log is moved into the file, where that needs no waiting; else the next one does it. */
void rd_cache_close(rd_cache *c)
{
    if (!c) return;
    rd_handle_end_read(c);
    if (c->db && !rd_file_lock(&c->file, RD_WAIT_MS, NULL) && c->wrote && rd_file_is_same(&c->file))
        rd_handle_checkpoint(c, true, 0);
    rd_handle_drop(c);
    rd_file_close(&c->file);
    free(c->scratch);
    free((char *)c->o.dir);
    free((char *)c->o.vfs);
    free(c);
}

/* ---- counting ---- */

static int has(rd_cache *c, const rd_key *model, const rd_key *key, bool *there)
{
    int rc;
    sqlite3_stmt *st = rd_handle_sql(c, RD_SQL_HAS, &rc);

    if (!st) return rc;
    sqlite3_bind_blob(st, 1, model->byte, sizeof model->byte, SQLITE_STATIC);
    sqlite3_bind_blob(st, 2, key->byte, sizeof key->byte, SQLITE_STATIC);
    *there = sqlite3_step(st) == SQLITE_ROW;
    return sqlite3_reset(st);
}

int rd_cache_count(rd_cache *c, const rd_key *model, const rd_key *keys, int n)
{
    bool there = true;
    int at = 0;

    rd_handle_end_read(c);
    if (rd_handle_attend(c, RD_WAIT_MS, NULL)) return 0;
    int rc = rd_handle_begin_read(c);

    while (!rc && at < n) {
        rc = has(c, model, &keys[at], &there);
        if (rc || !there) break;
        at++;
    }
    rd_handle_end_read(c);
    if (rc) rd_handle_fail(c, rc, "counting", NULL);
    c->expected = rc ? 0 : at;
    return c->expected;
}

/* ---- a row ---- */

static rd_status miss(rd_cache *c, rd_error *err)
{
    rd_handle_end_read(c);
    return rd_fail(err, RD_NOT_FOUND, "not in the cache");
}

static rd_status wrong(rd_cache *c, const char *what, rd_error *err)
{
    rd_handle_mark_wrong(c, c->found.id);
    rd_handle_end_read(c);
    return rd_fail(err, RD_NOT_FOUND, "%s: a row is wrong: %s", c->file.path, what);
}

static rd_status broken(rd_cache *c, int rc, rd_error *err)
{
    rd_status s = rd_handle_fail(c, rc, "reading", err);

    rd_handle_end_read(c);
    return s;
}

static int open_payload(rd_cache *c)
{
    if (c->blob) return sqlite3_blob_reopen(c->blob, c->found.id);
    return sqlite3_blob_open(c->db, "main", "payload", "data", c->found.id, 0, &c->blob);
}

rd_status rd_cache_row_open(rd_cache *c, const rd_key *model, const rd_key *key,
                            const int32_t *tokens, int n_tokens, rd_cache_row *out, rd_error *err)
{
    rd_found *f = &c->found;
    int rc = SQLITE_OK;

    if (c->open) rd_handle_end_read(c);
    if (!c->reading && rd_handle_attend(c, RD_WAIT_MS, err)) return err ? err->status : RD_IO;
    if (!c->reading && c->expected > 0) rc = rd_handle_begin_read(c);
    if (!rc) rc = rd_handle_find(c, model, key, f);
    if (rc == SQLITE_DONE) return miss(c, err);
    if (rc != SQLITE_ROW) return broken(c, rc, err);
    if (!f->sound || f->row.kind != RD_ROW_BLOCK) return wrong(c, "its head", err);
    if (!rd_row_of_tokens(f->head, &f->row, tokens, n_tokens)) return wrong(c, "its tokens", err);
    rc = open_payload(c);
    if ((rc & 0xff) == SQLITE_ERROR) return wrong(c, "it has no payload", err);
    if (rc) return broken(c, rc, err);
    if ((size_t)sqlite3_blob_bytes(c->blob) != rd_row_stored_bytes(f->row.bytes))
        return wrong(c, "its length", err);
    c->at = 0;
    c->open = true;
    c->failed = false;
    rd_row_sum_begin(&c->sum, &f->row, tokens, model, key, &f->source);
    *out = (rd_cache_row){ .format = f->row.format, .bytes = f->row.bytes };
    return RD_OK;
}

rd_status rd_cache_row_read(rd_cache *c, void *to, size_t n, rd_error *err)
{
    uint8_t *at = to;

    if (!c->open || c->failed || n > c->found.row.bytes - c->at) {
        c->failed = true;
        return rd_fail(err, RD_NOT_FOUND, "%s: a row has ended", c->file.path);
    }
    for (size_t take; n; n -= take, at += take) {
        take = n < PIECE ? n : PIECE;
        int rc = sqlite3_blob_read(c->blob, at, (int)take, (int)c->at);

        if (rc) {
            c->failed = true;
            return rd_handle_fail(c, rc, "reading", err);
        }
        rd_sum_add(&c->sum, at, take);
        c->at += take;
    }
    return RD_OK;
}

rd_status rd_cache_row_close(rd_cache *c, rd_error *err)
{
    bool whole = c->open && !c->failed && c->at == c->found.row.bytes;

    if (!whole) {
        rd_handle_end_read(c);
        return rd_fail(err, RD_NOT_FOUND, "%s: a row was not read to its end", c->o.dir);
    }
    if (rd_sum_end(&c->sum) != c->found.row.sum) return wrong(c, "its sum", err);
    c->open = false;
    if (c->expected > 0) c->expected--;
    if (c->expected <= 0) rd_handle_end_read(c);
    return RD_OK;
}

void rd_cache_rest(rd_cache *c)
{
    rd_handle_end_read(c);
}

/* ---- an answer ---- */

/* The payload of c->found as one piece, checked. */
static rd_status give_answer(rd_cache *c, const rd_key *model, const rd_key *key, rd_buf *out,
                             rd_error *err)
{
    int rc;
    sqlite3_stmt *st = rd_handle_sql(c, RD_SQL_ANSWER, &rc);
    rd_sum sum;

    if (!st) return broken(c, rc, err);
    sqlite3_bind_int64(st, 1, c->found.id);
    rc = sqlite3_step(st);
    if (rc != SQLITE_ROW && rc != SQLITE_DONE && rc != SQLITE_TOOBIG)
        return broken(c, sqlite3_reset(st), err);
    bool right = rc == SQLITE_ROW && sqlite3_column_type(st, 0) == SQLITE_BLOB &&
                 (size_t)sqlite3_column_bytes(st, 0) == c->found.row.bytes;

    if (right) {
        rd_row_sum_begin(&sum, &c->found.row, NULL, model, key, &c->found.source);
        rd_sum_add(&sum, sqlite3_column_blob(st, 0), c->found.row.bytes);
        right = rd_sum_end(&sum) == c->found.row.sum;
    }
    if (right && c->found.row.bytes)
        rd_buf_append(out, sqlite3_column_blob(st, 0), c->found.row.bytes);
    sqlite3_reset(st);
    return right ? RD_OK : wrong(c, "an answer", err);
}

rd_status rd_cache_answer(rd_cache *c, const rd_key *model, const rd_key *key, rd_buf *out,
                          rd_error *err)
{
    rd_handle_end_read(c);
    if (rd_handle_attend(c, RD_WAIT_MS, err)) return err ? err->status : RD_IO;
    int rc = rd_handle_find(c, model, key, &c->found);

    if (rc == SQLITE_DONE) return miss(c, err);
    if (rc != SQLITE_ROW) return broken(c, rc, err);
    if (!c->found.sound || c->found.row.kind != RD_ROW_ANSWER)
        return wrong(c, "not an answer", err);
    return give_answer(c, model, key, out, err);
}
