/* echo.h - a runner whose answer names the text it was asked about: `h` and 16 hexadecimal digits, the hash of the prefix, a
 * line feed and the suffix. So a test sees from an answer whether the daemon's document is its own.
 *
 * Markers in the prefix, of which the last of its kind counts: @ms=N, the time a run takes (0); @print, something is
 * printed to stdout; @crash, the process gets signal 11.
 */
#ifndef RD_FAKE_ECHO_H
#define RD_FAKE_ECHO_H

#include "core/runner.h"

enum { RD_ECHO_BYTES = 18 }; /* of an answer, with its NUL */

extern const rd_runner rd_echo_runner;

void rd_echo_answer(const char *prefix, size_t prefix_n, const char *suffix, size_t suffix_n,
                    char out[RD_ECHO_BYTES]);

#endif
