/* pack.c - packed numbers read one by one, in plain C: what all kernels are held against. */
#include "core/base/pack.h"

#include <math.h>
#include <string.h>

static int number8(const uint8_t *panel, int r, int k)
{
    return panel[(size_t)(k / 4) * RD_PACK_VECTOR + (size_t)(4 * r + k % 4)] - RD_PACK_INT8_ZERO;
}

static int number4(const uint8_t *panel, int r, int k)
{
    const uint8_t *cell = panel + (size_t)(k / RD_PACK_COLS) * RD_PACK_CELL;
    int group = k % RD_PACK_COLS / RD_PACK_GROUP, i = k % RD_PACK_GROUP, half = RD_PACK_GROUP / 2;
    int both = cell[(group * 4 + i % half / 4) * RD_PACK_VECTOR + 4 * r + i % 4];

    return ((i < half ? both & 15 : both >> 4) - RD_PACK_INT4_ZERO) *
           cell[RD_PACK_STEPS + group * RD_PACK_ROWS + r];
}

void rd_unpack_row(rd_pack p, const void *panels, const float *scales, int cols, int row,
                   float *out)
{
    const uint8_t *panel =
        (const uint8_t *)panels + (size_t)(row / RD_PACK_ROWS) * rd_pack_panel_bytes(p, cols);
    int r = row % RD_PACK_ROWS;

    for (int k = 0; k < cols; k++)
        out[k] =
            (float)(p == RD_PACK_INT8 ? number8(panel, r, k) : number4(panel, r, k)) * scales[row];
}

/* Bits tell: one of a number and its sum with the lowest exponent's bit has the sign's bit set, unless the number is positive
 * and finite. A large model has 15 million scales, and this loop is most of what opening it does to them. */
size_t rd_pack_bad_scale(const float *scales, size_t n)
{
    uint32_t any = 0;
    size_t at = 0;

    for (size_t i = 0; i < n; i++) {
        uint32_t bits;

        memcpy(&bits, scales + i, sizeof bits);
        any |= bits | (bits + 0x00800000u);
    }
    if (!(any >> 31)) return n;
    while (isfinite(scales[at]) && !signbit(scales[at])) at++;
    return at;
}
