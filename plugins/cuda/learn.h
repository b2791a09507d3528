/* learn.h - what the files of the CUDA learner share: its memory, a pack as kernels see it, and the steps of a pass.
 *
 * A learner owns one stream, one cuBLAS handle and one piece of device memory that is divided at open; nothing is allocated
 * later. Weights, gradient and moments are float32 in the layout of rd_params; products read a bf16 copy of the weights that
 * is made once a step. Activations are bf16; the residual stream, its gradient and all sums are float32. Sums run in a
 * fixed order, so the same packs give the same bits.
 *
 * Nothing here waits for the device but put, get, guess, collect and the reuse of a pinned buffer two packs later. What a
 * step must know (norm, a gradient that is no number, steps done) stays on the device in learn_state.
 *
 *   learn.cu            the table, copies, products
 *   learn_memory.cu     what lies where on the device
 *   learn_pack.cu       what the host works out of a pack: lists of tiles, labelled rows, rows by token
 *   learn_pass.cu       forward and backward, layer by layer
 *   learn_rows.cu       norms, gates, sums over rows, embedding
 *   learn_turn.cu       queries and keys: norm and rotation, and back
 *   learn_attend.cu     attention forward
 *   learn_attend_back.cu  and backward
 *   learn_moe.cu        routing
 *   learn_group.cu      products of rows sorted by expert
 *   learn_head.cu       cross-entropy over the vocabulary, a chunk of rows at a time
 *   learn_optimizer.cu  norm, AdamW, biases, rounding, mean
 *   learn_muon.cu       Muon
 *   learn_blas.cu       finding cuBLAS
 */
#ifndef RD_CUDA_LEARN_H
#define RD_CUDA_LEARN_H

#include "plugins/cuda/learn_blas.h"
#include "plugins/cuda/learn_tile.cuh"

extern "C" {
#include "core/base/memory.h"
#include "core/train/learner.h"
}

enum {
    LEARN_TILE = 64,    /* rows, and keys, of a tile of attention */
    LEARN_SLOTS = 128,  /* an expert's rows are padded to a multiple */
    LEARN_CHUNK = 2048, /* labelled rows whose logits exist at once */
    LEARN_PIECE = 4096, /* floats that one block of the optimiser takes */
    LEARN_PARTS = 512,  /* partial sums over rows */
    LEARN_SEGMENT = 32, /* rows of one token that are added in one go */
    LEARN_BUFFERS = 2   /* pinned buffers of packs */
};

/* In a list of tiles: some row of the tile does not see some key. */
enum { LEARN_PARTLY = 1 << 30 };

typedef struct
    learn_segment { /* rows order[begin .. end) add up to row `to` of the table's gradient, or of the partial sums */
    int begin, end, to, whole; /* whole: to the gradient */
} learn_segment;

typedef struct
    learn_join { /* partial sums first .. first + count add up to row `to` of the table's gradient */
    int to, first, count, unused;
} learn_join;

typedef struct learn_pack { /* addresses on the device */
    int rows, labelled, tiles, segments, joins;
    float scale;
    const rd_train_row *row;
    const int *list;              /* [labelled] */
    const int *see_start, *see;   /* key tiles of each tile of rows */
    const int *seen_start, *seen; /* tiles of rows of each key tile */
    const int *order;             /* [rows] by token */
    const learn_segment *segment;
    const learn_join *join;
} learn_pack;

typedef struct learn_layer { /* what backward needs of one layer */
    float *x, *mid;          /* [rows, hidden] before the norms */
    float *inv1, *inv2;      /* [rows] */
    bf16 *a, *m;             /* [rows, hidden] after them */
    bf16 *qkv, *qk; /* [rows, (heads + 2 kv) dim]; [rows, (heads + kv) dim] normed and turned */
    bf16 *o;        /* [rows, heads dim] */
    float *lse;     /* [heads][rows] log-sums, base 2 */
    bf16 *gu;       /* dense or shared: [rows, 2 width] */
    float *score, *share; /* [rows, top_k] sigmoid and weight of the chosen */
    int *chosen, *slot;   /* [rows, top_k] */
    int *start;           /* [experts + 1] into the slots */
    int *tile;            /* [slots / LEARN_SLOTS] expert, or -1 */
    int *row_of;          /* [slots] row, or -1 */
    float *share_of;      /* [slots] */
    bf16 *egu, *y;        /* [slots, 2 width], [slots, hidden] */
} learn_layer;

typedef struct learn_piece { /* of one tensor, for the optimiser */
    unsigned long long offset;
    int count, tensor;
} learn_piece;

/* Of the device alone; collect reads it. */
typedef struct learn_state {
    double loss[RD_TASKS], entropy;
    unsigned long long right[RD_TASKS];
    long long steps, averaged;
    double norm;
    float clip;               /* factor of the gradient */
    float correct1, correct2; /* AdamW's */
    float mean_by;            /* of the step's weights in the mean; 0: they do not count */
    int skip;                 /* this step changes nothing */
    int bad_loss;             /* since the last step */
    int bad_tensor; /* of the first bad step, -1: its loss; meaningful where bad_step is not 0 */
    long long bad_step; /* 0: none since the last collect */
} learn_state;

typedef struct learn_group { /* matrices of one shape, for Muon */
    int rows, cols, count;
    size_t at; /* into the scratch of all matrices */
} learn_group;

typedef struct learn_matrix { /* one of Muon's */
    unsigned long long offset, at;
    int size, tensor, first_piece, pieces; /* pieces in l->muon_piece */
    float rate;                            /* 0.2 sqrt(longer side) */
    int unused;
} learn_matrix;

struct rd_learner {
    const rd_params *p;
    rd_learner_options o;
    char text[256]; /* describe */
    double peak;
    cudaStream_t stream;
    learn_blas cublas;
    cublasHandle_t blas;
    rd_error failed; /* the first failure of the pass under way */

    /* shape */
    int hidden, heads, kv, dim, half, vocab, layers, experts, top, width, room, slots;
    float eps;

    unsigned char *arena;
    size_t arena_bytes;
    void *workspace; /* cuBLAS' */
    size_t workspace_bytes;

    float *w, *grad, *moment[2], *mean; /* [size] */
    bf16 *half_w;                       /* [size] what products read */
    bool see_rounded, stale;            /* half_w is older than w */

    learn_layer *layer;
    float *x_last; /* [rows, hidden] */
    bf16 *f, *df;  /* labelled rows: [rows, hidden] */
    float *f_inv;  /* [rows] */
    float *logits; /* [LEARN_CHUNK, vocab] */
    bf16 *dlogits; /* [LEARN_CHUNK, vocab] */
    float *surprise,
        *sure; /* [rows] loss, entropy of the labelled rows, by their place in the list */
    int *best; /* [rows], by row; -1 */
    float *turn, *cosine, *sine;          /* [half]; [rows, half] */
    float *dx;                            /* [rows, hidden] */
    bf16 *dxb;                            /* the same in bf16 */
    bf16 *wide, *wide2;                   /* [rows, widest] */
    bf16 *h;                              /* [rows, widest dense] */
    bf16 *eh, *deh, *dmx;                 /* [slots, width], [slots, width], [slots, hidden] */
    bf16 *dqkv;                           /* [rows, (heads + 2 kv) dim] */
    float *delta;                         /* [heads][rows] */
    float *dchosen;                       /* [rows, top_k] gradient of the chosen logits */
    bf16 *dlogit;                         /* [rows, experts] */
    int *fill;                            /* [experts] rows of the pack */
    float *parts;                         /* [LEARN_PARTS, widest vector] */
    float *token_parts;                   /* partial sums of the embedding's gradient */
    unsigned long long *load, *load_step; /* [layers, experts] since the last collect, step */

    learn_state *state;
    learn_piece *piece; /* all tensors */
    double *squares;    /* [pieces] */
    int pieces;
    int *adam_piece; /* [adam_pieces] into piece */
    int adam_pieces;
    unsigned char *tensor_kind; /* [count] rd_param_kind */
    learn_matrix *matrix;
    int matrices, muon_pieces;
    learn_piece *muon_piece; /* offset into w; tensor: index into matrix */
    double *muon_squares;
    size_t muon_size;
    float *mx; /* [muon_size] */
    bf16 *mxb;
    float *gram, *square; /* the largest group's */
    bf16 *gram_b, *poly_b;
    learn_group *group; /* host */
    int groups;
    unsigned long long *row_offset; /* round: [row_count] offset of each matrix row */
    int *row_cols;
    int row_count;

    unsigned char *pack_room; /* on the device */
    size_t pack_bytes;
    unsigned char *pinned[LEARN_BUFFERS];
    cudaEvent_t copied[LEARN_BUFFERS];
    bool copying[LEARN_BUFFERS];
    int next;
    learn_state *state_host; /* pinned */
    int *best_host;

    /* The host's part of the sums since the last collect. */
    double weight[RD_TASKS], flops;
    int64_t labels[RD_TASKS];
    int64_t *load_out;
};

typedef enum learn_count { LEARN_COUNT_NONE, LEARN_COUNT_SUMS, LEARN_COUNT_STEP } learn_count;

/* ---- help (learn.cu) ---- */

/* The first failure of a pass stays in l->failed, with `what`. */
CUDA_LOCAL void learn_check(rd_learner *l, cudaError_t e, const char *what);
CUDA_LOCAL rd_status learn_failure(const rd_learner *l, rd_error *err);
/* After launches of `what`. */
CUDA_LOCAL void learn_launched(rd_learner *l, const char *what);
/* Row-major C [m, n] = op(A) op(B) + beta C, bf16 in, sums in float32; `f32`: C is float, else bf16. */
CUDA_LOCAL void learn_gemm(rd_learner *l, bool ta, bool tb, int m, int n, int k, const bf16 *a,
                           int lda, const bf16 *b, int ldb, float beta, void *c, bool f32, int ldc);
/* The same `count` times with fixed strides, C float. */
CUDA_LOCAL void learn_gemm_many(rd_learner *l, bool ta, bool tb, int m, int n, int k, const bf16 *a,
                                int lda, const bf16 *b, int ldb, float beta, float *c, int ldc,
                                int count);

static inline int learn_blocks(size_t n, int by)
{
    return (int)((n + (size_t)by - 1) / (size_t)by);
}

static inline int learn_dense_width(const rd_learner *l, int i)
{
    const rd_model_config *c = &l->p->config;

    return l->p->layer[i].moe ? c->moe_intermediate_size * c->num_shared_experts
                              : c->intermediate_size;
}

static inline int learn_qkv(const rd_learner *l)
{
    return (l->heads + 2 * l->kv) * l->dim;
}

/* ---- learn_memory.cu ---- */

/* Device memory and pinned buffers for l->room rows. RD_NO_MEMORY says how much was needed and is free. */
CUDA_LOCAL rd_status learn_get_memory(rd_learner *l, rd_error *err);

/* ---- learn_pack.cu ---- */

/* Bytes that the largest pack needs. */
CUDA_LOCAL size_t learn_pack_bytes(int rows);
/* Rows of partial sums that the embedding's gradient needs at most. */
CUDA_LOCAL int learn_token_parts(int rows);
CUDA_LOCAL rd_status learn_pack_check(const rd_learner *l, const rd_train_row *row, int n,
                                      rd_error *err);
/* Fill a pinned buffer and send it. Counts flops, labels and weights where `count` says so. */
CUDA_LOCAL void learn_pack_send(rd_learner *l, const rd_train_row *row, int n, float scale,
                                bool backward, learn_count count, learn_pack *out);

/* ---- learn_pass.cu ---- */

CUDA_LOCAL void learn_run(rd_learner *l, const learn_pack *p, bool backward, learn_count count);

/* ---- learn_rows.cu ---- */

typedef struct learn_norm { /* x = before (or the embedding) + branch + experts; out = its norm */
    float *x;               /* [rows, hidden], or NULL: `before` is the row */
    const float *before;
    const bf16 *table; /* instead of before */
    const rd_train_row *row;
    const bf16 *branch; /* or NULL */
    const bf16 *y;      /* of the experts, or NULL */
    const int *slot;
    const float *share;
    int top;
    bf16 *out; /* or NULL: no norm */
    float *inv;
    const float *weight;
    float eps;
    int rows, hidden;
    const int *list; /* rows are list[i] of `before`, or NULL */
} learn_norm;

CUDA_LOCAL void learn_norm_rows(rd_learner *l, const learn_norm *a);

typedef struct
    learn_norm_back { /* dx += the gradient through the norm of branch + experts + router */
    float *dx;
    bf16 *dxb;          /* its copy */
    const bf16 *branch; /* [rows, hidden] gradient of the norm's output, or NULL */
    const bf16 *dmx;    /* of the experts, or NULL */
    const int *slot, *chosen;
    const float *dchosen, *router;
    int top;
    const float *x, *inv, *weight;
    float *grad; /* of the weight */
    int rows, hidden;
    const int *list; /* dx and x have rows list[i], or NULL */
} learn_norm_back;

CUDA_LOCAL void learn_norm_rows_back(rd_learner *l, const learn_norm_back *a);
/* h = silu(g) u of gu [rows, 2 width]; `used`: rows are at most *used (on the device), or NULL. */
CUDA_LOCAL void learn_gate(rd_learner *l, bf16 *h, const bf16 *gu, int rows, int width,
                           const int *used);
/* gu becomes its gradient from share * dh, h is computed again, times share; share NULL: 1. */
CUDA_LOCAL void learn_gate_back(rd_learner *l, bf16 *h, bf16 *gu, const bf16 *dh,
                                const float *share, int rows, int width, const int *used);
CUDA_LOCAL void learn_embed_back(rd_learner *l, const learn_pack *p);
/* out[c] += the sum over parts of parts[part, c], in order. */
CUDA_LOCAL void learn_sum_parts(rd_learner *l, float *out, const float *parts, int n, int cols,
                                int ld);

/* ---- learn_turn.cu ---- */

CUDA_LOCAL void learn_turns(rd_learner *l, const learn_pack *p);
CUDA_LOCAL void learn_split(rd_learner *l, const learn_layer *y, const rd_layer_params *at,
                            int rows);
CUDA_LOCAL void learn_split_back(rd_learner *l, const learn_layer *y, const rd_layer_params *at,
                                 int rows);

/* ---- learn_attend.cu, learn_attend_back.cu ---- */

CUDA_LOCAL void learn_attend(rd_learner *l, const learn_layer *y, const learn_pack *p);
/* do_ [rows, heads dim]; fills l->dqkv with the gradients of turned queries, turned keys and values. */
CUDA_LOCAL void learn_attend_back(rd_learner *l, const learn_layer *y, const learn_pack *p,
                                  const bf16 *do_);
CUDA_LOCAL void learn_attend_allow(rd_learner *l);
CUDA_LOCAL void learn_attend_back_allow(rd_learner *l);

/* ---- learn_moe.cu ---- */

CUDA_LOCAL void learn_route(rd_learner *l, int layer, int rows, learn_count count);
/* From l->dx: l->dchosen, the router's gradient. */
CUDA_LOCAL void learn_route_back(rd_learner *l, int layer, int rows);

/* ---- learn_group.cu ---- */

typedef struct learn_product { /* for each expert: C = A B; form in the function's name */
    const bf16 *a, *b;
    int lda, ldb, ldc;
    size_t stride;            /* of the experts' matrices: B, or C of _weigh */
    const int *a_row, *b_row; /* slot to row, or NULL: the slot itself */
    void *c;
    int m, n, k;
    const int *start, *tile;
} learn_product;

/* C[slot, n] = sum over k of A[row, k] W_e[n, k]. */
CUDA_LOCAL void learn_group_times(rd_learner *l, const learn_product *g);
/* C[slot, n] = sum over k of A[row, k] W_e[k, n]. */
CUDA_LOCAL void learn_group_times_back(rd_learner *l, const learn_product *g);
/* C_e[m, n] += sum over the expert's slots of A[row, m] B[row, n]; float. */
CUDA_LOCAL void learn_group_weigh(rd_learner *l, const learn_product *g);
CUDA_LOCAL void learn_group_allow(rd_learner *l);

/* ---- learn_head.cu ---- */

CUDA_LOCAL void learn_head(rd_learner *l, const learn_pack *p, bool backward, learn_count count);

/* ---- learn_optimizer.cu, learn_muon.cu ---- */

CUDA_LOCAL void learn_round(rd_learner *l,
                            float *out);      /* [size] float, as rd_params_round_int8; tests */
CUDA_LOCAL void learn_refresh(rd_learner *l); /* half_w from w, where stale */
CUDA_LOCAL void learn_optimize(rd_learner *l, float lr, bool average);
CUDA_LOCAL void learn_muon(rd_learner *l, float lr);
/* Tables of pieces, rows and matrices: counts first, then, with memory, their contents. */
CUDA_LOCAL void learn_tables_count(rd_learner *l);
CUDA_LOCAL rd_status learn_tables_fill(rd_learner *l, rd_error *err);

#endif
