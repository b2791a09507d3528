/* eval.h - what the two sides of redraft eval share: measuring (eval.c) and fitting the confidence (calibrate.c). */
#ifndef RD_TOOLS_EVAL_H
#define RD_TOOLS_EVAL_H

#include "core/engine.h"
#include "core/eval/cases.h"
#include "core/tools/tool.h"

/* The hole of a case, with all of its file around it; borrowed from the cases. */
rd_request rd_case_request(const rd_cases *c, int i);
void rd_say_progress(const char *what, int done, int all);

/* Fits the model's confidence on half of the files, prints it with what it is worth on the others, whose answers
 * set the gate (measures.h), and writes it into the folder of --write. */
rd_status rd_calibrate(const rd_args *a, rd_engine *e, const rd_cases *cases, float quality,
                       rd_error *err);

#endif
