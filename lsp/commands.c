/* commands.c - the daemon's table of calls: arguments to process.h. */
#include "lsp/commands.h"

#include "core/base/memory.h"
#include "lsp/cache_calls.h"
#include "lsp/link.h"
#include "lsp/process.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { ROOTS_MOST = 64 };

static const rd_process process = { .runner = &rd_local_runner, .starts = RD_STARTS_A_MINUTE };

static int serve(const rd_args *a)
{
    rd_error err;
    int status = 0;

    if (rd_args_count(a)) return rd_tool_usage(a, "%s is not wanted here", rd_args_at(a, 0));
    if (rd_process_serve(&process, rd_args_flag(a, "--background"), &status, &err))
        return rd_tool_fail(a, &err);
    return status;
}

static int run_client(const rd_args *a, const rd_session *session)
{
    rd_error err;
    int status = 0;

    if (rd_process_session(&process, session, &status, &err)) return rd_tool_fail(a, &err);
    return status;
}

static int stdio(const rd_args *a)
{
    int pid = 0;

    if (rd_args_count(a)) return rd_tool_usage(a, "%s is not wanted here", rd_args_at(a, 0));
    if (!rd_args_int(a, "--clientProcessId", 1, INT_MAX, &pid)) return 2;
    return run_client(a, &(rd_session){ .protocol = RD_LSP,
                                        .alone = rd_args_flag(a, "--alone"),
                                        .client_pid = pid });
}

/* The daemon stands in another folder: roots are made absolute, links in them resolved, here. */
static int mcp(const rd_args *a)
{
    const char *roots[ROOTS_MOST], *root;
    struct stat st;
    int n = 0, status = 2;

    if (rd_args_count(a)) return rd_tool_usage(a, "%s is not wanted here", rd_args_at(a, 0));
    for (; n < ROOTS_MOST && (root = rd_args_text_at(a, "--root", n)); n++) {
        roots[n] = realpath(root, NULL);
        if (roots[n] && !stat(roots[n], &st) && S_ISDIR(st.st_mode)) continue;
        rd_tool_usage(a, "--root %s: %s", root, roots[n] ? "not a folder" : strerror(errno));
        free((void *)roots[n]);
        goto end;
    }
    if (rd_args_text_at(a, "--root", n))
        rd_tool_usage(a, "more than %d roots", ROOTS_MOST);
    else
        status = run_client(a, &(rd_session){ .protocol = RD_MCP,
                                              .alone = rd_args_flag(a, "--alone"),
                                              .roots = roots,
                                              .n_roots = n });
end:
    while (n > 0) free((void *)roots[--n]);
    return status;
}

static int status(const rd_args *a)
{
    rd_error err;

    return rd_process_status(rd_args_flag(a, "--json"), &err) ? rd_tool_fail(a, &err) : 0;
}

static int stop(const rd_args *a)
{
    rd_error err;

    return rd_process_stop(&err) ? rd_tool_fail(a, &err) : 0;
}

static int cache(const rd_args *a)
{
    const char *call = rd_args_count(a) > 0 ? rd_args_at(a, 0) : "";
    bool stat = !strcmp(call, "stat"), trim = !strcmp(call, "trim");
    int megabytes = -1, days = -1;
    rd_error err;
    rd_status s;

    if (rd_args_count(a) > 1) return rd_tool_usage(a, "%s is not wanted here", rd_args_at(a, 1));
    if (!rd_args_int(a, "--megabytes", 0, 1 << 20, &megabytes)) return 2;
    if (!rd_args_int(a, "--days", 0, 36500, &days)) return 2;
    if (!stat && rd_args_flag(a, "--json")) return rd_tool_usage(a, "--json goes with stat");
    if (!trim && (megabytes >= 0 || days >= 0))
        return rd_tool_usage(a, "--megabytes and --days go with trim");
    if (stat)
        s = rd_cache_call_stat(rd_args_flag(a, "--json"), &err);
    else if (trim)
        s = rd_cache_call_trim(megabytes, days, &err);
    else if (!strcmp(call, "verify"))
        s = rd_cache_call_verify(&err);
    else if (!strcmp(call, "purge"))
        s = rd_cache_call_purge(&err);
    else
        return rd_tool_usage(a, "%s%sstat, verify, trim or purge", call, *call ? " is not " : "");
    return s ? rd_tool_fail(a, &err) : 0;
}

static const rd_option serve_options[] = {
    { "--background", NULL, "log to the state folder, write nothing here" },
    { NULL, NULL, NULL },
};

static const rd_option stdio_options[] = {
    { "--alone", NULL, "no daemon: the model in this process" },
    { "--stdio", NULL, "taken and ignored" },
    { "--clientProcessId", "N", "end when that process does" },
    { NULL, NULL, NULL },
};

static const rd_option mcp_options[] = {
    { "--root", "DIR", "files below it may be named; may be given again" },
    { "--alone", NULL, "no daemon: the model in this process" },
    { NULL, NULL, NULL },
};

static const rd_option status_options[] = {
    { "--json", NULL, "print one object" },
    { NULL, NULL, NULL },
};

static const rd_option cache_options[] = {
    { "--json", NULL, "stat: print one object" },
    { "--megabytes", "N", "trim: what the file may have; as the settings say without it" },
    { "--days", "N", "trim: what was not used for so long goes" },
    { NULL, NULL, NULL },
};

static const rd_option stop_options[] = { { NULL, NULL, NULL } };

const rd_command rd_daemon_commands[] = {
    { "serve", "[--background]", "be the daemon that the editors share; they start it themselves",
      "redraft serve", serve_options, false, serve },
    { "stdio", "[--alone]", "speak LSP on stdin and stdout, for an editor to start",
      "redraft stdio --alone </dev/null", stdio_options, false, stdio },
    { "mcp", "[--root DIR]... [--alone]", "speak MCP on stdin and stdout, for an agent to start",
      "redraft mcp --root . </dev/null", mcp_options, false, mcp },
    { "status", "[--json]", "what the daemon runs, on what, with which memory", "redraft status",
      status_options, false, status },
    { "stop", "", "end the daemon; the next request of an editor starts it again", "redraft stop",
      stop_options, false, stop },
    { "cache", "stat|verify|trim|purge",
      "what is kept of finished work: count, check, shrink, erase", "redraft cache stat",
      cache_options, false, cache },
    { NULL, NULL, NULL, NULL, NULL, false, NULL },
};
