/* checkpoint.h - what a stopped run needs to go on, as one file: DIR/checkpoint.safetensors.
 *
 * Arrays are tensors; the state and the terms of the run are text in the file's metadata, beside a
 * format number and a digest of everything. The file is written beside the last one and put in its
 * place by a rename, so that a kill or a full disk leaves the last one. One thread at a time.
 */
#ifndef RD_TRAIN_CHECKPOINT_H
#define RD_TRAIN_CHECKPOINT_H

#include "core/base/random.h"
#include "core/base/status.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct rd_kept_array {
    const char *name;
    float *data; /* borrowed */
    size_t n;
} rd_kept_array;

/* What must be the same where a run goes on: "seed", "1"; or is told alone, for it may change. */
typedef struct rd_kept_term {
    const char *name;
    char value[224];
    bool may_change;
} rd_kept_term;

typedef struct rd_checkpoint {
    const rd_kept_array *array;
    int arrays;
    const rd_kept_term *term;
    int terms;
    rd_random random;
    int64_t steps;
    int64_t averaged; /* steps in the mean of weights; 0: none */
    double elapsed_s;
} rd_checkpoint;

/* RD_IO where it cannot be written; then the file that was there still is. */
rd_status rd_checkpoint_write(const char *dir, const rd_checkpoint *c, rd_error *err);
/* Fill the arrays and the state. RD_NOT_FOUND where there is no file; RD_INVALID, and nothing
 * changed, where it is torn, of another format, or of a run on other terms. */
rd_status rd_checkpoint_read(const char *dir, rd_checkpoint *c, rd_error *err);
/* Remove the unfinished files of processes that are gone. */
void rd_checkpoint_sweep(const char *dir);

#endif
