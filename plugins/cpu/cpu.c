/* cpu.c - the backend's table on host memory: which rows and panels each thread does.
 *
 * Work is split by output rows, panels, heads and experts, never inside a sum: results do not depend
 * on the number of threads. Everything a pass needs is allocated when weights, views and KV storage
 * are made; `begin` sees to the room that grows with the rows.
 */
#include "plugins/cpu/cpu.h"

#include "core/base/memory.h"
#include "plugins/cpu/ceilings.h"
#include "plugins/cpu/gemm_train.h"
#include "plugins/cpu/kernels.h"
#include "plugins/cpu/pool.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PICK_PANELS = 16, THREADS_MOST = 256 };

struct rd_kv {
    rd_kv_shape shape;
    /* [block][layer] of the heads' keys, [head_dim][block_size] each, and their values, [block_size][head_dim] */
    float *data;
    size_t floats; /* of a block */
    size_t piece;  /* floats of one head's keys of one block */
};

/* What one chunk of the vocabulary says about one row. */
typedef struct part {
    int32_t best, second;
    float top, second_top, sum, watched;
} part;

struct rd_device {
    const rd_kernels *kernels;
    rd_precision precision;
    rd_cpu_pool *pool;
    rd_gemm_train *gemm;
    size_t bytes;

    /* Scratch; each grows outside of a pass' inner work only. */
    uint16_t *half;
    size_t half_n;
    float *own; /* keys and values of the rows of a pass */
    size_t own_n;
    const float **tile_k, **tile_v;
    size_t tiles_n;
    float **scores; /* [threads] */
    size_t scores_n;
    float *work; /* experts' and mlp's inner rows */
    size_t work_n;
    part *parts;
    size_t parts_n;
    float **logits; /* [threads] */
    size_t logits_n;
    int *route;
    size_t route_n;
};

/* ---- open ---- */

static const rd_kernels *kernels_named(const char *isa, rd_error *err)
{
#if defined(__x86_64__)
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    bool half = avx512 && __builtin_cpu_supports("avx512bf16");
#else
    bool avx2 = false, avx512 = false, half = false;
#endif
    const rd_kernels *best = &rd_kernels_plain;

#if defined(__x86_64__)
    if (avx2) best = &rd_kernels_avx2;
    if (avx512) best = half ? &rd_kernels_avx512_bf16 : &rd_kernels_avx512;
    if (isa && !strcmp(isa, "avx2") && avx2) return &rd_kernels_avx2;
    if (isa && !strcmp(isa, "avx512") && avx512)
        return half ? &rd_kernels_avx512_bf16 : &rd_kernels_avx512;
    if (isa && !strcmp(isa, "avx512-f32") && avx512) return &rd_kernels_avx512;
#endif
    if (!isa) return best;
    if (!strcmp(isa, "plain")) return &rd_kernels_plain;
    if (!strcmp(isa, "avx2") || !strcmp(isa, "avx512") || !strcmp(isa, "avx512-f32"))
        rd_fail(err, RD_DEVICE, "this processor has no %s", isa);
    else
        rd_fail(err, RD_INVALID, "unknown instruction set %s: plain, avx2 or avx512", isa);
    return NULL;
}

static void cpu_close(rd_device *d)
{
    if (!d) return;
    for (int i = 0; d->scores && i < rd_cpu_pool_threads(d->pool); i++) {
        free(d->scores[i]);
        free(d->logits[i]);
    }
    rd_cpu_pool_free(d->pool);
    rd_gemm_train_close(d->gemm);
    free(d->half);
    free(d->own);
    free(d->tile_k);
    free(d->tile_v);
    free(d->scores);
    free(d->logits);
    free(d->work);
    free(d->parts);
    free(d->route);
    free(d);
}

static rd_status cpu_open(const rd_device_options *o, rd_device **out, rd_error *err)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    int threads = o->threads > 0 ? o->threads : cores > 0 ? (int)cores : 1;
    const rd_kernels *kernels = kernels_named(o->isa, err);

    if (!kernels) return err ? err->status : RD_DEVICE;
    if (threads > THREADS_MOST) threads = THREADS_MOST;
    rd_device *d = rd_alloc0(sizeof *d);

    d->kernels = kernels;
    d->precision = o->precision;
    d->pool = rd_cpu_pool_new(threads);
    threads = rd_cpu_pool_threads(d->pool);
    d->scores = rd_alloc_array((size_t)threads, sizeof *d->scores);
    d->logits = rd_alloc_array((size_t)threads, sizeof *d->logits);
    *out = d;
    return RD_OK;
}

static void cpu_describe(rd_device *d, rd_device_info *out)
{
    *out = (rd_device_info){ .isa = d->kernels->name,
                             .threads = rd_cpu_pool_threads(d->pool),
                             .bytes = d->bytes };
}

static rd_status no_memory(rd_error *err, const char *what, size_t bytes)
{
    return rd_fail(err, RD_NO_MEMORY, "no memory for %s: %zu MB", what, bytes >> 20);
}

/* Room for n elements in a scratch array; what was there is lost. */
static rd_status room(void *array, size_t *have, size_t n, size_t size, const char *what,
                      rd_error *err)
{
    void **p = array;
    size_t bytes;

    if (n <= *have) return RD_OK;
    n += n / 4;
    if (!rd_mul(n, size, &bytes)) return no_memory(err, what, SIZE_MAX);
    free(*p);
    *have = 0;
    *p = rd_try_alloc(bytes);
    if (!*p) return no_memory(err, what, bytes);
    *have = n;
    return RD_OK;
}

static rd_status room_each(rd_device *d, float **array, size_t *have, size_t n, const char *what,
                           rd_error *err)
{
    if (n <= *have) return RD_OK;
    n += n / 4;
    *have = 0;
    for (int i = 0; i < rd_cpu_pool_threads(d->pool); i++) {
        size_t none = 0;

        if (room(&array[i], &none, n, sizeof(float), what, err))
            return err ? err->status : RD_NO_MEMORY;
    }
    *have = n;
    return RD_OK;
}

/* ---- weights ---- */

static void cpu_drop(rd_device *d, rd_weight *w)
{
    if (!w) return;
    d->bytes -= w->bytes;
    free(w->data);
    free(w->scale);
    free(w);
}

static bool finite_row(const float *x, int n)
{
    /* The sum of x - x is 0 unless something is infinite or NaN. */
    float sum = 0.0f;

    for (int i = 0; i < n; i++) sum += x[i] - x[i];
    return sum == 0.0f;
}

static void put_row(rd_weight *w, int n, const float *row)
{
    size_t panel = (size_t)n / RD_PANEL, lane = (size_t)n % RD_PANEL, cols = (size_t)w->cols;

    if (w->kind == RD_ROWS_F32) {
        memcpy((float *)w->data + (size_t)n * cols, row, cols * sizeof *row);
    } else {
        float *to = (float *)w->data + panel * cols * RD_PANEL + lane;

        for (size_t k = 0; k < cols; k++) to[k * RD_PANEL] = row[k];
    }
}

/* A row as bf16. False: one of its numbers is not finite. `wide` is room for the row. */
static bool bf16_row(uint16_t *to, const char *from, rd_dtype type, int n, float *wide)
{
    uint32_t full = 0; /* not 0 where an exponent was all ones */

    if (type == RD_I8) { /* integers below 256 are exact: nothing is rounded */
        for (int k = 0; k < n; k++) {
            float x = (float)(int8_t)from[k];
            uint32_t bits;

            memcpy(&bits, &x, sizeof bits);
            to[k] = (uint16_t)(bits >> 16);
        }
        return true;
    }
    if (type == RD_BF16) {
        memcpy(to, from, 2 * (size_t)n);
        for (int k = 0; k < n; k++) full |= ((to[k] & 0x7f80u) + 0x80u) & 0x8000u;
        return !full;
    }
    rd_widen(wide, from, type, (size_t)n);
    for (int k = 0; k < n; k++) to[k] = rd_f32_to_bf16(wide[k]);
    return finite_row(wide, n);
}

enum { PAIRS_AT_ONCE = 64 }; /* a stretch of a panel that stays in the first cache */

/* Lay RD_PANEL rows of `stride` bf16 numbers, an even number, into a panel. */
static void put_panel(uint32_t *to, const uint16_t *rows, size_t stride)
{
    size_t pairs = stride / 2;

    for (size_t from = 0; from < pairs; from += PAIRS_AT_ONCE) {
        size_t end = from + PAIRS_AT_ONCE < pairs ? from + PAIRS_AT_ONCE : pairs;

        for (int lane = 0; lane < RD_PANEL; lane++)
            for (size_t k = from; k < end; k++)
                memcpy(to + k * RD_PANEL + lane, rows + (size_t)lane * stride + 2 * k, 4);
    }
}

/* Some panels of a weight that is being taken; pieces share nothing but `bad`. */
typedef struct take_job {
    const rd_matrix *m;
    rd_weight *w;
    int rows; /* of one piece, a multiple of RD_PANEL */
    int *bad; /* [pieces]: the first row that is not finite, or -1 */
} take_job;

static const char *row_of(const rd_matrix *m, int n)
{
    return (const char *)m->data + (size_t)n * (size_t)m->cols * rd_dtype_bytes(m->dtype);
}

static void take_bf16(take_job *j, int from, int to, int *bad)
{
    const rd_matrix *m = j->m;
    size_t stride = ((size_t)m->cols + 1) / 2 * 2;
    uint16_t *rows = rd_alloc_array(RD_PANEL * stride, sizeof *rows);
    float *wide = rd_alloc_array((size_t)m->cols, sizeof *wide);

    for (int first = from; first < to && *bad < 0; first += RD_PANEL) {
        int n = to - first < RD_PANEL ? to - first : RD_PANEL;

        if (n < RD_PANEL) memset(rows, 0, RD_PANEL * stride * sizeof *rows); /* padding is zero */
        for (int i = 0; i < n; i++) {
            bool finite =
                bf16_row(rows + (size_t)i * stride, row_of(m, first + i), m->dtype, m->cols, wide);

            if (m->scale) {
                j->w->scale[first + i] = m->scale[first + i];
                finite = finite && isfinite(m->scale[first + i]);
            }
            if (!finite && *bad < 0) *bad = first + i;
        }
        put_panel((uint32_t *)j->w->data + (size_t)first / RD_PANEL * stride / 2 * RD_PANEL, rows,
                  stride);
    }
    free(rows);
    free(wide);
}

static void take_f32(take_job *j, int from, int to, int *bad)
{
    const rd_matrix *m = j->m;
    size_t cols = (size_t)m->cols;
    float *row = rd_alloc_array(cols, sizeof *row);

    if (j->w->kind == RD_PANELS_F32 && to % RD_PANEL) /* padding is zero */
        memset((float *)j->w->data + (size_t)(to / RD_PANEL) * RD_PANEL * cols, 0,
               RD_PANEL * cols * sizeof *row);
    for (int n = from; n < to && *bad < 0; n++) {
        rd_widen(row, row_of(m, n), m->dtype, cols);
        if (!finite_row(row, m->cols) || (m->scale && !isfinite(m->scale[n]))) *bad = n;
        for (size_t k = 0; m->scale && k < cols; k++) row[k] *= m->scale[n];
        put_row(j->w, n, row);
    }
    free(row);
}

static void take_piece(void *user, int piece, int thread)
{
    take_job *j = user;
    int from = piece * j->rows, to = from + j->rows < j->m->rows ? from + j->rows : j->m->rows;

    (void)thread;
    if (j->w->kind == RD_PANELS_BF16)
        take_bf16(j, from, to, &j->bad[piece]);
    else
        take_f32(j, from, to, &j->bad[piece]);
}

enum { TAKE_CELLS = 1 << 17 }; /* of one piece: waking a thread costs less than this */

static rd_status cpu_take(rd_device *d, const rd_matrix *m, bool exact, rd_weight **out,
                          rd_error *err)
{
    bool vector = m->rows == 1;
    bool keep = exact || d->precision == RD_EXACT;
    rd_weight *w = rd_alloc0(sizeof *w);
    size_t rows = ((size_t)m->rows + RD_PANEL - 1) / RD_PANEL * RD_PANEL, cells, size;
    take_job j = { .m = m, .w = w };
    int bad = -1;

    w->rows = m->rows;
    w->cols = m->cols;
    w->kind = vector ? RD_ROWS_F32 : keep ? d->kernels->exact : d->kernels->fast;
    if (w->kind == RD_ROWS_F32) rows = (size_t)m->rows;
    size = w->kind == RD_PANELS_BF16 ? 2 : 4;
    if (!rd_mul(rows, ((size_t)m->cols + 1) / 2 * 2, &cells) || !rd_mul(cells, size, &w->bytes) ||
        !(w->data = rd_try_alloc(w->bytes))) {
        free(w);
        return no_memory(err, "a weight", cells);
    }
    d->bytes += w->bytes;
    if (m->scale && w->kind == RD_PANELS_BF16) /* integers, exact in bf16, and the scale apart */
        w->scale = rd_alloc_array(rows, sizeof *w->scale);
    j.rows = (TAKE_CELLS / (m->cols > 0 ? m->cols : 1) / RD_PANEL + 1) * RD_PANEL;
    int pieces = (m->rows + j.rows - 1) / j.rows;

    j.bad = rd_alloc_array((size_t)pieces + 1, sizeof *j.bad);
    for (int i = 0; i < pieces; i++) j.bad[i] = -1;
    rd_cpu_pool_run(d->pool, pieces, take_piece, &j);
    for (int i = pieces - 1; i >= 0; i--) bad = j.bad[i] >= 0 ? j.bad[i] : bad;
    free(j.bad);
    if (bad >= 0) {
        cpu_drop(d, w);
        return rd_fail(err, RD_INVALID, "row %d holds a number that is not finite", bad);
    }
    *out = w;
    return RD_OK;
}

static float cell(const rd_weight *w, int n, int k)
{
    size_t panel = (size_t)n / RD_PANEL, lane = (size_t)n % RD_PANEL, cols = (size_t)w->cols;

    if (w->kind == RD_ROWS_F32) return ((const float *)w->data)[(size_t)n * cols + (size_t)k];
    if (w->kind == RD_PANELS_F32)
        return ((const float *)w->data)[(panel * cols + (size_t)k) * RD_PANEL + lane];
    const uint16_t *at =
        (const uint16_t *)w->data + (panel * ((cols + 1) / 2) + (size_t)k / 2) * 2 * RD_PANEL;
    float x = rd_bf16_to_f32(at[2 * lane + (size_t)k % 2]);

    return w->scale ? x * w->scale[n] : x;
}

/* ---- memory ---- */

static rd_status cpu_alloc(rd_device *d, int rows, int cols, rd_view *out, rd_error *err)
{
    size_t cells, bytes;

    if (rows < 0 || cols < 0 || !rd_mul((size_t)rows, (size_t)cols, &cells) ||
        !rd_mul(cells, sizeof(float), &bytes))
        return rd_fail(err, RD_INVALID, "a view of %d x %d", rows, cols);
    float *data = rd_try_alloc(bytes ? bytes : 1);

    if (!data) return no_memory(err, "activations", bytes);
    d->bytes += bytes;
    *out = (rd_view){ data, rows, cols };
    return RD_OK;
}

static void cpu_release(rd_device *d, rd_view *v)
{
    if (v->data) d->bytes -= (size_t)v->rows * (size_t)v->cols * sizeof *v->data;
    free(v->data);
    *v = (rd_view){ 0 };
}

static rd_status cpu_upload(rd_device *d, rd_view to, const float *from, rd_error *err)
{
    (void)d, (void)err;
    memcpy(to.data, from, (size_t)to.rows * (size_t)to.cols * sizeof *from);
    return RD_OK;
}

static rd_status cpu_download(rd_device *d, float *to, rd_view from, rd_error *err)
{
    (void)d, (void)err;
    memcpy(to, from.data, (size_t)from.rows * (size_t)from.cols * sizeof *to);
    return RD_OK;
}

static rd_status cpu_kv_open(rd_device *d, const rd_kv_shape *s, rd_kv **out, rd_error *err)
{
    rd_kv *kv = rd_alloc0(sizeof *kv);
    size_t n;

    kv->shape = *s;
    if (!rd_mul((size_t)s->block_size, (size_t)s->head_dim, &kv->piece) ||
        !rd_mul(kv->piece, 2 * (size_t)s->kv_heads, &n) ||
        !rd_mul(n, (size_t)s->layers, &kv->floats) || !rd_mul(kv->floats, (size_t)s->blocks, &n) ||
        !rd_mul(n, sizeof(float), &n)) {
        free(kv);
        return rd_fail(err, RD_INVALID, "keys and values of %d blocks", s->blocks);
    }
    kv->data = rd_try_alloc(n);
    if (!kv->data) {
        free(kv);
        return no_memory(err, "keys and values", n);
    }
    d->bytes += n;
    *out = kv;
    return RD_OK;
}

static void cpu_kv_close(rd_device *d, rd_kv *kv)
{
    if (!kv) return;
    d->bytes -= kv->floats * sizeof(float) * (size_t)kv->shape.blocks;
    free(kv->data);
    free(kv);
}

static size_t cpu_kv_block_bytes(rd_device *d, const rd_kv *kv)
{
    (void)d;
    return kv->floats * sizeof(float);
}

/* The keys of a head; its values stand `kv_heads` pieces behind. */
static float *keys_at(const rd_kv *kv, int block, int layer, int head)
{
    const rd_kv_shape *s = &kv->shape;

    return kv->data + (size_t)block * kv->floats +
           (2 * (size_t)layer * (size_t)s->kv_heads + (size_t)head) * kv->piece;
}

static float *values_at(const rd_kv *kv, int block, int layer, int head)
{
    return keys_at(kv, block, layer, head) + (size_t)kv->shape.kv_heads * kv->piece;
}

/* to[c][r] = from[r][c] */
static void transpose(float *to, const float *from, int rows, int cols)
{
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < cols; c++)
            to[(size_t)c * (size_t)rows + (size_t)r] = from[(size_t)r * (size_t)cols + (size_t)c];
}

static rd_status check_block(const rd_kv *kv, int block, rd_error *err)
{
    if (block >= 0 && block < kv->shape.blocks) return RD_OK;
    return rd_fail(err, RD_INVALID, "block %d of %d", block, kv->shape.blocks);
}

static rd_status cpu_kv_read(rd_device *d, const rd_kv *kv, int block, void *to, rd_error *err)
{
    const rd_kv_shape *s = &kv->shape;
    size_t values = (size_t)s->kv_heads * kv->piece;
    float *out = to;

    (void)d;
    if (check_block(kv, block, err)) return RD_INVALID;
    for (int l = 0; l < s->layers; l++, out += values) {
        for (int h = 0; h < s->kv_heads; h++, out += kv->piece)
            transpose(out, keys_at(kv, block, l, h), s->head_dim, s->block_size);
        memcpy(out, values_at(kv, block, l, 0), values * sizeof *out);
    }
    return RD_OK;
}

static rd_status cpu_kv_write(rd_device *d, rd_kv *kv, int block, const void *from, rd_error *err)
{
    const rd_kv_shape *s = &kv->shape;
    size_t values = (size_t)s->kv_heads * kv->piece;
    const float *in = from;

    (void)d;
    if (check_block(kv, block, err)) return RD_INVALID;
    for (int l = 0; l < s->layers; l++, in += values) {
        for (int h = 0; h < s->kv_heads; h++, in += kv->piece)
            transpose(keys_at(kv, block, l, h), in, s->block_size, s->head_dim);
        memcpy(values_at(kv, block, l, 0), in, values * sizeof *in);
    }
    return RD_OK;
}

static void *cpu_kv_host(rd_device *d, rd_kv *kv, int block)
{
    (void)d;
    return kv->data + (size_t)block * kv->floats;
}

/* ---- verbs ---- */

static rd_status cpu_begin(rd_device *d, int rows, rd_error *err)
{
    (void)rows, (void)err;
    rd_cpu_pool_hot(d->pool, true);
    return RD_OK;
}

static rd_status cpu_end(rd_device *d, rd_error *err)
{
    (void)err;
    rd_cpu_pool_hot(d->pool, false);
    return RD_OK;
}

static rd_status cpu_embed(rd_device *d, rd_view out, const rd_weight *table, const int32_t *tokens,
                           rd_error *err)
{
    (void)d;
    for (int r = 0; r < out.rows; r++) {
        float *to = out.data + (size_t)r * (size_t)out.cols;

        if (tokens[r] < 0 || tokens[r] >= table->rows)
            return rd_fail(err, RD_INVALID, "token %d of a vocabulary of %d", tokens[r],
                           table->rows);
        for (int k = 0; k < out.cols; k++) to[k] = cell(table, tokens[r], k);
    }
    return RD_OK;
}

static rd_status cpu_norm(rd_device *d, rd_view out, rd_view x, const rd_weight *weight, float eps,
                          rd_error *err)
{
    (void)err;
    for (int r = 0; r < x.rows; r++)
        d->kernels->norm(out.data + (size_t)r * (size_t)out.cols,
                         x.data + (size_t)r * (size_t)x.cols, weight->data, x.cols, eps);
    return RD_OK;
}

static rd_status cpu_add(rd_device *d, rd_view x, rd_view y, rd_error *err)
{
    size_t n = (size_t)x.rows * (size_t)x.cols;

    (void)d, (void)err;
    for (size_t i = 0; i < n; i++) x.data[i] += y.data[i];
    return RD_OK;
}

static int panels_of(const rd_weight *w)
{
    return (w->rows + RD_PANEL - 1) / RD_PANEL;
}

static bool wants_half(const rd_device *d, const rd_weight *w)
{
    return d->kernels->half && w->kind == RD_PANELS_BF16;
}

static void to_half(uint16_t *to, size_t stride, const float *x, int cols)
{
    for (int k = 0; k < cols; k++) to[k] = rd_f32_to_bf16(x[k]);
    if ((size_t)cols < stride) to[cols] = 0;
}

/* Rows as the weight wants them: as they are, or rounded into `half`. */
static rd_status rows_in(rd_device *d, rd_view x, const rd_weight *w, rd_rows_in *out,
                         rd_error *err)
{
    size_t stride = ((size_t)x.cols + 1) / 2 * 2;

    *out = (rd_rows_in){ .x = x.data, .stride = (size_t)x.cols, .rows = x.rows };
    if (!wants_half(d, w)) return RD_OK;
    if (room(&d->half, &d->half_n, stride * (size_t)x.rows, sizeof *d->half, "activations", err))
        return RD_NO_MEMORY;
    for (int r = 0; r < x.rows; r++)
        to_half(d->half + (size_t)r * stride, stride, x.data + (size_t)r * (size_t)x.cols, x.cols);
    out->x = d->half;
    out->stride = stride;
    return RD_OK;
}

typedef struct product_job {
    const rd_kernels *kernels;
    rd_view out;
    const rd_weight *w;
    rd_rows_in x;
    int panels; /* in one piece */
} product_job;

static void product_piece(void *user, int piece, int thread)
{
    product_job *j = user;
    int from = piece * j->panels, to = from + j->panels, all = panels_of(j->w);

    (void)thread;
    j->kernels->product(j->out.data + from * RD_PANEL, (size_t)j->out.cols, &j->x, j->w, from,
                        to < all ? to : all);
}

static rd_status cpu_linear(rd_device *d, rd_view out, rd_view x, const rd_weight *w, rd_error *err)
{
    product_job j = { .kernels = d->kernels, .out = out, .w = w };
    int panels = panels_of(w), threads = rd_cpu_pool_threads(d->pool);

    if (rows_in(d, x, w, &j.x, err)) return RD_NO_MEMORY;
    j.panels = (panels + 2 * threads - 1) / (2 * threads);
    j.panels += j.panels & 1;
    rd_cpu_pool_run(d->pool, (panels + j.panels - 1) / j.panels, product_piece, &j);
    return RD_OK;
}

/* ---- attention ---- */

typedef struct attention_job {
    rd_device *d;
    const rd_attention *a;
    rd_view out, qkv;
    float *own_k, *own_v; /* [tile][kv_head] pieces */
    int tile, own_tiles, chunks;
    int trunk;    /* rows that are no branch */
    int branches; /* groups of `tile` rows behind them */
} attention_job;

/* The row behind the last that sees what row `start` sees. */
static int border_of(const attention_job *j, int start)
{
    const rd_attention *a = j->a;
    int end = start >= j->trunk    ? (start / j->tile + 1) * j->tile
              : a->sight < a->rows ? (start / a->sight + 1) * a->sight
                                   : a->rows;
    int most = start >= j->trunk ? a->rows : j->trunk;

    return end < most ? end : most;
}

static void turn(float *x, const float *angle, int rotary)
{
    int half = rotary / 2;

    for (int i = 0; i < half; i++) {
        float c = angle[2 * i], s = angle[2 * i + 1], a = x[i], b = x[i + half];

        x[i] = a * c - b * s;
        x[i + half] = b * c + a * s;
    }
}

/* Norm and turn the row's queries and keys; lay its keys and values into its tile. */
static void prepare_row(void *user, int r, int thread)
{
    attention_job *j = user;
    const rd_attention *a = j->a;
    size_t dim = (size_t)a->head_dim, piece = dim * (size_t)j->tile;
    float *row = j->qkv.data + (size_t)r * (size_t)j->qkv.cols;
    float angle[512];

    (void)thread;
    for (int i = 0; i < a->rotary_dim / 2; i++) {
        float f = (float)pow(a->theta, -2.0 * i / a->rotary_dim);
        float by = (float)a->positions[r] * f;

        angle[2 * i] = cosf(by);
        angle[2 * i + 1] = sinf(by);
    }
    for (int h = 0; h < a->heads + a->kv_heads; h++) {
        const rd_weight *w = h < a->heads ? a->q_norm : a->k_norm;

        j->d->kernels->norm(row + (size_t)h * dim, row + (size_t)h * dim, w->data, a->head_dim,
                            a->eps);
        turn(row + (size_t)h * dim, angle, a->rotary_dim);
    }
    for (int h = 0; h < a->kv_heads; h++) {
        size_t at = ((size_t)(r / j->tile) * (size_t)a->kv_heads + (size_t)h) * piece;
        const float *k = row + (size_t)(a->heads + h) * dim, *v = k + (size_t)a->kv_heads * dim;

        for (size_t i = 0; i < dim; i++)
            j->own_k[at + i * (size_t)j->tile + (size_t)(r % j->tile)] = k[i];
        memcpy(j->own_v + at + (size_t)(r % j->tile) * dim, v, dim * sizeof *v);
    }
}

/* Chunks of rows that see the same; the number of `chunk`'s first row, or that of all rows. */
static int chunk_start(const attention_job *j, int chunk)
{
    int start = 0;

    for (int c = 0; c < chunk && start < j->a->rows; c++) {
        int end = start + RD_QUERY_ROWS, border = border_of(j, start);

        start = end < border ? end : border;
    }
    return start;
}

/* One head, one chunk. */
static void attend_piece(void *user, int i, int thread)
{
    attention_job *j = user;
    const rd_attention *a = j->a;
    int head = i / j->chunks, start = chunk_start(j, i % j->chunks);
    int end = chunk_start(j, i % j->chunks + 1), kv_head = head / (a->heads / a->kv_heads);
    int trunk_tiles = (j->trunk + j->tile - 1) / j->tile, tiles = a->past_blocks + trunk_tiles;
    size_t dim = (size_t)a->head_dim, lists = (size_t)tiles * (size_t)kv_head;
    rd_tiles t = { .tile = j->tile, .head_dim = a->head_dim };

    if (start >= end) return;
    if (start >= j->trunk) {
        int branch = (start - j->trunk) / j->tile;

        t.tiles = tiles + 1;
        t.last = a->branches.counts[branch];
        lists = (size_t)tiles * (size_t)a->kv_heads +
                (size_t)(tiles + 1) * ((size_t)kv_head * (size_t)j->branches + (size_t)branch);
    } else {
        int seen = border_of(j, start);

        if (a->visible > 0 && seen > a->visible) seen = a->visible;
        int own = (seen + j->tile - 1) / j->tile;

        t.tiles = a->past_blocks + own;
        t.last = seen - (own - 1) * j->tile;
    }
    t.k = j->d->tile_k + lists;
    t.v = j->d->tile_v + lists;
    j->d->kernels->attend(j->out.data + (size_t)start * (size_t)j->out.cols + (size_t)head * dim,
                          (size_t)j->out.cols,
                          j->qkv.data + (size_t)start * (size_t)j->qkv.cols + (size_t)head * dim,
                          (size_t)j->qkv.cols, end - start, &t, j->d->scores[thread]);
}

/* The tiles that a trunk row of `kv_head` may see: the past, then the pass's own. */
static void list_tile(const attention_job *j, int kv_head, int b, size_t at)
{
    const rd_attention *a = j->a;
    const rd_kv *kv = a->kv;
    size_t own = ((size_t)(b - a->past_blocks) * (size_t)a->kv_heads + (size_t)kv_head) * kv->piece;
    bool past = b < a->past_blocks;

    j->d->tile_k[at] = past ? keys_at(kv, a->past[b], a->layer, kv_head) : j->own_k + own;
    j->d->tile_v[at] = past ? values_at(kv, a->past[b], a->layer, kv_head) : j->own_v + own;
}

/* Lists for each head: one for the trunk, one for each branch. */
static void list_tiles(const attention_job *j)
{
    const rd_attention *a = j->a;
    int tiles = a->past_blocks + (j->trunk + j->tile - 1) / j->tile;
    size_t at = 0;

    for (int h = 0; h < a->kv_heads; h++)
        for (int b = 0; b < tiles; b++) list_tile(j, h, b, at++);
    for (int h = 0; h < a->kv_heads; h++) {
        for (int branch = 0; branch < j->branches; branch++) {
            for (int b = 0; b < tiles; b++) list_tile(j, h, b, at++);
            list_tile(j, h, tiles + branch, at++);
        }
    }
}

static rd_status cpu_attention(rd_device *d, rd_view out, rd_view qkv, const rd_attention *a,
                               rd_error *err)
{
    attention_job j = { .d = d, .a = a, .out = out, .qkv = qkv };
    rd_kv *kv = a->kv;
    size_t all, need;

    j.tile = kv->shape.block_size;
    j.own_tiles = (a->rows + j.tile - 1) / j.tile;
    j.trunk = a->branches.counts ? a->branches.first : a->rows;
    j.branches = (a->rows - j.trunk + j.tile - 1) / j.tile;
    while (chunk_start(&j, j.chunks) < a->rows) j.chunks++;
    if (a->rotary_dim > 512) return rd_fail(err, RD_INVALID, "rotary_dim %d", a->rotary_dim);
    all = (size_t)(a->past_blocks + j.own_tiles);
    need = (size_t)j.own_tiles * (size_t)a->kv_heads * kv->piece;
    if (room(&d->own, &d->own_n, 2 * need, sizeof *d->own, "keys", err) ||
        room_each(d, d->scores, &d->scores_n, 4 * all * (size_t)j.tile, "scores", err))
        return RD_NO_MEMORY;
    size_t lists = all * (size_t)a->kv_heads * (size_t)(1 + j.branches);

    if (lists > d->tiles_n) {
        size_t m = d->tiles_n;

        if (room(&d->tile_k, &m, lists, sizeof *d->tile_k, "tiles", err) ||
            room(&d->tile_v, &d->tiles_n, lists, sizeof *d->tile_v, "tiles", err))
            return RD_NO_MEMORY;
    }
    j.own_k = d->own;
    j.own_v = d->own + need;
    memset(d->own, 0, 2 * need * sizeof *d->own); /* a short last tile has no garbage */
    rd_cpu_pool_run(d->pool, a->rows, prepare_row, &j);
    list_tiles(&j);
    rd_cpu_pool_run(d->pool, a->heads * j.chunks, attend_piece, &j);
    for (int b = 0; a->keep && b < j.own_tiles; b++) {
        size_t from = (size_t)b * (size_t)a->kv_heads * kv->piece,
               n = (size_t)a->kv_heads * kv->piece;

        if (a->keep[b] < 0) continue;
        memcpy(keys_at(kv, a->keep[b], a->layer, 0), j.own_k + from, n * sizeof(float));
        memcpy(values_at(kv, a->keep[b], a->layer, 0), j.own_v + from, n * sizeof(float));
    }
    return RD_OK;
}

/* ---- mlp and experts ---- */

/* One MLP over some rows: inner rows in h and up, each [rows, width]. */
typedef struct mlp_job {
    const rd_mlp *m;
    rd_rows_in x;
    float *h, *up, *out;
    uint16_t *half; /* inner rows rounded, where down wants that */
    size_t out_stride;
} mlp_job;

static void mlp_rows(const rd_device *d, const mlp_job *j)
{
    int width = j->m->gate->rows, rows = j->x.rows;
    size_t stride = ((size_t)width + 1) / 2 * 2;
    rd_rows_in inner = { .x = j->h, .stride = (size_t)width, .rows = rows };

    d->kernels->product(j->h, (size_t)width, &j->x, j->m->gate, 0, panels_of(j->m->gate));
    d->kernels->product(j->up, (size_t)width, &j->x, j->m->up, 0, panels_of(j->m->up));
    d->kernels->gate(j->h, j->up, rows * width);
    if (wants_half(d, j->m->down)) {
        for (int r = 0; r < rows; r++)
            to_half(j->half + (size_t)r * stride, stride, j->h + (size_t)r * (size_t)width, width);
        inner.x = j->half;
        inner.stride = stride;
    }
    d->kernels->product(j->out, j->out_stride, &inner, j->m->down, 0, panels_of(j->m->down));
}

typedef struct mlp_list {
    const rd_device *d;
    mlp_job *job;
} mlp_list;

static void mlp_piece(void *user, int i, int thread)
{
    mlp_list *l = user;

    (void)thread;
    mlp_rows(l->d, &l->job[i]);
}

/* Floats of scratch that `rows` rows of an inner width need: h, up and the rounded h. */
static size_t inner_room(int rows, int width)
{
    return (size_t)rows * ((size_t)width * 3 + 2);
}

static void place_job(mlp_job *j, float *work)
{
    size_t n = (size_t)j->x.rows * (size_t)j->m->gate->rows;

    j->h = work;
    j->up = work + n;
    j->half = (uint16_t *)(void *)(work + 2 * n);
}

enum { JOB_ROWS = 16 };

/* Rows [0, x.rows) of a dense MLP as jobs of JOB_ROWS rows; appended to `job` from n on. */
static int split_dense(mlp_job *job, int n, const rd_mlp *m, const rd_rows_in *x, rd_view out,
                       int rows_each, float **work)
{
    for (int r = 0; r < x->rows; r += rows_each, n++) {
        int rows = x->rows - r < rows_each ? x->rows - r : rows_each;
        job[n] = (mlp_job){ .m = m,
                            .x = *x,
                            .out = out.data + (size_t)r * (size_t)out.cols,
                            .out_stride = (size_t)out.cols };
        job[n].x.rows = rows;
        place_job(&job[n], *work);
        *work += inner_room(rows, m->gate->rows);
    }
    return n;
}

static const void *row_at(const rd_device *d, const rd_rows_in *x, const rd_weight *w, int r)
{
    size_t at = (size_t)r * x->stride;

    return wants_half(d, w) ? (const void *)((const uint16_t *)x->x + at)
                            : (const void *)((const float *)x->x + at);
}

static rd_status cpu_mlp(rd_device *d, rd_view out, rd_view x, const rd_mlp *m, rd_error *err)
{
    rd_rows_in in;
    int threads = rd_cpu_pool_threads(d->pool);
    int each = (x.rows + threads - 1) / threads;
    mlp_job *job;
    float *work;

    if (each > 64) each = 64;
    if (each < 1) each = 1;
    if (rows_in(d, x, m->gate, &in, err) ||
        room(&d->work, &d->work_n, inner_room(x.rows, m->gate->rows), sizeof *d->work, "inner rows",
             err))
        return RD_NO_MEMORY;
    int jobs = (x.rows + each - 1) / each;

    job = rd_alloc_array((size_t)jobs + 1, sizeof *job);
    work = d->work;
    split_dense(job, 0, m, &in, out, each, &work);
    for (int i = 0; i < jobs; i++) job[i].x.x = row_at(d, &in, m->gate, i * each);
    rd_cpu_pool_run(d->pool, jobs, mlp_piece, &(mlp_list){ d, job });
    free(job);
    return RD_OK;
}

/* Scores of one row to its experts. `admitted` marks those of the run, or is NULL. */
static void choose_experts(const rd_moe *m, const float *score, const float *biased,
                           const bool *admitted, int *chosen, float *weight)
{
    bool open[4096], group_open[4096];
    int per_group = m->n_group > 0 ? m->n_experts / m->n_group : m->n_experts;
    float sum = 0.0f;

    for (int e = 0; e < m->n_experts; e++) open[e] = !admitted || admitted[e];
    if (!admitted && m->n_group > 1) {
        float group[4096];

        for (int g = 0; g < m->n_group; g++) {
            float best = -INFINITY, next = -INFINITY;

            for (int e = g * per_group; e < (g + 1) * per_group; e++) {
                if (biased[e] > best) {
                    next = best;
                    best = biased[e];
                } else if (biased[e] > next) {
                    next = biased[e];
                }
            }
            group[g] = per_group > 1 ? best + next : best;
            group_open[g] = false;
        }
        for (int k = 0; k < m->topk_group; k++) {
            int best = -1;

            for (int g = 0; g < m->n_group; g++)
                if (!group_open[g] && (best < 0 || group[g] > group[best])) best = g;
            if (best >= 0) group_open[best] = true;
        }
        for (int e = 0; e < m->n_experts; e++) open[e] = group_open[e / per_group];
    }
    for (int k = 0; k < m->top_k; k++) {
        int best = -1;

        for (int e = 0; e < m->n_experts; e++)
            if (open[e] && (best < 0 || biased[e] > biased[best])) best = e;
        /* Fewer experts are open than asked for: the closed ones follow in order. */
        for (int e = 0; best < 0 && e < m->n_experts; e++) {
            bool taken = false;

            for (int i = 0; i < k; i++) taken |= chosen[i] == e;
            if (!taken) best = e;
        }
        chosen[k] = best;
        open[best] = false;
        sum += score[best];
    }
    for (int k = 0; k < m->top_k; k++) {
        float w = score[chosen[k]];

        if (m->top_k > 1) w /= sum + 1e-20f;
        weight[k] = w * m->scaling;
    }
}

/* The `capacity` experts with the largest biased score over the rows of one run. */
static void admit(const rd_moe *m, const float *biased, int rows, bool *admitted)
{
    float top[4096];

    for (int e = 0; e < m->n_experts; e++) {
        top[e] = -INFINITY;
        for (int r = 0; r < rows; r++) {
            float b = biased[(size_t)r * (size_t)m->n_experts + (size_t)e];

            if (b > top[e]) top[e] = b;
        }
        admitted[e] = false;
    }
    for (int k = 0; k < m->capacity; k++) {
        int best = -1;

        for (int e = 0; e < m->n_experts; e++)
            if (!admitted[e] && (best < 0 || top[e] > top[best])) best = e;
        if (best < 0) return;
        admitted[best] = true;
    }
}

/* Rows from r on that take part in choosing their run's experts. */
static int run_of(const rd_moe *m, int r, int rows)
{
    int run = rows - r < m->window ? rows - r : m->window;

    if (!m->branches.counts || r < m->branches.first) return run;
    int at = r - m->branches.first;
    int left = m->branches.counts[at / m->branches.size] - at % m->branches.size;

    return left < 1 ? 1 : left < run ? left : run;
}

static void route(const rd_moe *m, float *logits, float *biased, int rows, int *chosen,
                  float *weight)
{
    const float *bias = m->bias->data;
    size_t n = (size_t)m->n_experts;
    bool admitted[4096];

    for (size_t i = 0; i < (size_t)rows * n; i++) {
        logits[i] = 1.0f / (1.0f + expf(-logits[i]));
        biased[i] = logits[i] + bias[i % n];
    }
    for (int r = 0; r < rows; r++) {
        if (m->capacity > 0 && r % m->window == 0)
            admit(m, biased + (size_t)r * n, run_of(m, r, rows), admitted);
        choose_experts(m, logits + (size_t)r * n, biased + (size_t)r * n,
                       m->capacity > 0 ? admitted : NULL, chosen + r * m->top_k,
                       weight + r * m->top_k);
    }
}

typedef struct sum_job {
    rd_view out;
    const float *expert_out; /* [rows * top_k, hidden], in the order of experts */
    const int *slot;         /* [rows * top_k]: where the row's k-th expert wrote */
    const float *weight;
    int top_k;
    bool shared; /* out holds the shared expert's rows already */
} sum_job;

static void sum_row(void *user, int r, int thread)
{
    sum_job *j = user;
    float *to = j->out.data + (size_t)r * (size_t)j->out.cols;
    int last = -1;

    (void)thread;
    if (!j->shared) memset(to, 0, (size_t)j->out.cols * sizeof *to);
    /* Ascending slots are ascending experts: one order, whatever the router's was. */
    for (int n = 0; n < j->top_k; n++) {
        int best = -1;

        for (int k = 0; k < j->top_k; k++) {
            int s = j->slot[r * j->top_k + k];

            if (s > last && (best < 0 || s < j->slot[r * j->top_k + best])) best = k;
        }
        last = j->slot[r * j->top_k + best];
        const float *from = j->expert_out + (size_t)last * (size_t)j->out.cols;
        float w = j->weight[r * j->top_k + best];

        for (int c = 0; c < j->out.cols; c++) to[c] += w * from[c];
    }
}

static rd_status cpu_moe(rd_device *d, rd_view out, rd_view x, const rd_moe *m, rd_error *err)
{
    int rows = x.rows, picks = rows * m->top_k, jobs = 0;
    int width = m->experts[0].gate->rows, shared_width = m->shared.gate ? m->shared.gate->rows : 0;
    size_t scores = (size_t)rows * (size_t)m->n_experts;
    size_t need = 2 * scores + (size_t)picks * (size_t)(out.cols + 1) + inner_room(picks, width) +
                  inner_room(rows, shared_width) + 64;
    int *chosen, *slot, *index, *start;
    rd_rows_in in;

    if (m->n_experts > 4096 || m->top_k > m->n_experts)
        return rd_fail(err, RD_INVALID, "%d experts, %d a token", m->n_experts, m->top_k);
    if (room(&d->work, &d->work_n, need, sizeof *d->work, "experts", err) ||
        room(&d->route, &d->route_n, 3 * (size_t)picks + (size_t)m->n_experts + 1, sizeof *d->route,
             "routes", err))
        return RD_NO_MEMORY;
    chosen = d->route;
    slot = chosen + picks;
    index = slot + picks;
    start = index + picks;
    float *logits = d->work, *biased = logits + scores, *weight = biased + scores;
    float *expert_out = weight + picks, *work = expert_out + (size_t)picks * (size_t)out.cols;

    if (cpu_linear(d, (rd_view){ logits, rows, m->n_experts }, x, m->router, err))
        return RD_NO_MEMORY;
    if (m->logits_out) memcpy(m->logits_out, logits, scores * sizeof *logits);
    route(m, logits, biased, rows, chosen, weight);
    for (int i = 0; i < picks; i++) {
        if (m->chosen_out) m->chosen_out[i] = chosen[i];
        if (m->weight_out) m->weight_out[i] = weight[i];
    }
    /* Sort by expert, so that each expert's weights are read once for all its rows. */
    memset(start, 0, ((size_t)m->n_experts + 1) * sizeof *start);
    for (int i = 0; i < picks; i++) start[chosen[i] + 1]++;
    for (int e = 0; e < m->n_experts; e++) start[e + 1] += start[e];
    for (int e = 0, at = 0; e < m->n_experts; e++)
        for (int i = 0; at < start[e + 1] && i < picks; i++)
            if (chosen[i] == e) {
                index[at] = i / m->top_k;
                slot[i] = at++;
            }
    if (rows_in(d, x, m->experts[0].gate, &in, err)) return RD_NO_MEMORY;
    int most = m->n_experts + picks / 64 + 2 * (rows / JOB_ROWS + 1);
    mlp_job *job = rd_alloc_array((size_t)most + 1, sizeof *job);

    if (m->shared.gate) {
        int first = jobs;

        jobs = split_dense(job, jobs, &m->shared, &in, out, JOB_ROWS, &work);
        for (int i = first; i < jobs; i++)
            job[i].x.x = row_at(d, &in, m->shared.gate, (i - first) * JOB_ROWS);
    }
    for (int e = 0; e < m->n_experts; e++) {
        for (int from = start[e]; from < start[e + 1]; from += 64) {
            int n = start[e + 1] - from < 64 ? start[e + 1] - from : 64;

            job[jobs] = (mlp_job){ .m = &m->experts[e],
                                   .x = in,
                                   .out = expert_out + (size_t)from * (size_t)out.cols,
                                   .out_stride = (size_t)out.cols };
            job[jobs].x.index = index + from;
            job[jobs].x.rows = n;
            place_job(&job[jobs], work);
            work += inner_room(n, width);
            jobs++;
        }
    }
    rd_cpu_pool_run(d->pool, jobs, mlp_piece, &(mlp_list){ d, job });
    free(job);
    rd_cpu_pool_run(d->pool, rows, sum_row,
                    &(sum_job){ out, expert_out, slot, weight, m->top_k, m->shared.gate != NULL });
    return RD_OK;
}

/* ---- pick ---- */

typedef struct pick_job {
    rd_device *d;
    const rd_weight *head;
    const rd_pick_query *q;
    rd_rows_in x;
    int chunks;
} pick_job;

static bool is_banned(const rd_pick_query *q, int32_t id)
{
    int low = 0, high = q->n_banned;

    if (q->limit > 0 && id >= q->limit) return true;
    while (low < high) {
        int mid = (low + high) / 2;

        if (q->banned[mid] < id)
            low = mid + 1;
        else
            high = mid;
    }
    return low < q->n_banned && q->banned[low] == id;
}

static void ban(const rd_pick_query *q, float *logits, int first, int n)
{
    for (int i = 0; i < q->n_banned; i++)
        if (q->banned[i] >= first && q->banned[i] < first + n)
            logits[q->banned[i] - first] = -INFINITY;
    for (int i = q->limit > first ? q->limit - first : 0; q->limit > 0 && i < n; i++)
        logits[i] = -INFINITY;
}

static void look(const rd_kernels *kernels, part *p, const float *logits, int first, int n)
{
    *p = (part){
        .best = -1, .second = -1, .top = -INFINITY, .second_top = -INFINITY, .watched = -INFINITY
    };
    for (int i = 0; i < n; i++) {
        if (logits[i] > p->top) {
            p->second = p->best;
            p->second_top = p->top;
            p->best = first + i;
            p->top = logits[i];
        } else if (logits[i] > p->second_top) {
            p->second = first + i;
            p->second_top = logits[i];
        }
    }
    if (p->best >= 0) p->sum = kernels->sum_exp(logits, n, p->top);
}

static void pick_piece(void *user, int chunk, int thread)
{
    pick_job *j = user;
    int all = panels_of(j->head), from = chunk * PICK_PANELS;
    int to = from + PICK_PANELS < all ? from + PICK_PANELS : all;
    int first = from * RD_PANEL,
        end = to * RD_PANEL < j->head->rows ? to * RD_PANEL : j->head->rows;
    int ld = PICK_PANELS * RD_PANEL;
    float *logits = j->d->logits[thread];

    j->d->kernels->product(logits, (size_t)ld, &j->x, j->head, from, to);
    for (int r = 0; r < j->x.rows; r++) {
        float *row = logits + (size_t)r * (size_t)ld;
        part *p = &j->d->parts[(size_t)r * (size_t)j->chunks + (size_t)chunk];
        int32_t watched = j->q->watched ? j->q->watched[r] : -1;
        float seen = watched >= first && watched < end ? row[watched - first] : -INFINITY;

        ban(j->q, row, first, end - first);
        look(j->d->kernels, p, row, first, end - first);
        p->watched = seen;
    }
}

static void gather_parts(const part *p, int n, rd_pick *out, bool watched_banned)
{
    float top = -INFINITY, second = -INFINITY, watched = -INFINITY, sum = 0.0f;

    *out = (rd_pick){ .token = -1, .second = -1 };
    for (int c = 0; c < n; c++) {
        if (p[c].top > top) {
            if (top > p[c].second_top) {
                second = top;
                out->second = out->token;
            } else {
                second = p[c].second_top;
                out->second = p[c].second;
            }
            top = p[c].top;
            out->token = p[c].best;
        } else if (p[c].top > second) {
            second = p[c].top;
            out->second = p[c].best;
        }
        if (p[c].watched > watched) watched = p[c].watched;
    }
    if (out->token < 0) return;
    for (int c = 0; c < n; c++)
        if (p[c].best >= 0) sum += p[c].sum * expf(p[c].top - top);
    out->prob = 1.0f / sum;
    if (out->second >= 0) out->second_prob = expf(second - top) / sum;
    if (!watched_banned && watched > -INFINITY) out->watched_prob = expf(watched - top) / sum;
}

static rd_status cpu_pick(rd_device *d, rd_view x, const rd_weight *head, const rd_pick_query *q,
                          rd_pick *out, rd_error *err)
{
    pick_job j = { .d = d, .head = head, .q = q };
    size_t ld = PICK_PANELS * RD_PANEL, rows = (size_t)q->n_rows;

    if (rows_in(d, x, head, &j.x, err)) return RD_NO_MEMORY;
    for (int i = 0; q->rows && i < q->n_rows; i++)
        if (q->rows[i] < 0 || q->rows[i] >= x.rows)
            return rd_fail(err, RD_INVALID, "pick of row %d of %d", q->rows[i], x.rows);
    if (q->n_rows > x.rows && !q->rows)
        return rd_fail(err, RD_INVALID, "pick of %d rows of %d", q->n_rows, x.rows);
    j.x.index = q->rows;
    j.x.rows = q->n_rows;
    j.chunks = (panels_of(head) + PICK_PANELS - 1) / PICK_PANELS;
    if (room(&d->parts, &d->parts_n, rows * (size_t)j.chunks, sizeof *d->parts, "picks", err) ||
        room_each(d, d->logits, &d->logits_n, rows * ld, "logits", err))
        return RD_NO_MEMORY;
    rd_cpu_pool_run(d->pool, j.chunks, pick_piece, &j);
    for (int r = 0; r < q->n_rows; r++)
        gather_parts(d->parts + (size_t)r * (size_t)j.chunks, j.chunks, &out[r],
                     q->watched && q->watched[r] >= 0 && is_banned(q, q->watched[r]));
    return RD_OK;
}

static rd_status cpu_gemm(rd_device *d, bool ta, bool tb, int m, int n, int k, const float *a,
                          int lda, const float *b, int ldb, float beta, float *c, int ldc,
                          rd_error *err)
{
    if (!d->gemm && rd_gemm_train_open(d->precision, &d->gemm, err)) return RD_DEVICE;
    return rd_gemm_train_run(d->gemm, ta, tb, m, n, k, a, lda, b, ldb, beta, c, ldc, err);
}

const rd_backend *rd_cpu_backend(void)
{
    static const rd_backend cpu = {
        .abi = RD_BACKEND_ABI,
        .size = sizeof(rd_backend),
        .name = "cpu",
        .open = cpu_open,
        .close = cpu_close,
        .describe = cpu_describe,
        .take = cpu_take,
        .drop = cpu_drop,
        .alloc = cpu_alloc,
        .release = cpu_release,
        .upload = cpu_upload,
        .download = cpu_download,
        .kv_open = cpu_kv_open,
        .kv_close = cpu_kv_close,
        .kv_block_bytes = cpu_kv_block_bytes,
        .kv_read = cpu_kv_read,
        .kv_write = cpu_kv_write,
        .kv_layout = "float32, keys [dim][token]",
        .kv_host = cpu_kv_host,
        .begin = cpu_begin,
        .end = cpu_end,
        .embed = cpu_embed,
        .norm = cpu_norm,
        .linear = cpu_linear,
        .attention = cpu_attention,
        .mlp = cpu_mlp,
        .moe = cpu_moe,
        .add = cpu_add,
        .pick = cpu_pick,
        .gemm = cpu_gemm,
        .ceilings = rd_cpu_ceilings,
    };
    return &cpu;
}
