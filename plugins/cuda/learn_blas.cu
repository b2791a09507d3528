/* learn_blas.cu - cuBLAS by the name that the build gives (RD_CUBLAS), or, without one, as it is linked. */
#include "plugins/cuda/learn_blas.h"

#ifdef RD_CUBLAS

#include <dlfcn.h>
#include <string.h>

#define TEXT_OF(name) #name
#define TEXT(name)    TEXT_OF(name)

static rd_status find(void *library, const char *name, void *out, rd_error *err)
{
    void *function = dlsym(library, name);

    if (!function)
        return rd_fail(err, RD_DEVICE, "training on the GPU: %s has no %s", RD_CUBLAS, name);
    memcpy(out, &function, sizeof function);
    return RD_OK;
}

rd_status learn_blas_find(learn_blas *out, rd_error *err)
{
    void *library = dlopen(RD_CUBLAS, RTLD_LAZY | RTLD_LOCAL);

    if (!library) return rd_fail(err, RD_DEVICE, "training on the GPU: %s", dlerror());
    /* Some names are macros for the present form of a function. */
    if (find(library, TEXT(cublasCreate), &out->create, err) ||
        find(library, TEXT(cublasDestroy), &out->destroy, err) ||
        find(library, TEXT(cublasSetStream), &out->set_stream, err) ||
        find(library, TEXT(cublasSetWorkspace), &out->set_workspace, err) ||
        find(library, TEXT(cublasGemmEx), &out->gemm, err) ||
        find(library, TEXT(cublasGemmStridedBatchedEx), &out->gemm_many, err))
        return RD_DEVICE;
    return RD_OK;
}

#else

rd_status learn_blas_find(learn_blas *out, rd_error *err)
{
    (void)err;
    *out = { cublasCreate,       cublasDestroy, cublasSetStream,
             cublasSetWorkspace, cublasGemmEx,  cublasGemmStridedBatchedEx };
    return RD_OK;
}

#endif
