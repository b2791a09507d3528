/* cutter.c - lines by their newline tokens, holes by the decoder's layout, drafts by its search. */
#include "core/train/cutter.h"

#include "core/base/memory.h"
#include "core/decode/draft.h"

#include <stdlib.h>

enum {
    FAR = 4096,  /* tokens before a hole that a layout may reach */
    NEAR = 320,  /* tokens behind it */
    SIDE = 4000, /* tokens on each side in which drafts are looked for */
    TRIES = 24,  /* to find faults that have a place */
    INSIDE = 80  /* bytes of a hole that is cut inside tokens */
};

rd_cutter *rd_cutter_new(rd_bpe *bpe)
{
    rd_cutter *c = rd_alloc0(sizeof *c);
    int vocab = rd_bpe_size(bpe);
    int32_t id[RD_BPE_RESERVED];

    c->bpe = bpe;
    c->flags = rd_alloc_array((size_t)vocab, 1);
    for (int i = 0; i < vocab; i++) {
        size_t n;
        const char *s = rd_bpe_bytes(bpe, i, &n);

        if (i < RD_BPE_RESERVED) c->flags[i] = RD_TOKEN_CONTROL;
        if (n > 0 && (s[0] == '\n' || (s[0] == '\r' && n > 1))) c->flags[i] |= RD_TOKEN_NEWLINE;
    }
    for (int i = 0; i < RD_BPE_RESERVED; i++) id[i] = i;
    c->ids = (rd_layout_ids){ .eos = id[0],
                              .pad = id[1],
                              .mask = id[2],
                              .del = id[3],
                              .split = id[4],
                              .fill = id[5],
                              .suffix = id[6],
                              .prefix = id[7],
                              .language = { id[9], id[10], id[11] } };
    c->tokens = (rd_objective_tokens){ .mask = c->ids.mask,
                                       .del = c->ids.del,
                                       .split = c->ids.split,
                                       .suffix = c->ids.suffix,
                                       .prefix = c->ids.prefix,
                                       .fill = c->ids.fill,
                                       .flags = c->flags,
                                       .vocab = vocab };
    return c;
}

void rd_cutter_free(rd_cutter *c)
{
    if (!c) return;
    free(c->flags);
    rd_ids_clear(&c->made);
    rd_ids_clear(&c->context);
    rd_buf_clear(&c->text);
    rd_buf_clear(&c->before);
    rd_buf_clear(&c->after);
    rd_buf_clear(&c->wrong);
    rd_buf_clear(&c->names);
    free(c);
}

static int below(rd_random *random, int n)
{
    return n > 0 ? (int)rd_random_below(random, (uint32_t)n) : 0;
}

static void widen(rd_ids *out, const uint16_t *ids, int n)
{
    for (int i = 0; i < n; i++) rd_ids_push(out, ids[i]);
}

/* ---- spans ---- */

static bool ends_line(const rd_cutter *c, const rd_corpus_doc *d, int i)
{
    return c->flags[d->ids[i]] & RD_TOKEN_NEWLINE;
}

rd_span rd_cut_line(const rd_cutter *c, const rd_corpus_doc *d, int at)
{
    rd_span s = { at, at };

    if (ends_line(c, d, at)) s.start = s.end = at + 1;
    while (s.start > 0 && !ends_line(c, d, s.start - 1)) s.start--;
    while (s.end < d->n && !ends_line(c, d, s.end)) s.end++;
    return s;
}

static int indent_at(const rd_cutter *c, const rd_corpus_doc *d, int start)
{
    size_t n = 0;

    if (start > 0) rd_bpe_bytes(c->bpe, d->ids[start - 1], &n);
    return (int)n;
}

rd_span rd_cut_lines(const rd_cutter *c, const rd_corpus_doc *d, rd_span s, int lines, bool block)
{
    int indent = indent_at(c, d, s.start);

    for (; lines > 0 && s.end < d->n - 1; lines--) {
        rd_span next = rd_cut_line(c, d, s.end + 1);

        if (next.start <= s.end || next.end - s.start > RD_HOLE_MOST) break;
        if (block && indent_at(c, d, next.start) < indent) break;
        s.end = next.end;
    }
    return s;
}

/* ---- holes ---- */

/* Encode bytes [from, to) of the scratch text behind what is in `made`. */
static void encode_part(rd_cutter *c, size_t from, size_t to)
{
    rd_bpe_encode(c->bpe, c->text.data + from, to - from, &c->made);
}

/* Cut the document's tokens into made = before, hole, after; with `inside` the cuts fall on any
 * character of the lines around, and the three parts are encoded one by one, as the editor does. */
static rd_span cut(rd_cutter *c, const rd_corpus_doc *d, rd_span s, bool inside, rd_random *random)
{
    int first = s.start > FAR ? (s.start - FAR) / 128 * 128 : 0;
    int last = s.end + NEAR < d->n ? s.end + NEAR : d->n;

    rd_ids_reset(&c->made);
    if (!inside) {
        widen(&c->made, d->ids + first, last - first);
        return (rd_span){ s.start - first, s.end - first };
    }
    rd_span a = s;

    while (a.start > first && !ends_line(c, d, a.start)) a.start--;
    while (a.end < last && !ends_line(c, d, a.end)) a.end++;
    rd_buf_reset(&c->text);
    for (int i = a.start; i < a.end; i++) {
        size_t n;
        const char *bytes = rd_bpe_bytes(c->bpe, d->ids[i], &n);

        rd_buf_append(&c->text, bytes, n);
    }
    size_t n = c->text.len, from = (size_t)below(random, (int)n + 1);
    size_t to = from + (size_t)below(random, (int)(n - from < INSIDE ? n - from : INSIDE) + 1);

    while (from > 0 && ((unsigned char)c->text.data[from] & 0xc0) == 0x80) from--;
    while (to < n && ((unsigned char)c->text.data[to] & 0xc0) == 0x80) to++;
    rd_span made;

    widen(&c->made, d->ids + first, a.start - first);
    encode_part(c, 0, from);
    made.start = c->made.n;
    encode_part(c, from, to);
    made.end = c->made.n;
    encode_part(c, to, n);
    widen(&c->made, d->ids + a.end, last - a.end);
    return made;
}

bool rd_cut_hole(rd_cutter *c, const rd_corpus_doc *d, rd_span s, bool inside,
                 const rd_layout *layout, rd_random *random, rd_hole *out)
{
    s = cut(c, d, s, inside, random);
    if (s.end - s.start > RD_HOLE_MOST) return false;
    const int32_t *after = c->made.id + s.end;
    int after_n = c->made.n - s.end, line = 0;

    while (line < after_n && !(c->flags[after[line]] & RD_TOKEN_NEWLINE)) line++;
    rd_ids_reset(&c->context);
    rd_layout_context(&c->context, layout, &c->ids, (enum rd_language)d->language, c->made.id,
                      s.start, after + line, after_n - line);
    *out = (rd_hole){ .context = c->context.id,
                      .context_n = c->context.n,
                      .text = c->made.id + s.start,
                      .text_n = s.end - s.start,
                      .anchor = after,
                      .anchor_n = after_n < RD_ANCHOR_MOST ? after_n : RD_ANCHOR_MOST,
                      .block = layout->block };
    return true;
}

/* ---- drafts ---- */

static void spell(const rd_cutter *c, const uint16_t *ids, int n, rd_buf *out)
{
    rd_buf_reset(out);
    for (int i = 0; i < n; i++) {
        size_t len;
        const char *bytes = rd_bpe_bytes(c->bpe, ids[i], &len);

        rd_buf_append(out, bytes, len);
    }
}

static rd_span sides(const rd_corpus_doc *d, rd_span s)
{
    return (rd_span){ s.start > SIDE ? s.start - SIDE : 0,
                      d->n - s.end < SIDE ? d->n : s.end + SIDE };
}

bool rd_cut_similar(rd_cutter *c, const rd_corpus_doc *d, rd_span s, rd_random *random, rd_ids *out)
{
    rd_draft found[RD_DRAFTS_MOST];
    rd_span wide = sides(d, s);

    spell(c, d->ids + wide.start, s.start - wide.start, &c->before);
    spell(c, d->ids + s.end, wide.end - s.end, &c->after);
    if (!c->before.data || !c->after.data) return false;
    rd_draft_place place = { .prefix = c->before.data,
                             .prefix_bytes = c->before.len,
                             .suffix = c->after.data,
                             .suffix_bytes = c->after.len };
    int n = rd_drafts_find(&place, found, RD_DRAFTS_MOST);

    if (n > 0) {
        const rd_draft *draw = &found[rd_random_below(random, 2) ? 0 : below(random, n)];

        rd_bpe_encode(c->bpe, draw->text.data, draw->text.len, out);
    }
    rd_drafts_clear(found, n);
    return n > 0;
}

/* The text of the document, from which a fault takes its names, with that of the tokens behind it. */
static size_t spell_behind(rd_cutter *c, const rd_corpus_doc *d, const int32_t *text, int n)
{
    if (c->names_of != d->ids) spell(c, d->ids, d->n, &c->names);
    if (c->names_of != d->ids) c->names_bytes = c->names.len;
    c->names_of = d->ids;
    c->names.len = c->names_bytes;
    for (int i = 0; i < n; i++) {
        size_t len;
        const char *bytes = rd_bpe_bytes(c->bpe, text[i], &len);

        rd_buf_append(&c->names, bytes, len);
    }
    return c->names_bytes;
}

bool rd_cut_faulty(rd_cutter *c, const rd_corpus_doc *d, const int32_t *text, int n, int faults,
                   rd_random *random, rd_ids *out)
{
    size_t start = spell_behind(c, d, text, n);
    rd_buf *file = &c->names;

    for (int tries = 0; faults > 0; tries++) {
        rd_fault_place place = { file->data, file->len, start, file->len };
        rd_fault kind = (rd_fault)below(random, RD_FAULTS);

        if (tries == TRIES || file->len == start) return false;
        if (!rd_fault_make(&place, kind, random, &c->wrong)) continue;
        file->len = start;
        rd_buf_append(file, c->wrong.data, c->wrong.len);
        faults--;
    }
    rd_bpe_encode(c->bpe, file->data + start, file->len - start, out);
    return true;
}
