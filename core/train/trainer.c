/* trainer.c - one step is: draw packs, hand them to the learner, have it step; while it works, draw the next ones.
 *
 * The next step's packs are drawn before the step under way is collected. That changes nothing of what is drawn: samples
 * depend on the random state and the steps done alone, and a sample that asks for the model's own words waits inside the
 * learner's `guess` until the step is done. What is drawn ahead is not part of the run's state yet: a checkpoint keeps the
 * random state from before it.
 */
#include "core/train/trainer.h"

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/memory.h"
#include "core/format/file.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct rd_trainer {
    const rd_params *p;
    rd_train_options o;
    rd_sampler sampler;
    const rd_learner_table *table;
    rd_learner *learner;
    int packs;
    rd_rows *pack;
    float scale;
    bool rounded;              /* what passes see now */
    bool drawn;                /* `pack` holds the next step's */
    rd_random random, undrawn; /* undrawn: the state before those were drawn */
    int64_t steps, averaged;   /* with the one under way */
    int under_way;             /* steps that were not collected yet */
    int64_t kept;              /* the step of the last checkpoint; -1: none */
    double elapsed_s, peak_flop_s;
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

static rd_status seed_weights(rd_trainer *t, rd_error *err)
{
    float *w = rd_try_alloc_array(t->p->size, sizeof *w);

    if (!w) return rd_fail(err, RD_NO_MEMORY, "the trainer: no memory for %zu weights", t->p->size);
    rd_params_seed(t->p, w, t->o.seed);
    rd_status s = t->table->put(t->learner, RD_LEARNER_WEIGHTS, w, err);

    free(w);
    return s;
}

rd_status rd_trainer_open(const rd_params *p, const rd_train_options *o, const rd_sampler *sampler,
                          const rd_learner_table *table, rd_trainer **out, rd_error *err)
{
    rd_error local;

    if (!err) err = &local;
    if (rd_learner_accept(table, "the trainer", err)) return err->status;
    rd_trainer *t = rd_alloc0(sizeof *t);

    t->p = p;
    t->o = *o;
    t->sampler = *sampler;
    t->table = table;
    t->packs = (o->rows_per_step + o->rows_per_pack - 1) / o->rows_per_pack;
    t->pack = rd_alloc_array((size_t)t->packs, sizeof *t->pack);
    t->random = rd_random_seed(o->seed + 1);
    t->kept = -1;
    rd_learner_options learner = { .rows_per_pack = o->rows_per_pack + o->sample_rows,
                                   .packs = t->packs,
                                   .threads = o->threads,
                                   .optimizer = o->optimizer,
                                   .rounded = o->fake_int8_share > 0.0f,
                                   .mean = o->average_share > 0.0f,
                                   .log = rd_log };

    if (table->open(p, &learner, &t->learner, err) || seed_weights(t, err)) {
        rd_trainer_close(t);
        return err->status;
    }
    t->peak_flop_s = table->peak_flop_s(t->learner);
    *out = t;
    return RD_OK;
}

void rd_trainer_close(rd_trainer *t)
{
    if (!t) return;
    if (t->learner) t->table->close(t->learner);
    for (int i = 0; i < t->packs; i++) rd_rows_clear(&t->pack[i]);
    if (t->csv) fclose(t->csv);
    free(t->pack);
    free(t);
}

const char *rd_trainer_describe(rd_trainer *t)
{
    return t->table->describe(t->learner);
}

/* What was drawn ahead is drawn again when it is wanted. */
static void undraw(rd_trainer *t)
{
    if (t->drawn) t->random = t->undrawn;
    t->drawn = false;
}

rd_status rd_trainer_weights(rd_trainer *t, float *to, rd_error *err)
{
    return t->table->get(t->learner, RD_LEARNER_WEIGHTS, to, err);
}

rd_status rd_trainer_set_weights(rd_trainer *t, const float *from, rd_error *err)
{
    undraw(t); /* it may have asked the old ones */
    return t->table->put(t->learner, RD_LEARNER_WEIGHTS, from, err);
}

rd_status rd_trainer_result(rd_trainer *t, float *to, rd_error *err)
{
    rd_learner_array which = t->averaged > 0 ? RD_LEARNER_MEAN : RD_LEARNER_WEIGHTS;

    return t->table->get(t->learner, which, to, err);
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

bool rd_trainer_over(const rd_trainer *t)
{
    return share_done(t) >= 1.0;
}

static float rate_now(const rd_trainer *t)
{
    double left = 1.0 - share_done(t), lr = (double)t->o.lr;

    if (t->steps < t->o.warm_up) lr *= (double)(t->steps + 1) / t->o.warm_up;
    if (left < (double)t->o.decay_share) lr *= left / (double)t->o.decay_share;
    return (float)lr;
}

/* The model's own words, for samples made of them: of the weights that the packs of the step will see. */
static rd_status guess(void *model, const rd_rows *rows, int32_t *best, rd_error *err)
{
    rd_trainer *t = model;

    return t->table->guess(t->learner, rows->row, rows->n, best, err);
}

static rd_status draw_pack(rd_trainer *t, rd_rows *pack, rd_error *err)
{
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
    return rd_net_check(t->p, t->o.rows_per_pack + t->o.sample_rows, pack->row, pack->n, err);
}

/* Passes from now on see the weights rounded where this part of the run wants it. */
static rd_status choose_weights(rd_trainer *t, rd_error *err)
{
    bool rounded =
        t->o.fake_int8_share > 0.0f && share_done(t) >= 1.0 - (double)t->o.fake_int8_share;

    if (rounded == t->rounded) return RD_OK;
    if (t->table->see_rounded(t->learner, rounded, err)) return err->status;
    t->rounded = rounded;
    return RD_OK;
}

static rd_status draw_packs(rd_trainer *t, rd_error *err)
{
    double weight = 0.0;

    t->undrawn = t->random;
    t->drawn = true;
    if (choose_weights(t, err)) goto fail;
    for (int i = 0; i < t->packs; i++) {
        rd_rows *pack = &t->pack[i];

        if (draw_pack(t, pack, err)) goto fail;
        for (int k = 0; k < pack->n; k++)
            if (pack->row[k].label >= 0) weight += (double)pack->row[k].weight;
    }
    t->scale = weight > 0.0 ? (float)(1.0 / weight) : 0.0f;
    return RD_OK;
fail:
    undraw(t);
    return err->status;
}

static void add_stats(rd_train_stats *to, const rd_train_stats *from)
{
    for (int k = 0; k < RD_TASKS; k++) {
        to->loss[k] += from->loss[k];
        to->weight[k] += from->weight[k];
        to->labels[k] += from->labels[k];
        to->right[k] += from->right[k];
    }
    to->flops += from->flops;
    to->entropy += from->entropy;
}

/* A step that was not finite did nothing: it is not counted, and what was drawn behind it is not wanted. */
static rd_status not_done(rd_trainer *t, const rd_error *why, rd_error *err)
{
    char kept[64] = "no checkpoint was written";

    undraw(t);
    t->steps -= t->under_way;
    if (t->averaged > 0) t->averaged -= t->under_way;
    t->under_way = 0;
    if (why->status != RD_INVALID) return rd_fail(err, why->status, "%s", why->text);
    if (t->kept >= 0)
        snprintf(kept, sizeof kept, "the last checkpoint is of step %lld", (long long)t->kept);
    return rd_fail(err, RD_INVALID, "%s; %s", why->text, kept);
}

/* Wait for the learner; what it did since the last time goes to `stats`. */
static rd_status collect(rd_trainer *t, rd_train_stats *stats, rd_error *err)
{
    rd_learner_sums sums;
    rd_error why = { 0 };

    if (t->table->collect(t->learner, &sums, &why)) return not_done(t, &why, err);
    if (sums.steps != t->steps)
        return rd_fail(err, RD_DEVICE, "the learner %s did %lld steps of %lld", t->table->name,
                       (long long)sums.steps, (long long)t->steps);
    if (t->under_way > 0) t->norm = sums.norm;
    t->under_way = 0;
    add_stats(stats, &sums.stats);
    return RD_OK;
}

/* `until`: the step behind which nothing more is wanted of this call. */
static rd_status step(rd_trainer *t, int64_t until, rd_error *err)
{
    bool average = t->o.average_share > 0.0f && share_done(t) >= 1.0 - (double)t->o.average_share;
    rd_error ahead = { 0 };

    if (!t->drawn && draw_packs(t, err)) return err->status;
    t->lr = (double)rate_now(t);
    t->drawn = false;
    for (int i = 0; i < t->packs; i++) {
        if (t->table->submit(t->learner, RD_LEARNER_LEARN, t->pack[i].row, t->pack[i].n, t->scale,
                             err))
            return err->status;
        t->rows += t->pack[i].n;
    }
    if (t->table->step(t->learner, (float)t->lr, average, err)) return err->status;
    t->steps++;
    t->under_way++;
    t->averaged = average ? t->averaged + 1 : 0;
    if (!rd_trainer_over(t) && t->steps < until) draw_packs(t, &ahead);
    if (collect(t, &t->stats, err)) return err->status;
    return ahead.status ? rd_fail(err, ahead.status, "%s", ahead.text) : RD_OK;
}

static double right_of(const rd_train_stats *s, int task)
{
    return s->labels[task] > 0 ? (double)s->right[task] / (double)s->labels[task] : (double)NAN;
}

static double bits_a_byte(double nats, int64_t bytes)
{
    return bytes > 0 ? nats / log(2.0) / (double)bytes : (double)NAN;
}

static rd_status answer(rd_trainer *t, const rd_packs *packs, rd_train_stats *stats, rd_error *err)
{
    for (int i = 0; i < packs->n; i++)
        if (t->table->submit(t->learner, RD_LEARNER_MEASURE, packs->pack[i].row, packs->pack[i].n,
                             1.0f, err))
            return err->status;
    return collect(t, stats, err);
}

rd_status rd_trainer_measure(rd_trainer *t, rd_measure *out, rd_error *err)
{
    const rd_held *h = t->o.held;
    rd_train_stats text = { 0 }, places = { 0 };

    if (collect(t, &t->stats, err) || choose_weights(t, err) || answer(t, &h->text, &text, err) ||
        answer(t, &h->places, &places, err))
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

static const struct {
    const char *name;
    rd_learner_array which;
} arrays[ARRAYS] = { { "weights", RD_LEARNER_WEIGHTS },
                     { "moment.0", RD_LEARNER_MOMENT_0 },
                     { "moment.1", RD_LEARNER_MOMENT_1 },
                     { "mean", RD_LEARNER_MEAN } };

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
    char shape[RD_SHAPE_TEXT];

    *f = (form){ .c = { .random = t->drawn ? t->undrawn : t->random,
                        .steps = t->steps,
                        .averaged = t->averaged,
                        .elapsed_s = t->elapsed_s } };
    rd_params_shape(t->p, shape);
    add_term(f, "shape", "%s", shape);
    add_term(f, "seed", "%llu", (unsigned long long)o->seed);
    add_term(f, "rows", "%d a step, %d a pack, %d a sample", o->rows_per_step, o->rows_per_pack,
             o->sample_rows);
    add_term(f, "length in steps", "%lld", (long long)o->steps);
    add_term(f, "optimizer", "%s", o->optimizer.muon ? "muon" : "adamw");
    add_term(f, "mean of weights", "%s", o->average_share > 0.0f ? "kept" : "not kept");
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
    int backend = f->c.terms;

    add_term(f, "backend", "%s", t->table->name);
    for (int i = 0; i < o->n_terms; i++) f->term[f->c.terms++] = o->terms[i];
    /* A run in minutes may change how it goes on. */
    for (int i = same; i < f->c.terms && o->steps == 0; i++) f->term[i].may_change = true;
    f->term[backend].may_change = true; /* learners are the same but for rounding */
    f->c.array = f->array;
    f->c.term = f->term;
}

/* Host memory for the form's arrays: copies of the learner's, or to be filled. */
static rd_status open_arrays(form *f, rd_trainer *t, bool copy, rd_error *err)
{
    int wanted = t->o.average_share > 0.0f ? ARRAYS : ARRAYS - 1;
    size_t n = t->p->size;

    for (int i = 0; i < wanted; i++) {
        float *data = rd_try_alloc_array(n, sizeof *data);

        f->array[f->c.arrays++] = (rd_kept_array){ arrays[i].name, data, n };
        if (!data)
            return rd_fail(err, RD_NO_MEMORY, "a checkpoint: no memory for %d times %zu MB", wanted,
                           n * sizeof *data >> 20);
        if (copy && t->table->get(t->learner, arrays[i].which, data, err)) return err->status;
    }
    return RD_OK;
}

static void close_arrays(form *f)
{
    for (int i = 0; i < f->c.arrays; i++) free(f->array[i].data);
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
                            .mfu = t->peak_flop_s > 0.0 ? t->stats.flops / seconds / t->peak_flop_s
                                                        : (double)NAN,
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

/* A full disk can be emptied; the last checkpoint and the run are both worth keeping. */
static void try_checkpoint(rd_trainer *t)
{
    rd_error why = { 0 };

    if (rd_trainer_checkpoint(t, t->o.dir, &why))
        rd_log(RD_LOG_WARN, "no checkpoint: %s; training goes on", why.text);
}

static rd_status stopped(rd_trainer *t, rd_error *err)
{
    if (t->o.dir && rd_trainer_checkpoint(t, t->o.dir, err)) return err->status;
    return rd_fail(err, RD_CANCELLED, "training stopped after %lld steps", (long long)t->steps);
}

rd_status rd_trainer_run(rd_trainer *t, int64_t steps, rd_error *err)
{
    int64_t until = steps > 0 ? t->steps + steps : INT64_MAX;
    double begin = rd_now_ms(), last = begin, kept = begin, measured = begin;
    bool leg_over = false;
    rd_error local;

    if (!err) err = &local;
    if (open_csv(t, err)) return err->status;
    if (t->o.dir) rd_checkpoint_sweep(t->o.dir);
    t->since_ms = begin;
    while (!rd_trainer_over(t) && t->steps < until && !leg_over) {
        rd_measure held;

        if (rd_cancelled(t->o.cancel)) return stopped(t, err);
        if (step(t, until, err)) return err->status;
        double now = rd_now_ms();

        t->elapsed_s += (now - last) / 1e3;
        last = now;
        bool over = rd_trainer_over(t) || t->steps >= until;
        bool measure = t->o.held && (over || now - measured >= 1e3 * t->o.measure_s);

        leg_over = t->o.leg_minutes > 0.0 && now - begin >= 60e3 * t->o.leg_minutes;
        if (measure && rd_trainer_measure(t, &held, err)) return err->status;
        if (measure) measured = now;
        if (over || leg_over || measure || now - t->since_ms >= 1e3 * t->o.report_s)
            report(t, measure ? &held : NULL);
        if (!t->o.dir) continue;
        if (over || leg_over) {
            if (rd_trainer_checkpoint(t, t->o.dir, err)) return err->status;
        } else if (now - kept >= 1e3 * t->o.checkpoint_s) {
            try_checkpoint(t);
            kept = now;
        }
    }
    return RD_OK;
}

/* ---- checkpoints ---- */

/* The first array that is not finite, and where. */
static bool finds_not_finite(const form *f, const rd_params *p, const char **array,
                             const char **tensor)
{
    for (int i = 0; i < f->c.arrays; i++) {
        *array = f->array[i].name;
        *tensor = rd_params_not_finite(p, f->array[i].data);
        if (*tensor) return true;
    }
    return false;
}

rd_status rd_trainer_checkpoint(rd_trainer *t, const char *dir, rd_error *err)
{
    const char *array, *tensor;
    rd_status s;
    form f;

    fill_form(&f, t);
    s = open_arrays(&f, t, true, err);
    if (!s && finds_not_finite(&f, t->p, &array, &tensor))
        s = rd_fail(err, RD_INVALID, "step %lld: %s of %s are not finite; no checkpoint",
                    (long long)t->steps, array, tensor);
    if (!s) s = rd_checkpoint_write(dir, &f.c, err);
    if (!s) t->kept = t->steps;
    close_arrays(&f);
    return s;
}

/* What a checkpoint kept, to the learner. */
static rd_status put_back(rd_trainer *t, const form *f, rd_error *err)
{
    for (int i = 0; i < f->c.arrays; i++)
        if (t->table->put(t->learner, arrays[i].which, f->array[i].data, err)) return err->status;
    if (t->table->set_steps(t->learner, f->c.steps, f->c.averaged, err)) return err->status;
    t->drawn = false;
    t->under_way = 0;
    t->random = f->c.random;
    t->steps = t->kept = f->c.steps;
    t->averaged = f->c.averaged;
    t->elapsed_s = f->c.elapsed_s;
    return RD_OK;
}

rd_status rd_trainer_resume(rd_trainer *t, const char *dir, rd_error *err)
{
    const char *array, *tensor;
    rd_status s;
    form f;

    fill_form(&f, t);
    s = open_arrays(&f, t, false, err);
    if (!s) s = rd_checkpoint_read(dir, &f.c, err);
    if (!s && finds_not_finite(&f, t->p, &array, &tensor))
        s = rd_fail(err, RD_INVALID, "%s/checkpoint.safetensors: %s of %s is not finite", dir,
                    array, tensor);
    if (!s) s = put_back(t, &f, err);
    close_arrays(&f);
    return s;
}
