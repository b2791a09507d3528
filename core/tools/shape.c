/* shape.c - the table of shapes, the generator, and the circle of experts. */
#include "core/tools/shape.h"

#include "core/base/buf.h"
#include "core/base/memory.h"
#include "core/format/packed.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* ---- shapes ---- */

/* The built-in model's family (its config in the repository is e8's), one of it for trying things out, and the peers' dense
 * model of 59M numbers. */
typedef struct small_shape {
    const char *name;
    int hidden, layers, heads, kv, dim, experts, expert_width, width,
        vocab; /* vocab 0: for the trainer alone */
} small_shape;

static const small_shape small_shapes[] = {
    { "tiny", 64, 2, 2, 1, 32, 4, 32, 128, 0 },
    { "e8", 256, 6, 4, 2, 64, 8, 128, 512, 8192 },
    { "e21", 384, 8, 6, 2, 64, 8, 192, 768, 8192 },
    { "e46", 512, 10, 8, 2, 64, 8, 256, 1024, 12288 },
    { "dense-59m", 512, 12, 8, 8, 64, 0, 0, 2048, 16384 },
};

static const small_shape *small_named(const char *name)
{
    for (size_t i = 0; i < sizeof small_shapes / sizeof *small_shapes; i++)
        if (!strcmp(small_shapes[i].name, name)) return &small_shapes[i];
    return NULL;
}

static rd_model_config config_of(const small_shape *s)
{
    return (rd_model_config){ .vocab_size = s->vocab,
                              .hidden_size = s->hidden,
                              .num_hidden_layers = s->layers,
                              .num_attention_heads = s->heads,
                              .num_key_value_heads = s->kv,
                              .head_dim = s->dim,
                              .intermediate_size = s->width,
                              .moe_intermediate_size = s->experts ? s->expert_width : s->width,
                              .num_experts = s->experts ? s->experts : 1,
                              .num_experts_per_tok = s->experts ? 2 : 1,
                              .num_shared_experts = s->experts ? 1 : 0,
                              .first_k_dense_replace = s->experts ? 1 : s->layers,
                              .n_group = 1,
                              .topk_group = 1,
                              .block_size = 32,
                              .rotary_dim = s->dim / 2,
                              .max_position_embeddings = 4096,
                              .rope_theta = 10000.0,
                              .rms_norm_eps = 1e-6,
                              .routed_scaling_factor = 2.5,
                              .tie_word_embeddings = true,
                              .pad_token_id = 1,
                              .mask_token_id = 2,
                              .delete_token_id = 3,
                              .split_token_id = 4,
                              .eos_count = 1 };
}

bool rd_shape_recipe(const char *name, int vocab, rd_model_config *out)
{
    const small_shape *s = small_named(name);

    if (!s || !s->experts) return false;
    *out = config_of(s);
    out->vocab_size = vocab;
    out->infill_layout = true;
    return true;
}

bool rd_shape_named(const char *name, rd_model_config *out)
{
    const small_shape *small = small_named(name);

    if (small && small->vocab > 0) {
        *out = config_of(small);
        return true;
    }
    rd_model_config mini = { .vocab_size = 157184,
                             .hidden_size = 2048,
                             .num_hidden_layers = 20,
                             .num_attention_heads = 16,
                             .num_key_value_heads = 4,
                             .head_dim = 128,
                             .intermediate_size = 5120,
                             .moe_intermediate_size = 512,
                             .num_experts = 256,
                             .num_experts_per_tok = 8,
                             .num_shared_experts = 1,
                             .first_k_dense_replace = 1,
                             .n_group = 8,
                             .topk_group = 4,
                             .block_size = 32,
                             .rotary_dim = 64,
                             .max_position_embeddings = 32768,
                             .rope_theta = 600000.0,
                             .rms_norm_eps = 1e-6,
                             .routed_scaling_factor = 2.5,
                             .pad_token_id = 156892,
                             .mask_token_id = 156895,
                             .delete_token_id = -1,
                             .split_token_id = -1,
                             .eos_token_id = { 156892 },
                             .eos_count = 1 };

    if (!strcmp(name, "llada2.2-mini")) {
        mini.expert_capacity = 48;
        mini.rope_theta = 3000000.0;
        mini.max_position_embeddings = 131072;
        mini.delete_token_id = 156930;
        mini.split_token_id = 156931;
    } else if (!strcmp(name, "llada2.1-flash")) {
        mini.hidden_size = 4096;
        mini.num_hidden_layers = 32;
        mini.num_attention_heads = 32;
        mini.intermediate_size = 9216;
        mini.moe_intermediate_size = 1024;
    } else if (strcmp(name, "llada2.1-mini") != 0) {
        return false;
    }
    *out = mini;
    return true;
}

static bool is_router(const char *name)
{
    return rd_ends_with(name, "mlp.gate.weight");
}

static bool has_experts(const rd_model_config *c)
{
    return c->first_k_dense_replace < c->num_hidden_layers;
}

/* How the matrix is packed; what stays exact is not. */
static rd_pack pack_of(const rd_model_config *c, rd_pack scheme, const char *name, int rows)
{
    return scheme && rows > 1 ? rd_pack_of(scheme, has_experts(c), name) : RD_PACK_NONE;
}

/* Panels and the scales behind them. */
static size_t packed_bytes(rd_pack p, int rows, int cols)
{
    return rd_pack_panels(rows) * (rd_pack_panel_bytes(p, cols) + RD_PACK_ROWS * sizeof(float));
}

typedef struct counter {
    const rd_model_config *config;
    rd_pack scheme;
    rd_shape_size *size;
} counter;

/* The embedding is read a row a token; where it is tied, it is the head. */
static rd_shape_part *part_of(const counter *k, const char *name)
{
    if (strstr(name, ".mlp.experts.")) return &k->size->experts;
    if (!strncmp(name, "lm_head.", 8)) return &k->size->head;
    if (!strstr(name, "word_embeddings")) return &k->size->dense;
    return k->config->tie_word_embeddings ? &k->size->head : &k->size->table;
}

static rd_status count(void *user, const char *name, int rows, int cols, rd_matrix *out,
                       rd_error *err)
{
    counter *k = user;
    rd_shape_size *size = k->size;
    rd_shape_part *part = part_of(k, name);
    rd_pack p = pack_of(k->config, k->scheme, name, rows);
    size_t n;

    (void)out;
    if (!rd_mul((size_t)rows, (size_t)cols, &n) || !rd_add(size->weights, n, &size->weights))
        return rd_fail(err, RD_INVALID, "a shape of more weights than can be counted");
    if (rows == 1 || is_router(name)) size->exact += n;
    if (n > size->largest) size->largest = n;
    part->weights += n;
    part->bytes += p ? packed_bytes(p, rows, cols) : n * sizeof(float);
    size->packed += p ? packed_bytes(p, rows, cols) : 0;
    return RD_OK;
}

rd_status rd_shape_measure(const rd_model_config *c, rd_pack scheme, rd_shape_size *out,
                           rd_error *err)
{
    counter k = { c, scheme, out };
    rd_weight_source counting = { count, &k };

    *out = (rd_shape_size){ 0 };
    return rd_model_visit(c, &counting, err);
}

/* ---- random numbers ---- */

typedef uint64_t lanes __attribute__((vector_size(64), aligned(8)));

/* Eight xorshift generators side by side (Marsaglia 2003, 13-7-17): good enough for weights, and as fast as
 * memory. The bits in `keep` are random, those in `set` are one. */
static void fill(rd_random_weights *w, void *to, size_t bytes, uint64_t keep, uint64_t set)
{
    lanes x, piece;
    char *at = to;

    memcpy(&x, w->state, sizeof x);
    for (size_t left = bytes; left > 0;) {
        size_t n = left < sizeof x ? left : sizeof x;

        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        piece = (x & keep) | set;
        memcpy(at, &piece, n);
        at += n;
        left -= n;
    }
    memcpy(w->state, &x, sizeof x);
}

static const uint64_t each_half = 0x0001000100010001u;

/* bf16 numbers of both signs whose root mean square is near `rms`: one exponent, a random mantissa. */
static void fill_bf16(rd_random_weights *w, size_t n, float rms)
{
    int exponent = 127 + (int)lroundf(log2f(rms / 1.5275f));

    fill(w, w->data, 2 * n, 0x807f * each_half, ((uint64_t)exponent << 7) * each_half);
}

static void fill_scales(float *scale, int rows, float each)
{
    int padded = (int)rd_pack_panels(rows) * RD_PACK_ROWS;

    for (int i = 0; i < padded; i++) scale[i] = i < rows ? each : 0.0f;
}

/* Odd integers from -127 to 127, so that their mean is 0 exactly: the byte is q + 128. */
static void fill_int8(rd_random_weights *w, char *to, int rows, int cols, float rms, float *scale)
{
    fill(w, to, rd_pack_panels(rows) * rd_pack_panel_bytes(RD_PACK_INT8, cols), UINT64_MAX,
         0x0101010101010101u);
    fill_scales(scale, rows, rms / 73.9f);
}

/* Odd integers from -7 to 7, steps from 128 to 255: root mean squares of 4.58 and 195. */
static void fill_int4(rd_random_weights *w, char *to, int rows, int cols, float rms, float *scale)
{
    enum { STEPS = 4 * RD_PACK_ROWS, NUMBERS = RD_PACK_CELL - STEPS };
    size_t cells = rd_pack_panels(rows) * rd_pack_cells(cols);

    for (size_t i = 0; i < cells; i++, to += RD_PACK_CELL) {
        fill(w, to, NUMBERS, UINT64_MAX, 0x1111111111111111u);
        fill(w, to + NUMBERS, STEPS, UINT64_MAX, 0x8080808080808080u);
    }
    fill_scales(scale, rows, rms / 893.8f);
}

/* ---- the circle ---- */

static double angle(const rd_model_config *c, double place)
{
    return 6.283185307179586 * place / c->num_experts;
}

/* A narrower model has no channels to spare; its tokens are routed as they fall. */
static bool has_circle(const rd_model_config *c)
{
    return c->hidden_size >= 8;
}

/* In the middle of the experts [token mod E, + top_k), so that none outside is as near as one inside. */
static double place_of(const rd_model_config *c, int token)
{
    return token % c->num_experts + 0.5 * (c->num_experts_per_tok - 1);
}

static void mark_tokens(const rd_random_weights *w, int rows, int cols)
{
    uint16_t *to = w->data;

    for (size_t t = 0; t < (size_t)rows; t++, to += cols) {
        double at = angle(w->config, place_of(w->config, (int)t));

        to[0] = rd_f32_to_bf16((float)cos(at));
        to[1] = rd_f32_to_bf16((float)sin(at));
    }
}

/* The same in int8 panels, whose first vector holds the first columns of 16 rows. */
static void mark_panels(const rd_random_weights *w, char *panels, int rows, int cols)
{
    size_t bytes = rd_pack_panel_bytes(RD_PACK_INT8, cols);

    for (int t = 0; t < rows; t++) {
        double at = angle(w->config, place_of(w->config, t));
        uint8_t *to =
            (uint8_t *)panels + (size_t)(t / RD_PACK_ROWS) * bytes + (size_t)(t % RD_PACK_ROWS) * 4;

        to[0] = (uint8_t)(128 + lround(127.0 * cos(at)));
        to[1] = (uint8_t)(128 + lround(127.0 * sin(at)));
    }
}

static void make_router(const rd_random_weights *w, int rows, int cols)
{
    float *to = w->data;

    memset(to, 0, (size_t)rows * (size_t)cols * sizeof *to);
    for (int e = 0; e < rows && has_circle(w->config); e++) {
        to[(size_t)e * (size_t)cols] = 4.0f * (float)cos(angle(w->config, e));
        to[(size_t)e * (size_t)cols + 1] = 4.0f * (float)sin(angle(w->config, e));
    }
}

void rd_shape_tokens(const rd_model_config *c, int experts, int rows, rd_random *r, int32_t *out)
{
    int spread = experts - c->num_experts_per_tok;

    for (int i = 0; i < rows; i++) {
        int residue = 0;

        if (experts <= 0)
            residue = (int)rd_random_below(r, (uint32_t)c->num_experts);
        else if (rows > 1 && spread > 0)
            residue = (2 * i * spread + rows - 1) / (2 * (rows - 1)); /* even steps over the arc */
        if (residue >= c->vocab_size) residue %= c->vocab_size;
        int same = (c->vocab_size - 1 - residue) / c->num_experts + 1; /* tokens of this residue */

        out[i] = residue + c->num_experts * (int32_t)rd_random_below(r, (uint32_t)same);
    }
}

/* ---- the source ---- */

/* Room for one tensor. What the embedding needed is given back before the many small ones come. */
static rd_status make_room(rd_random_weights *w, size_t bytes, rd_error *err)
{
    if (bytes <= w->data_bytes && w->data_bytes / 4 <= bytes) return RD_OK;
    if (bytes <= w->data_bytes && w->data_bytes < (size_t)16 << 20) return RD_OK;
    free(w->data);
    w->data_bytes = 0;
    w->data = rd_try_alloc(bytes);
    if (!w->data) return rd_fail(err, RD_NO_MEMORY, "no memory to make %zu MB", bytes >> 20);
    w->data_bytes = bytes;
    return RD_OK;
}

static bool is_table(const char *name)
{
    return rd_ends_with(name, "word_embeddings.weight");
}

/* Writes to the residual stream: two of its channels are the circle's. */
static bool writes_back(const char *name)
{
    return rd_ends_with(name, "down_proj.weight") || rd_ends_with(name, "attention.dense.weight");
}

/* Logits of a head spread by about 3. */
static float rms_of(const rd_random_weights *w, const char *name, int cols)
{
    bool tied = w->config->tie_word_embeddings;

    if (is_table(name) && !tied) return 0.75f;
    return (is_table(name) || rd_ends_with(name, "lm_head.weight") ? 3.0f : 1.0f) /
           sqrtf((float)cols);
}

static rd_status make_exact(rd_random_weights *w, const char *name, int rows, int cols,
                            rd_matrix *out, rd_error *err)
{
    size_t n = (size_t)rows * (size_t)cols;

    if (make_room(w, n * sizeof(float), err)) return RD_NO_MEMORY;
    *out = (rd_matrix){ w->data, RD_F32, rows, cols, NULL, RD_PACK_NONE, NULL, false };
    if (is_router(name))
        make_router(w, rows, cols);
    else
        for (size_t k = 0; k < n; k++)
            ((float *)w->data)[k] = rd_ends_with(name, "expert_bias") ? 0.0f : 1.0f;
    return RD_OK;
}

static rd_status make_bf16(rd_random_weights *w, const char *name, int rows, int cols,
                           rd_matrix *out, rd_error *err)
{
    size_t n = (size_t)rows * (size_t)cols;

    if (make_room(w, n * sizeof(uint16_t), err)) return RD_NO_MEMORY;
    *out = (rd_matrix){ w->data, RD_BF16, rows, cols, NULL, RD_PACK_NONE, NULL, false };
    fill_bf16(w, n, rms_of(w, name, cols));
    if (!has_circle(w->config)) return RD_OK;
    if (is_table(name)) mark_tokens(w, rows, cols);
    if (writes_back(name)) memset(w->data, 0, 2 * (size_t)cols * sizeof(uint16_t));
    return RD_OK;
}

/* Numbers from 1 to 1.875 of both signs, whose root mean square is 1.46, and one scale for all blocks. */
static rd_status make_e4m3(rd_random_weights *w, const char *name, int rows, int cols,
                           rd_matrix *out, rd_error *err)
{
    size_t n = (size_t)rows * (size_t)cols;
    size_t blocks = ((size_t)rows + 127) / 128 * (((size_t)cols + 127) / 128);

    if (make_room(w, n, err)) return RD_NO_MEMORY;
    fill(w, w->data, n, 0x8787878787878787u, 0x3838383838383838u);
    if (has_circle(w->config) && writes_back(name)) memset(w->data, 0, 2 * (size_t)cols);
    w->scale = rd_resize(w->scale, blocks, sizeof *w->scale);
    for (size_t i = 0; i < blocks; i++) w->scale[i] = rms_of(w, name, cols) / 1.46f;
    *out = (rd_matrix){ w->data, RD_F8_E4M3, rows, cols, w->scale, RD_PACK_NONE, NULL, false };
    return RD_OK;
}

/* Columns of padding must stand for zero: such a shape, small as a rule, is made in bf16 and packed. */
static rd_status pack_rows(const rd_matrix *from, rd_pack p, char *panels, float *scale,
                           rd_error *err)
{
    size_t cols = (size_t)from->cols, bytes = rd_pack_panel_bytes(p, from->cols);
    float *wide = rd_alloc_array(RD_PACK_ROWS * cols, sizeof *wide);
    rd_status s = RD_OK;

    for (int r = 0; r < from->rows && !s; r += RD_PACK_ROWS) {
        int here = from->rows - r < RD_PACK_ROWS ? from->rows - r : RD_PACK_ROWS;

        rd_widen(wide, (const uint16_t *)from->data + (size_t)r * cols, RD_BF16,
                 (size_t)here * cols);
        s = rd_pack_panel(p, wide, here, from->cols, panels, scale + r, err);
        panels += bytes;
    }
    free(wide);
    return s;
}

/* One piece of memory for all that is packed: it stays for the model's life. */
static rd_status open_region(rd_random_weights *w, rd_error *err)
{
    rd_shape_size size;

    if (w->region) return RD_OK;
    if (rd_shape_measure(w->config, w->scheme, &size, err)) return err->status;
    void *at = mmap(NULL, size.packed, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (at == MAP_FAILED)
        return rd_fail(err, RD_NO_MEMORY, "no memory to make %zu MB", size.packed >> 20);
    w->region = at;
    w->region_bytes = size.packed;
    return RD_OK;
}

static rd_status make_packed(rd_random_weights *w, rd_pack p, const char *name, int rows, int cols,
                             rd_matrix *out, rd_error *err)
{
    size_t bytes = packed_bytes(p, rows, cols);

    if (open_region(w, err)) return err->status;
    if (bytes > w->region_bytes - w->used)
        return rd_fail(err, RD_NO_MEMORY, "%s: made twice", name);
    char *at = w->region + w->used;
    float *scale = (float *)(void *)(at + rd_pack_panels(rows) * rd_pack_panel_bytes(p, cols));

    w->used += bytes;
    *out = (rd_matrix){ at, RD_U8, rows, cols, scale, p, NULL, false };
    if (cols % RD_PACK_COLS) {
        rd_matrix plain;

        if (make_bf16(w, name, rows, cols, &plain, err)) return err->status;
        return pack_rows(&plain, p, at, scale, err);
    }
    (p == RD_PACK_INT8 ? fill_int8 : fill_int4)(w, at, rows, cols, rms_of(w, name, cols), scale);
    if (!has_circle(w->config)) return RD_OK;
    if (is_table(name)) mark_panels(w, at, rows, cols);
    if (writes_back(name)) scale[0] = scale[1] = 0.0f;
    return RD_OK;
}

/* The device makes the numbers itself; none of them has to be marked. */
static rd_status make_there(rd_random_weights *w, rd_pack p, const char *name, int rows, int cols,
                            rd_matrix *out)
{
    w->fill = (rd_random_fill){ .seed = w->state[0] ^ ++w->filled * 0x9e3779b97f4a7c15u,
                                .rms = rms_of(w, name, cols),
                                .zero_rows = has_circle(w->config) && writes_back(name) ? 2 : 0 };
    *out = (rd_matrix){ NULL, p ? RD_U8 : RD_BF16, rows, cols, NULL, p, &w->fill, false };
    return RD_OK;
}

static rd_status make(void *user, const char *name, int rows, int cols, rd_matrix *out,
                      rd_error *err)
{
    rd_random_weights *w = user;
    rd_pack p = pack_of(w->config, w->scheme, name, rows);

    if (rows == 1 || is_router(name)) return make_exact(w, name, rows, cols, out, err);
    if (w->there && !is_table(name)) return make_there(w, p, name, rows, cols, out);
    if (w->e4m3 && !p && !is_table(name)) return make_e4m3(w, name, rows, cols, out, err);
    return p ? make_packed(w, p, name, rows, cols, out, err)
             : make_bf16(w, name, rows, cols, out, err);
}

rd_weight_source rd_random_weights_init(rd_random_weights *w, const rd_model_config *c,
                                        rd_pack scheme, uint64_t seed)
{
    rd_random r = rd_random_seed(seed);

    *w = (rd_random_weights){ .config = c, .scheme = scheme };
    for (int i = 0; i < 8; i++) w->state[i] = rd_random_u64(&r) | 1;
    return (rd_weight_source){ make, w };
}

void rd_random_weights_clear(rd_random_weights *w)
{
    if (w->region) munmap(w->region, w->region_bytes);
    free(w->data);
    free(w->scale);
    *w = (rd_random_weights){ 0 };
}
