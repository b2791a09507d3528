/* hello.h - the first line on the daemon's socket, and its answer: one JSON object each.
 *
 * A front says what it is and moves messages afterwards; `redraft status`, `stop` and `cache purge` ask one thing and get one line.
 * Pure.
 */
#ifndef RD_LSP_HELLO_H
#define RD_LSP_HELLO_H

#include "core/base/buf.h"
#include "core/base/status.h"
#include "lsp/rpc.h"

#include <jansson.h>

#define RD_HELLO_LEAVING "$/redraft/leaving" /* sent by a daemon that ends in order */

typedef enum rd_hello_kind {
    RD_HELLO_FRONT,
    RD_HELLO_STATUS,
    RD_HELLO_STOP,
    RD_HELLO_FORGET /* all finished work; the line comes when it is gone */
} rd_hello_kind;

typedef struct rd_hello {
    rd_hello_kind kind;
    rd_protocol protocol;
    const char *build;
    const char *const *roots; /* absolute */
    int n_roots;
    json_t *top; /* owns what was read */
} rd_hello;

/* Append the line. */
void rd_hello_write(const rd_hello *h, rd_buf *out);
/* Fails with RD_INVALID. What came out is given back with rd_hello_clear. */
rd_status rd_hello_read(const char *line, size_t n, rd_hello *out, rd_error *err);
void rd_hello_clear(rd_hello *h);

#endif
