/* device.cpp - the emulated device itself: its errors and the faults that tests set, what it says of itself, its memory.
 *
 * Each cudaMalloc is an allocation of its own, full of poison, with known bytes before and behind it that are looked at whenever
 * somebody waits. Under the address sanitizer its red zones do that, and the host may not touch device memory at all.
 */
#include "tests/plugins/cuda/emulator/fibre.h"
#include "tests/plugins/cuda/emulator/state.h"

#include <dlfcn.h>
#include <map>
#include <stdarg.h>
#include <sys/mman.h>

#if RD_EMULATED_ASAN
#include <sanitizer/asan_interface.h>
#endif

enum { EDGE = RD_EMULATED_ASAN ? 0 : 256, EDGE_BYTE = 0xa5, DRY_MOST = 1 << 20 };

struct allocation {
    size_t bytes;
    bool device, dry; /* dry: pages of its own, without edges */
};

static struct {
    std::recursive_mutex lock;
    bool ready, touchable, dry;
    cudaError_t lost;
    struct {
        int nth, error;
        uint64_t count;
    } fault[RD_EMULATED_CALLS];
    std::map<const unsigned char *, allocation> memory;
    size_t total, held;
    int capability, processors;
} d;
static thread_local cudaError_t last_error;

static long long setting(const char *name, long long otherwise)
{
    const char *text = getenv(name);

    return text && *text ? atoll(text) : otherwise;
}

/* RD_EMULATED_FAIL, or the first line of a file `emulated-fail` beside this library; "" where there is neither. */
static void read_fault(char *text, int most)
{
    const char *setting = getenv("RD_EMULATED_FAIL");
    char path[4096];
    Dl_info here;
    FILE *f = nullptr;

    *text = 0;
    if (setting) {
        snprintf(text, (size_t)most, "%s", setting);
        return;
    }
    if (!dladdr(reinterpret_cast<void *>(&cudaGetErrorName), &here) || !strrchr(here.dli_fname, '/')) return;
    snprintf(path, sizeof path, "%.*s/emulated-fail", (int)(strrchr(here.dli_fname, '/') - here.dli_fname),
             here.dli_fname);
    f = fopen(path, "r");
    if (f && !fgets(text, most, f)) *text = 0;
    if (f) fclose(f);
}

static void set_fault(void)
{
    static const struct {
        const char *name;
        rd_emulated_call call;
    } calls[] = { { "malloc", RD_EMULATED_MALLOC },
                  { "launch", RD_EMULATED_LAUNCH },
                  { "run", RD_EMULATED_RUN },
                  { "copy", RD_EMULATED_COPY },
                  { "graph", RD_EMULATED_GRAPH } };
    char text[64], name[16];
    int nth, error;

    read_fault(text, sizeof text);
    if (!*text) return;
    if (sscanf(text, "%15s %d %d", name, &nth, &error) == 3)
        for (const auto &c : calls)
            if (!strcmp(c.name, name)) {
                d.fault[c.call].nth = nth;
                d.fault[c.call].error = error;
                return;
            }
    rd_emulated_die("RD_EMULATED_FAIL=%s: expected malloc, launch, run, copy or graph, and two numbers", text);
}

rd_emulated_lock::rd_emulated_lock()
{
    d.lock.lock();
    if (d.ready) return;
    d.ready = true;
    rd_emulated_seed = (uint64_t)setting("RD_EMULATED_ORDER", (long long)rd_emulated_seed);
    if (!d.total) d.total = (size_t)setting("RD_EMULATED_MEMORY", 16ll << 30);
    if (!d.capability) d.capability = (int)setting("RD_EMULATED_CAPABILITY", 90);
    if (!d.processors) d.processors = (int)setting("RD_EMULATED_PROCESSORS", 8);
    set_fault();
}

rd_emulated_lock::~rd_emulated_lock()
{
    d.lock.unlock();
}

/* ---- errors ---- */

cudaError_t rd_emulated_error(cudaError_t e)
{
    if (e != cudaSuccess && e != cudaErrorNotReady) last_error = e;
    return e;
}

cudaError_t rd_emulated_refuse(cudaError_t e, const char *format, ...)
{
    va_list args;

    fprintf(stderr, "emulator: %s: ", cudaGetErrorName(e));
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\n");
    return rd_emulated_error(e);
}

cudaError_t rd_emulated_lost(void)
{
    return d.lost;
}

static bool loses(cudaError_t e)
{
    return e == cudaErrorIllegalAddress || e == cudaErrorLaunchTimeout ||
           e == cudaErrorMisalignedAddress || e == cudaErrorLaunchFailure;
}

cudaError_t rd_emulated_fault(rd_emulated_call call)
{
    auto *f = &d.fault[call];
    cudaError_t e = cudaSuccess;

    f->count++;
    if (f->nth > 0 && --f->nth == 0)
        e = (cudaError_t)f->error;
    else if (f->nth < 0 && ++f->nth == 0) {
        e = (cudaError_t)f->error;
        f->nth = -1;
    }
    if (loses(e)) d.lost = e;
    return e;
}

cudaError_t rd_emulated_begin(rd_emulated_call call)
{
    if (d.lost) return rd_emulated_error(d.lost);
    return rd_emulated_error(rd_emulated_fault(call));
}

cudaError_t cudaPeekAtLastError(void)
{
    rd_emulated_lock lock;

    return d.lost ? d.lost : last_error;
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t e = cudaPeekAtLastError();

    last_error = cudaSuccess;
    return e;
}

static const struct {
    cudaError_t code;
    const char *name, *text;
} errors[] = {
#define E(name, text)     \
    {                     \
        name, #name, text \
    }
    E(cudaSuccess, "no error"),
    E(cudaErrorInvalidValue, "invalid argument"),
    E(cudaErrorMemoryAllocation, "out of memory"),
    E(cudaErrorInitializationError, "initialization error"),
    E(cudaErrorInvalidConfiguration, "invalid configuration argument"),
    E(cudaErrorInvalidMemcpyDirection, "invalid copy direction for memcpy"),
    E(cudaErrorInsufficientDriver, "CUDA driver version is insufficient for CUDA runtime version"),
    E(cudaErrorNoDevice, "no CUDA-capable device is detected"),
    E(cudaErrorInvalidDevice, "invalid device ordinal"),
    E(cudaErrorInvalidResourceHandle, "invalid resource handle"),
    E(cudaErrorIllegalState, "the operation cannot be performed in the present state"),
    E(cudaErrorNotReady, "device not ready"),
    E(cudaErrorIllegalAddress, "an illegal memory access was encountered"),
    E(cudaErrorLaunchOutOfResources, "too many resources requested for launch"),
    E(cudaErrorLaunchTimeout, "the launch timed out and was terminated"),
    E(cudaErrorMisalignedAddress, "misaligned address"),
    E(cudaErrorLaunchFailure, "unspecified launch failure"),
    E(cudaErrorNotSupported, "operation not supported"),
    E(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing"),
    E(cudaErrorStreamCaptureInvalidated, "operation failed due to a previous error during capture"),
    E(cudaErrorStreamCaptureUnmatched, "capture was not initiated in this stream"),
    E(cudaErrorStreamCaptureUnjoined, "capturing stream has unjoined work"),
    E(cudaErrorStreamCaptureIsolation, "dependency created on uncaptured work in another stream"),
    E(cudaErrorStreamCaptureImplicit,
      "operation would make the legacy stream depend on a capturing blocking stream"),
    E(cudaErrorCapturedEvent,
      "operation not permitted on an event last recorded in a capturing stream"),
    E(cudaErrorStreamCaptureWrongThread,
      "attempt to terminate a thread-local capture sequence from another thread"),
    E(cudaErrorUnknown, "unknown error"),
#undef E
};

const char *cudaGetErrorString(cudaError_t e)
{
    for (const auto &known : errors)
        if (known.code == e) return known.text;
    return "unrecognized error code";
}

const char *cudaGetErrorName(cudaError_t e)
{
    for (const auto &known : errors)
        if (known.code == e) return known.name;
    return "unrecognized error code";
}

/* ---- what it says of itself ---- */

static size_t shared_optin(void)
{
    return d.capability >= 90 ? 232448 : 166912;
}

cudaError_t cudaGetDeviceCount(int *out)
{
    rd_emulated_lock lock;
    cudaError_t e = rd_emulated_begin(RD_EMULATED_DEVICE);

    *out = e ? 0 : 1;
    return e;
}

cudaError_t cudaSetDevice(int device)
{
    rd_emulated_lock lock;
    cudaError_t e = rd_emulated_begin(RD_EMULATED_DEVICE);

    if (e) return e;
    return device == 0 ? cudaSuccess : rd_emulated_error(cudaErrorInvalidDevice);
}

cudaError_t cudaGetDevice(int *out)
{
    *out = 0;
    return cudaSuccess;
}

cudaError_t cudaSetDeviceFlags(unsigned)
{
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *out, int device)
{
    rd_emulated_lock lock;
    cudaError_t e = rd_emulated_begin(RD_EMULATED_DEVICE);

    if (e) return e;
    if (device != 0) return rd_emulated_error(cudaErrorInvalidDevice);
    memset(out, 0, sizeof *out);
    snprintf(out->name, sizeof out->name, "Emulated GPU");
    out->totalGlobalMem = d.total;
    out->sharedMemPerBlock = 49152;
    out->sharedMemPerBlockOptin = shared_optin();
    out->sharedMemPerMultiprocessor = shared_optin() + 1024;
    out->regsPerBlock = 65536;
    out->warpSize = 32;
    out->maxThreadsPerBlock = 1024;
    out->major = d.capability / 10;
    out->minor = d.capability % 10;
    out->multiProcessorCount = d.processors;
    out->l2CacheSize = 50 << 20;
    out->maxThreadsPerMultiProcessor = 2048;
    out->canMapHostMemory = out->unifiedAddressing = 1;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *out, enum cudaDeviceAttr attribute, int device)
{
    struct cudaDeviceProp p;
    cudaError_t e = cudaGetDeviceProperties(&p, device);

    if (e) return e;
    switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock: *out = p.maxThreadsPerBlock; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *out = (int)p.sharedMemPerBlock; break;
    case cudaDevAttrWarpSize: *out = p.warpSize; break;
    case cudaDevAttrMultiProcessorCount: *out = p.multiProcessorCount; break;
    case cudaDevAttrIntegrated: *out = p.integrated; break;
    case cudaDevAttrCanMapHostMemory: *out = p.canMapHostMemory; break;
    case cudaDevAttrL2CacheSize: *out = p.l2CacheSize; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *out = p.maxThreadsPerMultiProcessor; break;
    case cudaDevAttrUnifiedAddressing: *out = p.unifiedAddressing; break;
    case cudaDevAttrComputeCapabilityMajor: *out = p.major; break;
    case cudaDevAttrComputeCapabilityMinor: *out = p.minor; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
        *out = (int)p.sharedMemPerMultiprocessor;
        break;
    case cudaDevAttrMaxRegistersPerMultiprocessor: *out = 65536; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *out = (int)p.sharedMemPerBlockOptin; break;
    default: return rd_emulated_error(cudaErrorInvalidValue);
    }
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *out)
{
    *out = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *out)
{
    *out = CUDART_VERSION;
    return cudaSuccess;
}

/* ---- memory ---- */

static void forbid(const unsigned char *at, size_t bytes, bool is)
{
#if RD_EMULATED_ASAN
    if (is)
        __asan_poison_memory_region(at, bytes);
    else
        __asan_unpoison_memory_region(at, bytes);
#else
    (void)at, (void)bytes, (void)is;
#endif
}

void rd_emulated_touchable(bool is)
{
    if (!RD_EMULATED_ASAN || d.touchable == is) return;
    d.touchable = is;
    for (auto &m : d.memory)
        if (m.second.device && !m.second.dry) forbid(m.first, m.second.bytes, !is);
}

bool rd_emulated_does(size_t bytes)
{
    return !d.dry || (bytes > 0 && bytes <= DRY_MOST);
}

static cudaError_t allocate_dry(void **out, size_t bytes)
{
    void *at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (at == MAP_FAILED) return rd_emulated_error(cudaErrorMemoryAllocation);
    d.memory[static_cast<unsigned char *>(at)] = { bytes, true, true };
    d.held += bytes;
    *out = at;
    return cudaSuccess;
}

static cudaError_t allocate(void **out, size_t bytes, bool device)
{
    void *base;
    unsigned char *at;

    *out = nullptr;
    if (!bytes) return cudaSuccess;
    if (d.dry && device) return allocate_dry(out, bytes);
    if (posix_memalign(&base, 256, bytes + 2 * EDGE))
        return rd_emulated_error(cudaErrorMemoryAllocation);
    at = static_cast<unsigned char *>(base) + EDGE;
    memset(base, EDGE_BYTE, EDGE);
    memset(at + bytes, EDGE_BYTE, EDGE);
    rd_emulated_poison(at, bytes);
    d.memory[at] = { bytes, device, false };
    if (device) {
        d.held += bytes;
        if (!d.touchable) forbid(at, bytes, true);
    }
    *out = at;
    return cudaSuccess;
}

static void check_edges(const unsigned char *at, size_t bytes, const char *who)
{
    static const struct edge {
        unsigned char byte[EDGE + 1];
        edge()
        {
            memset(byte, EDGE_BYTE, sizeof byte);
        }
    } edge;

    if (memcmp(at - EDGE, edge.byte, EDGE) == 0 && memcmp(at + bytes, edge.byte, EDGE) == 0) return;
    for (size_t i = 0; i < EDGE; i++)
        if (at[bytes + i] != EDGE_BYTE || at[-1 - (ptrdiff_t)i] != EDGE_BYTE)
            rd_emulated_die("%s: byte %zu %s an allocation of %zu was written", who, i,
                            at[bytes + i] != EDGE_BYTE ? "behind" : "before", bytes);
}

void rd_emulated_check_edges(const char *who)
{
    for (auto &m : d.memory)
        if (!m.second.dry) check_edges(m.first, m.second.bytes, who);
}

static void release(void *p, bool device)
{
    auto found = d.memory.find(static_cast<unsigned char *>(p));

    if (found == d.memory.end() || found->second.device != device)
        rd_emulated_die("%s of %p, which is no such allocation",
                        device ? "cudaFree" : "cudaFreeHost", p);
    rd_emulated_drain_all();
    if (found->second.dry) {
        d.held -= found->second.bytes;
        munmap(p, found->second.bytes);
        d.memory.erase(found);
        return;
    }
    check_edges(found->first, found->second.bytes, "at its free");
    if (device) {
        d.held -= found->second.bytes;
        forbid(found->first, found->second.bytes, false);
    }
    free(static_cast<unsigned char *>(p) - EDGE);
    d.memory.erase(found);
}

rd_emulated_kind rd_emulated_kind_of(const void *p, size_t bytes, bool *whole)
{
    const unsigned char *at = static_cast<const unsigned char *>(p);
    auto next = d.memory.upper_bound(at);

    *whole = true;
    if (next == d.memory.begin()) return MEMORY_PAGEABLE;
    --next;
    if ((size_t)(at - next->first) >= next->second.bytes) return MEMORY_PAGEABLE;
    *whole = bytes <= next->second.bytes - (size_t)(at - next->first);
    return next->second.device ? MEMORY_DEVICE : MEMORY_PINNED;
}

cudaError_t rd_emulated_malloc(void **out, size_t bytes)
{
    rd_emulated_lock lock;
    cudaError_t e = rd_emulated_unsafe("cudaMalloc");

    if (e || (e = rd_emulated_begin(RD_EMULATED_MALLOC))) return e;
    if (bytes > d.total - (d.held < d.total ? d.held : d.total))
        return rd_emulated_error(cudaErrorMemoryAllocation);
    return allocate(out, bytes, true);
}

cudaError_t rd_emulated_host_alloc(void **out, size_t bytes, unsigned)
{
    rd_emulated_lock lock;
    cudaError_t e = rd_emulated_unsafe("cudaHostAlloc");

    if (e || (e = rd_emulated_begin(RD_EMULATED_HOST_ALLOC))) return e;
    return allocate(out, bytes, false);
}

cudaError_t rd_emulated_host_pointer(void **out, void *host, unsigned)
{
    rd_emulated_lock lock;
    bool whole;

    if (rd_emulated_lost()) return rd_emulated_error(rd_emulated_lost());
    if (rd_emulated_kind_of(host, 1, &whole) != MEMORY_PINNED)
        return rd_emulated_error(cudaErrorInvalidValue);
    *out = host;
    return cudaSuccess;
}

/* A lost device's memory goes too, so that a test may count. */
cudaError_t cudaFree(void *p)
{
    rd_emulated_lock lock;
    cudaError_t e = p ? rd_emulated_unsafe("cudaFree") : cudaSuccess;

    if (e) return e;
    if (p) release(p, true);
    return rd_emulated_error(rd_emulated_lost());
}

cudaError_t cudaFreeHost(void *p)
{
    rd_emulated_lock lock;
    cudaError_t e = p ? rd_emulated_unsafe("cudaFreeHost") : cudaSuccess;

    if (e) return e;
    if (p) release(p, false);
    return rd_emulated_error(rd_emulated_lost());
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes)
{
    rd_emulated_lock lock;

    if (rd_emulated_lost()) return rd_emulated_error(rd_emulated_lost());
    *free_bytes = d.held < d.total ? d.total - d.held : 0;
    *total_bytes = d.total;
    return cudaSuccess;
}

/* ---- what a test sets ---- */

void rd_emulated_fail(rd_emulated_call call, int nth, int error)
{
    rd_emulated_lock lock;

    d.fault[call].nth = nth;
    d.fault[call].error = error;
}

uint64_t rd_emulated_count(rd_emulated_call call)
{
    rd_emulated_lock lock;

    return d.fault[call].count;
}

void rd_emulated_order(uint64_t seed)
{
    rd_emulated_lock lock;

    rd_emulated_seed = seed;
}

void rd_emulated_memory(size_t bytes)
{
    rd_emulated_lock lock;

    d.total = bytes;
}

size_t rd_emulated_held(void)
{
    rd_emulated_lock lock;

    return d.held;
}

int rd_emulated_alive(void)
{
    rd_emulated_lock lock;

    return (int)d.memory.size();
}

void rd_emulated_dry(bool dry)
{
    rd_emulated_lock lock;

    d.dry = dry;
}

void rd_emulated_device(int capability, int processors)
{
    rd_emulated_lock lock;

    d.capability = capability;
    d.processors = processors;
}

void rd_emulated_heal(void)
{
    rd_emulated_lock lock;

    d.lost = last_error = cudaSuccess;
    for (auto &f : d.fault) f = {};
}
