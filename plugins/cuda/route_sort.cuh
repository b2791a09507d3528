/* route_sort.cuh - sorting of pairs by expert: what few rows and many share, and the sort of few, which the last block of the
 * choosing kernel does.
 */
#ifndef RD_CUDA_ROUTE_SORT_CUH
#define RD_CUDA_ROUTE_SORT_CUH

#include "plugins/cuda/route.cuh"

enum { CHOOSE_THREADS = ROUTE_WARPS * GPU_WARP };

/* Exclusive sum over the block of one number a thread; `total`: of all. `room` is shared, [32]. */
static __device__ inline int block_scan(int x, int *room, int *total)
{
    int lane = (int)threadIdx.x % GPU_WARP, warp = (int)threadIdx.x / GPU_WARP, sum = x, below = 0,
        all = 0;

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

static __device__ inline void put_items(const route_shape *s, route_item *to, int expert, int first,
                                        int count)
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
    int each = layout_ceil(s->experts, CHOOSE_THREADS), from = thread * each,
        end = min(from + each, s->experts);
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

        sum += n | layout_ceil(n, s->item) << 16;
    }
    int at = block_scan(sum, room, &all);

    for (int e = from; e < end; e++) {
        int n = __popc(rows[2 * e]) + __popc(rows[2 * e + 1]);

        start[e] = at & 0xffff;
        to->start[e] = at & 0xffff;
        put_items(s, to->item + (at >> 16), e, at & 0xffff, n);
        at += n | layout_ceil(n, s->item) << 16;
    }
    if (thread == 0) {
        to->start[s->experts] = pairs;
        to->count[0] = all >> 16;
    }
    __syncthreads();
    for (int i = thread; i < pairs; i += CHOOSE_THREADS) {
        int row = i / s->top_k, e = to->chosen[i];
        unsigned low = rows[2 * e], high = rows[2 * e + 1], below = (1u << row % 32) - 1;
        int place =
            start[e] + (row < 32 ? __popc(low & below) : __popc(low) + __popc(high & below));

        to->place[i] = place;
        to->row[place] = row;
    }
}

#endif
