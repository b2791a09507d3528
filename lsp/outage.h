/* outage.h - the cache is out of order: why, until when, and each reason said once in the log.
 *
 * Whoever meets an error reports it here; for a while nobody tries again. Any thread.
 */
#ifndef RD_LSP_OUTAGE_H
#define RD_LSP_OUTAGE_H

#include "core/base/status.h"

#include <pthread.h>
#include <stdbool.h>

enum { RD_OUTAGE_REASONS = 16 }; /* remembered; with more the log may say one again */

typedef struct rd_outage {
    pthread_mutex_t mutex;
    int for_ms;
    double until_ms;
    char why[sizeof(((rd_error *)0)->text)]; /* "": nothing is wrong */
    char said[RD_OUTAGE_REASONS][sizeof(((rd_error *)0)->text)];
    int n_said;
} rd_outage;

void rd_outage_init(rd_outage *o, int for_ms);
void rd_outage_clear(rd_outage *o);
void rd_outage_begin(rd_outage *o, const rd_error *err);
/* It was tried again, and works. */
void rd_outage_end(rd_outage *o);
bool rd_outage_is(rd_outage *o);
/* The last reason; "" where all is well. */
void rd_outage_why(rd_outage *o, char *out, size_t n);

#endif
