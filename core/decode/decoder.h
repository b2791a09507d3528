/* decoder.h - prompt and masks to text: one pass and one decision a step, blocks kept as they settle.
 *
 * A decoder holds the tokens of one run, references to its finished blocks in the pool, and the open
 * block. Keys and values are kept only from a pass whose input was the final tokens; where the last pass of
 * a block changed something, one more is run, and only if a block follows. One thread; a cancelled
 * decoder can be closed at any time, its finished blocks stay in the pool.
 */
#ifndef RD_DECODE_DECODER_H
#define RD_DECODE_DECODER_H

#include "core/base/buf.h"
#include "core/decode/policy.h"
#include "core/model/kv_exchange.h"

/* Which text this folder and core/engine.c make of a request and a model. Raised with every change after which the same
 * request may get another answer: policies, drafts, prompts, lengths, confidence, what is cut off at the ends. Kept answers of
 * another number are not found again (lsp/answer.h); what the model computes has a number of its own (core/model/model.c). */
enum { RD_DECODING = 1 };

typedef struct rd_decoder rd_decoder;

typedef struct rd_decoder_options {
    rd_model *model;
    rd_kv_pool *pool; /* of the model's places and block size; NULL: nothing is kept, each pass runs
                          over all tokens (needed where blocks are not the model's own) */
    rd_kv_exchange *exchange; /* NULL: the pool alone */
    rd_kv_origin origin;      /* of the blocks; zero will do where the pool is one model's */
    int block;                /* 0: the model's */
    rd_policy policy;
    const int32_t *banned; /* sorted; what must never be written; the mask id is added */
    int n_banned;
    int32_t limit;       /* ids from here up are banned; 0: none */
    const int32_t *stop; /* end of text */
    int n_stop;
    bool early_stop; /* reference: eos_early_stop */
    const rd_cancel *cancel;
} rd_decoder_options;

/* Continue `prompt` by up to `gen` tokens. Copies the prompt. */
rd_status rd_decoder_open(const rd_decoder_options *o, const int32_t *prompt, int prompt_n, int gen,
                          rd_decoder **out, rd_error *err);
void rd_decoder_close(rd_decoder *d);

typedef struct rd_decoder_step {
    bool passed;            /* a pass over the open block was run */
    bool settled;           /* its block is over */
    bool done;              /* the run is over */
    int window_end;         /* tokens up to the open block's end */
    const rd_block *block;  /* after the step; borrowed, like all below */
    const rd_block *before; /* of the last pass: what it saw */
    const rd_pick *picks;   /* of the last pass */
    const rd_change *change;
    const rd_policy_state *state;
} rd_decoder_step;

rd_status rd_decoder_step_run(rd_decoder *d, rd_decoder_step *out, rd_error *err);
/* All tokens so far, prompt included; borrowed. */
const rd_ids *rd_decoder_tokens(const rd_decoder *d);
/* The generated tokens up to and with the first stop token, cut to `gen`: appended. */
void rd_decoder_output(const rd_decoder *d, rd_ids *out);
int rd_decoder_forwards(const rd_decoder *d);
int rd_decoder_prefilled(const rd_decoder *d); /* tokens computed before the first step */

/* ---- shared with the hole's decoder ---- */

/* Finished blocks of a run. */
typedef struct rd_sequence {
    rd_model *model;
    rd_kv_pool *pool;
    rd_kv_exchange *exchange; /* NULL: the pool alone */
    rd_kv_origin origin;
    rd_kv_block **blocks;
    int32_t *places;
    int n, cap;
    int prefilled; /* tokens computed by rd_sequence_extend */
} rd_sequence;

/* Append the whole blocks of `tokens` (a multiple of the block behind what is there): found in the pool
 * or computed in passes of many blocks. */
rd_status rd_sequence_extend(rd_sequence *s, const int32_t *tokens, int n, const rd_cancel *cancel,
                             rd_error *err);
/* The same, but the last blocks that must be computed, up to `rows` tokens of them (a multiple of the block), are
 * left to a pass that does more: *left tokens, for rd_sequence_pass. */
rd_status rd_sequence_extend_most(rd_sequence *s, const int32_t *tokens, int n, int rows, int *left,
                                  const rd_cancel *cancel, rd_error *err);
/* Run `pass`, whose first n rows (a multiple of the block) are the tokens of the next blocks: they are kept and
 * accepted. past and keep are set here. */
rd_status rd_sequence_pass(rd_sequence *s, int n, rd_pass *pass, rd_error *err);
/* A place for the block that would come next, to be handed to rd_sequence_accept or dropped. */
rd_status rd_sequence_offer(rd_sequence *s, const int32_t *tokens, rd_kv_block **out,
                            rd_error *err);
void rd_sequence_accept(rd_sequence *s, rd_kv_block *b);
void rd_sequence_clear(rd_sequence *s);

#endif
