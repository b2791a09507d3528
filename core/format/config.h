/* config.h - config.json of a LLaDA2.x checkpoint as one plain value.
 *
 * Reads 2.0, 2.1 and 2.2 files (rope values at the top or under rope_parameters). Every number is
 * held against a range table before anything is computed from it. Source: spec of the checkpoints'
 * configuration_llada2_moe.py; block routing is chosen by expert_capacity > 0, never by n_group.
 */
#ifndef RD_FORMAT_CONFIG_H
#define RD_FORMAT_CONFIG_H

#include "core/base/buf.h"
#include "core/base/dtype.h"
#include "core/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What makes a text probable (core/decode/hole.h, rd_calibration); fitted on held-out files for one model.
 * "redraft_confidence" is a list of its fifteen numbers in this order. */
enum { RD_CONFIDENCE_NUMBERS = 15 };

typedef struct rd_confidence {
    float own[4];   /* base, sure, length, tokens: the model's own text */
    float draft[6]; /* base, sure, length, end, tokens, alike: a draft that it scored */
    float copy[3];  /* base, tokens, alike: a draft too long to score */
    float lead;     /* how many times likelier than the draft its own text must be to stand */
    float gate;     /* 0..1: what is less likely is not worth showing unasked */
} rd_confidence;

typedef struct rd_model_config {
    int vocab_size, hidden_size, num_hidden_layers;
    int num_attention_heads, num_key_value_heads, head_dim;
    int intermediate_size;     /* width of the dense layers */
    int moe_intermediate_size; /* width of one expert */
    int num_experts, num_experts_per_tok, num_shared_experts;
    int first_k_dense_replace; /* layers below this one are dense */
    int n_group, topk_group;
    int expert_capacity; /* 0: per-token routing (2.0, 2.1); else block routing (2.2) */
    int block_size;      /* 32 when absent; also the routing window of block routing */
    int rotary_dim;      /* turned dimensions of a head, even */
    int max_position_embeddings;
    double rope_theta, rms_norm_eps, routed_scaling_factor;
    bool tie_word_embeddings;
    int32_t pad_token_id;                    /* -1 when absent */
    int32_t mask_token_id;                   /* -1 when absent: then by string from the tokenizer */
    int32_t delete_token_id, split_token_id; /* -1 when absent */
    int32_t eos_token_id[8];                 /* of config or generation_config, stop set */
    int eos_count;
    bool infill_layout; /* "redraft_layout": "infill-1": trained on our layout of parts and tags */
    bool calibrated;    /* `confidence` is there; without it no drafts are offered to the model */
    rd_confidence confidence;
} rd_model_config;

/* Read DIR/config.json (and DIR/generation_config.json where it exists). */
rd_status rd_config_read(const char *dir, rd_model_config *out, rd_error *err);
/* The same from memory; `name` is used in messages. */
rd_status rd_config_parse(const char *json, size_t n, const char *name, rd_model_config *out,
                          rd_error *err);
/* Check ranges and products of a config made by hand; the readers call it too. */
rd_status rd_config_check(const rd_model_config *c, const char *name, rd_error *err);
/* Write DIR/config.json in the checkpoints' own keys, `weights` as torch_dtype. By rename. */
rd_status rd_config_write(const char *dir, const rd_model_config *c, rd_dtype weights,
                          rd_error *err);
/* The list of its numbers as it stands in the file; appended. */
void rd_config_put_confidence(const rd_confidence *confidence, rd_buf *out);
/* Change "redraft_confidence" in DIR/config.json and nothing else. By rename. */
rd_status rd_config_set_confidence(const char *dir, const rd_confidence *confidence, rd_error *err);

#endif
