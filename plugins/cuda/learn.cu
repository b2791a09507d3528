/* learn.cu - the learner's table: opening, whole arrays to and from the host, and the order of a step.
 *
 * core/train/learner.h says what each verb does; learn.h how the work is divided.
 */
#include "plugins/cuda/learn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- failures: the first one stays, for what comes after it means nothing ---- */

void learn_check(rd_learner *l, cudaError_t e, const char *what)
{
    if (e == cudaSuccess || l->failed.status) return;
    rd_fail(&l->failed, e == cudaErrorMemoryAllocation ? RD_NO_MEMORY : RD_DEVICE,
            "training on the GPU: %s: %s", what, cudaGetErrorString(e));
}

void learn_launched(rd_learner *l, const char *what)
{
    learn_check(l, cudaGetLastError(), what);
}

rd_status learn_failure(const rd_learner *l, rd_error *err)
{
    return l->failed.status ? rd_fail(err, l->failed.status, "%s", l->failed.text) : RD_OK;
}

static rd_status wait(rd_learner *l, const char *what, rd_error *err)
{
    learn_check(l, cudaStreamSynchronize(l->stream), what);
    return learn_failure(l, err);
}

/* ---- products: cuBLAS is column-major, so it is asked for the transpose, whose factors change places ---- */

static void check_product(rd_learner *l, cublasStatus_t s, int m, int n, int k)
{
    if (s == CUBLAS_STATUS_SUCCESS || l->failed.status) return;
    rd_fail(&l->failed, RD_DEVICE,
            "training on the GPU: cuBLAS: a product of %d x %d x %d: status %d", m, n, k, (int)s);
}

void learn_gemm(rd_learner *l, bool ta, bool tb, int m, int n, int k, const bf16 *a, int lda,
                const bf16 *b, int ldb, float beta, void *c, bool f32, int ldc)
{
    const float one = 1.0f;

    check_product(l,
                  l->cublas.gemm(l->blas, tb ? CUBLAS_OP_T : CUBLAS_OP_N,
                                 ta ? CUBLAS_OP_T : CUBLAS_OP_N, n, m, k, &one, b, CUDA_R_16BF, ldb,
                                 a, CUDA_R_16BF, lda, &beta, c, f32 ? CUDA_R_32F : CUDA_R_16BF, ldc,
                                 CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
                  m, n, k);
}

void learn_gemm_many(rd_learner *l, bool ta, bool tb, int m, int n, int k, const bf16 *a, int lda,
                     const bf16 *b, int ldb, float beta, float *c, int ldc, int count)
{
    const float one = 1.0f;
    long long step_a = (long long)lda * (ta ? k : m), step_b = (long long)ldb * (tb ? n : k);

    check_product(l,
                  l->cublas.gemm_many(l->blas, tb ? CUBLAS_OP_T : CUBLAS_OP_N,
                                      ta ? CUBLAS_OP_T : CUBLAS_OP_N, n, m, k, &one, b, CUDA_R_16BF,
                                      ldb, step_b, a, CUDA_R_16BF, lda, step_a, &beta, c,
                                      CUDA_R_32F, ldc, (long long)ldc * m, count,
                                      CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
                  m, n, k);
}

/* ---- opening ---- */

static rd_status read_shape(rd_learner *l, rd_error *err)
{
    const rd_params *p = l->p;
    const rd_model_config *c = &p->config;
    bool moe = false;

    for (int i = 0; i < c->num_hidden_layers; i++) moe |= p->layer[i].moe;
    l->hidden = c->hidden_size;
    l->heads = c->num_attention_heads;
    l->kv = c->num_key_value_heads;
    l->dim = c->head_dim;
    l->half = c->rotary_dim / 2;
    l->vocab = c->vocab_size;
    l->layers = c->num_hidden_layers;
    l->experts = moe ? c->num_experts : 0;
    l->top = moe ? c->num_experts_per_tok : 0;
    l->width = moe ? c->moe_intermediate_size : 0;
    l->eps = (float)c->rms_norm_eps;
    l->room = l->o.rows_per_pack;
    if (l->dim != 32 && l->dim != 64 && l->dim != 128)
        return rd_fail(err, RD_INVALID,
                       "the shape to train: head_dim %d; the GPU's trainer has 32, 64 and 128",
                       l->dim);
    if (l->vocab % 8)
        return rd_fail(
            err, RD_INVALID,
            "the shape to train: a vocabulary of %d; the GPU's trainer needs a multiple of 8",
            l->vocab);
    if (l->hidden > 4096)
        return rd_fail(err, RD_INVALID,
                       "the shape to train: hidden_size %d; the GPU's trainer goes up to 4096",
                       l->hidden);
    for (int i = 0; i < p->count; i++)
        if (p->param[i].cols % 8)
            return rd_fail(
                err, RD_INVALID,
                "the shape to train: %s has %d columns; the GPU's trainer needs a multiple of 8",
                p->param[i].name, p->param[i].cols);
    if (l->room < 1 || l->room > 1 << 18)
        return rd_fail(err, RD_INVALID, "packs of %d rows; the GPU's trainer takes 1 to %d",
                       l->room, 1 << 18);
    if (moe) {
        size_t slots = (size_t)l->room * (size_t)l->top + (size_t)l->experts * (LEARN_SLOTS - 1);

        if (slots > 1u << 22)
            return rd_fail(
                err, RD_INVALID,
                "packs of %d rows for %d experts each are too large for the GPU's trainer", l->room,
                l->top);
        l->slots = (int)((slots + LEARN_SLOTS - 1) / LEARN_SLOTS) * LEARN_SLOTS;
    }
    return RD_OK;
}

static rd_status open_device(rd_learner *l, rd_error *err)
{
    struct cudaDeviceProp prop;
    int count = 0;
    cudaError_t e = cudaGetDeviceCount(&count);

    if (e != cudaSuccess || count == 0) {
        cudaGetLastError();
        return rd_fail(err, RD_DEVICE, "training on the GPU: %s",
                       e != cudaSuccess ? cudaGetErrorString(e) : "there is none");
    }
    learn_check(l, cudaSetDevice(0), "the device");
    learn_check(l, cudaGetDeviceProperties(&prop, 0), "the device");
    learn_check(l, cudaStreamCreateWithFlags(&l->stream, cudaStreamNonBlocking), "a stream");
    if (l->failed.status) return learn_failure(l, err);
    if (prop.major < 8)
        return rd_fail(err, RD_DEVICE,
                       "training on the GPU: %s is of compute capability %d.%d; 8.0 is needed",
                       prop.name, prop.major, prop.minor);
    /* Dense bf16 of an H100 or H200 SXM with 132 multiprocessors; of others nothing is claimed. */
    if (strstr(prop.name, "H100") || strstr(prop.name, "H200"))
        l->peak = 989e12 * prop.multiProcessorCount / 132.0;
    snprintf(l->text, sizeof l->text, "%.100s", prop.name);
    if (learn_blas_find(&l->cublas, err)) return err->status;
    if (l->cublas.create(&l->blas) != CUBLAS_STATUS_SUCCESS)
        return rd_fail(err, RD_DEVICE, "training on the GPU: cuBLAS does not open");
    return RD_OK;
}

static void fill_memory(rd_learner *l)
{
    size_t n = l->p->size, loads = (size_t)l->layers * (size_t)l->experts;
    float *turn = (float *)rd_alloc_array((size_t)l->half + 1, sizeof *turn);

    for (int i = 0; i < l->half; i++)
        turn[i] = (float)pow(l->p->config.rope_theta, -2.0 * i / l->p->config.rotary_dim);
    if (l->half > 0)
        learn_check(l,
                    cudaMemcpyAsync(l->turn, turn, (size_t)l->half * sizeof *turn,
                                    cudaMemcpyHostToDevice, l->stream),
                    "rotation");
    learn_check(l, cudaMemsetAsync(l->w, 0, n * sizeof(float), l->stream), "weights");
    learn_check(l, cudaMemsetAsync(l->half_w, 0, n * sizeof(bf16), l->stream), "weights");
    learn_check(l, cudaMemsetAsync(l->grad, 0, n * sizeof(float), l->stream), "gradient");
    learn_check(l, cudaMemsetAsync(l->moment[0], 0, n * sizeof(float), l->stream), "moments");
    learn_check(l, cudaMemsetAsync(l->moment[1], 0, n * sizeof(float), l->stream), "moments");
    if (l->mean) learn_check(l, cudaMemsetAsync(l->mean, 0, n * sizeof(float), l->stream), "mean");
    if (loads > 0) {
        learn_check(l, cudaMemsetAsync(l->load, 0, loads * sizeof *l->load, l->stream), "sums");
        learn_check(l, cudaMemsetAsync(l->load_step, 0, loads * sizeof *l->load, l->stream),
                    "sums");
    }
    learn_check(l, cudaMemsetAsync(l->state, 0, sizeof *l->state, l->stream), "sums");
    learn_check(l, cudaStreamSynchronize(l->stream), "opening");
    free(turn);
}

static void learner_close(rd_learner *l)
{
    if (!l) return;
    if (l->stream) cudaStreamSynchronize(l->stream);
    if (l->blas) l->cublas.destroy(l->blas);
    for (int i = 0; i < LEARN_BUFFERS; i++) {
        if (l->pinned[i]) cudaFreeHost(l->pinned[i]);
        if (l->copied[i]) cudaEventDestroy(l->copied[i]);
    }
    if (l->state_host) cudaFreeHost(l->state_host);
    if (l->best_host) cudaFreeHost(l->best_host);
    if (l->arena) cudaFree(l->arena);
    if (l->stream) cudaStreamDestroy(l->stream);
    cudaGetLastError();
    free(l->layer);
    free(l->group);
    free(l->load_out);
    free(l);
}

static rd_status learner_open(const rd_params *p, const rd_learner_options *o, rd_learner **out,
                              rd_error *err)
{
    rd_learner *l = (rd_learner *)rd_alloc0(sizeof *l);
    rd_error local;
    size_t at;

    if (!err) err = &local;
    l->p = p;
    l->o = *o;
    l->stale = true;
    if (read_shape(l, err)) goto fail;
    l->layer = (learn_layer *)rd_alloc_array((size_t)l->layers, sizeof *l->layer);
    l->load_out =
        (int64_t *)rd_alloc_array((size_t)l->layers * (size_t)l->experts + 1, sizeof *l->load_out);
    learn_tables_count(l);
    if (open_device(l, err) || learn_get_memory(l, err)) goto fail;
    if (l->cublas.set_stream(l->blas, l->stream) != CUBLAS_STATUS_SUCCESS ||
        l->cublas.set_workspace(l->blas, l->workspace, l->workspace_bytes) !=
            CUBLAS_STATUS_SUCCESS) {
        rd_fail(err, RD_DEVICE, "training on the GPU: cuBLAS takes no workspace");
        goto fail;
    }
    learn_attend_allow(l);
    learn_attend_back_allow(l);
    learn_group_allow(l);
    fill_memory(l);
    if (learn_failure(l, err) || learn_tables_fill(l, err)) goto fail;
    at = strlen(l->text);
    snprintf(l->text + at, sizeof l->text - at,
             ", products in bf16, sums in float32; %zu MB for packs of %d rows",
             l->arena_bytes >> 20, l->room);
    *out = l;
    return RD_OK;
fail:
    learner_close(l);
    return err->status;
}

static const char *learner_describe(rd_learner *l)
{
    return l->text;
}

static double learner_peak(rd_learner *l)
{
    return l->peak;
}

/* ---- whole arrays ---- */

static float *array_of(const rd_learner *l, rd_learner_array which)
{
    switch (which) {
    case RD_LEARNER_WEIGHTS: return l->w;
    case RD_LEARNER_MOMENT_0: return l->moment[0];
    case RD_LEARNER_MOMENT_1: return l->moment[1];
    case RD_LEARNER_MEAN: return l->mean;
    case RD_LEARNER_GRADIENT: return l->grad;
    default: return NULL;
    }
}

static rd_status no_array(rd_learner_array which, rd_error *err)
{
    return rd_fail(err, RD_INVALID, "the learner keeps no array %d", (int)which);
}

static rd_status learner_put(rd_learner *l, rd_learner_array which, const float *from,
                             rd_error *err)
{
    float *to = array_of(l, which);

    if (!to) return no_array(which, err);
    if (learn_failure(l, err)) return l->failed.status;
    learn_check(
        l, cudaMemcpyAsync(to, from, l->p->size * sizeof(float), cudaMemcpyHostToDevice, l->stream),
        "an array");
    if (which == RD_LEARNER_WEIGHTS) l->stale = true;
    return wait(l, "an array", err);
}

static rd_status learner_get(rd_learner *l, rd_learner_array which, float *to, rd_error *err)
{
    const float *from = array_of(l, which);

    if (!from) return no_array(which, err);
    if (learn_failure(l, err)) return l->failed.status;
    learn_check(
        l, cudaMemcpyAsync(to, from, l->p->size * sizeof(float), cudaMemcpyDeviceToHost, l->stream),
        "an array");
    return wait(l, "an array", err);
}

static rd_status read_state(rd_learner *l, rd_error *err)
{
    if (learn_failure(l, err)) return l->failed.status;
    learn_check(l,
                cudaMemcpyAsync(l->state_host, l->state, sizeof *l->state, cudaMemcpyDeviceToHost,
                                l->stream),
                "sums");
    return wait(l, "the packs before", err);
}

static rd_status write_state(rd_learner *l, rd_error *err)
{
    learn_check(l,
                cudaMemcpyAsync(l->state, l->state_host, sizeof *l->state, cudaMemcpyHostToDevice,
                                l->stream),
                "sums");
    return wait(l, "sums", err);
}

static rd_status learner_set_steps(rd_learner *l, int64_t steps, int64_t averaged, rd_error *err)
{
    if (read_state(l, err)) return l->failed.status;
    l->state_host->steps = steps;
    l->state_host->averaged = averaged;
    return write_state(l, err);
}

/* ---- a step ---- */

static rd_status learner_see_rounded(rd_learner *l, bool rounded, rd_error *err)
{
    if (rounded && !l->o.rounded)
        return rd_fail(err, RD_INVALID, "the learner was not opened to round weights");
    if (rounded != l->see_rounded) l->stale = true;
    l->see_rounded = rounded;
    return learn_failure(l, err);
}

static rd_status learner_submit(rd_learner *l, rd_learner_pass pass, const rd_train_row *rows,
                                int n, float scale, rd_error *err)
{
    bool learn = pass == RD_LEARNER_LEARN;
    learn_count count = learn ? LEARN_COUNT_STEP : LEARN_COUNT_SUMS;
    rd_error local;
    learn_pack p = {};

    if (!err) err = &local;
    if (learn_failure(l, err) || learn_pack_check(l, rows, n, err)) return err->status;
    learn_pack_send(l, rows, n, scale, learn, count, &p);
    learn_run(l, &p, learn, count);
    return learn_failure(l, err);
}

static rd_status learner_guess(rd_learner *l, const rd_train_row *rows, int n, int32_t *best,
                               rd_error *err)
{
    size_t bytes = (size_t)n * sizeof *best;
    rd_error local;
    learn_pack p = {};

    if (!err) err = &local;
    if (learn_failure(l, err) || learn_pack_check(l, rows, n, err)) return err->status;
    learn_pack_send(l, rows, n, 1.0f, false, LEARN_COUNT_NONE, &p);
    learn_run(l, &p, false, LEARN_COUNT_NONE);
    learn_check(l, cudaMemcpyAsync(l->best_host, l->best, bytes, cudaMemcpyDeviceToHost, l->stream),
                "choices");
    if (wait(l, "choices", err)) return err->status;
    memcpy(best, l->best_host, bytes);
    return RD_OK;
}

static rd_status learner_step(rd_learner *l, float lr, bool average, rd_error *err)
{
    if (learn_failure(l, err)) return l->failed.status;
    if (average && !l->mean)
        return rd_fail(err, RD_INVALID, "the learner was not opened to keep a mean");
    learn_optimize(l, lr, average);
    return learn_failure(l, err);
}

static rd_status read_load(rd_learner *l, rd_error *err)
{
    size_t n = (size_t)l->layers * (size_t)l->experts;

    if (n == 0) return RD_OK;
    static_assert(sizeof *l->load_out == sizeof *l->load, "copied as they are");
    learn_check(l,
                cudaMemcpyAsync(l->load_out, l->load, n * sizeof *l->load, cudaMemcpyDeviceToHost,
                                l->stream),
                "loads");
    if (wait(l, "loads", err)) return l->failed.status;
    learn_check(l, cudaMemsetAsync(l->load, 0, n * sizeof *l->load, l->stream), "loads");
    return learn_failure(l, err);
}

static rd_status learner_collect(rd_learner *l, rd_learner_sums *out, rd_error *err)
{
    learn_state *s = l->state_host;
    rd_learner_sums sums;
    rd_error local;

    if (!err) err = &local;
    memset(&sums, 0, sizeof sums);
    if (read_state(l, err) || read_load(l, err)) return err->status;
    for (int i = 0; i < RD_TASKS; i++) {
        sums.stats.loss[i] = s->loss[i];
        sums.stats.right[i] = (int64_t)s->right[i];
        sums.stats.weight[i] = l->weight[i];
        sums.stats.labels[i] = l->labels[i];
        s->loss[i] = 0.0;
        s->right[i] = 0;
        l->weight[i] = 0.0;
        l->labels[i] = 0;
    }
    sums.stats.entropy = s->entropy;
    sums.stats.flops = l->flops;
    sums.stats.load = l->experts > 0 ? l->load_out : NULL;
    sums.norm = s->norm;
    sums.steps = s->steps;
    l->flops = 0.0;
    s->entropy = 0.0;
    long long bad = s->bad_step;

    s->bad_step = 0;
    if (write_state(l, err)) return err->status;
    if (bad > 0 && s->bad_tensor < 0)
        return rd_fail(err, RD_INVALID,
                       "step %lld: the loss is not a number; the step changed nothing", bad);
    if (bad > 0)
        return rd_fail(err, RD_INVALID,
                       "step %lld: the gradient of %s is not finite; the step changed nothing", bad,
                       l->p->param[s->bad_tensor].name);
    *out = sums;
    return RD_OK;
}

/* ---- the table ---- */

extern "C" __attribute__((visibility("default"))) const rd_learner_table *rd_learner_entry(void)
{
    static const rd_learner_table table = {
        RD_LEARNER_ABI,
        sizeof(rd_learner_table),
        "cuda",
        learner_open,
        learner_close,
        learner_describe,
        learner_peak,
        learner_put,
        learner_get,
        learner_set_steps,
        learner_see_rounded,
        learner_submit,
        learner_guess,
        learner_step,
        learner_collect,
    };

    return &table;
}
