/* state.h - what the runtime's files share: the lock, errors and faults, memory, queues of work, captures. Theirs alone. */
#ifndef RD_EMULATOR_STATE_H
#define RD_EMULATOR_STATE_H

#include "tests/plugins/cuda/emulator/control.h"
#include "tests/plugins/cuda/emulator/runtime.h"

#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

typedef std::function<void()> rd_emulated_work;

/* ---- the lock, errors, faults (device.cpp) ---- */

struct RD_EMULATED_LOCAL rd_emulated_lock {
    rd_emulated_lock();
    ~rd_emulated_lock();
};

/* Notes `e` as the thread's last error, and gives it back. */
RD_EMULATED_LOCAL cudaError_t rd_emulated_error(cudaError_t e);
/* The same with a line on stderr that says why. */
RD_EMULATED_LOCAL cudaError_t rd_emulated_refuse(cudaError_t e, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* cudaSuccess, or why the device is lost. */
RD_EMULATED_LOCAL cudaError_t rd_emulated_lost(void);
/* Counts a call; the error that a test wants of it, or cudaSuccess. Loses the device where the code says so. */
RD_EMULATED_LOCAL cudaError_t rd_emulated_fault(rd_emulated_call call);
/* cudaSuccess, or what a call says at once: the device is lost, or this call shall fail. */
RD_EMULATED_LOCAL cudaError_t rd_emulated_begin(rd_emulated_call call);

/* ---- memory (device.cpp) ---- */

enum rd_emulated_kind { MEMORY_PAGEABLE, MEMORY_PINNED, MEMORY_DEVICE };

/* What `bytes` at `p` are: `whole` says whether all of them are of one allocation. */
RD_EMULATED_LOCAL rd_emulated_kind rd_emulated_kind_of(const void *p, size_t bytes, bool *whole);
/* Ends the program if somebody wrote before or behind an allocation; `who` did last what may have. */
RD_EMULATED_LOCAL void rd_emulated_check_edges(const char *who);
/* Whether a dry device does work on so many bytes; 0: of a kernel. */
RD_EMULATED_LOCAL bool rd_emulated_does(size_t bytes);
/* While work runs, device memory may be touched; else, under the address sanitizer, not. */
RD_EMULATED_LOCAL void rd_emulated_touchable(bool is);

/* ---- queues (stream.cpp) ---- */

struct rd_emulated_queue;

struct rd_emulated_after {
    std::shared_ptr<rd_emulated_queue> queue;
    uint64_t until;
};

struct rd_emulated_item {
    rd_emulated_work work;
    std::vector<rd_emulated_after> after;
};

struct rd_emulated_capture;

struct rd_emulated_queue {
    std::deque<rd_emulated_item> items;
    uint64_t added = 0, done = 0;
    bool blocking = true; /* in order with the NULL stream */
    std::shared_ptr<rd_emulated_capture> capture;
    uint64_t
        captured = 0,
        joined =
            0; /* a stream that a capture was forked to: 1 and its nodes; how many are waited for */
};

struct rd_emulated_stream {
    std::shared_ptr<rd_emulated_queue> queue;
};

struct rd_emulated_event {
    std::shared_ptr<rd_emulated_queue> queue; /* where it was recorded last; empty: nowhere */
    uint64_t until = 0;
    double ms = 0;
    bool timed = true;
    std::shared_ptr<rd_emulated_capture> capture;
    uint64_t captured = 0;
};

/* The queue of a stream, NULL included; empty if there is no such stream. */
RD_EMULATED_LOCAL std::shared_ptr<rd_emulated_queue> rd_emulated_queue_of(cudaStream_t s);
/* Adds work to a stream, or to what is captured of it. */
RD_EMULATED_LOCAL cudaError_t rd_emulated_add(cudaStream_t s, rd_emulated_work work);
/* Runs a queue until so many of its items are done. */
RD_EMULATED_LOCAL void rd_emulated_drain(rd_emulated_queue *q, uint64_t until);
RD_EMULATED_LOCAL void rd_emulated_drain_all(void);

/* ---- captures (graph.cpp) ---- */

struct rd_emulated_capture {
    std::vector<rd_emulated_work> nodes;
    rd_emulated_queue *origin;
    std::vector<std::shared_ptr<rd_emulated_queue>>
        members; /* all streams in it, the origin first */
    cudaStreamCaptureMode mode;
    std::thread::id thread;
    bool invalid = false;
};

/* A call that no capture allows. cudaSuccess, or cudaErrorStreamCaptureUnsupported, and the capture is spoilt. */
RD_EMULATED_LOCAL cudaError_t rd_emulated_unsafe(const char *call);
/* Work on the NULL stream, which waits for every blocking stream: may not be while one of these is captured. */
RD_EMULATED_LOCAL cudaError_t rd_emulated_implicit(const char *call);
/* A wait for a stream: may not be while that one is captured. */
RD_EMULATED_LOCAL cudaError_t rd_emulated_captured(rd_emulated_queue *q, const char *call);

#endif
