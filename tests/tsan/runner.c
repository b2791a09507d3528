/* runner.c - runs the tests of one program, each in a process of its own, and says which went wrong. An
 * argument chooses the tests whose names contain it.
 *
 * The child's exit status is what counts: the sanitizer makes it 66 when it saw a race. Tests that ask for ten
 * minutes without the sanitizer would take hours with it; they are named as left out.
 */
#include "criterion/criterion.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { TOO_LONG_S = 600 };

static rd_shim_test *tests, *suites;
static bool failed; /* of the child's test */

void rd_shim_add(rd_shim_test *test)
{
    test->next = tests;
    tests = test;
}

void rd_shim_add_suite(rd_shim_test *suite)
{
    suite->next = suites;
    suites = suite;
}

/* Suites are made before or after their tests: by the time these run, all are there. */
static void follow_suite(rd_shim_test *t)
{
    const rd_shim_test *s = suites;

    while (s && strcmp(s->suite, t->suite) != 0) s = s->next;
    if (!s) return;
    if (!t->init) t->init = s->init;
    if (!t->fini) t->fini = s->fini;
    if (t->timeout <= 0) t->timeout = s->timeout;
}

void rd_shim_fail(bool fatal, const char *file, int line, const char *what, const char *format, ...)
{
    va_list args;

    fprintf(stderr, "%s:%d: %s:", file, line, what);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    failed = true;
    if (fatal) exit(1);
}

void rd_shim_skip(const char *file, int line, const char *format, ...)
{
    va_list args;

    fprintf(stderr, "%s:%d: skipped:", file, line);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(failed);
}

void rd_shim_log(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
}

static int run(const rd_shim_test *t)
{
    int status = 0;
    pid_t child;

    fflush(NULL);
    child = fork();
    if (child == 0) {
        if (t->init) t->init();
        t->run();
        if (t->fini) t->fini();
        exit(failed);
    }
    if (child < 0 || waitpid(child, &status, 0) != child) return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int main(int argc, char **argv)
{
    int done = 0, wrong = 0;

    for (rd_shim_test *t = tests; t; t = t->next) {
        follow_suite(t);
        if (argc > 1 && !strstr(t->name, argv[1])) continue;
        if (t->timeout >= TOO_LONG_S) {
            printf("left out, too long: %s::%s\n", t->suite, t->name);
            continue;
        }
        time_t start = time(NULL);
        int status = run(t);

        done++;
        wrong += status != 0;
        printf("%s %s::%s, %.0f s", status ? "FAILED:" : "passed", t->suite, t->name,
               difftime(time(NULL), start));
        printf(status ? ": exit status %d\n" : "\n", status);
    }
    printf("%d tests, %d failed\n", done, wrong);
    return done == 0 || wrong > 0;
}
