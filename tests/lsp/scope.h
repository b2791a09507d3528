/* scope.h - the exclusion predicate without settings and ignore files: the built-in names alone.
 *
 * Include once in a program: it stands in for that part of settings.c.
 */
#ifndef TESTS_LSP_SCOPE_H
#define TESTS_LSP_SCOPE_H

#include "core/base/memory.h"
#include "lsp/settings.h"

#include <stdlib.h>

struct rd_scope {
    rd_rules *rules;
};

rd_scope *rd_scope_new(const rd_settings *user, const char *const *folders, int n_folders)
{
    rd_scope *s = rd_alloc0(sizeof *s);

    (void)user;
    (void)folders;
    (void)n_folders;
    s->rules = rd_rules_new((size_t)8 << 20);
    return s;
}

void rd_scope_free(rd_scope *s)
{
    rd_rules_free(s->rules);
    free(s);
}

rd_verdict rd_scope_excluded(rd_scope *s, const char *uri_or_path, size_t bytes, const char *head,
                             size_t head_n, const char **why)
{
    rd_candidate c = { uri_or_path, bytes, head, head_n };

    return rd_excluded(s->rules, &c, why);
}

#endif
