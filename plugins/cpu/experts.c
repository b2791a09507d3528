/* experts.c - the dense MLP, the router, and the experts that it chooses.
 *
 * Rows are sorted by expert, so that each expert's weights are read once for all its rows.
 */
#include "plugins/cpu/device.h"

#include "core/base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

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

    d->kernels->product(j->h, (size_t)width, &j->x, j->m->gate, 0, rd_panels_of(j->m->gate));
    d->kernels->product(j->up, (size_t)width, &j->x, j->m->up, 0, rd_panels_of(j->m->up));
    d->kernels->gate(j->h, j->up, rows * width);
    if (rd_wants_half(d, j->m->down)) {
        for (int r = 0; r < rows; r++)
            rd_to_half(j->half + (size_t)r * stride, stride, j->h + (size_t)r * (size_t)width,
                       width);
        inner.x = j->half;
        inner.stride = stride;
    }
    d->kernels->product(j->out, j->out_stride, &inner, j->m->down, 0, rd_panels_of(j->m->down));
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

    return rd_wants_half(d, w) ? (const void *)((const uint16_t *)x->x + at)
                               : (const void *)((const float *)x->x + at);
}

rd_status rd_cpu_mlp(rd_device *d, rd_view out, rd_view x, const rd_mlp *m, rd_error *err)
{
    rd_rows_in in;
    int threads = rd_cpu_pool_threads(d->pool);
    int each = (x.rows + threads - 1) / threads;
    mlp_job *job;
    float *work;

    if (each > 64) each = 64;
    if (each < 1) each = 1;
    if (rd_cpu_rows_in(d, x, m->gate, &in, err) ||
        rd_cpu_room(&d->work, &d->work_n, inner_room(x.rows, m->gate->rows), sizeof *d->work,
                    "inner rows", err))
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

rd_status rd_cpu_moe(rd_device *d, rd_view out, rd_view x, const rd_moe *m, rd_error *err)
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
    if (rd_cpu_room(&d->work, &d->work_n, need, sizeof *d->work, "experts", err) ||
        rd_cpu_room(&d->route, &d->route_n, 3 * (size_t)picks + (size_t)m->n_experts + 1,
                    sizeof *d->route, "routes", err))
        return RD_NO_MEMORY;
    chosen = d->route;
    slot = chosen + picks;
    index = slot + picks;
    start = index + picks;
    float *logits = d->work, *biased = logits + scores, *weight = biased + scores;
    float *expert_out = weight + picks, *work = expert_out + (size_t)picks * (size_t)out.cols;

    if (rd_cpu_linear(d, (rd_view){ logits, rows, m->n_experts }, x, m->router, err))
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
    if (rd_cpu_rows_in(d, x, m->experts[0].gate, &in, err)) return RD_NO_MEMORY;
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
