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
#include "tests/plugins/cuda/backend.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>


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
                int ahead =
                    (k / width - row % experts + experts) % experts; /* 0: the row's own columns */

                w[k] = (float)(base + by * rd_random_normal(&r));
                if (q->kind == RD_PARAM_TABLE && ahead == 0) w[k] += 1.0f;
                if (q->kind == RD_PARAM_ROUTER && ahead < 3)
                    w[k] += (0.8f - 0.25f * (float)ahead) / (float)width;
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
    b->t = gpu_learner();
    cr_assert(b->t->abi == RD_LEARNER_ABI && b->t->size == sizeof *b->t);
    if (b->o.rows_per_pack == 0) b->o.rows_per_pack = ROOM;
    if (b->o.optimizer.beta1 == 0.0f) b->o.optimizer = rd_optimizer_defaults();
    b->o.packs = 4;
    b->pool = rd_pool_new(1);
    cr_assert(
        !rd_optimizer_open(&b->p, &b->o.optimizer, b->pool, &b->product, &b->optimizer, &err));
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
    rd_objective_tokens tokens = { .mask = 0,
                                   .del = 1,
                                   .split = 2,
                                   .suffix = 3,
                                   .prefix = 4,
                                   .fill = 5,
                                   .flags = flags,
                                   .vocab = VOCAB };
    rd_random r = rd_random_seed(seed);
    int32_t id[200];

    for (int i = 0; i < 6; i++) flags[i] = RD_TOKEN_CONTROL;
    b->pack.n = 0;
    for (int kind = 0; b->pack.n < rows; kind++) {
        int before = b->pack.n, n = 20 + (int)rd_random_below(&r, 41);

        for (int i = 0; i < n; i++)
            id[i] = 6 + (int32_t)rd_random_below(&r, rd_random_below(&r, 2) ? 20 : VOCAB - 6);
        if (kind % 3 == 0) rd_rows_next_token(&b->pack, &tokens, id, n);
        if (kind % 3 == 1) {
            rd_noise noise = { .block = 8, .pair = true };

            rd_rows_blocks(&b->pack, &tokens, &noise, id, n, &r);
        }
        if (kind % 3 == 2) {
            rd_hole hole = { .context = id,
                             .context_n = 16,
                             .text = id + 16,
                             .text_n = 7,
                             .anchor = id + 23,
                             .anchor_n = 9,
                             .block = 8,
                             .versions = 2,
                             .context_copies = 1 };

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
    cr_assert(!rd_net_run(b->net, b->w, b->pack.row, b->pack.n, scale, backward ? b->grad : NULL,
                          stats, &err),
              "%s", err.text);
}

/* Each tensor of b->got against `want`, by direction and length. */
static void expect_alike(const bench *b, const float *want, double cosine, double ratio,
                         const char *what)
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
            fprintf(stderr, "%s %-60s cos %.6f ratio %.4f norm %.3g\n", what, q->name,
                    xy / sqrt(xx * yy), sqrt(xx / yy), sqrt(yy));
        if (yy == 0.0) {
            cr_expect_eq(xx, 0.0, "%s: %s is not zero", what, q->name);
            continue;
        }
        cr_expect_gt(xy / sqrt(xx * yy), cosine, "%s: %s: cosine %f", what, q->name,
                     xy / sqrt(xx * yy));
        cr_expect_lt(fabs(sqrt(xx / yy) - 1.0), ratio, "%s: %s: length %f of %f", what, q->name,
                     sqrt(xx), sqrt(yy));
    }
}

static void expect_sums(const rd_train_stats *got, const rd_train_stats *want)
{
    for (int i = 0; i < RD_TASKS; i++) {
        cr_expect_eq(got->labels[i], want->labels[i]);
        cr_expect_float_eq(got->weight[i], want->weight[i], 1e-6 * (1.0 + want->weight[i]));
        cr_expect_float_eq(got->loss[i], want->loss[i], 0.01 * want->loss[i] + 1e-9,
                           "task %d: loss %f, not %f", i, got->loss[i], want->loss[i]);
        cr_expect(llabs(got->right[i] - want->right[i]) <= 2 + want->labels[i] / 50,
                  "task %d: %d right, not %d", i, (int)got->right[i], (int)want->right[i]);
    }
    cr_expect_float_eq(got->flops, want->flops, 1e-6 * want->flops, "%g operations, not %g",
                       got->flops, want->flops);
}

/* Every fourth label becomes what the model says already, and such rows are to be sure of it. */
static void make_some_right(bench *b)
{
    rd_train_stats stats = { 0 };

    run_cpu(b, 1.0f, false, &stats);
    memset(b->load, 0,
           (size_t)b->p.config.num_hidden_layers * (size_t)b->p.config.num_experts *
               sizeof *b->load);
    for (int i = 1; i < b->pack.n; i += 4) {
        if (b->pack.row[i].label < 0) continue;
        b->pack.row[i].label = rd_net_best(b->net)[i];
        b->pack.row[i].confidence = 2.0f;
    }
}

static void losses_and_gradients(const rd_model_config *config, int rows)
{
    bench b = { 0 };
    rd_train_stats want = { 0 };

    bench_open(&b, config);
    fill_pack(&b, 3, rows);
    make_some_right(&b);
    for (int k = 0; k < 2; k++) { /* the second without such rows */
        if (k > 0) fill_pack(&b, 3 + (uint64_t)k, rows);
        run_cpu(&b, 0.01f, true, &want);
        submit(&b, RD_LEARNER_LEARN, 0.01f);
    }
    rd_learner_sums sums = collect(&b);

    expect_sums(&sums.stats, &want);
    /* One near tie may make a row right or not. */
    cr_expect_gt(want.entropy, 50.0);
    cr_expect_float_eq(sums.stats.entropy, want.entropy, 0.01 * want.entropy + 2.0 * log(VOCAB),
                       "entropy %f, not %f", sums.stats.entropy, want.entropy);
    for (int i = 0; sums.stats.load && i < config->num_hidden_layers * config->num_experts; i++)
        cr_expect_eq(sums.stats.load[i], b.load[i], "load %d: %d, not %d", i,
                     (int)sums.stats.load[i], (int)b.load[i]);
    get(&b, RD_LEARNER_GRADIENT);
    expect_alike(&b, b.grad, 0.999, 0.03, "gradient");
    bench_close(&b);
}

Test(learner, losses_and_gradients_are_the_cpus)
{
    GPU_OR_SKIP();
    rd_model_config c = usual();

    losses_and_gradients(&c, 330);
}

Test(learner, so_they_are_with_groups_of_experts_and_a_head_of_its_own)
{
    GPU_OR_SKIP();
    rd_model_config c = grouped();

    losses_and_gradients(&c, 200);
}

Test(learner, so_they_are_with_wide_heads_and_no_experts)
{
    GPU_OR_SKIP();
    rd_model_config c = dense();

    losses_and_gradients(&c, 150);
}

Test(learner, packs_of_odd_lengths_and_rows_of_one_range_agree)
{
    GPU_OR_SKIP();
    static const int lengths[] = { 1, 33, 64, 129, 200 };
    rd_model_config c = usual();
    bench b = { 0 };

    bench_open(&b, &c);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        rd_train_stats want = { 0 };

        fill_pack(&b, 20 + i, 512);
        b.pack.n = lengths[i];
        for (int k = 0; k < b.pack.n;
             k++) { /* to itself and what is before it, by one range or the other */
            rd_train_row *r = &b.pack.row[k];

            r->clean_start = k % 2 ? 0 : k;
            r->clean_end = k % 2 ? k / 2 + 1 : k;
            r->own_start = k % 2 ? 7 : k - k % 16;
            r->own_end = k % 2 ? 7 : k + 1;
            if (r->label < 0 && k % 5 == 0) r->label = 9, r->weight = 1.0f;
        }
        memset(b.load, 0, (size_t)c.num_hidden_layers * (size_t)c.num_experts * sizeof *b.load);
        run_cpu(&b, 0.01f, false, &want);
        submit(&b, RD_LEARNER_MEASURE, 0.01f);
        rd_learner_sums sums = collect(&b);

        expect_sums(&sums.stats, &want);
        cr_expect_gt(sums.stats.labels[0] + sums.stats.labels[1] + sums.stats.labels[2], 0);
    }
    get(&b, RD_LEARNER_GRADIENT);
    for (size_t i = 0; i < b.p.size; i++)
        cr_assert_eq(b.got[i], 0.0f, "to measure leaves no gradient");
    bench_close(&b);
}

/* Three steps from the same gradients on both; with `muon` the way that each matrix went is compared. */
static void steps_agree(bool muon)
{
    rd_model_config c = usual();
    rd_random r = rd_random_seed(5);
    rd_error err = { 0 };
    bench b = { 0 };

    b.o.optimizer = rd_optimizer_defaults();
    b.o.optimizer.muon = muon;
    bench_open(&b, &c);
    float *before = rd_alloc_array(b.p.size, sizeof *before);

    for (int step = 0; step < 3; step++) {
        double norm = 0.0;

        for (size_t i = 0; i < b.p.size; i++)
            b.grad[i] = (step == 1 ? 1e-4f : 0.1f) *
                        (float)rd_random_normal(&r); /* the second is not clipped */
        for (int i = 0; i < b.p.count; i++) {
            const rd_param *q = &b.p.param[i];

            if (q->kind == RD_PARAM_BIAS)
                memset(b.grad + q->offset, 0, (size_t)q->cols * sizeof(float));
        }
        memcpy(before, b.w, b.p.size * sizeof *before);
        cr_assert(!b.t->put(b.l, RD_LEARNER_GRADIENT, b.grad, &err));
        cr_assert(!b.t->step(b.l, 0.01f, false, &err));
        cr_assert(!rd_optimizer_step(b.optimizer, b.w, b.grad, 0.01f, NULL, &norm, &err), "%s",
                  err.text);
        rd_learner_sums sums = collect(&b);

        cr_expect_float_eq(sums.norm, norm, 1e-5 * norm);
        cr_expect_eq(sums.steps, step + 1);
        get(&b, RD_LEARNER_WEIGHTS);
        for (size_t i = 0; i < b.p.size; i++) {
            b.got[i] -= before[i];
            before[i] = b.w[i] - before[i];
        }
        if (muon)
            expect_alike(&b, before, 0.999, 0.01, "step");
        else
            expect_alike(&b, before, 1.0 - 1e-6, 1e-5, "step");
        cr_assert(!b.t->put(b.l, RD_LEARNER_WEIGHTS, b.w,
                            &err)); /* errors of one step are not another's */
    }
    get(&b, RD_LEARNER_MOMENT_0);
    expect_alike(&b, rd_optimizer_moment(b.optimizer, 0), 1.0 - 1e-6, 1e-5, "moment 0");
    get(&b, RD_LEARNER_MOMENT_1);
    expect_alike(&b, rd_optimizer_moment(b.optimizer, 1), 1.0 - 1e-6, 1e-5, "moment 1");
    get(&b, RD_LEARNER_GRADIENT);
    for (size_t i = 0; i < b.p.size; i++)
        cr_assert_eq(b.got[i], 0.0f, "a step takes the gradient away");
    free(before);
    bench_close(&b);
}

Test(learner, adamw_steps_as_the_cpu)
{
    GPU_OR_SKIP();
    steps_agree(false);
}

Test(learner, muon_steps_as_the_cpu)
{
    GPU_OR_SKIP();
    steps_agree(true);
}

Test(learner, expert_biases_follow_the_load_of_the_step_and_of_no_measuring)
{
    GPU_OR_SKIP();
    rd_model_config c = usual();
    rd_train_stats stats = { 0 };
    rd_error err = { 0 };
    bench b = { 0 };
    double norm;

    bench_open(&b, &c);
    fill_pack(&b, 40, 100);
    submit(&b, RD_LEARNER_MEASURE, 0.01f);
    fill_pack(&b, 41, 100);
    submit(&b, RD_LEARNER_LEARN, 0.01f);
    run_cpu(&b, 0.01f, true, &stats);
    cr_assert(!b.t->step(b.l, 0.0f, false, &err));
    cr_assert(!rd_optimizer_step(b.optimizer, b.w, b.grad, 0.0f, b.load, &norm, &err));
    get(&b, RD_LEARNER_WEIGHTS);
    cr_expect(!memcmp(b.got, b.w, b.p.size * sizeof *b.w),
              "at rate 0 the biases move, and nothing else");
    bench_close(&b);
}

Test(learner, a_gradient_that_is_no_number_changes_nothing_and_is_named)
{
    GPU_OR_SKIP();
    rd_model_config c = usual();
    rd_error err = { 0 };
    rd_learner_sums sums;
    bench b = { 0 };

    bench_open(&b, &c);
    const rd_param *q = rd_params_find(&b.p, "model.layers.1.mlp.experts.3.up_proj.weight");

    b.grad[q->offset + 5] = NAN;
    cr_assert(!b.t->put(b.l, RD_LEARNER_GRADIENT, b.grad, &err));
    cr_assert(!b.t->step(b.l, 0.1f, false, &err), "a step does not wait to be told");
    for (int which = RD_LEARNER_WEIGHTS; which <= RD_LEARNER_MOMENT_1; which++) {
        get(&b, (rd_learner_array)which);
        for (size_t i = 0; i < b.p.size; i++)
            cr_assert_eq(b.got[i], which == RD_LEARNER_WEIGHTS ? b.w[i] : 0.0f, "array %d moved",
                         which);
    }
    cr_expect_eq(b.t->collect(b.l, &sums, &err), RD_INVALID);
    cr_expect(strstr(err.text, q->name) && strstr(err.text, "step 1:"), "%s", err.text);
    for (size_t i = 0; i < b.p.size; i++) b.grad[i] = 0.01f;
    cr_assert(!b.t->put(b.l, RD_LEARNER_GRADIENT, b.grad, &err) &&
              !b.t->step(b.l, 0.1f, false, &err));
    sums = collect(&b);
    cr_expect_eq(sums.steps, 1, "and the next step is the first");
    bench_close(&b);
}

Test(learner, a_loss_that_is_no_number_is_told)
{
    GPU_OR_SKIP();
    rd_model_config c = usual();
    rd_error err = { 0 };
    rd_learner_sums sums;
    bench b = { 0 };

    bench_open(&b, &c);
    fill_pack(&b, 3, 100);
    b.w[b.p.norm] = NAN;
    cr_assert(!b.t->put(b.l, RD_LEARNER_WEIGHTS, b.w, &err));
    submit(&b, RD_LEARNER_LEARN, 0.01f);
    cr_assert(!b.t->step(b.l, 0.1f, false, &err));
    cr_expect_eq(b.t->collect(b.l, &sums, &err), RD_INVALID);
    cr_expect(strstr(err.text, "step 1:"), "%s", err.text);
    get(&b, RD_LEARNER_WEIGHTS);
    for (size_t i = 0; i < b.p.size; i++) cr_assert(b.got[i] == b.w[i] || i == b.p.norm);
    bench_close(&b);
}

Test(learner, arrays_come_back_as_they_were_put)
{
    GPU_OR_SKIP();
    rd_model_config c = usual();
    rd_random r = rd_random_seed(2);
    rd_error err = { 0 };
    bench b = { 0 };

    b.o.mean = true;
    bench_open(&b, &c);
    for (int which = 0; which < RD_LEARNER_ARRAYS; which++) {
        for (size_t i = 0; i < b.p.size; i++) b.grad[i] = (float)rd_random_normal(&r);
        cr_assert(!b.t->put(b.l, (rd_learner_array)which, b.grad, &err));
        get(&b, (rd_learner_array)which);
        cr_expect(!memcmp(b.got, b.grad, b.p.size * sizeof *b.got), "array %d", which);
    }
    cr_expect_eq(b.t->get(b.l, RD_LEARNER_ARRAYS, b.got, &err), RD_INVALID);
    cr_assert(!b.t->set_steps(b.l, 41, 3, &err));
    cr_expect_eq(collect(&b).steps, 41);
    bench_close(&b);
}

Test(learner, the_mean_is_of_the_steps_that_count_without_a_gap)
{
    GPU_OR_SKIP();
    static const bool counts[] = { true, true, false, true, true, true };
    rd_model_config c = usual();
    rd_random r = rd_random_seed(2);
    rd_error err = { 0 };
    bench b = { 0 };
    int n = 0;

    b.o.mean = true;
    bench_open(&b, &c);
    double *sum = rd_alloc_array(b.p.size, sizeof *sum);

    for (size_t s = 0; s < sizeof counts / sizeof *counts; s++) {
        for (size_t i = 0; i < b.p.size; i++) b.grad[i] = (float)rd_random_normal(&r);
        cr_assert(!b.t->put(b.l, RD_LEARNER_GRADIENT, b.grad, &err) &&
                  !b.t->step(b.l, 0.05f, counts[s], &err));
        if (!counts[s]) {
            memset(sum, 0, b.p.size * sizeof *sum);
            n = 0;
            continue;
        }
        get(&b, RD_LEARNER_WEIGHTS);
        for (size_t i = 0; i < b.p.size; i++) sum[i] += (double)b.got[i];
        n++;
    }
    get(&b, RD_LEARNER_MEAN);
    for (size_t i = 0; i < b.p.size; i++) cr_assert_float_eq(b.got[i], sum[i] / n, 1e-6);
    free(sum);
    bench_close(&b);
}

Test(learner, guesses_are_the_cpus_and_count_nowhere)
{
    GPU_OR_SKIP();
    rd_model_config c = usual();
    rd_train_stats stats = { 0 };
    rd_error err = { 0 };
    bench b = { 0 };
    int same = 0, labels = 0;

    bench_open(&b, &c);
    fill_pack(&b, 9, 300);
    run_cpu(&b, 1.0f, false, &stats);
    int32_t *best = rd_alloc_array((size_t)b.pack.n, sizeof *best);

    cr_assert(!b.t->guess(b.l, b.pack.row, b.pack.n, best, &err), "%s", err.text);
    for (int i = 0; i < b.pack.n; i++) {
        int32_t want = rd_net_best(b.net)[i];

        labels += want >= 0;
        same += want >= 0 && best[i] == want;
        cr_assert_eq(best[i] < 0, want < 0, "row %d", i);
    }
    cr_expect_gt(labels, 50);
    cr_expect_geq(same, labels - labels / 20, "%d of %d", same,
                  labels); /* near ties may fall otherwise */
    rd_learner_sums sums = collect(&b);

    cr_expect_eq(sums.stats.flops, 0.0);
    for (int i = 0; i < RD_TASKS; i++)
        cr_expect(sums.stats.loss[i] == 0.0 && sums.stats.labels[i] == 0);
    for (int i = 0; i < c.num_hidden_layers * c.num_experts; i++)
        cr_expect_eq(sums.stats.load[i], 0);
    free(best);
    bench_close(&b);
}

Test(learner, passes_see_rounded_weights_when_asked)
{
    GPU_OR_SKIP();
    rd_model_config c = usual();
    rd_train_stats want = { 0 };
    rd_error err = { 0 };
    bench b = { 0 };

    b.o.rounded = true;
    bench_open(&b, &c);
    fill_pack(&b, 3, 200);
    /* One outlier a row makes the rounding coarse enough to be seen in the loss. */
    for (int i = 0; i < b.p.count; i++) {
        const rd_param *q = &b.p.param[i];

        if (q->kind != RD_PARAM_MATRIX) continue;
        for (int r = 0; r < q->rows; r++) b.w[q->offset + (size_t)r * (size_t)q->cols] = 4.0f;
    }
    cr_assert(!b.t->put(b.l, RD_LEARNER_WEIGHTS, b.w, &err) && !b.t->see_rounded(b.l, true, &err));
    submit(&b, RD_LEARNER_MEASURE, 1.0f);
    for (int i = 0; i < b.p.count; i++) cr_assert(!rd_params_round_int8(&b.p, i, b.w, b.w, &err));
    run_cpu(&b, 1.0f, false, &want);
    rd_learner_sums sums = collect(&b);

    expect_sums(&sums.stats, &want);
    bench_close(&b);
}

static void train(bench *b, float *loss, int steps)
{
    rd_error err = { 0 };

    for (int s = 0; s < steps; s++) {
        double weight = 0.0, sum = 0.0;

        for (int k = 0; k < 2; k++) {
            fill_pack(b, 60 + (uint64_t)k, 150);
            submit(b, RD_LEARNER_LEARN, 1.0f / 150.0f);
        }
        cr_assert(!b->t->step(b->l, 0.02f, false, &err));
        rd_learner_sums sums = collect(b);

        for (int i = 0; i < RD_TASKS; i++)
            sum += sums.stats.loss[i], weight += sums.stats.weight[i];
        loss[s] = (float)(sum / weight);
    }
}

Test(learner, it_learns_and_the_order_of_threads_does_not_show)
{
    GPU_OR_SKIP();
    static const uint64_t orders[] = { 0, 1, 77 };
    enum { STEPS = 6 };
    rd_model_config c = usual();
    float first[STEPS], loss[STEPS], *w = NULL;

    for (size_t k = 0; k < sizeof orders / sizeof *orders; k++) {
        bench b = { 0 };

        rd_emulated_order(orders[k]);
        bench_open(&b, &c);
        train(&b, k ? loss : first, STEPS);
        get(&b, RD_LEARNER_WEIGHTS);
        if (k == 0) {
            w = rd_alloc_array(b.p.size, sizeof *w);
            memcpy(w, b.got, b.p.size * sizeof *w);
            cr_expect_lt(first[STEPS - 1], 0.8f * first[0], "%f, then %f", (double)first[0],
                         (double)first[STEPS - 1]);
        } else {
            cr_expect(!memcmp(w, b.got, b.p.size * sizeof *w), "weights differ in order %zu", k);
            cr_expect(!memcmp(first, loss, sizeof loss));
        }
        bench_close(&b);
    }
    free(w);
}

Test(learner, bad_rows_are_refused_as_by_the_cpu)
{
    GPU_OR_SKIP();
    rd_model_config c = usual();
    rd_error err = { 0 };
    bench b = { 0 };

    bench_open(&b, &c);
    fill_pack(&b, 3, 60);
    for (int kind = 0; kind < 7; kind++) {
        rd_train_row *r = &b.pack.row[5], keep = *r;
        rd_error theirs = { 0 };
        rd_train_stats stats = { 0 };

        if (kind == 0) r->token = VOCAB;
        if (kind == 1) r->label = VOCAB;
        if (kind == 2) r->position = -1;
        if (kind == 3) r->task = RD_TASKS;
        if (kind == 4) r->own_end = b.pack.n + 1, r->own_start = 0;
        if (kind == 5) r->clean_end = r->clean_start = r->own_end = r->own_start = 0;
        if (kind == 6) r->clean_start = -1, r->clean_end = 4;
        cr_expect_eq(b.t->submit(b.l, RD_LEARNER_LEARN, b.pack.row, b.pack.n, 1.0f, &err),
                     RD_INVALID, "kind %d", kind);
        cr_expect_eq(rd_net_run(b.net, b.w, b.pack.row, b.pack.n, 1.0f, NULL, &stats, &theirs),
                     RD_INVALID);
        cr_expect_str_eq(err.text, theirs.text);
        *r = keep;
    }
    cr_expect_eq(b.t->submit(b.l, RD_LEARNER_LEARN, b.pack.row, ROOM + 1, 1.0f, &err), RD_INVALID);
    cr_expect_eq(b.t->submit(b.l, RD_LEARNER_LEARN, b.pack.row, 0, 1.0f, &err), RD_INVALID);
    submit(&b, RD_LEARNER_MEASURE, 1.0f);
    cr_expect_gt(collect(&b).stats.flops, 0.0);
    bench_close(&b);
}

#ifdef RD_TEST_EMULATED
Test(learner, too_little_memory_says_what_is_needed_and_free)
{
    rd_model_config c = usual();
    rd_learner_options o = { .rows_per_pack = 4096,
                             .packs = 1,
                             .optimizer = rd_optimizer_defaults() };
    rd_error err = { 0 };
    rd_learner *l = NULL;
    rd_params p;

    cr_assert(!rd_params_init(&p, &c, &err));
    rd_emulated_memory((size_t)16 << 20);
    cr_expect_eq(gpu_learner()->open(&p, &o, &l, &err), RD_NO_MEMORY);
    cr_expect(strstr(err.text, "need") && strstr(err.text, "16 MB are free"), "%s", err.text);
    rd_emulated_memory((size_t)4 << 30);
    o.memory_limit = (size_t)20 << 20;
    cr_expect_eq(gpu_learner()->open(&p, &o, &l, &err), RD_NO_MEMORY);
    cr_expect(strstr(err.text, "20 MB are free"), "%s", err.text);
    o.memory_limit = 0;
    cr_assert(!gpu_learner()->open(&p, &o, &l, &err), "%s", err.text);
    gpu_learner()->close(l);
    cr_expect_eq(rd_emulated_alive(), 0);
    rd_params_clear(&p);
}
#endif

Test(learner, shapes_it_cannot_train_are_refused_with_the_reason)
{
    GPU_OR_SKIP();
    static const char *const reasons[] = { "head_dim 16", "vocabulary of 321", "columns" };
    rd_learner_options o = { .rows_per_pack = 64,
                             .packs = 1,
                             .optimizer = rd_optimizer_defaults() };

    for (int i = 0; i < 3; i++) {
        rd_model_config c = usual();
        rd_error err = { 0 };
        rd_learner *l = NULL;
        rd_params p;

        if (i == 0) c.head_dim = 16;
        if (i == 1) c.vocab_size = 321;
        if (i == 2) c.moe_intermediate_size = 20;
        cr_assert(!rd_params_init(&p, &c, &err), "%s", err.text);
        cr_expect_eq(gpu_learner()->open(&p, &o, &l, &err), RD_INVALID);
        cr_expect(strstr(err.text, reasons[i]), "%s", err.text);
        rd_params_clear(&p);
    }
}
