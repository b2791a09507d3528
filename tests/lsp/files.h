/* files.h - a folder of its own for a test that needs files: made, filled, removed. */
#ifndef RD_TESTS_LSP_FILES_H
#define RD_TESTS_LSP_FILES_H

#include <criterion/criterion.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char home[64];

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st, (void)kind, (void)at;
    return remove(path);
}

static void make_home(void)
{
    char name[] = "/tmp/rd-test-XXXXXX", *real;

    cr_assert(mkdtemp(name));
    real = realpath(name, NULL);
    snprintf(home, sizeof home, "%s", real);
    free(real);
}

static void remove_home(void)
{
    nftw(home, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* "HOME/NAME" in one of a few buffers that take turns. */
static const char *in_home(const char *name)
{
    static char paths[8][512];
    static int turn;
    char *path = paths[turn++ % 8];

    snprintf(path, sizeof paths[0], "%s/%s", home, name);
    return path;
}

/* With the folders above it. */
__attribute__((unused)) static const char *put(const char *name, const char *text)
{
    const char *path = in_home(name);
    char part[512];

    for (const char *s = path + strlen(home) + 1; (s = strchr(s, '/')); s++) {
        snprintf(part, sizeof part, "%.*s", (int)(s - path), path);
        mkdir(part, 0700);
    }
    FILE *f = fopen(path, "w");

    cr_assert(f, "%s", path);
    fputs(text, f);
    fclose(f);
    return path;
}

#endif
