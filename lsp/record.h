/* record.h - what a daemon leaves behind: its log, and one line for each death. Both in the user's state folder, 0600.
 *
 * A line names the time, the process, the signal and what the inference thread did ("infill step 3"), never text. What
 * cannot be opened is not written: a record is no reason to fail. The state is static, since a signal handler needs it.
 */
#ifndef RD_LSP_RECORD_H
#define RD_LSP_RECORD_H

#include "core/base/log.h"

#include <stdbool.h>
#include <stddef.h>

/* Open the folder and the list of deaths. Call before threads start. */
void rd_record_open(void);
void rd_record_close(void);
/* From now on rd_log writes into the folder's daemon.log, at most two files of RD_MOST_LOG_BYTES. False when there
 * is no folder. */
bool rd_record_log(rd_log_level level);
/* Signals that end the process write their line first. `now` is called in the handler with `of`; NULL: nobody to ask. */
void rd_record_crashes(const char *(*now)(const void *of), const void *of);
/* A daemon is gone without a word; where it wrote its own line there is no second one. */
void rd_record_lost(long pid);
/* How many deaths there are, and the last line ("" without). */
int rd_record_deaths(char *last, size_t n);

#endif
