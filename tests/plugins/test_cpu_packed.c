/* test_cpu_packed.c - packed weights on every instruction set: against the layout's definition in double, and
 * against each other bit for bit. Panels are random bytes; whatever they are, they are weights. */
#include "core/base/memory.h"
#include "core/base/random.h"
#include "core/plugin.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const sets[] = { "avx2", "avx512", "avx512-f32" };
enum { SETS = sizeof sets / sizeof *sets };
static const rd_pack schemes[] = { RD_PACK_INT8, RD_PACK_INT4 };

/* A packed matrix of random bytes, with scales such that products with rows near 1 are near 1. */
typedef struct packed {
    rd_matrix m;
    uint8_t *data;
    float *scale;
} packed;

static packed make(rd_random *r, rd_pack scheme, int rows, int cols)
{
    size_t panels = rd_pack_panels(rows), n = panels * rd_pack_panel_bytes(scheme, cols);
    float by = 1.0f / ((scheme == RD_PACK_INT8 ? 64.0f : 590.0f) * sqrtf((float)cols));
    packed p = { .data = rd_try_alloc(n), .scale = rd_alloc_array(panels * 16, sizeof(float)) };

    for (size_t i = 0; i < n; i++) p.data[i] = (uint8_t)rd_random_u64(r);
    for (int i = 0; i < rows; i++) p.scale[i] = by * (0.5f + (float)rd_random_unit(r));
    p.m = (rd_matrix){ p.data, RD_F32, rows, cols, p.scale, scheme, NULL, false };
    return p;
}

static void clear(packed *p)
{
    free(p->data);
    free(p->scale);
}

/* One number of the matrix, as core/format/packed.h defines the layout. */
static double number(const packed *p, int row, int col)
{
    const uint8_t *panel = p->data + (size_t)(row / 16) * rd_pack_panel_bytes(p->m.pack, p->m.cols);
    int lane = row % 16;

    if (p->m.pack == RD_PACK_INT8)
        return ((double)panel[col / 4 * 64 + lane * 4 + col % 4] - 128.0) * (double)p->scale[row];
    const uint8_t *cell = panel + col / 128 * RD_PACK_CELL;
    int group = col % 128 / 32, c = col % 32, v = c % 16 / 4;
    uint8_t both = cell[group * 256 + v * 64 + lane * 4 + c % 4];
    double q = (c < 16 ? both & 15 : both >> 4) - 8;

    return q * (double)cell[1024 + group * 16 + lane] * (double)p->scale[row];
}

static float *numbers(rd_random *r, size_t n)
{
    float *x = rd_alloc_array(n + 1, sizeof *x);

    for (size_t i = 0; i < n; i++) x[i] = (float)rd_random_normal(r);
    return x;
}

static rd_device *device(const char *isa, int threads)
{
    rd_device_options o = { .isa = isa, .threads = threads, .precision = RD_FAST };
    rd_device *d = NULL;
    rd_error err;
    rd_status s = rd_cpu_backend()->open(&o, &d, &err);

    if (s == RD_DEVICE) return NULL; /* this machine has not got it */
    cr_assert_eq(s, RD_OK, "%s", err.text);
    return d;
}

static rd_view view(rd_device *d, const float *from, int rows, int cols)
{
    rd_view v = { 0 };
    rd_error err;

    cr_assert(!rd_cpu_backend()->alloc(d, rows, cols, &v, &err));
    if (from)
        rd_cpu_backend()->upload(d, v, from, &err);
    else
        memset(v.data, 0xff, (size_t)rows * (size_t)cols * sizeof(float)); /* NaN: poison */
    return v;
}

static rd_weight *take(rd_device *d, const rd_matrix *m)
{
    rd_weight *w = NULL;
    rd_error err;

    cr_assert(!rd_cpu_backend()->take(d, m, false, &w, &err), "%s", err.text);
    return w;
}

static void linear(rd_device *d, float *y, const float *x, const rd_matrix *m, int rows)
{
    const rd_backend *be = rd_cpu_backend();
    rd_view a = view(d, x, rows, m->cols), b = view(d, NULL, rows, m->rows);
    rd_weight *w = take(d, m);
    rd_error err;

    cr_assert(!be->linear(d, b, a, w, &err));
    be->download(d, y, b, &err);
    be->release(d, &a);
    be->release(d, &b);
    be->drop(d, w);
}

/* What a row becomes: the nearest of 255 steps. */
static void round_row(float *x, int n)
{
    float top = 0.0f;

    for (int k = 0; k < n; k++) top = fmaxf(top, fabsf(x[k]));
    for (int k = 0; k < n && top > 0.0f; k++)
        x[k] = nearbyintf(x[k] * (127.0f / top)) * (top / 127.0f);
}

Test(cpu_packed, plain_products_are_those_of_the_numbers_that_the_layout_defines)
{
    rd_random r = rd_random_seed(3);

    for (size_t s = 0; s < 2; s++) {
        int rows = 5, in = 167, out = 37;
        packed w = make(&r, schemes[s], out, in);
        float *x = numbers(&r, (size_t)(rows * in)), *y = rd_alloc_array(5 * 37, sizeof *y);
        rd_device *d = device("plain", 1);

        memset(x + 2 * in, 0, (size_t)in * sizeof *x);
        linear(d, y, x, &w.m, rows);
        for (int i = 0; i < rows; i++) {
            round_row(x + i * in, in);
            for (int n = 0; n < out; n++) {
                double sum = 0.0;

                for (int k = 0; k < in; k++) sum += (double)x[i * in + k] * number(&w, n, k);
                cr_assert_float_eq((double)y[i * out + n], sum, 1e-5, "row %d of scheme %zu", i, s);
            }
        }
        rd_cpu_backend()->close(d);
        clear(&w);
        free(x);
        free(y);
    }
}

/* The product on every set, with one thread and with three, is plain's bit for bit. */
static void compare(rd_random *r, rd_pack scheme, int rows, int in, int out)
{
    size_t n = (size_t)rows * (size_t)out;
    packed w = make(r, scheme, out, in);
    float *x = numbers(r, (size_t)rows * (size_t)in);
    float *want = rd_alloc_array(n, sizeof *want), *got = rd_alloc_array(n, sizeof *got);
    rd_device *plain = device("plain", 1);

    linear(plain, want, x, &w.m, rows);
    for (size_t i = 0; i < SETS; i++) {
        for (int threads = 1; threads <= 3; threads += 2) {
            rd_device *d = device(sets[i], threads);

            if (!d) continue;
            linear(d, got, x, &w.m, rows);
            cr_assert(!memcmp(got, want, n * sizeof *got), "%s, %d rows, %d x %d, scheme %d",
                      sets[i], rows, out, in, scheme);
            rd_cpu_backend()->close(d);
        }
    }
    rd_cpu_backend()->close(plain);
    clear(&w);
    free(x);
    free(want);
    free(got);
}

Test(cpu_packed, products_are_equal_to_the_bit_on_every_set_for_any_number_of_rows)
{
    rd_random r = rd_random_seed(4);

    for (int rows = 1; rows <= 40; rows++) {
        compare(&r, RD_PACK_INT8, rows, 257, 50);
        compare(&r, RD_PACK_INT4, rows, 257, 50);
    }
}

Test(cpu_packed, products_are_equal_to_the_bit_on_odd_and_long_shapes)
{
    /* 8300 columns are more than one 32-bit sum of int4 takes. */
    static const int shapes[][3] = { { 1, 1, 1 },     { 2, 127, 16 },  { 3, 128, 17 },
                                     { 7, 130, 333 }, { 5, 8300, 33 }, { 33, 64, 1 } };
    rd_random r = rd_random_seed(5);

    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (size_t s = 0; s < 2; s++)
            compare(&r, schemes[s], shapes[i][0], shapes[i][1], shapes[i][2]);
}

/* Extremes: every sum as large as it can be. */
Test(cpu_packed, the_largest_sums_are_equal_to_the_bit)
{
    rd_random r = rd_random_seed(6);
    float x[2 * 9000], want[2 * 20], got[2 * 20];

    for (int k = 0; k < 9000; k++) {
        x[k] = 1.0f;
        x[9000 + k] = k % 2 ? 1.0f : -1.0f;
    }
    for (size_t s = 0; s < 2; s++) {
        for (int fill = 0; fill < 256; fill += 255) {
            packed w = make(&r, schemes[s], 20, 9000);
            rd_device *plain = device("plain", 1);

            memset(w.data, fill, 2 * rd_pack_panel_bytes(schemes[s], 9000));
            for (size_t c = 0; s && c < 2 * rd_pack_cells(9000); c++)
                memset(w.data + c * RD_PACK_CELL + 1024, 255, 64);
            linear(plain, want, x, &w.m, 2);
            for (size_t i = 0; i < SETS; i++) {
                rd_device *d = device(sets[i], 1);

                if (!d) continue;
                linear(d, got, x, &w.m, 2);
                cr_assert(!memcmp(got, want, sizeof got), "%s", sets[i]);
                rd_cpu_backend()->close(d);
            }
            double q = s ? (fill ? 7.0 : -8.0) * 255.0 : fill ? 127.0 : -128.0;

            cr_assert_float_eq((double)want[0] / (9000.0 * q * (double)w.scale[0]), 1.0, 1e-5);
            rd_cpu_backend()->close(plain);
            clear(&w);
        }
    }
}

Test(cpu_packed, an_embedding_is_read_from_panels)
{
    rd_random r = rd_random_seed(7);
    int32_t tokens[] = { 0, 40, 17 };

    for (size_t s = 0; s < 2; s++) {
        packed w = make(&r, schemes[s], 41, 131);
        rd_device *d = device(NULL, 1);
        rd_view out = view(d, NULL, 3, 131);
        rd_weight *table = take(d, &w.m);
        rd_error err;

        cr_assert(!rd_cpu_backend()->embed(d, out, table, tokens, &err));
        for (int i = 0; i < 3; i++)
            for (int k = 0; k < 131; k++)
                cr_assert_float_eq((double)out.data[i * 131 + k], number(&w, tokens[i], k), 1e-6);
        rd_cpu_backend()->drop(d, table);
        rd_cpu_backend()->release(d, &out);
        rd_cpu_backend()->close(d);
        clear(&w);
    }
}

/* ---- mlp and experts ---- */

enum { HIDDEN = 140, WIDTH = 72, EXPERTS = 6, TOP = 2 };

typedef struct layer {
    packed part[EXPERTS + 1][3];
    float *router, bias[EXPERTS];
} layer;

static layer *make_layer(rd_random *r, rd_pack scheme)
{
    layer *l = rd_alloc0(sizeof *l);

    for (int e = 0; e <= EXPERTS; e++) {
        rd_pack p = e == EXPERTS ? RD_PACK_INT8 : scheme; /* the shared expert of another scheme */

        l->part[e][0] = make(r, p, WIDTH, HIDDEN);
        l->part[e][1] = make(r, p, WIDTH, HIDDEN);
        l->part[e][2] = make(r, p, HIDDEN, WIDTH);
    }
    l->router = numbers(r, EXPERTS * HIDDEN);
    for (int i = 0; i < EXPERTS * HIDDEN; i++) l->router[i] *= 0.1f; /* no sigmoid is 1 */
    l->bias[1] = l->bias[4] = -10.0f;                                /* nobody comes */
    return l;
}

static void free_layer(layer *l)
{
    for (int e = 0; e <= EXPERTS; e++)
        for (int i = 0; i < 3; i++) clear(&l->part[e][i]);
    free(l->router);
    free(l);
}

/* The matrix, or (`wide`) its numbers as float32. */
static rd_weight *take_part(rd_device *d, const packed *p, bool wide)
{
    size_t cols = (size_t)p->m.cols;

    if (!wide) return take(d, &p->m);
    float *x = rd_alloc_array((size_t)p->m.rows * cols, sizeof *x);
    rd_matrix m = { x, RD_F32, p->m.rows, p->m.cols, NULL, RD_PACK_NONE, NULL, false };

    for (int n = 0; n < p->m.rows; n++)
        for (int k = 0; k < p->m.cols; k++)
            x[(size_t)n * cols + (size_t)k] = (float)number(p, n, k);
    rd_weight *w = take(d, &m);

    free(x);
    return w;
}

static rd_mlp take_mlp(rd_device *d, const packed *part, bool wide)
{
    return (rd_mlp){ take_part(d, &part[0], wide), take_part(d, &part[1], wide),
                     take_part(d, &part[2], wide) };
}

static void drop_mlp(rd_device *d, rd_mlp *m)
{
    rd_cpu_backend()->drop(d, (rd_weight *)(uintptr_t)m->gate);
    rd_cpu_backend()->drop(d, (rd_weight *)(uintptr_t)m->up);
    rd_cpu_backend()->drop(d, (rd_weight *)(uintptr_t)m->down);
}

static void run_layer(rd_device *d, layer *l, const float *x, int rows, float *out, bool dense,
                      bool wide)
{
    const rd_backend *be = rd_cpu_backend();
    rd_matrix router = { l->router, RD_F32, EXPERTS, HIDDEN, NULL, RD_PACK_NONE, NULL, false };
    rd_matrix bias = { l->bias, RD_F32, 1, EXPERTS, NULL, RD_PACK_NONE, NULL, false };
    rd_mlp experts[EXPERTS], shared = take_mlp(d, l->part[EXPERTS], wide);
    rd_weight *a = take(d, &router), *b = take(d, &bias);
    rd_view in = view(d, x, rows, HIDDEN), y = view(d, NULL, rows, HIDDEN);
    rd_error err = { 0 };

    for (int e = 0; e < EXPERTS; e++) experts[e] = take_mlp(d, l->part[e], wide);
    rd_moe m = { .router = a,
                 .bias = b,
                 .experts = experts,
                 .shared = shared,
                 .n_experts = EXPERTS,
                 .top_k = TOP,
                 .n_group = 1,
                 .topk_group = 1,
                 .window = 32,
                 .scaling = 2.5f };

    if (dense)
        cr_assert(!be->mlp(d, y, in, &experts[0], &err), "%s", err.text);
    else
        cr_assert(!be->moe(d, y, in, &m, &err), "%s", err.text);
    be->download(d, out, y, &err);
    for (int e = 0; e < EXPERTS; e++) drop_mlp(d, &experts[e]);
    drop_mlp(d, &shared);
    be->drop(d, a);
    be->drop(d, b);
    be->release(d, &in);
    be->release(d, &y);
}

static double apart(const float *a, const float *b, size_t n)
{
    double off = 0.0, all = 0.0;

    for (size_t i = 0; i < n; i++) {
        off += (double)(a[i] - b[i]) * (double)(a[i] - b[i]);
        all += (double)b[i] * (double)b[i];
    }
    return sqrt(off / all); /* NaN where anything is */
}

/* Plain against the same numbers as float32: the activations' rounding is what is left. And the sets against plain: exp
 * differs in its last bits between the sets, and with it now and then how an inner number is rounded. */
Test(cpu_packed, experts_and_mlps_agree_with_plain_and_do_not_depend_on_threads)
{
    static const int counts[] = { 1, 2, 5, 32, 40, 150 };
    rd_random r = rd_random_seed(8);

    for (size_t c = 0; c < 2 * 2 * sizeof counts / sizeof *counts; c++) {
        bool dense = c % 2;
        int rows = counts[c / 4];
        size_t n = (size_t)rows * HIDDEN;
        layer *l = make_layer(&r, schemes[c / 2 % 2]);
        float *x = numbers(&r, n), *want = rd_alloc_array(n, sizeof *want);
        float *exact = rd_alloc_array(n, sizeof *exact);
        float *one = rd_alloc_array(n, sizeof *one), *got = rd_alloc_array(n, sizeof *got);
        rd_device *plain = device("plain", 1);

        run_layer(plain, l, x, rows, exact, dense, true);
        run_layer(plain, l, x, rows, want, dense, false);
        cr_assert_lt(apart(want, exact, n), 0.03, "%d rows, dense %d: %g", rows, dense,
                     apart(want, exact, n));
        for (size_t i = 0; i < SETS; i++) {
            rd_device *d = device(sets[i], 1), *three = device(sets[i], 3);

            if (!d) continue;
            run_layer(d, l, x, rows, one, dense, false);
            run_layer(three, l, x, rows, got, dense, false);
            cr_assert(!memcmp(one, got, n * sizeof *got), "%s depends on threads", sets[i]);
            cr_assert_lt(apart(got, want, n), 0.01, "%s, %d rows, dense %d: %g", sets[i], rows,
                         dense, apart(got, want, n));
            rd_cpu_backend()->close(d);
            rd_cpu_backend()->close(three);
        }
        rd_cpu_backend()->close(plain);
        free_layer(l);
        free(x);
        free(want);
        free(exact);
        free(one);
        free(got);
    }
}

/* ---- picks ---- */

enum { VOCAB = 1001, ROWS = 37 };

static void picks(rd_device *d, const packed *head, const float *x, const rd_pick_query *q,
                  rd_pick *out)
{
    const rd_backend *be = rd_cpu_backend();
    rd_view in = view(d, x, ROWS, HIDDEN);
    rd_weight *w = take(d, &head->m);
    rd_error err;

    cr_assert(!be->pick(d, in, w, q, out, &err));
    be->release(d, &in);
    be->drop(d, w);
}

Test(cpu_packed, picks_are_the_same_on_every_set)
{
    rd_random r = rd_random_seed(9);
    int32_t banned[] = { 3, 77, 900 }, rows[] = { 36, 0, 7, 7, 12 },
            watched[] = { 5, 77, -1, 8, 9 };
    rd_pick_query q = {
        .banned = banned, .n_banned = 3, .limit = 990, .watched = watched, .n_rows = 5, .rows = rows
    };
    float *x = numbers(&r, ROWS * HIDDEN);

    for (size_t s = 0; s < 2; s++) {
        packed head = make(&r, schemes[s], VOCAB, HIDDEN);
        rd_device *plain = device("plain", 1);
        rd_pick want[5], got[5];

        picks(plain, &head, x, &q, want);
        cr_assert_eq(want[2].token, want[3].token);
        cr_assert_eq(want[1].watched_prob, 0.0f);
        for (size_t i = 0; i < SETS; i++) {
            rd_device *d = device(sets[i], 3);

            if (!d) continue;
            picks(d, &head, x, &q, got);
            for (int k = 0; k < 5; k++) {
                cr_assert_eq(got[k].token, want[k].token);
                cr_assert_eq(got[k].second, want[k].second);
                cr_assert_float_eq((double)got[k].prob, (double)want[k].prob, 1e-6);
                cr_assert_float_eq((double)got[k].second_prob, (double)want[k].second_prob, 1e-6);
                cr_assert_float_eq((double)got[k].watched_prob, (double)want[k].watched_prob, 1e-6);
            }
            rd_cpu_backend()->close(d);
        }
        rd_cpu_backend()->close(plain);
        clear(&head);
    }
    free(x);
}

Test(cpu_packed, of_equal_logits_the_lower_id_is_first_and_the_other_second)
{
    rd_random r = rd_random_seed(12);

    for (size_t s = 0; s < 2; s++) {
        packed head = make(&r, schemes[s], VOCAB, HIDDEN);
        size_t bytes = rd_pack_panel_bytes(schemes[s], HIDDEN);
        float *x = rd_alloc_array(ROWS * HIDDEN, sizeof *x);

        for (int twin = 3; twin < 60; twin += 56) { /* in the same chunk, and in another */
            memcpy(head.data + (size_t)twin * bytes, head.data, bytes);
            memcpy(head.scale + twin * 16, head.scale, 16 * sizeof *head.scale);
        }
        for (int i = 0; i < ROWS; i++) /* row i looks for number i % 16: the first panel wins */
            for (int k = 0; k < HIDDEN; k++)
                x[i * HIDDEN + k] = 100.0f * (float)number(&head, i % 16, k);
        for (size_t i = 0; i <= SETS; i++) {
            rd_device *d = device(i < SETS ? sets[i] : "plain", 2);
            rd_pick_query q = { .n_rows = ROWS };
            rd_pick got[ROWS];

            if (!d) continue;
            picks(d, &head, x, &q, got);
            for (int k = 0; k < ROWS; k++) {
                cr_assert_eq(got[k].token, k % 16);
                cr_assert_eq(got[k].second, k % 16 + 48);
            }
            rd_cpu_backend()->close(d);
        }
        clear(&head);
        free(x);
    }
}

Test(cpu_packed, a_row_that_is_not_finite_has_no_pick_and_harms_no_other)
{
    static const float bad[] = { NAN, INFINITY, -INFINITY };
    rd_random r = rd_random_seed(10);
    packed head = make(&r, RD_PACK_INT4, VOCAB, HIDDEN);
    float *x = numbers(&r, ROWS * HIDDEN);
    rd_pick_query q = { .n_rows = ROWS };
    rd_pick want[ROWS], got[ROWS];

    for (size_t i = 0; i <= SETS; i++) {
        rd_device *d = device(i < SETS ? sets[i] : "plain", 2);

        if (!d) continue;
        picks(d, &head, x, &q, want);
        for (int b = 0; b < 3; b++) {
            float was = x[4 * HIDDEN + 50 + 44 * b];

            x[4 * HIDDEN + 50 + 44 * b] = bad[b];
            picks(d, &head, x, &q, got);
            x[4 * HIDDEN + 50 + 44 * b] = was;
            cr_assert(got[4].token < 0 || !isfinite(got[4].prob), "bad %d", b);
            got[4] = want[4];
            cr_assert(!memcmp(got, want, sizeof got));
        }
        rd_cpu_backend()->close(d);
    }
    clear(&head);
    free(x);
}

/* ---- what is refused ---- */

Test(cpu_packed, what_cannot_be_panels_is_refused_and_panels_stay_where_they_are)
{
    rd_random r = rd_random_seed(11);
    packed w = make(&r, RD_PACK_INT4, 20, 200);
    rd_device *d = device(NULL, 1);
    rd_matrix m = w.m;
    rd_weight *out = NULL;
    rd_error err;
    float x[200] = { 1.0f }, before[20], after[20];

    m.data = w.data + 32;
    cr_assert_eq(rd_cpu_backend()->take(d, &m, false, &out, &err), RD_INVALID);
    m.data = w.data;
    m.scale = NULL;
    cr_assert_eq(rd_cpu_backend()->take(d, &m, false, &out, &err), RD_INVALID);
    m.scale = w.scale;
    m.cols = 1 << 20;
    cr_assert_eq(rd_cpu_backend()->take(d, &m, false, &out, &err), RD_INVALID);
    m.cols = 200;
    for (int i = 0; i < 3; i++) {
        w.scale[7] = i == 0 ? NAN : i == 1 ? INFINITY : -1.0f;
        cr_assert_eq(rd_cpu_backend()->take(d, &m, false, &out, &err), RD_INVALID);
        cr_assert(strstr(err.text, "row 7:"), "%s", err.text);
    }
    cr_assert_null(out);

    w.scale[7] = 1.0f;
    linear(d, before, x, &m, 1);
    cr_assert(!rd_cpu_backend()->take(d, &m, false, &out, &err));
    w.data[0] ^= 15; /* seen by whoever holds the weight: it is no copy */
    rd_view a = view(d, x, 1, 200), b = view(d, NULL, 1, 20);

    cr_assert(!rd_cpu_backend()->linear(d, b, a, out, &err));
    rd_cpu_backend()->download(d, after, b, &err);
    cr_assert_neq(before[0], after[0]);
    rd_cpu_backend()->release(d, &a);
    rd_cpu_backend()->release(d, &b);
    rd_cpu_backend()->drop(d, out);
    rd_cpu_backend()->close(d);
    clear(&w);
}
