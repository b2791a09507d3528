/* backend.h - the table that a hardware backend fills in: verbs of the model, not of linear algebra.
 *
 * core/model/forward writes the model once in these verbs; a backend does them on its hardware. A
 * plugin exports `rd_backend_entry`. Activations are float32 [rows, cols] row-major on the device
 * ("views"); weights are handed over once and become whatever the backend likes. Everything that a
 * verb needs was allocated before the pass. One thread drives a device; any number of devices may
 * be open. `.abi` must match; `.size` tells which later fields a plugin knows: those from `ceilings` on.
 *
 * What fails fills `err` and says so with its status. RD_NO_MEMORY (with what was needed and what was free) and RD_DEVICE
 * (the device is gone, or cannot do this shape) while a model is opened may lead to another backend; RD_DEVICE later
 * closes the model, which calls `drop`, `release`, `kv_close` and `close` as ever, and opens it again.
 *
 * Sources: LLaDA2.x modeling_llada2_moe.py (attention, router, experts), arXiv 2512.15745.
 */
#ifndef RD_BACKEND_H
#define RD_BACKEND_H

#include "core/base/dtype.h"
#include "core/base/log.h"
#include "core/base/pack.h"
#include "core/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RD_BACKEND_ABI 1

typedef struct rd_device rd_device; /* one open device; each backend's own */
typedef struct rd_weight rd_weight; /* one weight in the backend's own layout */
typedef struct rd_kv rd_kv; /* the device's storage of keys and values, in numbered blocks */

/* RD_EXACT keeps activations float32 (conformance, tests). RD_FAST may round activations to bf16
 * where the hardware multiplies that faster. */
typedef enum rd_precision { RD_EXACT, RD_FAST } rd_precision;

/* What a backend makes of matrices that come in a float type and need not be exact: as suits it, or E4M3 with a scale for each
 * 128 x 128 numbers, where the hardware has it. Packed ones stay as they are. */
typedef enum rd_weight_form { RD_FORM_STORED, RD_FORM_FP8 } rd_weight_form;

typedef struct rd_device_options {
    int threads;     /* 0: as many as the machine has cores */
    const char *isa; /* NULL: the best; "plain", "avx2", "avx512" force a path */
    rd_precision precision;
    size_t memory_limit; /* bytes; 0: none */
    void (*log)(rd_log_level level, const char *format, ...);
    rd_weight_form weights; /* RD_FORM_FP8: RD_INVALID where the backend does not have it */
} rd_device_options;

typedef struct rd_device_info {
    const char *
        isa; /* the path in use, with what it multiplies in: "avx512-bf16-vnni"; of a GPU its name first */
    int threads;  /* 0: not counted in threads */
    size_t bytes; /* held by this device now */
    int rows; /* of one pass that it works well with, for what is computed in chunks; 0: as few as one likes */
} rd_device_info;

/* What the hardware does at best, multiplications and additions counted apart. */
typedef struct rd_ceilings {
    double read_bytes_s; /* of memory too large for any cache */
    double cache_bytes;  /* of the last cache: what fits is not held against memory; 0: unknown */
    double int8_op_s;    /* int8 products summed in int32 */
    double
        bf16_flop_s; /* bf16 products summed in float32; float32 ones where it has none of those */
} rd_ceilings;

/* Random numbers in place of a matrix' data, for models that are only a shape: both signs alike, with about this root mean
 * square, in whatever form the matrix would have; the first `zero_rows` rows are zero. The same seed gives the same. */
typedef struct rd_random_fill {
    uint64_t seed;
    float rms;
    int zero_rows;
} rd_random_fill;

enum { RD_SCALE_BLOCK = 128 };

/* A matrix as it stands in a file: rows x cols row-major, any alignment. `scale` comes with I8, one float a row, and with
 * F8_E4M3, one for each RD_SCALE_BLOCK rows by as many columns: [ceil(rows / 128)][ceil(cols / 128)]. A vector is one row. */
typedef struct rd_matrix {
    const void *data;
    rd_dtype dtype;
    int rows, cols;
    const float *scale;
    /* Not RD_PACK_NONE: `data` are panels (core/format/packed.h) at a multiple of 64 bytes, `scale` one float for each
     * row of the panels; the bytes stay where they are for as long as the device is open, so that a backend may use
     * them in place. */
    rd_pack pack;
    const rd_random_fill *fill; /* not NULL: `data` and `scale` are NULL, if the backend `fills` */
    bool table; /* an embedding: its rows are looked up, so RD_FORM_FP8 saves nothing and is not for it */
} rd_matrix;

/* Activations on the device: float32 [rows, cols]. */
typedef struct rd_view {
    float *data; /* device memory: the host must not read it except through download */
    int rows, cols;
} rd_view;

typedef struct rd_kv_shape {
    int layers, kv_heads, head_dim, block_size, blocks;
    bool exact; /* float32, whatever the precision */
} rd_kv_shape;

/* Alternatives in one pass: rows from `first` on, a multiple of the block size, are groups of `size` rows,
 * the block size; each sees the past, the rows before `first` and itself, of which its first counts[i] rows
 * count (the others are seen by nobody and have no say in routing). counts NULL: there are none. */
typedef struct rd_branches {
    int first, size;
    const int *counts; /* [ceil((rows - first) / size)], host */
} rd_branches;

/* One attention layer over `rows` new tokens behind `past` finished blocks.
 * qkv: [rows, (heads + 2 kv_heads) * head_dim], out: [rows, heads * head_dim].
 * Norms per head on Q and K, half rotary by `positions`, softmax(QK^T / sqrt(d)) V.
 * Sight: every row sees all of `past`. Among the rows of the pass, row i sees row j iff
 * j / sight <= i / sight (block-causal inside the pass); sight >= rows means all see all. Rows
 * count from a block boundary. Keys and values of rows go to the blocks keep[row / block_size]
 * where that is not -1 (a short last block may be kept as well: the rest is garbage). */
typedef struct rd_attention {
    int layer, rows, heads, kv_heads, head_dim, rotary_dim;
    float eps;
    double theta;
    const int32_t *positions; /* [rows], host */
    const int32_t *past;      /* numbers of finished, full blocks in order, host */
    int past_blocks;
    const int32_t *keep; /* [ceil(rows / block_size)], host, or NULL: nothing is kept */
    int sight;
    rd_kv *kv;
    const rd_weight *q_norm, *k_norm;
    int visible; /* rows from here on are seen by nobody; 0: all are seen */
    rd_branches branches;
} rd_attention;

typedef struct rd_mlp {
    const rd_weight *gate, *up, *down; /* [width, hidden], [width, hidden], [hidden, width] */
} rd_mlp;

/* Router and experts. Per token (capacity 0): group-limited top-k on sigmoid + bias. Block routing
 * (capacity > 0): each run of `window` consecutive rows, counted from row 0 of the pass, first
 * admits its `capacity` best experts by the run's largest biased score, ties to the lower id.
 * The chosen experts' weights are the unbiased scores over their sum (+1e-20, unless top_k is 1)
 * times `scaling`; `shared` (may have NULL weights) is added unscaled. */
typedef struct rd_moe {
    const rd_weight *router; /* [experts, hidden], float32 */
    const rd_weight *bias;   /* [experts], float32 */
    const rd_mlp *experts;   /* [n_experts] */
    rd_mlp shared;
    int n_experts, top_k, n_group, topk_group, capacity, window;
    float scaling;
    rd_branches branches; /* of block routing: only rows that count take part */
    /* Taps for conformance, host memory or NULL: [rows, experts], [rows, top_k] twice. */
    float *logits_out;
    int32_t *chosen_out;
    float *weight_out;
} rd_moe;

/* What `pick` returns for one row: the best token that is not banned, its probability under the
 * softmax over all tokens that are not banned, and that of the watched token. */
typedef struct rd_pick {
    int32_t token;
    float prob;
    float watched_prob;
    int32_t second; /* the next best token; -1 when there is none */
    float second_prob;
} rd_pick;

/* `banned` is a sorted list of ids, `limit` bans all ids from it up (padding rows of the vocabulary;
 * 0: none). `watched` has one id a row, or -1, or is NULL. `rows` lists the rows of x to look at
 * (NULL: all, n_rows of them). */
typedef struct rd_pick_query {
    const int32_t *banned;
    int n_banned;
    int32_t limit;
    const int32_t *watched; /* [n_rows] */
    const int32_t *rows;    /* [n_rows] or NULL */
    int n_rows;
} rd_pick_query;

typedef struct rd_backend {
    uint32_t abi;
    size_t size;
    const char *name;

    rd_status (*open)(const rd_device_options *o, rd_device **out, rd_error *err);
    void (*close)(rd_device *d);
    void (*describe)(rd_device *d, rd_device_info *out);

    /* Take a weight into the backend's layout; the matrix may go away afterwards. `exact` keeps it
     * float32 whatever the precision (norms, router). NaN or infinity, or a scale of
     * panels that is negative (rd_pack_bad_scale): RD_INVALID. */
    rd_status (*take)(rd_device *d, const rd_matrix *m, bool exact, rd_weight **out, rd_error *err);
    void (*drop)(rd_device *d, rd_weight *w);

    rd_status (*alloc)(rd_device *d, int rows, int cols, rd_view *out, rd_error *err);
    void (*release)(rd_device *d, rd_view *v);
    rd_status (*upload)(rd_device *d, rd_view to, const float *from, rd_error *err);
    rd_status (*download)(rd_device *d, float *to, rd_view from, rd_error *err);

    rd_status (*kv_open)(rd_device *d, const rd_kv_shape *shape, rd_kv **out, rd_error *err);
    void (*kv_close)(rd_device *d, rd_kv *kv);
    /* Bytes of one block as exported, all layers: float32 or bf16 as the device keeps it. */
    size_t (*kv_block_bytes)(rd_device *d, const rd_kv *kv);
    /* One block to and from host memory, in the layout [layer][K, V][kv_head][block_size][head_dim]. */
    rd_status (*kv_read)(rd_device *d, const rd_kv *kv, int block, void *to, rd_error *err);
    rd_status (*kv_write)(rd_device *d, rd_kv *kv, int block, const void *from, rd_error *err);

    /* A pass: between begin and end only the verbs below run; a place to capture and replay. */
    rd_status (*begin)(rd_device *d, int rows, rd_error *err);
    rd_status (*end)(rd_device *d, rd_error *err);
    rd_status (*embed)(rd_device *d, rd_view out, const rd_weight *table, const int32_t *tokens,
                       rd_error *err);
    rd_status (*norm)(rd_device *d, rd_view out, rd_view x, const rd_weight *weight, float eps,
                      rd_error *err);
    rd_status (*linear)(rd_device *d, rd_view out, rd_view x, const rd_weight *w, rd_error *err);
    rd_status (*attention)(rd_device *d, rd_view out, rd_view qkv, const rd_attention *a,
                           rd_error *err);
    rd_status (*mlp)(rd_device *d, rd_view out, rd_view x, const rd_mlp *m, rd_error *err);
    rd_status (*moe)(rd_device *d, rd_view out, rd_view x, const rd_moe *m, rd_error *err);
    rd_status (*add)(rd_device *d, rd_view x, rd_view y, rd_error *err); /* x += y */
    rd_status (*pick)(rd_device *d, rd_view x, const rd_weight *head, const rd_pick_query *q,
                      rd_pick *out, rd_error *err);

    /* For training; NULL where a backend has none. C = beta C + op(A) op(B), float32 row-major
     * host or device memory as `alloc` gives it; lda.. are row strides in elements. RD_FAST may
     * multiply in bf16 with float32 sums. op is a transpose where the flag is set. */
    rd_status (*gemm)(rd_device *d, bool ta, bool tb, int m, int n, int k, const float *a, int lda,
                      const float *b, int ldb, float beta, float *c, int ldc, rd_error *err);

    /* Measure the ceilings now, with `threads` threads and the best instructions there are, whatever
     * `isa` says; takes about a second and hundreds of MB. NULL: cannot be told. */
    rd_status (*ceilings)(const rd_device_options *o, rd_ceilings *out, rd_error *err);

    /* Where the host finds a block's kv_block_bytes as the device keeps them, to read and to fill between passes;
     * `kv_layout` names their order, for whoever stores them. NULL: device memory, kv_read and kv_write alone. */
    const char *kv_layout;
    void *(*kv_host)(rd_device *d, rd_kv *kv, int block);

    bool fills; /* `take` knows rd_matrix.fill */

    /* Whether a device can be opened here, else why not: RD_DEVICE, "no CUDA driver: libcuda.so.1 is not there". Opens
     * nothing that stays open; any thread. NULL: it always can. */
    rd_status (*probe)(rd_error *err);
} rd_backend;

/* The one symbol that a plugin exports (core/plugin.h says where it must lie and what is checked). It is called once;
 * what it returns is good for the life of the process. */
typedef const rd_backend *(*rd_backend_entry_fn)(void);

#endif
