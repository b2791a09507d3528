/* session.h - one connection with everything around it made up of the fuzzer's bytes: what the peer says, when the model
 * answers and what, how the clock goes.
 *
 * A trap is a finding: a request that is answered twice or never, a job that is lost or cancelled after it was given back,
 * output that is no framed message.
 */
#ifndef RD_FUZZ_SESSION_H
#define RD_FUZZ_SESSION_H

#include "lsp/conn.h"
#include "tests/fake/forms.h"

typedef struct session_kind {
    rd_protocol protocol;
    const form *forms;
    size_t n_forms;
    const form *beginning; /* said first, most of the time */
    size_t n_beginning;
    const char *const *roots;
    int n_roots;
} session_kind;

/* A whole session, from its first byte to its end. */
void session_run(const session_kind *kind, const unsigned char *data, size_t n);

#endif
