/* report.h - what an evaluation found, and its three forms: a table, one JSON object, a page.
 *
 * A row is one way of answering all cases: the engine at a place of the dial, with drafts copied from the file or
 * without, with the length given, or a floor. The page is one HTML file with pictures inside and no
 * scripts. The forms are pure functions of the report.
 */
#ifndef RD_EVAL_REPORT_H
#define RD_EVAL_REPORT_H

#include "core/train/faults.h"
#include "core/eval/measures.h"

enum { RD_ROWS_MOST = 64, RD_DIAL_MOST = 16 };

typedef enum rd_row_kind {
    RD_ROW_BOTH, /* the model with drafts copied from the file */
    RD_ROW_MODEL,
    RD_ROW_LENGTH, /* the model alone, the hole's length given */
    RD_ROW_COPY,   /* the copied line alone: a row and a floor */
    RD_ROW_FLOOR
} rd_row_kind;

typedef struct rd_row {
    rd_row_kind kind;
    const char *name;
    float quality;
    rd_outcome *outcome; /* [cases] */
    rd_buf *text;        /* [cases] */
} rd_row;

/* Rewrites of windows: with one fault each, and clean ones. Values are 0 or 1 a window. */
typedef struct rd_fault_report {
    rd_cases wrong, clean; /* windows; their files are the cases' own, borrowed */
    rd_fault *fault;       /* [wrong.n] */
    double *mended, *spared;
    double *touched; /* [wrong.n] changed at all */
    double *found;   /* [wrong.n] among the least probable tokens of its window */
    double *blindly; /* [wrong.n] the chance of that without a model */
    double forwards, ms;
} rd_fault_report;

typedef struct rd_report {
    rd_cases cases;
    rd_set set[RD_SETS_MOST];
    int sets;
    rd_row row[RD_ROWS_MOST];
    int rows;
    float quality[RD_DIAL_MOST];
    int qualities, main; /* the dial's values, and which of them is reported first */
    int seed;
    bool drafts;
    bool python; /* Python files were compiled */
    rd_fault_report faults;
    double gate;                   /* the model's own; below 0: it has none */
    double bits_model, bits_ngram; /* a byte; NaN: not measured */
    const char *engine;
} rd_report;

/* A row with room for an answer to each case. */
rd_row *rd_report_add(rd_report *r, rd_row_kind kind, const char *name, float quality);
const rd_row *rd_report_find(const rd_report *r, rd_row_kind kind, float quality);
/* The row that is reported first. */
const rd_row *rd_report_main(const rd_report *r);
/* The set that pictures and the gate are about: the mixture, or the first. */
const rd_set *rd_report_set(const rd_report *r);
void rd_report_clear(rd_report *r);

/* What is said of the whole and not of a row: lost length, shares, faults, bits a byte; as lines of text. */
void rd_report_rest(const rd_report *r, rd_buf *out);
void rd_report_table(const rd_report *r, rd_buf *out);
void rd_report_json(const rd_report *r, rd_buf *out);
void rd_report_page(const rd_report *r, rd_buf *out); /* page.c */

#endif
