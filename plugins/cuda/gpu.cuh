/* gpu.cuh - the few things kernels are written in that are not C: launches, dynamic shared memory, tensor cores, number
 * formats, asynchronous copies.
 *
 * Kernels use CUDA's own words where they can (__global__, __shared__, threadIdx, __syncthreads, __shfl_*_sync,
 * atomicAdd ...) and the macros and functions below for the rest, never asm of their own. So a kernel compiles twice: by nvcc
 * for a GPU, and with RD_EMULATED by the host's C++ compiler against tests/plugins/cuda/emulator, where every thread of a
 * block is a fibre and every function below is plain C. That is how kernels are proved where no GPU is at hand. Nothing
 * else in plugins/cuda asks for RD_EMULATED.
 *
 * Fragments of mma are those of PTX m16n8k16: thread 4 g + t of a warp holds of A (16 x 16, row-major pairs) a[0] = row g,
 * columns 2t, 2t+1; a[1] = row g+8, the same; a[2] = row g, columns 2t+8, 2t+9; a[3] = row g+8, the same; of B (16 x 8)
 * b[0] = rows 2t, 2t+1 of column g; b[1] = rows 2t+8, 2t+9; of C (16 x 8) c[0], c[1] = row g, columns 2t, 2t+1; c[2], c[3] =
 * row g+8. The order of the 16 products' k is free as long as A and B agree: kernels use that to load 16 bytes at once.
 *
 * Source: PTX ISA 9.0, sections mma.m16n8k16, cp.async, ld.global.nc, cvt.
 */
#ifndef RD_GPU_CUH
#define RD_GPU_CUH

#include <stddef.h>
#include <stdint.h>

#ifdef RD_EMULATED
#include "tests/plugins/cuda/emulator/emulator.h"
#else

#include <cuda_runtime.h>

/* kernel<<<grid, block, shared bytes, stream>>>(arguments); a template's name with commas goes in parentheses. */
#define RD_LAUNCH(kernel, grid, block, shared, stream, ...) \
    kernel<<<(grid), (block), (shared), (stream)>>>(__VA_ARGS__)
/* The block's dynamic shared memory as `type *name`, at a multiple of 16 bytes. */
#define RD_DYNAMIC_SHARED(type, name)                        \
    extern __shared__ __align__(16) unsigned char rd_dynamic_[]; \
    type *name = reinterpret_cast<type *>(rd_dynamic_)
/* More than 48 KB of dynamic shared memory for `kernel`; gives a cudaError_t. */
#define RD_ALLOW_SHARED(kernel, bytes) \
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)(bytes))

/* ---- numbers ---- */

/* Two floats, rounded to nearest even, as a pair; `low` in the low half. */
static __device__ inline uint32_t gpu_bf16x2(float low, float high)
{
    uint32_t r;

    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}

static __device__ inline uint32_t gpu_f16x2(float low, float high)
{
    uint32_t r;

    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}

static __device__ inline uint16_t gpu_bf16(float x)
{
    return (uint16_t)gpu_bf16x2(x, 0.0f);
}

static __device__ inline float gpu_from_bf16(uint16_t x)
{
    return __uint_as_float((uint32_t)x << 16);
}

static __device__ inline float gpu_from_f16(uint16_t x)
{
    float r;

    asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(x));
    return r;
}

static __device__ inline uint16_t gpu_f16(float x)
{
    return (uint16_t)gpu_f16x2(x, 0.0f);
}

/* Two E4M3 bytes to two halves, exact. Needs sm_89. */
static __device__ inline uint32_t gpu_e4m3x2_to_f16x2(uint16_t x)
{
#if __CUDA_ARCH__ >= 890
    uint32_t r;

    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(r) : "h"(x));
    return r;
#else
    /* sign, exponent and mantissa moved into place; times 2^8 mends the bias (15 - 7), subnormals come right too. */
    uint32_t both = ((uint32_t)x & 0xffu) | ((uint32_t)x & 0xff00u) << 8, r;

    both = (both & 0x00800080u) << 8 | (both & 0x007f007fu) << 7;
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(r) : "r"(both), "r"(0x5c005c00u));
    return r;
#endif
}

/* Two floats to E4M3 bytes, to nearest even, finite ones beyond 448 to 448. Needs sm_89; for older ones take() does it on
 * the host. */
static __device__ inline uint16_t gpu_f32x2_to_e4m3x2(float low, float high)
{
#if __CUDA_ARCH__ >= 890
    uint16_t r;

    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(r) : "f"(high), "f"(low));
    return r;
#else
    __trap();
    return 0;
#endif
}

static __device__ inline uint32_t gpu_mul_f16x2(uint32_t a, uint32_t b)
{
    uint32_t r;

    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
    return r;
}

static __device__ inline uint32_t gpu_fma_f16x2(uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t r;

    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
    return r;
}

/* ---- tensor cores ---- */

/* c += A B, sums in float32. All 32 threads of the warp. */
static __device__ inline void gpu_mma_bf16(float c[4], const uint32_t a[4], const uint32_t b[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
                 "{%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

static __device__ inline void gpu_mma_f16(float c[4], const uint32_t a[4], const uint32_t b[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
                 "{%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* Four 8 x 8 matrices of 16-bit numbers from shared memory; thread 8 i + r names row r (16 bytes) of matrix i; thread
 * 4 g + t gets of matrix i, in r[i], row g, columns 2t, 2t+1. `turned`: of the transpose. */
static __device__ inline void gpu_ldmatrix(uint32_t r[4], const void *row)
{
    uint32_t at = (uint32_t)__cvta_generic_to_shared(row);

    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

static __device__ inline void gpu_ldmatrix_turned(uint32_t r[4], const void *row)
{
    uint32_t at = (uint32_t)__cvta_generic_to_shared(row);

    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

/* ---- memory ---- */

/* 16 bytes that nobody writes during the kernel and that are read once: past the first cache. 16-byte aligned. */
static __device__ inline uint4 gpu_stream(const void *from)
{
    uint4 r;

    asm("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0,%1,%2,%3}, [%4];"
        : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w)
        : "l"(from));
    return r;
}

/* 16 bytes from global to shared memory without registers; `bytes` of them (0 to 16), the rest becomes zero. */
static __device__ inline void gpu_copy_async(void *to, const void *from, int bytes)
{
    uint32_t at = (uint32_t)__cvta_generic_to_shared(to);

    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(bytes)
                 : "memory");
}

static __device__ inline void gpu_copy_commit(void)
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Until at most `left` committed groups of this thread are under way. */
template <int left> static __device__ inline void gpu_copy_wait(void)
{
    asm volatile("cp.async.wait_group %0;" ::"n"(left) : "memory");
}

/* 2^x, and e^x by it. */
static __device__ inline float gpu_exp2(float x)
{
    float r;

    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

#endif

/* ---- what both have ---- */

/* Before a function that files of the plugin share: not seen outside of it. */
#define CUDA_LOCAL __attribute__((visibility("hidden")))

enum { GPU_WARP = 32 };
#define GPU_ALL 0xffffffffu

static __device__ inline float gpu_exp(float x)
{
    return gpu_exp2(x * 1.4426950408889634f);
}

static __device__ inline float gpu_warp_sum(float x)
{
    for (int by = GPU_WARP / 2; by > 0; by /= 2) x += __shfl_xor_sync(GPU_ALL, x, by);
    return x;
}

static __device__ inline float gpu_warp_max(float x)
{
    for (int by = GPU_WARP / 2; by > 0; by /= 2) {
        float y = __shfl_xor_sync(GPU_ALL, x, by);

        x = y > x ? y : x;
    }
    return x;
}

/* The largest over the warp, to all of it. */
static __device__ inline unsigned gpu_warp_max_u32(unsigned x)
{
#ifdef RD_EMULATED
    for (int by = GPU_WARP / 2; by > 0; by /= 2) x = max(x, __shfl_xor_sync(GPU_ALL, x, by));
    return x;
#else
    return __reduce_max_sync(GPU_ALL, x);
#endif
}

/* The sum over all threads of the block, to all of them; `room` is shared, [32]. blockDim.x a multiple of 32. */
static __device__ inline float gpu_block_sum(float x, float *room)
{
    int lane = (int)threadIdx.x % GPU_WARP, warp = (int)threadIdx.x / GPU_WARP;
    int warps = (int)blockDim.x / GPU_WARP;

    x = gpu_warp_sum(x);
    __syncthreads(); /* the last use of room is over */
    if (lane == 0) room[warp] = x;
    __syncthreads();
    x = lane < warps ? room[lane] : 0.0f;
    return gpu_warp_sum(x);
}

#endif
