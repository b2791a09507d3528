/* params.h - the weights of a model under training as one flat float32 array with a table of names.
 *
 * Weights, gradients and optimiser moments share the layout: an offset means the same in each. Gate
 * and up of an MLP stand side by side, so that one product makes both. Names are the checkpoints'.
 * Source: LLaDA2.x modeling_llada2_moe.py. Read-only once made: any thread.
 */
#ifndef RD_TRAIN_PARAMS_H
#define RD_TRAIN_PARAMS_H

#include "core/base/random.h"
#include "core/format/config.h"

typedef enum rd_param_kind {
    RD_PARAM_TABLE,  /* embedding, head: [vocab, hidden] */
    RD_PARAM_MATRIX, /* projections */
    RD_PARAM_ROUTER, /* [experts, hidden] */
    RD_PARAM_NORM,   /* vectors; not decayed */
    RD_PARAM_BIAS    /* expert bias: moved by load, not by gradient */
} rd_param_kind;

typedef struct rd_param {
    char name[96];
    rd_param_kind kind;
    int rows, cols; /* a vector is one row */
    size_t offset;
} rd_param;

typedef struct rd_layer_params { /* offsets of one layer */
    size_t norm1, qkv, q_norm, k_norm, dense, norm2;
    size_t gate_up, down; /* dense layers */
    size_t router, bias, shared_gate_up, shared_down, experts;
    size_t expert_stride; /* experts + e * stride: gate_up, then down */
    bool moe;
} rd_layer_params;

typedef struct rd_params {
    rd_model_config config;
    rd_param *param;
    int count;
    size_t size; /* floats */
    rd_layer_params *layer;
    size_t table, norm, head; /* head is the table where the embedding is tied */
} rd_params;

/* RD_INVALID where the trainer cannot train such a shape (block routing; sizes not divisible by
 * 16), with the reason. */
rd_status rd_params_init(rd_params *p, const rd_model_config *config, rd_error *err);
void rd_params_clear(rd_params *p);
const rd_param *rd_params_find(const rd_params *p, const char *name);

/* Fill `w` [size] with a fresh model: normal(0, 0.02), outputs of the residual branches smaller by
 * the root of twice the layers, norms one, biases zero. */
void rd_params_seed(const rd_params *p, float *w, uint64_t seed);
/* The shape in words: two models with the same can stand in for each other. */
enum { RD_SHAPE_TEXT = 224 };
void rd_params_shape(const rd_params *p, char out[RD_SHAPE_TEXT]);
/* Write a model folder's model.safetensors and config.json in `type` (F32 or BF16; norms, router
 * and bias are always F32). */
rd_status rd_params_write(const rd_params *p, const float *w, rd_dtype type, const char *dir,
                          rd_error *err);
/* Tensor `i` of `w` into `out`, both [size]: what it is after rd_params_write in BF16 and
 * rd_quantize_model in int8. RD_INVALID where it is not finite. */
rd_status rd_params_round_int8(const rd_params *p, int i, const float *w, float *out,
                               rd_error *err);
/* The name of the first tensor of `x` [size] that is not finite, or NULL. */
const char *rd_params_not_finite(const rd_params *p, const float *x);
/* Read the weights of a model folder of the same shape into `w`: float types, or as we pack them. */
rd_status rd_params_read(const rd_params *p, float *w, const char *dir, rd_error *err);

#endif
