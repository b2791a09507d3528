/* ngram.c - the places of the text sorted by the tokens that stand there; a context is a range of them. */
#include "core/train/ngram.h"

#include "core/base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DEPTH = RD_NGRAM_MOST + 1 };

struct rd_ngram {
    uint16_t *ids; /* [n + DEPTH]: ends with a token that never occurs */
    uint32_t *at;  /* [n] sorted places */
    int64_t n;
    int vocab;
    int64_t kinds;   /* different tokens of the text */
    int64_t *kinds1; /* [vocab] different followers of a token */
};

static int compare_places(const void *x, const void *y, void *ids)
{
    const uint16_t *a = (const uint16_t *)ids + *(const uint32_t *)x;
    const uint16_t *b = (const uint16_t *)ids + *(const uint32_t *)y;

    for (int i = 1; i < DEPTH; i++)
        if (a[i] != b[i]) return a[i] < b[i] ? -1 : 1;
    return (a > b) - (a < b);
}

/* Different followers of the shortest contexts, counted once: they have the most, and each token asks for them. */
static void count_kinds(rd_ngram *g)
{
    g->kinds1 = rd_alloc_array((size_t)g->vocab, sizeof *g->kinds1);
    for (int64_t i = 0; i < g->n; i++) {
        const uint16_t *here = g->ids + g->at[i], *last = i ? g->ids + g->at[i - 1] : NULL;
        bool other = !last || last[0] != here[0];

        g->kinds += other;
        g->kinds1[here[0]] += other || last[1] != here[1];
    }
}

rd_status rd_ngram_open(const uint16_t *ids, int64_t n, int vocab, rd_ngram **out, rd_error *err)
{
    if (n < 1 || n > UINT32_MAX - DEPTH)
        return rd_fail(err, RD_INVALID, "an n-gram over %lld tokens", (long long)n);
    rd_ngram *g = rd_alloc0(sizeof *g);
    int64_t *start = rd_alloc_array((size_t)vocab + 2, sizeof *start);

    g->n = n;
    g->vocab = vocab;
    g->ids = rd_try_alloc(((size_t)n + DEPTH) * sizeof *g->ids);
    g->at = rd_try_alloc((size_t)n * sizeof *g->at);
    if (!g->ids || !g->at) {
        free(start);
        rd_ngram_close(g);
        return rd_fail(err, RD_NO_MEMORY, "an n-gram over %lld tokens", (long long)n);
    }
    memcpy(g->ids, ids, (size_t)n * sizeof *ids);
    for (int i = 0; i < DEPTH; i++) g->ids[n + i] = UINT16_MAX;
    for (int64_t i = 0; i < n; i++) start[ids[i] + 1]++;
    for (int v = 0; v < vocab; v++) start[v + 1] += start[v];
    int64_t *next = rd_alloc_array((size_t)vocab + 1, sizeof *next);

    memcpy(next, start, (size_t)vocab * sizeof *next);
    for (int64_t i = 0; i < n; i++) g->at[next[ids[i]]++] = (uint32_t)i;
    for (int v = 0; v < vocab; v++)
        qsort_r(g->at + start[v], (size_t)(start[v + 1] - start[v]), sizeof *g->at, compare_places,
                g->ids);
    free(start);
    free(next);
    count_kinds(g);
    *out = g;
    return RD_OK;
}

void rd_ngram_close(rd_ngram *g)
{
    if (!g) return;
    free(g->ids);
    free(g->at);
    free(g->kinds1);
    free(g);
}

/* In [low, high), whose places agree in the first `depth` tokens: the first whose next one is not below
 * `id`. */
static int64_t bound(const rd_ngram *g, int64_t low, int64_t high, int depth, uint32_t id)
{
    while (low < high) {
        int64_t mid = low + (high - low) / 2;

        if (g->ids[g->at[mid] + (uint32_t)depth] < id)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* Different tokens that follow in a range. */
static int64_t followers(const rd_ngram *g, int64_t low, int64_t high, int depth)
{
    int64_t n = 0;

    for (; low < high; n++)
        low = bound(g, low, high, depth, (uint32_t)g->ids[g->at[low] + (uint32_t)depth] + 1);
    return n;
}

/* The range of places that `len` tokens of context stand before; empty: they never did. */
static void range_of(const rd_ngram *g, const uint16_t *context, int len, int64_t *low,
                     int64_t *high)
{
    *low = 0;
    *high = g->n;
    for (int d = 0; d < len && *low < *high; d++) {
        *low = bound(g, *low, *high, d, context[d]);
        *high = bound(g, *low, *high, d, (uint32_t)context[d] + 1);
    }
}

/* p(next | context of `len` tokens), from the shortest context up. */
static double probability(const rd_ngram *g, const uint16_t *context, int len, uint16_t next)
{
    double p = 1.0 / g->vocab;

    for (int k = 0; k <= len; k++) {
        int64_t low, high;

        range_of(g, context + len - k, k, &low, &high);
        if (low >= high) break;
        int64_t from = bound(g, low, high, k, next),
                to = bound(g, from, high, k, (uint32_t)next + 1);
        double kinds = (double)(k == 0   ? g->kinds
                                : k == 1 ? g->kinds1[context[len - 1]]
                                         : followers(g, low, high, k));

        p = ((double)(to - from) + kinds * p) / ((double)(high - low) + kinds);
    }
    return p;
}

double rd_ngram_bits(const rd_ngram *g, const uint16_t *ids, int n)
{
    double bits = 0.0;

    for (int i = 0; i < n; i++) {
        int len = i < RD_NGRAM_MOST ? i : RD_NGRAM_MOST;

        bits -= log2(probability(g, ids + i - len, len, ids[i]));
    }
    return bits;
}

bool rd_ngram_next(const rd_ngram *g, const uint16_t *context, int n,
                   bool (*allowed)(void *user, uint16_t id), void *user, uint16_t *out)
{
    for (int k = n < RD_NGRAM_MOST ? n : RD_NGRAM_MOST; k >= 0; k--) {
        int64_t low, high, most = 0;

        range_of(g, context + n - k, k, &low, &high);
        while (low < high) {
            uint16_t id = g->ids[g->at[low] + (uint32_t)k];
            int64_t end = bound(g, low, high, k, (uint32_t)id + 1);

            if (id != UINT16_MAX && end - low > most && (!allowed || allowed(user, id))) {
                most = end - low;
                *out = id;
            }
            low = end;
        }
        if (most) return true;
    }
    return false;
}
