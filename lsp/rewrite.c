/* rewrite.c - compared in the plain form, edited in the document's. */
#include "lsp/rewrite.h"

#include "core/base/diff.h"
#include "core/base/memory.h"

#include <stdlib.h>
#include <string.h>

void rd_rewrite_plain(rd_buf *text)
{
    size_t m = 0;

    for (size_t i = 0; i < text->len; i++)
        if (text->data[i] != '\r' || i + 1 == text->len || text->data[i + 1] != '\n')
            text->data[m++] = text->data[i];
    if (text->len > 0) text->data[m] = 0;
    text->len = m;
}

size_t rd_rewrite_unplain(const char *bytes, size_t n, size_t at)
{
    size_t i = 0;

    for (; at > 0 && i < n; at--)
        i += bytes[i] == '\r' && i + 1 < n && bytes[i + 1] == '\n' ? 2 : 1;
    return i;
}

/* Whether lines end in `\r\n` at `offset`: that line's end says so, in the last line the end of the one before. */
static bool ends_in_crlf(const rd_text *t, size_t offset)
{
    size_t line = rd_text_position(t, offset, RD_UTF8).line;

    if (line + 1 == rd_text_lines(t) && line > 0) line--;
    return line + 1 < rd_text_lines(t) &&
           rd_text_line_start(t, line + 1) - rd_text_line_end(t, line) == 2;
}

static bool is_white(const rd_buf *b)
{
    for (size_t i = 0; i < b->len; i++)
        if (!strchr(" \t\r\n\f", b->data[i])) return false;
    return true;
}

static bool ends_line(const rd_buf *b)
{
    return b->len > 0 && b->data[b->len - 1] == '\n';
}

/* The line end at the end is the old text's. */
static void fit_end(const rd_buf *old, rd_buf *fresh)
{
    if (ends_line(old)) {
        if (!ends_line(fresh)) rd_buf_text(fresh, "\n");
    } else if (!is_white(old)) {
        while (ends_line(fresh)) fresh->data[--fresh->len] = 0;
    }
}

static void append_lines(rd_buf *out, const char *s, size_t n, bool crlf)
{
    rd_buf_append(out, "", 0);
    for (size_t i = 0; i < n; i++) {
        if (crlf && s[i] == '\n') rd_buf_append(out, "\r", 1);
        rd_buf_append(out, s + i, 1);
    }
}

/* A span, and what an answer makes of it. */
typedef struct change {
    size_t start;
    rd_buf bytes, old, fresh; /* as it stands; plain; plain too */
    bool crlf;
} change;

/* False when the answer is none. */
static bool make_change(change *c, const rd_text *t, size_t start, size_t end, const char *answer,
                        size_t n)
{
    *c = (change){ .start = start, .crlf = ends_in_crlf(t, start) };
    rd_buf_append(&c->bytes, "", 0);
    rd_text_copy(t, start, end, &c->bytes);
    rd_buf_append(&c->old, c->bytes.data, c->bytes.len);
    rd_buf_append(&c->fresh, answer, n);
    rd_rewrite_plain(&c->old);
    rd_rewrite_plain(&c->fresh);
    if (is_white(&c->fresh) && !is_white(&c->old)) return false;
    fit_end(&c->old, &c->fresh);
    return true;
}

static void clear_change(change *c)
{
    rd_buf_clear(&c->bytes);
    rd_buf_clear(&c->old);
    rd_buf_clear(&c->fresh);
}

/* A plain edit, as one of the document. */
static void add_edit(rd_rewrite *r, const change *c, const rd_text_edit *e)
{
    rd_edit *to;

    r->edits = rd_resize(r->edits, (size_t)r->n + 1, sizeof *r->edits);
    to = &r->edits[r->n++];
    *to = (rd_edit){ .start = c->start + rd_rewrite_unplain(c->bytes.data, c->bytes.len, e->start),
                     .end = c->start + rd_rewrite_unplain(c->bytes.data, c->bytes.len, e->end) };
    append_lines(&to->text, c->fresh.data + e->from, e->to - e->from, c->crlf);
}

void rd_rewrite_add(rd_rewrite *r, const rd_text *t, size_t start, size_t end, const char *answer,
                    size_t n)
{
    change c;
    rd_text_edit *list = NULL;

    if (make_change(&c, t, start, end, answer, n)) {
        int count = rd_diff_texts(c.old.data, c.old.len, c.fresh.data, c.fresh.len, &list);

        for (int i = 0; i < count; i++) add_edit(r, &c, &list[i]);
    }
    free(list);
    clear_change(&c);
}

void rd_rewrite_put(rd_rewrite *r, const rd_text *t, size_t start, size_t end, const char *answer,
                    size_t n)
{
    change c;

    if (make_change(&c, t, start, end, answer, n) &&
        (c.old.len != c.fresh.len || memcmp(c.old.data, c.fresh.data, c.old.len) != 0))
        add_edit(r, &c, &(rd_text_edit){ 0, c.old.len, 0, c.fresh.len });
    clear_change(&c);
}

void rd_rewrite_clear(rd_rewrite *r)
{
    for (int i = 0; i < r->n; i++) rd_buf_clear(&r->edits[i].text);
    free(r->edits);
    *r = (rd_rewrite){ 0 };
}
