/* criterion.h - as much of Criterion as our tests use, for the thread sanitizer.
 *
 * Criterion shares memory with its workers at an address that the sanitizer keeps for itself, so no test of it
 * can start. This header stands before Criterion's where RD_SANITIZE has `thread`: the tests are the same files,
 * each test a forked process, run one after the other by runner.c.
 */
#ifndef RD_TSAN_CRITERION_H
#define RD_TSAN_CRITERION_H

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct rd_shim_test {
    const char *suite, *name;
    void (*run)(void), (*init)(void), (*fini)(void);
    double timeout; /* seconds without the sanitizer; 0: not told */
    struct rd_shim_test *next;
} rd_shim_test;

void rd_shim_add(rd_shim_test *test);
/* What holds for all tests of `suite->suite` that say nothing else. */
void rd_shim_add_suite(rd_shim_test *suite);
/* Print what is wrong; `fatal` ends the test. */
void rd_shim_fail(bool fatal, const char *file, int line, const char *what, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
/* Print why and end the test; it counts as passed. */
void rd_shim_skip(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4), noreturn));
void rd_shim_log(const char *format, ...) __attribute__((format(printf, 1, 2)));

#define Test(group, title, ...)                                              \
    static void group##_##title(void);                                       \
    static rd_shim_test group##_##title##_test = {                           \
        .suite = #group, .name = #title, .run = group##_##title, __VA_ARGS__ \
    };                                                                       \
    __attribute__((constructor)) static void group##_##title##_add(void)     \
    {                                                                        \
        rd_shim_add(&group##_##title##_test);                                \
    }                                                                        \
    static void group##_##title(void)

#define TestSuite(group, ...)                                             \
    static rd_shim_test group##_suite = { .suite = #group, __VA_ARGS__ }; \
    __attribute__((constructor)) static void group##_suite_add(void)      \
    {                                                                     \
        rd_shim_add_suite(&group##_suite);                                \
    }                                                                     \
    struct rd_shim_test

#define RD_SHIM(fatal, what, holds, ...)                                              \
    do {                                                                              \
        if (!(holds)) rd_shim_fail(fatal, __FILE__, __LINE__, what, " " __VA_ARGS__); \
    } while (0)
#define RD_NEAR(a, b, by) (fabs((double)(a) - (double)(b)) <= (double)(by))

#define cr_skip(...)      rd_shim_skip(__FILE__, __LINE__, " " __VA_ARGS__)
#define cr_skip_test(...) cr_skip(__VA_ARGS__)
#define cr_log_info(...)  rd_shim_log(__VA_ARGS__)

#define cr_assert(x, ...)                 RD_SHIM(true, #x, x, __VA_ARGS__)
#define cr_assert_not(x, ...)             RD_SHIM(true, "not " #x, !(x), __VA_ARGS__)
#define cr_assert_eq(a, b, ...)           RD_SHIM(true, #a " == " #b, (a) == (b), __VA_ARGS__)
#define cr_assert_neq(a, b, ...)          RD_SHIM(true, #a " != " #b, (a) != (b), __VA_ARGS__)
#define cr_assert_lt(a, b, ...)           RD_SHIM(true, #a " < " #b, (a) < (b), __VA_ARGS__)
#define cr_assert_leq(a, b, ...)          RD_SHIM(true, #a " <= " #b, (a) <= (b), __VA_ARGS__)
#define cr_assert_gt(a, b, ...)           RD_SHIM(true, #a " > " #b, (a) > (b), __VA_ARGS__)
#define cr_assert_geq(a, b, ...)          RD_SHIM(true, #a " >= " #b, (a) >= (b), __VA_ARGS__)
#define cr_assert_null(a, ...)            RD_SHIM(true, #a " is NULL", !(a), __VA_ARGS__)
#define cr_assert_not_null(a, ...)        RD_SHIM(true, #a " is not NULL", (a), __VA_ARGS__)
#define cr_assert_str_eq(a, b, ...)       RD_SHIM(true, #a " == " #b, !strcmp(a, b), __VA_ARGS__)
#define cr_assert_arr_eq(a, b, n, ...)    RD_SHIM(true, #a " == " #b, !memcmp(a, b, n), __VA_ARGS__)
#define cr_assert_float_eq(a, b, by, ...) RD_SHIM(true, #a " = " #b, RD_NEAR(a, b, by), __VA_ARGS__)

#define cr_expect(x, ...)              RD_SHIM(false, #x, x, __VA_ARGS__)
#define cr_expect_not(x, ...)          RD_SHIM(false, "not " #x, !(x), __VA_ARGS__)
#define cr_expect_eq(a, b, ...)        RD_SHIM(false, #a " == " #b, (a) == (b), __VA_ARGS__)
#define cr_expect_neq(a, b, ...)       RD_SHIM(false, #a " != " #b, (a) != (b), __VA_ARGS__)
#define cr_expect_lt(a, b, ...)        RD_SHIM(false, #a " < " #b, (a) < (b), __VA_ARGS__)
#define cr_expect_leq(a, b, ...)       RD_SHIM(false, #a " <= " #b, (a) <= (b), __VA_ARGS__)
#define cr_expect_gt(a, b, ...)        RD_SHIM(false, #a " > " #b, (a) > (b), __VA_ARGS__)
#define cr_expect_geq(a, b, ...)       RD_SHIM(false, #a " >= " #b, (a) >= (b), __VA_ARGS__)
#define cr_expect_null(a, ...)         RD_SHIM(false, #a " is NULL", !(a), __VA_ARGS__)
#define cr_expect_not_null(a, ...)     RD_SHIM(false, #a " is not NULL", (a), __VA_ARGS__)
#define cr_expect_str_eq(a, b, ...)    RD_SHIM(false, #a " == " #b, !strcmp(a, b), __VA_ARGS__)
#define cr_expect_arr_eq(a, b, n, ...) RD_SHIM(false, #a " == " #b, !memcmp(a, b, n), __VA_ARGS__)
#define cr_expect_float_eq(a, b, by, ...) \
    RD_SHIM(false, #a " = " #b, RD_NEAR(a, b, by), __VA_ARGS__)

#endif
