/* process.c - the processes of the daemon with a runner that needs no model: `serve`, `stdio`, `mcp`, `status`, `stop`.
 *
 * The echo's answers name what they were asked about, for storms; with RD_SCRIPT it is script.h's, for clients that look at
 * what they get. RD_STARTS in the environment of a front is how many daemons may be started within a minute, for storms that kill more.
 */
#include "lsp/cache_calls.h"
#include "lsp/link.h"
#include "lsp/process.h"
#ifdef RD_SCRIPT
#include "tests/fake/script.h"
#define RUNNER rd_script_runner
#else
#include "tests/fake/echo.h"
#define RUNNER rd_echo_runner
#endif

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool has(int argc, char **argv, const char *word)
{
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], word)) return true;
    return false;
}

static long number_of(int argc, char **argv, const char *option)
{
    size_t n = strlen(option);

    for (int i = 1; i < argc; i++)
        if (!strncmp(argv[i], option, n)) return strtol(argv[i] + n, NULL, 10);
    return 0;
}

static rd_status cache_call(int argc, char **argv, rd_error *err)
{
    if (has(argc, argv, "purge")) return rd_cache_call_purge(err);
    if (has(argc, argv, "verify")) return rd_cache_call_verify(err);
    return rd_cache_call_stat(true, err);
}

int main(int argc, char **argv)
{
    const char *starts = getenv("RD_STARTS"), *call = argc > 1 ? argv[1] : "";
    rd_process p = { &RUNNER, starts ? (int)strtol(starts, NULL, 10) : RD_STARTS_A_MINUTE };
    rd_session session = { .protocol = strcmp(call, "mcp") ? RD_LSP : RD_MCP,
                           .alone = has(argc, argv, "--alone"),
                           .client_pid = number_of(argc, argv, "--clientProcessId=") };
    rd_error err = { .text = "which call?" };
    rd_status s = RD_INVALID;
    int status = 0;

    if (!strcmp(call, "serve"))
        s = rd_process_serve(&p, has(argc, argv, "--background"), &status, &err);
    else if (!strcmp(call, "stdio") || !strcmp(call, "mcp"))
        s = rd_process_session(&p, &session, &status, &err);
    else if (!strcmp(call, "status"))
        s = rd_process_status(has(argc, argv, "--json"), &err);
    else if (!strcmp(call, "stop"))
        s = rd_process_stop(&err);
    else if (!strcmp(call, "cache"))
        s = cache_call(argc, argv, &err);
    if (!s) return status;
    fprintf(stderr, "%s %s: %s\n", argv[0], call, err.text);
    return 1;
}
