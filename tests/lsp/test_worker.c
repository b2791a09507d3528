/* test_worker.c - lanes, giving way, cancelling and loading, with a runner whose answers are known. */
#include "lsp/worker.h"

#include "core/base/clock.h"
#include "core/base/memory.h"
#include "core/base/random.h"
#include "tests/fake/script.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATIENCE_MS = 20000 };
#define ONE    \
    "\xc2\xab" \
    "one\xc2\xbb"

static atomic_int woken;

static void wake(void *user)
{
    (void)user;
    atomic_fetch_add(&woken, 1);
}

static rd_worker *open_worker(const char *model)
{
    return rd_worker_new(&(rd_worker_options){
        .runner = &rd_script_runner, .engine = { .model = model }, .wake = wake });
}

static rd_job *new_job(uint64_t id, rd_lane lane, rd_job_kind kind, const char *prefix)
{
    rd_job *job = rd_job_new(1, id, lane, kind);

    rd_buf_text(&job->prefix, prefix);
    return job;
}

static rd_event *next_event(rd_worker *w)
{
    double start = rd_now_ms();
    rd_event *ev;

    while (!(ev = rd_worker_take(w))) {
        cr_assert_lt(rd_now_ms() - start, PATIENCE_MS, "no event comes");
        usleep(100);
    }
    return ev;
}

/* The next last event, drafts left out. */
static rd_event *next_done(rd_worker *w)
{
    for (;;) {
        rd_event *ev = next_event(w);

        if (ev->done) return ev;
        rd_event_free(ev);
    }
}

static void drop(rd_event *ev)
{
    if (ev->done) rd_job_free(ev->job);
    rd_event_free(ev);
}

static void expect_done(rd_worker *w, uint64_t id, rd_status status, const char *text)
{
    rd_event *ev = next_done(w);

    cr_assert_eq(ev->job->id, id, "%d, not %d", (int)ev->job->id, (int)id);
    cr_assert_eq(ev->status, status, "job %d: %d: %s", (int)id, ev->status, ev->err.text);
    if (text) {
        cr_assert_eq(ev->n_answers, 1);
        cr_assert_str_eq(ev->answers[0].text.data, text);
    }
    drop(ev);
}

static void wait_until_runs(rd_worker *w)
{
    double start = rd_now_ms();

    while (!*rd_worker_now(w)) {
        cr_assert_lt(rd_now_ms() - start, PATIENCE_MS, "nothing runs");
        usleep(100);
    }
}

static void wait_for_steps(int n)
{
    double start = rd_now_ms();

    while (atomic_load(&rd_script_counted.steps) < n) {
        cr_assert_lt(rd_now_ms() - start, PATIENCE_MS, "no step begins");
        usleep(100);
    }
}

static rd_model_state wait_for_phase(rd_worker *w, rd_model_phase phase)
{
    double start = rd_now_ms();
    rd_model_state s;

    for (rd_worker_state(w, &s); s.phase != phase; rd_worker_state(w, &s)) {
        cr_assert_lt(rd_now_ms() - start, PATIENCE_MS, "the model is in phase %d", s.phase);
        usleep(100);
    }
    return s;
}

/* ---- what a job gets ---- */

Test(worker, answers_an_infill, .timeout = 60)
{
    rd_worker *w = open_worker(NULL);
    rd_job *job = new_job(7, RD_LANE_TYPING, RD_JOB_INFILL,
                          "@steps=3 @conf=0.7 \xc2\xab"
                          "one two\xc2\xbb");

    rd_worker_push(w, job);
    rd_event *ev = next_event(w);

    cr_assert(ev->done && ev->job == job);
    cr_assert_eq(ev->status, RD_OK);
    cr_assert_eq(ev->n_answers, 1);
    cr_assert_str_eq(ev->answers[0].text.data, "one two");
    cr_assert_float_eq(ev->answers[0].confidence, 0.7, 1e-6);
    cr_assert_eq(ev->reason, RD_REASON_DONE);
    cr_assert_eq(ev->step, 3);
    cr_assert_eq(ev->tokens, 3);
    cr_assert_eq(rd_worker_jobs(w), 0);
    cr_assert_gt(atomic_load(&woken), 0);
    drop(ev);
    rd_worker_close(w);
}

Test(worker, gives_as_many_answers_as_asked_for_and_found, .timeout = 60)
{
    static const char prefix[] = "\xc2\xab"
                                 "third\xc2\xbb \xc2\xab"
                                 "second\xc2\xbb \xc2\xab"
                                 "first\xc2\xbb";
    static const int wanted[] = { 2, 5 }, got[] = { 2, 3 };
    static const char *const texts[] = { "first", "second", "third" };
    rd_worker *w = open_worker(NULL);

    for (int i = 0; i < 2; i++) {
        rd_job *job = new_job(1, RD_LANE_ASKED, RD_JOB_INFILL, prefix);

        job->answers = wanted[i];
        rd_worker_push(w, job);
        rd_event *ev = next_event(w);

        cr_assert_eq(ev->n_answers, got[i]);
        for (int k = 0; k < got[i]; k++) {
            cr_assert_str_eq(ev->answers[k].text.data, texts[k]);
            if (k > 0) cr_assert_lt(ev->answers[k].confidence, ev->answers[k - 1].confidence);
        }
        drop(ev);
    }
    rd_worker_close(w);
}

Test(worker, rewrites_a_draft, .timeout = 60)
{
    rd_worker *w = open_worker(NULL);
    rd_job *job = new_job(1, RD_LANE_ASKED, RD_JOB_REWRITE, "");

    rd_buf_text(&job->draft, "a bad badge");
    rd_worker_push(w, job);
    expect_done(w, 1, RD_OK, "a good badge");
    rd_worker_close(w);
}

/* 3000 bytes are several pieces; words stand on their borders. */
Test(worker, scores_a_draft_in_its_own_places, .timeout = 60)
{
    rd_worker *w = open_worker(NULL);
    rd_job *job = new_job(1, RD_LANE_IDLE, RD_JOB_SCORE, "bad before ");
    int bad = 0;

    for (int i = 0; i < 300; i++) rd_buf_text(&job->draft, i % 3 ? "something " : "bad       ");
    rd_buf_text(&job->suffix, " bad behind");
    rd_worker_push(w, job);
    rd_event *ev = next_event(w);

    cr_assert(ev->done && !ev->status);
    cr_assert_gt(atomic_load(&rd_script_counted.scores), 3);
    for (int i = 0, at = 0; i < ev->n_scores; i++) {
        const rd_score *s = &ev->scores[i];

        cr_assert_eq(s->start, (size_t)at, "score %d begins at %zu", i, s->start);
        bool is = !strncmp(job->draft.data + s->start, "bad", s->end - s->start) &&
                  s->end - s->start == 3;

        cr_assert_float_eq(s->p, is ? 0.01 : 0.99, 1e-6);
        bad += is;
        at = (int)s->end;
    }
    cr_assert_eq(bad, 100);
    cr_assert_eq(ev->scores[ev->n_scores - 1].end, job->draft.len);
    drop(ev);
    rd_worker_close(w);
}

Test(worker, warms_with_one_step_and_no_answer, .timeout = 60)
{
    rd_worker *w = open_worker(NULL);

    rd_worker_push(w, new_job(1, RD_LANE_IDLE, RD_JOB_WARM, "@steps=9 "));
    rd_event *ev = next_event(w);

    cr_assert(ev->done && !ev->status);
    cr_assert_eq(ev->n_answers, 0);
    cr_assert_eq(atomic_load(&rd_script_counted.steps), 1);
    cr_assert_eq(atomic_load(&rd_script_counted.live), 0);
    drop(ev);
    rd_worker_close(w);
}

Test(worker, fails_the_one_job_whose_step_fails, .timeout = 60)
{
    rd_worker *w = open_worker(NULL);

    rd_worker_push(w, new_job(1, RD_LANE_TYPING, RD_JOB_INFILL, "@fail "));
    rd_worker_push(w, new_job(2, RD_LANE_TYPING, RD_JOB_INFILL,
                              "\xc2\xab"
                              "y\xc2\xbb"));
    expect_done(w, 1, RD_INVALID, NULL);
    expect_done(w, 2, RD_OK, "y");
    cr_assert_eq(atomic_load(&rd_script_counted.opens), 1);
    rd_worker_close(w);
}

/* ---- drafts ---- */

Test(worker, shows_drafts_to_who_watches, .timeout = 60)
{
    rd_worker *w = open_worker(NULL);
    rd_job *job = new_job(1, RD_LANE_TYPING, RD_JOB_INFILL,
                          "@steps=4 @us=50000 \xc2\xab"
                          "a b c d\xc2\xbb");
    size_t before = 0;
    int drafts = 0;
    rd_event *ev;

    job->watch = true;
    rd_worker_push(w, job);
    for (ev = next_event(w); !ev->done; ev = next_event(w)) {
        size_t bytes = 0;
        int masks = 0;

        for (int i = 0; i < ev->n_pieces; i++) {
            bytes += ev->pieces[i].bytes;
            masks += ev->pieces[i].state == RD_MARK_MASK;
        }
        cr_assert_eq(ev->n_answers, 1);
        cr_assert_eq(ev->answers[0].text.len, bytes);
        cr_assert(!strncmp("a b c d", ev->answers[0].text.data, bytes));
        cr_assert_geq(bytes, before);
        cr_assert_gt(masks, 0);
        before = bytes;
        drafts++;
        drop(ev);
    }
    cr_assert_geq(drafts, 2);
    cr_assert_str_eq(ev->answers[0].text.data, "a b c d");
    drop(ev);
    rd_worker_close(w);
}

Test(worker, replaces_a_draft_that_nobody_took, .timeout = 60)
{
    rd_worker *w = open_worker(NULL);
    rd_job *job = new_job(1, RD_LANE_TYPING, RD_JOB_INFILL,
                          "@steps=60 \xc2\xab"
                          "a b c d\xc2\xbb @us=10000");

    job->watch = true;
    rd_worker_push(w, job);
    wait_for_steps(20);
    rd_event *ev = next_event(w);

    cr_assert_not(ev->done);
    cr_assert_geq(ev->step, 19, "the newest");
    drop(ev);
    while (rd_worker_jobs(w) > 0) usleep(1000);
    ev = next_event(w);
    cr_assert(ev->done, "no draft is left behind");
    drop(ev);
    cr_assert_null(rd_worker_take(w));
    rd_worker_close(w);
}

/* ---- lanes ---- */

Test(worker, takes_the_lanes_in_order_and_each_from_its_oldest, .timeout = 60)
{
    static const struct {
        uint64_t id;
        rd_lane lane;
    } pushed[] = { { 1, RD_LANE_IDLE }, { 2, RD_LANE_ASKED },  { 3, RD_LANE_TYPING },
                   { 4, RD_LANE_IDLE }, { 5, RD_LANE_TYPING }, { 6, RD_LANE_ASKED } };
    static const uint64_t wanted[] = { 3, 5, 2, 6, 1, 4 };
    rd_worker *w = open_worker("@us=300000");

    for (int i = 0; i < 6; i++)
        rd_worker_push(w, new_job(pushed[i].id, pushed[i].lane, RD_JOB_INFILL, ""));
    cr_assert_eq(rd_worker_jobs(w), 6);
    for (int i = 0; i < 6; i++) expect_done(w, wanted[i], RD_OK, "x");
    cr_assert_eq(atomic_load(&rd_script_counted.most), 1);
    rd_worker_close(w);
}

Test(worker, gives_way_between_steps_and_goes_on_afterwards, .timeout = 60)
{
    rd_worker *w = open_worker(NULL);

    rd_worker_push(w, new_job(1, RD_LANE_IDLE, RD_JOB_INFILL, "@steps=30 @us=20000 "));
    wait_for_steps(1);
    rd_worker_push(w, new_job(2, RD_LANE_ASKED, RD_JOB_INFILL, "@steps=20 @us=20000 "));
    wait_for_steps(3);
    rd_worker_push(w, new_job(3, RD_LANE_TYPING, RD_JOB_INFILL, "@steps=2 @us=20000 "));
    expect_done(w, 3, RD_OK, "x");
    expect_done(w, 2, RD_OK, "x");
    expect_done(w, 1, RD_OK, "x");
    cr_assert_eq(atomic_load(&rd_script_counted.most), 3, "one run a lane");
    cr_assert_eq(atomic_load(&rd_script_counted.starts), 3, "none began again");
    cr_assert_eq(atomic_load(&rd_script_counted.steps), 52);
    rd_worker_close(w);
}

Test(worker, has_one_run_a_lane, .timeout = 60)
{
    rd_worker *w = open_worker(NULL);

    for (int i = 0; i < 30; i++)
        rd_worker_push(
            w, new_job((uint64_t)i, (rd_lane)(i % RD_LANES), RD_JOB_INFILL, "@us=500 @steps=4 "));
    for (int i = 0; i < 30; i++) drop(next_done(w));
    cr_assert_leq(atomic_load(&rd_script_counted.most), RD_LANES);
    cr_assert_eq(atomic_load(&rd_script_counted.starts), 30);
    rd_worker_close(w);
}

Test(worker, a_long_score_gives_way, .timeout = 60)
{
    rd_worker *w = open_worker(NULL);
    rd_job *job = new_job(1, RD_LANE_IDLE, RD_JOB_SCORE, "@us=10000 ");

    for (int i = 0; i < 1000; i++) rd_buf_text(&job->draft, "something ");
    rd_worker_push(w, job);
    wait_until_runs(w);
    rd_worker_push(w, new_job(2, RD_LANE_TYPING, RD_JOB_INFILL, ""));
    expect_done(w, 2, RD_OK, "x");
    expect_done(w, 1, RD_OK, NULL);
    rd_worker_close(w);
}

/* ---- cancelling ---- */

Test(worker, ends_a_waiting_job_at_once, .timeout = 60)
{
    rd_worker *w = open_worker(NULL);
    rd_job *running = new_job(1, RD_LANE_TYPING, RD_JOB_INFILL, "@steps=1 @us=10000000 "),
           *waiting = new_job(2, RD_LANE_TYPING, RD_JOB_INFILL, "");

    rd_worker_push(w, running);
    wait_for_steps(1);
    rd_worker_push(w, waiting);
    int before = atomic_load(&woken);

    rd_worker_cancel(w, waiting);
    rd_event *ev = rd_worker_take(w);

    cr_assert(ev && ev->done && ev->job == waiting, "while the other one still runs");
    cr_assert_eq(ev->status, RD_CANCELLED);
    cr_assert_gt(atomic_load(&woken), before);
    cr_assert_eq(rd_worker_jobs(w), 1);
    drop(ev);
    rd_worker_cancel(w, running);
    expect_done(w, 1, RD_CANCELLED, NULL);
    rd_worker_close(w);
}

Test(worker, ends_a_running_job_within_its_step, .timeout = 60)
{
    rd_worker *w = open_worker(NULL);
    rd_job *job = new_job(1, RD_LANE_TYPING, RD_JOB_INFILL, "@us=10000000 ");

    rd_worker_push(w, job);
    wait_for_steps(1);
    double start = rd_now_ms();

    rd_worker_cancel(w, job);
    expect_done(w, 1, RD_CANCELLED, NULL);
    cr_assert_lt(rd_now_ms() - start, 5000.0);
    cr_assert_eq(atomic_load(&rd_script_counted.live), 0);
    rd_worker_close(w);
}

Test(worker, ends_a_job_that_gave_way_before_the_next_step, .timeout = 60)
{
    rd_worker *w = open_worker(NULL);
    rd_job *low = new_job(1, RD_LANE_IDLE, RD_JOB_INFILL, "@steps=100 @us=20000 ");

    rd_worker_push(w, low);
    wait_for_steps(1);
    rd_worker_push(w, new_job(2, RD_LANE_TYPING, RD_JOB_INFILL, "@steps=60 @us=20000 "));
    wait_for_steps(4);
    rd_worker_cancel(w, low);
    expect_done(w, 1, RD_CANCELLED, NULL);
    expect_done(w, 2, RD_OK, "x");
    rd_worker_close(w);
}

Test(worker, a_flag_that_is_set_without_a_word_counts_too, .timeout = 60)
{
    rd_worker *w = open_worker("@us=300000");
    rd_job *job = new_job(1, RD_LANE_IDLE, RD_JOB_INFILL, "");

    rd_worker_push(w, job);
    rd_cancel_set(&job->cancel);
    expect_done(w, 1, RD_CANCELLED, NULL);
    cr_assert_eq(atomic_load(&rd_script_counted.starts), 0);
    rd_worker_close(w);
}

/* ---- time ---- */

Test(worker, answers_with_the_best_so_far_when_the_time_is_over, .timeout = 60)
{
    rd_worker *w = open_worker(NULL);
    rd_job *job = new_job(1, RD_LANE_TYPING, RD_JOB_INFILL,
                          "@steps=10 @us=20000 \xc2\xab"
                          "alpha beta\xc2\xbb");

    job->max_ms = 100;
    rd_worker_push(w, job);
    rd_event *ev = next_event(w);

    cr_assert(ev->done && !ev->status);
    cr_assert_eq(ev->reason, RD_REASON_TIME);
    cr_assert_eq(ev->n_answers, 1);
    cr_assert_str_eq(ev->answers[0].text.data, "alpha");
    cr_assert(ev->ms >= 100.0 && ev->ms < 5000.0, "%g ms", ev->ms);
    drop(ev);
    rd_worker_close(w);
}

Test(worker, the_time_runs_while_a_job_gives_way_but_not_before_it_begins, .timeout = 60)
{
    rd_worker *w = open_worker(NULL);
    rd_job *low = new_job(1, RD_LANE_IDLE, RD_JOB_INFILL, "@steps=1000 @us=10000 "),
           *waits = new_job(3, RD_LANE_TYPING, RD_JOB_INFILL, "");

    low->max_ms = 150;
    rd_worker_push(w, low);
    wait_for_steps(1);
    rd_worker_push(w, new_job(2, RD_LANE_TYPING, RD_JOB_INFILL, "@steps=50 @us=20000 "));
    waits->max_ms = 100;
    rd_worker_push(w, waits);
    rd_event *ev = next_event(w);

    cr_assert_eq(ev->job->id, 1);
    cr_assert_eq(ev->reason, RD_REASON_TIME);
    drop(ev);
    expect_done(w, 2, RD_OK, "x");
    ev = next_event(w);
    cr_assert_eq(ev->job->id, 3);
    cr_assert_eq(ev->reason, RD_REASON_DONE);
    drop(ev);
    rd_worker_close(w);
}

Test(worker, knows_how_long_a_step_takes, .timeout = 60)
{
    rd_worker *w = open_worker(NULL);
    rd_model_state s;

    rd_worker_state(w, &s);
    cr_assert_eq(s.step_ms, 0.0);
    rd_worker_push(w, new_job(1, RD_LANE_TYPING, RD_JOB_INFILL, "@steps=5 @us=20000 "));
    expect_done(w, 1, RD_OK, "x");
    wait_for_phase(w, RD_MODEL_READY);
    usleep(20000);
    rd_worker_state(w, &s);
    cr_assert(s.step_ms >= 20.0 && s.step_ms < 2000.0, "%g", s.step_ms);
    rd_worker_close(w);
}

/* ---- the model ---- */

Test(worker, loads_nothing_until_it_must, .timeout = 60)
{
    rd_worker *w = open_worker("@us=100000 @follows");
    rd_model_state s;

    rd_worker_state(w, &s);
    cr_assert_eq(s.phase, RD_MODEL_AWAY);
    usleep(20000);
    cr_assert_eq(atomic_load(&rd_script_counted.opens), 0);
    rd_worker_load(w);
    wait_for_phase(w, RD_MODEL_LOADING);
    cr_assert_gt(atomic_load(&woken), 0);
    s = wait_for_phase(w, RD_MODEL_READY);
    cr_assert_float_eq(s.gate, RD_SCRIPT_GATE, 1e-6);
    cr_assert(s.follows_instructions);
    cr_assert(strstr(s.about, "script"), "%s", s.about);
    cr_assert_geq(atomic_load(&woken), 2);
    rd_worker_close(w);
    cr_assert_eq(atomic_load(&rd_script_counted.open), 0);
}

Test(worker, fails_all_that_wait_when_it_cannot_load_and_tries_again_later, .timeout = 60)
{
    rd_worker *w = open_worker("@us=50000 @fail=1");

    for (int i = 0; i < 3; i++)
        rd_worker_push(w, new_job((uint64_t)i, (rd_lane)i, RD_JOB_INFILL, ""));
    for (int i = 0; i < 3; i++) {
        rd_event *ev = next_done(w);

        cr_assert_eq(ev->status, RD_IO);
        cr_assert(strstr(ev->err.text, "cannot be opened"), "%s", ev->err.text);
        drop(ev);
    }
    rd_model_state s = wait_for_phase(w, RD_MODEL_FAILED);

    cr_assert(strstr(s.about, "cannot be opened"), "%s", s.about);
    rd_worker_push(w, new_job(4, RD_LANE_TYPING, RD_JOB_INFILL, ""));
    expect_done(w, 4, RD_IO, NULL);
    cr_assert_eq(atomic_load(&rd_script_counted.opens), 1, "not within a second");
    usleep(1100000);
    rd_worker_push(w, new_job(5, RD_LANE_TYPING, RD_JOB_INFILL, ""));
    expect_done(w, 5, RD_OK, "x");
    cr_assert_eq(atomic_load(&rd_script_counted.opens), 2);
    rd_worker_close(w);
}

Test(worker, gives_the_model_back_when_no_job_is_left, .timeout = 60)
{
    rd_worker *w = open_worker(NULL);

    rd_worker_push(w, new_job(1, RD_LANE_TYPING, RD_JOB_INFILL, "@us=20000 "));
    wait_for_steps(1);
    rd_worker_unload(w);
    expect_done(w, 1, RD_OK, "x");
    wait_for_phase(w, RD_MODEL_AWAY);
    cr_assert_eq(atomic_load(&rd_script_counted.open), 0);
    rd_worker_push(w, new_job(2, RD_LANE_TYPING, RD_JOB_INFILL, ""));
    expect_done(w, 2, RD_OK, "x");
    cr_assert_eq(atomic_load(&rd_script_counted.opens), 2);
    rd_worker_close(w);
}

Test(worker, opens_again_after_a_device_error_and_runs_go_on_from_their_beginning, .timeout = 60)
{
    rd_worker *w = open_worker(NULL);

    rd_worker_push(w, new_job(1, RD_LANE_IDLE, RD_JOB_INFILL,
                              "@steps=20 @us=20000 \xc2\xab"
                              "kept\xc2\xbb"));
    wait_for_steps(1);
    rd_worker_push(w, new_job(2, RD_LANE_TYPING, RD_JOB_INFILL, "@device "));
    expect_done(w, 2, RD_DEVICE, NULL);
    expect_done(w, 1, RD_OK, "kept");
    cr_assert_eq(atomic_load(&rd_script_counted.opens), 2);
    cr_assert_eq(atomic_load(&rd_script_counted.starts), 3);
    cr_assert_eq(atomic_load(&rd_script_counted.open), 1);
    rd_worker_close(w);
}

/* ---- a pool that holds one run ---- */

static rd_status crowded_step(void *run, rd_step *out, rd_error *err)
{
    if (atomic_load(&rd_script_counted.live) > 1)
        return rd_fail(err, RD_NO_MEMORY, "all blocks are held");
    return rd_script_runner.step(run, out, err);
}

Test(worker, begins_the_less_urgent_run_again_when_both_do_not_fit, .timeout = 60)
{
    rd_runner crowded = rd_script_runner;

    crowded.step = crowded_step;
    rd_worker *w = rd_worker_new(&(rd_worker_options){ .runner = &crowded, .wake = wake });

    rd_worker_push(w, new_job(1, RD_LANE_ASKED, RD_JOB_INFILL,
                              "@steps=20 @us=20000 \xc2\xab"
                              "low\xc2\xbb"));
    wait_for_steps(1);
    rd_worker_push(w, new_job(2, RD_LANE_TYPING, RD_JOB_INFILL,
                              "\xc2\xab"
                              "high\xc2\xbb"));
    expect_done(w, 2, RD_OK, "high");
    expect_done(w, 1, RD_OK, "low");
    cr_assert_eq(atomic_load(&rd_script_counted.starts), 4);
    cr_assert_eq(atomic_load(&rd_script_counted.most), 2);
    rd_worker_close(w);
}

static rd_status full_step(void *run, rd_step *out, rd_error *err)
{
    (void)run;
    (void)out;
    return rd_fail(err, RD_NO_MEMORY, "all blocks are held");
}

Test(worker, fails_a_run_that_does_not_fit_alone, .timeout = 60)
{
    rd_runner full = rd_script_runner;

    full.step = full_step;
    rd_worker *w = rd_worker_new(&(rd_worker_options){ .runner = &full, .wake = wake });

    rd_worker_push(w, new_job(1, RD_LANE_TYPING, RD_JOB_INFILL, ""));
    expect_done(w, 1, RD_NO_MEMORY, NULL);
    rd_worker_close(w);
}

/* ---- with the engine ---- */

enum { REAL = 4 };

static void push_real_jobs(rd_worker *w, int from, int to)
{
    static const char open_file[] = "def load(path):\n    with open(path) as file:\n        ",
                      merge[] = "\n        return merge(defaults, settings)\n";

    for (int i = from; i < to; i++) {
        static const rd_job_kind kinds[REAL] = { RD_JOB_SCORE, RD_JOB_INFILL, RD_JOB_REWRITE,
                                                 RD_JOB_INFILL };
        static const rd_lane lanes[REAL] = { RD_LANE_IDLE, RD_LANE_IDLE, RD_LANE_ASKED,
                                             RD_LANE_TYPING };
        rd_job *job = new_job((uint64_t)i, lanes[i], kinds[i],
                              i == 1 ? "for i in range(10):\n    " : open_file);

        job->language = rd_copy_text("python", 6);
        job->quality = i == 1 ? 1.0f : 0.5f;
        rd_buf_text(&job->suffix, merge);
        if (i == 0 || i == 2) rd_buf_text(&job->draft, "settings = decode(file)");
        if (i == 3) {
            job->neighbours[0].name = rd_copy_text("b.py", 4);
            rd_buf_format(&job->neighbours[0].text, "%ssettings = decode_settings(file)%s",
                          open_file, merge);
            job->n_neighbours = 1;
            job->answers = 3;
        }
        rd_worker_push(w, job);
    }
}

static void take_real(rd_worker *w, rd_event **out)
{
    rd_event *ev = next_done(w);

    cr_assert_eq(ev->status, RD_OK, "%s", ev->err.text);
    out[ev->job->id] = ev;
}

Test(worker, the_engine_answers_jobs_that_give_way_as_it_answers_them_alone, .timeout = 120)
{
    rd_worker *w = rd_worker_new(&(rd_worker_options){
        .runner = &rd_local_runner, .engine = { .threads = 1 }, .wake = wake });
    rd_event *alone[REAL], *mixed[REAL];

    for (int i = 0; i < REAL; i++) {
        push_real_jobs(w, i, i + 1);
        take_real(w, alone);
    }
    push_real_jobs(w, 0, REAL);
    for (int i = 0; i < REAL; i++) take_real(w, mixed);

    cr_assert_str_eq(alone[3]->answers[0].text.data, "settings = decode_settings(file)");
    cr_assert_gt(alone[3]->n_answers, 1);
    cr_assert_eq(alone[0]->scores[alone[0]->n_scores - 1].end, alone[0]->job->draft.len);
    for (int i = 0; i < REAL; i++) {
        cr_assert_eq(alone[i]->n_answers, mixed[i]->n_answers);
        for (int k = 0; k < alone[i]->n_answers; k++)
            cr_assert_str_eq(alone[i]->answers[k].text.data, mixed[i]->answers[k].text.data);
        cr_assert_eq(alone[i]->n_scores, mixed[i]->n_scores);
        for (int k = 0; k < alone[i]->n_scores; k++)
            cr_assert_float_eq(alone[i]->scores[k].p, mixed[i]->scores[k].p, 1e-5);
        drop(alone[i]);
        drop(mixed[i]);
    }
    rd_worker_close(w);
}

/* ---- the end, and a storm ---- */

/* ---- what is kept ---- */

typedef struct kept_world {
    rd_keeper *keeper;
    rd_worker *worker;
} kept_world;

static kept_world open_kept(const char *model)
{
    kept_world k = { .keeper =
                         rd_keeper_new(&(rd_keeper_options){ .dir = "/made/up", .quiet_ms = 1 }) };

    k.worker = rd_worker_new(&(rd_worker_options){ .runner = &rd_script_runner,
                                                   .engine = { .model = model },
                                                   .keeper = k.keeper,
                                                   .wake = wake });
    return k;
}

static void close_kept(kept_world *k)
{
    rd_worker_close(k->worker);
    rd_keeper_close(k->keeper);
}

static int starts(void)
{
    return atomic_load(&rd_script_counted.starts);
}

static rd_job *kept_job(uint64_t id, const char *source, const char *prefix)
{
    rd_job *job = new_job(id, RD_LANE_TYPING, RD_JOB_INFILL, prefix);

    job->source = rd_copy_text(source, strlen(source));
    return job;
}

Test(worker, gives_an_answer_of_before_without_a_run, .timeout = 60)
{
    kept_world k = open_kept("@named");

    rd_worker_push(k.worker, kept_job(1, "/a.c", ONE));
    expect_done(k.worker, 1, RD_OK, "one");
    cr_assert_eq(starts(), 1);
    rd_worker_push(k.worker, kept_job(2, "/a.c", ONE));
    rd_event *ev = next_done(k.worker);

    cr_assert_eq(ev->job->id, 2);
    cr_assert_eq(ev->forwards, 0);
    cr_assert_eq(ev->reason, RD_REASON_DONE);
    cr_assert_str_eq(ev->answers[0].text.data, "one");
    cr_assert_eq(starts(), 1);
    drop(ev);
    close_kept(&k);
}

Test(worker, runs_anew_for_whoever_may_not_have_it, .timeout = 60)
{
    kept_world k = open_kept("@named");
    rd_job *fresh = kept_job(2, "/a.c", ONE), *other = kept_job(3, "/a.c", ONE),
           *apart = kept_job(4, "/a.c", ONE);

    rd_worker_push(k.worker, kept_job(1, "/a.c", ONE));
    expect_done(k.worker, 1, RD_OK, "one");
    fresh->fresh = true;
    other->realm = 7;
    apart->unstored = true;
    rd_worker_push(k.worker, fresh);
    expect_done(k.worker, 2, RD_OK, "one");
    rd_worker_push(k.worker, other);
    expect_done(k.worker, 3, RD_OK, "one");
    rd_worker_push(k.worker, apart);
    expect_done(k.worker, 4, RD_OK, "one");
    cr_assert_eq(starts(), 4);
    close_kept(&k);
}

Test(worker, keeps_nothing_of_a_model_without_a_name_or_of_a_run_that_was_cut_short, .timeout = 60)
{
    kept_world k = open_kept(NULL);

    rd_worker_push(k.worker, kept_job(1, "/a.c", ONE));
    expect_done(k.worker, 1, RD_OK, "one");
    rd_worker_push(k.worker, kept_job(2, "/a.c", ONE));
    expect_done(k.worker, 2, RD_OK, "one");
    cr_assert_eq(starts(), 2);
    close_kept(&k);
}

Test(worker, forgets_what_was_made_for_a_file, .timeout = 60)
{
    kept_world k = open_kept("@named");

    rd_worker_push(k.worker, kept_job(1, "/a.c", ONE));
    expect_done(k.worker, 1, RD_OK, "one");
    rd_worker_push(k.worker, kept_job(2, "/b.c", ONE " "));
    expect_done(k.worker, 2, RD_OK, "one");
    uint64_t number = rd_worker_forget(k.worker, "/a.c");
    double start = rd_now_ms();

    while (!rd_worker_has_forgotten(k.worker, number)) {
        cr_assert_lt(rd_now_ms() - start, PATIENCE_MS);
        usleep(100);
    }
    rd_worker_push(k.worker, kept_job(3, "/a.c", ONE));
    expect_done(k.worker, 3, RD_OK, "one");
    cr_assert_eq(starts(), 3, "an answer was left");
    rd_worker_push(k.worker, kept_job(4, "/b.c", ONE " "));
    expect_done(k.worker, 4, RD_OK, "one");
    cr_assert_eq(starts(), 3, "another file's answer went too");
    close_kept(&k);
}

Test(worker, begins_a_run_again_whose_file_is_forgotten_and_keeps_nothing_of_it, .timeout = 60)
{
    kept_world k = open_kept("@named");

    rd_worker_push(k.worker, kept_job(1, "/a.c", "@steps=40 @us=2000 " ONE));
    wait_for_steps(3);
    uint64_t number = rd_worker_forget(k.worker, "/a.c");

    expect_done(k.worker, 1, RD_OK, "one");
    cr_assert(rd_worker_has_forgotten(k.worker, number));
    cr_assert_eq(starts(), 2);
    rd_worker_push(k.worker, kept_job(2, "/a.c", "@steps=40 @us=2000 " ONE));
    expect_done(k.worker, 2, RD_OK, "one");
    cr_assert_eq(starts(), 3, "the answer was kept");
    close_kept(&k);
}

Test(worker, closes_with_jobs_running_waiting_and_done, .timeout = 60)
{
    rd_worker *w = open_worker(NULL);

    rd_worker_push(w, new_job(1, RD_LANE_TYPING, RD_JOB_INFILL, ""));
    while (rd_worker_jobs(w) > 0) usleep(1000);
    rd_worker_push(w, new_job(2, RD_LANE_IDLE, RD_JOB_INFILL, "@steps=9 @us=20000 "));
    wait_for_steps(3);
    rd_worker_push(w, new_job(3, RD_LANE_TYPING, RD_JOB_INFILL, "@us=10000000 "));
    rd_worker_push(w, new_job(4, RD_LANE_TYPING, RD_JOB_INFILL, ""));
    wait_for_steps(4);
    double start = rd_now_ms();

    rd_worker_close(w);
    cr_assert_lt(rd_now_ms() - start, 5000.0);
    cr_assert_eq(atomic_load(&rd_script_counted.live), 0);
    cr_assert_eq(atomic_load(&rd_script_counted.open), 0);
    rd_worker_close(NULL);
}

Test(worker, names_what_runs, .timeout = 60)
{
    rd_worker *w = open_worker(NULL);
    rd_job *job = new_job(1, RD_LANE_ASKED, RD_JOB_REWRITE, "@steps=9 @us=500000 ");

    cr_assert_str_eq(rd_worker_now(w), "");
    rd_worker_push(w, job);
    wait_for_steps(1);
    cr_assert_str_eq(rd_worker_now(w), "rewrite step 1");
    wait_for_steps(2);
    cr_assert_str_eq(rd_worker_now(w), "rewrite step 2");
    rd_worker_cancel(w, job);
    expect_done(w, 1, RD_CANCELLED, NULL);
    cr_assert_str_eq(rd_worker_now(w), "");
    rd_worker_close(w);
}

enum { STORM = 600, OPEN_MOST = 20 };

typedef struct storm {
    rd_job *open[OPEN_MOST]; /* pushed and not given back */
    int n, done[STORM];
} storm;

static void take_all(storm *s, rd_worker *w)
{
    for (rd_event *ev; (ev = rd_worker_take(w)); drop(ev)) {
        int at = 0;

        if (!ev->done) continue;
        while (at < s->n && s->open[at] != ev->job) at++;
        cr_assert_lt(at, s->n, "a job that is not open");
        s->open[at] = s->open[--s->n];
        s->done[ev->job->id]++;
        /* A job may be cancelled after its end, before it is taken. */
        cr_assert(ev->status == RD_CANCELLED
                      ? rd_cancelled(&ev->job->cancel)
                      : ev->status == RD_OK || ev->status == RD_DEVICE || ev->status == RD_INVALID,
                  "%d: %s", ev->status, ev->err.text);
    }
}

static rd_job *storm_job(rd_random *r, uint64_t id)
{
    static const char *const prefixes[] = { "",       "@steps=3 ", "@us=300 @steps=4 ",
                                            "@fail ", "@device ",  "@steps=5 @us=100 " };
    rd_job *job = new_job(id, (rd_lane)rd_random_below(r, RD_LANES),
                          (rd_job_kind)rd_random_below(r, 4), prefixes[rd_random_below(r, 6)]);

    rd_buf_text(&job->draft, "a bad draft");
    job->watch = rd_random_below(r, 2);
    job->answers = (int)rd_random_below(r, 4);
    job->max_ms = rd_random_below(r, 4) ? 0 : 1;
    return job;
}

Test(worker, gives_each_job_of_a_storm_back_once, .timeout = 120)
{
    rd_worker *w = open_worker(NULL);
    rd_random r = rd_random_seed(5);
    storm s = { 0 };

    for (uint64_t id = 0; id < STORM; id++) {
        while (s.n == OPEN_MOST) {
            take_all(&s, w);
            usleep(50);
        }
        rd_worker_push(w, s.open[s.n++] = storm_job(&r, id));
        if (rd_random_below(&r, 2)) rd_worker_cancel(w, s.open[rd_random_below(&r, (uint32_t)s.n)]);
        if (rd_random_below(&r, 40) == 0) rd_worker_unload(w);
        if (rd_random_below(&r, 40) == 0) rd_worker_load(w);
        if (rd_random_below(&r, 3) == 0) take_all(&s, w);
    }
    for (double start = rd_now_ms(); s.n > 0; usleep(100)) {
        take_all(&s, w);
        cr_assert_lt(rd_now_ms() - start, PATIENCE_MS, "%d jobs are left", s.n);
    }
    cr_assert_eq(rd_worker_jobs(w), 0);
    cr_assert_null(rd_worker_take(w));
    for (int i = 0; i < STORM; i++) cr_assert_eq(s.done[i], 1, "job %d: %d times", i, s.done[i]);
    cr_assert_eq(atomic_load(&rd_script_counted.live), 0);
    rd_worker_close(w);
    cr_assert_eq(atomic_load(&rd_script_counted.open), 0);
}
