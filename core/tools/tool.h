/* tool.h - the command line as one table: parsing, help, completions and the man page come from it.
 *
 * A command is a function of parsed arguments. Exit status: 0 done, 1 the work failed (one line on
 * stderr says why), 2 the call was wrong. Nothing but results goes to stdout.
 */
#ifndef RD_TOOL_H
#define RD_TOOL_H

#include "core/base/status.h"

#include <stdbool.h>

typedef struct rd_option {
    const char *name;  /* "--isa" */
    const char *value; /* what it takes; NULL: a flag */
    const char *help;
} rd_option;

typedef struct rd_args rd_args;

typedef struct rd_command {
    const char *name, *synopsis, *summary, *example;
    const rd_option *options; /* ends with a NULL name */
    bool model;               /* takes the options that choose model and backend too */
    int (*run)(const rd_args *a);
} rd_command;

extern const rd_command rd_commands[]; /* ends with a NULL name */

/* `more`: another such table, behind ours; NULL: none. */
int rd_tools_main(int argc, char **argv, const rd_command *more);

const char *rd_args_text(const rd_args *a, const char *option); /* NULL: not given */
/* Of an option given several times, number `i` in order; NULL: not so often. */
const char *rd_args_text_at(const rd_args *a, const char *option, int i);
bool rd_args_flag(const rd_args *a, const char *option);
/* Numbers are checked while parsing is done; out of range is exit 2 with a message. False on that. */
bool rd_args_int(const rd_args *a, const char *option, int least, int most, int *out);
bool rd_args_number(const rd_args *a, const char *option, double least, double most, double *out);
int rd_args_count(const rd_args *a); /* of what is no option */
const char *rd_args_at(const rd_args *a, int i);

/* "redraft NAME: text" to stderr; returns the exit status for a wrong call (2) or failed work (1). */
int rd_tool_usage(const rd_args *a, const char *format, ...) __attribute__((format(printf, 2, 3)));
int rd_tool_fail(const rd_args *a, const rd_error *err);

#endif
