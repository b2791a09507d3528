/* pick.c - the head: each thread takes chunks of the vocabulary and keeps the best, the next best and the sum of
 * exponentials of each row; logits are never stored.
 */
#include "plugins/cpu/device.h"

#include "core/base/memory.h"

#include <math.h>
#include <string.h>

enum { PICK_PANELS = 16 };

typedef struct pick_job {
    rd_device *d;
    const rd_weight *head;
    const rd_pick_query *q;
    rd_rows_in x;         /* of a head that is not packed */
    const rd_tile *tiles; /* of one that is */
    int n_tiles, chunks;
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
    rd_top t = kernels->top_two(logits, n);

    *p = (part){ .best = t.best < 0 ? -1 : first + t.best,
                 .second = t.second < 0 ? -1 : first + t.second,
                 .top = t.top,
                 .second_top = t.second_top,
                 .watched = -INFINITY };
    if (p->best >= 0) p->sum = kernels->sum_exp(logits, n, p->top);
}

static void pick_piece(void *user, int chunk, int thread)
{
    pick_job *j = user;
    int all = rd_panels_of(j->head), from = chunk * PICK_PANELS;
    int to = from + PICK_PANELS < all ? from + PICK_PANELS : all;
    int first = from * RD_PANEL,
        end = to * RD_PANEL < j->head->rows ? to * RD_PANEL : j->head->rows;
    int ld = PICK_PANELS * RD_PANEL;
    float *logits = j->d->logits[thread];

    if (j->tiles)
        j->d->packed->product(logits, (size_t)ld, j->tiles, j->n_tiles, j->head, from, to);
    else
        j->d->kernels->product(logits, (size_t)ld, &j->x, j->head, from, to);
    for (int r = 0; r < j->q->n_rows; r++) {
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

rd_status rd_cpu_pick(rd_device *d, rd_view x, const rd_weight *head, const rd_pick_query *q,
                      rd_pick *out, rd_error *err)
{
    pick_job j = { .d = d, .head = head, .q = q };
    size_t ld = PICK_PANELS * RD_PANEL, rows = (size_t)q->n_rows;

    for (int i = 0; q->rows && i < q->n_rows; i++)
        if (q->rows[i] < 0 || q->rows[i] >= x.rows)
            return rd_fail(err, RD_INVALID, "pick of row %d of %d", q->rows[i], x.rows);
    if (q->n_rows > x.rows && !q->rows)
        return rd_fail(err, RD_INVALID, "pick of %d rows of %d", q->n_rows, x.rows);
    if (rd_is_packed(head) ? rd_cpu_tiles(d, x, q->rows, q->n_rows, &j.tiles, &j.n_tiles, err)
                           : rd_cpu_rows_in(d, x, head, &j.x, err))
        return RD_NO_MEMORY;
    j.x.index = q->rows;
    j.x.rows = q->n_rows;
    j.chunks = (rd_panels_of(head) + PICK_PANELS - 1) / PICK_PANELS;
    if (rd_cpu_room(&d->parts, &d->parts_n, rows * (size_t)j.chunks, sizeof *d->parts, "picks",
                    err) ||
        rd_cpu_room_each(d, d->logits, &d->logits_n, rows * ld, "logits", err))
        return RD_NO_MEMORY;
    rd_cpu_pool_run(d->pool, j.chunks, pick_piece, &j);
    for (int r = 0; r < q->n_rows; r++)
        gather_parts(d->parts + (size_t)r * (size_t)j.chunks, j.chunks, &out[r],
                     q->watched && q->watched[r] >= 0 && is_banned(q, q->watched[r]));
    return RD_OK;
}
