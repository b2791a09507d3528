/* kernels.h - the trainer's arithmetic between the matrix products: norms, gates, small products.
 *
 * Pure functions on float32 rows, each compiled for several instruction sets and chosen at run
 * time. Nothing here knows the model. Any thread.
 */
#ifndef RD_TRAIN_KERNELS_H
#define RD_TRAIN_KERNELS_H

#include <stdbool.h>
#include <stddef.h>

/* C[m, n] = (or += with `add`) A B, where A(i, p) = a[i * ai + p * ap] and B is [k, n] row-major
 * with stride ldb. n must be a multiple of 16. For the small products of attention and router. */
void rd_small_product(bool add, int m, int n, int k, const float *a, size_t ai, size_t ap,
                      const float *b, size_t ldb, float *c, size_t ldc);

/* out = x / rms(x) * w for each row; inv[row] = 1 / rms. */
void rd_rms_forward(float *out, float *inv, const float *x, const float *w, int rows, int n,
                    float eps);
/* dx += the gradient through the norm, dw += the weight's. */
void rd_rms_backward(float *dx, float *dw, const float *dy, const float *x, const float *inv,
                     const float *w, int rows, int n);

/* h[r, i] = silu(gu[r, i]) * gu[r, width + i]. */
void rd_gate_forward(float *h, const float *gu, int rows, int width);
/* gu becomes its own gradient. */
void rd_gate_backward(float *gu, const float *dh, int rows, int width);

/* x[0..n) becomes exp(x * scale - log of the sum); returns that log. */
float rd_softmax(float *x, int n, float scale);
/* x[0..n) becomes exp(x * scale - lse). */
void rd_softmax_again(float *x, int n, float scale, float lse);
/* ds = p * (dp - sub) * scale, into dp. */
void rd_softmax_backward(float *dp, const float *p, int n, float sub, float scale);

float rd_dot(const float *a, const float *b, int n);
void rd_add_scaled(float *out, const float *x, float by, size_t n); /* out += by x */
void rd_scale(float *x, float by, size_t n);
double rd_sum_squares(const float *x, size_t n);

/* One AdamW step on n parameters; the corrections are 1 / (1 - beta^t). */
typedef struct rd_adam_step {
    float lr, beta1, beta2, eps, decay, correct1, correct2;
} rd_adam_step;
void rd_adam(const rd_adam_step *s, float *w, float *m, float *v, const float *g, float scale,
             size_t n);

#endif
