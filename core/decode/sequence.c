/* sequence.c - the finished blocks of one run: matched in the pool, or computed many at a time. */
#include "core/base/clock.h"
#include "core/base/memory.h"
#include "core/decode/decoder.h"

#include <stdlib.h>

static void grow(rd_sequence *s)
{
    if (s->n < s->cap) return;
    s->cap = s->cap ? 2 * s->cap : 64;
    s->blocks = rd_resize(s->blocks, (size_t)s->cap, sizeof *s->blocks);
    s->places = rd_resize(s->places, (size_t)s->cap, sizeof *s->places);
}

void rd_sequence_accept(rd_sequence *s, rd_kv_block *b)
{
    grow(s);
    b = rd_kv_publish(s->pool, b);
    s->blocks[s->n] = b;
    s->places[s->n++] = b->place;
    if (s->exchange) rd_kv_exchange_offer(s->exchange, b);
}

rd_status rd_sequence_offer(rd_sequence *s, const int32_t *tokens, rd_kv_block **out, rd_error *err)
{
    return rd_kv_take(s->pool, &s->origin, s->n > 0 ? s->blocks[s->n - 1] : NULL, tokens, out, err);
}

void rd_sequence_clear(rd_sequence *s)
{
    for (int i = s->n - 1; i >= 0; i--) rd_kv_unref(s->pool, s->blocks[i]);
    free(s->blocks);
    free(s->places);
    s->blocks = NULL;
    s->places = NULL;
    s->n = s->cap = 0;
}

/* Blocks from the start that the pool has already, or the store. */
static void match(rd_sequence *s, const int32_t *tokens, int n, const rd_cancel *cancel)
{
    int block = rd_model_block_size(s->model), have = n / block;
    rd_kv_block **found = rd_alloc_array((size_t)have + 1, sizeof *found);

    have = rd_kv_match(s->pool, &s->origin, tokens, n, found);
    if (s->exchange)
        have = rd_kv_exchange_load(s->exchange, &s->origin, tokens, n, found, have, cancel);
    for (int i = 0; i < have; i++) {
        grow(s);
        s->blocks[s->n] = found[i];
        s->places[s->n++] = found[i]->place;
    }
    free(found);
}

rd_status rd_sequence_pass(rd_sequence *s, int n, rd_pass *pass, rd_error *err)
{
    int block = rd_model_block_size(s->model), blocks = n / block, from = s->n, got = 0;
    int tiles = (pass->rows + block - 1) / block;
    rd_kv_block **made = rd_alloc_array((size_t)blocks + 1, sizeof *made);
    int32_t *keep = rd_alloc_array((size_t)tiles + 1, sizeof *keep);
    rd_status status = RD_OK;

    for (int i = blocks; i < tiles; i++) keep[i] = -1;
    for (; got < blocks && !status; got++) {
        const rd_kv_block *before = got > 0 ? made[got - 1] : from > 0 ? s->blocks[from - 1] : NULL;

        status =
            rd_kv_take(s->pool, &s->origin, before, pass->tokens + got * block, &made[got], err);
        if (status) break;
        keep[got] = made[got]->place;
    }
    pass->past = s->places;
    pass->past_blocks = from;
    pass->keep = blocks > 0 ? keep : NULL;
    double start = rd_now_ms();

    if (!status) status = rd_forward(s->model, pass, err);
    if (!status && s->exchange) /* rows that are not kept have their share of the time */
        rd_kv_exchange_computed(s->exchange, blocks, (rd_now_ms() - start) * n / pass->rows);
    for (int i = 0; i < got; i++) {
        if (status)
            rd_kv_unref(s->pool, made[i]);
        else
            rd_sequence_accept(s, made[i]);
    }
    if (!status) s->prefilled += n;
    pass->past = pass->keep = NULL;
    free(made);
    free(keep);
    return status;
}

rd_status rd_sequence_extend_most(rd_sequence *s, const int32_t *tokens, int n, int rows, int *left,
                                  const rd_cancel *cancel, rd_error *err)
{
    int block = rd_model_block_size(s->model), chunk = rd_model_max_rows(s->model) / block * block;
    int whole = n / block * block, at = 0;

    if (s->n == 0) {
        match(s, tokens, whole, cancel);
        at = s->n * block;
    }
    while (whole - at > rows) {
        int most = whole - at < chunk ? whole - at : chunk;
        rd_pass pass = { .tokens = tokens + at, .rows = most, .cancel = cancel };

        if (rd_sequence_pass(s, most, &pass, err)) return err ? err->status : RD_INVALID;
        at += most;
    }
    *left = whole - at;
    return RD_OK;
}

rd_status rd_sequence_extend(rd_sequence *s, const int32_t *tokens, int n, const rd_cancel *cancel,
                             rd_error *err)
{
    int left;

    return rd_sequence_extend_most(s, tokens, n, 0, &left, cancel, err);
}
