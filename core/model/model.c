/* model.c - names in the file to weights on the device; every shape is checked before one is read. */
#include "core/model/model.h"

#include "core/base/memory.h"
#include "core/format/file.h"
#include "core/format/packed.h"
#include "core/format/quant.h"
#include "core/model/layers.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ROWS = 512, KV_BLOCKS = 128, KV_BLOCKS_MOST = 1 << 16 };

/* ---- binding ---- */

typedef struct binding {
    const rd_model_config *c;
    const rd_weight_source *from;
    rd_model *m; /* NULL: every weight is asked for, nothing is taken */
    rd_error *err;
} binding;

static void shape_text(const rd_tensor *t, char *out, size_t n)
{
    size_t at = (size_t)snprintf(out, n, "[");

    for (int i = 0; i < t->rank && at < n; i++)
        at += (size_t)snprintf(out + at, n - at, "%s%lld", i ? ", " : "", (long long)t->shape[i]);
    if (at < n) snprintf(out + at, n - at, "]");
}

static bool has_shape(const rd_tensor *t, int rows, int cols)
{
    if (rows == 1 && t->rank == 1) return t->shape[0] == cols;
    return t->rank == 2 && t->shape[0] == rows && t->shape[1] == cols;
}

/* A file, and how its matrices are packed. */
typedef struct file_source {
    const rd_safetensors *file;
    rd_pack scheme; /* RD_PACK_NONE: float types, or int8 rows */
} file_source;

static rd_status file_source_of(const rd_safetensors *s, file_source *out, rd_error *err)
{
    const char *scheme = rd_safetensors_meta(s, "redraft_quant");
    const char *version = rd_safetensors_meta(s, "redraft_quant_version");

    *out = (file_source){ s, rd_pack_named(scheme) };
    if (!scheme) return RD_OK;
    if (!out->scheme && strcmp(scheme, RD_QUANT_INT8_ROW) != 0)
        return rd_fail(err, RD_INVALID,
                       "the weights are packed as \"%.40s\"; this program knows int8-row, "
                       "int8-panel and int4-panel",
                       scheme);
    if (!version || strcmp(version, RD_PACKED_VERSION) != 0)
        return rd_fail(err, RD_INVALID,
                       "the weights are packed as %.40s of version %.20s; this program knows "
                       "version " RD_PACKED_VERSION,
                       scheme, version ? version : "\"\"");
    return RD_OK;
}

static bool is_panels(const rd_tensor *t, rd_pack p, int rows, int cols)
{
    return t->dtype == RD_U8 && t->rank == 2 && t->shape[0] == (int64_t)rd_pack_panels(rows) &&
           t->shape[1] == (int64_t)rd_pack_panel_bytes(p, cols);
}

/* W.q and W.s as panels. A matrix may be int8 in an int4 file: its shape says so. */
static rd_status find_panels(const file_source *f, const char *name, const rd_tensor *q,
                             const rd_tensor *scale, int rows, int cols, rd_matrix *out,
                             rd_error *err)
{
    size_t padded = rd_pack_panels(rows) * RD_PACK_ROWS;
    rd_pack p = is_panels(q, RD_PACK_INT8, rows, cols) ? RD_PACK_INT8 : f->scheme;
    char shape[64];

    if (!is_panels(q, p, rows, cols)) {
        shape_text(q, shape, sizeof shape);
        return rd_fail(err, RD_INVALID, "%s.q is %s %s; %s of [%d, %d] is U8 [%zu, %zu]", name,
                       rd_dtype_name(q->dtype), shape, rd_pack_name(f->scheme), rows, cols,
                       rd_pack_panels(rows), rd_pack_panel_bytes(f->scheme, cols));
    }
    if (!scale || scale->dtype != RD_F32 || scale->rank != 1 || scale->shape[0] != (int64_t)padded)
        return rd_fail(err, RD_INVALID, "%s.s: missing, or not F32 [%zu]", name, padded);
    if ((uintptr_t)q->data % RD_PACK_LINE || (uintptr_t)scale->data % sizeof(float))
        return rd_fail(err, RD_INVALID, "%s: does not begin at a multiple of %d bytes", name,
                       RD_PACK_LINE);
    *out = (rd_matrix){ q->data, RD_U8, rows, cols, scale->data, p, NULL, false };
    return RD_OK;
}

static int scale_blocks(int n)
{
    return n / RD_SCALE_BLOCK + (n % RD_SCALE_BLOCK != 0);
}

/* What the blocks of an F8_E4M3 tensor are multiplied by; the name is DeepSeek's. */
static rd_status find_block_scale(const file_source *f, const char *name, int rows, int cols,
                                  const rd_tensor **out, rd_error *err)
{
    char other[128];
    int down = scale_blocks(rows), across = scale_blocks(cols);

    snprintf(other, sizeof other, "%s_scale_inv", name);
    const rd_tensor *t = rd_safetensors_find(f->file, other);

    if (!t || t->dtype != RD_F32 || t->rank != 2 || t->shape[0] != down || t->shape[1] != across)
        return rd_fail(err, RD_INVALID, "%s: missing, or not F32 [%d, %d]", other, down, across);
    *out = t;
    return RD_OK;
}

/* NAME.q, and *scale for NAME.s. */
static const rd_tensor *find_quantised(const file_source *f, const char *name,
                                       const rd_tensor **scale)
{
    char other[128];
    int n = snprintf(other, sizeof other, "%s.q", name);
    const rd_tensor *t = rd_safetensors_find(f->file, other);

    if (!t || n >= (int)sizeof other) return NULL;
    other[n - 1] = 's';
    *scale = rd_safetensors_find(f->file, other);
    return t;
}

/* The tensor `name` of a file as a matrix; float types, or packed with the scales beside it. The name under which it
 * most likely stands is looked for first. */
static rd_status find_in_file(void *user, const char *name, int rows, int cols, rd_matrix *out,
                              rd_error *err)
{
    const file_source *f = user;
    const rd_tensor *scale = NULL, *t = NULL, *q = NULL;
    char shape[64];

    if (f->scheme && rows > 1) q = find_quantised(f, name, &scale);
    if (!q) t = rd_safetensors_find(f->file, name);
    if (!q && !t) q = find_quantised(f, name, &scale);
    if (q) {
        if (f->scheme) return find_panels(f, name, q, scale, rows, cols, out, err);
        if (!scale || scale->dtype != RD_F32 || scale->rank != 1 || scale->shape[0] != rows)
            return rd_fail(err, RD_INVALID, "%s.s: missing, or not F32 [%d]", name, rows);
        if (q->dtype != RD_I8)
            return rd_fail(err, RD_INVALID, "%s.q is %s, expected I8", name,
                           rd_dtype_name(q->dtype));
        t = q;
    }
    if (!t) return rd_fail(err, RD_NOT_FOUND, "the weight %s is missing", name);
    if (t->dtype == RD_F8_E4M3 && find_block_scale(f, name, rows, cols, &scale, err))
        return RD_INVALID;
    if (!scale && t->dtype != RD_F32 && t->dtype != RD_F16 && t->dtype != RD_BF16)
        return rd_fail(err, RD_INVALID, "%s is %s, expected F32, F16, BF16, F8_E4M3 or our int8",
                       name, rd_dtype_name(t->dtype));
    if (!has_shape(t, rows, cols)) {
        shape_text(t, shape, sizeof shape);
        if (rows == 1)
            return rd_fail(err, RD_INVALID, "%s is %s, expected [%d]", name, shape, cols);
        return rd_fail(err, RD_INVALID, "%s is %s, expected [%d, %d]", name, shape, rows, cols);
    }
    *out = (rd_matrix){ t->data,      t->dtype, rows, cols, scale ? scale->data : NULL,
                        RD_PACK_NONE, NULL,     false };
    return RD_OK;
}

static rd_weight_source source_of(const file_source *f)
{
    return (rd_weight_source){ find_in_file, (void *)(uintptr_t)f };
}

/* A packed weight stays where it is for the model's life. Every byte of its panels means something; its scales are the
 * backend's to judge, as all numbers that it takes are (core/backend.h). */
static rd_status take_packed(const binding *b, const rd_matrix *m, bool exact, rd_weight **out,
                             rd_error *err)
{
    if (exact) return rd_fail(err, RD_INVALID, "is packed, and must be exact");
    if (!b->m) return RD_OK;
    b->m->in_place = true;
    return b->m->backend->take(b->m->device, m, exact, out, err);
}

/* Any other is the backend's own once it is taken. */
static rd_status take_whole(const binding *b, rd_matrix m, bool exact, rd_weight **out,
                            rd_error *err)
{
    float *aligned = NULL;

    if (!b->m) return RD_OK;
    if (m.scale && (uintptr_t)m.scale % sizeof(float)) { /* a file may place them anywhere */
        size_t n = (size_t)m.rows;

        if (m.dtype == RD_F8_E4M3) n = (size_t)scale_blocks(m.rows) * (size_t)scale_blocks(m.cols);
        aligned = rd_alloc_array(n, sizeof *aligned);
        memcpy(aligned, m.scale, n * sizeof *aligned);
        m.scale = aligned;
    }
    rd_status status = b->m->backend->take(b->m->device, &m, exact, out, err);

    free(aligned);
    return status;
}

static rd_status bind(const binding *b, bool exact, int rows, int cols, rd_weight **out,
                      const char *format, ...)
{
    char name[112];
    va_list args;
    rd_matrix m = { 0 };
    rd_error inner = { 0 };

    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    if (b->from->find(b->from->user, name, rows, cols, &m, b->err)) return b->err->status;
    m.table = rd_ends_with(name, "word_embeddings.weight");
    rd_status status =
        m.pack ? take_packed(b, &m, exact, out, &inner) : take_whole(b, m, exact, out, &inner);

    if (status) return rd_fail(b->err, status, "%s: %s", name, inner.text);
    return RD_OK;
}

static rd_status bind_mlp(const binding *b, rd_mlp *out, int width, int l, const char *which)
{
    int hidden = b->c->hidden_size;

    return bind(b, false, width, hidden, (rd_weight **)&out->gate,
                "model.layers.%d.mlp.%sgate_proj.weight", l, which) ||
                   bind(b, false, width, hidden, (rd_weight **)&out->up,
                        "model.layers.%d.mlp.%sup_proj.weight", l, which) ||
                   bind(b, false, hidden, width, (rd_weight **)&out->down,
                        "model.layers.%d.mlp.%sdown_proj.weight", l, which)
               ? RD_INVALID
               : RD_OK;
}

static rd_status bind_layer(const binding *b, rd_layer *y, int l)
{
    const rd_model_config *c = b->c;
    int hidden = c->hidden_size, dim = c->head_dim, heads = c->num_attention_heads;
    char which[32];

    if (bind(b, true, 1, hidden, &y->norm1, "model.layers.%d.input_layernorm.weight", l) ||
        bind(b, true, 1, hidden, &y->norm2, "model.layers.%d.post_attention_layernorm.weight", l) ||
        bind(b, false, (heads + 2 * c->num_key_value_heads) * dim, hidden, &y->qkv,
             "model.layers.%d.attention.query_key_value.weight", l) ||
        bind(b, true, 1, dim, &y->q_norm, "model.layers.%d.attention.query_layernorm.weight", l) ||
        bind(b, true, 1, dim, &y->k_norm, "model.layers.%d.attention.key_layernorm.weight", l) ||
        bind(b, false, hidden, heads * dim, &y->dense, "model.layers.%d.attention.dense.weight", l))
        return RD_INVALID;
    if (l < c->first_k_dense_replace) return bind_mlp(b, &y->mlp, c->intermediate_size, l, "");
    if (bind(b, true, c->num_experts, hidden, &y->router, "model.layers.%d.mlp.gate.weight", l) ||
        bind(b, true, 1, c->num_experts, &y->bias, "model.layers.%d.mlp.gate.expert_bias", l))
        return RD_INVALID;
    if (c->num_shared_experts > 0 &&
        bind_mlp(b, &y->shared, c->num_shared_experts * c->moe_intermediate_size, l,
                 "shared_experts."))
        return RD_INVALID;
    if (b->m) y->experts = rd_alloc_array((size_t)c->num_experts, sizeof *y->experts);
    for (int e = 0; e < c->num_experts; e++) {
        rd_mlp unused = { 0 };

        snprintf(which, sizeof which, "experts.%d.", e);
        if (bind_mlp(b, b->m ? &y->experts[e] : &unused, c->moe_intermediate_size, l, which))
            return RD_INVALID;
    }
    return RD_OK;
}

static rd_status bind_all(const binding *b)
{
    const rd_model_config *c = b->c;
    rd_weight *none = NULL;

    if (bind(b, false, c->vocab_size, c->hidden_size, b->m ? &b->m->table : &none,
             "model.word_embeddings.weight") ||
        bind(b, true, 1, c->hidden_size, b->m ? &b->m->norm : &none, "model.norm.weight"))
        return RD_INVALID;
    if (!c->tie_word_embeddings &&
        bind(b, false, c->vocab_size, c->hidden_size, b->m ? &b->m->head : &none, "lm_head.weight"))
        return RD_INVALID;
    for (int l = 0; l < c->num_hidden_layers; l++) {
        rd_layer unused = { 0 };

        if (bind_layer(b, b->m ? &b->m->layer[l] : &unused, l)) return RD_INVALID;
    }
    return RD_OK;
}

rd_status rd_model_visit(const rd_model_config *c, const rd_weight_source *from, rd_error *err)
{
    rd_error local = { 0 };
    binding b = { c, from, NULL, err ? err : &local };

    return bind_all(&b) ? b.err->status : RD_OK;
}

rd_status rd_model_check(const rd_model_config *c, const rd_safetensors *s, rd_error *err)
{
    file_source f;

    if (file_source_of(s, &f, err)) return RD_INVALID;
    rd_weight_source file = source_of(&f);

    return rd_model_visit(c, &file, err);
}

/* ---- open and close ---- */

/* Raised when the same files come to give other numbers: kernels, order of sums, rounding. */
enum { NUMERICS = 2, CONFIG_MOST = 64 << 20 };

/* Files beside the weights whose words decide what goes in and what comes out. */
static void add_files(rd_key_maker *k, const char *dir)
{
    static const char *const names[] = {
        "config.json",         "tokenizer.json",         "tokenizer_config.json",
        "chat_template.jinja", "generation_config.json", "special_tokens_map.json"
    };

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *path = rd_path_join(dir, names[i]);
        rd_buf text = { 0 };

        rd_key_add_text(k, rd_file_read(path, CONFIG_MOST, &text, NULL) ? NULL : names[i]);
        rd_key_add(k, text.data, text.len);
        rd_buf_clear(&text);
        free(path);
    }
}

static rd_key identity_of(rd_model *m, const char *dir, const rd_safetensors *s)
{
    rd_device_info info;
    rd_key_maker k;

    m->backend->describe(m->device, &info);
    rd_key_begin(&k, "model");
    rd_key_add_number(&k, NUMERICS);
    rd_key_add_text(&k, m->backend->name);
    rd_key_add_text(&k, info.isa);
    rd_key_add_text(&k, m->backend->kv_layout);
    rd_key_add_number(&k, m->precision);
    rd_key_add_number(&k, m->block_size);
    add_files(&k, dir);
    rd_safetensors_name(s, &k);
    return rd_key_end(&k);
}

/* What a block takes is known once there are some. */
static rd_status open_kv(rd_model *m, const rd_model_options *o, rd_error *err)
{
    const rd_model_config *c = &m->config;
    rd_kv_shape kv = { c->num_hidden_layers,
                       c->num_key_value_heads,
                       c->head_dim,
                       m->block_size,
                       o->kv_blocks > 0 ? o->kv_blocks : KV_BLOCKS,
                       o->exact_kv };

    if (m->backend->kv_open(m->device, &kv, &m->kv, err)) return err->status;
    size_t fit = o->kv_bytes / m->backend->kv_block_bytes(m->device, m->kv);

    m->kv_blocks = kv.blocks;
    if (fit <= (size_t)kv.blocks) return RD_OK;
    m->backend->kv_close(m->device, m->kv);
    m->kv = NULL;
    m->kv_blocks = kv.blocks = fit < KV_BLOCKS_MOST ? (int)fit : KV_BLOCKS_MOST;
    return m->backend->kv_open(m->device, &kv, &m->kv, err);
}

static rd_status make_room(rd_model *m, const rd_model_options *o, rd_error *err)
{
    const rd_model_config *c = &m->config;
    const rd_backend *be = m->backend;
    int wide = (c->num_attention_heads + 2 * c->num_key_value_heads) * c->head_dim;

    m->chosen = rd_alloc_array((size_t)m->max_rows, sizeof *m->chosen);
    return be->alloc(m->device, m->max_rows, c->hidden_size, &m->x, err) ||
                   be->alloc(m->device, m->max_rows, c->hidden_size, &m->normed, err) ||
                   be->alloc(m->device, m->max_rows, c->hidden_size, &m->y, err) ||
                   be->alloc(m->device, m->max_rows, wide, &m->qkv, err) ||
                   be->alloc(m->device, m->max_rows, c->num_attention_heads * c->head_dim,
                             &m->mixed, err) ||
                   open_kv(m, o, err)
               ? RD_INVALID
               : RD_OK;
}

/* Everything behind the config, which stands in `m` already. */
static rd_status set_up(rd_model *m, const rd_weight_source *from, const rd_model_options *o,
                        rd_error *err)
{
    m->backend = o->backend;
    m->precision = o->device.precision;
    m->max_rows = o->max_rows > 0 ? o->max_rows : MAX_ROWS;
    m->block_size = o->block_size > 0 ? o->block_size : m->config.block_size;
    if (m->block_size > m->max_rows) m->max_rows = m->block_size;
    if (m->backend->open(&o->device, &m->device, err)) return err->status;
    rd_device_info info = { 0 };

    m->backend->describe(m->device, &info);
    if (info.rows > m->max_rows) m->max_rows = info.rows;
    m->layer = rd_alloc_array((size_t)m->config.num_hidden_layers, sizeof *m->layer);
    binding b = { &m->config, from, m, err };

    return bind_all(&b) || make_room(m, o, err) ? err->status : RD_OK;
}

/* What the check found, in the order of its questions, which are asked again in the same order. */
typedef struct found_weights {
    const rd_weight_source *from;
    rd_matrix *matrix;
    size_t n, cap, at;
} found_weights;

static rd_status find_and_note(void *user, const char *name, int rows, int cols, rd_matrix *out,
                               rd_error *err)
{
    found_weights *f = user;

    if (f->from->find(f->from->user, name, rows, cols, out, err)) return err->status;
    if (f->n == f->cap) {
        f->cap = f->cap ? 2 * f->cap : 64;
        f->matrix = rd_resize(f->matrix, f->cap, sizeof *f->matrix);
    }
    f->matrix[f->n++] = *out;
    return RD_OK;
}

static rd_status find_noted(void *user, const char *name, int rows, int cols, rd_matrix *out,
                            rd_error *err)
{
    found_weights *f = user;

    (void)err;
    assert(f->at < f->n && f->matrix[f->at].rows == rows && f->matrix[f->at].cols == cols);
    (void)name;
    (void)rows;
    (void)cols;
    *out = f->matrix[f->at++];
    return RD_OK;
}

/* All shapes before anything is made; then the weights, each of which is looked for once. */
static rd_status open_weights(rd_model *m, const rd_model_options *o, rd_error *err)
{
    file_source f;

    if (file_source_of(m->file, &f, err)) return err->status;
    rd_weight_source file = source_of(&f);
    found_weights found = { .from = &file };
    rd_weight_source noting = { find_and_note, &found }, noted = { find_noted, &found };
    rd_status status = rd_model_visit(&m->config, &noting, err);

    if (!status) status = set_up(m, &noted, o, err);
    free(found.matrix);
    return status;
}

rd_status rd_model_open(const char *dir, const rd_model_options *o, rd_model **out, rd_error *err)
{
    rd_model *m = rd_alloc0(sizeof *m);
    rd_error local = { 0 }, why = { 0 };

    if (!err) err = &local;
    if (rd_config_read(dir, &m->config, err)) goto fail;
    if (rd_safetensors_open(dir, &m->file, err)) goto fail;
    if (open_weights(m, o, &why)) {
        rd_fail(err, why.status, "%s: %s", dir, why.text);
        goto fail;
    }
    m->identity = identity_of(m, dir, m->file);
    if (rd_safetensors_unchanged(m->file, err)) goto fail;
    if (!m->in_place) {
        rd_safetensors_close(m->file);
        m->file = NULL;
    }
    *out = m;
    return RD_OK;
fail:
    rd_model_close(m);
    return err->status;
}

rd_status rd_model_unchanged(const rd_model *m, rd_error *err)
{
    rd_error why = { 0 };

    if (!m->file || !rd_safetensors_unchanged(m->file, &why)) return RD_OK;
    return rd_fail(err, RD_DEVICE, "%s", why.text);
}

rd_status rd_model_open_from(const rd_model_config *c, const rd_weight_source *from,
                             const rd_model_options *o, rd_model **out, rd_error *err)
{
    rd_model *m = rd_alloc0(sizeof *m);
    rd_error local = { 0 };

    if (!err) err = &local;
    m->config = *c;
    if (rd_config_check(c, "the shape", err) || set_up(m, from, o, err)) {
        rd_model_close(m);
        return err->status;
    }
    *out = m;
    return RD_OK;
}

static void drop(rd_model *m, const rd_weight *w)
{
    if (w) m->backend->drop(m->device, (rd_weight *)w);
}

static void drop_mlp(rd_model *m, const rd_mlp *p)
{
    drop(m, p->gate);
    drop(m, p->up);
    drop(m, p->down);
}

void rd_model_close(rd_model *m)
{
    if (!m) return;
    for (int l = 0; m->layer && l < m->config.num_hidden_layers; l++) {
        rd_layer *y = &m->layer[l];
        rd_weight *all[] = { y->norm1, y->qkv,   y->q_norm, y->k_norm,
                             y->dense, y->norm2, y->router, y->bias };

        for (size_t i = 0; i < sizeof all / sizeof *all; i++) drop(m, all[i]);
        drop_mlp(m, &y->mlp);
        drop_mlp(m, &y->shared);
        for (int e = 0; y->experts && e < m->config.num_experts; e++) drop_mlp(m, &y->experts[e]);
        free(y->experts);
    }
    if (m->device) {
        rd_view *views[] = { &m->x, &m->normed, &m->y, &m->qkv, &m->mixed };

        drop(m, m->table);
        drop(m, m->norm);
        drop(m, m->head);
        for (size_t i = 0; i < sizeof views / sizeof *views; i++)
            m->backend->release(m->device, views[i]);
        m->backend->kv_close(m->device, m->kv);
        m->backend->close(m->device);
    }
    rd_safetensors_close(m->file); /* what the device held lies there */
    free(m->layer);
    free(m->chosen);
    free(m);
}

const rd_model_config *rd_model_config_of(const rd_model *m)
{
    return &m->config;
}

int rd_model_block_size(const rd_model *m)
{
    return m->block_size;
}

int rd_model_max_rows(const rd_model *m)
{
    return m->max_rows;
}

int rd_model_kv_blocks(const rd_model *m)
{
    return m->kv_blocks;
}

void rd_model_describe(rd_model *m, rd_device_info *out)
{
    m->backend->describe(m->device, out);
}

rd_key rd_model_identity(const rd_model *m)
{
    return m->identity;
}

size_t rd_model_kv_bytes(const rd_model *m)
{
    return m->backend->kv_block_bytes(m->device, m->kv);
}

rd_status rd_model_kv_read(rd_model *m, int block, void *to, rd_error *err)
{
    return m->backend->kv_read(m->device, m->kv, block, to, err);
}

rd_status rd_model_kv_write(rd_model *m, int block, const void *from, rd_error *err)
{
    return m->backend->kv_write(m->device, m->kv, block, from, err);
}

void *rd_model_kv_host(rd_model *m, int block)
{
    return m->backend->kv_host ? m->backend->kv_host(m->device, m->kv, block) : NULL;
}

void rd_model_kv_geometry(const rd_model *m, rd_kv_geometry *out)
{
    const rd_model_config *c = &m->config;

    *out = (rd_kv_geometry){ .model = m->identity,
                             .pieces = 2 * c->num_hidden_layers * c->num_key_value_heads,
                             .piece = m->block_size * c->head_dim,
                             .block_tokens = m->block_size };
    out->bytes_each = (int)(rd_model_kv_bytes(m) / ((size_t)out->pieces * (size_t)out->piece));
}
