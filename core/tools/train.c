/* train.c - redraft train: a corpus folder to a model folder.
 *
 * DIR is what core/train/fetch-corpus made (src/ and held/), or holds a packed corpus already. Ctrl-C
 * stops after the step under way, with a checkpoint; --resume goes on from it. --from starts from a
 * model's weights, shape and tokenizer with a fresh optimiser.
 */
#include "core/tools/calls.h"

#include "core/base/memory.h"
#include "core/engine.h"
#include "core/format/file.h"
#include "core/plugin.h"
#include "core/train/sampler.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { THREADS_MOST = 64, HELD_TOKENS = 20000, HELD_PIECE = 400, VOCAB = 8192 };

static rd_cancel stop;

static void on_signal(int number)
{
    (void)number;
    rd_cancel_set(&stop);
}

static void say_line(const char *line)
{
    fprintf(stderr, "%s\n", line);
}

static void say_progress(void *user, const rd_train_progress *p)
{
    bool terminal = isatty(STDERR_FILENO);

    (void)user;
    fprintf(stderr,
            "%s%5.1f %%  step %lld  loss %.3f  next %.3f  hole %.3f  block %.3f  edit %.3f  "
            "%.0f positions/s  %.0f GFLOP/s  %.0f min left",
            terminal ? "\r\033[K" : "", 100.0 * p->share, (long long)p->step, p->total,
            p->loss[RD_TASK_NEXT], p->loss[RD_TASK_HOLE], p->loss[RD_TASK_BLOCK],
            p->loss[RD_TASK_EDIT], p->rows_per_s, p->gflops, p->left_s / 60.0);
    if (isfinite(p->bits_per_byte))
        fprintf(stderr, "  %.4f bits a byte held out", p->bits_per_byte);
    if (!terminal || isfinite(p->bits_per_byte)) fputc('\n', stderr);
}

/* E8 of the recipe: what a few hours of two cores can train. */
static rd_model_config small_shape(int vocab)
{
    return (rd_model_config){ .vocab_size = vocab,
                              .hidden_size = 256,
                              .num_hidden_layers = 6,
                              .num_attention_heads = 4,
                              .num_key_value_heads = 2,
                              .head_dim = 64,
                              .intermediate_size = 512,
                              .moe_intermediate_size = 128,
                              .num_experts = 8,
                              .num_experts_per_tok = 2,
                              .num_shared_experts = 1,
                              .first_k_dense_replace = 1,
                              .n_group = 1,
                              .topk_group = 1,
                              .block_size = 32,
                              .rotary_dim = 32,
                              .max_position_embeddings = 4096,
                              .rope_theta = 10000.0,
                              .rms_norm_eps = 1e-6,
                              .routed_scaling_factor = 2.5,
                              .tie_word_embeddings = true,
                              .pad_token_id = 1,
                              .mask_token_id = 2,
                              .delete_token_id = 3,
                              .split_token_id = 4,
                              .eos_token_id = { 0 },
                              .eos_count = 1,
                              .infill_layout = true };
}

typedef struct job {
    const rd_backend *backend;
    rd_product product[THREADS_MOST];
    int threads;
    rd_corpus *corpus;
    rd_bpe *bpe;
    rd_mixture *mixture;
    rd_rows *held;
    int held_n;
    rd_params params;
    rd_trainer *trainer;
} job;

static bool has_file(const char *dir, const char *name)
{
    char *path = rd_path_join(dir, name);
    struct stat st;
    bool yes = !stat(path, &st);

    free(path);
    return yes;
}

/* The packed corpus of `dir`; made into `out` first where `dir` holds source trees. */
static rd_status open_corpus(job *j, const char *dir, const char *out, const char *decontam,
                             const char *from_model, rd_error *err)
{
    if (!has_file(dir, "corpus.rdc") && !has_file(out, "corpus.rdc")) {
        char *src = rd_path_join(dir, "src"), *held = rd_path_join(dir, "held");
        rd_corpus_options o = { .train_dir = rd_is_folder(src) ? src : dir,
                                .held_dir = rd_is_folder(held) ? held : NULL,
                                .out = out,
                                .decontam = decontam,
                                .vocab = VOCAB,
                                .tokenizer = from_model,
                                .report = say_line };
        rd_status s = rd_corpus_make(&o, err);

        free(src);
        free(held);
        if (s) return s;
    }
    const char *from = has_file(dir, "corpus.rdc") ? dir : out;
    char *path = rd_path_join(from, "corpus.rdc");
    rd_status s = rd_corpus_open(path, &j->corpus, err);

    free(path);
    j->bpe = rd_bpe_new();
    if (!s) s = rd_bpe_read(j->bpe, from, err);
    return s ? s : rd_mixture_open(j->corpus, j->bpe, &j->mixture, err);
}

static rd_status write_model(job *j, const char *out, rd_error *err)
{
    char *dir = rd_path_join(out, "model"), *csv = rd_path_join(out, "log.csv");
    char *svg = rd_path_join(out, "loss.svg");
    rd_error plot;

    mkdir(dir, 0777);
    rd_status s = rd_params_write(&j->params, rd_trainer_weights(j->trainer), RD_BF16, dir, err);

    if (!s) s = rd_bpe_write(j->bpe, dir, err);
    if (rd_train_plot(csv, svg, &plot)) fprintf(stderr, "%s\n", plot.text);
    free(dir);
    free(csv);
    free(svg);
    return s;
}

static rd_status train(const rd_args *a, job *j, rd_train_options *o, const char *out,
                       const char *from_model, rd_error *err)
{
    rd_model_config c = small_shape(rd_corpus_vocab(j->corpus));
    rd_sampler sampler = rd_mixture_sampler(j->mixture);

    if (from_model && rd_config_read(from_model, &c, err)) return err->status;
    if (from_model) rd_mixture_continue(j->mixture);
    if (c.vocab_size != rd_corpus_vocab(j->corpus))
        return rd_fail(err, RD_INVALID, "%s has %d tokens, the corpus %d", from_model, c.vocab_size,
                       rd_corpus_vocab(j->corpus));
    rd_mixture_held_out(j->mixture, HELD_TOKENS, HELD_PIECE, o->rows_per_pack, &j->held, &j->held_n,
                        &o->held_out_bytes);
    if (j->held_n) {
        o->held_out = j->held;
        o->held_out_packs = j->held_n;
    }
    if (rd_params_init(&j->params, &c, err)) return err->status;
    for (int i = 0; i < o->threads; i++, j->threads++) {
        rd_device_options d = { .threads = 1, .precision = RD_FAST };
        rd_device *device;

        if (j->backend->open(&d, &device, err)) return err->status;
        j->product[i] = (rd_product){ device, j->backend->gemm };
    }
    if (rd_trainer_open(&j->params, o, &sampler, j->product, &j->trainer, err)) return err->status;
    if (from_model && rd_params_read(&j->params, rd_trainer_weights(j->trainer), from_model, err))
        return err->status;
    if (rd_args_flag(a, "--resume") && rd_trainer_resume(j->trainer, out, err)) return err->status;
    if (rd_trainer_run(j->trainer, 0, err)) return err->status;
    return write_model(j, out, err);
}

int rd_tool_train(const rd_args *a)
{
    const char *out = rd_args_text(a, "--out"), *from = rd_args_text(a, "--from");
    char builtin[4096];
    rd_train_options o = rd_train_defaults();
    rd_error err = { 0 };
    job j = { 0 };
    double lr = (double)o.lr;
    int seed = 1, steps = 0, threads = (int)sysconf(_SC_NPROCESSORS_ONLN);

    if (rd_args_count(a) != 1 || !out) return rd_tool_usage(a, "name the corpus folder and --out");
    if (!rd_args_number(a, "--minutes", 0.01, 100000.0, &o.minutes) ||
        !rd_args_number(a, "--lr", 1e-6, 1.0, &lr) ||
        !rd_args_int(a, "--steps", 1, 100000000, &steps) ||
        !rd_args_int(a, "--seed", 0, 2147483647, &seed) ||
        !rd_args_int(a, "--threads", 1, THREADS_MOST, &threads))
        return 2;
    o.lr = (float)lr;
    o.steps = steps;
    o.seed = (uint64_t)seed;
    o.threads = threads;
    o.dir = out;
    o.optimizer.muon = !rd_args_flag(a, "--adamw");
    o.cancel = &stop;
    o.report = say_progress;
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    mkdir(out, 0777);
    if (from && !strcmp(from, "builtin")) {
        if (rd_engine_builtin(builtin, sizeof builtin, &err)) return rd_tool_fail(a, &err);
        from = builtin;
    }
    if (rd_backend_find(rd_args_text(a, "--backend"), &j.backend, &err) ||
        open_corpus(&j, rd_args_at(a, 0), out, rd_args_text(a, "--decontam"), from, &err) ||
        train(a, &j, &o, out, from, &err))
        rd_tool_fail(a, &err);
    rd_trainer_close(j.trainer);
    for (int i = 0; i < j.threads; i++) j.backend->close(j.product[i].device);
    for (int i = 0; i < j.held_n; i++) rd_rows_clear(&j.held[i]);
    free(j.held);
    rd_params_clear(&j.params);
    rd_mixture_close(j.mixture);
    rd_bpe_free(j.bpe);
    rd_corpus_close(j.corpus);
    return err.status ? 1 : 0;
}
