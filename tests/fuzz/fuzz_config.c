/* fuzz_config.c - libFuzzer: any bytes as a file of this kind. */
#include "core/format/config.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n)
{
    rd_model_config c;

    if (rd_config_parse((const char *)data, n, "fuzz", &c, NULL)) return 0;
    if (rd_config_check(&c, "fuzz", NULL))
        __builtin_trap(); /* what was read passes its own check */
    return 0;
}
