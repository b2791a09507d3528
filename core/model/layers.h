/* layers.h - the inside of rd_model, shared by model.c (binding) and forward.c (the pass). */
#ifndef RD_MODEL_LAYERS_H
#define RD_MODEL_LAYERS_H

#include "core/model/model.h"

typedef struct rd_layer {
    rd_weight *norm1, *qkv, *q_norm, *k_norm, *dense, *norm2;
    rd_mlp mlp; /* of a dense layer */
    rd_weight *router, *bias;
    rd_mlp shared;
    rd_mlp *experts; /* [num_experts]; NULL: a dense layer */
} rd_layer;

struct rd_model {
    rd_model_config config;
    const rd_backend *backend;
    rd_device *device;
    rd_layer *layer;
    rd_weight *table, *norm, *head; /* head is NULL where the embedding is tied */
    rd_view x, normed, y;           /* [max_rows, hidden] */
    rd_view qkv, mixed;             /* [max_rows, (heads + 2 kv_heads) * dim], [.., heads * dim] */
    rd_kv *kv;
    int block_size, max_rows, kv_blocks;
    int32_t *chosen; /* [max_rows] positions of a pass */
    rd_precision precision;
    rd_key identity;
    rd_safetensors *file; /* while weights are used where they lie in it; NULL: none are */
    bool in_place;
};

#endif
