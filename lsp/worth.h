/* worth.h - whether ghost text that nobody asked for is worth a look.
 *
 * A few answers are known to be wrong by their form alone, however sure the model is of them. Who asks gets them all the
 * same. Pure; any thread.
 */
#ifndef RD_LSP_WORTH_H
#define RD_LSP_WORTH_H

#include "lsp/tidy.h"

/* Why `text`, tidied, is not worth showing: the end of a sentence about it, in static memory; NULL: it is. */
const char *rd_unworthy(const rd_around *a, const char *text, size_t n);

#endif
