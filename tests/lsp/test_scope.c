/* test_scope.c - what may be read, by the files of a project and the links in it. */
#include "lsp/settings.h"

#include "core/base/clock.h"
#include "files.h"
#include "lsp/folder.h"

#include <fcntl.h>
#include <time.h>

static rd_config *config;
static rd_scope *scope;
static const char *why;

static void begin(void)
{
    rd_buf complaints = { 0 };

    make_home();
    config = rd_config_new("/nowhere", &complaints);
    rd_buf_clear(&complaints);
}

static void end(void)
{
    rd_scope_free(scope);
    rd_config_free(config);
    remove_home();
}

TestSuite(scope, .init = begin, .fini = end, .timeout = 20);

/* With the test's folder as workspace, or none. */
static void open_scope(bool has_folder)
{
    const char *folder = home;

    rd_scope_free(scope);
    scope = rd_scope_new(&config->client, &folder, has_folder);
}

static rd_verdict judge(const char *uri_or_path)
{
    return rd_scope_excluded(scope, uri_or_path, 10, "int a;", 6, &why);
}

static rd_verdict judge_name(const char *name)
{
    return judge(in_home(name));
}

static void wait_a_look(void)
{
    struct timespec t = { 0, ((long)RD_LOOK_MS + 20) * 1000000 };

    nanosleep(&t, NULL);
}

static bool complained(const char *of)
{
    rd_buf lines = { 0 };

    rd_scope_complaints(scope, &lines);
    bool found = lines.data && strstr(lines.data, of);

    rd_buf_clear(&lines);
    return found;
}

static void set_user(const char *json)
{
    rd_buf complaints = { 0 };
    json_t *value = json_loads(json, 0, NULL);

    rd_settings_merge(&config->client, RD_FROM_USER, value, NULL, &complaints);
    cr_assert_eq(complaints.len, 0, "%s", complaints.data);
    json_decref(value);
    rd_buf_clear(&complaints);
}

Test(scope, judges_uris_and_paths_alike)
{
    char uri[300];

    put("a.c", "");
    put(".env", "");
    open_scope(true);
    cr_assert_eq(judge_name("a.c"), RD_ALLOWED);
    cr_assert_eq(judge_name(".env"), RD_EXCLUDED_SECRET);
    snprintf(uri, sizeof uri, "file://%s/%%2Eenv", home);
    cr_assert_eq(judge(uri), RD_EXCLUDED_SECRET);
    cr_assert_str_eq(why, "*.env");
    snprintf(uri, sizeof uri, "file://%s/a.c", home);
    cr_assert_eq(judge(uri), RD_ALLOWED);
    cr_assert_eq(judge("file:///a%00.c"), RD_EXCLUDED_PATH);
    cr_assert_eq(judge("file://host/a.c"), RD_EXCLUDED_PATH);
    cr_assert_eq(judge("a.c"), RD_EXCLUDED_PATH);
    cr_assert_eq(judge(""), RD_EXCLUDED_PATH);
    cr_assert_eq(judge("/"), RD_EXCLUDED_PATH);
}

Test(scope, judges_what_has_no_file_by_its_names_and_its_text)
{
    open_scope(true);
    cr_assert_eq(judge("untitled:Untitled-1"), RD_ALLOWED);
    cr_assert_eq(judge("untitled:"), RD_ALLOWED);
    cr_assert_eq(judge("git:/w/a.c?ref=HEAD"), RD_ALLOWED);
    cr_assert_eq(judge("git:/w/.env?ref=HEAD"), RD_EXCLUDED_SECRET);
    cr_assert_eq(judge("vscode-remote://host/w/.ssh/config"), RD_EXCLUDED_SECRET);
    cr_assert_eq(judge("x:/w%2F.env"), RD_EXCLUDED_PATH);
    cr_assert_eq(
        rd_scope_excluded(scope, "untitled:1", 30, "-----BEGIN RSA PRIVATE KEY-----", 31, &why),
        RD_EXCLUDED_SECRET);
}

Test(scope, excludes_by_size_and_bytes)
{
    put("a.c", "");
    open_scope(true);
    cr_assert_eq(rd_scope_excluded(scope, in_home("a.c"), (4 << 20) + 1, "", 0, &why),
                 RD_EXCLUDED_SIZE);
    cr_assert_eq(rd_scope_excluded(scope, in_home("a.c"), 4 << 20, "", 0, &why), RD_ALLOWED);
    cr_assert_eq(rd_scope_excluded(scope, in_home("a.c"), 3, "a\0b", 3, NULL), RD_EXCLUDED_BINARY);
}

Test(scope, follows_links_and_judges_both_names)
{
    put(".env", "");
    put("plain.c", "");
    put("secret/.ssh/config", "");
    cr_assert(!symlink(".env", in_home("link.c")));
    cr_assert(!symlink("plain.c", in_home("id_rsa")));
    cr_assert(!symlink("secret/.ssh", in_home("folder")));
    cr_assert(!symlink("gone.pem", in_home("new.c")));
    open_scope(true);
    cr_assert_eq(judge_name("link.c"), RD_EXCLUDED_SECRET);
    cr_assert_eq(judge_name("id_rsa"), RD_EXCLUDED_SECRET, "by its own name");
    cr_assert_eq(judge_name("folder/config"), RD_EXCLUDED_SECRET);
    cr_assert_eq(judge_name("folder/new"), RD_EXCLUDED_SECRET, "a new file");
    cr_assert_eq(judge_name("new.c"), RD_EXCLUDED_PATH, "a link to nothing");
    cr_assert_eq(judge_name("new.c/x"), RD_EXCLUDED_PATH);
    cr_assert_eq(judge_name("secret/../plain.c"), RD_ALLOWED);
    cr_assert_eq(judge_name("secret/../.env"), RD_EXCLUDED_SECRET);
}

Test(scope, judges_files_that_are_not_there_yet)
{
    put(".gitignore", "build/\n");
    open_scope(true);
    cr_assert_eq(judge_name("new.c"), RD_ALLOWED);
    cr_assert_eq(judge_name("a/b//./new.c"), RD_ALLOWED);
    cr_assert_eq(judge_name("build/new.c"), RD_EXCLUDED_IGNORED);
    cr_assert_eq(judge_name("a/build/b/new.c"), RD_EXCLUDED_IGNORED);
    cr_assert_eq(judge_name("a/../.env"), RD_EXCLUDED_PATH, "a is not there");
}

Test(scope, sees_a_link_that_is_turned)
{
    put("a.c", "");
    put("b.pem", "");
    cr_assert(!symlink("a.c", in_home("link.c")));
    open_scope(true);
    cr_assert_eq(judge_name("link.c"), RD_ALLOWED);
    cr_assert(!remove(in_home("link.c")));
    cr_assert(!symlink("b.pem", in_home("link.c")));
    wait_a_look();
    cr_assert_eq(judge_name("link.c"), RD_EXCLUDED_SECRET);
}

Test(scope, reads_ignore_files_from_the_workspace_folder_down)
{
    put(".gitignore", "*.log\n");
    put("sub/.redraftignore", "private/\n");
    put("sub/.gitignore", "!keep.log\n");
    put("sub/private/a.c", "");
    put("sub/keep.log", "");
    open_scope(true);
    cr_assert_eq(judge_name("a.log"), RD_EXCLUDED_IGNORED);
    cr_assert_str_eq(why, "*.log");
    cr_assert_eq(judge_name("sub/b.log"), RD_EXCLUDED_IGNORED);
    cr_assert_eq(judge_name("sub/keep.log"), RD_ALLOWED);
    cr_assert_eq(judge_name("sub/private/a.c"), RD_EXCLUDED_IGNORED);
    cr_assert_eq(judge_name("private/a.c"), RD_ALLOWED);
}

Test(scope, begins_at_the_folder_that_holds_git_without_a_workspace)
{
    put(".gitignore", "*\n");
    put("repo/.git/HEAD", "");
    put("repo/.gitignore", "*.log\n");
    put("repo/sub/a.log", "");
    put("plain/sub/a.c", "");
    put("plain/.gitignore", "*\n");
    open_scope(false);
    cr_assert_eq(judge_name("repo/sub/a.log"), RD_EXCLUDED_IGNORED);
    cr_assert_eq(judge_name("repo/sub/a.c"), RD_ALLOWED);
    cr_assert_eq(judge_name("plain/sub/a.c"), RD_ALLOWED, "its own folder alone");
    open_scope(true);
    cr_assert_eq(judge_name("repo/sub/a.c"), RD_EXCLUDED_IGNORED, "the workspace is further out");
}

Test(scope, honours_an_ignore_file_that_changes)
{
    put("a.c", "");
    open_scope(true);
    cr_assert_eq(judge_name("a.c"), RD_ALLOWED);
    put(".gitignore", "a.c\n");
    wait_a_look();
    cr_assert_eq(judge_name("a.c"), RD_EXCLUDED_IGNORED);
    put(".gitignore", "b.c\n");
    wait_a_look();
    cr_assert_eq(judge_name("a.c"), RD_ALLOWED, "as long as before, and in the same second");
    put(".redraft.json", "{\"exclude\": [\"a.*\"]}");
    wait_a_look();
    cr_assert_eq(judge_name("a.c"), RD_EXCLUDED_PROJECT);
    remove(in_home(".redraft.json"));
    wait_a_look();
    cr_assert_eq(judge_name("a.c"), RD_ALLOWED);
}

Test(scope, honours_settings_of_the_user_that_change)
{
    put("a.c", "");
    open_scope(true);
    cr_assert_eq(judge_name("a.c"), RD_ALLOWED);
    cr_assert_eq(judge("untitled:a.c"), RD_ALLOWED);
    set_user("{\"exclude\": [\"a.c\"], \"quality\": 1}");
    cr_assert(rd_scope_settings(scope, in_home("a.c"), "c").quality > 0.9);
    wait_a_look();
    cr_assert_eq(judge_name("a.c"), RD_EXCLUDED_USER);
    cr_assert_eq(judge("untitled:a.c"), RD_EXCLUDED_USER);
}

static void put_fifo(const char *name)
{
    remove(in_home(name));
    cr_assert(!mkfifo(in_home(name), 0600));
}

Test(scope, does_not_wait_for_a_pipe_and_follows_no_link)
{
    put("a.c", "");
    put("rules", "a.c\n");
    put_fifo(".gitignore");
    open_scope(true);
    cr_assert_eq(judge_name("a.c"), RD_ALLOWED, "git takes none for rules either");
    cr_assert(complained(".gitignore: not a regular file"));
    cr_assert_not(complained(".gitignore"), "once");

    remove(in_home(".gitignore"));
    cr_assert(!symlink("rules", in_home(".gitignore")));
    open_scope(true);
    cr_assert_eq(judge_name("a.c"), RD_ALLOWED);
}

Test(scope, refuses_all_below_rules_that_it_cannot_read)
{
    static const char *const ours[] = { "sub/.redraftignore", "sub/.redraft.json" };

    put("a.c", "");
    put("sub/a.c", "");
    for (int i = 0; i < 2; i++) {
        put_fifo(ours[i]);
        open_scope(true);
        cr_assert_eq(judge_name("sub/a.c"), RD_EXCLUDED_PROJECT);
        cr_assert(strstr(why, "not a regular file"));
        cr_assert_eq(judge_name("a.c"), RD_ALLOWED);
        remove(in_home(ours[i]));
        wait_a_look();
        cr_assert_eq(judge_name("sub/a.c"), RD_ALLOWED);
    }
    put("sub/.redraft.json", "{\"exclude\": [");
    open_scope(true);
    cr_assert_eq(judge_name("sub/a.c"), RD_EXCLUDED_PROJECT);
    cr_assert(complained("nothing below is read"));
}

Test(scope, refuses_all_below_an_ignore_file_past_the_limits)
{
    rd_buf lines = { 0 };

    put("a.c", "");
    for (int i = 0; i < 3000; i++) rd_buf_format(&lines, "x%d\n", i);
    put(".gitignore", lines.data);
    open_scope(true);
    cr_assert_neq(judge_name("a.c"), RD_ALLOWED);
    for (int i = 0; i < 10000; i++) rd_buf_format(&lines, "#%d\n", i);
    put(".gitignore", lines.data);
    open_scope(true);
    cr_assert_neq(judge_name("a.c"), RD_ALLOWED);
    rd_buf_clear(&lines);
}

static rd_file_settings settings_of(const char *name, const char *language)
{
    return rd_scope_settings(scope, in_home(name), language);
}

Test(scope, gives_a_file_its_languages_settings)
{
    set_user("{\"quality\": 0.25, \"languages\": {\"markdown\": false, \"C\": {\"quality\": 1, "
             "\"maxMs\": 20, \"debounceMs\": 7, \"minConfidence\": 0.5}}}");
    open_scope(true);
    cr_assert(!settings_of("a.md", "markdown").enabled);
    rd_file_settings c = settings_of("a.c", "c"), lua = settings_of("a.lua", "lua");

    cr_assert(c.enabled && c.quality > 0.9 && c.max_ms == 20 && c.debounce_ms == 7);
    cr_assert_float_eq(rd_file_confidence(&c, 0.9), 0.5, 1e-9);
    cr_assert(lua.enabled && lua.quality < 0.3 && lua.max_ms == 500);
    cr_assert_float_eq(rd_file_confidence(&lua, 0.9), 0.9, 1e-9);
    cr_assert(!rd_scope_settings(scope, "untitled:1", "markdown").enabled);
    cr_assert(!rd_scope_settings(scope, "file://x/1", "markdown").enabled);
}

Test(scope, lets_a_project_narrow)
{
    put("sub/.redraft.json", "{\"minConfidence\": 0.5, \"maxMs\": 100, \"debounceMs\": 200}");
    put("off/.redraft.json", "{\"enable\": false}");
    put("a.c", "");
    open_scope(true);
    rd_file_settings sub = settings_of("sub/a.c", "c"), outside = settings_of("a.c", "c");

    cr_assert(sub.enabled && sub.max_ms == 100 && sub.debounce_ms == 200);
    cr_assert_float_eq(rd_file_confidence(&sub, 0.2), 0.5, 1e-9);
    cr_assert(!settings_of("off/a.c", "c").enabled);
    cr_assert(outside.enabled && outside.max_ms == 500 && outside.debounce_ms == 75);
}

Test(scope, lets_a_project_keep_its_work_out_of_the_file_and_not_into_it)
{
    put("off/.redraft.json", "{\"cache\": false}");
    put("on/.redraft.json", "{\"cache\": true}");
    open_scope(true);
    cr_assert(settings_of("off/a.c", "c").uncached);
    cr_assert_not(settings_of("on/a.c", "c").uncached);
    set_user("{\"cache\": false}");
    cr_assert(settings_of("on/a.c", "c").uncached);
    cr_assert(rd_scope_settings(scope, "untitled:1", "c").uncached);
}

Test(scope, names_a_file_by_what_its_links_lead_to)
{
    char *uri = NULL;

    put("plain.c", "");
    cr_assert(!symlink("plain.c", in_home("link.c")));
    open_scope(true);
    cr_assert_str_eq(rd_scope_source(scope, in_home("link.c")), in_home("plain.c"));
    cr_assert(asprintf(&uri, "file://%s", in_home("plain.c")) > 0);
    cr_assert_str_eq(rd_scope_source(scope, uri), in_home("plain.c"));
    cr_assert_str_eq(rd_scope_source(scope, "untitled:1"), "untitled:1");
    free(uri);
}

Test(scope, lets_no_project_widen)
{
    put(".redraft.json",
        "{\"enable\": true, \"quality\": 0, \"minConfidence\": 0.01, \"maxMs\": 60000, "
        "\"debounceMs\": 0, \"exclude\": [\"!.env\", \"!a.c\"], \"draft\": true, "
        "\"languages\": {\"c\": true}, \"model\": \"/tmp/m\", \"backend\": \"x\", \"\\n\": 1}");
    put(".gitignore", "!.env\n!a.c\n");
    put(".env", "");
    put("a.c", "");
    set_user("{\"exclude\": [\"a.c\"], \"languages\": {\"c\": false}}");
    open_scope(true);
    rd_file_settings s = settings_of("b.lua", "lua");

    cr_assert_eq(judge_name(".env"), RD_EXCLUDED_SECRET);
    cr_assert_eq(judge_name("a.c"), RD_EXCLUDED_USER);
    cr_assert_not(settings_of("b.c", "c").enabled);
    cr_assert(s.enabled && s.quality > 0.49 && s.max_ms == 500 && s.debounce_ms == 75);
    cr_assert_float_eq(rd_file_confidence(&s, 0.3), 0.3, 1e-9, "not below the model's gate");
    cr_assert(complained(".redraft.json: model is the user's own"));
    set_user("{\"enable\": false, \"minConfidence\": 0.4}");
    s = settings_of("b.lua", "lua");
    cr_assert_not(s.enabled);
    cr_assert_float_eq(rd_file_confidence(&s, 0.3), 0.4, 1e-9);
}

Test(scope, bounds_what_a_hostile_project_costs)
{
    rd_buf json = { 0 }, name = { 0 };
    double before;

    rd_buf_text(&json, "{\"exclude\": [");
    for (int i = 0; i < 6000; i++) rd_buf_text(&json, "[],");
    rd_buf_text(&json, "0]}");
    for (int i = 0; i < 30; i++) {
        rd_buf_format(&name, "d%d/", i);
        rd_buf_text(&name, ".redraft.json");
        put(name.data, json.data);
        name.len -= strlen(".redraft.json");
    }
    rd_buf_text(&name, "a.c");
    open_scope(true);
    before = rd_now_ms();
    cr_assert_neq(judge_name(name.data), RD_ALLOWED, "not all was read");
    cr_assert_lt(rd_now_ms() - before, 1000);
    rd_buf_clear(&json);
    rd_buf_clear(&name);
}

Test(scope, looks_at_files_a_few_times_a_second_only)
{
    put("a.c", "");
    open_scope(true);
    double before = rd_now_ms();

    for (int i = 0; i < 10000; i++) cr_assert_eq(judge_name("a.c"), RD_ALLOWED);
    cr_assert_lt(rd_now_ms() - before, 1000);
}

Test(scope, remembers_more_files_than_it_has_room_for)
{
    char name[40];

    put(".gitignore", "*7.c\n");
    open_scope(true);
    for (int i = 0; i < 1000; i++) {
        snprintf(name, sizeof name, "f%d/%d.c", i % 50, i % 300);
        cr_assert_eq(judge_name(name), i % 10 == 7 ? RD_EXCLUDED_IGNORED : RD_ALLOWED, "%s", name);
    }
}
