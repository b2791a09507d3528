/* route.cu - the router: which experts each row goes to, with what weight, and the pairs sorted by expert.
 *
 * Three steps, no word of which the host sees. Logits, float32: a block makes 8 rows by 8 experts with the sum over hidden
 * spread over its threads, or, where there are many rows, 64 by 64 from shared memory. Choosing: a warp a row; where routing
 * is by windows each block first finds for itself what its window admits. Sorting: for few rows the last block of the
 * choosing kernel does it, from one bit for each row and expert; for many rows a block an expert looks through all pairs. No step
 * depends on the order in which blocks or threads come.
 *
 * A row's best experts are found by the largest key of the warp: scores as whole numbers of the same order, 0 for those
 * that may not be chosen. A lane holds consecutive experts, so the lowest lane that has the largest key has the lowest id.
 */
#include "plugins/cuda/route.cuh"

enum {
    LOGIT_ROWS = 8, /* and experts of a block */
    LOGIT_THREADS = 256,
    TILE = 64,       /* rows, and experts, of a block where rows are many */
    TILE_K = 32,     /* columns held at once */
    TILE_SPLIT = 4,  /* parts of those, each with threads of its own */
    TILE_ROOM = TILE + 4,
    CHOOSE_THREADS = ROUTE_WARPS * GPU_WARP,
    SORT_THREADS = 256,
};

/* ---- logits ---- */

/* Four numbers of a row at column k, zeros behind its end. `whole`: rows stand at multiples of 16 bytes. */
static __device__ inline float4 four_at(const float *row, int k, int cols, bool whole)
{
    float4 v = { 0.0f, 0.0f, 0.0f, 0.0f };

    if (whole && k + 4 <= cols) return *(const float4 *)(row + k);
    if (k < cols) v.x = row[k];
    if (k + 1 < cols) v.y = row[k + 1];
    if (k + 2 < cols) v.z = row[k + 2];
    if (k + 3 < cols) v.w = row[k + 3];
    return v;
}

/* Half of v's `n` numbers go to the lane at `by`, which sends as many of its own: sums over pairs of lanes. */
template <int n> static __device__ inline void halve(float *v, int by)
{
    bool high = ((int)threadIdx.x & by) != 0;

#pragma unroll
    for (int i = 0; i < n / 2; i++) {
        float send = high ? v[i] : v[i + n / 2], keep = high ? v[i + n / 2] : v[i];

        v[i] = keep + __shfl_xor_sync(GPU_ALL, send, by);
    }
}

/* logits [rows, experts] = x [rows, hidden] router^T. Grid: experts / 8, rows / 8. */
static __global__ void __launch_bounds__(LOGIT_THREADS)
    route_logits(float *logits, const float *x, const float *router, int rows, int experts, int hidden, int *count)
{
    __shared__ float part[LOGIT_THREADS / GPU_WARP][LOGIT_ROWS * LOGIT_ROWS];
    int thread = (int)threadIdx.x, lane = thread % GPU_WARP;
    int row = (int)blockIdx.y * LOGIT_ROWS, expert = (int)blockIdx.x * LOGIT_ROWS;
    bool whole = hidden % 4 == 0;
    float v[LOGIT_ROWS * LOGIT_ROWS];

    if (blockIdx.x == 0 && blockIdx.y == 0 && thread < 2) count[thread] = 0;
#pragma unroll
    for (int i = 0; i < LOGIT_ROWS * LOGIT_ROWS; i++) v[i] = 0.0f;
    for (int k = 4 * thread; k < hidden; k += 4 * LOGIT_THREADS) {
        float4 a[LOGIT_ROWS], b[LOGIT_ROWS];

#pragma unroll
        for (int i = 0; i < LOGIT_ROWS; i++) {
            int r = min(row + i, rows - 1), e = min(expert + i, experts - 1);

            a[i] = four_at(x + (size_t)r * (size_t)hidden, k, hidden, whole);
            b[i] = four_at(router + (size_t)e * (size_t)hidden, k, hidden, whole);
        }
#pragma unroll
        for (int i = 0; i < LOGIT_ROWS; i++)
#pragma unroll
            for (int j = 0; j < LOGIT_ROWS; j++) {
                float s = v[LOGIT_ROWS * i + j];

                s = __fmaf_rn(a[i].x, b[j].x, s);
                s = __fmaf_rn(a[i].y, b[j].y, s);
                s = __fmaf_rn(a[i].z, b[j].z, s);
                v[LOGIT_ROWS * i + j] = __fmaf_rn(a[i].w, b[j].w, s);
            }
    }
    halve<64>(v, 16);
    halve<32>(v, 8);
    halve<16>(v, 4);
    halve<8>(v, 2);
    halve<4>(v, 1);
    /* Bit 4 of the lane chose the upper 32 of 64, bit 3 the upper 16 of those, and so on: two are left. */
    part[thread / GPU_WARP][2 * lane] = v[0];
    part[thread / GPU_WARP][2 * lane + 1] = v[1];
    __syncthreads();
    if (thread < LOGIT_ROWS * LOGIT_ROWS) {
        int r = row + thread / LOGIT_ROWS, e = expert + thread % LOGIT_ROWS;
        float s = 0.0f;

        for (int w = 0; w < LOGIT_THREADS / GPU_WARP; w++) s += part[w][thread];
        if (r < rows && e < experts) logits[(size_t)r * (size_t)experts + (size_t)e] = s;
    }
}

/* The same for many rows. Grid: experts / 64, rows / 64. 64 threads make a tile of 64 x 64 from a quarter of the columns, 8 x 8 a
 * thread; then the four quarters are summed, in order. */
static __global__ void __launch_bounds__(LOGIT_THREADS)
    route_logits_many(float *logits, const float *x, const float *router, int rows, int experts, int hidden, int *count)
{
    /* [TILE_K][TILE_ROOM] twice, and at the end [TILE][TILE_ROOM] of sums */
    __shared__ __align__(16) float room[2 * TILE_K * TILE_ROOM];
    float *xs = room, *ws = room + TILE_K * TILE_ROOM;
    int thread = (int)threadIdx.x, part = thread / TILE, at = thread % TILE;
    int i0 = at / 8 * 8, j0 = at % 8 * 8; /* of this thread's 8 x 8 */
    int row = (int)blockIdx.y * TILE, expert = (int)blockIdx.x * TILE;
    const float *from_x = x + (size_t)min(row + at, rows - 1) * (size_t)hidden;
    const float *from_w = router + (size_t)min(expert + at, experts - 1) * (size_t)hidden;
    bool whole = hidden % 4 == 0;
    float v[8][8];

    if (blockIdx.x == 0 && blockIdx.y == 0 && thread < 2) count[thread] = 0;
#pragma unroll
    for (int i = 0; i < 8; i++)
#pragma unroll
        for (int j = 0; j < 8; j++) v[i][j] = 0.0f;
    for (int k = 0; k < hidden; k += TILE_K) {
        float4 a[2], b[2];
        int own = part * (TILE_K / TILE_SPLIT);

        for (int h = 0; h < 2; h++) {
            a[h] = four_at(from_x, k + own + 4 * h, hidden, whole);
            b[h] = four_at(from_w, k + own + 4 * h, hidden, whole);
        }
        __syncthreads(); /* the columns before are used up */
        for (int h = 0; h < 2; h++) {
            float *to_x = xs + (own + 4 * h) * TILE_ROOM + at, *to_w = ws + (own + 4 * h) * TILE_ROOM + at;

            to_x[0] = a[h].x, to_x[TILE_ROOM] = a[h].y;
            to_x[2 * TILE_ROOM] = a[h].z, to_x[3 * TILE_ROOM] = a[h].w;
            to_w[0] = b[h].x, to_w[TILE_ROOM] = b[h].y;
            to_w[2 * TILE_ROOM] = b[h].z, to_w[3 * TILE_ROOM] = b[h].w;
        }
        __syncthreads();
#pragma unroll
        for (int c = 0; c < TILE_K / TILE_SPLIT; c++) {
            const float *xc = xs + (own + c) * TILE_ROOM + i0, *wc = ws + (own + c) * TILE_ROOM + j0;
            float4 a0 = *(const float4 *)xc, a1 = *(const float4 *)(xc + 4);
            float4 b0 = *(const float4 *)wc, b1 = *(const float4 *)(wc + 4);
            float p[8] = { a0.x, a0.y, a0.z, a0.w, a1.x, a1.y, a1.z, a1.w };
            float q[8] = { b0.x, b0.y, b0.z, b0.w, b1.x, b1.y, b1.z, b1.w };

#pragma unroll
            for (int i = 0; i < 8; i++)
#pragma unroll
                for (int j = 0; j < 8; j++) v[i][j] = __fmaf_rn(p[i], q[j], v[i][j]);
        }
    }
    for (int turn = 0; turn < TILE_SPLIT; turn++) {
        __syncthreads();
        if (part != turn) continue;
#pragma unroll
        for (int i = 0; i < 8; i++)
#pragma unroll
            for (int j = 0; j < 8; j++) {
                float *s = room + (i0 + i) * TILE_ROOM + j0 + j;

                *s = turn > 0 ? *s + v[i][j] : v[i][j];
            }
    }
    __syncthreads();
    for (int i = thread; i < TILE * TILE; i += LOGIT_THREADS) {
        int r = row + i / TILE, e = expert + i % TILE;

        if (r < rows && e < experts)
            logits[(size_t)r * (size_t)experts + (size_t)e] = room[i / TILE * TILE_ROOM + i % TILE];
    }
}

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
static __device__ inline void admit(const route_shape *s, const float *logits, const float *bias, int voters,
                                    float *top, int *admitted)
{
    for (int e = (int)threadIdx.x; e < s->experts; e += CHOOSE_THREADS) {
        float most = logits[e];

        for (int r = 1; r < voters; r++) most = fmaxf(most, logits[(size_t)r * (size_t)s->experts + (size_t)e]);
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
static __device__ inline void score_groups(const route_shape *s, const float *score, const float *bias, float *group)
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
static __device__ inline void choose_row(const route_shape *s, const route_at *to, const float *bias,
                                         const int *admitted, int row, float *score, float *group, int *chosen)
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

/* ---- sorting ---- */

/* Exclusive sum over the block of one number a thread; `total`: of all. `room` is shared, [32]. */
static __device__ inline int block_scan(int x, int *room, int *total)
{
    int lane = (int)threadIdx.x % GPU_WARP, warp = (int)threadIdx.x / GPU_WARP, sum = x, below = 0, all = 0;

    for (int by = 1; by < GPU_WARP; by *= 2) {
        int y = __shfl_up_sync(GPU_ALL, sum, by);

        if (lane >= by) sum += y;
    }
    __syncthreads(); /* the last use of room is over */
    if (lane == GPU_WARP - 1) room[warp] = sum;
    __syncthreads();
    for (int w = 0; w < (int)blockDim.x / GPU_WARP; w++) {
        if (w < warp) below += room[w];
        all += room[w];
    }
    *total = all;
    return below + sum - x;
}

static __device__ inline void put_items(const route_shape *s, route_item *to, int expert, int first, int count)
{
    for (int at = 0; at < count; at += s->item, to++) {
        to->expert = expert;
        to->first = first + at;
        to->count = min(s->item, count - at);
        to->none = 0;
    }
}

/* Sort the pairs of few rows. One block of CHOOSE_THREADS; `room`: ROUTE_WARPS ints, a start and two words of rows an expert. */
static __device__ inline void sort_few(const route_shape *s, const route_at *to, int *room)
{
    int *start = room + ROUTE_WARPS, thread = (int)threadIdx.x, pairs = s->rows * s->top_k;
    unsigned *rows = (unsigned *)(start + s->experts);
    int each = route_up(s->experts, CHOOSE_THREADS), from = thread * each, end = min(from + each, s->experts);
    int sum = 0, all;

    for (int i = thread; i < 2 * s->experts; i += CHOOSE_THREADS) rows[i] = 0;
    __syncthreads();
    /* A row has an expert once at most, so adding its bit sets it. */
    for (int i = thread; i < pairs; i += CHOOSE_THREADS) {
        int row = i / s->top_k;

        atomicAdd(&rows[2 * to->chosen[i] + row / 32], 1u << row % 32);
    }
    __syncthreads();
    for (int e = from; e < end; e++) {
        int n = __popc(rows[2 * e]) + __popc(rows[2 * e + 1]);

        sum += n | route_up(n, s->item) << 16;
    }
    int at = block_scan(sum, room, &all);

    for (int e = from; e < end; e++) {
        int n = __popc(rows[2 * e]) + __popc(rows[2 * e + 1]);

        start[e] = at & 0xffff;
        to->start[e] = at & 0xffff;
        put_items(s, to->item + (at >> 16), e, at & 0xffff, n);
        at += n | route_up(n, s->item) << 16;
    }
    if (thread == 0) {
        to->start[s->experts] = pairs;
        to->count[0] = all >> 16;
    }
    __syncthreads();
    for (int i = thread; i < pairs; i += CHOOSE_THREADS) {
        int row = i / s->top_k, e = to->chosen[i];
        unsigned low = rows[2 * e], high = rows[2 * e + 1], below = (1u << row % 32) - 1;
        int place = start[e] + (row < 32 ? __popc(low & below) : __popc(low) + __popc(high & below));

        to->place[i] = place;
        to->row[place] = row;
    }
}

/* Choose the experts of all rows; for few rows, the block that is done last sorts them. Grid: route_blocks. */
template <int each>
static __global__ void __launch_bounds__(CHOOSE_THREADS)
    route_choose(route_shape s, route_at to, const float *bias, const int *counts)
{
    RD_DYNAMIC_SHARED(float, room);
    __shared__ int last;
    int blocks = route_window_blocks(&s), window = (int)blockIdx.x / blocks, part = (int)blockIdx.x % blocks;
    int first = window * route_window(&s), end = min(first + route_window(&s), s.rows);
    int warp = (int)threadIdx.x / GPU_WARP, row = first + part * ROUTE_WARPS + warp;
    int groups = s.groups > 1 ? s.groups : 0;
    float *own = room + warp * (s.experts + groups + s.top_k);
    float *top = room + ROUTE_WARPS * (s.experts + groups + s.top_k);
    int *admitted = (int *)(top + s.experts);

    if (s.capacity > 0)
        admit(&s, to.logits + (size_t)first * (size_t)s.experts, bias, route_voters(&s, counts, first), top, admitted);
    if (row < end)
        choose_row<each>(&s, &to, bias, s.capacity > 0 ? admitted : NULL, row, own, own + s.experts,
                         (int *)(own + s.experts + groups));
    for (int r = (int)(blockIdx.x * CHOOSE_THREADS + threadIdx.x); r < s.rows; r += (int)(gridDim.x * CHOOSE_THREADS))
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

/* Sort the pairs of many rows: a block an expert finds its pairs, in order, and how many stand before them. */
static __global__ void __launch_bounds__(SORT_THREADS) route_sort(route_shape s, route_at to)
{
    enum { WARPS = SORT_THREADS / GPU_WARP };
    __shared__ int lower[WARPS], equal[WARPS];
    int expert = (int)blockIdx.x, pairs = s.rows * s.top_k;
    int lane = (int)threadIdx.x % GPU_WARP, warp = (int)threadIdx.x / GPU_WARP;
    int each = route_up(route_up(pairs, WARPS), GPU_WARP) * GPU_WARP; /* pairs of a warp */
    int from = warp * each, end = min(from + each, pairs), less = 0, same = 0, at = 0;

    for (int i = from + lane; i < end; i += GPU_WARP) {
        int e = to.chosen[i];

        less += e < expert;
        same += e == expert;
    }
    for (int by = GPU_WARP / 2; by > 0; by /= 2) {
        less += __shfl_xor_sync(GPU_ALL, less, by);
        same += __shfl_xor_sync(GPU_ALL, same, by);
    }
    if (lane == 0) {
        lower[warp] = less;
        equal[warp] = same;
    }
    __syncthreads();
    for (int w = 0; w < WARPS; w++) at += lower[w];
    if (threadIdx.x == 0) {
        to.start[expert] = at;
        if (expert == s.experts - 1) to.start[s.experts] = pairs;
    }
    for (int w = 0; w < warp; w++) at += equal[w];
    for (int i = from; i < end; i += GPU_WARP) {
        bool mine = i + lane < end && to.chosen[i + lane] == expert;
        unsigned have = __ballot_sync(GPU_ALL, mine);

        if (mine) {
            int place = at + __popc(have & ((1u << lane) - 1));

            to.place[i + lane] = place;
            to.row[place] = (i + lane) / s.top_k;
        }
        at += __popc(have);
    }
}

/* The items of many rows. One block. */
static __global__ void __launch_bounds__(SORT_THREADS) route_items(route_shape s, route_at to)
{
    __shared__ int room[GPU_WARP];
    int each = route_up(s.experts, SORT_THREADS), from = (int)threadIdx.x * each, end = min(from + each, s.experts);
    int sum = 0, all;

    for (int e = from; e < end; e++) sum += route_up(to.start[e + 1] - to.start[e], s.item);
    int at = block_scan(sum, room, &all);

    for (int e = from; e < end; e++) {
        int n = to.start[e + 1] - to.start[e];

        put_items(&s, to.item + at, e, to.start[e], n);
        at += route_up(n, s.item);
    }
    if (threadIdx.x == 0) to.count[0] = all;
}

/* ---- the command ---- */

static rd_status run_route(rd_device *d, const void *args, rd_error *err)
{
    const route_args *a = (const route_args *)args;
    const route_shape *s = &a->shape;
    route_at to = route_here(d, s);
    bool few = route_few(s->rows, s->top_k);
    int tile = s->rows > ROUTE_FEW ? TILE : LOGIT_ROWS;
    dim3 grid((unsigned)route_up(s->experts, tile), (unsigned)route_up(s->rows, tile));
    size_t shared = route_shared(s);
    unsigned blocks = (unsigned)route_blocks(s);

    if (s->rows > ROUTE_FEW)
        RD_LAUNCH(route_logits_many, grid, LOGIT_THREADS, 0, d->stream, to.logits, a->x, a->router, s->rows,
                  s->experts, s->hidden, to.count);
    else
        RD_LAUNCH(route_logits, grid, LOGIT_THREADS, 0, d->stream, to.logits, a->x, a->router, s->rows, s->experts,
                  s->hidden, to.count);
    if (s->experts <= 8 * GPU_WARP)
        RD_LAUNCH((route_choose<8>), blocks, CHOOSE_THREADS, shared, d->stream, *s, to, a->bias, a->counts);
    else
        RD_LAUNCH((route_choose<32>), blocks, CHOOSE_THREADS, shared, d->stream, *s, to, a->bias, a->counts);
    if (!few) {
        RD_LAUNCH(route_sort, (unsigned)s->experts, SORT_THREADS, 0, d->stream, *s, to);
        RD_LAUNCH(route_items, 1, SORT_THREADS, 0, d->stream, *s, to);
    }
    return cuda_status(cudaPeekAtLastError(), "route", err);
}

rd_status cuda_route(rd_device *d, const route_args *a, rd_error *err)
{
    const route_shape *s = &a->shape;
    size_t bytes = route_layout_of(s->rows, s->top_k, s->experts, s->item).bytes;

    if (s->experts < 1 || s->experts > ROUTE_EXPERTS_MOST || s->top_k < 1 || s->top_k > s->experts)
        return rd_fail(err, RD_INVALID, "%d experts, %d a token", s->experts, s->top_k);
    if (s->groups > s->experts || (s->capacity > 0 && s->window < 1) || route_shared(s) > ROUTE_SHARED_MOST)
        return rd_fail(err, RD_INVALID, "a router of %d experts in %d groups, windows of %d rows", s->experts,
                       s->groups, s->window);
    if (cuda_room(d, CUDA_SLOT_ROUTE, bytes, err)) return err->status;
    return cuda_record(d, run_route, a, sizeof *a, err);
}
