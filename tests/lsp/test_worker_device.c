/* test_worker_device.c - the worker over the engine itself on a device that is lost: jobs, reopening, and the CPU. */
#include "core/base/clock.h"
#include "core/base/memory.h"
#include "core/format/file.h"
#include "core/plugin.h"
#include "lsp/worker.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATIENCE_MS = 60000 };

static char folder[64];

static void wake(void *user)
{
    (void)user;
}

static void put_plugin(const char *name, const char *wrong)
{
    rd_buf bytes = { 0 };
    char path[160], variable[80];
    rd_error err;

    snprintf(path, sizeof path, "%s/libredraft-%s.so", folder, name);
    snprintf(variable, sizeof variable, "RD_FAKE_%s", name);
    cr_assert(!rd_file_read(RD_FAKE_PLUGIN, 256 << 20, &bytes, &err), "%s", err.text);
    cr_assert(!rd_file_write(path, bytes.data, bytes.len, &err), "%s", err.text);
    rd_buf_clear(&bytes);
    setenv(variable, wrong, 1);
}

static void make_folder(void)
{
    strcpy(folder, "/tmp/rd-device-XXXXXX");
    cr_assert(mkdtemp(folder));
    umask(022);
}

static void remove_folder(void)
{
    char command[128];

    snprintf(command, sizeof command, "rm -r '%s'", folder);
    if (fork() == 0) _exit(execl("/bin/sh", "sh", "-c", command, NULL));
}

TestSuite(worker_device, .init = make_folder, .fini = remove_folder, .timeout = 240);

static rd_worker *open_worker(const char *backend, bool fall_back)
{
    return rd_worker_new(&(rd_worker_options){
        .runner = &rd_local_runner,
        .engine = { .backend = backend, .plugins = folder, .threads = 1, .fall_back = fall_back },
        .wake = wake });
}

/* A short infill, to its end. */
static rd_status ask(rd_worker *w, rd_error *err)
{
    rd_job *job = rd_job_new(1, 1, RD_LANE_ASKED, RD_JOB_INFILL);
    double start = rd_now_ms();
    rd_event *ev;

    rd_buf_text(&job->prefix, "int x = ");
    rd_buf_text(&job->suffix, ";\n");
    job->max_tokens = 4;
    rd_worker_push(w, job);
    while (!(ev = rd_worker_take(w)) || !ev->done) {
        rd_event_free(ev);
        cr_assert_lt(rd_now_ms() - start, PATIENCE_MS, "no event comes");
        usleep(1000);
    }
    rd_status status = ev->status;

    *err = ev->err;
    rd_job_free(ev->job);
    rd_event_free(ev);
    return status;
}

static rd_model_state state_of(rd_worker *w)
{
    rd_model_state s;

    rd_worker_state(w, &s);
    return s;
}

static void wait_until_away(rd_worker *w)
{
    double start = rd_now_ms();

    while (state_of(w).phase == RD_MODEL_READY) {
        cr_assert_lt(rd_now_ms() - start, PATIENCE_MS, "the engine stays open");
        usleep(1000);
    }
}

Test(worker_device, lost_fails_one_job_and_is_opened_again_by_the_next)
{
    rd_error err;

    put_plugin("gone", "lost=2");
    rd_worker *w = open_worker("gone", false);

    cr_assert_eq(ask(w, &err), RD_DEVICE, "%d", err.status);
    cr_assert(strstr(err.text, "gone: the device is gone"), "%s", err.text);
    wait_until_away(w);
    cr_assert_eq(ask(w, &err), RD_OK, "%s", err.text);
    cr_assert(!strncmp(state_of(w).about, "gone Fake 9000", 14), "%s", state_of(w).about);
    cr_assert_str_eq(state_of(w).fell_back, "");
    rd_worker_close(w);
}

Test(worker_device, without_room_is_the_cpu_and_the_state_says_so)
{
    rd_error err;

    put_plugin("cuda", "full");
    rd_worker *w = open_worker(NULL, false);

    cr_assert_eq(ask(w, &err), RD_OK, "%s", err.text);
    cr_assert(!strncmp(state_of(w).about, "cpu ", 4), "%s", state_of(w).about);
    cr_assert(strstr(state_of(w).fell_back, "12 GB are free; the CPU is used"), "%s",
              state_of(w).fell_back);
    rd_worker_unload(w);
    wait_until_away(w);
    cr_assert_str_eq(state_of(w).fell_back, "");
    rd_worker_close(w);
}

Test(worker_device, named_without_room_fails_each_job_and_nothing_else)
{
    rd_error err;

    put_plugin("narrow", "full");
    rd_worker *w = open_worker("narrow", false);

    for (int i = 0; i < 2; i++) {
        cr_assert_eq(ask(w, &err), RD_NO_MEMORY);
        cr_assert(strstr(err.text, "95 GB are needed"), "%s", err.text);
        cr_assert_eq(state_of(w).phase, RD_MODEL_FAILED);
    }
    rd_worker_close(w);
}

/* Opening goes well each time and no job ever ends: twice is enough. */
Test(worker_device, that_is_lost_again_at_once_is_left_for_the_cpu)
{
    rd_error err;

    put_plugin("cuda", "dead=1");
    rd_worker *w = open_worker("auto", false);

    for (int i = 0; i < 2; i++) {
        cr_assert_eq(ask(w, &err), RD_DEVICE, "%d", i);
        wait_until_away(w);
    }
    cr_assert_eq(ask(w, &err), RD_OK, "%s", err.text);
    cr_assert(!strncmp(state_of(w).about, "cpu ", 4), "%s", state_of(w).about);
    cr_assert(strstr(state_of(w).fell_back, "cuda"), "%s", state_of(w).fell_back);
    cr_assert(strstr(state_of(w).fell_back, "the CPU is used"), "%s", state_of(w).fell_back);
    rd_worker_close(w);
}

Test(worker_device, that_is_lost_again_is_tried_again_where_the_cpu_is_not_allowed)
{
    rd_error err;

    put_plugin("dying", "dead=1");
    rd_worker *w = open_worker("dying", false);

    for (int i = 0; i < 4; i++) {
        cr_assert_eq(ask(w, &err), RD_DEVICE, "%d", i);
        wait_until_away(w);
    }
    rd_worker_close(w);
}
