/* test_hole.c - a hole always ends, within its limits, without control tokens, on models that know nothing. */
#include "core/base/random.h"
#include "core/decode/hole.h"
#include "core/plugin.h"

#include <criterion/criterion.h>
#include <math.h>

enum { BLOCK = 32 };

typedef struct bed {
    rd_model *m;
    rd_kv_pool *pool;
    rd_hole_options o;
    int vocab;
} bed;

static bed open_bed_of(const char *dir, rd_edit_ids ids, int rows)
{
    rd_model_options o = {
        .device = { .threads = 1 }, .block_size = BLOCK, .max_rows = rows, .kv_blocks = 24
    };
    bed b = { 0 };
    rd_error err;

    cr_assert(!rd_backend_find("cpu", &o.backend, &err));
    cr_assert(!rd_model_open(dir, &o, &b.m, &err), "%s", err.text);
    b.pool = rd_kv_pool_new(rd_model_kv_blocks(b.m), BLOCK);
    b.vocab = rd_model_config_of(b.m)->vocab_size;
    b.o = (rd_hole_options){ .model = b.m,
                             .pool = b.pool,
                             .rules = { .ids = ids,
                                        .threshold = 0.6f,
                                        .length_threshold = 0.3f,
                                        .doubt = 0.2f,
                                        .edit_threshold = 0.5f,
                                        .tokens_most = 96 } };
    return b;
}

static bed open_bed(const char *dir, rd_edit_ids ids)
{
    return open_bed_of(dir, ids, 128);
}

static void close_bed(bed *b)
{
    rd_kv_pool_free(b->pool);
    rd_model_close(b->m);
}

/* Run to the end; returns the number of tokens. */
static int run(bed *b, const int32_t *context, int context_n, const int32_t *seed, int seed_n,
               const int32_t *anchor, int anchor_n)
{
    rd_hole_run *h = NULL;
    rd_error err;
    bool done = false;
    int passes = 0, n;

    cr_assert(!rd_hole_open(&b->o, context, context_n, seed, seed_n, anchor, anchor_n, &h, &err),
              "%s", err.text);
    while (!done) {
        cr_assert(!rd_hole_step(h, &done, &err), "%s", err.text);
        cr_assert_lt(++passes, 2000, "it does not end");
    }
    const rd_slot *s = rd_hole_slots(h, &n);

    for (int i = 0; i < n; i++) {
        cr_assert_eq(s[i].state, RD_SLOT_SETTLED);
        cr_assert_neq(s[i].token, b->o.rules.ids.mask);
        cr_assert_neq(s[i].token, b->o.rules.ids.del);
        cr_assert_neq(s[i].token, b->o.rules.ids.split);
        cr_assert_neq(s[i].token, 11, "a banned token");
    }
    cr_assert_leq(n, b->o.rules.tokens_most + BLOCK);
    rd_hole_close(h);
    return n;
}

static void draw(rd_random *r, int32_t *out, int n)
{
    for (int i = 0; i < n; i++) out[i] = 12 + (int32_t)rd_random_below(r, 200);
}

static const int32_t banned[] = { 11 };

Test(hole, ends_whatever_the_model_says, .timeout = 120)
{
    bed b = open_bed(RD_TEST_DATA "/golden/models/m5_v22", (rd_edit_ids){ 271, 266, 267 });
    rd_random r = rd_random_seed(2);
    int32_t context[128], anchor[40], seed[60];

    b.o.banned = banned;
    b.o.n_banned = 1;
    for (int k = 0; k < 30; k++) {
        int blocks = (int)rd_random_below(&r, 5), anchor_n = (int)rd_random_below(&r, 41);

        draw(&r, context, 128);
        draw(&r, anchor, 40);
        draw(&r, seed, 60);
        run(&b, context, blocks * BLOCK, seed, k % 3 ? 0 : (int)rd_random_below(&r, 61), anchor,
            anchor_n);
    }
    close_bed(&b);
}

/* Side by side, with room for all canvases in a pass and without. */
Test(hole, several_lengths_end_whatever_the_model_says, .timeout = 120)
{
    for (int rows = 256; rows <= 512; rows += 256) {
        bed b =
            open_bed_of(RD_TEST_DATA "/golden/models/m5_v22", (rd_edit_ids){ 271, 266, 267 }, rows);
        rd_random r = rd_random_seed(9);
        int32_t context[128], anchor[40];

        b.o.banned = banned;
        b.o.n_banned = 1;
        b.o.own = (rd_calibration){ .sure = 1.0f, .length = 1.0f };
        for (int k = 0; k < 30; k++) {
            draw(&r, context, 128);
            draw(&r, anchor, 40);
            b.o.canvases = 1 + k % RD_HOLE_CANVASES_MOST;
            b.o.rules.tokens_most = k % 5 == 0 ? 3 : 96;
            run(&b, context, k % 4 * BLOCK, NULL, 0, anchor, k % 3 ? 40 : 5);
        }
        close_bed(&b);
    }
}

Test(hole, a_known_length_is_kept, .timeout = 120)
{
    bed b = open_bed(RD_TEST_DATA "/golden/models/m5_v22", (rd_edit_ids){ 271, 266, 267 });
    rd_random r = rd_random_seed(3);
    int32_t context[64], anchor[40];

    b.o.banned = banned;
    b.o.n_banned = 1;
    for (int n = 1; n <= 80; n += n < 40 ? 3 : 13) {
        draw(&r, context, 64);
        draw(&r, anchor, 40);
        b.o.tokens = n;
        cr_assert_eq(run(&b, context, 64, NULL, 0, anchor, 40), n);
    }
    close_bed(&b);
}

Test(hole, a_model_without_delete_and_split_gets_a_length_by_probing, .timeout = 60)
{
    bed b = open_bed(RD_TEST_DATA "/golden/models/m1_base", (rd_edit_ids){ 319, -1, -1 });
    rd_random r = rd_random_seed(4);
    int32_t context[64], anchor[40];

    b.o.banned = banned;
    b.o.n_banned = 1;
    draw(&r, context, 64);
    draw(&r, anchor, 40);
    int n = run(&b, context, 64, NULL, 0, anchor, 40);

    cr_assert(n == 2 || n == 4 || n == 8 || n == 12 || n == 16 || n == 24, "%d tokens", n);
    close_bed(&b);
}

/* Everything is a stop: the first slot ends the hole. Nothing is: it does not end early. */
Test(hole, a_stop_ends_it_where_the_model_cannot_delete, .timeout = 60)
{
    int32_t stop[400], context[64], anchor[40];
    rd_random r = rd_random_seed(8);
    int got[2];

    draw(&r, context, 64);
    draw(&r, anchor, 40);
    for (int k = 0; k < 2; k++) {
        bed b = open_bed(RD_TEST_DATA "/golden/models/m1_base", (rd_edit_ids){ 319, -1, -1 });

        b.o.banned = banned;
        b.o.n_banned = 1;
        b.o.rules.length_threshold = 0.0f;
        b.o.rules.stop = stop;
        for (int id = 0; k == 0 && id < b.vocab; id++) stop[b.o.rules.n_stop++] = id;
        got[k] = run(&b, context, 64, NULL, 0, anchor, 40);
        close_bed(&b);
    }
    cr_assert_eq(got[0], 0);
    cr_assert_gt(got[1], 0);
}

Test(hole, the_same_request_finds_its_blocks_again)
{
    bed b = open_bed(RD_TEST_DATA "/golden/models/m5_v22", (rd_edit_ids){ 271, 266, 267 });
    rd_random r = rd_random_seed(5);
    int32_t context[96], anchor[8];
    rd_hole_run *h = NULL;
    rd_error err;
    bool done;

    draw(&r, context, 96);
    draw(&r, anchor, 8);
    for (int k = 0; k < 2; k++) {
        cr_assert(!rd_hole_open(&b.o, context, 96, NULL, 0, anchor, 8, &h, &err));
        cr_assert(!rd_hole_step(h, &done, &err));
        cr_assert_eq(rd_hole_prefilled(h), k == 0 ? 96 : 0);
        rd_hole_close(h);
    }
    context[70]++;
    cr_assert(!rd_hole_open(&b.o, context, 96, NULL, 0, anchor, 8, &h, &err));
    cr_assert(!rd_hole_step(h, &done, &err));
    cr_assert_eq(rd_hole_prefilled(h), 32, "only the block that changed");
    rd_hole_close(h);
    close_bed(&b);
}

/* ---- drafts, and what the first pass does at once ---- */

static int passes_begun;
static rd_status (*real_begin)(rd_device *d, int rows, rd_error *err);

static rd_status counting_begin(rd_device *d, int rows, rd_error *err)
{
    passes_begun++;
    return real_begin(d, rows, err);
}

static bed open_counting_bed(void)
{
    static rd_backend counting;
    rd_model_options o = {
        .device = { .threads = 1 }, .block_size = BLOCK, .max_rows = 256, .kv_blocks = 24
    };
    bed b = open_bed(RD_TEST_DATA "/golden/models/m5_v22", (rd_edit_ids){ 271, 266, 267 });
    const rd_backend *real;
    rd_error err;

    rd_model_close(b.m);
    cr_assert(!rd_backend_find("cpu", &real, &err));
    counting = *real;
    real_begin = real->begin;
    counting.begin = counting_begin;
    o.backend = &counting;
    cr_assert(!rd_model_open(RD_TEST_DATA "/golden/models/m5_v22", &o, &b.m, &err), "%s", err.text);
    b.o.model = b.m;
    b.o.own = b.o.drafted = (rd_calibration){ .sure = 1.0f };
    b.o.lead = 1.0f;
    passes_begun = 0;
    return b;
}

static void first_step(bed *b, rd_hole_run **h, const rd_hole_draft *drafts, int n, bool *done)
{
    rd_random r = rd_random_seed(6);
    int32_t context[96], anchor[40];
    rd_error err;

    draw(&r, context, 96);
    draw(&r, anchor, 40);
    b->o.drafts = drafts;
    b->o.n_drafts = n;
    cr_assert(!rd_hole_open(&b->o, context, 96, NULL, 0, anchor, 40, h, &err), "%s", err.text);
    cr_assert(!rd_hole_step(*h, done, &err), "%s", err.text);
}

Test(hole, prompt_canvas_and_drafts_are_one_pass)
{
    bed b = open_counting_bed();
    int32_t text[] = { 20, 21, 22, 23 };
    rd_hole_draft drafts[] = { { text, 4, 1.0f }, { text, 2, 0.5f } };
    rd_hole_run *h;
    bool done;

    b.o.take_draft = 2.0f;
    first_step(&b, &h, drafts, 2, &done);

    cr_assert_eq(passes_begun, 1);
    cr_assert_eq(rd_hole_prefilled(h), 96);
    cr_assert_eq(rd_hole_forwards(h), 1);
    rd_hole_close(h);
    close_bed(&b);
}

Test(hole, a_draft_that_is_likely_enough_ends_the_run)
{
    bed b = open_counting_bed();
    int32_t text[] = { 20, 21, 22, 23 };
    rd_hole_draft draft = { text, 4, 1.0f };
    rd_hole_run *h;
    bool done;
    int n;

    b.o.drafted = (rd_calibration){ .base = 1.0f };
    b.o.take_draft = 0.5f;
    first_step(&b, &h, &draft, 1, &done);
    const rd_slot *s = rd_hole_slots(h, &n);

    cr_assert(done);
    cr_assert_eq(n, 4);
    for (int i = 0; i < n; i++) cr_assert_eq(s[i].token, text[i]);
    cr_assert_float_eq(rd_hole_confidence(h), 0.7311f, 1e-3f);
    rd_hole_close(h);
    close_bed(&b);
}

/* What the model makes alone, with the length that a draft has. */
Test(hole, own_text_stands_where_it_is_likelier_than_the_draft, .timeout = 60)
{
    static const float base[] = { -500.0f, 20.0f };
    int32_t text[40];
    int got[2];

    for (int i = 0; i < 40; i++) text[i] = 30 + i;
    for (int k = 0; k < 2; k++) {
        bed b = open_counting_bed();
        rd_hole_draft draft = { text, 40, 1.0f }; /* longer than a block: not scored */
        rd_hole_run *h;
        rd_error err;
        bool done;
        int n;

        b.o.take_draft = 2.0f;
        b.o.copied = (rd_calibration){ .base = base[k] };
        first_step(&b, &h, &draft, 1, &done);
        while (!done) cr_assert(!rd_hole_step(h, &done, &err));
        const rd_slot *s = rd_hole_slots(h, &n);

        got[k] = n == 40 && s[0].token == 30 && s[39].token == 69;
        rd_hole_close(h);
        close_bed(&b);
    }
    cr_assert_eq(got[0], 0);
    cr_assert_eq(got[1], 1);
}

Test(hole, out_of_time_gives_the_draft_or_text_without_masks)
{
    int32_t text[] = { 20, 21, 22, 23 };

    for (int drafts = 0; drafts < 2; drafts++) {
        bed b = open_counting_bed();
        rd_hole_draft draft = { text, 4, 1.0f };
        rd_hole_run *h;
        rd_error err;
        bool done;
        int n;

        b.o.take_draft = 2.0f;
        first_step(&b, &h, &draft, drafts, &done);
        cr_assert_not(done);
        rd_hole_end(h);
        const rd_slot *s = rd_hole_slots(h, &n);

        if (drafts) cr_assert_eq(n, 4);
        for (int i = 0; i < n; i++) cr_assert_eq(s[i].state, RD_SLOT_SETTLED);
        for (int i = 0; drafts && i < n; i++) cr_assert_eq(s[i].token, text[i]);
        cr_assert(!rd_hole_step(h, &done, &err) && done, "it is over");
        rd_hole_close(h);
        close_bed(&b);
    }
}

/* What the probability of a text is reckoned from comes out as it went in. */
Test(hole, lays_open_what_it_weighed, .timeout = 60)
{
    int32_t text[] = { 20, 21, 22, 23 };
    bed b = open_counting_bed();
    rd_hole_draft draft = { text, 4, 1.5f };
    rd_hole_run *h;
    rd_hole_text is;
    rd_ids ids = { 0 };
    rd_error err;
    bool done;
    int n, i = 0;

    b.o.take_draft = 2.0f;
    b.o.lead = 0.0f;
    first_step(&b, &h, &draft, 1, &done);
    while (!done) cr_assert(!rd_hole_step(h, &done, &err));
    const rd_slot *s = rd_hole_slots(h, &n);

    cr_assert(rd_hole_text_at(h, 0, &is, &ids));
    cr_expect_not(is.draft);
    cr_expect_eq(is.tokens, n);
    cr_expect_eq(ids.n, n);
    for (int k = 0; k < n; k++) cr_expect_eq(ids.id[k], s[k].token);
    cr_expect_float_eq(exp(is.sure),
                       (double)rd_hole_confidence(h) / (1.0 - (double)rd_hole_confidence(h)), 1e-4);
    cr_expect_float_eq(is.right, rd_hole_confidence(h), 1e-6);
    for (rd_ids_reset(&ids); rd_hole_text_at(h, i, &is, &ids) && !is.draft; i++) rd_ids_reset(&ids);
    cr_assert(is.draft && is.scored);
    cr_expect_eq(is.tokens, 4);
    cr_expect_float_eq(is.alike, 1.5, 1e-6);
    cr_expect(is.sure < 0.0);
    cr_expect_eq(ids.n, 4);
    cr_expect_eq(ids.id[3], 23);
    cr_expect_not(rd_hole_text_at(h, i + 1, &is, &ids));
    rd_ids_clear(&ids);
    rd_hole_close(h);
    close_bed(&b);
}

Test(hole, shows_each_draft_once_it_has_seen_them, .timeout = 60)
{
    int32_t text[] = { 20, 21, 22, 23 };
    bed b = open_counting_bed();
    rd_hole_draft drafts[] = { { text, 4, 1.5f }, { text + 1, 2, 1.0f }, { text + 2, 1, 0.5f } };
    rd_hole_run *h;
    rd_hole_text is;
    rd_ids ids = { 0 };
    rd_error err;
    bool done;
    int i = 0, seen = 0;

    b.o.take_draft = 2.0f;
    first_step(&b, &h, drafts, 3, &done);
    while (!done) cr_assert(!rd_hole_step(h, &done, &err));
    for (; rd_hole_text_at(h, i, &is, &ids); i++) {
        if (is.draft) {
            cr_expect_eq(is.tokens, drafts[seen].n);
            cr_expect_eq(ids.id[0], drafts[seen].id[0]);
            cr_expect_float_eq(is.alike, drafts[seen].alike, 1e-6);
            cr_expect(is.right > 0.0f && is.right < 1.0f);
            seen++;
        }
        rd_ids_reset(&ids);
    }
    cr_assert_eq(seen, 3);
    rd_ids_clear(&ids);
    rd_hole_close(h);
    close_bed(&b);
}
