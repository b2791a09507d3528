/* canvas.c - decide slot by slot, apply the edits, settle. */
#include "core/decode/canvas.h"

#include "core/base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    NEXT_GUESS = 8, /* masks in a block that follows a full one */
    TRIES_MOST = 2,
    CHECKS_MOST = 3, /* passes over a full canvas */
    PASSES_MOST = 96 /* of one block: more is a model that cannot make up its mind */
};

static void insert(rd_canvas *c, int at, rd_slot s)
{
    if (c->n == c->cap) {
        c->cap = c->cap ? 2 * c->cap : 64;
        c->slots = rd_resize(c->slots, (size_t)c->cap, sizeof *c->slots);
    }
    memmove(c->slots + at + 1, c->slots + at, (size_t)(c->n - at) * sizeof *c->slots);
    c->slots[at] = s;
    c->n++;
}

void rd_canvas_add_masks(rd_canvas *c, const rd_canvas_rules *k, int n)
{
    for (; n > 0; n--) insert(c, c->n, (rd_slot){ .token = k->ids.mask });
}

void rd_canvas_seed(rd_canvas *c, const rd_canvas_rules *k, const int32_t *tokens, int n)
{
    for (int i = 0; i < n; i++)
        insert(c, c->n, (rd_slot){ .token = tokens[i], .state = RD_SLOT_FILLED, .seeded = true });
    if (k->ids.del >= 0) insert(c, c->n, (rd_slot){ .token = k->ids.mask, .spare = true });
}

void rd_canvas_set(rd_canvas *c, const int32_t *tokens, int n)
{
    c->n = c->settled = 0;
    for (int i = 0; i < n; i++)
        insert(c, c->n, (rd_slot){ .token = tokens[i], .state = RD_SLOT_SETTLED });
    c->full = false;
    c->done = true;
}

void rd_canvas_clear(rd_canvas *c)
{
    free(c->slots);
    *c = (rd_canvas){ 0 };
}

double rd_log_of(float p)
{
    return log((double)(p > 1e-6f ? p : 1e-6f));
}

double rd_canvas_chosen(const rd_canvas *c)
{
    double sum = 0.0;

    for (int i = 0; i < c->n; i++)
        if (c->slots[i].state != RD_SLOT_MASK) sum += rd_log_of(c->slots[i].chosen);
    return sum;
}

double rd_canvas_stands(const rd_canvas *c)
{
    double sum = 0.0;

    for (int i = 0; i < c->n; i++)
        if (c->slots[i].state != RD_SLOT_MASK) sum += rd_log_of(c->slots[i].prob);
    return sum;
}

/* ---- the open block ---- */

static void add_anchor(const rd_canvas_rules *k, rd_window *w)
{
    w->rows = w->slots;
    for (int i = 0; !w->whole && w->rows < k->block && i < k->anchor_n; i++)
        w->token[w->rows++] = k->anchor[i];
}

void rd_canvas_compose(rd_canvas *c, const rd_canvas_rules *k, rd_window *w)
{
    int open = c->n - c->settled;

    w->whole = open >= k->block;
    if (open > k->block - RD_ANCHOR_LEAST && k->anchor_n > 0 && !k->fixed && !k->rewriting)
        w->whole = true;
    if (w->whole && open < k->block) {
        rd_canvas_add_masks(c, k, k->block - open);
        open = k->block;
    }
    w->slots = open < k->block ? open : k->block;
    for (int i = 0; i < w->slots; i++) {
        const rd_slot *s = &c->slots[c->settled + i];

        w->token[i] = s->state == RD_SLOT_MASK ? k->ids.mask : s->token;
        w->watched[i] = s->state == RD_SLOT_MASK ? -1 : s->token;
    }
    add_anchor(k, w);
}

void rd_window_set(const rd_canvas_rules *k, const int32_t *tokens, int n, rd_window *w)
{
    w->whole = false;
    w->slots = n;
    memcpy(w->token, tokens, (size_t)n * sizeof *tokens);
    add_anchor(k, w);
}

/* ---- deciding ---- */

static bool may_grow(const rd_canvas *c, const rd_canvas_rules *k, int more)
{
    return c->n + more < k->tokens_most;
}

static bool is_length(const rd_canvas_rules *k, int32_t id)
{
    return id >= 0 && (id == k->ids.del || id == k->ids.split);
}

static bool is_stop(const rd_canvas_rules *k, int32_t id)
{
    for (int i = 0; i < k->n_stop; i++)
        if (k->stop[i] == id) return true;
    return false;
}

static bool is_text(const rd_canvas_rules *k, int32_t id)
{
    return !is_length(k, id) && !is_stop(k, id);
}

/* The hole ends before slot i of the open block, where everything up to it is filled. */
static bool end_before(rd_canvas *c, int i)
{
    for (int at = 0; at < i; at++)
        if (c->slots[c->settled + at].state == RD_SLOT_MASK) return false;
    c->n = c->settled + i;
    return true;
}

static void fill(rd_canvas *c, int i, int32_t token, float prob)
{
    rd_slot *s = &c->slots[c->settled + i];

    s->token = token;
    s->prob = s->chosen = prob;
    s->state = RD_SLOT_FILLED;
}

/* A spare mask stays one until the model is sure that something belongs there. */
static int fill_spare(rd_canvas *c, const rd_canvas_rules *k, int i, const rd_pick *p)
{
    if (p->token < 0 || p->token == k->ids.del || p->prob <= k->edit_threshold) return 0;
    c->slots[c->settled + i].spare = false;
    fill(c, i, p->token, p->prob);
    return 1;
}

/* Masks above the threshold, or the surest one. The length changes only where the model is sure of it:
 * a guess is always a token. */
static int fill_masks(rd_canvas *c, const rd_canvas_rules *k, const rd_window *w,
                      const rd_pick *picks)
{
    int changed = 0, best = -1;
    float best_prob = -1.0f;

    for (int i = 0; i < w->slots; i++) {
        const rd_pick *p = &picks[i];
        bool stop = is_stop(k, p->token), guess = is_text(k, p->token);
        rd_slot *s = &c->slots[c->settled + i];

        if (s->spare) changed += fill_spare(c, k, i, p);
        if (s->spare || s->state != RD_SLOT_MASK || p->token < 0) continue;
        if (stop && p->prob > k->length_threshold && end_before(c, i)) return changed + 1;
        if (!stop && p->prob > (guess ? k->threshold : k->length_threshold)) {
            fill(c, i, p->token, p->prob);
            changed++;
        }
        float prob = guess ? p->prob : is_text(k, p->second) ? p->second_prob : 0.0f;

        if (prob <= best_prob || (!guess && p->second < 0)) continue;
        best = i;
        best_prob = prob;
    }
    if (changed > 0 || best < 0) return changed;
    const rd_pick *p = &picks[best];
    bool second = !is_text(k, p->token) && is_text(k, p->second);

    if (!second && is_stop(k, p->token)) { /* nothing else to say */
        c->n = c->settled + best;
        return 1;
    }

    fill(c, best, second ? p->second : p->token, second ? p->second_prob : p->prob);
    return 1;
}

/* A seeded token that the model would rather see changed, gone, or behind something that is missing. */
static int edit_seeded(const rd_canvas_rules *k, rd_slot *s, const rd_pick *p)
{
    bool split = p->token == k->ids.split;

    if (p->token < 0 || p->prob <= k->edit_threshold || (split && s->tries >= TRIES_MOST)) return 0;
    s->was = s->token;
    s->token = p->token;
    s->prob = s->chosen = p->prob;
    s->state = RD_SLOT_EDITED;
    s->seeded = split;
    return 1;
}

/* Filled slots: seen again, they keep their place, change, or go back to mask. */
static int look_again(rd_canvas *c, const rd_canvas_rules *k, const rd_window *w,
                      const rd_pick *picks)
{
    int changed = 0;

    for (int i = 0; i < w->slots; i++) {
        rd_slot *s = &c->slots[c->settled + i];
        const rd_pick *p = &picks[i];

        if (w->watched[i] < 0) continue;
        s->prob = p->watched_prob;
        if (p->token == s->token) continue;
        if (s->seeded) {
            changed += edit_seeded(k, s, p);
        } else if (s->prob < k->doubt && s->tries < TRIES_MOST) {
            s->state = RD_SLOT_MASK;
            s->tries++;
            changed++;
        }
    }
    return changed;
}

/* A model that deletes what it split, and splits again, would never end: it may turn round once. */
static void note_edit(rd_canvas *c, int kind)
{
    c->turns += c->last_edit == -kind;
    c->last_edit = kind;
    if (c->turns > 1) c->settled_length = true;
}

/* Deletes and splits among the open slots become what they mean. */
static void apply_edits(rd_canvas *c, const rd_canvas_rules *k, int slots)
{
    int last = c->settled + slots < c->n ? c->settled + slots : c->n; /* the hole may have ended */

    for (int i = last - 1; i >= c->settled; i--) {
        rd_slot *s = &c->slots[i];

        if (s->state == RD_SLOT_MASK) continue;
        if (k->ids.del >= 0 && s->token == k->ids.del) {
            memmove(s, s + 1, (size_t)(c->n - i - 1) * sizeof *s);
            c->n--;
            note_edit(c, -1);
        } else if (k->ids.split >= 0 && s->token == k->ids.split) {
            rd_slot behind = { .token = k->ids.mask };

            if (s->seeded)
                behind = (rd_slot){ .token = s->was,
                                    .state = RD_SLOT_FILLED,
                                    .seeded = true,
                                    .tries = s->tries + 1,
                                    .prob = s->prob };
            *s = (rd_slot){ .token = k->ids.mask };
            note_edit(c, 1);
            if (may_grow(c, k, 1) || behind.seeded)
                insert(c, i + 1, behind);
            else
                c->full = c->settled_length = true;
        }
    }
}

/* Masks in the open block; what spilled over waits for its own. */
static int open_masks(const rd_canvas *c, const rd_canvas_rules *k)
{
    int n = 0, end = c->n - c->settled < k->block ? c->n : c->settled + k->block;

    for (int i = c->settled; i < end; i++)
        n += c->slots[i].state == RD_SLOT_MASK && !c->slots[i].spare;
    return n;
}

static void drop_spare(rd_canvas *c, const rd_canvas_rules *k)
{
    if (c->n > c->settled && c->slots[c->n - 1].spare && c->n - c->settled <= k->block) c->n--;
}

void rd_canvas_next_block(rd_canvas *c, const rd_canvas_rules *k)
{
    for (int i = 0; i < k->block; i++) c->slots[c->settled + i].state = RD_SLOT_SETTLED;
    c->settled += k->block;
    c->passes = c->checks = c->turns = c->last_edit = 0;
    c->settled_length = false;
    if (c->n > c->settled) return;
    if (k->fixed)
        c->done = true;
    else if (!may_grow(c, k, 0))
        c->done = c->full = true;
    else
        rd_canvas_add_masks(
            c, k, c->n + NEXT_GUESS <= k->tokens_most ? NEXT_GUESS : k->tokens_most - c->n);
}

bool rd_canvas_decide(rd_canvas *c, const rd_canvas_rules *k, const rd_window *w,
                      const rd_pick *picks)
{
    bool checking = true; /* nothing was masked when the pass began */

    for (int i = 0; i < w->slots; i++)
        checking &= w->watched[i] >= 0 || c->slots[c->settled + i].spare;
    c->passes++;
    c->checks += checking;
    bool tired = c->passes >= PASSES_MOST;

    if (tired) c->settled_length = true; /* from here on each pass fills a mask */
    int changed = tired || c->checks > CHECKS_MOST ? 0 : look_again(c, k, w, picks);

    changed += fill_masks(c, k, w, picks);
    apply_edits(c, k, w->slots);
    bool over = open_masks(c, k) == 0 && (changed == 0 || c->checks > CHECKS_MOST || tired);

    if (over) drop_spare(c, k);
    if (c->n == c->settled) over = true;
    if (over && w->whole && c->n - c->settled >= k->block) return true;
    if (!over) return false;
    for (int i = c->settled; i < c->n; i++) c->slots[i].state = RD_SLOT_SETTLED;
    c->done = true;
    return false;
}

bool rd_canvas_end(rd_canvas *c)
{
    int n = 0;

    for (int i = 0; i < c->n; i++) {
        if (c->slots[i].state == RD_SLOT_MASK) continue;
        c->slots[n] = c->slots[i];
        c->slots[n++].state = RD_SLOT_SETTLED;
    }
    bool whole = n == c->n;

    c->n = n;
    c->done = true;
    return whole;
}
