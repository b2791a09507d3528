/* safetensors.h - map a model's weight files, list their tensors, write new ones.
 *
 * A file is an 8-byte little-endian header length, a JSON header and raw data. The whole header is
 * validated (sizes by checked products, no gaps, no overlap, ends at the end of the file) before
 * any tensor can be seen. Files are mapped read-only; tensors borrow from the mapping. Read-only
 * after open: any thread.
 */
#ifndef RD_FORMAT_SAFETENSORS_H
#define RD_FORMAT_SAFETENSORS_H

#include "core/base/dtype.h"
#include "core/base/key.h"
#include "core/base/status.h"

#include <stdint.h>

#define RD_TENSOR_RANK             8
#define RD_SAFETENSORS_HEADER_MOST (100 << 20) /* bytes */

typedef struct rd_tensor {
    const char *name;
    rd_dtype dtype;
    int rank;
    int64_t shape[RD_TENSOR_RANK];
    const void *data; /* borrowed from the mapping; any alignment */
    size_t bytes;
} rd_tensor;

typedef struct rd_safetensors rd_safetensors;

/* PATH is one .safetensors file, or a folder with model.safetensors or an index of shards. */
rd_status rd_safetensors_open(const char *path, rd_safetensors **out, rd_error *err);
/* The same on bytes in memory that outlive the result (tests, fuzzing). */
rd_status rd_safetensors_parse(const void *bytes, size_t n, const char *name, rd_safetensors **out,
                               rd_error *err);
void rd_safetensors_close(rd_safetensors *s);

int rd_safetensors_count(const rd_safetensors *s);
const rd_tensor *rd_safetensors_at(const rd_safetensors *s, int i);
const rd_tensor *rd_safetensors_find(const rd_safetensors *s, const char *name);
/* A value of __metadata__ (of the first shard that has the key), or NULL. */
const char *rd_safetensors_meta(const rd_safetensors *s, const char *key);
/* RD_IO when a mapped file was changed or replaced on disk since it was opened (size, mtime). */
rd_status rd_safetensors_unchanged(const rd_safetensors *s, rd_error *err);

/* The bytes of a mapped file from `from` on will not be looked at again soon: they need not stay in memory. */
void rd_safetensors_release(const rd_safetensors *s, const void *from, size_t bytes);

/* Add to `k` what tells these files from others: sizes, times, and content, of which a sample of a file above 16 MB. */
void rd_safetensors_name(const rd_safetensors *s, rd_key_maker *k);

/* Write `n` tensors to PATH through a temporary file and rename. `meta` is a NULL-ended list of
 * key, value, key, value...; may be NULL. */
rd_status rd_safetensors_write(const char *path, const rd_tensor *tensors, int n,
                               const char *const *meta, rd_error *err);

/* The same piece by piece, for files larger than memory: names, types and shapes first (`data` and
 * `bytes` of `tensors` are not read), then their bytes in any order, then finish. Closing a writer
 * that was not finished leaves nothing behind. */
typedef struct rd_safetensors_writer rd_safetensors_writer;

rd_status rd_safetensors_create(const char *path, const rd_tensor *tensors, int n,
                                const char *const *meta, rd_safetensors_writer **out,
                                rd_error *err);
rd_status rd_safetensors_put(rd_safetensors_writer *w, int i, size_t offset, const void *bytes,
                             size_t n, rd_error *err);
rd_status rd_safetensors_finish(rd_safetensors_writer *w, rd_error *err);
void rd_safetensors_writer_close(rd_safetensors_writer *w);

/* A long work, which may be cut off at any moment and gone on with: the file grows as PATH.part, by one process at a
 * time (RD_INVALID for a second). The tensors stand in the file in the order of the list. */
typedef struct rd_safetensors_plan {
    const char *path;
    const rd_tensor *tensors;
    int n;
    const char *const *meta;
    rd_key work; /* names what is written, of what */
} rd_safetensors_plan;

/* *mark: the last mark of a PATH.part that was begun for the same work and the same header; otherwise 0, and a PATH.part
 * that is there is begun anew. RD_IO when the disk has no room for the whole. */
rd_status rd_safetensors_begin(const rd_safetensors_plan *p, rd_safetensors_writer **out,
                               uint64_t *mark, rd_error *err);
/* Tensor `i` was put before the mark. */
void rd_safetensors_skip(rd_safetensors_writer *w, int i);
/* What was put so far is brought to the disk; who begins again hears `mark`, which is above 0. */
rd_status rd_safetensors_mark(rd_safetensors_writer *w, uint64_t mark, rd_error *err);
/* Close, and leave PATH.part to be gone on with. */
void rd_safetensors_leave(rd_safetensors_writer *w);

#endif
