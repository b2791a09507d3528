/* packed.c - rows of bytes and their tiles, whatever the instruction set. */
#include "plugins/cpu/packed.h"

#include "plugins/cpu/kernels.h"

#include <string.h>

static size_t rounded(size_t n)
{
    return (n + 63) / 64 * 64;
}

static size_t stride_of(int cols)
{
    return rd_pack_cells(cols) * RD_PACK_COLS;
}

size_t rd_byte_rows_bytes(int rows, int cols)
{
    size_t stride = stride_of(cols), n = (size_t)rows;

    return rounded(n * stride) + rounded(n * stride / RD_PACK_GROUP * sizeof(int32_t)) +
           2 * rounded(n * sizeof(int32_t));
}

size_t rd_tiles_bytes(int rows, int cols)
{
    size_t stride = stride_of(cols);

    return (size_t)rows * (stride + stride / RD_PACK_GROUP * sizeof(int32_t));
}

int rd_tile_count(int rows)
{
    return (rows + RD_TILE_ROWS - 1) / RD_TILE_ROWS;
}

rd_byte_rows rd_byte_rows_at(void *room, int rows, int cols)
{
    rd_byte_rows b = { .stride = stride_of(cols), .rows = rows };
    size_t n = (size_t)rows;
    char *at = room;

    b.q = (int8_t *)at;
    at += rounded(n * b.stride);
    b.group = (int32_t *)(void *)at;
    at += rounded(n * b.stride / RD_PACK_GROUP * sizeof(int32_t));
    b.sum = (int32_t *)(void *)at;
    at += rounded(n * sizeof(int32_t));
    b.scale = (float *)(void *)at;
    return b;
}

void rd_tile_fill(rd_tile *t, const rd_byte_rows *x, const int *index, int first, int rows)
{
    size_t words = x->stride / 4, groups = x->stride / RD_PACK_GROUP, n = (size_t)rows;

    t->rows = rows;
    for (size_t r = 0; r < n; r++) {
        size_t from = (size_t)(index ? index[r] : first + (int)r);
        const int8_t *q = x->q + from * x->stride;
        const int32_t *group = x->group + from * groups;

        for (size_t k = 0; k < words; k++) memcpy(t->q + k * n + r, q + 4 * k, 4);
        for (size_t g = 0; g < groups; g++) t->group[g * n + r] = group[g];
        t->sum[r] = x->sum[from];
        t->scale[r] = x->scale[from];
    }
}

void rd_tiles_place(rd_tile *tiles, void *room, const rd_byte_rows *x, int rows)
{
    int n = rd_tile_count(rows);
    char *at = room;

    for (int i = 0, from = 0; i < n; i++) {
        int here = (rows - from + n - i - 1) / (n - i);

        tiles[i].first = from;
        tiles[i].rows = here;
        tiles[i].q = (uint32_t *)(void *)at;
        at += (size_t)here * x->stride;
        tiles[i].group = (int32_t *)(void *)at;
        at += (size_t)here * x->stride / RD_PACK_GROUP * sizeof(int32_t);
        from += here;
    }
}

void rd_tiles_make(rd_tile *tiles, void *room, const rd_byte_rows *x, const int *index, int rows)
{
    rd_tiles_place(tiles, room, x, rows);
    for (int i = 0; i < rd_tile_count(rows); i++)
        rd_tile_fill(&tiles[i], x, index ? index + tiles[i].first : NULL, tiles[i].first,
                     tiles[i].rows);
}
