/* local.c - the engine in this process as a runner: runs pass through, and their other texts are put in order. */
#include "core/base/memory.h"
#include "core/runner.h"
#include "core/texts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXTS_MOST = RD_HOLE_CANVASES_MOST + RD_HOLE_DRAFTS_MOST };

typedef struct local_text {
    rd_buf text;
    float confidence;
} local_text;

typedef struct local_run {
    rd_run *run;
    rd_step last;
    local_text other[TEXTS_MOST]; /* the likeliest first; found when somebody asks */
    int n_others;
    bool looked;
} local_run;

static rd_status local_open(const rd_engine_options *o, void **self, rd_error *err)
{
    rd_engine *e = NULL;

    if (rd_engine_open(o, &e, err)) return err->status;
    *self = e;
    return RD_OK;
}

static void local_close(void *self)
{
    rd_engine_close(self);
}

static void local_about(void *self, rd_runner_about *out)
{
    *out = (rd_runner_about){ .gate = rd_engine_gate(self),
                              .follows_instructions = rd_engine_follows_instructions(self),
                              .identity = rd_engine_identity(self) };
    out->may_be_lost = strncmp(rd_engine_describe(self), "cpu ", 4) != 0;
    snprintf(out->text, sizeof out->text, "%s", rd_engine_describe(self));
    snprintf(out->fell_back, sizeof out->fell_back, "%s", rd_engine_fell_back(self));
}

static rd_status local_start(void *self, const rd_request *rq, void **run, rd_error *err)
{
    rd_run *r = NULL;

    if (rd_run_open(self, rq, &r, err)) return err->status;
    local_run *l = rd_alloc0(sizeof *l);

    l->run = r;
    *run = l;
    return RD_OK;
}

static rd_status local_step(void *run, rd_step *out, rd_error *err)
{
    local_run *l = run;

    if (rd_run_step(l->run, &l->last, err)) return err->status;
    *out = l->last;
    return RD_OK;
}

static void local_end(void *run, rd_step *out)
{
    local_run *l = run;

    rd_run_end(l->run, &l->last);
    *out = l->last;
}

/* ---- other texts ---- */

static bool is_text(const rd_buf *a, const char *text, size_t n)
{
    return a->len == n && !memcmp(a->data, text, n);
}

/* Nothing empty, and nothing that is there already. */
static bool is_new(const local_run *l, const rd_buf *text)
{
    if (text->len == 0 || is_text(text, l->last.text, l->last.bytes)) return false;
    for (int i = 0; i < l->n_others; i++)
        if (is_text(text, l->other[i].text.data, l->other[i].text.len)) return false;
    return true;
}

static void put_in_order(local_run *l, local_text t)
{
    int at = l->n_others++;

    for (; at > 0 && l->other[at - 1].confidence < t.confidence; at--)
        l->other[at] = l->other[at - 1];
    l->other[at] = t;
}

static void look(local_run *l)
{
    rd_hole_text is;
    local_text t = { 0 };

    l->looked = true;
    for (int i = 0; l->n_others < TEXTS_MOST && rd_run_text_at(l->run, i, &is, &t.text); i++) {
        t.confidence = is.right;
        if (is_new(l, &t.text)) {
            put_in_order(l, t);
            t.text = (rd_buf){ 0 };
        }
        rd_buf_reset(&t.text);
    }
    rd_buf_clear(&t.text);
}

static bool local_text_at(void *run, int i, rd_buf *text, float *confidence)
{
    local_run *l = run;

    if (!l->last.done) return false;
    if (i == 0) {
        rd_buf_append(text, l->last.text, l->last.bytes);
        *confidence = l->last.confidence;
        return true;
    }
    if (!l->looked) look(l);
    if (i > l->n_others) return false;
    rd_buf_append(text, l->other[i - 1].text.data, l->other[i - 1].text.len);
    *confidence = l->other[i - 1].confidence;
    return true;
}

static void local_finish(void *run)
{
    local_run *l = run;

    if (!l) return;
    for (int i = 0; i < l->n_others; i++) rd_buf_clear(&l->other[i].text);
    rd_run_close(l->run);
    free(l);
}

static rd_status local_score(void *self, const rd_score_request *rq, rd_score **out, int *count,
                             rd_error *err)
{
    return rd_engine_score(self, rq, out, count, err);
}

static void local_forget(void *self, const char *source)
{
    rd_engine_forget(self, source);
}

static void local_stat(void *self, rd_engine_stats *out)
{
    rd_engine_stat(self, out);
}

const rd_runner rd_local_runner = { .name = "local",
                                    .open = local_open,
                                    .close = local_close,
                                    .about = local_about,
                                    .start = local_start,
                                    .step = local_step,
                                    .end = local_end,
                                    .text_at = local_text_at,
                                    .finish = local_finish,
                                    .score = local_score,
                                    .forget = local_forget,
                                    .stat = local_stat };
