/* test_roots.c - which files an agent may name, on a real disk. */
#include "lsp/limits.h"
#include "lsp/roots.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* A folder `top` with a root `in`, a second root `two`, and things beside them that nobody may read. */
static char top[256], in[300], two[300], text[4096];
static const char *folders[] = { in, two };
static rd_roots roots;
static rd_config *config;

static char *at(const char *folder, const char *name)
{
    static char paths[4][600];
    static int next;
    char *path = paths[next++ % 4];

    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static void put(const char *path, const char *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");

    cr_assert(f, "%s", path);
    cr_assert_eq(fwrite(bytes, 1, n, f), n);
    fclose(f);
}

static void fill(const char *path, size_t n)
{
    char *bytes = malloc(n + 1);

    memset(bytes, 'x', n);
    put(path, bytes, n);
    free(bytes);
}

static void set_up(void)
{
    snprintf(top, sizeof top, "/tmp/rd_roots_XXXXXX");
    cr_assert(mkdtemp(top));
    snprintf(in, sizeof in, "%s/in", top);
    snprintf(two, sizeof two, "%s/two", top);
    mkdir(in, 0700);
    mkdir(two, 0700);
    mkdir(at(in, "sub"), 0700);
    mkdir(at(top, "in-evil"), 0700);
    put(at(top, "outside.c"), "outside", 7);
    put(at(top, "in-evil/a.c"), "evil", 4);
    put(at(in, "a.c"), "int a;\n", 7);
    put(at(in, "empty.c"), "", 0);
    put(at(in, "sub/b.c"), "int b;\n", 7);
    put(at(two, "two.c"), "int two;\n", 9);
    put(at(in, ".env"), "KEY=1\n", 6);
    put(at(in, "nul.c"), "a\0b", 3);
    put(at(in, "latin.c"), "caf\xe9\n", 5);
    fill(at(in, "most.c"), RD_MOST_ROOT_FILE_BYTES);
    fill(at(in, "more.c"), RD_MOST_ROOT_FILE_BYTES + 1);
    cr_assert_eq(mkfifo(at(in, "pipe"), 0600), 0);
    cr_assert_eq(symlink("sub/b.c", at(in, "link.c")), 0);
    cr_assert_eq(symlink("sub", at(in, "folder")), 0);
    cr_assert_eq(symlink(".env", at(in, "notes.c")), 0);
    cr_assert_eq(symlink("../outside.c", at(in, "out.c")), 0);
    cr_assert_eq(symlink(at(in, "a.c"), at(in, "absolute.c")), 0);
    cr_assert_eq(symlink("..", at(in, "up")), 0);
    cr_assert_eq(symlink("/proc/self/cwd", at(in, "magic")), 0);
    cr_assert_eq(symlink("loop", at(in, "loop")), 0);
    cr_assert_eq(symlink(in, at(top, "alias")), 0);
    rd_buf complaints = { 0 };

    config = rd_config_new("/no/such/settings", &complaints);
    rd_buf_clear(&complaints);
    roots = (rd_roots){ folders, 2, rd_scope_new(&config->client, folders, 2) };
}

static void tear_down(void)
{
    pid_t child = fork();

    rd_scope_free(roots.scope);
    rd_config_free(config);
    if (child == 0) execlp("rm", "rm", "-rf", top, (char *)NULL);
    waitpid(child, NULL, 0);
}

/* The text, or what was wrong. */
static const char *tried(const char *path)
{
    rd_buf out = { 0 };
    rd_root_file file;
    rd_error err = { 0 };
    rd_status s;

    rd_buf_text(&out, "<");
    s = rd_roots_read(&roots, path, &out, &file, &err);
    free(file.real);
    cr_assert(s == RD_OK || out.len == 1, "%s: something was appended", path);
    cr_assert(s == RD_OK || *err.text, "%s: no sentence", path);
    snprintf(text, sizeof text, "%s", s ? err.text : out.data);
    rd_buf_clear(&out);
    return text;
}

static void expect(const char *path, const char *part)
{
    cr_expect(strstr(tried(path), part), "%s: \"%s\", not \"%s\"", path, text, part);
}

Test(roots, gives_files_below_them)
{
    set_up();
    expect("a.c", "<int a;\n");
    expect("./sub/../a.c", "<int a;\n");
    expect("sub/b.c", "<int b;\n");
    expect("two.c", "<int two;\n");
    expect(at(in, "a.c"), "<int a;\n");
    expect(at(two, "two.c"), "<int two;\n");
    expect(at(in, "sub//b.c"), "<int b;\n");
    expect("link.c", "<int b;\n");
    expect("folder/b.c", "<int b;\n");
    cr_assert_str_eq(tried("empty.c"), "<");
    expect("most.c", "<xxxx");
    tear_down();
}

Test(roots, give_nothing_from_outside)
{
    set_up();
    expect("../outside.c", "is not below");
    expect("sub/../../outside.c", "is not below");
    expect(at(top, "outside.c"), "is not below");
    expect(at(in, "../outside.c"), "is not below");
    expect(at(top, "in-evil/a.c"), "is not below");
    expect("/etc/passwd", "is not below");
    expect("/", "is not below");
    expect("up/outside.c", "is not below");
    expect("absolute.c", "is not below");
    cr_expect(!strstr(tried("out.c"), "outside\n") && text[0] != '<', "%s", text);
    cr_expect(tried("magic/a.c")[0] != '<', "%s", text);
    cr_expect(tried("magic")[0] != '<', "%s", text);
    cr_expect(tried("/proc/self/cwd/a.c")[0] != '<', "%s", text);
    tear_down();
}

Test(roots, give_regular_files_alone, .timeout = 10)
{
    set_up();
    expect("pipe", "is not a regular file");
    expect("sub", "is not a regular file");
    expect("folder", "is not a regular file");
    expect(".", "is not a regular file");
    expect(in, "is not a regular file");
    expect("missing.c", "no such file");
    expect("a.c/x", "no such file");
    expect("loop", "loop: ");
    expect("", "empty");
    tear_down();
}

Test(roots, refuse_what_is_large_binary_or_not_utf8)
{
    set_up();
    expect("more.c", "more than 1048576");
    expect("nul.c", "excluded (binary)");
    expect("latin.c", "not UTF-8, at byte 3");
    char *path = malloc(RD_MOST_PATH_BYTES + 2);

    memset(path, 'x', RD_MOST_PATH_BYTES + 1);
    path[RD_MOST_PATH_BYTES + 1] = 0;
    expect(path, "path is too long");
    free(path);
    tear_down();
}

Test(roots, judge_the_file_that_a_link_leads_to)
{
    set_up();
    expect(".env", "is excluded");
    expect("./.env", "is excluded");
    expect("sub/../.env", "is excluded");
    expect("notes.c", "is excluded");
    put(at(in, ".redraftignore"), "sub/\n", 5);
    usleep(300000); /* a scope looks anew so often */
    expect("sub/b.c", "is excluded");
    expect("link.c", "is excluded");
    expect("a.c", "<int a;\n");
    tear_down();
}

Test(roots, may_be_links_and_end_with_slashes)
{
    char alias[300];

    set_up();
    snprintf(alias, sizeof alias, "%s/alias//", top);
    const char *one[] = { alias };

    roots.folders = one;
    roots.n = 1;
    expect("a.c", "<int a;\n");
    expect(at(top, "alias/a.c"), "<int a;\n");
    expect(at(in, "a.c"), "<int a;\n");
    expect(at(top, "outside.c"), "is not below");
    tear_down();
}

Test(roots, say_how_to_do_without_them)
{
    set_up();
    roots.n = 0;
    expect("a.c", "--root DIR");
    tear_down();
}

Test(roots, of_which_one_is_gone_leave_the_others)
{
    set_up();
    const char *some[] = { at(top, "gone"), in };

    roots.folders = some;
    expect("a.c", "<int a;\n");
    expect("missing.c", "no such file");
    tear_down();
}

Test(roots, refuse_all_paths_where_the_kernel_cannot_hold_them)
{
    struct sock_filter lines[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat2, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { sizeof lines / sizeof *lines, lines };

    set_up();
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0))
        cr_skip_test("no seccomp here");
    expect("a.c", "this kernel cannot");
    tear_down();
}
