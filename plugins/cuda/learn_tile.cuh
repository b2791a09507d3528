/* learn_tile.cuh - tiles of bf16 in shared memory as tensor cores read them.
 *
 * A tile is rows of `CHUNKS` pieces of 16 bytes. Piece c of row r lies at place c ^ swizzle(r) of its row, so that the eight
 * rows of one 8 x 8 matrix lie in different banks, whether rows are read (ldmatrix) or columns (ldmatrix turned). Fragments
 * are those of gpu.cuh. "Turned" says that the tile's rows run along the products' k.
 */
#ifndef RD_CUDA_LEARN_TILE_CUH
#define RD_CUDA_LEARN_TILE_CUH

#include "plugins/cuda/gpu.cuh"

typedef uint16_t bf16;

/* Where piece `c` of row `r` lies, in bf16 from the tile's start. */
template <int CHUNKS> static __device__ inline int tile_at(int r, int c)
{
    int by = CHUNKS >= 8 ? r & 7 : (r >> 1) & 3;

    return (r * CHUNKS + (c ^ by)) * 8;
}

/* A: rows m .. m + 15 and pieces c, c + 1 (k) of a tile [m][k]. */
template <int CHUNKS>
static __device__ inline void tile_a(uint32_t a[4], const bf16 *tile, int m, int c)
{
    int lane = (int)threadIdx.x % GPU_WARP, i = lane / 8, r = lane % 8;

    gpu_ldmatrix(a, tile + tile_at<CHUNKS>(m + (i & 1) * 8 + r, c + (i >> 1)));
}

/* A: rows k .. k + 15 and pieces c, c + 1 (m) of a tile [k][m]. */
template <int CHUNKS>
static __device__ inline void tile_a_turned(uint32_t a[4], const bf16 *tile, int k, int c)
{
    int lane = (int)threadIdx.x % GPU_WARP, i = lane / 8, r = lane % 8;

    gpu_ldmatrix_turned(a, tile + tile_at<CHUNKS>(k + (i >> 1) * 8 + r, c + (i & 1)));
}

/* Two B, b[0..1] and b[2..3]: rows n .. n + 15 and pieces c, c + 1 (k) of a tile [n][k]. */
template <int CHUNKS>
static __device__ inline void tile_b(uint32_t b[4], const bf16 *tile, int n, int c)
{
    int lane = (int)threadIdx.x % GPU_WARP, i = lane / 8, r = lane % 8;

    gpu_ldmatrix(b, tile + tile_at<CHUNKS>(n + (i >> 1) * 8 + r, c + (i & 1)));
}

/* Two B: rows k .. k + 15 and pieces c, c + 1 (n) of a tile [k][n]. */
template <int CHUNKS>
static __device__ inline void tile_b_turned(uint32_t b[4], const bf16 *tile, int k, int c)
{
    int lane = (int)threadIdx.x % GPU_WARP, i = lane / 8, r = lane % 8;

    gpu_ldmatrix_turned(b, tile + tile_at<CHUNKS>(k + (i & 1) * 8 + r, c + (i >> 1)));
}

/* Two neighbouring C fragments (16 x 8 each) as one A (16 x 16). */
static __device__ inline void tile_a_of_c(uint32_t a[4], const float c0[4], const float c1[4])
{
    a[0] = gpu_bf16x2(c0[0], c0[1]);
    a[1] = gpu_bf16x2(c0[2], c0[3]);
    a[2] = gpu_bf16x2(c1[0], c1[1]);
    a[3] = gpu_bf16x2(c1[2], c1[3]);
}

static __device__ inline void bf16_pair(float out[2], uint32_t x)
{
    out[0] = __uint_as_float(x << 16);
    out[1] = __uint_as_float(x & 0xffff0000u);
}

/* Eight bf16 at a multiple of 16 bytes. */
static __device__ inline void bf16_load8(float out[8], const bf16 *from)
{
    uint4 v = *(const uint4 *)from;

    bf16_pair(out, v.x);
    bf16_pair(out + 2, v.y);
    bf16_pair(out + 4, v.z);
    bf16_pair(out + 6, v.w);
}

static __device__ inline void bf16_store8(bf16 *to, const float x[8])
{
    uint4 v;

    v.x = gpu_bf16x2(x[0], x[1]);
    v.y = gpu_bf16x2(x[2], x[3]);
    v.z = gpu_bf16x2(x[4], x[5]);
    v.w = gpu_bf16x2(x[6], x[7]);
    *(uint4 *)to = v;
}

static __device__ inline void f32_load8(float out[8], const float *from)
{
    float4 a = *(const float4 *)from, b = *(const float4 *)(from + 4);

    out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w;
    out[4] = b.x, out[5] = b.y, out[6] = b.z, out[7] = b.w;
}

static __device__ inline void f32_store8(float *to, const float x[8])
{
    *(float4 *)to = make_float4(x[0], x[1], x[2], x[3]);
    *(float4 *)(to + 4) = make_float4(x[4], x[5], x[6], x[7]);
}

#endif
