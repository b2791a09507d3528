/* linear.c - rows as weights want them, and the plain product: each piece of work is a run of panels.
 *
 * Packed weights want bytes in tiles. Everybody's tiles are made here, in scratch of the device, by all threads.
 */
#include "plugins/cpu/device.h"

#include "core/base/memory.h"

enum {
    ROWS_TOGETHER = 4, /* made bytes by one piece */
    PIECES_EACH = 6,   /* of one product, for each thread: nobody waits long for the last */
    PANELS_MOST = 32,
};

void rd_to_half(uint16_t *to, size_t stride, const float *x, int cols)
{
    for (int k = 0; k < cols; k++) to[k] = rd_f32_to_bf16(x[k]);
    if ((size_t)cols < stride) to[cols] = 0;
}

/* Rows as the weight wants them: as they are, or rounded into `half`. */
rd_status rd_cpu_rows_in(rd_device *d, rd_view x, const rd_weight *w, rd_rows_in *out,
                         rd_error *err)
{
    size_t stride = ((size_t)x.cols + 1) / 2 * 2;

    *out = (rd_rows_in){ .x = x.data, .stride = (size_t)x.cols, .rows = x.rows };
    if (!rd_wants_half(d, w)) return RD_OK;
    if (rd_cpu_room(&d->half, &d->half_n, stride * (size_t)x.rows, sizeof *d->half, "activations",
                    err))
        return RD_NO_MEMORY;
    for (int r = 0; r < x.rows; r++)
        rd_to_half(d->half + (size_t)r * stride, stride, x.data + (size_t)r * (size_t)x.cols,
                   x.cols);
    out->x = d->half;
    out->stride = stride;
    return RD_OK;
}

/* ---- bytes ---- */

/* Some rows of x as bytes, and as tiles if there are any. */
typedef struct bytes_job {
    rd_device *d;
    rd_view x;
    const int *index;
    rd_byte_rows to;
    rd_tile *tiles;
    int each;
} bytes_job;

static void quantise_row(const bytes_job *j, int r)
{
    size_t from = (size_t)(j->index ? j->index[r] : r) * (size_t)j->x.cols;

    rd_packed_quantise(j->d->packed, &j->to, r, j->x.data + from, j->x.cols);
}

static void rows_piece(void *user, int piece, int thread)
{
    bytes_job *j = user;
    int from = piece * j->each, to = from + j->each < j->to.rows ? from + j->each : j->to.rows;

    (void)thread;
    for (int r = from; r < to; r++) quantise_row(j, r);
}

static void tile_piece(void *user, int piece, int thread)
{
    bytes_job *j = user;
    rd_tile *t = &j->tiles[piece];

    (void)thread;
    for (int r = t->first; r < t->first + t->rows; r++) quantise_row(j, r);
    rd_tile_fill(t, &j->to, NULL, t->first, t->rows);
}

static rd_status bytes_room(rd_device *d, int rows, int cols, rd_byte_rows *out, rd_error *err)
{
    if (rd_cpu_room(&d->bytes_in, &d->bytes_in_n, rd_byte_rows_bytes(rows, cols), 1, "activations",
                    err))
        return RD_NO_MEMORY;
    *out = rd_byte_rows_at(d->bytes_in, rows, cols);
    return RD_OK;
}

rd_status rd_cpu_bytes(rd_device *d, rd_view x, rd_byte_rows *out, rd_error *err)
{
    bytes_job j = { .d = d, .x = x, .each = ROWS_TOGETHER };

    if (bytes_room(d, x.rows, x.cols, &j.to, err)) return RD_NO_MEMORY;
    rd_cpu_pool_run(d->pool, (x.rows + j.each - 1) / j.each, rows_piece, &j);
    *out = j.to;
    return RD_OK;
}

rd_status rd_cpu_tiles(rd_device *d, rd_view x, const int *index, int rows, const rd_tile **out,
                       int *n, rd_error *err)
{
    bytes_job j = { .d = d, .x = x, .index = index };

    *n = rd_tile_count(rows);
    if (bytes_room(d, rows, x.cols, &j.to, err) ||
        rd_cpu_room(&d->tile, &d->tile_n, (size_t)*n, sizeof *d->tile, "tiles", err) ||
        rd_cpu_room(&d->tile_room, &d->tile_room_n, rd_tiles_bytes(rows, x.cols), 1, "tiles", err))
        return RD_NO_MEMORY;
    j.tiles = d->tile;
    rd_tiles_place(d->tile, d->tile_room, &j.to, rows);
    rd_cpu_pool_run(d->pool, *n, tile_piece, &j);
    *out = d->tile;
    return RD_OK;
}

/* ---- the product ---- */

typedef struct product_job {
    const rd_device *d;
    rd_view out;
    const rd_weight *w;
    rd_rows_in x;         /* of a weight that is not packed */
    const rd_tile *tiles; /* of one that is */
    int n_tiles;
    int panels; /* in one piece */
} product_job;

static void product_piece(void *user, int piece, int thread)
{
    product_job *j = user;
    int from = piece * j->panels, to = from + j->panels, all = rd_panels_of(j->w);
    float *out = j->out.data + from * RD_PANEL;
    size_t ldo = (size_t)j->out.cols;

    (void)thread;
    if (to > all) to = all;
    if (j->tiles)
        j->d->packed->product(out, ldo, j->tiles, j->n_tiles, j->w, from, to);
    else
        j->d->kernels->product(out, ldo, &j->x, j->w, from, to);
}

int rd_cpu_piece(const rd_device *d, int panels, int most)
{
    int threads = rd_cpu_pool_threads(d->pool), n = panels / (PIECES_EACH * threads);

    n = threads == 1 ? panels : n > most ? most : n;
    return n < 2 ? 2 : n + (n & 1);
}

rd_status rd_cpu_linear(rd_device *d, rd_view out, rd_view x, const rd_weight *w, rd_error *err)
{
    product_job j = { .d = d, .out = out, .w = w };
    int panels = rd_panels_of(w);

    if (rd_is_packed(w) ? rd_cpu_tiles(d, x, NULL, x.rows, &j.tiles, &j.n_tiles, err)
                        : rd_cpu_rows_in(d, x, w, &j.x, err))
        return RD_NO_MEMORY;
    j.panels = rd_cpu_piece(d, panels, PANELS_MOST);
    rd_cpu_pool_run(d->pool, (panels + j.panels - 1) / j.panels, product_piece, &j);
    return RD_OK;
}
