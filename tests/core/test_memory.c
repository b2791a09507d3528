/* test_memory.c - how much may still be taken. */
#include "core/base/memory.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

Test(memory, what_is_free_is_cut_to_the_process_limit)
{
    size_t before = rd_memory_free();
    unsigned long long pages;
    FILE *f = fopen("/proc/self/statm", "r");
    struct rlimit limit;

    cr_assert(f && fscanf(f, "%llu", &pages) == 1);
    fclose(f);
    getrlimit(RLIMIT_AS, &limit);
    limit.rlim_cur = pages * (unsigned long long)sysconf(_SC_PAGESIZE) + (256u << 20);
    cr_assert(!setrlimit(RLIMIT_AS, &limit));
    size_t after = rd_memory_free();

    cr_assert_gt(before, 0);
    cr_assert_leq(after, 256u << 20);
    cr_assert_gt(after, 200u << 20);
}
