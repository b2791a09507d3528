/* test_shape.c - the published shapes by their published sizes, and random weights: even in sign, never
 * infinite, and routed to as many experts as a block's tokens ask for. */
#include "core/base/memory.h"
#include "core/format/packed.h"
#include "core/plugin.h"
#include "core/tools/shape.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static size_t weights_of(const char *name)
{
    rd_model_config c;
    rd_shape_size size;
    rd_error err;

    cr_assert(rd_shape_named(name, &c));
    cr_assert(!rd_config_check(&c, name, &err), "%s", err.text);
    cr_assert(!rd_shape_measure(&c, RD_PACK_NONE, &size, &err), "%s", err.text);
    return size.weights;
}

Test(shape, has_as_many_weights_as_the_published_model)
{
    cr_assert_eq(weights_of("llada2.1-mini"), 16255643392u);
    cr_assert_eq(weights_of("llada2.2-mini"), 16255643392u);
    cr_assert_eq(weights_of("llada2.1-flash"), 102889705216u);
    cr_assert_not(rd_shape_named("llada2.1", &(rd_model_config){ 0 }));
}

/* Grouped like the published ones, small. */
static rd_model_config small(int capacity)
{
    rd_model_config c;

    rd_shape_named("llada2.1-mini", &c);
    c.vocab_size = 1000;
    c.hidden_size = 48;
    c.num_hidden_layers = 3;
    c.num_attention_heads = 4;
    c.num_key_value_heads = 2;
    c.head_dim = 16;
    c.rotary_dim = 8;
    c.intermediate_size = 96;
    c.moe_intermediate_size = 16;
    c.num_experts = 64;
    c.num_experts_per_tok = 4;
    c.expert_capacity = capacity;
    c.pad_token_id = c.mask_token_id = -1;
    c.eos_count = 0;
    return c;
}

static void matrix(const rd_weight_source *from, const char *name, int rows, int cols,
                   rd_matrix *out)
{
    rd_error err;

    cr_assert(!from->find(from->user, name, rows, cols, out, &err), "%s", err.text);
}

Test(shape, random_weights_are_finite_even_in_sign_and_near_the_size_asked_for)
{
    rd_model_config c = small(0);
    enum { ROWS = 200, COLS_MOST = 384 };

    for (int i = 0; i < 6; i++) {
        rd_pack p = (rd_pack)(i / 2);
        int cols = i % 2 ? 333 : COLS_MOST; /* with padding, and without */
        rd_random_weights w;
        rd_weight_source from = rd_random_weights_init(&w, &c, p, 3);
        float row[COLS_MOST];
        double sum = 0.0, squares = 0.0, all = (double)ROWS * cols;
        rd_matrix m;

        matrix(&from, "model.layers.1.mlp.experts.0.gate_proj.weight", ROWS, cols, &m);
        cr_assert_eq(m.pack, p);
        for (int r = 0; r < ROWS; r++) {
            if (m.pack)
                rd_unpack_row(m.pack, m.data, m.scale, cols, r, row);
            else
                rd_widen(row, (const uint16_t *)m.data + (size_t)r * (size_t)cols, m.dtype,
                         (size_t)cols);
            for (int k = 0; k < cols; k++) {
                double x = (double)row[k];

                cr_assert(isfinite(x));
                sum += x;
                squares += x * x;
            }
        }
        double rms = sqrt(squares / all), wanted = 1.0 / sqrt(cols);

        cr_assert_lt(fabs(sum / all), 5.0 * rms / sqrt(all));
        cr_assert(rms > wanted / 1.5 && rms < wanted * 1.5, "%g, wanted %g", rms, wanted);
        rd_random_weights_clear(&w);
    }
}

Test(shape, a_scheme_takes_the_bytes_that_its_panels_take)
{
    rd_model_config c;
    rd_shape_size size;
    rd_error err;

    rd_shape_named("llada2.1-mini", &c);
    cr_assert(!rd_shape_measure(&c, RD_PACK_INT4, &size, &err));
    /* An expert: three matrices of 512 x 2048 at 4.25 bits, 3072 rows' scales. */
    cr_assert_eq(size.experts.bytes,
                 (size_t)19 * 256u * (3u * 512u * 2048u / 8u * 17u / 4u + 4u * 3072u));
    cr_assert_eq(size.head.bytes, 157184u * (2048u + 4u));
    cr_assert_eq(size.table.bytes, size.head.bytes);
    cr_assert_eq(size.experts.weights + size.head.weights + size.table.weights + size.dense.weights,
                 size.weights);
    rd_shape_named("dense-59m", &c);
    cr_assert(!rd_shape_measure(&c, RD_PACK_INT4, &size, &err));
    cr_assert_eq(size.weights / 1000000u, 58u);
    cr_assert_eq(size.experts.weights, 0u);
}

/* Distinct experts in each of the two layers that have some. */
static void met(rd_pack scheme, int capacity, int experts, int rows, int out[2])
{
    rd_model_config c = small(capacity);
    rd_random_weights w;
    rd_weight_source from = rd_random_weights_init(&w, &c, scheme, 4);
    rd_model_options o = { .device = { .threads = 1, .precision = RD_FAST }, .max_rows = 64 };
    rd_random r = rd_random_seed(5);
    int32_t tokens[64], chosen[3][64 * 4], *by_layer[3] = { chosen[0], chosen[1], chosen[2] };
    rd_taps taps = { .router_idx = by_layer };
    rd_model *m = NULL;
    rd_error err;

    cr_assert(!rd_backend_find("cpu", &o.backend, &err));
    cr_assert(!rd_model_open_from(&c, &from, &o, &m, &err), "%s", err.text);
    rd_shape_tokens(&c, experts, rows, &r, tokens);
    cr_assert(!rd_forward(m, &(rd_pass){ .tokens = tokens, .rows = rows, .taps = &taps }, &err));
    for (int l = 1; l < 3; l++) {
        bool seen[64] = { false };

        out[l - 1] = 0;
        for (int i = 0; i < rows * 4; i++) {
            out[l - 1] += !seen[chosen[l][i]];
            seen[chosen[l][i]] = true;
        }
    }
    rd_model_close(m);
    rd_random_weights_clear(&w);
}

Test(shape, a_block_meets_as_many_experts_as_its_tokens_ask_for)
{
    static const int wanted[] = { 4, 5, 17, 40, 64 };

    for (int p = RD_PACK_NONE; p <= RD_PACK_INT4; p++) {
        for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
            int got[2];

            met((rd_pack)p, 0, wanted[i], 32, got);
            cr_assert_eq(got[0], wanted[i], "%d of %d", got[0], wanted[i]);
            cr_assert_eq(got[1], wanted[i], "%d of %d", got[1], wanted[i]);
        }
    }
}

Test(shape, block_routing_caps_what_a_block_meets)
{
    int got[2];

    met(RD_PACK_NONE, 12, 9, 32, got);
    cr_assert_eq(got[0], 9);
    met(RD_PACK_NONE, 12, 50, 32, got);
    cr_assert_eq(got[0], 12);
}

Test(shape, the_head_can_be_run_again_over_the_last_pass)
{
    rd_model_config c = small(0);
    rd_random_weights w;
    rd_weight_source from = rd_random_weights_init(&w, &c, RD_PACK_NONE, 6);
    rd_model_options o = { .device = { .threads = 1, .precision = RD_FAST }, .max_rows = 32 };
    int32_t tokens[5] = { 1, 20, 300, 4, 5 };
    rd_pick first[5], again[5], other[5];
    rd_pick_query q = { .n_rows = 5 };
    rd_model *m = NULL;
    rd_error err;

    cr_assert(!rd_backend_find("cpu", &o.backend, &err));
    cr_assert(!rd_model_open_from(&c, &from, &o, &m, &err), "%s", err.text);
    rd_pass p = { .tokens = tokens, .rows = 5, .query = &q, .picks = first };

    cr_assert(!rd_forward(m, &p, &err));
    cr_assert(!rd_forward_picks(m, 5, &q, again, &err));
    q.banned = &first[2].token;
    q.n_banned = 1;
    cr_assert(!rd_forward_picks(m, 5, &q, other, &err));
    cr_assert(!memcmp(first, again, sizeof first));
    cr_assert_eq(other[2].token, first[2].second);
    cr_assert_eq(rd_forward_picks(m, 33, &q, other, &err), RD_INVALID);
    rd_model_close(m);
    rd_random_weights_clear(&w);
}
