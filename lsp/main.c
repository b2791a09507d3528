/* main.c - the program: the table of calls over the engine, and the one of the daemon. */
#include "core/tools/tool.h"
#include "lsp/commands.h"

int main(int argc, char **argv)
{
    return rd_tools_main(argc, argv, rd_daemon_commands);
}
