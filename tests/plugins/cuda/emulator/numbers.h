/* numbers.h - conversions between number formats, bit for bit as the GPU's cvt, mul and fma do them.
 *
 * All round to nearest even. A NaN becomes the canonical one (0x7fff of 16 bits, 0x7f of E4M3), as cvt has it. E4M3 is the
 * "fn" kind: bias 7, no infinity, 0x7f and 0xff are NaN, the largest number 448.
 *
 * Source: PTX ISA 9.0, "cvt"; OCP 8-bit floating point (OFP8) 1.0.
 */
#ifndef RD_EMULATOR_NUMBERS_H
#define RD_EMULATOR_NUMBERS_H

#include "tests/plugins/cuda/emulator/words.h"

static inline uint16_t gpu_bf16(float x)
{
    uint32_t u = __float_as_uint(x);

    if ((u & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1)) >> 16);
}

static inline float gpu_from_bf16(uint16_t x)
{
    return __uint_as_float((uint32_t)x << 16);
}

/* `u` >> `by` (1 to 31), to nearest even. */
static inline uint32_t rd_emulated_shift_even(uint32_t u, int by)
{
    uint32_t kept = u >> by, rest = u & ((1u << by) - 1), half = 1u << (by - 1);

    return kept + (rest > half || (rest == half && (kept & 1)));
}

static inline uint16_t gpu_f16(float x)
{
    uint32_t u = __float_as_uint(x), a = u & 0x7fffffffu, sign = u >> 16 & 0x8000u;

    if (a > 0x7f800000u) return 0x7fff;
    if (a >= 0x47800000u) return (uint16_t)(sign | 0x7c00u); /* 65536 and above */
    if (a >= 0x38800000u) /* 2^-14 and above: normal; what rounds up past 65504 comes to 0x7c00 */
        return (uint16_t)(sign | rd_emulated_shift_even(a - 0x38000000u, 13));
    if (a < 0x33000000u) return (uint16_t)sign; /* below 2^-25 */
    return (uint16_t)(sign | rd_emulated_shift_even((a & 0x7fffffu) | 0x800000u,
                                                    126 - (int)(a >> 23)));
}

static inline float gpu_from_f16(uint16_t x)
{
    uint32_t sign = (uint32_t)(x & 0x8000u) << 16, a = x & 0x7fffu;

    if (a >= 0x7c00u) return __uint_as_float(a > 0x7c00u ? 0x7fffffffu : sign | 0x7f800000u);
    if (a >= 0x0400u) return __uint_as_float(sign | ((a << 13) + 0x38000000u));
    return __uint_as_float(sign | __float_as_uint((float)a * 0x1p-24f));
}

static inline uint8_t rd_emulated_to_e4m3(float x)
{
    uint32_t u = __float_as_uint(x), a = u & 0x7fffffffu, sign = u >> 24 & 0x80u, r;

    if (a > 0x7f800000u) return 0x7f;
    if (a >= 0x43e00000u) return (uint8_t)(sign | 0x7eu); /* 448 and above, infinity too */
    if (a >= 0x3c800000u) {                               /* 2^-6 and above: normal */
        r = rd_emulated_shift_even(a - 0x3c000000u, 20);
        return (uint8_t)(sign | (r > 0x7eu ? 0x7eu : r));
    }
    if (a < 0x3a800000u) return (uint8_t)sign; /* below 2^-10 */
    return (uint8_t)(sign | rd_emulated_shift_even((a & 0x7fffffu) | 0x800000u,
                                                   141 - (int)(a >> 23)));
}

static inline float rd_emulated_from_e4m3(uint8_t x)
{
    uint32_t sign = (uint32_t)(x & 0x80u) << 24, a = x & 0x7fu;

    if (a == 0x7fu) return __uint_as_float(0x7fffffffu);
    if (a >= 8) return __uint_as_float(sign | ((a << 20) + 0x3c000000u));
    return __uint_as_float(sign | __float_as_uint((float)a * 0x1p-9f));
}

/* A double to f16 with one rounding: to a float first with the last bit odd where digits were lost. */
static inline uint16_t rd_emulated_f16_of_double(double x)
{
    float f = (float)x;
    uint32_t u = __float_as_uint(f);

    if (x == x && (double)f != x && (u & 0x7fffffffu) < 0x7f800000u && !(u & 1))
        u += (fabs((double)f) < fabs(x)) ? 1u : (uint32_t)-1;
    return gpu_f16(__uint_as_float(u));
}

static inline uint32_t rd_emulated_pair(uint16_t low, uint16_t high)
{
    return (uint32_t)low | (uint32_t)high << 16;
}

static inline uint32_t gpu_bf16x2(float low, float high)
{
    return rd_emulated_pair(gpu_bf16(low), gpu_bf16(high));
}

static inline uint32_t gpu_f16x2(float low, float high)
{
    return rd_emulated_pair(gpu_f16(low), gpu_f16(high));
}

static inline uint32_t gpu_e4m3x2_to_f16x2(uint16_t x)
{
    return gpu_f16x2(rd_emulated_from_e4m3((uint8_t)x), rd_emulated_from_e4m3((uint8_t)(x >> 8)));
}

static inline uint16_t gpu_f32x2_to_e4m3x2(float low, float high)
{
    return (uint16_t)(rd_emulated_to_e4m3(low) | rd_emulated_to_e4m3(high) << 8);
}

/* A product of two halves is exact in float, and a sum with a third is in double wherever it may come near a tie. */
static inline uint16_t rd_emulated_mul_f16(uint16_t a, uint16_t b)
{
    return gpu_f16(gpu_from_f16(a) * gpu_from_f16(b));
}

static inline uint16_t rd_emulated_fma_f16(uint16_t a, uint16_t b, uint16_t c)
{
    return rd_emulated_f16_of_double((double)gpu_from_f16(a) * (double)gpu_from_f16(b) +
                                     (double)gpu_from_f16(c));
}

static inline uint32_t gpu_mul_f16x2(uint32_t a, uint32_t b)
{
    return rd_emulated_pair(rd_emulated_mul_f16((uint16_t)a, (uint16_t)b),
                            rd_emulated_mul_f16((uint16_t)(a >> 16), (uint16_t)(b >> 16)));
}

static inline uint32_t gpu_fma_f16x2(uint32_t a, uint32_t b, uint32_t c)
{
    return rd_emulated_pair(
        rd_emulated_fma_f16((uint16_t)a, (uint16_t)b, (uint16_t)c),
        rd_emulated_fma_f16((uint16_t)(a >> 16), (uint16_t)(b >> 16), (uint16_t)(c >> 16)));
}

/* Numbers too small for a normal float32 are zero, before and after. */
static inline float gpu_exp2(float x)
{
    float r = exp2f(x);

    return r < 0x1p-126f ? 0.0f : r;
}

#endif
