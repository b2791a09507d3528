/* bench.h - what a benchmark found, and how it is printed. */
#ifndef RD_TOOLS_BENCH_H
#define RD_TOOLS_BENCH_H

#include "core/backend.h"

#include <stdbool.h>
#include <stddef.h>

enum { RD_BENCH_PASSES = 64, RD_BENCH_PREFILLS = 4 };

typedef struct rd_bench_time {
    double median_ms, min_ms;
    int runs;
} rd_bench_time;

/* What a part of a pass must read, and multiply and add (counted apart): from the shape and the experts met. */
typedef struct rd_bench_work {
    double bytes, ops;
} rd_bench_work;

typedef struct rd_bench_pass {
    int context, rows;
    double experts; /* distinct, met in a layer: the mean over layers; 0: no layer has experts */
    rd_bench_time time;
    rd_bench_work dense; /* what every row goes through, the head too */
    rd_bench_work experts_work;
    rd_bench_work attention; /* keys and values; in bf16 whatever the weights are */
} rd_bench_pass;

typedef struct rd_bench_prefill {
    int tokens;
    rd_bench_time time;
} rd_bench_prefill;

typedef struct rd_bench {
    const char *shape, *backend, *isa, *weights;
    bool int8; /* weights are multiplied in int8, not bf16 */
    int layers, threads;
    rd_bench_pass passes[RD_BENCH_PASSES];
    int n_passes;
    rd_bench_prefill prefills[RD_BENCH_PREFILLS];
    int n_prefills;
    rd_bench_time head;
    int head_rows;
    struct {
        int tokens, forwards, context;
        rd_bench_time time;
    } decode;
    rd_ceilings ceilings; /* 0 where not measured */
    double load_ms, held_mb, peak_rss_mb;
} rd_bench;

/* The least time of a pass at the ceilings: of each phase the slower of reading and multiplying, and their sum, for one
 * phase's reads wait for the one before. What fits the last cache is not held against memory. 0: no ceiling is known. */
double rd_bench_floor_ms(const rd_bench *b, const rd_bench_pass *p);
void rd_bench_print_json(const rd_bench *b);
void rd_bench_print(const rd_bench *b);

#endif
