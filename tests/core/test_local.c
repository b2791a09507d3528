/* test_local.c - the engine as a runner: other texts, neighbours, several runs at once. */
#include "core/base/memory.h"
#include "core/runner.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

enum { RUNS = 3 };

static const rd_runner *const local = &rd_local_runner;

static void *open_local(void)
{
    rd_engine_options o = { .threads = 1 };
    void *self = NULL;
    rd_error err;

    cr_assert(!local->open(&o, &self, &err), "%s", err.text);
    return self;
}

static rd_request request(const char *prefix, const char *suffix)
{
    return (rd_request){ .task = RD_INFILL,
                         .language = "python",
                         .prefix = prefix,
                         .prefix_bytes = strlen(prefix),
                         .suffix = suffix,
                         .suffix_bytes = strlen(suffix),
                         .quality = 0.5f };
}

static void *start(void *self, rd_request rq)
{
    void *run = NULL;
    rd_error err;

    cr_assert(!local->start(self, &rq, &run, &err), "%s", err.text);
    return run;
}

static rd_step step_to_end(void *run)
{
    rd_step s = { 0 };
    rd_error err;

    while (!s.done) cr_assert(!local->step(run, &s, &err), "%s", err.text);
    return s;
}

/* ---- texts ---- */

static const char before[] =
    "    self.left = left\n    self.right = right\n    self.top = top\n    ",
                  after[] = "\n    self.width = width\n";

static int check_texts(void *run, const rd_step *s)
{
    rd_buf text[12] = { 0 };
    float confidence, last = 1.0f;
    int n = 0;

    for (; n < 12 && local->text_at(run, n, &text[n], &confidence); n++) {
        if (n == 0) {
            cr_expect_eq(text[0].len, s->bytes);
            cr_expect_arr_eq(text[0].data, s->text, s->bytes);
            cr_expect_eq(confidence, s->confidence);
            continue;
        }
        cr_expect_gt(text[n].len, 0);
        cr_expect_null(strstr(text[n].data, "<|"), "%s", text[n].data);
        cr_expect(confidence >= 0.0f && confidence <= 1.0f);
        if (n > 1) cr_expect_leq(confidence, last, "%g after %g", (double)confidence, (double)last);
        last = confidence;
        for (int i = 0; i < n; i++)
            cr_expect_neq(strcmp(text[i].data, text[n].data), 0, "%s", text[n].data);
    }
    cr_assert_lt(n, 12);
    for (int i = 0; i < n; i++) rd_buf_clear(&text[i]);
    return n;
}

/* Over several holes, some of which are answered with the draft and some not. */
Test(local, gives_the_answer_first_and_the_others_by_confidence, .timeout = 120)
{
    static const char *const prefixes[] = { before, "def area(w, h):\n    return ",
                                            "for i in range(10):\n    " };
    static const float qualities[] = { 0.0f, 0.5f, 1.0f };
    void *self = open_local();
    int more = 0;

    for (int i = 0; i < 9; i++) {
        rd_request rq = request(prefixes[i % 3], after);

        rq.quality = qualities[i / 3];
        rq.answers = 5;
        void *run = start(self, rq);
        rd_buf none = { 0 };
        float confidence;

        cr_expect_not(local->text_at(run, 0, &none, &confidence), "it is not done");
        rd_step s = step_to_end(run);

        more += check_texts(run, &s) > 1;
        local->finish(run);
    }
    cr_expect_geq(more, 6, "%d", more);
    local->close(self);
}

Test(local, has_texts_after_the_time_was_over, .timeout = 60)
{
    void *self = open_local();
    rd_request rq = request("def area(w, h):\n    return ", "\n");
    rd_step s;
    rd_error err;

    rq.quality = 1.0f;
    void *run = start(self, rq);

    cr_assert(!local->step(run, &s, &err), "%s", err.text);
    local->end(run, &s);
    cr_assert(s.done);
    cr_assert_eq(s.reason, RD_REASON_TIME);
    cr_assert_geq(check_texts(run, &s), 1);
    local->finish(run);
    local->finish(NULL);
    local->close(self);
    local->close(NULL);
}

Test(local, says_what_it_is, .timeout = 60)
{
    void *self = open_local();
    rd_runner_about about;

    local->about(self, &about);
    cr_assert(about.gate > 0.0f && about.gate < 1.0f);
    cr_assert_not(about.follows_instructions);
    cr_assert(strstr(about.text, "threads"), "%s", about.text);
    local->close(self);
}

Test(local, a_missing_model_is_told_in_a_sentence)
{
    rd_engine_options o = { .model = "/nonexistent/model" };
    void *self = NULL;
    rd_error err = { 0 };

    cr_assert_neq(local->open(&o, &self, &err), RD_OK);
    cr_assert(strstr(err.text, "/nonexistent/model"), "%s", err.text);
    cr_assert_null(self);
}

/* ---- neighbours ---- */

static const char *answer(void *self, rd_request rq, rd_buf *out, int *prefilled)
{
    void *run = start(self, rq);
    rd_step s = step_to_end(run);

    rd_buf_reset(out);
    rd_buf_append(out, s.text, s.bytes);
    *prefilled = s.prefill_tokens;
    local->finish(run);
    return out->data;
}

Test(local, finds_an_answer_that_stands_only_in_a_neighbour, .timeout = 60)
{
    static const char prefix[] = "def load(path):\n    with open(path) as file:\n        ",
                      suffix[] = "\n        return merge(defaults, settings)\n";
    static const char other[] = "import json\n\n\ndef load(path):\n    with open(path) as file:\n"
                                "        settings = decode_settings(file)\n"
                                "        return merge(defaults, settings)\n";
    const rd_neighbour neighbour = { "other.py", other, strlen(other) };
    void *self = open_local();
    rd_request rq = request(prefix, suffix);
    rd_buf text = { 0 }, alone = { 0 };
    int prefilled;

    answer(self, rq, &alone, &prefilled);
    cr_assert_gt(prefilled, 0);
    rq.neighbours = &neighbour;
    rq.n_neighbours = 1;
    cr_assert_str_eq(answer(self, rq, &text, &prefilled), "settings = decode_settings(file)");
    cr_assert_eq(prefilled, 0, "the prompt is the same");
    cr_assert_neq(strcmp(alone.data, text.data), 0);
    rq.n_neighbours = 0;
    cr_assert_str_eq(answer(self, rq, &text, &prefilled), alone.data);
    rd_buf_clear(&text);
    rd_buf_clear(&alone);
    local->close(self);
}

/* ---- several runs at once ---- */

static void make_text(rd_buf *out, int lines, int seed)
{
    for (int i = 0; i < lines; i++)
        rd_buf_format(out, "value_%d = table[%d] + limit(%d, seed=%d)\n", i * seed, i, i * 7 % 13,
                      seed);
}

Test(local, runs_side_by_side_answer_as_one_after_the_other, .timeout = 120)
{
    void *self = open_local(), *run[RUNS];
    rd_buf prefix[RUNS] = { 0 }, alone[RUNS] = { 0 };
    rd_step s[RUNS] = { 0 };
    int prefilled, open = RUNS;

    for (int i = 0; i < RUNS; i++) {
        make_text(&prefix[i], 12, i + 2);
        rd_buf_text(&prefix[i], "total = ");
        answer(self, request(prefix[i].data, after), &alone[i], &prefilled);
    }
    local->close(self);
    self = open_local();
    for (int i = 0; i < RUNS; i++) run[i] = start(self, request(prefix[i].data, after));
    while (open > 0) {
        open = 0;
        for (int i = 0; i < RUNS; i++) {
            rd_error err;

            if (!s[i].done) cr_assert(!local->step(run[i], &s[i], &err), "%s", err.text);
            open += !s[i].done;
        }
    }
    for (int i = 0; i < RUNS; i++) {
        cr_assert_eq(s[i].bytes, alone[i].len);
        cr_assert(!strncmp(s[i].text, alone[i].data, s[i].bytes), "%s", alone[i].data);
        local->finish(run[i]);
        rd_buf_clear(&prefix[i]);
        rd_buf_clear(&alone[i]);
    }
    local->close(self);
}

/* How many runs with long prompts of their own the pool holds. */
Test(local, a_pool_that_is_full_says_so_and_is_free_again_afterwards, .timeout = 120)
{
    enum { MANY = 40 };
    void *self = open_local(), *run[MANY];
    rd_status status = RD_OK;
    int n = 0;

    for (; n < MANY && !status; n++) {
        rd_buf prefix = { 0 };
        rd_step s;
        rd_error err = { 0 };

        make_text(&prefix, 300, n + 2);
        run[n] = start(self, request(prefix.data, after));
        status = local->step(run[n], &s, &err);
        rd_buf_clear(&prefix);
    }
    cr_log_info("%d runs fit", n - 1);
    cr_assert_eq(status, RD_NO_MEMORY);
    cr_assert_gt(n, 1, "one fits");
    for (int i = 0; i < n; i++) local->finish(run[i]);
    run[0] = start(self, request("x = ", "\n"));
    step_to_end(run[0]);
    local->finish(run[0]);
    local->close(self);
}

/* ---- scores ---- */

Test(local, scores_a_piece_of_a_long_text_by_what_is_near, .timeout = 120)
{
    rd_buf text = { 0 };
    void *self = open_local();
    rd_score *far, *near;
    int n_far, n_near;
    rd_error err;

    make_text(&text, 400, 3);
    size_t from = 10240, cut = 8192; /* where what is read begins; at a line start both times */

    while (text.data[cut - 1] != '\n') cut++;
    rd_score_request rq = {
        .language = "python", .text = text.data, .bytes = text.len, .from = from, .to = from + 300
    };

    cr_assert(!local->score(self, &rq, &far, &n_far, &err), "%s", err.text);
    rq = (rd_score_request){ .language = "python",
                             .text = text.data + cut,
                             .bytes = text.len - cut,
                             .from = from - cut,
                             .to = from - cut + 300 };
    cr_assert(!local->score(self, &rq, &near, &n_near, &err), "%s", err.text);

    cr_assert_gt(n_far, 20);
    cr_assert_eq(n_far, n_near);
    cr_assert(far[0].start <= from && far[0].end > from && far[n_far - 1].end >= from + 300);
    for (int i = 0; i < n_far; i++) {
        cr_assert_eq(far[i].start, near[i].start + cut);
        cr_assert_float_eq(far[i].p, near[i].p, 1e-4);
    }
    free(far);
    free(near);
    rd_buf_clear(&text);
    local->close(self);
}
