/* decoder.c - the step: is the block over? pass, decide, settle, open the next. */
#include "core/decode/decoder.h"

#include "core/base/memory.h"

#include <stdlib.h>
#include <string.h>

struct rd_decoder {
    rd_decoder_options o;
    rd_ids tokens; /* prompt, then masks or what came of them; a multiple of the block */
    int prompt_n, gen, block_size;
    int at;                 /* number of the open block */
    rd_block block, before; /* before: the last pass */
    rd_policy_state state;
    rd_sequence sequence;
    rd_pick picks[RD_BLOCK_MOST], plain[RD_BLOCK_MOST];
    rd_change change;
    int32_t *banned, *banned_plain;
    int n_banned, n_banned_plain;
    int forwards;
    bool prefilled, done;
    bool over; /* the open block is; the next step settles it */
    rd_kv_block *kept;
    int stopped_at; /* quirk: end of the output, or -1 */
};

static int compare_ids(const void *x, const void *y)
{
    int32_t a = *(const int32_t *)x, b = *(const int32_t *)y;

    return (a > b) - (a < b);
}

static void open_block(rd_decoder *d)
{
    int start = d->at * d->block_size;

    d->block = (rd_block){ .size = d->block_size };
    for (int i = 0; i < d->block_size; i++) {
        int32_t id = d->tokens.id[start + i];
        bool mask = id == d->o.policy.ids.mask;

        d->block.token[i] = id;
        d->block.original[i] = mask;
        /* 2.1 pins the whole prompt, its own masks included once they are filled; 2.2 what is no mask. */
        d->block.pinned[i] = d->o.policy.kind == RD_POLICY_22 ? !mask : start + i < d->prompt_n;
    }
    d->over = false;
    rd_policy_begin(&d->o.policy, &d->block, &d->state);
}

rd_status rd_decoder_open(const rd_decoder_options *o, const int32_t *prompt, int prompt_n, int gen,
                          rd_decoder **out, rd_error *err)
{
    int block = o->block > 0 ? o->block : rd_model_block_size(o->model);

    if (block < 1 || block > RD_BLOCK_MOST)
        return rd_fail(err, RD_INVALID, "blocks of %d; 1 to %d can be decoded", block,
                       RD_BLOCK_MOST);
    if (prompt_n < 0 || gen < 1 || prompt_n > INT32_MAX / 2 || gen > INT32_MAX / 4)
        return rd_fail(err, RD_INVALID, "a prompt of %d tokens and %d to generate", prompt_n, gen);
    if (o->pool && block != rd_model_block_size(o->model))
        return rd_fail(err, RD_INVALID, "blocks of %d in a pool of blocks of %d", block,
                       rd_model_block_size(o->model));
    rd_decoder *d = rd_alloc0(sizeof *d);
    int total = (prompt_n + gen + block - 1) / block * block;

    d->o = *o;
    d->prompt_n = prompt_n;
    d->gen = gen;
    d->block_size = block;
    d->at = prompt_n / block;
    d->stopped_at = -1;
    d->sequence = (rd_sequence){
        .model = o->model, .pool = o->pool, .exchange = o->exchange, .origin = o->origin
    };
    rd_ids_append(&d->tokens, prompt, prompt_n);
    for (int i = prompt_n; i < total; i++) rd_ids_push(&d->tokens, o->policy.ids.mask);
    d->banned = rd_alloc_array((size_t)o->n_banned + 3, sizeof *d->banned);
    d->banned_plain = rd_alloc_array((size_t)o->n_banned + 3, sizeof *d->banned_plain);
    if (o->n_banned) memcpy(d->banned, o->banned, (size_t)o->n_banned * sizeof *d->banned);
    d->n_banned = o->n_banned;
    if (!o->policy.reference_quirks || o->policy.kind == RD_POLICY_22)
        d->banned[d->n_banned++] = o->policy.ids.mask;
    memcpy(d->banned_plain, d->banned, (size_t)d->n_banned * sizeof *d->banned);
    d->n_banned_plain = d->n_banned;
    if (o->policy.ids.del >= 0) d->banned_plain[d->n_banned_plain++] = o->policy.ids.del;
    if (o->policy.ids.split >= 0) d->banned_plain[d->n_banned_plain++] = o->policy.ids.split;
    qsort(d->banned, (size_t)d->n_banned, sizeof *d->banned, compare_ids);
    qsort(d->banned_plain, (size_t)d->n_banned_plain, sizeof *d->banned, compare_ids);
    open_block(d);
    *out = d;
    return RD_OK;
}

void rd_decoder_close(rd_decoder *d)
{
    if (!d) return;
    if (d->kept) rd_kv_unref(d->o.pool, d->kept);
    if (d->o.pool) rd_sequence_clear(&d->sequence);
    rd_ids_clear(&d->tokens);
    free(d->banned);
    free(d->banned_plain);
    free(d);
}

/* ---- passes ---- */

static rd_status pass_cached(rd_decoder *d, const rd_pick_query *q, rd_pick *picks, rd_error *err)
{
    bool full = rd_block_masks(&d->block, d->o.policy.ids.mask) == 0;
    int32_t place = -1;

    if (d->kept) rd_kv_unref(d->o.pool, d->kept);
    d->kept = NULL;
    if (full && rd_sequence_offer(&d->sequence, d->block.token, &d->kept, err) == RD_OK)
        place = d->kept->place;
    rd_pass pass = { .tokens = d->block.token,
                     .rows = d->block_size,
                     .past = d->sequence.places,
                     .past_blocks = d->sequence.n,
                     .keep = &place,
                     .query = q,
                     .picks = picks,
                     .cancel = d->o.cancel };

    return rd_forward(d->o.model, &pass, err);
}

/* Everything again: for blocks that are not the pool's, and for the diffusers window. */
static rd_status pass_whole(rd_decoder *d, const rd_pick_query *q, rd_pick *picks, rd_error *err)
{
    int start = d->at * d->block_size, end = start + d->block_size;
    int32_t rows[RD_BLOCK_MOST];
    rd_pick_query query = *q;
    bool open = d->o.policy.kind == RD_POLICY_DIFFUSERS;

    memcpy(d->tokens.id + start, d->block.token, (size_t)d->block_size * sizeof(int32_t));
    for (int i = 0; i < d->block_size; i++) rows[i] = start + i;
    query.rows = rows;
    rd_pass pass = { .tokens = d->tokens.id,
                     .rows = end,
                     .sight = open ? end : d->block_size,
                     .visible = open ? d->prompt_n + d->gen : 0,
                     .query = &query,
                     .picks = picks,
                     .cancel = d->o.cancel };

    return rd_forward(d->o.model, &pass, err);
}

static rd_status run_pass(rd_decoder *d, const int32_t *banned, int n, rd_pick *picks,
                          rd_error *err)
{
    rd_pick_query q = {
        .banned = banned, .n_banned = n, .limit = d->o.limit, .n_rows = d->block_size
    };

    return d->o.pool ? pass_cached(d, &q, picks, err) : pass_whole(d, &q, picks, err);
}

/* ---- settling ---- */

static bool is_stop(const rd_decoder *d, int32_t id)
{
    for (int i = 0; i < d->o.n_stop; i++)
        if (d->o.stop[i] == id) return true;
    return false;
}

static int first_stop(const rd_decoder *d, int from, int end)
{
    for (int i = from; i < end; i++)
        if (is_stop(d, d->tokens.id[i])) return i;
    return -1;
}

/* Early stop inside a block, asked in passes that write a stop token: does nothing masked stand before the
 * first? The references look for the first in the prompt too: 2.0 then returns what stands up to there,
 * diffusers never stops. */
static bool stops_inside(rd_decoder *d)
{
    int start = d->at * d->block_size, end = start + d->block_size;
    bool v20 = d->o.policy.kind == RD_POLICY_20, written = false;

    if (!d->o.early_stop || (!v20 && d->o.policy.kind != RD_POLICY_DIFFUSERS)) return false;
    for (int i = 0; i < d->block_size; i++)
        written |= (rd_slots_has(&d->change.filled, i) || rd_slots_has(&d->change.edited, i)) &&
                   is_stop(d, d->block.token[i]);
    if (!written) return false;
    memcpy(d->tokens.id + start, d->block.token, (size_t)d->block_size * sizeof(int32_t));
    int at = first_stop(d, d->o.policy.reference_quirks ? 0 : d->prompt_n, end);

    if (at < 0 || (!v20 && at < d->prompt_n)) return false;
    for (int i = d->prompt_n; i < at; i++)
        if (d->tokens.id[i] == d->o.policy.ids.mask) return false;
    d->stopped_at = at + 1;
    return true;
}

static bool ends_run(const rd_decoder *d)
{
    int end = (d->at + 1) * d->block_size;
    bool masked = false;

    if (end >= d->tokens.n) return true;
    if (first_stop(d, d->prompt_n, end) < 0) return false;
    if (d->o.policy.kind == RD_POLICY_20) return true;
    if (d->o.policy.kind == RD_POLICY_DIFFUSERS && d->o.policy.reference_quirks) return false;
    for (int i = d->prompt_n; i < end; i++) masked |= d->tokens.id[i] == d->o.policy.ids.mask;
    if (d->o.policy.reference_quirks) return d->o.early_stop && !masked;
    return !masked;
}

/* Keep the block's keys: those of the last pass where it saw the final tokens, else one more pass. */
static rd_status settle(rd_decoder *d, rd_error *err)
{
    int start = d->at * d->block_size;
    rd_status status = RD_OK;

    memcpy(d->tokens.id + start, d->block.token, (size_t)d->block_size * sizeof(int32_t));
    d->done = ends_run(d);
    if (d->done) return RD_OK;
    if (d->o.pool) {
        bool same = d->kept && !memcmp(d->kept->tokens, d->block.token,
                                       (size_t)d->block_size * sizeof(int32_t));

        if (same) {
            rd_sequence_accept(&d->sequence, d->kept);
            d->kept = NULL;
        } else {
            int prefilled = d->sequence.prefilled;

            status =
                rd_sequence_extend(&d->sequence, d->block.token, d->block_size, d->o.cancel, err);
            d->sequence.prefilled = prefilled;
            d->forwards++;
        }
    }
    d->at++;
    open_block(d);
    return status;
}

rd_status rd_decoder_step_run(rd_decoder *d, rd_decoder_step *out, rd_error *err)
{
    rd_error local = { 0 };

    if (!err) err = &local;
    *out = (rd_decoder_step){ .block = &d->block,
                              .before = &d->before,
                              .state = &d->state,
                              .picks = d->picks,
                              .change = &d->change,
                              .window_end = (d->at + 1) * d->block_size,
                              .done = d->done };
    if (d->done) return RD_OK;
    if (!d->prefilled && d->o.pool &&
        rd_sequence_extend(&d->sequence, d->tokens.id, d->at * d->block_size, d->o.cancel, err))
        return err->status;
    d->prefilled = true;
    if (d->over || rd_policy_over(&d->o.policy, &d->block, &d->state)) {
        out->settled = true;
        if (settle(d, err)) return err->status;
        out->done = d->done;
        return RD_OK;
    }
    if (run_pass(d, d->banned, d->n_banned, d->picks, err)) return err->status;
    bool plain = rd_policy_wants_plain(&d->o.policy, &d->block, &d->state, d->picks);

    if (plain && run_pass(d, d->banned_plain, d->n_banned_plain, d->plain, err)) return err->status;
    d->forwards += 1 + plain;
    d->before = d->block;
    rd_policy_apply(&d->o.policy, &d->state, &d->block, d->picks, plain ? d->plain : NULL,
                    &d->change);
    out->passed = true;
    /* The caller looks at the block of this step: the next one is opened by the next call. */
    d->over = out->settled = d->change.over;
    d->done = out->done = stops_inside(d);
    return RD_OK;
}

const rd_ids *rd_decoder_tokens(const rd_decoder *d)
{
    return &d->tokens;
}

void rd_decoder_output(const rd_decoder *d, rd_ids *out)
{
    int end = d->prompt_n + d->gen;
    bool quirks = d->o.policy.reference_quirks;

    if (quirks && d->o.policy.kind == RD_POLICY_DIFFUSERS) {
        /* not cut: what was not decoded is masks */
    } else if (d->stopped_at >= 0) {
        if (d->stopped_at < end || quirks) end = d->stopped_at;
    } else {
        int stop = first_stop(d, d->prompt_n, end);

        if (stop >= 0) end = stop + 1;
    }
    if (end > d->prompt_n) rd_ids_append(out, d->tokens.id + d->prompt_n, end - d->prompt_n);
}

int rd_decoder_forwards(const rd_decoder *d)
{
    return d->forwards;
}

int rd_decoder_prefilled(const rd_decoder *d)
{
    return d->sequence.prefilled;
}
