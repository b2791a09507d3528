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

/* Code actions and commands. */
#define RD_MOST_ACTION_BYTES \
    ((size_t)32 << 10) /* of text that is rewritten or looked at in one go */
#define RD_MOST_INSTRUCTION_BYTES ((size_t)8 << 10)
#define RD_MOST_ORDERS            32 /* under way for one connection */
/* An agent. */
#define RD_MOST_TOOL_CALLS      32     /* of a connection, not answered yet */
#define RD_MOST_TOOL_MS         600000 /* that a call may ask for */
#define RD_MOST_TOOL_TOKENS     65536
#define RD_MOST_ROOT_FILE_BYTES ((size_t)1 << 20) /* read on the loop thread */
#define RD_MOST_SCORED_BYTES    ((size_t)256 << 10)
/* The daemon and its fronts. */
#define RD_MOST_HELLO_BYTES ((size_t)64 << 10)
#define RD_MOST_CONNECTIONS 256
#define RD_MOST_UNSENT_BYTES \
    ((size_t)8 << 20) /* of a connection whose peer does not read; then it is closed */
#define RD_PAUSE_UNSENT_BYTES ((size_t)256 << 10) /* above it nothing more is read from that peer */
#define RD_MOST_WAITING_BYTES \
    ((size_t)16 << 20)                    /* of requests that wait in a front for the next daemon */
#define RD_MOST_LOG_BYTES ((long)1 << 20) /* of the daemon's log, and of the one before */
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
