/* test_trainer.c - the loop: a text learnt by heart, resume to the bit, threads that do not show, and what
 * stops a run: numbers that are none, full disks, kills, checkpoints of others. */
#include "core/base/memory.h"
#include "core/format/quant.h"
#include "core/format/safetensors.h"
#include "core/train/trainer.h"
#include "tests/core/gemm.h"
#include "tests/core/shape.h"

#include <criterion/criterion.h>
#include <ctype.h>
#include <dirent.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TEXT = 20000, WORDS = 2000, CONTROL = 8, WINDOW = 256, BLOCK = 16, THREADS = 2 };

/* A text cut into words (names, numbers, line ends with their indent, a space with the word behind it, single
 * signs), numbered in order of appearance. */
typedef struct text {
    char word[WORDS][32];
    int words;
    int32_t id[TEXT];
    int n;
    uint8_t flags[WORDS + CONTROL];
    rd_objective_tokens tokens;
} text;

/* ---- a text of our own: functions of a small language, drawn from a grammar ---- */

typedef struct writer {
    char text[TEXT + 1];
    int n;
    rd_random random;
} writer;

static int below(writer *w, uint32_t n)
{
    return (int)rd_random_below(&w->random, n);
}

static void put(writer *w, const char *s)
{
    for (; *s && w->n < TEXT; s++) w->text[w->n++] = *s;
}

static void put_name(writer *w)
{
    static const char *const part[16] = { "read",  "key",   "node",  "line",  "count", "open",
                                          "path",  "next",  "size",  "token", "block", "row",
                                          "state", "index", "value", "list" };

    put(w, part[below(w, 16)]);
    if (below(w, 2) == 0) return;
    put(w, "_");
    put(w, part[below(w, 16)]);
}

static void put_expression(writer *w, int depth)
{
    static const char *const operator[8] = { " + ",  " - ",  " * ",  " < ",
                                             " == ", " && ", " >> ", " | " };
    char number[8];

    switch (below(w, depth > 0 ? 7 : 2)) {
    case 0:
        snprintf(number, sizeof number, "%d", below(w, below(w, 3) ? 10 : 256));
        put(w, number);
        break;
    case 1: put_name(w); break;
    case 2:
        put_name(w);
        put(w, "(");
        put_expression(w, depth - 1);
        if (below(w, 2)) put(w, ", "), put_expression(w, depth - 1);
        put(w, ")");
        break;
    case 3:
        put_name(w);
        put(w, "[");
        put_expression(w, depth - 1);
        put(w, "]");
        break;
    case 4:
        put_name(w);
        put(w, "->");
        put_name(w);
        break;
    default:
        put_expression(w, depth - 1);
        put(w, operator[below(w, 8)]);
        put_expression(w, depth - 1);
    }
}

static void put_statement(writer *w, int depth)
{
    int kind = below(w, depth < 4 ? 6 : 4);

    for (int i = 0; i < depth; i++) put(w, "    ");
    if (kind >= 4) {
        put(w, below(w, 2) ? "if (" : "while (");
        put_expression(w, 2);
        put(w, ") {\n");
        for (int n = 1 + below(w, 3); n > 0; n--) put_statement(w, depth + 1);
        for (int i = 0; i < depth; i++) put(w, "    ");
        put(w, "}\n");
        return;
    }
    if (kind == 1) put(w, "int ");
    if (kind == 2)
        put(w, "return ");
    else
        put_name(w);
    if (kind != 2) put(w, kind == 3 ? " += " : " = ");
    put_expression(w, 2);
    put(w, ";\n");
}

static void write_text(writer *w, uint64_t seed)
{
    w->random = rd_random_seed(seed);
    while (w->n < TEXT) {
        put(w, below(w, 2) ? "static int " : "int ");
        put_name(w);
        put(w, "(int ");
        put_name(w);
        put(w, ")\n{\n");
        for (int n = 2 + below(w, 6); n > 0; n--) put_statement(w, 1);
        put(w, "}\n\n");
    }
}

static bool of_name(char c)
{
    return isalnum((unsigned char)c) || c == '_';
}

/* Length of the word that starts at `s`, which ends in a NUL. */
static int word_length(const char *s)
{
    int n = 1;

    if (*s == '\n') {
        while (s[n] == '\n' || s[n] == ' ') n++;
        return n;
    }
    if (*s == ' ' && s[1] && !of_name(s[1])) return 2; /* with a sign */
    while (of_name(s[n]) && (*s == ' ' || of_name(*s))) n++;
    return n;
}

static int32_t number_of(text *t, const char *word, int n)
{
    for (int i = 0; i < t->words; i++)
        if (!strncmp(t->word[i], word, (size_t)n) && !t->word[i][n]) return i;
    cr_assert_lt(t->words, WORDS);
    cr_assert_lt(n, 32);
    memcpy(t->word[t->words], word, (size_t)n);
    return t->words++;
}

static text *make_text(uint64_t seed)
{
    text *t = rd_alloc0(sizeof *t);
    writer *w = rd_alloc0(sizeof *w);

    write_text(w, seed);
    for (int i = 0, len; i < TEXT; i += len) {
        len = word_length(w->text + i);
        t->id[t->n++] = number_of(t, w->text + i, len);
    }
    for (int i = 0; i < CONTROL; i++) t->flags[t->words + i] = RD_TOKEN_CONTROL;
    t->tokens = (rd_objective_tokens){ t->words,     t->words + 1,       t->words + 2,
                                       t->words + 3, t->words + 4,       t->words + 5,
                                       t->flags,     t->words + CONTROL, NULL };
    free(w);
    return t;
}

/* The text in tiles of WINDOW tokens; the last one ends where the text ends, over a part of the one before. */
static int tiles_of(const text *t)
{
    return (t->n + WINDOW - 1) / WINDOW;
}

static const int32_t *tile_of(const text *t, int i)
{
    int start = i * WINDOW;

    return t->id + (start < t->n - WINDOW ? start : t->n - WINDOW);
}

static rd_status sample(void *user, const rd_draw *draw, rd_rows *rows, rd_error *err)
{
    text *t = user;
    rd_noise noise = { .block = BLOCK, .pair = true };
    const int32_t *tile = tile_of(t, (int)rd_random_below(draw->random, (uint32_t)tiles_of(t)));

    (void)err;
    rd_rows_blocks(rows, &t->tokens, &noise, tile, WINDOW, draw->random);
    return RD_OK;
}

/* A window in which the model's own first choices stand where it would not have found the text. */
static rd_status sample_own_words(void *user, const rd_draw *draw, rd_rows *rows, rd_error *err)
{
    text *t = user;
    rd_noise noise = { .block = BLOCK };
    const int32_t *tile = tile_of(t, (int)rd_random_below(draw->random, (uint32_t)tiles_of(t)));
    int32_t best[2 * WINDOW], instead[WINDOW];
    rd_rows asked = { 0 };
    int wrong = 0;

    rd_rows_blocks(&asked, &t->tokens, &noise, tile, WINDOW, draw->random);
    rd_status s = draw->guess(draw->model, &asked, best, err);

    for (int i = 0; i < WINDOW; i++) instead[i] = -1;
    for (int i = 0; i < asked.n && !s; i++) {
        cr_assert_eq(best[i] < 0, asked.row[i].label < 0);
        if (best[i] < 0 || best[i] == asked.row[i].label) continue;
        instead[asked.row[i].position] = best[i];
        wrong++;
    }
    cr_assert(s || wrong > 10, "%d wrong guesses", wrong);
    noise.instead = instead;
    if (!s) rd_rows_blocks(rows, &t->tokens, &noise, tile, WINDOW, draw->random);
    rd_rows_clear(&asked);
    return s;
}

static rd_model_config shape(const text *t, bool small)
{
    rd_model_config c = small_shape(t->tokens.vocab, BLOCK);

    c.hidden_size = small ? 32 : 96;
    c.num_attention_heads = small ? 2 : 4;
    c.intermediate_size = small ? 32 : 256;
    c.moe_intermediate_size = small ? 16 : 192;
    c.rotary_dim = 16;
    return c;
}

typedef struct setting {
    text *t;
    rd_params p;
    rd_product product[THREADS];
    rd_train_options o;
    char dir[64];
    bool own_words;  /* samples are made of them */
    float *copy[32]; /* of weights, for the tests to look at */
    int copies;
} setting;

static setting set(int64_t steps, bool small, uint64_t seed)
{
    setting s = { .t = make_text(seed), .o = rd_train_defaults(), .dir = "/tmp/rd-trainer-XXXXXX" };
    rd_model_config config = shape(s.t, small);
    rd_error err = { 0 };

    cr_assert(!rd_params_init(&s.p, &config, &err), "%s", err.text);
    for (int i = 0; i < THREADS; i++) {
        rd_gemm_train *g;

        cr_assert(!rd_gemm_train_open(RD_FAST, &g, &err), "%s", err.text);
        s.product[i] = (rd_product){ (rd_device *)(void *)g, multiply };
    }
    cr_assert(mkdtemp(s.dir));
    s.o.seed = seed;
    s.o.steps = steps;
    s.o.rows_per_step = small ? 1536 : 2304;
    s.o.rows_per_pack = s.o.rows_per_step / 2;
    s.o.sample_rows = 3 * WINDOW;
    s.o.threads = THREADS;
    s.o.warm_up = 20;
    s.o.lr = 1.5e-2f;
    s.o.decay_share = 0.4f;
    s.o.optimizer.decay = 0.0f;
    return s;
}

static rd_trainer *start(setting *s)
{
    rd_sampler sampler = { s->t, s->own_words ? sample_own_words : sample };
    rd_trainer *t = NULL;
    rd_error err = { 0 };

    cr_assert(!rd_trainer_open(&s->p, &s->o, &sampler, rd_cpu_learner(), &t, &err), "%s", err.text);
    return t;
}

static void run(rd_trainer *t, int64_t steps)
{
    rd_error err = { 0 };

    cr_assert(!rd_trainer_run(t, steps, &err), "%s", err.text);
}

typedef rd_status look(rd_trainer *t, float *to, rd_error *err);

/* A copy that lives as long as the setting. */
static const float *copy_of(setting *s, rd_trainer *t, look *at)
{
    float *w = rd_alloc_array(s->p.size, sizeof *w);
    rd_error err = { 0 };

    cr_assert_lt(s->copies, (int)(sizeof s->copy / sizeof *s->copy));
    s->copy[s->copies++] = w;
    cr_assert(!at(t, w, &err), "%s", err.text);
    return w;
}

static const float *weights_of(setting *s, rd_trainer *t)
{
    return copy_of(s, t, rd_trainer_weights);
}

static const float *result_of(setting *s, rd_trainer *t)
{
    return copy_of(s, t, rd_trainer_result);
}

static void set_weights(rd_trainer *t, const float *w)
{
    rd_error err = { 0 };

    cr_assert(!rd_trainer_set_weights(t, w, &err), "%s", err.text);
}

static void unset(setting *s)
{
    for (int i = 0; i < s->copies; i++) free(s->copy[i]);
    DIR *d = opendir(s->dir);
    char path[512];

    for (struct dirent *e; (e = readdir(d));) {
        snprintf(path, sizeof path, "%s/%s", s->dir, e->d_name);
        unlink(path);
    }
    closedir(d);
    cr_assert(!rmdir(s->dir));
    for (int i = 0; i < THREADS; i++)
        rd_gemm_train_close((rd_gemm_train *)(void *)s->product[i].device);
    rd_params_clear(&s->p);
    free(s->t);
}

/* The share of masked tokens that are the first choice: every tile, every block of it, the first as well. Each
 * token is masked with the chance `rate`, by a random state that training never sees. */
static double share_right(setting *s, const float *w, double rate)
{
    rd_random random = rd_random_seed(99);
    rd_train_stats stats = { 0 };
    rd_error err = { 0 };
    rd_train_row row[2 * WINDOW];
    rd_net *net;

    cr_assert(!rd_net_open(&s->p, s->product[0], 2 * WINDOW, &net, &err), "%s", err.text);
    for (int k = 0; k < tiles_of(s->t); k++) {
        const int32_t *id = tile_of(s->t, k);

        for (int i = 0; i < WINDOW; i++) {
            int b = i / BLOCK * BLOCK;
            bool masked = rd_random_unit(&random) < rate;

            row[i] = (rd_train_row){
                .token = id[i], .position = i, .clean_end = b + BLOCK, .label = -1
            };
            row[WINDOW + i] = (rd_train_row){ .token = masked ? s->t->tokens.mask : id[i],
                                              .position = i,
                                              .clean_end = b,
                                              .own_start = WINDOW + b,
                                              .own_end = WINDOW + b + BLOCK,
                                              .label = masked ? id[i] : -1,
                                              .weight = 1.0f };
        }
        cr_assert(!rd_net_run(net, w, row, 2 * WINDOW, 1.0f, NULL, &stats, &err), "%s", err.text);
    }
    rd_net_close(net);
    cr_assert_gt((double)stats.labels[0], 0.9 * rate * s->t->n);
    return (double)stats.right[0] / (double)stats.labels[0];
}

/* Bits a token when only the frequencies of tokens, or of pairs, are known. */
static double entropy(const text *t, bool pairs)
{
    int *count = rd_alloc_array((size_t)WORDS * (pairs ? WORDS : 1), sizeof *count);
    double bits = 0.0;
    int n = t->n - pairs;

    for (int i = 0; i < n; i++) count[pairs ? t->id[i] * WORDS + t->id[i + 1] : t->id[i]]++;
    for (int i = 0; i < WORDS * (pairs ? WORDS : 1); i++)
        if (count[i]) bits -= (double)count[i] / n * log2((double)count[i] / n);
    free(count);
    return bits;
}

/* No run of sixteen tokens comes twice: what a block holds cannot be copied from elsewhere. */
static int repeated_blocks(const text *t)
{
    int found = 0;

    for (int i = 0; i + BLOCK <= t->n; i += BLOCK)
        for (int k = 0; k + BLOCK <= t->n; k++)
            found += k != i && !memcmp(t->id + i, t->id + k, BLOCK * sizeof *t->id);
    return found;
}

Test(trainer, the_text_to_be_learnt_is_long_and_not_a_repetition)
{
    for (uint64_t seed = 1; seed <= 3; seed++) {
        text *t = make_text(seed);

        cr_expect_gt(t->n, 5000);
        cr_expect_gt(entropy(t, false), 6.0, "%g bits a token", entropy(t, false));
        cr_expect_gt(entropy(t, true) - entropy(t, false), 2.5, "%g bits a token after another",
                     entropy(t, true) - entropy(t, false));
        cr_expect_eq(repeated_blocks(t), 0);
        free(t);
    }
}

Test(trainer, learns_twenty_kilobytes_by_heart, .timeout = 600)
{
    static const double rates[] = { 0.15, 0.5 };
    const char *seed = getenv("RD_TEST_SEED");
    setting s = set(800, false, seed ? strtoull(seed, NULL, 10) : 1);
    rd_trainer *t = start(&s);

    cr_assert_lt(share_right(&s, weights_of(&s, t), 0.5), 0.05);
    run(t, 0);

    cr_assert_eq(rd_trainer_steps(t), 800);
    for (size_t i = 0; i < sizeof rates / sizeof *rates; i++) {
        double right = share_right(&s, weights_of(&s, t), rates[i]);

        cr_log_info("%d tokens, %g of them masked: %.4f right\n", s.t->n, rates[i], right);
        cr_expect_geq(right, 0.99, "of %g of the tokens only %.4f are right", rates[i], right);
    }
    rd_trainer_close(t);
    unset(&s);
}

/* ---- the same bits ---- */

Test(trainer, stop_and_resume_do_not_change_a_bit, .timeout = 120)
{
    static const int64_t stops[] = { 1, 5, 10 }; /* before and within the last shares */
    setting s = set(12, true, 1);
    rd_error err = { 0 };

    s.o.fake_int8_share = 0.4f;
    s.o.average_share = 0.3f;
    rd_trainer *whole = start(&s);
    run(whole, 0);
    for (int i = 0; i < 3; i++) {
        rd_trainer *first = start(&s);
        run(first, stops[i]);
        cr_assert(!rd_trainer_checkpoint(first, s.dir, &err), "%s", err.text);
        rd_trainer_close(first);
        rd_trainer *second = start(&s);
        cr_assert(!rd_trainer_resume(second, s.dir, &err), "%s", err.text);
        cr_assert_eq(rd_trainer_steps(second), stops[i]);
        run(second, 0);

        cr_assert_eq(rd_trainer_steps(second), 12);
        cr_assert_arr_eq(weights_of(&s, whole), weights_of(&s, second), s.p.size * sizeof(float));
        cr_assert_arr_eq(result_of(&s, whole), result_of(&s, second), s.p.size * sizeof(float));
        rd_trainer_close(second);
    }
    rd_trainer_close(whole);
    unset(&s);
}

Test(trainer, threads_do_not_show_in_the_weights, .timeout = 120)
{
    setting s = set(6, true, 1);

    s.o.fake_int8_share = s.o.average_share = 0.5f;
    rd_trainer *two = start(&s);
    run(two, 0);
    s.o.threads = 1;
    rd_trainer *one = start(&s);
    run(one, 0);

    cr_assert_arr_eq(weights_of(&s, one), weights_of(&s, two), s.p.size * sizeof(float));
    cr_assert_arr_eq(result_of(&s, one), result_of(&s, two), s.p.size * sizeof(float));
    rd_trainer_close(one);
    rd_trainer_close(two);
    unset(&s);
}

Test(trainer, samples_of_the_models_own_words_are_the_same_after_a_stop_and_on_any_threads,
     .timeout = 120)
{
    setting s = set(8, true, 1);
    rd_error err = { 0 };

    s.own_words = true;
    s.o.fake_int8_share = 0.4f; /* then the words are those of the rounded weights */
    rd_trainer *whole = start(&s);
    run(whole, 0);
    s.o.threads = 1;
    rd_trainer *first = start(&s);
    run(first, 6);
    cr_assert(!rd_trainer_checkpoint(first, s.dir, &err), "%s", err.text);
    rd_trainer *second = start(&s);
    cr_assert(!rd_trainer_resume(second, s.dir, &err), "%s", err.text);
    run(second, 0);

    cr_assert_eq(rd_trainer_steps(second), 8);
    cr_assert_arr_eq(weights_of(&s, whole), weights_of(&s, second), s.p.size * sizeof(float));
    rd_trainer_close(whole);
    rd_trainer_close(first);
    rd_trainer_close(second);
    unset(&s);
}

Test(trainer, legs_end_with_a_checkpoint_and_make_the_same_run, .timeout = 120)
{
    setting s = set(4, true, 1);
    rd_error err = { 0 };

    s.own_words = true;
    s.o.fake_int8_share = s.o.average_share = 0.5f;
    s.o.checkpoint_s = 1e9;
    rd_trainer *whole = start(&s);
    run(whole, 0);
    s.o.dir = s.dir;
    s.o.leg_minutes = 1e-9; /* over behind each step */
    for (int leg = 1; leg <= 4; leg++) {
        rd_trainer *t = start(&s);

        cr_assert_eq(rd_trainer_resume(t, s.dir, &err), leg == 1 ? RD_NOT_FOUND : RD_OK);
        cr_assert_eq(rd_trainer_steps(t), leg - 1);
        run(t, 0);
        cr_assert_eq(rd_trainer_steps(t), leg);
        cr_assert_eq(rd_trainer_over(t), leg == 4);
        if (leg == 4) {
            cr_assert_arr_eq(weights_of(&s, whole), weights_of(&s, t), s.p.size * sizeof(float));
            cr_assert_arr_eq(result_of(&s, whole), result_of(&s, t), s.p.size * sizeof(float));
        }
        rd_trainer_close(t);
    }
    rd_trainer_close(whole);
    unset(&s);
}

/* ---- int8 and the mean ---- */

static double loss_on(setting *s, const float *w)
{
    rd_random random = rd_random_seed(7);
    rd_train_stats stats = { 0 };
    rd_error err = { 0 };
    rd_rows rows = { 0 };
    rd_net *net;

    cr_assert(!rd_net_open(&s->p, s->product[0], 3 * WINDOW, &net, &err), "%s", err.text);
    sample(s->t, &(rd_draw){ .random = &random }, &rows, &err);
    cr_assert(!rd_net_run(net, w, rows.row, rows.n, 1.0f, NULL, &stats, &err), "%s", err.text);
    rd_net_close(net);
    rd_rows_clear(&rows);
    return stats.loss[RD_TASK_BLOCK];
}

Test(trainer, rounded_weights_are_those_of_the_packed_model, .timeout = 120)
{
    setting s = set(4, true, 1);
    float *rounded = rd_alloc_array(s.p.size, sizeof *rounded);
    float *packed = rd_alloc_array(s.p.size, sizeof *packed);
    char out[] = "/tmp/rd-trainer-XXXXXX", path[128];
    rd_error err = { 0 };
    rd_trainer *t = start(&s);

    run(t, 0);
    const float *w = weights_of(&s, t);
    cr_assert(mkdtemp(out));
    for (int i = 0; i < s.p.count; i++)
        cr_assert(!rd_params_round_int8(&s.p, i, w, rounded, &err), "%s", err.text);
    cr_assert(!rd_params_write(&s.p, w, RD_BF16, s.dir, &err), "%s", err.text);
    cr_assert(!rd_quantize_model(s.dir, out, RD_QUANT_INT8_ROW, &err), "%s", err.text);
    cr_assert(!rd_params_read(&s.p, packed, out, &err), "%s", err.text);

    cr_assert_arr_eq(rounded, packed, s.p.size * sizeof *packed);
    cr_assert_eq(loss_on(&s, rounded), loss_on(&s, packed));
    cr_assert_neq(loss_on(&s, rounded), loss_on(&s, w));
    snprintf(path, sizeof path, "rm -r %s", out);
    cr_assert(!system(path));
    free(rounded);
    free(packed);
    rd_trainer_close(t);
    unset(&s);
}

/* What a step does shows which weights its passes saw: with a gradient of rounded weights both runs move alike. */
Test(trainer, the_last_share_sees_rounded_weights_and_moves_its_own, .timeout = 120)
{
    setting s = set(1, true, 1);
    float *grid = rd_alloc_array(s.p.size, sizeof *grid);
    float *step[2];
    rd_error err = { 0 };

    s.o.optimizer.muon = false;
    for (int k = 0; k < 2; k++) {
        s.o.fake_int8_share = k == 0 ? 1.0f : 0.0f;
        rd_trainer *t = start(&s);
        const float *w = weights_of(&s, t);

        for (int i = 0; i < s.p.count; i++)
            cr_assert(!rd_params_round_int8(&s.p, i, w, grid, &err), "%s", err.text);
        step[k] = rd_alloc_array(s.p.size, sizeof **step);
        memcpy(step[k], k == 0 ? w : grid, s.p.size * sizeof *w);
        if (k == 1) set_weights(t, grid);
        run(t, 0);
        w = weights_of(&s, t);
        for (size_t i = 0; i < s.p.size; i++) step[k][i] = w[i] - step[k][i];
        rd_trainer_close(t);
    }

    for (size_t i = 0; i < s.p.size; i++)
        cr_assert_float_eq(step[0][i], step[1][i], 1e-6, "weight %zu: %g and %g", i, step[0][i],
                           step[1][i]);
    free(step[0]);
    free(step[1]);
    free(grid);
    unset(&s);
}

Test(trainer, learns_while_rounded, .timeout = 600)
{
    setting s = set(150, true, 1);
    float *rounded = rd_alloc_array(s.p.size, sizeof *rounded);
    rd_error err = { 0 };

    s.o.fake_int8_share = 1.0f;
    rd_trainer *t = start(&s);
    double before = loss_on(&s, weights_of(&s, t));
    run(t, 0);
    const float *w = weights_of(&s, t);
    for (int i = 0; i < s.p.count; i++) cr_assert(!rd_params_round_int8(&s.p, i, w, rounded, &err));

    cr_expect_lt(loss_on(&s, rounded), 0.7 * before, "%g before, %g after", before,
                 loss_on(&s, rounded));
    free(rounded);
    rd_trainer_close(t);
    unset(&s);
}

Test(trainer, the_result_is_the_mean_of_the_last_weights, .timeout = 120)
{
    setting s = set(8, true, 1);

    s.o.lr = 0.0f;
    s.o.optimizer.bias_rate = 0.0f;
    s.o.average_share = 0.5f;
    rd_trainer *t = start(&s);
    float *w = rd_alloc_array(s.p.size, sizeof *w);
    /* Weights made by hand: k + 1 in step k; lr 0 leaves them alone. */
    for (int k = 0; k < 8; k++) {
        for (size_t i = 0; i < s.p.size; i++) w[i] = (float)(k + 1);
        set_weights(t, w);
        if (k <= 4) cr_assert_arr_eq(result_of(&s, t), w, s.p.size * sizeof *w);
        run(t, 1);
    }

    const float *mean = result_of(&s, t);
    for (size_t i = 0; i < s.p.size; i++) cr_assert_float_eq(mean[i], (5 + 6 + 7 + 8) / 4.0, 1e-5);
    free(w);
    rd_trainer_close(t);
    unset(&s);
}

/* ---- what stops a run ---- */

Test(trainer, a_loss_that_is_no_number_names_step_and_tensor_and_leaves_the_checkpoint,
     .timeout = 120)
{
    setting s = set(20, true, 1);
    rd_error err = { 0 };

    s.o.dir = s.dir;
    s.o.checkpoint_s = 1e9;
    rd_trainer *t = start(&s);
    run(t, 3);
    const float *good = weights_of(&s, t);
    float *bad = rd_alloc_array(s.p.size, sizeof *bad);
    memcpy(bad, good, s.p.size * sizeof *bad);
    bad[rd_params_find(&s.p, "model.layers.1.mlp.gate.weight")->offset] = NAN;
    set_weights(t, bad);
    free(bad);

    cr_assert_eq(rd_trainer_run(t, 0, &err), RD_INVALID);
    cr_expect(strstr(err.text, "step 4: ") && strstr(err.text, "model.layers.1.mlp.gate.weight") &&
                  strstr(err.text, "the last checkpoint is of step 3"),
              "%s", err.text);
    cr_assert_eq(rd_trainer_checkpoint(t, s.dir, &err), RD_INVALID);
    cr_assert(!rd_trainer_resume(t, s.dir, &err), "%s", err.text);
    cr_assert_eq(rd_trainer_steps(t), 3);
    cr_assert_arr_eq(weights_of(&s, t), good, s.p.size * sizeof *good);
    rd_trainer_close(t);
    unset(&s);
}

static void checkpoint_path(const setting *s, char out[128])
{
    snprintf(out, 128, "%s/checkpoint.safetensors", s->dir);
}

/* The resume that must fail does, names the file and says why, and leaves the weights as they were. */
static void refused(setting *s, const char *why)
{
    rd_trainer *t = start(s);
    const float *before = weights_of(s, t);
    rd_error err = { 0 };

    cr_expect_eq(rd_trainer_resume(t, s->dir, &err), RD_INVALID, "accepted: %s", why);
    cr_expect(strstr(err.text, "checkpoint.safetensors") && strstr(err.text, why),
              "no \"%s\" in: %s", why, err.text);
    cr_expect_arr_eq(weights_of(s, t), before, s->p.size * sizeof *before);
    cr_expect_eq(rd_trainer_steps(t), 0);
    rd_trainer_close(t);
}

Test(trainer, a_checkpoint_of_another_run_is_refused_by_what_differs, .timeout = 120)
{
    setting s = set(20, true, 1);
    rd_error err = { 0 };

    rd_kept_term pairs = { .name = "mixture.pairs", .value = "on" };

    s.o.data = "this corpus";
    s.o.terms = &pairs;
    s.o.n_terms = 1;
    rd_trainer *t = start(&s);
    cr_assert_eq(rd_trainer_resume(t, s.dir, &err), RD_NOT_FOUND);
    run(t, 1);
    cr_assert(!rd_trainer_checkpoint(t, s.dir, &err), "%s", err.text);
    rd_trainer_close(t);

    rd_train_options o = s.o;
    s.o.seed = 2;
    refused(&s, "seed was 1; of this run it is 2");
    s.o = o, s.o.steps = 21;
    refused(&s, "length in steps was 20");
    s.o = o, s.o.steps = 0;
    refused(&s, "length in steps was 20");
    s.o = o, s.o.rows_per_pack /= 2;
    refused(&s, "rows was");
    s.o = o, s.o.optimizer.muon = false;
    refused(&s, "optimizer was muon");
    s.o = o, s.o.data = "another corpus";
    refused(&s, "data was this corpus");
    s.o = o, s.o.lr *= 2.0f;
    refused(&s, "learning rate was");
    s.o = o, s.o.fake_int8_share = 0.0f;
    refused(&s, "last shares was");
    s.o = o, s.o.average_share = 0.1f;
    refused(&s, "mean of weights was not kept");
    s.o = o;
    strcpy(pairs.value, "off");
    refused(&s, "mixture.pairs was on; of this run it is off");
    strcpy(pairs.value, "on");
    s.p.config.rope_theta = 20000.0;
    refused(&s, "shape was");
    s.p.config.rope_theta = 10000.0;
    t = start(&s);
    cr_assert(!rd_trainer_resume(t, s.dir, &err), "%s", err.text);
    rd_trainer_close(t);
    unset(&s);
}

Test(trainer, a_run_in_minutes_may_change_its_length_rates_and_mixture, .timeout = 120)
{
    setting s = set(0, true, 1);
    rd_kept_term pairs = { .name = "mixture.pairs", .value = "on" };
    rd_error err = { 0 };

    s.o.terms = &pairs;
    s.o.n_terms = 1;
    s.o.minutes = 1e6;
    rd_trainer *t = start(&s);
    run(t, 2);
    cr_assert(!rd_trainer_checkpoint(t, s.dir, &err), "%s", err.text);
    rd_trainer_close(t);
    s.o.minutes = 2e6;
    s.o.lr *= 0.5f;
    strcpy(pairs.value, "off");
    t = start(&s);

    cr_assert(!rd_trainer_resume(t, s.dir, &err), "%s", err.text);
    cr_assert_eq(rd_trainer_steps(t), 2);
    rd_trainer_close(t);
    unset(&s);
}

Test(trainer, a_torn_or_foreign_checkpoint_is_refused, .timeout = 120)
{
    setting s = set(20, true, 1);
    rd_error err = { 0 };
    rd_trainer *t = start(&s);
    char path[128], byte;
    float weights[2] = { 1.0f, 2.0f };
    rd_tensor foreign = { .name = "weights", .dtype = RD_F32, .rank = 1, .shape = { 2 } };

    checkpoint_path(&s, path);
    run(t, 1);
    cr_assert(!rd_trainer_checkpoint(t, s.dir, &err), "%s", err.text);
    rd_trainer_close(t);

    FILE *f = fopen(path, "r+");
    cr_assert(f && !fseek(f, -1000, SEEK_END));
    byte = (char)fgetc(f);
    cr_assert(!fseek(f, -1000, SEEK_END));
    fputc(byte ^ 1, f);
    fclose(f);
    refused(&s, "torn");
    cr_assert(!truncate(path, 5000));
    refused(&s, "");
    foreign.data = weights;
    foreign.bytes = sizeof weights;
    cr_assert(!rd_safetensors_write(path, &foreign, 1, NULL, &err), "%s", err.text);
    refused(&s, "format");
    unset(&s);
}

Test(trainer, a_disk_that_is_full_leaves_the_last_checkpoint, .timeout = 120)
{
    setting s = set(20, true, 1);
    rd_error err = { 0 };
    rd_trainer *t = start(&s);
    struct rlimit unlimited, small = { .rlim_cur = 100000 };
    char path[128];
    int files = 0;

    checkpoint_path(&s, path);
    run(t, 1);
    cr_assert(!rd_trainer_checkpoint(t, s.dir, &err), "%s", err.text);
    run(t, 1);
    signal(SIGXFSZ, SIG_IGN);
    cr_assert(!getrlimit(RLIMIT_FSIZE, &unlimited));
    small.rlim_max = unlimited.rlim_max;
    cr_assert(!setrlimit(RLIMIT_FSIZE, &small));
    rd_status full = rd_trainer_checkpoint(t, s.dir, &err);
    cr_assert(!setrlimit(RLIMIT_FSIZE, &unlimited));

    cr_assert_eq(full, RD_IO);
    cr_assert(strstr(err.text, path), "%s", err.text);
    cr_assert(!rd_trainer_resume(t, s.dir, &err), "%s", err.text);
    cr_assert_eq(rd_trainer_steps(t), 1);
    DIR *d = opendir(s.dir);
    for (struct dirent *e; (e = readdir(d));) files += e->d_name[0] != '.';
    closedir(d);
    cr_assert_eq(files, 1, "%d files are left", files);
    rd_trainer_close(t);
    unset(&s);
}

/* A child that does nothing but write checkpoints is killed in the middle of one, at a new moment each time. */
Test(trainer, a_kill_leaves_the_last_checkpoint, .timeout = 120)
{
    setting s = set(20, true, 1);
    rd_error err = { 0 };
    rd_trainer *t;
    int left = 0;

    s.o.threads = 1; /* a fork has no others */
    t = start(&s);
    run(t, 1);
    cr_assert(!rd_trainer_checkpoint(t, s.dir, &err), "%s", err.text);
    for (int i = 0; i < 20; i++) {
        pid_t child = fork();

        if (child == 0)
            for (;;) rd_trainer_checkpoint(t, s.dir, &err);
        usleep((useconds_t)(3000 + 1777 * i));
        kill(child, SIGKILL);
        cr_assert_eq(waitpid(child, NULL, 0), child);
        cr_assert(!rd_trainer_resume(t, s.dir, &err), "kill %d: %s", i, err.text);
    }
    s.o.dir = s.dir;
    rd_trainer_close(t);
    t = start(&s);
    run(t, 1); /* sweeps what the killed ones left */

    DIR *d = opendir(s.dir);
    for (struct dirent *e; (e = readdir(d));) left += strstr(e->d_name, ".new") != NULL;
    closedir(d);
    cr_assert_eq(left, 0, "%d unfinished files are left", left);
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
    setting s = set(4, true, 1);

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
