/* settings_page.c - the table as a page for people: docs/config.md. */
#include "lsp/settings_table.h"

static const char page_head[] =
    "# Settings\n"
    "\n"
    "Nothing has to be set. All settings are one JSON object with the names below. Later wins: "
    "the\n"
    "default, the user's file (`$XDG_CONFIG_HOME/redraft/config.json`, else\n"
    "`~/.config/redraft/config.json`), the environment, the command line; then, for each editor,\n"
    "`initializationOptions` and the section `redraft` of its settings. A wrong value is said once "
    "and\n"
    "the one before is kept; `null` is the same as not set.\n"
    "\n"
    "A project may have a `.redraft.json` in its folder or in those below. It holds for the files "
    "below\n"
    "it and only narrows: the column *project* says how. One that cannot be read excludes all "
    "below it.\n"
    "\n"
    "| setting | value | default | project | |\n"
    "| --- | --- | --- | --- | --- |\n";

static const char page_own[] = "\n"
                               "## The user's own\n"
                               "\n"
                               "What loads code, reads weights or writes files. Only the user's "
                               "file, the environment and the\n"
                               "command line set these; an editor or a project that does is told "
                               "so. Paths are absolute or begin\n"
                               "with `~/`.\n"
                               "\n"
                               "| setting | value | default | environment | |\n"
                               "| --- | --- | --- | --- | --- |\n";

static const char *default_of(const rd_setting *s, const rd_config *c, rd_buf *text)
{
    const char *place = s->is_own ? (const char *)c + s->at : (const char *)&c->client + s->at;

    if (s->kind == RD_SETTING_PATTERNS) return "`[]`";
    if (s->kind == RD_SETTING_LANGUAGES) return "`{}`";
    if (s->kind == RD_SETTING_WORD) return "the best";
    if (s->kind == RD_SETTING_PATH)
        return s->at == offsetof(rd_config, model)        ? "built in"
               : s->at == offsetof(rd_config, plugin_dir) ? "none"
                                                          : "the usual place";
    rd_setting_write_value(text, s, place);
    return text->data;
}

static void write_row(rd_buf *out, const rd_setting *s, const rd_config *c)
{
    static const char *const projects[] = { "", "switch off", "raise", "lower", "add" };
    rd_buf expected = { 0 }, standard = { 0 };

    rd_setting_write_expected(&expected, s);
    rd_buf_format(out, "| `%s` | %s | %s | ", s->name, expected.data, default_of(s, c, &standard));
    if (s->environment)
        rd_buf_format(out, "`%s`", s->environment);
    else
        rd_buf_text(out, projects[s->project]);
    rd_buf_format(out, " | %s |\n", s->help);
    rd_buf_clear(&expected);
    rd_buf_clear(&standard);
}

void rd_settings_page(rd_buf *out)
{
    rd_config c;

    rd_config_init(&c);
    rd_buf_text(out, page_head);
    for (size_t i = 0; i < rd_settings_count; i++) {
        const rd_setting *s = &rd_settings_table[i];

        if (s->is_own && !s[-1].is_own) rd_buf_text(out, page_own);
        write_row(out, s, &c);
    }
    rd_config_clear(&c);
}
