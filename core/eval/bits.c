/* bits.c - pieces of files, and what they cost. */
#include "core/eval/bits.h"

#include "core/base/memory.h"
#include "core/decode/prompt.h"
#include "core/train/objective.h"

#include <math.h>
#include <stdlib.h>

enum { PIECE = 1200, ALL = 64 << 10, TOKENS_MOST = 1300 };

typedef struct piece {
    const char *text, *language;
    size_t n;
} piece;

/* The next piece after `*file`; false at the end. */
static bool next_piece(const rd_cases *c, bool *seen, int *at, size_t *bytes, piece *out)
{
    for (; *at < c->n && *bytes < ALL; ++*at) {
        int file = c->at[*at].file;
        const rd_case_file *f = &c->file[file];
        size_t n = f->bytes - f->licence < PIECE ? f->bytes - f->licence : PIECE;

        if (seen[file] || n == 0) continue;
        seen[file] = true;
        *bytes += n;
        *out = (piece){ f->text + f->licence, f->language, n };
        return true;
    }
    return false;
}

double rd_bits_ngram(const rd_cases *c, rd_floor_ngram *g)
{
    bool *seen = rd_alloc_array((size_t)c->files + 1, sizeof *seen);
    double bits = 0.0;
    size_t bytes = 0;
    int at = 0;
    piece p;

    while (next_piece(c, seen, &at, &bytes, &p)) bits += rd_floor_ngram_bits(g, p.text, p.n);
    free(seen);
    return bits / (double)bytes;
}

typedef struct model {
    rd_params params;
    rd_tokenizer *tokenizer;
    rd_layout_ids ids;
    rd_net *net;
    float *weights;
    uint8_t *flags;
} model;

static rd_status cost(model *m, const piece *p, rd_train_stats *stats, rd_error *err)
{
    rd_ids ids = { 0 };
    rd_rows rows = { 0 };
    rd_objective_tokens tokens = { .mask = m->ids.mask,
                                   .del = m->ids.del,
                                   .split = m->ids.split,
                                   .suffix = m->ids.suffix,
                                   .prefix = m->ids.prefix,
                                   .fill = m->ids.fill,
                                   .flags = m->flags,
                                   .vocab = m->params.config.vocab_size };
    rd_status status;

    rd_ids_push(&ids, m->ids.language[rd_language_of(p->language)]);
    status = rd_tokenizer_encode(m->tokenizer, p->text, p->n, RD_TEXT_PLAIN, &ids, err);
    if (!status && ids.n > TOKENS_MOST) ids.n = TOKENS_MOST;
    if (!status) {
        rd_rows_next_token(&rows, &tokens, ids.id, ids.n);
        status = rd_net_run(m->net, m->weights, rows.row, rows.n, 1.0f, NULL, stats, err);
    }
    rd_rows_clear(&rows);
    rd_ids_clear(&ids);
    return status;
}

static rd_status open_model(model *m, const char *dir, rd_product product, bool *known,
                            rd_error *err)
{
    rd_model_config config;
    rd_error refused;

    *known = false;
    if (rd_config_read(dir, &config, err) || rd_tokenizer_open(dir, &m->tokenizer, err))
        return err->status;
    if (!rd_layout_find(m->tokenizer, &m->ids) || !config.infill_layout ||
        rd_params_init(&m->params, &config, &refused))
        return RD_OK;
    m->weights = rd_alloc_array(m->params.size, sizeof *m->weights);
    m->flags = rd_alloc_array((size_t)config.vocab_size, 1);
    for (int i = 0; i < config.vocab_size; i++)
        if (rd_tokenizer_is_added(m->tokenizer, i)) m->flags[i] = RD_TOKEN_CONTROL;
    if (rd_params_read(&m->params, m->weights, dir, err) ||
        rd_net_open(&m->params, product, 2 * TOKENS_MOST, &m->net, err))
        return err->status;
    *known = true;
    return RD_OK;
}

rd_status rd_bits_model(const rd_cases *c, const char *dir, rd_product product, double *out,
                        rd_error *err)
{
    bool *seen = rd_alloc_array((size_t)c->files + 1, sizeof *seen), known;
    model m = { 0 };
    rd_train_stats stats = { 0 };
    size_t bytes = 0;
    int at = 0;
    piece p;
    rd_status status = open_model(&m, dir, product, &known, err);

    while (!status && known && next_piece(c, seen, &at, &bytes, &p))
        status = cost(&m, &p, &stats, err);
    *out = known && bytes ? stats.loss[RD_TASK_NEXT] / log(2.0) / (double)bytes : NAN;
    rd_net_close(m.net);
    rd_params_clear(&m.params);
    rd_tokenizer_close(m.tokenizer);
    free(m.weights);
    free(m.flags);
    free(seen);
    return status;
}
