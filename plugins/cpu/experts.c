/* experts.c - the dense MLP, the router, and the experts that it chooses.
 *
 * Rows are sorted by expert, and a thread does all of one expert for its rows before it takes the next: each expert's
 * weights are read once, in one stream, and the inner rows never leave the cache. Experts with many rows go
 * first, so that the last piece is a small one.
 */
#include "plugins/cpu/device.h"

#include "core/base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    JOB_ROWS = 64,    /* of one expert, done together */
    SHARED_ROWS = 32, /* of the shared expert */
    ROUTE_ROWS = 4,   /* routed by one piece */
};

/* One MLP over some rows, by one thread. */
typedef struct mlp_job {
    const rd_mlp *m;
    rd_rows_in x; /* of weights that are not packed; else `index` and `rows` alone count */
    float *out;
    size_t out_stride;
} mlp_job;

typedef struct mlp_list {
    const rd_device *d;
    const rd_byte_rows *bytes; /* the rows that packed weights meet */
    mlp_job *job;
} mlp_list;

static size_t aligned(size_t floats)
{
    return (floats + 15) / 16 * 16;
}

/* Floats of scratch of one thread for `rows` rows: h, up, and h as down wants it; where weights are packed also
 * the tiles of x. */
static size_t inner_room(int rows, int width, int hidden)
{
    size_t n = aligned((size_t)rows * (size_t)width),
           half = aligned((size_t)rows * ((size_t)width + 1));
    size_t tiles = aligned(rd_tiles_bytes(rows, hidden) / sizeof(float));
    size_t bytes =
        aligned((rd_tiles_bytes(rows, width) + rd_byte_rows_bytes(rows, width)) / sizeof(float));

    return 2 * n + (half > tiles + bytes ? half : tiles + bytes) + 64;
}

static void mlp_plain(const rd_device *d, const mlp_job *j, float *room)
{
    int width = j->m->gate->rows, rows = j->x.rows;
    size_t n = aligned((size_t)rows * (size_t)width), stride = ((size_t)width + 1) / 2 * 2;
    float *h = room, *up = room + n;
    uint16_t *half = (uint16_t *)(void *)(room + 2 * n);
    rd_rows_in inner = { .x = h, .stride = (size_t)width, .rows = rows };

    d->kernels->product(h, (size_t)width, &j->x, j->m->gate, 0, rd_panels_of(j->m->gate));
    d->kernels->product(up, (size_t)width, &j->x, j->m->up, 0, rd_panels_of(j->m->up));
    d->kernels->gate(h, up, rows * width);
    if (rd_wants_half(d, j->m->down)) {
        for (int r = 0; r < rows; r++)
            rd_to_half(half + (size_t)r * stride, stride, h + (size_t)r * (size_t)width, width);
        inner.x = half;
        inner.stride = stride;
    }
    d->kernels->product(j->out, j->out_stride, &inner, j->m->down, 0, rd_panels_of(j->m->down));
}

/* The same with packed weights: h is made bytes, row by row, while it is in the cache. */
static void mlp_packed(const rd_device *d, const mlp_job *j, const rd_byte_rows *x, float *room)
{
    int width = j->m->gate->rows, rows = j->x.rows, tiles = rd_tile_count(rows);
    size_t n = aligned((size_t)rows * (size_t)width);
    float *h = room, *up = room + n, *at = room + 2 * n;
    rd_tile tile[JOB_ROWS / RD_TILE_ROWS + 1];
    rd_byte_rows inner;

    rd_tiles_make(tile, at, x, j->x.index, rows);
    at += aligned(rd_tiles_bytes(rows, j->m->gate->cols) / sizeof *at);
    d->packed->product(h, (size_t)width, tile, tiles, j->m->gate, 0, rd_panels_of(j->m->gate));
    d->packed->product(up, (size_t)width, tile, tiles, j->m->up, 0, rd_panels_of(j->m->up));
    d->kernels->gate(h, up, rows * width);
    inner = rd_byte_rows_at(at, rows, width);
    at += rd_byte_rows_bytes(rows, width) / sizeof *at;
    for (int r = 0; r < rows; r++)
        rd_packed_quantise(d->packed, &inner, r, h + (size_t)r * (size_t)width, width);
    rd_tiles_make(tile, at, &inner, NULL, rows);
    d->packed->product(j->out, j->out_stride, tile, tiles, j->m->down, 0, rd_panels_of(j->m->down));
}

static void mlp_piece(void *user, int i, int thread)
{
    mlp_list *l = user;
    const mlp_job *j = &l->job[i];

    if (rd_is_packed(j->m->gate))
        mlp_packed(l->d, j, l->bytes, l->d->inner[thread]);
    else
        mlp_plain(l->d, j, l->d->inner[thread]);
}

/* Is an MLP's every weight packed, or none? */
static rd_status check_mlp(const rd_mlp *m, rd_error *err)
{
    bool packed = rd_is_packed(m->gate);

    if (rd_is_packed(m->up) == packed && rd_is_packed(m->down) == packed) return RD_OK;
    return rd_fail(err, RD_INVALID, "an mlp of packed and unpacked weights");
}

/* ---- the dense mlp ---- */

/* Panels of gate and up, and their product, for all rows. */
typedef struct dense_job {
    const rd_device *d;
    const rd_mlp *m;
    const rd_tile *tiles;
    int n_tiles, rows, panels;
    float *h; /* [rows, width] */
} dense_job;

static void dense_piece(void *user, int piece, int thread)
{
    dense_job *j = user;
    int from = piece * j->panels, to = from + j->panels, all = rd_panels_of(j->m->gate);
    int width = j->m->gate->rows, first = from * RD_PANEL;
    size_t ld = (size_t)j->panels * RD_PANEL;
    float *up = j->d->inner[thread];

    if (to > all) to = all;
    int n = (to * RD_PANEL < width ? to * RD_PANEL : width) - first;

    j->d->packed->product(j->h + first, (size_t)width, j->tiles, j->n_tiles, j->m->gate, from, to);
    j->d->packed->product(up, ld, j->tiles, j->n_tiles, j->m->up, from, to);
    for (int r = 0; r < j->rows; r++)
        j->d->kernels->gate(j->h + (size_t)r * (size_t)width + first, up + (size_t)r * ld, n);
}

static rd_status dense_packed(rd_device *d, rd_view out, rd_view x, const rd_mlp *m, rd_error *err)
{
    dense_job j = { .d = d, .m = m, .rows = x.rows };
    int panels = rd_panels_of(m->gate), width = m->gate->rows;

    j.panels = rd_cpu_piece(d, panels, 16);
    if (rd_cpu_room(&d->work, &d->work_n, (size_t)x.rows * (size_t)width, sizeof *d->work,
                    "inner rows", err) ||
        rd_cpu_room_each(d, d->inner, &d->inner_n, (size_t)x.rows * (size_t)j.panels * RD_PANEL,
                         "inner rows", err) ||
        rd_cpu_tiles(d, x, NULL, x.rows, &j.tiles, &j.n_tiles, err))
        return RD_NO_MEMORY;
    j.h = d->work;
    rd_cpu_pool_run(d->pool, (panels + j.panels - 1) / j.panels, dense_piece, &j);
    return rd_cpu_linear(d, out, (rd_view){ j.h, x.rows, width }, m->down, err);
}

/* Rows [0, x.rows) of an MLP as jobs of `each` rows; appended to `job` from n on. */
static int split_rows(const rd_device *d, mlp_job *job, int n, const rd_mlp *m, const rd_rows_in *x,
                      rd_view out, int each, const int *count)
{
    for (int r = 0; r < x->rows; r += each, n++) {
        size_t at = (size_t)r * x->stride;

        job[n] = (mlp_job){ .m = m,
                            .x = *x,
                            .out = out.data + (size_t)r * (size_t)out.cols,
                            .out_stride = (size_t)out.cols };
        job[n].x.rows = x->rows - r < each ? x->rows - r : each;
        if (rd_is_packed(m->gate))
            job[n].x.index = count + r;
        else if (rd_wants_half(d, m->gate))
            job[n].x.x = (const uint16_t *)x->x + at;
        else
            job[n].x.x = (const float *)x->x + at;
    }
    return n;
}

rd_status rd_cpu_mlp(rd_device *d, rd_view out, rd_view x, const rd_mlp *m, rd_error *err)
{
    rd_rows_in in;
    int threads = rd_cpu_pool_threads(d->pool), each = (x.rows + threads - 1) / threads;
    mlp_job *job;

    if (check_mlp(m, err)) return RD_INVALID;
    if (rd_is_packed(m->gate)) return dense_packed(d, out, x, m, err);
    if (each > JOB_ROWS) each = JOB_ROWS;
    if (each < 1) each = 1;
    if (rd_cpu_rows_in(d, x, m->gate, &in, err) ||
        rd_cpu_room_each(d, d->inner, &d->inner_n, inner_room(each, m->gate->rows, x.cols),
                         "inner rows", err))
        return RD_NO_MEMORY;
    job = rd_alloc_array((size_t)(x.rows + each - 1) / (size_t)each + 1, sizeof *job);
    int jobs = split_rows(d, job, 0, m, &in, out, each, NULL);

    rd_cpu_pool_run(d->pool, jobs, mlp_piece, &(mlp_list){ d, NULL, job });
    free(job);
    return RD_OK;
}

/* ---- the router ---- */

enum { EXPERTS_MOST = 4096 };

/* Mark the experts of the best groups, by the sum of each group's two best. */
static void open_groups(const rd_moe *m, const float *biased, bool *open)
{
    int per_group = m->n_experts / m->n_group;
    float group[EXPERTS_MOST];
    bool group_open[EXPERTS_MOST] = { false };

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
    }
    for (int k = 0; k < m->topk_group; k++) {
        int best = -1;

        for (int g = 0; g < m->n_group; g++)
            if (!group_open[g] && (best < 0 || group[g] > group[best])) best = g;
        if (best >= 0) group_open[best] = true;
    }
    for (int e = 0; e < m->n_experts; e++)
        open[e] = e < m->n_group * per_group && group_open[e / per_group];
}

/* The best of the open experts, best first, ties to the lower id; closed ones follow where there are too few. */
static void choose_open(const rd_moe *m, const float *biased, const bool *open, int *chosen)
{
    int n = 0;

    for (int e = 0; e < m->n_experts; e++) {
        int k;

        if (!open[e] || (n == m->top_k && !(biased[e] > biased[chosen[n - 1]]))) continue;
        for (k = n < m->top_k ? n++ : n - 1; k > 0 && biased[e] > biased[chosen[k - 1]]; k--)
            chosen[k] = chosen[k - 1];
        chosen[k] = e;
    }
    for (int e = 0; n < m->top_k && e < m->n_experts; e++)
        if (!open[e]) chosen[n++] = e;
}

/* Scores of one row to its experts. `admitted` marks those of the run, or is NULL. */
static void choose_experts(const rd_moe *m, const float *score, const float *biased,
                           const bool *admitted, int *chosen, float *weight)
{
    bool open[EXPERTS_MOST];
    float sum = 0.0f;

    for (int e = 0; e < m->n_experts; e++) open[e] = !admitted || admitted[e];
    if (!admitted && m->n_group > 1) open_groups(m, biased, open);
    choose_open(m, biased, open, chosen);
    for (int k = 0; k < m->top_k; k++) sum += score[chosen[k]];
    for (int k = 0; k < m->top_k; k++) {
        float w = score[chosen[k]];

        if (m->top_k > 1) w /= sum + 1e-20f;
        weight[k] = w * m->scaling;
    }
}

/* The `capacity` experts with the largest biased score over the rows of one run. */
static void admit(const rd_moe *m, const float *biased, int rows, bool *admitted)
{
    float top[EXPERTS_MOST];

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

typedef struct route_job {
    const rd_moe *m;
    float *logits, *biased; /* [rows, experts] */
    int *chosen;            /* [rows, top_k] */
    float *weight;
    int rows, each; /* rows of one piece: whole runs */
} route_job;

static void route_piece(void *user, int piece, int thread)
{
    route_job *j = user;
    const rd_moe *m = j->m;
    const float *bias = m->bias->data;
    int from = piece * j->each, to = from + j->each < j->rows ? from + j->each : j->rows;
    size_t n = (size_t)m->n_experts;
    bool admitted[EXPERTS_MOST];

    (void)thread;
    for (size_t i = (size_t)from * n; i < (size_t)to * n; i++) {
        j->logits[i] = 1.0f / (1.0f + expf(-j->logits[i]));
        j->biased[i] = j->logits[i] + bias[i % n];
    }
    for (int r = from; r < to; r++) {
        if (m->capacity > 0 && r % m->window == 0)
            admit(m, j->biased + (size_t)r * n, run_of(m, r, j->rows), admitted);
        choose_experts(m, j->logits + (size_t)r * n, j->biased + (size_t)r * n,
                       m->capacity > 0 ? admitted : NULL, j->chosen + r * m->top_k,
                       j->weight + r * m->top_k);
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

/* Experts' rows in order of experts: start[e] is the first place of e, index[place] its row, slot[pick] its place. */
typedef struct places {
    int *chosen, *slot, *index, *start, *count;
} places;

static void sort_picks(const rd_moe *m, int picks, const places *p)
{
    memset(p->start, 0, ((size_t)m->n_experts + 2) * sizeof *p->start);
    /* One behind, so that filling moves start[e + 1] to where e + 1 begins. */
    for (int i = 0; i < picks; i++) p->start[p->chosen[i] + 2]++;
    for (int e = 0; e < m->n_experts; e++) p->start[e + 2] += p->start[e + 1];
    for (int i = 0; i < picks; i++) {
        int at = p->start[p->chosen[i] + 1]++;

        p->index[at] = i / m->top_k;
        p->slot[i] = at;
    }
}

static int more_rows_first(const void *x, const void *y)
{
    const mlp_job *a = x, *b = y;

    return (b->x.rows > a->x.rows) - (b->x.rows < a->x.rows);
}

static int expert_jobs(mlp_job *job, const rd_moe *m, const places *p, const rd_rows_in *in,
                       float *out, size_t hidden)
{
    int jobs = 0;

    for (int e = 0; e < m->n_experts; e++) {
        for (int from = p->start[e]; from < p->start[e + 1]; from += JOB_ROWS, jobs++) {
            int left = p->start[e + 1] - from;

            job[jobs] = (mlp_job){ .m = &m->experts[e],
                                   .x = *in,
                                   .out = out + (size_t)from * hidden,
                                   .out_stride = hidden };
            job[jobs].x.index = p->index + from;
            job[jobs].x.rows = left < JOB_ROWS ? left : JOB_ROWS;
        }
    }
    qsort(job, (size_t)jobs, sizeof *job, more_rows_first);
    return jobs;
}

/* The rows as the experts and the shared one want them. */
static rd_status moe_rows(rd_device *d, rd_view x, const rd_moe *m, rd_rows_in *in,
                          rd_byte_rows *bytes, rd_error *err)
{
    bool packed = rd_is_packed(m->experts[0].gate);

    for (int e = 0; e < m->n_experts; e++) {
        if (check_mlp(&m->experts[e], err)) return RD_INVALID;
        if (rd_is_packed(m->experts[e].gate) != packed)
            return rd_fail(err, RD_INVALID, "experts of packed and unpacked weights");
    }
    if (m->shared.gate && check_mlp(&m->shared, err)) return RD_INVALID;
    *in = (rd_rows_in){ .stride = (size_t)x.cols, .rows = x.rows };
    if ((packed || (m->shared.gate && rd_is_packed(m->shared.gate))) &&
        rd_cpu_bytes(d, x, bytes, err))
        return RD_NO_MEMORY;
    if (!packed) return rd_cpu_rows_in(d, x, m->experts[0].gate, in, err);
    if (m->shared.gate && !rd_is_packed(m->shared.gate))
        return rd_cpu_rows_in(d, x, m->shared.gate, in, err);
    return RD_OK;
}

static rd_status run_experts(rd_device *d, rd_view out, rd_view x, const rd_moe *m, const places *p,
                             float *expert_out, rd_error *err)
{
    int width = m->experts[0].gate->rows, shared = m->shared.gate ? m->shared.gate->rows : 0;
    int picks = x.rows * m->top_k, jobs = 0;
    size_t room = inner_room(JOB_ROWS, width > shared ? width : shared, x.cols);
    rd_byte_rows bytes = { 0 };
    rd_rows_in in;
    rd_status s = moe_rows(d, x, m, &in, &bytes, err);

    if (s) return s;
    if (rd_cpu_room_each(d, d->inner, &d->inner_n, room, "inner rows", err)) return RD_NO_MEMORY;
    mlp_job *job = rd_alloc_array(
        (size_t)(m->n_experts + picks / JOB_ROWS + x.rows / SHARED_ROWS + 2), sizeof *job);

    for (int r = 0; r < x.rows; r++) p->count[r] = r;
    if (m->shared.gate) jobs = split_rows(d, job, 0, &m->shared, &in, out, SHARED_ROWS, p->count);
    jobs += expert_jobs(job + jobs, m, p, &in, expert_out, (size_t)out.cols);
    rd_cpu_pool_run(d->pool, jobs, mlp_piece, &(mlp_list){ d, &bytes, job });
    free(job);
    return RD_OK;
}

static void tap_routes(const rd_moe *m, int picks, const int *chosen, const float *weight)
{
    for (int i = 0; i < picks; i++) {
        if (m->chosen_out) m->chosen_out[i] = chosen[i];
        if (m->weight_out) m->weight_out[i] = weight[i];
    }
}

rd_status rd_cpu_moe(rd_device *d, rd_view out, rd_view x, const rd_moe *m, rd_error *err)
{
    int rows = x.rows, picks = rows * m->top_k;
    size_t scores = (size_t)rows * (size_t)m->n_experts;
    size_t need = 2 * scores + (size_t)picks * (size_t)(out.cols + 1);
    places p;
    rd_status s;

    if (m->n_experts > EXPERTS_MOST || m->top_k > m->n_experts)
        return rd_fail(err, RD_INVALID, "%d experts, %d a token", m->n_experts, m->top_k);
    if (rd_cpu_room(&d->work, &d->work_n, need, sizeof *d->work, "experts", err) ||
        rd_cpu_room(&d->route, &d->route_n, 3 * (size_t)picks + (size_t)(m->n_experts + rows) + 2,
                    sizeof *d->route, "routes", err))
        return RD_NO_MEMORY;
    p.chosen = d->route;
    p.slot = p.chosen + picks;
    p.index = p.slot + picks;
    p.start = p.index + picks;
    p.count = p.start + m->n_experts + 2;
    float *logits = d->work, *biased = logits + scores, *weight = biased + scores;
    float *expert_out = weight + picks;

    s = rd_cpu_linear(d, (rd_view){ logits, rows, m->n_experts }, x, m->router, err);
    if (s) return s;
    if (m->logits_out) memcpy(m->logits_out, logits, scores * sizeof *logits);
    route_job r = {
        m, logits, biased, p.chosen, weight, rows, m->capacity > 0 ? m->window : ROUTE_ROWS
    };

    rd_cpu_pool_run(d->pool, (rows + r.each - 1) / r.each, route_piece, &r);
    tap_routes(m, picks, p.chosen, weight);
    sort_picks(m, picks, &p);
    s = run_experts(d, out, x, m, &p, expert_out, err);
    if (s) return s;
    rd_cpu_pool_run(
        d->pool, rows, sum_row,
        &(sum_job){ out, expert_out, p.slot, weight, m->top_k, m->shared.gate != NULL });
    return RD_OK;
}
