/* test_packed.c - panels hold each number where packed.h says, near what it was, and nothing that is not a number.
 *
 * Where a number stands is worked out here a second time, from the header's words alone: byte by byte, by division.
 */
#include "core/base/memory.h"
#include "core/base/random.h"
#include "core/format/packed.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    int rows, cols;
} shapes[] = { { 16, 128 }, { 1, 1 },    { 3, 31 },   { 16, 32 },  { 7, 33 },
               { 16, 96 },  { 15, 127 }, { 16, 129 }, { 11, 300 }, { 16, 640 } };

enum { SHAPES = sizeof shapes / sizeof *shapes, MOST = 16 * 640 };

static float random_number(rd_random *r)
{
    float x = (float)rd_random_below(r, 2001) / 1000.0f - 1.0f;

    return x * x * x; /* many small, few large */
}

static void random_rows(float *w, int n, uint64_t seed)
{
    rd_random r = rd_random_seed(seed);

    for (int i = 0; i < n; i++) w[i] = random_number(&r);
}

/* The number at (row, col) times its scale, by the header's text: vectors of 64 bytes, 4 columns of each of 16 rows. */
static float second_reading(rd_pack p, const uint8_t *panel, const float *scales, int row, int col)
{
    if (p == RD_PACK_INT8) {
        size_t vector = (size_t)col / 4, byte = (size_t)row * 4 + (size_t)col % 4;

        return ((float)panel[64 * vector + byte] - 128.0f) * scales[row];
    }
    const uint8_t *cell = panel + 1088 * ((size_t)col / 128);
    size_t group = (size_t)col / 32 % 4, in_group = (size_t)col % 32;
    size_t vector = in_group % 16 / 4, byte = (size_t)row * 4 + in_group % 4;
    uint8_t both = cell[256 * group + 64 * vector + byte];
    float q = (float)(in_group < 16 ? both % 16 : both / 16) - 8.0f;

    return q * (float)cell[1024 + 16 * group + (size_t)row] * scales[row];
}

Test(packed, sizes_are_those_of_the_header)
{
    cr_assert_eq(rd_pack_panel_bytes(RD_PACK_INT8, 128), 2048u);
    cr_assert_eq(rd_pack_panel_bytes(RD_PACK_INT8, 129), 4096u);
    cr_assert_eq(rd_pack_panel_bytes(RD_PACK_INT4, 1), 1088u);
    cr_assert_eq(rd_pack_panel_bytes(RD_PACK_INT4, 2048), 16u * 1088u);
    cr_assert_eq(rd_pack_panels(16), 1u);
    cr_assert_eq(rd_pack_panels(17), 2u);
    cr_assert_eq(rd_pack_named("int8-panel"), RD_PACK_INT8);
    cr_assert_eq(rd_pack_named("int4-panel"), RD_PACK_INT4);
    cr_assert_eq(rd_pack_named("int8-row"), RD_PACK_NONE);
    cr_assert_eq(rd_pack_named(NULL), RD_PACK_NONE);
    cr_assert_str_eq(rd_pack_name(RD_PACK_INT4), "int4-panel");
    cr_assert_null(rd_pack_name(RD_PACK_NONE));
}

Test(packed, each_number_stands_where_the_header_says)
{
    static float w[MOST], row[640];
    static uint8_t panel[16 * 1024];
    float scales[16];
    rd_error err;

    for (int p = RD_PACK_INT8; p <= RD_PACK_INT4; p++)
        for (int i = 0; i < SHAPES; i++) {
            int rows = shapes[i].rows, cols = shapes[i].cols;

            random_rows(w, rows * cols, (uint64_t)i + 1);
            memset(panel, 0xee, sizeof panel);
            cr_assert(!rd_pack_panel((rd_pack)p, w, rows, cols, panel, scales, &err));
            cr_assert_eq(panel[rd_pack_panel_bytes((rd_pack)p, cols)], 0xee, "written too far");
            for (int r = 0; r < rows; r++) {
                rd_unpack_row((rd_pack)p, panel, scales, cols, r, row);
                for (int k = 0; k < cols; k++)
                    cr_assert_eq(row[k], second_reading((rd_pack)p, panel, scales, r, k),
                                 "%d: [%d, %d] at %d, %d", p, rows, cols, r, k);
            }
        }
}

/* One number set, and which bytes that changes. */
Test(packed, a_number_changes_its_own_byte_alone)
{
    float w[16 * 256] = { 0 }, scales[16];
    uint8_t empty[2 * 2048], panel[2 * 2048];
    rd_error err;

    cr_assert(!rd_pack_panel(RD_PACK_INT8, w, 16, 256, empty, scales, &err));
    w[5 * 256 + 133] = 2.54f;
    cr_assert(!rd_pack_panel(RD_PACK_INT8, w, 16, 256, panel, scales, &err));
    for (size_t i = 0; i < sizeof panel; i++)
        cr_assert_eq(panel[i], i == 133 / 4 * 64 + 5 * 4 + 133 % 4 ? 255 : 128, "byte %zu", i);
    cr_assert_float_eq(scales[5], 0.02f, 1e-9f);

    cr_assert(!rd_pack_panel(RD_PACK_INT4, w, 16, 256, panel, scales, &err));
    /* Column 133 is the fifth of the second cell: group 0, vector 1, byte 1 of row 5's four, low half. */
    for (size_t i = 0; i < 2 * 1088; i++) {
        size_t in_cell = i % 1088;
        bool steps = in_cell >= 1024, own = i == 1088 + 64 + 5 * 4 + 1, g = i == 1088 + 1024 + 5;

        if (!own && !g) cr_assert_eq(panel[i], steps ? 0 : 0x88, "byte %zu", i);
    }
    int q = (panel[1088 + 64 + 5 * 4 + 1] & 15) - 8, g = panel[1088 + 1024 + 5];

    cr_assert_eq(panel[1088 + 64 + 5 * 4 + 1] >> 4, 8);
    cr_assert_float_eq((float)(q * g) * scales[5], 2.54f, 1e-3f);
}

Test(packed, what_is_padding_stands_for_zero)
{
    float w[3 * 33], scales[16], row[128];
    uint8_t panel[2048];
    rd_error err;

    random_rows(w, 3 * 33, 9);
    for (int p = RD_PACK_INT8; p <= RD_PACK_INT4; p++) {
        cr_assert(!rd_pack_panel((rd_pack)p, w, 3, 33, panel, scales, &err));
        for (int r = 0; r < 16; r++) {
            cr_assert(r < 3 ? scales[r] > 0.0f : scales[r] == 0.0f);
            rd_unpack_row((rd_pack)p, panel, scales, 128, r, row); /* columns of padding too */
            for (int k = r < 3 ? 33 : 0; k < 128; k++) cr_assert_eq(row[k], 0.0f);
        }
    }
}

Test(packed, numbers_come_back_within_half_a_step)
{
    static float w[MOST], row[640];
    static uint8_t panel[16 * 1024];
    float scales[16];
    rd_error err;

    for (int i = 0; i < SHAPES; i++) {
        int rows = shapes[i].rows, cols = shapes[i].cols;

        random_rows(w, rows * cols, 77u + (uint64_t)i);
        cr_assert(!rd_pack_panel(RD_PACK_INT8, w, rows, cols, panel, scales, &err));
        for (int r = 0; r < rows; r++) {
            rd_unpack_row(RD_PACK_INT8, panel, scales, cols, r, row);
            for (int k = 0; k < cols; k++)
                cr_assert_leq(fabsf(row[k] - w[r * cols + k]), 0.5001f * scales[r]);
        }
        cr_assert(!rd_pack_panel(RD_PACK_INT4, w, rows, cols, panel, scales, &err));
        for (int r = 0; r < rows; r++) {
            rd_unpack_row(RD_PACK_INT4, panel, scales, cols, r, row);
            for (int k = 0; k < cols; k++) {
                int g = panel[1088 * (k / 128) + 1024 + 16 * (k / 32 % 4) + r];
                float step = (float)g * scales[r], x = w[r * cols + k];
                bool cut = x > 7.5f * step || x < -8.5f * step;

                if (!cut) cr_assert_leq(fabsf(row[k] - x), 0.5001f * step + 1e-7f);
            }
        }
    }
}

/* Squared error of a group of 32 by the plain rule, a float step of a seventh of the largest number. */
static double plain_error(const float *w, int n)
{
    float top = 0.0f;
    double error = 0.0;

    for (int i = 0; i < n; i++) top = fmaxf(top, fabsf(w[i]));
    for (int i = 0; i < n && top > 0.0f; i++) {
        double off = (double)(w[i] - rintf(w[i] * 7.0f / top) * top / 7.0f);

        error += off * off;
    }
    return error;
}

Test(packed, int4_is_nearer_than_a_plain_step_for_each_group)
{
    static float w[16 * 640], row[640];
    static uint8_t panel[16 * 1024];
    float scales[16];
    double ours = 0.0, plain = 0.0;
    rd_error err;

    random_rows(w, 16 * 640, 5);
    cr_assert(!rd_pack_panel(RD_PACK_INT4, w, 16, 640, panel, scales, &err));
    for (int r = 0; r < 16; r++) {
        rd_unpack_row(RD_PACK_INT4, panel, scales, 640, r, row);
        for (int k = 0; k < 640; k++)
            ours += ((double)row[k] - (double)w[r * 640 + k]) *
                    ((double)row[k] - (double)w[r * 640 + k]);
        for (int k = 0; k < 640; k += 32) plain += plain_error(w + r * 640 + k, 32);
    }
    cr_assert_lt(ours, 0.95 * plain, "%g against %g", ours, plain);
}

Test(packed, rows_of_zeros_and_of_the_smallest_and_largest_numbers)
{
    static const float tops[] = { 0.0f, 1e-45f, 1e-37f, 1e-30f, 1e30f, 3.4e38f };
    float w[64], scales[16], row[64];
    uint8_t panel[2048];
    rd_error err;

    for (int p = RD_PACK_INT8; p <= RD_PACK_INT4; p++)
        for (size_t i = 0; i < sizeof tops / sizeof *tops; i++) {
            for (int k = 0; k < 64; k++) w[k] = k % 3 == 0 ? tops[i] : k % 3 == 1 ? -tops[i] : 0.0f;
            cr_assert(!rd_pack_panel((rd_pack)p, w, 1, 64, panel, scales, &err));
            cr_assert(isfinite(scales[0]) && scales[0] >= 0.0f);
            rd_unpack_row((rd_pack)p, panel, scales, 64, 0, row);
            for (int k = 0; k < 64; k++) {
                cr_assert(isfinite(row[k]));
                if (tops[i] > 1e-34f || tops[i] == 0.0f)
                    cr_assert_leq(fabsf(row[k] - w[k]), 0.08f * tops[i]);
            }
        }
}

Test(packed, what_is_no_number_is_refused_by_its_place)
{
    static const float bad[] = { NAN, INFINITY, -INFINITY };
    float w[3 * 40], scales[16];
    uint8_t panel[2048];
    rd_error err;

    for (int p = RD_PACK_INT8; p <= RD_PACK_INT4; p++)
        for (int i = 0; i < 3; i++) {
            random_rows(w, 3 * 40, 3);
            w[2 * 40 + 39] = bad[i];
            cr_assert_eq(rd_pack_panel((rd_pack)p, w, 3, 40, panel, scales, &err), RD_INVALID);
            cr_assert(strstr(err.text, "row 2: column 39"), "%s", err.text);
        }
}
