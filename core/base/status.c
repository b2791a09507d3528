/* status.c - filling an rd_error. */
#include "core/base/status.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { LONG_TEXT = 8192, HEAD = 96 };

static bool continues(char c)
{
    return ((unsigned char)c & 0xc0) == 0x80;
}

/* Bytes at s that a terminal or a reader would take for something else than text: control characters of
 * ASCII and of U+0080 to U+009F, and the marks that turn the direction of writing. */
static int deceiving(const char *text)
{
    const unsigned char *s = (const unsigned char *)text;

    if (s[0] < 0x20 || s[0] == 0x7f) return 1;
    if (s[0] == 0xc2 && s[1] >= 0x80 && s[1] < 0xa0) return 2;
    if (s[0] == 0xd8 && s[1] == 0x9c) return 2;
    if (s[0] != 0xe2) return 0;
    if (s[1] == 0x80 && ((s[2] >= 0xaa && s[2] <= 0xae) || s[2] == 0x8e || s[2] == 0x8f)) return 3;
    return s[1] == 0x81 && s[2] >= 0xa6 && s[2] <= 0xa9 ? 3 : 0;
}

/* What does not fit loses its middle: the file stands at the start, what is wrong with it at the end. */
static void shorten(char *out, size_t room, const char *text, size_t n)
{
    size_t head = HEAD, tail = n - (room - 1 - HEAD - 3);

    while (head > 0 && continues(text[head])) head--;
    while (tail < n && continues(text[tail])) tail++;
    snprintf(out, room, "%.*s...%s", (int)head, text, text + tail);
}

rd_status rd_fail(rd_error *err, rd_status status, const char *format, ...)
{
    char text[LONG_TEXT];
    va_list args;

    if (!err) return status;
    err->status = status;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    for (char *c = text; *c; c++)
        for (int n = deceiving(c); n > 0; n--) c[n - 1] = '?';
    if (strlen(text) < sizeof err->text)
        memcpy(err->text, text, strlen(text) + 1);
    else
        shorten(err->text, sizeof err->text, text, strlen(text));
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
