/* golden_traces.c - recorded decoding: every pass of a run against what the reference wrote, and single calls
 * of the diffusers scheduler.
 *
 * The run is our decoder's own, with the reference's quirks; nothing is fed from the record but prompt
 * and settings. A field that a record has not is not compared.
 */
#include "core/base/memory.h"
#include "core/decode/decoder.h"
#include "core/format/file.h"
#include "core/tools/golden.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Passes that a dumped run may need beyond the recorded ones. */
enum { PASSES_MORE = 64 };

static const double of_conf = 1e-3;

typedef struct trace {
    const char *name;
    rd_value value, params;
    rd_policy policy;
    rd_ids prompt;
    int block, gen;
    int32_t eos;
    bool robust, early_stop;
} trace;

/* What a run did, in the record's own terms. */
typedef struct counts {
    int forwards, m2t_tokens, fallback_steps, threshold_steps;
    int t2t_tokens, t2t_steps, t2t_during_unmask_steps, post_steps, t2t_post_steps, remask_writes;
    int deletes, splits, final_rounds;
} counts;

/* ---- comparing ---- */

static bool same_ids(rd_value list, const int32_t *ids, int n)
{
    rd_ids want = { 0 };
    bool same = rd_value_ids(list, &want) && want.n == n &&
                (n == 0 || !memcmp(want.id, ids, (size_t)n * sizeof *ids));

    rd_ids_clear(&want);
    return same;
}

static void slots_list(const rd_slots *s, int n, rd_ids *out)
{
    for (int i = 0; i < n; i++)
        if (rd_slots_has(s, i)) rd_ids_push(out, i);
}

static int compare_ids(const void *x, const void *y)
{
    int32_t a = *(const int32_t *)x, b = *(const int32_t *)y;

    return (a > b) - (a < b);
}

/* A set as a list, in whatever order. */
static bool same_set(rd_value list, const rd_ids *got)
{
    rd_ids want = { 0 };
    bool ok = rd_value_ids(list, &want) && want.n == got->n;

    if (ok && want.n > 0) {
        qsort(want.id, (size_t)want.n, sizeof *want.id, compare_ids);
        ok = !memcmp(want.id, got->id, (size_t)want.n * sizeof *want.id);
    }
    rd_ids_clear(&want);
    return ok;
}

static bool same_slots(rd_value list, const rd_slots *s, int n)
{
    rd_ids got = { 0 };

    slots_list(s, n, &got);
    bool ok = same_set(list, &got);

    rd_ids_clear(&got);
    return ok;
}

static bool same_flags(rd_value list, const bool *flags, int n)
{
    bool ok = rd_value_count(list) == n;

    for (int i = 0; ok && i < n; i++) {
        rd_value at = rd_value_at(list, i);

        ok = rd_value_bool(at, rd_value_int(at, -1) == 1) == flags[i];
    }
    return ok;
}

/* One pass as the record shows it. */
typedef struct seen_step {
    const rd_decoder_step *s;
    rd_slots remask;
    int deletes, splits, step;
    bool masked; /* before it */
} seen_step;

static seen_step look(const trace *t, const rd_decoder_step *s)
{
    const rd_block *b = s->block;
    const rd_edit_ids *ids = &t->policy.ids;
    seen_step v = { .s = s,
                    .step = s->state->passes - 1,
                    .masked = rd_block_masks(s->before, ids->mask) > 0 };

    for (int i = 0; i < b->size; i++) {
        bool wrote = rd_slots_has(&s->change->filled, i) || rd_slots_has(&s->change->edited, i);

        if (wrote && s->picks[i].token == ids->mask) rd_slots_add(&v.remask, i);
        if (t->policy.kind != RD_POLICY_22 || s->before->pinned[i]) continue;
        v.deletes += ids->del >= 0 && s->change->written[i] == ids->del;
        v.splits += ids->split >= 0 && s->change->written[i] == ids->split;
    }
    return v;
}

static const char *compare_picks(rd_value want, const rd_pick *picks, int n)
{
    rd_value x0 = rd_value_get(want, "x0"), conf = rd_value_get(want, "conf");

    if (rd_value_count(x0) != n) return "x0";
    if (rd_value_count(conf) != n) return "conf";
    for (int i = 0; i < n; i++) {
        double off = rd_value_number(rd_value_at(conf, i), -1.0) - (double)picks[i].prob;

        if (rd_value_int(rd_value_at(x0, i), -1) != picks[i].token) return "x0";
        if (!(fabs(off) <= of_conf)) return "conf";
    }
    return NULL;
}

/* The first field that differs, or NULL. */
static const char *compare_step(rd_value want, const trace *t, const seen_step *v)
{
    const rd_decoder_step *s = v->s;
    const rd_change *c = s->change;
    const rd_block *b = s->block;
    bool v22 = t->policy.kind == RD_POLICY_22;
    struct number {
        const char *key;
        int got;
    } numbers[] = { { "window_end", s->window_end },
                    { "step", v->step },
                    { "post_steps", s->state->post },
                    { "deletes", v->deletes },
                    { "splits", v->splits } };
    struct flag {
        const char *key;
        bool got;
    } flags[] = { { "fallback", c->fallback },
                  { "final_round", c->final_round },
                  { "was_finalized", c->was_final },
                  { "block_finished", c->over } };

    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        rd_value x = rd_value_get(want, numbers[i].key);

        if (x && rd_value_int(x, INT64_MIN) != numbers[i].got) return numbers[i].key;
    }
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        rd_value x = rd_value_get(want, flags[i].key);

        if (x && rd_value_bool(x, !flags[i].got) != flags[i].got) return flags[i].key;
    }
    if (rd_value_get(want, "before") &&
        !same_ids(rd_value_get(want, "before"), s->before->token, b->size))
        return "before";
    if (!same_ids(rd_value_get(want, "after"), b->token, b->size)) return "after";
    if (rd_value_get(want, "remask") &&
        !same_slots(rd_value_get(want, "remask"), &v->remask, b->size))
        return "remask";
    if (rd_value_get(want, "is_original_mask_before") &&
        !same_flags(rd_value_get(want, "is_original_mask_before"), s->before->original, b->size))
        return "is_original_mask_before";
    if (rd_value_get(want, "is_original_mask_after") &&
        !same_flags(rd_value_get(want, "is_original_mask_after"), b->original, b->size))
        return "is_original_mask_after";
    if (v22)
        return same_ids(rd_value_get(want, "before_edit_ops"), c->written, b->size)
                   ? NULL
                   : "before_edit_ops";
    if (!same_slots(rd_value_get(want, "m2t"), &c->filled, b->size)) return "m2t";
    if (!same_slots(rd_value_get(want, "t2t"), &c->edited, b->size)) return "t2t";
    return compare_picks(want, s->picks, b->size);
}

static void count_step(counts *n, const seen_step *v)
{
    const rd_change *c = v->s->change;
    int filled = rd_slots_count(&c->filled), edited = rd_slots_count(&c->edited);

    n->forwards++;
    n->m2t_tokens += filled;
    n->t2t_tokens += edited;
    n->t2t_steps += edited > 0;
    n->fallback_steps += v->masked && c->fallback;
    n->threshold_steps += v->masked && !c->fallback;
    n->t2t_during_unmask_steps += v->masked && edited > 0;
    n->post_steps += !v->masked;
    n->t2t_post_steps += !v->masked && edited > 0;
    n->remask_writes += rd_slots_count(&v->remask);
    n->deletes += v->deletes;
    n->splits += v->splits;
    n->final_rounds += c->final_round;
}

typedef struct named_count {
    const char *key;
    int n;
} named_count;

enum { COUNTS = 10 };

/* The counts by name, those that the record of a kind has first: 10 of 2.0 and 2.1, 3 of diffusers. */
static void name_counts(const counts *n, rd_policy_kind kind, named_count out[COUNTS], int *used)
{
    const named_count all[COUNTS] = { { "forwards", n->forwards },
                                      { "m2t_tokens", n->m2t_tokens },
                                      { "t2t_tokens", n->t2t_tokens },
                                      { "fallback_steps", n->fallback_steps },
                                      { "threshold_steps", n->threshold_steps },
                                      { "t2t_steps", n->t2t_steps },
                                      { "t2t_during_unmask_steps", n->t2t_during_unmask_steps },
                                      { "post_steps", n->post_steps },
                                      { "t2t_post_steps", n->t2t_post_steps },
                                      { "remask_writes", n->remask_writes } };
    const named_count v22[] = { { "forwards", n->forwards },
                                { "deletes", n->deletes },
                                { "splits", n->splits },
                                { "final_rounds", n->final_rounds } };

    memcpy(out, all, sizeof all);
    *used = kind == RD_POLICY_DIFFUSERS ? 3 : 10;
    if (kind != RD_POLICY_22) return;
    memcpy(out, v22, sizeof v22);
    *used = 4;
}

static const char *compare_counts(rd_value want, const counts *n, rd_policy_kind kind)
{
    named_count list[COUNTS];
    int used;

    name_counts(n, kind, list, &used);
    for (int i = 0; i < used; i++) {
        rd_value x = rd_value_get(want, list[i].key);

        if (x && rd_value_int(x, -1) != list[i].n) return list[i].key;
    }
    return NULL;
}

/* ---- writing what was done ---- */

static void write_number(rd_buf *out, const char *key, int n)
{
    rd_golden_field(out, key);
    rd_buf_format(out, "%d", n);
}

static void write_flag(rd_buf *out, const char *key, bool yes)
{
    rd_golden_field(out, key);
    rd_buf_text(out, yes ? "true" : "false");
}

static void write_slots(rd_buf *out, const char *key, const rd_slots *s, int n)
{
    rd_ids list = { 0 };

    slots_list(s, n, &list);
    rd_golden_ids(out, key, list.id, list.n);
    rd_ids_clear(&list);
}

static void write_flags(rd_buf *out, const char *key, const bool *flags, int n)
{
    rd_golden_field(out, key);
    for (int i = 0; i < n; i++) rd_buf_format(out, "%c%d", i ? ',' : '[', flags[i]);
    rd_buf_text(out, "]");
}

static void write_picks(rd_buf *out, const rd_pick *picks, int n)
{
    rd_golden_field(out, "x0");
    for (int i = 0; i < n; i++) rd_buf_format(out, "%c%d", i ? ',' : '[', picks[i].token);
    rd_buf_text(out, "]");
    rd_golden_field(out, "conf");
    for (int i = 0; i < n; i++) rd_buf_format(out, "%c%.9g", i ? ',' : '[', (double)picks[i].prob);
    rd_buf_text(out, "]");
}

static void write_step(rd_buf *out, const trace *t, const seen_step *v)
{
    const rd_decoder_step *s = v->s;
    const rd_change *c = s->change;
    const rd_block *b = s->block;
    int n = b->size;
    bool v22 = t->policy.kind == RD_POLICY_22, diffusers = t->policy.kind == RD_POLICY_DIFFUSERS;

    rd_buf_text(out, "{");
    write_number(out, "window_end", s->window_end);
    if (!diffusers) {
        write_number(out, "step", v->step);
        rd_golden_ids(out, "before", s->before->token, n);
    }
    if (v22) {
        write_flags(out, "is_original_mask_before", s->before->original, n);
        rd_golden_ids(out, "before_edit_ops", c->written, n);
        rd_golden_ids(out, "after", b->token, n);
        write_flags(out, "is_original_mask_after", b->original, n);
        write_number(out, "post_steps", s->state->post);
        write_flag(out, "final_round", c->final_round);
        write_flag(out, "was_finalized", c->was_final);
        write_number(out, "deletes", v->deletes);
        write_number(out, "splits", v->splits);
        write_flag(out, "block_finished", c->over);
    } else {
        write_picks(out, s->picks, n);
        write_slots(out, "m2t", &c->filled, n);
        write_slots(out, "t2t", &c->edited, n);
        if (!diffusers) write_flag(out, "fallback", c->fallback);
        if (!diffusers) write_slots(out, "remask", &v->remask, n);
        rd_golden_ids(out, "after", b->token, n);
    }
    rd_buf_text(out, "}");
}

static void write_counts(rd_buf *out, const counts *n, rd_policy_kind kind)
{
    named_count list[COUNTS];
    int used;

    name_counts(n, kind, list, &used);
    rd_golden_field(out, "counts");
    rd_buf_text(out, "{");
    for (int i = 0; i < used; i++) write_number(out, list[i].key, list[i].n);
    rd_buf_text(out, "}");
}

/* ---- a run ---- */

typedef struct replay {
    rd_golden_folder *f;
    const trace *t;
    rd_buf *steps; /* NULL: not written, and the run ends at the first difference */
    const char *differs;
    int at; /* pass that differs */
    counts n;
    rd_ids output;
} replay;

static void check_pass(replay *r, const rd_decoder_step *s)
{
    rd_value steps = rd_value_get(r->t->value, "steps");
    rd_value want = rd_value_at(steps, r->n.forwards);
    seen_step v = look(r->t, s);

    if (!r->differs) {
        r->differs = want ? compare_step(want, r->t, &v) : "number of passes";
        r->at = r->n.forwards;
    }
    count_step(&r->n, &v);
    if (!r->steps) return;
    if (r->n.forwards > 1) rd_buf_text(r->steps, ",\n");
    write_step(r->steps, r->t, &v);
}

/* Runs until it is over, or differs and nobody wants the rest. */
static rd_status run_decoder(replay *r, rd_decoder *d, rd_error *err)
{
    int most = rd_value_count(rd_value_get(r->t->value, "steps")) + PASSES_MORE;
    rd_decoder_step s = { 0 };

    while (!s.done && (!r->differs || (r->steps && r->n.forwards < most))) {
        if (rd_decoder_step_run(d, &s, err)) return err->status;
        if (s.passed) check_pass(r, &s);
    }
    rd_decoder_output(d, &r->output);
    if (r->differs) return RD_OK;
    r->at = r->n.forwards;
    if (r->n.forwards != rd_value_count(rd_value_get(r->t->value, "steps")))
        r->differs = "number of passes";
    else if (!same_ids(rd_value_get(r->t->value, "output"), r->output.id, r->output.n))
        r->differs = "output";
    else
        r->differs = compare_counts(rd_value_get(r->t->value, "counts"), &r->n, r->t->policy.kind);
    return RD_OK;
}

static rd_status run_trace(replay *r, rd_error *err)
{
    const trace *t = r->t;
    int total = (t->prompt.n + t->gen + t->block - 1) / t->block * t->block;
    int window = r->f->config.expert_capacity > 0 ? r->f->config.block_size : 1;
    bool cached = t->policy.kind != RD_POLICY_DIFFUSERS && t->block % window == 0;
    rd_model *m = NULL;
    rd_kv_pool *pool = NULL;
    rd_decoder *d = NULL;

    if (rd_golden_model(r->f, t->block, total, &m, err)) goto out;
    if (cached) pool = rd_kv_pool_new(rd_model_kv_blocks(m), t->block);
    rd_decoder_options o = { .model = m,
                             .pool = pool,
                             .block = t->block,
                             .policy = t->policy,
                             .stop = &t->eos,
                             .n_stop = t->policy.kind != RD_POLICY_22 && t->eos >= 0,
                             .early_stop = t->early_stop };

    if (rd_decoder_open(&o, t->prompt.id, t->prompt.n, t->gen, &d, err)) goto out;
    run_decoder(r, d, err);
out:
    rd_decoder_close(d);
    rd_kv_pool_free(pool);
    rd_model_close(m);
    return err->status;
}

static void replay_case(rd_golden_folder *f, const trace *t, rd_buf *out)
{
    static const char *const computed[] = { "output", "counts", "steps", "margins", NULL };
    rd_buf steps = { 0 };
    replay r = { .f = f, .t = t, .steps = f->dump ? &steps : NULL };
    rd_error err = { 0 };

    if (run_trace(&r, &err))
        rd_golden_fail(f, t->name, "%s", err.text);
    else if (!t->robust)
        rd_golden_skip(f, t->name, "not marked robust (%s)", r.differs ? "differs" : "agrees");
    else if (r.differs)
        rd_golden_fail(f, t->name, "pass %d: %s differs", r.at, r.differs);
    else
        rd_golden_pass(f, t->name);
    if (f->dump && !err.status) {
        rd_buf_text(out, out->len > 0 && out->data[out->len - 1] == '}' ? ",\n{" : "\n{");
        rd_golden_copy_fields(t->value, computed, out);
        rd_golden_ids(out, "output", r.output.id, r.output.n);
        write_counts(out, &r.n, t->policy.kind);
        rd_golden_field(out, "steps");
        rd_buf_text(out, "[\n");
        rd_buf_append(out, steps.data ? steps.data : "", steps.len);
        rd_buf_text(out, "]}");
    }
    rd_buf_clear(&steps);
    rd_ids_clear(&r.output);
}

/* ---- reading a case ---- */

static int64_t whole(rd_value v, int64_t absent)
{
    return rd_value_is_null(v) ? absent : rd_value_int(v, INT64_MIN);
}

/* A whole number of the settings. */
static int64_t setting(const trace *t, const char *key, int64_t absent)
{
    return whole(rd_value_get(t->params, key), absent);
}

static int clamped(int64_t n, int least, int most)
{
    return n < least ? least : n > most ? most : (int)n;
}

/* Settings that a case does not give are the defaults of the public code's own functions. */
static rd_policy policy_of(const rd_golden_folder *f, const trace *t, rd_policy_kind kind)
{
    static const struct {
        double fill, edit;
    } absent[] = { [RD_POLICY_20] = { 0.95, 0.9 },
                   [RD_POLICY_21] = { 0.95, 0.9 },
                   [RD_POLICY_22] = { 0.5, 0.0 },
                   [RD_POLICY_DIFFUSERS] = { 0.7, 0.5 } };
    rd_policy p = rd_policy_dial(kind, 0.0f);
    bool diffusers = kind == RD_POLICY_DIFFUSERS;
    rd_value edit = rd_value_get(t->params, "editing_threshold");
    int64_t topk = setting(t, "minimal_topk", 1);

    p.reference_quirks = true;
    p.max_passes = kind == RD_POLICY_22
                       ? clamped(setting(t, "max_steps_per_block", 1000), 1, RD_SEEN_MOST)
                       : INT_MAX; /* the others stop by themselves, or with the record */
    p.threshold = (float)rd_value_number(rd_value_get(t->params, "threshold"), absent[kind].fill);
    /* null is no editing, and says so in diffusers alone */
    p.edit_threshold = (float)rd_value_number(edit, edit ? 0.0 : absent[kind].edit);
    p.max_post_steps = clamped(setting(t, "max_post_steps", 16), -1, INT_MAX);
    p.num_to_transfer = clamped(setting(t, "num_to_transfer", 1), 0, INT_MAX);
    p.steps = clamped(setting(t, diffusers ? "num_inference_steps" : "steps", 32), 0, INT_MAX);
    if (kind == RD_POLICY_20 && topk > 0 && p.steps > t->gen / topk) p.steps = (int)(t->gen / topk);
    if (kind == RD_POLICY_22) {
        p.ids.del = f->config.delete_token_id;
        p.ids.split = f->config.split_token_id;
    }
    return p;
}

static bool read_trace(const rd_golden_folder *f, rd_value special, rd_policy_kind kind, trace *t)
{
    /* 2.2 writes these two beside the settings. */
    int64_t block = setting(t, "block_length", whole(rd_value_get(t->value, "block_length"), 32));
    int64_t gen = setting(t, "gen_length", whole(rd_value_get(t->value, "gen_length"), 2048));
    int64_t mask = setting(t, "mask_id",
                           rd_value_int(rd_value_get(special, "mask_id"), f->config.mask_token_id));
    int64_t eos = setting(t, "eos_id", rd_value_int(rd_value_get(special, "eos_id"), -1));

    if (!t->name || gen < 1 || gen > RD_GOLDEN_ROWS_MOST || mask < 0 || mask > INT32_MAX ||
        eos < -1 || eos > INT32_MAX || block < 1 || block > INT32_MAX / 4)
        return false;
    if (!rd_value_ids(rd_value_get(t->value, "prompt"), &t->prompt) ||
        t->prompt.n > RD_GOLDEN_ROWS_MOST)
        return false;
    t->block = (int)block;
    t->gen = (int)gen;
    t->eos = (int32_t)eos;
    t->policy = policy_of(f, t, kind);
    t->policy.ids.mask = (int32_t)mask;
    t->robust = rd_value_bool(rd_value_get(t->value, "robust"), false);
    t->early_stop =
        rd_value_bool(rd_value_get(t->params, "eos_early_stop"), kind == RD_POLICY_DIFFUSERS);
    return true;
}

/* decode.json holds 2.0 and 2.1; a case says which. False for a version that is not known. */
static bool kind_of(rd_value c, rd_policy_kind file, rd_policy_kind *out)
{
    static const struct {
        const char *version;
        rd_policy_kind kind;
    } known[] = { { "2.0", RD_POLICY_20 }, { "2.1", RD_POLICY_21 }, { "2.2", RD_POLICY_22 } };
    const char *version = rd_golden_text(rd_value_get(c, "version"));

    *out = file;
    if (file != RD_POLICY_20 || !rd_value_get(c, "version")) return true;
    for (size_t i = 0; version && i < sizeof known / sizeof *known; i++) {
        *out = known[i].kind;
        if (!strcmp(known[i].version, version)) return true;
    }
    return false;
}

static void run_case(rd_golden_folder *f, rd_value special, rd_policy_kind file, trace *t, int i,
                     const char *where, rd_buf *out)
{
    double temperature = rd_value_number(rd_value_get(t->params, "temperature"), 0.0);
    const char *name = t->name ? t->name : where;
    rd_policy_kind kind;

    if (!kind_of(t->value, file, &kind)) {
        const char *version = rd_golden_text(rd_value_get(t->value, "version"));

        rd_golden_fail(f, name, "version %s is not known", version ? version : "of another type");
    } else if (!read_trace(f, special, kind, t)) {
        rd_golden_fail(f, name, "case %d is malformed", i);
    } else if (t->block > RD_BLOCK_MOST) {
        rd_golden_fail(f, name, "blocks of %d; 1 to %d can be decoded", t->block, RD_BLOCK_MOST);
    } else if (!rd_value_bool(rd_value_get(t->value, "terminates"), true)) {
        rd_golden_skip(f, name, "the reference does not return");
    } else if (temperature > 0.0) {
        rd_golden_skip(f, name, "sampled at temperature %g", temperature);
    } else if (!t->robust && !f->dump) {
        rd_golden_skip(f, name, "not marked robust");
    } else {
        replay_case(f, t, out);
    }
}

/* ---- single calls of the diffusers scheduler: a decision without a model ---- */

static void picks_of(const float *logits, int rows, int vocab, rd_pick *out)
{
    for (int r = 0; r < rows; r++, logits += vocab) {
        int best = 0;
        double sum = 0.0;

        for (int v = 1; v < vocab; v++)
            if (logits[v] > logits[best]) best = v;
        for (int v = 0; v < vocab; v++) sum += exp((double)logits[v] - (double)logits[best]);
        out[r] = (rd_pick){ .token = best, .prob = (float)(1.0 / sum), .second = -1 };
    }
}

static void scheduler_step(rd_golden_folder *f, const rd_safetensors *data, rd_value c, int i,
                           rd_golden_tensors *keep, rd_buf *out)
{
    static const char *const computed[] = { "prev_sample", "x0", "conf", "m2t", "t2t", NULL };
    const char *tensor = rd_golden_text(rd_value_get(c, "logits"));
    const rd_tensor *t = tensor ? rd_safetensors_find(data, tensor) : NULL;
    int64_t pinned = rd_value_int(rd_value_get(c, "prompt_positions"), 0);
    rd_block b = { 0 };
    rd_change change;
    rd_ids sample = { 0 };
    rd_policy_state state = { .step = clamped(rd_value_int(rd_value_get(c, "step"), 0), 0,
                                              INT_MAX - 1) };
    rd_policy p = {
        .kind = RD_POLICY_DIFFUSERS,
        .reference_quirks = true,
        .threshold = (float)rd_value_number(rd_value_get(c, "threshold"), 0.95),
        .edit_threshold = (float)rd_value_number(rd_value_get(c, "editing_threshold"), 0.0),
        .steps = clamped(rd_value_int(rd_value_get(c, "num_inference_steps"), 32), 1, INT_MAX),
        .ids = { clamped(rd_value_int(rd_value_get(c, "mask_id"), -1), -1, INT_MAX), -1, -1 }
    };

    if (!t || t->dtype != RD_F32 || (uintptr_t)t->data % sizeof(float) != 0) {
        rd_golden_fail(f, tensor ? tensor : "scheduler",
                       "step %d: the logits are missing or not F32", i);
        return;
    }
    if (!rd_value_ids(rd_value_get(c, "sample"), &sample) || sample.n < 1 ||
        sample.n > RD_BLOCK_MOST || t->bytes == 0 ||
        t->bytes % (sizeof(float) * (size_t)sample.n)) {
        rd_golden_fail(f, tensor, "step %d is malformed, or has more than %d positions", i,
                       RD_BLOCK_MOST);
        rd_ids_clear(&sample);
        return;
    }
    int vocab = (int)(t->bytes / sizeof(float) / (size_t)sample.n);
    rd_pick *picks = rd_alloc_array((size_t)sample.n, sizeof *picks);

    b.size = sample.n;
    memcpy(b.token, sample.id, (size_t)sample.n * sizeof(int32_t));
    for (int k = 0; k < pinned && k < b.size; k++) b.pinned[k] = true;
    picks_of(t->data, b.size, vocab, picks);
    rd_policy_apply(&p, &state, &b, picks, NULL, &change);
    const char *differs = rd_value_get(c, "x0") ? compare_picks(c, picks, b.size) : NULL;

    if (!differs && !same_slots(rd_value_get(c, "m2t"), &change.filled, b.size)) differs = "m2t";
    if (!differs && !same_slots(rd_value_get(c, "t2t"), &change.edited, b.size)) differs = "t2t";
    if (!differs && !same_ids(rd_value_get(c, "prev_sample"), b.token, b.size))
        differs = "prev_sample";
    if (differs)
        rd_golden_fail(f, tensor, "%s differs", differs);
    else
        rd_golden_pass(f, tensor);
    if (f->dump) {
        rd_golden_keep(f, keep, tensor, RD_F32, 0, b.size, vocab, t->data);
        rd_buf_text(out, out->len > 0 && out->data[out->len - 1] == '}' ? ",\n{" : "\n{");
        rd_golden_copy_fields(c, computed, out);
        rd_golden_ids(out, "prev_sample", b.token, b.size);
        write_picks(out, picks, b.size);
        write_slots(out, "m2t", &change.filled, b.size);
        write_slots(out, "t2t", &change.edited, b.size);
        rd_buf_text(out, "}");
    }
    free(picks);
    rd_ids_clear(&sample);
}

static void run_scheduler(rd_golden_folder *f, rd_value list, rd_buf *out)
{
    char *path = rd_path_join(f->dir, "diffusers_steps.safetensors");
    rd_golden_tensors keep = { 0 };
    rd_safetensors *data = NULL;
    rd_error err = { 0 };

    if (rd_value_count(list) > 0 && rd_safetensors_open(path, &data, &err))
        rd_golden_fail(f, "scheduler", "%s", err.text);
    for (int i = 0; data && i < rd_value_count(list); i++)
        scheduler_step(f, data, rd_value_at(list, i), i, &keep, out);
    rd_golden_write_tensors(f, &keep, "diffusers_steps.safetensors");
    rd_safetensors_close(data);
    free(path);
}

/* ---- files ---- */

static void run_file(rd_golden_folder *f, const char *file, rd_policy_kind kind)
{
    static const char *const computed[] = { "cases", "scheduler_steps", "non_terminating_example",
                                            NULL };
    char *path = rd_path_join(f->dir, file);
    rd_record *record = NULL;
    rd_buf text = { 0 }, list = { 0 };
    rd_error err = { 0 };
    rd_status status = rd_record_read(path, &record, &err);
    rd_value top = record ? rd_record_top(record) : NULL, cases = rd_value_get(top, "cases");

    if (status && status != RD_NOT_FOUND) rd_golden_fail(f, file, "%s", err.text);
    if (status) goto out;
    if (rd_value_count(cases) == 0 && rd_value_count(rd_value_get(top, "scheduler_steps")) == 0)
        rd_golden_fail(f, file, "no cases");
    rd_buf_text(&text, "{");
    rd_golden_copy_fields(top, computed, &text);
    for (int i = 0; i < rd_value_count(cases); i++) {
        trace t = { .value = rd_value_at(cases, i) };

        t.params = rd_value_get(t.value, "params");
        t.name = rd_golden_text(rd_value_get(t.value, "name"));
        run_case(f, rd_value_get(top, "special_ids"), kind, &t, i, file, &list);
        rd_ids_clear(&t.prompt);
    }
    rd_golden_field(&text, "cases");
    rd_buf_text(&text, "[");
    rd_buf_append(&text, list.data ? list.data : "", list.len);
    rd_buf_text(&text, "]");
    if (kind == RD_POLICY_DIFFUSERS) {
        rd_buf_reset(&list);
        run_scheduler(f, rd_value_get(top, "scheduler_steps"), &list);
        rd_golden_field(&text, "scheduler_steps");
        rd_buf_text(&text, "[");
        rd_buf_append(&text, list.data ? list.data : "", list.len);
        rd_buf_text(&text, "]");
    }
    rd_buf_text(&text, "}\n");
    rd_golden_write_text(f, &text, file);
out:
    rd_record_free(record);
    rd_buf_clear(&text);
    rd_buf_clear(&list);
    free(path);
}

void rd_golden_traces(rd_golden_folder *f)
{
    run_file(f, "decode.json", RD_POLICY_20);
    run_file(f, "decode_diffusers.json", RD_POLICY_DIFFUSERS);
    run_file(f, "decode_v22.json", RD_POLICY_22);
}
