/* golden_forward.c - recorded forward passes: logits, what each layer made, and the same in pieces with a
 * cache.
 *
 * Tolerances are those of the recorded data's own description. The model is opened once for each block
 * length, in RD_EXACT.
 */
#include "core/base/memory.h"
#include "core/decode/block.h"
#include "core/tools/golden.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_MOST = 256 };

typedef struct tolerance {
    double absolute, relative;
} tolerance;

static const tolerance of_logits = { 5e-4, 1e-4 }, of_hidden = { 2e-4, 1e-4 };
static const double of_weight = 2e-5;

typedef struct fcase {
    const char *name, *logits;
    rd_ids ids, positions;
    int block; /* 0: everything sees everything */
    rd_value value;
    rd_golden_tensors *keep;
} fcase;

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

static const void *tensor_of(const rd_golden_folder *f, const char *name, rd_dtype dtype, size_t n)
{
    const rd_tensor *t = f->tensors ? rd_safetensors_find(f->tensors, name) : NULL;
    bool fits = t && t->dtype == dtype && t->bytes == n * sizeof(float) &&
                (uintptr_t)t->data % sizeof(float) == 0;

    return fits ? t->data : NULL;
}

/* What one case came to: everything is computed and kept, the first difference is told. */
typedef struct verdict {
    rd_golden_folder *f;
    const char *name;
    bool failed;
} verdict;

__attribute__((format(printf, 2, 3))) static void differ(verdict *v, const char *format, ...)
{
    char text[512];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (!v->failed) rd_golden_fail(v->f, v->name, "%s", text);
    v->failed = true;
}

static void compare(verdict *v, const char *tensor, const float *got, size_t n, tolerance t)
{
    const float *want = tensor_of(v->f, tensor, RD_F32, n);
    size_t at = 0;
    double off = want ? worst(got, want, n, t, &at) : 0.0;

    if (!want)
        differ(v, "the tensor %s is missing or not F32 of %zu numbers", tensor, n);
    else if (!(off <= 1.0))
        differ(v, "%s[%zu] is %.7g, recorded %.7g: %.1f times what is allowed", tensor, at,
               (double)got[at], (double)want[at], off);
}

/* ---- what each layer made ---- */

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
static void compare_routes(verdict *v, const fcase *c, const details *d, int l)
{
    char idx_name[NAME_MOST + 32], weight_name[NAME_MOST + 32];
    size_t k = (size_t)v->f->config.num_experts_per_tok, n = (size_t)d->rows * k;

    snprintf(idx_name, sizeof idx_name, "%s.router_topk_idx.%d", c->name, l);
    snprintf(weight_name, sizeof weight_name, "%s.router_topk_weight.%d", c->name, l);
    const int32_t *idx = tensor_of(v->f, idx_name, RD_I32, n);
    const float *weight = tensor_of(v->f, weight_name, RD_F32, n);

    if (!idx || !weight) {
        differ(v, "the tensor %s is missing or not %s of %zu numbers", idx ? weight_name : idx_name,
               idx ? "F32" : "I32", n);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        bool found = false;

        for (size_t j = i / k * k; j < i / k * k + k; j++)
            found |= d->taps.router_idx[l][j] == idx[i] &&
                     fabs((double)d->taps.router_weight[l][j] - (double)weight[i]) <= of_weight;
        if (!found)
            differ(v, "layer %d, row %zu: expert %d is not chosen, or has another weight", l, i / k,
                   idx[i]);
    }
}

/* One recorded tensor of the list: "<case>.<what>" or "<case>.<what>.<layer>". */
static void compare_detail(verdict *v, const fcase *c, const details *d, const char *name)
{
    const rd_model_config *m = &v->f->config;
    const char *what = name + strlen(c->name) + 1, *dot = strrchr(what, '.');
    size_t length = dot ? (size_t)(dot - what) : strlen(what);
    int l = dot ? (int)strtol(dot + 1, NULL, 10) : -1, wide = m->hidden_size,
        k = m->num_experts_per_tok;
    bool layer = l >= 0 && l < m->num_hidden_layers,
         routed = layer && l >= m->first_k_dense_replace;
    const struct part {
        const char *what;
        const void *got;
        int cols;
        enum { AS_HIDDEN, AS_ROUTES, WITH_ROUTES } how;
    } parts[] = {
        { "embeddings", dot ? NULL : d->taps.embeddings, wide, AS_HIDDEN },
        { "final_norm", dot ? NULL : d->taps.final_norm, wide, AS_HIDDEN },
        { "attn_out", layer ? d->taps.attn_out[l] : NULL, wide, AS_HIDDEN },
        { "mlp_out", layer ? d->taps.mlp_out[l] : NULL, wide, AS_HIDDEN },
        { "layer_out", layer ? d->taps.layer_out[l] : NULL, wide, AS_HIDDEN },
        { "router_logits", routed ? d->taps.router_logits[l] : NULL, m->num_experts, AS_HIDDEN },
        { "router_topk_idx", routed ? d->taps.router_idx[l] : NULL, k, AS_ROUTES },
        { "router_topk_weight", routed ? d->taps.router_weight[l] : NULL, k, WITH_ROUTES },
    };

    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        const struct part *p = &parts[i];

        if (!p->got || strlen(p->what) != length || memcmp(p->what, what, length) != 0) continue;
        rd_golden_keep(v->f, c->keep, name, p->how == AS_ROUTES ? RD_I32 : RD_F32, 0, d->rows,
                       p->cols, p->got);
        if (p->how == AS_ROUTES) compare_routes(v, c, d, l);
        if (p->how == AS_HIDDEN)
            compare(v, name, p->got, (size_t)d->rows * (size_t)p->cols, of_hidden);
        return;
    }
    differ(v, "%s is no tensor that is known", name);
}

static void compare_details(verdict *v, const fcase *c, const details *d)
{
    rd_value list = rd_value_get(c->value, "details");
    size_t n = strlen(c->name);

    for (int i = 0; i < rd_value_count(list); i++) {
        const char *name = rd_golden_text(rd_value_at(list, i));

        if (name && !strncmp(name, c->name, n) && name[n] == '.')
            compare_detail(v, c, d, name);
        else
            differ(v, "%s is no tensor of this case", name ? name : "a detail");
    }
}

/* Keys or values of one layer as cached: block after block, [layer][K, V][kv_head][block][dim], put together
 * as [kv_heads, T, dim]. */
static rd_status read_cache(rd_model *m, const fcase *c, const rd_model_config *config,
                            const int32_t *keep, int layer, bool values, float *out, rd_error *err)
{
    int block = rd_model_block_size(m), heads = config->num_key_value_heads;
    size_t dim = (size_t)config->head_dim, rows = (size_t)c->ids.n, piece = (size_t)block * dim;
    float *bytes = rd_alloc_array(rd_model_kv_bytes(m), 1);
    rd_status status = RD_OK;

    for (size_t b = 0; b * (size_t)block < rows && !status; b++) {
        size_t first = b * (size_t)block, left = rows - first;
        size_t len = left < (size_t)block ? left : (size_t)block;

        status = rd_model_kv_read(m, keep[b], bytes, err);
        for (int h = 0; !status && h < heads; h++)
            memcpy(out + ((size_t)h * rows + first) * dim,
                   bytes + ((size_t)(layer * 2 + values) * (size_t)heads + (size_t)h) * piece,
                   len * dim * sizeof *out);
    }
    free(bytes);
    return status;
}

static void compare_cache(verdict *v, const fcase *c, rd_model *m, const int32_t *keep)
{
    const rd_model_config *config = &v->f->config;
    rd_value list = rd_value_get(c->value, "cache_tensors");
    int rows = c->ids.n, heads = config->num_key_value_heads, dim = config->head_dim;
    size_t n = (size_t)heads * (size_t)rows * (size_t)dim;
    float *all = rd_alloc_array(n, sizeof *all);

    for (int i = 0; i < rd_value_count(list); i++) {
        const char *tensor = rd_golden_text(rd_value_at(list, i));
        const char *layer = tensor ? strrchr(tensor, '.') : NULL;
        bool keys = tensor && strstr(tensor, ".cache_k."),
             values = tensor && strstr(tensor, ".cache_v.");
        int l = layer ? (int)strtol(layer + 1, NULL, 10) : -1;
        rd_error err;

        if (l < 0 || l >= config->num_hidden_layers || keys == values) {
            differ(v, "%s is no tensor of a cache", tensor ? tensor : "one");
        } else if (read_cache(m, c, config, keep, l, values, all, &err)) {
            differ(v, "%s", err.text);
        } else {
            rd_golden_keep(v->f, c->keep, tensor, RD_F32, heads, rows, dim, all);
            compare(v, tensor, all, n, of_hidden);
        }
    }
    free(all);
}

/* ---- passes ---- */

/* True when the pass could be run. */
static bool run_plain(rd_golden_folder *f, const fcase *c)
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
    bool ran =
        rd_golden_model(f, block, rows, &m, &err) == RD_OK && rd_forward(m, &pass, &err) == RD_OK;

    verdict v = { .f = f, .name = c->name };

    if (!ran) {
        differ(&v, "%s", err.text);
    } else {
        size_t n = (size_t)rows * (size_t)f->config.vocab_size;

        rd_golden_keep(f, c->keep, c->logits, RD_F32, 0, rows, f->config.vocab_size, d.taps.logits);
        compare(&v, c->logits, d.taps.logits, n, of_logits);
        compare_details(&v, c, &d);
        compare_cache(&v, c, m, keep);
        if (!v.failed) rd_golden_pass(f, c->name);
    }
    rd_model_close(m);
    details_free(&d);
    free(keep);
    return ran;
}

static int greatest_common(int a, int b)
{
    return b ? greatest_common(b, a % b) : a;
}

/* Tiles in which every piece begins on a border; 0 when the ends do not ascend. */
static int tile_of(const rd_ids *ends, int block, int rows)
{
    int tile = block;

    for (int i = 0; i < ends->n; i++)
        if (ends->id[i] <= (i > 0 ? ends->id[i - 1] : 0)) return 0;
    if (ends->n == 0 || ends->id[ends->n - 1] != rows) return 0;
    for (int i = 0; i + 1 < ends->n; i++) tile = greatest_common(tile, ends->id[i]);
    return tile > 0 ? tile : rows;
}

/* Rows [start, end) behind what is cached. */
static rd_status run_piece(const rd_golden_folder *f, const fcase *c, rd_model *m, int32_t *places,
                           int start, int end, float *logits, rd_error *err)
{
    int tile = rd_model_block_size(m);
    /* Sight is counted from a border: a piece that begins inside a block first fills it. */
    int border = c->block > 0 && start % c->block ? (start / c->block + 1) * c->block : end;
    int first = border < end ? border : end;
    rd_taps taps = { .logits = logits + (size_t)start * (size_t)f->config.vocab_size };
    rd_pass pass = { .tokens = c->ids.id + start,
                     .positions = c->positions.n == c->ids.n ? c->positions.id + start : NULL,
                     .rows = first - start,
                     .past = places,
                     .past_blocks = start / tile,
                     .keep = places + start / tile,
                     .sight = c->block > 0 && start % c->block == 0 ? c->block : first - start,
                     .taps = &taps };

    if (rd_forward(m, &pass, err)) return err->status;
    return first < end ? run_piece(f, c, m, places, first, end, logits, err) : RD_OK;
}

static bool run_cached(rd_golden_folder *f, const fcase *c)
{
    rd_value cached = rd_value_get(c->value, "cached");
    const char *tensor = rd_golden_text(rd_value_get(cached, "logits"));
    rd_ids ends = { 0 };
    char name[NAME_MOST + 32];
    int rows = c->ids.n, tile = 0;
    rd_model *m = NULL;
    rd_error err = { 0 };
    verdict v = { .f = f, .name = name };
    bool ran = false;

    snprintf(name, sizeof name, "%s.cached", c->name);
    if (rd_value_ids(rd_value_get(cached, "forward_ends"), &ends))
        tile = tile_of(&ends, c->block, rows);
    if (tile == 0 || !tensor) {
        differ(&v, "forward_ends do not ascend to %d, or logits are not named", rows);
        rd_ids_clear(&ends);
        return false;
    }
    size_t vocab = (size_t)f->config.vocab_size;
    float *logits = rd_alloc_array((size_t)rows * vocab, sizeof *logits);
    int32_t *places = rd_alloc_array((size_t)(rows / tile + 2), sizeof *places);

    for (int b = 0; b <= rows / tile; b++) places[b] = b;
    ran = rd_golden_model(f, tile, rows, &m, &err) == RD_OK;
    for (int i = 0, start = 0; ran && i < ends.n; start = ends.id[i++])
        ran = run_piece(f, c, m, places, start, ends.id[i], logits, &err) == RD_OK;
    if (!ran) {
        differ(&v, "%s", err.text);
    } else {
        rd_golden_keep(f, c->keep, tensor, RD_F32, 0, rows, f->config.vocab_size, logits);
        compare(&v, tensor, logits, (size_t)rows * vocab, of_logits);
        if (!v.failed) rd_golden_pass(f, name);
    }
    free(logits);
    free(places);
    rd_model_close(m);
    rd_ids_clear(&ends);
    return ran;
}

/* ---- cases ---- */

static bool read_case(fcase *c)
{
    rd_value block = rd_value_get(c->value, "block_length");
    rd_value positions = rd_value_get(c->value, "position_ids");
    int64_t length = rd_value_is_null(block) ? 0 : rd_value_int(block, -1);

    c->name = rd_golden_text(rd_value_get(c->value, "name"));
    c->logits = rd_golden_text(rd_value_get(c->value, "logits"));
    if (!c->name || !c->logits || strlen(c->name) >= NAME_MOST) return false;
    if (length < 0 || (length == 0 && !rd_value_is_null(block))) return false;
    /* A block that no row leaves: everything sees everything. */
    c->block = length > RD_GOLDEN_ROWS_MOST ? RD_GOLDEN_ROWS_MOST : (int)length;
    if (!rd_value_ids(rd_value_get(c->value, "input_ids"), &c->ids)) return false;
    if (c->ids.n < 1 || c->ids.n > RD_GOLDEN_ROWS_MOST) return false;
    if (rd_value_is_null(positions)) return true;
    return rd_value_ids(positions, &c->positions) && c->positions.n == c->ids.n;
}

void rd_golden_forward(rd_golden_folder *f)
{
    static const char *const computed[] = { "router_min_gap", "logits_bf16_compute", "cached",
                                            NULL },
                             *const compared[] = { "max_abs_diff_vs_uncached", NULL },
                             *const theirs[] = { "reference_checks", "forward_cases", NULL };
    rd_value top = rd_record_top(f->top), cases = rd_value_get(top, "forward_cases");
    rd_golden_tensors keep = { 0 };
    rd_buf text = { 0 };
    int written = 0;

    rd_buf_text(&text, "{");
    rd_golden_copy_fields(top, theirs, &text);
    rd_golden_field(&text, "forward_cases");
    rd_buf_text(&text, "[");
    for (int i = 0; i < rd_value_count(cases); i++) {
        fcase c = { .value = rd_value_at(cases, i), .keep = &keep };

        if (!read_case(&c)) {
            rd_golden_fail(f, c.name ? c.name : "case", "forward case %d is malformed", i);
        } else if (run_plain(f, &c)) {
            rd_value cached = rd_value_get(c.value, "cached");

            rd_buf_text(&text, written++ ? ",\n{" : "\n{");
            rd_golden_copy_fields(c.value, computed, &text);
            if (!rd_value_is_null(cached) && run_cached(f, &c)) {
                rd_golden_field(&text, "cached");
                rd_buf_text(&text, "{");
                rd_golden_copy_fields(cached, compared, &text);
                rd_buf_text(&text, "}");
            }
            rd_buf_text(&text, "}");
        }
        rd_ids_clear(&c.ids);
        rd_ids_clear(&c.positions);
    }
    rd_buf_text(&text, "]}\n");
    rd_golden_write_tensors(f, &keep, "golden.safetensors");
    rd_golden_write_text(f, &text, "golden.json");
    rd_buf_clear(&text);
}
