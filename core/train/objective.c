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

static const rd_objective_options defaults = { .rate_most = 1.0f,
                                               .rate_middle = 0.5f,
                                               .rate_weight = 5.0f,
                                               .canvas_full = 0.5f,
                                               .canvas_short = 0.3f,
                                               .canvas_long = 0.3f,
                                               .lengths = true,
                                               .keep_weight = 0.5f,
                                               .length_weight = 3.0f,
                                               .draft_length_weight = 1.5f };

rd_objective_options rd_objective_defaults(void)
{
    return defaults;
}

static const rd_objective_options *options_of(const rd_objective_tokens *t)
{
    return t->options ? t->options : &defaults;
}

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

/* A share to mask: uniform or from the middle, clipped, never below one of the block. */
static float draw_rate(const rd_objective_options *o, rd_random *random, int block)
{
    float rate = (float)rd_random_unit(random);

    if (rd_random_unit(random) < (double)o->rate_middle) rate = 0.3f + 0.5f * rate;
    if (rate < o->rate_least) rate = o->rate_least;
    if (rate > o->rate_most) rate = o->rate_most;
    return rate * (float)block < 1.0f ? 1.0f / (float)block : rate;
}

static float rate_weight(const rd_objective_options *o, float rate)
{
    return 1.0f / rate < o->rate_weight ? 1.0f / rate : o->rate_weight;
}

/* One noisy copy of a block: `hidden` says which of its tokens are masked. */
static void add_noisy_block(rd_rows *r, const rd_objective_tokens *t, const rd_noise *noise,
                            const int32_t *ids, int n, int first, int start, const bool *hidden,
                            float weight)
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
        } else if (noise->instead) {
            int32_t instead = noise->instead[start + i];

            row->task = RD_TASK_EDIT;
            row->label = id;
            row->weight = options_of(t)->keep_weight;
            if (instead < 0 || instead == id) continue;
            row->token = instead;
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
        float rate = draw_rate(options_of(t), random, noise->block);

        for (int i = 0; i < len; i++) {
            hidden[i] = rd_random_unit(random) < (double)rate;
            masked += hidden[i];
        }
        if (masked == 0) hidden[rd_random_below(random, (uint32_t)len)] = true;
        float weight = rate_weight(options_of(t), rate);

        if (noise->pair) weight = 1.0f; /* the two copies ask for every token once */
        add_noisy_block(r, t, noise, ids, n, first, start, hidden, weight);
        if (!noise->pair) continue;
        for (int i = 0; i < len; i++) hidden[i] = !hidden[i];
        add_noisy_block(r, t, noise, ids, n, first, start, hidden, weight);
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

    return (slot){ t->mask, label, length ? options_of(t)->length_weight : 1.0f };
}

/* The canvas for `n` tokens: masks and shown tokens, and one run of masks that may be too long or
 * too short. `room` bounds it. Returns its length. */
static int fill_canvas(slot *out, const rd_objective_tokens *t, const int32_t *text, int n,
                       int room, rd_random *random)
{
    const rd_objective_options *o = options_of(t);
    bool full = rd_random_unit(random) < (double)o->canvas_full;
    float rate = full ? 1.0f : 0.1f + 0.9f * (float)rd_random_unit(random);
    float kind = o->lengths ? (float)rd_random_unit(random) : 1.0f;
    float wrong = o->canvas_short + o->canvas_long;
    int m = 0, run_start, run_end;
    bool *hidden = rd_alloc_array((size_t)n + 1, sizeof *hidden);

    for (int i = 0; i < n; i++) hidden[i] = rate >= 1.0f || rd_random_unit(random) < (double)rate;
    run_start = n > 0 ? (int)rd_random_below(random, (uint32_t)n) : 0;
    if (n > 0) hidden[run_start] = true;
    run_end = run_start;
    while (run_start > 0 && hidden[run_start - 1]) run_start--;
    while (run_end < n && hidden[run_end]) run_end++;

    int run = run_end - run_start, shown = run, surplus = 0;

    if (kind < o->canvas_short && run >= 2)
        shown = 1 + (int)rd_random_below(random, (uint32_t)run - 1);
    else if ((kind >= o->canvas_short && kind < wrong) || (n == 0 && o->lengths))
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
    if (m > block) m = block;
    if (m > block - ANCHOR_LEAST && options_of(t)->lengths) {
        for (; m < block; m++) canvas[m] = hidden_slot(t, t->del);
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
    const rd_objective_options *o = options_of(t);
    int own = r->n, start = hole->context_n + draft->done, len = least(draft->n + 1, hole->block);
    int rows = len + least(hole->block - len, hole->anchor_n);
    int32_t *label = rd_alloc_array((size_t)draft->n + 1, sizeof *label);

    rd_draft_labels(t, draft->id, draft->n, hole->text + draft->done,
                    (draft->until ? draft->until : hole->text_n) - draft->done, label);
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

            bool tag = i < draft->n && draft->id[i] != t->mask && is_control(t, draft->id[i]);

            row.token = i < draft->n ? draft->id[i] : t->mask;
            if (!tag && (o->lengths || !length)) row.label = label[i];
            row.weight = label[i] == row.token ? o->keep_weight
                         : length              ? o->draft_length_weight
                                               : 1.0f;
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
    float rate = draw_rate(options_of(t), random, hole->block);
    bool *hidden = rd_alloc_array((size_t)hole->block, sizeof *hidden);

    for (int i = 0; i < hole->block; i++) hidden[i] = rd_random_unit(random) < (double)rate;
    add_noisy_block(r, t, &noise, hole->context, hole->context_n, first, start, hidden,
                    rate_weight(options_of(t), rate));
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
    for (int i = 0; i < hole->n_drafts; i++) add_draft(r, t, hole, first, &hole->drafts[i]);
    for (int i = 0; i < hole->context_copies; i++) ask_context(r, t, hole, first, random);
    free(canvas);
    rd_ids_clear(&clean);
}
