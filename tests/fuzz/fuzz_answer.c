/* fuzz_answer.c - libFuzzer: any bytes as a kept answer; what is read is written again as the same bytes. */
#include "lsp/answer.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n)
{
    rd_job job = { 0 };
    rd_event ev = { .job = &job, .done = true };
    rd_buf again = { 0 };

    if (!rd_answer_read(data, n, &ev, &ev.ms)) return 0;
    if (!rd_answer_write(&ev, &again) || again.len != n) __builtin_trap();
    /* A time of -0 comes back as it was: the bytes are equal, not the numbers alone. */
    if (memcmp(again.data, data, n) != 0) __builtin_trap();
    for (int i = 0; i < ev.n_answers; i++) {
        if (!(ev.answers[i].confidence >= 0 && ev.answers[i].confidence <= 1)) __builtin_trap();
        rd_buf_clear(&ev.answers[i].text);
    }
    rd_buf_clear(&again);
    return 0;
}
