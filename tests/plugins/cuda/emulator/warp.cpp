/* warp.cpp - operations that the 32 threads of a warp do together: exchange, ballot, tensor cores, ldmatrix; and cp.async.
 *
 * Each lane leaves what it brings and waits; the last to arrive does the operation for all, and goes on.
 */
#include "tests/plugins/cuda/emulator/fibre.h"

const char *rd_emulated_op_name(rd_emulated_op op)
{
    static const char *const names[] = { "__syncwarp", "a shuffle", "a ballot", "mma", "ldmatrix" };

    return names[op];
}

/* ---- tensor cores ---- */

typedef float eight __attribute__((vector_size(32), aligned(32)));

/* c [16][8] += a [16][16] b [16][8] */
static inline __attribute__((always_inline)) void multiply(eight c[16], const float a[16][16],
                                                           const eight b[16])
{
    for (int i = 0; i < 16; i += 4) {
        eight s0 = c[i], s1 = c[i + 1], s2 = c[i + 2], s3 = c[i + 3];

        for (int k = 0; k < 16; k++) {
            s0 += a[i][k] * b[k];
            s1 += a[i + 1][k] * b[k];
            s2 += a[i + 2][k] * b[k];
            s3 += a[i + 3][k] * b[k];
        }
        c[i] = s0, c[i + 1] = s1, c[i + 2] = s2, c[i + 3] = s3;
    }
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static void multiply_avx2(eight c[16], const float a[16][16],
                                                          const eight b[16])
{
    multiply(c, a, b);
}
#endif

static inline void unpack(bool bf16, uint32_t pair, float *low, float *high)
{
    *low = bf16 ? gpu_from_bf16((uint16_t)pair) : gpu_from_f16((uint16_t)pair);
    *high = bf16 ? gpu_from_bf16((uint16_t)(pair >> 16)) : gpu_from_f16((uint16_t)(pair >> 16));
}

static void mma(rd_emulated_warp *w, bool bf16)
{
    float a[16][16];
    alignas(32) float b[16][8], c[16][8];

    for (int lane = 0; lane < 32; lane++) {
        const rd_emulated_fibre *f = w->lane[lane];
        int g = lane / 4, t = lane % 4;

        for (int i = 0; i < 4; i++) {
            int row = g + 8 * (i & 1), col = 2 * t + 8 * (i >> 1);

            unpack(bf16, f->a[i], &a[row][col], &a[row][col + 1]);
        }
        for (int i = 0; i < 2; i++)
            unpack(bf16, f->b[i], &b[2 * t + 8 * i][g], &b[2 * t + 8 * i + 1][g]);
        memcpy(&c[g][2 * t], f->c, 8);
        memcpy(&c[g + 8][2 * t], f->c + 2, 8);
    }
#if defined(__x86_64__)
    static const bool avx2 = __builtin_cpu_supports("avx2");

    if (avx2) multiply_avx2(reinterpret_cast<eight *>(c), a, reinterpret_cast<const eight *>(b));
    else
#endif
        multiply(reinterpret_cast<eight *>(c), a, reinterpret_cast<const eight *>(b));
    for (int lane = 0; lane < 32; lane++) {
        rd_emulated_fibre *f = w->lane[lane];
        int g = lane / 4, t = lane % 4;

        memcpy(f->c, &c[g][2 * t], 8);
        memcpy(f->c + 2, &c[g + 8][2 * t], 8);
    }
}

static void ldmatrix(rd_emulated_warp *w, bool turned)
{
    uint16_t m[4][8][8];

    for (int lane = 0; lane < 32; lane++) memcpy(m[lane / 8][lane % 8], w->lane[lane]->row, 16);
    for (int lane = 0; lane < 32; lane++) {
        int g = lane / 4, t = lane % 4;

        for (int i = 0; i < 4; i++)
            w->lane[lane]->r[i] = turned ? rd_emulated_pair(m[i][2 * t][g], m[i][2 * t + 1][g])
                                         : rd_emulated_pair(m[i][g][2 * t], m[i][g][2 * t + 1]);
    }
}

/* ---- exchange ---- */

static void shuffle(rd_emulated_warp *w, int how)
{
    uint64_t brought[32];

    for (int i = 0; i < w->lanes; i++) brought[i] = w->lane[i]->value;
    for (int i = 0; i < w->lanes; i++) {
        rd_emulated_fibre *f = w->lane[i];
        int first = i & ~(f->width - 1), end = first + f->width, from = i;

        switch (how) {
        case RD_SHUFFLE_TO: from = first + (f->by & (f->width - 1)); break;
        case RD_SHUFFLE_XOR: from = i ^ f->by; break;
        case RD_SHUFFLE_UP: from = i - f->by; break;
        default: from = i + f->by; break;
        }
        /* Beyond the segment a thread keeps its own; xor may read an earlier segment. */
        if (from >= end || (how == RD_SHUFFLE_UP && from < first)) from = i;
        if (from < 0 || from >= w->lanes)
            rd_emulated_die("a shuffle at %s:%d reads lane %d of %d", f->site.file, f->site.line,
                            from, w->lanes);
        f->value = brought[from];
    }
}

static void ballot(rd_emulated_warp *w)
{
    unsigned votes = 0;

    for (int i = 0; i < w->lanes; i++) votes |= (unsigned)(w->lane[i]->value != 0) << i;
    for (int i = 0; i < w->lanes; i++) w->lane[i]->value = votes;
}

/* ---- meeting ---- */

static void operate(rd_emulated_warp *w)
{
    switch (w->op) {
    case OP_SYNC: break;
    case OP_SHUFFLE: shuffle(w, w->kind); break;
    case OP_BALLOT: ballot(w); break;
    case OP_MMA: mma(w, w->kind); break;
    case OP_LDMATRIX: ldmatrix(w, w->kind); break;
    }
}

static void check_mask(rd_emulated_fibre *f, unsigned mask, rd_emulated_op op)
{
    const rd_emulated_warp *w = f->warp;
    unsigned all = w->lanes == 32 ? 0xffffffffu : (1u << w->lanes) - 1;

    if (mask != all)
        rd_emulated_die("%s at %s:%d: mask %08x, but the warp's threads are %08x",
                        rd_emulated_op_name(op), f->site.file, f->site.line, mask, all);
}

static rd_emulated_fibre *running(rd_emulated_op op, rd_emulated_site site)
{
    rd_emulated_fibre *f = rd_emulated_now;

    if (!f) rd_emulated_die("%s outside of a kernel", rd_emulated_op_name(op));
    f->site = site;
    return f;
}

static void meet(rd_emulated_fibre *f, rd_emulated_op op, int kind, unsigned mask)
{
    rd_emulated_warp *w = f->warp;

    check_mask(f, mask, op);
    if (w->arrived++ == 0) {
        w->op = op;
        w->kind = kind;
        w->mask = mask;
        w->site = f->site;
    } else if (w->op != op || w->kind != kind || w->site.line != f->site.line ||
               strcmp(w->site.file, f->site.file) != 0) {
        rd_emulated_die("divergence in a warp: %s at %s:%d while others are at %s at %s:%d",
                        rd_emulated_op_name(op), f->site.file, f->site.line,
                        rd_emulated_op_name(w->op), w->site.file, w->site.line);
    }
    if (w->arrived < w->lanes) {
        f->state = FIBRE_AT_WARP;
        rd_emulated_give_way();
        return;
    }
    w->arrived = 0;
    operate(w);
    for (int i = 0; i < w->lanes; i++)
        if (w->lane[i] != f) rd_emulated_make_ready(w->lane[i]);
}

void rd_emulated_warp_barrier(unsigned mask, rd_emulated_site site)
{
    rd_emulated_fibre *f = running(OP_SYNC, site);

    /* What __syncwarp() stands for: all there are. */
    if (mask == 0xffffffffu && f->warp->lanes < 32) mask = (1u << f->warp->lanes) - 1;
    meet(f, OP_SYNC, 0, mask);
}

uint64_t rd_emulated_exchange(rd_emulated_shuffle how, unsigned mask, uint64_t x, int by, int width,
                              rd_emulated_site site)
{
    rd_emulated_fibre *f = running(OP_SHUFFLE, site);

    if (width < 1 || width > 32 || (width & (width - 1)))
        rd_emulated_die("a shuffle of width %d at %s:%d", width, site.file, site.line);
    f->value = x;
    f->by = by;
    f->width = width;
    meet(f, OP_SHUFFLE, how, mask);
    return f->value;
}

unsigned rd_emulated_ballot(unsigned mask, bool is, rd_emulated_site site)
{
    rd_emulated_fibre *f = running(OP_BALLOT, site);

    f->value = is;
    meet(f, OP_BALLOT, 0, mask);
    return (unsigned)f->value;
}

void rd_emulated_mma(bool bf16, float c[4], const uint32_t a[4], const uint32_t b[2],
                     rd_emulated_site site)
{
    rd_emulated_fibre *f = running(OP_MMA, site);

    f->a = a;
    f->b = b;
    f->c = c;
    meet(f, OP_MMA, bf16, 0xffffffffu);
}

void rd_emulated_ldmatrix(bool turned, uint32_t r[4], const void *row, rd_emulated_site site)
{
    rd_emulated_fibre *f = running(OP_LDMATRIX, site);

    if ((uintptr_t)row % 16 || !rd_emulated_is_shared(row, 16))
        rd_emulated_die("ldmatrix at %s:%d: %p is not 16 aligned bytes of shared memory", site.file,
                        site.line, row);
    f->r = r;
    f->row = row;
    meet(f, OP_LDMATRIX, turned, 0xffffffffu);
}

/* ---- cp.async ---- */

void rd_emulated_copy_async(void *to, const void *from, int bytes, rd_emulated_site site)
{
    rd_emulated_fibre *f = rd_emulated_now;

    if (!f) rd_emulated_die("cp.async outside of a kernel");
    if (bytes < 0 || bytes > 16)
        rd_emulated_die("cp.async of %d bytes at %s:%d", bytes, site.file, site.line);
    if ((uintptr_t)to % 16 || !rd_emulated_is_shared(to, 16))
        rd_emulated_die("cp.async at %s:%d: %p is not 16 aligned bytes of shared memory", site.file,
                        site.line, to);
    if ((uintptr_t)from % 16 || (bytes && rd_emulated_is_shared(from, 1)))
        rd_emulated_die("cp.async at %s:%d: %p is not 16 aligned bytes of global memory", site.file,
                        site.line, from);
    rd_emulated_poison(to, 16);
    f->copies.push_back({ to, from, bytes, f->groups });
}

void rd_emulated_copy_commit(void)
{
    if (!rd_emulated_now) rd_emulated_die("cp.async outside of a kernel");
    rd_emulated_now->groups++;
}

void rd_emulated_copy_wait(int left)
{
    rd_emulated_fibre *f = rd_emulated_now;
    size_t done = 0;

    if (!f) rd_emulated_die("cp.async outside of a kernel");
    for (; done < f->copies.size() && f->copies[done].group < f->groups - left; done++) {
        const rd_emulated_copy *c = &f->copies[done];

        memset(c->to, 0, 16);
        memcpy(c->to, c->from, (size_t)c->bytes);
    }
    f->copies.erase(f->copies.begin(), f->copies.begin() + (std::ptrdiff_t)done);
}
