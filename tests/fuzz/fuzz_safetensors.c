/* fuzz_safetensors.c - libFuzzer: any bytes as a file of this kind. */
#include "core/format/safetensors.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n)
{
    rd_safetensors *s = NULL;
    volatile unsigned char sum = 0;

    if (rd_safetensors_parse(data, n, "fuzz", &s, NULL)) return 0;
    for (int i = 0; i < rd_safetensors_count(s); i++) {
        const rd_tensor *t = rd_safetensors_at(s, i);

        /* Every byte that is shown must be readable. */
        if (t->bytes)
            sum ^= ((const unsigned char *)t->data)[0] ^
                   ((const unsigned char *)t->data)[t->bytes - 1];
        if (rd_safetensors_find(s, t->name) != t) __builtin_trap();
    }
    rd_safetensors_close(s);
    return 0;
}
