/* text.c - a flat array of chunks, each with its counts.
 *
 * Characters are counted by their first byte, so that a chunk may end inside of one. A line end counts for
 * the chunk of its last byte; a '\r' at the end of a chunk is one only if the next chunk does not begin with '\n'.
 */
#include "lsp/text.h"

#include "core/base/memory.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_BYTES ((size_t)4096) /* at most */
#define FILL_BYTES  ((size_t)3072) /* of a new chunk: room for what is typed into it */
#define THIN_BYTES  ((size_t)1536) /* a chunk that was touched and has less joins its neighbour */

typedef struct chunk {
    char *data; /* CHUNK_BYTES of room */
    uint16_t n;
    uint16_t lines; /* line ends */
    uint16_t later,
        wide; /* bytes that do not begin a character, and those that begin one of four bytes */
    bool starts_lf, ends_cr, has_cr;
} chunk;

struct rd_text {
    chunk *chunks;
    size_t count, cap;
    size_t bytes, lines; /* sums */
};

/* A place: byte `in` of chunk `i`, or the end of the last chunk. */
typedef struct place {
    size_t i, in;
} place;

static bool begins(char c)
{
    return ((unsigned char)c & 0xc0) != 0x80;
}

static size_t units_of(char c, rd_encoding e)
{
    if (e == RD_UTF8) return 1;
    if (!begins(c)) return 0;
    return e == RD_UTF16 && (unsigned char)c >= 0xf0 ? 2 : 1;
}

static size_t chunk_units(const chunk *c, rd_encoding e)
{
    if (e == RD_UTF8) return c->n;
    return (size_t)c->n - c->later + (e == RD_UTF16 ? c->wide : 0);
}

/* Fill in all counts but for a '\r' at the end, which counts as a line end here. */
static void measure(chunk *c)
{
    const unsigned char *s = (const unsigned char *)c->data;
    unsigned later = 0, wide = 0, feeds = 0, returns = 0, pairs = 0;

    for (size_t k = 0; k < c->n; k++) {
        later += (s[k] & 0xc0) == 0x80;
        wide += s[k] >= 0xf0;
        feeds += s[k] == '\n';
        returns += s[k] == '\r';
    }
    for (size_t k = 1; k < c->n; k++) pairs += (s[k - 1] == '\r') & (s[k] == '\n');
    c->later = (uint16_t)later;
    c->wide = (uint16_t)wide;
    c->lines = (uint16_t)(feeds + returns - pairs);
    c->has_cr = returns > 0;
    c->starts_lf = c->n > 0 && s[0] == '\n';
    c->ends_cr = c->n > 0 && s[c->n - 1] == '\r';
}

/* Whether the '\r' at the end of chunk i is the first half of a line end. */
static bool is_joined(const rd_text *t, size_t i)
{
    return t->chunks[i].ends_cr && i + 1 < t->count && t->chunks[i + 1].starts_lf;
}

static size_t chunk_lines(const rd_text *t, size_t i)
{
    return (size_t)t->chunks[i].lines - is_joined(t, i);
}

static place find_offset(const rd_text *t, size_t offset)
{
    place p = { 0, offset };

    while (p.i + 1 < t->count && p.in >= t->chunks[p.i].n) p.in -= t->chunks[p.i++].n;
    return p;
}

static size_t clamp(size_t a, size_t most)
{
    return a < most ? a : most;
}

/* ---- the store ---- */

/* Bytes that are to be laid out in new chunks: a few stretches one after the other. */
typedef struct stretch {
    const char *s;
    size_t n;
} stretch;

static void fill(chunk *c, size_t want, stretch **from)
{
    c->data = rd_alloc_array(CHUNK_BYTES, 1);
    c->n = 0;
    while (want > 0) {
        size_t take = clamp(want, (*from)->n);

        if (take) memcpy(c->data + c->n, (*from)->s, take);
        c->n = (uint16_t)(c->n + take);
        want -= take;
        (*from)->s += take;
        (*from)->n -= take;
        if ((*from)->n == 0) (*from)++;
    }
    measure(c);
}

/* Make room for `fresh` chunks in the place of [i, j), whose data the caller frees. */
static void make_room(rd_text *t, size_t i, size_t j, size_t fresh)
{
    size_t count = t->count - (j - i) + fresh;

    if (count > t->cap) {
        t->cap = count + count / 4 + 4;
        t->chunks = rd_resize(t->chunks, t->cap, sizeof *t->chunks);
    }
    if (t->count > j)
        memmove(&t->chunks[i + fresh], &t->chunks[j], (t->count - j) * sizeof *t->chunks);
    t->count = count;
}

static size_t sum_lines(const rd_text *t, size_t i, size_t j)
{
    size_t lines = 0;

    for (; i < j; i++) lines += chunk_lines(t, i);
    return lines;
}

/* The chunks [i, j) become the bytes of `parts`, which end with an empty one and may lie in those chunks. */
static void lay_out(rd_text *t, size_t i, size_t j, stretch *parts, size_t total)
{
    size_t fresh = (total + FILL_BYTES - 1) / FILL_BYTES, old_count = j - i;
    chunk *old = rd_alloc_array(old_count + 1, sizeof *old);
    size_t before = i > 0 ? i - 1 : 0; /* its '\r' may join or part */

    t->lines -= sum_lines(t, before, j);
    if (old_count) memcpy(old, &t->chunks[i], old_count * sizeof *old);
    make_room(t, i, j, fresh);
    for (size_t k = 0; k < fresh; k++) {
        size_t want = total / (fresh - k);

        fill(&t->chunks[i + k], want, &parts);
        total -= want;
    }
    for (size_t k = 0; k < old_count; k++) free(old[k].data);
    free(old);
    t->lines += sum_lines(t, before, i + fresh);
}

/* The common case: the edit stays inside one chunk. */
static bool edit_in_place(rd_text *t, place a, place b, const char *bytes, size_t n)
{
    chunk *c = &t->chunks[a.i];
    size_t left = c->n - (b.in - a.in);

    if (a.i != b.i || left + n > CHUNK_BYTES || left + n < THIN_BYTES) return false;
    size_t before = a.i > 0 ? a.i - 1 : 0;

    t->lines -= sum_lines(t, before, a.i + 1);
    memmove(c->data + a.in + n, c->data + b.in, c->n - b.in);
    if (n) memcpy(c->data + a.in, bytes, n);
    c->n = (uint16_t)(left + n);
    measure(c);
    t->lines += sum_lines(t, before, a.i + 1);
    return true;
}

void rd_text_replace(rd_text *t, size_t start, size_t end, const char *bytes, size_t n)
{
    end = clamp(end, t->bytes);
    start = clamp(start, end);
    if (start == end && n == 0) return;
    place a = find_offset(t, start), b = find_offset(t, end);
    size_t old_bytes = t->bytes;

    t->bytes = old_bytes - (end - start) + n;
    if (t->count > 0 && edit_in_place(t, a, b, bytes, n)) return;
    stretch parts[6] = { 0 };
    size_t i = a.i, j = t->count ? b.i + 1 : 0, k = 0, total = n;

    if (t->count) {
        total += a.in + t->chunks[b.i].n - b.in;
        if (total < THIN_BYTES && i > 0) {
            parts[k++] = (stretch){ t->chunks[i - 1].data, t->chunks[i - 1].n };
            total += t->chunks[--i].n;
        }
        parts[k++] = (stretch){ t->chunks[a.i].data, a.in };
    }
    parts[k++] = (stretch){ bytes, n };
    if (t->count) {
        parts[k++] = (stretch){ t->chunks[b.i].data + b.in, t->chunks[b.i].n - b.in };
        if (total < THIN_BYTES && j < t->count) {
            parts[k++] = (stretch){ t->chunks[j].data, t->chunks[j].n };
            total += t->chunks[j++].n;
        }
    }
    lay_out(t, i, j, parts, total);
}

rd_text *rd_text_new(const char *bytes, size_t n)
{
    rd_text *t = rd_alloc0(sizeof *t);

    rd_text_replace(t, 0, 0, bytes, n);
    return t;
}

void rd_text_free(rd_text *t)
{
    if (!t) return;
    for (size_t i = 0; i < t->count; i++) free(t->chunks[i].data);
    free(t->chunks);
    free(t);
}

size_t rd_text_bytes(const rd_text *t)
{
    return t->bytes;
}

size_t rd_text_lines(const rd_text *t)
{
    return t->lines + 1;
}

size_t rd_text_memory(const rd_text *t)
{
    return sizeof *t + t->cap * sizeof *t->chunks + t->count * CHUNK_BYTES;
}

void rd_text_copy(const rd_text *t, size_t start, size_t end, rd_buf *out)
{
    end = clamp(end, t->bytes);
    start = clamp(start, end);
    place p = find_offset(t, start);

    for (size_t left = end - start; left > 0; p = (place){ p.i + 1, 0 }) {
        size_t take = clamp(left, t->chunks[p.i].n - p.in);

        rd_buf_append(out, t->chunks[p.i].data + p.in, take);
        left -= take;
    }
}

static char byte_at(const rd_text *t, size_t offset)
{
    place p = find_offset(t, offset);

    return t->chunks[p.i].data[p.in];
}

/* The first byte of the character that holds `offset`, not before `floor`. */
static size_t round_down(const rd_text *t, size_t offset, size_t floor)
{
    while (offset > floor && offset < t->bytes && !begins(byte_at(t, offset))) offset--;
    return offset;
}

void rd_text_common(const rd_text *t, const char *bytes, size_t n, size_t *front, size_t *back)
{
    size_t most = clamp(t->bytes, n), f = 0, b = 0;

    for (place p = { 0, 0 }; f < most && p.i < t->count; p = (place){ p.i + 1, 0 }) {
        const chunk *c = &t->chunks[p.i];

        while (p.in < c->n && f < most && c->data[p.in] == bytes[f]) f++, p.in++;
        if (p.in < c->n) break;
    }
    while (f > 0 && ((f < n && !begins(bytes[f])) || (f < t->bytes && !begins(byte_at(t, f))))) f--;
    for (size_t i = t->count; i-- > 0 && b < most - f;) {
        const chunk *c = &t->chunks[i];
        size_t in = c->n;

        while (in > 0 && b < most - f && c->data[in - 1] == bytes[n - 1 - b]) b++, in--;
        if (in > 0) break;
    }
    while (b > 0 && !begins(bytes[n - b])) b--;
    *front = f;
    *back = b;
}

/* ---- lines and positions ---- */

/* Whether a line end ends with byte k of chunk i. */
static bool ends_line(const rd_text *t, size_t i, size_t k)
{
    const chunk *c = &t->chunks[i];

    if (c->data[k] == '\n') return true;
    if (c->data[k] != '\r') return false;
    return k + 1 < c->n ? c->data[k + 1] != '\n' : !is_joined(t, i);
}

/* The next byte of chunk i, from k on, that ends a line; the chunk's length when there is none. */
static size_t next_line_end(const rd_text *t, size_t i, size_t k)
{
    const chunk *c = &t->chunks[i];

    if (!c->has_cr) {
        const char *end = memchr(c->data + k, '\n', c->n - k);

        return end ? (size_t)(end - c->data) : c->n;
    }
    while (k < c->n && !ends_line(t, i, k)) k++;
    return k;
}

/* Where a line begins, which must be there, as a place and as an offset. */
static place find_line(const rd_text *t, size_t line, size_t *offset)
{
    place p = { 0, 0 };
    size_t lines;

    *offset = 0;
    if (line == 0) return p;
    while ((lines = chunk_lines(t, p.i)) < line) {
        line -= lines;
        *offset += t->chunks[p.i++].n;
    }
    while (line-- > 0) p.in = next_line_end(t, p.i, p.in) + 1;
    *offset += p.in;
    return p;
}

size_t rd_text_line_start(const rd_text *t, size_t line)
{
    size_t offset = t->bytes;

    if (line <= t->lines) find_line(t, line, &offset);
    return offset;
}

size_t rd_text_line_end(const rd_text *t, size_t line)
{
    if (line >= t->lines) return t->bytes;
    size_t end = rd_text_line_start(t, line + 1) - 1;

    return end > 0 && byte_at(t, end) == '\n' && byte_at(t, end - 1) == '\r' ? end - 1 : end;
}

/* From the beginning of a line to the character that holds its unit `character`, or to the line's end. */
static size_t walk(const rd_text *t, place p, size_t at, size_t character, rd_encoding e)
{
    for (size_t seen = 0; p.i < t->count; p = (place){ p.i + 1, 0 }) {
        const chunk *c = &t->chunks[p.i];

        if (p.in == 0 && c->lines == 0 && seen + chunk_units(c, e) <= character) {
            seen += chunk_units(c, e);
            at += c->n;
            continue;
        }
        for (; p.in < c->n; p.in++, at++) {
            size_t units = units_of(c->data[p.in], e);

            if (c->data[p.in] == '\n' || c->data[p.in] == '\r') return at;
            if (units && seen + units > character) return at;
            seen += units;
        }
    }
    return at;
}

size_t rd_text_offset(const rd_text *t, rd_position at, rd_encoding e)
{
    size_t start, found;

    if (at.line > t->lines) return t->bytes;
    place p = find_line(t, at.line, &start);

    found = walk(t, p, start, at.character, e);
    return e == RD_UTF8 ? round_down(t, found, start) : found;
}

/* Line ends that are whole before `offset`. */
static size_t lines_before(const rd_text *t, size_t offset)
{
    place p = find_offset(t, offset);
    size_t lines = t->count ? sum_lines(t, 0, p.i) : 0;

    if (p.in == 0) return lines;
    for (size_t k = 0; (k = next_line_end(t, p.i, k)) < p.in; k++) lines++;
    return lines;
}

static size_t units_between(const rd_text *t, size_t start, size_t end, rd_encoding e)
{
    place p = find_offset(t, start);
    size_t units = 0;

    for (size_t left = end - start; left > 0; p = (place){ p.i + 1, 0 }) {
        const chunk *c = &t->chunks[p.i];
        size_t take = clamp(left, c->n - p.in);

        if (take == c->n)
            units += chunk_units(c, e);
        else
            for (size_t k = 0; k < take; k++) units += units_of(c->data[p.in + k], e);
        left -= take;
    }
    return units;
}

rd_position rd_text_position(const rd_text *t, size_t offset, rd_encoding e)
{
    offset = clamp(offset, t->bytes);
    size_t line = lines_before(t, offset), start = rd_text_line_start(t, line);

    offset = round_down(t, clamp(offset, rd_text_line_end(t, line)), start);
    return (rd_position){ (uint32_t)line, (uint32_t)units_between(t, start, offset, e) };
}
