/* mcp_tools.h - the tools that an agent sees: what each takes and gives, and the way from a call to a job and back.
 *
 * One table says what a tool takes; the schemas that are sent and the checks of a call come out of it. The list is the same to the
 * byte whenever it is asked for. No protocol and no state here: eras, ids and progress are mcp.c's. Nothing is ever written
 * to a file. Loop thread.
 */
#ifndef RD_LSP_MCP_TOOLS_H
#define RD_LSP_MCP_TOOLS_H

#include "lsp/job.h"
#include "lsp/roots.h"

#include <jansson.h>

typedef enum rd_mcp_tool {
    RD_MCP_INFILL,
    RD_MCP_REWRITE,
    RD_MCP_SCORE,
    RD_MCP_STATUS, /* has no job */
    RD_MCP_TOOLS   /* none of them */
} rd_mcp_tool;

/* The array of `tools/list`; the caller's. */
json_t *rd_mcp_tool_list(void);
/* By name; RD_MCP_TOOLS when there is none. */
rd_mcp_tool rd_mcp_tool_of(const char *name);
rd_job_kind rd_mcp_tool_job(rd_mcp_tool tool);

/* What is kept of a call beside its job. */
typedef struct rd_mcp_call {
    rd_mcp_tool tool;
    char *path; /* as it was named; NULL where the text itself was given */
    rd_root_file file;
    size_t left; /* bytes of the text or file before the job's prefix */
} rd_mcp_call;

/* Check the arguments (NULL: none) and fill the job. `call->tool` is set. Fails with a sentence for the agent. */
rd_status rd_mcp_call_read(rd_mcp_call *call, const json_t *arguments, const rd_roots *roots,
                           rd_job *job, rd_error *err);
void rd_mcp_call_clear(rd_mcp_call *call);
/* The structured content of a job that went well, from its last event; the caller's. */
json_t *rd_mcp_call_result(const rd_mcp_call *call, const rd_event *ev);

#endif
