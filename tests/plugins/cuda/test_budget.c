/* test_budget.c - whether the published shapes have room on the GPUs they are meant for.
 *
 * The backend itself is asked: the model is opened and run on a dry device of that size, which counts what is allocated and
 * computes nothing. What it says for a small shape is what the device holds that does compute. A chunk of a prompt and a step at
 * the end of 32768 tokens are run, for scratch grows with them. Prints a table.
 */
#include "core/base/memory.h"
#include "core/format/packed.h"
#include "core/model/model.h"
#include "core/tools/shape.h"
#include "plugins/cuda/cuda.h"
#include "tests/plugins/cuda/emulator/control.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONTEXT = 32768, BLOCK = 32 };

#define GIB ((size_t)1 << 30)

/* A weight's numbers, all of them made by the device. */
typedef struct form {
    const char *name;
    rd_pack pack;
    rd_weight_form weights;
} form;

static const form forms[] = { { "bf16", RD_PACK_NONE, RD_FORM_STORED },
                              { "fp8", RD_PACK_NONE, RD_FORM_FP8 },
                              { "int8", RD_PACK_INT8, RD_FORM_STORED },
                              { "int4", RD_PACK_INT4, RD_FORM_STORED } };

static const form *form_named(const char *name)
{
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        if (!strcmp(forms[i].name, name)) return &forms[i];
    cr_assert_fail("%s", name);
    return NULL;
}

/* What is held for what: the table's verbs that allocate, each with the difference it made. */
typedef struct budget {
    size_t weights, activations, kv, scratch, all;
    size_t floor; /* the weights' numbers at their form's bits, without padding, scales and slabs */
} budget;

/* The table's verbs have no argument for these. */
static budget counted;
static bool dry;

static void set_dry(bool is)
{
    dry = is;
    rd_emulated_dry(is);
}

static rd_status take(rd_device *d, const rd_matrix *m, bool exact, rd_weight **out, rd_error *err)
{
    size_t before = rd_emulated_held(), n = (size_t)m->rows * (size_t)m->cols;
    rd_status s = rd_backend_entry()->take(d, m, exact, out, err);
    rd_device_info about;

    counted.weights += rd_emulated_held() - before;
    rd_backend_entry()->describe(d, &about);
    if (exact)
        counted.floor += 4 * n;
    else if (m->pack)
        counted.floor += m->pack == RD_PACK_INT4 ? n / 2 : n;
    else
        counted.floor += strstr(about.isa, "fp8") && !m->table ? n : 2 * n;
    return s;
}

static rd_status alloc(rd_device *d, int rows, int cols, rd_view *out, rd_error *err)
{
    size_t before = rd_emulated_held();
    rd_status s = rd_backend_entry()->alloc(d, rows, cols, out, err);

    counted.activations += rd_emulated_held() - before;
    return s;
}

static rd_status kv_open(rd_device *d, const rd_kv_shape *shape, rd_kv **out, rd_error *err)
{
    size_t before = rd_emulated_held();
    rd_status s = rd_backend_entry()->kv_open(d, shape, out, err);

    counted.kv += rd_emulated_held() - before;
    return s;
}

/* The picks of a dry device are nothing. */
static rd_status pick(rd_device *d, rd_view x, const rd_weight *head, const rd_pick_query *q,
                      rd_pick *out, rd_error *err)
{
    rd_status s = rd_backend_entry()->pick(d, x, head, q, out, err);

    if (dry) memset(out, 0, (size_t)q->n_rows * sizeof *out);
    return s;
}

typedef struct source {
    const form *form;
    bool has_experts;
    rd_random_fill fill;
} source;

static rd_status find(void *user, const char *name, int rows, int cols, rd_matrix *out,
                      rd_error *err)
{
    source *s = user;
    rd_pack p =
        s->form->pack && rows > 1 ? rd_pack_of(s->form->pack, s->has_experts, name) : RD_PACK_NONE;

    (void)err;
    s->fill = (rd_random_fill){ .seed = 1, .rms = 0.05f };
    *out = (rd_matrix){ NULL, p ? RD_U8 : RD_BF16, rows, cols, NULL, p, &s->fill, false };
    return RD_OK;
}

/* `rows` rows at the end of `tokens` tokens; what is behind them is taken as written. */
static rd_status run(rd_model *m, int tokens, int rows, bool picks, rd_error *err)
{
    int blocks = (tokens - rows) / BLOCK, own = rows / BLOCK;
    int32_t *past = rd_alloc_array((size_t)blocks + 1, sizeof *past);
    int32_t *keep = rd_alloc_array((size_t)own, sizeof *keep);
    int32_t *ids = rd_alloc_array((size_t)rows, sizeof *ids); /* zeros */
    rd_pick *out = rd_alloc_array((size_t)rows, sizeof *out);
    rd_pick_query query = { .n_rows = rows };
    rd_pass pass = {
        .tokens = ids, .rows = rows, .past = past, .past_blocks = blocks, .keep = keep
    };

    memset(ids, 0, (size_t)rows * sizeof *ids);
    for (int i = 0; i < blocks; i++) past[i] = i;
    for (int i = 0; i < own; i++) keep[i] = blocks + i;
    if (picks) pass.query = &query, pass.picks = out;
    rd_status s = rd_forward(m, &pass, err);

    free(past), free(keep), free(ids), free(out);
    return s;
}

/* Opens the shape on the emulated device as it is set, runs the last chunk of `tokens` and the last step behind it. */
static rd_status spend(const rd_model_config *c, const form *f, int tokens, int chunk, budget *out,
                       rd_error *err)
{
    rd_backend table = *rd_backend_entry();
    source from = { .form = f, .has_experts = c->first_k_dense_replace < c->num_hidden_layers };
    rd_weight_source weights = { find, &from };
    rd_model_options o = { .backend = &table,
                           .device = { .precision = RD_FAST, .weights = f->weights },
                           .block_size = BLOCK,
                           .max_rows = chunk,
                           .kv_blocks = tokens / BLOCK };
    rd_model *m = NULL;

    table.take = take;
    table.alloc = alloc;
    table.kv_open = kv_open;
    table.pick = pick;
    memset(&counted, 0, sizeof counted);
    if (rd_model_open_from(c, &weights, &o, &m, err)) return err->status;
    if (!chunk) chunk = rd_model_max_rows(m);
    rd_status s = run(m, tokens, chunk < tokens ? chunk : tokens, false, err);

    if (!s) s = run(m, tokens, BLOCK, true, err);
    counted.all = rd_emulated_held();
    counted.scratch = counted.all - counted.weights - counted.activations - counted.kv;
    *out = counted;
    rd_model_close(m);
    return s;
}

/* ---- a dry device counts what a device holds ---- */

Test(budget, of_a_dry_device_is_what_a_device_that_computes_holds, .timeout = 120)
{
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        rd_model_config c;
        budget counts, wet;
        rd_error err = { 0 };

        cr_assert(rd_shape_recipe("tiny", 300, &c));
        set_dry(false);
        cr_assert_eq(spend(&c, &forms[i], 96, 64, &wet, &err), RD_OK, "%s: %s", forms[i].name,
                     err.text);
        set_dry(true);
        cr_assert_eq(spend(&c, &forms[i], 96, 64, &counts, &err), RD_OK, "dry %s: %s",
                     forms[i].name, err.text);
        cr_assert_arr_eq(&counts, &wet, sizeof wet, "%s: %zu bytes, dry %zu", forms[i].name,
                         wet.all, counts.all);
        cr_assert_eq(rd_emulated_alive(), 0);
    }
}

Test(budget, of_a_device_that_is_too_small_is_refused_with_what_was_wanted, .timeout = 120)
{
    rd_model_config c;
    budget b;
    rd_error err = { 0 };

    cr_assert(rd_shape_named("llada2.1-mini", &c));
    set_dry(true);
    rd_emulated_memory(16 * GIB);
    cr_assert_eq(spend(&c, form_named("bf16"), CONTEXT, 0, &b, &err), RD_NO_MEMORY);
    cr_assert(strstr(err.text, "wanted") && strstr(err.text, "16384 MB are free"), "%s", err.text);
    cr_assert_eq(rd_emulated_alive(), 0);
}

/* ---- the shapes ---- */

typedef struct wanted {
    const char *shape, *form;
    size_t memory; /* of the device, less what its driver and its own context take */
} wanted;

/* "24 GB" is 24 * 10^9, as cards with error correction have little more; 1 GiB of either is left to the driver. */
static const wanted table[] = {
    { "llada2.1-mini", "fp8", 24000000000u - GIB },
    { "llada2.1-mini", "int8", 24000000000u - GIB },
    { "llada2.1-mini", "int4", 24000000000u - GIB },
    { "llada2.1-mini", "bf16", 138 * GIB },
    { "llada2.1-flash", "fp8", 138 * GIB },
    { "llada2.1-flash", "int8", 138 * GIB },
    { "llada2.1-flash", "int4", 138 * GIB },
};

static double gb(size_t bytes)
{
    return (double)bytes / 1e9;
}

Test(budget, has_room_for_the_published_shapes, .timeout = 300)
{
    set_dry(true);
    rd_emulated_device(90, 132);
    fprintf(stderr, "| shape | weights | of numbers | all weights | keys and values | activations "
                    "| scratch | all, GB |\n");
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const wanted *w = &table[i];
        rd_model_config c;
        budget b;
        rd_error err = { 0 };

        cr_assert(rd_shape_named(w->shape, &c));
        rd_emulated_memory(w->memory);
        cr_assert_eq(spend(&c, form_named(w->form), CONTEXT, 0, &b, &err), RD_OK,
                     "%s %s in %zu bytes: %s", w->shape, w->form, w->memory, err.text);
        fprintf(stderr, "| %s | %s | %.2f | %.2f | %.2f | %.2f | %.2f | %.2f |\n", w->shape,
                w->form, gb(b.floor), gb(b.weights), gb(b.kv), gb(b.activations), gb(b.scratch),
                gb(b.all));
        /* Scales, steps and padding, the way to the device, and slabs of 256 MB of which the last is not full. */
        cr_expect_geq(b.weights, b.floor);
        cr_expect_lt(b.weights, b.floor + b.floor / 12 + GIB / 2, "%s %s", w->shape, w->form);
        cr_expect_geq(b.kv, (size_t)CONTEXT * 4 *
                                (size_t)(c.num_hidden_layers * c.num_key_value_heads * c.head_dim));
    }
}
