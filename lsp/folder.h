/* folder.h - the rules that hold in one folder: which files they come from, and whether those changed. For scope.c alone.
 *
 * The files are the project's, so they are read as a stranger's: regular files only, without waiting, a limited number
 * of bytes. Rules that are there and cannot be read refuse the whole folder: dropping them would be a leak.
 */
#ifndef RD_LSP_FOLDER_H
#define RD_LSP_FOLDER_H

#include "lsp/settings.h"

/* How long an answer about files is good; a keystroke shall not look at ten of them. */
#define RD_LOOK_MS 250.0

/* What all folders of a scope share. */
typedef struct rd_ground {
    const rd_settings *user;
    char **roots; /* the workspace folders, resolved */
    int n_roots;
    uint64_t serial; /* of the last rules made */
    json_t *told;    /* the complaints that were said */
    rd_buf complaints;
} rd_ground;

typedef struct rd_folder {
    char *path;      /* resolved, without a slash at the end */
    uint64_t serial; /* other rules have another; 0: none yet */
    rd_rules *rules;
    char *refusal; /* why nothing in it may be read; NULL: the rules decide */
    rd_buf stamps; /* what the files looked like */
    bool is_fresh; /* one changed so lately that it may change again unseen */
    double looked_ms;
    uint64_t used; /* scope.c's clock */
} rd_folder;

rd_folder *rd_folder_new(const char *path, size_t n);
void rd_folder_free(rd_folder *f);
/* Load the rules, or load them again where files changed; looks at them every RD_LOOK_MS at most. */
void rd_folder_look(rd_folder *f, rd_ground *g, double now_ms);
/* The built-in rules and the user's. */
rd_rules *rd_ground_rules(rd_ground *g);
void rd_ground_complain(rd_ground *g, const char *path, const char *text);

#endif
