/* bench.c - redraft bench: times of a model's passes beside what the machine can do.
 *
 * The model is a folder, the built-in one, or random weights in some shape made in memory. Tokens do not
 * matter but for the experts that they meet. Medians and minima over the runs; the ceilings are
 * measured last, when the model is gone, so that its memory is its own.
 */
#include "core/tools/bench_plan.h"

#include "core/base/clock.h"
#include "core/base/memory.h"
#include "core/engine.h"
#include "core/format/file.h"
#include "core/format/packed.h"
#include "core/plugin.h"
#include "core/tools/calls.h"
#include "core/tools/shape.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { REPEAT_MOST = 1000, REPEAT = 15, REPEAT_LEAST = 3 };
enum { CONTEXT_MOST = 1 << 20, CONFIG_BYTES = 1 << 20 };
static const double patience_ms = 10000.0; /* for one figure, where --repeat is not given */

/* A model at work. */
typedef struct bench {
    const rd_bench_plan *p;
    rd_model *m;
    rd_random_weights weights; /* of a model without a folder */
    rd_shape_size size;
    rd_random random;
    int32_t *tokens; /* [chunk or more], as they fall */
    int32_t *places; /* 0, 1, 2... */
    rd_pick *picks;
    int block, chunk;
    double weight_bytes; /* that the device holds for one number, where it is not packed */
} bench;

/* ---- times ---- */

typedef struct times {
    double ms[REPEAT_MOST];
    int n;
    double spent;
} times;

static int ascending(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;

    return (a > b) - (a < b);
}

/* Another run? The count asked for; or up to REPEAT, at least REPEAT_LEAST, while patience lasts. */
static bool wants_more(const rd_bench_plan *p, const times *t)
{
    if (p->repeat) return t->n < p->repeat;
    return t->n < REPEAT_LEAST || (t->n < REPEAT && t->spent < patience_ms);
}

static void add_time(times *t, double start)
{
    double ms = rd_now_ms() - start;

    t->ms[t->n++] = ms;
    t->spent += ms;
}

static rd_bench_time time_of(times *t)
{
    qsort(t->ms, (size_t)t->n, sizeof *t->ms, ascending);
    return (rd_bench_time){ t->ms[t->n / 2], t->ms[0], t->n };
}

/* ---- passes ---- */

static rd_status pass(bench *b, const int32_t *tokens, int rows, int past, bool keep, bool picks,
                      rd_error *err)
{
    rd_pick_query q = { .n_rows = rows };
    rd_pass p = { .tokens = tokens,
                  .rows = rows,
                  .past = b->places,
                  .past_blocks = past,
                  .keep = keep ? b->places + past : NULL,
                  .query = picks ? &q : NULL,
                  .picks = b->picks };

    return rd_forward(b->m, &p, err);
}

/* Distinct experts that the rows meet in a layer: the mean over the layers that have any. */
static rd_status count_experts(bench *b, const int32_t *tokens, int rows, int past, double *mean,
                               rd_error *err)
{
    const rd_model_config *c = rd_model_config_of(b->m);
    int layers = c->num_hidden_layers, first = c->first_k_dense_replace, met = 0;
    size_t each = (size_t)rows * (size_t)c->num_experts_per_tok;
    int32_t *chosen = rd_alloc_array(each * (size_t)layers, sizeof *chosen);
    int32_t **by_layer = rd_alloc_array((size_t)layers, sizeof *by_layer);
    bool *seen = rd_alloc_array((size_t)c->num_experts, sizeof *seen);
    rd_taps taps = { .router_idx = by_layer };
    rd_pass p = {
        .tokens = tokens, .rows = rows, .past = b->places, .past_blocks = past, .taps = &taps
    };

    for (int l = 0; l < layers; l++) by_layer[l] = chosen + (size_t)l * each;
    rd_status s = rd_forward(b->m, &p, err);

    for (int l = first; l < layers && !s; l++) {
        memset(seen, 0, (size_t)c->num_experts * sizeof *seen);
        for (size_t i = 0; i < each; i++) {
            met += !seen[by_layer[l][i]];
            seen[by_layer[l][i]] = true;
        }
    }
    *mean = layers > first ? (double)met / (layers - first) : 0.0;
    free(chosen);
    free(by_layer);
    free(seen);
    return s;
}

/* What one part of the weights gives to a pass: each byte read once, each number used by `rows` rows. */
static rd_bench_work work_of(const bench *b, const rd_shape_part *part, double read, double rows)
{
    double each =
        b->p->scheme ? (double)part->bytes / ((double)part->weights + 1e-9) : b->weight_bytes;

    return (rd_bench_work){ (double)part->weights * each * read,
                            2.0 * rows * (double)part->weights };
}

static void add_work(rd_bench_work *to, rd_bench_work more)
{
    to->bytes += more.bytes;
    to->ops += more.ops;
}

/* The pass in three phases that do not overlap of themselves. */
static void find_work(const bench *b, rd_bench_pass *p)
{
    const rd_model_config *c = rd_model_config_of(b->m);
    const rd_shape_size *size = &b->size;
    double experts = c->num_experts;

    p->dense = work_of(b, &size->dense, 1.0, p->rows);
    add_work(&p->dense, work_of(b, &size->head, 1.0, p->rows));
    p->experts_work = work_of(b, &size->experts, p->experts / experts,
                              (double)p->rows * c->num_experts_per_tok / experts);
    p->attention.bytes = (double)rd_model_kv_bytes(b->m) * p->context / b->block;
    p->attention.ops = 4.0 * c->num_hidden_layers * c->num_attention_heads * c->head_dim *
                       (double)p->rows * (p->context + p->rows);
}

static rd_status time_pass(bench *b, int context, int experts, times *t, rd_bench_pass *out,
                           rd_error *err)
{
    int rows = b->p->rows, past = context / b->block;
    int32_t *tokens = rd_alloc_array((size_t)rows, sizeof *tokens);
    rd_status s;

    rd_shape_tokens(rd_model_config_of(b->m), experts, rows, &b->random, tokens);
    *out = (rd_bench_pass){ .context = past * b->block, .rows = rows };
    t->n = 0;
    t->spent = 0.0;
    s = count_experts(b, tokens, rows, past, &out->experts, err); /* and warms the caches */
    if (!s) s = pass(b, tokens, rows, past, false, true, err);
    while (!s && wants_more(b->p, t)) {
        double start = rd_now_ms();

        s = pass(b, tokens, rows, past, false, true, err);
        add_time(t, start);
    }
    free(tokens);
    if (s) return s;
    out->time = time_of(t);
    find_work(b, out);
    return RD_OK;
}

/* The whole blocks of `tokens` tokens in passes of `chunk` rows, from nothing. */
static rd_status prefill(bench *b, int tokens, rd_error *err)
{
    for (int at = 0; at < tokens; at += b->chunk) {
        int rows = tokens - at < b->chunk ? tokens - at : b->chunk;

        if (pass(b, b->tokens, rows, at / b->block, true, false, err)) return err->status;
    }
    return RD_OK;
}

static rd_status time_prefill(bench *b, int tokens, times *t, rd_bench_prefill *out, rd_error *err)
{
    t->n = 0;
    t->spent = 0.0;
    while (wants_more(b->p, t)) {
        double start = rd_now_ms();

        if (prefill(b, tokens, err)) return err->status;
        add_time(t, start);
    }
    *out = (rd_bench_prefill){ tokens, time_of(t) };
    return RD_OK;
}

static rd_status time_head(bench *b, times *t, rd_bench *out, rd_error *err)
{
    int rows = b->p->rows;
    rd_pick_query q = { .n_rows = rows };

    t->n = 0;
    t->spent = 0.0;
    if (pass(b, b->tokens, rows, 0, false, true, err)) return err->status;
    while (wants_more(b->p, t)) {
        double start = rd_now_ms();

        if (rd_forward_picks(b->m, rows, &q, b->picks, err)) return err->status;
        add_time(t, start);
    }
    out->head = time_of(t);
    out->head_rows = rows;
    return RD_OK;
}

/* One block, four slots more a pass, and the pass that keeps its keys and values: the trace is scripted, what
 * the model picks is not looked at. */
static rd_status time_decode(bench *b, int context, int experts, times *t, rd_bench *out,
                             rd_error *err)
{
    const rd_model_config *c = rd_model_config_of(b->m);
    int past = context / b->block, forwards = 0;
    int32_t *open = rd_alloc_array((size_t)b->block, sizeof *open);
    int32_t *text = rd_alloc_array((size_t)b->block, sizeof *text);
    rd_status s = RD_OK;

    t->n = 0;
    t->spent = 0.0;
    rd_shape_tokens(c, experts, b->block, &b->random, text);
    while (!s && wants_more(b->p, t)) {
        double start = rd_now_ms();

        forwards = 0;
        for (int i = 0; i < b->block; i++) open[i] = (text[i] + c->num_experts) % c->vocab_size;
        for (int filled = 0; filled < b->block && !s; filled += 4, forwards++) {
            s = pass(b, open, b->block, past, false, true, err);
            for (int i = filled; i < filled + 4 && i < b->block; i++) open[i] = text[i];
        }
        if (!s) s = pass(b, open, b->block, past, true, false, err);
        forwards++;
        add_time(t, start);
    }
    free(open);
    free(text);
    if (s) return s;
    out->decode.tokens = b->block;
    out->decode.forwards = forwards;
    out->decode.context = past * b->block;
    out->decode.time = time_of(t);
    return RD_OK;
}

/* Keys and values for the contexts: a few blocks computed, the rest copies of them. */
static rd_status fill_storage(bench *b, rd_error *err)
{
    int blocks = rd_model_kv_blocks(b->m), computed = b->chunk / b->block;
    size_t bytes = rd_model_kv_bytes(b->m);
    char *copy;

    if (computed > blocks) computed = blocks;
    if (prefill(b, computed * b->block, err)) return err->status;
    copy = rd_try_alloc(bytes);
    if (!copy) return rd_fail(err, RD_NO_MEMORY, "no memory for a block: %zu MB", bytes >> 20);
    for (int i = 0; i < computed && !err->status; i++) {
        if (rd_model_kv_read(b->m, i, copy, err)) break;
        for (int k = i + computed; k < blocks && !err->status; k += computed)
            rd_model_kv_write(b->m, k, copy, err);
    }
    free(copy);
    return err->status;
}

static rd_status measure(bench *b, rd_bench *out, rd_error *err)
{
    const rd_bench_plan *p = b->p;
    times *t = rd_alloc0(sizeof *t);
    int lengths[RD_BENCH_PREFILLS], most = 0, n;

    for (int i = 0; i < p->n_contexts; i++) most = p->contexts[i] > most ? p->contexts[i] : most;
    if (fill_storage(b, err)) goto out;
    for (int i = 0; i < p->n_contexts; i++)
        for (int k = 0; k < p->n_experts && out->n_passes < RD_BENCH_PASSES; k++)
            if (time_pass(b, p->contexts[i], p->experts[k], t, &out->passes[out->n_passes++], err))
                goto out;
    if (time_head(b, t, out, err) || time_decode(b, p->contexts[0], p->experts[0], t, out, err))
        goto out;
    n = rd_bench_prefill_lengths(p, most, b->block, lengths);
    for (int i = 0; i < n; i++)
        if (time_prefill(b, lengths[i], t, &out->prefills[out->n_prefills++], err)) goto out;
out:
    free(t);
    return err->status;
}

/* ---- opening ---- */

/* Bytes that the device holds, less what is no weight, for each number of the shape. */
static rd_status weigh(bench *b, double *held, rd_error *err)
{
    const rd_model_config *c = rd_model_config_of(b->m);
    rd_device_info info;

    if (rd_shape_measure(c, b->p->scheme, &b->size, err)) return err->status;
    rd_model_describe(b->m, &info);
    double wide = (c->num_attention_heads + 2.0 * c->num_key_value_heads) * c->head_dim;
    double views = 4.0 * rd_model_max_rows(b->m) *
                   (3.0 * c->hidden_size + wide + (double)c->num_attention_heads * c->head_dim);
    double kv = (double)rd_model_kv_bytes(b->m) * rd_model_kv_blocks(b->m);

    *held = (double)info.bytes;
    b->weight_bytes = b->p->device.weights == RD_FORM_FP8 ? 1.0 + 4.0 / (128 * 128) : 2.0;
    if (!rd_bench_on_host(b->p)) return RD_OK; /* its memory holds more than weights */
    b->weight_bytes = ((double)info.bytes - views - kv) / (double)b->size.weights;
    return RD_OK;
}

static rd_status open_bench(const rd_bench_plan *p, bench *b, rd_bench *out, rd_error *err)
{
    rd_model_options o = { .backend = p->backend,
                           .device = p->device,
                           .max_rows = RD_BENCH_CHUNK,
                           .kv_blocks = rd_bench_kv_blocks(p) };
    int room, blocks = o.kv_blocks;
    double held = 0.0, start = rd_now_ms();

    *b = (bench){ .p = p, .random = rd_random_seed(1) };
    if (rd_bench_open_model(p, &o, &b->weights, &b->m, err)) return err->status;
    out->load_ms = rd_now_ms() - start;
    b->block = rd_model_block_size(b->m);
    b->chunk = rd_model_max_rows(b->m) / b->block * b->block;
    room = b->chunk > p->rows ? b->chunk : p->rows;
    b->tokens = rd_alloc_array((size_t)room, sizeof *b->tokens);
    b->picks = rd_alloc_array((size_t)room, sizeof *b->picks);
    b->places = rd_alloc_array((size_t)blocks, sizeof *b->places);
    rd_shape_tokens(rd_model_config_of(b->m), 0, room, &b->random, b->tokens);
    for (int i = 0; i < blocks; i++) b->places[i] = i;
    if (weigh(b, &held, err)) return err->status;
    out->held_mb = held * 1e-6;
    return RD_OK;
}

static void close_bench(bench *b)
{
    rd_model_close(b->m);
    rd_random_weights_clear(&b->weights);
    free(b->tokens);
    free(b->places);
    free(b->picks);
    *b = (bench){ 0 };
}

static int run_bench(const rd_args *a, const rd_bench_plan *p)
{
    rd_bench *out = rd_alloc0(sizeof *out);
    rd_error err = { 0 };
    rd_device_info info;
    struct rusage used;
    bench b = { 0 };
    int status = 0;

    out->shape = p->shape;
    out->backend = p->backend->name;
    out->weights = p->weights;
    out->int8 = p->scheme != RD_PACK_NONE;
    out->layers = p->config.num_hidden_layers;
    if (open_bench(p, &b, out, &err) || measure(&b, out, &err)) {
        status = rd_tool_fail(a, &err);
        goto out;
    }
    rd_model_describe(b.m, &info);
    out->isa = info.isa;
    out->threads = info.threads;
    getrusage(RUSAGE_SELF, &used);
    out->peak_rss_mb = (double)used.ru_maxrss * 1024.0 * 1e-6;
    close_bench(&b); /* names in `info` are the backend's, not the device's */
    if (p->backend->size > offsetof(rd_backend, ceilings) && p->backend->ceilings) {
        rd_device_options o = p->device;

        o.threads = out->threads;
        if (p->backend->ceilings(&o, &out->ceilings, &err)) {
            status = rd_tool_fail(a, &err);
            goto out;
        }
    }
    out->int8 = out->int8 && out->ceilings.int8_op_s > 0.0;
    if (rd_args_flag(a, "--json"))
        rd_bench_print_json(out);
    else
        rd_bench_print(out);
out:
    close_bench(&b);
    free(out);
    return status;
}

/* ---- the call ---- */

/* Numbers with commas between; 0 when it is not that, or one is out of range. */
static int numbers_of(const char *list, int least, int most, int *out)
{
    int n = 0;

    for (const char *at = list; n < RD_BENCH_LIST;) {
        char *end;
        long x = strtol(at, &end, 10);

        if (end == at || x < least || x > most) return 0;
        out[n++] = (int)x;
        if (!*end) return n;
        if (*end != ',') return 0;
        at = end + 1;
    }
    return 0;
}

/* The folder of a packed model: PATH itself, or where the weight file PATH lies. */
static char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/'), *dot = strrchr(path, '.');

    if (!dot || strcmp(dot, ".safetensors") != 0) return rd_copy_text(path, strlen(path));
    if (!slash) return rd_copy_text(".", 1);
    return rd_copy_text(path, slash > path ? (size_t)(slash - path) : 1);
}

/* What the file's matrices are made of, by its metadata or the first layer's attention. */
static rd_status weights_of(rd_bench_plan *p, rd_error *err)
{
    static const char name[] = "model.layers.0.attention.query_key_value.weight";
    rd_safetensors *file = NULL;
    const rd_tensor *t;

    if (rd_safetensors_open(p->folder, &file, err)) return err->status;
    t = rd_safetensors_find(file, name);
    p->scheme = rd_pack_named(rd_safetensors_meta(file, "redraft_quant"));
    p->weights = p->scheme == RD_PACK_INT4 ? "int4"
                 : !t                      ? "int8"
                 : t->dtype == RD_F32      ? "f32"
                 : t->dtype == RD_F16      ? "f16"
                                           : "bf16";
    rd_safetensors_close(file);
    return RD_OK;
}

static rd_status read_shape(const char *path, rd_model_config *out, rd_error *err)
{
    rd_buf text = { 0 };

    if (!rd_file_read(path, CONFIG_BYTES, &text, err))
        rd_config_parse(text.data ? text.data : "", text.len, path, out, err);
    rd_buf_clear(&text);
    return err->status;
}

/* The model of the call: `path` and `builtin` are room for names. Exit status, or -1 to go on. */
static int choose_model(const rd_args *a, rd_bench_plan *p, char **path, char *builtin,
                        size_t builtin_n)
{
    const char *shape = rd_args_text(a, "--shape"), *file = rd_args_text(a, "--file");
    const char *model = rd_args_text(a, "--model"), *weights = rd_args_text(a, "--weights");
    bool random = rd_args_flag(a, "--layers") || weights || rd_args_flag(a, "--experts") ||
                  rd_args_flag(a, "--check");
    rd_error err = { 0 };

    if (!!shape + !!file + !!model > 1)
        return rd_tool_usage(a, "--shape, --file and --model each name a model; one is enough");
    if ((file || model) && random)
        return rd_tool_usage(a, "--layers, --weights, --experts and --check want a --shape");
    p->weights = weights ? weights : "bf16";
    if (!strcmp(p->weights, "int8")) p->scheme = RD_PACK_INT8;
    if (!strcmp(p->weights, "int4")) p->scheme = RD_PACK_INT4;
    if (!strcmp(p->weights, "fp8")) p->device.weights = RD_FORM_FP8;
    if (!strcmp(p->weights, "fp8") && rd_bench_on_host(p))
        return rd_tool_usage(a, "--weights fp8: the CPU has none; bf16, int8 or int4");
    if (!p->scheme && !p->device.weights && strcmp(p->weights, "bf16") != 0)
        return rd_tool_usage(a, "--weights is %s; bf16, fp8, int8 or int4", p->weights);
    p->shape = shape ? shape : file ? file : model ? model : "builtin";
    if (!strcmp(p->shape, "builtin") && !file && !model) {
        if (rd_engine_builtin(builtin, builtin_n, &err)) return rd_tool_fail(a, &err);
        if (rd_config_read(builtin, &p->config, &err)) return rd_tool_fail(a, &err);
        if (random) return -1;
        p->folder = builtin;
    } else if (file || model) {
        p->folder = *path = folder_of(file ? file : model);
        if (rd_config_read(p->folder, &p->config, &err)) return rd_tool_fail(a, &err);
    } else if (!rd_shape_named(shape, &p->config)) {
        rd_status s = read_shape(shape, &p->config, &err);

        if (s == RD_NOT_FOUND)
            return rd_tool_usage(a,
                                 "--shape %s: llada2.1-mini, llada2.2-mini, llada2.1-flash, e8, "
                                 "e21, e46, dense-59m, builtin or a config.json",
                                 shape);
        if (s) return rd_tool_fail(a, &err);
    }
    if (p->folder && weights_of(p, &err)) return rd_tool_fail(a, &err);
    return -1;
}

/* The shape's layers, cut to --layers; a check takes one, with experts if the shape has any. */
static int choose_layers(const rd_args *a, rd_bench_plan *p)
{
    rd_model_config *c = &p->config;
    int layers = c->num_hidden_layers, given = 0;

    if (!rd_args_int(a, "--layers", 1, layers, &given)) return 2;
    if (rd_args_flag(a, "--check") && !given) {
        if (c->first_k_dense_replace < layers) c->first_k_dense_replace = 0;
        given = 1;
    }
    if (given) c->num_hidden_layers = given;
    if (c->first_k_dense_replace > c->num_hidden_layers)
        c->first_k_dense_replace = c->num_hidden_layers;
    return -1;
}

static int choose_experts(const rd_args *a, rd_bench_plan *p)
{
    const char *list = rd_args_text(a, "--experts");
    const rd_model_config *c = &p->config;

    p->n_experts = 1;
    p->experts[0] = 0;
    if (list) {
        p->n_experts = numbers_of(list, c->num_experts_per_tok, c->num_experts, p->experts);
        if (!p->n_experts)
            return rd_tool_usage(a, "--experts is %s; numbers from %d (of one token) to %d", list,
                                 c->num_experts_per_tok, c->num_experts);
    } else if (!p->folder && c->num_experts == 256) {
        /* What a block of the published models meets: 69.5 were measured, block routing has a cap. */
        p->experts[0] = c->expert_capacity > 0 ? c->expert_capacity : 70;
    }
    return -1;
}

int rd_tool_bench(const rd_args *a)
{
    const char *list = rd_args_text(a, "--context");
    rd_bench_plan p = { .device = { .isa = rd_args_text(a, "--isa"), .precision = RD_FAST },
                        .rows = 32,
                        .there = true };
    char builtin[4096], *path = NULL;
    rd_error err = { 0 };
    int status = -1;

    if (rd_args_count(a) > 0)
        return rd_tool_usage(a, "%s is not an option; bench takes no files", rd_args_at(a, 0));
    if (!rd_args_int(a, "--threads", 1, 256, &p.device.threads) ||
        !rd_args_int(a, "--rows", 1, RD_BENCH_CHUNK, &p.rows) ||
        !rd_args_int(a, "--repeat", 1, REPEAT_MOST, &p.repeat))
        return 2;
    p.n_contexts = numbers_of(list ? list : "0,512,1024", 0, CONTEXT_MOST, p.contexts);
    if (!p.n_contexts)
        return rd_tool_usage(a, "--context is %s; up to %d numbers from 0 to %d", list,
                             RD_BENCH_LIST, CONTEXT_MOST);
    if (rd_backend_find(rd_backend_for_isa(rd_args_text(a, "--backend"), p.device.isa), &p.backend,
                        &err))
        return rd_tool_fail(a, &err);
    status = choose_model(a, &p, &path, builtin, sizeof builtin);
    if (status < 0) status = choose_layers(a, &p);
    if (status < 0) status = choose_experts(a, &p);
    if (status < 0 && p.n_contexts * p.n_experts > RD_BENCH_PASSES)
        status = rd_tool_usage(a, "%d contexts by %d numbers of experts; %d in all at most",
                               p.n_contexts, p.n_experts, RD_BENCH_PASSES);
    if (status < 0) status = rd_args_flag(a, "--check") ? rd_bench_check(a, &p) : run_bench(a, &p);
    free(path);
    return status;
}
