/* pack.h - the schemes of packed weights and their sizes, for files and backends alike. core/format/packed.h says how the
 * bytes stand. */
#ifndef RD_BASE_PACK_H
#define RD_BASE_PACK_H

#include <stddef.h>
#include <stdint.h>

typedef enum rd_pack { RD_PACK_NONE, RD_PACK_INT8, RD_PACK_INT4 } rd_pack;

enum {
    RD_PACK_ROWS = 16,   /* output rows of a panel */
    RD_PACK_COLS = 128,  /* columns are padded to a multiple */
    RD_PACK_GROUP = 32,  /* columns with one g */
    RD_PACK_CELL = 1088, /* bytes of 16 rows by 128 columns of int4 */
    RD_PACK_LINE = 64,   /* panels begin at a multiple of so many bytes */
};

static inline size_t rd_pack_panels(int rows)
{
    return ((size_t)rows + RD_PACK_ROWS - 1) / RD_PACK_ROWS;
}

static inline size_t rd_pack_cells(int cols)
{
    return ((size_t)cols + RD_PACK_COLS - 1) / RD_PACK_COLS;
}

/* 0 for RD_PACK_NONE. */
static inline size_t rd_pack_panel_bytes(rd_pack p, int cols)
{
    size_t each = p == RD_PACK_INT8   ? (size_t)RD_PACK_ROWS * RD_PACK_COLS
                  : p == RD_PACK_INT4 ? (size_t)RD_PACK_CELL
                                      : 0;

    return rd_pack_cells(cols) * each;
}

/* Numbers of a panel as they stand there: q + 128, and q + 8 with the steps g behind the vectors of a cell. */
enum { RD_PACK_INT8_ZERO = 128, RD_PACK_INT4_ZERO = 8, RD_PACK_VECTOR = 64, RD_PACK_STEPS = 1024 };

/* One row of a packed weight as float32 [cols]: the reference, and what an embedding is read with. */
void rd_unpack_row(rd_pack p, const void *panels, const float *scales, int cols, int row,
                   float *out);
/* The first of `n` scales that is negative, -0 too, or not finite; `n`: all are good. */
size_t rd_pack_bad_scale(const float *scales, size_t n);

#endif
