/* packed.h - weights laid out on disk in the order that kernels read them: mapped and used as they are.
 *
 * A weight W [rows, cols] stands in panels of 16 output rows; rows and cols are padded, with numbers that stand for zero,
 * to multiples of 16 and of 128. Whatever the instruction set, one layout serves: a vector of 64 bytes holds 4
 * neighbouring columns of each of the 16 rows, the operand of a dot product of four bytes. Two schemes:
 *
 * RD_PACK_INT8: W ~ q * s, q in -127..127, one scale a row. Panel: [cols / 4][16 rows][4 cols] of one byte, q + 128.
 * RD_PACK_INT4: W ~ q * g * s, q in -8..7, g in 0..255 for each 32 columns of a row, s a scale for the row. Panel: one cell
 * of 1088 bytes for each 128 columns: [4 groups of 32 columns][4 vectors of 64 bytes], then the groups' g, [4][16 rows]. Byte
 * (row, j) of vector v holds q + 8 of column 4v + j of the group in its low half, of column 16 + 4v + j in its high half.
 * That is 4.25 bits a number.
 *
 * In a file, W becomes W.q (U8, [panels, bytes of a panel]) and W.s (F32, [16 * panels], padding 0). The metadata names
 * scheme and version: "redraft_quant" = "int8-panel" or "int4-panel", "redraft_quant_version" = "1". Tensors begin at
 * multiples of 64 bytes; the weights of an expert (gate, up, down) stand together. Nothing read is trusted: shapes are checked,
 * scales must be finite and not negative; every byte of q and g means something, so that these need no look.
 */
#ifndef RD_FORMAT_PACKED_H
#define RD_FORMAT_PACKED_H

#include "core/base/pack.h"
#include "core/base/status.h"

#include <stdbool.h>

#define RD_PACKED_VERSION "1"

/* "int8-panel", "int4-panel"; RD_PACK_NONE for another name, and NULL for RD_PACK_NONE. */
rd_pack rd_pack_named(const char *name);
const char *rd_pack_name(rd_pack p);

/* How the matrix `name` is packed in a file of this scheme: RD_PACK_NONE for a router, which stays float32. Embedding and
 * head are int8 whatever the scheme, and so is what every row of a pass goes through: attention, shared experts, the dense
 * layers before experts begin. Those are few bytes of a large model and most of the harm that int4 does to a small one. */
rd_pack rd_pack_of(rd_pack scheme, bool has_experts, const char *name);

/* Up to 16 rows of float32, `rows` of them [rows][cols], into one panel and its 16 scales. NaN or infinity: RD_INVALID, and
 * the row in *err's text. `panel`: rd_pack_panel_bytes. int4: g is chosen from the group's largest number, then q for the g that
 * stands there, so that rounding g costs nothing but range. */
rd_status rd_pack_panel(rd_pack p, const float *w, int rows, int cols, void *panel, float *scales,
                        rd_error *err);

#endif
