/* tokenizer_cases.c - tokenizer.json with entries, merges, patterns and templates that must not be believed. */
#include "hostile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SPLIT(regex)                                                                        \
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":" \
    "\"" regex "\"},\"behavior\":\"Isolated\"},{\"type\":\"ByteLevel\",\"use_regex\":false}]}"

static void refused(hostile *h, const char *name, const char *needle)
{
    h->in = "text";
    CASE(h, name, 1, needle, "tokenize", "--model", "t");
}

static void with(hostile *h, const char *name, const char *needle, const char *pre,
                 const char *vocab, const char *merges, const char *added)
{
    put_tokenizer("t/tokenizer.json", pre, vocab, merges, added, "");
    refused(h, name, needle);
}

static void entries(hostile *h)
{
    size_t n;
    char *text, *at;

    with(h, "an_id_twice", "entry \"ab\": its id is taken", good_pre, ",\"ab\":5", "", "");
    with(h, "an_id_below_0", "entry \"ab\"", good_pre, ",\"ab\":-1", "", "");
    with(h, "an_id_of_2_31", "entry \"ab\"", good_pre, ",\"ab\":2147483648", "", "");
    with(h, "an_id_of_2_21", "entry \"ab\"", good_pre, ",\"ab\":2097152", "", "");
    with(h, "an_id_of_2_63", "tokenizer.json", good_pre, ",\"ab\":9223372036854775808", "", "");
    with(h, "an_id_that_is_text", "entry \"ab\"", good_pre, ",\"ab\":\"256\"", "", "");
    with(h, "an_id_with_a_fraction", "entry \"ab\"", good_pre, ",\"ab\":256.5", "", "");
    with(h, "an_id_that_is_null", "entry \"ab\"", good_pre, ",\"ab\":null", "", "");
    with(h, "an_entry_twice", "duplicate", good_pre, ",\"ab\":256,\"ab\":257", "", "");
    with(h, "an_empty_entry", "empty or too long", good_pre, ",\"\":256", "", "");
    with(h, "an_entry_with_escapes", "entry \"?[2J", good_pre, ",\"\\u001b[2J\":5", "", "");
    with(h, "an_entry_with_a_nul", "tokenizer.json: line", good_pre, ",\"a\\u0000\":256", "", "");
    with(h, "an_entry_that_is_not_utf8", "tokenizer.json: line", good_pre, ",\"a\xff\":256", "",
         "");
    put_many("long", "a", 70000);
    text = get_file("long", &n);
    with(h, "an_entry_of_70000_bytes", "empty or too long", good_pre, named(",\"%s\":256", text),
         "", "");
    with(h, "an_added_token_of_70000_bytes", "added token 0", good_pre, "", "",
         named("{\"id\":300,\"content\":\"%s\"}", text));
    free(text);
    put_tokenizer("t/tokenizer.json", good_pre, "", "", "", "");
    text = get_file("t/tokenizer.json", &n);
    at = strstr(text, "\"\\u0041\":65,");
    memset(at, ' ', strlen("\"\\u0041\":65,"));
    put_text("t/tokenizer.json", text);
    free(text);
    refused(h, "a_byte_without_a_token", "no token for byte 0x41");
}

static void merges(hostile *h)
{
    with(h, "a_merge_of_an_unknown_token", "merge 0 names a token that is not", good_pre, "",
         "\"ab c\"", "");
    with(h, "a_merge_whose_result_is_unknown", "merge 0 names a token that is not", good_pre, "",
         "\"a b\"", "");
    with(h, "a_merge_longer_than_every_entry", "merge 0 names a token that is not", good_pre, "",
         "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\"", "");
    with(h, "a_merge_of_one_side", "merge 0 is not a pair", good_pre, "", "\"ab\"", "");
    with(h, "a_merge_of_three_sides", "merge 0 is not a pair", good_pre, "", "[\"a\",\"b\",\"c\"]",
         "");
    with(h, "a_merge_of_nothing", "merge 0 is not a pair", good_pre, "", "[\"\",\"b\"]", "");
    with(h, "a_merge_that_is_a_space", "merge 0 is not a pair", good_pre, "", "\" \"", "");
    with(h, "a_merge_that_is_a_number", "merge 0 is not a pair", good_pre, "", "7", "");
    with(h, "a_merge_of_numbers", "merge 0 is not a pair", good_pre, "", "[1,2]", "");
    with(h, "a_merge_that_is_null", "merge 0 is not a pair", good_pre, "", "null", "");
    with(h, "a_later_merge_that_is_wrong", "merge 1 is not a pair", good_pre, ",\"ab\":256",
         "\"a b\",[]", "");
    put_tokenizer("t/tokenizer.json", good_pre, ",\"ab\":256", "\"a b\",\"a b\",\"a b\"", "", "");
    h->in = "text";
    CASE(h, "a_merge_three_times_counts_once", 0, NULL, "tokenize", "--model", "t");
}

static void added(hostile *h)
{
    with(h, "an_added_token_on_a_taken_id", "added token \"<x>\" is taken", good_pre, "", "",
         "{\"id\":5,\"content\":\"<x>\"}");
    with(h, "an_added_token_without_content", "added token 0", good_pre, "", "", "{\"id\":300}");
    with(h, "an_empty_added_token", "added token 0", good_pre, "", "",
         "{\"id\":300,\"content\":\"\"}");
    with(h, "an_added_token_without_an_id", "added token 0", good_pre, "", "",
         "{\"content\":\"<x>\"}");
    with(h, "an_added_token_below_0", "added token 0", good_pre, "", "",
         "{\"id\":-1,\"content\":\"<x>\"}");
    with(h, "an_added_token_of_2_40", "added token 0", good_pre, "", "",
         "{\"id\":1099511627776,\"content\":\"<x>\"}");
    with(h, "an_added_token_with_a_nul", "added token 0", good_pre, "", "",
         "{\"id\":300,\"content\":\"<\\u0000x>\"}");
    with(h, "an_added_token_that_is_a_number", "added token 0", good_pre, "", "", "7");
    with(h, "two_added_tokens_of_one_id", "added token \"<y>\" is taken", good_pre, "", "",
         "{\"id\":300,\"content\":\"<x>\"},{\"id\":300,\"content\":\"<y>\"}");
    with(h, "two_added_tokens_of_one_content", "\"<x>\" stands twice", good_pre, "", "",
         "{\"id\":300,\"content\":\"<x>\"},{\"id\":301,\"content\":\"<x>\"}");
    with(h, "an_added_token_that_strips", "lstrip", good_pre, "", "",
         "{\"id\":300,\"content\":\"<x>\",\"lstrip\":true}");
    with(h, "an_added_token_that_is_a_byte", "the token of byte 0x61 is an added one", good_pre, "",
         "", "{\"id\":97,\"content\":\"a\"}");
}

/* Text never becomes an added token, whatever the vocabulary holds. */
static void control(hostile *h)
{
    put_text("control", "ab<x>");
    put_tokenizer("t/tokenizer.json", good_pre, ",\"ab\":256", "\"a b\"",
                  "{\"id\":256,\"content\":\"ab\",\"special\":true}", "");
    h->in = "control";
    h->stdout_holds = "97 98 60 120 62";
    CASE(h, "merges_do_not_lead_to_an_added_token", 0, NULL, "tokenize", "--model", "t");
    put_tokenizer("t/tokenizer.json", good_pre, ",\"ab<x>\":256", "",
                  "{\"id\":256,\"content\":\"ab<x>\",\"special\":true}", "\"ignore_merges\":true,");
    h->in = "control";
    h->stdout_holds = "97 98 60 120 62";
    CASE(h, "a_whole_piece_is_not_an_added_token", 0, NULL, "tokenize", "--model", "t");
    put_tokenizer("t/tokenizer.json", good_pre, ",\"ab<x>\":256", "", "",
                  "\"ignore_merges\":true,");
    h->in = "control";
    h->stdout_holds = "256";
    CASE(h, "a_whole_piece_is_an_ordinary_entry", 0, NULL, "tokenize", "--model", "t");
}

static void patterns(hostile *h)
{
    char *text;
    size_t n;

    put_many("runaway", "a", 40);
    put_text("t/tokenizer.json", "");
    put_tokenizer("t/tokenizer.json", SPLIT("(a+)+$"), "", "", "", "");
    put_text("runaway", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab");
    h->in = "runaway";
    CASE(h, "a_runaway_pattern", 1,
         "tokenizer.json: the pattern hits a limit of matching at byte 0", "tokenize", "--model",
         "t");
    put_many("as", "a", 200000);
    put_tokenizer("t/tokenizer.json", SPLIT("a*b|."), "", "", "", "");
    h->in = "as";
    CASE(h, "a_pattern_that_looks_to_the_end_from_each_byte", 1,
         "the pattern hits a limit of matching", "tokenize", "--model", "t");
    with(h, "a_pattern_that_matches_nothing", NULL, SPLIT("a**"), "", "", "");
    with(h, "a_pattern_with_lookbehind", "lookbehind or \\C", SPLIT("(?<=a)b"), "", "", "");
    with(h, "a_pattern_with_negative_lookbehind", "lookbehind or \\C", SPLIT("(?<!a)b"), "", "",
         "");
    with(h, "a_pattern_of_single_bytes", "lookbehind or \\C", SPLIT("\\\\C"), "", "", "");
    with(h, "a_pattern_that_is_torn", "pattern fails at byte", SPLIT("a("), "", "", "");
    with(h, "a_pattern_with_a_callout_to_nowhere", "pattern fails at byte", SPLIT("(?P>gone)"), "",
         "", "");
    with(h, "a_pattern_that_repeats_too_often", "pattern fails at byte",
         SPLIT("(((a{1,9999}){1,9999}){1,9999})"), "", "", "");
    with(h, "an_empty_pattern", "a pattern is empty", SPLIT(""), "", "", "");
    put_many("long", "ab", 4000);
    text = get_file("long", &n);
    with(h, "a_pattern_of_8000_bytes", "a pattern is empty or too long", named(SPLIT("%s"), text),
         "", "", "");
    free(text);
    put_many("long", "(", 2000);
    text = get_file("long", &n);
    with(h, "a_pattern_of_2000_brackets", "pattern fails at byte", named(SPLIT("%s"), text), "", "",
         "");
    free(text);
    put_tokenizer("t/tokenizer.json", SPLIT("(?:a|(?R))+b"), "", "", "", "");
    h->in = "runaway";
    CASE(h, "a_pattern_that_calls_itself", 1, "tokenizer.json: the pattern hits a limit",
         "tokenize", "--model", "t");
    put_tokenizer("t/tokenizer.json", SPLIT("a\\\\Ka"), "", "", "", "");
    h->in = "runaway";
    CASE(h, "a_pattern_that_moves_its_start", 0, NULL, "tokenize", "--model", "t");
    put_tokenizer("t/tokenizer.json", SPLIT("(?=a\\\\K)"), "", "", "", "");
    h->in = "runaway";
    CASE(h, "a_pattern_that_moves_its_start_in_lookahead", 1,
         "tokenizer.json: the pre-tokenizer's pattern fails", "tokenize", "--model", "t");
}

static void kinds(hostile *h)
{
    static const char bpe[] = "\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}";
    static const struct {
        const char *name, *text, *needle;
    } cases[] = {
        { "an_empty_tokenizer", "", "tokenizer.json: empty" },
        { "a_tokenizer_that_is_a_list", "[]", "tokenizer.json: not a JSON object" },
        { "a_tokenizer_of_nothing", "{}", "pre_tokenizer is missing" },
        { "a_torn_tokenizer", "{\"model\":{\"vocab\":{\"a\":", "tokenizer.json: line 1" },
        { "a_tokenizer_with_a_byte_order_mark", "\xef\xbb\xbf{}", "tokenizer.json: line 1" },
        { "a_tokenizer_in_utf16", "\xff\xfe{", "tokenizer.json: line 1" },
        { "an_unknown_pre_tokenizer", "{\"pre_tokenizer\":{\"type\":\"Metaspace\"}}",
          "pre-tokenizer Metaspace is not supported" },
        { "a_pre_tokenizer_without_a_type", "{\"pre_tokenizer\":{}}",
          "pre-tokenizer ? is not supported" },
        { "a_normalizer", "{\"normalizer\":{\"type\":\"NFKC\"}}",
          "normalizer NFKC is not supported" },
        { "a_sequence_in_a_sequence",
          "{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Sequence\"}]}}",
          "a Sequence inside a Sequence" },
        { "a_sequence_of_nine",
          "{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[0,0,0,0,0,0,0,0,0]}}",
          "too many pre-tokenizers" },
        { "a_split_without_a_pattern",
          "{\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\"}}",
          "a Split has no pattern" },
        { "a_split_that_removes",
          "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":"
          "\"Removed\"}}",
          "Removed is not supported" },
        { "a_pre_tokenizer_without_bytes",
          "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"},\"behavior\":"
          "\"Isolated\"}}",
          "not byte-level" },
        { "a_tokenizer_without_a_model", "{\"pre_tokenizer\":{\"type\":\"ByteLevel\"}}",
          "model is missing" },
        { "a_unigram_model",
          "{\"pre_tokenizer\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"Unigram\"}}",
          "model type Unigram" },
        { "a_model_with_fallback",
          "{\"pre_tokenizer\":{\"type\":\"ByteLevel\"},\"model\":{\"byte_fallback\":true}}",
          "byte_fallback" },
        { "a_model_with_a_suffix",
          "{\"pre_tokenizer\":{\"type\":\"ByteLevel\"},\"model\":{\"end_of_word_suffix\":\"</"
          "w>\"}}",
          "end_of_word_suffix" },
        { "a_vocabulary_that_is_a_list",
          "{\"pre_tokenizer\":{\"type\":\"ByteLevel\"},\"model\":{\"vocab\":[\"a\"]}}",
          "model.vocab is missing" },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_text("t/tokenizer.json", cases[i].text);
        refused(h, cases[i].name, cases[i].needle);
    }
    put_text("t/tokenizer.json", named("{\"pre_tokenizer\":{\"type\":\"ByteLevel\"},%s}", bpe));
    refused(h, "an_empty_vocabulary", "model.vocab is missing or empty");
    put_many("t/tokenizer.json", "[", 3000000);
    refused(h, "a_tokenizer_of_brackets", "more than 2000000 JSON values");
    put_many("t/tokenizer.json", "{\"a\":", 100000);
    refused(h, "a_tokenizer_of_deep_objects", "tokenizer.json: line 1");
    unlink("t/tokenizer.json");
    refused(h, "no_tokenizer", "tokenizer.json: cannot open: No such file");
    put_folder("t/tokenizer.json");
    refused(h, "a_tokenizer_that_is_a_folder", "tokenizer.json: not a regular file");
    rmdir("t/tokenizer.json");
    if (mkfifo("t/tokenizer.json", 0666) == 0)
        refused(h, "a_tokenizer_that_is_a_pipe", "tokenizer.json: not a regular file");
    unlink("t/tokenizer.json");
    if (symlink("/dev/zero", "t/tokenizer.json") == 0)
        refused(h, "a_tokenizer_that_is_a_device", "tokenizer.json: not a regular file");
    unlink("t/tokenizer.json");
    CASE(h, "a_model_that_is_a_file", 1, "text/tokenizer.json: cannot open: Not a directory",
         "tokenize", "--model", "text");
    CASE(h, "a_model_without_a_name", 1, "/tokenizer.json", "tokenize", "--model", "");
}

/* Templates are two layouts of ours, recognised; no other is run. */
static void templates(hostile *h)
{
    static const char *const ask[] = { "generate", "--prompt", "x", "--model", "m", NULL };
    static const char tags[] =
        MASK ",{\"id\":257,\"content\":\"<role>\"},{\"id\":258,\"content\":\"</role>\"}";

    put_model(h, "m");
    put_text("m/chat_template.jinja", "{{ ''.__class__.__mro__[1].__subclasses__() }}");
    hostile_case(h, "a_template_that_is_code", 1,
                 "chat_template.jinja: the chat template is none of the known ones", ask);
    put_text("m/chat_template.jinja", "");
    hostile_case(h, "an_empty_template", 1, "chat_template.jinja: the chat template is none", ask);
    put_many("m/chat_template.jinja", "<role>HUMAN</role>", 100000);
    hostile_case(h, "a_template_of_2_mb", 1, "chat_template.jinja: larger than the limit", ask);
    put_text("m/chat_template.jinja", "<role>SYSTEM</role><role>HUMAN</role><|role_end|>");
    hostile_case(h, "a_template_whose_tags_are_missing", 1, "the tokenizer has no <role>", ask);
    put_tokenizer("m/tokenizer.json", good_pre, "", "", tags, "");
    hostile_case(h, "a_template_with_one_tag_missing", 1, "the tokenizer has no <|role_end|>", ask);
    unlink("m/chat_template.jinja");
    put_text("m/tokenizer_config.json",
             "{\"chat_template\":\"{% for m in messages %}\\u001b[2J{% endfor %}\"}");
    hostile_case(h, "an_unknown_template_in_the_config", 1,
                 "tokenizer_config.json: the chat template is none", ask);
    put_text("m/tokenizer_config.json",
             "{\"chat_template\":[{\"name\":\"default\",\"template\":\"x\"}]}");
    hostile_case(h, "a_template_that_is_a_list", 1,
                 "tokenizer_config.json: chat_template is not a string", ask);
    put_text("m/tokenizer_config.json", "{\"chat_template\":");
    hostile_case(h, "a_torn_tokenizer_config", 1, "tokenizer_config.json: line 1", ask);
    put_many("m/tokenizer_config.json", "[0,", 300000);
    hostile_case(h, "a_tokenizer_config_of_300000_values", 1,
                 "tokenizer_config.json: more than 200000 JSON values", ask);
    put_many("m/tokenizer_config.json", "          ", 2000000);
    hostile_case(h, "a_tokenizer_config_of_20_mb", 1,
                 "tokenizer_config.json: larger than the limit", ask);
}

void tokenizer_cases(hostile *h)
{
    put_text("text", "hello\n");
    put_folder("t");
    entries(h);
    merges(h);
    added(h);
    control(h);
    patterns(h);
    kinds(h);
    templates(h);
}
