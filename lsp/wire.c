/* wire.c - the two framings as one small machine: in a header block, in a body, in a line, past a long line. */
#include "lsp/wire.h"

#include "core/base/memory.h"
#include "lsp/limits.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define KEPT_BYTES ((size_t)1 << 20) /* memory of a larger frame is given back */

typedef enum wire_state { UNDECIDED, HEADERS, BODY, LINES, LONG_LINE, OVER } wire_state;

struct rd_wire {
    wire_state state;
    rd_framing framing;
    size_t most;
    bool lent;            /* `kept` was lent out as a frame */
    rd_buf kept;          /* the line of a header, the body or the line that is being read */
    size_t block;         /* bytes of the header block so far */
    bool has_length;      /* of the block that is being read */
    size_t length, wants; /* bytes of the body, and those that are still to come */
    rd_error why;         /* OVER */
};

rd_wire *rd_wire_new(rd_framing framing, size_t most)
{
    rd_wire *w = rd_alloc0(sizeof *w);

    w->most = most;
    w->framing = framing;
    w->state = framing == RD_FRAMING_HEADER ? HEADERS
               : framing == RD_FRAMING_LINE ? LINES
                                            : UNDECIDED;
    return w;
}

void rd_wire_free(rd_wire *w)
{
    if (!w) return;
    rd_buf_clear(&w->kept);
    free(w);
}

rd_framing rd_wire_framing(const rd_wire *w)
{
    return w->framing;
}

static rd_wire_event broken(rd_wire *w, rd_error *err)
{
    w->state = OVER;
    if (err) *err = w->why;
    rd_buf_clear(&w->kept);
    return RD_WIRE_BROKEN;
}

#define BROKEN(w, err, ...) (rd_fail(&(w)->why, RD_INVALID, __VA_ARGS__), broken(w, err))

/* The frame that was lent out is over. */
static void take_back(rd_wire *w)
{
    if (!w->lent) return;
    w->lent = false;
    if (w->kept.cap > KEPT_BYTES)
        rd_buf_clear(&w->kept);
    else
        rd_buf_reset(&w->kept);
}

static rd_wire_event lend(rd_wire *w, rd_frame *out)
{
    w->lent = true;
    rd_buf_append(&w->kept, "", 0);
    *out = (rd_frame){ w->kept.data, w->kept.len };
    return RD_WIRE_FRAME;
}

static void take(rd_wire *w, const char **bytes, size_t *n, size_t count)
{
    rd_buf_append(&w->kept, *bytes, count);
    *bytes += count;
    *n -= count;
}

static void skip(const char **bytes, size_t *n, size_t count)
{
    *bytes += count;
    *n -= count;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Digits alone, blanks around them; false for anything else. A number that no size can hold is SIZE_MAX. */
static bool read_length(const char *text, size_t n, size_t *out)
{
    size_t value = 0;

    while (n > 0 && is_blank(text[n - 1])) n--;
    for (; n > 0 && is_blank(*text); text++) n--;
    if (n == 0) return false;
    for (size_t i = 0; i < n; i++) {
        if (text[i] < '0' || text[i] > '9') return false;
        size_t digit = (size_t)(text[i] - '0');

        value = value > (SIZE_MAX - digit) / 10 ? SIZE_MAX : value * 10 + digit;
    }
    *out = value;
    return true;
}

/* One line of a header block, without its end. */
static rd_wire_event header(rd_wire *w, const char *line, size_t n, rd_error *err)
{
    static const char name[] = "Content-Length";
    const char *colon = memchr(line, ':', n);
    size_t length;

    if (!colon)
        return BROKEN(w, err, "a header line without a colon: \"%.*s\"", (int)(n < 40 ? n : 40),
                      line);
    size_t named = (size_t)(colon - line);

    while (named > 0 && is_blank(line[named - 1])) named--;
    if (named != sizeof name - 1 || strncasecmp(line, name, named) != 0) return RD_WIRE_MORE;
    if (!read_length(colon + 1, n - (size_t)(colon + 1 - line), &length))
        return BROKEN(w, err, "Content-Length is not a number: \"%.*s\"", (int)(n < 40 ? n : 40),
                      line);
    if (length > w->most)
        return BROKEN(w, err, "a message of more than %zu bytes (Content-Length)", w->most);
    if (w->has_length && length != w->length)
        return BROKEN(w, err, "two different Content-Length in one header block");
    w->has_length = true;
    w->length = length;
    return RD_WIRE_MORE;
}

/* Header lines up to the blank one. Blank lines before a block are skipped: some clients end a body with one. */
static rd_wire_event read_headers(rd_wire *w, const char **bytes, size_t *n, rd_error *err)
{
    while (*n > 0 && w->state == HEADERS) {
        const char *end = memchr(*bytes, '\n', *n);
        size_t count = end ? (size_t)(end - *bytes) + 1 : *n;

        w->block += count;
        if (w->block > RD_MOST_HEADER_BYTES)
            return BROKEN(w, err, "a header block of more than %zu bytes", RD_MOST_HEADER_BYTES);
        take(w, bytes, n, count);
        if (!end) return RD_WIRE_MORE;
        size_t len = w->kept.len - 1;

        if (len > 0 && w->kept.data[len - 1] == '\r') len--;
        if (len > 0) {
            if (header(w, w->kept.data, len, err) == RD_WIRE_BROKEN) return RD_WIRE_BROKEN;
        } else if (w->has_length) {
            w->wants = w->length;
            w->state = BODY;
        } else if (w->block == w->kept.len) {
            w->block = 0;
        } else {
            return BROKEN(w, err, "a header block without Content-Length");
        }
        rd_buf_reset(&w->kept);
    }
    return RD_WIRE_MORE;
}

static rd_wire_event read_body(rd_wire *w, const char **bytes, size_t *n, rd_frame *out)
{
    size_t count = *n < w->wants ? *n : w->wants;

    take(w, bytes, n, count);
    w->wants -= count;
    if (w->wants > 0) return RD_WIRE_MORE;
    w->state = HEADERS;
    w->block = 0;
    w->has_length = false;
    return lend(w, out);
}

/* The line is whole in `kept`; a blank one is no frame. */
static bool is_blank_line(rd_wire *w)
{
    if (w->kept.len > 0 && w->kept.data[w->kept.len - 1] == '\r') w->kept.data[--w->kept.len] = 0;
    for (size_t i = 0; i < w->kept.len; i++)
        if (!is_blank(w->kept.data[i])) return false;
    rd_buf_reset(&w->kept);
    return true;
}

static rd_wire_event read_lines(rd_wire *w, const char **bytes, size_t *n, rd_frame *out)
{
    while (*n > 0) {
        const char *end = memchr(*bytes, '\n', *n);
        size_t count = end ? (size_t)(end - *bytes) : *n;

        if (w->state == LONG_LINE || count > w->most - w->kept.len) {
            bool first = w->state == LINES;

            rd_buf_clear(&w->kept);
            w->state = end ? LINES : LONG_LINE;
            skip(bytes, n, end ? count + 1 : count);
            if (first) return RD_WIRE_TOO_BIG;
            continue;
        }
        take(w, bytes, n, count);
        if (!end) break;
        skip(bytes, n, 1);
        if (!is_blank_line(w)) return lend(w, out);
    }
    return RD_WIRE_MORE;
}

rd_wire_event rd_wire_read(rd_wire *w, const char **bytes, size_t *n, rd_frame *out, rd_error *err)
{
    take_back(w);
    if (w->state == UNDECIDED) {
        while (*n > 0 && is_blank(**bytes)) skip(bytes, n, 1);
        if (*n == 0) return RD_WIRE_MORE;
        w->state = **bytes == '{' || **bytes == '[' ? LINES : HEADERS;
        w->framing = w->state == LINES ? RD_FRAMING_LINE : RD_FRAMING_HEADER;
    }
    if (w->state == OVER) return broken(w, err);
    if (w->state == LINES || w->state == LONG_LINE) return read_lines(w, bytes, n, out);
    if (w->state == HEADERS && read_headers(w, bytes, n, err) == RD_WIRE_BROKEN)
        return RD_WIRE_BROKEN;
    return w->state == BODY ? read_body(w, bytes, n, out) : RD_WIRE_MORE;
}

rd_wire_event rd_wire_end(rd_wire *w, rd_frame *out, rd_error *err)
{
    take_back(w);
    if (w->state == OVER) return broken(w, err);
    if (w->state == LINES && !is_blank_line(w)) return lend(w, out);
    if (w->state == BODY)
        return BROKEN(w, err, "the input ends %zu bytes before the end of a message", w->wants);
    if (w->state == HEADERS && w->block > 0)
        return BROKEN(w, err, "the input ends inside a header block");
    return RD_WIRE_MORE;
}

void rd_wire_write(rd_buf *out, rd_framing framing, const char *message, size_t n)
{
    if (framing == RD_FRAMING_HEADER) {
        rd_buf_format(out, "Content-Length: %zu\r\n\r\n", n);
        rd_buf_append(out, message, n);
        return;
    }
    size_t from = out->len;

    rd_buf_append(out, message, n);
    for (char *c = out->data + from; (c = memchr(c, '\n', out->len - (size_t)(c - out->data)));)
        *c = ' ';
    rd_buf_text(out, "\n");
}
