/* compare_kv.c - redraft compare A DIR --kv FORMAT: what a model loses when its finished blocks were stored in a format.
 *
 * Each place of a file is asked three times over the same tokens: behind blocks as they were computed; behind blocks that
 * all went through the format and back, as a whole prompt does that is found in a file; and behind blocks each of which
 * was computed from such blocks, the worst that restoring can come to. Picks are those of one block behind a context of
 * 256 to 2048 tokens, every fourth token masked in four passes; fills are holes of the known length behind a prompt as
 * the engine makes it. Intervals are 95 % over places, which lie in different files while there are enough of them.
 */
#include "core/tools/calls.h"

#include "core/base/memory.h"
#include "core/decode/hole.h"
#include "core/decode/prompt.h"
#include "core/engine.h"
#include "core/eval/cases.h"
#include "core/model/kv_pack.h"
#include "core/plugin.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EVERY = 4, CONTEXT_LEAST = 256, CONTEXT_MOST = 2048, KV_BLOCKS = 96, ROWS = 384 };
enum { HOLE_MOST = 64, CASES = 100, TEXT_MOST = 16 << 10 };

typedef enum way { EXACT, RESTORED, CHAINED, WAYS } way;

static const char *const way_names[] = { "exact", "restored", "chained" };

typedef struct tally {
    double share, share2, change, change2; /* sums over places */
    double loss, moved, worst;             /* over picks: -log p, |p - exact p| */
    int agree, same_fills;
} tally;

typedef struct job {
    const rd_args *a;
    rd_kv_format format;
    rd_kv_geometry geometry;
    rd_model *model;
    rd_tokenizer *tokenizer;
    rd_layout_ids ids;
    bool layout;
    int32_t *banned;
    int n_banned;
    rd_cases cases;
    uint8_t *block, *packed;
    size_t packed_bytes;
    tally tally[WAYS];
    int n, seed, places, picks, fills;
    double context; /* tokens before the picks: their sum */
} job;

/* ---- blocks through the format ---- */

typedef struct packed {
    const uint8_t *at;
} packed;

static bool take(void *user, void *to, size_t n)
{
    packed *b = user;

    memcpy(to, b->at, n);
    b->at += n;
    return true;
}

static rd_status store_and_restore(job *j, int place, rd_error *err)
{
    packed b = { j->packed };

    if (rd_model_kv_read(j->model, place, j->block, err)) return err->status;
    if (!rd_kv_pack(j->format, &j->geometry, j->block, j->packed) ||
        !rd_kv_unpack(j->format, &j->geometry, take, &b, j->block))
        return rd_fail(err, RD_INVALID, "a block's keys or values are not finite or too large");
    return rd_model_kv_write(j->model, place, j->block, err);
}

static rd_status prefill(job *j, way w, rd_sequence *s, const rd_ids *context, rd_error *err)
{
    int step = w == CHAINED ? rd_model_block_size(j->model) : context->n;

    for (int at = 0; at < context->n; at += step) {
        int from = s->n;

        if (rd_sequence_extend(s, context->id + at, step, NULL, err)) return err->status;
        for (int i = from; w != EXACT && i < s->n; i++)
            if (store_and_restore(j, s->places[i], err)) return err->status;
    }
    return RD_OK;
}

/* ---- picks ---- */

static rd_status pick_phase(job *j, const rd_sequence *s, const int32_t *tokens, int phase,
                            rd_pick *out, rd_error *err)
{
    int block = rd_model_block_size(j->model), masked = 0;
    int32_t shown[RD_BLOCK_MOST], watched[RD_BLOCK_MOST], rows[RD_BLOCK_MOST];
    rd_pick picks[RD_BLOCK_MOST];

    for (int i = 0; i < block; i++) {
        shown[i] = i % EVERY == phase ? j->ids.mask : tokens[i];
        if (i % EVERY != phase) continue;
        watched[masked] = tokens[i];
        rows[masked++] = i;
    }
    rd_pick_query q = { .banned = j->banned,
                        .n_banned = j->n_banned,
                        .watched = watched,
                        .rows = rows,
                        .n_rows = masked,
                        .limit = rd_tokenizer_size(j->tokenizer) };
    rd_pass pass = { .tokens = shown,
                     .rows = block,
                     .past = s->places,
                     .past_blocks = s->n,
                     .query = &q,
                     .picks = picks };

    if (masked == 0) return RD_OK;
    if (rd_forward(j->model, &pass, err)) return err->status;
    for (int i = 0; i < masked; i++) out[rows[i]] = picks[i];
    return RD_OK;
}

static rd_status pick_block(job *j, way w, const rd_ids *context, const int32_t *tokens,
                            rd_pick *out, rd_error *err)
{
    rd_kv_pool *pool = rd_kv_pool_new(rd_model_kv_blocks(j->model), rd_model_block_size(j->model));
    rd_sequence s = { .model = j->model, .pool = pool };
    rd_status status = prefill(j, w, &s, context, err);

    for (int phase = 0; phase < EVERY && !status; phase++)
        status = pick_phase(j, &s, tokens, phase, out, err);
    rd_sequence_clear(&s);
    rd_kv_pool_free(pool);
    return status;
}

static double loss_of(const rd_pick *p)
{
    return -log(fmax((double)p->watched_prob, 1e-9));
}

static void add_picks(job *j, way w, const rd_pick *exact, const rd_pick *picks)
{
    tally *t = &j->tally[w];
    int block = rd_model_block_size(j->model), agree = 0;
    double change = 0.0;

    for (int i = 0; i < block; i++) {
        double moved = fabs((double)picks[i].watched_prob - (double)exact[i].watched_prob);

        agree += picks[i].token == exact[i].token;
        change += loss_of(&picks[i]) - loss_of(&exact[i]);
        t->loss += loss_of(&picks[i]);
        t->moved += moved;
        t->worst = fmax(t->worst, moved);
    }
    double share = (double)agree / block;

    change /= block;
    t->agree += agree;
    t->share += share;
    t->share2 += share * share;
    t->change += change;
    t->change2 += change * change;
}

/* The block that ends with the case, behind as many of the tokens before it as case `i` asks for. */
static rd_status compare_picks(job *j, int i, rd_error *err)
{
    const rd_case *one = &j->cases.at[i];
    const rd_case_file *f = &j->cases.file[one->file];
    size_t from = one->end > TEXT_MOST ? one->end - TEXT_MOST : 0;
    int block = rd_model_block_size(j->model), want = CONTEXT_LEAST << i % 4;
    rd_pick *picks = rd_alloc_array((size_t)(WAYS * block), sizeof *picks);
    rd_ids all = { 0 }, context = { 0 };
    rd_status status = rd_tokenizer_encode(j->tokenizer, f->text + from, one->end - from,
                                           RD_TEXT_PLAIN, &all, err);
    int have = (all.n + j->layout) / block * block - block;

    if (have > want) have = want;
    if (!status && have >= CONTEXT_LEAST) {
        int skip = all.n + j->layout - have - block;

        if (j->layout) rd_ids_push(&context, j->ids.language[rd_language_of(f->language)]);
        rd_ids_append(&context, all.id + skip, have - j->layout);
        for (int w = 0; w < WAYS && !status; w++)
            status =
                pick_block(j, (way)w, &context, all.id + all.n - block, picks + w * block, err);
        for (int w = 0; w < WAYS && !status; w++) add_picks(j, (way)w, picks, picks + w * block);
        j->places++;
        j->picks += block;
        j->context += have;
    }
    free(picks);
    rd_ids_clear(&all);
    rd_ids_clear(&context);
    return status;
}

/* ---- fills ---- */

static rd_status fill(job *j, way w, const rd_prompt *p, int tokens, rd_ids *out, rd_error *err)
{
    rd_kv_pool *pool = rd_kv_pool_new(rd_model_kv_blocks(j->model), rd_model_block_size(j->model));
    rd_sequence s = { .model = j->model, .pool = pool };
    rd_hole_options o = { .model = j->model,
                          .pool = pool,
                          .rules = { .ids = { j->ids.mask, j->ids.del, j->ids.split },
                                     .threshold = 0.75f,
                                     .length_threshold = 0.5f,
                                     .doubt = 0.125f,
                                     .edit_threshold = 0.7f,
                                     .tokens_most = tokens },
                          .banned = j->banned,
                          .n_banned = j->n_banned,
                          .limit = rd_tokenizer_size(j->tokenizer),
                          .tokens = tokens,
                          .own = { .sure = 1.0f } };
    rd_hole_run *h = NULL;
    bool done = false;
    rd_status status = prefill(j, w, &s, &p->context, err);

    if (!status)
        status = rd_hole_open(&o, p->context.id, p->context.n, NULL, 0, p->anchor.id, p->anchor.n,
                              &h, err);
    while (!status && !done) status = rd_hole_step(h, &done, err);
    if (!status) {
        int n;
        const rd_slot *slot = rd_hole_slots(h, &n);

        for (int i = 0; i < n; i++)
            if (!slot[i].spare) rd_ids_push(out, slot[i].token);
    }
    rd_hole_close(h);
    rd_sequence_clear(&s);
    rd_kv_pool_free(pool);
    return status;
}

static bool same_ids(const rd_ids *a, const rd_ids *b)
{
    return a->n == b->n && (a->n == 0 || !memcmp(a->id, b->id, (size_t)a->n * sizeof *a->id));
}

/* Only models with tags of ours: prompts of others are the engine's alone to make. */
static rd_status compare_fills(job *j, int i, rd_error *err)
{
    const rd_case *one = &j->cases.at[i];
    const rd_case_file *f = &j->cases.file[one->file];
    rd_layout layout = rd_layout_default();
    rd_ids hole = { 0 }, out[WAYS] = { 0 };
    rd_prompt p = { 0 };
    rd_status status;

    layout.block = rd_model_block_size(j->model);
    status = rd_tokenizer_encode(j->tokenizer, f->text + one->start, one->end - one->start,
                                 RD_TEXT_PLAIN, &hole, err);
    if (!status)
        status = rd_prompt_make(j->tokenizer, &layout, &j->ids, rd_language_of(f->language),
                                f->text, one->start, f->text + one->end, f->bytes - one->end,
                                layout.block, &p, err);
    if (!status && hole.n > 0 && hole.n <= HOLE_MOST) {
        for (int w = 0; w < WAYS && !status; w++)
            status = fill(j, (way)w, &p, hole.n, &out[w], err);
        for (int w = 0; w < WAYS; w++) j->tally[w].same_fills += same_ids(&out[w], &out[EXACT]);
        j->fills++;
    }
    rd_ids_clear(&hole);
    rd_prompt_clear(&p);
    for (int w = 0; w < WAYS; w++) rd_ids_clear(&out[w]);
    return status;
}

/* ---- results ---- */

static double per(double sum, int n)
{
    return n ? sum / n : 0.0;
}

/* Half the 95 % interval of a mean over places. */
static double half_interval(double sum, double squares, int n)
{
    double mean = per(sum, n), variance = fmax(per(squares, n) - mean * mean, 0.0);

    return n > 1 ? 1.96 * sqrt(variance / (n - 1)) : 0.0;
}

static void write_json(const job *j, rd_buf *out)
{
    rd_buf_format(out,
                  "{\"format\":\"%s\",\"block_bytes\":%zu,\"raw_block_bytes\":%zu,\"places\":%d,"
                  "\"picks\":%d,\"context\":%.6g,\"fills\":%d,\"log_loss\":%.6g",
                  rd_args_text(j->a, "--kv"), j->packed_bytes, rd_model_kv_bytes(j->model),
                  j->places, j->picks, per(j->context, j->places), j->fills,
                  per(j->tally[EXACT].loss, j->picks));
    for (int w = RESTORED; w < WAYS; w++) {
        const tally *t = &j->tally[w];

        rd_buf_format(out,
                      ",\"%s\":{\"agreement\":%.6g,\"agreement_ci\":%.3g,"
                      "\"log_loss_difference\":%.6g,\"log_loss_difference_ci\":%.3g,"
                      "\"probability_moved\":%.6g,\"probability_moved_most\":%.6g,"
                      "\"same_fills\":%d}",
                      way_names[w], per(t->agree, j->picks),
                      half_interval(t->share, t->share2, j->places), per(t->change, j->places),
                      half_interval(t->change, t->change2, j->places), per(t->moved, j->picks),
                      t->worst, t->same_fills);
    }
    rd_buf_text(out, "}\n");
}

static void write_table(const job *j, rd_buf *out)
{
    rd_buf_format(out,
                  "%s: %zu bytes a block, %zu as it stands on the device\n"
                  "%d picks at %d places behind %.0f tokens, loss %.4f; %d fills\n"
                  "%-9s %18s %21s %9s %9s %11s\n",
                  rd_args_text(j->a, "--kv"), j->packed_bytes, rd_model_kv_bytes(j->model),
                  j->picks, j->places, per(j->context, j->places),
                  per(j->tally[EXACT].loss, j->picks), j->fills, "blocks", "picks that agree",
                  "change of loss", "moved p", "at most", "same fills");
    for (int w = RESTORED; w < WAYS; w++) {
        const tally *t = &j->tally[w];

        rd_buf_format(out, "%-9s %8.3f %% +- %5.3f %+10.6f +- %.6f %9.6f %9.4f %11d\n",
                      way_names[w], 100.0 * per(t->agree, j->picks),
                      100.0 * half_interval(t->share, t->share2, j->places),
                      per(t->change, j->places), half_interval(t->change, t->change2, j->places),
                      per(t->moved, j->picks), t->worst, t->same_fills);
    }
}

/* ---- the call ---- */

static void collect_banned(job *j)
{
    int n = rd_tokenizer_size(j->tokenizer);

    j->banned = rd_alloc_array((size_t)n + 1, sizeof *j->banned);
    for (int i = 0; i < n; i++) {
        size_t bytes;
        bool text =
            rd_tokenizer_bytes(j->tokenizer, i, &bytes) && !rd_tokenizer_is_added(j->tokenizer, i);

        if (!text && i != j->ids.del && i != j->ids.split) j->banned[j->n_banned++] = i;
    }
}

static rd_status find_ids(job *j, const char *name, rd_error *err)
{
    const rd_model_config *c = rd_model_config_of(j->model);

    j->layout = rd_layout_find(j->tokenizer, &j->ids) && c->infill_layout;
    if (c->mask_token_id >= 0) j->ids.mask = c->mask_token_id;
    j->ids.del = c->delete_token_id;
    j->ids.split = c->split_token_id;
    if (j->ids.mask < 0) return rd_fail(err, RD_INVALID, "%s: the tokenizer has no <|mask|>", name);
    if (rd_tokenizer_size(j->tokenizer) > c->vocab_size)
        return rd_fail(err, RD_INVALID, "%s: the tokenizer has %d ids, the model %d", name,
                       rd_tokenizer_size(j->tokenizer), c->vocab_size);
    collect_banned(j);
    return RD_OK;
}

/* The device's block as pieces: a head's keys or values in one layer. */
static rd_status find_format(job *j, rd_error *err)
{
    const rd_model_config *c = rd_model_config_of(j->model);
    rd_kv_geometry *g = &j->geometry;
    size_t bytes = rd_model_kv_bytes(j->model), numbers;

    g->block_tokens = rd_model_block_size(j->model);
    g->pieces = 2 * c->num_hidden_layers * c->num_key_value_heads;
    g->piece = g->block_tokens * c->head_dim;
    numbers = (size_t)g->pieces * (size_t)g->piece;
    g->bytes_each = (int)(bytes / numbers);
    j->packed_bytes = rd_kv_packed_bytes(j->format, g);
    if (!j->packed_bytes || bytes != numbers * (size_t)g->bytes_each)
        return rd_fail(err, RD_INVALID, "a block of %zu bytes on this device cannot be packed so",
                       bytes);
    j->block = rd_alloc0(bytes);
    j->packed = rd_alloc0(j->packed_bytes);
    return RD_OK;
}

static rd_status open_model(job *j, rd_error *err)
{
    rd_model_options o = { .device = { .isa = rd_args_text(j->a, "--isa"), .precision = RD_FAST },
                           .exact_kv = true,
                           .max_rows = ROWS,
                           .kv_blocks = KV_BLOCKS };
    const char *name = rd_args_at(j->a, 0);
    char dir[4096];

    if (!rd_args_int(j->a, "--threads", 1, 256, &o.device.threads)) return RD_INVALID;
    snprintf(dir, sizeof dir, "%s", name);
    if (!strcmp(name, "builtin") && rd_engine_builtin(dir, sizeof dir, err)) return err->status;
    if (rd_backend_find(rd_backend_for_isa(rd_args_text(j->a, "--backend"), o.device.isa),
                        &o.backend, err) ||
        rd_tokenizer_open(dir, &j->tokenizer, err) || rd_model_open(dir, &o, &j->model, err) ||
        find_ids(j, name, err))
        return err->status;
    return find_format(j, err);
}

static rd_status measure(job *j, rd_error *err)
{
    if (rd_cases_files(&j->cases, rd_args_at(j->a, 1), err) || open_model(j, err))
        return err->status;
    rd_cases_cut(&j->cases, 1u << RD_CASE_LINE | 1u << RD_CASE_END, (j->n + 1) / 2,
                 (uint64_t)j->seed);
    for (int i = 0; i < j->cases.n && !err->status; i++) {
        if (compare_picks(j, i, err)) break;
        if (j->layout) compare_fills(j, i, err);
    }
    return err->status;
}

static bool format_of(const char *name, rd_kv_format *out)
{
    static const char *const names[] = { "raw", "bf16", "int8" };

    for (int i = 0; i < 3; i++)
        if (!strcmp(name, names[i])) {
            *out = (rd_kv_format)(RD_KV_RAW + i);
            return true;
        }
    return false;
}

int rd_tool_compare_kv(const rd_args *a)
{
    job j = { .a = a, .n = CASES, .seed = 1 };
    rd_error err = { 0 };
    rd_buf out = { 0 };
    int status = 0, threads = 0;

    if (rd_args_count(a) != 2)
        return rd_tool_usage(a, "with --kv name one model and a folder of source files");
    if (!format_of(rd_args_text(a, "--kv"), &j.format))
        return rd_tool_usage(a, "--kv is raw, bf16 or int8");
    if (!rd_args_int(a, "--cases", 1, 100000, &j.n) ||
        !rd_args_int(a, "--seed", 0, 2147483647, &j.seed) ||
        !rd_args_int(a, "--threads", 1, 256, &threads))
        return 2;
    if (measure(&j, &err)) status = rd_tool_fail(a, &err);
    if (!status) {
        if (rd_args_flag(a, "--json"))
            write_json(&j, &out);
        else
            write_table(&j, &out);
        fwrite(out.data, 1, out.len, stdout);
    }
    rd_buf_clear(&out);
    rd_cases_clear(&j.cases);
    rd_model_close(j.model);
    rd_tokenizer_close(j.tokenizer);
    free(j.banned);
    free(j.block);
    free(j.packed);
    return status;
}
