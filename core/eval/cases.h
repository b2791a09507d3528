/* cases.h - the holes that an answer is judged on: cut from source files with a seed, or read from a set.
 *
 * A case is a range of a file: what stands before and after it goes to the engine in full, as an editor
 * sends it, and the range's own text is the reference. Whole lines (from behind the indent to the line's
 * end), line ends (from inside the line), middles (a part of a line with something on both sides), two to
 * five lines, and what a set gives. A hole must hold at least three characters that are not white space,
 * one of them a letter, a digit or an underscore, and at most 800 bytes; the licence comment at the head
 * of a file is left alone. Files take turns, so that no file weighs more than another. The same folder, seed
 * and count give the same cases.
 */
#ifndef RD_EVAL_CASES_H
#define RD_EVAL_CASES_H

#include "core/base/buf.h"
#include "core/base/random.h"
#include "core/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum rd_case_kind {
    RD_CASE_LINE,
    RD_CASE_END,
    RD_CASE_MIDDLE,
    RD_CASE_MULTI,
    RD_CASE_GIVEN, /* a set's, of no named kind */
    RD_CASE_KINDS
} rd_case_kind;

typedef struct rd_case_file {
    char *name, *language, *text;
    size_t bytes, licence;
} rd_case_file;

typedef struct rd_case {
    rd_case_kind kind;
    int file;
    size_t start, end;           /* of the hole */
    int max_tokens, hole_tokens; /* 0: not given */
    char *id;
} rd_case;

/* A zeroed struct is empty. Owns everything. */
typedef struct rd_cases {
    rd_case_file *file;
    rd_case *at;
    int files, n, files_cap, cap;
} rd_cases;

const char *rd_case_kind_name(rd_case_kind kind); /* "line", "end", "middle", "multi", "set" */
/* A comma-separated list of the first four to a mask of bits; 0: a name is unknown. */
unsigned rd_case_kinds_of(const char *list);

/* The source files below DIR (below DIR/held where there is one), named as seen from there. RD_INVALID when
 * there are none. */
rd_status rd_cases_files(rd_cases *c, const char *dir, rd_error *err);
/* Cut `n` cases of each kind in the mask; fewer where the files do not give more. */
void rd_cases_cut(rd_cases *c, unsigned kinds, int n, uint64_t seed);
/* One object a line: the fields of `infill --jsonl`, `reference`, and where known `set` and `file`. */
rd_status rd_cases_read(rd_cases *c, const char *path, rd_error *err);
rd_status rd_cases_write(const rd_cases *c, const char *path, rd_error *err);
void rd_cases_clear(rd_cases *c);

/* The hole's text; borrowed. */
const char *rd_case_text(const rd_cases *c, int i, size_t *n);
/* The rule above, for any range of text. */
bool rd_case_is_worth(const char *text, size_t n);
/* A whole number of lines, one to `most`, that begins and ends with a line worth a case: [start, end) from the
 * first one's indent on, its last newline left out. False when 16 draws find none. */
bool rd_cases_window(const rd_case_file *f, int most, rd_random *random, size_t *start,
                     size_t *end);
/* An order of the files, drawn. The caller frees it. */
int *rd_cases_order(const rd_cases *c, rd_random *random);

#endif
