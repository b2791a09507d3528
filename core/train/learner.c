/* learner.c - the learner that runs on the CPU, and what any learner's table is asked before it is used.
 *
 * Packs wait in a queue until something needs their outcome; then the threads of the pool share them out. Each pack of a
 * step has a gradient of its own, added in the packs' order, so that the number of threads never shows. Weights rounded to
 * int8 are made when a pass first wants to see them. What is not finite is kept as an error for the next collect.
 */
#include "core/train/learner.h"

#include "core/base/memory.h"
#include "core/train/kernels.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SLICE = 1 << 16, /* floats of an array that are one piece of work */
    WAITING = 64     /* packs in the queue, unless a step has more */
};

/* Defined in plugins/cpu and linked in; the house's order of rooms keeps core/plugin.h from here. */
const rd_backend *rd_cpu_backend(void);

typedef struct waiting { /* a pack in the queue */
    rd_train_row *row;
    int n, room;
    float scale, *grad; /* grad NULL: forward alone */
    rd_train_stats stats;
    int64_t *load;
} waiting;

typedef struct thread_state {
    rd_net *net;
    rd_error error;
} thread_state;

struct rd_learner {
    const rd_params *p;
    rd_learner_options o;
    const rd_backend *backend;
    rd_pool *pool;
    rd_product *product; /* a thread's */
    thread_state *thread;
    rd_optimizer *optimizer;
    float *w;
    float *rounded, *mean;    /* NULL where nobody asked */
    bool sees_rounded, stale; /* stale: `rounded` is of other weights */
    int64_t averaged;
    waiting *queue;
    int queued, room;
    float **grad;        /* a pack's */
    int packs;           /* of the step under way, the queued ones as well */
    rd_train_stats step; /* of those that were run */
    rd_train_stats sums; /* since the last collect */
    bool told_sums;      /* sums were collected: the next pack begins them anew */
    double norm;
    rd_error not_finite; /* for the next collect */
    const float *in;     /* what the packs that run see */
    char text[128];
};

/* ---- any learner ---- */

rd_status rd_learner_accept(const rd_learner_table *t, const char *name, rd_error *err)
{
    if (!t) return rd_fail(err, RD_INVALID, "%s: its learner has no table", name);
    if (t->abi != RD_LEARNER_ABI)
        return rd_fail(err, RD_INVALID, "%s: its learner has ABI %u; this build knows %d", name,
                       t->abi, RD_LEARNER_ABI);
    if (t->size < sizeof *t)
        return rd_fail(err, RD_INVALID, "%s: its learner's table has %zu bytes, expected %zu", name,
                       t->size, sizeof *t);
    return RD_OK;
}

/* ---- open and close ---- */

static size_t loads_of(const rd_params *p)
{
    return (size_t)p->config.num_hidden_layers * (size_t)p->config.num_experts;
}

static rd_status check_memory(const rd_params *p, const rd_learner_options *o, rd_error *err)
{
    /* weights, two moments, a gradient a pack */
    size_t arrays = 3 + (size_t)o->packs + (o->rounded ? 1 : 0) + (o->mean ? 1 : 0), need;

    if (!rd_mul(p->size * sizeof(float), arrays, &need))
        return rd_fail(err, RD_NO_MEMORY, "the learner: %zu weights are too many", p->size);
    if (o->memory_limit > 0 && need > o->memory_limit)
        return rd_fail(err, RD_NO_MEMORY,
                       "the learner needs %zu MB for %zu arrays of weights; %zu MB are free",
                       need >> 20, arrays, o->memory_limit >> 20);
    return RD_OK;
}

static rd_status hold(float **out, size_t n, rd_error *err)
{
    *out = rd_try_alloc_array(n, sizeof **out);
    if (!*out)
        return rd_fail(err, RD_NO_MEMORY, "the learner: no memory for %zu MB of weights",
                       n * sizeof **out >> 20);
    memset(*out, 0, n * sizeof **out);
    return RD_OK;
}

static rd_status hold_arrays(rd_learner *l, rd_error *err)
{
    size_t n = l->p->size;

    if (hold(&l->w, n, err)) return err->status;
    if (l->o.rounded && hold(&l->rounded, n, err)) return err->status;
    if (l->o.mean && hold(&l->mean, n, err)) return err->status;
    for (int i = 0; i < l->o.packs; i++)
        if (hold(&l->grad[i], n, err)) return err->status;
    return RD_OK;
}

static rd_status open_threads(rd_learner *l, rd_error *err)
{
    const rd_device_options d = { .threads = 1, .precision = RD_FAST };

    for (int i = 0; i < rd_pool_threads(l->pool); i++) {
        rd_product *product = &l->product[i];

        if (l->backend->open(&d, &product->device, err)) return err->status;
        product->gemm = l->backend->gemm;
        if (rd_net_open(l->p, *product, l->o.rows_per_pack, &l->thread[i].net, err))
            return err->status;
    }
    return rd_optimizer_open(l->p, &l->o.optimizer, l->pool, l->product, &l->optimizer, err);
}

static void cpu_close(rd_learner *l)
{
    if (!l) return;
    rd_optimizer_close(l->optimizer);
    for (int i = 0; i < rd_pool_threads(l->pool); i++) {
        rd_net_close(l->thread[i].net);
        if (l->product[i].device) l->backend->close(l->product[i].device);
    }
    rd_pool_free(l->pool);
    for (int i = 0; i < l->room; i++) {
        free(l->queue[i].row);
        free(l->queue[i].load);
    }
    for (int i = 0; i < l->o.packs; i++) free(l->grad[i]);
    free(l->queue);
    free(l->grad);
    free(l->thread);
    free(l->product);
    free(l->step.load);
    free(l->sums.load);
    free(l->rounded);
    free(l->mean);
    free(l->w);
    free(l);
}

static rd_status cpu_open(const rd_params *p, const rd_learner_options *o, rd_learner **out,
                          rd_error *err)
{
    rd_error local;

    if (!err) err = &local;
    if (o->packs < 1 || o->rows_per_pack < 1)
        return rd_fail(err, RD_INVALID, "a learner of %d packs of %d rows", o->packs,
                       o->rows_per_pack);
    if (check_memory(p, o, err)) return err->status;
    rd_learner *l = rd_alloc0(sizeof *l);
    size_t loads = loads_of(p);

    l->p = p;
    l->o = *o;
    l->backend = rd_cpu_backend();
    l->pool = rd_pool_new(o->threads);
    l->product = rd_alloc_array((size_t)rd_pool_threads(l->pool), sizeof *l->product);
    l->thread = rd_alloc_array((size_t)rd_pool_threads(l->pool), sizeof *l->thread);
    l->grad = rd_alloc_array((size_t)o->packs, sizeof *l->grad);
    l->room = o->packs > WAITING ? o->packs : WAITING;
    l->queue = rd_alloc_array((size_t)l->room, sizeof *l->queue);
    for (int i = 0; i < l->room; i++)
        l->queue[i].load = rd_alloc_array(loads, sizeof *l->queue[i].load);
    l->step.load = rd_alloc_array(loads, sizeof *l->step.load);
    l->sums.load = rd_alloc_array(loads, sizeof *l->sums.load);
    l->stale = true;
    if (hold_arrays(l, err) || open_threads(l, err)) {
        cpu_close(l);
        return err->status;
    }
    *out = l;
    return RD_OK;
}

static const char *cpu_describe(rd_learner *l)
{
    rd_device_info info;

    l->backend->describe(l->product[0].device, &info);
    snprintf(l->text, sizeof l->text, "cpu, %d threads, %s", rd_pool_threads(l->pool), info.isa);
    return l->text;
}

static double cpu_peak_flop_s(rd_learner *l)
{
    (void)l;
    return 0.0;
}

/* ---- passes ---- */

static void clear_stats(rd_train_stats *s, size_t loads)
{
    int64_t *load = s->load;

    memset(load, 0, loads * sizeof *load);
    *s = (rd_train_stats){ .load = load };
}

static void add_stats(rd_train_stats *to, const rd_train_stats *from, size_t loads)
{
    for (size_t k = 0; k < loads; k++) to->load[k] += from->load[k];
    for (int k = 0; k < RD_TASKS; k++) {
        to->loss[k] += from->loss[k];
        to->weight[k] += from->weight[k];
        to->labels[k] += from->labels[k];
        to->right[k] += from->right[k];
    }
    to->flops += from->flops;
    to->entropy += from->entropy;
}

static void round_tensor(void *user, int i, int thread)
{
    rd_learner *l = user;
    thread_state *s = &l->thread[thread];

    if (!s->error.status)
        s->error.status = rd_params_round_int8(l->p, i, l->w, l->rounded, &s->error);
}

static void run_pack(void *user, int i, int thread)
{
    rd_learner *l = user;
    thread_state *s = &l->thread[thread];
    waiting *q = &l->queue[i];

    if (s->error.status) return;
    if (q->grad) memset(q->grad, 0, l->p->size * sizeof *q->grad);
    s->error.status =
        rd_net_run(s->net, l->in, q->row, q->n, q->scale, q->grad, &q->stats, &s->error);
}

/* Share out `n` pieces; the first thread's error, in the step's name. */
static rd_status share_out(rd_learner *l, int n, void (*work)(void *, int, int), rd_error *err)
{
    int threads = rd_pool_threads(l->pool);

    for (int i = 0; i < threads; i++) l->thread[i].error = (rd_error){ 0 };
    rd_pool_run(l->pool, n, work, l);
    for (int i = 0; i < threads; i++) {
        const rd_error *e = &l->thread[i].error;

        if (e->status)
            return rd_fail(err, e->status, "step %lld: %s",
                           (long long)rd_optimizer_steps(l->optimizer) + 1, e->text);
    }
    return RD_OK;
}

/* The weights that passes see now. */
static rd_status choose_weights(rd_learner *l, rd_error *err)
{
    l->in = l->w;
    if (!l->sees_rounded) return RD_OK;
    if (l->stale && share_out(l, l->p->count, round_tensor, err)) return err->status;
    l->stale = false;
    l->in = l->rounded;
    return RD_OK;
}

/* Run what waits. After a failure the packs are lost, and those of the step as well. */
static rd_status run_waiting(rd_learner *l, rd_error *err)
{
    size_t loads = loads_of(l->p);
    int n = l->queued;

    if (n == 0) return RD_OK;
    l->queued = 0;
    if (choose_weights(l, err) || share_out(l, n, run_pack, err)) {
        l->packs = 0;
        clear_stats(&l->step, loads);
        return err->status;
    }
    if (l->told_sums) clear_stats(&l->sums, loads);
    l->told_sums = false;
    for (int i = 0; i < n; i++) {
        add_stats(&l->sums, &l->queue[i].stats, loads);
        if (l->queue[i].grad) add_stats(&l->step, &l->queue[i].stats, loads);
    }
    return RD_OK;
}

static rd_status cpu_see_rounded(rd_learner *l, bool rounded, rd_error *err)
{
    if (rounded && !l->rounded)
        return rd_fail(err, RD_INVALID, "this learner was opened without rounded weights");
    if (run_waiting(l, err)) return err->status;
    l->sees_rounded = rounded;
    return RD_OK;
}

static rd_status cpu_submit(rd_learner *l, rd_learner_pass pass, const rd_train_row *rows, int n,
                            float scale, rd_error *err)
{
    bool learn = pass == RD_LEARNER_LEARN;

    if (rd_net_check(l->p, l->o.rows_per_pack, rows, n, err)) return err->status;
    if (learn && l->packs == l->o.packs)
        return rd_fail(err, RD_INVALID, "a step of more than %d packs", l->o.packs);
    if (l->queued == l->room && run_waiting(l, err)) return err->status;
    waiting *q = &l->queue[l->queued++];

    if (n > q->room) {
        q->row = rd_resize(q->row, (size_t)n, sizeof *q->row);
        q->room = n;
    }
    memcpy(q->row, rows, (size_t)n * sizeof *rows);
    q->n = n;
    q->scale = scale;
    q->grad = learn ? l->grad[l->packs++] : NULL;
    q->stats.load = q->load;
    clear_stats(&q->stats, loads_of(l->p));
    return RD_OK;
}

static rd_status cpu_guess(rd_learner *l, const rd_train_row *rows, int n, int32_t *best,
                           rd_error *err)
{
    rd_train_stats stats = { 0 };
    rd_net *net = l->thread[0].net;

    if (choose_weights(l, err) || rd_net_run(net, l->in, rows, n, 1.0f, NULL, &stats, err))
        return err->status;
    memcpy(best, rd_net_best(net), (size_t)n * sizeof *best);
    return RD_OK;
}

/* ---- steps ---- */

static void add_slice(void *user, int i, int thread)
{
    rd_learner *l = user;
    size_t at = (size_t)i * SLICE, left = l->p->size - at;

    (void)thread;
    for (int k = 1; k < l->packs; k++)
        rd_add_scaled(l->grad[0] + at, l->grad[k] + at, 1.0f, left < SLICE ? left : SLICE);
}

static void average_slice(void *user, int i, int thread)
{
    rd_learner *l = user;
    size_t at = (size_t)i * SLICE, end = at + SLICE < l->p->size ? at + SLICE : l->p->size;
    float by = 1.0f / (float)l->averaged;

    (void)thread;
    for (; at < end; at++) l->mean[at] += (l->w[at] - l->mean[at]) * by;
}

static int slices_of(const rd_learner *l)
{
    return (int)((l->p->size + SLICE - 1) / SLICE);
}

static bool losses_are_numbers(const rd_train_stats *stats)
{
    for (int i = 0; i < RD_TASKS; i++)
        if (!isfinite(stats->loss[i])) return false;
    return isfinite(stats->entropy);
}

/* Why the loss is not a number: weights go first, for their gradients follow from them. */
static void say_not_a_number(rd_learner *l)
{
    const char *what = "weights", *name = rd_params_not_finite(l->p, l->w);

    for (int i = 0; i < l->packs && !name; i++) {
        what = "the gradient";
        name = rd_params_not_finite(l->p, l->grad[i]);
    }
    rd_fail(&l->not_finite, RD_INVALID, "step %lld: the loss is not a number: %s of %s",
            (long long)rd_optimizer_steps(l->optimizer) + 1, what, name ? name : "no tensor");
}

static rd_status move(rd_learner *l, float lr, bool average, rd_error *err)
{
    rd_error why = { 0 };

    if (!losses_are_numbers(&l->step)) {
        say_not_a_number(l);
        return RD_OK;
    }
    rd_pool_run(l->pool, slices_of(l), add_slice, l);
    if (rd_optimizer_step(l->optimizer, l->w, l->grad[0], lr, l->step.load, &l->norm, &why)) {
        if (why.status != RD_INVALID) return rd_fail(err, why.status, "%s", why.text);
        l->not_finite = why;
        return RD_OK;
    }
    l->stale = true;
    l->averaged = average ? l->averaged + 1 : 0;
    if (average) rd_pool_run(l->pool, slices_of(l), average_slice, l);
    return RD_OK;
}

static rd_status cpu_step(rd_learner *l, float lr, bool average, rd_error *err)
{
    rd_status s = RD_OK;

    if (average && !l->mean)
        return rd_fail(err, RD_INVALID, "this learner was opened without a mean of weights");
    if (run_waiting(l, err)) return err->status;
    if (l->packs == 0) return rd_fail(err, RD_INVALID, "a step without packs");
    if (!l->not_finite.status) s = move(l, lr, average, err);
    l->packs = 0;
    clear_stats(&l->step, loads_of(l->p));
    return s;
}

static rd_status cpu_collect(rd_learner *l, rd_learner_sums *out, rd_error *err)
{
    if (run_waiting(l, err)) return err->status;
    if (l->told_sums) clear_stats(&l->sums, loads_of(l->p));
    l->told_sums = true;
    if (l->not_finite.status) {
        rd_fail(err, l->not_finite.status, "%s", l->not_finite.text);
        l->not_finite = (rd_error){ 0 };
        return RD_INVALID;
    }
    *out = (rd_learner_sums){ .stats = l->sums,
                              .norm = l->norm,
                              .steps = rd_optimizer_steps(l->optimizer) };
    return RD_OK;
}

/* ---- arrays ---- */

/* NULL: there is none. */
static float *array_of(rd_learner *l, rd_learner_array which)
{
    switch (which) {
    case RD_LEARNER_WEIGHTS: return l->w;
    case RD_LEARNER_MOMENT_0: return rd_optimizer_moment(l->optimizer, 0);
    case RD_LEARNER_MOMENT_1: return rd_optimizer_moment(l->optimizer, 1);
    case RD_LEARNER_MEAN: return l->mean;
    case RD_LEARNER_GRADIENT: return l->grad[0];
    default: return NULL;
    }
}

static rd_status find_array(rd_learner *l, rd_learner_array which, float **out, rd_error *err)
{
    if (run_waiting(l, err)) return err->status;
    *out = array_of(l, which);
    return *out ? RD_OK : rd_fail(err, RD_INVALID, "this learner has no array %d", (int)which);
}

static rd_status cpu_put(rd_learner *l, rd_learner_array which, const float *from, rd_error *err)
{
    float *to;

    if (find_array(l, which, &to, err)) return err->status;
    memcpy(to, from, l->p->size * sizeof *to);
    if (which == RD_LEARNER_WEIGHTS) l->stale = true;
    if (which == RD_LEARNER_GRADIENT) l->packs = 1;
    return RD_OK;
}

static rd_status cpu_get(rd_learner *l, rd_learner_array which, float *to, rd_error *err)
{
    size_t n = l->p->size;
    float *from;

    if (find_array(l, which, &from, err)) return err->status;
    if (which == RD_LEARNER_GRADIENT && l->packs == 0) {
        memset(to, 0, n * sizeof *to);
        return RD_OK;
    }
    memcpy(to, from, n * sizeof *to);
    for (int k = 1; which == RD_LEARNER_GRADIENT && k < l->packs; k++)
        rd_add_scaled(to, l->grad[k], 1.0f, n);
    return RD_OK;
}

static rd_status cpu_set_steps(rd_learner *l, int64_t steps, int64_t averaged, rd_error *err)
{
    if (steps < 0 || averaged < 0 || averaged > steps)
        return rd_fail(err, RD_INVALID, "%lld steps, %lld of them averaged", (long long)steps,
                       (long long)averaged);
    if (run_waiting(l, err)) return err->status;
    rd_optimizer_set_steps(l->optimizer, steps);
    l->averaged = averaged;
    return RD_OK;
}

const rd_learner_table *rd_cpu_learner(void)
{
    static const rd_learner_table cpu = {
        .abi = RD_LEARNER_ABI,
        .size = sizeof cpu,
        .name = "cpu",
        .open = cpu_open,
        .close = cpu_close,
        .describe = cpu_describe,
        .peak_flop_s = cpu_peak_flop_s,
        .put = cpu_put,
        .get = cpu_get,
        .set_steps = cpu_set_steps,
        .see_rounded = cpu_see_rounded,
        .submit = cpu_submit,
        .guess = cpu_guess,
        .step = cpu_step,
        .collect = cpu_collect,
    };

    return &cpu;
}
