/* utf8.h - the three encodings that positions are counted in, and how a character looks in bytes. */
#ifndef RD_LSP_UTF8_H
#define RD_LSP_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* What one unit of a column is. The first is the protocol's default. */
typedef enum rd_encoding { RD_UTF16, RD_UTF8, RD_UTF32 } rd_encoding;

/* Bytes of the well-formed character at s, or 0. With n > 0. */
static inline size_t rd_utf8_bytes(const char *s, size_t n)
{
    const unsigned char *u = (const unsigned char *)s;

    if (u[0] < 0x80) return 1;
    if (u[0] < 0xc2 || u[0] > 0xf4) return 0;
    size_t len = u[0] < 0xe0 ? 2 : u[0] < 0xf0 ? 3 : 4;

    if (n < len) return 0;
    for (size_t i = 1; i < len; i++)
        if ((u[i] & 0xc0) != 0x80) return 0;
    if ((u[0] == 0xe0 && u[1] < 0xa0) || (u[0] == 0xed && u[1] > 0x9f) ||
        (u[0] == 0xf0 && u[1] < 0x90) || (u[0] == 0xf4 && u[1] > 0x8f))
        return 0;
    return len;
}

/* A byte inside a character, not at its beginning. */
static inline bool rd_utf8_is_inside(char c)
{
    return ((unsigned char)c & 0xc0) == 0x80;
}

/* A byte of a word: letters, digits, underscores and whatever is not ASCII. */
static inline bool rd_is_word(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           (unsigned char)c >= 0x80;
}

/* Half of a surrogate pair, written as if it were a character: what some encoders make of it. With n > 0. */
static inline size_t rd_utf8_surrogate_bytes(const char *s, size_t n)
{
    const unsigned char *u = (const unsigned char *)s;

    return n >= 3 && u[0] == 0xed && u[1] >= 0xa0 && u[1] < 0xc0 && (u[2] & 0xc0) == 0x80 ? 3 : 0;
}

#endif
