/* expect.h - Criterion's comparison as a function, for tests in C++: as a macro in each place it takes compilers minutes. */
#ifndef RD_TEST_EXPECT_H
#define RD_TEST_EXPECT_H

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

static void expect_equal(long long got, long long expected, int line, const char *what)
{
    if (got == expected) return; /* some are asked a million times */
    cr_assert(eq(llong, got, expected), "line %d: %s", line, what);
}

static inline void expect_float(float got, float expected, int line, const char *what)
{
    cr_assert(eq(flt, got, expected), "line %d: %s", line, what);
}

static inline void expect_true(bool is, int line, const char *what)
{
    cr_assert(is, "line %d: %s", line, what);
}

#define IS(got, expected)       expect_equal((long long)(got), (long long)(expected), __LINE__, #got)
#define IS_FLOAT(got, expected) expect_float((got), (expected), __LINE__, #got)
#define TRUE(condition)         expect_true((condition), __LINE__, #condition)
#define OK(call)                IS(call, cudaSuccess)

#endif
