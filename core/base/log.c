/* log.c - the log sink, one of the two mutable globals of the house. */
#include "core/base/log.h"

#include <stdarg.h>
#include <stdio.h>

static struct {
    rd_log_level level;
    rd_log_sink sink;
    void *user;
} log_state = { .level = RD_LOG_WARN };

void rd_log_to(rd_log_level level, rd_log_sink sink, void *user)
{
    log_state.level = level;
    log_state.sink = sink;
    log_state.user = user;
}

void rd_log(rd_log_level level, const char *format, ...)
{
    char line[512];
    va_list args;

    if (level > log_state.level) return;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (log_state.sink) {
        log_state.sink(log_state.user, level, line);
        return;
    }
    fprintf(stderr, "redraft: %s\n", line);
}
