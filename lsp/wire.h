/* wire.h - bytes to frames and back: `Content-Length` headers (LSP) or one message a line (MCP).
 *
 * The reader is fed pieces of any size and holds at most one unfinished frame, however large the pieces. It knows
 * nothing of JSON. A frame with headers whose length cannot be known ends the stream: what follows could be document
 * text that looks like a frame, so nobody searches for the next one. A line that is too long is skipped and
 * reported, since a line end cannot stand inside a message. No I/O; one thread at a time.
 */
#ifndef RD_LSP_WIRE_H
#define RD_LSP_WIRE_H

#include "core/base/buf.h"
#include "core/base/status.h"

#include <stddef.h>

typedef enum rd_framing {
    RD_FRAMING_ANY, /* told by the first byte that is not blank: '{' or '[' begins a line */
    RD_FRAMING_HEADER,
    RD_FRAMING_LINE
} rd_framing;

typedef enum rd_wire_event {
    RD_WIRE_MORE,    /* the piece is used up and no frame is whole */
    RD_WIRE_FRAME,   /* one frame; it may be empty */
    RD_WIRE_TOO_BIG, /* a line over the limit was left out; the stream goes on */
    RD_WIRE_BROKEN   /* the stream is over: err says why; every later call says the same */
} rd_wire_event;

typedef struct rd_wire rd_wire;

typedef struct rd_frame {
    const char *bytes; /* borrowed until the next call; a NUL stands behind them */
    size_t n;
} rd_frame;

/* Frames over `most` bytes are refused. */
rd_wire *rd_wire_new(rd_framing framing, size_t most);
void rd_wire_free(rd_wire *w);
/* What the stream turned out to be; RD_FRAMING_ANY before its first byte. */
rd_framing rd_wire_framing(const rd_wire *w);
/* Take bytes from the front of the piece, moving *bytes and *n along, up to the end of one frame. Call again until
 * it says RD_WIRE_MORE or RD_WIRE_BROKEN. */
rd_wire_event rd_wire_read(rd_wire *w, const char **bytes, size_t *n, rd_frame *out, rd_error *err);
/* The stream has ended: a last line without its end is a frame, half a frame with headers is RD_WIRE_BROKEN,
 * RD_WIRE_MORE means that nothing was left. */
rd_wire_event rd_wire_end(rd_wire *w, rd_frame *out, rd_error *err);

/* Append one message to `out`. `framing` is not RD_FRAMING_ANY; the message is JSON, in which a line end outside
 * of strings is a blank and becomes one. */
void rd_wire_write(rd_buf *out, rd_framing framing, const char *message, size_t n);

#endif
