/* attention.c - keys and values of finished blocks, and attention over them and the rows of the pass.
 *
 * A block's keys and values of all layers stand in one piece. A piece of work is one head over rows that see the
 * same.
 */
#include "plugins/cpu/device.h"

#include "core/base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct rd_kv {
    rd_kv_shape shape;
    /* [block][layer] of the heads' keys and their values, as rd_tiles wants them */
    char *data;
    bool half;      /* bf16 in pairs, not float32 */
    size_t numbers; /* of a block */
    size_t piece;   /* numbers of one head's keys of one block */
};

static size_t bytes_each(const rd_kv *kv)
{
    return kv->half ? sizeof(uint16_t) : sizeof(float);
}

static char *keys_at(const rd_kv *kv, int block, int layer, int head)
{
    const rd_kv_shape *s = &kv->shape;

    return kv->data + ((size_t)block * kv->numbers +
                       (2 * (size_t)layer * (size_t)s->kv_heads + (size_t)head) * kv->piece) *
                          bytes_each(kv);
}

static char *values_at(const rd_kv *kv, int block, int layer, int head)
{
    return keys_at(kv, block, layer, head) +
           (size_t)kv->shape.kv_heads * kv->piece * bytes_each(kv);
}

rd_status rd_cpu_kv_open(rd_device *d, const rd_kv_shape *s, rd_kv **out, rd_error *err)
{
    rd_kv *kv = rd_alloc0(sizeof *kv);
    size_t n;

    kv->shape = *s;
    kv->half = d->kernels->half && d->precision == RD_FAST && !s->exact &&
               rd_attend_bf16_fits(s->block_size, s->head_dim);
    if (!rd_mul((size_t)s->block_size, (size_t)s->head_dim, &kv->piece) ||
        !rd_mul(kv->piece, 2 * (size_t)s->kv_heads, &n) ||
        !rd_mul(n, (size_t)s->layers, &kv->numbers) ||
        !rd_mul(kv->numbers, (size_t)s->blocks, &n) || !rd_mul(n, bytes_each(kv), &n)) {
        free(kv);
        return rd_fail(err, RD_INVALID, "keys and values of %d blocks", s->blocks);
    }
    kv->data = rd_try_alloc(n);
    if (!kv->data) {
        free(kv);
        return rd_cpu_no_memory(err, "keys and values", n);
    }
    d->bytes += n;
    *out = kv;
    return RD_OK;
}

void rd_cpu_kv_close(rd_device *d, rd_kv *kv)
{
    if (!kv) return;
    d->bytes -= kv->numbers * bytes_each(kv) * (size_t)kv->shape.blocks;
    free(kv->data);
    free(kv);
}

size_t rd_cpu_kv_block_bytes(rd_device *d, const rd_kv *kv)
{
    (void)d;
    return kv->numbers * bytes_each(kv);
}

/* to[c][r] = from[r][c] */
static void transpose(float *to, const float *from, int rows, int cols)
{
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < cols; c++)
            to[(size_t)c * (size_t)rows + (size_t)r] = from[(size_t)r * (size_t)cols + (size_t)c];
}

/* Where number `col` of row `row` stands, [rows][cols], when pairs of columns, or of rows, are neighbours. */
static size_t key_place(int rows, int row, int col)
{
    return ((size_t)col / 2 * (size_t)rows + (size_t)row) * 2 + (size_t)col % 2;
}

static size_t value_place(int cols, int row, int col)
{
    return ((size_t)row / 2 * (size_t)cols + (size_t)col) * 2 + (size_t)row % 2;
}

/* One head's bf16 keys and values of a block from rows, or (`back`) to rows: [block_size][head_dim]. */
static void turn_half(const rd_kv *kv, uint16_t *place, uint16_t *rows, bool values, bool back)
{
    int tokens = kv->shape.block_size, dim = kv->shape.head_dim;

    for (int t = 0; t < tokens; t++) {
        for (int i = 0; i < dim; i++, rows++) {
            size_t at = values ? value_place(dim, t, i) : key_place(tokens, t, i);

            if (back)
                *rows = place[at];
            else
                place[at] = *rows;
        }
    }
}

static void turn_block(const rd_kv *kv, int block, uint16_t *rows, bool back)
{
    const rd_kv_shape *s = &kv->shape;

    for (int l = 0; l < s->layers; l++)
        for (int h = 0; h < 2 * s->kv_heads; h++, rows += kv->piece)
            turn_half(kv, (uint16_t *)(void *)keys_at(kv, block, l, h), rows, h >= s->kv_heads,
                      back);
}

static rd_status check_block(const rd_kv *kv, int block, rd_error *err)
{
    if (block >= 0 && block < kv->shape.blocks) return RD_OK;
    return rd_fail(err, RD_INVALID, "block %d of %d", block, kv->shape.blocks);
}

rd_status rd_cpu_kv_read(rd_device *d, const rd_kv *kv, int block, void *to, rd_error *err)
{
    const rd_kv_shape *s = &kv->shape;
    size_t values = (size_t)s->kv_heads * kv->piece;
    float *out = to;

    (void)d;
    if (check_block(kv, block, err)) return RD_INVALID;
    if (kv->half) {
        turn_block(kv, block, to, true);
        return RD_OK;
    }
    for (int l = 0; l < s->layers; l++, out += values) {
        for (int h = 0; h < s->kv_heads; h++, out += kv->piece)
            transpose(out, (float *)(void *)keys_at(kv, block, l, h), s->head_dim, s->block_size);
        memcpy(out, values_at(kv, block, l, 0), values * sizeof *out);
    }
    return RD_OK;
}

rd_status rd_cpu_kv_write(rd_device *d, rd_kv *kv, int block, const void *from, rd_error *err)
{
    const rd_kv_shape *s = &kv->shape;
    size_t values = (size_t)s->kv_heads * kv->piece;
    const float *in = from;

    (void)d;
    if (check_block(kv, block, err)) return RD_INVALID;
    if (kv->half) {
        turn_block(kv, block, (uint16_t *)(uintptr_t)from, false);
        return RD_OK;
    }
    for (int l = 0; l < s->layers; l++, in += values) {
        for (int h = 0; h < s->kv_heads; h++, in += kv->piece)
            transpose((float *)(void *)keys_at(kv, block, l, h), in, s->block_size, s->head_dim);
        memcpy(values_at(kv, block, l, 0), in, values * sizeof *in);
    }
    return RD_OK;
}

void *rd_cpu_kv_host(rd_device *d, rd_kv *kv, int block)
{
    (void)d;
    return kv->data + (size_t)block * kv->numbers * bytes_each(kv);
}

typedef struct attention_job {
    rd_device *d;
    const rd_attention *a;
    rd_view out, qkv;
    char *own_k, *own_v; /* [tile][kv_head] pieces */
    const float *angles; /* [rows][rotary_dim]: the pairs' cosines, then their sines */
    bool half;
    int heads; /* of one piece: all share keys and values */
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
        float c = angle[i], s = angle[half + i], a = x[i], b = x[i + half];

        x[i] = a * c - b * s;
        x[i + half] = b * c + a * s;
    }
}

/* The angles of the pass's positions: the same in each of its layers. */
static rd_status make_angles(rd_device *d, const rd_attention *a, rd_error *err)
{
    size_t half = (size_t)a->rotary_dim / 2, rows = (size_t)a->rows;
    rd_angles *g = &d->angles;

    if (g->rows == a->rows && g->rotary_dim == a->rotary_dim && g->theta == a->theta &&
        !memcmp(g->positions, a->positions, rows * sizeof *g->positions))
        return RD_OK;
    g->rows = 0;
    if (rd_cpu_room(&g->data, &g->data_n, rows * 2 * half, sizeof *g->data, "angles", err) ||
        rd_cpu_room(&g->positions, &g->positions_n, rows, sizeof *g->positions, "angles", err))
        return RD_NO_MEMORY;
    for (size_t i = 0; i < half; i++) {
        float f = (float)pow(a->theta, -2.0 * (double)i / a->rotary_dim);

        for (size_t r = 0; r < rows; r++) {
            float by = (float)a->positions[r] * f;

            g->data[2 * r * half + i] = cosf(by);
            g->data[2 * r * half + half + i] = sinf(by);
        }
    }
    memcpy(g->positions, a->positions, rows * sizeof *g->positions);
    g->rows = a->rows;
    g->rotary_dim = a->rotary_dim;
    g->theta = a->theta;
    return RD_OK;
}

/* One head of one tile: `rows` rows of keys and values, `stride` apart, that become a block's. */
typedef struct kept_tile {
    const float *k, *v;
    size_t stride;
    void *keys, *values;
    int rows, tile, dim;
} kept_tile;

static uint32_t two_halves(float low, float high)
{
    return (uint32_t)rd_f32_to_bf16(low) | (uint32_t)rd_f32_to_bf16(high) << 16;
}

/* key_place and value_place, two numbers at a time. A row that is missing is zero. */
static void keep_halves(const kept_tile *t)
{
    uint32_t *keys = t->keys, *values = t->values;

    for (int i = 0; i < t->dim / 2; i++)
        for (int r = 0; r < t->rows; r++) {
            const float *k = t->k + (size_t)r * t->stride + 2 * i;

            keys[(size_t)i * (size_t)t->tile + (size_t)r] = two_halves(k[0], k[1]);
        }
    for (int r = 0; r < t->rows; r += 2) {
        const float *v = t->v + (size_t)r * t->stride;
        uint32_t *to = values + (size_t)(r / 2) * (size_t)t->dim;

        if (r + 1 < t->rows)
            for (int i = 0; i < t->dim; i++) to[i] = two_halves(v[i], v[t->stride + (size_t)i]);
        else
            for (int i = 0; i < t->dim; i++) to[i] = two_halves(v[i], 0.0f);
    }
}

static void keep_floats(const kept_tile *t)
{
    float *keys = t->keys, *values = t->values;

    for (int r = 0; r < t->rows; r++) {
        const float *k = t->k + (size_t)r * t->stride;

        for (int i = 0; i < t->dim; i++) keys[(size_t)i * (size_t)t->tile + (size_t)r] = k[i];
        memcpy(values + (size_t)r * (size_t)t->dim, t->v + (size_t)r * t->stride,
               (size_t)t->dim * sizeof *values);
    }
}

/* Norm and turn the queries and keys of the heads that share one head of keys, in the rows of one tile; lay its keys and
 * values into the tile. Pieces share no line of memory that they write. */
static void prepare_piece(void *user, int piece, int thread)
{
    attention_job *j = user;
    const rd_attention *a = j->a;
    int tile = piece / a->kv_heads, head = piece % a->kv_heads, shared = a->heads / a->kv_heads;
    int from = tile * j->tile, to = from + j->tile < a->rows ? from + j->tile : a->rows;
    size_t dim = (size_t)a->head_dim, numbers = dim * (size_t)j->tile;
    size_t bytes = numbers * bytes_each(a->kv), stride = (size_t)j->qkv.cols;
    float *first = j->qkv.data + (size_t)from * stride;
    kept_tile t = { .k = first + (size_t)(a->heads + head) * dim,
                    .v = first + (size_t)(a->heads + a->kv_heads + head) * dim,
                    .stride = stride,
                    .keys = j->own_k + (size_t)piece * bytes,
                    .values = j->own_v + (size_t)piece * bytes,
                    .rows = to - from,
                    .tile = j->tile,
                    .dim = a->head_dim };

    (void)thread;
    for (int r = from; r < to; r++) {
        const float *angle = j->angles + (size_t)r * (size_t)(a->rotary_dim / 2) * 2;

        for (int h = 0; h <= shared; h++) {
            const rd_weight *w = h < shared ? a->q_norm : a->k_norm;
            float *x = j->qkv.data + (size_t)r * stride +
                       (size_t)(h < shared ? head * shared + h : a->heads + head) * dim;

            j->d->kernels->norm(x, x, w->data, a->head_dim, a->eps);
            turn(x, angle, a->rotary_dim);
        }
    }
    if (t.rows < t.tile) { /* a short tile has no garbage */
        memset(t.keys, 0, bytes);
        memset(t.values, 0, bytes);
    }
    if (j->half)
        keep_halves(&t);
    else
        keep_floats(&t);
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

enum { PIECES_EACH = 4 }; /* of attention, for each thread */

/* Heads of one piece: all that share keys and values, fewer where there would be too few pieces for the threads. */
static int heads_together(const attention_job *j)
{
    int shared = j->a->heads / j->a->kv_heads, n = shared;
    int wanted = PIECES_EACH * rd_cpu_pool_threads(j->d->pool);

    if (!j->half) return 1;
    while (n % 2 == 0 && j->a->heads / n * j->chunks < wanted) n /= 2;
    return n;
}

/* One head, or several that share keys and values; one chunk. */
static void attend_piece(void *user, int i, int thread)
{
    attention_job *j = user;
    const rd_attention *a = j->a;
    int head = i / j->chunks * j->heads, start = chunk_start(j, i % j->chunks);
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
    rd_queries q = { .q = j->qkv.data + (size_t)start * (size_t)j->qkv.cols + (size_t)head * dim,
                     .out = j->out.data + (size_t)start * (size_t)j->out.cols + (size_t)head * dim,
                     .stride = (size_t)j->qkv.cols,
                     .out_stride = (size_t)j->out.cols,
                     .rows = end - start,
                     .heads = j->heads };

    if (j->half)
        rd_attend_bf16(&q, &t, j->d->scores[thread]);
    else
        j->d->kernels->attend(q.out, q.out_stride, q.q, q.stride, q.rows, &t, j->d->scores[thread]);
}

/* The tiles that a trunk row of `kv_head` may see: the past, then the pass's own. */
static void list_tile(const attention_job *j, int kv_head, int b, size_t at)
{
    const rd_attention *a = j->a;
    const rd_kv *kv = a->kv;
    size_t own = ((size_t)(b - a->past_blocks) * (size_t)a->kv_heads + (size_t)kv_head) *
                 kv->piece * bytes_each(kv);
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

rd_status rd_cpu_attention(rd_device *d, rd_view out, rd_view qkv, const rd_attention *a,
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
    if (a->rotary_dim < 0 || a->rotary_dim > a->head_dim)
        return rd_fail(err, RD_INVALID, "rotary_dim %d", a->rotary_dim);
    j.half = kv->half;
    j.heads = heads_together(&j);
    all = (size_t)(a->past_blocks + j.own_tiles);
    need = (size_t)j.own_tiles * (size_t)a->kv_heads * kv->piece;
    size_t scores = j.half ? rd_attend_bf16_floats(RD_QUERY_ROWS, j.heads, a->head_dim)
                           : 4 * all * (size_t)j.tile;

    if (make_angles(d, a, err) ||
        rd_cpu_room(&d->own, &d->own_n, 2 * need, sizeof *d->own, "keys", err) ||
        rd_cpu_room_each(d, d->scores, &d->scores_n, scores, "scores", err))
        return RD_NO_MEMORY;
    size_t lists = all * (size_t)a->kv_heads * (size_t)(1 + j.branches);

    if (lists > d->tiles_n) {
        size_t m = d->tiles_n;

        if (rd_cpu_room(&d->tile_k, &m, lists, sizeof *d->tile_k, "tiles", err) ||
            rd_cpu_room(&d->tile_v, &d->tiles_n, lists, sizeof *d->tile_v, "tiles", err))
            return RD_NO_MEMORY;
    }
    j.angles = d->angles.data;
    j.own_k = (char *)d->own;
    j.own_v = j.own_k + need * sizeof *d->own;
    rd_cpu_pool_run(d->pool, j.own_tiles * a->kv_heads, prepare_piece, &j);
    list_tiles(&j);
    rd_cpu_pool_run(d->pool, a->heads / j.heads * j.chunks, attend_piece, &j);
    for (int b = 0; a->keep && b < j.own_tiles; b++) {
        size_t n = (size_t)a->kv_heads * kv->piece * bytes_each(kv), from = (size_t)b * n;

        if (a->keep[b] < 0) continue;
        memcpy(keys_at(kv, a->keep[b], a->layer, 0), j.own_k + from, n);
        memcpy(values_at(kv, a->keep[b], a->layer, 0), j.own_v + from, n);
    }
    return RD_OK;
}
