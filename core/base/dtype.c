/* dtype.c - conversions that are too long for a header. */
#include "core/base/dtype.h"

float rd_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t exponent = (h >> 10) & 0x1fu, mantissa = h & 0x3ffu, bits;
    float f;

    if (exponent == 31) {
        bits = sign | 0x7f800000u | (mantissa << 13);
    } else if (exponent) {
        bits = sign | ((exponent + 112) << 23) | (mantissa << 13);
    } else {
        f = (float)mantissa * 0x1p-24f;
        return sign ? -f : f;
    }
    memcpy(&f, &bits, 4);
    return f;
}

float rd_e4m3_to_f32(uint8_t x)
{
    uint32_t sign = (uint32_t)(x & 0x80u) << 24, exponent = (x >> 3) & 15u, mantissa = x & 7u, bits;
    float f;

    if (exponent == 0) {
        f = (float)mantissa * 0x1p-9f;
        return sign ? -f : f;
    }
    bits = sign | ((x & 0x7fu) == 0x7fu ? 0x7fc00000u : (exponent + 120) << 23 | mantissa << 20);
    memcpy(&f, &bits, 4);
    return f;
}

void rd_widen(float *out, const void *in, rd_dtype type, size_t n)
{
    const unsigned char *p = in;
    size_t size = rd_dtype_bytes(type);

    if (type == RD_F32) { /* `in` may lie anywhere */
        memcpy(out, in, n * sizeof *out);
        return;
    }
    for (size_t i = 0; i < n; i++, p += size) {
        uint16_t half;

        switch (type) {
        case RD_F32: break;
        case RD_F16:
            memcpy(&half, p, 2);
            out[i] = rd_f16_to_f32(half);
            break;
        case RD_BF16:
            memcpy(&half, p, 2);
            out[i] = rd_bf16_to_f32(half);
            break;
        case RD_I8: out[i] = (float)(int8_t)*p; break;
        case RD_U8: out[i] = (float)*p; break;
        case RD_F8_E4M3: out[i] = rd_e4m3_to_f32(*p); break;
        case RD_I32:
        case RD_I64: out[i] = 0; break; /* index types have no float meaning here */
        }
    }
}

const char *rd_dtype_name(rd_dtype t)
{
    static const char *const names[] = {
        "F32", "F16", "BF16", "I8", "U8", "I32", "I64", "F8_E4M3"
    };

    return names[t];
}
