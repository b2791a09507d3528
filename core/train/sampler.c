/* sampler.c - draws documents, cuts places out of them (cutter.h), and hands them to the objectives. */
#include "core/train/sampler.h"

#include "core/base/memory.h"
#include "core/train/cutter.h"

#include <stdlib.h>
#include <string.h>

enum {
    WINDOW = 512,    /* tokens of a window without a hole */
    DRAFTS = 8,      /* texts in one hole, at most */
    DRAFT_MOST = 23, /* tokens of a draft: the anchor and a mask stand behind it */
    REWRITE_LINES = 3
};

static const float OWN_RATE = 0.7f; /* of the masks in the pass for the model's own words */

enum noise { NOISE_ANY, NOISE_NAME, NOISE_OWN, NOISE_FAULT, NOISES };

struct rd_mixture {
    rd_mixture_options o;
    const rd_corpus *corpus;
    rd_bpe *bpe;
    rd_cutter *cutter;
    int *docs[3];     /* of each language, training ones */
    int64_t *upto[3]; /* sums of their weights */
    int docs_n[3];
    rd_ids doc, made, instead; /* scratch */
    rd_ids draft[DRAFTS];
    rd_rows guessed; /* rows of a pass for the model's own words */
    int32_t *best;   /* its first choices, [best_room] */
    int best_room;
};

rd_status rd_mixture_open(const rd_corpus *corpus, rd_bpe *bpe, const rd_mixture_options *o,
                          rd_mixture **out, rd_error *err)
{
    int vocab = rd_corpus_vocab(corpus), n = rd_corpus_count(corpus);

    if (rd_bpe_size(bpe) != vocab)
        return rd_fail(err, RD_INVALID, "the corpus has %d tokens, the tokenizer %d", vocab,
                       rd_bpe_size(bpe));
    rd_mixture *m = rd_alloc0(sizeof *m);

    m->o = *o;
    m->corpus = corpus;
    m->bpe = bpe;
    m->cutter = rd_cutter_new(bpe);
    m->cutter->tokens.options = &m->o.ask;
    for (int l = 0; l < 3; l++) {
        int64_t sum = 0;

        m->docs[l] = rd_alloc_array((size_t)n + 1, sizeof *m->docs[l]);
        m->upto[l] = rd_alloc_array((size_t)n + 1, sizeof *m->upto[l]);
        for (int i = 0; i < n; i++) {
            rd_corpus_doc d = rd_corpus_at(corpus, i);

            if (d.held_out || d.language != l || d.n < 32) continue;
            sum += d.n < 16384 ? d.n : 16384;
            m->docs[l][m->docs_n[l]] = i;
            m->upto[l][m->docs_n[l]++] = sum;
        }
    }
    if (!m->docs_n[RD_LANGUAGE_PYTHON] && !m->docs_n[RD_LANGUAGE_C]) {
        rd_mixture_close(m);
        return rd_fail(err, RD_INVALID, "the corpus has no documents to train on");
    }
    *out = m;
    return RD_OK;
}

void rd_mixture_close(rd_mixture *m)
{
    if (!m) return;
    for (int l = 0; l < 3; l++) {
        free(m->docs[l]);
        free(m->upto[l]);
    }
    rd_cutter_free(m->cutter);
    rd_ids_clear(&m->doc);
    rd_ids_clear(&m->made);
    rd_ids_clear(&m->instead);
    for (int i = 0; i < DRAFTS; i++) rd_ids_clear(&m->draft[i]);
    rd_rows_clear(&m->guessed);
    free(m->best);
    free(m);
}

static rd_corpus_doc draw_doc(rd_mixture *m, rd_random *random)
{
    int l = rd_random_unit(random) < 0.55 ? RD_LANGUAGE_PYTHON : RD_LANGUAGE_C;

    if (!m->docs_n[l]) l = RD_LANGUAGE_PYTHON + RD_LANGUAGE_C - l;
    int64_t at = (int64_t)(rd_random_unit(random) * (double)m->upto[l][m->docs_n[l] - 1]);
    int low = 0, high = m->docs_n[l] - 1;

    while (low < high) {
        int mid = (low + high) / 2;

        if (m->upto[l][mid] > at)
            high = mid;
        else
            low = mid + 1;
    }
    return rd_corpus_at(m->corpus, m->docs[l][low]);
}

static int below(rd_random *random, int n)
{
    return n > 0 ? (int)rd_random_below(random, (uint32_t)n) : 0;
}

static bool happens(rd_random *random, float share)
{
    return rd_random_unit(random) < (double)share;
}

/* One of `n` by their weights; the last where all are zero. */
static int draw_by(rd_random *random, const float *weight, int n)
{
    double sum = 0.0;
    int i = 0;

    for (int k = 0; k < n; k++) sum += (double)weight[k];
    double at = rd_random_unit(random) * sum;

    for (; i < n - 1 && at >= (double)weight[i]; i++) at -= (double)weight[i];
    return i;
}

/* First choices for the rows in `guessed`, into `best`; the labels where no model is there to be asked. */
static rd_status guess(rd_mixture *m, const rd_draw *draw, rd_error *err)
{
    if (m->guessed.n > m->best_room) {
        m->best_room = m->guessed.n;
        m->best = rd_resize(m->best, (size_t)m->best_room, sizeof *m->best);
    }
    if (draw->guess) return draw->guess(draw->model, &m->guessed, m->best, err);
    for (int i = 0; i < m->guessed.n; i++) m->best[i] = m->guessed.row[i].label;
    return RD_OK;
}

/* A window of a document behind its language's tag. */
static rd_corpus_doc draw_window(rd_mixture *m, int most, rd_random *random)
{
    rd_corpus_doc d = draw_doc(m, random);
    int n = d.n < most - 1 ? d.n : most - 1, at = below(random, d.n - n + 1);

    rd_ids_reset(&m->doc);
    rd_ids_push(&m->doc, m->cutter->ids.language[d.language]);
    for (int i = 0; i < n; i++) rd_ids_push(&m->doc, d.ids[at + i]);
    return d;
}

/* ---- next tokens ---- */

/* The window's middle moves to its end: tag, suffix, prefix, middle. */
static void suffix_first(rd_mixture *m, rd_random *random)
{
    int n = m->doc.n - 1, a = below(random, n), b = a + below(random, n - a + 1);
    const int32_t *s = m->doc.id + 1;
    const rd_layout_ids *ids = &m->cutter->ids;

    rd_ids_reset(&m->made);
    rd_ids_push(&m->made, m->doc.id[0]);
    rd_ids_push(&m->made, ids->suffix);
    rd_ids_append(&m->made, s + b, n - b);
    rd_ids_push(&m->made, ids->prefix);
    rd_ids_append(&m->made, s, a);
    rd_ids_push(&m->made, ids->fill);
    rd_ids_append(&m->made, s + a, b - a);
}

static void sample_next(rd_mixture *m, const rd_draw *draw, rd_rows *rows)
{
    int n = draw->most / 2 < WINDOW ? draw->most / 2 : WINDOW;
    const rd_ids *ids = &m->doc;

    draw_window(m, n - 4, draw->random);
    if (happens(draw->random, m->o.suffix_first)) {
        suffix_first(m, draw->random);
        ids = &m->made;
    }
    rd_rows_next_token(rows, &m->cutter->tokens, ids->id, ids->n);
}

/* ---- windows ---- */

static int draw_block(const rd_mixture *m, rd_random *random)
{
    static const int sizes[] = { 8, 16, 32 };
    const float weight[] = { m->o.block_8, m->o.block_16, m->o.block_32 };

    return sizes[draw_by(random, weight, 3)];
}

static void sample_masked(rd_mixture *m, const rd_draw *draw, rd_rows *rows)
{
    rd_noise noise = { .block = draw_block(m, draw->random), .pair = m->o.pairs };
    int copies = noise.pair ? 3 : 2, n = draw->most / copies;

    draw_window(m, n < WINDOW ? n : WINDOW, draw->random);
    rd_rows_blocks(rows, &m->cutter->tokens, &noise, m->doc.id, m->doc.n, draw->random);
}

/* Another token: one of the same window, or any that is text. */
static int32_t any_token(const rd_mixture *m, rd_random *random)
{
    if (rd_random_below(random, 2) && m->doc.n > 1)
        return m->doc.id[1 + below(random, m->doc.n - 1)];
    return RD_BPE_RESERVED + below(random, m->cutter->tokens.vocab - RD_BPE_RESERVED);
}

static bool is_name(const rd_mixture *m, int32_t id)
{
    size_t n;
    const char *s = rd_bpe_bytes(m->bpe, id, &n);

    if (n > 1 && *s == ' ') s++, n--;
    return n > 1 && ((*s | 32) >= 'a' && (*s | 32) <= 'z');
}

/* A word of the same document in a word's place; -1: the token is none, or no other was found. */
static int32_t other_name(const rd_mixture *m, const rd_corpus_doc *d, int32_t id,
                          rd_random *random)
{
    if (!is_name(m, id)) return -1;
    for (int tries = 0; tries < 16; tries++) {
        int32_t other = d->ids[below(random, d->n)];

        if (other != id && is_name(m, other)) return other;
    }
    return -1;
}

/* What stands in the window's tokens' places: other tokens in a share of them. */
static void put_others(rd_mixture *m, const rd_corpus_doc *d, float wrong, bool names,
                       rd_random *random)
{
    for (int i = 0; i < m->doc.n; i++) {
        int32_t other = -1;

        if (happens(random, wrong))
            other = names ? other_name(m, d, m->doc.id[i], random) : any_token(m, random);
        rd_ids_push(&m->instead, other);
    }
}

/* The model's first choices where a pass with most of the window masked does not find its text; as many of them
 * as make up the share. */
static rd_status put_own(rd_mixture *m, const rd_draw *draw, const rd_noise *noise, float wrong,
                         rd_error *err)
{
    rd_objective_options o = m->o.ask;
    rd_objective_tokens t = m->cutter->tokens;
    rd_noise masked = { .block = noise->block };
    int found = 0, n = m->doc.n;

    o.rate_least = o.rate_most = OWN_RATE;
    t.options = &o;
    m->guessed.n = 0;
    rd_rows_blocks(&m->guessed, &t, &masked, m->doc.id, n, draw->random);
    if (guess(m, draw, err)) return err->status;
    for (int i = 0; i < n; i++) rd_ids_push(&m->instead, -1);
    for (int i = 0; i < m->guessed.n; i++) {
        const rd_train_row *row = &m->guessed.row[i];
        int32_t best = m->best[i];

        if (best < RD_BPE_RESERVED || best == m->doc.id[row->position]) continue;
        m->instead.id[row->position] = best;
        found++;
    }
    for (int i = 0; i < n && found > 0; i++)
        if (!happens(draw->random, wrong * (float)n / (float)found)) m->instead.id[i] = -1;
    return RD_OK;
}

static rd_status sample_replaced(rd_mixture *m, const rd_draw *draw, enum noise kind, rd_rows *rows,
                                 rd_error *err)
{
    rd_random *random = draw->random;
    float least = m->o.wrong_least, most = m->o.wrong_most;
    float wrong = least + (most - least) * (float)rd_random_unit(random);
    int n = draw->most / 2;
    rd_noise noise = { .block = draw_block(m, random) };
    rd_corpus_doc d = draw_window(m, n < WINDOW ? n : WINDOW, random);

    rd_ids_reset(&m->instead);
    if (kind != NOISE_OWN)
        put_others(m, &d, wrong, kind == NOISE_NAME, random);
    else if (put_own(m, draw, &noise, wrong, err))
        return err->status;
    noise.instead = m->instead.id;
    rd_rows_blocks(rows, &m->cutter->tokens, &noise, m->doc.id, m->doc.n, random);
    return RD_OK;
}

/* A window whose blocks have a fault each, but for some; what follows a block moves up to where it ends. */
static void sample_faults(rd_mixture *m, const rd_draw *draw, rd_rows *rows)
{
    int n = draw->most / 2, block = rd_layout_default().block;
    rd_corpus_doc d = draw_window(m, n < WINDOW ? n : WINDOW, draw->random);
    rd_hole window = { .text = m->doc.id, .text_n = m->doc.n, .block = block };
    rd_draft_ids drafts[WINDOW / 8];

    rd_ids_reset(&m->made);
    rd_ids_reset(&m->instead);
    for (int done = 0; done + block < m->doc.n; done += block) {
        int until = done + 2 * block < m->doc.n ? done + 2 * block : m->doc.n;
        int skip = done == 0; /* the tag */
        const int32_t *text = m->doc.id + done;
        int from = m->made.n;

        rd_ids_append(&m->made, text, skip);
        if (happens(draw->random, m->o.rewrite_clean) ||
            !rd_cut_faulty(m->cutter, &d, text + skip, block - skip, 1, draw->random, &m->made)) {
            m->made.n = from;
            rd_ids_append(&m->made, text, block);
        }
        rd_ids_append(&m->made, text + block, until - done - block);
        rd_ids_push(&m->instead, from);
        drafts[window.n_drafts++] =
            (rd_draft_ids){ .n = m->made.n - from, .done = done, .until = until };
    }
    for (int i = 0; i < window.n_drafts; i++) drafts[i].id = m->made.id + m->instead.id[i];
    window.drafts = drafts;
    rd_rows_hole(rows, &m->cutter->tokens, &window, draw->random);
}

static rd_status sample_edited(rd_mixture *m, const rd_draw *draw, rd_rows *rows, rd_error *err)
{
    const float weight[NOISES] = { m->o.noise_any, m->o.noise_name, m->o.noise_own,
                                   m->o.noise_fault };
    enum noise kind = (enum noise)draw_by(draw->random, weight, NOISES);

    if (kind != NOISE_FAULT) return sample_replaced(m, draw, kind, rows, err);
    sample_faults(m, draw, rows);
    return RD_OK;
}

/* ---- holes ---- */

static bool draw_span(const rd_mixture *m, const rd_corpus_doc *d, rd_random *random, rd_span *out)
{
    enum { EMPTY, LINE, PART, LINES, BLOCK, KINDS };
    const float weight[KINDS] = { m->o.ask.lengths ? m->o.hole_empty : 0.0f, m->o.hole_line,
                                  m->o.hole_part, m->o.hole_lines, m->o.hole_block };
    int kind = draw_by(random, weight, KINDS);
    rd_span s = rd_cut_line(m->cutter, d, below(random, d->n));
    int n = s.end - s.start;

    if (kind == EMPTY) {
        s.start = s.end; /* nothing is missing */
    } else if (kind == LINE) {
        if (n < 2) return false;
    } else if (kind == PART) {
        if (n < 3) return false;
        s.start += 1 + below(random, n - 1);
        if (rd_random_below(random, 3) == 0) s.end = s.start + 1 + below(random, s.end - s.start);
    } else if (kind == LINES) {
        s = rd_cut_lines(m->cutter, d, s, 1 + below(random, 4), false);
    } else {
        s = rd_cut_lines(m->cutter, d, s, 12, true);
    }
    *out = s;
    return s.end - s.start <= RD_HOLE_MOST;
}

static rd_layout draw_layout(rd_random *random)
{
    rd_layout layout = rd_layout_default();

    layout.far_most = layout.far_step * (int)rd_random_below(random, 3);
    layout.quote_most = rd_random_below(random, 4) ? 128 : 16 + below(random, 112);
    return layout;
}

/* ---- drafts ---- */

/* Any token of the document, or of the vocabulary. */
static int32_t other_token(const rd_mixture *m, const rd_corpus_doc *d, rd_random *random)
{
    if (rd_random_below(random, 5)) return d->ids[rd_random_below(random, (uint32_t)d->n)];
    return RD_BPE_RESERVED + below(random, m->cutter->tokens.vocab - RD_BPE_RESERVED);
}

/* The hole's own text with a few faults: dropped, doubled, swapped and wrong tokens. */
static void faulty_text(const rd_mixture *m, const rd_corpus_doc *d, const int32_t *text, int n,
                        rd_random *random, rd_ids *out)
{
    int faults = below(random, 3) + (rd_random_below(random, 4) == 0 ? 2 : 0);

    rd_ids_append(out, text, n);
    for (; faults > 0 && out->n > 0; faults--) {
        int at = below(random, out->n), kind = below(random, 6);
        int32_t *id = out->id;

        if (kind == 0) {
            memmove(id + at, id + at + 1, (size_t)(out->n - at - 1) * sizeof *id);
            out->n--;
        } else if (kind == 1) {
            rd_ids_push(out, 0);
            memmove(out->id + at + 1, out->id + at, (size_t)(out->n - at - 1) * sizeof *id);
        } else if (kind == 2 && at + 1 < out->n) {
            int32_t first = id[at];

            id[at] = id[at + 1];
            id[at + 1] = first;
        } else {
            id[at] = other_token(m, d, random);
        }
    }
}

static int draw_drafts(rd_mixture *m, const rd_corpus_doc *d, rd_span s, const rd_hole *hole,
                       rd_random *random, rd_draft_ids *out)
{
    int count = 0;

    for (int i = 0; i < m->o.drafts; i++) {
        rd_ids *draft = &m->draft[count];

        rd_ids_reset(draft);
        if (i == 0 || happens(random, m->o.draft_line)) {
            if (!rd_cut_similar(m->cutter, d, s, random, draft)) continue;
        } else {
            faulty_text(m, d, hole->text, hole->text_n, random, draft);
        }
        if (draft->n > DRAFT_MOST) continue;
        out[count++] = (rd_draft_ids){ .id = draft->id, .n = draft->n };
    }
    return count;
}

static bool fits(const rd_hole *hole, int blocks, const rd_draw *draw)
{
    int copies = blocks * hole->versions + hole->n_drafts + hole->context_copies;

    return hole->context_n + hole->text_n + copies * hole->block <= draw->most;
}

static bool sample_hole(rd_mixture *m, const rd_draw *draw, rd_rows *rows)
{
    rd_random *random = draw->random;
    rd_corpus_doc d = draw_doc(m, random);
    rd_draft_ids drafts[DRAFTS];
    rd_hole hole;
    rd_span s;

    if (!draw_span(m, &d, random, &s)) return false;
    bool inside = happens(random, m->o.hole_inside);
    rd_layout layout = draw_layout(random);

    if (!rd_cut_hole(m->cutter, &d, s, inside, &layout, random, &hole)) return false;
    if (hole.text_n == 0 && !m->o.ask.lengths) return false;
    int blocks = hole.text_n / hole.block + 1;

    hole.versions = blocks > 2 ? 2 : m->o.copies / blocks;
    if (hole.versions < 1) hole.versions = 1;
    hole.context_copies = m->o.context_copies;
    if (blocks == 1 && !inside) {
        hole.n_drafts = draw_drafts(m, &d, s, &hole, random, drafts);
        hole.drafts = drafts;
    }
    if (!fits(&hole, blocks, draw)) return false;
    rd_rows_hole(rows, &m->cutter->tokens, &hole, random);
    return true;
}

/* ---- rewrites ---- */

/* The text with the model's first choices in one to three places where a pass with most of it masked does not find
 * it. */
static rd_status own_words(rd_mixture *m, const rd_draw *draw, const rd_hole *hole, int done,
                           rd_ids *out, rd_error *err)
{
    int n = hole->text_n - done, found = 0, wanted = 1 + below(draw->random, 3);
    rd_hole masked = *hole;
    rd_draft_ids canvas = { .n = n, .done = done };

    rd_ids_append(out, hole->text + done, n);
    rd_ids_reset(&m->instead);
    for (int i = 0; i < n; i++)
        rd_ids_push(&m->instead,
                    happens(draw->random, OWN_RATE) ? m->cutter->ids.mask : out->id[i]);
    canvas.id = m->instead.id;
    masked.drafts = &canvas;
    masked.n_drafts = 1;
    m->guessed.n = 0;
    rd_rows_hole(&m->guessed, &m->cutter->tokens, &masked, draw->random);
    if (guess(m, draw, err)) return err->status;
    for (int pass = 0; pass < 2; pass++) {
        float share = found > wanted ? (float)wanted / (float)found : 1.0f;

        for (int i = 0; i < m->guessed.n; i++) {
            const rd_train_row *row = &m->guessed.row[i];
            int at = row->position - hole->context_n - done;
            int32_t best = m->best[i];

            if (row->own_end == row->own_start || at >= n || m->instead.id[at] == out->id[at] ||
                best < RD_BPE_RESERVED || best == hole->text[done + at])
                continue;
            if (pass == 0)
                found++;
            else if (happens(draw->random, share))
                out->id[at] = best;
        }
    }
    return RD_OK;
}

/* What stands in a span that is rewritten: its own text, a similar line, the model's words, or a fault or two. Empty:
 * there is none of the drawn kind. */
static rd_status draw_seed(rd_mixture *m, const rd_draw *draw, const rd_corpus_doc *d, rd_span s,
                           const rd_hole *hole, int done, rd_ids *out, rd_error *err)
{
    const float weight[] = { m->o.rewrite_line, m->o.rewrite_own,
                             1.0f - m->o.rewrite_line - m->o.rewrite_own };
    const int32_t *text = hole->text + done;
    int n = hole->text_n - done, faults = 1 + (rd_random_below(draw->random, 5) == 0);

    rd_ids_reset(out);
    if (happens(draw->random, m->o.rewrite_clean)) {
        rd_ids_append(out, text, n);
        return RD_OK;
    }
    switch (draw_by(draw->random, weight, 3)) {
    case 0:
        if (hole->text_n <= hole->block) rd_cut_similar(m->cutter, d, s, draw->random, out);
        break;
    case 1: return own_words(m, draw, hole, done, out, err);
    default:
        if (!rd_cut_faulty(m->cutter, d, text, n, faults, draw->random, out)) rd_ids_reset(out);
    }
    return RD_OK;
}

/* *made: false where the drawn place gave nothing. */
static rd_status sample_rewrite(rd_mixture *m, const rd_draw *draw, rd_rows *rows, bool *made,
                                rd_error *err)
{
    rd_random *random = draw->random;
    rd_corpus_doc d = draw_doc(m, random);
    rd_layout layout = draw_layout(random);
    rd_draft_ids seeds[DRAFTS];
    rd_hole hole;
    rd_span s = rd_cut_line(m->cutter, &d, below(random, d.n));

    *made = false;
    s = rd_cut_lines(m->cutter, &d, s, below(random, REWRITE_LINES), false);
    if (s.end - s.start < 2 || s.end - s.start > RD_HOLE_MOST ||
        !rd_cut_hole(m->cutter, &d, s, false, &layout, random, &hole))
        return RD_OK;
    int last = (hole.text_n - 1) / hole.block, n = 0;

    /* A later block sees the ones before it as they were left: right. */
    for (int i = 0; i < m->o.rewrite_copies; i++) {
        int done = i % (last + 1) * hole.block;
        rd_ids *seed = &m->draft[n];

        if (draw_seed(m, draw, &d, s, &hole, done, seed, err)) return err->status;
        if (seed->n == 0 || seed->n > RD_HOLE_MOST) continue;
        seeds[n++] = (rd_draft_ids){ .id = seed->id, .n = seed->n, .done = done };
    }
    hole.drafts = seeds;
    hole.n_drafts = n;
    hole.context_copies = m->o.context_copies;
    if (n == 0 || !fits(&hole, 1, draw)) return RD_OK;
    rd_rows_hole(rows, &m->cutter->tokens, &hole, random);
    *made = true;
    return RD_OK;
}

/* ---- the mixture ---- */

/* CAP: masks that are right already are asked to be sure. */
static void ask_for_confidence(rd_rows *rows, int from, int32_t mask, float weight)
{
    for (int i = from; i < rows->n; i++) {
        rd_train_row *row = &rows->row[i];

        if (row->label >= 0 && row->token == mask) row->confidence = weight * row->weight;
    }
}

static rd_status draw_sample(rd_mixture *m, const rd_draw *draw, rd_rows *rows, rd_error *err)
{
    const rd_mixture_options *o = &m->o;
    float next = draw->progress < (double)o->early ? o->next_early : o->next_late;
    const float weight[] = { o->masked, o->edited, o->rewrites,
                             1.0f - o->masked - o->edited - o->rewrites };
    bool made = false;

    if (happens(draw->random, next)) {
        sample_next(m, draw, rows);
        return RD_OK;
    }
    switch (draw_by(draw->random, weight, 4)) {
    case 0: sample_masked(m, draw, rows); return RD_OK;
    case 1: return sample_edited(m, draw, rows, err);
    case 2:
        while (!made)
            if (sample_rewrite(m, draw, rows, &made, err)) return err->status;
        return RD_OK;
    default:
        while (!sample_hole(m, draw, rows)) {
        }
        return RD_OK;
    }
}

static rd_status sample(void *user, const rd_draw *draw, rd_rows *rows, rd_error *err)
{
    rd_mixture *m = user;
    int from = rows->n;

    if (draw_sample(m, draw, rows, err)) return err->status;
    if (m->o.confidence > 0.0f)
        ask_for_confidence(rows, from, m->cutter->ids.mask, m->o.confidence);
    return RD_OK;
}

rd_sampler rd_mixture_sampler(rd_mixture *m)
{
    return (rd_sampler){ .user = m, .sample = sample };
}
