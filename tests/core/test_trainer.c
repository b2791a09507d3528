/* test_trainer.c - the loop: a text learnt by heart, resume to the bit, threads that do not show. */
#include "core/base/memory.h"
#include "core/train/trainer.h"
#include "plugins/cpu/gemm_train.h"

#include <criterion/criterion.h>
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TEXT = 20000, WORDS = 2000, CONTROL = 8, WINDOW = 96, BLOCK = 16, THREADS = 2 };

/* A text cut into words and runs of one character, numbered in order of appearance. */
typedef struct text {
    char word[WORDS][32];
    int words;
    int32_t id[TEXT];
    int n;
    uint8_t flags[WORDS + CONTROL];
    rd_objective_tokens tokens;
} text;

static int32_t number_of(text *t, const char *word)
{
    for (int i = 0; i < t->words; i++)
        if (!strcmp(t->word[i], word)) return i;
    cr_assert_lt(t->words, WORDS);
    snprintf(t->word[t->words], sizeof *t->word, "%s", word);
    return t->words++;
}

static text *read_text(void)
{
    text *t = rd_alloc0(sizeof *t);
    char *bytes = rd_alloc0(TEXT + 1);
    FILE *f = fopen(RD_SOURCE_DIR "/core/train/backward.c", "r");

    cr_assert(f);
    size_t n = fread(bytes, 1, TEXT, f);
    fclose(f);
    cr_assert_eq(n, TEXT, "the text is shorter than 20 KB");
    for (size_t i = 0; i < n;) {
        char word[32];
        size_t len = 0;

        do word[len++] = bytes[i++];
        while (i < n && len < 31 &&
               (bytes[i] == word[0] ||
                (isalnum((unsigned char)bytes[i]) && isalnum((unsigned char)word[0]))));
        word[len] = 0;
        t->id[t->n++] = number_of(t, word);
    }
    for (int i = 0; i < CONTROL; i++) t->flags[t->words + i] = RD_TOKEN_CONTROL;
    t->tokens =
        (rd_objective_tokens){ t->words,     t->words + 1, t->words + 2, t->words + 3,
                               t->words + 4, t->words + 5, t->flags,     t->words + CONTROL };
    free(bytes);
    return t;
}

static rd_status sample(void *user, double progress, int most, rd_random *random, rd_rows *rows,
                        rd_error *err)
{
    text *t = user;
    rd_noise noise = { .block = BLOCK, .pair = true };
    int start = (int)rd_random_below(random, (uint32_t)(t->n - WINDOW) / BLOCK) * BLOCK;

    (void)progress;
    (void)most;
    (void)err;
    rd_rows_blocks(rows, &t->tokens, &noise, t->id + start, WINDOW, random);
    return RD_OK;
}

static rd_model_config shape(const text *t)
{
    return (rd_model_config){
        .vocab_size = t->tokens.vocab,
        .hidden_size = 128,
        .num_hidden_layers = 3,
        .num_attention_heads = 4,
        .num_key_value_heads = 2,
        .head_dim = 16,
        .intermediate_size = 128,
        .moe_intermediate_size = 128,
        .num_experts = 4,
        .num_experts_per_tok = 2,
        .num_shared_experts = 1,
        .first_k_dense_replace = 1,
        .n_group = 1,
        .topk_group = 1,
        .block_size = BLOCK,
        .rotary_dim = 8,
        .max_position_embeddings = 4096,
        .rope_theta = 10000,
        .rms_norm_eps = 1e-6,
        .routed_scaling_factor = 1.5,
        .tie_word_embeddings = true,
        .pad_token_id = -1,
        .mask_token_id = -1,
        .delete_token_id = -1,
        .split_token_id = -1,
    };
}

static rd_status multiply(rd_device *d, bool ta, bool tb, int m, int n, int k, const float *a,
                          int lda, const float *b, int ldb, float beta, float *c, int ldc,
                          rd_error *err)
{
    return rd_gemm_train_run((rd_gemm_train *)(void *)d, ta, tb, m, n, k, a, lda, b, ldb, beta, c,
                             ldc, err);
}

typedef struct setting {
    text *t;
    rd_params p;
    rd_product product[THREADS];
    rd_train_options o;
} setting;

static setting set(int64_t steps)
{
    setting s = { .t = read_text(), .o = rd_train_defaults() };
    rd_model_config config = shape(s.t);
    rd_error err = { 0 };

    cr_assert(!rd_params_init(&s.p, &config, &err), "%s", err.text);
    for (int i = 0; i < THREADS; i++) {
        rd_gemm_train *g;

        cr_assert(!rd_gemm_train_open(RD_FAST, &g, &err), "%s", err.text);
        s.product[i] = (rd_product){ (rd_device *)(void *)g, multiply };
    }
    s.o.steps = steps;
    s.o.rows_per_step = 2048;
    s.o.rows_per_pack = 1024;
    s.o.sample_rows = 3 * WINDOW;
    s.o.threads = THREADS;
    s.o.warm_up = 20;
    s.o.lr = 8e-3f;
    s.o.optimizer.decay = 0.0f;
    return s;
}

static rd_trainer *start(setting *s)
{
    rd_sampler sampler = { s->t, sample };
    rd_trainer *t = NULL;
    rd_error err = { 0 };

    cr_assert(!rd_trainer_open(&s->p, &s->o, &sampler, s->product, &t, &err), "%s", err.text);
    return t;
}

static void unset(setting *s)
{
    for (int i = 0; i < THREADS; i++)
        rd_gemm_train_close((rd_gemm_train *)(void *)s->product[i].device);
    rd_params_clear(&s->p);
    free(s->t);
}

/* The share of masked tokens that are the first choice, over the whole text, half of each block
 * masked; the first two blocks of a window, which cannot know their place, are not asked. */
static double share_right(setting *s, const float *w)
{
    rd_random random = rd_random_seed(99);
    rd_noise noise = { .block = BLOCK, .pair = true };
    rd_train_stats stats = { 0 };
    rd_error err = { 0 };
    rd_rows rows = { 0 };
    rd_net *net;

    cr_assert(!rd_net_open(&s->p, s->product[0], 3 * WINDOW, &net, &err), "%s", err.text);
    for (int start = 0; start + WINDOW <= s->t->n; start += WINDOW - 2 * BLOCK) {
        rows.n = 0;
        rd_rows_blocks(&rows, &s->t->tokens, &noise, s->t->id + start, WINDOW, &random);
        for (int i = 0; i < rows.n; i++)
            if (rows.row[i].position < 2 * BLOCK) rows.row[i].label = -1;
        cr_assert(!rd_net_run(net, w, rows.row, rows.n, 1.0f, NULL, &stats, &err), "%s", err.text);
    }
    rd_net_close(net);
    rd_rows_clear(&rows);
    return (double)stats.right[RD_TASK_BLOCK] / (double)stats.labels[RD_TASK_BLOCK];
}

Test(trainer, learns_twenty_kilobytes_by_heart, .timeout = 600)
{
    setting s = set(1500);
    rd_trainer *t = start(&s);
    rd_error err = { 0 };

    double before = share_right(&s, rd_trainer_weights(t));
    cr_assert(!rd_trainer_run(t, 0, &err), "%s", err.text);
    double after = share_right(&s, rd_trainer_weights(t));

    cr_log_info("%d tokens, right before %.4f, after %.4f\n", s.t->n, before, after);
    cr_assert_lt(before, 0.05);
    cr_assert_geq(after, 0.99, "only %.4f of the masked tokens are right", after);
    rd_trainer_close(t);
    unset(&s);
}

Test(trainer, stop_and_resume_do_not_change_a_bit, .timeout = 120)
{
    char dir[] = "/tmp/rd-trainer-XXXXXX", path[64];
    setting s = set(12);
    rd_error err = { 0 };
    double share;

    cr_assert(mkdtemp(dir));
    rd_trainer *whole = start(&s);
    cr_assert(!rd_trainer_run(whole, 0, &err), "%s", err.text);

    rd_trainer *first = start(&s);
    cr_assert(!rd_trainer_run(first, 5, &err), "%s", err.text);
    cr_assert(!rd_trainer_checkpoint(first, dir, &err), "%s", err.text);
    rd_trainer_close(first);
    rd_trainer *second = start(&s);
    cr_assert(!rd_trainer_resume(second, dir, &err), "%s", err.text);
    cr_assert_eq(rd_trainer_steps(second), 5);
    cr_assert(!rd_trainer_run(second, 0, &err), "%s", err.text);

    cr_assert_eq(rd_trainer_steps(second), 12);
    cr_assert_arr_eq(rd_trainer_weights(whole), rd_trainer_weights(second),
                     s.p.size * sizeof(float));
    share = share_right(&s, rd_trainer_weights(second));
    cr_assert(isfinite(share));
    snprintf(path, sizeof path, "%s/checkpoint.safetensors", dir);
    cr_assert_eq(unlink(path), 0);
    cr_assert_eq(rmdir(dir), 0);
    rd_trainer_close(whole);
    rd_trainer_close(second);
    unset(&s);
}

Test(trainer, threads_do_not_show_in_the_weights, .timeout = 120)
{
    setting s = set(6);
    rd_error err = { 0 };

    rd_trainer *two = start(&s);
    cr_assert(!rd_trainer_run(two, 0, &err), "%s", err.text);
    s.o.threads = 1;
    rd_trainer *one = start(&s);
    cr_assert(!rd_trainer_run(one, 0, &err), "%s", err.text);

    cr_assert_arr_eq(rd_trainer_weights(one), rd_trainer_weights(two), s.p.size * sizeof(float));
    rd_trainer_close(one);
    rd_trainer_close(two);
    unset(&s);
}

Test(trainer, a_checkpoint_of_another_shape_is_refused, .timeout = 120)
{
    char dir[] = "/tmp/rd-trainer-XXXXXX", path[64];
    setting s = set(2);
    rd_error err = { 0 };
    rd_trainer *t = start(&s);

    cr_assert(mkdtemp(dir));
    cr_assert_eq(rd_trainer_resume(t, dir, &err), RD_NOT_FOUND);
    cr_assert(!rd_trainer_checkpoint(t, dir, &err), "%s", err.text);
    rd_trainer_close(t);
    s.p.size += 16;
    t = start(&s);
    cr_assert_eq(rd_trainer_resume(t, dir, &err), RD_INVALID);
    snprintf(path, sizeof path, "%s/checkpoint.safetensors", dir);
    unlink(path);
    rmdir(dir);
    rd_trainer_close(t);
    unset(&s);
}

/* A folder in the checkpoint's place stands for a disk that is full until somebody empties it. */
typedef struct blocked {
    char place[64];
    int64_t free_at; /* steps; 0: never */
    int reports;
} blocked;

static void unblock(void *user, const rd_train_progress *p)
{
    blocked *b = user;

    b->reports++;
    if (p->step == b->free_at) cr_assert_eq(rmdir(b->place), 0);
}

static rd_status run_blocked(int64_t free_at, rd_error *err)
{
    char dir[] = "/tmp/rd-trainer-XXXXXX", path[96];
    blocked b = { .free_at = free_at };
    setting s = set(4);

    cr_assert(mkdtemp(dir));
    snprintf(b.place, sizeof b.place, "%s/checkpoint.safetensors", dir);
    cr_assert_eq(mkdir(b.place, 0777), 0);
    s.o.dir = dir;
    s.o.checkpoint_s = s.o.report_s = 0.0;
    s.o.report = unblock;
    s.o.user = &b;
    rd_trainer *t = start(&s);
    rd_status status = rd_trainer_run(t, 0, err);

    cr_expect_eq(rd_trainer_steps(t), 4, "the run went on");
    cr_expect_eq(b.reports, 4);
    rd_trainer_close(t);
    unset(&s);
    snprintf(path, sizeof path, "rm -r %s", dir);
    cr_assert_eq(system(path), 0);
    return status;
}

Test(trainer, a_run_goes_on_without_a_checkpoint_and_ends_with_one, .timeout = 120)
{
    rd_error err = { 0 };

    cr_assert_eq(run_blocked(3, &err), RD_OK, "%s", err.text);
    cr_assert_eq(run_blocked(0, &err), RD_IO);
    cr_assert(strstr(err.text, "checkpoint.safetensors: cannot put in place"), "%s", err.text);
}

Test(trainer, a_checkpoint_with_numbers_that_are_not_finite_is_refused, .timeout = 120)
{
    char dir[] = "/tmp/rd-trainer-XXXXXX", path[64];
    setting s = set(2);
    rd_error err = { 0 };
    rd_trainer *t = start(&s);

    cr_assert(mkdtemp(dir));
    rd_trainer_weights(t)[7] = NAN;
    cr_assert(!rd_trainer_checkpoint(t, dir, &err), "%s", err.text);
    cr_assert_eq(rd_trainer_resume(t, dir, &err), RD_INVALID);
    cr_assert(strstr(err.text, "weights: number 7 is not finite"), "%s", err.text);
    snprintf(path, sizeof path, "%s/checkpoint.safetensors", dir);
    unlink(path);
    rmdir(dir);
    rd_trainer_close(t);
    unset(&s);
}
