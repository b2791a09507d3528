/* test_store.c - an engine with a store behind its pool: what is computed, what is found again, and for whom.
 *
 * Everything is counted in blocks computed, never in time: the built-in model, and a store that lives in memory.
 */
#include "core/base/memory.h"
#include "core/decode/prompt.h"
#include "core/format/file.h"
#include "core/tools/run.h"
#include "tests/core/shelf.h"
#include "tests/core/typing.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static rd_engine *open_at(const char *dir, const rd_kv_store *store, size_t pool_bytes)
{
    rd_engine_options o = { .model = dir, .threads = 1, .store = store, .pool_bytes = pool_bytes };
    rd_engine *e = NULL;
    rd_error err;

    cr_assert(!rd_engine_open(&o, &e, &err), "%s", err.text);
    return e;
}

static rd_request request_at(const place *p)
{
    return (rd_request){ .task = RD_INFILL,
                         .language = "python",
                         .prefix = p->text.data,
                         .prefix_bytes = p->cursor,
                         .suffix = p->text.data + p->cursor,
                         .suffix_bytes = p->text.len - p->cursor,
                         .quality = 0.5f };
}

static rd_result answer(rd_engine *e, rd_request rq)
{
    rd_run_options o = { .quality = 0.5f };
    rd_result r;
    rd_error err;

    cr_assert(!rd_run_to_end(e, &rq, &o, &r, &err), "%s", err.text);
    return r;
}

/* Blocks computed for it. */
static int cost(rd_engine *e, rd_request rq)
{
    rd_engine_stats before, after;

    rd_engine_stat(e, &before);
    rd_result r = answer(e, rq);

    rd_result_clear(&r);
    rd_engine_stat(e, &after);
    return (int)(after.computed - before.computed);
}

static int64_t loaded(const rd_engine *e)
{
    rd_engine_stats s;

    rd_engine_stat(e, &s);
    return s.loaded;
}

/* ---- a restart ---- */

Test(store, the_next_engine_finds_the_blocks_of_the_one_before)
{
    shelf s = { 0 };
    rd_kv_store store = shelf_store(&s);
    rd_engine *e = open_at(NULL, &store, 0);
    place p = place_in_line(120, 90);
    int first = cost(e, request_at(&p));
    rd_result alone = answer(e, request_at(&p));

    cr_assert_gt(first, 10);
    cr_assert_eq(s.n, s.told_computed, "every block was stored once");
    rd_engine_close(e);
    cr_assert(s.ended);
    e = open_at(NULL, &store, 0);
    rd_result again = answer(e, request_at(&p));
    rd_engine_stats stats;

    rd_engine_stat(e, &stats);
    cr_assert_eq(stats.computed, first - stats.loaded, "what was not loaded is the answer's");
    cr_assert_gt(stats.loaded, 10);
    cr_assert_eq(s.told_loaded, stats.loaded);
    cr_assert_eq(again.prefill_tokens, 0);
    cr_assert_str_eq(again.text.data, alone.text.data);
    cr_assert_eq(again.confidence, alone.confidence, "the same to the bit");
    rd_result_clear(&alone);
    rd_result_clear(&again);
    rd_engine_close(e);
    rd_buf_clear(&p.text);
    shelf_clear(&s);
}

Test(store, a_row_that_is_no_good_is_a_miss)
{
    shelf s = { 0 };
    rd_kv_store store = shelf_store(&s);
    rd_engine *e = open_at(NULL, &store, 0);
    place p = place_in_line(120, 90);
    rd_result alone = answer(e, request_at(&p));

    rd_engine_close(e);
    s.loses = true;
    e = open_at(NULL, &store, 0);
    rd_result again = answer(e, request_at(&p));

    cr_assert_eq(loaded(e), 0);
    cr_assert_eq(s.loads, 1, "the first miss ends it");
    cr_assert_str_eq(again.text.data, alone.text.data);
    rd_result_clear(&alone);
    rd_result_clear(&again);
    rd_engine_close(e);
    rd_buf_clear(&p.text);
    shelf_clear(&s);
}

Test(store, one_that_never_lets_go_stops_nothing)
{
    shelf s = { .keeps_hold = true };
    rd_kv_store store = shelf_store(&s);
    rd_engine *e = open_at(NULL, &store, 1);
    place p = place_in_line(120, 90);
    rd_engine_stats stats;

    for (int i = 0; i < 12; i++) {
        p.cursor = next_line(&p, p.cursor);
        cost(e, request_at(&p));
    }
    rd_engine_stat(e, &stats);
    cr_assert_leq(s.n_held * 4, (int)(stats.pool_bytes / shelf_bytes(&s)), "a quarter is pinned");
    cr_assert_gt(s.n_held, 10);
    cr_assert_gt(stats.computed, s.n_held);
    rd_engine_close(e);
    cr_assert_eq(s.n_held, 0);
    rd_buf_clear(&p.text);
    shelf_clear(&s);
}

Test(store, what_was_refused_is_offered_again_when_it_is_met_again)
{
    shelf s = { .refuses = true };
    rd_kv_store store = shelf_store(&s);
    rd_engine *e = open_at(NULL, &store, 0);
    place p = place_in_line(120, 90);

    cost(e, request_at(&p));
    cr_assert_eq(s.n, 0);
    s.refuses = false;
    cr_assert_eq(cost(e, request_at(&p)), 0);
    cr_assert_gt(s.n, 10);
    rd_engine_close(e);
    rd_buf_clear(&p.text);
    shelf_clear(&s);
}

/* ---- who may find what ---- */

Test(store, realms_share_nothing)
{
    shelf s = { 0 };
    rd_kv_store store = shelf_store(&s);
    rd_engine *e = open_at(NULL, &store, 0);
    place p = place_in_line(120, 90);
    rd_request editor = request_at(&p), agent = request_at(&p);

    agent.realm = 77;
    int first = cost(e, editor);

    cr_assert_gt(first, 10);
    cr_assert_eq(cost(e, agent), first, "as if nobody had asked before");
    cr_assert_eq(cost(e, editor), 0);
    rd_engine_close(e);
    e = open_at(NULL, &store, 0);
    agent.realm = 78;
    cr_assert_eq(cost(e, agent), first, "not from the store either");
    cr_assert_eq(loaded(e), 0);
    rd_engine_close(e);
    rd_buf_clear(&p.text);
    shelf_clear(&s);
}

Test(store, an_unstored_request_neither_reads_nor_writes_it)
{
    shelf s = { 0 };
    rd_kv_store store = shelf_store(&s);
    rd_engine *e = open_at(NULL, &store, 0);
    place p = place_in_line(120, 90);
    rd_request secret = request_at(&p);

    secret.unstored = true;
    cr_assert_gt(cost(e, secret), 10);
    cr_assert_eq(s.n, 0);
    cr_assert_eq(s.counts, 0);
    cr_assert_eq(cost(e, request_at(&p)), 0, "in memory");
    cr_assert_eq(s.n, 0, "whoever meets them later does not store them");
    rd_engine_close(e);
    rd_buf_clear(&p.text);
    shelf_clear(&s);
}

Test(store, a_forgotten_file_is_computed_anew)
{
    shelf s = { 0 };
    rd_kv_store store = shelf_store(&s);
    rd_engine *e = open_at(NULL, &store, 0);
    place p = place_in_line(120, 90), q = place_in_line(60, 40);
    rd_request one = request_at(&p), other = request_at(&q);
    rd_key source = rd_kv_source("/one.py");

    q.text.data[0] = 'x'; /* no block in common */
    one.source = "/one.py";
    other.source = "/other.py";
    int first = cost(e, one);

    for (int i = 0; i < s.n; i++) cr_assert(rd_key_equal(&s.row[i].source, &source));
    cost(e, other);
    shelf_clear(&s);
    s.loses = true;
    rd_engine_forget(e, "/one.py");
    cr_assert_eq(cost(e, other), 0);
    cr_assert_eq(cost(e, one), first);
    rd_engine_forget(e, NULL);
    cr_assert_gt(cost(e, other), 10);
    rd_engine_close(e);
    rd_buf_clear(&p.text);
    rd_buf_clear(&q.text);
    shelf_clear(&s);
}

/* ---- which model ---- */

static const char *const files[] = { "config.json", "tokenizer.json", "tokenizer_config.json",
                                     "model.safetensors" };
enum { CONFIG, TOKENIZER, WEIGHTS = 3 };

static void copy_file(const char *from_dir, const char *to_dir, const char *name)
{
    char *from = rd_path_join(from_dir, name), *to = rd_path_join(to_dir, name);
    rd_buf text = { 0 };
    rd_error err;

    cr_assert(!rd_file_read(from, 64 << 20, &text, &err), "%s", err.text);
    cr_assert(!rd_file_write(to, text.data, text.len, &err), "%s", err.text);
    rd_buf_clear(&text);
    free(from);
    free(to);
}

static void copy_builtin(char *dir)
{
    char from[4096];
    rd_error err;

    cr_assert(mkdtemp(dir));
    cr_assert(!rd_engine_builtin(from, sizeof from, &err), "%s", err.text);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) copy_file(from, dir, files[i]);
}

static void remove_copy(const char *dir)
{
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char *path = rd_path_join(dir, files[i]);

        unlink(path);
        free(path);
    }
    rmdir(dir);
}

/* In place, so that only the change itself can tell; the times of the file are put back as far as one can. */
static void change_byte(const char *dir, const char *name, off_t at, int by)
{
    char *path = rd_path_join(dir, name);
    int fd = open(path, O_RDWR);
    struct stat st;
    char c;

    cr_assert(fd >= 0 && !fstat(fd, &st));
    if (at < 0) at += st.st_size;
    cr_assert_eq(pread(fd, &c, 1, at), 1);
    c = (char)(c + by);
    cr_assert_eq(pwrite(fd, &c, 1, at), 1);
    cr_assert(!futimens(fd, (struct timespec[]){ st.st_atim, st.st_mtim }));
    close(fd);
    free(path);
}

static off_t place_of(const char *dir, const char *name, const char *text)
{
    char *path = rd_path_join(dir, name);
    rd_buf all = { 0 };
    rd_error err;

    cr_assert(!rd_file_read(path, 64 << 20, &all, &err), "%s", err.text);
    const char *found = memmem(all.data, all.len, text, strlen(text));

    cr_assert(found, "%s", text);
    off_t at = found - all.data + (off_t)strlen(text);

    rd_buf_clear(&all);
    free(path);
    return at;
}

/* Open it, ask, close: the blocks that came from the store. */
static int64_t loads_of(const char *dir, const rd_kv_store *store, const place *p, rd_key *identity)
{
    rd_engine *e = open_at(dir, store, 0);

    cost(e, request_at(p));
    int64_t n = loaded(e);

    *identity = rd_engine_identity(e);
    rd_engine_close(e);
    return n;
}

Test(store, a_changed_weight_or_setting_makes_another_model, .timeout = 120)
{
    char dir[] = "/tmp/rd_storeXXXXXX";
    shelf s = { 0 };
    rd_kv_store store = shelf_store(&s);
    place p = place_in_line(60, 40);
    rd_key id[5];

    copy_builtin(dir);
    cr_assert_eq(loads_of(dir, &store, &p, &id[0]), 0);
    cr_assert_gt(loads_of(dir, &store, &p, &id[1]), 5, "unchanged");
    cr_assert(rd_key_equal(&id[0], &id[1]));
    change_byte(dir, files[WEIGHTS], -5, 1); /* one number of the last tensor */
    cr_assert_eq(loads_of(dir, &store, &p, &id[2]), 0, "one weight changed");
    change_byte(dir, files[CONFIG], place_of(dir, files[CONFIG], "\"rope_theta\": "), 1);
    cr_assert_eq(loads_of(dir, &store, &p, &id[3]), 0, "one setting changed");
    change_byte(dir, files[TOKENIZER], place_of(dir, files[TOKENIZER], "{") - 1, 0);
    cr_assert_gt(loads_of(dir, &store, &p, &id[3]), 5, "still the same");
    copy_file(dir, dir, files[WEIGHTS]); /* the same bytes, another file: it may be another */
    loads_of(dir, &store, &p, &id[4]);
    cr_assert(!rd_key_equal(&id[1], &id[2]));
    cr_assert(!rd_key_equal(&id[2], &id[3]));
    cr_assert(!rd_key_equal(&id[3], &id[4]));
    remove_copy(dir);
    rd_buf_clear(&p.text);
    shelf_clear(&s);
}

Test(store, other_instructions_of_the_processor_make_another_model)
{
    rd_engine_options o = { .threads = 1, .isa = "plain" };
    rd_engine *plain = NULL, *best = open_at(NULL, NULL, 0);
    rd_error err;

    cr_assert(!rd_engine_open(&o, &plain, &err), "%s", err.text);
    rd_key a = rd_engine_identity(plain), b = rd_engine_identity(best);
    bool same = !strcmp(rd_engine_describe(plain), rd_engine_describe(best));

    cr_assert_eq(rd_key_equal(&a, &b), same);
    rd_engine_close(plain);
    rd_engine_close(best);
}

/* ---- an afternoon at the keyboard ---- */

/* Real code, of which `bytes` stand before the cursor. */
static place real_place(const char *pattern, size_t bytes)
{
    place p = { 0 };
    glob_t found;
    rd_error err;

    cr_assert(!glob(pattern, 0, NULL, &found));
    for (size_t i = 0; i < found.gl_pathc && p.text.len < bytes + 4000; i++)
        cr_assert(!rd_file_read(found.gl_pathv[i], 4 << 20, &p.text, &err), "%s", err.text);
    globfree(&found);
    cr_assert_gt(p.text.len, bytes + 2000);
    p.cursor = next_line(&p, bytes) - 1; /* the end of a line */
    return p;
}

static void undo(place *p, const char *before_cursor, const char *after_cursor)
{
    size_t n = strlen(before_cursor), m = strlen(after_cursor);

    memmove(p->text.data + p->cursor - n, p->text.data + p->cursor + m,
            p->text.len - p->cursor - m + 1);
    p->cursor -= n;
    p->text.len -= n + m;
}

/* Prompts are cut in jumps, so that a key in a hundred costs more: at most `dear` of the tries may. */
static void keys_cost(const char *before_cursor, const char *after_cursor, int most, int dear)
{
    rd_engine *e = open_at(NULL, NULL, 0);
    int above = 0, tries = 0;

    for (size_t bytes = 3500; bytes < 7500; bytes += 200, tries++) {
        place p = real_place(RD_SOURCE_DIR "/core/format/*.c", bytes);

        cost(e, request_at(&p));
        insert_text(&p, before_cursor, after_cursor);
        above += cost(e, request_at(&p)) > most;
        undo(&p, before_cursor, after_cursor);
        cr_assert_eq(cost(e, request_at(&p)), 0, "undone at %zu", bytes);
        rd_buf_clear(&p.text);
    }
    cr_assert_leq(above, dear, "%d of %d cost more than %d blocks", above, tries, most);
    rd_engine_close(e);
}

Test(store, a_keystroke_computes_two_blocks_at_most, .timeout = 120)
{
    keys_cost("x", "", 2, 1);
}

Test(store, a_bracket_that_closes_itself_computes_two_blocks_at_most, .timeout = 120)
{
    keys_cost("(", ")", 2, 1);
}

Test(store, switching_files_and_back_computes_nothing, .timeout = 60)
{
    rd_engine *e = open_at(NULL, NULL, 0);
    place a = real_place(RD_SOURCE_DIR "/core/format/*.c", 6000),
          b = real_place(RD_SOURCE_DIR "/core/model/*.c", 6000);

    cr_assert_gt(cost(e, request_at(&a)), 10);
    cr_assert_gt(cost(e, request_at(&b)), 10);
    cr_assert_eq(cost(e, request_at(&a)), 0);
    cr_assert_eq(cost(e, request_at(&b)), 0);
    rd_engine_close(e);
    rd_buf_clear(&a.text);
    rd_buf_clear(&b.text);
}

Test(store, accepting_a_suggestion_finds_the_blocks_before_it, .timeout = 120)
{
    rd_engine *e = open_at(NULL, NULL, 0);
    int dear = 0, tries = 0;

    for (size_t bytes = 3500; bytes < 7500; bytes += 200) {
        place p = real_place(RD_SOURCE_DIR "/core/format/*.c", bytes);

        while (p.cursor > 0 && p.text.data[p.cursor - 1] != ' ') p.cursor--;
        rd_result r = answer(e, request_at(&p));

        if (r.text.len > 0) {
            insert_text(&p, r.text.data, "");
            dear += cost(e, request_at(&p)) > 2 + (r.tokens + TYPING_BLOCK - 1) / TYPING_BLOCK;
            tries++;
        }
        rd_result_clear(&r);
        rd_buf_clear(&p.text);
    }
    cr_assert_gt(tries, 8);
    cr_assert_leq(dear, 1, "%d of %d", dear, tries);
    rd_engine_close(e);
}

Test(store, a_moved_cursor_computes_quote_and_near_prefix_only, .timeout = 60)
{
    rd_engine *e = open_at(NULL, NULL, 0);
    rd_layout l = rd_layout_default();
    /* What stands behind the far prefix, in blocks, and the one in which it ends. */
    int most = (l.quote_most + l.near_least + l.far_step + l.block - 1) / l.block + 2, dear = 0;

    for (size_t bytes = 3500; bytes < 7500; bytes += 200) {
        place p = real_place(RD_SOURCE_DIR "/core/format/*.c", bytes);

        cost(e, request_at(&p));
        p.cursor = next_line(&p, p.cursor + 1) - 1;
        dear += cost(e, request_at(&p)) > most;
        rd_buf_clear(&p.text);
    }
    cr_assert_leq(dear, 5, "%d of 20: where the far prefix moves", dear);
    rd_engine_close(e);
}
