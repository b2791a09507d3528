/* average.c - one pass over each model's weights; the mean is kept in float32. */
#include "core/train/average.h"

#include "core/base/memory.h"
#include "core/format/file.h"
#include "core/train/params.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { TOKENIZER_MOST = 64 << 20 };

static const char *const tokenizer_files[] = { "tokenizer.json", "tokenizer_config.json" };

enum { TOKENIZER_FILES = 2 };

typedef struct average {
    rd_params params; /* of the first model */
    char shape[RD_SHAPE_TEXT];
    rd_buf tokenizer[TOKENIZER_FILES];
    float *mean, *w;
} average;

static rd_status read_tokenizer(const char *dir, int i, rd_buf *out, rd_error *err)
{
    char *path = rd_path_join(dir, tokenizer_files[i]);
    rd_status s = rd_file_read(path, TOKENIZER_MOST, out, err);

    free(path);
    return s;
}

static rd_status open_first(average *a, const char *dir, rd_error *err)
{
    rd_model_config c;

    if (rd_config_read(dir, &c, err) || rd_params_init(&a->params, &c, err)) return err->status;
    rd_params_shape(&a->params, a->shape);
    for (int i = 0; i < TOKENIZER_FILES; i++)
        if (read_tokenizer(dir, i, &a->tokenizer[i], err)) return err->status;
    a->mean = rd_try_alloc_array(a->params.size, sizeof *a->mean);
    a->w = rd_try_alloc_array(a->params.size, sizeof *a->w);
    if (!a->mean || !a->w)
        return rd_fail(err, RD_NO_MEMORY, "%s: no memory for two copies of %zu weights", dir,
                       a->params.size);
    return rd_params_read(&a->params, a->mean, dir, err);
}

static rd_status check_shape(average *a, const char *dir, const char *first, rd_error *err)
{
    rd_model_config *ours = &a->params.config, c;
    char shape[RD_SHAPE_TEXT];
    rd_params p;

    if (rd_config_read(dir, &c, err) || rd_params_init(&p, &c, err)) return err->status;
    rd_params_shape(&p, shape);
    rd_params_clear(&p);
    if (strcmp(shape, a->shape) != 0)
        return rd_fail(err, RD_INVALID, "%s has another shape than %s", dir, first);
    if (memcmp(&c.confidence, &ours->confidence, sizeof c.confidence) != 0 || !c.calibrated)
        ours->calibrated = false;
    return RD_OK;
}

static rd_status check_tokenizer(const average *a, const char *dir, const char *first,
                                 rd_error *err)
{
    const rd_buf *ours = &a->tokenizer[0];
    rd_buf theirs = { 0 };
    rd_status s = read_tokenizer(dir, 0, &theirs, err);

    if (!s && (theirs.len != ours->len || memcmp(theirs.data, ours->data, ours->len) != 0))
        s = rd_fail(err, RD_INVALID, "%s has another tokenizer than %s", dir, first);
    rd_buf_clear(&theirs);
    return s;
}

static rd_status add_model(average *a, const char *dir, int n, rd_error *err)
{
    if (rd_params_read(&a->params, a->w, dir, err)) return err->status;
    for (size_t i = 0; i < a->params.size; i++)
        a->mean[i] += (a->w[i] - a->mean[i]) / (float)(n + 1);
    return RD_OK;
}

static rd_status write_mean(const average *a, const char *out, rd_error *err)
{
    if (mkdir(out, 0777) && errno != EEXIST)
        return rd_fail(err, RD_IO, "%s: %s", out, strerror(errno));
    for (int i = 0; i < TOKENIZER_FILES; i++) {
        char *path = rd_path_join(out, tokenizer_files[i]);
        rd_status s = rd_file_write(path, a->tokenizer[i].data, a->tokenizer[i].len, err);

        free(path);
        if (s) return s;
    }
    return rd_params_write(&a->params, a->mean, RD_BF16, out, err);
}

static bool is_same(const char *a, const char *b)
{
    struct stat x, y;

    return !stat(a, &x) && !stat(b, &y) && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

rd_status rd_models_average(const char *const *dir, int n, const char *out, rd_error *err)
{
    average a = { 0 };
    rd_error local;

    if (!err) err = &local;
    *err = (rd_error){ 0 };
    for (int i = 0; i < n; i++)
        if (is_same(dir[i], out))
            return rd_fail(err, RD_INVALID, "%s: a mean cannot be written onto a model of it", out);
    if (open_first(&a, dir[0], err)) goto out;
    for (int i = 1; i < n; i++)
        if (check_shape(&a, dir[i], dir[0], err) || check_tokenizer(&a, dir[i], dir[0], err) ||
            add_model(&a, dir[i], i, err))
            goto out;
    write_mean(&a, out, err);
out:
    rd_params_clear(&a.params);
    for (int i = 0; i < TOKENIZER_FILES; i++) rd_buf_clear(&a.tokenizer[i]);
    free(a.mean);
    free(a.w);
    return err->status;
}
