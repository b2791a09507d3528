/* bench.c - redraft bench: times of a model's passes beside what the machine can do.
 *
 * Medians and minima over --repeat runs, on tokens that do not matter. The ceilings are measured in the same
 * run: reading memory, and bf16 products of the size that fits the caches, on as many threads.
 */
#include "core/tools/calls.h"

#include "core/base/clock.h"
#include "core/base/memory.h"
#include "core/base/random.h"
#include "core/engine.h"
#include "core/format/tokenizer.h"
#include "core/model/model.h"
#include "core/plugin.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { REPEAT_MOST = 1000, READ_BYTES = 64 << 20, SIDE = 512, THREADS_MOST = 64 };

typedef struct times {
    double ms[REPEAT_MOST];
    int n;
} times;

static int ascending(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;

    return (a > b) - (a < b);
}

static double median(times *t)
{
    qsort(t->ms, (size_t)t->n, sizeof *t->ms, ascending);
    return t->n ? t->ms[t->n / 2] : 0.0;
}

/* ---- ceilings ---- */

typedef struct ceiling {
    const rd_backend *backend;
    double bytes_s, flop_s;
} ceiling;

static void *measure_ceiling(void *arg)
{
    ceiling *c = arg;
    size_t n = READ_BYTES / sizeof(uint64_t);
    uint64_t *p = rd_try_alloc(READ_BYTES), sum = 0;
    float *m = rd_alloc_array(3 * SIDE * SIDE, sizeof *m);
    rd_device *d = NULL;
    rd_device_options o = { .threads = 1, .precision = RD_FAST };

    if (p) {
        memset(p, 1, READ_BYTES);
        double start = rd_now_ms();

        for (int k = 0; k < 4; k++)
            for (size_t i = 0; i < n; i++) sum += p[i];
        c->bytes_s = 4.0 * READ_BYTES / (rd_now_ms() - start) * 1e3 + (double)(sum & 1) * 1e-9;
    }
    if (c->backend->gemm && !c->backend->open(&o, &d, NULL)) {
        double start;

        for (int k = 0; k < 9; k++) {
            if (k == 1) start = rd_now_ms();
            c->backend->gemm(d, false, true, SIDE, SIDE, SIDE, m, SIDE, m + SIDE * SIDE, SIDE, 0.0f,
                             m + 2 * SIDE * SIDE, SIDE, NULL);
            if (k == 8) c->flop_s = 8.0 * 2.0 * SIDE * SIDE * SIDE / (rd_now_ms() - start) * 1e3;
        }
        c->backend->close(d);
    }
    free(p);
    free(m);
    return NULL;
}

static ceiling measure_ceilings(const rd_backend *be, int threads)
{
    pthread_t id[THREADS_MOST];
    ceiling c[THREADS_MOST], all = { be, 0.0, 0.0 };
    int n = 0;

    for (; n < threads && n < THREADS_MOST; n++) {
        c[n] = (ceiling){ be, 0.0, 0.0 };
        if (pthread_create(&id[n], NULL, measure_ceiling, &c[n])) break;
    }
    for (int i = 0; i < n; i++) {
        pthread_join(id[i], NULL);
        all.bytes_s += c[i].bytes_s;
        all.flop_s += c[i].flop_s;
    }
    return all;
}

/* ---- passes ---- */

typedef struct bench {
    rd_model *m;
    int32_t *tokens, *places;
    int rows, repeat, block;
    const char *shape;
    double load_ms;
} bench;

/* Time one pass of `rows` behind `context` tokens; with `picks` the head is run as well. */
static rd_status time_pass(bench *b, int context, int rows, bool picks, bool keep, times *t,
                           rd_error *err)
{
    rd_pick *out = rd_alloc_array((size_t)rows, sizeof *out);
    rd_pick_query q = { .n_rows = rows };
    int past = context / b->block;
    rd_status s = RD_OK;

    t->n = 0;
    for (int i = 0; i < b->repeat + 2 && !s; i++) {
        rd_pass p = { .tokens = b->tokens,
                      .rows = rows,
                      .past = b->places,
                      .past_blocks = past,
                      .keep = keep ? b->places + past : NULL,
                      .query = picks ? &q : NULL,
                      .picks = out };
        double start = rd_now_ms();

        s = rd_forward(b->m, &p, err);
        if (i >= 2) t->ms[t->n++] = rd_now_ms() - start; /* the first two warm the caches */
    }
    free(out);
    return s;
}

static double pass_flops(const rd_model_config *c, int context, int rows, bool head)
{
    double h = c->hidden_size, dim = c->head_dim,
           qkv = (c->num_attention_heads + 2.0 * c->num_key_value_heads) * dim;
    double attention = 2.0 * h * (qkv + c->num_attention_heads * dim) +
                       4.0 * c->num_attention_heads * dim * (context + rows);
    double dense = 6.0 * h * c->intermediate_size;
    double moe =
        6.0 * h * c->moe_intermediate_size * (c->num_experts_per_tok + c->num_shared_experts);
    int d = c->first_k_dense_replace, l = c->num_hidden_layers;

    return rows *
           (l * attention + d * dense + (l - d) * moe + (head ? 2.0 * h * c->vocab_size : 0.0));
}

static double peak_rss_mb(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return (double)u.ru_maxrss / 1024.0;
}

static int contexts_of(const char *list, int *out, int most)
{
    int n = 0;

    for (const char *at = list; *at && n < most;) {
        char *end;
        long x = strtol(at, &end, 10);

        if (end == at || x < 0 || x > 1 << 20) return -1;
        out[n++] = (int)x;
        at = *end == ',' ? end + 1 : end;
        if (*end && *end != ',') return -1;
    }
    return n;
}

static rd_status measure(bench *b, const int *contexts, int n, bool json, const rd_backend *be,
                         rd_error *err)
{
    const rd_model_config *c = rd_model_config_of(b->m);
    rd_device_info info;
    times *t = rd_alloc0(sizeof *t);
    double head;

    rd_model_describe(b->m, &info);
    ceiling top = measure_ceilings(be, info.threads);

    if (json)
        printf("{\"shape\":\"%s\",\"backend\":\"%s\",\"isa\":\"%s\",\"weights\":\"%s\",\"threads\":"
               "%d,\"passes\":[",
               b->shape, be->name, info.isa, "as-is", info.threads);
    else
        printf("%s on %s %s, %d threads; ceilings: %.1f GB/s read, %.0f GFLOP/s bf16 product\n",
               b->shape, be->name, info.isa, info.threads, top.bytes_s * 1e-9, top.flop_s * 1e-9);
    for (int i = 0; i < n; i++) {
        if (time_pass(b, contexts[i], b->rows, true, false, t, err)) goto out;
        double mid = median(t),
               share = pass_flops(c, contexts[i], b->rows, true) / (mid * 1e-3) / top.flop_s;

        if (json)
            printf("%s{\"context\":%d,\"rows\":%d,\"experts_per_layer\":%d,\"pass_ms\":{\"median\":"
                   "%.3f,"
                   "\"min\":%.3f},\"bytes_read\":%zu,\"share_of_ceiling\":%.3f}",
                   i ? "," : "", contexts[i], b->rows, c->num_experts, mid, t->ms[0], info.bytes,
                   share);
        else
            printf("pass    %4d rows, context %5d: %8.3f ms median, %8.3f min, %4.0f %% of the "
                   "product's ceiling\n",
                   b->rows, contexts[i], mid, t->ms[0], 100.0 * share);
    }
    if (time_pass(b, contexts[0], b->rows, false, false, t, err)) goto out;
    head = -median(t);
    if (time_pass(b, contexts[0], b->rows, true, false, t, err)) goto out;
    head += median(t);
    if (json) printf("],\"prefill\":[");
    int chunk = rd_model_max_rows(b->m), whole = 512 / chunk * chunk;

    if (whole < chunk) whole = chunk;
    t->n = 0;
    for (int r = 0; r < b->repeat + 2; r++) {
        double start = rd_now_ms();

        for (int at = 0; at < whole; at += chunk) {
            rd_pass p = { .tokens = b->tokens,
                          .rows = chunk,
                          .past = b->places,
                          .past_blocks = at / b->block,
                          .keep = b->places + at / b->block };

            if (rd_forward(b->m, &p, err)) goto out;
        }
        if (r >= 2) t->ms[t->n++] = rd_now_ms() - start;
    }
    double mid = median(t);

    if (json)
        printf("{\"tokens\":%d,\"tokens_per_s\":%.0f,\"ms\":{\"median\":%.3f,\"min\":%.3f}}],"
               "\"head_ms\":%.3f,"
               "\"decode\":{\"tokens\":0,\"forwards\":0,\"ms\":0},"
               "\"ceilings\":{\"read_gb_s\":%.2f,\"int8_gop_s\":0,\"bf16_gflop_s\":%.1f},"
               "\"load_ms\":%.1f,\"peak_rss_mb\":%.1f}\n",
               whole, whole / mid * 1e3, mid, t->ms[0], head, top.bytes_s * 1e-9, top.flop_s * 1e-9,
               b->load_ms, peak_rss_mb());
    else
        printf("prefill %4d tokens: %8.3f ms median, %8.3f min, %.0f tokens/s\nhead %8.3f ms\n"
               "load %8.1f ms, peak memory %.1f MB (the ceilings' buffers included)\n",
               whole, mid, t->ms[0], whole / mid * 1e3, head, b->load_ms, peak_rss_mb());
out:
    free(t);
    return err->status;
}

int rd_tool_bench(const rd_args *a)
{
    const char *shape = rd_args_text(a, "--shape"), *list = rd_args_text(a, "--context");
    const char *model = rd_args_text(a, "--model");
    rd_model_options o = { .device = { .isa = rd_args_text(a, "--isa"), .precision = RD_FAST },
                           .max_rows = 256 };
    bench b = { .rows = 32, .repeat = 15, .shape = model ? "file" : "builtin" };
    int contexts[16], n, most = 0;
    rd_random random = rd_random_seed(1);
    char dir[4096];
    rd_error err = { 0 };

    if (!rd_args_int(a, "--threads", 1, THREADS_MOST, &o.device.threads) ||
        !rd_args_int(a, "--rows", 1, 256, &b.rows) ||
        !rd_args_int(a, "--repeat", 1, REPEAT_MOST - 2, &b.repeat))
        return 2;
    n = contexts_of(list ? list : "0,512,1024", contexts, 16);
    if (n < 1) return rd_tool_usage(a, "--context is a list of numbers");
    if (shape && strcmp(shape, "builtin") != 0)
        return rd_tool_usage(a, "--shape %s is not there yet; builtin is, and --model DIR", shape);
    if (!model && rd_engine_builtin(dir, sizeof dir, &err)) return rd_tool_fail(a, &err);
    if (rd_backend_find(rd_args_text(a, "--backend"), &o.backend, &err))
        return rd_tool_fail(a, &err);
    for (int i = 0; i < n; i++) most = contexts[i] > most ? contexts[i] : most;
    o.kv_blocks = most / 4 + 160; /* enough for the smallest blocks */
    double start = rd_now_ms();

    if (rd_model_open(model ? model : dir, &o, &b.m, &err)) return rd_tool_fail(a, &err);
    b.load_ms = rd_now_ms() - start;
    b.block = rd_model_block_size(b.m);
    b.tokens = rd_alloc_array(1024, sizeof *b.tokens);
    b.places = rd_alloc_array((size_t)o.kv_blocks, sizeof *b.places);
    for (int i = 0; i < 1024; i++)
        b.tokens[i] =
            (int32_t)rd_random_below(&random, (uint32_t)rd_model_config_of(b.m)->vocab_size);
    for (int i = 0; i < o.kv_blocks; i++) b.places[i] = i;
    int status = 0;

    /* Fill the storage with numbers, so that no pass reads garbage. */
    for (int i = 0; i < most / b.block + 1 && !status; i++) {
        rd_pass p = { .tokens = b.tokens + i % 16 * b.block,
                      .rows = b.block,
                      .past = b.places,
                      .past_blocks = i,
                      .keep = b.places + i };

        if (rd_forward(b.m, &p, &err)) status = rd_tool_fail(a, &err);
    }
    if (!status && measure(&b, contexts, n, rd_args_flag(a, "--json"), o.backend, &err))
        status = rd_tool_fail(a, &err);
    free(b.tokens);
    free(b.places);
    rd_model_close(b.m);
    return status;
}
