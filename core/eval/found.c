/* found.c - where a fault is, and whether the least probable tokens meet it. */
#include "core/eval/found.h"

#include <stdlib.h>

void rd_fault_range(const char *clean, size_t n, const char *faulty, size_t m, size_t *start,
                    size_t *end)
{
    size_t least = n < m ? n : m, head = 0, tail = 0;

    while (head < least && clean[head] == faulty[head]) head++;
    while (tail < least - head && clean[n - 1 - tail] == faulty[m - 1 - tail]) tail++;
    *start = head < m ? head : m > 0 ? m - 1 : 0;
    *end = m - tail > *start ? m - tail : *start + 1;
}

static bool meets(const rd_fault_token *t, size_t start, size_t end)
{
    return t->start < end && start < t->end;
}

static int least_probable_first(const void *x, const void *y)
{
    const rd_fault_token *a = x, *b = y;

    return (a->p > b->p) - (a->p < b->p);
}

bool rd_fault_found(rd_fault_token *list, int n, size_t start, size_t end)
{
    bool found = false;

    qsort(list, (size_t)n, sizeof *list, least_probable_first);
    for (int i = 0; i < n && i < RD_FAULT_LOOKS; i++) found = found || meets(&list[i], start, end);
    return found;
}

double rd_fault_chance(const rd_fault_token *list, int n, size_t start, size_t end)
{
    int others = 0;
    double miss = 1.0;

    for (int i = 0; i < n; i++) others += !meets(&list[i], start, end);
    if (others == n) return 0.0;
    for (int i = 0; i < n && i < RD_FAULT_LOOKS; i++)
        miss *= others > i ? (double)(others - i) / (n - i) : 0.0;
    return 1.0 - miss;
}
