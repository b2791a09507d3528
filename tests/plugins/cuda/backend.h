/* backend.h - which CUDA backend a test is about.
 *
 * A test is built twice: against the backend on the emulated GPU (RD_TEST_EMULATED), and, where there is nvcc, as a program that
 * loads the plugin and runs on a real one. Without a GPU the second skips, and says so; where one must be there, RD_GPU_NEEDED
 * in the environment makes that a failure. Every test begins with GPU_OR_SKIP.
 */
#ifndef RD_TEST_CUDA_BACKEND_H
#define RD_TEST_CUDA_BACKEND_H

#include "core/backend.h"
#include "core/train/learner.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef RD_TEST_EMULATED
#include "plugins/cuda/cuda.h"
#include "tests/plugins/cuda/emulator/control.h"

const rd_learner_table *rd_learner_entry(void);

static inline const rd_learner_table *gpu_learner(void)
{
    return rd_learner_entry();
}

static inline const rd_backend *gpu_backend(void)
{
    return rd_backend_entry();
}

static inline void gpu_passes(const rd_device *d, int64_t *captured, int64_t *replayed,
                              int64_t *launched)
{
    cuda_passes(d, captured, replayed, launched);
}
#else
#include <dlfcn.h>

/* A symbol of the plugin: that of RD_GPU_PLUGIN in the environment, or the one just built. */
static inline void *gpu_symbol(const char *name)
{
    static void *plugin;
    const char *path = getenv("RD_GPU_PLUGIN");

    if (!plugin) plugin = dlopen(path ? path : RD_GPU_PLUGIN_BUILT, RTLD_NOW | RTLD_LOCAL);
    if (!plugin) {
        fprintf(stderr, "skipped: %s\n", dlerror());
        return NULL;
    }
    return dlsym(plugin, name);
}

static inline const rd_backend *gpu_backend(void)
{
    const rd_backend *(*entry)(void);
    void *found = gpu_symbol("rd_backend_entry");

    memcpy(&entry, &found, sizeof entry);
    return found ? entry() : NULL;
}

static inline const rd_learner_table *gpu_learner(void)
{
    rd_learner_entry_fn entry;
    void *found = gpu_symbol("rd_learner_entry");

    cr_assert(found);
    memcpy(&entry, &found, sizeof entry);
    return entry();
}

/* A real GPU is what it is: it has its own order of threads, and as many multiprocessors as it has. */
static inline void rd_emulated_order(uint64_t seed)
{
    (void)seed;
}

static inline void rd_emulated_device(int capability, int processors)
{
    (void)capability, (void)processors;
}

static inline void gpu_passes(const rd_device *d, int64_t *captured, int64_t *replayed,
                              int64_t *launched)
{
    void (*passes)(const rd_device *, int64_t *, int64_t *, int64_t *);
    void *found = gpu_symbol("cuda_passes");

    cr_assert(found);
    memcpy(&passes, &found, sizeof passes);
    passes(d, captured, replayed, launched);
}
#endif

static inline bool gpu_is_there(void)
{
    rd_device_options o = { .precision = RD_FAST };
    const rd_backend *be = gpu_backend();
    rd_device *d = NULL;
    rd_error err = { RD_DEVICE, "the plugin cannot be loaded" };
    rd_status s = be ? be->open(&o, &d, &err) : RD_DEVICE;

    if (!s) be->close(d);
    cr_assert(!s || !getenv("RD_GPU_NEEDED"), "a GPU is needed: %s", err.text);
    if (s) fprintf(stderr, "skipped, no GPU: %s\n", err.text);
    return !s;
}

#define GPU_OR_SKIP() \
    do { \
        if (!gpu_is_there()) cr_skip_test("no GPU"); \
    } while (0)

#endif
