/* test_cache_sessions.c - the program with its built-in model and a real cache file: what a restart finds, what a purge leaves, what
 * becomes of a file that is not as it should be.
 *
 * Work is counted in blocks, never in time.
 */
#include "core/base/clock.h"
#include "tests/e2e/client.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATIENCE_MS = 60000, LINES = 60 };

static const char *const alone[] = { RD_PROGRAM, "stdio", "--alone", NULL };
static const char *const front[] = { RD_PROGRAM, "stdio", NULL };
static char world[64], folder[128], uri[128];

/* ---- the world ---- */

static void begin(void)
{
    client_own_world(world);
    snprintf(folder, sizeof folder, "%s/cache/redraft", world);
    snprintf(uri, sizeof uri, "file://%s/project/a.c", world);
    char path[128];

    snprintf(path, sizeof path, "%s/project", world);
    cr_assert(!mkdir(path, 0700));
    snprintf(path, sizeof path, "%s/redraft", world); /* of the settings and of the socket */
    cr_assert(!mkdir(path, 0700));
}

static int call(const char *a, const char *b, const char *c, rd_buf *out)
{
    const char *argv[] = { RD_PROGRAM, a, b, c, NULL };

    return client_run(argv, out);
}

static void end(void)
{
    rd_buf out = { 0 };

    cr_expect_eq(call("stop", NULL, NULL, &out), 0);
    rd_buf_clear(&out);
    client_remove_world(world);
}

static void put_file(const char *name, const char *text)
{
    char path[256];

    snprintf(path, sizeof path, "%s/%s", world, name);
    FILE *f = fopen(path, "w");

    cr_assert(f && fputs(text, f) >= 0 && !fclose(f));
}

static json_t *object_of(const char *a, const char *b, const char *c)
{
    rd_buf out = { 0 };

    cr_assert_eq(call(a, b, c, &out), 0);
    json_t *o = json_loadb(out.data, out.len, 0, NULL);

    cr_assert(json_is_object(o), "%s", out.data);
    rd_buf_clear(&out);
    return o;
}

/* A number of `redraft cache stat`; "hits.x" of its hits. */
static int stat_of(const char *name)
{
    json_t *o = object_of("cache", "stat", "--json");
    const json_t *v = strncmp(name, "hits.", 5)
                          ? json_object_get(o, name)
                          : json_object_get(json_object_get(o, "hits"), name + 5);

    cr_assert(v, "there is no %s", name);
    int n = json_is_boolean(v) ? json_is_true(v) : (int)json_number_value(v);

    json_decref(o);
    return n;
}

/* A number of the daemon's status. */
static int daemon_of(const char *name)
{
    json_t *o = object_of("status", "--json", NULL);
    int n = (int)json_number_value(json_object_get(json_object_get(o, "cache"), name));

    json_decref(o);
    return n;
}

#define wait_for(what)                                                      \
    do {                                                                    \
        double start_ms = rd_now_ms();                                      \
        while (!(what)) {                                                   \
            cr_assert_lt(rd_now_ms() - start_ms, PATIENCE_MS, "%s", #what); \
            client_sleep_ms(50);                                            \
        }                                                                   \
    } while (0)

/* More blocks than `most`, and no more to come: a batch waits a second for its end. */
static int blocks_at_rest(int most)
{
    int n;

    wait_for(stat_of("blocks") > most);
    do {
        n = stat_of("blocks");
        client_sleep_ms(1400);
    } while (n != stat_of("blocks"));
    return n;
}

/* ---- sessions ---- */

/* Text of some hundred tokens, other ones for each seed; the hole is at its end. */
static void write_text(rd_buf *out, int seed)
{
    rd_buf_text(out, "");
    for (int i = 0; i < LINES; i++)
        rd_buf_format(out, "int number_%d_%d = %d * other_%d;\\n", seed, i, i * 7 + seed, i);
    rd_buf_text(out, "int last = ");
}

static void start(client *c, const char *const *argv)
{
    client_start(c, argv, RD_FRAMING_HEADER);
    cr_assert(client_initialize(c));
}

static void open_text(client *c, const char *what, int seed)
{
    rd_buf text = { 0 };

    write_text(&text, seed);
    client_send(c,
                "{'jsonrpc':'2.0','method':'textDocument/didOpen','params':{'textDocument':{'uri':"
                "'%s','languageId':'c','version':1,'text':'%s'}}}",
                what, text.data);
    rd_buf_clear(&text);
}

/* kind 1: invoked; 2: by itself. */
static bool ask(client *c, int id, const char *what, int kind)
{
    client_send(c,
                "{'jsonrpc':'2.0','id':%d,'method':'textDocument/inlineCompletion','params':{"
                "'textDocument':{'uri':'%s'},'position':{'line':%d,'character':11},"
                "'context':{'triggerKind':%d}}}",
                id, what, LINES, kind);
    json_t *answer = client_answer(c, id, PATIENCE_MS);
    bool good = json_is_array(json_object_get(json_object_get(answer, "result"), "items"));

    json_decref(answer);
    return good;
}

static void leave(client *c)
{
    client_send(c, "{'jsonrpc':'2.0','id':999,'method':'shutdown'}");
    json_decref(client_answer(c, 999, PATIENCE_MS));
    client_send(c, "{'jsonrpc':'2.0','method':'exit'}");
    cr_expect_eq(client_wait(c, 10000), 0);
    client_end(c);
}

static void one_session(const char *const *argv, int seed, int kind)
{
    client c;

    start(&c, argv);
    open_text(&c, uri, seed);
    cr_assert(ask(&c, 2, uri, kind));
    leave(&c);
}

static void expect_sound(void)
{
    rd_buf out = { 0 };

    cr_assert_eq(call("cache", "verify", NULL, &out), 0, "%s", out.data);
    rd_buf_clear(&out);
}

/* ---- a restart ---- */

Test(cache_sessions, a_restart_finds_the_blocks_of_before, .init = begin, .fini = end,
     .timeout = 180)
{
    one_session(alone, 1, 1);
    int stored = stat_of("blocks"), computed = stat_of("hits.computed");

    cr_assert_gt(stored, 8);
    cr_assert_eq(stat_of("hits.loaded"), 0);
    one_session(alone, 1, 1);
    cr_assert_geq(stat_of("hits.loaded"), stored - 2);
    cr_assert_leq(stat_of("hits.computed") - computed, 2);
    expect_sound();
}

Test(cache_sessions, a_daemon_that_was_stopped_finds_the_blocks_of_before, .init = begin,
     .fini = end, .timeout = 180)
{
    rd_buf out = { 0 };

    one_session(front, 1, 1);
    int computed = daemon_of("computed");

    cr_assert_gt(computed, 8);
    cr_assert_eq(call("stop", NULL, NULL, &out), 0);
    one_session(front, 1, 1);
    cr_assert_geq(daemon_of("loaded"), computed - 2);
    cr_assert_leq(daemon_of("computed"), 2);
    rd_buf_clear(&out);
}

/* A request that nobody invoked is given up while the model is loaded: another one comes first. */
static void ask_unasked(int seed)
{
    char other[160];
    client c;

    snprintf(other, sizeof other, "file://%s/project/b.c", world);
    start(&c, alone);
    open_text(&c, other, 9);
    cr_assert(ask(&c, 2, other, 1));
    open_text(&c, uri, seed);
    cr_assert(ask(&c, 3, uri, 2));
    leave(&c);
}

Test(cache_sessions, an_answer_is_given_again_unless_a_fresh_one_is_asked_for, .init = begin,
     .fini = end, .timeout = 180)
{
    put_file("redraft/config.json", "{\"maxMs\": 60000}");
    ask_unasked(1);
    int answers = stat_of("answers");

    cr_assert_gt(answers, 0);
    cr_assert_eq(stat_of("hits.answers"), 0, "an invoked request was answered from the file");
    ask_unasked(1);
    cr_assert_eq(stat_of("hits.answers"), 1);
    cr_assert_eq(stat_of("answers"), answers);
    ask_unasked(2);
    cr_assert_eq(stat_of("hits.answers"), 1, "for another text");
}

Test(cache_sessions, two_daemons_use_one_file, .init = begin, .fini = end, .timeout = 180)
{
    client a, b;
    char other[160];

    snprintf(other, sizeof other, "%s.h", uri);
    start(&a, alone);
    start(&b, alone);
    open_text(&a, uri, 1);
    open_text(&b, uri, 2);
    for (int i = 0; i < 4; i++) {
        cr_assert(ask(&a, 10 + i, uri, 1));
        cr_assert(ask(&b, 10 + i, uri, 1));
        client_sleep_ms(300);
        open_text(&a, uri, 3 + i % 2);
        open_text(&b, uri, 4 - i % 2);
    }
    leave(&a);
    leave(&b);
    cr_assert_gt(stat_of("blocks"), 30);
    expect_sound();
}

Test(cache_sessions, a_kill_leaves_no_wrong_row, .init = begin, .fini = end, .timeout = 300)
{
    for (int i = 0; i < 12; i++) {
        client c;

        start(&c, alone);
        open_text(&c, uri, i);
        cr_assert(ask(&c, 2, uri, 1));
        client_sleep_ms(950 + 20 * i); /* about when it is written */
        kill(c.pid, SIGKILL);
        client_wait(&c, 5000);
        client_end(&c);
    }
    if (stat_of("exists")) expect_sound();
    one_session(alone, 1, 1);
    cr_assert_gt(stat_of("blocks"), 0);
    expect_sound();
}

/* ---- a place that will not do ---- */

/* A session whose stderr is kept; lines of it about the cache. */
static int lines_about_the_cache(rd_buf *said)
{
    char command[512], path[128], line[512];
    const char *argv[] = { "/bin/sh", "-c", command, NULL };

    snprintf(path, sizeof path, "%s/stderr", world);
    snprintf(command, sizeof command, "exec %s stdio --alone 2>%s", RD_PROGRAM, path);
    one_session(argv, 1, 1);
    FILE *f = fopen(path, "r");
    int n = 0;

    while (f && fgets(line, sizeof line, f)) {
        if (!strstr(line, "cache:")) continue;
        n++;
        rd_buf_text(said, line);
    }
    if (f) fclose(f);
    return n;
}

static void expect_one_line(const char *why)
{
    rd_buf said = { 0 };
    int n = lines_about_the_cache(&said);

    cr_assert_eq(n, 1, "%d lines: %s", n, said.data ? said.data : "");
    cr_assert(strstr(said.data, why), "%s", said.data);
    rd_buf_clear(&said);
}

static void make_parent(mode_t mode)
{
    char path[128];

    snprintf(path, sizeof path, "%s/cache", world);
    cr_assert(!mkdir(path, mode));
}

Test(cache_sessions, go_on_where_a_file_stands_in_the_folders_place, .init = begin, .fini = end,
     .timeout = 120)
{
    make_parent(0700);
    put_file("cache/redraft", "not a folder");
    expect_one_line("cache/redraft");
}

Test(cache_sessions, go_on_where_a_link_stands_in_the_folders_place, .init = begin, .fini = end,
     .timeout = 120)
{
    char target[128];

    make_parent(0700);
    snprintf(target, sizeof target, "%s/project", world);
    cr_assert(!symlink(target, folder));
    expect_one_line("cache/redraft");
}

Test(cache_sessions, go_on_where_the_folder_is_open_to_others, .init = begin, .fini = end,
     .timeout = 120)
{
    make_parent(0700);
    cr_assert(!mkdir(folder, 0700) && !chmod(folder, 0755));
    expect_one_line("open to others");
}

Test(cache_sessions, go_on_in_a_folder_that_cannot_be_written, .init = begin, .fini = end,
     .timeout = 120)
{
    if (geteuid() == 0) cr_skip_test("root writes everywhere");
    make_parent(0500);
    expect_one_line("cache/redraft");
    chmod(folder, 0700);
}

Test(cache_sessions, set_a_damaged_file_aside, .init = begin, .fini = end, .timeout = 180)
{
    rd_buf said = { 0 };
    char path[160];

    one_session(alone, 1, 1);
    snprintf(path, sizeof path, "%s/cache.db", folder);
    int fd = open(path, O_WRONLY);

    cr_assert_eq(pwrite(fd, "this is no database, or not any more", 36, 0), 36);
    close(fd);
    lines_about_the_cache(&said);
    one_session(alone, 1, 1);
    cr_assert_gt(stat_of("blocks"), 0, "no new one was begun");
    expect_sound();
    rd_buf_clear(&said);
}

/* ---- what must not be there ---- */

static bool is_there(const char *path)
{
    struct stat st;

    return !lstat(path, &st);
}

Test(cache_sessions, make_no_file_where_the_setting_is_off, .init = begin, .fini = end,
     .timeout = 180)
{
    put_file("redraft/config.json", "{\"cache\": false}");
    one_session(alone, 1, 1);
    one_session(front, 1, 1);
    cr_assert_not(is_there(folder));
    put_file("redraft/config.json", "{\"cacheMegabytes\": 0}");
    one_session(alone, 1, 1);
    cr_assert_not(is_there(folder));
    put_file("redraft/config.json", "{}");
    put_file("project/.redraft.json", "{\"cache\": false}");
    one_session(alone, 1, 1);
    cr_assert_not(is_there(folder));
    unlink("project/.redraft.json");
}

Test(cache_sessions, keep_nothing_of_a_file_that_becomes_excluded, .init = begin, .fini = end,
     .timeout = 180)
{
    client c;
    char other[160];

    snprintf(other, sizeof other, "file://%s/project/b.c", world);
    start(&c, front);
    open_text(&c, uri, 1);
    cr_assert(ask(&c, 2, uri, 1));
    int with_a = blocks_at_rest(8);

    open_text(&c, other, 2);
    cr_assert(ask(&c, 3, other, 1));
    int total = blocks_at_rest(with_a + 8);

    put_file("project/.redraftignore", "a.c\n");
    client_sleep_ms(700); /* the rules are looked at again, though nobody asks about the file */
    cr_assert(ask(&c, 4, other, 1));
    wait_for(stat_of("blocks") <= total - 8);
    int left = stat_of("blocks");

    cr_assert_gt(left, 8, "the other file's are there");
    cr_assert_eq(left, total - with_a, "of the first file something is left");
    leave(&c);
    expect_sound();
}

/* ---- purge ---- */

static rd_buf read_folder(void)
{
    DIR *dir = opendir(folder);
    rd_buf all = { 0 };

    for (struct dirent *e; dir && (e = readdir(dir));) {
        char path[512], piece[65536];

        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        int fd = open(path, O_RDONLY | O_NOFOLLOW);
        struct stat st;

        if (fd >= 0 && !fstat(fd, &st) && S_ISREG(st.st_mode))
            for (ssize_t n; (n = read(fd, piece, sizeof piece)) > 0;)
                rd_buf_append(&all, piece, (size_t)n);
        if (fd >= 0) close(fd);
    }
    if (dir) closedir(dir);
    return all;
}

/* 32 bytes that look like numbers: most of them different (the upper bytes of bf16 are few), and no text of the schema. */
static bool is_telling(const unsigned char *b)
{
    bool seen[256] = { 0 };
    int n = 0, beyond_text = 0;

    for (int i = 0; i < 32; i++) {
        n += !seen[b[i]];
        seen[b[i]] = true;
        beyond_text += b[i] >= 128;
    }
    return n >= 20 && beyond_text >= 8;
}

static int found_again(const rd_buf *old, const rd_buf *now, int *looked)
{
    int found = 0;

    *looked = 0;
    for (size_t at = 0; at + 32 < old->len; at += 331) {
        if (!is_telling((const unsigned char *)old->data + at)) continue;
        ++*looked;
        found += memmem(now->data, now->len, old->data + at, 32) != NULL;
    }
    return found;
}

Test(cache_sessions, a_purge_while_a_daemon_runs_leaves_nothing, .init = begin, .fini = end,
     .timeout = 180)
{
    client c;
    int looked;
    rd_buf out = { 0 };

    start(&c, front);
    open_text(&c, uri, 1);
    cr_assert(ask(&c, 2, uri, 1));
    blocks_at_rest(8);
    rd_buf before = read_folder();
    int computed = daemon_of("computed");

    cr_assert_eq(found_again(&before, &before, &looked), looked);
    cr_assert_gt(looked, 100);
    cr_assert_eq(call("cache", "purge", NULL, &out), 0);
    cr_assert(strstr(out.data, "1 daemon forgot"), "%s", out.data);
    rd_buf after = read_folder();

    cr_assert_eq(found_again(&before, &after, &looked), 0);
    cr_assert_eq(stat_of("blocks"), 0);
    cr_assert_eq(stat_of("answers"), 0);
    cr_assert(ask(&c, 3, uri, 1));
    cr_assert_geq(daemon_of("computed"), 2 * computed - 2, "something was still in memory");
    cr_assert_eq(daemon_of("loaded"), 0);
    leave(&c);
    rd_buf_clear(&before);
    rd_buf_clear(&after);
    rd_buf_clear(&out);
}

/* ---- agents ---- */

/* One infill of an agent below `root`. */
static void agent(const char *root)
{
    const char *argv[] = { RD_PROGRAM, "mcp", "--root", root, NULL };
    rd_buf text = { 0 };
    client c;

    write_text(&text, 1);
    client_start(&c, argv, RD_FRAMING_LINE);
    client_send(&c, "{'jsonrpc':'2.0','id':1,'method':'initialize','params':{'protocolVersion':"
                    "'2025-06-18','capabilities':{},'clientInfo':{'name':'t','version':'1'}}}");
    json_decref(client_answer(&c, 1, PATIENCE_MS));
    client_send(&c,
                "{'jsonrpc':'2.0','id':2,'method':'tools/call','params':{'name':'infill',"
                "'arguments':{'prefix':'%s','suffix':';','language':'c','max_tokens':4}}}",
                text.data);
    json_t *answer = client_answer(&c, 2, PATIENCE_MS);

    cr_assert(json_object_get(answer, "result"));
    json_decref(answer);
    client_close_input(&c);
    client_wait(&c, 10000);
    client_end(&c);
    rd_buf_clear(&text);
}

Test(cache_sessions, agents_below_other_folders_share_nothing, .init = begin, .fini = end,
     .timeout = 180)
{
    char project[128];
    client c;

    snprintf(project, sizeof project, "%s/project", world);
    start(&c, front); /* so that the daemon stays */
    agent(world);
    int computed = daemon_of("computed"), found = daemon_of("found");

    cr_assert_gt(computed, 8);
    agent(project);
    cr_assert_eq(daemon_of("computed"), 2 * computed);
    cr_assert_eq(daemon_of("found"), 2 * found);
    cr_assert_eq(daemon_of("loaded"), 0);
    cr_assert_eq(daemon_of("answers"), 0);
    agent(world);
    cr_assert_eq(daemon_of("computed"), 2 * computed, "the same folder's were computed again");
    cr_assert_eq(daemon_of("answers"), 1);
    leave(&c);
}
