/* hole.c - compose the open block, pass, decide slot by slot, apply the edits, settle. */
#include "core/decode/hole.h"

#include "core/base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    FIRST_GUESS = 12, /* masks of a hole of unknown length */
    NEXT_GUESS = 8,   /* in a block that follows a full one */
    TRIES_MOST = 2,
    CHECKS_MOST = 3, /* passes over a full canvas */
    PASSES_MOST = 96 /* of one block: more is a model that cannot make up its mind */
};

enum { PROBES = 6, BRANCHES_MOST = PROBES + RD_HOLE_DRAFTS_MOST };

/* The rows of one canvas: slots of the hole, then the anchor. */
typedef struct window {
    int32_t token[RD_HOLE_BLOCK_MOST], watched[RD_HOLE_BLOCK_MOST];
    int slots, rows;
    bool whole; /* no anchor: the hole fills the block */
} window;

typedef struct draft {
    rd_ids ids;
    float alike, right; /* right: the probability that it is so */
    rd_pick picks[RD_HOLE_BLOCK_MOST];
    bool scored;
} draft;

struct rd_hole_run {
    rd_hole_options o;
    rd_sequence sequence;
    rd_ids context, anchor;
    rd_slot *slots;
    int n, cap;
    int settled; /* slots of finished blocks, at the front */
    int block;
    bool started, done, full, rewriting;
    bool fixed;          /* the length is known and stays */
    bool settled_length; /* of the open block: no more deletes and splits */
    int last_edit,
        turns;          /* of the open block: its last delete (-1) or split (1); changes of mind */
    int passes, checks; /* of the open block */
    int forwards;
    float confidence;
    int32_t *banned; /* n_banned ids; those with delete and split stand behind them, sorted again */
    int n_banned;
    int32_t *banned_plain;
    int n_banned_plain;
    draft drafts[RD_HOLE_DRAFTS_MOST];
    int n_drafts;
    window window[BRANCHES_MOST];
    rd_pick picks[BRANCHES_MOST * RD_HOLE_BLOCK_MOST];
};

static int compare_ids(const void *x, const void *y)
{
    int32_t a = *(const int32_t *)x, b = *(const int32_t *)y;

    return (a > b) - (a < b);
}

static void insert(rd_hole_run *h, int at, rd_slot s)
{
    if (h->n == h->cap) {
        h->cap = h->cap ? 2 * h->cap : 64;
        h->slots = rd_resize(h->slots, (size_t)h->cap, sizeof *h->slots);
    }
    memmove(h->slots + at + 1, h->slots + at, (size_t)(h->n - at) * sizeof *h->slots);
    h->slots[at] = s;
    h->n++;
}

static void add_masks(rd_hole_run *h, int n)
{
    for (; n > 0; n--) insert(h, h->n, (rd_slot){ .token = h->o.ids.mask });
}

static void collect_banned(rd_hole_run *h, const rd_hole_options *o)
{
    size_t n = (size_t)o->n_banned;

    h->banned = rd_alloc_array(n + 3, sizeof *h->banned);
    h->banned_plain = rd_alloc_array(n + 3, sizeof *h->banned);
    if (n) memcpy(h->banned, o->banned, n * sizeof *h->banned);
    h->banned[n] = o->ids.mask;
    memcpy(h->banned_plain, h->banned, (n + 1) * sizeof *h->banned);
    h->n_banned = h->n_banned_plain = (int)n + 1;
    if (o->ids.del >= 0) h->banned_plain[h->n_banned_plain++] = o->ids.del;
    if (o->ids.split >= 0) h->banned_plain[h->n_banned_plain++] = o->ids.split;
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
    if (context_n / block + o->tokens_most / block + 2 > rd_model_kv_blocks(o->model))
        return rd_fail(err, RD_INVALID, "a context of %d tokens and a hole of %d do not fit",
                       context_n, o->tokens_most);
    rd_hole_run *h = rd_alloc0(sizeof *h);

    h->o = *o;
    h->block = block;
    h->sequence = (rd_sequence){ .model = o->model, .pool = o->pool };
    rd_ids_append(&h->context, context, context_n);
    rd_ids_append(&h->anchor, anchor, anchor_n);
    h->fixed = o->tokens > 0 || (seed_n > 0 && o->ids.del < 0);
    h->rewriting = seed_n > 0;
    collect_banned(h, o);
    for (int i = 0; i < seed_n; i++)
        insert(h, h->n, (rd_slot){ .token = seed[i], .state = RD_SLOT_FILLED, .seeded = true });
    if (seed_n == 0)
        add_masks(h, o->tokens > 0 ? o->tokens : FIRST_GUESS);
    else if (o->ids.del >= 0)
        insert(h, h->n, (rd_slot){ .token = o->ids.mask, .spare = true });
    for (int i = 0; i < o->n_drafts && i < RD_HOLE_DRAFTS_MOST; i++) {
        draft *d = &h->drafts[h->n_drafts];

        if (o->drafts[i].n > o->tokens_most || (h->fixed && o->drafts[i].n != o->tokens)) continue;
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
    free(h->slots);
    free(h->banned);
    free(h->banned_plain);
    free(h);
}

/* ---- the open block ---- */

static void add_anchor(const rd_hole_run *h, window *w)
{
    w->rows = w->slots;
    for (int i = 0; !w->whole && w->rows < h->block && i < h->anchor.n; i++)
        w->token[w->rows++] = h->anchor.id[i];
}

static void compose(rd_hole_run *h, window *w)
{
    int open = h->n - h->settled;

    w->whole = open >= h->block;
    if (open > h->block - RD_ANCHOR_LEAST && h->anchor.n > 0 && !h->fixed && !h->rewriting)
        w->whole = true;
    if (w->whole && open < h->block) {
        add_masks(h, h->block - open);
        open = h->block;
    }
    w->slots = open < h->block ? open : h->block;
    for (int i = 0; i < w->slots; i++) {
        const rd_slot *s = &h->slots[h->settled + i];

        w->token[i] = s->state == RD_SLOT_MASK ? h->o.ids.mask : s->token;
        w->watched[i] = s->state == RD_SLOT_MASK ? -1 : s->token;
    }
    add_anchor(h, w);
}

/* A draft, and a mask behind it where the model could say that more is missing. */
static void compose_draft(const rd_hole_run *h, const draft *d, window *w)
{
    w->whole = false;
    for (w->slots = 0; w->slots < d->ids.n; w->slots++)
        w->token[w->slots] = w->watched[w->slots] = d->ids.id[w->slots];
    if (h->o.ids.del >= 0) {
        w->watched[w->slots] = h->o.ids.del;
        w->token[w->slots++] = h->o.ids.mask;
    }
    add_anchor(h, w);
}

static void compose_masks(const rd_hole_run *h, int n, window *w)
{
    w->whole = false;
    for (w->slots = 0; w->slots < n; w->slots++) {
        w->token[w->slots] = h->o.ids.mask;
        w->watched[w->slots] = -1;
    }
    add_anchor(h, w);
}

/* One pass over the next `tail` tokens of the context, which are kept, and the windows; picks of window i
 * stand from i * RD_HOLE_BLOCK_MOST on. */
static rd_status run_pass(rd_hole_run *h, int tail, int windows, rd_error *err)
{
    int most = tail + windows * h->block, rows = 0, asked = 0, counts[BRANCHES_MOST];
    bool plain = h->fixed || h->settled_length;
    int32_t *token = rd_alloc_array(4 * (size_t)most, sizeof *token);
    int32_t *position = token + most, *row = position + most, *watched = row + most;
    rd_pick *picks = rd_alloc_array((size_t)most, sizeof *picks);
    int from = h->sequence.n * h->block;

    for (; rows < tail; rows++) {
        token[rows] = h->context.id[from + rows];
        position[rows] = from + rows;
    }
    for (int b = 0; b < windows; b++) {
        const window *w = &h->window[b];
        int len = windows > 1 ? h->block : w->rows;

        counts[b] = w->rows;
        for (int i = 0; i < len; i++, rows++) {
            token[rows] = i < w->rows ? w->token[i] : h->o.ids.mask;
            position[rows] = from + tail + i;
            if (i >= w->slots) continue;
            watched[asked] = w->watched[i];
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

    if (windows > 1) pass.branches = (rd_branches){ tail, h->block, counts };
    rd_status status = rd_sequence_pass(&h->sequence, tail, &pass, err);

    asked = 0;
    for (int b = 0; b < windows && !status; b++)
        for (int i = 0; i < h->window[b].slots; i++)
            h->picks[b * RD_HOLE_BLOCK_MOST + i] = picks[asked++];
    h->forwards++;
    free(token);
    free(picks);
    return status;
}

/* ---- the first pass ---- */

static const int probed[PROBES] = { 2, 4, 8, 12, 16, 24 };

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

static float chance(const rd_calibration *c, double sure, double end, int tokens, float alike)
{
    double x = (double)c->base + (double)c->sure * sure + (double)c->end * end +
               (double)c->tokens * tokens + (double)c->alike * (double)alike;

    return (float)(1.0 / (1.0 + exp(-x)));
}

static double log_of(float p)
{
    return log((double)(p > 1e-6f ? p : 1e-6f));
}

static bool fits_block(const rd_hole_run *h, const draft *d)
{
    return d->ids.n + 1 <= h->block - RD_ANCHOR_LEAST;
}

static void score_draft(rd_hole_run *h, draft *d, int window_at)
{
    const window *w = &h->window[window_at];
    double sure = 0.0, end = 0.0;

    memcpy(d->picks, h->picks + window_at * RD_HOLE_BLOCK_MOST, (size_t)w->slots * sizeof(rd_pick));
    for (int i = 0; i < d->ids.n; i++) sure += log_of(d->picks[i].watched_prob);
    if (w->slots > d->ids.n) end = log_of(d->picks[d->ids.n].watched_prob);
    d->scored = true;
    d->right = chance(&h->o.drafted, sure, end, d->ids.n, d->alike);
}

/* The first is the one that the surroundings speak for; the model's scores tell how likely, not which. */
static const draft *best_draft(const rd_hole_run *h)
{
    return h->n_drafts > 0 ? &h->drafts[0] : NULL;
}

/* The hole's text is the draft. */
static void take_draft(rd_hole_run *h, const draft *d)
{
    h->n = h->settled = 0;
    for (int i = 0; i < d->ids.n; i++)
        insert(h, h->n,
               (rd_slot){ .token = d->ids.id[i],
                          .state = RD_SLOT_SETTLED,
                          .prob = d->scored ? d->picks[i].watched_prob : d->right });
    h->confidence = d->right;
    h->full = false;
    h->done = true;
}

/* The prompt's last blocks, the canvas, drafts, lengths: one pass. Leaves the canvas in window 0. */
static rd_status first_pass(rd_hole_run *h, rd_error *err)
{
    int windows = 0, probes, tail, at[RD_HOLE_DRAFTS_MOST];
    bool probing = !h->fixed && h->o.ids.del < 0 && !h->rewriting;

    for (int i = 0; probing && i < PROBES; i++) {
        if (probed[i] > h->o.tokens_most || probed[i] > h->block - RD_ANCHOR_LEAST) break;
        compose_masks(h, probed[i], &h->window[windows++]);
    }
    probes = windows;
    if (windows == 0) compose(h, &h->window[windows++]);
    for (int i = 0; i < h->n_drafts; i++) {
        at[i] = windows < BRANCHES_MOST && fits_block(h, &h->drafts[i]) ? windows : -1;
        if (at[i] > 0) compose_draft(h, &h->drafts[i], &h->window[windows++]);
    }
    int room = rd_model_max_rows(h->o.model) - windows * h->block;

    if (room < 0) { /* a device for small passes: no branches */
        windows = probes = 1;
        room = rd_model_max_rows(h->o.model) - h->block;
        compose(h, &h->window[0]);
    }
    if (rd_sequence_extend_most(&h->sequence, h->context.id, h->context.n, room, &tail, h->o.cancel,
                                err) ||
        run_pass(h, tail, windows, err))
        return err->status;
    h->started = true;
    if (probing) {
        int keep = surest_length(h, probes);

        h->n = 0;
        add_masks(h, h->window[keep].slots);
        h->fixed = true;
        if (keep > 0) {
            h->window[0] = h->window[keep];
            memmove(h->picks, h->picks + keep * RD_HOLE_BLOCK_MOST,
                    (size_t)h->window[0].slots * sizeof *h->picks);
        }
    }
    for (int i = 0; i < h->n_drafts; i++) {
        draft *d = &h->drafts[i];

        if (at[i] > 0 && at[i] < windows)
            score_draft(h, d, at[i]);
        else
            d->right = chance(&h->o.copied, 0.0, 0.0, d->ids.n, d->alike);
    }
    return RD_OK;
}

/* ---- deciding ---- */

static bool may_grow(const rd_hole_run *h, int more)
{
    return h->n + more < h->o.tokens_most;
}

static bool is_length(const rd_hole_run *h, int32_t id)
{
    return id >= 0 && (id == h->o.ids.del || id == h->o.ids.split);
}

static bool is_stop(const rd_hole_run *h, int32_t id)
{
    for (int i = 0; i < h->o.n_stop; i++)
        if (h->o.stop[i] == id) return true;
    return false;
}

static bool is_text(const rd_hole_run *h, int32_t id)
{
    return !is_length(h, id) && !is_stop(h, id);
}

/* The hole ends before slot i of the open block, where everything up to it is filled. */
static bool end_before(rd_hole_run *h, int i)
{
    for (int k = 0; k < i; k++)
        if (h->slots[h->settled + k].state == RD_SLOT_MASK) return false;
    h->n = h->settled + i;
    return true;
}

static void fill(rd_hole_run *h, int i, int32_t token, float prob)
{
    rd_slot *s = &h->slots[h->settled + i];

    s->token = token;
    s->prob = prob;
    s->state = RD_SLOT_FILLED;
}

/* A spare mask stays one until the model is sure that something belongs there. */
static int fill_spare(rd_hole_run *h, int i, const rd_pick *p)
{
    if (p->token < 0 || p->token == h->o.ids.del || p->prob <= h->o.edit_threshold) return 0;
    h->slots[h->settled + i].spare = false;
    fill(h, i, p->token, p->prob);
    return 1;
}

/* Masks above the threshold, or the surest one. The length changes only where the model is sure of it:
 * a guess is always a token. */
static int fill_masks(rd_hole_run *h, const window *w)
{
    int changed = 0, best = -1;
    float best_prob = -1.0f;

    for (int i = 0; i < w->slots; i++) {
        const rd_pick *p = &h->picks[i];
        bool stop = is_stop(h, p->token), guess = is_text(h, p->token);
        rd_slot *s = &h->slots[h->settled + i];

        if (s->spare) changed += fill_spare(h, i, p);
        if (s->spare || s->state != RD_SLOT_MASK || p->token < 0) continue;
        if (stop && p->prob > h->o.length_threshold && end_before(h, i)) return changed + 1;
        if (!stop && p->prob > (guess ? h->o.threshold : h->o.length_threshold)) {
            fill(h, i, p->token, p->prob);
            changed++;
        }
        float prob = guess ? p->prob : is_text(h, p->second) ? p->second_prob : 0.0f;

        if (prob <= best_prob || (!guess && p->second < 0)) continue;
        best = i;
        best_prob = prob;
    }
    if (changed > 0 || best < 0) return changed;
    const rd_pick *p = &h->picks[best];
    bool second = !is_text(h, p->token) && is_text(h, p->second);

    if (!second && is_stop(h, p->token)) { /* nothing else to say */
        h->n = h->settled + best;
        return 1;
    }

    fill(h, best, second ? p->second : p->token, second ? p->second_prob : p->prob);
    return 1;
}

/* A seeded token that the model would rather see changed, gone, or behind something that is missing. */
static int edit_seeded(rd_hole_run *h, rd_slot *s, const rd_pick *p)
{
    bool split = p->token == h->o.ids.split;

    if (p->token < 0 || p->prob <= h->o.edit_threshold || (split && s->tries >= TRIES_MOST))
        return 0;
    s->was = s->token;
    s->token = p->token;
    s->prob = p->prob;
    s->state = RD_SLOT_EDITED;
    s->seeded = split;
    return 1;
}

/* Filled slots: seen again, they keep their place, change, or go back to mask. */
static int look_again(rd_hole_run *h, const window *w)
{
    int changed = 0;

    for (int i = 0; i < w->slots; i++) {
        rd_slot *s = &h->slots[h->settled + i];
        const rd_pick *p = &h->picks[i];

        if (w->watched[i] < 0) continue;
        s->prob = p->watched_prob;
        if (p->token == s->token) continue;
        if (s->seeded) {
            changed += edit_seeded(h, s, p);
        } else if (s->prob < h->o.doubt && s->tries < TRIES_MOST) {
            s->state = RD_SLOT_MASK;
            s->tries++;
            changed++;
        }
    }
    return changed;
}

/* A model that deletes what it split, and splits again, would never end: it may turn round once. */
static void note_edit(rd_hole_run *h, int kind)
{
    h->turns += h->last_edit == -kind;
    h->last_edit = kind;
    if (h->turns > 1) h->settled_length = true;
}

/* Deletes and splits among the open slots become what they mean. */
static void apply_edits(rd_hole_run *h, int slots)
{
    int last = h->settled + slots < h->n ? h->settled + slots : h->n; /* the hole may have ended */

    for (int i = last - 1; i >= h->settled; i--) {
        rd_slot *s = &h->slots[i];

        if (s->state == RD_SLOT_MASK) continue;
        if (h->o.ids.del >= 0 && s->token == h->o.ids.del) {
            memmove(s, s + 1, (size_t)(h->n - i - 1) * sizeof *s);
            h->n--;
            note_edit(h, -1);
        } else if (h->o.ids.split >= 0 && s->token == h->o.ids.split) {
            rd_slot behind = { .token = h->o.ids.mask };

            if (s->seeded)
                behind = (rd_slot){ .token = s->was,
                                    .state = RD_SLOT_FILLED,
                                    .seeded = true,
                                    .tries = s->tries + 1,
                                    .prob = s->prob };
            *s = (rd_slot){ .token = h->o.ids.mask };
            note_edit(h, 1);
            if (may_grow(h, 1) || behind.seeded)
                insert(h, i + 1, behind);
            else
                h->full = h->settled_length = true;
        }
    }
}

/* Masks in the open block; what spilled over waits for its own. */
static int open_masks(const rd_hole_run *h)
{
    int n = 0, end = h->n - h->settled < h->block ? h->n : h->settled + h->block;

    for (int i = h->settled; i < end; i++)
        n += h->slots[i].state == RD_SLOT_MASK && !h->slots[i].spare;
    return n;
}

static void drop_spare(rd_hole_run *h)
{
    if (h->n > h->settled && h->slots[h->n - 1].spare && h->n - h->settled <= h->block) h->n--;
}

/* The full block is committed; what is left over stands in the next one. */
static rd_status next_block(rd_hole_run *h, rd_error *err)
{
    int32_t tokens[RD_BLOCK_MOST];
    int prefilled = h->sequence.prefilled;

    for (int i = 0; i < h->block; i++) {
        tokens[i] = h->slots[h->settled + i].token;
        h->slots[h->settled + i].state = RD_SLOT_SETTLED;
    }
    if (rd_sequence_extend(&h->sequence, tokens, h->block, h->o.cancel, err)) return err->status;
    h->sequence.prefilled = prefilled;
    h->settled += h->block;
    h->passes = h->checks = h->turns = h->last_edit = 0;
    h->settled_length = false;
    if (h->n > h->settled) return RD_OK;
    if (h->fixed) {
        h->done = true;
    } else if (!may_grow(h, 0)) {
        h->done = h->full = true;
    } else {
        add_masks(h, h->n + NEXT_GUESS <= h->o.tokens_most ? NEXT_GUESS : h->o.tokens_most - h->n);
    }
    return RD_OK;
}

/* The probability that the text as it stands is right. */
static float own_chance(const rd_hole_run *h)
{
    double sure = 0.0;

    for (int i = 0; i < h->n; i++) sure += log_of(h->slots[i].prob);
    return h->rewriting ? (float)exp(sure) : chance(&h->o.own, sure, 0.0, h->n, 0.0f);
}

/* What the picks of the open block change in it. */
static rd_status decide(rd_hole_run *h, const window *w, rd_error *err)
{
    bool checking = true; /* nothing was masked when the pass began */

    for (int i = 0; i < w->slots; i++)
        checking &= w->watched[i] >= 0 || h->slots[h->settled + i].spare;
    h->passes++;
    h->checks += checking;
    bool tired = h->passes >= PASSES_MOST;

    if (tired) h->settled_length = true; /* from here on each pass fills a mask */
    int changed = tired || h->checks > CHECKS_MOST ? 0 : look_again(h, w);

    changed += fill_masks(h, w);
    apply_edits(h, w->slots);
    bool over = open_masks(h) == 0 && (changed == 0 || h->checks > CHECKS_MOST || tired);

    if (over) drop_spare(h);
    if (h->n == h->settled) over = true;
    if (over && w->whole && h->n - h->settled >= h->block) return next_block(h, err);
    if (!over) return RD_OK;
    for (int i = h->settled; i < h->n; i++) h->slots[i].state = RD_SLOT_SETTLED;
    h->done = true;
    return RD_OK;
}

rd_status rd_hole_step(rd_hole_run *h, bool *done, rd_error *err)
{
    rd_error local = { 0 };

    if (!err) err = &local;
    *done = h->done;
    if (h->done) return RD_OK;
    if (!h->started) {
        if (first_pass(h, err)) return err->status;
        const draft *best = best_draft(h);

        if (best && best->right > h->o.take_draft) take_draft(h, best);
    } else {
        compose(h, &h->window[0]);
        if (h->window[0].slots > 0 && run_pass(h, 0, 1, err)) return err->status;
    }
    if (!h->done) {
        if (decide(h, &h->window[0], err)) return err->status;
        h->confidence = own_chance(h);
        const draft *best = h->done ? best_draft(h) : NULL;

        if (best && h->o.lead * best->right > h->confidence) take_draft(h, best);
    }
    *done = h->done;
    return RD_OK;
}

void rd_hole_end(rd_hole_run *h)
{
    const draft *best = best_draft(h);
    int n = 0;

    if (h->done) return;
    for (int i = 0; i < h->n; i++) {
        if (h->slots[i].state == RD_SLOT_MASK) continue;
        h->slots[n] = h->slots[i];
        h->slots[n++].state = RD_SLOT_SETTLED;
    }
    bool whole = n == h->n;

    h->n = n;
    h->done = true;
    if (best && h->started && (!whole || h->o.lead * best->right > h->confidence))
        take_draft(h, best);
}

const rd_slot *rd_hole_slots(rd_hole_run *h, int *n)
{
    *n = h->n;
    return h->slots;
}

float rd_hole_confidence(const rd_hole_run *h)
{
    return h->confidence;
}

bool rd_hole_full(const rd_hole_run *h)
{
    return h->full;
}

int rd_hole_forwards(const rd_hole_run *h)
{
    return h->forwards;
}

int rd_hole_prefilled(const rd_hole_run *h)
{
    return h->sequence.prefilled;
}
