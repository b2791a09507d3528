/* tidy.c - what is said twice, and what is indented otherwise than the file. */
#include "lsp/tidy.h"

#include "core/decode/overlap.h"

#include <stdbool.h>
#include <string.h>

enum { STYLE_BYTES = 16 << 10, UNIT = 4 };

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static void cut(rd_buf *text, size_t n)
{
    text->len = n;
    if (text->data) text->data[n] = 0;
}

static void plain_line_ends(rd_buf *text)
{
    size_t to = 0;

    for (size_t i = 0; i < text->len; i++) {
        if (text->data[i] == '\r' && i + 1 < text->len && text->data[i + 1] == '\n') continue;
        text->data[to++] = text->data[i] == '\r' ? '\n' : text->data[i];
    }
    cut(text, to);
}

/* ---- said twice ---- */

/* How far a line's brackets and quotes are from being balanced: closers without an opener, and quotes left open. */
typedef struct balance {
    int depth, missing;
    char quote;
} balance;

static void weigh(balance *b, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (b->quote) {
            if (s[i] == '\\' && i + 1 < n)
                i++;
            else if (s[i] == b->quote)
                b->quote = 0;
        } else if (strchr("\"'`", s[i]) && s[i]) {
            b->quote = s[i];
        } else if (strchr("([{", s[i]) && s[i]) {
            b->depth++;
        } else if (strchr(")]}", s[i]) && s[i]) {
            if (b->depth > 0)
                b->depth--;
            else
                b->missing++;
        }
    }
}

static int faults(const char *before, size_t before_n, const char *text, size_t n,
                  const char *behind, size_t behind_n)
{
    balance b = { 0 };

    weigh(&b, before, before_n);
    weigh(&b, text, n);
    weigh(&b, behind, behind_n);
    return b.missing + (b.quote != 0);
}

/* Closing marks at the answer's end that stand right of the cursor already go where the line is better without them. */
static void drop_closers(const rd_around *a, rd_buf *text)
{
    const char *stop = memchr(a->behind, '\n', a->behind_n), *line = a->before + a->before_n;
    size_t right = stop ? (size_t)(stop - a->behind) : a->behind_n, n = 0;
    const char *last = memrchr(text->data, '\n', text->len);
    size_t first = last ? (size_t)(last + 1 - text->data) : 0;

    while (line > a->before && line[-1] != '\n') line--;
    size_t left = first > 0 ? 0 : (size_t)(a->before + a->before_n - line);

    while (n < right && strchr(")]}\"'`;,", a->behind[n]) && a->behind[n]) n++;
    for (; n > 0; n--) {
        if (text->len - first < n || memcmp(text->data + text->len - n, a->behind, n) != 0)
            continue;
        int with = faults(line, left, text->data + first, text->len - first, a->behind, right);
        int without =
            faults(line, left, text->data + first, text->len - first - n, a->behind, right);
        bool just_marks = strspn(a->behind, ";,") >= n;

        if (without < with || just_marks) {
            cut(text, text->len - n);
            return;
        }
    }
}

static void drop_suffix(const rd_around *a, rd_buf *text)
{
    char last = a->before_n > 0 ? a->before[a->before_n - 1] : 0;

    cut(text, text->len - rd_overlap(last, text->data, text->len, a->behind, a->behind_n));
    if (a->behind_n == 0) return;
    bool ends = a->behind[0] == '\n' || a->behind[0] == '\r';
    size_t n = text->len; /* the line's end, or a space, stands there already */

    if (!ends && !is_blank(a->behind[0])) return;
    while (n > 0 && (is_blank(text->data[n - 1]) || (ends && text->data[n - 1] == '\n'))) n--;
    cut(text, n);
}

static void drop_stray_space(const rd_around *a, rd_buf *text)
{
    bool stray = text->len > 1 && text->data[0] == ' ' && !is_blank(text->data[1]) &&
                 a->before_n > 0 && is_blank(a->before[a->before_n - 1]);

    if (!stray) return;
    memmove(text->data, text->data + 1, text->len);
    text->len--;
}

/* ---- indentation ---- */

typedef struct style {
    int tabs, spaces; /* lines that begin with one */
    int unit;         /* the least run of spaces that is more than one */
} style;

static void look(style *s, const char *text, size_t n)
{
    const char *end = text + n;

    for (const char *at = text; at && at < end; at = memchr(at, '\n', (size_t)(end - at))) {
        if (*at == '\n' && ++at == end) break;
        int k = 0;

        while (at + k < end && at[k] == ' ') k++;
        s->tabs += *at == '\t';
        s->spaces += k > 1 && at + k < end && at[k] != '\n' && at[k] != '*';
        if (k > 1 && at + k < end && at[k] != '\n' && at[k] != '*' && (!s->unit || k < s->unit))
            s->unit = k;
    }
}

static style style_of(const rd_around *a)
{
    style s = { 0 };
    size_t before = a->before_n < STYLE_BYTES ? a->before_n : STYLE_BYTES,
           behind = a->behind_n < STYLE_BYTES ? a->behind_n : STYLE_BYTES;
    const char *from = a->before + a->before_n - before;
    const char *line = before < a->before_n ? memchr(from, '\n', before) : NULL;

    if (line) from = line;
    look(&s, from, (size_t)(a->before + a->before_n - from));
    const char *next = memchr(a->behind, '\n', behind);

    if (next) look(&s, next, (size_t)(a->behind + behind - next));
    if (a->indent != RD_INDENT_UNKNOWN && s.tabs + s.spaces == 0)
        (a->indent == RD_INDENT_TABS ? &s.tabs : &s.spaces)[0] = 1;
    if (a->tab_size > 0 && (!s.unit || s.tabs > s.spaces)) s.unit = a->tab_size;
    if (s.unit == 0 || s.unit > 8) s.unit = UNIT;
    return s;
}

/* One line's indentation, written in the file's way. */
static size_t put_indent(const style *s, bool tabs, const char *line, size_t n, rd_buf *out)
{
    size_t k = 0, columns = 0;

    for (; k < n && is_blank(line[k]); k++)
        columns += line[k] == '\t' ? (size_t)s->unit - columns % (size_t)s->unit : 1;
    size_t whole = tabs ? columns / (size_t)s->unit : 0;

    for (size_t i = 0; i < whole; i++) rd_buf_append(out, "\t", 1);
    for (size_t i = whole * (size_t)s->unit; i < columns; i++) rd_buf_append(out, " ", 1);
    return k;
}

static void indent_alike(const rd_around *a, rd_buf *text)
{
    style s = style_of(a);
    bool tabs = s.tabs > 4 * s.spaces, spaces = s.spaces > 4 * s.tabs;
    const char *wrong = tabs ? " " : "\t";
    char *first = memchr(text->data, '\n', text->len);
    rd_buf out = { 0 };

    if (!first || (!tabs && !spaces)) return;
    for (size_t at = 0; at < text->len;) {
        char *end = memchr(text->data + at, '\n', text->len - at);
        size_t n = (end ? (size_t)(end + 1 - text->data) : text->len) - at;

        if (at > 0 && text->data[at] == *wrong) {
            size_t k = put_indent(&s, tabs, text->data + at, n, &out);

            rd_buf_append(&out, text->data + at + k, n - k);
        } else {
            rd_buf_append(&out, text->data + at, n);
        }
        at += n;
    }
    rd_buf_clear(text);
    *text = out;
}

void rd_tidy(const rd_around *a, rd_buf *text)
{
    if (text->len == 0) return;
    plain_line_ends(text);
    drop_suffix(a, text);
    if (text->len > 0) drop_closers(a, text);
    if (text->len > 0) drop_stray_space(a, text);
    if (text->len > 0) indent_alike(a, text);
}
