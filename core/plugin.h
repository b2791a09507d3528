/* plugin.h - the backends there are: linked-in ones first. */
#ifndef RD_PLUGIN_H
#define RD_PLUGIN_H

#include "core/backend.h"

/* Defined in plugins/cpu and linked in; declared here because core includes nothing of plugins. */
const rd_backend *rd_cpu_backend(void);

/* By name; "auto" or NULL: the best there is. RD_NOT_FOUND says why a known one is missing. */
rd_status rd_backend_find(const char *name, const rd_backend **out, rd_error *err);

/* Line i of the list for `redraft plugins`: name, and why it was refused (NULL: usable). False at the
 * end. */
bool rd_backend_list(int i, const char **name, const char **refused);

#endif
