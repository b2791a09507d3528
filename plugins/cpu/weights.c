/* weights.c - a matrix from a file becomes a weight: its rows laid into panels by all threads, and checked.
 *
 * Bytes that are panels already stay where they are.
 */
#include "plugins/cpu/device.h"

#include "core/base/memory.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

void rd_cpu_drop(rd_device *d, rd_weight *w)
{
    if (!w) return;
    d->bytes -= w->bytes;
    if (!w->in_place) {
        free(w->data);
        free(w->scale);
    }
    free(w);
}

static bool finite_row(const float *x, int n)
{
    /* The sum of x - x is 0 unless something is infinite or NaN. */
    float sum = 0.0f;

    for (int i = 0; i < n; i++) sum += x[i] - x[i];
    return sum == 0.0f;
}

static void put_row(rd_weight *w, int n, const float *row)
{
    size_t panel = (size_t)n / RD_PANEL, lane = (size_t)n % RD_PANEL, cols = (size_t)w->cols;

    if (w->kind == RD_ROWS_F32) {
        memcpy((float *)w->data + (size_t)n * cols, row, cols * sizeof *row);
    } else {
        float *to = (float *)w->data + panel * cols * RD_PANEL + lane;

        for (size_t k = 0; k < cols; k++) to[k * RD_PANEL] = row[k];
    }
}

static const char *row_of(const rd_matrix *m, int n)
{
    return (const char *)m->data + (size_t)n * (size_t)m->cols * rd_dtype_bytes(m->dtype);
}

/* The scale that a row has to itself, or NULL. */
static const float *row_scale(const rd_matrix *m)
{
    return m->dtype == RD_I8 ? m->scale : NULL;
}

/* Row n as float32, without the scale that it has to itself. */
static void widen_row(float *out, const rd_matrix *m, int n)
{
    size_t across = ((size_t)m->cols + RD_SCALE_BLOCK - 1) / RD_SCALE_BLOCK;

    rd_widen(out, row_of(m, n), m->dtype, (size_t)m->cols);
    if (m->dtype != RD_F8_E4M3) return;
    for (size_t k = 0; k < (size_t)m->cols; k++)
        out[k] *= m->scale[(size_t)(n / RD_SCALE_BLOCK) * across + k / RD_SCALE_BLOCK];
}

/* Row `row` as bf16. False: one of its numbers is not finite. `wide` is room for the row. */
static bool bf16_row(uint16_t *to, const rd_matrix *m, int row, float *wide)
{
    const char *from = row_of(m, row);
    rd_dtype type = m->dtype;
    int n = m->cols;
    uint32_t full = 0; /* not 0 where an exponent was all ones */

    if (type == RD_I8) { /* integers below 256 are exact: nothing is rounded */
        for (int k = 0; k < n; k++) {
            float x = (float)(int8_t)from[k];
            uint32_t bits;

            memcpy(&bits, &x, sizeof bits);
            to[k] = (uint16_t)(bits >> 16);
        }
        return true;
    }
    if (type == RD_BF16) {
        memcpy(to, from, 2 * (size_t)n);
        for (int k = 0; k < n; k++) full |= ((to[k] & 0x7f80u) + 0x80u) & 0x8000u;
        return !full;
    }
    widen_row(wide, m, row);
    for (int k = 0; k < n; k++) to[k] = rd_f32_to_bf16(wide[k]);
    return finite_row(wide, n);
}

enum { PAIRS_AT_ONCE = 64 }; /* a stretch of a panel that stays in the first cache */

/* Lay RD_PANEL rows of `stride` bf16 numbers, an even number, into a panel. */
static void put_panel(uint32_t *to, const uint16_t *rows, size_t stride)
{
    size_t pairs = stride / 2;

    for (size_t from = 0; from < pairs; from += PAIRS_AT_ONCE) {
        size_t end = from + PAIRS_AT_ONCE < pairs ? from + PAIRS_AT_ONCE : pairs;

        for (int lane = 0; lane < RD_PANEL; lane++)
            for (size_t k = from; k < end; k++)
                memcpy(to + k * RD_PANEL + lane, rows + (size_t)lane * stride + 2 * k, 4);
    }
}

/* Some panels of a weight that is being taken; pieces share nothing but `bad`. */
typedef struct take_job {
    const rd_matrix *m;
    rd_weight *w;
    int rows; /* of one piece, a multiple of RD_PANEL */
    int *bad; /* [pieces]: the first row that is not finite, or -1 */
} take_job;

static void take_bf16(take_job *j, int from, int to, int *bad)
{
    const rd_matrix *m = j->m;
    size_t stride = ((size_t)m->cols + 1) / 2 * 2;
    uint16_t *rows = rd_alloc_array(RD_PANEL * stride, sizeof *rows);
    float *wide = rd_alloc_array((size_t)m->cols, sizeof *wide);
    const float *scale = row_scale(m);

    for (int first = from; first < to && *bad < 0; first += RD_PANEL) {
        int n = to - first < RD_PANEL ? to - first : RD_PANEL;

        if (n < RD_PANEL) memset(rows, 0, RD_PANEL * stride * sizeof *rows); /* padding is zero */
        for (int i = 0; i < n; i++) {
            bool finite = bf16_row(rows + (size_t)i * stride, m, first + i, wide);

            if (scale) {
                j->w->scale[first + i] = scale[first + i];
                finite = finite && isfinite(scale[first + i]);
            }
            if (!finite && *bad < 0) *bad = first + i;
        }
        put_panel((uint32_t *)j->w->data + (size_t)first / RD_PANEL * stride / 2 * RD_PANEL, rows,
                  stride);
    }
    free(rows);
    free(wide);
}

static void take_f32(take_job *j, int from, int to, int *bad)
{
    const rd_matrix *m = j->m;
    size_t cols = (size_t)m->cols;
    float *row = rd_alloc_array(cols, sizeof *row);
    const float *scale = row_scale(m);

    if (j->w->kind == RD_PANELS_F32 && to % RD_PANEL) /* padding is zero */
        memset((float *)j->w->data + (size_t)(to / RD_PANEL) * RD_PANEL * cols, 0,
               RD_PANEL * cols * sizeof *row);
    for (int n = from; n < to && *bad < 0; n++) {
        widen_row(row, m, n);
        if (!finite_row(row, m->cols) || (scale && !isfinite(scale[n]))) *bad = n;
        for (size_t k = 0; scale && k < cols; k++) row[k] *= scale[n];
        put_row(j->w, n, row);
    }
    free(row);
}

static void take_piece(void *user, int piece, int thread)
{
    take_job *j = user;
    int from = piece * j->rows, to = from + j->rows < j->m->rows ? from + j->rows : j->m->rows;

    (void)thread;
    if (j->w->kind == RD_PANELS_BF16)
        take_bf16(j, from, to, &j->bad[piece]);
    else
        take_f32(j, from, to, &j->bad[piece]);
}

enum { TAKE_CELLS = 1 << 17 }; /* of one piece: waking a thread costs less than this */

/* Panels are used where they stand. Their scales are looked at; the rest, whatever it says, is numbers. */
static rd_status take_packed(rd_device *d, const rd_matrix *m, rd_weight **out, rd_error *err)
{
    size_t panels = rd_pack_panels(m->rows), bytes = rd_pack_panel_bytes(m->pack, m->cols);
    rd_weight *w;

    if (m->rows < 1 || m->cols < 1 || m->cols > RD_PACKED_COLS_MOST)
        return rd_fail(err, RD_INVALID, "a packed weight of %d x %d", m->rows, m->cols);
    if (!bytes || !rd_mul(panels, bytes, &bytes) || !m->data || !m->scale ||
        (uintptr_t)m->data % 64)
        return rd_fail(err, RD_INVALID,
                       "a packed weight without scales, or not at a multiple of 64 bytes");
    size_t bad = rd_pack_bad_scale(m->scale, panels * RD_PACK_ROWS);

    if (bad < panels * RD_PACK_ROWS)
        return rd_fail(err, RD_INVALID, "row %zu: its scale is negative or not finite", bad);
    w = rd_alloc0(sizeof *w);
    *w = (rd_weight){ .rows = m->rows,
                      .cols = m->cols,
                      .kind = m->pack == RD_PACK_INT8 ? RD_PACKED_INT8 : RD_PACKED_INT4,
                      .data = (void *)(uintptr_t)m->data,
                      .scale = (float *)(uintptr_t)m->scale,
                      .bytes = bytes + panels * RD_PACK_ROWS * sizeof(float),
                      .in_place = true };
    d->bytes += w->bytes;
    *out = w;
    return RD_OK;
}

rd_status rd_cpu_take(rd_device *d, const rd_matrix *m, bool exact, rd_weight **out, rd_error *err)
{
    if (m->pack != RD_PACK_NONE) return take_packed(d, m, out, err);
    if (m->dtype == RD_F8_E4M3 && !m->scale)
        return rd_fail(err, RD_INVALID, "a weight of F8_E4M3 without scales");
    bool vector = m->rows == 1;
    bool keep = exact || d->precision == RD_EXACT;
    rd_weight *w = rd_alloc0(sizeof *w);
    size_t rows = ((size_t)m->rows + RD_PANEL - 1) / RD_PANEL * RD_PANEL, cells, size;
    take_job j = { .m = m, .w = w };
    int bad = -1;

    w->rows = m->rows;
    w->cols = m->cols;
    w->kind = vector ? RD_ROWS_F32 : keep ? d->kernels->exact : d->kernels->fast;
    if (w->kind == RD_ROWS_F32) rows = (size_t)m->rows;
    size = w->kind == RD_PANELS_BF16 ? 2 : 4;
    if (!rd_mul(rows, ((size_t)m->cols + 1) / 2 * 2, &cells) || !rd_mul(cells, size, &w->bytes) ||
        !(w->data = rd_try_alloc(w->bytes))) {
        free(w);
        return rd_cpu_no_memory(err, "a weight", cells);
    }
    d->bytes += w->bytes;
    if (row_scale(m) &&
        w->kind == RD_PANELS_BF16) /* integers, exact in bf16, and the scale apart */
        w->scale = rd_alloc_array(rows, sizeof *w->scale);
    j.rows = (TAKE_CELLS / (m->cols > 0 ? m->cols : 1) / RD_PANEL + 1) * RD_PANEL;
    int pieces = (m->rows + j.rows - 1) / j.rows;

    j.bad = rd_alloc_array((size_t)pieces + 1, sizeof *j.bad);
    for (int i = 0; i < pieces; i++) j.bad[i] = -1;
    rd_cpu_pool_run(d->pool, pieces, take_piece, &j);
    for (int i = pieces - 1; i >= 0; i--) bad = j.bad[i] >= 0 ? j.bad[i] : bad;
    free(j.bad);
    if (bad >= 0) {
        rd_cpu_drop(d, w);
        return rd_fail(err, RD_INVALID, "row %d holds a number that is not finite", bad);
    }
    *out = w;
    return RD_OK;
}

static float cell(const rd_weight *w, int n, int k)
{
    size_t panel = (size_t)n / RD_PANEL, lane = (size_t)n % RD_PANEL, cols = (size_t)w->cols;

    if (w->kind == RD_ROWS_F32) return ((const float *)w->data)[(size_t)n * cols + (size_t)k];
    if (w->kind == RD_PANELS_F32)
        return ((const float *)w->data)[(panel * cols + (size_t)k) * RD_PANEL + lane];
    const uint16_t *at =
        (const uint16_t *)w->data + (panel * ((cols + 1) / 2) + (size_t)k / 2) * 2 * RD_PANEL;
    float x = rd_bf16_to_f32(at[2 * lane + (size_t)k % 2]);

    return w->scale ? x * w->scale[n] : x;
}

void rd_cpu_row(const rd_weight *w, int n, float *out)
{
    if (rd_is_packed(w))
        rd_unpack_row(w->kind == RD_PACKED_INT8 ? RD_PACK_INT8 : RD_PACK_INT4, w->data, w->scale,
                      w->cols, n, out);
    else
        for (int k = 0; k < w->cols; k++) out[k] = cell(w, n, k);
}
