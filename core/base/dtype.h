/* dtype.h - the element types that files, views and backends share, and their conversions. */
#ifndef RD_BASE_DTYPE_H
#define RD_BASE_DTYPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* F8_E4M3: sign, 4 bits of exponent (bias 7), 3 of mantissa; no infinity, 0x7f and 0xff are NaN (OCP OFP8 1.0, "E4M3"). */
typedef enum rd_dtype {
    RD_F32,
    RD_F16,
    RD_BF16,
    RD_I8,
    RD_U8,
    RD_I32,
    RD_I64,
    RD_F8_E4M3
} rd_dtype;

static inline size_t rd_dtype_bytes(rd_dtype t)
{
    static const uint8_t bytes[] = { 4, 2, 2, 1, 1, 4, 8, 1 };

    return bytes[t];
}

static inline float rd_bf16_to_f32(uint16_t h)
{
    uint32_t bits = (uint32_t)h << 16;
    float f;

    memcpy(&f, &bits, 4);
    return f;
}

/* Round to nearest even; NaN stays NaN. */
static inline uint16_t rd_f32_to_bf16(float f)
{
    uint32_t bits;

    memcpy(&bits, &f, 4);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((bits >> 16) | 0x40);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

float rd_f16_to_f32(uint16_t h);
float rd_e4m3_to_f32(uint8_t x);

/* Widen `n` elements of `type` (F32, F16, BF16, I8, U8, F8_E4M3) at `in` to floats. */
void rd_widen(float *out, const void *in, rd_dtype type, size_t n);

const char *rd_dtype_name(rd_dtype t); /* the safetensors name: "F32", "BF16", ... */

#endif
