/* sides.h - the GPU's backend beside plain C on the CPU, for tests that give both the same work. */
#ifndef RD_TEST_CUDA_SIDES_H
#define RD_TEST_CUDA_SIDES_H

#include "core/base/dtype.h"
#include "core/base/memory.h"
#include "core/base/random.h"
#include "core/plugin.h"
#include "tests/plugins/cuda/backend.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct side {
    const rd_backend *be;
    rd_device *d;
} side;

static inline side side_of(const rd_backend *be, const rd_device_options *o)
{
    side s = { be, NULL };
    rd_error err;

    cr_assert_eq(be->open(o, &s.d, &err), RD_OK, "%s", err.text);
    return s;
}

static inline side cpu_side(void)
{
    rd_device_options o = { .isa = "plain", .threads = 1, .precision = RD_EXACT };

    return side_of(rd_cpu_backend(), &o);
}

static inline side gpu_side(rd_precision precision, rd_weight_form weights)
{
    rd_device_options o = { .precision = precision, .weights = weights };

    return side_of(gpu_backend(), &o);
}

static inline void side_close(side *s)
{
    s->be->close(s->d);
    s->d = NULL;
}

static inline float *normals(rd_random *r, size_t n, float by)
{
    float *x = rd_alloc_array(n + 1, sizeof *x);

    for (size_t i = 0; i < n; i++) x[i] = by * (float)rd_random_normal(r);
    return x;
}

static inline rd_view view_of(side s, const float *x, int rows, int cols)
{
    rd_view v = { 0 };
    rd_error err;

    cr_assert_eq(s.be->alloc(s.d, rows, cols, &v, &err), RD_OK, "%s", err.text);
    cr_assert_eq(s.be->upload(s.d, v, x, &err), RD_OK, "%s", err.text);
    return v;
}

/* A view full of NaN. */
static inline rd_view poison(side s, int rows, int cols)
{
    size_t n = (size_t)rows * (size_t)cols;
    float *x = rd_alloc_array(n + 1, sizeof *x);

    for (size_t i = 0; i < n; i++) x[i] = NAN;
    rd_view v = view_of(s, x, rows, cols);

    free(x);
    return v;
}

static inline float *fetched(side s, rd_view v)
{
    float *x = rd_alloc_array((size_t)v.rows * (size_t)v.cols + 1, sizeof *x);
    rd_error err;

    cr_assert_eq(s.be->download(s.d, x, v, &err), RD_OK, "%s", err.text);
    return x;
}

static inline rd_weight *weight_of(side s, const rd_matrix *m, bool exact)
{
    rd_weight *w = NULL;
    rd_error err;

    cr_assert_eq(s.be->take(s.d, m, exact, &w, &err), RD_OK, "%s", err.text);
    return w;
}

/* How far two vectors are apart, as a share of the second's length. NaN where one has a NaN. */
static inline double apart(const float *a, const float *b, size_t n)
{
    double off = 0.0, all = 1e-30;

    for (size_t i = 0; i < n; i++) {
        off += (double)(a[i] - b[i]) * (double)(a[i] - b[i]);
        all += (double)b[i] * (double)b[i];
    }
    return sqrt(off / all);
}

/* The largest difference of two numbers, as a share of the second's size and its vector's root mean square together. */
static inline double worst(const float *a, const float *b, size_t n)
{
    double most = 0.0, all = 1e-30;

    for (size_t i = 0; i < n; i++) all += (double)b[i] * (double)b[i];
    all = sqrt(all / (double)n);
    for (size_t i = 0; i < n; i++) {
        double off = fabs((double)a[i] - (double)b[i]) / (all + fabs((double)b[i]));

        if (!(off <= most)) most = off; /* NaN too */
    }
    return most;
}

#endif
