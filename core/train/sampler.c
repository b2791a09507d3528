/* sampler.c - draws documents, cuts holes into them, and hands them to the objectives. */
#include "core/train/sampler.h"

#include "core/base/memory.h"
#include "core/decode/draft.h"
#include "core/decode/prompt.h"

#include <stdlib.h>
#include <string.h>

enum {
    WINDOW = 512,   /* tokens of a window without a hole */
    HOLE_MOST = 96, /* tokens */
    VERSIONS = 5,   /* noisy copies of a hole's block */
    ANCHOR = 32,
    DRAFTS = 3,      /* copies with a draft in the hole */
    DRAFT_MOST = 23, /* tokens */
    CONTEXT_COPIES = 3,
    SIDE = 4000 /* tokens on each side in which drafts are looked for */
};

struct rd_mixture {
    double early, next_early; /* the first share of the run, and how much of it is next tokens */
    const rd_corpus *corpus;
    rd_bpe *bpe;
    rd_objective_tokens tokens;
    rd_layout_ids ids;
    uint8_t *flags;
    int *docs[3];     /* of each language, training ones */
    int64_t *upto[3]; /* sums of their weights */
    int docs_n[3];
    rd_ids doc, made; /* scratch */
    rd_buf text, before, after;
    rd_ids draft[DRAFTS];
};

rd_status rd_mixture_open(const rd_corpus *corpus, rd_bpe *bpe, rd_mixture **out, rd_error *err)
{
    int vocab = rd_corpus_vocab(corpus), n = rd_corpus_count(corpus);

    if (rd_bpe_size(bpe) != vocab)
        return rd_fail(err, RD_INVALID, "the corpus has %d tokens, the tokenizer %d", vocab,
                       rd_bpe_size(bpe));
    rd_mixture *m = rd_alloc0(sizeof *m);

    m->early = 0.35;
    m->next_early = 0.8;
    m->corpus = corpus;
    m->bpe = bpe;
    m->flags = rd_alloc_array((size_t)vocab, 1);
    for (int i = 0; i < vocab; i++) {
        size_t len;
        const char *s = rd_bpe_bytes(bpe, i, &len);

        if (i < RD_BPE_RESERVED) m->flags[i] = RD_TOKEN_CONTROL;
        if (len > 0 && (s[0] == '\n' || (s[0] == '\r' && len > 1))) m->flags[i] |= RD_TOKEN_NEWLINE;
    }
    int32_t id[RD_BPE_RESERVED];

    for (int i = 0; i < RD_BPE_RESERVED; i++) id[i] = i;
    m->ids = (rd_layout_ids){ .eos = id[0],
                              .pad = id[1],
                              .mask = id[2],
                              .del = id[3],
                              .split = id[4],
                              .fill = id[5],
                              .suffix = id[6],
                              .prefix = id[7],
                              .language = { id[9], id[10], id[11] } };
    m->tokens = (rd_objective_tokens){ .mask = m->ids.mask,
                                       .del = m->ids.del,
                                       .split = m->ids.split,
                                       .suffix = m->ids.suffix,
                                       .prefix = m->ids.prefix,
                                       .fill = m->ids.fill,
                                       .flags = m->flags,
                                       .vocab = vocab };
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

void rd_mixture_continue(rd_mixture *m)
{
    m->early = 0.5;
    m->next_early = 0.3;
}

void rd_mixture_close(rd_mixture *m)
{
    if (!m) return;
    for (int l = 0; l < 3; l++) {
        free(m->docs[l]);
        free(m->upto[l]);
    }
    free(m->flags);
    rd_ids_clear(&m->doc);
    rd_ids_clear(&m->made);
    rd_buf_clear(&m->text);
    rd_buf_clear(&m->before);
    rd_buf_clear(&m->after);
    for (int i = 0; i < DRAFTS; i++) rd_ids_clear(&m->draft[i]);
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

static void widen(rd_ids *out, const uint16_t *ids, int n)
{
    for (int i = 0; i < n; i++) rd_ids_push(out, ids[i]);
}

/* A window of a document behind its language's tag. */
static int draw_window(rd_mixture *m, int most, rd_random *random)
{
    rd_corpus_doc d = draw_doc(m, random);
    int n = d.n < most - 1 ? d.n : most - 1, at = below(random, d.n - n + 1);

    rd_ids_reset(&m->doc);
    rd_ids_push(&m->doc, m->ids.language[d.language]);
    widen(&m->doc, d.ids + at, n);
    return m->doc.n;
}

/* ---- next tokens ---- */

/* The window's middle moves to its end: tag, suffix, prefix, middle. */
static void suffix_first(rd_mixture *m, rd_random *random)
{
    int n = m->doc.n - 1, a = below(random, n), b = a + below(random, n - a + 1);
    const int32_t *s = m->doc.id + 1;

    rd_ids_reset(&m->made);
    rd_ids_push(&m->made, m->doc.id[0]);
    rd_ids_push(&m->made, m->ids.suffix);
    rd_ids_append(&m->made, s + b, n - b);
    rd_ids_push(&m->made, m->ids.prefix);
    rd_ids_append(&m->made, s, a);
    rd_ids_push(&m->made, m->ids.fill);
    rd_ids_append(&m->made, s + a, b - a);
}

static void sample_next(rd_mixture *m, int most, rd_random *random, rd_rows *rows)
{
    int n = most / 2 < WINDOW ? most / 2 : WINDOW;

    draw_window(m, n - 4, random);
    if (rd_random_below(random, 2)) {
        suffix_first(m, random);
        rd_rows_next_token(rows, &m->tokens, m->made.id, m->made.n);
    } else {
        rd_rows_next_token(rows, &m->tokens, m->doc.id, m->doc.n);
    }
}

static void sample_blocks(rd_mixture *m, int most, float wrong, rd_random *random, rd_rows *rows)
{
    static const int sizes[] = { 8, 16, 32, 32 };
    rd_noise noise = { .block = sizes[rd_random_below(random, 4)],
                       .pair = wrong <= 0.0f,
                       .wrong = wrong };
    int copies = noise.pair ? 3 : 2, n = most / copies < WINDOW ? most / copies : WINDOW;

    n = draw_window(m, n, random);
    rd_rows_blocks(rows, &m->tokens, &noise, m->doc.id, n, random);
}

/* ---- holes ---- */

typedef struct span {
    int start, end;
} span;

static bool ends_line(const rd_mixture *m, const rd_corpus_doc *d, int i)
{
    return m->flags[d->ids[i]] & RD_TOKEN_NEWLINE;
}

/* The line around token `at`, without the newlines. */
static span line_around(const rd_mixture *m, const rd_corpus_doc *d, int at)
{
    span s = { at, at };

    if (ends_line(m, d, at)) s.start = s.end = at + 1;
    while (s.start > 0 && !ends_line(m, d, s.start - 1)) s.start--;
    while (s.end < d->n && !ends_line(m, d, s.end)) s.end++;
    return s;
}

static int indent_at(const rd_mixture *m, const rd_corpus_doc *d, int start)
{
    size_t n = 0;

    if (start > 0) rd_bpe_bytes(m->bpe, d->ids[start - 1], &n);
    return (int)n;
}

static span more_lines(const rd_mixture *m, const rd_corpus_doc *d, span s, int lines, bool block)
{
    int indent = indent_at(m, d, s.start);

    for (; lines > 0 && s.end < d->n - 1; lines--) {
        span next = line_around(m, d, s.end + 1);

        if (next.start <= s.end || next.end - s.start > HOLE_MOST) break;
        if (block && indent_at(m, d, next.start) < indent) break;
        s.end = next.end;
    }
    return s;
}

static bool draw_span(const rd_mixture *m, const rd_corpus_doc *d, rd_random *random, span *out)
{
    double kind = rd_random_unit(random);
    span s = line_around(m, d, below(random, d->n));
    int n = s.end - s.start;

    if (kind < 0.03) {
        s.start = s.end; /* nothing is missing */
    } else if (kind < 0.45) {
        if (n < 2) return false;
    } else if (kind < 0.66) {
        if (n < 3) return false;
        s.start += 1 + below(random, n - 1);
        if (rd_random_below(random, 3) == 0) s.end = s.start + 1 + below(random, s.end - s.start);
    } else if (kind < 0.88) {
        s = more_lines(m, d, s, 1 + below(random, 4), false);
    } else {
        s = more_lines(m, d, s, 12, true);
    }
    *out = s;
    return s.end - s.start <= HOLE_MOST;
}

/* Encode bytes [from, to) of the scratch text behind what is in `made`. */
static void encode_part(rd_mixture *m, size_t from, size_t to)
{
    rd_bpe_encode(m->bpe, m->text.data + from, to - from, &m->made);
}

/* Cut the document's tokens into made = before, hole, after; with `inside` the cuts fall on any
 * character of the lines around, and the three parts are encoded one by one, as the editor does. */
static span cut(rd_mixture *m, const rd_corpus_doc *d, span s, bool inside, rd_random *random)
{
    int first = s.start > 4096 ? (s.start - 4096) / 128 * 128 : 0;
    int last = s.end + 320 < d->n ? s.end + 320 : d->n;

    rd_ids_reset(&m->made);
    if (!inside) {
        widen(&m->made, d->ids + first, last - first);
        return (span){ s.start - first, s.end - first };
    }
    span a = s;

    while (a.start > first && !ends_line(m, d, a.start)) a.start--;
    while (a.end < last && !ends_line(m, d, a.end)) a.end++;
    rd_buf_reset(&m->text);
    for (int i = a.start; i < a.end; i++) {
        size_t n;
        const char *bytes = rd_bpe_bytes(m->bpe, d->ids[i], &n);

        rd_buf_append(&m->text, bytes, n);
    }
    size_t n = m->text.len, from = (size_t)below(random, (int)n + 1);
    size_t to = from + (size_t)below(random, (int)(n - from < 80 ? n - from : 80) + 1);

    while (from > 0 && ((unsigned char)m->text.data[from] & 0xc0) == 0x80) from--;
    while (to < n && ((unsigned char)m->text.data[to] & 0xc0) == 0x80) to++;
    span made;

    widen(&m->made, d->ids + first, a.start - first);
    encode_part(m, 0, from);
    made.start = m->made.n;
    encode_part(m, from, to);
    made.end = m->made.n;
    encode_part(m, to, n);
    widen(&m->made, d->ids + a.end, last - a.end);
    return made;
}

/* ---- drafts ---- */

static void spell(const rd_mixture *m, const uint16_t *ids, int n, rd_buf *out)
{
    rd_buf_reset(out);
    for (int i = 0; i < n; i++) {
        size_t len;
        const char *bytes = rd_bpe_bytes(m->bpe, ids[i], &len);

        rd_buf_append(out, bytes, len);
    }
}

/* A line of the same file that stands among lines like the hole's, as the engine finds it. */
static bool similar_line(rd_mixture *m, const rd_corpus_doc *d, span s, rd_random *random,
                         rd_ids *out)
{
    rd_draft found[RD_DRAFTS_MOST];
    int first = s.start > SIDE ? s.start - SIDE : 0,
        last = d->n - s.end < SIDE ? d->n : s.end + SIDE;

    spell(m, d->ids + first, s.start - first, &m->before);
    spell(m, d->ids + s.end, last - s.end, &m->after);
    if (!m->before.data || !m->after.data) return false;
    int n = rd_drafts_find(m->before.data, m->before.len, m->after.data, m->after.len, found,
                           RD_DRAFTS_MOST);

    if (n > 0) {
        const rd_draft *draw = &found[rd_random_below(random, 2) ? 0 : below(random, n)];

        rd_bpe_encode(m->bpe, draw->text.data, draw->text.len, out);
    }
    rd_drafts_clear(found, n);
    return n > 0;
}

/* Any token of the document, or of the vocabulary. */
static int32_t other_token(const rd_mixture *m, const rd_corpus_doc *d, rd_random *random)
{
    if (rd_random_below(random, 5)) return d->ids[rd_random_below(random, (uint32_t)d->n)];
    return RD_BPE_RESERVED + below(random, m->tokens.vocab - RD_BPE_RESERVED);
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

static int draw_drafts(rd_mixture *m, const rd_corpus_doc *d, span s, const int32_t *text, int n,
                       rd_random *random, rd_draft_ids *out)
{
    int count = 0;

    for (int i = 0; i < DRAFTS; i++) {
        rd_ids *draft = &m->draft[count];

        rd_ids_reset(draft);
        if (i == 0 || rd_random_below(random, 3) == 0) {
            if (!similar_line(m, d, s, random, draft)) continue;
        } else {
            faulty_text(m, d, text, n, random, draft);
        }
        if (draft->n > DRAFT_MOST) continue;
        out[count++] = (rd_draft_ids){ draft->id, draft->n };
    }
    return count;
}

static bool sample_hole(rd_mixture *m, int most, rd_random *random, rd_rows *rows)
{
    rd_layout layout = rd_layout_default();
    rd_corpus_doc d = draw_doc(m, random);
    rd_draft_ids drafts[DRAFTS];
    span s, whole;

    if (!draw_span(m, &d, random, &s)) return false;
    whole = s;
    bool inside = rd_random_below(random, 10) == 0;
    s = cut(m, &d, s, inside, random);
    if (s.end - s.start > HOLE_MOST) return false;
    layout.far_most = layout.far_step * (int)rd_random_below(random, 3);
    layout.quote_most = rd_random_below(random, 4) ? 128 : 16 + below(random, 112);

    const int32_t *after = m->made.id + s.end;
    int after_n = m->made.n - s.end, line = 0;

    while (line < after_n && !(m->flags[after[line]] & RD_TOKEN_NEWLINE)) line++;
    rd_ids_reset(&m->doc);
    rd_layout_context(&m->doc, &layout, &m->ids, (enum rd_language)d.language, m->made.id, s.start,
                      after + line, after_n - line);
    rd_hole hole = { .context = m->doc.id,
                     .context_n = m->doc.n,
                     .text = m->made.id + s.start,
                     .text_n = s.end - s.start,
                     .anchor = after,
                     .anchor_n = after_n < ANCHOR ? after_n : ANCHOR,
                     .block = layout.block };
    int blocks = hole.text_n / hole.block + 1;

    hole.versions = blocks > 2 ? 2 : VERSIONS / blocks;
    hole.context_copies = CONTEXT_COPIES;
    if (blocks == 1 && !inside) {
        hole.n_drafts = draw_drafts(m, &d, whole, hole.text, hole.text_n, random, drafts);
        hole.drafts = drafts;
    }
    int copies = blocks * hole.versions + hole.n_drafts + hole.context_copies;

    if (hole.context_n + hole.text_n + copies * hole.block > most) return false;
    rd_rows_hole(rows, &m->tokens, &hole, random);
    return true;
}

static rd_status sample(void *user, double progress, int most, rd_random *random, rd_rows *rows,
                        rd_error *err)
{
    rd_mixture *m = user;
    double kind = rd_random_unit(random), next = progress < m->early ? m->next_early : 0.15;

    (void)err;
    if (kind < next) {
        sample_next(m, most, random, rows);
        return RD_OK;
    }
    kind = (kind - next) / (1.0 - next);
    if (kind < 0.12) {
        sample_blocks(m, most, 0.0f, random, rows);
    } else if (kind < 0.24) {
        sample_blocks(m, most, 0.05f + 0.1f * (float)rd_random_unit(random), random, rows);
    } else {
        while (!sample_hole(m, most, random, rows)) {
        }
    }
    return RD_OK;
}

rd_sampler rd_mixture_sampler(rd_mixture *m)
{
    return (rd_sampler){ .user = m, .sample = sample };
}

void rd_mixture_held_out(rd_mixture *m, int tokens, int piece, int pack_rows, rd_rows **packs,
                         int *n, int64_t *bytes)
{
    int64_t all = 0, at = 0, next = 0;
    int count = rd_corpus_count(m->corpus);
    rd_rows *pack = NULL;

    *packs = NULL;
    *n = 0;
    *bytes = 0;
    for (int i = 0; i < count; i++) {
        rd_corpus_doc d = rd_corpus_at(m->corpus, i);

        if (d.held_out) all += d.n / piece;
    }
    int64_t step = all * piece / (tokens > 0 ? tokens : 1);

    if (step < 1) step = 1;
    for (int i = 0; i < count; i++) {
        rd_corpus_doc d = rd_corpus_at(m->corpus, i);

        for (int k = 0; d.held_out && k + piece <= d.n; k += piece, at++) {
            if (at < next) continue;
            next += step;
            if (!pack || pack->n >= pack_rows) {
                *packs = rd_resize(*packs, (size_t)*n + 1, sizeof **packs);
                pack = &(*packs)[(*n)++];
                *pack = (rd_rows){ 0 };
            }
            rd_ids_reset(&m->doc);
            rd_ids_push(&m->doc, m->ids.language[d.language]);
            widen(&m->doc, d.ids + k, piece);
            rd_rows_next_token(pack, &m->tokens, m->doc.id, m->doc.n);
            for (int j = 0; j < piece; j++) {
                size_t len;

                rd_bpe_bytes(m->bpe, d.ids[k + j], &len);
                *bytes += (int64_t)len;
            }
        }
    }
}
