/* conformance.c - walks folders of recorded cases and compares: forward passes, caches, decode traces,
 * tokenizers.
 *
 * A model folder has golden.json; a tokenizer folder has golden.json beside tokenizer.json. A case prints one
 * line. Tolerances are those of the recorded data's own description. Models are opened in RD_EXACT, once
 * for each block length.
 */
#include "core/tools/calls.h"

#include "core/base/memory.h"
#include "core/decode/decoder.h"
#include "core/format/file.h"
#include "core/format/record.h"
#include "core/format/tokenizer.h"
#include "core/plugin.h"

#include <dirent.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { DEPTH_MOST = 16, ROWS_MOST = 8192 };

typedef struct tolerance {
    double absolute, relative;
} tolerance;

static const tolerance of_logits = { 5e-4, 1e-4 }, of_hidden = { 2e-4, 1e-4 };
static const double of_weight = 2e-5, of_conf = 1e-3;

typedef struct report {
    int passed, failed, skipped;
    const rd_backend *backend;
    rd_device_options device;
    const char *dump;
} report;

typedef struct folder {
    report *r;
    const char *dir;
    char name[128]; /* the folder's own */
    rd_model_config config;
    rd_safetensors *tensors;
    rd_tensor *dumped;
    int dumped_n;
} folder;

static void pass_case(report *r, const char *where, const char *name)
{
    r->passed++;
    printf("pass %s/%s\n", where, name);
}

static void say(report *r, const char *where, const char *name, bool skip, const char *format, ...)
{
    va_list args;

    if (skip)
        r->skipped++;
    else
        r->failed++;
    printf("%s %s/%s: ", skip ? "skip" : "FAIL", where, name);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
}

/* ---- comparing ---- */

/* The worst of n numbers, in units of what is allowed; its place in *at. */
static double worst(const float *got, const float *want, size_t n, tolerance t, size_t *at)
{
    double most = 0.0;

    for (size_t i = 0; i < n; i++) {
        double off = fabs((double)got[i] - (double)want[i]);
        double share = off / (t.absolute + t.relative * fabs((double)want[i]));

        if (!(share <= most)) { /* NaN counts as the worst */
            most = isnan(share) ? INFINITY : share;
            *at = i;
        }
    }
    return most;
}

static const float *tensor_of(const folder *f, const char *name, size_t n)
{
    const rd_tensor *t = rd_safetensors_find(f->tensors, name);

    return t && t->dtype == RD_F32 && t->bytes == n * sizeof(float) &&
                   (uintptr_t)t->data % sizeof(float) == 0
               ? t->data
               : NULL;
}

/* True where it agrees; says what does not. */
static bool agree(const folder *f, const char *name, const char *tensor, const float *got, size_t n,
                  tolerance t)
{
    const float *want = tensor_of(f, tensor, n);
    size_t at = 0;

    if (!want) {
        say(f->r, f->name, name, false, "the tensor %s is missing or not F32 of %zu numbers",
            tensor, n);
        return false;
    }
    double off = worst(got, want, n, t, &at);

    if (off <= 1.0) return true;
    say(f->r, f->name, name, false, "%s[%zu] is %.7g, recorded %.7g: %.1f times what is allowed",
        tensor, at, (double)got[at], (double)want[at], off);
    return false;
}

static void keep_dump(folder *f, const char *name, const float *data, int rows, int cols)
{
    size_t bytes = (size_t)rows * (size_t)cols * sizeof *data;

    if (!f->r->dump) return;
    f->dumped = rd_resize(f->dumped, (size_t)f->dumped_n + 1, sizeof *f->dumped);
    void *copy = rd_alloc_array(bytes, 1);

    memcpy(copy, data, bytes);
    f->dumped[f->dumped_n++] = (rd_tensor){ .name = rd_copy_text(name, strlen(name)),
                                            .dtype = RD_F32,
                                            .rank = 2,
                                            .shape = { rows, cols },
                                            .data = copy,
                                            .bytes = bytes };
}

/* ---- forward cases ---- */

typedef struct fcase {
    const char *name, *logits;
    rd_ids ids, positions;
    int block; /* 0: everything sees everything */
    rd_value value;
} fcase;

static rd_status open_model(const folder *f, int block, int rows, rd_model **out, rd_error *err)
{
    rd_model_options o = { .backend = f->r->backend,
                           .device = f->r->device,
                           .block_size = block,
                           .max_rows = rows,
                           .kv_blocks = rows / block + 2 };

    return rd_model_open(f->dir, &o, out, err);
}

static const char *text_of(rd_value v)
{
    size_t n;

    return rd_value_text(v, &n);
}

static bool has_detail(rd_value list, const char *name)
{
    for (int i = 0; i < rd_value_count(list); i++) {
        const char *s = text_of(rd_value_at(list, i));

        if (s && !strcmp(s, name)) return true;
    }
    return false;
}

typedef struct details {
    rd_taps taps;
    int layers, rows;
} details;

static void details_alloc(details *d, const rd_model_config *c, int rows)
{
    size_t hidden = (size_t)rows * (size_t)c->hidden_size, layers = (size_t)c->num_hidden_layers;

    d->layers = c->num_hidden_layers;
    d->rows = rows;
    d->taps.embeddings = rd_alloc_array(hidden, sizeof(float));
    d->taps.final_norm = rd_alloc_array(hidden, sizeof(float));
    d->taps.logits = rd_alloc_array((size_t)rows * (size_t)c->vocab_size, sizeof(float));
    d->taps.attn_out = rd_alloc_array(layers, sizeof(float *));
    d->taps.mlp_out = rd_alloc_array(layers, sizeof(float *));
    d->taps.layer_out = rd_alloc_array(layers, sizeof(float *));
    d->taps.router_logits = rd_alloc_array(layers, sizeof(float *));
    d->taps.router_weight = rd_alloc_array(layers, sizeof(float *));
    d->taps.router_idx = rd_alloc_array(layers, sizeof(int32_t *));
    for (size_t l = 0; l < layers; l++) {
        d->taps.attn_out[l] = rd_alloc_array(hidden, sizeof(float));
        d->taps.mlp_out[l] = rd_alloc_array(hidden, sizeof(float));
        d->taps.layer_out[l] = rd_alloc_array(hidden, sizeof(float));
        d->taps.router_logits[l] =
            rd_alloc_array((size_t)rows * (size_t)c->num_experts + 1, sizeof(float));
        d->taps.router_weight[l] =
            rd_alloc_array((size_t)rows * (size_t)c->num_experts_per_tok + 1, sizeof(float));
        d->taps.router_idx[l] =
            rd_alloc_array((size_t)rows * (size_t)c->num_experts_per_tok + 1, sizeof(int32_t));
    }
}

static void details_free(details *d)
{
    for (int l = 0; l < d->layers; l++) {
        free(d->taps.attn_out[l]);
        free(d->taps.mlp_out[l]);
        free(d->taps.layer_out[l]);
        free(d->taps.router_logits[l]);
        free(d->taps.router_weight[l]);
        free(d->taps.router_idx[l]);
    }
    free(d->taps.embeddings);
    free(d->taps.final_norm);
    free(d->taps.logits);
    free(d->taps.attn_out);
    free(d->taps.mlp_out);
    free(d->taps.layer_out);
    free(d->taps.router_logits);
    free(d->taps.router_weight);
    free(d->taps.router_idx);
}

/* Experts and their weights of one layer, as pairs without order. */
static bool agree_routes(const folder *f, const fcase *c, const details *d, int l)
{
    char idx_name[160], weight_name[160];
    size_t k = (size_t)f->config.num_experts_per_tok, n = (size_t)d->rows * k;

    snprintf(idx_name, sizeof idx_name, "%s.router_topk_idx.%d", c->name, l);
    snprintf(weight_name, sizeof weight_name, "%s.router_topk_weight.%d", c->name, l);
    const rd_tensor *idx = rd_safetensors_find(f->tensors, idx_name);
    const float *weight = tensor_of(f, weight_name, n);

    if (!idx || !weight || idx->dtype != RD_I32 || idx->bytes != n * 4) {
        say(f->r, f->name, c->name, false, "%s is missing or of another shape", idx_name);
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        int32_t want;
        bool found = false;

        memcpy(&want, (const char *)idx->data + 4 * i, 4);
        for (size_t j = i / k * k; j < i / k * k + k; j++) {
            if (d->taps.router_idx[l][j] != want) continue;
            found = fabs((double)d->taps.router_weight[l][j] - (double)weight[i]) <= of_weight;
        }
        if (found) continue;
        say(f->r, f->name, c->name, false,
            "layer %d, row %zu: expert %d is not chosen, or has another weight", l, i / k, want);
        return false;
    }
    return true;
}

static bool agree_details(const folder *f, const fcase *c, const details *d)
{
    rd_value list = rd_value_get(c->value, "details");
    size_t hidden = (size_t)d->rows * (size_t)f->config.hidden_size;
    char tensor[160];

    if (rd_value_count(list) == 0) return true;
    struct single {
        const char *what;
        const float *got;
    } singles[] = { { "embeddings", d->taps.embeddings }, { "final_norm", d->taps.final_norm } };
    struct many {
        const char *what;
        float **got;
        size_t n;
    } each[] = { { "attn_out", d->taps.attn_out, hidden },
                 { "mlp_out", d->taps.mlp_out, hidden },
                 { "layer_out", d->taps.layer_out, hidden },
                 { "router_logits", d->taps.router_logits,
                   (size_t)d->rows * (size_t)f->config.num_experts } };

    for (int i = 0; i < 2; i++) {
        snprintf(tensor, sizeof tensor, "%s.%s", c->name, singles[i].what);
        if (has_detail(list, tensor) &&
            !agree(f, c->name, tensor, singles[i].got, hidden, of_hidden))
            return false;
    }
    for (int l = 0; l < d->layers; l++) {
        for (int i = 0; i < 4; i++) {
            snprintf(tensor, sizeof tensor, "%s.%s.%d", c->name, each[i].what, l);
            if (has_detail(list, tensor) &&
                !agree(f, c->name, tensor, each[i].got[l], each[i].n, of_hidden))
                return false;
        }
        snprintf(tensor, sizeof tensor, "%s.router_topk_idx.%d", c->name, l);
        if (has_detail(list, tensor) && !agree_routes(f, c, d, l)) return false;
    }
    return true;
}

/* Keys and values as cached: block after block, [layer][K, V][kv_head][block][dim], against
 * [kv_heads, T, dim]. */
static bool agree_cache(const folder *f, const fcase *c, rd_model *m, int block,
                        const int32_t *keep)
{
    rd_value list = rd_value_get(c->value, "cache_tensors");
    int rows = c->ids.n, heads = f->config.num_key_value_heads, dim = f->config.head_dim;
    size_t head = (size_t)block * (size_t)dim, n = (size_t)heads * (size_t)rows * (size_t)dim;
    float *bytes = rd_alloc_array(rd_model_kv_bytes(m), 1), *all = rd_alloc_array(n, sizeof *all);
    bool ok = true;
    rd_error err;

    for (int i = 0; ok && i < rd_value_count(list); i++) {
        const char *tensor = text_of(rd_value_at(list, i));
        const char *layer = tensor ? strrchr(tensor, '.') : NULL;
        int l = layer ? (int)strtol(layer + 1, NULL, 10) : -1;
        bool value = tensor && strstr(tensor, ".cache_v.") != NULL;

        if (l < 0 || l >= f->config.num_hidden_layers) {
            say(f->r, f->name, c->name, false, "cache tensor %s names no layer",
                tensor ? tensor : "?");
            ok = false;
            break;
        }
        for (int b = 0; b * block < rows && ok; b++) {
            int len = rows - b * block < block ? rows - b * block : block;

            ok = rd_model_kv_read(m, keep[b], bytes, &err) == RD_OK;
            for (int h = 0; ok && h < heads; h++) {
                const float *from =
                    bytes + (((size_t)l * 2 + value) * (size_t)heads + (size_t)h) * head;

                memcpy(all + ((size_t)h * (size_t)rows + (size_t)(b * block)) * (size_t)dim, from,
                       (size_t)len * (size_t)dim * sizeof *all);
            }
        }
        ok = ok && agree(f, c->name, tensor, all, n, of_hidden);
    }
    free(bytes);
    free(all);
    return ok;
}

static void run_plain(folder *f, const fcase *c)
{
    int rows = c->ids.n, block = c->block > 0           ? c->block
                                 : rows < RD_BLOCK_MOST ? rows
                                                        : RD_BLOCK_MOST;
    int32_t *keep = rd_alloc_array((size_t)(rows / block + 1), sizeof *keep);
    rd_model *m = NULL;
    details d = { 0 };
    rd_error err = { 0 };

    details_alloc(&d, &f->config, rows);
    for (int b = 0; b * block < rows; b++) keep[b] = b;
    rd_pass pass = { .tokens = c->ids.id,
                     .positions = c->positions.n == rows ? c->positions.id : NULL,
                     .rows = rows,
                     .keep = keep,
                     .sight = c->block > 0 ? c->block : rows,
                     .taps = &d.taps };

    if (open_model(f, block, rows, &m, &err) || rd_forward(m, &pass, &err)) {
        say(f->r, f->name, c->name, false, "%s", err.text);
    } else {
        size_t n = (size_t)rows * (size_t)f->config.vocab_size;

        keep_dump(f, c->logits, d.taps.logits, rows, f->config.vocab_size);
        if (agree(f, c->name, c->logits, d.taps.logits, n, of_logits) && agree_details(f, c, &d) &&
            agree_cache(f, c, m, block, keep))
            pass_case(f->r, f->name, c->name);
    }
    rd_model_close(m);
    details_free(&d);
    free(keep);
}

static int greatest_common(int a, int b)
{
    return b ? greatest_common(b, a % b) : a;
}

static void run_cached(folder *f, const fcase *c)
{
    rd_value cached = rd_value_get(c->value, "cached");
    const char *tensor = text_of(rd_value_get(cached, "logits"));
    rd_ids ends = { 0 };
    char name[160];
    int rows = c->ids.n, block = c->block > 0 ? c->block : 0;
    rd_model *m = NULL;
    rd_error err = { 0 };

    snprintf(name, sizeof name, "%s.cached", c->name);
    if (!rd_value_ids(rd_value_get(cached, "forward_ends"), &ends) || !tensor || ends.n == 0 ||
        ends.id[ends.n - 1] != rows) {
        say(f->r, f->name, name, false, "forward_ends or logits are malformed");
        rd_ids_clear(&ends);
        return;
    }
    int tile = block;

    for (int i = 0; i + 1 < ends.n; i++) tile = greatest_common(tile, ends.id[i]);
    bool ordered = tile >= 1;

    for (int i = 0; i < ends.n; i++) ordered &= ends.id[i] > (i ? ends.id[i - 1] : 0);
    bool aligned = ordered;

    for (int i = 0; i + 1 < ends.n && block; i++) aligned &= ends.id[i] % block == 0;
    if (!ordered) {
        say(f->r, f->name, name, false, "forward_ends do not ascend");
    } else if (!aligned || tile > 4096) {
        say(f->r, f->name, name, true, "pieces that end inside a block");
    } else {
        size_t vocab = (size_t)f->config.vocab_size;
        float *logits = rd_alloc_array((size_t)rows * vocab, sizeof *logits);
        int32_t *places = rd_alloc_array((size_t)(rows / tile + 2), sizeof *places);

        for (int b = 0; b <= rows / tile; b++) places[b] = b;
        if (open_model(f, tile, rows, &m, &err)) goto out;
        for (int i = 0, start = 0; i < ends.n; start = ends.id[i++]) {
            rd_taps taps = { .logits = logits + (size_t)start * vocab };
            rd_pass pass = { .tokens = c->ids.id + start,
                             .positions = c->positions.n == rows ? c->positions.id + start : NULL,
                             .rows = ends.id[i] - start,
                             .past = places,
                             .past_blocks = start / tile,
                             .keep = places + start / tile,
                             .sight = block > 0 ? block : ends.id[i] - start,
                             .taps = &taps };

            if (rd_forward(m, &pass, &err)) goto out;
        }
        keep_dump(f, tensor, logits, rows, f->config.vocab_size);
        if (agree(f, name, tensor, logits, (size_t)rows * vocab, of_logits))
            pass_case(f->r, f->name, name);
    out:
        if (err.status) say(f->r, f->name, name, false, "%s", err.text);
        free(logits);
        free(places);
    }
    rd_model_close(m);
    rd_ids_clear(&ends);
}

static void run_forward_cases(folder *f, rd_value top)
{
    rd_value cases = rd_value_get(top, "forward_cases");

    for (int i = 0; i < rd_value_count(cases); i++) {
        fcase c = { .value = rd_value_at(cases, i) };

        c.name = text_of(rd_value_get(c.value, "name"));
        c.logits = text_of(rd_value_get(c.value, "logits"));
        c.block = (int)rd_value_int(rd_value_get(c.value, "block_length"), 0);
        if (!c.name || !c.logits || c.block < 0 ||
            !rd_value_ids(rd_value_get(c.value, "input_ids"), &c.ids) || c.ids.n < 1 ||
            c.ids.n > ROWS_MOST) {
            say(f->r, f->name, c.name ? c.name : "case", false, "forward case %d is malformed", i);
        } else {
            rd_value_ids(rd_value_get(c.value, "position_ids"), &c.positions);
            run_plain(f, &c);
            if (rd_value_get(c.value, "cached")) run_cached(f, &c);
        }
        rd_ids_clear(&c.ids);
        rd_ids_clear(&c.positions);
    }
}

/* ---- decode traces ---- */

static bool same_ids(rd_value list, const int32_t *ids, int n)
{
    rd_ids want = { 0 };
    bool same = rd_value_ids(list, &want) && want.n == n &&
                (n == 0 || !memcmp(want.id, ids, (size_t)n * sizeof *ids));

    rd_ids_clear(&want);
    return same;
}

static uint64_t bits_of(rd_value list)
{
    uint64_t bits = 0;

    for (int i = 0; i < rd_value_count(list); i++) {
        int64_t at = rd_value_int(rd_value_at(list, i), -1);

        if (at >= 0 && at < 64) bits |= (uint64_t)1 << at;
    }
    return bits;
}

static const char *compare_step(rd_value want, const rd_decoder_step *s, const rd_block *before,
                                bool v22)
{
    const rd_block *b = s->block;

    if (rd_value_get(want, "window_end") &&
        rd_value_int(rd_value_get(want, "window_end"), -1) != s->window_end)
        return "window_end";
    if (rd_value_get(want, "before") &&
        !same_ids(rd_value_get(want, "before"), before->token, before->size))
        return "before";
    if (!same_ids(rd_value_get(want, "after"), b->token, b->size)) return "after";
    if (v22) {
        if (!same_ids(rd_value_get(want, "before_edit_ops"), s->change->written, b->size))
            return "before_edit_ops";
        if (rd_value_bool(rd_value_get(want, "final_round"), false) != s->change->final_round)
            return "final_round";
        return NULL;
    }
    for (int i = 0; i < b->size; i++) {
        int64_t x0 = rd_value_int(rd_value_at(rd_value_get(want, "x0"), i), -1);
        double conf = rd_value_number(rd_value_at(rd_value_get(want, "conf"), i), -1.0);

        if (x0 != s->picks[i].token) return "x0";
        if (fabs(conf - (double)s->picks[i].prob) > of_conf) return "conf";
    }
    if (bits_of(rd_value_get(want, "m2t")) != s->change->filled) return "m2t";
    if (bits_of(rd_value_get(want, "t2t")) != s->change->edited) return "t2t";
    return NULL;
}

static rd_policy policy_of(const folder *f, rd_value c, rd_policy_kind kind, int32_t mask,
                           int block, int gen)
{
    rd_value p = rd_value_get(c, "params");
    rd_policy policy = rd_policy_dial(kind, 0.0f);
    int topk = (int)rd_value_int(rd_value_get(p, "minimal_topk"), 1);

    policy.ids = (rd_edit_ids){ mask, -1, -1 };
    policy.reference_quirks = true;
    policy.max_passes = (int)rd_value_int(rd_value_get(p, "max_steps_per_block"), 0);
    policy.threshold = (float)rd_value_number(rd_value_get(p, "threshold"), 0.95);
    policy.edit_threshold = (float)rd_value_number(rd_value_get(p, "editing_threshold"),
                                                   kind == RD_POLICY_DIFFUSERS ? 0.0 : 0.9);
    policy.max_post_steps = (int)rd_value_int(rd_value_get(p, "max_post_steps"), 16);
    policy.num_to_transfer = (int)rd_value_int(rd_value_get(p, "num_to_transfer"), 1);
    policy.steps = (int)rd_value_int(rd_value_get(p, "steps"), 32);
    if (kind == RD_POLICY_DIFFUSERS)
        policy.steps = (int)rd_value_int(rd_value_get(p, "num_inference_steps"), block);
    if (kind == RD_POLICY_20 && topk > 0 && policy.steps > gen / topk) policy.steps = gen / topk;
    if (kind == RD_POLICY_22) {
        policy.ids.del = f->config.delete_token_id;
        policy.ids.split = f->config.split_token_id;
    }
    return policy;
}

typedef struct trace {
    const char *name;
    rd_value value;
    rd_policy_kind kind;
    rd_ids prompt;
    int block, gen;
    int32_t mask, eos;
} trace;

static void replay(folder *f, const trace *t)
{
    int total = (t->prompt.n + t->gen + t->block - 1) / t->block * t->block;
    int window = f->config.expert_capacity > 0 ? f->config.block_size : 1;
    bool cached = t->kind != RD_POLICY_DIFFUSERS && t->block % window == 0;
    rd_model *m = NULL;
    rd_kv_pool *pool = NULL;
    rd_decoder *d = NULL;
    rd_decoder_step s = { 0 };
    rd_value steps = rd_value_get(t->value, "steps");
    rd_error err = { 0 };
    rd_ids output = { 0 };
    int at = 0;

    if (open_model(f, t->block, total, &m, &err)) goto out;
    if (cached) pool = rd_kv_pool_new(rd_model_kv_blocks(m), t->block);
    rd_decoder_options o = { .model = m,
                             .pool = pool,
                             .block = t->block,
                             .policy = policy_of(f, t->value, t->kind, t->mask, t->block, t->gen),
                             .stop = &t->eos,
                             .n_stop = t->kind != RD_POLICY_22,
                             .early_stop = rd_value_bool(
                                 rd_value_get(rd_value_get(t->value, "params"), "eos_early_stop"),
                                 t->kind == RD_POLICY_DIFFUSERS) };

    if (rd_decoder_open(&o, t->prompt.id, t->prompt.n, t->gen, &d, &err)) goto out;
    rd_block before = { 0 };

    while (!s.done) {
        if (rd_decoder_step_run(d, &s, &err)) goto out;
        if (!s.passed) {
            before = *s.block;
            continue;
        }
        if (at == 0) before.size = 0;
        rd_value want = rd_value_at(steps, at);
        rd_block first = before;
        rd_ids recorded = { 0 };

        if (first.size == 0 && rd_value_ids(rd_value_get(want, "before"), &recorded) &&
            recorded.n == s.block->size) {
            /* The first block as recorded: prompt and masks; the decoder's own is checked by `after`. */
            first.size = recorded.n;
            memcpy(first.token, recorded.id, (size_t)recorded.n * sizeof(int32_t));
        }
        rd_ids_clear(&recorded);
        const char *differs =
            want ? compare_step(want, &s, &first, t->kind == RD_POLICY_22) : "number of passes";

        if (differs) {
            say(f->r, f->name, t->name, false, "pass %d: %s differs", at, differs);
            goto done;
        }
        at++;
        before = *s.block;
    }
    rd_decoder_output(d, &output);
    if (at != rd_value_count(steps))
        say(f->r, f->name, t->name, false, "%d passes, recorded %d", at, rd_value_count(steps));
    else if (!same_ids(rd_value_get(t->value, "output"), output.id, output.n))
        say(f->r, f->name, t->name, false, "the output differs (%d tokens)", output.n);
    else
        pass_case(f->r, f->name, t->name);
    goto done;
out:
    say(f->r, f->name, t->name, false, "%s", err.text);
done:
    rd_ids_clear(&output);
    rd_decoder_close(d);
    rd_kv_pool_free(pool);
    rd_model_close(m);
}

static void run_traces(folder *f, const char *file, rd_policy_kind kind)
{
    char *path = rd_path_join(f->dir, file);
    rd_record *record = NULL;
    struct stat st;
    rd_error err = { 0 };

    if (stat(path, &st)) {
        free(path);
        return;
    }
    if (rd_record_read(path, &record, &err)) {
        say(f->r, f->name, file, false, "%s", err.text);
        free(path);
        return;
    }
    rd_value top = rd_record_top(record), cases = rd_value_get(top, "cases");
    rd_value special = rd_value_get(top, "special_ids");

    for (int i = 0; i < rd_value_count(cases); i++) {
        trace t = { .value = rd_value_at(cases, i), .kind = kind };
        rd_value p = rd_value_get(t.value, "params");
        const char *version = text_of(rd_value_get(t.value, "version"));

        t.name = text_of(rd_value_get(t.value, "name"));
        t.block = (int)rd_value_int(rd_value_get(p, "block_length"),
                                    rd_value_int(rd_value_get(t.value, "block_length"), 0));
        t.gen = (int)rd_value_int(rd_value_get(p, "gen_length"),
                                  rd_value_int(rd_value_get(t.value, "gen_length"), 0));
        t.mask = (int32_t)rd_value_int(rd_value_get(p, "mask_id"),
                                       rd_value_int(rd_value_get(special, "mask_id"), -1));
        t.eos = (int32_t)rd_value_int(rd_value_get(p, "eos_id"),
                                      rd_value_int(rd_value_get(special, "eos_id"), -1));
        if (kind == RD_POLICY_20 && version && !strcmp(version, "2.1")) t.kind = RD_POLICY_21;
        if (!t.name || t.block < 1 || t.gen < 1 || t.block > RD_BLOCK_MOST || t.mask < 0 ||
            t.gen > ROWS_MOST || !rd_value_ids(rd_value_get(t.value, "prompt"), &t.prompt) ||
            t.prompt.n > ROWS_MOST)
            say(f->r, f->name, t.name ? t.name : file, false, "case %d is malformed", i);
        else if (!rd_value_bool(rd_value_get(t.value, "robust"), false))
            say(f->r, f->name, t.name, true, "not marked robust");
        else if (!rd_value_bool(rd_value_get(t.value, "terminates"), true))
            say(f->r, f->name, t.name, true, "the reference does not return");
        else
            replay(f, &t);
        rd_ids_clear(&t.prompt);
    }
    rd_record_free(record);
    free(path);
}

/* ---- single calls of the diffusers scheduler: a decision without a model ---- */

static void picks_of(const float *logits, int rows, int vocab, rd_pick *out)
{
    for (int r = 0; r < rows; r++, logits += vocab) {
        int best = 0;
        double sum = 0.0;

        for (int v = 1; v < vocab; v++)
            if (logits[v] > logits[best]) best = v;
        for (int v = 0; v < vocab; v++) sum += exp((double)logits[v] - (double)logits[best]);
        out[r] = (rd_pick){ .token = best, .prob = (float)(1.0 / sum), .second = -1 };
    }
}

static void run_scheduler(folder *f)
{
    char *path = rd_path_join(f->dir, "decode_diffusers.json");
    char *data = rd_path_join(f->dir, "diffusers_steps.safetensors");
    rd_record *record = NULL;
    rd_safetensors *tensors = NULL;
    struct stat st;
    rd_error err = { 0 };

    if (stat(path, &st) || stat(data, &st)) goto out;
    if (rd_record_read(path, &record, &err) || rd_safetensors_open(data, &tensors, &err)) {
        say(f->r, f->name, "scheduler", false, "%s", err.text);
        goto out;
    }
    rd_value list = rd_value_get(rd_record_top(record), "scheduler_steps");

    for (int i = 0; i < rd_value_count(list); i++) {
        rd_value c = rd_value_at(list, i);
        const char *tensor = text_of(rd_value_get(c, "logits"));
        const rd_tensor *t = tensor ? rd_safetensors_find(tensors, tensor) : NULL;
        rd_ids sample = { 0 };
        rd_block b = { 0 };
        rd_pick picks[RD_BLOCK_MOST];
        rd_change change;
        rd_policy_state state = { .step = (int)rd_value_int(rd_value_get(c, "step"), 0) };
        rd_policy p = { .kind = RD_POLICY_DIFFUSERS,
                        .reference_quirks = true,
                        .threshold = (float)rd_value_number(rd_value_get(c, "threshold"), 0.0),
                        .edit_threshold =
                            (float)rd_value_number(rd_value_get(c, "editing_threshold"), 0.0),
                        .steps = (int)rd_value_int(rd_value_get(c, "num_inference_steps"), 1),
                        .ids = { (int32_t)rd_value_int(rd_value_get(c, "mask_id"), -1), -1, -1 } };
        int pinned = (int)rd_value_int(rd_value_get(c, "prompt_positions"), 0);

        if (!t || t->dtype != RD_F32 || !rd_value_ids(rd_value_get(c, "sample"), &sample) ||
            sample.n < 1 || sample.n > RD_BLOCK_MOST ||
            t->bytes % (sizeof(float) * (size_t)sample.n) || state.step < 0) {
            say(f->r, f->name, tensor ? tensor : "scheduler", false, "step %d is malformed", i);
            rd_ids_clear(&sample);
            continue;
        }
        b.size = sample.n;
        memcpy(b.token, sample.id, (size_t)sample.n * sizeof(int32_t));
        for (int k = 0; k < pinned && k < b.size; k++) b.pinned[k] = true;
        picks_of(t->data, b.size, (int)(t->bytes / sizeof(float) / (size_t)b.size), picks);
        rd_policy_apply(&p, &state, &b, picks, NULL, &change);
        if (bits_of(rd_value_get(c, "m2t")) != change.filled)
            say(f->r, f->name, tensor, false, "m2t differs");
        else if (bits_of(rd_value_get(c, "t2t")) != change.edited)
            say(f->r, f->name, tensor, false, "t2t differs");
        else if (!same_ids(rd_value_get(c, "prev_sample"), b.token, b.size))
            say(f->r, f->name, tensor, false, "prev_sample differs");
        else
            pass_case(f->r, f->name, tensor);
        rd_ids_clear(&sample);
    }
out:
    rd_record_free(record);
    rd_safetensors_close(tensors);
    free(path);
    free(data);
}

/* ---- tokenizers ---- */

static bool same_text(rd_value want, const char *got, size_t n)
{
    size_t m;
    const char *s = rd_value_text(want, &m);

    return s && m == n && (n == 0 || !memcmp(s, got, n));
}

static const char *compare_decoded(const rd_tokenizer *t, rd_value c, const rd_ids *ids)
{
    static const char *const keys[] = { "decoded", "decoded_skip_special" };
    const char *differs = NULL;

    for (int skip = 0; skip < 2; skip++) {
        rd_buf raw = { 0 }, text = { 0 };

        if (!rd_value_get(c, keys[skip])) continue;
        rd_tokenizer_decode(t, ids->id, ids->n, skip, &raw);
        rd_utf8_repair(raw.data ? raw.data : "", raw.len, &text);
        if (!same_text(rd_value_get(c, keys[skip]), text.data ? text.data : "", text.len))
            differs = keys[skip];
        rd_buf_clear(&raw);
        rd_buf_clear(&text);
    }
    return differs;
}

static void run_tokenizer(report *r, const char *dir, const char *folder_name, rd_value top)
{
    static const char *const parts[] = { "encode", "decode" };
    rd_tokenizer *t = NULL;
    rd_error err = { 0 };

    if (rd_tokenizer_open(dir, &t, &err)) {
        say(r, folder_name, "tokenizer", false, "%s", err.text);
        return;
    }
    for (int part = 0; part < 2; part++) {
        rd_value cases = rd_value_get(top, parts[part]);
        int bad = 0, n = rd_value_count(cases);

        for (int i = 0; i < n; i++) {
            rd_value c = rd_value_at(cases, i);
            rd_ids want = { 0 }, got = { 0 };
            char name[64];
            size_t len;
            const char *text = rd_value_text(rd_value_get(c, "text"), &len), *differs = NULL;

            snprintf(name, sizeof name, "%s_%d", parts[part], i);
            if (!rd_value_ids(rd_value_get(c, "ids"), &want) || (part == 0 && !text))
                differs = "the case is malformed";
            else if (part == 0 && rd_tokenizer_encode(t, text, len, RD_TEXT_ADDED, &got, &err))
                differs = err.text;
            else if (part == 0 &&
                     (got.n != want.n ||
                      (got.n && memcmp(got.id, want.id, (size_t)got.n * sizeof(int32_t)))))
                differs = "ids differ";
            else
                differs = compare_decoded(t, c, &want);
            if (differs)
                say(r, folder_name, name, false, "%s", differs);
            else
                pass_case(r, folder_name, name);
            bad += differs != NULL;
            rd_ids_clear(&want);
            rd_ids_clear(&got);
        }
    }
    rd_tokenizer_close(t);
}

/* ---- folders ---- */

static void write_dump(folder *f)
{
    char *dir = rd_path_join(f->r->dump, f->name), *path = rd_path_join(dir, "golden.safetensors");
    rd_error err = { 0 };

    mkdir(f->r->dump, 0777);
    mkdir(dir, 0777);
    if (f->dumped_n && rd_safetensors_write(path, f->dumped, f->dumped_n, NULL, &err))
        say(f->r, f->name, "dump", false, "%s", err.text);
    for (int i = 0; i < f->dumped_n; i++) {
        free((void *)f->dumped[i].name);
        free((void *)f->dumped[i].data);
    }
    free(f->dumped);
    free(dir);
    free(path);
}

static void run_model(report *r, const char *dir, const char *name, rd_value top)
{
    folder f = { .r = r, .dir = dir };
    char *path = rd_path_join(dir, "golden.safetensors");
    rd_error err = { 0 };

    snprintf(f.name, sizeof f.name, "%s", name);
    if (rd_config_read(dir, &f.config, &err) || rd_safetensors_open(path, &f.tensors, &err)) {
        say(r, name, "model", false, "%s", err.text);
    } else {
        run_forward_cases(&f, top);
        run_traces(&f, "decode.json", RD_POLICY_20);
        run_traces(&f, "decode_diffusers.json", RD_POLICY_DIFFUSERS);
        run_scheduler(&f);
        run_traces(&f, "decode_v22.json", RD_POLICY_22);
        if (r->dump) write_dump(&f);
    }
    rd_safetensors_close(f.tensors);
    free(path);
}

static bool exists_in(const char *dir, const char *name)
{
    char *path = rd_path_join(dir, name);
    struct stat st;
    bool yes = stat(path, &st) == 0;

    free(path);
    return yes;
}

static void run_folder(report *r, const char *dir, int depth)
{
    struct dirent **list;

    if (exists_in(dir, "golden.json")) {
        char *path = rd_path_join(dir, "golden.json");
        const char *name = strrchr(dir, '/') ? strrchr(dir, '/') + 1 : dir;
        rd_record *record = NULL;
        rd_error err = { 0 };

        if (rd_record_read(path, &record, &err))
            say(r, name, "golden.json", false, "%s", err.text);
        else if (rd_value_get(rd_record_top(record), "encode"))
            run_tokenizer(r, dir, name, rd_record_top(record));
        else
            run_model(r, dir, name, rd_record_top(record));
        rd_record_free(record);
        free(path);
    }
    int n = depth < DEPTH_MOST ? scandir(dir, &list, NULL, alphasort) : -1;

    for (int i = 0; i < n; i++) {
        char *path = rd_path_join(dir, list[i]->d_name);
        struct stat st;

        if (list[i]->d_name[0] != '.' && !lstat(path, &st) && S_ISDIR(st.st_mode))
            run_folder(r, path, depth + 1);
        free(path);
        free(list[i]);
    }
    if (n >= 0) free(list);
}

int rd_tool_conformance(const rd_args *a)
{
    report r = { .device = { .isa = rd_args_text(a, "--isa"), .precision = RD_EXACT },
                 .dump = rd_args_text(a, "--dump") };
    rd_error err = { 0 };

    if (rd_args_count(a) == 0) return rd_tool_usage(a, "which folders?");
    if (!rd_args_int(a, "--threads", 1, 256, &r.device.threads)) return 2;
    if (rd_backend_find(rd_args_text(a, "--backend"), &r.backend, &err))
        return rd_tool_fail(a, &err);
    for (int i = 0; i < rd_args_count(a); i++) {
        char *dir = rd_copy_text(rd_args_at(a, i), strlen(rd_args_at(a, i)));

        for (size_t n = strlen(dir); n > 1 && dir[n - 1] == '/'; n--) dir[n - 1] = 0;
        if (!rd_is_folder(dir)) {
            printf("FAIL %s: not a folder\n", dir);
            r.failed++;
        } else {
            run_folder(&r, dir, 0);
        }
        free(dir);
    }
    printf("%d passed, %d failed, %d skipped\n", r.passed, r.failed, r.skipped);
    return r.failed > 0 || r.passed == 0;
}
