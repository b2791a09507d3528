/* objective.c - rows for the three questions of objective.h.
 *
 * Every builder first appends clean rows, which see the clean rows up to the end of their block, and
 * then noisy ones, which see the clean rows of earlier blocks and their own block.
 */
#include "core/train/objective.h"

#include "core/base/memory.h"

#include <stdlib.h>
#include <string.h>

enum { ANCHOR_LEAST = 8 };

static const float length_weight = 3.0f, keep_weight = 0.5f, rate_weight_most = 5.0f;
static const float draft_length_weight = 1.5f;

static rd_train_row *add(rd_rows *r)
{
    if (r->n == r->cap) {
        r->cap = r->cap ? 2 * r->cap : 1024;
        r->row = rd_resize(r->row, (size_t)r->cap, sizeof *r->row);
    }
    return &r->row[r->n++];
}

void rd_rows_clear(rd_rows *r)
{
    free(r->row);
    *r = (rd_rows){ 0 };
}

static bool is_control(const rd_objective_tokens *t, int32_t id)
{
    return t->flags[id] & RD_TOKEN_CONTROL;
}

static int least(int a, int b)
{
    return a < b ? a : b;
}

/* Clean rows of ids [0, n) in blocks; returns the number of the first. */
static int add_clean(rd_rows *r, const int32_t *ids, int n, int block)
{
    int first = r->n;

    for (int i = 0; i < n; i++) {
        int end = least(i / block * block + block, n);

        *add(r) = (rd_train_row){ .token = ids[i],
                                  .position = i,
                                  .clean_start = first,
                                  .clean_end = first + end,
                                  .label = -1 };
    }
    return first;
}

void rd_rows_next_token(rd_rows *r, const rd_objective_tokens *t, const int32_t *ids, int n)
{
    int first = add_clean(r, ids, n - 1, 1);

    for (int i = 0; i < n; i++) {
        *add(r) = (rd_train_row){ .token = t->mask,
                                  .position = i,
                                  .clean_start = first,
                                  .clean_end = first + i,
                                  .own_start = r->n - 1,
                                  .own_end = r->n,
                                  .weight = 1.0f,
                                  .task = RD_TASK_NEXT,
                                  .label = is_control(t, ids[i]) ? -1 : ids[i] };
    }
}

/* A share to mask: uniform, half of the time from the middle, never below one of the block. */
static float draw_rate(rd_random *random, int block)
{
    float rate = (float)rd_random_unit(random);

    if (rd_random_below(random, 2)) rate = 0.3f + 0.5f * rate;
    return rate * (float)block < 1.0f ? 1.0f / (float)block : rate;
}

/* Another token: one of the same document, or any that is text. */
static int32_t wrong_token(const rd_objective_tokens *t, const int32_t *ids, int n,
                           rd_random *random)
{
    for (int tries = 0; tries < 8; tries++) {
        int32_t id = rd_random_below(random, 2)
                         ? ids[rd_random_below(random, (uint32_t)n)]
                         : (int32_t)rd_random_below(random, (uint32_t)t->vocab);

        if (!is_control(t, id)) return id;
    }
    return t->mask;
}

/* One noisy copy of a block: `hidden` says which of its tokens are masked. */
static void add_noisy_block(rd_rows *r, const rd_objective_tokens *t, const rd_noise *noise,
                            const int32_t *ids, int n, int first, int start, const bool *hidden,
                            float weight, rd_random *random)
{
    int own = r->n, len = least(noise->block, n - start);

    for (int i = 0; i < len; i++) {
        int32_t id = ids[start + i];
        rd_train_row *row = add(r);
        bool control = is_control(t, id);

        *row = (rd_train_row){ .token = id,
                               .position = start + i,
                               .clean_start = first,
                               .clean_end = first + start,
                               .own_start = own,
                               .own_end = own + len,
                               .label = -1,
                               .task = RD_TASK_BLOCK };
        if (control) continue;
        if (hidden[i]) {
            row->token = t->mask;
            row->label = id;
            row->weight = weight;
        } else if (noise->wrong > 0.0f) {
            row->task = RD_TASK_EDIT;
            row->label = id;
            row->weight = keep_weight;
            if (rd_random_unit(random) >= (double)noise->wrong) continue;
            row->token = wrong_token(t, ids, n, random);
            row->weight = 1.0f;
        }
    }
}

void rd_rows_blocks(rd_rows *r, const rd_objective_tokens *t, const rd_noise *noise,
                    const int32_t *ids, int n, rd_random *random)
{
    int last =
        (n - 1) / noise->block * noise->block; /* nobody looks at the last block's clean rows */
    int first = add_clean(r, ids, last, noise->block);
    bool *hidden = rd_alloc_array((size_t)noise->block, sizeof *hidden);

    for (int start = 0; start < n; start += noise->block) {
        int len = least(noise->block, n - start), masked = 0;
        float rate = draw_rate(random, noise->block);

        for (int i = 0; i < len; i++) {
            hidden[i] = rd_random_unit(random) < (double)rate;
            masked += hidden[i];
        }
        if (masked == 0) hidden[rd_random_below(random, (uint32_t)len)] = true;
        float weight = 1.0f / rate < rate_weight_most ? 1.0f / rate : rate_weight_most;

        if (noise->pair) weight = 1.0f; /* the two copies ask for every token once */
        add_noisy_block(r, t, noise, ids, n, first, start, hidden, weight, random);
        if (!noise->pair) continue;
        for (int i = 0; i < len; i++) hidden[i] = !hidden[i];
        add_noisy_block(r, t, noise, ids, n, first, start, hidden, weight, random);
    }
    free(hidden);
}

/* ---- holes ---- */

typedef struct slot {
    int32_t token, label;
    float weight;
} slot;

static slot hidden_slot(const rd_objective_tokens *t, int32_t label)
{
    bool length = label == t->del || label == t->split;

    return (slot){ t->mask, label, length ? length_weight : 1.0f };
}

/* The canvas for `n` tokens: masks and shown tokens, and one run of masks that may be too long or
 * too short. `room` bounds it. Returns its length. */
static int fill_canvas(slot *out, const rd_objective_tokens *t, const int32_t *text, int n,
                       int room, rd_random *random)
{
    float rate = rd_random_below(random, 2) ? 1.0f : 0.1f + 0.9f * (float)rd_random_unit(random);
    float kind = (float)rd_random_unit(random);
    int m = 0, run_start, run_end;
    bool *hidden = rd_alloc_array((size_t)n + 1, sizeof *hidden);

    for (int i = 0; i < n; i++) hidden[i] = rate >= 1.0f || rd_random_unit(random) < (double)rate;
    run_start = n > 0 ? (int)rd_random_below(random, (uint32_t)n) : 0;
    if (n > 0) hidden[run_start] = true;
    run_end = run_start;
    while (run_start > 0 && hidden[run_start - 1]) run_start--;
    while (run_end < n && hidden[run_end]) run_end++;

    int run = run_end - run_start, shown = run, surplus = 0;

    if (kind < 0.3f && run >= 2)
        shown = 1 + (int)rd_random_below(random, (uint32_t)run - 1);
    else if ((kind >= 0.3f && kind < 0.6f) || n == 0)
        surplus = 1 + (int)rd_random_below(random, (uint32_t)(n / 2 + 8));
    for (int i = 0; i < n && m < room; i++) {
        if (i >= run_start + shown && i < run_end) continue; /* behind the split */
        if (!hidden[i])
            out[m++] = (slot){ text[i], -1, 0.0f };
        else if (shown < run && i == run_start + shown - 1)
            out[m++] = hidden_slot(t, t->split);
        else
            out[m++] = hidden_slot(t, text[i]);
        if (i != run_end - 1) continue;
        for (; surplus > 0 && m < room; surplus--) out[m++] = hidden_slot(t, t->del);
    }
    for (; n == 0 && surplus > 0 && m < room; surplus--) out[m++] = hidden_slot(t, t->del);
    free(hidden);
    return m;
}

/* One noisy copy of the hole's block that begins `done` tokens into its text. A canvas that leaves
 * no room for an anchor fills the whole block, and the hole goes on in the next. */
static void add_hole_block(rd_rows *r, const rd_objective_tokens *t, const rd_hole *hole, int first,
                           int done, slot *canvas, rd_random *random)
{
    int block = hole->block, left = hole->text_n - done, own = r->n;
    int start = hole->context_n + done, m;

    m = fill_canvas(canvas, t, hole->text + done, left, left + block, random);
    if (m > block - ANCHOR_LEAST) {
        for (; m < block; m++) canvas[m] = hidden_slot(t, t->del);
        m = block;
    }
    int len = m + least(block - m, hole->anchor_n);

    for (int i = 0; i < len; i++) {
        slot s = i < m ? canvas[i] : (slot){ hole->anchor[i - m], -1, 0.0f };

        *add(r) = (rd_train_row){ .token = s.token,
                                  .position = start + i,
                                  .clean_start = first,
                                  .clean_end = first + start,
                                  .own_start = own,
                                  .own_end = own + len,
                                  .label = s.label,
                                  .weight = s.weight,
                                  .task = RD_TASK_HOLE };
    }
}

/* ---- drafts ---- */

enum { ALIGN_MOST = 256 };

/* length[i][j]: of the longest common subsequence of draft[i..] and text[j..]. */
static uint16_t *common_lengths(const int32_t *draft, int n, const int32_t *text, int m)
{
    uint16_t *length = rd_alloc_array((size_t)(n + 1) * (size_t)(m + 1), sizeof *length);

    for (int i = n - 1; i >= 0; i--) {
        for (int j = m - 1; j >= 0; j--) {
            uint16_t *at = length + i * (m + 1) + j;

            *at = at[1] > at[m + 1] ? at[1] : at[m + 1];
            if (draft[i] == text[j] && at[m + 2] + 1 > *at) *at = (uint16_t)(at[m + 2] + 1);
        }
    }
    return length;
}

void rd_draft_labels(const rd_objective_tokens *t, const int32_t *draft, int n, const int32_t *text,
                     int text_n, int32_t *label)
{
    int m = least(text_n, ALIGN_MOST), i = 0, j = 0;
    uint16_t *length = common_lengths(draft, n, text, m);

    while (i <= n) {
        int gap = i, from = j;

        /* Up to the next token that both share, or the end of both. */
        while (i < n && j < m &&
               !(draft[i] == text[j] &&
                 length[i * (m + 1) + j] == length[(i + 1) * (m + 1) + j + 1] + 1)) {
            if (length[(i + 1) * (m + 1) + j] >= length[i * (m + 1) + j + 1])
                i++;
            else
                j++;
        }
        bool last = i == n || j == m;

        if (last) {
            i = n + 1; /* the mask behind the draft belongs to the last gap */
            j = m;
        }
        int slots = i - gap, missing = j - from;

        for (int k = 0; k < slots; k++) label[gap + k] = k < missing ? text[from + k] : t->del;
        if (last) {
            if (missing > slots) label[n] = t->split;
            break;
        }
        label[i] = missing > slots ? t->split : draft[i];
        i++;
        j++;
    }
    free(length);
}

static void add_draft(rd_rows *r, const rd_objective_tokens *t, const rd_hole *hole, int first,
                      const rd_draft_ids *draft)
{
    int own = r->n, len = draft->n + 1, start = hole->context_n;
    int rows = len + least(hole->block - len, hole->anchor_n);
    int32_t *label = rd_alloc_array((size_t)len, sizeof *label);

    rd_draft_labels(t, draft->id, draft->n, hole->text, hole->text_n, label);
    for (int i = 0; i < rows; i++) {
        rd_train_row row = { .position = start + i,
                             .clean_start = first,
                             .clean_end = first + start,
                             .own_start = own,
                             .own_end = own + rows,
                             .label = -1,
                             .task = RD_TASK_EDIT };

        if (i >= len) {
            row.token = hole->anchor[i - len];
        } else {
            bool length = label[i] == t->del || label[i] == t->split;

            row.token = i < draft->n ? draft->id[i] : t->mask;
            row.label = label[i];
            row.weight = label[i] == row.token ? keep_weight : length ? draft_length_weight : 1.0f;
        }
        *add(r) = row;
    }
    free(label);
}

/* A block of the context, partly masked. */
static void ask_context(rd_rows *r, const rd_objective_tokens *t, const rd_hole *hole, int first,
                        rd_random *random)
{
    rd_noise noise = { .block = hole->block };
    int start =
        (int)rd_random_below(random, (uint32_t)(hole->context_n / hole->block)) * hole->block;
    float rate = draw_rate(random, hole->block);
    float weight = 1.0f / rate < rate_weight_most ? 1.0f / rate : rate_weight_most;
    bool *hidden = rd_alloc_array((size_t)hole->block, sizeof *hidden);

    for (int i = 0; i < hole->block; i++) hidden[i] = rd_random_unit(random) < (double)rate;
    add_noisy_block(r, t, &noise, hole->context, hole->context_n, first, start, hidden, weight,
                    random);
    free(hidden);
}

void rd_rows_hole(rd_rows *r, const rd_objective_tokens *t, const rd_hole *hole, rd_random *random)
{
    int whole =
        hole->text_n / hole->block * hole->block; /* of the hole, seen by its later blocks */
    rd_ids clean = { 0 };
    slot *canvas = rd_alloc_array((size_t)(hole->text_n + 2 * hole->block), sizeof *canvas);

    if (whole == hole->text_n && whole > 0) whole -= hole->block;
    rd_ids_append(&clean, hole->context, hole->context_n);
    rd_ids_append(&clean, hole->text, whole);
    int first = add_clean(r, clean.id, clean.n, hole->block);

    for (int done = 0; done <= whole; done += hole->block)
        for (int v = 0; v < hole->versions; v++)
            add_hole_block(r, t, hole, first, done, canvas, random);
    for (int i = 0; i < hole->n_drafts; i++)
        if (hole->drafts[i].n <= hole->block - ANCHOR_LEAST - 1)
            add_draft(r, t, hole, first, &hole->drafts[i]);
    for (int i = 0; i < hole->context_copies; i++) ask_context(r, t, hole, first, random);
    free(canvas);
    rd_ids_clear(&clean);
}
