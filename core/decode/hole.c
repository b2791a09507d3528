/* hole.c - the passes of a hole: the first over drafts and lengths, the others over the canvases that are left. */
#include "core/decode/hole.h"

#include "core/base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_GUESS = 12 }; /* masks of a hole of unknown length, where no lengths are compared */

enum { LENGTHS = RD_HOLE_CANVASES_MOST, WINDOWS_MOST = LENGTHS + RD_HOLE_DRAFTS_MOST };

/* Lengths of the first pass: for models that can change it, and for those that cannot. */
static const int lengths_begun[LENGTHS] = { 1, 2, 4, 7, 12, 20 };
static const int lengths_fixed[LENGTHS] = { 2, 4, 8, 12, 16, 24 };

typedef struct draft {
    rd_ids ids;
    float alike, right; /* right: the probability that it is so */
    double sure, end;
    rd_pick picks[RD_HOLE_BLOCK_MOST];
    bool scored;
} draft;

struct rd_hole_run {
    rd_hole_options o;
    rd_canvas_rules rules;
    rd_sequence sequence;
    rd_ids context, anchor;
    rd_canvas canvas[LENGTHS]; /* the likeliest length first */
    int n_canvases;
    bool started, done;
    int forwards;
    float confidence;
    int32_t *banned; /* n_banned ids; those with delete and split stand behind them, sorted again */
    int n_banned;
    int32_t *banned_plain;
    int n_banned_plain;
    draft drafts[RD_HOLE_DRAFTS_MOST];
    int n_drafts;
    /* Of the first pass over several lengths: that masks are missing, or too many, at each canvas's end. */
    float missing[LENGTHS], surplus[LENGTHS];
    int n_lengths;
    rd_window window[WINDOWS_MOST];
    rd_pick picks[WINDOWS_MOST * RD_HOLE_BLOCK_MOST];
};

static int compare_ids(const void *x, const void *y)
{
    int32_t a = *(const int32_t *)x, b = *(const int32_t *)y;

    return (a > b) - (a < b);
}

static void collect_banned(rd_hole_run *h, const rd_hole_options *o)
{
    size_t n = (size_t)o->n_banned;

    h->banned = rd_alloc_array(n + 3, sizeof *h->banned);
    h->banned_plain = rd_alloc_array(n + 3, sizeof *h->banned);
    if (n) memcpy(h->banned, o->banned, n * sizeof *h->banned);
    h->banned[n] = o->rules.ids.mask;
    memcpy(h->banned_plain, h->banned, (n + 1) * sizeof *h->banned);
    h->n_banned = h->n_banned_plain = (int)n + 1;
    if (o->rules.ids.del >= 0) h->banned_plain[h->n_banned_plain++] = o->rules.ids.del;
    if (o->rules.ids.split >= 0) h->banned_plain[h->n_banned_plain++] = o->rules.ids.split;
    qsort(h->banned, (size_t)h->n_banned, sizeof *h->banned, compare_ids);
    qsort(h->banned_plain, (size_t)h->n_banned_plain, sizeof *h->banned, compare_ids);
}

rd_status rd_hole_open(const rd_hole_options *o, const int32_t *context, int context_n,
                       const int32_t *seed, int seed_n, const int32_t *anchor, int anchor_n,
                       rd_hole_run **out, rd_error *err)
{
    int block = rd_model_block_size(o->model);

    if (block > RD_HOLE_BLOCK_MOST || block <= RD_ANCHOR_LEAST)
        return rd_fail(err, RD_INVALID, "holes need blocks of %d to %d, not %d",
                       RD_ANCHOR_LEAST + 1, RD_HOLE_BLOCK_MOST, block);
    if (context_n % block)
        return rd_fail(err, RD_INVALID, "a context of %d tokens does not end on a block",
                       context_n);
    if (context_n / block + o->rules.tokens_most / block + 2 > rd_model_kv_blocks(o->model))
        return rd_fail(err, RD_INVALID, "a context of %d tokens and a hole of %d do not fit",
                       context_n, o->rules.tokens_most);
    rd_hole_run *h = rd_alloc0(sizeof *h);

    h->o = *o;
    h->sequence = (rd_sequence){
        .model = o->model, .pool = o->pool, .exchange = o->exchange, .origin = o->origin
    };
    rd_ids_append(&h->context, context, context_n);
    rd_ids_append(&h->anchor, anchor, anchor_n);
    h->rules = o->rules;
    h->rules.block = block;
    h->rules.anchor = h->anchor.id;
    h->rules.anchor_n = h->anchor.n;
    h->rules.rewriting = seed_n > 0;
    h->rules.fixed = o->tokens > 0 || (seed_n > 0 && o->rules.ids.del < 0);
    collect_banned(h, o);
    h->n_canvases = 1;
    h->canvas[0].length = 1.0f;
    if (seed_n > 0)
        rd_canvas_seed(&h->canvas[0], &h->rules, seed, seed_n);
    else
        rd_canvas_add_masks(&h->canvas[0], &h->rules, o->tokens > 0 ? o->tokens : FIRST_GUESS);
    for (int i = 0; i < o->n_drafts && i < RD_HOLE_DRAFTS_MOST; i++) {
        draft *d = &h->drafts[h->n_drafts];

        if (o->drafts[i].n > o->rules.tokens_most ||
            (h->rules.fixed && o->drafts[i].n != o->tokens))
            continue;
        rd_ids_append(&d->ids, o->drafts[i].id, o->drafts[i].n);
        d->alike = o->drafts[i].alike;
        h->n_drafts++;
    }
    h->o.drafts = NULL;
    *out = h;
    return RD_OK;
}

void rd_hole_close(rd_hole_run *h)
{
    if (!h) return;
    rd_sequence_clear(&h->sequence);
    rd_ids_clear(&h->context);
    rd_ids_clear(&h->anchor);
    for (int i = 0; i < h->n_drafts; i++) rd_ids_clear(&h->drafts[i].ids);
    for (int i = 0; i < LENGTHS; i++) rd_canvas_clear(&h->canvas[i]);
    free(h->banned);
    free(h->banned_plain);
    free(h);
}

/* ---- passes ---- */

/* One pass over the next `tail` tokens of the context, which are kept, and the windows; picks of window i
 * stand from i * RD_HOLE_BLOCK_MOST on. The last slots of the first `lengths` windows are asked a second time: how
 * likely a split is. That pick stands behind the others. */
static rd_status run_pass(rd_hole_run *h, int tail, int windows, int lengths, rd_error *err)
{
    int block = h->rules.block, most = tail + windows * (block + 1), rows = 0, asked = 0;
    int counts[WINDOWS_MOST], from = h->sequence.n * block;
    bool plain = h->rules.fixed || (h->n_canvases == 1 && h->canvas[0].settled_length);
    int32_t *token = rd_alloc_array(4 * (size_t)most, sizeof *token);
    int32_t *position = token + most, *row = position + most, *watched = row + most;
    rd_pick *picks = rd_alloc_array((size_t)most, sizeof *picks);

    for (; rows < tail; rows++) {
        token[rows] = h->context.id[from + rows];
        position[rows] = from + rows;
    }
    for (int b = 0; b < windows; b++) {
        const rd_window *w = &h->window[b];
        int len = windows > 1 ? block : w->rows;

        counts[b] = w->rows;
        for (int i = 0; i < len; i++, rows++) {
            token[rows] = i < w->rows ? w->token[i] : h->rules.ids.mask;
            position[rows] = from + tail + i;
            if (i >= w->slots) continue;
            watched[asked] = w->watched[i];
            row[asked++] = rows;
            if (b >= lengths || i < w->slots - 1) continue;
            watched[asked] = h->rules.ids.split;
            row[asked++] = rows;
        }
    }
    rd_pick_query q = { .banned = plain ? h->banned_plain : h->banned,
                        .n_banned = plain ? h->n_banned_plain : h->n_banned,
                        .limit = h->o.limit,
                        .watched = watched,
                        .rows = row,
                        .n_rows = asked };
    rd_pass pass = { .tokens = token,
                     .positions = position,
                     .rows = rows,
                     .query = &q,
                     .picks = picks,
                     .cancel = h->o.cancel };

    if (windows > 1) pass.branches = (rd_branches){ tail, block, counts };
    rd_status status = rd_sequence_pass(&h->sequence, tail, &pass, err);

    asked = 0;
    for (int b = 0; b < windows && !status; b++)
        for (int i = 0; i < h->window[b].slots + (b < lengths); i++)
            h->picks[b * RD_HOLE_BLOCK_MOST + i] = picks[asked++];
    h->forwards++;
    free(token);
    free(picks);
    return status;
}

/* ---- what the first pass says ---- */

/* A length for models that cannot change it, from one pass over several. */
static int surest_length(const rd_hole_run *h, int windows)
{
    double best = -1.0;
    int found = 0;

    for (int b = 0; b < windows; b++) {
        double sum = 0.0, x = h->window[b].slots;

        for (int k = 0; k < h->window[b].slots; k++)
            sum += (double)h->picks[b * RD_HOLE_BLOCK_MOST + k].prob;
        /* The mean falls with the length whatever the text; the fit is the paper's, for another model. */
        double usual = exp(-1.77 * x) + 0.56 * exp(-0.06 * x) + 0.24;
        double score = sum / x / usual;

        if (score <= best) continue;
        best = score;
        found = b;
    }
    return found;
}

static double log_odds(float p)
{
    double x = p < 1e-6f ? 1e-6 : p > 1.0f - 1e-6f ? 1.0 - 1e-6 : (double)p;

    return log(x / (1.0 - x));
}

/* That a canvas of n masks has the right length: nothing missing, nothing too many; between the lengths that
 * were asked for, along a line in log odds. */
static float length_chance(const rd_hole_run *h, int n)
{
    int at = 0;

    if (h->n_lengths == 0) return 1.0f;
    while (at + 1 < h->n_lengths - 1 && lengths_begun[at + 1] < n) at++;
    int next = at + 1 < h->n_lengths ? at + 1 : at;
    double reach = next > at
                       ? (double)(n - lengths_begun[at]) / (lengths_begun[next] - lengths_begun[at])
                       : 0.0;
    double odds[2];

    reach = reach < 0.0 ? 0.0 : reach > 1.0 ? 1.0 : reach;
    for (int k = 0; k < 2; k++) {
        const float *p = k ? h->surplus : h->missing;

        odds[k] = (1.0 - reach) * log_odds(p[at]) + reach * log_odds(p[next]);
    }
    double fits = 1.0 - 1.0 / (1.0 + exp(-odds[0])) - 1.0 / (1.0 + exp(-odds[1]));

    return (float)(fits > 1e-5 ? fits : 1e-5);
}

static float chance(const rd_calibration *c, double sure, float length, double end, int tokens,
                    float alike)
{
    double x = (double)c->base + (double)c->sure * sure + (double)c->length * rd_log_of(length) +
               (double)c->end * end + (double)c->tokens * tokens + (double)c->alike * (double)alike;

    return (float)(1.0 / (1.0 + exp(-x)));
}

static bool fits_block(const rd_hole_run *h, const draft *d)
{
    return d->ids.n + 1 <= h->rules.block - RD_ANCHOR_LEAST;
}

static void score_draft(rd_hole_run *h, draft *d, int window_at)
{
    const rd_window *w = &h->window[window_at];

    memcpy(d->picks, h->picks + window_at * RD_HOLE_BLOCK_MOST, (size_t)w->slots * sizeof(rd_pick));
    for (int i = 0; i < d->ids.n; i++) d->sure += rd_log_of(d->picks[i].watched_prob);
    if (w->slots > d->ids.n) d->end = rd_log_of(d->picks[d->ids.n].watched_prob);
    d->scored = true;
    d->right =
        chance(&h->o.drafted, d->sure, length_chance(h, d->ids.n), d->end, d->ids.n, d->alike);
}

/* The first is the one that the surroundings speak for; the model's scores tell how likely, not which. */
static const draft *best_draft(const rd_hole_run *h)
{
    return h->n_drafts > 0 ? &h->drafts[0] : NULL;
}

/* The hole's text is the draft. */
static void take_draft(rd_hole_run *h, const draft *d)
{
    h->n_canvases = 1;
    rd_canvas_set(&h->canvas[0], d->ids.id, d->ids.n);
    for (int i = 0; i < d->ids.n; i++)
        h->canvas[0].slots[i].prob = d->scored ? d->picks[i].watched_prob : d->right;
    h->confidence = d->right;
    h->done = true;
}

/* ---- canvases ---- */

static void drop_canvas(rd_hole_run *h, int at)
{
    rd_canvas dropped = h->canvas[at];

    h->n_canvases--;
    memmove(h->canvas + at, h->canvas + at + 1, (size_t)(h->n_canvases - at) * sizeof dropped);
    rd_canvas_clear(&dropped);
    h->canvas[h->n_canvases] = (rd_canvas){ 0 };
}

/* The probability that the text as it stands is right; of an unfinished one, the most that it can still become. */
static float own_chance(const rd_hole_run *h, const rd_canvas *c)
{
    if (h->rules.rewriting) return (float)exp(rd_canvas_stands(c));
    return chance(&h->o.own, rd_canvas_chosen(c), c->length, 0.0, c->n, 0.0f);
}

static void compose_draft(const rd_hole_run *h, const draft *d, rd_window *w)
{
    int32_t token[RD_HOLE_BLOCK_MOST];
    int n = d->ids.n;

    memcpy(token, d->ids.id, (size_t)n * sizeof *token);
    memcpy(w->watched, d->ids.id, (size_t)n * sizeof *token);
    if (h->rules.ids.del >=
        0) { /* a mask behind it, where the model could say that more is missing */
        w->watched[n] = h->rules.ids.del;
        token[n++] = h->rules.ids.mask;
    }
    rd_window_set(&h->rules, token, n, w);
}

/* Canvases of several lengths; returns their number. */
static int begin_lengths(rd_hole_run *h, const int *length)
{
    int n = 0;

    for (; n < LENGTHS; n++) {
        if (length[n] > h->rules.tokens_most || length[n] > h->rules.block - RD_ANCHOR_LEAST) break;
        h->canvas[n].n = 0;
        h->canvas[n].length = 1.0f;
        rd_canvas_add_masks(&h->canvas[n], &h->rules, length[n]);
    }
    if (n == 0) n = 1; /* the guess that is there */
    return n;
}

static void swap(void *x, void *y, size_t n)
{
    char *a = x, *b = y;

    for (size_t i = 0; i < n; i++) {
        char kept = a[i];

        a[i] = b[i];
        b[i] = kept;
    }
}

/* A canvas, its window and its picks. */
static void swap_canvases(rd_hole_run *h, int i, int k)
{
    if (i == k) return;
    swap(&h->canvas[i], &h->canvas[k], sizeof *h->canvas);
    swap(&h->window[i], &h->window[k], sizeof *h->window);
    swap(h->picks + i * RD_HOLE_BLOCK_MOST, h->picks + k * RD_HOLE_BLOCK_MOST,
         RD_HOLE_BLOCK_MOST * sizeof *h->picks);
}

static int likeliest_from(const rd_hole_run *h, int from)
{
    int best = from;

    for (int i = from + 1; i < h->n_canvases; i++)
        if (h->canvas[i].length > h->canvas[best].length) best = i;
    return best;
}

/* Those lengths that are likeliest, in this order; the longest alone where even it is too short. */
static void keep_likeliest(rd_hole_run *h, int most)
{
    int last = h->n_lengths - 1;

    for (int i = 0; i < h->n_lengths; i++) {
        const rd_pick *end = &h->picks[i * RD_HOLE_BLOCK_MOST + h->window[i].slots - 1];

        h->surplus[i] = end[0].watched_prob;
        h->missing[i] = end[1].watched_prob;
    }
    for (int i = 0; i < h->n_lengths; i++) h->canvas[i].length = length_chance(h, lengths_begun[i]);
    if (h->missing[last] > 0.5f) {
        swap_canvases(h, 0, last);
        most = 1;
    }
    for (int i = 0; most > 1 && i < h->n_canvases; i++) swap_canvases(h, i, likeliest_from(h, i));
    while (h->n_canvases > most) drop_canvas(h, h->n_canvases - 1);
}

/* The prompt's last blocks, canvases, drafts: one pass. Leaves the canvases' windows in front. */
static rd_status first_pass(rd_hole_run *h, rd_error *err)
{
    bool open = !h->rules.fixed && !h->rules.rewriting, cal = open && h->rules.ids.del < 0;
    bool several = open && !cal && h->o.canvases > 0;
    int tail, at[RD_HOLE_DRAFTS_MOST], most = rd_model_max_rows(h->o.model) / h->rules.block;

    if ((cal || several) && most >= WINDOWS_MOST)
        h->n_canvases = begin_lengths(h, cal ? lengths_fixed : lengths_begun);
    if (several && h->n_canvases > 1) h->n_lengths = h->n_canvases;
    int windows = h->n_canvases;

    for (int i = 0; i < windows; i++) {
        rd_canvas_compose(&h->canvas[i], &h->rules, &h->window[i]);
        if (h->n_lengths > 0) h->window[i].watched[h->window[i].slots - 1] = h->rules.ids.del;
    }
    for (int i = 0; i < h->n_drafts; i++) {
        at[i] = windows < most && fits_block(h, &h->drafts[i]) ? windows : -1;
        if (at[i] > 0) compose_draft(h, &h->drafts[i], &h->window[windows++]);
    }
    int room = rd_model_max_rows(h->o.model) - windows * h->rules.block;

    if (rd_sequence_extend_most(&h->sequence, h->context.id, h->context.n, room, &tail, h->o.cancel,
                                err) ||
        run_pass(h, tail, windows, h->n_lengths, err))
        return err->status;
    h->started = true;
    if (h->n_lengths > 0) {
        keep_likeliest(h, h->o.canvases);
    } else if (cal && h->n_canvases > 1) {
        swap_canvases(h, 0, surest_length(h, h->n_canvases));
        while (h->n_canvases > 1) drop_canvas(h, h->n_canvases - 1);
        h->rules.fixed = true;
    }
    for (int i = 0; i < h->n_drafts; i++) {
        draft *d = &h->drafts[i];

        if (at[i] > 0)
            score_draft(h, d, at[i]);
        else
            d->right = chance(&h->o.copied, 0.0, 1.0f, 0.0, d->ids.n, d->alike);
    }
    return RD_OK;
}

/* ---- steps ---- */

/* The likeliest of the canvases that are finished, or -1. */
static int best_finished(const rd_hole_run *h)
{
    int best = -1;

    for (int i = 0; i < h->n_canvases; i++)
        if (h->canvas[i].done &&
            (best < 0 || own_chance(h, &h->canvas[i]) > own_chance(h, &h->canvas[best])))
            best = i;
    return best;
}

/* What can no longer be the likeliest text goes: its probability only falls while it is filled. */
static void prune(rd_hole_run *h)
{
    int best = best_finished(h);
    float bar = best < 0 ? 0.0f : own_chance(h, &h->canvas[best]);

    for (int i = h->n_canvases - 1; i >= 0; i--)
        if (h->n_canvases > 1 && !h->canvas[i].done && own_chance(h, &h->canvas[i]) < bar)
            drop_canvas(h, i);
}

/* The settled block is committed. */
static rd_status next_block(rd_hole_run *h, rd_error *err)
{
    rd_canvas *c = &h->canvas[0];
    int32_t tokens[RD_BLOCK_MOST];
    int prefilled = h->sequence.prefilled;

    for (int i = 0; i < h->rules.block; i++) tokens[i] = c->slots[c->settled + i].token;
    if (rd_sequence_extend(&h->sequence, tokens, h->rules.block, h->o.cancel, err))
        return err->status;
    h->sequence.prefilled = prefilled;
    rd_canvas_next_block(c, &h->rules);
    return RD_OK;
}

/* Window i belongs to canvas[of[i]]. A canvas that outgrows its block, or whose length never settles, goes on only
 * where it is alone: the one needs a context of its own, the other other picks. */
static rd_status decide(rd_hole_run *h, const int *of, int windows, rd_error *err)
{
    for (int i = windows - 1; i >= 0; i--) {
        rd_canvas *c = &h->canvas[of[i]];
        bool full =
            rd_canvas_decide(c, &h->rules, &h->window[i], h->picks + i * RD_HOLE_BLOCK_MOST);
        bool alone = h->n_canvases == 1;
        bool stuck = !c->done && (c->settled_length || c->n > h->rules.block - RD_ANCHOR_LEAST);

        if (stuck && !alone)
            drop_canvas(h, of[i]);
        else if (full && next_block(h, err))
            return err->status;
    }
    prune(h);
    return RD_OK;
}

/* Nothing is open any more, or what is open cannot become likelier than the draft. */
static bool finished(const rd_hole_run *h)
{
    const draft *best = best_draft(h);

    for (int i = 0; i < h->n_canvases; i++) {
        const rd_canvas *c = &h->canvas[i];

        if (!c->done && !(best && own_chance(h, c) < h->o.lead * best->right)) return false;
    }
    return true;
}

/* The likeliest of what there is: own texts, draft. A draft that no pass has seen is no better than what stands. What is not
 * finished is no text: it falls out. */
static void conclude(rd_hole_run *h)
{
    const draft *best = best_draft(h);
    int own = best_finished(h);

    if (own > 0) swap(&h->canvas[0], &h->canvas[own], sizeof *h->canvas);
    bool whole = rd_canvas_end(&h->canvas[0]);

    h->confidence = own_chance(h, &h->canvas[0]);
    h->done = true;
    for (int i = h->n_canvases - 1; i > 0; i--)
        if (!h->canvas[i].done) drop_canvas(h, i);
    if (best && h->started && (!whole || h->o.lead * best->right > h->confidence))
        take_draft(h, best);
}

rd_status rd_hole_step(rd_hole_run *h, bool *done, rd_error *err)
{
    int of[LENGTHS], windows = 0;
    rd_error local = { 0 };

    if (!err) err = &local;
    *done = h->done;
    if (h->done) return RD_OK;
    if (!h->started) {
        if (first_pass(h, err)) return err->status;
        const draft *best = best_draft(h);

        if (best && best->right > h->o.take_draft) take_draft(h, best);
        for (int i = 0; i < h->n_canvases; i++) of[windows++] = i;
    } else {
        for (int i = 0; i < h->n_canvases; i++) {
            if (h->canvas[i].done) continue;
            rd_canvas_compose(&h->canvas[i], &h->rules, &h->window[windows]);
            of[windows++] = i;
        }
        if ((windows > 1 || h->window[0].slots > 0) && run_pass(h, 0, windows, 0, err))
            return err->status;
    }
    if (!h->done) {
        if (decide(h, of, windows, err)) return err->status;
        h->confidence = own_chance(h, &h->canvas[0]);
        if (finished(h)) conclude(h);
    }
    *done = h->done;
    return RD_OK;
}

void rd_hole_end(rd_hole_run *h)
{
    if (!h->done) conclude(h);
}

const rd_slot *rd_hole_slots(rd_hole_run *h, int *n)
{
    *n = h->canvas[0].n;
    return h->canvas[0].slots;
}

float rd_hole_confidence(const rd_hole_run *h)
{
    return h->confidence;
}

bool rd_hole_full(const rd_hole_run *h)
{
    return h->canvas[0].full;
}

int rd_hole_forwards(const rd_hole_run *h)
{
    return h->forwards;
}

int rd_hole_prefilled(const rd_hole_run *h)
{
    return h->sequence.prefilled;
}

bool rd_hole_text_at(const rd_hole_run *h, int i, rd_hole_text *out, rd_ids *ids)
{
    if (i < h->n_canvases) {
        const rd_canvas *c = &h->canvas[i];

        *out = (rd_hole_text){ .sure = rd_canvas_chosen(c),
                               .length = rd_log_of(c->length),
                               .tokens = c->n,
                               .right = own_chance(h, c) };
        for (int k = 0; k < c->n; k++) rd_ids_push(ids, c->slots[k].token);
        return true;
    }
    if (i >= h->n_canvases + (h->started ? h->n_drafts : 0)) return false;
    const draft *d = &h->drafts[i - h->n_canvases];

    *out = (rd_hole_text){ .sure = d->sure,
                           .length = d->scored ? rd_log_of(length_chance(h, d->ids.n)) : 0.0,
                           .end = d->end,
                           .alike = (double)d->alike,
                           .tokens = d->ids.n,
                           .right = d->right,
                           .draft = true,
                           .scored = d->scored };
    rd_ids_append(ids, d->ids.id, d->ids.n);
    return true;
}
