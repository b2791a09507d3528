/* tidy.h - an answer of the model to the text that is offered: nothing said twice, indented like the file.
 *
 * Pure; any thread.
 */
#ifndef RD_LSP_TIDY_H
#define RD_LSP_TIDY_H

#include "core/base/buf.h"

#include <stddef.h>

/* What stands around the place. The more of it, the surer the file's way to indent. */
typedef struct rd_around {
    const char *before, *behind;
    size_t before_n, behind_n;
    int tab_size; /* the editor's; 0: not known */
    enum { RD_INDENT_UNKNOWN, RD_INDENT_TABS, RD_INDENT_SPACES } indent; /* the editor's */
} rd_around;

/* Change `text` in place: line ends become `\n`; a closing bracket or quote, a space, a line end or a piece of the suffix that
 * stands behind the place already is left out; a stray space after a space goes; lines but the first are indented with what
 * the file is indented with. It may become empty. */
void rd_tidy(const rd_around *a, rd_buf *text);

#endif
