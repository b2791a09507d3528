/* test_answer.c - names and bytes of answers that are kept. */
#include "lsp/answer.h"

#include "core/base/memory.h"
#include "core/decode/decoder.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static rd_job *a_job(void)
{
    rd_job *job = rd_job_new(1, 1, RD_LANE_TYPING, RD_JOB_INFILL);

    job->language = rd_copy_text("c", 1);
    rd_buf_text(&job->prefix, "int a = ");
    rd_buf_text(&job->suffix, ";\n");
    job->n_neighbours = 1;
    job->neighbours[0].name = rd_copy_text("b.c", 3);
    rd_buf_text(&job->neighbours[0].text, "int secret_of_b = 42;\nint x;\n");
    return job;
}

static rd_event an_event(rd_job *job, const char *first, const char *second)
{
    rd_event ev = { .job = job, .done = true, .tokens = 7, .ms = 12.5 };

    rd_buf_text(&ev.answers[ev.n_answers].text, first);
    ev.answers[ev.n_answers++].confidence = 0.75f;
    if (!second) return ev;
    rd_buf_text(&ev.answers[ev.n_answers].text, second);
    ev.answers[ev.n_answers++].confidence = 0.25f;
    return ev;
}

static void clear(rd_event *ev)
{
    for (int i = 0; i < ev->n_answers; i++) rd_buf_clear(&ev->answers[i].text);
    *ev = (rd_event){ 0 };
}

/* The bytes of an event with two answers. */
static rd_buf some_bytes(void)
{
    rd_job *job = a_job();
    rd_event ev = an_event(job, "one", "two\n");
    rd_buf out = { 0 };

    cr_assert(rd_answer_write(&ev, &out));
    clear(&ev);
    rd_job_free(job);
    return out;
}

static bool reads(const rd_buf *b)
{
    rd_event ev = { 0 };
    /* Exactly so many bytes, so that a sanitizer sees a read past them. */
    char *exact = b->len ? memcpy(malloc(b->len), b->data, b->len) : NULL;
    bool read = rd_answer_read(exact ? exact : "", b->len, &ev, NULL);

    free(exact);
    cr_assert(read || ev.n_answers == 0, "something was left in the event");
    clear(&ev);
    return read;
}

/* ---- bytes ---- */

Test(answer, comes_back_as_it_was)
{
    rd_buf bytes = some_bytes();
    rd_event ev = { 0 };
    double ms = 0;

    cr_assert(rd_answer_read(bytes.data, bytes.len, &ev, &ms));
    cr_assert_eq(ev.n_answers, 2);
    cr_assert_str_eq(ev.answers[0].text.data, "one");
    cr_assert_str_eq(ev.answers[1].text.data, "two\n");
    cr_assert_float_eq(ev.answers[0].confidence, 0.75, 1e-6);
    cr_assert_float_eq(ev.answers[1].confidence, 0.25, 1e-6);
    cr_assert_eq(ev.tokens, 7);
    cr_assert_eq(ev.reason, RD_REASON_DONE);
    cr_assert_float_eq(ms, 12.5, 1e-6);
    clear(&ev);
    rd_buf_clear(&bytes);
}

Test(answer, of_no_text_comes_back_too)
{
    rd_job *job = a_job();
    rd_event ev = { .job = job, .done = true, .reason = RD_REASON_EMPTY }, back = { 0 };
    rd_buf bytes = { 0 };

    cr_assert(rd_answer_write(&ev, &bytes));
    cr_assert(rd_answer_read(bytes.data, bytes.len, &back, NULL));
    cr_assert_eq(back.n_answers, 0);
    cr_assert_eq(back.reason, RD_REASON_EMPTY);
    rd_buf_clear(&bytes);
    rd_job_free(job);
}

Test(answer, that_is_cut_anywhere_is_none)
{
    rd_buf bytes = some_bytes();

    cr_assert(reads(&bytes));
    while (bytes.len > 0) {
        bytes.len--;
        cr_assert_not(reads(&bytes), "%zu bytes were taken", bytes.len);
    }
    rd_buf_clear(&bytes);
}

Test(answer, with_bytes_behind_is_none)
{
    rd_buf bytes = some_bytes();

    rd_buf_append(&bytes, "", 1);
    cr_assert_not(reads(&bytes));
    rd_buf_clear(&bytes);
}

/* A byte at a place, and whether what comes out is still an answer. */
static const struct {
    size_t at;
    int value;
    bool good;
} changes[] = {
    { 0, 2, false },     /* another version */
    { 1, 2, false },     /* out of time */
    { 1, 4, false },     /* no reason */
    { 1, 1, true },      /* the limit */
    { 2, 1, false },     /* fewer answers than there are */
    { 2, 3, false },     /* more */
    { 2, 6, false },     /* more than there may be */
    { 3, 1, false },     /* what must be 0 */
    { 7, 0x80, false },  /* tokens below 0 */
    { 11, 0xc1, false }, /* a time below 0 */
    { 15, 0x40, false }, /* a confidence above 1 */
    { 15, 0xbf, false }, /* below 0 */
    { 15, 0x7f, false }, /* huge */
    { 19, 0x7f, false }, /* a text of 2 GB */
    { 16, 4, false },    /* one that eats into the next */
};

Test(answer, with_a_wrong_number_is_none)
{
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        rd_buf bytes = some_bytes();

        bytes.data[changes[i].at] = (char)changes[i].value;
        cr_expect_eq(reads(&bytes), changes[i].good, "byte %zu as %d", changes[i].at,
                     changes[i].value);
        rd_buf_clear(&bytes);
    }
}

Test(answer, with_a_confidence_that_is_no_number_is_none)
{
    rd_buf bytes = some_bytes();
    float none = NAN;

    memcpy(bytes.data + 12, &none, sizeof none);
    cr_assert_not(reads(&bytes));
    rd_buf_clear(&bytes);
}

/* ---- what is kept ---- */

static bool writes(const rd_event *ev)
{
    rd_buf out = { 0 };
    bool wrote = rd_answer_write(ev, &out);

    cr_assert_eq(wrote, out.len > 0);
    rd_buf_clear(&out);
    return wrote;
}

Test(answer, that_ran_out_of_time_or_failed_is_not_kept)
{
    rd_job *job = a_job();
    rd_event ev = an_event(job, "one", NULL);

    cr_assert(writes(&ev));
    ev.reason = RD_REASON_TIME;
    cr_assert_not(writes(&ev));
    ev.reason = RD_REASON_LIMIT;
    cr_assert(writes(&ev));
    ev.status = RD_CANCELLED;
    cr_assert_not(writes(&ev));
    ev.status = RD_OK;
    ev.done = false;
    cr_assert_not(writes(&ev));
    clear(&ev);
    rd_job_free(job);
}

Test(answer, that_holds_a_line_of_another_file_is_not_kept)
{
    rd_job *job = a_job();
    rd_event copied = an_event(job, "1;\n    int secret_of_b = 42;\r\n", NULL);
    rd_event own = an_event(job, "int a = ;\nint x;\n", NULL);

    cr_assert_not(writes(&copied));
    cr_assert(writes(&own), "short lines and those of the file itself say nothing");
    rd_buf_text(&job->suffix, "int secret_of_b = 42;\n");
    cr_assert(writes(&copied), "the file has that line too");
    clear(&copied);
    clear(&own);
    rd_job_free(job);
}

Test(answer, that_is_too_large_is_not_kept)
{
    rd_job *job = a_job();
    rd_event ev = an_event(job, "", NULL);
    char *much = rd_alloc0(RD_MOST_ANSWER_BYTES);

    memset(much, 'a', RD_MOST_ANSWER_BYTES);
    rd_buf_append(&ev.answers[0].text, much, RD_MOST_ANSWER_BYTES - 20);
    cr_assert(writes(&ev));
    rd_buf_append(&ev.answers[0].text, much, 1);
    cr_assert_not(writes(&ev));
    free(much);
    clear(&ev);
    rd_job_free(job);
}

Test(answer, of_a_score_or_of_what_may_not_be_stored_is_not_kept)
{
    rd_job *job = a_job();

    cr_assert(rd_answer_is_kept(job));
    job->kind = RD_JOB_REWRITE;
    cr_assert(rd_answer_is_kept(job));
    job->unstored = true;
    cr_assert_not(rd_answer_is_kept(job));
    job->unstored = false;
    job->kind = RD_JOB_SCORE;
    cr_assert_not(rd_answer_is_kept(job));
    job->kind = RD_JOB_WARM;
    cr_assert_not(rd_answer_is_kept(job));
    rd_job_free(job);
}

/* ---- names ---- */

typedef void (*change)(rd_job *job);

static void kind(rd_job *j)
{
    j->kind = RD_JOB_REWRITE;
}
static void realm(rd_job *j)
{
    j->realm = 1;
}
static void answers(rd_job *j)
{
    j->answers = 3;
}
static void tokens(rd_job *j)
{
    j->max_tokens = 9;
}
static void quality(rd_job *j)
{
    j->quality = 0.5f;
}
static void language(rd_job *j)
{
    j->language[0] = 'd';
}
static void prefix(rd_job *j)
{
    rd_buf_text(&j->prefix, " ");
}
static void suffix(rd_job *j)
{
    rd_buf_text(&j->suffix, " ");
}
static void draft(rd_job *j)
{
    rd_buf_text(&j->draft, "x");
}
static void instruction(rd_job *j)
{
    rd_buf_text(&j->instruction, "x");
}
static void neighbour(rd_job *j)
{
    rd_buf_text(&j->neighbours[0].text, "x");
}
static void neighbour_name(rd_job *j)
{
    j->neighbours[0].name[0] = 'c';
}
static void fewer(rd_job *j)
{
    free(j->neighbours[0].name);
    rd_buf_clear(&j->neighbours[0].text);
    j->n_neighbours = 0;
}
static void moved(rd_job *j) /* a byte goes from one side to the other */
{
    j->prefix.len--;
    rd_buf_reset(&j->suffix);
    rd_buf_text(&j->suffix, " ;\n");
}

static rd_key key_with(change c)
{
    rd_job *job = a_job();

    if (c) c(job);
    rd_key key = rd_answer_key(job);

    rd_job_free(job);
    return key;
}

Test(answer, has_a_name_of_everything_that_decides_it)
{
    static const change all[] = { kind,      realm,          answers, tokens, quality,
                                  language,  prefix,         suffix,  draft,  instruction,
                                  neighbour, neighbour_name, fewer,   moved };
    rd_key plain = key_with(NULL), again = key_with(NULL);

    cr_assert(rd_key_equal(&plain, &again));
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        rd_key other = key_with(all[i]);

        cr_expect_not(rd_key_equal(&plain, &other), "change %zu makes no other name", i);
    }
}

Test(answer, of_another_decoder_has_another_name)
{
    rd_job *job = a_job();
    rd_key now = rd_answer_key(job), same = rd_answer_key_of(job, RD_DECODING),
           later = rd_answer_key_of(job, RD_DECODING + 1);

    cr_assert(rd_key_equal(&now, &same));
    cr_assert_not(rd_key_equal(&now, &later), "old answers would be given");
    rd_job_free(job);
}

static void who_asks(rd_job *j)
{
    j->conn = 9;
    j->id = 9;
    j->lane = RD_LANE_ASKED;
    j->max_ms = 9;
    j->watch = j->fresh = true;
    j->answers = 1;
    j->source = rd_copy_text("/a.c", 4);
}

Test(answer, has_the_same_name_whoever_asks)
{
    rd_key plain = key_with(NULL), other = key_with(who_asks);

    cr_assert(rd_key_equal(&plain, &other));
}
