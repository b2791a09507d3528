/* policy.c - thresholds, quotas, and when a block is over. */
#include "core/decode/policy.h"

#include <string.h>

enum { PASSES_MOST = 1000, ESCAPES = 5 };

rd_policy rd_policy_dial(rd_policy_kind kind, float quality)
{
    return (rd_policy){ .kind = kind,
                        .ids = { -1, -1, -1 },
                        .threshold = 0.5f + 0.2f * quality,
                        .edit_threshold = 0.5f * quality,
                        .steps = 32,
                        .num_to_transfer = 1,
                        .max_post_steps = 16,
                        .max_passes = 64 };
}

static bool is_mask(const rd_policy *p, const rd_block *b, int i)
{
    return b->token[i] == p->ids.mask;
}

static bool is_original(const rd_policy *p, const rd_block *b, int i)
{
    return is_mask(p, b, i) && b->original[i];
}

static bool has_masks(const rd_policy *p, const rd_block *b)
{
    return rd_block_masks(b, p->ids.mask) > 0;
}

static rd_slots all_masks(const rd_policy *p, const rd_block *b)
{
    rd_slots masks = { 0 };

    for (int i = 0; i < b->size; i++)
        if (is_mask(p, b, i)) rd_slots_add(&masks, i);
    return masks;
}

static uint64_t hash_tokens(const rd_block *b)
{
    uint64_t h = 0xcbf29ce484222325u;

    for (int i = 0; i < b->size; i++) h = (h ^ (uint32_t)b->token[i]) * 0x100000001b3u;
    return h ^ (h >> 29);
}

static bool have_seen(const rd_policy_state *s, uint64_t h)
{
    for (int i = 0; i < s->seen_n; i++)
        if (s->seen[i] == h) return true;
    return false;
}

static void remember(rd_policy_state *s, uint64_t h)
{
    if (s->seen_n < RD_SEEN_MOST) s->seen[s->seen_n++] = h;
}

static int passes_most(const rd_policy *p)
{
    return p->max_passes > 0 ? p->max_passes : PASSES_MOST;
}

void rd_policy_begin(const rd_policy *p, const rd_block *b, rd_policy_state *s)
{
    *s = (rd_policy_state){ .masks = rd_block_masks(b, p->ids.mask) };
}

bool rd_policy_over(const rd_policy *p, const rd_block *b, rd_policy_state *s)
{
    bool masked = has_masks(p, b);
    int original = 0;

    if (s->finalized) return false; /* 2.2: the closing pass */
    if (s->passes >= passes_most(p)) return true;
    switch (p->kind) {
    case RD_POLICY_20: return !masked || s->step >= p->steps;
    case RD_POLICY_DIFFUSERS: return false; /* decides after each pass */
    case RD_POLICY_21:
        if (!masked) s->post++;
        return s->post > p->max_post_steps;
    case RD_POLICY_22:
        for (int i = 0; i < b->size; i++) original += is_original(p, b, i);
        s->post = original == 0 ? s->post + 1 : 0;
        return !p->reference_quirks && !masked && s->post > p->max_post_steps;
    }
    return true;
}

/* The `n` surest masks; ties to the earlier slot. */
static rd_slots surest(const rd_policy *p, const rd_block *b, const rd_pick *picks, int n)
{
    rd_slots taken = { 0 };

    for (; n > 0; n--) {
        int best = -1;

        for (int i = 0; i < b->size; i++)
            if (is_mask(p, b, i) && !rd_slots_has(&taken, i) &&
                (best < 0 || picks[i].prob > picks[best].prob))
                best = i;
        if (best < 0) break;
        rd_slots_add(&taken, best);
    }
    return taken;
}

/* Masks above the threshold, or the surest where they are fewer than `need`. */
static rd_slots fills(const rd_policy *p, const rd_block *b, const rd_pick *picks, int need,
                      bool *fallback)
{
    rd_slots high = { 0 };

    for (int i = 0; i < b->size; i++)
        if (is_mask(p, b, i) && picks[i].prob > p->threshold) rd_slots_add(&high, i);
    *fallback = rd_slots_count(&high) < need;
    return *fallback ? surest(p, b, picks, need) : high;
}

static rd_slots rewrites(const rd_policy *p, const rd_block *b, const rd_pick *picks)
{
    rd_slots edited = { 0 };

    for (int i = 0; i < b->size; i++) {
        if (is_mask(p, b, i) || b->pinned[i] || picks[i].token < 0) continue;
        if (picks[i].prob > p->edit_threshold && picks[i].token != b->token[i])
            rd_slots_add(&edited, i);
    }
    return edited;
}

static int quota(int all, int steps, int step)
{
    return steps > 0 ? all / steps + (step < all % steps) : all;
}

/* 2.2: is this the last round that writes, given the fills it would make? */
static bool is_final(const rd_policy *p, const rd_block *b, const rd_policy_state *s,
                     const rd_slots *filled)
{
    int original = 0, left = 0;

    if (s->passes >= passes_most(p) - 1) return true;
    if (p->max_post_steps > 0) return s->post >= p->max_post_steps;
    for (int i = 0; i < b->size; i++) {
        original += is_original(p, b, i);
        left += is_original(p, b, i) && !rd_slots_has(filled, i);
    }
    return original > 0 && left == 0;
}

static rd_slots fills_22(const rd_policy *p, const rd_block *b, const rd_policy_state *s,
                         const rd_pick *picks, bool *fallback)
{
    int fresh = 0;

    *fallback = false;
    if (s->step >= p->steps) return all_masks(p, b);
    for (int i = 0; i < b->size; i++) fresh += is_mask(p, b, i) && !b->original[i];
    return fills(p, b, picks, quota(s->masks, p->steps, s->step) + fresh, fallback);
}

static bool is_control(const rd_policy *p, int32_t id)
{
    return id >= 0 && (id == p->ids.del || id == p->ids.split);
}

bool rd_policy_wants_plain(const rd_policy *p, const rd_block *b, const rd_policy_state *s,
                           const rd_pick *picks)
{
    bool fallback;

    if (p->kind != RD_POLICY_22 || s->finalized) return false;
    rd_slots filled = fills_22(p, b, s, picks, &fallback), edited = rewrites(p, b, picks);

    if (!is_final(p, b, s, &filled)) return false;
    for (int i = 0; i < b->size; i++)
        if ((is_mask(p, b, i) || rd_slots_has(&edited, i)) && is_control(p, picks[i].token))
            return true;
    return false;
}

static void write_pick(rd_block *b, int i, int32_t token, float prob)
{
    if (token < 0) return;
    b->token[i] = token;
    b->prob[i] = prob;
}

/* A state that was there before would come back for ever: give the least sure write its second choice.
 * Where that is no way out either, the next one; the public port turns round at the same slot. */
static void escape(const rd_policy *p, const rd_policy_state *s, rd_block *b, const int32_t *before,
                   const rd_pick *picks)
{
    rd_slots tried = { 0 };

    for (int tries = 0; tries < ESCAPES && have_seen(s, hash_tokens(b)); tries++) {
        int least = -1;

        for (int i = 0; i < b->size; i++)
            if (b->token[i] != before[i] && !rd_slots_has(&tried, i) &&
                (least < 0 || picks[i].prob < picks[least].prob))
                least = i;
        if (least < 0) return;
        const rd_pick *k = &picks[least];

        if (b->token[least] == k->token)
            write_pick(b, least, k->second, k->second_prob);
        else
            write_pick(b, least, k->token, k->prob);
        if (!p->reference_quirks) rd_slots_add(&tried, least);
    }
}

static void apply_22(const rd_policy *p, rd_policy_state *s, rd_block *b, const rd_pick *picks,
                     const rd_pick *plain, rd_change *out)
{
    int32_t before[RD_BLOCK_MOST];
    size_t bytes = (size_t)b->size * sizeof *before;

    memcpy(before, b->token, bytes);
    out->was_final = s->finalized;
    if (s->finalized) {
        out->over = true;
        memcpy(out->written, b->token, bytes);
        return;
    }
    out->filled = fills_22(p, b, s, picks, &out->fallback);
    out->edited = rewrites(p, b, picks);
    out->final_round = is_final(p, b, s, &out->filled);
    if (out->final_round) out->filled = all_masks(p, b);
    for (int i = 0; i < b->size; i++) {
        const rd_pick *from =
            out->final_round && plain && is_control(p, picks[i].token) ? plain : picks;

        if (rd_slots_has(&out->filled, i) || rd_slots_has(&out->edited, i))
            write_pick(b, i, from[i].token, from[i].prob);
    }
    if (!out->final_round) escape(p, s, b, before, picks);
    remember(s, hash_tokens(b));
    memcpy(out->written, b->token, bytes);
    out->edits = rd_edits_apply(b, before, &p->ids);
    s->finalized = out->final_round;
    s->step++;
    out->over = !memcmp(before, b->token, bytes) && !has_masks(p, b);
}

void rd_policy_apply(const rd_policy *p, rd_policy_state *s, rd_block *b, const rd_pick *picks,
                     const rd_pick *plain, rd_change *out)
{
    bool masked = has_masks(p, b), edits = false;
    int clamped = s->step < p->steps ? s->step : p->steps - 1;

    *out = (rd_change){ 0 };
    switch (p->kind) {
    case RD_POLICY_22:
        apply_22(p, s, b, picks, plain, out);
        s->passes++;
        return;
    case RD_POLICY_20:
        out->filled = fills(p, b, picks, quota(b->size, p->steps, s->step), &out->fallback);
        break;
    case RD_POLICY_DIFFUSERS:
        if (masked)
            out->filled = fills(p, b, picks, quota(b->size, p->steps, clamped), &out->fallback);
        if (p->edit_threshold > 0.0f) out->edited = rewrites(p, b, picks);
        break;
    case RD_POLICY_21:
        if (masked) out->filled = fills(p, b, picks, p->num_to_transfer, &out->fallback);
        out->edited = rewrites(p, b, picks);
        break;
    }
    edits = rd_slots_count(&out->edited) > 0;
    for (int i = 0; i < b->size; i++)
        if (rd_slots_has(&out->filled, i) || rd_slots_has(&out->edited, i))
            write_pick(b, i, picks[i].token, picks[i].prob);
    memcpy(out->written, b->token, (size_t)b->size * sizeof *out->written);
    s->passes++;
    if (masked || p->kind != RD_POLICY_DIFFUSERS) s->step++;
    if (p->kind == RD_POLICY_21) out->over = !masked && !edits;
    if (p->kind == RD_POLICY_DIFFUSERS)
        out->over = masked ? s->step >= p->steps : ++s->post > p->max_post_steps || !edits;
    if (p->reference_quirks || masked || out->over) return;
    /* A full block that was there before: the edits go round in a circle. */
    uint64_t h = hash_tokens(b);

    if (have_seen(s, h)) out->over = true;
    remember(s, h);
}
