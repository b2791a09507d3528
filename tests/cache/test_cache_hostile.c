/* test_cache_hostile.c - files that somebody else wrote: each is no more than a miss, or set aside and begun anew.
 *
 * Each case takes a good file of eight blocks and an answer, changes it with SQL or bytes, and says what must come of it.
 */
#include "store.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <sys/file.h>
#include <sys/stat.h>

TestSuite(cache_hostile, .timeout = 120);

enum { BYTES = 98304, ROWS = 8 };

static char *dir, path[300], bad_path[320];

static rd_cache *open_at(rd_error *err)
{
    rd_cache *c = NULL;

    cr_assert_eq(rd_cache_open(&(rd_cache_options){ .dir = dir }, &c, err), RD_OK, "%s", err->text);
    return c;
}

static rd_cache_item an_answer(void)
{
    return (rd_cache_item){ .kind = RD_CACHE_ANSWER,
                            .model = store_key("model", 1),
                            .key = store_key("answer", 1),
                            .data = "answer",
                            .bytes = 6 };
}

static void good_file(void)
{
    rd_error err = { 0 };

    dir = store_folder();
    snprintf(path, sizeof path, "%s/cache.db", dir);
    snprintf(bad_path, sizeof bad_path, "%s.bad", path);
    rd_cache *c = open_at(&err);
    rd_cache_item answer = an_answer();

    cr_assert_eq(store_put(c, 0, ROWS, BYTES, 0, &err), RD_OK, "%s", err.text);
    cr_assert_eq(rd_cache_put(c, &answer, 1, NULL, &err), RD_OK, "%s", err.text);
    rd_cache_close(c);
}

/* With an SQLite that allows everything. */
static void change(const char *sql)
{
    sqlite3 *db;
    char *text = NULL;

    cr_assert_eq(sqlite3_open(path, &db), SQLITE_OK);
    sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 0, NULL);
    sqlite3_exec(db, sql, NULL, NULL, &text);
    cr_assert_null(text, "%s: %s", sql, text);
    cr_assert_eq(sqlite3_close(db), SQLITE_OK);
}

static int rows_served(rd_cache *c)
{
    rd_error err = { 0 };
    int served = 0;

    for (int64_t n = 0; n < ROWS; n++) {
        rd_status s = store_get(c, n, BYTES, &err);

        cr_assert_neq(s, RD_INVALID, "%s", err.text);
        served += !s;
    }
    return served;
}

/* The handle can be written and read, whatever was there before. */
static void works(rd_cache *c)
{
    rd_error err = { 0 };

    cr_assert_eq(store_put(c, 50, 52, BYTES, 0, &err), RD_OK, "%s", err.text);
    cr_assert_eq(store_get(c, 51, BYTES, &err), RD_OK, "%s", err.text);
}

/* What must come of it: set aside at the next opening; or so many of the eight blocks served. */
enum { ASIDE = -1 };

static void expect(const char *sql, int outcome)
{
    rd_error err = { 0 };

    good_file();
    change(sql);
    rd_cache *c = open_at(&err);

    if (outcome == ASIDE) {
        cr_assert_eq(access(bad_path, F_OK), 0, "%s: not set aside", sql);
        cr_assert(strstr(err.text, "not ours") || strstr(err.text, "damaged"), "%s: %s", sql,
                  err.text);
        cr_assert_eq(rows_served(c), 0);
    } else {
        cr_assert_neq(access(bad_path, F_OK), 0, "%s: set aside: %s", sql, err.text);
        int served = rows_served(c);

        cr_assert_eq(served, outcome, "%s: %d served", sql, served);
    }
    works(c);
    rd_cache_close(c);
    store_remove(dir);
}

#define HOSTILE(name, outcome, sql) \
    Test(cache_hostile, name)       \
    {                               \
        expect(sql, outcome);       \
    }

/* ---- other schemas ---- */

HOSTILE(a_trigger, ASIDE, "CREATE TRIGGER t AFTER UPDATE ON row BEGIN DELETE FROM payload; END")
HOSTILE(a_view_more, ASIDE, "CREATE VIEW v AS SELECT * FROM row")
HOSTILE(a_view_for_a_table, ASIDE,
        "ALTER TABLE payload RENAME TO p; CREATE VIEW payload AS SELECT * FROM p")
HOSTILE(
    a_view_that_never_ends, ASIDE,
    "DROP TABLE answer; CREATE VIEW answer AS WITH RECURSIVE r(id) AS (SELECT 1 UNION ALL SELECT"
    " id + 1 FROM r) SELECT id, zeroblob(9) AS data FROM r")
HOSTILE(a_table_more, ASIDE, "CREATE TABLE other (x)")
HOSTILE(a_table_less, ASIDE, "DROP TABLE counts")
HOSTILE(an_index_more, ASIDE, "CREATE INDEX i ON row (used)")
HOSTILE(an_index_on_an_expression, ASIDE, "CREATE INDEX i ON row (abs(used))")
HOSTILE(no_index, ASIDE, "DROP INDEX row_by_key")
HOSTILE(an_index_that_is_not_unique, ASIDE,
        "DROP INDEX row_by_key; CREATE INDEX row_by_key ON row (model, key)")
HOSTILE(a_column_more, ASIDE, "ALTER TABLE row ADD COLUMN x INTEGER")
HOSTILE(a_generated_column, ASIDE, "ALTER TABLE row ADD COLUMN x INTEGER AS (used * 2)")
HOSTILE(a_default_with_a_function, ASIDE,
        "DROP TABLE answer; CREATE TABLE answer (id INTEGER PRIMARY KEY, data BLOB NOT NULL DEFAULT"
        " (randomblob(1000000)))")
HOSTILE(a_check, ASIDE,
        "DROP TABLE answer; CREATE TABLE answer (id INTEGER PRIMARY KEY, data BLOB NOT NULL CHECK"
        " (length(data) < 9)) STRICT")
HOSTILE(a_virtual_table, ASIDE, "CREATE VIRTUAL TABLE v USING fts5(x)")
HOSTILE(statistics_of_the_planner, ASIDE, "ANALYZE")
HOSTILE(another_application, ASIDE, "PRAGMA application_id=1")
HOSTILE(version_zero, ASIDE, "PRAGMA user_version=0")
HOSTILE(a_negative_version, ASIDE, "PRAGMA user_version=-1")
HOSTILE(
    a_text_that_differs_by_a_space, ASIDE,
    "PRAGMA writable_schema=ON; UPDATE sqlite_schema SET sql=replace(sql, ' STRICT', '  STRICT')"
    " WHERE name='answer'")
HOSTILE(
    a_schema_that_is_no_sql, ASIDE,
    "PRAGMA writable_schema=ON; UPDATE sqlite_schema SET sql='CREATE nonsense' WHERE name='row'")
HOSTILE(two_tables_in_one_page, ASIDE,
        "PRAGMA writable_schema=ON; UPDATE sqlite_schema SET rootpage=(SELECT rootpage FROM"
        " sqlite_schema WHERE name='payload') WHERE name='answer'")
HOSTILE(a_root_that_is_not_there, ASIDE,
        "PRAGMA writable_schema=ON; UPDATE sqlite_schema SET rootpage=99999 WHERE name='row'")

/* ---- other rows ---- */

HOSTILE(payloads_exchanged, 6,
        "UPDATE payload SET id=100 WHERE id=1; UPDATE payload SET id=1 WHERE id=2;"
        "UPDATE payload SET id=2 WHERE id=100")
HOSTILE(a_payload_of_another, 7,
        "UPDATE payload SET data=(SELECT data FROM payload WHERE id=2) WHERE id=1")
HOSTILE(payloads_gone, 0, "DELETE FROM payload")
HOSTILE(a_payload_too_short, 7, "UPDATE payload SET data=substr(data, 1, 98303) WHERE id=3")
HOSTILE(a_payload_too_long, 7, "UPDATE payload SET data=CAST(data || x'00' AS BLOB) WHERE id=3")
HOSTILE(a_payload_of_no_bytes, 7, "UPDATE payload SET data=x'' WHERE id=3")
HOSTILE(a_payload_of_60_megabytes, 7, "UPDATE payload SET data=zeroblob(60000000) WHERE id=3")
HOSTILE(a_payload_beyond_all_limits, 7, "UPDATE payload SET data=zeroblob(200000000) WHERE id=3")
HOSTILE(a_bit_of_a_payload, 7,
        "UPDATE payload SET data=CAST(substr(data, 1, 70000) || x'55' || substr(data, 70002) AS "
        "BLOB) WHERE id=3")
HOSTILE(a_head_of_another, 7,
        "UPDATE row SET head=(SELECT r.head FROM row r WHERE r.id=3-row.id) WHERE id IN (1, 2)")
HOSTILE(a_head_of_no_bytes, 7, "UPDATE row SET head=x'' WHERE id=1")
HOSTILE(a_head_cut_off, 7, "UPDATE row SET head=substr(head, 1, 151) WHERE id=1")
HOSTILE(a_head_of_a_megabyte, 7, "UPDATE row SET head=zeroblob(1000000) WHERE id=1")
HOSTILE(a_head_beyond_all_limits, 7, "UPDATE row SET head=zeroblob(100000000) WHERE id=1")
HOSTILE(a_kind_of_nobody, 7, "UPDATE row SET kind=9 WHERE id=1")
HOSTILE(a_block_that_calls_itself_an_answer, 7, "UPDATE row SET kind=2 WHERE id=1")
HOSTILE(bytes_that_are_not_the_heads, 7, "UPDATE row SET bytes=bytes+1 WHERE id=1")
HOSTILE(a_source_of_another, 7, "UPDATE row SET source=zeroblob(16) WHERE id=1")
HOSTILE(a_source_too_short, 7, "UPDATE row SET source=x'00' WHERE id=1")
HOSTILE(keys_of_no_bytes, 7, "UPDATE row SET key=x'' WHERE id=1")
HOSTILE(ids_at_the_ends, 6,
        "UPDATE row SET id=9223372036854775807 WHERE id=1; UPDATE row SET id=-9223372036854775808 "
        "WHERE id=2")
HOSTILE(uses_in_the_far_future, 8, "UPDATE row SET used=9223372036854775807")
HOSTILE(uses_before_all_time, 8, "UPDATE row SET used=-9223372036854775808")
HOSTILE(sums_that_overflow, 6, "UPDATE row SET bytes=9223372036854775807 WHERE id<3")
HOSTILE(counts_of_nothing, 8, "DELETE FROM counts")
HOSTILE(counts_that_overflow, 8, "UPDATE counts SET found=9223372036854775807")

/* ---- an answer ---- */

static void expect_no_answer(const char *sql)
{
    rd_cache_item answer = an_answer();
    rd_error err = { 0 };
    rd_buf out = { 0 };

    good_file();
    change(sql);
    rd_cache *c = open_at(&err);

    cr_assert_eq(rd_cache_answer(c, &answer.model, &answer.key, &out, &err), RD_NOT_FOUND);
    cr_assert_eq(out.len, 0);
    cr_assert_eq(rd_cache_put(c, &answer, 1, NULL, &err), RD_OK, "%s", err.text);
    cr_assert_eq(rd_cache_answer(c, &answer.model, &answer.key, &out, &err), RD_OK, "%s", err.text);
    cr_assert_str_eq(out.data, "answer");
    rd_buf_clear(&out);
    rd_cache_close(c);
    store_remove(dir);
}

Test(cache_hostile, an_answer_of_other_bytes)
{
    expect_no_answer("UPDATE answer SET data=x'414243444546'");
}

Test(cache_hostile, an_answer_too_long)
{
    expect_no_answer("UPDATE answer SET data=zeroblob(50000000)");
}

Test(cache_hostile, an_answer_beyond_all_limits)
{
    expect_no_answer("UPDATE answer SET data=zeroblob(500000000)");
}

Test(cache_hostile, an_answer_without_its_bytes)
{
    expect_no_answer("DELETE FROM answer");
}

/* ---- what is wrong goes, and the block can be stored again ---- */

Test(cache_hostile, a_wrong_row_is_replaced_by_the_next_put)
{
    rd_error err = { 0 };
    int64_t rows, bad;

    good_file();
    change(
        "UPDATE payload SET data=zeroblob(98304) WHERE id<4; UPDATE row SET head=x'00' WHERE id=5");
    rd_cache *r = open_at(&err), *w = open_at(&err);

    cr_assert_eq(rows_served(r), 4);
    cr_assert_eq(store_put(w, 0, ROWS, BYTES, 0, &err), RD_OK, "%s", err.text);
    cr_assert_eq(rows_served(r), ROWS);
    cr_assert_eq(rd_cache_verify(w, &rows, &bad, &err), RD_OK, "%s", err.text);
    cr_assert_eq(rows, ROWS + 1);
    cr_assert_eq(bad, 0);
    rd_cache_close(r);
    rd_cache_close(w);
    store_remove(dir);
}

Test(cache_hostile, wrong_rows_are_found_and_removed)
{
    rd_cache_stats stats;
    rd_error err = { 0 };
    int64_t rows, bad;

    good_file();
    change(
        "UPDATE payload SET data=zeroblob(98304) WHERE id<4; UPDATE row SET head=x'00' WHERE id=5;"
        "UPDATE row SET key=x'00' WHERE id=6; UPDATE row SET id=-9223372036854775808 WHERE id=7");
    rd_cache *c = open_at(&err);

    cr_assert_eq(rd_cache_verify(c, &rows, &bad, &err), RD_OK, "%s", err.text);
    cr_assert_eq(rows, ROWS + 1);
    cr_assert_eq(bad, 6);
    cr_assert_eq(rd_cache_stat(c, &stats, &err), RD_OK, "%s", err.text);
    cr_assert_eq(stats.blocks, 2);
    cr_assert_eq(rows_served(c), 2);
    rd_cache_close(c);
    store_remove(dir);
}

Test(cache_hostile, payloads_without_a_row_are_removed)
{
    rd_error err = { 0 };
    int64_t rows, bad;
    sqlite3 *db;
    sqlite3_stmt *st;

    good_file();
    change("INSERT INTO payload VALUES (70, zeroblob(9000000)); INSERT INTO answer VALUES (71, "
           "x'41')");
    rd_cache *c = open_at(&err);

    cr_assert_eq(rd_cache_verify(c, &rows, &bad, &err), RD_OK, "%s", err.text);
    cr_assert_eq(rows_served(c), ROWS);
    rd_cache_close(c);
    cr_assert_eq(sqlite3_open(path, &db), SQLITE_OK);
    cr_assert_eq(
        sqlite3_prepare_v2(db, "SELECT count(*) FROM payload WHERE id > 60", -1, &st, NULL), 0);
    cr_assert_eq(sqlite3_step(st), SQLITE_ROW);
    cr_assert_eq(sqlite3_column_int(st, 0), 0);
    sqlite3_finalize(st);
    sqlite3_close(db);
    store_remove(dir);
}

/* ---- bytes ---- */

/* The file is opened by a handle before and by one after. */
static void spoil(off_t at, const void *bytes, size_t n, off_t length)
{
    int fd = open(path, O_RDWR);

    cr_assert_geq(fd, 0);
    if (n) cr_assert_eq(pwrite(fd, bytes, n, at), (ssize_t)n);
    if (length >= 0) cr_assert_eq(ftruncate(fd, length), 0);
    close(fd);
}

static void still_works(const char *what)
{
    rd_error err = { 0 };
    rd_cache *c = open_at(&err);
    int64_t rows, bad;

    rows_served(c);
    rd_cache_verify(c, &rows, &bad, &err); /* may set it aside; the next call has a new one */
    rd_cache_close(c);
    c = open_at(&err);
    rows_served(c);
    works(c);
    cr_assert_eq(rd_cache_verify(c, &rows, &bad, &err), RD_OK, "%s: %s", what, err.text);
    rd_cache_close(c);
    store_remove(dir);
}

Test(cache_hostile, a_file_of_any_length)
{
    static const off_t lengths[] = { 0,     1,     99,     100,    512,    4096,  65535,
                                     65536, 65537, 131072, 400000, 655360, 700001 };

    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        good_file();
        spoil(0, NULL, 0, lengths[i]);
        still_works("cut");
    }
}

Test(cache_hostile, bytes_that_flip)
{
    rd_random r = rd_random_seed(11);

    for (int i = 0; i < 40; i++) {
        good_file();
        for (int k = 0; k < 20; k++) {
            /* the heads of the pages are worth more */
            off_t page = (off_t)rd_random_below(&r, 24),
                  at = rd_random_below(&r, k & 1 ? 65536 : 120);
            uint8_t byte = (uint8_t)rd_random_u64(&r);

            spoil(page * 65536 + at, &byte, 1, -1);
        }
        still_works("flipped");
    }
}

Test(cache_hostile, bytes_of_something_else)
{
    char noise[5000];
    rd_random r = rd_random_seed(3);

    for (size_t i = 0; i < sizeof noise; i++) noise[i] = (char)rd_random_u64(&r);
    good_file();
    spoil(0, noise, sizeof noise, sizeof noise);
    still_works("noise");
    good_file();
    change("PRAGMA journal_mode=DELETE; PRAGMA page_size=512; VACUUM");
    still_works("small pages");
    good_file();
    change("PRAGMA journal_mode=DELETE");
    still_works("no log");
}

Test(cache_hostile, a_log_of_something_else)
{
    char log[320], noise[70000];

    memset(noise, 0x37, sizeof noise);
    good_file();
    snprintf(log, sizeof log, "%s-wal", path);
    FILE *f = fopen(log, "wb");

    fwrite(noise, 1, sizeof noise, f);
    fclose(f);
    chmod(log, 0600);
    rd_error err = { 0 };
    rd_cache *c = open_at(&err);

    cr_assert_eq(rows_served(c), ROWS);
    works(c);
    rd_cache_close(c);
    store_remove(dir);
}

Test(cache_hostile, a_journal_that_points_elsewhere_is_removed)
{
    char journal[320];

    good_file();
    snprintf(journal, sizeof journal, "%s-journal", path);
    FILE *f = fopen(journal, "wb");

    fputs("\xd9\xd5\x05\xf9\x20\xa1\x63\xd7/etc/passwd", f);
    fclose(f);
    rd_error err = { 0 };
    rd_cache *c = open_at(&err);

    cr_assert_eq(rows_served(c), ROWS);
    cr_assert_neq(access(journal, F_OK), 0);
    rd_cache_close(c);
    store_remove(dir);
}

Test(cache_hostile, a_file_that_is_cut_while_it_is_open)
{
    rd_error err = { 0 };

    good_file();
    rd_cache *c = open_at(&err);

    cr_assert_eq(store_get(c, 0, BYTES, &err), RD_OK, "%s", err.text);
    cr_assert_eq(truncate(path, 70000), 0);
    cr_assert_lt(rows_served(c), ROWS);
    usleep(1100000); /* a handle that failed tries again after a second */
    works(c);
    rd_cache_close(c);
    store_remove(dir);
}

/* ---- places ---- */

static rd_status opens(const rd_cache_options *o, const char *wanted)
{
    rd_cache *c = NULL;
    rd_error err = { 0 };
    rd_status s = rd_cache_open(o, &c, &err);

    if (s) cr_assert(strstr(err.text, wanted), "%s", err.text);
    rd_cache_close(c);
    return s;
}

Test(cache_hostile, places_that_are_refused)
{
    char link[320], other[320], sub[340];
    rd_cache_options o = { .dir = link };

    cr_assert_eq(opens(&(rd_cache_options){ .dir = "relative" }, "absolute"), RD_INVALID);
    cr_assert_eq(opens(&(rd_cache_options){ .dir = NULL }, "absolute"), RD_INVALID);
    cr_assert_eq(
        opens(&(rd_cache_options){ .dir = "/nowhere/at/all", .existing = true }, "no such"),
        RD_NOT_FOUND);
    good_file();
    snprintf(link, sizeof link, "%s-link", dir);
    cr_assert_eq(symlink(dir, link), 0);
    cr_assert_eq(opens(&o, "not a folder of our own"), RD_INVALID);
    unlink(link);
    cr_assert_eq(chmod(dir, 0755), 0);
    cr_assert_eq(opens(&(rd_cache_options){ .dir = dir }, "0700"), RD_INVALID);
    chmod(dir, 0700);
    cr_assert_eq(chmod(path, 0644), 0);
    cr_assert_eq(opens(&(rd_cache_options){ .dir = dir }, "0600"), RD_INVALID);
    chmod(path, 0600);
    snprintf(other, sizeof other, "%s/second", dir);
    cr_assert_eq(linkat(AT_FDCWD, path, AT_FDCWD, other, 0), 0);
    cr_assert_eq(opens(&(rd_cache_options){ .dir = dir }, "second name"), RD_INVALID);
    unlink(path);
    cr_assert_eq(symlink(other, path), 0);
    cr_assert_eq(opens(&(rd_cache_options){ .dir = dir }, "not a regular file"), RD_INVALID);
    unlink(path);
    cr_assert_eq(opens(&(rd_cache_options){ .dir = dir, .existing = true }, "no such"),
                 RD_NOT_FOUND);
    snprintf(sub, sizeof sub, "%s/deep/er", other);
    o.dir = sub;
    cr_assert_eq(opens(&o, "Not a directory"), RD_IO);
    snprintf(sub, sizeof sub, "%s/made/by us", dir);
    cr_assert_eq(opens(&o, ""), RD_OK);
    store_remove(dir);
}

Test(cache_hostile, a_newer_version_is_left_alone)
{
    rd_error err = { 0 };
    rd_cache *c = NULL;

    good_file();
    change("PRAGMA user_version=3; CREATE TABLE later (x)");
    cr_assert_eq(rd_cache_open(&(rd_cache_options){ .dir = dir }, &c, &err), RD_STALE);
    cr_assert(strstr(err.text, "newer"), "%s", err.text);
    cr_assert_neq(access(bad_path, F_OK), 0);
    change("PRAGMA user_version=2; DROP TABLE later");
    c = open_at(&err);
    cr_assert_eq(rows_served(c), ROWS);
    rd_cache_close(c);
    store_remove(dir);
}

Test(cache_hostile, an_older_version_is_brought_up)
{
    rd_error err = { 0 };
    rd_cache_stats stats;

    good_file();
    change("PRAGMA user_version=1; DROP TABLE counts");
    rd_cache *c = open_at(&err);

    cr_assert_eq(rows_served(c), ROWS);
    cr_assert_eq(rd_cache_put(c, NULL, 0, &(rd_cache_counts){ .found = 3 }, &err), RD_OK);
    cr_assert_eq(rd_cache_stat(c, &stats, &err), RD_OK);
    cr_assert_eq(stats.counts.found, 3);
    rd_cache_close(c);
    store_remove(dir);
}

Test(cache_hostile, who_does_not_get_the_lock_goes_without)
{
    char lock[320];
    rd_error err = { 0 };

    good_file();
    rd_cache *c = open_at(&err);

    snprintf(lock, sizeof lock, "%s.lock", path);
    int fd = open(lock, O_RDWR);

    cr_assert_eq(flock(fd, LOCK_EX), 0);
    cr_assert_eq(store_put(c, 60, 61, BYTES, 0, &err), RD_STALE);
    cr_assert(strstr(err.text, "held"), "%s", err.text);
    cr_assert_eq(rows_served(c), ROWS); /* reading goes on */
    close(fd);
    cr_assert_eq(store_get(c, 60, BYTES, &err), RD_NOT_FOUND);
    works(c);
    rd_cache_close(c);
    store_remove(dir);
}
