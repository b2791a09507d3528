/* process.c - serve, stdio and mcp, status, stop. */
#include "lsp/process.h"

#include "core/base/log.h"
#include "core/base/memory.h"
#include "lsp/daemon.h"
#include "lsp/front.h"
#include "lsp/link.h"
#include "lsp/place.h"
#include "lsp/pump.h"
#include "lsp/record.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

enum { LOCK_WAIT_MS = 2500, GONE_MS = 10000, DRAIN_MS = 300 };

extern char **environ;

/* The libraries' small allocations cannot fail either: a message of which a piece is missing would be a wrong one. */
static void *take_memory(size_t bytes)
{
    return rd_resize(NULL, bytes, 1);
}

static void *take_zeroed(size_t count, size_t bytes)
{
    return rd_alloc_array(count, bytes);
}

static void *take_more(void *old, size_t bytes)
{
    return rd_resize(old, bytes, 1);
}

/* Text of the user's is in our memory: no other process looks into it and no core file keeps it. */
static void harden(void)
{
    json_set_alloc_funcs(take_memory, free);
    uv_replace_allocator(take_memory, take_more, take_zeroed, free);
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
    signal(SIGPIPE, SIG_IGN);
    umask(077);
}

/* ---- the daemon ---- */

static rd_config *read_config(void)
{
    rd_buf complaints = { 0 };
    rd_config *config = rd_config_new(NULL, &complaints);

    for (char *line = complaints.data, *end; line && *line; line = end) {
        end = line + strcspn(line, "\n");
        rd_log(RD_LOG_WARN, "settings: %.*s", (int)(end - line), line);
        end += *end == '\n';
    }
    rd_buf_clear(&complaints);
    return config;
}

static rd_log_level level_of(const rd_config *config)
{
    static const char *const names[] = { "error", "warn", "info", "debug" };

    for (int i = 0; config->log && i < 4; i++)
        if (!strcmp(config->log, names[i])) return (rd_log_level)i;
    return RD_LOG_INFO;
}

/* Whoever starts us waits for a line; from then on nothing of theirs is kept open. */
static rd_status go_to_background(rd_error *err)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (null < 0) return rd_fail(err, RD_IO, "/dev/null: %s", strerror(errno));
    if (write(STDOUT_FILENO, "ready\n", 6) != 6)
        rd_log(RD_LOG_INFO, "nobody waits for this daemon any more");
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) dup2(null, fd);
    close(null);
    return RD_OK;
}

static void hide(void *place)
{
    rd_place_hide(place);
}

/* Nothing of the folder or the project that it was started in stays. */
static rd_status settle(char ***environment, rd_error *err)
{
    *environment = rd_place_environment();
    environ = *environment;
    prctl(PR_SET_NAME, "redraft", 0, 0, 0);
    return chdir("/") ? rd_fail(err, RD_IO, "/: %s", strerror(errno)) : RD_OK;
}

static rd_status serve(const rd_process *p, rd_place *place, bool background, int *status,
                       rd_error *err)
{
    int listener;
    long died;
    rd_status s = rd_place_listen(place, LOCK_WAIT_MS, &listener, &died, err);

    if (s) return s;
    if (died) rd_record_lost(died);
    rd_config *config = read_config();

    if (background) {
        if (!rd_record_log(level_of(config))) rd_log_to(RD_LOG_ERROR, NULL, NULL);
        s = go_to_background(err);
    } else {
        rd_log_to(level_of(config), NULL, NULL);
        rd_log(RD_LOG_INFO, "listening at %s", rd_place_socket(place));
    }
    if (s)
        close(listener);
    else
        *status = rd_daemon_run(&(rd_daemon_options){ .runner = p->runner,
                                                      .config = config,
                                                      .build = rd_place_build(place),
                                                      .socket = rd_place_socket(place),
                                                      .listener = listener,
                                                      .stopping = hide,
                                                      .user = place,
                                                      .peer = -1 });
    rd_config_free(config);
    rd_place_leave(place);
    return s;
}

rd_status rd_process_serve(const rd_process *p, bool background, int *status, rd_error *err)
{
    char **environment, **before = environ;
    rd_place *place = NULL;

    harden();
    rd_status s = settle(&environment, err);

    rd_record_open();
    rd_record_crashes(NULL, NULL);
    if (!s) s = rd_place_open(&place, err);
    if (!s) s = serve(p, place, background, status, err);
    rd_place_close(place);
    rd_record_close();
    environ = before;
    free(environment);
    return s;
}

/* ---- one client ---- */

static rd_status host_alone(const rd_process *p, const rd_session *session, int out, int *status,
                            rd_error *err)
{
    rd_pump *pump;
    int socket;
    rd_status s = rd_pump_open(STDIN_FILENO, out, &pump, &socket, err);

    if (s) return s;
    rd_record_open();
    rd_record_crashes(NULL, NULL);
    rd_config *config = read_config();

    if (config->log) rd_log_to(level_of(config), NULL, NULL);
    *status = rd_daemon_run(&(rd_daemon_options){ .runner = p->runner,
                                                  .config = config,
                                                  .listener = -1,
                                                  .peer = socket,
                                                  .protocol = session->protocol,
                                                  .roots = session->roots,
                                                  .n_roots = session->n_roots,
                                                  .client_pid = session->client_pid });
    rd_pump_close(pump, DRAIN_MS);
    rd_config_free(config);
    rd_record_close();
    return RD_OK;
}

rd_status rd_process_session(const rd_process *p, const rd_session *session, int *status,
                             rd_error *err)
{
    int out;

    harden();
    rd_status s = rd_pump_take_stdout(&out, err);

    if (s) return s;
    if (session->alone)
        s = host_alone(p, session, out, status, err);
    else
        *status = rd_front_run(&(rd_front_options){ .protocol = session->protocol,
                                                    .in = STDIN_FILENO,
                                                    .out = out,
                                                    .starts = p->starts,
                                                    .roots = session->roots,
                                                    .n_roots = session->n_roots,
                                                    .client_pid = session->client_pid });
    close(out);
    return s;
}

/* ---- asking ---- */

/* The daemon's line to a question; *answer stays empty where there is no daemon. */
static rd_status ask(rd_hello_kind kind, rd_buf *answer, rd_error *err)
{
    int fd;
    rd_status s = rd_link_open((rd_hello){ .kind = kind }, 0, &fd, answer, err);

    if (s == RD_NOT_FOUND) return RD_OK;
    if (!s) close(fd);
    return s;
}

static void print_cache(const json_t *c)
{
    const char *why = json_string_value(json_object_get(c, "why"));
    const char *dir = json_string_value(json_object_get(c, "dir"));

    printf("cache    %s%s%s%s%s, %.1f MB\n", json_string_value(json_object_get(c, "state")),
           why ? ": " : "", why ? why : "", dir ? ", " : "", dir ? dir : "",
           json_number_value(json_object_get(c, "bytes")) / (1 << 20));
    printf("         blocks: %lld in memory, %lld from the file, %lld computed; %lld answers; "
           "%.1f s saved\n",
           json_integer_value(json_object_get(c, "found")),
           json_integer_value(json_object_get(c, "loaded")),
           json_integer_value(json_object_get(c, "computed")),
           json_integer_value(json_object_get(c, "answers")),
           json_number_value(json_object_get(c, "saved_ms")) / 1000);
    printf("pool     %.1f of %.1f MB\n",
           json_number_value(json_object_get(c, "pool_bytes")) / (1 << 20),
           json_number_value(json_object_get(c, "pool_limit")) / (1 << 20));
}

static void print_status(const json_t *s)
{
    const json_t *model = json_object_get(s, "model");

    printf("redraft %s, process %d, up %.0f s\n", json_string_value(json_object_get(s, "version")),
           (int)json_integer_value(json_object_get(s, "pid")),
           json_number_value(json_object_get(s, "uptime_s")));
    printf("model    %s, %s\n", json_string_value(json_object_get(model, "state")),
           json_string_value(json_object_get(model, "about")));
    if (json_object_get(model, "fell_back"))
        printf("         %s\n", json_string_value(json_object_get(model, "fell_back")));
    printf("clients  %d, jobs %d\n", (int)json_integer_value(json_object_get(s, "clients")),
           (int)json_integer_value(json_object_get(s, "jobs")));
    printf("memory   %.1f MB, %d threads, %d descriptors\n",
           json_number_value(json_object_get(s, "memory_mb")),
           (int)json_integer_value(json_object_get(s, "threads")),
           (int)json_integer_value(json_object_get(s, "descriptors")));
    print_cache(json_object_get(s, "cache"));
    printf("deaths   %d\n", (int)json_integer_value(json_object_get(s, "deaths")));
    if (json_object_get(s, "last_death"))
        printf("         %s\n", json_string_value(json_object_get(s, "last_death")));
}

rd_status rd_process_status(bool json, rd_error *err)
{
    rd_buf answer = { 0 };
    rd_status s = ask(RD_HELLO_STATUS, &answer, err);

    if (s) return s;
    if (json) {
        printf("%s\n", answer.len ? answer.data : "{\"running\":false}");
    } else if (!answer.len) {
        printf("no daemon runs\n");
    } else {
        json_t *status = json_loadb(answer.data, answer.len, 0, NULL);

        print_status(status);
        json_decref(status);
    }
    rd_buf_clear(&answer);
    return RD_OK;
}

rd_status rd_process_stop(rd_error *err)
{
    rd_buf answer = { 0 };
    rd_place *place;
    rd_status s = ask(RD_HELLO_STOP, &answer, err);
    bool found = answer.len > 0;

    rd_buf_clear(&answer);
    if (s) return s;
    if (!found) {
        printf("no daemon runs\n");
        return RD_OK;
    }
    s = rd_place_open(&place, err);
    if (s) return s;
    bool gone = rd_place_wait_gone(place, GONE_MS);

    rd_place_close(place);
    if (!gone) return rd_fail(err, RD_IO, "the daemon has not ended within %d s", GONE_MS / 1000);
    printf("stopped\n");
    return RD_OK;
}
