/* test_objective.c - labels and sight of the three questions, by their definition. */
#include "core/base/memory.h"
#include "core/decode/prompt.h"
#include "core/train/objective.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

enum { VOCAB = 200, MASK = 190, DEL, SPLIT, SUFFIX, PREFIX, FILL, NEWLINE = 10, N = 150 };

static rd_objective_tokens tokens(void)
{
    static uint8_t flags[VOCAB];

    memset(flags + MASK, RD_TOKEN_CONTROL, VOCAB - MASK);
    flags[NEWLINE] = RD_TOKEN_NEWLINE;
    return (rd_objective_tokens){ MASK, DEL, SPLIT, SUFFIX, PREFIX, FILL, flags, VOCAB, NULL };
}

static void document(int32_t *ids, int n)
{
    for (int i = 0; i < n; i++) ids[i] = i % 12 == 11 ? NEWLINE : 20 + i % 150;
}

Test(objective, next_token_rows_see_what_is_before_them_and_themselves)
{
    rd_objective_tokens t = tokens();
    rd_rows r = { 0 };
    int32_t ids[N];

    document(ids, N);
    rd_rows_next_token(&r, &t, ids, N);

    cr_assert_eq(r.n, 2 * N - 1);
    for (int i = 0; i < N; i++) {
        const rd_train_row *row = &r.row[N - 1 + i];

        cr_assert_eq(row->label, ids[i]);
        cr_assert_eq(row->clean_end - row->clean_start, i);
        cr_assert_eq(row->own_start, N - 1 + i);
        cr_assert_eq(row->own_end, N + i);
    }
    rd_rows_clear(&r);
}

Test(objective, control_ids_are_never_asked_for)
{
    rd_objective_tokens t = tokens();
    int32_t ids[] = { SUFFIX, 30, 31, PREFIX, 32, FILL, 33 };
    rd_random random = rd_random_seed(2);
    rd_noise pair = { .block = 8, .pair = true };
    rd_rows r = { 0 };
    int asked = 0;

    rd_rows_next_token(&r, &t, ids, 7);
    rd_rows_blocks(&r, &t, &pair, ids, 7, &random);

    for (int i = 0; i < r.n; i++) {
        asked += r.row[i].label >= 0;
        cr_assert_lt(r.row[i].label, MASK);
    }
    cr_assert_eq(asked, 2 * 4);
    rd_rows_clear(&r);
}

/* How the masks of a window are drawn. */
typedef struct rate_case {
    float least, most, middle, weight_most;
    int block;
    float weight;      /* of each mask */
    int fewest, masks; /* masks of each block, between these */
} rate_case;

Test(objective, rates_are_clipped_and_weigh_one_over_themselves)
{
    static const rate_case cases[] = {
        { 0.5f, 0.5f, 0.5f, 5.0f, 32, 2.0f, 1, 32 },
        { 0.25f, 0.25f, 0.0f, 100.0f, 16, 4.0f, 1, 16 },
        { 0.0f, 0.0f, 0.5f, 5.0f, 32, 5.0f, 1, 8 }, /* one of the block, and its weight is capped */
        { 0.0f, 0.0f, 0.0f, 100.0f, 8, 8.0f, 1, 8 },  /* one of 8 */
        { 1.0f, 1.0f, 0.5f, 5.0f, 32, 1.0f, 32, 32 }, /* all */
        { 0.5f, 0.5f, 0.0f, 1.0f, 32, 1.0f, 1, 32 },  /* no weights */
    };

    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        const rate_case *k = &cases[c];
        rd_objective_options o = rd_objective_defaults();
        rd_objective_tokens t = tokens();
        rd_noise noise = { .block = k->block };
        rd_random random = rd_random_seed(c);
        rd_rows r = { 0 };
        int32_t ids[128];
        int masks[128 / 8] = { 0 };

        o.rate_least = k->least;
        o.rate_most = k->most;
        o.rate_middle = k->middle;
        o.rate_weight = k->weight_most;
        t.options = &o;
        document(ids, 128);
        rd_rows_blocks(&r, &t, &noise, ids, 128, &random);

        for (int i = 0; i < r.n; i++) {
            if (r.row[i].label < 0) continue;
            cr_assert_float_eq(r.row[i].weight, k->weight, 1e-5f, "case %zu", c);
            cr_assert_eq(r.row[i].token, MASK);
            masks[r.row[i].position / k->block]++;
        }
        for (int b = 0; b < 128 / k->block; b++)
            cr_assert(masks[b] >= k->fewest && masks[b] <= k->masks, "case %zu, block %d: %d masks",
                      c, b, masks[b]);
        rd_rows_clear(&r);
    }
}

Test(objective, the_middle_of_the_rates_is_0_3_to_0_8)
{
    rd_objective_options o = rd_objective_defaults();
    rd_objective_tokens t = tokens();
    rd_noise noise = { .block = 32 };
    rd_random random = rd_random_seed(6);
    int32_t ids[N];
    rd_rows r = { 0 };

    o.rate_middle = 1.0f;
    t.options = &o;
    document(ids, N);
    for (int i = 0; i < 50; i++) rd_rows_blocks(&r, &t, &noise, ids, N, &random);

    for (int i = 0; i < r.n; i++)
        if (r.row[i].label >= 0)
            cr_assert(r.row[i].weight > 1.0f / 0.8f - 1e-4f &&
                      r.row[i].weight < 1.0f / 0.3f + 1e-4f);
    rd_rows_clear(&r);
}

Test(objective, replaced_tokens_are_asked_for_and_kept_ones_weigh_half)
{
    rd_objective_options o = rd_objective_defaults();
    rd_objective_tokens t = tokens();
    int32_t ids[] = { 20, 21, 22, 23, 24, 25, 26, 27 };
    int32_t instead[] = { -1, 90, -1, 23, -1, -1, -1, 91 };
    rd_noise noise = { .block = 8, .instead = instead };
    rd_random random = rd_random_seed(1);
    rd_rows r = { 0 };

    o.rate_most = 0.0f; /* a single mask */
    t.options = &o;
    for (int round = 0; round < 20; round++) rd_rows_blocks(&r, &t, &noise, ids, 8, &random);

    for (int i = 0; i < r.n; i++) {
        const rd_train_row *row = &r.row[i];
        int at = row->position;
        bool wrong = at == 1 || at == 7;

        cr_assert_eq(row->label, ids[at]);
        if (row->token == MASK) continue;
        cr_assert_eq(row->token, wrong ? instead[at] : ids[at]);
        cr_assert_eq(row->weight, wrong ? 1.0f : 0.5f);
        cr_assert_eq(row->task, RD_TASK_EDIT);
    }
    rd_rows_clear(&r);
}

static void ask_pairs(int block)
{
    rd_objective_tokens t = tokens();
    rd_noise noise = { .block = block, .pair = true };
    rd_random random = rd_random_seed(1);
    rd_rows r = { 0 };
    int32_t ids[N];
    int asked[N] = { 0 };

    document(ids, N);
    rd_rows_blocks(&r, &t, &noise, ids, N, &random);

    for (int i = 0; i < r.n; i++) {
        const rd_train_row *row = &r.row[i];

        if (row->label >= 0) {
            asked[row->position]++;
            cr_assert_eq(row->label, ids[row->position]);
            cr_assert_eq(row->token, MASK);
            cr_assert_eq(row->clean_end - row->clean_start, row->position / block * block);
            cr_assert_eq(row->weight, 1.0f);
        }
        cr_assert_leq(row->clean_end, r.n);
        cr_assert_leq(row->own_end, r.n);
    }
    for (int i = 0; i < N; i++) cr_assert_eq(asked[i], 1, "token %d: %d times", i, asked[i]);
    rd_rows_clear(&r);
}

Test(objective, a_pair_of_noisy_blocks_asks_for_every_token_once)
{
    ask_pairs(8);
    ask_pairs(16);
    ask_pairs(32);
}

/* Apply the labels as the decoder does: fill, drop, double; what is left to do are masks. */
static int apply(const rd_train_row *row, int n, int32_t *out)
{
    int m = 0;

    for (int i = 0; i < n; i++) {
        if (row[i].label == DEL) continue;
        if (row[i].label == SPLIT)
            out[m++] = MASK, out[m++] = MASK;
        else
            out[m++] = row[i].label >= 0 ? row[i].label : row[i].token;
    }
    return m;
}

/* `got`, in which a run of masks stands for any number of tokens from their count up, fits `want`. */
static bool fits(const int32_t *got, int n, const int32_t *want, int m)
{
    int head = 0, tail = 0;

    while (head < n && got[head] != MASK) head++;
    if (head == n) return n <= m && !memcmp(got, want, (size_t)n * sizeof *got);
    int masks = 0;
    while (head + masks < n && got[head + masks] == MASK) masks++;
    tail = n - head - masks;
    if (memcmp(got, want, (size_t)head * sizeof *got)) return false;
    /* What stands behind the masks is found somewhere at or after their least length. */
    for (int at = head + masks; at + tail <= m; at++)
        if (!memcmp(got + head + masks, want + at, (size_t)tail * sizeof *got)) return true;
    return false;
}

Test(objective, labels_of_a_hole_lead_to_its_text_when_applied)
{
    rd_objective_tokens t = tokens();
    rd_random random = rd_random_seed(4);
    int32_t ids[400];
    int lengths[3] = { 0 };

    document(ids, 400);
    for (int round = 0; round < 2000; round++) {
        int n = (int)rd_random_below(&random, 70), start = 100;
        rd_layout layout = {
            .block = 32, .far_most = 128, .far_step = 128, .near_least = 32, .quote_most = 64
        };
        rd_layout_ids layout_ids = { .suffix = t.suffix,
                                     .prefix = t.prefix,
                                     .fill = t.fill,
                                     .language = { t.fill, t.fill, t.fill } };
        rd_ids context = { 0 };
        rd_rows r = { 0 };

        rd_layout_context(&context, &layout, &layout_ids, RD_LANGUAGE_OTHER, ids, start,
                          ids + start + n, 400 - start - n);
        cr_assert_eq(context.n % 32, 0);
        cr_assert_eq(context.id[context.n - 1], ids[start - 1]);
        rd_hole hole = { .context = context.id,
                         .context_n = context.n,
                         .text = ids + start,
                         .text_n = n,
                         .anchor = ids + start + n,
                         .anchor_n = 400 - start - n,
                         .block = 32,
                         .versions = 1 };
        rd_rows_hole(&r, &t, &hole, &random);
        for (int i = 0; i < r.n;) {
            const rd_train_row *row = &r.row[i];
            int len = row->own_end - row->own_start;
            int32_t got[96];

            if (len <= 0) {
                i++;
                continue;
            }
            int done = row->position - context.n, m = apply(row, len, got);
            cr_assert_eq(row->clean_end - row->clean_start, row->position);
            cr_assert(fits(got, m, ids + start + done, 400 - start - done),
                      "round %d: hole of %d, block at %d", round, n, done);
            for (int k = 0; k < len; k++) {
                lengths[0] += row[k].label == DEL;
                lengths[1] += row[k].label == SPLIT;
                lengths[2] += row[k].label >= 0;
            }
            i += len;
        }
        rd_rows_clear(&r);
        rd_ids_clear(&context);
    }
    cr_assert_gt(lengths[0], 1000);
    cr_assert_gt(lengths[1], 200);
    cr_assert_gt(lengths[2], 10000);
}

/* ---- canvases by hand ---- */

enum { ANCHOR = 40 };

/* The one noisy copy of a hole behind a context of one block; returns its rows. */
static int canvas_of(rd_rows *r, const rd_objective_options *o, const rd_hole *of, int *from)
{
    rd_objective_tokens t = tokens();
    rd_random random = rd_random_seed(3);
    int32_t context[32], anchor[ANCHOR];
    rd_hole hole = *of;

    document(context, 32);
    for (int i = 0; i < ANCHOR; i++) anchor[i] = 100 + i;
    hole.context = context;
    hole.context_n = 32;
    hole.anchor = anchor;
    hole.anchor_n = ANCHOR;
    hole.block = 32;
    t.options = o;
    r->n = 0;
    rd_rows_hole(r, &t, &hole, &random);
    for (*from = 0; r->row[*from].own_end == r->row[*from].own_start;) ++*from;
    for (int i = *from; i < r->n; i++) {
        cr_assert_eq(r->row[i].position - r->row[*from].position, i - *from);
        cr_assert_eq(r->row[i].own_start, *from);
        cr_assert_eq(r->row[i].own_end, r->n);
        cr_assert_eq(r->row[i].clean_end, r->row[*from].position);
    }
    return r->n - *from;
}

static rd_objective_options all_masks(float too_short, float too_long)
{
    rd_objective_options o = rd_objective_defaults();

    o.canvas_full = 1.0f;
    o.canvas_short = too_short;
    o.canvas_long = too_long;
    return o;
}

Test(objective, a_canvas_of_the_true_length_asks_for_the_text_and_nothing_else)
{
    rd_objective_options o = all_masks(0.0f, 0.0f);
    int32_t text[] = { 50, 51, 52, 53 };
    rd_rows r = { 0 };
    int at, n = canvas_of(&r, &o, &(rd_hole){ .text = text, .text_n = 4, .versions = 1 }, &at);

    cr_assert_eq(n, 32);
    for (int i = 0; i < n; i++) {
        cr_assert_eq(r.row[at + i].token, i < 4 ? MASK : 100 + i - 4);
        cr_assert_eq(r.row[at + i].label, i < 4 ? text[i] : -1);
    }
    rd_rows_clear(&r);
}

Test(objective, a_canvas_that_is_too_long_deletes_its_end)
{
    rd_objective_options o = all_masks(0.0f, 1.0f);
    int32_t text[] = { 50, 51, 52, 53 };
    rd_rows r = { 0 };
    int at, surplus = 0;

    canvas_of(&r, &o, &(rd_hole){ .text = text, .text_n = 4, .versions = 1 }, &at);

    for (int i = 0; i < 4; i++) cr_assert_eq(r.row[at + i].label, text[i]);
    for (at += 4; r.row[at].label == DEL; at++, surplus++) {
        cr_assert_eq(r.row[at].token, MASK);
        cr_assert_eq(r.row[at].weight, 3.0f);
    }
    cr_assert_gt(surplus, 0);
    cr_assert_eq(r.row[at].token, 100, "the anchor follows the last delete");
    cr_assert_eq(r.row[at].label, -1);
    rd_rows_clear(&r);
}

Test(objective, a_canvas_that_is_too_short_splits_its_last_mask)
{
    rd_objective_options o = all_masks(1.0f, 0.0f);
    int32_t text[] = { 50, 51, 52, 53 };
    rd_rows r = { 0 };
    int at, shown = 0;

    canvas_of(&r, &o, &(rd_hole){ .text = text, .text_n = 4, .versions = 1 }, &at);

    for (; r.row[at + shown].label == text[shown]; shown++)
        cr_assert_eq(r.row[at + shown].weight, 1.0f);
    cr_assert_lt(shown, 3);
    cr_assert_eq(r.row[at + shown].label, SPLIT);
    cr_assert_eq(r.row[at + shown].token, MASK);
    cr_assert_eq(r.row[at + shown].weight, 3.0f);
    cr_assert_eq(r.row[at + shown + 1].token, 100, "the anchor follows the split");
    rd_rows_clear(&r);
}

Test(objective, without_length_labels_no_canvas_and_no_draft_has_one)
{
    rd_objective_options o = all_masks(0.5f, 0.5f);
    int32_t text[28], wrong[] = { 50, 52, 53, 53 };
    rd_rows r = { 0 };
    int at;

    o.lengths = false;
    for (int i = 0; i < 28; i++) text[i] = 50 + i;
    for (int n = 1; n <= 28; n++) {
        rd_draft_ids draft = { .id = wrong, .n = 4 };
        rd_hole hole = { .text = text, .text_n = n, .versions = 1 };

        cr_assert_eq(canvas_of(&r, &o, &hole, &at), 32);
        for (int i = 0; i < n; i++) cr_assert_eq(r.row[at + i].label, text[i]);
        hole.versions = 0;
        hole.drafts = &draft;
        hole.n_drafts = 1;
        canvas_of(&r, &o, &hole, &at);
        for (; at < r.n; at++) cr_assert(r.row[at].label != DEL && r.row[at].label != SPLIT);
    }
    rd_rows_clear(&r);
}

/* ---- drafts ---- */

typedef struct edit_case {
    const char *draft, *text,
        *labels; /* letters are tokens, - delete, + split; the last is the mask */
} edit_case;

static void letters(const char *s, int32_t *out)
{
    for (int i = 0; s[i]; i++) out[i] = s[i] == '-' ? DEL : s[i] == '+' ? SPLIT : s[i];
}

Test(objective, a_draft_is_kept_replaced_deleted_or_split_by_the_longest_common_subsequence)
{
    static const edit_case cases[] = {
        { "abc", "abc", "abc-" },   /* nothing to do; the mask behind goes */
        { "abc", "axc", "axc-" },   /* one replaced */
        { "abbc", "abc", "ab-c-" }, /* one too many */
        { "ac", "abc", "a+-" },     /* one is missing before c */
        { "ab", "abc", "abc" },     /* the mask is the missing one */
        { "ab", "abcd", "ab+" },    /* two are missing at the end */
        { "", "a", "a" },
        { "", "", "-" },
        { "xyz", "a", "a---" },
        { "xy", "abcd", "ab+" },
        /* The faults of faults.h. */
        { "acd", "abcd", "a+d-" },     /* dropped: a mask before what followed */
        { "bcd", "abcd", "+cd-" },     /* the first is dropped */
        { "abbcd", "abcd", "ab-cd-" }, /* doubled */
        { "aabcd", "abcd", "a-bcd-" },
        { "acbd", "abcd", "a-b+-" }, /* swapped: one goes, and has a mask where it belongs */
        { "a*b", "a/b", "a/b-" },    /* another operator, number, name */
        { "ab", "a+b", "a+-" },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rd_objective_tokens t = tokens();
        int32_t draft[16], text[16], want[16], got[16];
        int n = (int)strlen(cases[i].draft);

        letters(cases[i].draft, draft);
        letters(cases[i].text, text);
        letters(cases[i].labels, want);
        rd_draft_labels(&t, draft, n, text, (int)strlen(cases[i].text), got);

        for (int k = 0; k <= n; k++)
            cr_assert_eq(got[k], want[k], "case %zu, slot %d: %d, not %d", i, k, got[k], want[k]);
    }
}

/* ---- spans that are rewritten ---- */

Test(objective, a_seeded_span_stands_like_the_engines_rewrite)
{
    rd_objective_options o = rd_objective_defaults();
    int32_t text[40], wrong[40];
    rd_rows r = { 0 };
    int at, n;

    for (int i = 0; i < 40; i++) text[i] = 50 + i;
    memcpy(wrong, text, sizeof text);
    memmove(wrong + 3, wrong + 4, 36 * sizeof *wrong); /* 53 is dropped: 39 are left */

    /* It fits: the seeds, a spare mask, the anchor. */
    rd_draft_ids seed = { .id = wrong, .n = 11 };
    n = canvas_of(&r, &o, &(rd_hole){ .text = text, .text_n = 12, .drafts = &seed, .n_drafts = 1 },
                  &at);
    cr_assert_eq(n, 32);
    for (int i = 0; i < 32; i++) {
        const rd_train_row *row = &r.row[at + i];

        cr_assert_eq(row->token, i < 11 ? wrong[i] : i == 11 ? MASK : 100 + i - 12);
        cr_assert_eq(row->label, i == 3 ? SPLIT : i < 11 ? wrong[i] : i == 11 ? DEL : -1);
        cr_assert_eq(row->weight, i > 11 ? 0.0f : i == 3 || i == 11 ? 1.5f : 0.5f);
    }

    /* It does not: a block of seeds alone, aligned with the whole text. */
    seed = (rd_draft_ids){ .id = wrong, .n = 39 };
    n = canvas_of(&r, &o, &(rd_hole){ .text = text, .text_n = 40, .drafts = &seed, .n_drafts = 1 },
                  &at);
    cr_assert_eq(n, 32);
    for (int i = 0; i < 32; i++)
        cr_assert_eq(r.row[at + i].label, i == 3 ? SPLIT : wrong[i], "slot %d", i);

    /* Its second block stands behind the first as it should be. */
    seed = (rd_draft_ids){ .id = text + 33, .n = 7, .done = 32 };
    canvas_of(&r, &o, &(rd_hole){ .text = text, .text_n = 40, .drafts = &seed, .n_drafts = 1 },
              &at);
    cr_assert_eq(at, 32 + 32);
    cr_assert_eq(r.row[at].position, 64);
    for (int i = 0; i < 32; i++) cr_assert_eq(r.row[32 + i].token, text[i]);
    cr_assert_eq(r.row[at].token, text[33]);
    cr_assert_eq(r.row[at].label, SPLIT, "82 is missing before the first");
    rd_rows_clear(&r);
}

Test(objective, a_block_of_an_edited_window_is_labelled_up_to_its_end)
{
    rd_objective_options o = rd_objective_defaults();
    int32_t text[96], wrong[65];
    rd_rows r = { 0 };
    int at, n;

    for (int i = 0; i < 96; i++) text[i] = 50 + i;
    memcpy(wrong, text, 10 * sizeof *wrong);
    memcpy(wrong + 10, text + 9, 55 * sizeof *wrong); /* the tenth is doubled */
    rd_draft_ids seed = { .id = wrong, .n = 65, .until = 64 };

    n = canvas_of(&r, &o, &(rd_hole){ .text = text, .text_n = 96, .drafts = &seed, .n_drafts = 1 },
                  &at);

    cr_assert_eq(n, 32);
    for (int i = 0; i < 32; i++)
        cr_assert_eq(r.row[at + i].label, i == 10 ? DEL : wrong[i], "slot %d", i);
    rd_rows_clear(&r);
}
