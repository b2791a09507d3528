/* learn_rows.cu - what the learner does row by row: norms with the sums before them, gates, the embedding's gradient.
 *
 * One warp a row, eight columns a lane at once; hidden is a multiple of 16. Gradients of weights that are vectors are
 * gathered in shared memory by each warp, written as LEARN_PARTS partial sums, and added in order.
 */
#include "plugins/cuda/learn.h"

enum {
    ROW_WARPS = 4,
    ROW_THREADS = ROW_WARPS * GPU_WARP,
    BACK_WARPS = 8,
    BACK_THREADS = BACK_WARPS * GPU_WARP
};

/* The row before the norm, columns c .. c + 7. */
static __device__ inline void row_sum(float v[8], const learn_norm *a, int row, int c)
{
    size_t at = (size_t)row * (size_t)a->hidden + (size_t)c;
    float t[8];

    if (a->table)
        bf16_load8(v, a->table + (size_t)a->row[row].token * (size_t)a->hidden + (size_t)c);
    else
        f32_load8(v, a->before + at);
    if (a->branch) {
        bf16_load8(t, a->branch + at);
        for (int i = 0; i < 8; i++) v[i] += t[i];
    }
    for (int k = 0; a->y && k < a->top; k++) {
        int s = a->slot[row * a->top + k];
        float by = a->share[row * a->top + k];

        bf16_load8(t, a->y + (size_t)s * (size_t)a->hidden + (size_t)c);
        for (int i = 0; i < 8; i++) v[i] += by * t[i];
    }
}

static __global__ void __launch_bounds__(ROW_THREADS) norm_rows(learn_norm a)
{
    int lane = (int)threadIdx.x % GPU_WARP;
    int i = (int)blockIdx.x * ROW_WARPS + (int)threadIdx.x / GPU_WARP;

    if (i >= a.rows) return; /* whole warps leave */
    int row = a.list ? a.list[i] : i;
    const float *again = a.x ? a.x : a.before;
    float sum = 0.0f;

    for (int c = lane * 8; c < a.hidden; c += GPU_WARP * 8) {
        float v[8];

        row_sum(v, &a, row, c);
        if (a.x) f32_store8(a.x + (size_t)row * (size_t)a.hidden + (size_t)c, v);
        for (int k = 0; k < 8; k++) sum += v[k] * v[k];
    }
    if (!a.out) return;
    float by = 1.0f / sqrtf(gpu_warp_sum(sum) / (float)a.hidden + a.eps);

    if (lane == 0) a.inv[i] = by;
    for (int c = lane * 8; c < a.hidden; c += GPU_WARP * 8) {
        float v[8], w[8];

        f32_load8(v, again + (size_t)row * (size_t)a.hidden + (size_t)c); /* this lane wrote it */
        f32_load8(w, a.weight + c);
        for (int k = 0; k < 8; k++) v[k] *= by * w[k];
        bf16_store8(a.out + (size_t)i * (size_t)a.hidden + (size_t)c, v);
    }
}

void learn_norm_rows(rd_learner *l, const learn_norm *a)
{
    RD_LAUNCH(norm_rows, learn_blocks((size_t)a->rows, ROW_WARPS), ROW_THREADS, 0, l->stream, *a);
    learn_launched(l, "norm");
}

/* The gradient of the norm's output, columns c .. c + 7 of row i. */
static __device__ inline void row_back(float d[8], const learn_norm_back *a, int i, int c)
{
    float t[8];

    for (int k = 0; k < 8; k++) d[k] = 0.0f;
    if (a->branch) bf16_load8(d, a->branch + (size_t)i * (size_t)a->hidden + (size_t)c);
    for (int k = 0; a->dmx && k < a->top; k++) {
        int at = i * a->top + k;
        float by = a->dchosen[at];

        bf16_load8(t, a->dmx + (size_t)a->slot[at] * (size_t)a->hidden + (size_t)c);
        for (int j = 0; j < 8; j++) d[j] += t[j];
        f32_load8(t, a->router + (size_t)a->chosen[at] * (size_t)a->hidden + (size_t)c);
        for (int j = 0; j < 8; j++) d[j] += by * t[j];
    }
}

/* parts: [gridDim.x, hidden]. Shared: [BACK_WARPS, hidden] float. */
static __global__ void __launch_bounds__(BACK_THREADS)
    norm_rows_back(learn_norm_back a, float *parts)
{
    RD_DYNAMIC_SHARED(float, room);
    int lane = (int)threadIdx.x % GPU_WARP, warp = (int)threadIdx.x / GPU_WARP;
    float *own = room + warp * a.hidden;

    for (int c = lane * 8; c < a.hidden; c += GPU_WARP * 8)
        for (int k = 0; k < 8; k++) own[c + k] = 0.0f;
    for (int i = (int)blockIdx.x * BACK_WARPS + warp; i < a.rows;
         i += (int)gridDim.x * BACK_WARPS) {
        size_t row = (size_t)(a.list ? a.list[i] : i) * (size_t)a.hidden;
        float by = a.inv[i], sum = 0.0f;

        for (int c = lane * 8; c < a.hidden; c += GPU_WARP * 8) {
            float d[8], x[8], w[8];

            row_back(d, &a, i, c);
            f32_load8(x, a.x + row + (size_t)c);
            f32_load8(w, a.weight + c);
            for (int k = 0; k < 8; k++) sum += x[k] * d[k] * w[k];
        }
        float back = gpu_warp_sum(sum) * by * by * by / (float)a.hidden;

        for (int c = lane * 8; c < a.hidden; c += GPU_WARP * 8) {
            float d[8], x[8], w[8], dx[8];

            row_back(d, &a, i, c);
            f32_load8(x, a.x + row + (size_t)c);
            f32_load8(w, a.weight + c);
            f32_load8(dx, a.dx + row + (size_t)c);
            for (int k = 0; k < 8; k++) {
                dx[k] += d[k] * w[k] * by - x[k] * back;
                own[c + k] += d[k] * x[k] * by;
            }
            f32_store8(a.dx + row + (size_t)c, dx);
            bf16_store8(a.dxb + row + (size_t)c, dx);
        }
    }
    __syncthreads();
    for (int c = (int)threadIdx.x; c < a.hidden; c += BACK_THREADS) {
        float sum = 0.0f;

        for (int w = 0; w < BACK_WARPS; w++) sum += room[w * a.hidden + c];
        parts[(size_t)blockIdx.x * (size_t)a.hidden + (size_t)c] = sum;
    }
}

void learn_norm_rows_back(rd_learner *l, const learn_norm_back *a)
{
    int blocks = learn_blocks((size_t)a->rows, BACK_WARPS);
    size_t shared = (size_t)BACK_WARPS * (size_t)a->hidden * sizeof(float);

    if (blocks > LEARN_PARTS) blocks = LEARN_PARTS;
    if (shared > 48 << 10) learn_check(l, RD_ALLOW_SHARED(norm_rows_back, shared), "norm backward");
    RD_LAUNCH(norm_rows_back, blocks, BACK_THREADS, shared, l->stream, *a, l->parts);
    learn_launched(l, "norm backward");
    learn_sum_parts(l, a->grad, l->parts, blocks, a->hidden, a->hidden);
}

/* 32 columns a block, 32 threads a column. */
static __global__ void __launch_bounds__(1024)
    sum_parts(float *out, const float *parts, int n, int cols, int ld)
{
    __shared__ float room[32][33];
    int x = (int)threadIdx.x % 32, y = (int)threadIdx.x / 32;
    int c = (int)blockIdx.x * 32 + x, each = (n + 31) / 32;
    float sum = 0.0f;

    if (c < cols)
#pragma unroll 8
        for (int i = y * each; i < min((y + 1) * each, n); i++)
            sum += parts[(size_t)i * (size_t)ld + (size_t)c];
    room[y][x] = sum;
    __syncthreads();
    if (y == 0 && c < cols) {
        sum = 0.0f;
        for (int i = 0; i < 32; i++) sum += room[i][x];
        out[c] += sum;
    }
}

void learn_sum_parts(rd_learner *l, float *out, const float *parts, int n, int cols, int ld)
{
    RD_LAUNCH(sum_parts, learn_blocks((size_t)cols, 32), 1024, 0, l->stream, out, parts, n, cols,
              ld);
    learn_launched(l, "sums over rows");
}

/* ---- gates: eight columns a thread ---- */

static __device__ inline float logistic(float x)
{
    return 1.0f / (1.0f + gpu_exp(-x));
}

static __global__ void __launch_bounds__(256)
    gate(bf16 *h, const bf16 *gu, int rows, int width, const int *used)
{
    int each = width / 8, at = (int)(blockIdx.x * 256 + threadIdx.x);
    int row = at / each, c = at % each * 8;

    if (row >= rows || (used && row >= *used)) return;
    const bf16 *from = gu + (size_t)row * 2 * (size_t)width + (size_t)c;
    float g[8], u[8];

    bf16_load8(g, from);
    bf16_load8(u, from + width);
    for (int k = 0; k < 8; k++) g[k] = g[k] * logistic(g[k]) * u[k];
    bf16_store8(h + (size_t)row * (size_t)width + (size_t)c, g);
}

void learn_gate(rd_learner *l, bf16 *h, const bf16 *gu, int rows, int width, const int *used)
{
    size_t n = (size_t)rows * (size_t)(width / 8);

    RD_LAUNCH(gate, learn_blocks(n, 256), 256, 0, l->stream, h, gu, rows, width, used);
    learn_launched(l, "gate");
}

static __global__ void __launch_bounds__(256)
    gate_back(bf16 *h, bf16 *gu, const bf16 *dh, const float *share, int rows, int width,
              const int *used)
{
    int each = width / 8, at = (int)(blockIdx.x * 256 + threadIdx.x);
    int row = at / each, c = at % each * 8;

    if (row >= rows || (used && row >= *used)) return;
    bf16 *place = gu + (size_t)row * 2 * (size_t)width + (size_t)c;
    size_t to = (size_t)row * (size_t)width + (size_t)c;
    float by = share ? share[row] : 1.0f, g[8], u[8], d[8], again[8];

    bf16_load8(g, place);
    bf16_load8(u, place + width);
    bf16_load8(d, dh + to);
    for (int k = 0; k < 8; k++) {
        float s = logistic(g[k]), x = g[k];

        d[k] *= by;
        again[k] = by * x * s * u[k];
        g[k] = d[k] * u[k] * s * (1.0f + x * (1.0f - s));
        u[k] = d[k] * x * s;
    }
    bf16_store8(h + to, again);
    bf16_store8(place, g);
    bf16_store8(place + width, u);
}

void learn_gate_back(rd_learner *l, bf16 *h, bf16 *gu, const bf16 *dh, const float *share, int rows,
                     int width, const int *used)
{
    size_t n = (size_t)rows * (size_t)(width / 8);

    RD_LAUNCH(gate_back, learn_blocks(n, 256), 256, 0, l->stream, h, gu, dh, share, rows, width,
              used);
    learn_launched(l, "gate backward");
}

/* ---- the embedding's gradient: rows of one token stand together in `order` ---- */

/* One block a segment, four columns a thread. */
static __global__ void __launch_bounds__(128)
    add_segments(float *grad, float *parts, const float *dx, const learn_segment *segment,
                 const int *order, int hidden)
{
    learn_segment s = segment[blockIdx.x];
    float *to = (s.whole ? grad : parts) + (size_t)s.to * (size_t)hidden;

    for (int c = (int)threadIdx.x * 4; c < hidden; c += 128 * 4) {
        float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);

        if (s.whole) sum = *(const float4 *)(to + c);
#pragma unroll 4
        for (int i = s.begin; i < s.end; i++) {
            float4 v = *(const float4 *)(dx + (size_t)order[i] * (size_t)hidden + (size_t)c);

            sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
        }
        *(float4 *)(to + c) = sum;
    }
}

static __global__ void __launch_bounds__(128)
    join_segments(float *grad, const float *parts, const learn_join *join, int hidden)
{
    learn_join j = join[blockIdx.x];
    int c = (int)(blockIdx.y * 128 + threadIdx.x);

    if (c >= hidden) return;
    float sum = 0.0f;

#pragma unroll 8
    for (int i = 0; i < j.count; i++)
        sum += parts[(size_t)(j.first + i) * (size_t)hidden + (size_t)c];
    grad[(size_t)j.to * (size_t)hidden + (size_t)c] += sum;
}

void learn_embed_back(rd_learner *l, const learn_pack *p)
{
    float *grad = l->grad + l->p->table;

    RD_LAUNCH(add_segments, p->segments, 128, 0, l->stream, grad, l->token_parts, l->dx, p->segment,
              p->order, l->hidden);
    if (p->joins > 0)
        RD_LAUNCH(join_segments,
                  dim3((unsigned)p->joins, (unsigned)learn_blocks((size_t)l->hidden, 128)), 128, 0,
                  l->stream, grad, l->token_parts, p->join, l->hidden);
    learn_launched(l, "embedding backward");
}
