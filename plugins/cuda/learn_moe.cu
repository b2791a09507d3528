/* learn_moe.cu - the router: which rows go to which expert, at which slot, with which weight; and its gradient.
 *
 * Scores are float32 from the norm's float32 output, one warp a row. An expert's slots stand in the order of rows, so that
 * sums over them have one order: `place` counts an expert's rows among all choices, one block an expert. An expert's slots are
 * padded to a multiple of LEARN_SLOTS; a padded slot has no row.
 */
#include "plugins/cuda/learn.h"

enum {
    ROUTE_WARPS = 4,
    ROUTE_THREADS = ROUTE_WARPS * GPU_WARP,
    EXPERTS_MOST = 256,
    TOP_MOST = 64,
    PLACE_THREADS = 1024
};

typedef struct learn_route_args {
    const float *x, *inv, *norm; /* the norm's input, [hidden] its weight */
    const float *router, *bias;  /* [experts, hidden], [experts] */
    float *score, *share;
    int *chosen, *fill;
    int rows, hidden, experts, top, groups, groups_kept;
    float by;
} learn_route_args;

/* The lower id wins a tie. To all lanes. */
static __device__ inline int warp_best(float x, int id)
{
    for (int by = GPU_WARP / 2; by > 0; by /= 2) {
        float y = __shfl_xor_sync(GPU_ALL, x, by);
        int other = __shfl_xor_sync(GPU_ALL, id, by);

        if (y > x || (y == x && other < id)) x = y, id = other;
    }
    return id;
}

/* Experts outside the groups that are kept cannot be chosen. `biased`: [experts], shared, of this warp. */
static __device__ void keep_groups(float *biased, const learn_route_args *a)
{
    int lane = (int)threadIdx.x % GPU_WARP, per = a->experts / a->groups;

    __syncwarp();
    if (lane == 0) {
        for (int drop = a->groups - a->groups_kept; drop > 0; drop--) {
            float least = INFINITY;
            int worst = -1;

            for (int g = 0; g < a->groups; g++) {
                float x = -INFINITY, y = -INFINITY;

                if (biased[g * per] == -INFINITY) continue; /* dropped */
                for (int e = g * per; e < (g + 1) * per; e++) {
                    if (biased[e] > x)
                        y = x, x = biased[e];
                    else if (biased[e] > y)
                        y = biased[e];
                }
                if (per > 1) x += y;
                if (x <= least) least = x, worst = g;
            }
            if (worst < 0) break; /* no number among the scores */
            for (int e = worst * per; e < (worst + 1) * per; e++) biased[e] = -INFINITY;
        }
    }
    __syncwarp();
}

static __global__ void __launch_bounds__(ROUTE_THREADS, 8) route(learn_route_args a)
{
    __shared__ float scores[ROUTE_WARPS][EXPERTS_MOST], biases[ROUTE_WARPS][EXPERTS_MOST];
    __shared__ int filled[EXPERTS_MOST];
    int lane = (int)threadIdx.x % GPU_WARP, warp = (int)threadIdx.x / GPU_WARP;
    int row = (int)blockIdx.x * ROUTE_WARPS + warp;
    float *score = scores[warp], *biased = biases[warp];

    for (int e = (int)threadIdx.x; e < a.experts; e += ROUTE_THREADS) filled[e] = 0;
    __syncthreads();
    if (row < a.rows) { /* whole warps */
        const float *x = a.x + (size_t)row * (size_t)a.hidden;
        float inv = a.inv[row], sum = 0.0f;

        for (int e0 = 0; e0 < a.experts; e0 += 8) {
            float dot[8] = {};

            for (int c = lane * 4; c < a.hidden; c += GPU_WARP * 4) {
                float4 v = *(const float4 *)(x + c), w = *(const float4 *)(a.norm + c);

                v.x *= inv * w.x, v.y *= inv * w.y, v.z *= inv * w.z, v.w *= inv * w.w;
#pragma unroll
                for (int k = 0; k < 8; k++) {
                    float4 r = *(const float4 *)(a.router + (size_t)(e0 + k) * (size_t)a.hidden +
                                                 (size_t)c);

                    dot[k] += v.x * r.x + v.y * r.y + v.z * r.z + v.w * r.w;
                }
            }
#pragma unroll
            for (int k = 0; k < 8; k++) {
                float s = 1.0f / (1.0f + expf(-gpu_warp_sum(dot[k])));

                if (lane == k) {
                    score[e0 + k] = s;
                    biased[e0 + k] = s + a.bias[e0 + k];
                }
            }
        }
        if (a.groups > 1) keep_groups(biased, &a);
        __syncwarp();
        for (int k = 0; k < a.top; k++) {
            float most = -INFINITY;
            int id = lane < a.experts ? lane : 0;

            for (int e = lane; e < a.experts; e += GPU_WARP)
                if (biased[e] > most) most = biased[e], id = e;
            id = warp_best(most, id);
            sum += score[id];
            if (lane == 0) {
                a.chosen[row * a.top + k] = id;
                a.score[row * a.top + k] = score[id];
                biased[id] = -INFINITY;
                atomicAdd(&filled[id], 1);
            }
            __syncwarp();
        }
        float by = a.top > 1 ? a.by / (sum + 1e-20f) : a.by;

        for (int k = lane; k < a.top; k += GPU_WARP)
            a.share[row * a.top + k] = by * a.score[row * a.top + k];
    }
    __syncthreads();
    for (int e = (int)threadIdx.x; e < a.experts; e += ROUTE_THREADS)
        if (filled[e] > 0) atomicAdd(&a.fill[e], filled[e]);
}

typedef struct learn_place_args {
    const int *fill, *chosen;
    const float *share;
    int *start, *tile, *slot, *row_of;
    float *share_of;
    unsigned long long *load, *load_step; /* or NULL */
    int choices, top, experts, tiles;     /* tiles there is room for */
} learn_place_args;

static __device__ inline int padded(int n)
{
    return (n + LEARN_SLOTS - 1) / LEARN_SLOTS * LEARN_SLOTS;
}

/* Block e: the slots of expert e. */
static __global__ void __launch_bounds__(PLACE_THREADS) place(learn_place_args a)
{
    __shared__ int before[PLACE_THREADS / GPU_WARP];
    __shared__ int first_slot;
    int e = (int)blockIdx.x, lane = (int)threadIdx.x % GPU_WARP, warp = (int)threadIdx.x / GPU_WARP;
    int each = (a.choices + PLACE_THREADS - 1) / PLACE_THREADS;
    int begin = min((int)threadIdx.x * each, a.choices), end = min(begin + each, a.choices),
        own = 0;

    if (threadIdx.x == 0) {
        int at = 0;

        for (int i = 0; i < e; i++) at += padded(a.fill[i]);
        first_slot = at;
        a.start[e] = at;
        if (e == a.experts - 1) a.start[a.experts] = at + padded(a.fill[e]);
        if (a.load) a.load[e] += (unsigned long long)a.fill[e];
        if (a.load_step) a.load_step[e] += (unsigned long long)a.fill[e];
    }
    for (int i = begin; i < end; i++) own += a.chosen[i] == e;
    int upto = own; /* of this warp, up to and with this lane */

    for (int by = 1; by < GPU_WARP; by *= 2) {
        int x = __shfl_up_sync(GPU_ALL, upto, (unsigned)by);

        if (lane >= by) upto += x;
    }
    if (lane == GPU_WARP - 1) before[warp] = upto;
    __syncthreads();
    int at = first_slot + upto - own, last = first_slot + padded(a.fill[e]);

    for (int w = 0; w < warp; w++) at += before[w];
    for (int i = begin; i < end; i++) {
        if (a.chosen[i] != e) continue;
        a.slot[i] = at;
        a.row_of[at] = i / a.top;
        a.share_of[at] = a.share[i];
        at++;
    }
    for (int i = first_slot + a.fill[e] + (int)threadIdx.x; i < last; i += PLACE_THREADS) {
        a.row_of[i] = -1;
        a.share_of[i] = 0.0f;
    }
    for (int i = first_slot / LEARN_SLOTS + (int)threadIdx.x; i < last / LEARN_SLOTS;
         i += PLACE_THREADS)
        a.tile[i] = e;
    if (e == a.experts - 1)
        for (int i = last / LEARN_SLOTS + (int)threadIdx.x; i < a.tiles; i += PLACE_THREADS)
            a.tile[i] = -1;
}

void learn_route(rd_learner *l, int layer, int rows, learn_count count)
{
    const rd_model_config *c = &l->p->config;
    const rd_layer_params *at = &l->p->layer[layer];
    const learn_layer *y = &l->layer[layer];
    learn_route_args r = {};
    learn_place_args p = {};

    learn_check(l, cudaMemsetAsync(l->fill, 0, (size_t)l->experts * sizeof(int), l->stream),
                "router");
    r.x = y->mid;
    r.inv = y->inv2;
    r.norm = l->w + at->norm2;
    r.router = l->w + at->router;
    r.bias = l->w + at->bias;
    r.score = y->score;
    r.share = y->share;
    r.chosen = y->chosen;
    r.fill = l->fill;
    r.rows = rows;
    r.hidden = l->hidden;
    r.experts = l->experts;
    r.top = l->top;
    r.groups = c->n_group;
    r.groups_kept = c->topk_group;
    r.by = (float)c->routed_scaling_factor;
    RD_LAUNCH(route, learn_blocks((size_t)rows, ROUTE_WARPS), ROUTE_THREADS, 0, l->stream, r);
    p.fill = l->fill;
    p.chosen = y->chosen;
    p.share = y->share;
    p.start = y->start;
    p.tile = y->tile;
    p.slot = y->slot;
    p.row_of = y->row_of;
    p.share_of = y->share_of;
    if (count != LEARN_COUNT_NONE) p.load = l->load + (size_t)layer * (size_t)l->experts;
    if (count == LEARN_COUNT_STEP) p.load_step = l->load_step + (size_t)layer * (size_t)l->experts;
    p.choices = rows * l->top;
    p.top = l->top;
    p.experts = l->experts;
    p.tiles = l->slots / LEARN_SLOTS;
    RD_LAUNCH(place, l->experts, PLACE_THREADS, 0, l->stream, p);
    learn_launched(l, "router");
}

typedef struct learn_route_back_args {
    const float *dout; /* [rows, hidden] */
    const bf16 *y;
    const int *slot, *chosen;
    const float *score;
    float *dchosen;
    bf16 *dlogit; /* [rows, experts] */
    int rows, hidden, experts, top;
    float by;
} learn_route_back_args;

static __global__ void __launch_bounds__(ROUTE_THREADS) route_back(learn_route_back_args a)
{
    __shared__ float slopes[ROUTE_WARPS][TOP_MOST];
    int lane = (int)threadIdx.x % GPU_WARP, warp = (int)threadIdx.x / GPU_WARP;
    int row = (int)blockIdx.x * ROUTE_WARPS + warp;

    if (row >= a.rows) return; /* whole warps leave */
    const float *dout = a.dout + (size_t)row * (size_t)a.hidden;
    float sum = 1e-20f, mean = 0.0f;

    for (int k = 0; k < a.top; k++) {
        const bf16 *y = a.y + (size_t)a.slot[row * a.top + k] * (size_t)a.hidden;
        float dot = 0.0f;

        for (int c = lane * 8; c < a.hidden; c += GPU_WARP * 8) {
            float x[8], v[8];

            f32_load8(x, dout + c);
            bf16_load8(v, y + c);
            for (int i = 0; i < 8; i++) dot += x[i] * v[i];
        }
        dot = a.by * gpu_warp_sum(dot);
        float score = a.score[row * a.top + k];

        sum += score;
        mean += dot * score;
        if (lane == 0) slopes[warp][k] = dot;
    }
    mean /= sum;
    for (int e = lane; e < a.experts; e += GPU_WARP)
        a.dlogit[(size_t)row * (size_t)a.experts + (size_t)e] = 0;
    __syncwarp();
    for (int k = lane; k < a.top; k += GPU_WARP) {
        float score = a.score[row * a.top + k], d = slopes[warp][k];

        if (a.top > 1) d = (d - mean) / sum;
        d *= score * (1.0f - score);
        a.dchosen[row * a.top + k] = d;
        a.dlogit[(size_t)row * (size_t)a.experts + (size_t)a.chosen[row * a.top + k]] = gpu_bf16(d);
    }
}

void learn_route_back(rd_learner *l, int layer, int rows)
{
    const learn_layer *y = &l->layer[layer];
    learn_route_back_args a = {};

    a.dout = l->dx;
    a.y = y->y;
    a.slot = y->slot;
    a.chosen = y->chosen;
    a.score = y->score;
    a.dchosen = l->dchosen;
    a.dlogit = l->dlogit;
    a.rows = rows;
    a.hidden = l->hidden;
    a.experts = l->experts;
    a.top = l->top;
    a.by = (float)l->p->config.routed_scaling_factor;
    RD_LAUNCH(route_back, learn_blocks((size_t)rows, ROUTE_WARPS), ROUTE_THREADS, 0, l->stream, a);
    learn_launched(l, "router backward");
    learn_gemm(l, true, false, l->experts, l->hidden, rows, l->dlogit, l->experts, y->m, l->hidden,
               1.0f, l->grad + l->p->layer[layer].router, true, l->hidden);
}
