/* test_emulator.cpp - threads of the emulated GPU: barriers, operations of a warp, tensor cores, asynchronous copies, and how a
 * kernel that breaks their rules ends. Expected values are worked out here by other means.
 */
#include "plugins/cuda/gpu.cuh"
#include "tests/plugins/cuda/emulator/control.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <csignal>

static const uint64_t orders[] = { 0, 1, 2, 77 };

/* Memory that the device writes and the host reads once it waited. */
template <class T> static T *mapped(size_t n)
{
    T *p = nullptr;

    cr_assert(eq(int, cudaHostAlloc(&p, n * sizeof *p, cudaHostAllocMapped), cudaSuccess));
    return p;
}

static void done(void)
{
    cr_assert(eq(int, cudaGetLastError(), cudaSuccess));
    cr_assert(eq(int, cudaDeviceSynchronize(), cudaSuccess));
}

/* ---- places ---- */

static __global__ void places(unsigned *out)
{
    unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    unsigned threads = blockDim.x * blockDim.y * blockDim.z;

    atomicAdd(&out[block * threads + thread], 1u + block * threads + thread);
}

Test(emulator, runs_each_thread_of_each_block_once)
{
    for (uint64_t order : orders) {
        enum { N = 2 * 3 * 4 * 5 * 6 * 7 };
        unsigned *out = mapped<unsigned>(N);

        memset(out, 0, N * sizeof *out);
        rd_emulated_order(order);
        RD_LAUNCH(places, dim3(2, 3, 4), dim3(5, 6, 7), 0, 0, out);
        done();

        for (unsigned i = 0; i < N; i++) cr_assert(eq(uint, out[i], 1 + i));
        cudaFreeHost(out);
    }
}

/* ---- the block's barrier and memory ---- */

static __global__ void reversed(int *out, const int *in, int rounds)
{
    __shared__ int room[96];
    RD_DYNAMIC_SHARED(int, more);
    int x = in[threadIdx.x];

    for (int i = 0; i < rounds; i++) {
        room[threadIdx.x] = x;
        __syncthreads();
        more[threadIdx.x] = room[blockDim.x - 1 - threadIdx.x];
        __syncthreads();
        x = more[threadIdx.x];
    }
    out[threadIdx.x] = x;
}

Test(emulator, a_barrier_waits_for_all_threads)
{
    for (uint64_t order : orders) {
        int *in = mapped<int>(96), *out = mapped<int>(96);

        for (int i = 0; i < 96; i++) in[i] = i * i;
        rd_emulated_order(order);
        RD_LAUNCH(reversed, 1, 96, 96 * sizeof(int), 0, out, in, 3);
        done();

        for (int i = 0; i < 96; i++) cr_assert(eq(int, out[i], (95 - i) * (95 - i)));
    }
}

static __global__ void unguarded(int *out)
{
    __shared__ int room[64];

    room[threadIdx.x] = (int)threadIdx.x;
    out[threadIdx.x] = room[63 - threadIdx.x];
}

Test(emulator, a_missing_barrier_shows)
{
    int *out = mapped<int>(64), wrong = 0;

    RD_LAUNCH(unguarded, 1, 64, 0, 0, out);
    done();

    for (int i = 0; i < 64; i++) wrong += out[i] != 63 - i;
    cr_assert(eq(int, wrong, 32));
}

static __global__ void unwritten(float *out)
{
    __shared__ float room[32];
    RD_DYNAMIC_SHARED(float, more);

    if (blockIdx.x == 0) room[threadIdx.x] = more[threadIdx.x] = 1;
    else out[threadIdx.x] = threadIdx.x % 2 ? room[threadIdx.x] : more[threadIdx.x];
}

Test(emulator, shared_memory_of_a_block_begins_as_nan)
{
    float *out = mapped<float>(32);

    RD_LAUNCH(unwritten, 2, 32, 128, 0, out);
    done();

    for (int i = 0; i < 32; i++) cr_assert(isnan(out[i]));
}

/* ---- shuffles ---- */

static __global__ void shuffles(int *out, int width)
{
    int lane = (int)threadIdx.x;

    out[lane] = __shfl_sync(GPU_ALL, lane, lane + 3, width);
    out[32 + lane] = __shfl_xor_sync(GPU_ALL, lane, 5, width);
    out[64 + lane] = __shfl_up_sync(GPU_ALL, lane, 2, width);
    out[96 + lane] = __shfl_down_sync(GPU_ALL, lane, 2, width);
    out[128 + lane] = (int)(__shfl_sync(GPU_ALL, 1ull << (lane + 20), 31 - lane) >> 20);
    out[160 + lane] = (int)__ballot_sync(GPU_ALL, lane % 3 == 0);
    out[192 + lane] = __any_sync(GPU_ALL, lane == 7) + 2 * __any_sync(GPU_ALL, lane == 32) +
                      4 * __all_sync(GPU_ALL, lane < 32) + 8 * __all_sync(GPU_ALL, lane < 31);
}

Test(emulator, lanes_exchange_numbers)
{
    for (uint64_t order : orders)
        for (int width = 4; width <= 32; width *= 2) {
            int *out = mapped<int>(224);

            rd_emulated_order(order);
            RD_LAUNCH(shuffles, 1, 32, 0, 0, out, width);
            done();

            for (int i = 0; i < 32; i++) {
                int first = i / width * width, votes = 0;

                for (int j = 0; j < 32; j += 3) votes |= (int)(1u << j);
                cr_assert(eq(int, out[i], first + (i + 3) % width));
                cr_assert(eq(int, out[32 + i], (i ^ 5) < first + width ? i ^ 5 : i));
                cr_assert(eq(int, out[64 + i], i - 2 >= first ? i - 2 : i));
                cr_assert(eq(int, out[96 + i], i + 2 < first + width ? i + 2 : i));
                cr_assert(eq(int, out[128 + i], (int)(1u << (31 - i))));
                cr_assert(eq(int, out[160 + i], votes));
                cr_assert(eq(int, out[192 + i], 5));
            }
        }
}

static __global__ void sums(float *out)
{
    __shared__ float room[32];
    float x = gpu_block_sum((float)threadIdx.x, room);

    out[threadIdx.x] = gpu_block_sum(x, room) + gpu_warp_max((float)threadIdx.x);
}

Test(emulator, sums_over_a_block_reach_all_threads)
{
    for (uint64_t order : orders) {
        float *out = mapped<float>(160);

        rd_emulated_order(order);
        RD_LAUNCH(sums, 1, 160, 0, 0, out);
        done();

        for (int i = 0; i < 160; i++)
            cr_assert(eq(flt, out[i], 160.0f * (159 * 160 / 2) + (float)(i / 32 * 32 + 31)));
    }
}

/* ---- tensor cores ---- */

enum { M = 16, N = 8, K = 16 };

/* One product, with fragments made as PTX says. */
static __global__ void product(float *c, const uint16_t *a, const uint16_t *b, bool bf16)
{
    int lane = (int)threadIdx.x, g = lane / 4, t = lane % 4;
    uint32_t fa[4], fb[2];
    float fc[4];

    for (int i = 0; i < 4; i++) {
        const uint16_t *at = a + (g + 8 * (i % 2)) * K + 2 * t + 8 * (i / 2);

        fa[i] = at[0] | (uint32_t)at[1] << 16;
    }
    for (int i = 0; i < 2; i++)
        fb[i] = b[(2 * t + 8 * i) * N + g] | (uint32_t)b[(2 * t + 8 * i + 1) * N + g] << 16;
    for (int i = 0; i < 4; i++) fc[i] = c[(g + 8 * (i / 2)) * N + 2 * t + i % 2];
    if (bf16) gpu_mma_bf16(fc, fa, fb);
    else gpu_mma_f16(fc, fa, fb);
    for (int i = 0; i < 4; i++) c[(g + 8 * (i / 2)) * N + 2 * t + i % 2] = fc[i];
}

static void check_product(bool bf16)
{
    uint16_t *a = mapped<uint16_t>(M * K), *b = mapped<uint16_t>(K * N);
    float *c = mapped<float>(M * N), expected[M * N];

    srand(7);
    for (int i = 0; i < M * K; i++)
        a[i] = bf16 ? gpu_bf16((float)(rand() % 64 - 32)) : gpu_f16((float)(rand() % 64 - 32));
    for (int i = 0; i < K * N; i++)
        b[i] = bf16 ? gpu_bf16((float)(rand() % 64 - 32)) : gpu_f16((float)(rand() % 64 - 32));
    for (int i = 0; i < M * N; i++) expected[i] = c[i] = (float)i;
    for (int m = 0; m < M; m++)
        for (int n = 0; n < N; n++)
            for (int k = 0; k < K; k++)
                expected[m * N + n] += bf16 ? gpu_from_bf16(a[m * K + k]) * gpu_from_bf16(b[k * N + n])
                                            : gpu_from_f16(a[m * K + k]) * gpu_from_f16(b[k * N + n]);

    RD_LAUNCH(product, 1, 32, 0, 0, c, a, b, bf16);
    done();

    for (int i = 0; i < M * N; i++) cr_assert(eq(flt, c[i], expected[i]));
}

Test(emulator, tensor_cores_multiply_bf16)
{
    check_product(true);
}

Test(emulator, tensor_cores_multiply_f16)
{
    check_product(false);
}

static __global__ void matrices(uint32_t *out, bool turned)
{
    __shared__ __align__(16) uint16_t room[4][8][8];
    int lane = (int)threadIdx.x;
    uint32_t r[4];

    for (int i = lane; i < 256; i += 32) room[i / 64][i / 8 % 8][i % 8] = (uint16_t)i;
    __syncwarp();
    if (turned) gpu_ldmatrix_turned(r, room[lane / 8][lane % 8]);
    else gpu_ldmatrix(r, room[lane / 8][lane % 8]);
    for (int i = 0; i < 4; i++) out[4 * lane + i] = r[i];
}

Test(emulator, ldmatrix_hands_out_pairs)
{
    uint32_t *out = mapped<uint32_t>(128);

    for (int turned = 0; turned < 2; turned++) {
        RD_LAUNCH(matrices, 1, 32, 0, 0, out, turned != 0);
        done();

        for (unsigned lane = 0; lane < 32; lane++)
            for (unsigned i = 0; i < 4; i++) {
                unsigned g = lane / 4, t = lane % 4;
                unsigned low = 64 * i + (turned ? 8 * (2 * t) + g : 8 * g + 2 * t);
                unsigned high = 64 * i + (turned ? 8 * (2 * t + 1) + g : 8 * g + 2 * t + 1);

                cr_assert(eq(uint, out[4 * lane + i], low | high << 16));
            }
    }
}

/* ---- cp.async ---- */

/* What thread 0 sees of two copies: before waiting, after one, after both; and of a third that is cut at 5 bytes. */
static __global__ void copies(unsigned char *out, const unsigned char *in)
{
    __shared__ __align__(16) unsigned char room[3][16];

    memset(room, 1, sizeof room);
    gpu_copy_async(room[0], in, 16);
    gpu_copy_commit();
    gpu_copy_async(room[1], in + 16, 16);
    gpu_copy_commit();
    gpu_copy_async(room[2], in + 32, 5);
    out[0] = room[0][3] == in[3];
    gpu_copy_wait<1>();
    out[1] = room[0][3] == in[3];
    out[2] = room[1][3] == in[19];
    gpu_copy_wait<0>();
    out[3] = room[1][3] == in[19];
    out[4] = room[2][4] == in[36]; /* never committed */
    gpu_copy_commit();
    gpu_copy_wait<0>();
    out[5] = room[2][4] == in[36];
    out[6] = room[2][5] | room[2][15];
}

Test(emulator, an_asynchronous_copy_is_there_when_it_was_waited_for)
{
    unsigned char *in = mapped<unsigned char>(48), *out = mapped<unsigned char>(7);
    static const unsigned char expected[7] = { 0, 1, 0, 1, 0, 1, 0 };

    for (int i = 0; i < 48; i++) in[i] = (unsigned char)(i + 1);
    RD_LAUNCH(copies, 1, 1, 0, 0, out, in);
    done();

    for (int i = 0; i < 7; i++)
        cr_assert(eq(int, out[i], expected[i]), "observation %d", i);
}

/* ---- rules that are broken ---- */

static __global__ void some_leave(int *out)
{
    if (threadIdx.x == 5) return;
    __syncthreads();
    out[threadIdx.x] = 1;
}

static __global__ void two_barriers(int *out)
{
    if (threadIdx.x < 32) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    out[threadIdx.x] = 1;
}

static __global__ void half_a_warp(int *out)
{
    if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(GPU_ALL, 1, 0);
}

static __global__ void two_operations(int *out)
{
    if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(GPU_ALL, 1, 0);
    else out[threadIdx.x] = __any_sync(GPU_ALL, 1);
}

static __global__ void narrow_mask(int *out)
{
    out[threadIdx.x] = __shfl_sync(0xffffu, 1, 0);
}

static __global__ void askew(uint4 *out, const unsigned char *in)
{
    out[threadIdx.x] = gpu_stream(in + 8);
}

static __global__ void from_the_stack(uint32_t *out)
{
    alignas(16) uint32_t room[4] = {};

    gpu_ldmatrix(out, room);
}

static __global__ void too_far(int *out)
{
    RD_DYNAMIC_SHARED(volatile unsigned char, room);

    room[100] = 1;
    out[0] = room[100];
}

#define BREAKS(test, kernel, threads, shared)                \
    Test(emulator, test, .signal = SIGABRT)                  \
    {                                                        \
        RD_LAUNCH(kernel, 1, threads, shared, 0, mapped<int>(64)); \
        cudaDeviceSynchronize();                             \
    }

BREAKS(a_thread_that_left_is_missed_at_a_barrier, some_leave, 64, 0)
BREAKS(barriers_of_two_branches_are_two, two_barriers, 64, 0)
BREAKS(half_a_warp_cannot_shuffle, half_a_warp, 32, 0)
BREAKS(a_warp_does_one_thing_at_a_time, two_operations, 32, 0)
BREAKS(a_mask_names_the_whole_warp, narrow_mask, 32, 0)

Test(emulator, sixteen_bytes_are_aligned, .signal = SIGABRT)
{
    RD_LAUNCH(askew, 1, 1, 0, 0, mapped<uint4>(2), mapped<unsigned char>(64));
    cudaDeviceSynchronize();
}

Test(emulator, ldmatrix_reads_shared_memory, .signal = SIGABRT)
{
    RD_LAUNCH(from_the_stack, 1, 32, 0, 0, mapped<uint32_t>(4));
    cudaDeviceSynchronize();
}

/* The address sanitizer calls abort too where it is told to; see tests/cuda.cmake. */
BREAKS(dynamic_shared_memory_has_an_end, too_far, 1, 100)
