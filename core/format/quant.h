/* quant.h - the packed weight formats: int8 with one scale a row.
 *
 * A weight W [rows, cols] becomes W.q (I8, same shape) and W.s (F32, [rows]): W ~ q * s, with s =
 * max|W row| / 127, symmetric, round to nearest even. File metadata: "redraft_quant" = "int8-row",
 * "redraft_quant_version" = "1". Norms and router stay as they were.
 */
#ifndef RD_FORMAT_QUANT_H
#define RD_FORMAT_QUANT_H

#include "core/base/status.h"

#include <stddef.h>
#include <stdint.h>

#define RD_QUANT_INT8_ROW "int8-row"

/* One row. A row of zeros gets scale 0. NaN or infinity in the row: RD_INVALID. */
rd_status rd_quant_int8_row(int8_t *q, float *scale, const float *row, size_t cols, rd_error *err);

/* Read the model folder IN (any float type) and write OUT, a folder, quantised; config, tokenizer
 * and generation settings are copied. */
rd_status rd_quantize_model(const char *in, const char *out, const char *scheme, rd_error *err);

#endif
