/* memory.c - checked allocation and the arena. */
#include "core/base/memory.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define CHUNK_BYTES ((size_t)16 * 1024)

struct rd_arena_chunk {
    struct rd_arena_chunk *next;
    size_t used, size;
    _Alignas(16) char data[];
};

static _Noreturn void out_of_memory(size_t bytes)
{
    fprintf(stderr, "redraft: out of memory (%zu bytes)\n", bytes);
    abort();
}

void *rd_alloc0(size_t bytes)
{
    void *p = calloc(1, bytes ? bytes : 1);

    if (!p) out_of_memory(bytes);
    return p;
}

void *rd_alloc_array(size_t count, size_t size)
{
    size_t bytes;

    if (!rd_mul(count, size, &bytes)) out_of_memory(SIZE_MAX);
    return rd_alloc0(bytes);
}

void *rd_resize(void *old, size_t count, size_t size)
{
    size_t bytes;

    if (!rd_mul(count, size, &bytes)) out_of_memory(SIZE_MAX);
    void *p = realloc(old, bytes ? bytes : 1);
    if (!p) out_of_memory(bytes);
    return p;
}

char *rd_copy_text(const char *text, size_t n)
{
    char *copy = rd_alloc0(n + 1);

    if (n) memcpy(copy, text, n);
    return copy;
}

void *rd_try_alloc(size_t bytes)
{
    void *p = NULL;

    if (posix_memalign(&p, 64, bytes ? bytes : 64)) return NULL;
    return p;
}

/* The number behind `key` in a file of the system, or the file's first where key is ""; SIZE_MAX: none. */
static size_t system_number(const char *path, const char *key)
{
    char line[128];
    size_t n = strlen(key), found = SIZE_MAX;
    FILE *f = fopen(path, "re");

    while (f && found == SIZE_MAX && fgets(line, sizeof line, f)) {
        const char *number = line + n;
        char *end;

        if (strncmp(line, key, n) != 0) continue;
        errno = 0;
        unsigned long long x = strtoull(number, &end, 10);

        if (end != number && !errno) found = (size_t)x;
    }
    if (f) fclose(f);
    return found;
}

static size_t lesser(size_t a, size_t limit, size_t used)
{
    if (limit == SIZE_MAX || used == SIZE_MAX) return a;
    limit = limit > used ? limit - used : 0;
    return a < limit ? a : limit;
}

size_t rd_memory_free(void)
{
    size_t kb = system_number("/proc/meminfo", "MemAvailable:"), pages;
    size_t left = kb < SIZE_MAX / 1024 ? kb * 1024 : SIZE_MAX;
    struct rlimit space;

    left = lesser(left, system_number("/sys/fs/cgroup/memory.max", ""),
                  system_number("/sys/fs/cgroup/memory.current", ""));
    left = lesser(left, system_number("/sys/fs/cgroup/memory/memory.limit_in_bytes", ""),
                  system_number("/sys/fs/cgroup/memory/memory.usage_in_bytes", ""));
    pages = system_number("/proc/self/statm", "");
    if (!getrlimit(RLIMIT_AS, &space) && space.rlim_cur != RLIM_INFINITY && pages != SIZE_MAX)
        left = lesser(left, (size_t)space.rlim_cur, pages * (size_t)sysconf(_SC_PAGESIZE));
    return left;
}

void *rd_try_alloc_array(size_t count, size_t size)
{
    size_t bytes;

    return rd_mul(count, size, &bytes) ? rd_try_alloc(bytes) : NULL;
}

bool rd_mul(size_t a, size_t b, size_t *out)
{
    size_t product;

    if (__builtin_mul_overflow(a, b, &product)) return false;
    *out = product;
    return true;
}

bool rd_add(size_t a, size_t b, size_t *out)
{
    size_t sum;

    if (__builtin_add_overflow(a, b, &sum)) return false;
    *out = sum;
    return true;
}

void *rd_arena_alloc0(rd_arena *a, size_t bytes)
{
    size_t want = (bytes + 15) & ~(size_t)15;

    if (want < bytes) out_of_memory(bytes);
    struct rd_arena_chunk *c = a->chunks;
    if (!c || c->size - c->used < want) {
        size_t size = want > CHUNK_BYTES ? want : CHUNK_BYTES;
        c = rd_alloc0(sizeof *c + size);
        c->size = size;
        c->next = a->chunks;
        a->chunks = c;
    }
    void *p = c->data + c->used;
    c->used += want;
    return p;
}

char *rd_arena_copy_text(rd_arena *a, const char *text, size_t n)
{
    char *copy = rd_arena_alloc0(a, n + 1);

    if (n) memcpy(copy, text, n);
    return copy;
}

void rd_arena_clear(rd_arena *a)
{
    while (a->chunks) {
        struct rd_arena_chunk *next = a->chunks->next;
        free(a->chunks);
        a->chunks = next;
    }
}
