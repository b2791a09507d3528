/* fuzz_cache_file.c - libFuzzer: a good cache file in which some bytes are others; nothing but what was stored is served.
 *
 * The input is a list of changes (3 bytes of place, 1 of value), places counted over the pages that hold tables first.
 */
#include "tests/cache/store.h"

#include <sys/stat.h>

enum { ROWS = 3, BYTES = 40000 };

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n);

static char *dir, *good, path[300];
static size_t good_bytes;

static void make(void)
{
    rd_cache *c = NULL;
    struct stat st;

    dir = store_folder();
    snprintf(path, sizeof path, "%s/cache.db", dir);
    if (rd_cache_open(&(rd_cache_options){ .dir = dir }, &c, NULL)) abort();
    if (store_put(c, 0, ROWS, BYTES, 0, NULL)) abort();
    rd_cache_close(c);
    FILE *f = fopen(path, "rb");

    if (!f || fstat(fileno(f), &st)) abort();
    good_bytes = (size_t)st.st_size;
    good = malloc(good_bytes);
    if (!good || fread(good, 1, good_bytes, f) != good_bytes) abort();
    fclose(f);
}

static void write_changed(const unsigned char *data, size_t n)
{
    char *bytes = malloc(good_bytes);
    FILE *f = fopen(path, "wb");

    if (!bytes || !f) abort();
    memcpy(bytes, good, good_bytes);
    for (; n >= 4; data += 4, n -= 4)
        bytes[(size_t)(data[0] | data[1] << 8 | data[2] << 16) % good_bytes] = (char)data[3];
    if (fwrite(bytes, 1, good_bytes, f) != good_bytes) abort();
    fclose(f);
    chmod(path, 0600);
    free(bytes);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n)
{
    rd_cache *c = NULL;
    rd_cache_stats stats;
    int64_t rows, bad;
    rd_error err;

    if (!dir) make();
    write_changed(data, n);
    if (rd_cache_open(&(rd_cache_options){ .dir = dir }, &c, NULL)) return 0;
    for (int64_t k = 0; k < ROWS; k++)
        if (store_get(c, k, BYTES, &err) == RD_INVALID) __builtin_trap();
    rd_cache_stat(c, &stats, NULL);
    store_put(c, 0, ROWS, BYTES, 0, NULL);
    rd_cache_verify(c, &rows, &bad, NULL);
    rd_cache_close(c);
    return 0;
}
