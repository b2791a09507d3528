/* measures.h - answers against references: how good, how sure of that, and how well the confidence knows it.
 *
 * A set is a mixture of kinds, each with a share of the weight; a mean over a set is the sum of its kinds' means
 * times their shares. Intervals are 95 % by a bootstrap over files (1000 draws, fixed seed): cases of one
 * file are not independent. Pure functions of their arguments.
 */
#ifndef RD_EVAL_MEASURES_H
#define RD_EVAL_MEASURES_H

#include "core/eval/cases.h"

enum { RD_BINS = 10, RD_SETS_MOST = 16, RD_SHARES = 6 };

extern const double rd_shares[RD_SHARES]; /* 0.05, 0.1, 0.2, 0.3, 0.5, 1 */

/* What one answer to one case came to. Negative: not known (whole, confidence, forwards, ms). */
typedef struct rd_outcome {
    bool exact;  /* white space at both ends left out */
    bool strict; /* to the byte */
    double similarity;
    int whole; /* the file is syntactically whole after the fill */
    double confidence, forwards, ms;
} rd_outcome;

typedef struct rd_set {
    const char *name;
    double share[RD_CASE_KINDS]; /* sum 1 */
    const char *language;        /* NULL: any */
} rd_set;

typedef struct rd_bin {
    int cases;
    double confidence, em; /* means */
} rd_bin;

/* What it means to show only the surest share of the answers. */
typedef struct rd_shown {
    double confidence; /* of the least sure one that is shown */
    double precision;  /* the share of those shown that is right */
    double last;       /* the same of those that the next smaller share leaves out */
} rd_shown;

#define RD_GATE_WORTH (1.0 / 3.0) /* docs/evaluation.md says why */

/* The lowest confidence that is worth showing, and what showing all above it means. */
typedef struct rd_gate {
    double confidence, share, precision;
} rd_gate;

typedef struct rd_measure {
    int cases, files;
    double em, strict, similarity, whole; /* shares 0..1; NaN: nothing to say */
    double em_ci[2], similarity_ci[2];
    int whole_cases;
    rd_shown shown[RD_SHARES];
    double precision[2]; /* of the surest 10 % and 30 % */
    double calibration;  /* expected error over the bins */
    rd_bin bin[RD_BINS]; /* equal mass, least sure first */
    int bins;
    double forwards, ms, ms_median, ms_95;
} rd_measure;

/* Everything but `whole`, `confidence`, `forwards`, `ms`, which are set to unknown. */
rd_outcome rd_outcome_of(const char *answer, size_t n, const char *reference, size_t m);
/* 1 - Levenshtein distance / length of the longer, in bytes; 1 for two empty texts. */
double rd_similarity(const char *a, size_t n, const char *b, size_t m);
/* Narrow a text to what lies between the white space at its ends. */
const char *rd_trim(const char *text, size_t *n);

/* The sets that the cases have members for: each kind, the mixture (line 40 %, end 20 %, middle 10 %, multi
 * 30 %) where all four are there, and it by language where both are. Returns how many. */
int rd_sets_of(const rd_cases *c, rd_set out[RD_SETS_MOST]);
bool rd_set_has(const rd_cases *c, const rd_set *s, int i);

void rd_measure_of(const rd_cases *c, const rd_set *s, const rd_outcome *o, rd_measure *out);
/* Where the answers, the surest first, are still right with `worth` or more: the last point of the falling step
 * function that fits them best (pooled neighbours). Confidence 1 and share 0 where none are. */
void rd_gate_find(const rd_cases *c, const rd_set *s, const rd_outcome *o, double worth,
                  rd_gate *out);
/* What a gate that is given means. */
void rd_gate_try(const rd_cases *c, const rd_set *s, const rd_outcome *o, double confidence,
                 rd_gate *out);
/* The mean over the set of a value for each case and its interval; NaN values are left out. */
double rd_mean_of(const rd_cases *c, const rd_set *s, const double *value, double ci[2]);

#endif
