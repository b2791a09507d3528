/* quant.c - int8 with one scale a row, tensor by tensor, so that a model larger than memory can be done. */
#include "core/format/quant.h"

#include "core/base/memory.h"
#include "core/format/companions.h"
#include "core/format/config.h"
#include "core/format/safetensors.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

rd_status rd_quant_int8_row(int8_t *q, float *scale, const float *row, size_t cols, rd_error *err)
{
    float top = 0.0f;

    for (size_t i = 0; i < cols; i++) {
        if (!isfinite(row[i])) return rd_fail(err, RD_INVALID, "column %zu is not finite", i);
        if (fabsf(row[i]) > top) top = fabsf(row[i]);
    }
    *scale = top / 127.0f;
    for (size_t i = 0; i < cols; i++) {
        float x = *scale > 0.0f ? rintf(row[i] / *scale) : 0.0f;

        q[i] = (int8_t)(x > 127.0f ? 127.0f : x < -127.0f ? -127.0f : x);
    }
    return RD_OK;
}

static bool is_quantised(const rd_tensor *t)
{
    return t->rank == 2 && !strstr(t->name, ".mlp.gate.weight");
}

/* The tensors of the new file: W stays, or becomes W.q and W.s. */
static rd_status list_tensors(const rd_safetensors *in, rd_tensor *out, char (*names)[160], int *n,
                              const char *dir, rd_error *err)
{
    *n = 0;
    for (int i = 0; i < rd_safetensors_count(in); i++) {
        const rd_tensor *t = rd_safetensors_at(in, i);

        if (t->dtype != RD_F32 && t->dtype != RD_F16 && t->dtype != RD_BF16)
            return rd_fail(err, RD_INVALID, "%s: %s is %s; only float models can be quantised", dir,
                           t->name, rd_dtype_name(t->dtype));
        if (strlen(t->name) > 150) return rd_fail(err, RD_INVALID, "%s: a name is too long", dir);
        if (!is_quantised(t)) {
            out[(*n)++] = (rd_tensor){ .name = t->name, .dtype = RD_F32, .rank = t->rank };
            memcpy(out[*n - 1].shape, t->shape, sizeof t->shape);
            continue;
        }
        snprintf(names[*n], sizeof names[*n], "%s.q", t->name);
        out[*n] = (rd_tensor){
            .name = names[*n], .dtype = RD_I8, .rank = 2, .shape = { t->shape[0], t->shape[1] }
        };
        (*n)++;
        snprintf(names[*n], sizeof names[*n], "%s.s", t->name);
        out[*n] =
            (rd_tensor){ .name = names[*n], .dtype = RD_F32, .rank = 1, .shape = { t->shape[0] } };
        (*n)++;
    }
    return RD_OK;
}

static rd_status put_whole(rd_safetensors_writer *w, int at, const rd_tensor *t, rd_error *err)
{
    size_t n = t->bytes / rd_dtype_bytes(t->dtype);
    float *wide = rd_alloc_array(n + 1, sizeof *wide);
    rd_status s = RD_OK;

    rd_widen(wide, t->data, t->dtype, n);
    for (size_t i = 0; i < n && !s; i++)
        if (!isfinite(wide[i]))
            s = rd_fail(err, RD_INVALID, "%s: number %zu is not finite", t->name, i);
    if (!s) s = rd_safetensors_put(w, at, 0, wide, n * sizeof *wide, err);
    free(wide);
    return s;
}

static rd_status put_rows(rd_safetensors_writer *w, int at, const rd_tensor *t, rd_error *err)
{
    size_t cols = t->bytes ? (size_t)t->shape[1] : 0, size = rd_dtype_bytes(t->dtype);
    float *row = rd_alloc_array(cols + 1, sizeof *row), scale;
    int8_t *q = rd_alloc_array(cols + 1, sizeof *q);
    rd_error inner = { 0 };
    rd_status s = RD_OK;

    for (size_t r = 0; r < (size_t)t->shape[0] && !s; r++) {
        rd_widen(row, (const char *)t->data + r * cols * size, t->dtype, cols);
        if (rd_quant_int8_row(q, &scale, row, cols, &inner)) {
            s = rd_fail(err, RD_INVALID, "%s: row %zu: %s", t->name, r, inner.text);
            break;
        }
        s = rd_safetensors_put(w, at, r * cols, q, cols, err);
        if (!s) s = rd_safetensors_put(w, at + 1, r * sizeof scale, &scale, sizeof scale, err);
    }
    free(row);
    free(q);
    return s;
}

static rd_status put_tensors(rd_safetensors_writer *w, const rd_safetensors *file, rd_error *err)
{
    rd_status s = RD_OK;

    for (int i = 0, at = 0; i < rd_safetensors_count(file) && !s; i++) {
        const rd_tensor *t = rd_safetensors_at(file, i);
        bool packed = is_quantised(t);

        s = packed ? put_rows(w, at, t, err) : put_whole(w, at, t, err);
        at += packed ? 2 : 1;
    }
    return s;
}

/* Everything is written beside its place before the first file is put there, so that a full disk leaves
 * OUT as it was. */
static rd_status write_model(const rd_safetensors *file, const char *in, const char *out,
                             rd_error *err)
{
    static const char *const meta[] = { "redraft_quant", RD_QUANT_INT8_ROW, "redraft_quant_version",
                                        "1", NULL };
    size_t count = 2 * (size_t)rd_safetensors_count(file) + 1;
    rd_tensor *list = rd_alloc_array(count, sizeof *list);
    char(*names)[160] = rd_alloc_array(count, sizeof *names);
    char *path = rd_path_join(out, "model.safetensors");
    rd_safetensors_writer *w = NULL;
    rd_companions c = { 0 };
    rd_error inner = { 0 };
    int n = 0;
    rd_status s = list_tensors(file, list, names, &n, in, err);

    if (!s) s = rd_safetensors_create(path, list, n, meta, &w, err);
    if (!s) s = put_tensors(w, file, &inner);
    if (inner.status == RD_INVALID)
        rd_fail(err, s, "%s: %s", in, inner.text);
    else if (inner.status)
        *err = inner;
    if (!s) s = rd_companions_copy(&c, in, out, err);
    if (!s) s = rd_safetensors_unchanged(file, err);
    if (!s) s = rd_companions_finish(&c, err);
    if (!s) s = rd_safetensors_finish(w, err);
    rd_companions_clear(&c);
    rd_safetensors_writer_close(w);
    free(path);
    free(list);
    free(names);
    return s;
}

rd_status rd_quantize_model(const char *in, const char *out, const char *scheme, rd_error *err)
{
    rd_safetensors *file = NULL;
    rd_model_config config;
    rd_error local = { 0 };
    struct stat a, b;
    rd_status s;

    if (!err) err = &local;
    *err = (rd_error){ 0 };
    if (strcmp(scheme, RD_QUANT_INT8_ROW) != 0)
        return rd_fail(err, RD_INVALID, "no scheme is called %s; " RD_QUANT_INT8_ROW " is", scheme);
    if (!stat(in, &a) && !stat(out, &b) && a.st_dev == b.st_dev && a.st_ino == b.st_ino)
        return rd_fail(err, RD_INVALID, "%s: a model cannot be quantised onto itself", out);
    if (rd_config_read(in, &config, err) || rd_safetensors_open(in, &file, err)) return err->status;
    if (rd_safetensors_count(file) == 0) {
        rd_safetensors_close(file);
        return rd_fail(err, RD_INVALID, "%s: the weights hold no tensors", in);
    }
    bool made = !mkdir(out, 0777);

    s = made || errno == EEXIST ? write_model(file, in, out, err)
                                : rd_fail(err, RD_IO, "%s: %s", out, strerror(errno));
    if (s && made) rmdir(out);
    rd_safetensors_close(file);
    return s;
}
