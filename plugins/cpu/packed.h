/* packed.h - products with packed weights: activations as bytes, sums in integers.
 *
 * A row of activations x becomes q * s: bytes in -127..127, one scale. Rows meet packed weights (core/base/pack.h) in tiles of
 * up to RD_TILE_ROWS rows, in which 4 neighbouring columns of a row are one word and the tile's words of the same columns
 * stand side by side. All sums of a tile are integers that fit in 32 bits, and the few float operations at its end
 * come in one order: every instruction set gives the same bits.
 *
 * int4: a group's sum, below 2^15, times the group's g goes into a 32-bit sum for RD_CELLS_AT_ONCE cells at most, then into a
 * float. A row that holds NaN or infinity gets NaN as its scale, so that all its products are NaN.
 */
#ifndef RD_CPU_PACKED_H
#define RD_CPU_PACKED_H

#include "core/base/pack.h"

#include <stddef.h>
#include <stdint.h>

struct rd_weight;

enum {
    RD_TILE_ROWS = 16,
    RD_CELLS_AT_ONCE = 64,         /* 256 groups * 255 * 8 * 127 * 32 < 2^31 */
    RD_PACKED_COLS_MOST = 1 << 16, /* 255 * 127 * 2^16 < 2^31 */
};

/* Rows as bytes, one after the other. What stands in `group` and `sum` is the instruction set's own: where it multiplies
 * weights as 0..15 and 0..255, it begins with -8 and -128 times the sum of the row's bytes. */
typedef struct rd_byte_rows {
    int8_t *q;      /* [rows][stride], zeros behind the columns */
    int32_t *group; /* [rows][stride / RD_PACK_GROUP] */
    int32_t *sum;   /* [rows] */
    float *scale;   /* [rows] */
    size_t stride;  /* a multiple of RD_PACK_COLS */
    int rows;
} rd_byte_rows;

typedef struct rd_tile {
    int first, rows; /* numbers of its rows in the result */
    uint32_t *q;     /* [stride / 4][rows] */
    int32_t *group;  /* [stride / RD_PACK_GROUP][rows] */
    int32_t sum[RD_TILE_ROWS];
    float scale[RD_TILE_ROWS];
} rd_tile;

typedef struct rd_packed_kernels {
    const char *name;
    /* x[n] as bytes, with what belongs to them. */
    void (*quantise)(const float *x, int n, int8_t *q, size_t stride, int32_t *group, int32_t *sum,
                     float *scale);
    /* The output rows of panels [from, to) for all tiles; `out` is the place of row 0 and the first of them. */
    void (*product)(float *out, size_t ldo, const rd_tile *tiles, int n, const struct rd_weight *w,
                    int from, int to);
} rd_packed_kernels;

/* A row whose numbers are all smaller is zeros: 127 over it would not be finite. */
#define RD_SMALLEST 1e-30f

extern const rd_packed_kernels rd_packed_plain, rd_packed_avx2, rd_packed_avx512;

/* Bytes that `rows` rows of `cols` numbers need, as byte rows and as tiles; multiples of 64. */
size_t rd_byte_rows_bytes(int rows, int cols);
size_t rd_tiles_bytes(int rows, int cols);
/* How many tiles `rows` rows make: as few as can be, and all about as large. */
int rd_tile_count(int rows);

rd_byte_rows rd_byte_rows_at(void *room, int rows, int cols);
/* x[n] as row r. */
static inline void rd_packed_quantise(const rd_packed_kernels *k, const rd_byte_rows *to, int r,
                                      const float *x, int n)
{
    size_t at = (size_t)r;

    k->quantise(x, n, to->q + at * to->stride, to->stride,
                to->group + at * (to->stride / RD_PACK_GROUP), &to->sum[at], &to->scale[at]);
}
/* Give rd_tile_count(rows) tiles their rows and their places in `room`; their numbers come with rd_tile_fill. */
void rd_tiles_place(rd_tile *tiles, void *room, const rd_byte_rows *x, int rows);
/* The rows index[0..rows) of `x`, all of them, as tiles in `room`. */
void rd_tiles_make(rd_tile *tiles, void *room, const rd_byte_rows *x, const int *index, int rows);
/* One tile: the rows index[0..rows) of x, or (NULL) those from `first` on. */
void rd_tile_fill(rd_tile *tile, const rd_byte_rows *x, const int *index, int first, int rows);

#endif
