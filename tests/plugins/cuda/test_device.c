/* The backend's table on a GPU: rows, passes that are recorded, replayed and dropped, memory that runs out, a device that is lost.
 * What is asked of the emulated one alone is at the end. */
#include "tests/plugins/cuda/backend.h"
#include "tests/plugins/cuda/sides.h"

enum { VOCAB = 50 };

typedef struct rows {
    int rows, cols;
    float *x, *y, *weight;
    uint16_t *table;
} rows;

static rows make_rows(int n, int cols, uint64_t seed)
{
    rd_random r = rd_random_seed(seed);
    rows w = { n, cols, normals(&r, (size_t)n * (size_t)cols, 1.0f),
               normals(&r, (size_t)n * (size_t)cols, 1.0f), normals(&r, (size_t)cols, 1.0f),
               rd_alloc_array((size_t)(VOCAB * cols), sizeof(uint16_t)) };

    for (int i = 0; i < VOCAB * cols; i++)
        w.table[i] = rd_f32_to_bf16((float)rd_random_normal(&r));
    return w;
}

static void free_rows(rows *w)
{
    free(w->x);
    free(w->y);
    free(w->weight);
    free(w->table);
}

/* embed, add, norm as one pass; gives the sum and its norm. */
static void pass(side s, const rows *w, const int32_t *tokens, rd_weight *table, rd_weight *norm,
                 rd_view x, rd_view y, rd_view out)
{
    rd_error err = { 0 };
    rd_status bad = s.be->begin(s.d, w->rows, &err);

    if (!bad) bad = s.be->embed(s.d, x, table, tokens, &err);
    if (!bad) bad = s.be->add(s.d, x, y, &err);
    if (!bad) bad = s.be->norm(s.d, out, x, norm, 1e-6f, &err);
    if (!bad) bad = s.be->end(s.d, &err);
    cr_assert_eq(bad, RD_OK, "%s", err.text);
}

typedef struct stage { /* what a side has of the rows */
    side s;
    rd_weight *table, *norm;
    rd_view x, y, out;
} stage;

static stage set_stage(side s, const rows *w)
{
    rd_matrix table = { .data = w->table, .dtype = RD_BF16, .rows = VOCAB, .cols = w->cols };
    rd_matrix norm = { .data = w->weight, .dtype = RD_F32, .rows = 1, .cols = w->cols };

    return (stage){ s,
                    weight_of(s, &table, false),
                    weight_of(s, &norm, true),
                    poison(s, w->rows, w->cols),
                    view_of(s, w->y, w->rows, w->cols),
                    poison(s, w->rows, w->cols) };
}

static void clear_stage(stage *g)
{
    g->s.be->drop(g->s.d, g->table);
    g->s.be->drop(g->s.d, g->norm);
    g->s.be->release(g->s.d, &g->x);
    g->s.be->release(g->s.d, &g->y);
    g->s.be->release(g->s.d, &g->out);
    side_close(&g->s);
}

static void compare(rd_precision precision, int n, int cols)
{
    rows w = make_rows(n, cols, (uint64_t)(n * 1000 + cols));
    stage cpu = set_stage(cpu_side(), &w), gpu = set_stage(gpu_side(precision, RD_FORM_STORED), &w);

    for (int again = 0; again < 4; again++) { /* launched, captured, replayed twice, each with other tokens */
        int32_t *tokens = rd_alloc_array((size_t)n, sizeof *tokens);

        for (int i = 0; i < n; i++) tokens[i] = (i * 7 + again * 11) % VOCAB;
        pass(cpu.s, &w, tokens, cpu.table, cpu.norm, cpu.x, cpu.y, cpu.out);
        pass(gpu.s, &w, tokens, gpu.table, gpu.norm, gpu.x, gpu.y, gpu.out);
        free(tokens);
        float *a = fetched(gpu.s, gpu.out), *b = fetched(cpu.s, cpu.out);
        float *c = fetched(gpu.s, gpu.x), *d = fetched(cpu.s, cpu.x);
        size_t all = (size_t)n * (size_t)cols;

        cr_assert_lt(worst(a, b, all), 1e-5, "norm of [%d, %d], pass %d", n, cols, again);
        cr_assert_lt(worst(c, d, all), 1e-6, "sum of [%d, %d], pass %d", n, cols, again);
        free(a), free(b), free(c), free(d);
    }
    clear_stage(&cpu);
    clear_stage(&gpu);
    free_rows(&w);
}

Test(device, rows_are_the_cpus_on_odd_shapes)
{
    static const int shapes[][2] = { { 1, 8 }, { 32, 96 }, { 33, 256 }, { 5, 2048 }, { 3, 4100 }, { 70, 300 } };

    GPU_OR_SKIP();
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        compare(RD_EXACT, shapes[i][0], shapes[i][1]);
        compare(RD_FAST, shapes[i][0], shapes[i][1]);
    }
}

Test(device, a_pass_seen_twice_is_replayed_and_a_larger_one_is_not)
{
    GPU_OR_SKIP();
    int64_t captured, replayed, launched;
    int32_t tokens[70] = { 0 };
    rows small = make_rows(32, 64, 1), large = make_rows(70, 64, 2);
    stage g = set_stage(gpu_side(RD_FAST, RD_FORM_STORED), &small);

    for (int i = 0; i < 6; i++) pass(g.s, &small, tokens, g.table, g.norm, g.x, g.y, g.out);
    gpu_passes(g.s.d, &captured, &replayed, &launched);
    cr_assert_eq(captured, 1);
    cr_assert_eq(replayed, 5); /* the pass that is captured runs as a graph too */
    cr_assert_eq(launched, 1);

    rd_view x = view_of(g.s, large.x, 70, 64), y = view_of(g.s, large.y, 70, 64), out = poison(g.s, 70, 64);

    for (int i = 0; i < 3; i++) pass(g.s, &large, tokens, g.table, g.norm, x, y, out);
    gpu_passes(g.s.d, &captured, &replayed, &launched);
    cr_assert_eq(captured, 1);
    cr_assert_eq(launched, 4);
    g.s.be->release(g.s.d, &x);
    g.s.be->release(g.s.d, &y);
    g.s.be->release(g.s.d, &out);
    clear_stage(&g);
    free_rows(&small);
    free_rows(&large);
}

Test(device, a_pass_that_is_cancelled_leaves_nothing_behind)
{
    GPU_OR_SKIP();
    int32_t tokens[4] = { 1, 2, 3, 4 };
    rd_error err = { 0 };
    rows w = make_rows(4, 32, 3);
    stage g = set_stage(gpu_side(RD_FAST, RD_FORM_STORED), &w);
    rd_view kept = view_of(g.s, w.x, 4, 32);

    cr_assert_eq(g.s.be->begin(g.s.d, 4, &err), RD_OK);
    cr_assert_eq(g.s.be->embed(g.s.d, kept, g.table, tokens, &err), RD_OK);
    g.s.be->end(g.s.d, NULL);
    float *x = fetched(g.s, kept);

    cr_assert_arr_eq(x, w.x, 4 * 32 * sizeof *x);
    free(x);
    pass(g.s, &w, tokens, g.table, g.norm, g.x, g.y, g.out); /* and the next one is whole */
    x = fetched(g.s, g.x);
    cr_assert_float_eq(x[5], rd_bf16_to_f32(w.table[32 + 5]) + w.y[5], 1e-6);
    free(x);
    g.s.be->release(g.s.d, &kept);
    clear_stage(&g);
    free_rows(&w);
}

Test(device, tokens_outside_the_vocabulary_and_shapes_that_differ_are_refused)
{
    GPU_OR_SKIP();
    int32_t bad[4] = { 0, VOCAB, 0, 0 };
    rd_error err = { 0 };
    rows w = make_rows(4, 32, 4);
    stage g = set_stage(gpu_side(RD_FAST, RD_FORM_STORED), &w);
    rd_view other = view_of(g.s, w.x, 2, 32);

    cr_assert_eq(g.s.be->embed(g.s.d, g.x, g.table, bad, &err), RD_INVALID);
    cr_assert(strstr(err.text, "50"), "%s", err.text);
    bad[1] = -1;
    cr_assert_eq(g.s.be->embed(g.s.d, g.x, g.table, bad, &err), RD_INVALID);
    cr_assert_eq(g.s.be->add(g.s.d, g.x, other, &err), RD_INVALID);
    cr_assert_eq(g.s.be->norm(g.s.d, other, g.x, g.norm, 1e-6f, &err), RD_INVALID);
    g.s.be->release(g.s.d, &other);
    clear_stage(&g);
    free_rows(&w);
}

Test(device, a_limit_of_memory_holds_and_says_what_was_wanted)
{
    GPU_OR_SKIP();
    rd_device_options o = { .precision = RD_FAST, .memory_limit = (size_t)24 << 20 };
    side s = side_of(gpu_backend(), &o);
    rd_view v = { 0 };
    rd_error err = { 0 };

    cr_assert_eq(s.be->alloc(s.d, 4096, 4096, &v, &err), RD_NO_MEMORY);
    cr_assert(strstr(err.text, "65 MB wanted") && strstr(err.text, "24 MB"), "%s", err.text);
    cr_assert_eq(s.be->alloc(s.d, 1024, 1024, &v, &err), RD_OK); /* smaller things still fit */
    s.be->release(s.d, &v);
    side_close(&s);
}

#ifdef RD_TEST_EMULATED

enum { ILLEGAL_ADDRESS = 700, OUT_OF_MEMORY = 2, NO_DEVICE = 100 };

Test(device, no_memory_on_the_gpu_is_said_with_what_is_free)
{
    rd_device_options o = { .precision = RD_FAST };
    side s = side_of(gpu_backend(), &o);
    rd_view v = { 0 };
    rd_error err = { 0 };

    rd_emulated_memory(rd_emulated_held() + (32 << 20));
    cr_assert_eq(s.be->alloc(s.d, 4096, 4096, &v, &err), RD_NO_MEMORY);
    cr_assert(strstr(err.text, "65 MB wanted") && strstr(err.text, "32 of"), "%s", err.text);
    cr_assert_eq(s.be->alloc(s.d, 1024, 1024, &v, &err), RD_OK);
    s.be->release(s.d, &v);
    side_close(&s);
    cr_assert_eq(rd_emulated_alive(), 0);
}

Test(device, opening_fails_cleanly_wherever_it_fails)
{
    static const rd_emulated_call calls[] = { RD_EMULATED_MALLOC, RD_EMULATED_HOST_ALLOC, RD_EMULATED_STREAM,
                                              RD_EMULATED_DEVICE };
    rd_device_options o = { .precision = RD_FAST };

    for (size_t c = 0; c < sizeof calls / sizeof *calls; c++) {
        int failed = 0;

        for (int nth = 1; nth < 20; nth++) {
            rd_device *d = NULL;
            rd_error err = { 0 };

            rd_emulated_fail(calls[c], nth, calls[c] == RD_EMULATED_DEVICE ? NO_DEVICE : OUT_OF_MEMORY);
            rd_status s = gpu_backend()->open(&o, &d, &err);

            rd_emulated_fail(calls[c], 0, 0);
            rd_emulated_heal();
            if (s == RD_OK) {
                gpu_backend()->close(d);
                break;
            }
            failed++;
            cr_assert(err.text[0] && !d);
            cr_assert_eq(rd_emulated_alive(), 0, "call %zu, the %dth: something is left", c, nth);
        }
        cr_assert_gt(failed, 0);
    }
}

Test(device, a_lost_device_says_so_from_then_on)
{
    int32_t tokens[32] = { 0 };
    rows w = make_rows(32, 64, 5);
    stage g = set_stage(gpu_side(RD_FAST, RD_FORM_STORED), &w);
    rd_error err = { 0 };
    rd_view v;

    pass(g.s, &w, tokens, g.table, g.norm, g.x, g.y, g.out);
    rd_emulated_fail(RD_EMULATED_RUN, 1, ILLEGAL_ADDRESS);
    g.s.be->begin(g.s.d, 32, &err);
    g.s.be->embed(g.s.d, g.x, g.table, tokens, &err);
    rd_status s = g.s.be->end(g.s.d, &err);
    float *x = rd_alloc_array(32 * 64, sizeof *x);

    if (!s) s = g.s.be->download(g.s.d, x, g.x, &err);
    cr_assert_eq(s, RD_DEVICE);
    cr_assert_eq(g.s.be->begin(g.s.d, 32, &err), RD_DEVICE);
    cr_assert_eq(g.s.be->alloc(g.s.d, 1, 1, &v, &err), RD_DEVICE);
    cr_assert(strstr(err.text, "lost"), "%s", err.text);
    free(x);
    clear_stage(&g); /* does not hang or crash */
    rd_emulated_heal();
    free_rows(&w);
}

/* A graph that cannot be made costs the pass, not the next one. */
Test(device, a_capture_that_fails_is_told_and_the_next_pass_runs)
{
    int32_t tokens[32] = { 3 };
    rows w = make_rows(32, 64, 6);
    stage g = set_stage(gpu_side(RD_FAST, RD_FORM_STORED), &w);
    rd_error err = { 0 };

    pass(g.s, &w, tokens, g.table, g.norm, g.x, g.y, g.out);
    rd_emulated_fail(RD_EMULATED_INSTANTIATE, 1, OUT_OF_MEMORY);
    g.s.be->begin(g.s.d, 32, &err);
    g.s.be->embed(g.s.d, g.x, g.table, tokens, &err);
    g.s.be->add(g.s.d, g.x, g.y, &err);
    g.s.be->norm(g.s.d, g.out, g.x, g.norm, 1e-6f, &err);
    cr_assert_eq(g.s.be->end(g.s.d, &err), RD_NO_MEMORY);
    pass(g.s, &w, tokens, g.table, g.norm, g.x, g.y, g.out);
    float *x = fetched(g.s, g.x);

    cr_assert_float_eq(x[5], rd_bf16_to_f32(w.table[3 * 64 + 5]) + w.y[5], 1e-6);
    free(x);
    clear_stage(&g);
    free_rows(&w);
}

#endif
