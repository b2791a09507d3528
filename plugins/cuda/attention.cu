/* attention.cu - attention of a pass's rows over the blocks behind them and over each other.
 *
 * Three kernels. `prepare` norms and turns queries and keys, and writes keys and values where a block would have them, into
 * scratch and into the blocks that are kept. `attend_half` goes over pieces of CUDA_KEYS keys by tensor cores: a warp has 16
 * rows of one query head, a block of threads several such that share a head of keys, which come through shared memory three
 * pieces deep; the largest score so far scales what is summed (Milakov and Gimelshein, arXiv 1805.02867). Where few rows stand
 * behind many blocks, several blocks of threads share the keys, and `combine` adds their results in order. `attend_plain` is
 * the same in float32 for every shape: one warp, one row of one head.
 *
 * Keys are counted as past blocks, then the rows that sight.h lets be seen; launches follow from the rows and from a power of
 * two above the number of blocks, all else is read from the parameters.
 */
#include "plugins/cuda/kv.h"

#include <math.h>
#include <string.h>

enum {
    STAGES = 3,
    PLAIN_WARPS = 4,
    COMBINE_WARPS = 4,
    PREPARE_WARPS = 32,
    HEAD_DIM_MOST = 1024
};

/* What changes from pass to pass and is no list. */
typedef struct attend_numbers {
    cuda_sight sight;
    int past_blocks;
} attend_numbers;

typedef struct attend_args {
    float *out;                       /* [rows, heads * head_dim] */
    const float *qkv;                 /* [rows, (heads + 2 kv_heads) * head_dim] */
    const float *q_norm, *k_norm;     /* [head_dim] */
    const attend_numbers *numbers;    /* this and the lists: parameters */
    const int32_t *positions;         /* [rows] */
    const int32_t *keep;              /* [own_blocks]; -1: not kept */
    const int32_t *counts;            /* [own_blocks] of branches */
    const int32_t *past;              /* [bucket] */
    const float *turns;               /* [rotary_dim / 2] */
    void *layer;                      /* the layer's cells */
    size_t cell;                      /* numbers of one */
    int rows, own_blocks, heads, kv_heads, head_dim, rotary_dim, block_size;
    float eps, scale;                 /* scale: of queries */
    int half;
    cuda_shares shares;
} attend_args;

/* Where scratch is. */
typedef struct attend_places {
    void *q;      /* [rows][heads][head_dim], as cells' numbers */
    void *own;    /* [own_blocks][kv_heads] cells */
    float *sums;  /* [splits][rows][heads][head_dim] */
    float2 *tops; /* [splits][rows][heads]: largest score, sum of powers */
} attend_places;

/* ---- queries, keys and values of the pass ---- */

static __device__ inline void put(uint16_t *to, float x)
{
    *to = gpu_bf16(x);
}

static __device__ inline void put(float *to, float x)
{
    *to = x;
}

/* One block of threads a row, a warp a head; rows of the last block that the pass does not have become zeros, for a weight of
 * zero does not hide a NaN. Dynamic shared: float [rotary_dim], cosines, then sines. */
template <typename number> static __global__ void prepare(const attend_args a, const attend_places p)
{
    RD_DYNAMIC_SHARED(float, angle);
    int row = (int)blockIdx.x, block = row / a.block_size, token = row % a.block_size;
    int lane = (int)threadIdx.x % GPU_WARP, dim = a.head_dim, half = a.rotary_dim / 2;
    int heads = a.heads + 2 * a.kv_heads, keep = a.keep[block];
    const float *in = a.qkv + (size_t)row * (size_t)heads * (size_t)dim;

    for (int i = (int)threadIdx.x; row < a.rows && i < half; i += (int)blockDim.x)
        cuda_turn((float)a.positions[row] * a.turns[i], &angle[i], &angle[half + i]);
    __syncthreads();
    for (int head = (int)threadIdx.x / GPU_WARP; head < heads; head += (int)blockDim.x / GPU_WARP) {
        const float *x = in + (size_t)head * (size_t)dim;
        bool is_q = head < a.heads, is_v = head >= a.heads + a.kv_heads;
        const float *w = is_q ? a.q_norm : a.k_norm;
        float by = 1.0f;

        if (is_q && row >= a.rows) continue;
        if (!is_v && row < a.rows) {
            float sum = 0.0f;

            for (int d = lane; d < dim; d += GPU_WARP) sum += x[d] * x[d];
            by = 1.0f / sqrtf(gpu_warp_sum(sum) / (float)dim + a.eps);
        }
        for (int d = lane; d < dim; d += GPU_WARP) {
            float y = 0.0f;

            if (row < a.rows) {
                y = x[d];
                if (!is_v) y = y * by * w[d];
                if (!is_v && d < 2 * half) {
                    int i = d < half ? d : d - half, other = d < half ? d + half : d - half;
                    float z = x[other] * by * w[other];

                    y = y * angle[i] + (d < half ? -z : z) * angle[half + i];
                }
            }
            if (is_q) {
                put((number *)p.q + ((size_t)row * (size_t)a.heads + (size_t)head) * (size_t)dim + d, y * a.scale);
                continue;
            }
            int kv_head = head - a.heads - (is_v ? a.kv_heads : 0), at = token * dim + d;

            if (sizeof(number) == sizeof(uint16_t))
                at = is_v ? cuda_value_place(a.block_size, dim, token, d)
                          : cuda_key_place(a.block_size, dim, token, d);
            else if (is_v)
                at += a.block_size * dim;
            put((number *)p.own + ((size_t)block * (size_t)a.kv_heads + (size_t)kv_head) * a.cell + at, y);
            if (keep >= 0)
                put((number *)a.layer + ((size_t)keep * (size_t)a.kv_heads + (size_t)kv_head) * a.cell + at, y);
        }
    }
}

/* ---- tensor cores ---- */

/* Pieces of keys that a block of threads goes over: the past's, then rows [0, head), then rows [from, to). */
typedef struct attend_steps {
    int past, head, from, all;
} attend_steps;

template <int KEYS> static __device__ inline attend_steps steps_of(const attend_args &a, const cuda_seen &all)
{
    attend_steps s;

    s.past = a.numbers->past_blocks * (a.block_size / KEYS);
    s.head = (all.head + KEYS - 1) / KEYS;
    s.from = all.from / KEYS;
    s.all = s.past + s.head + (all.to > all.from ? (all.to + KEYS - 1) / KEYS - s.from : 0);
    return s;
}

/* The piece of the pass's own rows that step `step` is; below 0: it is one of the past. */
static __device__ inline int own_piece(const attend_steps &s, int step)
{
    int own = step - s.past;

    return own < s.head ? own : own - s.head + s.from;
}

/* Of the past's steps: the block's number; asked for a step ahead of its copy. */
template <int KEYS>
static __device__ inline int number_of(const attend_args &a, const attend_steps &s, int step)
{
    return step < s.past ? __ldg(a.past + step / (a.block_size / KEYS)) : 0;
}

template <int DIM, int KEYS>
static __device__ inline void copy_step(uint16_t *to, const attend_args &a, const attend_places &p,
                                        const attend_steps &s, int step, int number)
{
    int pieces = a.block_size / KEYS, own = own_piece(s, step);
    bool past = step < s.past;
    const uint16_t *from = (const uint16_t *)(past ? a.layer : p.own);
    int block = past ? number : own / pieces, piece = past ? step % pieces : own % pieces;

    from += ((size_t)block * (size_t)a.kv_heads + blockIdx.y) * a.cell + (size_t)piece * (2 * KEYS * DIM);
    for (int i = (int)threadIdx.x * 8; i < 2 * KEYS * DIM; i += (int)blockDim.x * 8)
        gpu_copy_async(to + i, from + i, 16);
}

/* Grid: blocks of tiles (the last first: they see most), heads of keys, splits. Dynamic shared: STAGES pieces. */
template <int DIM, int KEYS>
static __global__ void __launch_bounds__(CUDA_ATTEND_WARPS *GPU_WARP)
    attend_half(const attend_args a, const attend_places p)
{
    enum { CHUNKS = DIM / 32, GROUPS = KEYS / 8, OUTS = DIM / 8, PIECE = 2 * KEYS * DIM };
    RD_DYNAMIC_SHARED(uint16_t, room);
    int lane = (int)threadIdx.x % GPU_WARP, warp = (int)threadIdx.x / GPU_WARP;
    int g = lane / 4, t = lane % 4, together = a.heads / a.kv_heads;
    int first = (int)(gridDim.x - 1 - blockIdx.x) * a.shares.warps, tile = first + warp;
    int last = first + a.shares.warps < a.shares.tiles ? first + a.shares.warps - 1 : a.shares.tiles - 1;
    bool mine = tile < a.shares.tiles;

    if (!mine) tile = a.shares.tiles - 1;
    int low = tile / together * CUDA_TILE, high = low + CUDA_TILE - 1;
    int block_high = last / together * CUDA_TILE + CUDA_TILE - 1;
    int head = (int)blockIdx.y * together + tile % together;

    if (high >= a.rows) high = a.rows - 1;
    if (block_high >= a.rows) block_high = a.rows - 1;
    cuda_sight sight = a.numbers->sight;
    attend_steps steps =
        steps_of<KEYS>(a, cuda_reach_of(&sight, a.counts, first / together * CUDA_TILE, block_high));
    int each = (steps.all + a.shares.splits - 1) / a.shares.splits;
    int step = (int)blockIdx.z * each, end = step + each < steps.all ? step + each : steps.all;

    /* What this lane's two rows see, the least of the warp's rows and all of them together. */
    int row[2] = { low + g, low + g + 8 };
    cuda_seen seen[2], reach = cuda_reach_of(&sight, a.counts, low, high);
    int all_see = cuda_seen_of(&sight, a.counts, low).head;

    uint32_t q[CHUNKS][2][4];
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const uint16_t *from =
            (const uint16_t *)p.q + ((size_t)row[h] * (size_t)a.heads + (size_t)head) * DIM + t * 8;

        seen[h] = cuda_seen_of(&sight, a.counts, row[h] < a.rows ? row[h] : a.rows - 1);
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
            uint4 x = { 0, 0, 0, 0 };

            if (row[h] < a.rows) x = *(const uint4 *)(const void *)(from + c * 32);
            q[c][0][h] = x.x;
            q[c][0][2 + h] = x.y;
            q[c][1][h] = x.z;
            q[c][1][2 + h] = x.w;
        }
    }

    float o[OUTS][4], top[2] = { -INFINITY, -INFINITY }, sum[2] = { 0.0f, 0.0f };
#pragma unroll
    for (int i = 0; i < OUTS; i++) o[i][0] = o[i][1] = o[i][2] = o[i][3] = 0.0f;

    for (int i = 0; i < STAGES - 1; i++) {
        if (step + i < end)
            copy_step<DIM, KEYS>(room + i * PIECE, a, p, steps, step + i, number_of<KEYS>(a, steps, step + i));
        gpu_copy_commit();
    }
    int ahead = number_of<KEYS>(a, steps, step + STAGES - 1), stage = 0;

    for (; step < end; step++) {
        const uint16_t *keys = room + stage * PIECE + lane * 8;
        const uint16_t *values = room + stage * PIECE + KEYS * DIM + lane * (KEYS / 4);
        int next = step + STAGES - 1, into = stage == 0 ? STAGES - 1 : stage - 1;
        int base = own_piece(steps, step) * KEYS;
        bool own = step >= steps.past;

        gpu_copy_wait<STAGES - 2>();
        __syncthreads(); /* the piece is here, and nobody looks at the one before any more */
        if (next < end) copy_step<DIM, KEYS>(room + into * PIECE, a, p, steps, next, ahead);
        gpu_copy_commit();
        ahead = number_of<KEYS>(a, steps, next + 1);
        stage = stage == STAGES - 1 ? 0 : stage + 1;
        if (!mine || (own && base >= reach.head && (base >= reach.to || base + KEYS <= reach.from))) continue;

        float s[GROUPS][4];
#pragma unroll
        for (int j = 0; j < GROUPS; j++) s[j][0] = s[j][1] = s[j][2] = s[j][3] = 0.0f;
#pragma unroll
        for (int c = 0; c < CHUNKS; c++)
#pragma unroll
            for (int j = 0; j < GROUPS; j++) {
                uint4 k = *(const uint4 *)(const void *)(keys + (j * CHUNKS + c) * 256);
                uint32_t b0[2] = { k.x, k.y }, b1[2] = { k.z, k.w };

                gpu_mma_bf16(s[j], q[c][0], b0);
                gpu_mma_bf16(s[j], q[c][1], b1);
            }
        if (own && base + KEYS > all_see) {
#pragma unroll
            for (int j = 0; j < GROUPS; j++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    if (!cuda_sees(&seen[i / 2], base + 8 * j + 2 * t + i % 2)) s[j][i] = -INFINITY;
        }

        float by[2];
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float most = top[h], more = 0.0f;

#pragma unroll
            for (int j = 0; j < GROUPS; j++) most = fmaxf(most, fmaxf(s[j][2 * h], s[j][2 * h + 1]));
            most = fmaxf(most, __shfl_xor_sync(GPU_ALL, most, 1));
            most = fmaxf(most, __shfl_xor_sync(GPU_ALL, most, 2));
            float from = most == -INFINITY ? 0.0f : most; /* a row that saw nothing yet */

            by[h] = gpu_exp2(top[h] - from);
            top[h] = most;
#pragma unroll
            for (int j = 0; j < GROUPS; j++) {
                s[j][2 * h] = gpu_exp2(s[j][2 * h] - from);
                s[j][2 * h + 1] = gpu_exp2(s[j][2 * h + 1] - from);
                more += s[j][2 * h] + s[j][2 * h + 1];
            }
            sum[h] = sum[h] * by[h] + more;
        }
        uint32_t w[KEYS / 16][4];
#pragma unroll
        for (int k = 0; k < KEYS / 16; k++) {
            w[k][0] = gpu_bf16x2(s[2 * k][0], s[2 * k][1]);
            w[k][1] = gpu_bf16x2(s[2 * k][2], s[2 * k][3]);
            w[k][2] = gpu_bf16x2(s[2 * k + 1][0], s[2 * k + 1][1]);
            w[k][3] = gpu_bf16x2(s[2 * k + 1][2], s[2 * k + 1][3]);
        }
#pragma unroll
        for (int i = 0; i < OUTS; i++) {
            const uint16_t *from = values + i * (8 * KEYS);

            o[i][0] *= by[0];
            o[i][1] *= by[0];
            o[i][2] *= by[1];
            o[i][3] *= by[1];
            if (KEYS == 32) {
                uint4 v = *(const uint4 *)(const void *)from;
                uint32_t b0[2] = { v.x, v.y }, b1[2] = { v.z, v.w };

                gpu_mma_bf16(o[i], w[0], b0);
                gpu_mma_bf16(o[i], w[KEYS / 16 - 1], b1);
            } else {
                uint2 v = *(const uint2 *)(const void *)from;
                uint32_t b0[2] = { v.x, v.y };

                gpu_mma_bf16(o[i], w[0], b0);
            }
        }
    }

#pragma unroll
    for (int h = 0; h < 2; h++) {
        sum[h] += __shfl_xor_sync(GPU_ALL, sum[h], 1);
        sum[h] += __shfl_xor_sync(GPU_ALL, sum[h], 2);
        if (!mine || row[h] >= a.rows) continue;
        size_t at = ((size_t)row[h] * (size_t)a.heads + (size_t)head);
        bool whole = a.shares.splits == 1;
        float scale = !whole ? 1.0f : sum[h] == 0.0f ? 0.0f : 1.0f / sum[h];
        float *to = a.out + at * DIM;

        if (!whole) {
            at += (size_t)blockIdx.z * (size_t)a.rows * (size_t)a.heads;
            to = p.sums + at * DIM;
            if (t == 0) p.tops[at] = float2{ top[h], sum[h] };
            if (top[h] == -INFINITY) continue; /* combine does not look at what it sums */
        }
#pragma unroll
        for (int i = 0; i < OUTS; i++)
            *(float2 *)(void *)(to + i * 8 + t * 2) =
                float2{ o[i][2 * h] * scale, o[i][2 * h + 1] * scale };
    }
}

/* A warp a row of a head: what the splits have, in their order. */
template <int DIM> static __global__ void combine(const attend_args a, const attend_places p)
{
    int lane = (int)threadIdx.x % GPU_WARP, splits = a.shares.splits;
    size_t all = (size_t)a.rows * (size_t)a.heads;
    size_t at = (size_t)blockIdx.x * COMBINE_WARPS + threadIdx.x / GPU_WARP;
    float o[DIM / 32], most = -INFINITY, w[2];
    float2 mine[2];

    if (at >= all) return; /* the warp; there is no barrier */
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int i = lane + h * GPU_WARP;

        mine[h] = i < splits ? p.tops[(size_t)i * all + at] : float2{ -INFINITY, 0.0f };
        most = fmaxf(most, mine[h].x);
    }
    most = gpu_warp_max(most);
#pragma unroll
    for (int h = 0; h < 2; h++) w[h] = mine[h].x == -INFINITY ? 0.0f : gpu_exp2(mine[h].x - most);
    float sum = gpu_warp_sum(w[0] * mine[0].y + w[1] * mine[1].y);
    float scale = sum == 0.0f ? 0.0f : 1.0f / sum;

#pragma unroll
    for (int j = 0; j < DIM / 32; j++) o[j] = 0.0f;
#pragma unroll 4
    for (int i = 0; i < splits; i++) {
        float by = __shfl_sync(GPU_ALL, i < GPU_WARP ? w[0] : w[1], i % GPU_WARP);
        const float *from = p.sums + ((size_t)i * all + at) * DIM + lane;

#pragma unroll
        for (int j = 0; j < DIM / 32; j++) o[j] += by == 0.0f ? 0.0f : by * from[j * GPU_WARP];
    }
#pragma unroll
    for (int j = 0; j < DIM / 32; j++) a.out[at * DIM + (size_t)(j * GPU_WARP + lane)] = o[j] * scale;
}

/* ---- float32, every shape ---- */

/* Row `token` of the keys (or values) that are the key'th that a row sees. */
static __device__ inline const float *plain_row(const attend_args &a, const attend_places &p, const cuda_seen &seen,
                                                int kv_head, int key, int past, bool values)
{
    const float *from = (const float *)a.layer;
    int block, token;

    if (key < past) {
        block = __ldg(a.past + key / a.block_size);
        token = key % a.block_size;
    } else {
        int row = key - past < seen.head ? key - past : key - past - seen.head + seen.from;

        from = (const float *)p.own;
        block = row / a.block_size;
        token = row % a.block_size;
    }
    from += ((size_t)block * (size_t)a.kv_heads + (size_t)kv_head) * a.cell + (size_t)token * (size_t)a.head_dim;
    return values ? from + (size_t)a.block_size * (size_t)a.head_dim : from;
}

/* A warp a row, blockIdx.y the head; 32 keys at a time, one a lane for its score. Dynamic shared: [warps][2][head_dim]. */
static __global__ void attend_plain(const attend_args a, const attend_places p)
{
    RD_DYNAMIC_SHARED(float, room);
    int lane = (int)threadIdx.x % GPU_WARP, warp = (int)threadIdx.x / GPU_WARP, dim = a.head_dim;
    int row = (int)blockIdx.x * PLAIN_WARPS + warp, head = (int)blockIdx.y;
    int kv_head = head / (a.heads / a.kv_heads), past = a.numbers->past_blocks * a.block_size;
    float *q = room + warp * 2 * dim, *o = q + dim, top = -INFINITY, sum = 0.0f;

    if (row >= a.rows) return; /* the warp; there is no barrier */
    cuda_sight sight = a.numbers->sight;
    cuda_seen seen = cuda_seen_of(&sight, a.counts, row);
    int n = past + seen.head + (seen.to > seen.from ? seen.to - seen.from : 0);
    size_t at = ((size_t)row * (size_t)a.heads + (size_t)head) * (size_t)dim;

    for (int d = lane; d < dim; d += GPU_WARP) {
        q[d] = ((const float *)p.q)[at + (size_t)d];
        o[d] = 0.0f;
    }
    __syncwarp();
    for (int first = 0; first < n; first += GPU_WARP) {
        float score = -INFINITY;

        if (first + lane < n) {
            const float *k = plain_row(a, p, seen, kv_head, first + lane, past, false);

            score = 0.0f;
            for (int d = 0; d < dim; d++) score += q[d] * k[d];
        }
        float most = fmaxf(top, gpu_warp_max(score));
        float from = most == -INFINITY ? 0.0f : most, by = expf(top - from);
        float w = first + lane < n ? expf(score - from) : 0.0f;

        sum = sum * by + gpu_warp_sum(w);
        top = most;
        for (int d = lane; d < dim; d += GPU_WARP) o[d] *= by;
        for (int j = 0; j < GPU_WARP && first + j < n; j++) {
            const float *v = plain_row(a, p, seen, kv_head, first + j, past, true);
            float wj = __shfl_sync(GPU_ALL, w, j);

            for (int d = lane; d < dim; d += GPU_WARP) o[d] += wj * v[d];
        }
    }
    for (int d = lane; d < dim; d += GPU_WARP)
        a.out[at + (size_t)d] = sum == 0.0f ? 0.0f : o[d] / sum;
}

/* ---- the command ---- */

template <int DIM, int KEYS>
static void launch_half(rd_device *d, const attend_args *a, const attend_places *p)
{
    const cuda_shares *s = &a->shares;
    dim3 grid((unsigned)s->blocks, (unsigned)a->kv_heads, (unsigned)s->splits);
    size_t room = (size_t)STAGES * 2 * KEYS * DIM * sizeof(uint16_t);

    static_assert(STAGES * 2 * KEYS * DIM * sizeof(uint16_t) <= 48 << 10, "no leave is asked for more");
    RD_LAUNCH((attend_half<DIM, KEYS>), grid, s->warps * GPU_WARP, room, d->stream, *a, *p);
    if (s->splits == 1) return;
    int blocks = (a->rows * a->heads + COMBINE_WARPS - 1) / COMBINE_WARPS;

    RD_LAUNCH((combine<DIM>), blocks, COMBINE_WARPS * GPU_WARP, 0, d->stream, *a, *p);
}

static size_t rounded(size_t bytes)
{
    return (bytes + 255) / 256 * 256;
}

static size_t number_bytes(const attend_args *a)
{
    return a->half ? sizeof(uint16_t) : sizeof(float);
}

static size_t query_bytes(const attend_args *a)
{
    return rounded((size_t)a->rows * (size_t)a->heads * (size_t)a->head_dim * number_bytes(a));
}

static size_t sum_bytes(const attend_args *a)
{
    return rounded((size_t)a->shares.splits * (size_t)a->rows * (size_t)a->heads * (size_t)a->head_dim * sizeof(float));
}

static rd_status run(rd_device *d, const void *args, rd_error *err)
{
    const attend_args *a = (const attend_args *)args;
    attend_places p;
    int heads = a->heads + 2 * a->kv_heads, keys = cuda_piece_keys(a->block_size);
    int threads = (heads < PREPARE_WARPS ? heads : PREPARE_WARPS) * GPU_WARP;
    size_t angles = (size_t)a->rotary_dim * sizeof(float);

    p.q = cuda_scratch(d, CUDA_SLOT_OWN);
    p.own = (char *)p.q + query_bytes(a);
    p.sums = (float *)cuda_scratch(d, CUDA_SLOT_ATTEND);
    p.tops = a->shares.splits > 1 ? (float2 *)((char *)p.sums + sum_bytes(a)) : NULL;
    cuda_forget_half(d, a->out);
    if (a->half)
        RD_LAUNCH((prepare<uint16_t>), a->own_blocks * a->block_size, threads, angles, d->stream, *a, p);
    else
        RD_LAUNCH((prepare<float>), a->own_blocks * a->block_size, threads, angles, d->stream, *a, p);
    if (!a->half) {
        dim3 grid((unsigned)(a->rows + PLAIN_WARPS - 1) / PLAIN_WARPS, (unsigned)a->heads);

        RD_LAUNCH(attend_plain, grid, PLAIN_WARPS * GPU_WARP,
                  (size_t)(PLAIN_WARPS * 2 * a->head_dim) * sizeof(float), d->stream, *a, p);
    } else if (keys == 32 && a->head_dim == 128) {
        launch_half<128, 32>(d, a, &p);
    } else if (keys == 32 && a->head_dim == 64) {
        launch_half<64, 32>(d, a, &p);
    } else if (keys == 32) {
        launch_half<32, 32>(d, a, &p);
    } else if (a->head_dim == 128) {
        launch_half<128, 16>(d, a, &p);
    } else if (a->head_dim == 64) {
        launch_half<64, 16>(d, a, &p);
    } else {
        launch_half<32, 16>(d, a, &p);
    }
    return cuda_status(cudaPeekAtLastError(), "attention", err);
}

/* ---- the verb ---- */

static bool numbers_in(const int32_t *list, int n, int low, int end)
{
    for (int i = 0; i < n; i++)
        if (list[i] < low || list[i] >= end) return false;
    return true;
}

static int branches_of(const rd_attention *a, int trunk)
{
    return a->branches.counts ? (a->rows - trunk + a->branches.size - 1) / a->branches.size : 0;
}

static rd_status check(rd_view out, rd_view qkv, const rd_attention *a, rd_error *err)
{
    const rd_kv *kv = a->kv;
    const rd_kv_shape *s = &kv->shape;
    const rd_branches *b = &a->branches;
    int dim = a->head_dim;

    if (a->rows < 1 || a->heads < 1 || a->kv_heads < 1 || a->heads % a->kv_heads || a->heads > 65535 || dim < 1 ||
        dim > HEAD_DIM_MOST || a->sight < 1 || a->visible < 0 || a->past_blocks < 0)
        return rd_fail(err, RD_INVALID, "attention of %d rows, %d and %d heads of %d, sight %d", a->rows,
                       a->heads, a->kv_heads, dim, a->sight);
    if (a->rotary_dim < 0 || a->rotary_dim > dim || a->rotary_dim % 2)
        return rd_fail(err, RD_INVALID, "rotary_dim %d of %d", a->rotary_dim, dim);
    if (s->kv_heads != a->kv_heads || s->head_dim != dim || a->layer < 0 || a->layer >= s->layers)
        return rd_fail(err, RD_INVALID, "layer %d, %d heads of %d; keys and values have %d, %d of %d",
                       a->layer, a->kv_heads, dim, s->layers, s->kv_heads, s->head_dim);
    if (qkv.rows < a->rows || out.rows < a->rows || qkv.cols != (a->heads + 2 * a->kv_heads) * dim ||
        out.cols != a->heads * dim)
        return rd_fail(err, RD_INVALID, "attention of %d rows from %d x %d to %d x %d", a->rows, qkv.rows,
                       qkv.cols, out.rows, out.cols);
    if (a->q_norm->form != CUDA_F32 || a->k_norm->form != CUDA_F32 || a->q_norm->cols != dim ||
        a->k_norm->cols != dim)
        return rd_fail(err, RD_INVALID, "norms of %d and %d numbers for heads of %d", a->q_norm->cols,
                       a->k_norm->cols, dim);
    if (!numbers_in(a->past, a->past_blocks, 0, s->blocks) ||
        (a->keep && !numbers_in(a->keep, (a->rows + s->block_size - 1) / s->block_size, -1, s->blocks)))
        return rd_fail(err, RD_INVALID, "attention over a block that is none of %d", s->blocks);
    if (b->counts && (b->size != s->block_size || b->first < 0 || b->first > a->rows || b->first % s->block_size ||
                      !numbers_in(b->counts, branches_of(a, b->first), 0, b->size + 1)))
        return rd_fail(err, RD_INVALID, "branches of %d from row %d of %d", b->size, b->first, a->rows);
    return RD_OK;
}

/* The lists and numbers of a pass, into the parameters, and where kernels find them. */
static rd_status fill_params(rd_device *d, const rd_attention *a, attend_args *g, rd_error *err)
{
    int rows = a->rows, blocks = g->own_blocks, half = a->rotary_dim / 2, bucket = cuda_bucket(a->past_blocks);
    size_t lists = (sizeof(attend_numbers) + 15) / 16 * 16;
    size_t n = (size_t)rows + 2 * (size_t)blocks + (size_t)bucket + (size_t)half;
    int trunk = a->branches.counts ? a->branches.first : rows;
    double turn = 1.0, by = half ? pow(a->theta, -1.0 / half) : 1.0;
    const void *device;
    void *host;

    if (cuda_param(d, lists + n * sizeof(int32_t), &host, &device, err)) return err->status;
    attend_numbers *numbers = (attend_numbers *)host;
    const int32_t *at = (const int32_t *)(const void *)((const char *)device + lists);
    int32_t *to = (int32_t *)(void *)((char *)host + lists);

    memset(numbers, 0, sizeof *numbers);
    numbers->sight.rows = rows;
    numbers->sight.sight = a->sight;
    numbers->sight.visible = a->visible > 0 && a->visible < rows ? a->visible : rows;
    numbers->sight.trunk = trunk;
    numbers->sight.group = a->branches.counts ? a->branches.size : 1;
    numbers->past_blocks = a->past_blocks;
    g->numbers = (const attend_numbers *)device;
    g->positions = at;
    g->keep = g->positions + rows;
    g->counts = g->keep + blocks;
    g->past = g->counts + blocks;
    g->turns = (const float *)(const void *)(g->past + bucket);
    memcpy(to, a->positions, (size_t)rows * sizeof *to);
    to += rows;
    for (int i = 0; i < blocks; i++) to[i] = a->keep ? a->keep[i] : -1;
    to += blocks;
    memset(to, 0, (size_t)blocks * sizeof *to);
    if (a->branches.counts)
        memcpy(to, a->branches.counts, (size_t)branches_of(a, trunk) * sizeof *to);
    to += blocks;
    if (a->past_blocks) memcpy(to, a->past, (size_t)a->past_blocks * sizeof *to);
    to += bucket;
    for (int i = 0; i < half; i++, turn *= by) ((float *)(void *)to)[i] = (float)turn;
    return RD_OK;
}

rd_status cuda_attention(rd_device *d, rd_view out, rd_view qkv, const rd_attention *a, rd_error *err)
{
    const rd_kv *kv = a->kv;
    const rd_kv_shape *s = &kv->shape;
    attend_args g;
    rd_error local;

    if (!err) err = &local;
    if (check(out, qkv, a, err)) return err->status;
    memset(&g, 0, sizeof g);
    g.out = out.data;
    g.qkv = qkv.data;
    g.q_norm = (const float *)a->q_norm->data;
    g.k_norm = (const float *)a->k_norm->data;
    g.layer = cuda_kv_layer(kv, a->layer);
    g.cell = kv->cell;
    g.rows = a->rows;
    g.own_blocks = (a->rows + s->block_size - 1) / s->block_size;
    g.heads = a->heads;
    g.kv_heads = a->kv_heads;
    g.head_dim = a->head_dim;
    g.rotary_dim = a->rotary_dim;
    g.block_size = s->block_size;
    g.eps = a->eps;
    g.half = kv->half;
    /* Powers of two on the tensor cores, of e otherwise. */
    g.scale = (kv->half ? 1.44269504088896f : 1.0f) / sqrtf((float)a->head_dim);
    g.shares.splits = 1;
    if (kv->half) {
        int pieces = s->block_size / cuda_piece_keys(s->block_size);

        g.shares = cuda_shares_of(d->processors, a->rows, a->heads, a->kv_heads,
                                  (cuda_bucket(a->past_blocks) + g.own_blocks) * pieces);
    }
    if (fill_params(d, a, &g, err) ||
        cuda_room(d, CUDA_SLOT_OWN,
                  query_bytes(&g) + (size_t)g.own_blocks * (size_t)g.kv_heads * g.cell * number_bytes(&g), err))
        return err->status;
    if (g.shares.splits > 1 &&
        cuda_room(d, CUDA_SLOT_ATTEND,
                  sum_bytes(&g) + (size_t)g.shares.splits * (size_t)g.rows * (size_t)g.heads * sizeof(float2), err))
        return err->status;
    return cuda_record(d, run, &g, sizeof g, err);
}
