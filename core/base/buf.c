/* buf.c - growing arrays. */
#include "core/base/buf.h"

#include "core/base/memory.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void reserve(rd_buf *b, size_t more)
{
    size_t want;

    if (!rd_add(b->len, more, &want) || !rd_add(want, 1, &want)) abort();
    if (want <= b->cap) return;
    size_t cap = b->cap ? b->cap : 64;
    while (cap < want) cap = cap > SIZE_MAX / 2 ? want : cap * 2;
    b->data = rd_resize(b->data, cap, 1);
    b->cap = cap;
}

void rd_buf_append(rd_buf *b, const void *bytes, size_t n)
{
    reserve(b, n);
    if (n) memcpy(b->data + b->len, bytes, n);
    b->len += n;
    b->data[b->len] = 0;
}

void rd_buf_text(rd_buf *b, const char *text)
{
    rd_buf_append(b, text, strlen(text));
}

void rd_buf_format(rd_buf *b, const char *format, ...)
{
    va_list args, again;

    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n > 0) {
        reserve(b, (size_t)n);
        vsnprintf(b->data + b->len, (size_t)n + 1, format, again);
        b->len += (size_t)n;
    }
    va_end(again);
}

void rd_buf_reset(rd_buf *b)
{
    b->len = 0;
    if (b->data) b->data[0] = 0;
}

void rd_buf_clear(rd_buf *b)
{
    free(b->data);
    *b = (rd_buf){ 0 };
}

static void reserve_ids(rd_ids *ids, int more)
{
    if (more > INT_MAX - ids->n) abort();
    int want = ids->n + more;
    if (want <= ids->cap) return;
    int cap = ids->cap ? ids->cap : 32;
    while (cap < want) cap = cap > INT_MAX / 2 ? want : cap * 2;
    ids->id = rd_resize(ids->id, (size_t)cap, sizeof *ids->id);
    ids->cap = cap;
}

void rd_ids_push(rd_ids *ids, int32_t id)
{
    reserve_ids(ids, 1);
    ids->id[ids->n++] = id;
}

void rd_ids_append(rd_ids *ids, const int32_t *id, int n)
{
    if (n <= 0) return;
    reserve_ids(ids, n);
    memcpy(ids->id + ids->n, id, (size_t)n * sizeof *id);
    ids->n += n;
}

void rd_ids_reset(rd_ids *ids)
{
    ids->n = 0;
}

void rd_ids_clear(rd_ids *ids)
{
    free(ids->id);
    *ids = (rd_ids){ 0 };
}

bool rd_ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);

    return n >= m && !strcmp(text + n - m, end);
}
