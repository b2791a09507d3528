/* parameterized.h - tests with parameters: one process for all of a table, which ends at the first case that fails. */
#ifndef RD_TSAN_PARAMETERIZED_H
#define RD_TSAN_PARAMETERIZED_H

#include "criterion.h"

typedef struct rd_shim_params {
    size_t size, count;
    const void *at;
} rd_shim_params;

#define cr_make_param_array(type, array, n, ...) \
    ((rd_shim_params){ .size = sizeof(type), .count = (n), .at = (array) })

#define ParameterizedTestParameters(group, title) \
    static rd_shim_params group##_##title##_params(void)

#define ParameterizedTest(parameter, group, title, ...)                       \
    static void group##_##title##_one(parameter);                             \
    Test(group, title, __VA_ARGS__)                                           \
    {                                                                         \
        rd_shim_params p = group##_##title##_params();                        \
        for (size_t i = 0; i < p.count; i++)                                  \
            group##_##title##_one((void *)((const char *)p.at + i * p.size)); \
    }                                                                         \
    static void group##_##title##_one(parameter)

#endif
