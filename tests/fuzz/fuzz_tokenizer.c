/* fuzz_tokenizer.c - libFuzzer: any bytes as a file of this kind. */
#include "core/format/tokenizer.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n)
{
    static const char text[] =
        "int main(void)\n{\n\treturn 0; /* <|mask|> caf\303\251 \377 */\n}\n";
    rd_tokenizer *t = NULL;
    rd_ids ids = { 0 };
    rd_buf back = { 0 };

    if (rd_tokenizer_parse((const char *)data, n, "fuzz", &t, NULL)) return 0;
    for (int kind = 0; kind < 2; kind++) {
        rd_ids_reset(&ids);
        rd_buf_reset(&back);
        if (rd_tokenizer_encode(t, text, sizeof text - 1, kind ? RD_TEXT_ADDED : RD_TEXT_PLAIN,
                                &ids, NULL))
            continue;
        for (int i = 0; i < ids.n; i++) /* text never becomes a control token */
            if (kind == 0 && rd_tokenizer_is_added(t, ids.id[i])) __builtin_trap();
        rd_tokenizer_decode(t, ids.id, ids.n, false, &back);
    }
    rd_ids_clear(&ids);
    rd_buf_clear(&back);
    rd_tokenizer_close(t);
    return 0;
}
