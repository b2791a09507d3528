/* buf.h - growing arrays: bytes (rd_buf) and token ids (rd_ids).
 *
 * A zeroed struct is an empty one. Appending cannot fail (it aborts when memory is gone). rd_buf
 * keeps a NUL behind its bytes once something was appended, so `data` can be printed; it may also
 * hold NULs of its own. One owner, one thread at a time.
 */
#ifndef RD_BASE_BUF_H
#define RD_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct rd_buf {
    char *data;
    size_t len, cap;
} rd_buf;

void rd_buf_append(rd_buf *b, const void *bytes, size_t n);
void rd_buf_text(rd_buf *b, const char *text);
void rd_buf_format(rd_buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
void rd_buf_reset(rd_buf *b); /* empty, memory kept */
void rd_buf_clear(rd_buf *b); /* empty, memory freed */

typedef struct rd_ids {
    int32_t *id;
    int n, cap;
} rd_ids;

void rd_ids_push(rd_ids *ids, int32_t id);
void rd_ids_append(rd_ids *ids, const int32_t *id, int n);
void rd_ids_reset(rd_ids *ids);
void rd_ids_clear(rd_ids *ids);

bool rd_ends_with(const char *text, const char *end);

#endif
