/* pack_model.h - a model folder into one whose weights are packed (packed.h): redraft quantize.
 *
 * Reads any float checkpoint, in shards or whole, or our int8-row. Every matrix is packed but the router, as
 * rd_pack_of says; router, biases and norms become float32. In the file the weights stand in the order of
 * use, layer by layer, those of one expert together, each at a multiple of 64 bytes. Memory: one panel of the widest matrix
 * and its scales; pages of the source are given back as they are done with.
 */
#ifndef RD_FORMAT_PACK_MODEL_H
#define RD_FORMAT_PACK_MODEL_H

#include "core/format/packed.h"

#include <stddef.h>

typedef struct rd_pack_job {
    const char *in, *out; /* folders */
    rd_pack pack;
    /* Called after every few MB of `all` that will be written. False: stop; what is done is kept in
     * OUT/model.safetensors.part, and the same job goes on from there, to the same bytes. NULL: nobody is told. */
    bool (*progress)(void *user, size_t done, size_t all);
    void *user;
    size_t mark_bytes; /* a killed job loses so much at most; 0: 256 MB */
} rd_pack_job;

typedef struct rd_pack_result {
    size_t bytes, kept; /* of tensors; kept: what an earlier job that was cut off had done */
    int weights;        /* packed ones */
} rd_pack_result;

/* RD_CANCELLED when it was told to stop. Any other failure leaves OUT as it was. */
rd_status rd_pack_model(const rd_pack_job *job, rd_pack_result *out, rd_error *err);

#endif
