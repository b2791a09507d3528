/* shape.h - models that are only a shape: the published ones by name, and random weights for any.
 *
 * Weights are made one tensor at a time while a model is opened, in bf16 or straight in panels, and never touch the disk. Values have both signs alike and keep activations near 1. Routing is by the token alone: two
 * channels of the residual stream hold the token's place on a circle of experts, no projection writes
 * to them, and a router takes the experts nearest to that place. So whoever chooses the tokens chooses
 * how many distinct experts a block meets.
 */
#ifndef RD_TOOLS_SHAPE_H
#define RD_TOOLS_SHAPE_H

#include "core/base/random.h"
#include "core/model/model.h"

/* The shape of a published model, of the built-in one's family (e8, e21, e46), or dense-59m; false: no such name. */
bool rd_shape_named(const char *name, rd_model_config *out);
/* A shape of the trainer's recipe, with a vocabulary of its own; false: no such name. */
bool rd_shape_recipe(const char *name, int vocab, rd_model_config *out);

typedef struct rd_random_weights {
    const rd_model_config *config; /* borrowed */
    rd_pack scheme;                /* RD_PACK_NONE: bf16 */
    uint64_t state[8];
    void *data;   /* of the tensor at hand, where it is not packed */
    float *scale; /* of its blocks, where it is E4M3 */
    size_t data_bytes;
    char *region; /* all that is packed */
    size_t region_bytes, used;
    bool
        e4m3; /* set it after init: matrices that are bf16 otherwise, but for tables, are E4M3 with scales of blocks */
    bool
        there; /* set it after init, for a backend that fills: all but tables and what is exact are made by it */
    rd_random_fill fill;
    uint64_t filled;
} rd_random_weights;

/* A source for rd_model_open_from, once; `w` outlives the opening, and where it packs, the model. */
rd_weight_source rd_random_weights_init(rd_random_weights *w, const rd_model_config *c,
                                        rd_pack scheme, uint64_t seed);
void rd_random_weights_clear(rd_random_weights *w);

typedef struct rd_shape_part {
    size_t weights, bytes; /* bytes: packed, or float32 */
} rd_shape_part;

typedef struct rd_shape_size {
    size_t weights; /* numbers in all */
    size_t exact;   /* of them, those a backend keeps in float32 */
    size_t largest; /* numbers of the largest tensor */
    size_t packed;  /* bytes of what is packed */
    /* What a pass reads: an embedding's rows; all of the head; all of `dense`, which every row goes through;
     * of the experts those that it meets. A tied embedding counts as the head. */
    rd_shape_part table, head, dense, experts;
} rd_shape_size;

/* RD_INVALID where the numbers do not fit in a size_t. */
rd_status rd_shape_measure(const rd_model_config *c, rd_pack scheme, rd_shape_size *out,
                           rd_error *err);

/* Tokens of `rows` rows that meet `experts` distinct experts in each layer of a random model (as near as the
 * rows and the router's groups allow); 0: as they fall. */
void rd_shape_tokens(const rd_model_config *c, int experts, int rows, rd_random *r, int32_t *out);

#endif
