/* test_sight.c - who sees whom, places in a block, turns and shares: on the host, against what core/backend.h says in words. */
#include "plugins/cuda/sight.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

/* The words of rd_attention and rd_branches, row by row. */
static bool sees(const cuda_sight *s, const int32_t *counts, int i, int j)
{
    if (i >= s->trunk) {
        if (j < s->trunk) return true; /* the rows before the branches */
        if ((j - s->trunk) / s->group != (i - s->trunk) / s->group) return false;
        return (j - s->trunk) % s->group < counts[(i - s->trunk) / s->group];
    }
    if (j >= s->trunk || j >= s->visible) return false;
    return s->sight >= s->rows || j / s->sight <= i / s->sight;
}

static void check_sight(const cuda_sight *s, const int32_t *counts)
{
    for (int i = 0; i < s->rows; i++) {
        cuda_seen seen = cuda_seen_of(s, counts, i);

        for (int j = 0; j < s->rows; j++)
            cr_assert_eq(cuda_sees(&seen, j), sees(s, counts, i, j),
                         "row %d, %d of %d: sight %d, visible %d, trunk %d", i, j, s->rows,
                         s->sight, s->visible, s->trunk);
    }
    for (int first = 0; first < s->rows; first++)
        for (int last = first; last < s->rows && last < first + 40; last++) {
            cuda_seen reach = cuda_reach_of(s, counts, first, last);
            int least = cuda_seen_of(s, counts, first).head;

            for (int i = first; i <= last; i++)
                for (int j = 0; j < s->rows; j++) {
                    if (sees(s, counts, i, j))
                        cr_assert(cuda_sees(&reach, j), "%d sees %d; %d to %d do not", i, j, first,
                                  last);
                    if (j < least) cr_assert(sees(s, counts, i, j));
                }
        }
}

Test(cuda_sight, is_what_the_backend_header_says)
{
    static const int rows[] = { 1, 5, 31, 32, 33, 64, 70 }, sights[] = { 1, 3, 4, 16, 32, 1000 };

    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
        for (size_t k = 0; k < sizeof sights / sizeof *sights; k++)
            for (int visible = 1; visible <= rows[r]; visible += 1 + rows[r] / 4) {
                cuda_sight s = { rows[r], sights[k], visible, rows[r], 1 };

                check_sight(&s, NULL);
            }
}

Test(cuda_sight, of_branches_is_what_the_backend_header_says)
{
    static const int32_t counts[] = { 16, 7, 0, 1, 9, 16, 16, 16 };

    for (int first = 0; first <= 48; first += 16)
        for (int rows = first; rows <= first + 64; rows += 13)
            for (int sight = 16; sight <= 1000; sight += 984) {
                cuda_sight s = { rows, sight, rows, first, 16 };

                if (rows > 0) check_sight(&s, counts);
            }
}

Test(cuda_sight, every_number_of_a_cell_has_a_place_of_its_own)
{
    static const int blocks[] = { 16, 32, 64 }, dims[] = { 32, 64, 128 };

    for (int b = 0; b < 3; b++)
        for (int d = 0; d < 3; d++) {
            int n = 2 * blocks[b] * dims[d];
            unsigned char *taken = calloc((size_t)n, 1);

            for (int t = 0; t < blocks[b]; t++)
                for (int i = 0; i < dims[d]; i++) {
                    int k = cuda_key_place(blocks[b], dims[d], t, i);
                    int v = cuda_value_place(blocks[b], dims[d], t, i);

                    cr_assert(k >= 0 && k < n && v >= 0 && v < n);
                    cr_assert(!taken[k]++ && !taken[v]++, "%d x %d, token %d, %d", blocks[b],
                              dims[d], t, i);
                }
            free(taken);
        }
}

Test(cuda_sight, what_a_lane_loads_is_what_its_product_wants)
{
    /* keys: lane 4 g + t, 16 bytes: dims 8t.. of token g; values: dim g, the tokens that the lane has scores of */
    for (int lane = 0; lane < 32; lane++)
        for (int i = 0; i < 8; i++) {
            int g = lane / 4, t = lane % 4, token = i / 4 * 16 + i % 4 / 2 * 8 + 2 * t + i % 2;

            cr_assert_eq(cuda_key_place(32, 64, 8 + g, 32 + 8 * t + i),
                         (1 * 2 + 1) * 256 + lane * 8 + i);
            cr_assert_eq(cuda_value_place(32, 64, token, 24 + g),
                         32 * 64 + (3 * 32 + lane) * 8 + i);
        }
}

Test(cuda_sight, turns_are_those_of_the_mathematics_library)
{
    double off = 0.0;

    for (int p = 0; p < 200000; p += 37)
        for (int i = 0; i < 32; i += 3) {
            float angle = (float)p * (float)pow(600000.0, -2.0 * i / 64), c, s;

            cuda_turn(angle, &c, &s);
            off = fmax(off, fmax(fabs((double)c - cos((double)angle)),
                                 fabs((double)s - sin((double)angle))));
        }
    cr_assert_lt(off, 1e-7, "%g", off);
}

Test(cuda_sight, shares_cover_all_tiles_and_fill_the_device)
{
    for (int rows = 1; rows <= 2048; rows = rows * 2 + 3)
        for (int heads = 1; heads <= 8; heads++)
            for (int kv_heads = 1; kv_heads <= 4; kv_heads++)
                for (int steps = 1; steps <= 4096; steps *= 3) {
                    cuda_shares s = cuda_shares_of(132, rows, heads * kv_heads, kv_heads, steps);

                    cr_assert_eq(s.tiles, (rows + 15) / 16 * heads);
                    cr_assert(s.warps >= 1 && s.warps <= 8 && s.splits >= 1 &&
                              s.splits <= CUDA_SPLITS);
                    cr_assert_geq(s.blocks * s.warps, s.tiles);
                    cr_assert_lt((s.blocks - 1) * s.warps, s.tiles);
                    cr_assert(s.splits == 1 || s.blocks * kv_heads * s.splits <= 132);
                }
    cr_assert_eq(cuda_shares_of(132, 32, 16, 4, 1025).splits, 33);
    cr_assert_eq(cuda_shares_of(132, 32, 16, 4, 1025).warps, 8);
    cr_assert_eq(cuda_shares_of(132, 32, 16, 4, 1).splits, 1);
    cr_assert_eq(cuda_bucket(0), 0);
    cr_assert_eq(cuda_bucket(1), 1);
    cr_assert_eq(cuda_bucket(33), 64);
}
