/* forward.c - the whole model on one page, as calls of the backend's verbs.
 *
 * x is the residual stream. Each layer: norm, queries keys and values, attention, projection, add; norm,
 * MLP or experts, add. Then the last norm and, where picks are wanted, the head.
 * Source: LLaDA2.x modeling_llada2_moe.py.
 */
#include "core/model/layers.h"

#include <math.h>
#include <string.h>

static rd_view first_rows(rd_view v, int rows)
{
    return (rd_view){ v.data, rows, v.cols };
}

static rd_status check_pass(const rd_model *m, const rd_pass *p, rd_error *err)
{
    int tiles = (p->rows + m->block_size - 1) / m->block_size;

    if (p->rows < 1 || p->rows > m->max_rows)
        return rd_fail(err, RD_INVALID, "a pass of %d rows; at most %d fit", p->rows, m->max_rows);
    for (int i = 0; i < p->rows; i++)
        if (p->tokens[i] < 0 || p->tokens[i] >= m->config.vocab_size)
            return rd_fail(err, RD_INVALID, "token %d at row %d; the vocabulary has %d",
                           p->tokens[i], i, m->config.vocab_size);
    if (p->past_blocks < 0 || p->past_blocks > m->kv_blocks)
        return rd_fail(err, RD_INVALID, "%d finished blocks; %d fit", p->past_blocks, m->kv_blocks);
    for (int i = 0; i < p->past_blocks; i++)
        if (p->past[i] < 0 || p->past[i] >= m->kv_blocks)
            return rd_fail(err, RD_INVALID, "block %d of %d", p->past[i], m->kv_blocks);
    for (int i = 0; p->keep && i < tiles; i++)
        if (p->keep[i] < -1 || p->keep[i] >= m->kv_blocks)
            return rd_fail(err, RD_INVALID, "block %d of %d", p->keep[i], m->kv_blocks);
    if (p->branches.counts && (p->branches.first % m->block_size || p->branches.first < 0 ||
                               p->branches.first > p->rows || p->branches.size != m->block_size))
        return rd_fail(err, RD_INVALID, "branches of %d from row %d of %d", p->branches.size,
                       p->branches.first, p->rows);
    return RD_OK;
}

static rd_status tap(rd_model *m, float *to, rd_view from, rd_error *err)
{
    return to ? m->backend->download(m->device, to, from, err) : RD_OK;
}

static rd_status experts(rd_model *m, const rd_layer *y, int l, const rd_pass *p, rd_view out,
                         rd_view in, rd_error *err)
{
    const rd_model_config *c = &m->config;
    const rd_taps *taps = p->taps;
    rd_moe moe = { .router = y->router,
                   .bias = y->bias,
                   .experts = y->experts,
                   .shared = y->shared,
                   .n_experts = c->num_experts,
                   .top_k = c->num_experts_per_tok,
                   .n_group = c->n_group,
                   .topk_group = c->topk_group,
                   .capacity = c->expert_capacity,
                   .window = c->block_size,
                   .scaling = (float)c->routed_scaling_factor,
                   .branches = p->branches };

    if (taps && taps->router_logits) moe.logits_out = taps->router_logits[l];
    if (taps && taps->router_idx) moe.chosen_out = taps->router_idx[l];
    if (taps && taps->router_weight) moe.weight_out = taps->router_weight[l];
    return m->backend->moe(m->device, out, in, &moe, err);
}

static rd_status run_layer(rd_model *m, const rd_pass *p, int l, rd_attention *a, rd_error *err)
{
    const rd_layer *y = &m->layer[l];
    const rd_backend *be = m->backend;
    rd_device *d = m->device;
    float eps = (float)m->config.rms_norm_eps;
    rd_view x = first_rows(m->x, p->rows), normed = first_rows(m->normed, p->rows);
    rd_view out = first_rows(m->y, p->rows), qkv = first_rows(m->qkv, p->rows);
    rd_view mixed = first_rows(m->mixed, p->rows);

    a->layer = l;
    a->q_norm = y->q_norm;
    a->k_norm = y->k_norm;
    if (be->norm(d, normed, x, y->norm1, eps, err) || be->linear(d, qkv, normed, y->qkv, err) ||
        be->attention(d, mixed, qkv, a, err) || be->linear(d, out, mixed, y->dense, err))
        return RD_DEVICE;
    if (p->taps && p->taps->attn_out && tap(m, p->taps->attn_out[l], out, err)) return RD_DEVICE;
    if (be->add(d, x, out, err) || be->norm(d, normed, x, y->norm2, eps, err)) return RD_DEVICE;
    if (y->experts ? experts(m, y, l, p, out, normed, err) : be->mlp(d, out, normed, &y->mlp, err))
        return RD_DEVICE;
    if (p->taps && p->taps->mlp_out && tap(m, p->taps->mlp_out[l], out, err)) return RD_DEVICE;
    if (be->add(d, x, out, err)) return RD_DEVICE;
    return p->taps && p->taps->layer_out ? tap(m, p->taps->layer_out[l], x, err) : RD_OK;
}

/* Logits as they are, for conformance: a product into a view of its own. */
static rd_status tap_logits(rd_model *m, const rd_pass *p, rd_view normed, rd_error *err)
{
    rd_view logits = { 0 };

    if (m->backend->alloc(m->device, p->rows, m->config.vocab_size, &logits, err))
        return RD_NO_MEMORY;
    rd_status s = m->backend->linear(m->device, logits, normed, m->head ? m->head : m->table, err);

    if (!s) s = m->backend->download(m->device, p->taps->logits, logits, err);
    m->backend->release(m->device, &logits);
    return s;
}

/* Weights are finite when they are taken; what they multiply to need not be. */
static rd_status pick(rd_model *m, const rd_pass *p, rd_view normed, rd_error *err)
{
    if (m->backend->pick(m->device, normed, m->head ? m->head : m->table, p->query, p->picks, err))
        return RD_DEVICE;
    for (int i = 0; i < p->query->n_rows; i++)
        if (p->picks[i].token < 0 || !isfinite(p->picks[i].prob))
            return rd_fail(err, RD_INVALID, "the model's answer for row %d of a pass is not finite",
                           i);
    return RD_OK;
}

rd_status rd_forward(rd_model *m, const rd_pass *p, rd_error *err)
{
    const rd_model_config *c = &m->config;
    const rd_backend *be = m->backend;
    rd_view x = first_rows(m->x, p->rows), normed = first_rows(m->normed, p->rows);
    rd_error local = { 0 };

    if (!err) err = &local;
    if (check_pass(m, p, err)) return err->status;
    for (int i = 0; i < p->rows; i++)
        m->chosen[i] = p->positions ? p->positions[i] : p->past_blocks * m->block_size + i;
    rd_attention a = { .rows = p->rows,
                       .heads = c->num_attention_heads,
                       .kv_heads = c->num_key_value_heads,
                       .head_dim = c->head_dim,
                       .rotary_dim = c->rotary_dim,
                       .eps = (float)c->rms_norm_eps,
                       .theta = c->rope_theta,
                       .positions = m->chosen,
                       .past = p->past,
                       .past_blocks = p->past_blocks,
                       .keep = p->keep,
                       .sight = p->sight > 0 ? p->sight : m->block_size,
                       .kv = m->kv,
                       .visible = p->visible,
                       .branches = p->branches };

    if (be->begin(m->device, p->rows, err)) return err->status;
    if (be->embed(m->device, x, m->table, p->tokens, err)) goto fail;
    if (p->taps && tap(m, p->taps->embeddings, x, err)) goto fail;
    for (int l = 0; l < c->num_hidden_layers; l++) {
        if (rd_cancelled(p->cancel)) {
            rd_fail(err, RD_CANCELLED, "the pass was cancelled");
            goto fail;
        }
        if (run_layer(m, p, l, &a, err)) goto fail;
    }
    if (p->query || (p->taps && (p->taps->final_norm || p->taps->logits))) {
        if (be->norm(m->device, normed, x, m->norm, (float)c->rms_norm_eps, err)) goto fail;
        if (p->taps && tap(m, p->taps->final_norm, normed, err)) goto fail;
        if (p->taps && p->taps->logits && tap_logits(m, p, normed, err)) goto fail;
        if (p->query && pick(m, p, normed, err)) goto fail;
    }
    return be->end(m->device, err);
fail:
    be->end(m->device, NULL);
    return err->status ? err->status
                       : rd_fail(err, RD_DEVICE, "the device failed and said nothing");
}

rd_status rd_forward_picks(rd_model *m, int rows, const rd_pick_query *query, rd_pick *out,
                           rd_error *err)
{
    const rd_backend *be = m->backend;
    rd_view x = first_rows(m->x, rows), normed = first_rows(m->normed, rows);

    if (rows < 1 || rows > m->max_rows)
        return rd_fail(err, RD_INVALID, "picks of %d rows; at most %d fit", rows, m->max_rows);
    rd_status s = be->begin(m->device, rows, err);

    if (!s) s = be->norm(m->device, normed, x, m->norm, (float)m->config.rms_norm_eps, err);
    if (!s) s = be->pick(m->device, normed, m->head ? m->head : m->table, query, out, err);
    be->end(m->device, NULL);
    return s;
}
