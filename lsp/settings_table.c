/* settings_table.c - the rows, and what one value looks like as JSON, in memory and as text. */
#include "lsp/settings_table.h"

#include "core/base/memory.h"
#include "lsp/limits.h"
#include "lsp/repair.h"

#include <stdlib.h>
#include <string.h>

enum { QUOTED_BYTES = 40 }; /* of a wrong value in a complaint */

static const char *const modes[] = { "eager", "subtle", NULL };
static const char *const formats[] = { "raw", "bf16", "int8", NULL };
static const char *const levels[] = { "error", "warn", "info", "debug", NULL };

#define CLIENT(field) .at = offsetof(rd_settings, field)
#define OWN(field)    .is_own = true, .at = offsetof(rd_config, field)

/* maxMs has no "no limit": a project lowers it, and 0 would be the lowest. A week without use is as good as never. */
const rd_setting rd_settings_table[] = {
    { "enable", RD_SETTING_FLAG, CLIENT(enable), .project = RD_NARROW_OFF, .is_in_language = true,
      .help = "suggest, rewrite and score at all" },
    { "mode", RD_SETTING_MODE, CLIENT(subtle), .words = modes,
      .help = "`subtle`: no ghost text while a completion menu is open" },
    { "quality", RD_SETTING_SHARE, CLIENT(quality), .is_in_language = true,
      .help = "the dial from speed (0) to quality (1)" },
    { "minConfidence", RD_SETTING_SHARE, CLIENT(min_confidence), .project = RD_NARROW_RAISE,
      .is_in_language = true, .help = "suggestions below it are not shown unasked; 0 shows all" },
    { "maxMs", RD_SETTING_COUNT, CLIENT(max_ms), .project = RD_NARROW_LOWER, .is_in_language = true,
      .least = 10, .most = 60000,
      .help = "milliseconds for an automatic suggestion; then the best so far" },
    { "debounceMs", RD_SETTING_COUNT, CLIENT(debounce_ms), .project = RD_NARROW_RAISE,
      .is_in_language = true, .most = 5000,
      .help = "milliseconds without a keystroke before the model is asked" },
    { "exclude", RD_SETTING_PATTERNS, CLIENT(exclude), .project = RD_NARROW_ADD,
      .help = "files that are never read, quoted or asked about, as in `.gitignore`; lists add up, "
              "and `!` takes back" },
    { "languages", RD_SETTING_LANGUAGES, CLIENT(languages),
      .help = "a language to `true`, `false`, or an object of `enable`, `quality`, "
              "`minConfidence`, `maxMs`, `debounceMs`" },
    { "diagnostics", RD_SETTING_FLAG, CLIENT(diagnostics), .help = "mark doubtful tokens" },
    { "completion", RD_SETTING_FLAG, CLIENT(completion),
      .help = "suggest in the completion menu as well" },
    { "draft", RD_SETTING_FLAG, CLIENT(draft), .help = "send drafts while they are made" },
    { "cache", RD_SETTING_FLAG, CLIENT(cache), .project = RD_NARROW_OFF,
      .help = "keep finished work in a file, for later and for other editors (`privacy.md`)" },
    { "model", RD_SETTING_PATH, OWN(model), .environment = "REDRAFT_MODEL",
      .help = "the model's folder" },
    { "backend", RD_SETTING_WORD, OWN(backend), .environment = "REDRAFT_BACKEND",
      .help = "what computes: `cpu`, `cuda`, ...; the best is `cuda` where there is a GPU with "
              "room for the model, else `cpu`" },
    { "backendFallback", RD_SETTING_FLAG, OWN(backend_fallback),
      .help = "the CPU also for a `backend` that was named, where it is not there, has no room or "
              "fails" },
    { "pluginDir", RD_SETTING_PATH, OWN(plugin_dir), .environment = "REDRAFT_PLUGINS",
      .help = "a folder in which backends are looked for first (`plugins.md`)" },
    { "threads", RD_SETTING_COUNT, OWN(threads), .most = 1024, .help = "0: as many as cores" },
    { "cacheDir", RD_SETTING_PATH, OWN(cache_dir), .environment = "REDRAFT_CACHE_DIR",
      .help = "where finished work is kept" },
    { "cacheMegabytes", RD_SETTING_COUNT, OWN(cache_mb), .most = 1 << 20,
      .help = "of that file at most; 0: there is none" },
    { "cacheDays", RD_SETTING_COUNT, OWN(cache_days), .most = 36500,
      .help = "what was not used for so long goes; 0: whatever its age" },
    { "cacheFormat", RD_SETTING_LEVEL, OWN(cache_format), .words = formats,
      .help = "keys and values as they are, in half, or in a quarter of the room with some loss" },
    { "cacheAnyPlace", RD_SETTING_FLAG, OWN(cache_any_place),
      .help = "also on a network file system" },
    { "poolMegabytes", RD_SETTING_COUNT, OWN(pool_mb), .most = 1 << 20,
      .help = "of finished work in memory; 0: a usual amount" },
    { "log", RD_SETTING_LEVEL, OWN(log), .words = levels, .environment = "REDRAFT_LOG",
      .help = "how much is logged; the text of documents at `debug` only" },
    { "idleUnloadSeconds", RD_SETTING_COUNT, OWN(idle_unload_s), .least = 1, .most = 604800,
      .help = "without an editor for so long, the model's memory is given back" },
    { "idleExitSeconds", RD_SETTING_COUNT, OWN(idle_exit_s), .least = 1, .most = 604800,
      .help = "without an editor for so long, the daemon ends" },
};

const size_t rd_settings_count = sizeof rd_settings_table / sizeof *rd_settings_table;

const rd_setting *rd_setting_find(const char *name)
{
    for (size_t i = 0; i < rd_settings_count; i++)
        if (!strcmp(rd_settings_table[i].name, name)) return &rd_settings_table[i];
    return NULL;
}

/* Half a second is what one still waits for at a pause, 75 ms is shorter than most gaps between words and longer than those
 * inside one. Loading the built-in model takes less than a second, so ten minutes without an editor give it back. */
void rd_config_init(rd_config *c)
{
    *c = (rd_config){ .client = { .enable = true,
                                  .quality = 0.5,
                                  .min_confidence = -1,
                                  .max_ms = 500,
                                  .debounce_ms = 75,
                                  .cache = true },
                      .cache_mb = 2048,
                      .cache_days = 30,
                      .idle_unload_s = 600,
                      .idle_exit_s = 1800 };
    c->client.exclude = json_array();
    c->client.languages = json_object();
    c->log = rd_copy_text("info", 4);
    c->cache_format = rd_copy_text("raw", 3);
}

const char *rd_setting_text(const json_t *j)
{
    const char *text = json_string_value(j);

    return text && strlen(text) == json_string_length(j) ? text : NULL;
}

bool rd_setting_is_name(const char *text, const char *also)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    size_t n = 0;

    while (text[n] && (strchr(letters, text[n]) || strchr(also, text[n]))) n++;
    return n > 0 && n <= RD_MOST_NAME_BYTES && text[n] == 0;
}

/* "/..." or "~/..." */
static bool is_path(const char *text)
{
    const char *home = text[0] == '~' && text[1] == '/' ? getenv("HOME") : NULL;

    return (*text == '/' || (home && *home == '/')) && strlen(text) < RD_MOST_PATH_BYTES;
}

bool rd_setting_read(const rd_setting *s, const json_t *j, rd_setting_value *out)
{
    out->text = rd_setting_text(j);
    out->number = json_number_value(j);
    out->flag = json_is_true(j);
    switch (s->kind) {
    case RD_SETTING_FLAG: return json_is_boolean(j);
    case RD_SETTING_SHARE: return json_is_number(j) && out->number >= 0 && out->number <= 1;
    case RD_SETTING_COUNT:
        return json_is_number(j) && out->number >= s->least && out->number <= s->most &&
               out->number == (int)out->number;
    case RD_SETTING_MODE:
    case RD_SETTING_LEVEL:
        for (size_t i = 0; out->text && s->words[i]; i++)
            if (!strcmp(out->text, s->words[i])) {
                out->flag = i > 0;
                return true;
            }
        return false;
    case RD_SETTING_WORD: return out->text && rd_setting_is_name(out->text, "-_");
    case RD_SETTING_PATH: return out->text && is_path(out->text);
    case RD_SETTING_PATTERNS:
    case RD_SETTING_LANGUAGES: break;
    }
    return false;
}

static void store_text(const char *text, char **place)
{
    const char *home = *text == '~' ? getenv("HOME") : NULL;
    rd_buf whole = { 0 };

    if (home) rd_buf_text(&whole, home);
    rd_buf_text(&whole, home ? text + 1 : text);
    free(*place);
    *place = whole.data;
}

void rd_setting_store(const rd_setting *s, const rd_setting_value *v, void *place)
{
    switch (s->kind) {
    case RD_SETTING_FLAG:
    case RD_SETTING_MODE: *(bool *)place = v->flag; return;
    case RD_SETTING_SHARE: *(double *)place = v->number; return;
    case RD_SETTING_COUNT: *(int *)place = (int)v->number; return;
    case RD_SETTING_LEVEL:
    case RD_SETTING_WORD:
    case RD_SETTING_PATH: store_text(v->text, place); return;
    case RD_SETTING_PATTERNS:
    case RD_SETTING_LANGUAGES: return;
    }
}

void rd_setting_write_text(rd_buf *out, const char *text)
{
    size_t n = strlen(text), kept = n > QUOTED_BYTES ? QUOTED_BYTES : n;

    while (kept < n && kept > 0 && ((unsigned char)text[kept] & 0xc0) == 0x80) kept--;
    json_t *s = rd_repair_string(text, kept);
    char *quoted = json_dumps(s, JSON_ENCODE_ANY | JSON_ENSURE_ASCII);

    rd_buf_text(out, quoted);
    if (kept < n) rd_buf_text(out, "...");
    free(quoted);
    json_decref(s);
}

void rd_setting_write_json(rd_buf *out, const json_t *value)
{
    if (json_is_object(value)) return rd_buf_text(out, "an object");
    if (json_is_array(value)) return rd_buf_text(out, "a list");
    if (json_is_string(value)) return rd_setting_write_text(out, json_string_value(value));
    char *plain = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));

    rd_buf_text(out, plain);
    free(plain);
}

void rd_setting_write_expected(rd_buf *out, const rd_setting *s)
{
    switch (s->kind) {
    case RD_SETTING_FLAG: return rd_buf_text(out, "true or false");
    case RD_SETTING_SHARE: return rd_buf_text(out, "a number from 0 to 1");
    case RD_SETTING_COUNT:
        return rd_buf_format(out, "a whole number from %d to %d", s->least, s->most);
    case RD_SETTING_WORD: return rd_buf_text(out, "a name of letters, digits, - and _");
    case RD_SETTING_PATH: return rd_buf_text(out, "an absolute path");
    case RD_SETTING_PATTERNS: return rd_buf_text(out, "a list of patterns");
    case RD_SETTING_LANGUAGES: return rd_buf_text(out, "an object of languages");
    case RD_SETTING_MODE:
    case RD_SETTING_LEVEL: break;
    }
    for (size_t i = 0; s->words[i]; i++)
        rd_buf_format(out, "%s%s", i == 0 ? "" : s->words[i + 1] ? ", " : " or ", s->words[i]);
}

static void write_own_text(rd_buf *out, const char *text)
{
    if (text)
        rd_setting_write_text(out, text);
    else
        rd_buf_text(out, "the usual one");
}

void rd_setting_write_value(rd_buf *out, const rd_setting *s, const void *place)
{
    double number;

    switch (s->kind) {
    case RD_SETTING_FLAG: return rd_buf_text(out, *(const bool *)place ? "true" : "false");
    case RD_SETTING_COUNT: return rd_buf_format(out, "%d", *(const int *)place);
    case RD_SETTING_MODE: return rd_buf_text(out, s->words[*(const bool *)place]);
    case RD_SETTING_LEVEL: return rd_buf_text(out, *(char *const *)place);
    case RD_SETTING_WORD:
    case RD_SETTING_PATH: return write_own_text(out, *(char *const *)place);
    case RD_SETTING_PATTERNS: return rd_buf_text(out, "the list before");
    case RD_SETTING_LANGUAGES: return rd_buf_text(out, "what was set before");
    case RD_SETTING_SHARE: break;
    }
    number = *(const double *)place;
    if (number < 0)
        rd_buf_text(out, "the model's own");
    else
        rd_buf_format(out, "%g", number);
}

void rd_config_clear(rd_config *c)
{
    rd_settings_clear(&c->client);
    free(c->model);
    free(c->backend);
    free(c->cache_dir);
    free(c->plugin_dir);
    free(c->cache_format);
    free(c->log);
}
