/* learn_pass.cu - one pack through the model and back, as a list of launches.
 *
 * The order is that of core/train/backward.c. A layer's output is made by the norm that follows it: the sum of the residual
 * stream, the branch and the experts' rows is written once, with its norm. On the way back l->dx is the gradient of the
 * residual stream, l->dxb its bf16 copy.
 */
#include "plugins/cuda/learn.h"

static void times(rd_learner *l, bf16 *out, const bf16 *x, size_t w, int rows, int in, int to)
{
    learn_gemm(l, false, true, rows, to, in, x, in, l->half_w + w, in, 0.0f, out, false, to);
}

static void times_back(rd_learner *l, bf16 *dx, const bf16 *dy, size_t w, int rows, int in, int to)
{
    learn_gemm(l, false, false, rows, in, to, dy, to, l->half_w + w, in, 0.0f, dx, false, in);
}

static void weigh(rd_learner *l, size_t w, const bf16 *dy, const bf16 *x, int rows, int in, int to)
{
    learn_gemm(l, true, false, to, in, rows, dy, to, x, in, 1.0f, l->grad + w, true, in);
}

/* ---- experts ---- */

static learn_product product_of(const rd_learner *l, const learn_layer *y)
{
    learn_product g = {};

    g.start = y->start;
    g.tile = y->tile;
    g.m = l->slots;
    return g;
}

static void experts_forward(rd_learner *l, int layer)
{
    const rd_layer_params *at = &l->p->layer[layer];
    const learn_layer *y = &l->layer[layer];
    learn_product g = product_of(l, y);

    g.a = y->m;
    g.lda = l->hidden;
    g.a_row = y->row_of;
    g.b = l->half_w + at->experts;
    g.ldb = l->hidden;
    g.stride = at->expert_stride;
    g.c = y->egu;
    g.ldc = g.n = 2 * l->width;
    g.k = l->hidden;
    learn_group_times(l, &g);
    learn_gate(l, l->eh, y->egu, l->slots, l->width, y->start + l->experts);
    g.a = l->eh;
    g.lda = g.ldb = g.k = l->width;
    g.a_row = NULL;
    g.b += 2 * (size_t)l->width * (size_t)l->hidden;
    g.c = y->y;
    g.ldc = g.n = l->hidden;
    learn_group_times(l, &g);
}

/* The shares go into the gates' backward, so rows of l->dxb are read where they lie. */
static void experts_back(rd_learner *l, int layer)
{
    const rd_layer_params *at = &l->p->layer[layer];
    const learn_layer *y = &l->layer[layer];
    size_t down = at->experts + 2 * (size_t)l->width * (size_t)l->hidden;
    learn_product g = product_of(l, y);

    g.stride = at->expert_stride;
    g.a = l->dxb; /* deh = dout W_down */
    g.lda = g.k = l->hidden;
    g.a_row = y->row_of;
    g.b = l->half_w + down;
    g.ldb = g.n = g.ldc = l->width;
    g.c = l->deh;
    learn_group_times_back(l, &g);
    learn_gate_back(l, l->eh, y->egu, l->deh, y->share_of, l->slots, l->width,
                    y->start + l->experts);
    g.b = l->eh; /* dW_down += dout^T (share eh) */
    g.ldb = l->width;
    g.c = l->grad + down;
    g.m = l->hidden;
    learn_group_weigh(l, &g);
    g.a = y->egu; /* dW_gate_up += degu^T m */
    g.lda = g.m = 2 * l->width;
    g.a_row = NULL;
    g.b = y->m;
    g.ldb = g.n = g.ldc = l->hidden;
    g.b_row = y->row_of;
    g.c = l->grad + at->experts;
    learn_group_weigh(l, &g);
    g.b = l->half_w + at->experts; /* dmx = degu W_gate_up */
    g.b_row = NULL;
    g.m = l->slots;
    g.k = 2 * l->width;
    g.c = l->dmx;
    learn_group_times_back(l, &g);
}

/* ---- layers ---- */

/* The sum before layer `i`, i.e. the output of the layer below, and its norm where there is a layer `i`. */
static void enter(rd_learner *l, int i, const learn_pack *p)
{
    const learn_layer *below = i > 0 ? &l->layer[i - 1] : NULL;
    learn_norm a = {};

    a.rows = p->rows;
    a.hidden = l->hidden;
    a.x = i < l->layers ? l->layer[i].x : l->x_last;
    if (below) {
        a.before = below->mid;
        a.branch = learn_dense_width(l, i - 1) > 0 ? l->wide : NULL;
        if (l->p->layer[i - 1].moe) {
            a.y = below->y;
            a.slot = below->slot;
            a.share = below->share;
            a.top = l->top;
        }
    } else {
        a.table = l->half_w + l->p->table;
        a.row = p->row;
    }
    if (i < l->layers) {
        a.out = l->layer[i].a;
        a.inv = l->layer[i].inv1;
        a.weight = l->w + l->p->layer[i].norm1;
        a.eps = l->eps;
    }
    learn_norm_rows(l, &a);
}

static void layer_forward(rd_learner *l, int i, const learn_pack *p, learn_count count)
{
    const rd_layer_params *at = &l->p->layer[i];
    const learn_layer *y = &l->layer[i];
    int rows = p->rows, inner = l->heads * l->dim, width = learn_dense_width(l, i);
    learn_norm a = {};

    times(l, y->qkv, y->a, at->qkv, rows, l->hidden, learn_qkv(l));
    learn_split(l, y, at, rows);
    learn_attend(l, y, p);
    times(l, l->wide, y->o, at->dense, rows, inner, l->hidden);
    a.x = y->mid;
    a.before = y->x;
    a.branch = l->wide;
    a.out = y->m;
    a.inv = y->inv2;
    a.weight = l->w + at->norm2;
    a.eps = l->eps;
    a.rows = rows;
    a.hidden = l->hidden;
    learn_norm_rows(l, &a);
    if (at->moe) {
        learn_route(l, i, rows, count);
        experts_forward(l, i);
    }
    if (width == 0) return;
    times(l, y->gu, y->m, at->moe ? at->shared_gate_up : at->gate_up, rows, l->hidden, 2 * width);
    learn_gate(l, l->h, y->gu, rows, width, NULL);
    times(l, l->wide, l->h, at->moe ? at->shared_down : at->down, rows, width, l->hidden);
}

static void layer_back(rd_learner *l, int i, const learn_pack *p)
{
    const rd_layer_params *at = &l->p->layer[i];
    const learn_layer *y = &l->layer[i];
    int rows = p->rows, inner = l->heads * l->dim, width = learn_dense_width(l, i),
        qkv = learn_qkv(l);
    learn_norm_back b = {};

    if (at->moe) {
        learn_route_back(l, i, rows);
        experts_back(l, i);
    }
    if (width > 0) {
        size_t gate_up = at->moe ? at->shared_gate_up : at->gate_up,
               down = at->moe ? at->shared_down : at->down;

        times_back(l, l->wide, l->dxb, down, rows, width, l->hidden);
        learn_gate_back(l, l->h, y->gu, l->wide, NULL, rows, width, NULL);
        weigh(l, down, l->dxb, l->h, rows, width, l->hidden);
        times_back(l, l->wide2, y->gu, gate_up, rows, l->hidden, 2 * width);
        weigh(l, gate_up, y->gu, y->m, rows, l->hidden, 2 * width);
    }
    b.dx = l->dx;
    b.dxb = l->dxb;
    b.branch = width > 0 ? l->wide2 : NULL;
    if (at->moe) {
        b.dmx = l->dmx;
        b.slot = y->slot;
        b.chosen = y->chosen;
        b.dchosen = l->dchosen;
        b.router = l->w + at->router;
        b.top = l->top;
    }
    b.x = y->mid;
    b.inv = y->inv2;
    b.weight = l->w + at->norm2;
    b.grad = l->grad + at->norm2;
    b.rows = rows;
    b.hidden = l->hidden;
    learn_norm_rows_back(l, &b);
    times_back(l, l->wide, l->dxb, at->dense, rows, inner, l->hidden);
    weigh(l, at->dense, l->dxb, y->o, rows, inner, l->hidden);
    learn_attend_back(l, y, p, l->wide);
    learn_split_back(l, y, at, rows);
    times_back(l, l->wide2, l->dqkv, at->qkv, rows, l->hidden, qkv);
    weigh(l, at->qkv, l->dqkv, y->a, rows, l->hidden, qkv);
    b.branch = l->wide2;
    b.dmx = NULL;
    b.x = y->x;
    b.inv = y->inv1;
    b.weight = l->w + at->norm1;
    b.grad = l->grad + at->norm1;
    learn_norm_rows_back(l, &b);
}

void learn_run(rd_learner *l, const learn_pack *p, bool backward, learn_count count)
{
    size_t n = (size_t)p->rows * (size_t)l->hidden;

    learn_refresh(l);
    learn_turns(l, p);
    for (int i = 0; i < l->layers; i++) {
        enter(l, i, p);
        layer_forward(l, i, p, count);
    }
    enter(l, l->layers, p);
    if (backward) {
        learn_check(l, cudaMemsetAsync(l->dx, 0, n * sizeof(float), l->stream), "backward");
        learn_check(l, cudaMemsetAsync(l->dxb, 0, n * sizeof(bf16), l->stream), "backward");
    }
    learn_head(l, p, backward, count);
    if (!backward) return;
    for (int i = l->layers - 1; i >= 0; i--) layer_back(l, i, p);
    learn_embed_back(l, p);
}
