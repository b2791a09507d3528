/* test_learner.c - the CPU's learner against the net and the optimiser that it is made of, bit for bit; what it refuses; and
 * the trainer on a learner that works while the trainer draws, as a GPU's does. */
#include "core/base/memory.h"
#include "core/train/trainer.h"
#include "tests/core/gemm.h"
#include "tests/core/shape.h"

#include <criterion/criterion.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { VOCAB = 64, LENGTH = 24, ROWS = 96, PACKS = 3, STEPS = 6, LOADS = 2 * 4 };

static void push(rd_rows *r, rd_train_row row)
{
    r->row = rd_resize(r->row, (size_t)r->n + 1, sizeof *r->row);
    r->row[r->n++] = row;
}

/* A sentence that counts up by a random stride: each row sees those before it and is asked for the next. */
static void append(rd_rows *r, rd_random *random, const int32_t *instead)
{
    int start = r->n, at = (int)rd_random_below(random, VOCAB);
    int stride = 1 + (int)rd_random_below(random, 5);

    for (int i = 0; i < LENGTH; i++) {
        int32_t token = (at + i * stride) % VOCAB;

        push(r, (rd_train_row){ .token = instead && instead[i] >= 0 ? instead[i] : token,
                                .position = i,
                                .clean_start = start,
                                .clean_end = start + i + 1,
                                .label = i % 4 == 3 ? -1 : (token + stride) % VOCAB,
                                .weight = 0.5f + (float)(i % 3),
                                .confidence = i % 5 == 0 ? 0.1f : 0.0f,
                                .task = i % RD_TASKS });
    }
}

static rd_params params(void)
{
    rd_model_config c = small_shape(VOCAB, 8);
    rd_error err = { 0 };
    rd_params p;

    cr_assert(!rd_params_init(&p, &c, &err), "%s", err.text);
    return p;
}

static rd_learner_options options(void)
{
    return (rd_learner_options){ .rows_per_pack = ROWS,
                                 .packs = PACKS,
                                 .threads = 2,
                                 .optimizer = rd_optimizer_defaults(),
                                 .rounded = true,
                                 .mean = true };
}

static const rd_learner_table *cpu_of(void)
{
    return rd_cpu_learner();
}

static rd_learner *start(const rd_params *p, const rd_learner_options *o)
{
    float *w = rd_alloc_array(p->size, sizeof *w);
    rd_error err = { 0 };
    rd_learner *l;

    cr_assert(!cpu_of()->open(p, o, &l, &err), "%s", err.text);
    rd_params_seed(p, w, 5);
    cr_assert(!cpu_of()->put(l, RD_LEARNER_WEIGHTS, w, &err), "%s", err.text);
    free(w);
    return l;
}

static float *take(rd_learner *l, const rd_params *p, rd_learner_array which)
{
    float *x = rd_alloc_array(p->size, sizeof *x);
    rd_error err = { 0 };

    cr_assert(!cpu_of()->get(l, which, x, &err), "%s", err.text);
    return x;
}

static void expect_array(rd_learner *l, const rd_params *p, rd_learner_array which,
                         const float *expected, int64_t step)
{
    float *x = take(l, p, which);

    cr_expect_arr_eq(x, expected, p->size * sizeof *x, "array %d after step %lld", (int)which,
                     (long long)step);
    free(x);
}

static void draw(rd_rows *packs, rd_random *random, int n)
{
    for (int i = 0; i < n; i++) {
        packs[i].n = 0;
        for (int k = 0; k < 1 + i; k++) append(&packs[i], random, NULL);
    }
}

static void submit(rd_learner *l, rd_learner_pass pass, const rd_rows *packs, int n)
{
    rd_error err = { 0 };

    for (int i = 0; i < n; i++)
        cr_assert(!cpu_of()->submit(l, pass, packs[i].row, packs[i].n, 0.01f, &err), "%s",
                  err.text);
}

static void clear(rd_rows *packs, int n)
{
    for (int i = 0; i < n; i++) rd_rows_clear(&packs[i]);
}

/* ---- the same as its parts ---- */

typedef struct parts { /* what the learner is made of, driven by hand */
    const rd_params *p;
    rd_gemm_train *gemm;
    rd_product product;
    rd_pool *pool;
    rd_net *net;
    rd_optimizer *optimizer;
    float *w, *rounded, *mean, *grad, *one;
    int64_t load[LOADS];
    int averaged;
    double norm;
    rd_train_stats stats;
} parts;

static void open_parts(parts *x, const rd_params *p)
{
    rd_optimizer_options o = rd_optimizer_defaults();
    rd_error err = { 0 };
    float **const array[] = { &x->w, &x->rounded, &x->mean, &x->grad, &x->one };

    *x = (parts){ .p = p, .pool = rd_pool_new(1) };
    cr_assert(!rd_gemm_train_open(RD_FAST, &x->gemm, &err), "%s", err.text);
    x->product = (rd_product){ (rd_device *)(void *)x->gemm, multiply };
    cr_assert(!rd_net_open(p, x->product, ROWS, &x->net, &err), "%s", err.text);
    cr_assert(!rd_optimizer_open(p, &o, x->pool, &x->product, &x->optimizer, &err), "%s", err.text);
    for (size_t i = 0; i < sizeof array / sizeof *array; i++)
        *array[i] = rd_alloc_array(p->size, sizeof(float));
    rd_params_seed(p, x->w, 5);
}

static void close_parts(parts *x)
{
    rd_optimizer_close(x->optimizer);
    rd_net_close(x->net);
    rd_gemm_train_close(x->gemm);
    rd_pool_free(x->pool);
    free(x->w);
    free(x->rounded);
    free(x->mean);
    free(x->grad);
    free(x->one);
}

static void step_parts(parts *x, const rd_rows *packs, int n, bool rounded, bool average)
{
    size_t size = x->p->size;
    rd_error err = { 0 };

    memset(x->grad, 0, size * sizeof *x->grad);
    memset(x->load, 0, sizeof x->load);
    x->stats = (rd_train_stats){ .load = x->load };
    for (int i = 0; rounded && i < x->p->count; i++)
        cr_assert(!rd_params_round_int8(x->p, i, x->w, x->rounded, &err), "%s", err.text);
    for (int k = 0; k < n; k++) {
        memset(x->one, 0, size * sizeof *x->one);
        cr_assert(!rd_net_run(x->net, rounded ? x->rounded : x->w, packs[k].row, packs[k].n, 0.01f,
                              x->one, &x->stats, &err),
                  "%s", err.text);
        for (size_t i = 0; i < size; i++) x->grad[i] += x->one[i];
    }
    cr_assert(!rd_optimizer_step(x->optimizer, x->w, x->grad, 3e-3f, x->load, &x->norm, &err), "%s",
              err.text);
    x->averaged = average ? x->averaged + 1 : 0;
    for (size_t i = 0; average && i < size; i++)
        x->mean[i] += (x->w[i] - x->mean[i]) * (1.0f / (float)x->averaged);
}

Test(learner, the_cpus_learner_does_to_the_bit_what_its_parts_do, .timeout = 60)
{
    rd_params p = params();
    rd_learner_options o = options();
    rd_learner *l = start(&p, &o);
    rd_random random = rd_random_seed(3);
    rd_rows packs[PACKS] = { 0 };
    rd_learner_sums sums;
    rd_error err = { 0 };
    parts x;

    open_parts(&x, &p);
    for (int64_t k = 0; k < STEPS; k++) {
        bool rounded = k >= 2, average = k == 1 || k >= 4;

        draw(packs, &random, PACKS);
        step_parts(&x, packs, PACKS, rounded, average);
        cr_assert(!cpu_of()->see_rounded(l, rounded, &err));
        submit(l, RD_LEARNER_LEARN, packs, PACKS);
        expect_array(l, &p, RD_LEARNER_GRADIENT, x.grad, k + 1);
        cr_assert(!cpu_of()->step(l, 3e-3f, average, &err), "%s", err.text);
        cr_assert(!cpu_of()->collect(l, &sums, &err), "%s", err.text);

        cr_expect_eq(sums.steps, k + 1);
        cr_expect_eq(sums.norm, x.norm);
        cr_expect_arr_eq(sums.stats.load, x.load, sizeof x.load);
        for (int t = 0; t < RD_TASKS; t++) {
            cr_expect_float_eq(sums.stats.loss[t], x.stats.loss[t], 1e-9 * x.stats.loss[t]);
            cr_expect_eq(sums.stats.labels[t], x.stats.labels[t]);
            cr_expect_eq(sums.stats.right[t], x.stats.right[t]);
        }
        cr_expect_float_eq(sums.stats.flops, x.stats.flops, 1e-9 * x.stats.flops);
        expect_array(l, &p, RD_LEARNER_WEIGHTS, x.w, k + 1);
        expect_array(l, &p, RD_LEARNER_MOMENT_0, rd_optimizer_moment(x.optimizer, 0), k + 1);
        expect_array(l, &p, RD_LEARNER_MOMENT_1, rd_optimizer_moment(x.optimizer, 1), k + 1);
        expect_array(l, &p, RD_LEARNER_MEAN, x.mean, k + 1);
    }
    clear(packs, PACKS);
    close_parts(&x);
    cpu_of()->close(l);
    rd_params_clear(&p);
}

/* More packs than its queue holds are measured between the packs of a step, and a guess is asked: the gradient stays. */
Test(learner, measuring_and_guessing_leave_the_step_under_way_alone, .timeout = 60)
{
    rd_params p = params();
    rd_learner_options o = options();
    rd_learner *l = start(&p, &o);
    rd_random random = rd_random_seed(3);
    rd_rows packs[PACKS] = { 0 };
    rd_learner_sums alone, both, none;
    int32_t best[ROWS];
    rd_error err = { 0 };

    draw(packs, &random, PACKS);
    submit(l, RD_LEARNER_MEASURE, packs, PACKS);
    cr_assert(!cpu_of()->collect(l, &alone, &err), "%s", err.text);
    submit(l, RD_LEARNER_LEARN, packs, PACKS);
    float *grad = take(l, &p, RD_LEARNER_GRADIENT);
    cr_assert(!cpu_of()->collect(l, &both, &err), "%s", err.text);
    cr_expect_eq(both.stats.loss[1], alone.stats.loss[1]);
    cr_expect_arr_eq(both.stats.load, alone.stats.load, LOADS * sizeof *alone.stats.load);
    for (int i = 0; i < 50; i++) submit(l, RD_LEARNER_MEASURE, packs, PACKS);
    cr_assert(!cpu_of()->guess(l, packs[2].row, packs[2].n, best, &err), "%s", err.text);
    for (int i = 0; i < packs[2].n; i++)
        cr_expect(packs[2].row[i].label < 0 ? best[i] == -1 : best[i] >= 0 && best[i] < VOCAB);
    cr_assert(!cpu_of()->collect(l, &both, &err), "%s", err.text);
    cr_expect_eq(both.stats.labels[1], 50 * alone.stats.labels[1]);
    cr_assert(!cpu_of()->collect(l, &none, &err), "%s", err.text);
    cr_expect_eq(none.stats.labels[1], 0);

    expect_array(l, &p, RD_LEARNER_GRADIENT, grad, 0);
    free(grad);
    clear(packs, PACKS);
    cpu_of()->close(l);
    rd_params_clear(&p);
}

/* ---- what it refuses ---- */

Test(learner, a_step_that_is_not_finite_changes_nothing_and_is_told_once, .timeout = 60)
{
    rd_params p = params();
    rd_learner_options o = options();
    rd_learner *l = start(&p, &o);
    const rd_param *router = rd_params_find(&p, "model.layers.1.mlp.gate.weight");
    rd_random random = rd_random_seed(3);
    rd_rows packs[PACKS] = { 0 };
    rd_learner_sums sums;
    rd_error err = { 0 };

    draw(packs, &random, PACKS);
    submit(l, RD_LEARNER_LEARN, packs, PACKS);
    cr_assert(!cpu_of()->step(l, 1e-3f, false, &err), "%s", err.text);
    float *good = take(l, &p, RD_LEARNER_WEIGHTS), *moment = take(l, &p, RD_LEARNER_MOMENT_0);
    float *bad = take(l, &p, RD_LEARNER_WEIGHTS);
    bad[router->offset] = NAN;
    cr_assert(!cpu_of()->put(l, RD_LEARNER_WEIGHTS, bad, &err));
    submit(l, RD_LEARNER_LEARN, packs, PACKS);
    cr_assert(!cpu_of()->step(l, 1e-3f, false, &err), "%s", err.text);
    submit(l, RD_LEARNER_LEARN, packs, PACKS);
    cr_assert(!cpu_of()->step(l, 1e-3f, false, &err), "%s", err.text);

    cr_assert_eq(cpu_of()->collect(l, &sums, &err), RD_INVALID);
    cr_expect(strstr(err.text, "step 2: the loss is not a number: weights of ") &&
                  strstr(err.text, router->name),
              "%s", err.text);
    float *left = take(l, &p, RD_LEARNER_WEIGHTS);
    cr_expect_arr_eq(left, bad, p.size * sizeof *bad);
    expect_array(l, &p, RD_LEARNER_MOMENT_0, moment, 1);
    cr_assert(!cpu_of()->put(l, RD_LEARNER_WEIGHTS, good, &err));
    good[0] = INFINITY; /* a gradient alone */
    cr_assert(!cpu_of()->put(l, RD_LEARNER_GRADIENT, good, &err));
    cr_assert(!cpu_of()->step(l, 1e-3f, false, &err), "%s", err.text);
    cr_assert_eq(cpu_of()->collect(l, &sums, &err), RD_INVALID);
    cr_expect(strstr(err.text, "step 2: the gradient of ") && strstr(err.text, p.param[0].name),
              "%s", err.text);
    cr_assert(!cpu_of()->collect(l, &sums, &err), "%s", err.text);
    cr_expect_eq(sums.steps, 1);
    cr_expect_eq(sums.stats.labels[0], 0);
    free(good);
    free(bad);
    free(left);
    free(moment);
    clear(packs, PACKS);
    cpu_of()->close(l);
    rd_params_clear(&p);
}

Test(learner, refuses_packs_arrays_and_sizes_that_it_was_not_opened_for, .timeout = 60)
{
    rd_params p = params();
    rd_learner_options o = options();
    rd_random random = rd_random_seed(3);
    rd_rows packs[PACKS] = { 0 };
    float *x = rd_alloc_array(p.size, sizeof *x);
    rd_error err = { 0 };
    rd_learner *none = NULL;

    o.rounded = o.mean = false;
    rd_learner *l = start(&p, &o);
    draw(packs, &random, PACKS);
    cr_expect_eq(cpu_of()->step(l, 1e-3f, false, &err), RD_INVALID);
    cr_expect(strstr(err.text, "without packs"), "%s", err.text);
    cr_expect_eq(cpu_of()->step(l, 1e-3f, true, &err), RD_INVALID);
    cr_expect_eq(cpu_of()->see_rounded(l, true, &err), RD_INVALID);
    cr_expect_eq(cpu_of()->get(l, RD_LEARNER_MEAN, x, &err), RD_INVALID);
    cr_expect_eq(cpu_of()->set_steps(l, 2, 3, &err), RD_INVALID);
    submit(l, RD_LEARNER_LEARN, packs, PACKS);
    cr_expect_eq(cpu_of()->submit(l, RD_LEARNER_LEARN, packs[0].row, 1, 1.0f, &err), RD_INVALID);
    cr_expect(strstr(err.text, "more than 3 packs"), "%s", err.text);
    packs[0].row[4].token = VOCAB;
    cr_expect_eq(cpu_of()->submit(l, RD_LEARNER_MEASURE, packs[0].row, packs[0].n, 1.0f, &err),
                 RD_INVALID);
    cr_expect(strstr(err.text, "row 4 of a pack of 24: token 64"), "%s", err.text);
    cr_expect_eq(cpu_of()->submit(l, RD_LEARNER_MEASURE, packs[1].row, ROWS + 1, 1.0f, &err),
                 RD_INVALID);
    cpu_of()->close(l);

    o.memory_limit = 1 << 16;
    cr_expect_eq(cpu_of()->open(&p, &o, &none, &err), RD_NO_MEMORY);
    cr_expect(strstr(err.text, "needs"), "%s", err.text);
    o.memory_limit = 0, o.packs = 0;
    cr_expect_eq(cpu_of()->open(&p, &o, &none, &err), RD_INVALID);
    free(x);
    clear(packs, PACKS);
    rd_params_clear(&p);
}

Test(learner, a_table_of_another_abi_is_refused_by_name)
{
    rd_learner_table t = *cpu_of();
    rd_error err = { 0 };

    cr_expect(!rd_learner_accept(&t, "cuda", &err), "%s", err.text);
    t.abi = RD_LEARNER_ABI + 1;
    cr_expect_eq(rd_learner_accept(&t, "cuda", &err), RD_INVALID);
    cr_expect(strstr(err.text, "cuda") && strstr(err.text, "ABI 2"), "%s", err.text);
    t = *cpu_of();
    t.size -= sizeof(void *);
    cr_expect_eq(rd_learner_accept(&t, "cuda", &err), RD_INVALID);
    cr_expect_eq(rd_learner_accept(NULL, "cuda", &err), RD_INVALID);
}

/* ---- a learner that works while the trainer draws ---- */

enum { TASKS = 64 };

typedef struct task {
    enum { PASS, STEP } kind;
    rd_learner_pass pass;
    rd_train_row *row;
    int n;
    float scale; /* or the rate */
    bool average;
} task;

/* The CPU's learner on a thread of its own; submit and step only queue, and a step takes its time. */
struct rd_learner {
    rd_learner *cpu;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    task queue[TASKS];
    int queued, done;
    bool stop;
    rd_error failed;
};

static atomic_int steps_queued, steps_collected, poison_at;

static rd_status work(rd_learner *l, task *t, rd_error *err)
{
    if (t->kind == PASS) {
        rd_status s = cpu_of()->submit(l->cpu, t->pass, t->row, t->n, t->scale, err);

        free(t->row);
        return s;
    }
    usleep(2000);
    return cpu_of()->step(l->cpu, t->scale, t->average, err);
}

static void *live(void *user)
{
    rd_learner *l = user;

    pthread_mutex_lock(&l->lock);
    for (;;) {
        rd_error err = { 0 };

        while (!l->stop && l->done == l->queued) pthread_cond_wait(&l->changed, &l->lock);
        if (l->done == l->queued) break;
        task *t = &l->queue[l->done % TASKS];
        pthread_mutex_unlock(&l->lock);
        work(l, t, &err);
        pthread_mutex_lock(&l->lock);
        if (err.status) l->failed = err;
        l->done++;
        pthread_cond_broadcast(&l->changed);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

static void give(rd_learner *l, task t)
{
    pthread_mutex_lock(&l->lock);
    cr_assert_lt(l->queued - l->done, TASKS);
    l->queue[l->queued++ % TASKS] = t;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
}

static void wait_for(rd_learner *l)
{
    pthread_mutex_lock(&l->lock);
    while (l->done < l->queued) pthread_cond_wait(&l->changed, &l->lock);
    cr_assert(!l->failed.status, "%s", l->failed.text);
    pthread_mutex_unlock(&l->lock);
}

static rd_status late_open(const rd_params *p, const rd_learner_options *o, rd_learner **out,
                           rd_error *err)
{
    rd_learner *l = rd_alloc0(sizeof *l);

    if (cpu_of()->open(p, o, &l->cpu, err)) {
        free(l);
        return err->status;
    }
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->changed, NULL);
    cr_assert(!pthread_create(&l->thread, NULL, live, l));
    *out = l;
    return RD_OK;
}

static void late_close(rd_learner *l)
{
    pthread_mutex_lock(&l->lock);
    l->stop = true;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
    pthread_join(l->thread, NULL);
    cpu_of()->close(l->cpu);
    pthread_cond_destroy(&l->changed);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

static const char *late_describe(rd_learner *l)
{
    return cpu_of()->describe(l->cpu);
}

static double late_peak(rd_learner *l)
{
    (void)l;
    return 1e15;
}

static rd_status late_put(rd_learner *l, rd_learner_array which, const float *from, rd_error *err)
{
    wait_for(l);
    return cpu_of()->put(l->cpu, which, from, err);
}

static rd_status late_get(rd_learner *l, rd_learner_array which, float *to, rd_error *err)
{
    wait_for(l);
    return cpu_of()->get(l->cpu, which, to, err);
}

static rd_status late_set_steps(rd_learner *l, int64_t steps, int64_t averaged, rd_error *err)
{
    wait_for(l);
    return cpu_of()->set_steps(l->cpu, steps, averaged, err);
}

static rd_status late_see_rounded(rd_learner *l, bool rounded, rd_error *err)
{
    wait_for(l);
    return cpu_of()->see_rounded(l->cpu, rounded, err);
}

static rd_status late_submit(rd_learner *l, rd_learner_pass pass, const rd_train_row *rows, int n,
                             float scale, rd_error *err)
{
    task t = { .kind = PASS, .pass = pass, .n = n, .scale = scale };

    (void)err;
    t.row = rd_alloc_array((size_t)n, sizeof *t.row);
    memcpy(t.row, rows, (size_t)n * sizeof *rows);
    give(l, t);
    return RD_OK;
}

static rd_status late_guess(rd_learner *l, const rd_train_row *rows, int n, int32_t *best,
                            rd_error *err)
{
    wait_for(l);
    return cpu_of()->guess(l->cpu, rows, n, best, err);
}

static rd_status late_step(rd_learner *l, float lr, bool average, rd_error *err)
{
    int number = 1 + atomic_fetch_add(&steps_queued, 1);

    (void)err;
    give(l, (task){ .kind = STEP,
                    .scale = number == atomic_load(&poison_at) ? INFINITY : lr,
                    .average = average });
    return RD_OK;
}

static rd_status late_collect(rd_learner *l, rd_learner_sums *out, rd_error *err)
{
    wait_for(l);
    atomic_store(&steps_collected, atomic_load(&steps_queued));
    return cpu_of()->collect(l->cpu, out, err);
}

static rd_learner_table late_table(void)
{
    return (rd_learner_table){ .abi = RD_LEARNER_ABI,
                               .size = sizeof(rd_learner_table),
                               .name = "late",
                               .open = late_open,
                               .close = late_close,
                               .describe = late_describe,
                               .peak_flop_s = late_peak,
                               .put = late_put,
                               .get = late_get,
                               .set_steps = late_set_steps,
                               .see_rounded = late_see_rounded,
                               .submit = late_submit,
                               .guess = late_guess,
                               .step = late_step,
                               .collect = late_collect };
}

typedef struct asked { /* what a sampler does and sees */
    bool own_words;
    int samples, ahead; /* drawn in all, and while a step was under way */
    double mfu;
} asked;

static rd_status sample(void *user, const rd_draw *d, rd_rows *rows, rd_error *err)
{
    asked *a = user;
    int32_t best[LENGTH];
    rd_rows first = { 0 };

    a->samples++;
    a->ahead += atomic_load(&steps_queued) > atomic_load(&steps_collected);
    append(&first, d->random, NULL);
    rd_status s = a->own_words ? d->guess(d->model, &first, best, err) : RD_OK;

    if (!s) append(rows, d->random, a->own_words ? best : NULL);
    rd_rows_clear(&first);
    return s;
}

static rd_train_options run_options(void)
{
    rd_train_options o = rd_train_defaults();

    o.threads = 2;
    o.steps = STEPS;
    o.rows_per_step = PACKS * (ROWS - LENGTH);
    o.rows_per_pack = ROWS - LENGTH;
    o.sample_rows = LENGTH;
    o.warm_up = 2;
    o.fake_int8_share = o.average_share = 0.5f;
    return o;
}

/* Weights and mean after a run in calls of `stride` steps, 0: one call. */
static void train(const rd_params *p, const rd_learner_table *t, asked *a, int stride, float *w,
                  float *mean)
{
    rd_train_options o = run_options();
    rd_sampler sampler = { a, sample };
    rd_error err = { 0 };
    rd_trainer *trainer;

    atomic_store(&steps_queued, 0);
    atomic_store(&steps_collected, 0);
    cr_assert(!rd_trainer_open(p, &o, &sampler, t, &trainer, &err), "%s", err.text);
    while (!rd_trainer_over(trainer))
        cr_assert(!rd_trainer_run(trainer, stride, &err), "%s", err.text);
    cr_assert(!rd_trainer_weights(trainer, w, &err), "%s", err.text);
    cr_assert(!rd_trainer_result(trainer, mean, &err), "%s", err.text);
    rd_trainer_close(trainer);
}

Test(learner, what_is_drawn_ahead_is_what_would_have_been_drawn, .timeout = 60)
{
    rd_params p = params();
    rd_learner_table late = late_table();
    float *x[4];

    for (int i = 0; i < 4; i++) x[i] = rd_alloc_array(p.size, sizeof **x);
    for (int own = 0; own < 2; own++) {
        asked plain = { .own_words = own }, ahead = plain, pairs = plain;
        int a_step = PACKS * (ROWS - LENGTH) / LENGTH;

        train(&p, cpu_of(), &plain, 0, x[0], x[1]);
        train(&p, &late, &ahead, 0, x[2], x[3]);
        cr_expect_arr_eq(x[0], x[2], p.size * sizeof **x);
        cr_expect_arr_eq(x[1], x[3], p.size * sizeof **x);
        cr_expect_eq(ahead.samples, STEPS * a_step);
        cr_expect_eq(ahead.ahead, (STEPS - 1) * a_step, "%d of %d drawn ahead", ahead.ahead,
                     ahead.samples);
        train(&p, &late, &pairs, 2, x[2], x[3]); /* calls that draw nothing ahead at their end */
        cr_expect_arr_eq(x[0], x[2], p.size * sizeof **x);
        cr_expect_eq(pairs.ahead, STEPS / 2 * a_step);
    }
    for (int i = 0; i < 4; i++) free(x[i]);
    rd_params_clear(&p);
}

static void look(void *user, const rd_train_progress *p)
{
    ((asked *)user)->mfu = p->mfu;
}

/* A rate that is none makes the weights of the third step none, so that the fourth has no loss. */
Test(learner, the_trainer_tells_the_step_that_was_not_finite_and_counts_it_not, .timeout = 60)
{
    rd_params p = params();
    rd_learner_table late = late_table();
    rd_train_options o = run_options();
    asked a = { 0 };
    rd_sampler sampler = { &a, sample };
    rd_error err = { 0 };
    rd_trainer *t;

    o.steps = 100;
    o.fake_int8_share = 0.0f;
    o.report_s = 0.0;
    o.report = look;
    o.user = &a;
    atomic_store(&poison_at, 3);
    cr_assert(!rd_trainer_open(&p, &o, &sampler, &late, &t, &err), "%s", err.text);
    cr_assert_eq(rd_trainer_run(t, 0, &err), RD_INVALID);
    cr_expect(strstr(err.text, "step 4: the loss is not a number: weights of ") &&
                  strstr(err.text, "; no checkpoint was written"),
              "%s", err.text);
    cr_expect_eq(rd_trainer_steps(t), 3);
    cr_expect(a.mfu > 0.0 && a.mfu < 1.0, "MFU %g", a.mfu);
    rd_trainer_close(t);
    atomic_store(&poison_at, 0);
    late.abi++;
    cr_expect_eq(rd_trainer_open(&p, &o, &sampler, &late, &t, &err), RD_INVALID);
    rd_params_clear(&p);
}
