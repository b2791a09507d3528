/* packed_plain.c - products with packed weights as one would write them down: the reference of the others. */
#include "plugins/cpu/kernels.h"
#include "plugins/cpu/packed.h"

#include <math.h>
#include <string.h>

static void quantise(const float *x, int n, int8_t *q, size_t stride, int32_t *group, int32_t *sum,
                     float *scale)
{
    float top = 0.0f, odd = 0.0f; /* x - x is 0 unless x is infinite or NaN */

    for (int k = 0; k < n; k++) {
        top = fabsf(x[k]) > top ? fabsf(x[k]) : top;
        odd += x[k] - x[k];
    }
    bool finite = odd == 0.0f, some = finite && top >= RD_SMALLEST;
    float by = some ? 127.0f / top : 0.0f;

    memset(q, 0, stride);
    for (int k = 0; some && k < n; k++) q[k] = (int8_t)nearbyintf(x[k] * by);
    *sum = 0;
    for (size_t g = 0; g < stride / RD_PACK_GROUP; g++) {
        group[g] = 0;
        for (size_t k = 0; k < RD_PACK_GROUP; k++) group[g] -= 8 * q[g * RD_PACK_GROUP + k];
        *sum += 16 * group[g];
    }
    *scale = some ? top / 127.0f : finite ? 0.0f : NAN;
}

/* The 16 sums of row r of a tile with a panel of int8. */
static void row_int8(float *sums, const rd_tile *t, int r, const uint8_t *panel, size_t words)
{
    int32_t total[RD_PACK_ROWS];

    for (int i = 0; i < RD_PACK_ROWS; i++) total[i] = t->sum[r];
    for (size_t k = 0; k < words; k++, panel += 64) {
        int8_t a[4];

        memcpy(a, t->q + k * (size_t)t->rows + (size_t)r, 4);
        for (int i = 0; i < RD_PACK_ROWS; i++)
            for (int j = 0; j < 4; j++) total[i] += panel[4 * i + j] * a[j];
    }
    for (int i = 0; i < RD_PACK_ROWS; i++) sums[i] = (float)total[i];
}

static void cell_int4(int32_t *total, const rd_tile *t, int r, const uint8_t *cell, size_t at)
{
    for (size_t g = 0; g < 4; g++) {
        size_t first = (at * 4 + g) * 8; /* word of the group's first columns */
        int32_t sum[RD_PACK_ROWS];

        for (int i = 0; i < RD_PACK_ROWS; i++)
            sum[i] = t->group[(at * 4 + g) * (size_t)t->rows + (size_t)r];
        for (size_t v = 0; v < 4; v++) {
            const uint8_t *w = cell + g * 256 + v * 64;
            int8_t low[4], high[4];

            memcpy(low, t->q + (first + v) * (size_t)t->rows + (size_t)r, 4);
            memcpy(high, t->q + (first + 4 + v) * (size_t)t->rows + (size_t)r, 4);
            for (int i = 0; i < RD_PACK_ROWS; i++)
                for (int j = 0; j < 4; j++)
                    sum[i] += (w[4 * i + j] & 15) * low[j] + (w[4 * i + j] >> 4) * high[j];
        }
        for (int i = 0; i < RD_PACK_ROWS; i++)
            total[i] += sum[i] * cell[1024 + g * RD_PACK_ROWS + (size_t)i];
    }
}

static void row_int4(float *sums, const rd_tile *t, int r, const uint8_t *panel, size_t cells)
{
    for (int i = 0; i < RD_PACK_ROWS; i++) sums[i] = 0.0f;
    for (size_t c = 0; c < cells;) {
        int32_t total[RD_PACK_ROWS] = { 0 };
        size_t end = c + RD_CELLS_AT_ONCE < cells ? c + RD_CELLS_AT_ONCE : cells;

        for (; c < end; c++) cell_int4(total, t, r, panel + c * RD_PACK_CELL, c);
        for (int i = 0; i < RD_PACK_ROWS; i++) sums[i] += (float)total[i];
    }
}

static void product(float *out, size_t ldo, const rd_tile *tiles, int n, const struct rd_weight *w,
                    int from, int to)
{
    bool int8 = w->kind == RD_PACKED_INT8;
    size_t cells = rd_pack_cells(w->cols);
    size_t bytes = rd_pack_panel_bytes(int8 ? RD_PACK_INT8 : RD_PACK_INT4, w->cols);

    for (int p = from; p < to; p++) {
        const uint8_t *panel = (const uint8_t *)w->data + (size_t)p * bytes;
        const float *scale = w->scale + (size_t)p * RD_PACK_ROWS;
        int left = w->rows - p * RD_PACK_ROWS;

        for (int i = 0; i < n; i++) {
            for (int r = 0; r < tiles[i].rows; r++) {
                float *o = out + (size_t)(tiles[i].first + r) * ldo + (p - from) * RD_PACK_ROWS;
                float sums[RD_PACK_ROWS];

                if (int8)
                    row_int8(sums, &tiles[i], r, panel, cells * (RD_PACK_COLS / 4));
                else
                    row_int4(sums, &tiles[i], r, panel, cells);
                for (int k = 0; k < RD_PACK_ROWS && k < left; k++)
                    o[k] = sums[k] * scale[k] * tiles[i].scale[r];
            }
        }
    }
}

const rd_packed_kernels rd_packed_plain = { .name = "plain",
                                            .quantise = quantise,
                                            .product = product };
