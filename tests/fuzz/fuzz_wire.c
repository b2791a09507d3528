/* fuzz_wire.c - libFuzzer: any bytes as a stream, cut into pieces by its first bytes; the frames are those of the stream in
 * one piece. */
#include "lsp/wire.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n);

#define MOST 64 /* bytes of a frame: small, so that limits are met */

/* Frames, and how it went, as text. `step` of 0: all at once. */
static void read_all(rd_framing framing, const char *bytes, size_t n, size_t step, rd_buf *seen)
{
    rd_wire *w = rd_wire_new(framing, MOST);
    rd_wire_event event = RD_WIRE_MORE;
    rd_error err = { 0 };
    rd_frame f;

    for (size_t at = 0; at < n && event != RD_WIRE_BROKEN;) {
        size_t left = step && step < n - at ? step : n - at;
        char *piece = malloc(left);
        const char *p = memcpy(piece, bytes + at, left);

        at += left;
        while ((event = rd_wire_read(w, &p, &left, &f, &err)) != RD_WIRE_MORE &&
               event != RD_WIRE_BROKEN) {
            rd_buf_format(seen, "|%d:", (int)event);
            if (event == RD_WIRE_FRAME) rd_buf_append(seen, f.bytes, f.n);
            if (event == RD_WIRE_FRAME && (f.n > MOST || f.bytes[f.n] != 0)) __builtin_trap();
        }
        if (event == RD_WIRE_MORE && left > 0) __builtin_trap();
        free(piece);
    }
    if (event != RD_WIRE_BROKEN && (event = rd_wire_end(w, &f, &err)) == RD_WIRE_FRAME)
        rd_buf_append(seen, f.bytes, f.n);
    rd_buf_format(seen, "|%d %s", (int)event, event == RD_WIRE_BROKEN ? err.text : "");
    rd_wire_free(w);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n)
{
    rd_buf whole = { 0 }, pieces = { 0 };

    if (n < 2) return 0;
    read_all((rd_framing)(data[0] % 3), (const char *)data + 2, n - 2, 0, &whole);
    read_all((rd_framing)(data[0] % 3), (const char *)data + 2, n - 2, 1 + data[1] % 40u, &pieces);
    if (whole.len != pieces.len || memcmp(whole.data, pieces.data, whole.len) != 0)
        __builtin_trap();
    rd_buf_clear(&whole);
    rd_buf_clear(&pieces);
    return 0;
}
