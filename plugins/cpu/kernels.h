/* kernels.h - the arithmetic of one instruction set, on host memory, one thread's share at a time.
 *
 * A weight [rows, cols] lies in panels of 16 output rows, padded with zeros: float32 [panel][k][16]
 * or bf16 [panel][k / 2][16][2]; int8 weights are bf16 integers with the row's scale applied after
 * the sum. The plain set keeps float32 rows as they are. Keys of a block lie transposed, [d][key].
 */
#ifndef RD_CPU_KERNELS_H
#define RD_CPU_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RD_PANEL = 16, RD_QUERY_ROWS = 32 };

typedef enum rd_panel_kind {
    RD_ROWS_F32,
    RD_PANELS_F32,
    RD_PANELS_BF16,
    RD_PACKED_INT8, /* as they stand in the file: plugins/cpu/packed.h */
    RD_PACKED_INT4,
} rd_panel_kind;

struct rd_weight {
    int rows, cols;
    rd_panel_kind kind;
    void *data;
    float *scale; /* [rows padded to 16], or NULL */
    size_t bytes;
    bool in_place; /* data and scale belong to whoever handed the weight over */
};

/* Rows of the left factor: row r stands at x + (index ? index[r] : r) * stride elements. */
typedef struct rd_rows_in {
    const void
        *x; /* float32, or bf16 where the set's `half` is true and the weight's kind is bf16 */
    size_t stride;
    const int *index;
    int rows;
} rd_rows_in;

/* One head's queries (at most RD_QUERY_ROWS rows) over tiles of keys: all tiles are full but for the
 * last, of which `last` keys count. */
typedef struct rd_tiles {
    const void *const *k; /* [tiles] of float32 [head_dim][tile]; bf16: [head_dim / 2][tile][2] */
    const void *const *v; /* [tiles] of float32 [tile][head_dim]; bf16: [tile / 2][head_dim][2] */
    int tiles, tile, last, head_dim;
} rd_tiles;

/* Rows of neighbouring heads that share keys and values. Head h of row r: q + r * stride + h * head_dim. */
typedef struct rd_queries {
    const float *q;
    float *out;
    size_t stride, out_stride;
    int rows, heads;
} rd_queries;

/* Attention over tiles of bf16, where the processor multiplies that; `room`: rd_attend_bf16_floats, at a multiple of 64
 * bytes. Only tiles and heads that fit. */
bool rd_attend_bf16_fits(int tile, int head_dim);
size_t rd_attend_bf16_floats(int rows, int heads, int head_dim);
void rd_attend_bf16(const rd_queries *q, const rd_tiles *t, float *room);

/* The largest of some numbers and the next one, with their places; ties to the lower place, -1: there is none. */
typedef struct rd_top {
    int best, second;
    float top, second_top;
} rd_top;

static inline void rd_top_offer(rd_top *t, float x, int place)
{
    if (x > t->top || (x == t->top && place < t->best)) {
        t->second = t->best;
        t->second_top = t->top;
        t->best = place;
        t->top = x;
    } else if (x > t->second_top || (x == t->second_top && place < t->second)) {
        t->second = place;
        t->second_top = x;
    }
}

typedef struct rd_kernels {
    const char *name;
    bool half; /* bf16 weights want bf16 rows */
    rd_panel_kind exact, fast;
    /* The output rows of panels [from, to) (16 rows each, also for RD_ROWS_F32); `out` is the place of
     * row 0 and the first of them. */
    void (*product)(float *out, size_t ldo, const rd_rows_in *x, const struct rd_weight *w,
                    int from, int to);
    void (*norm)(float *out, const float *x, const float *weight, int n, float eps);
    void (*gate)(float *h, const float *up, int n); /* h = silu(h) * up */
    /* q: [rows][stride]; out: [rows][out_stride]; scores: room for rows * tiles * tile floats */
    void (*attend)(float *out, size_t out_stride, const float *q, size_t stride, int rows,
                   const rd_tiles *t, float *scores);
    rd_top (*top_two)(const float *x, int n);
    /* Sum of exp(x - top) over n. */
    float (*sum_exp)(const float *x, int n, float top);
} rd_kernels;

extern const rd_kernels rd_kernels_plain;
extern const rd_kernels rd_kernels_avx2, rd_kernels_avx512, rd_kernels_avx512_bf16;

#endif
