/* fuzz_edits.c - libFuzzer: a text and a sequence of edits from any bytes; text, lines, positions and the shifting of a
 * span equal those of the plain reference, in all three encodings. */
#include "lsp/document.h"
#include "tests/lsp/reference.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n);

static const char *const parts[] = {
    "a", "\n", "\r\n",       "\r", "\xc3\xa9", "\xe4\xb8\xad", "\xf0\x9f\x98\x80", "\xef\xbb\xbf",
    " ", "",   "return x;\n"
};

typedef struct input {
    const unsigned char *s;
    size_t n, at;
} input;

static unsigned next(input *in)
{
    return in->at < in->n ? in->s[in->at++] : 0;
}

/* Some text; now and then a piece often enough to cross chunks. */
static void next_text(input *in, rd_buf *out)
{
    rd_buf_reset(out);
    rd_buf_text(out, "");
    for (unsigned k = next(in) % 8; k > 0; k--) {
        unsigned b = next(in), times = b >= 250 ? 1500 : b >= 240 ? 60 : 1;

        while (times-- > 0) rd_buf_text(out, parts[b % (sizeof parts / sizeof *parts)]);
    }
}

static void check(const rd_text *t, const reference *r, input *in)
{
    rd_encoding e = (rd_encoding)(next(in) % 3);
    rd_position at = { next(in) % 20, next(in) * (next(in) % 8 == 0 ? 30u : 1u) };
    size_t offset = (next(in) * 256u + next(in)) % (r->text.len + 1);
    rd_position p = rd_text_position(t, offset, e), q = ref_position(r, offset, e);
    rd_buf copy = { 0 };

    rd_text_copy(t, 0, SIZE_MAX, &copy);
    if (copy.len != r->text.len || (copy.len && memcmp(copy.data, r->text.data, copy.len) != 0))
        __builtin_trap();
    rd_buf_clear(&copy);
    if (rd_text_lines(t) != ref_lines(r)) __builtin_trap();
    if (p.line != q.line || p.character != q.character) __builtin_trap();
    if (rd_text_offset(t, at, e) != ref_offset(r, at, e)) __builtin_trap();
    if (rd_text_memory(t) > 3 * r->text.len + 65536) __builtin_trap();
}

/* A span that was shifted holds the bytes it held. */
static void check_span(const rd_document *doc, uint64_t revision, size_t start, const rd_buf *span)
{
    size_t end = start + span->len;
    rd_buf now = { 0 };

    if (rd_document_shift(doc, revision, &start, &end)) return;
    rd_text_copy(rd_document_text(doc), start, end, &now);
    if (now.len != span->len || (now.len && memcmp(now.data, span->data, now.len) != 0))
        __builtin_trap();
    rd_buf_clear(&now);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n)
{
    input in = { data, n, 0 };
    rd_documents *d = rd_documents_new();
    reference r = { 0 };
    rd_buf text = { 0 }, span = { 0 };

    next_text(&in, &r.text);
    rd_documents_open(d, "u", "", 0, r.text.data, r.text.len, NULL);
    rd_document *doc = rd_documents_find(d, "u");
    const rd_text *t = rd_document_text(doc);
    uint64_t revision = rd_document_revision(doc);
    size_t start = (next(&in) * 256u + next(&in)) % (r.text.len + 1), end = start + next(&in) % 20;

    rd_text_copy(t, start, end, &span);
    for (int step = 0; step < 60 && in.at < in.n; step++) {
        unsigned how = next(&in);
        rd_encoding e = (rd_encoding)(how % 3);
        rd_position a = { next(&in) % 30, next(&in) }, b = { a.line + next(&in) % 4, next(&in) };

        next_text(&in, &text);
        if (how >= 240) { /* the whole text */
            rd_document_set_text(doc, text.data, text.len, NULL);
            ref_replace(&r, 0, r.text.len, text.data, text.len);
        } else {
            size_t from = ref_offset(&r, a, e), to = ref_offset(&r, b, e);

            if (from > to) to = from;
            if (rd_text_offset(t, a, e) != from) __builtin_trap();
            rd_document_edit(doc, from, to, text.data, text.len, NULL);
            ref_replace(&r, from, to, text.data, text.len);
        }
        check(t, &r, &in);
        check_span(doc, revision, start, &span);
    }
    rd_buf_clear(&text);
    rd_buf_clear(&span);
    rd_buf_clear(&r.text);
    rd_documents_free(d);
    return 0;
}
