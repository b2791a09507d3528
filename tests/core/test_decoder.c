/* test_decoder.c - runs on a small model, and runs whose picks are scripted: where a run stops, what may move,
 * and that caches and instruction sets do not show. Recorded traces are held by conformance. */
#include "core/base/memory.h"
#include "core/decode/decoder.h"
#include "core/plugin.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

enum { MASK = 319, DEL = 97, SPLIT = 98, EOS = 96, BLOCK = 8 };

#define SMALL   RD_TEST_DATA "/golden/models/m1_base"
#define BUILTIN RD_SOURCE_DIR "/core/builtin"

/* The CPU's table, but picks come from a script. A pass that cannot be run is NULL. */
static rd_pick (*script)(int pass, int row);
static int passes;

static rd_status scripted_pick(rd_device *d, rd_view x, const rd_weight *head,
                               const rd_pick_query *q, rd_pick *out, rd_error *err)
{
    (void)d, (void)x, (void)head, (void)err;
    for (int r = 0; r < q->n_rows; r++) {
        out[r] = script(passes, r);
        for (int i = 0; i < q->n_banned; i++)
            if (q->banned[i] == out[r].token) out[r].token = out[r].second;
    }
    passes++;
    return RD_OK;
}

static rd_model *open_model(const char *dir, const char *isa, bool scripted, int block, int rows)
{
    static rd_backend table;
    rd_model_options o = { .device = { .isa = isa, .precision = RD_EXACT },
                           .block_size = block,
                           .max_rows = rows,
                           .kv_blocks = rows / block + 2 };
    rd_model *m = NULL;
    rd_error err;

    cr_assert(!rd_backend_find("cpu", &o.backend, &err), "%s", err.text);
    table = *o.backend;
    if (scripted) {
        table.pick = scripted_pick;
        o.backend = &table;
    }
    rd_status s = rd_model_open(dir, &o, &m, &err);

    cr_assert(s == RD_OK || (isa && s == RD_DEVICE), "%s", err.text);
    return m;
}

static rd_decoder *open_decoder(rd_model *m, rd_kv_pool *pool, const rd_policy *p,
                                const int32_t *prompt, int n, int gen)
{
    static const int32_t stop = EOS;
    rd_decoder_options o = { .model = m,
                             .pool = pool,
                             .policy = *p,
                             .stop = &stop,
                             .n_stop = p->kind != RD_POLICY_22,
                             .early_stop = true };
    rd_decoder *d = NULL;
    rd_error err;

    cr_assert(!rd_decoder_open(&o, prompt, n, gen, &d, &err), "%s", err.text);
    return d;
}

/* Every pass' block, one after another; the output at the end. */
static rd_ids run(rd_decoder *d)
{
    rd_decoder_step s = { 0 };
    rd_ids all = { 0 };
    rd_error err;

    for (int i = 0; !s.done; i++) {
        cr_assert_lt(i, 5000, "it does not end");
        cr_assert(!rd_decoder_step_run(d, &s, &err), "%s", err.text);
        if (s.passed) rd_ids_append(&all, s.change->written, s.block->size);
    }
    rd_decoder_output(d, &all);
    return all;
}

static rd_ids output_of(rd_decoder *d)
{
    rd_ids all = run(d), out = { 0 };

    rd_decoder_output(d, &out);
    rd_ids_clear(&all);
    rd_decoder_close(d);
    return out;
}

static rd_policy policy(rd_policy_kind kind, bool quirks)
{
    rd_policy p = rd_policy_dial(kind, 0.0f);

    p.ids = (rd_edit_ids){ MASK, -1, -1 };
    p.reference_quirks = quirks;
    return p;
}

static void tokens(int32_t *out, int n)
{
    for (int i = 0; i < n; i++) out[i] = (i * 31 + i / 7) % 300;
}

Test(decoder, a_cache_does_not_show_in_blocks_of_any_size, .timeout = 400)
{
    static const struct {
        int block, prompt, gen;
    } cases[] = { { 1, 5, 4 }, { 65, 130, 40 }, { 128, 100, 60 }, { 512, 600, 300 } };
    int32_t prompt[600];

    tokens(prompt, 600);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        int rows =
            (cases[c].prompt + cases[c].gen + cases[c].block - 1) / cases[c].block * cases[c].block;
        rd_model *m = open_model(SMALL, "plain", false, cases[c].block, rows);
        rd_kv_pool *pool = rd_kv_pool_new(rd_model_kv_blocks(m), cases[c].block);
        rd_policy p = policy(RD_POLICY_21, false);

        p.threshold = 0.2f;
        p.num_to_transfer = 20;
        rd_decoder *with = open_decoder(m, pool, &p, prompt, cases[c].prompt, cases[c].gen);
        rd_ids a = run(with);
        rd_decoder *without = open_decoder(m, NULL, &p, prompt, cases[c].prompt, cases[c].gen);
        rd_ids b = run(without);

        cr_assert_gt(a.n, cases[c].block);
        cr_assert_eq(a.n, b.n, "blocks of %d", cases[c].block);
        cr_assert(!memcmp(a.id, b.id, (size_t)a.n * sizeof *a.id));
        rd_decoder_close(with);
        rd_decoder_close(without);
        rd_kv_pool_free(pool);
        rd_model_close(m);
        rd_ids_clear(&a);
        rd_ids_clear(&b);
    }
}

Test(decoder, a_block_too_large_is_refused_with_the_limit)
{
    rd_model *m = open_model(SMALL, NULL, false, 4, 8);
    rd_decoder_options o = { .model = m,
                             .block = RD_BLOCK_MOST + 1,
                             .policy = policy(RD_POLICY_21, false) };
    rd_decoder *d = NULL;
    rd_error err;

    cr_assert_eq(rd_decoder_open(&o, NULL, 0, 4, &d, &err), RD_INVALID);
    cr_assert(strstr(err.text, "blocks of 1025; 1 to 1024"), "%s", err.text);
    rd_model_close(m);
}

/* Delete and split ids wherever they can be said, a token now and then. */
static rd_pick say_edits(int pass, int row)
{
    int32_t said[] = { DEL, SPLIT, 20 + pass % 50, 7 };

    return (rd_pick){ .token = said[(pass * 3 + row) % 4], .prob = 0.9f, .second = 8 };
}

Test(decoder, a_pinned_prompt_stands_while_its_block_shifts)
{
    rd_model *m = open_model(SMALL, NULL, true, BLOCK, 32);
    int32_t prompt[] = { 1, 2, 3, 4, 5, 6, 7, 8, DEL, 10, SPLIT };
    rd_policy p = policy(RD_POLICY_22, false);
    rd_decoder_step s = { 0 };
    int edits = 0;
    rd_error err;

    p.ids = (rd_edit_ids){ MASK, DEL, SPLIT };
    script = say_edits;
    rd_decoder *d = open_decoder(m, NULL, &p, prompt, 11, 12);

    while (!s.done) {
        cr_assert(!rd_decoder_step_run(d, &s, &err), "%s", err.text);
        if (!s.passed) continue;
        edits += s.change->edits;
        if (s.window_end == 16) cr_assert(!memcmp(s.block->token, prompt + 8, 3 * sizeof *prompt));
    }
    const rd_ids *all = rd_decoder_tokens(d);

    cr_assert_gt(edits, 10, "nothing shifted");
    cr_assert(!memcmp(all->id, prompt, sizeof prompt));
    for (int i = 11; i < all->n; i++)
        cr_assert(all->id[i] != DEL && all->id[i] != SPLIT && all->id[i] != MASK);
    rd_decoder_close(d);
    rd_model_close(m);
}

/* The end first, at slot 2; then what stands before it, one a pass. */
static rd_pick say_end_first(int pass, int row)
{
    float sure = row == 2 ? 0.95f : row < 2 && row <= pass - 1 ? 0.9f : 0.1f;

    return (rd_pick){ .token = row == 2 ? EOS : 10 + row, .prob = sure, .second = -1 };
}

static rd_ids stop_run(rd_policy_kind kind, bool quirks, rd_pick (*by)(int, int),
                       const int32_t *prompt, int n, int gen)
{
    rd_model *m = open_model(SMALL, NULL, true, BLOCK, 32);
    rd_policy p = policy(kind, quirks);

    script = by;
    passes = 0;
    p.steps = BLOCK;
    rd_ids out = output_of(open_decoder(m, NULL, &p, prompt, n, gen));

    rd_model_close(m);
    return out;
}

Test(decoder, diffusers_stops_in_the_pass_that_writes_the_end_or_not_at_all)
{
    rd_ids out = stop_run(RD_POLICY_DIFFUSERS, true, say_end_first, NULL, 0, 12);

    cr_assert_eq(out.n, 12, "its output is not cut");
    cr_assert_eq(out.id[2], EOS);
    cr_assert_eq(out.id[10], EOS, "the second block was decoded");
    rd_ids_clear(&out);
}

/* Everything at once. */
static rd_pick say_all(int pass, int row)
{
    (void)pass;
    return (rd_pick){ .token = row == 6 ? EOS : 10 + row, .prob = 0.9f, .second = -1 };
}

Test(decoder, the_early_stop_of_2_0_runs_past_the_length_in_the_reference_alone)
{
    rd_ids theirs = stop_run(RD_POLICY_20, true, say_all, NULL, 0, 4),
           ours = stop_run(RD_POLICY_20, false, say_all, NULL, 0, 4);

    cr_assert_eq(theirs.n, 7);
    cr_assert_eq(ours.n, 4);
    rd_ids_clear(&theirs);
    rd_ids_clear(&ours);
}

Test(decoder, an_end_in_the_prompt_empties_the_output_of_2_0_in_the_reference_alone)
{
    int32_t prompt[] = { 5, EOS, 5 };
    rd_ids theirs = stop_run(RD_POLICY_20, true, say_all, prompt, 3, 12),
           ours = stop_run(RD_POLICY_20, false, say_all, prompt, 3, 12);

    cr_assert_eq(theirs.n, 0);
    cr_assert_eq(ours.n, 4, "up to the end at slot 6");
    rd_ids_clear(&theirs);
    rd_ids_clear(&ours);
}

typedef struct edit_run {
    int text;           /* which prompt */
    int32_t del, split; /* control ids; -1: none */
} edit_run;

/* A run of the built-in model; empty where the machine has not got the path. */
static rd_ids builtin_run(const char *isa, edit_run e)
{
    rd_model *m = open_model(BUILTIN, isa, false, 32, 96);
    rd_policy p = policy(RD_POLICY_22, false);
    int32_t prompt[40];

    if (!m) return (rd_ids){ 0 };
    rd_kv_pool *pool = rd_kv_pool_new(rd_model_kv_blocks(m), 32);

    for (int i = 0; i < 40; i++) prompt[i] = 70 + (i * 97 + e.text * 1009) % 8000;
    p.ids = (rd_edit_ids){ rd_model_config_of(m)->mask_token_id, e.del, e.split };
    p.max_post_steps = 4;
    rd_decoder *d = open_decoder(m, pool, &p, prompt, 40, 24);
    rd_ids all = run(d);

    rd_decoder_close(d);
    rd_kv_pool_free(pool);
    rd_model_close(m);
    return all;
}

static int times(const rd_ids *ids, int32_t id)
{
    int n = 0;

    for (int i = 0; i < ids->n; i++) n += ids->id[i] == id;
    return n;
}

/* The two ids that a run without control ids writes most often. */
static edit_run often_said(int text)
{
    edit_run e = { text, -1, -1 };
    rd_ids all = builtin_run("plain", e);

    for (int i = 0; i < all.n; i++) {
        int32_t id = all.id[i];

        if (id == 2 || id == e.del || id == e.split) continue; /* 2: its mask */
        if (e.del < 0 || times(&all, id) > times(&all, e.del)) {
            e.split = e.del;
            e.del = id;
        } else if (e.split < 0 || times(&all, id) > times(&all, e.split)) {
            e.split = id;
        }
    }
    rd_ids_clear(&all);
    return e;
}

/* Tied embedding, one group of experts, delete and split ids: no recorded trace has them together. Two ids that
 * the model says often stand for delete and split; the first prompt is taken on which both are written, so that
 * blocks do shift whatever the model has learnt. */
Test(decoder, the_builtin_model_edits_alike_on_every_path, .timeout = 400)
{
    static const char *const sets[] = { "avx2", "avx512", "avx512-f32" };
    rd_ids want = { 0 };
    edit_run e = { 0 };
    bool both = false;

    for (int k = 0; k < 20 && !both; k++) {
        rd_ids_clear(&want);
        e = often_said(k / 2);
        if (k % 2) e = (edit_run){ e.text, e.split, e.del };
        want = builtin_run("plain", e);
        both = times(&want, e.del) > 0 && times(&want, e.split) > 0;
    }
    cr_assert(both, "no prompt makes it delete and split");
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        rd_ids got = builtin_run(sets[i], e);

        if (got.n == 0) continue;
        cr_assert_eq(got.n, want.n, "%s", sets[i]);
        cr_assert(!memcmp(got.id, want.id, (size_t)got.n * sizeof *got.id), "%s", sets[i]);
        rd_ids_clear(&got);
    }
    rd_ids_clear(&want);
}
