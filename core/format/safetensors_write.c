/* safetensors_write.c - weight files written: at once, piece by piece, and as a long work that survives being cut off.
 *
 * A long work keeps its place in the file itself: behind the last tensor stands a note of how far it is, which is cut off
 * before the file takes its name. One file that is there or not, instead of two that may disagree.
 */
#include "core/format/safetensors.h"

#include "core/base/memory.h"
#include "core/format/file.h"
#include "core/format/json.h"

#include <stdlib.h>
#include <string.h>

#define HEADER_BYTES ((size_t)RD_SAFETENSORS_HEADER_MOST)
#define ALIGNMENT    64 /* of the data */

struct rd_safetensors_writer {
    rd_draft_file file;
    int count;
    uint64_t *begin; /* of each tensor, from the start of the file */
    size_t *bytes, *written;
    char **name;
    uint64_t end; /* of the file */
    rd_key work;  /* of a long work, with the header; none for a short one */
};

/* Wide elements first, so that every tensor is aligned to its own element; or as listed. */
static int *write_order(const rd_tensor *tensors, int n, bool as_listed)
{
    int *order = rd_alloc_array((size_t)n, sizeof *order), k = 0;

    for (; as_listed && k < n; k++) order[k] = k;
    for (size_t width = as_listed ? 0 : 8; width > 0; width /= 2)
        for (int i = 0; i < n; i++)
            if (rd_dtype_bytes(tensors[i].dtype) == width) order[k++] = i;
    return order;
}

static rd_status tensor_bytes(const rd_tensor *t, const char *path, size_t *out, rd_error *err)
{
    size_t bytes = rd_dtype_bytes(t->dtype);

    if (t->rank < 0 || t->rank > RD_TENSOR_RANK)
        return rd_fail(err, RD_INVALID, "%s: %s: rank %d", path, t->name, t->rank);
    for (int i = 0; i < t->rank; i++)
        if (t->shape[i] < 0 || !rd_mul(bytes, (size_t)t->shape[i], &bytes) || bytes > INT64_MAX)
            return rd_fail(err, RD_INVALID, "%s: %s: its shape overflows", path, t->name);
    *out = bytes;
    return RD_OK;
}

static json_t *meta_json(const char *const *meta)
{
    json_t *out = json_object();

    for (; meta && meta[0] && meta[1]; meta += 2)
        json_object_set_new(out, meta[0], json_string(meta[1]));
    return out;
}

/* Fills begin (from the start of the data), bytes and name; gives back the JSON text. */
static rd_status lay_out(rd_safetensors_writer *w, const rd_safetensors_plan *p, bool as_listed,
                         rd_buf *text, rd_error *err)
{
    const char *path = p->path;
    json_t *top = json_object();
    int *order = write_order(p->tensors, w->count, as_listed);
    size_t at = 0;
    rd_status status = RD_OK;

    if (p->meta && p->meta[0]) json_object_set_new(top, "__metadata__", meta_json(p->meta));
    for (int k = 0; k < w->count && !status; k++) {
        int i = order[k];
        const rd_tensor *t = &p->tensors[i];
        json_t *shape = json_array();

        status = tensor_bytes(t, path, &w->bytes[i], err);
        for (int d = 0; d < t->rank && !status; d++)
            json_array_append_new(shape, json_integer(t->shape[d]));
        w->begin[i] = at;
        w->name[i] = rd_copy_text(t->name, strlen(t->name));
        if (!status && (!rd_add(at, w->bytes[i], &at) || at > INT64_MAX / 2))
            status = rd_fail(err, RD_INVALID, "%s: %s: the file overflows", path, t->name);
        json_t *entry = json_pack("{s:s, s:o, s:[I, I]}", "dtype", rd_dtype_name(t->dtype), "shape",
                                  shape, "data_offsets", (json_int_t)w->begin[i], (json_int_t)at);
        if (!status && w->begin[i] % rd_dtype_bytes(t->dtype))
            status = rd_fail(err, RD_INVALID, "%s: %s: not aligned to its elements", path, t->name);
        if (!status && json_object_get(top, t->name))
            status = rd_fail(err, RD_INVALID, "%s: %s: twice", path, t->name);
        if (json_object_set_new(top, t->name, entry) && !status)
            status = rd_fail(err, RD_INVALID, "%s: a tensor's name is not UTF-8", path);
    }
    char *dump = status ? NULL : json_dumps(top, JSON_COMPACT);
    if (dump) rd_buf_text(text, dump);
    while (!status && (text->len + 8) % ALIGNMENT) rd_buf_text(text, " ");
    free(dump);
    free(order);
    json_decref(top);
    return status;
}

/* A writer with its places known and the header in `text`; no file yet. */
static rd_status plan_writer(const rd_safetensors_plan *p, bool as_listed, rd_buf *text,
                             rd_safetensors_writer **out, rd_error *err)
{
    rd_safetensors_writer *w = rd_alloc0(sizeof *w);
    size_t n = (size_t)p->n;

    w->file.fd = -1;
    w->count = p->n;
    w->begin = rd_alloc_array(n, sizeof *w->begin);
    w->bytes = rd_alloc_array(n, sizeof *w->bytes);
    w->written = rd_alloc_array(n, sizeof *w->written);
    w->name = rd_alloc_array(n, sizeof *w->name);
    rd_status s = lay_out(w, p, as_listed, text, err);

    if (!s && text->len > HEADER_BYTES)
        s = rd_fail(err, RD_INVALID, "%s: the header is above %zu bytes", p->path, HEADER_BYTES);
    w->end = 8 + text->len;
    for (size_t i = 0; i < n; i++) {
        w->begin[i] += 8 + text->len;
        w->end += w->bytes[i];
    }
    *out = w;
    return s;
}

static rd_status put_header(rd_safetensors_writer *w, const rd_buf *text, rd_error *err)
{
    unsigned char length[8];

    for (int i = 0; i < 8; i++) length[i] = (unsigned char)((uint64_t)text->len >> (8 * i));
    if (rd_draft_write(&w->file, 0, length, 8, err)) return err->status;
    return rd_draft_write(&w->file, 8, text->data, text->len, err);
}

rd_status rd_safetensors_create(const char *path, const rd_tensor *tensors, int n,
                                const char *const *meta, rd_safetensors_writer **out, rd_error *err)
{
    rd_safetensors_plan p = { .path = path, .tensors = tensors, .n = n, .meta = meta };
    rd_safetensors_writer *w = NULL;
    rd_buf text = { 0 };
    rd_error local;

    if (!err) err = &local;
    rd_status s = plan_writer(&p, false, &text, &w, err);

    if (!s) s = rd_draft_open(path, &w->file, err);
    if (!s) s = put_header(w, &text, err);
    rd_buf_clear(&text);
    if (s) {
        rd_safetensors_writer_close(w);
        return s;
    }
    *out = w;
    return RD_OK;
}

rd_status rd_safetensors_put(rd_safetensors_writer *w, int i, size_t offset, const void *bytes,
                             size_t n, rd_error *err)
{
    if (i < 0 || i >= w->count || offset > w->bytes[i] || n > w->bytes[i] - offset)
        return rd_fail(err, RD_INVALID, "%s: tensor %d has no room for %zu bytes at %zu",
                       w->file.path, i, n, offset);
    w->written[i] += n;
    return rd_draft_write(&w->file, w->begin[i] + offset, bytes, n, err);
}

rd_status rd_safetensors_finish(rd_safetensors_writer *w, rd_error *err)
{
    for (int i = 0; i < w->count; i++)
        if (w->written[i] != w->bytes[i])
            return rd_fail(err, RD_INVALID, "%s: %s: %zu of %zu bytes written", w->file.path,
                           w->name[i], w->written[i], w->bytes[i]);
    if (!rd_key_is_none(&w->work) && rd_draft_cut(&w->file, w->end, err)) return err->status;
    return rd_draft_finish(&w->file, err);
}

void rd_safetensors_writer_close(rd_safetensors_writer *w)
{
    if (!w) return;
    rd_draft_close(&w->file);
    for (int i = 0; i < w->count; i++) free(w->name[i]);
    free(w->name);
    free(w->begin);
    free(w->bytes);
    free(w->written);
    free(w);
}

rd_status rd_safetensors_write(const char *path, const rd_tensor *tensors, int n,
                               const char *const *meta, rd_error *err)
{
    rd_safetensors_writer *w = NULL;
    rd_status s = rd_safetensors_create(path, tensors, n, meta, &w, err);

    for (int i = 0; i < n && !s; i++) {
        if (tensors[i].bytes != w->bytes[i])
            s = rd_fail(err, RD_INVALID, "%s: %s: its shape needs %zu bytes, it has %zu", path,
                        tensors[i].name, w->bytes[i], tensors[i].bytes);
        else
            s = rd_safetensors_put(w, i, 0, tensors[i].data, tensors[i].bytes, err);
    }
    if (!s) s = rd_safetensors_finish(w, err);
    rd_safetensors_writer_close(w);
    return s;
}

/* ---- long works ---- */

/* Behind the end of a PATH.part, at a multiple of the page so that it is written as one piece: how far it is. */
typedef struct note {
    rd_key work, check; /* check: of the mark and the work */
    uint64_t mark;
} note;

enum { NOTE_ALIGNMENT = 4096 };

static uint64_t note_at(const rd_safetensors_writer *w)
{
    return (w->end + NOTE_ALIGNMENT - 1) / NOTE_ALIGNMENT * NOTE_ALIGNMENT;
}

static note note_of(const rd_safetensors_writer *w, uint64_t mark)
{
    note n = { .work = w->work, .mark = mark };
    rd_key_maker k;

    rd_key_begin(&k, "mark");
    rd_key_add(&k, &w->work, sizeof w->work);
    rd_key_add_number(&k, (int64_t)mark);
    n.check = rd_key_end(&k);
    return n;
}

static uint64_t read_mark(const rd_safetensors_writer *w)
{
    note is = { 0 };

    if (!rd_draft_read(&w->file, note_at(w), &is, sizeof is)) return 0;
    note should = note_of(w, is.mark);

    return rd_key_equal(&is.work, &should.work) && rd_key_equal(&is.check, &should.check) ? is.mark
                                                                                          : 0;
}

static rd_key work_of(const rd_safetensors_plan *p, const rd_buf *header)
{
    rd_key_maker k;

    rd_key_begin(&k, "safetensors in writing");
    rd_key_add(&k, &p->work, sizeof p->work);
    rd_key_add(&k, header->data, header->len);
    return rd_key_end(&k);
}

rd_status rd_safetensors_begin(const rd_safetensors_plan *p, rd_safetensors_writer **out,
                               uint64_t *mark, rd_error *err)
{
    rd_safetensors_writer *w = NULL;
    rd_buf text = { 0 };
    rd_status s = plan_writer(p, true, &text, &w, err);

    w->work = work_of(p, &text);
    if (!s) s = rd_draft_open_part(p->path, &w->file, err);
    if (!s) {
        *mark = read_mark(w);
        if (!*mark) s = rd_draft_cut(&w->file, 0, err);
        if (!s) s = rd_draft_room(&w->file, note_at(w) + sizeof(note), err);
        if (!s && !*mark) s = put_header(w, &text, err);
    }
    rd_buf_clear(&text);
    if (s) {
        rd_safetensors_writer_close(w);
        return s;
    }
    *out = w;
    return RD_OK;
}

void rd_safetensors_skip(rd_safetensors_writer *w, int i)
{
    w->written[i] = w->bytes[i];
}

/* The numbers first, then the word that they are there. */
rd_status rd_safetensors_mark(rd_safetensors_writer *w, uint64_t mark, rd_error *err)
{
    note n = note_of(w, mark);

    if (rd_draft_sync(&w->file, err)) return err->status;
    return rd_draft_write(&w->file, note_at(w), &n, sizeof n, err);
}

void rd_safetensors_leave(rd_safetensors_writer *w)
{
    if (w) rd_draft_leave(&w->file);
    rd_safetensors_writer_close(w);
}
