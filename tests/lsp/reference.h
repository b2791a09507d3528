/* reference.h - an open document as plainly as it can be written: one buffer, every answer by looking at all of it.
 *
 * The tests and the fuzzer hold lsp/text.c and lsp/document.c against it.
 */
#ifndef RD_TEST_REFERENCE_H
#define RD_TEST_REFERENCE_H

#include "core/base/buf.h"
#include "lsp/text.h"

#include <string.h>

typedef struct reference {
    rd_buf text;
} reference;

static inline int ref_width(const reference *r, size_t i)
{
    unsigned char c = (unsigned char)r->text.data[i];

    return c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}

static inline uint32_t ref_units(int width, rd_encoding e)
{
    return e == RD_UTF8 ? (uint32_t)width : e == RD_UTF16 && width == 4 ? 2 : 1;
}

/* Bytes of the line end at i; 0: none. */
static inline size_t ref_line_end(const reference *r, size_t i)
{
    if (r->text.data[i] == '\n') return 1;
    if (r->text.data[i] != '\r') return 0;
    return i + 1 < r->text.len && r->text.data[i + 1] == '\n' ? 2 : 1;
}

static inline size_t ref_lines(const reference *r)
{
    size_t lines = 1;

    for (size_t i = 0; i < r->text.len;) {
        size_t end = ref_line_end(r, i);

        lines += end > 0;
        i += end ? end : 1;
    }
    return lines;
}

static inline size_t ref_offset(const reference *r, rd_position at, rd_encoding e)
{
    size_t i = 0;
    uint32_t line = 0, column = 0;

    while (i < r->text.len && line < at.line) {
        size_t end = ref_line_end(r, i);

        line += end > 0;
        i += end ? end : 1;
    }
    if (line < at.line) return r->text.len;
    while (i < r->text.len && !ref_line_end(r, i)) {
        int width = ref_width(r, i);

        if (column + ref_units(width, e) > at.character) break;
        column += ref_units(width, e);
        i += (size_t)width;
    }
    return i;
}

static inline rd_position ref_position(const reference *r, size_t offset, rd_encoding e)
{
    rd_position p = { 0, 0 };

    for (size_t i = 0; i < offset;) {
        size_t end = ref_line_end(r, i), width = (size_t)ref_width(r, i);

        if (i + (end ? end : width) > offset) break; /* inside of it */
        p.character = end ? 0 : p.character + ref_units((int)width, e);
        p.line += end > 0;
        i += end ? end : width;
    }
    return p;
}

static inline void ref_replace(reference *r, size_t start, size_t end, const char *bytes, size_t n)
{
    rd_buf fresh = { 0 };

    rd_buf_append(&fresh, r->text.data ? r->text.data : "", start);
    rd_buf_append(&fresh, bytes, n);
    if (end < r->text.len) rd_buf_append(&fresh, r->text.data + end, r->text.len - end);
    rd_buf_clear(&r->text);
    r->text = fresh;
}

#endif
