/* kv.cu - keys and values in numbered blocks, and one block to and from the host.
 *
 * A block goes out through a buffer of its size, in which a kernel puts the numbers in the order that the host expects.
 */
#include "plugins/cuda/kv.h"

extern "C" {
#include "core/base/memory.h"
}

#include <stdlib.h>

enum { THREADS = 256 };

/* Numbers of one block between cells and [layer][K, V][kv_head][token][dim]. data: the storage; flat: one block. One block of
 * threads a head of a layer, blockIdx.x = layer, blockIdx.y = head. `out`: from the storage. */
template <typename number>
static __global__ void turn_block(number *data, number *flat, rd_kv_shape s, int half, int block, int out)
{
    int layer = (int)blockIdx.x, head = (int)blockIdx.y, n = s.block_size * s.head_dim;
    size_t cell = 2 * (size_t)n;
    number *in = data + (((size_t)layer * (size_t)s.blocks + (size_t)block) * (size_t)s.kv_heads +
                         (size_t)head) * cell;
    number *keys = flat + ((size_t)(2 * layer) * (size_t)s.kv_heads + (size_t)head) * (size_t)n;
    number *values = keys + (size_t)s.kv_heads * (size_t)n;

    for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x) {
        int token = i / s.head_dim, dim = i % s.head_dim;
        int k = half ? cuda_key_place(s.block_size, s.head_dim, token, dim) : i;
        int v = half ? cuda_value_place(s.block_size, s.head_dim, token, dim) : n + i;

        if (out) {
            keys[i] = in[k];
            values[i] = in[v];
        } else {
            in[k] = keys[i];
            in[v] = values[i];
        }
    }
}

static rd_status launch_turn(rd_device *d, const rd_kv *kv, int block, int out, rd_error *err)
{
    const rd_kv_shape *s = &kv->shape;
    dim3 grid((unsigned)s->layers, (unsigned)s->kv_heads);

    if (kv->half)
        RD_LAUNCH((turn_block<uint16_t>), grid, THREADS, 0, d->stream, (uint16_t *)kv->data,
                  (uint16_t *)kv->staging, *s, 1, block, out);
    else
        RD_LAUNCH((turn_block<float>), grid, THREADS, 0, d->stream, (float *)kv->data,
                  (float *)kv->staging, *s, 0, block, out);
    return cuda_status(cudaPeekAtLastError(), "a block's layout", err);
}

/* Sizes of a shape, or RD_INVALID. */
static rd_status measure(rd_kv *kv, rd_error *err)
{
    const rd_kv_shape *s = &kv->shape;
    size_t n;

    if (s->layers < 1 || s->kv_heads < 1 || s->head_dim < 1 || s->block_size < 1 || s->blocks < 1 ||
        s->kv_heads > 65535)
        return rd_fail(err, RD_INVALID, "keys and values of %d layers, %d heads, %d blocks of %d x %d",
                       s->layers, s->kv_heads, s->blocks, s->block_size, s->head_dim);
    if (!rd_mul((size_t)s->block_size, 2 * (size_t)s->head_dim, &kv->cell) || kv->cell > 1 << 24 ||
        !rd_mul(kv->cell, (size_t)s->kv_heads * (size_t)s->layers, &n) ||
        !rd_mul(n, cuda_kv_number(kv), &kv->block_bytes) ||
        !rd_mul(kv->block_bytes, (size_t)s->blocks, &kv->bytes))
        return rd_fail(err, RD_INVALID, "keys and values of %d blocks", s->blocks);
    return RD_OK;
}

rd_status cuda_kv_open(rd_device *d, const rd_kv_shape *s, rd_kv **out, rd_error *err)
{
    rd_kv *kv = (rd_kv *)rd_alloc0(sizeof *kv);

    kv->shape = *s;
    kv->half = d->precision == RD_FAST && !s->exact && cuda_half_fits(s->block_size, s->head_dim);
    rd_status status = measure(kv, err);

    if (!status) status = cuda_get(d, &kv->data, kv->bytes, "keys and values", err);
    if (!status) status = cuda_get(d, &kv->staging, kv->block_bytes, "a block of keys and values", err);
    /* What nobody wrote is not NaN, which a weight of zero would not hide. */
    if (!status)
        status = cuda_status(cudaMemsetAsync(kv->data, 0, kv->bytes, d->stream), "keys and values", err);
    if (status) {
        cuda_kv_close(d, kv);
        return status;
    }
    *out = kv;
    return RD_OK;
}

void cuda_kv_close(rd_device *d, rd_kv *kv)
{
    if (!kv) return;
    cuda_flush(d, true, NULL);
    cuda_put(d, kv->data, kv->bytes);
    cuda_put(d, kv->staging, kv->block_bytes);
    free(kv);
}

size_t cuda_kv_block_bytes(rd_device *d, const rd_kv *kv)
{
    (void)d;
    return kv->block_bytes;
}

static rd_status check_block(const rd_kv *kv, int block, rd_error *err)
{
    if (block >= 0 && block < kv->shape.blocks) return RD_OK;
    return rd_fail(err, RD_INVALID, "block %d of %d", block, kv->shape.blocks);
}

rd_status cuda_kv_read(rd_device *d, const rd_kv *kv, int block, void *to, rd_error *err)
{
    rd_status s = check_block(kv, block, err);

    if (!s) s = cuda_flush(d, false, err);
    if (!s) s = launch_turn(d, kv, block, 1, err);
    if (!s)
        s = cuda_status(cudaMemcpyAsync(to, kv->staging, kv->block_bytes, cudaMemcpyDeviceToHost, d->stream),
                        "a block from the GPU", err);
    return s ? s : cuda_status(cudaStreamSynchronize(d->stream), "a block from the GPU", err);
}

rd_status cuda_kv_write(rd_device *d, rd_kv *kv, int block, const void *from, rd_error *err)
{
    rd_status s = check_block(kv, block, err);

    if (!s) s = cuda_flush(d, false, err);
    if (!s)
        s = cuda_status(cudaMemcpyAsync(kv->staging, from, kv->block_bytes, cudaMemcpyHostToDevice, d->stream),
                        "a block to the GPU", err);
    if (!s) s = launch_turn(d, kv, block, 0, err);
    return s ? s : cuda_status(cudaStreamSynchronize(d->stream), "a block to the GPU", err);
}
