/* model.h - a checkpoint on a device: weights bound and checked, buffers for a pass, storage of keys
 * and values; and the forward pass itself.
 *
 * Opening reads config.json, maps the weight files, checks every tensor's name and shape, and hands
 * each weight to the backend once. Packed weights (core/format/packed.h) are used where they lie: the files stay mapped
 * until the model is closed, and nothing but their scales is read before a pass needs it. A pass runs up to `max_rows` tokens behind finished blocks. One
 * thread at a time.
 *
 * Source: LLaDA2.x modeling_llada2_moe.py (2.0, 2.1: group-limited routing; 2.2: block routing).
 */
#ifndef RD_MODEL_H
#define RD_MODEL_H

#include "core/backend.h"
#include "core/base/cancel.h"
#include "core/format/config.h"
#include "core/format/safetensors.h"
#include "core/model/kv_store.h"

typedef struct rd_model rd_model;

typedef struct rd_model_options {
    const rd_backend *backend;
    rd_device_options device;
    int block_size;  /* of the KV storage and of default sight; 0: the config's */
    int max_rows;    /* of one pass; 0: 512; more where the device works better with more */
    int kv_blocks;   /* finished blocks that fit the storage; 0: 128 */
    size_t kv_bytes; /* as many more as fit so much memory */
    bool exact_kv;   /* keys and values in float32, whatever the device's precision */
} rd_model_options;

/* Where weights come from when it is not a folder. `find` gives the weight `name` (the checkpoints' own
 * names) as [rows, cols], a vector as one row; what it gives is borrowed until the next
 * call; what is packed, for the model's life. */
typedef struct rd_weight_source {
    rd_status (*find)(void *user, const char *name, int rows, int cols, rd_matrix *out,
                      rd_error *err);
    void *user;
} rd_weight_source;

/* Open the model folder DIR (HuggingFace layout; weights F32, F16, BF16, or packed by us). */
rd_status rd_model_open(const char *dir, const rd_model_options *o, rd_model **out, rd_error *err);
/* The same of a config and a source of weights; such a model's identity is none. */
rd_status rd_model_open_from(const rd_model_config *c, const rd_weight_source *from,
                             const rd_model_options *o, rd_model **out, rd_error *err);
/* Ask `from` for every weight of the shape, in the order of opening; nothing is kept. */
rd_status rd_model_visit(const rd_model_config *c, const rd_weight_source *from, rd_error *err);
/* The shape check alone: config against the tensors' names and shapes, nothing is read. */
rd_status rd_model_check(const rd_model_config *c, const rd_safetensors *s, rd_error *err);
void rd_model_close(rd_model *m);
/* RD_DEVICE when weights that are used in their file were changed or replaced there (size, time): the model must be
 * opened again. Looked at before a run; costs one look at each file. */
rd_status rd_model_unchanged(const rd_model *m, rd_error *err);

const rd_model_config *rd_model_config_of(const rd_model *m);
int rd_model_block_size(const rd_model *m);
int rd_model_max_rows(const rd_model *m);
int rd_model_kv_blocks(const rd_model *m);
void rd_model_describe(rd_model *m, rd_device_info *out);
/* Names everything that decides what a pass computes: the folder's weights, config and tokenizer, the backend, its
 * instructions and layout of blocks, and our own arithmetic. A weight file counts by size, times and content: all of a small
 * one, a sample of a large one. None for a model without a folder. */
rd_key rd_model_identity(const rd_model *m);

/* Host buffers that conformance asks for; any may be NULL. [layers] pointers where indexed by layer;
 * sizes as in the comments; a layer that is dense leaves its router taps untouched. */
typedef struct rd_taps {
    float *embeddings;     /* [rows, hidden] */
    float **attn_out;      /* [layers] of [rows, hidden]: after `dense`, before the residual */
    float **mlp_out;       /* [layers] of [rows, hidden] */
    float **layer_out;     /* [layers] of [rows, hidden] */
    float *final_norm;     /* [rows, hidden] */
    float **router_logits; /* [layers] of [rows, experts] */
    int32_t **router_idx;  /* [layers] of [rows, top_k] */
    float **router_weight; /* [layers] of [rows, top_k] */
    float *logits;         /* [rows, vocab] */
} rd_taps;

/* One pass. Row i stands at index past_blocks * block_size + i of its sequence. */
typedef struct rd_pass {
    const int32_t *tokens;    /* [rows] */
    const int32_t *positions; /* [rows] for the rotary turn, or NULL: the row's index */
    int rows;
    const int32_t *past; /* numbers of the finished blocks before, in order */
    int past_blocks;
    const int32_t *keep; /* [ceil(rows / block_size)] block numbers to fill, -1: not; or NULL */
    int sight;           /* rows see each other in groups of so many (backend.h); 0: block_size;
                            at or above rows: all see all */
    int visible;         /* rows from here on are seen by nobody; 0: all are seen */
    rd_branches
        branches; /* alternatives behind the pass's first rows (backend.h); give positions */
    const rd_pick_query *query; /* NULL: no picks are made, the head is not run */
    rd_pick *picks;             /* [query->n_rows] */
    const rd_cancel *cancel;    /* looked at between layers */
    const rd_taps *taps;
} rd_pass;

/* RD_INVALID for rows, tokens or block numbers out of range; RD_CANCELLED. */
rd_status rd_forward(rd_model *m, const rd_pass *pass, rd_error *err);
/* The head alone, over the `rows` rows of the last pass, under another query. */
rd_status rd_forward_picks(rd_model *m, int rows, const rd_pick_query *query, rd_pick *out,
                           rd_error *err);

/* Blocks of keys and values as bytes. read and write move the layout [layer][K, V][kv_head][block_size][head_dim]. */
size_t rd_model_kv_bytes(const rd_model *m);
rd_status rd_model_kv_read(rd_model *m, int block, void *to, rd_error *err);
rd_status rd_model_kv_write(rd_model *m, int block, const void *from, rd_error *err);
/* Where the host finds a block as the device keeps it; NULL: nowhere. Not while a pass runs that keeps it. */
void *rd_model_kv_host(rd_model *m, int block);
/* What a store is told of the blocks: those of rd_model_kv_host, else of rd_model_kv_read. */
void rd_model_kv_geometry(const rd_model *m, rd_kv_geometry *out);

#endif
