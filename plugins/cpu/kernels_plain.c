/* kernels_plain.c - the arithmetic as one would write it down: the reference of the others. */
#include "plugins/cpu/kernels.h"

#include <math.h>

static void product(float *out, size_t ldo, const rd_rows_in *x, const struct rd_weight *w,
                    int from, int to)
{
    const float *rows = w->data;
    int end = to * RD_PANEL < w->rows ? to * RD_PANEL : w->rows;

    for (int r = 0; r < x->rows; r++) {
        const float *a = (const float *)x->x + (size_t)(x->index ? x->index[r] : r) * x->stride;

        for (int n = from * RD_PANEL; n < end; n++) {
            const float *b = rows + (size_t)n * (size_t)w->cols;
            float sum = 0.0f;

            for (int k = 0; k < w->cols; k++) sum += a[k] * b[k];
            out[(size_t)r * ldo + (size_t)(n - from * RD_PANEL)] = sum;
        }
    }
}

static void norm(float *out, const float *x, const float *weight, int n, float eps)
{
    float sum = 0.0f;

    for (int i = 0; i < n; i++) sum += x[i] * x[i];
    float by = 1.0f / sqrtf(sum / (float)n + eps);

    for (int i = 0; i < n; i++) out[i] = x[i] * by * weight[i];
}

static void gate(float *h, const float *up, int n)
{
    for (int i = 0; i < n; i++) h[i] = h[i] / (1.0f + expf(-h[i])) * up[i];
}

static rd_top top_two(const float *x, int n)
{
    rd_top t = { -1, -1, -INFINITY, -INFINITY };

    for (int i = 0; i < n; i++) rd_top_offer(&t, x[i], i);
    return t;
}

static float sum_exp(const float *x, int n, float top)
{
    float sum = 0.0f;

    for (int i = 0; i < n; i++) sum += expf(x[i] - top);
    return sum;
}

static void attend(float *out, size_t out_stride, const float *q, size_t stride, int rows,
                   const rd_tiles *t, float *scores)
{
    int keys = t->tiles > 0 ? (t->tiles - 1) * t->tile + t->last : 0;
    float by = 1.0f / sqrtf((float)t->head_dim);

    for (int r = 0; r < rows; r++) {
        const float *a = q + (size_t)r * stride;
        float *o = out + (size_t)r * out_stride, top = -INFINITY, sum = 0.0f;

        for (int j = 0; j < keys; j++) {
            const float *k = (const float *)t->k[j / t->tile] + j % t->tile;
            float dot = 0.0f;

            for (int d = 0; d < t->head_dim; d++) dot += a[d] * k[d * t->tile];
            scores[j] = dot * by;
            if (scores[j] > top) top = scores[j];
        }
        for (int j = 0; j < keys; j++) {
            scores[j] = expf(scores[j] - top);
            sum += scores[j];
        }
        for (int d = 0; d < t->head_dim; d++) o[d] = 0.0f;
        for (int j = 0; j < keys; j++) {
            const float *v =
                (const float *)t->v[j / t->tile] + (size_t)(j % t->tile) * (size_t)t->head_dim;

            for (int d = 0; d < t->head_dim; d++) o[d] += scores[j] / sum * v[d];
        }
    }
}

const rd_kernels rd_kernels_plain = { .name = "plain",
                                      .exact = RD_ROWS_F32,
                                      .fast = RD_ROWS_F32,
                                      .product = product,
                                      .norm = norm,
                                      .gate = gate,
                                      .attend = attend,
                                      .top_two = top_two,
                                      .sum_exp = sum_exp };
