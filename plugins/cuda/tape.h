/* tape.h - the commands of a pass, and the passes that were seen before as graphs.
 *
 * Two tapes are the same pass if their commands have the same functions and the same argument bytes, and their parameters
 * the same size. Knows nothing of CUDA but the type of a graph; the host runs it alone in tests.
 */
#ifndef RD_CUDA_TAPE_H
#define RD_CUDA_TAPE_H

#include "plugins/cuda/device.h"

typedef struct cuda_command {
    cuda_run run;
    size_t at, bytes; /* arguments, in cuda_tape.args */
} cuda_command;

enum { CUDA_GRAPHS = 32 }; /* passes kept; the least recently used goes first */

typedef struct cuda_graph {
    cuda_command *command;
    int commands;
    unsigned char *args;
    size_t args_bytes, params_bytes;
    cudaGraphExec_t exec;
    uint64_t used; /* when, in passes */
} cuda_graph;

typedef struct cuda_tape {
    bool open; /* between begin and end */
    bool cut;  /* what was recorded ran in part already: no graph of the rest */
    int rows;
    cuda_command *command;
    int commands, commands_most;
    unsigned char *args;
    size_t args_bytes, args_most;
    cuda_graph graph[CUDA_GRAPHS];
    int graphs;
    uint64_t seen[CUDA_GRAPHS * 4]; /* what ran once, by a hash, in a ring */
    unsigned seen_at;
    uint64_t passes;
    int64_t captured, replayed, launched; /* passes by how they ran: for describe and tests */
} cuda_tape;

CUDA_LOCAL void cuda_tape_begin(cuda_tape *t, int rows);
CUDA_LOCAL void cuda_tape_add(cuda_tape *t, cuda_run run, const void *args, size_t bytes);
/* The graph of a pass that is the same as what is recorded now, or NULL. */
CUDA_LOCAL cuda_graph *cuda_tape_find(cuda_tape *t, size_t params_bytes);
/* Whether a pass with this content ran before; it counts as run from now on. A hash decides: a false yes costs time. */
CUDA_LOCAL bool cuda_tape_seen(cuda_tape *t, size_t params_bytes);
/* A place for a graph of what is recorded now; `*old` is a graph that had to go, or NULL. */
CUDA_LOCAL cuda_graph *cuda_tape_keep(cuda_tape *t, size_t params_bytes, cudaGraphExec_t *old);
/* No graphs any more; the caller destroyed their execs. */
CUDA_LOCAL void cuda_tape_forget(cuda_tape *t);
/* Frees all but the execs. */
CUDA_LOCAL void cuda_tape_clear(cuda_tape *t);

#endif
