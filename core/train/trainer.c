/* trainer.c - one step is: draw packs, run them on the threads, add gradients, move the weights. */
#include "core/train/trainer.h"

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/memory.h"
#include "core/train/checkpoint.h"
#include "core/format/file.h"
#include "core/train/kernels.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLICE = 1 << 16 }; /* floats of the gradients added as one piece */

typedef struct thread_state {
    rd_net *net;
    rd_train_stats stats;
    int64_t *load;
    rd_error error;
} thread_state;

struct rd_trainer {
    const rd_params *p;
    rd_train_options o;
    rd_sampler sampler;
    rd_pool *pool;
    rd_optimizer *optimizer;
    thread_state *thread;
    int packs;
    rd_rows *pack;
    float **grad; /* a pack's */
    int64_t *load;
    float *w;
    float *rounded;  /* w as int8 makes it; NULL where no part of the run wants it */
    float *mean;     /* of w over the last steps; likewise */
    const float *in; /* what passes see: w or rounded */
    rd_random random;
    int64_t steps, averaged;
    int64_t kept; /* the step of the last checkpoint; -1: none */
    double elapsed_s;
    float scale;
    const rd_rows *running; /* packs under way: of a step, or held out */
    bool learning;
    FILE *csv;
    /* Since the last report. */
    rd_train_stats stats;
    double rows, since_ms, norm, lr;
};

rd_train_options rd_train_defaults(void)
{
    return (rd_train_options){ .seed = 1,
                               .threads = 2,
                               .rows_per_step = 8192,
                               .rows_per_pack = 2048,
                               .sample_rows = 1536,
                               .minutes = 60.0,
                               .lr = 2e-3f,
                               .warm_up = 120,
                               .decay_share = 0.22f,
                               .fake_int8_share = 0.15f,
                               .optimizer = rd_optimizer_defaults(),
                               .checkpoint_s = 300.0,
                               .report_s = 10.0,
                               .measure_s = 300.0 };
}

rd_status rd_trainer_open(const rd_params *p, const rd_train_options *o, const rd_sampler *sampler,
                          const rd_product *products, rd_trainer **out, rd_error *err)
{
    rd_trainer *t = rd_alloc0(sizeof *t);
    size_t loads = (size_t)p->config.num_hidden_layers * (size_t)p->config.num_experts;

    t->p = p;
    t->o = *o;
    t->sampler = *sampler;
    t->pool = rd_pool_new(o->threads);
    t->thread = rd_alloc_array((size_t)rd_pool_threads(t->pool), sizeof *t->thread);
    t->packs = (o->rows_per_step + o->rows_per_pack - 1) / o->rows_per_pack;
    t->pack = rd_alloc_array((size_t)t->packs, sizeof *t->pack);
    t->grad = rd_alloc_array((size_t)t->packs, sizeof *t->grad);
    t->load = rd_alloc_array(loads, sizeof *t->load);
    t->w = rd_try_alloc_array(p->size, sizeof *t->w);
    if (!t->w) {
        rd_fail(err, RD_NO_MEMORY, "the trainer: no memory for %zu weights", p->size);
        goto fail;
    }
    if (o->fake_int8_share > 0.0f) t->rounded = rd_try_alloc_array(p->size, sizeof *t->rounded);
    if (o->average_share > 0.0f) t->mean = rd_try_alloc_array(p->size, sizeof *t->mean);
    if ((o->fake_int8_share > 0.0f && !t->rounded) || (o->average_share > 0.0f && !t->mean)) {
        rd_fail(err, RD_NO_MEMORY, "the trainer: no memory for a second copy of %zu weights",
                p->size);
        goto fail;
    }
    if (t->mean) memset(t->mean, 0, p->size * sizeof *t->mean);
    for (int i = 0; i < t->packs; i++) {
        t->grad[i] = rd_try_alloc_array(p->size, sizeof **t->grad);
        if (t->grad[i]) continue;
        rd_fail(err, RD_NO_MEMORY, "the trainer: no memory for %d gradients", t->packs);
        goto fail;
    }
    for (int i = 0; i < rd_pool_threads(t->pool); i++) {
        t->thread[i].load = rd_alloc_array(loads, sizeof *t->load);
        if (rd_net_open(p, products[i], o->rows_per_pack + o->sample_rows, &t->thread[i].net, err))
            goto fail;
    }
    if (rd_optimizer_open(p, &o->optimizer, t->pool, products, &t->optimizer, err)) goto fail;
    rd_params_seed(p, t->w, o->seed);
    t->random = rd_random_seed(o->seed + 1);
    t->kept = -1;
    *out = t;
    return RD_OK;
fail:
    rd_trainer_close(t);
    return err->status;
}

void rd_trainer_close(rd_trainer *t)
{
    if (!t) return;
    rd_optimizer_close(t->optimizer);
    for (int i = 0; i < rd_pool_threads(t->pool); i++) {
        rd_net_close(t->thread[i].net);
        free(t->thread[i].load);
    }
    for (int i = 0; i < t->packs; i++) {
        rd_rows_clear(&t->pack[i]);
        free(t->grad[i]);
    }
    rd_pool_free(t->pool);
    if (t->csv) fclose(t->csv);
    free(t->thread);
    free(t->pack);
    free(t->grad);
    free(t->load);
    free(t->rounded);
    free(t->mean);
    free(t->w);
    free(t);
}

float *rd_trainer_weights(rd_trainer *t)
{
    return t->w;
}

const float *rd_trainer_result(const rd_trainer *t)
{
    return t->averaged > 0 ? t->mean : t->w;
}

int64_t rd_trainer_steps(const rd_trainer *t)
{
    return t->steps;
}

/* ---- one step ---- */

static double share_done(const rd_trainer *t)
{
    double share = t->o.steps > 0 ? (double)t->steps / (double)t->o.steps
                                  : t->elapsed_s / (60.0 * t->o.minutes);

    return share < 1.0 ? share : 1.0;
}

static float rate_now(const rd_trainer *t)
{
    double left = 1.0 - share_done(t), lr = (double)t->o.lr;

    if (t->steps < t->o.warm_up) lr *= (double)(t->steps + 1) / t->o.warm_up;
    if (left < (double)t->o.decay_share) lr *= left / (double)t->o.decay_share;
    return (float)lr;
}

/* The model's own words, for samples made of them. Run on the weights of the step, by the first thread's net. */
static rd_status guess(void *model, const rd_rows *rows, int32_t *best, rd_error *err)
{
    rd_trainer *t = model;
    rd_train_stats stats = { 0 };

    if (rd_net_run(t->thread[0].net, t->in, rows->row, rows->n, 1.0f, NULL, &stats, err))
        return err->status;
    memcpy(best, rd_net_best(t->thread[0].net), (size_t)rows->n * sizeof *best);
    return RD_OK;
}

static rd_status draw_packs(rd_trainer *t, rd_error *err)
{
    double weight = 0.0;

    for (int i = 0; i < t->packs; i++) {
        rd_rows *pack = &t->pack[i];

        pack->n = 0;
        while (pack->n < t->o.rows_per_pack) {
            int before = pack->n;
            rd_draw draw = { share_done(t), t->o.sample_rows, &t->random, guess, t };

            if (t->sampler.sample(t->sampler.user, &draw, pack, err)) return err->status;
            if (pack->n - before > t->o.sample_rows) {
                return rd_fail(err, RD_INVALID, "a sample has %d rows, at most %d may be",
                               pack->n - before, t->o.sample_rows);
            }
        }
        for (int k = 0; k < pack->n; k++)
            if (pack->row[k].label >= 0) weight += (double)pack->row[k].weight;
        t->rows += pack->n;
    }
    t->scale = weight > 0.0 ? (float)(1.0 / weight) : 0.0f;
    return RD_OK;
}

static void run_pack(void *user, int i, int thread)
{
    rd_trainer *t = user;
    thread_state *s = &t->thread[thread];
    const rd_rows *pack = &t->running[i];

    if (s->error.status) return;
    if (t->learning) memset(t->grad[i], 0, t->p->size * sizeof **t->grad);
    s->error.status = rd_net_run(s->net, t->in, pack->row, pack->n, t->scale,
                                 t->learning ? t->grad[i] : NULL, &s->stats, &s->error);
}

static void round_tensor(void *user, int i, int thread)
{
    rd_trainer *t = user;
    thread_state *s = &t->thread[thread];

    if (!s->error.status)
        s->error.status = rd_params_round_int8(t->p, i, t->w, t->rounded, &s->error);
}

/* The weights that passes see until the next step. */
static rd_status choose_weights(rd_trainer *t, rd_error *err)
{
    t->in = t->w;
    if (!t->rounded || share_done(t) < 1.0 - (double)t->o.fake_int8_share) return RD_OK;
    t->in = t->rounded;
    for (int i = 0; i < rd_pool_threads(t->pool); i++) t->thread[i].error = (rd_error){ 0 };
    rd_pool_run(t->pool, t->p->count, round_tensor, t);
    for (int i = 0; i < rd_pool_threads(t->pool); i++) {
        const rd_error *e = &t->thread[i].error;

        if (e->status)
            return rd_fail(err, e->status, "step %lld: %s", (long long)t->steps + 1, e->text);
    }
    return RD_OK;
}

static void average_slice(void *user, int i, int thread)
{
    rd_trainer *t = user;
    size_t at = (size_t)i * SLICE, end = at + SLICE < t->p->size ? at + SLICE : t->p->size;
    float by = 1.0f / (float)t->averaged;

    (void)thread;
    for (; at < end; at++) t->mean[at] += (t->w[at] - t->mean[at]) * by;
}

static void add_slice(void *user, int i, int thread)
{
    rd_trainer *t = user;
    size_t at = (size_t)i * SLICE, left = t->p->size - at;

    (void)thread;
    for (int k = 1; k < t->packs; k++)
        rd_add_scaled(t->grad[0] + at, t->grad[k] + at, 1.0f, left < SLICE ? left : SLICE);
}

/* Run packs on all threads; sums of the threads go to `stats`. */
static rd_status run_packs(rd_trainer *t, const rd_rows *packs, int n, bool learning,
                           rd_train_stats *stats, rd_error *err)
{
    size_t loads = (size_t)t->p->config.num_hidden_layers * (size_t)t->p->config.num_experts;
    int threads = rd_pool_threads(t->pool);

    for (int i = 0; i < threads; i++) {
        thread_state *s = &t->thread[i];

        s->stats = (rd_train_stats){ .load = s->load };
        s->error = (rd_error){ 0 };
        memset(s->load, 0, loads * sizeof *s->load);
    }
    t->running = packs;
    t->learning = learning;
    rd_pool_run(t->pool, n, run_pack, t);
    memset(t->load, 0, loads * sizeof *t->load);
    for (int i = 0; i < threads; i++) {
        thread_state *s = &t->thread[i];

        if (s->error.status) return rd_fail(err, s->error.status, "%s", s->error.text);
        for (size_t k = 0; k < loads; k++) t->load[k] += s->load[k];
        for (int k = 0; k < RD_TASKS; k++) {
            stats->loss[k] += s->stats.loss[k];
            stats->weight[k] += s->stats.weight[k];
            stats->labels[k] += s->stats.labels[k];
            stats->right[k] += s->stats.right[k];
        }
        stats->flops += s->stats.flops;
        stats->entropy += s->stats.entropy;
    }
    return RD_OK;
}

static bool losses_are_numbers(const rd_train_stats *stats)
{
    for (int i = 0; i < RD_TASKS; i++)
        if (!isfinite(stats->loss[i])) return false;
    return isfinite(stats->entropy);
}

/* Why the loss is not a number: weights go first, for their gradients follow from them. */
static rd_status not_a_number(const rd_trainer *t, rd_error *err)
{
    const char *what = "weights", *name = rd_params_not_finite(t->p, t->w);
    char kept[64] = "no checkpoint was written";

    for (int i = 0; i < t->packs && !name; i++) {
        what = "the gradient";
        name = rd_params_not_finite(t->p, t->grad[i]);
    }
    if (t->kept >= 0)
        snprintf(kept, sizeof kept, "the last checkpoint is of step %lld", (long long)t->kept);
    return rd_fail(err, RD_INVALID, "step %lld: the loss is not a number: %s of %s; %s",
                   (long long)t->steps + 1, what, name ? name : "no tensor", kept);
}

static rd_status step(rd_trainer *t, rd_error *err)
{
    int slices = (int)((t->p->size + SLICE - 1) / SLICE);
    bool average = t->mean && share_done(t) >= 1.0 - (double)t->o.average_share;

    t->lr = (double)rate_now(t);
    if (choose_weights(t, err) || draw_packs(t, err) ||
        run_packs(t, t->pack, t->packs, true, &t->stats, err))
        return err->status;
    if (!losses_are_numbers(&t->stats)) return not_a_number(t, err);
    rd_pool_run(t->pool, slices, add_slice, t);
    if (rd_optimizer_step(t->optimizer, t->w, t->grad[0], (float)t->lr, t->load, &t->norm, err))
        return err->status;
    t->steps++;
    t->averaged = average ? t->averaged + 1 : 0;
    if (average) rd_pool_run(t->pool, slices, average_slice, t);
    return RD_OK;
}

static double right_of(const rd_train_stats *s, int task)
{
    return s->labels[task] > 0 ? (double)s->right[task] / (double)s->labels[task] : (double)NAN;
}

static double bits_a_byte(double nats, int64_t bytes)
{
    return bytes > 0 ? nats / log(2.0) / (double)bytes : (double)NAN;
}

rd_status rd_trainer_measure(rd_trainer *t, rd_measure *out, rd_error *err)
{
    const rd_held *h = t->o.held;
    rd_train_stats text = { 0 }, places = { 0 };

    t->scale = 1.0f;
    if (choose_weights(t, err) || run_packs(t, h->text.pack, h->text.n, false, &text, err) ||
        run_packs(t, h->places.pack, h->places.n, false, &places, err))
        return err->status;
    *out = (rd_measure){
        .bits_per_byte = bits_a_byte(text.loss[RD_TASK_NEXT], h->text_bytes),
        .hole_bits_per_byte = bits_a_byte(places.loss[RD_HELD_HOLE], h->hole_bytes),
        .hole_right = right_of(&places, RD_HELD_HOLE),
        .length_right = right_of(&places, RD_HELD_LENGTH),
        .mended = right_of(&places, RD_HELD_MENDED),
        .kept = right_of(&places, RD_HELD_KEPT),
    };
    return RD_OK;
}

/* ---- terms ---- */

enum { ARRAYS = 4, TERMS = 12, MORE_TERMS = 64 };

typedef struct form { /* a checkpoint of this run, and what it points into */
    rd_kept_array array[ARRAYS];
    rd_kept_term term[TERMS + MORE_TERMS];
    rd_checkpoint c;
} form;

__attribute__((format(printf, 3, 4))) static void add_term(form *f, const char *name,
                                                           const char *format, ...)
{
    rd_kept_term *t = &f->term[f->c.terms++];
    va_list args;

    *t = (rd_kept_term){ .name = name };
    va_start(args, format);
    vsnprintf(t->value, sizeof t->value, format, args);
    va_end(args);
}

static void fill_form(form *f, const rd_trainer *t)
{
    const rd_train_options *o = &t->o;
    size_t n = t->p->size;
    char shape[RD_SHAPE_TEXT];

    *f = (form){ .c = { .random = t->random,
                        .steps = t->steps,
                        .averaged = t->averaged,
                        .elapsed_s = t->elapsed_s } };
    f->array[f->c.arrays++] = (rd_kept_array){ "weights", t->w, n };
    f->array[f->c.arrays++] =
        (rd_kept_array){ "moment.0", rd_optimizer_moment(t->optimizer, 0), n };
    f->array[f->c.arrays++] =
        (rd_kept_array){ "moment.1", rd_optimizer_moment(t->optimizer, 1), n };
    if (t->mean) f->array[f->c.arrays++] = (rd_kept_array){ "mean", t->mean, n };
    rd_params_shape(t->p, shape);
    add_term(f, "shape", "%s", shape);
    add_term(f, "seed", "%llu", (unsigned long long)o->seed);
    add_term(f, "rows", "%d a step, %d a pack, %d a sample", o->rows_per_step, o->rows_per_pack,
             o->sample_rows);
    add_term(f, "length in steps", "%lld", (long long)o->steps);
    add_term(f, "optimizer", "%s", o->optimizer.muon ? "muon" : "adamw");
    add_term(f, "mean of weights", "%s", t->mean ? "kept" : "not kept");
    add_term(f, "data", "%s", o->data ? o->data : "not named");
    int same = f->c.terms;

    add_term(f, "learning rate", "%g, warm-up %d, decay over %g", (double)o->lr, o->warm_up,
             (double)o->decay_share);
    add_term(f, "last shares", "int8 %g, mean %g", (double)o->fake_int8_share,
             (double)o->average_share);
    add_term(f, "constants", "%g %g %g %g %g %g %g", (double)o->optimizer.beta1,
             (double)o->optimizer.beta2, (double)o->optimizer.eps, (double)o->optimizer.decay,
             (double)o->optimizer.clip, (double)o->optimizer.momentum,
             (double)o->optimizer.bias_rate);
    if (o->steps == 0) add_term(f, "minutes", "%g", o->minutes);
    for (int i = 0; i < o->n_terms; i++) f->term[f->c.terms++] = o->terms[i];
    /* A run in minutes may change how it goes on. */
    for (int i = same; i < f->c.terms && o->steps == 0; i++) f->term[i].may_change = true;
    f->c.array = f->array;
    f->c.term = f->term;
}

/* What this run is, for whoever wants to repeat it. */
static rd_status write_terms(const rd_trainer *t, rd_error *err)
{
    char path[4096];
    rd_buf text = { 0 };
    form f;

    snprintf(path, sizeof path, "%s/run.txt", t->o.dir);
    fill_form(&f, t);
    for (int i = 0; i < f.c.terms; i++)
        rd_buf_format(&text, "%s: %s\n", f.term[i].name, f.term[i].value);
    rd_status s = rd_file_write(path, text.data, text.len, err);

    rd_buf_clear(&text);
    return s;
}

/* ---- reports ---- */

static rd_status open_csv(rd_trainer *t, rd_error *err)
{
    char path[4096];

    if (!t->o.dir || t->csv) return RD_OK;
    snprintf(path, sizeof path, "%s/log.csv", t->o.dir);
    t->csv = fopen(path, t->steps > 0 ? "a" : "w");
    if (!t->csv) return rd_fail(err, RD_IO, "%s: %s", path, strerror(errno));
    if (t->steps == 0)
        fputs("step,elapsed_s,total,next,hole,block,edit,lr,norm,rows_per_s,gflops,bits_per_byte,"
              "hole_bits_per_byte,hole_right,length_right,mended,kept\n",
              t->csv);
    return write_terms(t, err);
}

/* A line of the log that cannot be written is lost; the run is not. */
static void write_csv(rd_trainer *t, const rd_train_progress *p)
{
    if (!t->csv) return;
    const rd_measure *h = &p->held;

    fprintf(t->csv, "%lld,%.1f,%.4f,%.4f,%.4f,%.4f,%.4f,%.3g,%.3f,%.0f,%.1f", (long long)p->step,
            p->elapsed_s, p->total, p->loss[RD_TASK_NEXT], p->loss[RD_TASK_HOLE],
            p->loss[RD_TASK_BLOCK], p->loss[RD_TASK_EDIT], p->lr, p->norm, p->rows_per_s,
            p->gflops);
    fprintf(t->csv, ",%.4f,%.4f,%.4f,%.4f,%.4f,%.4f\n", h->bits_per_byte, h->hole_bits_per_byte,
            h->hole_right, h->length_right, h->mended, h->kept);
    if (fflush(t->csv)) rd_log(RD_LOG_WARN, "%s/log.csv: %s", t->o.dir, strerror(errno));
    clearerr(t->csv);
}

static const rd_measure nothing_measured = { (double)NAN, (double)NAN, (double)NAN,
                                             (double)NAN, (double)NAN, (double)NAN };

static void report(rd_trainer *t, const rd_measure *held)
{
    double now = rd_now_ms(), seconds = (now - t->since_ms) / 1e3, loss = 0.0, weight = 0.0;
    rd_train_progress p = { .step = t->steps,
                            .share = share_done(t),
                            .lr = t->lr,
                            .norm = t->norm,
                            .rows_per_s = t->rows / seconds,
                            .gflops = t->stats.flops / seconds / 1e9,
                            .elapsed_s = t->elapsed_s,
                            .measured = held,
                            .held = held ? *held : nothing_measured };

    for (int i = 0; i < RD_TASKS; i++) {
        double labels = (double)t->stats.labels[i];

        p.loss[i] = labels > 0 ? t->stats.loss[i] / t->stats.weight[i] : (double)NAN;
        p.right[i] = labels > 0 ? (double)t->stats.right[i] / labels : (double)NAN;
        loss += t->stats.loss[i];
        weight += t->stats.weight[i];
    }
    p.total = weight > 0.0 ? loss / weight : (double)NAN;
    p.left_s = p.share > 0.0 ? p.elapsed_s * (1.0 - p.share) / p.share : 0.0;
    write_csv(t, &p);
    if (t->o.report) t->o.report(t->o.user, &p);
    t->stats = (rd_train_stats){ 0 };
    t->rows = 0.0;
    t->since_ms = now;
}

rd_status rd_trainer_run(rd_trainer *t, int64_t steps, rd_error *err)
{
    int64_t until = steps > 0 ? t->steps + steps : INT64_MAX;
    double last = rd_now_ms(), kept = last, measured = last;
    rd_error local;

    if (!err) err = &local;
    if (open_csv(t, err)) return err->status;
    if (t->o.dir) rd_checkpoint_sweep(t->o.dir);
    t->since_ms = last;
    while (share_done(t) < 1.0 && t->steps < until) {
        rd_measure held;

        if (rd_cancelled(t->o.cancel)) {
            if (t->o.dir && rd_trainer_checkpoint(t, t->o.dir, err)) return err->status;
            return rd_fail(err, RD_CANCELLED, "training stopped after %lld steps",
                           (long long)t->steps);
        }
        if (step(t, err)) return err->status;
        double now = rd_now_ms();

        t->elapsed_s += (now - last) / 1e3;
        last = now;
        bool over = share_done(t) >= 1.0 || t->steps >= until;
        bool measure = t->o.held && (over || now - measured >= 1e3 * t->o.measure_s);

        if (measure && rd_trainer_measure(t, &held, err)) return err->status;
        if (measure) measured = now;
        if (over || measure || now - t->since_ms >= 1e3 * t->o.report_s)
            report(t, measure ? &held : NULL);
        if (t->o.dir && (over || now - kept >= 1e3 * t->o.checkpoint_s)) {
            if (rd_trainer_checkpoint(t, t->o.dir, err) && over) return err->status;
            /* A full disk can be emptied; the last checkpoint and the run are both worth keeping. */
            if (err->status) rd_log(RD_LOG_WARN, "no checkpoint: %s; training goes on", err->text);
            *err = (rd_error){ 0 };
            kept = now;
        }
    }
    return RD_OK;
}

/* ---- checkpoints ---- */

rd_status rd_trainer_checkpoint(rd_trainer *t, const char *dir, rd_error *err)
{
    form f;

    fill_form(&f, t);
    for (int i = 0; i < f.c.arrays; i++) {
        const char *name = rd_params_not_finite(t->p, f.array[i].data);

        if (name)
            return rd_fail(err, RD_INVALID, "step %lld: %s of %s are not finite; no checkpoint",
                           (long long)t->steps, f.array[i].name, name);
    }
    if (rd_checkpoint_write(dir, &f.c, err)) return err->status;
    t->kept = t->steps;
    return RD_OK;
}

rd_status rd_trainer_resume(rd_trainer *t, const char *dir, rd_error *err)
{
    form f;

    fill_form(&f, t);
    if (rd_checkpoint_read(dir, &f.c, err)) return err->status;
    for (int i = 0; i < f.c.arrays; i++) {
        const char *name = rd_params_not_finite(t->p, f.array[i].data);

        if (name)
            return rd_fail(err, RD_INVALID, "%s/checkpoint.safetensors: %s of %s is not finite",
                           dir, f.array[i].name, name);
    }
    t->random = f.c.random;
    t->steps = t->kept = f.c.steps;
    t->averaged = f.c.averaged;
    t->elapsed_s = f.c.elapsed_s;
    rd_optimizer_set_steps(t->optimizer, t->steps);
    return RD_OK;
}
