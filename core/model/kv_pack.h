/* kv_pack.h - a block's numbers as they are stored: as they are, as bf16, or as int8 with a scale for each piece.
 *
 * A piece is the keys or the values of one head in one layer. What is unpacked comes from a file that anybody may have
 * written: every number is checked to be finite and no larger than RD_KV_LARGEST, so that attention over it stays finite.
 * Any thread.
 */
#ifndef RD_MODEL_KV_PACK_H
#define RD_MODEL_KV_PACK_H

#include "core/model/kv_store.h"

#define RD_KV_LARGEST 65504.0f

/* The values stand in files. */
typedef enum rd_kv_format { RD_KV_RAW = 1, RD_KV_BF16 = 2, RD_KV_INT8 = 3 } rd_kv_format;

/* Bytes of a packed block. 0: this geometry has no such format (bf16 and int8 are made of float32 only). */
size_t rd_kv_packed_bytes(rd_kv_format f, const rd_kv_geometry *g);
/* `to`: rd_kv_packed_bytes. False: a number is not finite or too large; such a block is not stored. */
bool rd_kv_pack(rd_kv_format f, const rd_kv_geometry *g, const void *from, void *to);

/* Where packed bytes come from, in order. False: there are no more. */
typedef bool (*rd_kv_reader)(void *user, void *to, size_t n);
/* Into `to`, all of the block, reading straight into it where the format is raw. False: the reader ended, or a number is
 * not finite or too large. */
bool rd_kv_unpack(rd_kv_format f, const rd_kv_geometry *g, rd_kv_reader read, void *user, void *to);

#endif
