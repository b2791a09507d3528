/* storm.c - editors that type, ask and cancel at random, while the daemon is killed at random; nothing may get lost.
 *
 *   storm PROGRAM [--clients 4] [--seconds 5] [--rate 200] [--asks 40] [--kill-ms 0] [--seed 1]
 *
 * `rate` edits and `asks` requests a second, of all clients together; every fifth request is cancelled; the daemon gets
 * signal 9 every `kill-ms` on average (0: never). Each request must get exactly one answer, each answer with text must be
 * about the text as it was when it was asked for (the runner echoes its hash), and in the end the daemon's documents must be
 * the clients'. Without kills the daemon's memory, descriptors and threads are looked at too.
 */
#include "core/base/clock.h"
#include "core/base/memory.h"
#include "core/base/random.h"
#include "tests/e2e/client.h"
#include "tests/fake/echo.h"

#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CLIENTS_MOST = 32, TEXT_MOST = 1200, ASKS_MOST = 1 << 20, WAIT_MS = 20000 };

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MEMORY_IS_OTHERS true /* a sanitizer keeps what was freed */
#else
#define MEMORY_IS_OTHERS false
#endif

typedef struct asked {
    char want[RD_ECHO_BYTES];
    unsigned char answers;
} asked;

typedef struct editor {
    const char *program;
    int number, seconds;
    double edit_ms, ask_ms;
    rd_random random;
    pthread_t thread;
    client c;
    char text[TEXT_MOST + 64];
    size_t n;
    int version, asks, answered, edits, errors;
    asked *asked;
    double failed_ms;               /* when an answer was that the engine is gone; 0: it is not */
    double recovery_ms, noticed_ms; /* the longest of all */
    bool wrong;
} editor;

static _Atomic double killed_ms;
static char world[64];

static int below(editor *e, int n)
{
    return (int)rd_random_below(&e->random, (uint32_t)n);
}

static void wrong(editor *e, const char *what, int id)
{
    fprintf(stderr, "client %d: %s (request %d)\n", e->number, what, id);
    e->wrong = true;
}

/* ---- the text ---- */

static json_t *position(const editor *e, size_t at)
{
    int line = 0, column = 0;

    for (size_t i = 0; i < at; i++, column++)
        if (e->text[i] == '\n') {
            line++;
            column = -1;
        }
    return json_pack("{s:i, s:i}", "line", line, "character", column);
}

static json_t *uri(const editor *e)
{
    char text[32];

    snprintf(text, sizeof text, "file:///%d.c", e->number);
    return json_string(text);
}

/* Replace a piece by another, here and there. */
static void edit(editor *e)
{
    static const char *const pieces[] = { "x", "int ", "\n", "    return a;\n", "(", ")", "", "" };
    size_t at = (size_t)below(e, (int)e->n + 1), most = e->n - at < 12 ? e->n - at : 12;
    size_t gone = e->n > TEXT_MOST - 32 ? most : (size_t)below(e, (int)most + 1) / 3;
    const char *piece = pieces[below(e, 8)];
    size_t n = strlen(piece);
    json_t *range =
        json_pack("{s:o, s:o}", "start", position(e, at), "end", position(e, at + gone));

    memmove(e->text + at + n, e->text + at + gone, e->n - at - gone);
    memcpy(e->text + at, piece, n);
    e->n = e->n - gone + n;
    e->edits++;
    client_send_json(&e->c, json_pack("{s:s, s:s, s:{s:{s:o, s:i}, s:[{s:o, s:s}]}}", "jsonrpc",
                                      "2.0", "method", "textDocument/didChange", "params",
                                      "textDocument", "uri", uri(e), "version", ++e->version,
                                      "contentChanges", "range", range, "text", piece));
}

/* ---- requests ---- */

static void ask(editor *e)
{
    size_t at = (size_t)below(e, (int)e->n + 1);
    int id = ++e->asks;

    if (id >= ASKS_MOST) abort();
    rd_echo_answer(e->text, at, e->text + at, e->n - at, e->asked[id].want);
    client_send_json(&e->c, json_pack("{s:s, s:i, s:s, s:{s:{s:o}, s:o, s:{s:i}}}", "jsonrpc",
                                      "2.0", "id", id, "method", "textDocument/inlineCompletion",
                                      "params", "textDocument", "uri", uri(e), "position",
                                      position(e, at), "context", "triggerKind", 1));
    if (below(e, 5) == 0)
        client_send(&e->c, "{'jsonrpc':'2.0','method':'$/cancelRequest','params':{'id':%d}}",
                    below(e, 2) ? id
                    : id > 3    ? id - 3
                                : id);
}

static bool is_gone(const json_t *m)
{
    return json_integer_value(json_object_get(json_object_get(m, "error"), "code")) == -32803;
}

/* How long a death was noticed and felt. */
static void time_death(editor *e, const json_t *m)
{
    double now = rd_now_ms(), killed = killed_ms;

    if (is_gone(m) && !e->failed_ms) {
        e->failed_ms = now;
        if (now - killed > e->noticed_ms && now - killed < 1000) e->noticed_ms = now - killed;
        ask(e);
    } else if (client_item(m) && e->failed_ms) {
        if (now - e->failed_ms > e->recovery_ms) e->recovery_ms = now - e->failed_ms;
        e->failed_ms = 0;
    }
}

static void take(editor *e, json_t *m)
{
    const json_t *value = json_object_get(m, "id");
    int id = (int)json_integer_value(value);
    const char *item = client_item(m);

    if (json_is_integer(value) && id > 0 && id <= e->asks) {
        if (e->asked[id].answers++) wrong(e, "answered twice", id);
        if (item && strcmp(item, e->asked[id].want) != 0)
            wrong(e, "answered from another text", id);
        e->answered++;
        e->errors += json_object_get(m, "error") != NULL;
        time_death(e, m);
    }
    json_decref(m);
}

/* ---- one client ---- */

static void type(editor *e)
{
    double end = rd_now_ms() + e->seconds * 1000.0, edit_at = 0, ask_at = 0;

    while (rd_now_ms() < end) {
        double now = rd_now_ms(), next = edit_at < ask_at ? edit_at : ask_at;
        json_t *m = client_read(&e->c, next > now ? (int)(next - now) + 1 : 0);

        if (m) take(e, m);
        now = rd_now_ms();
        if (now >= edit_at) {
            edit(e);
            edit_at = now + e->edit_ms;
        }
        if (now >= ask_at) {
            ask(e);
            ask_at = now + e->ask_ms;
        }
    }
}

/* The daemon's text is ours: asked until there is an answer with text. */
static void compare(editor *e)
{
    double end = rd_now_ms() + WAIT_MS;
    json_t *m;
    int id = 0;

    while (e->answered < e->asks && rd_now_ms() < end)
        if ((m = client_read(&e->c, 100))) take(e, m);
    for (int i = 1; i <= e->asks; i++)
        if (e->asked[i].answers != 1)
            wrong(e, e->asked[i].answers ? "answered twice" : "not answered", i);
    for (bool same = false; !same && !e->wrong;) {
        id = e->asks + 1;
        ask(e);
        m = client_answer(&e->c, id, WAIT_MS);
        same = client_item(m) != NULL;
        if (!m || rd_now_ms() > end) wrong(e, "no answer at the end", id);
        if (m) take(e, m);
    }
}

static void *run(void *arg)
{
    editor *e = arg;
    const char *call[] = { e->program, "stdio", NULL };

    client_start(&e->c, call, RD_FRAMING_HEADER);
    if (!client_initialize(&e->c)) wrong(e, "initialize failed", 0);
    client_send_json(&e->c, json_pack("{s:s, s:s, s:{s:{s:o, s:s, s:i, s:s}}}", "jsonrpc", "2.0",
                                      "method", "textDocument/didOpen", "params", "textDocument",
                                      "uri", uri(e), "languageId", "c", "version", 1, "text", ""));
    type(e);
    compare(e);
    if (e->c.garbage) wrong(e, "stdout held what is no message", 0);
    return NULL;
}

/* ---- the daemon ---- */

/* The daemon's lock names it. */
static pid_t daemon_pid(void)
{
    char name[512] = "", folder[96];
    struct dirent *entry;
    long pid = 0;

    snprintf(folder, sizeof folder, "%s/redraft", world);
    DIR *dir = opendir(folder);

    while (dir && (entry = readdir(dir)))
        if (strstr(entry->d_name, ".lock") && strncmp(entry->d_name, "start", 5) != 0)
            snprintf(name, sizeof name, "%s/%s", folder, entry->d_name);
    if (dir) closedir(dir);
    FILE *file = *name ? fopen(name, "re") : NULL;
    char line[32];

    if (file && fgets(line, sizeof line, file)) pid = strtol(line, NULL, 10);
    if (file) fclose(file);
    return (pid_t)pid;
}

static int kill_at_random(rd_random *random, int every_ms, int seconds)
{
    double end = rd_now_ms() + seconds * 1000.0;
    pid_t last = 0;
    int kills = 0;

    while (every_ms && rd_now_ms() < end) {
        client_sleep_ms((int)rd_random_below(random, 2 * (uint32_t)every_ms) + 1);
        pid_t pid = daemon_pid();

        if (pid <= 1 || pid == last) continue;
        killed_ms = rd_now_ms();
        if (kill(pid, SIGKILL)) continue;
        last = pid;
        kills++;
    }
    return kills;
}

/* One whose messages and exit status are seen: a sanitizer has its say. */
static void start_daemon(client *daemon, const char *program)
{
    const char *call[] = { program, "serve", NULL };

    client_start(daemon, call, RD_FRAMING_LINE);
    for (int i = 0; i < 1000 && daemon_pid() <= 1; i++) client_sleep_ms(10);
    client_sleep_ms(50);
}

typedef struct figures {
    double memory_mb;
    int descriptors, threads;
} figures;

static figures look(const char *program)
{
    const char *call[] = { program, "status", "--json", NULL };
    rd_buf out = { 0 };

    client_run(call, &out);
    json_t *s = json_loadb(out.data ? out.data : "", out.len, 0, NULL);
    figures f = { json_number_value(json_object_get(s, "memory_mb")),
                  (int)json_integer_value(json_object_get(s, "descriptors")),
                  (int)json_integer_value(json_object_get(s, "threads")) };

    json_decref(s);
    rd_buf_clear(&out);
    return f;
}

static bool is_steady(figures half, figures end, int seconds)
{
    printf("daemon half way: %.1f MB, %d descriptors, %d threads; at the end: %.1f MB, %d, %d\n",
           half.memory_mb, half.descriptors, half.threads, end.memory_mb, end.descriptors,
           end.threads);
    return half.descriptors == end.descriptors && half.threads == end.threads && half.threads > 0 &&
           (MEMORY_IS_OTHERS || end.memory_mb < half.memory_mb + 2 + seconds / 60.0);
}

static int option(int argc, char **argv, const char *name, int value)
{
    for (int i = 2; i + 1 < argc; i++)
        if (!strcmp(argv[i], name)) value = (int)strtol(argv[i + 1], NULL, 10);
    return value;
}

static bool report(editor *editors, int n, int kills)
{
    int asks = 0, edits = 0, errors = 0;
    double noticed = 0, recovery = 0;
    bool failed = false;

    for (int i = 0; i < n; i++) {
        editor *e = &editors[i];

        asks += e->asks;
        edits += e->edits;
        errors += e->errors;
        if (e->noticed_ms > noticed) noticed = e->noticed_ms;
        if (e->recovery_ms > recovery) recovery = e->recovery_ms;
        failed = failed || e->wrong;
    }
    printf("%d clients: %d edits, %d requests (%d of them errors or cancelled), %d kills; noticed "
           "in %.0f "
           "ms, answered again in %.0f ms at most\n",
           n, edits, asks, errors, kills, noticed, recovery);
    return failed;
}

int main(int argc, char **argv)
{
    int n = option(argc, argv, "--clients", 4), seconds = option(argc, argv, "--seconds", 5);
    int rate = option(argc, argv, "--rate", 200), asks = option(argc, argv, "--asks", 40);
    int kill_ms = option(argc, argv, "--kill-ms", 0), seed = option(argc, argv, "--seed", 1);
    rd_random random = rd_random_seed((uint64_t)seed);
    client daemon;

    if (argc < 2 || n < 1 || n > CLIENTS_MOST) return 2;
    client_own_world(world);
    setenv("RD_STARTS", "1000000", 1);
    editor *editors = rd_alloc_array((size_t)n, sizeof *editors);

    if (!kill_ms) start_daemon(&daemon, argv[1]);
    for (int i = 0; i < n; i++) {
        editor *e = &editors[i];

        *e = (editor){ .program = argv[1], .number = i, .seconds = seconds, .version = 1 };
        e->edit_ms = 1000.0 * n / rate;
        e->ask_ms = 1000.0 * n / asks;
        e->asked = rd_alloc_array(ASKS_MOST, sizeof *e->asked);
        e->random = rd_random_seed((uint64_t)(seed * 1000 + i));
        pthread_create(&e->thread, NULL, run, e);
    }
    figures before = { 0 };

    if (!kill_ms) client_sleep_ms(seconds * 500);
    if (!kill_ms) before = look(argv[1]);
    int kills = kill_at_random(&random, kill_ms, seconds);

    for (int i = 0; i < n; i++) pthread_join(editors[i].thread, NULL);
    bool failed = report(editors, n, kills);

    if (!kill_ms) failed = !is_steady(before, look(argv[1]), seconds) || failed;
    for (int i = 0; i < n; i++) {
        failed = client_end(&editors[i].c) < 0 || failed;
        free(editors[i].asked);
    }
    free(editors);
    const char *stop[] = { argv[1], "stop", NULL };
    rd_buf out = { 0 };

    failed = client_run(stop, &out) != 0 || failed;
    if (!kill_ms) failed = client_end(&daemon) != 0 || failed;
    rd_buf_clear(&out);
    client_remove_world(world);
    printf(failed ? "FAILED\n" : "nothing was lost\n");
    return failed;
}
