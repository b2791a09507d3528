/* commands.h - the calls of the command line that have to do with the daemon. */
#ifndef RD_LSP_COMMANDS_H
#define RD_LSP_COMMANDS_H

#include "core/tools/tool.h"

extern const rd_command rd_daemon_commands[]; /* ends with a NULL name */

#endif
