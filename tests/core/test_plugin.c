/* test_plugin.c - finding, refusing and listing plugins, and what the engine does when one fails. */
#include "core/base/memory.h"
#include "core/engine.h"
#include "core/format/file.h"
#include "core/plugin.h"
#include "core/plugin_file.h"

#include <criterion/criterion.h>
#include <link.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A folder of plugins of the test's own; each test is a process, and forgets what it loaded. */
static char folder[64];

static char *in_folder(const char *name)
{
    return rd_path_join(folder, name);
}

static void put(const char *name, const char *bytes, size_t n)
{
    char *path = in_folder(name);
    FILE *f = fopen(path, "wb");

    cr_assert(f && fwrite(bytes, 1, n, f) == n && !fclose(f), "%s", path);
    cr_assert(!chmod(path, 0755));
    free(path);
}

/* The bytes of a library up to the end of what the loader maps; sections for debuggers follow. */
static size_t mapped_bytes(const rd_buf *bytes)
{
    const ElfW(Ehdr) *head = (const void *)bytes->data;
    const ElfW(Phdr) *part = (const void *)(bytes->data + head->e_phoff);
    size_t end = 0;

    for (int i = 0; i < head->e_phnum; i++)
        if (part[i].p_type == PT_LOAD && part[i].p_offset + part[i].p_filesz > end)
            end = part[i].p_offset + part[i].p_filesz;
    cr_assert(end > 0 && end <= bytes->len);
    return end;
}

/* A plugin under a name, with what is wrong with it; cut to `share` of what is mapped, 1: whole. */
static void put_part(const char *file, const char *name, const char *wrong, double share)
{
    rd_buf bytes = { 0 };
    char to[80], variable[80];
    rd_error err;

    snprintf(to, sizeof to, "libredraft-%s.so", name);
    snprintf(variable, sizeof variable, "RD_FAKE_%s", name);
    cr_assert(!rd_file_read(file, 256 << 20, &bytes, &err), "%s", err.text);
    put(to, bytes.data, share < 1.0 ? (size_t)((double)mapped_bytes(&bytes) * share) : bytes.len);
    rd_buf_clear(&bytes);
    setenv(variable, wrong, 1);
}

static void put_plugin(const char *name, const char *wrong)
{
    put_part(RD_FAKE_PLUGIN, name, wrong, 1.0);
}

static void make_folder(void)
{
    rd_error err;

    strcpy(folder, "/tmp/rd-plugin-XXXXXX");
    cr_assert(mkdtemp(folder));
    cr_assert(!rd_plugins_look(folder, &err), "%s", err.text);
}

static void drop_folder(void)
{
    char command[128];

    snprintf(command, sizeof command, "rm -r '%s'", folder);
    if (execl("/bin/sh", "sh", "-c", command, NULL)) _exit(1);
}

/* The test's own process ends with it; a copy removes the folder. */
static void remove_folder(void)
{
    if (fork() == 0) drop_folder();
}

TestSuite(plugin, .init = make_folder, .fini = remove_folder, .timeout = 120);

static void expect_refused(const char *name, const char *why)
{
    const rd_backend *be;
    rd_error err = { 0 };

    cr_assert_neq(rd_backend_find(name, &be, &err), RD_OK, "%s is taken", name);
    cr_assert(strstr(err.text, why), "%s: \"%s\", not \"%s\"", name, err.text, why);
    cr_assert(strstr(err.text, name), "%s is not named: %s", name, err.text);
}

/* ---- finding ---- */

Test(plugin, is_found_by_the_name_of_its_file)
{
    const rd_backend *be, *once_more;
    rd_device *d;
    rd_device_info info;
    rd_error err;

    put_plugin("good", "");
    cr_assert(!rd_backend_find("good", &be, &err), "%s", err.text);
    cr_assert_str_eq(be->name, "good");
    cr_assert(!be->open(&(rd_device_options){ .threads = 1 }, &d, &err));
    be->describe(d, &info);
    cr_assert_str_eq(info.isa, "Fake 9000");
    be->close(d);
    cr_assert(!rd_backend_find("good", &once_more, &err));
    cr_assert_eq(be, once_more);
}

Test(plugin, is_found_in_the_folder_named_last)
{
    char first[64];
    const rd_backend *be;
    rd_error err;

    put("libredraft-good.so", "text", 4);
    strcpy(first, folder);
    expect_refused("good", "is not a whole");
    make_folder();
    put_plugin("good", "");
    cr_assert(!rd_backend_find("good", &be, &err), "%s", err.text);
    remove_folder();
    strcpy(folder, first);
}

Test(plugin, folder_must_be_a_folder_with_an_absolute_path)
{
    rd_error err;

    put("file", "x", 1);
    char *file = in_folder("file");

    cr_assert_eq(rd_plugins_look("plugins", &err), RD_INVALID);
    cr_assert(strstr(err.text, "absolute"));
    cr_assert_eq(rd_plugins_look("/nowhere/at/all", &err), RD_NOT_FOUND);
    cr_assert_eq(rd_plugins_look(file, &err), RD_NOT_FOUND);
    free(file);
}

Test(plugin, is_not_found_by_a_path)
{
    static const char *const names[] = { "../good", "/tmp/good", "good.so", "", "good\n" };
    const rd_backend *be;
    rd_error err = { 0 };

    put_plugin("good", "");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        cr_assert_eq(rd_backend_find(names[i], &be, &err), RD_NOT_FOUND, "%s", names[i]);
        cr_assert(strstr(err.text, "no backend is called"));
    }
}

Test(plugin, knows_nothing_beyond_the_size_of_its_table)
{
    const rd_backend *be;
    rd_error err;

    put_plugin("old", "old");
    cr_assert(!rd_backend_find("old", &be, &err), "%s", err.text);
    cr_assert(be->pick && !be->ceilings && !be->kv_layout && !be->kv_host && !be->probe);
}

Test(plugin, is_asked_for_other_entries)
{
    rd_plugin_entry entry;
    rd_error err;

    put_plugin("good", "");
    cr_assert(!rd_plugin_symbol("good", "rd_fake_answer", &entry, &err), "%s", err.text);
    cr_assert_eq(((int (*)(void))entry)(), 42);
    cr_assert_eq(rd_plugin_symbol("good", "rd_learner_entry", &entry, &err), RD_NOT_FOUND);
    cr_assert(strstr(err.text, "good exports no rd_learner_entry"), "%s", err.text);
    cr_assert_eq(rd_plugin_symbol("cpu", "rd_fake_answer", &entry, &err), RD_NOT_FOUND);
    cr_assert_eq(rd_plugin_symbol("absent", "rd_fake_answer", &entry, &err), RD_NOT_FOUND);
}

static void *find_good(void *arg)
{
    rd_error err;

    return rd_backend_find("good", arg, &err) ? arg : NULL;
}

Test(plugin, is_loaded_once_by_many_threads)
{
    pthread_t thread[8];
    const rd_backend *found[8];

    put_plugin("good", "");
    for (int i = 0; i < 8; i++)
        cr_assert(!pthread_create(&thread[i], NULL, find_good, (void *)&found[i]));
    for (int i = 0; i < 8; i++) {
        void *failed;

        pthread_join(thread[i], &failed);
        cr_assert(!failed);
        cr_assert_eq(found[i], found[0]);
    }
}

/* ---- refusing ---- */

Test(plugin, with_a_wrong_table_is_refused_by_name)
{
    static const struct {
        const char *wrong, *why;
    } cases[] = { { "abi", "built for interface 2, this program has 1" },
                  { "small", "its table has" },
                  { "hole", "it has no verb moe" },
                  { "name", "it calls itself somebody" },
                  { "nothing", "its entry gives no table" },
                  { "driver", "no driver: libfake.so.1 is not there" } };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_plugin(cases[i].wrong, cases[i].wrong);
        expect_refused(cases[i].wrong, cases[i].why);
    }
}

Test(plugin, that_is_no_plugin_is_refused_by_name)
{
    put_part(RD_EMPTY_PLUGIN, "empty", "", 1.0);
    put("libredraft-text.so", "not a library\n", 14);
    put("libredraft-void.so", "", 0);

    expect_refused("empty", "exports no rd_backend_entry");
    expect_refused("text", "is not a whole shared object");
    expect_refused("void", "is not a whole shared object");
}

Test(plugin, cut_short_anywhere_is_refused_and_does_not_kill)
{
    char name[16];

    for (int i = 0; i <= 10; i++) {
        const rd_backend *be;
        rd_error err = { 0 };

        snprintf(name, sizeof name, "cut%d", i);
        put_part(RD_FAKE_PLUGIN, name, "", i < 10 ? i / 10.0 : 0.9999);
        cr_assert_neq(rd_backend_find(name, &be, &err), RD_OK, "%s", name);
        cr_assert(strstr(err.text, name), "%s", err.text);
    }
}

Test(plugin, whose_library_is_missing_is_refused_with_the_loaders_words)
{
    rd_buf bytes = { 0 };
    rd_error err;

    cr_assert(!rd_file_read(RD_FAKE_PLUGIN, 256 << 20, &bytes, &err));
    char *at = memmem(bytes.data, bytes.len, "libc.so.6", 9);

    cr_assert(at);
    memcpy(at, "libx.so.9", 9);
    put("libredraft-far.so", bytes.data, bytes.len);
    expect_refused("far", "libx.so.9: cannot open shared object file");
    rd_buf_clear(&bytes);
}

Test(plugin, that_others_can_write_is_refused_until_they_cannot)
{
    const rd_backend *be;
    rd_error err;
    char *path = in_folder("libredraft-good.so");

    put_plugin("good", "");
    for (int i = 0; i < 2; i++) {
        cr_assert(!chmod(path, i ? 0757 : 0775));
        expect_refused("good", i ? "can be written by others (mode 757)" : "(mode 775)");
    }
    cr_assert(!chmod(path, 0755) && !chmod(folder, 01777));
    expect_refused("good", "can be written by others (mode 1777)");
    cr_assert(!chmod(folder, 0700));
    cr_assert(!rd_backend_find("good", &be, &err), "%s", err.text);
    free(path);
}

Test(plugin, below_a_folder_that_others_can_write_is_refused)
{
    char below[80], real[PATH_MAX];
    rd_error err;

    snprintf(below, sizeof below, "%s/below", folder);
    cr_assert(!mkdir(below, 0755));
    put_plugin("good", "");
    char *from = in_folder("libredraft-good.so"), *to = in_folder("below/libredraft-good.so");

    cr_assert(!rename(from, to) && !chmod(folder, 0777));
    cr_assert_eq(rd_plugin_file_check(below, "libredraft-good.so", real, &err), RD_INVALID);
    cr_assert(strstr(err.text, "can be written by others"), "%s", err.text);
    cr_assert(!chmod(folder, 01777)); /* as /tmp is */
    cr_assert(!rd_plugin_file_check(below, "libredraft-good.so", real, &err), "%s", err.text);
    cr_assert_str_eq(real, to);
    free(from);
    free(to);
}

Test(plugin, of_another_user_is_refused)
{
    char *path = in_folder("libredraft-good.so");

    put_plugin("good", "");
    if (geteuid() != 0) cr_skip_test("only root can give a file away");
    cr_assert(!chown(path, 4242, 0));
    expect_refused("good", "belongs to user 4242");
    cr_assert(!chown(path, 0, 0) && !chown(folder, 4242, 0));
    expect_refused("good", "belongs to user 4242");
    free(path);
}

Test(plugin, behind_a_link_is_refused_and_a_folder_behind_one_is_not)
{
    char *link = in_folder("libredraft-link.so"), *pipe = in_folder("libredraft-pipe.so");
    char *aside = in_folder("aside"), real[PATH_MAX];
    rd_error err;

    put_plugin("good", "");
    cr_assert(!symlink("libredraft-good.so", link) && !mkfifo(pipe, 0600));
    expect_refused("link", "is a link");
    expect_refused("pipe", "is not a regular file");
    cr_assert(!symlink(folder, aside));
    cr_assert(!rd_plugin_file_check(aside, "libredraft-good.so", real, &err), "%s", err.text);
    cr_assert(!strncmp(real, folder, strlen(folder)));
    free(link);
    free(pipe);
    free(aside);
}

/* ---- listing ---- */

Test(plugin, list_names_all_and_why_one_is_refused)
{
    static const struct {
        const char *name, *why;
    } rows[] = {
        { "cpu", NULL },           { "cuda", "" },   { "abi", "built for interface 2" },
        { "driver", "no driver" }, { "good", NULL }, { "text", "is not a whole shared object" }
    };
    rd_plugin_row *list;
    size_t at = 0;

    put_plugin("good", "");
    put_plugin("abi", "abi");
    put_plugin("driver", "driver");
    put("libredraft-text.so", "text", 4);
    put("libredraft-.so", "text", 4);
    put("libredraft-a b.so", "text", 4);
    put("libother-x.so", "text", 4);
    put("libredraft-good.so.old", "text", 4);
    size_t n = rd_plugins_list(&list);

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        while (at < n && strcmp(list[at].name, rows[i].name) != 0) at++;
        cr_assert_lt(at, n, "%s is not listed there", rows[i].name);
        if (!rows[i].why)
            cr_assert(list[at].backend && !*list[at].why, "%s: %s", rows[i].name, list[at].why);
        else
            cr_assert(strstr(list[at].why, rows[i].why), "%s: %s", rows[i].name, list[at].why);
        cr_assert(!list[at].backend == (*list[at].why != 0));
    }
    for (size_t i = 0; i < n; i++)
        cr_assert(!strchr(list[i].name, ' ') && !strstr(list[i].name, "old") && *list[i].name);
    free(list);
}

/* ---- the best ---- */

Test(plugin, cuda_is_the_best_where_it_has_a_device)
{
    const rd_backend *be;
    rd_error err;

    put_plugin("cuda", "");
    cr_assert(!rd_backend_find("auto", &be, &err));
    cr_assert_str_eq(be->name, "cuda");
    cr_assert_str_eq(rd_backend_for_isa(NULL, "plain"), "cpu");
    cr_assert_str_eq(rd_backend_for_isa("cuda", "plain"), "cuda");
    cr_assert_null(rd_backend_for_isa(NULL, NULL));
}

Test(plugin, cpu_is_the_best_where_cuda_has_no_device)
{
    const rd_backend *be;
    rd_error err;

    put_plugin("cuda", "driver");
    cr_assert(!rd_backend_find(NULL, &be, &err));
    cr_assert_eq(be, rd_cpu_backend());
    expect_refused("cuda", "no driver");
}

Test(plugin, cpu_is_the_best_where_cuda_does_not_fit)
{
    const rd_backend *be;
    rd_error err;

    put_plugin("cuda", "abi");
    cr_assert(!rd_backend_find(NULL, &be, &err));
    cr_assert_eq(be, rd_cpu_backend());
}

/* ---- the engine ---- */

static rd_engine_options options(const char *backend, bool fall_back)
{
    return (rd_engine_options){
        .backend = backend, .plugins = folder, .threads = 1, .fall_back = fall_back
    };
}

/* The engine's, or NULL and why not. */
static rd_engine *open_engine(const char *backend, bool fall_back, rd_error *err)
{
    rd_engine_options o = options(backend, fall_back);
    rd_engine *e = NULL;

    return rd_engine_open(&o, &e, err) ? NULL : e;
}

Test(plugin, runs_the_engine_with_the_same_answer)
{
    static const char *const names[] = { "cpu", "good" };
    rd_request rq = { .task = RD_INFILL,
                      .language = "c",
                      .prefix = "int x = ",
                      .prefix_bytes = 8,
                      .suffix = ";\n",
                      .suffix_bytes = 2,
                      .max_tokens = 8 };
    char text[2][256];

    put_plugin("good", "");
    for (int i = 0; i < 2; i++) {
        rd_error err = { 0 };
        rd_engine *e = open_engine(names[i], false, &err);
        rd_run *r;
        rd_step s = { 0 };

        cr_assert(e, "%s", err.text);
        cr_assert(strstr(rd_engine_describe(e), i ? "good Fake 9000, " : "cpu "));
        cr_assert(!i == (strstr(rd_engine_describe(e), "threads") != NULL));
        cr_assert_str_eq(rd_engine_fell_back(e), "");
        cr_assert(!rd_run_open(e, &rq, &r, &err), "%s", err.text);
        while (!s.done) cr_assert(!rd_run_step(r, &s, &err), "%s", err.text);
        snprintf(text[i], sizeof text[i], "%.*s", (int)s.bytes, s.text);
        rd_run_close(r);
        rd_engine_close(e);
    }
    cr_assert_str_eq(text[0], text[1]);
}

Test(plugin, without_room_leaves_the_best_to_the_cpu_with_what_was_needed)
{
    rd_error err = { 0 };

    put_plugin("cuda", "full");
    rd_engine *e = open_engine("auto", false, &err);

    cr_assert(e, "%s", err.text);
    cr_assert(!strncmp(rd_engine_describe(e), "cpu ", 4));
    cr_assert(!strncmp(rd_engine_fell_back(e), "cuda: ", 6), "%s", rd_engine_fell_back(e));
    cr_assert(strstr(rd_engine_fell_back(e), "95 GB are needed, 12 GB are free; the CPU is used"),
              "%s", rd_engine_fell_back(e));
    rd_engine_close(e);
}

Test(plugin, asked_for_by_name_fails_unless_the_cpu_is_allowed)
{
    static const struct {
        const char *name, *wrong, *why;
    } cases[] = { { "full", "full", "95 GB are needed" },
                  { "driver", "driver", "no driver" },
                  { "absent", NULL, "no backend is called absent" } };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rd_error err = { 0 };

        if (cases[i].wrong) put_plugin(cases[i].name, cases[i].wrong);
        cr_assert(!open_engine(cases[i].name, false, &err));
        cr_assert(strstr(err.text, cases[i].why), "%s", err.text);
        rd_engine *e = open_engine(cases[i].name, true, &err);

        cr_assert(e, "%s", err.text);
        cr_assert(!strncmp(rd_engine_describe(e), "cpu ", 4));
        cr_assert(strstr(rd_engine_fell_back(e), cases[i].why), "%s", rd_engine_fell_back(e));
        rd_engine_close(e);
    }
}

/* A wrong model is wrong on the CPU as well: its own error comes through. */
Test(plugin, does_not_hide_what_is_wrong_with_a_model)
{
    rd_engine_options o = options(NULL, true);
    rd_engine *e = NULL;
    rd_error err = { 0 };

    put_plugin("cuda", "");
    o.model = "/nowhere/at/all";
    cr_assert_eq(rd_engine_open(&o, &e, &err), RD_NOT_FOUND, "%d %s", err.status, err.text);
    cr_assert(strstr(err.text, "/nowhere/at/all"));
    cr_assert(!strstr(err.text, "CPU"));
}
