/* test_kv.c - blocks of keys and values: out as they came in, each in its own place, and what happens when there is no room. */
#include "tests/plugins/cuda/sides.h"

static uint32_t number(int block, size_t i, bool half)
{
    uint32_t x = (uint32_t)(block * 100003) + (uint32_t)i * 2654435761u;

    return half ? x >> 16 : x;
}

static void round_trip(rd_precision precision, const rd_kv_shape *shape, bool want_half)
{
    side s = gpu_side(precision, RD_FORM_STORED);
    size_t n = 2 * (size_t)(shape->layers * shape->kv_heads * shape->block_size * shape->head_dim);
    uint32_t *in = rd_alloc_array(n, sizeof *in), *out = rd_alloc_array(n, sizeof *out);
    size_t each = want_half ? 2 : 4;
    rd_kv *kv = NULL;
    rd_error err;

    cr_assert_eq(s.be->kv_open(s.d, shape, &kv, &err), RD_OK, "%s", err.text);
    cr_assert_eq(s.be->kv_block_bytes(s.d, kv), n * each);
    for (int b = 0; b < shape->blocks; b++) {
        for (size_t i = 0; i < n; i++) {
            if (want_half)
                ((uint16_t *)(void *)in)[i] = (uint16_t)number(b, i, true);
            else
                in[i] = number(b, i, false);
        }
        cr_assert_eq(s.be->kv_write(s.d, kv, b, in, &err), RD_OK, "%s", err.text);
    }
    for (int b = shape->blocks - 1; b >= 0; b--) {
        memset(out, 0xff, n * each);
        cr_assert_eq(s.be->kv_read(s.d, kv, b, out, &err), RD_OK, "%s", err.text);
        for (size_t i = 0; i < n; i++)
            cr_assert_eq(want_half ? ((uint16_t *)(void *)out)[i] : out[i], number(b, i, want_half),
                         "block %d at %zu", b, i);
    }
    cr_assert_eq(s.be->kv_read(s.d, kv, shape->blocks, out, &err), RD_INVALID);
    cr_assert_eq(s.be->kv_read(s.d, kv, -1, out, &err), RD_INVALID);
    cr_assert_eq(s.be->kv_write(s.d, kv, shape->blocks, in, &err), RD_INVALID);
    s.be->kv_close(s.d, kv);
    side_close(&s);
    free(in);
    free(out);
}

Test(cuda_kv, blocks_come_back_as_they_went_in)
{
    GPU_OR_SKIP();
    static const struct {
        rd_kv_shape shape;
        bool half; /* in RD_FAST */
    } cases[] = {
        { { 3, 2, 64, 32, 5, false }, true },   { { 1, 4, 128, 16, 3, false }, true },
        { { 2, 1, 32, 64, 2, false }, true },   { { 2, 2, 64, 32, 3, true }, false },
        { { 2, 3, 10, 5, 4, false }, false },   { { 1, 2, 64, 8, 2, false }, false },
        { { 1, 1, 256, 32, 2, false }, false },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        round_trip(RD_FAST, &cases[i].shape, cases[i].half);
        round_trip(RD_EXACT, &cases[i].shape, false);
    }
}

Test(cuda_kv, no_room_is_said_with_what_was_wanted)
{
    GPU_OR_SKIP();
    rd_device_options o = { .precision = RD_FAST, .memory_limit = 64 << 20 };
    side s = side_of(gpu_backend(), &o);
    rd_kv_shape big = { 20, 4, 128, 32, 1000, false },
                mad = { 1 << 20, 1 << 15, 1 << 20, 1 << 20, 1 << 30, false },
                none = { 1, 0, 128, 32, 10, false }, small = { 1, 1, 64, 32, 4, false };
    rd_kv *kv = NULL;
    rd_error err;

    cr_assert_eq(s.be->kv_open(s.d, &big, &kv, &err), RD_NO_MEMORY);
    cr_assert(strstr(err.text, "MB"), "%s", err.text);
    cr_assert_eq(s.be->kv_open(s.d, &mad, &kv, &err), RD_INVALID);
    cr_assert_eq(s.be->kv_open(s.d, &none, &kv, &err), RD_INVALID);
    cr_assert_null(kv);
    cr_assert_eq(s.be->kv_open(s.d, &small, &kv, &err), RD_OK, "%s", err.text);
    s.be->kv_close(s.d, kv);
    s.be->kv_close(s.d, NULL);
    side_close(&s);
}
