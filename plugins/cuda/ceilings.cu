/* ceilings.cu - what this GPU does at best, measured now: a long read, a copy, and products that stay in registers.
 *
 * Figures are of this moment: the same run that times a pass times these, and a share of them is what is printed.
 */
#include "plugins/cuda/ceilings.h"

#include "plugins/cuda/cuda.h"

#include <string.h>

enum { THREADS = 256, RUNS = 5, ROUNDS = 4096 };

/* Reads n 16-byte pieces, eight at a time; writes a number that depends on all of them. */
static __global__ void read_all(const uint4 *from, size_t n, uint32_t *out)
{
    size_t step = (size_t)gridDim.x * blockDim.x, i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    uint32_t sum = 0;

    for (; i + 7 * step < n; i += 8 * step) {
        uint4 x[8];

#pragma unroll
        for (int k = 0; k < 8; k++) x[k] = gpu_stream(from + i + (size_t)k * step);
#pragma unroll
        for (int k = 0; k < 8; k++) sum += x[k].x ^ x[k].y ^ x[k].z ^ x[k].w;
    }
    for (; i < n; i += step) {
        uint4 x = gpu_stream(from + i);

        sum += x.x ^ x.y ^ x.z ^ x.w;
    }
    if (sum == 1) atomicAdd(out, 1u); /* never left out by the compiler, hardly ever done */
}

/* ROUNDS times four independent products a warp. */
static __global__ void multiply(float *out)
{
    float c[4][4] = { { 0.0f } };
    uint32_t a[4], b[2];

    for (int i = 0; i < 4; i++) a[i] = 0x3f803f80u + (threadIdx.x << i);
    for (int i = 0; i < 2; i++) b[i] = 0x3f803f80u + threadIdx.x * 3u;
    for (int i = 0; i < ROUNDS; i++) {
#pragma unroll
        for (int k = 0; k < 4; k++) gpu_mma_bf16(c[k], a, b);
    }
    float sum = 0.0f;

    for (int k = 0; k < 4; k++) sum += c[k][0] + c[k][1] + c[k][2] + c[k][3];
    out[(size_t)blockIdx.x * blockDim.x + threadIdx.x] = sum;
}

/* The least milliseconds of some runs of `launch`. */
template <typename launch> static float least_ms(cudaStream_t stream, launch run)
{
    cudaEvent_t from, to;
    float best = 0.0f;

    cudaEventCreate(&from);
    cudaEventCreate(&to);
    for (int i = 0; i <= RUNS; i++) {
        float ms = 0.0f;

        cudaEventRecord(from, stream);
        run();
        cudaEventRecord(to, stream);
        cudaEventSynchronize(to);
        cudaEventElapsedTime(&ms, from, to);
        if (i > 0 && (best == 0.0f || ms < best)) best = ms; /* the first one warms up */
    }
    cudaEventDestroy(from);
    cudaEventDestroy(to);
    return best;
}

rd_status cuda_ceilings(const rd_device_options *o, rd_ceilings *out, rd_error *err)
{
    const rd_backend *be = rd_backend_entry();
    rd_device *d;
    rd_error local;
    void *memory;

    if (!err) err = &local;
    memset(out, 0, sizeof *out);
    if (be->open(o, &d, err)) return err->status;
    size_t bytes = (size_t)4 << 30, left = 0, all = 0;

    cudaMemGetInfo(&left, &all);
    if (bytes > left / 4) bytes = left / 4 / 4096 * 4096;
    rd_status s = cuda_get(d, &memory, bytes, "measuring what memory gives", err);

    if (!s) {
        int blocks = d->processors * 8;
        float read, product;

        cudaMemsetAsync(memory, 0x3c, bytes, d->stream);
        read = least_ms(d->stream, [&] {
            RD_LAUNCH(read_all, blocks, THREADS, 0, d->stream, (const uint4 *)memory, bytes / 16,
                      (uint32_t *)d->params);
        });
        product = least_ms(d->stream, [&] {
            RD_LAUNCH(multiply, blocks, THREADS, 0, d->stream, (float *)memory);
        });
        s = cuda_status(cudaStreamSynchronize(d->stream), "measuring the GPU", err);
        out->read_bytes_s = (double)bytes / (double)read * 1e3;
        out->cache_bytes = (double)d->l2_bytes;
        out->bf16_flop_s = 2.0 * 16 * 8 * 16 * 4 * ROUNDS * (double)blocks * (THREADS / GPU_WARP) /
                           (double)product * 1e3;
        cuda_put(d, memory, bytes);
    }
    be->close(d);
    return s;
}
