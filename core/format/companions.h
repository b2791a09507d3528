/* companions.h - the small files of a model folder that stand beside its weights, on their way to another folder.
 *
 * All are written beside their places before the first takes its own, so that a full disk changes nothing.
 */
#ifndef RD_FORMAT_COMPANIONS_H
#define RD_FORMAT_COMPANIONS_H

#include "core/format/file.h"

enum { RD_COMPANIONS_MOST = 8 };

/* A zeroed struct is ready to use. */
typedef struct rd_companions {
    rd_draft_file draft[RD_COMPANIONS_MOST];
    int n;
} rd_companions;

/* Config, generation settings, tokenizer, chat template and README of IN, those that are there. */
rd_status rd_companions_copy(rd_companions *c, const char *in, const char *out, rd_error *err);
/* Put them in place. */
rd_status rd_companions_finish(rd_companions *c, rd_error *err);
/* What was not finished is removed. */
void rd_companions_clear(rd_companions *c);

#endif
