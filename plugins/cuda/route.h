/* route.h - what the router's kernels and the host must agree on: the layout of its results, and its small decisions.
 *
 * A pair is a row and one of its chosen experts. Pairs are sorted by expert, and by row within an expert; the number of a
 * pair in that order is its place. Places behind the pairs are those of the shared expert, one a row. An item is a run of
 * places of one expert that product kernels take together. The number of items is known on the device alone; the most there
 * can be is known here, and sizes the lists. Plain C: tests run it on the host.
 */
#ifndef RD_CUDA_ROUTE_H
#define RD_CUDA_ROUTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __CUDACC__
#define ROUTE_BOTH static __host__ __device__ inline
#else
#define ROUTE_BOTH static inline
#endif

enum {
    ROUTE_EXPERTS_MOST = 1024, /* 32 a lane */
    ROUTE_WARPS = 8,           /* of a block of the choosing kernel: one row each */
    ROUTE_FEW = 64,            /* rows up to which one block sorts: bits of two words an expert */
    ROUTE_FEW_PAIRS = 1 << 14, /* two counts share a word there */
    ROUTE_ITEM_FEW = 32,       /* places of an item of a pass of few rows */
    ROUTE_ITEM_MANY = 64,      /* and of many */
    ROUTE_SHARED_MOST = 48 << 10,
};

/* The router's numbers, the same in each step: part of a command's arguments. */
typedef struct route_shape {
    int rows, hidden, experts, top_k, groups, groups_open, capacity, window;
    int branch_first, branch_size; /* size 0: no row is left out of its window's choice */
    float scaling;
    int item; /* places of one item at most */
} route_shape;

typedef struct route_item {
    int expert, first, count, none;
} route_item;

/* Where things stand in CUDA_SLOT_ROUTE, in bytes. */
typedef struct route_layout {
    size_t logits; /* float [rows, experts] */
    size_t chosen; /* int [rows, top_k], best first */
    size_t weight; /* float [rows, top_k] */
    size_t place;  /* int [rows, top_k] */
    size_t row;    /* int [pairs + rows]: of a place */
    size_t start;  /* int [experts + 1]: the first place of an expert */
    size_t item;   /* route_item [items_most] */
    size_t count;  /* int [2]: items; blocks of the choosing kernel that are done */
    size_t bytes;
} route_layout;

ROUTE_BOTH int route_up(int n, int by)
{
    return (n + by - 1) / by;
}

/* One block sorts the pairs. */
ROUTE_BOTH bool route_few(int rows, int top_k)
{
    return rows <= ROUTE_FEW && rows * top_k <= ROUTE_FEW_PAIRS;
}

/* Every touched expert has a last item; the others are full. */
ROUTE_BOTH int route_items_most(int rows, int top_k, int experts, int item)
{
    int pairs = rows * top_k, touched = pairs < experts ? pairs : experts;

    return touched + pairs / item;
}

ROUTE_BOTH route_layout route_layout_of(int rows, int top_k, int experts, int item)
{
    size_t pairs = (size_t)rows * (size_t)top_k, at = 0;
    route_layout l;

#define ROUTE_PART(part, n) \
    l.part = at;            \
    at += ((size_t)(n) + 15) / 16 * 16
    ROUTE_PART(logits, 4 * (size_t)rows * (size_t)experts);
    ROUTE_PART(chosen, 4 * pairs);
    ROUTE_PART(weight, 4 * pairs);
    ROUTE_PART(place, 4 * pairs);
    ROUTE_PART(row, 4 * (pairs + (size_t)rows));
    ROUTE_PART(start, 4 * ((size_t)experts + 1));
    ROUTE_PART(item, sizeof(route_item) * (size_t)route_items_most(rows, top_k, experts, item));
    ROUTE_PART(count, 8);
#undef ROUTE_PART
    l.bytes = at;
    return l;
}

/* Rows from `first`, the beginning of a window, on that have a say in which experts it admits. `counts` NULL: all. */
ROUTE_BOTH int route_voters(const route_shape *s, const int *counts, int first)
{
    int run = s->rows - first < s->window ? s->rows - first : s->window, at, left;

    if (!counts || s->branch_size < 1 || first < s->branch_first) return run;
    at = first - s->branch_first;
    left = counts[at / s->branch_size] - at % s->branch_size;
    return left < 1 ? 1 : left < run ? left : run;
}

/* Blocks of the choosing kernel for each window of rows; without block routing the pass is one window. */
ROUTE_BOTH int route_window(const route_shape *s)
{
    return s->capacity > 0 && s->window < s->rows ? s->window : s->rows;
}

ROUTE_BOTH int route_window_blocks(const route_shape *s)
{
    return route_up(route_window(s), ROUTE_WARPS);
}

ROUTE_BOTH int route_blocks(const route_shape *s)
{
    return route_up(s->rows, route_window(s)) * route_window_blocks(s);
}

/* Bytes of shared memory of the choosing kernel: for each warp the scores of a row, the groups' scores and the chosen; for
 * the block what its window admits. The sort of few rows takes the same memory: two words of rows and a start an expert. */
ROUTE_BOTH size_t route_shared(const route_shape *s)
{
    size_t experts = (size_t)s->experts, groups = s->groups > 1 ? (size_t)s->groups : 0;
    size_t choose = 4 * ROUTE_WARPS * (experts + groups + (size_t)s->top_k) + 8 * experts;
    size_t sort = 12 * experts + 4 * ROUTE_WARPS;

    return choose > sort ? choose : sort;
}

/* Does a go before b? Ties to the lower id. */
ROUTE_BOTH bool route_before(float a, int a_id, float b, int b_id)
{
    return a > b || (a == b && a_id < b_id);
}

#endif
