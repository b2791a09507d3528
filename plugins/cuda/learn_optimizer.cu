/* learn_optimizer.cu - a step on the device: the gradient's norm, AdamW, expert biases, the mean of weights, rounding.
 *
 * Tensors are cut into pieces of LEARN_PIECE floats, one block each, so one launch serves all tensors. Sums are made in the
 * order of pieces. One block then decides: a gradient or loss that is not finite sets `skip`, and every kernel behind it
 * leaves at once; the host reads of it at the next collect. Counts that shape a step (AdamW's corrections, the mean's
 * weight) are kept on the device for the same reason: the host does not know which steps counted.
 *
 * Sources: core/train/optimizer.c, params.c (rounding), trainer.c (mean): the same arithmetic.
 */
#include "plugins/cuda/learn.h"

enum { STEP_THREADS = 256 };

/* ---- the norm ---- */

/* The sum over the block's threads in a fixed order, to thread 0. */
static __device__ inline double block_sum(double x, double *room)
{
    double all = 0.0;

    __syncthreads();
    room[threadIdx.x] = x;
    __syncthreads();
    if (threadIdx.x < GPU_WARP) {
        for (int i = (int)threadIdx.x; i < STEP_THREADS; i += GPU_WARP) all += room[i];
        for (int by = GPU_WARP / 2; by > 0; by /= 2) all += __shfl_xor_sync(GPU_ALL, all, by);
    }
    return all;
}

static __global__ void __launch_bounds__(STEP_THREADS)
    sum_squares(double *out, const float *x, const learn_piece *piece)
{
    __shared__ double room[STEP_THREADS];
    learn_piece p = piece[blockIdx.x];
    float sum = 0.0f;

#pragma unroll 4
    for (int i = (int)threadIdx.x * 4; i < p.count; i += STEP_THREADS * 4) {
        float4 v = *(const float4 *)(x + p.offset + i);

        sum += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
    }
    double all = block_sum((double)sum, room);

    if (threadIdx.x == 0) out[blockIdx.x] = all;
}

typedef struct learn_decide_args {
    learn_state *state;
    const double *squares;
    const learn_piece *piece;
    int pieces, average;
    float clip, beta1, beta2;
} learn_decide_args;

static __global__ void __launch_bounds__(STEP_THREADS) decide(learn_decide_args a)
{
    __shared__ double room[STEP_THREADS];
    __shared__ int bad;
    int each = (a.pieces + STEP_THREADS - 1) / STEP_THREADS, begin = (int)threadIdx.x * each;
    double sum = 0.0;

    if (threadIdx.x == 0) bad = 0x7fffffff;
    __syncthreads();
    for (int i = begin; i < min(begin + each, a.pieces); i++) {
        sum += a.squares[i];
        if (!isfinite(a.squares[i])) atomicMin(&bad, a.piece[i].tensor);
    }
    sum = block_sum(sum, room);
    if (threadIdx.x != 0) return;
    learn_state *s = a.state;
    bool whole = bad == 0x7fffffff;

    s->norm = sqrt(sum);
    s->skip = !whole || s->bad_loss;
    s->mean_by = 0.0f;
    s->clip = 1.0f;
    if (s->skip) {
        if (s->bad_step == 0) {
            s->bad_step = s->steps + 1;
            s->bad_tensor = whole ? -1 : bad;
        }
        s->bad_loss = 0;
        return;
    }
    s->steps++;
    s->averaged = a.average ? s->averaged + 1 : 0;
    if (a.average) s->mean_by = 1.0f / (float)s->averaged;
    if (a.clip > 0.0f && s->norm > (double)a.clip) s->clip = (float)((double)a.clip / s->norm);
    s->correct1 = (float)(1.0 / (1.0 - pow((double)a.beta1, (double)s->steps)));
    s->correct2 = (float)(1.0 / (1.0 - pow((double)a.beta2, (double)s->steps)));
}

/* ---- AdamW ---- */

typedef struct learn_adam_args {
    const learn_state *state;
    const learn_piece *piece;
    const int *list;
    const unsigned char *kind;
    float *w, *m, *v;
    const float *g;
    float lr, beta1, beta2, eps, decay;
} learn_adam_args;

static __device__ inline float adam_one(float w, float *m, float *v, float g,
                                        const learn_adam_args *a, float keep, float c1, float c2)
{
    *m = a->beta1 * *m + (1.0f - a->beta1) * g;
    *v = a->beta2 * *v + (1.0f - a->beta2) * g * g;
    return w * keep - a->lr * (*m * c1) / (sqrtf(*v * c2) + a->eps);
}

static __global__ void __launch_bounds__(STEP_THREADS) adam(learn_adam_args a)
{
    if (a.state->skip) return;
    learn_piece p = a.piece[a.list[blockIdx.x]];
    float clip = a.state->clip, c1 = a.state->correct1, c2 = a.state->correct2;
    float keep = 1.0f - a.lr * (a.kind[p.tensor] == RD_PARAM_NORM ? 0.0f : a.decay);

    for (int i = (int)threadIdx.x * 4; i < p.count; i += STEP_THREADS * 4) {
        size_t at = p.offset + (size_t)i;
        float4 w = *(float4 *)(a.w + at), m = *(float4 *)(a.m + at), v = *(float4 *)(a.v + at);
        float4 g = *(const float4 *)(a.g + at);

        w.x = adam_one(w.x, &m.x, &v.x, g.x * clip, &a, keep, c1, c2);
        w.y = adam_one(w.y, &m.y, &v.y, g.y * clip, &a, keep, c1, c2);
        w.z = adam_one(w.z, &m.z, &v.z, g.z * clip, &a, keep, c1, c2);
        w.w = adam_one(w.w, &m.w, &v.w, g.w * clip, &a, keep, c1, c2);
        *(float4 *)(a.w + at) = w;
        *(float4 *)(a.m + at) = m;
        *(float4 *)(a.v + at) = v;
    }
}

/* ---- biases, mean ---- */

/* One block; bias, load: [experts]. */
static __global__ void __launch_bounds__(STEP_THREADS)
    balance(const learn_state *state, float *bias, const unsigned long long *load, int experts,
            float rate)
{
    if (state->skip) return;
    long long sum = 0;

    for (int e = 0; e < experts; e++) sum += (long long)load[e];
    for (int e = (int)threadIdx.x; e < experts; e += STEP_THREADS) {
        long long over = (long long)load[e] * experts - sum;

        bias[e] += (over > 0 ? -1.0f : over < 0 ? 1.0f : 0.0f) * rate;
    }
}

static __global__ void __launch_bounds__(STEP_THREADS)
    average_weights(const learn_state *state, float *mean, const float *w, size_t n)
{
    float by = state->mean_by;
    size_t at = ((size_t)blockIdx.x * STEP_THREADS + threadIdx.x) * 4;

    if (by == 0.0f || at >= n) return;
    float4 m = *(float4 *)(mean + at), x = *(const float4 *)(w + at);

    m.x += (x.x - m.x) * by;
    m.y += (x.y - m.y) * by;
    m.z += (x.z - m.z) * by;
    m.w += (x.w - m.w) * by;
    *(float4 *)(mean + at) = m;
}

void learn_optimize(rd_learner *l, float lr, bool average)
{
    const rd_optimizer_options *o = &l->o.optimizer;
    size_t n = l->p->size;
    learn_decide_args d = {};
    learn_adam_args a = {};

    RD_LAUNCH(sum_squares, l->pieces, STEP_THREADS, 0, l->stream, l->squares, l->grad, l->piece);
    d.state = l->state;
    d.squares = l->squares;
    d.piece = l->piece;
    d.pieces = l->pieces;
    d.average = average && l->mean;
    d.clip = o->clip;
    d.beta1 = o->beta1;
    d.beta2 = o->beta2;
    RD_LAUNCH(decide, 1, STEP_THREADS, 0, l->stream, d);
    a.state = l->state;
    a.piece = l->piece;
    a.list = l->adam_piece;
    a.kind = l->tensor_kind;
    a.w = l->w;
    a.m = l->moment[0];
    a.v = l->moment[1];
    a.g = l->grad;
    a.lr = lr;
    a.beta1 = o->beta1;
    a.beta2 = o->beta2;
    a.eps = o->eps;
    a.decay = o->decay;
    RD_LAUNCH(adam, l->adam_pieces, STEP_THREADS, 0, l->stream, a);
    learn_launched(l, "step");
    if (l->matrices > 0) learn_muon(l, lr);
    for (int i = 0; i < l->layers; i++) {
        if (!l->p->layer[i].moe) continue;
        RD_LAUNCH(balance, 1, STEP_THREADS, 0, l->stream, l->state, l->w + l->p->layer[i].bias,
                  l->load_step + (size_t)i * (size_t)l->experts, l->experts, o->bias_rate);
    }
    if (d.average)
        RD_LAUNCH(average_weights, learn_blocks(n / 4, STEP_THREADS), STEP_THREADS, 0, l->stream,
                  l->state, l->mean, l->w, n);
    learn_check(l, cudaMemsetAsync(l->grad, 0, n * sizeof(float), l->stream), "step");
    if (l->experts > 0)
        learn_check(l,
                    cudaMemsetAsync(l->load_step, 0,
                                    (size_t)l->layers * (size_t)l->experts * sizeof *l->load_step,
                                    l->stream),
                    "step");
    learn_launched(l, "step");
    l->stale = true;
}

/* ---- what products read ---- */

static __global__ void __launch_bounds__(STEP_THREADS) halve(bf16 *out, const float *w, size_t n)
{
    size_t at = ((size_t)blockIdx.x * STEP_THREADS + threadIdx.x) * 8;
    float v[8];

    if (at >= n) return;
    f32_load8(v, w + at);
    bf16_store8(out + at, v);
}

/* One warp a row of a matrix or table: bf16, then int8 with one scale, then back. half, full: one of them NULL. */
static __global__ void __launch_bounds__(STEP_THREADS)
    round_rows(bf16 *half, float *full, const float *w, const unsigned long long *offset,
               const int *cols, int rows)
{
    int lane = (int)threadIdx.x % GPU_WARP,
        row = (int)((blockIdx.x * STEP_THREADS + threadIdx.x) / GPU_WARP);

    if (row >= rows) return; /* whole warps leave */
    const float *from = w + offset[row];
    int n = cols[row];
    float top = 0.0f;

    for (int c = lane; c < n; c += GPU_WARP)
        top = fmaxf(top, fabsf(gpu_from_bf16(gpu_bf16(from[c]))));
    float scale = gpu_warp_max(top) / 127.0f;

#pragma unroll 1
    for (int c = lane; c < n; c += GPU_WARP) {
        float x = gpu_from_bf16(gpu_bf16(from[c])), q = scale > 0.0f ? rintf(x / scale) : 0.0f;

        q = (q > 127.0f    ? 127.0f
             : q < -127.0f ? -127.0f
                           : q) *
                scale +
            0.0f; /* int8 has no minus zero */
        if (half)
            half[offset[row] + (size_t)c] = gpu_bf16(q);
        else
            full[offset[row] + (size_t)c] = q;
    }
}

static void launch_round(rd_learner *l, bf16 *half, float *full)
{
    RD_LAUNCH(round_rows, learn_blocks((size_t)l->row_count * GPU_WARP, STEP_THREADS), STEP_THREADS,
              0, l->stream, half, full, l->w, l->row_offset, l->row_cols, l->row_count);
    learn_launched(l, "rounding");
}

void learn_round(rd_learner *l, float *out)
{
    learn_check(
        l,
        cudaMemcpyAsync(out, l->w, l->p->size * sizeof(float), cudaMemcpyDeviceToDevice, l->stream),
        "rounding");
    launch_round(l, NULL, out);
}

void learn_refresh(rd_learner *l)
{
    size_t n = l->p->size;

    if (!l->stale) return;
    if (l->see_rounded) {
        launch_round(l, l->half_w, NULL); /* norms, routers and biases are read as they are */
    } else {
        RD_LAUNCH(halve, learn_blocks(n / 8, STEP_THREADS), STEP_THREADS, 0, l->stream, l->half_w,
                  l->w, n);
        learn_launched(l, "weights in bf16");
    }
    l->stale = false;
}
