/* plugin.h - the backends there are: the linked-in one, and shared objects that are loaded when somebody asks for them.
 *
 * A plugin is a file libredraft-NAME.so that exports `rd_backend_entry` (core/backend.h). It is looked for in the user's
 * folder, if one was named; in `redraft` beside the library and where it was installed; and, for a program that stands in
 * its build tree, in the tree. The first file of a name counts. It is checked (core/plugin_file.h) before it is loaded, its
 * table after; what does not fit is refused with a reason and looked at again the next time. What was loaded stays so until
 * the process ends. Any thread.
 */
#ifndef RD_PLUGIN_H
#define RD_PLUGIN_H

#include "core/backend.h"

enum { RD_PLUGIN_NAME_BYTES = 64 };

/* Defined in plugins/cpu and linked in; declared here because core includes nothing of plugins. */
const rd_backend *rd_cpu_backend(void);

/* Look into FOLDER (absolute) too, before all others. RD_NOT_FOUND, RD_INVALID: it is no folder, and is not looked into. */
rd_status rd_plugins_look(const char *folder, rd_error *err);

/* By name; "auto" or NULL: the best that has a device here. RD_NOT_FOUND: there is none of that name; else why it cannot be
 * used. The table is good for the life of the process, and has NULL where the plugin is older than a field. */
rd_status rd_backend_find(const char *name, const rd_backend **out, rd_error *err);
bool rd_backend_is_auto(const char *name);
/* The name to find where an instruction set (NULL: none) was asked for: those are the CPU's. */
const char *rd_backend_for_isa(const char *name, const char *isa);

/* Something else that the plugin of a backend exports, such as an entry for the trainer. RD_NOT_FOUND: it has none. */
typedef void (*rd_plugin_entry)(void);
rd_status rd_plugin_symbol(const char *name, const char *symbol, rd_plugin_entry *out,
                           rd_error *err);

typedef struct rd_plugin_row {
    char name[RD_PLUGIN_NAME_BYTES];
    const rd_backend *backend; /* NULL: it cannot be used */
    char why[256];             /* it cannot; else "" */
} rd_plugin_row;

/* All of them, loading what may be loaded: cpu, cuda whether it is there or not, then what else lies in the folders by
 * name. The caller frees *out. */
size_t rd_plugins_list(rd_plugin_row **out);

#endif
