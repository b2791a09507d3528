/* worker.c - three lanes of jobs, one thread that chooses among them before each step, and its events.
 *
 * Everything in rd_worker is the mutex's, but for what the inference thread alone touches: the engine and the work
 * of an entry that has begun. Such an entry leaves its lane by the inference thread's hand only, so that its
 * pointer stays good while the mutex is free.
 */
#include "lsp/worker.h"

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/memory.h"
#include "core/plugin.h"
#include "lsp/answer.h"
#include "lsp/thread.h"
#include "lsp/work.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* LOSSES_MOST: of the device in a row, no job done in between; then the CPU is used where that is allowed. */
enum { RETRY_MS = 1000, LOSSES_MOST = 2, TIMES = 15, STEPS_NAMED = 64, KINDS = RD_JOB_WARM + 1 };

typedef struct entry {
    rd_work work;
    bool begun;
    struct entry *next;
} entry;

/* The event stands first: what rd_event_free frees is all of it. */
typedef struct queued {
    rd_event ev;
    struct queued *next;
} queued;

typedef struct forget {
    char *source; /* NULL: everything */
    struct forget *next;
} forget;

struct rd_worker {
    rd_worker_options o;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t more;
    entry *lane[RD_LANES]; /* the oldest first; it alone has a run */
    int jobs;
    queued *events; /* the oldest first */
    rd_model_state state;
    bool load, unload, closing;
    forget *forgets; /* the oldest first */
    uint64_t asked_to_forget, forgotten;
    rd_engine_stats stats;

    void *engine; /* from here on: the inference thread's */
    rd_key identity;
    double failed_ms;
    rd_error failure;
    bool may_be_lost; /* rd_runner_about */
    int losses;       /* of the device since a job was last done on it */
    rd_error loss;
    double times[TIMES]; /* of the last steps */
    int n_times;
    /* Written once, so that whoever reads a name never meets one that is being written. */
    char names[KINDS][STEPS_NAMED][24];
    _Atomic(const char *) now;
};

static void lock(rd_worker *w)
{
    pthread_mutex_lock(&w->mutex);
}

static void unlock(rd_worker *w)
{
    pthread_mutex_unlock(&w->mutex);
}

/* ---- events ---- */

static rd_event *new_event(rd_job *job)
{
    queued *q = rd_alloc0(sizeof *q);

    q->ev.job = job;
    return &q->ev;
}

/* Behind the others, in place of the job's draft that nobody took. */
static void post(rd_worker *w, rd_event *ev)
{
    queued *q = (queued *)ev, **at = &w->events;

    while (*at && ((*at)->ev.done || (*at)->ev.job != ev->job)) at = &(*at)->next;
    if (*at) {
        queued *old = *at;

        *at = old->next;
        rd_event_free(&old->ev);
    }
    while (*at) at = &(*at)->next;
    *at = q;
}

static void tell(rd_worker *w)
{
    unlock(w);
    w->o.wake(w->o.user);
    lock(w);
}

/* ---- lanes ---- */

static void unlink_entry(rd_worker *w, entry *e)
{
    entry **at = &w->lane[e->work.job->lane];

    while (*at != e) at = &(*at)->next;
    *at = e->next;
}

/* The job's last event; the entry is gone. Its run is closed. */
static void give_back(rd_worker *w, entry *e, rd_event *ev, rd_status status, const rd_error *err)
{
    unlink_entry(w, e);
    w->jobs--;
    ev->done = true;
    ev->status = status;
    if (status) ev->err = *err;
    post(w, ev);
    rd_work_clear(&e->work);
    free(e);
}

static void give_back_unbegun(rd_worker *w, entry *e, rd_status status, const rd_error *err)
{
    give_back(w, e, new_event(e->work.job), status, err);
}

static void cancelled_error(rd_error *err)
{
    rd_fail(err, RD_CANCELLED, "the job was cancelled");
}

static entry *first_entry(const rd_worker *w)
{
    for (int l = 0; l < RD_LANES; l++)
        if (w->lane[l]) return w->lane[l];
    return NULL;
}

/* The run that would be missed least, but for that of `e`. */
static entry *last_run(const rd_worker *w, const entry *e)
{
    for (int l = RD_LANES - 1; l >= 0; l--)
        if (w->lane[l] && w->lane[l] != e && w->lane[l]->work.run) return w->lane[l];
    return NULL;
}

/* ---- answers that are kept ---- */

static bool is_kept(const rd_worker *w, const rd_work *k)
{
    return w->o.keeper && !k->unstored && rd_answer_is_kept(k->job);
}

/* Called without the mutex, before the job's first step. The answer of an earlier run; NULL: there is none. */
static rd_event *recall(rd_worker *w, rd_work *k)
{
    if (k->named || !is_kept(w, k)) return NULL;
    rd_event *ev = new_event(k->job);

    k->name = rd_answer_key(k->job);
    k->named = true;
    if (rd_keeper_recall(w->o.keeper, &w->identity, k->job, &k->name, ev)) return ev;
    rd_event_free(ev);
    return NULL;
}

static void remember(rd_worker *w, const rd_work *k, rd_event *ev)
{
    ev->done = true;
    if (k->named && is_kept(w, k)) rd_keeper_remember(w->o.keeper, &w->identity, &k->name, ev);
}

/* ---- the end of a job that may have begun ---- */

/* Called without the mutex. The work is done, or went wrong. */
static void finish(rd_worker *w, entry *e, rd_status status, const rd_error *err)
{
    rd_event *ev = new_event(e->work.job);
    rd_error cancelled;

    if (rd_cancelled(&e->work.job->cancel)) {
        status = RD_CANCELLED;
        cancelled_error(&cancelled);
        err = &cancelled;
    }
    if (!status) {
        rd_work_fill(&e->work, w->o.runner, ev);
        remember(w, &e->work, ev);
    }
    rd_work_give_up(&e->work, w->o.runner);
    lock(w);
    give_back(w, e, ev, status, err);
    tell(w);
}

/* A job that is over before its turn: cancelled, or out of time while it gave way. */
static entry *find_over(const rd_worker *w)
{
    for (int l = 0; l < RD_LANES; l++)
        for (entry *e = w->lane[l]; e; e = e->next)
            if (rd_cancelled(&e->work.job->cancel) || (e->begun && rd_work_is_late(&e->work)))
                return e;
    return NULL;
}

static void end_those_over(rd_worker *w)
{
    for (entry *e; (e = find_over(w));) {
        e->begun = true;
        unlock(w);
        if (!rd_cancelled(&e->work.job->cancel)) rd_work_end(&e->work, w->o.runner);
        finish(w, e, RD_OK, NULL);
    }
}

/* ---- the model ---- */

static void set_phase(rd_worker *w, rd_model_phase phase, const char *about)
{
    w->state.phase = phase;
    snprintf(w->state.about, sizeof w->state.about, "%s", about);
    if (phase != RD_MODEL_READY) *w->state.fell_back = 0;
    tell(w);
}

static void name_now(rd_worker *w, const char *name)
{
    atomic_store_explicit(&w->now, name, memory_order_release);
}

static void fail_all(rd_worker *w)
{
    end_those_over(w);
    for (entry *e; (e = first_entry(w));) give_back_unbegun(w, e, w->failure.status, &w->failure);
    tell(w);
}

/* A device that opens and is lost at once, again and again, is left alone until the daemon ends. */
static bool leaves_device(const rd_worker *w)
{
    const rd_engine_options *o = &w->o.engine;

    return w->losses >= LOSSES_MOST && (o->fall_back || rd_backend_is_auto(o->backend));
}

static rd_status try_open(rd_worker *w, rd_runner_about *about)
{
    rd_engine_options o = w->o.engine;
    rd_error said = { 0 };

    if (leaves_device(w)) {
        o.backend = "cpu";
        rd_fail(&said, RD_DEVICE, "%s, %d times in a row; the CPU is used", w->loss.text,
                w->losses);
        rd_log(RD_LOG_WARN, "%s", said.text);
    }
    if (w->o.runner->open(&o, &w->engine, &w->failure)) return w->failure.status;
    w->o.runner->about(w->engine, about);
    /* That the best backend finds no device is no news, but where one was a moment ago. */
    if (!said.status && w->losses > 0 && !about->may_be_lost && !*about->fell_back) {
        rd_fail(&said, RD_DEVICE, "the device was lost: %s; the CPU is used", w->loss.text);
        rd_log(RD_LOG_WARN, "%s", said.text);
    }
    if (said.status) memcpy(about->fell_back, said.text, sizeof about->fell_back);
    return RD_OK;
}

/* A model that was found missing a moment ago is still missing. */
static void open_engine(rd_worker *w)
{
    rd_runner_about about = { 0 };

    w->load = false;
    if (w->state.phase == RD_MODEL_FAILED && rd_now_ms() - w->failed_ms < RETRY_MS) {
        fail_all(w);
        return;
    }
    set_phase(w, RD_MODEL_LOADING, "");
    unlock(w);
    name_now(w, "loading");
    w->failure = (rd_error){ 0 };
    rd_status status = try_open(w, &about);

    w->may_be_lost = about.may_be_lost;
    name_now(w, "");
    lock(w);
    if (status) {
        w->engine = NULL;
        w->failed_ms = rd_now_ms();
        set_phase(w, RD_MODEL_FAILED, w->failure.text);
        fail_all(w);
        return;
    }
    w->identity = about.identity;
    w->state.gate = about.gate;
    w->state.follows_instructions = about.follows_instructions;
    memcpy(w->state.fell_back, about.fell_back, sizeof w->state.fell_back);
    set_phase(w, RD_MODEL_READY, about.text);
}

/* Runs that are left begin again with the next engine. */
static void close_engine(rd_worker *w)
{
    for (entry *e; (e = last_run(w, NULL));) {
        unlock(w);
        rd_work_give_up(&e->work, w->o.runner);
        lock(w);
    }
    unlock(w);
    w->o.runner->close(w->engine);
    w->engine = NULL;
    lock(w);
    w->stats = (rd_engine_stats){ 0 };
    set_phase(w, RD_MODEL_AWAY, "");
}

/* The next job opens it again. */
static void lose_engine(rd_worker *w, const rd_error *why)
{
    rd_log(RD_LOG_WARN, "the engine is closed: %s", why->text);
    if (w->may_be_lost) {
        w->losses++;
        w->loss = *why;
    }
    close_engine(w);
}

/* ---- a turn ---- */

static int by_size(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;

    return (a > b) - (a < b);
}

/* A typical step is the median of the last. */
static double typical_ms(rd_worker *w, double ms)
{
    double sorted[TIMES];
    int n;

    w->times[w->n_times++ % TIMES] = ms;
    n = w->n_times < TIMES ? w->n_times : TIMES;
    memcpy(sorted, w->times, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, by_size);
    return sorted[n / 2];
}

/* The pool of blocks does not hold all open runs: the least urgent one and this one begin again, this one
 * first. False: there is no other. */
static bool make_room(rd_worker *w, entry *e)
{
    lock(w);
    entry *last = last_run(w, e);

    unlock(w);
    if (!last) return false;
    rd_work_give_up(&last->work, w->o.runner);
    rd_work_give_up(&e->work, w->o.runner);
    return true;
}

static const char *name_of(rd_worker *w, const rd_work *k)
{
    int step = k->step + 1 < STEPS_NAMED ? k->step + 1 : 0;

    return w->names[k->job->kind][step];
}

/* ---- forgetting ---- */

static bool concerns(const forget *f, const entry *e)
{
    const char *source = e->work.job->source;

    return !f->source || (source && !strcmp(f->source, source));
}

static entry *find_run_of(const rd_worker *w, const forget *f)
{
    for (int l = 0; l < RD_LANES; l++)
        for (entry *e = w->lane[l]; e; e = e->next)
            if (e->work.run && concerns(f, e)) return e;
    return NULL;
}

/* What such a job still computes is not kept: whoever may read the file no more has just said so. */
static void mark_unstored(const rd_worker *w, const forget *f)
{
    for (int l = 0; l < RD_LANES; l++)
        for (entry *e = w->lane[l]; e; e = e->next)
            if (concerns(f, e)) e->work.unstored = true;
}

static void note_stats(rd_worker *w)
{
    if (w->engine && w->o.runner->stat) w->o.runner->stat(w->engine, &w->stats);
}

/* Runs hold blocks: they begin again. */
static void forget_first(rd_worker *w)
{
    forget *f = w->forgets;

    w->forgets = f->next;
    if (f->source) mark_unstored(w, f);
    for (entry *e; (e = find_run_of(w, f));) {
        unlock(w);
        rd_work_give_up(&e->work, w->o.runner);
        lock(w);
    }
    unlock(w);
    if (w->engine && w->o.runner->forget) w->o.runner->forget(w->engine, f->source);
    if (w->o.keeper) rd_keeper_forget(w->o.keeper, f->source);
    free(f->source);
    free(f);
    lock(w);
    note_stats(w);
    w->forgotten++;
    tell(w);
}

/* ---- steps ---- */

/* Given without a run; the mutex is free. */
static void finish_recalled(rd_worker *w, entry *e, rd_event *ev)
{
    ev->ms = rd_now_ms() - e->work.began_ms;
    lock(w);
    give_back(w, e, ev, RD_OK, NULL);
    tell(w);
}

/* One step of a job; the mutex is free meanwhile. */
static void take_turn(rd_worker *w, entry *e)
{
    rd_work *k = &e->work;
    rd_error err = { 0 };
    bool score = k->job->kind == RD_JOB_SCORE;

    e->begun = true;
    unlock(w);
    name_now(w, name_of(w, k));
    double start = rd_now_ms();
    rd_event *kept = recall(w, k);

    if (kept) {
        name_now(w, "");
        k->began_ms = start;
        finish_recalled(w, e, kept);
        return;
    }
    rd_status status = rd_work_step(k, w->o.runner, w->engine, &err);
    double ms = rd_now_ms() - start;

    name_now(w, "");
    if (status == RD_NO_MEMORY && make_room(w, e)) {
        lock(w);
        return;
    }
    bool done = k->done;

    if (status || done) {
        finish(w, e, status, &err);
    } else if (k->job->watch && !score) {
        rd_event *ev = new_event(k->job);

        rd_work_fill(k, w->o.runner, ev);
        lock(w);
        post(w, ev);
        tell(w);
    } else {
        lock(w);
    }
    note_stats(w);
    if (!status && !score) w->state.step_ms = typical_ms(w, ms);
    if (status == RD_DEVICE) lose_engine(w, &err);
    if (!status && done && w->may_be_lost) w->losses = 0;
}

/* ---- the thread ---- */

/* Nobody waits for the model: what is to be written is written now. */
static void rest(rd_worker *w)
{
    if (w->o.keeper) rd_keeper_idle(w->o.keeper, true);
    pthread_cond_wait(&w->more, &w->mutex);
    if (w->o.keeper) rd_keeper_idle(w->o.keeper, false);
}

static void *work(void *arg)
{
    rd_worker *w = arg;

    lock(w);
    while (!w->closing) {
        if (w->forgets) forget_first(w);
        end_those_over(w);
        entry *e = first_entry(w);

        if (w->closing) break;
        if (w->forgets) continue;
        if (!w->engine && (e || w->load)) {
            open_engine(w);
        } else if (e) {
            take_turn(w, e);
        } else if (w->unload) {
            w->unload = false;
            if (w->engine) close_engine(w);
        } else {
            w->load = false;
            rest(w);
        }
    }
    for (entry *e; (e = last_run(w, NULL));) rd_work_give_up(&e->work, w->o.runner);
    while (w->forgets) forget_first(w);
    unlock(w);
    w->o.runner->close(w->engine);
    return NULL;
}

rd_worker *rd_worker_new(const rd_worker_options *o)
{
    static const char *const kinds[KINDS] = { "infill", "rewrite", "score", "warm" };
    rd_worker *w = rd_alloc0(sizeof *w);

    w->o = *o;
    if (o->keeper) w->o.engine.store = rd_keeper_store(o->keeper);
    for (int k = 0; k < KINDS; k++)
        for (int i = 0; i < STEPS_NAMED; i++)
            snprintf(w->names[k][i], sizeof w->names[k][i], i ? "%s step %d" : "%s, many steps",
                     kinds[k], i);
    atomic_init(&w->now, "");
    pthread_mutex_init(&w->mutex, NULL);
    pthread_cond_init(&w->more, NULL);
    if (!rd_thread_start(&w->thread, work, w)) abort();
    return w;
}

void rd_worker_close(rd_worker *w)
{
    if (!w) return;
    lock(w);
    w->closing = true;
    for (int l = 0; l < RD_LANES; l++)
        for (entry *e = w->lane[l]; e; e = e->next) rd_cancel_set(&e->work.job->cancel);
    pthread_cond_signal(&w->more);
    unlock(w);
    pthread_join(w->thread, NULL);
    for (entry *e; (e = first_entry(w));) {
        unlink_entry(w, e);
        rd_job_free(e->work.job);
        rd_work_clear(&e->work);
        free(e);
    }
    for (rd_event *ev; (ev = rd_worker_take(w));) {
        if (ev->done) rd_job_free(ev->job);
        rd_event_free(ev);
    }
    pthread_cond_destroy(&w->more);
    pthread_mutex_destroy(&w->mutex);
    free(w);
}

/* ---- the loop thread's side ---- */

void rd_worker_push(rd_worker *w, rd_job *job)
{
    entry *e = rd_alloc0(sizeof *e), **at = &w->lane[job->lane];

    e->work.job = job;
    lock(w);
    while (*at) at = &(*at)->next;
    *at = e;
    w->jobs++;
    pthread_cond_signal(&w->more);
    unlock(w);
}

void rd_worker_cancel(rd_worker *w, rd_job *job)
{
    rd_error err;
    bool ended = false;

    lock(w);
    rd_cancel_set(&job->cancel);
    entry *e = w->lane[job->lane];

    while (e && e->work.job != job) e = e->next;
    if (e && !e->begun) {
        cancelled_error(&err);
        give_back_unbegun(w, e, RD_CANCELLED, &err);
        ended = true;
    }
    unlock(w);
    if (ended) w->o.wake(w->o.user);
}

rd_event *rd_worker_take(rd_worker *w)
{
    lock(w);
    queued *q = w->events;

    if (q) w->events = q->next;
    unlock(w);
    return q ? &q->ev : NULL;
}

static void want(rd_worker *w, bool loaded)
{
    lock(w);
    w->load = loaded;
    w->unload = !loaded;
    pthread_cond_signal(&w->more);
    unlock(w);
}

void rd_worker_load(rd_worker *w)
{
    want(w, true);
}

void rd_worker_unload(rd_worker *w)
{
    want(w, false);
}

void rd_worker_state(rd_worker *w, rd_model_state *out)
{
    lock(w);
    *out = w->state;
    unlock(w);
}

uint64_t rd_worker_forget(rd_worker *w, const char *source)
{
    forget *f = rd_alloc0(sizeof *f), **at = &w->forgets;

    if (source) f->source = rd_copy_text(source, strlen(source));
    lock(w);
    while (*at) at = &(*at)->next;
    *at = f;
    uint64_t number = ++w->asked_to_forget;

    pthread_cond_signal(&w->more);
    unlock(w);
    return number;
}

bool rd_worker_has_forgotten(rd_worker *w, uint64_t number)
{
    lock(w);
    uint64_t n = w->forgotten;

    unlock(w);
    if (n >= number && w->o.keeper) n = rd_keeper_forgotten(w->o.keeper);
    return n >= number;
}

void rd_worker_stat(rd_worker *w, rd_engine_stats *out)
{
    lock(w);
    *out = w->stats;
    unlock(w);
}

int rd_worker_jobs(rd_worker *w)
{
    lock(w);
    int n = w->jobs;

    unlock(w);
    return n;
}

const char *rd_worker_now(const rd_worker *w)
{
    return atomic_load_explicit(&w->now, memory_order_acquire);
}
