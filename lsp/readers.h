/* readers.h - connections that read blocks out of the cache, a thread each: one copies while another waits for the kernel.
 *
 * The first belongs to the caller's thread; the others are opened when a load is large enough to share, and sleep otherwise. A
 * file that was set aside and made anew is opened again. All calls from one thread.
 */
#ifndef RD_LSP_READERS_H
#define RD_LSP_READERS_H

#include "cache/cache.h"
#include "core/model/kv_pack.h"
#include "lsp/outage.h"
#include "lsp/scribe.h"

typedef struct rd_readers rd_readers;

/* All are borrowed until free. `n`: threads, the caller's included; 0: as many as are of use here. */
rd_readers *rd_readers_new(const rd_cache_options *o, rd_scribe *scribe, rd_outage *outage, int n);
void rd_readers_free(rd_readers *r);

/* The caller's connection; NULL: there is no file, or it does not work. */
rd_cache *rd_readers_first(rd_readers *r);
/* The first connection met this: what is more than a miss closes it, and begins an outage. */
void rd_readers_missed(rd_readers *r, rd_status status, const rd_error *err);
/* Nobody has to wait for these connections any more. */
void rd_readers_rest(rd_readers *r);
/* rd_kv_store's load. */
int rd_readers_load(rd_readers *r, const rd_kv_geometry *g, const rd_kv_want *wants, int n);

#endif
