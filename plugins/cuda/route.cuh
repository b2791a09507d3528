/* route.cuh - the router as the experts' products see it: a command that leaves sorted pairs and items in CUDA_SLOT_ROUTE. */
#ifndef RD_CUDA_ROUTE_CUH
#define RD_CUDA_ROUTE_CUH

#include "plugins/cuda/device.h"
#include "plugins/cuda/route.h"

/* route_layout as addresses. */
typedef struct route_at {
    float *logits;
    int *chosen;
    float *weight;
    int *place, *row, *start;
    route_item *item;
    int *count;
} route_at;

typedef struct route_args {
    route_shape shape;
    const float *x;      /* [rows, hidden] */
    const float *router; /* [experts, hidden] */
    const float *bias;   /* [experts] */
    const int *counts;   /* of branches, or NULL */
} route_args;

/* While running: where the results of a pass of this shape are. */
static inline route_at route_here(const rd_device *d, const route_shape *s)
{
    route_layout l = route_layout_of(s->rows, s->top_k, s->experts, s->item);
    char *base = (char *)cuda_scratch(d, CUDA_SLOT_ROUTE);
    route_at a = { (float *)(base + l.logits),    (int *)(base + l.chosen),
                   (float *)(base + l.weight),    (int *)(base + l.place),
                   (int *)(base + l.row),         (int *)(base + l.start),
                   (route_item *)(base + l.item), (int *)(base + l.count) };

    return a;
}

/* While recording: check the shape, make room, add the command. */
CUDA_LOCAL rd_status cuda_route(rd_device *d, const route_args *a, rd_error *err);

/* Steps of the command, while it runs: logits from rows (route_logits.cu), and pairs of many rows from what was chosen
 * (route_sort.cu). */
CUDA_LOCAL void cuda_route_logits(rd_device *d, const route_args *a, const route_at *to);
CUDA_LOCAL void cuda_route_sort(rd_device *d, const route_shape *s, const route_at *to);

#endif
