/* policy.c - thresholds, quotas, and when a block is over. */
#include "core/decode/policy.h"

#include <string.h>

enum { PASSES_MOST = 1000 };

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

static int count_bits(uint64_t bits)
{
    return __builtin_popcountll(bits);
}

static uint64_t bit(int i)
{
    return (uint64_t)1 << i;
}

static uint64_t mask_bits(const rd_policy *p, const rd_block *b)
{
    uint64_t bits = 0;

    for (int i = 0; i < b->size; i++)
        if (is_mask(p, b, i)) bits |= bit(i);
    return bits;
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

void rd_policy_begin(const rd_policy *p, const rd_block *b, rd_policy_state *s)
{
    *s = (rd_policy_state){ .masks = rd_block_masks(b, p->ids.mask) };
}

bool rd_policy_over(const rd_policy *p, const rd_block *b, rd_policy_state *s)
{
    int masks = rd_block_masks(b, p->ids.mask), original = 0;

    if (s->step >= (p->max_passes > 0 ? p->max_passes : PASSES_MOST)) return true;
    switch (p->kind) {
    case RD_POLICY_20: return masks == 0 || s->step >= p->steps;
    case RD_POLICY_DIFFUSERS: return false; /* decides after each pass */
    case RD_POLICY_21:
        if (masks == 0) s->post++;
        return s->post > p->max_post_steps;
    case RD_POLICY_22:
        if (s->finalized) return false; /* the closing pass */
        for (int i = 0; i < b->size; i++) original += is_mask(p, b, i) && b->original[i];
        s->post = original == 0 ? s->post + 1 : 0;
        return masks == 0 && s->post > p->max_post_steps;
    }
    return true;
}

/* The `n` surest of `among`; ties to the earlier slot. */
static uint64_t surest(const rd_block *b, const rd_pick *picks, uint64_t among, int n)
{
    uint64_t taken = 0;

    for (; n > 0; n--) {
        int best = -1;

        for (int i = 0; i < b->size; i++)
            if ((among & ~taken & bit(i)) && (best < 0 || picks[i].prob > picks[best].prob))
                best = i;
        if (best < 0) break;
        taken |= bit(best);
    }
    return taken;
}

/* Masks above the threshold, or the surest where they are fewer than `need`. */
static uint64_t fills(const rd_policy *p, const rd_block *b, const rd_pick *picks, int need,
                      bool *fallback)
{
    uint64_t masks = mask_bits(p, b), high = 0;

    for (int i = 0; i < b->size; i++)
        if ((masks & bit(i)) && picks[i].prob > p->threshold) high |= bit(i);
    *fallback = count_bits(high) < need;
    return *fallback ? surest(b, picks, masks, need) : high;
}

static uint64_t rewrites(const rd_policy *p, const rd_block *b, const rd_pick *picks)
{
    uint64_t bits = 0;

    for (int i = 0; i < b->size; i++) {
        if (is_mask(p, b, i) || b->pinned[i] || picks[i].token < 0) continue;
        if (picks[i].prob > p->edit_threshold && picks[i].token != b->token[i]) bits |= bit(i);
    }
    return bits;
}

static int quota(int all, int steps, int step)
{
    return steps > 0 ? all / steps + (step < all % steps) : all;
}

/* 2.2: is this the last round that writes, given the fills it would make? */
static bool is_final(const rd_policy *p, const rd_block *b, const rd_policy_state *s,
                     uint64_t filled)
{
    uint64_t original = 0;

    if (p->max_post_steps > 0) return s->post >= p->max_post_steps;
    for (int i = 0; i < b->size; i++)
        if (is_mask(p, b, i) && b->original[i]) original |= bit(i);
    return original && !(original & ~filled);
}

static uint64_t fills_22(const rd_policy *p, const rd_block *b, const rd_policy_state *s,
                         const rd_pick *picks, bool *fallback)
{
    int fresh = 0;

    *fallback = false;
    if (s->step >= p->steps) return mask_bits(p, b);
    for (int i = 0; i < b->size; i++) fresh += is_mask(p, b, i) && !b->original[i];
    return fills(p, b, picks, quota(s->masks, p->steps, s->step) + fresh, fallback);
}

static bool is_control(const rd_policy *p, int32_t id)
{
    return id == p->ids.del || id == p->ids.split;
}

bool rd_policy_wants_plain(const rd_policy *p, const rd_block *b, const rd_policy_state *s,
                           const rd_pick *picks)
{
    bool fallback;

    if (p->kind != RD_POLICY_22 || s->finalized) return false;
    uint64_t filled = fills_22(p, b, s, picks, &fallback);

    if (!is_final(p, b, s, filled)) return false;
    filled = mask_bits(p, b) | rewrites(p, b, picks);
    for (int i = 0; i < b->size; i++)
        if ((filled & bit(i)) && is_control(p, picks[i].token)) return true;
    return false;
}

static void write_picks(rd_block *b, const rd_pick *picks, uint64_t bits)
{
    for (int i = 0; i < b->size; i++) {
        if (!(bits & bit(i)) || picks[i].token < 0) continue;
        b->token[i] = picks[i].token;
        b->prob[i] = picks[i].prob;
    }
}

/* A state that was there before would come back for ever: give the least sure write its second choice. */
static void escape(const rd_policy *p, rd_policy_state *s, rd_block *b, const rd_pick *picks,
                   uint64_t written)
{
    for (int tries = 0; tries < 5 && have_seen(s, hash_tokens(b)); tries++) {
        int least = -1;

        for (int i = 0; i < b->size; i++)
            if ((written & bit(i)) && (least < 0 || picks[i].prob < picks[least].prob)) least = i;
        if (least < 0) return;
        written &= ~bit(least);
        if (picks[least].second >= 0 && picks[least].second != p->ids.mask) {
            b->token[least] = picks[least].second;
            b->prob[least] = picks[least].second_prob;
        }
    }
}

static void apply_22(const rd_policy *p, rd_policy_state *s, rd_block *b, const rd_pick *picks,
                     const rd_pick *plain, rd_change *out)
{
    int32_t before[RD_BLOCK_MOST];

    memcpy(before, b->token, sizeof before);
    out->was_final = s->finalized;
    if (s->finalized) {
        out->over = true;
        memcpy(out->written, b->token, sizeof out->written);
        return;
    }
    out->filled = fills_22(p, b, s, picks, &out->fallback);
    out->edited = rewrites(p, b, picks);
    out->final_round = is_final(p, b, s, out->filled);
    if (out->final_round) out->filled = mask_bits(p, b);
    uint64_t all = out->filled | out->edited;

    for (int i = 0; i < b->size; i++) {
        const rd_pick *from =
            out->final_round && plain && is_control(p, picks[i].token) ? plain : picks;

        if (all & bit(i)) write_picks(b, from, bit(i));
    }
    if (!out->final_round && all) escape(p, s, b, picks, all);
    remember(s, hash_tokens(b));
    memcpy(out->written, b->token, sizeof out->written);
    out->edits = rd_edits_apply(b, before, &p->ids);
    s->finalized = out->final_round;
    out->over = !memcmp(before, b->token, (size_t)b->size * sizeof *before) &&
                rd_block_masks(b, p->ids.mask) == 0;
    if (out->over) out->was_final = true;
}

void rd_policy_apply(const rd_policy *p, rd_policy_state *s, rd_block *b, const rd_pick *picks,
                     const rd_pick *plain, rd_change *out)
{
    uint64_t masks = mask_bits(p, b);
    int clamped = s->step < p->steps ? s->step : p->steps - 1;

    *out = (rd_change){ 0 };
    switch (p->kind) {
    case RD_POLICY_22:
        apply_22(p, s, b, picks, plain, out);
        s->step++;
        return;
    case RD_POLICY_20:
        out->filled = fills(p, b, picks, quota(b->size, p->steps, s->step), &out->fallback);
        break;
    case RD_POLICY_DIFFUSERS:
        if (masks)
            out->filled = fills(p, b, picks, quota(b->size, p->steps, clamped), &out->fallback);
        if (p->edit_threshold > 0.0f) out->edited = rewrites(p, b, picks);
        if (masks)
            out->over = s->step + 1 >= p->steps;
        else
            out->over = !out->edited || ++s->post > p->max_post_steps;
        break;
    case RD_POLICY_21:
        if (masks) out->filled = fills(p, b, picks, p->num_to_transfer, &out->fallback);
        out->edited = rewrites(p, b, picks);
        out->over = !masks && !out->edited;
        break;
    }
    write_picks(b, picks, out->filled | out->edited);
    memcpy(out->written, b->token, sizeof out->written);
    s->step++;
    if (p->reference_quirks || masks || out->over) return;
    /* A full block that was there before: the edits go round in a circle. */
    uint64_t h = hash_tokens(b);

    if (have_seen(s, h)) out->over = true;
    remember(s, h);
}
