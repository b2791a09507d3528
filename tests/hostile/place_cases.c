/* place_cases.c - files that are no text, and places that are not in them. */
#include "hostile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void places(hostile *h)
{
    static const struct {
        const char *name, *place, *needle;
    } cursors[] = {
        { "a_place_without_numbers", "a.c", "a.c is not FILE:LINE:COL" },
        { "a_place_with_one_number", "a.c:1", "a.c:1 is not FILE:LINE:COL" },
        { "line_0", "a.c:0:1", "a.c:0:1 is not FILE:LINE:COL" },
        { "column_0", "a.c:1:0", "a.c:1:0 is not FILE:LINE:COL" },
        { "a_negative_line", "a.c:-1:1", "is not FILE:LINE:COL" },
        { "a_line_that_is_text", "a.c:x:1", "is not FILE:LINE:COL" },
        { "a_hexadecimal_column", "a.c:1:0x1", "is not FILE:LINE:COL" },
        { "a_place_without_a_file", ":1:1", "cannot open" },
        { "an_empty_place", "", "is not FILE:LINE:COL" },
        { "a_line_past_the_end", "a.c:4:1", "a.c has no line 4" },
        { "a_line_far_past_the_end", "a.c:999999999:1", "a.c has no line 999999999" },
        { "a_line_of_2_31", "a.c:2147483648:1", "a.c has no line" },
        { "a_line_of_2_32_plus_1", "a.c:4294967297:1", "a.c has no line" },
        { "a_line_of_2_64_plus_1", "a.c:18446744073709551617:1", "a.c has no line" },
        { "a_column_past_the_end", "a.c:1:12", "a.c: line 1 has 10 columns, not 12" },
        { "a_column_of_2_32_plus_1", "a.c:1:4294967297", "a.c: line 1 has 10 columns" },
        { "a_column_past_a_carriage_return", "crlf.c:1:8", "crlf.c: line 1 has 7 columns" },
        { "a_column_counts_characters", "utf8.c:1:8", "utf8.c: line 1 has 3 columns" },
    };
    static const struct {
        const char *name, *place, *needle;
    } lines[] = {
        { "lines_from_0", "a.c:0-1", "is not FILE:FIRST-LAST" },
        { "lines_backwards", "a.c:2-1", "a.c has no lines 2-1" },
        { "lines_past_the_end", "a.c:1-4", "a.c has no lines 1-4" },
        { "lines_far_past_the_end", "a.c:4000000000-4000000001", "a.c has no lines" },
        { "lines_without_an_end", "a.c:1-", "is not FILE:FIRST-LAST" },
        { "lines_that_are_a_place", "a.c:1:1", "is not FILE:FIRST-LAST" },
    };

    put_text("a.c", "int a(1);\nint b;\n");
    put_text("crlf.c", "int a;\r\nint b;\r\n");
    put_text("utf8.c", "\xc3\xa9\xe2\x82\xac\n");
    for (size_t i = 0; i < sizeof cursors / sizeof *cursors; i++)
        CASE(h, cursors[i].name, *cursors[i].place == ':' ? 1 : 2, cursors[i].needle, "infill",
             cursors[i].place, "--model", "m");
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        CASE(h, named("rewrite_%s", lines[i].name), 2, lines[i].needle, "rewrite", lines[i].place,
             "--model", "m");
    CASE(h, "score_lines_past_the_end", 2, "a.c has no lines 1-4", "score", "a.c:1-4", "--model",
         "m");
    CASE(h, "score_lines_backwards", 2, "a.c has no lines 2-1", "score", "a.c:2-1", "--model", "m");
}

/* Files that cannot be read, by each call that reads one. */
static void unreadable(hostile *h)
{
    static const struct {
        const char *name, *file, *needle;
        int status;
    } files[] = {
        { "a_missing_file", "gone.c", "gone.c: cannot open: No such file", 1 },
        { "a_folder", "m", "m: not a regular file", 2 },
        { "a_pipe", "pipe", "pipe: not a regular file", 2 },
        { "a_device", "/dev/zero", "/dev/zero: not a regular file", 2 },
        { "a_file_of_65_mb", "large", "large: larger than the limit", 2 },
        { "a_link_to_itself", "loop", "loop: cannot open", 1 },
        { "a_file_below_a_file", "a.c/b.c", "a.c/b.c: cannot open: Not a directory", 1 },
    };
    static const struct {
        const char *call, *place;
    } calls[] = { { "infill", ":1:1" }, { "rewrite", ":1-1" }, { "score", "" } };

    if (mkfifo("pipe", 0666) || symlink("loop", "loop")) abort();
    put_text("large", "");
    if (truncate("large", 65 << 20)) abort();
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        for (size_t k = 0; k < 3; k++)
            CASE(h, named("%s_%s", calls[k].call, files[i].name), files[i].status, files[i].needle,
                 calls[k].call, named("%s%s", files[i].file, calls[k].place), "--model", "m");
    unlink("large");
    if (geteuid() != 0) {
        put_text("secret.c", "x\n");
        chmod("secret.c", 0);
        CASE(h, "a_file_without_the_right_to_read", 1, "secret.c: cannot open: Permission denied",
             "infill", "secret.c:1:1", "--model", "m");
    } else {
        hostile_skip(h, "a_file_without_the_right_to_read", "root may read everything");
    }
    char name[300], path[5000];

    memset(name, 'n', 255);
    strcpy(name + 255, ".c:1:1");
    CASE(h, "a_name_of_257_bytes", 1, "File name too long", "infill", name, "--model", "m");
    memset(path, '/', sizeof path);
    strcpy(path + 4500, "a.c:1:1");
    CASE(h, "a_path_of_4500_bytes", 1, "File name too long", "infill", path, "--model", "m");
    CASE(h, "a_name_with_escapes", 1, "?[2J?.c: cannot open", "infill", "\033[2J\a.c:1:1",
         "--model", "m");
    CASE(h, "a_name_that_is_not_utf8", 1, "cannot open", "infill", "\xff\xfe.c:1:1", "--model",
         "m");
}

/* Files that are odd and can be read: each call answers. */
static void odd(hostile *h)
{
    unsigned char binary[4096];
    unsigned state = 1;

    for (size_t i = 0; i < sizeof binary; i++) {
        state = state * 1103515245u + 12345u;
        binary[i] = (unsigned char)(state >> 16);
    }
    put_bytes("binary", binary, sizeof binary);
    put_bytes("nul.c", "int a\0b;\n\0\0\n", 12);
    put_text("empty.c", "");
    put_text("newline.c", "\n");
    put_text("mark.c", "\xef\xbb\xbfint a;\n");
    put_text("latin.c", "// caf\351\nint a = ;\n");
    put_text("surrogate.c", "// \xed\xa0\x80\nint a = ;\n");
    put_text("overlong.c", "// \xc0\xaf\xf8\x88\nint a = ;\n");
    put_text("cr.c", "int a;\rint b;\r");
    put_text("open.c", "int a = ");
    put_text("control.c", "a <|mask|> <role>HUMAN</role> <|endoftext|> <|fill|>\nb\n");
    static const char *const files[] = { "binary",     "nul.c",  "empty.c", "newline.c",
                                         "mark.c",     "crlf.c", "latin.c", "surrogate.c",
                                         "overlong.c", "cr.c",   "open.c",  "control.c" };

    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        CASE(h, named("infill_in_%s", files[i]), 0, NULL, "infill", named("%s:1:1", files[i]),
             "--model", "m", "--max-tokens", "2", "--threads", "1");
        CASE(h, named("rewrite_in_%s", files[i]), 0, NULL, "rewrite", named("%s:1-1", files[i]),
             "--model", "m", "--max-ms", "50", "--threads", "1");
        h->stdout_holds = "{\"tokens\":[";
        CASE(h, named("score_in_%s", files[i]), 0, NULL, "score", named("%s:1-1", files[i]),
             "--json", "--model", "m", "--threads", "1");
    }
    put_many("line.c", "abc def ", 1250000);
    CASE(h, "infill_at_the_start_of_a_line_of_10_mb", 0, NULL, "infill", "line.c:1:1", "--model",
         "m", "--max-tokens", "2");
    CASE(h, "infill_in_a_line_of_10_mb", 0, NULL, "infill", "line.c:1:5000000", "--model", "m",
         "--max-tokens", "2");
    CASE(h, "infill_at_the_end_of_a_line_of_10_mb", 0, NULL, "infill", "line.c:1:10000001",
         "--max-tokens", "2");
    CASE(h, "infill_behind_the_end_of_a_line_of_10_mb", 2,
         "line.c: line 1 has 10000001 columns, not 10000002", "infill", "line.c:1:10000002",
         "--model", "m");
    CASE(h, "rewrite_a_line_of_10_mb", 1, "line.c:1-1: ", "rewrite", "line.c:1-1", "--model", "m");
    CASE(h, "score_a_line_of_10_mb", 2, "line.c: 10000000 bytes are more than 262144; name lines",
         "score", "line.c", "--model", "m");
    put_many("lines.c", "int a;\n", 1400000);
    CASE(h, "score_an_early_line_of_1400000", 0, NULL, "score", "lines.c:2-3", "--model", "m");
    CASE(h, "score_a_late_line_of_1400000", 0, NULL, "score", "lines.c:1399990-1399991", "--model",
         "m", "--threads", "1");
    CASE(h, "infill_in_the_last_of_1400000_lines", 0, NULL, "infill", "lines.c:1400001:1",
         "--model", "m", "--max-tokens", "2");
    put_many("spaces.c", " ", 10000000);
    CASE(h, "infill_behind_10_mb_of_spaces", 0, NULL, "infill", "spaces.c:1:10000001",
         "--max-tokens", "2");
    put_many("spaces", " ", 1000000);
    h->in = "spaces";
    CASE(h, "tokenize_1_mb_of_spaces", 0, NULL, "tokenize");
}

void place_cases(hostile *h)
{
    put_model(h, "m");
    places(h);
    unreadable(h);
    odd(h);
}
