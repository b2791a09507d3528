/* repair.c - one pass over a frame writes the JSON that is parsed and sets the long texts aside.
 *
 * The pass follows just enough of the grammar to know a key from a value; where the frame is not JSON it may be wrong
 * about that, and then the library refuses the frame.
 */
#include "lsp/repair.h"

#include "core/base/memory.h"
#include "lsp/limits.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define LONG_BYTES ((size_t)64) /* texts from here on go round the JSON library */
#define FFFD       "\xef\xbf\xbd"

/* A text that was set aside: an empty string stands in its place, the `ordinal`th string value of the frame. */
typedef struct cut {
    size_t ordinal;
    rd_buf text;
} cut;

typedef struct pass {
    const char *s;
    size_t n, at;
    rd_encoding encoding;
    rd_buf json;
    cut *cuts;
    size_t cut_count, cut_cap, cut_bytes;
    size_t values, strings; /* seen so far: values at most, string values */
    size_t text_bytes;      /* set aside, as they stood in the frame */
    int depth;
    bool in_object[RD_MOST_JSON_DEPTH + 1];
    bool is_value; /* the next string is a value, not a key */
    bool is_text;  /* and its key names document text */
} pass;

static void clear(pass *p)
{
    for (size_t i = 0; i < p->cut_count; i++) rd_buf_clear(&p->cuts[i].text);
    free(p->cuts);
    rd_buf_clear(&p->json);
}

/* What stands for a byte that is no character, or for half a pair that is written as one: as many units as the client
 * counts for it. Returns the bytes it takes from the input. */
static size_t repair_byte(const char *s, size_t n, rd_encoding encoding, rd_buf *out)
{
    size_t half = rd_utf8_surrogate_bytes(s, n);

    rd_buf_text(out, half || encoding != RD_UTF8 ? FFFD : "?");
    return half ? half : 1;
}

void rd_repair_text(const char *bytes, size_t n, rd_encoding encoding, rd_buf *out)
{
    size_t from = 0, at = 0;

    while (at < n) {
        size_t len = rd_utf8_bytes(bytes + at, n - at);

        if (len) {
            at += len;
            continue;
        }
        rd_buf_append(out, bytes + from, at - from);
        at += repair_byte(bytes + at, n - at, encoding, out);
        from = at;
    }
    if (n > from) rd_buf_append(out, bytes + from, n - from);
}

json_t *rd_repair_string(const char *bytes, size_t n)
{
    rd_buf clean = { 0 };

    rd_buf_append(&clean, "", 0);
    rd_repair_text(bytes, n, RD_UTF16, &clean);
    json_t *text = json_stringn_nocheck(clean.data, clean.len);

    rd_buf_clear(&clean);
    return text;
}

/* Four hexadecimal digits at s, or -1. */
static int hex4(const char *s, size_t n)
{
    int value = 0;

    if (n < 4) return -1;
    for (int i = 0; i < 4; i++) {
        char c = s[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;

        if (digit < 0) return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* The character of the \u escape at s (its backslash), with the length of the escape; half a pair is U+FFFD. -1 when it is
 * no such escape. */
static int32_t unicode_escape(const char *s, size_t n, size_t *len)
{
    int high = n >= 6 ? hex4(s + 2, n - 2) : -1;

    *len = 6;
    if (high < 0xd800 || high > 0xdfff) return high;
    int low = high < 0xdc00 && n >= 12 && s[6] == '\\' && s[7] == 'u' ? hex4(s + 8, n - 8) : -1;

    if (low < 0xdc00 || low > 0xdfff) return 0xfffd;
    *len = 12;
    return 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
}

static void append_character(rd_buf *out, int32_t c)
{
    char u[4];
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const unsigned char lead[] = { 0, 0, 0xc0, 0xe0, 0xf0 };

    for (size_t i = n; i-- > 1; c >>= 6) u[i] = (char)(0x80 | (c & 0x3f));
    u[0] = (char)(lead[n] | c);
    rd_buf_append(out, u, n);
}

/* Bytes from `at` that need nothing done to them inside a string. */
static size_t plain_run(const char *s, size_t n, size_t at)
{
    size_t from = at;

    while (at < n) {
        unsigned char c = (unsigned char)s[at];

        if (c >= ' ' && c < 0x80 && c != '"' && c != '\\') {
            at++;
            continue;
        }
        size_t len = c < 0x80 ? 0 : rd_utf8_bytes(s + at, n - at);

        if (len == 0) break;
        at += len;
    }
    return at - from;
}

/* The string's inside, s[at, end), to JSON again: repaired, escapes kept. */
static void copy_string(pass *p, size_t at, size_t end)
{
    rd_buf *out = &p->json;

    rd_buf_text(out, "\"");
    while (at < end) {
        size_t run = plain_run(p->s, end, at), len;

        rd_buf_append(out, p->s + at, run);
        at += run;
        if (at >= end) break;
        unsigned char c = (unsigned char)p->s[at];

        if (c == '\\' && at + 1 < end && p->s[at + 1] == 'u') {
            if (unicode_escape(p->s + at, end - at, &len) == 0xfffd)
                rd_buf_text(out, "\\ufffd");
            else
                rd_buf_append(out, p->s + at, len < end - at ? len : end - at);
            at += len < end - at ? len : end - at;
        } else if (c == '\\') {
            len = end - at < 2 ? 1 : 2;
            rd_buf_append(out, p->s + at, len);
            at += len;
        } else if (c < ' ') {
            rd_buf_format(out, "\\u%04x", c);
            at++;
        } else {
            at += repair_byte(p->s + at, end - at, p->encoding, out);
        }
    }
    rd_buf_text(out, "\"");
}

/* The same to plain text. False when an escape is none. */
static bool decode_string(pass *p, size_t at, size_t end, rd_buf *out)
{
    static const char names[] = "\"\\/bfnrt", means[] = "\"\\/\b\f\n\r\t";

    while (at < end) {
        size_t run = plain_run(p->s, end, at);

        rd_buf_append(out, p->s + at, run);
        at += run;
        if (at >= end) break;
        char c = p->s[at];

        if (c == '\\' && at + 1 < end && p->s[at + 1] == 'u') {
            size_t len;
            int32_t character = unicode_escape(p->s + at, end - at, &len);

            if (character < 0) return false;
            append_character(out, character);
            at += len;
        } else if (c == '\\') {
            const char *name = at + 1 < end && p->s[at + 1] ? strchr(names, p->s[at + 1]) : NULL;

            if (!name) return false;
            rd_buf_append(out, &means[name - names], 1);
            at += 2;
        } else if ((unsigned char)c < ' ') {
            rd_buf_append(out, &c, 1);
            at++;
        } else {
            at += repair_byte(p->s + at, end - at, p->encoding, out);
        }
        if (out->len > RD_MOST_TEXT_BYTES) return true; /* refused by the caller */
    }
    return true;
}

static rd_status set_aside(pass *p, size_t at, size_t end, rd_error *err)
{
    if (p->cut_count == p->cut_cap) {
        p->cut_cap = p->cut_cap ? 2 * p->cut_cap : 4;
        p->cuts = rd_resize(p->cuts, p->cut_cap, sizeof *p->cuts);
    }
    cut *c = &p->cuts[p->cut_count++];

    *c = (cut){ .ordinal = p->strings++ };
    if (!decode_string(p, at, end, &c->text))
        return rd_fail(err, RD_INVALID, "not JSON: a wrong escape in a text");
    p->cut_bytes += c->text.len;
    if (p->cut_bytes > RD_MOST_TEXT_BYTES)
        return rd_fail(err, RD_INVALID, "more than %zu bytes of text in a message",
                       RD_MOST_TEXT_BYTES);
    rd_buf_text(&p->json, "\"\"");
    return RD_OK;
}

static bool names_text(const char *key, size_t n)
{
    return (n == 4 && !memcmp(key, "text", 4)) ||
           (n == 6 && (!memcmp(key, "prefix", 6) || !memcmp(key, "suffix", 6)));
}

/* The string whose opening quote is at p->at. */
static rd_status one_string(pass *p, rd_error *err)
{
    size_t from = p->at + 1, end = from;
    bool is_value = p->is_value || !p->in_object[p->depth];

    while (end < p->n && p->s[end] != '"') end += p->s[end] == '\\' ? 2 : 1;
    if (end >= p->n) return rd_fail(err, RD_INVALID, "not JSON: a string without its end");
    p->at = end + 1;
    if (is_value && p->is_text && end - from >= LONG_BYTES) {
        p->text_bytes += end - from;
        return set_aside(p, from, end, err);
    }
    copy_string(p, from, end);
    if (is_value)
        p->strings++;
    else
        p->is_text = names_text(p->s + from, end - from);
    return RD_OK;
}

static rd_status opened(pass *p, bool is_object, rd_error *err)
{
    if (p->depth == RD_MOST_JSON_DEPTH)
        return rd_fail(err, RD_INVALID, "JSON deeper than %d levels", RD_MOST_JSON_DEPTH);
    p->in_object[++p->depth] = is_object;
    p->is_value = p->is_text = false;
    p->values++;
    return RD_OK;
}

static const bool says_where[256] = {
    ['{'] = true, ['}'] = true, ['['] = true, [']'] = true, [':'] = true, [','] = true, ['"'] = true
};

/* Up to the next byte that says where we are, and that byte. */
static rd_status between_strings(pass *p, rd_error *err)
{
    size_t from = p->at;

    while (p->at < p->n && !says_where[(unsigned char)p->s[p->at]]) p->at++;
    char c = p->at < p->n ? p->s[p->at] : 0;

    if (c != '"' && p->at < p->n) p->at++;
    rd_buf_append(&p->json, p->s + from, p->at - from);
    switch (c) {
    case '{':
    case '[': return opened(p, c == '{', err);
    case '}':
    case ']':
        if (p->depth > 0) p->depth--;
        p->is_value = p->is_text = false;
        return RD_OK;
    case ':': p->is_value = true; return RD_OK;
    case ',':
        p->is_value = p->is_text = false;
        p->values++;
        return RD_OK;
    case '"': return one_string(p, err);
    default: return RD_OK;
    }
}

static rd_status scan(pass *p, rd_error *err)
{
    rd_status s = RD_OK;

    p->values = 1;
    while (!s && p->at < p->n) {
        s = between_strings(p, err);
        if (!s && p->values > RD_MOST_JSON_VALUES)
            s = rd_fail(err, RD_INVALID, "more than %zu JSON values", RD_MOST_JSON_VALUES);
        if (!s && p->at - p->text_bytes > RD_MOST_JSON_BYTES)
            s = rd_fail(err, RD_INVALID, "more than %zu bytes of JSON beside document text",
                        RD_MOST_JSON_BYTES);
    }
    return s;
}

/* Put the texts back. Objects keep the order of the frame, so that strings are met as they were counted. */
static void put_back(pass *p, json_t *value, size_t *strings, size_t *next)
{
    const char *key;
    json_t *member;
    size_t i;

    if (*next == p->cut_count) return;
    if (json_is_object(value)) {
        json_object_foreach(value, key, member) put_back(p, member, strings, next);
    } else if (json_is_array(value)) {
        json_array_foreach(value, i, member) put_back(p, member, strings, next);
    } else if (json_is_string(value)) {
        cut *c = &p->cuts[*next];

        if ((*strings)++ != c->ordinal) return;
        json_string_setn_nocheck(value, c->text.data, c->text.len);
        rd_buf_clear(&c->text);
        (*next)++;
    }
}

/* What the library quotes behind "near" is the user's text. */
static rd_status refused(const json_error_t *where, rd_error *err)
{
    const char *near = strstr(where->text, " near ");
    size_t n = near ? (size_t)(near - where->text) : strlen(where->text);

    return rd_fail(err, RD_INVALID, "not JSON: %.*s", (int)n, where->text);
}

rd_status rd_repair_parse(const char *frame, size_t n, rd_encoding encoding, json_t **out,
                          rd_error *err)
{
    pass p = { .s = frame, .n = n, .encoding = encoding };
    size_t strings = 0, next = 0;
    json_error_t where;
    json_t *json = NULL;
    rd_status s = scan(&p, err);

    if (!s) {
        rd_buf_append(&p.json, "", 0);
        json = json_loadb(p.json.data, p.json.len,
                          JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_ANY, &where);
        if (!json) s = refused(&where, err);
    }
    if (json) {
        put_back(&p, json, &strings, &next);
        *out = json;
    }
    clear(&p);
    return s;
}
