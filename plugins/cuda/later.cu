/* later.cu - stands in for verbs that have no file yet; each goes when its file comes. */
#include "plugins/cuda/device.h"

#define LATER(name, ...)                                                        \
    __attribute__((weak)) rd_status name(__VA_ARGS__, rd_error *err)            \
    {                                                                           \
        return rd_fail(err, RD_INVALID, #name " is not there yet");             \
    }

LATER(cuda_take, rd_device *, const rd_matrix *, bool, rd_weight **)
LATER(cuda_linear, rd_device *, rd_view, rd_view, const rd_weight *)
LATER(cuda_mlp, rd_device *, rd_view, rd_view, const rd_mlp *)
LATER(cuda_moe, rd_device *, rd_view, rd_view, const rd_moe *)
LATER(cuda_kv_open, rd_device *, const rd_kv_shape *, rd_kv **)
LATER(cuda_kv_read, rd_device *, const rd_kv *, int, void *)
LATER(cuda_kv_write, rd_device *, rd_kv *, int, const void *)
LATER(cuda_attention, rd_device *, rd_view, rd_view, const rd_attention *)
LATER(cuda_pick, rd_device *, rd_view, const rd_weight *, const rd_pick_query *, rd_pick *)
__attribute__((weak)) void cuda_drop(rd_device *, rd_weight *) {}
__attribute__((weak)) void cuda_kv_close(rd_device *, rd_kv *) {}
__attribute__((weak)) size_t cuda_kv_block_bytes(rd_device *, const rd_kv *) { return 0; }
