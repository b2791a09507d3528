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

Test(objective, a_pair_of_noisy_blocks_asks_for_every_token_once)
{
    rd_objective_tokens t = tokens();
    rd_noise noise = { .block = 32, .pair = true };
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
            cr_assert_eq(row->clean_end - row->clean_start, row->position / 32 * 32);
        }
        cr_assert_leq(row->clean_end, r.n);
        cr_assert_leq(row->own_end, r.n);
    }
    for (int i = 0; i < N; i++) cr_assert_eq(asked[i], 1, "token %d: %d times", i, asked[i]);
    rd_rows_clear(&r);
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
        { "", "a", "a" },           { "", "", "-" },
        { "xyz", "a", "a---" },     { "xy", "abcd", "ab+" },
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
