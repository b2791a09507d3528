/* test_quant.c - int8 rows are near what they were, and a packed model opens and answers alike. */
#include "core/format/quant.h"
#include "core/model/model.h"
#include "core/plugin.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MODEL RD_TEST_DATA "/golden/models/m2_sharded"

Test(quant, a_row_is_off_by_half_a_step_at_most)
{
    float row[] = { 0.5f, -1.27f, 0.003f, 1.0f, 0.0f }, scale;
    int8_t q[5];
    rd_error err;

    cr_assert(!rd_quant_int8_row(q, &scale, row, 5, &err));

    for (int i = 0; i < 5; i++) cr_assert_leq(fabsf((float)q[i] * scale - row[i]), 0.5001f * scale);
    cr_assert_eq(q[1], -127);
}

Test(quant, zeros_and_numbers_that_are_not_finite)
{
    float zeros[3] = { 0 }, bad[2] = { 1.0f, NAN }, scale = 7.0f;
    int8_t q[3];
    rd_error err;

    cr_assert(!rd_quant_int8_row(q, &scale, zeros, 3, &err));
    cr_assert_eq(scale, 0.0f);
    cr_assert_eq(rd_quant_int8_row(q, &scale, bad, 2, &err), RD_INVALID);
}

static void pick_all(const char *dir, rd_pick *out, int rows)
{
    rd_model_options o = { .device = { .precision = RD_EXACT }, .max_rows = rows };
    int32_t tokens[16];
    rd_pick_query q = { .n_rows = rows };
    rd_model *m = NULL;
    rd_error err;

    cr_assert(!rd_backend_find("cpu", &o.backend, &err));
    cr_assert(!rd_model_open(dir, &o, &m, &err), "%s", err.text);
    for (int i = 0; i < rows; i++) tokens[i] = 7 * i + 3;
    rd_pass p = { .tokens = tokens, .rows = rows, .query = &q, .picks = out };

    cr_assert(!rd_forward(m, &p, &err), "%s", err.text);
    rd_model_close(m);
}

/* The packed model with its weights multiplied out, as floats. */
static void write_wide(const char *packed, const char *path)
{
    rd_safetensors *s = NULL;
    rd_tensor list[512];
    rd_error err;
    int n = 0;

    cr_assert(!rd_safetensors_open(packed, &s, &err), "%s", err.text);
    for (int i = 0; i < rd_safetensors_count(s) && n < 512; i++) {
        rd_tensor t = *rd_safetensors_at(s, i);
        size_t len = strlen(t.name);
        char name[200];

        if (!strcmp(t.name + len - 2, ".s")) continue;
        if (!strcmp(t.name + len - 2, ".q")) {
            snprintf(name, sizeof name, "%.*s.s", (int)len - 2, t.name);
            const rd_tensor *scale = rd_safetensors_find(s, name);
            size_t cols = (size_t)t.shape[1], cells = (size_t)t.shape[0] * cols;
            float *wide = malloc(cells * sizeof *wide);

            cr_assert(scale && wide);
            for (size_t k = 0; k < cells; k++)
                wide[k] =
                    (float)((const int8_t *)t.data)[k] * ((const float *)scale->data)[k / cols];
            t.name = strndup(t.name, len - 2);
            t.dtype = RD_F32;
            t.data = wide;
            t.bytes = cells * sizeof *wide;
        }
        list[n++] = t;
    }
    cr_assert(!rd_safetensors_write(path, list, n, NULL, &err), "%s", err.text);
}

Test(quant, a_packed_model_answers_as_its_weights_multiplied_out)
{
    char dir[] = "/tmp/rd_quantXXXXXX", packed[64], wide[64], path[128], command[256];
    rd_pick a[16], b[16], first[16];
    rd_error err = { 0 };

    cr_assert(mkdtemp(dir));
    snprintf(packed, sizeof packed, "%s/q", dir);
    snprintf(wide, sizeof wide, "%s/w", dir);
    cr_assert(!rd_quantize_model(MODEL, packed, RD_QUANT_INT8_ROW, &err), "%s", err.text);
    snprintf(command, sizeof command, "mkdir %s && cp %s/*.json %s", wide, packed, wide);
    cr_assert(!system(command));
    snprintf(path, sizeof path, "%s/model.safetensors", wide);
    write_wide(packed, path);
    pick_all(packed, a, 16);
    pick_all(wide, b, 16);
    pick_all(MODEL, first, 16);

    for (int i = 0; i < 16; i++) {
        cr_assert_eq(a[i].token, b[i].token);
        cr_assert_float_eq((double)a[i].prob, (double)b[i].prob, 1e-4);
    }
    cr_assert(memcmp(a, first, sizeof a), "it was packed");
    cr_assert_eq(rd_quantize_model(packed, dir, RD_QUANT_INT8_ROW, &err), RD_INVALID, "twice");
    cr_assert_eq(rd_quantize_model(MODEL, MODEL, RD_QUANT_INT8_ROW, &err), RD_INVALID,
                 "onto itself");
    cr_assert_eq(rd_quantize_model(MODEL, packed, "int3", &err), RD_INVALID);
    snprintf(command, sizeof command, "rm -r %s", dir);
    cr_assert(!system(command));
}
