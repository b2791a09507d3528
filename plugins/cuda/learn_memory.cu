/* learn_memory.cu - the learner's device memory: one piece, asked for when it opens and divided by `divide`, which first runs
 * without memory to say how much is needed. Nothing is allocated later.
 */
#include "plugins/cuda/learn.h"

enum { WORKSPACE = 32 << 20, ALIGN = 256 };

typedef struct cursor {
    unsigned char *base; /* NULL: only count */
    size_t used;
} cursor;

static void *give(cursor *c, size_t count, size_t size)
{
    void *at = c->base ? c->base + c->used : NULL;

    c->used += (count * size + ALIGN - 1) / ALIGN * ALIGN;
    return at;
}

template <class T> static void give_to(cursor *c, T **to, size_t count)
{
    *to = (T *)give(c, count, sizeof(T));
}

#define GIVE(to, count) give_to(c, &(to), (size_t)(count))

static void divide_layer(rd_learner *l, int i, cursor *c)
{
    learn_layer *y = &l->layer[i];
    size_t r = (size_t)l->room, hidden = (size_t)l->hidden, slots = (size_t)l->slots,
           inner = (size_t)(l->heads * l->dim);

    GIVE(y->x, r * hidden);
    GIVE(y->mid, r * hidden);
    GIVE(y->inv1, r);
    GIVE(y->inv2, r);
    GIVE(y->a, r * hidden);
    GIVE(y->m, r * hidden);
    GIVE(y->qkv, r * (size_t)learn_qkv(l));
    GIVE(y->qk, r * (size_t)((l->heads + l->kv) * l->dim));
    GIVE(y->o, r * inner);
    GIVE(y->lse, r * (size_t)l->heads);
    GIVE(y->gu, r * 2 * (size_t)learn_dense_width(l, i));
    if (!l->p->layer[i].moe) return;
    GIVE(y->score, r * (size_t)l->top);
    GIVE(y->share, r * (size_t)l->top);
    GIVE(y->chosen, r * (size_t)l->top);
    GIVE(y->slot, r * (size_t)l->top);
    GIVE(y->start, l->experts + 1);
    GIVE(y->tile, slots / LEARN_SLOTS);
    GIVE(y->row_of, slots);
    GIVE(y->share_of, slots);
    GIVE(y->egu, slots * 2 * (size_t)l->width);
    GIVE(y->y, slots * hidden);
}

static void divide_step(rd_learner *l, cursor *c)
{
    size_t n = l->p->size, most = 0, loads = (size_t)l->layers * (size_t)l->experts;

    for (int i = 0; i < l->groups; i++) {
        const learn_group *g = &l->group[i];
        size_t side = (size_t)(g->rows < g->cols ? g->rows : g->cols);

        if (side * side * (size_t)g->count > most) most = side * side * (size_t)g->count;
    }
    GIVE(l->w, n);
    GIVE(l->grad, n);
    GIVE(l->moment[0], n);
    GIVE(l->moment[1], n);
    if (l->o.mean) GIVE(l->mean, n);
    GIVE(l->half_w, n);
    GIVE(l->mx, l->muon_size);
    GIVE(l->mxb, l->muon_size);
    GIVE(l->gram, most);
    GIVE(l->square, most);
    GIVE(l->gram_b, most);
    GIVE(l->poly_b, most);
    GIVE(l->piece, l->pieces);
    GIVE(l->squares, l->pieces);
    GIVE(l->adam_piece, l->adam_pieces);
    GIVE(l->tensor_kind, l->p->count);
    GIVE(l->matrix, l->matrices);
    GIVE(l->muon_piece, l->muon_pieces);
    GIVE(l->muon_squares, l->muon_pieces);
    GIVE(l->row_offset, l->row_count);
    GIVE(l->row_cols, l->row_count);
    GIVE(l->load, loads);
    GIVE(l->load_step, loads);
    GIVE(l->state, 1);
}

static void divide(rd_learner *l, cursor *c)
{
    size_t r = (size_t)l->room, hidden = (size_t)l->hidden, slots = (size_t)l->slots,
           inner = (size_t)(l->heads * l->dim);
    size_t dense = 0, wide = hidden > inner ? hidden : inner,
           chunk = r < LEARN_CHUNK ? r : (size_t)LEARN_CHUNK;
    size_t vector = hidden > 2 * (size_t)l->dim ? hidden : 2 * (size_t)l->dim;

    for (int i = 0; i < l->layers; i++) {
        divide_layer(l, i, c);
        if ((size_t)learn_dense_width(l, i) > dense) dense = (size_t)learn_dense_width(l, i);
    }
    if (dense > wide) wide = dense;
    divide_step(l, c);
    GIVE(l->x_last, r * hidden);
    GIVE(l->f, r * hidden);
    GIVE(l->df, r * hidden);
    GIVE(l->f_inv, r);
    GIVE(l->logits, chunk * (size_t)l->vocab);
    GIVE(l->dlogits, chunk * (size_t)l->vocab);
    GIVE(l->surprise, r);
    GIVE(l->sure, r);
    GIVE(l->best, r);
    GIVE(l->turn, l->half);
    GIVE(l->cosine, r * (size_t)l->half);
    GIVE(l->sine, r * (size_t)l->half);
    GIVE(l->dx, r * hidden);
    GIVE(l->dxb, r * hidden);
    GIVE(l->wide, r * wide);
    GIVE(l->wide2, r * hidden);
    GIVE(l->h, r * dense);
    GIVE(l->eh, slots * (size_t)l->width);
    GIVE(l->deh, slots * (size_t)l->width);
    GIVE(l->dmx, slots * hidden);
    GIVE(l->dqkv, r * (size_t)learn_qkv(l));
    GIVE(l->delta, r * (size_t)l->heads);
    GIVE(l->dchosen, r * (size_t)l->top);
    GIVE(l->dlogit, r * (size_t)l->experts);
    GIVE(l->fill, l->experts);
    GIVE(l->parts, LEARN_PARTS * vector);
    GIVE(l->token_parts, (size_t)learn_token_parts(l->room) * hidden);
    l->pack_bytes = learn_pack_bytes(l->room);
    GIVE(l->pack_room, l->pack_bytes);
    l->workspace_bytes = WORKSPACE;
    l->workspace = give(c, 1, l->workspace_bytes);
}

rd_status learn_get_memory(rd_learner *l, rd_error *err)
{
    cursor c = { NULL, 0 };
    size_t free_bytes = 0, total = 0;

    divide(l, &c);
    l->arena_bytes = c.used;
    learn_check(l, cudaMemGetInfo(&free_bytes, &total), "memory");
    if (l->failed.status) return learn_failure(l, err);
    if (l->o.memory_limit > 0 && l->o.memory_limit < free_bytes) free_bytes = l->o.memory_limit;
    if (c.used > free_bytes || cudaMalloc(&l->arena, c.used) != cudaSuccess) {
        cudaGetLastError();
        return rd_fail(err, RD_NO_MEMORY,
                       "training on the GPU: packs of %d rows of a model of %zu weights need %zu "
                       "MB; %zu MB are free",
                       l->room, l->p->size, c.used >> 20, free_bytes >> 20);
    }
    c.base = l->arena;
    c.used = 0;
    divide(l, &c);
    for (int i = 0; i < LEARN_BUFFERS; i++) {
        learn_check(l, cudaHostAlloc(&l->pinned[i], l->pack_bytes, cudaHostAllocDefault),
                    "memory for packs");
        learn_check(l, cudaEventCreateWithFlags(&l->copied[i], cudaEventDisableTiming), "an event");
    }
    learn_check(l, cudaHostAlloc(&l->state_host, sizeof *l->state_host, cudaHostAllocDefault),
                "memory for sums");
    learn_check(l,
                cudaHostAlloc(&l->best_host, (size_t)l->room * sizeof(int), cudaHostAllocDefault),
                "memory for sums");
    return learn_failure(l, err);
}
