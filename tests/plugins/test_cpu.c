/* test_cpu.c - every instruction set against plain C on odd shapes, and one thread against three. */
#include "core/base/memory.h"
#include "core/base/random.h"
#include "core/plugin.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const sets[] = { "avx2", "avx512", "avx512-f32" };

static float *numbers(rd_random *r, size_t n, float by)
{
    float *x = rd_alloc_array(n + 1, sizeof *x);

    for (size_t i = 0; i < n; i++) x[i] = by * (float)rd_random_normal(r);
    return x;
}

static rd_device *device(const char *isa, int threads, rd_precision precision)
{
    rd_device_options o = { .isa = isa, .threads = threads, .precision = precision };
    rd_device *d = NULL;
    rd_error err;

    rd_status s = rd_cpu_backend()->open(&o, &d, &err);

    if (s == RD_DEVICE) return NULL; /* this machine has not got it */
    cr_assert_eq(s, RD_OK, "%s", err.text);
    return d;
}

/* y = x W^T on one device, W of any type. */
static void linear_of(rd_device *d, float *y, const float *x, const rd_matrix *w, int rows)
{
    const rd_backend *be = rd_cpu_backend();
    rd_weight *weight = NULL;
    rd_view a, b;
    rd_error err;

    cr_assert(!be->take(d, w, false, &weight, &err) && !be->alloc(d, rows, w->cols, &a, &err) &&
              !be->alloc(d, rows, w->rows, &b, &err));
    be->upload(d, a, x, &err);
    cr_assert(!be->linear(d, b, a, weight, &err));
    be->download(d, y, b, &err);
    be->release(d, &a);
    be->release(d, &b);
    be->drop(d, weight);
}

static void linear(rd_device *d, float *y, const float *x, const float *w, int rows, int in,
                   int out)
{
    rd_matrix m = { w, RD_F32, out, in, NULL, RD_PACK_NONE, NULL };

    linear_of(d, y, x, &m, rows);
}

Test(cpu, products_agree_with_plain_on_odd_shapes)
{
    static const int shapes[][3] = {
        { 1, 1, 2 }, { 3, 5, 7 }, { 9, 31, 17 }, { 33, 64, 48 }, { 17, 129, 100 }
    };
    rd_random r = rd_random_seed(5);

    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        int rows = shapes[s][0], in = shapes[s][1], out = shapes[s][2];
        size_t n = (size_t)rows * (size_t)out;
        float *x = numbers(&r, (size_t)rows * (size_t)in, 1.0f),
              *w = numbers(&r, (size_t)in * (size_t)out, 1.0f);
        float *want = rd_alloc_array(n, sizeof *want), *got = rd_alloc_array(n, sizeof *got);
        rd_device *plain = device("plain", 1, RD_EXACT);

        linear(plain, want, x, w, rows, in, out);
        for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
            for (int fast = 0; fast < 2; fast++) {
                rd_device *d = device(sets[i], 2, fast ? RD_FAST : RD_EXACT);
                float allowed = (fast ? 0.03f : 1e-5f) * sqrtf((float)in);

                if (!d) continue;
                linear(d, got, x, w, rows, in, out);
                for (size_t k = 0; k < n; k++)
                    cr_assert_leq(fabsf(got[k] - want[k]), allowed * (1.0f + fabsf(want[k])),
                                  "%s fast %d, shape %zu at %zu: %g, plain %g", sets[i], fast, s, k,
                                  (double)got[k], (double)want[k]);
                rd_cpu_backend()->close(d);
            }
        }
        rd_cpu_backend()->close(plain);
        free(x);
        free(w);
        free(want);
        free(got);
    }
}

/* Attention over `past` blocks and `rows` new ones. */
static void attend(rd_device *d, float *out, const float *qkv, int rows, int past, int block,
                   int dim, int sight, int visible)
{
    const rd_backend *be = rd_cpu_backend();
    int heads = 4, kv_heads = 2, wide = (heads + 2 * kv_heads) * dim;
    int32_t places[24] = { 3, 1, 5, 0, 2, 4, 6, 7 }, positions[24 * 32];
    rd_kv_shape shape = { 1, kv_heads, dim, block, 24, false };
    float *ones = rd_alloc_array((size_t)dim, sizeof *ones);
    rd_weight *q = NULL, *k = NULL;
    rd_kv *kv = NULL;
    rd_view a, b;
    rd_error err;

    for (int i = 8; i < 24; i++) places[i] = 31 - i;
    for (int i = 0; i < dim; i++) ones[i] = 0.5f + 0.01f * (float)i;
    rd_matrix m = { ones, RD_F32, 1, dim, NULL, RD_PACK_NONE, NULL };

    cr_assert(!be->take(d, &m, true, &q, &err) && !be->take(d, &m, true, &k, &err) &&
              !be->kv_open(d, &shape, &kv, &err));
    for (int first = 0; first < past * block + rows;) {
        int n = first < past * block ? past * block : rows;
        rd_attention t = { .rows = n,
                           .heads = heads,
                           .kv_heads = kv_heads,
                           .head_dim = dim,
                           .rotary_dim = dim / 2,
                           .eps = 1e-6f,
                           .theta = 1e4,
                           .positions = positions,
                           .past = places,
                           .past_blocks = first / block,
                           .keep = first ? NULL : places,
                           .sight = first < past * block ? block : sight,
                           .kv = kv,
                           .q_norm = q,
                           .k_norm = k,
                           .visible = first < past * block ? 0 : visible };

        if (past == 0) t.keep = NULL;
        for (int i = 0; i < n; i++) positions[i] = first + i;
        cr_assert(!be->alloc(d, n, wide, &a, &err) && !be->alloc(d, n, heads * dim, &b, &err));
        be->upload(d, a, qkv + (size_t)first * (size_t)wide, &err);
        cr_assert(!be->attention(d, b, a, &t, &err), "%s", err.text);
        if (first >= past * block) be->download(d, out, b, &err);
        be->release(d, &a);
        be->release(d, &b);
        first += n;
    }
    be->kv_close(d, kv);
    be->drop(d, q);
    be->drop(d, k);
    free(ones);
}

Test(cpu, attention_agrees_with_plain_over_blocks_sights_and_odd_heads)
{
    static const struct {
        int rows, past, block, dim, sight, visible;
    } cases[] = {
        { 5, 0, 8, 12, 8, 0 },    { 8, 2, 8, 16, 8, 0 },   { 13, 3, 4, 8, 4, 0 },
        { 32, 1, 32, 64, 32, 0 }, { 20, 2, 5, 10, 64, 0 }, { 24, 0, 8, 16, 24, 19 },
    };
    rd_random r = rd_random_seed(6);

    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        int dim = cases[c].dim, all = cases[c].rows + cases[c].past * cases[c].block;
        size_t n = (size_t)cases[c].rows * 4 * (size_t)dim;
        float *qkv = numbers(&r, (size_t)all * 8 * (size_t)dim, 1.0f);
        float *want = rd_alloc_array(n, sizeof *want), *got = rd_alloc_array(n, sizeof *got);
        rd_device *plain = device("plain", 1, RD_EXACT);

        attend(plain, want, qkv, cases[c].rows, cases[c].past, cases[c].block, dim, cases[c].sight,
               cases[c].visible);
        for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
            rd_device *d = device(sets[i], 3, RD_EXACT);

            if (!d) continue;
            attend(d, got, qkv, cases[c].rows, cases[c].past, cases[c].block, dim, cases[c].sight,
                   cases[c].visible);
            for (size_t k = 0; k < n; k++)
                cr_assert_leq(fabsf(got[k] - want[k]), 1e-5f * (1.0f + fabsf(want[k])),
                              "%s, case %zu at %zu: %g, plain %g", sets[i], c, k, (double)got[k],
                              (double)want[k]);
            rd_cpu_backend()->close(d);
        }
        rd_cpu_backend()->close(plain);
        free(qkv);
        free(want);
        free(got);
    }
}

/* How far two vectors are apart, as a share of the second's length. */
static double apart(const float *a, const float *b, size_t n)
{
    double off = 0.0, all = 0.0;

    for (size_t i = 0; i < n; i++) {
        off += (double)(a[i] - b[i]) * (double)(a[i] - b[i]);
        all += (double)b[i] * (double)b[i];
    }
    return sqrt(off / all); /* NaN where anything is */
}

/* Rounded to bf16: queries, keys, values and probabilities. Values are larger than their sums. */
Test(cpu, attention_of_bf16_agrees_with_plain_over_stretches_and_short_sights)
{
    static const struct {
        int rows, past, block, dim, sight, visible;
    } cases[] = {
        { 32, 0, 32, 64, 32, 0 }, { 32, 19, 32, 128, 32, 0 }, { 5, 3, 16, 32, 16, 0 },
        { 64, 9, 32, 64, 32, 0 }, { 40, 8, 16, 96, 48, 33 },  { 1, 8, 32, 64, 32, 0 },
        { 96, 7, 48, 32, 48, 0 }, { 20, 17, 32, 64, 32, 11 },
    };
    rd_random r = rd_random_seed(12);

    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        int dim = cases[c].dim, all = cases[c].rows + cases[c].past * cases[c].block;
        size_t n = (size_t)cases[c].rows * 4 * (size_t)dim;
        float *qkv = numbers(&r, (size_t)all * 8 * (size_t)dim, 1.0f);
        float *want = rd_alloc_array(n, sizeof *want), *got = rd_alloc_array(n, sizeof *got);
        float *one = rd_alloc_array(n, sizeof *one);
        rd_device *plain = device("plain", 1, RD_EXACT);
        rd_device *d = device(NULL, 3, RD_FAST), *alone = device(NULL, 1, RD_FAST);

        attend(plain, want, qkv, cases[c].rows, cases[c].past, cases[c].block, dim, cases[c].sight,
               cases[c].visible);
        attend(d, got, qkv, cases[c].rows, cases[c].past, cases[c].block, dim, cases[c].sight,
               cases[c].visible);
        attend(alone, one, qkv, cases[c].rows, cases[c].past, cases[c].block, dim, cases[c].sight,
               cases[c].visible);
        cr_assert(!memcmp(one, got, n * sizeof *got), "case %zu depends on threads", c);
        cr_assert_lt(apart(got, want, n), 0.015, "case %zu: %g", c, apart(got, want, n));
        rd_cpu_backend()->close(plain);
        rd_cpu_backend()->close(d);
        rd_cpu_backend()->close(alone);
        free(qkv);
        free(want);
        free(got);
        free(one);
    }
}

Test(cpu, a_block_goes_out_and_comes_back_in_whatever_type_the_device_keeps)
{
    static const int shapes[][2] = { { 32, 64 }, { 16, 32 }, { 5, 10 } }; /* block, dim */
    const rd_backend *be = rd_cpu_backend();

    for (int fast = 0; fast < 2; fast++) {
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
            rd_device *d = device(NULL, 1, fast ? RD_FAST : RD_EXACT);
            rd_kv_shape shape = { 3, 2, shapes[s][1], shapes[s][0], 2, false };
            rd_kv *kv = NULL;
            rd_error err;

            cr_assert(!be->kv_open(d, &shape, &kv, &err));
            size_t n = be->kv_block_bytes(d, kv);
            unsigned char *in = rd_alloc0(n), *out = rd_alloc0(n);

            for (size_t i = 0; i < n; i++) in[i] = (unsigned char)(i * 7 + i / 251);
            cr_assert(!be->kv_write(d, kv, 1, in, &err) && !be->kv_read(d, kv, 1, out, &err));
            cr_assert(!memcmp(in, out, n));
            memcpy(be->kv_host(d, kv, 0), be->kv_host(d, kv, 1), n);
            memset(out, 0, n);
            cr_assert(!be->kv_read(d, kv, 0, out, &err) && !memcmp(in, out, n));
            free(in);
            free(out);
            be->kv_close(d, kv);
            be->close(d);
        }
    }
}

Test(cpu, no_result_depends_on_the_number_of_threads)
{
    rd_random r = rd_random_seed(7);
    int rows = 33, in = 70, out = 300;
    size_t n = (size_t)rows * (size_t)out;
    float *x = numbers(&r, (size_t)rows * (size_t)in, 1.0f),
          *w = numbers(&r, (size_t)in * (size_t)out, 1.0f);
    float *one = rd_alloc_array(n, sizeof *one), *more = rd_alloc_array(n, sizeof *more);

    for (int threads = 2; threads <= 4; threads++) {
        for (int fast = 0; fast < 2; fast++) {
            rd_device *a = device(NULL, 1, fast ? RD_FAST : RD_EXACT),
                      *b = device(NULL, threads, fast ? RD_FAST : RD_EXACT);

            linear(a, one, x, w, rows, in, out);
            linear(b, more, x, w, rows, in, out);
            cr_assert(!memcmp(one, more, n * sizeof *one));
            rd_cpu_backend()->close(a);
            rd_cpu_backend()->close(b);
        }
    }
    free(x);
    free(w);
    free(one);
    free(more);
}

Test(cpu, pick_bans_watches_and_finds_the_second)
{
    const rd_backend *be = rd_cpu_backend();
    int vocab = 601, dim = 16, rows = 3;
    rd_random r = rd_random_seed(8);
    float *w = numbers(&r, (size_t)(vocab * dim), 1.0f),
          *x = numbers(&r, (size_t)(rows * dim), 1.0f);
    int32_t banned[] = { 3, 77 }, watched[] = { 5, 600, -1 };
    rd_pick_query q = {
        .banned = banned, .n_banned = 2, .limit = 600, .watched = watched, .n_rows = rows
    };

    for (int fast = 0; fast < 2; fast++) {
        rd_device *d = device(fast ? NULL : "plain", 2, RD_EXACT);
        rd_matrix m = { w, RD_F32, vocab, dim, NULL, RD_PACK_NONE, NULL };
        rd_weight *head = NULL;
        rd_pick got[3];
        rd_view v;
        rd_error err;

        cr_assert(!be->take(d, &m, false, &head, &err) && !be->alloc(d, rows, dim, &v, &err));
        be->upload(d, v, x, &err);
        cr_assert(!be->pick(d, v, head, &q, got, &err));
        for (int i = 0; i < rows; i++) {
            int best = -1, second = -1;
            double sum = 0.0, logit[601];

            for (int t = 0; t < 600; t++) {
                logit[t] = 0.0;
                for (int k = 0; k < dim; k++)
                    logit[t] += (double)x[i * dim + k] * (double)w[t * dim + k];
                if (t == 3 || t == 77) continue;
                sum += exp(logit[t]);
                if (best < 0 || logit[t] > logit[best]) {
                    second = best;
                    best = t;
                } else if (second < 0 || logit[t] > logit[second]) {
                    second = t;
                }
            }
            cr_assert_eq(got[i].token, best);
            cr_assert_eq(got[i].second, second);
            cr_assert_float_eq((double)got[i].prob, exp(logit[best]) / sum, 1e-4);
            cr_assert_float_eq((double)got[i].second_prob, exp(logit[second]) / sum, 1e-4);
        }
        cr_assert_gt(got[0].watched_prob, 0.0f);
        cr_assert_eq(got[1].watched_prob, 0.0f, "a banned token has no probability");
        be->release(d, &v);
        be->drop(d, head);
        be->close(d);
    }
    free(w);
    free(x);
}

Test(cpu, picks_of_many_rows_agree_with_plain)
{
    enum { VOCAB = 333, DIM = 24, ROWS = 1030 };
    const rd_backend *be = rd_cpu_backend();
    rd_random r = rd_random_seed(9);
    float *w = numbers(&r, VOCAB * DIM, 1.0f), *x = numbers(&r, (size_t)ROWS * DIM, 1.0f);
    rd_pick *want = rd_alloc_array(ROWS, sizeof *want), *got = rd_alloc_array(ROWS, sizeof *got);

    for (size_t i = 0; i <= sizeof sets / sizeof *sets; i++) {
        rd_device *d = i ? device(sets[i - 1], 3, RD_EXACT) : device("plain", 1, RD_EXACT);
        rd_matrix m = { w, RD_F32, VOCAB, DIM, NULL, RD_PACK_NONE, NULL };
        rd_pick_query q = { .n_rows = ROWS };
        rd_weight *head = NULL;
        rd_view v;
        rd_error err;

        if (!d) continue;
        cr_assert(!be->take(d, &m, false, &head, &err) && !be->alloc(d, ROWS, DIM, &v, &err));
        be->upload(d, v, x, &err);
        cr_assert(!be->pick(d, v, head, &q, i ? got : want, &err));
        for (int k = 0; i && k < ROWS; k++) {
            bool close_call = want[k].prob - want[k].second_prob < 1e-4f;

            cr_assert(close_call || got[k].token == want[k].token, "row %d", k);
            cr_assert_float_eq((double)got[k].prob, (double)want[k].prob, 1e-4);
        }
        be->release(d, &v);
        be->drop(d, head);
        be->close(d);
    }
    free(w);
    free(x);
    free(want);
    free(got);
}

Test(cpu, weights_that_are_not_finite_are_refused)
{
    float w[6] = { 1, 2, 3, 4, INFINITY, 6 };
    rd_matrix m = { w, RD_F32, 2, 3, NULL, RD_PACK_NONE, NULL };
    rd_device *d = device(NULL, 1, RD_FAST);
    rd_weight *out = NULL;
    rd_error err;

    cr_assert_eq(rd_cpu_backend()->take(d, &m, false, &out, &err), RD_INVALID);
    cr_assert_null(out);
    rd_cpu_backend()->close(d);
}

Test(cpu, e4m3_weights_are_their_numbers_times_the_scales_of_their_blocks)
{
    enum { ROWS = 150, COLS = 300, ACROSS = 3 };
    rd_random r = rd_random_seed(12);
    uint8_t *w = rd_alloc_array(ROWS * COLS, 1);
    float *wide = rd_alloc_array(ROWS * COLS, sizeof *wide), scale[2 * ACROSS];
    float *x = numbers(&r, 3 * COLS, 1.0f), a[3 * ROWS], b[3 * ROWS];
    rd_matrix m = { w, RD_F8_E4M3, ROWS, COLS, scale, RD_PACK_NONE, NULL };

    for (int i = 0; i < 2 * ACROSS; i++) scale[i] = 0.001f * (float)(i + 1);
    for (int i = 0; i < ROWS * COLS; i++) {
        w[i] = (uint8_t)(rd_random_u64(&r) & 0xbf); /* below the numbers that are none */
        wide[i] = rd_e4m3_to_f32(w[i]) * scale[i / COLS / 128 * ACROSS + i % COLS / 128];
    }
    for (int fast = 0; fast < 2; fast++) {
        rd_device *d = device(NULL, 2, fast ? RD_FAST : RD_EXACT);

        linear(d, a, x, wide, 3, COLS, ROWS);
        linear_of(d, b, x, &m, 3);
        cr_assert(!memcmp(a, b, sizeof a));
        rd_cpu_backend()->close(d);
    }
    free(w);
    free(wide);
    free(x);
}

Test(cpu, e4m3_weights_that_are_not_finite_or_have_no_scales_are_refused)
{
    for (int fault = 0; fault < 3; fault++)
        for (int fast = 0; fast < 2; fast++) {
            uint8_t w[6] = { 0x38, 0x38, 0x38, 0x38, fault == 0 ? 0xff : 0x38, 0x38 };
            float scale = fault == 1 ? INFINITY : 1.0f;
            rd_matrix m = { w, RD_F8_E4M3, 2, 3, fault == 2 ? NULL : &scale, RD_PACK_NONE, NULL };
            rd_device *d = device(NULL, 1, fast ? RD_FAST : RD_EXACT);
            rd_weight *out = NULL;
            rd_error err;

            cr_assert_eq(rd_cpu_backend()->take(d, &m, false, &out, &err), RD_INVALID, "%d", fault);
            cr_assert_null(out);
            rd_cpu_backend()->close(d);
        }
}

Test(cpu, e4m3_is_read_as_it_is_defined)
{
    static const struct {
        uint8_t bits;
        float is;
    } known[] = { { 0x00, 0.0f },     { 0x01, 0x1p-9f }, { 0x07, 0x1.cp-7f }, { 0x08, 0x1p-6f },
                  { 0x38, 1.0f },     { 0x3c, 1.5f },    { 0x7e, 448.0f },    { 0xfe, -448.0f },
                  { 0x81, -0x1p-9f }, { 0xb8, -1.0f } };

    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        cr_assert_eq(rd_e4m3_to_f32(known[i].bits), known[i].is, "%#x", known[i].bits);
    cr_assert(isnan(rd_e4m3_to_f32(0x7f)) && isnan(rd_e4m3_to_f32(0xff)));
}

/* Large enough that several threads lay it out, and odd in both directions. */
enum { LARGE_ROWS = 999, LARGE_COLS = 401 };

static uint16_t *large_bf16(void)
{
    rd_random r = rd_random_seed(9);
    uint16_t *w = rd_alloc_array(LARGE_ROWS * LARGE_COLS, sizeof *w);

    for (size_t i = 0; i < LARGE_ROWS * LARGE_COLS; i++)
        w[i] = rd_f32_to_bf16((float)rd_random_normal(&r));
    return w;
}

Test(cpu, bf16_weights_are_the_same_laid_out_by_threads_and_widened)
{
    rd_random r = rd_random_seed(10);
    uint16_t *w = large_bf16();
    float *wide = rd_alloc_array(LARGE_ROWS * LARGE_COLS, sizeof *wide);
    float *x = numbers(&r, 3 * LARGE_COLS, 1.0f), a[3 * LARGE_ROWS], b[3 * LARGE_ROWS];
    rd_matrix narrow = { w, RD_BF16, LARGE_ROWS, LARGE_COLS, NULL, RD_PACK_NONE, NULL };

    rd_widen(wide, w, RD_BF16, LARGE_ROWS * LARGE_COLS);
    for (int fast = 0; fast < 2; fast++) {
        rd_device *one = device(NULL, 1, fast ? RD_FAST : RD_EXACT),
                  *three = device(NULL, 3, fast ? RD_FAST : RD_EXACT);

        linear(one, a, x, wide, 3, LARGE_COLS, LARGE_ROWS);
        linear_of(three, b, x, &narrow, 3);
        cr_assert(!memcmp(a, b, sizeof a));
        rd_cpu_backend()->close(one);
        rd_cpu_backend()->close(three);
    }
    free(w);
    free(wide);
    free(x);
}

Test(cpu, the_first_row_that_is_not_finite_is_named)
{
    uint16_t *w = large_bf16();
    rd_matrix m = { w, RD_BF16, LARGE_ROWS, LARGE_COLS, NULL, RD_PACK_NONE, NULL };
    rd_device *d = device(NULL, 3, RD_FAST);
    rd_weight *out = NULL;
    rd_error err;

    w[700 * LARGE_COLS + LARGE_COLS - 1] = 0x7f80; /* infinity at a row's odd end */
    w[900 * LARGE_COLS] = 0xffc1;                  /* NaN */
    cr_assert_eq(rd_cpu_backend()->take(d, &m, false, &out, &err), RD_INVALID);
    cr_assert(strstr(err.text, "row 700 "), "%s", err.text);
    cr_assert_null(out);
    rd_cpu_backend()->close(d);
    free(w);
}
