/* fibre.h - what the scheduler of fibres (fibre.cpp) and the operations of a warp (warp.cpp) share. Theirs alone. */
#ifndef RD_EMULATOR_FIBRE_H
#define RD_EMULATOR_FIBRE_H

#include "tests/plugins/cuda/emulator/numbers.h"
#include "tests/plugins/cuda/emulator/threads.h"

#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#define RD_EMULATED_ASAN 1
#else
#define RD_EMULATED_ASAN 0
#endif

enum rd_emulated_state { FIBRE_READY, FIBRE_AT_BLOCK, FIBRE_AT_WARP, FIBRE_DONE };

enum rd_emulated_op { OP_SYNC, OP_SHUFFLE, OP_BALLOT, OP_MMA, OP_LDMATRIX };

/* A cp.async under way. */
struct rd_emulated_copy {
    void *to;
    const void *from;
    int bytes, group;
};

struct rd_emulated_warp;

struct rd_emulated_fibre {
    uint3 thread;
    int index, lane;
    rd_emulated_warp *warp;
    rd_emulated_state state;
    rd_emulated_site site; /* where it waits */
    void *sp, *stack;      /* saved stack pointer; lowest usable byte of its stack */
    void *fake;            /* the address sanitizer's */

    /* What it brings to an operation of the warp, and takes from it. */
    uint64_t value;
    int by, width;
    const uint32_t *a, *b;
    float *c;
    uint32_t *r;
    const void *row;

    std::vector<rd_emulated_copy> copies;
    int groups; /* committed */
};

struct rd_emulated_warp {
    rd_emulated_fibre *lane[32];
    int lanes, arrived;
    rd_emulated_op op; /* of the first to arrive, as are these */
    int kind;
    unsigned mask;
    rd_emulated_site site;
};

/* The running fibre stops until others make it ready. */
RD_EMULATED_LOCAL void rd_emulated_give_way(void);
RD_EMULATED_LOCAL void rd_emulated_make_ready(rd_emulated_fibre *f);
RD_EMULATED_LOCAL const char *rd_emulated_op_name(rd_emulated_op op);

/* What memory is full of before somebody writes: NaN as float, bf16 and f16, far below zero as an int. */
enum { RD_EMULATED_POISON = 0xffcd };
RD_EMULATED_LOCAL void rd_emulated_poison(void *at, size_t bytes);

/* The order of threads and blocks; see control.h. */
RD_EMULATED_LOCAL extern uint64_t rd_emulated_seed;

#endif
