/* config_cases.c - a working config.json with one value spoilt, and files that are no configuration. */
#include "hostile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char *good;

/* `good` with the value of `key` replaced; NULL removes it, a key that is not there is added. */
static void spoil(const char *key, const char *value)
{
    const char *quoted = named("\"%s\":", key), *at = strstr(good, quoted);
    FILE *f = fopen("m/config.json", "wb");

    if (!f) abort();
    if (!at) {
        fprintf(f, "{\"%s\": %s,%s", key, value, strchr(good, '{') + 1);
    } else {
        const char *end = at + strcspn(at, "\n");

        fwrite(good, 1, (size_t)(at - good), f);
        if (value) fprintf(f, "\"%s\": %s%s", key, value, end[-1] == ',' ? "," : "");
        if (!value && end[-1] != ',') fputs("\"none\": 0", f);
        fputs(end, f);
    }
    if (fclose(f)) abort();
}

static void refused(hostile *h, const char *name, const char *needle)
{
    CASE(h, name, 1, needle, "infill", "a.c:1:1", "--model", "m");
}

static void one(hostile *h, const char *key, const char *what, const char *value,
                const char *needle)
{
    spoil(key, value);
    refused(h, named("%s_%s", key, what), needle);
}

static void numbers(hostile *h)
{
    static const char *const keys[] = {
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "intermediate_size",
        "moe_intermediate_size",
        "num_experts",
        "num_experts_per_tok",
        "max_position_embeddings",
        "num_shared_experts",
    };
    static const struct {
        const char *name, *value;
    } wrong[] = {
        { "missing", NULL },     { "is_text", "\"7\"" },      { "is_a_list", "[64]" },
        { "is_negative", "-1" }, { "is_2_31", "2147483648" }, { "is_2_53", "9007199254740992" },
        { "is_1e308", "1e308" }, { "has_a_fraction", "2.5" }, { "is_true", "true" },
        { "is_0", "0" },
    };

    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        for (size_t k = 0; k < sizeof wrong / sizeof *wrong; k++)
            if (strcmp(keys[i], "num_shared_experts") != 0 || strcmp(wrong[k].name, "is_0") != 0)
                one(h, keys[i], wrong[k].name, wrong[k].value, keys[i]);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        one(h, keys[i], "is_not_a_number", "NaN", "config.json: line");
    one(h, "hidden_size", "is_beyond_64_bits", "99999999999999999999", "config.json");
    one(h, "hidden_size", "is_an_object", "{}", "hidden_size");
    one(h, "hidden_size", "is_1e400", "1e400", "config.json");
}

static void reals(hostile *h)
{
    static const char *const keys[] = { "rope_theta", "rms_norm_eps", "routed_scaling_factor" };

    for (size_t i = 0; i < 3; i++) {
        one(h, keys[i], "is_negative", "-1", keys[i]);
        one(h, keys[i], "is_0", "0", keys[i]);
        one(h, keys[i], "is_1e308", "1e308", keys[i]);
        one(h, keys[i], "is_text", "\"1\"", keys[i]);
        one(h, keys[i], "is_infinite", "Infinity", "config.json: line");
    }
    one(h, "rope_theta", "missing", NULL, "rope_theta is missing");
    one(h, "partial_rotary_factor", "is_0", "0", "partial_rotary_factor");
    one(h, "partial_rotary_factor", "is_2", "2", "partial_rotary_factor");
    one(h, "partial_rotary_factor", "makes_an_odd_number", "0.32", "rotary_dim 5 is not even");
    one(h, "partial_rotary_factor", "makes_nothing", "1e-9", "rotary_dim 0");
}

static void products(hostile *h)
{
    one(h, "head_dim", "no_weight_has", "1024", "query_key_value.weight is");
    char *kept = good;
    size_t n;

    spoil("moe_intermediate_size", "1048576");
    good = get_file("m/config.json", &n);
    spoil("hidden_size", "65536");
    free(good);
    good = get_file("m/config.json", &n);
    one(h, "num_experts", "times_width_is_2_50", "16384", "multiply to a model too large");
    free(good);
    good = kept;
    spoil("num_hidden_layers", "1024");
    good = get_file("m/config.json", &n);
    one(h, "num_experts", "times_layers_is_2_24", "16384",
        "16384 experts in 1024 layers are too many");
    free(good);
    good = kept;
    spoil("num_attention_heads", "1024");
    good = get_file("m/config.json", &n);
    spoil("num_key_value_heads", "1024");
    free(good);
    good = get_file("m/config.json", &n);
    one(h, "head_dim", "times_heads_is_2_21", "1024", "query_key_value.weight is");
    free(good);
    good = kept;
    spoil("num_attention_heads", "1024");
    refused(h, "heads_that_no_weight_has", "query_key_value.weight is");
    one(h, "num_attention_heads", "is_no_multiple_of_the_kv_heads", "3", "not a multiple");
    one(h, "num_key_value_heads", "exceeds_the_heads", "1024", "not a multiple");
    one(h, "num_experts_per_tok", "exceeds_the_experts", "17", "exceeds num_experts");
    one(h, "n_group", "does_not_divide_the_experts", "3", "n_group 3");
    one(h, "n_group", "leaves_one_expert_each", "16", "too small");
    one(h, "topk_group", "exceeds_n_group", "5", "topk_group 5");
    one(h, "n_group", "is_0", "0", "n_group");
    one(h, "num_experts", "is_more_than_there_are", "32",
        "mlp.gate.weight is [16, 64], expected [32, 64]");
    one(h, "num_experts", "is_fewer_than_the_router_has", "8", "mlp.gate.weight is [16, 64]");
    one(h, "num_hidden_layers", "is_more_than_there_are", "4", "model.layers.3");
    one(h, "first_k_dense_replace", "exceeds_the_layers", "4", "first_k_dense_replace 4");
    one(h, "first_k_dense_replace", "makes_an_expert_layer_dense", "2",
        "layers.1.mlp.gate_proj.weight is missing");
    one(h, "vocab_size", "differs_from_the_table", "321",
        "word_embeddings.weight is [320, 64], expected [321, 64]");
    one(h, "hidden_size", "differs_from_the_table", "63",
        "word_embeddings.weight is [320, 64], expected [320, 63]");
    one(h, "vocab_size", "multiplies_to_2_30", "16777216", "word_embeddings.weight is");
    one(h, "moe_intermediate_size", "multiplies_to_2_45", "1048576", "is");
    one(h, "expert_capacity", "is_below_the_experts_a_token", "2", "expert_capacity 2");
    one(h, "expert_capacity", "exceeds_the_experts", "17", "expert_capacity 17");
    one(h, "block_size", "is_0", "0", "block_size");
    one(h, "block_size", "is_4097", "4097", "block_size");
    one(h, "block_size", "is_2048", "2048", "block_size is 2048, allowed are 1 to 1024");
    one(h, "block_size", "is_1025", "1025", "block_size is 1025");
    one(h, "redraft_confidence", "is_a_number", "1", "redraft_confidence is not a list");
    one(h, "redraft_confidence", "is_short", "[1,2]", "redraft_confidence is not a list");
    one(h, "redraft_confidence", "holds_a_text", "[0,0,0,0,0,0,0,0,0,0,0,0,0,0,\"x\"]",
        "number 15 is not one");
    one(h, "redraft_confidence", "holds_1e308", "[1e308,0,0,0,0,0,0,0,0,0,0,0,0,0,0]",
        "number 1 is not one");
    one(h, "redraft_confidence", "has_no_gate", "[0,0,0,0,0,0,0,0,0,0,0,0,0,1]",
        "redraft_confidence is not a list of 15 numbers");
    one(h, "redraft_confidence", "has_a_gate_of_2", "[0,0,0,0,0,0,0,0,0,0,0,0,0,1,2]",
        "the gate 2 is not from 0 to 1");
    one(h, "block_size", "leaves_no_anchor", "1", "blocks of");
    spoil("block_size", "2048");
    CASE(h, "bench_with_blocks_of_2048", 1, "block_size is 2048", "bench", "--model", "m");
    CASE(h, "score_with_blocks_of_2048", 1, "block_size is 2048", "score", "a.c", "--model", "m");
}

static void ids(hostile *h)
{
    one(h, "pad_token_id", "is_outside", "320", "pad_token_id 320 is outside");
    one(h, "mask_token_id", "is_outside", "320", "mask_token_id 320 is outside");
    one(h, "mask_token_id", "is_below_minus_1", "-2", "mask_token_id");
    one(h, "mask_token_id", "is_a_byte_of_text", "65",
        "the mask token 65 is one that text can hold");
    one(h, "delete_token_id", "is_a_byte_of_text", "66", "the delete token 66");
    one(h, "split_token_id", "is_a_byte_of_text", "67", "the split token 67");
    one(h, "eos_token_id", "is_outside", "320", "eos_token_id");
    one(h, "eos_token_id", "is_text", "\"1\"", "eos_token_id");
    one(h, "eos_token_id", "is_a_list_of_lists", "[[1]]", "eos_token_id");
    one(h, "eos_token_id", "is_a_list_of_nine", "[1,2,3,4,5,6,7,8,9]", "more than 8 eos_token_id");
    spoil("mask_token_id", "300, \"delete_token_id\": 300");
    refused(h, "two_roles_for_one_id", "are both 300");
}

static void kinds(hostile *h)
{
    one(h, "model_type", "is_another", "\"llama\"", "model_type \"llama\" is not supported");
    one(h, "model_type", "missing", NULL, "model_type is missing");
    one(h, "model_type", "is_a_list", "[\"llada2_moe\"]", "model_type is missing");
    one(h, "use_bias", "is_true", "true", "use_bias true is not supported");
    one(h, "use_qkv_bias", "is_text", "\"yes\"", "use_qkv_bias");
    one(h, "use_sliding_window", "is_true", "true", "use_sliding_window");
    one(h, "hidden_act", "is_another", "\"gelu\"", "hidden_act");
    one(h, "score_function", "is_another", "\"softmax\"", "score_function");
    one(h, "rope_scaling", "is_yarn", "{\"rope_type\":\"yarn\",\"factor\":4}",
        "rope_scaling of type \"yarn\"");
    one(h, "rope_scaling", "is_text", "\"linear\"", "rope_scaling is not an object");
    one(h, "rope_parameters", "is_a_list", "[]", "rope_parameters is not an object");
    one(h, "quantization_config", "is_there", "{\"quant_method\":\"fp8\"}",
        "quantization_config is not supported");
    one(h, "redraft_layout", "is_unknown", "\"infill-2\"", "redraft_layout");
    one(h, "tie_word_embeddings", "is_1", "1", "tie_word_embeddings");
    one(h, "model_type", "is_twice", "\"llada2_moe\", \"model_type\": \"llada2_moe\"", "duplicate");
}

static void files(hostile *h)
{
    static const struct {
        const char *name, *text, *needle;
    } cases[] = {
        { "an_empty_config", "", "config.json: empty" },
        { "a_config_of_spaces", "   \n", "config.json: line" },
        { "a_config_that_is_a_list", "[]", "config.json: not a JSON object" },
        { "a_config_that_is_a_number", "7", "config.json" },
        { "a_config_that_ends_early", "{\"model_type\":\"llada2_moe\",", "config.json: line 1" },
        { "a_config_with_a_comment", "{ // llada\n}", "config.json: line 1" },
        { "a_config_with_a_byte_order_mark", "\xef\xbb\xbf{}", "config.json: line 1" },
        { "a_config_in_latin_1", "{\"model_type\":\"caf\351\"}", "config.json: line 1" },
        { "a_config_with_a_lone_surrogate", "{\"model_type\":\"\\ud83d\"}", "config.json: line 1" },
        { "a_config_with_escapes_in_its_kind", "{\"model_type\":\"\\u001b[2J\\u202e\\u009b\"}",
          "??? " },
        { "a_config_with_two_objects", "{}{}", "config.json: line 1" },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_text("m/config.json", cases[i].text);
        refused(h, cases[i].name,
                strcmp(cases[i].needle, "??? ") ? cases[i].needle : "model_type \"?[2J");
    }
    put_bytes("m/config.json", "\0\1\2\3\xff\xfe\xfd{", 8);
    refused(h, "a_binary_config", "config.json: line 1");
    put_many("m/config.json", "[", 500000);
    refused(h, "a_config_of_brackets", "config.json");
    put_many("m/config.json", "          ", 2000000);
    refused(h, "a_config_of_20_mb", "config.json: larger than the limit");
    put_many("m/config.json", "{\"a\":[0,", 100000);
    refused(h, "a_config_of_200000_values", "config.json: more than 10000 JSON values");
    unlink("m/config.json");
    refused(h, "no_config", "config.json: cannot open: No such file");
    put_folder("m/config.json");
    refused(h, "a_config_that_is_a_folder", "config.json: not a regular file");
    rmdir("m/config.json");
    if (mkfifo("m/config.json", 0666) == 0)
        refused(h, "a_config_that_is_a_pipe", "config.json: not a regular file");
    unlink("m/config.json");
    if (symlink("/dev/zero", "m/config.json") == 0)
        refused(h, "a_config_that_is_a_device", "config.json: not a regular file");
    unlink("m/config.json");
    put_text("m/config.json", good);
    put_text("m/generation_config.json", "{\"eos_token_id\":99999}");
    refused(h, "a_generation_config_with_an_id_outside", "generation_config.json");
    put_text("m/generation_config.json", "{");
    refused(h, "a_torn_generation_config", "generation_config.json");
    unlink("m/generation_config.json");
    put_tokenizer("m/tokenizer.json", good_pre, "", "", MASK ",{\"id\":320,\"content\":\"<x>\"}",
                  "");
    refused(h, "a_tokenizer_larger_than_the_vocabulary",
            "the tokenizer has 321 ids, the model 320");
    put_tokenizer("m/tokenizer.json", good_pre, "", "", "", "");
    refused(h, "a_tokenizer_without_a_mask", "the tokenizer has no <|mask|>");
    put_tokenizer("m/tokenizer.json", good_pre, ",\"<|mask|>\":256", "", "", "");
    refused(h, "a_mask_that_is_an_ordinary_entry", "the mask token 256 is one that text can hold");
}

void config_cases(hostile *h)
{
    size_t n;

    good = get_file(named("%s/golden/models/m1_base/config.json", h->data), &n);
    put_text("a.c", "int main(void)\n");
    put_model(h, "m");
    numbers(h);
    reals(h);
    products(h);
    ids(h);
    kinds(h);
    files(h);
    free(good);
}
