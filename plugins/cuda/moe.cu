/* moe.cu - the verb: a layer's router, its experts and their sum, as two commands; and the tables that kernels find experts by.
 *
 * A layer's experts are known by the host's array of them. The first time a layer is seen its weights are checked and their
 * addresses copied to the device; later calls look whether the array still says the same. A weight that is dropped takes
 * the tables with it that name it.
 */
#include "plugins/cuda/experts.cuh"

extern "C" {
#include "core/base/memory.h"
}

#include <stdlib.h>
#include <string.h>

/* One layer's experts on the device. */
typedef struct moe_table {
    const rd_mlp *key;     /* the host's array */
    rd_mlp *mlp;           /* what it said: [experts + 1], the shared expert last */
    product_weight *gate, *up, *down; /* device memory, [experts + 1] each, in one piece */
    size_t bytes;
    int experts, hidden;
    experts_side routed, shared;
    cuda_form in, out, shared_in, shared_out; /* of gate and up, and of down */
} moe_table;

struct cuda_experts {
    moe_table *table;
    int tables, most;
    bool ready; /* experts_open was done */
};

/* ---- tables ---- */

static void drop_table(rd_device *d, moe_table *t)
{
    cuda_put(d, t->gate, t->bytes);
    free(t->mlp);
    memset(t, 0, sizeof *t);
}

void cuda_moe_forget(rd_device *d, const rd_weight *w)
{
    struct cuda_experts *e = d->experts;

    for (int i = 0; e && i < e->tables; i++) {
        const moe_table *t = &e->table[i];
        bool named = false;

        for (int n = 0; n <= t->experts && !named; n++)
            named = t->mlp[n].gate == w || t->mlp[n].up == w || t->mlp[n].down == w;
        if (!named) continue;
        cuda_forget_passes(d); /* graphs hold the table's address */
        drop_table(d, &e->table[i]);
        e->table[i--] = e->table[--e->tables];
    }
}

void cuda_moe_close(rd_device *d)
{
    struct cuda_experts *e = d->experts;

    for (int i = 0; e && i < e->tables; i++) drop_table(d, &e->table[i]);
    if (e) free(e->table);
    free(e);
    d->experts = NULL;
}

/* Is w [rows, cols] of this form, with the stride that kernels expect? */
static bool is_weight(const rd_weight *w, cuda_form form, int rows, int cols)
{
    int stride = form == CUDA_F32 ? cols : cuda_stride(cols);

    return w && w->form == form && w->rows == rows && w->cols == cols && w->stride == stride;
}

static rd_status check_mlp(const rd_mlp *m, int expert, cuda_form in, cuda_form out, int width, int hidden,
                           rd_error *err)
{
    if (is_weight(m->gate, in, width, hidden) && is_weight(m->up, in, width, hidden) &&
        is_weight(m->down, out, hidden, width))
        return RD_OK;
    return rd_fail(err, RD_INVALID, "expert %d is not three weights of the others' forms, %d wide, for rows of %d",
                   expert, width, hidden);
}

/* What a side's weights are, by the first of them. */
static rd_status side_of(const rd_mlp *m, int expert, int hidden, experts_side *side, cuda_form *in, cuda_form *out,
                         rd_error *err)
{
    if (!m->gate || !m->up || !m->down) return rd_fail(err, RD_INVALID, "expert %d lacks a weight", expert);
    *in = m->gate->form;
    *out = m->down->form;
    side->width = m->gate->rows;
    side->stride = m->down->stride;
    return check_mlp(m, expert, *in, *out, side->width, hidden, err);
}

static rd_status fill_table(rd_device *d, moe_table *t, const rd_moe *m, rd_error *err)
{
    size_t n = (size_t)t->experts + 1;
    product_weight *host = (product_weight *)rd_alloc_array(3 * n, sizeof *host);
    void *memory;
    rd_status s = cuda_get(d, &memory, t->bytes, "a table of experts", err);

    if (!s) {
        t->gate = (product_weight *)memory;
        t->up = t->gate + n;
        t->down = t->up + n;
        memset(host, 0, 3 * n * sizeof *host);
        for (size_t i = 0; i < n; i++) {
            const rd_mlp *e = i + 1 < n ? &m->experts[i] : &m->shared;

            if (!e->gate) continue; /* no shared expert */
            host[i] = product_of(e->gate);
            host[n + i] = product_of(e->up);
            host[2 * n + i] = product_of(e->down);
        }
        s = cuda_status(cudaMemcpyAsync(t->gate, host, t->bytes, cudaMemcpyHostToDevice, d->stream),
                        "a table of experts", err);
        cudaError_t e = cudaStreamSynchronize(d->stream);

        if (!s) s = cuda_status(e, "a table of experts", err);
    }
    free(host);
    return s;
}

static rd_status make_table(rd_device *d, moe_table *t, const rd_moe *m, int hidden, rd_error *err)
{
    size_t n = (size_t)m->n_experts + 1;

    memset(t, 0, sizeof *t);
    t->key = m->experts;
    t->experts = m->n_experts;
    t->hidden = hidden;
    t->bytes = 3 * n * sizeof(product_weight);
    if (side_of(&m->experts[0], 0, hidden, &t->routed, &t->in, &t->out, err)) return err->status;
    for (int e = 1; e < m->n_experts; e++)
        if (check_mlp(&m->experts[e], e, t->in, t->out, t->routed.width, hidden, err)) return err->status;
    if (m->shared.gate &&
        side_of(&m->shared, m->n_experts, hidden, &t->shared, &t->shared_in, &t->shared_out, err))
        return err->status;
    t->shared.here = m->shared.gate != NULL;
    t->mlp = (rd_mlp *)rd_alloc_array(n, sizeof *t->mlp);
    memcpy(t->mlp, m->experts, (n - 1) * sizeof *t->mlp);
    t->mlp[n - 1] = m->shared;
    rd_status s = fill_table(d, t, m, err);

    if (s) drop_table(d, t);
    return s;
}

static bool same_table(const moe_table *t, const rd_moe *m, int hidden)
{
    return t->key == m->experts && t->experts == m->n_experts && t->hidden == hidden &&
           !memcmp(t->mlp, m->experts, (size_t)t->experts * sizeof *t->mlp) &&
           !memcmp(&t->mlp[t->experts], &m->shared, sizeof m->shared);
}

static rd_status find_table(rd_device *d, const rd_moe *m, int hidden, const moe_table **out, rd_error *err)
{
    struct cuda_experts *e = d->experts;
    moe_table *t = NULL, made;

    if (!e) e = d->experts = (struct cuda_experts *)rd_alloc0(sizeof *e);
    if (!e->ready && experts_open(err)) return err->status;
    e->ready = true;
    for (int i = 0; i < e->tables && !t; i++)
        if (e->table[i].key == m->experts) t = &e->table[i];
    if (t && same_table(t, m, hidden)) {
        *out = t;
        return RD_OK;
    }
    if (make_table(d, &made, m, hidden, err)) return err->status;
    if (t) { /* another layer where one was: what was recorded may still want the old table */
        cuda_forget_passes(d);
        drop_table(d, t);
    } else {
        if (e->tables == e->most) {
            e->most = e->most ? 2 * e->most : 64;
            e->table = (moe_table *)rd_resize(e->table, (size_t)e->most, sizeof *e->table);
        }
        t = &e->table[e->tables++];
    }
    *t = made;
    *out = t;
    return RD_OK;
}

/* ---- the experts' command ---- */

typedef struct moe_args {
    route_shape shape;
    const float *x; /* [rows, hidden] */
    float *y;       /* the same */
    const product_weight *gate, *up, *down;
    experts_side routed, shared; /* without inner */
    cuda_form in, out, shared_in, shared_out;
} moe_args;

static size_t inner_bytes(const experts_side *s, cuda_form out, size_t places)
{
    size_t each = out == CUDA_F32 ? sizeof(float) : sizeof(uint16_t);

    return s->here ? (places * (size_t)s->stride * each + 255) / 256 * 256 : 0;
}

/* The two products of what is `here` in l, which are of one pair of forms. */
static rd_status run_sides(rd_device *d, const moe_args *a, experts_launch *l, cuda_form in, cuda_form out, rd_error *err)
{
    const uint16_t *half;
    rd_status s = RD_OK;

    l->x = a->x;
    l->stride = l->hidden;
    l->inner = cuda_half_of(out);
    if (in != CUDA_F32) {
        s = cuda_halves(d, a->x, l->rows, l->hidden, cuda_half_of(in), &half, err);
        l->x = half;
        l->stride = cuda_stride(l->hidden);
    }
    if (!s) s = experts_gate_up(d, in, l, err);
    return s ? s : experts_down(d, out, l, err);
}

static rd_status run_experts(rd_device *d, const void *args, rd_error *err)
{
    const moe_args *a = (const moe_args *)args;
    const route_shape *r = &a->shape;
    experts_launch l;
    char *inner = (char *)cuda_scratch(d, CUDA_SLOT_INNER);
    rd_status s = RD_OK;

    memset(&l, 0, sizeof l);
    l.route = route_here(d, r);
    l.rows = r->rows;
    l.hidden = r->hidden;
    l.pairs = r->rows * r->top_k;
    l.experts = r->experts;
    l.item = r->item;
    l.items_most = route_items_most(r->rows, r->top_k, r->experts, r->item);
    l.gate = a->gate;
    l.up = a->up;
    l.down = a->down;
    l.routed = a->routed;
    l.shared = a->shared;
    l.routed.inner = inner;
    l.shared.inner = inner + inner_bytes(&a->routed, a->out, (size_t)l.pairs);
    l.out = (float *)cuda_scratch(d, CUDA_SLOT_PARTIAL);
    if (a->shared.here && (a->in != a->shared_in || a->out != a->shared_out)) {
        l.routed.here = false;
        s = run_sides(d, a, &l, a->shared_in, a->shared_out, err);
        l.routed.here = true;
        l.shared.here = false;
    }
    if (!s) s = run_sides(d, a, &l, a->in, a->out, err);
    if (!s) s = experts_sum(d, &l, r->top_k, a->shared.here, a->y, err);
    cuda_forget_half(d, a->y);
    return s;
}

/* ---- the verb ---- */

static rd_status check(rd_view out, rd_view x, const rd_moe *m, rd_error *err)
{
    const rd_weight *w = m->router, *b = m->bias;

    if (x.rows < 1 || x.cols < 1 || out.rows != x.rows || out.cols != x.cols)
        return rd_fail(err, RD_INVALID, "experts: rows [%d, %d] to [%d, %d]", x.rows, x.cols, out.rows, out.cols);
    if (m->n_experts < 1 || !m->experts || !w || w->form != CUDA_F32 || w->rows != m->n_experts || w->cols != x.cols)
        return rd_fail(err, RD_INVALID, "the router is not float32 [%d, %d]", m->n_experts, x.cols);
    if (!b || b->form != CUDA_F32 || (int64_t)b->rows * b->cols != m->n_experts)
        return rd_fail(err, RD_INVALID, "the router's bias is not float32 [%d]", m->n_experts);
    if ((int64_t)x.rows * m->top_k > INT32_MAX / 4)
        return rd_fail(err, RD_INVALID, "%d rows of %d experts each", x.rows, m->top_k);
    return RD_OK;
}

static rd_status record_route(rd_device *d, rd_view x, const rd_moe *m, const route_shape *shape, rd_error *err)
{
    const rd_branches *b = &m->branches;
    route_args a;
    void *counts;
    const void *there;

    memset(&a, 0, sizeof a);
    a.shape = *shape;
    a.x = x.data;
    a.router = (const float *)m->router->data;
    a.bias = (const float *)m->bias->data;
    if (m->capacity > 0 && b->counts && b->size > 0 && b->first >= 0 && b->first < x.rows) {
        size_t n = (size_t)layout_ceil(x.rows - b->first, b->size);

        if (cuda_param(d, n * sizeof(int), &counts, &there, err)) return err->status;
        memcpy(counts, b->counts, n * sizeof(int));
        a.counts = (const int *)there;
        a.shape.branch_first = b->first;
        a.shape.branch_size = b->size;
    }
    return cuda_route(d, &a, err);
}

static rd_status record_experts(rd_device *d, rd_view out, rd_view x, const moe_table *t, const route_shape *shape,
                                rd_error *err)
{
    size_t rows = (size_t)x.rows, pairs = rows * (size_t)shape->top_k;
    moe_args a;

    memset(&a, 0, sizeof a);
    a.shape = *shape;
    a.x = x.data;
    a.y = out.data;
    a.gate = t->gate;
    a.up = t->up;
    a.down = t->down;
    a.routed.here = true;
    a.routed.width = t->routed.width;
    a.routed.stride = t->routed.stride;
    a.shared.here = t->shared.here;
    a.shared.width = t->shared.width;
    a.shared.stride = t->shared.stride;
    a.in = t->in;
    a.out = t->out;
    a.shared_in = t->shared_in;
    a.shared_out = t->shared_out;
    if (cuda_room(d, CUDA_SLOT_INNER, inner_bytes(&a.routed, a.out, pairs) + inner_bytes(&a.shared, a.shared_out, rows),
                  err) ||
        cuda_room(d, CUDA_SLOT_PARTIAL, (pairs + (a.shared.here ? rows : 0)) * (size_t)x.cols * sizeof(float), err) ||
        cuda_room_half(d, x.rows, x.cols, err))
        return err->status;
    return cuda_record(d, run_experts, &a, sizeof a, err);
}

/* What the router said, to the host: runs what is recorded. */
static rd_status tap(rd_device *d, const rd_moe *m, const route_shape *s, rd_error *err)
{
    size_t rows = (size_t)s->rows, pairs = rows * (size_t)s->top_k;
    rd_status bad = cuda_flush(d, true, err);

    if (bad) return bad;
    route_at at = route_here(d, s);
    struct {
        void *to;
        const void *from;
        size_t n;
    } copy[] = { { m->logits_out, at.logits, rows * (size_t)s->experts },
                 { m->chosen_out, at.chosen, pairs },
                 { m->weight_out, at.weight, pairs } };

    for (size_t i = 0; i < sizeof copy / sizeof *copy && !bad; i++)
        if (copy[i].to)
            bad = cuda_status(cudaMemcpyAsync(copy[i].to, copy[i].from, 4 * copy[i].n, cudaMemcpyDeviceToHost,
                                              d->stream),
                              "what the router said", err);
    cudaError_t e = cudaStreamSynchronize(d->stream);

    return bad ? bad : cuda_status(e, "what the router said", err);
}

rd_status cuda_moe(rd_device *d, rd_view out, rd_view x, const rd_moe *m, rd_error *err)
{
    const moe_table *t;
    route_shape s;
    rd_error local;

    if (!err) err = &local;
    if (x.rows == 0 && out.rows == 0) return RD_OK;
    if (check(out, x, m, err)) return err->status;
    memset(&s, 0, sizeof s);
    s.rows = x.rows;
    s.hidden = x.cols;
    s.experts = m->n_experts;
    s.top_k = m->top_k;
    s.groups = m->n_group;
    s.groups_open = m->topk_group;
    s.capacity = m->capacity;
    s.window = m->window;
    s.scaling = m->scaling;
    s.item = route_item_of(x.rows, m->top_k, m->n_experts);
    if (find_table(d, m, x.cols, &t, err) || record_route(d, x, m, &s, err) ||
        record_experts(d, out, x, t, &s, err))
        return err->status;
    return m->logits_out || m->chosen_out || m->weight_out ? tap(d, m, &s, err) : RD_OK;
}
