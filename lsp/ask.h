/* ask.h - a request for ghost text as the client sends it: where, in front of what, in which style. By value. */
#ifndef RD_LSP_ASK_H
#define RD_LSP_ASK_H

#include "lsp/document.h"
#include "lsp/message.h"
#include "lsp/tidy.h"

typedef struct rd_ask {
    uint64_t ticket; /* 0: none */
    rd_id id;
    size_t at, end; /* what is replaced: nothing, or the range of the menu's choice */
    bool invoked;
    bool list;       /* textDocument/completion */
    char *chosen;    /* what a menu has chosen, to be put in front; NULL: there is no menu */
    double due;      /* when its job begins; 0: it has begun */
    double patience; /* until when it waits for the model to be loaded; 0: for ever */
    int seq;         /* of the draft sent last */
    rd_around style; /* indent and tab_size */
} rd_ask;

/* Place, menu and style out of the params of a request at `at` of `doc`, a known one; RD_INVALID names the field that
 * is wrong. What else `a` says stays. To be cleared, also after a failure. */
rd_status rd_ask_read(rd_ask *a, const rd_document *doc, rd_position at, const json_t *params,
                      rd_encoding e, rd_error *err);
void rd_ask_clear(rd_ask *a); /* it is none any more */

/* The cursor has a letter on both sides. */
bool rd_ask_is_inside_word(const rd_ask *a, const rd_document *doc);

#endif
