/* cache.c - what a restore from the cache costs beside a plain pread of the same bytes, and what writing and counting cost.
 *
 * 64 blocks of 32 tokens are a prefix of 2048. Medians, of processor time where all is in memory
 * and of the clock where it is not; printed, never judged: ends with 1 only where a row came out wrong.
 * The folder is the first argument (else the current one); it must be on the disk in question for the cold figures.
 */
#include "cache/cache.h"
#include "core/base/clock.h"
#include "core/base/memory.h"
#include "core/base/random.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { BLOCKS = 64, TOKENS = 32, WARM = 15, COLD = 5 };

typedef struct bench {
    char dir[400], flat[420];
    size_t bytes; /* of a block */
    char *data, *to;
    rd_key model, keys[BLOCKS];
    int32_t tokens[TOKENS];
    rd_cache *cache;
} bench;

/* Of this thread: what is in memory costs nothing else, whatever runs beside it. */
static double cpu_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *ms, int n)
{
    qsort(ms, (size_t)n, sizeof *ms, ascending);
    return ms[n / 2];
}

static void fail(const char *what, const rd_error *err)
{
    fprintf(stderr, "bench_cache: %s: %s\n", what, err ? err->text : "");
    exit(1);
}

static void open_cache(bench *b)
{
    rd_error err = { 0 };

    if (rd_cache_open(&(rd_cache_options){ .dir = b->dir }, &b->cache, &err)) fail("open", &err);
}

/* Milliseconds of four transactions of 16 blocks, the log's move into the file included. */
static double store(bench *b)
{
    rd_cache_item items[16] = { 0 };
    rd_error err = { 0 };
    double from = rd_now_ms();

    for (int at = 0; at < BLOCKS; at += 16) {
        for (int i = 0; i < 16; i++)
            items[i] = (rd_cache_item){ .kind = RD_CACHE_BLOCK,
                                        .model = b->model,
                                        .key = b->keys[at + i],
                                        .tokens = b->tokens,
                                        .n_tokens = TOKENS,
                                        .format = 2,
                                        .data = b->data + (size_t)(at + i) * b->bytes,
                                        .bytes = b->bytes };
        if (rd_cache_put(b->cache, items, 16, NULL, &err)) fail("put", &err);
    }
    rd_cache_close(b->cache);
    double ms = rd_now_ms() - from;

    open_cache(b);
    return ms;
}

static void write_flat(const bench *b)
{
    int fd = open(b->flat, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    size_t all = b->bytes * BLOCKS;

    for (size_t at = 0; at < all;) {
        ssize_t n = write(fd, b->data + at, all - at);

        if (n <= 0) fail("write", NULL);
        at += (size_t)n;
    }
    fsync(fd);
    close(fd);
}

static double read_flat(const bench *b, double (*now_ms)(void))
{
    int fd = open(b->flat, O_RDONLY);
    double from = now_ms();

    for (int i = 0; i < BLOCKS; i++)
        for (size_t at = 0; at < b->bytes;) {
            ssize_t n = pread(fd, b->to + (size_t)i * b->bytes + at, b->bytes - at,
                              (off_t)((size_t)i * b->bytes + at));

            if (n <= 0) fail("pread", NULL);
            at += (size_t)n;
        }
    double ms = now_ms() - from;

    close(fd);
    return ms;
}

static double restore(bench *b, double (*now_ms)(void), double *count_ms)
{
    rd_cache_row row;
    rd_error err = { 0 };
    double from = now_ms();
    int have = rd_cache_count(b->cache, &b->model, b->keys, BLOCKS);

    *count_ms = now_ms() - from;
    if (have != BLOCKS) fail("count", NULL);
    for (int i = 0; i < BLOCKS; i++)
        if (rd_cache_row_open(b->cache, &b->model, &b->keys[i], b->tokens, TOKENS, &row, &err) ||
            rd_cache_row_read(b->cache, b->to + (size_t)i * b->bytes, row.bytes, &err) ||
            rd_cache_row_close(b->cache, &err))
            fail("read", &err);
    return now_ms() - from;
}

/* Out of the page cache: what is clean goes. */
static void forget(const char *path)
{
    int fd = open(path, O_RDONLY);

    if (fd < 0) return;
    fsync(fd);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
}

static void forget_cache(bench *b)
{
    char path[420];

    rd_cache_close(b->cache); /* a descriptor of ours that is closed would drop SQLite's locks */
    snprintf(path, sizeof path, "%s/cache.db", b->dir);
    forget(path);
    open_cache(b);
}

static void measure(bench *b)
{
    double flat[WARM], ours[WARM], counts[WARM], cold_flat[COLD], cold_ours[COLD], ignored;
    size_t all = b->bytes * BLOCKS;

    open_cache(b);
    double put = store(b);

    write_flat(b);
    for (int i = 0; i < WARM; i++) {
        flat[i] = read_flat(b, cpu_ms);
        ours[i] = restore(b, cpu_ms, &counts[i]);
    }
    if (memcmp(b->data, b->to, all) != 0) fail("bytes differ", NULL);
    for (int i = 0; i < COLD; i++) {
        forget(b->flat);
        cold_flat[i] = read_flat(b, rd_now_ms);
        forget_cache(b);
        cold_ours[i] = restore(b, rd_now_ms, &ignored);
    }
    rd_cache_close(b->cache);
    double f = median(flat, WARM), o = median(ours, WARM), cf = median(cold_flat, COLD),
           co = median(cold_ours, COLD), mb = (double)all / 1e6;

    printf(
        "%8zu bytes: warm %6.2f of %6.2f GB/s (%.2f); cold %6.0f of %6.0f MB/s (%.2f); write %5.0f "
        "MB/s; count %.3f ms\n",
        b->bytes, mb / o, mb / f, f / o, mb / co * 1e3, mb / cf * 1e3, cf / co, mb / put * 1e3,
        median(counts, WARM));
}

int main(int argc, char **argv)
{
    static const size_t sizes[] = { 98304, 196608, 1310720, 2621440 };
    char here[PATH_MAX], command[1000];
    rd_random r = rd_random_seed(1);

    if (!realpath(argc > 1 ? argv[1] : ".", here)) fail("the folder", NULL);
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        bench b = { .bytes = sizes[s] };
        size_t all = b.bytes * BLOCKS;
        rd_key_maker k;

        snprintf(b.dir, sizeof b.dir, "%.300s/bench-cache-%d", here, (int)getpid());
        snprintf(b.flat, sizeof b.flat, "%s.flat", b.dir);
        b.data = rd_try_alloc(all);
        b.to = rd_try_alloc(all);
        if (!b.data || !b.to) fail("no memory", NULL);
        for (size_t i = 0; i < all; i += 8) memcpy(b.data + i, &(uint64_t){ rd_random_u64(&r) }, 8);
        memset(b.to, 1, all);
        for (int i = 0; i < BLOCKS; i++) {
            rd_key_begin(&k, "bench");
            rd_key_add_number(&k, i);
            b.keys[i] = rd_key_end(&k);
        }
        b.model = b.keys[0];
        measure(&b);
        free(b.data);
        free(b.to);
        snprintf(command, sizeof command, "rm -rf '%s' '%s'", b.dir, b.flat);
        if (system(command)) return 1;
    }
    return 0;
}
