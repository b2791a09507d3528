/* experts_unit.cuh - how the products of experts are cut into work: what its kernels of few rows, of many and in float32 share.
 *
 * A unit is an item and a slice of the outputs. How many items there are is known on the device alone, so a launch has as many
 * blocks as the device holds at once (or fewer, where there cannot be so many units), and block b takes units b, b + blocks
 * and so on. The shared expert's units come first: they have the most rows. What a unit computes does not depend on which
 * block it falls to.
 */
#ifndef RD_CUDA_EXPERTS_UNIT_CUH
#define RD_CUDA_EXPERTS_UNIT_CUH

#include "plugins/cuda/experts.cuh"

/* The two launches: inner rows are made, then results of them. */
typedef enum experts_part { EXPERTS_GATE_UP, EXPERTS_DOWN } experts_part;

typedef struct unit {
    int expert, first, count; /* places [first, first + count) of an expert */
    int slice;
    bool shared;
} unit;

static __device__ inline int shared_items(const experts_launch &l)
{
    return l.shared.here ? (l.rows + l.item - 1) / l.item : 0;
}

/* Units of the launch; slices of either side's items. */
static __device__ inline int units_of(const experts_launch &l, int slices, int shared_slices)
{
    return shared_items(l) * shared_slices + (l.routed.here ? l.route.count[0] * slices : 0);
}

static __device__ inline unit unit_at(const experts_launch &l, int i, int slices, int shared_slices)
{
    int shared = shared_items(l) * shared_slices;
    unit u;

    if (i < shared) {
        int at = i / shared_slices * l.item;

        u.expert = l.experts;
        u.first = l.pairs + at;
        u.count = min(l.item, l.rows - at);
        u.slice = i % shared_slices;
        u.shared = true;
    } else {
        route_item item = l.route.item[(i - shared) / slices];

        u.expert = item.expert;
        u.first = item.first;
        u.count = item.count;
        u.slice = (i - shared) % slices;
        u.shared = false;
    }
    return u;
}

/* The inner row of a place of the unit's side. */
template <class T>
static __device__ inline T *inner_row(const experts_launch &l, const unit &u, int place)
{
    const experts_side *side = u.shared ? &l.shared : &l.routed;

    return (T *)side->inner + (size_t)(place - (u.shared ? l.pairs : 0)) * (size_t)side->stride;
}

/* Column `col` of the inner row of a place. */
static __device__ inline void put_inner(const experts_launch &l, const unit &u, int place, int col,
                                        float h)
{
    if (l.inner == CUDA_HALF_NONE)
        inner_row<float>(l, u, place)[col] = h;
    else
        inner_row<uint16_t>(l, u, place)[col] = product_half(h, l.inner);
}

/* Slices of `cols` outputs of a side's items. */
LAYOUT_BOTH static inline int slices_of(const experts_launch &l, experts_part part,
                                        const experts_side &side, int cols)
{
    return layout_ceil(part == EXPERTS_DOWN ? l.hidden : side.stride, cols);
}

/* ---- launches ---- */

/* Blocks for slices of `cols` outputs, at most `each` a multiprocessor. */
static inline unsigned experts_blocks(const rd_device *d, const experts_launch *l,
                                      experts_part part, int cols, int each)
{
    int64_t routed = slices_of(*l, part, l->routed, cols);
    int64_t shared = slices_of(*l, part, l->shared, cols), most = (int64_t)d->processors * each;
    int64_t units = (l->routed.here ? l->items_most * routed : 0) +
                    (l->shared.here ? layout_ceil(l->rows, l->item) * shared : 0);

    return (unsigned)(units < most ? units : most);
}

/* Launch one part by weights of this form, which is not CUDA_F32: items of at most ROUTE_ITEM_FEW places, or of at most
 * ROUTE_ITEM_MANY. */
CUDA_LOCAL void experts_few(rd_device *d, cuda_form form, const experts_launch *l,
                            experts_part part);
CUDA_LOCAL void experts_many(rd_device *d, cuda_form form, const experts_launch *l,
                             experts_part part);
/* Once, when a device is opened. */
CUDA_LOCAL rd_status experts_many_open(rd_error *err);

#endif
