/* quantize.c - redraft quantize IN OUT. */
#include "core/tools/calls.h"

#include "core/format/quant.h"

#include <stdio.h>
#include <string.h>

int rd_tool_quantize(const rd_args *a)
{
    const char *weights = rd_args_text(a, "--weights");
    rd_error err = { 0 };

    if (rd_args_count(a) != 2) return rd_tool_usage(a, "name the model and the folder to write");
    if (weights && strcmp(weights, "int8") != 0)
        return rd_tool_usage(a, "--weights is int8; %s is not there yet", weights);
    if (rd_quantize_model(rd_args_at(a, 0), rd_args_at(a, 1), RD_QUANT_INT8_ROW, &err))
        return rd_tool_fail(a, &err);
    if (rd_args_flag(a, "--json")) printf("{\"scheme\":\"%s\"}\n", RD_QUANT_INT8_ROW);
    return 0;
}
