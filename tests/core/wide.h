/* wide.h - a packed model folder with its numbers multiplied out: what a test takes that must not depend on how
 * activations are rounded. */
#ifndef RD_TEST_WIDE_H
#define RD_TEST_WIDE_H

#include "core/base/buf.h"
#include "core/base/memory.h"
#include "core/format/file.h"
#include "core/format/packed.h"
#include "core/format/safetensors.h"
#include "core/model/model.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WIDE_TENSORS = 512 };

typedef struct wide_list {
    const rd_safetensors *from;
    rd_tensor tensor[WIDE_TENSORS];
    char name[WIDE_TENSORS][128];
    int n;
} wide_list;

static inline rd_status wide_add(void *user, const char *name, int rows, int cols, rd_matrix *out,
                                 rd_error *err)
{
    wide_list *l = user;
    char other[128];
    const rd_tensor *plain = rd_safetensors_find(l->from, name), *q, *scale;
    rd_tensor *t = &l->tensor[l->n];

    (void)err;
    *out = (rd_matrix){ 0 };
    cr_assert_lt(l->n, WIDE_TENSORS);
    if (plain) {
        l->tensor[l->n++] = *plain;
        return RD_OK;
    }
    snprintf(other, sizeof other, "%s.s", name);
    scale = rd_safetensors_find(l->from, other);
    snprintf(other, sizeof other, "%s.q", name);
    q = rd_safetensors_find(l->from, other);
    cr_assert(q && scale, "%s", name);
    rd_pack p = rd_pack_named(rd_safetensors_meta(l->from, "redraft_quant"));
    float *x = rd_alloc_array((size_t)rows * (size_t)cols, sizeof *x);

    for (int r = 0; r < rows; r++)
        rd_unpack_row(p, q->data, scale->data, cols, r, x + (size_t)r * (size_t)cols);
    snprintf(l->name[l->n], sizeof l->name[l->n], "%s", name);
    *t = (rd_tensor){ .name = l->name[l->n],
                      .dtype = RD_F32,
                      .rank = 2,
                      .shape = { rows, cols },
                      .data = x,
                      .bytes = (size_t)rows * (size_t)cols * sizeof *x };
    l->n++;
    return RD_OK;
}

/* Write config and weights of the int8-panel folder `packed` into the folder `dir`, which is there. */
static inline void write_wide_folder(const char *packed, const char *dir)
{
    char *config = rd_path_join(packed, "config.json"), *to = rd_path_join(dir, "config.json");
    char *weights = rd_path_join(dir, "model.safetensors");
    wide_list *l = rd_alloc0(sizeof *l);
    rd_weight_source source = { wide_add, l };
    rd_safetensors *s = NULL;
    rd_model_config c;
    rd_buf text = { 0 };
    rd_error err;

    cr_assert(!rd_safetensors_open(packed, &s, &err), "%s", err.text);
    l->from = s;
    cr_assert(!rd_config_read(packed, &c, &err), "%s", err.text);
    cr_assert(!rd_model_visit(&c, &source, &err), "%s", err.text);
    cr_assert(!rd_safetensors_write(weights, l->tensor, l->n, NULL, &err), "%s", err.text);
    cr_assert(!rd_file_read(config, 1 << 20, &text, &err), "%s", err.text);
    cr_assert(!rd_file_write(to, text.data, text.len, &err), "%s", err.text);
    for (int i = 0; i < l->n; i++)
        if (l->tensor[i].name == l->name[i]) free((void *)(uintptr_t)l->tensor[i].data);
    rd_safetensors_close(s);
    rd_buf_clear(&text);
    free(l);
    free(config);
    free(to);
    free(weights);
}

#endif
