/* kernels.c - the arithmetic of kernels.h, written so that the compiler can vectorise it.
 *
 * Sums run over sixteen lanes in a fixed order, so a result depends on the instruction set at most
 * in its last bits and never on threads. exp is a polynomial of degree six (relative error 2e-7).
 */
#include "core/train/kernels.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

/* The resolvers of clones run before the thread sanitizer is ready; clang names them so that no other file finds them. */
#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__) && !defined(__clang__)
#define FAST __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FAST
#endif
#define INLINE static inline __attribute__((always_inline))

typedef float lanes __attribute__((vector_size(64), aligned(4), may_alias));

enum { LANES = 16 };

INLINE float exp_poly(float x)
{
    float y = x < -87.0f ? -87.0f : x;

    y = y > 88.0f ? 88.0f : y;
    float number = y > -88.0f ? y : -88.0f; /* no NaN reaches the exponent; r carries it on */
    float t = number * 1.44269504f + 12582912.0f, n = t - 12582912.0f;
    float r = y - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.0f / 720.0f;

    p = p * r + 1.0f / 120.0f;
    p = p * r + 1.0f / 24.0f;
    p = p * r + 1.0f / 6.0f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    int32_t bits = ((int32_t)n + 127) << 23;
    float power;

    memcpy(&power, &bits, 4);
    return p * power;
}

INLINE float sum_lanes(const lanes *v)
{
    float s = 0.0f;

    for (int i = 0; i < LANES; i++) s += (*v)[i];
    return s;
}

INLINE float dot(const float *a, const float *b, int n)
{
    lanes s = { 0 };
    int i = 0;

    for (; i + LANES <= n; i += LANES) s += *(const lanes *)(a + i) * *(const lanes *)(b + i);
    float total = sum_lanes(&s);

    for (; i < n; i++) total += a[i] * b[i];
    return total;
}

/* ROWS x (16 WIDE) of C held in registers over all of k. */
#define TILE(ROWS, WIDE)                                                                          \
    {                                                                                             \
        lanes s[ROWS][WIDE];                                                                      \
        for (int r = 0; r < ROWS; r++)                                                            \
            for (int w = 0; w < WIDE; w++)                                                        \
                s[r][w] =                                                                         \
                    add ? *(lanes *)(c + (size_t)(i + r) * ldc + j + w * LANES) : (lanes){ 0 };   \
        for (int p = 0; p < k; p++) {                                                             \
            const float *bp = b + (size_t)p * ldb + j, *pa = a + (size_t)i * ai + (size_t)p * ap; \
            lanes bv[WIDE];                                                                       \
            for (int w = 0; w < WIDE; w++) bv[w] = *(const lanes *)(bp + w * LANES);              \
            for (int r = 0; r < ROWS; r++)                                                        \
                for (int w = 0; w < WIDE; w++) s[r][w] += pa[(size_t)r * ai] * bv[w];             \
        }                                                                                         \
        for (int r = 0; r < ROWS; r++)                                                            \
            for (int w = 0; w < WIDE; w++)                                                        \
                *(lanes *)(c + (size_t)(i + r) * ldc + j + w * LANES) = s[r][w];                  \
    }

#define STRIP(ROWS)                                \
    {                                              \
        int j = 0;                                 \
        for (; j + 64 <= n; j += 64) TILE(ROWS, 4) \
        for (; j + 16 <= n; j += 16) TILE(ROWS, 1) \
    }

FAST static void small_product(bool add, int m, int n, int k, const float *a, size_t ai, size_t ap,
                               const float *b, size_t ldb, float *c, size_t ldc)
{
    int i = 0;

    for (; i + 4 <= m; i += 4) STRIP(4)
    for (; i < m; i++) STRIP(1)
}

#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__) && !defined(__clang__)
#define HAS_NARROW 1
#define NARROW     __attribute__((target("arch=x86-64-v3")))

typedef float eight __attribute__((vector_size(32), aligned(4), may_alias));

/* The same sums where registers hold eight numbers: ROWS x 16 of C in 2 ROWS of the sixteen there are. */
#define NARROW_STRIP(ROWS)                                                                        \
    for (int j = 0; j + 16 <= n; j += 16) {                                                       \
        eight s[ROWS][2];                                                                         \
        for (int r = 0; r < ROWS; r++)                                                            \
            for (int w = 0; w < 2; w++)                                                           \
                s[r][w] = add ? *(eight *)(c + (size_t)(i + r) * ldc + j + 8 * w) : (eight){ 0 }; \
        for (int p = 0; p < k; p++) {                                                             \
            const float *bp = b + (size_t)p * ldb + j, *pa = a + (size_t)i * ai + (size_t)p * ap; \
            eight low = *(const eight *)bp, high = *(const eight *)(bp + 8);                      \
            for (int r = 0; r < ROWS; r++) {                                                      \
                s[r][0] += pa[(size_t)r * ai] * low;                                              \
                s[r][1] += pa[(size_t)r * ai] * high;                                             \
            }                                                                                     \
        }                                                                                         \
        for (int r = 0; r < ROWS; r++)                                                            \
            for (int w = 0; w < 2; w++)                                                           \
                *(eight *)(c + (size_t)(i + r) * ldc + j + 8 * w) = s[r][w];                      \
    }

NARROW static void small_product_narrow(bool add, int m, int n, int k, const float *a, size_t ai,
                                        size_t ap, const float *b, size_t ldb, float *c, size_t ldc)
{
    int i = 0;

    for (; i + 6 <= m; i += 6) NARROW_STRIP(6)
    for (; i < m; i++) NARROW_STRIP(1)
}
#endif

void rd_small_product(bool add, int m, int n, int k, const float *a, size_t ai, size_t ap,
                      const float *b, size_t ldb, float *c, size_t ldc)
{
#ifdef HAS_NARROW
    if (!__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx2") &&
        __builtin_cpu_supports("fma")) {
        small_product_narrow(add, m, n, k, a, ai, ap, b, ldb, c, ldc);
        return;
    }
#endif
    small_product(add, m, n, k, a, ai, ap, b, ldb, c, ldc);
}

FAST void rd_rms_forward(float *out, float *inv, const float *x, const float *w, int rows, int n,
                         float eps)
{
    for (int r = 0; r < rows; r++) {
        const float *in = x + (size_t)r * (size_t)n;
        float *to = out + (size_t)r * (size_t)n;
        float by = 1.0f / sqrtf(dot(in, in, n) / (float)n + eps);

        inv[r] = by;
        for (int i = 0; i < n; i++) to[i] = in[i] * by * w[i];
    }
}

FAST void rd_rms_backward(float *dx, float *dw, const float *dy, const float *x, const float *inv,
                          const float *w, int rows, int n)
{
    for (int r = 0; r < rows; r++) {
        size_t at = (size_t)r * (size_t)n;
        const float *in = x + at, *d = dy + at;
        float *to = dx + at, by = inv[r], s = 0.0f;
        lanes acc = { 0 };
        int i = 0;

        for (; i + LANES <= n; i += LANES) {
            acc += *(const lanes *)(in + i) * *(const lanes *)(d + i) * *(const lanes *)(w + i);
        }
        s = sum_lanes(&acc);
        for (; i < n; i++) s += in[i] * d[i] * w[i];
        float back = s * by * by * by / (float)n;

        for (i = 0; i < n; i++) {
            to[i] += d[i] * w[i] * by - in[i] * back;
            dw[i] += d[i] * in[i] * by;
        }
    }
}

FAST void rd_gate_forward(float *h, const float *gu, int rows, int width)
{
    for (int r = 0; r < rows; r++) {
        const float *g = gu + (size_t)r * 2 * (size_t)width, *u = g + width;
        float *to = h + (size_t)r * (size_t)width;

        for (int i = 0; i < width; i++) to[i] = g[i] / (1.0f + exp_poly(-g[i])) * u[i];
    }
}

FAST void rd_gate_backward(float *gu, const float *dh, int rows, int width)
{
    for (int r = 0; r < rows; r++) {
        float *g = gu + (size_t)r * 2 * (size_t)width, *u = g + width;
        const float *d = dh + (size_t)r * (size_t)width;

        for (int i = 0; i < width; i++) {
            float s = 1.0f / (1.0f + exp_poly(-g[i])), x = g[i];

            g[i] = d[i] * u[i] * s * (1.0f + x * (1.0f - s));
            u[i] = d[i] * x * s;
        }
    }
}

FAST float rd_softmax(float *x, int n, float scale)
{
    float top = x[0];
    lanes sum = { 0 };
    int i;

    for (i = 0; i < n; i++) top = x[i] > top ? x[i] : top;
    top *= scale;
    for (i = 0; i < n; i++) x[i] = exp_poly(x[i] * scale - top);
    for (i = 0; i + LANES <= n; i += LANES) sum += *(const lanes *)(x + i);
    float total = sum_lanes(&sum);

    for (; i < n; i++) total += x[i];
    float by = 1.0f / total;

    for (i = 0; i < n; i++) x[i] *= by;
    return top + logf(total);
}

FAST void rd_softmax_again(float *x, int n, float scale, float lse)
{
    for (int i = 0; i < n; i++) x[i] = exp_poly(x[i] * scale - lse);
}

FAST void rd_softmax_backward(float *dp, const float *p, int n, float sub, float scale)
{
    for (int i = 0; i < n; i++) dp[i] = p[i] * (dp[i] - sub) * scale;
}

FAST float rd_dot(const float *a, const float *b, int n)
{
    return dot(a, b, n);
}

FAST void rd_add_scaled(float *out, const float *x, float by, size_t n)
{
    for (size_t i = 0; i < n; i++) out[i] += by * x[i];
}

FAST void rd_scale(float *x, float by, size_t n)
{
    for (size_t i = 0; i < n; i++) x[i] *= by;
}

FAST double rd_sum_squares(const float *x, size_t n)
{
    double total = 0.0;

    for (size_t at = 0; at < n; at += 4096) {
        size_t left = n - at < 4096 ? n - at : 4096;

        total += (double)dot(x + at, x + at, (int)left);
    }
    return total;
}

FAST void rd_adam(const rd_adam_step *s, float *w, float *m, float *v, const float *g, float scale,
                  size_t n)
{
    float b1 = s->beta1, b2 = s->beta2, c1 = s->correct1, c2 = s->correct2, lr = s->lr;
    float eps = s->eps, keep = 1.0f - s->lr * s->decay;

    for (size_t i = 0; i < n; i++) {
        float d = g[i] * scale;

        m[i] = b1 * m[i] + (1.0f - b1) * d;
        v[i] = b2 * v[i] + (1.0f - b2) * d * d;
        w[i] = w[i] * keep - lr * (m[i] * c1) / (sqrtf(v[i] * c2) + eps);
    }
}
