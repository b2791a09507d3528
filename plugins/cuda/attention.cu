/* attention.cu - attention of a pass's rows over the blocks behind them and over each other.
 *
 * First `prepare` norms and turns queries and keys, and writes keys and values where a block would have them, into scratch and
 * into the blocks that are kept; then come the kernels of attend.cuh. Keys are counted as past blocks, then the rows that
 * sight.h lets be seen; launches follow from the rows and from a power of two above the number of blocks, all else is read from
 * the parameters.
 */
#include "plugins/cuda/attend.cuh"

#include <string.h>

enum { PREPARE_WARPS = 32, HEAD_DIM_MOST = 1024 };

/* ---- queries, keys and values of the pass ---- */

static __device__ inline void put(uint16_t *to, float x)
{
    *to = gpu_bf16(x);
}

static __device__ inline void put(float *to, float x)
{
    *to = x;
}

/* One block of threads a row, a warp a head; rows of the last block that the pass does not have become zeros, for a weight of
 * zero does not hide a NaN. Dynamic shared: float [rotary_dim], cosines, then sines. */
template <typename number>
static __global__ void __launch_bounds__(PREPARE_WARPS *GPU_WARP)
    prepare(const attend_args a, const attend_places p)
{
    RD_DYNAMIC_SHARED(float, angle);
    int row = (int)blockIdx.x, block = row / a.block_size, token = row % a.block_size;
    int lane = (int)threadIdx.x % GPU_WARP, dim = a.head_dim, half = a.rotary_dim / 2;
    int heads = a.heads + 2 * a.kv_heads, keep = a.keep[block];
    const float *in = a.qkv + (size_t)row * (size_t)heads * (size_t)dim;

    for (int i = (int)threadIdx.x; row < a.rows && i < half; i += (int)blockDim.x)
        cuda_turn((float)a.positions[row] * a.turns[i], &angle[i], &angle[half + i]);
    __syncthreads();
    for (int head = (int)threadIdx.x / GPU_WARP; head < heads; head += (int)blockDim.x / GPU_WARP) {
        const float *x = in + (size_t)head * (size_t)dim;
        bool is_q = head < a.heads, is_v = head >= a.heads + a.kv_heads;
        const float *w = is_q ? a.q_norm : a.k_norm;
        float by = 1.0f;

        if (is_q && row >= a.rows) continue;
        if (!is_v && row < a.rows) {
            float sum = 0.0f;

            for (int d = lane; d < dim; d += GPU_WARP) sum += x[d] * x[d];
            by = 1.0f / sqrtf(gpu_warp_sum(sum) / (float)dim + a.eps);
        }
        for (int d = lane; d < dim; d += GPU_WARP) {
            float y = 0.0f;

            if (row < a.rows) {
                y = x[d];
                if (!is_v) y = y * by * w[d];
                if (!is_v && d < 2 * half) {
                    int i = d < half ? d : d - half, other = d < half ? d + half : d - half;
                    float z = x[other] * by * w[other];

                    y = y * angle[i] + (d < half ? -z : z) * angle[half + i];
                }
            }
            if (is_q) {
                put((number *)p.q + ((size_t)row * (size_t)a.heads + (size_t)head) * (size_t)dim +
                        d,
                    y * a.scale);
                continue;
            }
            int kv_head = head - a.heads - (is_v ? a.kv_heads : 0), at = token * dim + d;

            if (sizeof(number) == sizeof(uint16_t))
                at = is_v ? cuda_value_place(a.block_size, dim, token, d)
                          : cuda_key_place(a.block_size, dim, token, d);
            else if (is_v)
                at += a.block_size * dim;
            put((number *)p.own + ((size_t)block * (size_t)a.kv_heads + (size_t)kv_head) * a.cell +
                    at,
                y);
            if (keep >= 0)
                put((number *)a.layer +
                        ((size_t)keep * (size_t)a.kv_heads + (size_t)kv_head) * a.cell + at,
                    y);
        }
    }
}

/* ---- the command ---- */

template <int DIM, int KEYS>
static void launch_half(rd_device *d, const attend_args *a, const attend_places *p)
{
    const cuda_shares *s = &a->shares;
    dim3 grid((unsigned)s->blocks, (unsigned)a->kv_heads, (unsigned)s->splits);
    size_t room = (size_t)STAGES * 2 * KEYS * DIM * sizeof(uint16_t);

    static_assert(STAGES * 2 * KEYS * DIM * sizeof(uint16_t) <= 48 << 10,
                  "no leave is asked for more");
    RD_LAUNCH((attend_half<DIM, KEYS>), grid, s->warps * GPU_WARP, room, d->stream, *a, *p);
    if (s->splits == 1) return;
    int blocks = (a->rows * a->heads + COMBINE_WARPS - 1) / COMBINE_WARPS;

    RD_LAUNCH((combine<DIM>), blocks, COMBINE_WARPS * GPU_WARP, 0, d->stream, *a, *p);
}

static size_t rounded(size_t bytes)
{
    return (bytes + 255) / 256 * 256;
}

static size_t number_bytes(const attend_args *a)
{
    return a->half ? sizeof(uint16_t) : sizeof(float);
}

static size_t query_bytes(const attend_args *a)
{
    return rounded((size_t)a->rows * (size_t)a->heads * (size_t)a->head_dim * number_bytes(a));
}

static size_t sum_bytes(const attend_args *a)
{
    return rounded((size_t)a->shares.splits * (size_t)a->rows * (size_t)a->heads *
                   (size_t)a->head_dim * sizeof(float));
}

static rd_status run(rd_device *d, const void *args, rd_error *err)
{
    const attend_args *a = (const attend_args *)args;
    attend_places p;
    int heads = a->heads + 2 * a->kv_heads, keys = cuda_piece_keys(a->block_size);
    int threads = (heads < PREPARE_WARPS ? heads : PREPARE_WARPS) * GPU_WARP;
    size_t angles = (size_t)a->rotary_dim * sizeof(float);

    p.q = cuda_scratch(d, CUDA_SLOT_OWN);
    p.own = (char *)p.q + query_bytes(a);
    p.sums = (float *)cuda_scratch(d, CUDA_SLOT_ATTEND);
    p.tops = a->shares.splits > 1 ? (float2 *)((char *)p.sums + sum_bytes(a)) : NULL;
    cuda_forget_half(d, a->out);
    if (a->half)
        RD_LAUNCH((prepare<uint16_t>), a->own_blocks * a->block_size, threads, angles, d->stream,
                  *a, p);
    else
        RD_LAUNCH((prepare<float>), a->own_blocks * a->block_size, threads, angles, d->stream, *a,
                  p);
    if (!a->half) {
        dim3 grid((unsigned)(a->rows + PLAIN_WARPS - 1) / PLAIN_WARPS, (unsigned)a->heads);

        RD_LAUNCH(attend_plain, grid, PLAIN_WARPS * GPU_WARP,
                  (size_t)(PLAIN_WARPS * 2 * a->head_dim) * sizeof(float), d->stream, *a, p);
    } else if (keys == 32 && a->head_dim == 128) {
        launch_half<128, 32>(d, a, &p);
    } else if (keys == 32 && a->head_dim == 64) {
        launch_half<64, 32>(d, a, &p);
    } else if (keys == 32) {
        launch_half<32, 32>(d, a, &p);
    } else if (a->head_dim == 128) {
        launch_half<128, 16>(d, a, &p);
    } else if (a->head_dim == 64) {
        launch_half<64, 16>(d, a, &p);
    } else {
        launch_half<32, 16>(d, a, &p);
    }
    return cuda_status(cudaPeekAtLastError(), "attention", err);
}

/* ---- the verb ---- */

static bool numbers_in(const int32_t *list, int n, int low, int end)
{
    for (int i = 0; i < n; i++)
        if (list[i] < low || list[i] >= end) return false;
    return true;
}

static int branches_of(const rd_attention *a, int trunk)
{
    return a->branches.counts ? (a->rows - trunk + a->branches.size - 1) / a->branches.size : 0;
}

static rd_status check(rd_view out, rd_view qkv, const rd_attention *a, rd_error *err)
{
    const rd_kv *kv = a->kv;
    const rd_kv_shape *s = &kv->shape;
    const rd_branches *b = &a->branches;
    int dim = a->head_dim;

    if (a->rows < 1 || a->heads < 1 || a->kv_heads < 1 || a->heads % a->kv_heads ||
        a->heads > 65535 || dim < 1 || dim > HEAD_DIM_MOST || a->sight < 1 || a->visible < 0 ||
        a->past_blocks < 0)
        return rd_fail(err, RD_INVALID, "attention of %d rows, %d and %d heads of %d, sight %d",
                       a->rows, a->heads, a->kv_heads, dim, a->sight);
    if (a->rotary_dim < 0 || a->rotary_dim > dim || a->rotary_dim % 2)
        return rd_fail(err, RD_INVALID, "rotary_dim %d of %d", a->rotary_dim, dim);
    if (s->kv_heads != a->kv_heads || s->head_dim != dim || a->layer < 0 || a->layer >= s->layers)
        return rd_fail(err, RD_INVALID,
                       "layer %d, %d heads of %d; keys and values have %d, %d of %d", a->layer,
                       a->kv_heads, dim, s->layers, s->kv_heads, s->head_dim);
    if (qkv.rows < a->rows || out.rows < a->rows ||
        qkv.cols != (a->heads + 2 * a->kv_heads) * dim || out.cols != a->heads * dim)
        return rd_fail(err, RD_INVALID, "attention of %d rows from %d x %d to %d x %d", a->rows,
                       qkv.rows, qkv.cols, out.rows, out.cols);
    if (a->q_norm->form != CUDA_F32 || a->k_norm->form != CUDA_F32 || a->q_norm->cols != dim ||
        a->k_norm->cols != dim)
        return rd_fail(err, RD_INVALID, "norms of %d and %d numbers for heads of %d",
                       a->q_norm->cols, a->k_norm->cols, dim);
    if (!numbers_in(a->past, a->past_blocks, 0, s->blocks) ||
        (a->keep &&
         !numbers_in(a->keep, (a->rows + s->block_size - 1) / s->block_size, -1, s->blocks)))
        return rd_fail(err, RD_INVALID, "attention over a block that is none of %d", s->blocks);
    if (b->counts && (b->size != s->block_size || b->first < 0 || b->first > a->rows ||
                      b->first % s->block_size ||
                      !numbers_in(b->counts, branches_of(a, b->first), 0, b->size + 1)))
        return rd_fail(err, RD_INVALID, "branches of %d from row %d of %d", b->size, b->first,
                       a->rows);
    return RD_OK;
}

/* The lists and numbers of a pass, into the parameters, and where kernels find them. */
static rd_status fill_params(rd_device *d, const rd_attention *a, attend_args *g, rd_error *err)
{
    int rows = a->rows, blocks = g->own_blocks, half = a->rotary_dim / 2,
        bucket = cuda_bucket(a->past_blocks);
    size_t lists = (sizeof(attend_numbers) + 15) / 16 * 16;
    size_t n = (size_t)rows + 2 * (size_t)blocks + (size_t)bucket + (size_t)half;
    int trunk = a->branches.counts ? a->branches.first : rows;
    double turn = 1.0, by = half ? pow(a->theta, -1.0 / half) : 1.0;
    const void *device;
    void *host;

    if (cuda_param(d, lists + n * sizeof(int32_t), &host, &device, err)) return err->status;
    attend_numbers *numbers = (attend_numbers *)host;
    const int32_t *at = (const int32_t *)(const void *)((const char *)device + lists);
    int32_t *to = (int32_t *)(void *)((char *)host + lists);

    memset(numbers, 0, sizeof *numbers);
    numbers->sight.rows = rows;
    numbers->sight.sight = a->sight;
    numbers->sight.visible = a->visible > 0 && a->visible < rows ? a->visible : rows;
    numbers->sight.trunk = trunk;
    numbers->sight.group = a->branches.counts ? a->branches.size : 1;
    numbers->past_blocks = a->past_blocks;
    g->numbers = (const attend_numbers *)device;
    g->positions = at;
    g->keep = g->positions + rows;
    g->counts = g->keep + blocks;
    g->past = g->counts + blocks;
    g->turns = (const float *)(const void *)(g->past + bucket);
    memcpy(to, a->positions, (size_t)rows * sizeof *to);
    to += rows;
    for (int i = 0; i < blocks; i++) to[i] = a->keep ? a->keep[i] : -1;
    to += blocks;
    memset(to, 0, (size_t)blocks * sizeof *to);
    if (a->branches.counts)
        memcpy(to, a->branches.counts, (size_t)branches_of(a, trunk) * sizeof *to);
    to += blocks;
    if (a->past_blocks) memcpy(to, a->past, (size_t)a->past_blocks * sizeof *to);
    to += bucket;
    for (int i = 0; i < half; i++, turn *= by) ((float *)(void *)to)[i] = (float)turn;
    return RD_OK;
}

rd_status cuda_attention(rd_device *d, rd_view out, rd_view qkv, const rd_attention *a,
                         rd_error *err)
{
    const rd_kv *kv = a->kv;
    const rd_kv_shape *s = &kv->shape;
    attend_args g;
    rd_error local;

    if (!err) err = &local;
    if (check(out, qkv, a, err)) return err->status;
    memset(&g, 0, sizeof g);
    g.out = out.data;
    g.qkv = qkv.data;
    g.q_norm = (const float *)a->q_norm->data;
    g.k_norm = (const float *)a->k_norm->data;
    g.layer = cuda_kv_layer(kv, a->layer);
    g.cell = kv->cell;
    g.rows = a->rows;
    g.own_blocks = (a->rows + s->block_size - 1) / s->block_size;
    g.heads = a->heads;
    g.kv_heads = a->kv_heads;
    g.head_dim = a->head_dim;
    g.rotary_dim = a->rotary_dim;
    g.block_size = s->block_size;
    g.eps = a->eps;
    g.half = kv->half;
    /* Powers of two on the tensor cores, of e otherwise. */
    g.scale = (kv->half ? 1.44269504088896f : 1.0f) / sqrtf((float)a->head_dim);
    g.shares.splits = 1;
    if (kv->half) {
        int pieces = s->block_size / cuda_piece_keys(s->block_size);

        g.shares = cuda_shares_of(d->processors, a->rows, a->heads, a->kv_heads,
                                  (cuda_bucket(a->past_blocks) + g.own_blocks) * pieces);
    }
    if (fill_params(d, a, &g, err) ||
        cuda_room(d, CUDA_SLOT_OWN,
                  query_bytes(&g) +
                      (size_t)g.own_blocks * (size_t)g.kv_heads * g.cell * number_bytes(&g),
                  err))
        return err->status;
    if (g.shares.splits > 1 && cuda_room(d, CUDA_SLOT_ATTEND,
                                         sum_bytes(&g) + (size_t)g.shares.splits * (size_t)g.rows *
                                                             (size_t)g.heads * sizeof(float2),
                                         err))
        return err->status;
    return cuda_record(d, run, &g, sizeof g, err);
}
