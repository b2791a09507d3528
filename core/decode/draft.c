/* draft.c - lines of the file as signatures of their trigrams, compared with the hole's neighbours. */
#include "core/decode/draft.h"

#include "core/base/memory.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum {
    SIDE_BYTES = 64 << 10,
    LINES_MOST = 4096, /* of each side */
    NEIGHBOURS = 3,    /* lines above and below that are compared */
    SPAN_MOST = 6,     /* lines of a draft */
    LEFT_MOST = 24,    /* bytes of the cursor's line that count */
    WORDS = 4          /* of a signature */
};

typedef struct line {
    const char *text; /* without indent and trailing space */
    int n, indent;
    const char *end; /* of the line in the file, before its newline */
    uint64_t bits[WORDS];
    int count;
} line;

typedef struct side {
    line *lines; /* those with text, in the file's order */
    int n;
} side;

typedef struct found {
    rd_draft *out;
    int n, most;
} found;

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\f';
}

static bool is_word(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           (unsigned char)c >= 0x80;
}

static line make_line(const char *text, const char *end)
{
    line l = { .text = text, .end = end };
    const char *stop = end;

    while (l.text < stop && is_space(*l.text)) l.text++;
    while (stop > l.text && is_space(stop[-1])) stop--;
    l.indent = (int)(l.text - text);
    l.n = (int)(stop - l.text);
    uint32_t window = 0;

    for (int i = 0; i < l.n; i++) {
        window = (window << 8 | (unsigned char)l.text[i]) & 0xffffff;
        uint32_t h = window * 2654435761u >> 24;

        l.bits[h >> 6] |= 1ull << (h & 63);
    }
    for (int i = 0; i < WORDS; i++) l.count += __builtin_popcountll(l.bits[i]);
    return l;
}

/* How alike two lines are: 1 the same, 0 nothing in common (Dice's coefficient of their trigrams). */
static float alike(const line *a, const line *b)
{
    int both = 0;

    for (int i = 0; i < WORDS; i++) both += __builtin_popcountll(a->bits[i] & b->bits[i]);
    return a->count + b->count ? 2.0f * (float)both / (float)(a->count + b->count) : 0.0f;
}

static bool same(const line *a, const line *b)
{
    return a->n == b->n && !memcmp(a->text, b->text, (size_t)a->n);
}

static side split_lines(const char *text, const char *end)
{
    side s = { .lines = rd_alloc_array(LINES_MOST, sizeof *s.lines) };

    while (text < end && s.n < LINES_MOST) {
        const char *stop = memchr(text, '\n', (size_t)(end - text));

        if (!stop) stop = end;
        line l = make_line(text, stop);

        if (l.n > 0) s.lines[s.n++] = l;
        text = stop + 1;
    }
    return s;
}

/* ---- the rest of a line ---- */

/* The longest end of the cursor's line that occurs in `l`, not cut inside a word: where it ends there. */
static const char *match_left(const line *l, const line *left, int *length)
{
    const char *best = NULL;

    *length = 0;
    for (int at = 0; at < l->n; at++) {
        int k = 0;

        while (k < left->n && k <= at && left->text[left->n - 1 - k] == l->text[at - k]) k++;
        bool whole = k == left->n && k == at + 1;
        /* A match that begins inside a word is as long as its whole words. */
        while (!whole && k > 0 && k < left->n && is_word(left->text[left->n - k]) &&
               is_word(left->text[left->n - k - 1]))
            k--;
        if (whole) k += LEFT_MOST;
        if (k <= *length) continue;
        *length = k;
        best = l->text + at + 1;
    }
    return best;
}

/* Where what stands right of the cursor begins in [from, end): its longest start that occurs there. */
static const char *match_right(const char *from, const char *end, const char *right, int n)
{
    const char *best = NULL;
    int most = 0;

    for (const char *at = from; at < end; at++) {
        int k = 0;

        while (k < n && at + k < end && at[k] == right[k]) k++;
        if (k < most || k == 0) continue;
        most = k;
        best = at;
    }
    return best;
}

/* ---- candidates ---- */

static void offer(found *f, const char *text, size_t n, float score)
{
    int at = f->n;

    if (n == 0) return;
    for (int i = 0; i < f->n; i++) {
        if (f->out[i].text.len != n || memcmp(f->out[i].text.data, text, n) != 0) continue;
        if (f->out[i].alike >= score) return;
        rd_buf_clear(&f->out[i].text);
        memmove(f->out + i, f->out + i + 1, (size_t)(f->n - i - 1) * sizeof *f->out);
        at = --f->n;
        break;
    }
    while (at > 0 && f->out[at - 1].alike < score) at--;
    if (at == f->most) return;
    if (f->n == f->most) rd_buf_clear(&f->out[--f->n].text);
    memmove(f->out + at + 1, f->out + at, (size_t)(f->n - at) * sizeof *f->out);
    f->out[at] = (rd_draft){ .alike = score };
    rd_buf_append(&f->out[at].text, text, n);
    f->n++;
}

/* How alike the surroundings of line i of `s` are to those of the cursor. */
static float around(const side *s, int i, const side *above, const side *below, bool down)
{
    static const float weight[NEIGHBOURS] = { 1.0f, 0.5f, 0.25f };
    float sum = 0.0f;

    for (int k = 0; k < NEIGHBOURS; k++) {
        if (i - 1 - k >= 0 && above->n - 1 - k >= 0)
            sum += weight[k] * alike(&above->lines[above->n - 1 - k], &s->lines[i - 1 - k]);
        if (down && i + 1 + k < s->n && k < below->n)
            sum += weight[k] * alike(&below->lines[k], &s->lines[i + 1 + k]);
    }
    return sum;
}

/* Lines [i, last] with their indent moved as much as the first's is moved. */
static void offer_lines(found *f, const side *s, int i, int last, const char *from, int indent,
                        float score)
{
    rd_buf b = { 0 };
    int move = indent - s->lines[i].indent;

    rd_buf_append(&b, from, (size_t)(s->lines[i].text + s->lines[i].n - from));
    for (int k = i + 1; k <= last; k++) {
        const line *l = &s->lines[k];
        const char *start = l->text - l->indent;
        int have = l->indent + move > 0 ? l->indent + move : 0;

        rd_buf_text(&b, "\n");
        for (int c = l->indent; c < have; c++) rd_buf_append(&b, l->indent > 0 ? start : " ", 1);
        rd_buf_append(&b, l->text - (have < l->indent ? have : l->indent),
                      (size_t)(have < l->indent ? have : l->indent) + (size_t)l->n);
    }
    offer(f, b.data, b.len, score);
    rd_buf_clear(&b);
}

static void look_at(found *f, const side *s, int i, const line *left, const line *right,
                    const side *above, const side *below)
{
    const line *l = &s->lines[i];
    const char *from = l->text, *end = l->text + l->n;
    int shared = 0;

    if (left->n > 0) {
        from = match_left(l, left, &shared);
        if (!from || shared < 2) return;
        if (shared > LEFT_MOST) shared = LEFT_MOST + (shared - LEFT_MOST) / 2;
    }
    float score = 0.12f * (float)shared;

    if (right->n > 0) {
        end = match_right(from, end, right->text, right->n);
        if (!end) return;
        offer(f, from, (size_t)(end - from), score + around(s, i, above, below, true));
        return;
    }
    offer(f, from, (size_t)(end - from), score + around(s, i, above, below, true));
    if (left->n > 0 && shared < LEFT_MOST) return;
    for (int last = i + 1; last < s->n - 1 && last < i + SPAN_MOST && below->n > 0; last++) {
        if (!same(&s->lines[last + 1], &below->lines[0])) continue;
        offer_lines(f, s, i, last, from, left->indent,
                    score + around(s, i, above, below, false) + 0.8f);
        break;
    }
}

int rd_drafts_find(const char *prefix, size_t prefix_bytes, const char *suffix, size_t suffix_bytes,
                   rd_draft *out, int most)
{
    const char *end = prefix + prefix_bytes, *from = prefix;
    const char *stop = suffix + (suffix_bytes < SIDE_BYTES ? suffix_bytes : SIDE_BYTES);
    const char *start = end, *line_end = memchr(suffix, '\n', (size_t)(stop - suffix));
    found f = { out, 0, most };

    if (prefix_bytes > SIDE_BYTES) from = end - SIDE_BYTES;
    while (start > from && start[-1] != '\n') start--;
    if (!line_end) line_end = stop;
    line left = make_line(start, end), right = make_line(suffix, line_end);

    /* Space right before the cursor counts: it is part of what stands there. */
    left.n = (int)(end - left.text);
    if (left.n > 0 && left.text == end) left.n = 0;
    side above = split_lines(from, start);
    side below = split_lines(line_end < stop ? line_end + 1 : stop, stop);

    for (int i = 0; i < above.n; i++) look_at(&f, &above, i, &left, &right, &above, &below);
    for (int i = 0; i < below.n; i++) look_at(&f, &below, i, &left, &right, &above, &below);
    free(above.lines);
    free(below.lines);
    return f.n;
}

void rd_drafts_clear(rd_draft *drafts, int n)
{
    for (int i = 0; i < n; i++) rd_buf_clear(&drafts[i].text);
}
