/* found.h - whether a fault shows: it is among the least probable tokens of its window.
 *
 * A model sees faults long before it mends any, so this is the measure that moves first. Pure functions.
 */
#ifndef RD_EVAL_FOUND_H
#define RD_EVAL_FOUND_H

#include <stdbool.h>
#include <stddef.h>

enum { RD_FAULT_LOOKS = 3 };

/* The bytes of the faulty text that the clean one does not have; where something is missing, the byte behind. */
void rd_fault_range(const char *clean, size_t n, const char *faulty, size_t m, size_t *start,
                    size_t *end);

/* A token of a faulty text and its probability there. */
typedef struct rd_fault_token {
    size_t start, end;
    double p;
} rd_fault_token;

/* Whether one of the RD_FAULT_LOOKS least probable tokens meets [start, end); sorts them. */
bool rd_fault_found(rd_fault_token *list, int n, size_t start, size_t end);
/* How often as many tokens drawn blindly would meet it. */
double rd_fault_chance(const rd_fault_token *list, int n, size_t start, size_t end);

#endif
