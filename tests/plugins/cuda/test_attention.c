/* test_attention.c - attention over blocks and rows of odd shapes against plain C, in float32 and on the tensor cores. */
#include "tests/plugins/cuda/sides.h"

typedef struct shape {
    int rows, past, block, heads, kv_heads, dim, rotary, sight, visible;
    int branches; /* groups of `block` rows at the end; 0: none */
    bool keep;
} shape;

enum { BLOCKS = 24 };

/* The same past, queries, keys and values for both sides. */
typedef struct inputs {
    shape s;
    float *past; /* [past][K, V][kv_head][token][dim], numbers that bf16 has */
    float *qkv;
    float *q_norm, *k_norm;
    int32_t positions[256], numbers[BLOCKS], keep[BLOCKS], counts[BLOCKS];
} inputs;

static size_t block_numbers(const shape *s)
{
    return 2 * (size_t)s->kv_heads * (size_t)s->block * (size_t)s->dim;
}

static inputs inputs_of(const shape *s, rd_random *r)
{
    inputs in = { .s = *s };
    size_t n = block_numbers(s) * (size_t)s->past;
    int own = (s->rows + s->block - 1) / s->block;

    in.past = normals(r, n, 1.0f);
    for (size_t i = 0; i < n; i++) in.past[i] = rd_bf16_to_f32(rd_f32_to_bf16(in.past[i]));
    in.qkv = normals(r, (size_t)s->rows * (size_t)((s->heads + 2 * s->kv_heads) * s->dim), 1.0f);
    in.q_norm = normals(r, (size_t)s->dim, 0.2f);
    in.k_norm = normals(r, (size_t)s->dim, 0.2f);
    for (int i = 0; i < s->dim; i++) {
        in.q_norm[i] += 1.0f;
        in.k_norm[i] += 1.0f;
    }
    for (int i = 0; i < s->rows; i++)
        in.positions[i] = s->past * s->block + i + (i > 7 ? 100000 : 0);
    for (int i = 0; i < BLOCKS; i++) in.numbers[i] = (i * 7 + 3) % BLOCKS;
    for (int i = 0; i < own; i++) in.keep[i] = i % 3 == 1 ? -1 : in.numbers[BLOCKS - 1 - i];
    for (int i = 0; i < s->branches; i++) {
        int size = i < s->branches - 1 ? s->block : s->rows - (own - 1) * s->block;

        in.counts[i] = 1 + (i * 5 + 2) % size;
    }
    return in;
}

static void inputs_clear(inputs *in)
{
    free(in->past);
    free(in->qkv);
    free(in->q_norm);
    free(in->k_norm);
}

/* A backend's weights and storage for such inputs. */
typedef struct store {
    side s;
    rd_kv *kv;
    rd_weight *q, *k;
    bool half;
} store;

static store store_of(side s, const inputs *in, int layers)
{
    const shape *h = &in->s;
    rd_kv_shape storage = { layers, h->kv_heads, h->dim, h->block, BLOCKS, false };
    rd_matrix q = { .data = in->q_norm, .dtype = RD_F32, .rows = 1, .cols = h->dim };
    rd_matrix k = { .data = in->k_norm, .dtype = RD_F32, .rows = 1, .cols = h->dim };
    store st = { .s = s };
    rd_error err;

    st.q = weight_of(s, &q, true);
    st.k = weight_of(s, &k, true);
    cr_assert_eq(s.be->kv_open(s.d, &storage, &st.kv, &err), RD_OK, "%s", err.text);
    st.half = s.be->kv_block_bytes(s.d, st.kv) == block_numbers(h) * (size_t)layers * 2;
    return st;
}

static void store_close(store *st)
{
    st->s.be->kv_close(st->s.d, st->kv);
    st->s.be->drop(st->s.d, st->q);
    st->s.be->drop(st->s.d, st->k);
}

/* One layer's block of numbers in and out, float32 here. */
static void put_block(store *st, int block, const float *from, size_t n)
{
    rd_error err;

    if (!st->half) {
        cr_assert_eq(st->s.be->kv_write(st->s.d, st->kv, block, from, &err), RD_OK, "%s", err.text);
        return;
    }
    uint16_t *half = rd_alloc_array(n, sizeof *half);

    for (size_t i = 0; i < n; i++) half[i] = rd_f32_to_bf16(from[i]);
    cr_assert_eq(st->s.be->kv_write(st->s.d, st->kv, block, half, &err), RD_OK, "%s", err.text);
    free(half);
}

static float *get_block(store *st, int block, size_t n)
{
    float *to = rd_alloc_array(n, sizeof *to);
    rd_error err;

    cr_assert_eq(st->s.be->kv_read(st->s.d, st->kv, block, to, &err), RD_OK, "%s", err.text);
    if (st->half)
        for (size_t i = n; i-- > 0;) to[i] = rd_bf16_to_f32(((uint16_t *)(void *)to)[i]);
    return to;
}

static rd_attention verb_of(const store *st, const inputs *in)
{
    const shape *s = &in->s;
    rd_attention a = { .rows = s->rows,
                       .heads = s->heads,
                       .kv_heads = s->kv_heads,
                       .head_dim = s->dim,
                       .rotary_dim = s->rotary,
                       .eps = 1e-6f,
                       .theta = 600000.0,
                       .positions = in->positions,
                       .past = in->numbers,
                       .past_blocks = s->past,
                       .keep = s->keep ? in->keep : NULL,
                       .sight = s->sight,
                       .kv = st->kv,
                       .q_norm = st->q,
                       .k_norm = st->k,
                       .visible = s->visible };

    if (s->branches)
        a.branches =
            (rd_branches){ (s->rows + s->block - 1) / s->block * s->block - s->branches * s->block,
                           s->block, in->counts };
    return a;
}

/* The attention's output. */
static float *attend(store *st, const inputs *in)
{
    const shape *s = &in->s;
    rd_attention a = verb_of(st, in);
    rd_error err;
    rd_view qkv = view_of(st->s, in->qkv, s->rows, (s->heads + 2 * s->kv_heads) * s->dim);
    rd_view out = poison(st->s, s->rows, s->heads * s->dim);

    for (int b = 0; b < s->past; b++)
        put_block(st, in->numbers[b], in->past + (size_t)b * block_numbers(s), block_numbers(s));
    cr_assert_eq(st->s.be->begin(st->s.d, s->rows, &err), RD_OK, "%s", err.text);
    cr_assert_eq(st->s.be->attention(st->s.d, out, qkv, &a, &err), RD_OK, "%s", err.text);
    cr_assert_eq(st->s.be->end(st->s.d, &err), RD_OK, "%s", err.text);
    float *y = fetched(st->s, out);

    st->s.be->release(st->s.d, &qkv);
    st->s.be->release(st->s.d, &out);
    return y;
}

typedef struct limits {
    double one, all; /* of one number, of their length */
} limits;

static void check_kept(store *cpu, store *gpu, const inputs *in, limits most, size_t at)
{
    const shape *s = &in->s;
    size_t n = block_numbers(s), dim = (size_t)s->dim;

    for (int b = 0; s->keep && b < (s->rows + s->block - 1) / s->block; b++) {
        if (in->keep[b] < 0) continue;
        float *want = get_block(cpu, in->keep[b], n), *got = get_block(gpu, in->keep[b], n);
        int rows = s->rows - b * s->block < s->block ? s->rows - b * s->block : s->block;

        for (int h = 0; h < 2 * s->kv_heads; h++) {
            size_t from = (size_t)h * (size_t)s->block * dim, count = (size_t)rows * dim;
            double far = worst(got + from, want + from, count),
                   off = apart(got + from, want + from, count);

            cr_assert(far <= most.one && off <= most.all, "case %zu, block %d, head %d: %g, %g", at,
                      b, h, far, off);
        }
        free(want);
        free(got);
    }
}

static void compare(const shape *s, rd_precision precision, limits most, size_t at)
{
    rd_random r = rd_random_seed(100 + at);
    inputs in = inputs_of(s, &r);
    store cpu = store_of(cpu_side(), &in, 1),
          gpu = store_of(gpu_side(precision, RD_FORM_STORED), &in, 1);
    float *want = attend(&cpu, &in), *got = attend(&gpu, &in);
    size_t n = (size_t)s->rows * (size_t)(s->heads * s->dim);
    double far = worst(got, want, n), off = apart(got, want, n);

    cr_assert(far <= most.one && off <= most.all, "case %zu: %g, %g of %g, %g", at, far, off,
              most.one, most.all);
    check_kept(&cpu, &gpu, &in, most, at);
    free(want);
    free(got);
    store_close(&cpu);
    store_close(&gpu);
    side_close(&cpu.s);
    side_close(&gpu.s);
    inputs_clear(&in);
}

/* rows, past, block, heads, kv_heads, dim, rotary, sight, visible, branches, keep */
static const shape shapes[] = {
    { 1, 0, 32, 4, 2, 64, 32, 32, 0, 0, false },     { 5, 3, 32, 4, 1, 32, 32, 32, 0, 0, true },
    { 31, 1, 32, 16, 4, 128, 64, 32, 0, 0, true },   { 32, 9, 32, 16, 4, 128, 64, 32, 0, 0, true },
    { 33, 3, 16, 6, 2, 64, 32, 16, 0, 0, true },     { 64, 9, 64, 3, 3, 32, 16, 64, 0, 0, true },
    { 70, 0, 32, 2, 2, 128, 128, 32, 0, 0, true },   { 70, 3, 16, 4, 4, 32, 16, 1000, 0, 0, true },
    { 64, 1, 32, 8, 1, 64, 32, 1, 0, 0, false },     { 70, 9, 16, 4, 2, 128, 64, 7, 53, 0, true },
    { 32, 3, 32, 16, 4, 128, 64, 32, 20, 0, false }, { 96, 3, 32, 4, 2, 64, 32, 32, 0, 2, true },
    { 80, 1, 16, 4, 2, 32, 16, 16, 0, 3, false },    { 70, 0, 16, 6, 2, 64, 64, 1000, 0, 5, false },
    { 100, 9, 32, 10, 2, 64, 0, 32, 0, 0, true },
};

Test(cuda_attention, in_float32_agrees_with_plain_c)
{
    GPU_OR_SKIP();
    static const shape odd[] = {
        { 5, 0, 8, 4, 2, 12, 6, 8, 0, 0, true },     { 13, 3, 4, 8, 4, 8, 4, 4, 0, 0, true },
        { 20, 2, 5, 2, 1, 10, 10, 64, 0, 0, true },  { 24, 1, 8, 4, 4, 16, 8, 24, 19, 0, true },
        { 33, 9, 24, 6, 3, 80, 40, 24, 0, 0, true },
    };
    limits most = { 1e-5, 2e-6 };

    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        compare(&shapes[i], RD_EXACT, most, i);
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        compare(&odd[i], RD_EXACT, most, 50 + i);
        compare(&odd[i], RD_FAST, most, 60 + i); /* no shape for the tensor cores */
    }
}

Test(cuda_attention, on_the_tensor_cores_agrees_with_plain_c)
{
    GPU_OR_SKIP();
    limits most = { 2e-2, 5e-3 };

    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        compare(&shapes[i], RD_FAST, most, i);
}

/* Lists and counts of the next pass are other ones; the graph is the same. */
Test(cuda_attention, a_replayed_pass_reads_its_own_lists)
{
    GPU_OR_SKIP();
    shape s = { 32, 5, 32, 4, 2, 64, 32, 32, 0, 0, true };
    rd_random r = rd_random_seed(9);
    inputs in = inputs_of(&s, &r);
    store cpu = store_of(cpu_side(), &in, 1),
          gpu = store_of(gpu_side(RD_FAST, RD_FORM_STORED), &in, 1);
    size_t n = (size_t)s.rows * (size_t)(s.heads * s.dim);
    store *both[] = { &cpu, &gpu };
    rd_view qkv[2], out[2];
    int64_t captured, replayed, launched;
    rd_error err;

    for (int i = 0; i < 2; i++) {
        out[i] = poison(both[i]->s, s.rows, s.heads * s.dim);
        qkv[i] = poison(both[i]->s, s.rows, (s.heads + 2 * s.kv_heads) * s.dim);
        for (int b = 0; b < 8; b++)
            put_block(both[i], in.numbers[b], in.past + (size_t)(b % s.past) * block_numbers(&s),
                      block_numbers(&s));
    }
    for (int pass = 0; pass < 4; pass++) {
        float *y[2];

        in.s.past = 5 + pass % 4 % 3; /* at most eight: one power of two */
        in.s.visible = pass == 2 ? 17 : 0;
        in.numbers[0] = pass % 2 ? 10 : 3;
        in.numbers[1] = pass % 2 ? 3 : 10;
        for (int i = 0; i < s.rows; i++) in.positions[i] = 1000 * pass + i;
        for (int i = 0; i < 2; i++) {
            rd_attention a = verb_of(both[i], &in);

            cr_assert_eq(both[i]->s.be->upload(both[i]->s.d, qkv[i], in.qkv, &err), RD_OK);
            cr_assert_eq(both[i]->s.be->begin(both[i]->s.d, s.rows, &err), RD_OK);
            cr_assert_eq(both[i]->s.be->attention(both[i]->s.d, out[i], qkv[i], &a, &err), RD_OK);
            cr_assert_eq(both[i]->s.be->end(both[i]->s.d, &err), RD_OK);
            y[i] = fetched(both[i]->s, out[i]);
        }
        cr_assert_leq(apart(y[1], y[0], n), 5e-3, "pass %d: %g", pass, apart(y[1], y[0], n));
        free(y[0]);
        free(y[1]);
    }
    gpu_passes(gpu.s.d, &captured, &replayed, &launched);
    cr_assert_gt(replayed, 0);
}

Test(cuda_attention, arguments_that_do_not_fit_are_refused)
{
    GPU_OR_SKIP();
    shape s = { 32, 2, 16, 4, 2, 64, 32, 16, 0, 0, true };
    rd_random r = rd_random_seed(11);
    inputs in = inputs_of(&s, &r);
    store gpu = store_of(gpu_side(RD_FAST, RD_FORM_STORED), &in, 1);
    rd_view qkv = view_of(gpu.s, in.qkv, 32, 8 * 64), out = poison(gpu.s, 32, 4 * 64);
    int32_t far[] = { 0, BLOCKS }, counts[] = { 17 };
    rd_attention ok = verb_of(&gpu, &in), bad[8];
    rd_error err;

    for (int i = 0; i < 8; i++) bad[i] = ok;
    bad[0].past = far;
    bad[1].keep = far;
    bad[2].layer = 1;
    bad[3].rotary_dim = 66;
    bad[4].head_dim = 32;
    bad[5].branches = (rd_branches){ 16, 16, counts };
    bad[6].branches = (rd_branches){ 8, 16, counts };
    bad[7].rows = 33;
    for (int i = 0; i < 8; i++)
        cr_assert_eq(gpu.s.be->attention(gpu.s.d, out, qkv, &bad[i], &err), RD_INVALID, "%d", i);
    cr_assert_eq(gpu.s.be->attention(gpu.s.d, out, qkv, &ok, &err), RD_OK, "%s", err.text);
}
