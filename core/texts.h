/* texts.h - all texts that a run weighed, for whoever fits the numbers that weigh them or shows more than one.
 *
 * Not part of the face of the engine: a program that embeds it wants one answer. A weighed run fills its
 * canvases to the end whatever its draft says, so that each text is seen as often as there are holes. Implemented
 * in engine.c.
 */
#ifndef RD_TEXTS_H
#define RD_TEXTS_H

#include "core/decode/hole.h"
#include "core/engine.h"

/* An infill whose model need not be calibrated; stepped and closed like any run. */
rd_status rd_run_open_weighed(rd_engine *e, const rd_request *rq, rd_run **out, rd_error *err);
/* Text `i` of a run that is done, appended: the hole's text, the model's others, then the drafts, one of which may
 * be the hole's text once more. Cut where the suffix begins, as an answer is. False: there are no more; always so
 * for RD_GENERATE. */
bool rd_run_text_at(const rd_run *r, int i, rd_hole_text *out, rd_buf *text);
/* At this place of the dial a draft that is likelier ends a run at once. */
float rd_engine_takes_draft(float quality);

#endif
