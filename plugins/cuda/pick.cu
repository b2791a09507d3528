/* pick.cu - the head: each block of threads takes a slice of the vocabulary and keeps of each row the best, the next best and
 * the sum of exponentials; logits stay in shared memory.
 *
 * A second kernel puts the slices together, in their order, and writes into memory of the host. How many rows count, which they
 * are, what is watched and what is banned are parameters, so that a step with other masks is the same launch.
 *
 * Rows go in groups, of what a block's registers hold. All groups are one launch, in which the groups of a slice are blocks
 * with consecutive numbers. Blocks start in that order, as GPUs have it so far, so those run side by side and at about the same
 * columns: one of them brings a slice's weights from memory, the others find them in the second cache. Nothing but speed hangs
 * on it. Were they one block that takes group after group, all the multiprocessors' slices would go through that cache
 * between two walks over one of them, and may be larger than it.
 */
#include "plugins/cuda/product.cuh"

#include <math.h>
#include <string.h>

enum {
    PICK_WARPS = 8,
    SLICE = PICK_WARPS * 16, /* of the vocabulary: 16 a warp */
    PITCH =
        SLICE + 4,  /* of a row of logits in shared memory: no two lanes of a warp meet in a bank */
    PICK_ROWS = 64, /* of a group, at most */
    PICK_GROUPS = 8, /* of a launch, at most: products cost more than weights long before */
    MERGE_THREADS = 256
};

/* What one slice says about one row. Numbers that are NaN are never best, but are in the sum. */
typedef struct pick_part {
    float top, second_top, sum, watched; /* sum: of exp(logit - top) */
    int32_t best, second;                /* -1: none */
} pick_part;

/* What changes from pass to pass and is no list. */
typedef struct pick_numbers {
    int32_t rows, banned, limit;
} pick_numbers;

typedef struct pick_args {
    const float *x; /* [x_rows, cols] */
    product_weight head;
    const pick_numbers *numbers; /* this and the lists: parameters */
    const int32_t *rows;         /* [most] */
    const int32_t *watched;      /* [most] */
    const int32_t *banned;       /* sorted */
    rd_pick *out;                /* [most], memory of the host */
    int x_rows, cols, slices;
    int each, groups, most; /* rows of a group, a power of two; groups; their product */
    int form;
    int exact; /* activations stay float32 */
} pick_args;

/* ---- the two best, the sum ---- */

static __device__ inline bool better(float a, int32_t a_id, float b, int32_t b_id)
{
    return a > b || (a == b && (uint32_t)a_id < (uint32_t)b_id); /* no id, -1, comes last */
}

/* p += q, where no id is in both. */
static __device__ inline void merge(pick_part &p, const pick_part &q)
{
    bool other = better(q.top, q.best, p.top, p.best);
    float top = other ? q.top : p.top, low = other ? p.top : q.top;
    int32_t best = other ? q.best : p.best, low_id = other ? p.best : q.best;
    float second = other ? q.second_top : p.second_top;
    int32_t second_id = other ? q.second : p.second;
    float from = top == -INFINITY ? 0.0f : top;

    if (better(low, low_id, second, second_id)) {
        second = low;
        second_id = low_id;
    }
    p.sum = p.sum * expf(p.top - from) + q.sum * expf(q.top - from);
    p.top = top;
    p.best = best;
    p.second_top = second;
    p.second = second_id;
    p.watched = fmaxf(p.watched, q.watched);
}

static __device__ inline pick_part nothing(void)
{
    pick_part p = { -INFINITY, -INFINITY, 0.0f, -INFINITY, -1, -1 };

    return p;
}

/* Lane l and lane l ^ by, in the order of lanes, so that both have the same bits. */
static __device__ inline void merge_lanes(pick_part &p, int by)
{
    pick_part q, low, high;

    q.top = __shfl_xor_sync(GPU_ALL, p.top, by);
    q.second_top = __shfl_xor_sync(GPU_ALL, p.second_top, by);
    q.sum = __shfl_xor_sync(GPU_ALL, p.sum, by);
    q.watched = __shfl_xor_sync(GPU_ALL, p.watched, by);
    q.best = __shfl_xor_sync(GPU_ALL, p.best, by);
    q.second = __shfl_xor_sync(GPU_ALL, p.second, by);
    bool first = ((int)threadIdx.x & by) == 0;

    low = first ? p : q;
    high = first ? q : p;
    merge(low, high);
    p = low;
}

static __device__ inline void merge_warp(pick_part &p)
{
    for (int by = GPU_WARP / 2; by > 0; by /= 2) merge_lanes(p, by);
}

/* ---- a slice ---- */

/* What a block does: numbers of the vocabulary from `first` on, for rows [row, row + rows) of those asked for. */
typedef struct pick_place {
    int slice, first, row, rows; /* no rows: nothing */
} pick_place;

static __device__ inline pick_place place_of(const pick_args &a)
{
    pick_place p;

    p.slice = (int)blockIdx.x / a.groups;
    p.first = p.slice * SLICE;
    p.row = (int)blockIdx.x % a.groups * a.each;
    p.rows = min(a.each, a.numbers->rows - p.row);
    return p;
}

/* closed[i]: number first + i of the vocabulary is not to be picked. All threads; ends in a barrier. */
static __device__ void close_banned(bool *closed, const pick_args &a, int first)
{
    int n = a.numbers->banned, limit = a.numbers->limit, low = 0, high = n;
    int end = first + SLICE < a.head.rows ? first + SLICE : a.head.rows;

    if (limit > 0 && limit < end) end = limit;
    for (int i = (int)threadIdx.x; i < SLICE; i += (int)blockDim.x) closed[i] = first + i >= end;
    while (low < high) {
        int mid = (low + high) / 2;

        if (__ldg(a.banned + mid) < first)
            low = mid + 1;
        else
            high = mid;
    }
    __syncthreads();
    for (int i = low + (int)threadIdx.x; i < n; i += (int)blockDim.x) {
        int id = __ldg(a.banned + i);

        if (id >= first + SLICE) break;
        closed[id - first] = true;
    }
    __syncthreads();
}

/* The logits of a place, [rows][PITCH], to one part a row: a warp a row. */
static __device__ void look_at_slice(pick_part *parts, const float *logits, const bool *closed,
                                     const pick_args &a, const pick_place &at)
{
    int lane = (int)threadIdx.x % GPU_WARP, first = at.first;

    for (int r = (int)threadIdx.x / GPU_WARP; r < at.rows; r += (int)blockDim.x / GPU_WARP) {
        const float *row = logits + r * PITCH;
        int watched = a.watched[at.row + r] - first;
        pick_part p = nothing();

#pragma unroll
        for (int j = 0; j < SLICE / GPU_WARP; j++) {
            int i = j * GPU_WARP + lane;
            float y = closed[i] ? -INFINITY : row[i];

            if (y > p.top) {
                p.second_top = p.top;
                p.second = p.best;
                p.top = y;
                p.best = first + i;
            } else if (y > p.second_top) {
                p.second_top = y;
                p.second = first + i;
            }
            if (i == watched && y > -INFINITY) p.watched = y;
        }
        float from = p.top == -INFINITY ? 0.0f : p.top;

#pragma unroll
        for (int j = 0; j < SLICE / GPU_WARP; j++) {
            int i = j * GPU_WARP + lane;

            if (!closed[i]) p.sum += expf(row[i] - from);
        }
        merge_warp(p);
        if (lane == 0) parts[(size_t)(at.row + r) * (size_t)a.slices + (size_t)at.slice] = p;
    }
}

/* One block a slice and group, a warp 16 rows of the head, N tiles of 8 rows of x in 16 bits: 8 N is a.each. parts:
 * [most][slices]. */
template <cuda_form F, int N>
static __global__ void __launch_bounds__(PICK_WARPS *GPU_WARP)
    pick_slice(const pick_args a, const uint16_t *x, pick_part *parts)
{
    __shared__ float logits[N * 8 * PITCH];
    __shared__ bool closed[SLICE];
    int warp = (int)threadIdx.x / GPU_WARP, lane = (int)threadIdx.x % GPU_WARP, g = lane / 4,
        t = lane % 4;
    pick_place at = place_of(a);
    const uint16_t *from[N];
    product_rows<F, 1> tile;
    float acc[1][N][4] = {};

    if (at.rows <= 0) return; /* the block */
#pragma unroll
    for (int n = 0; n < N; n++) {
        int row = __ldg(a.rows + at.row + (n * 8 + g < at.rows ? n * 8 + g : 0));

        from[n] = product_x<F>(x + (size_t)row * (size_t)a.head.stride);
    }
    product_point<F, 1>(tile, 0, a.head, at.first + warp * 16);
    product_run<F, 1, N>(acc, tile, from, 0, a.head.stride / CUDA_COLS);
    product_scale<F, 1, N>(acc, tile);
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            logits[(n * 8 + t * 2 + i % 2) * PITCH + warp * 16 + g + i / 2 * 8] = acc[0][n][i];
    close_banned(closed, a, at.first);
    look_at_slice(parts, logits, closed, a, at);
}

/* The same in float32, for weights of any form. */
static __global__ void pick_slice_plain(const pick_args a, pick_part *parts)
{
    __shared__ float logits[PICK_ROWS / 2 * PITCH];
    __shared__ bool closed[SLICE];
    int lane = (int)threadIdx.x % GPU_WARP;
    pick_place at = place_of(a);

    if (at.rows <= 0) return; /* the block */
    for (int i = (int)threadIdx.x / GPU_WARP; i < SLICE; i += (int)blockDim.x / GPU_WARP) {
        for (int r = 0; r < at.rows && at.first + i < a.head.rows; r++) {
            const float *x = a.x + (size_t)a.rows[at.row + r] * (size_t)a.cols;
            float sum = 0.0f;

            for (int k = lane; k < a.cols; k += GPU_WARP)
                sum += x[k] * product_number((cuda_form)a.form, a.head, at.first + i, k);
            sum = gpu_warp_sum(sum);
            if (lane == 0) logits[r * PITCH + i] = sum;
        }
    }
    close_banned(closed, a, at.first);
    look_at_slice(parts, logits, closed, a, at);
}

/* ---- all slices ---- */

/* One block a row. */
static __global__ void pick_merge(const pick_args a, const pick_part *parts)
{
    __shared__ pick_part room[MERGE_THREADS / GPU_WARP];
    int row = (int)blockIdx.x, lane = (int)threadIdx.x % GPU_WARP,
        warp = (int)threadIdx.x / GPU_WARP;
    pick_part p = nothing();

    if (row >= a.numbers->rows) return; /* the block */
    for (int i = (int)threadIdx.x; i < a.slices; i += MERGE_THREADS)
        merge(p, parts[(size_t)row * (size_t)a.slices + (size_t)i]);
    merge_warp(p);
    if (lane == 0) room[warp] = p;
    __syncthreads();
    if (threadIdx.x > 0) return; /* there is no barrier left */
    for (int i = 1; i < MERGE_THREADS / GPU_WARP; i++) merge(p, room[i]);

    rd_pick out = { p.best, 0.0f, 0.0f, -1, 0.0f };

    if (p.best >= 0) {
        out.prob = 1.0f / p.sum;
        out.second = p.second;
        if (p.second >= 0) out.second_prob = expf(p.second_top - p.top) / p.sum;
        if (p.watched > -INFINITY) out.watched_prob = expf(p.watched - p.top) / p.sum;
    }
    a.out[row] = out;
}

/* ---- the command ---- */

template <cuda_form F>
static rd_status launch_slices(rd_device *d, const pick_args *a, pick_part *parts, rd_error *err)
{
    const uint16_t *x;
    rd_status s = cuda_halves(d, a->x, a->x_rows, a->cols, cuda_half_of(F), &x, err);
    int blocks = a->slices * a->groups;

    if (s) return s;
    if (a->each == 8)
        RD_LAUNCH((pick_slice<F, 1>), blocks, PICK_WARPS * GPU_WARP, 0, d->stream, *a, x, parts);
    else if (a->each == 16)
        RD_LAUNCH((pick_slice<F, 2>), blocks, PICK_WARPS * GPU_WARP, 0, d->stream, *a, x, parts);
    else if (a->each == 32)
        RD_LAUNCH((pick_slice<F, 4>), blocks, PICK_WARPS * GPU_WARP, 0, d->stream, *a, x, parts);
    else
        RD_LAUNCH((pick_slice<F, 8>), blocks, PICK_WARPS * GPU_WARP, 0, d->stream, *a, x, parts);
    return RD_OK;
}

static rd_status run(rd_device *d, const void *args, rd_error *err)
{
    const pick_args *a = (const pick_args *)args;
    pick_part *parts = (pick_part *)cuda_scratch(d, CUDA_SLOT_PICK);
    rd_status s = RD_OK;

    if (a->exact || a->form == CUDA_F32)
        RD_LAUNCH(pick_slice_plain, a->slices * a->groups, PICK_WARPS * GPU_WARP, 0, d->stream, *a,
                  parts);
    else if (a->form == CUDA_BF16)
        s = launch_slices<CUDA_BF16>(d, a, parts, err);
    else if (a->form == CUDA_E4M3)
        s = launch_slices<CUDA_E4M3>(d, a, parts, err);
    else if (a->form == CUDA_I8)
        s = launch_slices<CUDA_I8>(d, a, parts, err);
    else
        s = launch_slices<CUDA_I4>(d, a, parts, err);
    if (s) return s;
    RD_LAUNCH(pick_merge, a->most, MERGE_THREADS, 0, d->stream, *a, parts);
    return cuda_status(cudaPeekAtLastError(), "pick", err);
}

/* ---- the verb ---- */

/* `n` rows from `first` of the query on, as one command. */
static rd_status record_rows(rd_device *d, const pick_args *base, const rd_pick_query *q, int first,
                             int n, int at, rd_error *err)
{
    pick_args g = *base;
    int banned = 16; /* a step more, so that a few more or less are the same launch */
    size_t lists = (sizeof(pick_numbers) + 15) / 16 * 16;
    const void *device;
    void *host;

    g.groups = layout_ceil(n, g.each);
    g.most = g.groups * g.each;
    while (banned < q->n_banned) banned *= 2;
    if (cuda_param(d, lists + ((size_t)banned + 2 * (size_t)g.most) * sizeof(int32_t), &host,
                   &device, err))
        return err->status;
    pick_numbers *numbers = (pick_numbers *)host;
    int32_t *to = (int32_t *)(void *)((char *)host + lists);

    memset(numbers, 0, sizeof *numbers);
    numbers->rows = n;
    numbers->banned = q->n_banned;
    numbers->limit = q->limit;
    for (int i = 0; i < g.most; i++) {
        to[i] = i >= n ? 0 : q->rows ? q->rows[first + i] : first + i;
        to[g.most + i] = i < n && q->watched ? q->watched[first + i] : -1;
    }
    if (q->n_banned) memcpy(to + 2 * g.most, q->banned, (size_t)q->n_banned * sizeof *to);
    g.numbers = (const pick_numbers *)device;
    g.rows = (const int32_t *)(const void *)((const char *)device + lists);
    g.watched = g.rows + g.most;
    g.banned = g.watched + g.most;
    g.out = d->picks_device + at;
    return cuda_record(d, run, &g, sizeof g, err);
}

static rd_status check(rd_view x, const rd_weight *head, const rd_pick_query *q, rd_error *err)
{
    if (q->n_rows < 0 || q->n_banned < 0 || x.cols != head->cols)
        return rd_fail(err, RD_INVALID, "pick of %d rows of %d numbers from a head of %d",
                       q->n_rows, x.cols, head->cols);
    for (int i = 0; q->rows && i < q->n_rows; i++)
        if (q->rows[i] < 0 || q->rows[i] >= x.rows)
            return rd_fail(err, RD_INVALID, "pick of row %d of %d", q->rows[i], x.rows);
    if (q->n_rows > x.rows && !q->rows)
        return rd_fail(err, RD_INVALID, "pick of %d rows of %d", q->n_rows, x.rows);
    return RD_OK;
}

rd_status cuda_pick(rd_device *d, rd_view x, const rd_weight *head, const rd_pick_query *q,
                    rd_pick *out, rd_error *err)
{
    pick_args g;
    rd_error local;

    if (!err) err = &local;
    if (check(x, head, q, err)) return err->status;
    memset(&g, 0, sizeof g);
    g.x = x.data;
    g.head = product_of(head);
    g.form = (int)head->form;
    g.x_rows = x.rows;
    g.cols = x.cols;
    g.slices = (head->rows + SLICE - 1) / SLICE;
    g.exact = d->precision == RD_EXACT;
    bool plain = g.exact || head->form == CUDA_F32;

    g.each = 8;
    while (g.each < q->n_rows && g.each < (plain ? PICK_ROWS / 2 : PICK_ROWS)) g.each *= 2;
    int most = g.each * PICK_GROUPS, room = layout_ceil(q->n_rows, g.each) * g.each;

    if (room > most) room = most;
    if (cuda_room(d, CUDA_SLOT_PICK, (size_t)room * (size_t)g.slices * sizeof(pick_part), err) ||
        (!plain && cuda_room_half(d, x.rows, x.cols, err)))
        return err->status;
    for (int done = 0, n; done < q->n_rows; done += n) {
        n = q->n_rows - done < d->picks_most ? q->n_rows - done : d->picks_most;
        for (int i = 0; i < n; i += most)
            if (record_rows(d, &g, q, done + i, n - i < most ? n - i : most, i, err))
                return err->status;
        if (cuda_flush(d, true, err)) return err->status;
        memcpy(out + done, d->picks, (size_t)n * sizeof *out);
    }
    return RD_OK;
}
