/* calls.h - the functions behind the table of calls; each returns an exit status. */
#ifndef RD_TOOLS_CALLS_H
#define RD_TOOLS_CALLS_H

#include "core/tools/tool.h"

int rd_tool_infill(const rd_args *a);
int rd_tool_rewrite(const rd_args *a);
int rd_tool_score(const rd_args *a);
int rd_tool_generate(const rd_args *a);
int rd_tool_tokenize(const rd_args *a);
int rd_tool_quantize(const rd_args *a);
int rd_tool_train(const rd_args *a);
int rd_tool_average(const rd_args *a);
int rd_tool_eval(const rd_args *a);
int rd_tool_compare(const rd_args *a);
int rd_tool_compare_kv(const rd_args *a); /* compare with --kv */
int rd_tool_bench(const rd_args *a);
int rd_tool_plugins(const rd_args *a);
int rd_tool_conformance(const rd_args *a);

#endif
