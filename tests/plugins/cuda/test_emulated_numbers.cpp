/* test_emulated_numbers.cpp - number formats of the emulated GPU, each against a slow definition in double: all values of 8 and
 * 16 bits, and floats next to every one of them and to the midpoints between.
 */
#include "plugins/cuda/gpu.cuh"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <vector>

/* sign, `exponent` bits, `mantissa` bits; E4M3 has no infinity and one NaN. */
struct format {
    int exponent, mantissa;
    bool finite;
};
static const format bf16 = { 8, 7, false }, f16 = { 5, 10, false }, e4m3 = { 4, 3, true };

static double value_of(const format *f, unsigned bits)
{
    int bias = (1 << (f->exponent - 1)) - 1, top = (1 << f->exponent) - 1;
    int e = (int)(bits >> f->mantissa) & top, m = (int)bits & ((1 << f->mantissa) - 1);
    double sign = bits >> (f->exponent + f->mantissa) & 1 ? -1 : 1;

    if (f->finite && e == top && m == (1 << f->mantissa) - 1) return NAN;
    if (!f->finite && e == top) return m ? NAN : sign * INFINITY;
    return e ? sign * ldexp((1 << f->mantissa) + m, e - bias - f->mantissa)
             : sign * ldexp(m, 1 - bias - f->mantissa);
}

/* The nearest of all, ties to the even one; beyond the largest infinity stands where one more step would. */
static unsigned nearest(const format *f, double x)
{
    unsigned sign = signbit(x) ? 1u << (f->exponent + f->mantissa) : 0, low = 0, high;
    unsigned top = f->finite ? (1u << (f->exponent + f->mantissa)) - 2
                             : ((1u << f->exponent) - 1) << f->mantissa;
    double a = fabs(x), below, above;

    if (isnan(x)) return f->finite ? 0x7f : 0x7fff;
    if (f->finite && a >= value_of(f, top)) return sign | top;
    high = top;
    while (high - low > 1) { /* value(low) <= a < value(high) */
        unsigned middle = (low + high) / 2;

        if (value_of(f, middle) <= a) low = middle;
        else high = middle;
    }
    if (isinf(a)) return sign | top;
    below = value_of(f, low);
    above = high == top && !f->finite
                ? 2 * ldexp(1, (1 << (f->exponent - 1)) - 1) /* the power of two behind the largest */
                : value_of(f, high);
    if (a - below < above - a) return sign | low;
    if (a - below > above - a) return sign | high;
    return sign | (low % 2 ? high : low);
}

/* Every number of the format, and floats on and beside the midpoints. */
static std::vector<float> floats(const format *f)
{
    std::vector<float> all = { 0.0f, -0.0f, INFINITY, -INFINITY, NAN, 1e38f, -3e38f, 1e-45f, 3e-41f };
    unsigned n = 1u << (f->exponent + f->mantissa);

    for (unsigned i = 0; i + 1 < n; i++) {
        double a = value_of(f, i), b = value_of(f, i + 1);
        float points[2] = { (float)a, (float)((a + b) / 2) };

        for (float p : points) {
            if (!isfinite(p)) continue;
            for (float q : { p, nextafterf(p, INFINITY), nextafterf(p, -INFINITY) }) {
                all.push_back(q);
                all.push_back(-q);
            }
        }
    }
    return all;
}

static bool same(double a, double b)
{
    return (isnan(a) && isnan(b)) || (a == b && signbit(a) == signbit(b));
}

Test(emulated_numbers, all_16_bit_numbers_are_read)
{
    for (unsigned i = 0; i < 65536; i++) {
        cr_assert(same(gpu_from_bf16((uint16_t)i), value_of(&bf16, i)), "bf16 %04x", i);
        cr_assert(same(gpu_from_f16((uint16_t)i), value_of(&f16, i)), "f16 %04x", i);
    }
}

Test(emulated_numbers, all_e4m3_are_exact_halves)
{
    for (unsigned i = 0; i < 65536; i++) {
        uint32_t r = gpu_e4m3x2_to_f16x2((uint16_t)i);

        cr_assert(same(gpu_from_f16((uint16_t)r), value_of(&e4m3, i & 255)), "%04x", i);
        cr_assert(same(gpu_from_f16((uint16_t)(r >> 16)), value_of(&e4m3, i >> 8)), "%04x", i);
    }
}

Test(emulated_numbers, floats_become_the_nearest_bf16)
{
    for (float x : floats(&bf16))
        cr_assert(eq(uint, gpu_bf16(x), nearest(&bf16, x)), "%a", (double)x);
}

Test(emulated_numbers, floats_become_the_nearest_f16)
{
    for (float x : floats(&f16))
        cr_assert(eq(uint, gpu_f16(x), nearest(&f16, x)), "%a", (double)x);
}

Test(emulated_numbers, floats_become_the_nearest_e4m3_and_never_infinite)
{
    for (float x : floats(&e4m3)) {
        uint16_t r = gpu_f32x2_to_e4m3x2(x, -1.0f);

        cr_assert(eq(uint, r, nearest(&e4m3, x) | 0xb800u), "%a", (double)x);
    }
}

Test(emulated_numbers, pairs_have_the_first_in_the_low_half)
{
    cr_assert(eq(uint, gpu_bf16x2(1.0f, -2.0f), 0xc0003f80u));
    cr_assert(eq(uint, gpu_f16x2(1.0f, -2.0f), 0xc0003c00u));
    cr_assert(eq(uint, gpu_mul_f16x2(0x40003c00u, 0x40003c00u), 0x44003c00u));
    cr_assert(eq(uint, gpu_fma_f16x2(0x40003c00u, 0x40003c00u, 0x3c003c00u), 0x45004000u));
}

/* long double has 64 bits of mantissa: enough for a product of two halves and a third of any size that counts. */
static unsigned nearest_long(long double x)
{
    double d = (double)x;

    if ((long double)d != x && isfinite(d)) { /* keep what the double lost as an odd last bit */
        uint64_t u;

        memcpy(&u, &d, 8);
        if (!(u & 1)) {
            u += (fabsl(d) < fabsl(x)) ? 1 : (uint64_t)-1;
            memcpy(&d, &u, 8);
        }
    }
    return nearest(&f16, d);
}

Test(emulated_numbers, halves_multiply_and_add_with_one_rounding)
{
    uint32_t lot = 1;

    for (int i = 0; i < 1000000; i++) {
        uint16_t v[3];
        long double x[3];

        for (int j = 0; j < 3; j++) {
            lot = lot * 1664525u + 1013904223u;
            v[j] = (uint16_t)(lot >> 16);
            /* Often near a tie: few bits, or a third far smaller than the product. */
            if (i % 2) v[j] &= 0xfe1f;
            x[j] = value_of(&f16, v[j]);
        }
        if (isnan(x[0]) || isnan(x[1]) || isnan(x[2]) || isinf(x[0]) || isinf(x[1]) || isinf(x[2]))
            continue;
        long double sum = x[0] * x[1] + x[2];
        unsigned r = gpu_fma_f16x2(v[0], v[1], v[2]) & 0xffff;

        if (sum == 0) cr_assert(eq(uint, r & 0x7fff, 0));
        else cr_assert(eq(uint, r, nearest_long(sum)), "%04x * %04x + %04x", v[0], v[1], v[2]);
        cr_assert(eq(uint, gpu_mul_f16x2(v[0], v[1]) & 0xffff, nearest_long(x[0] * x[1])));
    }
}

Test(emulated_numbers, powers_of_two_flush_what_is_not_normal)
{
    cr_assert(eq(flt, gpu_exp2(3.0f), 8.0f));
    cr_assert(eq(flt, gpu_exp2(-126.0f), 0x1p-126f));
    cr_assert(eq(flt, gpu_exp2(-126.5f), 0.0f));
    cr_assert(eq(flt, gpu_exp2(-INFINITY), 0.0f));
    cr_assert(isnan(gpu_exp2(NAN)));
    cr_assert(epsilon_eq(flt, gpu_exp(1.0f), 2.7182818f, 1e-6f));
}

Test(emulated_numbers, bytes_are_picked_by_nibbles)
{
    cr_assert(eq(uint, __byte_perm(0x33221100u, 0x77665584u, 0x7531u), 0x77553311u));
    cr_assert(eq(uint, __byte_perm(0x33221100u, 0x77665584u, 0x4c40u), 0x84ff8400u));
}
