/* device.h - what the files of this backend share: the device, its scratch, rows and weights as kernels take them. */
#ifndef RD_CPU_DEVICE_H
#define RD_CPU_DEVICE_H

#include "core/backend.h"
#include "plugins/cpu/gemm_train.h"
#include "plugins/cpu/kernels.h"
#include "plugins/cpu/packed.h"
#include "plugins/cpu/pool.h"

/* What one chunk of the vocabulary says about one row. */
typedef struct part {
    int32_t best, second;
    float top, second_top, sum, watched;
} part;

/* Cosines and sines of rows at positions, kept from one layer to the next. */
typedef struct rd_angles {
    float *data;
    size_t data_n;
    int32_t *positions;
    size_t positions_n;
    int rows, rotary_dim;
    double theta;
} rd_angles;

struct rd_device {
    const rd_kernels *kernels;
    const rd_packed_kernels *packed;
    const char *isa;
    rd_precision precision;
    rd_cpu_pool *pool;
    rd_gemm_train *gemm;
    size_t bytes;

    /* Scratch; each grows outside of a pass' inner work only. */
    uint16_t *half;
    size_t half_n;
    char *bytes_in; /* rows as bytes, and as tiles */
    size_t bytes_in_n;
    rd_tile *tile;
    size_t tile_n;
    char *tile_room;
    size_t tile_room_n;
    rd_angles angles;
    float *own; /* keys and values of the rows of a pass */
    size_t own_n;
    const void **tile_k, **tile_v;
    size_t tiles_n;
    float **scores; /* [threads] */
    size_t scores_n;
    float *work; /* what the router says, experts' results, a dense mlp's inner rows */
    size_t work_n;
    float **inner; /* [threads]: one expert's inner rows */
    size_t inner_n;
    part *parts;
    size_t parts_n;
    float **logits; /* [threads] */
    size_t logits_n;
    int *route;
    size_t route_n;
};

rd_status rd_cpu_no_memory(rd_error *err, const char *what, size_t bytes);
/* Room for n elements in a scratch array; what was there is lost. */
rd_status rd_cpu_room(void *array, size_t *have, size_t n, size_t size, const char *what,
                      rd_error *err);
rd_status rd_cpu_room_each(rd_device *d, float **array, size_t *have, size_t n, const char *what,
                           rd_error *err);

static inline int rd_panels_of(const rd_weight *w)
{
    return (w->rows + RD_PANEL - 1) / RD_PANEL;
}

static inline bool rd_wants_half(const rd_device *d, const rd_weight *w)
{
    return d->kernels->half && w->kind == RD_PANELS_BF16;
}

static inline bool rd_is_packed(const rd_weight *w)
{
    return w->kind == RD_PACKED_INT8 || w->kind == RD_PACKED_INT4;
}

/* A row of a weight as numbers. */
void rd_cpu_row(const rd_weight *w, int n, float *out);

void rd_to_half(uint16_t *to, size_t stride, const float *x, int cols);
/* Rows as a weight that is not packed wants them: as they are, or rounded into `half`. */
rd_status rd_cpu_rows_in(rd_device *d, rd_view x, const rd_weight *w, rd_rows_in *out,
                         rd_error *err);
/* Rows as bytes, and as tiles of bytes, in scratch that holds until the next call of either. */
rd_status rd_cpu_bytes(rd_device *d, rd_view x, rd_byte_rows *out, rd_error *err);
/* The rows index[0..rows) of x, or its first ones (NULL). */
rd_status rd_cpu_tiles(rd_device *d, rd_view x, const int *index, int rows, const rd_tile **out,
                       int *n, rd_error *err);
/* Panels of one piece of work, so that there are several pieces for each thread. */
int rd_cpu_piece(const rd_device *d, int panels, int most);

/* The verbs that have a file of their own; core/backend.h says what they do. */
rd_status rd_cpu_take(rd_device *d, const rd_matrix *m, bool exact, rd_weight **out, rd_error *err);
void rd_cpu_drop(rd_device *d, rd_weight *w);
rd_status rd_cpu_kv_open(rd_device *d, const rd_kv_shape *s, rd_kv **out, rd_error *err);
void rd_cpu_kv_close(rd_device *d, rd_kv *kv);
size_t rd_cpu_kv_block_bytes(rd_device *d, const rd_kv *kv);
rd_status rd_cpu_kv_read(rd_device *d, const rd_kv *kv, int block, void *to, rd_error *err);
rd_status rd_cpu_kv_write(rd_device *d, rd_kv *kv, int block, const void *from, rd_error *err);
void *rd_cpu_kv_host(rd_device *d, rd_kv *kv, int block);
rd_status rd_cpu_linear(rd_device *d, rd_view out, rd_view x, const rd_weight *w, rd_error *err);
rd_status rd_cpu_attention(rd_device *d, rd_view out, rd_view qkv, const rd_attention *a,
                           rd_error *err);
rd_status rd_cpu_mlp(rd_device *d, rd_view out, rd_view x, const rd_mlp *m, rd_error *err);
rd_status rd_cpu_moe(rd_device *d, rd_view out, rd_view x, const rd_moe *m, rd_error *err);
rd_status rd_cpu_pick(rd_device *d, rd_view x, const rd_weight *head, const rd_pick_query *q,
                      rd_pick *out, rd_error *err);

#endif
