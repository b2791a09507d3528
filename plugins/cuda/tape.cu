/* tape.cu - growing arrays, and a comparison. */
#include "plugins/cuda/tape.h"

extern "C" {
#include "core/base/memory.h"
}

#include <stdlib.h>
#include <string.h>

void cuda_tape_begin(cuda_tape *t, int rows)
{
    t->open = true;
    t->cut = false;
    t->rows = rows;
    t->commands = 0;
    t->args_bytes = 0;
    t->passes++;
}

void cuda_tape_add(cuda_tape *t, cuda_run run, const void *args, size_t bytes)
{
    size_t at = (t->args_bytes + 15) / 16 * 16;

    if (t->commands == t->commands_most) {
        t->commands_most = t->commands_most ? 2 * t->commands_most : 64;
        t->command = (cuda_command *)rd_resize(t->command, (size_t)t->commands_most, sizeof *t->command);
    }
    if (at + bytes > t->args_most) {
        t->args_most = 2 * (at + bytes) + 4096;
        t->args = (unsigned char *)rd_resize(t->args, t->args_most, 1);
    }
    memset(t->args + t->args_bytes, 0, at - t->args_bytes);
    memcpy(t->args + at, args, bytes);
    t->args_bytes = at + bytes;
    cuda_command *c = &t->command[t->commands++];

    c->run = run;
    c->at = at;
    c->bytes = bytes;
}

static bool same(const cuda_tape *t, const cuda_graph *g, size_t params_bytes)
{
    if (g->commands != t->commands || g->args_bytes != t->args_bytes || g->params_bytes != params_bytes)
        return false;
    for (int i = 0; i < t->commands; i++)
        if (g->command[i].run != t->command[i].run || g->command[i].at != t->command[i].at ||
            g->command[i].bytes != t->command[i].bytes)
            return false;
    return !memcmp(g->args, t->args, t->args_bytes);
}

cuda_graph *cuda_tape_find(cuda_tape *t, size_t params_bytes)
{
    for (int i = 0; i < t->graphs; i++) {
        if (!same(t, &t->graph[i], params_bytes)) continue;
        t->graph[i].used = t->passes;
        return &t->graph[i];
    }
    return NULL;
}

static uint64_t hash(uint64_t h, const void *data, size_t n)
{
    const unsigned char *p = (const unsigned char *)data;

    for (size_t i = 0; i < n; i++) h = (h ^ p[i]) * 0x100000001b3u; /* FNV-1a */
    return h;
}

bool cuda_tape_seen(cuda_tape *t, size_t params_bytes)
{
    uint64_t h = hash(0xcbf29ce484222325u, t->args, t->args_bytes);

    h = hash(h, t->command, (size_t)t->commands * sizeof *t->command);
    h = hash(h, &params_bytes, sizeof params_bytes);
    for (size_t i = 0; i < sizeof t->seen / sizeof *t->seen; i++)
        if (t->seen[i] == h) return true;
    t->seen[t->seen_at++ % (sizeof t->seen / sizeof *t->seen)] = h;
    return false;
}

cuda_graph *cuda_tape_keep(cuda_tape *t, size_t params_bytes, cudaGraphExec_t *old)
{
    cuda_graph *g = &t->graph[0];

    *old = NULL;
    if (t->graphs < CUDA_GRAPHS) {
        g = &t->graph[t->graphs++];
    } else {
        for (int i = 1; i < t->graphs; i++)
            if (t->graph[i].used < g->used) g = &t->graph[i];
        *old = g->exec;
        free(g->command);
        free(g->args);
    }
    memset(g, 0, sizeof *g);
    g->command = (cuda_command *)rd_alloc_array((size_t)t->commands + 1, sizeof *g->command);
    memcpy(g->command, t->command, (size_t)t->commands * sizeof *g->command);
    g->commands = t->commands;
    g->args = (unsigned char *)rd_alloc_array(t->args_bytes + 1, 1);
    memcpy(g->args, t->args, t->args_bytes);
    g->args_bytes = t->args_bytes;
    g->params_bytes = params_bytes;
    g->used = t->passes;
    return g;
}

void cuda_tape_forget(cuda_tape *t)
{
    for (int i = 0; i < t->graphs; i++) {
        free(t->graph[i].command);
        free(t->graph[i].args);
    }
    t->graphs = 0;
}

void cuda_tape_clear(cuda_tape *t)
{
    cuda_tape_forget(t);
    free(t->command);
    free(t->args);
    memset(t, 0, sizeof *t);
}
