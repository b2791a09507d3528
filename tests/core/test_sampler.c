/* test_sampler.c - what each switch of the mixture does to the rows, over a corpus made here; and the held-out
 * questions, which no switch may move. */
#include "core/base/memory.h"
#include "core/train/measure.h"
#include "core/train/sampler.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MASK = 2, DEL, SPLIT, FILL, SUFFIX, PREFIX, MOST = 1536, SAMPLES = 300 };

typedef struct world {
    char dir[64];
    rd_corpus *corpus;
    rd_bpe *bpe;
} world;

/* Functions with names and numbers of their own, so that no file counts as another's copy. */
static void write_source(const char *path, uint64_t seed)
{
    static const char *const word[] = { "read", "key",  "node", "line",  "count", "open",
                                        "path", "next", "size", "token", "block", "state" };
    FILE *f = fopen(path, "w");
    rd_random r = rd_random_seed(seed);

    cr_assert(f);
    for (int i = 0; i < 40; i++) {
        const char *a = word[rd_random_below(&r, 12)], *b = word[rd_random_below(&r, 12)];
        int x = (int)rd_random_below(&r, 9999);

        fprintf(f, "def %s_%d(%s, limit):\n    total_of_%s = %s + %d\n", a, x, b, a, b, x % 97);
        for (uint32_t k = rd_random_below(&r, 4); k > 0; k--)
            fprintf(f, "    if %s > total_of_%s and limit < %d:\n        total_of_%s += %s(%d)\n",
                    b, a, (int)rd_random_below(&r, 99), a, word[rd_random_below(&r, 12)], x % 31);
        fprintf(f, "    return total_of_%s\n\n\n", a);
    }
    fclose(f);
}

static world make_world(void)
{
    world w = { .dir = "/tmp/rd_samplerXXXXXX" };
    char src[128], held[128], path[256];
    rd_error err = { 0 };

    cr_assert(mkdtemp(w.dir));
    snprintf(src, sizeof src, "%s/src", w.dir);
    snprintf(held, sizeof held, "%s/held", w.dir);
    mkdir(src, 0700);
    mkdir(held, 0700);
    snprintf(path, sizeof path, "%s/one", src);
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%s/two", held);
    mkdir(path, 0700);
    for (int i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s/one/%d.py", src, i);
        write_source(path, (uint64_t)i + 1);
    }
    snprintf(path, sizeof path, "%s/two/h.py", held);
    write_source(path, 99);
    rd_corpus_options o = { .train_dir = src, .held_dir = held, .out = w.dir, .vocab = 600 };

    cr_assert(!rd_corpus_make(&o, &err), "%s", err.text);
    snprintf(path, sizeof path, "%s/corpus.rdc", w.dir);
    cr_assert(!rd_corpus_open(path, &w.corpus, &err), "%s", err.text);
    w.bpe = rd_bpe_new();
    cr_assert(!rd_bpe_read(w.bpe, w.dir, &err), "%s", err.text);
    return w;
}

static void leave(world *w)
{
    char command[128];

    rd_bpe_free(w->bpe);
    rd_corpus_close(w->corpus);
    snprintf(command, sizeof command, "rm -r %s", w->dir);
    cr_assert(!system(command));
}

/* Samples of a mixture, one behind the other as in a pack; sample i is rows [start[i], start[i + 1]). */
typedef struct drawn {
    rd_rows rows;
    int start[SAMPLES + 1];
} drawn;

typedef rd_status (*guesser)(void *model, const rd_rows *rows, int32_t *best, rd_error *err);

static drawn draw_with(world *w, const char *mix, guesser guess, void *model)
{
    rd_mixture_options o = rd_mixture_defaults(false);
    rd_random random = rd_random_seed(7);
    rd_mixture *m;
    drawn d = { 0 };
    rd_error err = { 0 };

    o.rewrites = 0.0f; /* each case says its own */
    cr_assert(!rd_mixture_parse(&o, mix, &err), "%s", err.text);
    cr_assert(!rd_mixture_open(w->corpus, w->bpe, &o, &m, &err), "%s", err.text);
    rd_sampler s = rd_mixture_sampler(m);

    for (int i = 0; i < SAMPLES; i++) {
        rd_draw draw = { (double)i / SAMPLES, MOST, &random, guess, model };

        cr_assert(!s.sample(s.user, &draw, &d.rows, &err), "%s", err.text);
        d.start[i + 1] = d.rows.n;
        cr_assert_leq(d.start[i + 1] - d.start[i], MOST, "%s", mix);
    }
    rd_mixture_close(m);
    return d;
}

static drawn draw(world *w, const char *mix)
{
    return draw_with(w, mix, NULL, NULL);
}

static int labels_of(const drawn *d, int task)
{
    int n = 0;

    for (int i = 0; i < d->rows.n; i++)
        n += d->rows.row[i].label >= 0 && d->rows.row[i].task == task;
    return n;
}

static int labels_that_are(const drawn *d, int32_t label)
{
    int n = 0;

    for (int i = 0; i < d->rows.n; i++) n += d->rows.row[i].label == label;
    return n;
}

/* Rows that see, under either range, a row outside their own sample. */
Test(sampler, a_row_never_sees_another_sample_of_its_pack)
{
    world w = make_world();
    drawn d = draw(
        &w, "early=0,next-late=0.2,masked=0.2,edited=0.2,rewrites=0.2,noise-name=1,noise-fault=1");

    for (int k = 0; k < SAMPLES; k++)
        for (int i = d.start[k]; i < d.start[k + 1]; i++) {
            const rd_train_row *row = &d.rows.row[i];

            if (row->clean_end > row->clean_start)
                cr_assert(row->clean_start >= d.start[k] && row->clean_end <= d.start[k + 1]);
            if (row->own_end > row->own_start)
                cr_assert(row->own_start >= d.start[k] && row->own_end <= d.start[k + 1]);
        }
    rd_rows_clear(&d.rows);
    leave(&w);
}

typedef struct switch_case {
    const char *off, *on;
    int what; /* a task below 10, a label from 10 on, less 10 */
} switch_case;

Test(sampler, every_objective_goes_when_it_is_switched_off, .timeout = 120)
{
    static const switch_case cases[] = {
        { "early=0,next-late=0", "early=0,next-late=0.5", RD_TASK_NEXT },
        { "masked=0,context-copies=0,edited=0", "masked=0.2,context-copies=0,edited=0",
          RD_TASK_BLOCK },
        { "masked=0,context-copies=0,edited=0", "masked=0,context-copies=1,edited=0",
          RD_TASK_BLOCK },
        { "edited=0,drafts=0", "edited=0.2,drafts=0", RD_TASK_EDIT },
        { "edited=0,drafts=0", "edited=0,drafts=1", RD_TASK_EDIT },
        { "edited=0,drafts=0", "edited=0,drafts=0,rewrites=0.2", RD_TASK_EDIT },
        { "masked=0.5,edited=0.5", "masked=0.3,edited=0.3", RD_TASK_HOLE },
        { "lengths=off", "lengths=on", 10 + DEL },
        { "lengths=off", "lengths=on", 10 + SPLIT },
        { "canvas-short=0,drafts=0", "canvas-short=0.5,drafts=0", 10 + SPLIT },
    };
    world w = make_world();

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        drawn off = draw(&w, cases[i].off), on = draw(&w, cases[i].on);
        int what = cases[i].what;

        cr_assert_eq(what < 10 ? labels_of(&off, what) : labels_that_are(&off, what - 10), 0, "%s",
                     cases[i].off);
        cr_assert_gt(what < 10 ? labels_of(&on, what) : labels_that_are(&on, what - 10), 20, "%s",
                     cases[i].on);
        rd_rows_clear(&off.rows);
        rd_rows_clear(&on.rows);
    }
    leave(&w);
}

/* The clean rows of a next-token sample and the text that they are of. */
static int find_id(const int32_t *ids, int n, int32_t id)
{
    for (int i = 0; i < n; i++)
        if (ids[i] == id) return i;
    return -1;
}

static bool is_in_document(const rd_corpus *c, const int32_t *ids, int n)
{
    for (int k = 0; k < rd_corpus_count(c); k++) {
        rd_corpus_doc d = rd_corpus_at(c, k);

        for (int at = 0; at + n <= d.n; at++) {
            int i = 0;

            while (i < n && d.ids[at + i] == ids[i]) i++;
            if (i == n) return true;
        }
    }
    return false;
}

static int next_ids(const drawn *d, int k, int32_t *ids)
{
    int n = 0;

    for (int i = d->start[k]; i < d->start[k + 1]; i++) {
        const rd_train_row *row = &d->rows.row[i];

        if (row->own_end == row->own_start) ids[n++] = row->token;
        if (row->own_end > row->own_start && row->position == n)
            ids[n++] = row->label >= 0 ? row->label : FILL; /* the last: an empty middle */
    }
    return n;
}

Test(sampler, suffix_first_is_the_window_with_its_middle_last)
{
    world w = make_world();
    drawn d = draw(&w, "early=1,next-early=1,suffix-first=1");
    int32_t ids[MOST], window[MOST];

    for (int k = 0; k < SAMPLES; k++) {
        int n = next_ids(&d, k, ids);
        int prefix = find_id(ids, n, PREFIX), fill = find_id(ids, n, FILL);

        cr_assert_eq(ids[1], SUFFIX);
        cr_assert(prefix > 1 && (fill > prefix));
        int m = 0;
        memcpy(window, ids + prefix + 1, (size_t)(fill - prefix - 1) * sizeof *ids);
        m = fill - prefix - 1;
        memcpy(window + m, ids + fill + 1, (size_t)(n - fill - 1) * sizeof *ids);
        m += n - fill - 1;
        memcpy(window + m, ids + 2, (size_t)(prefix - 2) * sizeof *ids);
        m += prefix - 2;
        cr_assert(is_in_document(w.corpus, window, m), "sample %d", k);
    }
    rd_rows_clear(&d.rows);
    d = draw(&w, "early=1,next-early=1,suffix-first=0");
    for (int k = 0; k < SAMPLES; k++) {
        int n = next_ids(&d, k, ids);

        cr_assert(is_in_document(w.corpus, ids + 1, n - 1), "sample %d", k);
    }
    rd_rows_clear(&d.rows);
    leave(&w);
}

/* Windows whose blocks have a size, told by where their noisy rows begin and how many they are. */
static void count_blocks(const drawn *d, int count[33])
{
    memset(count, 0, 33 * sizeof *count);
    for (int k = 0; k < SAMPLES; k++) {
        int widest = 0;

        for (int i = d->start[k]; i < d->start[k + 1]; i++)
            if (d->rows.row[i].own_end - d->rows.row[i].own_start > widest)
                widest = d->rows.row[i].own_end - d->rows.row[i].own_start;
        cr_assert_leq(widest, 32);
        count[widest]++;
    }
}

Test(sampler, windows_have_the_block_sizes_that_are_asked_for)
{
    world w = make_world();
    int count[33];

    drawn d = draw(&w, "early=0,next-late=0,masked=0.5,edited=0.5");
    count_blocks(&d, count);
    cr_assert(count[8] > 40 && count[16] > 40 && count[32] > 100);
    cr_assert_eq(count[8] + count[16] + count[32], SAMPLES);
    rd_rows_clear(&d.rows);

    d = draw(&w, "early=0,next-late=0,masked=0.5,edited=0.5,block-8=0,block-16=0");
    count_blocks(&d, count);
    cr_assert_eq(count[32], SAMPLES);
    rd_rows_clear(&d.rows);
    leave(&w);
}

/* ---- the edit stream ---- */

/* Of the labelled rows that are no masks: kept, replaced, deleted, split. */
static void count_edits(const drawn *d, int count[4])
{
    memset(count, 0, 4 * sizeof *count);
    for (int i = 0; i < d->rows.n; i++) {
        const rd_train_row *row = &d->rows.row[i];

        if (row->label < 0 || row->token == MASK || row->task != RD_TASK_EDIT) continue;
        count[row->label == row->token ? 0 : row->label == DEL ? 2 : row->label == SPLIT ? 3 : 1]++;
    }
}

Test(sampler, faults_replace_delete_and_split)
{
    static const char *const mixes[] = {
        "early=0,next-late=0,masked=0,edited=1,noise-any=0,noise-fault=1",
        "early=0,next-late=0,masked=0,edited=0,rewrites=1",
    };
    world w = make_world();

    for (int i = 0; i < 2; i++) {
        drawn d = draw(&w, mixes[i]);
        int count[4];

        count_edits(&d, count);
        int changed = count[1] + count[2] + count[3];

        cr_assert(count[1] > 100 && count[2] > 50 && count[3] > 30, "%d, %d, %d", count[1],
                  count[2], count[3]);
        cr_assert(changed * 6 < count[0] && changed * 100 > count[0], "%d changed, %d kept",
                  changed, count[0]);
        rd_rows_clear(&d.rows);
    }
    leave(&w);
}

Test(sampler, tokens_in_a_window_are_replaced_by_others_of_the_kind)
{
    world w = make_world();
    drawn d = draw(&w, "early=0,next-late=0,masked=0,edited=1,noise-any=0,noise-name=1");
    int names = 0;

    for (int i = 0; i < d.rows.n; i++) {
        const rd_train_row *row = &d.rows.row[i];
        size_t n;
        const char *s = rd_bpe_bytes(w.bpe, row->token, &n);

        if (row->label < 0 || row->token == MASK || row->label == row->token) continue;
        names++;
        cr_assert(n > 1 && (s[0] == ' ' ? s[1] : s[0]) >= 'a', "token %d", row->token);
    }
    cr_assert_gt(names, 500);
    rd_rows_clear(&d.rows);
    leave(&w);
}

/* A model that always says the same. */
static rd_status say_one(void *model, const rd_rows *rows, int32_t *best, rd_error *err)
{
    int *asked = model;

    (void)err;
    for (int i = 0; i < rows->n; i++) {
        best[i] = rows->row[i].label >= 0 ? 100 : -1;
        asked[0] += rows->row[i].label >= 0 && rows->row[i].token == MASK;
        asked[1] += rows->row[i].label >= 0 && rows->row[i].token != MASK;
    }
    return RD_OK;
}

Test(sampler, the_models_own_words_stand_in_a_window_and_in_a_rewrite)
{
    static const char *const mixes[] = {
        "early=0,next-late=0,masked=0,edited=1,rewrites=0,noise-any=0,noise-own=1",
        "early=0,next-late=0,masked=0,edited=0,rewrites=1,rewrite-line=0,rewrite-own=1,context-"
        "copies=0",
    };
    world w = make_world();

    for (int k = 0; k < 2; k++) {
        int asked[2] = { 0 }, count[4], wrong = 0;
        drawn d = draw_with(&w, mixes[k], say_one, asked);

        cr_assert_gt(asked[0], 1000);
        for (int i = 0; i < d.rows.n; i++) {
            const rd_train_row *row = &d.rows.row[i];

            if (row->label < 0 || row->token == MASK || row->label == row->token) continue;
            /* In a rewrite the alignment may blame a neighbour. */
            cr_assert(row->token == 100 || k == 1);
            wrong += row->token == 100;
        }
        count_edits(&d, count);
        cr_assert_gt(wrong, 300);
        cr_assert(wrong * 4 < count[0] && wrong * 50 > count[0], "%d wrong, %d kept", wrong,
                  count[0]);
        rd_rows_clear(&d.rows);
    }
    leave(&w);
}

static rd_status fail(void *model, const rd_rows *rows, int32_t *best, rd_error *err)
{
    (void)model, (void)rows, (void)best;
    return rd_fail(err, RD_DEVICE, "the model is gone");
}

Test(sampler, a_model_that_fails_fails_the_sample)
{
    world w = make_world();
    rd_mixture_options o = rd_mixture_defaults(false);
    rd_random random = rd_random_seed(1);
    rd_draw draw = { 0.5, MOST, &random, fail, NULL };
    rd_rows rows = { 0 };
    rd_mixture *m;
    rd_error err;

    cr_assert(!rd_mixture_parse(
        &o, "early=0,next-late=0,masked=0,edited=1,rewrites=0,noise-any=0,noise-own=1", &err));
    cr_assert(!rd_mixture_open(w.corpus, w.bpe, &o, &m, &err));
    rd_sampler s = rd_mixture_sampler(m);

    cr_assert_eq(s.sample(s.user, &draw, &rows, &err), RD_DEVICE);
    cr_assert_str_eq(err.text, "the model is gone");
    rd_mixture_close(m);
    rd_rows_clear(&rows);
    leave(&w);
}

Test(sampler, confidence_is_asked_of_masks_alone)
{
    world w = make_world();
    drawn d = draw(&w, "confidence=0.5");
    int sure = 0;

    for (int i = 0; i < d.rows.n; i++) {
        const rd_train_row *row = &d.rows.row[i];
        bool asked = row->label >= 0 && row->token == MASK;

        cr_assert_eq(row->confidence, asked ? 0.5f * row->weight : 0.0f);
        sure += asked;
    }
    cr_assert_gt(sure, 1000);
    rd_rows_clear(&d.rows);
    d = draw(&w, "");
    for (int i = 0; i < d.rows.n; i++) cr_assert_eq(d.rows.row[i].confidence, 0.0f);
    rd_rows_clear(&d.rows);
    leave(&w);
}

/* ---- the held-out questions ---- */

Test(sampler, held_out_questions_are_holes_lengths_faults_and_what_is_right)
{
    world w = make_world();
    int labels[RD_TASKS] = { 0 };
    rd_held h, again;

    rd_held_make(w.corpus, w.bpe, 2000, 200, 40, 2048, &h);
    rd_held_make(w.corpus, w.bpe, 2000, 200, 40, 2048, &again);

    cr_assert(h.text.n > 0 && h.places.n > 0 && h.text_bytes > 0);
    cr_assert_eq(h.places.n, again.places.n);
    for (int p = 0; p < h.places.n; p++) {
        const rd_rows *pack = &h.places.pack[p];

        cr_assert_eq(pack->n, again.places.pack[p].n);
        cr_assert(
            !memcmp(pack->row, again.places.pack[p].row, (size_t)pack->n * sizeof *pack->row));
        for (int i = 0; i < pack->n; i++) {
            const rd_train_row *row = &pack->row[i];
            bool length = row->label == DEL || row->label == SPLIT;

            if (row->label < 0) continue;
            cr_assert_eq(row->weight, 1.0f);
            labels[row->task]++;
            if (row->task == RD_HELD_HOLE) cr_assert(row->token == MASK && !length);
            if (row->task == RD_HELD_LENGTH) cr_assert(row->token == MASK && length);
            if (row->task == RD_HELD_KEPT) cr_assert_eq(row->label, row->token);
            if (row->task == RD_HELD_MENDED) cr_assert_neq(row->label, row->token);
        }
    }
    cr_assert(labels[RD_HELD_HOLE] > 100 && labels[RD_HELD_LENGTH] > 40);
    cr_assert(labels[RD_HELD_MENDED] >= 40 && labels[RD_HELD_KEPT] > 8 * labels[RD_HELD_MENDED]);
    rd_held_clear(&h);
    rd_held_clear(&again);
    leave(&w);
}
