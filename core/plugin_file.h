/* plugin_file.h - whether a shared object may be loaded: whose it is, who else can write it, and that it is whole.
 *
 * Loading runs its code with all of the user's rights, so nobody but root and the user may have had a hand in it. Any thread.
 */
#ifndef RD_PLUGIN_FILE_H
#define RD_PLUGIN_FILE_H

#include "core/base/status.h"

#include <limits.h>

/* The file NAME in FOLDER (absolute). It must be a regular file, no link; file and folder, and all folders above that one
 * once its links are resolved, must belong to root or the user and be writable by nobody else, where a folder above may be
 * sticky (/tmp). A file that was cut short is refused too: the loader would die of it. `real` gets the name to load it by.
 * RD_NOT_FOUND: there is no such folder or file; RD_INVALID says what is refused, and why. */
rd_status rd_plugin_file_check(const char *folder, const char *name, char real[PATH_MAX],
                               rd_error *err);

#endif
