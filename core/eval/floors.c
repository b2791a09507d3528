/* floors.c - the commonest hole, the copied line, the n-gram. */
#include "core/eval/floors.h"

#include "core/base/memory.h"
#include "core/eval/measures.h"
#include "core/format/file.h"
#include "core/train/bpe.h"
#include "core/train/corpus.h"
#include "core/train/ngram.h"

#include <stdlib.h>
#include <string.h>

enum { LINES_MOST = 5, CONTEXT_BYTES = 600, TOKENS_MOST = 96 };

typedef struct piece {
    const char *text;
    size_t n;
} piece;

/* ---- unigram ---- */

typedef struct hole {
    piece text;
    const char *language;
    int kind, index;
} hole;

static int compare_pieces(piece a, piece b)
{
    size_t n = a.n < b.n ? a.n : b.n;
    int order = n ? memcmp(a.text, b.text, n) : 0;

    return order ? order : (a.n > b.n) - (a.n < b.n);
}

static int by_group(const hole *a, const hole *b)
{
    return a->kind != b->kind ? a->kind - b->kind : strcmp(a->language, b->language);
}

static int by_text(const void *x, const void *y)
{
    const hole *a = x, *b = y;
    int order = by_group(a, b);

    if (!order) order = compare_pieces(a->text, b->text);
    return order ? order : a->index - b->index;
}

/* Holes [from, from + n) of the sorted list that are one text. */
typedef struct run {
    int from, n;
} run;

static run run_at(const hole *list, int from, int end)
{
    int to = from + 1;

    while (to < end && !compare_pieces(list[from].text, list[to].text)) to++;
    return (run){ from, to - from };
}

/* The commonest text of the group [from, to), if it is there twice. */
static void answer_group(const hole *list, int from, int to, int *out)
{
    run best = { from, 0 };

    for (int at = from; at < to;) {
        run r = run_at(list, at, to);

        if (r.n > best.n) best = r;
        at += r.n;
    }
    for (int k = from; k < to; k++) out[list[k].index] = best.n > 1 ? list[best.from].index : -1;
}

void rd_floor_unigram(const rd_cases *c, int *out)
{
    hole *list = rd_alloc_array((size_t)c->n + 1, sizeof *list);

    for (int i = 0; i < c->n; i++) {
        list[i] = (hole){ .language = c->file[c->at[i].file].language,
                          .kind = (int)c->at[i].kind,
                          .index = i };
        list[i].text.text = rd_case_text(c, i, &list[i].text.n);
        list[i].text.text = rd_trim(list[i].text.text, &list[i].text.n);
    }
    qsort(list, (size_t)c->n, sizeof *list, by_text);
    for (int from = 0, to; from < c->n; from = to) {
        for (to = from; to < c->n && !by_group(&list[from], &list[to]);) to++;
        answer_group(list, from, to, out);
    }
    free(list);
}

/* ---- the copied line ---- */

typedef struct lines {
    piece *at;   /* in the file's order, white space at the ends left out */
    int n, hole; /* the hole stands between the lines hole - 1 and hole */
} lines;

static void add_lines(lines *l, const char *text, size_t n)
{
    for (size_t from = 0; from < n;) {
        const char *stop = memchr(text + from, '\n', n - from);
        size_t end = stop ? (size_t)(stop - text) : n;
        piece p = { text + from, end - from };

        p.text = rd_trim(p.text, &p.n);
        l->at[l->n++] = p;
        from = end + 1;
    }
}

/* All lines but those that the hole touches; `hole` is the place of the missing ones. */
static lines lines_of(const rd_case_file *f, size_t from, size_t to)
{
    lines l = { 0 };
    size_t count = 2;

    for (size_t i = 0; i < f->bytes; i++) count += f->text[i] == '\n';
    l.at = rd_alloc_array(count, sizeof *l.at);
    add_lines(&l, f->text, from);
    l.hole = l.n;
    if (to < f->bytes) add_lines(&l, f->text + to, f->bytes - to);
    return l;
}

static double alike(piece a, piece b)
{
    size_t n = a.n < b.n ? a.n : b.n, longest = a.n < b.n ? b.n : a.n, head = 0, tail = 0;

    if (!longest) return 1.0;
    while (head < n && a.text[head] == b.text[head]) head++;
    while (tail < n - head && a.text[a.n - 1 - tail] == b.text[b.n - 1 - tail]) tail++;
    return (double)(head + tail) / (double)longest;
}

/* How alike the surroundings of line i are to those of the hole: line -1 is above, 0 below it. */
static double around(const lines *l, int i)
{
    static const struct {
        int of_hole, of_line;
        double weight;
    } pair[] = { { -1, -1, 2.0 }, { 0, 1, 2.0 }, { -2, -2, 1.0 }, { 1, 2, 1.0 } };
    double sum = 0.0;

    for (int k = 0; k < 4; k++) {
        int a = l->hole + pair[k].of_hole, b = i + pair[k].of_line;

        if (a < 0 || a >= l->n || b < 0 || b >= l->n) continue;
        if ((b < l->hole) != (i < l->hole)) continue; /* the hole is nobody's neighbour */
        sum += pair[k].weight * alike(l->at[a], l->at[b]);
    }
    return sum;
}

static int distance(const lines *l, int i)
{
    return i < l->hole ? l->hole - i : i - l->hole + 1;
}

static bool same(piece a, piece b)
{
    return a.n == b.n && (a.n == 0 || !memcmp(a.text, b.text, a.n));
}

static void copy_lines(const lines *l, bool several, rd_buf *out)
{
    double best = -1.0;
    int at = -1, last;

    for (int i = 0; i < l->n; i++) {
        double score = around(l, i);

        if (!rd_case_is_worth(l->at[i].text, l->at[i].n)) continue;
        if (score < best || (score == best && distance(l, i) >= distance(l, at))) continue;
        best = score;
        at = i;
    }
    if (at < 0) return;
    last = at;
    /* never across the hole: what stands between two of its neighbours is the hole's own text */
    int stop = at < l->hole ? l->hole : l->n;

    for (int k = at + 1; several && k + 1 < stop && k < at + LINES_MOST; k++)
        if (l->hole < l->n && same(l->at[k + 1], l->at[l->hole])) {
            last = k;
            break;
        }
    const char *end = l->at[last].text + l->at[last].n;

    rd_buf_append(out, l->at[at].text, (size_t)(end - l->at[at].text));
}

/* Up to where `right` goes on: its longest start that is found. */
static size_t up_to(piece rest, piece right)
{
    for (size_t n = right.n; n > 0; n--) {
        const char *found = memmem(rest.text, rest.n, right.text, n);

        if (found && found > rest.text) return (size_t)(found - rest.text);
    }
    return rest.n;
}

static void copy_rest(const lines *l, piece left, piece right, rd_buf *out)
{
    size_t longest = 0;
    int best = -1;
    piece rest = { "", 0 };

    for (int i = 0; i < l->n; i++) {
        piece p = l->at[i];

        for (size_t end = 1; end < p.n; end++) {
            size_t n = 0;

            while (n < left.n && n < end && p.text[end - 1 - n] == left.text[left.n - 1 - n]) n++;
            if (n == 0 || n < longest ||
                (n == longest && best >= 0 && distance(l, i) >= distance(l, best)))
                continue;
            longest = n;
            best = i;
            rest = (piece){ p.text + end, p.n - end };
        }
    }
    if (best >= 0) rd_buf_append(out, rest.text, up_to(rest, right));
}

void rd_floor_copy(const rd_cases *c, int i, rd_buf *out)
{
    const rd_case *one = &c->at[i];
    const rd_case_file *f = &c->file[one->file];
    size_t from = one->start, to = one->end;

    while (from > 0 && f->text[from - 1] != '\n') from--;
    while (to < f->bytes && f->text[to] != '\n') to++;
    piece left = { f->text + from, one->start - from };
    piece right = { f->text + one->end, to - one->end };
    lines l = lines_of(f, from, to < f->bytes ? to + 1 : to);
    size_t n;
    const char *hole_text = rd_case_text(c, i, &n);

    left.text += strspn(left.text, " \t") < left.n ? strspn(left.text, " \t") : left.n;
    left.n = (size_t)(f->text + one->start - left.text);
    right.text = rd_trim(right.text, &right.n);
    if (left.n > 0)
        copy_rest(&l, left, right, out);
    else
        copy_lines(&l, memchr(hole_text, '\n', n) != NULL, out);
    free(l.at);
}

/* ---- n-gram ---- */

struct rd_floor_ngram {
    rd_ngram *table;
    rd_bpe *bpe;
};

rd_status rd_floor_ngram_open(const char *pack, rd_floor_ngram **out, rd_error *err)
{
    rd_floor_ngram *g = rd_alloc0(sizeof *g);
    char *path = rd_path_join(pack, "corpus.rdc");
    rd_corpus *corpus = NULL;
    uint16_t *ids = NULL;
    size_t n = 0, all = 0;
    rd_status status;

    g->bpe = rd_bpe_new();
    status = rd_corpus_open(path, &corpus, err);
    if (!status) status = rd_bpe_read(g->bpe, pack, err);
    for (int i = 0; !status && i < rd_corpus_count(corpus); i++)
        all += (size_t)rd_corpus_at(corpus, i).n + 1;
    if (!status && !(ids = rd_try_alloc_array(all + 1, sizeof *ids)))
        status = rd_fail(err, RD_NO_MEMORY, "%s: %zu tokens do not fit", path, all);
    for (int i = 0; !status && i < rd_corpus_count(corpus); i++) {
        rd_corpus_doc d = rd_corpus_at(corpus, i);

        if (d.held_out) continue;
        memcpy(ids + n, d.ids, (size_t)d.n * sizeof *ids);
        n += (size_t)d.n;
        ids[n++] = 0; /* the reserved end of a text: contexts do not run from one into the next */
    }
    if (!status) status = rd_ngram_open(ids, (int64_t)n, rd_corpus_vocab(corpus), &g->table, err);
    free(ids);
    free(path);
    rd_corpus_close(corpus);
    if (status)
        rd_floor_ngram_close(g);
    else
        *out = g;
    return status;
}

void rd_floor_ngram_close(rd_floor_ngram *g)
{
    if (!g) return;
    rd_ngram_close(g->table);
    rd_bpe_free(g->bpe);
    free(g);
}

static void push_narrow(rd_buf *out, int32_t id)
{
    rd_buf_append(out, &(uint16_t){ (uint16_t)id }, sizeof(uint16_t));
}

static void encode(rd_floor_ngram *g, const char *text, size_t n, rd_buf *out)
{
    rd_ids ids = { 0 };

    rd_bpe_encode(g->bpe, text, n, &ids);
    for (int i = 0; i < ids.n; i++) push_narrow(out, ids.id[i]);
    rd_ids_clear(&ids);
}

/* What stands right before the hole may be the start of a token of the training text: it is taken back, and the
 * next token must begin with it. */
typedef struct healing {
    const rd_bpe *bpe;
    const char *start;
    size_t n;
} healing;

static bool begins_so(void *user, uint16_t id)
{
    const healing *h = user;
    size_t n;
    const char *bytes = id < RD_BPE_RESERVED ? NULL : rd_bpe_bytes(h->bpe, id, &n);

    return bytes && n >= h->n && (h->n == 0 || !memcmp(bytes, h->start, h->n));
}

static void continue_line(rd_floor_ngram *g, rd_buf *ids, healing h, rd_buf *out)
{
    for (int k = 0; k < TOKENS_MOST; k++, h.n = 0) {
        int n = (int)(ids->len / sizeof(uint16_t)), have = n < RD_NGRAM_MOST ? n : RD_NGRAM_MOST;
        const uint16_t *context = (const uint16_t *)(const void *)ids->data;
        uint16_t next;
        size_t bytes;

        if (!rd_ngram_next(g->table, n ? context + n - have : NULL, have, h.n ? begins_so : NULL,
                           &h, &next) ||
            next < RD_BPE_RESERVED)
            return;
        const char *text = rd_bpe_bytes(g->bpe, next, &bytes);

        if (memchr(text, '\n', bytes)) return;
        rd_buf_append(out, text + h.n, bytes - h.n);
        push_narrow(ids, next);
    }
}

void rd_floor_ngram_answer(rd_floor_ngram *g, const rd_cases *c, int i, rd_buf *out)
{
    const rd_case *one = &c->at[i];
    const char *text = c->file[one->file].text;
    size_t from = one->start > CONTEXT_BYTES ? one->start - CONTEXT_BYTES : 0, line = one->start;
    healing h = { .bpe = g->bpe };
    rd_buf ids = { 0 };

    while (from > 0 && from < one->start && text[from] != '\n') from++;
    encode(g, text + from, one->start - from, &ids);
    while (line > from && (text[line - 1] == ' ' || text[line - 1] == '\t')) line--;
    if (line > from && text[line - 1] != '\n') {
        uint16_t last;

        ids.len -= sizeof last;
        memcpy(&last, ids.data + ids.len, sizeof last);
        h.start = rd_bpe_bytes(g->bpe, last, &h.n);
    }
    size_t had = out->len, end = one->end;

    rd_buf_append(out, "", 0);
    continue_line(g, &ids, h, out);
    while (end < c->file[one->file].bytes && text[end] != '\n') end++;
    piece right = { text + one->end, end - one->end };

    right.text = rd_trim(right.text, &right.n);
    out->len = had + up_to((piece){ out->data + had, out->len - had }, right);
    out->data[out->len] = 0;
    rd_buf_clear(&ids);
}

double rd_floor_ngram_bits(rd_floor_ngram *g, const char *text, size_t n)
{
    rd_buf ids = { 0 };

    encode(g, text, n, &ids);
    double bits = rd_ngram_bits(g->table, (const uint16_t *)(const void *)ids.data,
                                (int)(ids.len / sizeof(uint16_t)));

    rd_buf_clear(&ids);
    return bits;
}
