/* test_average.c - the mean of models, and what is refused before anything is written. */
#include "core/base/memory.h"
#include "core/format/file.h"
#include "core/train/average.h"
#include "core/train/params.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static rd_model_config shape(int hidden)
{
    return (rd_model_config){ .vocab_size = 64,
                              .hidden_size = hidden,
                              .num_hidden_layers = 2,
                              .num_attention_heads = 2,
                              .num_key_value_heads = 1,
                              .head_dim = 16,
                              .intermediate_size = 32,
                              .moe_intermediate_size = 16,
                              .num_experts = 4,
                              .num_experts_per_tok = 2,
                              .num_shared_experts = 1,
                              .first_k_dense_replace = 1,
                              .n_group = 1,
                              .topk_group = 1,
                              .block_size = 32,
                              .rotary_dim = 8,
                              .max_position_embeddings = 512,
                              .rope_theta = 10000.0,
                              .rms_norm_eps = 1e-6,
                              .routed_scaling_factor = 2.5,
                              .tie_word_embeddings = true,
                              .pad_token_id = 1,
                              .mask_token_id = 2,
                              .delete_token_id = 3,
                              .split_token_id = 4,
                              .eos_count = 1,
                              .infill_layout = true };
}

static void put_text(const char *dir, const char *name, const char *text)
{
    char path[256];
    rd_error err;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    cr_assert(!rd_file_write(path, text, strlen(text), &err), "%s", err.text);
}

/* A model whose weights are those of `seed`, or all `value` where that is a number. */
static void put_model(const char *dir, int hidden, uint64_t seed, float value, rd_dtype type,
                      const char *tokenizer)
{
    rd_model_config c = shape(hidden);
    rd_params p;
    rd_error err;

    cr_assert(!mkdir(dir, 0700));
    cr_assert(!rd_params_init(&p, &c, &err), "%s", err.text);
    float *w = rd_alloc_array(p.size, sizeof *w);

    rd_params_seed(&p, w, seed);
    for (size_t i = 0; i < p.size && isfinite(value); i++) w[i] = value;
    cr_assert(!rd_params_write(&p, w, type, dir, &err), "%s", err.text);
    put_text(dir, "tokenizer.json", tokenizer);
    put_text(dir, "tokenizer_config.json", "{}");
    free(w);
    rd_params_clear(&p);
}

static char *enter(void)
{
    char dir[] = "/tmp/rd-average-XXXXXX";

    cr_assert(mkdtemp(dir) && !chdir(dir));
    return rd_copy_text(dir, strlen(dir));
}

static void leave(char *dir)
{
    char command[128];

    cr_assert(!chdir("/"));
    snprintf(command, sizeof command, "rm -r %s", dir);
    cr_assert(!system(command));
    free(dir);
}

static float *read_model(const char *dir, rd_params *p)
{
    rd_model_config c;
    rd_error err;

    cr_assert(!rd_config_read(dir, &c, &err) && !rd_params_init(p, &c, &err), "%s", err.text);
    float *w = rd_alloc_array(p->size, sizeof *w);

    cr_assert(!rd_params_read(p, w, dir, &err), "%s", err.text);
    return w;
}

Test(average, is_the_mean_of_each_weight)
{
    const char *const dirs[] = { "a", "b", "c" };
    char *top = enter();
    rd_params p, q;
    rd_error err;

    put_model("a", 32, 1, NAN, RD_F32, "{}");
    put_model("b", 32, 2, NAN, RD_BF16, "{}");
    put_model("c", 32, 3, 0.5f, RD_F32, "{}");
    cr_assert(!rd_models_average(dirs, 3, "out", &err), "%s", err.text);

    float *w[3], *mean = read_model("out", &q);
    for (int i = 0; i < 3; i++) {
        w[i] = read_model(dirs[i], &p);
        cr_assert_eq(p.size, q.size);
        rd_params_clear(&p);
    }
    for (size_t i = 0; i < q.size; i++) {
        float want = (w[0][i] + w[1][i] + w[2][i]) / 3.0f;

        cr_assert_float_eq(mean[i], want, fabsf(want) / 200.0f + 1e-6f, "weight %zu", i);
    }
    for (int i = 0; i < 3; i++) free(w[i]);
    free(mean);
    rd_params_clear(&q);
    leave(top);
}

static void refused(const char *a, const char *b, const char *out, const char *says)
{
    const char *dirs[] = { a, b };
    rd_error err = { 0 };

    cr_assert(rd_models_average(dirs, 2, out, &err));
    cr_assert(strstr(err.text, says), "%s", err.text);
    cr_assert(access("out/model.safetensors", F_OK));
}

Test(average, refuses_what_has_no_mean_and_writes_nothing)
{
    char *top = enter();

    put_model("a", 32, 1, NAN, RD_BF16, "{}");
    put_model("wide", 64, 1, NAN, RD_BF16, "{}");
    put_model("words", 32, 1, NAN, RD_BF16, "{ }");

    refused("a", "wide", "out", "wide has another shape than a");
    refused("a", "words", "out", "words has another tokenizer than a");
    refused("a", "nowhere", "out", "nowhere");
    refused("nowhere", "a", "out", "nowhere");
    refused("a", "words", "a", "a mean cannot be written onto a model of it");
    leave(top);
}
