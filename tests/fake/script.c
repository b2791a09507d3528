/* script.c - see script.h. */
#include "tests/fake/script.h"

#include "core/base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SLICE_US = 200, TEXTS_MOST = 8 };

rd_script_counts rd_script_counted;

typedef struct script {
    bool follows, named;
} script;

typedef struct script_run {
    rd_buf text[TEXTS_MOST]; /* the answer, then the others */
    int n_texts;
    int steps, us;
    float confidence;
    rd_status fails;
    const rd_cancel *cancel;
    rd_mark *marks;
    rd_step last;
    int step;
} script_run;

/* ---- markers ---- */

/* What stands behind the last `word` of a text; NULL: it is not there. */
static const char *last_of(const char *text, size_t n, const char *word)
{
    size_t w = strlen(word);

    for (size_t at = n; at >= w; at--)
        if (!memcmp(text + at - w, word, w)) return text + at;
    return NULL;
}

static double number_of(const char *text, size_t n, const char *word, double otherwise)
{
    const char *at = last_of(text, n, word);
    char digits[24];

    if (!at) return otherwise;
    snprintf(digits, sizeof digits, "%.*s", (int)(text + n - at), at);
    return strtod(digits, NULL);
}

/* ---- texts ---- */

static bool is_word(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           (unsigned char)c >= 0x80;
}

static size_t token_at(const char *text, size_t n, size_t at)
{
    size_t end = at + 1;

    while (is_word(text[at]) && end < n && is_word(text[end])) end++;
    return end - at;
}

static bool is_bad(const char *token, size_t n)
{
    return n == 3 && !memcmp(token, "bad", 3);
}

static void add_text(script_run *r, const char *text, size_t n)
{
    for (int i = 0; i < r->n_texts; i++)
        if (r->text[i].len == n && (n == 0 || !memcmp(r->text[i].data, text, n))) return;
    if (r->n_texts < TEXTS_MOST) rd_buf_append(&r->text[r->n_texts++], text, n);
}

/* What stands between guillemets, the last pair first. */
static void add_quoted(script_run *r, const char *text, size_t n)
{
    const char *from;

    for (; (from = last_of(text, n, "\xc2\xab")); n = (size_t)(from - 2 - text)) {
        const char *end = from;

        while (end + 2 <= text + n && memcmp(end, "\xc2\xbb", 2) != 0) end++;
        if (end + 2 <= text + n) add_text(r, from, (size_t)(end - from));
    }
}

static void rewrite(rd_buf *out, const char *text, size_t n)
{
    for (size_t at = 0, k; at < n; at += k) {
        k = token_at(text, n, at);
        if (is_bad(text + at, k))
            rd_buf_text(out, "good");
        else
            rd_buf_append(out, text + at, k);
    }
}

/* ---- the runner ---- */

/* In slices, so that a cancelled one is soon over. */
static rd_status pass_time(int us, const rd_cancel *cancel, rd_error *err)
{
    for (; us > 0 && !rd_cancelled(cancel); us -= SLICE_US)
        usleep((useconds_t)(us < SLICE_US ? us : SLICE_US));
    return rd_cancelled(cancel) ? rd_fail(err, RD_CANCELLED, "cancelled") : RD_OK;
}

static rd_status script_open(const rd_engine_options *o, void **self, rd_error *err)
{
    const char *name = o->model ? o->model : "";
    size_t n = strlen(name);
    int tried = atomic_fetch_add(&rd_script_counted.opens, 1);
    bool fails = last_of(name, n, "@fail") != NULL;

    pass_time((int)number_of(name, n, "@us=", 0.0), NULL, err);
    if (fails && (!strstr(name, "@fail=") || tried < (int)number_of(name, n, "@fail=", 0.0)))
        return rd_fail(err, RD_IO, "%s: the script says that it cannot be opened", name);
    script *s = rd_alloc0(sizeof *s);

    s->follows = strstr(name, "@follows") != NULL;
    s->named = strstr(name, "@named") != NULL;
    atomic_fetch_add(&rd_script_counted.open, 1);
    *self = s;
    return RD_OK;
}

static void script_close(void *self)
{
    if (!self) return;
    atomic_fetch_sub(&rd_script_counted.open, 1);
    free(self);
}

static void script_about(void *self, rd_runner_about *out)
{
    *out = (rd_runner_about){ .text = "script, 1 thread, 0 MB",
                              .gate = RD_SCRIPT_GATE,
                              .follows_instructions = ((script *)self)->follows,
                              .identity = { { ((script *)self)->named } } };
}

static rd_status script_start(void *self, const rd_request *rq, void **run, rd_error *err)
{
    (void)self;
    (void)err;
    const char *text = rq->prefix_bytes ? rq->prefix : "";
    size_t n = rq->prefix_bytes;
    script_run *r = rd_alloc0(sizeof *r);

    r->cancel = rq->cancel;
    r->steps = (int)number_of(text, n, "@steps=", 2.0);
    r->us = (int)number_of(text, n, "@us=", 0.0);
    r->confidence = (float)number_of(text, n, "@conf=", 0.9);
    r->fails = last_of(text, n, "@device") ? RD_DEVICE
               : last_of(text, n, "@fail") ? RD_INVALID
                                           : RD_OK;
    if (rq->task == RD_REWRITE) {
        rewrite(&r->text[r->n_texts++], rq->draft, rq->draft_bytes);
    } else {
        add_quoted(r, text, n);
        if (r->n_texts == 0) add_quoted(r, rq->suffix, rq->suffix_bytes);
        if (r->n_texts == 0) add_text(r, "x", 1);
    }
    r->marks = rd_alloc_array(r->text[0].len + 1, sizeof *r->marks);
    int live = atomic_fetch_add(&rd_script_counted.live, 1) + 1;

    if (live > atomic_load(&rd_script_counted.most)) atomic_store(&rd_script_counted.most, live);
    atomic_fetch_add(&rd_script_counted.starts, 1);
    *run = r;
    return RD_OK;
}

/* The tokens that begin before `shown`, and masks for the others. */
static void show(script_run *r, size_t shown, bool done, rd_reason reason)
{
    const char *text = r->text[0].data ? r->text[0].data : "";
    size_t n = r->text[0].len, bytes = 0;

    r->last = (rd_step){ .text = text, .marks = r->marks, .done = done, .reason = reason };
    r->last.confidence = r->confidence;
    r->last.forwards = r->step;
    for (size_t at = 0, k; at < n; at += k) {
        rd_mark *m = &r->marks[r->last.n_marks];

        k = token_at(text, n, at);
        if (at >= shown && done) break;
        r->last.n_marks++;
        *m = (rd_mark){ .state = RD_MARK_MASK };
        if (at >= shown) continue;
        *m = (rd_mark){ .text = text + at, .bytes = k, .prob = 0.99f };
        m->state = done ? RD_MARK_SETTLED : RD_MARK_DRAFT;
        bytes += k;
        r->last.tokens++;
    }
    r->last.bytes = bytes;
}

static rd_status script_step(void *run, rd_step *out, rd_error *err)
{
    script_run *r = run;
    size_t n = r->text[0].len;

    if (!r->last.done) {
        atomic_fetch_add(&rd_script_counted.steps, 1);
        if (pass_time(r->us, r->cancel, err)) return RD_CANCELLED;
        if (r->fails) return rd_fail(err, r->fails, "the script says that this step fails");
        r->step++;
        bool done = r->step >= r->steps;

        show(r, done ? n : n * (size_t)r->step / (size_t)r->steps, done,
             n ? RD_REASON_DONE : RD_REASON_EMPTY);
    }
    *out = r->last;
    return RD_OK;
}

static void script_end(void *run, rd_step *out)
{
    script_run *r = run;

    if (!r->last.done) {
        show(r, r->last.bytes, true, RD_REASON_TIME);
        r->text[0].len = r->last.bytes;
    }
    r->last.reason = RD_REASON_TIME;
    *out = r->last;
}

static bool script_text_at(void *run, int i, rd_buf *text, float *confidence)
{
    const script_run *r = run;

    if (!r->last.done || i >= r->n_texts) return false;
    *confidence = r->confidence / (float)(1 << i);
    if (r->text[i].len) rd_buf_append(text, r->text[i].data, r->text[i].len);
    return true;
}

static void script_finish(void *run)
{
    script_run *r = run;

    if (!r) return;
    for (int i = 0; i < r->n_texts; i++) rd_buf_clear(&r->text[i]);
    free(r->marks);
    free(r);
    atomic_fetch_sub(&rd_script_counted.live, 1);
}

static rd_status script_score(void *self, const rd_score_request *rq, rd_score **out, int *count,
                              rd_error *err)
{
    (void)self;
    rd_score *list = rd_alloc_array(rq->bytes + 1, sizeof *list);
    int n = 0;

    atomic_fetch_add(&rd_script_counted.scores, 1);
    rd_status status = pass_time((int)number_of(rq->text, rq->bytes, "@us=", 0.0), rq->cancel, err);

    if (!status && last_of(rq->text, rq->bytes, "@device"))
        status = rd_fail(err, RD_DEVICE, "the script says that this score fails");
    for (size_t at = 0, k; at < rq->bytes && !status; at += k) {
        const char *token = rq->text + at;

        k = token_at(rq->text, rq->bytes, at);
        if (at + k <= rq->from || at >= rq->to) continue;
        bool bad = is_bad(token, k);
        rd_score *s = &list[n++];

        *s = (rd_score){ .start = at, .end = at + k, .p = bad ? 0.01f : 0.99f, .p_best = 0.99f };
        snprintf(s->best, sizeof s->best, "%.*s", bad ? 4 : (int)k, bad ? "good" : token);
    }
    if (status) {
        free(list);
        return status;
    }
    *out = list;
    *count = n;
    return RD_OK;
}

const rd_runner rd_script_runner = { .name = "script",
                                     .open = script_open,
                                     .close = script_close,
                                     .about = script_about,
                                     .start = script_start,
                                     .step = script_step,
                                     .end = script_end,
                                     .text_at = script_text_at,
                                     .finish = script_finish,
                                     .score = script_score };
