/* tile.cuh - products of weights with many rows: what a block of 256 threads does in shared memory.
 *
 * A block takes 128 weight rows, as two halves of 64 that may come from two weights (gate and up), and 64 or 128 rows of
 * activations, and goes through the columns 64 at a time. Activations and bf16 weights are copied asynchronously two
 * steps ahead of their use; other forms are loaded into registers a step ahead, and become halves on their way to shared
 * memory. Rows of a step are 128 bytes there, turned (layout_tile) so that nothing meets in a bank. Warp i multiplies
 * weight rows 16 (i % 4) to 16 (i % 4) + 15 of both halves by half i / 4 of the activations.
 *
 * Rows that are not there count as zeros. Sums are float32, in the order of the columns.
 */
#ifndef RD_CUDA_TILE_CUH
#define RD_CUDA_TILE_CUH

#include "plugins/cuda/product.cuh"

enum {
    TILE_THREADS = 256,
    TILE_HALF = 64,     /* weight rows of a half */
    TILE_COLS = 64,     /* of a step */
    TILE_STAGES = 3,
    TILE_BYTES = 128,   /* of a row of a step in shared memory */
};

/* Shared memory of a block with `rows` rows of activations. */
static __host__ __device__ constexpr int tile_stage_bytes(int rows)
{
    return (2 * TILE_HALF + rows) * TILE_BYTES;
}

static __host__ __device__ constexpr int tile_shared(int rows)
{
    return TILE_STAGES * tile_stage_bytes(rows);
}

static_assert(tile_shared(128) <= 99 * 1024, "two blocks fit a multiprocessor of 227 KB");

/* TILE_HALF rows of a weight from `row` on, a multiple of TILE_HALF. */
typedef struct tile_half {
    product_weight w;
    int row;
} tile_half;

/* Rows of activations: row i of `count` is row index[i], or row i, of x [.., stride] halves. */
typedef struct tile_rows {
    const uint16_t *x;
    const int *index; /* or NULL */
    int count, stride;
} tile_rows;

/* ---- from memory to shared memory ---- */

/* What one thread copies: of activations, and of bf16 weights, piece threadIdx.x % 8 of rows threadIdx.x / 8 + 32 i. */
template <int ROWS> struct tile_from {
    const uint16_t *x[ROWS / 32];
    int x_bytes[ROWS / 32]; /* 16, or 0 for a row that is not there */
};

template <int ROWS>
static __device__ inline void tile_point_rows(tile_from<ROWS> &f, const tile_rows &r)
{
    int row = (int)threadIdx.x / 8, piece = (int)threadIdx.x % 8;

#pragma unroll
    for (int i = 0; i < ROWS / 32; i++) {
        int at = min(row + 32 * i, r.count - 1);

        f.x[i] = r.x + (size_t)(r.index ? r.index[at] : at) * (size_t)r.stride + 8 * piece;
        f.x_bytes[i] = row + 32 * i < r.count ? 16 : 0;
    }
}

template <int ROWS>
static __device__ inline void tile_copy_rows(unsigned char *to, const tile_from<ROWS> &f, int step)
{
    int row = (int)threadIdx.x / 8, piece = (int)threadIdx.x % 8;

#pragma unroll
    for (int i = 0; i < ROWS / 32; i++)
        gpu_copy_async(to + layout_tile(row + 32 * i, piece), f.x[i] + step * TILE_COLS, f.x_bytes[i]);
}

static __device__ inline void tile_copy_bf16(unsigned char *to, const tile_half (&w)[2], int step)
{
    int row = (int)threadIdx.x / 8, piece = (int)threadIdx.x % 8;

#pragma unroll
    for (int i = 0; i < 4; i++) {
        const tile_half &h = w[i / 2];
        int at = h.row + row + 32 * (i % 2), there = min(at, h.w.rows - 1);
        const unsigned char *from = h.w.data + 2 * ((size_t)there * (size_t)h.w.stride +
                                                    (size_t)(step * TILE_COLS + 8 * piece));

        gpu_copy_async(to + layout_tile(row + 32 * i, piece), from, at < h.w.rows ? 16 : 0);
    }
}

/* Weights of a step that are on their way through a thread's registers. */
template <cuda_form F> struct tile_raw {
    uint4 data[F == CUDA_I4 ? 1 : 2];
    uint32_t step;
};

/* One-byte forms: 16 numbers of row threadIdx.x / 4 of each half; int4: 32 numbers of row threadIdx.x / 2 of both. */
template <cuda_form F>
static __device__ inline void tile_load(tile_raw<F> &r, const tile_half (&w)[2], int step)
{
    const uint4 none = { 0u, 0u, 0u, 0u };

    if (F == CUDA_I4) {
        bool second = (int)threadIdx.x >= TILE_THREADS / 2;
        product_weight from = second ? w[1].w : w[0].w;
        int at = (second ? w[1].row : w[0].row) + (int)threadIdx.x / 2 % TILE_HALF;
        int there = min(at, from.rows - 1), group = 2 * step + (int)threadIdx.x % 2;
        size_t groups = (size_t)(from.stride / LAYOUT_GROUP), place = (size_t)there * groups + (size_t)group;

        r.data[0] = *(const uint4 *)(from.data + 16 * place);
        r.step = at < from.rows ? from.step[place] : 0u; /* zero is as good as none */
    } else {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int at = w[h].row + (int)threadIdx.x / 4, there = min(at, w[h].w.rows - 1);
            const unsigned char *from = w[h].w.data + (size_t)there * (size_t)w[h].w.stride +
                                        (size_t)(step * TILE_COLS + (int)threadIdx.x % 4 * 16);

            r.data[F == CUDA_I4 ? 0 : h] = at < w[h].w.rows ? *(const uint4 *)from : none;
        }
    }
}

template <cuda_form F> static __device__ inline void tile_store(unsigned char *to, const tile_raw<F> &r)
{
    const int pieces = product_form<F>::numbers / 8, loads = F == CUDA_I4 ? 1 : 2;
    int row = (int)threadIdx.x / (F == CUDA_I4 ? 2 : 4);
    int piece = (int)threadIdx.x % (F == CUDA_I4 ? 2 : 4) * pieces;
    uint32_t by = F == CUDA_I4 ? product_step(r.step) : 0u;

#pragma unroll
    for (int h = 0; h < loads; h++)
#pragma unroll
        for (int q = 0; q < pieces; q++) {
            uint32_t pair[4];

            product_pairs<F>(pair, r.data[h], q, by);
            *(uint4 *)(to + layout_tile(row + TILE_HALF * h, piece + q)) =
                make_uint4(pair[0], pair[1], pair[2], pair[3]);
        }
}

/* ---- from shared memory to sums ---- */

template <cuda_form F, int ROWS>
static __device__ inline void tile_multiply(float (&c)[2][ROWS / 16][4], const unsigned char *stage)
{
    const unsigned char *x = stage + 2 * TILE_HALF * TILE_BYTES;
    int lane = (int)threadIdx.x % GPU_WARP, warp = (int)threadIdx.x / GPU_WARP;
    int row = warp % 4 * 16 + lane % 16, x_row = warp / 4 * (ROWS / 2) + lane % 8 + lane / 16 * 8;

    /* the second sums of E4M3 leave few of 128 registers: no addresses of all four ahead */
#pragma unroll(F == CUDA_E4M3 && ROWS <= 64 ? 2 : 4)
    for (int k = 0; k < TILE_COLS / 16; k++) {
        uint32_t a[2][4];

#pragma unroll
        for (int m = 0; m < 2; m++)
            gpu_ldmatrix(a[m], stage + layout_tile(row + TILE_HALF * m, 2 * k + lane / 16));
#pragma unroll
        for (int n = 0; n < ROWS / 16; n += 2) {
            uint32_t b[4];

            gpu_ldmatrix(b, x + layout_tile(x_row + 8 * n, 2 * k + lane / 8 % 2));
#pragma unroll
            for (int m = 0; m < 2; m++) {
                product_mma<F>(c[m][n], a[m], b);
                product_mma<F>(c[m][n + 1], a[m], b + 2);
            }
        }
    }
}

/* acc[m][n] of thread 4 g + t of warp i: [2 h + j] is weight row 16 (i % 4) + g + 8 h of half m, for row (i / 4) ROWS / 2 +
 * 8 n + 2 t + j of the activations; the scales of I8 and I4 rows applied. `shared`: tile_shared(ROWS) bytes. All threads
 * of the block; both halves of one stride, which is that of the rows. */
template <cuda_form F, int ROWS>
static __device__ inline void tile_run(float (&acc)[2][ROWS / 16][4], const tile_half (&w)[2],
                                       const tile_rows &rows, unsigned char *shared)
{
    const int weights = 2 * TILE_HALF * TILE_BYTES;
    int steps = rows.stride / TILE_COLS;
    float part[2][ROWS / 16][4] = {}; /* E4M3: of 128 columns, before their scale */
    tile_from<ROWS> from;
    tile_raw<F> raw;

    tile_point_rows<ROWS>(from, rows);
    for (int s = 0; s < 2; s++) { /* a stride is two steps at least */
        unsigned char *stage = shared + s * tile_stage_bytes(ROWS);

        tile_copy_rows<ROWS>(stage + weights, from, s);
        if (F == CUDA_BF16) tile_copy_bf16(stage, w, s);
        gpu_copy_commit();
    }
    if (F != CUDA_BF16) {
        tile_load<F>(raw, w, 0);
        tile_store<F>(shared, raw);
        tile_load<F>(raw, w, 1);
    }
    int now = 0; /* step % TILE_STAGES */

    for (int step = 0; step < steps; step++) {
        int next = now + 1 < TILE_STAGES ? now + 1 : 0, after = next + 1 < TILE_STAGES ? next + 1 : 0;
        unsigned char *far = shared + after * tile_stage_bytes(ROWS);

        gpu_copy_wait<1>();
        __syncthreads(); /* the step's stage is there, and what stage `after` had is used up */
        if (F != CUDA_BF16 && step + 1 < steps) tile_store<F>(shared + next * tile_stage_bytes(ROWS), raw);
        if (step + 2 < steps) {
            tile_copy_rows<ROWS>(far + weights, from, step + 2);
            if (F == CUDA_BF16)
                tile_copy_bf16(far, w, step + 2);
            else
                tile_load<F>(raw, w, step + 2);
        }
        gpu_copy_commit(); /* an empty one, too: groups are counted */
        if (F != CUDA_E4M3) {
            tile_multiply<F, ROWS>(acc, shared + now * tile_stage_bytes(ROWS));
        } else {
            tile_multiply<F, ROWS>(part, shared + now * tile_stage_bytes(ROWS));
            if (step % 2 == 1) {
#pragma unroll
                for (int m = 0; m < 2; m++) {
                    float by = w[m].w.scale[(size_t)(w[m].row / LAYOUT_BLOCK) *
                                                (size_t)(rows.stride / LAYOUT_BLOCK) +
                                            (size_t)(step / 2)];

#pragma unroll
                    for (int n = 0; n < ROWS / 16; n++)
#pragma unroll
                        for (int i = 0; i < 4; i++) {
                            acc[m][n][i] = __fmaf_rn(part[m][n][i], by, acc[m][n][i]);
                            part[m][n][i] = 0.0f;
                        }
                }
            }
        }
        now = next;
    }
    if (F == CUDA_I8 || F == CUDA_I4) {
        int row = (int)threadIdx.x / GPU_WARP % 4 * 16 + (int)threadIdx.x % GPU_WARP / 4;

#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                float by = w[m].w.scale[min(w[m].row + row + 8 * h, w[m].w.rows - 1)];

#pragma unroll
                for (int n = 0; n < ROWS / 16; n++)
#pragma unroll
                    for (int i = 0; i < 2; i++) acc[m][n][2 * h + i] *= by;
            }
    }
}

/* Of acc[0][0][0]: which weight row of the first half, and which row of the activations. */
static __device__ inline int tile_output(void)
{
    return (int)threadIdx.x / GPU_WARP % 4 * 16 + (int)threadIdx.x % GPU_WARP / 4;
}

template <int ROWS> static __device__ inline int tile_row(void)
{
    return (int)threadIdx.x / GPU_WARP / 4 * (ROWS / 2) + (int)threadIdx.x % 4 * 2;
}

#endif
