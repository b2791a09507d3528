/* route.cu - the router: which experts each row goes to, with what weight, and the pairs sorted by expert.
 *
 * Three steps, no word of which the host sees. Logits (route_logits.cu). Choosing, here: a warp a row; where routing is by
 * windows each block first finds for itself what its window admits. Sorting: for few rows the last block of the choosing
 * kernel does it, from one bit for each row and expert (route_sort.cuh); for many rows there are kernels of their own
 * (route_sort.cu). No step depends on the order in which blocks or threads come.
 *
 * A row's best experts are found by the largest key of the warp: scores as whole numbers of the same order, 0 for those
 * that may not be chosen. A lane holds consecutive experts, so the lowest lane that has the largest key has the lowest id.
 */
#include "plugins/cuda/route_sort.cuh"

/* ---- choosing ---- */

static __device__ inline float sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

/* A whole number above 0 that is larger where x is. */
static __device__ inline unsigned key_of(float x)
{
    unsigned bits = __float_as_uint(x + 0.0f); /* -0 is 0 */

    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

/* What the block's window of rows admits, in admitted [experts]. All threads of the block. */
static __device__ inline void admit(const route_shape *s, const float *logits, const float *bias,
                                    int voters, float *top, int *admitted)
{
    for (int e = (int)threadIdx.x; e < s->experts; e += CHOOSE_THREADS) {
        float most = logits[e];

        for (int r = 1; r < voters; r++)
            most = fmaxf(most, logits[(size_t)r * (size_t)s->experts + (size_t)e]);
        top[e] = sigmoid(most) + bias[e];
    }
    __syncthreads();
    for (int e = (int)threadIdx.x; e < s->experts; e += CHOOSE_THREADS) {
        float own = top[e];
        int before = 0;

        for (int o = 0; o < s->experts; o++) before += route_before(top[o], o, own, e);
        admitted[e] = before < s->capacity;
    }
    __syncthreads();
}

/* Scores of a warp's groups, group [groups]: the sum of each one's two best biased scores. */
static __device__ inline void score_groups(const route_shape *s, const float *score,
                                           const float *bias, float *group)
{
    int lane = (int)threadIdx.x % GPU_WARP, each = s->experts / s->groups;

    for (int g = lane; g < s->groups; g += GPU_WARP) {
        float best = -INFINITY, next = -INFINITY;

        for (int i = 0; i < each; i++) {
            int e = g * each + (i + lane) % each; /* lanes begin at banks of their own */
            float b = score[e] + bias[e];

            if (b > best) {
                next = best;
                best = b;
            } else if (b > next) {
                next = b;
            }
        }
        group[g] = each > 1 ? best + next : best;
    }
    __syncwarp();
}

static __device__ inline bool group_open(const route_shape *s, const float *group, int e)
{
    int each = s->experts / s->groups, own = e / each, before = 0;

    if (own >= s->groups) return false;
    for (int g = 0; g < s->groups; g++) before += route_before(group[g], g, group[own], own);
    return before < s->groups_open;
}

/* The experts of one row, best first, to chosen [top_k]: of a lane, consecutive ones from first on have key[]; those with key 0
 * follow by their ids where there are too few. One warp. */
template <int each>
static __device__ inline void choose(const route_shape *s, unsigned *key, int first, int *chosen)
{
    int lane = (int)threadIdx.x % GPU_WARP, own = s->experts - first;
    unsigned used = own >= GPU_WARP ? 0u : own > 0 ? ~0u << own : ~0u;

    if (each < GPU_WARP) used |= ~0u << (each % GPU_WARP);
    for (int n = 0; n < s->top_k; n++) {
        unsigned best = 0;
        int at = 0;

#pragma unroll
        for (int i = 0; i < each; i++)
            if (key[i] > best) {
                best = key[i];
                at = i;
            }
        unsigned most = gpu_warp_max_u32(best);
        bool mine = best == most;

        if (most == 0) { /* all that are open are chosen */
            at = __ffs((int)~used) - 1;
            mine = at >= 0;
        }
        unsigned have = __ballot_sync(GPU_ALL, mine);

        if (lane == __ffs((int)have) - 1) {
            chosen[n] = first + at;
            used |= 1u << at;
#pragma unroll
            for (int i = 0; i < each; i++)
                if (i == at) key[i] = 0;
        }
    }
    __syncwarp();
}

/* One row of the pass, by one warp. `admitted` is NULL without block routing. */
template <int each>
static __device__ inline void choose_row(const route_shape *s, const route_at *to,
                                         const float *bias, const int *admitted, int row,
                                         float *score, float *group, int *chosen)
{
    const float *logits = to->logits + (size_t)row * (size_t)s->experts;
    int lane = (int)threadIdx.x % GPU_WARP, first = lane * each;
    unsigned key[each];
    float sum = 0.0f;

#pragma unroll
    for (int i = 0; i < each; i++) {
        key[i] = 0;
        if (first + i >= s->experts) continue;
        float p = sigmoid(logits[first + i]);

        score[first + i] = p;
        if (!admitted || admitted[first + i]) key[i] = key_of(p + bias[first + i]);
    }
    __syncwarp();
    if (!admitted && s->groups > 1) {
        int per = s->experts / s->groups, seen = -1;
        bool open = false;

        score_groups(s, score, bias, group);
#pragma unroll
        for (int i = 0; i < each; i++) {
            if (first + i >= s->experts) continue;
            if ((first + i) / per != seen) {
                seen = (first + i) / per;
                open = group_open(s, group, first + i);
            }
            if (!open) key[i] = 0;
        }
    }
    choose<each>(s, key, first, chosen);
    for (int n = 0; n < s->top_k; n++) sum += score[chosen[n]];
    for (int n = lane; n < s->top_k; n += GPU_WARP) {
        float w = score[chosen[n]];

        if (s->top_k > 1) w /= sum + 1e-20f;
        to->chosen[row * s->top_k + n] = chosen[n];
        to->weight[row * s->top_k + n] = w * s->scaling;
    }
}

/* Choose the experts of all rows; for few rows, the block that is done last sorts them. Grid: route_blocks. */
template <int each>
static __global__ void __launch_bounds__(CHOOSE_THREADS)
    route_choose(route_shape s, route_at to, const float *bias, const int *counts)
{
    RD_DYNAMIC_SHARED(float, room);
    __shared__ int last;
    int blocks = route_window_blocks(&s), window = (int)blockIdx.x / blocks,
        part = (int)blockIdx.x % blocks;
    int first = window * route_window(&s), end = min(first + route_window(&s), s.rows);
    int warp = (int)threadIdx.x / GPU_WARP, row = first + part * ROUTE_WARPS + warp;
    int groups = s.groups > 1 ? s.groups : 0;
    float *own = room + warp * (s.experts + groups + s.top_k);
    float *top = room + ROUTE_WARPS * (s.experts + groups + s.top_k);
    int *admitted = (int *)(top + s.experts);

    if (s.capacity > 0)
        admit(&s, to.logits + (size_t)first * (size_t)s.experts, bias,
              route_voters(&s, counts, first), top, admitted);
    if (row < end)
        choose_row<each>(&s, &to, bias, s.capacity > 0 ? admitted : NULL, row, own, own + s.experts,
                         (int *)(own + s.experts + groups));
    for (int r = (int)(blockIdx.x * CHOOSE_THREADS + threadIdx.x); r < s.rows;
         r += (int)(gridDim.x * CHOOSE_THREADS))
        to.row[s.rows * s.top_k + r] = r; /* the shared expert's */
    if (!route_few(s.rows, s.top_k)) return;
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence(); /* what the block wrote is seen before it counts as done */
        last = atomicAdd(&to.count[1], 1) == (int)gridDim.x - 1;
    }
    __syncthreads();
    if (!last) return;
    __threadfence(); /* and what others wrote is read after */
    sort_few(&s, &to, (int *)room);
}

/* ---- the command ---- */

static rd_status run_route(rd_device *d, const void *args, rd_error *err)
{
    const route_args *a = (const route_args *)args;
    const route_shape *s = &a->shape;
    route_at to = route_here(d, s);
    size_t shared = route_shared(s);
    unsigned blocks = (unsigned)route_blocks(s);

    cuda_route_logits(d, a, &to);
    if (s->experts <= 8 * GPU_WARP)
        RD_LAUNCH((route_choose<8>), blocks, CHOOSE_THREADS, shared, d->stream, *s, to, a->bias,
                  a->counts);
    else
        RD_LAUNCH((route_choose<32>), blocks, CHOOSE_THREADS, shared, d->stream, *s, to, a->bias,
                  a->counts);
    if (!route_few(s->rows, s->top_k)) cuda_route_sort(d, s, &to);
    return cuda_status(cudaPeekAtLastError(), "route", err);
}

rd_status cuda_route(rd_device *d, const route_args *a, rd_error *err)
{
    const route_shape *s = &a->shape;
    size_t bytes = route_layout_of(s->rows, s->top_k, s->experts, s->item).bytes;

    if (s->experts < 1 || s->experts > ROUTE_EXPERTS_MOST || s->top_k < 1 || s->top_k > s->experts)
        return rd_fail(err, RD_INVALID, "%d experts, %d a token", s->experts, s->top_k);
    if (s->groups > s->experts || (s->capacity > 0 && s->window < 1) ||
        route_shared(s) > ROUTE_SHARED_MOST)
        return rd_fail(err, RD_INVALID, "a router of %d experts in %d groups, windows of %d rows",
                       s->experts, s->groups, s->window);
    if (cuda_room(d, CUDA_SLOT_ROUTE, bytes, err)) return err->status;
    return cuda_record(d, run_route, a, sizeof *a, err);
}
