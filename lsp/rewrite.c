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

/* The plain edits, as edits of the document. */
static void add_edits(rd_rewrite *r, const rd_buf *bytes, size_t start, const rd_buf *old,
                      const rd_buf *fresh, bool crlf)
{
    rd_text_edit *list;
    int n = rd_diff_texts(old->data, old->len, fresh->data, fresh->len, &list);

    r->edits = rd_resize(r->edits, (size_t)(r->n + n) + 1, sizeof *r->edits);
    for (int i = 0; i < n; i++) {
        const rd_text_edit *e = &list[i];
        rd_edit *to = &r->edits[r->n++];

        *to = (rd_edit){ .start = start + rd_rewrite_unplain(bytes->data, bytes->len, e->start),
                         .end = start + rd_rewrite_unplain(bytes->data, bytes->len, e->end) };
        append_lines(&to->text, fresh->data + e->from, e->to - e->from, crlf);
    }
    free(list);
}

void rd_rewrite_add(rd_rewrite *r, const rd_text *t, size_t start, size_t end, const char *answer,
                    size_t n)
{
    rd_buf bytes = { 0 }, old = { 0 }, fresh = { 0 };

    rd_buf_append(&bytes, "", 0);
    rd_text_copy(t, start, end, &bytes);
    rd_buf_append(&old, bytes.data, bytes.len);
    rd_buf_append(&fresh, answer, n);
    rd_rewrite_plain(&old);
    rd_rewrite_plain(&fresh);
    if (!is_white(&fresh) || is_white(&old)) {
        fit_end(&old, &fresh);
        add_edits(r, &bytes, start, &old, &fresh, ends_in_crlf(t, start));
    }
    rd_buf_clear(&bytes);
    rd_buf_clear(&old);
    rd_buf_clear(&fresh);
}

void rd_rewrite_clear(rd_rewrite *r)
{
    for (int i = 0; i < r->n; i++) rd_buf_clear(&r->edits[i].text);
    free(r->edits);
    *r = (rd_rewrite){ 0 };
}
