/* kv_worth.h - is a block faster loaded than computed? What both cost lately decides.
 *
 * A pure value: no clock and no files, so that a test can play any machine. Costs are a block's, in milliseconds.
 */
#ifndef RD_MODEL_KV_WORTH_H
#define RD_MODEL_KV_WORTH_H

/* All zero: nothing is known, and loading is tried. */
typedef struct rd_kv_worth {
    double compute_ms, load_ms; /* 0: not measured yet */
    int declined;               /* times in a row */
    double saved_ms;
} rd_kv_worth;

/* How many of `n` blocks that could be loaded should be: all, none, or one to see whether loading has become faster. */
int rd_kv_worth_loading(rd_kv_worth *w, int n);
void rd_kv_worth_computed(rd_kv_worth *w, int blocks, double ms);
void rd_kv_worth_loaded(rd_kv_worth *w, int blocks, double ms);

#endif
