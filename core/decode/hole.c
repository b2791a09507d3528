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

struct rd_hole_run {
    rd_hole_options o;
    rd_sequence sequence;
    rd_ids context, anchor;
    rd_slot *slots;
    int n, cap;
    int settled; /* slots of finished blocks, at the front */
    int block;
    bool started, done, full;
    bool fixed;          /* the length is known and stays */
    bool settled_length; /* of the open block: no more deletes and splits */
    int last_edit,
        turns;          /* of the open block: its last delete (-1) or split (1); changes of mind */
    int passes, checks; /* of the open block */
    int forwards;
    int32_t *banned; /* n_banned ids; those with delete and split stand behind them, sorted again */
    int n_banned;
    int32_t *banned_plain;
    int n_banned_plain;
    rd_pick picks[RD_BLOCK_MOST];
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

    if (block > RD_BLOCK_MOST || block <= RD_ANCHOR_LEAST)
        return rd_fail(err, RD_INVALID, "holes need blocks of %d to %d, not %d",
                       RD_ANCHOR_LEAST + 1, RD_BLOCK_MOST, block);
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
    h->fixed = o->tokens > 0;
    collect_banned(h, o);
    for (int i = 0; i < seed_n; i++)
        insert(h, h->n, (rd_slot){ .token = seed[i], .state = RD_SLOT_FILLED, .seeded = true });
    if (seed_n == 0) add_masks(h, o->tokens > 0 ? o->tokens : FIRST_GUESS);
    *out = h;
    return RD_OK;
}

void rd_hole_close(rd_hole_run *h)
{
    if (!h) return;
    rd_sequence_clear(&h->sequence);
    rd_ids_clear(&h->context);
    rd_ids_clear(&h->anchor);
    free(h->slots);
    free(h->banned);
    free(h->banned_plain);
    free(h);
}

/* ---- the open block ---- */

typedef struct window {
    int32_t token[RD_BLOCK_MOST], watched[RD_BLOCK_MOST];
    int slots, rows; /* slots of the hole, then the anchor */
    bool whole;      /* no anchor: the hole fills the block */
} window;

static void compose(rd_hole_run *h, window *w)
{
    int open = h->n - h->settled;

    w->whole =
        open > h->block - RD_ANCHOR_LEAST && (open > h->block || !h->fixed) && h->anchor.n > 0;
    if (h->anchor.n == 0) w->whole = open > h->block;
    if (open >= h->block) w->whole = true;
    if (w->whole && open < h->block) {
        add_masks(h, h->block - open);
        open = h->block;
    }
    w->slots = open < h->block ? open : h->block;
    w->rows = w->slots;
    for (int i = 0; i < w->slots; i++) {
        const rd_slot *s = &h->slots[h->settled + i];

        w->token[i] = s->state == RD_SLOT_MASK ? h->o.ids.mask : s->token;
        w->watched[i] = s->state == RD_SLOT_MASK ? -1 : s->token;
    }
    for (int i = 0; !w->whole && w->rows < h->block && i < h->anchor.n; i++)
        w->token[w->rows++] = h->anchor.id[i];
}

static rd_status run_pass(rd_hole_run *h, const window *w, rd_error *err)
{
    int32_t rows[RD_BLOCK_MOST];
    bool plain = h->fixed || h->settled_length;
    rd_pick_query q = { .banned = plain ? h->banned_plain : h->banned,
                        .n_banned = plain ? h->n_banned_plain : h->n_banned,
                        .limit = h->o.limit,
                        .watched = w->watched,
                        .rows = rows,
                        .n_rows = w->slots };

    for (int i = 0; i < w->slots; i++) rows[i] = i;
    rd_pass pass = { .tokens = w->token,
                     .rows = w->rows,
                     .past = h->sequence.places,
                     .past_blocks = h->sequence.n,
                     .sight = h->block,
                     .query = &q,
                     .picks = h->picks,
                     .cancel = h->o.cancel };

    h->forwards++;
    return rd_forward(h->o.model, &pass, err);
}

/* ---- a length for models that cannot change it ---- */

static rd_status probe_length(rd_hole_run *h, rd_error *err)
{
    static const int lengths[] = { 2, 4, 8, 12, 16, 24 };
    double best = -1.0;
    int length = FIRST_GUESS;

    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        double sum = 0.0, x = lengths[i];
        window w;

        if (lengths[i] > h->o.tokens_most || lengths[i] > h->block - RD_ANCHOR_LEAST) break;
        h->n = 0;
        add_masks(h, lengths[i]);
        compose(h, &w);
        if (run_pass(h, &w, err)) return err->status;
        for (int k = 0; k < w.slots; k++) sum += (double)h->picks[k].prob;
        /* The mean falls with the length whatever the text; the fit is the paper's, for another model. */
        double usual = exp(-1.77 * x) + 0.56 * exp(-0.06 * x) + 0.24;
        double score = sum / w.slots / usual;

        if (score <= best) continue;
        best = score;
        length = lengths[i];
    }
    h->n = 0;
    add_masks(h, length);
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

static void fill(rd_hole_run *h, int i, int32_t token, float prob)
{
    rd_slot *s = &h->slots[h->settled + i];

    s->token = token;
    s->prob = prob;
    s->state = RD_SLOT_FILLED;
}

/* Masks above the threshold, or the surest one. The length changes only where the model is sure of it:
 * a guess is always a token. */
static int fill_masks(rd_hole_run *h, const window *w)
{
    int changed = 0, best = -1;
    float best_prob = -1.0f;

    for (int i = 0; i < w->slots; i++) {
        const rd_pick *p = &h->picks[i];
        bool guess = !is_length(h, p->token);

        if (h->slots[h->settled + i].state != RD_SLOT_MASK || p->token < 0) continue;
        if (p->prob > (guess ? h->o.threshold : h->o.length_threshold)) {
            fill(h, i, p->token, p->prob);
            changed++;
        }
        float prob = guess ? p->prob : is_length(h, p->second) ? 0.0f : p->second_prob;

        if (prob <= best_prob || (!guess && p->second < 0)) continue;
        best = i;
        best_prob = prob;
    }
    if (changed > 0 || best < 0) return changed;
    const rd_pick *p = &h->picks[best];
    bool second = is_length(h, p->token) && !is_length(h, p->second);

    fill(h, best, second ? p->second : p->token, second ? p->second_prob : p->prob);
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
        if (s->seeded && p->prob > h->o.edit_threshold) {
            s->token = p->token;
            s->prob = p->prob;
            s->state = RD_SLOT_EDITED;
            s->seeded = false;
            changed++;
        } else if (!s->seeded && s->prob < h->o.doubt && s->tries < TRIES_MOST) {
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
    for (int i = h->settled + slots - 1; i >= h->settled; i--) {
        rd_slot *s = &h->slots[i];

        if (s->state == RD_SLOT_MASK) continue;
        if (h->o.ids.del >= 0 && s->token == h->o.ids.del) {
            memmove(s, s + 1, (size_t)(h->n - i - 1) * sizeof *s);
            h->n--;
            note_edit(h, -1);
        } else if (h->o.ids.split >= 0 && s->token == h->o.ids.split) {
            *s = (rd_slot){ .token = h->o.ids.mask };
            note_edit(h, 1);
            if (may_grow(h, 1))
                insert(h, i, *s);
            else
                h->full = h->settled_length = true;
        }
    }
}

/* Masks in the open block; what spilled over waits for its own. */
static int open_masks(const rd_hole_run *h)
{
    int n = 0, end = h->n - h->settled < h->block ? h->n : h->settled + h->block;

    for (int i = h->settled; i < end; i++) n += h->slots[i].state == RD_SLOT_MASK;
    return n;
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

rd_status rd_hole_step(rd_hole_run *h, bool *done, rd_error *err)
{
    rd_error local = { 0 };
    window w;

    if (!err) err = &local;
    *done = h->done;
    if (h->done) return RD_OK;
    if (!h->started) {
        if (rd_sequence_extend(&h->sequence, h->context.id, h->context.n, h->o.cancel, err))
            return err->status;
        h->started = true;
        if (!h->fixed && h->o.ids.del < 0 && !h->slots[0].seeded) {
            if (probe_length(h, err)) return err->status;
            h->fixed = true;
        }
    }
    compose(h, &w);
    if (w.slots == 0) {
        *done = h->done = true;
        return RD_OK;
    }
    bool checking = true; /* nothing was masked when the pass began */

    for (int i = 0; i < w.slots; i++) checking &= w.watched[i] >= 0;
    if (run_pass(h, &w, err)) return err->status;
    h->passes++;
    h->checks += checking;
    bool tired = h->passes >= PASSES_MOST;

    if (tired) h->settled_length = true; /* from here on each pass fills a mask */
    int changed = tired || h->checks > CHECKS_MOST ? 0 : look_again(h, &w);

    changed += fill_masks(h, &w);
    apply_edits(h, w.slots);
    bool over = open_masks(h) == 0 && (changed == 0 || h->checks > CHECKS_MOST || tired);

    if (h->n == h->settled) over = true;
    if (over && w.whole && h->n - h->settled >= h->block) {
        if (next_block(h, err)) return err->status;
    } else if (over) {
        for (int i = h->settled; i < h->n; i++) h->slots[i].state = RD_SLOT_SETTLED;
        h->done = true;
    }
    *done = h->done;
    return RD_OK;
}

const rd_slot *rd_hole_slots(rd_hole_run *h, int *n)
{
    *n = h->n;
    return h->slots;
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
