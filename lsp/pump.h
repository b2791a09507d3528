/* pump.h - our stdin and stdout, whatever they are, as one end of a socket pair.
 *
 * A file, a terminal or a pipe of somebody else's is read and written by two threads that may wait, and none of its flags
 * is changed: they belong to others too.
 */
#ifndef RD_LSP_PUMP_H
#define RD_LSP_PUMP_H

#include "core/base/status.h"

/* The real stdout, for the protocol alone: from now on descriptor 1 is stderr, so that a library that prints breaks
 * nothing. The caller's to close. */
rd_status rd_pump_take_stdout(int *out, rd_error *err);

typedef struct rd_pump rd_pump;

/* *socket is the other end, the caller's. `in` and `out` stay the caller's. */
rd_status rd_pump_open(int in, int out, rd_pump **pump, int *socket, rd_error *err);
/* When the other end was closed: what is on its way goes out, for `wait_ms` at most. */
void rd_pump_close(rd_pump *p, int wait_ms);

#endif
