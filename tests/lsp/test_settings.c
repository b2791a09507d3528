/* test_settings.c - who may set what, and what is said about the rest. */
#include "lsp/settings.h"

#include "core/base/clock.h"
#include "core/format/file.h"
#include "files.h"

static rd_buf said;

static void begin(void)
{
    static const char *const names[] = { "REDRAFT_MODEL", "REDRAFT_BACKEND", "REDRAFT_CACHE_DIR",
                                         "REDRAFT_LOG", "REDRAFT_PLUGINS" };

    make_home();
    setenv("XDG_CONFIG_HOME", home, 1);
    setenv("HOME", home, 1);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) unsetenv(names[i]);
    rd_buf_text(&said, "");
}

static void end(void)
{
    rd_buf_clear(&said);
    remove_home();
}

TestSuite(settings, .init = begin, .fini = end);

static rd_config *config_with(const char *json)
{
    put("redraft/config.json", json);
    return rd_config_new(NULL, &said);
}

/* What a client or a project says over the defaults; `told` may be NULL. */
static rd_settings merged(rd_source source, const char *json, json_t *told)
{
    rd_config *c = rd_config_new("/nowhere", &said);
    json_t *value = json_loads(json, JSON_DECODE_ANY, NULL);
    rd_settings s;

    cr_assert(value);
    rd_settings_init(&s, &c->client);
    rd_settings_merge(&s, source, value, told, &said);
    json_decref(value);
    rd_config_free(c);
    return s;
}

static bool is_json(const json_t *j, const char *text)
{
    json_t *want = json_loads(text, 0, NULL);
    bool same = json_equal(j, want);

    json_decref(want);
    return same;
}

Test(settings, have_defaults_without_any_file)
{
    rd_config *c = rd_config_new(NULL, &said);

    cr_assert(c->client.enable && !c->client.subtle && !c->client.draft);
    cr_assert_float_eq(c->client.quality, 0.5, 1e-9);
    cr_assert(c->client.min_confidence < 0);
    cr_assert_eq(c->client.max_ms, 500);
    cr_assert_eq(c->client.debounce_ms, 75);
    cr_assert_eq(c->idle_unload_s, 600);
    cr_assert_eq(c->idle_exit_s, 1800);
    cr_assert(!c->model && !c->backend && !c->cache_dir && c->threads == 0);
    cr_assert(!c->plugin_dir && !c->backend_fallback);
    cr_assert_str_eq(c->log, "info");
    cr_assert_str_eq(said.data, "");
    rd_config_free(c);
}

Test(settings, come_from_the_users_file_and_then_from_the_environment)
{
    setenv("REDRAFT_MODEL", "/models/b", 1);
    setenv("REDRAFT_BACKEND", "", 1);
    rd_config *c =
        config_with("{\"model\": \"/models/a\", \"backend\": \"cuda\", \"threads\": 2.0, "
                    "\"cacheDir\": \"~/cache\", \"pluginDir\": \"~/plugins\", \"backendFallback\": "
                    "true, \"log\": \"debug\", \"quality\": 1, "
                    "\"mode\": \"subtle\", \"enable\": null, \"idleExitSeconds\": 5}");

    cr_assert_str_eq(c->model, "/models/b");
    cr_assert_str_eq(c->backend, "cuda");
    cr_assert_str_eq(c->cache_dir, in_home("cache"));
    cr_assert_str_eq(c->plugin_dir, in_home("plugins"));
    cr_assert(c->backend_fallback);
    cr_assert_str_eq(c->log, "debug");
    cr_assert_eq(c->threads, 2);
    cr_assert_eq(c->idle_exit_s, 5);
    cr_assert_float_eq(c->client.quality, 1, 1e-9);
    cr_assert(c->client.subtle && c->client.enable);
    cr_assert_str_eq(said.data, "");
    rd_config_free(c);
}

Test(settings, lie_in_the_home_where_no_config_folder_is_named)
{
    put(".config/redraft/config.json", "{\"threads\": 3}");
    setenv("XDG_CONFIG_HOME", "relative", 1);
    rd_config *c = rd_config_new(NULL, &said);

    cr_assert_eq(c->threads, 3);
    rd_config_free(c);
}

typedef struct wrong {
    const char *json, *line;
} wrong;

Test(settings, keep_what_was_before_a_wrong_value_and_say_so)
{
    static const wrong cases[] = {
        { "{\"quality\": 7}", "quality: 7 is not a number from 0 to 1; 0.5 is kept\n" },
        { "{\"quality\": -0.1}", "quality: -0.1 is not a number from 0 to 1; 0.5 is kept\n" },
        { "{\"quality\": \"1\"}", "quality: \"1\" is not a number from 0 to 1; 0.5 is kept\n" },
        { "{\"minConfidence\": 2}",
          "minConfidence: 2 is not a number from 0 to 1; the model's own is kept\n" },
        { "{\"enable\": 1}", "enable: 1 is not true or false; true is kept\n" },
        { "{\"mode\": \"loud\"}", "mode: \"loud\" is not eager or subtle; eager is kept\n" },
        { "{\"mode\": [[]]}", "mode: a list is not eager or subtle; eager is kept\n" },
        { "{\"maxMs\": 1.5}", "maxMs: 1.5 is not a whole number from 10 to 60000; 500 is kept\n" },
        { "{\"maxMs\": 0}", "maxMs: 0 is not a whole number from 10 to 60000; 500 is kept\n" },
        { "{\"debounceMs\": 1e300}",
          "debounceMs: 1e300 is not a whole number from 0 to 5000; 75 is kept\n" },
        { "{\"debounceMs\": {\"a\": 1}}",
          "debounceMs: an object is not a whole number from 0 to 5000; 75 is kept\n" },
        { "{\"exclude\": \"*.c\"}",
          "exclude: \"*.c\" is not a list of patterns; the list before is kept\n" },
        { "{\"exclude\": [1]}", "exclude: 1 is not a pattern; the rest is kept\n" },
        { "{\"languages\": [1]}",
          "languages: a list is not an object of languages; what was set before is kept\n" },
        { "{\"languages\": {\"c\": 1}}",
          "languages.c: 1 is not true, false or an object; what was set before is kept\n" },
        { "{\"languages\": {\"c\": {\"maxMs\": 1}}}",
          "languages.c.maxMs: 1 is not a whole number from 10 to 60000; what was set before is "
          "kept\n" },
        { "{\"languages\": {\"c\": {\"draft\": true}}}",
          "languages.c.\"draft\" is not a setting of a language\n" },
        { "{\"languages\": {\"c\\u001b[0m\": true}}",
          "languages: \"c\\u001B[0m\" is not the name of a language\n" },
        { "{\"qualty\": 1}", "\"qualty\" is not a setting\n" },
        { "{\"\\u202e\\u0007\": 1}", "\"\\u202E\\u0007\" is not a setting\n" },
        { "5", "settings: 5 is not an object; what was set is kept\n" },
        { "{\"quality\": null, \"model\": null}", "" },
        { "null", "" },
        { "[]", "" },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rd_settings s = merged(RD_FROM_CLIENT, cases[i].json, NULL);

        cr_assert_str_eq(said.data, cases[i].line);
        cr_assert(s.enable && !s.subtle && s.max_ms == 500 && s.debounce_ms == 75);
        cr_assert(s.quality > 0.49 && s.quality < 0.51 && s.min_confidence < 0);
        cr_assert(json_array_size(s.exclude) == 0);
        rd_settings_clear(&s);
        rd_buf_reset(&said);
        rd_buf_text(&said, "");
    }
}

Test(settings, keep_the_users_own_out_of_other_hands)
{
    static const char *const names[] = { "pluginDir", "backendFallback",   "model",
                                         "backend",   "threads",           "cacheDir",
                                         "log",       "idleUnloadSeconds", "idleExitSeconds" };
    char json[80], line[200];

    for (size_t i = 0; i < 2 * sizeof names / sizeof *names; i++) {
        const char *name = names[i / 2];

        snprintf(json, sizeof json, "{\"%s\": 5}", name);
        snprintf(line, sizeof line, "%s is the user's own: set it in %s/redraft/config.json\n",
                 name, home);
        rd_settings s = merged(i % 2 ? RD_FROM_CLIENT : RD_FROM_PROJECT, json, NULL);

        cr_assert_str_eq(said.data, line);
        rd_settings_clear(&s);
        rd_buf_reset(&said);
    }
}

Test(settings, take_no_relative_path_and_no_path_for_a_name)
{
    setenv("REDRAFT_CACHE_DIR", "cache", 1);
    setenv("REDRAFT_PLUGINS", "./plugins", 1);
    rd_config *c = config_with("{\"model\": \"../model\", \"backend\": \"../cuda.so\", "
                               "\"log\": \"/var/log/x\"}");

    cr_assert(!c->model && !c->backend && !c->cache_dir);
    cr_assert_str_eq(c->log, "info");
    cr_assert(strstr(said.data, "model: \"../model\" is not an absolute path"));
    cr_assert(strstr(said.data, "REDRAFT_CACHE_DIR: \"cache\" is not an absolute path"));
    cr_assert(!c->plugin_dir &&
              strstr(said.data, "REDRAFT_PLUGINS: \"./plugins\" is not an absolute"));
    cr_assert(strstr(said.data, "backend: \"../cuda.so\" is not a name"));
    cr_assert(strstr(said.data, "log: \"/var/log/x\" is not error, warn, info or debug"));
    rd_config_free(c);
}

Test(settings, are_complained_of_once_by_name_and_value)
{
    json_t *told = json_object();
    rd_settings a = merged(RD_FROM_CLIENT, "{\"quality\": 7, \"x\": 1}", told);
    size_t first = said.len;
    rd_settings b = merged(RD_FROM_CLIENT, "{\"quality\": 7, \"x\": 2, \"maxMs\": 20}", told);

    cr_assert_eq(said.len, first);
    rd_settings c = merged(RD_FROM_CLIENT, "{\"quality\": 8}", told);

    cr_assert_gt(said.len, first);
    rd_settings_clear(&a);
    rd_settings_clear(&b);
    rd_settings_clear(&c);
    json_decref(told);
}

Test(settings, add_patterns_and_merge_languages)
{
    rd_config *c = config_with("{\"exclude\": [\"a\", \"b\"], \"languages\": {\"c\": false, "
                               "\"c++\": {\"quality\": 1, \"enable\": false}}}");
    rd_settings s;
    json_t *value = json_loads("{\"exclude\": [\"b\", 1, \"!a\"], \"languages\": {\"c\": "
                               "{\"quality\": 0}, \"c++\": true, \"lua\": null}}",
                               0, NULL);

    rd_settings_init(&s, &c->client);
    for (int i = 0; i < 2; i++) rd_settings_merge(&s, RD_FROM_CLIENT, value, NULL, &said);
    cr_assert(is_json(s.exclude, "[\"a\", \"b\", \"!a\"]"));
    cr_assert(is_json(s.languages, "{\"c\": {\"enable\": false, \"quality\": 0}, "
                                   "\"c++\": {\"enable\": true, \"quality\": 1}}"));
    cr_assert(is_json(c->client.exclude, "[\"a\", \"b\"]"), "the user's are untouched");
    json_decref(value);
    rd_settings_clear(&s);
    rd_config_free(c);
}

Test(settings, of_a_project_only_narrow)
{
    rd_settings s = merged(RD_FROM_PROJECT,
                           "{\"enable\": true, \"quality\": 0.1, \"maxMs\": 60000, "
                           "\"debounceMs\": 0, \"mode\": \"subtle\", \"languages\": {\"c\": true}, "
                           "\"draft\": true, \"exclude\": [\"x\"]}",
                           NULL);

    cr_assert(s.enable && !s.subtle && !s.draft && s.max_ms == 500 && s.debounce_ms == 75);
    cr_assert_float_eq(s.quality, 0.5, 1e-9);
    cr_assert(is_json(s.exclude, "[\"x\"]") && is_json(s.languages, "{}"));
    cr_assert(strstr(said.data, "\"quality\" is not a project's to set"));
    cr_assert(strstr(said.data, "\"languages\" is not a project's to set"));
    cr_assert(!strstr(said.data, "maxMs"));
    rd_settings_clear(&s);

    s = merged(RD_FROM_PROJECT,
               "{\"enable\": false, \"maxMs\": 100, \"debounceMs\": 100, "
               "\"cache\": false}",
               NULL);
    cr_assert(!s.enable && !s.cache && s.max_ms == 100 && s.debounce_ms == 100);
    rd_settings_clear(&s);
}

Test(settings, survive_a_file_that_is_none, .timeout = 10)
{
    static const char *const files[] = { "",  "{",       "[1]",           "{\"quality\": 1,}",
                                         "x", "{}{}",    "{\"a\":\"\xff", "{\"quality\": 1e999}",
                                         "0", "\"text\"" };

    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        rd_config *c = config_with(files[i]);

        cr_assert_gt(said.len, 0, "%s", files[i]);
        cr_assert_float_eq(c->client.quality, 0.5, 1e-9);
        rd_config_free(c);
        rd_buf_reset(&said);
    }
    cr_assert(!remove(in_home("redraft/config.json")));
    cr_assert(!mkfifo(in_home("redraft/config.json"), 0600));
    rd_config *c = rd_config_new(NULL, &said);

    cr_assert(strstr(said.data, "not a regular file"));
    rd_config_free(c);
}

Test(settings, bound_what_a_hostile_object_costs, .timeout = 10)
{
    rd_buf json = { 0 };
    double before = rd_now_ms();

    for (int i = 0; i < 100; i++) rd_buf_text(&json, "{\"a\":");
    rd_config *c = config_with(json.data);

    cr_assert(strstr(said.data, "config.json"));
    rd_config_free(c);

    rd_buf_reset(&json);
    for (int i = 0; i < 70000; i++) rd_buf_text(&json, " ");
    c = config_with(json.data);
    cr_assert(strstr(said.data, "larger than the limit"));
    rd_config_free(c);

    rd_buf_reset(&json);
    rd_buf_reset(&said);
    rd_buf_text(&json, "{\"exclude\":[");
    for (int i = 0; i < 50000; i++) rd_buf_format(&json, "\"p%d\",", i);
    rd_buf_text(&json, "1],\"languages\":{");
    for (int i = 0; i < 50000; i++) rd_buf_format(&json, "\"l%d\":true,", i);
    rd_buf_text(&json, "\"z\":1}");
    for (int i = 0; i < 50000; i++) rd_buf_format(&json, ",\"k%d\":%d", i, i);
    rd_buf_text(&json, "}");
    rd_settings s = merged(RD_FROM_CLIENT, json.data, NULL);

    cr_assert_leq(json_array_size(s.exclude), 2001);
    cr_assert_leq(json_object_size(s.languages), 200);
    cr_assert_lt(said.len, 200 * 120);
    cr_assert_lt(rd_now_ms() - before, 5000);
    rd_settings_clear(&s);
    rd_buf_clear(&json);
}

Test(settings, have_the_page_that_is_committed)
{
    rd_buf page = { 0 }, file = { 0 };
    rd_error err;

    rd_settings_page(&page);
    cr_assert(!rd_file_read(RD_SOURCE_DIR "/docs/config.md", 1 << 20, &file, &err), "%s", err.text);
    cr_assert_str_eq(file.data, page.data, "docs/config.md should be:\n%s", page.data);
    rd_buf_clear(&page);
    rd_buf_clear(&file);
}
