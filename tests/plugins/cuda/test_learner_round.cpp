/* test_learner_round.cpp - weights as int8 rows make them, on the emulated GPU, to the bit of the CPU's. */
#include "plugins/cuda/learn.h"
extern "C" {
#include "tests/core/shape.h"
}

#include <criterion/criterion.h>
#include <string.h>

extern "C" const rd_learner_table *rd_learner_entry(void);

Test(learner_round, rows_are_rounded_to_the_bit)
{
    rd_model_config c = small_shape(320, 8);
    rd_learner_options o = {};
    rd_random r = rd_random_seed(4);
    rd_error err = {};
    rd_learner *l = NULL;
    rd_params p;

    c.hidden_size = 64;
    c.head_dim = c.rotary_dim = 32;
    c.moe_intermediate_size = 40;
    c.num_experts = 8;
    cr_assert(!rd_params_init(&p, &c, &err), "%s", err.text);
    o.rows_per_pack = 64;
    o.rounded = true;
    o.optimizer = rd_optimizer_defaults();
    const rd_learner_table *t = rd_learner_entry();

    cr_assert(!t->open(&p, &o, &l, &err), "%s", err.text);
    float *w = (float *)rd_alloc_array(p.size, sizeof *w),
          *want = (float *)rd_alloc_array(p.size, sizeof *w);
    float *got = (float *)rd_alloc_array(p.size, sizeof *w);

    for (int i = 0; i < p.count; i++) {
        const rd_param *q = &p.param[i];

        for (int row = 0; row < q->rows; row++) {
            float by = row % 7 == 0 ? 0.0f : row % 7 == 1 ? 1e-30f : row % 7 == 2 ? 1e20f : 0.02f;

            for (int k = 0; k < q->cols; k++) {
                float x = by * (float)rd_random_normal(&r);

                if (k % 9 == 0) x = -0.0f;
                if (row % 7 == 3) x = (float)(k % 255 - 127) * 0.5f; /* halves: ties */
                w[q->offset + (size_t)row * (size_t)q->cols + (size_t)k] = x;
            }
        }
        cr_assert(!rd_params_round_int8(&p, i, w, want, &err), "%s", err.text);
    }
    cr_assert(!t->put(l, RD_LEARNER_WEIGHTS, w, &err));
    learn_round(l, l->grad);
    cr_assert(!t->get(l, RD_LEARNER_GRADIENT, got, &err));
    cr_expect(!memcmp(got, want, p.size * sizeof *got));

    /* What products read is that, in bf16. */
    bf16 *half = (bf16 *)rd_alloc_array(p.size, sizeof *half);

    cr_assert(!t->see_rounded(l, true, &err));
    learn_refresh(l);
    cr_assert(cudaMemcpyAsync(half, l->half_w, p.size * sizeof *half, cudaMemcpyDeviceToHost,
                              l->stream) == cudaSuccess &&
              cudaStreamSynchronize(l->stream) == cudaSuccess);
    for (int i = 0; i < p.count; i++) {
        const rd_param *q = &p.param[i];

        if (q->kind != RD_PARAM_MATRIX && q->kind != RD_PARAM_TABLE) continue;
        for (size_t k = q->offset; k < q->offset + (size_t)q->rows * (size_t)q->cols; k++)
            cr_assert_eq(half[k], gpu_bf16(want[k]), "%s: number %zu", q->name, k - q->offset);
    }
    t->close(l);
    rd_params_clear(&p);
    free(w);
    free(want);
    free(got);
    free(half);
}
