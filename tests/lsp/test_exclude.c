/* test_exclude.c - what may not be read is excluded, whoever says otherwise. */
#include "core/base/buf.h"
#include "core/base/clock.h"
#include "lsp/exclude.h"
#include "lsp/limits.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static rd_verdict judge(const rd_rules *r, const char *path)
{
    rd_candidate c = { .path = path, .bytes = 100, .head = "int a;\n", .head_n = 7 };

    return rd_excluded(r, &c, NULL);
}

static rd_verdict judge_text(const rd_rules *r, const char *head, size_t n)
{
    rd_candidate c = { .path = "/p/a.txt", .bytes = n, .head = head, .head_n = n };

    return rd_excluded(r, &c, NULL);
}

static void ignore(rd_rules *r, const char *folder, const char *lines)
{
    cr_assert(!rd_rules_ignore_file(r, folder, lines, strlen(lines), NULL));
}

Test(exclude, knows_secrets_by_their_names_in_either_case)
{
    static const char *const secrets[] = { "/p/.env",
                                           "/p/.env.local",
                                           "/p/.ENV",
                                           "/p/prod.env",
                                           "/p/.envrc",
                                           "/p/a.pem",
                                           "/p/a.KEY",
                                           "/home/u/.ssh/config",
                                           "/p/id_rsa",
                                           "/p/id_ed25519.pub",
                                           "/home/u/.aws/credentials",
                                           "/p/.git/config",
                                           "/p/.netrc",
                                           "/p/x/secrets.yml",
                                           "/p/.Npmrc",
                                           "/p/.env.d/a.c" };
    static const char *const fine[] = { "/p/env.c",     "/p/environment.ts", "/p/key.c",
                                        "/p/keys/a.c",  "/p/secrets.py",     "/p/a.pem.c",
                                        "/p/.gitignore" };
    rd_rules *r = rd_rules_new(1000);

    for (size_t i = 0; i < sizeof secrets / sizeof *secrets; i++)
        cr_assert_eq(judge(r, secrets[i]), RD_EXCLUDED_SECRET, "%s", secrets[i]);
    for (size_t i = 0; i < sizeof fine / sizeof *fine; i++)
        cr_assert_eq(judge(r, fine[i]), RD_ALLOWED, "%s", fine[i]);
    rd_rules_free(r);
}

Test(exclude, knows_keys_size_and_binary_by_what_is_in_the_file)
{
    rd_rules *r = rd_rules_new(1000);
    static const char quoted[] = "const char key[] = \"-----BEGIN RSA PRIVATE KEY-----\";\n";
    static const char certificate[] = "-----BEGIN CERTIFICATE-----\nPRIVATE KEY";
    rd_candidate unnamed = { .bytes = 5, .head = "a\0b", .head_n = 3 };

    cr_assert_eq(judge_text(r, "\xef\xbb\xbf\r\n-----BEGIN OPENSSH PRIVATE KEY-----\n", 40),
                 RD_EXCLUDED_SECRET);
    cr_assert_eq(judge_text(r, "AGE-SECRET-KEY-1", 16), RD_EXCLUDED_SECRET);
    cr_assert_eq(judge_text(r, quoted, sizeof quoted - 1), RD_ALLOWED);
    cr_assert_eq(judge_text(r, certificate, sizeof certificate - 1), RD_ALLOWED);
    cr_assert_eq(judge_text(r, "a\0b", 3), RD_EXCLUDED_BINARY);
    cr_assert_eq(judge_text(r, NULL, 0), RD_ALLOWED);
    cr_assert_eq(rd_excluded(r, &unnamed, NULL), RD_EXCLUDED_BINARY);
    rd_candidate big = { .path = "/p/a", .bytes = 1000 };

    cr_assert_eq(rd_excluded(r, &big, NULL), RD_ALLOWED);
    big.bytes++;
    cr_assert_eq(rd_excluded(r, &big, NULL), RD_EXCLUDED_SIZE);
    rd_rules_free(r);
}

Test(exclude, refuses_paths_that_it_cannot_judge)
{
    static const char *const paths[] = { "",       "a",       "p/a",   "/",     "/p//a",
                                         "/p/./a", "/p/../a", "/p/a/", "/p/..", "file:///p/a" };
    rd_rules *r = rd_rules_new(1000);
    char *path = malloc(RD_MOST_PATH_BYTES + 2);

    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        cr_assert_eq(judge(r, paths[i]), RD_EXCLUDED_PATH, "%s", paths[i]);
    memset(path, 'a', RD_MOST_PATH_BYTES + 1);
    path[0] = '/';
    path[RD_MOST_PATH_BYTES + 1] = 0;
    cr_assert_eq(judge(r, path), RD_EXCLUDED_PATH);
    path[RD_MOST_PATH_BYTES] = 0;
    cr_assert_eq(judge(r, path), RD_ALLOWED);
    for (size_t i = 0; i < RD_MOST_PATH_DEPTH; i++) path[2 * i] = '/';
    path[2 * RD_MOST_PATH_DEPTH] = 0;
    cr_assert_eq(judge(r, path), RD_ALLOWED);
    path[2 * RD_MOST_PATH_DEPTH] = '/';
    path[2 * RD_MOST_PATH_DEPTH + 2] = 0;
    cr_assert_eq(judge(r, path), RD_EXCLUDED_PATH);
    free(path);
    rd_rules_free(r);
}

Test(exclude, lets_the_user_take_back_and_a_project_only_add)
{
    rd_rules *r = rd_rules_new(1000);
    const char *why;
    rd_candidate c = { .path = "/p/gen/a.c", .bytes = 1 };

    cr_assert(!rd_rules_pattern(r, RD_LAYER_PROJECT, "/p", "!.env", NULL));
    ignore(r, "/p", "!.env\n!*.pem\n");
    cr_assert_eq(judge(r, "/p/.env"), RD_EXCLUDED_SECRET);
    cr_assert_eq(judge(r, "/p/a.pem"), RD_EXCLUDED_SECRET);
    cr_assert(!rd_rules_pattern(r, RD_LAYER_USER, "/", "!.env.example", NULL));
    cr_assert_eq(judge(r, "/p/.env.example"), RD_ALLOWED);
    cr_assert_eq(judge(r, "/p/.ENV.EXAMPLE"), RD_EXCLUDED_SECRET, "taking back is exact");
    cr_assert_eq(judge(r, "/p/.env"), RD_EXCLUDED_SECRET);

    cr_assert(!rd_rules_pattern(r, RD_LAYER_USER, "/", "*.gen.c", NULL));
    cr_assert(!rd_rules_pattern(r, RD_LAYER_PROJECT, "/p", "/gen/", NULL));
    cr_assert_eq(judge(r, "/p/a.gen.c"), RD_EXCLUDED_USER);
    cr_assert_eq(rd_excluded(r, &c, &why), RD_EXCLUDED_PROJECT);
    cr_assert_str_eq(why, "/gen/");
    cr_assert_eq(judge(r, "/q/gen/a.c"), RD_ALLOWED, "another project");
    cr_assert_eq(judge(r, "/pgen/a.c"), RD_ALLOWED, "a name that begins alike");
    cr_assert(!rd_rules_pattern(r, RD_LAYER_USER, "/", "!gen/", NULL));
    cr_assert_eq(judge(r, "/p/gen/a.c"), RD_EXCLUDED_PROJECT, "each layer is judged by itself");
    rd_rules_free(r);
}

Test(exclude, reads_ignore_files_of_a_folder_and_of_those_below_it)
{
    for (int order = 0; order < 2; order++) {
        rd_rules *r = rd_rules_new(1000);

        if (order) ignore(r, "/p/sub/", "!keep.log\nlocal.txt\n");
        ignore(r, "/p", "\xef\xbb\xbf*.log\n# comment\n\nbuild/\n!important.log\n/top.c\r\n");
        if (!order) ignore(r, "/p/sub", "!keep.log\nlocal.txt\n");
        cr_assert_eq(judge(r, "/p/a.log"), RD_EXCLUDED_IGNORED);
        cr_assert_eq(judge(r, "/p/A.LOG"), RD_EXCLUDED_IGNORED);
        cr_assert_eq(judge(r, "/p/important.log"), RD_ALLOWED);
        cr_assert_eq(judge(r, "/p/keep.log"), RD_EXCLUDED_IGNORED);
        cr_assert_eq(judge(r, "/p/sub/keep.log"), RD_ALLOWED);
        cr_assert_eq(judge(r, "/p/sub/a.log"), RD_EXCLUDED_IGNORED);
        cr_assert_eq(judge(r, "/p/sub/x/local.txt"), RD_EXCLUDED_IGNORED);
        cr_assert_eq(judge(r, "/p/local.txt"), RD_ALLOWED);
        cr_assert_eq(judge(r, "/p/x/build/important.log"), RD_EXCLUDED_IGNORED,
                     "its folder is excluded");
        cr_assert_eq(judge(r, "/p/build"), RD_ALLOWED, "a file of that name");
        cr_assert_eq(judge(r, "/p/top.c"), RD_EXCLUDED_IGNORED);
        cr_assert_eq(judge(r, "/p/x/top.c"), RD_ALLOWED);
        rd_rules_free(r);
    }
}

Test(exclude, excludes_all_below_a_folder_whose_rules_it_could_not_keep)
{
    rd_rules *r = rd_rules_new(1000);
    rd_buf lines = { 0 };
    rd_error err = { 0 };

    for (size_t i = 0; i <= RD_MOST_PATTERN_BYTES; i++) rd_buf_text(&lines, "a");
    cr_assert_eq(rd_rules_ignore_file(r, "/p", lines.data, lines.len, &err), RD_INVALID);
    cr_assert(strstr(err.text, "/p"), "%s", err.text);
    cr_assert_eq(judge(r, "/p/a.c"), RD_EXCLUDED_IGNORED);
    cr_assert_eq(judge(r, "/q/a.c"), RD_ALLOWED);
    lines.data[0] = '#';
    cr_assert(!rd_rules_ignore_file(r, "/q", lines.data, lines.len, &err), "a comment may be long");
    cr_assert_eq(judge(r, "/q/a.c"), RD_ALLOWED);

    rd_buf_reset(&lines);
    for (int i = 0; i < RD_MOST_PATTERNS; i++) rd_buf_text(&lines, "x\n");
    cr_assert_eq(rd_rules_ignore_file(r, "/r", lines.data, lines.len, &err), RD_INVALID);
    for (int i = 0; i < 10000; i++)
        rd_rules_pattern(r, RD_LAYER_PROJECT, i % 2 ? "/s" : "/t", "y", &err);
    cr_assert_eq(judge(r, "/r/a.c"), RD_EXCLUDED_IGNORED);
    cr_assert_eq(judge(r, "/s/a.c"), RD_EXCLUDED_PROJECT);
    cr_assert_eq(judge(r, "/q/a.c"), RD_ALLOWED);
    rd_buf_clear(&lines);
    rd_rules_free(r);
}

Test(exclude, excludes_where_the_rules_take_too_long_to_judge, .timeout = 60)
{
    rd_rules *r = rd_rules_new(1000);
    rd_buf lines = { 0 }, path = { 0 };

    for (int i = 0; i < 500; i++) {
        rd_buf_text(&lines, "!*");
        for (int k = 0; k < 120; k++) rd_buf_text(&lines, "a");
        rd_buf_text(&lines, "b\n");
    }
    ignore(r, "/", lines.data);
    for (int k = 0; k < 15; k++) {
        rd_buf_text(&path, "/");
        for (int i = 0; i < 255; i++) rd_buf_text(&path, "a");
    }
    double from = rd_now_ms();

    cr_assert_eq(judge(r, path.data), RD_EXCLUDED_IGNORED);
    cr_assert_lt(rd_now_ms() - from, 2000.0, "%.0f ms", rd_now_ms() - from);
    cr_assert_eq(judge(r, "/p/a.c"), RD_ALLOWED);
    rd_buf_clear(&lines);
    rd_buf_clear(&path);
    rd_rules_free(r);
}

static const rd_file_settings defaults = {
    .enabled = true, .quality = 0.5, .min_confidence = 0.4, .max_ms = 1000, .debounce_ms = 100
};

Test(exclude, settles_what_is_set_for_a_language_and_for_a_file)
{
    rd_rules *r = rd_rules_new(1000);
    bool off = false, on = true;
    double high = 0.9, low = 0.1;
    int long_ms = 5000, short_ms = 10;
    rd_file_settings s;

    cr_assert(!rd_rules_setting(
        r, RD_LAYER_USER, &(rd_file_setting){ .language = "markdown", .enabled = &off }, NULL));
    cr_assert(!rd_rules_setting(
        r, RD_LAYER_USER,
        &(rd_file_setting){
            .pattern = "notes/*.md", .root = "/p", .enabled = &on, .quality = &high },
        NULL));
    cr_assert(!rd_settings_for(r, "/p/a.md", "Markdown", defaults).enabled);
    cr_assert(rd_settings_for(r, "/p/a.c", "c", defaults).enabled);
    s = rd_settings_for(r, "/p/notes/a.md", "markdown", defaults);
    cr_assert(s.enabled && s.quality > 0.89);
    cr_assert(!rd_settings_for(r, "/q/notes/a.md", "markdown", defaults).enabled);
    cr_assert(!rd_settings_for(r, "untitled:1", "markdown", defaults).enabled);

    /* A project narrows: it cannot switch on, lower the gate, or take more time. */
    rd_file_setting wide = { .root = "/p",
                             .enabled = &on,
                             .min_confidence = &low,
                             .max_ms = &long_ms,
                             .debounce_ms = &short_ms,
                             .quality = &low };
    cr_assert(!rd_rules_setting(r, RD_LAYER_PROJECT, &wide, NULL));
    s = rd_settings_for(r, "/p/a.c", "c", defaults);
    cr_assert(s.enabled && s.min_confidence > 0.39 && s.max_ms == 1000 && s.debounce_ms == 100 &&
              s.quality > 0.49);
    cr_assert(!rd_settings_for(r, "/p/a.md", "markdown", defaults).enabled);
    rd_file_setting narrow = { .root = "/p",
                               .enabled = &off,
                               .min_confidence = &high,
                               .max_ms = &short_ms,
                               .debounce_ms = &long_ms };
    cr_assert(!rd_rules_setting(r, RD_LAYER_PROJECT, &narrow, NULL));
    s = rd_settings_for(r, "/p/a.c", "c", defaults);
    cr_assert(!s.enabled && s.min_confidence > 0.89 && s.max_ms == 10 && s.debounce_ms == 5000);
    cr_assert(rd_settings_for(r, "/q/a.c", "c", defaults).enabled);
    rd_rules_free(r);
}

Test(exclude, refuses_settings_out_of_range_by_name)
{
    rd_rules *r = rd_rules_new(1000);
    double bad[] = { -0.1, 1.1, 0.0 / 0.0 };
    int times[] = { -1, 3600001 };
    rd_error err;

    for (int i = 0; i < 3; i++) {
        cr_assert_eq(
            rd_rules_setting(r, RD_LAYER_USER, &(rd_file_setting){ .quality = &bad[i] }, &err),
            RD_INVALID);
        cr_assert(strstr(err.text, "quality"));
        cr_assert_eq(rd_rules_setting(r, RD_LAYER_USER,
                                      &(rd_file_setting){ .min_confidence = &bad[i] }, &err),
                     RD_INVALID);
        cr_assert(strstr(err.text, "minConfidence"));
    }
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(
            rd_rules_setting(r, RD_LAYER_USER, &(rd_file_setting){ .max_ms = &times[i] }, &err),
            RD_INVALID);
        cr_assert(strstr(err.text, "maxMs"));
        cr_assert_eq(rd_rules_setting(r, RD_LAYER_USER,
                                      &(rd_file_setting){ .debounce_ms = &times[i] }, &err),
                     RD_INVALID);
        cr_assert(strstr(err.text, "debounceMs"));
    }
    cr_assert_eq(rd_rules_setting(r, RD_LAYER_USER, &(rd_file_setting){ .pattern = "#" }, &err),
                 RD_INVALID);
    rd_rules_free(r);
}
