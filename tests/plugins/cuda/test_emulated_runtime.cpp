/* test_emulated_runtime.cpp - the emulated GPU's runtime: lateness of streams, order by events, graphs and captures, memory,
 * limits of a launch, faults that a test sets, products of cuBLAS.
 */
#include "plugins/cuda/gpu.cuh"
#include "tests/plugins/cuda/emulator/control.h"
#include "tests/plugins/cuda/emulator/cublas_v2.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <csignal>
#include <vector>

#define OK(call) cr_assert(eq(int, call, cudaSuccess), #call)
#define FAILS(code, call) cr_assert(eq(int, call, code), #call)

static int *pinned(int n)
{
    int *p = nullptr;

    OK(cudaHostAlloc(&p, (size_t)n * sizeof *p, cudaHostAllocMapped));
    memset(p, 0, (size_t)n * sizeof *p);
    return p;
}

static int *device(int n)
{
    int *p = nullptr;

    OK(cudaMalloc(&p, (size_t)n * sizeof *p));
    return p;
}

static cudaStream_t stream(void)
{
    cudaStream_t s = nullptr;

    OK(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking));
    return s;
}

static __global__ void increase(int *x, int by)
{
    x[threadIdx.x] += by;
}

static __global__ void use_shared(int *x)
{
    RD_DYNAMIC_SHARED(int, room);

    room[0] = 1;
    x[0] = room[0];
}

/* ---- streams ---- */

Test(emulated_runtime, nothing_shows_before_somebody_waits)
{
    cudaStream_t s = stream();
    int *x = pinned(1), *d = device(1);

    x[0] = 1;
    OK(cudaMemcpyAsync(d, x, sizeof *x, cudaMemcpyHostToDevice, s));
    RD_LAUNCH(increase, 1, 1, 0, s, d, 5);
    OK(cudaMemcpyAsync(x, d, sizeof *x, cudaMemcpyDeviceToHost, s));
    OK(cudaGetLastError());
    cr_assert(eq(int, x[0], 1));
    FAILS(cudaErrorNotReady, cudaStreamQuery(s));
    OK(cudaStreamSynchronize(s));

    cr_assert(eq(int, x[0], 6));
    OK(cudaStreamQuery(s));
}

Test(emulated_runtime, an_event_orders_two_streams)
{
    cudaStream_t a = stream(), b = stream();
    cudaEvent_t e;
    int *x = pinned(1);

    OK(cudaEventCreateWithFlags(&e, cudaEventDisableTiming));
    RD_LAUNCH(increase, 1, 1, 0, a, x, 1);
    OK(cudaEventRecord(e, a));
    RD_LAUNCH(increase, 1, 1, 0, a, x, 100);
    OK(cudaStreamWaitEvent(b, e, 0));
    OK(cudaStreamSynchronize(b));
    cr_assert(eq(int, x[0], 1));
    OK(cudaStreamSynchronize(a));
    cr_assert(eq(int, x[0], 101));
    OK(cudaEventDestroy(e));
}

Test(emulated_runtime, the_null_stream_waits_for_blocking_ones)
{
    cudaStream_t blocking, other = stream();
    int *x = pinned(2), y = 0, *d = device(1);

    OK(cudaStreamCreate(&blocking));
    RD_LAUNCH(increase, 1, 1, 0, blocking, x, 1);
    RD_LAUNCH(increase, 1, 1, 0, other, x + 1, 1);
    OK(cudaMemset(d, 0, sizeof *d));
    OK(cudaMemcpy(&y, d, sizeof y, cudaMemcpyDeviceToHost));
    cr_assert(eq(int, x[0], 1));
    cr_assert(eq(int, x[1], 0));
    OK(cudaDeviceSynchronize());
    cr_assert(eq(int, x[1], 1));
}

static void note(void *context)
{
    ++*static_cast<int *>(context);
}

Test(emulated_runtime, host_functions_run_in_order)
{
    cudaStream_t s = stream();
    int n = 0;

    OK(cudaLaunchHostFunc(s, note, &n));
    cr_assert(eq(int, n, 0));
    OK(cudaStreamSynchronize(s));
    cr_assert(eq(int, n, 1));
}

Test(emulated_runtime, events_tell_time_that_has_passed)
{
    cudaStream_t s = stream();
    cudaEvent_t from, to;
    float ms = -1;

    OK(cudaEventCreate(&from));
    OK(cudaEventCreate(&to));
    OK(cudaEventRecord(from, s));
    OK(cudaEventRecord(to, s));
    FAILS(cudaErrorNotReady, cudaEventElapsedTime(&ms, from, to));
    OK(cudaEventSynchronize(to));
    OK(cudaEventElapsedTime(&ms, from, to));
    cr_assert(ms >= 0);
    OK(cudaEventDestroy(from));
    OK(cudaEventDestroy(to));
}

Test(emulated_runtime, rectangles_are_copied_row_by_row)
{
    cudaStream_t s = stream();
    int *x = pinned(12), *d = device(12);

    for (int i = 0; i < 12; i++) x[i] = i;
    OK(cudaMemset(d, 0, 48));
    OK(cudaDeviceSynchronize());
    OK(cudaMemcpy2DAsync(d + 1, 16, x, 12, 8, 3, cudaMemcpyHostToDevice, s));
    OK(cudaMemcpyAsync(x, d, 48, cudaMemcpyDeviceToHost, s));
    OK(cudaStreamSynchronize(s));

    for (int i = 0; i < 12; i++)
        cr_assert(eq(int, x[i], i % 4 == 1 || i % 4 == 2 ? i / 4 * 3 + i % 4 - 1 : 0));
}

/* ---- graphs ---- */

Test(emulated_runtime, a_graph_keeps_arguments_and_reads_memory_as_it_is)
{
    cudaStream_t s = stream();
    cudaGraph_t g;
    cudaGraphExec_t e;
    cudaStreamCaptureStatus status;
    int *x = pinned(1), *d = device(1), by = 10;

    OK(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal));
    OK(cudaStreamIsCapturing(s, &status));
    cr_assert(eq(int, status, cudaStreamCaptureStatusActive));
    OK(cudaMemcpyAsync(d, x, sizeof *x, cudaMemcpyHostToDevice, s));
    RD_LAUNCH(increase, 1, 1, 0, s, d, by);
    OK(cudaMemcpyAsync(x, d, sizeof *x, cudaMemcpyDeviceToHost, s));
    OK(cudaStreamEndCapture(s, &g));
    OK(cudaGraphInstantiate(&e, g, 0));
    OK(cudaGraphDestroy(g));
    by = 1000;
    OK(cudaStreamSynchronize(s));
    cr_assert(eq(int, x[0], 0));

    for (int i = 0; i < 3; i++) {
        x[0] += 100;
        OK(cudaGraphLaunch(e, s));
        cr_assert(eq(int, x[0], 110 * i + 100));
        OK(cudaStreamSynchronize(s));
    }

    cr_assert(eq(int, x[0], 330));
    OK(cudaGraphExecDestroy(e));
}

Test(emulated_runtime, a_second_stream_joins_a_capture_and_must_come_back)
{
    cudaStream_t a = stream(), b = stream();
    cudaEvent_t fork, back;
    cudaGraph_t g;
    size_t nodes = 0;
    int *x = pinned(2);

    OK(cudaEventCreate(&fork));
    OK(cudaEventCreate(&back));
    for (int comes_back = 0; comes_back < 2; comes_back++) {
        OK(cudaStreamBeginCapture(a, cudaStreamCaptureModeGlobal));
        OK(cudaEventRecord(fork, a));
        OK(cudaStreamWaitEvent(b, fork, 0));
        RD_LAUNCH(increase, 1, 1, 0, b, x, 1);
        RD_LAUNCH(increase, 1, 1, 0, a, x + 1, 1);
        OK(cudaEventRecord(back, b));
        if (comes_back) OK(cudaStreamWaitEvent(a, back, 0));
        FAILS(comes_back ? cudaSuccess : cudaErrorStreamCaptureUnjoined, cudaStreamEndCapture(a, &g));
    }
    OK(cudaGraphGetNodes(g, nullptr, &nodes));
    cr_assert(eq(sz, nodes, 2));
}

Test(emulated_runtime, what_a_capture_forbids_spoils_it)
{
    cudaStream_t s = stream();
    cudaStreamCaptureStatus status;
    cudaGraph_t g;
    int *x = pinned(1), *d = device(1), *more, pageable = 0;

    for (int i = 0; i < 7; i++) {
        cudaError_t e = cudaSuccess;

        OK(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal));
        switch (i) {
        case 0: e = cudaMalloc(&more, 4); break;
        case 1: e = cudaStreamSynchronize(s); break;
        case 2: e = cudaMemcpy(x, d, 4, cudaMemcpyDeviceToHost); break;
        case 3: e = cudaDeviceSynchronize(); break;
        case 4: e = cudaFree(d); break;
        case 5: e = cudaHostAlloc(&more, 4, 0); break;
        default: e = cudaMemcpyAsync(d, &pageable, 4, cudaMemcpyHostToDevice, s); break;
        }
        cr_assert(eq(int, e, cudaErrorStreamCaptureUnsupported), "call %d", i);
        OK(cudaStreamIsCapturing(s, &status));
        cr_assert(eq(int, status, cudaStreamCaptureStatusInvalidated));
        FAILS(cudaErrorStreamCaptureInvalidated,
              cudaMemcpyAsync(d, x, 4, cudaMemcpyHostToDevice, s));
        FAILS(cudaErrorStreamCaptureInvalidated, cudaStreamEndCapture(s, &g));
        cr_assert(zero(ptr, g));
        cudaGetLastError();
    }
    OK(cudaStreamIsCapturing(s, &status));
    cr_assert(eq(int, status, cudaStreamCaptureStatusNone));
    OK(cudaStreamSynchronize(s));
    OK(cudaFree(d));
}

Test(emulated_runtime, the_null_stream_may_not_depend_on_a_capture)
{
    cudaStream_t s;
    cudaGraph_t g;
    int *x = pinned(1);

    OK(cudaStreamCreate(&s));
    OK(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal));
    RD_LAUNCH(increase, 1, 1, 0, 0, x, 1);
    FAILS(cudaErrorStreamCaptureImplicit, cudaGetLastError());
    FAILS(cudaErrorStreamCaptureInvalidated, cudaStreamEndCapture(s, &g));
}

/* ---- memory ---- */

Test(emulated_runtime, device_memory_begins_as_nan)
{
    float *d, x[3];

    OK(cudaMalloc(&d, sizeof x));
    OK(cudaMemcpy(x, d, sizeof x, cudaMemcpyDeviceToHost));
    for (float y : x) cr_assert(isnan(y));
    OK(cudaFree(d));
}

Test(emulated_runtime, memory_runs_out)
{
    size_t free_bytes, total;
    char *a, *b;

    rd_emulated_memory(1000);
    OK(cudaMalloc(&a, 600));
    FAILS(cudaErrorMemoryAllocation, cudaMalloc(&b, 401));
    FAILS(cudaErrorMemoryAllocation, cudaGetLastError());
    OK(cudaGetLastError());
    OK(cudaMalloc(&b, 400));
    OK(cudaMemGetInfo(&free_bytes, &total));
    cr_assert(eq(sz, free_bytes, 0));
    cr_assert(eq(sz, total, 1000));
    OK(cudaFree(a));
    OK(cudaFree(b));
    cr_assert(eq(sz, rd_emulated_held(), 0));
    cr_assert(eq(int, rd_emulated_alive(), 0));
}

Test(emulated_runtime, copies_stay_within_allocations)
{
    int *d = device(4), x[8] = {};

    FAILS(cudaErrorInvalidValue, cudaMemcpy(d, x, 20, cudaMemcpyHostToDevice));
    FAILS(cudaErrorInvalidValue, cudaMemcpy(x, d + 1, 16, cudaMemcpyDeviceToHost));
    FAILS(cudaErrorInvalidValue, cudaMemcpy(x, d, 16, cudaMemcpyHostToDevice));
    FAILS(cudaErrorInvalidValue, cudaMemset(d, 0, 17));
}

static __global__ void write_at(volatile char *x, long at)
{
    x[at] = 1;
}

/* The address sanitizer's red zone or our known bytes: either ends the program. */
Test(emulated_runtime, a_write_behind_an_allocation_is_seen, .signal = SIGABRT)
{
    char *d;

    OK(cudaMalloc(&d, 100));
    RD_LAUNCH(write_at, 1, 1, 0, 0, d, 100l);
    cudaDeviceSynchronize();
}

Test(emulated_runtime, only_what_was_allocated_is_freed, .signal = SIGABRT)
{
    int *x = pinned(1);

    cudaFree(x);
}

/* ---- launches ---- */

Test(emulated_runtime, a_launch_has_limits)
{
    int *x = pinned(1024);
    static const struct {
        dim3 grid, block;
        size_t shared;
        cudaError_t e;
    } cases[] = {
        { 1, 1025, 0, cudaErrorInvalidConfiguration },
        { 1, dim3(2, 2, 65), 0, cudaErrorInvalidConfiguration },
        { 1, 0, 0, cudaErrorInvalidConfiguration },
        { 0, 1, 0, cudaErrorInvalidConfiguration },
        { dim3(1, 65536), 1, 0, cudaErrorInvalidConfiguration },
        { dim3(1, 1, 65536), 1, 0, cudaErrorInvalidConfiguration },
        { 1, 1, 49153, cudaErrorInvalidValue },
        { 1, 1, 49152, cudaSuccess },
        { dim3(3, 2), dim3(16, 8, 8), 0, cudaSuccess },
    };

    for (const auto &c : cases) {
        RD_LAUNCH(use_shared, c.grid, c.block, c.shared ? c.shared : 16, 0, x);
        FAILS(c.e, cudaGetLastError());
    }
    OK(cudaDeviceSynchronize());
}

Test(emulated_runtime, more_shared_memory_is_asked_for)
{
    int *x = pinned(1);

    FAILS(cudaErrorInvalidValue, RD_ALLOW_SHARED(use_shared, 232449));
    cudaGetLastError();
    OK(RD_ALLOW_SHARED(use_shared, 232448));
    RD_LAUNCH(use_shared, 1, 1, 232448, 0, x);
    OK(cudaGetLastError());
    OK(cudaDeviceSynchronize());
    cr_assert(eq(int, x[0], 1));
    rd_emulated_device(80, 108);
    FAILS(cudaErrorInvalidValue, RD_ALLOW_SHARED(use_shared, 232448));
}

/* ---- faults ---- */

Test(emulated_runtime, the_nth_call_fails)
{
    char *p;

    rd_emulated_fail(RD_EMULATED_MALLOC, 2, cudaErrorMemoryAllocation);
    OK(cudaMalloc(&p, 1));
    FAILS(cudaErrorMemoryAllocation, cudaMalloc(&p, 1));
    OK(cudaMalloc(&p, 1));
    rd_emulated_fail(RD_EMULATED_MALLOC, -2, cudaErrorMemoryAllocation);
    OK(cudaMalloc(&p, 1));
    FAILS(cudaErrorMemoryAllocation, cudaMalloc(&p, 1));
    FAILS(cudaErrorMemoryAllocation, cudaMalloc(&p, 1));
    cr_assert(eq(ulong, rd_emulated_count(RD_EMULATED_MALLOC), 6));
}

Test(emulated_runtime, a_lost_device_stays_lost)
{
    cudaStream_t s = stream();
    int *x = pinned(1), *d = device(1);

    rd_emulated_fail(RD_EMULATED_RUN, 2, cudaErrorIllegalAddress);
    for (int i = 0; i < 3; i++) RD_LAUNCH(increase, 1, 1, 0, s, x, 1);
    OK(cudaGetLastError());
    FAILS(cudaErrorIllegalAddress, cudaStreamSynchronize(s));
    cr_assert(eq(int, x[0], 1));
    RD_LAUNCH(increase, 1, 1, 0, s, x, 1);
    FAILS(cudaErrorIllegalAddress, cudaGetLastError());
    FAILS(cudaErrorIllegalAddress, cudaGetLastError());
    FAILS(cudaErrorIllegalAddress, cudaMemcpy(x, d, 4, cudaMemcpyDeviceToHost));
    FAILS(cudaErrorIllegalAddress, cudaMalloc(&d, 4));
    rd_emulated_heal();
    OK(cudaStreamSynchronize(s));
    cr_assert(eq(int, x[0], 1));
}

/* ---- cuBLAS ---- */

/* C = alpha op(A) op(B) + beta C, column-major, with leading dimensions that leave gaps; through a graph. */
static void check_gemm(cublasOperation_t ta, cublasOperation_t tb, cudaDataType type)
{
    enum { M = 5, N = 7, K = 9, LD = 11, BATCH = 2 };
    cublasHandle_t h;
    cudaStream_t s = stream();
    cudaGraph_t g;
    cudaGraphExec_t e;
    float alpha = 2, beta = -1, *c;
    std::vector<float> a(LD * LD * BATCH), b(LD * LD * BATCH);
    size_t bytes = type == CUDA_R_32F ? 4 : 2;
    char *da, *db;

    cr_assert(eq(int, cublasCreate(&h), CUBLAS_STATUS_SUCCESS));
    cr_assert(eq(int, cublasSetStream(h, s), CUBLAS_STATUS_SUCCESS));
    OK(cudaMallocHost(&da, a.size() * bytes));
    OK(cudaMallocHost(&db, b.size() * bytes));
    OK(cudaMallocHost(&c, a.size() * sizeof *c));
    for (size_t i = 0; i < a.size(); i++) {
        a[i] = (float)(rand() % 16 - 8);
        b[i] = (float)(rand() % 16 - 8);
        c[i] = (float)i;
        if (type == CUDA_R_32F) {
            reinterpret_cast<float *>(da)[i] = a[i];
            reinterpret_cast<float *>(db)[i] = b[i];
        } else {
            reinterpret_cast<uint16_t *>(da)[i] = type == CUDA_R_16BF ? gpu_bf16(a[i]) : gpu_f16(a[i]);
            reinterpret_cast<uint16_t *>(db)[i] = type == CUDA_R_16BF ? gpu_bf16(b[i]) : gpu_f16(b[i]);
        }
    }

    OK(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal));
    cr_assert(eq(int,
                 cublasGemmStridedBatchedEx(h, ta, tb, M, N, K, &alpha, da, type, LD, LD * LD, db,
                                            type, LD, LD * LD, &beta, c, CUDA_R_32F, LD, LD * LD,
                                            BATCH, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
                 CUBLAS_STATUS_SUCCESS));
    OK(cudaStreamEndCapture(s, &g));
    OK(cudaGraphInstantiate(&e, g, 0));
    alpha = 99;
    OK(cudaGraphLaunch(e, s));
    OK(cudaStreamSynchronize(s));

    for (int i = 0; i < BATCH; i++)
        for (int n = 0; n < LD; n++)
            for (int m = 0; m < LD; m++) {
                size_t at = (size_t)(i * LD * LD + n * LD + m);
                float sum = 0;

                for (int k = 0; k < K; k++)
                    sum += a[(size_t)(i * LD * LD + (ta ? m * LD + k : k * LD + m)) % a.size()] *
                           b[(size_t)(i * LD * LD + (tb ? k * LD + n : n * LD + k)) % b.size()];
                cr_assert(eq(flt, c[at], m < M && n < N ? 2 * sum - (float)at : (float)at));
            }
    cr_assert(eq(int, cublasDestroy(h), CUBLAS_STATUS_SUCCESS));
    OK(cudaGraphExecDestroy(e));
    OK(cudaGraphDestroy(g));
    OK(cudaFreeHost(da));
    OK(cudaFreeHost(db));
    OK(cudaFreeHost(c));
    OK(cudaStreamDestroy(s));
}

Test(emulated_runtime, cublas_multiplies_by_columns)
{
    for (cudaDataType type : { CUDA_R_32F, CUDA_R_16BF, CUDA_R_16F })
        for (cublasOperation_t ta : { CUBLAS_OP_N, CUBLAS_OP_T })
            for (cublasOperation_t tb : { CUBLAS_OP_N, CUBLAS_OP_T }) check_gemm(ta, tb, type);
}

Test(emulated_runtime, cublas_reads_no_old_numbers_where_beta_is_zero)
{
    cublasHandle_t h;
    float one = 1, zero = 0, x[1] = { 3 }, *d, *c;

    cr_assert(eq(int, cublasCreate(&h), CUBLAS_STATUS_SUCCESS));
    OK(cudaMalloc(&d, 4));
    OK(cudaMalloc(&c, 4));
    OK(cudaMemcpy(d, x, 4, cudaMemcpyHostToDevice));
    cr_assert(eq(int, cublasSgemm(h, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, &one, d, 1, d, 1, &zero, c, 1),
                 CUBLAS_STATUS_SUCCESS));
    OK(cudaMemcpy(x, c, 4, cudaMemcpyDeviceToHost));
    cr_assert(eq(flt, x[0], 9));
    cr_assert(eq(int, cublasSgemm(h, CUBLAS_OP_N, CUBLAS_OP_N, 2, 1, 1, &one, d, 2, d, 1, &zero, c, 2),
                 CUBLAS_STATUS_INVALID_VALUE));
    cr_assert(eq(int, cublasDestroy(h), CUBLAS_STATUS_SUCCESS));
}
