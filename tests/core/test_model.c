/* test_model.c - what a checkpoint may look like: the full shape is accepted, a wrong one refused by name.
 * The numbers of a pass are held by conformance. */
#include "core/base/buf.h"
#include "core/base/memory.h"
#include "core/model/model.h"
#include "core/plugin.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char mini[] =
    "{\"architectures\":[\"LLaDA2MoeModelLM\"],\"model_type\":\"llada2_moe\",\"hidden_size\":2048,"
    "\"num_hidden_layers\":20,\"num_attention_heads\":16,\"num_key_value_heads\":4,\"head_dim\":"
    "128,"
    "\"intermediate_size\":5120,\"moe_intermediate_size\":512,\"num_experts\":256,"
    "\"num_experts_per_tok\":8,\"num_shared_experts\":1,\"first_k_dense_replace\":1,\"n_group\":8,"
    "\"topk_group\":4,\"routed_scaling_factor\":2.5,\"rope_theta\":600000,\"partial_rotary_"
    "factor\":0.5,"
    "\"rms_norm_eps\":1e-6,\"vocab_size\":157184,\"tie_word_embeddings\":false,"
    "\"max_position_embeddings\":32768,\"score_function\":\"sigmoid\",\"norm_topk_prob\":true,"
    "\"moe_router_enable_expert_bias\":true,\"hidden_act\":\"silu\",\"torch_dtype\":\"bfloat16\"}";

typedef struct header {
    rd_buf text;
    size_t offset;
    int tensors;
} header;

static void add(header *h, const char *name, int rows, int cols)
{
    size_t bytes = (size_t)rows * (size_t)cols * 2;

    rd_buf_format(&h->text, "%s\"%s\":{\"dtype\":\"BF16\",\"shape\":[", h->tensors ? "," : "",
                  name);
    if (rows > 1) rd_buf_format(&h->text, "%d,", rows);
    rd_buf_format(&h->text, "%d],\"data_offsets\":[%zu,%zu]}", cols, h->offset, h->offset + bytes);
    h->offset += bytes;
    h->tensors++;
}

static void add_in(header *h, int layer, const char *what, int rows, int cols)
{
    char name[128];

    snprintf(name, sizeof name, "model.layers.%d.%s", layer, what);
    add(h, name, rows, cols);
}

static void add_mlp(header *h, int layer, const char *where, int width)
{
    char name[96];

    snprintf(name, sizeof name, "mlp.%sgate_proj.weight", where);
    add_in(h, layer, name, width, 2048);
    snprintf(name, sizeof name, "mlp.%sup_proj.weight", where);
    add_in(h, layer, name, width, 2048);
    snprintf(name, sizeof name, "mlp.%sdown_proj.weight", where);
    add_in(h, layer, name, 2048, width);
}

/* The header of LLaDA2.1-mini; `wrong` gives one expert another width. */
static header full_header(bool wrong)
{
    header h = { 0 };
    char name[64];

    rd_buf_text(&h.text, "{");
    add(&h, "model.word_embeddings.weight", 157184, 2048);
    add(&h, "model.norm.weight", 1, 2048);
    add(&h, "lm_head.weight", 157184, 2048);
    for (int l = 0; l < 20; l++) {
        add_in(&h, l, "input_layernorm.weight", 1, 2048);
        add_in(&h, l, "post_attention_layernorm.weight", 1, 2048);
        add_in(&h, l, "attention.query_key_value.weight", 3072, 2048);
        add_in(&h, l, "attention.query_layernorm.weight", 1, 128);
        add_in(&h, l, "attention.key_layernorm.weight", 1, 128);
        add_in(&h, l, "attention.dense.weight", 2048, 2048);
        if (l == 0) {
            add_mlp(&h, 0, "", 5120);
            continue;
        }
        add_in(&h, l, "mlp.gate.weight", 256, 2048);
        add_in(&h, l, "mlp.gate.expert_bias", 1, 256);
        add_mlp(&h, l, "shared_experts.", 512);
        for (int e = 0; e < 256; e++) {
            snprintf(name, sizeof name, "experts.%d.", e);
            add_mlp(&h, l, name, wrong && l == 7 && e == 100 ? 511 : 512);
        }
    }
    rd_buf_text(&h.text, "}");
    while (h.text.len % 8) rd_buf_text(&h.text, " ");
    return h;
}

/* A sparse file: the header, and a length. */
static void write_file(const char *path, const header *h)
{
    uint64_t n = h->text.len;
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);

    cr_assert(fd >= 0 && write(fd, &n, 8) == 8 && write(fd, h->text.data, n) == (ssize_t)n);
    cr_assert(!ftruncate(fd, (off_t)(8 + n + h->offset)));
    close(fd);
}

static rd_status check(bool wrong, int *tensors, rd_error *err)
{
    char path[] = "/tmp/rd_modelXXXXXX";
    rd_safetensors *s = NULL;
    rd_model_config c;
    header h = full_header(wrong);
    int fd = mkstemp(path);

    cr_assert(fd >= 0);
    close(fd);
    write_file(path, &h);
    *tensors = h.tensors;
    rd_status status = rd_config_parse(mini, sizeof mini - 1, "config.json", &c, err);

    if (!status) status = rd_safetensors_open(path, &s, err);
    if (!status) status = rd_model_check(&c, s, err);
    rd_safetensors_close(s);
    rd_buf_clear(&h.text);
    unlink(path);
    return status;
}

Test(model, accepts_the_full_shape_of_a_published_checkpoint, .timeout = 60)
{
    rd_error err = { 0 };
    int tensors;

    cr_assert_eq(check(false, &tensors, &err), RD_OK, "%s", err.text);
    cr_assert_eq(tensors, 14813);
}

Test(model, refuses_a_wrong_shape_by_the_tensors_name, .timeout = 60)
{
    rd_error err = { 0 };
    int tensors;

    cr_assert_eq(check(true, &tensors, &err), RD_INVALID);
    cr_assert(
        strstr(
            err.text,
            "model.layers.7.mlp.experts.100.gate_proj.weight is [511, 2048], expected [512, 2048]"),
        "%s", err.text);
}

Test(model, a_pass_is_checked_before_it_runs)
{
    rd_model_options o = {
        .device = { .precision = RD_EXACT }, .max_rows = 8, .kv_blocks = 4, .block_size = 4
    };
    rd_model *m = NULL;
    int32_t tokens[9] = { 0 }, beyond[] = { 4 };
    rd_error err;

    cr_assert(!rd_backend_find("cpu", &o.backend, &err));
    cr_assert(!rd_model_open(RD_TEST_DATA "/golden/models/m1_base", &o, &m, &err), "%s", err.text);
    cr_assert_eq(rd_forward(m, &(rd_pass){ .tokens = tokens, .rows = 9 }, &err), RD_INVALID);
    cr_assert_eq(
        rd_forward(m, &(rd_pass){ .tokens = tokens, .rows = 4, .past = beyond, .past_blocks = 1 },
                   &err),
        RD_INVALID);
    cr_assert_eq(rd_forward(m, &(rd_pass){ .tokens = tokens, .rows = 4, .keep = beyond }, &err),
                 RD_INVALID);
    tokens[2] = 1 << 20;
    cr_assert_eq(rd_forward(m, &(rd_pass){ .tokens = tokens, .rows = 4 }, &err), RD_INVALID);
    tokens[2] = -1;
    cr_assert_eq(rd_forward(m, &(rd_pass){ .tokens = tokens, .rows = 4 }, &err), RD_INVALID);
    rd_model_close(m);
}

Test(model, a_cancelled_pass_says_so)
{
    rd_model_options o = { .device = { .precision = RD_EXACT }, .max_rows = 8 };
    int32_t tokens[8] = { 0 };
    rd_cancel cancel = { 0 };
    rd_model *m = NULL;
    rd_error err;

    cr_assert(!rd_backend_find("cpu", &o.backend, &err));
    cr_assert(!rd_model_open(RD_TEST_DATA "/golden/models/m1_base", &o, &m, &err), "%s", err.text);
    rd_cancel_set(&cancel);
    cr_assert_eq(rd_forward(m, &(rd_pass){ .tokens = tokens, .rows = 8, .cancel = &cancel }, &err),
                 RD_CANCELLED);
    rd_model_close(m);
}

/* Picks of the built-in model (tied embedding, one group, delete and split ids), which no recorded case covers. */
static bool builtin_picks(const char *isa, rd_pick *out, int rows)
{
    rd_model_options o = { .device = { .isa = isa, .precision = RD_EXACT }, .max_rows = rows };
    int32_t tokens[64];
    rd_pick_query q = { .n_rows = rows };
    rd_model *m = NULL;
    rd_error err;

    cr_assert(!rd_backend_find("cpu", &o.backend, &err));
    rd_status s = rd_model_open(RD_SOURCE_DIR "/core/builtin", &o, &m, &err);

    if (s == RD_DEVICE) return false; /* this machine has not got it */
    cr_assert_eq(s, RD_OK, "%s", err.text);
    for (int i = 0; i < rows; i++) tokens[i] = i % 5 ? 70 + i * 97 % 8000 : 2;
    rd_pass p = { .tokens = tokens, .rows = rows, .query = &q, .picks = out };

    cr_assert(!rd_forward(m, &p, &err), "%s", err.text);
    rd_model_close(m);
    return true;
}

Test(model, the_builtin_model_answers_alike_on_every_path, .timeout = 60)
{
    static const char *const sets[] = { "avx2", "avx512", "avx512-f32" };
    rd_pick want[64], got[64];

    cr_assert(builtin_picks("plain", want, 64));
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        if (!builtin_picks(sets[i], got, 64)) continue;
        for (int r = 0; r < 64; r++) {
            bool close_call = want[r].prob - want[r].second_prob < 1e-3f;

            cr_assert(close_call || got[r].token == want[r].token, "%s, row %d", sets[i], r);
            cr_assert_float_eq((double)got[r].prob, (double)want[r].prob, 1e-3);
        }
    }
}

/* Logits of a tied model against the embedding's own rows, multiplied by hand. */
Test(model, tied_logits_are_products_with_the_embedding, .timeout = 60)
{
    static const char *const sets[] = { "plain", "avx2", "avx512", "avx512-f32" };
    enum { ROWS = 5 };
    int32_t tokens[ROWS] = { 70, 2, 700, 2, 7000 };
    rd_safetensors *file = NULL;
    rd_error err;

    cr_assert(!rd_safetensors_open(RD_SOURCE_DIR "/core/builtin", &file, &err), "%s", err.text);
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        rd_model_options o = { .device = { .isa = sets[i], .precision = RD_EXACT },
                               .max_rows = ROWS };
        rd_model *m = NULL;

        cr_assert(!rd_backend_find("cpu", &o.backend, &err));
        if (rd_model_open(RD_SOURCE_DIR "/core/builtin", &o, &m, &err) == RD_DEVICE) continue;
        const rd_model_config *c = rd_model_config_of(m);
        size_t hidden = (size_t)c->hidden_size, vocab = (size_t)c->vocab_size;
        const rd_tensor *q = rd_safetensors_find(file, "model.word_embeddings.weight.q");
        const rd_tensor *scale = rd_safetensors_find(file, "model.word_embeddings.weight.s");
        const rd_tensor *wide = rd_safetensors_find(file, "model.word_embeddings.weight");
        float *normed = rd_alloc_array(ROWS * hidden, sizeof *normed),
              *logits = rd_alloc_array(ROWS * vocab, sizeof *logits),
              *row = rd_alloc_array(hidden, sizeof *row);
        rd_taps taps = { .final_norm = normed, .logits = logits };
        rd_pass p = { .tokens = tokens, .rows = ROWS, .taps = &taps };

        cr_assert(c->tie_word_embeddings && (wide || (q && scale)));
        cr_assert(!rd_forward(m, &p, &err), "%s", err.text);
        for (size_t v = 0; v < vocab; v += 101) {
            const rd_tensor *t = wide ? wide : q;
            size_t bytes = hidden * rd_dtype_bytes(t->dtype);
            float by = 1.0f;

            rd_widen(row, (const char *)t->data + v * bytes, t->dtype, hidden);
            if (!wide) memcpy(&by, (const char *)scale->data + v * sizeof by, sizeof by);
            for (size_t r = 0; r < ROWS; r++) {
                double want = 0.0;

                for (size_t k = 0; k < hidden; k++)
                    want += (double)normed[r * hidden + k] * (double)row[k] * (double)by;
                cr_assert_float_eq((double)logits[r * vocab + v], want, 1e-3, "%s", sets[i]);
            }
        }
        free(normed);
        free(logits);
        free(row);
        rd_model_close(m);
    }
    rd_safetensors_close(file);
}

/* ---- branches ---- */

enum { TILE = 8, TRUNK = 16, BRANCHES = 3 };

typedef struct passes {
    rd_model *m;
    int32_t token[TRUNK + BRANCHES * TILE];
    int counts[BRANCHES];
    int32_t rows[BRANCHES * TILE];
    int asked;
} passes;

static rd_status forward(passes *p, const int32_t *token, int rows, int past, bool branch,
                         const rd_pick_query *q, rd_pick *out, rd_error *err)
{
    static const int32_t places[] = { 2, 0, -1, -1, -1 };
    int32_t positions[TRUNK + BRANCHES * TILE];

    for (int i = 0; i < rows; i++)
        positions[i] = branch && i >= TRUNK ? TRUNK + (i - TRUNK) % TILE : past * TILE + i;
    rd_pass pass = { .tokens = token,
                     .positions = positions,
                     .rows = rows,
                     .past = places,
                     .past_blocks = past,
                     .keep = past ? NULL : places,
                     .query = q,
                     .picks = out };

    if (branch) pass.branches = (rd_branches){ TRUNK, TILE, p->counts };
    return rd_forward(p->m, &pass, err);
}

/* One pass over trunk and branches against the trunk kept first and each branch by itself. */
static void branches_equal_passes(const char *dir, const char *isa)
{
    rd_model_options o = {
        .device = { .threads = 2, .isa = isa }, .block_size = TILE, .max_rows = 64, .kv_blocks = 4
    };
    passes p = { .counts = { 8, 5, 1 } };
    rd_pick together[BRANCHES * TILE], apart[TILE];
    rd_error err = { 0 };

    cr_assert(!rd_backend_find("cpu", &o.backend, &err));
    rd_status status = rd_model_open(dir, &o, &p.m, &err);

    if (status == RD_DEVICE) return; /* this processor lacks it */
    cr_assert_eq(status, RD_OK, "%s", err.text);
    for (int i = 0; i < TRUNK + BRANCHES * TILE; i++) p.token[i] = 12 + i * 37 % 200;
    for (int b = 0; b < BRANCHES; b++)
        for (int i = 0; i < p.counts[b]; i++) p.rows[p.asked++] = TRUNK + b * TILE + i;
    rd_pick_query q = { .rows = p.rows, .n_rows = p.asked };

    status = forward(&p, p.token, TRUNK + BRANCHES * TILE, 0, true, &q, together, &err);
    cr_assert_eq(status, RD_OK, "%s", err.text);
    int at = 0;

    for (int b = 0; b < BRANCHES; b++) {
        rd_pick_query one = { .n_rows = p.counts[b] };

        status = forward(&p, p.token + TRUNK + b * TILE, p.counts[b], TRUNK / TILE, false, &one,
                         apart, &err);
        cr_assert_eq(status, RD_OK, "%s", err.text);
        for (int i = 0; i < p.counts[b]; i++, at++) {
            cr_assert_eq(together[at].token, apart[i].token, "%s branch %d row %d", dir, b, i);
            cr_assert_float_eq(together[at].prob, apart[i].prob, 1e-4f);
        }
    }
    rd_model_close(p.m);
}

Test(model, branches_see_the_trunk_and_themselves_alone)
{
    static const char *const sets[] = { "plain", "avx2", "avx512" };

    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        branches_equal_passes(RD_TEST_DATA "/golden/models/m1_base", sets[i]);
        branches_equal_passes(RD_TEST_DATA "/golden/models/m5_v22", sets[i]);
    }
}
