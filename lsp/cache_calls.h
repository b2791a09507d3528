/* cache_calls.h - what `redraft cache` does with the user's cache file, with or without a daemon that uses it. */
#ifndef RD_LSP_CACHE_CALLS_H
#define RD_LSP_CACHE_CALLS_H

#include "core/base/status.h"

#include <stdbool.h>

/* All print to stdout what there is or what was done. Where the file is comes from the user's settings. */

rd_status rd_cache_call_stat(bool json, rd_error *err);
/* RD_INVALID: there were wrong rows; they are removed. */
rd_status rd_cache_call_verify(rd_error *err);
/* Below 0: as the settings say. */
rd_status rd_cache_call_trim(int megabytes, int days, rd_error *err);
/* In the memory of every daemon of this user that runs, and in the file. */
rd_status rd_cache_call_purge(rd_error *err);

#endif
