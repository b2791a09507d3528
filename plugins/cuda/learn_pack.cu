/* learn_pack.cu - what the host works out of a pack before the device sees it.
 *
 * Attention needs, for each tile of LEARN_TILE rows, the key tiles that some row of it sees, and the same the other way round;
 * an entry says whether each row sees the whole tile, for then nothing is masked. The head needs the labelled rows. The
 * embedding's gradient needs the rows of each token together: they are cut into segments of LEARN_SEGMENT rows, and
 * where a token has several, their partial sums are joined. All of it goes to the device in one copy from pinned memory; two
 * buffers take turns, so that the host prepares a pack while the one before is on its way.
 */
#include "plugins/cuda/learn.h"

#include <stdlib.h>
#include <string.h>

static size_t round_up(size_t n)
{
    return (n + 255) / 256 * 256;
}

static int tiles_of(int rows)
{
    return (rows + LEARN_TILE - 1) / LEARN_TILE;
}

int learn_token_parts(int rows)
{
    return 2 * rows / LEARN_SEGMENT + 1;
}

typedef struct pack_parts { /* offsets into the buffer */
    size_t row, list, see_start, see, seen_start, seen, order, segment, join, bytes;
} pack_parts;

static pack_parts parts_of(int rows, int labelled, size_t pairs, int segments, int joins)
{
    size_t n = (size_t)rows, tiles = (size_t)tiles_of(rows) + 1, at = 0;
    pack_parts p;

#define PART(name, count, type) \
    p.name = at;                \
    at += round_up((count) * sizeof(type))
    PART(row, n, rd_train_row);
    PART(list, (size_t)labelled, int);
    PART(see_start, tiles, int);
    PART(see, pairs, int);
    PART(seen_start, tiles, int);
    PART(seen, pairs, int);
    PART(order, n, int);
    PART(segment, (size_t)segments, learn_segment);
    PART(join, (size_t)joins, learn_join);
#undef PART
    p.bytes = at;
    return p;
}

size_t learn_pack_bytes(int rows)
{
    size_t tiles = (size_t)tiles_of(rows);

    return parts_of(rows, rows, tiles * tiles, rows, rows).bytes;
}

/* ---- checks: those of rd_net_run ---- */

static bool inside(int32_t start, int32_t end, int n)
{
    return end <= start || (start >= 0 && end <= n);
}

rd_status learn_pack_check(const rd_learner *l, const rd_train_row *row, int n, rd_error *err)
{
    if (n < 1 || n > l->room)
        return rd_fail(err, RD_INVALID, "a pack of %d rows; room is for 1 to %d", n, l->room);
    for (int i = 0; i < n; i++) {
        const rd_train_row *r = &row[i];
        bool sees = r->clean_end > r->clean_start || r->own_end > r->own_start;

        if (r->token < 0 || r->token >= l->vocab || r->label >= l->vocab || r->position < 0 ||
            r->task < 0 || r->task >= RD_TASKS || !sees ||
            !inside(r->clean_start, r->clean_end, n) || !inside(r->own_start, r->own_end, n))
            return rd_fail(err, RD_INVALID,
                           "row %d of a pack of %d: token %d, label %d, sight "
                           "%d-%d and %d-%d",
                           i, n, r->token, r->label, r->clean_start, r->clean_end, r->own_start,
                           r->own_end);
    }
    return RD_OK;
}

/* ---- tiles ---- */

/* Keys start .. end - 1 of a row: counted at each tile they lie in. */
static void mark(unsigned short *seen, int start, int end)
{
    for (int t = start / LEARN_TILE; start < end && t <= (end - 1) / LEARN_TILE; t++) {
        int from = t * LEARN_TILE, to = from + LEARN_TILE;

        if (start > from) from = start;
        if (end < to) to = end;
        seen[t] = (unsigned short)(seen[t] + (to - from));
    }
}

/* Both ranges; what they share counts once. */
static void mark_row(unsigned short *seen, const rd_train_row *r)
{
    int start = r->own_start, end = r->own_end;

    if (r->clean_end <= r->clean_start) {
        mark(seen, start, end);
        return;
    }
    mark(seen, r->clean_start, r->clean_end);
    mark(seen, start, end < r->clean_start ? end : r->clean_start);
    mark(seen, start > r->clean_end ? start : r->clean_end, end);
}

typedef struct tile_pair {
    int rows, keys;
} tile_pair;

/* Pairs of a tile of rows and a tile of keys, in order; returns how many. `pair.keys` carries LEARN_PARTLY. */
static size_t find_pairs(const rd_train_row *row, int n, tile_pair *pair)
{
    int tiles = tiles_of(n);
    unsigned short *seen = (unsigned short *)rd_alloc_array((size_t)tiles, sizeof *seen);
    size_t pairs = 0;

    for (int t = 0; t < tiles; t++) {
        int end = (t + 1) * LEARN_TILE < n ? (t + 1) * LEARN_TILE : n, rows = end - t * LEARN_TILE;

        memset(seen, 0, (size_t)tiles * sizeof *seen);
        for (int i = t * LEARN_TILE; i < end; i++) mark_row(seen, &row[i]);
        for (int k = 0; k < tiles; k++) {
            if (seen[k] == 0) continue;
            pair[pairs].rows = t;
            pair[pairs++].keys = k | (seen[k] == rows * LEARN_TILE ? 0 : LEARN_PARTLY);
        }
    }
    free(seen);
    return pairs;
}

static void list_pairs(const tile_pair *pair, size_t pairs, int tiles, int *see_start, int *see,
                       int *seen_start, int *seen)
{
    int *fill = (int *)rd_alloc_array((size_t)tiles + 1, sizeof *fill);

    memset(see_start, 0, ((size_t)tiles + 1) * sizeof *see_start);
    memset(seen_start, 0, ((size_t)tiles + 1) * sizeof *seen_start);
    for (size_t i = 0; i < pairs; i++) {
        see_start[pair[i].rows + 1]++;
        seen_start[(pair[i].keys & ~LEARN_PARTLY) + 1]++;
        see[i] = pair[i].keys;
    }
    for (int t = 0; t < tiles; t++) {
        see_start[t + 1] += see_start[t];
        seen_start[t + 1] += seen_start[t];
        fill[t] = seen_start[t];
    }
    for (size_t i = 0; i < pairs; i++)
        seen[fill[pair[i].keys & ~LEARN_PARTLY]++] = pair[i].rows | (pair[i].keys & LEARN_PARTLY);
    free(fill);
}

/* ---- rows by token ---- */

typedef struct token_lists {
    int *order;
    learn_segment *segment;
    learn_join *join;
    int segments, joins;
} token_lists;

static void list_tokens(const rd_train_row *row, int n, int vocab, token_lists *t)
{
    int *start = (int *)rd_alloc_array((size_t)vocab + 1, sizeof *start), parts = 0;

    t->segments = t->joins = 0;
    for (int i = 0; i < n; i++) start[row[i].token + 1]++;
    for (int v = 0; v < vocab; v++) start[v + 1] += start[v];
    for (int i = 0; i < n; i++)
        t->order[start[row[i].token]++] = i; /* start[v] is now the end of v */
    for (int at = 0; at < n;) {
        int token = row[t->order[at]].token, end = start[token];
        bool whole = end - at <= LEARN_SEGMENT;
        learn_join *j = &t->join[t->joins];

        if (!whole) {
            j->to = token;
            j->first = parts;
            j->count = 0;
            j->unused = 0;
            t->joins++;
        }
        for (; at < end; at += LEARN_SEGMENT) {
            learn_segment *s = &t->segment[t->segments++];

            s->begin = at;
            s->end = at + LEARN_SEGMENT < end ? at + LEARN_SEGMENT : end;
            s->to = whole ? token : parts++;
            s->whole = whole;
            if (!whole) j->count++;
        }
        at = end;
    }
    free(start);
}

/* ---- arithmetic that is done, as core/train/backward.c counts it ---- */

/* Pairs of a row and a key, over the tiles that the CPU's trainer makes. */
static double count_sight(const rd_train_row *row, int n)
{
    double sum = 0.0;

    for (int first = 0; first < n;) {
        rd_train_tile t = rd_train_tile_of(row, n, first, RD_TRAIN_TILE);

        sum += (double)t.rows * (t.clean_end - t.clean_start + t.own_end - t.own_start);
        first += t.rows;
    }
    return sum;
}

static double count_flops(const rd_learner *l, const rd_train_row *row, int n, int labelled,
                          bool backward)
{
    double times = backward ? 3.0 : 1.0, hidden = l->hidden, inner = (double)l->heads * l->dim,
           sum = 0.0;
    double sight = count_sight(row, n) * inner * (backward ? 14.0 : 4.0);

    for (int i = 0; i < l->layers; i++) {
        sum += times * 2.0 * n * hidden * (learn_qkv(l) + inner + 3.0 * learn_dense_width(l, i)) +
               sight;
        if (l->p->layer[i].moe) sum += times * 6.0 * hidden * l->width * n * l->top;
    }
    return sum + times * 2.0 * hidden * l->vocab * labelled;
}

/* ---- the copy ---- */

void learn_pack_send(rd_learner *l, const rd_train_row *row, int n, float scale, bool backward,
                     learn_count count, learn_pack *out)
{
    int b = l->next, labelled = 0, tiles = tiles_of(n);
    tile_pair *pair = (tile_pair *)rd_alloc_array((size_t)tiles * (size_t)tiles, sizeof *pair);
    token_lists t;

    t.order = (int *)rd_alloc_array((size_t)n, sizeof *t.order);
    t.segment = (learn_segment *)rd_alloc_array((size_t)n, sizeof *t.segment);
    t.join = (learn_join *)rd_alloc_array((size_t)n, sizeof *t.join);
    l->next = (b + 1) % LEARN_BUFFERS;
    for (int i = 0; i < n; i++) labelled += row[i].label >= 0;
    size_t pairs = find_pairs(row, n, pair);

    list_tokens(row, n, l->vocab, &t);
    pack_parts p = parts_of(n, labelled, pairs, t.segments, t.joins);
    unsigned char *host = l->pinned[b], *device = l->pack_room;

    if (l->copying[b]) learn_check(l, cudaEventSynchronize(l->copied[b]), "a pack");
    memcpy(host + p.row, row, (size_t)n * sizeof *row);
    for (int i = 0, k = 0; i < n; i++)
        if (row[i].label >= 0) ((int *)(host + p.list))[k++] = i;
    list_pairs(pair, pairs, tiles, (int *)(host + p.see_start), (int *)(host + p.see),
               (int *)(host + p.seen_start), (int *)(host + p.seen));
    memcpy(host + p.order, t.order, (size_t)n * sizeof *t.order);
    memcpy(host + p.segment, t.segment, (size_t)t.segments * sizeof *t.segment);
    memcpy(host + p.join, t.join, (size_t)t.joins * sizeof *t.join);
    learn_check(l, cudaMemcpyAsync(device, host, p.bytes, cudaMemcpyHostToDevice, l->stream),
                "a pack");
    learn_check(l, cudaEventRecord(l->copied[b], l->stream), "a pack");
    l->copying[b] = true;
    out->rows = n;
    out->labelled = labelled;
    out->tiles = tiles;
    out->segments = t.segments;
    out->joins = t.joins;
    out->scale = scale;
    out->row = (const rd_train_row *)(device + p.row);
    out->list = (const int *)(device + p.list);
    out->see_start = (const int *)(device + p.see_start);
    out->see = (const int *)(device + p.see);
    out->seen_start = (const int *)(device + p.seen_start);
    out->seen = (const int *)(device + p.seen);
    out->order = (const int *)(device + p.order);
    out->segment = (const learn_segment *)(device + p.segment);
    out->join = (const learn_join *)(device + p.join);
    if (count != LEARN_COUNT_NONE) {
        l->flops += count_flops(l, row, n, labelled, backward);
        for (int i = 0; i < n; i++) {
            if (row[i].label < 0) continue;
            l->weight[row[i].task] += (double)row[i].weight;
            l->labels[row[i].task]++;
        }
    }
    free(pair);
    free(t.order);
    free(t.segment);
    free(t.join);
}
