/* control.h - what a test may set of the emulated GPU, and what it may ask. Plain C.
 *
 * Everything is one state for the process. In a plugin that is loaded as a shared library it is out of reach but for the
 * environment: RD_EMULATED_ORDER (a seed), RD_EMULATED_MEMORY (bytes), RD_EMULATED_PROCESSORS, RD_EMULATED_CAPABILITY (90), and
 * RD_EMULATED_FAIL, "CALL NTH ERROR" as in rd_emulated_fail: CALL is malloc, launch, run, copy or graph. Where the
 * environment is not passed on, as to the daemon, a file `emulated-fail` beside the library says the same.
 */
#ifndef RD_EMULATOR_CONTROL_H
#define RD_EMULATOR_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Calls that can be made to fail. Codes that lose a real device (illegal address, launch failure ...) lose this one: every
 * later call says the same. */
typedef enum rd_emulated_call {
    RD_EMULATED_MALLOC,      /* cudaMalloc */
    RD_EMULATED_HOST_ALLOC,  /* cudaHostAlloc, cudaMallocHost */
    RD_EMULATED_LAUNCH,      /* a launch, at once; those that are captured too */
    RD_EMULATED_RUN,         /* a kernel as it runs: the call that waits for it says so */
    RD_EMULATED_COPY,        /* cudaMemcpy and its kin, at once */
    RD_EMULATED_CAPTURE,     /* cudaStreamEndCapture */
    RD_EMULATED_INSTANTIATE, /* cudaGraphInstantiate */
    RD_EMULATED_GRAPH,       /* cudaGraphLaunch */
    RD_EMULATED_STREAM,      /* making a stream or an event */
    RD_EMULATED_DEVICE,      /* cudaGetDeviceCount, cudaSetDevice, properties */
    RD_EMULATED_CUBLAS,      /* making a handle, or a product */
    RD_EMULATED_CALLS
} rd_emulated_call;

/* The `nth` such call from now (1: the next) fails with `error`, a cudaError_t; once, or, with `nth` negative, the -nth and
 * all behind it. 0: none. */
void rd_emulated_fail(rd_emulated_call call, int nth, int error);
/* How many such calls there were. */
uint64_t rd_emulated_count(rd_emulated_call call);

/* The order of threads and blocks: 0 as numbered, 1 the other way round, else shuffled by this seed. */
void rd_emulated_order(uint64_t seed);

/* The device's memory; what is held stays. Bytes held now by cudaMalloc; allocations of either kind alive. */
void rd_emulated_memory(size_t bytes);
size_t rd_emulated_held(void);
int rd_emulated_alive(void);
/* Dry: device memory is counted and has addresses, but no pages before somebody writes there; kernels do not run; copies and
 * memsets of more than 1 MB are not done. For what a large model would ask of a device. Before anything is opened. */
void rd_emulated_dry(bool dry);

/* What the device says of itself: capability 90 or 80, and multiprocessors. */
void rd_emulated_device(int capability, int processors);

/* A lost device is well again, no fault is set, counts are 0. Memory, streams and graphs stay. */
void rd_emulated_heal(void);

#ifdef __cplusplus
}
#endif

#endif
