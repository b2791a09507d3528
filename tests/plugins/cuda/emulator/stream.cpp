/* stream.cpp - streams as queues that are emptied when somebody must know; copies, events and launches go through them.
 *
 * The NULL stream is CUDA's legacy one: its work comes behind that of every blocking stream, and theirs behind its.
 */
#include "tests/plugins/cuda/emulator/fibre.h"
#include "tests/plugins/cuda/emulator/state.h"

#include <chrono>
#include <map>
#include <set>

static struct {
    std::set<cudaStream_t> streams;
    std::shared_ptr<rd_emulated_queue> null = std::make_shared<rd_emulated_queue>();
    std::map<const void *, size_t> allowed; /* dynamic shared memory by kernel */
    int running;
} s;

/* ---- queues ---- */

std::shared_ptr<rd_emulated_queue> rd_emulated_queue_of(cudaStream_t stream)
{
    if (!stream) return s.null;
    return s.streams.count(stream) ? stream->queue : nullptr;
}

static std::vector<rd_emulated_after> tails(void)
{
    std::vector<rd_emulated_after> all;

    for (cudaStream_t stream : s.streams)
        if (stream->queue->blocking) all.push_back({ stream->queue, stream->queue->added });
    return all;
}

static void push(const std::shared_ptr<rd_emulated_queue> &q, rd_emulated_work work)
{
    rd_emulated_item item = { std::move(work), {} };

    if (q == s.null)
        item.after = tails();
    else if (q->blocking && s.null->done < s.null->added)
        item.after.push_back({ s.null, s.null->added });
    q->items.push_back(std::move(item));
    q->added++;
}

cudaError_t rd_emulated_add(cudaStream_t stream, rd_emulated_work work)
{
    std::shared_ptr<rd_emulated_queue> q = rd_emulated_queue_of(stream);
    cudaError_t e;

    if (rd_emulated_lost()) return rd_emulated_error(rd_emulated_lost());
    if (!q) return rd_emulated_refuse(cudaErrorInvalidResourceHandle, "no such stream");
    if (q->capture) {
        if (q->capture->invalid) return rd_emulated_error(cudaErrorStreamCaptureInvalidated);
        q->capture->nodes.push_back(std::move(work));
        q->captured++;
        return cudaSuccess;
    }
    if (!stream && (e = rd_emulated_implicit("work on the NULL stream"))) return e;
    push(q, std::move(work));
    return cudaSuccess;
}

static void run_until(rd_emulated_queue *q, uint64_t until)
{
    while (q->done < until) {
        rd_emulated_item item = std::move(q->items.front());

        q->items.pop_front();
        for (const rd_emulated_after &a : item.after) run_until(a.queue.get(), a.until);
        if (!rd_emulated_lost() && item.work) item.work();
        q->done++;
    }
}

void rd_emulated_drain(rd_emulated_queue *q, uint64_t until)
{
    if (q->done >= until) return;
    if (s.running++ == 0) rd_emulated_touchable(true);
    run_until(q, until);
    if (--s.running == 0) {
        rd_emulated_touchable(false);
        rd_emulated_check_edges("a copy");
    }
}

void rd_emulated_drain_all(void)
{
    for (cudaStream_t stream : s.streams)
        rd_emulated_drain(stream->queue.get(), stream->queue->added);
    rd_emulated_drain(s.null.get(), s.null->added);
}

/* ---- streams ---- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags)
{
    rd_emulated_lock lock;
    cudaError_t e = rd_emulated_begin(RD_EMULATED_STREAM);

    if (e) return e;
    *out = new rd_emulated_stream{ std::make_shared<rd_emulated_queue>() };
    (*out)->queue->blocking = !(flags & cudaStreamNonBlocking);
    s.streams.insert(*out);
    return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t *out)
{
    return cudaStreamCreateWithFlags(out, cudaStreamDefault);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    rd_emulated_lock lock;

    if (!s.streams.count(stream))
        return rd_emulated_refuse(cudaErrorInvalidResourceHandle, "no such stream to destroy");
    if (stream->queue->capture) stream->queue->capture->invalid = true;
    rd_emulated_drain(stream->queue.get(), stream->queue->added);
    s.streams.erase(stream);
    delete stream;
    return rd_emulated_error(rd_emulated_lost());
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    rd_emulated_lock lock;
    std::shared_ptr<rd_emulated_queue> q = rd_emulated_queue_of(stream);
    cudaError_t e;

    if (!q) return rd_emulated_refuse(cudaErrorInvalidResourceHandle, "no such stream");
    if ((e = rd_emulated_captured(q.get(), "cudaStreamSynchronize")) ||
        (e = rd_emulated_unsafe("cudaStreamSynchronize")))
        return e;
    rd_emulated_drain(q.get(), q->added);
    return rd_emulated_error(rd_emulated_lost());
}

/* Says "not yet" once where work waits, and does it then: who asks again is served. */
static cudaError_t query(rd_emulated_queue *q, uint64_t until)
{
    bool late = q->done < until;

    rd_emulated_drain(q, until);
    if (rd_emulated_lost()) return rd_emulated_error(rd_emulated_lost());
    return late ? cudaErrorNotReady : cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    rd_emulated_lock lock;
    std::shared_ptr<rd_emulated_queue> q = rd_emulated_queue_of(stream);
    cudaError_t e;

    if (!q) return rd_emulated_refuse(cudaErrorInvalidResourceHandle, "no such stream");
    if ((e = rd_emulated_captured(q.get(), "cudaStreamQuery"))) return e;
    return query(q.get(), q->added);
}

cudaError_t cudaDeviceSynchronize(void)
{
    rd_emulated_lock lock;
    cudaError_t e = rd_emulated_unsafe("cudaDeviceSynchronize");

    if (e) return e;
    rd_emulated_drain_all();
    return rd_emulated_error(rd_emulated_lost());
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void *context)
{
    rd_emulated_lock lock;

    return rd_emulated_add(stream, [=] {
        rd_emulated_touchable(false);
        function(context);
        rd_emulated_touchable(true);
    });
}

/* ---- events ---- */

static double now_ms(void)
{
    using namespace std::chrono;

    return duration<double, std::milli>(steady_clock::now().time_since_epoch()).count();
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned flags)
{
    rd_emulated_lock lock;
    cudaError_t e = rd_emulated_begin(RD_EMULATED_STREAM);

    if (e) return e;
    *out = new rd_emulated_event;
    (*out)->timed = !(flags & cudaEventDisableTiming);
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *out)
{
    return cudaEventCreateWithFlags(out, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    rd_emulated_lock lock;

    if (!e) return rd_emulated_error(cudaErrorInvalidResourceHandle);
    if (e->queue) rd_emulated_drain(e->queue.get(), e->until); /* which writes to it */
    delete e;
    return rd_emulated_error(rd_emulated_lost());
}

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t stream)
{
    rd_emulated_lock lock;
    std::shared_ptr<rd_emulated_queue> q = rd_emulated_queue_of(stream);
    cudaError_t error;

    if (!q) return rd_emulated_refuse(cudaErrorInvalidResourceHandle, "no such stream");
    if (e->queue) rd_emulated_drain(e->queue.get(), e->until);
    if (q->capture) {
        if (q->capture->invalid) return rd_emulated_error(cudaErrorStreamCaptureInvalidated);
        e->capture = q->capture;
        e->captured = q->captured;
        e->queue = q;
        e->until = 0;
        return cudaSuccess;
    }
    error = rd_emulated_add(stream, [e] { e->ms = now_ms(); });
    if (error) return error;
    e->capture = nullptr;
    e->queue = q;
    e->until = q->added;
    return cudaSuccess;
}

static cudaError_t join(const std::shared_ptr<rd_emulated_queue> &q, cudaEvent_t e)
{
    if (e->capture->invalid) return rd_emulated_error(cudaErrorStreamCaptureInvalidated);
    if (q->capture && q->capture != e->capture) {
        q->capture->invalid = e->capture->invalid = true;
        return rd_emulated_error(cudaErrorStreamCaptureIsolation);
    }
    if (!q->capture) {
        q->capture = e->capture;
        q->captured = 1;
        q->joined = 0;
        q->capture->members.push_back(q);
    }
    if (e->queue->joined < e->captured) e->queue->joined = e->captured;
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t e, unsigned)
{
    rd_emulated_lock lock;
    std::shared_ptr<rd_emulated_queue> q = rd_emulated_queue_of(stream);
    cudaError_t error;

    if (!q) return rd_emulated_refuse(cudaErrorInvalidResourceHandle, "no such stream");
    if (!e->queue) return cudaSuccess;
    if (e->capture) return join(q, e);
    if (q->capture) {
        q->capture->invalid = true;
        return rd_emulated_refuse(cudaErrorStreamCaptureIsolation,
                                  "a captured stream waits for an event that was not captured");
    }
    if ((error = rd_emulated_add(stream, nullptr))) return error;
    q->items.back().after.push_back({ e->queue, e->until });
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
    rd_emulated_lock lock;
    cudaError_t error = rd_emulated_unsafe("cudaEventSynchronize");

    if (error) return error;
    if (e->capture) return rd_emulated_error(cudaErrorCapturedEvent);
    if (e->queue) rd_emulated_drain(e->queue.get(), e->until);
    return rd_emulated_error(rd_emulated_lost());
}

cudaError_t cudaEventQuery(cudaEvent_t e)
{
    rd_emulated_lock lock;

    if (e->capture) return rd_emulated_error(cudaErrorCapturedEvent);
    return e->queue ? query(e->queue.get(), e->until) : cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float *out_ms, cudaEvent_t from, cudaEvent_t to)
{
    rd_emulated_lock lock;

    if (rd_emulated_lost()) return rd_emulated_error(rd_emulated_lost());
    if (!from->queue || !to->queue || !from->timed || !to->timed)
        return rd_emulated_error(cudaErrorInvalidResourceHandle);
    if (from->queue->done < from->until || to->queue->done < to->until) return cudaErrorNotReady;
    *out_ms = (float)(to->ms - from->ms);
    return cudaSuccess;
}

/* ---- copies ---- */

/* A rectangle of `height` rows of `width` bytes; a line is one row. */
struct rectangle {
    unsigned char *to;
    const unsigned char *from;
    size_t to_pitch, from_pitch, width, height;
};

static cudaError_t check_copy(const rectangle *r, enum cudaMemcpyKind kind, bool *snapshot,
                              bool *pageable)
{
    bool to_whole, from_whole;
    rd_emulated_kind to = rd_emulated_kind_of(
        r->to, r->height ? (r->height - 1) * r->to_pitch + r->width : 0, &to_whole);
    rd_emulated_kind from = rd_emulated_kind_of(
        r->from, r->height ? (r->height - 1) * r->from_pitch + r->width : 0, &from_whole);
    bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;

    if (r->height > 1 && (r->to_pitch < r->width || r->from_pitch < r->width))
        return rd_emulated_refuse(cudaErrorInvalidValue, "a copy whose rows overlap");
    if (!to_whole || !from_whole)
        return rd_emulated_refuse(cudaErrorInvalidValue,
                                  "a copy of %zu x %zu bytes leaves the allocation it %s",
                                  r->height, r->width, to_whole ? "reads" : "writes");
    if (kind != cudaMemcpyDefault &&
        ((to_device ? to == MEMORY_PAGEABLE : to == MEMORY_DEVICE) ||
         (from_device ? from == MEMORY_PAGEABLE : from == MEMORY_DEVICE)))
        return rd_emulated_refuse(cudaErrorInvalidValue,
                                  "a copy between memory of other kinds than it says");
    *snapshot = from == MEMORY_PAGEABLE;
    *pageable = to == MEMORY_PAGEABLE || from == MEMORY_PAGEABLE;
    return cudaSuccess;
}

static cudaError_t copy(rectangle r, enum cudaMemcpyKind kind, cudaStream_t stream)
{
    std::shared_ptr<std::vector<unsigned char>> taken;
    std::shared_ptr<rd_emulated_queue> q = rd_emulated_queue_of(stream);
    bool snapshot = false, pageable = false;
    cudaError_t e = rd_emulated_begin(RD_EMULATED_COPY);

    if (e) return e;
    if (r.width == 0 || r.height == 0) return cudaSuccess;
    if ((e = check_copy(&r, kind, &snapshot, &pageable))) return e;
    if (q && q->capture && pageable) {
        q->capture->invalid = true;
        return rd_emulated_refuse(cudaErrorStreamCaptureUnsupported,
                                  "a captured copy of pageable memory");
    }
    if (snapshot) {
        taken = std::make_shared<std::vector<unsigned char>>(r.width * r.height);
        for (size_t i = 0; i < r.height; i++)
            memcpy(taken->data() + i * r.width, r.from + i * r.from_pitch, r.width);
        r.from = taken->data();
        r.from_pitch = r.width;
    }
    return rd_emulated_add(stream, [r, taken] {
        if (!rd_emulated_does(r.width * r.height)) return;
        for (size_t i = 0; i < r.height; i++)
            memmove(r.to + i * r.to_pitch, r.from + i * r.from_pitch, r.width);
    });
}

static rectangle line(void *to, const void *from, size_t bytes)
{
    return { static_cast<unsigned char *>(to),
             static_cast<const unsigned char *>(from),
             bytes,
             bytes,
             bytes,
             1 };
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    rd_emulated_lock lock;

    return copy(line(to, from, bytes), kind, stream);
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                              size_t width, size_t height, enum cudaMemcpyKind kind,
                              cudaStream_t stream)
{
    rd_emulated_lock lock;

    return copy({ static_cast<unsigned char *>(to), static_cast<const unsigned char *>(from),
                  to_pitch, from_pitch, width, height },
                kind, stream);
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind)
{
    rd_emulated_lock lock;
    cudaError_t e = rd_emulated_unsafe("cudaMemcpy");

    if (e || (e = copy(line(to, from, bytes), kind, nullptr))) return e;
    rd_emulated_drain(s.null.get(), s.null->added);
    return rd_emulated_error(rd_emulated_lost());
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream)
{
    rd_emulated_lock lock;
    bool whole;
    cudaError_t e = rd_emulated_begin(RD_EMULATED_COPY);

    if (e) return e;
    if (!bytes) return cudaSuccess;
    if (rd_emulated_kind_of(to, bytes, &whole) == MEMORY_PAGEABLE || !whole)
        return rd_emulated_refuse(cudaErrorInvalidValue,
                                  "cudaMemset of %zu bytes outside of an allocation", bytes);
    return rd_emulated_add(stream, [=] {
        if (rd_emulated_does(bytes)) memset(to, value, bytes);
    });
}

cudaError_t cudaMemset(void *to, int value, size_t bytes)
{
    rd_emulated_lock lock;
    cudaError_t e = rd_emulated_unsafe("cudaMemset");

    return e ? e : cudaMemsetAsync(to, value, bytes, nullptr);
}

/* ---- launches ---- */

cudaError_t rd_emulated_allow_shared(const char *kernel, const void *function, size_t bytes)
{
    rd_emulated_lock lock;
    struct cudaDeviceProp p;
    cudaError_t e = cudaGetDeviceProperties(&p, 0);

    if (e) return e;
    if (bytes > p.sharedMemPerBlockOptin)
        return rd_emulated_refuse(cudaErrorInvalidValue, "%zu bytes of shared memory for %s", bytes,
                                  kernel);
    s.allowed[function] = bytes;
    return cudaSuccess;
}

static cudaError_t check_launch(const char *kernel, const void *function, dim3 grid, dim3 block,
                                size_t shared)
{
    auto allowed = s.allowed.find(function);
    size_t most = 49152;

    if (allowed != s.allowed.end() && allowed->second > most) most = allowed->second;
    if (!grid.x || !grid.y || !grid.z || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
        return rd_emulated_refuse(cudaErrorInvalidConfiguration, "%s: a grid of (%u, %u, %u)",
                                  kernel, grid.x, grid.y, grid.z);
    if (!block.x || !block.y || !block.z || block.x > 1024 || block.y > 1024 || block.z > 64 ||
        (uint64_t)block.x * block.y * block.z > 1024)
        return rd_emulated_refuse(cudaErrorInvalidConfiguration, "%s: a block of (%u, %u, %u)",
                                  kernel, block.x, block.y, block.z);
    if (shared > most)
        return rd_emulated_refuse(cudaErrorInvalidValue,
                                  "%s: %zu bytes of dynamic shared memory, of %zu allowed", kernel,
                                  shared, most);
    return cudaSuccess;
}

void rd_emulated_launch(const char *kernel, const void *function, dim3 grid, dim3 block,
                        size_t shared, cudaStream_t stream, std::function<void()> work)
{
    rd_emulated_lock lock;

    if (rd_emulated_begin(RD_EMULATED_LAUNCH)) return;
    if (check_launch(kernel, function, grid, block, shared)) return;
    rd_emulated_add(stream, [kernel, work] {
        if (rd_emulated_fault(RD_EMULATED_RUN) || !rd_emulated_does(0)) return;
        work();
        rd_emulated_check_edges(kernel);
    });
}
