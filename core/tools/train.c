/* train.c - redraft train: source trees to a model folder.
 *
 * DIR is a packed corpus, what core/train/fetch-corpus made (src/ with held/ or list.tsv), or a user's own
 * repository. On the last, training goes on from the built-in model unless --from or --shape says
 * otherwise. Ctrl-C stops after the step under way, with a checkpoint; --resume goes on from it, and --leg
 * stops by itself. --from starts from a model's weights, shape and tokenizer with a fresh optimiser. The arithmetic is
 * that of a backend's learner (core/train/learner.h), a GPU's where one opens.
 */
#include "core/tools/calls.h"

#include "core/base/memory.h"
#include "core/engine.h"
#include "core/format/file.h"
#include "core/plugin.h"
#include "core/tools/shape.h"
#include "core/train/measure.h"
#include "core/train/sampler.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    THREADS_MOST = 64,
    CPU_ROWS = 8192,
    CPU_PACK_ROWS = 2048,
    GPU_ROWS = 65536,
    GPU_PACK_ROWS = 16384,
    HELD_TOKENS = 20000,
    HELD_PIECE = 400,
    HELD_PLACES = 256, /* holes, and as many rewrites */
    VOCAB = 12288,
    LEARNERS = 2
};

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
    char speed[32];

    (void)user;
    if (isfinite(p->mfu))
        snprintf(speed, sizeof speed, "MFU %.0f %%", 100.0 * p->mfu);
    else
        snprintf(speed, sizeof speed, "%.0f GFLOP/s", p->gflops);
    fprintf(stderr,
            "%s%5.1f %%  step %lld  loss %.3f  next %.3f  hole %.3f  block %.3f  edit %.3f  "
            "%.0f positions/s  %s  %.0f min left",
            terminal ? "\r\033[K" : "", 100.0 * p->share, (long long)p->step, p->total,
            p->loss[RD_TASK_NEXT], p->loss[RD_TASK_HOLE], p->loss[RD_TASK_BLOCK],
            p->loss[RD_TASK_EDIT], p->rows_per_s, speed, p->left_s / 60.0);
    if (p->measured)
        fprintf(
            stderr,
            "\nheld out: %.4f bits a byte; holes %.4f, %.1f %% of their tokens; lengths %.1f %%; "
            "faults mended %.1f %%, right tokens kept %.1f %%",
            p->held.bits_per_byte, p->held.hole_bits_per_byte, 100.0 * p->held.hole_right,
            100.0 * p->held.length_right, 100.0 * p->held.mended, 100.0 * p->held.kept);
    if (!terminal || p->measured) fputc('\n', stderr);
}

typedef struct plan { /* what the call asks for */
    const char *dir, *out, *decontam;
    const char *from;    /* a model's folder, or NULL */
    const char *shape;   /* where there is no model */
    const char *mix;     /* what of the mixture is not the default, or NULL */
    int vocab;           /* asked of a tokenizer that is learnt or grown; 0: not */
    int rows, pack_rows; /* of a step, of a pack; 0: as suits the learner */
    bool repository, resume, pack_only;
} plan;

typedef struct job {
    const rd_learner_table *learner[LEARNERS]; /* the first that opens is taken */
    int learners;
    rd_corpus *corpus;
    rd_bpe *bpe;
    rd_mixture_options mix;
    rd_kept_term term[RD_MIXTURE_TERMS];
    rd_mixture *mixture;
    rd_held held;
    rd_params params;
    rd_trainer *trainer;
    char data[64]; /* names the corpus */
} job;

static bool has_file(const char *dir, const char *name)
{
    char *path = rd_path_join(dir, name);
    struct stat st;
    bool yes = !stat(path, &st);

    free(path);
    return yes;
}

/* A folder of source that is neither packed nor fetched by the recipe. */
static bool is_repository(const char *dir)
{
    bool fetched = has_file(dir, "src") && (has_file(dir, "held") || has_file(dir, "list.tsv"));

    return !has_file(dir, "corpus.rdc") && !fetched;
}

static rd_status make_corpus(const plan *p, rd_error *err)
{
    char *src = rd_path_join(p->dir, "src"), *held = rd_path_join(p->dir, "held");
    rd_corpus_options o = { .train_dir = !p->repository && rd_is_folder(src) ? src : p->dir,
                            .one_package = p->repository,
                            .held_dir = !p->repository && rd_is_folder(held) ? held : NULL,
                            .out = p->out,
                            .decontam = p->decontam,
                            .vocab = p->vocab  ? p->vocab
                                     : p->from ? 0
                                               : VOCAB,
                            .tokenizer = p->from,
                            .report = say_line };
    rd_status s = rd_corpus_make(&o, err);

    free(src);
    free(held);
    return s;
}

/* The ids of a corpus mean something else in a model whose tokenizer merges otherwise. */
static rd_status check_tokenizer(const rd_bpe *bpe, const plan *p, const char *where, rd_error *err)
{
    const int32_t(*ours)[2], (*theirs)[2];
    rd_bpe *model = rd_bpe_new();
    rd_status s = rd_bpe_read(model, p->from, err);
    int n = rd_bpe_merges(bpe, &ours);

    if (!s && (rd_bpe_merges(model, &theirs) != n ||
               (n > 0 && memcmp(ours, theirs, (size_t)n * sizeof *ours) != 0)))
        s = rd_fail(err, RD_INVALID, "%s: packed with another tokenizer than that of %s", where,
                    p->from);
    rd_bpe_free(model);
    return s;
}

/* The packed corpus of the plan's folder; made into `out` first where that holds source trees. A
 * repository changes, so only a run that goes on takes what was packed before. */
static rd_status open_corpus(job *j, const plan *p, rd_error *err)
{
    bool packed = has_file(p->dir, "corpus.rdc");
    bool keep = has_file(p->out, "corpus.rdc") && (p->resume || !p->repository);
    const char *from = packed ? p->dir : p->out;
    char *path = rd_path_join(from, "corpus.rdc");
    rd_status s = RD_OK;

    if (!packed && keep) fprintf(stderr, "the corpus is %s, packed before\n", path);
    if (!packed && !keep) s = make_corpus(p, err);
    if (!s) s = rd_corpus_open(path, &j->corpus, err);
    free(path);
    if (s) return s;
    j->bpe = rd_bpe_new();
    if (rd_bpe_read(j->bpe, from, err)) return err->status;
    if (p->from && !p->pack_only && check_tokenizer(j->bpe, p, from, err)) return err->status;
    snprintf(j->data, sizeof j->data, "%d documents, digest %016llx", rd_corpus_count(j->corpus),
             (unsigned long long)rd_corpus_digest(j->corpus));
    return rd_mixture_open(j->corpus, j->bpe, &j->mix, &j->mixture, err);
}

static rd_status write_model(job *j, const char *out, rd_error *err)
{
    char *dir = rd_path_join(out, "model"), *csv = rd_path_join(out, "log.csv");
    char *svg = rd_path_join(out, "loss.svg");
    float *w = rd_try_alloc_array(j->params.size, sizeof *w);
    rd_error plot;
    rd_status s = RD_OK;

    if (!w) s = rd_fail(err, RD_NO_MEMORY, "the model: no memory for %zu weights", j->params.size);
    mkdir(dir, 0777);
    if (!s) s = rd_trainer_result(j->trainer, w, err);
    if (!s) s = rd_params_write(&j->params, w, RD_BF16, dir, err);
    if (!s) s = rd_bpe_write(j->bpe, dir, err);
    if (rd_train_plot(csv, svg, &plot)) fprintf(stderr, "%s\n", plot.text);
    free(w);
    free(dir);
    free(csv);
    free(svg);
    return s;
}

/* ---- the learner ---- */

/* The learner that a plugin brings, where the plugin has a device. */
static rd_status plugin_learner(const char *name, const rd_learner_table **out, rd_error *err)
{
    const rd_backend *backend;
    rd_plugin_entry entry;

    if (rd_backend_find(name, &backend, err) ||
        rd_plugin_symbol(name, "rd_learner_entry", &entry, err))
        return err->status;
    const rd_learner_table *t = ((rd_learner_entry_fn)entry)();

    if (rd_learner_accept(t, name, err)) return err->status;
    *out = t;
    return RD_OK;
}

/* The learners that may be taken, the best first: of one backend, or a GPU's and the CPU's. */
static rd_status find_learners(job *j, const char *backend, rd_error *err)
{
    bool any = rd_backend_is_auto(backend);
    rd_error why = { 0 };

    if (any || strcmp(backend, "cpu") != 0) {
        rd_status s = plugin_learner(any ? "cuda" : backend, &j->learner[0], &why);

        if (s && !any) return rd_fail(err, s, "%s", why.text);
        if (s && s != RD_NOT_FOUND) rd_log(RD_LOG_INFO, "not trained on cuda: %s", why.text);
        j->learners += !s;
    }
    if (any || j->learners == 0) j->learner[j->learners++] = rd_cpu_learner();
    return RD_OK;
}

static bool is_cpu(const rd_learner_table *t)
{
    return t == rd_cpu_learner();
}

/* Rows of a step and of a pack. A GPU is filled by large packs; two cores finish few steps of them. */
static void choose_rows(const rd_learner_table *t, const plan *p, rd_train_options *o)
{
    o->rows_per_step = p->rows ? p->rows : is_cpu(t) ? CPU_ROWS : GPU_ROWS;
    o->rows_per_pack = p->pack_rows ? p->pack_rows : is_cpu(t) ? CPU_PACK_ROWS : GPU_PACK_ROWS;
    if (o->rows_per_pack > o->rows_per_step) o->rows_per_pack = o->rows_per_step;
}

static rd_status open_trainer(job *j, const plan *p, rd_train_options *o, rd_error *err)
{
    rd_sampler sampler = rd_mixture_sampler(j->mixture);
    rd_status s = RD_OK;

    for (int i = 0; i < j->learners; i++) {
        choose_rows(j->learner[i], p, o);
        rd_held_clear(&j->held);
        rd_held_make(j->corpus, j->bpe, HELD_TOKENS, HELD_PIECE, HELD_PLACES, o->rows_per_pack,
                     &j->held);
        o->held = j->held.text.n > 0 ? &j->held : NULL;
        s = rd_trainer_open(&j->params, o, &sampler, j->learner[i], &j->trainer, err);
        if (!s) break;
        if (i + 1 < j->learners) fprintf(stderr, "not on %s: %s\n", j->learner[i]->name, err->text);
    }
    if (!s)
        fprintf(stderr, "trained on %s; %d positions a step, in packs of %d\n",
                rd_trainer_describe(j->trainer), o->rows_per_step, o->rows_per_pack);
    return s;
}

/* The weights of the model that the run starts from. */
static rd_status read_weights(job *j, const char *from, rd_error *err)
{
    float *w = rd_try_alloc_array(j->params.size, sizeof *w);
    rd_status s = RD_OK;

    if (!w) s = rd_fail(err, RD_NO_MEMORY, "%s: no memory for its weights", from);
    if (!s) s = rd_params_read(&j->params, w, from, err);
    if (!s) s = rd_trainer_set_weights(j->trainer, w, err);
    free(w);
    return s;
}

static rd_status train(job *j, const plan *p, rd_train_options *o, rd_error *err)
{
    rd_model_config c;

    if (!rd_shape_recipe(p->shape, rd_corpus_vocab(j->corpus), &c))
        return rd_fail(err, RD_INVALID, "no shape is called %s", p->shape);
    if (p->from && rd_config_read(p->from, &c, err)) return err->status;
    if (c.vocab_size != rd_corpus_vocab(j->corpus))
        return rd_fail(err, RD_INVALID, "%s has %d tokens, the corpus %d", p->from, c.vocab_size,
                       rd_corpus_vocab(j->corpus));
    o->data = j->data;
    o->terms = j->term;
    o->n_terms = rd_mixture_terms(&j->mix, j->term);
    if (rd_params_init(&j->params, &c, err)) return err->status;
    if (open_trainer(j, p, o, err)) return err->status;
    if (p->from && !p->resume && read_weights(j, p->from, err)) return err->status;
    if (p->resume && rd_trainer_resume(j->trainer, p->out, err)) return err->status;
    if (rd_trainer_run(j->trainer, 0, err)) return err->status;
    if (rd_trainer_over(j->trainer)) return write_model(j, p->out, err);
    fprintf(stderr, "the leg is over after %lld steps; --resume goes on\n",
            (long long)rd_trainer_steps(j->trainer));
    return RD_OK;
}

static void close_job(job *j)
{
    rd_trainer_close(j->trainer);
    rd_held_clear(&j->held);
    rd_params_clear(&j->params);
    rd_mixture_close(j->mixture);
    rd_bpe_free(j->bpe);
    rd_corpus_close(j->corpus);
}

/* What will happen, and for how long, before it does. */
static void say_plan(const plan *p, const rd_train_options *o, const rd_learner_table *learner,
                     bool builtin)
{
    char start[64], on[32];

    snprintf(start, sizeof start, "nothing, in the shape %s", p->shape);
    snprintf(on, sizeof on, "%d threads", o->threads);
    if (!is_cpu(learner)) snprintf(on, sizeof on, "%.20s", learner->name);
    fprintf(stderr, "%s %s; the result is %s/model\n",
            p->resume ? "going on with a training from" : "training from",
            builtin   ? "the built-in model (--from none: from nothing)"
            : p->from ? p->from
                      : start,
            p->out);
    if (o->steps > 0)
        fprintf(stderr, "this takes %lld steps on %s; the lines below say how long that is\n",
                (long long)o->steps, on);
    else
        fprintf(stderr,
                "this takes %g minutes on %s (--minutes); Ctrl-C stops it, --resume goes on\n",
                o->minutes, on);
    if (o->leg_minutes > 0.0)
        fprintf(stderr, "this call stops after %g minutes (--leg)\n", o->leg_minutes);
}

/* What the second part of the built-in model's own training was done with. */
static void go_on_gently(rd_train_options *o, double *lr)
{
    *lr = 1.2e-3;
    o->decay_share = 0.6f;
}

/* The keys of --mix as they stand without it. */
static int list_mixture(void)
{
    rd_mixture_options o = rd_mixture_defaults(false);
    rd_buf text = { 0 };

    rd_mixture_describe(&o, &text);
    fputs(text.data, stdout);
    rd_buf_clear(&text);
    return 0;
}

int rd_tool_train(const rd_args *a)
{
    const char *from = rd_args_text(a, "--from"), *shape = rd_args_text(a, "--shape");
    char builtin[4096];
    rd_train_options o = rd_train_defaults();
    rd_model_config unused;
    rd_error err = { 0 };
    job j = { 0 };
    double lr = (double)o.lr, average = 0.0;
    int seed = 1, steps = 0, threads = (int)sysconf(_SC_NPROCESSORS_ONLN);
    plan p = { .dir = rd_args_count(a) == 1 ? rd_args_at(a, 0) : NULL,
               .out = rd_args_text(a, "--out"),
               .decontam = rd_args_text(a, "--decontam"),
               .mix = rd_args_text(a, "--mix"),
               .shape = shape ? shape : "e8",
               .resume = rd_args_flag(a, "--resume") };

    if (p.mix && !strcmp(p.mix, "list")) return list_mixture();
    if (!p.dir || !p.out) return rd_tool_usage(a, "name the folder to learn from and --out");
    if (!rd_shape_recipe(p.shape, 1, &unused))
        return rd_tool_usage(a, "--shape is tiny, e8, e21 or e46, not %s", shape);
    if (shape && from && strcmp(from, "none") != 0)
        return rd_tool_usage(a, "--from brings its own shape; leave --shape out");
    p.repository = is_repository(p.dir);
    if (!from && p.repository && !shape) from = "builtin";
    if (from && strcmp(from, "none") != 0 && p.repository) go_on_gently(&o, &lr);
    if (!rd_args_number(a, "--minutes", 0.0, 100000.0, &o.minutes) ||
        !rd_args_number(a, "--lr", 1e-6, 1.0, &lr) ||
        !rd_args_number(a, "--average", 0.0, 1.0, &average) ||
        !rd_args_int(a, "--steps", 1, 100000000, &steps) ||
        !rd_args_number(a, "--leg", 0.0, 100000.0, &o.leg_minutes) ||
        !rd_args_int(a, "--rows", 64, 1 << 20, &p.rows) ||
        !rd_args_int(a, "--pack-rows", 64, 1 << 18, &p.pack_rows) ||
        !rd_args_int(a, "--vocab", 320, 65536, &p.vocab) ||
        !rd_args_int(a, "--seed", 0, 2147483647, &seed) ||
        !rd_args_int(a, "--threads", 1, THREADS_MOST, &threads))
        return 2;
    p.pack_only = o.minutes <= 0.0;
    if (rd_args_text(a, "--vocab") && from && strcmp(from, "none") != 0 && !p.pack_only)
        return rd_tool_usage(a, "--from brings its own tokenizer; leave --vocab out");
    if (rd_args_text(a, "--vocab") && has_file(p.dir, "corpus.rdc"))
        return rd_tool_usage(a, "%s is packed already; leave --vocab out", p.dir);
    j.mix = rd_mixture_defaults(from && strcmp(from, "none") != 0);
    if (p.mix && rd_mixture_parse(&j.mix, p.mix, &err)) return rd_tool_usage(a, "%s", err.text);
    o.lr = (float)lr;
    o.average_share = (float)average;
    if (rd_args_flag(a, "--no-fake-quant")) o.fake_int8_share = 0.0f;
    o.steps = steps;
    o.seed = (uint64_t)seed;
    o.threads = threads;
    o.dir = p.out;
    o.optimizer.muon = !rd_args_flag(a, "--adamw");
    o.cancel = &stop;
    o.report = say_progress;
    if (!rd_is_folder(p.dir)) {
        rd_fail(&err, RD_NOT_FOUND, "%s: %s", p.dir,
                access(p.dir, F_OK) ? "no such folder" : "not a folder");
        return rd_tool_fail(a, &err);
    }
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    if (mkdir(p.out, 0777) && !rd_is_folder(p.out)) {
        rd_fail(&err, RD_IO, "%s: %s", p.out, strerror(errno));
        return rd_tool_fail(a, &err);
    }
    bool is_builtin = from && !strcmp(from, "builtin");

    if (is_builtin && rd_engine_builtin(builtin, sizeof builtin, &err))
        return rd_tool_fail(a, &err);
    p.from = is_builtin ? builtin : from && strcmp(from, "none") != 0 ? from : NULL;
    if (find_learners(&j, rd_args_text(a, "--backend"), &err)) return rd_tool_fail(a, &err);
    if (!p.pack_only) say_plan(&p, &o, j.learner[0], is_builtin);
    if (open_corpus(&j, &p, &err) || (!p.pack_only && train(&j, &p, &o, &err)))
        rd_tool_fail(a, &err);
    else if (p.pack_only)
        fprintf(stderr, "packed: %s\n", j.data);
    close_job(&j);
    return err.status ? 1 : 0;
}
