/* engine.c - a model, its tokenizer and its pool of finished blocks; requests to runs. */
#include "core/engine.h"

#include "core/base/log.h"
#include "core/base/memory.h"
#include "core/decode/chat_prompt.h"
#include "core/decode/draft.h"
#include "core/decode/hole.h"
#include "core/decode/overlap.h"
#include "core/decode/prompt.h"
#include "core/format/chat.h"
#include "core/format/file.h"
#include "core/plugin.h"
#include "core/texts.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* KV_BLOCKS: of one run at most, and what the pool holds at least. POOL_BYTES: the built-in model's blocks of some six long
 * prompts. */
enum { KV_BLOCKS = 96, POOL_BYTES = 40 << 20, MAX_TOKENS = 256, CONTEXT_MOST = 2048 };

struct rd_engine {
    rd_model *model;
    rd_kv_pool *pool;
    rd_kv_exchange *exchange;
    rd_tokenizer *tokenizer;
    rd_layout_ids ids;
    bool layout; /* the model knows our layout's tags */
    rd_chat_kind chat;
    int32_t *banned;
    int n_banned;
    int32_t stop[9];
    int n_stop;
    char about[160];
    char fell_back[sizeof((rd_error *)0)->text];
};

struct rd_run {
    rd_engine *e;
    rd_hole_run *hole;
    rd_decoder *decoder;
    int prompt_n;
    rd_edit_ids edit_ids;
    rd_buf suffix; /* its beginning, where the hole may run into it */
    char before;   /* the byte before the hole */
    rd_buf text;
    rd_mark *marks;
    int marks_cap;
    rd_step last;
};

/* ---- open ---- */

rd_status rd_engine_builtin(char *out, size_t n, rd_error *err)
{
    static const char *const fixed[] = {
#ifdef RD_BUILTIN_INSTALLED
        RD_BUILTIN_INSTALLED,
#endif
#ifdef RD_BUILTIN_SOURCE
        RD_BUILTIN_SOURCE,
#endif
        NULL
    };
    char program[2048];
    ssize_t len = readlink("/proc/self/exe", program, sizeof program - 1);

    if (len > 0) {
        program[len] = 0;
        char *slash = strrchr(program, '/');

        if (slash) *slash = 0;
        if (slash && snprintf(out, n, "%s/../share/redraft/builtin", program) < (int)n &&
            rd_is_folder(out))
            return RD_OK;
    }
    for (int i = 0; fixed[i]; i++)
        if (snprintf(out, n, "%s", fixed[i]) < (int)n && rd_is_folder(out)) return RD_OK;
    return rd_fail(err, RD_NOT_FOUND, "the built-in model is not installed; name one with --model");
}

/* Ids that must not be written: added tokens, but for those the decoder handles itself. */
static void collect_banned(rd_engine *e)
{
    int n = rd_tokenizer_size(e->tokenizer);

    e->banned = rd_alloc_array((size_t)n + 1, sizeof *e->banned);
    for (int i = 0; i < n; i++) {
        size_t bytes;
        bool known = rd_tokenizer_bytes(e->tokenizer, i, &bytes) != NULL;

        if (known && !rd_tokenizer_is_added(e->tokenizer, i)) continue;
        if (i == e->ids.mask || i == e->ids.del || i == e->ids.split) continue;
        e->banned[e->n_banned++] = i;
    }
}

static bool is_stop(const rd_engine *e, int32_t id)
{
    for (int i = 0; i < e->n_stop; i++)
        if (e->stop[i] == id) return true;
    return false;
}

static void collect_ids(rd_engine *e, const rd_model_config *c)
{
    e->layout = rd_layout_find(e->tokenizer, &e->ids) && c->infill_layout;
    if (c->mask_token_id >= 0) e->ids.mask = c->mask_token_id;
    e->ids.del = c->delete_token_id;
    e->ids.split = c->split_token_id;
    for (int i = 0; i < c->eos_count; i++) e->stop[e->n_stop++] = c->eos_token_id[i];
    if (e->n_stop == 0 && e->ids.eos >= 0) e->stop[e->n_stop++] = e->ids.eos;
}

/* Text must not become an id that steers the decoder: the tokenizer may hold those as added tokens only. */
static rd_status check_control(const rd_engine *e, const char *dir, rd_error *err)
{
    const struct {
        const char *what;
        int32_t id;
    } ids[] = { { "mask", e->ids.mask },
                { "delete", e->ids.del },
                { "split", e->ids.split },
                { "suffix", e->layout ? e->ids.suffix : -1 },
                { "prefix", e->layout ? e->ids.prefix : -1 },
                { "fill", e->layout ? e->ids.fill : -1 } };

    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        size_t n;

        if (!rd_tokenizer_bytes(e->tokenizer, ids[i].id, &n) ||
            rd_tokenizer_is_added(e->tokenizer, ids[i].id))
            continue;
        return rd_fail(err, RD_INVALID, "%s: the %s token %d is one that text can hold", dir,
                       ids[i].what, ids[i].id);
    }
    return RD_OK;
}

static void describe(rd_engine *e, const char *backend)
{
    rd_device_info info = { 0 };
    char threads[32] = "";

    rd_model_describe(e->model, &info);
    if (info.threads > 0) snprintf(threads, sizeof threads, ", %d threads", info.threads);
    snprintf(e->about, sizeof e->about, "%s %s%s, %zu MB", backend, info.isa, threads,
             info.bytes >> 20);
}

static rd_status open_on(const rd_backend *backend, const rd_engine_options *o, const char *dir,
                         rd_engine **out, rd_error *err)
{
    rd_engine *e = rd_alloc0(sizeof *e);
    rd_model_options m = { .backend = backend,
                           .device = { .threads = o->threads, .isa = o->isa, .precision = RD_FAST },
                           .max_rows = 384,
                           .kv_blocks = KV_BLOCKS,
                           .kv_bytes = o->pool_bytes ? o->pool_bytes : POOL_BYTES };

    if (rd_tokenizer_open(dir, &e->tokenizer, err)) goto fail;
    if (rd_model_open(dir, &m, &e->model, err)) goto fail;
    collect_ids(e, rd_model_config_of(e->model));
    if (rd_tokenizer_size(e->tokenizer) > rd_model_config_of(e->model)->vocab_size) {
        rd_fail(err, RD_INVALID, "%s: the tokenizer has %d ids, the model %d", dir,
                rd_tokenizer_size(e->tokenizer), rd_model_config_of(e->model)->vocab_size);
        goto fail;
    }
    if (e->ids.mask < 0) {
        rd_fail(err, RD_INVALID, "%s: the tokenizer has no <|mask|>", dir);
        goto fail;
    }
    if (check_control(e, dir, err)) goto fail;
    if (!e->layout && rd_chat_detect(dir, &e->chat, err)) goto fail;
    int32_t turn_end = e->chat ? rd_tokenizer_id(e->tokenizer, "<|role_end|>") : -1;

    if (turn_end >= 0 && !is_stop(e, turn_end)) e->stop[e->n_stop++] = turn_end;
    collect_banned(e);
    e->pool = rd_kv_pool_new(rd_model_kv_blocks(e->model), rd_model_block_size(e->model));
    e->exchange = rd_kv_exchange_new(e->model, e->pool, o->store);
    describe(e, backend->name);
    *out = e;
    return RD_OK;
fail:
    rd_engine_close(e);
    return err->status;
}

/* Only what another backend would be spared. */
static bool may_fall_back(const rd_engine_options *o, const rd_backend *failed, rd_status status)
{
    if (failed == rd_cpu_backend()) return false;
    if (rd_backend_is_auto(o->backend)) return status == RD_NO_MEMORY || status == RD_DEVICE;
    return o->fall_back && (!failed || status == RD_NO_MEMORY || status == RD_DEVICE);
}

rd_status rd_engine_open(const rd_engine_options *o, rd_engine **out, rd_error *err)
{
    const rd_backend *backend = NULL;
    char dir[4096];
    rd_error local, why = { 0 }, said = { 0 };

    if (!err) err = &local;
    if (o->model && snprintf(dir, sizeof dir, "%s", o->model) >= (int)sizeof dir)
        return rd_fail(err, RD_INVALID, "%s: too long a name", o->model);
    if (!o->model && rd_engine_builtin(dir, sizeof dir, err)) return err->status;
    if (o->plugins && rd_plugins_look(o->plugins, &why)) rd_log(RD_LOG_WARN, "%s", why.text);
    why = (rd_error){ 0 };
    if (!rd_backend_find(rd_backend_for_isa(o->backend, o->isa), &backend, &why) &&
        !open_on(backend, o, dir, out, &why))
        return RD_OK;
    if (!may_fall_back(o, backend, why.status)) {
        *err = why;
        return why.status;
    }
    rd_fail(&said, why.status, "%s%s%s; the CPU is used", backend ? backend->name : "",
            backend ? ": " : "", why.text);
    rd_log(RD_LOG_WARN, "%s", said.text);
    if (open_on(rd_cpu_backend(), o, dir, out, err)) return err->status;
    memcpy((*out)->fell_back, said.text, sizeof said.text);
    return RD_OK;
}

void rd_engine_close(rd_engine *e)
{
    if (!e) return;
    rd_kv_exchange_free(e->exchange);
    rd_kv_pool_free(e->pool);
    rd_model_close(e->model);
    rd_tokenizer_close(e->tokenizer);
    free(e->banned);
    free(e);
}

bool rd_engine_follows_instructions(const rd_engine *e)
{
    return e->chat != RD_CHAT_NONE;
}

float rd_engine_gate(const rd_engine *e)
{
    const rd_model_config *c = rd_model_config_of(e->model);

    return c->calibrated ? c->confidence.gate : 0.0f;
}

void rd_engine_forget(rd_engine *e, const char *source)
{
    rd_key key = rd_kv_source(source);

    rd_kv_forget(e->pool, source ? &key : NULL);
}

rd_key rd_engine_identity(const rd_engine *e)
{
    return rd_model_identity(e->model);
}

void rd_engine_stat(const rd_engine *e, rd_engine_stats *out)
{
    rd_kv_stats s = rd_kv_pool_stats(e->pool);
    size_t each = rd_model_kv_bytes(e->model);
    rd_kv_traffic t;

    rd_kv_exchange_stat(e->exchange, &t);
    *out = (rd_engine_stats){ .pool_bytes = (size_t)s.places * each,
                              .used_bytes = (size_t)s.used * each,
                              .found = t.found,
                              .loaded = t.loaded,
                              .computed = t.computed,
                              .compute_ms = t.worth.compute_ms,
                              .load_ms = t.worth.load_ms,
                              .saved_ms = t.worth.saved_ms };
}

const char *rd_engine_describe(rd_engine *e)
{
    return e->about;
}

const char *rd_engine_fell_back(const rd_engine *e)
{
    return e->fell_back;
}

/* ---- runs ---- */

static rd_kv_origin origin_of(const rd_engine *e, uint64_t realm, const char *source, bool unstored)
{
    rd_key identity = rd_model_identity(e->model);
    rd_key_maker k;

    rd_key_begin(&k, "kv root");
    rd_key_add(&k, &identity, sizeof identity);
    rd_key_add_number(&k, (int64_t)realm);
    return (rd_kv_origin){ rd_key_end(&k), rd_kv_source(source), unstored };
}

static rd_status chat_prompt(rd_engine *e, const rd_request *rq, rd_prompt *p, rd_error *err)
{
    rd_layout layout = rd_chat_layout(rd_model_block_size(e->model));
    rd_chat_parts parts = { .name = rq->language,
                            .instruction = rq->instruction,
                            .instruction_bytes = rq->instruction_bytes,
                            .prefix = rq->prefix,
                            .prefix_bytes = rq->prefix_bytes,
                            .suffix = rq->suffix,
                            .suffix_bytes = rq->suffix_bytes,
                            .draft = rq->task == RD_REWRITE ? rq->draft : NULL,
                            .draft_bytes = rq->draft_bytes };

    return rd_chat_prompt_make(e->tokenizer, e->chat, &layout, &parts, p, err);
}

/* A checkpoint with neither our tags nor a chat template: the beginning of the suffix and the end of the prefix as
 * plain text, cut to a block boundary on the left, so that the hole begins a fresh block. */
static rd_status plain_prompt(rd_engine *e, const rd_request *rq, rd_prompt *p, rd_error *err)
{
    int block = rd_model_block_size(e->model);
    size_t cut = rq->prefix_bytes > 8192 ? rq->prefix_bytes - 8192 : 0;
    size_t end = rq->suffix_bytes > 1024 ? 1024 : rq->suffix_bytes;
    rd_ids before = { 0 };

    while (cut > 0 && cut < rq->prefix_bytes && ((unsigned char)rq->prefix[cut] & 0xc0) == 0x80)
        cut++;
    while (end > 0 && end < rq->suffix_bytes && ((unsigned char)rq->suffix[end] & 0xc0) == 0x80)
        end--;
    if (rd_tokenizer_encode(e->tokenizer, rq->prefix + cut, rq->prefix_bytes - cut, RD_TEXT_PLAIN,
                            &before, err) ||
        rd_tokenizer_encode(e->tokenizer, rq->suffix, end, RD_TEXT_PLAIN, &p->anchor, err)) {
        rd_ids_clear(&before);
        return err->status;
    }
    if (p->anchor.n > block) p->anchor.n = block;
    int have = before.n / block * block;

    if (have > CONTEXT_MOST) have = CONTEXT_MOST / block * block;
    rd_ids_append(&p->context, before.id + before.n - have, have);
    rd_ids_clear(&before);
    return RD_OK;
}

/* What an answer may not hold: the banned ids, but for those that end it. The caller frees it. */
static int32_t *banned_in_answers(const rd_engine *e, int *n)
{
    int32_t *out = rd_alloc_array((size_t)e->n_banned + 1, sizeof *out);

    *n = 0;
    for (int i = 0; i < e->n_banned; i++)
        if (!is_stop(e, e->banned[i])) out[(*n)++] = e->banned[i];
    return out;
}

/* Texts of the file itself and its neighbours, as tokens. */
static rd_status find_drafts(rd_run *r, const rd_request *rq, rd_ids *ids, rd_hole_draft *out,
                             int *n, rd_error *err)
{
    rd_draft found[RD_DRAFTS_MOST];
    rd_draft_place place = { .prefix = rq->prefix,
                             .prefix_bytes = rq->prefix_bytes,
                             .suffix = rq->suffix,
                             .suffix_bytes = rq->suffix_bytes };
    rd_status status = RD_OK;

    for (int i = 0; i < rq->n_neighbours && i < RD_DRAFT_TEXTS_MOST; i++)
        place.others[place.n_others++] =
            (rd_draft_text){ rq->neighbours[i].text, rq->neighbours[i].bytes };
    int count = rd_drafts_find(&place, found, rq->answers > 1 ? RD_DRAFTS_MOST : 1);

    for (int i = 0; i < count && !status; i++) {
        status = rd_tokenizer_encode(r->e->tokenizer, found[i].text.data, found[i].text.len,
                                     RD_TEXT_PLAIN, &ids[i], err);
        if (status) break;
        out[(*n)++] = (rd_hole_draft){ ids[i].id, ids[i].n, found[i].alike };
    }
    rd_drafts_clear(found, count);
    return status;
}

static void set_confidence(rd_hole_options *o, const rd_model_config *c)
{
    const rd_confidence *f = &c->confidence;

    if (!c->calibrated) return;
    o->lead = f->lead;
    o->own = (rd_calibration){
        .base = f->own[0], .sure = f->own[1], .length = f->own[2], .tokens = f->own[3]
    };
    o->drafted = (rd_calibration){ .base = f->draft[0],
                                   .sure = f->draft[1],
                                   .length = f->draft[2],
                                   .end = f->draft[3],
                                   .tokens = f->draft[4],
                                   .alike = f->draft[5] };
    o->copied = (rd_calibration){ .base = f->copy[0], .tokens = f->copy[1], .alike = f->copy[2] };
}

float rd_engine_takes_draft(float quality)
{
    return 0.05f + 0.28f * quality;
}

/* Nothing ends or leaves the run because something else is likelier. */
static void weigh_all(rd_hole_options *o)
{
    o->take_draft = 2.0f;
    o->lead = 0.0f;
    o->own = (rd_calibration){ 0 };
}

static rd_status open_hole(rd_run *r, const rd_request *rq, bool all, rd_error *err)
{
    rd_engine *e = r->e;
    bool calibrated = all || rd_model_config_of(e->model)->calibrated;
    rd_layout layout = rd_layout_default();
    rd_prompt p = { 0 };
    rd_ids seed = { 0 }, draft_ids[RD_DRAFTS_MOST] = { 0 };
    rd_hole_draft drafts[RD_DRAFTS_MOST];
    int most = rq->max_tokens > 0 ? rq->max_tokens : MAX_TOKENS, n_drafts = 0;
    rd_status status;

    if (rq->hole_tokens > most) most = rq->hole_tokens;
    layout.block = rd_model_block_size(e->model);
    status = e->layout ? rd_prompt_make(e->tokenizer, &layout, &e->ids,
                                        rd_language_of(rq->language), rq->prefix, rq->prefix_bytes,
                                        rq->suffix, rq->suffix_bytes, layout.block, &p, err)
             : e->chat ? chat_prompt(e, rq, &p, err)
                       : plain_prompt(e, rq, &p, err);
    if (!status && rq->task == RD_REWRITE)
        status = rd_tokenizer_encode(e->tokenizer, rq->draft, rq->draft_bytes, RD_TEXT_PLAIN, &seed,
                                     err);
    else if (!status && !rq->no_draft && calibrated)
        status = find_drafts(r, rq, draft_ids, drafts, &n_drafts, err);
    if (rq->task == RD_REWRITE && seed.n + 64 > most) most = seed.n + 64;
    /* What was asked for at most is cut to what fits; a known length or a draft that does not is refused. */
    int fits = (KV_BLOCKS - 3) * layout.block - p.context.n;

    if (most > fits && rq->hole_tokens <= fits && seed.n <= fits) most = fits;
    /* A chat checkpoint that cannot delete may end its turn, and so the hole. */
    bool stops = e->chat && r->edit_ids.del < 0 && rq->hole_tokens == 0 && rq->task == RD_INFILL;
    int n_banned = e->n_banned;
    int32_t *banned = stops ? banned_in_answers(e, &n_banned) : NULL;
    rd_hole_options o = { .model = e->model,
                          .pool = e->pool,
                          .exchange = e->exchange,
                          .origin = origin_of(e, rq->realm, rq->source, rq->unstored),
                          .rules = { .ids = r->edit_ids,
                                     .stop = e->stop,
                                     .n_stop = stops ? e->n_stop : 0,
                                     .threshold = 0.6f + 0.3f * rq->quality,
                                     .length_threshold = 0.5f,
                                     .doubt = 0.05f + 0.15f * rq->quality,
                                     .edit_threshold = 0.6f + 0.2f * rq->quality,
                                     .tokens_most = most },
                          .banned = banned ? banned : e->banned,
                          .n_banned = n_banned,
                          .limit = rd_tokenizer_size(e->tokenizer),
                          .tokens = rq->hole_tokens,
                          .canvases = calibrated ? 1 + (int)(4.0f * rq->quality + 0.5f) : 0,
                          .drafts = drafts,
                          .n_drafts = n_drafts,
                          .take_draft = rd_engine_takes_draft(rq->quality),
                          .own = { .sure = 1.0f },
                          .cancel = rq->cancel };

    set_confidence(&o, rd_model_config_of(e->model));
    if (all) weigh_all(&o);
    if (!status)
        status = rd_hole_open(&o, p.context.id, p.context.n, seed.id, seed.n, p.anchor.id,
                              p.anchor.n, &r->hole, err);
    free(banned);
    rd_prompt_clear(&p);
    rd_ids_clear(&seed);
    for (int i = 0; i < RD_DRAFTS_MOST; i++) rd_ids_clear(&draft_ids[i]);
    return status;
}

static rd_status open_decoder(rd_run *r, const rd_request *rq, rd_error *err)
{
    rd_engine *e = r->e;
    rd_ids prompt = { 0 };
    int most = rq->max_tokens > 0 ? rq->max_tokens : MAX_TOKENS,
        block = rd_model_block_size(e->model);
    int room = (KV_BLOCKS - 2) * block - most;
    rd_status status;

    if (room < block) return rd_fail(err, RD_INVALID, "%d tokens are too many", most);
    if (e->layout) rd_ids_push(&prompt, e->ids.language[rd_language_of(rq->language)]);
    rd_chat_message message = { RD_CHAT_USER, rq->prefix, rq->prefix_bytes };

    status = e->chat ? rd_chat_encode(e->tokenizer, e->chat, &message, 1, &prompt, err)
                     : rd_tokenizer_encode(e->tokenizer, rq->prefix, rq->prefix_bytes,
                                           RD_TEXT_PLAIN, &prompt, err);
    int skip = prompt.n > room ? prompt.n - room : 0, n_banned;
    int32_t *banned = banned_in_answers(e, &n_banned);
    rd_decoder_options o = { .model = e->model,
                             .pool = e->pool,
                             .exchange = e->exchange,
                             .origin = origin_of(e, rq->realm, rq->source, rq->unstored),
                             .policy = rd_policy_dial(RD_POLICY_21, rq->quality),
                             .banned = banned,
                             .n_banned = n_banned,
                             .limit = rd_tokenizer_size(e->tokenizer),
                             .stop = e->stop,
                             .n_stop = e->n_stop,
                             .cancel = rq->cancel };

    o.policy.ids.mask = e->ids.mask;
    r->prompt_n = prompt.n - skip;
    if (!status)
        status = rd_decoder_open(&o, prompt.id + skip, prompt.n - skip, most, &r->decoder, err);
    free(banned);
    rd_ids_clear(&prompt);
    return status;
}

static rd_status open_run(rd_engine *e, const rd_request *rq, bool all, rd_run **out, rd_error *err)
{
    rd_run *r = rd_alloc0(sizeof *r);
    rd_error local = { 0 };
    rd_status status;

    if (!err) err = &local;
    r->e = e;
    r->edit_ids = (rd_edit_ids){ e->ids.mask, e->ids.del, e->ids.split };
    if (rd_model_unchanged(e->model, err))
        status = err->status;
    else if (!(rq->quality >= 0.0f && rq->quality <= 1.0f) || rq->max_tokens < 0 ||
             rq->hole_tokens < 0 || rq->max_tokens > 65536 || rq->hole_tokens > 65536)
        status = rd_fail(err, RD_INVALID, "quality %g, max_tokens %d, hole_tokens %d: out of range",
                         (double)rq->quality, rq->max_tokens, rq->hole_tokens);
    else
        status = rq->task == RD_GENERATE ? open_decoder(r, rq, err) : open_hole(r, rq, all, err);
    if (!status && rq->task == RD_INFILL && !e->layout) {
        rd_buf_append(&r->suffix, rq->suffix,
                      rq->suffix_bytes < RD_OVERLAP_MOST ? rq->suffix_bytes : RD_OVERLAP_MOST);
        r->before = rq->prefix_bytes > 0 ? rq->prefix[rq->prefix_bytes - 1] : 0;
    }
    if (status) {
        rd_run_close(r);
        return status;
    }
    *out = r;
    return RD_OK;
}

rd_status rd_run_open(rd_engine *e, const rd_request *rq, rd_run **out, rd_error *err)
{
    return open_run(e, rq, false, out, err);
}

void rd_run_close(rd_run *r)
{
    if (!r) return;
    rd_hole_close(r->hole);
    rd_decoder_close(r->decoder);
    rd_buf_clear(&r->suffix);
    rd_buf_clear(&r->text);
    free(r->marks);
    free(r);
}

static void add_mark(rd_run *r, int32_t token, int state, float prob)
{
    size_t n = 0;
    const char *bytes =
        state == RD_MARK_MASK ? NULL : rd_tokenizer_bytes(r->e->tokenizer, token, &n);

    if (r->last.n_marks == r->marks_cap) {
        r->marks_cap = r->marks_cap ? 2 * r->marks_cap : 64;
        r->marks = rd_resize(r->marks, (size_t)r->marks_cap, sizeof *r->marks);
    }
    r->marks[r->last.n_marks++] =
        (rd_mark){ .text = bytes, .bytes = n, .prob = prob, .state = state };
    if (bytes) rd_buf_append(&r->text, bytes, n);
}

static void show_hole(rd_run *r)
{
    static const int states[] = { RD_MARK_MASK, RD_MARK_DRAFT, RD_MARK_EDITED, RD_MARK_SETTLED };
    int n;
    const rd_slot *s = rd_hole_slots(r->hole, &n);

    for (int i = 0; i < n; i++) {
        if (s[i].spare) continue;
        add_mark(r, s[i].token, states[s[i].state], s[i].prob);
        r->last.tokens += s[i].state != RD_SLOT_MASK;
    }
    r->last.confidence = rd_hole_confidence(r->hole);
    r->last.forwards = rd_hole_forwards(r->hole);
    r->last.prefill_tokens = rd_hole_prefilled(r->hole);
    r->last.reason = rd_hole_full(r->hole) ? RD_REASON_LIMIT
                     : n == 0              ? RD_REASON_EMPTY
                                           : RD_REASON_DONE;
}

/* A finished hole that runs into the suffix ends where the suffix begins. */
static void trim_hole(rd_run *r)
{
    size_t more = rd_overlap(r->before, r->text.data, r->text.len, r->suffix.data, r->suffix.len);

    if (more == 0) return;
    r->text.len -= more;
    r->text.data[r->text.len] = 0;
    while (more > 0) {
        rd_mark *m = &r->marks[r->last.n_marks - 1];
        size_t off = more < m->bytes ? more : m->bytes;

        m->bytes -= off;
        more -= off;
        if (m->bytes > 0) continue;
        r->last.n_marks--;
        r->last.tokens--;
    }
    r->last.reason = r->last.tokens == 0 ? RD_REASON_EMPTY : RD_REASON_DONE;
}

static void show_decoder(rd_run *r, const rd_decoder_step *s)
{
    rd_ids out = { 0 };
    double sure = 0.0;
    int start = s->window_end - s->block->size;

    rd_decoder_output(r->decoder, &out);
    for (int i = 0; i < out.n; i++) {
        bool mask = out.id[i] == r->edit_ids.mask, open = !s->done && r->prompt_n + i >= start;

        if (is_stop(r->e, out.id[i])) break;
        add_mark(r, out.id[i], mask ? RD_MARK_MASK : open ? RD_MARK_DRAFT : RD_MARK_SETTLED, 1.0f);
        r->last.tokens += !mask;
    }
    for (int i = 0; i < s->block->size; i++)
        if (!s->block->pinned[i]) sure += log((double)s->block->prob[i] + 1e-6);
    r->last.confidence = (float)exp(sure);
    r->last.forwards = rd_decoder_forwards(r->decoder);
    r->last.prefill_tokens = rd_decoder_prefilled(r->decoder);
    r->last.reason = r->last.tokens == 0 ? RD_REASON_EMPTY : RD_REASON_DONE;
    rd_ids_clear(&out);
}

/* What the caller sees of the hole. */
static void take_hole(rd_run *r, bool done)
{
    rd_buf_reset(&r->text);
    r->last = (rd_step){ 0 };
    show_hole(r);
    r->last.done = done;
    if (done && r->suffix.len > 0) trim_hole(r);
}

static void lend(rd_run *r, rd_step *out)
{
    r->last.text = r->text.data ? r->text.data : "";
    r->last.bytes = r->text.len;
    r->last.marks = r->marks;
    *out = r->last;
}

rd_status rd_run_step(rd_run *r, rd_step *out, rd_error *err)
{
    bool done = r->last.done;
    rd_decoder_step s = { 0 };
    rd_status status = RD_OK;

    if (done) {
        lend(r, out);
        return RD_OK;
    }
    status = r->hole ? rd_hole_step(r->hole, &done, err) : rd_decoder_step_run(r->decoder, &s, err);
    if (status) return status;
    if (r->hole) {
        take_hole(r, done);
    } else {
        rd_buf_reset(&r->text);
        r->last = (rd_step){ 0 };
        show_decoder(r, &s);
        r->last.done = s.done;
    }
    lend(r, out);
    return RD_OK;
}

void rd_run_end(rd_run *r, rd_step *out)
{
    if (r->hole && !r->last.done) {
        rd_hole_end(r->hole);
        take_hole(r, true);
    }
    r->last.done = true;
    r->last.reason = RD_REASON_TIME;
    lend(r, out);
}

/* ---- texts ---- */

rd_status rd_run_open_weighed(rd_engine *e, const rd_request *rq, rd_run **out, rd_error *err)
{
    assert(rq->task == RD_INFILL);
    return open_run(e, rq, true, out, err);
}

bool rd_run_text_at(const rd_run *r, int i, rd_hole_text *out, rd_buf *text)
{
    rd_ids ids = { 0 };
    size_t from = text->len;
    bool found = r->last.done && r->hole && rd_hole_text_at(r->hole, i, out, &ids);

    for (int k = 0; k < ids.n; k++) {
        size_t n = 0;
        const char *bytes = rd_tokenizer_bytes(r->e->tokenizer, ids.id[k], &n);

        if (bytes) rd_buf_append(text, bytes, n);
    }
    if (text->len > from && r->suffix.len > 0) {
        text->len -= rd_overlap(r->before, text->data + from, text->len - from, r->suffix.data,
                                r->suffix.len);
        text->data[text->len] = 0;
    }
    rd_ids_clear(&ids);
    return found;
}

/* ---- score ---- */

enum { EVERY = 4, BEFORE = 2 << 10, BEHIND = 1 << 10, JUMP = 1 << 10 }; /* bytes */

/* Four passes over one block of tokens, each with every fourth token masked. */
static rd_status score_block(rd_engine *e, const rd_sequence *s, const int32_t *tokens, int n,
                             const rd_cancel *cancel, rd_pick *out, rd_error *err)
{
    for (int phase = 0; phase < EVERY; phase++) {
        int32_t shown[RD_BLOCK_MOST], watched[RD_BLOCK_MOST], rows[RD_BLOCK_MOST];
        rd_pick picks[RD_BLOCK_MOST];
        int masked = 0;

        for (int i = 0; i < n; i++) {
            shown[i] = i % EVERY == phase ? e->ids.mask : tokens[i];
            if (i % EVERY != phase) continue;
            watched[masked] = tokens[i];
            rows[masked++] = i;
        }
        if (masked == 0) continue;
        rd_pick_query q = { .banned = e->banned,
                            .n_banned = e->n_banned,
                            .watched = watched,
                            .rows = rows,
                            .n_rows = masked,
                            .limit = rd_tokenizer_size(e->tokenizer) };
        rd_pass pass = { .tokens = shown,
                         .rows = n,
                         .past = s->places,
                         .past_blocks = s->n,
                         .query = &q,
                         .picks = picks,
                         .cancel = cancel };

        if (rd_forward(e->model, &pass, err)) return err->status;
        for (int i = 0; i < masked; i++) out[rows[i]] = picks[i];
    }
    return RD_OK;
}

/* `s` has no blocks. The blocks that hold tokens [from, to), each behind those before it; a long text is seen in windows. */
static rd_status score_tokens(rd_engine *e, rd_sequence *s, const rd_ids *ids, int from, int to,
                              const rd_cancel *cancel, rd_pick *picks, rd_error *err)
{
    int block = rd_model_block_size(e->model), window = CONTEXT_MOST / block;
    int first = from / block, past = first > 0 ? (first - 1) % window + 1 : 0;
    rd_status status =
        rd_sequence_extend(s, ids->id + (first - past) * block, past * block, cancel, err);

    for (int at = first * block; at < to && !status; at += block) {
        int len = ids->n - at < block ? ids->n - at : block;

        status = score_block(e, s, ids->id + at, len, cancel, picks + at, err);
        if (status || at + block >= to) break;
        if (s->n == window) rd_sequence_clear(s);
        status = rd_sequence_extend(s, ids->id + at, block, cancel, err);
    }
    rd_sequence_clear(s);
    return status;
}

/* Where the text that is read begins: at a line start before the bytes that are asked for. It moves in jumps, so
 * that pieces of one text find each other's blocks. */
static size_t read_from(const rd_score_request *rq)
{
    size_t at = rq->from > BEFORE ? (rq->from - BEFORE) / JUMP * JUMP : 0;

    while (at > 0 && at < rq->from && rq->text[at - 1] != '\n') at++;
    return at;
}

static size_t read_to(const rd_score_request *rq)
{
    size_t to = rq->to < rq->bytes ? rq->to : rq->bytes;
    size_t at = rq->bytes - to > BEHIND ? to + BEHIND : rq->bytes;

    while (at > to && at < rq->bytes && ((unsigned char)rq->text[at] & 0xc0) == 0x80) at--;
    return at;
}

/* The tokens that have a byte in [from, to) of the request, as scores without probabilities; *first is the first's
 * place among `ids`, of which `skip` are no text. `begin` is the byte at which the text of `ids` begins. */
static int find_tokens(const rd_engine *e, const rd_score_request *rq, const rd_ids *ids, int skip,
                       size_t begin, rd_score *list, int *first)
{
    size_t byte = begin;
    int n = 0;

    for (int i = skip; i < ids->n; i++) {
        size_t len, start = byte;

        rd_tokenizer_bytes(e->tokenizer, ids->id[i], &len);
        byte += len;
        if (byte <= rq->from || start >= rq->to) continue;
        if (n == 0) *first = i;
        list[n++] = (rd_score){ .start = start, .end = byte };
    }
    return n;
}

static void set_score(const rd_engine *e, const rd_pick *pick, rd_score *out)
{
    size_t n;
    const char *best = rd_tokenizer_bytes(e->tokenizer, pick->token, &n);

    out->p = pick->watched_prob;
    out->p_best = pick->prob;
    snprintf(out->best, sizeof out->best, "%.*s", best ? (int)n : 0, best ? best : "");
}

rd_status rd_engine_score(rd_engine *e, const rd_score_request *rq, rd_score **out, int *count,
                          rd_error *err)
{
    rd_ids ids = { 0 };
    rd_error local = { 0 };
    size_t begin = read_from(rq);
    int skip, n = 0, first = 0;

    if (!err) err = &local;
    if (rd_model_unchanged(e->model, err)) return err->status;
    if (e->layout) rd_ids_push(&ids, e->ids.language[rd_language_of(rq->language)]);
    skip = ids.n;
    if (rd_tokenizer_encode(e->tokenizer, rq->text + begin, read_to(rq) - begin, RD_TEXT_PLAIN,
                            &ids, err)) {
        rd_ids_clear(&ids);
        return err->status;
    }
    rd_score *list = rd_alloc_array((size_t)ids.n + 1, sizeof *list);
    rd_pick *picks = rd_alloc_array((size_t)ids.n + RD_BLOCK_MOST, sizeof *picks);

    n = find_tokens(e, rq, &ids, skip, begin, list, &first);
    rd_sequence s = { .model = e->model,
                      .pool = e->pool,
                      .exchange = e->exchange,
                      .origin = origin_of(e, rq->realm, rq->source, rq->unstored) };
    rd_status status = score_tokens(e, &s, &ids, first, first + n, rq->cancel, picks, err);

    for (int i = 0; i < n; i++) set_score(e, &picks[first + i], &list[i]);
    free(picks);
    rd_ids_clear(&ids);
    if (status) {
        free(list);
        return status;
    }
    *out = list;
    *count = n;
    return RD_OK;
}
