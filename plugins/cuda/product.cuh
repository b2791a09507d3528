/* product.cuh - products of weights with rows, as pieces that kernels for dense layers, experts and the head are made of.
 *
 * Weights are the left factor of the tensor cores' products: a tile is 16 of their rows, that is 16 outputs, by 8 rows of
 * activations. Two ways to run:
 *
 * A warp over a few rows of activations (product_run). Bound by the bytes of weights, which go from memory to registers
 * and nowhere else. Thread 4 g + t holds 16 bytes of weight rows g and g + 8 of each tile at a time, at byte 16 t of a
 * stretch of 64; and because the order of k is free, those are the fragments of two, four or eight products, and the
 * matching activations are 16, 32 or 64 contiguous bytes of row g. Forms of one byte and less become pairs of halves in
 * registers. A thread has four to eight loads of 16 bytes under way while it multiplies what came before them.
 *
 * A block over many rows (product_tile). Bound by products: 128 weight rows by 64 or 128 rows of activations by 64 columns in
 * shared memory, three stages deep; forms that are not bf16 are widened on their way there.
 *
 * Columns go in chunks of 128 (CUDA_COLS), to which weights and activations are padded with zeros. Sums are float32, in an
 * order that depends on shapes alone.
 */
#ifndef RD_CUDA_PRODUCT_CUH
#define RD_CUDA_PRODUCT_CUH

#include "plugins/cuda/device.h"
#include "plugins/cuda/layout.h"

/* A weight as kernels take it, by value or in a table on the device. */
typedef struct product_weight {
    const unsigned char *data;
    const float *scale;
    const uint8_t *step;
    int rows, stride;
} product_weight;

static inline product_weight product_of(const rd_weight *w)
{
    product_weight p = { (const unsigned char *)w->data, w->scale, w->step, w->rows, w->stride };

    return p;
}

/* ---- numbers ---- */

/* Bytes of a chunk of 128 columns in a row; stretches of 64 bytes in it; numbers of a thread in a stretch. */
template <cuda_form F> struct product_form {
    static const int chunk = F == CUDA_BF16 ? 256 : F == CUDA_I4 ? 64 : 128;
    static const int pieces = chunk / 64;
    static const int numbers = 32 / pieces;
};

template <cuda_form F> static __device__ inline size_t product_row_bytes(int stride)
{
    return (size_t)(stride / CUDA_COLS) * product_form<F>::chunk;
}

static __device__ inline uint32_t product_word(const uint4 &v, int i)
{
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

/* The step of a group of I4 as a pair of halves. */
static __device__ inline uint32_t product_step(uint32_t step)
{
    return gpu_fma_f16x2((step | step << 16) | 0x64006400u, 0x3c003c00u, 0xe400e400u);
}

/* Numbers 8 q to 8 q + 7 of the 16 bytes `a` as four pairs; `step` is of I4 alone. A half whose bits are 0x6400 + n is
 * 1024 + n. */
template <cuda_form F>
static __device__ inline void product_pairs(uint32_t out[4], const uint4 &a, int q, uint32_t step)
{
    const uint32_t one = 0x3c003c00u, kilo = 0x64006400u;

    if (F == CUDA_BF16) {
        out[0] = a.x;
        out[1] = a.y;
        out[2] = a.z;
        out[3] = a.w;
    } else if (F == CUDA_E4M3) {
        for (int i = 0; i < 2; i++) {
            uint32_t w = product_word(a, 2 * q + i);

            out[2 * i] = gpu_e4m3x2_to_f16x2((uint16_t)(w & 0xffffu));
            out[2 * i + 1] = gpu_e4m3x2_to_f16x2((uint16_t)(w >> 16));
        }
    } else if (F == CUDA_I8) {
        for (int i = 0; i < 2; i++) {
            uint32_t w = product_word(a, 2 * q + i) ^ 0x80808080u;

            out[2 * i] = gpu_fma_f16x2(__byte_perm(w, kilo, 0x5150u), one, 0xe480e480u);
            out[2 * i + 1] = gpu_fma_f16x2(__byte_perm(w, kilo, 0x5352u), one, 0xe480e480u);
        }
    } else {
        uint32_t w = product_word(a, q);

        for (int i = 0; i < 2; i++, w >>= 8) { /* 1024 + n - 1032, (1024 + 16 n) / 16 - 72 */
            uint32_t low = gpu_fma_f16x2((w & 0x000f000fu) | kilo, one, 0xe408e408u);
            uint32_t high = gpu_fma_f16x2((w & 0x00f000f0u) | kilo, 0x2c002c00u, 0xd480d480u);

            out[2 * i] = gpu_mul_f16x2(low, step);
            out[2 * i + 1] = gpu_mul_f16x2(high, step);
        }
    }
}

template <cuda_form F>
static __device__ inline void product_mma(float c[4], const uint32_t a[4], const uint32_t b[2])
{
    if (F == CUDA_BF16)
        gpu_mma_bf16(c, a, b);
    else
        gpu_mma_f16(c, a, b);
}

/* Number (row, col) of a weight of any form: for an embedding, and for tests. */
static __device__ inline float product_number(cuda_form form, const product_weight &w, int row, int col)
{
    size_t at = (size_t)row * (size_t)w.stride + (size_t)col;

    if (form == CUDA_F32) return ((const float *)w.data)[at];
    if (form == CUDA_BF16) return gpu_from_bf16(((const uint16_t *)w.data)[at]);
    if (form == CUDA_I8) return (float)(int8_t)w.data[at] * w.scale[row];
    if (form == CUDA_E4M3) {
        float by = w.scale[(row / LAYOUT_BLOCK) * (w.stride / LAYOUT_BLOCK) + col / LAYOUT_BLOCK];

        return gpu_from_f16((uint16_t)(gpu_e4m3x2_to_f16x2(w.data[at]) & 0xffffu)) * by;
    }
    uint32_t word = ((const uint32_t *)w.data)[(size_t)row * (size_t)(w.stride / 8) + layout_i4_word(col)];
    int q = (int)(word >> layout_i4_bit(col) & 15u) - 8;

    return (float)(q * w.step[(size_t)row * (size_t)(w.stride / LAYOUT_GROUP) + (size_t)(col / LAYOUT_GROUP)]) *
           w.scale[row];
}

/* ---- a warp over few rows ---- */

/* M tiles of 16 weight rows as one thread sees them: its two rows of each. */
template <cuda_form F, int M> struct product_rows {
    const unsigned char *data[M][2];
    const uint8_t *step[M][2]; /* I4 */
    float scale[M][2];         /* I8, I4 */
    const float *block[M];     /* E4M3 */
};

/* Tile m is rows [row, row + 16) of w, row a multiple of 16; rows that w has not got repeat its last one. */
template <cuda_form F, int M>
static __device__ inline void product_point(product_rows<F, M> &r, int m, const product_weight &w, int row)
{
    int lane = (int)threadIdx.x % GPU_WARP, g = lane / 4, t = lane % 4;

    for (int h = 0; h < 2; h++) {
        int at = min(row + g + 8 * h, w.rows - 1);

        r.data[m][h] = w.data + (size_t)at * product_row_bytes<F>(w.stride) + 16 * t;
        if (F == CUDA_I8 || F == CUDA_I4) r.scale[m][h] = w.scale[at];
        if (F == CUDA_I4) r.step[m][h] = w.step + (size_t)at * (size_t)(w.stride / LAYOUT_GROUP) + t;
    }
    if (F == CUDA_E4M3) r.block[m] = w.scale + (size_t)(row / LAYOUT_BLOCK) * (size_t)(w.stride / LAYOUT_BLOCK);
}

/* The activations of tile n: this thread's row, which is row g of the tile, [stride] halves at a multiple of 16 bytes. It
 * must be some row that is there even where the tile has fewer; what comes of it is the caller's to leave out. */
template <cuda_form F> static __device__ inline const uint16_t *product_x(const uint16_t *row)
{
    return row + (int)threadIdx.x % 4 * product_form<F>::numbers;
}

/* One stretch of 64 bytes of the M tiles' rows, as this thread has it. */
template <cuda_form F, int M> struct product_stretch {
    uint4 data[M][2];
    uint32_t step[M][2]; /* I4 */
};

template <cuda_form F, int M>
static __device__ inline void product_load(product_stretch<F, M> &s, const product_rows<F, M> &w, int at)
{
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            s.data[m][h] = gpu_stream(w.data[m][h] + (size_t)at * 64);
            if (F == CUDA_I4) s.step[m][h] = w.step[m][h][at * 4];
        }
}

/* c[m][n] += a stretch of the tiles times the matching numbers of the rows. */
template <cuda_form F, int M, int N>
static __device__ inline void product_multiply(float (&c)[M][N][4], const product_stretch<F, M> &s,
                                               const uint16_t *const (&x)[N], int at)
{
    const int numbers = product_form<F>::numbers;

    /* not all of int4 at once: rows of many tiles would wait in registers */
#pragma unroll(F == CUDA_I4 && N > 1 ? (N < 4 ? 4 / N : 1) : numbers / 8)
    for (int q = 0; q < numbers / 8; q++) {
        uint4 b[N];

#pragma unroll
        for (int n = 0; n < N; n++) b[n] = *(const uint4 *)(x[n] + at * 4 * numbers + 8 * q);
#pragma unroll
        for (int m = 0; m < M; m++) {
            uint32_t low[4], high[4];

            product_pairs<F>(low, s.data[m][0], q, F == CUDA_I4 ? product_step(s.step[m][0]) : 0u);
            product_pairs<F>(high, s.data[m][1], q, F == CUDA_I4 ? product_step(s.step[m][1]) : 0u);
#pragma unroll
            for (int k = 0; k < 2; k++) {
                uint32_t a[4] = { low[2 * k], high[2 * k], low[2 * k + 1], high[2 * k + 1] };

#pragma unroll
                for (int n = 0; n < N; n++) {
                    uint32_t by[2] = { product_word(b[n], 2 * k), product_word(b[n], 2 * k + 1) };

                    product_mma<F>(c[m][n], a, by);
                }
            }
        }
    }
}

/* acc[m][n] += tile m times tile n over chunks [from, to) of 128 columns, but for scales of rows (product_scale). acc as mma
 * has it: acc[m][n][2 h + i] is output g + 8 h of tile m for row 2 t + i of tile n. All threads of a warp, with the same
 * from and to; `x` by product_x. */
template <cuda_form F, int M, int N>
static __device__ inline void product_run(float (&acc)[M][N][4], const product_rows<F, M> &w,
                                          const uint16_t *const (&x)[N], int from, int to)
{
    const int loads = F != CUDA_BF16 && M * N >= 4 ? 4 : 8; /* the accumulators leave room for so many */
    const int slots = 2 * M < loads ? loads / (2 * M) : 1, pieces = product_form<F>::pieces;
    product_stretch<F, M> next[slots];
    float part[M][N][4] = {}; /* E4M3: of a chunk, before its scale */
    int first = from * pieces, end = to * pieces;

    if (first < end) {
#pragma unroll
        for (int e = 0; e < slots; e++) product_load<F, M>(next[e], w, min(first + e, end - 1));
    }
    for (; first < end; first += slots) {
#pragma unroll
        for (int e = 0; e < slots; e++) {
            int at = first + e;
            product_stretch<F, M> now = next[e];

            if (at < end) { /* the same for the whole warp */
                if (at + slots < end) product_load<F, M>(next[e], w, at + slots);
                if (F != CUDA_E4M3) {
                    product_multiply<F, M, N>(acc, now, x, at);
                } else {
                    product_multiply<F, M, N>(part, now, x, at);
                    if (at % pieces == pieces - 1) {
#pragma unroll
                        for (int m = 0; m < M; m++) {
                            float scale = w.block[m][at / pieces];

#pragma unroll
                            for (int n = 0; n < N; n++)
#pragma unroll
                                for (int i = 0; i < 4; i++) {
                                    acc[m][n][i] = __fmaf_rn(part[m][n][i], scale, acc[m][n][i]);
                                    part[m][n][i] = 0.0f;
                                }
                        }
                    }
                }
            }
        }
    }
}

/* After the last product_run of these tiles: I8 and I4 times the scales of their rows. */
template <cuda_form F, int M, int N>
static __device__ inline void product_scale(float (&acc)[M][N][4], const product_rows<F, M> &w)
{
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (F == CUDA_I8 || F == CUDA_I4) acc[m][n][i] *= w.scale[m][i / 2];
}

/* SiLU(gate) * up. */
static __device__ inline float product_silu(float gate, float up)
{
    return gate / (1.0f + gpu_exp(-gate)) * up;
}

/* A float as activations are rounded: bf16, or f16 clamped. */
static __device__ inline uint16_t product_half(float x, cuda_half kind)
{
    if (kind == CUDA_HALF_BF16) return gpu_bf16(x);
    return gpu_f16(x > 65504.0f ? 65504.0f : x < -65504.0f ? -65504.0f : x); /* NaN stays */
}

/* ---- launches, while running (linear.cu) ---- */

/* out [rows, w.rows] = x [rows, w.cols] times w, whatever its form; makes halves of x by cuda_halves where w wants them,
 * for which there must be room (cuda_room_half). */
CUDA_LOCAL rd_status cuda_product(rd_device *d, float *out, const float *x, int rows, cuda_form form,
                                  const product_weight &w, int cols, rd_error *err);

#endif
