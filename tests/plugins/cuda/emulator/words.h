/* words.h - CUDA's words for the host's compiler: qualifiers, built-in variables, vector types, intrinsics of one thread.
 *
 * A __shared__ array is a plain static one, for one block runs at a time in the process; all of them lie in the section
 * rd_shared, which is poisoned before each block.
 *
 * Source: CUDA C++ Programming Guide 13.0, "C++ Language Extensions".
 */
#ifndef RD_EMULATOR_WORDS_H
#define RD_EMULATOR_WORDS_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <type_traits>

#define RD_EMULATED_LOCAL __attribute__((visibility("hidden")))

#define __global__
#define __device__
#define __host__
#define __constant__
#define __shared__ static __attribute__((section("rd_shared")))
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

/* ---- vector types ---- */

#define RD_EMULATED_VECTOR2(name, type)     \
    struct alignas(2 * sizeof(type)) name { \
        type x, y;                          \
    };                                      \
    static inline name make_##name(type x, type y) { return name{x, y}; }
#define RD_EMULATED_VECTOR4(name, type)     \
    struct alignas(sizeof(type) < 8 ? 4 * sizeof(type) : 16) name { \
        type x, y, z, w;                    \
    };                                      \
    static inline name make_##name(type x, type y, type z, type w) { return name{x, y, z, w}; }

RD_EMULATED_VECTOR2(uchar2, unsigned char)
RD_EMULATED_VECTOR2(short2, short)
RD_EMULATED_VECTOR2(ushort2, unsigned short)
RD_EMULATED_VECTOR2(int2, int)
RD_EMULATED_VECTOR2(uint2, unsigned int)
RD_EMULATED_VECTOR2(float2, float)
RD_EMULATED_VECTOR2(double2, double)
RD_EMULATED_VECTOR2(ulonglong2, unsigned long long)
RD_EMULATED_VECTOR4(uchar4, unsigned char)
RD_EMULATED_VECTOR4(char4, signed char)
RD_EMULATED_VECTOR4(ushort4, unsigned short)
RD_EMULATED_VECTOR4(int4, int)
RD_EMULATED_VECTOR4(uint4, unsigned int)
RD_EMULATED_VECTOR4(float4, float)

struct uint3 {
    unsigned int x, y, z;
};

struct dim3 {
    unsigned int x, y, z;
    constexpr dim3(unsigned int a = 1, unsigned int b = 1, unsigned int c = 1) : x(a), y(b), z(c) {}
};

/* ---- bits ---- */

template <class To, class From> static inline To rd_emulated_bits(From from)
{
    To to;

    static_assert(sizeof(To) == sizeof(From), "same size");
    memcpy(&to, &from, sizeof to);
    return to;
}

static inline unsigned __float_as_uint(float x) { return rd_emulated_bits<unsigned>(x); }
static inline int __float_as_int(float x) { return rd_emulated_bits<int>(x); }
static inline float __uint_as_float(unsigned x) { return rd_emulated_bits<float>(x); }
static inline float __int_as_float(int x) { return rd_emulated_bits<float>(x); }

static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }

/* Bytes of y:x picked by the low three bits of each nibble of s; bit 3 of a nibble spreads the sign. */
static inline unsigned __byte_perm(unsigned x, unsigned y, unsigned s)
{
    uint64_t both = (uint64_t)y << 32 | x;
    unsigned r = 0;

    for (int i = 0; i < 4; i++) {
        unsigned nibble = s >> 4 * i & 15, byte = (unsigned)(both >> 8 * (nibble & 7)) & 255;

        if (nibble & 8) byte = byte & 128 ? 255 : 0;
        r |= byte << 8 * i;
    }
    return r;
}

/* ---- arithmetic ---- */

template <class A, class B> static inline std::common_type_t<A, B> min(A a, B b)
{
    using T = std::common_type_t<A, B>;
    static_assert(std::is_integral<T>::value, "fminf is for floats");
    return (T)a < (T)b ? (T)a : (T)b;
}

template <class A, class B> static inline std::common_type_t<A, B> max(A a, B b)
{
    using T = std::common_type_t<A, B>;
    static_assert(std::is_integral<T>::value, "fmaxf is for floats");
    return (T)a > (T)b ? (T)a : (T)b;
}

static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }

/* ---- memory ---- */

template <class T> static inline T __ldg(const T *from) { return *from; }

static inline void __threadfence(void) {}
static inline void __threadfence_block(void) {}

/* Threads are never interrupted, so plain operations are atomic. */
template <class T> struct rd_emulated_same {
    using type = T;
};
template <class T> using rd_emulated_same_t = typename rd_emulated_same<T>::type;

template <class T> static inline T atomicExch(T *at, rd_emulated_same_t<T> x)
{
    T old = *at;

    *at = x;
    return old;
}

template <class T> static inline T atomicAdd(T *at, rd_emulated_same_t<T> x)
{
    static_assert(std::is_same<T, int>::value || std::is_same<T, unsigned>::value ||
                      std::is_same<T, float>::value || std::is_same<T, double>::value ||
                      std::is_same<T, unsigned long long>::value,
                  "atomicAdd is for int, unsigned, unsigned long long, float and double");
    T old = *at;

    if constexpr (std::is_same<T, int>::value) *at = (int)((unsigned)old + (unsigned)x);
    else *at = old + x;
    return old;
}

template <class T> static inline T atomicMax(T *at, rd_emulated_same_t<T> x)
{
    static_assert(std::is_integral<T>::value && sizeof(T) >= 4, "atomicMax is for integers");
    T old = *at;

    if (x > old) *at = x;
    return old;
}

template <class T> static inline T atomicMin(T *at, rd_emulated_same_t<T> x)
{
    static_assert(std::is_integral<T>::value && sizeof(T) >= 4, "atomicMin is for integers");
    T old = *at;

    if (x < old) *at = x;
    return old;
}

template <class T> static inline T atomicOr(T *at, rd_emulated_same_t<T> x)
{
    T old = *at;

    *at = old | x;
    return old;
}

template <class T>
static inline T atomicCAS(T *at, rd_emulated_same_t<T> expected, rd_emulated_same_t<T> x)
{
    static_assert(std::is_integral<T>::value && sizeof(T) >= 4, "atomicCAS is for integers");
    T old = *at;

    if (old == expected) *at = x;
    return old;
}

#endif
