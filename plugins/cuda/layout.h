/* layout.h - where numbers stand: index arithmetic that kernels and the host share.
 *
 * Plain C, no CUDA but for the words before a function, so that tests/plugins/cuda/test_layout.c runs every line of it
 * on the host. Sources are the layouts of core/base/pack.h (panels of a file) and plugins/cuda/device.h (rows of a device).
 */
#ifndef RD_CUDA_LAYOUT_H
#define RD_CUDA_LAYOUT_H

#include "core/base/pack.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __CUDACC__
#define LAYOUT_BOTH __host__ __device__
#else
#define LAYOUT_BOTH
#endif

enum {
    LAYOUT_BLOCK = 128, /* rows and columns with one scale of E4M3 */
    LAYOUT_GROUP = 32,  /* numbers of I4 with one step, in 16 bytes */
};

/* ---- panels of a file: core/format/packed.h ---- */

/* Which byte of the panels is number (row, col) of int8; it stands there plus 128. `panel_bytes`: rd_pack_panel_bytes. */
LAYOUT_BOTH static inline size_t layout_panel8(size_t panel_bytes, int row, int col)
{
    return (size_t)(row / RD_PACK_ROWS) * panel_bytes + (size_t)(col / 4) * RD_PACK_VECTOR +
           (size_t)(4 * (row % RD_PACK_ROWS) + col % 4);
}

/* The first byte of the cell that has number (row, col) of int4. */
LAYOUT_BOTH static inline size_t layout_cell(size_t panel_bytes, int row, int col)
{
    return (size_t)(row / RD_PACK_ROWS) * panel_bytes + (size_t)(col / RD_PACK_COLS) * RD_PACK_CELL;
}

/* Which byte has number (row, col) of int4, and in which bit it begins; it stands there plus 8. */
LAYOUT_BOTH static inline size_t layout_panel4(size_t panel_bytes, int row, int col)
{
    int group = col % RD_PACK_COLS / RD_PACK_GROUP, i = col % (RD_PACK_GROUP / 2);

    return layout_cell(panel_bytes, row, col) + (size_t)((group * 4 + i / 4) * RD_PACK_VECTOR) +
           (size_t)(4 * (row % RD_PACK_ROWS) + i % 4);
}

LAYOUT_BOTH static inline int layout_panel4_bit(int col)
{
    return col % RD_PACK_GROUP < RD_PACK_GROUP / 2 ? 0 : 4;
}

/* Which byte is the step of number (row, col) of int4. */
LAYOUT_BOTH static inline size_t layout_panel4_step(size_t panel_bytes, int row, int col)
{
    return layout_cell(panel_bytes, row, col) + RD_PACK_STEPS +
           (size_t)(col % RD_PACK_COLS / RD_PACK_GROUP * RD_PACK_ROWS + row % RD_PACK_ROWS);
}

/* ---- rows of a device ---- */

/* Which word of its row has number `col` of I4, and in which bit it begins. */
LAYOUT_BOTH static inline size_t layout_i4_word(int col)
{
    return (size_t)(col / 8);
}

LAYOUT_BOTH static inline int layout_i4_bit(int col)
{
    return 4 * (col % 8 / 2) + 16 * (col % 2);
}

LAYOUT_BOTH static inline int layout_ceil(int n, int by)
{
    return (n + by - 1) / by;
}

/* Of n pieces of work in `parts` parts, the first piece of part i; i == parts: n. Parts differ by one piece at most. */
LAYOUT_BOTH static inline int layout_part(int n, int parts, int i)
{
    return (int)((int64_t)n * i / parts);
}

/* A tile in shared memory: rows of 64 halves, as 8 pieces of 16 bytes which are turned so that neither eight rows of one
 * piece (ldmatrix) nor eight pieces of a row meet in one bank. The byte of a piece. */
LAYOUT_BOTH static inline int layout_tile(int row, int piece)
{
    return row * 128 + ((piece ^ (row & 7)) * 16);
}

#endif
