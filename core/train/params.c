/* params.c - layout, first values, and the way to and from model folders. */
#include "core/train/params.h"

#include "core/base/buf.h"
#include "core/base/memory.h"
#include "core/format/packed.h"
#include "core/format/quant.h"
#include "core/format/safetensors.h"
#include "core/train/kernels.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__attribute__((format(printf, 5, 6))) static size_t put(rd_params *p, rd_param_kind kind, int rows,
                                                        int cols, const char *format, ...)
{
    rd_param *q;
    va_list args;

    p->param = rd_resize(p->param, (size_t)p->count + 1, sizeof *p->param);
    q = &p->param[p->count++];
    *q = (rd_param){ .kind = kind, .rows = rows, .cols = cols, .offset = p->size };
    va_start(args, format);
    vsnprintf(q->name, sizeof q->name, format, args);
    va_end(args);
    p->size += (size_t)rows * (size_t)cols;
    return q->offset;
}

static void put_layer(rd_params *p, int l)
{
    const rd_model_config *c = &p->config;
    rd_layer_params *y = &p->layer[l];
    int hidden = c->hidden_size, dim = c->head_dim, width = c->intermediate_size;
    int qkv = (c->num_attention_heads + 2 * c->num_key_value_heads) * dim;

    y->moe = l >= c->first_k_dense_replace;
    y->norm1 = put(p, RD_PARAM_NORM, 1, hidden, "model.layers.%d.input_layernorm.weight", l);
    y->qkv =
        put(p, RD_PARAM_MATRIX, qkv, hidden, "model.layers.%d.attention.query_key_value.weight", l);
    y->q_norm =
        put(p, RD_PARAM_NORM, 1, dim, "model.layers.%d.attention.query_layernorm.weight", l);
    y->k_norm = put(p, RD_PARAM_NORM, 1, dim, "model.layers.%d.attention.key_layernorm.weight", l);
    y->dense = put(p, RD_PARAM_MATRIX, hidden, c->num_attention_heads * dim,
                   "model.layers.%d.attention.dense.weight", l);
    y->norm2 =
        put(p, RD_PARAM_NORM, 1, hidden, "model.layers.%d.post_attention_layernorm.weight", l);
    if (!y->moe) {
        y->gate_up =
            put(p, RD_PARAM_MATRIX, width, hidden, "model.layers.%d.mlp.gate_proj.weight", l);
        put(p, RD_PARAM_MATRIX, width, hidden, "model.layers.%d.mlp.up_proj.weight", l);
        y->down = put(p, RD_PARAM_MATRIX, hidden, width, "model.layers.%d.mlp.down_proj.weight", l);
        return;
    }
    y->router =
        put(p, RD_PARAM_ROUTER, c->num_experts, hidden, "model.layers.%d.mlp.gate.weight", l);
    y->bias = put(p, RD_PARAM_BIAS, 1, c->num_experts, "model.layers.%d.mlp.gate.expert_bias", l);
    width = c->moe_intermediate_size * c->num_shared_experts;
    if (width > 0) {
        y->shared_gate_up = put(p, RD_PARAM_MATRIX, width, hidden,
                                "model.layers.%d.mlp.shared_experts.gate_proj.weight", l);
        put(p, RD_PARAM_MATRIX, width, hidden, "model.layers.%d.mlp.shared_experts.up_proj.weight",
            l);
        y->shared_down = put(p, RD_PARAM_MATRIX, hidden, width,
                             "model.layers.%d.mlp.shared_experts.down_proj.weight", l);
    }
    width = c->moe_intermediate_size;
    y->experts = p->size;
    y->expert_stride = 3 * (size_t)width * (size_t)hidden;
    for (int e = 0; e < c->num_experts; e++) {
        put(p, RD_PARAM_MATRIX, width, hidden, "model.layers.%d.mlp.experts.%d.gate_proj.weight", l,
            e);
        put(p, RD_PARAM_MATRIX, width, hidden, "model.layers.%d.mlp.experts.%d.up_proj.weight", l,
            e);
        put(p, RD_PARAM_MATRIX, hidden, width, "model.layers.%d.mlp.experts.%d.down_proj.weight", l,
            e);
    }
}

rd_status rd_params_init(rd_params *p, const rd_model_config *config, rd_error *err)
{
    const rd_model_config *c = config;

    *p = (rd_params){ .config = *config };
    if (rd_config_check(config, "the shape to train", err)) return err->status;
    if (c->expert_capacity > 0) {
        return rd_fail(err, RD_INVALID,
                       "the shape to train: block routing (expert_capacity %d) "
                       "cannot be trained",
                       c->expert_capacity);
    }
    if (c->hidden_size % 16 || c->head_dim % 16) {
        return rd_fail(err, RD_INVALID,
                       "the shape to train: hidden_size %d and head_dim %d must "
                       "be multiples of 16",
                       c->hidden_size, c->head_dim);
    }
    if (c->num_experts > 256 || c->num_experts_per_tok > 64) {
        return rd_fail(err, RD_INVALID,
                       "the shape to train: %d experts, %d a token; at most 256 "
                       "and 64",
                       c->num_experts, c->num_experts_per_tok);
    }
    p->layer = rd_alloc_array((size_t)c->num_hidden_layers, sizeof *p->layer);
    p->table =
        put(p, RD_PARAM_TABLE, c->vocab_size, c->hidden_size, "model.word_embeddings.weight");
    for (int l = 0; l < c->num_hidden_layers; l++) put_layer(p, l);
    p->norm = put(p, RD_PARAM_NORM, 1, c->hidden_size, "model.norm.weight");
    p->head = p->table;
    if (!c->tie_word_embeddings)
        p->head = put(p, RD_PARAM_TABLE, c->vocab_size, c->hidden_size, "lm_head.weight");
    return RD_OK;
}

void rd_params_clear(rd_params *p)
{
    free(p->param);
    free(p->layer);
    memset(p, 0, sizeof *p);
}

const rd_param *rd_params_find(const rd_params *p, const char *name)
{
    for (int i = 0; i < p->count; i++)
        if (!strcmp(p->param[i].name, name)) return &p->param[i];
    return NULL;
}

void rd_params_seed(const rd_params *p, float *w, uint64_t seed)
{
    rd_random r = rd_random_seed(seed);
    double smaller = 1.0 / sqrt(2.0 * p->config.num_hidden_layers);

    for (int i = 0; i < p->count; i++) {
        const rd_param *q = &p->param[i];
        float *to = w + q->offset;
        size_t n = (size_t)q->rows * (size_t)q->cols;
        bool branch =
            rd_ends_with(q->name, "down_proj.weight") || rd_ends_with(q->name, "dense.weight");
        double by = branch ? 0.02 * smaller : 0.02;

        for (size_t k = 0; k < n; k++) {
            if (q->kind == RD_PARAM_NORM)
                to[k] = 1.0f;
            else if (q->kind == RD_PARAM_BIAS)
                to[k] = 0.0f;
            else
                to[k] = (float)(by * rd_random_normal(&r));
        }
    }
}

void rd_params_shape(const rd_params *p, char out[RD_SHAPE_TEXT])
{
    const rd_model_config *c = &p->config;

    snprintf(
        out, RD_SHAPE_TEXT,
        "%zu weights: vocabulary %d, hidden %d, %d layers, heads %d/%d x %d, width %d, experts "
        "%d x %d top %d + %d, dense %d, groups %d/%d, block %d, rotary %d %g, scale %g",
        p->size, c->vocab_size, c->hidden_size, c->num_hidden_layers, c->num_attention_heads,
        c->num_key_value_heads, c->head_dim, c->intermediate_size, c->num_experts,
        c->moe_intermediate_size, c->num_experts_per_tok, c->num_shared_experts,
        c->first_k_dense_replace, c->topk_group, c->n_group, c->block_size, c->rotary_dim,
        c->rope_theta, c->routed_scaling_factor);
}

rd_status rd_params_write(const rd_params *p, const float *w, rd_dtype type, const char *dir,
                          rd_error *err)
{
    rd_tensor *t = rd_alloc_array((size_t)p->count, sizeof *t);
    uint16_t *half = rd_alloc_array(p->size, sizeof *half);
    char path[4096];
    rd_status status;

    for (size_t i = 0; i < p->size; i++) half[i] = rd_f32_to_bf16(w[i]);
    for (int i = 0; i < p->count; i++) {
        const rd_param *q = &p->param[i];
        bool vector = q->kind == RD_PARAM_NORM || q->kind == RD_PARAM_BIAS;
        bool full = type == RD_F32 || vector || q->kind == RD_PARAM_ROUTER;

        t[i] = (rd_tensor){ .name = q->name, .dtype = full ? RD_F32 : RD_BF16 };
        t[i].rank = vector ? 1 : 2;
        t[i].shape[0] = vector ? q->cols : q->rows;
        t[i].shape[1] = vector ? 0 : q->cols;
        t[i].data = full ? (const void *)(w + q->offset) : (const void *)(half + q->offset);
        t[i].bytes = (size_t)q->rows * (size_t)q->cols * (full ? 4 : 2);
    }
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    status = rd_safetensors_write(path, t, p->count, NULL, err);
    if (!status) status = rd_config_write(dir, &p->config, type, err);
    free(half);
    free(t);
    return status;
}

rd_status rd_params_round_int8(const rd_params *p, int i, const float *w, float *out, rd_error *err)
{
    const rd_param *q = &p->param[i];
    size_t cols = (size_t)q->cols, n = (size_t)q->rows * cols;
    bool whole = q->kind != RD_PARAM_TABLE && q->kind != RD_PARAM_MATRIX;
    int8_t *packed = whole ? NULL : rd_alloc_array(cols, sizeof *packed);
    rd_status s = RD_OK;

    w += q->offset;
    out += q->offset;
    for (size_t k = 0; k < n; k++) out[k] = whole ? w[k] : rd_bf16_to_f32(rd_f32_to_bf16(w[k]));
    for (size_t r = 0; !whole && !s && r < n; r += cols) {
        rd_error why;
        float scale;

        if (rd_quant_int8_row(packed, &scale, out + r, cols, &why)) {
            s = rd_fail(err, RD_INVALID, "%s: row %zu: %s", q->name, r / cols, why.text);
            break;
        }
        for (size_t c = 0; c < cols; c++) out[r + c] = (float)packed[c] * scale;
    }
    free(packed);
    return s;
}

const char *rd_params_not_finite(const rd_params *p, const float *x)
{
    for (int i = 0; i < p->count; i++) {
        const rd_param *q = &p->param[i];

        if (!isfinite(rd_sum_squares(x + q->offset, (size_t)q->rows * (size_t)q->cols)))
            return q->name;
    }
    return NULL;
}

static void read_rows8(const rd_param *q, float *to, const rd_tensor *values,
                       const rd_tensor *scales)
{
    for (int r = 0; r < q->rows; r++) {
        const int8_t *from = (const int8_t *)values->data + (size_t)r * (size_t)q->cols;
        float scale;

        memcpy(&scale, (const char *)scales->data + (size_t)r * sizeof scale, sizeof scale);
        for (int c = 0; c < q->cols; c++)
            to[(size_t)r * (size_t)q->cols + (size_t)c] = (float)from[c] * scale;
    }
}

static void read_panels(const rd_param *q, float *to, rd_pack p, const rd_tensor *values,
                        const rd_tensor *scales)
{
    float *aligned = rd_alloc_array(scales->bytes / sizeof(float), sizeof *aligned);

    memcpy(aligned, scales->data, scales->bytes);
    for (int r = 0; r < q->rows; r++)
        rd_unpack_row(p, values->data, aligned, q->cols, r, to + (size_t)r * (size_t)q->cols);
    free(aligned);
}

static bool has_shape(const rd_tensor *t, rd_dtype type, size_t rows, size_t cols)
{
    return t->dtype == type && t->rank == 2 && (size_t)t->shape[0] == rows &&
           (size_t)t->shape[1] == cols;
}

/* A matrix that was packed, as int8 rows or as panels: W.q, and the scales in W.s. */
static bool read_packed(const rd_param *q, float *to, const rd_safetensors *file)
{
    char name[112];
    const rd_tensor *values, *scales;
    size_t rows = (size_t)q->rows, panels = rd_pack_panels(q->rows);

    snprintf(name, sizeof name, "%s.q", q->name);
    values = rd_safetensors_find(file, name);
    snprintf(name, sizeof name, "%s.s", q->name);
    scales = rd_safetensors_find(file, name);
    if (!values || !scales || scales->dtype != RD_F32) return false;
    if (has_shape(values, RD_I8, rows, (size_t)q->cols)) {
        if (scales->bytes != rows * sizeof(float)) return false;
        read_rows8(q, to, values, scales);
        return true;
    }
    for (rd_pack p = RD_PACK_INT8; p <= RD_PACK_INT4; p++) {
        if (!has_shape(values, RD_U8, panels, rd_pack_panel_bytes(p, q->cols))) continue;
        if (scales->bytes != panels * RD_PACK_ROWS * sizeof(float)) return false;
        read_panels(q, to, p, values, scales);
        return true;
    }
    return false;
}

static rd_status check_finite(const rd_param *q, const float *w, const char *dir, rd_error *err)
{
    for (size_t i = 0; i < (size_t)q->rows * (size_t)q->cols; i++)
        if (!isfinite(w[i]))
            return rd_fail(err, RD_INVALID, "%s: %s: number %zu is not finite", dir, q->name, i);
    return RD_OK;
}

rd_status rd_params_read(const rd_params *p, float *w, const char *dir, rd_error *err)
{
    rd_safetensors *file = NULL;
    rd_error local = { 0 };

    if (!err) err = &local;
    *err = (rd_error){ 0 };
    if (rd_safetensors_open(dir, &file, err)) return err->status;
    for (int i = 0; i < p->count; i++) {
        const rd_param *q = &p->param[i];
        const rd_tensor *t = rd_safetensors_find(file, q->name);
        size_t n = (size_t)q->rows * (size_t)q->cols;

        if (!t && read_packed(q, w + q->offset, file)) {
            if (check_finite(q, w + q->offset, dir, err)) goto out;
            continue;
        }
        if (!t || t->dtype > RD_BF16 || t->bytes != n * rd_dtype_bytes(t->dtype)) {
            rd_fail(err, RD_INVALID, "%s: %s is %s; expected [%d, %d] in F32, F16, BF16 or int8",
                    dir, q->name, t ? "of another shape or type" : "missing", q->rows, q->cols);
            goto out;
        }
        rd_widen(w + q->offset, t->data, t->dtype, n);
        if (check_finite(q, w + q->offset, dir, err)) goto out;
    }
out:
    rd_safetensors_close(file);
    return err->status;
}
