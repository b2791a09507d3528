/* conformance.h - recorded answers of the public reference code against ours, folder by folder. */
#ifndef RD_TOOLS_CONFORMANCE_H
#define RD_TOOLS_CONFORMANCE_H

#include "core/tools/tool.h"

int rd_tool_conformance(const rd_args *a);

#endif
