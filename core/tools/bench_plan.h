/* bench_plan.h - what a benchmark was asked for, and the model that it opens for it. */
#ifndef RD_TOOLS_BENCH_PLAN_H
#define RD_TOOLS_BENCH_PLAN_H

#include "core/tools/bench.h"
#include "core/tools/shape.h"
#include "core/tools/tool.h"

enum { RD_BENCH_LIST = 16, RD_BENCH_CHUNK = 256 /* rows of a pass of prefill, at least */ };

/* What was asked for. */
typedef struct rd_bench_plan {
    const rd_backend *backend;
    rd_device_options device;
    const char *folder, *shape, *weights; /* folder: NULL for random weights */
    rd_model_config config;
    rd_pack scheme;   /* of random weights, or of the folder's; RD_PACK_NONE: not packed */
    int rows, repeat; /* repeat: 0 where not given */
    bool there;       /* random weights are made by the device where it can */
    int contexts[RD_BENCH_LIST], n_contexts;
    int experts[RD_BENCH_LIST], n_experts; /* 0: as the tokens fall */
} rd_bench_plan;

/* Weights lie in this machine's memory. */
bool rd_bench_on_host(const rd_bench_plan *p);
/* Lengths of prefill, up to RD_BENCH_PREFILLS; `most`: the longest context. */
int rd_bench_prefill_lengths(const rd_bench_plan *p, int most, int block, int *out);
/* Blocks of keys and values that the plan needs. */
int rd_bench_kv_blocks(const rd_bench_plan *p);
/* The model of the plan. `weights` outlives it; clear them also on failure. RD_NO_MEMORY where it would not fit. */
rd_status rd_bench_open_model(const rd_bench_plan *p, const rd_model_options *o,
                              rd_random_weights *weights, rd_model **out, rd_error *err);
/* redraft bench --check; the exit status. */
int rd_bench_check(const rd_args *a, const rd_bench_plan *p);

#endif
