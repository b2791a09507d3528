/* check.h - is a file syntactically whole after a fill?
 *
 * Python files are compiled (never run) by a Python beside us, where there is one: one child process for all
 * files, fed over a socket pair. Otherwise, and for other languages, brackets decide: what is left
 * open or closed too often over the whole file, strings and comments apart, must be the same as with the
 * reference. One thread.
 */
#ifndef RD_EVAL_CHECK_H
#define RD_EVAL_CHECK_H

#include "core/eval/cases.h"

typedef struct rd_checker rd_checker;

/* Cannot fail: without a `python3` on the path brackets do the work. Borrows the cases. */
rd_checker *rd_checker_open(const rd_cases *c);
void rd_checker_close(rd_checker *k);
bool rd_checker_has_python(const rd_checker *k);
bool rd_checker_whole(rd_checker *k, int i, const char *answer, size_t n);

/* Compare brackets, with `answer` in the place of [start, end). */
bool rd_brackets_agree(const rd_case_file *f, size_t start, size_t end, const char *answer,
                       size_t n);

#endif
