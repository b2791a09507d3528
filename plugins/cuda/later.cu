/* later.cu - stands in for verbs that have no file yet; each goes when its file comes. */
#include "plugins/cuda/device.h"

#define LATER(name, ...)                                                        \
    __attribute__((weak)) rd_status name(__VA_ARGS__, rd_error *err)            \
    {                                                                           \
        return rd_fail(err, RD_INVALID, #name " is not there yet");             \
    }

LATER(cuda_moe, rd_device *, rd_view, rd_view, const rd_moe *)
