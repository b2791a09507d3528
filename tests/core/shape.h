/* shape.h - the small model that tests train or run: each changes what it needs. */
#ifndef RD_TEST_SHAPE_H
#define RD_TEST_SHAPE_H

#include "core/format/config.h"

/* Two layers of 32, one dense and one of four experts, two of which a token takes; no control ids. */
static inline rd_model_config small_shape(int vocab, int block)
{
    return (rd_model_config){ .vocab_size = vocab,
                              .hidden_size = 32,
                              .num_hidden_layers = 2,
                              .num_attention_heads = 4,
                              .num_key_value_heads = 2,
                              .head_dim = 16,
                              .intermediate_size = 48,
                              .moe_intermediate_size = 16,
                              .num_experts = 4,
                              .num_experts_per_tok = 2,
                              .num_shared_experts = 1,
                              .first_k_dense_replace = 1,
                              .n_group = 1,
                              .topk_group = 1,
                              .block_size = block,
                              .rotary_dim = 8,
                              .max_position_embeddings = 4096,
                              .rope_theta = 10000.0,
                              .rms_norm_eps = 1e-6,
                              .routed_scaling_factor = 1.5,
                              .tie_word_embeddings = true,
                              .pad_token_id = -1,
                              .mask_token_id = -1,
                              .delete_token_id = -1,
                              .split_token_id = -1 };
}

#endif
