/* test_agree.c - training and use are one model: the trainer's forward and the engine's give the same
 * probabilities for the rows of a hole, laid out by each in its own way. */
#include "core/base/random.h"
#include "core/decode/decoder.h"
#include "core/plugin.h"
#include "core/train/objective.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>

enum {
    VOCAB = 320,
    MASK = 300,
    DEL,
    SPLIT,
    SUFFIX,
    PREFIX,
    FILL,
    BLOCK = 32,
    CONTEXT = 96,
    TEXT = 9
};

static rd_model_config shape(void)
{
    return (rd_model_config){ .vocab_size = VOCAB,
                              .hidden_size = 64,
                              .num_hidden_layers = 3,
                              .num_attention_heads = 4,
                              .num_key_value_heads = 2,
                              .head_dim = 16,
                              .intermediate_size = 96,
                              .moe_intermediate_size = 32,
                              .num_experts = 8,
                              .num_experts_per_tok = 2,
                              .num_shared_experts = 1,
                              .first_k_dense_replace = 1,
                              .n_group = 1,
                              .topk_group = 1,
                              .block_size = BLOCK,
                              .rotary_dim = 8,
                              .max_position_embeddings = 4096,
                              .rope_theta = 10000.0,
                              .rms_norm_eps = 1e-6,
                              .routed_scaling_factor = 2.5,
                              .tie_word_embeddings = true,
                              .pad_token_id = 1,
                              .mask_token_id = MASK,
                              .delete_token_id = DEL,
                              .split_token_id = SPLIT,
                              .eos_token_id = { 0 },
                              .eos_count = 1 };
}

/* Weights large enough that attention and routing matter. */
static void write_model(rd_params *p, float *w, const char *dir)
{
    rd_model_config c = shape();
    rd_random r = rd_random_seed(5);
    rd_error err;

    cr_assert(!rd_params_init(p, &c, &err), "%s", err.text);
    rd_params_seed(p, w, 3);
    for (int i = 0; i < p->count; i++) {
        const rd_param *q = &p->param[i];

        for (size_t k = 0; k < (size_t)q->rows * (size_t)q->cols; k++) {
            float *x = &w[q->offset + k];

            if (q->kind == RD_PARAM_BIAS)
                *x = 0.1f * (float)rd_random_normal(&r);
            else
                *x = q->kind == RD_PARAM_NORM ? 0.7f + 0.6f * (float)rd_random_unit(&r) : 8.0f * *x;
        }
    }
    cr_assert(!rd_params_write(p, w, RD_F32, dir, &err), "%s", err.text);
}

static void draw(rd_random *r, int32_t *out, int n)
{
    for (int i = 0; i < n; i++) out[i] = 20 + (int32_t)rd_random_below(r, 250);
}

/* -log p of each label of the hole's rows as the engine sees it. */
static void engine_surprise(const char *dir, const char *isa, const int32_t *context,
                            const rd_train_row *rows, int n, float *out)
{
    rd_model_options o = { .device = { .threads = 1, .isa = isa },
                           .max_rows = 128,
                           .kv_blocks = 8 };
    int32_t token[BLOCK], watched[BLOCK];
    rd_pick picks[BLOCK];
    rd_sequence s = { 0 };
    rd_error err = { 0 };

    cr_assert(!rd_backend_find("cpu", &o.backend, &err));
    cr_assert(!rd_model_open(dir, &o, &s.model, &err), "%s", err.text);
    s.pool = rd_kv_pool_new(rd_model_kv_blocks(s.model), BLOCK);
    cr_assert(!rd_sequence_extend(&s, context, CONTEXT, NULL, &err), "%s", err.text);
    for (int i = 0; i < n; i++) {
        token[i] = rows[i].token;
        watched[i] = rows[i].label;
    }
    rd_pick_query q = { .watched = watched, .n_rows = n };
    rd_pass pass = { .tokens = token, .rows = n, .query = &q, .picks = picks };

    cr_assert(!rd_sequence_pass(&s, 0, &pass, &err), "%s", err.text);
    for (int i = 0; i < n; i++) out[i] = rows[i].label < 0 ? 0.0f : -logf(picks[i].watched_prob);
    rd_sequence_clear(&s);
    rd_kv_pool_free(s.pool);
    rd_model_close(s.model);
}

Test(agree, a_hole_has_the_same_probabilities_in_training_and_in_use)
{
    static uint8_t flags[VOCAB];
    rd_objective_tokens t = { MASK, DEL, SPLIT, SUFFIX, PREFIX, FILL, flags, VOCAB, NULL };
    int32_t context[CONTEXT], text[TEXT], anchor[40], wrong[6];
    char dir[] = "/tmp/redraft-agree-XXXXXX";
    static float w[1 << 19];
    rd_random r = rd_random_seed(9);
    rd_draft_ids draft = { .id = wrong, .n = 6 };
    rd_rows rows = { 0 };
    rd_params p;
    rd_error err;

    cr_assert(mkdtemp(dir));
    write_model(&p, w, dir);
    cr_assert_leq(p.size, sizeof w / sizeof *w);
    draw(&r, context, CONTEXT);
    draw(&r, text, TEXT);
    draw(&r, anchor, 40);
    draw(&r, wrong, 6);
    wrong[2] = text[3];
    rd_rows_hole(&rows, &t,
                 &(rd_hole){ context, CONTEXT, text, TEXT, anchor, 40, BLOCK, 3, &draft, 1, 0 },
                 &r);

    rd_product product = { 0 };
    rd_device_options d = { .threads = 1 };
    const rd_backend *cpu;
    rd_net *net;
    rd_train_stats stats = { 0 };

    cr_assert(!rd_backend_find("cpu", &cpu, &err) && !cpu->open(&d, &product.device, &err));
    product.gemm = cpu->gemm;
    cr_assert(!rd_net_open(&p, product, rows.n, &net, &err));
    cr_assert(!rd_net_run(net, w, rows.row, rows.n, 1.0f, NULL, &stats, &err), "%s", err.text);
    const float *surprise = rd_net_surprise(net);

    for (int at = CONTEXT; at < rows.n;) {
        float got[BLOCK];
        int n = rows.row[at].own_end - rows.row[at].own_start;

        engine_surprise(dir, "plain", context, rows.row + at, n, got);
        for (int i = 0; i < n; i++)
            cr_assert_float_eq(got[i], surprise[at + i], 2e-3f + 1e-3f * surprise[at + i],
                               "row %d of the copy at %d: %g in use, %g in training", i, at,
                               (double)got[i], (double)surprise[at + i]);
        at += n;
    }
    rd_net_close(net);
    cpu->close(product.device);
    rd_rows_clear(&rows);
    rd_params_clear(&p);
}
