/* suspects.h - the requests that were open when a daemon died: one that was there twice is not asked again. */
#ifndef RD_LSP_SUSPECTS_H
#define RD_LSP_SUSPECTS_H

#include <jansson.h>
#include <stdint.h>

enum { RD_SUSPECTS = 256 }; /* the oldest is forgotten */

/* A zeroed struct is an empty one. */
typedef struct rd_suspects {
    struct {
        uint64_t hash;
        int deaths;
    } list[RD_SUSPECTS];
    int next;
} rd_suspects;

/* Of a method, its params but for the tokens of progress, and a number for the text that it is about. */
uint64_t rd_suspects_hash(const char *method, const json_t *params, uint64_t text);
void rd_suspects_add(rd_suspects *s, uint64_t hash); /* it was open at a death */
int rd_suspects_deaths(const rd_suspects *s, uint64_t hash);

#endif
