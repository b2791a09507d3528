/* shape.h - models that are only a shape: the published ones by name, and random weights for any.
 *
 * Weights are made one tensor at a time while a model is opened, in the format asked for, and never touch
 * the disk. Values have both signs alike and keep activations near 1. Routing is by the token alone: two
 * channels of the residual stream hold the token's place on a circle of experts, no projection writes
 * to them, and a router takes the experts nearest to that place. So whoever chooses the tokens chooses
 * how many distinct experts a block meets.
 */
#ifndef RD_TOOLS_SHAPE_H
#define RD_TOOLS_SHAPE_H

#include "core/base/random.h"
#include "core/model/model.h"

/* The shape of a published model; false: no such name. */
bool rd_shape_named(const char *name, rd_model_config *out);

typedef struct rd_random_weights {
    const rd_model_config *config; /* borrowed */
    rd_dtype type;                 /* RD_BF16 or RD_I8; what must be exact is float32 */
    uint64_t state[8];
    void *data;
    float *scale;
    size_t data_bytes, scale_rows;
} rd_random_weights;

/* A source for rd_model_open_from; `w` outlives the opening. */
rd_weight_source rd_random_weights_init(rd_random_weights *w, const rd_model_config *c,
                                        rd_dtype type, uint64_t seed);
void rd_random_weights_clear(rd_random_weights *w);

typedef struct rd_shape_size {
    size_t weights; /* numbers in all */
    size_t exact;   /* of them, those a backend keeps in float32 */
    size_t largest; /* numbers of the largest tensor */
} rd_shape_size;

/* RD_INVALID where the numbers do not fit in a size_t. */
rd_status rd_shape_measure(const rd_model_config *c, rd_shape_size *out, rd_error *err);

/* Tokens of `rows` rows that meet `experts` distinct experts in each layer of a random model (as near as the
 * rows and the router's groups allow); 0: as they fall. */
void rd_shape_tokens(const rd_model_config *c, int experts, int rows, rd_random *r, int32_t *out);

#endif
