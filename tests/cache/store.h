/* store.h - what the tests of the cache share: a folder of their own, and rows whose bytes follow from their number. */
#ifndef RD_TEST_STORE_H
#define RD_TEST_STORE_H

#include "cache/cache.h"
#include "core/base/random.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { STORE_TOKENS = 32 };

/* Of a number: key, tokens, payload. Each payload begins with the text "payload-N-" over and over, so that it can be looked for. */
static inline rd_key store_key(const char *what, int64_t n)
{
    rd_key_maker k;

    rd_key_begin(&k, what);
    rd_key_add_number(&k, n);
    return rd_key_end(&k);
}

static inline void store_tokens(int64_t n, int32_t out[STORE_TOKENS])
{
    for (int i = 0; i < STORE_TOKENS; i++) out[i] = (int32_t)((n * 131 + i * 7) & 0xffff);
}

static inline void store_payload(int64_t n, char *out, size_t bytes)
{
    char mark[40];
    size_t len = (size_t)snprintf(mark, sizeof mark, "payload-%lld-", (long long)n);
    rd_random r = rd_random_seed((uint64_t)n);

    for (size_t at = 0; at < bytes; at++) out[at] = mark[at % len];
    for (size_t at = 4096; at + 8 <= bytes; at += 512) { /* not all alike */
        uint64_t w = rd_random_u64(&r);

        memcpy(out + at, &w, sizeof w);
    }
}

/* A block of `n` with its own memory for what it points at. */
typedef struct store_block {
    int32_t tokens[STORE_TOKENS];
    char *data;
    rd_cache_item item;
} store_block;

static inline void store_make(store_block *b, int64_t n, size_t bytes, int64_t source)
{
    store_tokens(n, b->tokens);
    b->data = malloc(bytes + 1);
    store_payload(n, b->data, bytes);
    b->item = (rd_cache_item){ .kind = RD_CACHE_BLOCK,
                               .model = store_key("model", 1),
                               .key = store_key("block", n),
                               .source = store_key("source", source),
                               .tokens = b->tokens,
                               .n_tokens = STORE_TOKENS,
                               .format = 2,
                               .data = b->data,
                               .bytes = bytes };
}

/* Put the blocks [from, to) in one transaction. */
static inline rd_status store_put(rd_cache *c, int64_t from, int64_t to, size_t bytes,
                                  int64_t source, rd_error *err)
{
    int n = (int)(to - from);
    store_block *b = calloc((size_t)n, sizeof *b);
    rd_cache_item *items = calloc((size_t)n, sizeof *items);

    for (int i = 0; i < n; i++) {
        store_make(&b[i], from + i, bytes, source);
        items[i] = b[i].item;
    }
    rd_status s = rd_cache_put(c, items, n, NULL, err);

    for (int i = 0; i < n; i++) free(b[i].data);
    free(b);
    free(items);
    return s;
}

/* RD_OK: there, and right. RD_INVALID: something else was served. */
static inline rd_status store_get(rd_cache *c, int64_t n, size_t bytes, rd_error *err)
{
    int32_t tokens[STORE_TOKENS];
    rd_key model = store_key("model", 1), key = store_key("block", n);
    rd_cache_row row;

    store_tokens(n, tokens);
    rd_status s = rd_cache_row_open(c, &model, &key, tokens, STORE_TOKENS, &row, err);

    if (s) return s;
    char *got = malloc(row.bytes + 1), *wanted = malloc(bytes + 1);

    s = rd_cache_row_read(c, got, row.bytes, err);
    rd_status end = rd_cache_row_close(c, s ? NULL : err);

    if (!s) s = end;
    store_payload(n, wanted, bytes);
    if (!s && (row.bytes != bytes || row.format != 2 || memcmp(got, wanted, bytes) != 0))
        s = rd_fail(err, RD_INVALID, "block %lld is not what was stored", (long long)n);
    free(got);
    free(wanted);
    return s;
}

static inline char *store_folder(void)
{
    static char path[200];
    const char *tmp = getenv("TMPDIR");

    snprintf(path, sizeof path, "%.150s/rd-cache-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(path)) abort();
    return path;
}

static inline void store_remove(const char *dir)
{
    char command[300];

    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    if (system(command)) abort();
}

#endif
