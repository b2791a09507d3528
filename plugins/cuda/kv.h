/* kv.h - the storage of keys and values as attention sees it.
 *
 * [layer][block][kv_head] cells; sight.h says what stands where in one. Half: bf16, which needs a shape that the tensor
 * cores' kernel takes; float32 otherwise.
 */
#ifndef RD_CUDA_KV_H
#define RD_CUDA_KV_H

#include "plugins/cuda/device.h"
#include "plugins/cuda/sight.h"

struct rd_kv {
    rd_kv_shape shape;
    bool half;
    size_t cell;   /* numbers of one head's keys and values of one block */
    void *data;    /* device memory */
    size_t bytes;
    void *staging; /* device memory: one block as exported */
    size_t block_bytes;
};

static inline size_t cuda_kv_number(const rd_kv *kv)
{
    return kv->half ? sizeof(uint16_t) : sizeof(float);
}

/* The cells of a layer: those of block b start b * kv_heads * cell numbers behind. */
static inline void *cuda_kv_layer(const rd_kv *kv, int layer)
{
    const rd_kv_shape *s = &kv->shape;

    return (char *)kv->data +
           (size_t)layer * (size_t)s->blocks * (size_t)s->kv_heads * kv->cell * cuda_kv_number(kv);
}

#endif
