/* faults.h - one small fault put into a window of clean lines: to train on, and to see whether a rewrite takes it
 * out again.
 *
 * A token is a word, a number, an operator or any other character; strings and comments are not told apart.
 * A fault drops, doubles or swaps tokens, changes an operator for its counterpart, moves a whole number
 * by one, or puts another word of the same file in a word's place. Pure functions of a random state.
 */
#ifndef RD_TRAIN_FAULTS_H
#define RD_TRAIN_FAULTS_H

#include "core/base/buf.h"
#include "core/base/random.h"

#include <stdbool.h>
#include <stddef.h>

typedef enum rd_fault {
    RD_FAULT_DROP,
    RD_FAULT_DOUBLE,
    RD_FAULT_SWAP,
    RD_FAULT_OPERATOR,
    RD_FAULT_OFF_BY_ONE,
    RD_FAULT_NAME,
    RD_FAULTS
} rd_fault;

const char *rd_fault_name(rd_fault fault);
/* A window of a file; borrowed. */
typedef struct rd_fault_place {
    const char *text; /* the file */
    size_t bytes, start, end;
} rd_fault_place;

/* The text of the window with the fault, into `out`. False where it has no place for one. */
bool rd_fault_make(const rd_fault_place *p, rd_fault fault, rd_random *random, rd_buf *out);

#endif
