/* learn_turn.cu - queries and keys between the projection and attention: each head's norm and its rotation, and the way back.
 *
 * One warp a row, two neighbouring columns a lane; a head's row lies in shared memory for the rotation, which pairs column i
 * with column i + half. Values stay where the projection put them.
 */
#include "plugins/cuda/learn.h"

enum { TURN_WARPS = 8, TURN_THREADS = TURN_WARPS * GPU_WARP };

/* cosine, sine: [rows, half]. */
static __global__ void __launch_bounds__(256) turns(float *cosine, float *sine, const float *turn,
                                                    const rd_train_row *row, int rows, int half)
{
    int at = (int)(blockIdx.x * 256 + threadIdx.x);

    if (at >= rows * half) return;
    float angle = (float)row[at / half].position * turn[at % half];

    cosine[at] = cosf(angle);
    sine[at] = sinf(angle);
}

void learn_turns(rd_learner *l, const learn_pack *p)
{
    if (l->half == 0) return;
    RD_LAUNCH(turns, learn_blocks((size_t)p->rows * (size_t)l->half, 256), 256, 0, l->stream,
              l->cosine, l->sine, l->turn, p->row, p->rows, l->half);
    learn_launched(l, "rotation");
}

typedef struct learn_turn_args {
    const bf16 *qkv; /* [rows, (heads + 2 kv) dim] */
    bf16 *qk;        /* [rows, (heads + kv) dim] */
    bf16 *dqkv;
    const float *q_norm, *k_norm, *cosine, *sine;
    float *parts; /* [blocks, 2 dim] */
    float eps;
    int rows, heads, kv, half;
} learn_turn_args;

/* A head's row x, turned forwards (sign 1) or back (sign -1), in shared memory. All lanes call. */
template <int PAIRS>
static __device__ inline void turn_row(float x[PAIRS][2], float *room, const learn_turn_args *a,
                                       int row, float sign)
{
    int lane = (int)threadIdx.x % GPU_WARP;

    __syncwarp();
#pragma unroll
    for (int p = 0; p < PAIRS; p++) {
        room[2 * (lane + p * GPU_WARP)] = x[p][0];
        room[2 * (lane + p * GPU_WARP) + 1] = x[p][1];
    }
    __syncwarp();
#pragma unroll
    for (int p = 0; p < PAIRS; p++) {
#pragma unroll
        for (int k = 0; k < 2; k++) {
            int i = 2 * (lane + p * GPU_WARP) + k;

            if (i >= 2 * a->half) continue;
            bool low = i < a->half;
            int j = low ? i : i - a->half;
            float c = a->cosine[row * a->half + j], s = sign * a->sine[row * a->half + j];

            x[p][k] = low ? x[p][k] * c - room[i + a->half] * s : x[p][k] * c + room[j] * s;
        }
    }
}

template <int DIM>
static __global__ void __launch_bounds__(TURN_THREADS) split_heads(learn_turn_args a)
{
    enum { PAIRS = DIM <= 64 ? 1 : DIM / 64, WIDE = PAIRS * 64 };
    __shared__ float room[TURN_WARPS][WIDE];
    int lane = (int)threadIdx.x % GPU_WARP, warp = (int)threadIdx.x / GPU_WARP;
    int row = (int)blockIdx.x * TURN_WARPS + warp;

    if (row >= a.rows) return; /* whole warps leave */
    const bf16 *in = a.qkv + (size_t)row * (size_t)(a.heads + 2 * a.kv) * DIM;
    bf16 *out = a.qk + (size_t)row * (size_t)(a.heads + a.kv) * DIM;

#pragma unroll 2
    for (int h = 0; h < a.heads + a.kv; h++) {
        const float *weight = h < a.heads ? a.q_norm : a.k_norm;
        float x[PAIRS][2], sum = 0.0f;

#pragma unroll
        for (int p = 0; p < PAIRS; p++) {
            int i = 2 * (lane + p * GPU_WARP);

            x[p][0] = x[p][1] = 0.0f;
            if (i < DIM) bf16_pair(x[p], *(const uint32_t *)(in + h * DIM + i));
            sum += x[p][0] * x[p][0] + x[p][1] * x[p][1];
        }
        float by = 1.0f / sqrtf(gpu_warp_sum(sum) / (float)DIM + a.eps);

#pragma unroll
        for (int p = 0; p < PAIRS; p++) {
            int i = 2 * (lane + p * GPU_WARP);

            if (i >= DIM) continue;
            x[p][0] *= by * weight[i];
            x[p][1] *= by * weight[i + 1];
        }
        turn_row<PAIRS>(x, room[warp], &a, row, 1.0f);
#pragma unroll
        for (int p = 0; p < PAIRS; p++) {
            int i = 2 * (lane + p * GPU_WARP);

            if (i < DIM) *(uint32_t *)(out + h * DIM + i) = gpu_bf16x2(x[p][0], x[p][1]);
        }
    }
}

/* dqkv, the gradient of turned queries and keys, becomes that of the projection; values' stay. */
template <int DIM>
static __global__ void __launch_bounds__(TURN_THREADS) split_heads_back(learn_turn_args a)
{
    enum { PAIRS = DIM <= 64 ? 1 : DIM / 64, WIDE = PAIRS * 64 };
    __shared__ float room[TURN_WARPS][WIDE];
    __shared__ float sums[TURN_WARPS][2][WIDE];
    int lane = (int)threadIdx.x % GPU_WARP, warp = (int)threadIdx.x / GPU_WARP;
    float dq[PAIRS][2] = {}, dk[PAIRS][2] = {};

    for (int row = (int)blockIdx.x * TURN_WARPS + warp; row < a.rows;
         row += (int)gridDim.x * TURN_WARPS) {
        size_t at = (size_t)row * (size_t)(a.heads + 2 * a.kv) * DIM;

        for (int h = 0; h < a.heads + a.kv; h++) {
            const float *weight = h < a.heads ? a.q_norm : a.k_norm;
            const bf16 *in = a.qkv + at + h * DIM;
            bf16 *out = a.dqkv + at + h * DIM;
            float x[PAIRS][2], d[PAIRS][2], squares = 0.0f, sum = 0.0f;

#pragma unroll
            for (int p = 0; p < PAIRS; p++) {
                int i = 2 * (lane + p * GPU_WARP);

                x[p][0] = x[p][1] = d[p][0] = d[p][1] = 0.0f;
                if (i >= DIM) continue;
                bf16_pair(x[p], *(const uint32_t *)(in + i));
                bf16_pair(d[p], *(const uint32_t *)(out + i));
                squares += x[p][0] * x[p][0] + x[p][1] * x[p][1];
            }
            float by = 1.0f / sqrtf(gpu_warp_sum(squares) / (float)DIM + a.eps);

            turn_row<PAIRS>(d, room[warp], &a, row, -1.0f);
#pragma unroll
            for (int p = 0; p < PAIRS; p++) {
                int i = 2 * (lane + p * GPU_WARP);

                if (i >= DIM) continue;
#pragma unroll
                for (int k = 0; k < 2; k++) {
                    float g = d[p][k] * x[p][k] * by;

                    if (h < a.heads)
                        dq[p][k] += g;
                    else
                        dk[p][k] += g;
                    d[p][k] *= weight[i + k];
                    sum += d[p][k] * x[p][k];
                }
            }
            float back = gpu_warp_sum(sum) * by * by * by / (float)DIM;

#pragma unroll
            for (int p = 0; p < PAIRS; p++) {
                int i = 2 * (lane + p * GPU_WARP);

                if (i < DIM)
                    *(uint32_t *)(out + i) =
                        gpu_bf16x2(d[p][0] * by - x[p][0] * back, d[p][1] * by - x[p][1] * back);
            }
        }
    }
#pragma unroll
    for (int p = 0; p < PAIRS; p++) {
#pragma unroll
        for (int k = 0; k < 2; k++) {
            sums[warp][0][2 * (lane + p * GPU_WARP) + k] = dq[p][k];
            sums[warp][1][2 * (lane + p * GPU_WARP) + k] = dk[p][k];
        }
    }
    __syncthreads();
    for (int i = (int)threadIdx.x; i < 2 * DIM; i += TURN_THREADS) {
        float sum = 0.0f;

        for (int w = 0; w < TURN_WARPS; w++) sum += sums[w][i / DIM][i % DIM];
        a.parts[(size_t)blockIdx.x * 2 * DIM + (size_t)i] = sum;
    }
}

static learn_turn_args args_of(const rd_learner *l, const learn_layer *y, const rd_layer_params *at,
                               int rows)
{
    learn_turn_args a = {};

    a.qkv = y->qkv;
    a.qk = y->qk;
    a.dqkv = l->dqkv;
    a.q_norm = l->w + at->q_norm;
    a.k_norm = l->w + at->k_norm;
    a.cosine = l->cosine;
    a.sine = l->sine;
    a.parts = l->parts;
    a.eps = l->eps;
    a.rows = rows;
    a.heads = l->heads;
    a.kv = l->kv;
    a.half = l->half;
    return a;
}

void learn_split(rd_learner *l, const learn_layer *y, const rd_layer_params *at, int rows)
{
    learn_turn_args a = args_of(l, y, at, rows);
    int blocks = learn_blocks((size_t)rows, TURN_WARPS);

    if (l->dim == 32)
        RD_LAUNCH(split_heads<32>, blocks, TURN_THREADS, 0, l->stream, a);
    else if (l->dim == 64)
        RD_LAUNCH(split_heads<64>, blocks, TURN_THREADS, 0, l->stream, a);
    else
        RD_LAUNCH(split_heads<128>, blocks, TURN_THREADS, 0, l->stream, a);
    learn_launched(l, "queries and keys");
}

void learn_split_back(rd_learner *l, const learn_layer *y, const rd_layer_params *at, int rows)
{
    learn_turn_args a = args_of(l, y, at, rows);
    int blocks = learn_blocks((size_t)rows, TURN_WARPS);

    if (blocks > LEARN_PARTS) blocks = LEARN_PARTS;
    if (l->dim == 32)
        RD_LAUNCH(split_heads_back<32>, blocks, TURN_THREADS, 0, l->stream, a);
    else if (l->dim == 64)
        RD_LAUNCH(split_heads_back<64>, blocks, TURN_THREADS, 0, l->stream, a);
    else
        RD_LAUNCH(split_heads_back<128>, blocks, TURN_THREADS, 0, l->stream, a);
    learn_launched(l, "queries and keys backward");
    learn_sum_parts(l, l->grad + at->q_norm, l->parts, blocks, l->dim, 2 * l->dim);
    learn_sum_parts(l, l->grad + at->k_norm, l->parts + l->dim, blocks, l->dim, 2 * l->dim);
}
