/* golden.h - what the parts of `redraft conformance` share: the count, the folder at hand, and the dump.
 *
 * A case prints one line through rd_golden_pass, _fail or _skip. With a dump, what was computed is kept
 * as well: tensors in a list until the folder is done, records as JSON text in which the recorded
 * inputs stand as they were read.
 */
#ifndef RD_TOOLS_GOLDEN_H
#define RD_TOOLS_GOLDEN_H

#include "core/base/buf.h"
#include "core/format/record.h"
#include "core/model/model.h"

enum { RD_GOLDEN_ROWS_MOST = 8192 };

typedef struct rd_golden_report {
    int passed, failed, skipped;
    const rd_backend *backend;
    rd_device_options device;
    const char *dump; /* NULL: nothing is written */
    char **dumped;    /* folders made below it in this run */
    int dumped_n;
} rd_golden_report;

typedef struct rd_golden_folder {
    rd_golden_report *report;
    const char *dir;
    char name[128];          /* the folder's own */
    char *dump;              /* where to write; NULL: not */
    rd_record *top;          /* golden.json; NULL when there is none */
    rd_safetensors *tensors; /* golden.safetensors; NULL when there is none */
    rd_model_config config;
} rd_golden_folder;

void rd_golden_pass(rd_golden_folder *f, const char *name);
void rd_golden_fail(rd_golden_folder *f, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void rd_golden_skip(rd_golden_folder *f, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The folder's model with tiles of `block`, for passes of up to `rows`. */
rd_status rd_golden_model(const rd_golden_folder *f, int block, int rows, rd_model **out,
                          rd_error *err);

/* The parts; each takes what the folder has of its kind. */
void rd_golden_forward(rd_golden_folder *f);
void rd_golden_traces(rd_golden_folder *f);

/* ---- for the dump ---- */

/* Tensors for one file; nothing is kept where the folder is not dumped. */
typedef struct rd_golden_tensors {
    rd_tensor *list;
    int n;
} rd_golden_tensors;

/* Keep a copy of `rows` x `cols` numbers of four bytes; `heads` > 0: [heads, rows, cols]. */
void rd_golden_keep(const rd_golden_folder *f, rd_golden_tensors *t, const char *name,
                    rd_dtype dtype, int heads, int rows, int cols, const void *data);
/* Write them as FILE of the dump, where there are any, and clear the list. */
void rd_golden_write_tensors(rd_golden_folder *f, rd_golden_tensors *t, const char *file);
void rd_golden_write_text(rd_golden_folder *f, const rd_buf *text, const char *file);
/* The key of a next field, behind a comma where it is not the first of its object. */
void rd_golden_field(rd_buf *out, const char *key);
/* The fields of `object` but those named in `but` (NULL-ended). */
void rd_golden_copy_fields(rd_value object, const char *const *but, rd_buf *out);
void rd_golden_ids(rd_buf *out, const char *key, const int32_t *ids, int n);

/* The string of a value, or NULL. */
const char *rd_golden_text(rd_value v);

#endif
