/* header.c - one pass over the bytes; whatever is not expected ends it. */
#include "core/format/header.h"

#include <string.h>

enum { DIGITS_MOST = 18 }; /* of a number: below 2^63 whatever they are */

static void skip_space(rd_header_scan *s)
{
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\n' || *s->at == '\t' || *s->at == '\r'))
        s->at++;
}

/* The next byte that is no space is `c`, and is passed. */
static bool passes(rd_header_scan *s, char c)
{
    skip_space(s);
    if (s->at == s->end || *s->at != c) return false;
    s->at++;
    return true;
}

/* A text of printable ASCII without escapes. */
static bool plain_text(rd_header_scan *s, rd_span *out)
{
    if (!passes(s, '"')) return false;
    const char *from = s->at;

    while (s->at < s->end && *s->at >= ' ' && *s->at <= '~' && *s->at != '"' && *s->at != '\\')
        s->at++;
    *out = (rd_span){ from, (size_t)(s->at - from) };
    return s->at < s->end && *s->at++ == '"';
}

static bool is(rd_span text, const char *word)
{
    return text.n == strlen(word) && !memcmp(text.at, word, text.n);
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* What follows a number decides whether it was one: 8.0 and 1e3 end at a byte that no list has there. */
static bool whole_number(rd_header_scan *s, int64_t *out)
{
    skip_space(s);
    const char *from = s->at;
    int64_t x = 0;

    while (s->at < s->end && is_digit(*s->at) && s->at - from < DIGITS_MOST)
        x = 10 * x + (*s->at++ - '0');
    if (s->at == from || (*from == '0' && s->at - from > 1)) return false;
    *out = x;
    return true;
}

/* [1, 2...] of at most `most` numbers, which may be none. */
static bool number_list(rd_header_scan *s, int64_t *out, int most, int *n)
{
    *n = 0;
    if (!passes(s, '[')) return false;
    if (passes(s, ']')) return true;
    do {
        if (*n == most || !whole_number(s, &out[(*n)++])) return false;
    } while (passes(s, ','));
    return passes(s, ']');
}

enum { DTYPE = 1, SHAPE = 2, OFFSETS = 4, ALL = 7 };

/* One key of a tensor and its value; `*seen` gets its bit. */
static bool field(rd_header_scan *s, rd_header_entry *e, unsigned *seen)
{
    rd_span key, text;
    int64_t offset[2];
    unsigned what;
    int n;

    if (!plain_text(s, &key) || !passes(s, ':')) return false;
    if (is(key, "dtype")) {
        what = DTYPE;
        if (!plain_text(s, &text) || text.n >= sizeof e->dtype) return false;
        memcpy(e->dtype, text.at, text.n);
    } else if (is(key, "shape")) {
        what = SHAPE;
        if (!number_list(s, e->shape, RD_HEADER_RANK, &e->rank)) return false;
    } else if (is(key, "data_offsets")) {
        what = OFFSETS;
        if (!number_list(s, offset, 2, &n) || n != 2) return false;
        e->begin = offset[0];
        e->end = offset[1];
    } else {
        return false;
    }
    bool again = *seen & what;

    *seen |= what;
    return !again;
}

static bool tensor(rd_header_scan *s, rd_header_entry *e)
{
    unsigned seen = 0;

    if (!passes(s, '{')) return false;
    do {
        if (!field(s, e, &seen)) return false;
    } while (passes(s, ','));
    return passes(s, '}') && seen == ALL;
}

/* An object of texts, which may have escapes: to its end, for someone else to read. */
static bool object_of_texts(rd_header_scan *s, rd_span *out)
{
    skip_space(s);
    const char *from = s->at;

    if (!passes(s, '{')) return false;
    for (; s->at < s->end && *s->at != '}'; s->at++) {
        if (*s->at == '{' || *s->at == '[') return false;
        if (*s->at != '"') continue;
        for (s->at++; s->at < s->end && *s->at != '"'; s->at++)
            if (*s->at == '\\' && ++s->at == s->end) return false;
        if (s->at == s->end) return false;
    }
    if (s->at == s->end) return false;
    s->at++;
    *out = (rd_span){ from, (size_t)(s->at - from) };
    return true;
}

void rd_header_begin(rd_header_scan *s, const char *text, size_t n)
{
    *s = (rd_header_scan){ .at = text, .end = text + n };
}

/* Nothing but spaces behind the last brace. */
static bool ends(rd_header_scan *s)
{
    if (!passes(s, '}')) return false;
    skip_space(s);
    s->over = s->at == s->end;
    return true;
}

bool rd_header_next(rd_header_scan *s, rd_header_entry *out)
{
    if (s->over) return false;
    if (!s->entries && (!passes(s, '{') || ends(s))) return false;
    if (s->entries && !passes(s, ',')) {
        ends(s);
        return false;
    }
    *out = (rd_header_entry){ 0 };
    if (!plain_text(s, &out->name) || !passes(s, ':')) return false;
    s->entries++;
    return is(out->name, "__metadata__") ? object_of_texts(s, &out->meta) : tensor(s, out);
}
