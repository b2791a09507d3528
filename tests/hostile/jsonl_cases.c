/* jsonl_cases.c - lines of JSON: a bad line is answered with what is wrong, the rest goes on, exit 1. */
#include "hostile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GOOD  "{\"task_id\":\"good\",\"prefix\":\"a\",\"suffix\":\"b\",\"max_tokens\":1}\n"
#define DRAFT "{\"task_id\":\"good\",\"prefix\":\"a\",\"draft\":\"x\",\"suffix\":\"b\"}\n"

/* `line` between two good ones: three answers, the middle one holds `answer`. */
static void bad_line(hostile *h, const char *name, const char *answer, const char *line)
{
    size_t n;

    put_text("in", named(GOOD "%s\n" GOOD, line));
    h->in = "in";
    h->stdout_holds = answer;
    CASE(h, name, 1, "line 2", "infill", "--jsonl", "--model", "m", "--threads", "1");
    char *out = get_file("stdout", &n);
    const char *second = strchr(out, '\n');
    size_t lines = 0;

    for (const char *c = out; *c; c++) lines += *c == '\n';
    hostile_holds(
        h, named("%s_and_the_rest_goes_on", name),
        lines == 3 && !strncmp(out, "{\"task_id\":\"good\",\"completion\"", 30) && second &&
            !strncmp(strrchr(second + 1, '{'), "{\"task_id\":\"good\",\"completion\"", 30));
    free(out);
}

static void bad_lines(hostile *h)
{
    bad_line(h, "a_line_that_is_text", "{\"task_id\":null,\"error\":\"line 2: line 1, column",
             "hello");
    bad_line(h, "a_line_that_is_torn", "{\"task_id\":null,\"error\":\"line 2",
             "{\"task_id\":\"x\",\"prefix\":\"");
    bad_line(h, "a_line_that_is_a_list", "{\"task_id\":null,\"error\":\"line 2: not a JSON object",
             "[1]");
    bad_line(h, "a_line_that_is_null", "{\"task_id\":null,\"error\":\"line 2", "null");
    bad_line(h, "a_line_of_two_objects", "{\"task_id\":null,\"error\":\"line 2", "{}{}");
    bad_line(h, "a_line_of_a_space", "{\"task_id\":null,\"error\":\"line 2", " ");
    bad_line(h, "a_line_that_is_not_utf8", "{\"task_id\":null,\"error\":\"line 2",
             "{\"task_id\":\"x\",\"prefix\":\"\xff\",\"suffix\":\"\"}");
    bad_line(h, "a_lone_surrogate", "{\"task_id\":null,\"error\":\"line 2",
             "{\"task_id\":\"x\",\"prefix\":\"\\ud83d\",\"suffix\":\"\"}");
    bad_line(h, "a_lone_low_surrogate", "{\"task_id\":null,\"error\":\"line 2",
             "{\"task_id\":\"x\",\"prefix\":\"\\udc00 a\",\"suffix\":\"\"}");
    bad_line(h, "a_byte_order_mark", "{\"task_id\":null,\"error\":\"line 2",
             "\xef\xbb\xbf{\"task_id\":\"x\",\"prefix\":\"\",\"suffix\":\"\"}");
    bad_line(h, "a_field_twice", "{\"task_id\":null,\"error\":\"line 2",
             "{\"task_id\":\"x\",\"prefix\":\"a\",\"prefix\":\"b\",\"suffix\":\"\"}");
    bad_line(h, "no_task_id", "{\"task_id\":null,\"error\":\"task_id is missing\"}",
             "{\"prefix\":\"\",\"suffix\":\"\"}");
    bad_line(h, "a_task_id_that_is_a_number",
             "{\"task_id\":null,\"error\":\"task_id is not a string\"}",
             "{\"task_id\":7,\"prefix\":\"\",\"suffix\":\"\"}");
    bad_line(h, "no_prefix", "{\"task_id\":\"x\",\"error\":\"prefix is missing\"}",
             "{\"task_id\":\"x\",\"suffix\":\"\"}");
    bad_line(h, "no_suffix", "{\"task_id\":\"x\",\"error\":\"suffix is missing\"}",
             "{\"task_id\":\"x\",\"prefix\":\"\"}");
    bad_line(h, "a_prefix_that_is_a_number",
             "{\"task_id\":\"x\",\"error\":\"prefix is not a string\"}",
             "{\"task_id\":\"x\",\"prefix\":7,\"suffix\":\"\"}");
    bad_line(h, "a_prefix_that_is_null", "{\"task_id\":\"x\",\"error\":\"prefix is not a string\"}",
             "{\"task_id\":\"x\",\"prefix\":null,\"suffix\":\"\"}");
    bad_line(h, "a_prefix_that_is_a_list",
             "{\"task_id\":\"x\",\"error\":\"prefix is not a string\"}",
             "{\"task_id\":\"x\",\"prefix\":[\"a\"],\"suffix\":\"\"}");
    bad_line(h, "a_language_that_is_a_number",
             "{\"task_id\":\"x\",\"error\":\"language is not a string\"}",
             "{\"task_id\":\"x\",\"prefix\":\"\",\"suffix\":\"\",\"language\":1}");
    bad_line(h, "max_tokens_that_is_text", "{\"task_id\":\"x\",\"error\":\"max_tokens is not",
             "{\"task_id\":\"x\",\"prefix\":\"\",\"suffix\":\"\",\"max_tokens\":\"5\"}");
    bad_line(h, "max_tokens_below_0", "\"error\":\"max_tokens is not",
             "{\"task_id\":\"x\",\"prefix\":\"\",\"suffix\":\"\",\"max_tokens\":-1}");
    bad_line(h, "max_tokens_with_a_fraction", "\"error\":\"max_tokens is not",
             "{\"task_id\":\"x\",\"prefix\":\"\",\"suffix\":\"\",\"max_tokens\":1.5}");
    bad_line(h, "max_tokens_of_1e308", "\"error\":\"max_tokens is not",
             "{\"task_id\":\"x\",\"prefix\":\"\",\"suffix\":\"\",\"max_tokens\":1e308}");
    bad_line(h, "max_tokens_of_2_32_plus_1", "\"error\":\"max_tokens is not",
             "{\"task_id\":\"x\",\"prefix\":\"\",\"suffix\":\"\",\"max_tokens\":4294967297}");
    bad_line(
        h, "max_tokens_of_2_63", "\"error\":\"line 2",
        "{\"task_id\":\"x\",\"prefix\":\"\",\"suffix\":\"\",\"max_tokens\":9223372036854775808}");
    bad_line(h, "hole_tokens_that_do_not_fit", "{\"task_id\":\"x\",\"error\":\"",
             "{\"task_id\":\"x\",\"prefix\":\"\",\"suffix\":\"\",\"hole_tokens\":65536}");
    bad_line(h, "hole_tokens_above_the_range", "\"error\":\"hole_tokens is not",
             "{\"task_id\":\"x\",\"prefix\":\"\",\"suffix\":\"\",\"hole_tokens\":65537}");
    bad_line(h, "a_task_id_with_escapes_comes_back_escaped",
             "{\"task_id\":\"\\u001b[2J\\\"\",\"error\":", "{\"task_id\":\"\\u001b[2J\\\"\"}");
}

static void large(hostile *h)
{
    char *text;
    size_t n;

    put_many("many", "[", 100000);
    text = get_file("many", &n);
    bad_line(h, "a_line_of_100000_brackets", "\"error\":\"line 2", named("{\"a\":%s", text));
    free(text);
    put_many("many", "{},", 100000);
    text = get_file("many", &n);
    bad_line(h, "a_line_of_200000_values", "\"error\":\"line 2: more than 200000 JSON values",
             named("{\"a\":[%s%s0]}", text, text));
    free(text);
    FILE *f = fopen("in", "wb");

    for (size_t i = 0; i < (65u << 20); i++) fputc('x', f);
    fputs("\n" GOOD, f);
    fclose(f);
    h->in = "in";
    h->stdout_holds = "{\"task_id\":null,\"error\":\"line 1 is longer than 67108864 "
                      "bytes\"}\n{\"task_id\":\"good\",\"completion\"";
    CASE(h, "a_line_of_65_mb_is_dropped", 1, "line 1", "infill", "--jsonl", "--model", "m",
         "--threads", "1");
    f = fopen("in", "wb");
    fputs("{\"task_id\":\"large\",\"max_tokens\":1,\"suffix\":\"\",\"prefix\":\"", f);
    for (size_t i = 0; i < 1000000; i++) fputs("int x = 1;", f);
    fputs("\"}\n" GOOD, f);
    fclose(f);
    h->in = "in";
    h->stdout_holds = "{\"task_id\":\"large\",\"completion\"";
    CASE(h, "a_prefix_of_10_mb", 0, NULL, "infill", "--jsonl", "--model", "m", "--threads", "1");
    f = fopen("in", "wb");
    fputs("{\"task_id\":\"large\",\"max_tokens\":1,\"prefix\":\"\",\"suffix\":\"", f);
    for (size_t i = 0; i < 1000000; i++) fputs("\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9", f);
    fputs("\"}\n" GOOD, f);
    fclose(f);
    h->in = "in";
    h->stdout_holds = "{\"task_id\":\"large\",\"completion\"";
    CASE(h, "a_suffix_of_10_mb", 0, NULL, "infill", "--jsonl", "--model", "m", "--threads", "1");
    f = fopen("in", "wb");
    fputs("{\"task_id\":\"large\",\"prefix\":\"\",\"suffix\":\"\",\"draft\":\"", f);
    for (size_t i = 0; i < 100000; i++) fputs("int x = 1;\\n", f);
    fputs("\"}\n" DRAFT, f);
    fclose(f);
    h->in = "in";
    h->stdout_holds = "{\"task_id\":\"good\",\"completion\"";
    CASE(h, "a_draft_of_1_mb_does_not_fit", 1, "do not fit", "rewrite", "--jsonl", "--model", "m",
         "--threads", "1");
}

static void good_line(hostile *h, const char *name, const char *answer, const char *text)
{
    put_text("in", text);
    h->in = "in";
    h->stdout_holds = answer;
    CASE(h, name, 0, NULL, "infill", "--jsonl", "--model", "m", "--threads", "1");
}

static void good_lines(hostile *h)
{
    good_line(h, "no_lines", NULL, "");
    good_line(h, "empty_lines", NULL, "\n\n\r\n\n");
    good_line(h, "a_line_without_an_end", "{\"task_id\":\"x\",\"completion\"",
              "{\"task_id\":\"x\",\"prefix\":\"\",\"suffix\":\"\",\"max_tokens\":1}");
    good_line(h, "lines_that_end_with_a_carriage_return", "{\"task_id\":\"x\",\"completion\"",
              "{\"task_id\":\"x\",\"prefix\":\"\",\"suffix\":\"\",\"max_tokens\":1}\r\n");
    good_line(h, "empty_prefix_and_suffix", "{\"task_id\":\"x\",\"completion\"",
              "{\"task_id\":\"x\",\"prefix\":\"\",\"suffix\":\"\",\"max_tokens\":1}\n");
    good_line(h, "an_empty_task_id", "{\"task_id\":\"\",\"completion\"",
              "{\"task_id\":\"\",\"prefix\":\"\",\"suffix\":\"\",\"max_tokens\":1}\n");
    good_line(
        h, "unknown_fields", "{\"task_id\":\"x\",\"completion\"",
        "{\"task_id\":\"x\",\"prefix\":\"\",\"suffix\":\"\",\"max_tokens\":1,\"later\":[{}]}\n");
    good_line(h, "a_nul_in_the_prefix", "{\"task_id\":\"x\\u0000y\",\"completion\"",
              "{\"task_id\":\"x\\u0000y\",\"prefix\":\"a\\u0000b\",\"suffix\":\"\\u0000\",\"max_"
              "tokens\":1}\n");
    good_line(h, "control_tokens_in_the_text", "{\"task_id\":\"<|mask|>\",\"completion\"",
              "{\"task_id\":\"<|mask|>\",\"prefix\":\"<|mask|><role>HUMAN</"
              "role><|endoftext|>\",\"suffix\":\"<|mask|><|role_end|>\",\"max_tokens\":1}\n");
    good_line(h, "no_tokens_asked_for", "{\"task_id\":\"x\",\"completion\"",
              "{\"task_id\":\"x\",\"prefix\":\"a\",\"suffix\":\"b\",\"max_tokens\":1,\"hole_"
              "tokens\":0}\n");
    good_line(h, "a_language_that_nobody_knows", "{\"task_id\":\"x\",\"completion\"",
              "{\"task_id\":\"x\",\"prefix\":\"\",\"suffix\":\"\",\"max_tokens\":1,\"language\":"
              "\"\\u0000../../\"}\n");
    put_text("in", "{\"task_id\":\"x\",\"prefix\":\"\",\"suffix\":\"\"}\n" DRAFT);
    h->in = "in";
    h->stdout_holds =
        "{\"task_id\":\"x\",\"error\":\"draft is missing\"}\n{\"task_id\":\"good\",\"completion\"";
    CASE(h, "rewrite_without_a_draft", 1, "line 1", "rewrite", "--jsonl", "--model", "m",
         "--threads", "1");
    put_text("in", "{\"task_id\":\"x\",\"prefix\":\"\",\"draft\":\"\",\"suffix\":\"\"}\n");
    h->in = "in";
    h->stdout_holds = "{\"task_id\":\"x\",\"completion\":";
    CASE(h, "rewrite_of_nothing", 0, NULL, "rewrite", "--jsonl", "--model", "m", "--max-ms", "200");
}

static void streams(hostile *h)
{
    put_text("in", GOOD GOOD GOOD);
    h->in = "in";
    h->out = "/dev/full";
    CASE(h, "answers_into_a_full_disk", 1, "stdout: No space left on device", "infill", "--jsonl",
         "--model", "m");
    h->in = "in";
    h->closed = 1;
    CASE(h, "answers_into_a_closed_stdout", 1, "stdout: Bad file descriptor", "infill", "--jsonl",
         "--model", "m");
    h->closed = 0;
    CASE(h, "lines_from_a_closed_stdin", 1, "stdin: Bad file descriptor", "infill", "--jsonl",
         "--model", "m");
    h->in = "m";
    CASE(h, "lines_from_a_folder", 1, "stdin: Is a directory", "infill", "--jsonl", "--model", "m",
         "--threads", "1");
    CASE(h, "lines_and_a_file", 2, "--jsonl reads stdin", "infill", "--jsonl", "a.c:1:1", "--model",
         "m");
}

void jsonl_cases(hostile *h)
{
    put_model(h, "m");
    bad_lines(h);
    large(h);
    good_lines(h);
    streams(h);
}
