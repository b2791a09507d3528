/* clock.h - monotonic time for budgets, progress lines and benchmarks. */
#ifndef RD_BASE_CLOCK_H
#define RD_BASE_CLOCK_H

#include <time.h>

static inline double rd_now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

#endif
