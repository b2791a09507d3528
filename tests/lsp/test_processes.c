/* test_processes.c - the daemon and its fronts as processes, with a runner that echoes what it was asked about. */
#include "core/base/clock.h"
#include "tests/e2e/client.h"
#include "tests/fake/echo.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define A "file:///a.c"

enum { FRONTS = 20 };

static const char *const stdio_call[] = { RD_PROCESS, "stdio", NULL };
static const char *const alone_call[] = { RD_PROCESS, "stdio", "--alone", NULL };
static const char *const mcp_call[] = { RD_PROCESS, "mcp", NULL };
static const char *const mcp_alone_call[] = { RD_PROCESS, "mcp", "--alone", NULL };
static char world[64];

static void begin(void)
{
    client_own_world(world);
}

static int stop(void)
{
    const char *call[] = { RD_PROCESS, "stop", NULL };
    rd_buf out = { 0 };
    int status = client_run(call, &out);

    rd_buf_clear(&out);
    return status;
}

/* Every test ends here: no daemon is left behind. */
static void end(void)
{
    cr_expect_eq(stop(), 0);
    client_remove_world(world);
}

static json_t *status(void)
{
    json_t *s = client_status(RD_PROCESS);

    cr_assert(s, "no status");
    return s;
}

static int number(const char *name)
{
    json_t *s = status();
    int value = (int)json_number_value(json_object_get(s, name));

    json_decref(s);
    return value;
}

static bool model_is(const char *state)
{
    json_t *s = status();
    const char *is = json_string_value(json_object_get(json_object_get(s, "model"), "state"));
    bool same = is && !strcmp(is, state);

    json_decref(s);
    return same;
}

static bool runs(void)
{
    json_t *s = status();
    bool yes = json_is_true(json_object_get(s, "running"));

    json_decref(s);
    return yes;
}

/* Asks at a place of the document and holds the answer against our own text. */
static bool answers_to(client *c, int id, const char *text, int character)
{
    char want[RD_ECHO_BYTES];

    rd_echo_answer(text, (size_t)character, text + character, strlen(text) - (size_t)character,
                   want);
    client_ask(c, id, A, character);
    json_t *answer = client_answer(c, id, 10000);
    const char *got = client_item(answer);
    bool same = got && !strcmp(got, want);

    if (!same) {
        char *all = answer ? json_dumps(answer, 0) : NULL;

        fprintf(stderr, "wanted %s, got %s\n", want, all ? all : "nothing");
        free(all);
    }
    json_decref(answer);
    return same;
}

static int code_of(client *c, int id)
{
    json_t *answer = client_answer(c, id, 10000);
    int code =
        answer ? (int)json_integer_value(json_object_get(json_object_get(answer, "error"), "code"))
               : 1;

    json_decref(answer);
    return code;
}

static void leave(client *c)
{
    client_send(c, "{'jsonrpc':'2.0','id':999,'method':'shutdown'}");
    json_decref(client_answer(c, 999, 5000));
    client_send(c, "{'jsonrpc':'2.0','method':'exit'}");
    cr_expect_eq(client_end(c), 0);
    cr_expect_eq(c->garbage, 0);
}

Test(processes, a_session_goes_through_front_and_daemon, .init = begin, .fini = end, .timeout = 60)
{
    client c;

    client_start(&c, stdio_call, RD_FRAMING_HEADER);
    cr_assert(client_initialize(&c));
    client_open(&c, A, "int a = ;");

    cr_expect(answers_to(&c, 1, "int a = ;", 8));
    client_insert(&c, A, 2, 0, "// ");
    cr_expect(answers_to(&c, 2, "// int a = ;", 11));
    cr_expect_eq(number("clients"), 1);
    leave(&c);
}

Test(processes, alone_needs_no_socket, .init = begin, .fini = end, .timeout = 60)
{
    client c;

    client_start(&c, alone_call, RD_FRAMING_HEADER);
    cr_assert(client_initialize(&c));
    client_open(&c, A, "int a = ;");

    cr_expect(answers_to(&c, 1, "int a = ;", 8));
    cr_expect_not(runs());
    leave(&c);
}

Test(processes, what_a_library_prints_does_not_reach_the_client, .init = begin, .fini = end,
     .timeout = 60)
{
    const char *const *calls[] = { stdio_call, alone_call };

    for (int i = 0; i < 2; i++) {
        client c;

        client_start(&c, calls[i], RD_FRAMING_HEADER);
        cr_assert(client_initialize(&c));
        client_open(&c, A, "/* @print */ x");
        cr_expect(answers_to(&c, 1, "/* @print */ x", 13));
        leave(&c);
    }
}

Test(processes, twenty_fronts_make_one_daemon, .init = begin, .fini = end, .timeout = 60)
{
    client c[FRONTS];
    char name[128];

    for (int i = 0; i < FRONTS; i++) client_start(&c[i], stdio_call, RD_FRAMING_HEADER);
    for (int i = 0; i < FRONTS; i++) cr_assert(client_initialize(&c[i]));

    cr_expect_eq(number("clients"), FRONTS);
    snprintf(name, sizeof name, "%s/redraft/starts", world);
    struct stat st;

    cr_assert_eq(stat(name, &st), 0);
    cr_expect_lt(st.st_size, 12, "one start is recorded in it");
    for (int i = 0; i < FRONTS; i++) leave(&c[i]);
}

/* Dead, though nobody may have waited for it yet. */
static bool is_gone(int pid)
{
    char name[32], line[512];

    snprintf(name, sizeof name, "/proc/%d/stat", pid);
    FILE *file = fopen(name, "re");
    bool read = file && fgets(line, sizeof line, file);

    if (file) fclose(file);
    return !read || strstr(line, ") Z");
}

static void kill_daemon(int signal_number)
{
    int pid = number("pid");

    cr_assert_gt(pid, 1);
    kill(pid, signal_number);
    while (!is_gone(pid)) client_sleep_ms(1);
    client_sleep_ms(100); /* the fronts see it */
}

Test(processes, a_killed_daemon_costs_an_error_and_no_edit, .init = begin, .fini = end,
     .timeout = 60)
{
    client c;

    client_start(&c, stdio_call, RD_FRAMING_HEADER);
    cr_assert(client_initialize(&c));
    client_open(&c, A, "/* @ms=20000 */ int a = ;");
    client_insert(&c, A, 2, 24, "f()");
    client_ask(&c, 1, A, 27);
    client_sleep_ms(200);

    double killed = rd_now_ms();

    kill_daemon(SIGKILL);
    cr_expect_eq(code_of(&c, 1), -32803);
    cr_expect_lt(rd_now_ms() - killed, 1000);
    client_insert(&c, A, 3, 0, "/* @ms=1 */ ");
    client_send(&c, "{'jsonrpc':'2.0','method':'textDocument/didChange','params':{'textDocument':{"
                    "'uri':'" A "','version':4},'contentChanges':[{'range':{'start':{'line':0,"
                    "'character':12},'end':{'line':0,'character':28}},'text':''}]}}");
    cr_expect(answers_to(&c, 2, "/* @ms=1 */ int a = f();", 23));
    cr_expect_eq(number("deaths"), 1);
    leave(&c);
}

Test(processes, what_was_asked_at_two_deaths_is_not_asked_again, .init = begin, .fini = end,
     .timeout = 60)
{
    client c;

    client_start(&c, stdio_call, RD_FRAMING_HEADER);
    cr_assert(client_initialize(&c));
    client_open(&c, A, "/* @crash */ x");

    for (int id = 1; id <= 3; id++) {
        client_ask(&c, id, A, 13);
        cr_expect_eq(code_of(&c, id), -32803);
    }
    cr_expect_eq(number("deaths"), 2, "the third time nothing died");
    json_t *s = status();
    const char *last = json_string_value(json_object_get(s, "last_death"));

    cr_expect(last && strstr(last, "signal 11"), "%s", last ? last : "no death");
    json_decref(s);
    leave(&c);
}

Test(processes, past_three_starts_a_minute_the_client_is_told, .init = begin, .fini = end,
     .timeout = 60)
{
    client c;
    bool told = false;
    json_t *m;

    client_start(&c, stdio_call, RD_FRAMING_HEADER);
    cr_assert(client_initialize(&c));
    client_open(&c, A, "int a = ;");
    for (int i = 1; i <= 2; i++) {
        cr_expect(answers_to(&c, i, "int a = ;", 8));
        kill_daemon(SIGKILL);
    }
    cr_expect(answers_to(&c, 3, "int a = ;", 8));
    kill_daemon(SIGKILL);

    while (!told && (m = client_read(&c, 5000))) {
        const char *method = json_string_value(json_object_get(m, "method"));

        told = method && !strcmp(method, "window/showMessage");
        json_decref(m);
    }
    cr_expect(told);
    client_ask(&c, 4, A, 8);
    cr_expect_eq(code_of(&c, 4), -32803);
    leave(&c);
}

Test(processes, stop_ends_the_daemon_and_the_next_request_starts_it, .init = begin, .fini = end,
     .timeout = 60)
{
    client c;

    client_start(&c, stdio_call, RD_FRAMING_HEADER);
    cr_assert(client_initialize(&c));
    client_open(&c, A, "int a = ;");
    cr_expect(answers_to(&c, 1, "int a = ;", 8));

    cr_expect_eq(stop(), 0);
    cr_expect_not(runs());
    client_insert(&c, A, 2, 0, " ");
    client_sleep_ms(100);
    cr_expect_not(runs(), "a change alone starts nothing");
    cr_expect(answers_to(&c, 2, " int a = ;", 9));
    cr_expect_eq(number("deaths"), 0);
    leave(&c);
}

Test(processes, without_a_daemon_status_and_stop_say_so, .init = begin, .fini = end, .timeout = 60)
{
    cr_expect_not(runs());
    cr_expect_eq(stop(), 0);
}

static void write_config(const char *text)
{
    char name[128];

    snprintf(name, sizeof name, "%s/redraft", world);
    cr_assert(!mkdir(name, 0700));
    snprintf(name, sizeof name, "%s/redraft/config.json", world);
    FILE *file = fopen(name, "we");

    cr_assert_not_null(file);
    fputs(text, file);
    fclose(file);
}

Test(processes, an_idle_daemon_gives_the_model_back_and_then_ends, .init = begin, .fini = end,
     .timeout = 60)
{
    client c;

    write_config("{\"idleUnloadSeconds\":1,\"idleExitSeconds\":3}");
    client_start(&c, stdio_call, RD_FRAMING_HEADER);
    cr_assert(client_initialize(&c));
    client_open(&c, A, "int a = ;");
    cr_expect(answers_to(&c, 1, "int a = ;", 8));
    client_sleep_ms(1500);
    cr_expect(model_is("ready"), "somebody is there");
    leave(&c);
    client_sleep_ms(1700);
    cr_expect(model_is("away"), "asking does not count as being there");
    client_sleep_ms(2000);
    cr_expect_not(runs());
    cr_expect_eq(number("deaths"), 0);
}

/* A file of the runtime folder that ends in `end`; made by a daemon that is gone. */
static void name_in_place(const char *ending, char *out, size_t n)
{
    char folder[96];
    struct dirent *e;

    snprintf(folder, sizeof folder, "%s/redraft", world);
    DIR *dir = opendir(folder);

    cr_assert_not_null(dir);
    *out = 0;
    while ((e = readdir(dir)))
        if (strlen(e->d_name) > strlen(ending) &&
            !strcmp(e->d_name + strlen(e->d_name) - strlen(ending), ending))
            snprintf(out, n, "%s/%s", folder, e->d_name);
    closedir(dir);
    cr_assert(*out, "no %s in %s", ending, folder);
}

Test(processes, a_socket_and_a_lock_left_behind_are_in_nobodys_way, .init = begin, .fini = end,
     .timeout = 60)
{
    char socket_name[512], lock_name[512];
    struct stat st;
    client c;

    client_start(&c, stdio_call, RD_FRAMING_HEADER);
    cr_assert(client_initialize(&c));
    name_in_place(".sock", socket_name, sizeof socket_name);
    cr_assert_eq(stat(socket_name, &st), 0);
    cr_expect_eq(st.st_mode & 0777, 0600);
    kill(c.pid, SIGKILL);
    kill_daemon(SIGKILL);
    client_end(&c);

    cr_expect_eq(stat(socket_name, &st), 0, "it was left behind");
    name_in_place(".lock", lock_name, sizeof lock_name);
    client_start(&c, stdio_call, RD_FRAMING_HEADER);
    cr_expect(client_initialize(&c));
    cr_expect(runs());
    leave(&c);
}

Test(processes, what_answers_in_the_daemons_place_is_not_believed, .init = begin, .fini = end,
     .timeout = 60)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    char name[512], line[256];
    client c;

    client_start(&c, stdio_call, RD_FRAMING_HEADER);
    cr_assert(client_initialize(&c));
    name_in_place(".sock", name, sizeof name);
    leave(&c);
    cr_assert_eq(stop(), 0);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(a.sun_path, sizeof a.sun_path, "%.100s", name);
    cr_assert_eq(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    cr_assert_eq(listen(fd, 8), 0);
    client_start(&c, stdio_call, RD_FRAMING_HEADER);
    int peer = accept(fd, NULL, NULL);

    cr_assert_gt(read(peer, line, sizeof line), 0);
    cr_assert_gt(write(peer, "{\"error\":\"another build\"}\n", 26), 0);
    client_send(&c, "{'jsonrpc':'2.0','id':1,'method':'initialize','params':{}}");
    close(peer);
    peer = accept(fd, NULL, NULL); /* the request makes it look again */
    cr_assert_gt(read(peer, line, sizeof line), 0);
    cr_assert_gt(write(peer, "gibberish\n", 10), 0);
    cr_expect_eq(code_of(&c, 1), -32803);
    close(peer);
    close(fd);
    unlink(name);
    client_end(&c);
}

static void no_daemon_is_had(void)
{
    client c;

    client_start(&c, stdio_call, RD_FRAMING_HEADER);
    client_send(&c, "{'jsonrpc':'2.0','id':1,'method':'initialize','params':{}}");
    cr_expect_eq(code_of(&c, 1), -32803);
    client_end(&c);
}

Test(processes, a_runtime_folder_that_is_not_ours_alone_is_refused, .init = begin, .timeout = 60)
{
    char folder[96], other[96];

    snprintf(folder, sizeof folder, "%s/redraft", world);
    snprintf(other, sizeof other, "%s/other", world);
    cr_assert_eq(mkdir(other, 0700), 0);
    cr_assert_eq(symlink(other, folder), 0);
    no_daemon_is_had();
    cr_assert_eq(unlink(folder), 0);
    cr_assert_eq(mkdir(folder, 0700), 0);
    cr_assert_eq(chmod(folder, 0755), 0);
    no_daemon_is_had();
    if (geteuid() == 0) {
        cr_assert_eq(chmod(folder, 0700), 0);
        cr_assert_eq(chown(folder, 12345, 12345), 0);
        no_daemon_is_had();
    }
    client_remove_world(world);
}

/* Each kind of session with work under way; `part` ends it, and it must be gone within a second with its status. */
static void part_from_all(void (*part)(client *c))
{
    static const struct {
        const char *const *call;
        rd_framing framing;
        int status;
    } cases[] = { { stdio_call, RD_FRAMING_HEADER, 1 },
                  { alone_call, RD_FRAMING_HEADER, 1 },
                  { mcp_call, RD_FRAMING_LINE, 0 },
                  { mcp_alone_call, RD_FRAMING_LINE, 0 } };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        client c;

        client_start(&c, cases[i].call, cases[i].framing);
        if (cases[i].framing == RD_FRAMING_HEADER) {
            cr_assert(client_initialize(&c));
            client_open(&c, A, "/* @ms=60000 */ int a = ;");
            client_ask(&c, 1, A, 24);
        } else {
            client_send(&c,
                        "{'jsonrpc':'2.0','id':1,'method':'tools/call','params':{'name':'infill',"
                        "'arguments':{'prefix':'@ms=60000 ','suffix':''}}}");
        }
        client_sleep_ms(200);
        part(&c);
        cr_expect_eq(client_wait(&c, 1000), cases[i].status, "case %zu", i);
        client_end(&c);
    }
}

static void terminate(client *c)
{
    kill(c->pid, SIGTERM);
}

Test(processes, who_loses_its_client_is_gone_within_a_second, .init = begin, .fini = end,
     .timeout = 60)
{
    part_from_all(client_close_input);
}

Test(processes, who_is_asked_to_end_is_gone_within_a_second, .init = begin, .fini = end,
     .timeout = 60)
{
    part_from_all(terminate);
}

Test(processes, an_editor_that_dies_with_its_pipes_open_is_noticed, .init = begin, .fini = end,
     .timeout = 60)
{
    const char *const *calls[] = { stdio_call, alone_call };
    client c[2];
    pid_t editor = fork();

    if (editor == 0) {
        for (;;) pause();
    }
    for (int i = 0; i < 2; i++) {
        client_start(&c[i], calls[i], RD_FRAMING_HEADER);
        client_send(&c[i],
                    "{'jsonrpc':'2.0','id':1,'method':'initialize','params':{'processId':%d,"
                    "'capabilities':{}}}",
                    (int)editor);
        json_decref(client_answer(&c[i], 1, 5000));
    }
    client_sleep_ms(5500);
    kill(editor, SIGKILL);
    waitpid(editor, NULL, 0);
    for (int i = 0; i < 2; i++) {
        cr_expect_neq(client_wait(&c[i], 6500), -1, "case %d", i);
        client_end(&c[i]);
    }
}

/* Sends without reading until the pipe has taken nothing for a second; the most that went in. */
static size_t stuff(client *c, size_t most)
{
    rd_buf frame = { 0 };
    char text[256];
    size_t total = 0;
    int quiet = 0;

    fcntl(c->to, F_SETFL, O_NONBLOCK);
    snprintf(text, sizeof text, "{\"jsonrpc\":\"2.0\",\"id\":\"%0100d\",\"method\":\"nothing\"}",
             7);
    rd_wire_write(&frame, RD_FRAMING_HEADER, text, strlen(text));
    for (size_t at = 0; total < most && quiet < 1000;) {
        ssize_t n = write(c->to, frame.data + at, frame.len - at);

        if (n < 0) {
            quiet++;
            client_sleep_ms(1);
            continue;
        }
        quiet = 0;
        total += (size_t)n;
        at = (at + (size_t)n) % frame.len;
    }
    rd_buf_clear(&frame);
    return total;
}

Test(processes, a_client_that_never_reads_costs_little, .init = begin, .fini = end, .timeout = 120)
{
    client c, other;

    client_start(&c, stdio_call, RD_FRAMING_HEADER);
    cr_assert(client_initialize(&c));

    cr_expect_lt(stuff(&c, (size_t)256 << 20), (size_t)16 << 20, "it is not read any more");
    cr_expect_lt(number("memory_mb"), 100);
    client_start(&other, stdio_call, RD_FRAMING_HEADER);
    cr_expect(client_initialize(&other), "others are served");
    leave(&other);
    close(c.from);
    c.from = -1;
    client_end(&c);
}

/* A connection to the daemon that has said nothing yet. */
static int raw_connection(void)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char name[512];

    name_in_place(".sock", name, sizeof name);
    snprintf(a.sun_path, sizeof a.sun_path, "%.100s", name);
    cr_assert_eq(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    return fd;
}

Test(processes, connections_leave_no_descriptor_or_thread_behind, .init = begin, .fini = end,
     .timeout = 120)
{
    client c;

    client_start(&c, stdio_call, RD_FRAMING_HEADER);
    cr_assert(client_initialize(&c));
    int descriptors = number("descriptors"), threads = number("threads");

    for (int i = 0; i < 1000; i++) {
        int fd = raw_connection();

        if (i % 2) cr_assert_gt(write(fd, "half a hello", 12), 0);
        close(fd);
    }
    for (int i = 0; i < 20; i++) {
        client other;

        client_start(&other, stdio_call, RD_FRAMING_HEADER);
        cr_assert(client_initialize(&other));
        leave(&other);
    }

    cr_expect_eq(number("descriptors"), descriptors);
    cr_expect_eq(number("threads"), threads);
    leave(&c);
}

Test(processes, what_is_no_hello_is_hung_up_on, .init = begin, .fini = end, .timeout = 60)
{
    static const char *const lines[] = {
        "\n",
        "{}\n",
        "[]\n",
        "GET / HTTP/1.1\r\n",
        "{\"hello\":\"front\"}\n",
        "{\"hello\":\"x\",\"build\":\"y\"}\n",
        "{\"hello\":\"front\",\"build\":\"y\",\"roots\":[\"a\"]}\n"
    };
    static char flood[70000];
    char byte;
    client c;

    client_start(&c, stdio_call, RD_FRAMING_HEADER);
    cr_assert(client_initialize(&c));
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        int fd = raw_connection();

        cr_assert_gt(write(fd, lines[i], strlen(lines[i])), 0);
        cr_expect_leq(read(fd, &byte, 1), 0, "%s", lines[i]);
        close(fd);
    }
    int fd = raw_connection();

    memset(flood, 'x', sizeof flood);
    cr_assert_gt(send(fd, flood, sizeof flood, MSG_NOSIGNAL), 0);
    cr_expect_leq(recv(fd, &byte, 1, 0), 0, "a line that does not end");
    close(fd);
    cr_expect_eq(number("clients"), 1);
    cr_expect_eq(number("deaths"), 0);
    leave(&c);
}

Test(processes, who_wants_all_forgotten_is_answered_whatever_else_it_says, .init = begin,
     .fini = end, .timeout = 60)
{
    static const char line[] = "{\"hello\":\"forget\",\"build\":\"any\"}\nand more";
    char answer[64] = "";
    client c;

    client_start(&c, stdio_call, RD_FRAMING_HEADER);
    cr_assert(client_initialize(&c));
    int fd = raw_connection(), gone = raw_connection();

    cr_assert_gt(write(gone, line, sizeof line - 1), 0);
    close(gone);
    cr_assert_gt(write(fd, line, sizeof line - 1), 0);
    cr_assert_gt(read(fd, answer, sizeof answer - 1), 0);
    cr_expect_str_eq(answer, "{\"forgotten\":true}\n");
    close(fd);
    cr_expect_eq(number("deaths"), 0);
    leave(&c);
}

Test(processes, a_signal_ends_the_daemon_in_order, .init = begin, .fini = end, .timeout = 60)
{
    char name[512];
    client c;

    client_start(&c, stdio_call, RD_FRAMING_HEADER);
    cr_assert(client_initialize(&c));
    name_in_place(".sock", name, sizeof name);
    kill_daemon(SIGTERM);

    cr_expect_neq(access(name, F_OK), 0, "the socket is gone");
    client_open(&c, A, "int a = ;");
    cr_expect(answers_to(&c, 1, "int a = ;", 8));
    cr_expect_eq(number("deaths"), 0);
    leave(&c);
}

Test(processes, an_agent_is_answered_after_a_death, .init = begin, .fini = end, .timeout = 60)
{
    client c;

    client_start(&c, mcp_call, RD_FRAMING_LINE);
    client_send(&c, "{'jsonrpc':'2.0','id':0,'method':'initialize','params':{'protocolVersion':"
                    "'2025-11-25','capabilities':{},'clientInfo':{'name':'t','version':'1'}}}");
    json_decref(client_answer(&c, 0, 5000));
    client_send(&c, "{'jsonrpc':'2.0','method':'notifications/initialized'}");
    client_send(&c, "{'jsonrpc':'2.0','id':1,'method':'tools/call','params':{'name':'infill',"
                    "'arguments':{'prefix':'@ms=60000 ','suffix':''}}}");
    client_sleep_ms(200);
    kill_daemon(SIGKILL);

    cr_expect_eq(code_of(&c, 1), -32603);
    client_send(&c, "{'jsonrpc':'2.0','id':2,'method':'tools/call','params':{'name':'infill',"
                    "'arguments':{'prefix':'x ','suffix':''}}}");
    cr_expect_eq(code_of(&c, 2), 0);
    cr_expect_eq(client_end(&c), 0);
}
