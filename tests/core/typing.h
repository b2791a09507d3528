/* typing.h - a text with a cursor, what an editor does to it, and how many blocks that makes new. */
#ifndef RD_TEST_TYPING_H
#define RD_TEST_TYPING_H

#include "core/base/buf.h"
#include "core/base/memory.h"
#include "core/model/kv.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

enum { TYPING_BLOCK = 32 };

typedef struct place {
    rd_buf text;
    size_t cursor;
} place;

static inline size_t next_line(const place *p, size_t at)
{
    const char *end = memchr(p->text.data + at, '\n', p->text.len - at);

    cr_assert(end);
    return (size_t)(end - p->text.data) + 1;
}

/* `lines` lines of code-like text with the cursor in one of them. */
static inline place place_in_line(int lines, int line)
{
    place p = { 0 };

    for (int i = 0; i < lines; i++)
        rd_buf_format(&p.text, "%*sif value_%d > limit[%d] and not done(%d):\n", i % 3 * 4, "", i,
                      i * 7 % 13, i);
    for (int i = 0; i < line; i++) p.cursor = next_line(&p, p.cursor);
    p.cursor += 12;
    return p;
}

static inline void insert_text(place *p, const char *before_cursor, const char *after_cursor)
{
    rd_buf out = { 0 };

    rd_buf_append(&out, p->text.data, p->cursor);
    rd_buf_text(&out, before_cursor);
    size_t cursor = out.len;

    rd_buf_text(&out, after_cursor);
    rd_buf_append(&out, p->text.data + p->cursor, p->text.len - p->cursor);
    rd_buf_clear(&p->text);
    p->text = out;
    p->cursor = cursor;
}

static inline void keystroke(place *p)
{
    insert_text(p, "x", "");
}

static inline void closed_bracket(place *p)
{
    insert_text(p, "(", ")");
}

static inline void enter(place *p)
{
    insert_text(p, "\n        ", "");
}

static inline void cursor_down(place *p)
{
    p->cursor = next_line(p, p->cursor) + 4;
}

static inline void click_five_lines_away(place *p)
{
    for (int i = 0; i < 5; i++) cursor_down(p);
}

/* A pool as the engine's, without a model: only which blocks it has is of interest. */
static inline rd_kv_pool *typing_pool(void)
{
    return rd_kv_pool_new(96, TYPING_BLOCK);
}

/* Look the context up and put in what is missing: the number of blocks that a model would compute. */
static inline int blocks_computed(rd_kv_pool *kv, const rd_ids *context)
{
    int blocks = context->n / TYPING_BLOCK;
    rd_kv_block **held = rd_alloc_array((size_t)blocks + 1, sizeof *held);

    cr_assert_eq(context->n % TYPING_BLOCK, 0);
    static const rd_kv_origin none;
    int found = rd_kv_match(kv, &none, context->id, context->n, held);

    for (int i = found; i < blocks; i++) {
        rd_error err;

        cr_assert(!rd_kv_take(kv, &none, i > 0 ? held[i - 1] : NULL, context->id + i * TYPING_BLOCK,
                              &held[i], &err));
        held[i] = rd_kv_publish(kv, held[i]);
    }
    for (int i = blocks - 1; i >= 0; i--) rd_kv_unref(kv, held[i]);
    free(held);
    return blocks - found;
}

#endif
