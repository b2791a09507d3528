/* status.h - how a function says that it failed, and why.
 *
 * Every function that can fail returns rd_status and fills one rd_error where the cause is known.
 * The text is for the user: what was tried, on what, what was wrong. Nobody overwrites it on the
 * way up. Pure values; any thread.
 */
#ifndef RD_BASE_STATUS_H
#define RD_BASE_STATUS_H

typedef enum rd_status {
    RD_OK = 0,
    RD_CANCELLED, /* somebody asked to stop; not a fault */
    RD_STALE,     /* the world moved on; not a fault */
    RD_INVALID,   /* the input is wrong: a file, an argument, a request */
    RD_NOT_FOUND,
    RD_NO_MEMORY, /* a large allocation failed; the text says how much was wanted */
    RD_IO,
    RD_DEVICE
} rd_status;

typedef struct rd_error {
    rd_status status;
    char text[256];
} rd_error;

/* Fill `err` (may be NULL) with a status and a sentence; returns the status, so that a caller can
 * write `return rd_fail(err, RD_INVALID, "...")`. Control characters of outside text become
 * '?', and a sentence that is too long loses its middle. */
rd_status rd_fail(rd_error *err, rd_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The name of a status, for logs: "invalid", "io", ... */
const char *rd_status_name(rd_status status);

#endif
