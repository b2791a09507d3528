/* diff.c - pieces, common ends, and a table of common lengths for what is between; one hunk of whole lines. */
#include "core/base/diff.h"

#include "core/base/memory.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { CELLS_MOST = 4 << 20 };

typedef struct pieces {
    const char *text;
    size_t *at; /* [n + 1] */
    int n;
} pieces;

static int kind_of(unsigned char c)
{
    if (c >= 0x80 || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
        c == '_')
        return 1;
    return c == ' ' || c == '\t' ? 2 : 0;
}

static pieces cut(const char *text, size_t n)
{
    pieces p = { .text = text, .at = rd_alloc_array(n + 1, sizeof *p.at) };

    for (size_t i = 0; i < n; p.n++) {
        int kind = kind_of((unsigned char)text[i]);

        p.at[p.n] = i++;
        while (kind && i < n && kind_of((unsigned char)text[i]) == kind) i++;
    }
    p.at[p.n] = n;
    return p;
}

static bool same(const pieces *a, int i, const pieces *b, int j)
{
    size_t n = a->at[i + 1] - a->at[i];

    return n == b->at[j + 1] - b->at[j] && !memcmp(a->text + a->at[i], b->text + b->at[j], n);
}

typedef struct edits {
    rd_text_edit *list;
    int n;
} edits;

static void add(edits *e, const pieces *a, int i, int i_end, const pieces *b, int j, int j_end)
{
    if (i == i_end && j == j_end) return;
    e->list = rd_resize(e->list, (size_t)e->n + 1, sizeof *e->list);
    e->list[e->n++] = (rd_text_edit){ a->at[i], a->at[i_end], b->at[j], b->at[j_end] };
}

/* Between the common ends: pieces [i, i_end) of a and [j, j_end) of b. */
static void align(edits *e, const pieces *a, int i, int i_end, const pieces *b, int j, int j_end)
{
    size_t wide = (size_t)(j_end - j) + 1, high = (size_t)(i_end - i) + 1;

    if (wide * high > CELLS_MOST) {
        add(e, a, i, i_end, b, j, j_end);
        return;
    }
    uint32_t *length = rd_alloc_array(wide * high, sizeof *length);

    for (size_t x = high - 1; x-- > 0;) {
        for (size_t y = wide - 1; y-- > 0;) {
            uint32_t *at = length + x * wide + y;

            if (same(a, i + (int)x, b, j + (int)y))
                *at = at[wide + 1] + 1;
            else
                *at = at[1] > at[wide] ? at[1] : at[wide];
        }
    }
    int x = i, y = j, gap_x = i, gap_y = j;

    while (x < i_end && y < j_end) {
        const uint32_t *at = length + (size_t)(x - i) * wide + (size_t)(y - j);

        if (same(a, x, b, y)) {
            add(e, a, gap_x, x, b, gap_y, y);
            gap_x = ++x;
            gap_y = ++y;
        } else if (at[wide] >= at[1]) {
            x++;
        } else {
            y++;
        }
    }
    add(e, a, gap_x, i_end, b, gap_y, j_end);
    free(length);
}

int rd_diff_texts(const char *old, size_t n, const char *fresh, size_t m, rd_text_edit **out)
{
    pieces a = cut(old, n), b = cut(fresh, m);
    int head = 0, a_end = a.n, b_end = b.n;
    edits e = { 0 };

    while (head < a_end && head < b_end && same(&a, head, &b, head)) head++;
    while (a_end > head && b_end > head && same(&a, a_end - 1, &b, b_end - 1)) {
        a_end--;
        b_end--;
    }
    align(&e, &a, head, a_end, &b, head, b_end);
    free(a.at);
    free(b.at);
    *out = e.list;
    return e.n;
}

/* ---- the unified form ---- */

static size_t line_end(const char *text, size_t n, size_t at)
{
    const char *end = at < n ? memchr(text + at, '\n', n - at) : NULL;

    return end ? (size_t)(end - text) : n;
}

static int count_lines(const char *s, size_t n)
{
    int lines = 0;

    for (size_t i = 0; i < n; i++) lines += s[i] == '\n';
    return lines + (n > 0 && s[n - 1] != '\n');
}

static void diff_lines(rd_buf *out, char sign, const char *s, size_t n)
{
    for (size_t at = 0; at < n;) {
        size_t end = line_end(s, n, at);

        rd_buf_format(out, "%c", sign);
        rd_buf_append(out, s + at, end - at);
        rd_buf_text(out, "\n");
        if (end == n) rd_buf_text(out, "\\ No newline at end of file\n");
        at = end + 1;
    }
}

void rd_diff_unified(const rd_text_change *c, const char *name, rd_buf *out)
{
    const char *old = c->text;
    size_t from = c->start, to = line_end(old, c->bytes, c->end), before;
    rd_buf fresh = { 0 };

    while (from > 0 && old[from - 1] != '\n') from--;
    if (to < c->bytes) to++;
    rd_buf_append(&fresh, old + from, c->start - from);
    rd_buf_append(&fresh, c->fresh, c->fresh_bytes);
    rd_buf_append(&fresh, old + c->end, to - c->end);
    if (fresh.len != to - from || memcmp(fresh.data, old + from, fresh.len) != 0) {
        before = (size_t)count_lines(old, from);
        rd_buf_format(out, "--- a/%s\n+++ b/%s\n@@ -%zu,%d +%zu,%d @@\n", name, name, before + 1,
                      count_lines(old + from, to - from), before + 1,
                      count_lines(fresh.data, fresh.len));
        diff_lines(out, '-', old + from, to - from);
        diff_lines(out, '+', fresh.data, fresh.len);
    }
    rd_buf_clear(&fresh);
}
