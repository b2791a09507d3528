/* test_products.c - weights and dense products of the CUDA backend, on an emulated GPU, against sums in double.
 *
 * What a matrix became is read back by `embed` and held against the file's numbers first; products are then held against
 * those. Outputs are poisoned. The number of multiprocessors chooses the kernel: many take few rows, few take tiles.
 */
#include "core/base/memory.h"
#include "core/base/random.h"
#include "tests/plugins/cuda/backend.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* FP8: float32 that becomes E4M3; E4M3: a file's own. */
typedef enum kind { F32, F16, BF16, FP8, I8, PANEL8, PANEL4, E4M3, KINDS } kind;

static const char *const names[] = { "f32",  "f16",        "bf16",       "fp8",
                                     "int8", "int8-panel", "int4-panel", "e4m3" };

/* A matrix as a file has it, and its numbers. */
typedef struct source {
    rd_matrix m;
    void *data;
    float *scale;
    double *number; /* [rows, cols] */
} source;

static void clear(source *s)
{
    free(s->data);
    free(s->scale);
    free(s->number);
}

/* Halves near 0.05 without a conversion: sign, exponent 2^-7 to 2^-4, mantissa. */
static uint16_t random_half(rd_random *r)
{
    uint64_t x = rd_random_u64(r);

    return (uint16_t)((x & 0x8000u) | (8 + (x >> 16 & 3)) << 10 | (x >> 32 & 0x3ffu));
}

static source make(rd_random *r, kind k, int rows, int cols)
{
    size_t n = (size_t)rows * (size_t)cols, padded = rd_pack_panels(rows) * RD_PACK_ROWS;
    source s = { .number = rd_alloc_array(n, sizeof *s.number) };
    rd_pack p = k == PANEL8 ? RD_PACK_INT8 : k == PANEL4 ? RD_PACK_INT4 : RD_PACK_NONE;
    float *row = rd_alloc_array((size_t)cols, sizeof *row);
    size_t bytes = p ? rd_pack_panels(rows) * rd_pack_panel_bytes(p, cols) : n * sizeof(float);

    s.data = rd_try_alloc(bytes + 64);
    size_t across = ((size_t)cols + 127) / 128, blocks = across * (((size_t)rows + 127) / 128);

    s.scale = rd_alloc_array(padded + blocks, sizeof *s.scale);
    for (size_t i = 0; i < padded + blocks; i++)
        s.scale[i] = (k == PANEL4 ? 1e-4f : 1e-3f) * (0.5f + (float)rd_random_unit(r));
    for (size_t i = 0; p && i < bytes; i++) ((uint8_t *)s.data)[i] = (uint8_t)rd_random_u64(r);
    for (size_t i = 0; !p && i < n; i++) {
        float x = 0.1f * (float)rd_random_normal(r);
        uint16_t half = k == F16 ? random_half(r) : rd_f32_to_bf16(x);
        int8_t byte = (int8_t)rd_random_u64(r);

        if (k == F32 || k == FP8) memcpy((float *)s.data + i, &x, sizeof x);
        if (k == F16 || k == BF16) memcpy((uint16_t *)s.data + i, &half, sizeof half);
        if (k == E4M3 && (byte & 0x7f) == 0x7f) byte = 0x7e;
        if (k == I8 || k == E4M3) memcpy((int8_t *)s.data + i, &byte, 1);
        s.number[i] =
            k == F16    ? (double)rd_f16_to_f32(half)
            : k == BF16 ? (double)rd_bf16_to_f32(half)
            : k == E4M3
                ? (double)rd_e4m3_to_f32((uint8_t)byte) *
                      (double)s.scale[i / (size_t)cols / 128 * across + i % (size_t)cols / 128]
            : k == I8 ? (double)byte * (double)s.scale[i / (size_t)cols]
                      : (double)x;
    }
    for (int i = 0; p && i < rows; i++) {
        rd_unpack_row(p, s.data, s.scale, cols, i, row);
        for (int c = 0; c < cols; c++)
            s.number[(size_t)i * (size_t)cols + (size_t)c] = (double)row[c];
    }
    static const rd_dtype types[] = { RD_F32, RD_F16, RD_BF16, RD_F32,
                                      RD_I8,  RD_U8,  RD_U8,   RD_F8_E4M3 };

    s.m = (rd_matrix){ s.data, types[k], rows, cols, p || k == I8 || k == E4M3 ? s.scale : NULL,
                       p,      NULL, false };
    free(row);
    return s;
}

static float *numbers(rd_random *r, size_t n)
{
    float *x = rd_alloc_array(n + 1, sizeof *x);

    for (size_t i = 0; i < n; i++) x[i] = (float)rd_random_normal(r);
    return x;
}

static rd_device *device(rd_precision precision, rd_weight_form form)
{
    rd_device_options o = { .precision = precision, .weights = form };
    rd_device *d = NULL;
    rd_error err;

    cr_assert(!gpu_backend()->open(&o, &d, &err), "%s", err.text);
    return d;
}

static rd_view view(rd_device *d, const float *from, int rows, int cols)
{
    const rd_backend *be = gpu_backend();
    size_t n = (size_t)rows * (size_t)cols;
    float *poison = rd_alloc_array(n + 1, sizeof *poison);
    rd_view v = { 0 };
    rd_error err;

    for (size_t i = 0; i < n; i++) poison[i] = NAN;
    cr_assert(!be->alloc(d, rows, cols, &v, &err), "%s", err.text);
    cr_assert(!be->upload(d, v, from ? from : poison, &err), "%s", err.text);
    free(poison);
    return v;
}

static rd_weight *take(rd_device *d, const rd_matrix *m, bool exact)
{
    rd_weight *w = NULL;
    rd_error err;

    cr_assert(!gpu_backend()->take(d, m, exact, &w, &err), "%s", err.text);
    return w;
}

/* The numbers of a weight as the device has them. */
static float *read_back(rd_device *d, const rd_weight *w, int rows, int cols)
{
    const rd_backend *be = gpu_backend();
    float *out = rd_alloc_array((size_t)rows * (size_t)cols, sizeof *out);
    int32_t *token = rd_alloc_array((size_t)rows, sizeof *token);
    rd_view v = view(d, NULL, rows, cols);
    rd_error err;

    for (int r = 0; r < rows; r++) token[r] = r;
    cr_assert(!be->embed(d, v, w, token, &err), "%s", err.text);
    cr_assert(!be->download(d, out, v, &err), "%s", err.text);
    be->release(d, &v);
    free(token);
    return out;
}

/* y [rows, outputs] = x [rows, cols] times w [outputs, cols], in double. */
static double *multiply(const double *x, const float *w, int rows, int cols, int outputs)
{
    double *y = rd_alloc_array((size_t)rows * (size_t)outputs, sizeof *y);

    for (int r = 0; r < rows; r++)
        for (int o = 0; o < outputs; o++) {
            double sum = 0.0;

            for (int k = 0; k < cols; k++)
                sum += x[(size_t)r * (size_t)cols + (size_t)k] *
                       (double)w[(size_t)o * (size_t)cols + (size_t)k];
            y[(size_t)r * (size_t)outputs + (size_t)o] = sum;
        }
    return y;
}

static double *widen(const float *x, size_t n)
{
    double *y = rd_alloc_array(n, sizeof *y);

    for (size_t i = 0; i < n; i++) y[i] = (double)x[i];
    return y;
}

/* ||a - b|| / ||b||; NaN never passes a limit. */
static double far_from(const float *a, const double *b, size_t n)
{
    double error = 0.0, size = 0.0;

    for (size_t i = 0; i < n; i++) {
        error += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        size += b[i] * b[i];
    }
    return sqrt(error / (size > 0.0 ? size : 1.0));
}

static rd_weight_form form_of(kind k)
{
    return k == FP8 ? RD_FORM_FP8 : RD_FORM_STORED;
}

/* ---- weights ---- */

/* How far a number may be from the file's: bf16 half a step of 8 bits, E4M3 half a step of 4 bits or of its least one, where
 * the largest of a block is 448; whole numbers times a scale are exact. */
static double allowed(kind k, double x, double largest)
{
    if (k == F32 || k == F16) return fabs(x) / 256.0;
    if (k == FP8) return fmax(fabs(x) / 16.0, largest / 448.0 / 512.0 / 2.0) * 1.0001;
    return k == BF16 ? 0.0 : fabs(x) * 1e-7;
}

static double largest_of_block(const source *s, int row, int col)
{
    double top = 0.0;

    for (int r = row / 128 * 128; r < s->m.rows && r < row / 128 * 128 + 128; r++)
        for (int c = col / 128 * 128; c < s->m.cols && c < col / 128 * 128 + 128; c++)
            top = fmax(top, fabs(s->number[(size_t)r * (size_t)s->m.cols + (size_t)c]));
    return top;
}

Test(cuda_products, a_matrix_of_any_kind_becomes_its_numbers)
{
    GPU_OR_SKIP();
    static const int shapes[][2] = {
        { 2, 8 }, { 17, 96 }, { 40, 200 }, { 130, 129 }, { 260, 384 }
    };
    rd_random r = rd_random_seed(11);

    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int k = 0; k < KINDS; k++) {
            int rows = shapes[i][0], cols = shapes[i][1];
            source s = make(&r, (kind)k, rows, cols);
            rd_device *d = device(RD_FAST, form_of((kind)k));
            rd_weight *w = take(d, &s.m, false);
            float *got = read_back(d, w, rows, cols);

            for (int row = 0; row < rows; row++)
                for (int c = 0; c < cols; c++) {
                    size_t at = (size_t)row * (size_t)cols + (size_t)c;
                    double top = k == FP8 ? largest_of_block(&s, row, c) : 0.0;

                    cr_assert(fabs((double)got[at] - s.number[at]) <=
                                  allowed((kind)k, s.number[at], top),
                              "%s %d x %d: (%d, %d) is %g, not %g", names[k], rows, cols, row, c,
                              (double)got[at], s.number[at]);
                }
            gpu_backend()->drop(d, w);
            gpu_backend()->close(d);
            free(got);
            clear(&s);
        }
}

Test(cuda_products, an_exact_matrix_is_float32_to_the_bit)
{
    GPU_OR_SKIP();
    rd_random r = rd_random_seed(12);

    for (int k = 0; k < KINDS; k++) {
        source s = make(&r, (kind)k, 21, 131);
        rd_device *fast = device(RD_FAST, form_of((kind)k)),
                  *exact = device(RD_EXACT, RD_FORM_STORED);
        rd_weight *a = take(fast, &s.m, true), *b = take(exact, &s.m, false);
        float *got = read_back(fast, a, 21, 131), *same = read_back(exact, b, 21, 131);

        for (size_t i = 0; i < 21 * 131; i++) {
            cr_assert_eq(got[i], (float)s.number[i], "%s: number %zu", names[k], i);
            cr_assert_eq(same[i], (float)s.number[i], "%s: number %zu", names[k], i);
        }
        gpu_backend()->drop(fast, a);
        gpu_backend()->drop(exact, b);
        gpu_backend()->close(fast);
        gpu_backend()->close(exact);
        free(got);
        free(same);
        clear(&s);
    }
}

/* More than one buffer of the way there: 128 rows at a time and a rest. */
Test(cuda_products, a_matrix_larger_than_the_buffers_arrives_whole)
{
    GPU_OR_SKIP();
    enum { ROWS = 1100, COLS = 4400 };
    rd_random r = rd_random_seed(13);

    for (int k = 0; k < KINDS; k++) {
        if (k != F32 && k != FP8 && k != PANEL8 && k != E4M3) continue;
        source s = make(&r, (kind)k, ROWS, k == PANEL8 || k == E4M3 ? 4 * COLS : COLS);
        rd_device *d = device(RD_FAST, form_of((kind)k));
        rd_weight *w = take(d, &s.m, false);
        float *got = read_back(d, w, ROWS, s.m.cols);
        double worst = 0.0;

        for (size_t i = 0; i < (size_t)ROWS * (size_t)s.m.cols; i++)
            worst = fmax(worst, fabs((double)got[i] - s.number[i]) / (fabs(s.number[i]) + 2e-3));
        cr_assert(worst < 0.07, "%s: %g", names[k], worst);
        gpu_backend()->drop(d, w);
        gpu_backend()->close(d);
        free(got);
        clear(&s);
    }
}

Test(cuda_products, random_numbers_are_the_seeds_own_and_of_the_size_asked_for)
{
    GPU_OR_SKIP();
    enum { ROWS = 200, COLS = 300, ZEROS = 3 };
    static const struct {
        rd_pack pack;
        rd_precision precision;
        rd_weight_form form;
    } cases[] = { { RD_PACK_NONE, RD_FAST, RD_FORM_STORED },
                  { RD_PACK_NONE, RD_FAST, RD_FORM_FP8 },
                  { RD_PACK_NONE, RD_EXACT, RD_FORM_STORED },
                  { RD_PACK_INT8, RD_FAST, RD_FORM_STORED },
                  { RD_PACK_INT4, RD_FAST, RD_FORM_STORED } };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rd_random_fill fill = { .seed = 5, .rms = 0.02f, .zero_rows = ZEROS };
        rd_matrix m = { NULL, cases[i].pack ? RD_U8 : RD_BF16, ROWS, COLS, NULL, cases[i].pack,
                        &fill, false };
        rd_device *d = device(cases[i].precision, cases[i].form);
        rd_weight *w = take(d, &m, false), *again = take(d, &m, false);
        float *x = read_back(d, w, ROWS, COLS), *same = read_back(d, again, ROWS, COLS);
        double sum = 0.0, squares = 0.0, n = (ROWS - ZEROS) * COLS;

        fill.seed++;
        rd_weight *other = take(d, &m, false);
        float *differs = read_back(d, other, ROWS, COLS);

        cr_assert(!memcmp(x, same, ROWS * COLS * sizeof *x), "case %zu", i);
        cr_assert(memcmp(x, differs, ROWS * COLS * sizeof *x), "case %zu", i);
        for (int k = 0; k < ROWS * COLS; k++) {
            cr_assert(k >= ZEROS * COLS || x[k] == 0.0f, "case %zu", i);
            sum += (double)x[k];
            squares += (double)x[k] * (double)x[k];
        }
        cr_assert_float_eq(sqrt(squares / n), 0.02, 0.0004, "case %zu: %g", i, sqrt(squares / n));
        cr_assert_float_eq(sum / n, 0.0, 0.0004, "case %zu: %g", i, sum / n);
        gpu_backend()->drop(d, w);
        gpu_backend()->drop(d, again);
        gpu_backend()->drop(d, other);
        gpu_backend()->close(d);
        free(x);
        free(same);
        free(differs);
    }
}

Test(cuda_products, a_number_that_is_not_finite_is_refused_with_its_row)
{
    GPU_OR_SKIP();
    static const float odd[] = { NAN, INFINITY, -INFINITY };
    rd_random r = rd_random_seed(14);

    for (int k = 0; k < I8; k++)
        for (size_t i = 0; i < 3; i++)
            for (int exact = 0; exact < 2; exact++) {
                source s = make(&r, (kind)k, 200, 133);
                rd_device *d = device(RD_FAST, form_of((kind)k));
                rd_weight *w = NULL;
                rd_error err = { 0 };
                uint16_t half = k == BF16 ? rd_f32_to_bf16(odd[i])
                                : i == 0  ? 0x7e01
                                : i == 1  ? 0x7c00
                                          : 0xfc00;

                for (int row = 137; row < 200; row += 30) { /* the first of several */
                    size_t at = (size_t)row * 133 + 132;

                    if (k == F32 || k == FP8)
                        memcpy((float *)s.data + at, &odd[i], sizeof odd[i]);
                    else
                        memcpy((uint16_t *)s.data + at, &half, sizeof half);
                }
                cr_assert_eq(gpu_backend()->take(d, &s.m, exact, &w, &err), RD_INVALID, "%s",
                             names[k]);
                cr_assert(strstr(err.text, "row 137 "), "%s", err.text);
                cr_assert_null(w);
                gpu_backend()->close(d);
                clear(&s);
            }
}

Test(cuda_products, a_bad_scale_is_refused_with_its_row)
{
    GPU_OR_SKIP();
    static const float bad[] = { NAN, INFINITY, -1.0f };
    rd_random r = rd_random_seed(15);

    for (int k = I8; k <= PANEL4; k++)
        for (size_t i = 0; i < (k == I8 ? 2 : 3);
             i++) { /* rows of plain int8 may be turned round */
            source s = make(&r, (kind)k, 40, 100);
            rd_device *d = device(RD_FAST, RD_FORM_STORED);
            rd_weight *w = NULL;
            rd_error err = { 0 };

            s.scale[23] = bad[i];
            cr_assert_eq(gpu_backend()->take(d, &s.m, false, &w, &err), RD_INVALID, "%s",
                         names[k]);
            cr_assert(strstr(err.text, "row 23 "), "%s", err.text);
            cr_assert_null(w);
            gpu_backend()->close(d);
            clear(&s);
        }
}

Test(cuda_products, e4m3_that_is_not_finite_or_has_no_scales_is_refused)
{
    GPU_OR_SKIP();
    rd_random r = rd_random_seed(17);

    for (int exact = 0; exact < 2; exact++)
        for (int fault = 0; fault < 3; fault++) {
            source s = make(&r, E4M3, 300, 200);
            rd_device *d = device(RD_FAST, RD_FORM_STORED);
            rd_weight *w = NULL;
            rd_error err = { 0 };

            if (fault == 0) ((uint8_t *)s.data)[130 * 200 + 199] = 0xff;
            if (fault == 1)
                s.scale[2 * 2 + 1] = NAN; /* the third block of rows, the second of columns */
            if (fault == 2) s.m.scale = NULL;
            cr_assert_eq(gpu_backend()->take(d, &s.m, exact, &w, &err), RD_INVALID);
            cr_assert(strstr(err.text, fault == 0   ? "row 130 "
                                       : fault == 1 ? "row 256 "
                                                    : "without scales"),
                      "%s", err.text);
            cr_assert_null(w);
            gpu_backend()->close(d);
            clear(&s);
        }
}

Test(cuda_products, shapes_that_cannot_be_are_refused)
{
    GPU_OR_SKIP();
    static const int shapes[][2] = { { 0, 4 }, { 4, 0 }, { -1, 4 }, { INT32_MAX, INT32_MAX } };
    float one = 1.0f;
    rd_device *d = device(RD_FAST, RD_FORM_STORED);

    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        rd_matrix m = { &one, RD_F32, shapes[i][0], shapes[i][1], NULL, RD_PACK_NONE, NULL, false };
        rd_weight *w = NULL;
        rd_error err = { 0 };

        cr_assert_eq(gpu_backend()->take(d, &m, false, &w, &err), RD_INVALID);
        cr_assert_null(w);
    }
    gpu_backend()->close(d);
}

#ifdef RD_TEST_EMULATED
Test(cuda_products, no_memory_says_how_much_was_needed_and_free)
{
    enum { ROWS = 3000, COLS = 2048 };
    rd_random r = rd_random_seed(16);
    source s = make(&r, BF16, ROWS, COLS), small = make(&r, BF16, 16, 16);
    rd_device *d = device(RD_FAST, RD_FORM_STORED);
    size_t before;
    rd_device_info info;
    rd_weight *w = NULL;
    rd_error err = { 0 };

    gpu_backend()->drop(d, take(d, &small.m, false)); /* the buffers are there */
    gpu_backend()->describe(d, &info);
    before = info.bytes;
    rd_emulated_memory(rd_emulated_held() + (4 << 20));
    cr_assert_eq(gpu_backend()->take(d, &s.m, false, &w, &err), RD_NO_MEMORY);
    cr_assert(strstr(err.text, "3000 x 2048: 12 MB wanted") && strstr(err.text, "MB are free"),
              "%s", err.text);
    cr_assert_null(w);
    gpu_backend()->describe(d, &info);
    cr_assert_eq(info.bytes, before);
    rd_emulated_memory((size_t)1 << 30);
    gpu_backend()->drop(d, take(d, &s.m, false));
    gpu_backend()->close(d);
    cr_assert_eq(rd_emulated_alive(), 0);
    clear(&s);
    clear(&small);
}
#endif

/* ---- products ---- */

/* rows, cols, outputs */
static const int shapes[][3] = { { 1, 8, 1 },       { 7, 96, 15 },    { 31, 128, 16 },
                                 { 32, 200, 17 },   { 33, 384, 100 }, { 65, 2048, 40 },
                                 { 129, 200, 300 }, { 1, 2048, 512 }, { 16, 384, 33 },
                                 { 9, 1100, 64 } };

static void check_linear(kind k, rd_precision precision, int processors, const int *shape,
                         double limit)
{
    const rd_backend *be = gpu_backend();
    int rows = shape[0], cols = shape[1], outputs = shape[2];
    size_t n = (size_t)rows * (size_t)outputs;
    rd_random r = rd_random_seed((uint64_t)(rows * 31 + cols * 7 + outputs));
    source s = make(&r, k, outputs > 1 ? outputs : 1, cols);
    float *x = numbers(&r, (size_t)rows * (size_t)cols), *got = rd_alloc_array(n, sizeof *got);
    rd_error err;

    rd_emulated_device(90, processors);
    rd_device *d = device(precision, precision == RD_EXACT ? RD_FORM_STORED : form_of(k));
    rd_weight *w = take(d, &s.m, false);
    float *number = read_back(d, w, outputs, cols);
    double *wide = widen(x, (size_t)rows * (size_t)cols),
           *want = multiply(wide, number, rows, cols, outputs);
    rd_view a = view(d, x, rows, cols), b = view(d, NULL, rows, outputs);

    cr_assert(!be->linear(d, b, a, w, &err), "%s", err.text);
    cr_assert(!be->download(d, got, b, &err), "%s", err.text);
    double error = far_from(got, want, n);

    cr_assert(error < limit, "%s, %d processors, [%d, %d] by %d: %g", names[k], processors, rows,
              cols, outputs, error);
    be->release(d, &a);
    be->release(d, &b);
    be->drop(d, w);
    be->close(d);
    free(x);
    free(got);
    free(number);
    free(wide);
    free(want);
    clear(&s);
}

static const double half_limit = 5e-3, exact_limit = 1e-6;

Test(cuda_products, linear_of_few_rows_of_every_form_is_the_product)
{
    GPU_OR_SKIP();
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int k = 0; k < KINDS; k++) check_linear((kind)k, RD_FAST, 132, shapes[i], half_limit);
}

Test(cuda_products, linear_by_tiles_of_every_form_is_the_product)
{
    GPU_OR_SKIP();
    static const int many[][3] = {
        { 65, 96, 17 }, { 129, 200, 300 }, { 200, 384, 128 }, { 70, 8, 1 }
    };

    for (size_t i = 0; i < sizeof many / sizeof *many; i++)
        for (int k = 0; k < KINDS; k++) {
            check_linear((kind)k, RD_FAST, 1, many[i], half_limit);  /* 128 rows */
            check_linear((kind)k, RD_FAST, 10, many[i], half_limit); /* some of them 64 */
        }
}

Test(cuda_products, linear_in_float32_is_exact_but_for_the_last_bits)
{
    GPU_OR_SKIP();
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        check_linear(F32, RD_EXACT, 132, shapes[i], exact_limit);
        check_linear(PANEL4, RD_EXACT, 132, shapes[i], exact_limit);
    }
}

Test(cuda_products, the_order_of_threads_changes_no_bit)
{
    GPU_OR_SKIP();
    enum { ROWS = 70, COLS = 520, OUT = 140 };
    const rd_backend *be = gpu_backend();
    rd_random r = rd_random_seed(21);
    float *x = numbers(&r, ROWS * COLS), *first = rd_alloc_array(ROWS * OUT, sizeof *first);
    float *again = rd_alloc_array(ROWS * OUT, sizeof *again);

    for (int processors = 1; processors <= 132; processors += 131)
        for (int k = 0; k < KINDS; k++) {
            source s = make(&r, (kind)k, OUT, COLS);

            rd_emulated_device(90, processors);
            for (uint64_t seed = 0; seed < 4; seed++) {
                rd_device *d = device(RD_FAST, form_of((kind)k));
                rd_error err;

                rd_emulated_order(seed);
                rd_weight *w = take(d, &s.m, false);
                rd_view a = view(d, x, ROWS, COLS), b = view(d, NULL, ROWS, OUT);

                cr_assert(!be->linear(d, b, a, w, &err), "%s", err.text);
                cr_assert(!be->download(d, seed ? again : first, b, &err), "%s", err.text);
                cr_assert(!seed || !memcmp(first, again, ROWS * OUT * sizeof *first), "%s",
                          names[k]);
                be->release(d, &a);
                be->release(d, &b);
                be->drop(d, w);
                be->close(d);
            }
            clear(&s);
        }
    free(x);
    free(first);
    free(again);
}

static void check_mlp(kind k, rd_precision precision, int processors, const int *shape,
                      double limit)
{
    const rd_backend *be = gpu_backend();
    int rows = shape[0], hidden = shape[1], width = shape[2];
    size_t n = (size_t)rows * (size_t)hidden;
    rd_random r = rd_random_seed((uint64_t)(rows + 3 * hidden + 5 * width));
    source from[3] = { make(&r, k, width, hidden), make(&r, k, width, hidden),
                       make(&r, k, hidden, width) };
    float *x = numbers(&r, n), *got = rd_alloc_array(n, sizeof *got), *number[3];
    rd_weight *w[3];
    rd_error err;

    rd_emulated_device(90, processors);
    rd_device *d = device(precision, precision == RD_EXACT ? RD_FORM_STORED : form_of(k));

    for (int i = 0; i < 3; i++) {
        w[i] = take(d, &from[i].m, false);
        number[i] = read_back(d, w[i], from[i].m.rows, from[i].m.cols);
    }
    double *wide = widen(x, n), *h = multiply(wide, number[0], rows, hidden, width);
    double *up = multiply(wide, number[1], rows, hidden, width);

    for (int i = 0; i < rows * width; i++) h[i] = h[i] / (1.0 + exp(-h[i])) * up[i];
    double *want = multiply(h, number[2], rows, width, hidden);
    rd_mlp m = { w[0], w[1], w[2] };
    rd_view a = view(d, x, rows, hidden), b = view(d, NULL, rows, hidden);

    for (int again = 0; again < 2;
         again++) { /* scratch and halves of the first time are no help to the second */
        cr_assert(!be->mlp(d, b, a, &m, &err), "%s", err.text);
        cr_assert(!be->download(d, got, b, &err), "%s", err.text);
        double error = far_from(got, want, n);

        cr_assert(error < limit, "%s, %d processors, [%d, %d] by %d: %g", names[k], processors,
                  rows, hidden, width, error);
    }
    be->release(d, &a);
    be->release(d, &b);
    for (int i = 0; i < 3; i++) {
        be->drop(d, w[i]);
        clear(&from[i]);
        free(number[i]);
    }
    be->close(d);
    free(x);
    free(got);
    free(wide);
    free(h);
    free(up);
    free(want);
}

Test(cuda_products, mlp_of_every_form_is_the_three_products)
{
    GPU_OR_SKIP();
    /* rows, hidden, width */
    static const int mlps[][3] = {
        { 1, 96, 15 }, { 7, 200, 130 }, { 16, 128, 64 }, { 33, 640, 100 }, { 70, 130, 200 }
    };

    for (size_t i = 0; i < sizeof mlps / sizeof *mlps; i++)
        for (int k = 0; k < KINDS; k++) check_mlp((kind)k, RD_FAST, 132, mlps[i], half_limit);
}

Test(cuda_products, mlp_by_tiles_is_the_three_products)
{
    GPU_OR_SKIP();
    static const int mlps[][3] = { { 129, 130, 200 }, { 66, 384, 15 } };

    for (size_t i = 0; i < sizeof mlps / sizeof *mlps; i++)
        for (int k = 0; k < KINDS; k++) {
            check_mlp((kind)k, RD_FAST, 1, mlps[i], half_limit);
            check_mlp((kind)k, RD_FAST, 9, mlps[i], half_limit);
        }
}

Test(cuda_products, mlp_in_float32_is_exact_but_for_the_last_bits)
{
    GPU_OR_SKIP();
    static const int mlps[][3] = { { 1, 96, 15 }, { 33, 200, 130 } };

    for (size_t i = 0; i < sizeof mlps / sizeof *mlps; i++)
        check_mlp(F32, RD_EXACT, 132, mlps[i], exact_limit);
}

Test(cuda_products, a_weight_of_another_shape_is_refused)
{
    GPU_OR_SKIP();
    const rd_backend *be = gpu_backend();
    rd_random r = rd_random_seed(31);
    source s = make(&r, BF16, 5, 6);
    rd_device *d = device(RD_FAST, RD_FORM_STORED);
    rd_weight *w = take(d, &s.m, false);
    rd_view six = view(d, NULL, 2, 6), five = view(d, NULL, 2, 5), three = view(d, NULL, 3, 5);
    rd_mlp m = { w, w, w };
    rd_error err = { 0 };

    cr_assert_eq(be->linear(d, five, five, w, &err), RD_INVALID);
    cr_assert(strstr(err.text, "[2, 5] from [2, 5] by a weight of 5 x 6"), "%s", err.text);
    cr_assert_eq(be->linear(d, six, six, w, &err), RD_INVALID);
    cr_assert_eq(be->linear(d, three, six, w, &err), RD_INVALID);
    cr_assert_eq(be->mlp(d, six, six, &m, &err), RD_INVALID);
    be->release(d, &six);
    be->release(d, &five);
    be->release(d, &three);
    be->drop(d, w);
    be->close(d);
    clear(&s);
}
