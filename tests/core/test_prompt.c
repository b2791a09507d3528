/* test_prompt.c - counted in blocks: what an edit makes the model compute again; and no control id from text. */
#include "core/base/random.h"
#include "core/decode/prompt.h"
#include "tests/core/typing.h"

static rd_tokenizer *tokenizer(rd_layout_ids *ids)
{
    rd_tokenizer *t = NULL;
    rd_error err;

    cr_assert(!rd_tokenizer_open(RD_SOURCE_DIR "/core/builtin", &t, &err), "%s", err.text);
    cr_assert(rd_layout_find(t, ids));
    return t;
}

static rd_prompt layout_at(const rd_tokenizer *t, const rd_layout_ids *ids, const place *at)
{
    rd_layout l = rd_layout_default();
    rd_prompt p = { 0 };
    rd_error err;

    cr_assert(!rd_prompt_make(t, &l, ids, RD_LANGUAGE_PYTHON, at->text.data, at->cursor,
                              at->text.data + at->cursor, at->text.len - at->cursor, l.block, &p,
                              &err),
              "%s", err.text);
    cr_assert_eq(p.context.n % l.block, 0);
    return p;
}

static int compute(rd_kv_pool *kv, const rd_tokenizer *t, const rd_layout_ids *ids, const place *at)
{
    rd_prompt p = layout_at(t, ids, at);
    int blocks = blocks_computed(kv, &p.context);

    rd_prompt_clear(&p);
    return blocks;
}

/* Where the far prefix ends, in tokens of the prefix: it moves in steps. */
static int far_end(const rd_tokenizer *t, const place *at)
{
    rd_layout l = rd_layout_default();
    rd_prompt_parts p;
    rd_error err;

    cr_assert(!rd_prompt_parts_make(t, at->text.data, at->cursor, "", 0, &p, &err));
    int n = p.prefix.n;

    rd_prompt_parts_clear(&p);
    return n > l.near_least ? (n - l.near_least) / l.far_step * l.far_step : 0;
}

/* What stands behind the far prefix at most: quote, near prefix, echo and three tags; in blocks, the one
 * where the far prefix ends included. */
static int behind_far(void)
{
    rd_layout l = rd_layout_default();

    return (l.block - 1 + l.quote_most + l.near_least + l.far_step - 1 + 3 + l.block) / l.block;
}

/* The edit at many cursors: `most` blocks wherever the far prefix stands still, and it does at `still` of
 * a hundred cursors at least. */
static void costs(void (*edit)(place *p), int most, int still)
{
    rd_layout_ids ids;
    rd_tokenizer *t = tokenizer(&ids);
    int n = 0, stays = 0;

    for (int line = 20; line < 90; line++, n++) {
        rd_kv_pool *kv = typing_pool();
        place p = place_in_line(120, line);
        int far = far_end(t, &p);

        compute(kv, t, &ids, &p);
        edit(&p);
        int cost = compute(kv, t, &ids, &p);

        if (far_end(t, &p) == far) {
            stays++;
            cr_assert_leq(cost, most, "line %d: %d blocks", line, cost);
        }
        rd_kv_pool_free(kv);
        rd_buf_clear(&p.text);
    }
    cr_assert_geq(stays * 100, n * still, "%d of %d", stays, n);
    rd_tokenizer_close(t);
}

Test(prompt, a_keystroke_costs_two_blocks_at_most)
{
    costs(keystroke, 2, 95);
}

Test(prompt, a_bracket_that_the_editor_closes_costs_two_blocks_at_most)
{
    costs(closed_bracket, 2, 95);
}

Test(prompt, enter_costs_two_blocks_at_most)
{
    costs(enter, 2, 90);
}

Test(prompt, cursor_down_costs_the_quote_and_the_near_prefix)
{
    cr_assert_eq(behind_far(), 11);
    costs(cursor_down, behind_far(), 80);
}

Test(prompt, a_click_five_lines_away_costs_the_quote_and_the_near_prefix)
{
    costs(click_five_lines_away, behind_far(), 25);
}

/* Edit, then take it back; and the same with a cursor that goes away and comes back. */
static void comes_back_for_nothing(void (*edit)(place *p))
{
    rd_layout_ids ids;
    rd_tokenizer *t = tokenizer(&ids);

    for (int line = 20; line < 90; line += 3) {
        rd_kv_pool *kv = typing_pool();
        place before = place_in_line(120, line), after = place_in_line(120, line);

        edit(&after);
        cr_assert_gt(compute(kv, t, &ids, &before), 0);
        cr_assert_gt(compute(kv, t, &ids, &after), 0);
        cr_assert_eq(compute(kv, t, &ids, &before), 0);
        cr_assert_eq(compute(kv, t, &ids, &after), 0);
        rd_kv_pool_free(kv);
        rd_buf_clear(&before.text);
        rd_buf_clear(&after.text);
    }
    rd_tokenizer_close(t);
}

Test(prompt, undo_and_redo_cost_nothing)
{
    comes_back_for_nothing(keystroke);
    comes_back_for_nothing(enter);
}

Test(prompt, going_back_costs_nothing)
{
    comes_back_for_nothing(click_five_lines_away);
}

Test(prompt, control_ids_come_from_the_layout_alone)
{
    static const char text[] = "a<|mask|>b<|suffix|>\n<|prefix|> <|fill|><|delete|>";
    rd_layout_ids ids;
    rd_tokenizer *t = tokenizer(&ids);
    rd_buf b = { 0 };
    int tags = 0;

    rd_buf_text(&b, text);
    rd_prompt p = layout_at(t, &ids, &(place){ .text = b, .cursor = 12 });

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
        place at = { .text = b, .cursor = rd_random_below(&r, (uint32_t)b.len + 1) };
        rd_prompt p = layout_at(t, &ids, &at);

        cr_assert_leq(p.anchor.n, 32);
        cr_assert_leq(p.context.n, 1024);
        rd_prompt_clear(&p);
    }
    rd_buf_clear(&b);
    rd_tokenizer_close(t);
}
