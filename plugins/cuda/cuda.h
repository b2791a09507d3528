/* cuda.h - the plugin's symbol, and what its tests ask beside the table. */
#ifndef RD_CUDA_H
#define RD_CUDA_H

#ifdef __cplusplus
extern "C" {
#endif

#include "core/backend.h"

#define CUDA_EXPORT __attribute__((visibility("default")))

CUDA_EXPORT const rd_backend *rd_backend_entry(void);

/* Passes by how they ran: made into a graph, run as one, launched command by command. */
CUDA_EXPORT void cuda_passes(const rd_device *d, int64_t *captured, int64_t *replayed, int64_t *launched);

#ifdef __cplusplus
}
#endif

#endif
