/* plugin.c - a backend as a shared object, for the tests of what loads one: the CPU's table under another name.
 *
 * Its name is that of its file, libredraft-NAME.so, so that copies of the one file are many plugins. The environment says
 * what is wrong with one, RD_FAKE_NAME:
 *   abi        it was built for the next interface       nothing   its entry gives no table
 *   small      its table ends before the first version   hole      a verb is missing
 *   name       it calls itself something else            old       its table ends where the first version did
 *   driver     its probe finds no driver
 *   full       there is no room for the first weight
 *   lost=N     once, at its Nth pass, the device is gone until it is closed
 *   dead=N     likewise, and every time that it was opened again
 */
#include "plugins/cpu/cpu.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* One name a library, so the state is the library's. */
static rd_backend table;
static char name[64], wrong[64];
static int passes, lose_at;
static bool again, lost;

static bool is_wrong(const char *how)
{
    return !strncmp(wrong, how, strlen(how));
}

static rd_status probe(rd_error *err)
{
    if (!is_wrong("driver")) return RD_OK;
    return rd_fail(err, RD_DEVICE, "no driver: libfake.so.1 is not there");
}

static rd_status take(rd_device *d, const rd_matrix *m, bool exact, rd_weight **out, rd_error *err)
{
    if (!is_wrong("full")) return rd_cpu_backend()->take(d, m, exact, out, err);
    return rd_fail(err, RD_NO_MEMORY,
                   "no memory for the weights: 95 GB are needed, 12 GB are free");
}

static rd_status begin(rd_device *d, int rows, rd_error *err)
{
    if (lose_at > 0 && ++passes == lose_at) lost = true;
    if (lost) return rd_fail(err, RD_DEVICE, "%s: the device is gone", name);
    return rd_cpu_backend()->begin(d, rows, err);
}

static void close_device(rd_device *d)
{
    if (lost && !again) lose_at = 0;
    if (lost) passes = 0;
    lost = false;
    rd_cpu_backend()->close(d);
}

static void describe(rd_device *d, rd_device_info *out)
{
    rd_cpu_backend()->describe(d, out);
    out->isa = "Fake 9000";
    out->threads = 0;
}

/* "libredraft-NAME.so" */
static void find_name(void)
{
    Dl_info info;
    const char *slash;
    char variable[80];

    if (!dladdr(&table, &info) || !(slash = strrchr(info.dli_fname, '/'))) abort();
    snprintf(name, sizeof name, "%s", slash + 1 + strlen("libredraft-"));
    name[strlen(name) - strlen(".so")] = 0;
    snprintf(variable, sizeof variable, "RD_FAKE_%s", name);
    snprintf(wrong, sizeof wrong, "%s", getenv(variable) ? getenv(variable) : "");
    again = is_wrong("dead=");
    if (again || is_wrong("lost=")) lose_at = atoi(wrong + 5);
}

/* The last bytes of a page that nothing follows: who reads beyond the size dies. */
static const rd_backend *old_table(void)
{
    size_t n = offsetof(rd_backend, ceilings);
    long page = sysconf(_SC_PAGESIZE);
    char *pages =
        mmap(NULL, 2 * (size_t)page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    rd_backend *t;

    if (pages == MAP_FAILED || mprotect(pages + page, (size_t)page, PROT_NONE)) abort();
    t = (rd_backend *)(pages + page - n);
    memcpy(t, &table, n);
    t->size = n;
    return t;
}

__attribute__((visibility("default"))) const rd_backend *rd_backend_entry(void);

const rd_backend *rd_backend_entry(void)
{
    find_name();
    table = *rd_cpu_backend();
    table.name = is_wrong("name") ? "somebody" : name;
    table.take = take;
    table.begin = begin;
    table.close = close_device;
    table.describe = describe;
    table.probe = probe;
    if (is_wrong("abi")) table = (rd_backend){ .abi = RD_BACKEND_ABI + 1 };
    if (is_wrong("small")) table.size = offsetof(rd_backend, pick);
    if (is_wrong("hole")) table.moe = NULL;
    if (is_wrong("nothing")) return NULL;
    return is_wrong("old") ? old_table() : &table;
}

/* What another module of the program may ask a plugin for. */
__attribute__((visibility("default"))) int rd_fake_answer(void);

int rd_fake_answer(void)
{
    return 42;
}
