/* gemm_train.c - the trainer's matrix product: oneDNN in bf16, or tiles in float32.
 *
 * The float32 product copies B into strips of sixteen columns, so that transposes and edges are dealt
 * with once, and keeps the sums of six rows in registers.
 *
 * oneDNN wants a primitive for each shape; they are made once and kept in a table found by hash.
 * The factors are rounded to bf16 into buffers of the context, in their own layout (the library
 * reads transposes itself). The library is held to one thread: the trainer runs one context in
 * each of its own threads, which scales better than splitting every product.
 */
#include "plugins/cpu/gemm_train.h"

#include "core/base/memory.h"

#include <stdlib.h>
#include <string.h>

#ifdef RD_HAVE_DNNL
#include <dnnl.h>

void omp_set_num_threads(int n); /* of the OpenMP runtime that the library uses */

enum { SLOTS = 4096, PROBES = 16 };

typedef struct product {
    int m, n, k, ldc;
    bool ta, tb, add, used;
    dnnl_primitive_t primitive;
    dnnl_memory_t a, b, c, scratch;
    size_t scratch_bytes;
} product;
#endif

struct rd_gemm_train {
    bool fast;
    uint16_t *a, *b;
    size_t a_room, b_room;
    float *strips; /* of the plain product */
    size_t strips_room;
#ifdef RD_HAVE_DNNL
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    product *slots;
    void *scratch;
    size_t scratch_room;
#endif
};

/* The resolvers of clones run before the thread sanitizer is ready; clang names them so that no other file finds them. */
#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__) && !defined(__clang__)
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif

/* What one AVX2 register holds: compilers keep sums of wider vectors in memory where there are none so wide. */
typedef float lanes __attribute__((vector_size(32), aligned(4), may_alias));

enum { WIDE = 16, TALL = 6 }; /* columns of a strip of B; rows whose sums stay in registers */
enum { LANES = sizeof(lanes) / sizeof(float), PARTS = WIDE / LANES };

/* op(B) [k, n] as strips of WIDE columns, one after the other, the last filled up with zeros. */
CLONES static void pack_strips(float *out, bool tb, int n, int k, const float *b, int ldb)
{
    for (int j = 0; j < n; j += WIDE) {
        int cols = n - j < WIDE ? n - j : WIDE;

        for (int p = 0; p < k; p++, out += WIDE) {
            for (int i = 0; i < cols; i++)
                out[i] = tb ? b[(size_t)(j + i) * (size_t)ldb + (size_t)p]
                            : b[(size_t)p * (size_t)ldb + (size_t)(j + i)];
            for (int i = cols; i < WIDE; i++) out[i] = 0.0f;
        }
    }
}

/* sums [TALL][WIDE] = rows of A times a strip; A(i, p) = a[i * ai + p * ap]. */
CLONES static void tall_tile(float *sums, int k, const float *a, size_t ai, size_t ap,
                             const float *strip)
{
    lanes s[TALL][PARTS] = { 0 };

    for (int p = 0; p < k; p++, a += ap, strip += WIDE)
        for (int r = 0; r < TALL; r++)
            for (int q = 0; q < PARTS; q++)
                s[r][q] += a[(size_t)r * ai] * *(const lanes *)(strip + q * LANES);
    for (int r = 0; r < TALL; r++)
        for (int q = 0; q < PARTS; q++) *(lanes *)(sums + r * WIDE + q * LANES) = s[r][q];
}

CLONES static void low_tile(float *sums, int k, const float *a, size_t ap, const float *strip)
{
    lanes s[PARTS] = { 0 };

    for (int p = 0; p < k; p++, a += ap, strip += WIDE)
        for (int q = 0; q < PARTS; q++) s[q] += *a * *(const lanes *)(strip + q * LANES);
    for (int q = 0; q < PARTS; q++) *(lanes *)(sums + q * LANES) = s[q];
}

static void plain(bool ta, int m, int n, int k, const float *a, int lda, const float *strips,
                  float beta, float *c, int ldc)
{
    size_t ai = ta ? 1 : (size_t)lda, ap = ta ? (size_t)lda : 1;

    for (int j = 0; j < n; j += WIDE, strips += (size_t)k * WIDE) {
        int cols = n - j < WIDE ? n - j : WIDE;

        for (int i = 0, rows; i < m; i += rows) {
            float sums[TALL * WIDE];

            rows = m - i < TALL ? 1 : TALL;
            if (rows == TALL)
                tall_tile(sums, k, a + (size_t)i * ai, ai, ap, strips);
            else
                low_tile(sums, k, a + (size_t)i * ai, ap, strips);
            for (int r = 0; r < rows; r++) {
                float *out = c + (size_t)(i + r) * (size_t)ldc + j;

                for (int q = 0; q < cols; q++)
                    out[q] = (beta != 0.0f ? out[q] : 0.0f) + sums[r * WIDE + q];
            }
        }
    }
}

#ifdef RD_HAVE_DNNL

/* Round to nearest even. NaN is of no matter here: the trainer checks its loss. */
CLONES static void round_row(uint16_t *restrict out, const float *restrict in, int n)
{
    for (int i = 0; i < n; i++) {
        uint32_t bits;

        memcpy(&bits, in + i, 4);
        out[i] = (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
    }
}

static bool round_matrix(uint16_t **room, size_t *have, const float *x, int rows, int cols, int ld)
{
    size_t need = (size_t)rows * (size_t)cols;

    if (*have < need) {
        free(*room);
        *have = 0;
        *room = rd_try_alloc_array(need, sizeof **room);
        if (!*room) return false;
        *have = need;
    }
    for (int r = 0; r < rows; r++)
        round_row(*room + (size_t)r * (size_t)cols, x + (size_t)r * (size_t)ld, cols);
    return true;
}

static bool create(rd_gemm_train *g, product *p)
{
    dnnl_dims_t ad = { p->m, p->k }, bd = { p->k, p->n }, cd = { p->m, p->n };
    dnnl_dims_t as = { p->ta ? 1 : p->k, p->ta ? p->m : 1 };
    dnnl_dims_t bs = { p->tb ? 1 : p->n, p->tb ? p->k : 1 }, cs = { p->ldc, 1 };
    dnnl_memory_desc_t a, b, c;
    dnnl_matmul_desc_t d;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_post_ops_t ops = NULL;
    dnnl_primitive_desc_t pd = NULL;
    bool ok = false;

    if (dnnl_memory_desc_init_by_strides(&a, 2, ad, dnnl_bf16, as) ||
        dnnl_memory_desc_init_by_strides(&b, 2, bd, dnnl_bf16, bs) ||
        dnnl_memory_desc_init_by_strides(&c, 2, cd, dnnl_f32, cs) ||
        dnnl_matmul_desc_init(&d, &a, &b, NULL, &c) || dnnl_primitive_attr_create(&attr))
        goto done;
    if (dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user)) goto done;
    if (p->add) {
        if (dnnl_post_ops_create(&ops) || dnnl_post_ops_append_sum(ops, 1.0f) ||
            dnnl_primitive_attr_set_post_ops(attr, ops))
            goto done;
    }
    if (dnnl_primitive_desc_create(&pd, &d, attr, g->engine, NULL)) goto done;
    const dnnl_memory_desc_t *scratch =
        dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);

    p->scratch_bytes = scratch ? dnnl_memory_desc_get_size(scratch) : 0;
    if (dnnl_primitive_create(&p->primitive, pd)) goto done;
    if (dnnl_memory_create(&p->a, &a, g->engine, NULL) ||
        dnnl_memory_create(&p->b, &b, g->engine, NULL) ||
        dnnl_memory_create(&p->c, &c, g->engine, NULL) ||
        dnnl_memory_create(&p->scratch, scratch, g->engine, NULL))
        goto done;
    ok = true;
done:
    if (pd) dnnl_primitive_desc_destroy(pd);
    if (ops) dnnl_post_ops_destroy(ops);
    if (attr) dnnl_primitive_attr_destroy(attr);
    return ok;
}

static void destroy(product *p)
{
    if (p->primitive) dnnl_primitive_destroy(p->primitive);
    if (p->a) dnnl_memory_destroy(p->a);
    if (p->b) dnnl_memory_destroy(p->b);
    if (p->c) dnnl_memory_destroy(p->c);
    if (p->scratch) dnnl_memory_destroy(p->scratch);
    memset(p, 0, sizeof *p);
}

static bool same(const product *p, const product *q)
{
    return p->m == q->m && p->n == q->n && p->k == q->k && p->ldc == q->ldc && p->ta == q->ta &&
           p->tb == q->tb && p->add == q->add;
}

/* The primitive for a shape; the last of the probed slots gives way when all are taken. */
static product *find(rd_gemm_train *g, const product *want)
{
    uint64_t h = (uint64_t)want->m * 0x9e3779b97f4a7c15u;

    h = (h ^ (uint64_t)want->n) * 0x9e3779b97f4a7c15u;
    h = (h ^ (uint64_t)want->k) * 0x9e3779b97f4a7c15u;
    h = (h ^ (uint64_t)want->ldc) * 0x9e3779b97f4a7c15u;
    h = (h ^ (uint64_t)(want->ta * 4 + want->tb * 2 + want->add)) * 0x9e3779b97f4a7c15u;
    product *p = NULL;

    for (unsigned i = 0; i < PROBES; i++) {
        p = &g->slots[((h >> 40) + i) % SLOTS];
        if (!p->used) break;
        if (same(p, want)) return p;
    }
    destroy(p);
    *p = *want;
    if (!create(g, p)) {
        destroy(p);
        return NULL;
    }
    p->used = true;
    return p;
}

static rd_status fast(rd_gemm_train *g, const product *want, const float *a, int lda,
                      const float *b, int ldb, float *c, rd_error *err)
{
    product *p = find(g, want);

    if (!p) {
        return rd_fail(err, RD_DEVICE, "matrix product %d x %d x %d: oneDNN refuses the shape",
                       want->m, want->n, want->k);
    }
    if (!round_matrix(&g->a, &g->a_room, a, p->ta ? p->k : p->m, p->ta ? p->m : p->k, lda) ||
        !round_matrix(&g->b, &g->b_room, b, p->tb ? p->n : p->k, p->tb ? p->k : p->n, ldb))
        return rd_fail(err, RD_NO_MEMORY, "matrix product %d x %d x %d: no memory", p->m, p->n,
                       p->k);
    if (g->scratch_room < p->scratch_bytes) {
        free(g->scratch);
        g->scratch_room = 0;
        g->scratch = rd_try_alloc(p->scratch_bytes);
        if (!g->scratch) {
            return rd_fail(err, RD_NO_MEMORY, "matrix product: no memory for %zu bytes of scratch",
                           p->scratch_bytes);
        }
        g->scratch_room = p->scratch_bytes;
    }
    dnnl_memory_set_data_handle(p->a, g->a);
    dnnl_memory_set_data_handle(p->b, g->b);
    dnnl_memory_set_data_handle(p->c, c);
    dnnl_memory_set_data_handle(p->scratch, g->scratch);
    dnnl_exec_arg_t args[] = { { DNNL_ARG_SRC, p->a },
                               { DNNL_ARG_WEIGHTS, p->b },
                               { DNNL_ARG_DST, p->c },
                               { DNNL_ARG_SCRATCHPAD, p->scratch } };

    omp_set_num_threads(1);
    if (dnnl_primitive_execute(p->primitive, g->stream, 4, args)) {
        return rd_fail(err, RD_DEVICE, "matrix product %d x %d x %d: oneDNN failed", p->m, p->n,
                       p->k);
    }
    return RD_OK;
}

#endif

rd_status rd_gemm_train_open(rd_precision precision, rd_gemm_train **out, rd_error *err)
{
    rd_gemm_train *g = rd_alloc0(sizeof *g);

#ifdef RD_HAVE_DNNL
    g->fast = precision == RD_FAST && __builtin_cpu_supports("avx512bf16");
    if (g->fast) {
        omp_set_num_threads(1);
        g->slots = rd_alloc_array(SLOTS, sizeof *g->slots);
        if (dnnl_engine_create(&g->engine, dnnl_cpu, 0) ||
            dnnl_stream_create(&g->stream, g->engine, dnnl_stream_default_flags)) {
            rd_gemm_train_close(g);
            return rd_fail(err, RD_DEVICE, "oneDNN: no CPU engine");
        }
    }
#else
    (void)precision;
    (void)err;
#endif
    *out = g;
    return RD_OK;
}

void rd_gemm_train_close(rd_gemm_train *g)
{
    if (!g) return;
#ifdef RD_HAVE_DNNL
    for (int i = 0; g->slots && i < SLOTS; i++) destroy(&g->slots[i]);
    free(g->slots);
    free(g->scratch);
    if (g->stream) dnnl_stream_destroy(g->stream);
    if (g->engine) dnnl_engine_destroy(g->engine);
#endif
    free(g->strips);
    free(g->a);
    free(g->b);
    free(g);
}

const char *rd_gemm_train_name(const rd_gemm_train *g)
{
    return g->fast ? "onednn-bf16" : "plain";
}

rd_status rd_gemm_train_run(rd_gemm_train *g, bool ta, bool tb, int m, int n, int k, const float *a,
                            int lda, const float *b, int ldb, float beta, float *c, int ldc,
                            rd_error *err)
{
    if (m <= 0 || n <= 0 || k <= 0) return RD_OK;
#ifdef RD_HAVE_DNNL
    if (g->fast) {
        product want = {
            .m = m, .n = n, .k = k, .ldc = ldc, .ta = ta, .tb = tb, .add = beta != 0.0f
        };

        return fast(g, &want, a, lda, b, ldb, c, err);
    }
#endif
    size_t need = ((size_t)n + WIDE - 1) / WIDE * WIDE * (size_t)k;

    if (g->strips_room < need) {
        free(g->strips);
        g->strips_room = 0;
        g->strips = rd_try_alloc_array(need, sizeof *g->strips);
        if (!g->strips)
            return rd_fail(err, RD_NO_MEMORY, "matrix product %d x %d x %d: no memory", m, n, k);
        g->strips_room = need;
    }
    pack_strips(g->strips, tb, n, k, b, ldb);
    plain(ta, m, n, k, a, lda, g->strips, beta, c, ldc);
    return RD_OK;
}
