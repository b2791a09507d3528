/* learn_attend_back.cu - attention backward: probabilities are computed again from the log-sums, in two kernels.
 *
 * With P the probabilities and D the row sums of dO * O, dS = P (dO V^T - D) scale; dQ = dS K by tiles of rows, as forward;
 * dK = dS^T Q and dV = P^T dO by tiles of keys, each over the tiles of rows that see it and over the heads that share
 * it. So nothing is added by two blocks, and the order of all sums is fixed.
 *
 * Source: Dao 2022, FlashAttention, section 3; the split into two kernels is ours.
 */
#include "plugins/cuda/learn_attend.cuh"

/* delta[h][row] = sum over a head's row of do o. Eight columns a thread. */
template <int DIM>
static __global__ void __launch_bounds__(256)
    row_deltas(float *delta, const bf16 *do_, const bf16 *o, int rows, int heads)
{
    enum { LANES = DIM / 8 };
    size_t at = (size_t)blockIdx.x * 256 + threadIdx.x, all = (size_t)rows * (size_t)heads * LANES;
    float sum = 0.0f;

    if (at < all) {
        float x[8], y[8];

        bf16_load8(x, do_ + at * 8);
        bf16_load8(y, o + at * 8);
        for (int i = 0; i < 8; i++) sum += x[i] * y[i];
    }
    for (int by = LANES / 2; by > 0; by /= 2) sum += __shfl_xor_sync(GPU_ALL, sum, by);
    if (at < all && threadIdx.x % LANES == 0) {
        size_t row = at / LANES / (size_t)heads, h = at / LANES % (size_t)heads;

        delta[h * (size_t)rows + row] = sum;
    }
}

template <int DIM>
static __global__ void __launch_bounds__(ATTEND_THREADS) attend_rows_back(learn_attend_args a)
{
    enum { TILE = LEARN_TILE * DIM, HELD = DIM <= 64, HALVES = HELD ? 2 : 1 };
    RD_DYNAMIC_SHARED(bf16, room);
    bf16 *q = room, *dout = room + TILE;
    int lane = (int)threadIdx.x % GPU_WARP, warp = (int)threadIdx.x / GPU_WARP, t = lane % 4;
    int first = (int)blockIdx.x * LEARN_TILE, h = (int)blockIdx.y;
    int row = first + warp * 16 + lane / 4;
    int qk = (a.heads + a.kv) * DIM, qkv = (a.heads + 2 * a.kv) * DIM;
    learn_attend_walk walk = walk_of<DIM>(a, room + 2 * TILE, room + 4 * TILE);
    learn_attend_sight sight[2] = { sight_of(&a, row), sight_of(&a, row + 8) };
    uint32_t q_held[HELD ? DIM / 16 : 1][4], do_held[HELD ? DIM / 16 : 1][4];
    float dq[DIM / 8][4], lse[2], delta[2], by = a.scale * ATTEND_LOG2E;

#pragma unroll
    for (int r = 0; r < 2; r++) {
        size_t at = (size_t)h * (size_t)a.rows + (size_t)(row + 8 * r);
        bool there = row + 8 * r < a.rows;

        lse[r] = there ? a.lse[at] : INFINITY;
        delta[r] = there ? a.delta[at] : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < DIM / 8; i++) dq[i][0] = dq[i][1] = dq[i][2] = dq[i][3] = 0.0f;
    load_rows<DIM>(q, a.qk + h * DIM, qk, first, a.rows);
    load_rows<DIM>(dout, a.do_ + h * DIM, a.heads * DIM, first, a.rows);
    walk_send<DIM>(walk, walk.begin);
    for (int i = walk.begin; i < walk.end; i++) {
        int entry = a.list[i];
        const bf16 *k, *v;

        walk_to<DIM>(walk, i, &k, &v);
        if (HELD && i == walk.begin) {
#pragma unroll
            for (int s = 0; s < (HELD ? DIM / 16 : 1); s++) {
                tile_a<DIM / 8>(q_held[s], q, warp * 16, 2 * s);
                tile_a<DIM / 8>(do_held[s], dout, warp * 16, 2 * s);
            }
        }
#pragma unroll HALVES
        for (int half = 0; half < 2; half++) {
            float s[4][4] = {}, d[4][4] = {};
            int key = (entry & ~LEARN_PARTLY) * LEARN_TILE + half * 32 + 2 * t;

            dot_rows<DIM, HELD>(s, q_held, q, warp * 16, k, half * 32);
            dot_rows<DIM, HELD>(d, do_held, dout, warp * 16, v, half * 32);
#pragma unroll
            for (int n = 0; n < 4; n++) {
#pragma unroll
                for (int c = 0; c < 4; c++) {
                    float p = gpu_exp2(s[n][c] * by - lse[c / 2]);

                    if ((entry & LEARN_PARTLY) && !sight_has(sight[c / 2], key + 8 * n + c % 2))
                        p = 0.0f;
                    d[n][c] = p * (d[n][c] - delta[c / 2]) * a.scale;
                }
            }
            add_rows<DIM>(dq, d, k, half * 32);
        }
        __syncthreads();
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int at = row + 8 * r;

        if (at >= a.rows) continue;
#pragma unroll
        for (int d = 0; d < DIM / 8; d++)
            *(uint32_t *)(a.dqkv + (size_t)at * (size_t)qkv + h * DIM + 8 * d + 2 * t) =
                gpu_bf16x2(dq[d][2 * r], dq[d][2 * r + 1]);
    }
}

typedef struct learn_attend_query { /* in shared memory */
    float lse[LEARN_TILE], delta[LEARN_TILE];
    learn_attend_sight sight[LEARN_TILE];
} learn_attend_query;

template <int DIM>
static __device__ inline void load_queries(learn_attend_query *x, bf16 *q, bf16 *dout,
                                           const learn_attend_args *a, int h, int first)
{
    load_rows<DIM>(q, a->qk + h * DIM, (a->heads + a->kv) * DIM, first, a->rows);
    load_rows<DIM>(dout, a->do_ + h * DIM, a->heads * DIM, first, a->rows);
    if (threadIdx.x < LEARN_TILE) {
        int r = (int)threadIdx.x;
        size_t at = (size_t)h * (size_t)a->rows + (size_t)(first + r);
        bool there = first + r < a->rows;

        x->lse[r] = there ? a->lse[at] : INFINITY;
        x->delta[r] = there ? a->delta[at] : 0.0f;
        x->sight[r] = sight_of(a, first + r);
    }
}

template <int DIM>
static __global__ void __launch_bounds__(ATTEND_THREADS) attend_keys_back(learn_attend_args a)
{
    enum { TILE = LEARN_TILE * DIM, HELD = DIM <= 64, HALVES = HELD ? 2 : 1 };
    RD_DYNAMIC_SHARED(bf16, room);
    __shared__ learn_attend_query query[2];
    bf16 *k = room, *v = room + TILE, *q = room + 2 * TILE, *dout = room + 4 * TILE;
    int lane = (int)threadIdx.x % GPU_WARP, warp = (int)threadIdx.x / GPU_WARP, t = lane % 4;
    int first = (int)blockIdx.x * LEARN_TILE, g = (int)blockIdx.y, share = a.heads / a.kv;
    int key = first + warp * 16 + lane / 4;
    int qk = (a.heads + a.kv) * DIM, qkv = (a.heads + 2 * a.kv) * DIM;
    int begin = a.start[blockIdx.x], count = a.start[blockIdx.x + 1] - begin, all = count * share;
    uint32_t k_held[HELD ? DIM / 16 : 1][4], v_held[HELD ? DIM / 16 : 1][4];
    float dk[DIM / 8][4], dv[DIM / 8][4], by = a.scale * ATTEND_LOG2E;

#pragma unroll
    for (int i = 0; i < DIM / 8; i++) {
#pragma unroll
        for (int c = 0; c < 4; c++) dk[i][c] = dv[i][c] = 0.0f;
    }
    load_rows<DIM>(k, a.qk + (a.heads + g) * DIM, qk, first, a.rows);
    load_rows<DIM>(v, a.qkv + (a.heads + a.kv + g) * DIM, qkv, first, a.rows);
    if (all > 0)
        load_queries<DIM>(&query[0], q, dout, &a, g * share,
                          (a.list[begin] & ~LEARN_PARTLY) * LEARN_TILE);
    gpu_copy_commit();
    for (int i = 0; i < all; i++) {
        int entry = a.list[begin + i % count], buffer = i & 1;
        const bf16 *qb = q + buffer * TILE, *db = dout + buffer * TILE;
        const learn_attend_query *x = &query[buffer];

        if (i + 1 < all)
            load_queries<DIM>(&query[buffer ^ 1], q + (buffer ^ 1) * TILE,
                              dout + (buffer ^ 1) * TILE, &a, g * share + (i + 1) / count,
                              (a.list[begin + (i + 1) % count] & ~LEARN_PARTLY) * LEARN_TILE);
        gpu_copy_commit();
        gpu_copy_wait<1>();
        __syncthreads();
        if (HELD && i == 0) {
#pragma unroll
            for (int s = 0; s < (HELD ? DIM / 16 : 1); s++) {
                tile_a<DIM / 8>(k_held[s], k, warp * 16, 2 * s);
                tile_a<DIM / 8>(v_held[s], v, warp * 16, 2 * s);
            }
        }
#pragma unroll HALVES
        for (int half = 0; half < 2; half++) {
            float s[4][4] = {}, d[4][4] = {}; /* keys by queries */

            dot_rows<DIM, HELD>(s, k_held, k, warp * 16, qb, half * 32);
            dot_rows<DIM, HELD>(d, v_held, v, warp * 16, db, half * 32);
#pragma unroll
            for (int n = 0; n < 4; n++) {
#pragma unroll
                for (int c = 0; c < 4; c++) {
                    int at = half * 32 + 8 * n + 2 * t + c % 2;
                    float p = gpu_exp2(s[n][c] * by - x->lse[at]);

                    if ((entry & LEARN_PARTLY) && !sight_has(x->sight[at], key + 8 * (c / 2)))
                        p = 0.0f;
                    s[n][c] = p;
                    d[n][c] = p * (d[n][c] - x->delta[at]) * a.scale;
                }
            }
            add_rows<DIM>(dv, s, db, half * 32);
            add_rows<DIM>(dk, d, qb, half * 32);
        }
        __syncthreads();
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int at = key + 8 * r;

        if (at >= a.rows) continue;
        bf16 *to = a.dqkv + (size_t)at * (size_t)qkv + (a.heads + g) * DIM + 2 * t;
#pragma unroll
        for (int d = 0; d < DIM / 8; d++) {
            *(uint32_t *)(to + 8 * d) = gpu_bf16x2(dk[d][2 * r], dk[d][2 * r + 1]);
            *(uint32_t *)(to + a.kv * DIM + 8 * d) = gpu_bf16x2(dv[d][2 * r], dv[d][2 * r + 1]);
        }
    }
}

template <int DIM> static size_t shared_bytes(void)
{
    return 6 * (size_t)LEARN_TILE * DIM * sizeof(bf16);
}

template <int DIM> static void allow(rd_learner *l)
{
    learn_check(l, RD_ALLOW_SHARED(attend_rows_back<DIM>, shared_bytes<DIM>()),
                "attention backward");
    learn_check(l, RD_ALLOW_SHARED(attend_keys_back<DIM>, shared_bytes<DIM>()),
                "attention backward");
}

void learn_attend_back_allow(rd_learner *l)
{
    allow<32>(l);
    allow<64>(l);
    allow<128>(l);
}

template <int DIM> static void launch(rd_learner *l, learn_attend_args *a, const learn_pack *p)
{
    size_t deltas = (size_t)p->rows * (size_t)l->heads * (DIM / 8), shared = shared_bytes<DIM>();

    RD_LAUNCH(row_deltas<DIM>, learn_blocks(deltas, 256), 256, 0, l->stream, l->delta, a->do_, a->o,
              p->rows, l->heads);
    a->start = p->see_start;
    a->list = p->see;
    RD_LAUNCH(attend_rows_back<DIM>, dim3((unsigned)p->tiles, (unsigned)l->heads), ATTEND_THREADS,
              shared, l->stream, *a);
    a->start = p->seen_start;
    a->list = p->seen;
    RD_LAUNCH(attend_keys_back<DIM>, dim3((unsigned)p->tiles, (unsigned)l->kv), ATTEND_THREADS,
              shared, l->stream, *a);
    learn_launched(l, "attention backward");
}

void learn_attend_back(rd_learner *l, const learn_layer *y, const learn_pack *p, const bf16 *do_)
{
    learn_attend_args a = {};

    a.qk = y->qk;
    a.qkv = y->qkv;
    a.o = y->o;
    a.lse = y->lse;
    a.delta = l->delta;
    a.do_ = do_;
    a.dqkv = l->dqkv;
    a.row = p->row;
    a.rows = p->rows;
    a.heads = l->heads;
    a.kv = l->kv;
    a.scale = 1.0f / sqrtf((float)l->dim);
    if (l->dim == 32)
        launch<32>(l, &a, p);
    else if (l->dim == 64)
        launch<64>(l, &a, p);
    else
        launch<128>(l, &a, p);
}
