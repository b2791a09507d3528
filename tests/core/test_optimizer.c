/* test_optimizer.c - steps against their formulas on small models. */
#include "core/base/memory.h"
#include "core/train/optimizer.h"
#include "tests/core/gemm.h"
#include "tests/core/shape.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct bench {
    rd_params p;
    rd_pool *pool;
    rd_gemm_train *gemm;
    rd_product product;
    rd_optimizer *o;
    float *w, *before, *grad;
} bench;

static void bench_open(bench *b, bool muon)
{
    rd_model_config config = small_shape(40, 4);
    rd_optimizer_options options = rd_optimizer_defaults();
    rd_random r = rd_random_seed(8);
    rd_error err = { 0 };

    options.muon = muon;
    cr_assert(!rd_params_init(&b->p, &config, &err), "%s", err.text);
    cr_assert(!rd_gemm_train_open(RD_EXACT, &b->gemm, &err));
    b->product = (rd_product){ (rd_device *)(void *)b->gemm, multiply };
    b->pool = rd_pool_new(1);
    cr_assert(!rd_optimizer_open(&b->p, &options, b->pool, &b->product, &b->o, &err));
    b->w = rd_alloc_array(b->p.size, sizeof *b->w);
    b->before = rd_alloc_array(b->p.size, sizeof *b->w);
    b->grad = rd_alloc_array(b->p.size, sizeof *b->w);
    rd_params_seed(&b->p, b->w, 3);
    memcpy(b->before, b->w, b->p.size * sizeof *b->w);
    for (size_t i = 0; i < b->p.size; i++) b->grad[i] = (float)rd_random_normal(&r);
}

static void bench_close(bench *b)
{
    rd_optimizer_close(b->o);
    rd_pool_free(b->pool);
    rd_gemm_train_close(b->gemm);
    rd_params_clear(&b->p);
    free(b->w);
    free(b->before);
    free(b->grad);
}

Test(optimizer, adamw_follows_its_formula_over_three_steps)
{
    bench b = { 0 };
    rd_error err = { 0 };
    double norm = 0.0, lr = 0.01;

    bench_open(&b, false);
    const rd_param *q = rd_params_find(&b.p, "model.layers.0.attention.dense.weight");
    double w = b.before[q->offset + 7], m = 0.0, v = 0.0;
    for (int t = 1; t <= 3; t++) {
        cr_assert(!rd_optimizer_step(b.o, b.w, b.grad, (float)lr, NULL, &norm, &err));
        double g = (double)b.grad[q->offset + 7] / norm; /* clipped to length 1 */

        m = 0.9 * m + 0.1 * g;
        v = 0.95 * v + 0.05 * g * g;
        w = w * (1.0 - lr * 0.1) -
            lr * (m / (1.0 - pow(0.9, t))) / (sqrt(v / (1.0 - pow(0.95, t))) + 1e-8);
        cr_expect_float_eq(b.w[q->offset + 7], w, 2e-6, "step %d", t);
    }
    cr_assert_gt(norm, 1.0);
    bench_close(&b);
}

Test(optimizer, muon_steps_are_nearly_orthogonal_and_have_the_stated_size)
{
    bench b = { 0 };
    rd_error err = { 0 };
    double norm, lr = 0.5;

    bench_open(&b, true);
    cr_assert(!rd_optimizer_step(b.o, b.w, b.grad, (float)lr, NULL, &norm, &err));
    for (int i = 0; i < b.p.count; i++) {
        const rd_param *q = &b.p.param[i];
        int rows = q->rows, cols = q->cols, side = rows < cols ? rows : cols;
        double by = lr * 0.2 * sqrt(rows > cols ? rows : cols), sum = 0.0;

        if (q->kind != RD_PARAM_MATRIX) continue;
        for (int k = 0; k < rows * cols; k++) {
            size_t at = q->offset + (size_t)k;
            double x = (b.before[at] * (1.0 - lr * 0.1) - b.w[at]) / by;

            sum += x * x;
        }
        /* All singular values near one: their squares add up to the shorter side. */
        cr_expect_gt(sum / side, 0.6, "%s: %g", q->name, sum / side);
        cr_expect_lt(sum / side, 1.3, "%s: %g", q->name, sum / side);
    }
    bench_close(&b);
}

Test(optimizer, an_expert_with_too_much_load_loses_bias)
{
    bench b = { 0 };
    rd_error err = { 0 };
    int64_t load[2 * 4] = { 0, 0, 0, 0, 10, 4, 4, 6 };
    float expected[4] = { -1e-3f, 1e-3f, 1e-3f, 0.0f };
    double norm;

    bench_open(&b, true);
    cr_assert(!rd_optimizer_step(b.o, b.w, b.grad, 0.01f, load, &norm, &err));
    for (int e = 0; e < 4; e++) cr_expect_eq(b.w[b.p.layer[1].bias + (size_t)e], expected[e]);
    bench_close(&b);
}

Test(optimizer, a_gradient_that_is_not_finite_changes_nothing)
{
    bench b = { 0 };
    rd_error err = { 0 };
    double norm;

    bench_open(&b, true);
    b.grad[5] = NAN;
    cr_assert_eq(rd_optimizer_step(b.o, b.w, b.grad, 0.01f, NULL, &norm, &err), RD_INVALID);
    cr_assert_arr_eq(b.w, b.before, b.p.size * sizeof *b.w);
    cr_assert_eq(rd_optimizer_steps(b.o), 0);
    bench_close(&b);
}
