/* optimizer.c - one tensor is one piece of work; a thread takes the next that is left. */
#include "core/train/optimizer.h"

#include "core/base/memory.h"
#include "core/train/kernels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct rd_optimizer {
    const rd_params *p;
    rd_optimizer_options options;
    rd_pool *pool;
    const rd_product *products;
    float *m, *v;
    float **scratch; /* a thread's: the step, a second matrix, two squares */
    double *squares; /* a tensor's sum of squares */
    int64_t steps;
    /* Of the step under way. */
    float *w, lr, scale;
    const float *grad;
    rd_status *failed; /* a thread's */
    rd_error *errors;
};

rd_optimizer_options rd_optimizer_defaults(void)
{
    return (rd_optimizer_options){ .muon = true,
                                   .beta1 = 0.9f,
                                   .beta2 = 0.95f,
                                   .eps = 1e-8f,
                                   .decay = 0.1f,
                                   .clip = 1.0f,
                                   .momentum = 0.95f,
                                   .bias_rate = 1e-3f };
}

rd_status rd_optimizer_open(const rd_params *p, const rd_optimizer_options *options, rd_pool *pool,
                            const rd_product *products, rd_optimizer **out, rd_error *err)
{
    rd_optimizer *o = rd_alloc0(sizeof *o);
    size_t threads = (size_t)rd_pool_threads(pool), most = 0;

    for (int i = 0; i < p->count; i++) {
        size_t rows = (size_t)p->param[i].rows, cols = (size_t)p->param[i].cols;
        size_t side = rows < cols ? rows : cols;
        size_t need = 2 * rows * cols + 2 * side * side;

        if (p->param[i].kind == RD_PARAM_MATRIX && need > most) most = need;
    }
    o->p = p;
    o->options = *options;
    o->pool = pool;
    o->products = products;
    o->m = rd_try_alloc(p->size * sizeof *o->m);
    o->v = rd_try_alloc(p->size * sizeof *o->v);
    o->squares = rd_alloc_array((size_t)p->count, sizeof *o->squares);
    o->failed = rd_alloc_array(threads, sizeof *o->failed);
    o->errors = rd_alloc_array(threads, sizeof *o->errors);
    o->scratch = rd_alloc_array(threads, sizeof *o->scratch);
    for (size_t i = 0; i < threads; i++) o->scratch[i] = rd_alloc_array(most + 1, sizeof(float));
    if (!o->m || !o->v) {
        rd_optimizer_close(o);
        return rd_fail(err, RD_NO_MEMORY, "the optimiser: no memory for %zu weights", p->size);
    }
    memset(o->m, 0, p->size * sizeof *o->m);
    memset(o->v, 0, p->size * sizeof *o->v);
    *out = o;
    return RD_OK;
}

void rd_optimizer_close(rd_optimizer *o)
{
    if (!o) return;
    for (int i = 0; i < rd_pool_threads(o->pool); i++) free(o->scratch[i]);
    free(o->scratch);
    free(o->errors);
    free(o->failed);
    free(o->squares);
    free(o->m);
    free(o->v);
    free(o);
}

float *rd_optimizer_moment(rd_optimizer *o, int which)
{
    return which ? o->v : o->m;
}

int64_t rd_optimizer_steps(const rd_optimizer *o)
{
    return o->steps;
}

void rd_optimizer_set_steps(rd_optimizer *o, int64_t steps)
{
    o->steps = steps;
}

/* x [rows, cols] towards the nearest matrix with all singular values one: x = a x + (b A + c A A) x
 * with A the Gram matrix of the shorter side. Five rounds reach about 0.7 to 1.2. */
static rd_status orthogonalise(const rd_product *t, float *x, float *y, float *gram, float *square,
                               int rows, int cols, rd_error *err)
{
    const float a = 3.4445f, b = -4.7750f, c = 2.0315f;
    size_t n = (size_t)rows * (size_t)cols;
    bool tall = rows > cols;
    int side = tall ? cols : rows, length = tall ? rows : cols;
    size_t sides = (size_t)side * (size_t)side;

    rd_scale(x, 1.0f / ((float)sqrt(rd_sum_squares(x, n)) + 1e-7f), n);
    for (int round = 0; round < 5; round++) {
        if (t->gemm(t->device, tall, !tall, side, side, length, x, cols, x, cols, 0.0f, gram, side,
                    err) ||
            t->gemm(t->device, false, false, side, side, side, gram, side, gram, side, 0.0f, square,
                    side, err))
            return err->status;
        rd_scale(square, c, sides);
        rd_add_scaled(square, gram, b, sides);
        if (tall ? t->gemm(t->device, false, false, rows, cols, cols, x, cols, square, cols, 0.0f,
                           y, cols, err)
                 : t->gemm(t->device, false, false, rows, cols, rows, square, rows, x, cols, 0.0f,
                           y, cols, err))
            return err->status;
        rd_scale(x, a, n);
        rd_add_scaled(x, y, 1.0f, n);
    }
    return RD_OK;
}

static void muon(rd_optimizer *o, const rd_param *q, int thread)
{
    size_t n = (size_t)q->rows * (size_t)q->cols;
    int side = q->rows < q->cols ? q->rows : q->cols, longer = q->rows + q->cols - side;
    float *x = o->scratch[thread], *y = x + n, *gram = y + n;
    float *square = gram + (size_t)side * (size_t)side;
    float *m = o->m + q->offset, *w = o->w + q->offset, beta = o->options.momentum;
    const float *g = o->grad + q->offset;

    for (size_t i = 0; i < n; i++) {
        float d = g[i] * o->scale;

        m[i] = beta * m[i] + d;
        x[i] = d + beta * m[i];
    }
    if (orthogonalise(&o->products[thread], x, y, gram, square, q->rows, q->cols,
                      &o->errors[thread])) {
        o->failed[thread] = o->errors[thread].status;
        return;
    }
    rd_scale(w, 1.0f - o->lr * o->options.decay, n);
    rd_add_scaled(w, x, -o->lr * 0.2f * sqrtf((float)longer), n);
}

static void step_tensor(void *user, int i, int thread)
{
    rd_optimizer *o = user;
    const rd_param *q = &o->p->param[i];
    double t = (double)o->steps;
    rd_adam_step s = { .lr = o->lr,
                       .beta1 = o->options.beta1,
                       .beta2 = o->options.beta2,
                       .eps = o->options.eps,
                       .decay = q->kind == RD_PARAM_NORM ? 0.0f : o->options.decay,
                       .correct1 = (float)(1.0 / (1.0 - pow(o->options.beta1, t))),
                       .correct2 = (float)(1.0 / (1.0 - pow(o->options.beta2, t))) };

    if (q->kind == RD_PARAM_BIAS) return;
    if (q->kind == RD_PARAM_MATRIX && o->options.muon) {
        muon(o, q, thread);
        return;
    }
    rd_adam(&s, o->w + q->offset, o->m + q->offset, o->v + q->offset, o->grad + q->offset, o->scale,
            (size_t)q->rows * (size_t)q->cols);
}

static void square_tensor(void *user, int i, int thread)
{
    rd_optimizer *o = user;
    const rd_param *q = &o->p->param[i];

    (void)thread;
    o->squares[i] = rd_sum_squares(o->grad + q->offset, (size_t)q->rows * (size_t)q->cols);
}

static void balance(const rd_optimizer *o, float *w, const int64_t *load)
{
    int experts = o->p->config.num_experts;

    for (int l = 0; l < o->p->config.num_hidden_layers; l++) {
        const int64_t *of = load + (size_t)l * (size_t)experts;
        int64_t sum = 0;

        if (!o->p->layer[l].moe) continue;
        for (int e = 0; e < experts; e++) sum += of[e];
        for (int e = 0; e < experts; e++) {
            int64_t over = of[e] * experts - sum;
            float by = over > 0 ? -1.0f : over < 0 ? 1.0f : 0.0f;

            w[o->p->layer[l].bias + (size_t)e] += by * o->options.bias_rate;
        }
    }
}

rd_status rd_optimizer_step(rd_optimizer *o, float *w, const float *grad, float lr,
                            const int64_t *load, double *norm, rd_error *err)
{
    double sum = 0.0;

    o->w = w;
    o->grad = grad;
    o->lr = lr;
    rd_pool_run(o->pool, o->p->count, square_tensor, o);
    for (int i = 0; i < o->p->count; i++) sum += o->squares[i];
    *norm = sqrt(sum);
    for (int i = 0; i < o->p->count; i++) {
        if (isfinite(o->squares[i])) continue;
        return rd_fail(err, RD_INVALID, "step %lld: the gradient of %s is not finite",
                       (long long)o->steps + 1, o->p->param[i].name);
    }
    o->scale = o->options.clip > 0.0f && *norm > (double)o->options.clip
                   ? (float)((double)o->options.clip / *norm)
                   : 1.0f;
    o->steps++;
    rd_pool_run(o->pool, o->p->count, step_tensor, o);
    for (int i = 0; i < rd_pool_threads(o->pool); i++)
        if (o->failed[i]) return rd_fail(err, o->failed[i], "%s", o->errors[i].text);
    if (load) balance(o, w, load);
    return RD_OK;
}
