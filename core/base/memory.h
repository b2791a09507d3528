/* memory.h - allocation with a rule, and checked sizes.
 *
 * Small allocations cannot fail: rd_alloc0 and its kin abort when the system has nothing left.
 * Large ones (weights, KV pool, activations) go through rd_try_alloc and are reported. No length
 * that came from a file reaches an allocator before rd_mul / rd_add have accepted it.
 * Any thread; an arena belongs to one thread at a time.
 */
#ifndef RD_BASE_MEMORY_H
#define RD_BASE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Zeroed memory; aborts on failure. Free with free(). */
void *rd_alloc0(size_t bytes);
/* Zeroed room for `count` elements of `size` bytes; aborts on overflow or failure. */
void *rd_alloc_array(size_t count, size_t size);
/* realloc to `count` elements of `size` bytes (new room is not zeroed); aborts on failure. */
void *rd_resize(void *old, size_t count, size_t size);
/* A copy of `n` bytes with a NUL behind; aborts on failure. */
char *rd_copy_text(const char *text, size_t n);

/* Large, 64-byte aligned, not zeroed; NULL when there is no memory. Free with free(). */
void *rd_try_alloc(size_t bytes);

/* Bytes that may still be taken: what the machine has available, a control group's or the process' limit
 * where that is less. SIZE_MAX where nothing is known. */
size_t rd_memory_free(void);

/* Checked arithmetic: false on overflow, and then *out is untouched. */
bool rd_mul(size_t a, size_t b, size_t *out);
bool rd_add(size_t a, size_t b, size_t *out);

/* An arena: many small pieces, given back at once. A zeroed struct is ready to use. */
typedef struct rd_arena {
    struct rd_arena_chunk *chunks;
} rd_arena;

void *rd_arena_alloc0(rd_arena *a, size_t bytes); /* 16-byte aligned; aborts on failure */
char *rd_arena_copy_text(rd_arena *a, const char *text, size_t n);
void rd_arena_clear(rd_arena *a); /* frees everything; the arena may be used again */

#endif
