/* test_moe.c - router and experts on a GPU beside plain C on the CPU.
 *
 * Rows and router are whole multiples of small powers of two, so that both sides' logits are the same to the last bit, ties
 * and all, and choices must be equal. Experts' weights are numbers that the form under test has exactly; the CPU gets them as
 * float32. So all that is left are the roundings of activations: to bf16, to f16, or none.
 */
#include "tests/plugins/cuda/sides.h"

#include "core/base/pack.h"

typedef enum kind { F32, BF16, FP8, INT8, INT4, KINDS } kind;

static const char *const names[KINDS] = { "f32", "bf16", "fp8", "int8", "int4" };
/* Of the difference to the CPU's length. */
static const double limits[KINDS] = { 2e-6, 1e-2, 2e-3, 2e-3, 2e-3 };

typedef struct shape {
    const char *what;
    int rows, hidden, width, experts, top_k, groups, groups_open, capacity, window, shared;
    int favourite; /* an expert that all rows choose; 0: none */
    int branch_first, branch_size, counts[3];
} shape;

static const shape shapes[] = {
    { "one expert", 1, 64, 16, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, { 0 } },
    { "a few rows", 5, 96, 48, 8, 2, 1, 1, 0, 0, 48, 0, 0, 0, { 0 } },
    { "wide rows", 32, 384, 48, 8, 2, 0, 0, 0, 0, 16, 0, 0, 0, { 0 } },
    { "wide experts", 9, 64, 512, 8, 2, 1, 1, 0, 0, 200, 0, 0, 0, { 0 } },
    { "groups", 33, 64, 48, 24, 8, 4, 2, 0, 0, 96, 0, 0, 0, { 0 } },
    { "groups with too few experts", 7, 64, 16, 24, 8, 8, 1, 0, 0, 16, 0, 0, 0, { 0 } },
    { "groups and a rest", 7, 64, 16, 26, 3, 8, 2, 0, 0, 0, 0, 0, 0, { 0 } },
    { "windows", 100, 96, 48, 24, 2, 4, 2, 6, 32, 48, 0, 0, 0, { 0 } },
    { "windows that admit too few", 33, 64, 16, 24, 8, 1, 1, 3, 5, 16, 0, 0, 0, { 0 } },
    { "branches", 96, 64, 16, 24, 2, 1, 1, 4, 32, 16, 0, 32, 32, { 20, 1, 0 } },
    { "one favourite", 40, 64, 48, 24, 1, 1, 1, 0, 0, 48, 3, 0, 0, { 0 } },
    { "a favourite of many", 100, 64, 48, 24, 2, 1, 1, 0, 0, 48, 23, 0, 0, { 0 } },
    { "many rows", 300, 64, 130, 8, 2, 1, 1, 0, 0, 48, 0, 0, 0, { 0 } },
    { "many wide rows", 70, 192, 48, 4, 2, 1, 1, 0, 0, 48, 0, 0, 0, { 0 } },
};

/* Shapes with so many experts that one form is enough. */
static const shape large[] = {
    { "a step of mini", 32, 64, 16, 256, 8, 8, 4, 0, 0, 16, 0, 0, 0, { 0 } },
    { "three steps of mini 2.2", 96, 64, 16, 256, 8, 8, 4, 48, 32, 16, 0, 0, 0, { 0 } },
    { "more experts than a lane's eight", 6, 64, 16, 300, 4, 4, 2, 0, 0, 0, 0, 0, 0, { 0 } },
};

/* ---- weights ---- */

/* A matrix for the GPU, and the same numbers for the CPU. */
typedef struct source {
    rd_matrix gpu, cpu;
    void *data;
    float *number, *scale;
} source;

/* An E4M3 number of the upper half of its exponents. */
static float e4m3(uint64_t bits)
{
    int exponent = 8 + (int)(bits & 7), mantissa = (int)(bits >> 3 & 7);

    if (exponent == 15 && mantissa == 7) mantissa = 6; /* NaN else; this is 448 */
    return ldexpf((float)(8 + mantissa), exponent - 10) * (bits >> 6 & 1 ? -1.0f : 1.0f);
}

static source make(rd_random *r, kind k, int rows, int cols)
{
    rd_pack p = k == INT8 ? RD_PACK_INT8 : k == INT4 ? RD_PACK_INT4 : RD_PACK_NONE;
    size_t n = (size_t)rows * (size_t)cols, padded = rd_pack_panels(rows) * RD_PACK_ROWS;
    size_t bytes = p ? rd_pack_panels(rows) * rd_pack_panel_bytes(p, cols) : 4 * n;
    source s = { .data = rd_try_alloc(bytes), .number = rd_alloc_array(n, sizeof(float)),
                 .scale = rd_alloc_array(padded, sizeof(float)) };
    float by = 1.0f / sqrtf((float)cols);

    for (size_t i = 0; p && i < bytes; i++) ((uint8_t *)s.data)[i] = (uint8_t)rd_random_u64(r);
    for (int i = 0; i < rows; i++) s.scale[i] = by / (p == RD_PACK_INT8 ? 64.0f : 590.0f) * (0.5f + (float)rd_random_unit(r));
    for (int i = 0; p && i < rows; i++) rd_unpack_row(p, s.data, s.scale, cols, i, s.number + (size_t)i * (size_t)cols);
    for (size_t i = 0; !p && i < n; i++) {
        bool corner = (int)(i / (size_t)cols) % 128 == 0 && (int)(i % (size_t)cols) % 128 == 0; /* makes the scale 2^-12 */
        uint16_t half = rd_f32_to_bf16(k == FP8 ? ldexpf(corner ? 448.0f : e4m3(rd_random_u64(r)), -12)
                                                : by * (float)rd_random_normal(r));

        s.number[i] = rd_bf16_to_f32(half);
        if (k == F32)
            memcpy((float *)s.data + i, &s.number[i], sizeof(float));
        else
            memcpy((uint16_t *)s.data + i, &half, sizeof half);
    }
    s.cpu = (rd_matrix){ .data = s.number, .dtype = RD_F32, .rows = rows, .cols = cols };
    s.gpu = s.cpu;
    s.gpu.data = s.data;
    s.gpu.dtype = p ? RD_U8 : k == F32 ? RD_F32 : RD_BF16;
    s.gpu.pack = p;
    s.gpu.scale = p ? s.scale : NULL;
    return s;
}

static void clear(source *s)
{
    free(s->data);
    free(s->number);
    free(s->scale);
}

/* One layer on both sides; weight 3 e + i is gate, up or down of expert e, the shared one's are the last. */
typedef struct layer {
    const shape *s;
    kind k;
    side cpu, gpu;
    source *source;
    rd_weight **on_cpu, **on_gpu;
    rd_mlp *cpu_mlp, *gpu_mlp;
    float *x, *router, *bias;
    rd_weight *cpu_router, *cpu_bias, *gpu_router, *gpu_bias;
    rd_view cpu_x, cpu_y, gpu_x, gpu_y;
} layer;

/* Whole multiples of 2^-shift, normal with this deviation. */
static float *steps(rd_random *r, size_t n, float by, int shift)
{
    float *x = normals(r, n, by);

    for (size_t i = 0; i < n; i++) x[i] = ldexpf(rintf(ldexpf(x[i], shift)), -shift);
    return x;
}

static int weights_of(const shape *s)
{
    return 3 * s->experts + (s->shared ? 3 : 0);
}

static rd_weight *taken(side s, const float *x, int rows, int cols)
{
    rd_matrix m = { .data = x, .dtype = RD_F32, .rows = rows, .cols = cols };

    return weight_of(s, &m, true);
}

static layer set(const shape *s, kind k)
{
    rd_random r = rd_random_seed((uint64_t)(s->rows * 977 + s->experts * 31 + k));
    layer l = { .s = s, .k = k, .cpu = cpu_side() };
    int n = weights_of(s);

    l.gpu = gpu_side(k == F32 ? RD_EXACT : RD_FAST, k == FP8 ? RD_FORM_FP8 : RD_FORM_STORED);
    l.source = rd_alloc_array((size_t)n, sizeof *l.source);
    l.on_cpu = rd_alloc_array((size_t)n, sizeof *l.on_cpu);
    l.on_gpu = rd_alloc_array((size_t)n, sizeof *l.on_gpu);
    l.cpu_mlp = rd_alloc_array((size_t)s->experts + 1, sizeof *l.cpu_mlp);
    l.gpu_mlp = rd_alloc_array((size_t)s->experts + 1, sizeof *l.gpu_mlp);
    memset(l.cpu_mlp, 0, ((size_t)s->experts + 1) * sizeof *l.cpu_mlp);
    memset(l.gpu_mlp, 0, ((size_t)s->experts + 1) * sizeof *l.gpu_mlp);
    for (int i = 0; i < n; i++) {
        bool shared = i / 3 == s->experts;
        int width = shared ? s->shared : s->width;
        /* The shared expert of int4 models is int8. */
        kind form = k == INT4 && shared ? INT8 : k;

        l.source[i] = make(&r, form, i % 3 < 2 ? width : s->hidden, i % 3 < 2 ? s->hidden : width);
        l.on_cpu[i] = weight_of(l.cpu, &l.source[i].cpu, false);
        l.on_gpu[i] = weight_of(l.gpu, &l.source[i].gpu, false);
        rd_mlp *c = &l.cpu_mlp[i / 3], *g = &l.gpu_mlp[i / 3];

        *(i % 3 == 0 ? &c->gate : i % 3 == 1 ? &c->up : &c->down) = l.on_cpu[i];
        *(i % 3 == 0 ? &g->gate : i % 3 == 1 ? &g->up : &g->down) = l.on_gpu[i];
    }
    l.x = steps(&r, (size_t)s->rows * (size_t)s->hidden, 1.0f, 3);
    l.router = steps(&r, (size_t)s->experts * (size_t)s->hidden, 2.0f / sqrtf((float)s->hidden), 5);
    l.bias = steps(&r, (size_t)s->experts, 0.1f, 5);
    if (s->favourite) l.bias[s->favourite] = 10.0f;
    l.cpu_router = taken(l.cpu, l.router, s->experts, s->hidden);
    l.gpu_router = taken(l.gpu, l.router, s->experts, s->hidden);
    l.cpu_bias = taken(l.cpu, l.bias, 1, s->experts);
    l.gpu_bias = taken(l.gpu, l.bias, 1, s->experts);
    l.cpu_x = view_of(l.cpu, l.x, s->rows, s->hidden);
    l.gpu_x = view_of(l.gpu, l.x, s->rows, s->hidden);
    l.cpu_y = poison(l.cpu, s->rows, s->hidden);
    l.gpu_y = poison(l.gpu, s->rows, s->hidden);
    return l;
}

static void unset(layer *l)
{
    side *sides[] = { &l->cpu, &l->gpu };
    rd_weight *vectors[][2] = { { l->cpu_router, l->cpu_bias }, { l->gpu_router, l->gpu_bias } };
    rd_view *views[][2] = { { &l->cpu_x, &l->cpu_y }, { &l->gpu_x, &l->gpu_y } };

    for (int i = 0; i < weights_of(l->s); i++) clear(&l->source[i]);
    for (int i = 0; i < 2; i++) {
        rd_weight **w = i == 0 ? l->on_cpu : l->on_gpu;

        for (int n = 0; n < weights_of(l->s); n++) sides[i]->be->drop(sides[i]->d, w[n]);
        for (int n = 0; n < 2; n++) {
            sides[i]->be->drop(sides[i]->d, vectors[i][n]);
            sides[i]->be->release(sides[i]->d, views[i][n]);
        }
        side_close(sides[i]);
    }
    free(l->source), free(l->on_cpu), free(l->on_gpu), free(l->cpu_mlp), free(l->gpu_mlp);
    free(l->x), free(l->router), free(l->bias);
}

/* ---- running ---- */

typedef struct taps {
    float *logits, *weight;
    int32_t *chosen;
} taps;

static taps make_taps(const shape *s)
{
    size_t rows = (size_t)s->rows;

    return (taps){ rd_alloc_array(rows * (size_t)s->experts, sizeof(float)),
                   rd_alloc_array(rows * (size_t)s->top_k, sizeof(float)),
                   rd_alloc_array(rows * (size_t)s->top_k, sizeof(int32_t)) };
}

static void free_taps(taps *t)
{
    free(t->logits), free(t->weight), free(t->chosen);
}

static rd_moe moe_of(const layer *l, bool gpu, const taps *t)
{
    const shape *s = l->s;
    rd_moe m = { .router = gpu ? l->gpu_router : l->cpu_router,
                 .bias = gpu ? l->gpu_bias : l->cpu_bias,
                 .experts = gpu ? l->gpu_mlp : l->cpu_mlp,
                 .shared = (gpu ? l->gpu_mlp : l->cpu_mlp)[s->experts],
                 .n_experts = s->experts,
                 .top_k = s->top_k,
                 .n_group = s->groups,
                 .topk_group = s->groups_open,
                 .capacity = s->capacity,
                 .window = s->window,
                 .scaling = 2.5f };

    if (s->branch_size) m.branches = (rd_branches){ s->branch_first, s->branch_size, s->counts };
    if (t) {
        m.logits_out = t->logits;
        m.chosen_out = t->chosen;
        m.weight_out = t->weight;
    }
    return m;
}

static float *run(const layer *l, bool gpu, const taps *t)
{
    side s = gpu ? l->gpu : l->cpu;
    rd_view x = gpu ? l->gpu_x : l->cpu_x, y = gpu ? l->gpu_y : l->cpu_y;
    rd_moe m = moe_of(l, gpu, t);
    rd_error err = { 0 };
    rd_status bad = s.be->begin(s.d, x.rows, &err);

    if (!bad) bad = s.be->moe(s.d, y, x, &m, &err);
    if (!bad) bad = s.be->end(s.d, &err);
    cr_assert_eq(bad, RD_OK, "%s, %s: %s", l->s->what, names[l->k], err.text);
    return fetched(s, y);
}

/* Are the router's words the same? */
static void compare_routes(const layer *l, const taps *a, const taps *b)
{
    const shape *s = l->s;

    for (int i = 0; i < s->rows * s->experts; i++)
        cr_assert_eq(a->logits[i], b->logits[i], "%s: logit %d of row %d: %g, %g", s->what, i % s->experts,
                     i / s->experts, (double)a->logits[i], (double)b->logits[i]);
    for (int i = 0; i < s->rows * s->top_k; i++) {
        cr_assert_eq(a->chosen[i], b->chosen[i], "%s: choice %d of row %d: %d, %d", s->what, i % s->top_k, i / s->top_k,
                     a->chosen[i], b->chosen[i]);
        cr_assert_lt(fabs((double)a->weight[i] - (double)b->weight[i]), 1e-6, "%s: weight %d of row %d", s->what,
                     i % s->top_k, i / s->top_k);
    }
}

static void compare(const shape *s, kind k)
{
    layer l = set(s, k);
    size_t n = (size_t)s->rows * (size_t)s->hidden;
    taps cpu = make_taps(s), gpu = make_taps(s);
    float *want = run(&l, false, &cpu), *got = run(&l, true, &gpu);

    compare_routes(&l, &gpu, &cpu);
    cr_assert_lt(apart(got, want, n), limits[k], "%s, %s: %g", s->what, names[k], apart(got, want, n));
    cr_assert_lt(worst(got, want, n), 8 * limits[k], "%s, %s: %g", s->what, names[k], worst(got, want, n));
    for (int again = 0; again < 3; again++) { /* launched, captured and replayed where it is small */
        float *same = run(&l, true, NULL);

        cr_assert_eq(memcmp(same, got, n * sizeof *same), 0, "%s, %s: pass %d gives other bits", s->what, names[k], again);
        free(same);
    }
    free(want), free(got);
    free_taps(&cpu), free_taps(&gpu);
    unset(&l);
}

static void compare_all(kind k)
{
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) compare(&shapes[i], k);
}

Test(moe, float32_is_the_cpus)
{
    GPU_OR_SKIP();
    compare_all(F32);
}

Test(moe, bf16_is_the_cpus_but_for_rounding)
{
    GPU_OR_SKIP();
    compare_all(BF16);
}

Test(moe, fp8_is_the_cpus_but_for_rounding)
{
    GPU_OR_SKIP();
    compare_all(FP8);
}

Test(moe, int8_is_the_cpus_but_for_rounding)
{
    GPU_OR_SKIP();
    compare_all(INT8);
}

Test(moe, int4_with_a_shared_expert_of_int8_is_the_cpus_but_for_rounding)
{
    GPU_OR_SKIP();
    compare_all(INT4);
}

Test(moe, hundreds_of_experts_are_the_cpus)
{
    GPU_OR_SKIP();
    for (size_t i = 0; i < sizeof large / sizeof *large; i++) compare(&large[i], BF16);
}

Test(moe, a_pass_is_replayed_with_other_rows_and_counts)
{
    GPU_OR_SKIP();
    shape s = { "branches", 64, 64, 16, 24, 2, 1, 1, 4, 32, 16, 0, 0, 32, { 32, 32, 0 } };
    layer l = set(&s, BF16);
    rd_random r = rd_random_seed(5);
    size_t n = (size_t)s.rows * (size_t)s.hidden;

    for (int pass = 0; pass < 4; pass++) {
        float *x = steps(&r, n, 1.0f, 3);
        rd_error err;

        cr_assert(!l.gpu.be->upload(l.gpu.d, l.gpu_x, x, &err));
        cr_assert(!l.cpu.be->upload(l.cpu.d, l.cpu_x, x, &err));
        s.counts[0] = 32 - 5 * pass;
        s.counts[1] = 1 + pass;
        float *got = run(&l, true, NULL), *want = run(&l, false, NULL);

        cr_assert_lt(apart(got, want, n), limits[BF16], "pass %d", pass);
        free(x), free(got), free(want);
    }
    int64_t captured, replayed, launched;

    gpu_passes(l.gpu.d, &captured, &replayed, &launched);
    cr_assert_eq(captured, 1);
    cr_assert_gt(replayed, 1);
    unset(&l);
}

Test(moe, another_layer_in_the_same_array_is_another_layer)
{
    GPU_OR_SKIP();
    shape s = { "two layers", 8, 64, 16, 8, 2, 1, 1, 0, 0, 16, 0, 0, 0, { 0 } };
    layer l = set(&s, BF16);
    size_t n = (size_t)s.rows * (size_t)s.hidden;
    float *first = run(&l, true, NULL);
    rd_mlp *sides[] = { l.cpu_mlp, l.gpu_mlp };

    for (int i = 0; i < 2; i++) { /* experts change places */
        rd_mlp e = sides[i][0];

        memmove(sides[i], sides[i] + 1, 7 * sizeof e);
        sides[i][7] = e;
    }
    float *got = run(&l, true, NULL), *want = run(&l, false, NULL);

    cr_assert_gt(apart(first, want, n), 0.1);
    cr_assert_lt(apart(got, want, n), limits[BF16]);
    free(first), free(got), free(want);
    unset(&l);
}

Test(moe, what_does_not_fit_is_refused_by_name)
{
    GPU_OR_SKIP();
    shape s = { "refused", 8, 64, 16, 8, 2, 1, 1, 0, 0, 16, 0, 0, 0, { 0 } };
    layer l = set(&s, BF16);
    const rd_backend *be = l.gpu.be;
    rd_moe good = moe_of(&l, true, NULL), m;
    rd_mlp *e = rd_alloc_array(8, sizeof *e);
    rd_error err;

    m = good, m.top_k = 9;
    cr_assert_eq(be->moe(l.gpu.d, l.gpu_y, l.gpu_x, &m, &err), RD_INVALID);
    m = good, m.capacity = 4, m.window = 0;
    cr_assert_eq(be->moe(l.gpu.d, l.gpu_y, l.gpu_x, &m, &err), RD_INVALID);
    m = good, m.router = l.gpu_mlp[0].gate;
    cr_assert_eq(be->moe(l.gpu.d, l.gpu_y, l.gpu_x, &m, &err), RD_INVALID);
    cr_assert(strstr(err.text, "router"));
    memcpy(e, l.gpu_mlp, 8 * sizeof *e);
    e[5].up = l.gpu_mlp[8].down;
    m = good, m.experts = e;
    cr_assert_eq(be->moe(l.gpu.d, l.gpu_y, l.gpu_x, &m, &err), RD_INVALID);
    cr_assert(strstr(err.text, "expert 5"));
    free(e);
    unset(&l);
}
