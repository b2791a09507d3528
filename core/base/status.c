/* status.c - filling an rd_error. */
#include "core/base/status.h"

#include <stdarg.h>
#include <stdio.h>

rd_status rd_fail(rd_error *err, rd_status status, const char *format, ...)
{
    va_list args;

    if (!err) return status;
    err->status = status;
    va_start(args, format);
    vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    for (char *c = err->text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
    return status;
}

const char *rd_status_name(rd_status status)
{
    switch (status) {
    case RD_OK: return "ok";
    case RD_CANCELLED: return "cancelled";
    case RD_STALE: return "stale";
    case RD_INVALID: return "invalid";
    case RD_NOT_FOUND: return "not found";
    case RD_NO_MEMORY: return "no memory";
    case RD_IO: return "io";
    case RD_DEVICE: return "device";
    }
    return "unknown";
}
