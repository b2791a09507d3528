/* roots.h - files that an agent may name: those below the --root folders, read whole.
 *
 * The kernel resolves the path (openat2): nothing outside a root is reached by "..", by a link or by a name under /proc, however the
 * folders change meanwhile. Links that stay below the root are followed, since projects have such; what they lead to is what
 * the exclusion rules judge. Only regular files of UTF-8 are read, and only small ones, because the loop thread waits
 * for the disk. What an editor holds open is never looked at. Loop thread.
 */
#ifndef RD_LSP_ROOTS_H
#define RD_LSP_ROOTS_H

#include "core/base/buf.h"
#include "lsp/settings.h"

/* A file that was found below a root. */
typedef struct rd_root_file {
    char *real; /* its name, links resolved; NULL: it cannot be told. The caller's to free */
    bool excluded;
} rd_root_file;

typedef struct rd_roots {
    const char *const *folders; /* absolute paths; borrowed */
    int n;
    rd_scope *scope; /* says which files are excluded; borrowed */
} rd_roots;

/* Append the file that `path` names: relative to a root, the first that has it, or absolute and below one. Fails with
 * RD_NOT_FOUND or RD_INVALID and a sentence that an agent can act on; nothing is appended then. *file is filled where an
 * excluded one was found, too. */
rd_status rd_roots_read(const rd_roots *r, const char *path, rd_buf *out, rd_root_file *file,
                        rd_error *err);

#endif
