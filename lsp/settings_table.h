/* settings_table.h - the table of settings and their single values, for settings.c and settings_page.c alone.
 *
 * A row says what a setting is, where its value lies and who may set it. Lists and objects (`exclude`, `languages`) have a row
 * like the others, but are read and merged by settings.c.
 */
#ifndef RD_LSP_SETTINGS_TABLE_H
#define RD_LSP_SETTINGS_TABLE_H

#include "lsp/settings.h"

enum { RD_MOST_NAME_BYTES = 64 }; /* of a language or a backend */

typedef enum rd_setting_kind {
    RD_SETTING_FLAG,  /* bool */
    RD_SETTING_SHARE, /* double, 0 to 1 */
    RD_SETTING_COUNT, /* int */
    RD_SETTING_MODE,  /* bool: the second of two words */
    RD_SETTING_LEVEL, /* char *, one of some words */
    RD_SETTING_WORD,  /* char *, a name; NULL: none, as in the next */
    RD_SETTING_PATH,  /* char * */
    RD_SETTING_PATTERNS,
    RD_SETTING_LANGUAGES
} rd_setting_kind;

/* How a project may change a setting: never, or only so. */
typedef enum rd_narrowing {
    RD_NARROW_NEVER,
    RD_NARROW_OFF,
    RD_NARROW_RAISE,
    RD_NARROW_LOWER,
    RD_NARROW_ADD
} rd_narrowing;

typedef struct rd_setting {
    const char *name;
    rd_setting_kind kind;
    bool is_own;         /* the user's alone, in rd_config; the others are in rd_settings */
    bool is_in_language; /* may stand in an entry of `languages` */
    rd_narrowing project;
    size_t at;                /* in that struct */
    int least, most;          /* of a count */
    const char *const *words; /* of a mode or a level; NULL behind the last */
    const char *environment, *help;
} rd_setting;

extern const rd_setting rd_settings_table[];
extern const size_t rd_settings_count;

/* By its name, or NULL. */
const rd_setting *rd_setting_find(const char *name);

/* A value that was read and is right, but not stored. `text` is borrowed from the JSON. */
typedef struct rd_setting_value {
    bool flag;
    double number;
    const char *text;
} rd_setting_value;

/* False when `j` is no single value of the setting's kind. */
bool rd_setting_read(const rd_setting *s, const json_t *j, rd_setting_value *out);
void rd_setting_store(const rd_setting *s, const rd_setting_value *v, void *place);
/* A name of letters, digits and the characters of `also`. */
bool rd_setting_is_name(const char *text, const char *also);
/* The text of a string that holds no NUL, or NULL. */
const char *rd_setting_text(const json_t *j);

/* For complaints and the page. Quoted text is ASCII and cut: it may come from a project and end in a terminal. */
void rd_setting_write_expected(rd_buf *out, const rd_setting *s);
void rd_setting_write_value(rd_buf *out, const rd_setting *s, const void *place);
void rd_setting_write_json(rd_buf *out, const json_t *value);
void rd_setting_write_text(rd_buf *out, const char *text);

/* All defaults; and what that holds freed. */
void rd_config_init(rd_config *c);
void rd_config_clear(rd_config *c);

#endif
