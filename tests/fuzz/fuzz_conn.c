/* fuzz_conn.c - libFuzzer: an editor's whole connection, from `initialize` to its end (session.h). */
#include "session.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n)
{
    const session_kind kind = { .protocol = RD_LSP,
                                .forms = forms_lsp,
                                .n_forms = forms_lsp_count,
                                .beginning = forms_lsp,
                                .n_beginning = 3 };

    session_run(&kind, data, n);
    return 0;
}
