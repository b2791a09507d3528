/* test_emulated_device.c - the program in an editor's session, with the CUDA plugin on an emulated GPU that has no room, or is lost:
 * what the one request gets, what the next one gets, and what is said.
 *
 * The emulator takes its faults from the environment (tests/plugins/cuda/emulator/control.h). A device that is lost stays so for
 * the process, as a real one does; a launch that fails alone leaves it well.
 */
#include "core/base/clock.h"
#include "core/format/file.h"
#include "tests/e2e/client.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATIENCE_MS = 60000, AT = 8 };

/* Loading launches a kernel for each of 178 weights, a request some dozens. */
#define LOST_IN_A_PASS      "run 250 700"
#define LOST_WHILE_IT_LOADS "run 50 700"
#define A_LAUNCH_FAILS      "launch 250 701"
#define LITTLE_MEMORY       "20000000"

static const char *const alone[] = { RD_PROGRAM, "stdio", "--alone", NULL };
static const char *const front[] = { RD_PROGRAM, "stdio", NULL };
static char world[64];

static void begin(void)
{
    char path[128];

    client_own_world(world);
    snprintf(path, sizeof path, "%s/redraft", world);
    cr_assert(!mkdir(path, 0700));
    setenv("REDRAFT_PLUGINS", RD_EMULATED_PLUGINS, 1);
}

static void end(void)
{
    static const char *const stop[] = { RD_PROGRAM, "stop", NULL };
    rd_buf out = { 0 };

    cr_expect_eq(client_run(stop, &out), 0);
    rd_buf_clear(&out);
    client_remove_world(world);
}

TestSuite(emulated_device, .init = begin, .fini = end, .timeout = 240);

static void write_file(const char *folder, const char *name, const void *bytes, size_t n)
{
    char path[192];

    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "w");

    cr_assert(f && fwrite(bytes, 1, n, f) == n && !fclose(f) && !chmod(path, 0600), "%s", path);
}

static void allow_cpu(void)
{
    static const char text[] = "{\"backendFallback\": true}\n";

    write_file(world, "redraft/config.json", text, sizeof text - 1);
}

/* The daemon's environment is its own: its plugin is one that has the fault beside it. */
static void move_plugin(const char *fault)
{
    rd_buf bytes = { 0 };
    rd_error err;
    char folder[96];

    snprintf(folder, sizeof folder, "%s/plugins", world);
    cr_assert(!mkdir(folder, 0700));
    cr_assert(!rd_file_read(RD_EMULATED_PLUGINS "/libredraft-cuda.so", 256 << 20, &bytes, &err),
              "%s", err.text);
    write_file(folder, "libredraft-cuda.so", bytes.data, bytes.len);
    write_file(folder, "emulated-fail", fault, strlen(fault));
    setenv("REDRAFT_PLUGINS", folder, 1);
    rd_buf_clear(&bytes);
}

/* ---- a session ---- */

typedef struct session {
    client c;
    int id;
    rd_buf said; /* messages for the user, one a line */
    char kind[32], status[400];
    char error[400], item[400]; /* of the last answer */
} session;

static void start(session *s, const char *const *argv, const char *backend)
{
    memset(s, 0, sizeof *s);
    if (backend) setenv("REDRAFT_BACKEND", backend, 1);
    client_start(&s->c, argv, RD_FRAMING_HEADER);
    cr_assert(client_initialize(&s->c));
    client_open(&s->c, "file:///w/a.c", "int x = ;");
}

static const char *text_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));

    return s ? s : "";
}

/* One request to its answer; what is said meanwhile is kept. */
static void ask(session *s)
{
    double until = rd_now_ms() + PATIENCE_MS;
    json_t *m;

    *s->error = *s->item = 0;
    client_ask(&s->c, ++s->id, "file:///w/a.c", AT);
    while ((m = client_read(&s->c, (int)(until - rd_now_ms())))) {
        const char *method = text_of(m, "method");
        const json_t *params = json_object_get(m, "params");
        bool is_answer = json_integer_value(json_object_get(m, "id")) == s->id;
        const char *item = client_item(m);

        if (!strcmp(method, "window/showMessage")) {
            rd_buf_text(&s->said, text_of(params, "message"));
            rd_buf_text(&s->said, "\n");
        }
        if (!strcmp(method, "$/redraft/status")) {
            snprintf(s->kind, sizeof s->kind, "%s", text_of(params, "kind"));
            snprintf(s->status, sizeof s->status, "%s", text_of(params, "message"));
        }
        if (is_answer) {
            snprintf(s->error, sizeof s->error, "%s",
                     text_of(json_object_get(m, "error"), "message"));
            snprintf(s->item, sizeof s->item, "%s", item ? item : "");
        }
        json_decref(m);
        if (is_answer) return;
    }
    cr_assert_fail("no answer in time");
}

/* Requests until one fails, of a few; those before it are answered. */
static void ask_until_it_fails(session *s)
{
    for (int i = 0; i < 8; i++) {
        ask(s);
        if (*s->error) return;
        cr_assert(*s->item);
    }
    cr_assert_fail("the fault never came");
}

static bool was_said(const session *s, const char *text)
{
    return s->said.data && strstr(s->said.data, text);
}

/* It ends as an editor ends it, and in order: the process lived on. */
static void finish(session *s)
{
    client_send(&s->c, "{'jsonrpc':'2.0','id':99,'method':'shutdown'}");
    json_t *m = client_answer(&s->c, 99, PATIENCE_MS);

    cr_assert(m, "no answer to shutdown");
    json_decref(m);
    client_send(&s->c, "{'jsonrpc':'2.0','method':'exit'}");
    cr_assert_eq(client_wait(&s->c, PATIENCE_MS), 0);
    client_close_input(&s->c);
    close(s->c.from);
    rd_wire_free(s->c.wire);
    rd_buf_clear(&s->c.unread);
    rd_buf_clear(&s->said);
}

/* What the CPU makes of the hole. */
static void cpu_item(char out[400])
{
    session s;

    start(&s, alone, "cpu");
    ask(&s);
    cr_assert(*s.item);
    strcpy(out, s.item);
    finish(&s);
    unsetenv("REDRAFT_BACKEND");
}

static void is_on_the_cpu(session *s, const char *why)
{
    cr_assert_str_eq(s->error, "");
    cr_assert(was_said(s, why), "%s", s->said.data);
    cr_assert(was_said(s, "the CPU is used"), "%s", s->said.data);
    cr_assert_str_eq(s->kind, "Warning");
    cr_assert(strstr(s->status, "(cpu "), "%s", s->status);
}

/* The first request is answered by the CPU already. */
static void begin_on_the_cpu(const char *backend, const char *why)
{
    session s;

    start(&s, alone, backend);
    ask(&s);
    is_on_the_cpu(&s, why);
    cr_assert(*s.item);
    finish(&s);
}

/* ---- a device that is lost ---- */

static void lose_and_go_on(const char *backend)
{
    char want[400];
    session s;

    cpu_item(want);
    setenv("RD_EMULATED_FAIL", LOST_IN_A_PASS, 1);
    start(&s, alone, backend);
    ask_until_it_fails(&s);
    cr_assert(strstr(s.error, "an illegal memory access"), "%s", s.error);
    ask(&s);
    is_on_the_cpu(&s, "an illegal memory access");
    cr_assert_str_eq(s.item, want);
    finish(&s);
}

Test(emulated_device, lost_fails_one_request_and_the_next_is_answered_by_the_cpu)
{
    lose_and_go_on(NULL);
}

Test(emulated_device, named_and_lost_is_left_for_the_cpu_where_that_is_allowed)
{
    allow_cpu();
    lose_and_go_on("cuda");
}

Test(emulated_device, named_and_lost_fails_each_request_and_the_program_lives)
{
    session s;

    setenv("RD_EMULATED_FAIL", LOST_IN_A_PASS, 1);
    start(&s, alone, "cuda");
    ask_until_it_fails(&s);
    for (int i = 0; i < 2; i++) {
        ask(&s);
        cr_assert(strstr(s.error, "an illegal memory access"), "%s", s.error);
        cr_assert_str_eq(s.item, "");
    }
    cr_assert_not(was_said(&s, "the CPU is used"));
    finish(&s);
}

Test(emulated_device, that_failed_once_is_opened_again)
{
    session s;

    setenv("RD_EMULATED_FAIL", A_LAUNCH_FAILS, 1);
    start(&s, alone, "cuda");
    ask_until_it_fails(&s);
    cr_assert(strstr(s.error, "too many resources"), "%s", s.error);
    ask(&s);
    cr_assert_str_eq(s.error, "");
    cr_assert(*s.item);
    cr_assert(strstr(s.status, "cuda Emulated GPU"), "%s", s.status);
    cr_assert_not(was_said(&s, "the CPU is used"));
    finish(&s);
}

Test(emulated_device, lost_while_it_loads_is_left_for_the_cpu)
{
    setenv("RD_EMULATED_FAIL", LOST_WHILE_IT_LOADS, 1);
    begin_on_the_cpu(NULL, "sending a weight: an illegal memory access");
}

/* ---- no room ---- */

Test(emulated_device, without_room_is_left_for_the_cpu_with_what_was_wanted_and_free)
{
    allow_cpu();
    setenv("RD_EMULATED_MEMORY", LITTLE_MEMORY, 1);
    begin_on_the_cpu("cuda", "17 MB wanted on Emulated GPU, 15 of 19 MB are free");
}

Test(emulated_device, named_without_room_fails_each_request_with_what_was_wanted_and_free)
{
    session s;

    setenv("RD_EMULATED_MEMORY", LITTLE_MEMORY, 1);
    start(&s, alone, "cuda");
    for (int i = 0; i < 2; i++) {
        ask(&s);
        cr_assert(strstr(s.error, "17 MB wanted on Emulated GPU, 15 of 19 MB are free"), "%s",
                  s.error);
    }
    cr_assert_str_eq(s.kind, "Error");
    finish(&s);
}

/* ---- the daemon ---- */

Test(emulated_device, lost_leaves_the_daemon_to_all_its_clients)
{
    session a, b;

    move_plugin(LOST_IN_A_PASS);
    start(&a, front, NULL);
    start(&b, front, NULL);
    ask_until_it_fails(&a);
    ask(&b);
    is_on_the_cpu(&b, "an illegal memory access");
    cr_assert(*b.item);
    ask(&a);
    is_on_the_cpu(&a, "an illegal memory access");
    cr_assert(*a.item);
    json_t *status = client_status(RD_PROGRAM);

    cr_assert(status, "no status");
    cr_assert(strstr(text_of(json_object_get(status, "model"), "fell_back"), "the CPU is used"));
    json_decref(status);
    finish(&a);
    finish(&b);
}
