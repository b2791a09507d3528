/* emulator.h - a GPU on the CPU: what gpu.cuh includes instead of the CUDA toolkit where RD_EMULATED is set.
 *
 * The .cu files of plugins/cuda then compile as C++17 and run with the semantics of the real thing, so that kernels are
 * proved where no GPU is. Not a simulator of speed. It is stricter than hardware wherever hardware would get away with a
 * mistake: work is done as late as it may be, memory that nobody wrote is full of NaN, threads run in an order that a seed
 * chooses, and a barrier that some threads miss ends the program with the kernel's name.
 *
 *   words.h    CUDA's words, vector types and intrinsics
 *   numbers.h  conversions between formats
 *   threads.h  threads of a block as fibres; barriers, shuffles, tensor cores, asynchronous copies, launches
 *   runtime.h  the runtime API: memory, streams, events, graphs
 *   control.h  what a test may set: order, memory, faults
 *
 * Bounds: one block runs at a time and threads are never interrupted, so a kernel that spins on what another thread or block
 * writes never ends. Warp-wide operations take all threads of the warp. The arithmetic of tensor cores is float32
 * sums in the order of k; hardware orders and truncates otherwise.
 */
#ifndef RD_EMULATOR_H
#define RD_EMULATOR_H

#ifndef __cplusplus
#error "the emulator is C++"
#endif

#include "tests/plugins/cuda/emulator/words.h"

#include "tests/plugins/cuda/emulator/numbers.h"

#include "tests/plugins/cuda/emulator/runtime.h"

#include "tests/plugins/cuda/emulator/threads.h"

#endif
