/* config.c - config.json to rd_model_config and back.
 *
 * One table names every number, its range and whether it may be missing; reading, checking and
 * writing walk it. What a checkpoint may ask for and we do not compute (biases, scaled rope,
 * foreign layouts) is refused by name, never ignored.
 */
#include "core/format/config.h"

#include "core/base/memory.h"
#include "core/format/file.h"
#include "core/format/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define CONFIG_BYTES  ((size_t)1 << 20)
#define CONFIG_VALUES 10000
#define REQUIRED      INT64_MIN

typedef struct whole_field {
    const char *key;
    size_t offset;
    int64_t low, high, absent; /* REQUIRED, or the value when the key is absent or null */
} whole_field;

#define WHOLE(name, low, high, absent)                            \
    {                                                             \
#name, offsetof(rd_model_config, name), low, high, absent \
    }

static const whole_field wholes[] = {
    WHOLE(vocab_size, 2, 1 << 24, REQUIRED),
    WHOLE(hidden_size, 1, 1 << 16, REQUIRED),
    WHOLE(num_hidden_layers, 1, 1024, REQUIRED),
    WHOLE(num_attention_heads, 1, 1024, REQUIRED),
    WHOLE(num_key_value_heads, 1, 1024, REQUIRED),
    WHOLE(head_dim, 2, 1024, REQUIRED),
    WHOLE(intermediate_size, 1, 1 << 20, REQUIRED),
    WHOLE(moe_intermediate_size, 1, 1 << 20, REQUIRED),
    WHOLE(num_experts, 1, 1 << 14, REQUIRED),
    WHOLE(num_experts_per_tok, 1, 1024, REQUIRED),
    WHOLE(num_shared_experts, 0, 64, REQUIRED),
    WHOLE(first_k_dense_replace, 0, 1024, 0),
    WHOLE(n_group, 1, 1 << 14, 1),
    WHOLE(topk_group, 1, 1 << 14, 1),
    WHOLE(expert_capacity, 0, 1 << 14, 0),
    WHOLE(block_size, 1, 1024, 32), /* RD_BLOCK_MOST of core/decode/block.h */
    WHOLE(max_position_embeddings, 1, 1 << 24, REQUIRED),
    WHOLE(pad_token_id, -1, 1 << 24, -1),
    WHOLE(mask_token_id, -1, 1 << 24, -1),
    WHOLE(delete_token_id, -1, 1 << 24, -1),
    WHOLE(split_token_id, -1, 1 << 24, -1),
};

typedef struct real_field {
    const char *key;
    size_t offset;
    double low, high, absent; /* NaN: required */
} real_field;

static const real_field reals[] = {
    { "rope_theta", offsetof(rd_model_config, rope_theta), 1, 1e12, (double)NAN },
    { "rms_norm_eps", offsetof(rd_model_config, rms_norm_eps), 1e-12, 0.1, 1e-6 },
    { "routed_scaling_factor", offsetof(rd_model_config, routed_scaling_factor), 1e-6, 1e4, 1 },
};

/* Switches that change the computation; any other value than the one we compute is refused. */
static const struct {
    const char *key;
    bool value;
} switches[] = {
    { "use_bias", false },     { "use_qkv_bias", false },
    { "norm_head", false },    { "use_qk_norm", true },
    { "use_rmsnorm", true },   { "use_sliding_window", false },
    { "norm_softmax", false }, { "using_split_qkv_in_self_attention", false },
};

static const struct {
    const char *key, *value;
} words[] = { { "hidden_act", "silu" }, { "score_function", "sigmoid" } };

#define COUNT(array) (sizeof(array) / sizeof *(array))

static int *whole_of(const rd_model_config *c, const whole_field *f)
{
    return (int *)((char *)c + f->offset);
}

static double *real_of(const rd_model_config *c, const real_field *f)
{
    return (double *)((char *)c + f->offset);
}

static bool absent(const json_t *v)
{
    return !v || json_is_null(v);
}

static rd_status read_whole(const json_t *v, const whole_field *f, const char *name, int *out,
                            rd_error *err)
{
    if (!json_is_integer(v))
        return rd_fail(err, RD_INVALID, "%s: %s is not a whole number", name, f->key);
    json_int_t n = json_integer_value(v);
    if (n < f->low || n > f->high)
        return rd_fail(err, RD_INVALID,
                       "%s: %s is %" JSON_INTEGER_FORMAT ", allowed are %lld to %lld", name, f->key,
                       n, (long long)f->low, (long long)f->high);
    *out = (int)n;
    return RD_OK;
}

static rd_status read_wholes(const json_t *json, const char *name, rd_model_config *c,
                             rd_error *err)
{
    for (size_t i = 0; i < COUNT(wholes); i++) {
        const whole_field *f = &wholes[i];
        const json_t *v = json_object_get(json, f->key);

        if (absent(v) && f->absent == REQUIRED)
            return rd_fail(err, RD_INVALID, "%s: %s is missing", name, f->key);
        if (absent(v)) {
            *whole_of(c, f) = (int)f->absent;
            continue;
        }
        if (read_whole(v, f, name, whole_of(c, f), err)) return RD_INVALID;
    }
    return RD_OK;
}

static rd_status real_range(double x, const real_field *f, const char *name, rd_error *err)
{
    if (!(x >= f->low && x <= f->high)) /* NaN fails both */
        return rd_fail(err, RD_INVALID, "%s: %s is %g, allowed are %g to %g", name, f->key, x,
                       f->low, f->high);
    return RD_OK;
}

/* `rope` holds the rope values of newer files and may be NULL; what it says comes first. */
static rd_status read_reals(const json_t *json, const json_t *rope, const char *name,
                            rd_model_config *c, rd_error *err)
{
    for (size_t i = 0; i < COUNT(reals); i++) {
        const real_field *f = &reals[i];
        const json_t *v = i == 0 && rope ? json_object_get(rope, f->key) : NULL;

        if (absent(v)) v = json_object_get(json, f->key);
        if (absent(v)) {
            if (isnan(f->absent))
                return rd_fail(err, RD_INVALID, "%s: %s is missing", name, f->key);
            *real_of(c, f) = f->absent;
            continue;
        }
        if (!json_is_number(v))
            return rd_fail(err, RD_INVALID, "%s: %s is not a number", name, f->key);
        *real_of(c, f) = json_number_value(v);
        if (real_range(*real_of(c, f), f, name, err)) return RD_INVALID;
    }
    return RD_OK;
}

/* The reference turns the first int(head_dim * partial_rotary_factor) dimensions; rotary_dim says
 * the same in other words and is read where the factor is missing. */
static rd_status read_rotary(const json_t *json, const json_t *rope, const char *name,
                             rd_model_config *c, rd_error *err)
{
    static const whole_field dims = { "rotary_dim", 0, 2, 1024, REQUIRED };
    const json_t *v = rope ? json_object_get(rope, "partial_rotary_factor") : NULL;

    if (absent(v)) v = json_object_get(json, "partial_rotary_factor");
    if (absent(v)) {
        v = json_object_get(json, dims.key);
        if (absent(v))
            return rd_fail(err, RD_INVALID, "%s: partial_rotary_factor is missing", name);
        return read_whole(v, &dims, name, &c->rotary_dim, err);
    }
    double factor = json_number_value(v);
    if (!json_is_number(v) || !(factor > 0 && factor <= 1))
        return rd_fail(err, RD_INVALID, "%s: partial_rotary_factor is not above 0 and at most 1",
                       name);
    c->rotary_dim = (int)(c->head_dim * factor + 1e-6); /* what we wrote reads back the same */
    return RD_OK;
}

/* What scales the rope is refused; {"rope_type": "default"} is the plain one. */
static rd_status plain_rope(const json_t *v, const char *key, const char *name, rd_error *err)
{
    if (absent(v)) return RD_OK;
    if (!json_is_object(v)) return rd_fail(err, RD_INVALID, "%s: %s is not an object", name, key);
    const char *type = json_string_value(json_object_get(v, "rope_type"));
    if (!type) type = json_string_value(json_object_get(v, "type"));
    if (type && strcmp(type, "default") == 0) return RD_OK;
    if (!type && strcmp(key, "rope_parameters") == 0) return RD_OK;
    return rd_fail(err, RD_INVALID, "%s: %s of type \"%.40s\" is not supported", name, key,
                   type ? type : "?");
}

static rd_status read_flag(const json_t *json, const char *key, bool when_absent, const char *name,
                           bool *out, rd_error *err)
{
    const json_t *v = json_object_get(json, key);

    *out = when_absent;
    if (absent(v)) return RD_OK;
    if (!json_is_boolean(v))
        return rd_fail(err, RD_INVALID, "%s: %s is neither true nor false", name, key);
    *out = json_is_true(v);
    return RD_OK;
}

static rd_status read_kind(const json_t *json, const char *name, rd_error *err)
{
    const json_t *type = json_object_get(json, "model_type");
    bool value;

    if (!json_is_string(type)) return rd_fail(err, RD_INVALID, "%s: model_type is missing", name);
    if (strcmp(json_string_value(type), "llada2_moe") != 0)
        return rd_fail(err, RD_INVALID, "%s: model_type \"%.60s\" is not supported (llada2_moe is)",
                       name, json_string_value(type));
    for (size_t i = 0; i < COUNT(switches); i++) {
        if (read_flag(json, switches[i].key, switches[i].value, name, &value, err))
            return RD_INVALID;
        if (value != switches[i].value)
            return rd_fail(err, RD_INVALID, "%s: %s %s is not supported", name, switches[i].key,
                           value ? "true" : "false");
    }
    for (size_t i = 0; i < COUNT(words); i++) {
        const json_t *v = json_object_get(json, words[i].key);
        if (absent(v)) continue;
        if (!json_is_string(v) || strcmp(json_string_value(v), words[i].value) != 0)
            return rd_fail(err, RD_INVALID, "%s: %s other than \"%s\" is not supported", name,
                           words[i].key, words[i].value);
    }
    if (!absent(json_object_get(json, "quantization_config")))
        return rd_fail(err, RD_INVALID, "%s: quantization_config is not supported", name);
    return RD_OK;
}

static rd_status read_layout(const json_t *json, const char *name, rd_model_config *c,
                             rd_error *err)
{
    const json_t *v = json_object_get(json, "redraft_layout");

    if (absent(v)) return RD_OK;
    if (!json_is_string(v) || strcmp(json_string_value(v), "infill-1") != 0)
        return rd_fail(err, RD_INVALID, "%s: redraft_layout other than \"infill-1\" is not known",
                       name);
    c->infill_layout = true;
    return RD_OK;
}

static void each_number(rd_confidence *c, float *at[RD_CONFIDENCE_NUMBERS])
{
    int n = 0;

    for (int i = 0; i < 4; i++) at[n++] = &c->own[i];
    for (int i = 0; i < 6; i++) at[n++] = &c->draft[i];
    for (int i = 0; i < 3; i++) at[n++] = &c->copy[i];
    at[n++] = &c->lead;
    at[n] = &c->gate;
}

static rd_status read_confidence(const json_t *json, const char *name, rd_model_config *c,
                                 rd_error *err)
{
    const json_t *v = json_object_get(json, "redraft_confidence");
    float *at[RD_CONFIDENCE_NUMBERS];

    if (absent(v)) return RD_OK;
    if (!json_is_array(v) || json_array_size(v) != RD_CONFIDENCE_NUMBERS)
        return rd_fail(err, RD_INVALID, "%s: redraft_confidence is not a list of %d numbers", name,
                       RD_CONFIDENCE_NUMBERS);
    each_number(&c->confidence, at);
    for (size_t i = 0; i < RD_CONFIDENCE_NUMBERS; i++) {
        const json_t *x = json_array_get(v, i);

        if (!json_is_number(x) || !(fabs(json_number_value(x)) <= 1000.0))
            return rd_fail(err, RD_INVALID,
                           "%s: redraft_confidence: number %zu is not one from -1000 to 1000", name,
                           i + 1);
        *at[i] = (float)json_number_value(x);
    }
    if (!(c->confidence.gate >= 0.0f && c->confidence.gate <= 1.0f))
        return rd_fail(err, RD_INVALID, "%s: redraft_confidence: the gate %g is not from 0 to 1",
                       name, (double)c->confidence.gate);
    c->calibrated = true;
    return RD_OK;
}

static rd_status add_eos(const json_t *v, const char *name, rd_model_config *c, rd_error *err)
{
    const whole_field f = { "eos_token_id", 0, 0, c->vocab_size - 1, REQUIRED };
    int id = -1;

    if (read_whole(v, &f, name, &id, err)) return RD_INVALID;
    for (int i = 0; i < c->eos_count; i++)
        if (c->eos_token_id[i] == id) return RD_OK;
    if (c->eos_count == (int)COUNT(c->eos_token_id))
        return rd_fail(err, RD_INVALID, "%s: more than %zu eos_token_id", name,
                       COUNT(c->eos_token_id));
    c->eos_token_id[c->eos_count++] = id;
    return RD_OK;
}

/* One id or a list of them, added to the stop set. */
static rd_status read_eos(const json_t *json, const char *name, rd_model_config *c, rd_error *err)
{
    const json_t *v = json_object_get(json, "eos_token_id");

    if (absent(v)) return RD_OK;
    if (!json_is_array(v)) return add_eos(v, name, c, err);
    for (size_t i = 0; i < json_array_size(v); i++)
        if (add_eos(json_array_get(v, i), name, c, err)) return RD_INVALID;
    return RD_OK;
}

static rd_status read_config(const json_t *json, const char *name, rd_model_config *c,
                             rd_error *err)
{
    const json_t *rope = json_object_get(json, "rope_parameters");
    rd_status s;

    if (absent(rope)) rope = NULL;
    if ((s = read_kind(json, name, err))) return s;
    if ((s = plain_rope(rope, "rope_parameters", name, err))) return s;
    if ((s = plain_rope(json_object_get(json, "rope_scaling"), "rope_scaling", name, err)))
        return s;
    if ((s = read_wholes(json, name, c, err))) return s;
    if ((s = read_reals(json, rope, name, c, err))) return s;
    if ((s = read_rotary(json, rope, name, c, err))) return s;
    if ((s = read_flag(json, "tie_word_embeddings", false, name, &c->tie_word_embeddings, err)))
        return s;
    if ((s = read_layout(json, name, c, err))) return s;
    if ((s = read_confidence(json, name, c, err))) return s;
    if ((s = read_eos(json, name, c, err))) return s;
    return rd_config_check(c, name, err);
}

rd_status rd_config_parse(const char *json, size_t n, const char *name, rd_model_config *out,
                          rd_error *err)
{
    rd_model_config c = { 0 };
    json_t *top;

    if (n > CONFIG_BYTES)
        return rd_fail(err, RD_INVALID, "%s: larger than the limit of %zu bytes", name,
                       CONFIG_BYTES);
    rd_status s = rd_json_parse(json, n, CONFIG_VALUES, name, &top, err);
    if (s) return s;
    s = read_config(top, name, &c, err);
    json_decref(top);
    if (!s) *out = c;
    return s;
}

/* Only the stop set is taken from the settings of generation. */
static rd_status read_generation(const char *dir, rd_model_config *c, rd_error *err)
{
    char *path = rd_path_join(dir, "generation_config.json");
    rd_error quiet = { 0 };
    json_t *top;
    rd_status s = rd_json_read(path, CONFIG_BYTES, CONFIG_VALUES, &top, &quiet);

    if (s == RD_NOT_FOUND) {
        s = RD_OK;
    } else if (s) {
        rd_fail(err, s, "%s", quiet.text);
    } else {
        s = read_eos(top, path, c, err);
        json_decref(top);
    }
    free(path);
    return s;
}

rd_status rd_config_read(const char *dir, rd_model_config *out, rd_error *err)
{
    char *path = rd_path_join(dir, "config.json");
    rd_model_config c = { 0 };
    json_t *top = NULL;
    rd_status s = rd_json_read(path, CONFIG_BYTES, CONFIG_VALUES, &top, err);

    if (!s) s = read_config(top, path, &c, err);
    if (!s) s = read_generation(dir, &c, err);
    if (!s) *out = c;
    json_decref(top);
    free(path);
    return s;
}

static rd_status check_heads(const rd_model_config *c, const char *name, rd_error *err)
{
    if (c->num_attention_heads % c->num_key_value_heads)
        return rd_fail(err, RD_INVALID,
                       "%s: num_attention_heads %d is not a multiple of num_key_value_heads %d",
                       name, c->num_attention_heads, c->num_key_value_heads);
    if (c->rotary_dim < 2 || c->rotary_dim % 2 || c->rotary_dim > c->head_dim)
        return rd_fail(err, RD_INVALID,
                       "%s: rotary_dim %d is not even and between 2 and head_dim %d", name,
                       c->rotary_dim, c->head_dim);
    return RD_OK;
}

static rd_status check_experts(const rd_model_config *c, const char *name, rd_error *err)
{
    if (c->first_k_dense_replace > c->num_hidden_layers)
        return rd_fail(err, RD_INVALID, "%s: first_k_dense_replace %d exceeds num_hidden_layers %d",
                       name, c->first_k_dense_replace, c->num_hidden_layers);
    if (c->num_experts_per_tok > c->num_experts)
        return rd_fail(err, RD_INVALID, "%s: num_experts_per_tok %d exceeds num_experts %d", name,
                       c->num_experts_per_tok, c->num_experts);
    if (c->expert_capacity > 0) { /* the groups stand in the file but are not used */
        if (c->expert_capacity >= c->num_experts_per_tok && c->expert_capacity <= c->num_experts)
            return RD_OK;
        return rd_fail(err, RD_INVALID,
                       "%s: expert_capacity %d is not between num_experts_per_tok %d and "
                       "num_experts %d",
                       name, c->expert_capacity, c->num_experts_per_tok, c->num_experts);
    }
    if (c->num_experts % c->n_group || c->topk_group > c->n_group)
        return rd_fail(err, RD_INVALID, "%s: n_group %d, topk_group %d do not fit num_experts %d",
                       name, c->n_group, c->topk_group, c->num_experts);
    int group = c->num_experts / c->n_group;
    if ((c->n_group > 1 && group < 2) || c->num_experts_per_tok > group * c->topk_group)
        return rd_fail(err, RD_INVALID,
                       "%s: %d groups of %d experts are too small for num_experts_per_tok %d", name,
                       c->topk_group, group, c->num_experts_per_tok);
    return RD_OK;
}

static rd_status check_ids(const rd_model_config *c, const char *name, rd_error *err)
{
    const struct {
        const char *key;
        int32_t id;
    } ids[] = { { "pad_token_id", c->pad_token_id },
                { "mask_token_id", c->mask_token_id },
                { "delete_token_id", c->delete_token_id },
                { "split_token_id", c->split_token_id } };

    for (size_t i = 0; i < COUNT(ids); i++)
        if (ids[i].id < -1 || ids[i].id >= c->vocab_size)
            return rd_fail(err, RD_INVALID, "%s: %s %d is outside the vocabulary of %d", name,
                           ids[i].key, ids[i].id, c->vocab_size);
    for (size_t i = 1; i < COUNT(ids); i++) /* pad may be the end of text; the others stand alone */
        for (size_t k = i + 1; k < COUNT(ids); k++)
            if (ids[i].id >= 0 && ids[i].id == ids[k].id)
                return rd_fail(err, RD_INVALID, "%s: %s and %s are both %d", name, ids[i].key,
                               ids[k].key, ids[i].id);
    if (c->eos_count < 0 || c->eos_count > (int)COUNT(c->eos_token_id))
        return rd_fail(err, RD_INVALID, "%s: %d eos_token_id", name, c->eos_count);
    for (int i = 0; i < c->eos_count; i++)
        if (c->eos_token_id[i] < 0 || c->eos_token_id[i] >= c->vocab_size)
            return rd_fail(err, RD_INVALID, "%s: eos_token_id %d is outside the vocabulary of %d",
                           name, c->eos_token_id[i], c->vocab_size);
    return RD_OK;
}

static bool product_fits(int a, int b, int c, int d, size_t limit)
{
    size_t n;

    return rd_mul((size_t)a, (size_t)b, &n) && rd_mul(n, (size_t)c, &n) &&
           rd_mul(n, (size_t)d, &n) && n <= limit;
}

/* Every product that somebody sizes memory by stays below 2^42 elements, so that sums of a few of
 * them, in bytes, cannot overflow; widths must fit an int. */
static rd_status check_products(const rd_model_config *c, const char *name, rd_error *err)
{
    const size_t limit = (size_t)1 << 42, width = (size_t)1 << 24;
    int heads = c->num_attention_heads + 2 * c->num_key_value_heads;

    if (!product_fits(heads, c->head_dim, 1, 1, width))
        return rd_fail(err, RD_INVALID, "%s: %d heads of %d are too wide", name, heads,
                       c->head_dim);
    if (!product_fits(c->num_shared_experts, c->moe_intermediate_size, 1, 1, width))
        return rd_fail(err, RD_INVALID, "%s: %d shared experts of %d are too wide", name,
                       c->num_shared_experts, c->moe_intermediate_size);
    if (!product_fits(c->num_experts, c->num_hidden_layers, 1, 1, (size_t)1 << 18))
        return rd_fail(err, RD_INVALID, "%s: %d experts in %d layers are too many", name,
                       c->num_experts, c->num_hidden_layers);
    if (!product_fits(c->vocab_size, c->hidden_size, 1, 1, limit) ||
        !product_fits(heads, c->head_dim, c->hidden_size, c->num_hidden_layers, limit) ||
        !product_fits(c->intermediate_size, c->hidden_size, c->num_hidden_layers, 1, limit) ||
        !product_fits(c->num_experts + c->num_shared_experts, c->moe_intermediate_size,
                      c->hidden_size, c->num_hidden_layers, limit))
        return rd_fail(err, RD_INVALID, "%s: the shapes multiply to a model too large to hold",
                       name);
    return RD_OK;
}

rd_status rd_config_check(const rd_model_config *c, const char *name, rd_error *err)
{
    rd_status s;

    for (size_t i = 0; i < COUNT(wholes); i++) {
        const whole_field *f = &wholes[i];
        int n = *whole_of(c, f);
        if (n < f->low || n > f->high)
            return rd_fail(err, RD_INVALID, "%s: %s is %d, allowed are %lld to %lld", name, f->key,
                           n, (long long)f->low, (long long)f->high);
    }
    for (size_t i = 0; i < COUNT(reals); i++)
        if ((s = real_range(*real_of(c, &reals[i]), &reals[i], name, err))) return s;
    if ((s = check_heads(c, name, err))) return s;
    if ((s = check_experts(c, name, err))) return s;
    if ((s = check_ids(c, name, err))) return s;
    return check_products(c, name, err);
}

static const char *torch_name(rd_dtype t)
{
    switch (t) {
    case RD_F16: return "float16";
    case RD_BF16: return "bfloat16";
    case RD_I8: return "int8";
    default: return "float32";
    }
}

static json_t *confidence_json(const rd_confidence *c)
{
    rd_confidence copy = *c;
    float *at[RD_CONFIDENCE_NUMBERS];
    json_t *list = json_array();

    each_number(&copy, at);
    for (int i = 0; i < RD_CONFIDENCE_NUMBERS; i++)
        json_array_append_new(list, json_real(round(1e4 * (double)*at[i]) / 1e4));
    return list;
}

static json_t *config_json(const rd_model_config *c, rd_dtype weights)
{
    json_t *top = json_pack("{s:[s], s:s, s:s, s:b}", "architectures", "LLaDA2MoeModelLM",
                            "model_type", "llada2_moe", "torch_dtype", torch_name(weights),
                            "tie_word_embeddings", (int)c->tie_word_embeddings);

    for (size_t i = 0; i < COUNT(wholes); i++) {
        int n = *whole_of(c, &wholes[i]);
        if (n == -1 || (strcmp(wholes[i].key, "expert_capacity") == 0 && n == 0)) continue;
        json_object_set_new(top, wholes[i].key, json_integer(n));
    }
    for (size_t i = 0; i < COUNT(reals); i++)
        json_object_set_new(top, reals[i].key, json_real(*real_of(c, &reals[i])));
    json_object_set_new(top, "rotary_dim", json_integer(c->rotary_dim));
    json_object_set_new(top, "partial_rotary_factor",
                        json_real((double)c->rotary_dim / c->head_dim));
    if (c->eos_count) {
        json_t *eos = json_array();
        for (int i = 0; i < c->eos_count; i++)
            json_array_append_new(eos, json_integer(c->eos_token_id[i]));
        json_object_set_new(top, "eos_token_id", eos);
    }
    if (c->infill_layout) json_object_set_new(top, "redraft_layout", json_string("infill-1"));
    if (c->calibrated)
        json_object_set_new(top, "redraft_confidence", confidence_json(&c->confidence));
    return top;
}

/* Fifteen digits, which any number that a person wrote keeps: 0.6015 and not 0.60150000000000003. */
static rd_status write_json(const char *path, const json_t *top, rd_error *err)
{
    char *text = json_dumps(top, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
    rd_buf out = { 0 };

    rd_buf_text(&out, text);
    rd_buf_text(&out, "\n");
    rd_status s = rd_file_write(path, out.data, out.len, err);

    rd_buf_clear(&out);
    free(text);
    return s;
}

rd_status rd_config_write(const char *dir, const rd_model_config *c, rd_dtype weights,
                          rd_error *err)
{
    char *path = rd_path_join(dir, "config.json");
    rd_status s = rd_config_check(c, path, err);

    if (!s) {
        json_t *top = config_json(c, weights);

        s = write_json(path, top, err);
        json_decref(top);
    }
    free(path);
    return s;
}

void rd_config_put_confidence(const rd_confidence *confidence, rd_buf *out)
{
    json_t *list = confidence_json(confidence);
    char *text = json_dumps(list, JSON_COMPACT | JSON_REAL_PRECISION(6));

    rd_buf_text(out, text);
    free(text);
    json_decref(list);
}

rd_status rd_config_set_confidence(const char *dir, const rd_confidence *confidence, rd_error *err)
{
    char *path = rd_path_join(dir, "config.json");
    rd_model_config checked;
    json_t *top = NULL;
    rd_status s = rd_config_read(dir, &checked, err);

    if (!s) s = rd_json_read(path, CONFIG_BYTES, CONFIG_VALUES, &top, err);
    if (!s) {
        json_object_set_new(top, "redraft_confidence", confidence_json(confidence));
        s = write_json(path, top, err);
    }
    json_decref(top);
    free(path);
    return s;
}
