/* shape.c - the table of shapes, the generator, and the circle of experts. */
#include "core/tools/shape.h"

#include "core/base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- shapes ---- */

bool rd_shape_named(const char *name, rd_model_config *out)
{
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

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);

    return n >= m && !strcmp(name + n - m, end);
}

static bool is_router(const char *name)
{
    return ends_with(name, "mlp.gate.weight");
}

static rd_status count(void *user, const char *name, int rows, int cols, rd_matrix *out,
                       rd_error *err)
{
    rd_shape_size *size = user;
    size_t n;

    (void)out;
    if (!rd_mul((size_t)rows, (size_t)cols, &n) || !rd_add(size->weights, n, &size->weights))
        return rd_fail(err, RD_INVALID, "a shape of more weights than can be counted");
    if (rows == 1 || is_router(name)) size->exact += n;
    if (n > size->largest) size->largest = n;
    return RD_OK;
}

rd_status rd_shape_measure(const rd_model_config *c, rd_shape_size *out, rd_error *err)
{
    rd_weight_source counter = { count, out };

    *out = (rd_shape_size){ 0 };
    return rd_model_visit(c, &counter, err);
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

/* Odd integers from -127 to 127 (so that their mean is 0 exactly), and the scale that makes them `rms`. */
static void fill_int8(rd_random_weights *w, size_t n, int rows, float rms)
{
    fill(w, w->data, n, UINT64_MAX, 0x0101010101010101u);
    for (int i = 0; i < rows; i++) w->scale[i] = rms / 73.9f;
}

static void put(const rd_random_weights *w, size_t i, double x)
{
    if (w->type == RD_I8)
        ((int8_t *)w->data)[i] = (int8_t)lround(127.0 * x);
    else
        ((uint16_t *)w->data)[i] = rd_f32_to_bf16((float)x);
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
    for (int t = 0; t < rows; t++) {
        double at = angle(w->config, place_of(w->config, t));

        put(w, (size_t)t * (size_t)cols, cos(at));
        put(w, (size_t)t * (size_t)cols + 1, sin(at));
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

static rd_status make(void *user, const char *name, int rows, int cols, rd_matrix *out,
                      rd_error *err)
{
    rd_random_weights *w = user;
    bool exact = rows == 1 || is_router(name);
    rd_dtype type = exact ? RD_F32 : w->type;
    size_t n = (size_t)rows * (size_t)cols;

    if (make_room(w, n * rd_dtype_bytes(type), err)) return RD_NO_MEMORY;
    if (type == RD_I8 && (size_t)rows > w->scale_rows) {
        w->scale = rd_resize(w->scale, (size_t)rows, sizeof *w->scale);
        w->scale_rows = (size_t)rows;
    }
    *out = (rd_matrix){ w->data, type, rows, cols, type == RD_I8 ? w->scale : NULL, RD_PACK_NONE };
    if (is_router(name)) {
        make_router(w, rows, cols);
        return RD_OK;
    }
    if (exact) {
        for (int k = 0; k < cols; k++)
            ((float *)w->data)[k] = ends_with(name, "expert_bias") ? 0.0f : 1.0f;
        return RD_OK;
    }
    bool table = ends_with(name, "word_embeddings.weight"),
         head = table ? w->config->tie_word_embeddings : ends_with(name, "lm_head.weight");
    float rms = (head ? 3.0f : 1.0f) / sqrtf((float)cols); /* logits of a head spread by about 3 */

    if (table && !head) rms = 0.75f;
    if (type == RD_I8)
        fill_int8(w, n, rows, rms);
    else
        fill_bf16(w, n, rms);
    if (!has_circle(w->config)) return RD_OK;
    if (table) mark_tokens(w, rows, cols);
    if (ends_with(name, "down_proj.weight") || ends_with(name, "attention.dense.weight"))
        memset(w->data, 0, 2 * (size_t)cols * rd_dtype_bytes(type)); /* the circle's channels */
    return RD_OK;
}

rd_weight_source rd_random_weights_init(rd_random_weights *w, const rd_model_config *c,
                                        rd_dtype type, uint64_t seed)
{
    rd_random r = rd_random_seed(seed);

    *w = (rd_random_weights){ .config = c, .type = type };
    for (int i = 0; i < 8; i++) w->state[i] = rd_random_u64(&r) | 1;
    return (rd_weight_source){ make, w };
}

void rd_random_weights_clear(rd_random_weights *w)
{
    free(w->data);
    free(w->scale);
    *w = (rd_random_weights){ 0 };
}
