/* header.h - the header of a safetensors file in the form that everybody writes, read without a tree of JSON values.
 *
 * A large model's header has hundreds of thousands of values, and a JSON library takes a fifth of a second to make and to
 * free them. This reads a strict part of JSON in one go: plain names, the three keys of a tensor once each, whole numbers. All
 * else, be it right or wrong, is left to the JSON reader, which knows what to say about it. Pure; any thread.
 */
#ifndef RD_FORMAT_HEADER_H
#define RD_FORMAT_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RD_HEADER_RANK = 8, RD_HEADER_DTYPE = 8 };

/* A piece of the header, not ended by a NUL; borrowed. */
typedef struct rd_span {
    const char *at;
    size_t n;
} rd_span;

/* What is said of one tensor; nothing is checked yet. Numbers are not negative. */
typedef struct rd_header_entry {
    rd_span name;
    rd_span meta; /* of __metadata__: its object, which may hold anything; all below is zero */
    char dtype[RD_HEADER_DTYPE];
    int rank;
    int64_t shape[RD_HEADER_RANK];
    int64_t begin, end; /* data_offsets */
} rd_header_entry;

typedef struct rd_header_scan {
    const char *at, *end;
    size_t entries; /* so far */
    bool over;      /* the last entry was read, and the header ended behind it */
} rd_header_scan;

/* Begin with the header's `n` bytes. */
void rd_header_begin(rd_header_scan *s, const char *text, size_t n);
/* The next entry. False: the header is over (`over`), or is not of the usual form. */
bool rd_header_next(rd_header_scan *s, rd_header_entry *out);

#endif
