/* threads.h - the threads of a block as fibres: built-in variables, barriers, warp-wide operations, launches.
 *
 * All threads of a block run on the host thread that drains a stream, one at a time, and give way only at barriers. A
 * warp-wide operation is a barrier of the warp: each lane leaves what it brings in its fibre and waits; the last to arrive does
 * the operation for all. Lanes that meet at different operations, source lines or masks end the program, as do
 * threads that leave the kernel while others wait for them.
 *
 * Fragments of mma and ldmatrix: gpu.cuh.
 */
#ifndef RD_EMULATOR_THREADS_H
#define RD_EMULATOR_THREADS_H

#include "tests/plugins/cuda/emulator/runtime.h"

#include <tuple>
#include <utility>

struct rd_emulated_fibre;

/* Where the running thread is. Read by kernels through the macros below. */
struct rd_emulated_place {
    uint3 thread, block;
    dim3 threads, blocks;
};
RD_EMULATED_LOCAL extern rd_emulated_fibre *rd_emulated_now; /* NULL outside of kernels */
RD_EMULATED_LOCAL extern rd_emulated_place rd_emulated_at;

#define threadIdx (*(const uint3 *)&rd_emulated_at.thread)
#define blockIdx (*(const uint3 *)&rd_emulated_at.block)
#define blockDim (*(const dim3 *)&rd_emulated_at.threads)
#define gridDim (*(const dim3 *)&rd_emulated_at.blocks)
static constexpr int warpSize = 32;

/* A place in the source; helpers take it as a default argument, so it is the place of their call. */
struct rd_emulated_site {
    const char *file;
    int line;
};
#define RD_EMULATED_SITE \
    rd_emulated_site site = { __builtin_FILE(), __builtin_LINE() }

/* ---- the block ---- */

RD_EMULATED_LOCAL void rd_emulated_block_barrier(rd_emulated_site site);
/* Ends the program with the kernel, block and thread that run now. */
[[noreturn]] RD_EMULATED_LOCAL void rd_emulated_die(const char *format, ...)
    __attribute__((format(printf, 1, 2)));
RD_EMULATED_LOCAL void *rd_emulated_dynamic(void);

#define RD_DYNAMIC_SHARED(type, name) type *name = reinterpret_cast<type *>(rd_emulated_dynamic())

static inline void __syncthreads(RD_EMULATED_SITE)
{
    rd_emulated_block_barrier(site);
}

[[noreturn]] static inline void __trap(void)
{
    rd_emulated_die("__trap()");
}

/* ---- the warp ---- */

enum rd_emulated_shuffle { RD_SHUFFLE_TO, RD_SHUFFLE_XOR, RD_SHUFFLE_UP, RD_SHUFFLE_DOWN };

RD_EMULATED_LOCAL void rd_emulated_warp_barrier(unsigned mask, rd_emulated_site site);
RD_EMULATED_LOCAL uint64_t rd_emulated_exchange(rd_emulated_shuffle how, unsigned mask, uint64_t x,
                                                int by, int width, rd_emulated_site site);
RD_EMULATED_LOCAL unsigned rd_emulated_ballot(unsigned mask, bool is, rd_emulated_site site);
RD_EMULATED_LOCAL void rd_emulated_mma(bool bf16, float c[4], const uint32_t a[4],
                                       const uint32_t b[2], rd_emulated_site site);
RD_EMULATED_LOCAL void rd_emulated_ldmatrix(bool turned, uint32_t r[4], const void *row,
                                            rd_emulated_site site);

template <class T>
static inline T rd_emulated_shuffled(rd_emulated_shuffle how, unsigned mask, T x, int by, int width,
                                     rd_emulated_site site)
{
    static_assert(std::is_arithmetic<T>::value && (sizeof(T) == 4 || sizeof(T) == 8),
                  "a shuffle moves numbers of 4 or 8 bytes");
    uint64_t bits = 0;

    memcpy(&bits, &x, sizeof x);
    bits = rd_emulated_exchange(how, mask, bits, by, width, site);
    memcpy(&x, &bits, sizeof x);
    return x;
}

template <class T>
static inline T __shfl_sync(unsigned mask, T x, int from, int width = 32, RD_EMULATED_SITE)
{
    return rd_emulated_shuffled(RD_SHUFFLE_TO, mask, x, from, width, site);
}

template <class T>
static inline T __shfl_xor_sync(unsigned mask, T x, int by, int width = 32, RD_EMULATED_SITE)
{
    return rd_emulated_shuffled(RD_SHUFFLE_XOR, mask, x, by, width, site);
}

template <class T>
static inline T __shfl_up_sync(unsigned mask, T x, unsigned by, int width = 32, RD_EMULATED_SITE)
{
    return rd_emulated_shuffled(RD_SHUFFLE_UP, mask, x, (int)by, width, site);
}

template <class T>
static inline T __shfl_down_sync(unsigned mask, T x, unsigned by, int width = 32, RD_EMULATED_SITE)
{
    return rd_emulated_shuffled(RD_SHUFFLE_DOWN, mask, x, (int)by, width, site);
}

static inline void __syncwarp(unsigned mask = 0xffffffffu, RD_EMULATED_SITE)
{
    rd_emulated_warp_barrier(mask, site);
}

static inline unsigned __ballot_sync(unsigned mask, int is, RD_EMULATED_SITE)
{
    return rd_emulated_ballot(mask, is != 0, site);
}

static inline int __any_sync(unsigned mask, int is, RD_EMULATED_SITE)
{
    return rd_emulated_ballot(mask, is != 0, site) != 0;
}

static inline int __all_sync(unsigned mask, int is, RD_EMULATED_SITE)
{
    return rd_emulated_ballot(mask, is == 0, site) == 0;
}

static inline void gpu_mma_bf16(float c[4], const uint32_t a[4], const uint32_t b[2],
                                RD_EMULATED_SITE)
{
    rd_emulated_mma(true, c, a, b, site);
}

static inline void gpu_mma_f16(float c[4], const uint32_t a[4], const uint32_t b[2],
                               RD_EMULATED_SITE)
{
    rd_emulated_mma(false, c, a, b, site);
}

static inline void gpu_ldmatrix(uint32_t r[4], const void *row, RD_EMULATED_SITE)
{
    rd_emulated_ldmatrix(false, r, row, site);
}

static inline void gpu_ldmatrix_turned(uint32_t r[4], const void *row, RD_EMULATED_SITE)
{
    rd_emulated_ldmatrix(true, r, row, site);
}

/* ---- memory ---- */

RD_EMULATED_LOCAL bool rd_emulated_is_shared(const void *at, size_t bytes);
RD_EMULATED_LOCAL void rd_emulated_copy_async(void *to, const void *from, int bytes,
                                              rd_emulated_site site);
RD_EMULATED_LOCAL void rd_emulated_copy_commit(void);
RD_EMULATED_LOCAL void rd_emulated_copy_wait(int left);

static inline uint4 gpu_stream(const void *from, RD_EMULATED_SITE)
{
    if ((uintptr_t)from % 16)
        rd_emulated_die("gpu_stream of %p, not a multiple of 16, at %s:%d", from, site.file,
                        site.line);
    return *static_cast<const uint4 *>(from);
}

/* Copied when the thread waits for it, and not a moment earlier; until then `to` is poison. */
static inline void gpu_copy_async(void *to, const void *from, int bytes, RD_EMULATED_SITE)
{
    rd_emulated_copy_async(to, from, bytes, site);
}

static inline void gpu_copy_commit(void)
{
    rd_emulated_copy_commit();
}

template <int left> static inline void gpu_copy_wait(void)
{
    rd_emulated_copy_wait(left);
}

/* ---- launches ---- */

/* Runs a grid: `body(context)` once for each thread. Called while a stream is drained. */
typedef void (*rd_emulated_body)(const void *context);
RD_EMULATED_LOCAL void rd_emulated_run_grid(const char *kernel, dim3 grid, dim3 block,
                                            size_t shared, rd_emulated_body body,
                                            const void *context);
/* Checks the sizes, then adds `work` to the stream or to the graph that is captured of it. */
RD_EMULATED_LOCAL void rd_emulated_launch(const char *kernel, const void *function, dim3 grid,
                                          dim3 block, size_t shared, cudaStream_t stream,
                                          std::function<void()> work);
RD_EMULATED_LOCAL cudaError_t rd_emulated_allow_shared(const char *kernel, const void *function,
                                                       size_t bytes);

template <class... P, class... A>
static inline void rd_emulated_launch_with(const char *kernel, void (*function)(P...), dim3 grid,
                                           dim3 block, size_t shared, cudaStream_t stream,
                                           const A &...arguments)
{
    static_assert(sizeof...(P) == sizeof...(A), "a kernel takes as many arguments as it has");
    struct call {
        void (*function)(P...);
        std::tuple<P...> arguments; /* as they are at the launch */
        static void thread(const void *context)
        {
            const call *c = static_cast<const call *>(context);

            std::apply(c->function, c->arguments);
        }
    };
    call c = { function, std::tuple<P...>(static_cast<P>(arguments)...) };

    rd_emulated_launch(kernel, reinterpret_cast<const void *>(function), grid, block, shared,
                       stream, [=] {
                           rd_emulated_run_grid(kernel, grid, block, shared, call::thread, &c);
                       });
}

#define RD_LAUNCH(kernel, grid, block, shared, stream, ...)                                \
    rd_emulated_launch_with(#kernel, kernel, (grid), (block), (shared), (stream)           \
                            __VA_OPT__(, ) __VA_ARGS__)
#define RD_ALLOW_SHARED(kernel, bytes) \
    rd_emulated_allow_shared(#kernel, reinterpret_cast<const void *>(kernel), (size_t)(bytes))

#endif
