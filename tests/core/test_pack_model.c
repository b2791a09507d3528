/* test_pack_model.c - a checkpoint becomes a packed file in the order of use, however often the work is cut off; such a
 * file opens where it lies and answers as its numbers multiplied out; one that is not right is refused by name. */
#include "core/base/memory.h"
#include "core/format/file.h"
#include "core/format/pack_model.h"
#include "core/format/quant.h"
#include "core/model/model.h"
#include "core/plugin.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MODEL RD_TEST_DATA "/golden/models/m2_sharded"

enum { TENSORS = 512 };

static char dir[64];

static void begin(void)
{
    snprintf(dir, sizeof dir, "/tmp/rd_packXXXXXX");
    cr_assert(mkdtemp(dir));
}

static void end(void)
{
    char command[96];

    snprintf(command, sizeof command, "rm -rf %s", dir);
    cr_assert(!system(command));
}

static const char *at(const char *name)
{
    static char path[4][160];
    static int turn;
    char *p = path[turn++ % 4];

    snprintf(p, sizeof path[0], "%s/%s", dir, name);
    return p;
}

static rd_status pack(const char *in, const char *out, rd_pack p, rd_error *err)
{
    return rd_pack_model(&(rd_pack_job){ .in = in, .out = at(out), .pack = p }, NULL, err);
}

static rd_buf bytes_of(const char *out)
{
    char path[200];
    rd_buf b = { 0 };
    rd_error err;

    snprintf(path, sizeof path, "%s/model.safetensors", at(out));
    cr_assert(!rd_file_read(path, 1 << 26, &b, &err), "%s", err.text);
    return b;
}

static void expect_same(const char *a, const char *b)
{
    rd_buf x = bytes_of(a), y = bytes_of(b);

    cr_assert(x.len == y.len && !memcmp(x.data, y.data, x.len), "%s and %s differ", a, b);
    rd_buf_clear(&x);
    rd_buf_clear(&y);
}

/* ---- what is written ---- */

static const rd_tensor *find(const rd_safetensors *s, const char *name, const char *end)
{
    char full[200];

    snprintf(full, sizeof full, "%s%s", name, end);
    return rd_safetensors_find(s, full);
}

/* Matrices are near what they were, all else is what it was. */
static void compare(const rd_safetensors *from, const rd_safetensors *to, rd_pack scheme)
{
    for (int i = 0; i < rd_safetensors_count(from); i++) {
        const rd_tensor *t = rd_safetensors_at(from, i), *same = find(to, t->name, ""),
                        *q = find(to, t->name, ".q"), *s = find(to, t->name, ".s");
        size_t n = t->bytes / rd_dtype_bytes(t->dtype), cols = (size_t)t->shape[t->rank - 1];
        float *wide = rd_alloc_array(n, sizeof *wide), row[256];

        rd_widen(wide, t->data, t->dtype, n);
        if (t->rank == 1 || strstr(t->name, ".mlp.gate.weight")) {
            cr_assert(same && !q && same->dtype == RD_F32 && same->bytes == n * sizeof(float));
            cr_assert(!memcmp(same->data, wide, same->bytes), "%s", t->name);
        } else {
            bool expert = strstr(t->name, ".experts.") != NULL;
            rd_pack p = expert ? scheme : RD_PACK_INT8;
            double off = 0.0, all = 0.0;

            cr_assert(q && s && !same, "%s", t->name);
            cr_assert_eq(q->shape[1], (int64_t)rd_pack_panel_bytes(p, (int)cols), "%s", t->name);
            for (size_t r = 0; r < n / cols; r++) {
                rd_unpack_row(p, q->data, s->data, (int)cols, (int)r, row);
                for (size_t k = 0; k < cols; k++) {
                    double x = (double)wide[r * cols + k], d = (double)row[k] - x;

                    off += d * d;
                    all += x * x;
                }
            }
            cr_assert_lt(sqrt(off / all), p == RD_PACK_INT8 ? 0.01 : 0.12, "%s", t->name);
        }
        free(wide);
    }
}

Test(pack_model, shards_become_one_file_whose_numbers_are_near, .init = begin, .fini = end)
{
    rd_safetensors *from = NULL, *to = NULL;
    rd_error err;

    for (int p = RD_PACK_INT8; p <= RD_PACK_INT4; p++) {
        cr_assert(!pack(MODEL, "q", (rd_pack)p, &err), "%s", err.text);
        cr_assert(!rd_safetensors_open(MODEL, &from, &err));
        cr_assert(!rd_safetensors_open(at("q"), &to, &err), "%s", err.text);
        cr_assert_str_eq(rd_safetensors_meta(to, "redraft_quant"), rd_pack_name((rd_pack)p));
        cr_assert_str_eq(rd_safetensors_meta(to, "redraft_quant_version"), "1");
        compare(from, to, (rd_pack)p);
        cr_assert(!access(at("q/config.json"), R_OK));
        cr_assert(access(at("q/model.safetensors.part"), F_OK));
        rd_safetensors_close(from);
        rd_safetensors_close(to);
    }
}

Test(pack_model, an_experts_weights_lie_together_and_each_begins_a_line, .init = begin, .fini = end)
{
    static const char *const order[] = { "gate_proj.weight.q", "up_proj.weight.q",
                                         "down_proj.weight.q", "gate_proj.weight.s",
                                         "up_proj.weight.s",   "down_proj.weight.s" };
    rd_safetensors *s = NULL;
    const char *before = NULL;
    rd_error err;

    cr_assert(!pack(MODEL, "q", RD_PACK_INT4, &err));
    cr_assert(!rd_safetensors_open(at("q"), &s, &err));
    for (int i = 0; i < rd_safetensors_count(s); i++) {
        const rd_tensor *t = rd_safetensors_at(s, i);

        if (t->dtype == RD_U8) cr_assert_eq((uintptr_t)t->data % 64, 0u, "%s", t->name);
    }
    for (int l = 1; l < 4; l++)
        for (int e = 0; e < 8; e++)
            for (int k = 0; k < 6; k++) {
                char name[96];

                snprintf(name, sizeof name, "model.layers.%d.mlp.experts.%d.%s", l, e, order[k]);
                const rd_tensor *t = rd_safetensors_find(s, name);

                cr_assert(t, "%s", name);
                if (e + k > 0) cr_assert_eq(before, (const char *)t->data, "%s", name);
                before = (const char *)t->data + t->bytes;
            }
    rd_safetensors_close(s);
}

Test(pack_model, int8_rows_become_panels_of_the_same_numbers, .init = begin, .fini = end)
{
    rd_safetensors *rows = NULL, *panels = NULL;
    rd_error err;
    float row[48];

    cr_assert(!rd_quantize_model(MODEL, at("r"), RD_QUANT_INT8_ROW, &err), "%s", err.text);
    cr_assert(!pack(at("r"), "q", RD_PACK_INT8, &err), "%s", err.text);
    cr_assert(!rd_safetensors_open(at("r"), &rows, &err));
    cr_assert(!rd_safetensors_open(at("q"), &panels, &err));
    const rd_tensor *q = find(rows, "lm_head.weight", ".q"),
                    *s = find(rows, "lm_head.weight", ".s");
    const rd_tensor *pq = find(panels, "lm_head.weight", ".q"),
                    *ps = find(panels, "lm_head.weight", ".s");

    cr_assert(q && s && pq && ps);
    for (int r = 0; r < 256; r++) {
        rd_unpack_row(RD_PACK_INT8, pq->data, ps->data, 48, r, row);
        for (int k = 0; k < 48; k++) {
            float x = (float)((const int8_t *)q->data)[r * 48 + k] * ((const float *)s->data)[r];

            cr_assert_float_eq(row[k], x, 1e-6f * fabsf(x) + 1e-12f);
        }
    }
    rd_safetensors_close(rows);
    rd_safetensors_close(panels);
}

/* ---- cut off ---- */

static bool stop_at_call(void *user, size_t done, size_t all)
{
    int *left = user;

    cr_assert_leq(done, all);
    return --*left > 0;
}

static bool die_at_call(void *user, size_t done, size_t all)
{
    if (!stop_at_call(user, done, all)) raise(SIGKILL);
    return true;
}

Test(pack_model, a_stopped_job_goes_on_to_the_same_bytes, .init = begin, .fini = end)
{
    rd_error err;

    cr_assert(!pack(MODEL, "whole", RD_PACK_INT4, &err));
    for (int calls = 1; calls < 90; calls += 11) {
        int left = calls;
        rd_pack_job job = { .in = MODEL,
                            .out = at("cut"),
                            .pack = RD_PACK_INT4,
                            .progress = stop_at_call,
                            .user = &left };
        rd_pack_result r;
        char command[200];

        cr_assert_eq(rd_pack_model(&job, &r, &err), RD_CANCELLED);
        cr_assert(access(at("cut/model.safetensors"), F_OK), "half of it has the name");
        cr_assert(!access(at("cut/model.safetensors.part"), F_OK));
        job.progress = NULL;
        cr_assert(!rd_pack_model(&job, &r, &err), "%s", err.text);
        cr_assert(calls > 1 ? r.kept > 0 : r.kept == 0, "stopped at %d, kept %zu", calls, r.kept);
        expect_same("whole", "cut");
        snprintf(command, sizeof command, "rm -r %s", at("cut"));
        cr_assert(!system(command));
    }
}

Test(pack_model, a_killed_job_loses_no_more_than_a_mark, .init = begin, .fini = end)
{
    rd_error err;
    rd_pack_result r;
    int left = 60, status;
    rd_pack_job job = { .in = MODEL,
                        .out = at("cut"),
                        .pack = RD_PACK_INT8,
                        .progress = die_at_call,
                        .user = &left,
                        .mark_bytes = 1 };
    pid_t child = fork();

    if (child == 0) _exit(rd_pack_model(&job, NULL, NULL) ? 1 : 0);
    cr_assert(waitpid(child, &status, 0) == child && WIFSIGNALED(status));
    job.progress = NULL;
    cr_assert(!rd_pack_model(&job, &r, &err), "%s", err.text);
    cr_assert_gt(r.kept, r.bytes / 4);
    cr_assert(!pack(MODEL, "whole", RD_PACK_INT8, &err));
    expect_same("whole", "cut");
}

Test(pack_model, what_was_begun_of_another_scheme_or_source_is_begun_anew, .init = begin,
     .fini = end)
{
    int left = 40;
    rd_pack_job job = {
        .in = MODEL, .out = at("cut"), .pack = RD_PACK_INT8, .progress = stop_at_call, .user = &left
    };
    rd_pack_result r;
    rd_error err;

    cr_assert_eq(rd_pack_model(&job, NULL, &err), RD_CANCELLED);
    job.pack = RD_PACK_INT4;
    left = 40;
    cr_assert_eq(rd_pack_model(&job, &r, &err), RD_CANCELLED);
    cr_assert_eq(r.kept, 0u);
    job.in = RD_TEST_DATA "/golden/models/m1_base";
    job.progress = NULL;
    cr_assert(!rd_pack_model(&job, &r, &err), "%s", err.text);
    cr_assert_eq(r.kept, 0u);
    cr_assert(!pack(job.in, "whole", RD_PACK_INT4, &err));
    expect_same("whole", "cut");
}

Test(pack_model, two_jobs_do_not_write_one_file, .init = begin, .fini = end)
{
    rd_safetensors_writer *w = NULL;
    rd_tensor t = { .name = "t", .dtype = RD_U8, .rank = 1, .shape = { 64 } };
    uint64_t mark;
    rd_error err;

    cr_assert(!mkdir(at("q"), 0700));
    rd_safetensors_plan plan = { .path = at("q/model.safetensors"), .tensors = &t, .n = 1 };

    cr_assert(!rd_safetensors_begin(&plan, &w, &mark, &err));
    cr_assert_eq(pack(MODEL, "q", RD_PACK_INT8, &err), RD_INVALID);
    cr_assert(strstr(err.text, "another process"), "%s", err.text);
    rd_safetensors_writer_close(w);
    cr_assert(!pack(MODEL, "q", RD_PACK_INT8, &err), "%s", err.text);
}

Test(pack_model, a_full_disk_leaves_the_folder_as_it_was, .init = begin, .fini = end)
{
    int status;
    rd_error err;
    pid_t child;

    cr_assert(!pack(MODEL, "there", RD_PACK_INT8, &err));
    cr_assert(!pack(MODEL, "same", RD_PACK_INT8, &err));
    child = fork();
    if (child == 0) {
        struct rlimit small = { 100000, 100000 };

        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &small);
        _exit(pack(MODEL, "new", RD_PACK_INT4, &err) == RD_IO &&
                      pack(MODEL, "there", RD_PACK_INT4, &err) == RD_IO
                  ? 0
                  : 1);
    }
    cr_assert(waitpid(child, &status, 0) == child && WIFEXITED(status) && !WEXITSTATUS(status));
    cr_assert(access(at("new"), F_OK));
    cr_assert(access(at("there/model.safetensors.part"), F_OK));
    expect_same("there", "same");
}

/* ---- what is refused ---- */

/* The tensors of a packed folder, to be changed and written again in their order. */
static int list_of(rd_safetensors *s, rd_tensor *out)
{
    int n = rd_safetensors_count(s);

    cr_assert_lt(n, TENSORS);
    for (int i = 0; i < n; i++) out[i] = *rd_safetensors_at(s, i);
    return n;
}

static rd_tensor *named(rd_tensor *list, int n, const char *name)
{
    for (int i = 0; i < n; i++)
        if (!strcmp(list[i].name, name)) return &list[i];
    cr_assert(false, "no %s", name);
    return NULL;
}

static void write_again(const char *out, const rd_tensor *list, int n, const char *const *meta)
{
    char path[200], command[200];
    rd_safetensors_writer *w = NULL;
    uint64_t mark;
    rd_error err;

    snprintf(command, sizeof command, "mkdir -p %s && cp " MODEL "/*config.json %s", at(out),
             at(out));
    cr_assert(!system(command));
    snprintf(path, sizeof path, "%s/model.safetensors", at(out));
    rd_safetensors_plan plan = { .path = path, .tensors = list, .n = n, .meta = meta };

    cr_assert(!rd_safetensors_begin(&plan, &w, &mark, &err), "%s", err.text);
    for (int i = 0; i < n; i++)
        cr_assert(!rd_safetensors_put(w, i, 0, list[i].data, list[i].bytes, &err), "%s", err.text);
    cr_assert(!rd_safetensors_finish(w, &err), "%s", err.text);
    rd_safetensors_writer_close(w);
}

/* The CPU's backend, to which a packed matrix goes multiplied out: what is left is what binding does. */
static const rd_backend *cpu;

static rd_status take_wide(rd_device *d, const rd_matrix *m, bool exact, rd_weight **out,
                           rd_error *err)
{
    rd_matrix wide = { NULL, RD_F32, m->rows, m->cols, NULL, RD_PACK_NONE, NULL, false };

    if (!m->pack) return cpu->take(d, m, exact, out, err);
    cr_assert_eq((uintptr_t)m->data % 64, 0u);
    float *numbers = malloc((size_t)m->rows * (size_t)m->cols * sizeof *numbers);

    cr_assert(numbers);
    for (int r = 0; r < m->rows; r++)
        rd_unpack_row(m->pack, m->data, m->scale, m->cols, r,
                      numbers + (size_t)r * (size_t)m->cols);
    wide.data = numbers;
    rd_status s = cpu->take(d, &wide, exact, out, err);

    free(numbers);
    return s;
}

static rd_status open_on(const rd_backend *be, const char *folder, rd_model **out, rd_error *err)
{
    rd_model_options o = { .backend = be,
                           .device = { .threads = 1, .isa = "plain", .precision = RD_EXACT },
                           .max_rows = 16 };

    return rd_model_open(folder, &o, out, err);
}

static rd_status open_model(const char *folder, rd_model **out, rd_error *err)
{
    static rd_backend shim;

    cr_assert(!rd_backend_find("cpu", &cpu, err));
    shim = *cpu;
    shim.take = take_wide;
    return open_on(&shim, folder, out, err);
}

static void expect_refused(const char *folder, const char *text)
{
    rd_model *m = NULL;
    rd_error err = { 0 };

    cr_assert(!rd_backend_find("cpu", &cpu, &err)); /* itself: who takes scales judges them */
    cr_assert_eq(open_on(cpu, at(folder), &m, &err), RD_INVALID, "%s", text);
    cr_assert(strstr(err.text, text), "expected \"%s\": %s", text, err.text);
}

#define QKV "model.layers.2.attention.query_key_value.weight"

Test(pack_model, a_file_that_is_not_right_is_refused_by_name, .init = begin, .fini = end)
{
    static const char *const good[] = { "redraft_quant", "int4-panel", "redraft_quant_version", "1",
                                        NULL };
    static const char *const later[] = { "redraft_quant", "int4-panel", "redraft_quant_version",
                                         "2", NULL };
    static const char *const none[] = { "redraft_quant", "int4-panel", NULL };
    static const char *const other[] = { "redraft_quant", "int3-panel", "redraft_quant_version",
                                         "1", NULL };
    static const char *const plain[] = { "other", "thing", NULL };
    static const float bad[] = { NAN, INFINITY, -INFINITY, -1.0f };
    static rd_tensor list[TENSORS], with[TENSORS];
    rd_safetensors *s = NULL;
    rd_model *m = NULL;
    rd_error err;
    float scales[512];

    cr_assert(!pack(MODEL, "q", RD_PACK_INT4, &err));
    cr_assert(!rd_safetensors_open(at("q"), &s, &err));
    int n = list_of(s, list);

    write_again("x", list, n, good);
    cr_assert(!open_model(at("x"), &m, &err), "%s", err.text);
    rd_model_close(m);
    write_again("x", list, n, later);
    expect_refused("x", "int4-panel of version 2");
    write_again("x", list, n, none);
    expect_refused("x", "of version");
    write_again("x", list, n, other);
    expect_refused("x", "packed as \"int3-panel\"");
    write_again("x", list, n, plain);
    expect_refused("x", ".q is U8, expected I8");

    rd_tensor *q = named(list, n, QKV ".q"), *scale = named(list, n, QKV ".s"), was = *q;

    q->shape[0] *= 2;
    q->shape[1] /= 2;
    write_again("x", list, n, good);
    expect_refused("x", QKV ".q is U8 [");
    *q = was;
    q->dtype = RD_I8;
    write_again("x", list, n, good);
    expect_refused("x", QKV ".q is I8");
    *q = was;

    was = *scale;
    scale->shape[0] -= 16;
    scale->bytes -= 64;
    write_again("x", list, n, good);
    expect_refused("x", QKV ".s: missing, or not F32");
    *scale = was;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        memcpy(scales, was.data, was.bytes);
        scales[7] = bad[i];
        scale->data = scales;
        write_again("x", list, n, good);
        expect_refused("x", QKV ": row 7: its scale is negative or not finite");
    }
    *scale = was;

    with[0] = (rd_tensor){
        .name = "a", .dtype = RD_U8, .rank = 1, .shape = { 4 }, .data = "abcd", .bytes = 4
    };
    memcpy(with + 1, list, (size_t)n * sizeof *list);
    write_again("x", with, n + 1, good);
    expect_refused("x", "does not begin at a multiple of 64 bytes");

    rd_tensor *router = named(list, n, "model.layers.1.mlp.gate.weight");
    static char panels[4096];
    static float ones[16];

    memcpy(with, list, (size_t)n * sizeof *list);
    with[router - list] = (rd_tensor){ .name = "model.layers.1.mlp.gate.weight.q",
                                       .dtype = RD_U8,
                                       .rank = 2,
                                       .shape = { 1, 2048 },
                                       .data = panels,
                                       .bytes = 2048 };
    with[n] = (rd_tensor){ .name = "model.layers.1.mlp.gate.weight.s",
                           .dtype = RD_F32,
                           .rank = 1,
                           .shape = { 16 },
                           .data = ones,
                           .bytes = 64 };
    write_again("x", with, n + 1, good);
    expect_refused("x", "mlp.gate.weight: is packed, and must be exact");
    rd_safetensors_close(s);
}

Test(pack_model, what_cannot_be_packed_is_named, .init = begin, .fini = end)
{
    static rd_tensor list[TENSORS];
    rd_safetensors *s = NULL;
    rd_error err;

    cr_assert(!pack(MODEL, "q", RD_PACK_INT4, &err));
    cr_assert_eq(pack(at("q"), "again", RD_PACK_INT8, &err), RD_INVALID);
    cr_assert(strstr(err.text, "is int4-panel already"), "%s", err.text);
    cr_assert(access(at("again"), F_OK));
    cr_assert_eq(pack(at("q"), "q", RD_PACK_INT8, &err), RD_INVALID);
    cr_assert(strstr(err.text, "onto itself"), "%s", err.text);

    cr_assert(!rd_safetensors_open(MODEL, &s, &err));
    int n = list_of(s, list);
    rd_tensor *t = named(list, n, QKV);
    float *bad = malloc(t->bytes * 2);

    cr_assert(bad && t->dtype != RD_BF16);
    rd_widen(bad, t->data, t->dtype, t->bytes / rd_dtype_bytes(t->dtype));
    bad[20 * 48 + 5] = NAN;
    t->bytes = t->bytes / rd_dtype_bytes(t->dtype) * sizeof *bad;
    t->dtype = RD_F32;
    t->data = bad;
    write_again("x", list, n, NULL);
    cr_assert_eq(pack(at("x"), "y", RD_PACK_INT8, &err), RD_INVALID);
    cr_assert(strstr(err.text, QKV ": row 20: column 5 is not finite"), "%s", err.text);
    cr_assert(access(at("y"), F_OK));
    free(bad);
    rd_safetensors_close(s);
}

/* ---- in use ---- */

static void pick_all(const char *folder, rd_pick *out, int rows)
{
    int32_t tokens[16];
    rd_pick_query q = { .n_rows = rows };
    rd_model *m = NULL;
    rd_error err;

    cr_assert(!open_model(folder, &m, &err), "%s", err.text);
    for (int i = 0; i < rows; i++) tokens[i] = 7 * i + 3;
    rd_pass p = { .tokens = tokens, .rows = rows, .query = &q, .picks = out };

    cr_assert(!rd_forward(m, &p, &err), "%s", err.text);
    rd_model_close(m);
}

/* The packed folder's numbers multiplied out, as floats. */
static void write_wide(const char *packed, const char *out)
{
    static rd_tensor list[TENSORS];
    rd_safetensors *s = NULL, *from = NULL;
    rd_error err;
    int n = 0;

    cr_assert(!rd_safetensors_open(at(packed), &s, &err));
    cr_assert(!rd_safetensors_open(MODEL, &from, &err));
    for (int i = 0; i < rd_safetensors_count(from); i++) {
        const rd_tensor *t = rd_safetensors_at(from, i), *q = find(s, t->name, ".q"),
                        *scale = find(s, t->name, ".s");

        list[n] = q ? *t : *find(s, t->name, "");
        if (q) {
            int rows = (int)t->shape[0], cols = (int)t->shape[1];
            bool int8 = q->shape[1] == (int64_t)rd_pack_panel_bytes(RD_PACK_INT8, cols);
            float *wide = malloc((size_t)rows * (size_t)cols * sizeof *wide);

            for (int r = 0; r < rows; r++)
                rd_unpack_row(int8 ? RD_PACK_INT8 : RD_PACK_INT4, q->data, scale->data, cols, r,
                              wide + (size_t)r * (size_t)cols);
            list[n].dtype = RD_F32;
            list[n].data = wide;
            list[n].bytes = (size_t)rows * (size_t)cols * sizeof *wide;
        }
        n++;
    }
    write_again(out, list, n, NULL);
    for (int i = 0; i < n; i++)
        if (find(s, list[i].name, ".q")) free((void *)(uintptr_t)list[i].data);
    rd_safetensors_close(s);
    rd_safetensors_close(from);
}

Test(pack_model, a_packed_model_answers_as_its_numbers_multiplied_out, .init = begin, .fini = end)
{
    rd_pick a[16], b[16];
    rd_error err;

    for (int p = RD_PACK_INT8; p <= RD_PACK_INT4; p++) {
        cr_assert(!pack(MODEL, "q", (rd_pack)p, &err));
        write_wide("q", "w");
        pick_all(at("q"), a, 16);
        pick_all(at("w"), b, 16);
        for (int i = 0; i < 16; i++) {
            cr_assert_eq(a[i].token, b[i].token);
            cr_assert_eq(a[i].prob, b[i].prob);
        }
    }
}

Test(pack_model, a_file_that_changes_under_a_model_is_noticed, .init = begin, .fini = end)
{
    struct timespec times[2] = { { 1, 0 }, { 1, 0 } };
    rd_model *packed = NULL, *wide = NULL;
    rd_error err;

    cr_assert(!pack(MODEL, "q", RD_PACK_INT8, &err));
    cr_assert(!open_model(at("q"), &packed, &err));
    write_wide("q", "w");
    cr_assert(!open_model(at("w"), &wide, &err));
    cr_assert(!rd_model_unchanged(packed, &err) && !rd_model_unchanged(wide, &err));
    cr_assert(!utimensat(AT_FDCWD, at("q/model.safetensors"), times, 0));
    cr_assert(!utimensat(AT_FDCWD, at("w/model.safetensors"), times, 0));
    cr_assert_eq(rd_model_unchanged(packed, &err), RD_DEVICE);
    cr_assert(strstr(err.text, "changed on disk"), "%s", err.text);
    cr_assert(!rd_model_unchanged(wide, &err), "its weights are its own");
    rd_model_close(packed);
    rd_model_close(wide);
}
