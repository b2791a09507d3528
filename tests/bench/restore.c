/* restore.c - a prefix of 2048 tokens out of the cache file: against computing it, and against a plain pread of the same bytes.
 *
 *   bench_restore [DIR]     DIR: a folder for the files, on the disk that is to be measured; default the current one
 *
 * The built-in model, and a model with the keys and values of llada2.1-mini and next to nothing besides: what a restore costs
 * depends on their size alone. Blocks go the way they go in the daemon: pool, exchange, keeper, SQLite. Warm: the file stands in the page
 * cache; cold: it was thrown out before. Prints, judges nothing but that what comes back is what went in.
 */
#include "core/base/clock.h"
#include "core/base/memory.h"
#include "core/base/random.h"
#include "core/decode/decoder.h"
#include "core/plugin.h"
#include "core/tools/shape.h"
#include "lsp/keeper.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TOKENS = 2048, BLOCK = 32, BLOCKS = TOKENS / BLOCK, ROUNDS = 9, PIECE = 1 << 20 };

typedef struct bench {
    rd_model *model;
    rd_kv_pool *pool;
    rd_kv_exchange *exchange;
    rd_keeper *keeper;
    rd_sequence sequence;
    rd_kv_geometry geometry;
    size_t block_bytes;
    int32_t tokens[TOKENS];
    char dir[4000];
} bench;

static void stop(const char *what, const rd_error *err)
{
    fprintf(stderr, "bench_restore: %s: %s\n", what, err->text);
    exit(1);
}

static int by_size(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;

    return (a > b) - (a < b);
}

static double median(double *ms, int n)
{
    qsort(ms, (size_t)n, sizeof *ms, by_size);
    return ms[n / 2];
}

/* ---- models ---- */

static rd_model *open_builtin(void)
{
    rd_model_options o = { .device = { .threads = 2, .precision = RD_FAST },
                           .max_rows = 384,
                           .kv_blocks = BLOCKS + 2 };
    char dir[4096];
    rd_model *m = NULL;
    rd_error err = { 0 };

    if (rd_engine_builtin(dir, sizeof dir, &err) || rd_backend_find("cpu", &o.backend, &err) ||
        rd_model_open(dir, &o, &m, &err))
        stop("the built-in model", &err);
    return m;
}

/* Layers, heads and their width of llada2.1-mini; a narrow stream and narrow experts. */
static rd_model *open_mini(void)
{
    rd_model_options o = { .device = { .threads = 2, .precision = RD_FAST },
                           .max_rows = 384,
                           .kv_blocks = BLOCKS + 2 };
    static rd_model_config c;
    rd_random_weights w;
    rd_model *m = NULL;
    rd_error err = { 0 };

    rd_shape_named("llada2.1-mini", &c);
    c.hidden_size = 256;
    c.intermediate_size = c.moe_intermediate_size = 128;
    c.num_attention_heads = c.num_key_value_heads;
    c.vocab_size = 4096;
    c.pad_token_id = 0;
    c.mask_token_id = 1;
    c.eos_count = 0;
    rd_weight_source from = rd_random_weights_init(&w, &c, RD_PACK_NONE, 1);

    if (rd_backend_find("cpu", &o.backend, &err) || rd_model_open_from(&c, &from, &o, &m, &err))
        stop("a model with the blocks of llada2.1-mini", &err);
    rd_random_weights_clear(&w);
    return m;
}

/* ---- blocks, as the daemon has them ---- */

static void open_pool(bench *b, const rd_kv_store *store)
{
    b->pool = rd_kv_pool_new(rd_model_kv_blocks(b->model), BLOCK);
    b->exchange = rd_kv_exchange_new(b->model, b->pool, store);
    b->sequence = (rd_sequence){ .model = b->model, .pool = b->pool, .exchange = b->exchange };
}

static void close_pool(bench *b)
{
    rd_sequence_clear(&b->sequence);
    rd_kv_exchange_free(b->exchange);
    rd_kv_pool_free(b->pool);
}

/* The prefix, from nothing; milliseconds. */
static double extend(bench *b, int loaded)
{
    rd_error err = { 0 };
    rd_kv_traffic t;
    double start = rd_now_ms();

    if (rd_sequence_extend(&b->sequence, b->tokens, TOKENS, NULL, &err)) stop("the prefix", &err);
    double ms = rd_now_ms() - start;

    rd_kv_exchange_stat(b->exchange, &t);
    if (t.loaded != loaded) {
        fprintf(stderr, "bench_restore: %d blocks were loaded, not %d\n", (int)t.loaded, loaded);
        exit(1);
    }
    return ms;
}

static rd_keeper *open_keeper(const bench *b, rd_kv_format format)
{
    rd_keeper *k = rd_keeper_new(&(rd_keeper_options){ .dir = b->dir, .format = format });

    rd_keeper_idle(k, true);
    return k;
}

/* Compute it once and have it written; keep a copy of what was computed. */
static double fill_file(bench *b, rd_kv_format format, char *copy)
{
    rd_keeper *k = open_keeper(b, format);
    rd_keeper_stats s;
    int waited = 0;

    open_pool(b, rd_keeper_store(k));
    double ms = extend(b, 0);

    for (int i = 0; i < BLOCKS; i++)
        memcpy(copy + (size_t)i * b->block_bytes, rd_model_kv_host(b->model, b->sequence.places[i]),
               b->block_bytes);
    for (rd_keeper_stat(k, &s); s.written < BLOCKS && waited < 600; rd_keeper_stat(k, &s)) {
        for (int i = 0; i < BLOCKS; i++) rd_kv_exchange_offer(b->exchange, b->sequence.blocks[i]);
        usleep(100000);
        waited++;
    }
    close_pool(b);
    rd_keeper_close(k);
    if (s.written < BLOCKS) {
        fprintf(stderr, "bench_restore: only %d blocks were written: %s\n", (int)s.written, s.why);
        exit(1);
    }
    return ms;
}

static void throw_out(const char *dir, const char *name)
{
    char path[4200];

    snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) return;
    fsync(fd);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
}

static double difference(const bench *b, const char *copy)
{
    float most = 0.0f;

    if (b->geometry.bytes_each != 4) return 0.0;
    for (int i = 0; i < BLOCKS; i++) {
        const float *is = rd_model_kv_host(b->model, b->sequence.places[i]);
        const float *was = (const float *)(const void *)(copy + (size_t)i * b->block_bytes);

        for (size_t n = 0; n < b->block_bytes / sizeof *is; n++) {
            float d = is[n] > was[n] ? is[n] - was[n] : was[n] - is[n];

            if (d > most) most = d;
        }
    }
    return (double)most;
}

/* ms[0]: with the opening of file and threads, as after a start; ms[1]: what a running daemon pays. */
static void restore(bench *b, rd_kv_format format, bool cold, const char *copy, double ms[2],
                    double *worst)
{
    rd_keeper *k = open_keeper(b, format);

    for (int again = 0; again < 2; again++) {
        if (cold) throw_out(b->dir, "cache.db");
        open_pool(b, rd_keeper_store(k));
        ms[again] = extend(b, BLOCKS);
        *worst = difference(b, copy);
        close_pool(b);
    }
    rd_keeper_close(k);
}

/* ---- the peer: the same bytes out of a flat file, into the same places ---- */

static void write_flat(const char *path, const char *bytes, size_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    for (size_t at = 0; fd >= 0 && at < n;) {
        ssize_t wrote = write(fd, bytes + at, n - at < PIECE ? n - at : PIECE);

        if (wrote <= 0) break;
        at += (size_t)wrote;
    }
    if (fd >= 0) fsync(fd), close(fd);
}

static double read_flat(bench *b, size_t each, bool cold)
{
    if (cold) throw_out(b->dir, "flat");
    char path[4200];

    snprintf(path, sizeof path, "%s/flat", b->dir);
    double start = rd_now_ms();
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    for (int i = 0; fd >= 0 && i < BLOCKS; i++) {
        char *to = rd_model_kv_host(b->model, i);

        for (size_t at = 0; at < each;) {
            size_t n = each - at < PIECE ? each - at : PIECE;
            ssize_t got = pread(fd, to + at, n, (off_t)((size_t)i * each + at));

            if (got <= 0) exit(1);
            at += (size_t)got;
        }
    }
    close(fd);
    return rd_now_ms() - start;
}

/* ---- a table ---- */

static void measure(bench *b, const char *name, rd_kv_format format, const char *format_name)
{
    size_t each = rd_kv_packed_bytes(format, &b->geometry);
    char *copy = rd_try_alloc((size_t)BLOCKS * b->block_bytes), path[4200];
    double first[2][ROUNDS], ours[2][ROUNDS], plain[2][ROUNDS], worst = 0.0;

    if (!each || !copy) return;
    rd_keeper *k = open_keeper(b, format);

    rd_keeper_forget(k, NULL);
    for (int i = 0; i < 100 && !rd_keeper_forgotten(k); i++) usleep(20000);
    rd_keeper_close(k);
    double computed = fill_file(b, format, copy);

    snprintf(path, sizeof path, "%s/flat", b->dir);
    write_flat(path, copy, (size_t)BLOCKS * each);
    for (int cold = 0; cold < 2; cold++)
        for (int r = 0; r < ROUNDS; r++) {
            double ms[2];

            plain[cold][r] = read_flat(b, each, cold);
            restore(b, format, cold, copy, ms, &worst);
            first[cold][r] = ms[0];
            ours[cold][r] = ms[1];
        }
    double mb = (double)BLOCKS * (double)each / 1e6;

    for (int cold = 0; cold < 2; cold++) {
        double o = median(ours[cold], ROUNDS), p = median(plain[cold], ROUNDS),
               f = median(first[cold], ROUNDS);

        printf(
            "%-14s %-5s %-5s %6.1f MB  restore %7.2f ms %6.2f GB/s (first %7.2f ms)  pread %7.2f "
            "ms %6.2f GB/s  ratio %.2f  computed %8.1f ms: %.0f x  largest error %.2g\n",
            name, format_name, cold ? "cold" : "warm", mb, o, mb / o, f, p, mb / p, p / o, computed,
            computed / o, worst);
    }
    unlink(path);
    free(copy);
}

static void measure_model(rd_model *m, const char *name, const char *parent)
{
    static const struct {
        rd_kv_format format;
        const char *name;
    } formats[] = { { RD_KV_RAW, "raw" }, { RD_KV_BF16, "bf16" }, { RD_KV_INT8, "int8" } };
    bench b = { .model = m, .block_bytes = rd_model_kv_bytes(m) };
    rd_random r = rd_random_seed(5);

    snprintf(b.dir, sizeof b.dir, "%s/bench-restore", parent);
    mkdir(b.dir, 0700);
    rd_model_kv_geometry(m, &b.geometry);
    for (int i = 0; i < TOKENS; i++) b.tokens[i] = 300 + (int32_t)rd_random_below(&r, 3000);
    for (size_t i = 0; i < 3; i++) measure(&b, name, formats[i].format, formats[i].name);
    rd_model_close(m);
}

int main(int argc, char **argv)
{
    char here[3800];
    const char *parent = argc > 1 ? realpath(argv[1], NULL) : getcwd(here, sizeof here);

    if (!parent || strlen(parent) >= sizeof here) {
        fprintf(stderr, "bench_restore: no such folder\n");
        return 1;
    }
    measure_model(open_builtin(), "builtin", parent);
    measure_model(open_mini(), "llada2.1-mini", parent);
    return 0;
}
