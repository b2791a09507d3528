/* bpe.h - make a byte-level BPE from texts, and encode with it fast.
 *
 * Pieces never merge across: a newline with its indent is one piece, one leading space or underscore
 * joins a word, digits stand alone, bytes from 0x80 up count as letters. The same cut is written into
 * tokenizer.json as a regular expression. Ids: the reserved control tokens first, then 256 bytes, then
 * merges in order. Training and encoding are deterministic. One thread at a time.
 */
#ifndef RD_TRAIN_BPE_H
#define RD_TRAIN_BPE_H

#include "core/base/buf.h"
#include "core/base/status.h"

#include <stddef.h>
#include <stdint.h>

enum { RD_BPE_RESERVED = 64 };

/* The content of reserved id i: "<|endoftext|>", "<|pad|>", "<|mask|>", ... */
void rd_bpe_reserved(int i, char out[32]);

typedef struct rd_bpe rd_bpe;

rd_bpe *rd_bpe_new(void);
void rd_bpe_free(rd_bpe *b);

/* Count the pieces of one text, `times` over. */
void rd_bpe_count(rd_bpe *b, const char *text, size_t n, int times);
/* Merge until the vocabulary has `vocab` ids, or no pair occurs twice. Merges that were set or read before
 * the counting come first and keep their ids. Returns the size reached. */
int rd_bpe_train(rd_bpe *b, int vocab);
/* Append the ids of a text; reserved ids are never made. */
void rd_bpe_encode(rd_bpe *b, const char *text, size_t n, rd_ids *out);
/* The bytes of an id (reserved ones have none). */
const char *rd_bpe_bytes(const rd_bpe *b, int32_t id, size_t *n);
int rd_bpe_size(const rd_bpe *b);
/* Length of the piece at the start of `text` (n > 0). */
size_t rd_bpe_piece(const char *text, size_t n);

/* DIR/tokenizer.json and DIR/tokenizer_config.json. */
rd_status rd_bpe_write(const rd_bpe *b, const char *dir, rd_error *err);
/* The merges of DIR/tokenizer.json as rd_bpe_write wrote it. */
rd_status rd_bpe_read(rd_bpe *b, const char *dir, rd_error *err);
/* Set the merges from a list of pairs of ids, as rd_bpe_train found them (`n` pairs). */
rd_status rd_bpe_set(rd_bpe *b, const int32_t (*pairs)[2], int n, rd_error *err);
int rd_bpe_merges(const rd_bpe *b, const int32_t (**pairs)[2]);

#endif
