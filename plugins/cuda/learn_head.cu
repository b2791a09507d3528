/* learn_head.cu - the loss: labelled rows against the vocabulary, LEARN_CHUNK rows at a time.
 *
 * Only labelled rows are normed and multiplied. A chunk's logits are float32; one block takes a row, reads it twice (maximum,
 * sums and first choice; then the gradient, written as bf16) and leaves loss, choice and entropy beside it. What the rows left
 * is added up at the end by one block, in the order of the rows.
 */
#include "plugins/cuda/learn.h"

enum { HEAD_THREADS = 256, HEAD_WARPS = HEAD_THREADS / GPU_WARP };

typedef struct learn_head_args {
    const float *logits; /* [n, vocab] */
    bf16 *grad;          /* [n, vocab], or NULL */
    const rd_train_row *row;
    const int *list; /* [n] */
    float *surprise, *sure;
    int *best; /* by row */
    int vocab;
    float scale;
} learn_head_args;

typedef struct learn_head_sums { /* of exp(x - top) and of exp(x - top) x */
    float top, sum, sum_x;
    int best; /* first column of the maximum */
} learn_head_sums;

static __device__ inline learn_head_sums head_join(learn_head_sums a, learn_head_sums b)
{
    learn_head_sums r = a;

    if (b.top > a.top || (b.top == a.top && b.best < a.best)) r.top = b.top, r.best = b.best;
    float x = a.sum > 0.0f ? gpu_exp(a.top - r.top) : 0.0f,
          y = b.sum > 0.0f ? gpu_exp(b.top - r.top) : 0.0f;

    if (!(a.sum >= 0.0f) || !(b.sum >= 0.0f)) x = y = NAN; /* no number stays none */
    r.sum = a.sum * x + b.sum * y;
    r.sum_x = a.sum_x * x + b.sum_x * y;
    return r;
}

static __device__ inline learn_head_sums head_shuffled(learn_head_sums a, int by)
{
    learn_head_sums b;

    b.top = __shfl_xor_sync(GPU_ALL, a.top, by);
    b.sum = __shfl_xor_sync(GPU_ALL, a.sum, by);
    b.sum_x = __shfl_xor_sync(GPU_ALL, a.sum_x, by);
    b.best = __shfl_xor_sync(GPU_ALL, a.best, by);
    return b;
}

static __global__ void __launch_bounds__(HEAD_THREADS) cross_entropy(learn_head_args a)
{
    __shared__ learn_head_sums room[HEAD_WARPS];
    int lane = (int)threadIdx.x % GPU_WARP, warp = (int)threadIdx.x / GPU_WARP;
    const float *x = a.logits + (size_t)blockIdx.x * (size_t)a.vocab;
    int at = a.list[blockIdx.x];
    const rd_train_row *r = &a.row[at];
    learn_head_sums s = { -INFINITY, 0.0f, 0.0f, 0 };

    s.best = (int)threadIdx.x * 4;
    for (int c = (int)threadIdx.x * 4; c < a.vocab; c += HEAD_THREADS * 4) {
        float4 q = *(const float4 *)(x + c);
        float v[4] = { q.x, q.y, q.z, q.w }, most = fmaxf(fmaxf(q.x, q.y), fmaxf(q.z, q.w));

        if (most > s.top) {
            float less = gpu_exp(s.top - most);

            s.sum *= less;
            s.sum_x *= less;
            s.top = most;
#pragma unroll
            for (int k = 3; k >= 0; k--)
                if (v[k] == most) s.best = c + k;
        }
#pragma unroll
        for (int k = 0; k < 4; k++) {
            float e = gpu_exp(v[k] - s.top);

            s.sum += e;
            s.sum_x += e * v[k];
        }
    }
    for (int by = GPU_WARP / 2; by > 0; by /= 2) s = head_join(s, head_shuffled(s, by));
    if (lane == 0) room[warp] = s;
    __syncthreads();
    s = room[lane % HEAD_WARPS];
    for (int by = HEAD_WARPS / 2; by > 0; by /= 2) s = head_join(s, head_shuffled(s, by));
    float lse = s.top + logf(s.sum), entropy = lse - s.sum_x / s.sum;
    bool sure = r->confidence > 0.0f && s.best == r->label;

    if (threadIdx.x == 0) {
        a.surprise[blockIdx.x] = lse - x[r->label];
        a.sure[blockIdx.x] = sure ? entropy : 0.0f;
        a.best[at] = s.best;
    }
    if (!a.grad) return; /* the whole block */
    float weight = r->weight * a.scale, confidence = sure ? r->confidence * a.scale : 0.0f;
    bf16 *to = a.grad + (size_t)blockIdx.x * (size_t)a.vocab;

    for (int c = (int)threadIdx.x * 4; c < a.vocab; c += HEAD_THREADS * 4) {
        float4 q = *(const float4 *)(x + c);
        float v[4] = { q.x, q.y, q.z, q.w };

#pragma unroll
        for (int k = 0; k < 4; k++) {
            float log_p = v[k] - lse, p = gpu_exp(log_p);

            v[k] = p > 0.0f ? p * (weight - confidence * (log_p + entropy)) : p;
            if (c + k == r->label) v[k] -= weight;
        }
        *(uint2 *)(to + c) = make_uint2(gpu_bf16x2(v[0], v[1]), gpu_bf16x2(v[2], v[3]));
    }
}

/* One block: losses of the pack into the state. `step`: a loss that is no number stops the step. */
static __global__ void __launch_bounds__(HEAD_THREADS)
    add_losses(learn_state *state, const rd_train_row *row, const int *list, int n,
               const float *surprise, const float *sure, const int *best, int step)
{
    __shared__ double room[HEAD_THREADS];
    double sum[2 * RD_TASKS + 1] = {};
    int each = (n + HEAD_THREADS - 1) / HEAD_THREADS, begin = (int)threadIdx.x * each;

    for (int i = begin; i < min(begin + each, n); i++) {
        const rd_train_row *r = &row[list[i]];
        double loss = (double)r->weight * (double)surprise[i],
               right = best[list[i]] == r->label ? 1.0 : 0.0;

#pragma unroll
        for (int t = 0; t < RD_TASKS; t++) {
            if (r->task != t) continue;
            sum[t] += loss;
            sum[RD_TASKS + t] += right;
        }
        sum[2 * RD_TASKS] += (double)r->confidence * (double)sure[i];
    }
#pragma unroll
    for (int t = 0; t < 2 * RD_TASKS + 1; t++) {
        __syncthreads();
        room[threadIdx.x] = sum[t];
        __syncthreads();
        if (threadIdx.x == 0) {
            double all = 0.0;

            for (int i = 0; i < HEAD_THREADS; i++) all += room[i];
            if (t < RD_TASKS)
                state->loss[t] += all;
            else if (t < 2 * RD_TASKS)
                state->right[t - RD_TASKS] += (unsigned long long)all;
            else
                state->entropy += all;
            if (step && !isfinite(all)) state->bad_loss = 1;
        }
    }
}

static void chunk(rd_learner *l, const learn_pack *p, int first, int n, bool backward)
{
    size_t at = (size_t)first * (size_t)l->hidden;
    const bf16 *w = l->half_w + l->p->head;
    learn_head_args a = {};

    learn_gemm(l, false, true, n, l->vocab, l->hidden, l->f + at, l->hidden, w, l->hidden, 0.0f,
               l->logits, true, l->vocab);
    a.logits = l->logits;
    a.grad = backward ? l->dlogits : NULL;
    a.row = p->row;
    a.list = p->list + first;
    a.surprise = l->surprise + first;
    a.sure = l->sure + first;
    a.best = l->best;
    a.vocab = l->vocab;
    a.scale = p->scale;
    RD_LAUNCH(cross_entropy, n, HEAD_THREADS, 0, l->stream, a);
    learn_launched(l, "loss");
    if (!backward) return;
    learn_gemm(l, false, false, n, l->hidden, l->vocab, l->dlogits, l->vocab, w, l->hidden, 0.0f,
               l->df + at, false, l->hidden);
    learn_gemm(l, true, false, l->vocab, l->hidden, n, l->dlogits, l->vocab, l->f + at, l->hidden,
               1.0f, l->grad + l->p->head, true, l->hidden);
}

void learn_head(rd_learner *l, const learn_pack *p, bool backward, learn_count count)
{
    learn_norm f = {};
    learn_norm_back b = {};

    learn_check(l, cudaMemsetAsync(l->best, 0xff, (size_t)p->rows * sizeof(int), l->stream),
                "loss");
    if (p->labelled == 0) return;
    f.before = l->x_last;
    f.out = l->f;
    f.inv = l->f_inv;
    f.weight = l->w + l->p->norm;
    f.eps = l->eps;
    f.rows = p->labelled;
    f.hidden = l->hidden;
    f.list = p->list;
    learn_norm_rows(l, &f);
    for (int i = 0; i < p->labelled; i += LEARN_CHUNK)
        chunk(l, p, i, p->labelled - i < LEARN_CHUNK ? p->labelled - i : LEARN_CHUNK, backward);
    if (count != LEARN_COUNT_NONE) {
        RD_LAUNCH(add_losses, 1, HEAD_THREADS, 0, l->stream, l->state, p->row, p->list, p->labelled,
                  l->surprise, l->sure, l->best, count == LEARN_COUNT_STEP ? 1 : 0);
        learn_launched(l, "loss");
    }
    if (!backward) return;
    b.dx = l->dx;
    b.dxb = l->dxb;
    b.branch = l->df;
    b.x = l->x_last;
    b.inv = l->f_inv;
    b.weight = f.weight;
    b.grad = l->grad + l->p->norm;
    b.rows = p->labelled;
    b.hidden = l->hidden;
    b.list = p->list;
    learn_norm_rows_back(l, &b);
}
