/* measure.c - packs of labelled rows whose task says what is counted (RD_HELD_*). */
#include "core/train/measure.h"

#include "core/base/memory.h"
#include "core/train/cutter.h"

#include <stdlib.h>

enum { LINE_LEAST = 6, LINE_MOST = 100, REWRITE_MOST = 240 }; /* bytes */

static rd_rows *open_pack(rd_packs *p, int pack_rows)
{
    if (p->n == 0 || p->pack[p->n - 1].n >= pack_rows) {
        p->pack = rd_resize(p->pack, (size_t)p->n + 1, sizeof *p->pack);
        p->pack[p->n++] = (rd_rows){ 0 };
    }
    return &p->pack[p->n - 1];
}

static void clear_packs(rd_packs *p)
{
    for (int i = 0; i < p->n; i++) rd_rows_clear(&p->pack[i]);
    free(p->pack);
}

static size_t bytes_of(const rd_cutter *c, const rd_corpus_doc *d, int from, int to)
{
    size_t sum = 0;

    for (int i = from; i < to; i++) {
        size_t n;

        rd_bpe_bytes(c->bpe, d->ids[i], &n);
        sum += n;
    }
    return sum;
}

static void take_text(rd_cutter *c, const rd_corpus *corpus, int tokens, int piece, int pack_rows,
                      rd_held *out)
{
    int64_t all = 0, at = 0, next = 0;
    int count = rd_corpus_count(corpus);
    rd_ids ids = { 0 };

    for (int i = 0; i < count; i++) {
        rd_corpus_doc d = rd_corpus_at(corpus, i);

        if (d.held_out) all += d.n / piece;
    }
    int64_t step = all * piece / (tokens > 0 ? tokens : 1);

    if (step < 1) step = 1;
    for (int i = 0; i < count; i++) {
        rd_corpus_doc d = rd_corpus_at(corpus, i);

        for (int k = 0; d.held_out && k + piece <= d.n; k += piece, at++) {
            if (at < next) continue;
            next += step;
            rd_ids_reset(&ids);
            rd_ids_push(&ids, c->ids.language[d.language]);
            for (int j = 0; j < piece; j++) rd_ids_push(&ids, d.ids[k + j]);
            rd_rows_next_token(open_pack(&out->text, pack_rows), &c->tokens, ids.id, ids.n);
            out->text_bytes += (int64_t)bytes_of(c, &d, k, k + piece);
        }
    }
    rd_ids_clear(&ids);
}

/* ---- holes and rewrites ---- */

/* The token at a byte of the document. */
static int token_at(const rd_cutter *c, const rd_corpus_doc *d, size_t byte)
{
    size_t sum = 0;

    for (int i = 0; i < d->n; i++) {
        size_t n;

        rd_bpe_bytes(c->bpe, d->ids[i], &n);
        sum += n;
        if (sum > byte) return i;
    }
    return d->n - 1;
}

/* A line of a held-out file, drawn by bytes; false: it is too short or too long. */
static bool draw_line(const rd_cutter *c, const rd_corpus *corpus, const int *held, int n,
                      rd_random *random, rd_corpus_doc *doc, rd_span *line)
{
    *doc = rd_corpus_at(corpus, held[rd_random_below(random, (uint32_t)n)]);
    size_t bytes = bytes_of(c, doc, 0, doc->n);

    if (bytes == 0) return false;
    *line = rd_cut_line(c, doc, token_at(c, doc, rd_random_below(random, (uint32_t)bytes)));
    bytes = bytes_of(c, doc, line->start, line->end);
    return bytes >= LINE_LEAST && bytes <= LINE_MOST && line->end - line->start < RD_HOLE_MOST;
}

/* The rows of canvases: `lengths` keeps delete and split alone, else the text alone. */
static void count_canvas(const rd_cutter *c, rd_rows *rows, int from, bool lengths)
{
    for (int i = from; i < rows->n; i++) {
        rd_train_row *row = &rows->row[i];
        bool length = row->label == c->ids.del || row->label == c->ids.split;

        if (row->label < 0) continue;
        row->weight = 1.0f;
        row->task = lengths ? RD_HELD_LENGTH : RD_HELD_HOLE;
        if (length != lengths) row->label = -1;
    }
}

/* The spare mask behind a span, of which nothing is missing, would be too easy to count. */
static void count_rewrite(const rd_cutter *c, rd_rows *rows, int from)
{
    for (int i = from; i < rows->n; i++) {
        rd_train_row *row = &rows->row[i];

        if (row->token == c->ids.mask && row->label == c->ids.del) row->label = -1;
        if (row->label < 0) continue;
        row->weight = 1.0f;
        row->task = row->label == row->token ? RD_HELD_KEPT : RD_HELD_MENDED;
    }
}

static void ask(rd_cutter *c, const rd_hole *hole, const rd_objective_options *o, rd_rows *rows,
                rd_random *random)
{
    c->tokens.options = o;
    rd_rows_hole(rows, &c->tokens, hole, random);
    c->tokens.options = NULL;
}

static bool take_hole(rd_cutter *c, const rd_corpus_doc *d, rd_span line, rd_rows *rows,
                      rd_random *random)
{
    rd_objective_options true_length = rd_objective_defaults(), wrong_length;
    rd_layout layout = rd_layout_default();
    rd_hole hole;
    int from = rows->n;

    true_length.canvas_full = 1.0f;
    true_length.canvas_short = true_length.canvas_long = 0.0f;
    wrong_length = true_length;
    wrong_length.canvas_short = wrong_length.canvas_long = 0.5f;
    if (!rd_cut_hole(c, d, line, false, &layout, random, &hole)) return false;
    hole.versions = 1;
    ask(c, &hole, &true_length, rows, random);
    count_canvas(c, rows, from, false);
    from = rows->n;
    ask(c, &hole, &wrong_length, rows, random);
    count_canvas(c, rows, from, true);
    return true;
}

static bool take_rewrite(rd_cutter *c, const rd_corpus_doc *d, rd_span line, rd_rows *rows,
                         rd_random *random)
{
    rd_layout layout = rd_layout_default();
    rd_span s = rd_cut_lines(c, d, line, (int)rd_random_below(random, 3), false);
    rd_ids wrong = { 0 };
    rd_hole hole;
    int from = rows->n;
    bool made = bytes_of(c, d, s.start, s.end) <= REWRITE_MOST &&
                rd_cut_hole(c, d, s, false, &layout, random, &hole) && hole.text_n > 1 &&
                rd_cut_faulty(c, d, hole.text, hole.text_n, 1, random, &wrong);

    if (made) {
        hole.drafts = &(rd_draft_ids){ .id = wrong.id, .n = wrong.n };
        hole.n_drafts = 1;
        rd_rows_hole(rows, &c->tokens, &hole, random);
        count_rewrite(c, rows, from);
    }
    rd_ids_clear(&wrong);
    return made;
}

static void take_places(rd_cutter *c, const rd_corpus *corpus, int places, int pack_rows,
                        rd_held *out)
{
    int count = rd_corpus_count(corpus), n = 0, holes = 0, rewrites = 0;
    int *held = rd_alloc_array((size_t)count + 1, sizeof *held);

    for (int i = 0; i < count; i++)
        if (rd_corpus_at(corpus, i).held_out && rd_corpus_at(corpus, i).n > 1) held[n++] = i;
    for (int i = 0; n > 0 && i < 16 * places && holes + rewrites < 2 * places; i++) {
        rd_random random =
            rd_random_seed((uint64_t)i); /* one for each place, however many draws it takes */
        rd_rows *pack = open_pack(&out->places, pack_rows);
        rd_corpus_doc d;
        rd_span line;

        if (!draw_line(c, corpus, held, n, &random, &d, &line)) continue;
        if (i % 2 == 0 && holes < places && take_hole(c, &d, line, pack, &random)) {
            holes++;
            out->hole_bytes += (int64_t)bytes_of(c, &d, line.start, line.end);
        }
        if (i % 2 == 1 && rewrites < places) rewrites += take_rewrite(c, &d, line, pack, &random);
    }
    free(held);
}

void rd_held_make(const rd_corpus *corpus, rd_bpe *bpe, int tokens, int piece, int places,
                  int pack_rows, rd_held *out)
{
    rd_cutter *c = rd_cutter_new(bpe);

    *out = (rd_held){ 0 };
    take_text(c, corpus, tokens, piece, pack_rows, out);
    if (out->text.n > 0) take_places(c, corpus, places, pack_rows, out);
    rd_cutter_free(c);
}

void rd_held_clear(rd_held *h)
{
    clear_packs(&h->text);
    clear_packs(&h->places);
    *h = (rd_held){ 0 };
}
