/* weights.cu - a matrix from a file becomes a weight of the GPU: checked, converted and padded by kernels.
 *
 * The bytes go as they are, some whole rows at a time, through two pinned buffers, so that copying into one and sending the
 * other overlap; on the device a kernel makes of them what device.h says. A number that is not finite is found there: the
 * first such row is the least of what all threads say. Nothing is looped over on the host but a row's scale. Random numbers
 * for models that are only a shape are made on the device.
 */
#include "plugins/cuda/product.cuh"

extern "C" {
#include "core/base/memory.h"
}

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    STAGE_BYTES = 16 << 20, /* of one of the two buffers: 128 rows of a wide matrix */
    STAGE_ALIGN = 256,
    THREADS = 256,
    NO_ROW = 0x7f7f7f7f, /* memset makes it */
};

/* Numbers as they come. */
typedef enum from_kind { FROM_F32, FROM_F16, FROM_BF16, FROM_I8, FROM_E4M3, FROM_PANEL8, FROM_PANEL4, FROM_RANDOM } from_kind;

struct cuda_stage {
    unsigned char *host[2], *device[2]; /* STAGE_BYTES each; the host's are pinned */
    cudaEvent_t sent[2];                /* the host's may be written again */
    bool used[2];
    int *bad;      /* device: the first row with a number that is not finite */
    int *bad_host; /* pinned */
};

/* Some rows on the device as they came from the file; `row` is the first of them in the matrix. */
typedef struct rows_from {
    const unsigned char *data;
    const float *scale; /* of these rows, or of their blocks of 128 by 128; or NULL */
    size_t panel_bytes;
    from_kind kind;
    int row, rows, cols;
    rd_random_fill fill; /* FROM_RANDOM: there is no data */
} rows_from;

/* ---- kernels ---- */

/* ---- random numbers: each is its place's own, whatever the order ---- */

/* 24 bits for number (r, c) of the matrix. Source: splitmix64. */
static __device__ inline uint32_t random_bits(const rows_from &f, int r, int c)
{
    uint64_t x = f.fill.seed + ((uint64_t)(f.row + r) * (uint64_t)f.cols + (uint64_t)c + 1) * 0x9e3779b97f4a7c15u;

    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)(x >> 40);
}

static __device__ inline bool is_zero_row(const rows_from &f, int r)
{
    return f.row + r < f.fill.zero_rows;
}

/* From -most to most, all alike; their root mean square is sqrt(most (most + 1) / 3). */
static __device__ inline int random_whole(const rows_from &f, int r, int c, int most)
{
    if (c >= f.cols || is_zero_row(f, r)) return 0;
    return (int)(random_bits(f, r, c) % (uint32_t)(2 * most + 1)) - most;
}

enum { RANDOM_BYTE = 127, RANDOM_NIBBLE = 7, RANDOM_STEP = 128 };

static __device__ inline float random_scale(const rows_from &f, float most)
{
    return f.fill.rms / sqrtf(most * (most + 1.0f) / 3.0f);
}

static __device__ inline int panel_number(const rows_from &f, int r, int c)
{
    if (f.kind == FROM_PANEL8) return (int)f.data[layout_panel8(f.panel_bytes, r, c)] - RD_PACK_INT8_ZERO;
    int both = f.data[layout_panel4(f.panel_bytes, r, c)];

    return (both >> layout_panel4_bit(c) & 15) - RD_PACK_INT4_ZERO;
}

/* Number (r, c) of the rows as a float, times its scale. */
static __device__ inline float number_of(const rows_from &f, int r, int c)
{
    size_t at = (size_t)r * (size_t)f.cols + (size_t)c;

    switch (f.kind) {
    case FROM_F32: return ((const float *)f.data)[at];
    case FROM_F16: return gpu_from_f16(((const uint16_t *)f.data)[at]);
    case FROM_BF16: return gpu_from_bf16(((const uint16_t *)f.data)[at]);
    case FROM_I8: return (float)(int8_t)f.data[at] * (f.scale ? f.scale[r] : 1.0f);
    case FROM_E4M3:
        return gpu_from_f16((uint16_t)(gpu_e4m3x2_to_f16x2(f.data[at]) & 0xffffu)) *
               f.scale[(size_t)(r / LAYOUT_BLOCK) * (size_t)layout_ceil(f.cols, LAYOUT_BLOCK) +
                       (size_t)(c / LAYOUT_BLOCK)];
    case FROM_RANDOM: /* from -1 to 1: a root mean square of 1 / sqrt(3) */
        if (is_zero_row(f, r)) return 0.0f;
        return ((float)random_bits(f, r, c) * 0x1p-23f - 1.0f) * f.fill.rms * 1.7320508f;
    case FROM_PANEL8: return (float)panel_number(f, r, c) * f.scale[r];
    case FROM_PANEL4:
        return (float)(panel_number(f, r, c) * (int)f.data[layout_panel4_step(f.panel_bytes, r, c)]) * f.scale[r];
    }
    return 0.0f;
}

static __device__ inline bool is_finite(float x)
{
    return (__float_as_uint(x) & 0x7f800000u) != 0x7f800000u;
}

/* to: [.., stride] float32 or bf16. A thread takes columns threadIdx.x + i * THREADS of row blockIdx.x. */
template <cuda_form F> static __global__ void take_floats(void *to, int stride, rows_from f, int *bad)
{
    int r = (int)blockIdx.x;
    size_t row = (size_t)(f.row + r) * (size_t)stride;
    bool finite = true;

    for (int c = (int)threadIdx.x; c < stride; c += THREADS) {
        float x = c < f.cols ? number_of(f, r, c) : 0.0f;

        finite = finite && is_finite(x);
        if (F == CUDA_F32)
            ((float *)to)[row + (size_t)c] = x;
        else
            ((uint16_t *)to)[row + (size_t)c] = gpu_bf16(x);
    }
    if (!finite) atomicMin(bad, f.row + r);
}

/* to: [.., stride] int8, scale: [..]; from int8 rows or panels, whose scales were looked at. As above. */
static __global__ void take_bytes(int8_t *to, float *scale, int stride, rows_from f)
{
    int r = (int)blockIdx.x;

    for (int c = (int)threadIdx.x; c < stride; c += THREADS) {
        int x = 0;

        if (f.kind == FROM_PANEL8)
            x = panel_number(f, r, c); /* panels are as wide, and zero behind the columns */
        else if (f.kind == FROM_RANDOM)
            x = random_whole(f, r, c, RANDOM_BYTE);
        else if (c < f.cols)
            x = (int8_t)f.data[(size_t)r * (size_t)f.cols + (size_t)c];
        to[(size_t)(f.row + r) * (size_t)stride + (size_t)c] = (int8_t)x;
    }
    if (threadIdx.x == 0)
        scale[f.row + r] = f.kind == FROM_RANDOM ? random_scale(f, RANDOM_BYTE) : f.scale ? f.scale[r] : 1.0f;
}

/* to: [.., stride / 8] words, step: [.., stride / 32], scale: [..]; from int4 panels. A thread makes words threadIdx.x + i *
 * THREADS of row blockIdx.x. */
static __global__ void take_nibbles(uint32_t *to, uint8_t *step, float *scale, int stride, rows_from f)
{
    int r = (int)blockIdx.x;
    size_t row = (size_t)(f.row + r);

    for (int w = (int)threadIdx.x; w < stride / 8; w += THREADS) {
        uint32_t word = 0;

        for (int i = 0; i < 8; i++) {
            int c = 8 * w + i;
            int n = f.kind == FROM_RANDOM
                        ? random_whole(f, r, c, RANDOM_NIBBLE) + RD_PACK_INT4_ZERO
                        : f.data[layout_panel4(f.panel_bytes, r, c)] >> layout_panel4_bit(c) & 15;

            word |= (uint32_t)n << layout_i4_bit(c);
        }
        to[row * (size_t)(stride / 8) + (size_t)w] = word;
    }
    for (int g = (int)threadIdx.x; g < stride / LAYOUT_GROUP; g += THREADS)
        step[row * (size_t)(stride / LAYOUT_GROUP) + (size_t)g] =
            f.kind == FROM_RANDOM ? (uint8_t)RANDOM_STEP
                                  : f.data[layout_panel4_step(f.panel_bytes, r, g * LAYOUT_GROUP)];
    if (threadIdx.x == 0)
        scale[row] = f.kind == FROM_RANDOM ? random_scale(f, RANDOM_NIBBLE) / RANDOM_STEP : f.scale[r];
}

/* to: [.., stride] E4M3, scale: [.. / 128][stride / 128]; from floats. Block (x, y) makes rows 128 y to 128 y + 127 of these,
 * which begin at a multiple of 128, by columns 128 x to 128 x + 127. The scale makes the largest number 448; a block of
 * numbers too small for that is zero. */
static __global__ void take_e4m3(uint16_t *to, float *scale, int stride, rows_from f, int *bad)
{
    __shared__ float room[GPU_WARP];
    int first = (int)blockIdx.y * LAYOUT_BLOCK, col = (int)blockIdx.x * LAYOUT_BLOCK;
    int pair = (int)threadIdx.x % 64 * 2, group = (int)threadIdx.x / 64; /* two columns, every fourth row */
    int last = min(first + LAYOUT_BLOCK, f.rows), odd = NO_ROW;
    float top = 0.0f;

    for (int r = first + group; r < last; r += THREADS / 64)
        for (int i = 0; i < 2; i++) {
            int c = col + pair + i;
            float x = c < f.cols ? number_of(f, r, c) : 0.0f;

            if (!is_finite(x)) odd = min(odd, f.row + r);
            top = fmaxf(top, fabsf(x));
        }
    if (odd != NO_ROW) atomicMin(bad, odd);
    top = gpu_warp_max(top);
    if (threadIdx.x % GPU_WARP == 0) room[threadIdx.x / GPU_WARP] = top;
    __syncthreads();
    for (int i = 0; i < THREADS / GPU_WARP; i++) top = fmaxf(top, room[i]);

    float one = top < 1e-30f ? 1.0f : top / 448.0f, by = 1.0f / one;

    for (int r = first + group; r < last; r += THREADS / 64) {
        int c = col + pair;
        float low = c < f.cols ? number_of(f, r, c) : 0.0f, high = c + 1 < f.cols ? number_of(f, r, c + 1) : 0.0f;

        to[((size_t)(f.row + r) * (size_t)stride + (size_t)c) / 2] = gpu_f32x2_to_e4m3x2(low * by, high * by);
    }
    if (threadIdx.x == 0)
        scale[(size_t)((f.row + first) / LAYOUT_BLOCK) * (size_t)(stride / LAYOUT_BLOCK) + blockIdx.x] = one;
}

/* to: [.., stride] E4M3, scale: [.. / 128][stride / 128]; from the same, in rows that begin at a multiple of 128. A thread takes
 * columns threadIdx.x + i * THREADS of row blockIdx.x. */
static __global__ void take_same_e4m3(uint8_t *to, float *scale, int stride, rows_from f, int *bad)
{
    int r = (int)blockIdx.x, across = stride / LAYOUT_BLOCK;
    bool finite = true;

    for (int c = (int)threadIdx.x; c < stride; c += THREADS) {
        uint8_t x = c < f.cols ? f.data[(size_t)r * (size_t)f.cols + (size_t)c] : (uint8_t)0;

        finite = finite && (x & 0x7f) != 0x7f;
        to[(size_t)(f.row + r) * (size_t)stride + (size_t)c] = x;
    }
    if (!finite) atomicMin(bad, f.row + r);
    if (r % LAYOUT_BLOCK == 0)
        for (int i = (int)threadIdx.x; i < across; i += THREADS)
            scale[(size_t)((f.row + r) / LAYOUT_BLOCK) * (size_t)across + (size_t)i] =
                f.scale[(size_t)(r / LAYOUT_BLOCK) * (size_t)across + (size_t)i];
}

/* ---- the way there ---- */

void cuda_weights_close(rd_device *d)
{
    cuda_stage *s = d->stage;

    if (!s) return;
    for (int i = 0; i < 2; i++) {
        if (s->host[i]) cudaFreeHost(s->host[i]);
        if (s->sent[i]) cudaEventDestroy(s->sent[i]);
        cuda_put(d, s->device[i], STAGE_BYTES);
    }
    if (s->bad_host) cudaFreeHost(s->bad_host);
    cuda_put(d, s->bad, sizeof *s->bad);
    cudaGetLastError();
    free(s);
    d->stage = NULL;
}

static rd_status stage_open(rd_device *d, rd_error *err)
{
    void *memory;

    if (d->stage) return RD_OK;
    cuda_stage *s = d->stage = (cuda_stage *)rd_alloc0(sizeof *s);
    rd_status status = RD_OK;

    for (int i = 0; i < 2 && !status; i++) {
        status = cuda_status(cudaHostAlloc((void **)&s->host[i], STAGE_BYTES, cudaHostAllocDefault),
                             "pinned memory for weights", err);
        if (!status) status = cuda_get(d, &memory, STAGE_BYTES, "room for weights on their way", err);
        if (!status) s->device[i] = (unsigned char *)memory;
        if (!status)
            status = cuda_status(cudaEventCreateWithFlags(&s->sent[i], cudaEventDisableTiming),
                                 "an event for weights", err);
    }
    if (!status)
        status = cuda_status(cudaHostAlloc((void **)&s->bad_host, sizeof *s->bad_host, cudaHostAllocDefault),
                             "pinned memory for weights", err);
    if (!status) status = cuda_get(d, &memory, sizeof *s->bad, "room for weights on their way", err);
    if (!status) s->bad = (int *)memory;
    if (status) cuda_weights_close(d);
    return status;
}

/* A matrix on its way: what its rows are, and how many go together. */
typedef struct passage {
    const rd_matrix *m;
    rd_weight *w;
    from_kind kind;
    size_t unit_bytes; /* of `unit_rows` rows as they come: one row, or the 16 of a panel */
    int unit_rows, rows_each; /* rows_each: a multiple of unit_rows, and of what shares a scale */
    bool scaled;
} passage;

static size_t rounded(size_t bytes)
{
    return (bytes + STAGE_ALIGN - 1) / STAGE_ALIGN * STAGE_ALIGN;
}

/* Of `rows` rows, the first of them at a multiple of what shares a scale. */
static size_t scale_bytes(const passage *p, int rows)
{
    if (p->kind != FROM_E4M3) return (size_t)rows * sizeof(float);
    return (size_t)layout_ceil(rows, LAYOUT_BLOCK) * (size_t)layout_ceil(p->m->cols, LAYOUT_BLOCK) * sizeof(float);
}

static rd_status plan(passage *p, rd_error *err)
{
    const rd_matrix *m = p->m;
    size_t cells, room = STAGE_BYTES;
    int grain;

    p->kind = m->pack == RD_PACK_INT8   ? FROM_PANEL8
              : m->pack == RD_PACK_INT4 ? FROM_PANEL4
              : m->dtype == RD_F32      ? FROM_F32
              : m->dtype == RD_F16      ? FROM_F16
              : m->dtype == RD_BF16     ? FROM_BF16
              : m->dtype == RD_F8_E4M3  ? FROM_E4M3
                                        : FROM_I8;
    p->unit_rows = m->pack != RD_PACK_NONE ? RD_PACK_ROWS : 1;
    p->unit_bytes = m->pack != RD_PACK_NONE ? rd_pack_panel_bytes(m->pack, m->cols)
                                            : (size_t)m->cols * rd_dtype_bytes(m->dtype);
    p->scaled = m->scale && (m->pack != RD_PACK_NONE || m->dtype == RD_I8 || m->dtype == RD_F8_E4M3);
    grain = p->w->form == CUDA_E4M3 || p->kind == FROM_E4M3 ? LAYOUT_BLOCK : p->unit_rows;
    if (!rd_mul(p->unit_bytes, (size_t)((m->rows + p->unit_rows - 1) / p->unit_rows), &cells))
        return rd_fail(err, RD_INVALID, "a weight of %d x %d", m->rows, m->cols);
    size_t each = p->unit_bytes * (size_t)(grain / p->unit_rows) + scale_bytes(p, grain);
    size_t fit = (room - STAGE_ALIGN) / each;

    if (fit < 1) return rd_fail(err, RD_INVALID, "a weight with rows of %d numbers: they are too long", m->cols);
    p->rows_each = fit > (size_t)(m->rows / grain + 1) ? (m->rows / grain + 1) * grain : (int)fit * grain;
    return RD_OK;
}

static void convert(rd_device *d, const rd_weight *w, const rows_from &f)
{
    int *bad = d->stage->bad;

    switch (w->form) {
    case CUDA_F32:
        RD_LAUNCH((take_floats<CUDA_F32>), f.rows, THREADS, 0, d->stream, w->data, w->stride, f, bad);
        break;
    case CUDA_BF16:
        RD_LAUNCH((take_floats<CUDA_BF16>), f.rows, THREADS, 0, d->stream, w->data, w->stride, f, bad);
        break;
    case CUDA_E4M3:
        if (f.kind == FROM_E4M3)
            RD_LAUNCH(take_same_e4m3, f.rows, THREADS, 0, d->stream, (uint8_t *)w->data, w->scale, w->stride, f, bad);
        else
            RD_LAUNCH(take_e4m3, dim3(w->stride / LAYOUT_BLOCK, layout_ceil(f.rows, LAYOUT_BLOCK)), THREADS, 0,
                  d->stream, (uint16_t *)w->data, w->scale, w->stride, f, bad);
        break;
    case CUDA_I8:
        RD_LAUNCH(take_bytes, f.rows, THREADS, 0, d->stream, (int8_t *)w->data, w->scale, w->stride, f);
        break;
    case CUDA_I4:
        RD_LAUNCH(take_nibbles, f.rows, THREADS, 0, d->stream, (uint32_t *)w->data, w->step, w->scale,
                  w->stride, f);
        break;
    }
}

/* Rows [from, from + rows) through buffer i. */
static rd_status send(rd_device *d, const passage *p, int i, int from, int rows, rd_error *err)
{
    cuda_stage *s = d->stage;
    size_t units = (size_t)layout_ceil(rows, p->unit_rows), scales = 0;
    rows_from f = {};

    f.panel_bytes = p->unit_bytes;
    f.kind = p->kind;
    f.row = from;
    f.rows = rows;
    f.cols = p->m->cols;

    if (s->used[i]) {
        rd_status status = cuda_status(cudaEventSynchronize(s->sent[i]), "sending a weight", err);

        if (status) return status;
    }
    if (p->scaled) {
        size_t bytes = scale_bytes(p, rows), before = p->kind == FROM_E4M3 ? scale_bytes(p, from) : 4 * (size_t)from;

        scales = rounded(bytes);
        memcpy(s->host[i], (const char *)p->m->scale + before, bytes);
        f.scale = (const float *)s->device[i];
    }
    memcpy(s->host[i] + scales,
           (const char *)p->m->data + (size_t)(from / p->unit_rows) * p->unit_bytes, units * p->unit_bytes);
    f.data = s->device[i] + scales;
    rd_status status = cuda_status(cudaMemcpyAsync(s->device[i], s->host[i], scales + units * p->unit_bytes,
                                                   cudaMemcpyHostToDevice, d->stream),
                                   "sending a weight", err);

    if (status) return status;
    s->used[i] = true;
    status = cuda_status(cudaEventRecord(s->sent[i], d->stream), "sending a weight", err);
    if (status) return status;
    convert(d, p->w, f);
    return cuda_status(cudaPeekAtLastError(), "converting a weight", err);
}

static rd_status send_all(rd_device *d, const passage *p, rd_error *err)
{
    cuda_stage *s = d->stage;
    rd_status status = cuda_status(cudaMemsetAsync(s->bad, 0x7f, sizeof *s->bad, d->stream),
                                   "sending a weight", err);
    int i = 0;

    if (p->m->fill && !status) {
        rows_from f = {};

        f.kind = FROM_RANDOM;
        f.rows = p->m->rows;
        f.cols = p->m->cols;
        f.fill = *p->m->fill;
        convert(d, p->w, f);
        status = cuda_status(cudaPeekAtLastError(), "filling a weight", err);
    }
    for (int from = 0; !p->m->fill && from < p->m->rows && !status; from += p->rows_each, i ^= 1) {
        int left = p->m->rows - from;

        status = send(d, p, i, from, left < p->rows_each ? left : p->rows_each, err);
    }
    if (!status)
        status = cuda_status(cudaMemcpyAsync(s->bad_host, s->bad, sizeof *s->bad, cudaMemcpyDeviceToHost, d->stream),
                             "sending a weight", err);
    cudaError_t e = cudaStreamSynchronize(d->stream); /* on failure, too: the matrix may go */

    if (!status) status = cuda_status(e, "sending a weight", err);
    if (!status && *s->bad_host != NO_ROW)
        return rd_fail(err, RD_INVALID, "row %d holds a number that is not finite", *s->bad_host);
    return status;
}

/* ---- taking ---- */

static rd_status check(const rd_matrix *m, rd_error *err)
{
    size_t rows = (size_t)m->rows;

    if (m->rows < 1 || m->cols < 1 || (!m->data && !m->fill))
        return rd_fail(err, RD_INVALID, "a weight of %d x %d", m->rows, m->cols);
    if (m->fill) {
        if (isfinite(m->fill->rms)) return RD_OK;
        return rd_fail(err, RD_INVALID, "random numbers whose root mean square is not finite");
    }
    if (m->pack != RD_PACK_NONE) {
        if (!m->scale || (uintptr_t)m->data % RD_PACK_LINE)
            return rd_fail(err, RD_INVALID, "a packed weight without scales, or not at a multiple of %d bytes",
                           RD_PACK_LINE);
        rows = rd_pack_panels(m->rows) * RD_PACK_ROWS;
        size_t bad = rd_pack_bad_scale(m->scale, rows);

        if (bad < rows) return rd_fail(err, RD_INVALID, "the scale of row %zu is no number from 0 up", bad);
        return RD_OK;
    }
    if (m->dtype == RD_F8_E4M3) {
        size_t across = (size_t)layout_ceil(m->cols, LAYOUT_BLOCK), n = across * (size_t)layout_ceil(m->rows, LAYOUT_BLOCK);

        if (!m->scale) return rd_fail(err, RD_INVALID, "a weight of F8_E4M3 without scales");
        for (size_t i = 0; i < n; i++)
            if (!isfinite(m->scale[i]))
                return rd_fail(err, RD_INVALID, "row %zu holds a number that is not finite", i / across * LAYOUT_BLOCK);
        return RD_OK;
    }
    if (m->dtype != RD_F32 && m->dtype != RD_F16 && m->dtype != RD_BF16 && m->dtype != RD_I8)
        return rd_fail(err, RD_INVALID, "a weight of %s", rd_dtype_name(m->dtype));
    for (size_t r = 0; m->scale && r < rows; r++)
        if (!isfinite(m->scale[r])) return rd_fail(err, RD_INVALID, "row %zu holds a number that is not finite", r);
    return RD_OK;
}

static cuda_form form_of(const rd_device *d, const rd_matrix *m, bool exact)
{
    if (exact || d->precision == RD_EXACT || (m->rows == 1 && m->pack == RD_PACK_NONE)) return CUDA_F32;
    if (m->pack == RD_PACK_INT8 || (m->pack == RD_PACK_NONE && m->dtype == RD_I8)) return CUDA_I8;
    if (m->pack == RD_PACK_INT4) return CUDA_I4;
    return (d->weights == RD_FORM_FP8 && !m->table) || m->dtype == RD_F8_E4M3 ? CUDA_E4M3 : CUDA_BF16;
}

/* Numbers, steps and scales in one piece of device memory. */
static rd_status place(rd_device *d, rd_weight *w, rd_error *err)
{
    size_t stride = (size_t)w->stride, rows = (size_t)w->rows, cells, steps = 0, scales = 0, all;
    char what[64];
    void *memory;

    if (!rd_mul(rows, stride, &cells) || !rd_mul(cells, 4, &all) || !rd_add(all, 16 * rows + 4096, &all))
        return rd_fail(err, RD_INVALID, "a weight of %d x %d", w->rows, w->cols);
    cells = w->form == CUDA_F32 ? 4 * cells : w->form == CUDA_BF16 ? 2 * cells : w->form == CUDA_I4 ? cells / 2 : cells;
    if (w->form == CUDA_I4) steps = rounded(rows * (stride / LAYOUT_GROUP));
    if (w->form == CUDA_I4 || w->form == CUDA_I8) scales = rows * sizeof(float);
    if (w->form == CUDA_E4M3)
        scales = (size_t)layout_ceil(w->rows, LAYOUT_BLOCK) * (stride / LAYOUT_BLOCK) * sizeof(float);
    cells = rounded(cells);
    w->bytes = cells + steps + scales;
    snprintf(what, sizeof what, "a weight of %d x %d", w->rows, w->cols);
    rd_status status = cuda_get_piece(d, &memory, w->bytes, what, err);

    if (status) return status;
    w->data = memory;
    if (steps) w->step = (uint8_t *)memory + cells;
    if (scales) w->scale = (float *)((char *)memory + cells + steps);
    return RD_OK;
}

rd_status cuda_take(rd_device *d, const rd_matrix *m, bool exact, rd_weight **out, rd_error *err)
{
    rd_error local;

    if (!err) err = &local;
    if (check(m, err)) return err->status;
    rd_weight *w = (rd_weight *)rd_alloc0(sizeof *w);
    passage p = {};
    rd_status status;

    p.m = m;
    p.w = w;
    w->form = form_of(d, m, exact);
    w->rows = m->rows;
    w->cols = m->cols;
    if (m->cols > INT32_MAX - CUDA_COLS)
        status = rd_fail(err, RD_INVALID, "a weight of %d x %d", m->rows, m->cols);
    else
        status = RD_OK;
    w->stride = w->form == CUDA_F32 || status ? m->cols : cuda_stride(m->cols);
    if (!status && !m->fill) status = plan(&p, err);
    if (!status) status = stage_open(d, err);
    if (!status) status = place(d, w, err);
    if (!status) status = send_all(d, &p, err);
    if (status) {
        cuda_put_piece(d, w->data);
        free(w);
        return status;
    }
    cuda_half half = cuda_half_of(w->form);

    d->half_bytes[half] += w->bytes;
    if (half != CUDA_HALF_NONE)
        d->main_half = d->half_bytes[CUDA_HALF_F16] > d->half_bytes[CUDA_HALF_BF16] ? CUDA_HALF_F16 : CUDA_HALF_BF16;
    *out = w;
    return RD_OK;
}

void cuda_drop(rd_device *d, rd_weight *w)
{
    if (!w) return;
    cuda_forget_passes(d);
    cuda_moe_forget(d, w);
    cuda_put_piece(d, w->data);
    free(w);
}
