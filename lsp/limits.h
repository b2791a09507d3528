/* limits.h - every maximum of the daemon's input in one place; the tests of each module go to it and past it.
 *
 * What is over a limit is refused with a sentence before anything of its size is allocated.
 */
#ifndef RD_LSP_LIMITS_H
#define RD_LSP_LIMITS_H

#include <stddef.h>

/* The wire. */
#define RD_MOST_FRAME_BYTES  ((size_t)16 << 20)
#define RD_MOST_HEADER_BYTES ((size_t)4096) /* of one frame, with its blank line */

/* One frame's JSON. The parser spends up to 220 bytes on a small value and 15 ms on a megabyte, so text of
 * documents goes round it and the rest is capped. */
#define RD_MOST_JSON_VALUES ((size_t)200000)
#define RD_MOST_JSON_DEPTH  64
#define RD_MOST_JSON_BYTES  ((size_t)1 << 20)   /* all of a frame but document text */
#define RD_MOST_TEXT_BYTES  RD_MOST_FRAME_BYTES /* document text of a frame after repair */

/* A connection. */
#define RD_MOST_ID_BYTES        256
#define RD_MOST_OPEN_REQUESTS   1024
#define RD_MOST_ASKED           64 /* requests of ours that the client has not answered */
#define RD_MOST_URI_BYTES       ((size_t)4096)
#define RD_MOST_DOCUMENTS       4096
#define RD_MOST_DOCUMENT_BYTES  ((size_t)16 << 20)
#define RD_MOST_DOCUMENTS_BYTES ((size_t)128 << 20) /* all open texts of a connection */
#define RD_MOST_SHIFTS          1024                /* edits that a document remembers */

/* Files of settings and of rules. */
#define RD_MOST_SETTINGS_BYTES ((size_t)64 << 10)

/* The exclusion rules. */
#define RD_MOST_PATTERN_BYTES  ((size_t)1024)
#define RD_MOST_PATTERNS       2000
#define RD_MOST_PATTERNS_BYTES ((size_t)64 << 10) /* of all patterns together */
#define RD_MOST_GLOB_STEPS     ((size_t)1000000)  /* of all patterns on one path, some ms */
#define RD_MOST_PATH_BYTES     ((size_t)4096)
#define RD_MOST_PATH_DEPTH     128

#endif
