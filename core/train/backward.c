/* backward.c - one pack forward and backward through the whole model.
 *
 * Each layer keeps what its backward needs: inputs of the norms, projections, rotated keys and
 * queries, the log-sums of attention, the gathered rows of the experts. Attention runs in tiles of
 * up to 32 neighbouring rows against the union of what they see, computed again on the way back.
 * Experts see their rows gathered and padded to a multiple of 32, so that shapes repeat.
 */
#include "core/train/backward.h"

#include "core/base/memory.h"
#include "core/train/kernels.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TILE = RD_TRAIN_TILE, CHUNK = 512, PAD = 32, SLACK = 32 };

typedef struct kept {         /* one layer */
    float *x, *a, *inv1;      /* [rows, hidden], [rows, hidden], [rows] */
    float *qkv;               /* [rows, (heads + 2 kv) dim] before the norms */
    float *q, *k, *v;         /* [heads or kv][rows][dim], normed and turned */
    float *inv_q, *inv_k;     /* [heads or kv][rows] */
    float *o, *lse;           /* [rows, heads dim], [heads][rows] */
    float *mid, *m, *inv2;    /* [rows, hidden], [rows, hidden], [rows] */
    float *gu, *h;            /* dense or shared: [rows, 2 width], [rows, width] */
    float *score, *share;     /* [rows, experts] sigmoid, [rows, top_k] weights */
    int32_t *chosen, *slot;   /* [rows, top_k] expert and place among the gathered rows */
    int32_t *start;           /* [experts + 1] into the gathered rows */
    float *mx, *egu, *eh, *y; /* gathered: [slots, hidden], 2 width, width, hidden */
} kept;

struct rd_net {
    const rd_params *p;
    rd_product product;
    int room;  /* rows at most */
    int slots; /* gathered rows at most */
    int rows;  /* of the pack under way */
    kept *layer;
    float *x, *dx, *dm;        /* [rows, hidden] */
    float *wide, *wide2;       /* [rows, widest projection] scratch */
    float *dq, *dk, *dv;       /* as q, k, v */
    float *kt, *vt;            /* [kv][dim][rows + SLACK] transposed */
    float *s, *ds;             /* [TILE, keys] */
    float *dy, *dh, *dmx;      /* gathered */
    float *router_t, *logit;   /* [hidden, experts padded], [rows, experts padded] */
    float *cosine, *sine;      /* [rows, rotary / 2] */
    float *f, *df, *inv, *big; /* labelled rows: [CHUNK, hidden] twice, [CHUNK], [CHUNK, vocab] */
    float *fx;                 /* [CHUNK, hidden]: the rows before the norm */
    float *surprise;
    int32_t *best;
    void **owned;
    int owned_count;
    bool short_of_memory;
};

static void *hold(rd_net *t, size_t a, size_t b)
{
    size_t n;
    void *m = NULL;

    if (rd_mul(a, b, &n) && rd_mul(n, 4, &n) && rd_add(n, 256, &n)) m = rd_try_alloc(n);
    if (!m) {
        t->short_of_memory = true;
        return NULL;
    }
    memset(m, 0, n);
    t->owned = rd_resize(t->owned, (size_t)t->owned_count + 1, sizeof *t->owned);
    t->owned[t->owned_count++] = m;
    return m;
}

static int experts_padded(const rd_model_config *c)
{
    return (c->num_experts + 15) / 16 * 16;
}

static int dense_width(const rd_params *p, int l)
{
    const rd_model_config *c = &p->config;

    return p->layer[l].moe ? c->moe_intermediate_size * c->num_shared_experts
                           : c->intermediate_size;
}

static void hold_layer(rd_net *t, int l)
{
    const rd_model_config *c = &t->p->config;
    kept *y = &t->layer[l];
    size_t r = (size_t)t->room, hidden = (size_t)c->hidden_size, dim = (size_t)c->head_dim;
    size_t heads = (size_t)c->num_attention_heads, kv = (size_t)c->num_key_value_heads;
    size_t slots = (size_t)t->slots, width = (size_t)c->moe_intermediate_size;
    size_t dense = (size_t)dense_width(t->p, l), top = (size_t)c->num_experts_per_tok;

    y->x = hold(t, r, hidden);
    y->a = hold(t, r, hidden);
    y->inv1 = hold(t, r, 1);
    y->qkv = hold(t, r, (heads + 2 * kv) * dim);
    y->q = hold(t, r, heads * dim);
    y->k = hold(t, r, kv * dim);
    y->v = hold(t, r, kv * dim);
    y->inv_q = hold(t, r, heads);
    y->inv_k = hold(t, r, kv);
    y->o = hold(t, r, heads * dim);
    y->lse = hold(t, r, heads);
    y->mid = hold(t, r, hidden);
    y->m = hold(t, r, hidden);
    y->inv2 = hold(t, r, 1);
    y->gu = hold(t, r, 2 * dense);
    y->h = hold(t, r, dense);
    if (!t->p->layer[l].moe) return;
    y->score = hold(t, r, (size_t)c->num_experts);
    y->share = hold(t, r, top);
    y->chosen = hold(t, r, top);
    y->slot = hold(t, r, top);
    y->start = hold(t, (size_t)c->num_experts + 1, 1);
    y->mx = hold(t, slots, hidden);
    y->egu = hold(t, slots, 2 * width);
    y->eh = hold(t, slots, width);
    y->y = hold(t, slots, hidden);
}

rd_status rd_net_open(const rd_params *p, rd_product product, int rows, rd_net **out, rd_error *err)
{
    const rd_model_config *c = &p->config;
    rd_net *t = rd_alloc0(sizeof *t);
    size_t r = (size_t)rows, hidden = (size_t)c->hidden_size, dim = (size_t)c->head_dim;
    size_t heads = (size_t)c->num_attention_heads, kv = (size_t)c->num_key_value_heads;
    size_t wide = (heads + 2 * kv) * dim;

    t->p = p;
    t->product = product;
    t->room = rows;
    t->slots = rows * c->num_experts_per_tok + c->num_experts * PAD;
    t->layer = rd_alloc_array((size_t)c->num_hidden_layers, sizeof *t->layer);
    for (int l = 0; l < c->num_hidden_layers; l++) {
        hold_layer(t, l);
        if (2 * (size_t)dense_width(p, l) > wide) wide = 2 * (size_t)dense_width(p, l);
    }
    if (hidden > wide) wide = hidden;
    t->x = hold(t, r, hidden);
    t->dx = hold(t, r, hidden);
    t->dm = hold(t, r, hidden);
    t->wide = hold(t, r, wide);
    t->wide2 = hold(t, r, wide);
    t->dq = hold(t, r, heads * dim);
    t->dk = hold(t, r, kv * dim);
    t->dv = hold(t, r, kv * dim);
    t->kt = hold(t, r + SLACK, kv * dim);
    t->vt = hold(t, r + SLACK, kv * dim);
    t->s = hold(t, TILE, r + 2 * SLACK);
    t->ds = hold(t, TILE, r + 2 * SLACK);
    t->dy = hold(t, (size_t)t->slots, hidden);
    t->dh = hold(t, (size_t)t->slots, (size_t)c->moe_intermediate_size);
    t->dmx = hold(t, (size_t)t->slots, hidden);
    t->router_t = hold(t, hidden, (size_t)experts_padded(c));
    t->logit = hold(t, r, (size_t)experts_padded(c));
    t->cosine = hold(t, r, (size_t)c->rotary_dim);
    t->sine = hold(t, r, (size_t)c->rotary_dim);
    t->f = hold(t, CHUNK, hidden);
    t->df = hold(t, CHUNK, hidden);
    t->fx = hold(t, CHUNK, hidden);
    t->inv = hold(t, CHUNK, 1);
    t->big = hold(t, CHUNK, (size_t)c->vocab_size);
    t->surprise = hold(t, r, 1);
    t->best = hold(t, r, 1);
    if (t->short_of_memory) {
        rd_net_close(t);
        return rd_fail(err, RD_NO_MEMORY, "the trainer: no memory for packs of %d rows", rows);
    }
    *out = t;
    return RD_OK;
}

void rd_net_close(rd_net *t)
{
    if (!t) return;
    for (int i = 0; i < t->owned_count; i++) free(t->owned[i]);
    free(t->owned);
    free(t->layer);
    free(t);
}

const float *rd_net_surprise(const rd_net *t)
{
    return t->surprise;
}

const int32_t *rd_net_best(const rd_net *t)
{
    return t->best;
}

const int32_t *rd_net_routes(const rd_net *t, int l)
{
    return t->layer[l].chosen;
}

/* ---- products: out = x W^T, and its two gradients ---- */

static rd_status times(rd_net *t, float *out, const float *x, const float *w, int rows, int in,
                       int to, rd_error *err)
{
    return t->product.gemm(t->product.device, false, true, rows, to, in, x, in, w, in, 0.0f, out,
                           to, err);
}

/* dx = (or += with beta 1) dy W. */
static rd_status times_back(rd_net *t, float beta, float *dx, const float *dy, const float *w,
                            int rows, int in, int to, rd_error *err)
{
    return t->product.gemm(t->product.device, false, false, rows, in, to, dy, to, w, in, beta, dx,
                           in, err);
}

/* dW += dy^T x. */
static rd_status weigh(rd_net *t, float *dw, const float *dy, const float *x, int rows, int in,
                       int to, rd_error *err)
{
    return t->product.gemm(t->product.device, true, false, to, in, rows, dy, to, x, in, 1.0f, dw,
                           in, err);
}

/* ---- attention ---- */

static void fill_turns(rd_net *t, const rd_train_row *row)
{
    const rd_model_config *c = &t->p->config;
    int half = c->rotary_dim / 2;

    for (int i = 0; i < half; i++) {
        double turn = pow(c->rope_theta, -2.0 * i / c->rotary_dim);

        for (int r = 0; r < t->rows; r++) {
            double angle = (double)((float)row[r].position * (float)turn);

            t->cosine[(size_t)r * (size_t)half + (size_t)i] = (float)cos(angle);
            t->sine[(size_t)r * (size_t)half + (size_t)i] = (float)sin(angle);
        }
    }
}

/* Turn one head's row forwards (sign 1) or back (sign -1). */
static void turn_row(const rd_net *t, float *x, int row, float sign)
{
    int half = t->p->config.rotary_dim / 2;
    const float *c = t->cosine + (size_t)row * (size_t)half;
    const float *s = t->sine + (size_t)row * (size_t)half;

    for (int i = 0; i < half; i++) {
        float a = x[i], b = x[i + half], by = sign * s[i];

        x[i] = a * c[i] - b * by;
        x[i + half] = b * c[i] + a * by;
    }
}

/* Norm and turn the queries and keys, copy the values, each head on its own. */
static void split_heads(rd_net *t, kept *y, const float *q_norm, const float *k_norm)
{
    const rd_model_config *c = &t->p->config;
    int heads = c->num_attention_heads, kv = c->num_key_value_heads, dim = c->head_dim;
    size_t stride = (size_t)(heads + 2 * kv) * (size_t)dim, n = (size_t)t->rows, d = (size_t)dim;
    float eps = (float)c->rms_norm_eps;

    for (int r = 0; r < t->rows; r++) {
        const float *in = y->qkv + (size_t)r * stride;

        for (int h = 0; h < heads; h++, in += d) {
            size_t at = (size_t)h * n + (size_t)r;

            rd_rms_forward(y->q + at * d, y->inv_q + at, in, q_norm, 1, dim, eps);
            turn_row(t, y->q + at * d, r, 1.0f);
        }
        for (int h = 0; h < kv; h++, in += d) {
            size_t at = (size_t)h * n + (size_t)r;

            rd_rms_forward(y->k + at * d, y->inv_k + at, in, k_norm, 1, dim, eps);
            turn_row(t, y->k + at * d, r, 1.0f);
        }
        for (int h = 0; h < kv; h++, in += d)
            memcpy(y->v + ((size_t)h * n + (size_t)r) * d, in, d * sizeof *in);
    }
}

static void merge_heads_back(rd_net *t, kept *y, float *dqkv, const float *q_norm,
                             const float *k_norm, float *dq_norm, float *dk_norm)
{
    const rd_model_config *c = &t->p->config;
    int heads = c->num_attention_heads, kv = c->num_key_value_heads, dim = c->head_dim;
    size_t stride = (size_t)(heads + 2 * kv) * (size_t)dim, n = (size_t)t->rows, d = (size_t)dim;

    memset(dqkv, 0, n * stride * sizeof *dqkv);
    for (int r = 0; r < t->rows; r++) {
        const float *in = y->qkv + (size_t)r * stride;
        float *out = dqkv + (size_t)r * stride;

        for (int h = 0; h < heads; h++, in += d, out += d) {
            size_t at = (size_t)h * n + (size_t)r;

            turn_row(t, t->dq + at * d, r, -1.0f);
            rd_rms_backward(out, dq_norm, t->dq + at * d, in, y->inv_q + at, q_norm, 1, dim);
        }
        for (int h = 0; h < kv; h++, in += d, out += d) {
            size_t at = (size_t)h * n + (size_t)r;

            turn_row(t, t->dk + at * d, r, -1.0f);
            rd_rms_backward(out, dk_norm, t->dk + at * d, in, y->inv_k + at, k_norm, 1, dim);
        }
        for (int h = 0; h < kv; h++, out += d)
            memcpy(out, t->dv + ((size_t)h * n + (size_t)r) * d, d * sizeof *out);
    }
}

static void transpose(float *out, size_t stride, const float *in, int rows, int dim)
{
    for (int r0 = 0; r0 < rows; r0 += 16) {
        int r1 = r0 + 16 < rows ? r0 + 16 : rows;

        for (int i = 0; i < dim; i++)
            for (int r = r0; r < r1; r++)
                out[(size_t)i * stride + (size_t)r] = in[(size_t)r * (size_t)dim + (size_t)i];
    }
}

typedef struct tile {
    int first, rows;      /* of the pack */
    int clean, own;       /* first key of either range */
    int n_clean, n_own;   /* keys of either range */
    int pad_clean, width; /* the own keys start at pad_clean in a row of scores; its length */
} tile;

/* The next rows that are worth computing together, starting at `first`. */
static tile next_tile(const rd_net *t, const rd_train_row *row, int first)
{
    rd_train_tile seen = rd_train_tile_of(row, t->rows, first, RD_TRAIN_TILE);
    tile x = { .first = first,
               .rows = seen.rows,
               .clean = seen.clean_start,
               .own = seen.own_start,
               .n_clean = seen.clean_end - seen.clean_start,
               .n_own = seen.own_end - seen.own_start };

    x.pad_clean = (x.n_clean + 15) / 16 * 16;
    x.width = x.pad_clean + (x.n_own + 15) / 16 * 16;
    return x;
}

/* out [rows, width] = x K^T for the tile's keys, `xt` being transposed keys or values. */
static void against_keys(const rd_net *t, const tile *x, float *out, const float *in,
                         size_t in_stride, const float *xt)
{
    int dim = t->p->config.head_dim;
    size_t ld = (size_t)t->room + SLACK, w = (size_t)x->width;

    if (x->n_clean > 0)
        rd_small_product(false, x->rows, x->pad_clean, dim, in, in_stride, 1, xt + x->clean, ld,
                         out, w);
    if (x->n_own > 0)
        rd_small_product(false, x->rows, x->width - x->pad_clean, dim, in, in_stride, 1,
                         xt + x->own, ld, out + x->pad_clean, w);
}

/* out [rows, dim] = (+=) s times keys or values. */
static void over_keys(const rd_net *t, const tile *x, bool add, float *out, size_t out_stride,
                      const float *s, const float *v)
{
    int dim = t->p->config.head_dim;
    size_t d = (size_t)dim, w = (size_t)x->width;

    if (x->n_clean > 0)
        rd_small_product(add, x->rows, dim, x->n_clean, s, w, 1, v + (size_t)x->clean * d, d, out,
                         out_stride);
    if (x->n_own > 0)
        rd_small_product(add || x->n_clean > 0, x->rows, dim, x->n_own, s + x->pad_clean, w, 1,
                         v + (size_t)x->own * d, d, out, out_stride);
}

/* Keys or values get their gradient: out[key] += s^T x. */
static void to_keys(const rd_net *t, const tile *x, float *out, const float *s, const float *in,
                    size_t in_stride)
{
    int dim = t->p->config.head_dim;
    size_t d = (size_t)dim, w = (size_t)x->width;

    if (x->n_clean > 0)
        rd_small_product(true, x->n_clean, dim, x->rows, s, 1, w, in, in_stride,
                         out + (size_t)x->clean * d, d);
    if (x->n_own > 0)
        rd_small_product(true, x->n_own, dim, x->rows, s + x->pad_clean, 1, w, in, in_stride,
                         out + (size_t)x->own * d, d);
}

/* Scores to probabilities: each row over what it sees, zero elsewhere. With `again` the log-sums
 * are known. A row's two ranges are brought together in `lse` by their log-sums. */
static void weights_of(const tile *x, const rd_train_row *row, float *s, float *lse, bool again,
                       float scale)
{
    for (int i = 0; i < x->rows; i++) {
        const rd_train_row *r = &row[x->first + i];
        float *line = s + (size_t)i * (size_t)x->width, *l = lse + x->first + i;
        int c0 = r->clean_start - x->clean, cn = r->clean_end - r->clean_start;
        int o0 = x->pad_clean + r->own_start - x->own, on = r->own_end - r->own_start;

        if (cn <= 0) c0 = cn = 0;
        if (on <= 0) o0 = x->pad_clean, on = 0;
        memset(line, 0, (size_t)c0 * sizeof *line);
        memset(line + c0 + cn, 0, (size_t)(o0 - c0 - cn) * sizeof *line);
        memset(line + o0 + on, 0, (size_t)(x->width - o0 - on) * sizeof *line);
        if (again) {
            rd_softmax_again(line + c0, cn, scale, *l);
            rd_softmax_again(line + o0, on, scale, *l);
        } else if (cn > 0 && on > 0) {
            float a = rd_softmax(line + c0, cn, scale), b = rd_softmax(line + o0, on, scale);
            float top = a > b ? a : b;

            *l = top + logf(expf(a - top) + expf(b - top));
            rd_scale(line + c0, expf(a - *l), (size_t)cn);
            rd_scale(line + o0, expf(b - *l), (size_t)on);
        } else {
            *l = rd_softmax(line + (cn ? c0 : o0), cn ? cn : on, scale);
        }
    }
}

static void transpose_keys(rd_net *t, const kept *y)
{
    int dim = t->p->config.head_dim;
    size_t ld = (size_t)t->room + SLACK, d = (size_t)dim, n = (size_t)t->rows;

    for (int g = 0; g < t->p->config.num_key_value_heads; g++) {
        transpose(t->kt + (size_t)g * d * ld, ld, y->k + (size_t)g * n * d, t->rows, dim);
        transpose(t->vt + (size_t)g * d * ld, ld, y->v + (size_t)g * n * d, t->rows, dim);
    }
}

static void attend(rd_net *t, kept *y, const rd_train_row *row, double *flops)
{
    const rd_model_config *c = &t->p->config;
    int heads = c->num_attention_heads, dim = c->head_dim;
    int share = heads / c->num_key_value_heads;
    size_t d = (size_t)dim, n = (size_t)t->rows, ld = (size_t)t->room + SLACK;
    float scale = 1.0f / sqrtf((float)dim);

    transpose_keys(t, y);
    for (int i = 0; i < t->rows;) {
        tile x = next_tile(t, row, i);

        for (int h = 0; h < heads; h++) {
            size_t g = (size_t)(h / share);
            const float *q = y->q + ((size_t)h * n + (size_t)i) * d;

            against_keys(t, &x, t->s, q, d, t->kt + g * d * ld);
            weights_of(&x, row, t->s, y->lse + (size_t)h * n, false, scale);
            over_keys(t, &x, false, y->o + (size_t)i * (size_t)heads * d + (size_t)h * d,
                      (size_t)heads * d, t->s, y->v + g * n * d);
        }
        *flops += 4.0 * heads * dim * x.rows * (x.n_clean + x.n_own);
        i += x.rows;
    }
}

/* do_: [rows, heads dim]; fills dq, dk, dv. */
static void attend_back(rd_net *t, kept *y, const rd_train_row *row, const float *do_,
                        double *flops)
{
    const rd_model_config *c = &t->p->config;
    int heads = c->num_attention_heads, kv = c->num_key_value_heads, dim = c->head_dim;
    int share = heads / kv;
    size_t d = (size_t)dim, n = (size_t)t->rows, ld = (size_t)t->room + SLACK;
    size_t stride = (size_t)heads * d;
    float scale = 1.0f / sqrtf((float)dim);

    transpose_keys(t, y);
    memset(t->dk, 0, (size_t)kv * n * d * sizeof *t->dk);
    memset(t->dv, 0, (size_t)kv * n * d * sizeof *t->dv);
    for (int i = 0; i < t->rows;) {
        tile x = next_tile(t, row, i);

        for (int h = 0; h < heads; h++) {
            size_t g = (size_t)(h / share), at = ((size_t)h * n + (size_t)i) * d;
            const float *dout = do_ + (size_t)i * stride + (size_t)h * d;
            const float *o = y->o + (size_t)i * stride + (size_t)h * d;

            against_keys(t, &x, t->s, y->q + at, d, t->kt + g * d * ld);
            weights_of(&x, row, t->s, y->lse + (size_t)h * n, true, scale);
            against_keys(t, &x, t->ds, dout, stride, t->vt + g * d * ld);
            for (int r = 0; r < x.rows; r++) {
                size_t line = (size_t)r * (size_t)x.width;
                float sub = rd_dot(dout + (size_t)r * stride, o + (size_t)r * stride, dim);

                rd_softmax_backward(t->ds + line, t->s + line, x.width, sub, scale);
            }
            over_keys(t, &x, false, t->dq + at, d, t->ds, y->k + g * n * d);
            to_keys(t, &x, t->dk + g * n * d, t->ds, y->q + at, d);
            to_keys(t, &x, t->dv + g * n * d, t->s, dout, stride);
        }
        *flops += 10.0 * heads * dim * x.rows * (x.n_clean + x.n_own);
        i += x.rows;
    }
}

/* ---- router and experts ---- */

/* Group-limited choice of one row: score + bias decides; the lower id wins a tie. */
static void choose(const rd_model_config *c, const float *score, const float *bias, int32_t *chosen,
                   float *share)
{
    float biased[256], group[256];
    int per = c->num_experts / c->n_group;
    float sum = 0.0f;

    for (int e = 0; e < c->num_experts; e++) biased[e] = score[e] + bias[e];
    if (c->n_group > 1) {
        for (int g = 0; g < c->n_group; g++) {
            float a = -INFINITY, b = -INFINITY;

            for (int e = g * per; e < (g + 1) * per; e++) {
                if (biased[e] > a)
                    b = a, a = biased[e];
                else if (biased[e] > b)
                    b = biased[e];
            }
            group[g] = per > 1 ? a + b : a;
        }
        for (int drop = c->n_group - c->topk_group; drop > 0; drop--) {
            int worst = -1;

            for (int g = 0; g < c->n_group; g++)
                if (group[g] < INFINITY && (worst < 0 || group[g] <= group[worst])) worst = g;
            if (worst < 0) break; /* no number among the scores: the loss will not be one either */
            for (int e = worst * per; e < (worst + 1) * per; e++) biased[e] = -INFINITY;
            group[worst] = INFINITY;
        }
    }
    for (int k = 0; k < c->num_experts_per_tok; k++) {
        int best = 0;

        for (int e = 1; e < c->num_experts; e++)
            if (biased[e] > biased[best]) best = e;
        chosen[k] = best;
        share[k] = score[best];
        sum += score[best];
        biased[best] = -INFINITY;
    }
    float by = (float)c->routed_scaling_factor;

    if (c->num_experts_per_tok > 1) by /= sum + 1e-20f;
    for (int k = 0; k < c->num_experts_per_tok; k++) share[k] *= by;
}

/* Scores, choice, and the places of the rows among the gathered ones. */
static void route(rd_net *t, kept *y, const rd_layer_params *at, const float *w, int64_t *load)
{
    const rd_model_config *c = &t->p->config;
    int experts = c->num_experts, pad = experts_padded(c), top = c->num_experts_per_tok;
    int fill[256] = { 0 };

    for (int e = 0; e < experts; e++)
        for (int i = 0; i < c->hidden_size; i++)
            t->router_t[(size_t)i * (size_t)pad + (size_t)e] =
                w[at->router + (size_t)e * (size_t)c->hidden_size + (size_t)i];
    rd_small_product(false, t->rows, pad, c->hidden_size, y->m, (size_t)c->hidden_size, 1,
                     t->router_t, (size_t)pad, t->logit, (size_t)pad);
    for (int r = 0; r < t->rows; r++) {
        float *score = y->score + (size_t)r * (size_t)experts;
        int32_t *chosen = y->chosen + (size_t)r * (size_t)top;

        for (int e = 0; e < experts; e++)
            score[e] = 1.0f / (1.0f + expf(-t->logit[(size_t)r * (size_t)pad + (size_t)e]));
        choose(c, score, w + at->bias, chosen, y->share + (size_t)r * (size_t)top);
        for (int k = 0; k < top; k++) fill[chosen[k]]++;
    }
    y->start[0] = 0;
    for (int e = 0; e < experts; e++) {
        if (load) load[e] += fill[e];
        y->start[e + 1] = y->start[e] + (fill[e] + PAD - 1) / PAD * PAD;
        fill[e] = y->start[e];
    }
    assert(y->start[experts] <= t->slots);
    for (int i = 0; i < t->rows * top; i++) y->slot[i] = fill[y->chosen[i]]++;
}

static rd_status experts_forward(rd_net *t, kept *y, const rd_layer_params *at, const float *w,
                                 float *out, double *flops, rd_error *err)
{
    const rd_model_config *c = &t->p->config;
    int hidden = c->hidden_size, width = c->moe_intermediate_size, top = c->num_experts_per_tok;
    size_t h = (size_t)hidden;

    memset(y->mx, 0, (size_t)y->start[c->num_experts] * h * sizeof *y->mx);
    for (int i = 0; i < t->rows * top; i++)
        memcpy(y->mx + (size_t)y->slot[i] * h, y->m + (size_t)(i / top) * h, h * sizeof *y->mx);
    for (int e = 0; e < c->num_experts; e++) {
        size_t s = (size_t)y->start[e];
        int n = y->start[e + 1] - y->start[e];
        const float *gate_up = w + at->experts + (size_t)e * at->expert_stride;
        const float *down = gate_up + 2 * (size_t)width * h;

        if (n == 0) continue;
        if (times(t, y->egu + s * 2 * (size_t)width, y->mx + s * h, gate_up, n, hidden, 2 * width,
                  err))
            return err->status;
        rd_gate_forward(y->eh + s * (size_t)width, y->egu + s * 2 * (size_t)width, n, width);
        if (times(t, y->y + s * h, y->eh + s * (size_t)width, down, n, width, hidden, err))
            return err->status;
    }
    for (int i = 0; i < t->rows * top; i++)
        rd_add_scaled(out + (size_t)(i / top) * h, y->y + (size_t)y->slot[i] * h, y->share[i], h);
    *flops += 6.0 * hidden * width * t->rows * top;
    return RD_OK;
}

/* The router's gradient from that of the shares. dlogit goes to t->logit, then to dW and dm. */
static void route_back(rd_net *t, kept *y, const rd_layer_params *at, const float *w,
                       const float *dout, float *grad, float *dm)
{
    const rd_model_config *c = &t->p->config;
    int experts = c->num_experts, pad = experts_padded(c), top = c->num_experts_per_tok;
    size_t h = (size_t)c->hidden_size;
    float by = (float)c->routed_scaling_factor;

    memset(t->logit, 0, (size_t)t->rows * (size_t)pad * sizeof *t->logit);
    for (int r = 0; r < t->rows; r++) {
        const float *score = y->score + (size_t)r * (size_t)experts;
        float *d = t->logit + (size_t)r * (size_t)pad;
        float sum = 1e-20f, mean = 0.0f;

        for (int k = 0; k < top; k++) sum += score[y->chosen[r * top + k]];
        for (int k = 0; k < top; k++) {
            int i = r * top + k, e = y->chosen[i];
            float ds = by * rd_dot(dout + (size_t)r * h, y->y + (size_t)y->slot[i] * h, (int)h);

            d[e] = ds;
            mean += ds * score[e] / sum;
        }
        for (int k = 0; k < top; k++) {
            int e = y->chosen[r * top + k];

            if (top > 1) d[e] = (d[e] - mean) / sum;
            d[e] *= score[e] * (1.0f - score[e]);
        }
    }
    rd_small_product(true, experts, (int)h, t->rows, t->logit, 1, (size_t)pad, y->m, h,
                     grad + at->router, h);
    rd_small_product(true, t->rows, (int)h, experts, t->logit, (size_t)pad, 1, w + at->router, h,
                     dm, h);
}

static rd_status experts_back(rd_net *t, kept *y, const rd_layer_params *at, const float *w,
                              const float *dout, float *grad, float *dm, double *flops,
                              rd_error *err)
{
    const rd_model_config *c = &t->p->config;
    int hidden = c->hidden_size, width = c->moe_intermediate_size, top = c->num_experts_per_tok;
    size_t h = (size_t)hidden, wd = (size_t)width;

    route_back(t, y, at, w, dout, grad, dm);
    memset(t->dy, 0, (size_t)y->start[c->num_experts] * h * sizeof *t->dy);
    for (int i = 0; i < t->rows * top; i++)
        rd_add_scaled(t->dy + (size_t)y->slot[i] * h, dout + (size_t)(i / top) * h, y->share[i], h);
    for (int e = 0; e < c->num_experts; e++) {
        size_t s = (size_t)y->start[e], block = at->experts + (size_t)e * at->expert_stride;
        int n = y->start[e + 1] - y->start[e];
        size_t down = block + 2 * wd * h;

        if (n == 0) continue;
        if (times_back(t, 0.0f, t->dh + s * wd, t->dy + s * h, w + down, n, width, hidden, err) ||
            weigh(t, grad + down, t->dy + s * h, y->eh + s * wd, n, width, hidden, err))
            return err->status;
        rd_gate_backward(y->egu + s * 2 * wd, t->dh + s * wd, n, width);
        if (times_back(t, 0.0f, t->dmx + s * h, y->egu + s * 2 * wd, w + block, n, hidden,
                       2 * width, err) ||
            weigh(t, grad + block, y->egu + s * 2 * wd, y->mx + s * h, n, hidden, 2 * width, err))
            return err->status;
    }
    for (int i = 0; i < t->rows * top; i++)
        rd_add_scaled(dm + (size_t)(i / top) * h, t->dmx + (size_t)y->slot[i] * h, 1.0f, h);
    *flops += 12.0 * hidden * width * t->rows * top;
    return RD_OK;
}

/* ---- layers ---- */

static rd_status layer_forward(rd_net *t, const float *w, const rd_train_row *row, int l,
                               rd_train_stats *stats, rd_error *err)
{
    const rd_model_config *c = &t->p->config;
    const rd_layer_params *at = &t->p->layer[l];
    kept *y = &t->layer[l];
    int hidden = c->hidden_size, heads = c->num_attention_heads;
    int qkv = (heads + 2 * c->num_key_value_heads) * c->head_dim, width = dense_width(t->p, l);
    size_t n = (size_t)t->rows * (size_t)hidden;
    float eps = (float)c->rms_norm_eps;

    memcpy(y->x, t->x, n * sizeof *t->x);
    rd_rms_forward(y->a, y->inv1, y->x, w + at->norm1, t->rows, hidden, eps);
    if (times(t, y->qkv, y->a, w + at->qkv, t->rows, hidden, qkv, err)) return err->status;
    split_heads(t, y, w + at->q_norm, w + at->k_norm);
    attend(t, y, row, &stats->flops);
    if (times(t, t->wide, y->o, w + at->dense, t->rows, heads * c->head_dim, hidden, err))
        return err->status;
    rd_add_scaled(t->x, t->wide, 1.0f, n);
    memcpy(y->mid, t->x, n * sizeof *t->x);
    rd_rms_forward(y->m, y->inv2, y->mid, w + at->norm2, t->rows, hidden, eps);
    if (width > 0) {
        size_t gate_up = at->moe ? at->shared_gate_up : at->gate_up;
        size_t down = at->moe ? at->shared_down : at->down;

        if (times(t, y->gu, y->m, w + gate_up, t->rows, hidden, 2 * width, err)) return err->status;
        rd_gate_forward(y->h, y->gu, t->rows, width);
        if (times(t, t->wide, y->h, w + down, t->rows, width, hidden, err)) return err->status;
        rd_add_scaled(t->x, t->wide, 1.0f, n);
    }
    stats->flops += 2.0 * t->rows * hidden * (qkv + heads * c->head_dim + 3.0 * width);
    if (!at->moe) return RD_OK;
    route(t, y, at, w, stats->load ? stats->load + (size_t)l * (size_t)c->num_experts : NULL);
    return experts_forward(t, y, at, w, t->x, &stats->flops, err);
}

/* t->dx is the gradient of the layer's output, and then of its input. */
static rd_status layer_back(rd_net *t, const float *w, const rd_train_row *row, int l, float *grad,
                            rd_train_stats *stats, rd_error *err)
{
    const rd_model_config *c = &t->p->config;
    const rd_layer_params *at = &t->p->layer[l];
    kept *y = &t->layer[l];
    int hidden = c->hidden_size, heads = c->num_attention_heads, rows = t->rows;
    int qkv = (heads + 2 * c->num_key_value_heads) * c->head_dim, width = dense_width(t->p, l);
    int inner = heads * c->head_dim;

    memset(t->dm, 0, (size_t)rows * (size_t)hidden * sizeof *t->dm);
    if (at->moe && experts_back(t, y, at, w, t->dx, grad, t->dm, &stats->flops, err))
        return err->status;
    if (width > 0) {
        size_t gate_up = at->moe ? at->shared_gate_up : at->gate_up;
        size_t down = at->moe ? at->shared_down : at->down;

        if (times_back(t, 0.0f, t->wide, t->dx, w + down, rows, width, hidden, err) ||
            weigh(t, grad + down, t->dx, y->h, rows, width, hidden, err))
            return err->status;
        rd_gate_backward(y->gu, t->wide, rows, width);
        if (times_back(t, 1.0f, t->dm, y->gu, w + gate_up, rows, hidden, 2 * width, err) ||
            weigh(t, grad + gate_up, y->gu, y->m, rows, hidden, 2 * width, err))
            return err->status;
    }
    rd_rms_backward(t->dx, grad + at->norm2, t->dm, y->mid, y->inv2, w + at->norm2, rows, hidden);
    if (times_back(t, 0.0f, t->wide, t->dx, w + at->dense, rows, inner, hidden, err) ||
        weigh(t, grad + at->dense, t->dx, y->o, rows, inner, hidden, err))
        return err->status;
    attend_back(t, y, row, t->wide, &stats->flops);
    merge_heads_back(t, y, t->wide2, w + at->q_norm, w + at->k_norm, grad + at->q_norm,
                     grad + at->k_norm);
    if (times_back(t, 0.0f, t->dm, t->wide2, w + at->qkv, rows, hidden, qkv, err) ||
        weigh(t, grad + at->qkv, t->wide2, y->a, rows, hidden, qkv, err))
        return err->status;
    rd_rms_backward(t->dx, grad + at->norm1, t->dm, y->x, y->inv1, w + at->norm1, rows, hidden);
    stats->flops += 4.0 * rows * hidden * (qkv + inner + 3.0 * width);
    return RD_OK;
}

/* ---- head ---- */

/* CAP's term of a row of probabilities, and the gradient of both terms in their place, times `scale`. */
static double be_sure(float *p, int n, const rd_train_row *r, float scale)
{
    double entropy = 0.0;

    for (int v = 0; v < n; v++)
        if (p[v] > 0.0f) entropy -= (double)p[v] * log((double)p[v]);
    for (int v = 0; v < n; v++) {
        double slope = p[v] > 0.0f ? log((double)p[v]) + entropy : 0.0;

        p[v] *= scale * (r->weight - r->confidence * (float)slope);
    }
    return (double)r->confidence * entropy;
}

/* Loss of one row; its logits become the gradient. */
static void row_loss(rd_net *t, const rd_train_row *r, int at, float *logits, float scale,
                     rd_train_stats *stats)
{
    int vocab = t->p->config.vocab_size, best = 0;
    float own = logits[r->label];

    for (int v = 1; v < vocab; v++)
        if (logits[v] > logits[best]) best = v;
    float surprise = rd_softmax(logits, vocab, 1.0f) - own;

    t->surprise[at] = surprise;
    t->best[at] = best;
    stats->loss[r->task] += (double)r->weight * (double)surprise;
    stats->weight[r->task] += (double)r->weight;
    stats->labels[r->task]++;
    stats->right[r->task] += best == r->label;
    if (r->confidence > 0.0f && best == r->label)
        stats->entropy += be_sure(logits, vocab, r, scale);
    else
        rd_scale(logits, r->weight * scale, (size_t)vocab);
    logits[r->label] -= r->weight * scale;
}

/* The labelled rows `list` [n <= CHUNK]: loss, and with `grad` their gradient into t->dx. */
static rd_status head_chunk(rd_net *t, const float *w, const rd_train_row *row, const int *list,
                            int n, float scale, float *grad, rd_train_stats *stats, rd_error *err)
{
    const rd_model_config *c = &t->p->config;
    int hidden = c->hidden_size, vocab = c->vocab_size;
    size_t h = (size_t)hidden;
    int padded = (n + PAD - 1) / PAD * PAD;

    memset(t->fx, 0, (size_t)padded * h * sizeof *t->fx);
    for (int i = 0; i < n; i++)
        memcpy(t->fx + (size_t)i * h, t->x + (size_t)list[i] * h, h * sizeof *t->fx);
    rd_rms_forward(t->f, t->inv, t->fx, w + t->p->norm, padded, hidden, (float)c->rms_norm_eps);
    if (times(t, t->big, t->f, w + t->p->head, padded, hidden, vocab, err)) return err->status;
    for (int i = 0; i < n; i++)
        row_loss(t, &row[list[i]], list[i], t->big + (size_t)i * (size_t)vocab, scale, stats);
    stats->flops += (grad ? 6.0 : 2.0) * hidden * vocab * n;
    if (!grad) return RD_OK;
    memset(t->big + (size_t)n * (size_t)vocab, 0,
           (size_t)(padded - n) * (size_t)vocab * sizeof *t->big);
    if (times_back(t, 0.0f, t->df, t->big, w + t->p->head, padded, hidden, vocab, err) ||
        weigh(t, grad + t->p->head, t->big, t->f, padded, hidden, vocab, err))
        return err->status;
    for (int i = 0; i < n; i++)
        rd_rms_backward(t->dx + (size_t)list[i] * h, grad + t->p->norm, t->df + (size_t)i * h,
                        t->fx + (size_t)i * h, t->inv + i, w + t->p->norm, 1, hidden);
    return RD_OK;
}

static rd_status head(rd_net *t, const float *w, const rd_train_row *row, float scale, float *grad,
                      rd_train_stats *stats, rd_error *err)
{
    int list[CHUNK], n = 0;

    memset(t->surprise, 0, (size_t)t->rows * sizeof *t->surprise);
    for (int i = 0; i < t->rows; i++) {
        t->best[i] = -1;
        if (row[i].label < 0) continue;
        list[n++] = i;
        if (n < CHUNK) continue;
        if (head_chunk(t, w, row, list, n, scale, grad, stats, err)) return err->status;
        n = 0;
    }
    return n > 0 ? head_chunk(t, w, row, list, n, scale, grad, stats, err) : RD_OK;
}

/* ---- the whole ---- */

static bool inside(int32_t start, int32_t end, int n)
{
    return end <= start || (start >= 0 && end <= n);
}

rd_status rd_net_check(const rd_params *p, int room, const rd_train_row *row, int n, rd_error *err)
{
    int vocab = p->config.vocab_size;

    if (n < 1 || n > room)
        return rd_fail(err, RD_INVALID, "a pack of %d rows; room is for 1 to %d", n, room);
    for (int i = 0; i < n; i++) {
        const rd_train_row *r = &row[i];
        bool sees = r->clean_end > r->clean_start || r->own_end > r->own_start;

        if (r->token < 0 || r->token >= vocab || r->label >= vocab || r->position < 0 ||
            r->task < 0 || r->task >= RD_TASKS || !sees ||
            !inside(r->clean_start, r->clean_end, n) || !inside(r->own_start, r->own_end, n))
            return rd_fail(err, RD_INVALID,
                           "row %d of a pack of %d: token %d, label %d, sight "
                           "%d-%d and %d-%d",
                           i, n, r->token, r->label, r->clean_start, r->clean_end, r->own_start,
                           r->own_end);
    }
    return RD_OK;
}

rd_status rd_net_run(rd_net *t, const float *w, const rd_train_row *row, int n, float scale,
                     float *grad, rd_train_stats *stats, rd_error *err)
{
    const rd_model_config *c = &t->p->config;
    size_t h = (size_t)c->hidden_size;
    rd_error local;

    if (!err) err = &local;
    if (rd_net_check(t->p, t->room, row, n, err)) return err->status;
    t->rows = n;
    fill_turns(t, row);
    for (int i = 0; i < n; i++)
        memcpy(t->x + (size_t)i * h, w + t->p->table + (size_t)row[i].token * h, h * sizeof *t->x);
    for (int l = 0; l < c->num_hidden_layers; l++)
        if (layer_forward(t, w, row, l, stats, err)) return err->status;
    if (grad) memset(t->dx, 0, (size_t)n * h * sizeof *t->dx);
    if (head(t, w, row, scale, grad, stats, err)) return err->status;
    if (!grad) return RD_OK;
    for (int l = c->num_hidden_layers - 1; l >= 0; l--)
        if (layer_back(t, w, row, l, grad, stats, err)) return err->status;
    for (int i = 0; i < n; i++)
        rd_add_scaled(grad + t->p->table + (size_t)row[i].token * h, t->dx + (size_t)i * h, 1.0f,
                      h);
    return RD_OK;
}
