/* test_learner.c - the GPU's trainer, on the emulated GPU, against the CPU's in float32.
 *
 * The GPU multiplies in bf16 (eight bits of mantissa, relative error up to 2^-9 a number) and keeps activations so; the CPU is
 * exact. On the shapes here that leaves losses within one in a hundred and each tensor's gradient within a cosine of 0.999 and
 * three in a hundred of its norm; an error of indexing or of a formula leaves neither. A row whose two best experts are
 * nearly alike may choose otherwise, so the weights here leave no doubt.
 */
#include "core/base/memory.h"
#include "core/train/learner.h"
#include "core/train/objective.h"
#include "tests/core/gemm.h"
#include "tests/core/shape.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const rd_learner_table *rd_learner_entry(void);

enum { VOCAB = 320, ROOM = 512 };

/* One dense layer and two of eight experts. */
static rd_model_config usual(void)
{
    rd_model_config c = small_shape(VOCAB, 8);

    c.hidden_size = 64;
    c.num_hidden_layers = 3;
    c.head_dim = 32;
    c.rotary_dim = 16;
    c.intermediate_size = 96;
    c.moe_intermediate_size = 40;
    c.num_experts = 8;
    return c;
}

/* Groups, no shared expert, a head of its own. */
static rd_model_config grouped(void)
{
    rd_model_config c = usual();

    c.num_hidden_layers = 2;
    c.head_dim = 64;
    c.rotary_dim = 32;
    c.num_attention_heads = 2;
    c.num_key_value_heads = 1;
    c.num_experts = 16;
    c.num_experts_per_tok = 3;
    c.num_shared_experts = 0;
    c.n_group = 4;
    c.topk_group = 2;
    c.tie_word_embeddings = false;
    return c;
}

/* Wide heads, no experts. */
static rd_model_config dense(void)
{
    rd_model_config c = usual();

    c.num_hidden_layers = 2;
    c.first_k_dense_replace = 2;
    c.head_dim = 128;
    c.rotary_dim = 64;
    c.num_attention_heads = 3;
    c.num_key_value_heads = 3;
    return c;
}

typedef struct bench {
    rd_params p;
    rd_gemm_train *gemm;
    rd_product product;
    rd_net *net;
    rd_pool *pool;
    rd_optimizer *optimizer;
    const rd_learner_table *t;
    rd_learner *l;
    rd_learner_options o;
    float *w, *grad, *got;
    int64_t *load;
    rd_rows pack;
} bench;

/* Token v belongs to expert v modulo the experts, and the routers know: so no row's choice hangs on a rounding. */
static void fill_weights(bench *b, uint64_t seed)
{
    int experts = b->p.config.num_experts, width = b->p.config.hidden_size / experts;
    rd_random r = rd_random_seed(seed);

    for (int i = 0; i < b->p.count; i++) {
        const rd_param *q = &b->p.param[i];
        double base = q->kind == RD_PARAM_NORM ? 1.0 : 0.0, by = 0.05;

        if (q->kind == RD_PARAM_ROUTER || q->kind == RD_PARAM_BIAS) by = 0.01;
        for (int row = 0; row < q->rows; row++) {
            float *w = b->w + q->offset + (size_t)row * (size_t)q->cols;

            for (int k = 0; k < q->cols; k++) {
                int ahead = (k / width - row % experts + experts) % experts; /* 0: the row's own columns */

                w[k] = (float)(base + by * rd_random_normal(&r));
                if (q->kind == RD_PARAM_TABLE && ahead == 0) w[k] += 1.0f;
                if (q->kind == RD_PARAM_ROUTER && ahead < 3) w[k] += (0.8f - 0.25f * (float)ahead) / (float)width;
            }
        }
    }
}

static void bench_open(bench *b, const rd_model_config *config)
{
    rd_error err = { 0 };
    size_t loads = (size_t)config->num_hidden_layers * (size_t)config->num_experts;

    cr_assert(!rd_params_init(&b->p, config, &err), "%s", err.text);
    cr_assert(!rd_gemm_train_open(RD_EXACT, &b->gemm, &err), "%s", err.text);
    b->product = (rd_product){ (rd_device *)(void *)b->gemm, multiply };
    cr_assert(!rd_net_open(&b->p, b->product, ROOM, &b->net, &err), "%s", err.text);
    b->w = rd_alloc_array(b->p.size, sizeof *b->w);
    b->grad = rd_alloc_array(b->p.size, sizeof *b->grad);
    b->got = rd_alloc_array(b->p.size, sizeof *b->got);
    b->load = rd_alloc_array(loads, sizeof *b->load);
    fill_weights(b, 7);
    b->t = rd_learner_entry();
    cr_assert(b->t->abi == RD_LEARNER_ABI && b->t->size == sizeof *b->t);
    if (b->o.rows_per_pack == 0) b->o.rows_per_pack = ROOM;
    if (b->o.optimizer.beta1 == 0.0f) b->o.optimizer = rd_optimizer_defaults();
    b->o.packs = 4;
    b->pool = rd_pool_new(1);
    cr_assert(!rd_optimizer_open(&b->p, &b->o.optimizer, b->pool, &b->product, &b->optimizer, &err));
    cr_assert(!b->t->open(&b->p, &b->o, &b->l, &err), "%s", err.text);
    cr_assert(!b->t->put(b->l, RD_LEARNER_WEIGHTS, b->w, &err), "%s", err.text);
}

static void bench_close(bench *b)
{
    b->t->close(b->l);
    rd_optimizer_close(b->optimizer);
    rd_pool_free(b->pool);
    rd_net_close(b->net);
    rd_gemm_train_close(b->gemm);
    rd_params_clear(&b->p);
    rd_rows_clear(&b->pack);
    free(b->w);
    free(b->grad);
    free(b->got);
    free(b->load);
}

/* Rows of all three questions about a random text in which words come again, up to `rows`. */
static void fill_pack(bench *b, uint64_t seed, int rows)
{
    static uint8_t flags[VOCAB];
    rd_objective_tokens tokens = { .mask = 0, .del = 1, .split = 2, .suffix = 3, .prefix = 4, .fill = 5, .flags = flags,
                                   .vocab = VOCAB };
    rd_random r = rd_random_seed(seed);
    int32_t id[200];

    for (int i = 0; i < 6; i++) flags[i] = RD_TOKEN_CONTROL;
    b->pack.n = 0;
    for (int kind = 0; b->pack.n < rows; kind++) {
        int before = b->pack.n, n = 20 + (int)rd_random_below(&r, 41);

        for (int i = 0; i < n; i++) id[i] = 6 + (int32_t)rd_random_below(&r, rd_random_below(&r, 2) ? 20 : VOCAB - 6);
        if (kind % 3 == 0) rd_rows_next_token(&b->pack, &tokens, id, n);
        if (kind % 3 == 1) {
            rd_noise noise = { .block = 8, .pair = true };

            rd_rows_blocks(&b->pack, &tokens, &noise, id, n, &r);
        }
        if (kind % 3 == 2) {
            rd_hole hole = { .context = id, .context_n = 16, .text = id + 16, .text_n = 7, .anchor = id + 23, .anchor_n = 9,
                             .block = 8, .versions = 2, .context_copies = 1 };

            n = 32;
            for (int i = 20; i < n; i++) id[i] = 6 + (int32_t)rd_random_below(&r, VOCAB - 6);
            rd_rows_hole(&b->pack, &tokens, &hole, &r);
        }
        cr_assert_gt(b->pack.n, before);
        if (b->pack.n > rows && before > 0) { /* a sample is whole or not there */
            b->pack.n = before;
            break;
        }
    }
    if (b->pack.n > rows) b->pack.n = rows;
    for (int i = 0; i < b->pack.n; i++) {
        rd_train_row *w = &b->pack.row[i];

        w->weight *= 0.5f + (float)rd_random_unit(&r);
        w->confidence = i % 3 == 0 ? 0.5f : 0.0f;
        /* A first sample that was cut sees what is left of it. */
        if (w->clean_end > b->pack.n) w->clean_end = b->pack.n;
        if (w->own_end > b->pack.n) w->own_end = b->pack.n;
        if (w->clean_start >= w->clean_end && w->own_start >= w->own_end) {
            w->clean_start = w->clean_end = 0;
            w->own_start = i;
            w->own_end = i + 1;
        }
    }
}

static void submit(bench *b, rd_learner_pass pass, float scale)
{
    rd_error err = { 0 };

    cr_assert(!b->t->submit(b->l, pass, b->pack.row, b->pack.n, scale, &err), "%s", err.text);
}

static rd_learner_sums collect(bench *b)
{
    rd_error err = { 0 };
    rd_learner_sums sums;

    cr_assert(!b->t->collect(b->l, &sums, &err), "%s", err.text);
    return sums;
}

static void get(bench *b, rd_learner_array which)
{
    rd_error err = { 0 };

    for (size_t i = 0; i < b->p.size; i++) b->got[i] = NAN;
    cr_assert(!b->t->get(b->l, which, b->got, &err), "%s", err.text);
}

static void run_cpu(bench *b, float scale, bool backward, rd_train_stats *stats)
{
    rd_error err = { 0 };

    stats->load = b->load;
    cr_assert(!rd_net_run(b->net, b->w, b->pack.row, b->pack.n, scale, backward ? b->grad : NULL, stats, &err), "%s",
              err.text);
}

/* Each tensor of b->got against `want`, by direction and length. */
static void expect_alike(const bench *b, const float *want, double cosine, double ratio, const char *what)
{
    for (int i = 0; i < b->p.count; i++) {
        const rd_param *q = &b->p.param[i];
        double xx = 0.0, yy = 0.0, xy = 0.0;

        for (size_t k = 0; k < (size_t)q->rows * (size_t)q->cols; k++) {
            double x = (double)b->got[q->offset + k], y = (double)want[q->offset + k];

            xx += x * x;
            yy += y * y;
            xy += x * y;
        }
        if (getenv("RD_SHOW"))
            fprintf(stderr, "%s %-60s cos %.6f ratio %.4f norm %.3g\n", what, q->name, xy / sqrt(xx * yy), sqrt(xx / yy),
                    sqrt(yy));
        if (yy == 0.0) {
            cr_expect_eq(xx, 0.0, "%s: %s is not zero", what, q->name);
            continue;
        }
        cr_expect_gt(xy / sqrt(xx * yy), cosine, "%s: %s: cosine %f", what, q->name, xy / sqrt(xx * yy));
        cr_expect_lt(fabs(sqrt(xx / yy) - 1.0), ratio, "%s: %s: length %f of %f", what, q->name, sqrt(xx), sqrt(yy));
    }
}

static void expect_sums(const rd_train_stats *got, const rd_train_stats *want)
{
    for (int i = 0; i < RD_TASKS; i++) {
        cr_expect_eq(got->labels[i], want->labels[i]);
        cr_expect_float_eq(got->weight[i], want->weight[i], 1e-6 * (1.0 + want->weight[i]));
        cr_expect_float_eq(got->loss[i], want->loss[i], 0.01 * want->loss[i] + 1e-9, "task %d: loss %f, not %f", i,
                           got->loss[i], want->loss[i]);
        cr_expect(llabs(got->right[i] - want->right[i]) <= 2 + want->labels[i] / 50, "task %d: %d right, not %d", i,
                  (int)got->right[i], (int)want->right[i]);
    }
    cr_expect_float_eq(got->flops, want->flops, 1e-6 * want->flops, "%g operations, not %g", got->flops, want->flops);
}

static void losses_and_gradients(const rd_model_config *config, int rows)
{
    bench b = { 0 };
    rd_train_stats want = { 0 };

    bench_open(&b, config);
    for (int k = 0; k < 2; k++) {
        fill_pack(&b, 3 + (uint64_t)k, rows);
        run_cpu(&b, 0.01f, true, &want);
        submit(&b, RD_LEARNER_LEARN, 0.01f);
    }
    rd_learner_sums sums = collect(&b);

    expect_sums(&sums.stats, &want);
    for (int i = 0; sums.stats.load && i < config->num_hidden_layers * config->num_experts; i++)
        cr_expect_eq(sums.stats.load[i], b.load[i], "load %d: %d, not %d", i, (int)sums.stats.load[i], (int)b.load[i]);
    get(&b, RD_LEARNER_GRADIENT);
    expect_alike(&b, b.grad, 0.999, 0.03, "gradient");
    bench_close(&b);
}

Test(learner, losses_and_gradients_are_the_cpus)
{
    rd_model_config c = usual();

    losses_and_gradients(&c, 330);
}

Test(learner, so_they_are_with_groups_of_experts_and_a_head_of_its_own)
{
    rd_model_config c = grouped();

    losses_and_gradients(&c, 200);
}

Test(learner, so_they_are_with_wide_heads_and_no_experts)
{
    rd_model_config c = dense();

    losses_and_gradients(&c, 150);
}
