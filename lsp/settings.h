/* settings.h - the one table of settings: names, types, defaults, who may set them; and where their values come from.
 *
 * Later wins: default, the user's file, environment, command line; then, for each client, `initializationOptions` and
 * `workspace/configuration`; a project's own file only narrows. What loads code, reads weights or sends text elsewhere is the user's
 * alone. A wrong value keeps the one before and is complained of once. Pure but for reading the user's file.
 */
#ifndef RD_LSP_SETTINGS_H
#define RD_LSP_SETTINGS_H

#include "core/base/buf.h"
#include "core/base/status.h"
#include "lsp/exclude.h"

#include <jansson.h>
#include <stdbool.h>

typedef enum rd_source { RD_FROM_USER, RD_FROM_CLIENT, RD_FROM_PROJECT } rd_source;

/* What a client's requests obey, where nothing else is said for a language or file. */
typedef struct rd_settings {
    bool enable;
    bool subtle;           /* mode "subtle" and not "eager": no ghost text while a menu is open */
    double quality;        /* 0..1 */
    double min_confidence; /* 0..1; below 0: the model's own gate */
    int max_ms, debounce_ms;
    bool diagnostics, completion, draft;
    bool cache;        /* finished work is kept in a file */
    json_t *exclude;   /* array of patterns */
    json_t *languages; /* object: language to bool, or object of the above */
} rd_settings;

/* The process' own: model, backend, threads, what is kept, times of the daemon, log. */
typedef struct rd_config {
    rd_settings client;                             /* the user's settings for every client */
    char *model, *backend, *cache_dir, *plugin_dir; /* NULL: the usual one; paths are absolute */
    bool backend_fallback;
    char *log;                /* "error", "warn", "info" or "debug" */
    char *cache_format;       /* "raw", "bf16" or "int8" */
    int cache_mb, cache_days; /* 0: no file; whatever its age */
    bool cache_any_place;
    int pool_mb; /* 0: a usual amount */
    int threads;
    int idle_unload_s, idle_exit_s;
} rd_config;

/* Defaults, the user's file (`path`; NULL: the usual place), the environment. Complaints are appended as lines. Never fails. */
rd_config *rd_config_new(const char *path, rd_buf *complaints);
void rd_config_free(rd_config *c);

void rd_settings_init(rd_settings *s, const rd_settings *from);
void rd_settings_clear(rd_settings *s);
/* Take what stands in an object of settings (the section `redraft`). Complaints are appended as lines, each naming the setting
 * and what is wrong; `told` (an object, may be NULL) remembers those already said, by setting and value. The lists of `exclude`
 * add up and entries of `languages` are merged: what a client no longer says is gone only from settings made anew. */
void rd_settings_merge(rd_settings *s, rd_source source, const json_t *value, json_t *told,
                       rd_buf *complaints);
/* The page of all settings, Markdown: docs/config.md is made of it. */
void rd_settings_page(rd_buf *out);

/* ---- what holds for one file ---- */

/* The exclusion rules and file settings of the folders a client works in. Answers are remembered; what changes in the
 * files, the links or `user` holds 250 ms later at the latest. */
typedef struct rd_scope rd_scope;

/* For workspace folders (absolute paths, maybe none). `user` is borrowed. */
rd_scope *rd_scope_new(const rd_settings *user, const char *const *folders, int n_folders);
void rd_scope_free(rd_scope *s);
/* The predicate for a document or file: a URI or an absolute path, its text's size and first bytes. Links are resolved,
 * ignore files and the project's settings between the workspace folder (without one: the file's top folder that holds `.git`,
 * else its own) and the file are loaded, and loaded again when they changed. A link is judged by both of its names. What has no
 * file is judged by the names in its URI and by its text. Rules that cannot be read exclude. *why as in rd_excluded, borrowed
 * until the next call. */
rd_verdict rd_scope_excluded(rd_scope *s, const char *uri_or_path, size_t bytes, const char *head,
                             size_t head_n, const char **why);
/* What names it as the origin of work that is kept: its resolved path, else as it was asked. Borrowed until the next call. */
const char *rd_scope_source(rd_scope *s, const char *uri_or_path);
/* The settings that hold for it. */
rd_file_settings rd_scope_settings(rd_scope *s, const char *uri_or_path, const char *language);
/* Append what was wrong in the files that were loaded since the last call, a line each, for the log. */
void rd_scope_complaints(rd_scope *s, rd_buf *out);

/* "file:///a%20b" to "/a b"; false for other schemes, hosts and bad escapes. `out` gets a NUL. */
bool rd_path_of_uri(const char *uri, char *out, size_t n);
void rd_uri_of_path(const char *path, rd_buf *out);

#endif
