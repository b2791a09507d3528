/* test_wire.c - frames come out whole however the bytes come in. */
#include "core/base/random.h"
#include "lsp/limits.h"
#include "lsp/wire.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

/* Feed all of `bytes` in pieces of `step` (0: of random sizes); frames are written to `seen`, each behind a '|'; a long
 * line is "|!", the end of the stream "|BROKEN". */
static void feed(rd_framing framing, size_t most, const char *bytes, size_t n, size_t step,
                 bool ends, rd_buf *seen, rd_error *err)
{
    rd_wire *w = rd_wire_new(framing, most);
    rd_random r = rd_random_seed(n + step);
    rd_wire_event event = RD_WIRE_MORE;
    rd_frame f;

    rd_buf_reset(seen);
    rd_buf_text(seen, "");
    for (size_t at = 0; at < n;) {
        size_t left = step ? step : 1 + rd_random_below(&r, 9);

        if (left > n - at) left = n - at;
        char *piece = malloc(left); /* of its own, so that a read past it is seen */
        const char *p = memcpy(piece, bytes + at, left);

        at += left;
        do {
            event = rd_wire_read(w, &p, &left, &f, err);
            if (event == RD_WIRE_FRAME) {
                rd_buf_text(seen, "|");
                rd_buf_append(seen, f.bytes, f.n);
                cr_assert_eq(f.bytes[f.n], 0);
            }
            if (event == RD_WIRE_TOO_BIG) rd_buf_text(seen, "|!");
        } while (event != RD_WIRE_MORE && event != RD_WIRE_BROKEN);
        cr_assert(event == RD_WIRE_BROKEN || left == 0, "%zu bytes were not taken", left);
        free(piece);
        if (event == RD_WIRE_BROKEN) break;
    }
    if (ends && event != RD_WIRE_BROKEN) {
        while ((event = rd_wire_end(w, &f, err)) == RD_WIRE_FRAME) {
            rd_buf_text(seen, "|");
            rd_buf_append(seen, f.bytes, f.n);
        }
    }
    if (event == RD_WIRE_BROKEN) {
        rd_buf_text(seen, "|BROKEN");
        const char *p = "x";
        size_t one = 1;

        cr_assert_eq(rd_wire_read(w, &p, &one, &f, err), RD_WIRE_BROKEN, "it stays broken");
    }
    rd_wire_free(w);
}

typedef struct wire_case {
    rd_framing framing;
    const char *in, *frames, *why; /* why: what the sentence holds, where the stream breaks */
} wire_case;

static const wire_case cases[] = {
    { RD_FRAMING_HEADER, "Content-Length: 2\r\n\r\n{}", "|{}", NULL },
    { RD_FRAMING_HEADER, "content-LENGTH:2\r\n\r\n{}Content-Length: 3\r\n\r\n[1]", "|{}|[1]",
      NULL },
    { RD_FRAMING_HEADER, "Content-Type: x; charset=utf-8\r\nContent-Length: 2\r\nX: y\r\n\r\n{}",
      "|{}", NULL },
    { RD_FRAMING_HEADER, "Content-Length: 0\r\n\r\nContent-Length: 1\r\n\r\n7", "||7", NULL },
    { RD_FRAMING_HEADER, "Content-Length : \t2 \r\n\r\n{}", "|{}", NULL },
    { RD_FRAMING_HEADER, "Content-Length: 2\n\n{}", "|{}", NULL },
    { RD_FRAMING_HEADER, "Content-Length: 2\r\n\r\n{}\r\n\r\nContent-Length: 2\r\n\r\n[]", "|{}|[]",
      NULL },
    { RD_FRAMING_HEADER, "Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}", "|{}", NULL },
    { RD_FRAMING_HEADER, "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ", "|BROKEN",
      "two different" },
    { RD_FRAMING_HEADER, "Content-Type: x\r\n\r\n{}", "|BROKEN", "without Content-Length" },
    { RD_FRAMING_HEADER, "hello\r\n\r\n", "|BROKEN", "without a colon: \"hello\"" },
    { RD_FRAMING_HEADER, ":\r\nx:\r\n : 7\r\nContent-Lengtt: 7\r\nContent-Length: 2\r\n\r\n{}",
      "|{}", NULL },
    { RD_FRAMING_HEADER, "a line that is longer than what is quoted of it\r\n", "|BROKEN",
      "\"a line that is longer than what is quote\"" },
    { RD_FRAMING_HEADER, "Content-Length: a number that is longer than that\r\n", "|BROKEN",
      "\"Content-Length: a number that is longer \"" },
    { RD_FRAMING_HEADER, "Content-Length: -1\r\n\r\n", "|BROKEN", "not a number" },
    { RD_FRAMING_HEADER, "Content-Length: +1\r\n\r\n", "|BROKEN", "not a number" },
    { RD_FRAMING_HEADER, "Content-Length: 0x2\r\n\r\n{}", "|BROKEN", "not a number" },
    { RD_FRAMING_HEADER, "Content-Length:\r\n\r\n{}", "|BROKEN", "not a number" },
    { RD_FRAMING_HEADER, "Content-Length: 2 2\r\n\r\n{}", "|BROKEN", "not a number" },
    { RD_FRAMING_HEADER, "Content-Length: 41\r\n\r\n", "|BROKEN", "more than 40 bytes" },
    { RD_FRAMING_HEADER, "Content-Length: 4294967296\r\n\r\n", "|BROKEN", "more than 40 bytes" },
    { RD_FRAMING_HEADER, "Content-Length: 9223372036854775808\r\n\r\n", "|BROKEN",
      "more than 40 bytes" },
    { RD_FRAMING_HEADER, "Content-Length: 18446744073709551618\r\n\r\n{}", "|BROKEN",
      "more than 40 bytes" },
    { RD_FRAMING_HEADER, "Content-Length: 5\r\n\r\n{}", "|BROKEN", "3 bytes before the end" },
    { RD_FRAMING_HEADER, "Content-Length: 5\r\n", "|BROKEN", "inside a header block" },
    /* Text in a body that looks like a frame is none: 22 bytes of it. */
    { RD_FRAMING_HEADER, "Content-Length: 22\r\n\r\nContent-Length: 1\r\n\r\n7",
      "|Content-Length: 1\r\n\r\n7", NULL },
    { RD_FRAMING_LINE, "{}\n[1]\r\n\n \r\n7\n", "|{}|[1]|7", NULL },
    { RD_FRAMING_LINE, "{}", "|{}", NULL },
    { RD_FRAMING_LINE, "", "", NULL },
    { RD_FRAMING_LINE, "0123456789012345678901234567890123456789x\n{}\n", "|!|{}", NULL },
    { RD_FRAMING_LINE, "0123456789012345678901234567890123456789\n{}\n",
      "|0123456789012345678901234567890123456789|{}", NULL },
    { RD_FRAMING_ANY, "\n {\"a\":1}\n{}\n", "|{\"a\":1}|{}", NULL },
    { RD_FRAMING_ANY, "[]\n", "|[]", NULL },
    { RD_FRAMING_ANY, "Content-Length: 2\r\n\r\n{}", "|{}", NULL },
    { RD_FRAMING_ANY, "\r\n", "", NULL },
};

Test(wire, cuts_the_stream_alike_for_pieces_of_any_size, .timeout = 60)
{
    static const size_t steps[] = { 1, 2, 3, 7, 1000, 0 };
    rd_buf seen = { 0 };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (size_t k = 0; k < sizeof steps / sizeof *steps; k++) {
            const wire_case *c = &cases[i];
            rd_error err = { 0 };
            const char *why = c->why;

            feed(c->framing, 40, c->in, strlen(c->in), steps[k], true, &seen, &err);
            cr_assert_str_eq(seen.data, c->frames, "case %zu, pieces of %zu: %s", i, steps[k],
                             seen.data);
            if (why) cr_assert(strstr(err.text, why), "case %zu: %s", i, err.text);
        }
    }
    rd_buf_clear(&seen);
}

Test(wire, refuses_a_header_block_that_does_not_end)
{
    rd_buf in = { 0 }, seen = { 0 };
    rd_error err = { 0 };

    while (in.len <= RD_MOST_HEADER_BYTES) rd_buf_text(&in, "X-Header: y\r\n");
    feed(RD_FRAMING_HEADER, 100, in.data, in.len, 5, false, &seen, &err);
    cr_assert_str_eq(seen.data, "|BROKEN");
    cr_assert(strstr(err.text, "header block of more than 4096"), "%s", err.text);

    rd_buf_reset(&in);
    while (in.len <= RD_MOST_HEADER_BYTES) rd_buf_text(&in, "xxxxxxxx"); /* one line */
    feed(RD_FRAMING_HEADER, 100, in.data, in.len, 0, false, &seen, &err);
    cr_assert_str_eq(seen.data, "|BROKEN");
    rd_buf_clear(&in);
    rd_buf_clear(&seen);
}

Test(wire, reads_back_what_it_writes_whatever_the_pieces, .timeout = 60)
{
    rd_random r = rd_random_seed(11);
    rd_buf stream = { 0 }, want = { 0 }, seen = { 0 };
    char body[3000];

    for (int round = 0; round < 40; round++) {
        rd_framing framing = round % 2 ? RD_FRAMING_HEADER : RD_FRAMING_LINE;
        rd_error err = { 0 };

        rd_buf_reset(&stream);
        rd_buf_reset(&want);
        rd_buf_text(&want, "");
        for (int k = 0; k < 20; k++) {
            size_t n = 1 + rd_random_below(&r, sizeof body);

            for (size_t i = 0; i < n; i++) {
                body[i] = (char)rd_random_below(&r, 256);
                if (framing == RD_FRAMING_LINE && strchr("\r\n \t", body[i])) body[i] = 'x';
            }
            rd_wire_write(&stream, framing, body, n);
            rd_buf_text(&want, "|");
            rd_buf_append(&want, body, n);
        }
        feed(framing, sizeof body, stream.data, stream.len, round < 4 ? 1 : 0, true, &seen, &err);
        cr_assert(seen.len == want.len && !memcmp(seen.data, want.data, want.len), "round %d",
                  round);
    }
    rd_buf_clear(&stream);
    rd_buf_clear(&want);
    rd_buf_clear(&seen);
}

Test(wire, writes_one_line_for_a_message_with_line_ends_between_its_values)
{
    rd_buf out = { 0 };

    rd_wire_write(&out, RD_FRAMING_LINE, "{\n\"a\":\n1}", 9);
    cr_assert_str_eq(out.data, "{ \"a\": 1}\n");
    rd_buf_clear(&out);
}

Test(wire, takes_a_frame_of_the_most_bytes_and_not_one_more, .timeout = 60)
{
    rd_buf in = { 0 }, seen = { 0 };
    rd_error err = { 0 };
    char *body = malloc(RD_MOST_FRAME_BYTES + 1);

    memset(body, 'x', RD_MOST_FRAME_BYTES + 1);
    rd_wire_write(&in, RD_FRAMING_HEADER, body, RD_MOST_FRAME_BYTES);
    feed(RD_FRAMING_HEADER, RD_MOST_FRAME_BYTES, in.data, in.len, 65536, true, &seen, &err);
    cr_assert_eq(seen.len, RD_MOST_FRAME_BYTES + 1);

    rd_buf_reset(&in);
    rd_wire_write(&in, RD_FRAMING_HEADER, body, RD_MOST_FRAME_BYTES + 1);
    feed(RD_FRAMING_HEADER, RD_MOST_FRAME_BYTES, in.data, in.len, 65536, true, &seen, &err);
    cr_assert_str_eq(seen.data, "|BROKEN");
    free(body);
    rd_buf_clear(&in);
    rd_buf_clear(&seen);
}

Test(wire, knows_what_the_stream_turned_out_to_be)
{
    static const char line[] = "\n{}\n", header[] = "C", blank[] = "\r\n ";
    static const struct {
        rd_framing as, then;
        const char *in;
    } streams[] = { { RD_FRAMING_ANY, RD_FRAMING_LINE, line },
                    { RD_FRAMING_ANY, RD_FRAMING_HEADER, header },
                    { RD_FRAMING_ANY, RD_FRAMING_ANY, blank },
                    { RD_FRAMING_LINE, RD_FRAMING_LINE, header } };

    for (size_t i = 0; i < sizeof streams / sizeof *streams; i++) {
        rd_wire *w = rd_wire_new(streams[i].as, 100);
        const char *p = streams[i].in;
        size_t n = strlen(p);
        rd_frame f;

        rd_wire_read(w, &p, &n, &f, NULL);
        cr_assert_eq(rd_wire_framing(w), streams[i].then, "stream %zu", i);
        rd_wire_free(w);
    }
    rd_wire_free(NULL);
}

Test(wire, stays_broken_at_the_end_of_the_stream_too)
{
    rd_wire *w = rd_wire_new(RD_FRAMING_HEADER, 100);
    const char *p = "hello\n";
    size_t n = 6;
    rd_error err = { 0 };
    rd_frame f;

    cr_assert_eq(rd_wire_read(w, &p, &n, &f, NULL), RD_WIRE_BROKEN);
    cr_assert_eq(rd_wire_end(w, &f, &err), RD_WIRE_BROKEN);
    cr_assert(strstr(err.text, "without a colon"), "%s", err.text);
    cr_assert_eq(rd_wire_framing(w), RD_FRAMING_HEADER, "for a last word to the peer");
    rd_wire_free(w);
}
