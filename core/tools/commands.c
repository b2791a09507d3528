/* commands.c - the table of calls. */
#include "core/tools/conformance.h"

#include <stddef.h>

#define END              \
    {                    \
        NULL, NULL, NULL \
    }

static const rd_option conformance_options[] = {
    { "--dump", "DIR", "write what was computed, in the folders' own formats" },
    END,
};

const rd_command rd_commands[] = {
    { "conformance", "PATH...", "compare with recorded answers of the reference code",
      "redraft conformance tests/data/golden", conformance_options, true, rd_tool_conformance },
    { NULL, NULL, NULL, NULL, NULL, false, NULL },
};
