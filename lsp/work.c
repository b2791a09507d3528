/* work.c - see work.h. */
#include "lsp/work.h"

#include "core/base/clock.h"
#include "core/base/memory.h"

#include <stdlib.h>

enum { PIECE = 512 }; /* bytes scored at once: some twenty passes of the model */

static const char *text_of(const rd_buf *b)
{
    return b->data ? b->data : "";
}

/* ---- runs ---- */

static rd_status start(rd_work *k, const rd_runner *r, void *engine, rd_error *err)
{
    const rd_job *job = k->job;
    rd_neighbour neighbours[RD_NEIGHBOURS_MOST];
    rd_request rq = { .task = job->kind == RD_JOB_REWRITE ? RD_REWRITE : RD_INFILL,
                      .language = job->language,
                      .prefix = text_of(&job->prefix),
                      .prefix_bytes = job->prefix.len,
                      .suffix = text_of(&job->suffix),
                      .suffix_bytes = job->suffix.len,
                      .draft = text_of(&job->draft),
                      .draft_bytes = job->draft.len,
                      .instruction = job->instruction.data,
                      .instruction_bytes = job->instruction.len,
                      .neighbours = neighbours,
                      .n_neighbours = job->n_neighbours,
                      .answers = job->answers,
                      .max_tokens = job->max_tokens,
                      .quality = job->quality,
                      .realm = job->realm,
                      .source = job->source,
                      .unstored = k->unstored || job->unstored,
                      .cancel = &job->cancel };

    for (int i = 0; i < job->n_neighbours; i++)
        neighbours[i] = (rd_neighbour){ .name = job->neighbours[i].name,
                                        .text = text_of(&job->neighbours[i].text),
                                        .bytes = job->neighbours[i].text.len };
    return r->start(engine, &rq, &k->run, err);
}

static rd_status step_run(rd_work *k, const rd_runner *r, void *engine, rd_error *err)
{
    if (!k->run && start(k, r, engine, err)) return err->status;
    if (r->step(k->run, &k->last, err)) return err->status;
    k->done = k->last.done || k->job->kind == RD_JOB_WARM;
    return RD_OK;
}

/* ---- scores ---- */

/* Places from the draft's beginning on; a token that two pieces share is the earlier one's. */
static void keep_scores(rd_work *k, const rd_score *found, int n)
{
    size_t from = k->job->prefix.len, to = from + k->job->draft.len;

    for (int i = 0; i < n; i++) {
        rd_score s = found[i];

        s.start = s.start < from ? 0 : s.start - from;
        s.end = (s.end < to ? s.end : to) - from;
        if (k->n_scores > 0 && s.start < k->scores[k->n_scores - 1].end) continue;
        if (k->n_scores == k->cap) {
            k->cap = k->cap ? 2 * k->cap : 64;
            k->scores = rd_resize(k->scores, (size_t)k->cap, sizeof *k->scores);
        }
        k->scores[k->n_scores++] = s;
    }
}

static rd_status step_score(rd_work *k, const rd_runner *r, void *engine, rd_error *err)
{
    const rd_job *job = k->job;
    size_t left = job->draft.len - k->scored, piece = left < PIECE ? left : PIECE;
    rd_score *found = NULL;
    int n = 0;

    if (!k->text.data) {
        rd_buf_append(&k->text, job->prefix.data, job->prefix.len);
        rd_buf_append(&k->text, job->draft.data, job->draft.len);
        rd_buf_append(&k->text, job->suffix.data, job->suffix.len);
    }
    rd_score_request rq = { .language = job->language,
                            .text = k->text.data,
                            .bytes = k->text.len,
                            .from = job->prefix.len + k->scored,
                            .to = job->prefix.len + k->scored + piece,
                            .cancel = &job->cancel };

    if (piece > 0 && r->score(engine, &rq, &found, &n, err)) return err->status;
    keep_scores(k, found, n);
    free(found);
    k->scored += piece;
    k->done = k->scored == job->draft.len;
    return RD_OK;
}

/* ---- steps ---- */

rd_status rd_work_step(rd_work *k, const rd_runner *r, void *engine, rd_error *err)
{
    if (k->began_ms <= 0.0) k->began_ms = rd_now_ms();
    rd_status status =
        k->job->kind == RD_JOB_SCORE ? step_score(k, r, engine, err) : step_run(k, r, engine, err);

    if (!status) k->step++;
    return status;
}

bool rd_work_is_late(const rd_work *k)
{
    bool something = k->run || (k->job->kind == RD_JOB_SCORE && k->step > 0);

    return something && k->job->max_ms > 0 && rd_now_ms() - k->began_ms >= k->job->max_ms;
}

void rd_work_end(rd_work *k, const rd_runner *r)
{
    if (k->run)
        r->end(k->run, &k->last);
    else
        k->last.reason = RD_REASON_TIME;
    k->done = true;
}

void rd_work_give_up(rd_work *k, const rd_runner *r)
{
    if (!k->run) return;
    r->finish(k->run);
    k->run = NULL;
    k->last = (rd_step){ 0 };
}

void rd_work_clear(rd_work *k)
{
    rd_buf_clear(&k->text);
    free(k->scores);
}

/* ---- events ---- */

static void fill_draft(const rd_work *k, rd_event *ev)
{
    const rd_step *s = &k->last;

    rd_buf_append(&ev->answers[0].text, s->text, s->bytes);
    ev->answers[0].confidence = s->confidence;
    ev->n_answers = 1;
    ev->pieces = rd_alloc_array((size_t)s->n_marks + 1, sizeof *ev->pieces);
    ev->n_pieces = s->n_marks;
    for (int i = 0; i < s->n_marks; i++)
        ev->pieces[i] = (rd_piece){ .bytes = s->marks[i].bytes,
                                    .prob = s->marks[i].prob,
                                    .state = s->marks[i].state };
}

static void fill_answers(const rd_work *k, const rd_runner *r, rd_event *ev)
{
    int most = k->job->answers > 1 ? k->job->answers : 1;

    if (most > RD_ANSWERS_MOST) most = RD_ANSWERS_MOST;
    for (int i = 0; i < most; i++) {
        rd_answer *a = &ev->answers[i];

        if (!r->text_at(k->run, i, &a->text, &a->confidence)) break;
        ev->n_answers++;
    }
}

void rd_work_fill(rd_work *k, const rd_runner *r, rd_event *ev)
{
    if (k->job->kind == RD_JOB_SCORE) {
        ev->scores = k->scores;
        ev->n_scores = k->n_scores;
        k->scores = NULL;
    } else if (!k->done) {
        fill_draft(k, ev);
    } else if (k->job->kind != RD_JOB_WARM) {
        fill_answers(k, r, ev);
    }
    ev->reason = k->last.reason;
    ev->tokens = k->last.tokens;
    ev->prefill_tokens = k->last.prefill_tokens;
    ev->forwards = k->last.forwards;
    ev->step = k->step;
    ev->ms = rd_now_ms() - k->began_ms;
}
