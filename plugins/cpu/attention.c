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
    /* [block][layer] of the heads' keys, [head_dim][block_size] each, and their values, [block_size][head_dim] */
    float *data;
    size_t floats; /* of a block */
    size_t piece;  /* floats of one head's keys of one block */
};

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

rd_status rd_cpu_kv_open(rd_device *d, const rd_kv_shape *s, rd_kv **out, rd_error *err)
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
        return rd_cpu_no_memory(err, "keys and values", n);
    }
    d->bytes += n;
    *out = kv;
    return RD_OK;
}

void rd_cpu_kv_close(rd_device *d, rd_kv *kv)
{
    if (!kv) return;
    d->bytes -= kv->floats * sizeof(float) * (size_t)kv->shape.blocks;
    free(kv->data);
    free(kv);
}

size_t rd_cpu_kv_block_bytes(rd_device *d, const rd_kv *kv)
{
    (void)d;
    return kv->floats * sizeof(float);
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

rd_status rd_cpu_kv_read(rd_device *d, const rd_kv *kv, int block, void *to, rd_error *err)
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

rd_status rd_cpu_kv_write(rd_device *d, rd_kv *kv, int block, const void *from, rd_error *err)
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

void *rd_cpu_kv_host(rd_device *d, rd_kv *kv, int block)
{
    (void)d;
    return kv->data + (size_t)block * kv->floats;
}

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
    if (a->rotary_dim > 512) return rd_fail(err, RD_INVALID, "rotary_dim %d", a->rotary_dim);
    all = (size_t)(a->past_blocks + j.own_tiles);
    need = (size_t)j.own_tiles * (size_t)a->kv_heads * kv->piece;
    if (rd_cpu_room(&d->own, &d->own_n, 2 * need, sizeof *d->own, "keys", err) ||
        rd_cpu_room_each(d, d->scores, &d->scores_n, 4 * all * (size_t)j.tile, "scores", err))
        return RD_NO_MEMORY;
    size_t lists = all * (size_t)a->kv_heads * (size_t)(1 + j.branches);

    if (lists > d->tiles_n) {
        size_t m = d->tiles_n;

        if (rd_cpu_room(&d->tile_k, &m, lists, sizeof *d->tile_k, "tiles", err) ||
            rd_cpu_room(&d->tile_v, &d->tiles_n, lists, sizeof *d->tile_v, "tiles", err))
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
