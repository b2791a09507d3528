/* daemon.c - accepts, starts and ends: the loop around the connections (carrier.c) and the worker. */
#include "lsp/daemon.h"

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/memory.h"
#include "lsp/carrier.h"
#include "lsp/place.h"
#include "lsp/record.h"
#include "lsp/repair.h"
#include "lsp/worker.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WATCH_MS = 5000, ACCEPT_PAUSE_MS = 100 };

typedef struct rd_daemon {
    const rd_daemon_options *o;
    rd_host host;
    rd_keeper *keeper; /* NULL: nothing is kept beyond memory */
    rd_worker *worker;
    rd_carriers *carriers;
    rd_model_state model; /* as the connections know it */
    uv_loop_t loop;
    uv_async_t wake;
    uv_poll_t listener;
    uv_timer_t accept_again, unload, leave, watch;
    uv_signal_t signals[3];
    double began_ms;
    bool busy, stopping; /* busy: somebody is connected */
} rd_daemon;

/* ---- what a connection may ask ---- */

static double now_ms(void *self)
{
    (void)self;
    return rd_now_ms();
}

static void wake_at(void *self, rd_conn *c, double at_ms)
{
    rd_carriers_wake_at(((rd_daemon *)self)->carriers, rd_conn_number(c), at_ms);
}

static void submit(void *self, rd_job *job)
{
    rd_worker_push(((rd_daemon *)self)->worker, job);
}

static void cancel(void *self, rd_job *job)
{
    rd_worker_cancel(((rd_daemon *)self)->worker, job);
}

static void forget(void *self, const char *source)
{
    rd_worker_forget(((rd_daemon *)self)->worker, source);
}

static void model(void *self, rd_model_state *out)
{
    rd_worker_state(((rd_daemon *)self)->worker, out);
}

/* The number behind `name` in /proc/self/status: "VmRSS", "Threads". */
static long proc_number(const char *name)
{
    FILE *file = fopen("/proc/self/status", "re");
    size_t n = strlen(name);
    char line[256];
    long value = 0;

    while (file && fgets(line, sizeof line, file))
        if (!strncmp(line, name, n) && line[n] == ':') value = strtol(line + n + 1, NULL, 10);
    if (file) fclose(file);
    return value;
}

static int descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int n = -3; /* ".", ".." and the folder itself */

    while (dir && readdir(dir)) n++;
    if (dir) closedir(dir);
    return n;
}

static json_t *status_model(rd_daemon *d)
{
    static const char *const phases[] = { "away", "loading", "ready", "failed" };
    rd_model_state s = { 0 };

    rd_worker_state(d->worker, &s);
    json_t *j = json_pack("{s:s, s:f, s:f, s:b}", "state", phases[s.phase], "step_ms", s.step_ms,
                          "gate", (double)s.gate, "follows_instructions", s.follows_instructions);

    json_object_set_new(j, "about", rd_repair_string(s.about, strlen(s.about)));
    if (*s.fell_back)
        json_object_set_new(j, "fell_back", rd_repair_string(s.fell_back, strlen(s.fell_back)));
    return j;
}

/* Of all files in the folder. */
static int64_t folder_bytes(const char *path)
{
    DIR *dir = opendir(path);
    struct stat st;
    int64_t sum = 0;

    for (struct dirent *e; dir && (e = readdir(dir));)
        if (!fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) && S_ISREG(st.st_mode))
            sum += st.st_size;
    if (dir) closedir(dir);
    return sum;
}

static json_t *status_cache(rd_daemon *d)
{
    rd_keeper_stats k = { .why = "cacheMegabytes is 0" };
    rd_engine_stats e;

    if (d->keeper) rd_keeper_stat(d->keeper, &k);
    if (!d->o->config->client.cache) snprintf(k.why, sizeof k.why, "the setting cache is off");
    rd_worker_stat(d->worker, &e);
    json_t *s = json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:I, s:I}", "state",
                          *k.why ? "off" : "on", "bytes", (json_int_t)folder_bytes(k.dir), "found",
                          (json_int_t)e.found, "loaded", (json_int_t)e.loaded, "computed",
                          (json_int_t)e.computed, "answers", (json_int_t)k.answers, "written",
                          (json_int_t)k.written, "saved_ms", k.saved_ms, "pool_bytes",
                          (json_int_t)e.used_bytes, "pool_limit", (json_int_t)e.pool_bytes);

    if (*k.why) json_object_set_new(s, "why", rd_repair_string(k.why, strlen(k.why)));
    if (*k.dir) json_object_set_new(s, "dir", rd_repair_string(k.dir, strlen(k.dir)));
    return s;
}

static json_t *status(void *self)
{
    rd_daemon *d = self;
    char last[256];
    int deaths = rd_record_deaths(last, sizeof last);
    json_t *s =
        json_pack("{s:b, s:s, s:i, s:f, s:i, s:i, s:o}", "running", 1, "version", RD_VERSION, "pid",
                  (int)getpid(), "uptime_s", (rd_now_ms() - d->began_ms) / 1000, "clients",
                  rd_carriers_clients(d->carriers), "jobs", rd_worker_jobs(d->worker), "model",
                  status_model(d));

    json_object_set_new(s, "memory_mb", json_real((double)proc_number("VmRSS") / 1024));
    json_object_set_new(s, "threads", json_integer(proc_number("Threads")));
    json_object_set_new(s, "descriptors", json_integer(descriptors()));
    json_object_set_new(s, "deaths", json_integer(deaths));
    if (deaths) json_object_set_new(s, "last_death", rd_repair_string(last, strlen(last)));
    json_object_set_new(s, "cache", status_cache(d));
    if (d->o->socket) json_object_set_new(s, "socket", json_string(d->o->socket));
    return s;
}

/* ---- events of the inference thread ---- */

static bool same_model(const rd_model_state *a, const rd_model_state *b)
{
    return a->phase == b->phase && a->gate == b->gate && !strcmp(a->about, b->about) &&
           !strcmp(a->fell_back, b->fell_back) &&
           a->follows_instructions == b->follows_instructions;
}

static void on_wake(uv_async_t *handle)
{
    rd_daemon *d = handle->data;
    rd_model_state now = { 0 };
    rd_event *ev;

    while ((ev = rd_worker_take(d->worker))) {
        rd_carriers_event(d->carriers, ev);
        if (ev->done) rd_job_free(ev->job);
        rd_event_free(ev);
    }
    rd_carriers_forgot(d->carriers);
    rd_worker_state(d->worker, &now);
    if (same_model(&now, &d->model)) return;
    d->model = now;
    rd_carriers_model_changed(d->carriers);
}

static void wake(void *user)
{
    uv_async_send(&((rd_daemon *)user)->wake);
}

/* ---- the end ---- */

static void close_handle(uv_handle_t *handle)
{
    if (!uv_is_closing(handle)) uv_close(handle, NULL);
}

/* Everything that keeps the loop alive but the connections, which end by themselves, and `wake`. */
static void stop(rd_daemon *d)
{
    if (d->stopping) return;
    d->stopping = true;
    if (d->o->listener >= 0) close_handle((uv_handle_t *)&d->listener);
    close_handle((uv_handle_t *)&d->accept_again);
    close_handle((uv_handle_t *)&d->unload);
    close_handle((uv_handle_t *)&d->leave);
    close_handle((uv_handle_t *)&d->watch);
    for (int i = 0; i < 3; i++) close_handle((uv_handle_t *)&d->signals[i]);
    if (d->o->stopping) d->o->stopping(d->o->user);
    rd_carriers_stop(d->carriers);
}

static void on_signal(uv_signal_t *handle, int number)
{
    rd_log(RD_LOG_INFO, "signal %d: ending", number);
    stop(handle->data);
}

static void on_unload(uv_timer_t *t)
{
    rd_worker_unload(((rd_daemon *)t->data)->worker);
}

static void on_leave(uv_timer_t *t)
{
    rd_log(RD_LOG_INFO, "idle: ending");
    stop(t->data);
}

static void begin_idle(rd_daemon *d)
{
    const rd_config *c = d->o->config;

    if (c->idle_unload_s > 0)
        uv_timer_start(&d->unload, on_unload, (uint64_t)c->idle_unload_s * 1000, 0);
    if (c->idle_exit_s > 0) uv_timer_start(&d->leave, on_leave, (uint64_t)c->idle_exit_s * 1000, 0);
}

static void counted(void *user)
{
    rd_daemon *d = user;
    bool busy = rd_carriers_clients(d->carriers) > 0;

    if (d->o->peer >= 0 && rd_carriers_count(d->carriers) == 0) stop(d);
    if (d->stopping || d->o->peer >= 0 || busy == d->busy) return;
    d->busy = busy;
    uv_timer_stop(&d->unload);
    uv_timer_stop(&d->leave);
    if (!busy) begin_idle(d);
}

static void stop_asked(void *user)
{
    rd_log(RD_LOG_INFO, "asked to end");
    stop(user);
}

static uint64_t forget_all(void *user)
{
    return rd_worker_forget(((rd_daemon *)user)->worker, NULL);
}

static bool has_forgotten(void *user, uint64_t number)
{
    return rd_worker_has_forgotten(((rd_daemon *)user)->worker, number);
}

static void on_watch(uv_timer_t *t)
{
    rd_daemon *d = t->data;
    long pid = d->o->client_pid ? d->o->client_pid : rd_carriers_client_pid(d->carriers);

    if (pid <= 0 || !kill((pid_t)pid, 0) || errno != ESRCH) return;
    rd_log(RD_LOG_INFO, "the editor, process %ld, is gone: ending", pid);
    stop(d);
}

/* ---- the beginning ---- */

static void on_connect(uv_poll_t *handle, int failed, int events);

static void on_accept_again(uv_timer_t *t)
{
    rd_daemon *d = t->data;

    uv_poll_start(&d->listener, UV_READABLE, on_connect);
}

static void on_connect(uv_poll_t *handle, int failed, int events)
{
    rd_daemon *d = handle->data;
    int fd;

    (void)events;
    while (!failed && (fd = accept4(d->o->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0)
        if (rd_place_peer_is_ours(fd))
            rd_carriers_add(d->carriers, fd, NULL);
        else
            close(fd);
    if (!failed && (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)) return;
    rd_log(RD_LOG_WARN, "accepting a connection: %s", strerror(errno));
    uv_poll_stop(&d->listener); /* no descriptor is free: look again later, not in a circle */
    uv_timer_start(&d->accept_again, on_accept_again, ACCEPT_PAUSE_MS, 0);
}

static void start_timer(rd_daemon *d, uv_timer_t *t)
{
    uv_timer_init(&d->loop, t);
    t->data = d;
}

/* Returns libuv's error, of descriptors that cannot be had. */
static int start_handles(rd_daemon *d)
{
    static const int numbers[] = { SIGTERM, SIGINT, SIGHUP };
    int failed = uv_async_init(&d->loop, &d->wake, on_wake);

    d->wake.data = d;
    start_timer(d, &d->accept_again);
    start_timer(d, &d->unload);
    start_timer(d, &d->leave);
    start_timer(d, &d->watch);
    for (int i = 0; i < 3 && !failed; i++) {
        failed = uv_signal_init(&d->loop, &d->signals[i]);
        d->signals[i].data = d;
        if (!failed) failed = uv_signal_start(&d->signals[i], on_signal, numbers[i]);
    }
    if (d->o->peer >= 0) uv_timer_start(&d->watch, on_watch, WATCH_MS, WATCH_MS);
    if (failed || d->o->listener < 0) return failed;
    failed = uv_poll_init(&d->loop, &d->listener, d->o->listener);
    d->listener.data = d;
    return failed ? failed : uv_poll_start(&d->listener, UV_READABLE, on_connect);
}

static void start_carriers(rd_daemon *d)
{
    d->carriers = rd_carriers_new(&(rd_carriers_options){
        .loop = &d->loop,
        .host = &d->host,
        .config = d->o->config,
        .build = d->o->build,
        .counted = counted,
        .stop = stop_asked,
        .forget = forget_all,
        .has_forgotten = has_forgotten,
        .user = d,
    });
    if (d->o->peer < 0) {
        begin_idle(d);
        return;
    }
    rd_hello alone = { .protocol = d->o->protocol, .roots = d->o->roots, .n_roots = d->o->n_roots };

    rd_carriers_add(d->carriers, d->o->peer, &alone);
}

static const char *worker_now(const void *worker)
{
    return rd_worker_now(worker);
}

static rd_kv_format format_of(const rd_config *c)
{
    if (!strcmp(c->cache_format, "int8")) return RD_KV_INT8;
    return strcmp(c->cache_format, "bf16") ? RD_KV_RAW : RD_KV_BF16;
}

/* Makes no file: the first thing to be kept does. */
static rd_keeper *new_keeper(rd_daemon *d)
{
    const rd_config *c = d->o->config;

    if (c->cache_mb == 0) return NULL;
    return rd_keeper_new(&(rd_keeper_options){ .dir = c->cache_dir,
                                               .max_bytes = (int64_t)c->cache_mb << 20,
                                               .max_days = c->cache_days,
                                               .any_place = c->cache_any_place,
                                               .format = format_of(c),
                                               .most_waiting = (size_t)c->pool_mb << 18,
                                               .forgot = wake,
                                               .user = d });
}

int rd_daemon_run(const rd_daemon_options *o)
{
    rd_daemon d = { .o = o, .began_ms = rd_now_ms() };
    const rd_config *c = o->config;

    d.host = (rd_host){ &d, now_ms, wake_at, submit, cancel, forget, model, status };
    int failed = uv_loop_init(&d.loop);

    if (!failed) failed = start_handles(&d);
    if (failed) {
        rd_log(RD_LOG_ERROR, "the event loop cannot start: %s", uv_strerror(failed));
        return 1;
    }
    d.keeper = new_keeper(&d);
    d.worker = rd_worker_new(&(rd_worker_options){
        .runner = o->runner,
        .engine = { .model = c->model,
                    .backend = c->backend,
                    .plugins = c->plugin_dir,
                    .fall_back = c->backend_fallback,
                    .threads = c->threads,
                    .pool_bytes = (size_t)c->pool_mb << 20 },
        .keeper = d.keeper,
        .wake = wake,
        .user = &d,
    });
    rd_record_crashes(worker_now, d.worker);
    start_carriers(&d);
    while (!d.stopping || rd_carriers_count(d.carriers) > 0) uv_run(&d.loop, UV_RUN_ONCE);
    rd_record_crashes(NULL, NULL);
    rd_worker_close(d.worker);
    rd_keeper_close(d.keeper);
    close_handle((uv_handle_t *)&d.wake);
    uv_run(&d.loop, UV_RUN_DEFAULT);
    int code = o->peer >= 0 ? rd_carriers_code(d.carriers) : 0;

    rd_carriers_free(d.carriers);
    if (uv_loop_close(&d.loop)) assert(!"a handle was left open");
    if (o->listener >= 0) close(o->listener);
    return code;
}
