/* fuzz_kv_pack.c - libFuzzer: three bytes of format and geometry, any bytes as a packed block. What unpacks is finite and
 * small, packs again, and comes back as it was where the format is exact on it. */
#include "core/model/kv_pack.h"

#include "core/base/dtype.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 1 << 17 }; /* numbers of a block here */

typedef struct bytes {
    const unsigned char *at;
    size_t left;
} bytes;

static bool take(void *user, void *to, size_t n)
{
    bytes *b = user;

    if (n > b->left) return false;
    memcpy(to, b->at, n);
    b->at += n;
    b->left -= n;
    return true;
}

static void hold(bool right)
{
    if (!right) __builtin_trap();
}

static float number_at(const rd_kv_geometry *g, const unsigned char *block, size_t i)
{
    uint16_t half;
    float x;

    if (g->bytes_each == 4) {
        memcpy(&x, block + 4 * i, sizeof x);
        return x;
    }
    memcpy(&half, block + 2 * i, sizeof half);
    return rd_bf16_to_f32(half);
}

/* A block that passed is stored and comes back. bf16 and raw are exact on what they have unpacked. */
static void go_round(rd_kv_format f, const rd_kv_geometry *g, const unsigned char *block,
                     size_t size)
{
    size_t n = rd_kv_packed_bytes(f, g);
    unsigned char *packed = malloc(n), *again = malloc(size);
    bytes b = { packed, n };

    hold(packed && again);
    hold(rd_kv_pack(f, g, block, packed));
    hold(rd_kv_unpack(f, g, take, &b, again) && b.left == 0);
    if (f != RD_KV_INT8) hold(!memcmp(block, again, size));
    free(packed);
    free(again);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n)
{
    if (n < 4) return 0;
    rd_kv_format f = (rd_kv_format)(data[0] % 5);
    rd_kv_geometry g = { .pieces = (signed char)data[1],
                         .piece = (int16_t)(data[2] | data[3] << 8),
                         .bytes_each = data[0] & 0x80   ? 2
                                       : data[0] & 0x40 ? data[0] & 15
                                                        : 4 };
    bytes b = { data + 4, n - 4 };

    if (g.pieces > 0 && g.piece > 0 && (long)g.pieces * g.piece > MOST) g.piece = MOST / g.pieces;
    size_t packed = rd_kv_packed_bytes(f, &g);
    size_t all = packed ? (size_t)g.pieces * (size_t)g.piece : 0;
    size_t size = all * (size_t)(packed ? g.bytes_each : 0);
    unsigned char *block = malloc(size + !size);

    hold(block);
    bool good = rd_kv_unpack(f, &g, take, &b, block);

    hold(!good || (packed > 0 && b.left == n - 4 - packed));
    for (size_t i = 0; good && i < all; i++) hold(fabsf(number_at(&g, block, i)) <= RD_KV_LARGEST);
    if (good) go_round(f, &g, block, size);
    free(block);
    return 0;
}
