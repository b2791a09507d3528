/* test_layout.c - the index arithmetic of the CUDA backend, on the host. */
#include "plugins/cuda/layout.h"

#include "core/base/memory.h"
#include "core/base/random.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 37, COLS = 300 };

/* Panels of random bytes and scales of one. */
static uint8_t *panels(rd_pack p, float *scale)
{
    size_t n = rd_pack_panels(ROWS) * rd_pack_panel_bytes(p, COLS);
    uint8_t *data = rd_alloc_array(n, 1);
    rd_random r = rd_random_seed(7);

    for (size_t i = 0; i < n; i++) data[i] = (uint8_t)rd_random_u64(&r);
    for (size_t i = 0; i < rd_pack_panels(ROWS) * RD_PACK_ROWS; i++) scale[i] = 1.0f;
    return data;
}

Test(cuda_layout, numbers_of_int8_panels_are_where_the_format_puts_them)
{
    float scale[48], want[COLS];
    uint8_t *data = panels(RD_PACK_INT8, scale);
    size_t bytes = rd_pack_panel_bytes(RD_PACK_INT8, COLS);

    for (int r = 0; r < ROWS; r++) {
        rd_unpack_row(RD_PACK_INT8, data, scale, COLS, r, want);
        for (int c = 0; c < COLS; c++)
            cr_assert_eq((int)data[layout_panel8(bytes, r, c)] - RD_PACK_INT8_ZERO, (int)want[c], "%d, %d", r, c);
    }
    free(data);
}

Test(cuda_layout, numbers_and_steps_of_int4_panels_are_where_the_format_puts_them)
{
    float scale[48], want[COLS];
    uint8_t *data = panels(RD_PACK_INT4, scale);
    size_t bytes = rd_pack_panel_bytes(RD_PACK_INT4, COLS);

    for (int r = 0; r < ROWS; r++) {
        rd_unpack_row(RD_PACK_INT4, data, scale, COLS, r, want);
        for (int c = 0; c < COLS; c++) {
            int q = (data[layout_panel4(bytes, r, c)] >> layout_panel4_bit(c) & 15) - RD_PACK_INT4_ZERO;

            cr_assert_eq(q * data[layout_panel4_step(bytes, r, c)], (int)want[c], "%d, %d", r, c);
        }
    }
    free(data);
}

Test(cuda_layout, every_nibble_of_a_group_has_one_number_and_pairs_are_neighbours)
{
    uint32_t words[LAYOUT_GROUP / 8] = { 0 };

    for (int c = 0; c < LAYOUT_GROUP; c++) {
        uint32_t nibble = 15u << layout_i4_bit(c);

        cr_assert_lt(layout_i4_word(c), LAYOUT_GROUP / 8);
        cr_assert_eq(words[layout_i4_word(c)] & nibble, 0, "%d", c);
        words[layout_i4_word(c)] |= nibble;
        if (c % 2 == 0) { /* the halves of one pair */
            cr_assert_eq(layout_i4_word(c + 1), layout_i4_word(c));
            cr_assert_eq(layout_i4_bit(c + 1), layout_i4_bit(c) + 16);
        }
    }
    for (int i = 0; i < LAYOUT_GROUP / 8; i++) cr_assert_eq(words[i], 0xffffffffu);
}

Test(cuda_layout, parts_follow_each_other_and_differ_by_one_at_most)
{
    for (int n = 0; n <= 80; n++)
        for (int parts = 1; parts <= 9; parts++) {
            int least = n, most = 0;

            cr_assert_eq(layout_part(n, parts, 0), 0);
            cr_assert_eq(layout_part(n, parts, parts), n);
            for (int i = 0; i < parts; i++) {
                int size = layout_part(n, parts, i + 1) - layout_part(n, parts, i);

                least = size < least ? size : least;
                most = size > most ? size : most;
            }
            cr_assert(least >= 0 && most - least <= 1, "%d in %d", n, parts);
        }
}

/* 16 bytes are four of 32 banks. */
static int banks(int byte)
{
    return byte / 16 % 8;
}

Test(cuda_layout, a_tile_has_a_place_for_each_piece_and_no_two_of_eight_in_one_bank)
{
    bool taken[128 * 8] = { false };

    for (int row = 0; row < 128; row++)
        for (int piece = 0; piece < 8; piece++) {
            int at = layout_tile(row, piece);

            cr_assert(at % 16 == 0 && at >= 0 && at < 128 * 128);
            cr_assert(!taken[at / 16], "row %d, piece %d", row, piece);
            taken[at / 16] = true;
        }
    for (int first = 0; first < 128; first += 8) /* eight rows of a piece, and eight pieces of a row */
        for (int piece = 0; piece < 8; piece++) {
            unsigned down = 0, across = 0;

            for (int i = 0; i < 8; i++) {
                down |= 1u << banks(layout_tile(first + i, piece));
                across |= 1u << banks(layout_tile(first + piece, i));
            }
            cr_assert_eq(down, 0xffu);
            cr_assert_eq(across, 0xffu);
        }
}
