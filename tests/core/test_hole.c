/* test_hole.c - a hole always ends, within its limits, without control tokens, on models that know nothing. */
#include "core/base/random.h"
#include "core/decode/hole.h"
#include "core/plugin.h"

#include <criterion/criterion.h>

enum { BLOCK = 32 };

typedef struct bed {
    rd_model *m;
    rd_kv_pool *pool;
    rd_hole_options o;
    int vocab;
} bed;

static bed open_bed(const char *dir, rd_edit_ids ids)
{
    rd_model_options o = {
        .device = { .threads = 1 }, .block_size = BLOCK, .max_rows = 128, .kv_blocks = 24
    };
    bed b = { 0 };
    rd_error err;

    cr_assert(!rd_backend_find(NULL, &o.backend, &err));
    cr_assert(!rd_model_open(dir, &o, &b.m, &err), "%s", err.text);
    b.pool = rd_kv_pool_new(rd_model_kv_blocks(b.m), BLOCK);
    b.vocab = rd_model_config_of(b.m)->vocab_size;
    b.o = (rd_hole_options){ .model = b.m,
                             .pool = b.pool,
                             .ids = ids,
                             .threshold = 0.6f,
                             .length_threshold = 0.3f,
                             .doubt = 0.2f,
                             .edit_threshold = 0.5f,
                             .tokens_most = 96 };
    return b;
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
        cr_assert_neq(s[i].token, b->o.ids.mask);
        cr_assert_neq(s[i].token, b->o.ids.del);
        cr_assert_neq(s[i].token, b->o.ids.split);
        cr_assert_neq(s[i].token, 11, "a banned token");
    }
    cr_assert_leq(n, b->o.tokens_most + BLOCK);
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
