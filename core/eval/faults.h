/* faults.h - one small fault put into a window of clean lines, to see whether a rewrite takes it out again.
 *
 * A token is a word, a number, an operator or any other character; strings and comments are not told apart.
 * A fault drops, doubles or swaps tokens, changes an operator for its counterpart, moves a whole number
 * by one, or puts another word of the same file in a word's place. Pure functions of a random state.
 */
#ifndef RD_EVAL_FAULTS_H
#define RD_EVAL_FAULTS_H

#include "core/eval/cases.h"

typedef enum rd_fault {
    RD_FAULT_DROP,
    RD_FAULT_DOUBLE,
    RD_FAULT_SWAP,
    RD_FAULT_OPERATOR,
    RD_FAULT_OFF_BY_ONE,
    RD_FAULT_NAME,
    RD_FAULTS
} rd_fault;

enum { RD_FAULT_LOOKS = 3 };

const char *rd_fault_name(rd_fault fault);
/* The text of [start, end) with the fault, into `out`. False where it has no place for one. */
bool rd_fault_make(const rd_case_file *f, size_t start, size_t end, rd_fault fault,
                   rd_random *random, rd_buf *out);

/* The bytes of the faulty text that the clean one does not have; where something is missing, the byte behind. */
void rd_fault_range(const char *clean, size_t n, const char *faulty, size_t m, size_t *start,
                    size_t *end);

/* A token of a faulty text and its probability there. */
typedef struct rd_fault_token {
    size_t start, end;
    double p;
} rd_fault_token;

/* Whether one of the RD_FAULT_LOOKS least probable tokens meets [start, end). */
bool rd_fault_found(rd_fault_token *list, int n, size_t start, size_t end);
/* How often as many tokens drawn blindly would meet it. */
double rd_fault_chance(const rd_fault_token *list, int n, size_t start, size_t end);

#endif
