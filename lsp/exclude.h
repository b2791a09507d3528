/* exclude.h - the one predicate that says whether a file may be read, quoted, asked about or kept; and what is set for it.
 *
 * Context, LSP and MCP all ask here, with the resolved path. Names of secrets are built in, and only the user's own
 * patterns take one of them back. A project can exclude more and never less: its files and settings are judged apart.
 * Excluding ignores the case of letters, taking back does not; rules that take too long to judge exclude. Pure but for the rule set, which is filled
 * before it is asked; reading it: any thread.
 */
#ifndef RD_LSP_EXCLUDE_H
#define RD_LSP_EXCLUDE_H

#include "core/base/status.h"

#include <stdbool.h>
#include <stddef.h>

typedef enum rd_verdict {
    RD_ALLOWED,
    RD_EXCLUDED_SECRET,  /* its name, or a private key at its beginning */
    RD_EXCLUDED_USER,    /* a pattern of the user's settings */
    RD_EXCLUDED_PROJECT, /* a pattern of the project's settings */
    RD_EXCLUDED_IGNORED, /* an ignore file */
    RD_EXCLUDED_SIZE,
    RD_EXCLUDED_BINARY,
    RD_EXCLUDED_PATH /* too long, too deep, or not an absolute resolved path */
} rd_verdict;

typedef enum rd_layer { RD_LAYER_USER, RD_LAYER_PROJECT } rd_layer;

typedef struct rd_rules rd_rules;

typedef struct rd_candidate {
    const char
        *path; /* absolute, links resolved, without "." and ".."; NULL for a text without a file */
    size_t bytes;     /* of the whole file or text */
    const char *head; /* its first bytes, as many as there are at hand; a few thousand are enough */
    size_t head_n;
} rd_candidate;

/* With the built-in names. Files over `most_bytes` are excluded. */
rd_rules *rd_rules_new(size_t most_bytes);
void rd_rules_free(rd_rules *r);
/* One pattern of a setting, in the syntax of glob.h. `root`: the folder it counts from, "/" for the user's. Fails with
 * RD_INVALID, and excludes everything below `root` from then on, past the limits of limits.h: a rule that is dropped
 * would be a leak. */
rd_status rd_rules_pattern(rd_rules *r, rd_layer layer, const char *root, const char *pattern,
                           rd_error *err);
/* The lines of an ignore file in `folder`. The order in which files are added does not matter: those of deeper folders count
 * later. Fails as above. */
rd_status rd_rules_ignore_file(rd_rules *r, const char *folder, const char *bytes, size_t n,
                               rd_error *err);

/* The predicate. *why (may be NULL): the pattern, borrowed from the rules, or a few words. */
rd_verdict rd_excluded(const rd_rules *r, const rd_candidate *c, const char **why);

/* ---- what is set for a file ---- */

typedef struct rd_file_settings {
    bool enabled;
    bool uncached;                  /* what is made for it stays in memory */
    double quality, min_confidence; /* 0 to 1; min_confidence below 0: the model's own gate */
    double least_confidence;        /* a project's, where it is the gate: rd_file_confidence */
    int max_ms, debounce_ms;
} rd_file_settings;

/* Fields of a setting: those that are not set are left alone. */
typedef struct rd_file_setting {
    const char *language, *pattern; /* for whom: NULL is any; a pattern counts from `root` */
    const char *root;
    const bool *enabled, *uncached;
    const double *quality, *min_confidence;
    const int *max_ms, *debounce_ms;
} rd_file_setting;

/* Copies it. Later ones win over earlier ones of the user; those of a project only switch off, raise min_confidence and
 * debounce_ms and lower max_ms. Fails with RD_INVALID, naming the field, for a value out of range. */
rd_status rd_rules_setting(rd_rules *r, rd_layer layer, const rd_file_setting *s, rd_error *err);
/* `defaults` with all settings that are for this file. */
rd_file_settings rd_settings_for(const rd_rules *r, const char *path, const char *language,
                                 rd_file_settings defaults);

/* Below what confidence nothing is shown unasked, for a model with this gate: no project lowers it. */
double rd_file_confidence(const rd_file_settings *s, double gate);

#endif
