/* device.h - what the files of this backend share: the device, its tape, its scratch, weights and storage as kernels see them.
 *
 * A pass is recorded, then run. Between begin and end a verb checks its arguments, puts what changes from pass to pass
 * (tokens, positions, lists of blocks) into the parameters, and adds a command: a function and a plain struct of
 * arguments. Nothing runs until somebody needs a result (pick, download, end). Then the commands are run: launched one by one, or, where
 * a pass of the same commands ran before, as the graph that was captured of it. So a command's arguments hold what shapes
 * launches (rows, addresses of views and weights, a power of two above the number of past blocks), and never a number that
 * changes with each step; those are read by the kernels from the parameters.
 *
 * Rules for a command's function: it launches on d->stream and does nothing else that a graph could not capture (no
 * allocation, no synchronous copy, no waiting). Scratch is asked for while recording (cuda_room) and its address is
 * looked up while running (cuda_scratch), for it may have grown in between.
 */
#ifndef RD_CUDA_DEVICE_H
#define RD_CUDA_DEVICE_H

#include "plugins/cuda/gpu.cuh"

extern "C" {
#include "core/backend.h"
}

/* ---- weights: row-major, as in the file, each row padded with zeros to a multiple of CUDA_COLS ---- */

enum { CUDA_COLS = 128 };

/* Numbers of a weight. F32: exact. BF16: products in bf16. E4M3: `scale` [ceil(rows / 128)][stride / 128] float; I8: `scale`
 * [rows]; I4: groups of 32 numbers in 16 bytes, whole steps `step` [rows][stride / 32], `scale` [rows], a number being
 * q * step * scale: these three are multiplied as halves, in which q * step is exact. Number 8 j + 2 i + h (h 0 or 1) of an
 * I4 group, plus 8, stands in bits 4 i + 16 h of the group's word j. */
typedef enum cuda_form { CUDA_F32, CUDA_BF16, CUDA_E4M3, CUDA_I8, CUDA_I4 } cuda_form;

struct rd_weight {
    cuda_form form;
    int rows, cols, stride; /* stride: cols rounded up to CUDA_COLS; a vector and F32: cols */
    void *data;             /* device memory, at a multiple of 256 bytes */
    float *scale;           /* device memory or NULL */
    size_t bytes;
    uint8_t *step; /* I4: device memory, behind the numbers in `data`; else NULL */
};

/* ---- 16-bit copies of activations ---- */

/* What a product's activations are rounded to: bf16 for CUDA_BF16 weights; f16, clamped to +-65504, for E4M3, I8 and I4. */
typedef enum cuda_half { CUDA_HALF_NONE, CUDA_HALF_BF16, CUDA_HALF_F16 } cuda_half;

/* ---- scratch ---- */

typedef enum cuda_slot {
    CUDA_SLOT_HALF,    /* [rows, stride] 16-bit copy of the rows that a product takes; see cuda_halves */
    CUDA_SLOT_PARTIAL, /* partial sums of products */
    CUDA_SLOT_INNER,   /* inner rows of an mlp or of experts */
    CUDA_SLOT_ROUTE,   /* what the router says: scores, choices, sorted rows */
    CUDA_SLOT_OWN,     /* queries, and keys and values, of the rows of a pass */
    CUDA_SLOT_ATTEND,  /* partial results of attention */
    CUDA_SLOT_PICK,    /* partial results of pick */
    CUDA_SLOTS
} cuda_slot;

/* ---- the tape ---- */

typedef rd_status (*cuda_run)(rd_device *d, const void *args, rd_error *err);

struct cuda_tape; /* tape.h: commands and the graphs made of them */

struct rd_device {
    rd_precision precision;
    rd_weight_form weights; /* what bf16 and wider matrices become at take */
    cudaStream_t stream;
    int processors;           /* multiprocessors */
    int capability;           /* 90 for sm_90 */
    size_t shared_most;       /* bytes of dynamic shared memory that one block may have */
    size_t l2_bytes;
    size_t bytes, limit;      /* held now; at most, 0: no limit */
    char name[64];
    void (*log)(rd_log_level level, const char *format, ...);

    struct cuda_tape *tape;
    struct {
        void *data;
        size_t bytes;
    } slot[CUDA_SLOTS];
    /* Parameters of the pass: pinned host memory, and its copy on the device that a pass begins with. */
    unsigned char *params_host, *params;
    size_t params_bytes, params_used;
    rd_pick *picks; /* mapped host memory, [picks_most]; picks_device: the same as the device sees it */
    rd_pick *picks_device;
    int picks_most;
    cuda_half main_half; /* what most of the weights taken so far multiply */
    struct cuda_slab *slab; /* [slabs] */
    int slabs;
    bool no_graphs;      /* isa "no-graphs": every pass is launched command by command */
    char isa[96];        /* for describe: "NVIDIA H200, sm_90-fp8" */
    bool lost;           /* an error that stays: every verb fails from then on */
    cudaEvent_t idle;    /* behind the last thing that was launched */
    /* While running: rows that CUDA_SLOT_HALF holds a copy of. A command that writes to a view which may be `half_of` says so
     * by cuda_forget_half. */
    const float *half_of;
    cuda_half half_kind;
    size_t half_bytes[3];     /* of weights taken, by cuda_half: what main_half is chosen by */
    struct cuda_experts *experts; /* moe.cu: tables of layers; NULL before the first */
    struct cuda_stage *stage; /* weights.cu: what a weight goes through on its way here; NULL before the first */
};

/* ---- help for verbs (cuda.cu) ---- */

/* RD_DEVICE, or RD_NO_MEMORY, with what was tried, where `e` is not cudaSuccess. Takes the last error away. */
CUDA_LOCAL rd_status cuda_status(cudaError_t e, const char *what, rd_error *err);
/* Device memory that counts in d->bytes; RD_NO_MEMORY says how much was needed and how much is free. */
CUDA_LOCAL rd_status cuda_get(rd_device *d, void **out, size_t bytes, const char *what, rd_error *err);
CUDA_LOCAL void cuda_put(rd_device *d, void *memory, size_t bytes);
/* The same for weights: pieces of large slabs, at multiples of 256 bytes, for a model has tens of thousands and the driver gives
 * 2 MB at a time. A slab goes back when its last piece does. */
CUDA_LOCAL rd_status cuda_get_piece(rd_device *d, void **out, size_t bytes, const char *what, rd_error *err);
CUDA_LOCAL void cuda_put_piece(rd_device *d, void *memory);
/* Before device memory goes that recorded passes may name: waits, and forgets their graphs. */
CUDA_LOCAL void cuda_forget_passes(rd_device *d);
/* While recording: `slot` holds at least so many bytes when the commands run. */
CUDA_LOCAL rd_status cuda_room(rd_device *d, cuda_slot slot, size_t bytes, rd_error *err);
/* While running: where it is. */
static inline void *cuda_scratch(const rd_device *d, cuda_slot slot)
{
    return d->slot[slot].data;
}
/* While recording: `bytes` of the parameters, at a multiple of 16, for the caller to fill through *host now and for kernels
 * to read through *device. The same sizes in the same order give the same addresses. */
CUDA_LOCAL rd_status cuda_param(rd_device *d, size_t bytes, void **host, const void **device,
                                rd_error *err);
/* Add a command. `args` is copied; it must be filled from zero, for bytes are compared, padding too. */
CUDA_LOCAL rd_status cuda_record(rd_device *d, cuda_run run, const void *args, size_t bytes,
                                 rd_error *err);
/* Run what was recorded so far; `wait`: until it is done. */
CUDA_LOCAL rd_status cuda_flush(rd_device *d, bool wait, rd_error *err);

/* While running: rows [rows, stride] of x [rows, cols] float32 in 16 bits, zeros behind cols; made unless they are there
 * already. The slot has room by cuda_room_half while recording. */
CUDA_LOCAL rd_status cuda_halves(rd_device *d, const float *x, int rows, int cols, cuda_half kind,
                                 const uint16_t **out, rd_error *err);
CUDA_LOCAL rd_status cuda_room_half(rd_device *d, int rows, int cols, rd_error *err);
static inline void cuda_forget_half(rd_device *d, const float *written)
{
    if (d->half_of == written) d->half_of = NULL;
}

static inline int cuda_stride(int cols)
{
    return (cols + CUDA_COLS - 1) / CUDA_COLS * CUDA_COLS;
}

static inline cuda_half cuda_half_of(cuda_form f)
{
    return f == CUDA_F32 ? CUDA_HALF_NONE : f == CUDA_BF16 ? CUDA_HALF_BF16 : CUDA_HALF_F16;
}

/* ---- verbs by file; core/backend.h says what they do ---- */

/* weights.cu */
CUDA_LOCAL rd_status cuda_take(rd_device *d, const rd_matrix *m, bool exact, rd_weight **out, rd_error *err);
CUDA_LOCAL void cuda_drop(rd_device *d, rd_weight *w);
CUDA_LOCAL void cuda_weights_close(rd_device *d);
/* rows.cu */
CUDA_LOCAL rd_status cuda_embed(rd_device *d, rd_view out, const rd_weight *table, const int32_t *tokens, rd_error *err);
CUDA_LOCAL rd_status cuda_norm(rd_device *d, rd_view out, rd_view x, const rd_weight *weight, float eps, rd_error *err);
CUDA_LOCAL rd_status cuda_add(rd_device *d, rd_view x, rd_view y, rd_error *err);
/* linear.cu */
/* Once, when a device is opened: what kernels of products ask of it. */
CUDA_LOCAL rd_status cuda_linear_open(rd_device *d, rd_error *err);
CUDA_LOCAL void cuda_linear_close(rd_device *d);
CUDA_LOCAL rd_status cuda_linear(rd_device *d, rd_view out, rd_view x, const rd_weight *w, rd_error *err);
CUDA_LOCAL rd_status cuda_mlp(rd_device *d, rd_view out, rd_view x, const rd_mlp *m, rd_error *err);
/* moe.cu */
CUDA_LOCAL rd_status cuda_moe(rd_device *d, rd_view out, rd_view x, const rd_moe *m, rd_error *err);
/* A weight goes away (cuda_drop says so), or the device does. */
CUDA_LOCAL void cuda_moe_forget(rd_device *d, const rd_weight *w);
CUDA_LOCAL void cuda_moe_close(rd_device *d);
/* kv.cu */
CUDA_LOCAL rd_status cuda_kv_open(rd_device *d, const rd_kv_shape *s, rd_kv **out, rd_error *err);
CUDA_LOCAL void cuda_kv_close(rd_device *d, rd_kv *kv);
CUDA_LOCAL size_t cuda_kv_block_bytes(rd_device *d, const rd_kv *kv);
CUDA_LOCAL rd_status cuda_kv_read(rd_device *d, const rd_kv *kv, int block, void *to, rd_error *err);
CUDA_LOCAL rd_status cuda_kv_write(rd_device *d, rd_kv *kv, int block, const void *from, rd_error *err);
/* attention.cu */
CUDA_LOCAL rd_status cuda_attention(rd_device *d, rd_view out, rd_view qkv, const rd_attention *a, rd_error *err);
/* pick.cu */
CUDA_LOCAL rd_status cuda_pick(rd_device *d, rd_view x, const rd_weight *head, const rd_pick_query *q, rd_pick *out, rd_error *err);

#endif
