/* bench_check.c - do the kernels that are timed compute the right picks? One layer against the plain path of the CPU. */
#include "core/tools/bench_plan.h"

#include "core/base/memory.h"
#include "core/plugin.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How much less likely the plain path may hold the fast path's pick than its own, and how far the two
 * probabilities of a pick may be apart, as logarithms, for each root of the layers. Rounding to bf16
 * moves them by hundredths; a wrong pick is off by whole numbers. Packed weights are multiplied by numbers of 8 bits,
 * whose rounding falls otherwise where attention in bf16 has moved them a little: each of two such sums over rounded numbers is
 * off by a hundredth of its size. So these are compared twice: once with attention in float32 on both sides, where
 * only the last bits of an exponential differ and few roundings fall otherwise, once as they are timed. A device that multiplies
 * them by halves is compared once. */
static const double allowed_a_layer = 0.1, allowed_exact = 0.05, allowed_packed = 0.25;

/* Picks of a block behind one block, on a fresh model. `watched` may be NULL. */
static rd_status check_picks(const rd_bench_plan *p, const char *isa, rd_precision precision,
                             const int32_t *tokens, const int32_t *watched, rd_pick *out,
                             rd_error *err)
{
    rd_model_options o = { .backend = p->backend,
                           .device = p->device,
                           .max_rows = RD_BENCH_CHUNK,
                           .kv_blocks = rd_bench_kv_blocks(p) };
    int32_t first = 0;
    rd_random_weights weights = { 0 };
    rd_model *m = NULL;

    o.device.isa = isa;
    o.device.precision = precision;
    if (rd_bench_open_model(p, &o, &weights, &m, err)) {
        rd_random_weights_clear(&weights);
        return err->status;
    }
    rd_pick_query q = { .n_rows = p->rows, .watched = watched };
    rd_pass before = { .tokens = tokens, .rows = rd_model_block_size(m), .keep = &first };
    rd_pass here = { .tokens = tokens,
                     .rows = p->rows,
                     .past = &first,
                     .past_blocks = 1,
                     .query = &q,
                     .picks = out };
    rd_status s = rd_forward(m, &before, err);

    if (!s) s = rd_forward(m, &here, err);
    rd_model_close(m);
    rd_random_weights_clear(&weights);
    return s;
}

/* Picks of `isa` in `precision` against the plain path's: how many agree, and the worst of all. */
static rd_status compare_picks(const rd_bench_plan *p, rd_precision precision, double allowed,
                               const int32_t *tokens, int *agreed, double *worst, rd_error *err)
{
    int rows = p->rows;
    rd_pick *fast = rd_alloc_array((size_t)rows, sizeof *fast),
            *plain = rd_alloc_array((size_t)rows, sizeof *plain);
    int32_t *watched = rd_alloc_array((size_t)rows, sizeof *watched);
    rd_bench_plan mine = *p, reference;

    mine.there = false; /* both sides have the same numbers */
    reference = mine;
    rd_status s = check_picks(&mine, p->device.isa, precision, tokens, NULL, fast, err);

    reference.backend = rd_cpu_backend();
    reference.device.weights = RD_FORM_STORED;
    for (int i = 0; i < rows; i++) watched[i] = fast[i].token;
    if (!s) s = check_picks(&reference, "plain", RD_EXACT, tokens, watched, plain, err);
    *agreed = 0;
    *worst = 0.0;
    for (int i = 0; i < rows && !s; i++) {
        double less = log((double)plain[i].prob / (double)plain[i].watched_prob);
        double apart = fabs(log((double)fast[i].prob / (double)plain[i].watched_prob));
        double off = less > apart ? less : apart;

        *agreed += off <= allowed * sqrt(p->config.num_hidden_layers);
        if (!(off <= *worst)) *worst = off; /* NaN stays */
    }
    if (!s && *agreed < rows)
        s = rd_fail(
            err, RD_DEVICE,
            "%d of %d picks disagree with the plain path%s; log-probabilities differ by %.4f",
            rows - *agreed, rows, precision == RD_EXACT ? " with exact attention" : "", *worst);
    free(fast);
    free(plain);
    free(watched);
    return s;
}

int rd_bench_check(const rd_args *a, const rd_bench_plan *p)
{
    int room = p->rows > p->config.block_size ? p->rows : p->config.block_size, agreed = 0;
    int32_t *tokens = rd_alloc_array((size_t)room, sizeof *tokens);
    bool rounded = strncmp(p->weights, "int", 3) == 0, packed = rounded && rd_bench_on_host(p);
    rd_random r = rd_random_seed(1);
    rd_error err = { 0 };
    double worst = 0.0;
    rd_status s = RD_OK;

    rd_shape_tokens(&p->config, p->experts[0], room, &r, tokens);
    if (packed) s = compare_picks(p, RD_EXACT, allowed_exact, tokens, &agreed, &worst, &err);
    if (!s)
        s = compare_picks(p, RD_FAST, rounded ? allowed_packed : allowed_a_layer, tokens, &agreed,
                          &worst, &err);
    free(tokens);
    if (s) return rd_tool_fail(a, &err);
    if (rd_args_flag(a, "--json"))
        printf("{\"check\":{\"layers\":%d,\"rows\":%d,\"agreed\":%d,\"worst\":%.4f}}\n",
               p->config.num_hidden_layers, p->rows, agreed, worst);
    else
        printf("check of %s, %d layer%s, %s weights: %d of %d picks agree with the plain path, "
               "log-probabilities differ by %.4f at most\n",
               p->shape, p->config.num_hidden_layers, p->config.num_hidden_layers > 1 ? "s" : "",
               p->weights, agreed, p->rows, worst);
    return 0;
}
