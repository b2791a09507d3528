/* answer.h - finished answers as they are kept: under which name, and as which bytes.
 *
 * The name is made of everything that decides the answer, the decoder's number with it, but the model, which is named
 * beside it. The bytes come back from a file that anybody may have written: a wrong length, count or number is no answer.
 * Pure; any thread.
 */
#ifndef RD_LSP_ANSWER_H
#define RD_LSP_ANSWER_H

#include "core/base/key.h"
#include "lsp/job.h"

enum { RD_MOST_ANSWER_BYTES = 1 << 20 }; /* of one that is kept */

/* Whether the job's kind has answers that may be kept, and its maker does not forbid it. */
bool rd_answer_is_kept(const rd_job *job);
/* Under which name this program keeps the job's answers, and one whose decoder has the number `decoding`. */
rd_key rd_answer_key(const rd_job *job);
rd_key rd_answer_key_of(const rd_job *job, int decoding);
/* Append the answers of a last event. False, and nothing is appended, for one that must not be kept: it failed, ran out of
 * time, is too large, or holds a line of another file, whose exclusion would not find it here. */
bool rd_answer_write(const rd_event *ev, rd_buf *out);
/* Into an event that has none yet: answers, reason, tokens; `*ms` (may be NULL): how long they took once. False: not an answer; the
 * event is as it was. */
bool rd_answer_read(const void *bytes, size_t n, rd_event *ev, double *ms);

#endif
