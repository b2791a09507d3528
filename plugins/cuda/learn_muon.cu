/* learn_muon.cu - Muon: each matrix's Nesterov momentum made orthogonal by five Newton-Schulz rounds, all matrices of one
 * shape in one product.
 *
 * The momentum of all matrices is gathered by shape in l->mx, float32, with a bf16 copy for the products. A round is
 * X = a X + (b G + c G G) X with G the Gram matrix of the shorter side: three products, of which the last adds to X in
 * float32. The tables of pieces, rows and shapes that the optimiser works from are made here too.
 *
 * Source: Jordan 2024 (Muon); arXiv 2502.16982 (scaling); core/train/optimizer.c.
 */
#include "plugins/cuda/learn.h"

#include <stdlib.h>
#include <string.h>

enum { MUON_THREADS = 256, ROUNDS = 5 };

typedef struct learn_muon_args {
    const learn_state *state;
    const learn_piece *piece;
    const learn_matrix *matrix;
    double *squares;
    float *w, *m, *x;
    bf16 *xb;
    const float *g;
    float momentum, lr, keep;
} learn_muon_args;

/* m = beta m + g; x = g + beta m; the squares of each piece. One block a piece. */
static __global__ void __launch_bounds__(MUON_THREADS) muon_momentum(learn_muon_args a)
{
    __shared__ float room[GPU_WARP];

    if (a.state->skip) return; /* the whole block */
    learn_piece p = a.piece[blockIdx.x];
    const learn_matrix *t = &a.matrix[p.tensor];
    float clip = a.state->clip, sum = 0.0f;
    size_t to = (size_t)(t->at + (p.offset - t->offset));

    for (int i = (int)threadIdx.x * 4; i < p.count; i += MUON_THREADS * 4) {
        float4 m = *(float4 *)(a.m + p.offset + i), g = *(const float4 *)(a.g + p.offset + i), x;

        g.x *= clip, g.y *= clip, g.z *= clip, g.w *= clip;
        m.x = a.momentum * m.x + g.x, x.x = g.x + a.momentum * m.x;
        m.y = a.momentum * m.y + g.y, x.y = g.y + a.momentum * m.y;
        m.z = a.momentum * m.z + g.z, x.z = g.z + a.momentum * m.z;
        m.w = a.momentum * m.w + g.w, x.w = g.w + a.momentum * m.w;
        *(float4 *)(a.m + p.offset + i) = m;
        *(float4 *)(a.x + to + i) = x;
        sum += x.x * x.x + x.y * x.y + x.z * x.z + x.w * x.w;
    }
    sum = gpu_block_sum(sum, room);
    if (threadIdx.x == 0) a.squares[blockIdx.x] = (double)sum;
}

/* x over its norm, and in bf16. */
static __global__ void __launch_bounds__(MUON_THREADS) muon_unit(learn_muon_args a)
{
    __shared__ float by;

    if (a.state->skip) return;
    learn_piece p = a.piece[blockIdx.x];
    const learn_matrix *t = &a.matrix[p.tensor];
    size_t to = (size_t)(t->at + (p.offset - t->offset));

    if (threadIdx.x < GPU_WARP) {
        double sum = 0.0;

        for (int i = (int)threadIdx.x; i < t->pieces; i += GPU_WARP)
            sum += a.squares[t->first_piece + i];
        for (int k = GPU_WARP / 2; k > 0; k /= 2) sum += __shfl_xor_sync(GPU_ALL, sum, k);
        if (threadIdx.x == 0) by = 1.0f / ((float)sqrt(sum) + 1e-7f);
    }
    __syncthreads();
    for (int i = (int)threadIdx.x * 8; i < p.count; i += MUON_THREADS * 8) {
        float x[8];

        f32_load8(x, a.x + to + i);
        for (int k = 0; k < 8; k++) x[k] *= by;
        f32_store8(a.x + to + i, x);
        bf16_store8(a.xb + to + i, x);
    }
}

/* w = keep w - lr rate x. */
static __global__ void __launch_bounds__(MUON_THREADS) muon_move(learn_muon_args a)
{
    if (a.state->skip) return;
    learn_piece p = a.piece[blockIdx.x];
    const learn_matrix *t = &a.matrix[p.tensor];
    size_t from = (size_t)(t->at + (p.offset - t->offset));
    float by = a.lr * t->rate;

    for (int i = (int)threadIdx.x * 4; i < p.count; i += MUON_THREADS * 4) {
        float4 w = *(float4 *)(a.w + p.offset + i), x = *(const float4 *)(a.x + from + i);

        w.x = w.x * a.keep - by * x.x;
        w.y = w.y * a.keep - by * x.y;
        w.z = w.z * a.keep - by * x.z;
        w.w = w.w * a.keep - by * x.w;
        *(float4 *)(a.w + p.offset + i) = w;
    }
}

/* out = p x + q y in bf16, eight at a time; y may be NULL. */
static __global__ void __launch_bounds__(MUON_THREADS)
    muon_mix(bf16 *out, const float *x, float p, const float *y, float q, size_t n)
{
    size_t at = ((size_t)blockIdx.x * MUON_THREADS + threadIdx.x) * 8;
    float a[8], b[8];

    if (at >= n) return;
    f32_load8(a, x + at);
    if (y) f32_load8(b, y + at);
    for (int k = 0; k < 8; k++) a[k] = p * a[k] + (y ? q * b[k] : 0.0f);
    bf16_store8(out + at, a);
}

static void mix(rd_learner *l, bf16 *out, const float *x, float p, const float *y, float q,
                size_t n)
{
    RD_LAUNCH(muon_mix, learn_blocks(n / 8, MUON_THREADS), MUON_THREADS, 0, l->stream, out, x, p, y,
              q, n);
    learn_launched(l, "muon");
}

static void orthogonalise(rd_learner *l, const learn_group *g)
{
    const float a = 3.4445f, b = -4.7750f, c = 2.0315f;
    int rows = g->rows, cols = g->cols, count = g->count;
    bool tall = rows > cols;
    int side = tall ? cols : rows, length = tall ? rows : cols;
    size_t n = (size_t)rows * (size_t)cols * (size_t)count,
           sides = (size_t)side * (size_t)side * (size_t)count;
    float *x = l->mx + g->at;
    bf16 *xb = l->mxb + g->at;

    for (int round = 0; round < ROUNDS; round++) {
        if (round > 0) mix(l, xb, x, 1.0f, NULL, 0.0f, n);
        learn_gemm_many(l, tall, !tall, side, side, length, xb, cols, xb, cols, 0.0f, l->gram, side,
                        count);
        mix(l, l->gram_b, l->gram, 1.0f, NULL, 0.0f, sides);
        learn_gemm_many(l, false, false, side, side, side, l->gram_b, side, l->gram_b, side, 0.0f,
                        l->square, side, count);
        mix(l, l->poly_b, l->gram, b, l->square, c, sides);
        if (tall)
            learn_gemm_many(l, false, false, rows, cols, cols, xb, cols, l->poly_b, cols, a, x,
                            cols, count);
        else
            learn_gemm_many(l, false, false, rows, cols, rows, l->poly_b, rows, xb, cols, a, x,
                            cols, count);
    }
}

void learn_muon(rd_learner *l, float lr)
{
    learn_muon_args a = {};

    a.state = l->state;
    a.piece = l->muon_piece;
    a.matrix = l->matrix;
    a.squares = l->muon_squares;
    a.w = l->w;
    a.m = l->moment[0];
    a.x = l->mx;
    a.xb = l->mxb;
    a.g = l->grad;
    a.momentum = l->o.optimizer.momentum;
    a.lr = lr;
    a.keep = 1.0f - lr * l->o.optimizer.decay;
    RD_LAUNCH(muon_momentum, l->muon_pieces, MUON_THREADS, 0, l->stream, a);
    RD_LAUNCH(muon_unit, l->muon_pieces, MUON_THREADS, 0, l->stream, a);
    learn_launched(l, "muon");
    for (int i = 0; i < l->groups; i++) orthogonalise(l, &l->group[i]);
    RD_LAUNCH(muon_move, l->muon_pieces, MUON_THREADS, 0, l->stream, a);
    learn_launched(l, "muon");
}

/* ---- tables ---- */

static bool is_muons(const rd_learner *l, const rd_param *q)
{
    return q->kind == RD_PARAM_MATRIX && l->o.optimizer.muon;
}

static bool is_rounded(const rd_param *q)
{
    return q->kind == RD_PARAM_MATRIX || q->kind == RD_PARAM_TABLE;
}

static size_t size_of(const rd_param *q)
{
    return (size_t)q->rows * (size_t)q->cols;
}

static learn_group *group_of(rd_learner *l, const rd_param *q)
{
    for (int i = 0; i < l->groups; i++)
        if (l->group[i].rows == q->rows && l->group[i].cols == q->cols) return &l->group[i];
    return NULL;
}

void learn_tables_count(rd_learner *l)
{
    for (int i = 0; i < l->p->count; i++) {
        const rd_param *q = &l->p->param[i];
        int pieces = learn_blocks(size_of(q), LEARN_PIECE);

        l->pieces += pieces;
        if (is_rounded(q)) l->row_count += q->rows;
        if (q->kind == RD_PARAM_BIAS) continue;
        if (!is_muons(l, q)) {
            l->adam_pieces += pieces;
            continue;
        }
        learn_group *g = group_of(l, q);

        if (!g) {
            l->group = (learn_group *)rd_resize(l->group, (size_t)l->groups + 1, sizeof *l->group);
            g = &l->group[l->groups++];
            g->rows = q->rows;
            g->cols = q->cols;
            g->count = 0;
        }
        g->count++;
        l->matrices++;
        l->muon_pieces += pieces;
    }
    for (int i = 0; i < l->groups; i++) {
        l->group[i].at = l->muon_size;
        l->muon_size +=
            (size_t)l->group[i].rows * (size_t)l->group[i].cols * (size_t)l->group[i].count;
    }
}

typedef struct learn_tables { /* as the device gets them */
    learn_piece *piece, *muon_piece;
    int *adam_piece, *row_cols;
    unsigned char *kind;
    unsigned long long *row_offset;
    learn_matrix *matrix;
} learn_tables;

static int cut(learn_piece *to, const rd_param *q, int tensor)
{
    int n = 0;

    for (size_t at = 0; at < size_of(q); at += LEARN_PIECE) {
        size_t left = size_of(q) - at;

        to[n].offset = q->offset + at;
        to[n].count = left < LEARN_PIECE ? (int)left : (int)LEARN_PIECE;
        to[n++].tensor = tensor;
    }
    return n;
}

static void fill(rd_learner *l, learn_tables *t)
{
    int pieces = 0, adams = 0, matrices = 0, muons = 0, rows = 0;
    size_t *next = (size_t *)rd_alloc_array((size_t)l->groups + 1, sizeof *next);

    for (int i = 0; i < l->groups; i++) next[i] = l->group[i].at;
    for (int i = 0; i < l->p->count; i++) {
        const rd_param *q = &l->p->param[i];
        int n = cut(t->piece + pieces, q, i);

        t->kind[i] = (unsigned char)q->kind;
        for (int r = 0; is_rounded(q) && r < q->rows; r++) {
            t->row_offset[rows] = q->offset + (size_t)r * (size_t)q->cols;
            t->row_cols[rows++] = q->cols;
        }
        for (int k = 0; q->kind != RD_PARAM_BIAS && !is_muons(l, q) && k < n; k++)
            t->adam_piece[adams++] = pieces + k;
        pieces += n;
        if (!is_muons(l, q)) continue;
        learn_matrix *m = &t->matrix[matrices];
        size_t *at = &next[group_of(l, q) - l->group];

        m->offset = q->offset;
        m->at = *at;
        *at += size_of(q);
        m->size = (int)size_of(q);
        m->tensor = i;
        m->first_piece = muons;
        m->pieces = n;
        m->rate = 0.2f * sqrtf((float)(q->rows > q->cols ? q->rows : q->cols));
        m->unused = 0;
        muons += cut(t->muon_piece + muons, q, matrices++);
    }
    free(next);
}

rd_status learn_tables_fill(rd_learner *l, rd_error *err)
{
    learn_tables t;
    cudaError_t e = cudaSuccess;

#define COUNT(n) ((size_t)(n) + 1)
    t.piece = (learn_piece *)rd_alloc_array(COUNT(l->pieces), sizeof *t.piece);
    t.muon_piece = (learn_piece *)rd_alloc_array(COUNT(l->muon_pieces), sizeof *t.muon_piece);
    t.adam_piece = (int *)rd_alloc_array(COUNT(l->adam_pieces), sizeof *t.adam_piece);
    t.row_cols = (int *)rd_alloc_array(COUNT(l->row_count), sizeof *t.row_cols);
    t.kind = (unsigned char *)rd_alloc_array(COUNT(l->p->count), sizeof *t.kind);
    t.row_offset = (unsigned long long *)rd_alloc_array(COUNT(l->row_count), sizeof *t.row_offset);
    t.matrix = (learn_matrix *)rd_alloc_array(COUNT(l->matrices), sizeof *t.matrix);
#undef COUNT
    fill(l, &t);
#define SEND(to, from, count)                                                               \
    if (e == cudaSuccess && (count) > 0)                                                    \
    e = cudaMemcpyAsync(to, from, (size_t)(count) * sizeof *(from), cudaMemcpyHostToDevice, \
                        l->stream)
    SEND(l->piece, t.piece, l->pieces);
    SEND(l->muon_piece, t.muon_piece, l->muon_pieces);
    SEND(l->adam_piece, t.adam_piece, l->adam_pieces);
    SEND(l->row_cols, t.row_cols, l->row_count);
    SEND(l->tensor_kind, t.kind, l->p->count);
    SEND(l->row_offset, t.row_offset, l->row_count);
    SEND(l->matrix, t.matrix, l->matrices);
#undef SEND
    free(t.piece);
    free(t.muon_piece);
    free(t.adam_piece);
    free(t.row_cols);
    free(t.kind);
    free(t.row_offset);
    free(t.matrix);
    if (e != cudaSuccess)
        return rd_fail(err, RD_DEVICE, "the learner's tables: %s", cudaGetErrorString(e));
    return RD_OK;
}
