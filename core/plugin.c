/* plugin.c - a list with one entry that works, and the names of what may come. */
#include "core/plugin.h"

#include <string.h>

bool rd_backend_list(int i, const char **name, const char **refused)
{
    static const char *const names[] = { "cpu", "cuda" };
    static const char *const reasons[] = { NULL, "not built into this version" };

    if (i < 0 || i >= (int)(sizeof names / sizeof *names)) return false;
    *name = names[i];
    *refused = reasons[i];
    return true;
}

rd_status rd_backend_find(const char *name, const rd_backend **out, rd_error *err)
{
    const char *known, *refused;

    if (!name || !strcmp(name, "auto") || !strcmp(name, "cpu")) {
        *out = rd_cpu_backend();
        return RD_OK;
    }
    for (int i = 0; rd_backend_list(i, &known, &refused); i++)
        if (!strcmp(known, name))
            return rd_fail(err, RD_NOT_FOUND, "backend %s: %s", name, refused);
    return rd_fail(err, RD_NOT_FOUND, "no backend is called %s; redraft plugins lists them", name);
}
