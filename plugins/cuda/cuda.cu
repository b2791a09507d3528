/* cuda.cu - the backend's table on one GPU: opening, memory, and how a recorded pass is run.
 *
 * A pass that was seen before in the same shape is one graph launch; its second time is when it is captured, its first it is
 * launched command by command. One stream does everything. Parameters stand in pinned memory until the pass that reads
 * them is over, so a new pass waits for the last one; that is the only wait besides those for results.
 */
#include "plugins/cuda/cuda.h"

#include "plugins/cuda/ceilings.h"
#include "plugins/cuda/rows.cuh"
#include "plugins/cuda/tape.h"

extern "C" {
#include "core/base/memory.h"
}

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PARAMS = 4 << 20,     /* bytes: lists of 2048 rows and of a million tokens of past */
    PARAM_GRAIN = 256,    /* sizes are rounded up to this, so that passes of about the same lists are the same */
    PICKS = 2048,         /* rows of one pass, and so of one pick */
    GRAPH_ROWS = 64,      /* larger passes are launched one by one: their kernels hide it */
    CAPABILITY_LEAST = 80 /* bf16 products and cp.async */
};

/* ---- errors ---- */

rd_status cuda_status(cudaError_t e, const char *what, rd_error *err)
{
    if (e == cudaSuccess) return RD_OK;
    cudaGetLastError();
    if (e == cudaErrorMemoryAllocation) return rd_fail(err, RD_NO_MEMORY, "%s: %s", what, cudaGetErrorString(e));
    return rd_fail(err, RD_DEVICE, "%s: %s", what, cudaGetErrorString(e));
}

/* The same, and a device that an error sticks to is lost. */
static rd_status checked(rd_device *d, cudaError_t e, const char *what, rd_error *err)
{
    if (e == cudaSuccess) return RD_OK;
    rd_status s = cuda_status(e, what, err);

    d->lost = s == RD_DEVICE;
    return s;
}

static rd_status usable(rd_device *d, rd_error *err)
{
    return d->lost ? rd_fail(err, RD_DEVICE, "the GPU %s was lost", d->name) : RD_OK;
}

/* ---- memory ---- */

rd_status cuda_get(rd_device *d, void **out, size_t bytes, const char *what, rd_error *err)
{
    size_t left = 0, all = 0;

    *out = NULL;
    if (usable(d, err)) return RD_DEVICE;
    if (bytes == 0) bytes = 16;
    if (d->limit && (bytes > d->limit || d->bytes > d->limit - bytes))
        return rd_fail(err, RD_NO_MEMORY, "%s: %zu MB wanted, %zu MB of the limit of %zu MB are left",
                       what, (bytes >> 20) + 1, (d->limit - d->bytes) >> 20, d->limit >> 20);
    cudaError_t e = cudaMalloc(out, bytes);

    if (e == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        cudaMemGetInfo(&left, &all);
        return rd_fail(err, RD_NO_MEMORY, "%s: %zu MB wanted on %s, %zu of %zu MB are free", what,
                       (bytes >> 20) + 1, d->name, left >> 20, all >> 20);
    }
    if (e != cudaSuccess) return checked(d, e, what, err);
    d->bytes += bytes;
    return RD_OK;
}

void cuda_put(rd_device *d, void *memory, size_t bytes)
{
    if (!memory) return;
    cudaFree(memory); /* of a lost device: fails, and there is nothing to give back */
    cudaGetLastError();
    d->bytes -= bytes ? bytes : 16;
}

/* Graphs hold addresses; when one of these goes, they go too. */
static void drop_graphs(rd_device *d)
{
    cuda_tape *t = d->tape;

    for (int i = 0; i < t->graphs; i++) cudaGraphExecDestroy(t->graph[i].exec);
    cuda_tape_forget(t);
}

void cuda_forget_passes(rd_device *d)
{
    if (d->lost) return;
    cuda_flush(d, true, NULL);
    drop_graphs(d);
}

/* ---- weights' memory ---- */

enum { SLAB_GRAIN = 256 };
static const size_t slab_least = (size_t)8 << 20, slab_most = (size_t)256 << 20;

typedef struct cuda_slab {
    char *data;
    size_t bytes, used;
    int pieces; /* that are in use */
} cuda_slab;

rd_status cuda_get_piece(rd_device *d, void **out, size_t bytes, const char *what, rd_error *err)
{
    size_t take = (bytes + SLAB_GRAIN - 1) / SLAB_GRAIN * SLAB_GRAIN, size = slab_least;
    cuda_slab *s = d->slabs > 0 ? &d->slab[d->slabs - 1] : NULL;
    void *memory;

    *out = NULL;
    if (take < bytes || take == 0) take = SLAB_GRAIN;
    if (!s || s->bytes - s->used < take) {
        size = s && s->bytes < slab_most ? 2 * s->bytes : s ? slab_most : slab_least;
        if (size < take || size > 4 * d->bytes + slab_least) size = take > slab_least ? take : slab_least;
        rd_status status = cuda_get(d, &memory, size, what, err);

        if (status == RD_NO_MEMORY && size > take) { /* the last of it */
            size = take;
            status = cuda_get(d, &memory, size, what, err);
        }
        if (status) return status;
        d->slab = (cuda_slab *)rd_resize(d->slab, (size_t)d->slabs + 1, sizeof *d->slab);
        s = &d->slab[d->slabs++];
        s->data = (char *)memory;
        s->bytes = size;
        s->used = 0;
        s->pieces = 0;
    }
    *out = s->data + s->used;
    s->used += take;
    s->pieces++;
    return RD_OK;
}

void cuda_put_piece(rd_device *d, void *memory)
{
    for (int i = d->slabs - 1; memory && i >= 0; i--) {
        cuda_slab *s = &d->slab[i];

        if ((char *)memory < s->data || (char *)memory >= s->data + s->bytes) continue;
        if (--s->pieces > 0) return;
        cuda_put(d, s->data, s->bytes);
        *s = d->slab[--d->slabs];
        return;
    }
}

/* ---- scratch ---- */

rd_status cuda_room(rd_device *d, cuda_slot slot, size_t bytes, rd_error *err)
{
    if (bytes <= d->slot[slot].bytes) return usable(d, err);
    bytes += bytes / 4;
    /* Commands before this one look their scratch up when they run; what runs now still uses the old one. */
    rd_status s = checked(d, cudaStreamSynchronize(d->stream), "waiting for the device", err);

    if (s) return s;
    drop_graphs(d);
    cuda_put(d, d->slot[slot].data, d->slot[slot].bytes);
    d->slot[slot].data = NULL;
    d->slot[slot].bytes = 0;
    s = cuda_get(d, &d->slot[slot].data, bytes, "scratch of a pass", err);
    if (!s) d->slot[slot].bytes = bytes;
    return s;
}

/* ---- recording and running ---- */

static void begin_tape(rd_device *d, int rows)
{
    cuda_tape_begin(d->tape, rows);
    d->params_used = 0;
}

/* The parameters may be written: the pass that read them is over. */
static rd_status params_free(rd_device *d, rd_error *err)
{
    return checked(d, cudaEventSynchronize(d->idle), "waiting for the pass before", err);
}

/* Outside of a pass a verb is a small pass of its own that is never a graph. */
static rd_status need_tape(rd_device *d, rd_error *err)
{
    if (usable(d, err)) return RD_DEVICE;
    if (d->tape->open || d->tape->commands > 0 || d->params_used > 0) return RD_OK;
    rd_status s = params_free(d, err);

    if (s) return s;
    begin_tape(d, 0);
    d->tape->open = false;
    return RD_OK;
}

rd_status cuda_param(rd_device *d, size_t bytes, void **host, const void **device, rd_error *err)
{
    size_t take = (bytes + PARAM_GRAIN - 1) / PARAM_GRAIN * PARAM_GRAIN;
    rd_status s = need_tape(d, err);

    if (s) return s;
    if (bytes > d->params_bytes || take > d->params_bytes - d->params_used)
        return rd_fail(err, RD_INVALID, "a pass with more than %zu KB of lists", d->params_bytes >> 10);
    *host = d->params_host + d->params_used;
    *device = d->params + d->params_used;
    d->params_used += take;
    return RD_OK;
}

rd_status cuda_record(rd_device *d, cuda_run run, const void *args, size_t bytes, rd_error *err)
{
    rd_status s = need_tape(d, err);

    if (!s) cuda_tape_add(d->tape, run, args, bytes);
    return s;
}

/* Every command, launched or captured. */
static rd_status run_all(rd_device *d, rd_error *err)
{
    const cuda_tape *t = d->tape;
    rd_status s = RD_OK;

    d->half_of = NULL;
    if (d->params_used > 0)
        s = cuda_status(cudaMemcpyAsync(d->params, d->params_host, d->params_used,
                                        cudaMemcpyHostToDevice, d->stream),
                        "the pass's parameters", err);
    for (int i = 0; i < t->commands && !s; i++) {
        const cuda_command *c = &t->command[i];

        if (i + 1 < t->commands && cuda_run_together(d, c->run, t->args + c->at, c[1].run,
                                                     t->args + c[1].at, &s, err))
            i++;
        else
            s = c->run(d, t->args + c->at, err);
    }
    return s;
}

static rd_status capture(rd_device *d, cuda_graph **out, rd_error *err)
{
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec = NULL, old = NULL;
    rd_status s = cuda_status(cudaStreamBeginCapture(d->stream, cudaStreamCaptureModeThreadLocal),
                              "capturing a pass", err);

    if (s) return s;
    s = run_all(d, err);
    cudaError_t e = cudaStreamEndCapture(d->stream, &graph);

    if (!s) s = cuda_status(e, "capturing a pass", err);
    if (!s) s = cuda_status(cudaGraphInstantiate(&exec, graph, 0), "making a graph of a pass", err);
    if (graph) cudaGraphDestroy(graph);
    cudaGetLastError();
    if (s) return s;
    *out = cuda_tape_keep(d->tape, d->params_used, &old);
    (*out)->exec = exec;
    if (old) cudaGraphExecDestroy(old);
    return RD_OK;
}

static rd_status run_tape(rd_device *d, rd_error *err)
{
    cuda_tape *t = d->tape;
    cuda_graph *g = NULL;
    bool whole = t->open && !t->cut && t->rows <= GRAPH_ROWS && !d->no_graphs;

    if (whole) g = cuda_tape_find(t, d->params_used);
    if (whole && !g && cuda_tape_seen(t, d->params_used)) {
        rd_status s = capture(d, &g, err);

        if (s) return s;
        t->captured++;
    }
    if (!g) {
        t->launched++;
        return run_all(d, err);
    }
    t->replayed++;
    return cuda_status(cudaGraphLaunch(g->exec, d->stream), "a pass", err);
}

rd_status cuda_flush(rd_device *d, bool wait, rd_error *err)
{
    cuda_tape *t = d->tape;
    rd_error local;

    if (!err) err = &local;
    if (usable(d, err)) return RD_DEVICE;
    rd_status s = t->commands > 0 ? run_tape(d, err) : RD_OK;

    if (t->commands > 0 && !s) s = cuda_status(cudaEventRecord(d->idle, d->stream), "a pass", err);
    t->cut = true;
    t->commands = 0;
    t->args_bytes = 0;
    if (wait && !s) s = cuda_status(cudaStreamSynchronize(d->stream), "a pass", err);
    if (s == RD_DEVICE) d->lost = true;
    if (!wait && !s) return RD_OK;
    d->params_used = 0; /* nobody reads them any more */
    return s;
}

static rd_status cuda_begin(rd_device *d, int rows, rd_error *err)
{
    rd_status s = usable(d, err);

    if (!s && d->tape->commands > 0) s = cuda_flush(d, false, err);
    if (!s) s = params_free(d, err);
    if (!s) begin_tape(d, rows);
    return s;
}

/* Without `err` the pass failed or was cancelled: what was recorded is dropped. */
static rd_status cuda_end(rd_device *d, rd_error *err)
{
    rd_status s = RD_OK;

    if (err && !d->lost)
        s = cuda_flush(d, false, err);
    else
        d->tape->commands = 0;
    d->tape->open = false;
    d->params_used = 0;
    return s;
}

/* ---- open and close ---- */

/* Why no GPU can be used, or RD_OK and its properties. */
static rd_status find_gpu(cudaDeviceProp *p, rd_error *err)
{
    int n = 0;
    cudaError_t e = cudaGetDeviceCount(&n);

    if (e == cudaErrorInsufficientDriver || e == cudaErrorNoDevice || (e == cudaSuccess && n == 0)) {
        int driver = 0;

        cudaGetLastError();
        cudaDriverGetVersion(&driver);
        if (driver == 0) return rd_fail(err, RD_DEVICE, "no NVIDIA driver is installed");
        if (e == cudaErrorInsufficientDriver)
            return rd_fail(err, RD_DEVICE, "the NVIDIA driver knows CUDA %d.%d; this plugin needs %d.%d",
                           driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000,
                           CUDART_VERSION % 1000 / 10);
        return rd_fail(err, RD_DEVICE, "the NVIDIA driver finds no GPU");
    }
    if (e == cudaSuccess) e = cudaGetDeviceProperties(p, 0);
    if (e != cudaSuccess) return cuda_status(e, "looking for a GPU", err);
    if (10 * p->major + p->minor < CAPABILITY_LEAST)
        return rd_fail(err, RD_DEVICE, "%s has compute capability %d.%d; 8.0 is the least", p->name,
                       p->major, p->minor);
    return RD_OK;
}

static void cuda_close(rd_device *d)
{
    if (!d) return;
    if (d->stream) cudaStreamSynchronize(d->stream);
    if (d->tape) {
        drop_graphs(d);
        cuda_tape_clear(d->tape);
        free(d->tape);
    }
    for (int i = 0; i < d->slabs; i++) cuda_put(d, d->slab[i].data, d->slab[i].bytes);
    free(d->slab);
    for (int i = 0; i < CUDA_SLOTS; i++) cuda_put(d, d->slot[i].data, d->slot[i].bytes);
    cuda_put(d, d->params, d->params_bytes);
    if (d->params_host) cudaFreeHost(d->params_host);
    if (d->picks) cudaFreeHost(d->picks);
    if (d->idle) cudaEventDestroy(d->idle);
    if (d->stream) cudaStreamDestroy(d->stream);
    cudaGetLastError();
    free(d);
}

static rd_status make_room(rd_device *d, rd_error *err)
{
    void *memory;
    rd_status s = cuda_status(cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking),
                              "opening the GPU", err);

    if (!s) s = cuda_status(cudaEventCreateWithFlags(&d->idle, cudaEventDisableTiming), "opening the GPU", err);
    if (!s) s = cuda_get(d, &memory, PARAMS, "a pass's parameters", err);
    if (s) return s;
    d->params = (unsigned char *)memory;
    d->params_bytes = PARAMS;
    s = cuda_status(cudaHostAlloc((void **)&d->params_host, PARAMS, cudaHostAllocDefault),
                    "pinned memory for parameters", err);
    if (!s)
        s = cuda_status(cudaHostAlloc((void **)&d->picks, PICKS * sizeof *d->picks, cudaHostAllocMapped),
                        "pinned memory for picks", err);
    if (!s)
        s = cuda_status(cudaHostGetDevicePointer((void **)&d->picks_device, d->picks, 0),
                        "pinned memory for picks", err);
    d->picks_most = PICKS;
    return s;
}

static rd_status cuda_open(const rd_device_options *o, rd_device **out, rd_error *err)
{
    cudaDeviceProp p;
    rd_error local;

    if (!err) err = &local;
    if (o->isa && strcmp(o->isa, "cuda") != 0 && strcmp(o->isa, "no-graphs") != 0)
        return rd_fail(err, RD_INVALID, "the GPU has no instruction set %.32s", o->isa);
    if (find_gpu(&p, err)) return err->status;
    if (o->weights == RD_FORM_FP8 && 10 * p.major + p.minor < 89)
        return rd_fail(err, RD_INVALID, "%s has no FP8 (compute capability 8.9)", p.name);
    if (cuda_status(cudaSetDevice(0), "opening the GPU", err)) return err->status;
    rd_device *d = (rd_device *)rd_alloc0(sizeof *d);

    d->precision = o->precision;
    d->weights = o->weights;
    d->processors = p.multiProcessorCount;
    d->capability = 10 * p.major + p.minor;
    d->shared_most = p.sharedMemPerBlockOptin;
    d->l2_bytes = (size_t)p.l2CacheSize;
    d->limit = o->memory_limit;
    d->log = o->log;
    d->no_graphs = o->isa && !strcmp(o->isa, "no-graphs");
    snprintf(d->name, sizeof d->name, "%.63s", p.name);
    snprintf(d->isa, sizeof d->isa, "sm_%d%s", d->capability,
             d->precision == RD_EXACT    ? "-f32"
             : d->weights == RD_FORM_FP8 ? "-fp8"
                                         : "-bf16");
    d->tape = (cuda_tape *)rd_alloc0(sizeof *d->tape);
    if (make_room(d, err)) {
        cuda_close(d);
        return err->status;
    }
    *out = d;
    return RD_OK;
}

static void cuda_describe(rd_device *d, rd_device_info *out)
{
    memset(out, 0, sizeof *out);
    out->isa = d->isa;
    out->threads = 1;
    out->bytes = d->bytes;
    out->rows = PICKS;
}

/* ---- views ---- */

static rd_status cuda_alloc(rd_device *d, int rows, int cols, rd_view *out, rd_error *err)
{
    size_t cells, bytes;
    void *memory;

    if (rows < 0 || cols < 0 || !rd_mul((size_t)rows, (size_t)cols, &cells) ||
        !rd_mul(cells, sizeof(float), &bytes))
        return rd_fail(err, RD_INVALID, "a view of %d x %d", rows, cols);
    rd_status s = cuda_get(d, &memory, bytes, "activations", err);

    if (s) return s;
    out->data = (float *)memory;
    out->rows = rows;
    out->cols = cols;
    return RD_OK;
}

static size_t view_bytes(rd_view v)
{
    return (size_t)v.rows * (size_t)v.cols * sizeof *v.data;
}

static void cuda_release(rd_device *d, rd_view *v)
{
    if (v->data) {
        cuda_forget_passes(d);
        cuda_put(d, v->data, view_bytes(*v));
    }
    memset(v, 0, sizeof *v);
}

static rd_status cuda_upload(rd_device *d, rd_view to, const float *from, rd_error *err)
{
    rd_status s = cuda_flush(d, true, err);

    if (s || view_bytes(to) == 0) return s;
    s = checked(d, cudaMemcpyAsync(to.data, from, view_bytes(to), cudaMemcpyHostToDevice, d->stream),
                "copying to the GPU", err);
    return s ? s : checked(d, cudaStreamSynchronize(d->stream), "copying to the GPU", err);
}

static rd_status cuda_download(rd_device *d, float *to, rd_view from, rd_error *err)
{
    rd_status s = cuda_flush(d, true, err);

    if (s || view_bytes(from) == 0) return s;
    s = checked(d, cudaMemcpyAsync(to, from.data, view_bytes(from), cudaMemcpyDeviceToHost, d->stream),
                "copying from the GPU", err);
    return s ? s : checked(d, cudaStreamSynchronize(d->stream), "copying from the GPU", err);
}

void cuda_passes(const rd_device *d, int64_t *captured, int64_t *replayed, int64_t *launched)
{
    *captured = d->tape->captured;
    *replayed = d->tape->replayed;
    *launched = d->tape->launched;
}

extern "C" const rd_backend *rd_backend_entry(void)
{
    static const rd_backend cuda = {
        .abi = RD_BACKEND_ABI,
        .size = sizeof(rd_backend),
        .name = "cuda",
        .open = cuda_open,
        .close = cuda_close,
        .describe = cuda_describe,
        .take = cuda_take,
        .drop = cuda_drop,
        .alloc = cuda_alloc,
        .release = cuda_release,
        .upload = cuda_upload,
        .download = cuda_download,
        .kv_open = cuda_kv_open,
        .kv_close = cuda_kv_close,
        .kv_block_bytes = cuda_kv_block_bytes,
        .kv_read = cuda_kv_read,
        .kv_write = cuda_kv_write,
        .begin = cuda_begin,
        .end = cuda_end,
        .embed = cuda_embed,
        .norm = cuda_norm,
        .linear = cuda_linear,
        .attention = cuda_attention,
        .mlp = cuda_mlp,
        .moe = cuda_moe,
        .add = cuda_add,
        .pick = cuda_pick,
        .gemm = NULL,
        .ceilings = cuda_ceilings,
        .kv_layout = NULL,
        .kv_host = NULL,
        .fills = true,
    };
    return &cuda;
}
