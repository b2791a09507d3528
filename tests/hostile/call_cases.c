/* call_cases.c - calls with wrong options, and streams that are closed, full, folders or endless. */
#include "hostile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void options(hostile *h)
{
    static const struct {
        const char *option, *value, *needle;
    } wrong[] = {
        { "--max-tokens", "0", "--max-tokens is 0" },
        { "--max-tokens", "-1", "--max-tokens is -1" },
        { "--max-tokens", "65537", "--max-tokens is 65537" },
        { "--max-tokens", "4294967297", "--max-tokens is 4294967297" },
        { "--max-tokens", "1e400", "--max-tokens is 1e400" },
        { "--max-tokens", "nan", "--max-tokens is nan" },
        { "--max-tokens", "1.5", "not a whole number" },
        { "--max-tokens", "7 apples", "--max-tokens is 7 apples" },
        { "--max-tokens", "", "--max-tokens is ;" },
        { "--max-ms", "-1", "--max-ms is -1" },
        { "--max-ms", "inf", "--max-ms is inf" },
        { "--seed", "-1", "--seed is -1" },
        { "--seed", "2147483648", "--seed is 2147483648" },
        { "--quality", "1.01", "--quality is 1.01" },
        { "--quality", "nan", "--quality is nan" },
        { "--mode", "fast", "--mode is speed or quality" },
        { "--threads", "0", "--threads is 0" },
        { "--threads", "257", "--threads is 257" },
        { "--threads", "99999999999999999999", "--threads is 99999999999999999999" },
    };

    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CASE(h, named("infill_%s_%s", wrong[i].option, wrong[i].value), 2, wrong[i].needle,
             "infill", "a.c:1:1", "--model", "m", wrong[i].option, wrong[i].value);
    CASE(h, "a_backend_that_is_not_there", 1, "nothing", "infill", "a.c:1:1", "--model", "m",
         "--backend", "nothing");
    CASE(h, "an_isa_that_is_not_there", 1, "unknown instruction set sse", "infill", "a.c:1:1",
         "--model", "m", "--isa", "sse");
    CASE(h, "a_model_that_is_not_there", 1, "nowhere/tokenizer.json: cannot open", "infill",
         "a.c:1:1", "--model", "nowhere");
    CASE(h, "an_option_that_is_not_there", 2, "unknown option --fast", "infill", "a.c:1:1",
         "--fast");
    CASE(h, "an_option_with_escapes", 2, "unknown option --?[2J", "infill", "--\033[2J");
    CASE(h, "an_option_without_its_value", 2, "--model needs DIR", "infill", "a.c:1:1", "--model");
    CASE(h, "a_flag_with_a_value", 2, "--diff takes no value", "infill", "a.c:1:1", "--diff=yes");
    CASE(h, "a_call_that_is_not_there", 2, "unknown call fly", "fly");
    CASE(h, "a_call_with_escapes", 2, "unknown call ?[2J", "\033[2J");
    CASE(h, "an_empty_call", 2, "unknown call", "");
    CASE(h, "completions_for_no_shell", 2, "unknown call --completions=csh", "--completions=csh");
    CASE(h, "two_places", 2, "name one place", "infill", "a.c:1:1", "a.c:1:1");
    CASE(h, "no_place", 2, "name one place", "infill");
    CASE(h, "generate_with_a_file", 2, "by --prompt or on stdin", "generate", "a.c");
    CASE(h, "tokenize_with_a_file", 2, "takes no file", "tokenize", "a.c");
    CASE(h, "score_without_a_file", 2, "name one file", "score");
    CASE(h, "plugins_with_a_file", 2, "no arguments", "plugins", "a.c");
    CASE(h, "quantize_one_folder", 2, "name the model", "quantize", "m");
    CASE(h, "quantize_to_int3", 2, "int3", "quantize", "m", "o", "--weights", "int3");
    CASE(h, "bench_with_a_bad_list", 2, "--context", "bench", "--context", "0,x");
    CASE(h, "bench_with_a_negative_context", 2, "--context", "bench", "--context", "-1");
    CASE(h, "bench_with_an_endless_context", 2, "--context", "bench", "--context",
         "99999999999999999999");
    CASE(h, "bench_with_no_rows", 2, "--rows is 0", "bench", "--rows", "0");
    CASE(h, "bench_with_a_model_that_is_not_there", 1, "nowhere", "bench", "--model", "nowhere");
    CASE(h, "train_without_out", 2, "--out", "train", "m");
    CASE(h, "train_without_a_corpus", 2, "name the folder to learn from", "train", "--out", "o");
    CASE(h, "train_for_a_negative_time", 2, "--minutes is -1", "train", "m", "--out", "o",
         "--minutes", "-1");
    CASE(h, "train_at_a_rate_of_nan", 2, "--lr is nan", "train", "m", "--out", "o", "--lr", "nan");
    CASE(h, "conformance_without_a_folder", 2, "which folders", "conformance");
    FILE *f = fopen("list", "wb");

    for (int i = 0; i < 70; i++) fprintf(f, "x");
    fclose(f);
    CASE(h, "an_option_as_a_file_behind_two_dashes", 1, "--x: cannot open", "infill", "--model",
         "m", "--", "--x:1:1");
}

static void tokenize(hostile *h)
{
    static const struct {
        const char *name, *ids, *needle;
        size_t n;
    } wrong[] = {
        { "decode_text", "hello", "stdin: byte 0: no token is called \"hello\"", 0 },
        { "decode_an_id_that_is_not_there", "1 2 99999",
          "stdin: byte 4: no token is called \"99999\"", 0 },
        { "decode_a_negative_id", "-1", "stdin: byte 0: no token", 0 },
        { "decode_an_id_of_2_32", "4294967296", "stdin: byte 0: no token", 0 },
        { "decode_an_id_of_2_64", "18446744073709551616", "stdin: byte 0: no token", 0 },
        { "decode_a_fraction", "65.5", "no token is called \".5\"", 0 },
        { "decode_a_nul", "65 \0 66", "stdin: byte 3: no token", 7 },
        { "decode_binary", "\xff\xfe\1", "stdin: byte 0: no token", 0 },
        { "decode_escapes", "\033[2J", "no token is called \"?[2J\"", 0 },
    };

    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        put_bytes("in", wrong[i].ids, wrong[i].n ? wrong[i].n : strlen(wrong[i].ids));
        h->in = "in";
        CASE(h, wrong[i].name, 1, wrong[i].needle, "tokenize", "--decode", "--model", "m");
    }
    put_bytes("in", "a\0\xff\xfe\xc3(\xed\xa0\x80\r\n", 10);
    h->in = "in";
    h->stdout_holds = "97 0 255 254 195 40 237 160 128 13\n";
    CASE(h, "tokenize_any_bytes", 0, NULL, "tokenize", "--model", "m");
    put_text("in", "<|mask|>");
    h->in = "in";
    h->stdout_holds = "60 124 109 97 115 107 124 62\n";
    CASE(h, "tokenize_a_control_token", 0, NULL, "tokenize", "--model", "m");
    h->stdout_holds = "\n";
    CASE(h, "tokenize_nothing", 0, NULL, "tokenize", "--model", "m");
    h->stdout_holds = "[]\n";
    CASE(h, "tokenize_nothing_as_json", 0, NULL, "tokenize", "--json", "--model", "m");
    CASE(h, "decode_nothing", 0, NULL, "tokenize", "--decode", "--model", "m");
    h->in = "m";
    CASE(h, "tokenize_a_folder", 1, "stdin: Is a directory", "tokenize", "--model", "m");
    h->in = "/dev/zero";
    CASE(h, "tokenize_without_end", 1, "stdin: larger than the limit of 67108864 bytes", "tokenize",
         "--model", "m");
    h->closed = 0;
    CASE(h, "tokenize_a_closed_stdin", 1, "stdin: Bad file descriptor", "tokenize", "--model", "m");
    put_many("in", "0123456789", 1000000);
    h->in = "in";
    CASE(h, "tokenize_10_mb", 0, NULL, "tokenize");
}

static void generate(hostile *h)
{
    h->in = "m";
    CASE(h, "generate_from_a_folder", 1, "stdin: Is a directory", "generate", "--model", "m");
    h->in = "/dev/zero";
    CASE(h, "generate_without_end", 1, "stdin: larger than the limit", "generate", "--model", "m");
    CASE(h, "generate_from_nothing", 0, NULL, "generate", "--model", "m", "--max-tokens", "2");
    CASE(h, "generate_from_an_empty_prompt", 0, NULL, "generate", "--prompt", "", "--model", "m",
         "--max-tokens", "2");
    CASE(h, "generate_from_control_tokens", 0, NULL, "generate", "--prompt",
         "<|mask|><role>HUMAN</role>", "--model", "m", "--max-tokens", "2");
    CASE(h, "generate_more_than_fits", 1, "65536 tokens are too many", "generate", "--prompt", "a",
         "--model", "m", "--max-tokens", "65536");
    put_many("in", "int x = 1;\r\n", 800000);
    h->in = "in";
    CASE(h, "generate_from_10_mb", 0, NULL, "generate", "--model", "m", "--max-tokens", "2");
    put_bytes("in", "a\0\xff\xed\xa0\x80", 6);
    h->in = "in";
    CASE(h, "generate_from_any_bytes", 0, NULL, "generate", "--model", "m", "--max-tokens", "2");
}

/* Output that cannot be written is an error of every call. */
static void outputs(hostile *h)
{
    static const char *const calls[][8] = {
        { "infill", "a.c:1:1", "--model", "m", "--max-tokens", "4", "--diff" },
        { "rewrite", "b.c:1-1", "--model", "m", "--max-ms", "200" },
        { "score", "a.c", "--model", "m" },
        { "score", "a.c", "--json", "--model", "m" },
        { "generate", "--prompt", "a", "--model", "m", "--max-tokens", "2" },
        { "tokenize", "--model", "m" },
        { "plugins" },
        { "--help" },
        { "--version" },
        { "--man" },
        { "--completions=bash" },
        { "infill", "--help" },
        { "quantize", "m", "full", "--json" },
    };

    put_text("b.c", "int b = 3;\nint c;\n");
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        const char *name = calls[i][1] && i > 7 ? calls[i][1] : "";

        /* A rewrite that changes nothing prints nothing. */
        if (!strcmp(calls[i][0], "rewrite") || !strcmp(calls[i][0], "infill")) {
            if (calls[i][1][0] != '-') continue;
        }
        h->out = "/dev/full";
        hostile_case(h, named("%s%s_%zu_into_a_full_disk", calls[i][0], name, i), 1,
                     "stdout: No space left on device", calls[i]);
        h->closed = 1;
        hostile_case(h, named("%s%s_%zu_into_a_closed_stdout", calls[i][0], name, i), 1,
                     "stdout: Bad file descriptor", calls[i]);
    }
    h->closed = 2;
    CASE(h, "a_message_without_stderr", 2, NULL, "fly");
    h->closed = 2;
    CASE(h, "a_closed_stderr", 1, NULL, "infill", "gone.c:1:1", "--model", "m");
}

static void conformance(hostile *h)
{
    static const struct {
        const char *name, *golden;
    } wrong[] = {
        { "empty_answers", "" },
        { "answers_that_are_text", "hello" },
        { "answers_that_are_a_list", "[]" },
        { "answers_that_are_torn", "{\"encode\":[{\"text\":" },
        { "answers_of_nothing", "{}" },
        { "answers_of_wrong_types", "{\"encode\":7,\"decode\":{\"a\":1}}" },
        { "answers_with_wrong_cases",
          "{\"encode\":[1,null,{},{\"text\":7,\"ids\":\"x\"},{\"text\":\"a\",\"ids\":[1e308]}]}" },
        { "cases_that_are_text", "{\"forward_cases\":\"x\"}" },
        { "cases_that_are_empty", "{\"forward_cases\":[{}]}" },
    };

    put_folder("golden");
    put_tokenizer("golden/tokenizer.json", good_pre, "", "", MASK, "");
    copy("m/config.json", "golden/config.json");
    copy("m/model.safetensors", "golden/model.safetensors");
    copy("m/model.safetensors", "golden/golden.safetensors");
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        put_text("golden/golden.json", wrong[i].golden);
        h->chatty = true;
        CASE(h, named("conformance_%s", wrong[i].name), 1, NULL, "conformance", "golden");
    }
    put_text("golden/golden.json", "{\"forward_cases\":[]}");
    put_text("golden/golden.safetensors", "torn");
    h->chatty = true;
    h->stdout_holds = "golden.safetensors";
    CASE(h, "conformance_torn_tensors", 1, NULL, "conformance", "golden");
    put_text("golden/decode.json", "{\"cases\":[{\"name\":\"x\",\"robust\":true,\"prompt\":[999999]"
                                   ",\"params\":{\"block_length\":2147483648}}]}");
    copy("m/model.safetensors", "golden/golden.safetensors");
    h->chatty = true;
    h->stdout_holds = "malformed";
    CASE(h, "conformance_a_block_of_2_31", 1, NULL, "conformance", "golden");
    put_text("golden/decode.json",
             "{\"cases\":[{\"name\":\"x\",\"robust\":true,\"prompt\":[999999,-5],\"params\":{"
             "\"block_length\":8,\"gen_length\":8,\"mask_id\":300,\"eos_id\":0},\"steps\":[{}]}]}");
    h->chatty = true;
    h->stdout_holds = "FAIL";
    CASE(h, "conformance_a_prompt_outside_the_vocabulary", 1, NULL, "conformance", "golden");
    h->chatty = true;
    CASE(h, "conformance_a_file", 1, NULL, "conformance", "a.c");
    h->chatty = true;
    CASE(h, "conformance_nowhere", 1, NULL, "conformance", "nowhere");
    put_folder("empty");
    h->chatty = true;
    CASE(h, "conformance_nothing", 1, NULL, "conformance", "empty");
}

void call_cases(hostile *h)
{
    put_text("a.c", "int main(void)\n");
    put_model(h, "m");
    options(h);
    tokenize(h);
    generate(h);
    outputs(h);
    conformance(h);
}
