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

/* True where it agrees; says what does not. */
static bool agree(rd_golden_folder *f, const char *name, const char *tensor, const float *got,
                  size_t n, tolerance t)
{
    const float *want = tensor_of(f, tensor, RD_F32, n);
    size_t at = 0;

    if (!want) {
        rd_golden_fail(f, name, "the tensor %s is missing or not F32 of %zu numbers", tensor, n);
        return false;
    }
    double off = worst(got, want, n, t, &at);

    if (off <= 1.0) return true;
    rd_golden_fail(f, name, "%s[%zu] is %.7g, recorded %.7g: %.1f times what is allowed", tensor,
                   at, (double)got[at], (double)want[at], off);
    return false;
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
static bool agree_routes(rd_golden_folder *f, const fcase *c, const details *d, int l)
{
    char idx_name[NAME_MOST + 32], weight_name[NAME_MOST + 32];
    size_t k = (size_t)f->config.num_experts_per_tok, n = (size_t)d->rows * k;

    snprintf(idx_name, sizeof idx_name, "%s.router_topk_idx.%d", c->name, l);
    snprintf(weight_name, sizeof weight_name, "%s.router_topk_weight.%d", c->name, l);
    const int32_t *idx = tensor_of(f, idx_name, RD_I32, n);
    const float *weight = tensor_of(f, weight_name, RD_F32, n);

    if (!idx || !weight) {
        rd_golden_fail(f, c->name, "the tensor %s is missing or not %s of %zu numbers",
                       idx ? weight_name : idx_name, idx ? "F32" : "I32", n);
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        bool found = false;

        for (size_t j = i / k * k; j < i / k * k + k; j++)
            found |= d->taps.router_idx[l][j] == idx[i] &&
                     fabs((double)d->taps.router_weight[l][j] - (double)weight[i]) <= of_weight;
        if (found) continue;
        rd_golden_fail(f, c->name,
                       "layer %d, row %zu: expert %d is not chosen, or has another weight", l,
                       i / k, idx[i]);
        return false;
    }
    return true;
}

/* One recorded tensor of the list: "<case>.<what>" or "<case>.<what>.<layer>". */
static bool agree_detail(rd_golden_folder *f, const fcase *c, const details *d, const char *name)
{
    const rd_model_config *m = &f->config;
    const char *what = name + strlen(c->name) + 1, *dot = strrchr(what, '.');
    size_t length = dot ? (size_t)(dot - what) : strlen(what);
    int l = dot ? atoi(dot + 1) : -1, rows = d->rows, wide = m->hidden_size;
    bool layer = l >= 0 && l < m->num_hidden_layers,
         routed = layer && l >= m->first_k_dense_replace;
    struct part {
        const char *what;
        const float *got;
        int cols;
    } parts[] = { { "embeddings", dot ? NULL : d->taps.embeddings, wide },
                  { "final_norm", dot ? NULL : d->taps.final_norm, wide },
                  { "attn_out", layer ? d->taps.attn_out[l] : NULL, wide },
                  { "mlp_out", layer ? d->taps.mlp_out[l] : NULL, wide },
                  { "layer_out", layer ? d->taps.layer_out[l] : NULL, wide },
                  { "router_logits", routed ? d->taps.router_logits[l] : NULL, m->num_experts } };

    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (!parts[i].got || strlen(parts[i].what) != length ||
            memcmp(parts[i].what, what, length) != 0)
            continue;
        rd_golden_keep(f, c->keep, name, RD_F32, 0, rows, parts[i].cols, parts[i].got);
        return agree(f, c->name, name, parts[i].got, (size_t)rows * (size_t)parts[i].cols,
                     of_hidden);
    }
    if (routed && length == strlen("router_topk_idx") && !memcmp(what, "router_topk_idx", length)) {
        rd_golden_keep(f, c->keep, name, RD_I32, 0, rows, m->num_experts_per_tok,
                       d->taps.router_idx[l]);
        return agree_routes(f, c, d, l);
    }
    if (routed && length == strlen("router_topk_weight") &&
        !memcmp(what, "router_topk_weight", length)) { /* compared with the experts */
        rd_golden_keep(f, c->keep, name, RD_F32, 0, rows, m->num_experts_per_tok,
                       d->taps.router_weight[l]);
        return true;
    }
    rd_golden_fail(f, c->name, "%s is no tensor that is known", name);
    return false;
}

static bool agree_details(rd_golden_folder *f, const fcase *c, const details *d)
{
    rd_value list = rd_value_get(c->value, "details");
    size_t n = strlen(c->name);
    bool ok = true;

    for (int i = 0; ok && i < rd_value_count(list); i++) {
        const char *name = rd_golden_text(rd_value_at(list, i));

        ok = name && !strncmp(name, c->name, n) && name[n] == '.';
        if (!ok)
            rd_golden_fail(f, c->name, "%s is no tensor of this case", name ? name : "a detail");
        ok = ok && agree_detail(f, c, d, name);
    }
    return ok;
}

/* Keys and values as cached: block after block, [layer][K, V][kv_head][block][dim], against
 * [kv_heads, T, dim]. */
static bool agree_cache(rd_golden_folder *f, const fcase *c, rd_model *m, int block,
                        const int32_t *keep)
{
    rd_value list = rd_value_get(c->value, "cache_tensors");
    int rows = c->ids.n, heads = f->config.num_key_value_heads, dim = f->config.head_dim;
    size_t head = (size_t)block * (size_t)dim, n = (size_t)heads * (size_t)rows * (size_t)dim;
    float *bytes = rd_alloc_array(rd_model_kv_bytes(m), 1), *all = rd_alloc_array(n, sizeof *all);
    bool ok = true;

    for (int i = 0; ok && i < rd_value_count(list); i++) {
        const char *tensor = rd_golden_text(rd_value_at(list, i));
        const char *layer = tensor ? strrchr(tensor, '.') : NULL;
        int l = layer ? atoi(layer + 1) : -1;
        bool value = tensor && strstr(tensor, ".cache_v.") != NULL;
        rd_error err;

        if (l < 0 || l >= f->config.num_hidden_layers) {
            rd_golden_fail(f, c->name, "cache tensor %s names no layer", tensor ? tensor : "?");
            ok = false;
            break;
        }
        for (int b = 0; b * block < rows && ok; b++) {
            int len = rows - b * block < block ? rows - b * block : block;

            ok = rd_model_kv_read(m, keep[b], bytes, &err) == RD_OK;
            if (!ok) rd_golden_fail(f, c->name, "%s", err.text);
            for (int h = 0; ok && h < heads; h++) {
                const float *from =
                    bytes + (((size_t)l * 2 + value) * (size_t)heads + (size_t)h) * head;

                memcpy(all + ((size_t)h * (size_t)rows + (size_t)(b * block)) * (size_t)dim, from,
                       (size_t)len * (size_t)dim * sizeof *all);
            }
        }
        if (ok) rd_golden_keep(f, c->keep, tensor, RD_F32, heads, rows, dim, all);
        ok = ok && agree(f, c->name, tensor, all, n, of_hidden);
    }
    free(bytes);
    free(all);
    return ok;
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

    if (!ran) {
        rd_golden_fail(f, c->name, "%s", err.text);
    } else {
        size_t n = (size_t)rows * (size_t)f->config.vocab_size;

        rd_golden_keep(f, c->keep, c->logits, RD_F32, 0, rows, f->config.vocab_size, d.taps.logits);
        if (agree(f, c->name, c->logits, d.taps.logits, n, of_logits) && agree_details(f, c, &d) &&
            agree_cache(f, c, m, block, keep))
            rd_golden_pass(f, c->name);
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
    bool ran = false;

    snprintf(name, sizeof name, "%s.cached", c->name);
    if (rd_value_ids(rd_value_get(cached, "forward_ends"), &ends))
        tile = tile_of(&ends, c->block, rows);
    if (tile == 0 || !tensor) {
        rd_golden_fail(f, name, "forward_ends do not ascend to %d, or logits are not named", rows);
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
        rd_golden_fail(f, name, "%s", err.text);
    } else {
        rd_golden_keep(f, c->keep, tensor, RD_F32, 0, rows, f->config.vocab_size, logits);
        if (agree(f, name, tensor, logits, (size_t)rows * vocab, of_logits))
            rd_golden_pass(f, name);
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
