/* experts.cuh - products of experts over sorted pairs, as moe.cu launches them.
 *
 * A launch takes the routed experts' items, or the shared expert's, or both where their weights are of one form. Inner rows and
 * results stand by place: those of pairs first, then the shared expert's, one a row.
 */
#ifndef RD_CUDA_EXPERTS_CUH
#define RD_CUDA_EXPERTS_CUH

#include "plugins/cuda/product.cuh"
#include "plugins/cuda/route.cuh"

/* The routed experts, or the shared one, in a launch. */
typedef struct experts_side {
    bool here;
    int width;    /* inner columns */
    int stride;   /* of inner rows: down's stride */
    void *inner;  /* 16-bit, or float where down is CUDA_F32: of the side's first place on */
} experts_side;

typedef struct experts_launch {
    route_at route;
    int rows, hidden, pairs, experts;
    int item;       /* places of one item at most */
    int items_most; /* of the routed experts */
    /* Tables on the device: weight i is expert i's, weight `experts` the shared one's. */
    const product_weight *gate, *up, *down;
    experts_side routed, shared;
    const void *x;     /* [rows, stride] 16-bit, or float [rows, hidden] where gate is CUDA_F32 */
    int stride;        /* of x: gate's stride */
    cuda_half inner;   /* what inner rows are rounded to; NONE: float */
    float *out;        /* [pairs + rows, hidden] */
} experts_launch;

/* Once, when a device is opened. */
CUDA_LOCAL rd_status experts_open(rd_error *err);
/* inner = SiLU(gate x) * up x, by weights of this form; then out = down inner. */
CUDA_LOCAL rd_status experts_gate_up(rd_device *d, cuda_form form, const experts_launch *l, rd_error *err);
CUDA_LOCAL rd_status experts_down(rd_device *d, cuda_form form, const experts_launch *l, rd_error *err);
/* y [rows, hidden] = the sum over each row's experts of their weight times out, and the shared expert's out if it is here. */
CUDA_LOCAL rd_status experts_sum(rd_device *d, const experts_launch *l, int top_k, bool shared, float *y,
                                 rd_error *err);

#endif
