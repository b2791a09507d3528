/* cancel.h - one atomic flag: set by anybody, read between steps and between layers. */
#ifndef RD_BASE_CANCEL_H
#define RD_BASE_CANCEL_H

#include <stdatomic.h>
#include <stdbool.h>

typedef struct rd_cancel {
    atomic_bool flag;
} rd_cancel;

static inline void rd_cancel_set(rd_cancel *c)
{
    atomic_store_explicit(&c->flag, true, memory_order_relaxed);
}

/* NULL is never cancelled. */
static inline bool rd_cancelled(const rd_cancel *c)
{
    return c && atomic_load_explicit(&((rd_cancel *)c)->flag, memory_order_relaxed);
}

#endif
