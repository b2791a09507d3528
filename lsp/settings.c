/* settings.c - what is taken from an object of settings, the user's file and the environment.
 *
 * A value is read by its row of the table, narrowed where a project says it, and stored. A project's file comes from whoever wrote
 * the project, so the number of complaints and of entries has a limit.
 */
#include "lsp/settings.h"

#include "core/base/memory.h"
#include "core/format/file.h"
#include "lsp/limits.h"
#include "lsp/repair.h"
#include "lsp/settings_table.h"

#include <stdlib.h>
#include <string.h>

enum {
    MOST_TOLD = 200,     /* complaints to one peer */
    MOST_LANGUAGES = 200 /* with settings of their own */
};

/* Where values go, from whom they come, who hears what is wrong. */
typedef struct taker {
    rd_settings *client;
    rd_config *own; /* NULL: the user's own settings are not at stake */
    rd_source source;
    json_t *told;
    rd_buf *complaints;
} taker;

static void *place_of(const taker *t, const rd_setting *s)
{
    return s->is_own ? (char *)t->own + s->at : (char *)t->client + s->at;
}

/* Append `line` and `more` unless the line was said before, or too many were. Takes the line's bytes. */
static void complain(const taker *t, rd_buf *line, const char *more)
{
    if (json_object_size(t->told) < MOST_TOLD && !json_object_get(t->told, line->data)) {
        json_object_set_new(t->told, line->data, json_true());
        rd_buf_format(t->complaints, "%s%s\n", line->data, more);
    }
    rd_buf_clear(line);
}

/* "LABEL: VALUE is not EXPECTED; KEPT is kept". */
static void complain_of(const taker *t, const char *label, const json_t *value,
                        const char *expected, const char *kept)
{
    rd_buf line = { 0 }, more = { 0 };

    rd_buf_format(&line, "%s: ", label);
    rd_setting_write_json(&line, value);
    rd_buf_format(&line, " is not %s", expected);
    rd_buf_format(&more, "; %s is kept", kept);
    complain(t, &line, more.data);
    rd_buf_clear(&more);
}

/* The same of a setting; `kept` NULL: the value that it has. */
static void complain_setting(const taker *t, const char *label, const json_t *value,
                             const rd_setting *s, const char *kept)
{
    rd_buf expected = { 0 }, now = { 0 };

    rd_setting_write_expected(&expected, s);
    rd_setting_write_value(&now, s, place_of(t, s));
    complain_of(t, label, value, expected.data, kept ? kept : now.data);
    rd_buf_clear(&expected);
    rd_buf_clear(&now);
}

static void complain_name(const taker *t, const char *where, const char *name, const char *what)
{
    rd_buf line = { 0 };

    rd_buf_text(&line, where);
    rd_setting_write_text(&line, name);
    rd_buf_format(&line, " %s", what);
    complain(t, &line, "");
}

/* What a project says counts only where less is done for it. */
static bool narrows(const rd_setting *s, const rd_setting_value *v, const void *place)
{
    if (s->project == RD_NARROW_OFF) return !v->flag;
    double now = s->kind == RD_SETTING_COUNT ? *(const int *)place : *(const double *)place;

    return s->project == RD_NARROW_RAISE ? v->number > now : v->number < now;
}

/* Lists of patterns add up, so that no later source drops a rule by naming others. The right ones of a list with wrong
 * ones are taken, for the same reason; what is past the limits makes rd_rules_pattern exclude everything. */
static void take_patterns(const taker *t, const rd_setting *s, const json_t *list)
{
    json_t *all = t->client->exclude, *known = json_object(), *one;
    size_t i;

    if (!json_is_array(list)) complain_setting(t, s->name, list, s, NULL);
    json_array_foreach(all, i, one) json_object_set(known, json_string_value(one), one);
    json_array_foreach(list, i, one)
    {
        const char *pattern = rd_setting_text(one);

        if (!pattern)
            complain_of(t, s->name, one, "a pattern", "the rest");
        else if (!json_object_get(known, pattern) && json_array_size(all) <= RD_MOST_PATTERNS) {
            json_array_append(all, one);
            json_object_set(known, pattern, one);
        }
    }
    json_decref(known);
}

static void take_language_field(const taker *t, const char *language, const char *name,
                                const json_t *j, json_t *into)
{
    const rd_setting *s = rd_setting_find(name);
    rd_buf label = { 0 };
    rd_setting_value v;

    if (json_is_null(j)) return;
    rd_buf_format(&label, "languages.%s.", language);
    if (!s || !s->is_in_language) {
        complain_name(t, label.data, name, "is not a setting of a language");
    } else if (!rd_setting_read(s, j, &v)) {
        rd_buf_text(&label, name);
        complain_setting(t, label.data, j, s, "what was set before");
    } else {
        json_object_set(into, name, (json_t *)j);
    }
    rd_buf_clear(&label);
}

/* `true` and `false` are short for an object with `enable`; what earlier sources said about other fields stays. */
static void take_language(const taker *t, const char *language, const json_t *j)
{
    json_t *into = json_object_get(t->client->languages, language), *one;
    const char *name;

    if (json_is_null(j)) return;
    if (!rd_setting_is_name(language, "-_+#. "))
        return complain_name(t, "languages: ", language, "is not the name of a language");
    if (!json_is_boolean(j) && !json_is_object(j)) {
        rd_buf label = { 0 };

        rd_buf_format(&label, "languages.%s", language);
        complain_of(t, label.data, j, "true, false or an object", "what was set before");
        return rd_buf_clear(&label);
    }
    if (!into) {
        if (json_object_size(t->client->languages) >= MOST_LANGUAGES)
            return complain_name(t, "languages: ", language, "is one too many");
        into = json_object();
        json_object_set_new(t->client->languages, language, into);
    }
    if (json_is_boolean(j)) json_object_set(into, "enable", (json_t *)j);
    json_object_foreach((json_t *)j, name, one) take_language_field(t, language, name, one, into);
}

static void take_one(const taker *t, const rd_setting *s, const char *label, const json_t *j)
{
    const char *language;
    json_t *one;
    rd_setting_value v;

    if (s->kind == RD_SETTING_PATTERNS) return take_patterns(t, s, j);
    if (s->kind == RD_SETTING_LANGUAGES) {
        if (!json_is_object(j)) complain_setting(t, label, j, s, NULL);
        json_object_foreach((json_t *)j, language, one) take_language(t, language, one);
        return;
    }
    if (!rd_setting_read(s, j, &v)) return complain_setting(t, label, j, s, NULL);
    if (t->source == RD_FROM_PROJECT && !narrows(s, &v, place_of(t, s))) return;
    rd_setting_store(s, &v, place_of(t, s));
}

/* $XDG_CONFIG_HOME/redraft/config.json; "" where neither that nor a home is known. A relative one does not count. */
static void write_usual_file(rd_buf *out)
{
    const char *folder = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");

    rd_buf_text(out, "");
    if (folder && *folder == '/')
        rd_buf_format(out, "%s/redraft/config.json", folder);
    else if (home && *home == '/')
        rd_buf_format(out, "%s/.config/redraft/config.json", home);
}

static void refuse_own(const taker *t, const rd_setting *s)
{
    rd_buf line = { 0 }, file = { 0 };

    write_usual_file(&file);
    rd_buf_format(&line, "%s is the user's own: set it in %s", s->name,
                  file.len ? file.data : "redraft's config.json");
    complain(t, &line, "");
    rd_buf_clear(&file);
}

static void take_all(const taker *t, const json_t *object)
{
    const char *name;
    json_t *one;

    if (json_is_null(object) || (json_is_array(object) && json_array_size(object) == 0)) return;
    if (!json_is_object(object)) complain_of(t, "settings", object, "an object", "what was set");
    json_object_foreach((json_t *)object, name, one)
    {
        const rd_setting *s = rd_setting_find(name);

        if (!s) {
            complain_name(t, "", name, "is not a setting");
            continue;
        }
        if (json_is_null(one)) continue;
        if (s->is_own && t->source != RD_FROM_USER)
            refuse_own(t, s);
        else if (t->source == RD_FROM_PROJECT && s->project == RD_NARROW_NEVER)
            complain_name(t, "", name, "is not a project's to set: a project only narrows");
        else if (!s->is_own || t->own)
            take_one(t, s, s->name, one);
    }
}

/* ---- the user's file and the environment ---- */

static void complain_error(const taker *t, const char *path, const rd_error *err)
{
    rd_buf line = { 0 };

    if (strstr(err->text, path))
        rd_buf_text(&line, err->text);
    else
        rd_buf_format(&line, "%s: %s", path, err->text);
    complain(t, &line, "");
}

static void take_file(const taker *t, const char *path)
{
    json_t *json = NULL;
    rd_buf bytes = { 0 };
    rd_error err;
    rd_status s = rd_file_read(path, RD_MOST_SETTINGS_BYTES, &bytes, &err);

    if (!s) s = rd_repair_parse(bytes.data, bytes.len, RD_UTF8, &json, &err);
    if (s && s != RD_NOT_FOUND) complain_error(t, path, &err);
    if (!s) take_all(t, json);
    json_decref(json);
    rd_buf_clear(&bytes);
}

/* An empty variable is one that is not set. */
static void take_environment(const taker *t)
{
    for (size_t i = 0; i < rd_settings_count; i++) {
        const char *text =
            rd_settings_table[i].environment ? getenv(rd_settings_table[i].environment) : NULL;

        if (!text || !*text) continue;
        json_t *j = json_stringn_nocheck(text, strlen(text));

        take_one(t, &rd_settings_table[i], rd_settings_table[i].environment, j);
        json_decref(j);
    }
}

rd_config *rd_config_new(const char *path, rd_buf *complaints)
{
    rd_config *c = rd_alloc0(sizeof *c);
    taker t = { &c->client, c, RD_FROM_USER, json_object(), complaints };
    rd_buf usual = { 0 };

    rd_config_init(c);
    write_usual_file(&usual);
    if (!path) path = usual.data;
    if (*path) take_file(&t, path);
    take_environment(&t);
    rd_buf_clear(&usual);
    json_decref(t.told);
    return c;
}

void rd_config_free(rd_config *c)
{
    if (!c) return;
    rd_config_clear(c);
    free(c);
}

/* ---- a client's ---- */

void rd_settings_init(rd_settings *s, const rd_settings *from)
{
    *s = *from;
    s->exclude = from->exclude ? json_deep_copy(from->exclude) : json_array();
    s->languages = from->languages ? json_deep_copy(from->languages) : json_object();
}

void rd_settings_clear(rd_settings *s)
{
    json_decref(s->exclude);
    json_decref(s->languages);
    s->exclude = s->languages = NULL;
}

void rd_settings_merge(rd_settings *s, rd_source source, const json_t *value, json_t *told,
                       rd_buf *complaints)
{
    taker t = { s, NULL, source, told ? json_incref(told) : json_object(), complaints };

    if (value) take_all(&t, value);
    json_decref(t.told);
}
