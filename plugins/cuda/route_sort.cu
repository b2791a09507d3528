/* route_sort.cu - the pairs of many rows sorted by expert: a block an expert looks through all pairs, then one block makes items.
 *
 * Neither step depends on the order in which blocks or threads come.
 */
#include "plugins/cuda/route_sort.cuh"

enum { SORT_THREADS = 256 };

/* Sort the pairs of many rows: a block an expert finds its pairs, in order, and how many stand before them. */
static __global__ void __launch_bounds__(SORT_THREADS) route_sort(route_shape s, route_at to)
{
    enum { WARPS = SORT_THREADS / GPU_WARP };
    __shared__ int lower[WARPS], equal[WARPS];
    int expert = (int)blockIdx.x, pairs = s.rows * s.top_k;
    int lane = (int)threadIdx.x % GPU_WARP, warp = (int)threadIdx.x / GPU_WARP;
    int each = layout_ceil(layout_ceil(pairs, WARPS), GPU_WARP) * GPU_WARP; /* pairs of a warp */
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
    int each = layout_ceil(s.experts, SORT_THREADS), from = (int)threadIdx.x * each,
        end = min(from + each, s.experts);
    int sum = 0, all;

    for (int e = from; e < end; e++) sum += layout_ceil(to.start[e + 1] - to.start[e], s.item);
    int at = block_scan(sum, room, &all);

    for (int e = from; e < end; e++) {
        int n = to.start[e + 1] - to.start[e];

        put_items(&s, to.item + at, e, to.start[e], n);
        at += layout_ceil(n, s.item);
    }
    if (threadIdx.x == 0) to.count[0] = all;
}

void cuda_route_sort(rd_device *d, const route_shape *s, const route_at *to)
{
    RD_LAUNCH(route_sort, (unsigned)s->experts, SORT_THREADS, 0, d->stream, *s, *to);
    RD_LAUNCH(route_items, 1, SORT_THREADS, 0, d->stream, *s, *to);
}
