/* graph.cpp - what is captured of a stream, and graphs made of it.
 *
 * A graph is the list of captured work in the order in which it came, which is an order that its dependencies allow. Work keeps its
 * arguments by value and addresses as they are, so a replay reads what is in memory then.
 */
#include "tests/plugins/cuda/emulator/state.h"

#include <algorithm>

typedef std::vector<rd_emulated_work> nodes;

struct rd_emulated_graph {
    std::shared_ptr<nodes> list;
};

struct rd_emulated_exec {
    std::shared_ptr<nodes> list;
};

static std::vector<std::shared_ptr<rd_emulated_capture>> captures; /* under way */

static cudaError_t spoil(rd_emulated_capture *c, cudaError_t e, const char *call)
{
    c->invalid = true;
    return rd_emulated_refuse(e, "%s while a stream is captured", call);
}

cudaError_t rd_emulated_unsafe(const char *call)
{
    for (auto &c : captures)
        if (c->mode == cudaStreamCaptureModeGlobal ||
            (c->mode == cudaStreamCaptureModeThreadLocal &&
             c->thread == std::this_thread::get_id()))
            return spoil(c.get(), cudaErrorStreamCaptureUnsupported, call);
    return cudaSuccess;
}

cudaError_t rd_emulated_implicit(const char *call)
{
    for (auto &c : captures)
        for (auto &member : c->members)
            if (member->blocking) return spoil(c.get(), cudaErrorStreamCaptureImplicit, call);
    return cudaSuccess;
}

cudaError_t rd_emulated_captured(rd_emulated_queue *q, const char *call)
{
    if (!q->capture) return cudaSuccess;
    return spoil(q->capture.get(), cudaErrorStreamCaptureUnsupported, call);
}

/* ---- captures ---- */

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
    rd_emulated_lock lock;
    std::shared_ptr<rd_emulated_queue> q = rd_emulated_queue_of(stream);
    std::shared_ptr<rd_emulated_capture> c;

    if (rd_emulated_lost()) return rd_emulated_error(rd_emulated_lost());
    if (!q) return rd_emulated_refuse(cudaErrorInvalidResourceHandle, "no such stream");
    if (!stream) return rd_emulated_error(cudaErrorStreamCaptureUnsupported);
    if (q->capture) return rd_emulated_error(cudaErrorIllegalState);
    c = std::make_shared<rd_emulated_capture>();
    c->origin = q.get();
    c->members.push_back(q);
    c->mode = mode;
    c->thread = std::this_thread::get_id();
    q->capture = c;
    q->captured = q->joined = 0;
    captures.push_back(c);
    return cudaSuccess;
}

static cudaError_t how_it_ended(const rd_emulated_capture *c)
{
    cudaError_t e = rd_emulated_begin(RD_EMULATED_CAPTURE);

    if (e) return e;
    if (c->invalid) return rd_emulated_error(cudaErrorStreamCaptureInvalidated);
    for (auto &member : c->members)
        if (member.get() != c->origin && member->joined < member->captured)
            return rd_emulated_error(cudaErrorStreamCaptureUnjoined);
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *out)
{
    rd_emulated_lock lock;
    std::shared_ptr<rd_emulated_queue> q = rd_emulated_queue_of(stream);
    std::shared_ptr<rd_emulated_capture> c;
    cudaError_t e;

    *out = nullptr;
    if (!q) return rd_emulated_refuse(cudaErrorInvalidResourceHandle, "no such stream");
    c = q->capture;
    if (!c) return rd_emulated_error(cudaErrorIllegalState);
    if (c->origin != q.get()) {
        c->invalid = true;
        return rd_emulated_error(cudaErrorStreamCaptureUnmatched);
    }
    if (c->mode != cudaStreamCaptureModeRelaxed && c->thread != std::this_thread::get_id())
        return rd_emulated_error(cudaErrorStreamCaptureWrongThread);
    e = how_it_ended(c.get());
    for (auto &member : c->members) member->capture = nullptr;
    captures.erase(std::find(captures.begin(), captures.end(), c));
    if (e) return e;
    *out = new rd_emulated_graph{ std::make_shared<nodes>(std::move(c->nodes)) };
    return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *out)
{
    rd_emulated_lock lock;
    std::shared_ptr<rd_emulated_queue> q = rd_emulated_queue_of(stream);

    if (!q) return rd_emulated_refuse(cudaErrorInvalidResourceHandle, "no such stream");
    *out = !q->capture            ? cudaStreamCaptureStatusNone
           : q->capture->invalid ? cudaStreamCaptureStatusInvalidated
                                 : cudaStreamCaptureStatusActive;
    return cudaSuccess;
}

/* ---- graphs ---- */

cudaError_t cudaGraphGetNodes(cudaGraph_t g, void *list, size_t *count)
{
    if (list) return rd_emulated_error(cudaErrorNotSupported);
    *count = g->list->size();
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t g)
{
    delete g;
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t g, unsigned long long)
{
    rd_emulated_lock lock;
    cudaError_t e = rd_emulated_begin(RD_EMULATED_INSTANTIATE);

    if (e) return e;
    *out = new rd_emulated_exec{ g->list };
    return cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t)
{
    rd_emulated_lock lock;

    return rd_emulated_error(rd_emulated_lost());
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    rd_emulated_lock lock;
    std::shared_ptr<nodes> list = exec->list;
    cudaError_t e = rd_emulated_begin(RD_EMULATED_GRAPH);

    if (e) return e;
    return rd_emulated_add(stream, [list] {
        for (const rd_emulated_work &work : *list)
            if (!rd_emulated_lost()) work();
    });
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    rd_emulated_lock lock;

    delete exec;
    return rd_emulated_error(rd_emulated_lost());
}
