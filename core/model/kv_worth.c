/* kv_worth.c - two running means, and a second look now and then. */
#include "core/model/kv_worth.h"

enum { LOOK_AGAIN = 32, MEMORY = 64 }; /* MEMORY: blocks that the means look back on */

int rd_kv_worth_loading(rd_kv_worth *w, int n)
{
    if (n <= 0) return 0;
    if (w->compute_ms <= 0 || w->load_ms <= 0 || w->load_ms < w->compute_ms) {
        w->declined = 0;
        return n;
    }
    if (++w->declined % LOOK_AGAIN) return 0;
    return 1;
}

static void remember(double *mean, int blocks, double ms)
{
    double each = ms / blocks, weight = blocks < MEMORY ? (double)blocks / MEMORY : 1.0;

    /* The first measure stands alone. */
    *mean = *mean > 0 ? *mean + weight * (each - *mean) : each;
}

void rd_kv_worth_computed(rd_kv_worth *w, int blocks, double ms)
{
    if (blocks > 0 && ms > 0) remember(&w->compute_ms, blocks, ms);
}

void rd_kv_worth_loaded(rd_kv_worth *w, int blocks, double ms)
{
    if (blocks <= 0 || ms <= 0) return;
    remember(&w->load_ms, blocks, ms);
    if (w->compute_ms > 0) w->saved_ms += blocks * w->compute_ms - ms;
}
