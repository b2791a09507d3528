/* text.h - the bytes of an open document, and the way between offsets and positions.
 *
 * Text is kept in chunks of at most 4 KiB that know their lines and characters, so that an edit, a line and a
 * column cost a walk over the chunks and one chunk's bytes, in a file of a million short lines as in one of a single
 * long line. `\n`, `\r\n` and `\r` end a line. Nothing here can fail and nothing is out of range: what is past an end means
 * the end. Bytes should be UTF-8 (repair.h sees to it); other bytes give odd columns and nothing worse.
 * One thread at a time.
 */
#ifndef RD_LSP_TEXT_H
#define RD_LSP_TEXT_H

#include "core/base/buf.h"
#include "lsp/utf8.h"

#include <stddef.h>
#include <stdint.h>

typedef struct rd_text rd_text;

typedef struct rd_position {
    uint32_t line, character; /* from 0 */
} rd_position;

rd_text *rd_text_new(const char *bytes, size_t n);
void rd_text_free(rd_text *t);

size_t rd_text_bytes(const rd_text *t);
size_t rd_text_lines(const rd_text *t);  /* one more than there are line ends */
size_t rd_text_memory(const rd_text *t); /* bytes of memory it takes */

/* Put `n` bytes in the place of [start, end). The bytes must not be the text's own. */
void rd_text_replace(rd_text *t, size_t start, size_t end, const char *bytes, size_t n);
/* Append [start, end) to `out`. */
void rd_text_copy(const rd_text *t, size_t start, size_t end, rd_buf *out);
/* Bytes that the text has in common with others, at its front and then, in what is left of both, at its end. Neither
 * cut stands inside a character. */
void rd_text_common(const rd_text *t, const char *bytes, size_t n, size_t *front, size_t *back);

/* A line's first byte, and the one behind its last, without its end. */
size_t rd_text_line_start(const rd_text *t, size_t line);
size_t rd_text_line_end(const rd_text *t, size_t line);

/* A column past the line's end is the line's end, a line past the last is the end of the text, and what
 * stands inside a character is its beginning. */
size_t rd_text_offset(const rd_text *t, rd_position at, rd_encoding e);
rd_position rd_text_position(const rd_text *t, size_t offset, rd_encoding e);

#endif
