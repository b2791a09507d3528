/* test_pick.c - the head's picks against plain C, in every form that a head can have: with numbers whose products are exact, so
 * that ties are ties, and with random ones.
 *
 * A head in a packed form stands beside its numbers in float32, which plain C multiplies.
 */
#include "core/base/pack.h"
#include "tests/plugins/cuda/sides.h"

enum { ROWS = 197, MANY = 531, VOCABULARY = 523, COLS = 200 };

static const int32_t banned[] = { 0, 1, 2, 130, 131, 255, 256, 384, 385, 400, 512, 522 };

typedef struct work {
    const char *name;
    rd_matrix head, plain; /* plain: the same numbers in float32 */
    rd_precision precision;
    rd_weight_form form;
    bool exact; /* products without rounding on both sides */
    float *x;   /* [ROWS, COLS] */
} work;

/* Weights that all forms have exactly: whole numbers up to 7 in each 128 x 128 numbers, times a power of two. */
static float *whole_numbers(rd_random *r)
{
    float *w = rd_alloc_array((size_t)VOCABULARY * COLS, sizeof *w);

    for (int i = 0; i < VOCABULARY * COLS; i++)
        w[i] = (float)((int)(rd_random_below(r, 15)) - 7) / 64.0f;
    for (int row = 0; row < VOCABULARY; row++)
        for (int col = 0; col < COLS; col += 100)
            w[row * COLS + col] = row % 2 ? 7.0f / 64.0f : -7.0f / 64.0f;
    /* some rows are the same as others: ties, near and far */
    for (int row = 300; row < 330; row++)
        memcpy(w + (size_t)(row + (row % 2 ? 16 : 190)) * COLS, w + (size_t)row * COLS,
               COLS * sizeof *w);
    return w;
}

/* ---- packed heads ---- */

/* A head's bytes, their scales, and the numbers that they are. */
typedef struct packed {
    rd_matrix head, plain;
    uint8_t *data;
    float *scale, *number;
} packed;

static packed packed_new(rd_pack p, rd_dtype dtype)
{
    size_t panels = rd_pack_panels(VOCABULARY), n = (size_t)VOCABULARY * COLS;
    size_t bytes = p ? panels * rd_pack_panel_bytes(p, COLS) : n;
    packed h = { .data = rd_try_alloc(bytes),
                 .scale = rd_alloc_array(panels * RD_PACK_ROWS, sizeof(float)),
                 .number = rd_alloc_array(n, sizeof(float)) };

    cr_assert(h.data);
    memset(h.data, 0, bytes);
    h.plain = (rd_matrix){ .data = h.number, .dtype = RD_F32, .rows = VOCABULARY, .cols = COLS };
    h.head = h.plain;
    h.head.data = h.data;
    h.head.dtype = dtype;
    h.head.pack = p;
    h.head.scale = h.scale;
    return h;
}

static void packed_free(packed *h)
{
    free(h->data);
    free(h->scale);
    free(h->number);
}

/* int4 of whole numbers up to 7 in 64 (`w`), times a step of 1, 2 or 3 for each 32 columns. */
static packed whole_int4(const float *w)
{
    packed h = packed_new(RD_PACK_INT4, RD_U8);
    size_t panel = rd_pack_panel_bytes(RD_PACK_INT4, COLS);

    for (size_t i = 0; i < rd_pack_panels(VOCABULARY) * RD_PACK_ROWS; i++)
        h.scale[i] = 1.0f / 64.0f;
    for (int i = 0; i < VOCABULARY * COLS; i++) {
        int row = i / COLS, col = i % COLS, r = row % RD_PACK_ROWS, at = col % RD_PACK_GROUP;
        int group = col % RD_PACK_COLS / RD_PACK_GROUP, q = (int)(w[i] * 64.0f) + 8;
        uint8_t *cell = h.data + (size_t)(row / RD_PACK_ROWS) * panel +
                        (size_t)(col / RD_PACK_COLS) * RD_PACK_CELL;

        cell[(group * 4 + at % 16 / 4) * RD_PACK_VECTOR + 4 * r + at % 4] |=
            (uint8_t)(at < 16 ? q : q << 4);
        cell[RD_PACK_STEPS + group * RD_PACK_ROWS + r] = (uint8_t)(1 + col / RD_PACK_GROUP % 3);
    }
    for (int row = 0; row < VOCABULARY; row++)
        rd_unpack_row(RD_PACK_INT4, h.data, h.scale, COLS, row, h.number + (size_t)row * COLS);
    return h;
}

/* Random bytes as panels, or as E4M3 with a scale for 128 x 128; numbers of a size that makes logits of a few. */
static packed random_head(rd_random *r, rd_pack p)
{
    packed h = packed_new(p, p ? RD_U8 : RD_F8_E4M3);
    size_t scales = rd_pack_panels(VOCABULARY) * RD_PACK_ROWS, across = (COLS + 127) / 128;
    size_t bytes =
        p ? rd_pack_panels(VOCABULARY) * rd_pack_panel_bytes(p, COLS) : (size_t)VOCABULARY * COLS;
    float by = p == RD_PACK_INT8 ? 2e-3f : p == RD_PACK_INT4 ? 2e-4f : 1e-3f;

    for (size_t i = 0; i < scales; i++) h.scale[i] = by * (0.5f + (float)rd_random_unit(r));
    for (size_t i = 0; i < bytes; i++) {
        h.data[i] = (uint8_t)rd_random_u64(r);
        if (!p && (h.data[i] & 0x7f) == 0x7f) h.data[i] = 0; /* not NaN */
    }
    for (int row = 0; row < VOCABULARY; row++) {
        float *to = h.number + (size_t)row * COLS;

        if (p) rd_unpack_row(p, h.data, h.scale, COLS, row, to);
        for (int c = 0; !p && c < COLS; c++)
            to[c] = rd_e4m3_to_f32(h.data[row * COLS + c]) *
                    h.scale[(size_t)(row / 128) * across + (size_t)(c / 128)];
    }
    return h;
}

/* ---- both sides ---- */

static void pick_of(side s, const work *k, const rd_matrix *head, const rd_pick_query *q,
                    rd_pick *out)
{
    rd_weight *w = weight_of(s, head, false);
    rd_view x = view_of(s, k->x, ROWS, COLS);
    rd_error err;

    memset(out, 0xa5, (size_t)q->n_rows * sizeof *out);
    cr_assert_eq(s.be->begin(s.d, ROWS, &err), RD_OK, "%s", err.text);
    cr_assert_eq(s.be->pick(s.d, x, w, q, out, &err), RD_OK, "%s: %s", k->name, err.text);
    cr_assert_eq(s.be->end(s.d, &err), RD_OK, "%s", err.text);
    s.be->release(s.d, &x);
    s.be->drop(s.d, w);
}

static bool near(float a, float b, float by)
{
    return fabsf(a - b) <= by * (0.01f + fabsf(b));
}

static void compare(const work *k, int n, bool listed, bool watch, int n_banned, int32_t limit)
{
    int32_t rows[MANY], watched[MANY];
    rd_pick want[MANY], got[MANY];
    side cpu = cpu_side(), gpu = gpu_side(k->precision, k->form);
    rd_pick_query q = { .banned = n_banned ? banned : NULL,
                        .n_banned = n_banned,
                        .limit = limit,
                        .rows = listed ? rows : NULL,
                        .watched = watch ? watched : NULL,
                        .n_rows = n };
    float by = k->exact ? 1e-5f : 0.1f;

    for (int i = 0; i < n; i++) rows[i] = (i * 31 + 5) % ROWS;
    for (int i = 0; i < n; i++)
        watched[i] = i % 4 == 0 ? -1 : i % 4 == 1 ? 131 : (i * 211 + 3) % VOCABULARY;
    pick_of(cpu, k, &k->plain, &q, want);
    pick_of(gpu, k, &k->head, &q, got);
    for (int i = 0; i < n; i++) {
        const rd_pick *a = &got[i], *b = &want[i];
        /* of equal ones the lower id; plain C has some other where the second best of a chunk ties with the best before */
        bool same = a->token == b->token && a->second <= b->second &&
                    (a->second < 0) == (b->second < 0) && near(a->second_prob, b->second_prob, by);

        /* rounding may swap two that are close */
        if (!k->exact && !same)
            same = near(a->prob, b->prob, 0.1f) && near(a->second_prob, b->second_prob, 0.1f);
        cr_assert(same && near(a->prob, b->prob, by) && near(a->second_prob, b->second_prob, by) &&
                      near(a->watched_prob, b->watched_prob, by),
                  "%s, row %d of %d: %d %g, %d %g, %g; plain %d %g, %d %g, %g", k->name, i, n,
                  a->token, (double)a->prob, a->second, (double)a->second_prob,
                  (double)a->watched_prob, b->token, (double)b->prob, b->second,
                  (double)b->second_prob, (double)b->watched_prob);
    }
    side_close(&cpu);
    side_close(&gpu);
}

static void compare_all(const work *k)
{
    compare(k, 1, true, true, 0, 0);
    compare(k, 7, true, false, 12, 0);
    compare(k, 16, false, true, 5, 400);
    compare(k, 31, true, true, 12, 520);
    compare(k, 64, false, true, 12, 128);
    compare(k, 65, true, true, 5, 0);
    compare(k, 128, false, false, 12, 0);
    compare(k, 192, true, true, 3, 1);
    compare(k, ROWS, false, true, 12, 2000);
}

static float *eighths(rd_random *r)
{
    float *x = rd_alloc_array((size_t)ROWS * COLS, sizeof *x);

    for (int i = 0; i < ROWS * COLS; i++) x[i] = (float)((int)(rd_random_below(r, 33)) - 16) / 8.0f;
    return x;
}

Test(cuda_pick, of_numbers_without_rounding_agrees_with_plain_c)
{
    GPU_OR_SKIP();
    rd_random r = rd_random_seed(21);
    float *w = whole_numbers(&r), *x = eighths(&r);
    rd_matrix f32 = { .data = w, .dtype = RD_F32, .rows = VOCABULARY, .cols = COLS };
    int8_t *bytes = rd_alloc_array((size_t)VOCABULARY * COLS, 1);
    float scale[VOCABULARY];

    for (int i = 0; i < VOCABULARY * COLS; i++) bytes[i] = (int8_t)(w[i] * 64.0f);
    for (int i = 0; i < VOCABULARY; i++) scale[i] = 1.0f / 64.0f;
    rd_matrix i8 = {
        .data = bytes, .dtype = RD_I8, .rows = VOCABULARY, .cols = COLS, .scale = scale
    };
    packed i4 = whole_int4(w);
    const work works[] = {
        { "f32", f32, f32, RD_EXACT, RD_FORM_STORED, true, x },
        { "i8 exact", i8, f32, RD_EXACT, RD_FORM_STORED, true, x },
        { "bf16", f32, f32, RD_FAST, RD_FORM_STORED, true, x },
        { "i8", i8, f32, RD_FAST, RD_FORM_STORED, true, x },
        { "fp8", f32, f32, RD_FAST, RD_FORM_FP8, true, x },
        { "int4 exact", i4.head, i4.plain, RD_EXACT, RD_FORM_STORED, true, x },
        { "int4", i4.head, i4.plain, RD_FAST, RD_FORM_STORED, true, x },
    };

    for (size_t i = 0; i < sizeof works / sizeof *works; i++) compare_all(&works[i]);
    free(w);
    free(x);
    free(bytes);
    packed_free(&i4);
}

Test(cuda_pick, of_random_numbers_agrees_with_plain_c)
{
    GPU_OR_SKIP();
    rd_random r = rd_random_seed(22);
    float *w = normals(&r, (size_t)VOCABULARY * COLS, 0.15f),
          *x = normals(&r, (size_t)ROWS * COLS, 1.0f);
    rd_matrix f32 = { .data = w, .dtype = RD_F32, .rows = VOCABULARY, .cols = COLS };
    packed i8 = random_head(&r, RD_PACK_INT8), i4 = random_head(&r, RD_PACK_INT4),
           e4m3 = random_head(&r, RD_PACK_NONE);
    const work works[] = {
        { "f32", f32, f32, RD_EXACT, RD_FORM_STORED, true, x },
        { "bf16", f32, f32, RD_FAST, RD_FORM_STORED, false, x },
        { "int8 panels", i8.head, i8.plain, RD_FAST, RD_FORM_STORED, false, x },
        { "int4 panels", i4.head, i4.plain, RD_FAST, RD_FORM_STORED, false, x },
        { "int4 exact", i4.head, i4.plain, RD_EXACT, RD_FORM_STORED, true, x },
        { "stored e4m3", e4m3.head, e4m3.plain, RD_FAST, RD_FORM_STORED, false, x },
    };

    for (size_t i = 0; i < sizeof works / sizeof *works; i++) {
        compare(&works[i], 16, false, true, 5, 400);
        compare(&works[i], 31, true, false, 0, 0);
        compare(&works[i], ROWS, true, true, 12, 520);
    }
    free(w);
    free(x);
    packed_free(&i8);
    packed_free(&i4);
    packed_free(&e4m3);
}

/* What several launches look at; rows of x come more than once. */
Test(cuda_pick, of_many_rows_agrees_with_plain_c)
{
    GPU_OR_SKIP();
    rd_random r = rd_random_seed(25);
    float *w = whole_numbers(&r), *x = eighths(&r);
    rd_matrix f32 = { .data = w, .dtype = RD_F32, .rows = VOCABULARY, .cols = COLS };
    work exact = { "f32", f32, f32, RD_EXACT, RD_FORM_STORED, true, x },
         fast = { "bf16", f32, f32, RD_FAST, RD_FORM_STORED, true, x };

    compare(&exact, MANY, true, true, 12, 0);
    compare(&fast, MANY, true, true, 12, 0);
    free(w);
    free(x);
}

/* As core/model/forward wants to see it: no token, or a probability that is not finite. */
Test(cuda_pick, what_is_not_a_number_shows)
{
    GPU_OR_SKIP();
    rd_random r = rd_random_seed(23);
    float *w = whole_numbers(&r), *x = eighths(&r);
    rd_matrix f32 = { .data = w, .dtype = RD_F32, .rows = VOCABULARY, .cols = COLS };
    int32_t one[] = { 4 };
    rd_pick_query all = { .n_rows = 3 },
                  none = { .banned = one, .n_banned = 1, .limit = 1, .n_rows = 3 },
                  nobody = {
                      .banned = (const int32_t[]){ 0 }, .n_banned = 1, .limit = 1, .n_rows = 3
                  };
    rd_pick out[3];

    for (int fast = 0; fast < 2; fast++) {
        side gpu = gpu_side(fast ? RD_FAST : RD_EXACT, RD_FORM_STORED);
        work k = { "nan", f32, f32, RD_FAST, RD_FORM_STORED, true, x };

        x[COLS + 3] = NAN;
        pick_of(gpu, &k, &f32, &all, out);
        cr_assert(out[0].token >= 0 && isfinite(out[0].prob));
        cr_assert(out[1].token < 0 || !isfinite(out[1].prob));
        cr_assert(out[2].token >= 0 && isfinite(out[2].prob));
        x[COLS + 3] = 0.5f;
        pick_of(gpu, &k, &f32, &none, out);
        cr_assert(out[1].token == 0 && out[1].second == -1 && out[1].prob == 1.0f &&
                  out[1].second_prob == 0.0f);
        pick_of(gpu, &k, &f32, &nobody, out);
        cr_assert(out[1].token == -1 && out[1].second == -1 && out[1].prob == 0.0f);
        side_close(&gpu);
    }
    free(w);
    free(x);
}

Test(cuda_pick, rows_that_are_not_there_are_refused)
{
    GPU_OR_SKIP();
    rd_random r = rd_random_seed(24);
    float *w = whole_numbers(&r), *x = eighths(&r);
    rd_matrix f32 = { .data = w, .dtype = RD_F32, .rows = VOCABULARY, .cols = COLS };
    side gpu = gpu_side(RD_FAST, RD_FORM_STORED);
    rd_weight *head = weight_of(gpu, &f32, false);
    rd_view v = view_of(gpu, x, ROWS, COLS), narrow = view_of(gpu, x, 4, COLS - 1);
    int32_t far[] = { 0, ROWS }, below[] = { -1 };
    rd_pick_query a = { .rows = far, .n_rows = 2 }, b = { .rows = below, .n_rows = 1 },
                  c = { .n_rows = ROWS + 1 }, d = { .n_rows = 1 }, nothing = { .n_rows = 0 };
    rd_pick out[ROWS + 1];
    rd_error err;

    cr_assert_eq(gpu.be->pick(gpu.d, v, head, &a, out, &err), RD_INVALID);
    cr_assert_eq(gpu.be->pick(gpu.d, v, head, &b, out, &err), RD_INVALID);
    cr_assert_eq(gpu.be->pick(gpu.d, v, head, &c, out, &err), RD_INVALID);
    cr_assert_eq(gpu.be->pick(gpu.d, narrow, head, &d, out, &err), RD_INVALID);
    cr_assert_eq(gpu.be->pick(gpu.d, v, head, &nothing, out, &err), RD_OK);
    side_close(&gpu);
    free(w);
    free(x);
}
