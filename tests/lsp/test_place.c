/* test_place.c - the runtime folder: whose it is, who is the daemon, how often one is started. */
#include "lsp/place.h"

#include "core/base/memory.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char runtime[64], folder[80];

static void begin(void)
{
    snprintf(runtime, sizeof runtime, "/tmp/redraft-place-XXXXXX");
    cr_assert_not_null(mkdtemp(runtime));
    setenv("XDG_RUNTIME_DIR", runtime, 1);
    snprintf(folder, sizeof folder, "%s/redraft", runtime);
}

static void end(void)
{
    char call[128];

    snprintf(call, sizeof call, "rm -rf %s", runtime);
    cr_assert_eq(system(call), 0);
}

static rd_place *opened(void)
{
    rd_place *p = NULL;
    rd_error err = { 0 };

    cr_assert_eq(rd_place_open(&p, &err), RD_OK, "%s", err.text);
    return p;
}

Test(place, is_made_for_the_user_alone, .init = begin, .fini = end)
{
    rd_place *p = opened();
    struct stat st;

    cr_assert_eq(stat(folder, &st), 0);
    cr_expect_eq(st.st_mode & 0777, 0700);
    cr_expect(strstr(rd_place_socket(p), folder));
    rd_place_close(p);
}

Test(place, that_is_a_link_or_open_to_others_is_refused, .init = begin, .fini = end)
{
    rd_place *p;
    rd_error err;

    cr_assert_eq(symlink("/tmp", folder), 0);
    cr_expect_eq(rd_place_open(&p, &err), RD_INVALID);
    cr_assert_eq(unlink(folder), 0);
    cr_assert_eq(mkdir(folder, 0700), 0);
    cr_assert_eq(chmod(folder, 0710), 0);
    cr_expect_eq(rd_place_open(&p, &err), RD_INVALID);
    cr_expect(strstr(err.text, "0700"), "%s", err.text);
}

Test(place, has_one_daemon, .init = begin, .fini = end)
{
    rd_place *a = opened(), *b = opened();
    int fd, other, peer;
    long died = 1;
    rd_error err;

    cr_expect_eq(rd_place_connect(a, &peer, &err), RD_NOT_FOUND);
    cr_assert_eq(rd_place_listen(a, 0, &fd, &died, &err), RD_OK);
    cr_expect_eq(died, 0);
    cr_expect_eq(rd_place_listen(b, 20, &other, &died, &err), RD_STALE);
    cr_assert_eq(rd_place_connect(b, &peer, &err), RD_OK);
    close(peer);
    cr_expect_not(rd_place_wait_gone(b, 20));
    rd_place_leave(a);
    rd_place_close(a);
    close(fd);
    cr_expect(rd_place_wait_gone(b, 0));
    cr_expect_eq(rd_place_connect(b, &peer, &err), RD_NOT_FOUND);
    cr_assert_eq(rd_place_listen(b, 0, &fd, &died, &err), RD_OK);
    cr_expect_eq(died, 0, "the one before left in order");
    close(fd);
    rd_place_close(b);
}

Test(place, knows_who_died_in_it, .init = begin, .fini = end)
{
    pid_t child = fork();
    int fd;
    long died = 0;
    rd_error err;

    if (child == 0) {
        rd_place *p = opened();

        _exit(rd_place_listen(p, 0, &fd, &died, &err) != RD_OK);
    }
    int status;

    waitpid(child, &status, 0);
    cr_assert_eq(status, 0);
    rd_place *p = opened();

    cr_assert_eq(rd_place_listen(p, 0, &fd, &died, &err), RD_OK);
    cr_expect_eq(died, child);
    close(fd);
    rd_place_close(p);
}

Test(place, counts_starts, .init = begin, .fini = end)
{
    rd_place *p = opened();
    rd_error err;

    for (int i = 0; i < 3; i++) cr_expect_eq(rd_place_count_start(p, 3, &err), RD_OK);
    cr_expect_eq(rd_place_count_start(p, 3, &err), RD_STALE);
    cr_expect_eq(rd_place_count_start(p, 4, &err), RD_OK);
    for (int i = 0; i < 100; i++)
        cr_expect_eq(rd_place_count_start(p, 1000, &err), RD_OK, "%s", err.text);
    rd_place_close(p);
}

Test(place, takes_one_starter_at_a_time, .init = begin, .fini = end)
{
    rd_place *a = opened(), *b = opened();
    int first, second;
    rd_error err;

    cr_assert_eq(rd_place_lock_start(a, 0, &first, &err), RD_OK);
    cr_expect_eq(rd_place_lock_start(b, 20, &second, &err), RD_STALE);
    close(first);
    cr_assert_eq(rd_place_lock_start(b, 0, &second, &err), RD_OK);
    close(second);
    rd_place_close(a);
    rd_place_close(b);
}

static bool keeps(const char *variable)
{
    char **all = rd_place_environment();
    bool found = false;

    for (char **v = all; *v; v++) found = found || !strcmp(*v, variable);
    free(all);
    return found;
}

Test(place, keeps_a_fixed_list_of_variables_and_no_relative_path, .init = begin, .fini = end)
{
    setenv("REDRAFT_MODEL", "/models/a", 1);
    setenv("REDRAFT_CACHE_DIR", "cache", 1);
    setenv("REDRAFT_PLUGINS", "plugins", 1);
    setenv("LD_PRELOAD", "", 1);
    setenv("LANG", "C.UTF-8", 1);

    cr_expect(keeps("REDRAFT_MODEL=/models/a"));
    cr_expect(keeps("LANG=C.UTF-8"));
    cr_expect_not(keeps("REDRAFT_CACHE_DIR=cache"));
    cr_expect_not(keeps("REDRAFT_PLUGINS=plugins"));
    setenv("REDRAFT_PLUGINS", "/plugins", 1);
    cr_expect(keeps("REDRAFT_PLUGINS=/plugins"));
    cr_expect_not(keeps("LD_PRELOAD="));
    unsetenv("REDRAFT_PLUGINS");
    unsetenv("LD_PRELOAD");
}

Test(place, another_model_is_another_daemon, .init = begin, .fini = end)
{
    setenv("REDRAFT_MODEL", "/models/a", 1);
    rd_place *a = opened();

    setenv("REDRAFT_MODEL", "/models/b", 1);
    rd_place *b = opened();

    setenv("TERM", "other", 1);
    rd_place *same = opened();

    setenv("REDRAFT_PLUGINS", "/plugins", 1);
    rd_place *plugged = opened();

    cr_expect(strcmp(rd_place_build(a), rd_place_build(b)) != 0);
    cr_expect_str_eq(rd_place_build(b), rd_place_build(same));
    cr_expect(strcmp(rd_place_build(b), rd_place_build(plugged)) != 0);
    rd_place_close(plugged);
    rd_place_close(a);
    rd_place_close(b);
    rd_place_close(same);
}
