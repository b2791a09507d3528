/* average.c - redraft average A B [C...] --out DIR. */
#include "core/tools/calls.h"

#include "core/train/average.h"

enum { MODELS_MOST = 64 };

int rd_tool_average(const rd_args *a)
{
    const char *dir[MODELS_MOST], *out = rd_args_text(a, "--out");
    int n = rd_args_count(a);
    rd_error err;

    if (n < 2 || n > MODELS_MOST || !out)
        return rd_tool_usage(a, "name two models or more (at most %d) and --out", MODELS_MOST);
    for (int i = 0; i < n; i++) dir[i] = rd_args_at(a, i);
    return rd_models_average(dir, n, out, &err) ? rd_tool_fail(a, &err) : 0;
}
