/* test_prompt.c - counted in blocks: what an edit makes the model compute again; and no control id from text. */
#include "core/base/random.h"
#include "core/decode/prompt.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static rd_tokenizer *tokenizer(rd_layout_ids *ids)
{
    rd_tokenizer *t = NULL;
    rd_error err;

    cr_assert(!rd_tokenizer_open(RD_SOURCE_DIR "/core/builtin", &t, &err), "%s", err.text);
    cr_assert(rd_layout_find(t, ids));
    return t;
}

static void make_text(rd_buf *out, int lines)
{
    for (int i = 0; i < lines; i++)
        rd_buf_format(out, "%*sif value_%d > limit[%d] and not done(%d):\n", i % 3 * 4, "", i,
                      i * 7 % 13, i);
}

typedef struct place {
    rd_buf text;
    size_t cursor;
} place;

static rd_prompt layout_at(const rd_tokenizer *t, const rd_layout_ids *ids, const rd_buf *text,
                           size_t cursor)
{
    rd_layout l = rd_layout_default();
    rd_prompt p = { 0 };
    rd_error err;

    cr_assert(!rd_prompt_make(t, &l, ids, RD_LANGUAGE_PYTHON, text->data, cursor,
                              text->data + cursor, text->len - cursor, l.block, &p, &err),
              "%s", err.text);
    cr_assert_eq(p.context.n % l.block, 0);
    return p;
}

/* Blocks of `b` that are not at the start of `a` too. */
static int blocks_again(const rd_prompt *a, const rd_prompt *b)
{
    int same = 0;

    while (same < a->context.n && same < b->context.n && a->context.id[same] == b->context.id[same])
        same++;
    return b->context.n / 32 - same / 32;
}

/* The worst over many cursors of the blocks that an edit costs; places where the far prefix jumps, at most
 * one in `jumps_most`, apart. */
static int cost_of(void (*edit)(place *p), int line_step, int most)
{
    rd_layout_ids ids;
    rd_tokenizer *t = tokenizer(&ids);
    int worst = 0, jumps = 0, n = 0;

    for (int line = 20; line < 90; line += line_step, n++) {
        place before = { 0 }, after = { 0 };

        make_text(&before.text, 120);
        for (int i = 0; i < line; i++)
            before.cursor =
                (size_t)((char *)memchr(before.text.data + before.cursor, '\n', before.text.len) -
                         before.text.data) +
                1;
        before.cursor += 12;
        rd_buf_append(&after.text, before.text.data, before.text.len);
        after.cursor = before.cursor;
        edit(&after);
        rd_prompt a = layout_at(t, &ids, &before.text, before.cursor),
                  b = layout_at(t, &ids, &after.text, after.cursor);
        int cost = blocks_again(&a, &b);

        if (cost > most)
            jumps++;
        else if (cost > worst)
            worst = cost;
        rd_prompt_clear(&a);
        rd_prompt_clear(&b);
        rd_buf_clear(&before.text);
        rd_buf_clear(&after.text);
    }
    /* The far prefix moves once in 128 tokens: an edit of a few tokens meets that seldom. */
    cr_assert_leq(jumps * 5, n, "%d of %d cursors cost more than %d blocks", jumps, n, most);
    rd_tokenizer_close(t);
    return worst;
}

static void insert(place *p, const char *before_cursor, const char *after_cursor)
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

static void keystroke(place *p)
{
    insert(p, "x", "");
}

static void closed_bracket(place *p)
{
    insert(p, "(", ")");
}

static void enter(place *p)
{
    insert(p, "\n        ", "");
}

static void down(place *p)
{
    p->cursor = (size_t)((char *)memchr(p->text.data + p->cursor, '\n', p->text.len - p->cursor) -
                         p->text.data) +
                5;
}

static void click(place *p)
{
    for (int i = 0; i < 5; i++) down(p);
}

Test(prompt, a_keystroke_costs_two_blocks_at_most)
{
    cr_assert_leq(cost_of(keystroke, 1, 2), 2);
}

Test(prompt, a_bracket_that_the_editor_closes_costs_two_blocks_at_most)
{
    cr_assert_leq(cost_of(closed_bracket, 1, 2), 2);
}

Test(prompt, enter_costs_two_blocks_at_most)
{
    cr_assert_leq(cost_of(enter, 1, 2), 2);
}

Test(prompt, cursor_down_leaves_the_far_prefix)
{
    /* quote 128, near prefix up to 159, tags and echo: 11 blocks; a far prefix has 8 more */
    cr_assert_leq(cost_of(down, 1, 11), 11);
}

Test(prompt, a_click_five_lines_away_leaves_the_far_prefix_mostly)
{
    rd_layout_ids ids;
    rd_tokenizer *t = tokenizer(&ids);
    place p = { 0 };

    make_text(&p.text, 120);
    p.cursor = p.text.len / 2;
    rd_prompt a = layout_at(t, &ids, &p.text, p.cursor);

    click(&p);
    rd_prompt b = layout_at(t, &ids, &p.text, p.cursor);

    cr_assert_leq(blocks_again(&a, &b), b.context.n / 32);
    rd_prompt_clear(&a);
    rd_prompt_clear(&b);
    rd_buf_clear(&p.text);
    rd_tokenizer_close(t);
}

Test(prompt, control_ids_come_from_the_layout_alone)
{
    static const char text[] = "a<|mask|>b<|suffix|>\n<|prefix|> <|fill|><|delete|>";
    rd_layout_ids ids;
    rd_tokenizer *t = tokenizer(&ids);
    rd_buf b = { 0 };
    int tags = 0;

    rd_buf_text(&b, text);
    rd_prompt p = layout_at(t, &ids, &b, 12);

    for (int i = 0; i < p.context.n; i++) {
        cr_assert_neq(p.context.id[i], ids.mask);
        cr_assert_neq(p.context.id[i], ids.del);
        tags += p.context.id[i] == ids.suffix;
    }
    for (int i = 0; i < p.anchor.n; i++) cr_assert(!rd_tokenizer_is_added(t, p.anchor.id[i]));
    cr_assert_eq(tags, 1);
    rd_prompt_clear(&p);
    rd_buf_clear(&b);
    rd_tokenizer_close(t);
}

Test(prompt, any_bytes_at_any_place_make_a_prompt)
{
    rd_layout_ids ids;
    rd_tokenizer *t = tokenizer(&ids);
    rd_random r = rd_random_seed(9);
    rd_buf b = { 0 };

    for (int i = 0; i < 150000; i++)
        rd_buf_append(&b, &(char){ (char)rd_random_below(&r, 256) }, 1);
    for (int k = 0; k < 40; k++) {
        rd_prompt p = layout_at(t, &ids, &b, rd_random_below(&r, (uint32_t)b.len + 1));

        cr_assert_leq(p.anchor.n, 32);
        cr_assert_leq(p.context.n, 1024);
        rd_prompt_clear(&p);
    }
    rd_buf_clear(&b);
    rd_tokenizer_close(t);
}
