/* cpu.c - the backend's table on host memory: which rows and panels each thread does.
 *
 * Work is split by output rows, panels, heads and experts, never inside a sum: results do not depend
 * on the number of threads. Everything a pass needs is allocated when weights, views and KV storage
 * are made; `begin` sees to the room that grows with the rows.
 */
#include "plugins/cpu/cpu.h"

#include "core/base/memory.h"
#include "plugins/cpu/ceilings.h"
#include "plugins/cpu/device.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { THREADS_MOST = 256 };

/* ---- open ---- */

static const rd_kernels *kernels_named(const char *isa, rd_error *err)
{
#if defined(__x86_64__)
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    bool half = avx512 && __builtin_cpu_supports("avx512bf16");
#else
    bool avx2 = false, avx512 = false, half = false;
#endif
    const rd_kernels *best = &rd_kernels_plain;

#if defined(__x86_64__)
    if (avx2) best = &rd_kernels_avx2;
    if (avx512) best = half ? &rd_kernels_avx512_bf16 : &rd_kernels_avx512;
    if (isa && !strcmp(isa, "avx2") && avx2) return &rd_kernels_avx2;
    if (isa && !strcmp(isa, "avx512") && avx512)
        return half ? &rd_kernels_avx512_bf16 : &rd_kernels_avx512;
    if (isa && !strcmp(isa, "avx512-f32") && avx512) return &rd_kernels_avx512;
#endif
    if (!isa) return best;
    if (!strcmp(isa, "plain")) return &rd_kernels_plain;
    if (!strcmp(isa, "avx2") || !strcmp(isa, "avx512") || !strcmp(isa, "avx512-f32"))
        rd_fail(err, RD_DEVICE, "this processor has no %s", isa);
    else
        rd_fail(err, RD_INVALID, "unknown instruction set %s: plain, avx2 or avx512", isa);
    return NULL;
}

/* What multiplies bytes beside `k`, and the name of both. */
static const rd_packed_kernels *packed_of(const rd_kernels *k, const char **name)
{
    *name = k->name;
#if defined(__x86_64__)
    bool half = k == &rd_kernels_avx512_bf16;

    if (half || k == &rd_kernels_avx512) {
        bool vnni = __builtin_cpu_supports("avx512vnni");

        *name = half   ? vnni ? "avx512-bf16-vnni" : "avx512-bf16, no vnni"
                : vnni ? "avx512-vnni"
                       : "avx512, no vnni";
        return vnni ? &rd_packed_avx512 : &rd_packed_avx2;
    }
    if (k == &rd_kernels_avx2) return &rd_packed_avx2;
    if (!__builtin_cpu_supports("avx2")) *name = "plain, no avx2";
#endif
    return &rd_packed_plain;
}

static void cpu_close(rd_device *d)
{
    if (!d) return;
    for (int i = 0; d->scores && i < rd_cpu_pool_threads(d->pool); i++) {
        free(d->scores[i]);
        free(d->logits[i]);
        free(d->inner[i]);
    }
    rd_cpu_pool_free(d->pool);
    rd_gemm_train_close(d->gemm);
    free(d->half);
    free(d->bytes_in);
    free(d->tile);
    free(d->tile_room);
    free(d->inner);
    free(d->own);
    free(d->angles.data);
    free(d->angles.positions);
    free(d->tile_k);
    free(d->tile_v);
    free(d->scores);
    free(d->logits);
    free(d->work);
    free(d->parts);
    free(d->route);
    free(d);
}

static rd_status cpu_open(const rd_device_options *o, rd_device **out, rd_error *err)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    int threads = o->threads > 0 ? o->threads : cores > 0 ? (int)cores : 1;
    const rd_kernels *kernels = kernels_named(o->isa, err);

    if (!kernels) return err ? err->status : RD_DEVICE;
    if (o->weights == RD_FORM_FP8) return rd_fail(err, RD_INVALID, "the CPU has no FP8");
    if (threads > THREADS_MOST) threads = THREADS_MOST;
    rd_device *d = rd_alloc0(sizeof *d);

    d->kernels = kernels;
    d->packed = packed_of(kernels, &d->isa);
    d->precision = o->precision;
    d->pool = rd_cpu_pool_new(threads);
    threads = rd_cpu_pool_threads(d->pool);
    d->scores = rd_alloc_array((size_t)threads, sizeof *d->scores);
    d->logits = rd_alloc_array((size_t)threads, sizeof *d->logits);
    d->inner = rd_alloc_array((size_t)threads, sizeof *d->inner);
    *out = d;
    return RD_OK;
}

static void cpu_describe(rd_device *d, rd_device_info *out)
{
    *out = (rd_device_info){ .isa = d->isa,
                             .threads = rd_cpu_pool_threads(d->pool),
                             .bytes = d->bytes };
}

rd_status rd_cpu_no_memory(rd_error *err, const char *what, size_t bytes)
{
    return rd_fail(err, RD_NO_MEMORY, "no memory for %s: %zu MB", what, bytes >> 20);
}

/* Room for n elements in a scratch array; what was there is lost. */
rd_status rd_cpu_room(void *array, size_t *have, size_t n, size_t size, const char *what,
                      rd_error *err)
{
    void **p = array;
    size_t bytes;

    if (n <= *have) return RD_OK;
    n += n / 4;
    if (!rd_mul(n, size, &bytes)) return rd_cpu_no_memory(err, what, SIZE_MAX);
    free(*p);
    *have = 0;
    *p = rd_try_alloc(bytes);
    if (!*p) return rd_cpu_no_memory(err, what, bytes);
    *have = n;
    return RD_OK;
}

rd_status rd_cpu_room_each(rd_device *d, float **array, size_t *have, size_t n, const char *what,
                           rd_error *err)
{
    if (n <= *have) return RD_OK;
    n += n / 4;
    *have = 0;
    for (int i = 0; i < rd_cpu_pool_threads(d->pool); i++) {
        size_t none = 0;

        if (rd_cpu_room(&array[i], &none, n, sizeof(float), what, err))
            return err ? err->status : RD_NO_MEMORY;
    }
    *have = n;
    return RD_OK;
}

/* ---- memory ---- */

static rd_status cpu_alloc(rd_device *d, int rows, int cols, rd_view *out, rd_error *err)
{
    size_t cells, bytes;

    if (rows < 0 || cols < 0 || !rd_mul((size_t)rows, (size_t)cols, &cells) ||
        !rd_mul(cells, sizeof(float), &bytes))
        return rd_fail(err, RD_INVALID, "a view of %d x %d", rows, cols);
    float *data = rd_try_alloc(bytes ? bytes : 1);

    if (!data) return rd_cpu_no_memory(err, "activations", bytes);
    d->bytes += bytes;
    *out = (rd_view){ data, rows, cols };
    return RD_OK;
}

static void cpu_release(rd_device *d, rd_view *v)
{
    if (v->data) d->bytes -= (size_t)v->rows * (size_t)v->cols * sizeof *v->data;
    free(v->data);
    *v = (rd_view){ 0 };
}

static rd_status cpu_upload(rd_device *d, rd_view to, const float *from, rd_error *err)
{
    (void)d, (void)err;
    memcpy(to.data, from, (size_t)to.rows * (size_t)to.cols * sizeof *from);
    return RD_OK;
}

static rd_status cpu_download(rd_device *d, float *to, rd_view from, rd_error *err)
{
    (void)d, (void)err;
    memcpy(to, from.data, (size_t)from.rows * (size_t)from.cols * sizeof *to);
    return RD_OK;
}

/* ---- verbs ---- */

static rd_status cpu_begin(rd_device *d, int rows, rd_error *err)
{
    (void)rows, (void)err;
    rd_cpu_pool_wake(d->pool);
    return RD_OK;
}

static rd_status cpu_end(rd_device *d, rd_error *err)
{
    (void)d, (void)err;
    return RD_OK;
}

static rd_status cpu_embed(rd_device *d, rd_view out, const rd_weight *table, const int32_t *tokens,
                           rd_error *err)
{
    (void)d;
    for (int r = 0; r < out.rows; r++) {
        float *to = out.data + (size_t)r * (size_t)out.cols;

        if (tokens[r] < 0 || tokens[r] >= table->rows)
            return rd_fail(err, RD_INVALID, "token %d of a vocabulary of %d", tokens[r],
                           table->rows);
        rd_cpu_row(table, tokens[r], to);
    }
    return RD_OK;
}

/* Norm and add are split by rows where there is enough to do. */
enum { ROWS_TOGETHER = 8, CELLS_LEAST = 1 << 14 };

typedef struct row_job {
    const rd_device *d;
    rd_view out, x;
    const float *weight;
    float eps;
    int each;
} row_job;

static void norm_piece(void *user, int piece, int thread)
{
    row_job *j = user;
    int from = piece * j->each, to = from + j->each < j->x.rows ? from + j->each : j->x.rows;

    (void)thread;
    for (int r = from; r < to; r++)
        j->d->kernels->norm(j->out.data + (size_t)r * (size_t)j->out.cols,
                            j->x.data + (size_t)r * (size_t)j->x.cols, j->weight, j->x.cols,
                            j->eps);
}

static void add_piece(void *user, int piece, int thread)
{
    row_job *j = user;
    int from = piece * j->each, to = from + j->each < j->x.rows ? from + j->each : j->x.rows;
    size_t cols = (size_t)j->x.cols;

    (void)thread;
    for (size_t i = (size_t)from * cols; i < (size_t)to * cols; i++) j->out.data[i] += j->x.data[i];
}

static void run_rows(rd_device *d, row_job *j, void (*piece)(void *user, int piece, int thread))
{
    bool few = (size_t)j->x.rows * (size_t)j->x.cols < CELLS_LEAST;

    j->each = few ? j->x.rows : ROWS_TOGETHER;
    if (j->x.rows > 0) rd_cpu_pool_run(d->pool, (j->x.rows + j->each - 1) / j->each, piece, j);
}

static rd_status cpu_norm(rd_device *d, rd_view out, rd_view x, const rd_weight *weight, float eps,
                          rd_error *err)
{
    (void)err;
    run_rows(d, &(row_job){ .d = d, .out = out, .x = x, .weight = weight->data, .eps = eps },
             norm_piece);
    return RD_OK;
}

static rd_status cpu_add(rd_device *d, rd_view x, rd_view y, rd_error *err)
{
    (void)err;
    run_rows(d, &(row_job){ .d = d, .out = x, .x = y }, add_piece);
    return RD_OK;
}

static rd_status cpu_gemm(rd_device *d, bool ta, bool tb, int m, int n, int k, const float *a,
                          int lda, const float *b, int ldb, float beta, float *c, int ldc,
                          rd_error *err)
{
    if (!d->gemm && rd_gemm_train_open(d->precision, &d->gemm, err)) return RD_DEVICE;
    return rd_gemm_train_run(d->gemm, ta, tb, m, n, k, a, lda, b, ldb, beta, c, ldc, err);
}

const rd_backend *rd_cpu_backend(void)
{
    static const rd_backend cpu = {
        .abi = RD_BACKEND_ABI,
        .size = sizeof(rd_backend),
        .name = "cpu",
        .open = cpu_open,
        .close = cpu_close,
        .describe = cpu_describe,
        .take = rd_cpu_take,
        .drop = rd_cpu_drop,
        .alloc = cpu_alloc,
        .release = cpu_release,
        .upload = cpu_upload,
        .download = cpu_download,
        .kv_open = rd_cpu_kv_open,
        .kv_close = rd_cpu_kv_close,
        .kv_block_bytes = rd_cpu_kv_block_bytes,
        .kv_read = rd_cpu_kv_read,
        .kv_write = rd_cpu_kv_write,
        .kv_layout = "float32, keys [dim][token]; bf16, in pairs",
        .kv_host = rd_cpu_kv_host,
        .begin = cpu_begin,
        .end = cpu_end,
        .embed = cpu_embed,
        .norm = cpu_norm,
        .linear = rd_cpu_linear,
        .attention = rd_cpu_attention,
        .mlp = rd_cpu_mlp,
        .moe = rd_cpu_moe,
        .add = cpu_add,
        .pick = rd_cpu_pick,
        .gemm = cpu_gemm,
        .ceilings = rd_cpu_ceilings,
    };
    return &cpu;
}
