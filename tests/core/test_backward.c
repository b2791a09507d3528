/* test_backward.c - every gradient against finite differences, and the sight of rows.
 *
 * The loss jumps where a row changes its experts, and has no slope there. So each difference looks at
 * the routes of both its ends: where they are not those of the middle, it is taken again over a
 * shorter way, and left out if that does not help; few may be left out. The same holds where a row stops being
 * right, for then its entropy counts no more. */
#include "core/base/memory.h"
#include "core/train/backward.h"
#include "plugins/cpu/gemm_train.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const rd_model_config tiny = {
    .vocab_size = 40,
    .hidden_size = 32,
    .num_hidden_layers = 3,
    .num_attention_heads = 4,
    .num_key_value_heads = 2,
    .head_dim = 16,
    .intermediate_size = 48,
    .moe_intermediate_size = 16,
    .num_experts = 4,
    .num_experts_per_tok = 2,
    .num_shared_experts = 1,
    .first_k_dense_replace = 1,
    .n_group = 1,
    .topk_group = 1,
    .block_size = 4,
    .rotary_dim = 8,
    .max_position_embeddings = 4096,
    .rope_theta = 10000,
    .rms_norm_eps = 1e-6,
    .routed_scaling_factor = 1.5,
    .tie_word_embeddings = true,
    .pad_token_id = -1,
    .mask_token_id = -1,
    .delete_token_id = -1,
    .split_token_id = -1,
};

enum { CLEAN = 37, ROWS = 2 * CLEAN, BLOCK = 4, SEEDS = 8, LAYERS = 3, EXPERTS = 4 };

typedef struct bench {
    rd_params p;
    rd_gemm_train *gemm;
    rd_net *net;
    float *w, *grad;
    rd_train_row row[ROWS];
    bool route[LAYERS][ROWS][EXPERTS]; /* of the weights as they are */
    bool right[ROWS];                  /* likewise */
    int checked, jumped;
} bench;

/* The context of the product stands in for a device: the verb hands it back untouched. */
static rd_status multiply(rd_device *d, bool ta, bool tb, int m, int n, int k, const float *a,
                          int lda, const float *b, int ldb, float beta, float *c, int ldc,
                          rd_error *err)
{
    return rd_gemm_train_run((rd_gemm_train *)(void *)d, ta, tb, m, n, k, a, lda, b, ldb, beta, c,
                             ldc, err);
}

/* The doubled sequence of one document: clean rows, then noisy rows with labels at the masks. */
static void fill_rows(rd_train_row *row, uint64_t seed)
{
    rd_random r = rd_random_seed(seed);

    for (int i = 0; i < CLEAN; i++) {
        int start = i / BLOCK * BLOCK, end = start + BLOCK < CLEAN ? start + BLOCK : CLEAN;
        int token = (int)rd_random_below(&r, 39);
        bool masked = rd_random_below(&r, 2);

        row[i] = (rd_train_row){
            .token = token, .position = i, .clean_start = 0, .clean_end = end, .label = -1
        };
        row[CLEAN + i] = (rd_train_row){ .token = masked ? 39 : token,
                                         .position = i,
                                         .clean_start = 0,
                                         .clean_end = start,
                                         .own_start = CLEAN + start,
                                         .own_end = CLEAN + end,
                                         .label = masked ? token : -1,
                                         .weight = 0.5f + (float)rd_random_unit(&r),
                                         .task = i % 2 };
    }
}

static void bench_open(bench *b, const rd_model_config *config, uint64_t seed)
{
    rd_error err = { 0 };
    rd_random r = rd_random_seed(seed);

    cr_assert(!rd_params_init(&b->p, config, &err), "%s", err.text);
    cr_assert(!rd_gemm_train_open(RD_EXACT, &b->gemm, &err), "%s", err.text);
    rd_product product = { (rd_device *)(void *)b->gemm, multiply };
    cr_assert(!rd_net_open(&b->p, product, ROWS, &b->net, &err), "%s", err.text);
    b->w = rd_alloc_array(b->p.size, sizeof *b->w);
    b->grad = rd_alloc_array(b->p.size, sizeof *b->grad);
    for (int i = 0; i < b->p.count; i++) {
        const rd_param *q = &b->p.param[i];
        double base = q->kind == RD_PARAM_NORM ? 1.0 : 0.0;

        for (int k = 0; k < q->rows * q->cols; k++)
            b->w[q->offset + (size_t)k] = (float)(base + 0.25 * rd_random_normal(&r));
    }
    fill_rows(b->row, seed + 5);
}

static void bench_close(bench *b)
{
    rd_net_close(b->net);
    rd_gemm_train_close(b->gemm);
    rd_params_clear(&b->p);
    free(b->w);
    free(b->grad);
}

static double loss_of(bench *b, float *grad)
{
    rd_train_stats stats = { 0 };
    rd_error err = { 0 };

    cr_assert(!rd_net_run(b->net, b->w, b->row, ROWS, 1.0f, grad, &stats, &err), "%s", err.text);
    return stats.loss[0] + stats.loss[1] + stats.entropy;
}

static bool is_right(const bench *b, int i)
{
    return b->row[i].label >= 0 && rd_net_best(b->net)[i] == b->row[i].label;
}

/* Which experts each row of the last pass went to. */
static void read_routes(const bench *b, bool (*route)[ROWS][EXPERTS])
{
    int top = b->p.config.num_experts_per_tok;

    memset(route, 0, LAYERS * sizeof *route);
    for (int l = 0; l < LAYERS; l++) {
        const int32_t *chosen = rd_net_routes(b->net, l);

        for (int i = 0; chosen && i < ROWS * top; i++) route[l][i / top][chosen[i]] = true;
    }
}

/* The slope of the loss along `way` (unit length), by central differences. False where a row changes
 * its experts on the way. */
static bool slope(bench *b, const rd_param *q, const float *way, double step, double *out)
{
    size_t n = (size_t)q->rows * (size_t)q->cols;
    float *w = b->w + q->offset, *old = rd_alloc_array(n, sizeof *old);
    bool route[LAYERS][ROWS][EXPERTS], smooth = true;
    double side[2];

    memcpy(old, w, n * sizeof *old);
    for (int s = 0; s < 2; s++) {
        for (size_t i = 0; i < n; i++) w[i] = old[i] + (float)((s ? -step : step) * way[i]);
        side[s] = loss_of(b, NULL);
        read_routes(b, route);
        smooth = smooth && !memcmp(route, b->route, sizeof route);
        for (int i = 0; i < ROWS; i++) smooth = smooth && is_right(b, i) == b->right[i];
    }
    memcpy(w, old, n * sizeof *old);
    free(old);
    *out = (side[0] - side[1]) / (2.0 * step);
    return smooth;
}

static void check_slope(bench *b, const rd_param *q, const float *way, double expected,
                        double length)
{
    double found;

    b->checked++;
    if (!slope(b, q, way, 1e-3, &found) && !slope(b, q, way, 2.5e-4, &found)) {
        b->jumped++;
        return;
    }
    cr_expect_float_eq(found, expected, 0.01 * length + 2e-3, "%s: slope %g, expected %g", q->name,
                       found, expected);
}

static void check_tensor(bench *b, const rd_param *q, rd_random *r)
{
    size_t n = (size_t)q->rows * (size_t)q->cols;
    const float *g = b->grad + q->offset;
    float *way = rd_alloc_array(n, sizeof *way);
    double length = 0.0, norm = 0.0, expected = 0.0;

    for (size_t k = 0; k < n; k++) length += (double)g[k] * g[k];
    length = sqrt(length);
    if (q->kind == RD_PARAM_BIAS) {
        cr_assert_eq(length, 0.0, "%s has a gradient", q->name);
    } else if (length == 0.0) { /* an expert that no row was sent to */
        cr_assert(strstr(q->name, ".experts."), "%s has no gradient", q->name);
    } else {
        /* Along the gradient the slope is its length: a wrong direction would fall short. */
        for (size_t k = 0; k < n; k++) way[k] = (float)(g[k] / length);
        check_slope(b, q, way, length, length);
        for (size_t k = 0; k < n; k++) {
            way[k] = (float)rd_random_normal(r);
            norm += (double)way[k] * way[k];
        }
        for (size_t k = 0; k < n; k++) {
            way[k] /= (float)sqrt(norm);
            expected += (double)way[k] * g[k];
        }
        check_slope(b, q, way, expected, length);
    }
    free(way);
}

/* Two of three masks ask for what the model says already, and to be sure of it. */
static void ask_for_confidence(bench *b)
{
    loss_of(b, NULL);
    for (int i = CLEAN; i < ROWS; i++) {
        if (b->row[i].label < 0) continue;
        b->row[i].confidence = 1.5f;
        if (i % 3) b->row[i].label = rd_net_best(b->net)[i];
    }
}

static void check_every_gradient(const rd_model_config *config, bool sure)
{
    int checked = 0, jumped = 0;

    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        bench b = { 0 };
        rd_random r = rd_random_seed(77 + seed);

        bench_open(&b, config, seed);
        if (sure) ask_for_confidence(&b);
        loss_of(&b, b.grad);
        read_routes(&b, b.route);
        for (int i = 0; i < ROWS; i++) b.right[i] = is_right(&b, i);
        for (int i = 0; i < b.p.count; i++) check_tensor(&b, &b.p.param[i], &r);
        checked += b.checked;
        jumped += b.jumped;
        bench_close(&b);
    }
    cr_log_info("%d slopes, %d left out\n", checked, jumped);
    cr_expect_gt(checked, SEEDS * 50);
    cr_expect_lt(jumped * 20, checked, "%d of %d slopes left out", jumped, checked);
}

Test(backward, agrees_with_finite_differences_for_every_weight)
{
    check_every_gradient(&tiny, false);
}

Test(backward, agrees_with_finite_differences_where_right_rows_are_to_be_sure)
{
    check_every_gradient(&tiny, true);
}

Test(backward, the_entropy_of_right_rows_alone_is_counted)
{
    enum { VOCAB = 40 };
    bench b = { 0 };
    rd_train_stats stats = { 0 };
    double entropy = 0.0;
    int right = 0;
    rd_error err;

    bench_open(&b, &tiny, 3);
    ask_for_confidence(&b);
    cr_assert(!rd_net_run(b.net, b.w, b.row, ROWS, 1.0f, NULL, &stats, &err));
    for (int i = 0; i < ROWS; i++) b.right[i] = is_right(&b, i), right += b.right[i];

    /* The probability of every token in every right row, by asking for it. */
    for (int v = 0; v < VOCAB; v++) {
        rd_train_stats asked = { 0 };

        for (int i = CLEAN; i < ROWS; i++)
            if (b.right[i]) b.row[i].label = v;
        cr_assert(!rd_net_run(b.net, b.w, b.row, ROWS, 1.0f, NULL, &asked, &err));
        for (int i = CLEAN; i < ROWS; i++)
            if (b.right[i])
                entropy +=
                    exp(-(double)rd_net_surprise(b.net)[i]) * (double)rd_net_surprise(b.net)[i];
    }

    cr_assert_gt(right, 5);
    cr_assert_float_eq(stats.entropy, 1.5 * entropy, 1e-3 * entropy);
    bench_close(&b);
}

Test(backward, agrees_with_finite_differences_untied_in_groups_and_without_shared_expert)
{
    rd_model_config config = tiny;

    config.tie_word_embeddings = false;
    config.n_group = 2;
    config.topk_group = 1;
    config.num_shared_experts = 0;
    check_every_gradient(&config, false);
}

Test(backward, agrees_with_finite_differences_for_one_expert_a_token)
{
    rd_model_config config = tiny;

    config.num_experts_per_tok = 1;
    check_every_gradient(&config, false);
}

Test(backward, a_row_sees_its_sight_and_nothing_else)
{
    bench b = { 0 };

    bench_open(&b, &tiny, 12);
    loss_of(&b, NULL);
    float *before = rd_alloc_array(ROWS, sizeof *before);
    memcpy(before, rd_net_surprise(b.net), ROWS * sizeof *before);

    b.row[20].token = (b.row[20].token + 1) % 39; /* a clean row of block 5 */
    loss_of(&b, NULL);
    const float *after = rd_net_surprise(b.net);

    bool later = false;
    for (int i = CLEAN; i < ROWS; i++) {
        bool may = b.row[i].clean_end > 20;

        if (!may) cr_expect_eq(before[i], after[i], "row %d saw a later block", i);
        later = later || (may && before[i] != after[i]);
    }
    cr_expect(later, "no row saw the change");
    free(before);
    bench_close(&b);
}

Test(backward, a_pack_may_not_point_outside_itself)
{
    bench b = { 0 };
    rd_train_stats stats = { 0 };
    rd_error err = { 0 };

    bench_open(&b, &tiny, 12);
    b.row[3].clean_end = ROWS + 1;
    cr_expect_eq(rd_net_run(b.net, b.w, b.row, ROWS, 1.0f, NULL, &stats, &err), RD_INVALID);
    fill_rows(b.row, 5);
    b.row[3].token = 40;
    cr_expect_eq(rd_net_run(b.net, b.w, b.row, ROWS, 1.0f, NULL, &stats, &err), RD_INVALID);
    bench_close(&b);
}

Test(backward, the_fast_product_is_near_the_exact_one)
{
    enum { M = 70, N = 48, K = 33 };
    rd_gemm_train *fast, *exact;
    rd_error err = { 0 };
    rd_random r = rd_random_seed(3);
    float a[M * K], b[K * N], c[M * N], d[M * N];

    cr_assert(!rd_gemm_train_open(RD_FAST, &fast, &err));
    cr_assert(!rd_gemm_train_open(RD_EXACT, &exact, &err));
    for (int i = 0; i < M * K; i++) a[i] = (float)rd_random_normal(&r);
    for (int i = 0; i < K * N; i++) b[i] = (float)rd_random_normal(&r);
    for (int way = 0; way < 8; way++) {
        bool ta = way & 1, tb = way & 2;
        float beta = way & 4 ? 1.0f : 0.0f;

        for (int i = 0; i < M * N; i++) c[i] = d[i] = (float)i / 1000.0f;
        cr_assert(!rd_gemm_train_run(fast, ta, tb, M, N, K, a, ta ? M : K, b, tb ? K : N, beta, c,
                                     N, &err));
        cr_assert(!rd_gemm_train_run(exact, ta, tb, M, N, K, a, ta ? M : K, b, tb ? K : N, beta, d,
                                     N, &err));
        for (int i = 0; i < M * N; i++) cr_assert_float_eq(c[i], d[i], 0.2, "way %d", way);
    }
    rd_gemm_train_close(fast);
    rd_gemm_train_close(exact);
}
