/* safetensors_cases.c - weight files whose header lies, and folders whose files are not what they seem. */
#include "hostile.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ONE(name, shape, from, to) \
    "\"" name "\":{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":[" from "," to "]}"

static void refused(hostile *h, const char *name, const char *needle)
{
    CASE(h, name, 1, needle, "quantize", "in", "out");
}

static void header(hostile *h, const char *name, const char *needle, const char *text, size_t data)
{
    put_tensors("in/model.safetensors", text, data);
    refused(h, name, needle);
}

static void lengths(hostile *h)
{
    static const struct {
        const char *name, *needle;
        uint64_t length;
    } cases[] = {
        { "a_header_of_0_bytes", "model.safetensors: the header does not begin with {", 0 },
        { "a_header_of_1_byte", "model.safetensors: line 1", 1 },
        { "a_header_one_byte_too_long", "model.safetensors: the header of 121 bytes ends behind",
          121 },
        { "a_header_of_100_mb", "ends behind the file", 100u << 20 },
        { "a_header_above_100_mb", "above the limit", (100u << 20) + 1 },
        { "a_header_of_2_31", "above the limit", 1ull << 31 },
        { "a_header_of_2_32", "above the limit", 1ull << 32 },
        { "a_header_of_2_63", "above the limit", 1ull << 63 },
        { "a_header_of_2_63_less_8", "above the limit", (1ull << 63) - 8 },
        { "a_header_of_2_64_less_1", "above the limit", UINT64_MAX },
        { "a_header_of_2_64_less_8", "above the limit", UINT64_MAX - 7 },
    };
    unsigned char file[128];

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        memset(file, ' ', sizeof file);
        for (int k = 0; k < 8; k++) file[k] = (unsigned char)(cases[i].length >> (8 * k));
        file[8] = '{';
        put_bytes("in/model.safetensors", file, sizeof file);
        refused(h, cases[i].name, cases[i].needle);
    }
}

static void truncated(hostile *h)
{
    size_t n;
    char *bytes = get_file(named("%s/golden/models/m1_base/model.safetensors", h->data), &n);
    const size_t cuts[] = { 0, 1, 7, 8, 9, 100, 5000, n / 2, n - 4, n - 1 };

    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        put_bytes("in/model.safetensors", bytes, cuts[i]);
        refused(h, named("a_file_cut_at_%zu", cuts[i]), "model.safetensors");
    }
    char *longer = calloc(1, n + 1);

    memcpy(longer, bytes, n);
    put_bytes("in/model.safetensors", longer, n + 1);
    refused(h, "a_file_one_byte_longer", "model.safetensors: 1 bytes behind the last tensor");
    free(longer);
    free(bytes);
}

static void offsets(hostile *h)
{
    header(h, "offsets_overlap", "b: overlaps",
           "{" ONE("a", "[2]", "0", "8") "," ONE("b", "[2]", "4", "12") "}", 12);
    header(h, "offsets_the_same_twice", "overlaps",
           "{" ONE("a", "[2]", "0", "8") "," ONE("b", "[2]", "0", "8") "}", 8);
    header(h, "offsets_with_a_gap", "b: a gap",
           "{" ONE("a", "[1]", "0", "4") "," ONE("b", "[1]", "8", "12") "}", 12);
    header(h, "offsets_that_begin_late", "a: a gap", "{" ONE("a", "[1]", "4", "8") "}", 8);
    header(h, "offsets_reversed", "a: data_offsets 8 to 0", "{" ONE("a", "[2]", "8", "0") "}", 8);
    header(h, "offsets_behind_the_file", "are outside the data", "{" ONE("a", "[4]", "0", "16") "}",
           8);
    header(h, "offsets_negative", "are outside the data", "{" ONE("a", "[2]", "-8", "0") "}", 8);
    header(h, "offsets_of_2_63", "model.safetensors",
           "{" ONE("a", "[2]", "0", "9223372036854775808") "}", 8);
    header(h, "offsets_of_2_63_less_1", "are outside the data",
           "{" ONE("a", "[2]", "0", "9223372036854775807") "}", 8);
    header(h, "offsets_with_fractions", "not two whole numbers",
           "{" ONE("a", "[2]", "0", "8.0") "}", 8);
    header(h, "offsets_of_text", "not two whole numbers", "{" ONE("a", "[2]", "\"0\"", "8") "}", 8);
    header(h, "one_offset", "not two whole numbers",
           "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", 8);
    header(h, "three_offsets", "not two whole numbers",
           "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4,8]}}", 8);
    header(h, "no_offsets", "not two whole numbers", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}",
           8);
    header(h, "offsets_in_an_object", "not two whole numbers",
           "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":{\"0\":0,\"1\":8}}}", 8);
    header(h, "more_than_the_shape_needs", "its shape needs 8 bytes",
           "{" ONE("a", "[2]", "0", "12") "}", 12);
    header(h, "less_than_the_shape_needs", "its shape needs 12 bytes",
           "{" ONE("a", "[3]", "0", "8") "}", 8);
    header(h, "bytes_behind_the_last_tensor", "4 bytes behind", "{" ONE("a", "[2]", "0", "8") "}",
           12);
}

static void shapes(hostile *h)
{
    header(h, "a_shape_of_2_63", "model.safetensors",
           "{" ONE("a", "[9223372036854775808]", "0", "0") "}", 0);
    header(h, "a_shape_of_2_62", "a: its shape overflows",
           "{" ONE("a", "[4611686018427387904]", "0", "0") "}", 0);
    header(h, "a_product_of_2_64", "a: its shape overflows",
           "{" ONE("a", "[4294967296,4294967296]", "0", "0") "}", 0);
    header(h, "a_product_that_wraps_to_4", "overflows",
           "{" ONE("a", "[3,6148914691236517206]", "0", "8") "}", 8);
    header(h, "nothing_times_2_60", "overflows",
           "{" ONE("a", "[0,1152921504606846976]", "0", "0") "}", 0);
    header(h, "2_60_times_nothing", "overflows",
           "{" ONE("a", "[1152921504606846976,0]", "0", "0") "}", 0);
    header(h, "a_negative_size", "not a whole number", "{" ONE("a", "[-2]", "0", "8") "}", 8);
    header(h, "two_negative_sizes", "not a whole number", "{" ONE("a", "[-1,-2]", "0", "8") "}", 8);
    header(h, "a_size_with_a_fraction", "not a whole number", "{" ONE("a", "[2.0]", "0", "8") "}",
           8);
    header(h, "a_size_of_1e308", "not a whole number", "{" ONE("a", "[1e308]", "0", "8") "}", 8);
    header(h, "a_size_that_is_text", "not a whole number", "{" ONE("a", "[\"2\"]", "0", "8") "}",
           8);
    header(h, "a_size_that_is_null", "not a whole number", "{" ONE("a", "[null]", "0", "8") "}", 8);
    header(h, "a_shape_that_is_a_number", "shape is not a list", "{" ONE("a", "2", "0", "8") "}",
           8);
    header(h, "a_shape_that_is_an_object", "shape is not a list", "{" ONE("a", "{}", "0", "8") "}",
           8);
    header(h, "a_shape_of_100_sizes", "shape is not a list",
           "{" ONE("a", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "0", "4") "}", 4);
    header(h, "no_shape", "shape is not a list",
           "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", 8);
    header(h, "an_unknown_type", "a: dtype X9 is not supported",
           "{\"a\":{\"dtype\":\"X9\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8);
    header(h, "a_type_that_is_a_number", "a: dtype is missing",
           "{\"a\":{\"dtype\":32,\"shape\":[2],\"data_offsets\":[0,8]}}", 8);
    header(h, "no_type", "a: dtype is missing", "{\"a\":{\"shape\":[2],\"data_offsets\":[0,8]}}",
           8);
    header(h, "a_type_of_a_small_letter", "dtype f32",
           "{\"a\":{\"dtype\":\"f32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8);
    header(h, "integers_to_quantise", "only float models",
           "{\"a\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[0,8]}}", 8);
}

static char *repeat(const char *left, const char *piece, size_t times, const char *right)
{
    size_t n = strlen(piece), at = strlen(left);
    char *out = malloc(at + n * times + strlen(right) + 1);

    strcpy(out, left);
    for (size_t i = 0; i < times; i++, at += n) memcpy(out + at, piece, n + 1);
    strcpy(out + at, right);
    return out;
}

static void entries(hostile *h)
{
    char *text;

    header(h, "names_twice", "duplicate",
           "{" ONE("a", "[1]", "0", "4") "," ONE("a", "[1]", "4", "8") "}", 8);
    header(h, "a_nul_in_a_name", "model.safetensors: line 1",
           "{" ONE("a\\u0000b", "[1]", "0", "4") "}", 4);
    header(h, "a_lone_surrogate_in_a_name", "model.safetensors: line 1",
           "{" ONE("a\\ud800", "[1]", "0", "4") "}", 4);
    header(h, "a_name_that_is_not_utf8", "model.safetensors: line 1",
           "{" ONE("a\xff", "[1]", "0", "4") "}", 4);
    header(h, "a_name_with_escapes", "dtype x", "{\"\\u001b[31m\\u202e\\u0085\":{\"dtype\":\"x\"}}",
           0);
    header(h, "an_entry_that_is_a_list", "a: dtype is missing", "{\"a\":[1]}", 0);
    header(h, "an_entry_that_is_null", "a: dtype is missing", "{\"a\":null}", 0);
    header(h, "metadata_that_is_a_list", "__metadata__ is not an object", "{\"__metadata__\":[]}",
           0);
    header(h, "metadata_of_numbers", "k is not a string", "{\"__metadata__\":{\"k\":1}}", 0);
    header(h, "a_header_that_is_a_list", "does not begin with {", "[]", 0);
    header(h, "a_header_of_spaces", "does not begin with {", "        ", 0);
    header(h, "a_header_that_ends_early", "line 1, column", "{\"a\":", 0);
    header(h, "a_header_with_more_behind_it", "line 1, column", "{}{}", 0);
    header(h, "a_header_without_tensors", "in: the weights hold no tensors", "{}", 0);
    text = repeat("{\"a\":", "[", 100000, "");
    header(h, "brackets_100000_deep", "model.safetensors: line 1", text, 0);
    free(text);
    text = repeat("{", "{\"a\":", 100000, "");
    header(h, "objects_100000_deep", "model.safetensors", text, 0);
    free(text);
    text = repeat("{\"a\":[", "{},", 3000000, "{}]}");
    header(h, "three_million_values", "more than 2000000 JSON values", text, 0);
    free(text);
    text = repeat("{\"", "n", 2000, "\":{}}");
    header(h, "a_name_of_2000_bytes", "a name of 2000 bytes is too long", text, 0);
    free(text);
    /* Empty tensors cost their entry only. */
    size_t n = 200000, at = 1;

    text = malloc(n * 80 + 4);
    strcpy(text, "{");
    for (size_t i = 0; i < n; i++)
        at += (size_t)sprintf(
            text + at, "\"t%zu\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]},", i);
    strcpy(text + at - 1, "}");
    put_tensors("m/model.safetensors", text, 0);
    free(text);
    CASE(h, "200000_empty_tensors", 1, "is missing", "infill", "a.c:1:1", "--model", "m");
    n = 1000000;
    text = malloc(n * 12 + 4);
    strcpy(text, "{");
    at = 1;
    for (size_t i = 0; i < n; i++) at += (size_t)sprintf(text + at, "\"%zx\":0,", i);
    strcpy(text + at - 1, "}");
    header(h, "a_million_tensors", "dtype is missing", text, 0);
    free(text);
}

static void folders(hostile *h)
{
    static const char shard[] = "{" ONE("a", "[2]", "0", "8") "}";

    replace_folder("in");
    copy(named("%s/golden/models/m1_base/config.json", h->data), "in/config.json");
    refused(h, "no_weights", "in: neither model.safetensors nor an index");
    put_folder("in/model.safetensors");
    refused(h, "weights_that_are_a_folder", "model.safetensors");
    rmdir("in/model.safetensors");
    if (mkfifo("in/model.safetensors", 0666) == 0)
        refused(h, "weights_that_are_a_pipe", "model.safetensors: not a regular file");
    unlink("in/model.safetensors");
    if (symlink("/dev/zero", "in/model.safetensors") == 0)
        refused(h, "weights_that_are_a_device", "model.safetensors: not a regular file");
    unlink("in/model.safetensors");
    if (symlink("model.safetensors", "in/model.safetensors") == 0)
        refused(h, "weights_that_link_to_themselves", "model.safetensors");
    unlink("in/model.safetensors");
    if (symlink("gone", "in/model.safetensors") == 0)
        refused(h, "weights_that_link_to_nothing", "neither model.safetensors nor an index");
    unlink("in/model.safetensors");

    static const struct {
        const char *name, *needle, *text;
    } index[] = {
        { "an_empty_index", "index.json: empty", "" },
        { "an_index_that_is_a_list", "index.json", "[]" },
        { "an_index_without_a_map", "weight_map is missing", "{}" },
        { "an_index_with_an_empty_map", "names no tensor", "{\"weight_map\":{}}" },
        { "an_index_with_a_list_for_a_map", "weight_map is missing",
          "{\"weight_map\":[\"s.safetensors\"]}" },
        { "an_index_with_a_number_for_a_shard", "not a plain file name",
          "{\"weight_map\":{\"a\":1}}" },
        { "an_index_that_leads_above", "not a plain file name",
          "{\"weight_map\":{\"a\":\"../s.safetensors\"}}" },
        { "an_index_that_is_absolute", "not a plain file name",
          "{\"weight_map\":{\"a\":\"/etc/s.safetensors\"}}" },
        { "an_index_with_a_hidden_shard", "not a plain file name",
          "{\"weight_map\":{\"a\":\".s.safetensors\"}}" },
        { "an_index_with_a_back_slash", "not a plain file name",
          "{\"weight_map\":{\"a\":\"d\\\\s.safetensors\"}}" },
        { "an_index_that_names_another_kind", "not a plain file name",
          "{\"weight_map\":{\"a\":\"passwd\"}}" },
        { "an_index_with_an_empty_name", "not a plain file name", "{\"weight_map\":{\"a\":\"\"}}" },
        { "an_index_whose_shard_is_missing", "t.safetensors",
          "{\"weight_map\":{\"a\":\"t.safetensors\"}}" },
        { "an_index_that_names_a_tensor_too_many", "b is not in shard s.safetensors",
          "{\"weight_map\":{\"a\":\"s.safetensors\",\"b\":\"s.safetensors\"}}" },
        { "an_index_that_names_the_wrong_shard", "stands in another shard too",
          "{\"weight_map\":{\"a\":\"s.safetensors\",\"b\":\"u.safetensors\"}}" },
        { "a_torn_index", "index.json: line 1", "{\"weight_map\":{\"a\":\"s.safe" },
    };

    put_tensors("in/s.safetensors", shard, 8);
    put_tensors("in/u.safetensors", shard, 8);
    for (size_t i = 0; i < sizeof index / sizeof *index; i++) {
        put_text("in/model.safetensors.index.json", index[i].text);
        refused(h, index[i].name, index[i].needle);
    }
    size_t n = 5000, at;
    char *text = malloc(n * 40 + 40);

    at = (size_t)sprintf(text, "{\"weight_map\":{");
    for (size_t i = 0; i < n; i++)
        at += (size_t)sprintf(text + at, "%s\"%zu\":\"%zu.safetensors\"", i ? "," : "", i, i);
    strcpy(text + at, "}}");
    put_text("in/model.safetensors.index.json", text);
    free(text);
    refused(h, "an_index_of_5000_shards", "more than 4096 shards");
}

/* Weights of a model that is right in its shapes. */
static void spoil(const char *dir, const char *tensor, size_t at, uint32_t bits)
{
    size_t n, header = 0, begin = 0;
    char *path = (char *)named("%s/model.safetensors", dir), *bytes = get_file(path, &n);

    memcpy(&header, bytes, 8);
    char *entry = memmem(bytes + 8, header, tensor, strlen(tensor));
    char *from = entry ? strstr(entry, "data_offsets") : NULL;

    if (!from || sscanf(from, "data_offsets\":[%zu", &begin) != 1) abort();
    memcpy(bytes + 8 + header + begin + 4 * at, &bits, 4);
    unlink(path);
    put_bytes(path, bytes, n);
    free(bytes);
}

static void weights(hostile *h)
{
    static const char *const tensors[] = {
        "model.word_embeddings.weight",
        "model.norm.weight",
        "lm_head.weight",
        "model.layers.1.attention.query_key_value.weight",
        "model.layers.1.mlp.gate.weight",
        "model.layers.1.mlp.gate.expert_bias",
        "model.layers.2.mlp.experts.3.up_proj.weight",
    };
    static const struct {
        const char *name;
        uint32_t bits;
    } numbers[] = { { "nan", 0x7fc00000 }, { "infinity", 0x7f800000 } };

    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
        for (size_t k = 0; k < 2; k++) {
            put_model(h, "m");
            spoil("m", named("\"%s\"", tensors[i]), 5, numbers[k].bits);
            CASE(h, named("%s_in_%s", numbers[k].name, tensors[i]), 1, tensors[i], "infill",
                 "a.c:1:1", "--model", "m");
            if (i > 1) continue;
            CASE(h, named("%s_in_%s_to_quantise", numbers[k].name, tensors[i]), 1, tensors[i],
                 "quantize", "m", "out");
        }
    put_model(h, "m");
    CASE(h, "the_model_unspoilt_opens", 0, NULL, "infill", "a.c:1:1", "--model", "m",
         "--max-tokens", "1");
    for (size_t i = 0; i < 40; i++) spoil("m", "\"model.norm.weight\"", i, 0x7f7fffff);
    h->chatty = true;
    CASE(h, "numbers_that_overflow_on_the_way", 1, "not finite", "infill", "a.c:1:1", "--model",
         "m", "--max-tokens", "4");

    replace_folder("q");
    put_model(h, "m");
    CASE(h, "a_model_is_packed", 0, NULL, "quantize", "m", "q");
    CASE(h, "a_packed_model_opens", 0, NULL, "infill", "a.c:1:1", "--model", "q", "--max-tokens",
         "1");
    static const char scales[] = "\"model.layers.1.attention.dense.weight.s\"";

    spoil("q", scales, 3, 0x7fc00000);
    CASE(h, "a_scale_that_is_nan", 1, "attention.dense.weight: row 3", "infill", "a.c:1:1",
         "--model", "q");
    spoil("q", scales, 3, 0x7f800000);
    CASE(h, "a_scale_that_is_infinite", 1, "attention.dense.weight: row 3", "infill", "a.c:1:1",
         "--model", "q");
    CASE(h, "a_packed_model_packed_again", 1, "only float models", "quantize", "q", "out");
    size_t n;
    char *bytes = get_file("q/model.safetensors", &n);
    char *at = memmem(bytes + 8, n - 8, "attention.dense.weight.s", 24);

    at[23] = 't';
    unlink("q/model.safetensors");
    put_bytes("q/model.safetensors", bytes, n);
    free(bytes);
    CASE(h, "scales_that_are_missing", 1, "attention.dense.weight.s: missing", "infill", "a.c:1:1",
         "--model", "q");
}

void safetensors_cases(hostile *h)
{
    put_text("a.c", "int main(void)\n");
    put_model(h, "m");
    put_folder("in");
    copy(named("%s/golden/models/m1_base/config.json", h->data), "in/config.json");
    lengths(h);
    truncated(h);
    offsets(h);
    shapes(h);
    entries(h);
    folders(h);
    weights(h);
    hostile_holds(h, "a_refused_model_leaves_no_folder", access("out", F_OK) != 0);
}
